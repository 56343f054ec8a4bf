-- Records that dvmig did not load: which ones the lookups of staging tables need.

CREATE FUNCTION dvmig._references_of(tables text[])
RETURNS TABLE (referenced_table text, match_on text, keys_sql text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT c.referenced_table, array_to_string(c.match_on, ','),
		'SELECT array_agg(DISTINCT k) FROM (' || string_agg(format(
			'SELECT %s AS k FROM %s s WHERE s.processing_flag IN (''U'', ''S'') AND s.action_flag <> ''D''',
			(SELECT string_agg(format('lower((%s)::text)', e), ' || chr(31) || ' ORDER BY i)
			 FROM unnest(c.expression_sql) WITH ORDINALITY u(e, i)), c.staging), ' UNION ALL ')
		|| ') q WHERE k IS NOT NULL'
	FROM dvmig.column_map c
	WHERE c.kind = 'reference' AND c.staging::text = ANY ($1)
	GROUP BY c.referenced_table, c.match_on
$$;
COMMENT ON FUNCTION dvmig._references_of(text[]) IS 'for each referenced table and key: SQL of the keys that unprocessed rows of these staging tables need';

CREATE FUNCTION dvmig._run_references(run bigint)
RETURNS TABLE (referenced_table text, match_on text, keys_sql text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT * FROM dvmig._references_of((SELECT array_agg(DISTINCT t.staging) FROM dvmig.run_table t WHERE t.run = $1))
$$;
COMMENT ON FUNCTION dvmig._run_references(bigint) IS 'keys of existing records that the lookups of a run need';

CREATE FUNCTION dvmig._refresh_references(caller oid, migration text)
RETURNS TABLE (referenced_table text, match_on text, keys bigint, found bigint, missing bigint, ambiguous bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'operator');
	r record;
	wanted text[];
BEGIN
	FOR r IN SELECT q.* FROM dvmig._references_of((SELECT array_agg(t.staging::text) FROM dvmig.migration_table t
			WHERE t.migration_id = m.migration_id)) q ORDER BY 1, 2 LOOP
		wanted := coalesce((SELECT q FROM dvmig._query_as(m.owner, r.keys_sql) q)::text[], '{}');
		referenced_table := r.referenced_table;
		match_on := r.match_on;
		keys := cardinality(wanted);
		IF keys > 0 THEN
			PERFORM dvmig._read_reference(caller, m.server, r.referenced_table, string_to_array(r.match_on, ','), wanted);
		END IF;
		SELECT count(f.record_id), count(*) FILTER (WHERE f.matches > 1) INTO found, ambiguous
		FROM dvmig.reference f
		WHERE f.server = m.server AND f.table_name = r.referenced_table AND f.match_on = r.match_on AND f.match_key = ANY (wanted);
		missing := keys - found - ambiguous;
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._refresh_references(oid, text) IS 'read the records that lookups need: see dvmig.refresh_references()';

CREATE FUNCTION dvmig.refresh_references(migration text)
RETURNS TABLE (referenced_table text, match_on text, keys bigint, found bigint, missing bigint, ambiguous bigint)
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.refresh_references(text) IS
	'look up the existing records (users, currencies ...) that unprocessed rows refer to with match_on, for dvmig.check() and dvmig.preview(); a run does so by itself';

-- adopt: records that are in Dataverse already become those of staging rows.

-- _adopt_candidates: condition for rows that have neither id nor success.
CREATE FUNCTION dvmig._adopt_candidates(t dvmig.migration_table) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('s.dataverse_id IS NULL AND s.action_flag <> ''D'' AND (%s) IS TRUE AND NOT EXISTS (SELECT FROM %s x WHERE %s)',
		coalesce(t.filter_sql, 'true'), t.success_table,
		(SELECT string_agg(format('x.%1$I = s.%1$I', k), ' AND ') FROM unnest(t.source_key) k))
$$;
COMMENT ON FUNCTION dvmig._adopt_candidates(dvmig.migration_table) IS 'condition for staging rows that have neither id nor success';

-- _adopt_key: the text by which a row is looked for, lower-cased as Dataverse compares.
CREATE FUNCTION dvmig._adopt_key(t dvmig.migration_table, match_on text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	cm dvmig.column_map;
	expression text;
BEGIN
	SELECT c.* INTO cm FROM dvmig.column_map c
	WHERE c.staging = t.staging AND c.target_column = lower(btrim(_adopt_key.match_on)) AND c.kind = 'value';
	IF cm.staging IS NULL THEN
		RAISE EXCEPTION 'no map fills column "%" of %', match_on, t.staging
			USING ERRCODE = 'undefined_object',
			HINT = 'Map the column that carries the key in Dataverse with dvmig.map_column(), or target_key in dvmig.add_table().';
	END IF;
	expression := dvmig._exact_cast(cm.expression_sql[1], cm.result_type, 'text');
	IF expression IS NULL THEN
		RAISE EXCEPTION 'the map of column "%" is of type % and cannot be matched on', cm.target_column, cm.result_type
			USING ERRCODE = 'datatype_mismatch', HINT = 'Match on a text, whole-number or unique-identifier column.';
	END IF;
	RETURN format('lower(%s)', expression);
END
$$;
COMMENT ON FUNCTION dvmig._adopt_key(dvmig.migration_table, text) IS 'SQL of the text by which a staging row is looked for in Dataverse';

CREATE FUNCTION dvmig._adopt(caller oid, staging regclass, match_on text,
	OUT adopted bigint, OUT ambiguous bigint, OUT absent bigint, OUT ambiguous_keys text[])
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table := dvmig._table(caller, staging, 'owner');
	m dvmig.migration;
	key_sql text := dvmig._adopt_key(t, match_on);
	candidates text := dvmig._adopt_candidates(t);
	keys text[];
	once_keys text[];
	once_ids uuid[];
	found_keys text[];
	result jsonb;
BEGIN
	PERFORM dvmig._refuse_during_run(t.migration_id);
	SELECT g.* INTO m FROM dvmig.migration g WHERE g.migration_id = t.migration_id;
	keys := ARRAY(SELECT q.k FROM dvmig._query_as(m.owner, format(
		'SELECT DISTINCT %s FROM %s s WHERE %s AND %1$s IS NOT NULL', key_sql, staging, candidates)) q(k));
	IF cardinality(keys) > 0 THEN
		SELECT array_agg(f.k), array_agg(f.k) FILTER (WHERE f.n = 1), array_agg(f.id) FILTER (WHERE f.n = 1)
		INTO found_keys, once_keys, once_ids
		FROM (SELECT r.match_key AS k, count(DISTINCT r.record_id) AS n, (array_agg(r.record_id))[1] AS id
			FROM dvmig._read_ids(caller, m.server::text, t.target, lower(btrim(match_on)), keys) r GROUP BY 1) f;
	END IF;
	-- One record for one row: a key on several rows, or a record that another
	-- row has already, is as ambiguous as several records of one key.
	result := dvmig._query_as(m.owner, format(
		'WITH c AS (SELECT %1$s AS k, concat_ws('', '', %2$s) AS source_key FROM %3$s s WHERE %4$s), '
		'once AS (SELECT k FROM c GROUP BY k HAVING count(*) = 1), '
		'f(k, id) AS (SELECT * FROM unnest(%5$L::text[], %6$L::uuid[])), '
		'u AS (UPDATE %3$s s SET dataverse_id = f.id FROM f JOIN once USING (k) WHERE %1$s = f.k AND %4$s '
		'AND NOT EXISTS (SELECT FROM %3$s o WHERE o.dataverse_id = f.id) RETURNING f.k, f.id), '
		'a AS (SELECT c.source_key FROM c WHERE c.k = ANY (%7$L::text[]) AND c.k NOT IN (SELECT u.k FROM u)) '
		'SELECT jsonb_build_object(''rows'', (SELECT count(*) FROM c), ''ids'', (SELECT coalesce(jsonb_agg(u.id), ''[]'') FROM u), '
		'''ambiguous'', (SELECT count(*) FROM a), ''keys'', (SELECT coalesce(jsonb_agg(q.source_key), ''[]'') FROM (SELECT a.source_key FROM a ORDER BY 1 LIMIT 100) q))',
		key_sql, (SELECT string_agg(format('s.%I', k), ', ' ORDER BY i) FROM unnest(t.source_key) WITH ORDINALITY u(k, i)),
		staging, candidates, coalesce(once_keys, '{}'), coalesce(once_ids, '{}'), coalesce(found_keys, '{}')))::jsonb;
	INSERT INTO dvmig.adopted (staging, dataverse_id) SELECT t.staging, i::uuid FROM jsonb_array_elements_text(result -> 'ids') i
	ON CONFLICT ON CONSTRAINT adopted_pkey DO NOTHING;
	adopted := jsonb_array_length(result -> 'ids');
	ambiguous := (result ->> 'ambiguous')::bigint;
	absent := (result ->> 'rows')::bigint - adopted - ambiguous;
	ambiguous_keys := ARRAY(SELECT jsonb_array_elements_text(result -> 'keys'));
	PERFORM dvmig._log(caller, m.name, 'adopt', staging::text, jsonb_build_object('match_on', match_on, 'adopted', adopted, 'ambiguous', ambiguous, 'absent', absent));
END
$$;
COMMENT ON FUNCTION dvmig._adopt(oid, regclass, text) IS 'internal part of dvmig.adopt()';

CREATE FUNCTION dvmig.adopt(staging regclass, match_on text,
	OUT adopted bigint, OUT ambiguous bigint, OUT absent bigint, OUT ambiguous_keys text[])
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.adopt(regclass, text) IS
	'look for records that are in Dataverse already, by a mapped column, and take their ids over to rows without success; ambiguous_keys names up to 100 source keys whose record is not certain';

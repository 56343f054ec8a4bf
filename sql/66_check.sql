-- dvmig.check(): what would fail, before anything is sent.

-- _check_finding: one finding, as it is collected.
CREATE FUNCTION dvmig._check_finding(severity text, staging text, target_column text, rule text, affected_rows bigint, sample_keys jsonb, message text, hint text) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT jsonb_build_object('severity', $1, 'staging', $2, 'target_column', $3, 'rule', $4, 'affected_rows', $5, 'sample_keys', $6, 'message', $7, 'hint', $8)
$$;
COMMENT ON FUNCTION dvmig._check_finding(text, text, text, text, bigint, jsonb, text, text) IS 'one finding of dvmig.check()';

-- ------------------------------------------------------------ of the definition

CREATE FUNCTION dvmig._check_maps_made(m dvmig.migration) RETURNS SETOF jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH t AS (SELECT mt.*, mt.staging::text AS name FROM dvmig.migration_table mt WHERE mt.migration_id = m.migration_id)
	SELECT dvmig._check_finding('warning', t.name, NULL, 'key_not_carried', NULL, NULL,
		'no column map carries the source key to Dataverse',
		'Without it no record can be traced to its source row there: map the key' || CASE WHEN cardinality(t.source_key) = 1
			THEN format(', for instance SELECT dvmig.set_table(%L, ''target_key'', ''...'')', t.name) ELSE '' END || '.')
	FROM t WHERE t.target_key IS NULL AND t.relationship IS NULL AND EXISTS (SELECT FROM unnest(t.source_key) k WHERE NOT EXISTS (
		SELECT FROM dvmig.column_map c, unnest(c.expression_sql) e WHERE c.staging = t.staging AND c.kind = 'value'
		  AND dvmig._uses_column(e, k)))
	UNION ALL
	SELECT dvmig._check_finding('warning', t.name, NULL, 'key_unguarded', NULL, NULL,
		'the source key is no longer unique and not null: rows that share a key become one record, and a row without one ends the run',
		format('Make columns %s NOT NULL, and give them a unique index of their own in this order.', (SELECT string_agg(quote_ident(k), ', ' ORDER BY i) FROM unnest(t.source_key) WITH ORDINALITY u(k, i))))
	FROM t JOIN pg_class r ON r.oid = t.staging
	WHERE NOT dvmig._is_unique(t.staging, t.source_key)
	   OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.staging AND a.attname = ANY (t.source_key) AND NOT a.attnotnull)
	UNION ALL
	SELECT dvmig._check_finding('error', t.name, NULL, 'outcome_rule', NULL, NULL,
		'outcome tables have rules, with which no outcome can be recorded: ' || r.names, 'Drop them. What they add a trigger can do.')
	FROM dvmig.migration_table mt CROSS JOIN LATERAL (SELECT mt.staging::text AS name) t CROSS JOIN LATERAL dvmig._rule_in_the_way(mt) r(names)
	WHERE mt.migration_id = m.migration_id AND r.names IS NOT NULL
	UNION ALL
	SELECT dvmig._check_finding('info', t.name, NULL, 'not_mapped', NULL, NULL,
		'staging columns that go nowhere: ' || string_agg(u.col, ', ' ORDER BY u.i), 'Map them, or leave them if they are not wanted in Dataverse.')
	FROM t, unnest(dvmig._unmapped(t.staging)) WITH ORDINALITY u(col, i)
	WHERE dvmig._uses_column(t.filter_sql, u.col) IS NOT TRUE GROUP BY t.name
	UNION ALL
	SELECT dvmig._check_finding('warning', t.name, array_to_string(k.key_columns, ', '), 'key_not_active', NULL, NULL,
		format('alternate key "%s" is %s, not active: Dataverse neither finds nor compares rows by it', k.key_name, lower(k.index_status)),
		'Wait until its index is built, or activate it again, and call dvmig.refresh_metadata().')
	FROM t JOIN dvmig.metadata_key k ON k.server = m.server AND k.table_name = t.target
	WHERE k.index_status <> 'Active'
	  AND k.key_columns <@ ARRAY(SELECT c.target_column FROM dvmig.column_map c WHERE c.staging = t.staging)
	UNION ALL
	SELECT dvmig._check_finding('info', w.staging::text, d, 'deferred', NULL, NULL,
		'the lookup goes in a circle: records are created without it, and get it by an update afterwards', 'Nothing to do; it costs one more request for each row that has a value.')
	FROM dvmig._waves(m.migration_id) w, unnest(w.deferred) d
	UNION ALL
	SELECT dvmig._check_finding('info', t.name, NULL, 'bulk_absent', NULL, NULL,
		format('Dataverse table "%s" does not offer %s', t.target, concat_ws(' and ', CASE WHEN NOT mt.create_multiple THEN 'CreateMultiple' END, CASE WHEN NOT mt.update_multiple THEN 'UpdateMultiple' END)),
		'Rows go one by one within $batch requests, which is slower.')
	FROM t JOIN dvmig.metadata_table mt ON mt.server = m.server AND mt.table_name = t.target
	WHERE NOT (mt.create_multiple AND mt.update_multiple)
	UNION ALL
	SELECT dvmig._check_finding('info', t.name, NULL, 'metadata_age', NULL, NULL,
		format('what is known of Dataverse table "%s" was read %s', t.target, CASE WHEN mt.refreshed_at < now() - interval '7 days'
			THEN format('%s days ago', extract(day FROM now() - mt.refreshed_at)) ELSE 'more than a day before the table was added' END),
		format('Call dvmig.refresh_metadata(%L, %L).', m.server, ARRAY[t.target]))
	FROM t JOIN dvmig.metadata_table mt ON mt.server = m.server AND mt.table_name = t.target
	WHERE mt.refreshed_at < greatest(t.created_at - interval '1 day', now() - interval '7 days')
$$;
COMMENT ON FUNCTION dvmig._check_maps_made(dvmig.migration) IS 'findings that follow from definition and metadata alone';

-- _check_volatile: deparsed expressions are compiled once more, which says
-- whether they are volatile, and whether all they name still exists.
CREATE FUNCTION dvmig._check_volatile(m dvmig.migration) RETURNS SETOF jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	c record;
BEGIN
	FOR c IN SELECT cm.staging, cm.target_column, cm.expression_sql AS e FROM dvmig.column_map cm JOIN dvmig.migration_table t USING (staging)
		WHERE t.migration_id = m.migration_id ORDER BY t.position, cm.position LOOP
		BEGIN
			IF (SELECT x.is_volatile FROM dvmig._compile_expressions(m.owner, c.staging, array_to_string(c.e, ', '), cardinality(c.e)) x) THEN
				RETURN NEXT dvmig._check_finding('warning', c.staging::text, c.target_column, 'volatile', NULL, NULL, 'the expression is volatile',
					'It can give another value each time a row is read, so rows flagged again are always sent again, and this check may differ from the run.');
			END IF;
		EXCEPTION WHEN syntax_error_or_access_rule_violation OR invalid_schema_name THEN
			RETURN NEXT dvmig._check_finding('error', c.staging::text, c.target_column, 'expression', NULL, NULL, 'the expression means nothing any more: ' || SQLERRM,
				'Take the map out with dvmig.unmap() and map the column anew.');
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._check_volatile(dvmig.migration) IS 'findings about expressions that are volatile or mean nothing any more';

-- _check_secret: secrets in user mappings are in every dump of the database.
CREATE FUNCTION dvmig._check_secret(m dvmig.migration) RETURNS SETOF jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT dvmig._check_finding('warning', NULL, NULL, 'secret_inline', NULL, NULL,
		format('the user mapping for %s on server "%s" holds a secret', quote_ident(u.usename), u.srvname),
		'Superusers read it in pg_user_mapping, and pg_dumpall writes it out. Keep it in a file: client_secret_file.')
	FROM pg_user_mappings u
	WHERE u.srvname = m.server AND u.umuser IN (0, m.owner::oid)
	  AND EXISTS (SELECT FROM unnest(u.umoptions) o WHERE o ~ '^client_secret[0-9]*=')
$$;
COMMENT ON FUNCTION dvmig._check_secret(dvmig.migration) IS 'finding about a secret that is stored in the user mapping';

-- _check_auto_resume: the launcher that goes on with interrupted runs starts with
-- the server, or not at all. (pg_settings leaves out what a role may not see.)
CREATE FUNCTION dvmig._check_auto_resume() RETURNS SETOF jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT dvmig._check_finding('warning', NULL, NULL, 'auto_resume', NULL, NULL,
		'dvmig.auto_resume is on, but dvmig is not in shared_preload_libraries: interrupted runs do not go on by themselves',
		'Add dvmig to shared_preload_libraries and restart the server, or call dvmig.resume_interrupted() after a restart.')
	FROM pg_settings p
	WHERE p.name = 'shared_preload_libraries' AND current_setting('dvmig.auto_resume', true)::bool
	  AND NOT EXISTS (SELECT FROM regexp_split_to_table(p.setting, ',') l WHERE btrim(l, ' "') ~ '(^|/)dvmig(\.so)?$')
$$;
COMMENT ON FUNCTION dvmig._check_auto_resume() IS 'finding about dvmig.auto_resume where no launcher runs';

-- ------------------------------------------------------------- of one table

-- _check_counts: rows by what a run would do with them.
CREATE FUNCTION dvmig._check_counts(owner oid, staging regclass) RETURNS jsonb
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT dvmig._query_as($1, format(
		'SELECT jsonb_build_object(''wanted'', count(*) FILTER (WHERE f = ''U'' AND a <> ''D'' AND w), ''left_out'', count(*) FILTER (WHERE f = ''U'' AND NOT w), '
		'''deletes'', count(*) FILTER (WHERE f = ''U'' AND a = ''D'' AND w), ''loaded'', count(*) FILTER (WHERE f IN (''S'', ''P'') AND a <> ''D''), '
		'''lost'', count(*) FILTER (WHERE f = ''E'' OR a = ''D'')) FROM (SELECT s.processing_flag AS f, s.action_flag AS a, CASE WHEN s.processing_flag = ''U'' THEN %s ELSE true END AS w FROM %s s) q',
		coalesce('(' || t.filter_sql || ') IS TRUE', 'true'), t.staging))::jsonb
	FROM dvmig.migration_table t WHERE t.staging = $2
$$;
COMMENT ON FUNCTION dvmig._check_counts(oid, regclass) IS 'rows of a staging table by what a run would do with them';

-- _check_filter_fault: a finding about rows for which the filter throws; null where it does not.
CREATE FUNCTION dvmig._check_filter_fault(owner oid, t dvmig.migration_table, samples int, shown bool) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	problem text := CASE WHEN t.filter_sql IS NOT NULL THEN
		dvmig._check_fault(owner, format('SELECT count(*) FROM %s s WHERE s.processing_flag = ''U'' AND (%s) IS TRUE', t.staging, t.filter_sql)) END;
	found record;
	counted jsonb;
BEGIN
	IF problem IS NULL THEN
		RETURN NULL;
	END IF;
	SELECT * INTO found FROM dvmig._check_thrown(owner, t.staging, 's.processing_flag = ''U''', format('(%s)', t.filter_sql));
	counted := dvmig._query_as(owner, (SELECT format('SELECT jsonb_build_object(''n'', count(*), ''keys'', to_jsonb(dvmig._first_keys(%s, %s, %s))) FROM %s s WHERE %s',
		k.sort_sql, k.label_sql, samples, t.staging, coalesce(dvmig._check_these(found.relations, found.tids), 'false')) FROM dvmig._key_sql(t.source_key, 's') k))::jsonb;
	RETURN dvmig._check_finding('error', t.staging::text, NULL, 'filter', (counted ->> 'n')::bigint, counted -> 'keys',
		'the filter fails' || CASE WHEN shown THEN ': ' || substr(problem, 7) ELSE ' with SQLSTATE ' || left(problem, 5) END,
		'These rows would fail, and the others be migrated. Correct the values or the filter, and check again: the other rules have not been applied to this table.');
END
$$;
COMMENT ON FUNCTION dvmig._check_filter_fault(oid, dvmig.migration_table, int, bool) IS 'finding about rows for which the filter of a staging table throws';

-- _check_unloadable: keys of rows that will not be loaded; null where all will.
CREATE FUNCTION dvmig._check_unloadable(t dvmig.migration_table, rows_sql text, thrown text, left_out bool) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT nullif(concat_ws(' UNION ALL ', rows_sql,
		CASE WHEN thrown IS NOT NULL THEN format('SELECT %s FROM %s s WHERE s.processing_flag = ''U'' AND %s', k.sql, t.staging, thrown) END,
		CASE WHEN left_out THEN format('SELECT %s FROM %s s WHERE s.processing_flag = ''U'' AND (%s) IS NOT TRUE', k.sql, t.staging, t.filter_sql) END), '')
	FROM (SELECT string_agg(format('s.%I AS k%s', n, i), ', ' ORDER BY i) AS sql FROM unnest(t.source_key) WITH ORDINALITY u(n, i)) k
$$;
COMMENT ON FUNCTION dvmig._check_unloadable(dvmig.migration_table, text, text, bool) IS 'query of the keys of rows that will not be loaded, null where there are none';

-- _check_levels: rows of a hierarchy that goes level by level and that no row
-- that will be loaded leads to: what is above them fails, or goes in a circle.
-- "missing" is the query of the keys that will not be loaded, with theirs.
CREATE FUNCTION dvmig._check_levels(m dvmig.migration, t dvmig.migration_table, thrown text, samples int, INOUT missing text, OUT findings jsonb)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	c dvmig.column_map;
	k record;
	r jsonb;
	names text[] := ARRAY(SELECT 'k' || i FROM generate_series(1, cardinality(t.source_key)) i);
	own text := (SELECT string_agg('e.' || n, ', ') FROM unnest(names) n);
	up text := replace(own, 'k', 'p');
	lost text;
BEGIN
	findings := '[]';
	SELECT q.* INTO k FROM dvmig._key_sql(t.source_key, 's') q;
	FOR c IN SELECT cm.* FROM dvmig.column_map cm WHERE cm.staging = t.staging AND NOT cm.fallback AND dvmig._by_level(cm) ORDER BY cm.position LOOP
		lost := format('WITH RECURSIVE bad AS MATERIALIZED (%s), '
			'edge AS MATERIALIZED (SELECT * FROM (SELECT %s AS sort_key, %s AS label, %s FROM %s s WHERE %s OFFSET 0) q), '
			'free AS MATERIALIZED (SELECT * FROM edge e WHERE NOT EXISTS (SELECT FROM bad b WHERE (%s) = (%s))), '
			'reached AS (SELECT %s FROM free e WHERE %s OR NOT EXISTS (SELECT FROM edge o WHERE (%s) = (%s)) AND NOT EXISTS (SELECT FROM bad b WHERE (%s) = (%s)) '
			'UNION ALL SELECT %s FROM reached r JOIN free e ON (%s) = (%s)) '
			'SELECT e.* FROM free e WHERE NOT EXISTS (SELECT FROM reached r WHERE (%s) = (%s))',
			coalesce(missing, format('SELECT %s FROM %s s WHERE false', (SELECT string_agg(format('s.%I AS k%s', n, i), ', ' ORDER BY i) FROM unnest(t.source_key) WITH ORDINALITY u(n, i)), t.staging)),
			k.sort_sql, k.label_sql,
			(SELECT string_agg(format('s.%I AS k%s, %s AS p%2$s', n, i, dvmig._as_key(t.staging, n, e)), ', ' ORDER BY i) FROM unnest(t.source_key, c.expression_sql) WITH ORDINALITY u(n, e, i)),
			t.staging, dvmig._check_scope(t.staging, false, thrown),
			replace(own, 'e.', 'b.'), own,
			own, (SELECT string_agg(replace(n, 'k', 'e.p') || ' IS NULL', ' OR ') FROM unnest(names) n),
			replace(own, 'e.', 'o.'), up, replace(own, 'e.', 'b.'), up,
			own, up, replace(own, 'e.', 'r.'),
			replace(own, 'e.', 'r.'), own);
		r := dvmig._query_as(m.owner, format('SELECT jsonb_build_object(''n'', count(*), ''keys'', to_jsonb(dvmig._first_keys(q.sort_key, q.label, %s))) FROM (%s) q', samples, lost))::jsonb;
		CONTINUE WHEN (r ->> 'n')::bigint = 0;
		findings := findings || dvmig._check_finding('error', t.staging::text, c.target_column, 'parent_not_loaded', (r ->> 'n')::bigint, nullif(r -> 'keys', 'null'),
			'a row above this one will not be loaded, or the hierarchy goes in a circle', 'Correct the rows above; rows that wait for them go by themselves in the next run.');
		missing := concat_ws(' UNION ALL ', missing, format('SELECT %s FROM (%s) e', own, lost));
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._check_levels(dvmig.migration, dvmig.migration_table, text, int, text) IS 'findings about rows of a hierarchy that goes level by level whose parents will not be loaded';

-- _check_table: all findings about the rows of one table.
CREATE FUNCTION dvmig._check_table(m dvmig.migration, t dvmig.migration_table, deferred text[], counts jsonb, unloadable jsonb, samples int, shown bool,
	OUT findings jsonb, OUT missing_sql text, OUT thrown text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	loaded bool := (counts ->> 'loaded')::bigint > 0 AND EXISTS (SELECT FROM dvmig._check_keys(t.staging, deferred) k WHERE k.is_active);
	name text := t.staging::text;
	q record;
	b record;
	r jsonb;
	failing jsonb := '[]';
	bad_rows_sql text;
BEGIN
	findings := '[]';
	-- a table whose rows are all loaded has no query
	SELECT NULL::text AS query_sql, NULL::text AS rows_sql, NULL::jsonb AS rules INTO q;
	IF (counts ->> 'wanted')::bigint > 0 THEN
		q := dvmig._check_query(t.staging, deferred, loaded, NULL, unloadable, samples);
		BEGIN
			r := dvmig._query_as(m.owner, q.query_sql)::jsonb;
		EXCEPTION WHEN cardinality_violation OR data_exception OR integrity_constraint_violation OR external_routine_invocation_exception
			OR sql_routine_exception OR program_limit_exceeded OR plpgsql_error OR feature_not_supported THEN
			-- some row throws: find those, and read again without them
			b := dvmig._check_transform(m.owner, t.staging, dvmig._check_scope(t.staging, loaded, NULL), samples, shown);
			failing := b.findings;
			thrown := b.thrown;
			findings := (SELECT coalesce(jsonb_agg(f || jsonb_build_object('staging', name)), '[]') FROM jsonb_array_elements(failing) f);
			IF thrown IS NULL THEN
				RAISE;	-- no row by itself: not ours to explain
			ELSIF b.is_complete THEN
				q := dvmig._check_query(t.staging, deferred, loaded, thrown, unloadable, samples);
				r := dvmig._query_as(m.owner, q.query_sql)::jsonb;
			END IF;
		END;
	END IF;
	IF r IS NOT NULL THEN
		findings := findings || dvmig._check_results(m, t, deferred, q.rules, r, failing);
		bad_rows_sql := CASE WHEN (r ->> 'bad')::bigint > 0 THEN q.rows_sql END;
	END IF;
	missing_sql := dvmig._check_unloadable(t, bad_rows_sql, thrown, (counts ->> 'left_out')::bigint > 0);
	IF (counts ->> 'wanted')::bigint > 0 AND r IS NOT NULL THEN
		b := dvmig._check_levels(m, t, thrown, samples, missing_sql);
		findings := findings || b.findings;
		missing_sql := b.missing;
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._check_table(dvmig.migration, dvmig.migration_table, text[], jsonb, jsonb, int, bool) IS 'findings about the rows of one staging table, and the keys that will not be loaded';

-- _check_results: findings from the counts of the one query.
CREATE FUNCTION dvmig._check_results(m dvmig.migration, t dvmig.migration_table, deferred text[], rules jsonb, counted jsonb, thrown jsonb) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH found AS (
		SELECT r.i, r.rule, (counted -> 'n' ->> (r.i - 1)::int)::bigint AS n, counted -> 'keys' -> (r.i - 1)::int AS sample_keys
		FROM jsonb_array_elements(rules) WITH ORDINALITY r(rule, i)
	), total AS (
		-- parked rows count neither way
		SELECT ((counted ->> 'rows')::bigint - (counted ->> 'bad')::bigint + (counted ->> 'failing')::bigint + sum((f ->> 'affected_rows')::bigint))::bigint AS judged,
			((counted ->> 'failing')::bigint + sum((f ->> 'affected_rows')::bigint))::bigint AS failing
		FROM jsonb_array_elements(thrown || '[{"affected_rows": 0}]') f
	), findings AS (
		SELECT f.i, dvmig._check_finding(f.rule ->> 'severity', t.staging::text, f.rule ->> 'target_column', f.rule ->> 'rule', f.n, nullif(f.sample_keys, 'null'), f.rule ->> 'message', f.rule ->> 'hint') AS finding
		FROM found f WHERE f.n > 0
		UNION ALL
		-- Microsoft's method flags columns filled in under five per cent of the rows
		SELECT 1000 + g.i, dvmig._check_finding('info', t.staging::text, c.target_column, 'rarely_filled', g.filled, NULL,
			format('only %s of %s a value', g.filled, dvmig._count_of((counted ->> 'rows')::numeric, 'row has', 'rows have')), 'Ask whether the column is needed in Dataverse.')
		FROM (SELECT q.i, q.v::text::bigint AS filled FROM jsonb_array_elements(counted -> 'filled') WITH ORDINALITY q(v, i)) g
		JOIN dvmig._check_maps(t.staging, deferred) c ON c.n = g.i
		WHERE g.filled * 20 < (counted ->> 'rows')::bigint
		UNION ALL
		SELECT 2000, dvmig._check_finding('warning', t.staging::text, NULL, 'gate', w.failing, NULL,
			format('%s of %s would fail, which is over the gate of %s per cent', w.failing, dvmig._count_of(w.judged, 'row', 'rows'), m.gate),
			'A run would hold the tables that depend on this one.')
		FROM total w WHERE w.failing * 100.0 > m.gate * w.judged
		  AND EXISTS (SELECT FROM dvmig.column_map c WHERE c.parent = t.staging AND c.staging <> t.staging)
	)
	SELECT coalesce(jsonb_agg(f.finding ORDER BY f.i), '[]') FROM findings f
$$;
COMMENT ON FUNCTION dvmig._check_results(dvmig.migration, dvmig.migration_table, text[], jsonb, jsonb, jsonb) IS 'findings from the counts of the query that checked a staging table';

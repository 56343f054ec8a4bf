-- One reading of a staging table for all rules, and the search for rows whose
-- expressions throw.
--
-- Layers of the query, each a subquery with OFFSET 0, which keeps PostgreSQL
-- from merging it with the next one, so that nothing is evaluated twice:
--   1 values     of every column map, joined to parents, references, outcomes
--   2 conditions c<n> of every rule, g<n> whether map n is filled
--   3 ranks      among rows of one alternate key, only where one is mapped
--   4 counts     and the first source keys of every rule

-- _check_lower: SQL that folds case as Dataverse's collation does. Under the C
-- locale lower() knows ASCII only, so that another collation is named where there is one.
CREATE FUNCTION dvmig._check_lower(value_sql text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('lower(%s%s)', value_sql, (SELECT format(' COLLATE pg_catalog.%I', c.collname) FROM pg_collation c
		WHERE c.collname IN ('pg_c_utf8', 'und-x-icu') AND c.collnamespace = 'pg_catalog'::regnamespace
		  AND c.collencoding IN (-1, (SELECT d.encoding FROM pg_database d WHERE d.datname = current_database()))
		ORDER BY c.collname = 'und-x-icu' DESC LIMIT 1))
$$;
COMMENT ON FUNCTION dvmig._check_lower(text) IS 'SQL of a text in lower case, beyond ASCII where the server can';

-- _check_keys: alternate keys of which every column is mapped, with SQL of the
-- key as Dataverse compares it (without regard to case; an empty text is no
-- text) and as it may compare it: without accents and blanks at the end besides.
CREATE FUNCTION dvmig._check_keys(staging regclass, deferred text[])
RETURNS TABLE (nth int, key_name text, key_columns text[], is_active bool, key_sql text, plain_sql text, ordinals int[])
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH parts AS (
		SELECT k.key_name, k.key_columns, k.index_status, i, m.n, m.column_type IN ('String', 'Memo') AS is_text,
			CASE WHEN m.column_type IN ('String', 'Memo') THEN format('nullif(%s, '''')', dvmig._check_lower('v' || m.n))
				WHEN m.column_type IN ('Decimal', 'Money') AND m.base_type = 'numeric' THEN format('round(v%s, %s)::text', m.n, coalesce(m.precision_digits, 10))
				WHEN m.column_type IN ('Integer', 'BigInt', 'Picklist') AND m.base_type = 'numeric' THEN format('trim_scale(v%s)::text', m.n)
				WHEN m.base_type LIKE 'timestamp%' THEN format('date_trunc(''second'', v%s)::text', m.n)
				ELSE format('v%s::text', m.n) END AS sql
		FROM dvmig.migration_table t
		JOIN dvmig.migration g USING (migration_id)
		JOIN dvmig.metadata_key k ON k.server = g.server AND k.table_name = t.target,
		LATERAL unnest(k.key_columns) WITH ORDINALITY u(col, i)
		LEFT JOIN LATERAL (SELECT c.* FROM dvmig._check_maps($1, $2) c WHERE c.target_column = u.col AND c.send <> 'update') m ON true
		WHERE t.staging = $1
	)
	SELECT row_number() OVER (ORDER BY p.key_name)::int, p.key_name, p.key_columns, bool_and(p.index_status = 'Active'),
		-- null in any column: the row is not in the key's index
		CASE WHEN count(*) = 1 THEN min(p.sql) ELSE string_agg(p.sql, ' || chr(31) || ' ORDER BY p.i) END,
		CASE WHEN bool_or(p.is_text) THEN string_agg(CASE WHEN NOT p.is_text THEN p.sql
			WHEN pg_encoding_to_char((SELECT d.encoding FROM pg_database d WHERE d.datname = current_database())) = 'UTF8'
			THEN format('CASE WHEN octet_length(v%1$s) = length(v%1$s) THEN rtrim(%2$s) ELSE rtrim(regexp_replace(normalize(%2$s, NFD), U&''[\0300-\036F]'', '''', ''g'')) END', p.n, p.sql)
			ELSE format('rtrim(%s)', p.sql) END, ' || chr(31) || ' ORDER BY p.i) END,
		array_agg(p.n)
	FROM parts p GROUP BY p.key_name, p.key_columns
	HAVING bool_and(p.n IS NOT NULL) AND count(*) = cardinality(p.key_columns)
$$;
COMMENT ON FUNCTION dvmig._check_keys(regclass, text[]) IS 'alternate keys of the target whose columns are all mapped, with SQL of the key as Dataverse compares it';

-- _check_scope: rows that are checked: those a run would write and, where
-- "loaded", those that are in Dataverse already and hold their keys there.
CREATE FUNCTION dvmig._check_scope(staging regclass, loaded bool, thrown text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT concat('s.action_flag <> ''D'' AND (', CASE WHEN loaded THEN 's.processing_flag IN (''S'', ''P'') OR ' END, 's.processing_flag = ''U''',
		' AND (' || t.filter_sql || ') IS TRUE', ')', ' AND NOT ' || thrown)
	FROM dvmig.migration_table t WHERE t.staging = $1
$$;
COMMENT ON FUNCTION dvmig._check_scope(regclass, bool, text) IS 'condition for the rows that are checked';

-- _check_party_waits: SQL of whether a party of a row (s) is a row that will not be
-- loaded; null where no parties are keys of staging tables. The keys are read
-- once, into a hash table.
CREATE FUNCTION dvmig._check_party_waits(staging regclass, unloadable jsonb) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT string_agg(format('EXISTS (SELECT FROM %s JOIN %s p ON p.%I = e.v WHERE p.action_flag = ''D'' OR p.processing_flag = ''E''%s)', dvmig._party_keys(c), c.parent, t.source_key[1],
		' OR p.' || quote_ident(t.source_key[1]) || ' IN (SELECT b.k1 FROM (' || (unloadable ->> c.parent::text) || ') b)'), ' OR ' ORDER BY c.position)
	FROM dvmig.column_map c JOIN dvmig.migration_table t ON t.staging = c.parent
	WHERE c.staging = $1 AND c.kind = 'party'
$$;
COMMENT ON FUNCTION dvmig._check_party_waits(regclass, jsonb) IS 'SQL of whether an activity party of a row will not be loaded';

-- _check_outputs: layer 1. "unloadable" holds, for parents of which some rows
-- will not be loaded, a query of their keys.
CREATE FUNCTION dvmig._check_outputs(staging regclass, deferred text[], scope text, unloadable jsonb) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table;
	outputs text;
	joins text;
	in_keys int[];
BEGIN
	SELECT mt.* INTO STRICT t FROM dvmig.migration_table mt WHERE mt.staging = $1;
	in_keys := ARRAY(SELECT unnest(k.ordinals) FROM dvmig._check_keys($1, deferred) k);
	SELECT string_agg(CASE m.kind
			WHEN 'parent' THEN format('%1$s AS v%2$s, p%2$s.%3$I IS NOT NULL AS x%2$s, %4$s AS f%2$s, p%2$s.%3$I IS NOT NULL AND (p%2$s.action_flag = ''D'' OR p%2$s.processing_flag = ''E''%5$s)%6$s AS w%2$s',
				CASE WHEN m.n = ANY (in_keys) THEN m.value_sql ELSE 'NULL::uuid' END, m.n, p.source_key[1], m.filled_sql,
				CASE WHEN u.sql IS NOT NULL THEN format(' OR b%s.k1 IS NOT NULL', m.n) END,
				-- where the policy puts in a parent row of its own, that one
				CASE WHEN m.default_row IS NOT NULL THEN format(' OR (%s) AND EXISTS (SELECT FROM %s d%s WHERE %s AND (d.action_flag = ''D'' OR d.processing_flag = ''E''%s))', m.noted_sql, m.parent,
					' LEFT JOIN (' || u.sql || ') b ON b.k1 = d.' || quote_ident(p.source_key[1]), m.default_row, CASE WHEN u.sql IS NOT NULL THEN ' OR b.k1 IS NOT NULL' END) END)
			WHEN 'reference' THEN format('%1$s AS v%2$s, r%2$s.matches AS m%2$s, %3$s AS f%2$s', m.value_sql, m.n, m.filled_sql)
			WHEN 'choice' THEN format('%1$s AS v%2$s, %3$s AS f%2$s', m.value_sql, m.n, m.filled_sql)
			ELSE format('%s AS v%s', dvmig._check_value(m.kind, m.base_type, m.column_type, m.value_sql), m.n) END
			|| coalesce(', (' || m.noted_sql || ') AS u' || m.n, ''), ', ' ORDER BY m.n),
		string_agg(concat_ws(' ', m.join_sql, 'LEFT JOIN (' || u.sql || ') b' || m.n || ' ON '
			|| (SELECT string_agg(format('b%1$s.k%2$s = p%1$s.%3$I', m.n, i, k), ' AND ') FROM unnest(p.source_key) WITH ORDINALITY q(k, i))), ' ' ORDER BY m.n)
	INTO outputs, joins
	FROM dvmig._check_maps($1, deferred) m
	LEFT JOIN dvmig.migration_table p ON p.staging = m.parent
	LEFT JOIN LATERAL (SELECT unloadable ->> m.parent::text AS sql WHERE NOT m.is_deferred) u ON true;
	RETURN (
		SELECT format('SELECT %s, s.processing_flag <> ''U'' AS l, '
				'CASE WHEN s.action_flag = ''U'' OR x.operation <> ''D'' OR e.created_run IS NOT NULL THEN ''U'' ELSE ''I'' END AS o, '
				's.action_flag = ''U'' AND x.operation IS NULL AND s.dataverse_id IS NULL AND e.dataverse_id IS NULL AND e.created_run IS NULL AS nv, %s%s '
				'FROM %s s LEFT JOIN %s x ON %s LEFT JOIN %s e ON %s %s WHERE %s OFFSET 0',
			string_agg(format('s.%I AS k%s', k, i), ', ' ORDER BY i),
			CASE WHEN t.ids = 'derived' THEN 'NULL::uuid AS id'
				ELSE format('coalesce(s.dataverse_id, x.dataverse_id, e.dataverse_id, %s) AS id', dvmig._id_expression($1, 's')) END,
			concat(', ' || outputs, ', coalesce(' || (SELECT w.fault_sql FROM dvmig._state_sql($1) w) || ', NULL::text) AS sf', (SELECT format(', CASE WHEN %s THEN ''unread'' ELSE coalesce(%s, NULL::text) END AS pf', w.unread_sql, w.fault_sql) FROM dvmig._party_sql($1) w WHERE w.fault_sql IS NOT NULL),
				', (' || dvmig._check_party_waits($1, unloadable) || ') AS pw'), $1,
			t.success_table, string_agg(format('x.%I = s.%1$I', k), ' AND ' ORDER BY i),
			t.error_table, string_agg(format('e.%I = s.%1$I', k), ' AND ' ORDER BY i), joins, scope)
		FROM unnest(t.source_key) WITH ORDINALITY u(k, i));
END
$$;
COMMENT ON FUNCTION dvmig._check_outputs(regclass, text[], text, jsonb) IS 'query of the values of every column map of the rows that are checked';

-- _check_query: layers 2 to 4. "rows_sql" gives the keys of rows that would
-- fail or be parked, for children to join.
CREATE FUNCTION dvmig._check_query(staging regclass, deferred text[], loaded bool, thrown text, unloadable jsonb, samples int,
	OUT query_sql text, OUT rows_sql text, OUT rules jsonb)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table;
	keys text;
	sample_sql text;
	bad text;
	ranked text;
	failing text;
	ranks text;
	fills text;
	counted text[];
	-- maps behind this one go when the record is there: its children have it, and it has its keys
	last_at_once int := (SELECT coalesce(max(f.ordinal), 0) FROM dvmig._map_sql($1) f);
BEGIN
	PERFORM dvmig._require_tables($1, 'write'), dvmig._require_outcomes($1);
	SELECT mt.* INTO STRICT t FROM dvmig.migration_table mt WHERE mt.staging = $1;
	keys := (SELECT string_agg('k' || i, ', ' ORDER BY i) FROM generate_series(1, cardinality(t.source_key)) i);
	SELECT format('dvmig._first_keys(%s, %s, %s)', k.sort_sql, k.label_sql, samples) INTO sample_sql
	FROM dvmig._key_sql(string_to_array(keys, ', '), 'q') k;
	rules := (SELECT coalesce(jsonb_agg(to_jsonb(r) || jsonb_build_object('counted', 'c' || r.nth) ORDER BY r.nth), '[]') FROM dvmig._check_rules($1, deferred) r);
	SELECT coalesce(string_agg('c' || (r ->> 'nth'), ' OR '), 'false'), coalesce(string_agg('c' || (r ->> 'nth'), ' OR ') FILTER (WHERE r ->> 'rule' <> 'parent_not_loaded'), 'false')
	INTO bad, failing FROM jsonb_array_elements(rules) r WHERE r ->> 'severity' = 'error' AND coalesce((r ->> 'n')::int, 0) <= last_at_once;
	SELECT string_agg(format(', (NOT l AND (%s)) AS g%s', m.has_source_sql, m.n), '' ORDER BY m.n) INTO fills FROM dvmig._check_maps($1, deferred) m;

	ranked := format('SELECT %s, l, o, id%s%s%s FROM (%s) q OFFSET 0', keys,
		(SELECT string_agg(format(', (NOT l AND (%s)) IS TRUE AS c%s', r ->> 'condition', r ->> 'nth'), '') FROM jsonb_array_elements(rules) r), fills,
		(SELECT string_agg(format(', (%s) COLLATE "C" AS y%s%s', k.key_sql, k.nth, ', (' || k.plain_sql || ') COLLATE "C" AS z' || k.nth), '') FROM dvmig._check_keys($1, deferred) k WHERE k.is_active),
		dvmig._check_outputs($1, deferred, dvmig._check_scope($1, loaded, thrown), unloadable));

	-- A row that fails anyhow takes no key, and one that is or was loaded holds its own.
	SELECT string_agg(format(', CASE WHEN y%1$s IS NOT NULL THEN row_number() OVER (PARTITION BY %4$sy%1$s ORDER BY %2$s, l DESC, o = ''I'', %3$s) END AS d%1$s%5$s',
			k.nth, bad, keys, CASE WHEN k.plain_sql IS NOT NULL THEN format('z%s, ', k.nth) END,
			CASE WHEN k.plain_sql IS NOT NULL THEN format(', min(y%1$s) OVER (PARTITION BY z%1$s) < y%1$s AS h%1$s', k.nth) END), '' ORDER BY k.nth)
	INTO ranks FROM dvmig._check_keys($1, deferred) k WHERE k.is_active;
	IF t.ids = 'column' THEN
		ranks := concat(ranks, format(', row_number() OVER (PARTITION BY id ORDER BY %s, l DESC, o = ''I'', %s) AS d0', bad, keys));
	END IF;
	IF ranks IS NOT NULL THEN
		ranked := format('SELECT q.*%s FROM (%s) q OFFSET 0', ranks, ranked);
		rules := rules || dvmig._check_key_rules($1, deferred, bad);
		ranks := (SELECT string_agg(format(' OR (%s)', r ->> 'counted'), '') FROM jsonb_array_elements(rules) r WHERE r ? 'ranked' AND r ->> 'severity' = 'error');
		bad := concat(bad, ranks);
		failing := concat(failing, ranks);
	END IF;

	rows_sql := format('SELECT %s FROM (%s) q WHERE NOT l AND (%s)', keys, ranked, bad);
	counted := ARRAY(SELECT r ->> 'counted' FROM jsonb_array_elements(rules) WITH ORDINALITY q(r, i) ORDER BY i);
	query_sql := format('SELECT jsonb_build_object(''rows'', count(*) FILTER (WHERE NOT l), ''inserts'', count(*) FILTER (WHERE NOT l AND o = ''I''), '
		'''bad'', count(*) FILTER (WHERE NOT l AND (%s)), ''failing'', count(*) FILTER (WHERE NOT l AND (%s)), ''n'', to_jsonb(ARRAY[%s]::bigint[]), ''keys'', to_jsonb(ARRAY[%s]::jsonb[]), ''filled'', to_jsonb(ARRAY[%s]::bigint[]))::text FROM (%s) q',
		bad, failing, (SELECT string_agg(format('count(*) FILTER (WHERE %s)', c), ', ' ORDER BY i) FROM unnest(counted) WITH ORDINALITY u(c, i)),
		CASE WHEN samples > 0 THEN (SELECT string_agg(format('to_jsonb(%s FILTER (WHERE %s))', sample_sql, c), ', ' ORDER BY i) FROM unnest(counted) WITH ORDINALITY u(c, i)) END,
		(SELECT string_agg(format('count(*) FILTER (WHERE g%s)', m.n), ', ' ORDER BY m.n) FROM dvmig._check_maps($1, deferred) m), ranked);
END
$$;
COMMENT ON FUNCTION dvmig._check_query(regclass, text[], bool, text, jsonb, int) IS 'the one query that checks a staging table, and what its counts stand for';

-- _check_key_rules: rules that compare rows with each other.
CREATE FUNCTION dvmig._check_key_rules(staging regclass, deferred text[], bad text) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH keys AS (SELECT k.*, array_to_string(k.key_columns, ', ') AS cols FROM dvmig._check_keys($1, $2) k WHERE k.is_active),
	rules AS (
		SELECT 'error' AS severity, k.nth, k.cols AS target_column, 'key_not_unique' AS rule,
			format('NOT l AND d%s > 1 AND NOT (%s)', k.nth, $3) AS counted,
			format('another row has this value of alternate key "%s", and Dataverse takes one', k.key_name) AS message,
			'Dataverse compares keys without regard to case; the first row is not counted.' AS hint
		FROM keys k
		UNION ALL
		SELECT 'warning', k.nth, k.cols, 'key_too_similar', format('NOT l AND h%s', k.nth),
			format('values of alternate key "%s" differ only in accents or in blanks at the end', k.key_name),
			'Dataverse may take them for the same, and refuse all but one.'
		FROM keys k WHERE k.plain_sql IS NOT NULL
		UNION ALL
		SELECT CASE t.on_exists WHEN 'error' THEN 'error' ELSE 'warning' END, 0, t.id_column, 'same_id', format('NOT l AND id IS NOT NULL AND d0 > 1 AND NOT (%s)', $3),
			'another row has the same id: both are one record in Dataverse', 'Give every row an id of its own; the first row is not counted.'
		FROM dvmig.migration_table t WHERE t.staging = $1 AND t.ids = 'column'
	)
	SELECT coalesce(jsonb_agg(to_jsonb(r) || '{"ranked": true}' ORDER BY r.nth, r.rule), '[]') FROM rules r
$$;
COMMENT ON FUNCTION dvmig._check_key_rules(regclass, text[], text) IS 'rules for rows that meet in one alternate key or id';

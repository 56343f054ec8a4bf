-- What each column map is in SQL: its value, what is wrong with a row, what it
-- waits for, and what was done about it.
--
-- Everybody reads rows through what is built here (runs, check, preview, plan,
-- status), so that policies and masks are the same for all of them.
--
-- GLOSSARY
--
--   filled   the source has a key or text, whether or not it stands for something
--   found    a lookup's key stands for a record or parent row
--   missing  filled and not found; what then happens is the map's policy
--   chain    the lookups of one column, tried in order: those with "fallback"
--            only where the ones before found nothing. The last one's policy
--            is the chain's.

-- _reference_name: what a lookup's key columns are called in dvmig.reference.
-- Keys that are no columns bear a blank, which no column of Dataverse does; those
-- of a migration's own user map are told apart by its number.
CREATE FUNCTION dvmig._reference_name(migration_id int, match_on text[]) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN $2 = '{user map}' THEN format('user map %s', $1) ELSE array_to_string($2, ',') END
$$;
COMMENT ON FUNCTION dvmig._reference_name(int, text[]) IS 'name of a lookup''s key columns in dvmig.reference';

-- _reference_key: SQL of the key as dvmig.reference has it.
CREATE FUNCTION dvmig._reference_key(expression_sql text[]) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT string_agg(format('lower((%s)::text COLLATE "default")', e), ' || chr(31) || ' ORDER BY i) FROM unnest($1) WITH ORDINALITY u(e, i)
$$;
COMMENT ON FUNCTION dvmig._reference_key(text[]) IS 'SQL of a lookup''s key as dvmig.reference has it';

-- _reference_rows: SQL over a staging table (s) of the keys that a lookup or a map
-- of parties has, as k; "more" goes on from the WHERE with what is to hold of s.
CREATE FUNCTION dvmig._reference_rows(cm dvmig.column_map, more text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE cm.kind WHEN 'party' THEN format('SELECT lower(e.v::text COLLATE "default") AS k FROM %s s, LATERAL %s WHERE %s', cm.staging, dvmig._party_keys(cm), more)
		ELSE format('SELECT %s AS k FROM %s s WHERE %s', dvmig._reference_key(cm.expression_sql), cm.staging, more) END
$$;
COMMENT ON FUNCTION dvmig._reference_rows(dvmig.column_map, text) IS 'SQL of the keys that a lookup or a map of parties has in a staging table';

-- _is_uuid: whether a text is an id rather than a key.
CREATE FUNCTION dvmig._is_uuid(word text) RETURNS bool
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT $1 ~* '^\{?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\}?$'
$$;
COMMENT ON FUNCTION dvmig._is_uuid(text) IS 'whether a text is written like an id';

-- _choice_default: the choice value that a policy puts in; null where it is none.
CREATE FUNCTION dvmig._choice_default(staging regclass, target_column text, default_value text) RETURNS int
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT dvmig._choice(btrim($3), dvmig._choice_texts($1, $2))
$$;
COMMENT ON FUNCTION dvmig._choice_default(regclass, text, text) IS 'choice value that a default (label or value) stands for';

-- _choice_sql: a source text as the value of a choice, choices or yes/no column;
-- "unknown_sql" is true where the text stands for nothing.
CREATE FUNCTION dvmig._choice_sql(cm dvmig.column_map, column_type text, source_sql text, filled_sql text, OUT value_sql text, OUT unknown_sql text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	texts text := quote_literal(dvmig._choice_texts(cm.staging, cm.target_column)) || '::jsonb';
	d text := coalesce(CASE WHEN cm.on_unknown = 'default' THEN dvmig._choice_default(cm.staging, cm.target_column, cm.default_value) END::text, 'NULL');
BEGIN
	IF column_type = 'MultiSelectPicklist' THEN
		value_sql := format('dvmig._choices((%s)::%s, %s, %L, %s)', source_sql, CASE WHEN cm.result_type = 'text[]'::regtype THEN 'text[]' ELSE 'text' END,
			texts, cm.on_unknown, d || '::int');
		unknown_sql := format('dvmig._choices((%s)::%s, %s, ''error'', NULL::int) IS NULL', source_sql,
			CASE WHEN cm.result_type = 'text[]'::regtype THEN 'text[]' ELSE 'text' END, texts);
	ELSE
		value_sql := format('dvmig._choice((%s)::text, %s)', source_sql, texts);
		unknown_sql := value_sql || ' IS NULL';
		IF d <> 'NULL' THEN
			value_sql := format('CASE WHEN %s THEN coalesce(%s, %s) END', filled_sql, value_sql, d);
		END IF;
		IF column_type = 'Boolean' THEN
			value_sql := format('(%s) = 1', value_sql);
		END IF;
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._choice_sql(dvmig.column_map, text, text, text) IS 'SQL of a choice from a source text, and of whether the text stands for nothing';

-- _default_row: SQL of the row of a parent (alias d) whose key is a lookup's default;
-- null where the default is an id, or there is none.
CREATE FUNCTION dvmig._default_row(cm dvmig.column_map) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('d.%I = %L::%s', a.attname, cm.default_value, format_type(dvmig._base_type(a.atttypid), NULL))
	FROM dvmig.migration_table p JOIN pg_attribute a ON a.attrelid = p.staging AND a.attname = p.source_key[1]
	WHERE cm.kind = 'parent' AND p.staging = cm.parent AND NOT dvmig._is_uuid(cm.default_value) AND cardinality(p.source_key) = 1
$$;
COMMENT ON FUNCTION dvmig._default_row(dvmig.column_map) IS 'SQL of the parent row whose key is the default of a lookup';

-- _lookup_sql: the record a lookup finds, without regard to policies and to the
-- other lookups of its column; "n" numbers the joined tables.
CREATE FUNCTION dvmig._lookup_sql(cm dvmig.column_map, migration_id int, server name, n int,
	OUT value_sql text, OUT found_sql text, OUT ambiguous_sql text, OUT parked_sql text, OUT join_sql text, OUT default_sql text, OUT default_parked_sql text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	par dvmig.migration_table;
	row_sql text := dvmig._default_row(cm);
	name text := quote_literal(dvmig._reference_name(migration_id, cm.match_on));
BEGIN
	IF dvmig._is_uuid(cm.default_value) THEN
		default_sql := quote_literal(cm.default_value) || '::uuid';
	ELSIF cm.kind = 'reference' AND cm.default_value IS NOT NULL THEN
		-- no column of a row in it: read once for all rows of a batch
		default_sql := format('(SELECT d.record_id FROM dvmig.reference d WHERE d.server = %L AND d.table_name = %L AND d.match_on = %s AND d.match_key = %L)',
			server, cm.referenced_table, name, lower(cm.default_value));
	ELSIF row_sql IS NOT NULL THEN
		default_sql := format('(SELECT coalesce(d.dataverse_id, %s) FROM %s d WHERE %s)', dvmig._id_expression(cm.parent, 'd'), cm.parent, row_sql);
		default_parked_sql := format('EXISTS (SELECT FROM %s d WHERE %s AND (d.processing_flag NOT IN (''S'', ''P'') OR d.action_flag = ''D''))', cm.parent, row_sql);
	END IF;
	IF cm.kind = 'reference' THEN
		join_sql := format('LEFT JOIN dvmig.reference r%1$s ON r%1$s.server = %2$L AND r%1$s.table_name = %3$L AND r%1$s.match_on = %4$s AND r%1$s.match_key = %5$s',
			n, server, cm.referenced_table, name, dvmig._reference_key(cm.expression_sql));
		value_sql := format('r%s.record_id', n);
		found_sql := format('r%s.record_id IS NOT NULL', n);
		ambiguous_sql := format('r%1$s.record_id IS NULL AND r%1$s.matches IS NOT NULL AND r%1$s.matches > 1', n);
	ELSIF cm.kind = 'parent' THEN
		SELECT t.* INTO par FROM dvmig.migration_table t WHERE t.staging = cm.parent;
		join_sql := format('LEFT JOIN %s p%s ON %s', cm.parent, n,
			(SELECT string_agg(format('p%s.%I = %s', n, k, dvmig._as_key(cm.parent, k, e)), ' AND ') FROM unnest(par.source_key, cm.expression_sql) u(k, e)));
		found_sql := format('p%s.%I IS NOT NULL', n, par.source_key[1]);
		value_sql := format('CASE WHEN %s THEN coalesce(p%s.dataverse_id, %s) END', found_sql, n, dvmig._id_expression(cm.parent, 'p' || n));
		parked_sql := format('%1$s AND (p%2$s.processing_flag NOT IN (''S'', ''P'') OR p%2$s.action_flag = ''D'')', found_sql, n);
	ELSE
		value_sql := format('(%s)', cm.expression_sql[1]);
		found_sql := value_sql || ' IS NOT NULL';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._lookup_sql(dvmig.column_map, int, name, int) IS 'SQL of the record that a lookup finds, before policies';

-- _map_parts: each column map by itself; "mask" applies where the server is not production.
CREATE FUNCTION dvmig._map_parts(staging regclass)
RETURNS TABLE (n int, cm dvmig.column_map, value_sql text, filled_sql text, found_sql text, ambiguous_sql text, parked_sql text, join_sql text,
	default_sql text, default_parked_sql text, unknown_sql text, fault_sql text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration;
	target text;
	column_type text;
	masked bool;
	source_sql text;
BEGIN
	SELECT g.* INTO m FROM dvmig.migration_table t JOIN dvmig.migration g USING (migration_id) WHERE t.staging = $1;
	SELECT t.target INTO target FROM dvmig.migration_table t WHERE t.staging = $1;
	masked := NOT dvmig._is_production(m.server);
	IF masked AND EXISTS (SELECT FROM dvmig.column_map c WHERE c.staging = $1 AND c.mask IS NOT NULL) THEN
		PERFORM dvmig._mask_key(m);
	END IF;
	n := 0;
	FOR cm IN SELECT c.* FROM dvmig.column_map c WHERE c.staging = $1 AND c.pass IN ('write', 'links') ORDER BY c.position, c.target_column LOOP
		n := n + 1;
		value_sql := NULL; found_sql := NULL; ambiguous_sql := NULL; parked_sql := NULL; join_sql := NULL;
		default_sql := NULL; default_parked_sql := NULL; unknown_sql := NULL; fault_sql := NULL;
		filled_sql := (SELECT string_agg(format('(%s) IS NOT NULL', e), ' AND ') FROM unnest(cm.expression_sql) e);
		IF cm.kind IN ('parent', 'reference', 'id') THEN
			SELECT l.* INTO value_sql, found_sql, ambiguous_sql, parked_sql, join_sql, default_sql, default_parked_sql
			FROM dvmig._lookup_sql(cm, m.migration_id, m.server, n) l;
			RETURN NEXT;
			CONTINUE;
		END IF;
		source_sql := cm.expression_sql[1];
		IF cm.sensitive AND masked THEN
			-- what has no mask is not shown at all: dvmig.start() refuses it, and each row would fail
			source_sql := CASE WHEN cm.mask_sql IS NULL THEN format('NULL::%s', cm.result_type)
				ELSE format('CASE WHEN (%s) IS NOT NULL THEN %s END', source_sql, cm.mask_sql) END;
			fault_sql := CASE WHEN cm.mask_sql IS NULL THEN quote_literal('unmasked|' || cm.target_column) END;
			filled_sql := format('(%s) IS NOT NULL', source_sql);
		END IF;
		SELECT mc.column_type INTO column_type FROM dvmig.metadata_column mc
		WHERE mc.server = m.server AND mc.table_name = target AND mc.column_name = cm.target_column;
		value_sql := format('(%s)', source_sql);
		IF cm.on_unknown = 'default' AND dvmig._choice_default($1, cm.target_column, cm.default_value) IS NULL THEN
			cm.on_unknown := 'error';	-- the default is gone, or not on this server: nothing is put in its place
		END IF;
		IF cm.kind = 'choice' THEN
			SELECT c.* INTO value_sql, unknown_sql FROM dvmig._choice_sql(cm, column_type, source_sql, filled_sql) c;
		ELSIF cm.on_unknown <> 'error' THEN
			unknown_sql := format('%s <> ALL (%L::int[])', value_sql, ARRAY(SELECT o.choice_value FROM dvmig.metadata_choice o
				WHERE o.server = m.server AND o.table_name = target AND o.column_name = cm.target_column));
			value_sql := format('CASE WHEN %s THEN %s ELSE %s END', unknown_sql, coalesce(CASE WHEN cm.on_unknown = 'default'
				THEN dvmig._choice_default($1, cm.target_column, cm.default_value) END::text, 'NULL'), value_sql);
		END IF;
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._map_parts(regclass) IS 'SQL of each column map of a staging table by itself';

-- _map_sql: value, fault, parking and join of each column map, with its policy.
--   fault is SQL of type text: NULL where the value resolves. noted_sql is a
--   condition: true where the policy put something else in, which "noted" names.
CREATE FUNCTION dvmig._map_sql(staging regclass)
RETURNS TABLE (target_column text, variant text, kind text, value_sql text, fault_sql text, parked_sql text, join_sql text, filled_sql text, ordinal int,
	noted text, noted_sql text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH parts AS (
		SELECT p.*, (p.cm).target_column AS col, bool_or((p.cm).fallback) OVER w AS chained, p.n = max(p.n) OVER w AS last,
			string_agg(p.found_sql, ' OR ') OVER (PARTITION BY (p.cm).target_column ORDER BY p.n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before_sql,
			string_agg(p.found_sql, ' OR ') OVER w AS any_found, string_agg('(' || p.filled_sql || ')', ' OR ') OVER w AS any_filled,
			string_agg('(' || p.ambiguous_sql || ')', ' OR ') OVER w AS any_ambiguous,
			first_value((p.cm).kind) OVER w AS first_kind
		FROM dvmig._map_parts($1) p
		WINDOW w AS (PARTITION BY (p.cm).target_column ORDER BY p.n ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
	), missing AS (
		-- of a chain, the last one tells for all
		SELECT p.*, CASE WHEN p.found_sql IS NOT NULL AND (NOT p.chained OR p.last) THEN
				CASE WHEN p.chained THEN format('(%s) AND NOT (%s)', p.any_filled, p.any_found) ELSE format('(%s) AND NOT (%s)', p.filled_sql, p.found_sql) END END AS missing_sql,
			CASE WHEN p.chained THEN p.any_ambiguous ELSE p.ambiguous_sql END AS doubtful_sql,
			CASE CASE WHEN p.chained THEN p.first_kind ELSE (p.cm).kind END WHEN 'parent' THEN 'orphan|' ELSE 'reference|' END || p.col AS fault
		FROM parts p
	), policies AS (
		SELECT m.*, m.missing_sql || coalesce(' AND NOT (' || m.doubtful_sql || ')', '') AS absent_sql FROM missing m
	)
	SELECT p.col, (p.cm).variant, (p.cm).kind,
		CASE WHEN (p.cm).fallback THEN format('CASE WHEN NOT (%s) THEN %s END', p.before_sql, v.sql) ELSE v.sql END,
		CASE WHEN (p.cm).kind IN ('value', 'choice') THEN CASE
				WHEN p.fault_sql IS NOT NULL THEN p.fault_sql
				WHEN p.unknown_sql IS NOT NULL AND (p.cm).on_unknown = 'error' THEN format('CASE WHEN (%s) AND %s THEN %L END', p.filled_sql, p.unknown_sql, 'choice|' || p.col) END
			WHEN p.missing_sql IS NULL OR (p.cm).kind = 'id' AND NOT p.chained THEN NULL
			ELSE nullif(concat_ws(', ',
				CASE WHEN p.doubtful_sql IS NOT NULL THEN format('CASE WHEN %s AND (%s) THEN %L END', p.missing_sql, p.doubtful_sql, 'ambiguous|' || p.col) END,
				CASE WHEN (p.cm).on_missing = 'error' OR (p.cm).on_missing = 'default' AND p.default_sql IS NULL THEN format('CASE WHEN %s THEN %L END', p.absent_sql, p.fault)
					WHEN (p.cm).on_missing = 'default' THEN format('CASE WHEN %s AND %s IS NULL THEN %L END', p.absent_sql, p.default_sql, p.fault) END), '') END,
		nullif(concat_ws(', ', CASE WHEN p.parked_sql IS NOT NULL THEN format('CASE WHEN %s%s THEN %s END',
				CASE WHEN (p.cm).fallback THEN format('NOT (%s) AND ', p.before_sql) END, p.parked_sql, dvmig._waits_sql(p.cm, p.n)) END,
			CASE WHEN (p.cm).on_missing = 'default' AND p.absent_sql IS NOT NULL AND p.default_parked_sql IS NOT NULL
				THEN format('CASE WHEN %s AND %s THEN %L END', p.absent_sql, p.default_parked_sql, 'parked|' || p.col) END,
			CASE WHEN (p.cm).on_missing = 'park' AND p.absent_sql IS NOT NULL THEN format('CASE WHEN %s THEN %L END', p.absent_sql, 'parked|' || p.col) END), ''),
		p.join_sql, p.filled_sql, p.n,
		CASE WHEN 'default' IN ((p.cm).on_unknown, (p.cm).on_missing) THEN 'defaulted' WHEN 'null' IN ((p.cm).on_unknown, (p.cm).on_missing) THEN 'left empty' END,
		CASE WHEN (p.cm).on_unknown <> 'error' THEN format('(%s) AND %s', p.filled_sql, p.unknown_sql)
			WHEN (p.cm).on_missing IN ('default', 'null') THEN p.absent_sql END
	FROM policies p,
		LATERAL (SELECT CASE WHEN (p.cm).on_missing = 'default' AND p.absent_sql IS NOT NULL AND p.default_sql IS NOT NULL
			THEN format('CASE WHEN %s THEN %s ELSE %s END', p.absent_sql, p.default_sql, p.value_sql) ELSE p.value_sql END AS sql) v
	ORDER BY p.n
$$;
COMMENT ON FUNCTION dvmig._map_sql(regclass) IS 'SQL of value, fault, parking, join and remedy of each column map of a staging table';

-- _note_sql: what was done to a row's values, in words; null where no policy does anything.
CREATE FUNCTION dvmig._note_sql(staging regclass) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'nullif(concat_ws(''; '', ' || string_agg(format('%L || nullif(concat_ws('', '', %s), '''')', q.noted || ': ', q.items), ', ' ORDER BY q.noted) || '), '''')'
	FROM (SELECT m.noted, string_agg(format('CASE WHEN %s%s THEN %L END',
			-- an update says nothing of what goes with creates only
			CASE c.send WHEN 'insert' THEN 's.action_flag <> ''U'' AND coalesce(x.operation, ''D'') = ''D'' AND ' END, m.noted_sql, m.target_column), ', ' ORDER BY m.ordinal) AS items
		FROM dvmig._map_sql($1) m JOIN dvmig.column_map c ON c.staging = $1 AND c.target_column = m.target_column AND c.variant = m.variant
		WHERE m.noted_sql IS NOT NULL GROUP BY m.noted) q
$$;
COMMENT ON FUNCTION dvmig._note_sql(regclass) IS 'SQL of what policies did to a row''s values, in words';

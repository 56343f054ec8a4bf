-- Column maps compiled to one SELECT per staging table and pass.
--
-- The engine, preview, plan and check all read rows through what is built
-- here, so that they cannot differ. The SELECT takes a batch of staging rows
-- in key order first and joins parents, references and earlier outcomes to
-- that batch only: no plan can then cost more than the batch.
--
-- The pass "verify" reads what has been processed, to compare it with what
-- Dataverse holds. Its op is the flag (P, S, E) or D, owes tells that the record
-- was updated last, passed that a failed row has a record, verify that a record
-- was found and kept; a last column tells when the outcome was recorded.
--
-- Columns of every projection, in order:
--   1 ctid  2 xmin  3 tableoid   the row version a verdict will belong to
--   4 op                         I, U or D; in passes over what is written also P or E, where the outcome is
--                                recorded and only the flag is missing, and null where there is no outcome
--   5 id                         the record's id
--   6 content_hash               of what was last written, where known
--   7 created_run                run that created the record, where known
--   8 owes                       passes that are owed once this one is done: 1 deferred, 2 files, 4 states
--   9 owes_unchanged             the same where the record is there and need not be written; 8 where it was kept, though it is ours
--  10 verify                     the id was given or adopted: look before creating
--  11 recorded                   an outcome table has a row of its key
--  12 fault                      class '|' column, where a lookup or choice does not resolve
--  13 note                       what policies put in, in words
--  14 caller                     the user whom the row is written as
--  15 last_run                   in later passes: the run whose outcome there is
--  16 outcome                    where its success row is, if that is the only outcome and the pass writes it anew
--  17 ...                        the source key's columns, then one per column map

ALTER TABLE dvmig.run_table ADD deferred text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN dvmig.run_table.deferred IS 'lookups left to the deferred pass, because following them at once would go in a circle';

-- _choice_texts: everything a source text may be to mean a choice, as jsonb
-- for dvmig._choice(): '=' || text from choice_map, '~' || lower(label or value).
CREATE FUNCTION dvmig._choice_texts(staging regclass, target_column text) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH t AS (
		SELECT mt.migration_id, mt.target, m.server
		FROM dvmig.migration_table mt JOIN dvmig.migration m USING (migration_id)
		WHERE mt.staging = $1
	), entries AS (
		SELECT '~' || lower(c.label) AS k, c.choice_value AS v, 1 AS rank
		FROM t JOIN dvmig.metadata_choice c
			ON c.server = t.server AND c.table_name = t.target AND c.column_name = $2
		WHERE c.label IS NOT NULL
		UNION ALL
		SELECT '~' || c.choice_value, c.choice_value, 0
		FROM t JOIN dvmig.metadata_choice c
			ON c.server = t.server AND c.table_name = t.target AND c.column_name = $2
		UNION ALL
		-- a yes/no column also takes the words that PostgreSQL takes for a boolean
		SELECT '~' || w.word, w.v, -1
		FROM t JOIN dvmig.metadata_column mc ON mc.server = t.server AND mc.table_name = t.target AND mc.column_name = $2 AND mc.column_type = 'Boolean',
			(VALUES ('true', 1), ('t', 1), ('yes', 1), ('y', 1), ('on', 1), ('1', 1), ('false', 0), ('f', 0), ('no', 0), ('n', 0), ('off', 0), ('0', 0)) w (word, v)
		UNION ALL
		SELECT '=' || cm.source_text,
			coalesce(cm.target_value,
				(SELECT min(c.choice_value) FROM dvmig.metadata_choice c
				 WHERE c.server = t.server AND c.table_name = t.target
				   AND c.column_name = $2 AND lower(c.label) = lower(cm.target_text)
				 HAVING count(DISTINCT c.choice_value) = 1)),
			CASE WHEN cm.source_table = '' THEN 2 ELSE 3 END
		FROM t JOIN dvmig.choice_map cm
			ON cm.migration_id = t.migration_id AND cm.target_table = t.target AND cm.target_column = $2
		WHERE cm.source_table = '' OR to_regclass(cm.source_table) = $1
	), best AS (
		-- one label on two values stands for neither: the row fails, naming the column
		SELECT k, rank, min(v) AS v, count(DISTINCT v) AS n FROM entries WHERE v IS NOT NULL GROUP BY k, rank
	)
	SELECT coalesce(jsonb_object_agg(k, v ORDER BY rank) FILTER (WHERE n = 1), '{}') FROM best
$$;
COMMENT ON FUNCTION dvmig._choice_texts(regclass, text) IS 'source texts of a choice column with the value each stands for';

CREATE FUNCTION dvmig._choice(source text, texts jsonb) RETURNS int
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'dv_choice';
COMMENT ON FUNCTION dvmig._choice(text, jsonb) IS 'choice value of a source text: by choice_map exactly, else by label or value without regard to case; null where unknown';

CREATE FUNCTION dvmig._choices(source text, texts jsonb, on_unknown text, default_value int) RETURNS int[]
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'dv_choices_text';
COMMENT ON FUNCTION dvmig._choices(text, jsonb, text, int) IS 'choice values of a source text: as a whole, or its parts between semicolons, or numbers between commas; null where one is unknown and on_unknown is error';

CREATE FUNCTION dvmig._choices(source text[], texts jsonb, on_unknown text, default_value int) RETURNS int[]
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'dv_choices_array';
COMMENT ON FUNCTION dvmig._choices(text[], jsonb, text, int) IS 'choice values of source texts; null where one is unknown and on_unknown is error';

-- _id_expression: SQL of the id a row of a staging table has, over an alias.
CREATE FUNCTION dvmig._id_expression(staging regclass, alias text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE ids
		WHEN 'column' THEN format('%s.%I::uuid', $2, id_column)
		WHEN 'platform' THEN 'NULL::uuid'
		ELSE format('dvmig.record_id(%L::uuid, %s)', namespace,
			(SELECT string_agg(format('%s.%I', $2, k), ', ' ORDER BY i) FROM unnest(source_key) WITH ORDINALITY u(k, i)))
		END
	FROM dvmig.migration_table WHERE migration_table.staging = $1
$$;
COMMENT ON FUNCTION dvmig._id_expression(regclass, text) IS 'SQL expression of the Dataverse id a staging row has unless dataverse_id is filled';

-- _update_only: mapped columns that Dataverse takes with an update only. A row
-- that is created owes them, as it does lookups that go in a circle. Columns that
-- could go with a create and are not to (send => 'update') are not among them.
CREATE FUNCTION dvmig._update_only(staging regclass) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT ARRAY(SELECT DISTINCT c.target_column FROM dvmig.column_map c
		JOIN dvmig.migration_table t ON t.staging = c.staging JOIN dvmig.migration m USING (migration_id)
		JOIN dvmig.metadata_column mc ON mc.server = m.server AND mc.table_name = t.target AND mc.column_name = c.target_column
		WHERE c.staging = $1 AND c.pass = 'write' AND c.send = 'update' AND NOT mc.valid_for_create ORDER BY 1)
$$;
COMMENT ON FUNCTION dvmig._update_only(regclass) IS 'mapped columns that Dataverse takes with an update only: a row that is created owes them';

-- _pass_maps: the values that a pass sends, in the order of its projection.
CREATE FUNCTION dvmig._pass_maps(staging regclass, pass text, deferred text[])
RETURNS TABLE (target_column text, variant text, value_sql text, fault_sql text, parked_sql text, join_sql text, filled_sql text, ordinal int)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF pass = 'states' THEN
		RETURN QUERY SELECT v.c, ''::text, v.s, CASE v.n WHEN 1 THEN w.fault_sql END, NULL::text, NULL::text, NULL::text, v.n
			FROM dvmig._state_sql($1) w, LATERAL (VALUES ('statecode', w.state_sql, 1), ('statuscode', w.status_sql, 2)) v (c, s, n)
			WHERE w.wanted_sql IS NOT NULL
			UNION ALL
			SELECT cm.target_column, ''::text, format('(%s)', dvmig._shown_sql(cm)), NULL, NULL, NULL, NULL, 2 + row_number() OVER (ORDER BY cm.position)::int
			FROM dvmig.column_map cm WHERE cm.staging = $1 AND cm.target_column LIKE '@close:%'
			ORDER BY 8;
		RETURN;
	END IF;
	RETURN QUERY SELECT m.target_column, m.variant, m.value_sql, m.fault_sql, m.parked_sql, m.join_sql, m.filled_sql, m.ordinal
	FROM dvmig._map_sql($1) m
	-- a link's ends are what is deleted, too
	WHERE $2 IN ('write', 'links', 'verify') OR $2 = 'deferred' AND m.target_column = ANY ($3 || dvmig._update_only($1)) OR $2 = 'delete' AND m.target_column IN ('@left', '@right')
	UNION ALL
	SELECT '@parties', ''::text, p.value_sql, p.fault_sql, p.parked_sql, NULL, p.filled_sql, 100000
	FROM dvmig._party_sql($1) p WHERE $2 IN ('write', 'verify') AND p.value_sql IS NOT NULL
	ORDER BY 8;
	-- what a record ends in is compared with all else
	IF $2 = 'verify' THEN
		RETURN QUERY SELECT p.target_column, p.variant, p.value_sql, NULL::text, NULL::text, NULL::text, NULL::text, 1000000 + p.ordinal
		FROM dvmig._pass_maps($1, 'states', '{}') p WHERE p.target_column IN ('statecode', 'statuscode');
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._pass_maps(regclass, text, text[]) IS 'SQL of the values that a pass sends, in the order of its projection';

-- _children_left: SQL over a row (s) of a staging table: not null where a row that
-- points at it was to be deleted and could not be. Its record must not go before
-- that one: Dataverse would take it along, or unlink it. (Rows whose turn has not
-- come are no obstacle: in a circle all would wait for each other.)
CREATE FUNCTION dvmig._children_left(staging regclass) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT string_agg(format(
		'CASE WHEN (%s) IN (SELECT %s FROM %s s WHERE s.action_flag = ''D'' AND s.processing_flag = ''E'') THEN %L END',
		(SELECT string_agg(format('s.%I', k), ', ' ORDER BY i) FROM unnest(t.source_key) WITH ORDINALITY u(k, i)),
		array_to_string(c.expression_sql, ', '), c.staging, 'parked|' || c.staging::text), ', ' ORDER BY c.staging::text, c.target_column)
	FROM dvmig.column_map c JOIN dvmig.migration_table t ON t.staging = c.parent
	WHERE c.parent = $1 AND c.kind = 'parent'
$$;
COMMENT ON FUNCTION dvmig._children_left(regclass) IS 'SQL of why a row may not be deleted yet: a row that points at it could not be deleted';

-- _no_outcome: a row of an outcome table without any value, for FROM.
CREATE FUNCTION dvmig._no_outcome(outcomes regclass) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('(SELECT NULL::tid AS ctid, %s)', string_agg(format('NULL::%s AS %I', format_type(a.atttypid, a.atttypmod), a.attname), ', ' ORDER BY a.attnum))
	FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
$$;
COMMENT ON FUNCTION dvmig._no_outcome(regclass) IS 'SQL of a row of an outcome table that has no values';

-- _same_order: do the keys of outcomes have the order that they have in staging?
CREATE FUNCTION dvmig._same_order(staging regclass, source_key text[], outcomes regclass) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT bool_and(dvmig._base_type(s.atttypid) IS NOT DISTINCT FROM dvmig._base_type(o.atttypid) AND s.attcollation IS NOT DISTINCT FROM o.attcollation)
	FROM unnest(source_key) k
	LEFT JOIN pg_attribute s ON s.attrelid = $1 AND s.attname = k AND NOT s.attisdropped
	LEFT JOIN pg_attribute o ON o.attrelid = $3 AND o.attname = k AND NOT o.attisdropped
$$;
COMMENT ON FUNCTION dvmig._same_order(regclass, text[], regclass) IS 'whether the keys of an outcome table have the types and collations of the staging table';

-- _lost_parent: a column map that points at a staging table which was dropped; null
-- where there is none, or in a pass whose values are no ids of parents. SQL would
-- have a number for the name of such a table.
CREATE FUNCTION dvmig._lost_parent(staging regclass, pass text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT c.target_column FROM dvmig.column_map c
	WHERE $2 IN ('write', 'links', 'deferred', 'verify')
	  AND c.staging = $1 AND c.parent IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class k WHERE k.oid = c.parent)
	ORDER BY c.position, c.target_column LIMIT 1
$$;
COMMENT ON FUNCTION dvmig._lost_parent(regclass, text) IS 'target column of a map that points at a staging table that was dropped';

-- _require_tables: an error where the staging table or one that it points at was
-- dropped; the engine, whose errors must not quote what users raise, asks itself.
CREATE FUNCTION dvmig._require_tables(staging regclass, pass text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	lost CONSTANT text := dvmig._lost_parent($1, $2);
BEGIN
	IF NOT EXISTS (SELECT FROM pg_class k WHERE k.oid = $1) THEN
		RAISE EXCEPTION 'staging table with OID % does not exist', $1::oid
			USING ERRCODE = 'undefined_table', HINT = format('Take it out with dvmig.drop_table(%L).', $1::oid::text);
	ELSIF lost IS NOT NULL THEN
		RAISE EXCEPTION 'column map "%" of % points at a staging table that has been dropped', lost, $1
			USING ERRCODE = 'undefined_table', HINT = format('Take it out with dvmig.unmap(%L, %L), and map it anew where there is another table.', $1, lost);
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._require_tables(regclass, text) IS 'error where a staging table, or one that it points at, was dropped';

-- _lost_outcome: what to do about an outcome table that was dropped; null where
-- both are there.
CREATE FUNCTION dvmig._lost_outcome(staging regclass) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN t.relationship IS NULL THEN format('SELECT dvmig.rebuild_outcomes(%L)', $1)
		ELSE format('SELECT dvmig.drop_table(%L), and add the association again', $1) END
	FROM dvmig.migration_table t
	WHERE t.staging = $1 AND (SELECT count(*) FROM pg_class k WHERE k.oid IN (t.success_table, t.error_table)) < 2
$$;
COMMENT ON FUNCTION dvmig._lost_outcome(regclass) IS 'how to go on where an outcome table of a staging table was dropped';

CREATE FUNCTION dvmig._require_outcomes(staging regclass) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	remedy CONSTANT text := dvmig._lost_outcome($1);
BEGIN
	IF remedy IS NOT NULL THEN
		RAISE EXCEPTION 'an outcome table of staging table % does not exist', $1
			USING ERRCODE = 'undefined_table', HINT = format('It is made again by: %s.', remedy);
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._require_outcomes(regclass) IS 'error where an outcome table of a staging table was dropped';

-- _projection: the parts of the SELECT; the engine adds the key range and the
-- LIMIT to "inner_sql" and puts them together as
--   select_sql FROM (inner_sql [AND key_sql > ($1, ...)] ORDER BY order_sql LIMIT n) s joins_sql ORDER BY order_sql
-- and, for a row that cannot be transformed, without its maps:
--   known_sql FROM (...) s outcomes_sql, with row version, op, id where it is
--   stored, created_run and keys
-- "all_sql" is inner_sql without the table's filter: what is read where that throws.
-- "fresh_sql" stands for joins_sql where none of the rows has an outcome: with
-- constants for outcomes, the executor looks for none and the planner does
-- away with what depends on them. Null where a range of source keys does not
-- bound the same rows in the outcome tables, or in a pass over what has outcomes.
-- "count_sql" counts the rows of inner_sql and, in the same scan, all that are
-- unprocessed. Null in a pass over what is written already.
CREATE FUNCTION dvmig._projection(staging regclass, pass text, deferred text[] DEFAULT '{}',
	OUT select_sql text, OUT inner_sql text, OUT joins_sql text, OUT order_sql text, OUT key_types regtype[],
	OUT known_sql text, OUT outcomes_sql text, OUT fresh_sql text, OUT all_sql text, OUT count_sql text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table;
	keys text;
	success_on text;
	error_on text;
	id_sql text;
	faults text;
	owes_deferred text;
	states record;
	vals text;
	map_joins text;
	srv text;
	op text;
	update_only text[] := dvmig._update_only($1);
	created text;
	last_run CONSTANT text := CASE WHEN pass IN ('deferred', 'files', 'states') THEN 'x.run' ELSE 'NULL::bigint' END;
	outcome text;
	children text := coalesce(CASE pass WHEN 'delete' THEN ' ELSE coalesce(' || dvmig._children_left($1) || ', NULL::text)' END, '');
	filter CONSTANT text := coalesce((SELECT ' AND (' || mt.filter_sql || ') IS TRUE' FROM dvmig.migration_table mt
		WHERE mt.staging = $1 AND pass IN ('write', 'links', 'delete')), '');
	kept CONSTANT text := dvmig._kept_sql();
BEGIN
	PERFORM dvmig._require_tables($1, pass);
	SELECT mt.* INTO STRICT t FROM dvmig.migration_table mt WHERE mt.staging = $1;
	SELECT string_agg(format('s.%I', k), ', ' ORDER BY i),
		string_agg(format('x.%I = s.%1$I', k), ' AND ' ORDER BY i),
		string_agg(format('e.%I = s.%1$I', k), ' AND ' ORDER BY i),
		array_agg(a.atttypid::regtype ORDER BY i)
	INTO keys, success_on, error_on, key_types
	FROM unnest(t.source_key) WITH ORDINALITY u(k, i)
	JOIN pg_attribute a ON a.attrelid = $1 AND a.attname = k AND NOT a.attisdropped;

	id_sql := CASE WHEN t.relationship IS NOT NULL THEN 'NULL::uuid' ELSE format('coalesce(s.dataverse_id, x.dataverse_id, e.dataverse_id, %s)', dvmig._id_expression($1, 's')) END;

	states := dvmig._state_sql($1);
	-- a record that was kept is not ours to write over by reloading its row: looked at again like a new one
	op := CASE WHEN pass = 'delete' THEN '''D''' WHEN pass = 'verify' THEN
			'CASE WHEN s.processing_flag = ''E'' THEN ''E'' WHEN s.action_flag = ''D'' THEN ''D'' ELSE s.processing_flag::text END'
		WHEN t.relationship IS NOT NULL THEN '''I'''
		-- what moved while its last request was on its way has its outcome, and lacks its flag
		WHEN pass <> 'write' THEN format('CASE WHEN x.owed_passes IS NOT NULL THEN ''U'' WHEN x.%1$I IS NOT NULL THEN ''P'' WHEN e.%1$I IS NOT NULL THEN ''E'' END', t.source_key[1])
		ELSE 'CASE WHEN s.action_flag = ''U'' OR x.operation <> ''D'' AND NOT ' || kept || ' OR e.created_run IS NOT NULL THEN ''U'' ELSE ''I'' END' END;
	-- Faults first (they will not heal by waiting), then what has to wait.
	SELECT concat_ws(', ',
			string_agg(m.fault_sql, ', ' ORDER BY m.ordinal) FILTER (WHERE m.fault_sql IS NOT NULL),
			CASE WHEN pass = 'write' THEN states.fault_sql END,
			string_agg(m.parked_sql, ', ' ORDER BY m.ordinal)
				FILTER (WHERE m.parked_sql IS NOT NULL AND pass <> 'verify' AND (pass = 'deferred' OR NOT m.target_column = ANY (deferred)))),
		string_agg('(' || m.filled_sql || ')' || CASE WHEN EXISTS (SELECT FROM dvmig.column_map c
				WHERE c.staging = $1 AND c.target_column = m.target_column AND c.variant = m.variant AND c.send = 'insert')
				THEN ' AND s.action_flag = ''I'' AND coalesce(x.pass = ''write'', true)'
				-- what goes with updates only is owed by a create
				WHEN NOT m.target_column = ANY (deferred) THEN format(' AND ((%s) = ''I'' OR x.operation = ''I'' AND x.pass = ''write'')', op) ELSE '' END, ' OR ')
			FILTER (WHERE m.target_column = ANY (deferred || update_only)),
		string_agg(CASE WHEN pass = 'verify' AND t.relationship IS NULL THEN format('CASE WHEN s."dvmig loaded" THEN %s END', m.value_sql)
			ELSE m.value_sql END, ', ' ORDER BY m.ordinal),
		string_agg(m.join_sql, ' ' ORDER BY m.ordinal)
	INTO faults, owes_deferred, vals, map_joins
	FROM dvmig._pass_maps($1, pass, deferred) m;

	outcome := CASE WHEN pass = 'write' THEN format('CASE WHEN e.%I IS NULL THEN x.ctid END', t.source_key[1]) ELSE 'NULL::tid' END;
	-- a record that was deleted is nobody's any more: the row may create it anew
	created := 'CASE WHEN x.operation = ''D'' THEN NULL ELSE coalesce(x.created_run, e.created_run) END';
	select_sql := format(
		'SELECT s.%I, s.%I, s.%I, (%s)::"char", %s, '
		-- of files, what was uploaded last
		'CASE WHEN x.operation <> ''D''' || CASE pass WHEN 'files' THEN ' THEN decode(x.file_hash, ''hex'')'
			-- of a row that was edited since it got its flag the lookups are not those of the hash
			WHEN 'deferred' THEN ' AND x.xmin = s."dvmig xmin" THEN x.content_hash' ELSE ' THEN x.content_hash' END || ' END, %s, %s, %s, '
		|| CASE WHEN pass = 'verify' THEN '' ELSE 's.dataverse_id IS NOT NULL AND x.dataverse_id IS NULL AND e.dataverse_id IS NULL OR ' END || kept || ', %s, CASE WHEN s.action_flag <> ''D''' || CASE WHEN pass = 'verify' THEN ' AND s.processing_flag <> ''E''' ELSE '' END || ' THEN coalesce(%s, NULL::text)%s END, %s, (%s)::uuid, ' || last_run || ', %s, %s',
		'dvmig ctid', 'dvmig xmin', 'dvmig tableoid', op, id_sql, created,
		-- to verify: was it an update, and is there a record of a row that failed
		CASE WHEN pass = 'verify' THEN 'x.operation IS NOT DISTINCT FROM ''U''' ELSE dvmig._owes_sql(pass, owes_deferred, dvmig._files_owed_sql($1), states.owed_sql) END,
		CASE WHEN pass = 'verify' THEN 'e.dataverse_id IS NOT NULL'
			ELSE dvmig._owes_sql(pass, '(' || owes_deferred || ') AND coalesce(x.pass = ''write'', true)', dvmig._files_owed_sql($1), states.owed_unchanged_sql)
				|| ' + CASE WHEN ' || dvmig._kept_ours_sql() || ' THEN 8 ELSE 0 END' END,
		format('x.%1$I IS NOT NULL OR e.%1$I IS NOT NULL', t.source_key[1]),
		coalesce(nullif(faults, ''), 'NULL'), children, coalesce(CASE WHEN pass = 'write' THEN dvmig._note_sql($1) END, 'NULL::text'), coalesce(t.caller_sql, 'NULL'), outcome,
		concat_ws(', ', keys, vals, CASE WHEN pass = 'verify' THEN 'x.recorded_at' END));

	known_sql := format('SELECT s.%I, s.%I, s.%I, (%s)::"char", coalesce(s.dataverse_id, x.dataverse_id, e.dataverse_id), %s, ' || last_run || ', %s',
		'dvmig ctid', 'dvmig xmin', 'dvmig tableoid', op, created, keys);

	-- Columns by name: a subquery's whole row is not the staging table's row.
	SELECT format('SELECT %s, s.ctid AS "dvmig ctid", s.xmin AS "dvmig xmin", s.tableoid AS "dvmig tableoid"%s FROM %s s WHERE %s',
		string_agg(format('s.%I', a.attname), ', ' ORDER BY a.attnum),
		-- asked for each value of a row, and so worked out once
		CASE WHEN pass = 'verify' THEN ', s.processing_flag <> ''E'' AND s.action_flag <> ''D'' AS "dvmig loaded"' ELSE '' END, $1,
		CASE CASE WHEN pass = 'links' THEN 'write' ELSE pass END
			WHEN 'write' THEN 's.processing_flag = ''U'' AND s.action_flag <> ''D'''
			WHEN 'delete' THEN 's.processing_flag = ''U'' AND s.action_flag = ''D'''
			WHEN 'verify' THEN 's.processing_flag IN (''S'', ''P'', ''E'')'
			-- not those whose outcome says that they owe another pass first
			ELSE format('s.processing_flag = ''S'' AND s.action_flag <> ''D'' AND NOT EXISTS (SELECT FROM %s x WHERE %s AND split_part(x.owed_passes, '','', 1) <> %L)',
				t.success_table, success_on, pass) END)
	INTO all_sql
	FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped;
	inner_sql := all_sql || filter;
	IF pass IN ('write', 'links', 'delete') THEN
		count_sql := format('SELECT count(*) FILTER (WHERE s.action_flag %s ''D''%s), count(*) FROM %s s WHERE s.processing_flag = ''U''',
			CASE pass WHEN 'delete' THEN '=' ELSE '<>' END, filter, $1);
	END IF;

	outcomes_sql := format('LEFT JOIN %s x ON %s LEFT JOIN %s e ON %s', t.success_table, success_on, t.error_table, error_on);
	joins_sql := outcomes_sql || coalesce(' ' || map_joins, '');
	IF pass = 'write' AND dvmig._same_order($1, t.source_key, t.success_table) AND dvmig._same_order($1, t.source_key, t.error_table) THEN
		fresh_sql := format('CROSS JOIN %s x CROSS JOIN %s e', dvmig._no_outcome(t.success_table), dvmig._no_outcome(t.error_table)) || coalesce(' ' || map_joins, '');
	END IF;
	order_sql := keys;
END
$$;
COMMENT ON FUNCTION dvmig._projection(regclass, text, text[]) IS 'parts of the SELECT that reads and transforms a staging table in a pass';

-- _projection_columns: what each value column of the projection becomes.
CREATE FUNCTION dvmig._projection_columns(staging regclass, pass text, deferred text[] DEFAULT '{}')
RETURNS TABLE (target_column text, member text, column_type text, date_behavior text, entity_set text, send text, is_deferred bool, value_sql text, max_units int)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT pm.target_column,
		CASE WHEN cm.navigation_property IS NOT NULL THEN cm.navigation_property || '@odata.bind'
			WHEN pm.target_column = '@parties' THEN t.target || '_activity_parties' ELSE split_part(pm.target_column, '@close:', CASE WHEN pm.target_column LIKE '@close:%' THEN 2 ELSE 1 END) END,
		CASE WHEN cm.navigation_property IS NOT NULL THEN 'Lookup' WHEN pm.target_column = '@parties' THEN 'Parties'
			WHEN dvmig._is_body(t.target, pm.target_column) AND dvmig._base_type(cm.result_type) = 'bytea'::regtype THEN 'Image'
			ELSE mc.column_type END,
		mc.date_behavior,
		CASE WHEN cm.navigation_property IS NOT NULL THEN rt.entity_set END,
		CASE WHEN pm.target_column = '@parties' THEN 'insert' WHEN pass IN ('write', 'verify') THEN coalesce(cm.send, 'both') ELSE 'both' END,
		pm.target_column = ANY (deferred),
		pm.value_sql,
		CASE WHEN cm.on_too_long = 'trim' THEN mc.max_length END
	FROM dvmig._pass_maps($1, pass, deferred) pm
	JOIN dvmig.migration_table t ON t.staging = $1
	JOIN dvmig.migration m USING (migration_id)
	LEFT JOIN dvmig.column_map cm ON cm.staging = $1 AND cm.target_column = pm.target_column AND cm.variant = pm.variant AND pass <> 'states'
	LEFT JOIN dvmig.metadata_column mc ON mc.server = m.server AND mc.table_name = CASE WHEN pm.target_column LIKE '@close:%' THEN dvmig._close_activity(t.target) ELSE t.target END
		AND mc.column_name = split_part(pm.target_column, '@close:', CASE WHEN pm.target_column LIKE '@close:%' THEN 2 ELSE 1 END)
	LEFT JOIN dvmig.metadata_table rt ON rt.server = m.server AND rt.table_name = cm.referenced_table
	ORDER BY pm.ordinal
$$;
COMMENT ON FUNCTION dvmig._projection_columns(regclass, text, text[]) IS 'target member and type of each value column of the projection';

-- _platform_key: the alternate key that rows are known by where Dataverse makes
-- their ids: an active one, all of whose columns are mapped and sent on create.
CREATE FUNCTION dvmig._platform_key(staging regclass, deferred text[]) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT k.key_columns
	FROM dvmig.migration_table t JOIN dvmig.migration m USING (migration_id)
	JOIN dvmig.metadata_key k ON k.server = m.server AND k.table_name = t.target AND k.index_status = 'Active'
	WHERE t.staging = $1 AND t.ids = 'platform'
	  AND k.key_columns <@ ARRAY(SELECT c.target_column FROM dvmig.column_map c
		WHERE c.staging = $1 AND c.send <> 'update' AND NOT c.target_column = ANY ($2))
	ORDER BY cardinality(k.key_columns), k.key_name
	LIMIT 1
$$;
COMMENT ON FUNCTION dvmig._platform_key(regclass, text[]) IS 'columns of the alternate key that stands for ids => ''platform''; null where none will do';

-- _circle_opener: the table to begin with where every table left waits for
-- another one. It is one of a circle that waits for no table outside of itself:
-- what only points at a circle comes after it, and keeps its lookups. Of these
-- the one that is created with most of what Dataverse requires of it.
CREATE FUNCTION dvmig._circle_opener(migration_id int, placed regclass[]) RETURNS regclass
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH RECURSIVE edge AS (
		SELECT c.staging, c.parent, mc.required_level = 'SystemRequired' OR c.kind = 'party' AS needed
		FROM dvmig.column_map c
		JOIN dvmig.migration_table t ON t.staging = c.staging
		JOIN dvmig.migration_table p ON p.staging = c.parent
		JOIN dvmig.migration m ON m.migration_id = t.migration_id
		LEFT JOIN dvmig.metadata_column mc ON mc.server = m.server AND mc.table_name = t.target AND mc.column_name = c.target_column
		WHERE t.migration_id = $1 AND p.migration_id = $1 AND c.kind IN ('parent', 'party')
		  AND NOT c.staging = ANY ($2) AND NOT c.parent = ANY ($2)
	), reach AS (
		SELECT e.staging, e.parent FROM edge e
		UNION
		SELECT r.staging, e.parent FROM reach r JOIN edge e ON e.staging = r.parent
	)
	SELECT t.staging
	FROM dvmig.migration_table t
	WHERE t.migration_id = $1 AND NOT t.staging = ANY ($2)
	  AND NOT EXISTS (SELECT FROM reach r WHERE r.staging = t.staging
		AND NOT EXISTS (SELECT FROM reach b WHERE b.staging = r.parent AND b.parent = t.staging))
	ORDER BY (SELECT count(*) FROM edge e WHERE e.staging = t.staging AND e.parent <> e.staging AND e.needed),
		(SELECT count(DISTINCT e.parent) FROM edge e WHERE e.staging = t.staging), t.position
	LIMIT 1
$$;
COMMENT ON FUNCTION dvmig._circle_opener(int, regclass[]) IS 'table of a circle to begin with, its lookups to the others left to the deferred pass';

-- _waves: dependency order. Tables whose parents are all placed form the next
-- wave; where none is left and tables remain, there is a circle: the table that
-- opens it is placed and its lookups to unplaced tables deferred.
CREATE FUNCTION dvmig._waves(migration_id int)
RETURNS TABLE (staging regclass, wave int, deferred text[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	placed regclass[] := '{}';
	ready regclass[];
	w int := 0;
BEGIN
	LOOP
		SELECT array_agg(t.staging ORDER BY t.position) INTO ready
		FROM dvmig.migration_table t
		WHERE t.migration_id = $1 AND NOT t.staging = ANY (placed)
		  AND NOT EXISTS (SELECT FROM dvmig.column_map c JOIN dvmig.migration_table p ON p.staging = c.parent
			WHERE c.staging = t.staging AND c.kind IN ('parent', 'party') AND c.parent <> t.staging
			  AND p.migration_id = $1 AND NOT c.parent = ANY (placed));
		IF ready IS NULL THEN
			ready := array_remove(ARRAY[dvmig._circle_opener($1, placed)], NULL);
		END IF;
		EXIT WHEN cardinality(ready) = 0;
		w := w + 1;
		RETURN QUERY
			SELECT r, w, coalesce((SELECT array_agg(DISTINCT c.target_column) FROM dvmig.column_map c
				JOIN dvmig.migration_table p ON p.staging = c.parent AND p.migration_id = $1
				WHERE c.staging = r AND c.kind = 'parent' AND NOT dvmig._by_level(c)
				  AND (c.parent = r OR NOT c.parent = ANY (placed))), '{}')
			FROM unnest(ready) r;
		placed := placed || ready;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._waves(int) IS 'staging tables of a migration in dependency order, with the lookups that go in a circle and are left to the deferred pass';

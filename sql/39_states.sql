-- States: statecode and statuscode, set by a pass of their own when all else of
-- a record is there.
--
-- Rows are created in the default state of their table. Most tables take the
-- pair by an update. Some are closed by an action, which leaves an activity; as
-- such a record takes no changes any more, they are closed only when asked for
-- (passes => '{states}'), after validation.

-- _closing_table: is a Dataverse table closed by actions only?
CREATE FUNCTION dvmig._closing_table(table_name text) RETURNS bool
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT $1 IN ('opportunity', 'incident', 'quote', 'salesorder') $$;
COMMENT ON FUNCTION dvmig._closing_table(text) IS 'is a Dataverse table closed by actions, which is done only when asked for?';

-- _closing_states: the states of such a table that its actions bring records to;
-- the actions themselves are in states.c.
CREATE FUNCTION dvmig._closing_states(table_name text) RETURNS int[]
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT CASE $1 WHEN 'opportunity' THEN '{1,2}' WHEN 'incident' THEN '{1}' WHEN 'quote' THEN '{2,3}' WHEN 'salesorder' THEN '{2,3}' END::int[] $$;
COMMENT ON FUNCTION dvmig._closing_states(text) IS 'states that actions bring records of a Dataverse table to; null where columns do';

-- _state_value: value of a mapped state or status as a whole number.
CREATE FUNCTION dvmig._state_value(staging regclass, target_column text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	c dvmig.column_map;
BEGIN
	SELECT m.* INTO c FROM dvmig.column_map m WHERE m.staging = $1 AND m.target_column = $2;
	RETURN CASE c.kind WHEN 'choice' THEN format('dvmig._choice((%s)::text, %L::jsonb)', c.expression_sql[1], dvmig._choice_texts($1, $2))
		-- by way of text: a fraction is an error, not rounded
		WHEN 'value' THEN format('(%s)::text::int', c.expression_sql[1]) END;
END
$$;
COMMENT ON FUNCTION dvmig._state_value(regclass, text) IS 'SQL of a mapped state or status';

-- _states_in_doubt: may a run that did not end cleanly have set states that are
-- not recorded? Until one has walked over all rows, each is set again.
CREATE FUNCTION dvmig._states_in_doubt(staging regclass) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT EXISTS (SELECT FROM dvmig.migration_table t WHERE t.staging = $1 AND NOT t.clean_end AND (t.forgotten_since IS NOT NULL
		OR EXISTS (SELECT FROM dvmig.run_table r JOIN dvmig.run_history h USING (run)
			WHERE h.migration_id = t.migration_id AND r.run >= t.unclean_from AND r.pass = 'states' AND r.started_at IS NOT NULL
			  -- by the name that it had then
			  AND (r.staging = $1::text OR NOT EXISTS (SELECT FROM dvmig.migration_table o WHERE o.staging::text = r.staging))
			  AND h.state NOT IN ('starting', 'running', 'stopping'))))
$$;
COMMENT ON FUNCTION dvmig._states_in_doubt(regclass) IS 'whether states of records may have been set that are not recorded';

-- _state_sql: what state a row is to have; all null where none is mapped.
--   wanted_sql  'state,status' as the success table keeps it; null: leave it
--   fault_sql   a choice that is unknown, or a pair that does not fit
--   owed_sql    has the record, as far as is known, another one?
--   owed_unchanged_sql  the same of a record that was not made by writing the row
CREATE FUNCTION dvmig._state_sql(staging regclass, OUT state_sql text, OUT status_sql text, OUT wanted_sql text, OUT fault_sql text, OUT owed_sql text, OUT owed_unchanged_sql text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	state text := dvmig._state_value(staging, 'statecode');
	states jsonb;		-- of each status
	names jsonb;
	defaults text[];
	unknown text;
BEGIN
	status_sql := dvmig._state_value(staging, 'statuscode');
	IF state IS NULL AND status_sql IS NULL THEN
		RETURN;
	END IF;
	SELECT jsonb_object_agg(o.choice_value, o.state_value) FILTER (WHERE o.column_name = 'statuscode' AND o.state_value IS NOT NULL),
		jsonb_object_agg(o.choice_value, 0) FILTER (WHERE o.column_name = 'statecode'),
		-- a record begins in state 0; its status is known where that state has one only
		'{"0,"}' || CASE WHEN count(*) FILTER (WHERE o.column_name = 'statuscode' AND o.state_value = 0) = 1
			THEN ARRAY['0,' || max(o.choice_value) FILTER (WHERE o.column_name = 'statuscode' AND o.state_value = 0)] ELSE '{}' END
	INTO states, names, defaults
	FROM dvmig.migration_table t JOIN dvmig.migration m USING (migration_id)
	JOIN dvmig.metadata_choice o ON o.server = m.server AND o.table_name = t.target AND o.column_name IN ('statecode', 'statuscode')
	WHERE t.staging = $1;
	state_sql := CASE WHEN status_sql IS NULL THEN state
		ELSE format('coalesce(%s, (%L::jsonb ->> (%s)::text)::int)', coalesce(state, 'NULL'), states, status_sql) END;
	status_sql := coalesce(status_sql, 'NULL::int');
	wanted_sql := format('(%s)::text || '','' || coalesce((%s)::text, '''')', state_sql, status_sql);
	SELECT string_agg(format('CASE WHEN (%s) IS NOT NULL AND %s IS NULL THEN %L END', c.expression_sql[1],
			dvmig._state_value($1, c.target_column), 'choice|' || c.target_column), ', ') INTO unknown
	FROM dvmig.column_map c WHERE c.staging = $1 AND c.pass = 'states' AND c.kind = 'choice';
	fault_sql := concat_ws(', ', unknown, format('CASE WHEN (%1$s) IS NOT NULL AND %3$L::jsonb ->> (%1$s)::text IS DISTINCT FROM (%2$s)::text '
		'OR (%2$s) IS NOT NULL AND NOT %4$L::jsonb ? (%2$s)::text THEN ''state|statuscode'' END', status_sql, state_sql, states, coalesce(names, '{}')));
	-- made by us, or to be made: in the default state. (Of a record whose row failed nothing is kept.)
	owed_sql := format('(%1$s) IS NOT NULL AND CASE WHEN x.record_state IS NOT NULL AND x.operation <> ''D'' THEN %1$s <> x.record_state '
		'ELSE NOT (%1$s = ANY (%2$L::text[]) AND s.action_flag = ''I'' AND (x.created_run IS NOT NULL OR %3$s OR e.created_run IS NULL AND s.dataverse_id IS NULL)) END',
		'(' || wanted_sql || ')', defaults, dvmig._kept_ours_sql());
	owed_unchanged_sql := format('(%1$s) IS NOT NULL AND CASE WHEN x.record_state IS NOT NULL AND x.operation <> ''D'' THEN %1$s <> x.record_state '
		'ELSE NOT (%1$s = ANY (%2$L::text[]) AND s.action_flag = ''I'' AND (x.created_run IS NOT NULL OR %3$s)) END',
		'(' || wanted_sql || ')', defaults, dvmig._kept_ours_sql());
	IF dvmig._states_in_doubt(staging) THEN
		owed_sql := format('(%s) IS NOT NULL', wanted_sql);
		owed_unchanged_sql := owed_sql;
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._state_sql(regclass) IS 'SQL of the state a row is to have, of what is wrong with it, and of whether it is owed';

-- _owes_sql: the passes that a row owes once a pass is done, as bits (see the
-- list of columns in 40_projection.sql). Each argument is SQL, or null where the
-- table has no such pass.
CREATE FUNCTION dvmig._owes_sql(pass text, owes_deferred text, owes_files text, owes_states text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(string_agg('CASE WHEN ' || q.owed || ' THEN ' || q.bit || ' ELSE 0 END', ' + ' ORDER BY q.bit), '0')
	FROM (VALUES (1, owes_deferred, 'write'), (2, owes_files, 'write deferred'), (4, owes_states, 'write deferred files')) q (bit, owed, after)
	WHERE q.owed IS NOT NULL AND pass = ANY (string_to_array(q.after, ' '))
$$;
COMMENT ON FUNCTION dvmig._owes_sql(text, text, text, text) IS 'SQL of the passes that a row owes once a pass is done';

-- ------------------------------------------------------- what a close leaves

-- _close_activity: the Dataverse table of the activity that a closing action leaves.
CREATE FUNCTION dvmig._close_activity(table_name text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE $1 WHEN 'opportunity' THEN 'opportunityclose' WHEN 'incident' THEN 'incidentresolution' WHEN 'quote' THEN 'quoteclose'
		WHEN 'salesorder' THEN 'orderclose' END
$$;
COMMENT ON FUNCTION dvmig._close_activity(text) IS 'table of the activity that a closing action leaves';

CREATE FUNCTION dvmig._map_close(caller oid, staging regclass, target_column text, expression text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table := dvmig._table(caller, staging, 'owner');
	g dvmig.migration;
	activity text := dvmig._close_activity(t.target);
	c dvmig.metadata_column;
	m dvmig.column_map;
	e record;
BEGIN
	SELECT q.* INTO g FROM dvmig.migration q WHERE q.migration_id = t.migration_id;
	IF activity IS NULL THEN
		RAISE EXCEPTION 'no action closes records of Dataverse table "%"', t.target
			USING ERRCODE = 'wrong_object_type', HINT = 'Opportunities, cases, quotes and orders are closed by actions, which leave an activity.';
	END IF;
	PERFORM dvmig._target_table(caller, g.server, activity);
	c := dvmig._target_column(g.server, activity, lower(btrim(target_column)));
	e := dvmig._compile_expression(g.owner, staging, expression);
	PERFORM dvmig._check_type(c, e.result_type);
	m.staging := staging;
	m.target_column := '@close:' || c.column_name;
	m.variant := '';
	m.kind := 'value';
	m.expression := btrim(expression);
	m.expression_sql := ARRAY[e.expression_sql];
	m.result_type := e.result_type;
	m.send := 'both';
	m.automatic := false;
	PERFORM dvmig._put_map(m);
	RETURN dvmig._log_map(caller, g.name, 'map_close', m, e.is_volatile);
END
$$;
COMMENT ON FUNCTION dvmig._map_close(oid, regclass, text, text) IS 'internal part of dvmig.map_close()';

CREATE FUNCTION dvmig.map_close(staging regclass, target_column text, expression text) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.map_close(regclass, text, text) IS
	'fill a column of the activity that closing a record leaves, such as its subject, description, actualend or timespent';

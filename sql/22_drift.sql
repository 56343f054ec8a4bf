-- Whether Dataverse is still what the column maps were made for.
--
-- A run asks before its first write: its worker reads again what is known of
-- the mapped columns (a few requests per table, dvmig._drift_parts()) and
-- compares (dvmig._drift()). What refresh_metadata() stores is taken for
-- known from then on; maps that no longer fit it are refused when a run is
-- started (dvmig._refuse_unfit_maps()).

-- _drift_parts: what has to be read again of the targets of a run.
CREATE FUNCTION dvmig._drift_parts(run bigint) RETURNS TABLE (table_name text, part text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH mapped AS (
		SELECT t.target, mc.column_type, mc.auto_number
		FROM dvmig.run_history h
		JOIN dvmig.run_table r USING (run)
		JOIN dvmig.migration_table t ON t.staging::text = r.staging AND t.migration_id = h.migration_id
		JOIN dvmig.metadata_table mt ON mt.server = h.server AND mt.table_name = t.target
		LEFT JOIN dvmig.column_map c ON c.staging = t.staging
		LEFT JOIN dvmig.metadata_column mc ON mc.server = h.server AND mc.table_name = t.target AND mc.column_name = c.target_column
		WHERE h.run = $1
	)
	SELECT m.target, 'table' FROM mapped m
	UNION
	SELECT m.target, m.column_type FROM mapped m
	WHERE m.column_type IN ('String', 'Memo', 'Integer', 'BigInt', 'Decimal', 'Double', 'Money', 'DateTime', 'File', 'Image',
		'Picklist', 'MultiSelectPicklist', 'State', 'Status', 'Boolean')
	UNION
	SELECT m.target, 'AutoNumber' FROM mapped m WHERE m.auto_number IS NOT NULL
	ORDER BY 1, 2
$$;
COMMENT ON FUNCTION dvmig._drift_parts(bigint) IS 'parts of the metadata that a run reads again: tables and types of their mapped columns';

-- _mapped_items: of a description of a staging table's target, what its maps rest on.
CREATE FUNCTION dvmig._mapped_items(t dvmig.migration_table, items jsonb) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(jsonb_object_agg(i.item, CASE
			-- the label of a choice counts only where texts are looked up in it
			WHEN i.item LIKE '%=%' AND NOT EXISTS (SELECT FROM dvmig.column_map c WHERE c.staging = t.staging
				AND c.target_column = split_part(i.item, '=', 1) AND c.kind = 'choice') THEN 'a choice'
			ELSE i.description END), '{}')
	FROM jsonb_each_text($2) i (item, description)
	WHERE i.item = 'table'
	   OR EXISTS (SELECT FROM dvmig.column_map c WHERE c.staging = t.staging
			AND i.item IN (c.target_column, c.target_column || ' to ' || c.referenced_table))
	   OR i.item LIKE '%=%' AND EXISTS (SELECT FROM dvmig.column_map c WHERE c.staging = t.staging
			AND c.target_column = split_part(i.item, '=', 1))
	   -- the key by which records are known again, where Dataverse makes the ids
	   OR i.item LIKE 'key %' AND i.description LIKE '% Active' AND t.ids = 'platform'
			AND string_to_array(regexp_replace(i.description, ' Active$', ''), ', ')
				<@ ARRAY(SELECT c.target_column FROM dvmig.column_map c WHERE c.staging = t.staging)
$$;
COMMENT ON FUNCTION dvmig._mapped_items(dvmig.migration_table, jsonb) IS 'of a description of the target''s metadata, what the maps of a staging table rest on';

-- _drift: what has changed of mapped columns since their metadata was read; null
-- where nothing has. The three arrays are answers: table, part, body.
CREATE FUNCTION dvmig._drift(run bigint, tables text[], parts text[], bodies jsonb[]) RETURNS text
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	WITH h AS (SELECT r.server, r.migration_id, r.migration FROM dvmig.run_history r WHERE r.run = $1),
	answered AS (
		SELECT a.tab, jsonb_object_agg(a.part, a.body) AS parts FROM unnest($2, $3, $4) a (tab, part, body) GROUP BY a.tab
	), described AS (
		SELECT a.tab, dvmig._describe_metadata(dvmig._read_table(h.server, a.tab, a.parts),
			ARRAY(SELECT c FROM dvmig._read_columns(h.server, a.tab, a.parts) c),
			ARRAY(SELECT c FROM dvmig._read_choices(h.server, a.tab, a.parts) c),
			ARRAY(SELECT l FROM dvmig._read_lookups(h.server, a.tab, a.parts) l),
			ARRAY(SELECT k FROM dvmig._read_keys(h.server, a.tab, a.parts) k), '{}') AS items
		FROM answered a, h
	), changes AS (
		SELECT DISTINCT t.target, q.item, q.was, q.is_now
		-- of other staging tables of the same target not all was read again
		FROM h JOIN dvmig.migration_table t ON t.migration_id = h.migration_id AND t.staging::text IN (SELECT r.staging FROM dvmig.run_table r WHERE r.run = $1)
		JOIN described d ON d.tab = t.target,
			LATERAL (SELECT item, o.value, n.value
				FROM jsonb_each_text(dvmig._mapped_items(t, dvmig._metadata_items(h.server, t.target))) o (item, value)
				FULL JOIN jsonb_each_text(dvmig._mapped_items(t, d.items)) n (item, value) USING (item)
				WHERE o.value IS DISTINCT FROM n.value) q (item, was, is_now)
	), told AS (
		SELECT row_number() OVER (ORDER BY c.target, c.item COLLATE "C") AS n, count(*) OVER () AS total, c.target, h.server, h.migration,
			CASE WHEN c.item = 'table' THEN format('table %s was %s and is now %s', c.target, c.was, coalesce(c.is_now, 'gone'))
				WHEN c.is_now IS NULL THEN format('%s.%s (%s) is gone', c.target, c.item, c.was)
				WHEN c.was IS NULL THEN format('%s.%s is new (%s)', c.target, c.item, c.is_now)
				ELSE format('%s.%s was %s and is now %s', c.target, c.item, c.was, c.is_now) END AS line
		FROM changes c, h
	)
	SELECT format('Dataverse has changed since the metadata of mapped columns was read: %s%s; SELECT * FROM dvmig.refresh_metadata(%L, %L) takes note of it, then look at dvmig.check(%L) and start again',
		string_agg(t.line, ', ' ORDER BY t.n) FILTER (WHERE t.n <= 5),
		max(format(' and %s more changes', t.total - 5)) FILTER (WHERE t.n = 6),
		t.server, array_agg(DISTINCT t.target), t.migration)
	FROM told t GROUP BY t.server, t.migration
$$;
COMMENT ON FUNCTION dvmig._drift(bigint, text[], text[], jsonb[]) IS 'what has changed in Dataverse of columns that a run''s maps fill, in words; null where nothing has';

-- _takes_type: whether a column takes values of a type of PostgreSQL.
CREATE FUNCTION dvmig._takes_type(c dvmig.metadata_column, type regtype) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	-- as dvmig._check_type() has it
	SELECT p.accepted FROM dvmig._payload_accepts(dvmig._base_type($2),
		CASE WHEN dvmig._is_body(c.table_name, c.column_name) AND dvmig._base_type($2) = 'bytea'::regtype THEN 'Image' ELSE c.column_type END, c.date_behavior) p(accepted, hint)
$$;
COMMENT ON FUNCTION dvmig._takes_type(dvmig.metadata_column, regtype) IS 'whether a Dataverse column takes values of a type';

-- _unfit_maps: maps that do not fit what is known of their column now, after a refresh.
CREATE FUNCTION dvmig._unfit_maps(migration_id int)
RETURNS TABLE (staging regclass, target text, target_column text, problem text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT * FROM (
		SELECT t.staging, t.target, c.target_column, CASE
			WHEN mt.table_name IS NULL THEN NULL  -- nothing is known: reading it is the first thing that any map did
			WHEN c.target_column LIKE '@%' THEN NULL  -- the end of a link is no column
			WHEN mc.column_name IS NULL THEN 'it does not exist any more'
			WHEN mc.calculation IS NOT NULL THEN format('Dataverse computes it now (%s)', mc.calculation)
			WHEN mc.column_type IN ('State', 'Status', 'File') THEN NULL  -- set by passes of their own; Dataverse may call a file valid for neither create nor update
			WHEN NOT mc.valid_for_create AND c.send = 'insert' OR NOT mc.valid_for_create AND NOT mc.valid_for_update THEN 'it cannot be written any more when a record is created'
			WHEN NOT mc.valid_for_create AND c.send = 'both' THEN 'it cannot be written any more when a record is created'
			WHEN NOT mc.valid_for_update AND c.send <> 'insert' THEN 'it cannot be written any more when a record is updated'
			WHEN c.kind = 'choice' AND mc.column_type NOT IN ('Picklist', 'MultiSelectPicklist', 'Boolean') THEN format('it is of type %s now, not a choice', mc.column_type)
			WHEN c.kind = 'value' AND dvmig._takes_type(mc, c.result_type) IS NOT TRUE THEN format('it is of type %s now and does not take %s', concat_ws(' ', mc.column_type, mc.date_behavior), c.result_type)
			WHEN c.referenced_table IS NOT NULL AND NOT EXISTS (SELECT FROM dvmig.metadata_lookup l
				WHERE l.server = mc.server AND l.table_name = mc.table_name AND l.column_name = mc.column_name AND l.referenced_table = c.referenced_table
				  AND l.navigation_property = c.navigation_property)
				THEN format('it does not point at "%s" through "%s" any more', c.referenced_table, c.navigation_property)
			END AS problem
		FROM dvmig.migration_table t
		JOIN dvmig.migration m USING (migration_id)
		JOIN dvmig.column_map c ON c.staging = t.staging
		LEFT JOIN dvmig.metadata_table mt ON mt.server = m.server AND mt.table_name = t.target
		LEFT JOIN dvmig.metadata_column mc ON mc.server = m.server AND mc.table_name = t.target AND mc.column_name = c.target_column
		WHERE t.migration_id = $1
		ORDER BY t.position, c.position) q
	WHERE q.problem IS NOT NULL
$$;
COMMENT ON FUNCTION dvmig._unfit_maps(int) IS 'column maps that do not fit what is known of Dataverse since a refresh';

CREATE FUNCTION dvmig._refuse_unfit_maps(migration_id int) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	first record;
	others text;
BEGIN
	SELECT * INTO first FROM dvmig._unfit_maps($1) LIMIT 1;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	SELECT string_agg(format('%s.%s: %s', u.target, u.target_column, u.problem), '; ') INTO others FROM dvmig._unfit_maps($1) u;
	RAISE EXCEPTION 'column "%" of Dataverse table "%" has changed since it was mapped: %', first.target_column, first.target, first.problem
		USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = others || '.',
		HINT = format('Take the map out with SELECT dvmig.unmap(%L, %L), and map the column anew where it still exists.', first.staging, first.target_column);
END
$$;
COMMENT ON FUNCTION dvmig._refuse_unfit_maps(int) IS 'error where a column map does not fit what is known of Dataverse';

-- _refuse_unfit_filters: a filter that throws for a row costs that row; one that
-- means nothing any more (a column is gone) is said before anything is begun.
CREATE FUNCTION dvmig._refuse_unfit_filters(m dvmig.migration) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t record;
BEGIN
	FOR t IN SELECT mt.staging, mt.filter_sql FROM dvmig.migration_table mt JOIN pg_class c ON c.oid = mt.staging
		WHERE mt.migration_id = m.migration_id AND mt.filter_sql IS NOT NULL LOOP
		BEGIN
			PERFORM dvmig._compile_expression(m.owner, t.staging, t.filter_sql);
		EXCEPTION WHEN syntax_error_or_access_rule_violation OR invalid_schema_name THEN
			RAISE EXCEPTION 'the filter of % means nothing any more: %', t.staging, SQLERRM
				USING ERRCODE = SQLSTATE, HINT = format('Set another one: SELECT dvmig.set_table(%L, ''filter'', ...).', t.staging);
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._refuse_unfit_filters(dvmig.migration) IS 'error where the filter of a staging table means nothing any more';

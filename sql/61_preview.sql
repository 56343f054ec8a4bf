-- What a run would send, without sending it.

CREATE FUNCTION dvmig._preview_rows(staging regclass, sample int, deferred text[], owner oid, skip int DEFAULT 0)
RETURNS TABLE (source_key text, operation text, dataverse_id uuid, request text, remark text)
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'dv_preview';
COMMENT ON FUNCTION dvmig._preview_rows(regclass, int, text[], oid, int) IS 'encode the next rows of a staging table as a run would';

-- _preview_bad_row: key of a row that cannot be transformed, and which column's
-- expression throws: each is tried alone, as a run does.
CREATE FUNCTION dvmig._preview_bad_row(staging regclass, deferred text[], owner oid, skip int, problem text,
	OUT source_key text, OUT remark text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	p record := dvmig._projection(staging, 'write', deferred);
	one_row text := format('(%s ORDER BY %s LIMIT 1 OFFSET %s) s', p.inner_sql, p.order_sql, skip);
	m record;
BEGIN
	source_key := dvmig._query_as(owner, format('SELECT concat_ws('', '', %s) FROM %s', p.order_sql, one_row));
	remark := problem;
	FOR m IN SELECT f.target_column, f.value_sql FROM dvmig._map_sql(staging) f ORDER BY f.ordinal LOOP
		BEGIN
			PERFORM dvmig._query_as(owner, format('SELECT (%s)::text FROM %s %s', m.value_sql, one_row, p.joins_sql));
		EXCEPTION WHEN OTHERS THEN
			remark := format('%s: %s', m.target_column, SQLERRM);
			RETURN;
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._preview_bad_row(regclass, text[], oid, int, text) IS 'key of a row that cannot be transformed, and the column at fault';

-- _preview_each: row by row, where one of them cannot be transformed.
CREATE FUNCTION dvmig._preview_each(staging regclass, sample int, deferred text[], owner oid)
RETURNS TABLE (source_key text, operation text, dataverse_id uuid, request text, remark text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n int;
BEGIN
	FOR n IN 0 .. sample - 1 LOOP
		BEGIN
			RETURN QUERY SELECT * FROM dvmig._preview_rows(staging, 1, deferred, owner, n);
			EXIT WHEN NOT FOUND;
		-- the classes of errors that a run calls the row's own
		EXCEPTION WHEN data_exception OR cardinality_violation OR integrity_constraint_violation OR raise_exception
			OR external_routine_invocation_exception OR sql_routine_exception OR program_limit_exceeded OR feature_not_supported THEN
			operation := NULL;
			dataverse_id := NULL;
			request := NULL;
			SELECT b.source_key, b.remark INTO source_key, remark
			FROM dvmig._preview_bad_row(staging, deferred, owner, n, SQLERRM) b;
			RETURN NEXT;
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._preview_each(regclass, int, text[], oid) IS 'preview row by row, telling of each that cannot be transformed why';

-- _preview_some: all at once, which is quick; row by row where one throws.
CREATE FUNCTION dvmig._preview_some(staging regclass, sample int, deferred text[], owner oid)
RETURNS TABLE (source_key text, operation text, dataverse_id uuid, request text, remark text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN QUERY SELECT * FROM dvmig._preview_rows(staging, sample, deferred, owner);
EXCEPTION WHEN data_exception OR cardinality_violation OR integrity_constraint_violation OR raise_exception
	OR external_routine_invocation_exception OR sql_routine_exception OR program_limit_exceeded OR feature_not_supported THEN
	RETURN QUERY SELECT * FROM dvmig._preview_each(staging, sample, deferred, owner);
END
$$;
COMMENT ON FUNCTION dvmig._preview_some(regclass, int, text[], oid) IS 'preview of a staging table whose rows may throw';

CREATE FUNCTION dvmig._preview(caller oid, staging regclass, sample int)
RETURNS TABLE (source_key text, operation text, dataverse_id uuid, request text, remark text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table := dvmig._table(caller, staging, 'viewer');
	m dvmig.migration;
	deferred text[];
BEGIN
	SELECT mi.* INTO m FROM dvmig.migration mi WHERE mi.migration_id = t.migration_id;
	-- row content is for those who may read the staging table
	PERFORM dvmig._require_reading(caller, $2);
	IF coalesce(sample, -1) < 0 THEN
		RAISE EXCEPTION 'sample cannot be %', coalesce(sample::text, 'null') USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Give the number of rows to show, such as 5.';
	END IF;
	deferred := coalesce((SELECT w.deferred FROM dvmig._waves(m.migration_id) w WHERE w.staging = $2), '{}');
	FOR source_key, operation, dataverse_id, request, remark IN
		SELECT * FROM dvmig._preview_some($2, sample, deferred, m.owner)
	LOOP
		-- a run reads references first; before that nothing is known of them
		IF EXISTS (SELECT FROM dvmig.column_map c WHERE c.staging = $2 AND c.kind IN ('reference', 'party') AND c.match_on IS NOT NULL
			AND c.target_column IN (split_part(remark, ':', 1), '@party:' || split_part(remark, ':', 1))
			AND NOT EXISTS (SELECT FROM dvmig.reference r WHERE r.server = m.server AND r.table_name = c.referenced_table
				AND r.match_on = dvmig._reference_name(m.migration_id, c.match_on))) THEN
			remark := split_part(remark, ':', 1) || ': not looked up in Dataverse yet; dvmig.refresh_references() does';
		END IF;
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._preview(oid, regclass, int) IS 'what a run would send: see dvmig.preview()';

CREATE FUNCTION dvmig.preview(staging regclass, sample int DEFAULT 5)
RETURNS TABLE (source_key text, operation text, dataverse_id uuid, request text, remark text)
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.preview(regclass, int) IS
	'the exact JSON a run would send for the next unprocessed rows of a staging table; remark tells why a row would not be sent. sample: how many rows';

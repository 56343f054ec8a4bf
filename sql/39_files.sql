-- Files: file columns, uploaded by a pass of their own when the record is there.
--
-- A file is not part of a create or update: it is sent by itself, in chunks
-- where it is large. Its bytes are read chunk by chunk, from a bytea column or a
-- large object, so that no file has to fit into memory.

-- _file_maps: the file columns of a staging table, with the SQL of size, bytes
-- and name over a row s; $1 and $2 of bytes_sql are offset (from 0) and length.
CREATE FUNCTION dvmig._file_maps(staging regclass)
RETURNS TABLE (target_column text, size_sql text, bytes_sql text, name_sql text, max_size bigint)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT c.target_column,
		CASE WHEN c.result_type = 'oid'::regtype
			-- 262144 is INV_READ; the descriptor goes with the transaction; -1: there is no such object
			THEN format('(SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata l WHERE l.oid OPERATOR(pg_catalog.=) f) '
				'THEN pg_catalog.lo_lseek64(pg_catalog.lo_open(f, 262144), 0, 2) ELSE -1 END FROM (SELECT (%s)::oid) q(f) WHERE f IS NOT NULL)', q.shown)
			ELSE format('pg_catalog.octet_length((%s)::bytea)::bigint', q.shown) END,
		CASE WHEN c.result_type = 'oid'::regtype THEN format('pg_catalog.lo_get((%s)::oid, $1, $2)', q.shown)
			ELSE format('pg_catalog.substr((%s)::bytea, $1::int + 1, $2)', q.shown) END,
		CASE WHEN q.shown = c.expression_sql[1] THEN c.expression_sql[2] ELSE '''file''' END, mc.max_size_kb::bigint * 1024
	FROM dvmig.column_map c JOIN dvmig.migration_table t ON t.staging = c.staging JOIN dvmig.migration m USING (migration_id)
	LEFT JOIN dvmig.metadata_column mc ON mc.server = m.server AND mc.table_name = t.target AND mc.column_name = c.target_column
	CROSS JOIN LATERAL dvmig._shown_sql(c) q(shown)
	WHERE c.staging = $1 AND c.pass = 'files' ORDER BY c.position
$$;
COMMENT ON FUNCTION dvmig._file_maps(regclass) IS 'file columns of a staging table with the SQL of size, bytes and name';

-- _files_owed_sql: has a row a file? Null where no file column is mapped.
CREATE FUNCTION dvmig._files_owed_sql(staging regclass) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT string_agg(format('(%s) IS NOT NULL', q.shown), ' OR ') FROM dvmig.column_map c CROSS JOIN LATERAL dvmig._shown_sql(c) q(shown) WHERE c.staging = $1 AND c.pass = 'files'
$$;
COMMENT ON FUNCTION dvmig._files_owed_sql(regclass) IS 'SQL of whether a row has a file to upload';

CREATE FUNCTION dvmig._map_file(caller oid, staging regclass, target_column text, expression text, file_name text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	b record := dvmig._begin_map(caller, staging, target_column, expression);
	c dvmig.metadata_column := b.c;
	e record := dvmig._compile_expression((b.m).owner, staging, expression);
	n record := dvmig._compile_expression((b.m).owner, staging, coalesce(file_name, quote_literal('file')));
	m dvmig.column_map;
BEGIN
	IF c.column_type <> 'File' THEN
		RAISE EXCEPTION 'column "%" is of Dataverse type %, not a file', c.column_name, c.column_type
			USING ERRCODE = 'wrong_object_type', HINT = 'Images, and the bodies of notes, are mapped with dvmig.map_column() from bytea.';
	ELSIF dvmig._base_type(e.result_type) NOT IN ('bytea'::regtype, 'oid'::regtype) THEN
		RAISE EXCEPTION 'an expression of type % is not a file', e.result_type
			USING ERRCODE = 'datatype_mismatch', HINT = 'A file comes from bytea, or from a large object, of which the oid is given.';
	ELSIF dvmig._base_type(n.result_type) NOT IN ('text'::regtype, 'varchar'::regtype, 'name'::regtype, 'bpchar'::regtype) THEN
		RAISE EXCEPTION 'the file name is of type %, not text', n.result_type USING ERRCODE = 'datatype_mismatch', HINT = 'Write a cast to text.';
	END IF;
	m.staging := staging;
	m.target_column := c.column_name;
	m.variant := '';
	m.kind := 'file';
	m.expression := btrim(expression);
	m.file_name := btrim(file_name);
	m.expression_sql := ARRAY[e.expression_sql, format('(%s)::text', n.expression_sql)];
	m.result_type := dvmig._base_type(e.result_type);
	m.send := 'both';
	m.automatic := false;
	PERFORM dvmig._put_map(m);
	RETURN dvmig._log_map(caller, (b.m).name, 'map_file', m, e.is_volatile);
END
$$;
COMMENT ON FUNCTION dvmig._map_file(oid, regclass, text, text, text) IS 'internal part of dvmig.map_file()';

CREATE FUNCTION dvmig.map_file(staging regclass, target_column text, expression text, file_name text DEFAULT NULL) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.map_file(regclass, text, text, text) IS
	'fill a file column from bytea, or from a large object by its oid; file_name: expression of its name in Dataverse (default: file)';

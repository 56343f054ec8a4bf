-- What a run would send, without sending it.

CREATE FUNCTION dvmig._preview_rows(staging regclass, sample int, deferred text[], owner oid)
RETURNS TABLE (source_key text, operation text, dataverse_id uuid, request text, remark text)
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'dv_preview';
COMMENT ON FUNCTION dvmig._preview_rows(regclass, int, text[], oid) IS 'encode the next rows of a staging table as a run would';

CREATE FUNCTION dvmig._preview(caller oid, staging regclass, sample int)
RETURNS TABLE (source_key text, operation text, dataverse_id uuid, request text, remark text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table;
	m dvmig.migration;
BEGIN
	SELECT mt.* INTO t FROM dvmig.migration_table mt WHERE mt.staging = $2;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('table %s is not a staging table of a migration', $2),
			HINT = 'Add it with dvmig.add_table().';
	END IF;
	SELECT mi.* INTO m FROM dvmig.migration mi WHERE mi.migration_id = t.migration_id;
	-- row content is for those who may read the staging table
	PERFORM dvmig._migration(caller, m.name, 'viewer');
	IF NOT has_table_privilege(caller, $2, 'SELECT') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('permission denied for table %s', $2);
	END IF;
	RETURN QUERY SELECT * FROM dvmig._preview_rows($2, greatest(sample, 0),
		coalesce((SELECT w.deferred FROM dvmig._waves(m.migration_id) w WHERE w.staging = $2), '{}'), m.owner);
END
$$;
COMMENT ON FUNCTION dvmig._preview(oid, regclass, int) IS 'what a run would send: see dvmig.preview()';

CREATE FUNCTION dvmig.preview(staging regclass, sample int DEFAULT 5)
RETURNS TABLE (source_key text, operation text, dataverse_id uuid, request text, remark text)
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.preview(regclass, int) IS
	'the exact JSON a run would send for the next unprocessed rows of a staging table; remark tells why a row would not be sent. sample: how many rows';

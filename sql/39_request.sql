-- What goes with requests besides rows: whom they are sent as, and what of
-- Dataverse's logic they leave out.

INSERT INTO dvmig.setting (applies_to, name, allowed, about)
SELECT a, s.name, s.allowed, s.about
FROM unnest('{migration,table}'::text[]) a, (VALUES
	('bypass_custom_logic', '{none,sync,async,"sync,async"}'::text[], 'custom plug-ins and workflows that are passed over; Microsoft''s own and flows still run; needs prvBypassCustomBusinessLogic')) s (name, allowed, about);
INSERT INTO dvmig.setting (applies_to, name, about)
SELECT a, s.name, s.about
FROM unnest('{migration,table}'::text[]) a, (VALUES
	('bypass_flows', 'whether Power Automate flows are kept from starting'),
	('duplicate_detection', 'whether Dataverse''s duplicate detection rules apply to what is written')) s (name, about);
INSERT INTO dvmig.setting (applies_to, name, adjust, about) VALUES
	('table', 'caller', '_adjust_caller', 'expression of type uuid: id of the user (systemuserid) whom a row is written as; null: the application user'),
	('table', 'caller_object_id', '_adjust_caller', 'the same by the user''s object id in Entra');

-- _adjust_caller: compile the expression of the caller that was set.
CREATE FUNCTION dvmig._adjust_caller(caller oid, migration_id int, staging regclass, before text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	owner oid := (SELECT m.owner::oid FROM dvmig.migration m WHERE m.migration_id = $2);
	t dvmig.migration_table;
	e record;
BEGIN
	SELECT mt.* INTO t FROM dvmig.migration_table mt WHERE mt.staging = $3;
	IF t.caller_id IS NOT NULL AND t.caller_object_id IS NOT NULL THEN
		RAISE EXCEPTION 'caller and caller_object_id exclude each other'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Set the other one to null first.';
	ELSIF coalesce(t.caller_id, t.caller_object_id) IS NULL THEN
		UPDATE dvmig.migration_table mt SET caller_sql = NULL WHERE mt.staging = $3;
		RETURN;
	END IF;
	e := dvmig._compile_expression(owner, $3, coalesce(t.caller_id, t.caller_object_id));
	IF dvmig._base_type(e.result_type) <> 'uuid'::regtype THEN
		RAISE EXCEPTION 'the caller is of type %, not uuid', e.result_type
			USING ERRCODE = 'datatype_mismatch',
			HINT = 'caller takes the systemuserid of the user, caller_object_id the object id in Entra.';
	ELSIF e.is_volatile THEN
		RAISE EXCEPTION 'the caller is volatile' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'A row must be written as the same user each time.';
	END IF;
	UPDATE dvmig.migration_table mt SET caller_sql = e.expression_sql WHERE mt.staging = $3;
END
$$;
COMMENT ON FUNCTION dvmig._adjust_caller(oid, int, regclass, text) IS 'compile the caller of a staging table after it was set';

-- _request_headers: header lines of every operation on a staging table's rows.
-- What the table does not say the migration does.
CREATE FUNCTION dvmig._request_headers(staging regclass) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT concat(
		CASE WHEN h.logic <> 'none' THEN 'MSCRM.BypassBusinessLogicExecution: '
			|| CASE h.logic WHEN 'sync' THEN 'CustomSync' WHEN 'async' THEN 'CustomAsync' ELSE 'CustomSync,CustomAsync' END || E'\r\n' END,
		CASE WHEN h.flows THEN E'MSCRM.SuppressCallbackRegistrationExpanderJob: true\r\n' END,
		CASE WHEN h.duplicates THEN E'MSCRM.SuppressDuplicateDetection: false\r\n' END)
	FROM (SELECT coalesce(t.bypass_custom_logic, m.bypass_custom_logic) AS logic, coalesce(t.bypass_flows, m.bypass_flows) AS flows,
			coalesce(t.duplicate_detection, m.duplicate_detection) AS duplicates
		FROM dvmig.migration_table t JOIN dvmig.migration m USING (migration_id) WHERE t.staging = $1) h
$$;
COMMENT ON FUNCTION dvmig._request_headers(regclass) IS 'header lines that go with every operation on the rows of a staging table';

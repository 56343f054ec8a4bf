-- What holds for a run before it begins: where it is, and how many rows may fail.

CREATE FUNCTION dvmig._place() RETURNS text
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'dv_place';
COMMENT ON FUNCTION dvmig._place() IS 'cluster, database, timeline and extension: another one than before means that the database was restored, copied or promoted';

CREATE FUNCTION dvmig._location() RETURNS text
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'dv_location';
COMMENT ON FUNCTION dvmig._location() IS 'hash of this host and data directory: a copy of the data directory has another one';

-- _check_budget: what a run may bear, see dvmig.start().
CREATE FUNCTION dvmig._check_budget(options jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF (options ->> 'max_errors')::numeric < 0 THEN
		RAISE EXCEPTION 'max_errors must be at least 0, not %', options ->> 'max_errors'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave it out, or pass null, for no limit; 0 stops at the first failed row.';
	END IF;
	-- as text, because NaN is greater than every number
	IF options ->> 'max_error_rate' = 'NaN' OR NOT (options ->> 'max_error_rate')::numeric BETWEEN 0 AND 100 THEN
		RAISE EXCEPTION 'max_error_rate must be from 0 to 100 per cent, not %', options ->> 'max_error_rate'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave it out, or pass null, for no limit; 0 stops at the first failed row.';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._check_budget(jsonb) IS 'refuse limits of failed rows that mean nothing';

-- Waiting for the end of a run, in the way of nobody who wants the extension for himself.

CREATE FUNCTION dvmig._give_way() RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_give_way';
COMMENT ON FUNCTION dvmig._give_way() IS 'error where another session waits to have the extension for itself';

CREATE FUNCTION dvmig._wait(caller oid, run bigint, timeout interval) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- beyond what a run can take there is no end, and maybe no such time
	until timestamptz := CASE WHEN timeout < interval '1000 years' THEN clock_timestamp() + greatest(timeout, '0') END;
	look record;
BEGIN
	LOOP
		look := dvmig._wait_look(caller, run);
		EXIT WHEN look.state NOT IN ('starting', 'running', 'stopping') OR clock_timestamp() >= until;
		PERFORM dvmig._give_way();
		PERFORM pg_sleep(0.1);
	END LOOP;
	RETURN look.state;
END
$$;
COMMENT ON FUNCTION dvmig._wait(oid, bigint, interval) IS 'wait for the end of a run: see dvmig.wait()';

CREATE FUNCTION dvmig.wait(run bigint, timeout interval DEFAULT NULL) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.wait(bigint, interval) IS 'wait until a run has ended, or the time is over; returns its state. Call it in a transaction after the one that started the run';

-- Jobs: work on records that are loaded (verify, undo, resend, rebuild).
--
-- A job is a run of another kind, with a row in run_history and one per table
-- in run_table. Its worker makes these rows itself, because a function that
-- waits for it inside its caller's statement cannot commit them first.

CREATE FUNCTION dvmig._launch_job(run bigint, owner oid, spec text, wait bool) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'dv_launch_job';
COMMENT ON FUNCTION dvmig._launch_job(bigint, oid, text, bool) IS 'start the worker of a job and wait until it has begun, or ended';

CREATE FUNCTION dvmig._query_latest(query text) RETURNS SETOF text
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'dv_query_latest';
COMMENT ON FUNCTION dvmig._query_latest(text) IS 'first column of a query as of now, in a repeatable read transaction too';

-- _refuse_busy: error while a run or job is at work on one of these tables. One
-- whose worker was killed is not, though nobody has noted it yet: see
-- dvmig._settle_dead_runs(), which a caller whose worker settles it must not
-- call first.
CREATE FUNCTION dvmig._refuse_busy(tables regclass[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	busy record;
BEGIN
	SELECT h.run, h.kind, t.staging INTO busy
	FROM dvmig.run_history h JOIN dvmig.run_table t USING (run)
	WHERE h.state IN ('starting', 'running', 'stopping') AND t.staging IN (SELECT s::text FROM unnest(tables) s)
	  AND (dvmig._run_alive(h.run) OR h.state = 'starting' AND h.started_at > clock_timestamp() - interval '15 seconds')
	ORDER BY h.run LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'object_in_use',
			MESSAGE = format('staging table %s is being %s by run %s', busy.staging,
				CASE busy.kind WHEN 'run' THEN 'migrated' WHEN 'verify' THEN 'verified' WHEN 'undo' THEN 'undone'
					WHEN 'resend' THEN 'sent again' ELSE 'rebuilt' END, busy.run),
			HINT = format('Wait for it with dvmig.wait(%s), or end it with dvmig.stop(%1$s).', busy.run);
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._refuse_busy(regclass[]) IS 'error while a run or job is at work on one of these staging tables';

-- _begin_job: the rows of a job, made by its worker. The one who asked has been
-- checked; what he meant may have been rolled back or not be committed yet.
CREATE FUNCTION dvmig._begin_job(run bigint, spec jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration;
	tables regclass[] := ARRAY(SELECT t::oid::regclass FROM jsonb_array_elements_text(spec -> 'tables') t);
	asked_by name := pg_get_userbyid((spec ->> 'caller')::oid);
BEGIN
	SELECT g.* INTO m FROM dvmig.migration g WHERE g.migration_id = (spec ->> 'migration_id')::int;
	IF m.migration_id IS NULL OR EXISTS (SELECT FROM unnest(tables) t WHERE NOT EXISTS
			(SELECT FROM dvmig.migration_table mt WHERE mt.staging = t AND mt.migration_id = m.migration_id)) THEN
		RAISE EXCEPTION 'the migration, or a staging table of it, is not there for other sessions'
			USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'A background worker does the work, and sees what is committed. Commit the definition first.';
	END IF;
	PERFORM dvmig._settle_dead_runs();
	PERFORM dvmig._refuse_busy(tables);
	IF spec ->> 'kind' = 'rebuild' THEN
		PERFORM dvmig._remake_outcomes((spec ->> 'caller')::oid, tables);
	END IF;
	INSERT INTO dvmig.run_history (run, kind, migration_id, migration, server, started_by, options)
	VALUES ($1, spec ->> 'kind', m.migration_id, m.name, m.server, asked_by, spec -> 'options');
	-- what is undone goes children first
	INSERT INTO dvmig.run_table (run, staging, pass, step, wave, deferred)
	SELECT $1, w.staging::text, spec ->> 'kind',
		row_number() OVER (ORDER BY CASE spec ->> 'kind' WHEN 'undo' THEN -w.wave ELSE w.wave END, w.staging::text), w.wave, w.deferred
	FROM dvmig._waves(m.migration_id) w WHERE w.staging = ANY (tables);
	INSERT INTO dvmig._run_row (run, staging, hash1, hash2)
	SELECT $1, tables[1], split_part(h, ' ', 1)::bigint, split_part(h, ' ', 2)::bigint
	FROM jsonb_array_elements_text(nullif(spec -> 'rows', 'null')) h ON CONFLICT DO NOTHING;
	INSERT INTO dvmig.event (role, migration, kind, object, detail)
	VALUES (asked_by, m.name, spec ->> 'kind', $1::text, spec -> 'options');
END
$$;
COMMENT ON FUNCTION dvmig._begin_job(bigint, jsonb) IS 'make the rows of a job, called by its worker';

-- _start_job: begin a job for a caller whose rights have been checked; returns
-- its run once it has begun, or ended. An error where it failed or was stopped.
CREATE FUNCTION dvmig._start_job(caller oid, m dvmig.migration, kind text, tables regclass[], options jsonb, wait bool, row_hashes text[] DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	new_run bigint;
	ended record;
BEGIN
	IF coalesce(cardinality(tables), 0) = 0 THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('migration "%s" has no staging tables', m.name), HINT = 'Add one with dvmig.add_table().';
	END IF;
	PERFORM dvmig._refuse_busy(tables);
	PERFORM dvmig._check_owner_can_run(m.owner);
	new_run := nextval('dvmig.run_history_run_seq');
	PERFORM dvmig._launch_job(new_run, m.owner, jsonb_build_object('kind', kind, 'migration_id', m.migration_id, 'caller', caller,
		'tables', ARRAY(SELECT t::oid FROM unnest(tables) t), 'rows', row_hashes, 'options', jsonb_strip_nulls(options))::text, wait);
	IF NOT wait THEN
		RETURN new_run;
	END IF;
	SELECT h ->> 'state' AS state, h ->> 'message' AS message INTO ended
	FROM (SELECT q::jsonb FROM dvmig._query_latest(format('SELECT to_jsonb(h) FROM dvmig.run_history h WHERE h.run = %s', new_run)) q) l(h);
	IF ended.state IS DISTINCT FROM 'completed' THEN
		RAISE EXCEPTION USING ERRCODE = CASE WHEN ended.message LIKE 'refused: %' THEN 'object_not_in_prerequisite_state' ELSE 'external_routine_exception' END,
			MESSAGE = format('run %s (%s) %s', new_run, kind, CASE WHEN ended.state IN ('starting', 'running', 'stopping') THEN 'was interrupted' ELSE
				CASE ended.state WHEN 'failed' THEN 'failed' ELSE 'was ' || ended.state END END),
			DETAIL = coalesce(ended.message, ''),
			HINT = format('See dvmig.run_history and dvmig.run_table for run %s.', new_run);
	END IF;
	RETURN new_run;
END
$$;
COMMENT ON FUNCTION dvmig._start_job(oid, dvmig.migration, text, regclass[], jsonb, bool, text[]) IS 'begin a job and, if asked, wait for its end';

CREATE FUNCTION dvmig._begin_job_table(run bigint, staging regclass) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	UPDATE dvmig.run_table t SET state = 'running', started_at = clock_timestamp() WHERE t.run = $1 AND t.staging = $2::text
$$;
COMMENT ON FUNCTION dvmig._begin_job_table(bigint, regclass) IS 'a job begins with a staging table';

-- _refuse_links: links of many-to-many relationships are no records.
CREATE FUNCTION dvmig._refuse_links(tables regclass[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	link regclass := (SELECT t.staging FROM dvmig.migration_table t WHERE t.staging = ANY (tables) AND t.relationship IS NOT NULL LIMIT 1);
BEGIN
	IF link IS NOT NULL THEN
		RAISE EXCEPTION '% holds links of a many-to-many relationship, not records', link
			USING ERRCODE = 'feature_not_supported', HINT = 'Links go with the records they connect.';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._refuse_links(regclass[]) IS 'error for staging tables of many-to-many relationships';

-- _job_tables: staging tables of a migration, all or the one named.
CREATE FUNCTION dvmig._job_tables(caller oid, m dvmig.migration, staging text, links bool DEFAULT false) RETURNS regclass[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	chosen regclass;
BEGIN
	IF staging IS NULL THEN
		RETURN ARRAY(SELECT t.staging FROM dvmig.migration_table t WHERE t.migration_id = m.migration_id AND (links OR t.relationship IS NULL)
			AND EXISTS (SELECT FROM pg_class c WHERE c.oid = t.staging) ORDER BY t.position);
	END IF;
	chosen := dvmig._named_table(caller, m, staging);
	IF NOT links AND EXISTS (SELECT FROM dvmig.migration_table t WHERE t.staging = chosen AND t.relationship IS NOT NULL) THEN
		RAISE EXCEPTION 'the rows of % are links, for which no records stand', chosen
			USING ERRCODE = 'wrong_object_type', HINT = 'Name a staging table of records.';
	END IF;
	RETURN ARRAY[chosen];
END
$$;
COMMENT ON FUNCTION dvmig._job_tables(oid, dvmig.migration, text, bool) IS 'staging tables of a migration: all, or the one named as its caller would have it; links: those of links too';

-- Live figures of runs by lane and table, what was learnt of tables, and what
-- can be changed while a run lives: tune, pause, resume.

ALTER TABLE dvmig.run_history
	ADD COLUMN lanes int NOT NULL DEFAULT 1,
	ADD COLUMN paused bool NOT NULL DEFAULT false,
	ADD COLUMN tuned jsonb NOT NULL DEFAULT '{}',
	ADD COLUMN in_flight_limit int,
	ADD COLUMN batch_rows int,
	ADD COLUMN recent_rows_per_second real,
	ADD COLUMN recent_bytes_per_second real,
	ADD COLUMN read_ms bigint NOT NULL DEFAULT 0,
	ADD COLUMN encode_ms bigint NOT NULL DEFAULT 0,
	ADD COLUMN wait_ms bigint NOT NULL DEFAULT 0,
	ADD COLUMN hold_ms bigint NOT NULL DEFAULT 0,
	ADD COLUMN record_ms bigint NOT NULL DEFAULT 0,
	ADD COLUMN cpu_ms bigint NOT NULL DEFAULT 0,
	ADD COLUMN memory_kb bigint NOT NULL DEFAULT 0;

ALTER TABLE dvmig.run_table
	ADD COLUMN rows_sent bigint NOT NULL DEFAULT 0,
	ADD COLUMN bytes_sent bigint NOT NULL DEFAULT 0,
	ADD COLUMN throttled bigint NOT NULL DEFAULT 0,
	ADD COLUMN in_flight int NOT NULL DEFAULT 0,
	ADD COLUMN batch_rows int,
	ADD COLUMN recent_rows_per_second real,
	ADD COLUMN recent_bytes_per_second real,
	ADD COLUMN read_ms bigint NOT NULL DEFAULT 0,
	ADD COLUMN encode_ms bigint NOT NULL DEFAULT 0,
	ADD COLUMN wait_ms bigint NOT NULL DEFAULT 0,
	ADD COLUMN hold_ms bigint NOT NULL DEFAULT 0,
	ADD COLUMN record_ms bigint NOT NULL DEFAULT 0,
	ADD COLUMN cpu_ms bigint NOT NULL DEFAULT 0,
	ADD COLUMN memory_kb bigint NOT NULL DEFAULT 0;

CREATE TABLE dvmig.run_lane (
	run         bigint NOT NULL REFERENCES dvmig.run_history ON DELETE CASCADE,
	lane        int NOT NULL,
	application_user int NOT NULL,             -- 1 = client_id, 2 = client_id2 ...
	pid         int,                           -- null once it has ended
	state       text NOT NULL,                 -- starting, idle, ready, working, ended, died
	in_flight   int NOT NULL DEFAULT 0,
	in_flight_limit int,                       -- of its application user
	rows_done   bigint NOT NULL DEFAULT 0,
	requests    bigint NOT NULL DEFAULT 0,
	rows_sent   bigint NOT NULL DEFAULT 0,
	bytes_sent  bigint NOT NULL DEFAULT 0,
	throttled   bigint NOT NULL DEFAULT 0,
	recent_rows_per_second real,
	recent_bytes_per_second real,
	read_ms     bigint NOT NULL DEFAULT 0,
	encode_ms   bigint NOT NULL DEFAULT 0,
	wait_ms     bigint NOT NULL DEFAULT 0,
	hold_ms     bigint NOT NULL DEFAULT 0,
	record_ms   bigint NOT NULL DEFAULT 0,
	cpu_ms      bigint NOT NULL DEFAULT 0,
	memory_kb   bigint NOT NULL DEFAULT 0,
	updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (run, lane)
);
COMMENT ON TABLE dvmig.run_lane IS 'one row per run and lane: the figures of its worker, at most a second old while it lives';

CREATE TABLE dvmig.table_pace (
	server      name NOT NULL,
	table_name  text NOT NULL,
	pass        text NOT NULL,
	bulk_rows   int NOT NULL,
	bulk_max    int NOT NULL,
	each_rows   int NOT NULL,
	parallel    real NOT NULL,
	learnt_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (server, table_name, pass)
);
COMMENT ON TABLE dvmig.table_pace IS
	'what a Dataverse table took in the last run: rows of a request, their cap, operations of a batch, requests at once; the next run begins there. Deleting a row forgets it';

-- ------------------------------------------------------------------- tuning

-- _tune: null leaves a setting as it is, 0 gives it back to the run itself.
CREATE FUNCTION dvmig._tune(caller oid, run bigint, lanes int, in_flight int, batch_rows int, rate numeric) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	h dvmig.run_history;
	asked jsonb := jsonb_strip_nulls(jsonb_build_object('lanes', $3, 'in_flight', $4, 'batch_rows', $5, 'rate', $6));
BEGIN
	h := dvmig._live_run(caller, run);
	IF h.kind <> 'run' AND coalesce(lanes::numeric, batch_rows, rate) IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'feature_not_supported', MESSAGE = format('lanes, batch_rows and rate are not for a job: run %s is a %s', run, h.kind),
			HINT = 'Tune in_flight, or call dvmig.pause() or dvmig.stop().';
	END IF;
	IF lanes NOT BETWEEN 1 AND 32 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('lanes cannot be %s', lanes),
			HINT = 'A run has 1 to 32 lanes.';
	END IF;
	IF in_flight NOT BETWEEN 0 AND 64 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('in_flight cannot be %s', in_flight),
			HINT = 'Give 1 to 64 requests for each application user, or 0 to let the run find out.';
	END IF;
	IF batch_rows NOT BETWEEN 0 AND 1000 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('batch_rows cannot be %s', batch_rows),
			HINT = 'Give 1 to 1000 rows, or 0 to let the run find out.';
	END IF;
	IF rate < 0 OR rate = 'NaN' OR rate > 1e9 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('rate cannot be %s', rate),
			HINT = 'Give rows a second, or 0 for no cap.';
	END IF;
	UPDATE dvmig.run_history r SET tuned = r.tuned || asked WHERE r.run = $2;
	INSERT INTO dvmig.event (role, migration, kind, object, detail)
	VALUES (pg_get_userbyid(caller), h.migration, 'tune', run::text,
		jsonb_build_object('before', h.tuned, 'after', h.tuned || asked));
	RETURN format('run %s: %s', run, (SELECT string_agg(s.key || ' ' || CASE WHEN s.key = 'rate' AND s.value = '0' THEN 'not capped' WHEN s.key <> 'lanes' AND s.value = '0' THEN 'as the run finds' ELSE s.value END, ', '
			ORDER BY array_position('{lanes,in_flight,batch_rows,rate}', s.key))
		FROM jsonb_each_text(CASE h.tuned || asked WHEN '{}' THEN '{"nothing": "is tuned"}' ELSE h.tuned || asked END) s));
END
$$;
COMMENT ON FUNCTION dvmig._tune(oid, bigint, int, int, int, numeric) IS 'change a run while it lives: see dvmig.tune()';

-- _live_run: the run, locked against its end, if it lives and the caller may act on it.
CREATE FUNCTION dvmig._live_run(caller oid, run bigint) RETURNS dvmig.run_history
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	h dvmig.run_history;
BEGIN
	PERFORM dvmig._run_of(caller, run, 'operator');
	PERFORM dvmig._settle_dead_runs();
	SELECT r.* INTO h FROM dvmig.run_history r WHERE r.run = $2 FOR NO KEY UPDATE;
	IF h.state NOT IN ('starting', 'running') THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('run %s is not at work: it is %s', run, h.state),
			HINT = 'dvmig.progress lists the runs at work.';
	END IF;
	RETURN h;
END
$$;
COMMENT ON FUNCTION dvmig._live_run(oid, bigint) IS 'the run, if it is at work and the caller may act on it';

CREATE FUNCTION dvmig.tune(run bigint, lanes int DEFAULT NULL, in_flight int DEFAULT NULL, batch_rows int DEFAULT NULL,
	rate numeric DEFAULT NULL) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.tune(bigint, int, int, int, numeric) IS
	'change a run while it lives. lanes: workers, 1 to 32; in_flight: requests at once of each application user, at most; batch_rows: rows of a bulk request; rate: rows a second of the run, at most. Null leaves a setting as it is, 0 gives in_flight, batch_rows and rate back to the run. Returns what is in force';

CREATE FUNCTION dvmig._pause(caller oid, run bigint) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	h dvmig.run_history := dvmig._live_run(caller, run);
BEGIN
	UPDATE dvmig.run_history r SET paused = true WHERE r.run = $2;
	IF NOT h.paused THEN
		PERFORM dvmig._log(caller, h.migration, 'pause', run::text, jsonb_build_object('before', h.state, 'after', 'paused'));
	END IF;
	RETURN 'paused';
END
$$;
COMMENT ON FUNCTION dvmig._pause(oid, bigint) IS 'let a run send nothing for a while: see dvmig.pause()';

CREATE FUNCTION dvmig.pause(run bigint) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.pause(bigint) IS
	'let a run send nothing more until dvmig.resume(); replies on their way are recorded, and its workers stay. Returns paused';

-- _resume: a paused run goes on; one that has ended is begun anew.
CREATE FUNCTION dvmig._resume(caller oid, run bigint) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM dvmig._run_of(caller, run, 'operator');
	PERFORM dvmig._settle_dead_runs();
	UPDATE dvmig.run_history r SET paused = false
	WHERE r.run = $2 AND r.paused AND r.state IN ('starting', 'running', 'stopping');
	IF NOT FOUND THEN
		RETURN dvmig._resume_run(caller, run, true);
	END IF;
	PERFORM dvmig._log(caller, h.migration, 'go on', h.run::text, jsonb_build_object('before', 'paused', 'after', h.state)) FROM dvmig.run_history h WHERE h.run = $2;
	RETURN run;
END
$$;
COMMENT ON FUNCTION dvmig._resume(oid, bigint) IS 'go on with a paused, held or interrupted run: see dvmig.resume()';

CREATE FUNCTION dvmig.resume(run bigint) RETURNS bigint
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.resume(bigint) IS 'go on with a paused run, which it returns; or start a run that goes on where this one was held, stopped or interrupted, past the gate, and return the new one';

-- ------------------------------------------------------------------ watching

CREATE FUNCTION dvmig._lane_rows(caller oid)
RETURNS TABLE (run bigint, lane int, application_user int, pid int, state text, in_flight int, in_flight_limit int,
	rows_per_second_30s numeric, bytes_per_second_30s numeric, rows_per_second numeric, bytes_per_second numeric,
	rows_done bigint, requests bigint, bytes_sent bigint, throttled bigint, throttled_share numeric,
	read_share numeric, encode_share numeric, wait_share numeric, hold_share numeric, record_share numeric, cpu_ms bigint, memory_kb bigint)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT l.run, l.lane, l.application_user, l.pid, l.state, l.in_flight, l.in_flight_limit,
		round(l.recent_rows_per_second::numeric, 1), round(l.recent_bytes_per_second::numeric),
		round((l.rows_done / s.elapsed)::numeric, 1), round((l.bytes_sent / s.elapsed)::numeric),
		l.rows_done, l.requests, l.bytes_sent, l.throttled, round((l.hold_ms / 1000.0 / s.elapsed)::numeric, 4),
		round((l.read_ms / 1000.0 / s.elapsed)::numeric, 4), round((l.encode_ms / 1000.0 / s.elapsed)::numeric, 4),
		round((l.wait_ms / 1000.0 / s.elapsed)::numeric, 4), round((l.hold_ms / 1000.0 / s.elapsed)::numeric, 4),
		round((l.record_ms / 1000.0 / s.elapsed)::numeric, 4), l.cpu_ms, l.memory_kb
	FROM dvmig.run_lane l JOIN dvmig.run_history h USING (run)
	CROSS JOIN LATERAL (SELECT greatest(extract(epoch FROM coalesce(h.ended_at, clock_timestamp()) - h.started_at), 0.001)::double precision AS elapsed) s
	WHERE h.state IN ('starting', 'running', 'stopping') AND dvmig._may(caller, h.migration_id, 'viewer')
	ORDER BY l.run, l.lane
$$;
COMMENT ON FUNCTION dvmig._lane_rows(oid) IS 'rows of dvmig.progress_lane for a role';

CREATE FUNCTION dvmig.lane_rows()
RETURNS TABLE (run bigint, lane int, application_user int, pid int, state text, in_flight int, in_flight_limit int,
	rows_per_second_30s numeric, bytes_per_second_30s numeric, rows_per_second numeric, bytes_per_second numeric,
	rows_done bigint, requests bigint, bytes_sent bigint, throttled bigint, throttled_share numeric,
	read_share numeric, encode_share numeric, wait_share numeric, hold_share numeric, record_share numeric, cpu_ms bigint, memory_kb bigint)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.lane_rows() IS 'rows of dvmig.progress_lane';

CREATE VIEW dvmig.progress_lane AS SELECT * FROM dvmig.lane_rows();
COMMENT ON VIEW dvmig.progress_lane IS 'lanes of runs at work: rates, requests in flight, share of its time by what it does, processor and memory of its worker';

CREATE FUNCTION dvmig._table_rows(caller oid)
RETURNS TABLE (run bigint, staging text, pass text, state text, rows_total bigint, rows_read bigint, succeeded bigint, failed bigint,
	rows_per_second_30s numeric, bytes_per_second_30s numeric, rows_per_second numeric, bytes_per_second numeric,
	in_flight int, batch_rows int, requests bigint, bytes_sent bigint, throttled bigint, throttled_share numeric,
	read_share numeric, encode_share numeric, wait_share numeric, hold_share numeric, record_share numeric, cpu_ms bigint, memory_kb bigint)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT t.run, t.staging, t.pass, t.state, t.rows_total, t.rows_read, t.succeeded, t.failed,
		CASE WHEN t.state = 'running' THEN round(t.recent_rows_per_second::numeric, 1) END,
		CASE WHEN t.state = 'running' THEN round(t.recent_bytes_per_second::numeric) END,
		round(((t.succeeded + t.failed) / s.elapsed)::numeric, 1), round((t.bytes_sent / s.elapsed)::numeric),
		CASE WHEN t.state = 'running' THEN t.in_flight ELSE 0 END, t.batch_rows, t.requests, t.bytes_sent, t.throttled,
		round((t.hold_ms / w.ms)::numeric, 4), round((t.read_ms / w.ms)::numeric, 4), round((t.encode_ms / w.ms)::numeric, 4),
		round((t.wait_ms / w.ms)::numeric, 4), round((t.hold_ms / w.ms)::numeric, 4), round((t.record_ms / w.ms)::numeric, 4),
		t.cpu_ms, t.memory_kb
	FROM dvmig.run_table t JOIN dvmig.run_history h USING (run)
	CROSS JOIN LATERAL (SELECT greatest(extract(epoch FROM coalesce(t.ended_at, clock_timestamp()) - t.started_at), 0.001)::double precision AS elapsed) s
	CROSS JOIN LATERAL (SELECT greatest(t.read_ms + t.encode_ms + t.wait_ms + t.hold_ms + t.record_ms, 1)::double precision AS ms) w
	WHERE h.state IN ('starting', 'running', 'stopping') AND dvmig._may(caller, h.migration_id, 'viewer')
	ORDER BY t.run, t.step
$$;
COMMENT ON FUNCTION dvmig._table_rows(oid) IS 'rows of dvmig.progress_table for a role';

CREATE FUNCTION dvmig.table_rows()
RETURNS TABLE (run bigint, staging text, pass text, state text, rows_total bigint, rows_read bigint, succeeded bigint, failed bigint,
	rows_per_second_30s numeric, bytes_per_second_30s numeric, rows_per_second numeric, bytes_per_second numeric,
	in_flight int, batch_rows int, requests bigint, bytes_sent bigint, throttled bigint, throttled_share numeric,
	read_share numeric, encode_share numeric, wait_share numeric, hold_share numeric, record_share numeric, cpu_ms bigint, memory_kb bigint)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.table_rows() IS 'rows of dvmig.progress_table';

CREATE VIEW dvmig.progress_table AS SELECT * FROM dvmig.table_rows();
COMMENT ON VIEW dvmig.progress_table IS 'tables and passes of runs at work: rates, requests in flight, rows of a request, share of the lanes'' time by what they do';

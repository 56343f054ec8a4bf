-- What looks after a run while it lives: samples of its figures, and alerts.
--
-- The worker calls dvmig._watch_run() about once a second, and once more at the
-- end. Whatever is told here goes to places that others read: no keys, no row.

-- ------------------------------------------------------------------- samples

CREATE TABLE dvmig.run_sample (
	run          bigint NOT NULL REFERENCES dvmig.run_history ON DELETE CASCADE,
	sampled_at   timestamptz NOT NULL,
	succeeded    bigint NOT NULL,
	failed       bigint NOT NULL,
	requests     bigint NOT NULL,
	bytes_sent   bigint NOT NULL,
	throttled    bigint NOT NULL,
	throttled_ms bigint NOT NULL,
	in_flight    int NOT NULL,
	PRIMARY KEY (run, sampled_at)
);
COMMENT ON TABLE dvmig.run_sample IS 'figures of a run as they grew, for rates over time; some hundreds of rows a run, however long it takes';

-- _sample_run: keep the figures of a run, every 5 seconds at first, then ever
-- more rarely: 360 samples for the first half hour, then 250 for each time that
-- it takes twice as long.
CREATE FUNCTION dvmig._sample_run(h dvmig.run_history, ended bool) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	last_at timestamptz := (SELECT max(s.sampled_at) FROM dvmig.run_sample s WHERE s.run = h.run);
BEGIN
	IF ended OR last_at IS NULL
		OR clock_timestamp() - last_at >= greatest(interval '5 seconds', (clock_timestamp() - h.started_at) / 360) THEN
		INSERT INTO dvmig.run_sample
		VALUES (h.run, clock_timestamp(), h.succeeded, h.failed, h.requests, h.bytes_sent, h.throttled, h.throttled_ms, h.in_flight);
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._sample_run(dvmig.run_history, bool) IS 'keep the figures of a run as they are now, if it is time for it';

-- -------------------------------------------------------------------- alerts

ALTER TABLE dvmig.migration
	ADD alert_error_share numeric DEFAULT 10,
	ADD alert_stall int DEFAULT 300,
	ADD alert_throttled_share numeric DEFAULT 80,
	ADD alert_auth_failures int DEFAULT 3;
COMMENT ON COLUMN dvmig.migration.alert_error_share IS 'alert when more than so many per cent of the rows of the last minute failed; 100: never';
COMMENT ON COLUMN dvmig.migration.alert_stall IS 'alert when no row was read or got a verdict for so many seconds; 0: never';
COMMENT ON COLUMN dvmig.migration.alert_throttled_share IS 'alert when more than so many per cent of the last minute were spent held back by the service; 100: never';
COMMENT ON COLUMN dvmig.migration.alert_auth_failures IS 'alert when so many logins or requests of a run were refused for who we are; 0: never';

INSERT INTO dvmig.setting (applies_to, name, lowest, highest, access, during_run, about) VALUES
	('migration', 'alert_error_share', 0, 100, 'operator', true, 'alert when more than so many per cent of the rows of the last minute failed; 100: never'),
	('migration', 'alert_stall', 0, 604800, 'operator', true, 'alert when no row was read or got a verdict for so many seconds; 0: never'),
	('migration', 'alert_throttled_share', 0, 100, 'operator', true, 'alert when more than so many per cent of the last minute were spent held back by the service; 100: never'),
	('migration', 'alert_auth_failures', 0, 1000000, 'operator', true, 'alert when so many logins or requests of a run were refused for who we are; 0: never');

ALTER TABLE dvmig.run_history
	ADD auth_failures bigint NOT NULL DEFAULT 0,
	ADD progress_at timestamptz,
	ADD progress_rows bigint,
	ADD alerts text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN dvmig.run_history.auth_failures IS 'logins and requests that were refused for who we are';
COMMENT ON COLUMN dvmig.run_history.progress_at IS 'when a row was last read or got a verdict, or the run was paused';
COMMENT ON COLUMN dvmig.run_history.progress_rows IS 'rows read and verdicts by then, of all passes';
COMMENT ON COLUMN dvmig.run_history.alerts IS 'alerts that are raised and not over';

-- _raise_alert: an event, a notification that every role can hear, and a line in
-- the server log; the payload has figures and names of ours only.
CREATE FUNCTION dvmig._raise_alert(h dvmig.run_history, alert text, measured numeric, allowed numeric, unit text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	detail jsonb := jsonb_build_object('alert', alert, 'run', h.run, 'measured', measured, 'allowed', allowed, 'unit', unit);
BEGIN
	INSERT INTO dvmig.event (role, migration, kind, object, detail) VALUES (session_user, h.migration, 'alert', h.run::text, detail);
	PERFORM pg_notify('dvmig', (jsonb_build_object('event', 'alert', 'migration', left(h.migration, 200), 'at', clock_timestamp()) || detail)::text);
	RAISE WARNING 'dvmig alert: % of run % is % % (allowed: %)', replace(alert, '_', ' '), h.run, measured, unit, allowed;
END
$$;
COMMENT ON FUNCTION dvmig._raise_alert(dvmig.run_history, text, numeric, numeric, text) IS 'tell an alert: event, notification, server log';

-- _measure_run: what the four alerts look at. Shares are those of the last
-- minute; fewer than 20 rows are no share.
CREATE FUNCTION dvmig._measure_run(h dvmig.run_history)
RETURNS TABLE (alert text, measured numeric, allowed numeric, unit text, is_over bool)
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	WITH m AS (
		SELECT * FROM dvmig.migration g WHERE g.migration_id = h.migration_id
	), base AS (
		-- the youngest sample that is a minute old, else the beginning
		SELECT coalesce(max(s.sampled_at), h.started_at) AS at, coalesce(max(s.succeeded), 0) AS succeeded,
			coalesce(max(s.failed), 0) AS failed, coalesce(max(s.throttled_ms), 0) AS throttled_ms
		FROM (SELECT * FROM dvmig.run_sample r WHERE r.run = h.run AND r.sampled_at < clock_timestamp() - interval '1 minute'
			ORDER BY r.sampled_at DESC LIMIT 1) s
	), d AS (
		SELECT h.succeeded + h.failed - b.succeeded - b.failed AS answered, h.failed - b.failed AS failed,
			h.throttled_ms - b.throttled_ms AS throttled_ms,
			extract(epoch FROM clock_timestamp() - b.at)::numeric * 1000 AS ms
		FROM base b
	)
	SELECT q.alert, q.measured, q.allowed, q.unit, q.measured > q.allowed
	FROM m, d, LATERAL (VALUES
		('error_share', CASE WHEN d.answered >= 20 THEN round(100.0 * d.failed / d.answered, 1) ELSE 0 END, m.alert_error_share, 'per cent'),
		('stall', round(extract(epoch FROM clock_timestamp() - coalesce(h.progress_at, h.started_at))::numeric), nullif(m.alert_stall, 0), 'seconds'),
		('throttled_share', CASE WHEN d.ms >= 5000 THEN round(least(100.0, 100.0 * d.throttled_ms / d.ms), 1) ELSE 0 END, m.alert_throttled_share, 'per cent'),
		-- so many, not more than so many; none where the run failed by one
		('auth_failures', h.auth_failures, CASE WHEN m.alert_auth_failures > 0 THEN CASE WHEN h.state = 'failed' THEN 0 ELSE m.alert_auth_failures - 1 END END, 'refusals')) q(alert, measured, allowed, unit)
$$;
COMMENT ON FUNCTION dvmig._measure_run(dvmig.run_history) IS 'what the alerts of a run look at, and whether it is more than allowed';

-- _watch_run: sample, and raise an alert once in each episode: again only after
-- what was measured has fallen to half of what is allowed.
CREATE FUNCTION dvmig._watch_run(run bigint, auth_failures bigint, ended bool) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	h dvmig.run_history;
	a record;
BEGIN
	-- of every pass: a deferred lookup is progress, though its row has succeeded before
	UPDATE dvmig.run_history r SET auth_failures = greatest(r.auth_failures, $2),
		-- a run that was told to pause does not stall
		progress_at = CASE WHEN p.done IS DISTINCT FROM r.progress_rows OR r.paused THEN clock_timestamp() ELSE r.progress_at END,
		progress_rows = p.done
	FROM (SELECT coalesce(sum(t.rows_read + t.succeeded + t.failed), 0)::bigint AS done FROM dvmig.run_table t WHERE t.run = $1) p
	WHERE r.run = $1 RETURNING r.* INTO h;
	IF NOT FOUND OR h.kind <> 'run' THEN
		RETURN;
	END IF;
	PERFORM dvmig._sample_run(h, ended);
	FOR a IN SELECT * FROM dvmig._measure_run(h) LOOP
		IF a.is_over AND NOT a.alert = ANY (h.alerts) AND NOT (ended AND a.alert = 'stall') THEN
			PERFORM dvmig._raise_alert(h, a.alert, a.measured, a.allowed, a.unit);
			h.alerts := h.alerts || a.alert;
		ELSIF a.alert = ANY (h.alerts) AND (ended OR a.allowed IS NULL OR a.measured <= a.allowed / 2) THEN
			h.alerts := array_remove(h.alerts, a.alert);
		END IF;
	END LOOP;
	UPDATE dvmig.run_history r SET alerts = CASE WHEN ended THEN '{}' ELSE h.alerts END WHERE r.run = $1 AND (ended OR r.alerts <> h.alerts);
END
$$;
COMMENT ON FUNCTION dvmig._watch_run(bigint, bigint, bool) IS 'sample a run and raise its alerts; the worker calls it every second';

-- -------------------------------------------------------------- for schedulers

-- _busy_run: a run that is at work on a staging table of a migration, if any.
CREATE FUNCTION dvmig._busy_run(migration_id int, OUT run bigint, OUT staging text)
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT h.run, t.staging
	FROM dvmig.run_history h JOIN dvmig.run_table t USING (run)
	WHERE h.state IN ('starting', 'running', 'stopping')
	  AND t.staging IN (SELECT mt.staging::text FROM dvmig.migration_table mt WHERE mt.migration_id = $1)
	LIMIT 1
$$;
COMMENT ON FUNCTION dvmig._busy_run(int) IS 'a run that is at work on a staging table of a migration';

CREATE FUNCTION dvmig._start_if_idle(caller oid, migration text, tables text[], resend bool, ignore_gate bool, max_rows int,
	lanes int, passes text[], filter text, until text, max_errors bigint, max_error_rate numeric, confirm text) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'operator');
	busy record;
BEGIN
	PERFORM FROM dvmig.migration g WHERE g.migration_id = m.migration_id FOR NO KEY UPDATE;
	PERFORM dvmig._settle_dead_runs();
	SELECT b.* INTO busy FROM dvmig._busy_run(m.migration_id) b;
	IF busy.run IS NOT NULL THEN
		RAISE NOTICE 'run % of migration % is at work, nothing is started', busy.run, m.name;
		RETURN NULL;
	END IF;
	RETURN dvmig._start(caller, migration, tables, resend, ignore_gate, max_rows, lanes, passes, filter, until,
		max_errors, max_error_rate, confirm);
END
$$;
COMMENT ON FUNCTION dvmig._start_if_idle(oid, text, text[], bool, bool, int, int, text[], text, text, bigint, numeric, text) IS
	'start a run unless one is at work: see dvmig.start_if_idle()';

CREATE FUNCTION dvmig.start_if_idle(migration text, tables text[] DEFAULT NULL, resend bool DEFAULT false,
	ignore_gate bool DEFAULT false, max_rows int DEFAULT NULL, lanes int DEFAULT NULL, passes text[] DEFAULT NULL,
	filter text DEFAULT NULL, until text DEFAULT NULL, max_errors bigint DEFAULT NULL, max_error_rate numeric DEFAULT NULL,
	confirm text DEFAULT NULL) RETURNS bigint
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.start_if_idle(text, text[], bool, bool, int, int, text[], text, text, bigint, numeric, text) IS
	'for schedulers: like dvmig.start(), but where a run of the migration is at work it says so, starts nothing and returns null';

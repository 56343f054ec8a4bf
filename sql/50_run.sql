-- Starting, watching and ending runs.

-- ------------------------------------------------------------ for the worker

CREATE FUNCTION dvmig._launch(run bigint, owner oid) RETURNS int
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'dv_launch';
COMMENT ON FUNCTION dvmig._launch(bigint, oid) IS 'register the background worker of a run; an error where max_worker_processes is used up';

CREATE FUNCTION dvmig._run_alive(run bigint) RETURNS bool
LANGUAGE c STRICT COST 1000 AS 'MODULE_PATHNAME', 'dv_run_alive';
COMMENT ON FUNCTION dvmig._run_alive(bigint) IS 'whether a worker holds the lock of a run';

CREATE FUNCTION dvmig._is_ours(writer xid) RETURNS bool
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'dv_is_ours';
COMMENT ON FUNCTION dvmig._is_ours(xid) IS 'is that the transaction in progress here, or one of its savepoints?';

-- _apply_gate: hold what depends on a table that failed, or failed too often.
CREATE FUNCTION dvmig._apply_gate(run bigint, staging text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	r dvmig.run_table;
	gate numeric;
	why text;
BEGIN
	SELECT t.* INTO r FROM dvmig.run_table t
	WHERE t.run = $1 AND t.staging = $2 AND t.pass = 'write';
	SELECT CASE WHEN (h.options ->> 'ignore_gate')::bool THEN NULL ELSE m.gate END INTO gate
	FROM dvmig.run_history h JOIN dvmig.migration m USING (migration_id) WHERE h.run = $1;
	IF r.state = 'failed' THEN
		why := format('held: %s failed', r.staging);
	ELSIF gate IS NOT NULL AND r.failed > 0 AND r.state = 'done'
		AND r.failed * 100.0 > gate * (r.failed + r.succeeded) THEN
		why := format('held: %s of %s of %s failed, which is over the gate of %s per cent',
			r.failed, dvmig._count_of(r.failed + r.succeeded, 'row', 'rows'), r.staging, gate);
	END IF;
	IF why IS NULL THEN
		RETURN;
	END IF;
	WITH RECURSIVE dependants(staging) AS (
		SELECT c.staging FROM dvmig.column_map c WHERE c.parent::text = $2 AND c.staging::text <> $2
		UNION
		SELECT c.staging FROM dvmig.column_map c JOIN dependants d ON c.parent = d.staging AND c.staging <> d.staging
	)
	UPDATE dvmig.run_table t SET state = 'held', message = why
	FROM dependants d
	WHERE t.run = $1 AND t.state = 'pending' AND t.staging = d.staging::text AND t.staging <> $2;
END
$$;
COMMENT ON FUNCTION dvmig._apply_gate(bigint, text) IS 'hold the tables that depend on one that failed too often';

CREATE FUNCTION dvmig._finish_run(run bigint, has_failed bool, was_stopped bool, message text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	held text;
BEGIN
	SELECT string_agg(DISTINCT t.message, '; ') INTO held
	FROM dvmig.run_table t WHERE t.run = $1 AND t.state = 'held';
	-- an error or a cancel may end the run in the middle of a table
	UPDATE dvmig.run_table t SET state = CASE WHEN has_failed THEN 'failed' ELSE 'pending' END, ended_at = clock_timestamp()
	WHERE t.run = $1 AND t.state = 'running';
	UPDATE dvmig.run_history h
	SET state = CASE WHEN has_failed THEN 'failed' WHEN was_stopped THEN 'stopped'
			WHEN held IS NOT NULL THEN 'held' ELSE 'completed' END,
		message = coalesce($4,
			CASE WHEN was_stopped AND NOT h.stop_requested AND h.until_at <= clock_timestamp()
				THEN format('stopped when its time was over: until => %s', h.options ->> 'until') END,
			CASE WHEN NOT was_stopped THEN held || '; dvmig.resume(' || $1 || ') goes past the gate' END,
			(SELECT string_agg(t.staging || ': ' || t.message, '; ') FROM dvmig.run_table t WHERE t.run = $1 AND t.message IS NOT NULL)),
		ended_at = clock_timestamp(), updated_at = clock_timestamp(), in_flight = 0, pid = NULL
	WHERE h.run = $1;
	DELETE FROM dvmig._run_row w USING dvmig.run_history h WHERE w.run = $1 AND h.run = $1 AND h.state = 'completed';
	PERFORM pg_notify('dvmig', jsonb_build_object('event', 'run ended', 'migration', left(h.migration, 200), 'run', h.run, 'state', h.state,
		'succeeded', h.succeeded, 'failed', h.failed, 'at', h.ended_at)::text)
	FROM dvmig.run_history h WHERE h.run = $1;
	INSERT INTO dvmig.event (role, migration, kind, object, detail)
	SELECT session_user, h.migration, h.kind || ' ended', h.run::text,
		jsonb_build_object('state', h.state, 'succeeded', h.succeeded, 'failed', h.failed)
	FROM dvmig.run_history h WHERE h.run = $1;
END
$$;
COMMENT ON FUNCTION dvmig._finish_run(bigint, bool, bool, text) IS 'store how a run ended';

-- --------------------------------------------------------------------- starting

-- _settle_dead_runs: runs whose worker is gone without saying so. A worker
-- holds its run's lock from its first moment on, so that only one that has yet
-- to begin gets some time. Called by all who look at runs: it waits for nobody.
CREATE FUNCTION dvmig._settle_dead_runs(patience interval DEFAULT '15 seconds') RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF current_setting('transaction_read_only')::bool THEN
		RETURN;		-- a look from a standby or a read-only transaction
	END IF;
	UPDATE dvmig.run_history h SET state = 'interrupted', ended_at = clock_timestamp(), pid = NULL, in_flight = 0,
		message = coalesce(h.message || '; ', '') || 'the worker ended without finishing; the next run settles what is in doubt'
	FROM (SELECT d.run FROM dvmig.run_history d
		WHERE d.state IN ('starting', 'running', 'stopping') AND NOT dvmig._run_alive(d.run)
		  AND (d.state <> 'starting' OR d.started_at < clock_timestamp() - patience)
		FOR UPDATE SKIP LOCKED) dead
	WHERE h.run = dead.run;
EXCEPTION WHEN serialization_failure THEN
	RETURN;		-- a look with an older snapshot, since which the run has gone on or was marked
END
$$;
COMMENT ON FUNCTION dvmig._settle_dead_runs(interval) IS 'mark runs as interrupted whose worker is gone';

-- _check_owner_can_run: a worker logs in as the owner of the migration.
CREATE FUNCTION dvmig._check_owner_can_run(owner oid) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT has_database_privilege(owner, current_database(), 'CONNECT') THEN
		RAISE EXCEPTION 'role "%" owns the migration but may not connect to this database', pg_get_userbyid(owner)
			USING ERRCODE = 'insufficient_privilege',
			HINT = format('GRANT CONNECT ON DATABASE %I TO %I.', current_database(), pg_get_userbyid(owner));
	END IF;
	-- from 17 on a worker can be started for a role without LOGIN
	IF current_setting('server_version_num')::int < 170000
		AND NOT (SELECT r.rolcanlogin FROM pg_roles r WHERE r.oid = owner) THEN
		RAISE EXCEPTION 'role "%" owns the migration but may not log in', pg_get_userbyid(owner)
			USING ERRCODE = 'insufficient_privilege',
			HINT = format('ALTER ROLE %I LOGIN; it needs no password, because only a background worker logs in.', pg_get_userbyid(owner));
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._check_owner_can_run(oid) IS 'refuse a run whose worker could not start as the owner of the migration';

-- _start_run: start a run with the options as run_history keeps them, so that a
-- run can be begun again with those of an earlier one.
CREATE FUNCTION dvmig._start_run(caller oid, migration text, options jsonb, confirm text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration;
	new_run bigint;
	tables regclass[];
	passes text[] := (SELECT array_agg(lower(btrim(p))) FROM jsonb_array_elements_text(options -> 'passes') p);
BEGIN
	m := dvmig._migration(caller, migration, 'operator');
	PERFORM dvmig._check_budget(options);
	IF jsonb_array_length(options -> 'tables') = 0 OR jsonb_array_length(options -> 'passes') = 0 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('%s of a run cannot be an empty list', CASE WHEN options -> 'tables' = '[]' THEN 'tables' ELSE 'passes' END),
			HINT = 'Null, or leaving it out, means all.';
	END IF;
	IF (options ->> 'lanes')::int NOT BETWEEN 1 AND 32 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('lanes cannot be %s', options ->> 'lanes'),
			HINT = 'A run has 1 to 32 lanes; without lanes it has one for each application user.';
	END IF;
	IF (options ->> 'max_rows')::int < 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('max_rows cannot be %s', options ->> 'max_rows'),
			HINT = 'Give at least 1 row of each table; without max_rows there is no limit.';
	END IF;
	-- Two who start at once do so one after the other, and the second is refused.
	PERFORM FROM dvmig.migration g WHERE g.migration_id = m.migration_id FOR NO KEY UPDATE;
	PERFORM dvmig._settle_dead_runs();
	PERFORM dvmig._refuse_busy(ARRAY(SELECT mt.staging FROM dvmig.migration_table mt WHERE mt.migration_id = m.migration_id));
	IF NOT EXISTS (SELECT FROM dvmig.migration_table mt WHERE mt.migration_id = m.migration_id) THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('migration "%s" has no staging tables', m.name),
			HINT = 'Add one with dvmig.add_table().';
	END IF;
	PERFORM dvmig._refuse_unfit_maps(m.migration_id);
	PERFORM dvmig._refuse_unfit_filters(m);
	PERFORM dvmig._check_owner_can_run(m.owner);
	PERFORM dvmig._refuse_unmasked(m);
	-- as the caller's search_path finds them, and so they are kept
	tables := (SELECT array_agg(dvmig._named_table(caller, m, t)) FROM jsonb_array_elements_text(options -> 'tables') t);
	-- a filter may quote rows: it is not kept where others look
	INSERT INTO dvmig.run_history (migration_id, migration, server, started_by, options, until_at, place, location)
	VALUES (m.migration_id, m.name, m.server, pg_get_userbyid(caller),
		options - '{filter,resumes}'::text[] || jsonb_strip_nulls(jsonb_build_object('tables', tables::text[])) || CASE WHEN options ? 'filter' THEN '{"filtered": true}' ELSE '{}' END::jsonb,
		dvmig._until(options ->> 'until'), dvmig._place(), dvmig._location())
	RETURNING run INTO new_run;
	PERFORM dvmig._plan_run(new_run, m.migration_id, tables, passes);
	PERFORM dvmig._refuse_keyless(new_run);
	PERFORM dvmig._keep_run_rows(new_run, (options ->> 'resumes')::bigint);
	IF options ? 'filter' THEN
		PERFORM dvmig._take_run_rows(caller, new_run, options ->> 'filter');
	END IF;
	IF NOT coalesce((options ->> 'resend')::bool, false) THEN
		PERFORM dvmig._check_resend(new_run);
	END IF;
	PERFORM dvmig._check_user_mapping(m);
	PERFORM dvmig._confirm_start(caller, new_run, confirm);
	INSERT INTO dvmig.event (role, migration, kind, object, detail)
	SELECT pg_get_userbyid(caller), m.name, 'start', new_run::text, h.options FROM dvmig.run_history h WHERE h.run = new_run;
	-- planning may have taken long; the worker's time to begin counts from here
	UPDATE dvmig.run_history h SET started_at = clock_timestamp() WHERE h.run = new_run;
	PERFORM dvmig._launch(new_run, m.owner);
	RETURN new_run;
END
$$;
COMMENT ON FUNCTION dvmig._start_run(oid, text, jsonb, text) IS 'start a run with options as run_history keeps them';

CREATE FUNCTION dvmig._start(caller oid, migration text, tables text[], resend bool, ignore_gate bool, max_rows int,
	lanes int, passes text[], filter text, until text, max_errors bigint, max_error_rate numeric, confirm text) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT dvmig._start_run(caller, migration, jsonb_strip_nulls(jsonb_build_object('tables', tables, 'resend', resend,
		'ignore_gate', ignore_gate, 'max_rows', max_rows, 'lanes', lanes, 'passes', passes, 'filter', filter, 'until', until,
		'max_errors', max_errors, 'max_error_rate', max_error_rate)), confirm)
$$;
COMMENT ON FUNCTION dvmig._start(oid, text, text[], bool, bool, int, int, text[], text, text, bigint, numeric, text) IS 'start a run: see dvmig.start()';

-- _steps: the steps of a migration, in the order they are walked. Tables that
-- are closed by actions get their states only when the pass is asked for.
CREATE FUNCTION dvmig._steps(migration_id int, passes text[])
RETURNS TABLE (staging regclass, pass text, ord int, wave int, deferred text[], all_deferred text[])
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT w.staging, p.pass, p.ord, w.wave, CASE WHEN p.pass = 'delete' THEN '{}' ELSE w.deferred END, w.deferred
	FROM dvmig._waves($1) w
	JOIN dvmig.migration_table t ON t.staging = w.staging
	CROSS JOIN (VALUES ('write', 1, 1), ('deferred', 2, 1), ('links', 3, 1), ('files', 4, 1), ('states', 5, 1), ('delete', 6, -1)) p (pass, ord, dir)
	WHERE (passes IS NULL OR p.pass = ANY (passes))
	  AND CASE p.pass
		WHEN 'write' THEN t.relationship IS NULL
		WHEN 'links' THEN t.relationship IS NOT NULL
		WHEN 'deferred' THEN cardinality(w.deferred || dvmig._update_only(w.staging)) > 0
		WHEN 'files' THEN EXISTS (SELECT FROM dvmig.column_map c WHERE c.staging = w.staging AND c.pass = 'files')
		WHEN 'states' THEN EXISTS (SELECT FROM dvmig.column_map c WHERE c.staging = w.staging AND c.pass = 'states')
			AND (passes IS NOT NULL OR NOT dvmig._closing_table(t.target))
		ELSE true END
	ORDER BY p.ord, w.wave * p.dir, w.staging::text
$$;
COMMENT ON FUNCTION dvmig._steps(int, text[]) IS 'the steps of a migration, in order: creates and updates by wave, deferred lookups, states, deletes in reverse';

-- _check_passes: names of passes, as an option of a run.
CREATE FUNCTION dvmig._check_passes(passes text[]) RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	known CONSTANT text[] := '{write,deferred,links,files,states,delete}';
	p text;
BEGIN
	FOREACH p IN ARRAY coalesce(passes, '{}') LOOP
		IF p IS NULL OR NOT p = ANY (known) THEN
			RAISE EXCEPTION 'there is no pass "%"', p
				USING ERRCODE = 'invalid_parameter_value',
				HINT = format('Passes are: %s.', array_to_string(known, ', '));
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._check_passes(text[]) IS 'error for names that are no pass';

-- _plan_run: one row per table and pass, in the order they will be walked.
CREATE FUNCTION dvmig._plan_run(run bigint, migration_id int, tables regclass[], passes text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	chosen regclass[] := dvmig._not_on_hold($2, tables);
BEGIN
	PERFORM dvmig._check_passes(passes);
	INSERT INTO dvmig.run_table (run, staging, pass, step, wave, deferred)
	SELECT $1, q.staging::text, q.pass, row_number() OVER (ORDER BY q.n), q.wave, q.deferred
	FROM dvmig._steps($2, passes) WITH ORDINALITY q (staging, pass, ord, wave, deferred, all_deferred, n)
	WHERE chosen IS NULL OR q.staging = ANY (chosen);
END
$$;
COMMENT ON FUNCTION dvmig._plan_run(bigint, int, regclass[], text[]) IS 'the steps of a run, in order';

-- _refuse_keyless: where Dataverse makes the ids, rows without a key could not be known again.
CREATE FUNCTION dvmig._refuse_keyless(run bigint) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t record;
BEGIN
	SELECT mt.staging, mt.target INTO t FROM dvmig.run_table r JOIN dvmig.migration_table mt ON mt.staging::text = r.staging
	WHERE r.run = $1 AND r.pass = 'write' AND mt.ids = 'platform' AND dvmig._platform_key(mt.staging, r.deferred) IS NULL
	ORDER BY r.step LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'table % has ids => ''platform'', but no active alternate key of Dataverse table "%" is mapped', t.staging, t.target
			USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Map all columns of an alternate key, and refresh the metadata once its index is active.';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._refuse_keyless(bigint) IS 'error where a run would create records whose ids Dataverse makes without a key to know them by';

-- _count_resend: loaded rows that a run would write again, and where; counted
-- exactly only where there may be more than dvmig.max_resend.
CREATE FUNCTION dvmig._count_resend(run bigint, OUT total bigint, OUT places text[])
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t record;
	n bigint;
	max_resend int := current_setting('dvmig.max_resend')::int;
BEGIN
	total := 0;
	places := '{}';
	FOR t IN SELECT r.staging, mt.staging AS tab, r.deferred, mt.success_table, mt.source_key, m.owner, dvmig._run_filter($1, mt.staging) AS filter
		FROM dvmig.run_table r JOIN dvmig.migration_table mt ON mt.staging::text = r.staging
		JOIN dvmig.migration m USING (migration_id)
		WHERE r.run = $1 AND r.pass = 'write' LOOP
		PERFORM dvmig._require_tables(t.tab, 'write'), dvmig._require_outcomes(t.tab);
		-- cheap first: how many rows are loaded already and unprocessed
		n := dvmig._query_as(t.owner, format(
			'SELECT count(*) FROM (SELECT FROM %s s JOIN %s x USING (%s) WHERE s.processing_flag = ''U'' AND s.action_flag = ''I'' AND x.operation <> ''D''%s LIMIT %s) q',
			t.staging, t.success_table, (SELECT string_agg(quote_ident(k), ', ') FROM unnest(t.source_key) k), ' AND ' || t.filter, max_resend + 1))::bigint;
		IF n > max_resend OR total + n > max_resend THEN
			BEGIN
				n := dvmig._count_changed(t.staging::regclass, t.deferred, t.owner);
			EXCEPTION WHEN OTHERS THEN
				-- A row that cannot be transformed: all count as changed. The error may quote the row,
				-- whatever its SQLSTATE; the run will tell what there is to tell.
				NULL;
			END;
		END IF;
		IF n > 0 THEN
			total := total + n;
			places := places || format('%s of %s', dvmig._count_of(n, 'row', 'rows'), t.staging);
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._count_resend(bigint) IS 'loaded rows that a run would write again, and in which tables';

-- _check_resend: truncate and reload is the commonest nightly job; what is
-- unchanged is not sent, but a mapping or source that changed everything must
-- not silently write all of it again.
CREATE FUNCTION dvmig._check_resend(run bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	total bigint;
	places text[];
	max_resend int := current_setting('dvmig.max_resend')::int;
BEGIN
	SELECT c.total, c.places INTO total, places FROM dvmig._count_resend(run) c;
	IF total > max_resend THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = dvmig._count_of(total, 'row that is already loaded', 'rows that are already loaded') || ' would be written again',
			DETAIL = array_to_string(places, ', ') || format('; dvmig.max_resend is %s.', max_resend),
			HINT = 'If that is meant, start with resend => true.';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._check_resend(bigint) IS 'refuse a run that would write more than dvmig.max_resend loaded rows again';

-- _count_changed: loaded and unprocessed rows whose content differs from what
-- was sent, found by encoding them as a run would.
CREATE FUNCTION dvmig._count_changed(staging regclass, deferred text[], owner oid) RETURNS bigint
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'dv_count_changed';
COMMENT ON FUNCTION dvmig._count_changed(regclass, text[], oid) IS 'rows already loaded that a run would write again, by content';

CREATE FUNCTION dvmig.start(migration text, tables text[] DEFAULT NULL, resend bool DEFAULT false,
	ignore_gate bool DEFAULT false, max_rows int DEFAULT NULL, lanes int DEFAULT NULL, passes text[] DEFAULT NULL,
	filter text DEFAULT NULL, until text DEFAULT NULL, max_errors bigint DEFAULT NULL, max_error_rate numeric DEFAULT NULL,
	confirm text DEFAULT NULL) RETURNS bigint
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.start(text, text[], bool, bool, int, int, text[], text, text, bigint, numeric, text) IS
	'start a run in the background and return its number; it begins when the calling transaction commits. tables: only these; resend: loaded rows that changed may be written again in any number; ignore_gate: do not hold dependants of tables that failed too often; max_rows: at most so many rows of each table; lanes: workers, 1 to 32 (default: one for each application user); passes: only these; filter: SQL condition over the staging row (s), decided at once with the rights of who calls; until: a time of day or timestamp at which the run stops cleanly; max_errors, max_error_rate: failed rows, or their per cent, that the run bears; confirm: name of the organisation, where production asks for it';

CREATE PROCEDURE dvmig.run(migration text, tables text[] DEFAULT NULL, resend bool DEFAULT false,
	ignore_gate bool DEFAULT false, max_rows int DEFAULT NULL, lanes int DEFAULT NULL, passes text[] DEFAULT NULL,
	filter text DEFAULT NULL, until text DEFAULT NULL, max_errors bigint DEFAULT NULL, max_error_rate numeric DEFAULT NULL,
	confirm text DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_run';
COMMENT ON PROCEDURE dvmig.run(text, text[], bool, bool, int, int, text[], text, text, bigint, numeric, text) IS
	'run a migration and wait for its end, telling progress; an error at the end if the run failed; cancelling it stops the run cleanly';

-- ------------------------------------------------------- stopping and waiting

-- _run_of: the run of that number, if the caller may act on its migration.
CREATE FUNCTION dvmig._run_of(caller oid, run bigint, access text) RETURNS dvmig.run_history
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	h dvmig.run_history;
BEGIN
	SELECT r.* INTO h FROM dvmig.run_history r WHERE r.run = $2;
	IF run IS NULL THEN
		RAISE EXCEPTION 'the run is missing' USING ERRCODE = 'null_value_not_allowed';
	ELSIF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = format('run %s does not exist', run),
			HINT = 'dvmig.run_history lists the runs.';
	END IF;
	IF (dvmig._migration(caller, h.migration, access)).migration_id IS DISTINCT FROM h.migration_id THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = format('the migration of run %s was dropped', run),
			HINT = 'Another one bears its name now.';
	END IF;
	RETURN h;
END
$$;
COMMENT ON FUNCTION dvmig._run_of(oid, bigint, text) IS 'the run of that number, if the caller may act on its migration';

CREATE FUNCTION dvmig._run_state(run bigint, OUT state text, OUT message text, OUT succeeded bigint, OUT failed bigint,
	OUT unchanged bigint, OUT parked bigint, OUT rows_total bigint, OUT rows_read bigint, OUT current_table text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT h.state, h.message, h.succeeded, h.failed, h.unchanged, h.parked,
		(SELECT sum(t.rows_total)::bigint FROM dvmig.run_table t WHERE t.run = h.run AND t.pass IN ('write', 'links', 'delete')), h.rows_read,
		(SELECT t.staging || CASE t.pass WHEN 'write' THEN '' ELSE ' (' || t.pass || ')' END FROM dvmig.run_table t WHERE t.run = h.run AND t.state = 'running' LIMIT 1)
	FROM dvmig.run_history h WHERE h.run = $1
$$;
COMMENT ON FUNCTION dvmig._run_state(bigint) IS 'where a run stands, for those who wait for it';

CREATE FUNCTION dvmig._wait_look(caller oid, run bigint, OUT state text, OUT message text, OUT succeeded bigint, OUT failed bigint,
	OUT unchanged bigint, OUT parked bigint, OUT rows_total bigint, OUT rows_read bigint, OUT current_table text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF EXISTS (SELECT FROM dvmig.run_history h WHERE h.run = $2 AND h.state = 'starting' AND dvmig._is_ours(h.xmin)) THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('run %s begins only when the transaction that started it commits', run),
			HINT = 'Commit first, then wait.';
	ELSIF EXISTS (SELECT FROM dvmig.run_history h WHERE h.run = $2 AND h.state IN ('running', 'stopping') AND dvmig._is_ours(h.xmin)) THEN
		-- its worker waits for the row that this transaction has changed, to the end of days
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('run %s goes on only when the transaction that stopped, paused or tuned it commits', run),
			HINT = 'Commit first, then wait.';
	END IF;
	PERFORM dvmig._run_of(caller, run, 'viewer');
	PERFORM dvmig._settle_dead_runs();
	-- as it is now, though the transaction may have kept an older snapshot
	SELECT s.* INTO state, message, succeeded, failed, unchanged, parked, rows_total, rows_read, current_table
	FROM dvmig._query_latest(format('SELECT to_jsonb(s) FROM dvmig._run_state(%s) s', run)) q,
		jsonb_to_record(q::jsonb) s(state text, message text, succeeded bigint, failed bigint, unchanged bigint, parked bigint, rows_total bigint, rows_read bigint, current_table text);
END
$$;
COMMENT ON FUNCTION dvmig._wait_look(oid, bigint) IS 'where a run stands, checked for the caller';

CREATE FUNCTION dvmig.wait_look(run bigint, OUT state text, OUT message text, OUT succeeded bigint, OUT failed bigint,
	OUT unchanged bigint, OUT parked bigint, OUT rows_total bigint, OUT rows_read bigint, OUT current_table text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.wait_look(bigint) IS 'where a run stands, at this moment';

CREATE FUNCTION dvmig._stop(caller oid, run bigint) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	h dvmig.run_history;
	was text;
BEGIN
	h := dvmig._run_of(caller, run, 'operator');
	PERFORM dvmig._settle_dead_runs();
	SELECT r.state INTO was FROM dvmig.run_history r WHERE r.run = $2 FOR NO KEY UPDATE;
	UPDATE dvmig.run_history r SET stop_requested = true, state = CASE r.state WHEN 'running' THEN 'stopping' ELSE r.state END
	WHERE r.run = $2 AND r.state IN ('starting', 'running', 'stopping') RETURNING r.* INTO h;
	IF FOUND THEN
		PERFORM dvmig._log(caller, h.migration, 'stop', run::text, jsonb_build_object('before', was, 'after', 'stopping'));
	END IF;
	RETURN (SELECT r.state FROM dvmig.run_history r WHERE r.run = $2);
END
$$;
COMMENT ON FUNCTION dvmig._stop(oid, bigint) IS 'internal part of dvmig.stop()';

CREATE FUNCTION dvmig.stop(run bigint) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.stop(bigint) IS 'ask a run to end once the replies it waits for are recorded; returns its state';

CREATE FUNCTION dvmig._resume_run(caller oid, run bigint, past_gate bool) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	h dvmig.run_history;
BEGIN
	h := dvmig._run_of(caller, run, 'operator');
	IF h.kind <> 'run' THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('run %s is no run of a migration but of kind "%s"', run, h.kind),
			HINT = format('Call dvmig.%s() again: it goes on where it ended.', CASE h.kind WHEN 'rebuild' THEN 'rebuild_outcomes' ELSE h.kind END);
	END IF;
	IF h.until_at <= clock_timestamp() THEN
		RAISE NOTICE 'run % was to stop at %, which is over: the new run has no such end', run, h.until_at;
	END IF;
	RETURN dvmig._start_run(caller, h.migration, h.options - 'until'
		|| jsonb_strip_nulls(jsonb_build_object('resumes', run, 'until', CASE WHEN h.until_at > clock_timestamp() THEN h.until_at END))
		|| CASE WHEN past_gate THEN '{"ignore_gate": true}' ELSE '{}' END::jsonb);
END
$$;
COMMENT ON FUNCTION dvmig._resume_run(oid, bigint, bool) IS 'go on after a held or interrupted run, past the gate or not';

-- Runs whose worker went away (server restart, kill): nothing starts them by
-- itself, so that a restored copy of a database never begins to send.
CREATE FUNCTION dvmig._resume_interrupted(caller oid) RETURNS SETOF bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	h record;
BEGIN
	PERFORM dvmig._settle_dead_runs();
	FOR h IN SELECT r.run FROM dvmig.run_history r
		WHERE r.state = 'interrupted' AND r.kind = 'run' AND NOT r.stop_requested AND dvmig._may(caller, r.migration_id, 'operator')
		  -- outside of the hours it was given, the next window's start takes over
		  AND (r.until_at IS NULL OR r.until_at > clock_timestamp())
		  AND NOT EXISTS (SELECT FROM dvmig.run_history l WHERE l.migration_id = r.migration_id AND l.kind = 'run' AND l.run > r.run)
		ORDER BY r.run LOOP
		RETURN NEXT dvmig._resume_run(caller, h.run, false);
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._resume_interrupted(oid) IS 'go on with interrupted runs: see dvmig.resume_interrupted()';

CREATE FUNCTION dvmig.resume_interrupted() RETURNS SETOF bigint
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.resume_interrupted() IS
	'start anew each migration whose last run was interrupted (server restart, killed worker), as far as the caller may run it; returns the new runs';

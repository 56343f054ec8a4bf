-- What a DBA looks at: status, progress, top_errors.
--
-- The views call public functions, which run with the rights of the extension
-- but know who asks: each shows the migrations that the asking role may see.

-- _status_of: of all that the caller may see; of one migration alone every row is
-- counted, however long that takes.
CREATE FUNCTION dvmig._status_of(caller oid, only_migration text)
RETURNS TABLE (migration text, staging text, target text, staged bigint, unprocessed bigint, parked bigint, in_doubt bigint,
	succeeded bigint, failed bigint, left_out bigint, owed bigint, invariant_holds bool, last_run bigint, last_state text, next_step text, estimated bool)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t record;
	c jsonb;
	live bool;
	held_because text;
	correct text;
BEGIN
	PERFORM dvmig._settle_dead_runs();
	FOR t IN SELECT m.name, m.migration_id, mt.staging AS tab, mt.target AS tgt, mt.clean_end, mt.error_table, mt.held_by_undo, dvmig._counting_index(mt) AS index_sql
		FROM dvmig.migration_table mt JOIN dvmig.migration m USING (migration_id)
		WHERE dvmig._may(caller, m.migration_id, 'viewer') AND m.name = coalesce(only_migration, m.name)
		  AND EXISTS (SELECT FROM pg_class k WHERE k.oid = mt.staging)
		ORDER BY m.name, mt.position LOOP
		c := dvmig._table_counts(t.tab, only_migration IS NOT NULL);
		migration := t.name; staging := t.tab::text; target := t.tgt;
		staged := c ->> 'staged'; unprocessed := c ->> 'unprocessed'; parked := c ->> 'parked';
		succeeded := c ->> 'succeeded'; failed := c ->> 'failed'; left_out := c ->> 'left_out'; owed := c ->> 'owed';
		estimated := coalesce((c ->> 'estimated')::bool, false);
		invariant_holds := CASE WHEN NOT estimated THEN staged = unprocessed + succeeded + failed + left_out AND (c ->> 'astray')::bigint = 0 END;
		SELECT h.run, h.state INTO last_run, last_state
		FROM dvmig.run_table r JOIN dvmig.run_history h USING (run)
		WHERE r.staging = t.tab::text AND (h.kind = 'run' OR h.state IN ('starting', 'running', 'stopping'))
		ORDER BY h.run DESC LIMIT 1;
		live := coalesce(last_state IN ('starting', 'running', 'stopping'), false);
		-- which table it waits for is said by the step that was held
		held_because := CASE WHEN last_state = 'held' THEN (SELECT min(r.message) FROM dvmig.run_table r WHERE r.run = last_run AND r.staging = t.tab::text AND r.state = 'held') END;
		correct := format('look at %s, correct the rows, then SELECT dvmig.retry(%L)', t.error_table, t.tab);
		in_doubt := CASE WHEN t.clean_end OR live THEN 0 ELSE greatest(unprocessed - coalesce(parked, 0), 0) END;
		next_step := CASE
			WHEN dvmig._lost_outcome(t.tab) IS NOT NULL THEN 'an outcome table was dropped: ' || dvmig._lost_outcome(t.tab)
			WHEN c ? 'problem' THEN format('%s an error (SQLSTATE %s): dvmig.check() tells more',
				CASE WHEN staged IS NULL THEN 'counting the rows throws' ELSE 'the filter throws' END, c ->> 'problem')
			WHEN (c ->> 'astray')::bigint > 0 THEN format('%s not the outcome that the flag says: SELECT * FROM dvmig.outcome_faults(%L)',
				dvmig._count_of((c ->> 'astray')::bigint, 'row has', 'rows have'), t.tab)
			WHEN live AND (SELECT h.paused FROM dvmig.run_history h WHERE h.run = last_run)
				THEN format('run %s is paused: SELECT dvmig.resume(%s)', last_run, last_run)
			WHEN live THEN format('run %s is at work: see dvmig.progress', last_run)
			WHEN t.held_by_undo IS NOT NULL AND unprocessed > 0
				THEN format('on hold after undo %s: correct what was wrong, then SELECT dvmig.release(%L)', t.held_by_undo, t.tab)
			WHEN held_because IS NOT NULL AND failed = 0 AND unprocessed + owed > 0
				THEN format('%s; correct these rows and retry them, or go on without them: SELECT dvmig.resume(%s)', held_because, last_run)
			WHEN last_state = 'held' AND failed > 0 THEN correct || format('; or go past the gate: SELECT dvmig.resume(%s)', last_run)
			WHEN in_doubt > 0 THEN format('CALL dvmig.run(%L): it asks Dataverse which rows arrived before it goes on', t.name)
			WHEN estimated AND failed > 0 THEN correct
			-- whether anything is left is not to be told by an estimate
			WHEN estimated AND last_run IS NOT NULL THEN format('SELECT * FROM dvmig.cutover(%L) counts; these figures are estimates without an index: %s', t.name, t.index_sql)
			-- before the first run, what waits is no fault: the parents go first
			WHEN unprocessed > coalesce(parked, 0) OR unprocessed > 0 AND last_run IS NULL AND NOT c ? 'left_out_parents' THEN format('CALL dvmig.run(%L)', t.name)
			WHEN failed > 0 THEN correct
			WHEN parked > 0 AND c ? 'left_out_parents' THEN format('rows wait for parents that the filter of %s leaves out: load these too, or leave their children out', c ->> 'left_out_parents')
			WHEN parked > 0 THEN 'rows wait for rows of other tables, which go first in a run; correct those that failed'
			WHEN owed > 0 AND dvmig._closing_table(t.tgt) AND EXISTS (SELECT FROM dvmig.column_map cm WHERE cm.staging = t.tab AND cm.pass = 'states')
				THEN format('SELECT dvmig.start(%L, passes => ''{states}''): records are to be closed, after validation', t.name)
			WHEN owed > 0 THEN format('CALL dvmig.run(%L): later passes are owed', t.name)
			ELSE 'done' END;
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._status_of(oid, text) IS 'rows of dvmig.status for a role; of one migration alone, they are counted in any case';

CREATE FUNCTION dvmig._status_rows(caller oid)
RETURNS TABLE (migration text, staging text, target text, staged bigint, unprocessed bigint, parked bigint, in_doubt bigint,
	succeeded bigint, failed bigint, left_out bigint, owed bigint, invariant_holds bool, last_run bigint, last_state text, next_step text, estimated bool)
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT * FROM dvmig._status_of($1, NULL) $$;
COMMENT ON FUNCTION dvmig._status_rows(oid) IS 'rows of dvmig.status for a role';

CREATE FUNCTION dvmig.status_rows()
RETURNS TABLE (migration text, staging text, target text, staged bigint, unprocessed bigint, parked bigint, in_doubt bigint,
	succeeded bigint, failed bigint, left_out bigint, owed bigint, invariant_holds bool, last_run bigint, last_state text, next_step text, estimated bool)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.status_rows() IS 'rows of dvmig.status';

CREATE VIEW dvmig.status AS SELECT * FROM dvmig.status_rows();
COMMENT ON VIEW dvmig.status IS
	'per staging table: staged = unprocessed + succeeded + failed + left_out at any instant, and every flagged row has exactly the outcome that its flag says (invariant_holds); parked and in_doubt are part of unprocessed, owed (a later pass) is part of succeeded; next_step says what to do; estimated: the table has no index on its flags and is too large to be read for this, so that the figures are estimates and the invariant is not told (null)';

-- _outcome_faults: the rows whose flag and outcomes do not belong together.
CREATE FUNCTION dvmig._outcome_faults(caller oid, staging regclass, max_rows int) RETURNS TABLE (source_key text, processing_flag text, fault text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
DECLARE
	t dvmig.migration_table := dvmig._table(caller, staging, 'viewer');
BEGIN
	IF NOT dvmig._may_read(caller, t.staging) THEN
		RAISE EXCEPTION 'permission denied for table %', t.staging USING ERRCODE = 'insufficient_privilege';
	ELSIF max_rows IS NULL OR max_rows < 1 THEN
		RAISE EXCEPTION 'max_rows must be at least 1' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	PERFORM dvmig._require_outcomes(t.staging);
	RETURN QUERY SELECT j ->> 'key', j ->> 'flag', CASE WHEN (j ->> 'success')::bool AND (j ->> 'error')::bool THEN 'has a success row and an error row'
			WHEN j ->> 'flag' = 'E' THEN 'has no error row' ELSE 'has no success row' END
	FROM (SELECT q::jsonb AS j FROM dvmig._query_as((SELECT m.owner FROM dvmig.migration m WHERE m.migration_id = t.migration_id), format(
		$q$SELECT jsonb_build_object('key', concat_ws(', ', %1$s), 'flag', s.processing_flag, 'success', x.%2$I IS NOT NULL, 'error', e.%2$I IS NOT NULL)::text
		FROM %3$s s LEFT JOIN %4$s x ON %5$s LEFT JOIN %6$s e ON %7$s
		WHERE CASE WHEN s.processing_flag IN ('S', 'P') THEN x.%2$I IS NULL ELSE s.processing_flag = 'E' AND e.%2$I IS NULL END OR x.%2$I IS NOT NULL AND e.%2$I IS NOT NULL
		ORDER BY %1$s LIMIT %8$s$q$,
		(SELECT string_agg(format('s.%I', k), ', ' ORDER BY i) FROM unnest(t.source_key) WITH ORDINALITY u(k, i)), t.source_key[1], t.staging, t.success_table,
		(SELECT string_agg(format('x.%1$I = s.%1$I', k), ' AND ' ORDER BY i) FROM unnest(t.source_key) WITH ORDINALITY u(k, i)), t.error_table,
		(SELECT string_agg(format('e.%1$I = s.%1$I', k), ' AND ' ORDER BY i) FROM unnest(t.source_key) WITH ORDINALITY u(k, i)), max_rows)) q) r;
END
$$;
COMMENT ON FUNCTION dvmig._outcome_faults(oid, regclass, int) IS 'internal part of dvmig.outcome_faults()';

CREATE FUNCTION dvmig.outcome_faults(staging regclass, max_rows int DEFAULT 100) RETURNS TABLE (source_key text, processing_flag text, fault text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.outcome_faults(regclass, int) IS
	'rows of a staging table that have not exactly the outcome that their flag says: S or P one success row, E one error row, and never both. None, where dvmig.status says that the invariant holds. max_rows: at most so many';

-- top_errors is for those who may read the error tables: their messages may
-- quote row content. They are read with the rights of the migration's owner,
-- who can give their columns types whose casts run code of his.
CREATE FUNCTION dvmig._top_error_rows(caller oid)
RETURNS TABLE (migration text, staging text, error_class text, code text, error_column text, failed_rows bigint, message text, sample_key text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t record;
	result jsonb;
BEGIN
	FOR t IN SELECT m.name, m.owner, mt.staging AS tab, mt.error_table, mt.source_key
		FROM dvmig.migration_table mt JOIN dvmig.migration m USING (migration_id)
		WHERE dvmig._may(caller, m.migration_id, 'viewer')
		  AND EXISTS (SELECT FROM pg_class k WHERE k.oid = mt.error_table)
		  AND dvmig._may_read(caller, mt.error_table) AND has_table_privilege(m.owner, mt.error_table, 'SELECT')
		ORDER BY m.name, mt.position LOOP
		result := dvmig._query_as(t.owner, format(
			$q$SELECT coalesce(jsonb_agg(q), '[]')::text FROM (SELECT e.error_class, e.code, e.error_column, count(*) AS failed_rows,
				min(e.message::text) AS message, (array_agg(concat_ws(', ', %s) ORDER BY e.recorded_at))[1] AS sample_key
				FROM %s e GROUP BY 1, 2, 3) q$q$,
			(SELECT string_agg(format('e.%I', k), ', ' ORDER BY i) FROM unnest(t.source_key) WITH ORDINALITY u(k, i)), t.error_table))::jsonb;
		RETURN QUERY SELECT t.name, t.tab::text, r.error_class, r.code, r.error_column, r.failed_rows, r.message, r.sample_key
			FROM jsonb_to_recordset(result) r(error_class text, code text, error_column text, failed_rows bigint, message text, sample_key text);
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._top_error_rows(oid) IS 'rows of dvmig.top_errors for a role';

CREATE FUNCTION dvmig.top_error_rows()
RETURNS TABLE (migration text, staging text, error_class text, code text, error_column text, failed_rows bigint, message text, sample_key text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.top_error_rows() IS 'rows of dvmig.top_errors';

CREATE VIEW dvmig.top_errors AS SELECT * FROM dvmig.top_error_rows() ORDER BY failed_rows DESC, migration, staging, error_class, code;
COMMENT ON VIEW dvmig.top_errors IS 'failed rows by table, class, code and column, with one message and key each, most frequent first';

CREATE FUNCTION dvmig._progress_rows(caller oid)
RETURNS TABLE (run bigint, migration text, state text, current_table text, pass text, rows_read bigint, rows_total bigint, succeeded bigint,
	failed bigint, unchanged bigint, parked bigint, rows_per_second numeric, eta interval, error_share numeric, requests bigint,
	in_flight int, throttled bigint, throttled_share numeric, bytes_sent bigint, elapsed interval, message text,
	rows_per_second_30s numeric, bytes_per_second_30s numeric, bytes_per_second numeric, lanes int, in_flight_limit int, batch_rows int,
	read_share numeric, encode_share numeric, wait_share numeric, hold_share numeric, record_share numeric, tuned jsonb)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM dvmig._settle_dead_runs();
	RETURN QUERY
	SELECT h.run, h.migration, CASE WHEN h.paused AND h.state = 'running' THEN 'paused' ELSE h.state END, c.staging, c.pass, h.rows_read, n.total, h.succeeded, h.failed, h.unchanged, h.parked,
		round(((h.succeeded + h.failed) / greatest(extract(epoch FROM q.spent), 0.001))::numeric, 1),
		CASE WHEN h.rows_read > 0 AND n.total >= h.rows_read
			THEN date_trunc('second', q.spent * ((n.total - h.rows_read)::double precision / h.rows_read)) END,
		round(h.failed::numeric / nullif(h.succeeded + h.failed, 0), 4), h.requests, h.in_flight, h.throttled,
		round((h.throttled_ms / 1000.0 / greatest(extract(epoch FROM q.spent), 0.001))::numeric, 4),
		h.bytes_sent, q.spent, h.message, round(h.recent_rows_per_second::numeric, 1), round(h.recent_bytes_per_second::numeric),
		round((h.bytes_sent / greatest(extract(epoch FROM q.spent), 0.001))::numeric), h.lanes, h.in_flight_limit, h.batch_rows,
		round((h.read_ms / w.ms)::numeric, 4), round((h.encode_ms / w.ms)::numeric, 4), round((h.wait_ms / w.ms)::numeric, 4),
		round((h.hold_ms / w.ms)::numeric, 4), round((h.record_ms / w.ms)::numeric, 4), h.tuned
	FROM dvmig.run_history h
	CROSS JOIN LATERAL (SELECT clock_timestamp() - h.started_at AS spent) q
	CROSS JOIN LATERAL (SELECT greatest(h.read_ms + h.encode_ms + h.wait_ms + h.hold_ms + h.record_ms, 1)::double precision AS ms) w
	CROSS JOIN LATERAL (SELECT sum(t.rows_total)::bigint AS total FROM dvmig.run_table t WHERE t.run = h.run AND t.pass IN ('write', 'links', 'delete')) n
	LEFT JOIN dvmig.run_table c ON c.run = h.run AND c.state = 'running'
	WHERE h.state IN ('starting', 'running', 'stopping') AND dvmig._may(caller, h.migration_id, 'viewer')
	ORDER BY h.run;
END
$$;
COMMENT ON FUNCTION dvmig._progress_rows(oid) IS 'rows of dvmig.progress for a role';

CREATE FUNCTION dvmig.progress_rows()
RETURNS TABLE (run bigint, migration text, state text, current_table text, pass text, rows_read bigint, rows_total bigint, succeeded bigint,
	failed bigint, unchanged bigint, parked bigint, rows_per_second numeric, eta interval, error_share numeric, requests bigint,
	in_flight int, throttled bigint, throttled_share numeric, bytes_sent bigint, elapsed interval, message text,
	rows_per_second_30s numeric, bytes_per_second_30s numeric, bytes_per_second numeric, lanes int, in_flight_limit int, batch_rows int,
	read_share numeric, encode_share numeric, wait_share numeric, hold_share numeric, record_share numeric, tuned jsonb)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.progress_rows() IS 'rows of dvmig.progress';

CREATE VIEW dvmig.progress AS SELECT * FROM dvmig.progress_rows();
COMMENT ON VIEW dvmig.progress IS 'runs at work: rows, rate, time left, requests in flight, share throttled; figures are at most a second old';

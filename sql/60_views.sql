-- What a DBA looks at: status, progress, top_errors.
--
-- The views call public functions, which run with the rights of the extension
-- but know who asks: each shows the migrations that the asking role may see.

-- _count_flags_sql: one statement, so that all of it is of one instant. What is
-- read of every row is its flag and its key: the index on flags holds them, and
-- is read instead of the rows, however wide they are. Only what is unprocessed
-- is held against the filter, whose columns are in that index where they fit.
-- "astray" are rows whose flag and outcomes do not belong together: done without
-- a success row, failed without an error row, or with both.
CREATE FUNCTION dvmig._count_flags_sql(staging regclass, filter_sql text, outcomes bool DEFAULT true) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format(
		$q$SELECT jsonb_build_object('staged', a.staged, 'unprocessed', a.unprocessed - b.left_out, 'left_out', b.left_out,
			'owed', a.owed, 'succeeded', a.owed + a.processed, 'failed', a.failed, 'astray', a.astray)::text
		FROM (SELECT count(*) AS staged, count(*) FILTER (WHERE s.processing_flag NOT IN ('S', 'P', 'E')) AS unprocessed,
				count(*) FILTER (WHERE s.processing_flag = 'S') AS owed, count(*) FILTER (WHERE s.processing_flag = 'P') AS processed,
				count(*) FILTER (WHERE s.processing_flag = 'E') AS failed, %3$s AS astray FROM %1$s s%4$s) a,
			(SELECT %2$s AS left_out OFFSET 0) b$q$, $1,
		CASE WHEN $2 IS NULL THEN '0' ELSE format('(SELECT count(*) FROM %s s WHERE s.processing_flag = ''U'' AND (%s) IS NOT TRUE)', $1, $2) END,
		CASE WHEN outcomes THEN format(
			$q$count(*) FILTER (WHERE CASE WHEN s.processing_flag IN ('S', 'P') THEN x.%1$I IS NULL ELSE s.processing_flag = 'E' AND e.%1$I IS NULL END
				OR x.%1$I IS NOT NULL AND e.%1$I IS NOT NULL)$q$, t.source_key[1]) ELSE 'NULL::bigint' END,
		CASE WHEN outcomes THEN format(' LEFT JOIN %s x ON %s LEFT JOIN %s e ON %s', t.success_table, k.success_on, t.error_table, k.error_on) END)
	FROM dvmig.migration_table t,
		LATERAL (SELECT string_agg(format('x.%1$I = s.%1$I', k), ' AND ' ORDER BY i) AS success_on, string_agg(format('e.%1$I = s.%1$I', k), ' AND ' ORDER BY i) AS error_on
			FROM unnest(t.source_key) WITH ORDINALITY u(k, i)) k
	WHERE t.staging = $1
$$;
COMMENT ON FUNCTION dvmig._count_flags_sql(regclass, text, bool) IS 'SQL that counts rows of a staging table by flag, those that its filter leaves out, and those whose outcome does not fit their flag';

-- _count_flags: never by a scan of the table where there is an index on its flags.
CREATE FUNCTION dvmig._count_flags(owner oid, staging regclass, filter_sql text, outcomes bool DEFAULT true) RETURNS jsonb
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$ SELECT dvmig._query_as($1, dvmig._count_flags_sql($2, $3, $4))::jsonb $$;
COMMENT ON FUNCTION dvmig._count_flags(oid, regclass, text, bool) IS 'rows of a staging table by flag, those that its filter leaves out, and those whose outcome does not fit their flag';

-- _count_parked: rows that wait, of those that are unprocessed; found by the index on flags.
CREATE FUNCTION dvmig._count_parked(owner oid, query text) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$ SELECT dvmig._query_as($1, $2)::bigint $$;
COMMENT ON FUNCTION dvmig._count_parked(oid, text) IS 'rows that wait for others';

-- _parents_left_out: staging tables whose filter leaves out rows that rows of this
-- one wait for: they would wait for ever.
CREATE FUNCTION dvmig._parents_left_out(owner oid, staging regclass) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	p record;
	found text[] := '{}';
BEGIN
	FOR p IN SELECT DISTINCT t.staging, t.filter_sql, c.expression_sql, t.source_key
		FROM dvmig.column_map c JOIN dvmig.migration_table t ON t.staging = c.parent
		WHERE c.staging = $2 AND c.kind = 'parent' AND t.filter_sql IS NOT NULL LOOP
		BEGIN
			IF dvmig._query_as(owner, format(
				'SELECT EXISTS (SELECT FROM %s s WHERE s.processing_flag = ''U'' AND s.action_flag <> ''D'' AND (%s) IN (SELECT %s FROM %s s WHERE s.processing_flag = ''U'' AND (%s) IS NOT TRUE))::text',
				$2, array_to_string(p.expression_sql, ', '), (SELECT string_agg(format('s.%I', k), ', ' ORDER BY i) FROM unnest(p.source_key) WITH ORDINALITY u(k, i)),
				p.staging, p.filter_sql))::bool THEN
				found := found || p.staging::text;
			END IF;
		EXCEPTION WHEN OTHERS THEN
			NULL;		-- an expression or filter that throws: told elsewhere
		END;
	END LOOP;
	RETURN nullif(array_to_string(found, ', '), '');
END
$$;
COMMENT ON FUNCTION dvmig._parents_left_out(oid, regclass) IS 'staging tables whose filter leaves out rows that rows of this one wait for';

CREATE FUNCTION dvmig._parked_rows_max() RETURNS bigint
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT 100000::bigint $$;
COMMENT ON FUNCTION dvmig._parked_rows_max() IS 'unprocessed rows of a table up to which those that wait are counted when somebody looks: reading so many takes about a second';

CREATE FUNCTION dvmig._table_counts(staging regclass) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table;
	owner oid;
	counts jsonb;
	waiting text;
	joins text;
	deferred text[];
BEGIN
	SELECT mt.* INTO STRICT t FROM dvmig.migration_table mt WHERE mt.staging = $1;
	SELECT m.owner INTO owner FROM dvmig.migration m WHERE m.migration_id = t.migration_id;
	BEGIN
		counts := dvmig._count_flags(owner, $1, t.filter_sql);
	EXCEPTION WHEN OTHERS THEN
		-- one bad filter must not hide every other table, nor its error quote a row
		counts := jsonb_build_object('problem', SQLSTATE);
		BEGIN
			counts := dvmig._count_flags(owner, $1, NULL, false) || jsonb_build_object('left_out', NULL) || counts;
		EXCEPTION WHEN OTHERS THEN
			NULL;		-- a flag of another type, a privilege taken back
		END;
	END;
	-- Parked: a parent is neither loaded nor being loaded before its children. That
	-- takes the rows themselves; of very many it is what the last run has told.
	IF (counts ->> 'unprocessed')::bigint > dvmig._parked_rows_max() THEN
		RETURN counts || jsonb_build_object('parked', (SELECT r.parked FROM dvmig.run_table r WHERE r.staging = $1::text AND r.pass IN ('write', 'links')
			AND r.ended_at IS NOT NULL ORDER BY r.run DESC LIMIT 1));
	ELSIF (counts ->> 'unprocessed')::bigint > 0 AND NOT counts ? 'problem' THEN
		SELECT w.deferred INTO deferred FROM dvmig._waves(t.migration_id) w WHERE w.staging = $1;
		SELECT string_agg(m.parked_sql, ', ' ORDER BY m.ordinal), string_agg(m.join_sql, ' ' ORDER BY m.ordinal)
		INTO waiting, joins
		FROM dvmig._pass_maps($1, 'write', '{}') m
		WHERE m.parked_sql IS NOT NULL AND NOT m.target_column = ANY (coalesce(deferred, '{}'));
		IF waiting IS NOT NULL THEN
			BEGIN
				counts := counts || jsonb_build_object('parked', dvmig._count_parked(owner, format(
					'SELECT count(*) FROM (%s) s %s WHERE coalesce(%s, NULL::text) IS NOT NULL',
					(SELECT p.inner_sql FROM dvmig._projection($1, 'write') p), joins, waiting)));
			EXCEPTION WHEN OTHERS THEN
				-- a key that does not cast, say: that row will fail, not wait
				counts := counts || jsonb_build_object('parked', NULL);
			END;
			IF (counts ->> 'parked')::bigint > 0 THEN
				counts := counts || jsonb_strip_nulls(jsonb_build_object('left_out_parents', dvmig._parents_left_out(owner, $1)));
			END IF;
		END IF;
		-- ... and a record goes only after those that point at it.
		waiting := dvmig._children_left($1);
		IF waiting IS NOT NULL THEN
			BEGIN
				counts := counts || jsonb_build_object('parked', coalesce((counts ->> 'parked')::bigint, 0) + dvmig._count_parked(owner, format(
					'SELECT count(*) FROM (%s) s WHERE coalesce(%s, NULL::text) IS NOT NULL',
					(SELECT p.inner_sql FROM dvmig._projection($1, 'delete') p), waiting)));
			EXCEPTION WHEN OTHERS THEN
				-- the lookup of a row below throws, and its error may quote that row
				counts := counts || jsonb_build_object('parked', NULL);
			END;
		END IF;
	END IF;
	RETURN jsonb_build_object('parked', 0) || counts;
END
$$;
COMMENT ON FUNCTION dvmig._table_counts(regclass) IS 'rows of a staging table by what has become of them, counted with the owner''s rights';

CREATE FUNCTION dvmig._status_rows(caller oid)
RETURNS TABLE (migration text, staging text, target text, staged bigint, unprocessed bigint, parked bigint, in_doubt bigint,
	succeeded bigint, failed bigint, left_out bigint, owed bigint, invariant_holds bool, last_run bigint, last_state text, next_step text)
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
	FOR t IN SELECT m.name, m.migration_id, mt.staging AS tab, mt.target AS tgt, mt.clean_end, mt.error_table, mt.held_by_undo
		FROM dvmig.migration_table mt JOIN dvmig.migration m USING (migration_id)
		WHERE dvmig._may(caller, m.migration_id, 'viewer')
		  AND EXISTS (SELECT FROM pg_class k WHERE k.oid = mt.staging)
		ORDER BY m.name, mt.position LOOP
		c := dvmig._table_counts(t.tab);
		migration := t.name; staging := t.tab::text; target := t.tgt;
		staged := c ->> 'staged'; unprocessed := c ->> 'unprocessed'; parked := c ->> 'parked';
		succeeded := c ->> 'succeeded'; failed := c ->> 'failed'; left_out := c ->> 'left_out'; owed := c ->> 'owed';
		invariant_holds := staged = unprocessed + succeeded + failed + left_out AND (c ->> 'astray')::bigint = 0;
		SELECT h.run, h.state INTO last_run, last_state
		FROM dvmig.run_table r JOIN dvmig.run_history h USING (run)
		WHERE r.staging = t.tab::text AND (h.kind = 'run' OR h.state IN ('starting', 'running', 'stopping'))
		ORDER BY h.run DESC LIMIT 1;
		live := coalesce(last_state IN ('starting', 'running', 'stopping'), false);
		-- which table it waits for is said by the step that was held
		held_because := CASE WHEN last_state = 'held' THEN (SELECT min(r.message) FROM dvmig.run_table r WHERE r.run = last_run AND r.staging = t.tab::text AND r.state = 'held') END;
		correct := format('look at %s, correct the rows, then SELECT dvmig.retry(%L)', t.error_table, t.tab);
		in_doubt := CASE WHEN t.clean_end OR live THEN 0 ELSE unprocessed - coalesce(parked, 0) END;
		next_step := CASE
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
COMMENT ON FUNCTION dvmig._status_rows(oid) IS 'rows of dvmig.status for a role';

CREATE FUNCTION dvmig.status_rows()
RETURNS TABLE (migration text, staging text, target text, staged bigint, unprocessed bigint, parked bigint, in_doubt bigint,
	succeeded bigint, failed bigint, left_out bigint, owed bigint, invariant_holds bool, last_run bigint, last_state text, next_step text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.status_rows() IS 'rows of dvmig.status';

CREATE VIEW dvmig.status AS SELECT * FROM dvmig.status_rows();
COMMENT ON VIEW dvmig.status IS
	'per staging table: staged = unprocessed + succeeded + failed + left_out at any instant, and every flagged row has exactly the outcome that its flag says (invariant_holds); parked and in_doubt are part of unprocessed, owed (a later pass) is part of succeeded; next_step says what to do';

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

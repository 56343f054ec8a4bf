-- What a report says, gathered once; 73_report.sql writes it as HTML and text.
--
-- It is for those who may watch the migration. What quotes rows (messages and
-- keys of errors) is in it only for those who may read the error tables.

-- _report_runs: finished and live runs with the figures that are compared.
CREATE FUNCTION dvmig._report_runs(migration_id int) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(jsonb_agg(q ORDER BY q.run DESC), '[]') FROM (
		SELECT h.run, h.state, h.started_by, h.started_at, h.server,
			extract(epoch FROM coalesce(h.ended_at, clock_timestamp()) - h.started_at)::numeric AS seconds,
			h.succeeded, h.failed, h.unchanged, h.requests, h.bytes_sent, h.throttled,
			round(((h.succeeded + h.failed) / greatest(extract(epoch FROM coalesce(h.ended_at, clock_timestamp()) - h.started_at), 0.001))::numeric, 1) AS rate
		FROM dvmig.run_history h WHERE h.migration_id = $1 AND h.kind = 'run' ORDER BY h.run DESC LIMIT 20) q
$$;
COMMENT ON FUNCTION dvmig._report_runs(int) IS 'the last 20 runs of a migration with the figures that are compared';

-- _report_steps: where the time of the last 10 runs went, longest first.
CREATE FUNCTION dvmig._report_steps(migration_id int) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(jsonb_agg(q ORDER BY q.seconds DESC), '[]') FROM (
		SELECT t.run, t.staging, t.pass, t.succeeded, t.failed, t.requests, s.seconds,
			round((t.succeeded + t.failed) / greatest(s.seconds, 0.001), 1) AS rate,
			round(s.seconds * 1000 / nullif(t.requests, 0)) AS ms_per_request
		FROM (SELECT h.run FROM dvmig.run_history h WHERE h.migration_id = $1 AND h.kind = 'run' ORDER BY h.run DESC LIMIT 10) r
		JOIN dvmig.run_table t USING (run),
			LATERAL (SELECT extract(epoch FROM coalesce(t.ended_at, clock_timestamp()) - t.started_at)::numeric AS seconds) s
		WHERE t.started_at IS NOT NULL AND t.requests > 0 ORDER BY s.seconds DESC LIMIT 12) q
$$;
COMMENT ON FUNCTION dvmig._report_steps(int) IS 'the longest steps of the last 10 runs of a migration';

-- _report_rates: rows per second over time of the largest of the last 20 runs,
-- in at most 120 steps.
CREATE FUNCTION dvmig._report_rates(migration_id int) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH run AS (
		SELECT h.run, h.started_at FROM (SELECT * FROM dvmig.run_history r WHERE r.migration_id = $1 ORDER BY r.run DESC LIMIT 20) h
		WHERE EXISTS (SELECT FROM dvmig.run_sample s WHERE s.run = h.run)
		ORDER BY h.succeeded + h.failed DESC, h.run DESC LIMIT 1
	), s AS (
		SELECT r.run, ntile(120) OVER (ORDER BY s.sampled_at) AS step, extract(epoch FROM s.sampled_at - r.started_at)::numeric AS t,
			s.succeeded + s.failed AS done, s.failed
		FROM run r JOIN dvmig.run_sample s USING (run)
	), p AS (
		SELECT run, step, max(t) AS t, max(done) AS done, max(failed) AS failed FROM s GROUP BY run, step
	), d AS (
		SELECT run, t, greatest(done - coalesce(lag(done) OVER w, 0), 0) / greatest(t - coalesce(lag(t) OVER w, 0), 0.001) AS rate,
			greatest(failed - coalesce(lag(failed) OVER w, 0), 0) / greatest(t - coalesce(lag(t) OVER w, 0), 0.001) AS failed_rate
		FROM p WINDOW w AS (ORDER BY step)
	)
	SELECT jsonb_build_object('run', max(run), 'points', coalesce(jsonb_agg(jsonb_build_object('t', round(t, 1), 'rate', round(rate, 1),
		'failed_rate', round(failed_rate, 1)) ORDER BY t), '[]')) FROM d
$$;
COMMENT ON FUNCTION dvmig._report_rates(int) IS 'rows per second over time of the largest recent run of a migration';

-- _report_classes: failed rows by class; figures only, so for every viewer.
CREATE FUNCTION dvmig._report_classes(m dvmig.migration) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t regclass;
	found jsonb := '[]';
BEGIN
	FOR t IN SELECT mt.error_table FROM dvmig.migration_table mt JOIN pg_class c ON c.oid = mt.error_table WHERE mt.migration_id = m.migration_id LOOP
		BEGIN
			found := found || dvmig._query_as(m.owner, format(
				'SELECT coalesce(jsonb_agg(q), ''[]'') FROM (SELECT e.error_class AS class, count(*) AS n FROM %s e GROUP BY 1) q', t))::jsonb;
		EXCEPTION WHEN OTHERS THEN
			NULL;		-- a privilege taken back, a column gone: the other tables count
		END;
	END LOOP;
	RETURN (SELECT coalesce(jsonb_agg(q ORDER BY q.n DESC, q.class), '[]') FROM (
		SELECT coalesce(f ->> 'class', 'unknown') AS class, sum((f ->> 'n')::bigint) AS n FROM jsonb_array_elements(found) f GROUP BY 1) q);
END
$$;
COMMENT ON FUNCTION dvmig._report_classes(dvmig.migration) IS 'failed rows of a migration by error class';

-- _report_verification: the last verification of each table, and the last sample after it.
CREATE FUNCTION dvmig._report_verification(migration_id int) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(jsonb_agg(q ORDER BY q.staging, q.verified_at), '[]') FROM (
		SELECT DISTINCT ON (v.staging, v.sample IS NULL) v.* FROM dvmig.verification v
		WHERE v.migration_id = $1 AND NOT EXISTS (SELECT FROM dvmig.verification o
			WHERE o.migration_id = $1 AND o.staging = v.staging AND o.sample IS NULL AND o.verified_at > v.verified_at)
		ORDER BY v.staging, v.sample IS NULL, v.verified_at DESC) q
$$;
COMMENT ON FUNCTION dvmig._report_verification(int) IS 'the last verification of each staging table, and the last sample after it';

CREATE FUNCTION dvmig._report_definition(migration_id int) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(jsonb_agg(jsonb_build_object('staging', t.staging::text, 'target', t.target, 'source_key', t.source_key,
		'ids', t.ids, 'filter', t.filter, 'filter_reason', t.filter_reason, 'on_exists', t.on_exists,
		'columns', (SELECT coalesce(jsonb_agg(jsonb_build_object('target_column', c.target_column, 'kind', c.kind, 'send', c.send,
				'expression', replace(c.expression, chr(10), ', '),
				'resolves', coalesce(c.parent::text, c.referenced_table || ' by ' || array_to_string(c.match_on, ', '))) ORDER BY c.position, c.target_column), '[]')
			FROM dvmig.column_map c WHERE c.staging = t.staging)) ORDER BY t.position), '[]')
	FROM dvmig.migration_table t WHERE t.migration_id = $1 AND EXISTS (SELECT FROM pg_class k WHERE k.oid = t.staging)
$$;
COMMENT ON FUNCTION dvmig._report_definition(int) IS 'tables and column maps of a migration';

-- _report_data: all that a report of a migration says to this caller.
CREATE FUNCTION dvmig._report_data(caller oid, migration text) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'viewer');
	tables jsonb;
	o dvmig.organisation;
BEGIN
	SELECT p.* INTO o FROM dvmig.organisation p WHERE p.server = m.server;
	SELECT coalesce(jsonb_agg(to_jsonb(s)), '[]') INTO tables FROM dvmig._status_of(caller, m.name) s;
	RETURN jsonb_build_object(
		'migration', m.name, 'server', m.server, 'owner', m.owner::text, 'version', (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'dvmig'),
		'environment', (SELECT substr(opt, 13) FROM pg_foreign_server f, unnest(f.srvoptions) opt WHERE f.srvname = m.server AND opt LIKE 'environment=%'),
		'organisation', coalesce(o.unique_name, o.organisation_id::text),
		'generated_at', date_trunc('second', clock_timestamp()), 'generated_by', pg_get_userbyid(caller), 'database', current_database(),
		'totals', (SELECT jsonb_build_object('staged', coalesce(sum((t ->> 'staged')::numeric), 0), 'succeeded', coalesce(sum((t ->> 'succeeded')::numeric), 0),
				'failed', coalesce(sum((t ->> 'failed')::numeric), 0), 'unprocessed', coalesce(sum((t ->> 'unprocessed')::numeric), 0),
				'left_out', coalesce(sum((t ->> 'left_out')::numeric), 0), 'owed', coalesce(sum((t ->> 'owed')::numeric), 0),
				'holds', coalesce(bool_and((t ->> 'invariant_holds')::bool), true)) FROM jsonb_array_elements(tables) t),
		'tables', tables, 'runs', dvmig._report_runs(m.migration_id), 'steps', dvmig._report_steps(m.migration_id), 'rates', dvmig._report_rates(m.migration_id),
		'classes', dvmig._report_classes(m),
		'errors', (SELECT coalesce(jsonb_agg(to_jsonb(e)), '[]') FROM (SELECT * FROM dvmig._top_error_rows(caller) r
			WHERE r.migration = m.name ORDER BY r.failed_rows DESC, r.staging, r.error_class, r.code LIMIT 20) e),
		'hidden', EXISTS (SELECT FROM dvmig.migration_table t JOIN pg_class k ON k.oid = t.error_table
			WHERE t.migration_id = m.migration_id AND NOT dvmig._may_read(caller, t.error_table)),
		'verification', dvmig._report_verification(m.migration_id),
		'sign_off', (SELECT jsonb_build_object('at', date_trunc('second', e.happened_at), 'by', e.role) || e.detail FROM dvmig.event e
			WHERE e.migration = m.name AND e.kind = 'sign_off' AND e.happened_at >= m.created_at ORDER BY e.event_id DESC LIMIT 1),
		'definition', dvmig._report_definition(m.migration_id));
END
$$;
COMMENT ON FUNCTION dvmig._report_data(oid, text) IS 'what a report of a migration says to a role';

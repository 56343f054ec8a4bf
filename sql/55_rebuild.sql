-- Outcomes that were lost, made again from what is in Dataverse.

-- _rebuild_rows: rows that have no outcome, though they may have a record.
CREATE FUNCTION dvmig._rebuild_rows(staging regclass) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT replace(p.inner_sql, 's.processing_flag IN (''S'', ''P'', ''E'')', format(
		's.processing_flag IN (''S'', ''P'', ''U'') AND s.action_flag <> ''D'' AND NOT EXISTS (SELECT FROM %s x WHERE %s) AND NOT EXISTS (SELECT FROM %s x WHERE %2$s)',
		t.success_table, (SELECT string_agg(format('x.%I = s.%1$I', k), ' AND ') FROM unnest(t.source_key) k), t.error_table))
	FROM dvmig.migration_table t, dvmig._projection($1, 'verify') p WHERE t.staging = $1
$$;
COMMENT ON FUNCTION dvmig._rebuild_rows(regclass) IS 'query of the rows whose outcome may have been lost';

-- _remake_outcomes: outcome tables that were dropped, empty, as who asks for them;
-- done by the worker of the job, which sees what is committed.
CREATE FUNCTION dvmig._remake_outcomes(caller oid, tables regclass[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t record;
BEGIN
	FOR t IN SELECT mt.staging, mt.source_key, m.owner, EXISTS (SELECT FROM pg_class k WHERE k.oid = mt.success_table) AS has_success,
			EXISTS (SELECT FROM pg_class k WHERE k.oid = mt.error_table) AS has_error
		FROM dvmig.migration_table mt JOIN dvmig.migration m USING (migration_id) WHERE mt.staging = ANY (tables) LOOP
		IF NOT t.has_success THEN
			UPDATE dvmig.migration_table mt SET success_table = dvmig._create_outcome(caller, t.owner, t.staging, t.source_key, 'success', NULL) WHERE mt.staging = t.staging;
		END IF;
		IF NOT t.has_error THEN
			UPDATE dvmig.migration_table mt SET error_table = dvmig._create_outcome(caller, t.owner, t.staging, t.source_key, 'error', NULL) WHERE mt.staging = t.staging;
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._remake_outcomes(oid, regclass[]) IS 'make outcome tables again that were dropped';

CREATE FUNCTION dvmig._end_rebuild(run bigint, staging regclass, found bigint, missing bigint, ambiguous bigint) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	UPDATE dvmig.run_table t SET state = 'done', ended_at = clock_timestamp(), rows_read = $3 + $4 + $5, succeeded = $3,
		message = CASE WHEN $5 > 0 THEN dvmig._count_of($5, 'row has the key of several records and was left', 'rows have the key of several records and were left') END
	WHERE t.run = $1 AND t.staging = $2::text
$$;
COMMENT ON FUNCTION dvmig._end_rebuild(bigint, regclass, bigint, bigint, bigint) IS 'store what came of rebuilding outcomes';

CREATE FUNCTION dvmig._rebuild_outcomes(caller oid, staging regclass) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table := dvmig._table(caller, staging, 'owner');
	m dvmig.migration;
	job bigint;
BEGIN
	SELECT g.* INTO m FROM dvmig.migration g WHERE g.migration_id = t.migration_id;
	PERFORM dvmig._refuse_links(ARRAY[t.staging]);
	job := dvmig._start_job(caller, m, 'rebuild', ARRAY[t.staging], '{}', true);
	RETURN (SELECT q::bigint FROM dvmig._query_latest(format('SELECT t.succeeded FROM dvmig.run_table t WHERE t.run = %s', job)) q);
END
$$;
COMMENT ON FUNCTION dvmig._rebuild_outcomes(oid, regclass) IS 'internal part of dvmig.rebuild_outcomes()';

CREATE FUNCTION dvmig.rebuild_outcomes(staging regclass) RETURNS bigint
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.rebuild_outcomes(regclass) IS
	'look for the records of rows without an outcome, by their ids and by the source key that records carry, and record those that are there as loaded; waits for the end and returns how many';

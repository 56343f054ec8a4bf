-- Where each migration stands as a whole: dvmig.migration_status.

-- _migration_step: what to do next, in words.
CREATE FUNCTION dvmig._migration_step(m dvmig.migration, c jsonb, live bigint, unverified text, signed_off bool) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE
		WHEN (c ->> 'tables')::int = 0 THEN format('add staging tables: SELECT dvmig.add_table(%L, ...)', m.name)
		WHEN live IS NOT NULL AND (SELECT h.paused FROM dvmig.run_history h WHERE h.run = live) THEN format('run %s is paused: SELECT dvmig.resume(%s)', live, live)
		WHEN live IS NOT NULL THEN format('run %s is at work: see dvmig.progress', live)
		WHEN signed_off AND (c ->> 'staged')::numeric = 0 THEN 'signed off, and nothing is staged any more'
		WHEN NOT (c ->> 'holds')::bool THEN 'a table cannot be counted, or its figures do not add up: see dvmig.status'
		WHEN signed_off THEN format('signed off; SELECT dvmig.discard(%L) throws away what was staged', m.name)
		WHEN (c ->> 'in_doubt')::numeric > 0 THEN format('CALL dvmig.run(%L): it asks Dataverse which rows arrived before it goes on', m.name)
		WHEN (c ->> 'unprocessed')::numeric > 0 AND EXISTS (SELECT FROM dvmig.migration_table t WHERE t.migration_id = m.migration_id AND t.held_by_undo IS NOT NULL)
			THEN 'tables are on hold after an undo: see dvmig.status'
		WHEN (c ->> 'estimated')::bool AND (c ->> 'failed')::numeric > 0 THEN 'look at dvmig.top_errors, correct the rows, then retry their tables'
		WHEN (c ->> 'estimated')::bool AND (c ->> 'succeeded')::numeric > 0
			THEN format('SELECT * FROM dvmig.cutover(%L) counts; where a table has no index on its flags, dvmig.status tells estimates, and the index to make', m.name)
		WHEN (c ->> 'unprocessed')::numeric > coalesce((c ->> 'parked')::numeric, 0) THEN format('CALL dvmig.run(%L)', m.name)
		WHEN (c ->> 'failed')::numeric > 0 THEN 'look at dvmig.top_errors, correct the rows, then retry their tables'
		WHEN (c ->> 'parked')::numeric > 0 THEN 'rows wait for their parents: correct those that failed'
		WHEN (c ->> 'owed')::numeric > 0 THEN 'later passes are owed: see dvmig.status'
		WHEN (c ->> 'succeeded')::numeric = 0 THEN 'nothing is staged'
		WHEN unverified IS NOT NULL THEN unverified
		ELSE format('SELECT * FROM dvmig.cutover(%L), then dvmig.sign_off()', m.name) END
$$;
COMMENT ON FUNCTION dvmig._migration_step(dvmig.migration, jsonb, bigint, text, bool) IS 'the next step of a migration in words';

CREATE FUNCTION dvmig._migration_status_rows(caller oid)
RETURNS TABLE (migration text, server name, environment text, tables int, staged bigint, unprocessed bigint, parked bigint, in_doubt bigint,
	succeeded bigint, failed bigint, left_out bigint, owed bigint, invariant_holds bool, last_run bigint, last_state text, last_ended_at timestamptz,
	verified bool, signed_off bool, next_step text, estimated bool)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration;
	c jsonb;
	h record;
	live bigint;
	unverified text;
	counted jsonb := (SELECT coalesce(jsonb_agg(to_jsonb(s)), '[]') FROM dvmig._status_rows(caller) s);
BEGIN
	FOR m IN SELECT g.* FROM dvmig.migration g WHERE dvmig._may(caller, g.migration_id, 'viewer') ORDER BY g.name LOOP
		SELECT jsonb_build_object('tables', count(*), 'staged', sum(s.staged), 'unprocessed', sum(s.unprocessed), 'parked', sum(s.parked),
			'in_doubt', sum(s.in_doubt), 'succeeded', sum(s.succeeded), 'failed', sum(s.failed), 'left_out', sum(s.left_out), 'owed', sum(s.owed),
			'estimated', coalesce(bool_or(s.estimated), false),
			'holds', coalesce(bool_and(coalesce(s.invariant_holds, s.estimated)), true)) INTO c
		FROM jsonb_to_recordset(counted) s(migration text, staged bigint, unprocessed bigint, parked bigint, in_doubt bigint, succeeded bigint,
			failed bigint, left_out bigint, owed bigint, invariant_holds bool, estimated bool) WHERE s.migration = m.name;
		SELECT r.run, r.state, r.ended_at INTO h FROM dvmig.run_history r WHERE r.migration_id = m.migration_id AND r.kind = 'run' ORDER BY r.run DESC LIMIT 1;
		live := (SELECT r.run FROM dvmig.run_history r WHERE r.migration_id = m.migration_id AND r.state IN ('starting', 'running', 'stopping') LIMIT 1);
		migration := m.name; server := m.server; tables := c ->> 'tables'; staged := c ->> 'staged'; unprocessed := c ->> 'unprocessed';
		environment := (SELECT substr(o, 13) FROM pg_foreign_server f, unnest(f.srvoptions) o WHERE f.srvname = m.server AND o LIKE 'environment=%');
		parked := c ->> 'parked'; in_doubt := c ->> 'in_doubt'; succeeded := c ->> 'succeeded'; failed := c ->> 'failed';
		left_out := c ->> 'left_out'; owed := c ->> 'owed'; estimated := c ->> 'estimated';
		invariant_holds := CASE WHEN NOT estimated OR NOT (c ->> 'holds')::bool THEN (c ->> 'holds')::bool END;
		last_run := h.run; last_state := h.state; last_ended_at := h.ended_at;
		-- first what is to be verified, then what came out
		unverified := (SELECT dvmig._unverified_step(m, t.staging::text, w) FROM dvmig.migration_table t, LATERAL dvmig._unverified(m, t.staging::text) w
			WHERE t.migration_id = m.migration_id AND w IS NOT NULL
			ORDER BY w LIKE 'its verification %', w LIKE 'its verification could not %', t.position LIMIT 1);
		verified := tables > 0 AND coalesce(succeeded, 0) > 0 AND unverified IS NULL;
		signed_off := dvmig._signed_off(m);
		next_step := dvmig._migration_step(m, c, live, unverified, signed_off);
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._migration_status_rows(oid) IS 'rows of dvmig.migration_status for a role';

CREATE FUNCTION dvmig.migration_status_rows()
RETURNS TABLE (migration text, server name, environment text, tables int, staged bigint, unprocessed bigint, parked bigint, in_doubt bigint,
	succeeded bigint, failed bigint, left_out bigint, owed bigint, invariant_holds bool, last_run bigint, last_state text, last_ended_at timestamptz,
	verified bool, signed_off bool, next_step text, estimated bool)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.migration_status_rows() IS 'rows of dvmig.migration_status';

CREATE VIEW dvmig.migration_status AS SELECT * FROM dvmig.migration_status_rows();
COMMENT ON VIEW dvmig.migration_status IS 'per migration: the sums of dvmig.status, the last run, whether it is verified and signed off, and what to do next; estimated: figures of a table are estimates, see dvmig.status';

-- Production is asked about: what cannot easily be taken back there is done only
-- where the caller names the organisation that he means.

ALTER TABLE dvmig.organisation ADD confirmed_at timestamptz, ADD confirmed_by name;
COMMENT ON COLUMN dvmig.organisation.unique_name IS 'as the organisation tells it; null where it does not';
COMMENT ON COLUMN dvmig.organisation.confirmed_at IS 'when the first run against this organisation was confirmed; only asked for where the environment is production';
COMMENT ON COLUMN dvmig.organisation.confirmed_by IS 'who confirmed it';

-- _is_production: whether a server's option environment says production.
CREATE FUNCTION dvmig._is_production(server name) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT EXISTS (SELECT FROM pg_foreign_server s, unnest(s.srvoptions) o
		WHERE s.srvname = $1 AND lower(o) = 'environment=production')
$$;
COMMENT ON FUNCTION dvmig._is_production(name) IS 'whether a server''s environment is production';

-- _confirm_server: error unless "confirm" names the organisation behind a
-- production server; elsewhere only where it names another one. True where it
-- was confirmed. "action" completes the sentence "... needs to be confirmed";
-- "call" is the call to make, %s standing for its confirm => '...'.
CREATE FUNCTION dvmig._confirm_server(server name, action text, confirm text, call text DEFAULT NULL) RETURNS bool
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	o dvmig.organisation;
	name text;
BEGIN
	SELECT p.* INTO o FROM dvmig.organisation p WHERE p.server = _confirm_server.server;
	IF confirm IS NULL AND NOT dvmig._is_production(server) THEN
		RETURN false;
	ELSIF o.organisation_id IS NULL THEN
		RAISE EXCEPTION 'it is not known which organisation is behind server "%"', server
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = format('Ask it first: SELECT * FROM dvmig.whoami(%L).', server);
	END IF;
	name := coalesce(o.unique_name, o.organisation_id::text);
	IF confirm = name OR lower(confirm) = o.organisation_id::text THEN
		RETURN true;
	ELSIF confirm IS NOT NULL THEN
		RAISE EXCEPTION 'server "%" is not the organisation that was confirmed', server
			USING ERRCODE = 'object_not_in_prerequisite_state',
			DETAIL = format('It is organisation "%s", not "%s".', name, confirm),
			HINT = 'dvmig.whoami() tells the organisation behind a server.';
	END IF;
	RAISE EXCEPTION '% needs to be confirmed', action
		USING ERRCODE = 'object_not_in_prerequisite_state',
		DETAIL = format('Server "%s" is organisation "%s", which is production.', server, name),
		HINT = 'If that is meant: ' || coalesce(format(call, format('confirm => %L', name)), format('repeat the call with confirm => %L', name)) || '.';
END
$$;
COMMENT ON FUNCTION dvmig._confirm_server(name, text, text, text) IS
	'error unless an action on a production organisation is confirmed by the organisation''s name; true where it was confirmed';

-- _require_confirmation: the same for the server that a migration goes to.
CREATE FUNCTION dvmig._require_confirmation(caller oid, migration text, action text, confirm text, call text DEFAULT NULL) RETURNS bool
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT dvmig._confirm_server(m.server, $3, $4, $5) FROM dvmig.migration m WHERE m.name = $2
$$;
COMMENT ON FUNCTION dvmig._require_confirmation(oid, text, text, text, text) IS
	'error unless an action of a migration on a production organisation is confirmed by the organisation''s name';

-- _confirm_start: a start is asked about when it is the first against the
-- organisation, when many loaded rows will be written again, or many records
-- deleted. What an earlier run was confirmed for, its resumption is too.
CREATE FUNCTION dvmig._confirm_start(caller oid, run bigint, confirm text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	h dvmig.run_history;
	call text;
	n bigint;
	-- no row type: that would lock the table for every start
	o record;
BEGIN
	SELECT r.* INTO STRICT h FROM dvmig.run_history r WHERE r.run = $2;
	IF confirm IS NULL AND NOT dvmig._is_production(h.server) THEN
		RETURN;
	END IF;
	SELECT p.* INTO o FROM dvmig.organisation p WHERE p.server = h.server;
	call := format('SELECT dvmig.start(%L, %s%%s), or the same with CALL dvmig.run()', replace(h.migration, '%', '%%'),
		CASE WHEN (h.options ->> 'resend')::bool THEN 'resend => true, ' ELSE '' END);
	IF confirm IS NULL AND h.options ->> 'confirmed' = o.organisation_id::text THEN
		RETURN;
	END IF;
	IF confirm IS NOT NULL OR o.confirmed_at IS NULL THEN
		PERFORM dvmig._require_confirmation(caller, h.migration, 'the first run against a production organisation', confirm, call);
		UPDATE dvmig.organisation p SET confirmed_at = coalesce(p.confirmed_at, clock_timestamp()),
			confirmed_by = coalesce(p.confirmed_by, pg_get_userbyid(caller)) WHERE p.server = h.server;
		UPDATE dvmig.run_history r SET options = r.options || jsonb_build_object('confirmed', o.organisation_id) WHERE r.run = $2;
		RETURN;
	END IF;
	IF (h.options ->> 'resend')::bool THEN
		n := (dvmig._count_resend(run)).total;
		IF n > current_setting('dvmig.max_resend')::int THEN
			PERFORM dvmig._require_confirmation(caller, h.migration, format('writing up to %s loaded records again', n), NULL, call);
		END IF;
	END IF;
	n := dvmig._count_deletes(run);
	IF n > current_setting('dvmig.max_deletes')::int THEN
		PERFORM dvmig._require_confirmation(caller, h.migration, 'deleting more than ' || dvmig._count_of(current_setting('dvmig.max_deletes')::numeric, 'record', 'records'), NULL, call);
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._confirm_start(oid, bigint, text) IS 'ask for a confirmation where a start needs one';

-- _count_deletes: rows that a run will delete, counted no further than needed.
CREATE FUNCTION dvmig._count_deletes(run bigint) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t record;
	most bigint := current_setting('dvmig.max_deletes')::int;
	n bigint := 0;
BEGIN
	FOR t IN SELECT r.staging, m.owner, dvmig._run_filter($1, mt.staging) AS filter
		FROM dvmig.run_table r JOIN dvmig.migration_table mt ON mt.staging::text = r.staging
		JOIN dvmig.migration m USING (migration_id)
		WHERE r.run = $1 AND r.pass = 'delete' LOOP
		n := n + dvmig._query_as(t.owner, format(
			'SELECT count(*) FROM (SELECT FROM %s s WHERE s.processing_flag = ''U'' AND s.action_flag = ''D''%s LIMIT %s) q',
			t.staging, ' AND ' || t.filter, most + 1))::bigint;
	END LOOP;
	RETURN n;
END
$$;
COMMENT ON FUNCTION dvmig._count_deletes(bigint) IS 'rows that a run would delete, up to a little more than dvmig.max_deletes';

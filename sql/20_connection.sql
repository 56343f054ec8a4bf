-- Servers, user mappings, and who answers there.
--
-- A server of the foreign-data wrapper "dataverse" is a Dataverse environment,
-- a user mapping its application users. There is no handler: foreign tables
-- are not made of it.

CREATE FUNCTION dvmig.dataverse_validator(options text[], catalog oid) RETURNS void
LANGUAGE c VOLATILE STRICT
AS 'MODULE_PATHNAME', 'dv_dataverse_validator';
COMMENT ON FUNCTION dvmig.dataverse_validator(text[], oid) IS
	'checks the options of servers and user mappings of foreign-data wrapper dataverse';

CREATE FOREIGN DATA WRAPPER dataverse NO HANDLER VALIDATOR dvmig.dataverse_validator;
COMMENT ON FOREIGN DATA WRAPPER dataverse IS
	'Microsoft Dataverse environments. Server: url, tenant, environment, authority, api_version, ca_file. User mapping: client_id, client_secret, client_secret_file, or client_certificate_file and client_key_file; client_id2, client_secret2 ... for further application users';

CREATE FUNCTION dvmig._service_call(userid oid, server text, method text, path text, body text, OUT status int, OUT answer text)
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_service_call';
COMMENT ON FUNCTION dvmig._service_call(oid, text, text, text, text) IS 'one request of the Web API, with a role''s credentials; status 0 where there was no answer';

-- ---------------------------------------------------------------- the pin

-- _pin: remember the organisation at first use. Two first uses at once are
-- settled by the primary key; the second one must have seen the same.
CREATE FUNCTION dvmig._pin(server text, organisation uuid, caller oid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	pinned uuid;
BEGIN
	INSERT INTO dvmig.organisation AS o (server, organisation_id, pinned_by)
	VALUES (_pin.server, _pin.organisation, pg_get_userbyid(caller))
	ON CONFLICT ON CONSTRAINT organisation_pkey DO NOTHING;
	SELECT o.organisation_id INTO pinned FROM dvmig.organisation o WHERE o.server = _pin.server;
	IF pinned <> organisation THEN
		RAISE EXCEPTION 'another Dataverse organisation answers than the pinned one'
			USING ERRCODE = 'object_not_in_prerequisite_state',
			DETAIL = format('Server "%s" was first used with organisation %s, and is now %s.', server, pinned, organisation),
			HINT = 'If that is intended, the owner of the server calls dvmig.repin().';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._pin(text, uuid, oid) IS 'store the organisation a server is first used with';

CREATE FUNCTION dvmig._present_organisation(caller oid, server text) RETURNS uuid
LANGUAGE c VOLATILE STRICT
AS 'MODULE_PATHNAME', 'dv_present_organisation';
COMMENT ON FUNCTION dvmig._present_organisation(oid, text) IS 'id of the organisation that answers now, whatever is pinned';

-- _repin: what was read from the old organisation is not true of the new one.
CREATE FUNCTION dvmig._repin(caller oid, server text) RETURNS uuid
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	srv_owner oid;
	old_id uuid;
	new_id uuid;
BEGIN
	SELECT s.srvowner INTO srv_owner FROM pg_foreign_server s WHERE s.srvname = server;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'server "%" does not exist', server
			USING ERRCODE = 'undefined_object';
	END IF;
	IF NOT pg_has_role(caller, srv_owner, 'USAGE') THEN
		RAISE EXCEPTION 'must be owner of foreign server %', server
			USING ERRCODE = 'insufficient_privilege';
	END IF;

	new_id := dvmig._present_organisation(caller, server);
	SELECT o.organisation_id INTO old_id FROM dvmig.organisation o WHERE o.server = _repin.server FOR UPDATE;
	INSERT INTO dvmig.organisation AS o (server, organisation_id, pinned_by)
	VALUES (_repin.server, new_id, pg_get_userbyid(caller))
	ON CONFLICT ON CONSTRAINT organisation_pkey DO UPDATE
	SET organisation_id = excluded.organisation_id, unique_name = NULL, pinned_at = now(), pinned_by = excluded.pinned_by,
		confirmed_at = NULL, confirmed_by = NULL;
	IF old_id IS DISTINCT FROM new_id THEN
		DELETE FROM dvmig.reference r WHERE r.server = _repin.server;
		IF EXISTS (SELECT FROM dvmig.metadata_table t WHERE t.server = _repin.server) THEN
			RAISE NOTICE 'metadata of server "%" was read from another organisation', server
				USING HINT = format('Read it again with SELECT * FROM dvmig.refresh_metadata(%L).', server);
		END IF;
	END IF;
	INSERT INTO dvmig.event (role, kind, object, detail)
	VALUES (pg_get_userbyid(caller), 'repin', server, jsonb_build_object('old', old_id, 'new', new_id));
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION dvmig._repin(oid, text) IS 'internal part of dvmig.repin()';

CREATE FUNCTION dvmig.repin(server text) RETURNS uuid
LANGUAGE c VOLATILE STRICT
AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.repin(text) IS
	'pin a server to the organisation that answers now, and return its id; for the owner of the server';

-- ---------------------------------------------------------------- whoami

CREATE FUNCTION dvmig._whoami(caller oid, server text, OUT server_name name, OUT environment text, OUT url text,
	OUT token_expires timestamptz, OUT organisation_id uuid, OUT application_user_id uuid, OUT business_unit_id uuid,
	OUT application_users int, OUT latency_ms numeric, OUT advised_parallelism int, OUT pinned_at timestamptz,
	OUT pinned_by name, OUT organisation_name text)
LANGUAGE c VOLATILE STRICT
AS 'MODULE_PATHNAME', 'dv_whoami';
COMMENT ON FUNCTION dvmig._whoami(oid, text) IS 'internal part of dvmig.whoami()';

CREATE FUNCTION dvmig.whoami(server text)
RETURNS TABLE (server_name name, environment text, url text, token_expires timestamptz, organisation_id uuid,
	application_user_id uuid, business_unit_id uuid, application_users int, latency_ms numeric,
	advised_parallelism int, pinned_at timestamptz, pinned_by name, organisation_name text)
LANGUAGE c VOLATILE STRICT
AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.whoami(text) IS
	'test a connection: who we are there, in which organisation, how long a call takes, how many the service advises to run in parallel; pins the organisation at first use';

-- Who may use dvmig: grant_owner, grant_operator, grant_viewer.

-- _grant_functions: EXECUTE on the public functions of those names that exist.
CREATE FUNCTION dvmig._grant_functions(grantee regrole, names text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	f record;
BEGIN
	EXECUTE format('GRANT USAGE ON SCHEMA dvmig TO %s', grantee);
	FOR f IN SELECT p.oid::regprocedure AS signature FROM pg_proc p
		WHERE p.pronamespace = 'dvmig'::regnamespace AND p.proname = ANY (names)
	LOOP
		EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', f.signature, grantee);
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._grant_functions(regrole, text[]) IS 'let a role use the schema and functions of these names';

-- What watching, running and owning each need, one on top of the other.
CREATE FUNCTION dvmig._grant_viewing(grantee regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	v record;
BEGIN
	PERFORM dvmig._grant_functions(grantee, '{difference_rows,verification_sum_rows,status_rows,progress_rows,top_error_rows,wait,wait_look,report,plan}');
	-- the tables show each role its own migrations, by row security
	EXECUTE format('GRANT SELECT ON dvmig.migration, dvmig.migration_role, dvmig.migration_table, dvmig.column_map, dvmig.run_history, dvmig.run_table, dvmig.run_lane, dvmig.table_pace, dvmig.run_sample, dvmig.verification, dvmig.event, dvmig.setting TO %s', grantee);
	EXECUTE format('GRANT SELECT ON dvmig.metadata_table, dvmig.metadata_column, dvmig.metadata_choice, dvmig.metadata_lookup, dvmig.metadata_key, dvmig.metadata_relationship, dvmig.organisation TO %s', grantee);
	FOR v IN SELECT c.oid::regclass AS name FROM pg_class c
		WHERE c.relnamespace = 'dvmig'::regnamespace AND (c.relkind = 'v' OR c.relkind = 'r' AND c.relname LIKE 'metadata\_%') LOOP
		EXECUTE format('GRANT SELECT ON %s TO %s', v.name, grantee);
	END LOOP;
	PERFORM dvmig._grant_functions(grantee, '{report_text,migration_status_rows,lane_rows,table_rows,outcome_faults}');
	EXECUTE format('GRANT SELECT ON dvmig.kept_report, dvmig.autonumber_seed TO %s', grantee);
END
$$;
COMMENT ON FUNCTION dvmig._grant_viewing(regrole) IS 'what a role needs to watch migrations';

CREATE FUNCTION dvmig._grant_running(grantee regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM dvmig._grant_functions(grantee, '{unmatched_owners,stub_user_list,unmapped_choices}');
	PERFORM dvmig._grant_viewing(grantee);
	PERFORM dvmig._grant_functions(grantee, '{cutover,note_backup,tune}');
	PERFORM dvmig._grant_functions(grantee, '{start,start_if_idle,load_delta,run,stop,resume,pause,retry,check,refresh_references,verify,start_verify,preview,resume_interrupted,set_table,set_migration}');
	PERFORM dvmig._grant_functions(grantee, '{resend}');
END
$$;
COMMENT ON FUNCTION dvmig._grant_running(regrole) IS 'what a role needs to run migrations';

-- _grantee: the role of that name, or an error that says that there is none.
CREATE FUNCTION dvmig._grantee(role text) RETURNS regrole
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	r oid;
BEGIN
	SELECT p.oid INTO r FROM pg_roles p WHERE p.rolname = role;
	IF role IS NULL THEN
		RAISE EXCEPTION 'the role is missing' USING ERRCODE = 'null_value_not_allowed';
	ELSIF r IS NULL THEN
		RAISE EXCEPTION 'role "%" does not exist', role USING ERRCODE = 'undefined_object';
	END IF;
	RETURN r::regrole;
END
$$;
COMMENT ON FUNCTION dvmig._grantee(text) IS 'the role of that name';

CREATE FUNCTION dvmig._grant_owner(caller oid, role text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	grantee regrole := dvmig._grantee(role);
BEGIN
	IF NOT pg_has_role(caller, (SELECT e.extowner FROM pg_extension e WHERE e.extname = 'dvmig'), 'USAGE') THEN
		RAISE EXCEPTION 'permission denied to let a role own migrations'
			USING ERRCODE = 'insufficient_privilege', HINT = 'Only the owner of extension dvmig can.';
	END IF;
	PERFORM dvmig._grant_functions(grantee, '{map_owner,stub_users,mask_name,mask_mail,mask_phone,mask_text,mask_number}');
	EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON dvmig.user_map TO %s', grantee);
	PERFORM dvmig._grant_running(grantee);
	PERFORM dvmig._grant_functions(grantee, '{record_id,create_migration,add_table,map_column,map_choice,map_lookup,set_column,unmap,drop_table,'
		'drop_migration,retarget,adopt,grant_operator,grant_viewer,revoke_access,whoami,refresh_metadata,repin,undo,discard,export}');
	PERFORM dvmig._grant_functions(grantee, '{sign_off,set_autonumber_seed,add_association,map_file,map_party,map_close}');
	PERFORM dvmig._grant_functions(grantee, '{start_undo,release,rebuild_outcomes}');
	-- internal, but part of the SQL that reads the owner's rows with the owner's rights
	PERFORM dvmig._grant_functions(grantee, '{_choice,_choices,_utf16_length,_first_keys}');
	EXECUTE format('GRANT SELECT ON dvmig.reference, dvmig._run_row TO %s', grantee);
	EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON dvmig.choice_map TO %s', grantee);
	PERFORM dvmig._log(caller, NULL, 'grant_owner', role);
	RETURN format('role %s can own migrations; on each server it needs GRANT USAGE ON FOREIGN SERVER and a user mapping', grantee);
END
$$;
COMMENT ON FUNCTION dvmig._grant_owner(oid, text) IS 'internal part of dvmig.grant_owner()';

CREATE FUNCTION dvmig.grant_owner(role text) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.grant_owner(text) IS 'let a role define and own migrations; for the owner of the extension';

-- _grant_access: operator or viewer of one migration, given by its owner.
CREATE FUNCTION dvmig._grant_access(caller oid, role text, migration text, access text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	grantee regrole := dvmig._grantee(role);
	m dvmig.migration := dvmig._migration(caller, migration, 'owner');
BEGIN
	IF access = 'operator' THEN
		PERFORM dvmig._grant_running(grantee);
	ELSE
		PERFORM dvmig._grant_viewing(grantee);
	END IF;
	INSERT INTO dvmig.migration_role (migration_id, role, access) VALUES (m.migration_id, grantee, _grant_access.access)
	ON CONFLICT ON CONSTRAINT migration_role_pkey DO NOTHING;
	PERFORM dvmig._log(caller, m.name, 'grant_' || access, role);
	RETURN format('role %s can %s migration %s', grantee, CASE access WHEN 'operator' THEN 'run and watch' ELSE 'watch' END, m.name);
END
$$;
COMMENT ON FUNCTION dvmig._grant_access(oid, text, text, text) IS 'make a role operator or viewer of a migration';

CREATE FUNCTION dvmig._grant_operator(caller oid, role text, migration text) RETURNS text
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT dvmig._grant_access($1, $2, $3, 'operator') $$;
COMMENT ON FUNCTION dvmig._grant_operator(oid, text, text) IS 'internal part of dvmig.grant_operator()';

CREATE FUNCTION dvmig.grant_operator(role text, migration text) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.grant_operator(text, text) IS
	'let a role start, stop, retry and watch a migration; rows themselves stay under the privileges of the staging tables';

CREATE FUNCTION dvmig._grant_viewer(caller oid, role text, migration text) RETURNS text
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT dvmig._grant_access($1, $2, $3, 'viewer') $$;
COMMENT ON FUNCTION dvmig._grant_viewer(oid, text, text) IS 'internal part of dvmig.grant_viewer()';

CREATE FUNCTION dvmig.grant_viewer(role text, migration text) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.grant_viewer(text, text) IS 'let a role watch a migration';

CREATE FUNCTION dvmig._revoke_access(caller oid, role text, migration text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	grantee regrole := dvmig._grantee(role);
	m dvmig.migration := dvmig._migration(caller, migration, 'owner');
BEGIN
	DELETE FROM dvmig.migration_role r WHERE r.migration_id = m.migration_id AND r.role = grantee;
	PERFORM dvmig._log(caller, m.name, 'revoke_access', role);
	RETURN format('role %s is neither operator nor viewer of migration %s', grantee, m.name);
END
$$;
COMMENT ON FUNCTION dvmig._revoke_access(oid, text, text) IS 'internal part of dvmig.revoke_access()';

CREATE FUNCTION dvmig.revoke_access(role text, migration text) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.revoke_access(text, text) IS 'take back what grant_operator and grant_viewer gave for a migration';

-- Privileges, row security, and what pg_dump takes along.

-- ------------------------------------------------------------- nothing for PUBLIC

REVOKE ALL ON SCHEMA dvmig FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA dvmig FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA dvmig FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA dvmig FROM PUBLIC;

-- ------------------------------------------------------------------ row security
-- Roles that were let in see the migrations they own, run or watch, and write
-- choice_map for those they own. dvmig's functions work as the tables' owner,
-- whom row security does not concern, and check their callers themselves.

ALTER TABLE dvmig.migration ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig.migration FOR SELECT USING (
	pg_catalog.pg_has_role(owner::pg_catalog.oid, 'MEMBER')
	OR EXISTS (SELECT FROM dvmig.migration_role r WHERE r.migration_id OPERATOR(pg_catalog.=) migration.migration_id
		AND pg_catalog.pg_has_role(r.role::pg_catalog.oid, 'MEMBER')));
COMMENT ON POLICY own ON dvmig.migration IS 'migrations that one owns, runs or watches';

ALTER TABLE dvmig.migration_table ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig.migration_table FOR SELECT USING (
	migration_id IN (SELECT m.migration_id FROM dvmig.migration m));
COMMENT ON POLICY own ON dvmig.migration_table IS 'staging tables of migrations that one may see';

ALTER TABLE dvmig.column_map ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig.column_map FOR SELECT USING (
	staging IN (SELECT t.staging FROM dvmig.migration_table t));
COMMENT ON POLICY own ON dvmig.column_map IS 'column maps of migrations that one may see';

ALTER TABLE dvmig.run_history ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig.run_history FOR SELECT USING (
	migration_id IN (SELECT m.migration_id FROM dvmig.migration m) OR started_by OPERATOR(pg_catalog.=) CURRENT_USER);
COMMENT ON POLICY own ON dvmig.run_history IS 'runs of migrations that one may see, and those one started';

ALTER TABLE dvmig.run_lane ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig.run_lane FOR SELECT USING (
	run IN (SELECT h.run FROM dvmig.run_history h));
COMMENT ON POLICY own ON dvmig.run_lane IS 'lanes of runs that one may see';

ALTER TABLE dvmig.table_pace ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig.table_pace FOR SELECT USING (
	server IN (SELECT s.srvname FROM pg_catalog.pg_foreign_server s WHERE pg_catalog.has_server_privilege(s.oid, 'USAGE')));
COMMENT ON POLICY own ON dvmig.table_pace IS 'what was learnt of servers that one may use';

ALTER TABLE dvmig.run_sample ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig.run_sample FOR SELECT USING (
	run IN (SELECT h.run FROM dvmig.run_history h));
COMMENT ON POLICY own ON dvmig.run_sample IS 'samples of runs that one may see';

ALTER TABLE dvmig.run_table ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig.run_table FOR SELECT USING (
	run IN (SELECT h.run FROM dvmig.run_history h));
COMMENT ON POLICY own ON dvmig.run_table IS 'steps of runs that one may see';

ALTER TABLE dvmig.event ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig.event FOR SELECT USING (
	-- a migration of the same name that was dropped before is not this one
	EXISTS (SELECT FROM dvmig.migration m WHERE m.name OPERATOR(pg_catalog.=) event.migration
		AND event.happened_at OPERATOR(pg_catalog.>=) m.created_at)
	OR role OPERATOR(pg_catalog.=) CURRENT_USER);
COMMENT ON POLICY own ON dvmig.event IS 'events of migrations that one may see, and one''s own';

-- Keys of references come from staging rows, and what Dataverse answered is for
-- those who may ask it: who owns a migration that looks up in that table, by a
-- server that he may use. No subquery by row: a run joins this table.
ALTER TABLE dvmig.reference ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig.reference FOR SELECT USING (
	(server, table_name) IN (SELECT m.server, c.referenced_table
		FROM dvmig.migration m JOIN dvmig.migration_table t USING (migration_id) JOIN dvmig.column_map c USING (staging)
		JOIN pg_catalog.pg_foreign_server s ON s.srvname OPERATOR(pg_catalog.=) m.server
		WHERE pg_catalog.pg_has_role(m.owner::pg_catalog.oid, 'MEMBER') AND pg_catalog.has_server_privilege(s.oid, 'USAGE')));
COMMENT ON POLICY own ON dvmig.reference IS 'references of tables that migrations which one owns look up in, on servers that one may use';

-- A hash of a key tells who has the key that it is there.
ALTER TABLE dvmig._run_row ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig._run_row FOR SELECT USING (
	run IN (SELECT h.run FROM dvmig.run_history h));
COMMENT ON POLICY own ON dvmig._run_row IS 'rows of runs that one may see';

-- (Who sees a migration is asked here: this policy cannot ask that one back.)
ALTER TABLE dvmig.migration_role ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig.migration_role FOR SELECT USING (
	pg_catalog.pg_has_role(role::pg_catalog.oid, 'MEMBER'));
COMMENT ON POLICY own ON dvmig.migration_role IS 'what one may do oneself';

ALTER TABLE dvmig.metadata_owner ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig.metadata_owner FOR SELECT USING (
	server IN (SELECT s.srvname FROM pg_catalog.pg_foreign_server s WHERE pg_catalog.has_server_privilege(s.oid, 'USAGE')));
COMMENT ON POLICY own ON dvmig.metadata_owner IS 'owners of servers that one may use';

ALTER TABLE dvmig.choice_map ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig.choice_map USING (
	EXISTS (SELECT FROM dvmig.migration m WHERE m.migration_id OPERATOR(pg_catalog.=) choice_map.migration_id
		AND pg_catalog.pg_has_role(m.owner::pg_catalog.oid, 'MEMBER')));
COMMENT ON POLICY own ON dvmig.choice_map IS 'choices of migrations that one owns';

ALTER TABLE dvmig.kept_report ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig.kept_report FOR SELECT USING (
	migration_id IN (SELECT m.migration_id FROM dvmig.migration m));
COMMENT ON POLICY own ON dvmig.kept_report IS 'reports of migrations that one may see';

ALTER TABLE dvmig.autonumber_seed ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig.autonumber_seed FOR SELECT USING (
	server IN (SELECT m.server FROM dvmig.migration m));
COMMENT ON POLICY own ON dvmig.autonumber_seed IS 'seeds of servers that migrations go to which one may see';

-- -------------------------------------------------------------- dump and restore
-- Where a table or role was dropped meanwhile, its oid would be restored as a
-- bare number and stop the restore; such rows mean nothing and are left behind.

CREATE FUNCTION dvmig._in_dump(migration_id int) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT EXISTS (SELECT FROM dvmig.migration m JOIN pg_roles r ON r.oid = m.owner::oid WHERE m.migration_id = $1)
$$;
COMMENT ON FUNCTION dvmig._in_dump(int) IS 'whether a migration can be restored: its owner exists';

CREATE FUNCTION dvmig._in_dump(staging regclass) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT EXISTS (SELECT FROM dvmig.migration_table t
		JOIN pg_class s ON s.oid = t.staging JOIN pg_class x ON x.oid = t.success_table JOIN pg_class e ON e.oid = t.error_table
		WHERE t.staging = $1 AND dvmig._in_dump(t.migration_id))
$$;
COMMENT ON FUNCTION dvmig._in_dump(regclass) IS 'whether a staging table''s registration can be restored: its tables and its migration''s owner exist';

REVOKE ALL ON FUNCTION dvmig._in_dump(int), dvmig._in_dump(regclass) FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('dvmig.organisation', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.metadata_table', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.metadata_column', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.metadata_choice', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.metadata_lookup', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.metadata_key', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.metadata_relationship', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.metadata_child', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.metadata_privilege', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.metadata_owner', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.kept_namespace', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.migration', 'WHERE dvmig._in_dump(migration_id)');
SELECT pg_catalog.pg_extension_config_dump('dvmig.migration_role',
	'WHERE dvmig._in_dump(migration_id) AND EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = migration_role.role::pg_catalog.oid)');
SELECT pg_catalog.pg_extension_config_dump('dvmig.migration_table', 'WHERE dvmig._in_dump(staging)');
SELECT pg_catalog.pg_extension_config_dump('dvmig.column_map',
	'WHERE dvmig._in_dump(staging) AND (parent IS NULL OR dvmig._in_dump(parent)) AND EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.oid = column_map.result_type)');
SELECT pg_catalog.pg_extension_config_dump('dvmig.adopted', 'WHERE dvmig._in_dump(staging)');
SELECT pg_catalog.pg_extension_config_dump('dvmig.user_map', 'WHERE dvmig._in_dump(migration_id)');
SELECT pg_catalog.pg_extension_config_dump('dvmig._mask_secret', 'WHERE dvmig._in_dump(migration_id)');
SELECT pg_catalog.pg_extension_config_dump('dvmig.choice_map', 'WHERE dvmig._in_dump(migration_id)');
SELECT pg_catalog.pg_extension_config_dump('dvmig.run_history', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.run_table', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.verification', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.run_lane', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.table_pace', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.run_sample', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.event', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.kept_report', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.autonumber_seed', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.migration_migration_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.migration_table_position_seq', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.column_map_position_seq', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.run_history_run_seq', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.event_event_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('dvmig.kept_report_report_id_seq', '');

-- Who may do what: nothing for PUBLIC, owners, operators, viewers, and callers
-- who pretend to be somebody else
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS dvmig;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on
\set SHOW_CONTEXT never

CREATE ROLE regress_dba LOGIN;
CREATE ROLE regress_team;
CREATE ROLE regress_member LOGIN IN ROLE regress_team;
CREATE ROLE regress_other LOGIN;
CREATE ROLE regress_operator LOGIN;
CREATE ROLE regress_viewer LOGIN;
CREATE SERVER regress_priv FOREIGN DATA WRAPPER dataverse
	OPTIONS (url 'https://priv.example', tenant 'priv.example', environment 'test');
INSERT INTO dvmig.metadata_table (server, table_name, entity_set, primary_id) VALUES ('regress_priv', 'account', 'accounts', 'accountid');
INSERT INTO dvmig.metadata_column (server, table_name, column_name, column_type) VALUES
	('regress_priv', 'account', 'accountid', 'Uniqueidentifier'), ('regress_priv', 'account', 'name', 'String'),
	('regress_priv', 'account', 'description', 'Memo'), ('regress_priv', 'account', 'industrycode', 'Picklist');
CREATE SCHEMA staging AUTHORIZATION regress_dba;

-- Nothing is granted to PUBLIC.
SELECT count(*) FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
	WHERE p.pronamespace = 'dvmig'::regnamespace AND a.grantee = 0;
SELECT count(*) FROM pg_class c, aclexplode(c.relacl) a WHERE c.relnamespace = 'dvmig'::regnamespace AND a.grantee = 0;
SELECT count(*) FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'dvmig' AND a.grantee = 0;
-- Every function pins its search_path, or is C; none is SECURITY DEFINER.
SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
	WHERE p.pronamespace = 'dvmig'::regnamespace AND l.lanname <> 'c' AND p.prokind NOT IN ('p', 'a')
	  AND NOT coalesce(p.proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp'];
SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'dvmig'::regnamespace AND p.prosecdef;
-- Every object says what it is.
SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'dvmig'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL;
SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'dvmig'::regnamespace AND c.relkind IN ('r', 'v') AND obj_description(c.oid, 'pg_class') IS NULL;
-- Every public function of ours has its internal part, with the same arguments after the caller.
SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'dvmig'::regnamespace AND p.prosrc = 'dv_call'
	AND NOT EXISTS (SELECT FROM pg_proc i WHERE i.pronamespace = p.pronamespace AND i.proname = '_' || p.proname
		AND i.proargtypes::text = btrim('26 ' || p.proargtypes::text));
-- No parameter or result column bears a reserved word.
SELECT p.oid::regprocedure, n FROM pg_proc p, unnest(p.proargnames) n JOIN pg_get_keywords() k ON k.word = n
	WHERE p.pronamespace = 'dvmig'::regnamespace AND p.proname NOT LIKE '\_%' AND k.catcode IN ('R', 'T');

-- A stranger gets nowhere.
SET ROLE regress_other;
SELECT dvmig.create_migration('m', 'regress_priv');
SELECT * FROM dvmig.migration;
RESET ROLE;

-- An owner is let in by the owner of the extension only.
SET ROLE regress_dba;
SELECT dvmig.grant_owner('regress_dba');
RESET ROLE;
SELECT dvmig.grant_owner('no_such_role');
SELECT dvmig.grant_owner('regress_dba');
SELECT dvmig.grant_owner('regress_other');
SELECT dvmig.grant_owner('regress_team');
SET ROLE regress_other;
SELECT dvmig.grant_owner('regress_viewer');
RESET ROLE;

-- The server's privileges hold.
SET ROLE regress_dba;
SELECT dvmig.create_migration('mine', 'regress_priv');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER regress_priv TO regress_dba, regress_other, regress_team;
SET ROLE regress_dba;
SELECT dvmig.create_migration('mine', 'regress_priv');
CREATE TABLE staging.a (id int PRIMARY KEY, name text, secret text);
INSERT INTO staging.a VALUES (1, 'x', 'row content');
SELECT dvmig.add_table('mine', 'staging.a', 'account');
SELECT tableowner FROM pg_tables WHERE tablename IN ('a_success', 'a_error');
RESET ROLE;
GRANT USAGE ON SCHEMA staging TO regress_other, regress_team, regress_operator, regress_viewer;

-- Another owner neither sees nor changes it, nor takes tables that are not his.
SET ROLE regress_other;
SELECT name FROM dvmig.migration;
SELECT staging FROM dvmig.migration_table;
SELECT target_column FROM dvmig.column_map;
SELECT kind FROM dvmig.event WHERE migration = 'mine';
SELECT dvmig.map_column('staging.a', 'description', 'secret');
SELECT dvmig.unmap('staging.a', 'name');
SELECT dvmig.drop_table('staging.a');
SELECT dvmig.drop_migration('mine');
SELECT dvmig.retarget('mine', 'regress_priv');
SELECT dvmig.grant_viewer('regress_other', 'mine');
SELECT dvmig.create_migration('theirs', 'regress_priv');
SELECT dvmig.add_table('theirs', 'staging.a', 'account');
RESET ROLE;
-- Tables of dvmig are not written directly.
SET ROLE regress_dba;
UPDATE dvmig.migration SET owner = 'regress_dba';
DELETE FROM dvmig.column_map;
INSERT INTO dvmig.event (role, kind) VALUES ('regress_dba', 'forged');
INSERT INTO dvmig.reference (server, table_name, match_on, match_key) VALUES ('regress_priv', 'a', 'b', 'c');
RESET ROLE;

-- Except choice_map, for one's own migrations.
SET ROLE regress_dba;
INSERT INTO dvmig.choice_map (migration_id, target_table, target_column, source_text, target_value)
	SELECT migration_id, 'account', 'industrycode', 'Trade', 1 FROM dvmig.migration WHERE name = 'mine';
UPDATE dvmig.choice_map SET target_value = 2 RETURNING source_text, target_value;
RESET ROLE;
SELECT migration_id AS mine FROM dvmig.migration WHERE name = 'mine' \gset
SET ROLE regress_other;
SELECT count(*) FROM dvmig.choice_map;
UPDATE dvmig.choice_map SET target_value = 3 RETURNING 1;
DELETE FROM dvmig.choice_map RETURNING 1;
INSERT INTO dvmig.choice_map (migration_id, target_table, target_column, source_text, target_value)
	VALUES (:mine, 'account', 'industrycode', 'Other', 1);
INSERT INTO dvmig.choice_map (migration_id, target_table, target_column, source_text, target_value)
	SELECT migration_id, 'account', 'industrycode', 'Trade', 1 FROM dvmig.migration WHERE name = 'theirs' RETURNING source_text;
UPDATE dvmig.choice_map SET migration_id = :mine;
RESET ROLE;

-- Members of an owning group act for it; outcome tables go to the table's owner.
SET ROLE regress_team;
SELECT dvmig.create_migration('team', 'regress_priv');
RESET ROLE;
CREATE SCHEMA team_staging AUTHORIZATION regress_team;
SET SESSION AUTHORIZATION regress_member;
CREATE TABLE team_staging.own (id int PRIMARY KEY, name text);
SELECT dvmig.add_table('team', 'team_staging.own', 'account');
GRANT SELECT, UPDATE ON team_staging.own TO regress_team;
SELECT dvmig.add_table('team', 'team_staging.own', 'account');
RESET SESSION AUTHORIZATION;
SELECT tablename, tableowner, has_table_privilege('regress_team', 'team_staging.' || tablename, 'INSERT, UPDATE, DELETE')
	FROM pg_tables WHERE schemaname = 'team_staging' ORDER BY 1;
-- A superuser defines for an owner: expressions are the owner's.
CREATE TABLE team_staging.given (id int PRIMARY KEY, name text);
ALTER TABLE team_staging.given OWNER TO regress_team;
SELECT dvmig.add_table('team', 'team_staging.given', 'account');
SELECT tablename, tableowner FROM pg_tables WHERE tablename LIKE 'given%' ORDER BY 1;

-- The caller is who calls: not the session's user, not the definer above.
CREATE FUNCTION staging.as_dba(sql text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = staging AS
	$$DECLARE r text; BEGIN EXECUTE sql INTO r; RETURN r; END$$;
ALTER FUNCTION staging.as_dba OWNER TO regress_dba;
SET SESSION AUTHORIZATION regress_other;
SELECT dvmig.map_column('staging.a', 'description', 'name');
SELECT staging.as_dba($$SELECT dvmig.map_column('a', 'description', 'name')$$);
RESET SESSION AUTHORIZATION;
ALTER FUNCTION staging.as_dba OWNER TO regress_other;
SET SESSION AUTHORIZATION regress_dba;
SELECT staging.as_dba($$SELECT dvmig.unmap('a', 'description')$$);
SELECT dvmig.unmap('staging.a', 'description');
RESET SESSION AUTHORIZATION;
-- Also inside a trigger, after an error, and when a call fails within a block.
CREATE FUNCTION staging.trig() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dvmig.drop_table('staging.a');
	RETURN NULL;
EXCEPTION WHEN insufficient_privilege THEN
	RAISE NOTICE '% as %', SQLERRM, current_user;
	RETURN NULL;
END $$;
CREATE TABLE staging.bait (x int);
GRANT INSERT ON staging.bait TO regress_other;
CREATE TRIGGER t BEFORE INSERT ON staging.bait FOR EACH ROW EXECUTE FUNCTION staging.trig();
SET ROLE regress_other;
INSERT INTO staging.bait VALUES (1);
SELECT current_user;
RESET ROLE;
-- What the owner's table brings along does not run with the caller's rights.
CREATE FUNCTION staging.spy(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
	$$BEGIN RAISE NOTICE 'runs as %', current_user; RETURN t; END$$;
SET ROLE regress_dba;
CREATE TABLE staging.trap (k text, name text);
INSERT INTO staging.trap VALUES (NULL, 'a');
CREATE VIEW staging.v AS SELECT 1;
RESET ROLE;
SELECT dvmig.add_table('mine', 'staging.trap', 'account', 'k', filter => $$staging.spy(name) <> ''$$);

-- Operators run, viewers watch, neither defines.
SET ROLE regress_dba;
SELECT dvmig.grant_operator('regress_operator', 'mine');
SELECT dvmig.grant_viewer('regress_viewer', 'mine');
SELECT dvmig.grant_viewer('regress_viewer', 'mine');
RESET ROLE;
SELECT r.rolname, m.name, dvmig._may(r.oid, m.migration_id, 'viewer'), dvmig._may(r.oid, m.migration_id, 'operator'), dvmig._may(r.oid, m.migration_id, 'owner')
	FROM pg_roles r, dvmig.migration m WHERE r.rolname LIKE 'regress%' AND m.name IN ('mine', 'team', 'theirs') ORDER BY 1, 2;
SET ROLE regress_viewer;
SELECT name FROM dvmig.migration;
SELECT target_column FROM dvmig.column_map;
SELECT dvmig.map_column('staging.a', 'description', 'name');
SELECT * FROM dvmig.choice_map;
SELECT * FROM staging.a;
RESET ROLE;
SET ROLE regress_operator;
SELECT name FROM dvmig.migration;
SELECT dvmig.map_column('staging.a', 'description', 'name');
SELECT dvmig.grant_viewer('regress_other', 'mine');
RESET ROLE;
SET ROLE regress_dba;
SELECT dvmig.revoke_access('regress_viewer', 'mine');
RESET ROLE;
SET ROLE regress_viewer;
SELECT name FROM dvmig.migration;
RESET ROLE;

-- An internal function that is not the extension owner's is not run.
CREATE FUNCTION dvmig._regress_foreign(caller oid) RETURNS text LANGUAGE sql AS 'SELECT current_user::text';
CREATE FUNCTION dvmig.regress_foreign() RETURNS text LANGUAGE c AS '$libdir/dvmig', 'dv_call';
SELECT dvmig.regress_foreign() = current_user;
GRANT CREATE ON SCHEMA dvmig TO regress_other;
ALTER FUNCTION dvmig._regress_foreign OWNER TO regress_other;
SELECT dvmig.regress_foreign();
DROP FUNCTION dvmig._regress_foreign;
SELECT dvmig.regress_foreign();
DROP FUNCTION dvmig.regress_foreign;
REVOKE CREATE ON SCHEMA dvmig FROM regress_other;

-- Results of every kind pass through: scalars, nulls, rows, sets, void.
CREATE FUNCTION dvmig._regress_t1(caller oid, x int, y text) RETURNS text LANGUAGE sql AS $$SELECT x || coalesce(y, ' null')$$;
CREATE FUNCTION dvmig.regress_t1(x int, y text DEFAULT 'd') RETURNS text LANGUAGE c AS '$libdir/dvmig', 'dv_call';
CREATE FUNCTION dvmig._regress_t2(caller oid, OUT a int, OUT b text) LANGUAGE sql AS $$SELECT 1, pg_get_userbyid(caller)::text$$;
CREATE FUNCTION dvmig.regress_t2(OUT a int, OUT b text) LANGUAGE c AS '$libdir/dvmig', 'dv_call';
CREATE FUNCTION dvmig._regress_t3(caller oid, n int) RETURNS TABLE (i int, t text) LANGUAGE sql AS $$SELECT g, repeat('x', g) FROM generate_series(1, n) g$$;
CREATE FUNCTION dvmig.regress_t3(n int) RETURNS TABLE (i int, t text) LANGUAGE c AS '$libdir/dvmig', 'dv_call';
CREATE FUNCTION dvmig._regress_t4(caller oid, n int) RETURNS SETOF int LANGUAGE sql AS $$SELECT g FROM generate_series(1, n) g$$;
CREATE FUNCTION dvmig.regress_t4(n int) RETURNS SETOF int LANGUAGE c AS '$libdir/dvmig', 'dv_call';
CREATE FUNCTION dvmig._regress_t5(caller oid) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION dvmig.regress_t5() RETURNS void LANGUAGE c AS '$libdir/dvmig', 'dv_call';
CREATE FUNCTION dvmig._regress_t6(caller oid) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'DV001'; END$$;
CREATE FUNCTION dvmig.regress_t6() RETURNS text LANGUAGE c AS '$libdir/dvmig', 'dv_call';
SELECT dvmig.regress_t1(1), dvmig.regress_t1(1, NULL), dvmig.regress_t1(NULL) IS NULL;
SELECT a, b = current_user FROM dvmig.regress_t2();
SELECT (dvmig.regress_t2()).a;
SELECT * FROM dvmig.regress_t3(3);
SELECT count(*), sum(length(t)) FROM dvmig.regress_t3(1000);
SELECT * FROM dvmig.regress_t3(0);
SELECT dvmig.regress_t3(2);
SELECT dvmig.regress_t4(3);
SELECT sum(x) FROM dvmig.regress_t4(10) x;
SELECT dvmig.regress_t5();
SELECT g, dvmig.regress_t1(g) FROM generate_series(1, 3) g;
\set VERBOSITY sqlstate
SELECT dvmig.regress_t6();
\set VERBOSITY default
DO $$ BEGIN PERFORM dvmig.regress_t6(); EXCEPTION WHEN SQLSTATE 'DV001' THEN RAISE NOTICE 'caught as %', current_user; END $$;
DROP FUNCTION dvmig.regress_t1, dvmig._regress_t1, dvmig.regress_t2, dvmig._regress_t2, dvmig.regress_t3, dvmig._regress_t3,
	dvmig.regress_t4, dvmig._regress_t4, dvmig.regress_t5, dvmig._regress_t5, dvmig.regress_t6, dvmig._regress_t6;

SET client_min_messages = warning;
SELECT dvmig.drop_migration(m) FROM unnest('{mine,theirs,team}'::text[]) m;
DELETE FROM dvmig.event;
DELETE FROM dvmig.kept_namespace;
DELETE FROM dvmig.metadata_table WHERE server = 'regress_priv';
DROP SCHEMA staging, team_staging CASCADE;
DROP SERVER regress_priv CASCADE;
DROP OWNED BY regress_dba, regress_team, regress_member, regress_other, regress_operator, regress_viewer;
DROP ROLE regress_dba, regress_team, regress_member, regress_other, regress_operator, regress_viewer;

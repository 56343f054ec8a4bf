-- Attacks by those who were let in, and on those who look at what others own.
-- What needs a service to answer is in test/t/security.pl.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS dvmig;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on
\set SHOW_CONTEXT never

CREATE ROLE regress_mallory LOGIN;
CREATE ROLE regress_alice LOGIN;
CREATE ROLE regress_operator LOGIN;
CREATE ROLE regress_viewer LOGIN;
CREATE SERVER regress_attack FOREIGN DATA WRAPPER dataverse
	OPTIONS (url 'https://attack.example', tenant 'attack.example', environment 'test');
CREATE SERVER regress_apart FOREIGN DATA WRAPPER dataverse
	OPTIONS (url 'https://apart.example', tenant 'attack.example', environment 'test');
INSERT INTO dvmig.metadata_table (server, table_name, entity_set, primary_id) VALUES ('regress_attack', 'account', 'accounts', 'accountid');
INSERT INTO dvmig.metadata_column (server, table_name, column_name, column_type) VALUES
	('regress_attack', 'account', 'accountid', 'Uniqueidentifier'), ('regress_attack', 'account', 'name', 'String'),
	('regress_attack', 'account', 'description', 'Memo'), ('regress_attack', 'account', 'industrycode', 'Picklist'),
	('regress_attack', 'account', 'parentaccountid', 'Lookup');
UPDATE dvmig.metadata_column SET max_length = 160 WHERE server = 'regress_attack' AND column_name = 'name';
INSERT INTO dvmig.metadata_lookup VALUES ('regress_attack', 'account', 'parentaccountid', 'account', 'parentaccountid');
SELECT current_database() AS db \gset
SELECT dvmig.grant_owner(r) IS NOT NULL FROM unnest('{regress_mallory,regress_alice}'::text[]) r;
GRANT USAGE ON FOREIGN SERVER regress_attack TO regress_mallory, regress_alice;
GRANT CREATE ON DATABASE :"db" TO regress_mallory;
CREATE SCHEMA evil AUTHORIZATION regress_mallory;
GRANT ALL ON SCHEMA evil TO PUBLIC;

-- ------------------------------------------------ operators of a caller's path
SET SESSION AUTHORIZATION regress_mallory;
CREATE TABLE evil.loot (what text, who name);
GRANT INSERT ON evil.loot TO PUBLIC;
CREATE FUNCTION evil.eq(text, text) RETURNS bool LANGUAGE plpgsql AS
	$$BEGIN INSERT INTO evil.loot VALUES ('operator', current_user); RETURN $1 OPERATOR(pg_catalog.=) $2; END$$;
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq);
CREATE FUNCTION evil.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS
	$$BEGIN INSERT INTO evil.loot VALUES ('function', current_user); RETURN ''; END$$;
CREATE TABLE evil.t (id int PRIMARY KEY, name text, v text);
INSERT INTO evil.t VALUES (1, 'one', 'a'), (2, 'two', 'b');
SET search_path = evil, pg_catalog;
SELECT dvmig.create_migration('bait', 'regress_attack');
SELECT dvmig.add_table('bait', 't', 'account', namespace => '11111111-1111-4111-8111-111111111111') IS NOT NULL;
SELECT staging, staged, unprocessed FROM dvmig.status;
SELECT count(*) FROM dvmig.preview('t');
SELECT count(*) FROM dvmig.plan('bait');
RESET search_path;
RESET SESSION AUTHORIZATION;
SELECT DISTINCT * FROM evil.loot;

-- A name is what it says also where a caller has everything quoted, or nothing escaped.
SET SESSION AUTHORIZATION regress_mallory;
SET quote_all_identifiers = on;
SET standard_conforming_strings = off;
SELECT staging, staged FROM dvmig.status;
SELECT dvmig.map_column('evil.t', 'description', $$v || '\'$$);
RESET quote_all_identifiers;
RESET standard_conforming_strings;
SELECT expression_sql FROM dvmig.column_map WHERE target_column = 'description';
SELECT request FROM dvmig.preview('evil.t', 1);
SELECT dvmig.unmap('evil.t', 'description');

-- ------------------------------------------------------------ hostile expressions
\set VERBOSITY terse
SELECT dvmig.map_column('evil.t', 'description', '1 FROM pg_authid --');
SELECT dvmig.map_column('evil.t', 'description', 'v) FROM pg_authid; DROP TABLE x; --');
SELECT dvmig.map_column('evil.t', 'description', 'v; DROP TABLE x');
SELECT dvmig.map_column('evil.t', 'description', 'v UNION SELECT rolpassword FROM pg_authid');
SELECT dvmig.map_column('evil.t', 'description', 'v INTO x');
CREATE FUNCTION pg_temp.f(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
SELECT dvmig.map_column('evil.t', 'description', 'pg_temp.f(v)');
SELECT dvmig.map_column('evil.t', 'description', '(SELECT pg_temp.f(s.v))');
SELECT dvmig.map_column('evil.t', 'description', '(SELECT max(rolpassword) FROM pg_authid)');
SELECT dvmig.preview('evil.t');
SELECT dvmig.unmap('evil.t', 'description');
SELECT dvmig.map_column('evil.t', 'description', 'dvmig._run_as(10, ''ALTER ROLE regress_mallory SUPERUSER'', false)::text');
SELECT dvmig.preview('evil.t');
SELECT dvmig.unmap('evil.t', 'description');
RESET SESSION AUTHORIZATION;
-- What an expression sets is gone with the preview of whoever looks.
SELECT dvmig.map_column('evil.t', 'description', 'set_config(''search_path'', ''evil, pg_catalog'', false) || set_config(''role'', ''none'', false)');
SELECT dvmig.unmap('evil.t', 'description');
SELECT dvmig.map_column('evil.t', 'description', 'set_config(''search_path'', ''evil, pg_catalog'', false)');
SELECT count(*) FROM dvmig.preview('evil.t');
SHOW search_path;
SELECT dvmig.unmap('evil.t', 'description');
DROP FUNCTION pg_temp.f;

-- --------------------------------------- casts, triggers and rows of a hostile table
SET SESSION AUTHORIZATION regress_mallory;
CREATE TYPE evil.bait AS (t text);
CREATE FUNCTION evil.bite(evil.bait) RETURNS text LANGUAGE plpgsql AS
	$$BEGIN INSERT INTO evil.loot VALUES ('cast', current_user); RETURN ($1).t; END$$;
CREATE FUNCTION evil.bite_json(evil.bait) RETURNS json LANGUAGE plpgsql AS
	$$BEGIN INSERT INTO evil.loot VALUES ('json', current_user); RETURN '1'; END$$;
CREATE CAST (evil.bait AS text) WITH FUNCTION evil.bite(evil.bait) AS IMPLICIT;
CREATE CAST (evil.bait AS json) WITH FUNCTION evil.bite_json(evil.bait);
CREATE FUNCTION evil.trig() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN INSERT INTO evil.loot VALUES ('trigger', current_user); RETURN NEW; END$$;
UPDATE evil.t SET processing_flag = 'E';
INSERT INTO evil.t_error (id, error_class, code, message) VALUES (1, 'c', 'x', 'about a row'), (2, 'd', 'y', 'about a row');
CREATE TRIGGER t BEFORE UPDATE ON evil.t FOR EACH ROW EXECUTE FUNCTION evil.trig();
ALTER TABLE evil.t_error ALTER message TYPE evil.bait USING row(message)::evil.bait, ALTER error_class TYPE evil.bait USING row(error_class)::evil.bait;
RESET SESSION AUTHORIZATION;
SELECT staging, message, failed_rows FROM dvmig.top_errors;
SELECT dvmig.retry('evil.t', filter => 'true');
SELECT dvmig.retry('evil.t');
SELECT DISTINCT * FROM evil.loot ORDER BY 1;
TRUNCATE evil.loot;
-- Flag columns that are no longer what they were.
SET SESSION AUTHORIZATION regress_mallory;
ALTER TABLE evil.t_error ALTER message TYPE text USING (message).t, ALTER error_class TYPE text USING (error_class).t;
UPDATE evil.t SET processing_flag = 'E';
DELETE FROM evil.loot;
ALTER TABLE evil.t DROP CONSTRAINT dvmig_processing_flag, ALTER processing_flag DROP DEFAULT, ALTER processing_flag TYPE evil.bait USING row(processing_flag)::evil.bait;
RESET SESSION AUTHORIZATION;
SELECT dvmig.retry('evil.t', filter => 'true');
SELECT staging, staged, failed, next_step FROM dvmig.status;
SELECT DISTINCT * FROM evil.loot ORDER BY 1;
SET SESSION AUTHORIZATION regress_mallory;
ALTER TABLE evil.t ALTER processing_flag TYPE char(1) USING (processing_flag).t;
DROP TRIGGER t ON evil.t;

-- --------------------------------------------------------- what filters may do
SELECT dvmig.grant_operator('regress_operator', 'bait'), dvmig.grant_viewer('regress_viewer', 'bait');
SET SESSION AUTHORIZATION regress_operator;
SELECT dvmig.retry('evil.t', filter => 's.id = 1');
SELECT dvmig.retry('evil.t');
SET SESSION AUTHORIZATION regress_mallory;
UPDATE evil.t SET processing_flag = 'E';
GRANT SELECT ON evil.t, evil.t_error TO regress_operator, regress_viewer;
SET SESSION AUTHORIZATION regress_operator;
SELECT dvmig.retry('evil.t', filter => 's.id = 1 AND e.code = ''x'' -- the first');
SELECT dvmig.retry('evil.t', filter => 'current_user = ''regress_operator''');
SET SESSION AUTHORIZATION regress_mallory;
UPDATE evil.t SET processing_flag = 'E';
SET SESSION AUTHORIZATION regress_operator;
SELECT dvmig.retry('evil.t', filter => 'true); DELETE FROM evil.t; SELECT (1');
SELECT dvmig.retry('evil.t', filter => '1 FROM pg_authid --');
SELECT dvmig.retry('evil.t', filter => 'true) UNION SELECT (rolname');
SELECT dvmig.retry('evil.t', filter => 'true, true');
SELECT dvmig.retry('evil.t', filter => '(SELECT count(*) FROM pg_authid) > 0');
SELECT dvmig.retry('evil.t', filter => '(SELECT count(*) FROM dvmig.choice_map) > 0');
SELECT dvmig.retry('evil.t', filter => 'dvmig._run_as(10, ''ALTER ROLE regress_operator SUPERUSER'', false) > 0');
SELECT dvmig.retry('evil.t', filter => 'set_config(''role'', ''regress_mallory'', false) <> ''''');
SELECT dvmig.retry('evil.t', filter => 'set_config(''search_path'', ''evil'', false) <> ''''');
SHOW search_path;
SELECT current_user, session_user;
SELECT dvmig.start('bait', '{"evil.t; DROP TABLE x"}');
SELECT dvmig.start('bait', '{pg_authid}');

-- Row-level security hides all rows from those whom it hides any from.
SET SESSION AUTHORIZATION regress_mallory;
CREATE FUNCTION evil.policy() RETURNS bool LANGUAGE plpgsql AS
	$$BEGIN INSERT INTO evil.loot VALUES ('policy', current_user); RETURN true; END$$;
ALTER TABLE evil.t ENABLE ROW LEVEL SECURITY;
ALTER TABLE evil.t_error ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON evil.t USING (evil.policy());
CREATE POLICY p ON evil.t_error USING (evil.policy());
UPDATE evil.t SET processing_flag = 'E';
SELECT count(*) FROM dvmig.top_errors;
SET SESSION AUTHORIZATION regress_operator;
SELECT count(*) FROM dvmig.top_errors;
SELECT dvmig.retry('evil.t', filter => 'true');
SELECT dvmig.preview('evil.t');
SELECT failed FROM dvmig.status;
SET SESSION AUTHORIZATION regress_mallory;
UPDATE evil.t SET processing_flag = 'U', name = repeat('x', 500);
SET SESSION AUTHORIZATION regress_operator;
SELECT DISTINCT sample_keys FROM dvmig.check('bait') WHERE staging = 'evil.t';
RESET SESSION AUTHORIZATION;
SELECT DISTINCT * FROM evil.loot;
ALTER TABLE evil.t DISABLE ROW LEVEL SECURITY;
ALTER TABLE evil.t_error DISABLE ROW LEVEL SECURITY;

-- ------------------------------------------------------- errors that quote rows
SET SESSION AUTHORIZATION regress_mallory;
CREATE TABLE evil.f (id int PRIMARY KEY, name text, v text);
INSERT INTO evil.f VALUES (1, 'x', 'ROW CONTENT');
SELECT dvmig.add_table('bait', 'evil.f', 'account', filter => 'v::int > 0') IS NOT NULL;
SET SESSION AUTHORIZATION regress_viewer;
SELECT staging, staged, unprocessed, left_out, next_step FROM dvmig.status;
SELECT * FROM dvmig.plan('bait');
SET SESSION AUTHORIZATION regress_mallory;
SELECT dvmig.drop_table('evil.f');
CREATE FUNCTION evil.raises(v text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS
	$$BEGIN RAISE EXCEPTION 'about %', v USING ERRCODE = '42501', DETAIL = v, HINT = v; END$$;
SELECT dvmig.add_table('bait', 'evil.f', 'account', filter => 'evil.raises(v)') IS NOT NULL;
SET SESSION AUTHORIZATION regress_viewer;
\set VERBOSITY default
SELECT * FROM dvmig.plan('bait');
\set VERBOSITY terse
SELECT staging, next_step FROM dvmig.status WHERE staging = 'evil.f';
SET SESSION AUTHORIZATION regress_mallory;
SELECT dvmig.drop_table('evil.f');

-- -------------------------------------------------------- what others left behind
SET SESSION AUTHORIZATION regress_mallory;
SELECT dvmig.create_migration('name', 'regress_attack');
RESET SESSION AUTHORIZATION;
INSERT INTO dvmig.run_history (migration_id, migration, server, state, started_by)
	SELECT migration_id, name, server, 'completed', 'regress_mallory' FROM dvmig.migration WHERE name = 'name' RETURNING run AS old_run \gset
SET SESSION AUTHORIZATION regress_mallory;
SELECT dvmig.drop_migration('name');
SET SESSION AUTHORIZATION regress_alice;
SELECT dvmig.create_migration('name', 'regress_attack');
\set VERBOSITY sqlstate
SELECT dvmig.wait_look(:old_run);
SELECT dvmig.resume(:old_run);
\set VERBOSITY terse
SELECT run FROM dvmig.run_history;
SELECT role, kind FROM dvmig.event WHERE migration = 'name';
RESET SESSION AUTHORIZATION;
-- References are for those whose migrations look up there (see security.pl).
INSERT INTO dvmig.reference (server, table_name, match_on, match_key) VALUES
	('regress_attack', 'systemuser', 'mail', 'a@example'), ('regress_apart', 'systemuser', 'mail', 'b@example'), ('dropped', 'systemuser', 'mail', 'c@example');
SET SESSION AUTHORIZATION regress_alice;
SELECT match_key FROM dvmig.reference;
SET SESSION AUTHORIZATION regress_viewer;
SELECT match_key FROM dvmig.reference;

-- ------------------------------------------------------------- names with everything
SET SESSION AUTHORIZATION regress_mallory;
SELECT dvmig.create_migration($$it's "odd"; DROP TABLE x; -- %s %I \$$, 'regress_attack');
CREATE SCHEMA "s;ch.e'ma ""q"" %s";
CREATE TABLE "s;ch.e'ma ""q"" %s"."t;a.b'l""e %I $1" ("k;e.y'"" %" int, "na'm""e \" text, PRIMARY KEY ("k;e.y'"" %"));
INSERT INTO "s;ch.e'ma ""q"" %s"."t;a.b'l""e %I $1" VALUES (1, E'a "text" with ''quotes'', \\ and %s');
SELECT $$"s;ch.e'ma ""q"" %s"."t;a.b'l""e %I $1"$$ AS odd \gset
SELECT dvmig.add_table($$it's "odd"; DROP TABLE x; -- %s %I \$$, :'odd', 'account', filter => $$"na'm""e \" <> 'x'';y'$$, success_table => '"su;c''c"', namespace => '22222222-2222-4222-8222-222222222222') IS NOT NULL;
SELECT dvmig.map_column(:'odd', 'name', $$"na'm""e \"$$);
INSERT INTO dvmig.choice_map (migration_id, target_table, target_column, source_text, target_value)
	SELECT migration_id, 'account', 'industrycode', $$x'"; \ %s $1$$, 7 FROM dvmig.migration WHERE name LIKE 'it%';
SELECT dvmig.map_choice(:'odd', 'industrycode', $$'x''"; \ %s $1'$$);
SELECT dvmig.map_lookup(:'odd', 'parentaccountid', $$"k;e.y'"" %"$$, :'odd');
SELECT source_key, request, remark FROM dvmig.preview(:'odd');
SELECT staging, staged, unprocessed FROM dvmig.status WHERE migration LIKE 'it%';
SELECT staging, creates FROM dvmig.plan($$it's "odd"; DROP TABLE x; -- %s %I \$$);
UPDATE "s;ch.e'ma ""q"" %s"."t;a.b'l""e %I $1" SET processing_flag = 'E';
INSERT INTO "s;ch.e'ma ""q"" %s"."t;a.b'l""e %I $1_error" ("k;e.y'"" %", error_class, message) VALUES (1, $$c'";$$, $$m'";\$$);
SELECT staging, error_class, message, sample_key FROM dvmig.top_errors WHERE migration LIKE 'it%';
SELECT dvmig.retry(:'odd', $$s."k;e.y'"" %" = 1 AND e.message = 'm''";\'$$);
SELECT dvmig.drop_migration($$it's "odd"; DROP TABLE x; -- %s %I \$$, true);
DROP SCHEMA "s;ch.e'ma ""q"" %s" CASCADE;

-- ----------------------------------------------- helpers that owners may call, misused
SELECT j, dvmig._choice('a', j) FROM unnest('{null,1,"\"x\"","[]","{}","[1,2]","{\"=a\": \"str\"}","{\"=a\": null}","{\"=a\": [1]}","{\"=a\": -1.5}","{\"=a\": {\"x\": 1}}","{\"~a\": 3}"}'::jsonb[]) j;
SELECT dvmig._choice('a', '{"=a": 1e30}');
SELECT dvmig._first_keys(x, 'l', n) FROM (VALUES (ARRAY[1, 2], 1), (ARRAY[0], 5)) v(x, n);
SELECT dvmig._first_keys(point(1, 2), 'l', 3);
SELECT dvmig._first_keys(g, NULL, -3) FROM generate_series(1, 3) g;
SELECT dvmig._run_as(10, 'SELECT 1'), dvmig._query_as(10, 'SELECT 1');
SELECT dvmig._launch(1, 10);
SELECT dvmig._start_run(10, 'bait', '{}');
SET dvmig.allowed_hosts = '';
RESET SESSION AUTHORIZATION;

SET client_min_messages = warning;
SELECT dvmig.drop_migration(m) FROM unnest('{bait,name}'::text[]) m;
DELETE FROM dvmig.event;
DELETE FROM dvmig.kept_namespace;
DELETE FROM dvmig.run_history;
DELETE FROM dvmig.reference;
DELETE FROM dvmig.metadata_table WHERE server = 'regress_attack';
DROP SCHEMA evil CASCADE;
DROP SERVER regress_attack CASCADE;
DROP SERVER regress_apart CASCADE;
DROP OWNED BY regress_mallory, regress_alice, regress_operator, regress_viewer;
DROP ROLE regress_mallory, regress_alice, regress_operator, regress_viewer;

-- Settings of a migration and of a staging table, changed afterwards.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS dvmig;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on
\set SHOW_CONTEXT never

CREATE SERVER regress_set FOREIGN DATA WRAPPER dataverse
	OPTIONS (url 'https://set.example', tenant 'set.example', environment 'test');
INSERT INTO dvmig.metadata_table (server, table_name, entity_set, primary_id) VALUES
	('regress_set', 'account', 'accounts', 'accountid');
INSERT INTO dvmig.metadata_column (server, table_name, column_name, column_type) VALUES
	('regress_set', 'account', 'accountid', 'Uniqueidentifier'),
	('regress_set', 'account', 'name', 'String'),
	('regress_set', 'account', 'accountnumber', 'String'),
	('regress_set', 'account', 'new_code', 'String');
CREATE SCHEMA setting_test;
CREATE TABLE setting_test.customers (id int PRIMARY KEY, name text, code text);
SELECT dvmig.create_migration('set', 'regress_set');
SELECT dvmig.add_table('set', 'setting_test.customers', 'account', target_key => 'accountnumber');

-- a migration's
SELECT dvmig.set_migration('set', 'gate', '12.5');
SELECT dvmig.set_migration('set', 'gate', '12.5');
SELECT dvmig.set_migration('set', 'gate', NULL);
SELECT dvmig.set_migration('set', 'gate', '101');
SELECT dvmig.set_migration('set', 'gate', 'NaN');
SELECT dvmig.set_migration('set', 'gate', 'often');
-- one that does not exist: the hint names those there are
CREATE FUNCTION pg_temp.refused(command text, lists text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	told text;
BEGIN
	EXECUTE command;
	RETURN 'not refused';
EXCEPTION WHEN undefined_object THEN
	GET STACKED DIAGNOSTICS told = PG_EXCEPTION_HINT;
	RETURN format('%s (hint lists it: %s)', SQLERRM, told ~ ('Settings are: .*\m' || lists || '\M'));
END $$;
SELECT pg_temp.refused($$SELECT dvmig.set_migration('set', 'gat', '1')$$, 'gate');
SELECT pg_temp.refused($$SELECT dvmig.set_migration('set', 'server', 'other')$$, 'gate');
SELECT pg_temp.refused($$SELECT dvmig.set_migration('set', NULL, '1')$$, 'gate');
SELECT pg_temp.refused($$SELECT dvmig.set_table('setting_test.customers', 'source_key', 'name')$$, 'on_exists');
SELECT dvmig.set_migration('sett', 'gate', '1');

-- a table's
SELECT dvmig.set_table('setting_test.customers', 'on_exists', 'Keep');
SELECT dvmig.set_table('setting_test.customers', 'on_exists', 'overwrite');
SELECT dvmig.set_table('setting_test.customers', 'on_exists', NULL);
SELECT dvmig.set_table('setting_test.customers', 'filter_reason', 'closed long ago');
SELECT dvmig.set_table('setting_test.customers', 'filter', 'id > 1');
SELECT dvmig.set_table('setting_test.customers', 'filter_reason', 'closed long ago');
SELECT dvmig.set_table('setting_test.customers', 'filter', 'name');
SELECT dvmig.set_table('setting_test.customers', 'filter', 'nosuch = 1');
SELECT filter, filter_sql, filter_reason FROM dvmig.migration_table WHERE staging = 'setting_test.customers'::regclass;
SELECT dvmig.set_table('setting_test.customers', 'filter', NULL);
SELECT filter, filter_sql, filter_reason FROM dvmig.migration_table WHERE staging = 'setting_test.customers'::regclass;
SELECT target_column, expression FROM dvmig.column_map WHERE staging = 'setting_test.customers'::regclass ORDER BY 1;
SELECT dvmig.set_table('setting_test.customers', 'target_key', 'new_code');
SELECT target_column, expression FROM dvmig.column_map WHERE staging = 'setting_test.customers'::regclass ORDER BY 1;
SELECT dvmig.set_table('setting_test.customers', 'target_key', 'nosuch');
SELECT dvmig.set_table('setting_test.customers', 'target_key', NULL);
SELECT target_column, expression FROM dvmig.column_map WHERE staging = 'setting_test.customers'::regclass ORDER BY 1;
SELECT dvmig.set_table('pg_class', 'filter', 'true');
SELECT dvmig.set_table(NULL, 'filter', 'true');

-- what was changed is told, from and to
SELECT kind, object, detail FROM dvmig.event WHERE migration = 'set' AND kind LIKE 'set%' ORDER BY event_id;

-- every setting is a column of that name, so that both say the same
SELECT s.applies_to, s.name FROM dvmig.setting s
WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attname = CASE s.name WHEN 'caller' THEN 'caller_id' ELSE s.name END AND NOT a.attisdropped
	AND a.attrelid = CASE s.applies_to WHEN 'migration' THEN 'dvmig.migration' WHEN 'table' THEN 'dvmig.migration_table' ELSE 'dvmig.column_map' END::regclass);

-- by its owner only, unless the setting says otherwise
CREATE ROLE regress_set_operator;
SELECT dvmig.grant_operator('regress_set_operator', 'set');
GRANT USAGE ON SCHEMA setting_test TO regress_set_operator;
SET ROLE regress_set_operator;
SELECT dvmig.set_migration('set', 'gate', '1');
SELECT dvmig.set_table('setting_test.customers', 'on_exists', 'keep');
RESET ROLE;
UPDATE dvmig.setting SET access = 'operator' WHERE name = 'on_exists';
SET ROLE regress_set_operator;
SELECT dvmig.set_table('setting_test.customers', 'on_exists', 'keep');
RESET ROLE;
UPDATE dvmig.setting SET access = 'owner' WHERE name = 'on_exists';

-- not while a run is in progress, where that would disturb it
INSERT INTO dvmig.run_history (run, migration_id, migration, server, state, started_by)
SELECT 999999, migration_id, name, server, 'starting', 'me' FROM dvmig.migration WHERE name = 'set';
SELECT dvmig.set_table('setting_test.customers', 'on_exists', NULL);
SELECT dvmig.set_migration('set', 'gate', '7');

SET client_min_messages = warning;
DROP SCHEMA setting_test CASCADE;
DELETE FROM dvmig.run_history WHERE run = 999999;
DELETE FROM dvmig.migration WHERE name = 'set';
DELETE FROM dvmig.event WHERE migration = 'set';
DELETE FROM dvmig.metadata_table WHERE server = 'regress_set';
DROP SERVER regress_set;
DROP OWNED BY regress_set_operator;
DROP ROLE regress_set_operator;

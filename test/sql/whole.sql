-- A migration of all kinds of tables from its definition to its undo, by one
-- session: the least that has a process of every kind do what there is to do.
-- test/check has this done under memcheck, too, where connections are dear.
-- Needs the simulator, of which test/check tells by settings.
SELECT current_setting('dvsim.url', true) IS NULL AS alone \gset
\if :alone
\quit
\endif
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS dvmig;
CREATE SCHEMA whole;
SET search_path = whole;
DO $$ BEGIN
	EXECUTE format('CREATE SERVER whole_sim FOREIGN DATA WRAPPER dataverse OPTIONS (url %L, authority %1$L, tenant %L, environment ''test'')',
		current_setting('dvsim.url'), current_setting('dvsim.tenant'));
	EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER whole_sim OPTIONS (client_id %L, client_secret %L)',
		current_setting('dvsim.client_id'), current_setting('dvsim.client_secret'));
END $$;
CREATE TABLE firm (id int PRIMARY KEY, name text, branch text, worth numeric, parent int, owner text);
CREATE TABLE person (id int PRIMARY KEY, family text, firm int);
CREATE TABLE region (id int PRIMARY KEY, name text, state text);
CREATE TABLE paper (id int PRIMARY KEY, document bytea, file_name text);
CREATE TABLE mail (id int PRIMARY KEY, subject text, reader int);
CREATE TABLE list (id int PRIMARY KEY, name text);
CREATE TABLE track (id int PRIMARY KEY, name text);
CREATE TABLE pair (list int, track int, PRIMARY KEY (list, track));
INSERT INTO firm VALUES (1, 'One', 'Accounting', 1.5, NULL, 'user1@example.org'), (2, 'Two', NULL, 2, 1, NULL);
INSERT INTO person VALUES (1, 'First', 2), (2, 'Second', NULL);
INSERT INTO region VALUES (1, 'North', 'Inactive');
INSERT INTO paper VALUES (1, '\x00ff', 'one.bin');
INSERT INTO mail VALUES (1, 'Hello', 2);
INSERT INTO list VALUES (1, 'All');
INSERT INTO track VALUES (1, 'Song');
INSERT INTO pair VALUES (1, 1);

DO $$ BEGIN
	PERFORM dvmig.refresh_metadata('whole_sim', '{account,contact,new_region,new_invoice,email,new_playlist,new_track,systemuser}');
	PERFORM dvmig.create_migration('whole', 'whole_sim');
	PERFORM dvmig.add_table('whole', 'firm', 'account', auto_map => false);
	PERFORM dvmig.map_column('firm', 'name', 'name');
	PERFORM dvmig.map_column('firm', 'revenue', 'round(worth, 2)');
	PERFORM dvmig.map_choice('firm', 'industrycode', 'branch');
	PERFORM dvmig.map_lookup('firm', 'parentaccountid', 'parent', 'firm');
	PERFORM dvmig.map_lookup('firm', 'ownerid', 'owner', 'systemuser', match_on => 'internalemailaddress');
	PERFORM dvmig.add_table('whole', 'person', 'contact', auto_map => false);
	PERFORM dvmig.map_column('person', 'lastname', 'family');
	PERFORM dvmig.map_lookup('person', 'parentcustomerid', 'firm', 'firm');
	PERFORM dvmig.add_table('whole', 'region', 'new_region', auto_map => false);
	PERFORM dvmig.map_column('region', 'new_name', 'name');
	PERFORM dvmig.map_choice('region', 'statecode', 'state');
	PERFORM dvmig.add_table('whole', 'paper', 'new_invoice', auto_map => false);
	PERFORM dvmig.map_column('paper', 'new_invoicenumber', 'id');
	PERFORM dvmig.map_file('paper', 'new_document', 'document', 'file_name');
	PERFORM dvmig.add_table('whole', 'mail', 'email', auto_map => false);
	PERFORM dvmig.map_column('mail', 'subject', 'subject');
	PERFORM dvmig.map_party('mail', 'to', 'reader', 'person');
	PERFORM dvmig.add_table('whole', 'list', 'new_playlist', auto_map => false);
	PERFORM dvmig.map_column('list', 'new_name', 'name');
	PERFORM dvmig.add_table('whole', 'track', 'new_track', auto_map => false);
	PERFORM dvmig.map_column('track', 'new_name', 'name');
	PERFORM dvmig.add_association('whole', 'pair', 'new_playlist_new_track', 'list', 'list', 'track', 'track');
END $$;
SELECT referenced_table FROM dvmig.refresh_references('whole');
SELECT staging, rule FROM dvmig.check('whole') WHERE severity <> 'info' ORDER BY 1, 2;
SELECT pass, staging, creates, updates FROM dvmig.plan('whole') ORDER BY step;
SELECT staging, request IS NOT NULL AS request FROM dvmig.migration_table t, dvmig.preview(t.staging, 1) WHERE t.staging::text IN ('region', 'paper') ORDER BY 1;

-- loaded and found equal
CALL dvmig.run('whole', passes => '{write,deferred,links,files,states}');
SELECT staging, result, compared FROM dvmig.verify('whole') ORDER BY 1;

-- changed, deleted, failed and corrected
UPDATE person SET family = repeat('x', 60), processing_flag = 'U' WHERE id = 1;
UPDATE track SET name = 'Tune', processing_flag = 'U';
UPDATE mail SET action_flag = 'D', processing_flag = 'U';
CALL dvmig.run('whole', ignore_gate => true);
SELECT id, error_class, error_column FROM person_error;
UPDATE person SET family = 'Third' WHERE id = 1;
SELECT dvmig.retry('person');

-- sent again, an outcome made again
SELECT sent, equal, failed FROM dvmig.resend('firm', '{name}');
DELETE FROM list_success;
SELECT dvmig.rebuild_outcomes('list');
SELECT dvmig.report_text('whole') ~ 'pair' AS report, dvmig.export('whole') ~ 'map_party' AS script;

-- undone
SELECT staging, created, deleted, failed FROM dvmig.undo((SELECT min(run) FROM dvmig.run_history WHERE migration = 'whole')) ORDER BY 1;
SELECT staging, staged, unprocessed, succeeded, failed, owed, invariant_holds FROM dvmig.status WHERE migration = 'whole' ORDER BY staging::text;
SELECT kind, state, succeeded, failed FROM dvmig.run_history WHERE migration = 'whole' AND kind = 'run' ORDER BY run;
DROP EXTENSION dvmig CASCADE;
DROP SCHEMA whole CASCADE;

-- Defining a migration: staging tables, maps, lookups, changes. No server is
-- contacted: its metadata is put in beforehand.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS dvmig;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on

CREATE SERVER regress_def FOREIGN DATA WRAPPER dataverse
	OPTIONS (url 'https://def.example', tenant 'def.example', environment 'test');
CREATE SERVER regress_def_prod FOREIGN DATA WRAPPER dataverse
	OPTIONS (url 'https://prod.example', tenant 'def.example', environment 'preproduction');
INSERT INTO dvmig.metadata_table (server, table_name, entity_set, primary_id, table_type) VALUES
	('regress_def', 'account', 'accounts', 'accountid', 'Standard'),
	('regress_def', 'contact', 'contacts', 'contactid', 'Standard'),
	('regress_def', 'systemuser', 'systemusers', 'systemuserid', 'Standard'),
	('regress_def', 'team', 'teams', 'teamid', 'Standard'),
	('regress_def', 'new_order', 'new_orders', 'new_orderid', 'Standard'),
	('regress_def', 'new_line', 'new_lines', 'new_lineid', 'Standard'),
	('regress_def', 'new_log', 'new_logs', 'new_logid', 'Elastic');
INSERT INTO dvmig.metadata_column (server, table_name, column_name, column_type, valid_for_create, valid_for_update, date_behavior) VALUES
	('regress_def', 'account', 'accountid', 'Uniqueidentifier', true, false, NULL),
	('regress_def', 'account', 'name', 'String', true, true, NULL),
	('regress_def', 'account', 'accountnumber', 'String', true, true, NULL),
	('regress_def', 'account', 'revenue', 'Money', true, true, NULL),
	('regress_def', 'account', 'numberofemployees', 'Integer', true, true, NULL),
	('regress_def', 'account', 'creditonhold', 'Boolean', true, true, NULL),
	('regress_def', 'account', 'industrycode', 'Picklist', true, true, NULL),
	('regress_def', 'account', 'new_interests', 'MultiSelectPicklist', true, true, NULL),
	('regress_def', 'account', 'statecode', 'State', true, true, NULL),
	('regress_def', 'account', 'statuscode', 'Status', true, true, NULL),
	('regress_def', 'account', 'createdon', 'DateTime', false, false, 'UserLocal'),
	('regress_def', 'account', 'overriddencreatedon', 'DateTime', true, false, 'UserLocal'),
	('regress_def', 'account', 'new_closedfor', 'String', false, true, NULL),
	('regress_def', 'account', 'parentaccountid', 'Lookup', true, true, NULL),
	('regress_def', 'account', 'primarycontactid', 'Lookup', true, true, NULL),
	('regress_def', 'account', 'ownerid', 'Owner', true, true, NULL),
	('regress_def', 'contact', 'contactid', 'Uniqueidentifier', true, false, NULL),
	('regress_def', 'contact', 'lastname', 'String', true, true, NULL),
	('regress_def', 'contact', 'parentcustomerid', 'Customer', true, true, NULL),
	('regress_def', 'systemuser', 'systemuserid', 'Uniqueidentifier', true, false, NULL),
	('regress_def', 'systemuser', 'internalemailaddress', 'String', true, true, NULL),
	('regress_def', 'systemuser', 'employeeid', 'String', true, true, NULL),
	('regress_def', 'systemuser', 'new_salary', 'Money', true, true, NULL),
	('regress_def', 'team', 'teamid', 'Uniqueidentifier', true, false, NULL),
	('regress_def', 'new_order', 'new_orderid', 'Uniqueidentifier', true, false, NULL),
	('regress_def', 'new_order', 'new_code', 'String', true, true, NULL),
	('regress_def', 'new_order', 'new_accountid', 'Lookup', true, true, NULL),
	('regress_def', 'new_line', 'new_lineid', 'Uniqueidentifier', true, false, NULL),
	('regress_def', 'new_line', 'new_orderid', 'Lookup', true, true, NULL);
INSERT INTO dvmig.metadata_lookup VALUES
	('regress_def', 'account', 'parentaccountid', 'account', 'parentaccountid'),
	('regress_def', 'account', 'primarycontactid', 'contact', 'primarycontactid'),
	('regress_def', 'account', 'ownerid', 'systemuser', 'ownerid'),
	('regress_def', 'account', 'ownerid', 'team', 'ownerid'),
	('regress_def', 'contact', 'parentcustomerid', 'account', 'parentcustomerid_account'),
	('regress_def', 'contact', 'parentcustomerid', 'contact', 'parentcustomerid_contact'),
	('regress_def', 'new_order', 'new_accountid', 'account', 'new_AccountId'),
	('regress_def', 'new_line', 'new_orderid', 'new_order', 'new_OrderId');
INSERT INTO dvmig.metadata_key VALUES ('regress_def', 'new_order', 'new_code_key', '{new_code}', 'Active');
INSERT INTO dvmig.metadata_key VALUES ('regress_def', 'account', 'new_pending', '{accountnumber}', 'Pending');

CREATE SCHEMA staging;
CREATE TABLE staging.customers (customer_id int PRIMARY KEY, company_name text, "Name" text, turnover_eur numeric, branch text, staff int,
	parent_id numeric, contact_no text, owner_mail text, on_hold bool, ref uuid, price money);
INSERT INTO staging.customers (customer_id, company_name) SELECT i, 'c' || i FROM generate_series(1, 5) i;
CREATE TABLE staging.people (person_no varchar(10), lastname text, company int, owner int);
INSERT INTO staging.people (person_no, lastname) VALUES ('P1', 'a'), ('P2', 'b');
CREATE TABLE staging.orders (region text NOT NULL, number int NOT NULL, customer int, PRIMARY KEY (number, region));
CREATE TABLE staging.lines (id bigint PRIMARY KEY, order_region text, order_number text);
\set SHOW_CONTEXT never

-- create_migration
SELECT dvmig.create_migration('crm', 'regress_def');
SELECT dvmig.create_migration('crm', 'regress_def');
SELECT dvmig.create_migration('', 'regress_def');
SELECT dvmig.create_migration('x', 'regress_deff');
SELECT dvmig.create_migration('x', NULL);
SELECT dvmig.create_migration('x', 'regress_def', gate => 101);
SELECT dvmig.create_migration('never held', 'regress_def', gate => NULL);
SELECT name, server, gate FROM dvmig.migration ORDER BY name;

-- add_table: what can be a staging table
CREATE VIEW staging.a_view AS SELECT 1 AS id;
CREATE MATERIALIZED VIEW staging.a_matview AS SELECT 1 AS id;
CREATE TEMP TABLE a_temp (id int PRIMARY KEY);
CREATE UNLOGGED TABLE staging.an_unlogged (id int PRIMARY KEY);
CREATE TABLE staging.parted (id int PRIMARY KEY, lastname text) PARTITION BY RANGE (id);
CREATE TABLE staging.parted_1 PARTITION OF staging.parted FOR VALUES FROM (0) TO (100);
CREATE TABLE staging.inherited (id int PRIMARY KEY);
CREATE TABLE staging.heir () INHERITS (staging.inherited);
SELECT dvmig.add_table('crm', 'staging.a_view', 'account', 'id');
SELECT dvmig.add_table('crm', 'staging.a_matview', 'account', 'id');
SELECT dvmig.add_table('crm', 'a_temp', 'account');
SELECT dvmig.add_table('crm', 'staging.an_unlogged', 'account');
SELECT dvmig.add_table('crm', 'staging.parted_1', 'account');
SELECT dvmig.add_table('crm', 'staging.inherited', 'account');
SELECT dvmig.add_table('crm', 'pg_catalog.pg_class', 'account', 'oid');
SELECT dvmig.add_table('crm', 'dvmig.migration', 'account');
SELECT dvmig.add_table('crm', NULL, 'account');
SELECT dvmig.add_table('cmr', 'staging.customers', 'account');

-- add_table: what can be a target
SELECT dvmig.add_table('crm', 'staging.customers', NULL);
SELECT dvmig.add_table('crm', 'staging.customers', 'new_log');

-- add_table: arguments
SELECT dvmig.add_table('crm', 'staging.customers', 'account', ids => 'random');
SELECT dvmig.add_table('crm', 'staging.customers', 'account', ids => 'column');
SELECT dvmig.add_table('crm', 'staging.customers', 'account', id_column => 'ref');
SELECT dvmig.add_table('crm', 'staging.customers', 'account', ids => 'column', id_column => 'branch');
SELECT dvmig.add_table('crm', 'staging.customers', 'account', ids => 'platform');
SELECT dvmig.add_table('crm', 'staging.customers', 'account', on_exists => 'overwrite');
SELECT dvmig.add_table('crm', 'staging.customers', 'account', filter_reason => 'old');
SELECT dvmig.add_table('crm', 'staging.customers', 'account', filter => 'company_name');
SELECT dvmig.add_table('crm', 'staging.customers', 'account', filter => 'random() < 0.5');
SELECT dvmig.add_table('crm', 'staging.customers', 'account', filter => 'custmer_id > 1');
SELECT dvmig.add_table('crm', 'staging.customers', 'account', target_key => 'accountnum');
SELECT dvmig.add_table('crm', 'staging.orders', 'new_order', target_key => 'new_code');

-- add_table: source keys
SELECT dvmig.add_table('crm', 'staging.people', 'contact');
SELECT dvmig.add_table('crm', 'staging.people', 'contact', 'person_nr');
SELECT dvmig.add_table('crm', 'staging.people', 'contact', 'person_no, person_no');
CREATE TABLE staging.bad_keys (f float8, m money, j jsonb, t timestamptz, b bool, code text, processing_flag char(1), n int, d int);
INSERT INTO staging.bad_keys (n, d) VALUES (NULL, 1), (1, 1), (NULL, 1), (2, 2);
SELECT dvmig.add_table('crm', 'staging.bad_keys', 'contact', 'f');
SELECT dvmig.add_table('crm', 'staging.bad_keys', 'contact', 'm');
SELECT dvmig.add_table('crm', 'staging.bad_keys', 'contact', 'j');
SELECT dvmig.add_table('crm', 'staging.bad_keys', 'contact', 'b');
SELECT dvmig.add_table('crm', 'staging.bad_keys', 'contact', 'code');
SELECT dvmig.add_table('crm', 'staging.bad_keys', 'contact', 'processing_flag');
ALTER TABLE staging.bad_keys RENAME code TO owed_passes;
SELECT dvmig.add_table('crm', 'staging.bad_keys', 'contact', 'owed_passes');
ALTER TABLE staging.bad_keys RENAME owed_passes TO code;
SELECT dvmig.add_table('crm', 'staging.bad_keys', 'contact', 'n');
SELECT dvmig.add_table('crm', 'staging.bad_keys', 'contact', 'd');

-- A refused call leaves nothing behind.
SELECT count(*) FROM dvmig.migration_table;
SELECT attname, attnotnull FROM pg_attribute WHERE attrelid = 'staging.bad_keys'::regclass AND attnum > 0 ORDER BY attnum;
SELECT count(*) FROM pg_class WHERE relnamespace = 'staging'::regnamespace AND relname LIKE '%\_success';

-- add_table: done. The table is not rewritten.
SELECT relfilenode AS before FROM pg_class WHERE oid = 'staging.customers'::regclass \gset
SELECT dvmig.add_table('crm', 'staging.customers', 'Account', source_key => 'customer_id', target_key => 'accountnumber',
	filter => $$company_name <> 'c5'$$, filter_reason => 'test company');
SELECT relfilenode = :before FROM pg_class WHERE oid = 'staging.customers'::regclass;
SELECT dvmig.add_table('crm', 'staging.people', 'contact', source_key => 'PERSON_NO', on_exists => 'keep');
SELECT dvmig.add_table('crm', 'staging.orders', 'new_order', source_key => 'region, number', ids => 'platform');
SELECT dvmig.add_table('crm', 'staging.lines', 'new_line', auto_map => false, namespace => '11111111-1111-4111-8111-111111111111');
SELECT dvmig.add_table('never held', 'staging.customers', 'account');
SELECT dvmig.add_table('never held', 'staging.parted', 'contact');
CREATE TABLE staging.twin (id int PRIMARY KEY);
SELECT dvmig.add_table('never held', 'staging.twin', 'new_line', namespace => '11111111-1111-4111-8111-111111111111');
SELECT staging, target, source_key, target_key, ids, filter, filter_sql, filter_reason, on_exists, success_table, error_table, auto_map
	FROM dvmig.migration_table ORDER BY position;
SELECT count(DISTINCT namespace) FROM dvmig.migration_table;
SELECT attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)
	FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
	WHERE attrelid = 'staging.people'::regclass AND attnum > 0 ORDER BY attnum;
SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
	WHERE attrelid = 'staging.people_success'::regclass AND attnum > 0 ORDER BY attnum;
SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
	WHERE attrelid = 'staging.orders_error'::regclass AND attnum > 0 ORDER BY attnum;
SELECT conrelid::regclass, pg_get_constraintdef(oid) FROM pg_constraint
	WHERE conrelid IN ('staging.people'::regclass, 'staging.people_success'::regclass, 'staging.orders_error'::regclass)
	  AND contype IN ('c', 'p') ORDER BY conrelid::regclass::text, contype, conname;
SELECT indexdef FROM pg_indexes WHERE schemaname = 'staging' AND tablename IN ('people', 'orders') ORDER BY 1;
INSERT INTO staging.people (person_no) VALUES ('P3') RETURNING processing_flag, action_flag, dm_created_at IS NOT NULL, dataverse_id;
\set VERBOSITY terse
UPDATE staging.people SET processing_flag = 'X';
UPDATE staging.people SET action_flag = NULL;
\set VERBOSITY default

-- Columns of those names that exist already are taken if they fit.
CREATE TABLE staging.flagged (id int PRIMARY KEY, processing_flag text, action_flag "char" DEFAULT 'I', dm_created_at timestamptz, dataverse_id uuid);
INSERT INTO staging.flagged VALUES (1, 'U', 'I'), (2, NULL, 'I'), (3, 'x', 'I');
SELECT dvmig.add_table('crm', 'staging.flagged', 'new_line');
UPDATE staging.flagged SET processing_flag = 'U' WHERE (processing_flag::text IN ('U', 'S', 'P', 'E')) IS NOT TRUE;
SELECT dvmig.add_table('crm', 'staging.flagged', 'new_line');
INSERT INTO staging.flagged (id) VALUES (4) RETURNING processing_flag, action_flag, dm_created_at IS NOT NULL;
SELECT dvmig.drop_table('staging.flagged', drop_outcomes => true);
ALTER TABLE staging.flagged DROP COLUMN processing_flag, ADD processing_flag int;
SELECT dvmig.add_table('crm', 'staging.flagged', 'new_line');
ALTER TABLE staging.flagged DROP COLUMN processing_flag, DROP COLUMN dataverse_id, ADD dataverse_id text;
SELECT dvmig.add_table('crm', 'staging.flagged', 'new_line');
ALTER TABLE staging.flagged DROP COLUMN dataverse_id, ADD dataverse_id uuid GENERATED ALWAYS AS (NULL::uuid) STORED;
SELECT dvmig.add_table('crm', 'staging.flagged', 'new_line');

-- Names of outcome tables
SELECT dvmig.add_table('crm', 'staging.twin', 'new_line', success_table => 'customers');
SELECT dvmig.add_table('crm', 'staging.twin', 'new_line', error_table => 'a.b.c');
CREATE TABLE staging."Long name of a table, in German: Vertriebspartnerübersichtsliste" (id int PRIMARY KEY);
SELECT dvmig.add_table('never held', 'staging."Long name of a table, in German: Vertriebspartnerübersichtslist"', 'new_line');
CREATE TABLE staging.named (id int PRIMARY KEY);
CREATE SCHEMA outcome;
SELECT dvmig.add_table('never held', 'staging.named', 'new_line', success_table => 'outcome.ok', error_table => 'bad');

-- map_column
SELECT dvmig.map_column('staging.customers', 'name', 'company_name');
SELECT dvmig.map_column('staging.customers', 'NAME', 'company_name');
SELECT dvmig.map_column('staging.customers', 'revenue', 'round(turnover_eur, 2)');
SELECT dvmig.map_column('staging.customers', 'overriddencreatedon', 'dm_created_at');
SELECT dvmig.map_column('staging.customers', 'new_closedfor', $$'moved'$$);
SELECT dvmig.map_column('staging.customers', 'numberofemployees', 'staff', send => 'insert');
SELECT dvmig.map_column('staging.customers', 'nmae', 'company_name');
SELECT dvmig.map_column('staging.customers', 'creditonhold', 'on_hld');
SELECT dvmig.map_column('staging.customers', 'creditonhold', 'on_hold FROM pg_authid --');
SELECT dvmig.map_column('staging.customers', 'creditonhold', 'branch');
SELECT dvmig.map_column('staging.customers', 'creditonhold', 'price');
SELECT dvmig.map_column('staging.customers', 'creditonhold', NULL);
SELECT dvmig.map_column('staging.customers', '', 'branch');
SELECT dvmig.map_column('staging.customers', 'createdon', 'dm_created_at');
SELECT dvmig.map_column('staging.customers', 'accountid', 'ref');
SELECT dvmig.map_column('staging.customers', 'statecode', '1');
SELECT dvmig.map_column('staging.customers', 'industrycode', 'branch');
SELECT dvmig.map_column('staging.customers', 'parentaccountid', 'ref');
SELECT dvmig.map_column('staging.customers', 'creditonhold', 'on_hold', send => 'sometimes');
SELECT dvmig.unmap('staging.customers', 'overriddencreatedon');
SELECT dvmig.map_column('staging.customers', 'overriddencreatedon', 'dm_created_at', send => 'both');
SELECT dvmig.map_column('staging.named', 'new_orderid', 'id');
SELECT dvmig.map_column('staging.customers', 'creditonhold', 'random() < 0.5');
SELECT dvmig.map_column('staging.flagged', 'name', 'id');

-- map_choice
SELECT dvmig.map_choice('staging.customers', 'industrycode', 'branch');
SELECT dvmig.map_choice('staging.customers', 'name', 'branch');
SELECT dvmig.map_choice('staging.customers', 'new_interests', 'branch');
SELECT dvmig.unmap('staging.customers', 'industrycode');
SELECT dvmig.map_choice('staging.customers', 'industrycode', 'turnover_eur');
SELECT dvmig.map_choice('staging.customers', 'industrycode', 'staff');

-- map_lookup: to another staging table, with exact casts to its key
SELECT dvmig.map_lookup('staging.customers', 'parentaccountid', 'parent_id', 'staging.customers');
SELECT dvmig.map_lookup('staging.customers', 'primarycontactid', 'contact_no', 'staging.people');
SELECT dvmig.map_lookup('staging.orders', 'new_accountid', 'customer', 'staging.customers');
SELECT dvmig.map_lookup('staging.lines', 'new_orderid', 'order_region, order_number', 'staging.orders');
SELECT dvmig.map_lookup('staging.lines', 'new_orderid', 'order_number', 'staging.orders');
SET search_path = staging;
SELECT dvmig.map_lookup('people', 'parentcustomerid', 'company', 'customers');
SELECT dvmig.map_lookup('people', 'parentcustomerid', $$CASE WHEN company IS NULL THEN 'P1' END$$, 'people');
SELECT dvmig.map_lookup('people', 'parentcustomerid', 'company', 'customers');
RESET search_path;
-- to an existing record, by one key column or several
SELECT dvmig.map_lookup('staging.customers', 'ownerid', 'owner_mail', 'systemuser', match_on => 'internalemailaddress');
SELECT dvmig.unmap('staging.customers', 'ownerid');
SELECT dvmig.map_lookup('staging.customers', 'ownerid', $$owner_mail, 'x'$$, 'systemuser', match_on => 'internalemailaddress, employeeid', send => 'both');
SELECT dvmig.unmap('staging.customers', 'ownerid');
SELECT dvmig.map_lookup('staging.customers', 'ownerid', 'owner_mail', 'systemuser', match_on => 'internalmail');
SELECT dvmig.map_lookup('staging.customers', 'ownerid', 'owner_mail', 'systemuser', match_on => 'new_salary');
SELECT dvmig.map_lookup('staging.customers', 'ownerid', 'turnover_eur', 'systemuser', match_on => 'employeeid');
SELECT dvmig.map_lookup('staging.customers', 'ownerid', 'owner_mail', match_on => 'employeeid');
SELECT dvmig.map_lookup('staging.customers', 'ownerid', 'owner_mail', 'contact', match_on => 'lastname');
-- by id
SELECT dvmig.map_lookup('staging.customers', 'ownerid', 'ref', 'team');
SELECT dvmig.map_lookup('staging.customers', 'ownerid', 'ref', target_table => 'systemuser');
SELECT dvmig.map_lookup('staging.customers', 'ownerid', 'ref');
SELECT dvmig.unmap('staging.customers', 'primarycontactid');
SELECT dvmig.map_lookup('staging.customers', 'primarycontactid', 'ref');
-- refused
SELECT dvmig.map_lookup('staging.customers', 'name', 'parent_id', 'staging.customers');
SELECT dvmig.map_lookup('staging.lines', 'new_orderid', 'id', 'staging.customers');
SELECT dvmig.map_lookup('staging.orders', 'new_accountid', 'customer', 'staging.customers', target_table => 'contact');
SELECT dvmig.unmap('staging.orders', 'new_accountid');
SELECT dvmig.map_lookup('staging.orders', 'new_accountid', 'customer::float8', 'staging.customers');
SELECT dvmig.map_lookup('staging.orders', 'new_accountid', 'customer', 'staging.parted');
SELECT dvmig.map_lookup('staging.orders', 'new_accountid', 'customer', 'staging.flagged');
SELECT dvmig.map_lookup('staging.orders', 'new_accountid', 'customer', 'account');
SELECT dvmig.map_lookup('staging.orders', 'new_accountid', 'customer', 'nowhere');
SELECT dvmig.unmap('staging.orders', 'new_accountid');

-- What it all came to
SELECT staging, target_column, variant, kind, expression, expression_sql, result_type, send, parent, referenced_table, match_on, navigation_property, automatic
	FROM dvmig.column_map JOIN dvmig.migration_table t USING (staging) ORDER BY t.position, target_column, variant;

-- Automatic maps: by name and fitting type; lookups only from uuid.
CREATE TABLE staging.auto (id int PRIMARY KEY, name text, "NAME" text, revenue money, numberofemployees numeric, industrycode text,
	createdon timestamptz, statecode int, parentaccountid uuid, primarycontactid int, ownerid uuid, accountid uuid, other text);
SELECT dvmig.add_table('crm', 'staging.auto', 'account');
SELECT target_column, kind, expression, referenced_table, automatic FROM dvmig.column_map WHERE staging = 'staging.auto'::regclass ORDER BY 1;
SELECT dvmig.map_column('staging.auto', 'name', 'other');
SELECT target_column, expression, automatic FROM dvmig.column_map WHERE staging = 'staging.auto'::regclass AND target_column = 'name';

-- drop_table and registering again: outcomes and ids stay
SELECT dvmig.drop_table('staging.customers');
SELECT namespace AS ns FROM dvmig.migration_table WHERE staging = 'staging.lines'::regclass \gset
INSERT INTO staging.lines_success (id, operation) VALUES (1, 'I');
SELECT dvmig.drop_table('staging.lines');
SELECT dvmig.drop_table('staging.lines');
SELECT dvmig.add_table('crm', 'staging.lines', 'new_line');
SELECT namespace = :'ns', (SELECT count(*) FROM staging.lines_success) FROM dvmig.migration_table WHERE staging = 'staging.lines'::regclass;
ALTER TABLE staging.lines_error ADD note text;
SELECT dvmig.drop_table('staging.lines');
SELECT dvmig.add_table('crm', 'staging.lines', 'new_line');

-- A staging table that was dropped does not stay in the way.
DROP TABLE staging.auto;
DROP TABLE staging.people CASCADE;
SELECT dvmig.drop_table('staging.orders', drop_outcomes => true);
SELECT dvmig.add_table('crm', 'staging.orders', 'new_order');
SELECT staging FROM dvmig.migration_table JOIN dvmig.migration USING (migration_id) WHERE name = 'crm' ORDER BY position;

-- retarget: flags, actions and ids as if nothing had been sent
INSERT INTO dvmig.metadata_table (server, table_name, entity_set, primary_id) SELECT 'regress_def_prod', table_name, entity_set, primary_id
	FROM dvmig.metadata_table WHERE server = 'regress_def' AND table_type = 'Standard';
INSERT INTO dvmig.metadata_column (server, table_name, column_name, column_type, valid_for_create, valid_for_update, date_behavior)
	SELECT 'regress_def_prod', table_name, column_name, column_type, valid_for_create, valid_for_update, date_behavior
	FROM dvmig.metadata_column WHERE server = 'regress_def' AND table_name <> 'new_log' AND column_name <> 'creditonhold';
INSERT INTO dvmig.metadata_lookup SELECT 'regress_def_prod', table_name, column_name, referenced_table, navigation_property || '_prod'
	FROM dvmig.metadata_lookup WHERE server = 'regress_def';
UPDATE staging.customers c SET processing_flag = 'P', dataverse_id = dvmig.record_id(t.namespace, c.customer_id)
	FROM dvmig.migration_table t WHERE t.staging = 'staging.customers'::regclass;
UPDATE staging.customers SET dataverse_id = '22222222-2222-4222-8222-222222222222' WHERE customer_id = 2;
UPDATE staging.customers SET dataverse_id = '33333333-3333-4333-8333-333333333333' WHERE customer_id = 3;
INSERT INTO dvmig.adopted VALUES ('staging.customers', '33333333-3333-4333-8333-333333333333');
UPDATE staging.customers SET action_flag = 'U' WHERE customer_id IN (3, 4);
UPDATE staging.customers SET processing_flag = 'E' WHERE customer_id = 5;
INSERT INTO staging.customers_success (customer_id, dataverse_id, operation, created_run)
	SELECT customer_id, dataverse_id, 'I', CASE WHEN customer_id <> 3 THEN 1 END FROM staging.customers WHERE customer_id < 5;
INSERT INTO staging.customers_error (customer_id, code) VALUES (5, '0x1');
SELECT dvmig.retarget('crm', 'regress_def');
SELECT dvmig.retarget('crm', 'regress_def_prod');
SELECT dvmig.unmap('staging.customers', 'creditonhold');
SELECT dvmig.retarget('crm', 'regress_def_prod');
SELECT customer_id, processing_flag, action_flag, dataverse_id FROM staging.customers ORDER BY 1;
SELECT (SELECT count(*) FROM staging.customers_success), (SELECT count(*) FROM staging.customers_error),
	(SELECT count(*) FROM staging.customers_success_regress_def), (SELECT count(*) FROM staging.customers_error_regress_def);
SELECT target_column, navigation_property FROM dvmig.column_map WHERE navigation_property IS NOT NULL ORDER BY 1;
SELECT server FROM dvmig.migration WHERE name = 'crm';
SELECT count(*) FROM dvmig.adopted;
SELECT dvmig.retarget('crm', 'regress_def');
SELECT relname FROM pg_class WHERE relname LIKE 'customers%' AND relkind = 'r' ORDER BY 1;

-- drop_migration, and what was noted of all this
SELECT dvmig.drop_migration('crm');
SELECT dvmig.drop_migration('crm');
SELECT dvmig.drop_migration('never held', drop_outcomes => true);
SELECT kind, object, count(*) FROM dvmig.event WHERE migration IN ('crm', 'never held') GROUP BY 1, 2 ORDER BY 1, 2;
SELECT relname FROM pg_class WHERE relnamespace IN ('staging'::regnamespace, 'outcome'::regnamespace) AND relkind = 'r' ORDER BY 1;

SET client_min_messages = warning;
DELETE FROM dvmig.metadata_table WHERE server LIKE 'regress_def%';
DELETE FROM dvmig.event WHERE migration IN ('crm', 'never held');
DELETE FROM dvmig.kept_namespace;
DROP SCHEMA staging, outcome CASCADE;
DROP SERVER regress_def;
DROP SERVER regress_def_prod;

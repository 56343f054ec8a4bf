-- dvmig.check: every rule on rows made for it. No server is contacted: its
-- metadata is put in beforehand.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS dvmig;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on
\set SHOW_CONTEXT never

CREATE SERVER regress_check FOREIGN DATA WRAPPER dataverse
	OPTIONS (url 'https://check.example', tenant 'check.example', environment 'test');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_check OPTIONS (client_id 'x', client_secret 'not in a file');
INSERT INTO dvmig.metadata_table (server, table_name, entity_set, primary_id, create_multiple, update_multiple) VALUES
	('regress_check', 'account', 'accounts', 'accountid', true, true),
	('regress_check', 'contact', 'contacts', 'contactid', true, true),
	('regress_check', 'new_all', 'new_alls', 'new_allid', true, false),
	('regress_check', 'new_order', 'new_orders', 'new_orderid', true, true),
	('regress_check', 'new_line', 'new_lines', 'new_lineid', true, true),
	('regress_check', 'systemuser', 'systemusers', 'systemuserid', false, false);
INSERT INTO dvmig.metadata_column (server, table_name, column_name, column_type, required_level, valid_for_create, valid_for_update,
	max_length, min_value, max_value, precision_digits, date_behavior, max_size_kb) VALUES
	('regress_check', 'account', 'accountid', 'Uniqueidentifier', 'SystemRequired', true, false, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'account', 'name', 'String', 'ApplicationRequired', true, true, 10, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'account', 'new_no', 'String', 'None', true, true, 20, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'account', 'description', 'Memo', 'None', true, true, 2000, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'account', 'parentaccountid', 'Lookup', 'None', true, true, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'contact', 'contactid', 'Uniqueidentifier', 'SystemRequired', true, false, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'contact', 'lastname', 'String', 'SystemRequired', true, true, 10, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'contact', 'parentcustomerid', 'Customer', 'None', true, true, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'contact', 'ownerid', 'Owner', 'SystemRequired', true, true, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'systemuser', 'systemuserid', 'Uniqueidentifier', 'SystemRequired', true, false, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'systemuser', 'internalemailaddress', 'String', 'SystemRequired', true, true, 100, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_order', 'new_orderid', 'Uniqueidentifier', 'SystemRequired', true, false, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_order', 'new_title', 'String', 'None', true, true, 10, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_order', 'new_once', 'String', 'None', true, false, 10, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_order', 'new_contactid', 'Lookup', 'SystemRequired', true, true, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_line', 'new_lineid', 'Uniqueidentifier', 'SystemRequired', true, false, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_line', 'new_orderid', 'Lookup', 'None', true, true, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_line', 'new_upid', 'Lookup', 'SystemRequired', true, true, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_all', 'new_allid', 'Uniqueidentifier', 'SystemRequired', true, false, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_all', 'new_text', 'String', 'None', true, true, 5, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_all', 'new_number', 'String', 'None', true, true, 5, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_all', 'new_whole', 'Integer', 'None', true, true, NULL, 0, 100, NULL, NULL, NULL),
	('regress_check', 'new_all', 'new_small', 'Integer', 'None', true, true, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_all', 'new_big', 'BigInt', 'None', true, true, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_all', 'new_money', 'Money', 'None', true, true, NULL, 0, 1000, 2, NULL, NULL),
	('regress_check', 'new_all', 'new_double', 'Double', 'None', true, true, NULL, -90, 90, 5, NULL, NULL),
	('regress_check', 'new_all', 'new_float', 'Double', 'None', true, true, NULL, 0, 0.1, 5, NULL, NULL),
	('regress_check', 'new_all', 'new_day', 'DateTime', 'None', true, true, NULL, NULL, NULL, NULL, 'DateOnly', NULL),
	('regress_check', 'new_all', 'new_clock', 'DateTime', 'None', true, true, NULL, NULL, NULL, NULL, 'TimeZoneIndependent', NULL),
	('regress_check', 'new_all', 'new_instant', 'DateTime', 'None', true, true, NULL, NULL, NULL, NULL, 'UserLocal', NULL),
	('regress_check', 'new_all', 'new_choice', 'Picklist', 'None', true, true, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_all', 'new_label', 'Picklist', 'None', true, true, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_all', 'new_list', 'MultiSelectPicklist', 'None', true, true, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_all', 'new_array', 'MultiSelectPicklist', 'None', true, true, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_all', 'new_picture', 'Image', 'None', true, true, NULL, NULL, NULL, NULL, NULL, 1),
	('regress_check', 'new_all', 'new_needed', 'String', 'SystemRequired', true, true, 100, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_all', 'new_cast', 'Integer', 'None', true, true, NULL, NULL, NULL, NULL, NULL, NULL),
	('regress_check', 'new_all', 'new_wanted', 'String', 'ApplicationRequired', true, true, 100, NULL, NULL, NULL, NULL, NULL);
INSERT INTO dvmig.metadata_choice (server, table_name, column_name, choice_value, label)
	SELECT 'regress_check', 'new_all', c, v, l FROM unnest('{new_choice,new_label,new_list,new_array}'::text[]) c, (VALUES (1, 'One'), (100000000, 'Many')) o(v, l);
INSERT INTO dvmig.metadata_lookup VALUES
	('regress_check', 'account', 'parentaccountid', 'account', 'parentaccountid'),
	('regress_check', 'contact', 'parentcustomerid', 'account', 'parentcustomerid_account'),
	('regress_check', 'contact', 'parentcustomerid', 'contact', 'parentcustomerid_contact'),
	('regress_check', 'contact', 'ownerid', 'systemuser', 'ownerid'),
	('regress_check', 'new_order', 'new_contactid', 'contact', 'new_ContactId'),
	('regress_check', 'new_line', 'new_orderid', 'new_order', 'new_OrderId'),
	('regress_check', 'new_line', 'new_upid', 'new_line', 'new_UpId');
INSERT INTO dvmig.metadata_key VALUES
	('regress_check', 'account', 'new_no_key', '{new_no}', 'Active'),
	('regress_check', 'contact', 'lastname_key', '{lastname}', 'Pending');

CREATE SCHEMA staging;
SELECT dvmig.create_migration('quality', 'regress_check') AS created \gset

-- ------------------------------------------------------ one kind of dirt a row
CREATE TABLE staging.all_kinds (id int PRIMARY KEY, text_ text, number_ numeric, whole numeric, small bigint, big numeric, money_ numeric,
	double_ float8, float_ real, day_ date, clock timestamp, instant timestamptz, choice_ int, label_ text, list_ text, array_ int[], picture bytea,
	needed text, cast_ text, extra text);
INSERT INTO staging.all_kinds (id, needed) SELECT i, 'x' FROM generate_series(1, 99) i;
CREATE FUNCTION staging.dirt(id int, assignment text) RETURNS void LANGUAGE plpgsql
	AS $$ BEGIN EXECUTE format('UPDATE staging.all_kinds SET %s WHERE id = %s', assignment, id); END $$;
-- what fits, at the borders
SELECT count(staging.dirt(1, $$text_ = 'äöüß€', number_ = 12345, whole = 100.00, small = 2147483647, big = 9223372036854775807, money_ = 999.99,
	double_ = -90, float_ = 0.1, day_ = '1753-01-01', clock = '9999-12-30 23:59:59.9', instant = '1753-01-01 00:00Z', choice_ = 100000000, label_ = 'mAnY',
	list_ = ' 1, 100000000 ', array_ = '{1,100000000}', picture = decode(repeat('00', 1024), 'hex'), cast_ = '7'$$));
SELECT count(staging.dirt(2, $$text_ = '', list_ = ' ', array_ = '{}', picture = '', double_ = '-0', money_ = 0, label_ = '1'$$));
SELECT count(staging.dirt(11, $$text_ = '123456'$$)), count(staging.dirt(12, $$text_ = U&'\+01F600\+01F600\+01F600'$$)), count(staging.dirt(13, $$number_ = 123456$$)),
	count(staging.dirt(14, $$number_ = 'NaN'$$));
SELECT count(staging.dirt(20, $$whole = 101$$)), count(staging.dirt(21, $$whole = -1$$)), count(staging.dirt(22, $$whole = 0.5$$)), count(staging.dirt(23, $$whole = 'NaN'$$)),
	count(staging.dirt(24, $$whole = 'Infinity'$$)), count(staging.dirt(25, $$small = 2147483648$$)), count(staging.dirt(26, $$big = 9223372036854775808$$)), count(staging.dirt(27, $$whole = 1e30$$));
SELECT count(staging.dirt(30, $$money_ = 1000.01$$)), count(staging.dirt(31, $$money_ = 1.005$$)), count(staging.dirt(32, $$money_ = '-Infinity'$$)), count(staging.dirt(33, $$double_ = 90.1$$)),
	count(staging.dirt(34, $$double_ = 'NaN'$$)), count(staging.dirt(35, $$double_ = 'Infinity'$$)), count(staging.dirt(36, $$float_ = 0.2$$));
SELECT count(staging.dirt(40, $$day_ = '1752-12-31'$$)), count(staging.dirt(41, $$day_ = '9999-12-31'$$)), count(staging.dirt(42, $$day_ = '-infinity'$$)), count(staging.dirt(43, $$clock = 'infinity'$$)),
	count(staging.dirt(44, $$clock = '9999-12-31'$$)), count(staging.dirt(45, $$instant = '1752-12-31 23:59:59Z'$$)), count(staging.dirt(46, $$instant = '9999-12-31 00:00Z'$$));
SELECT count(staging.dirt(50, $$choice_ = 2$$)), count(staging.dirt(51, $$label_ = 'none of them'$$)), count(staging.dirt(52, $$list_ = '1,2'$$)), count(staging.dirt(53, $$list_ = '1;1'$$)),
	count(staging.dirt(54, $$list_ = '123456789012'$$)), count(staging.dirt(55, $$array_ = '{1,NULL}'$$)), count(staging.dirt(56, $$array_ = '{3}'$$)), count(staging.dirt(57, $$array_ = array_fill(1, '{151}')$$));
SELECT count(staging.dirt(60, $$picture = decode(repeat('00', 1025), 'hex')$$)), count(staging.dirt(61, $$needed = NULL$$)), count(staging.dirt(62, $$cast_ = 'seven'$$)), count(staging.dirt(63, $$cast_ = '99999999999'$$)),
	count(staging.dirt(64, $$cast_ = 'x', text_ = '123456'$$));
SELECT dvmig.add_table('quality', 'staging.all_kinds', 'new_all') AS added \gset
SELECT dvmig.map_column('staging.all_kinds', 'new_text', 'text_'), dvmig.map_column('staging.all_kinds', 'new_number', 'number_'), dvmig.map_column('staging.all_kinds', 'new_whole', 'whole'),
	dvmig.map_column('staging.all_kinds', 'new_small', 'small'), dvmig.map_column('staging.all_kinds', 'new_big', 'big'), dvmig.map_column('staging.all_kinds', 'new_money', 'money_'),
	dvmig.map_column('staging.all_kinds', 'new_double', 'double_'), dvmig.map_column('staging.all_kinds', 'new_float', 'float_'), dvmig.map_column('staging.all_kinds', 'new_day', 'day_'),
	dvmig.map_column('staging.all_kinds', 'new_clock', 'clock'), dvmig.map_column('staging.all_kinds', 'new_instant', 'instant'), dvmig.map_column('staging.all_kinds', 'new_choice', 'choice_'),
	dvmig.map_choice('staging.all_kinds', 'new_label', 'label_'), dvmig.map_column('staging.all_kinds', 'new_list', 'list_'), dvmig.map_column('staging.all_kinds', 'new_array', 'array_'),
	dvmig.map_column('staging.all_kinds', 'new_picture', 'picture'), dvmig.map_column('staging.all_kinds', 'new_needed', 'needed'), dvmig.map_column('staging.all_kinds', 'new_cast', 'cast_::int') AS mapped \gset
SELECT severity, target_column, rule, affected_rows, sample_keys, replace(message, quote_ident(current_user), 'me') FROM dvmig.check('quality') WHERE rule <> 'rarely_filled';

-- columns filled in under 5 per cent of the rows
SELECT target_column, affected_rows, message FROM dvmig.check('quality') WHERE rule = 'rarely_filled';
-- no keys on request, and hints
SELECT rule, affected_rows, sample_keys, hint FROM dvmig.check('quality', samples => 0) WHERE target_column IN ('new_text', 'new_cast');
SELECT sample_keys FROM dvmig.check('quality', samples => 2) WHERE rule = 'date_out_of_range';
-- a row is checked while a run would write it
UPDATE staging.all_kinds SET processing_flag = 'E' WHERE id = 11;
UPDATE staging.all_kinds SET action_flag = 'D' WHERE id = 12;
SELECT rule, affected_rows, sample_keys FROM dvmig.check('quality') WHERE target_column = 'new_text';
-- more rows throw than are searched for
SELECT is_complete, cardinality(tids) > 0 FROM dvmig._check_thrown((SELECT owner FROM dvmig.migration WHERE name = 'quality'), 'staging.all_kinds', 'true', '(s.cast_)::integer', 0);
SELECT relations, tids, is_complete FROM dvmig._check_thrown((SELECT owner FROM dvmig.migration WHERE name = 'quality'), 'staging.all_kinds', 'true', '(s.id)::text');
SELECT dvmig.drop_migration('quality') AS dropped \gset

-- --------------------------------------------------- parents, keys, references
SELECT dvmig.create_migration('related', 'regress_check', gate => 20) AS created \gset
CREATE TABLE staging.companies (id int PRIMARY KEY, name text, no text, parent int, old bool);
CREATE TABLE staging.people (nick text, country text, family text, company int, chief text, chief_country text, owner text, PRIMARY KEY (nick, country));
INSERT INTO staging.companies VALUES (1, 'one', 'A1', NULL), (2, 'two', 'a1 ', NULL), (3, 'three', 'É7', 1), (4, 'four', 'é7', 1), (5, 'five', 'e7', 1),
	(6, 'too long a name', 'A9', 1), (7, 'seven', 'a9', 1), (8, 'eight', 'B8', 6), (9, 'nine', '', 99), (10, 'ten', '', 11), (11, 'eleven', NULL, 10), (12, 'twelve', NULL, 11),
	(13, 'thirteen', NULL, 13), (14, 'old', 'A1', NULL), (15, 'failed', NULL, NULL), (16, 'there', 'Q', NULL), (17, 'late', 'q', NULL);
UPDATE staging.companies SET old = id = 14;
INSERT INTO staging.people (nick, country, family, company) VALUES ('a', 'DE', 'Adler', 1), ('b', 'DE', 'Bauer', 6), ('c', 'DE', 'Christ', 2), ('d', 'DE', NULL, NULL),
	('e', 'DE', 'Ernst', 77), ('f', 'DE', 'Fuchs', 14), ('g', 'DE', 'Graf', 15), ('h', 'DE', 'Haas', 16), ('i', 'DE', 'Iwan', 13);
UPDATE staging.people SET chief = 'a', chief_country = 'DE' WHERE nick IN ('b', 'c');
UPDATE staging.people SET chief = 'd', chief_country = 'DE', company = NULL WHERE nick = 'i';
UPDATE staging.people SET owner = nick || '@example.org';
SELECT dvmig.add_table('related', 'staging.companies', 'account', filter => 'NOT old', target_key => NULL, auto_map => false) AS added \gset
UPDATE staging.companies SET processing_flag = 'E' WHERE id = 15;
UPDATE staging.companies SET processing_flag = 'P' WHERE id = 16;
INSERT INTO staging.companies_success (id, operation) VALUES (16, 'I');
SELECT dvmig.map_column('staging.companies', 'name', 'name'), dvmig.map_column('staging.companies', 'new_no', 'no'),
	dvmig.map_lookup('staging.companies', 'parentaccountid', 'parent', 'staging.companies') AS mapped \gset
SELECT dvmig.add_table('related', 'staging.people', 'contact', auto_map => false) AS added \gset
SELECT dvmig.map_column('staging.people', 'lastname', 'family'), dvmig.map_lookup('staging.people', 'parentcustomerid', 'company', 'staging.companies'),
	dvmig.map_lookup('staging.people', 'parentcustomerid', 'chief, chief_country', 'staging.people'),
	dvmig.map_lookup('staging.people', 'ownerid', 'owner', 'systemuser', match_on => 'internalemailaddress') AS mapped \gset
SELECT severity, staging, target_column, rule, affected_rows, sample_keys, message FROM dvmig.check('related') WHERE rule NOT IN ('rarely_filled', 'secret_inline');
INSERT INTO dvmig.reference (server, table_name, match_on, match_key, record_id, matches)
	SELECT 'regress_check', 'systemuser', 'internalemailaddress', c || '@example.org', CASE WHEN n = 1 THEN gen_random_uuid() END, n
	FROM (VALUES ('a', 1), ('b', 1), ('c', 2), ('d', 0), ('e', 1), ('f', 1), ('g', 1), ('i', 1)) v(c, n);
SELECT severity, rule, affected_rows, sample_keys, message FROM dvmig.check('related') WHERE target_column = 'ownerid';

-- children of rows that will not be loaded, and theirs; a required lookup in a circle
CREATE TABLE staging.orders (id int PRIMARY KEY, title text, person text, country text);
CREATE TABLE staging.lines (id int PRIMARY KEY, order_id text, up int) PARTITION BY RANGE (id);
CREATE TABLE staging.lines_1 PARTITION OF staging.lines FOR VALUES FROM (0) TO (5);
CREATE TABLE staging.lines_2 PARTITION OF staging.lines DEFAULT;
INSERT INTO staging.orders VALUES (1, 'fine', 'a', 'DE'), (2, 'fine', 'd', 'DE'), (3, 'much too long', 'a', 'DE'), (4, 'fine', 'f', 'DE'), (5, NULL, NULL, NULL), (6, 'fine', 'b', 'DE');
INSERT INTO staging.lines VALUES (1, '1', NULL), (2, '2', NULL), (3, '3', NULL), (4, '4', 1), (6, '9', NULL), (7, 'x', NULL), (8, '5', NULL), (9, 'y', NULL);
SELECT dvmig.add_table('related', 'staging.orders', 'new_order', auto_map => false) AS added \gset
SELECT dvmig.map_column('staging.orders', 'new_title', 'title'), dvmig.map_lookup('staging.orders', 'new_contactid', 'person, country', 'staging.people'),
	dvmig.map_column('staging.orders', 'new_once', $$left(random()::text, 5)$$) AS mapped \gset
SELECT dvmig.add_table('related', 'staging.lines', 'new_line', auto_map => false) AS added \gset
SELECT dvmig.map_lookup('staging.lines', 'new_orderid', 'order_id', 'staging.orders'), dvmig.map_lookup('staging.lines', 'new_upid', 'up', 'staging.lines') AS mapped \gset
SELECT severity, staging, target_column, rule, affected_rows, sample_keys, message FROM dvmig.check('related') WHERE staging IN ('staging.orders', 'staging.lines') AND rule <> 'rarely_filled';

-- updates of records that were never loaded; a column that can be written no more, or is gone
UPDATE staging.orders SET action_flag = 'U' WHERE id IN (1, 4);
INSERT INTO staging.orders_success (id, operation) VALUES (4, 'I');
UPDATE dvmig.metadata_column SET valid_for_update = false WHERE server = 'regress_check' AND column_name = 'new_title';
UPDATE dvmig.metadata_table SET refreshed_at = now() - interval '9 days' WHERE server = 'regress_check' AND table_name = 'new_order';
SELECT severity, target_column, rule, affected_rows, sample_keys, message FROM dvmig.check('related') WHERE staging = 'staging.orders' AND rule IN ('update_of_nothing', 'read_only', 'metadata_age');
DELETE FROM dvmig.metadata_column WHERE server = 'regress_check' AND column_name = 'new_title';
SELECT rule, affected_rows, sample_keys FROM dvmig.check('related') WHERE target_column = 'new_title';
-- what an expression names is gone
CREATE FUNCTION staging.polish(t text) RETURNS text LANGUAGE sql RETURN t;
SELECT dvmig.unmap('staging.orders', 'new_once') AS unmapped \gset
SELECT dvmig.map_column('staging.orders', 'new_once', 'staging.polish(title)') AS mapped \gset
DROP FUNCTION staging.polish;
SELECT severity, staging, target_column, rule, affected_rows, message FROM dvmig.check('related') WHERE severity = 'error' AND staging = 'staging.orders';
SELECT dvmig.drop_migration('related') AS dropped \gset

-- ------------------------------------------------------------- ids, a filter that throws
SELECT dvmig.create_migration('ids', 'regress_check', gate => NULL) AS created \gset
CREATE TABLE staging.given (id int PRIMARY KEY, guid uuid, name text, wanted text);
INSERT INTO staging.given SELECT i, CASE i WHEN 5 THEN NULL WHEN 4 THEN md5('3')::uuid ELSE md5(i::text)::uuid END, 'n' || i, 't' FROM generate_series(1, 6) i;
SELECT dvmig.add_table('ids', 'staging.given', 'account', ids => 'column', id_column => 'guid', filter => 'wanted::boolean') AS added \gset
SELECT severity, target_column, rule, affected_rows, sample_keys FROM dvmig.check('ids') WHERE rule IN ('id_missing', 'same_id', 'key_not_carried');
UPDATE dvmig.migration_table SET on_exists = 'error' WHERE staging = 'staging.given'::regclass;
SELECT severity, rule FROM dvmig.check('ids') WHERE rule = 'same_id';
UPDATE staging.given SET wanted = 'perhaps' WHERE id = 2;
SELECT severity, staging, rule, message FROM dvmig.check('ids') WHERE staging IS NOT NULL ORDER BY 1;

-- ------------------------------------------------- who may check, and see keys
CREATE ROLE regress_check_owner;
CREATE ROLE regress_check_operator;
CREATE ROLE regress_check_viewer;
SELECT dvmig.grant_owner('regress_check_owner') AS granted \gset
GRANT USAGE ON FOREIGN SERVER regress_check TO regress_check_owner;
GRANT ALL ON SCHEMA staging TO regress_check_owner;
SET ROLE regress_check_owner;
CREATE TABLE staging.own (id int PRIMARY KEY, name text);
INSERT INTO staging.own VALUES (1, 'fine'), (2, 'much too long a name'), (3, '123');
CREATE FUNCTION staging.whoever(t text) RETURNS text LANGUAGE plpgsql STABLE AS $$ BEGIN
	IF t ~ '^1' THEN RAISE 'seen by %: %', current_user, t; END IF; RETURN t; END $$;
SELECT dvmig.create_migration('mine', 'regress_check') AS created \gset
SELECT dvmig.add_table('mine', 'staging.own', 'account', auto_map => false) AS added \gset
SELECT dvmig.map_column('staging.own', 'name', 'staging.whoever(name)') AS mapped \gset
SELECT rule, affected_rows, sample_keys, message FROM dvmig.check('mine') WHERE severity = 'error';
SELECT dvmig.grant_operator('regress_check_operator', 'mine'), dvmig.grant_viewer('regress_check_viewer', 'mine') AS granted \gset
SET ROLE regress_check_operator;
SELECT rule, affected_rows, sample_keys, message FROM dvmig.check('mine') WHERE severity = 'error';
SELECT * FROM dvmig.check('no_such');
\set VERBOSITY terse
SELECT * FROM dvmig.check('ids');
\set VERBOSITY default
SET ROLE regress_check_viewer;
SELECT * FROM dvmig.check('mine');
RESET ROLE;
SELECT * FROM dvmig.check(NULL);

SET client_min_messages = warning;
SELECT dvmig.drop_migration('ids'), dvmig.drop_migration('mine') AS dropped \gset
DELETE FROM dvmig.metadata_table WHERE server = 'regress_check';
DELETE FROM dvmig.reference WHERE server = 'regress_check';
DELETE FROM dvmig.event WHERE migration IN ('quality', 'related', 'ids', 'mine') OR object LIKE 'regress_check%';
DELETE FROM dvmig.kept_namespace;
DROP SCHEMA staging CASCADE;
DROP OWNED BY regress_check_owner, regress_check_operator, regress_check_viewer;
DROP ROLE regress_check_owner, regress_check_operator, regress_check_viewer;
DROP SERVER regress_check CASCADE;

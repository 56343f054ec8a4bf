-- Expressions of column maps and filters: what is taken, what is refused, and
-- what is written down
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS dvmig;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on

CREATE SCHEMA regress_exp;
CREATE DOMAIN regress_exp.code AS varchar(10);
CREATE TYPE regress_exp.colour AS ENUM ('red', 'blue');
CREATE TABLE regress_exp.customers (
	id int, name text, "Mixed Case" text, amount numeric(10,2), born date, seen timestamptz, code regress_exp.code,
	colour regress_exp.colour, tags text[], ok bool, ref uuid, padded char(5), gone int);
ALTER TABLE regress_exp.customers DROP COLUMN gone;
CREATE TABLE regress_exp.branches (branch text, label text);
CREATE FUNCTION regress_exp.tidy(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT btrim(t)';
CREATE FUNCTION regress_exp.many(t text) RETURNS SETOF text LANGUAGE sql AS 'SELECT t';
CREATE FUNCTION regress_exp.nothing() RETURNS void LANGUAGE sql AS '';
SET search_path = regress_exp, public;

-- As a public function would: it knows its caller and his search_path.
CREATE FUNCTION dvmig._regress_compile(caller oid, expression text) RETURNS text LANGUAGE sql SET search_path = pg_catalog, pg_temp AS
	$$SELECT expression_sql || ' : ' || format_type(result_type, NULL) || CASE WHEN is_volatile THEN ' volatile' ELSE '' END
	  FROM dvmig._compile_expression(caller, 'regress_exp.customers', expression)$$;
CREATE FUNCTION dvmig.regress_compile(expression text) RETURNS text LANGUAGE c AS '$libdir/dvmig', 'dv_call';
CREATE FUNCTION pg_temp.c(expression text) RETURNS text LANGUAGE sql AS 'SELECT dvmig.regress_compile(expression)';

-- Taken, and written down with every name qualified.
SELECT pg_temp.c('name');
SELECT pg_temp.c('s.name');
SELECT pg_temp.c('customers.name');
SELECT pg_temp.c('NAME');
SELECT pg_temp.c('"Mixed Case"');
SELECT pg_temp.c($$'it''s'$$);
SELECT pg_temp.c('NULL');
SELECT pg_temp.c('42');
SELECT pg_temp.c('round(amount, 1) * 100');
SELECT pg_temp.c('tidy(name)');
SELECT pg_temp.c($$CASE WHEN ok THEN 'yes' WHEN colour = 'red' THEN 'red' END$$);
SELECT pg_temp.c($$coalesce(name, 'none') || ', ' || code$$);
SELECT pg_temp.c($$seen AT TIME ZONE 'Europe/Berlin'$$);
SELECT pg_temp.c('code');
SELECT pg_temp.c('colour::text');
SELECT pg_temp.c('tags[1]');
SELECT pg_temp.c('name COLLATE "C"');
SELECT pg_temp.c('(SELECT b.label FROM branches b WHERE b.branch = name)');
SELECT pg_temp.c('(SELECT s.label FROM branches s WHERE s.branch = name)');
SELECT pg_temp.c('(SELECT max(label) FROM branches WHERE branch = s.name)');
SELECT pg_temp.c('EXISTS (SELECT FROM branches WHERE branch = name)');
SELECT pg_temp.c('to_jsonb(s)');
SELECT pg_temp.c('name -- a comment');
SELECT pg_temp.c(E'name\n  || code');
SELECT pg_temp.c('random()');
SELECT pg_temp.c('now()');

-- Refused: more than one expression, or clauses of a query.
\set SHOW_CONTEXT never
SELECT pg_temp.c('1 FROM pg_authid --');
SELECT pg_temp.c('name WHERE true');
SELECT pg_temp.c('name GROUP BY name');
SELECT pg_temp.c('name HAVING true');
SELECT pg_temp.c('name ORDER BY 1');
SELECT pg_temp.c('name LIMIT 1');
SELECT pg_temp.c('DISTINCT name');
SELECT pg_temp.c('name FOR UPDATE');
SELECT pg_temp.c('name WINDOW w AS ()');
SELECT pg_temp.c('name AS n');
SELECT pg_temp.c('name n');
SELECT pg_temp.c('id, name');
SELECT pg_temp.c('*');
SELECT pg_temp.c('s.*');
SELECT pg_temp.c('');
SELECT pg_temp.c('name; DROP TABLE customers');
SELECT pg_temp.c('name) FROM (SELECT 1');
SELECT pg_temp.c('name UNION SELECT 1');
SELECT pg_temp.c('$1');
SELECT pg_temp.c('max(id)');
SELECT pg_temp.c('row_number() OVER ()');
SELECT pg_temp.c('many(name)');
SELECT pg_temp.c('generate_series(1, 2)');
SELECT pg_temp.c('(SELECT max(s.id))');
SELECT pg_temp.c('nothing()');
SELECT pg_temp.c('ROW(1, 2)');
SELECT pg_temp.c('(WITH d AS (DELETE FROM branches RETURNING 1) SELECT count(*) FROM d)');
CREATE TEMP TABLE scratch (x int);
SELECT pg_temp.c('(SELECT x FROM scratch)');

-- Errors point into the expression.
SELECT pg_temp.c('upper(nme)');
SELECT pg_temp.c('quantity');
ALTER TABLE regress_exp.customers ADD "BirthPlace" text;
SELECT pg_temp.c('upper(BirthPlace)');
SELECT pg_temp.c('s.BIRTHPLACE');
ALTER TABLE regress_exp.customers DROP "BirthPlace";
SELECT pg_temp.c('gone');
SELECT pg_temp.c('other.name');
SELECT pg_temp.c('name +');
SELECT pg_temp.c('name + 1');
SELECT pg_temp.c('no_such_function(name)');
SELECT pg_temp.c($$'x'::date$$);
-- The context names the expression, not functions of dvmig.
\set SHOW_CONTEXT errors
SELECT dvmig.regress_compile('upper(nme)');
SELECT dvmig.regress_compile('max(id)');
\set SHOW_CONTEXT never

-- What is written down runs under pg_catalog, pg_temp and gives the same.
INSERT INTO customers (id, name, "Mixed Case", amount, ok) VALUES (1, ' Ann ', 'M', 12.34, true), (2, 'Bob', NULL, 5, false);
INSERT INTO branches VALUES ('Bob', 'Builder');
SET search_path = pg_catalog, pg_temp;
DO $$
DECLARE e text; sql text; v text[];
BEGIN
	FOREACH e IN ARRAY ARRAY['regress_exp.tidy(name)', 'round(amount, 1) * 100', '(SELECT s.label FROM regress_exp.branches s WHERE s.branch = customers.name)',
		'EXISTS (SELECT FROM regress_exp.branches WHERE branch = name)', '"Mixed Case"'] LOOP
		sql := (dvmig._compile_expression((SELECT oid FROM pg_roles WHERE rolname = current_user), 'regress_exp.customers', e)).expression_sql;
		EXECUTE format('SELECT array_agg((%s)::text ORDER BY id) FROM regress_exp.customers s', sql) INTO v;
		RAISE NOTICE '%', v;
	END LOOP;
END $$;
SET search_path = regress_exp, public;

-- Exact casts to key types: another key never comes out.
SELECT t.source, t.target, dvmig._exact_cast('s.x', t.source, t.target)
FROM (VALUES ('int4'::regtype, 'int8'::regtype), ('int8', 'int4'), ('int4', 'int4'), ('numeric', 'int4'), ('text', 'int4'), ('float8', 'int4'), ('bool', 'int4'),
	('int4', 'numeric'), ('text', 'numeric'), ('float8', 'numeric'), ('int4', 'text'), ('uuid', 'text'), ('numeric', 'text'), ('date', 'text'),
	('bpchar', 'text'), ('text', 'bpchar'), ('varchar', 'text'), ('bpchar', 'bpchar'), ('regress_exp.code', 'varchar'), ('text', 'regress_exp.code'),
	('regress_exp.colour', 'text'), ('text', 'uuid'), ('text', 'date'), ('timestamp', 'date'), ('date', 'timestamp'), ('timestamptz', 'timestamp'),
	('timestamp', 'timestamptz'), ('timestamptz', 'timestamptz')) t(source, target);
CREATE FUNCTION pg_temp.cast_value(value text, source regtype, target regtype) RETURNS text LANGUAGE plpgsql AS $$
DECLARE r text;
BEGIN
	EXECUTE format('SELECT (%s)::text FROM (SELECT %L::%s AS x) s', dvmig._exact_cast('s.x', source, target), value, source) INTO r;
	RETURN r;
EXCEPTION WHEN data_exception THEN
	RETURN 'fails: ' || SQLSTATE;
END $$;
SELECT v.value, v.source, v.target, pg_temp.cast_value(v.value, v.source, v.target)
FROM (VALUES ('5.00', 'numeric'::regtype, 'int4'::regtype), ('5.5', 'numeric', 'int4'), ('500', 'numeric', 'int4'), ('NaN', 'numeric', 'int8'),
	('3000000000', 'int8', 'int4'), ('007', 'text', 'int4'), ('x', 'text', 'int4'), ('abcdefghijkl', 'text', 'regress_exp.code'),
	('12', 'int4', 'text'), ('nope', 'text', 'uuid'), (NULL, 'numeric', 'int4')) v(value, source, target);

-- Hints from names: nearest first, nothing far-fetched.
SELECT dvmig._near('nmae', '{name,names,fame,revenue}');
SELECT dvmig._near('internalemail', '{internalemailaddress,fullname}');
SELECT dvmig._near('zzz', '{name,revenue}');
SELECT dvmig._near('x', '{}');

-- Internal functions are for the extension's owner alone.
CREATE ROLE regress_exp_user;
GRANT USAGE ON SCHEMA dvmig TO regress_exp_user;
SET ROLE regress_exp_user;
SELECT dvmig._run_as(10, 'SELECT 1', true);
SELECT * FROM dvmig._query_as(10, 'SELECT 1');
SELECT dvmig._compile_expression(10, 'pg_class', '1');
RESET ROLE;

-- Run as a role: its rights, a pinned path, settings that do not stay.
GRANT SELECT ON customers TO regress_exp_user;
GRANT USAGE ON SCHEMA regress_exp TO regress_exp_user;
CREATE FUNCTION pg_temp.u() RETURNS oid LANGUAGE sql AS $$SELECT 'regress_exp_user'::regrole::oid$$;
SELECT * FROM dvmig._query_as(pg_temp.u(), 'SELECT current_user UNION ALL SELECT current_setting(''search_path'')');
SELECT * FROM dvmig._query_as(pg_temp.u(), 'SELECT count(*) FROM regress_exp.customers');
SELECT * FROM dvmig._query_as(pg_temp.u(), 'SELECT count(*) FROM regress_exp.branches');
SELECT * FROM dvmig._query_as(pg_temp.u(), 'SELECT set_config(''DateStyle'', ''German'', false)');
SHOW DateStyle;
SELECT * FROM dvmig._query_as(pg_temp.u(), 'CREATE TEMP TABLE t (x int)');
SELECT dvmig._run_as(pg_temp.u(), 'CREATE TEMP TABLE t (x int)');
SELECT dvmig._run_as(pg_temp.u(), 'SET ROLE postgres');
SELECT dvmig._run_as(pg_temp.u(), 'UPDATE regress_exp.customers SET id = id');
SELECT current_user = session_user;

REVOKE USAGE ON SCHEMA dvmig FROM regress_exp_user;
SET client_min_messages = warning;
RESET search_path;
DROP FUNCTION dvmig.regress_compile, dvmig._regress_compile;
DROP SCHEMA regress_exp CASCADE;
DROP ROLE regress_exp_user;

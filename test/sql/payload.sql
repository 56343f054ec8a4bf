-- How values become JSON: every accepted type and target, and what is refused
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS dvmig;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on
SET TimeZone = 'America/New_York';
SET DateStyle = 'German';
SET extra_float_digits = -5;
SET IntervalStyle = 'iso_8601';
SET bytea_output = 'escape';

-- One value in an insert; a fault as text.
CREATE FUNCTION pg_temp.j(value anyelement, column_type text, behavior text DEFAULT NULL, op text DEFAULT 'insert') RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	RETURN dvmig._payload_json(value, column_type, behavior, 'm', 'accounts', op);
EXCEPTION WHEN invalid_parameter_value THEN
	RETURN SQLERRM;
END $$;
CREATE TYPE pg_temp.colour AS ENUM ('red', 'dark "blue"');
CREATE DOMAIN pg_temp.short AS varchar(20);
CREATE DOMAIN pg_temp.shorter AS pg_temp.short CHECK (length(VALUE) < 10);
CREATE DOMAIN pg_temp.amount AS numeric(12,2);

-- Text
SELECT pg_temp.j(''::text, 'String');
SELECT pg_temp.j('plain'::text, 'Memo');
SELECT pg_temp.j('  blanks stay  '::varchar(30), 'String');
SELECT pg_temp.j('padding goes'::char(30), 'String');
SELECT pg_temp.j('a "name"'::name, 'String');
SELECT pg_temp.j('quote " backslash \ slash / tick '' less <'::text, 'String');
SELECT pg_temp.j(E'line\nreturn\rtab\tback\bfeed\f'::text, 'Memo');
SELECT pg_temp.j(E'\x01\x1f\x7f'::text, 'Memo') = E'"m":"\\u0001\\u001f\x7f"';
SELECT pg_temp.j('Müller & Söhne, Łódź, 東京, 😀, '::text, 'String');
SELECT pg_temp.j(U&'u\0308 \200B \2028 \FFFD \FFFF \+10FFFF'::text, 'String') = U&'"m":"u\0308 \200B \2028 \FFFD \FFFF \+10FFFF"';
SELECT pg_temp.j('{"a": "x\ny", "b":  [1]}'::json, 'Memo');
SELECT pg_temp.j('{"b": [1, null], "a": "x\ny"}'::jsonb, 'Memo');
SELECT pg_temp.j('dark "blue"'::pg_temp.colour, 'String');
SELECT pg_temp.j('domain'::pg_temp.shorter, 'String');
SELECT pg_temp.j('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::uuid, 'String');
SELECT pg_temp.j(a, 'String') FROM (VALUES (0), (2147483647), (-2147483648)) v (a);
SELECT pg_temp.j((-32768)::int2, 'String'), pg_temp.j((-9223372036854775808)::int8, 'String'), pg_temp.j(10.500, 'String');

-- Every byte that must be escaped, at every place of a machine word; the JSON reads back as what it was.
SELECT count(*), bool_and(('{' || pg_temp.j(t, 'Memo') || '}')::json ->> 'm' = t)
FROM (SELECT repeat('x', before) || c || repeat('ü', after) || c AS t
	FROM generate_series(0, 17) before, generate_series(0, 9) after,
		(SELECT chr(n) FROM generate_series(1, 300) n) chars (c)) v;
-- Long and stored out of line.
CREATE TEMP TABLE long_text (t text, packed text, plain text, bytes bytea, fixed char(2000000));
ALTER TABLE long_text ALTER plain SET STORAGE EXTERNAL;
INSERT INTO long_text SELECT t, repeat('ab"', 400000), t, decode(md5('x'), 'hex') || decode(repeat('00ff', 50000), 'hex'), left(t, 1000)
	FROM (SELECT string_agg(md5(g::text) || E'\n', '') AS t FROM generate_series(1, 40000) g) v;
SELECT length(t), ('{' || dvmig._payload_json(t, 'Memo', NULL, 'm', NULL, 'insert') || '}')::json ->> 'm' = t,
	('{' || dvmig._payload_json(packed, 'Memo', NULL, 'm', NULL, 'insert') || '}')::json ->> 'm' = packed,
	('{' || dvmig._payload_json(plain, 'Memo', NULL, 'm', NULL, 'insert') || '}')::json ->> 'm' = plain,
	('{' || dvmig._payload_json(fixed, 'Memo', NULL, 'm', NULL, 'insert') || '}')::json ->> 'm' = rtrim(fixed),
	decode(('{' || dvmig._payload_json(bytes, 'Image', NULL, 'm', NULL, 'insert') || '}')::json ->> 'm', 'base64') = bytes FROM long_text;
SELECT pg_temp.j(repeat('x', 32 * 1024 * 1024), 'Memo');
SELECT length(pg_temp.j(repeat(E'\n', 32 * 1024 * 1024 - 4), 'Memo'));

-- Whole numbers
SELECT pg_temp.j(a::int2, 'Integer'), pg_temp.j(a::int4, 'Picklist'), pg_temp.j(a::int8, 'State'), pg_temp.j(a::numeric, 'Status'), pg_temp.j(a::numeric(10,3), 'BigInt')
	FROM (VALUES (0), (1), (-1), (32767), (-32768)) v (a);
SELECT pg_temp.j(9223372036854775807, 'BigInt'), pg_temp.j((-9223372036854775808)::int8, 'BigInt'), pg_temp.j(9223372036854775807.00, 'BigInt');
SELECT pg_temp.j(9223372036854775808, 'BigInt');
SELECT pg_temp.j(-9223372036854775809.0, 'BigInt');
SELECT pg_temp.j(1.5, 'Integer');
SELECT pg_temp.j(-0.001, 'Integer');
SELECT pg_temp.j(1e30 + 0.5, 'Integer');
SELECT pg_temp.j('NaN'::numeric, 'Integer');

-- Numbers
SELECT pg_temp.j(a, 'Decimal') FROM (VALUES (0.0), (-0.0), (1.50), (-0.5), (0.0000000001), (922337203685477.5807), (-100000000000), (1e20)) v (a);
SELECT pg_temp.j(1234.5::pg_temp.amount, 'Money');
SELECT pg_temp.j(7::int2, 'Money'), pg_temp.j(7::int4, 'Double'), pg_temp.j(7::int8, 'Decimal');
SELECT pg_temp.j(a::float8, 'Double') FROM (VALUES ('0'), ('-0'), ('1'), ('0.1'), ('-1.5'), ('123456789.123'), ('1e15'), ('123456789012345680'), ('1e21'),
	('1.25e-5'), ('-1e-7'), ('9007199254740993'), ('0.30000000000000004'), ('1e30'), ('1e31'), ('1.7976931348623157e308'), ('5e-324')) v (a);
SELECT pg_temp.j(a::float4, 'Double') FROM (VALUES ('0.1'), ('1234567'), ('16777216'), ('3.4028235e38'), ('1e-45'), ('-2.5e-6')) v (a);
SELECT pg_temp.j(a::numeric, 'Money'), pg_temp.j(a::float4, 'Double'), pg_temp.j(a::float8, 'Double') FROM (VALUES ('NaN'), ('Infinity'), ('-Infinity')) v (a);
-- Floats read back as the same number.
SELECT count(*), bool_and((('{' || pg_temp.j(f, 'Double') || '}')::json ->> 'm')::float8 = f)
	FROM (SELECT (sin(g) * power(10, g % 60 - 30))::float8 AS f FROM generate_series(1, 3000) g) v;

-- Yes/no, ids, lookups
SELECT pg_temp.j(true, 'Boolean'), pg_temp.j(false, 'Boolean');
SELECT pg_temp.j('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::uuid, 'Uniqueidentifier'), pg_temp.j('00000000-0000-0000-0000-00000000000f'::uuid, 'Lookup'),
	pg_temp.j('00000000-0000-0000-0000-00000000000f'::uuid, 'Customer');
SELECT dvmig._payload_json('00000000-0000-0000-0000-00000000000f'::uuid, 'Owner', NULL, 'ownerid@odata.bind', 'systemusers', 'update');

-- Dates: whatever the session's time zone and date style
SELECT pg_temp.j(a::date, 'DateTime', 'DateOnly'), pg_temp.j(a::date, 'DateTime', 'UserLocal'), pg_temp.j(a::date, 'DateTime', 'TimeZoneIndependent')
	FROM (VALUES ('2024-02-29'), ('1753-01-01'), ('9999-12-30'), ('1999-12-31'), ('2000-01-01'), ('1900-03-01')) v (a);
SELECT pg_temp.j(a::date, 'DateTime', 'DateOnly') FROM (VALUES ('1752-12-31'), ('9999-12-31'), ('0044-03-15 BC'), ('5874897-12-31'), ('infinity'), ('-infinity')) v (a);
SELECT pg_temp.j(a::timestamp, 'DateTime', 'DateOnly'), pg_temp.j(a::timestamp, 'DateTime', 'UserLocal'), pg_temp.j(a::timestamp, 'DateTime', 'TimeZoneIndependent')
	FROM (VALUES ('2024-03-10 02:30:00'), ('1753-01-01 00:00:00'), ('9999-12-30 23:59:59.999999'), ('1999-12-31 23:59:59.999999'), ('1970-01-01 00:00:00.5'), ('1888-08-08 08:08:08')) v (a);
SELECT pg_temp.j(a::timestamp, 'DateTime', 'UserLocal') FROM (VALUES ('1752-12-31 23:59:59.999999'), ('9999-12-31 00:00:00'), ('4713-01-01 00:00:00 BC'), ('294276-12-31 23:59:59'), ('infinity'), ('-infinity')) v (a);
SELECT pg_temp.j(a::timestamptz, 'DateTime', 'UserLocal'), pg_temp.j(a::timestamptz, 'DateTime'), pg_temp.j(a::timestamptz, 'DateTime', 'DateOnly')
	FROM (VALUES ('2024-05-31 22:30:00-04'), ('2024-11-03 01:30:00-05'), ('2024-11-03 01:30:00-04'), ('1999-12-31 23:59:59.999Z'), ('2024-05-31 10:00:00+05:30'), ('1753-01-01 00:00:00Z')) v (a);
SELECT pg_temp.j(a::timestamptz, 'DateTime', 'UserLocal') FROM (VALUES ('1752-12-31 23:00:00Z'), ('9999-12-30 20:00:00-04'), ('infinity'), ('-infinity')) v (a);
SET TimeZone = 'Pacific/Kiritimati';
SELECT pg_temp.j('2024-05-31 10:00:00Z'::timestamptz, 'DateTime'), pg_temp.j('2024-05-31 10:00:00Z'::timestamptz, 'DateTime', 'DateOnly'), pg_temp.j('2024-05-31 10:00:00'::timestamp, 'DateTime');
SET TimeZone = 'America/New_York';
-- Every day of a leap cycle agrees with the server's own calendar.
SELECT count(*), bool_and(pg_temp.j(d::date, 'DateTime', 'DateOnly') = '"m":"' || to_char(d, 'YYYY-MM-DD') || '"'
	AND pg_temp.j(d + interval '13:45:06', 'DateTime') = '"m":"' || to_char(d, 'YYYY-MM-DD') || 'T13:45:06Z"')
	FROM generate_series(timestamp '1753-01-01', '2153-01-01', '13 days') d;

-- Bytes
SELECT pg_temp.j(a::bytea, 'Image') FROM (VALUES (''), ('\x00'), ('\x0001'), ('\x000102'), ('\xfffefdfc')) v (a);

-- Choices
SELECT pg_temp.j(a, 'MultiSelectPicklist') FROM (VALUES ('1,9'), (' 1 , 9 '), ('5'), ('-1,100000000'), (''), ('   '), ('1,'), (',1'), ('1 9'), ('one'), ('1;9'), ('1,,2'), ('99999999999999')) v (a);
SELECT pg_temp.j('1,2'::varchar, 'MultiSelectPicklist'), pg_temp.j('1,2'::char(9), 'MultiSelectPicklist'), pg_temp.j(7::int2, 'MultiSelectPicklist'), pg_temp.j(7, 'MultiSelectPicklist'), pg_temp.j(7::int8, 'MultiSelectPicklist');
SELECT pg_temp.j(a, 'MultiSelectPicklist'), pg_temp.j(a::int2[], 'MultiSelectPicklist'), pg_temp.j(a::int8[], 'MultiSelectPicklist')
	FROM (VALUES ('{1,9}'::int[]), ('{7}'), ('{}'), ('{1,NULL}'), ('{{1,2},{3,4}}'), ('[5:6]={1,2}')) v (a);
SELECT pg_temp.j('{}'::int[], 'MultiSelectPicklist', NULL, 'update'), pg_temp.j(''::text, 'MultiSelectPicklist', NULL, 'update');
SELECT pg_temp.j(array_agg(g), 'MultiSelectPicklist') = '"m":"' || string_agg(g::text, ',') || '"' FROM generate_series(1, 150) g;
SELECT pg_temp.j(array_agg(g), 'MultiSelectPicklist'), pg_temp.j(string_agg(g::text, ','), 'MultiSelectPicklist') FROM generate_series(1, 151) g;

-- Null is left out of an insert and written in an update.
SELECT '[' || pg_temp.j(NULL::text, 'String') || ']', pg_temp.j(NULL::text, 'String', NULL, 'update'), pg_temp.j(NULL::uuid, 'Lookup', NULL, 'update'), pg_temp.j(NULL::date, 'DateTime', 'DateOnly', 'update');
SELECT dvmig._payload_json(NULL, 'String', NULL, 'literal', NULL, 'update'), dvmig._payload_json('x', 'String', NULL, 'literal', NULL, 'update');

-- Rows: order, commas, direction, deferred columns, lookups to several tables
CREATE FUNCTION pg_temp.r(name text, revenue numeric, owner uuid, account uuid, contact uuid, parent uuid, op text, deferred bool) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN dvmig._payload_row(ROW(name, revenue, owner, account, contact, parent), ARRAY[
		['name', 'String', NULL, NULL, NULL, NULL, NULL],
		['revenue', 'Money', NULL, NULL, NULL, 'update', NULL],
		['ownerid', 'Owner', NULL, 'ownerid@odata.bind', 'systemusers', 'insert', NULL],
		['customerid', 'Customer', NULL, 'customerid_account@odata.bind', 'accounts', NULL, NULL],
		['customerid', 'Customer', NULL, 'customerid_contact@odata.bind', 'contacts', NULL, NULL],
		['parentcaseid', 'Lookup', NULL, 'parentcaseid@odata.bind', 'incidents', NULL, 'deferred']], op, deferred);
EXCEPTION WHEN invalid_parameter_value THEN
	RETURN SQLERRM;
END $$;
\set u1 '''00000000-0000-0000-0000-000000000001'''
\set u2 '''00000000-0000-0000-0000-000000000002'''
SELECT pg_temp.r('n', 1.0, :u1, :u1, NULL, :u2, 'insert', false);
SELECT pg_temp.r('n', 1.0, :u1, :u1, NULL, :u2, 'insert', true);
SELECT pg_temp.r('n', 1.0, :u1, NULL, :u2, :u2, 'update', false);
SELECT pg_temp.r('n', 1.0, :u1, NULL, :u2, NULL, 'update', true);
SELECT pg_temp.r(NULL, NULL, NULL, NULL, NULL, NULL, 'update', false);
SELECT '[' || pg_temp.r(NULL, NULL, NULL, NULL, NULL, NULL, 'insert', false) || ']';
SELECT pg_temp.r(NULL, 2, NULL, :u1, NULL, NULL, 'update', false);
SELECT pg_temp.r('n', NULL, NULL, :u1, :u2, NULL, 'insert', false);
SELECT pg_temp.r('n', 'NaN', NULL, :u1, NULL, NULL, 'update', false);
SELECT pg_temp.r('n', 'NaN', NULL, :u1, NULL, NULL, 'insert', false);
-- A lookup of which one target is deferred: the other pass must not clear it.
SELECT op, deferred, dvmig._payload_row(ROW(NULL::uuid, a::uuid), ARRAY[
	['customerid', 'Customer', NULL, 'customerid_account@odata.bind', 'accounts', NULL, NULL],
	['customerid', 'Customer', NULL, 'customerid_contact@odata.bind', 'contacts', NULL, 'deferred']], op, deferred)
	FROM (VALUES (NULL), (:u1)) v (a), (VALUES ('insert'), ('update')) o (op), (VALUES (false), (true)) d (deferred) ORDER BY a, op, deferred;

-- Refused with a message, not sent.
\set VERBOSITY default
SELECT dvmig._payload_json('x'::text, 'Integer', NULL, 'm', NULL, 'insert');
SELECT dvmig._payload_json('x'::text, 'PartyList', NULL, 'm', NULL, 'insert');
SELECT dvmig._payload_json('x'::text, 'String', NULL, 'm', NULL, 'upsert');

-- What the mapping is told: every type for every target, with the cast to write.
SELECT type, string_agg(CASE WHEN accepted THEN '+' ELSE coalesce(cast_hint, '-') END, ' | ' ORDER BY c)
FROM unnest(ARRAY['text', 'varchar', 'bpchar', 'name', '"char"', 'json', 'jsonb', 'xml', 'uuid', 'int2', 'int4', 'int8', 'numeric', 'float4', 'float8', 'money', 'oid',
		'bool', 'date', 'timestamp', 'timestamptz', 'time', 'interval', 'bytea', 'int2[]', 'int4[]', 'int8[]', 'text[]', 'inet', 'point',
		'pg_temp.colour', 'pg_temp.shorter', 'pg_temp.amount', 'long_text', 'record', 'unknown']::regtype[]) WITH ORDINALITY t (type, i),
	(VALUES (1, 'String', NULL), (2, 'Integer', NULL), (3, 'Decimal', NULL), (4, 'Boolean', NULL), (5, 'Uniqueidentifier', NULL), (6, 'DateTime', 'DateOnly'),
		(7, 'DateTime', 'UserLocal'), (8, 'DateTime', 'TimeZoneIndependent'), (9, 'Image', NULL), (10, 'MultiSelectPicklist', NULL), (11, 'Lookup', NULL)) k (c, column_type, behavior),
	dvmig._payload_accepts(type, column_type, behavior)
GROUP BY type, i ORDER BY i;
-- Each of these casts exists and leads to an accepted type.
CREATE FUNCTION pg_temp.hint_works(type regtype, cast_hint text, column_type text, behavior text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result regtype;
BEGIN
	EXECUTE format('SELECT pg_typeof((NULL::%s)%s)', type, cast_hint) INTO result;
	RETURN CASE WHEN (dvmig._payload_accepts(result, column_type, behavior)).accepted THEN 'works' ELSE 'still refused' END;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLERRM;
END $$;
SELECT pg_temp.hint_works(t.oid::regtype, cast_hint, column_type, behavior) AS result, count(*) > 100
FROM pg_type t,
	(VALUES ('String', NULL), ('Integer', NULL), ('Decimal', NULL), ('Boolean', NULL), ('Uniqueidentifier', NULL), ('DateTime', 'DateOnly'),
		('DateTime', 'UserLocal'), ('DateTime', 'TimeZoneIndependent'), ('Image', NULL), ('MultiSelectPicklist', NULL), ('Lookup', NULL)) k (column_type, behavior),
	dvmig._payload_accepts(t.oid::regtype, column_type, behavior)
WHERE cast_hint IS NOT NULL AND t.oid < 16384 AND t.typtype <> 'p' GROUP BY 1;
SELECT column_type, dvmig._payload_accepts('text', column_type, NULL)
FROM unnest(ARRAY['String', 'Memo', 'PartyList', 'File', 'Virtual', 'EntityName', 'ManagedProperty', 'CalendarRules', 'string', NULL]) column_type;

-- The content hash is stored: it never changes. Published vectors of MurmurHash3 are among these.
SELECT encode(dvmig._payload_hash(a::bytea), 'hex') FROM (VALUES (''), ('a'), ('hello'), ('"name":"Contoso"'), ('The quick brown fox jumps over the lazy dog')) v (a);
SELECT count(DISTINCT dvmig._payload_hash(convert_to(g::text, 'UTF8'))) FROM generate_series(1, 100000) g;

-- Internal: granted to nobody.
SELECT proname, has_function_privilege('public', p.oid, 'EXECUTE') FROM pg_proc p
	WHERE pronamespace = 'dvmig'::regnamespace AND proname LIKE '\_payload%' ORDER BY 1;

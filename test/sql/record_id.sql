-- dvmig.record_id(): test vectors, likeness of types, order, refusals
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS dvmig;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on

-- The vectors of doc/record-id.md. Never edit them: ids in use depend on them.
SELECT count(*) AS vectors, count(*) FILTER (WHERE got = want) AS agree FROM (VALUES
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 0), uuid '1677c581-2362-8b5b-b801-000000000000'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 1), uuid '4d5399d0-eef9-8f08-9cd2-000000000001'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 42), uuid '7024c281-02fa-8149-85f0-00000000002a'),
	(dvmig.record_id('00000000-0000-0000-0000-000000000000', 42), uuid '9f2f341c-9d7f-8126-bc4f-00000000002a'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 281474976710655), uuid 'f47bea60-1bca-8e01-b0de-ffffffffffff'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 281474976710656), uuid '9b2e1368-dd22-82ae-8b75-4b22eac126b3'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', -1), uuid '2e131bdc-6b89-8c14-a373-897db62b083c'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 9223372036854775807), uuid '2b2b4f6b-5851-8891-93d6-c98228e95783'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', -9223372036854775808), uuid '4dac5535-c3ed-83cd-9894-4a58a65499b6'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 123456789012345678901234567890::numeric), uuid 'fe4c1825-8bc5-8e3c-82b0-786b6fdecdc0'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 42.50::numeric), uuid '958c7390-e785-8eae-b50b-27fb1da41019'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', -0.001::numeric), uuid '02a4185c-5e20-81b8-b1de-e09a1e09fdac'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', ''::text), uuid '218b595e-ac66-851e-a3d9-5f2b2aafe5dc'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', '42'::text), uuid '944bee37-b20e-8098-9847-c2321dedab91'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 'C-1001'::text), uuid 'ebfffac4-6d6e-8f06-a0c1-70772456d71f'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 'c-1001'::text), uuid 'dc1d0b5c-b1bb-8e2a-82f7-b10d34dc4c80'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', U&'M\00FCller'::text), uuid '0b05f7a3-ba7f-8d88-a735-f5678e4fa2e0'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', U&'Mu\0308ller'::text), uuid '279b4835-244d-8fba-8a4a-8897edf23261'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', U&'\+01F600'::text), uuid '4f477092-7afa-8fbb-9509-635bcee34406'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', repeat('x', 100)), uuid '59cd004b-999f-8140-84e7-daf29035d9e2'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid), uuid '2ab7ff8a-cf20-8bda-9d60-7d29ffac7237'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', '\x00ff10'::bytea), uuid '0336af33-e478-883a-b99d-dba85ab3efb4'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', true), uuid '0c55be59-a8e4-8609-b20b-8b833028bd47'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', false), uuid '60f24199-a3fb-81d7-acd1-cd6a08cb4df9'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', date '2024-05-31'), uuid 'a39cfe26-48c2-8caa-8c22-49db5d4fc1ec'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', date '1999-12-31'), uuid '8a051d7a-f165-8a7f-a376-1d57fcab332a'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', timestamp '2024-05-31 10:00:00.123456'), uuid 'bd6b0ccc-f1ee-8b62-a2a8-fcedfff6599f'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', timestamptz '2024-05-31 10:00:00.123456+00'), uuid '49665e56-9a0f-8a74-806f-61aed777fa5a'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 1, 2), uuid 'd7aabb6a-2f58-89cd-8c23-47248a3cf3ed'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 12, 'x'::text), uuid '12038e63-e920-8f0e-9afd-5613009e92e3'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 1, '2x'::text), uuid '7b7ed66e-3179-84cb-bbdc-6a70915b85e3'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 'ab'::text, 'c'::text), uuid '524d1684-6930-8028-bf8a-3cc8b7c488ba'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 'a'::text, 'bc'::text), uuid 'c33b1e36-19bd-8bc9-89e8-3ca584df836f'),
	(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 7, date '2024-05-31', 'EU'::text), uuid '1acad0c5-3a94-8db4-8ed1-8d901ffc25b3')
) v (got, want);

-- The format spelled out in SQL over the server's own sha256().
CREATE FUNCTION pg_temp.part(tag text, content bytea) RETURNS bytea LANGUAGE sql IMMUTABLE
	AS $$ SELECT convert_to(tag, 'UTF8') || int4send(length(content)) || content $$;
CREATE FUNCTION pg_temp.spelled_out(parts bytea, last_six bytea DEFAULT NULL) RETURNS uuid LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	id bytea := substr(sha256('\x01'::bytea || uuid_send('6ba7b811-9dad-11d1-80b4-00c04fd430c8') || parts), 1, 16);
BEGIN
	id := substr(id, 1, 10) || coalesce(last_six, substr(id, 11));
	id := set_byte(id, 6, get_byte(id, 6) & 15 | 128);
	id := set_byte(id, 8, get_byte(id, 8) & 63 | 128);
	RETURN encode(id, 'hex')::uuid;
END $$;
CREATE TEMP TABLE ns AS SELECT uuid '6ba7b811-9dad-11d1-80b4-00c04fd430c8' AS ns;
SELECT 'texts of every length around the block size', count(*), bool_and(dvmig.record_id(ns, repeat('k', n)) = pg_temp.spelled_out(pg_temp.part('t', convert_to(repeat('k', n), 'UTF8'))))
	FROM ns, generate_series(0, 300) n;
SELECT 'bytes', count(*), bool_and(dvmig.record_id(ns, sha512(int4send(n))) = pg_temp.spelled_out(pg_temp.part('b', sha512(int4send(n)))))
	FROM ns, generate_series(1, 100) n;
SELECT 'whole numbers in sequence', count(*), bool_and(dvmig.record_id(ns, n) = pg_temp.spelled_out(pg_temp.part('n', convert_to(n::text, 'UTF8')), substr(int8send(n), 3)))
	FROM ns, generate_series(0, 281474976710655, 2814749767106) n;
SELECT 'other whole numbers', count(*), bool_and(dvmig.record_id(ns, n) = pg_temp.spelled_out(pg_temp.part('n', convert_to(n::text, 'UTF8'))))
	FROM ns, generate_series(-9223372036854775807, -1, 92233720368547758) n;
SELECT 'pairs', count(*), bool_and(dvmig.record_id(ns, n, n::text) = pg_temp.spelled_out(pg_temp.part('n', convert_to(n::text, 'UTF8')) || pg_temp.part('t', convert_to(n::text, 'UTF8'))))
	FROM ns, generate_series(1, 100) n;

-- Whole numbers of any type are alike, so are texts; other types differ.
SELECT count(DISTINCT dvmig.record_id(ns, 42)), bool_and(a = dvmig.record_id(ns, 42)) FROM ns, LATERAL (VALUES
	(dvmig.record_id(ns, 42::int2)), (dvmig.record_id(ns, 42::int8)), (dvmig.record_id(ns, 42::numeric)),
	(dvmig.record_id(ns, 42.000)), (dvmig.record_id(ns, 42::numeric(10,2))), (dvmig.record_id(ns, 0.42e2))) v (a);
SELECT dvmig.record_id(ns, 9223372036854775807) = dvmig.record_id(ns, 9223372036854775807.0),
	dvmig.record_id(ns, (-7)::int2) = dvmig.record_id(ns, -7.00),
	dvmig.record_id(ns, 0::int2) = dvmig.record_id(ns, -0.00),
	dvmig.record_id(ns, 281474976710655) = dvmig.record_id(ns, 281474976710655.0),
	dvmig.record_id(ns, 281474976710656) = dvmig.record_id(ns, 281474976710656.0),
	dvmig.record_id(ns, 1.50) = dvmig.record_id(ns, 1.5), dvmig.record_id(ns, 1.5) <> dvmig.record_id(ns, 15) FROM ns;
SELECT bool_and(a = dvmig.record_id(ns, 'C-1'::text)) FROM ns, LATERAL (VALUES
	(dvmig.record_id(ns, 'C-1')), (dvmig.record_id(ns, 'C-1'::varchar(20))), (dvmig.record_id(ns, 'C-1'::char(20))),
	(dvmig.record_id(ns, 'C-1'::name))) v (a);
SELECT count(DISTINCT a), count(*) FROM ns, LATERAL (VALUES
	(dvmig.record_id(ns, 42)), (dvmig.record_id(ns, '42'::text)), (dvmig.record_id(ns, ' 42'::text)), (dvmig.record_id(ns, '42 '::text)),
	(dvmig.record_id(ns, '\x3432'::bytea)), (dvmig.record_id(ns, 42, NULL::int, 1)), (dvmig.record_id(ns, '')), (dvmig.record_id(ns, true)),
	(dvmig.record_id(ns, date '2024-01-01')), (dvmig.record_id(ns, timestamp '2024-01-01')), (dvmig.record_id(ns, timestamptz '2024-01-01 00:00Z')),
	(dvmig.record_id(ns, 4, 2)), (dvmig.record_id(ns, 2, 4)), (dvmig.record_id(ns, 42, '')), (dvmig.record_id(ns, '', 42)),
	(dvmig.record_id(ns, '', '')), (dvmig.record_id(ns, 'Ab')), (dvmig.record_id(ns, 'ab'))) v (a);

-- Domains count as their base type.
CREATE DOMAIN pg_temp.customer_no AS text CHECK (VALUE <> '');
CREATE DOMAIN pg_temp.key_customer_no AS pg_temp.customer_no NOT NULL;
SELECT dvmig.record_id(ns, 'C-1'::pg_temp.key_customer_no) = dvmig.record_id(ns, 'C-1') FROM ns;

-- Instants do not depend on the session's time zone.
SET TimeZone = 'Asia/Kolkata';
SELECT dvmig.record_id(ns, timestamptz '2024-05-31 15:30:00.123456') = dvmig.record_id(ns, timestamptz '2024-05-31 10:00:00.123456Z'),
	dvmig.record_id(ns, timestamp '2024-05-31 10:00:00.123456') FROM ns;
RESET TimeZone;

-- Version 8, variant of the RFC, in both forms.
SELECT DISTINCT substr(a::text, 15, 1), substr(a::text, 20, 1) IN ('8', '9', 'a', 'b') FROM ns, generate_series(1, 500) g,
	LATERAL (VALUES (dvmig.record_id(ns, g)), (dvmig.record_id(ns, g::text))) v (a);

-- SQL Server compares the last six bytes first: the order of the keys.
SELECT bool_and(previous < six) FROM (SELECT six, lag(six) OVER (ORDER BY k) AS previous
	FROM (SELECT k, substr(dvmig.record_id(ns, k)::text, 25) AS six FROM ns, LATERAL (SELECT generate_series(0, 281474976710655, 140737488355) UNION SELECT generate_series(0, 1000)) g (k)) x) y;

-- Nothing collides among a hundred thousand keys of each form and two namespaces.
SELECT count(*), count(DISTINCT id) FROM (
	SELECT dvmig.record_id(ns, g) AS id FROM ns, generate_series(1, 100000) g
	UNION ALL SELECT dvmig.record_id(ns, -g) FROM ns, generate_series(1, 100000) g
	UNION ALL SELECT dvmig.record_id(ns, g::text) FROM ns, generate_series(1, 100000) g
	UNION ALL SELECT dvmig.record_id(ns, g, g) FROM ns, generate_series(1, 100000) g
	UNION ALL SELECT dvmig.record_id('00000000-0000-0000-0000-000000000000', g) FROM generate_series(1, 100000) g) x;

-- Null in, null out.
SELECT dvmig.record_id(ns, NULL::int) IS NULL, dvmig.record_id(ns, NULL) IS NULL, dvmig.record_id(ns, 1, NULL::text) IS NULL,
	dvmig.record_id(NULL, 1) IS NULL, dvmig.record_id(ns, VARIADIC NULL::int[]) IS NULL,
	dvmig.record_id(ns, VARIADIC ARRAY[1, NULL]) IS NULL, dvmig.record_id(ns, VARIADIC ARRAY[]::int[]) IS NULL FROM ns;

-- The array form gives the id of its elements.
SELECT dvmig.record_id(ns, VARIADIC ARRAY[1, 2]) = dvmig.record_id(ns, 1, 2), dvmig.record_id(ns, VARIADIC ARRAY[42]) = dvmig.record_id(ns, 42),
	dvmig.record_id(ns, VARIADIC ARRAY['a', 'bc']) = dvmig.record_id(ns, 'a', 'bc'),
	dvmig.record_id(ns, VARIADIC ARRAY['a'::pg_temp.customer_no]) = dvmig.record_id(ns, 'a') FROM ns;

-- From columns, with toasted values, in an index and in a prepared statement.
CREATE TEMP TABLE source (id int PRIMARY KEY, code varchar(10), long_key text);
INSERT INTO source SELECT g, 'C-' || g, repeat(md5(g::text), 1000) FROM generate_series(1, 50) g;
SELECT bool_and(dvmig.record_id(ns, long_key) = dvmig.record_id(ns, repeat(md5(id::text), 1000))) FROM source, ns;
CREATE INDEX ON source (dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', id, code));
PREPARE by_key (int, text) AS SELECT id FROM source
	WHERE dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', id, code) = dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', $1, $2);
SET enable_seqscan = off;
SET plan_cache_mode = force_generic_plan;
EXECUTE by_key (7, 'C-7');
EXECUTE by_key (8, 'C-8');
RESET enable_seqscan;
RESET plan_cache_mode;

-- What cannot be a key says which cast helps.
\set VERBOSITY default
CREATE TYPE pg_temp.colour AS ENUM ('red');
SELECT dvmig.record_id(ns, 1.5::float8) FROM ns;
SELECT dvmig.record_id(ns, 1.5::float4) FROM ns;
SELECT dvmig.record_id(ns, 1::money) FROM ns;
SELECT dvmig.record_id(ns, 1::oid) FROM ns;
SELECT dvmig.record_id(ns, 'red'::pg_temp.colour) FROM ns;
SELECT dvmig.record_id(ns, 1, '{}'::jsonb) FROM ns;
SELECT dvmig.record_id(ns, time '10:00') FROM ns;
SELECT dvmig.record_id(ns, ROW(1, 2)) FROM ns;
SELECT dvmig.record_id(ns, ARRAY[1, 2]) FROM ns;
SELECT dvmig.record_id(ns, VARIADIC ARRAY[1.5::float8]) FROM ns;
SELECT dvmig.record_id(ns, 'NaN'::numeric) FROM ns;
SELECT dvmig.record_id(ns, '-Infinity'::numeric) FROM ns;
SELECT dvmig.record_id(ns, 'infinity'::date) FROM ns;
SELECT dvmig.record_id(ns, '-infinity'::timestamptz) FROM ns;
CREATE COLLATION pg_temp.no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
SELECT dvmig.record_id(ns, 1, 'x' COLLATE pg_temp.no_case) FROM ns;
SELECT dvmig.record_id(ns, VARIADIC ARRAY['x' COLLATE pg_temp.no_case]) FROM ns;
SELECT dvmig.record_id(ns, ('x' COLLATE pg_temp.no_case) COLLATE "C") = dvmig.record_id(ns, 'x') FROM ns;
SELECT dvmig.record_id(ns) FROM ns;

-- What the definition functions are told.
SELECT type, accepted, cast_hint FROM unnest(ARRAY['int2', 'int4', 'int8', 'numeric', 'text', 'varchar', 'bpchar', 'name', 'uuid', 'bytea', 'bool',
	'date', 'timestamp', 'timestamptz', 'pg_temp.key_customer_no', 'float4', 'float8', 'money', 'oid', 'jsonb', 'xml', 'inet', 'interval', 'int4[]',
	'"char"', 'pg_temp.colour', 'source', 'record', 'anyelement']::regtype[]) WITH ORDINALITY t (type, i),
	dvmig._record_id_accepts(type) ORDER BY i;

SELECT provolatile, proparallel, proisstrict, has_function_privilege('public', oid, 'EXECUTE')
	FROM pg_proc WHERE oid = 'dvmig.record_id(uuid, "any")'::regprocedure;

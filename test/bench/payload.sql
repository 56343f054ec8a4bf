-- How much work the appender and record_id() are, beside row_to_json().
--
-- psql -X -f test/bench/payload.sql in a database with the extension; takes
-- ten seconds. Times are of one backend on a table in memory, the best of
-- five, in seconds per million rows of 15 columns, the scan taken off.
\set QUIET on
SET client_min_messages = warning;
SET max_parallel_workers_per_gather = 0;
SET jit = off;

CREATE TEMP TABLE bench AS
SELECT g AS id, 'Company ' || g AS name,
	'The quick brown fox jumps over the lazy dog, again and again: ' || md5(g::text) AS description,
	(g % 1000)::int AS employees, round((g * 1.37)::numeric, 2) AS revenue, (g * 0.731)::float8 AS latitude, g % 3 = 0 AS vip,
	gen_random_uuid() AS parent, date '1990-01-01' + (g % 9000)::int AS founded,
	timestamptz '2020-01-01 00:00Z' + g * interval '1 minute' AS opened, timestamp '2010-01-01' + g * interval '1 hour' AS closed,
	(g % 12)::int AS industry, 'user' || (g % 500) || '@example.com' AS mail,
	CASE WHEN g % 5 <> 0 THEN 'Main street ' || (g % 97) END AS street, g::bigint * 1000003 AS legacy
FROM generate_series(1, 200000) g;
VACUUM ANALYZE bench;

CREATE FUNCTION pg_temp.seconds_per_million(query text) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
	started timestamptz;
	best    numeric;
BEGIN
	FOR i IN 1 .. 6 LOOP
		started := clock_timestamp();
		EXECUTE query;
		IF i > 1 THEN
			best := least(best, extract(epoch FROM clock_timestamp() - started) * 5);
		END IF;
	END LOOP;
	RETURN best;
END $$;

WITH m AS MATERIALIZED (
	SELECT pg_temp.seconds_per_million('SELECT count(b) FROM bench b WHERE b IS DISTINCT FROM NULL') AS rows,
		pg_temp.seconds_per_million('SELECT count(id) FROM bench') AS scan,
		pg_temp.seconds_per_million('SELECT sum(octet_length(row_to_json(b)::text)) FROM bench b') AS row_to_json,
		pg_temp.seconds_per_million($$SELECT sum(octet_length(dvmig._payload_row(b, ARRAY[
			['new_id', 'BigInt', NULL, NULL, NULL, NULL, NULL], ['name', 'String', NULL, NULL, NULL, NULL, NULL],
			['description', 'Memo', NULL, NULL, NULL, NULL, NULL], ['numberofemployees', 'Integer', NULL, NULL, NULL, NULL, NULL],
			['revenue', 'Money', NULL, NULL, NULL, NULL, NULL], ['address1_latitude', 'Double', NULL, NULL, NULL, NULL, NULL],
			['creditonhold', 'Boolean', NULL, NULL, NULL, NULL, NULL],
			['parentaccountid', 'Lookup', NULL, 'parentaccountid@odata.bind', 'accounts', NULL, NULL],
			['new_founded', 'DateTime', 'DateOnly', NULL, NULL, NULL, NULL], ['new_opened', 'DateTime', 'UserLocal', NULL, NULL, NULL, NULL],
			['new_closed', 'DateTime', 'TimeZoneIndependent', NULL, NULL, NULL, NULL], ['industrycode', 'Picklist', NULL, NULL, NULL, NULL, NULL],
			['emailaddress1', 'String', NULL, NULL, NULL, NULL, NULL], ['address1_line1', 'String', NULL, NULL, NULL, NULL, NULL],
			['new_legacy', 'BigInt', NULL, NULL, NULL, NULL, NULL]], 'insert', false))) FROM bench b$$) AS appender,
		pg_temp.seconds_per_million($$SELECT count(dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', id)) FROM bench$$) AS record_id
)
SELECT round(appender - rows, 2) AS appender, round(row_to_json - rows, 2) AS row_to_json,
	round((row_to_json - rows) / (appender - rows), 1) AS "times faster", round(record_id - scan, 2) AS record_id
FROM m;

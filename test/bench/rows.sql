-- The rows that every measurement of test/bench/run begins with: accounts of 15
-- columns, about 1,655 bytes of JSON each. :rows is how many.
--
-- Copied, not generated, for each measurement, so that all begin with the same
-- pages. Texts have what real ones have: accents, quotes, line ends.
\set QUIET on
SET client_min_messages = warning;
CREATE SCHEMA IF NOT EXISTS bench;
DROP TABLE IF EXISTS bench.origin;
CREATE TABLE bench.origin AS
SELECT g AS account_id,
	format('Müller & Söhne "%s" GmbH', g) AS name,
	'AC-' || lpad(g::text, 10, '0') AS accountnumber,
	'+49 30 ' || lpad((g % 10000000)::text, 7, '0') AS telephone1,
	'+49 40 ' || lpad((g * 7 % 10000000)::text, 7, '0') AS fax,
	'https://www.example.org/companies/' || g AS websiteurl,
	'info' || g || '@example.org' AS emailaddress1,
	'Straße des 17. Juni ' || g % 200 AS address1_line1,
	(ARRAY['Berlin', 'Hamburg', 'München', 'Köln', 'Leipzig'])[1 + g % 5] AS address1_city,
	lpad((g % 99999)::text, 5, '0') AS address1_postalcode,
	round((g % 1000000) * 1.37, 2) AS revenue,
	(g % 5000)::int AS numberofemployees,
	g % 7 = 0 AS creditonhold,
	timestamptz '2015-01-01 00:00Z' + g * interval '97 seconds' AS lastonholdtime,
	(SELECT string_agg(md5((g * 64 + i)::text), CASE i % 4 WHEN 0 THEN E'\n' ELSE ' ' END ORDER BY i)
	 FROM generate_series(1, 35) i) AS description
FROM generate_series(1, :rows) g
ORDER BY g;
VACUUM (ANALYZE, FREEZE) bench.origin;

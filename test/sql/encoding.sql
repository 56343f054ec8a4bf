-- Databases that are not UTF-8: ids and JSON come from the UTF-8 of the text
SET client_min_messages = warning;
DROP DATABASE IF EXISTS regress_dvmig_latin1;
DROP DATABASE IF EXISTS regress_dvmig_win1252;
DROP DATABASE IF EXISTS regress_dvmig_ascii;
RESET client_min_messages;
CREATE DATABASE regress_dvmig_latin1 TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C';
CREATE DATABASE regress_dvmig_win1252 TEMPLATE template0 ENCODING 'WIN1252' LOCALE 'C';
CREATE DATABASE regress_dvmig_ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C';
\set main :DBNAME
\pset format unaligned
\pset tuples_only on
\set VERBOSITY terse

-- LATIN1: every byte has a meaning.
\c regress_dvmig_latin1
SET client_encoding = 'UTF8';
CREATE EXTENSION dvmig;
SELECT octet_length('Müller'), dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 'Müller'::text) = '0b05f7a3-ba7f-8d88-a735-f5678e4fa2e0';
SELECT dvmig._payload_json('Müller "&" Söhne'::text, 'String', NULL, 'm', NULL, 'insert');
SELECT bool_and(('{' || dvmig._payload_json(t, 'String', NULL, 'm', NULL, 'insert') || '}')::json ->> 'm' = t)
	FROM (SELECT repeat('x', 5) || chr(n) || repeat(chr(n), 9) AS t FROM generate_series(1, 255) n) v;

-- WIN1252: 0x81 has none; the row is at fault.
\c regress_dvmig_win1252
SET client_encoding = 'UTF8';
CREATE EXTENSION dvmig;
SELECT octet_length('12 €'), dvmig._payload_json('12 €'::text, 'String', NULL, 'm', NULL, 'insert');
SELECT dvmig._payload_json('x' || chr(129), 'String', NULL, 'm', NULL, 'insert');
SELECT dvmig.record_id('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 'x' || chr(129));

-- SQL_ASCII: nobody knows what the bytes mean.
\c regress_dvmig_ascii
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE EXTENSION dvmig;

\c :main
DROP DATABASE regress_dvmig_latin1;
DROP DATABASE regress_dvmig_win1252;
DROP DATABASE regress_dvmig_ascii;

-- Masks: format and length stay, the value does not, and the same value gets
-- the same mask.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS dvmig;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on
\set SHOW_CONTEXT never

-- vectors: masks are in the copies of production data that were loaded
SELECT dvmig.mask_name('Anna Schmidt-Lorca', 'key'), dvmig.mask_name('O''Neill', 'key'), dvmig.mask_name('Müßig', 'key'), dvmig.mask_name('', 'key');
SELECT dvmig.mask_mail('anna.schmidt@contoso.com', 'key'), dvmig.mask_mail('Anna.Schmidt@CONTOSO.com', 'key'), dvmig.mask_mail('b@contoso.com', 'key');
SELECT dvmig.mask_mail('a@b.de', 'key'), dvmig.mask_mail('no address', 'key'), dvmig.mask_mail('a@b@c.example', 'key'), dvmig.mask_mail('@', 'key');
SELECT dvmig.mask_phone('+49 (0)30 1234-567', 'key'), dvmig.mask_phone('0049301234567', 'key'), dvmig.mask_phone('n/a', 'key'), dvmig.mask_phone('000', 'key');
SELECT dvmig.mask_text(E'Room 12,\n2nd floor: "Ω"', 'key'), dvmig.mask_text(repeat('x', 100), 'key') ~ '^[a-z]{100}$';
SELECT dvmig.mask_number(1234.50, 'key'), dvmig.mask_number(-0.05, 'key'), dvmig.mask_number(0, 'key'), dvmig.mask_number('NaN', 'key'), dvmig.mask_number(7, 'key');

-- what holds for all
SELECT dvmig.mask_name(NULL, 'key') IS NULL, dvmig.mask_mail(NULL, 'key') IS NULL, dvmig.mask_phone(NULL) IS NULL, dvmig.mask_text(NULL) IS NULL, dvmig.mask_number(NULL) IS NULL;
SELECT lower(dvmig.mask_name('SMITH', 'key')) = dvmig.mask_name('smith', 'key'), dvmig.mask_name('Smith', 'key') <> dvmig.mask_name('Smith', 'other key');
SELECT count(DISTINCT dvmig.mask_text('customer ' || i, 'key')), bool_and(length(dvmig.mask_text('customer ' || i, 'key')) = length('customer ' || i)) FROM generate_series(1, 1000) i;
SELECT bool_and(dvmig.mask_number(i::numeric, 'key')::int BETWEEN 1000000000 AND 2147483647) FROM generate_series(2000000000, 2147483647, 1000003) i WHERE dvmig.mask_number(i::numeric, 'key') < 2000000000;
SELECT bool_and(dvmig.mask_number(i::numeric, 'key') < 2000000000) FROM generate_series(2000000000, 2147483647, 1000003) i;
SELECT bool_and(dvmig.mask_number(9223372036854775807::numeric - i, 'key')::bigint > 0) FROM generate_series(1, 1000) i;

-- without a key nobody is told the masks of a migration
SELECT dvmig.mask_name('Smith');
SELECT has_table_privilege('public', 'dvmig._mask_secret', 'SELECT');

# dvmig.check() reads a staging table once for all rules, however many columns
# are mapped
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'check_scan', no_sim => 1);
my $rows = 20_000;

# Fifteen columns, two lookups, an alternate key: as in doc/check.md.
$t->sql(qq{
	CREATE SERVER nowhere FOREIGN DATA WRAPPER dataverse OPTIONS (url 'https://nowhere.example', tenant 'x', environment 'test');
	INSERT INTO dvmig.metadata_table (server, table_name, entity_set, primary_id, create_multiple, update_multiple) VALUES
		('nowhere', 'new_sale', 'new_sales', 'new_saleid', true, true), ('nowhere', 'new_shop', 'new_shops', 'new_shopid', true, true),
		('nowhere', 'systemuser', 'systemusers', 'systemuserid', false, false);
	INSERT INTO dvmig.metadata_column (server, table_name, column_name, column_type, max_length, min_value, max_value, precision_digits, date_behavior)
		SELECT 'nowhere', v.* FROM (VALUES ('new_shop', 'new_name', 'String', 50, NULL::numeric, NULL::numeric, NULL::int, NULL),
		('new_sale', 'new_no', 'String', 20, NULL, NULL, NULL, NULL), ('new_sale', 'new_text1', 'String', 30, NULL, NULL, NULL, NULL),
		('new_sale', 'new_text2', 'String', 30, NULL, NULL, NULL, NULL), ('new_sale', 'new_memo', 'Memo', 2000, NULL, NULL, NULL, NULL),
		('new_sale', 'new_int1', 'Integer', NULL, 0, 1000000, NULL, NULL), ('new_sale', 'new_int2', 'Integer', NULL, 0, 1000000, NULL, NULL),
		('new_sale', 'new_big', 'BigInt', NULL, NULL, NULL, NULL, NULL), ('new_sale', 'new_dec', 'Decimal', NULL, 0, 1000000, 2, NULL),
		('new_sale', 'new_dbl', 'Double', NULL, 0, 1000000, 5, NULL), ('new_sale', 'new_money', 'Money', NULL, 0, 1000000, 2, NULL),
		('new_sale', 'new_day', 'DateTime', NULL, NULL, NULL, NULL, 'DateOnly'), ('new_sale', 'new_at', 'DateTime', NULL, NULL, NULL, NULL, 'UserLocal'),
		('new_sale', 'new_kind', 'Picklist', NULL, NULL, NULL, NULL, NULL), ('new_sale', 'new_shopid', 'Lookup', NULL, NULL, NULL, NULL, NULL),
		('new_sale', 'ownerid', 'Owner', NULL, NULL, NULL, NULL, NULL), ('systemuser', 'internalemailaddress', 'String', 100, NULL, NULL, NULL, NULL)) v;
	INSERT INTO dvmig.metadata_choice SELECT 'nowhere', 'new_sale', 'new_kind', i, 'Kind ' || i FROM generate_series(1, 5) i;
	INSERT INTO dvmig.metadata_lookup VALUES ('nowhere', 'new_sale', 'new_shopid', 'new_shop', 'new_ShopId'), ('nowhere', 'new_sale', 'ownerid', 'systemuser', 'ownerid');
	INSERT INTO dvmig.metadata_key VALUES ('nowhere', 'new_sale', 'new_no_key', '{new_no}', 'Active');
	CREATE TABLE shop (id int PRIMARY KEY, name text);
	INSERT INTO shop SELECT i, 'Shop ' || i FROM generate_series(1, 50) i;
	CREATE TABLE big (id int PRIMARY KEY, no text, t1 text, t2 text, m text, i1 int, i2 int, b bigint, d numeric, f float8, money numeric, day date, at timestamptz,
		kind text, shop int, owner text);
	INSERT INTO big SELECT i, 'N' || i, 'text ' || i, repeat('x', 1 + i % 31), 'memo', i, i, i, i / 100.0, i / 3.0, i, date '2020-01-01' + i % 1000, now(),
		'Kind ' || 1 + i % 6, 1 + i % 51, 'somebody\@example.org' FROM generate_series(1, $rows) i;
	SELECT dvmig.create_migration('m', 'nowhere');
	SELECT dvmig.add_table('m', 'shop', 'new_shop', auto_map => false), dvmig.add_table('m', 'big', 'new_sale', auto_map => false);
	SELECT dvmig.map_column('shop', 'new_name', 'name');
	SELECT dvmig.map_column('big', 'new_no', 'no'), dvmig.map_column('big', 'new_text1', 't1'), dvmig.map_column('big', 'new_text2', 't2'), dvmig.map_column('big', 'new_memo', 'm'),
		dvmig.map_column('big', 'new_int1', 'i1'), dvmig.map_column('big', 'new_int2', 'i2'), dvmig.map_column('big', 'new_big', 'b'), dvmig.map_column('big', 'new_dec', 'd'),
		dvmig.map_column('big', 'new_dbl', 'f'), dvmig.map_column('big', 'new_money', 'money'), dvmig.map_column('big', 'new_day', 'day'), dvmig.map_column('big', 'new_at', 'at'),
		dvmig.map_choice('big', 'new_kind', 'kind'), dvmig.map_lookup('big', 'new_shopid', 'shop', 'shop'),
		dvmig.map_lookup('big', 'ownerid', 'owner', 'systemuser', match_on => 'internalemailaddress');
	ANALYZE});

my $plan = $t->sql(q{
	DO $$
	DECLARE
		q record := dvmig._check_query('big', '{}', false, NULL, '{}', 5);
		line text;
	BEGIN
		CREATE TEMP TABLE lines (n serial, line text);
		FOR line IN EXECUTE 'EXPLAIN (COSTS off) ' || q.query_sql LOOP
			INSERT INTO lines (line) VALUES (line);
		END LOOP;
	END $$;
	SELECT line FROM lines ORDER BY n});
my $scans = () = $plan =~ /Scan .*\bon big s\b/g;
is($scans, 1, 'the plan scans the staging table once') or diag $plan;
cmp_ok($t->sql(q{SELECT count(*) FROM dvmig._check_rules('big', '{}')}), '>', 20, 'for more than twenty rules');

# In all, also the count of rows by flag, which is the other reading.
my $found = $t->sql(q{
	BEGIN;
	SELECT string_agg(rule || ' ' || affected_rows, ', ' ORDER BY rule) FROM dvmig.check('m') WHERE severity = 'error';
	SELECT seq_scan + coalesce(idx_scan, 0), seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'big';
	COMMIT});
is($found, join("\n", join(', ', 'orphan ' . int(($rows + 0) / 51), 'too_long ' . int($rows / 31), 'unknown_choice ' . int(($rows + 1) / 6)), '2|' . 2 * $rows),
	'and the check as a whole reads it twice: to count, and to judge');

# The plan: what is assumed at first, and what was measured then, with a quarter in hand.
sub planned { return $t->sql(q{SELECT creates, batches, requests, bytes > 0, expected_duration, remark FROM dvmig.plan('m') WHERE staging = 'public.big' AND pass = 'write'}); }
is(planned(), "$rows|40|40|t|00:04:10|duration assumes 100 rows a second and 500 rows a request: nothing was measured yet", 'the plan assumes 100 rows a second');
$t->sql(q{
	INSERT INTO dvmig.run_history (run, migration_id, migration, server, state, started_by) SELECT 7, migration_id, 'm', 'nowhere', 'completed', 'x' FROM dvmig.migration;
	INSERT INTO dvmig.run_table (run, staging, pass, step, wave, state, succeeded, failed, unchanged, requests, started_at, ended_at)
		VALUES (7, 'public.big', 'write', 1, 1, 'done', 10400, 100, 500, 100, now() - interval '50 seconds', now())});
is(planned(), "$rows|200|200|t|00:02:05|", 'after a run what was measured: 200 rows a second, 100 rows a request');

$t->node->stop;
done_testing();

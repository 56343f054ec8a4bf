# Flags on full pages: rows are recorded in lots, so that what one lot leaves is room for the next
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'stripes', conf => "autovacuum = off\n");
my $rows = 2400;

$t->sql('CREATE SCHEMA staging; CREATE EXTENSION amcheck');
$t->migration('m', tables => 'account');

# register(name, bytes, flag_index): full pages, of rows of so many bytes that nothing can compress.
sub register
{
	my ($name, $bytes, $index) = @_;

	$t->sql(qq{
		CREATE TABLE staging.$name (customer_id int PRIMARY KEY, company_name text, filler text, processing_flag char(1) NOT NULL DEFAULT 'U',
			action_flag char(1) NOT NULL DEFAULT 'I', dm_created_at timestamptz NOT NULL DEFAULT now(), dataverse_id uuid);
		INSERT INTO staging.$name (customer_id, company_name, filler)
		SELECT n, '$name ' || n, left((SELECT string_agg(md5((n * 64 + i)::text), '') FROM generate_series(1, $bytes / 32 + 1) i), $bytes) FROM generate_series(1, $rows) n;
		SELECT dvmig.add_table('m', 'staging.$name', 'account', source_key => 'customer_id', auto_map => false, flag_index => $index);
		SELECT dvmig.map_column('staging.$name', 'name', 'company_name');
		VACUUM ANALYZE staging.$name});
	return;
}

sub pages
{
	my ($name) = @_;
	return $t->sql("SELECT pg_relation_size('staging.$name') / current_setting('block_size')::int");
}

# What became of a table whose run is over: HOT updates in a hundred, and pages for a hundred that there were.
sub load
{
	my ($name, $how) = @_;
	my $before = pages($name);

	# many small requests: one that meets a passing snapshot is not the whole table
	$t->sql(q{DELETE FROM dvmig.table_pace; INSERT INTO dvmig.table_pace (server, table_name, pass, bulk_rows, bulk_max, each_rows, parallel)
		SELECT server, 'account', 'write', 100, 100, 100, 4 FROM dvmig.migration});
	my $run = $t->run('m', "tables => '{staging.$name}', $how");

	is($run->{state}, 'completed', "$name: the run completes");
	is($t->counts("staging.$name"), "$rows/0/$rows/0/0", "$name: all succeeded");
	ok($t->wait_for("SELECT n_tup_upd >= $rows FROM pg_stat_user_tables WHERE relid = 'staging.$name'::regclass"), "$name: every flag is counted");
	my $hot = $t->sql("SELECT 100 * n_tup_hot_upd / $rows FROM pg_stat_user_tables WHERE relid = 'staging.$name'::regclass");
	my $size = 100 * pages($name) / $before;
	note "$name: $hot of 100 updates are HOT, $size pages for 100";
	return ($hot, $size);
}

my ($hot, $size);

register('wide', 1300, 'false');
($hot, $size) = load('wide', 'lanes => 1');
cmp_ok($hot, '>', 30, 'most rows stay in their full page');
cmp_ok($size, '<', 170, 'and the table does not double');

register('narrow', 60, 'false');
($hot, $size) = load('narrow', 'lanes => 1');
cmp_ok($hot, '>', 30, 'narrow rows, too');
cmp_ok($size, '<', 170, 'nor does theirs double');

register('indexed', 1300, 'true');
($hot, $size) = load('indexed', 'lanes => 1');
is($hot, 0, 'an index on flags takes HOT away');
cmp_ok($size, '<', 170, 'but not the room');

# Somebody's snapshot, open all the time, still sees what was: nothing may be pruned.
register('seen', 1300, 'false');
my $session = $t->node->background_psql('postgres', on_error_stop => 0);
my $sum = q{SELECT md5(string_agg(s::text, '|' ORDER BY customer_id)) FROM staging.seen s};
$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $seen = $session->query_safe($sum);
($hot, $size) = load('seen', 'lanes => 1');
is($session->query_safe($sum), $seen, 'a snapshot sees what it saw');
cmp_ok($hot, '<', 10, 'for that, rows had to move');
$session->quit;

register('shared', 1300, 'false');
load('shared', 'lanes => 2');

# A user holds rows of every page: they wait, and nothing else does.
register('held', 1300, 'false');
$session = $t->node->background_psql('postgres', on_error_stop => 0);
$session->query_safe('BEGIN; SELECT count(*) FROM (SELECT FROM staging.held WHERE customer_id % 7 = 0 FOR UPDATE) s');
my $run = $t->start('m', "tables => '{staging.held}', lanes => 1");
ok($t->wait_for(q{SELECT count(*) = 0 FROM staging.held WHERE processing_flag = 'U' AND customer_id % 7 <> 0}), 'rows beside held ones get their flags');
is($t->sql('SELECT count(*) FROM staging.held_success'), $rows, 'and those held have their outcome');
$session->query_safe('COMMIT');
$session->quit;
is($t->finish($run)->{state}, 'completed', 'held: the run completes');
is($t->run('m', "tables => '{staging.held}'")->{state}, 'completed', 'held: so does one that finds their flags');
is($t->counts('staging.held'), "$rows/0/$rows/0/0", 'held: all succeeded');

is($t->sql(q{SELECT count(*) FROM pg_class c, verify_heapam(c.oid) WHERE c.relnamespace = 'staging'::regnamespace AND c.relkind = 'r'}), 0, 'no table is damaged');
is($t->sql(q{SELECT count(bt_index_check(i.indexrelid, true)) > 10 FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
	WHERE c.relnamespace = 'staging'::regnamespace AND c.relkind = 'r'}), 't', 'no index lacks a row');
$t->account('m', map { ("staging.$_" => { name => 's.company_name' }) } qw(wide narrow indexed seen shared held));

done_testing();

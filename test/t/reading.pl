# Reading is linear in what is unprocessed: statistics that promise nothing
# unprocessed must not make every batch a scan of the table
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'reading');

# What a run has looked at is counted when its workers have ended.
sub counted { return $t->wait_for(q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'dvmig worker')}); }

$t->sql(q{
	CREATE SCHEMA staging;
	CREATE TABLE staging.customers (customer_id int PRIMARY KEY, company_name text, filler text);
	INSERT INTO staging.customers SELECT n, 'Company ' || n, repeat('x', 1500) FROM generate_series(1, 12000) n});
$t->migration('m', tables => 'account');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.customers', 'account', source_key => 'customer_id', flag_index => false);
	SELECT dvmig.map_column('staging.customers', 'name', 'company_name')});
is($t->run('m')->{state}, 'completed', 'the first run completes');
counted();

# Statistics are made while all is done; then everything changes.
$t->sql(q{
	ALTER TABLE staging.customers SET (autovacuum_enabled = off);
	VACUUM ANALYZE staging.customers;
	UPDATE staging.customers SET processing_flag = 'U', company_name = company_name || '!'});
my $scans = q{SELECT pg_stat_force_next_flush(); SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'customers'};
my $before = $t->sql($scans);
my $run = $t->run('m', q{resend => true});
is($run->{state}, 'completed', 'the second run completes');
is($run->{rows_sent}, 12000, 'and sends every row');
cmp_ok($run->{requests}, '>=', 12, 'in several requests');
counted();
my $after = $t->sql($scans);
$before =~ s/\s//g;
$after =~ s/\s//g;
cmp_ok($after - $before, '<=', 4, 'and scans the table to count its rows, not for its batches');
is($t->counts('staging.customers'), '12000/0/12000/0/0', 'all rows succeeded');

# With an index on what is to be done, the rest of the table is not looked at:
# neither by the run nor by start(), which counts what would be sent again.
$t->sql(q{
	CREATE TABLE staging.many (id int PRIMARY KEY, company_name text);
	INSERT INTO staging.many SELECT n, 'Company ' || n FROM generate_series(1, 20000) n});
like($t->sql(q{SELECT dvmig.add_table('m', 'staging.many', 'account', source_key => 'id')}),
	qr/index made on processing_flag and the source key/, 'add_table says that it made the index');
$t->sql(q{SELECT dvmig.map_column('staging.many', 'name', 'company_name')});
is($t->run('m', q{tables => '{staging.many}'})->{rows_sent}, 20000, 'all rows are sent once');
counted();
$t->sql('VACUUM ANALYZE staging.many');
my $looks = q{
	SELECT sum(s.seq_scan) || ' ' || sum(i.idx_tup_read) FROM pg_stat_user_tables s JOIN pg_stat_user_indexes i USING (relid)
	WHERE s.relid = 'staging.many'::regclass AND i.indexrelname = 'many_pkey'};
my $flag_scans = q{SELECT idx_scan FROM pg_stat_user_indexes WHERE relid = 'staging.many'::regclass AND indexrelname <> 'many_pkey'};
my ($seq_before, $read_before) = split ' ', $t->sql($looks);
my $scans_before = $t->sql($flag_scans);
$t->sql(q{UPDATE staging.many SET processing_flag = 'U', company_name = company_name || '!' WHERE id IN (7, 77, 777, 7777)});
is($t->run('m', q{tables => '{staging.many}'})->{rows_sent}, 4, 'four changed rows are sent');
counted();
cmp_ok($t->sql($flag_scans), '>', $scans_before + 1, 'found by the index on flags');
my ($seq_after, $read_after) = split ' ', $t->sql($looks);
is($seq_after, $seq_before, 'and no scan of the table');
cmp_ok($read_after - $read_before, '<', 1000, 'nor of its key');

# What would make flags cheaper is said of tables that are large enough for it.
$t->sql(q{
	CREATE TABLE staging.large (id int PRIMARY KEY, company_name text, filler text);
	INSERT INTO staging.large SELECT n, 'Company ' || n, repeat('x', 1500) FROM generate_series(1, 8000) n});
like($t->sql(q{SELECT dvmig.add_table('m', 'staging.large', 'account', source_key => 'id', flag_index => false)}),
	qr/advice: .*fillfactor = 80.*CREATE INDEX CONCURRENTLY ON staging.large \(processing_flag, id\)/, 'add_table advises');

done_testing();

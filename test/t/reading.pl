# Reading is linear in what is unprocessed: statistics that promise nothing
# unprocessed must not make every batch a scan of the table
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'reading');

$t->sql(q{
	CREATE SCHEMA staging;
	CREATE TABLE staging.customers (customer_id int PRIMARY KEY, company_name text, filler text);
	INSERT INTO staging.customers SELECT n, 'Company ' || n, repeat('x', 1500) FROM generate_series(1, 12000) n});
$t->migration('m', tables => 'account');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.customers', 'account', source_key => 'customer_id');
	SELECT dvmig.map_column('staging.customers', 'name', 'company_name')});
is($t->run('m')->{state}, 'completed', 'the first run completes');

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
my $after;
for (1 .. 100)
{
	$after = $t->sql($scans);
	last if $after > $before;
	select undef, undef, undef, 0.1;
}
$before =~ s/\s//g;
$after =~ s/\s//g;
cmp_ok($after - $before, '<=', 4, 'and scans the table to count its rows, not for its batches');
is($t->counts('staging.customers'), '12000/0/12000/0/0', 'all rows succeeded');

done_testing();

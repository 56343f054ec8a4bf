# One table from flags to verdicts: the shortest migration there is, under each
# profile of the simulator
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

for my $profile (qw(strict lenient odd))
{
	my $t = DvMig->new(profile => $profile, name => "first_$profile");

	$t->sql(q{
		CREATE SCHEMA staging;
		CREATE TABLE staging.customers (customer_id int PRIMARY KEY, company_name text, turnover numeric, parent_id int, branch text);
		INSERT INTO staging.customers
			SELECT n, format(E'Müller "%s"\n\\ & Söhne', n), n * 1.005, CASE WHEN n > 10 THEN n / 10 END,
				CASE n % 3 WHEN 0 THEN 'Accounting' WHEN 1 THEN 'insurance' END
			FROM generate_series(1, 2500) n;
		UPDATE staging.customers SET company_name = repeat('ä', 161) WHERE customer_id = 2000;
		UPDATE staging.customers SET branch = 'Falconry' WHERE customer_id = 2001;
		UPDATE staging.customers SET turnover = 'NaN' WHERE customer_id = 2002});
	$t->migration('m', tables => 'account');
	$t->sql(q{
		SELECT dvmig.add_table('m', 'staging.customers', 'account', source_key => 'customer_id', target_key => 'new_legacyid');
		SELECT dvmig.map_column('staging.customers', 'name', 'company_name');
		SELECT dvmig.map_column('staging.customers', 'revenue', 'round(turnover, 2)');
		SELECT dvmig.map_choice('staging.customers', 'industrycode', 'branch');
		SELECT dvmig.map_lookup('staging.customers', 'parentaccountid', 'parent_id', 'staging.customers')});
	is($t->counts('staging.customers'), '2500/2500/0/0/0', "$profile: all rows are unprocessed");

	my $run = $t->run('m');
	is($run->{state}, 'completed', "$profile: the run completes");
	is($t->counts('staging.customers'), '2500/0/2497/3/0', "$profile: three rows fail, the others succeed");
	is_deeply(
		$t->rows('SELECT customer_id, error_class, error_column FROM staging.customers_error ORDER BY 1'),
		[
			{ customer_id => 2000, error_class => 'length', error_column => 'name' },
			{ customer_id => 2001, error_class => 'choice', error_column => 'industrycode' },
			{ customer_id => 2002, error_class => 'transform', error_column => 'revenue' },
		],
		"$profile: each with its class and column");

	my %fields = (
		name => 's.company_name', new_legacyid => 's.customer_id::text', revenue => 'round(s.turnover, 2)',
		industrycode => q{CASE lower(s.branch) WHEN 'accounting' THEN 1 WHEN 'insurance' THEN 20 END},
		_parentaccountid_value => '(SELECT p.dataverse_id FROM staging.customers p WHERE p.customer_id = s.parent_id)');
	$t->account('m', 'staging.customers' => \%fields);
	is($run->{succeeded} + 0 >= 2497, 1, "$profile: run_history counts them");

	# Nothing is sent again.
	my $before = $t->sim->stats;
	$run = $t->run('m');
	is($run->{state}, 'completed', "$profile: a second run completes");
	is($run->{rows_sent}, 0, "$profile: and sends nothing");

	# Correct, retry; change a loaded row, and say the same of another.
	$t->sql(q{
		UPDATE staging.customers SET company_name = 'short', branch = 'Insurance', turnover = 1 WHERE customer_id IN (2000, 2001, 2002)});
	is($t->sql(q{SELECT dvmig.retry('staging.customers', filter => $$e.error_class IN ('length', 'choice', 'transform')$$)}), 3,
		"$profile: retry says how many");
	$t->sql(q{
		UPDATE staging.customers SET company_name = 'renamed', processing_flag = 'U' WHERE customer_id = 7;
		UPDATE staging.customers SET processing_flag = 'U' WHERE customer_id = 8});
	$run = $t->run('m');
	is($run->{state}, 'completed', "$profile: a third run completes");
	is($t->counts('staging.customers'), '2500/0/2500/0/0', "$profile: all rows succeeded");
	is($run->{unchanged}, 1, "$profile: an unchanged row is not sent");
	like($t->sql('SELECT message FROM staging.customers_success WHERE customer_id = 8'), qr/unchanged/,
		"$profile: and says so");
	$t->account('m', 'staging.customers' => \%fields);

	# Deletes.
	$t->sql(q{UPDATE staging.customers SET action_flag = 'D', processing_flag = 'U' WHERE customer_id > 2490});
	$run = $t->run('m');
	is($run->{state}, 'completed', "$profile: deletes complete");
	$t->account('m', 'staging.customers' => \%fields);

	$t->sim->stop;
	$t->node->stop;
}

done_testing();

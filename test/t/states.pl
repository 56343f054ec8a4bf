# States: set by a pass of their own; closing actions only when asked for, and
# never twice
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

sub flags
{
	my ($t, $table) = @_;
	return $t->sql("SELECT string_agg(f || n, ' ' ORDER BY f) FROM (SELECT processing_flag AS f, count(*) AS n FROM staging.$table GROUP BY 1) q");
}

for my $profile (qw(strict lenient odd))
{
	my $t = DvMig->new(profile => $profile, name => "states_$profile");
	my $run;

	$t->sql(q{
		ALTER DATABASE postgres SET dvmig.settle_time = '300ms';
		CREATE SCHEMA staging;
		CREATE TABLE staging.regions (id int PRIMARY KEY, name text, state text);
		INSERT INTO staging.regions SELECT n, 'Region ' || n, CASE n % 3 WHEN 0 THEN 'Inactive' WHEN 1 THEN 'active' END FROM generate_series(1, 300) n;
		CREATE TABLE staging.customers (id int PRIMARY KEY, name text);
		INSERT INTO staging.customers VALUES (1, 'One');
		CREATE TABLE staging.cases (id int PRIMARY KEY, title text, state int, status int, solution text, minutes int);
		INSERT INTO staging.cases SELECT n, 'Case ' || n, CASE WHEN n % 2 = 0 THEN 1 ELSE 0 END, CASE WHEN n % 2 = 0 THEN 5 ELSE 1 END, 'Solved ' || n, n
			FROM generate_series(1, 120) n;
		UPDATE staging.cases SET state = 1, status = 6 WHERE id = 120;
		UPDATE staging.cases SET state = 2, status = 6 WHERE id = 119;
		CREATE TABLE staging.deals (id int PRIMARY KEY, name text, status text);
		INSERT INTO staging.deals SELECT n, 'Deal ' || n, (ARRAY['Won', 'Out-Sold', 'On Hold', NULL])[1 + n % 4] FROM generate_series(1, 80) n});
	$t->migration('m', tables => 'new_region,incident,opportunity,account');
	$t->sql(q{
		SELECT dvmig.add_table('m', 'staging.regions', 'new_region', source_key => 'id', auto_map => false);
		SELECT dvmig.map_column('staging.regions', 'new_name', 'name');
		SELECT dvmig.map_choice('staging.regions', 'statecode', 'state');
		SELECT dvmig.add_table('m', 'staging.customers', 'account', source_key => 'id');
		SELECT dvmig.add_table('m', 'staging.cases', 'incident', source_key => 'id', auto_map => false);
		SELECT dvmig.map_column('staging.cases', 'title', 'title');
		SELECT dvmig.map_lookup('staging.cases', 'customerid', '1', 'staging.customers');
		SELECT dvmig.map_column('staging.cases', 'statecode', 'state');
		SELECT dvmig.map_column('staging.cases', 'statuscode', 'status');
		SELECT dvmig.add_table('m', 'staging.deals', 'opportunity', source_key => 'id', auto_map => false);
		SELECT dvmig.map_column('staging.deals', 'name', 'name');
		SELECT dvmig.map_choice('staging.deals', 'statuscode', 'status')});

	is($t->sql(q{SELECT string_agg(concat_ws(' ', staging, rule, affected_rows), ', ' ORDER BY 1) FROM dvmig.check('m') WHERE severity = 'error'}), 'staging.cases state_pair 1',
		"$profile: the check knows the pair that does not fit");

	# --- tables whose columns do: right after their rows
	$run = $t->run('m');
	is($run->{state}, 'completed', "$profile: the run completes");
	is(flags($t, 'regions'), 'P300', "$profile: a custom table owes nothing");
	is($t->sql('SELECT count(*) FROM staging.regions_success WHERE record_state IS NOT NULL'), 100,
		"$profile: only rows that are not to stay in the default state took a second write");
	my %regions = (new_name => 's.name', statecode => q{CASE WHEN s.state = 'Inactive' THEN 1 ELSE 0 END}, statuscode => q{CASE WHEN s.state = 'Inactive' THEN 2 ELSE 1 END});

	# --- closing tables: not yet
	is(flags($t, 'cases'), 'E1 S119', "$profile: cases owe their state, and a pair that does not fit is an error");
	is($t->sql('SELECT error_class, code, error_column FROM staging.cases_error'), 'state|state_pair|statuscode', "$profile: of its class");
	is(flags($t, 'deals'), 'P20 S60', "$profile: deals owe theirs");
	is($t->status('staging.deals')->{owed}, 60, "$profile: which the status tells");
	like($t->status('staging.deals')->{next_step}, qr/start\('m', passes => '\{states\}'\)/, "$profile: with the call");
	is($t->sim->counters('incidents')->{updates}, 0, "$profile: nothing was closed");
	$t->account('m', 'staging.regions' => \%regions,
		'staging.cases' => { title => 's.title', statecode => '0' }, 'staging.deals' => { name => 's.name', statecode => '0' });

	# --- asked for; connections break behind and before the commit
	$t->sim->fault({ match => { method => 'POST', body_contains => 'CloseIncident' }, nth => 1, count => 1, do => 'reset_after' });
	$t->sim->fault({ match => { method => 'POST', body_contains => 'WinOpportunity' }, nth => 1, count => 1, do => 'reset_before' });
	$run = $t->finish($t->start('m', q{passes => '{states}'}));
	is($run->{state}, 'completed', "$profile: states, asked for");
	is(flags($t, 'cases') . ' ' . flags($t, 'deals'), 'E1 P119 P80', "$profile: nothing is owed any more");
	my %fields = (
		'staging.regions' => \%regions,
		'staging.cases' => { title => 's.title', statecode => 's.state', statuscode => 's.status' },
		'staging.deals' => { name => 's.name', statecode => q{CASE s.status WHEN 'Won' THEN 1 WHEN 'Out-Sold' THEN 2 ELSE 0 END},
			statuscode => q{CASE s.status WHEN 'Won' THEN 3 WHEN 'Out-Sold' THEN 5 WHEN 'On Hold' THEN 2 ELSE 1 END} });
	$t->account('m', %fields);
	is(scalar(@{ $t->sim->export('incidentresolutions') }), 59, "$profile: each case was closed once");
	is(scalar(@{ $t->sim->export('opportunitycloses') }), 40, "$profile: each deal was closed once");

	# --- again: nothing to do
	$run = $t->finish($t->start('m', q{passes => '{states}'}));
	is($run->{rows_sent}, 0, "$profile: nothing is closed twice");
	$t->sql(q{UPDATE staging.regions SET processing_flag = 'U'});
	$run = $t->run('m');
	is("$run->{rows_sent}/$run->{unchanged}", '0/300', "$profile: a reload sends no state again");
	# --- a state alone that changes
	$t->sql(q{UPDATE staging.regions SET state = 'Active', processing_flag = 'U' WHERE id = 3; UPDATE staging.regions SET state = 'Inactive', processing_flag = 'U' WHERE id = 4});
	$run = $t->run('m');
	is($run->{rows_sent}, 2, "$profile: a state that changed is sent, alone");
	$t->account('m', %fields);

	# --- a change for a closed record: an error, or open, change and close again
	$t->sql(q{UPDATE staging.cases SET title = title || ' changed', processing_flag = 'U' WHERE id <= 10;
		UPDATE staging.regions SET name = name || ' changed', processing_flag = 'U' WHERE id <= 6});
	$run = $t->run('m', 'ignore_gate => true');
	is($t->sql(q{SELECT string_agg(id::text, ' ' ORDER BY id) FROM staging.cases_error WHERE code = 'closed'}), '2 4 6 8 10', "$profile: changes for closed cases are errors");
	$t->account('m', 'staging.regions' => \%regions);
	$t->sql(q{SELECT dvmig.set_table('staging.cases', 'on_closed', 'reopen'), dvmig.set_table('staging.regions', 'on_closed', 'reopen');
		SELECT dvmig.retry('staging.cases', filter => $$e.code = 'closed'$$);
		UPDATE staging.regions SET name = name || '!', processing_flag = 'U' WHERE id <= 6});
	$t->sim->fault({ match => { method => 'POST', body_contains => 'changeset_' }, nth => 2, count => 1, do => 'reset_after' });
	$t->sim->fault({ match => { method => 'POST', body_contains => 'changeset_' }, nth => 4, count => 1, do => 'reset_before' });
	$run = $t->run('m', 'ignore_gate => true');
	is($run->{state}, 'completed', "$profile: reopened");
	is(flags($t, 'cases'), 'E1 P114 S5', "$profile: what had failed owes its state until it is asked for");
	$t->account('m', %fields);
	is(scalar(@{ $t->sim->export('incidentresolutions') }), 64, "$profile: and closed again, once each");

	like($t->error(q{SELECT dvmig.start('m', passes => '{state}')}), qr/there is no pass "state".*HINT:\s+Passes are: write, deferred/s, "$profile: names of passes are checked");
	$t->sim->stop;
	$t->node->stop;
}

done_testing();

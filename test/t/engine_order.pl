# Order: parents before children, circles, what waits for whom and goes later,
# gates, left-out rows, and deletes in reverse
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use DvMig::Attack;

my $n = 300;

# Companies with a master of their own table and a first contact, people with a
# company and a superior: two circles in one.
my %fields = (
	'staging.companies' => {
		name => 's.name', new_legacyid => 's.id::text',
		_parentaccountid_value => '(SELECT p.dataverse_id FROM staging.companies p WHERE p.id = s.master)',
		_primarycontactid_value => '(SELECT p.dataverse_id FROM staging.persons p WHERE p.id = s.first_contact)',
	},
	'staging.persons' => {
		lastname => 's.name', new_legacyid => 's.id::text',
		_parentcustomerid_value => '(SELECT c.dataverse_id FROM staging.companies c WHERE c.id = s.company)',
		_new_managerid_value => '(SELECT p.dataverse_id FROM staging.persons p WHERE p.id = s.superior)',
	},
);

sub circle
{
	my ($profile) = @_;
	my $t = DvMig->new(profile => $profile, name => "order_$profile");

	$t->sql(qq{
		ALTER DATABASE postgres SET dvmig.settle_time = '300ms';
		CREATE SCHEMA staging;
		CREATE TABLE staging.companies (id int PRIMARY KEY, name text, master int, first_contact int);
		CREATE TABLE staging.persons (id int PRIMARY KEY, name text, company int, superior int);
		-- masters and superiors with higher keys than their own, and in rings
		INSERT INTO staging.companies SELECT n, 'Company ' || n, CASE WHEN n % 7 > 0 THEN 1 + n * 31 % $n END, CASE WHEN n % 5 > 0 THEN n END
			FROM generate_series(1, $n) n;
		INSERT INTO staging.persons SELECT n, 'Person ' || n, 1 + n * 17 % $n, CASE WHEN n % 3 > 0 THEN 1 + n % $n END FROM generate_series(1, $n) n});
	$t->migration('m', tables => 'account,contact');
	$t->sql(q{
		SELECT dvmig.add_table('m', 'staging.companies', 'account', source_key => 'id', target_key => 'new_legacyid');
		SELECT dvmig.add_table('m', 'staging.persons', 'contact', source_key => 'id', target_key => 'new_legacyid');
		SELECT dvmig.map_column('staging.companies', 'name', 'name');
		SELECT dvmig.map_column('staging.persons', 'lastname', 'name');
		SELECT dvmig.map_lookup('staging.companies', 'parentaccountid', 'master', 'staging.companies');
		SELECT dvmig.map_lookup('staging.companies', 'primarycontactid', 'first_contact', 'staging.persons');
		SELECT dvmig.map_lookup('staging.persons', 'parentcustomerid', 'company', 'staging.companies');
		SELECT dvmig.map_lookup('staging.persons', 'new_managerid', 'superior', 'staging.persons')});
	return $t;
}

sub verdict
{
	my ($t, $table, $id) = @_;
	return $t->sql(qq{
		SELECT concat_ws(' ', s.processing_flag, ok.pass, er.error_class, er.code)
		FROM staging.$table s LEFT JOIN staging.${table}_success ok USING (id) LEFT JOIN staging.${table}_error er USING (id) WHERE s.id = $id});
}

sub flags
{
	my ($t, $table) = @_;
	return $t->sql("SELECT string_agg(f || n, ' ' ORDER BY f) FROM (SELECT processing_flag AS f, count(*) AS n FROM staging.$table GROUP BY 1) q");
}

for my $profile (qw(strict lenient odd))
{
	my $t = circle($profile);
	my $run;
	my $l = "$profile: circle";

	# --- the first pass alone leaves S, the second makes P of it
	$run = $t->start('m', 'tables => ARRAY[$$staging.companies$$]');
	is($t->finish($run)->{state}, 'completed', "$l: one table alone completes");
	is(flags($t, 'companies'), 'P60 S240', "$l: rows whose lookup waits for the other table are owed a pass");
	is($t->counts('staging.companies'), "$n/0/$n/0/0", "$l: they count as succeeded");
	is($t->status('staging.companies')->{owed}, 240, "$l: and as owed");
	is($t->run('m')->{state}, 'completed', "$l: the whole completes");
	is(flags($t, 'companies') . flags($t, 'persons'), "P${n}P${n}", "$l: nothing is owed any more");
	$t->account('m', %fields);
	is($t->sim->counters($_)->{creates}, $n, "$l: $_ were created once") for qw(accounts contacts);

	# --- unchanged rows are not sent, in the deferred pass neither
	$t->sql(q{UPDATE staging.companies SET processing_flag = 'U'; UPDATE staging.persons SET processing_flag = 'U'});
	$run = $t->run('m');
	is("$run->{rows_sent}/$run->{unchanged}", '0/' . 2 * $n, "$l: unchanged rows are not sent");
	is(flags($t, 'companies') . flags($t, 'persons'), "P${n}P${n}", "$l: and owe nothing");
	# --- a lookup that changes, and one that is taken away
	$t->sql(q{
		UPDATE staging.companies SET master = 5, processing_flag = 'U' WHERE id = 1;
		UPDATE staging.companies SET master = NULL, first_contact = NULL, processing_flag = 'U' WHERE id = 2;
		UPDATE staging.persons SET superior = NULL, company = 9, processing_flag = 'U' WHERE id = 1});
	$run = $t->run('m');
	is($run->{state}, 'completed', "$l: changed lookups");
	$t->account('m', %fields);

	# --- a lookup that goes with creates only is set in the second pass all the
	# same, and left alone by updates
	$t->sql(q{
		SELECT dvmig.unmap('staging.persons', 'new_managerid');
		SELECT dvmig.map_lookup('staging.persons', 'new_managerid', 'superior', 'staging.persons', send => 'insert');
		INSERT INTO staging.persons VALUES (1001, 'Person 1001', 1, 1002), (1002, 'Person 1002', 1, 1001)});
	$run = $t->run('m');
	is($run->{state}, 'completed', "$l: a circular lookup of creates only");
	$t->account('m', %fields);
	$t->sql(q{
		UPDATE staging.persons SET superior = 1, name = 'Other', processing_flag = 'U' WHERE id = 1001;
		DELETE FROM staging.persons WHERE id = 1002});
	$run = $t->run('m');
	is($run->{state}, 'completed', "$l: its update");
	is((grep { $_->{new_legacyid} eq '1001' } @{ $t->sim->export('contacts') })[0]{_new_managerid_value},
		(grep { $_->{new_legacyid} eq '1002' } @{ $t->sim->export('contacts') })[0]{contactid}, "$l: leaves it alone");
	is((grep { $_->{new_legacyid} eq '1001' } @{ $t->sim->export('contacts') })[0]{lastname}, 'Other', "$l: and writes the rest");
	$t->sql(q{
		SELECT dvmig.unmap('staging.persons', 'new_managerid');
		SELECT dvmig.map_lookup('staging.persons', 'new_managerid', 'superior', 'staging.persons');
		UPDATE staging.persons SET action_flag = 'D', processing_flag = 'U' WHERE id = 1001});
	$t->run('m');
	$t->sim->sim('POST', 'import', { delete => JSON::PP::true, set => 'contacts',
		id => (grep { $_->{new_legacyid} eq '1002' } @{ $t->sim->export('contacts') })[0]{contactid} });
	$t->sql(q{DELETE FROM staging.persons WHERE id = 1001});

	# --- faults in the deferred pass
	for my $fault ([ 'cut off', do => 'reset_after', count => 2 ], [ 'deadlock', do => 'deadlock', count => 2 ], [ '502', do => 'status', status => 502, count => 2 ])
	{
		my ($what, %fault) = @$fault;
		$t->sql(q{
			UPDATE staging.companies SET master = 1 + (master + 1) % 290, processing_flag = 'U' WHERE master IS NOT NULL;
			UPDATE staging.persons SET superior = 1 + (superior + 1) % 290, processing_flag = 'U' WHERE superior IS NOT NULL});
		$t->sim->fault({ match => { method => 'POST', path_contains => 'UpdateMultiple' }, nth => 6, %fault });
		$run = $t->run('m');
		is($run->{state}, 'completed', "$l: $what in the deferred pass");
		$t->sim->sim('DELETE', 'fault');
		is(flags($t, 'companies') . flags($t, 'persons'), "P${n}P${n}", "$l: $what: nothing is owed");
		$t->account('m', %fields);
	}

	# --- deletes: children first; the parent's pass comes last
	$t->sql(q{UPDATE staging.companies SET action_flag = 'D', processing_flag = 'U' WHERE id <= 10;
		UPDATE staging.persons SET action_flag = 'D', processing_flag = 'U' WHERE id <= 20});
	$run = $t->run('m');
	is($run->{state}, 'completed', "$l: deletes");
	is($t->sql(qq{SELECT string_agg(staging, ' ' ORDER BY step) FROM dvmig.run_table WHERE run = $run->{run} AND pass = 'delete'}),
		join(' ', reverse split / /, $t->sql(qq{SELECT string_agg(staging, ' ' ORDER BY step) FROM dvmig.run_table WHERE run = $run->{run} AND pass = 'write'})),
		"$l: in the reverse order");
	is(scalar(@{ $t->sim->export('accounts') }) . '/' . @{ $t->sim->export('contacts') }, '290/280', "$l: and Dataverse holds the rest");
	$t->sim->stop;
	$t->node->stop('immediate');
}

# --- failures: parked children, gate, resume, orphans, left-out rows
for my $profile (qw(strict lenient odd))
{
	my $a = DvMig::Attack->new(profile => $profile, name => "waits_$profile", rows => 200, tables => [ 'customers', 'people' ]);
	my $t = $a->t;
	my $run;
	my $l = "$profile: parked";

	$a->fresh;
	$a->sql(q{
		UPDATE staging.customers SET name = repeat('x', 161) WHERE id IN (50, 51, 52);
		UPDATE staging.people SET company = 9999 WHERE id = 5;
		UPDATE staging.people SET company = NULL WHERE id = 6});
	$run = $a->run;
	is($run->{state}, 'completed', "$l: the run completes");
	is($t->counts('staging.customers'), '200/0/197/3/0', "$l: three parents fail");
	is($t->counts('staging.people'), '200/3/196/1/0', "$l: their children wait, an orphan fails");
	is($t->status('staging.people')->{parked}, 3, "$l: they are parked");
	is(verdict($t, 'people', 5), 'E lookup orphan', "$l: the orphan says so");
	is(verdict($t, 'people', 6), 'P write', "$l: a row without a parent goes");
	is($run->{parked}, 3, "$l: run_history says so");
	my $sent = $a->sim->stats->{requests};
	$a->exact("$l: before the correction", customers => '200/0/197/3/0', people => '200/3/196/1/0');

	$a->sql(q{UPDATE staging.customers SET name = 'corrected' WHERE id IN (50, 51); SELECT dvmig.retry('staging.customers', filter => 's.id < 52')});
	$a->sql(q{UPDATE staging.people SET company = 1 WHERE id = 5; SELECT dvmig.retry('staging.people')});
	$run = $a->run;
	is($run->{state}, 'completed', "$l: the run after the correction completes");
	$a->exact("$l: after the correction", customers => '200/0/199/1/0', people => '200/1/199/0/0');
	$a->sql(q{UPDATE staging.customers SET name = 'corrected' WHERE id = 52; SELECT dvmig.retry('staging.customers')});
	$a->run;
	$a->exact("$l: in the end", customers => '200/0/200/0/0', people => '200/0/200/0/0');

	# --- a parent that is to be deleted keeps its children waiting
	$l = "$profile: gate";
	$a->fresh;
	$a->sql(q{UPDATE staging.customers SET name = repeat('x', 161) WHERE id <= 20});
	$run = $a->run;
	is($run->{state}, 'held', "$l: too many failures hold what depends on them");
	like($run->{message}, qr/20 of 200 rows of staging\.customers failed.*resume\($run->{run}\)/, "$l: and the message says why and what to do");
	is($t->sql("SELECT next_step FROM dvmig.status WHERE staging = 'staging.customers'"),
		"look at staging.customers_error, correct the rows, then SELECT dvmig.retry('staging.customers'); or go past the gate: SELECT dvmig.resume($run->{run})",
		"$l: the table that failed is the one to look at");
	is($t->sql("SELECT next_step FROM dvmig.status WHERE staging = 'staging.people'"),
		"held: 20 of 200 rows of staging.customers failed, which is over the gate of 5 per cent; correct these rows and retry them, or go on without them: SELECT dvmig.resume($run->{run})",
		"$l: also for the table that waits");
	$a->exact($l, customers => '200/0/180/20/0', people => '200/200/0/0/0');
	is($t->sim->counters('contacts')->{creates}, 0, "$l: no child was sent");
	my $next = $t->sql("SELECT dvmig.resume($run->{run})");
	is($t->finish($next)->{state}, 'completed', "$l: resume goes past it");
	$a->exact("$l: past it", customers => '200/0/180/20/0', people => '200/20/180/0/0');
	$a->sql(q{UPDATE staging.customers SET name = 'corrected' WHERE id <= 20; SELECT dvmig.retry('staging.customers')});
	is($a->run->{state}, 'completed', "$l: corrected");
	$a->exact("$l: corrected", customers => '200/0/200/0/0', people => '200/0/200/0/0');

	# --- rows left out by a filter, and children of such rows
	$l = "$profile: left out";
	$a->sql(q{
		SELECT dvmig.drop_table('staging.people', drop_outcomes => true);
		SELECT dvmig.drop_table('staging.customers', drop_outcomes => true);
		SELECT dvmig.add_table('m', 'staging.customers', 'account', source_key => 'id', target_key => 'new_legacyid',
			filter => 'revenue > 100', filter_reason => 'small customers stay');
		SELECT dvmig.map_column('staging.customers', 'name', 'name');
		SELECT dvmig.map_column('staging.customers', 'telephone1', 'phone');
		SELECT dvmig.map_column('staging.customers', 'revenue', 'revenue');
		SELECT dvmig.add_table('m', 'staging.people', 'contact', source_key => 'id', target_key => 'new_legacyid');
		SELECT dvmig.map_column('staging.people', 'lastname', 'name');
		SELECT dvmig.map_lookup('staging.people', 'parentcustomerid', 'company', 'staging.customers')});
	$a->fresh;
	$a->sql('UPDATE staging.customers SET revenue = NULL WHERE id = 200');
	is($a->run->{state}, 'completed', "$l: the run completes");
	$a->exact($l, customers => '200/0/119/0/81', people => '200/81/119/0/0');
	is($t->status('staging.people')->{parked}, 81, "$l: their children are parked");
	$a->sql('UPDATE staging.customers SET revenue = 101 WHERE id = 3');
	$a->run;
	$a->exact("$l: one comes in", customers => '200/0/120/0/80', people => '200/80/120/0/0');

	# --- a loaded row that is left out later stays what it is
	$a->sql('UPDATE staging.customers SET revenue = 1 WHERE id = 190');
	$a->run;
	is($t->counts('staging.customers'), '200/0/120/0/80', "$l: a loaded row stays succeeded");
	$a->sql(q{UPDATE staging.customers SET processing_flag = 'U' WHERE id = 190});
	is($t->counts('staging.customers'), '200/0/119/0/81', "$l: flagged again it is left out");
	$a->done;
}

done_testing();

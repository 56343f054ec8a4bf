# dvmig.cutover: each blocker of its list, seen and taken away again
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'cutover', conf => "dvmig.settle_time = 300ms\n");
$t->migration('m', tables => 'account,contact,opportunity,new_invoice,systemuser');
$t->sql(q{
	CREATE TABLE firms (id int PRIMARY KEY, name text, owner_mail text);
	INSERT INTO firms SELECT i, CASE WHEN i = 7 THEN repeat('x', 300) ELSE 'Firm ' || i END, CASE WHEN i <= 3 THEN 'left@example.org' END FROM generate_series(1, 60) i;
	CREATE TABLE people (id int PRIMARY KEY, family text, firm int);
	INSERT INTO people SELECT i, 'P' || i, i FROM generate_series(1, 60) i;
	CREATE TABLE deals (id int PRIMARY KEY, name text);
	INSERT INTO deals SELECT i, 'Deal ' || i FROM generate_series(1, 5) i;
	CREATE TABLE bills (id int PRIMARY KEY, title text, number text);
	INSERT INTO bills SELECT i, 'Bill ' || i, to_char(1000 + i, 'FM00000') FROM generate_series(1, 30) i;
	SELECT dvmig.add_table('m', 'firms', 'account', source_key => 'id');
	SELECT dvmig.map_column('firms', 'name', 'name');
	SELECT dvmig.map_lookup('firms', 'ownerid', 'owner_mail', 'systemuser', match_on => 'internalemailaddress');
	SELECT dvmig.add_table('m', 'people', 'contact', source_key => 'id');
	SELECT dvmig.map_column('people', 'lastname', 'family');
	SELECT dvmig.map_lookup('people', 'parentcustomerid', 'firm', 'firms');
	SELECT dvmig.add_table('m', 'deals', 'opportunity', source_key => 'id', auto_map => false);
	SELECT dvmig.map_column('deals', 'name', 'name');
	SELECT dvmig.map_column('deals', 'statuscode', '3');
	SELECT dvmig.map_close('deals', 'subject', 'name');
	SELECT dvmig.add_table('m', 'bills', 'new_invoice', source_key => 'id', auto_map => false);
	SELECT dvmig.map_column('bills', 'new_invoicenumber', 'title');
	SELECT dvmig.map_column('bills', 'new_internalnumber', 'number')});

# blockers(): "staging amount subject", one a line, and the verdict.
sub blockers
{
	return $t->sql(q{SELECT concat_ws(' ', staging, amount, subject) FROM dvmig.cutover('m') WHERE kind IN ('blocker', 'verdict')});
}

# blocked(pattern, name), free(pattern, name): is it in the list, which then ends in "not ready"?
sub blocked
{
	my ($pattern, $name) = @_;
	my $list = blockers();
	like($list, qr/^$pattern$/m, "$name blocks") or diag($list);
	like($list, qr/^\d+ not ready$/m, "$name: not ready");
	return;
}
sub free
{
	my ($pattern, $name) = @_;
	unlike(blockers(), qr/^$pattern$/m, "$name: no longer");
	return;
}

my $owners = qr/public\.firms 3 rows have an owner that Dataverse does not know/;
$t->sql(q{SELECT * FROM dvmig.refresh_references('m')});
blocked($owners, 'an owner that is not there');
$t->sql(q{UPDATE firms SET owner_mail = NULL WHERE id < 3});
blocked(qr/public\.firms 1 row has an owner that Dataverse does not know/, 'one such row');
$t->sql(q{UPDATE firms SET owner_mail = NULL});
free($owners, 'owners');

# A worker that dies leaves rows in doubt.
$t->sim->fault({ match => { path_contains => 'CreateMultiple', count => 0 }, do => 'hold' });
my $run = $t->start('m', 'ignore_gate => true');
$t->wait_for("SELECT in_flight > 0 FROM dvmig.run_history WHERE run = $run");
blocked(qr/run $run is at work/, 'a run');
$t->sql("SELECT pg_terminate_backend(pid) FROM dvmig.run_history WHERE run = $run");
$t->wait_for("SELECT NOT dvmig._run_alive($run)");
$t->sim->sim('DELETE', 'fault');
blocked(qr/public\.bills 30 rows are in doubt/, 'what a killed run had sent');
is($t->run('m', 'ignore_gate => true')->{state}, 'completed', 'the load');
free(qr/.* in doubt/, 'doubt');

blocked(qr/public\.firms 1 row has failed/, 'a failed row');
blocked(qr/public\.people 1 row waits for a parent/, 'a parked row');
$t->sql(q{UPDATE firms SET name = 'Seven' WHERE id = 7; SELECT dvmig.retry('firms')});
is($t->run('m')->{state}, 'completed', 'corrected');
free(qr/.*(?:failed|waits).*/, 'failed and parked rows');

blocked(qr/public\.deals 5 records are owed a later pass: deferred lookups, files, closing states/, 'records to be closed');
is($t->finish($t->start('m', q{passes => '{states}'}))->{state}, 'completed', 'closed');
free(qr/.*owed.*/, 'closing states');

blocked(qr/public\.people is not verified: it was never verified/, 'what was never verified');
$t->sql(q{SELECT * FROM dvmig.verify('m', sample => 2)});
blocked(qr/public\.people is not verified: it was verified by a sample only/, 'a sample is not enough');
my $firm = $t->sql('SELECT dataverse_id FROM firms WHERE id = 2');
my $name = $t->sql('SELECT name FROM firms WHERE id = 2');
my $loader = $t->sql(q{SELECT application_user_id FROM dvmig.whoami('sim')});
$t->sim->change('accounts', $firm, { name => 'planted' }, as => $loader);
$t->sql(q{SELECT * FROM dvmig.verify('m')});
blocked(qr/public\.firms is not verified: its verification found 0 missing, 1 different and 0 extra records/, 'what differs');
$t->sql(q{SELECT * FROM dvmig.verify('m', 'people', sample => 20)});
is($t->sql(q{SELECT compared, sample FROM dvmig.verification WHERE staging = 'public.people' ORDER BY run DESC LIMIT 1}), '20|20', 'a sample of a third');
sub found { return $t->sql(q{SELECT string_agg(concat_ws(' ', source_key, kind, found, coalesce(sample::text, 'of all')), ', ' ORDER BY verified_at) FROM dvmig.difference WHERE staging = 'public.firms'}); }
is(found(), '2 different planted of all', 'it is listed, as found in all rows');
is($t->sql(q{SELECT next_step FROM dvmig.migration_status WHERE migration = 'm'}), q{SELECT * FROM dvmig.difference WHERE staging = 'public.firms'; correct what is wrong, then verify again}, 'and to be looked at');
is($t->sql(q{SELECT advice FROM dvmig.cutover('m') WHERE subject LIKE '%not verified%'}), q{SELECT * FROM dvmig.difference WHERE staging = 'public.firms'; correct what is wrong, then verify again}, 'the cut-over says so too');
$t->sql(q{SELECT * FROM dvmig.verify('m', 'firms', 0.000001)});
is(found(), '2 different planted of all', 'a sample does not take it from the list');
$t->sql(q{SELECT * FROM dvmig.verify('m', 'firms', 0.9999999)});
is(found(), '2 different planted of all, 2 different planted 0.9999999', 'one that finds it too says that it was a sample');
$t->sql(q{SELECT * FROM dvmig.verify('m', 'firms', 0.000001)});
is(found(), '2 different planted of all', 'and goes with the next');
blocked(qr/public\.firms is not verified: its verification found 0 missing, 1 different and 0 extra records/, 'a sample that missed it does not help');
like($t->sql(q{SELECT dvmig.report_text('m')}), qr/public.firms +different: \d+ compared, 0 missing, 1 different.*public.firms +equal: 0 compared \(a sample\)/s, 'the report shows both');
$t->sim->change('accounts', $firm, { name => $name }, as => $loader);
$t->sql(q{SELECT * FROM dvmig.verify('m', sample => 1000000)});
is(found(), '', 'a sample that takes all replaces what was found');
is($t->sql(q{SELECT count(*) FROM dvmig.verification WHERE run = (SELECT max(run) FROM dvmig.verification) AND sample IS NULL AND staging IN ('public.firms', 'public.people')}), 2, 'and is told as what it is');
like($t->sql(q{BEGIN; UPDATE dvmig.verification SET sample = 1000 WHERE run = (SELECT max(run) FROM dvmig.verification); DELETE FROM dvmig.verification WHERE sample IS NULL;
		SELECT string_agg(subject, '; ') FROM dvmig.cutover('m') WHERE staging = 'public.people'; ROLLBACK}), qr/verified by a sample only/, 'one that came to fewer rows because some left meanwhile does not count as all');
free(qr/.*not verified.*/, 'verified: a sample that takes all');
blocked(qr/no backup of the staging database is known since the last load \(.*\)/, 'a load without a backup');
$t->sql(q{SELECT dvmig.note_backup('m', 'tape')});
free(qr/no backup.*/, 'backed up');
$t->sql(q{SELECT * FROM dvmig.verify('m')});
free(qr/no backup.*/, 'a verification loads nothing');

blocked(qr/public\.bills 1030 new_internalnumber numbers itself \(\{SEQNUM:5\}\); the highest number loaded is 1030/, 'the next number would collide');
$t->sql($t->sql(q{SELECT advice FROM dvmig.cutover('m') WHERE subject LIKE '%numbers itself%'}));
is($t->sql('SELECT table_name, column_name, seed FROM dvmig.autonumber_seed'), 'new_invoice|new_internalnumber|1031', 'the seed was set, as the advice says');

is(blockers(), '0 ready', 'then it is ready');

# What goes in the same run is pending and no blocker, also where rows wait for each other.
my $delta = q{INSERT INTO firms VALUES (61, 'Firm 61'); INSERT INTO people VALUES (61, 'P61', 61), (62, 'P62', 61)};
my $list = q{SELECT concat_ws(' ', kind, staging, amount, subject) FROM dvmig.cutover('m') WHERE kind IN ('pending', 'blocker', 'verdict') AND subject NOT LIKE '%autonumber%'};
like($t->sql("BEGIN; $delta; $list; ROLLBACK"), qr/^pending public.firms 1 row to load.*\npending public.people 2 rows to load.*\nverdict 0 ready$/, 'children of parents that go in the same run are pending');
for my $more (
	[ q{INSERT INTO firms VALUES (63, 'bad'); UPDATE firms SET processing_flag = 'E' WHERE id = 63; INSERT INTO firms_error (id) VALUES (63)}, 'one of the parents has failed' ],
	[ q{UPDATE firms SET action_flag = 'D' WHERE id = 61}, 'a parent is to be deleted' ],
	[ q{SELECT dvmig.set_table('firms', 'filter', 'id <> 61')}, 'a parent is left out' ])
{
	like($t->sql("BEGIN; $delta; $more->[0]; $list; ROLLBACK"), qr/^blocker public.people 2 rows wait for a parent$/m, "but not where $more->[1]");
}

like($t->sql("BEGIN; UPDATE dvmig.migration_table SET held_by_undo = 1 WHERE staging = 'people'::regclass; $list; ROLLBACK"),
	qr/^blocker public.people is on hold after an undo: no run loads it\nverdict 1 not ready$/m, 'a table on hold');
for my $status (503, 403)
{
	$t->sim->fault({ match => { path_contains => 'StringAttributeMetadata', count => 0 }, do => 'status', status => $status });
	blocked(qr/which columns number themselves could not be asked: Dataverse did not tell .*\(status $status\)/, "a service that does not tell which columns number themselves ($status)");
	$t->sim->sim('DELETE', 'fault');
}
is(blockers(), '0 ready', 'all of them are gone again');

# What a format makes, and what it does not.
is($t->sql(q{SELECT string_agg(coalesce(substring(v FROM dvmig._number_pattern(f)), '-'), ' ' ORDER BY i) FROM unnest(
	string_to_array('{SEQNUM:5} CAS-{SEQNUM:5}-{RANDSTRING:6} CAS-{SEQNUM:5}-{RANDSTRING:6} A.{DATETIMEUTC:yyyyMMdd}{SEQNUM:3} A.{DATETIMEUTC:yyyyMMdd}{SEQNUM:3} X{SEQNUM:4}{RANDSTRING:2} {RANDSTRING:6}', ' '),
	'{01030,CAS-00012-AB12C9,OLD-77,A.202401310042,Ax202401310042,X123456,123456}'::text[]) WITH ORDINALITY u(f, v, i)}), '01030 00012 - 0042 - 1234 -', 'numbers by their format');

$t->sql(q{DELETE FROM people_success WHERE id = 5});
blocked(qr/public\.people the figures do not add up/, 'a row without its outcome');

$t->sim->stop;
done_testing();

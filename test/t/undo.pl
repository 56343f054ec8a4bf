# Undoing a run: what it created goes, children first, and nothing else
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use DvMig;

my $stranger = 'dddddddd-0000-4000-8000-00000000000d';
my $t = DvMig->new(name => 'undo');
my $sim = $t->sim;

$t->sql(q{
	CREATE SCHEMA staging;
	CREATE TABLE staging.firms (id int PRIMARY KEY, name text, parent int);
	INSERT INTO staging.firms SELECT n, 'Firm ' || n, CASE WHEN n > 10 THEN n / 10 END FROM generate_series(1, 300) n;
	CREATE TABLE staging.people (id int PRIMARY KEY, family text, firm int);
	INSERT INTO staging.people SELECT n, 'Person ' || n, n % 300 + 1 FROM generate_series(1, 900) n});
$t->migration('m', tables => 'account,contact');
my $found_id = $sim->create('accounts', { name => 'there before' })->{accountid};
$t->sql(qq{
	SELECT dvmig.add_table('m', 'staging.firms', 'account');
	SELECT dvmig.map_column('staging.firms', 'name', 'name');
	SELECT dvmig.map_lookup('staging.firms', 'parentaccountid', 'parent', 'staging.firms');
	SELECT dvmig.add_table('m', 'staging.people', 'contact');
	SELECT dvmig.map_column('staging.people', 'lastname', 'family');
	SELECT dvmig.map_lookup('staging.people', 'parentcustomerid', 'firm', 'staging.firms');
	UPDATE staging.firms SET dataverse_id = '$found_id' WHERE id = 300});

my @figures = qw(created gone changed_since has_related deleted restored failed);

# undo(arguments): its rows as text, by table
sub undo
{
	my ($arguments) = @_;
	return join '; ', map { my $r = $_; "$r->{staging}: " . join(' ', map { "$_=$r->{$_}" } grep { $r->{$_} } @figures) }
	  @{ $t->rows("SELECT * FROM dvmig.undo($arguments)") };
}

sub held { return scalar @{ $sim->export($_[0]) }; }
sub id_of { return $t->sql("SELECT dataverse_id FROM staging.$_[0] WHERE id = $_[1]"); }

my $first = $t->run('m', 'max_rows => 300');
is($first->{state}, 'completed', 'the first run loads a part');
my $second = $t->run('m');
is($second->{state}, 'completed', 'the second the rest');
is($t->counts('staging.people'), '900/0/900/0/0', 'all are loaded');
my ($r1, $r2) = ($first->{run}, $second->{run});

# ---------------------------------------------------------------------- bad input
like($t->error('SELECT dvmig.undo(99)'), qr/42704.*run 99 does not exist/s, 'no such run');
like($t->error("SELECT dvmig.undo($r1, related => 'cascade')"), qr/22023.*related must be refuse or skip/s, 'related');
like($t->error("SELECT dvmig.undo($r1, changed => 'x')"), qr/22023/, 'changed');
like($t->error("SELECT dvmig.undo($r1, 'staging.other')"), qr/42704/, 'no such table');
like($t->error('SELECT dvmig.undo(NULL)'), qr/22004/, 'no run');
my $v = $t->sql(q{SELECT run FROM dvmig.verify('m') LIMIT 1});
like($t->error("SELECT dvmig.undo($v)"), qr/55000.*of kind "verify"/s, 'a verification created nothing');
like($t->error("SELECT dvmig.undo($r1, confirm => 'elsewhere')"), qr/55000.*not the organisation that was confirmed/s, 'another organisation is confirmed');
$t->sql(q{CREATE ROLE op; SELECT dvmig.grant_operator('op', 'm')});
like($t->error("SET ROLE op; SELECT dvmig.undo($r1)"), qr/42501/, 'an operator does not undo');

# ------------------------------------------------------------- only what that run created
is(undo("$r2, dry_run => true"), 'staging.people: created=600; staging.firms: ', 'a dry run counts');
is(held('contacts'), 900, 'and deletes nothing');
is($t->sql(q{SELECT count(*) FROM dvmig.migration_table WHERE held_by_undo IS NOT NULL}), 0, 'nor puts anything on hold');
is(undo($r2), 'staging.people: created=600 deleted=600; staging.firms: ', 'what the second run created is deleted');
is(held('contacts') . '/' . held('accounts'), '300/300', 'and no more');
is($t->counts('staging.people'), '900/600/300/0/0', 'the rows are unprocessed again');
like($t->status('staging.people')->{next_step}, qr/on hold after undo \d+: .*SELECT dvmig.release\('staging.people'\)/, 'and the next step is the release');
is($t->sql('SELECT count(*) FROM staging.people_success'), 300, 'their outcomes have left');
is($t->sql('SELECT count(*) FROM staging.people WHERE dataverse_id IS NOT NULL'), 300, 'and their ids');
$t->account('m', 'staging.people' => { lastname => 's.family' }, 'staging.firms' => { name => 's.name' });

# --------------------------------------------------------------------------- on hold
my $run = $t->run('m');
like($t->{last_output}, qr/on hold after an undo: staging.people.*SELECT dvmig.release\('staging.people'\)/s, 'a start leaves the table out and says so');
is("$run->{state} $run->{rows_sent}", 'completed 0', 'and loads nothing of it');
like($t->error(q{SELECT dvmig.start('m', tables => '{staging.people}')}), qr/55000.*on hold/s, 'asked for, it is refused');
like($t->error(q{SET ROLE op; SELECT dvmig.release('staging.people')}), qr/42501/, 'an operator does not release it');
is($t->sql(q{SELECT dvmig.release('staging.people')}), 'staging.people is no longer on hold', 'released');
like($t->sql(q{SELECT dvmig.release('staging.people')}), qr/is not on hold/, 'twice is no error');
$run = $t->run('m');
is($t->counts('staging.people'), '900/0/900/0/0', 'it is loaded again');
my $r3 = $run->{run};
is(held('contacts'), 900, 'under its ids');

# --------------------------------------------------- changed since, and what others added
$sim->change('contacts', id_of('people', 700), { lastname => 'Changed' }, as => $stranger);
like($t->error("SELECT dvmig.undo($r3)"), qr/55000.*1 record of staging.people was changed.*changed => 'skip'/s, 'a record changed since refuses the undo');
is(held('contacts'), 900, 'and nothing is deleted');
is(undo("$r3, changed => 'skip'"), 'staging.people: created=600 changed_since=1 deleted=599; staging.firms: ', 'or is skipped');
is(held('contacts'), 301, 'and stays');
is($t->sql('SELECT processing_flag FROM staging.people WHERE id = 700'), 'P', 'as its row does');

# parents: children of another run, of a user, of the same run
my $note = $sim->create('contacts', { lastname => 'by a user', 'parentcustomerid_account@odata.bind' => 'accounts(' . id_of('firms', 250) . ')' })->{contactid};
like($t->error("SELECT dvmig.undo($r1)"), qr/55000.*staging.firms have related records/s, 'a record of a user below ours refuses the undo');
my $dry = undo("$r1, dry_run => true");
# 250, to which the user's contact belongs, 25 and 2 above it; 101, where contact 700 works, and 10; 30 and 3 above the
# account that was there before
is($dry, 'staging.people: created=300; staging.firms: created=299 has_related=7', 'those above it are counted too');
# what is no answer is not taken for tables that nothing points at: here by a table of which no metadata was read
my $task = $sim->create('tasks', { subject => 'by a user', 'regardingobjectid_account_task@odata.bind' => 'accounts(' . id_of('firms', 249) . ')' })->{activityid};
my $tasked = undo("$r1, dry_run => true");
isnt($tasked, $dry, 'a task of a user is found');
for my $body ('', 'null', '{}', '{"value":[]}', '<html>Sign in</html>')
{
	$sim->fault({ match => { method => 'GET', path_contains => 'EntityDefinitions' }, do => 'body', count => 2, text => $body, $body eq '' ? (times => 0) : () });
	is(undo("$r1, related => 'skip', dry_run => true"), $tasked, "metadata that is '$body' is asked for again");
	$sim->sim('DELETE', 'fault');
}
$sim->api('DELETE', "tasks($task)");
is(undo("$r1, related => 'skip'"), 'staging.people: created=300 deleted=300; staging.firms: created=299 has_related=7 deleted=292', 'or they are skipped');
is(held('accounts') . '/' . held('contacts'), '8/2', 'what was there before, what was skipped, and what belongs to it are left');
is($t->sql(qq{SELECT processing_flag || action_flag || dataverse_id FROM staging.firms WHERE id = 300}), "PI$found_id", 'a record that was found is not ours to delete');
is($t->counts('staging.firms'), '300/292/8/0/0', 'the books agree');

# ------------------------------------------------------------------------ again, and bad days
$t->sql(q{SELECT dvmig.release('staging.firms'); SELECT dvmig.release('staging.people')});
$sim->sim('POST', 'import', { set => 'contacts', id => $note, delete => JSON::PP::true });
$run = $t->run('m');
is($run->{state}, 'completed', 'loaded once more');
my $r4 = $run->{run};
$sim->sim('POST', 'import', { set => 'contacts', id => id_of('people', 5), delete => JSON::PP::true });
$sim->fault({ match => { path_contains => '$batch', nth => 2 }, do => 'reset_after' });
$sim->fault({ match => { path_contains => '$batch', nth => 4 }, do => 'throttle', retry_after => 1 });
$sim->fault({ match => { path_contains => '$batch', nth => 5 }, do => 'cut' });
$sim->fault({ match => { method => 'DELETE', part => JSON::PP::true, count => 3, nth => 40 }, do => 'deadlock' });
is(undo($r4), 'staging.people: created=899 gone=1 deleted=898; staging.firms: created=292 deleted=292', 'lost answers, throttling and deadlocks are gone through');
is(held('accounts') . '/' . held('contacts'), '8/1', 'everything of that run is gone');
is($t->sql(q{SELECT string_agg(t.staging || ' ' || (t.requests > 0 AND t.bytes_sent > 0 AND t.memory_kb > 0), ', ' ORDER BY t.step) || ' ' || (sum(t.cpu_ms) > 0) || ' ' || (sum(t.requests) <= max(h.requests))
	FROM dvmig.run_table t JOIN dvmig.run_history h USING (run) WHERE run = (SELECT max(run) FROM dvmig.run_history)}), 'staging.people true, staging.firms true true true', 'what it took is kept by table');
$t->sql(q{SELECT dvmig.release('staging.firms'); SELECT dvmig.release('staging.people')});

# interrupted, it goes on when called again
$run = $t->run('m');
my $r5 = $run->{run};
$sim->fault({ match => { path_contains => '$batch', nth => 6, count => 0 }, do => 'hold' });
my $job = $t->sql("SELECT dvmig.start_undo($r5)");
like($t->error(q{SELECT dvmig.start('m')}), qr/55006.*is being undone by run $job/s, 'no run starts meanwhile');
ok($t->wait_for("SELECT succeeded > 0 FROM dvmig.run_history WHERE run = $job"), 'an undo is at work');
my $pid = $t->sql("SELECT pid FROM dvmig.run_history WHERE run = $job");
$t->sql("SELECT pg_terminate_backend($pid)");
$sim->sim('DELETE', 'fault');
is($t->finish($job)->{state}, 'interrupted', 'and is interrupted');
my ($rest, $gone, $deleted) = undo($r5) =~ /^staging.people: created=(\d+)(?: gone=(\d+))?(?: deleted=(\d+))?; staging.firms: created=292 deleted=292$/;
is(($gone // 0) + ($deleted // 0), $rest, 'called again, it goes on');
is(held('accounts') . '/' . held('contacts'), '8/1', 'to the end');
is($t->sql('SELECT count(*) FROM dvmig._undo_row'), 0, 'and leaves no notes behind');
is($t->sql("SELECT kind FROM dvmig.run_history WHERE run = $job"), 'undo', 'an undo is a run of its own kind');
is($t->counts('staging.people'), '900/899/1/0/0', 'the books agree');

# ------------------------------------------- a user writes while the undo is at work
$t->sql(q{SELECT dvmig.release('staging.firms'); SELECT dvmig.release('staging.people')});
$run = $t->run('m');
my $r6 = $run->{run};
my $person = id_of('people', 400);
my $firm = $t->sql('SELECT f.dataverse_id FROM staging.people p JOIN staging.firms f ON f.id = p.firm WHERE p.id = 400');
$sim->fault({ match => { path_contains => '$batch', count => 0 }, do => 'hold' });
my $faults = $sim->sim('GET', 'stats')->{faults};
$job = $t->sql("SELECT dvmig.start_undo($r6)");
$t->until('a delete is on its way', sub { $sim->sim('GET', 'stats')->{faults} > $faults });
$sim->change('contacts', $person, { lastname => 'By a user' }, as => $stranger);
my $other = $t->sql("SELECT max(dataverse_id::text) FROM staging.firms_success WHERE created_run = $r6 AND dataverse_id <> '$firm'");
is(($sim->api('DELETE', "accounts($other)"))[0], 204, 'a user deletes one himself');
$sim->sim('DELETE', 'fault');
is($t->finish($job)->{state}, 'completed', 'it ends');
is((grep { $_->{contactid} eq $person } @{ $sim->export('contacts') })[0]{lastname}, 'By a user', 'what was changed meanwhile is not deleted');
ok((grep { $_->{accountid} eq $firm } @{ $sim->export('accounts') }), 'nor what it belongs to');
is($t->sql("SELECT concat_ws(' ', changed, deleted, note) FROM dvmig._undo_table WHERE undo = $job AND staging = 'staging.people'"),
	'1 898 1 record was changed by another user while the undo was at work, and is left', 'and it is counted');
is($t->sql("SELECT concat_ws(' ', created, gone, changed, related, deleted, failed) FROM dvmig._undo_table WHERE undo = $job AND staging = 'staging.firms'"),
	'292 1 0 0 291 0', 'what somebody has deleted meanwhile is gone, and the figures add up');
is($t->sql('SELECT processing_flag FROM staging.people WHERE id = 400'), 'P', 'its row keeps its verdict');

# --------------------------------------- what belongs to them cannot be asked
$t->sql(q{SELECT dvmig.release('staging.firms'); SELECT dvmig.release('staging.people')});
$run = $t->run('m', 'max_rows => 5');
my $r7 = $run->{run};
# as an organisation tells it that deletes notes with their contact
$t->sql(q{UPDATE dvmig.metadata_child SET cascade_delete = 'Cascade' WHERE table_name = 'contact' AND child_table = 'annotation'});
$sim->fault({ match => { path_contains => '/annotations?', count => 0 }, do => 'status', status => 403, code => '0x80040220' });
like($t->error("SELECT dvmig.undo($r7)"), qr/55000.*records of annotations would be deleted with those of staging.people, and the application user may not read them/s, 'where they may not be read, the undo is refused');
is(held('accounts') . '/' . held('contacts'), '13/7', 'nothing is deleted');
my $left = undo("$r7, related => 'skip'");
like($left, qr/staging.people: created=(\d+) has_related=\1;/, 'or everything is skipped');
like($t->sql(q{SELECT message FROM dvmig.run_table WHERE staging = 'staging.people' ORDER BY run DESC LIMIT 1}), qr/whether records of annotations belong to them is not known/, 'which is told');
$sim->sim('DELETE', 'fault');
like(undo($r7), qr/staging.people: created=(\d+) deleted=\1;/, 'with the privilege it is done');

done_testing();

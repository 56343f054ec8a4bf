# Limits of the service: held to, shared by lanes of one application user, used
# in full by each further one; and what can be changed while a run lives
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;
use DvMig::People qw(stage_people fresh_people);

my ($client3, $user3) = ('bbbbbbbb-0000-4000-8000-000000000003', 'cccccccc-0000-4000-8000-000000000003');
my $t = DvMig->new(name => 'pace', profile => 'strict',
	args => [ '--client', "$client3:third:$user3" ]);

my %fields = stage_people($t);

# fresh(n): people as if none had ever been sent
sub fresh
{
	fresh_people($t, $_[0]);
	$t->sql('DELETE FROM dvmig.table_pace');
	return;
}

# --- limits of one user, shared by two lanes
fresh(4000);
$t->sim->set(limit_requests => 8, limit_window => 4, retry_after => 4, servers => 1, dop_hint => 3);
my $run = $t->run('m', 'lanes => 2');
my $stats = $t->sim->stats;
is($run->{state}, 'completed', 'a run goes through narrow limits');
cmp_ok($stats->{throttled}{requests}, '>', 0, 'it was throttled');
is($run->{failed}, 0, 'which fails no row');
is($stats->{in_wait}, 0, 'and nothing was sent while the service told it to wait');
cmp_ok($stats->{in_flight_max}, '<=', 3, 'never more at once than x-ms-dop-hint, in both lanes together');
cmp_ok($run->{throttled}, '>', 0, 'run_history counts it');
cmp_ok($run->{hold_ms}, '>', 0, 'and the time it cost');
$t->account('m', %fields);
$t->sim->set(limit_requests => 0, servers => 3, dop_hint => 8);

# --- what was learnt of the table is kept for the next run
my $learnt = $t->rows(q{SELECT * FROM dvmig.table_pace WHERE table_name = 'contact' AND pass = 'write'})->[0];
cmp_ok($learnt->{bulk_rows}, '>', 100, 'rows of a request grew');
fresh(200);
$t->sim->set(sql_timeout => 500, row_time => 10000);
$run = $t->run('m');
is($run->{state}, 'completed', 'a table that takes fifty rows at once');
$learnt = $t->rows(q{SELECT * FROM dvmig.table_pace WHERE table_name = 'contact' AND pass = 'write'})->[0];
cmp_ok($learnt->{bulk_max}, '<=', 50, 'its cap is learnt');
$t->sim->set(sql_timeout => 0, row_time => 0);
$t->account('m', %fields);
fresh(0);

# --- each application user brings its own quota
$t->sql(sprintf q{ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (ADD client_id2 '%s', ADD client_secret2 '%s',
	ADD client_id3 '%s', ADD client_secret3 'third')}, DvMig::Sim::CLIENT2, DvMig::Sim::SECRET2, $client3);
fresh(6000);
$t->sim->set(row_time => 10000);
$run = $t->run('m');
$t->sim->set(row_time => 0);
is($run->{state}, 'completed', 'a run with three application users');
is($run->{lanes}, 3, 'has a lane for each by default');
my %by;
$by{ $_->{_createdby_value} }++ for @{ $t->sim->export('contacts') };
is_deeply([ sort keys %by ], [ sort(DvMig::Sim::USER(), DvMig::Sim::USER2(), $user3) ], 'each writes a part of the records');
is_deeply($t->rows(qq{SELECT lane, application_user FROM dvmig.run_lane WHERE run = $run->{run} ORDER BY 1}),
	[ map { { lane => $_, application_user => $_ } } 1 .. 3 ], 'dvmig.run_lane tells which lane is whose');
is($t->sql(qq{SELECT sum(rows_done) FROM dvmig.run_lane WHERE run = $run->{run}}), 6000, 'its figures add up');
$t->account('m', %fields);

# --- a user that is not let in costs its lane, not the run
$t->sql(q{ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (SET client_secret3 'wrong')});
fresh(500);
$run = $t->run('m');
is($run->{state}, 'completed', 'a run without its third user');
is($run->{lanes}, 2, 'has two lanes');
like($t->sql(qq{SELECT detail ->> 'message' FROM dvmig.event WHERE kind = 'lane refused' AND object = '$run->{run}'}),
	qr/client_id3/, 'and tells which one it was');
$t->sql(q{ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (DROP client_id3, DROP client_secret3)});

# --- one that is not answered at once is waited for: of a user that is not known, what an
# earlier run wrote would be taken for somebody else's, and left as it is
fresh(500);
$t->sim->fault({ match => { path_contains => 'WhoAmI', user => DvMig::Sim::USER2() }, do => 'status', status => 503, count => 2 });
$run = $t->run('m');
is($run->{state}, 'completed', 'a run whose second user is not answered at first');
is($run->{lanes}, 2, 'has a lane for it all the same');
is($t->sql(qq{SELECT count(*) FROM dvmig.event WHERE kind = 'lane refused' AND object = '$run->{run}'}), 0, 'and refuses nobody');

# --- pause, go on, tune, watch
fresh(3000);
$t->sim->set(row_time => 20000);
$run = $t->start('m', 'lanes => 1');
$t->wait_for(qq{SELECT rows_done > 0 FROM dvmig.progress_lane WHERE run = $run});
is($t->sql("SELECT dvmig.pause($run)"), 'paused', 'a run pauses');
is($t->sql("SELECT state FROM dvmig.progress WHERE run = $run"), 'paused', 'progress says so');
$t->wait_for("SELECT in_flight = 0 FROM dvmig.progress WHERE run = $run");
my $sent = $t->sim->stats->{bulk_targets};
$t->sql(qq{SELECT dvmig.tune($run, lanes => 2, in_flight => 1, batch_rows => 50, rate => 100000)});
$t->wait_for("SELECT lanes = 2 FROM dvmig.progress WHERE run = $run");
is($t->sim->stats->{bulk_targets}, $sent, 'no row is sent while it is paused');
is($t->sql("SELECT dvmig.resume($run)"), $run, 'resume goes on with it');
$t->wait_for("SELECT batch_rows IS NOT NULL AND rows_per_second_30s IS NOT NULL FROM dvmig.progress_table WHERE run = $run AND state = 'running'");
is($t->sql("SELECT tuned ->> 'in_flight' FROM dvmig.progress WHERE run = $run"), 1, 'progress shows what was tuned');
$t->sim->set(row_time => 0);
is($t->finish($run)->{state}, 'completed', 'and the run completes');
$t->account('m', %fields);
is_deeply([ map { $_->{kind} } @{ $t->rows(qq{SELECT kind FROM dvmig.event WHERE object = '$run' AND kind IN ('pause', 'tune', 'go on') ORDER BY event_id}) } ],
	[ 'pause', 'tune', 'go on' ], 'all of it is among the events');
my $table = $t->rows(qq{SELECT * FROM dvmig.run_table WHERE run = $run AND pass = 'write'})->[0];
cmp_ok($table->{cpu_ms}, '>', 0, 'run_table keeps the processor time');
cmp_ok($table->{memory_kb}, '>', 0, 'and memory');
cmp_ok($table->{wait_ms} + $table->{read_ms} + $table->{record_ms} + $table->{encode_ms}, '>', 0, 'and where the time went');

# --- errors
like($t->error("SELECT dvmig.tune($run, lanes => 2)"), qr/55000: .*run $run is not at work: it is completed/, 'a run that has ended is not tuned');
like($t->error("SELECT dvmig.pause($run)"), qr/55000/, 'nor paused');
like($t->error("SELECT dvmig.tune(-1)"), qr/42704/, 'nor one that does not exist');
like($t->error(q{SELECT dvmig.start('m', lanes => 0)}), qr/22023: .*lanes cannot be 0/, 'a run has a lane');

done_testing();

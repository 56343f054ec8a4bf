# What is asked of a run while it lives takes effect, each by itself; and tables
# that take different times find their own size of request, without a setting
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;
use Time::HiRes qw(time);

use DvMig;

my $t = DvMig->new(name => 'tune', profile => 'strict', conf => "restart_after_crash = on\ndvmig.settle_time = 1s\n", set => { dop_hint => 8 });

$t->sql(q{CREATE TABLE people (id int PRIMARY KEY, family text);
	CREATE TABLE firms (id int PRIMARY KEY, name text);
	INSERT INTO people SELECT n, 'Name ' || n FROM generate_series(1, 15000) n});
$t->migration('m', tables => 'contact,account');
$t->sql(q{SELECT dvmig.add_table('m', 'people', 'contact', source_key => 'id');
	SELECT dvmig.map_column('people', 'lastname', 'family')});
my %fields = (people => { lastname => 's.family' });

# what the simulator counted since it was asked to begin anew
sub seen { return $t->sim->stats; }
sub anew { $t->sim->sim(POST => 'reset?keep=records'); return; }
# sent($n): wait until so many more rows have been created
sub sent
{
	my ($n) = @_;
	my $from = seen()->{rows_created};
	my $until = time + 120;

	until (seen()->{rows_created} >= $from + $n) { die "no rows come\n" if time > $until; select undef, undef, undef, 0.05; }
	return;
}

# slow enough that rows are left when the machine is slow as well
$t->sim->set(row_time => 10000, latency => 20);
my $run = $t->start('m', 'lanes => 1');
sent(500);

# soon(code): what is asked of a run is taken up within a second, and what was read before goes first
sub soon
{
	my ($good) = @_;
	for (1 .. 20)
	{
		anew();
		sent(200);
		return 1 if $good->(seen());
	}
	return 0;
}

# --- rows of a request
$t->sql("SELECT dvmig.tune($run, batch_rows => 40)");
ok(soon(sub { $_[0]{bulk_targets} <= 40 * $_[0]{requests}{create_multiple} }), 'batch_rows is taken up');

# --- requests at once; looking is one more
$t->sql("SELECT dvmig.tune($run, in_flight => 2)");
ok(soon(sub { $_[0]{in_flight_max} <= 2 + 1 }), 'in_flight is taken up');
anew();
sent(200);
cmp_ok(seen()->{in_flight_max}, '<=', 2 + 1, 'and holds');
cmp_ok(seen()->{bulk_targets}, '<=', 40 * seen()->{requests}{create_multiple}, 'as batch_rows does');

# --- rows a second: never more than the cap, and a request
$t->sim->set(row_time => 2000);
$t->sql("SELECT dvmig.tune($run, in_flight => 0, rate => 100)");
ok($t->wait_for("SELECT hold_ms > 500 FROM dvmig.run_history WHERE run = $run"), 'a rate cap is taken up, and its time is hold');
my ($began, $before) = (time, seen()->{rows_created});
sent(200);
cmp_ok(seen()->{rows_created} - $before, '<=', 100 * (time - $began) + 100 + 2 * 40, 'it holds');

# --- lanes, more and fewer
$t->sql("SELECT dvmig.tune($run, lanes => 3, rate => 500)");
ok($t->wait_for("SELECT lanes = 3 FROM dvmig.progress WHERE run = $run"), 'more lanes');
ok($t->wait_for("SELECT count(*) = 3 FROM dvmig.run_lane WHERE run = $run AND rows_done > 0"), 'which all do a part');
$t->sql("SELECT dvmig.tune($run, lanes => 1)");
ok($t->wait_for("SELECT lanes = 1 FROM dvmig.progress WHERE run = $run"), 'fewer lanes');

# --- pause and resume
$t->sql("SELECT dvmig.pause($run)");
# held(ms): wait until so much more of the time is hold
sub held
{
	my ($ms) = @_;
	my $from = $t->sql("SELECT hold_ms FROM dvmig.run_history WHERE run = $run");
	return $t->wait_for("SELECT hold_ms >= $from + $ms FROM dvmig.run_history WHERE run = $run");
}
ok($t->wait_for("SELECT state = 'paused' AND in_flight = 0 FROM dvmig.progress WHERE run = $run") && held(1500), 'a pause is hold');
anew();
held(500);
is(seen()->{bulk_targets}, 0, 'nothing is sent meanwhile');
$t->sql("SELECT dvmig.resume($run)");

# --- the split of the time
$t->sim->set(row_time => 0, latency => 0);
$t->sql("SELECT dvmig.tune($run, batch_rows => 0, rate => 0)");
is($t->finish($run)->{state}, 'completed', 'the run completes');
$t->account('m', %fields);
my $split = $t->rows(qq{SELECT l.lane, (l.read_ms + l.encode_ms + l.wait_ms + l.hold_ms + l.record_ms)::float8 AS spent,
	extract(epoch FROM h.ended_at - h.started_at) * 1000 AS elapsed FROM dvmig.run_lane l JOIN dvmig.run_history h USING (run) WHERE run = $run AND l.lane = 1})->[0];
cmp_ok($split->{spent}, '<=', $split->{elapsed} + 1000, 'read, encode, wait, hold and record are no more than a lane had');
cmp_ok($split->{spent}, '>=', $split->{elapsed} / 2, 'and most of it');

# --- a quick table and one with plug-ins: each finds its size
$t->sql(q{TRUNCATE people, people_success, people_error; DELETE FROM dvmig.table_pace;
	SELECT dvmig.add_table('m', 'firms', 'account', source_key => 'id');
	SELECT dvmig.map_column('firms', 'name', 'name');
	INSERT INTO people SELECT n, 'Name ' || n FROM generate_series(1, 12000) n;
	INSERT INTO firms SELECT n, 'Firm ' || n FROM generate_series(1, 600) n});
$t->sim->sim(POST => 'reset');
# a row of a contact takes 0.2 ms, one of an account 100 ms, and what takes 8 s fails
$t->sim->set(row_time => 200, slow_table => 'account', slow_factor => 500, sql_timeout => 8000, dop_hint => 6);
$run = $t->run('m');
is($run->{state}, 'completed', 'two tables that differ');
my %rows = map { $_->{table_name} => $_ } @{ $t->rows(q{SELECT * FROM dvmig.table_pace WHERE pass = 'write'}) };
cmp_ok($rows{contact}{bulk_rows}, '>=', 500, 'the quick one is sent by many rows');
cmp_ok($rows{account}{bulk_rows}, '<=', 80, 'the slow one by few');
cmp_ok($rows{account}{bulk_rows}, '>=', 10, 'but not one by one');
$t->account('m', %fields, firms => { name => 's.name' });

# mirrored($run): wait until what is asked of a run has been taken up for sure
sub mirrored
{
	my ($n) = @_;
	my $now = $t->sql('SELECT clock_timestamp()');
	$t->wait_for("SELECT updated_at > '$now'::timestamptz + interval '1.2 s' FROM dvmig.run_history WHERE run = $n") or die "run $n is not alive\n";
	return;
}

# --- a job: paused and gone on with
sub asked { my $s = seen(); return $s->{requests}{get} + $s->{requests}{batch}; }
$t->sim->set(latency => 700);
my $job = $t->sql(q{SELECT dvmig.start_verify('m')});
$t->sql("SELECT dvmig.pause($job)");
like($t->error("SELECT dvmig.tune($job, lanes => 2)"), qr/0A000: .*lanes, batch_rows and rate are not for a job/, 'a job has no lanes');
$t->sql("SELECT dvmig.tune($job, in_flight => 1)");
mirrored($job);
$t->wait_for("SELECT in_flight = 0 FROM dvmig.progress WHERE run = $job");
mirrored($job);
anew();
mirrored($job);
$t->sim->set(latency => 0);
is($t->sql("SELECT state FROM dvmig.progress WHERE run = $job"), 'paused', 'a job can be paused');
is(asked(), 0, 'and asks nothing');
$t->sql("SELECT dvmig.resume($job)");
is($t->finish($job)->{state}, 'completed', 'it goes on to its end');
cmp_ok(asked(), '>', 0, 'by asking again');
cmp_ok(seen()->{in_flight_max}, '<=', 2, 'with one request after the other');
is($t->sql("SELECT string_agg(DISTINCT result, ',') FROM dvmig.verification WHERE run = $job"), 'equal', 'and finds all equal');

# --- what nobody should ask
$job = $run->{run};
like($t->error("SELECT dvmig.tune($job, rate => 10)"), qr/55000: .*not at work: it is completed/, 'a run that is over is not tuned');
$t->sql(q{UPDATE people SET family = family || ' again', processing_flag = 'U'});
# paused(): a run that was paused when it began, which is before its first row
sub paused
{
	anew();
	my $n = $t->sql(q{WITH r AS MATERIALIZED (SELECT dvmig.start('m', lanes => 2, resend => true) AS run) SELECT run FROM r, dvmig.pause(r.run)});
	ok($t->wait_for("SELECT EXISTS (SELECT FROM dvmig.run_table WHERE run = $n AND state = 'running')"), 'a run that was paused when it began is at work');
	mirrored($n);
	is(seen()->{bulk_targets}, 0, 'and no row goes');
	return $n;
}
$run = paused();
# a wait for what waits for the waiting transaction would have no end
like($t->error("SET statement_timeout = '60s'; SELECT dvmig.stop($run), dvmig.wait($run)"), qr/55000.*run $run goes on only when the transaction that stopped, paused or tuned it commits.*Commit first/s, 'stopped and waited for in one statement');
like($t->error("SET statement_timeout = '60s'; BEGIN; SELECT dvmig.tune($run, lanes => 3); SELECT dvmig.wait($run)"), qr/55000.*Commit first/s, 'tuned and waited for in one transaction');
like($t->error("SELECT dvmig.$_(NULL)"), qr/22004.*the run is missing/s, "$_: no run") for qw(stop pause resume tune wait);
anew();
for my $bad ([ lanes => 0 ], [ lanes => -1 ], [ lanes => 100 ], [ in_flight => -1 ], [ in_flight => 65 ], [ batch_rows => -1 ], [ batch_rows => 1001 ],
	[ rate => -1 ], [ rate => q{'NaN'} ], [ rate => q{'Infinity'} ])
{
	like($t->error("SELECT dvmig.tune($run, $bad->[0] => $bad->[1])"), qr/22023: .*$bad->[0] cannot be/, "$bad->[0] => $bad->[1]");
}
is($t->sql("SELECT tuned FROM dvmig.run_history WHERE run = $run"), '{}', 'none of which is kept');
$t->sql("SELECT dvmig.tune($run, rate => 0.001)");
$t->sql("SELECT dvmig.tune($run, lanes => $_)") for 32, 1, 8, 1, 3;
ok($t->wait_for("SELECT lanes = 3 FROM dvmig.progress WHERE run = $run"), 'lanes come and go while it is paused');
is(seen()->{bulk_targets}, 0, 'and nothing is sent');
$t->sql("SELECT dvmig.resume($run)");
ok($t->wait_for("SELECT rows_read > 0 FROM dvmig.progress WHERE run = $run"), 'it goes on');
$t->sql("SELECT dvmig.pause($run)");
$t->sql("SELECT dvmig.stop($run)");
is($t->finish($run)->{state}, 'stopped', 'a run that is capped, tuned to and fro, paused and stopped, ends');
$t->account('m', firms => { name => 's.name' });
$run = paused();
my $worker = $t->sql("SELECT pid FROM dvmig.run_lane WHERE run = $run AND lane = 1");
ok($t->kill_process($worker), 'one that is paused is killed with its server');
is($t->sql("SELECT count(*) FROM dvmig.progress WHERE run = $run"), 0, 'and is over');
is($t->run('m', 'resend => true')->{state}, 'completed', 'and the next one does the rest');
$t->account('m', %fields, firms => { name => 's.name' });

done_testing();

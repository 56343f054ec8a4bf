# What the service tells an application user to wait holds for all that sends
# as that user: runs, jobs and sessions, of any database
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use IPC::Run qw(finish start);
use JSON::PP;
use Test::More;
use Time::HiRes qw(sleep time);

use DvMig;

my $t = DvMig->new(name => 'holds');
my $sim = $t->sim;
my $file = $t->node->data_dir . '/pg_stat_tmp/dvmig.holds';

$t->sql(q{
	CREATE SCHEMA staging;
	CREATE TABLE staging.one (id int PRIMARY KEY, family text);
	CREATE TABLE staging.two (LIKE staging.one INCLUDING ALL);
	CREATE TABLE staging.three (LIKE staging.one INCLUDING ALL)});
$t->migration('one', tables => 'contact');
$t->server('other', client => DvMig::Sim::CLIENT2, secret => DvMig::Sim::SECRET2);
$t->sql(q{SELECT * FROM dvmig.refresh_metadata('other', '{contact}');
	SELECT dvmig.create_migration('two', 'sim'), dvmig.create_migration('three', 'other')});
for my $m (qw(one two three))
{
	$t->sql("INSERT INTO staging.$m SELECT n, '$m ' || n FROM generate_series(1, 400) n;
		SELECT dvmig.add_table('$m', 'staging.$m', 'contact', auto_map => false); SELECT dvmig.map_column('staging.$m', 'lastname', 'family')");
}

# Nothing was ever told: no process waits any more.
sub forget { unlink $file; return $sim->sim('DELETE', 'fault'); }

# told(seconds): a session of the first user is told to wait so long, for which it has not the time, and ends; when that was.
sub told
{
	my ($seconds) = @_;

	forget();
	$sim->sim('POST', 'reset?keep=records');
	$sim->fault({ match => { path_contains => 'WhoAmI', user => DvMig::Sim::USER }, do => 'throttle', retry_after => $seconds, count => 1 });
	my $before = time;
	like($t->error("SET statement_timeout = '@{[ $seconds - 1 ]}s'; SELECT * FROM dvmig.whoami('sim')"), qr/53400.*service protection limits/s, "told to wait for $seconds seconds");
	return $before;
}

# obeyed(what, since, seconds): nothing of the user came meanwhile, and it took as long.
sub obeyed
{
	my ($what, $since, $seconds) = @_;
	my $stats = $sim->stats;

	is($stats->{in_wait}, 0, "$what: nothing is sent meanwhile");
	cmp_ok(time - $since, '>=', $seconds, "$what: that was waited for");
	return;
}

# ---------------------------------------------------------------- runs and jobs

# The hold outlives who learnt it. A run that begins says what it waits for, counts the time, and can be stopped.
my $since = told(12);
my $run = $t->start('one');
ok($t->wait_for("SELECT state = 'running' AND message ~ '^waiting: Dataverse told application user 1 to wait until 2' FROM dvmig.progress WHERE run = $run"),
	'a run that begins: dvmig.progress says who is told to wait, and until when');
# but for moments: when it looks for what is asked of it
ok($t->wait_for("SELECT count(*) = 0 OR NOT EXISTS (SELECT FROM dvmig.progress WHERE run = $run) FROM pg_stat_activity
	WHERE backend_type LIKE 'dvmig%' AND (backend_xmin IS NOT NULL OR xact_start IS NOT NULL)")
	  && $t->sql("SELECT message ~ '^waiting: Dataverse told' FROM dvmig.progress WHERE run = $run") eq 't', 'a run that begins: and holds no snapshot');
$run = $t->finish($run);
is("$run->{state} $run->{succeeded} $run->{failed}", 'completed 400 0', 'a run that begins: goes on by itself');
is($run->{message}, undef, 'a run that begins: and has nothing more to say');
cmp_ok($run->{throttled_ms}, '>', 1000, 'a run that begins: the time counts as throttled');
obeyed('a run that begins', $since, 12);

# another user of the same organisation is not held
told(600);
$run = $t->run('three');
is("$run->{state} $run->{succeeded}", 'completed 400', 'another application user is not held');
is($t->sql(q{SELECT application_user_id FROM dvmig.whoami('other')}), DvMig::Sim::USER2, 'nor its session');

# One run is told so in its middle: another one, whose answers come after that, sends nothing more until then.
forget();
$t->sql(q{INSERT INTO staging.two SELECT n, 'two ' || n FROM generate_series(401, 3000) n;
	UPDATE staging.one SET family = 'again ' || id, processing_flag = 'U', action_flag = 'U'});
$sim->sim('POST', 'reset?keep=records');
$sim->fault({ match => { path_contains => 'CreateMultiple', count => 0 }, do => 'hold', after => JSON::PP::true });
my $beside = $t->start('two');
$t->until('a run is at work', sub { $sim->held > 1 });
$sim->fault({ match => { path_contains => 'UpdateMultiple', body_contains => 'again' }, do => 'throttle', retry_after => 15, count => 1 });
$since = time;
my $first = $t->start('one');
$t->until('the other one is told to wait', sub { $sim->stats->{status}{429} });
is($t->sql(q{SELECT sum(different) FROM dvmig.verify('three')}), 0, 'meanwhile the other user verifies');
sleep 0.1 while time < $since + 4;
$sim->sim('DELETE', 'fault');
ok($t->wait_for("SELECT message ~ 'told application user 1' FROM dvmig.progress WHERE run = $beside"), 'two runs: the one that was not told so itself says what it waits for');
my ($first_end, $beside_end) = ($t->finish($first), $t->finish($beside));
is("$first_end->{state} $beside_end->{state}", 'completed completed', 'two runs: both complete');
is("$first_end->{failed} $beside_end->{failed} $beside_end->{succeeded}", '0 0 3000', 'two runs: no row failed');
is("$beside_end->{throttled}", 0, 'two runs: one of them was never refused anything');
cmp_ok($beside_end->{throttled_ms}, '>', 1000, 'two runs: and was held back all the same');
obeyed('two runs', $since, 15);

$since = told(4);
is($t->sql(q{SELECT sum(different) FROM dvmig.verify('one')}), 0, 'a verification comes to its end');
obeyed('a verification', $since, 4);

# ---------------------------------------------------------------- sessions

$since = told(8);
my ($out, $err) = ('', '');
$t->node->psql('postgres', q{SELECT * FROM dvmig.refresh_metadata('sim', '{account}')}, stdout => \$out, stderr => \$err);
like($err, qr/NOTICE: .*Dataverse told application user 1 to wait until .*, which is waited for/, 'a session is told why it waits');
like($out, qr/account/, 'and goes on by itself');
obeyed('a session', $since, 8);

# One that is told so itself goes on, too; but not for ever.
forget();
$sim->fault({ match => { path_contains => 'WhoAmI' }, do => 'throttle', retry_after => 1, count => 2 });
is($t->sql(q{SELECT table_name FROM dvmig.refresh_metadata('sim', '{account}')}), 'account', 'a session whose first request is refused asks again when it may');
forget();
$sim->fault({ match => { path_contains => 'WhoAmI' }, do => 'throttle', retry_after => 1, count => 0 });
like($t->error(q{SELECT * FROM dvmig.whoami('sim')}), qr/53400.*service protection limits hold/s, 'where it is refused each time it says so');
$sim->sim('DELETE', 'fault');

# Seconds are waited for, an hour is not, nor what the statement may not take.
told(3600);
like($t->error(q{SELECT * FROM dvmig.refresh_metadata('sim', '{account}')}), qr/53400.*told application user 1 to wait until .*\n.*HINT: +Wait until then/s,
	'longer than dvmig.request_timeout is an error at once');
# longer than all that follows takes
$since = told(280);
like($t->error(q{SET statement_timeout = '30s'; SELECT * FROM dvmig.whoami('sim')}), qr/53400.*told application user 1/s,
	'and longer than statement_timeout has left');
cmp_ok(time - $since, '<', 25, 'which is not waited for');

# Both waits can be broken off.
my $cancel = sub {
	my ($name, $sql) = @_;
	my ($in, $log) = ('', '');
	my $h = start([ 'psql', '-XAtq', '-d', $t->node->connstr('postgres'), '-c', "/* $name */ $sql" ], '<', \$in, '>&', \$log);

	ok($t->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '/* $name */%' AND wait_event_type = 'Extension'"), "$name: waits");
	my $began = time;
	$t->sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '/* $name */%'");
	finish($h);
	like($log, qr/canceling statement due to user request/, "$name: is cancelled");
	return;
};
$cancel->('whoami', q{SELECT * FROM dvmig.whoami('sim')});
$t->sql(q{UPDATE staging.one SET processing_flag = 'U', family = 'third ' || id});
$run = $t->start('one');
ok($t->wait_for("SELECT message ~ 'told application user 1' FROM dvmig.progress WHERE run = $run"), 'a run waits');
$t->sql("SELECT dvmig.stop($run)");
is($t->finish($run)->{state}, 'stopped', 'and is stopped at once');

# ---------------------------------------------------------------- restarts, other databases, what is in the file

$t->node->stop('fast');
$t->node->start;
like($t->error(q{SET statement_timeout = '5s'; SELECT * FROM dvmig.whoami('sim')}), qr/told application user 1/, 'the hold outlives a restart');
$t->sql('CREATE DATABASE beside');
{
	local $t->{db} = 'beside';
	$t->sql('CREATE EXTENSION dvmig');
	$t->server('elsewhere');
	like($t->error(q{SET statement_timeout = '5s'; SELECT * FROM dvmig.whoami('elsewhere')}), qr/told application user 1/, 'and is known in other databases');
}
is(sprintf('%04o', (stat $file)[2] & 07777), '0600', 'nobody else reads the file');

# written(end, seconds): every place says that its user waits until then, as if told so long before
sub written
{
	my ($end, $seconds) = @_;

	open(my $io, '+<:raw', $file) or die $!;
	for my $place (0 .. (-s $file) / 16 - 1)
	{
		seek($io, $place * 16 + 8, 0);
		print {$io} pack('Q<', (int(($end - 946684800) * 1000) << 20) | $seconds);
	}
	close $io;
	return;
}
written(time + 7200, 3600);
ok($t->sql(q{SELECT * FROM dvmig.whoami('sim')}), 'a clock that was set back holds nobody');
written(time + 86400, 900_000);
ok($t->sql(q{SELECT * FROM dvmig.whoami('sim')}), 'nor does what no service tells');
written(time + 3600, 3601);
like($t->error(q{SELECT * FROM dvmig.whoami('sim')}), qr/told application user 1/, 'but what it does');
unlink $file;
$t->node->stop('fast');
chmod 0500, $t->node->data_dir . '/pg_stat_tmp';
$t->node->start;
ok($t->sql(q{SELECT * FROM dvmig.whoami('sim')}), 'without the file work goes on');
chmod 0700, $t->node->data_dir . '/pg_stat_tmp';

done_testing();

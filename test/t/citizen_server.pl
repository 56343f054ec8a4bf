# What is done to the database, the extension, the worker and the server while
# requests hang: nothing waits for the network, nothing is lost or done twice
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use PostgreSQL::Test::Utils;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'citizen_server', conf => "max_prepared_transactions = 5\n");
my $t = $h->t;
my $table;
my $run;

# state_of(run): how it ended, once it has.
sub state_of { my ($run) = @_; return $t->sql("SELECT dvmig.wait($run)"); }

# gone_on(name): what hung is over; a new run settles it all, and nothing is
# doubled.
sub gone_on
{
	my ($name, $counts) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$h->quiet;
	is($t->run($h->migration)->{state}, 'completed', "$name: the next run completes");
	$h->exact($name, $counts // '300/0/300/0/0');
	return;
}

# ------------------------------------------------------------ the database itself

$t->node->append_conf('postgresql.conf', "dvmig.settle_time = '300ms'\n");
$t->node->reload;

# Where the answer is that hangs.
my %hang = (
	'rows being written' => { method => 'POST', path_contains => 'CreateMultiple' },
	'the first request' => { path_contains => 'WhoAmI' },
	'the token' => { path_contains => 'oauth2' },
	'references being read' => { method => 'GET', path_contains => '/systemusers' },
);
my $n = 0;

for my $where (sort keys %hang)
{
	my $db = 'crm' . ++$n;

	$table = $h->scene(rows => 300, db => $db);
	$t->sql(sprintf q{SELECT dvmig.map_lookup('%s', 'ownerid', $$'someone@example.com'$$, 'systemuser', match_on => 'internalemailaddress')}, $table)
	  if $where =~ /references/;
	$h->hold(%{ $hang{$where} });
	$run = $h->start;

	# CREATE DATABASE and DROP DATABASE themselves wait five seconds for
	# other sessions to be gone, and then give up.
	$t->{db} = 'postgres';
	$h->beside("$where: CREATE DATABASE ... TEMPLATE", "CREATE DATABASE copy_of_$db TEMPLATE $db");
	$h->gone($run, "$where: the worker has ended");
	$t->{db} = $db;
	is(state_of($run), 'interrupted', "$where: the run is interrupted");
	$t->{db} = "copy_of_$db";
	is(state_of($run), 'interrupted', "$where: in the copy too");
	is($t->counts($table), '300/300/0/0/0', "$where: its figures add up");

	$t->{db} = $db;
	$run = $t->start($h->migration);
	$h->until('requests hang', sub { $h->held > 1 });
	$t->{db} = 'postgres';
	$h->beside("$where: DROP DATABASE", "DROP DATABASE $db");
	$h->gone($run, "$where: the worker has ended");
	$h->quiet;
	next if $where !~ /written/;

	# The copy goes on where the original was. It does not know what of its
	# rows arrived, and asks.
	$t->{db} = "copy_of_$db";
	gone_on("$where: the copy of the database");
}
$t->{db} = 'postgres';

$table = $h->scene(rows => 300, db => 'old_name');
$h->hold(after => 1);
$run = $h->start(least => 2);
$t->{db} = 'postgres';
$h->beside('ALTER DATABASE ... RENAME', 'ALTER DATABASE old_name RENAME TO new_name');
$h->gone($run, 'the worker of a renamed database ends');
$t->{db} = 'new_name';
gone_on('renamed database');

# ------------------------------------------------------------------ the extension

$table = $h->scene(rows => 300, db => 'drop_extension');
$h->hold;
$run = $h->start;
$h->beside('DROP EXTENSION', 'DROP EXTENSION dvmig CASCADE');
$h->gone($run, 'the worker ends when its extension is gone');
$h->quiet;
is($t->sql("SELECT count(*) FROM $table"), 300, 'the staging table stays');

$t->{db} = 'postgres';
delete $t->{has_server};

# --------------------------------------------------------------------- the worker

$table = $h->scene(rows => 300);
$h->hold(after => 1);
$run = $h->start(least => 2);
$h->beside('pg_terminate_backend', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dvmig run $run'");
ok($h->until('the worker ends', sub { !$h->worker($run) }) && $h->held > 0, 'pg_terminate_backend: the worker ends without an answer');
is(state_of($run), 'interrupted', 'pg_terminate_backend: the run is interrupted');
is($t->status($table)->{in_doubt}, 300, 'pg_terminate_backend: rows are in doubt');
gone_on('pg_terminate_backend');

$table = $h->scene(rows => 300);
$h->hold(after => 1);
$run = $h->start(least => 2);
$t->node->stop('fast');
ok($h->held > 0, 'a fast shutdown does not wait for an answer');
$t->node->start;
is(state_of($run), 'interrupted', 'shutdown: the run is interrupted');
gone_on('fast shutdown');

# ------------------------------------------------------------------- stopping it

# call: CALL dvmig.run in a session of its own
sub call
{
	my $s = $h->session;

	$s->send(sprintf "CALL dvmig.run('%s');\n\\echo done\n", $h->migration);
	return $s;
}

sub running
{
	return $t->sql(sprintf q{SELECT max(run) FROM dvmig.run_history WHERE migration = '%s'}, $h->migration);
}

# More than go out before every second request, held, has taken all places.
$table = $h->scene(rows => 20000);
$h->hold(nth => 2);
my $caller = call();
$h->until('requests hang', sub { $h->held >= 2 });
$run = running();
$t->wait_for(q{SELECT backend_xmin IS NULL FROM pg_stat_activity WHERE query LIKE 'CALL dvmig.run%' AND backend_type = 'client backend'});
$t->sql('CREATE TABLE dead AS SELECT n FROM generate_series(1, 1000) n; DELETE FROM dead');
ok($h->until('VACUUM removes dead rows', sub { $h->sql('VACUUM dead'); return $h->sql("SELECT pg_relation_size('dead')") == 0 }),
	'CALL dvmig.run waits without a snapshot');
$h->beside('cancel', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL dvmig.run%' AND backend_type = 'client backend'});
like($caller->expect(qr/canceling statement/), qr/canceling statement due to user request/, 'CALL is cancelled while requests hang');
$caller->{psql}->finish;
ok($h->worker($run) && $h->held > 0, 'its run waits for what is on its way');
$h->release;
my $end = $h->ends($run, 'stopped', 'then it stops');
is($end->{message}, undef, 'without complaint');
my $rows = $t->sql("SELECT count(*) FROM $table WHERE processing_flag = 'P'");
cmp_ok($rows, '>', 100, 'the answers on their way are recorded');
cmp_ok($rows, '<', 20000, 'and nothing more was sent');
is($h->sim->counters('contacts')->{records}, $rows, 'every record made has its verdict');
is($t->status($table)->{in_doubt}, 0, 'nothing is in doubt');
gone_on('cancelled CALL', '20000/0/20000/0/0');

for my $how ('pg_cancel_backend', 'dvmig.stop')
{
	$table = $h->scene(rows => 100);
	$h->hold(path_contains => 'WhoAmI');
	$caller = call();
	$h->until('the first request hangs', sub { $h->held >= 1 });
	$run = running();
	$h->beside("$how during the first request", $how =~ /stop/ ? "SELECT dvmig.stop($run)"
		: q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL dvmig.run%' AND backend_type = 'client backend'});
	$h->gone($run, "$how during the first request: the worker ends");
	ok($h->held > 0, "$how: although there is no answer");
	is(state_of($run), 'stopped', "$how during the first request: the run is stopped");
	$caller->{psql}->finish;
	gone_on("$how during the first request", '100/0/100/0/0');
}

# Whoever called may go away: that stops nothing.
$table = $h->scene(rows => 300);
$h->hold;
$caller = call();
$h->until('requests hang', sub { $h->held >= 2 });
$run = running();
$h->beside('pg_terminate_backend of the caller', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL dvmig.run%' AND backend_type = 'client backend'});
$caller->{psql}->finish;
$h->release;
$h->ends($run, 'completed', 'a run whose caller has gone away completes');
$h->exact('a caller gone away', '300/0/300/0/0');

# Answers that never come: dvmig.stop_timeout bounds the wait.
$table = $h->scene(rows => 300);
$t->sql(q{ALTER DATABASE postgres SET dvmig.stop_timeout = '500ms'});
$h->hold(after => 1);
$run = $h->start(least => 2);
$t->sql('ALTER DATABASE postgres RESET dvmig.stop_timeout');
$t->sql("SELECT dvmig.stop($run)");
$end = $h->ends($run, 'stopped', 'a run that gets no answers stops when dvmig.stop_timeout is over');
ok($h->held > 0, 'while its requests hang');
like($end->{message}, qr/no answer within dvmig\.stop_timeout/, 'and says so');
$h->gone($run);
is($t->status($table)->{in_doubt}, 300, 'their rows are in doubt');
gone_on('stop_timeout');

# --------------------------------------------------------------- the owner's limits

# Waiting for the network is no statement: only what takes long in the
# database meets statement_timeout.
$table = $h->scene(rows => 300);
$t->sql(q{ALTER DATABASE postgres SET statement_timeout = '6s'});
$h->hold;
$run = $h->start;
$t->sql('ALTER DATABASE postgres RESET statement_timeout');
$t->wait_for("SELECT clock_timestamp() - started_at > '7 s' FROM dvmig.run_history WHERE run = $run");
ok($h->held > 0 && $h->worker($run), 'a request takes longer than statement_timeout');
$h->release;
$h->ends($run, 'completed');
$h->exact('statement_timeout while waiting', '300/0/300/0/0');

# Nor is it idleness, neither of the workers nor of who called.
$table = $h->scene(rows => 300);
my %idle = map { $_ => '3s' } qw(idle_session_timeout idle_in_transaction_session_timeout);
$t->sql("ALTER DATABASE postgres SET $_ = '$idle{$_}'") for keys %idle;
$h->hold;
$caller = $h->session;
$caller->send(sprintf "CALL dvmig.run('%s', lanes => 2);\n\\echo done\n", $h->migration);
$h->until('requests hang', sub { $h->held >= 1 });
$run = running();
$t->wait_for("SELECT clock_timestamp() - started_at > '8 s' FROM dvmig.run_history WHERE run = $run");
$t->sql("ALTER DATABASE postgres RESET $_") for keys %idle;
ok($h->held > 0 && $h->worker($run), 'a request takes longer than the time-outs of idle sessions');
$h->release;
like($caller->expect(qr/completed|terminat/), qr/completed/, 'CALL dvmig.run completes with them');
$caller->{psql}->finish;
$h->exact('idle time-outs while waiting', '300/0/300/0/0');

$table = $h->scene(rows => 10, prepare => q{CREATE FUNCTION dawdle(text) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1 FROM pg_sleep(600)'});
$t->sql("SELECT dvmig.map_column('$table', 'firstname', 'dawdle(family)')");
$t->sql(q{ALTER DATABASE postgres SET statement_timeout = '1s'});
$run = $t->start($h->migration);
$t->wait_for("SELECT state NOT IN ('starting', 'running') FROM dvmig.run_history WHERE run = $run");
$t->sql(q{ALTER DATABASE postgres RESET statement_timeout});
$end = $h->ends($run, 'failed', 'an expression that takes longer than statement_timeout ends the run');
like($end->{message}, qr/canceling statement due to statement timeout/, 'which says so');
is($t->counts($table), '10/10/0/0/0', 'and no row has a verdict');

# A cancel of the worker itself stops its run.
my $cancel = q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'dvmig worker'};

$run = $t->start($h->migration);
$t->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'dvmig run $run' AND wait_event = 'PgSleep'");
$t->sql($cancel);
$h->gone($run, 'a worker in an endless expression can be cancelled');
is(state_of($run), 'stopped', 'its run is stopped');
$t->sql(q{CREATE OR REPLACE FUNCTION dawdle(text) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1'});
gone_on('after time-outs', '10/0/10/0/0');

$table = $h->scene(rows => 1000);
$h->hold(nth => 2);
$run = $h->start(least => 2);
$h->beside('pg_cancel_backend of the worker', $cancel);
$h->release;
$h->ends($run, 'stopped', 'a cancelled worker stops its run');
$rows = $t->sql("SELECT count(*) FROM $table WHERE processing_flag = 'P'");
is($h->sim->counters('contacts')->{records}, $rows, 'every answer on its way is recorded');
is($t->status($table)->{in_doubt}, 0, 'nothing is in doubt');
gone_on('a cancelled worker', '1000/0/1000/0/0');

# ------------------------------------------------------ transactions around start()

$table = $h->scene(rows => 100);
my $m = $h->migration;
$h->hold;

$t->sql("BEGIN; SELECT dvmig.start('$m'); ROLLBACK");
is($t->sql(qq{SELECT count(*) FROM dvmig.run_history WHERE migration = '$m'}), 0, 'start() rolled back leaves no run');
$t->sql("BEGIN; SAVEPOINT s; SELECT dvmig.start('$m'); ROLLBACK TO s; COMMIT");
is($t->sql(qq{SELECT count(*) FROM dvmig.run_history WHERE migration = '$m'}), 0, 'nor one rolled back to a savepoint');
ok($t->wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'dvmig worker'}), 'and no worker');

like($t->error("BEGIN; SELECT dvmig.start('$m'); PREPARE TRANSACTION 'p'"), qr/0A000.*cannot prepare a transaction that started a dvmig run/s,
	'PREPARE TRANSACTION after start() is refused');
is($t->sql('SELECT count(*) FROM pg_prepared_xacts'), 0, 'and nothing is prepared');
$t->sql("BEGIN; CREATE TABLE prepared (n int); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'");
pass('PREPARE TRANSACTION without a run works');
like($t->error("BEGIN; SAVEPOINT s; SELECT dvmig.wait(dvmig.start('$m'), '10 s')"), qr/55000.*begins only when the transaction that started it commits/s,
	'nor in a savepoint of it, which psql makes by itself with ON_ERROR_ROLLBACK');
like($t->error("BEGIN; SELECT dvmig.wait(dvmig.start('$m'))"), qr/55000.*begins only when the transaction that started it commits/s,
	'waiting in the transaction that starts is refused');
like($t->error("BEGIN; CALL dvmig.run('$m')"), qr/25000.*cannot be called inside a transaction block.*dvmig\.start/s, 'CALL dvmig.run in a transaction block is refused');
ok($t->wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'dvmig worker'}), 'none of them leaves a worker');
is($h->sim->stats->{requests}{create_multiple} // 0, 0, 'and nothing was sent');

# A transaction that stays open after start(): the run begins at its commit,
# however late, and nobody takes it for dead meanwhile.
my $starter = $h->session;
# Nor is that a lock which the owner's statements would not wait for.
$starter->do("ALTER ROLE CURRENT_USER SET lock_timeout = '50ms'");
$starter->do('BEGIN');
$run = $starter->do("SELECT dvmig.start('$m')");
chomp $run;
$starter->do("RESET ALL; UPDATE dvmig.run_history SET started_at = started_at - interval '1 hour' WHERE run = $run");
ok($t->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'dvmig run $run' OR backend_type = 'dvmig worker'"), 'its worker is there');
ok($t->wait_for('SELECT count(*) = 1 FROM pg_locks WHERE objsubid = 17490 AND granted'), 'with the lock of its run');
my $waits = q{EXISTS (SELECT FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted AND waitstart < clock_timestamp() - interval '1 s')};
$t->wait_for("SELECT $waits OR NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'dvmig worker')");
is($t->sql("SELECT $waits"), 't', 'which waits longer than the owner lets his statements wait');
$t->sql('ALTER ROLE CURRENT_USER RESET lock_timeout');
$starter->do('COMMIT');
$t->sql('SELECT count(*) FROM dvmig.status');	# takes runs for dead whose worker is gone
like($t->sql("SELECT state FROM dvmig.run_history WHERE run = $run"), qr/^(starting|running)$/, 'it has begun at the commit');
$starter->quit;
$h->until('requests hang', sub { $h->held >= 1 });
$h->release;
$h->ends($run, 'completed', 'a run started in a long transaction');
$h->exact('a long transaction', '100/0/100/0/0');

# An owner that may not log in.
$t->sql('CREATE ROLE dba NOLOGIN; GRANT ALL ON SCHEMA public TO dba; GRANT USAGE ON FOREIGN SERVER sim TO dba');
$t->sql(sprintf q{CREATE USER MAPPING FOR dba SERVER sim OPTIONS (client_id '%s', client_secret '%s')}, DvMig::Sim::CLIENT, DvMig::Sim::SECRET);
$t->sql(q{SELECT dvmig.grant_owner('dba')});
$t->sql(q{SET ROLE dba; CREATE TABLE his (id int PRIMARY KEY, family text); INSERT INTO his VALUES (1, 'F');
	SELECT dvmig.create_migration('his', 'sim'); SELECT dvmig.add_table('his', 'his', 'contact', 'id'); SELECT dvmig.map_column('his', 'lastname', 'family')});
if ($t->sql('SHOW server_version_num') < 170000)
{
	like($t->error(q{SET ROLE dba; SELECT dvmig.start('his')}), qr/42501.*may not log in.*ALTER ROLE dba LOGIN/s, 'an owner without LOGIN is refused with a hint');
	is($t->sql(q{SELECT count(*) FROM dvmig.run_history WHERE migration = 'his'}), 0, 'and there is no run');
	$t->sql('ALTER ROLE dba LOGIN');
}
$run = $t->sql(q{SET ROLE dba; SELECT dvmig.start('his')});
$h->ends($run, 'completed', 'the run of an owner who is not a superuser');
is($t->counts('his'), '1/0/1/0/0', 'whose rows are there');
$t->sql('REVOKE CONNECT ON DATABASE postgres FROM PUBLIC');
like($t->error(q{SET ROLE dba; SELECT dvmig.start('his')}), qr/42501.*may not connect to this database.*GRANT CONNECT ON DATABASE postgres TO dba/s,
	'an owner without CONNECT is refused with a hint');

# --------------------------------------------------------------- no worker to be had

my $small = DvMig::Held->new(name => 'citizen_small', conf => "max_worker_processes = 2\n");    # one is the launcher of logical replication
my $first = $small->scene(rows => 100);
my $m1 = $small->migration;

$small->hold;
$run = $small->start;
$small->t->sql(q{CREATE TABLE second (id int PRIMARY KEY, family text); INSERT INTO second VALUES (1, 'F');
	SELECT dvmig.create_migration('second', 'sim'); SELECT dvmig.add_table('second', 'second', 'contact', 'id');
	SELECT dvmig.map_column('second', 'lastname', 'family')});
for my $statement (q{SELECT dvmig.start('second')}, q{CALL dvmig.run('second')})
{
	like($small->t->error($statement), qr/53400.*no background worker could be registered.*max_worker_processes/s, "no worker to be had: $statement");
	is($small->t->sql(q{SELECT count(*) FROM dvmig.run_history WHERE migration = 'second'}), 0, 'and there is no run');
}
is($small->t->counts('second'), '1/1/0/0/0', 'no row has changed');
$small->release;
$small->ends($run, 'completed', 'the run that is at work goes on');
$small->exact('few workers', '100/0/100/0/0');
$small->gone($run);
ok($small->until('a worker is to be had', sub { $small->t->error(q{SELECT dvmig.start('second')}) eq '' }), 'then the other can start');
ok($small->t->wait_for(q{SELECT state = 'completed' FROM dvmig.run_history WHERE migration = 'second'}), 'and completes');
is($small->t->counts('second'), '1/0/1/0/0', 'with its row');

# ------------------------------------------------------------------ and the server

for my $node ($t->node, $small->t->node)
{
	unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal|cache lookup failed|XX000/, $node->name . ': no process of the server came to harm');
}

done_testing();

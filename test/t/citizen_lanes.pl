# The same as in citizen.pl and citizen_server.pl with requests of several lanes
# hanging, and with a verification's: nothing waits for the network
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use PostgreSQL::Test::Utils;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'citizen_lanes', conf => "shared_preload_libraries = 'dvmig'\ndvmig.settle_time = '300ms'\n");
my $t = $h->t;
my $table;
my $run;

# Each lane writes as an application user of its own and has at most so many
# requests on their way before the first is answered: more hang only if both send.
my $places = 4;
my $rows = 1500;

# laned(db =>): a fresh table for two lanes.
sub laned
{
	my $name = $h->scene(rows => $rows, users => 2, @_);

	$table = $name;
	return;
}

# lanes(after => 1): a run with two lanes, requests of both hanging.
sub lanes
{
	my %o = @_;

	$h->hold(%o);
	my $n = $h->start(arguments => 'lanes => 2', least => $places + 1);
	cmp_ok($h->held, '>', $places, 'requests of both lanes hang');
	return $n;
}

sub gone_on
{
	my ($name, $counts) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$h->quiet;
	is($t->run($h->migration, 'lanes => 2')->{state}, 'completed', "$name: the next run completes");
	$h->exact($name, $counts // "$rows/0/$rows/0/0");
	return;
}

# ends_it(name, SQL): a statement that ends workers comes to its end although
# nothing is answered before release()
sub ends_it
{
	my ($name, $sql) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my $before = $h->held;
	is($t->error($sql), '', $name);
	ok($before > 0 && $h->held > 0, "$name: does not wait for the network");
	return;
}

# all_gone(name): no worker of ours is left
sub all_gone
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $db = $t->{db};

	$t->{db} = 'postgres';
	ok($t->wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'dvmig worker'}), "$name: all workers end");
	$t->{db} = $db;
	return;
}

# ------------------------------------------------------ nothing is held meanwhile

laned();
$run = lanes();
ok($t->wait_for("SELECT count(*) = 2 FROM dvmig.run_lane WHERE run = $run AND in_flight BETWEEN 1 AND $places"), 'of two workers each has its own');
ok($h->until('no lane has a snapshot', sub {
	return $t->sql(qq{SELECT bool_and(backend_xmin IS NULL AND backend_xid IS NULL AND xact_start IS NULL)
		FROM pg_stat_activity WHERE application_name LIKE 'dvmig run $run%'}) eq 't' && $h->held > 0; }), 'no lane has a transaction or a snapshot');
ok($t->wait_for(qq{SELECT NOT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
	WHERE a.application_name LIKE 'dvmig run $run%' AND l.locktype NOT IN ('advisory', 'virtualxid'))}), 'nor a lock but advisory ones');
$t->sql('CREATE TABLE other AS SELECT n FROM generate_series(1, 1000) n; DELETE FROM other');
ok($h->until('VACUUM removes dead rows', sub { $h->sql('VACUUM other'); return $h->sql("SELECT pg_relation_size('other')") == 0 && $h->held > 0 }),
	'VACUUM removes what died meanwhile');
$h->beside('VACUUM FULL', "VACUUM FULL $table");
$h->beside('a wider type of a mapped column', "ALTER TABLE $table ALTER COLUMN city TYPE varchar(200)");
$h->beside('a column that no map uses', "ALTER TABLE $table DROP COLUMN spare");
$h->beside('another type that rewrites the table', "ALTER TABLE $table ALTER COLUMN family TYPE varchar(100) USING upper(family)");
$h->release;
$h->ends($run, 'completed');
is($t->counts($table), "$rows/0/$rows/0/0", 'all rows are done');
is($h->sim->counters('contacts')->{creates}, $rows, 'every row was created once');

# ------------------------------------------------------------- what takes rows away

for my $case (
	[ 'TRUNCATE', 'TRUNCATE %s', 'completed' ],
	[ 'a mapped column dropped', 'ALTER TABLE %s DROP COLUMN city', 'failed', qr/column s\.city does not exist/ ],
	[ 'a mapped column renamed', 'ALTER TABLE %s RENAME COLUMN city TO town', 'failed|completed' ],
	[ 'DROP TABLE', 'DROP TABLE %s', 'failed', qr/people/ ])
{
	my ($name, $sql, $state, $message) = @$case;

	laned();
	$run = lanes(after => 1);
	$h->beside($name, sprintf $sql, $table);
	$h->release;
	my $end = $t->finish($run);
	like($end->{state}, qr/^($state)$/, "$name: the run has $state") or diag explain $end;
	like($end->{message}, $message, "$name: and says why") if $message;
	ok($t->wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'dvmig worker'}), "$name: no lane is left");
	next if $name =~ /DROP|TRUNCATE/;
	$t->sql("ALTER TABLE $table ADD COLUMN city text") if $name =~ /dropped/;
	$t->sql("ALTER TABLE $table RENAME COLUMN town TO city") if $name =~ /renamed/;
	gone_on($name);
}

# ----------------------------------------------------------- workers and the server

for my $who ('dvmig run %s lane 2', 'dvmig run %s')
{
	my $name = $who =~ /lane/ ? 'the second lane' : 'the first lane';

	laned();
	$run = lanes(after => 1);
	$h->beside("cancel of $name", sprintf "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = '$who'", $run);
	$h->release;
	$h->ends($run, 'stopped', "a cancel of $name stops the run");
	is($t->status($table)->{in_doubt}, 0, "cancel of $name: every answer is recorded");
	gone_on("cancel of $name");

	laned();
	$run = lanes(after => 1);
	ends_it("termination of $name", sprintf "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '$who'", $run);
	ok($t->wait_for(sprintf "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = '$who'", $run), "$name ends without an answer");
	$h->release;
	$h->ends($run, $who =~ /lane/ ? 'completed' : 'interrupted', "termination of $name");
	gone_on("termination of $name");
}

laned();
$run = lanes(after => 1);
$t->node->append_conf('postgresql.conf', "dvmig.auto_resume = off\n");
is($t->node->stop('fast', fail_ok => 1), 1, 'a fast shutdown does not wait for the answers of any lane');
$t->node->start;
$h->ends($run, 'interrupted', 'shutdown');
gone_on('fast shutdown');

{
	laned(db => 'laned');
	$run = lanes(after => 1);
	$t->{db} = 'postgres';
	ends_it('CREATE DATABASE ... TEMPLATE', 'CREATE DATABASE copy_of_laned TEMPLATE laned');
	all_gone('CREATE DATABASE');
	$t->{db} = 'laned';
	is($t->sql("SELECT dvmig.wait($run)"), 'interrupted', 'CREATE DATABASE: the run is interrupted');
	$run = $h->start(arguments => 'lanes => 2');
	$t->{db} = 'postgres';
	ends_it('DROP DATABASE', 'DROP DATABASE laned');
	all_gone('DROP DATABASE');
	$t->{db} = 'copy_of_laned';
	gone_on('the copy of the database');
}

# longer than this test waits for anything
$t->node->append_conf('postgresql.conf', "dvmig.request_timeout = 900s\ndvmig.stop_timeout = 900s\n");
$t->node->reload;
laned(db => 'drop_laned');
$run = lanes();
ends_it('DROP EXTENSION', 'DROP EXTENSION dvmig CASCADE');
ok($t->wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'dvmig worker'}) && $h->held > 0, 'DROP EXTENSION: all workers end without an answer');
$h->quiet;
is($t->sql("SELECT count(*) FROM $table"), $rows, 'the staging table stays');
$t->{db} = 'postgres';
$t->{has_server} = 2;
$t->node->adjust_conf('postgresql.conf', $_, undef) for qw(dvmig.request_timeout dvmig.stop_timeout);
$t->node->reload;

# ------------------------------------------------------------------ verification

# verifying(arguments): a verification whose queries hang
sub verifying
{
	my %hang = (method => 'GET', path_contains => '/contacts');

	$h->hold(%hang);
	my $n = $t->sql(sprintf q{SELECT dvmig.start_verify('%s')}, $h->migration);
	$h->until('a query hangs', sub { $h->held > 0 });
	return $n;
}

$table = $h->scene(rows => 1200);
is($t->run($h->migration)->{state}, 'completed', 'a table to verify');
$run = verifying();
ok($h->until('no snapshot', sub {
	return $t->sql(qq{SELECT bool_and(backend_xmin IS NULL AND xact_start IS NULL) FROM pg_stat_activity WHERE backend_type = 'dvmig worker'}) eq 't' && $h->held > 0; }),
	'a verification has no snapshot while its queries hang');
$h->beside('verification: VACUUM FULL', "VACUUM FULL $table");
$h->beside('verification: a column that no map uses', "ALTER TABLE $table DROP COLUMN spare");
$h->beside('verification: a wider type', "ALTER TABLE $table ALTER COLUMN city TYPE varchar(200)");
$h->release;
$h->ends($run, 'completed', 'the verification completes');
is($t->sql("SELECT concat_ws('/', compared, equal, missing, different) FROM dvmig.verification WHERE run = $run"), '1200/1200/0/0', 'and finds all rows');

for my $case ([ 'TRUNCATE', "TRUNCATE $table" ], [ 'a mapped column dropped', "ALTER TABLE $table DROP COLUMN city" ], [ 'DROP TABLE', "DROP TABLE $table" ])
{
	my ($name, $sql) = @$case;

	$run = verifying();
	$h->beside("verification: $name", $sql);
	$h->release;
	my $end = $t->finish($run);
	like($end->{state}, qr/^(completed|failed)$/, "verification: $name: it ends, $end->{state}");
	ok($t->wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'dvmig worker'}), "verification: $name: no worker is left");
	$t->sql("ALTER TABLE $table ADD COLUMN city text") if $name =~ /dropped/;
}

$table = $h->scene(rows => 300);
is($t->run($h->migration)->{state}, 'completed', 'another one');
for my $how ('pg_cancel_backend', 'pg_terminate_backend', 'dvmig.stop')
{
	$run = verifying();
	ends_it("$how of a verification", $how =~ /stop/ ? "SELECT dvmig.stop($run)" : "SELECT $how(pid) FROM pg_stat_activity WHERE backend_type = 'dvmig worker'");
	$h->release if $how !~ /terminate/;
	ok($t->wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'dvmig worker'}), "$how: the worker ends");
	$h->quiet;
	# a stop that is seen after the last answer has nothing left to stop
	like($t->sql("SELECT dvmig.wait($run)"), qr/^(stopped|interrupted|completed)$/, "$how: the verification is over");
}
$h->hold(method => 'GET', path_contains => '/contacts');
my $caller = $h->session;
$caller->send(sprintf "SELECT * FROM dvmig.verify('%s');\n\\echo done\n", $h->migration);
$h->until('a query hangs', sub { $h->held > 0 });
$h->beside('cancel of SELECT dvmig.verify()', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT * FROM dvmig.verify%' AND backend_type = 'client backend'});
like($caller->expect(qr/canceling statement/), qr/canceling statement due to user request/, 'SELECT dvmig.verify() is cancelled while its queries hang');
$caller->{psql}->finish;
$h->quiet;
ok($t->wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'dvmig worker'}), 'and its worker ends');

$table = $h->scene(rows => 300, db => 'verified');
is($t->run($h->migration)->{state}, 'completed', 'one in a database of its own');
$run = verifying();
$t->{db} = 'postgres';
ends_it('verification: DROP DATABASE', 'DROP DATABASE verified');
all_gone('verification: DROP DATABASE');
$h->quiet;

unlike(slurp_file($t->node->logfile), qr/PANIC|TRAP|terminated by signal|cache lookup failed|XX000/, 'no process of the server came to harm');

done_testing();

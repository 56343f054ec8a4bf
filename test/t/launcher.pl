# With dvmig in shared_preload_libraries interrupted runs go on after a restart
# by themselves, and never in a copy of the database
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'launcher', conf => <<'CONF');
shared_preload_libraries = 'dvmig'
dvmig.auto_resume = on
restart_after_crash = on
dvmig.settle_time = '300ms'
CONF
my $t = $h->t;
my $node = $t->node;

# last(): the newest run of the scene's migration
sub last_run
{
	return $t->rows(sprintf q{SELECT * FROM dvmig.run_history WHERE migration = '%s' ORDER BY run DESC LIMIT 1}, $h->migration)->[0];
}

# visited(what): the launcher has seen all databases since the log was that long
sub resumed
{
	my ($run, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok($t->wait_for(sprintf q{SELECT count(*) > 0 FROM dvmig.run_history WHERE migration = '%s' AND run > %s}, $h->migration, $run), "$name: it goes on by itself");
	$h->release;
	my $new = last_run();
	$h->ends($new->{run}, 'completed', "$name: the run that goes on completes");
	$h->exact($name, '300/0/300/0/0');
	is($t->sql("SELECT state || ': ' || message FROM dvmig.run_history WHERE run = $run"),
		"interrupted: the worker ended without finishing; the next run settles what is in doubt; it goes on as run $new->{run}", "$name: the old run says so");
	return;
}

ok($t->wait_for(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'dvmig launcher'}), 'the launcher is there');
is($t->sql(q{SELECT datname IS NULL FROM pg_stat_activity WHERE backend_type = 'dvmig launcher'}), 't', 'in no database');

# Every kind of stop; requests were carried out and not answered.
my $run;
for my $mode (qw(immediate fast))
{
	$h->scene(rows => 300);
	$h->hold(after => 1);
	$run = $h->start(least => 2);
	$node->stop($mode);
	$node->start;
	resumed($run, "$mode shutdown");
}

# A killed worker takes the server's other processes along: all begin anew.
$h->scene(rows => 300);
$h->hold(after => 1);
$run = $h->start(least => 2);
$t->kill_process($h->worker($run)->{pid});
resumed($run, 'killed worker');

# In another database, while one has no extension and one is a template.
$t->sql('CREATE DATABASE empty; CREATE DATABASE model IS_TEMPLATE true');
$h->scene(rows => 300, db => 'other');
$h->hold(after => 1);
$run = $h->start(least => 2);
$node->stop('immediate');
$node->start;
resumed($run, 'another database');

# What was asked to stop stays stopped, and what somebody has ended before, ended.
$h->scene(rows => 300);
$h->hold(after => 1);
$run = $h->start(least => 2);
$t->sql("SELECT dvmig.stop($run)");
$node->stop('immediate');
my $log = -s $node->logfile;
$node->start;
$h->quiet;
$t->wait_for("SELECT count(*) > 0 FROM dvmig.run_history WHERE run = $run AND state = 'interrupted'");
is(last_run()->{run}, $run, 'a run that was asked to stop does not go on');
is($t->sql('SELECT count(*) FROM dvmig.resume_interrupted()'), 0, 'neither by dvmig.resume_interrupted()');
is($t->run($h->migration)->{state}, 'completed', 'a new run is another thing');
$h->exact('asked to stop', '300/0/300/0/0');

$h->scene(rows => 300);
$h->hold(after => 1);
$run = $h->start(least => 2);
$t->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dvmig run $run'");
$h->gone($run);
is($t->sql("SELECT dvmig.wait($run)"), 'interrupted', 'somebody ends the worker');
$t->sql("UPDATE dvmig.run_history SET ended_at = ended_at - interval '1 minute' WHERE run = $run");
$node->restart;
$h->quiet;
$t->wait_for(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'dvmig launcher' AND wait_event IS NOT NULL});
is(last_run()->{run}, $run, 'what was ended before the restart does not go on by itself');
is($t->sql('SELECT count(*) FROM dvmig.resume_interrupted()'), 1, 'but by dvmig.resume_interrupted()');
$h->ends(last_run()->{run}, 'completed');
$h->exact('resumed by hand', '300/0/300/0/0');

# Copies: of the data directory, of the database, out of a dump. None of them
# begins to send by itself; the original does.
$h->scene(rows => 300);
$h->hold(after => 1);
$run = $h->start(least => 2);
my $requests = $h->sim->stats->{in_flight};
$node->stop('immediate');
$node->backup_fs_cold('cold');
my $copy = PostgreSQL::Test::Cluster->new('launcher_copy');
$copy->init_from_backup($node, 'cold');
$copy->start;
ok($copy->poll_query_until('other', "SELECT state = 'interrupted' AND message LIKE '%it does not go on by itself: it worked on another host or in another data directory%' FROM dvmig.run_history WHERE run = $run"),
	'a copy of the data directory does not go on by itself, and says why');
like(slurp_file($copy->logfile), qr/LOG: .*dvmig run $run does not go on by itself/, 'also in the server log');
is($copy->safe_psql('other', "SELECT count(*) FROM dvmig.run_history WHERE run > $run"), 0, 'there is no other run');
$copy->stop('immediate');
$h->quiet;
$node->start;
resumed($run, 'the original of the copy');

$h->scene(rows => 300);
$h->hold(after => 1);
$run = $h->start(least => 2);
$node->stop('immediate');
$node->append_conf('postgresql.conf', 'dvmig.auto_resume = off');
$node->start;
$t->{db} = 'postgres';
$t->sql('CREATE DATABASE copy TEMPLATE other');
pass('CREATE DATABASE ... TEMPLATE beside the launcher');
$node->stop('immediate');
$node->append_conf('postgresql.conf', 'dvmig.auto_resume = on');
$node->start;
$t->{db} = 'copy';
ok($t->wait_for("SELECT state = 'interrupted' AND message LIKE '%another database, of which this is a copy' FROM dvmig.run_history WHERE run = $run"),
	'a copy of the database does not go on by itself');
is(last_run()->{run}, $run, 'there is no other run');
$t->{db} = 'other';
resumed($run, 'the original of the database');
$t->{db} = 'postgres';
$t->sql('DROP DATABASE copy; DROP DATABASE other');
pass('DROP DATABASE beside the launcher');
delete $t->{has_server};

# No worker slot: told, and tried again. Two runs were interrupted, and there is
# room for one beside the visitor.
my $small = DvMig::Held->new(name => 'launcher_small', conf => <<'CONF');
shared_preload_libraries = 'dvmig'
dvmig.auto_resume = on
dvmig.settle_time = '300ms'
max_worker_processes = 5
CONF
$t = $small->t;
my @scenes;
for (1 .. 2)
{
	my $table = $small->scene(rows => 50);
	push @scenes, [ $small->migration, $table ];
}
$t->sql("UPDATE $scenes[1][1] SET id = id + 1000");	# they share an alternate key
$small->sim->sim('POST', 'reset');
$small->hold(after => 1);
my @runs = map { $t->start($_->[0]) } @scenes;
$small->until('requests of both hang', sub { $small->held >= 2 });
$t->node->stop('immediate');
$t->node->append_conf('postgresql.conf', 'max_worker_processes = 4');
$t->node->start;
ok($small->until('the second one finds no slot', sub { slurp_file($t->node->logfile) =~ /does not go on by itself: no background worker could be registered for the run; it will be tried again/ }),
	'max_worker_processes exhausted is logged');
$small->release;
ok($t->wait_for(sprintf q{SELECT count(DISTINCT migration) = 2 FROM dvmig.run_history WHERE state = 'completed' AND run > %s}, $runs[1]), 'and tried again until there is one');
is($t->counts($_->[1]), '50/0/50/0/0', "$_->[1] is loaded") for @scenes;
is($small->sim->counters('contacts')->{created_twice}, 0, 'nothing was created twice');
is($small->sim->counters('contacts')->{creates}, 100, 'and all once');

# Without the library at the server's start there is no launcher: check says so.
my $finding = sprintf q{SELECT string_agg(severity || ' ' || message, '; ') FROM dvmig.check('%s') WHERE rule = 'auto_resume'}, $scenes[0][0];
is($t->sql($finding), '', 'with the launcher, check finds nothing');
$t->node->append_conf('postgresql.conf', q{shared_preload_libraries = ''});
$t->node->restart;
like($t->sql($finding), qr/^warning dvmig\.auto_resume is on, but dvmig is not in shared_preload_libraries/, 'without it, check warns');

for my $n ($node, $t->node)
{
	unlike(slurp_file($n->logfile), qr/PANIC|TRAP|cache lookup failed|XX000/, $n->name . ': no process of the server came to harm');
}
done_testing();

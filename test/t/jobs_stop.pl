# Work on loaded records (verify, undo, resend, rebuild) that is to stop, wherever
# it waits: for an answer, for a user's lock, for a smart shutdown; and that finds
# no worker to begin with
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use PostgreSQL::Test::Utils;

use DvMig::Held;

# one of two workers is the launcher of logical replication
my $h = DvMig::Held->new(name => 'jobs_stop', conf => "dvmig.settle_time = '300ms'\nmax_worker_processes = 2\n");
my $t = $h->t;
my $rows = 60;
my @kinds = qw(verify undo resend rebuild);
my $worker = q{FROM pg_stat_activity WHERE backend_type = 'dvmig worker'};
my $job = q{FROM dvmig.run_history WHERE run = (SELECT max(run) FROM dvmig.run_history WHERE kind <> 'run')};

# at_work(kind, as for at_work): in a session that waits for its end; see DvMig::Held
sub at_work { my ($kind, %o) = @_; return $h->at_work($kind, rows => $rows, waits => 1, %o); }

# over(session): it has been answered, with whatever
sub over { my ($s) = @_; eval { $s->{psql}->finish } if eval { $s->send("\\q\n"); 1 }; return; }

# of_session(function): what it does to the session that waits
sub of_session { return "SELECT $_[0](pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state = 'active' AND query ~ '^SELECT.*dvmig\\.' AND pid <> pg_backend_pid()"; }

# ended(name, pattern): its worker is gone, and its run has ended in such a state
sub ended
{
	my ($name, $pattern) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok($t->wait_for("SELECT count(*) = 0 $worker"), "$name: its worker ends");
	like($t->sql("SELECT dvmig.wait(run) $job"), $pattern, "$name: and its run");
	return;
}

# once_more(kind, name): begun again the work is done, and nothing is twice
sub once_more
{
	my ($kind, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$h->quiet;
	is($t->error($h->job_call($kind) =~ s/start_undo/undo/r), '', "$name: begun again, it is done");
	ok($t->status($h->table)->{invariant_holds}, "$name: the figures add up");
	is($h->sim->counters('contacts')->{created_twice}, 0, "$name: nothing was created twice");
	is($h->sim->counters('contacts')->{records}, $kind eq 'undo' ? 0 : $rows, "$name: and every record is accounted for");
	return;
}

# --------------------------------------------------------- while a request hangs

for my $kind (@kinds)
{
	for my $how ('pg_cancel_backend', 'pg_terminate_backend')
	{
		my $s = at_work($kind);
		my $name = "$kind: $how of the session";

		$h->beside($name, of_session($how));
		like($s->expect(qr/canceling statement|terminating connection|closed the connection/), $how =~ /cancel/ ? qr/due to user request/ : qr/terminat|closed/,
			"$name: it is obeyed");
		ok($h->held > 0, "$name: without an answer");
		over($s);
		# what is being written is waited for and recorded
		$h->release if $kind eq 'undo';
		ended($name, $kind eq 'undo' ? qr/^(stopped|completed)$/ : qr/^stopped$/);
		ok($h->held > 0, "$name: its worker has not waited for one either") if $kind ne 'undo';
		is($h->sim->counters('contacts')->{records}, $t->sql('SELECT count(*) FROM ' . $h->table . q{ WHERE processing_flag = 'P'}),
			"$name: what was deleted meanwhile is known to be") if $kind eq 'undo';
		once_more($kind, $name);
	}
}

# An undo that only looks has nothing to wait for.
my $s = at_work('undo', match => { method => 'GET', path_contains => '/contacts' });
$h->beside('undo: pg_cancel_backend of its worker while it looks', "SELECT pg_cancel_backend(pid) $worker");
ended('undo: while it looks', qr/^stopped$/);
ok($h->held > 0, 'undo: while it looks: without an answer');
like($s->expect(qr/^done$|ERROR/m), qr/done|ERROR/, 'undo: while it looks: who waited is answered');
over($s);
once_more('undo', 'undo: while it looks');

# ------------------------------------------------------- while a user has a table

# He locks the outcomes before the undo reads them, or the staging table while its deletes are on their way.
for my $case ([ 'its outcomes' => '_success', 1 ], [ 'the table' => '', 0 ])
{
	my ($what, $suffix, $early) = @$case;

	for my $stop (0, 1)
	{
		my $name = "undo: a user has $what" . ($stop ? ', stopped' : '');
		my $table = $h->scene(rows => $rows);
		my $user = $h->session;
		my $lock = "BEGIN; LOCK TABLE $table$suffix IN ACCESS EXCLUSIVE MODE";

		is($t->run($h->migration)->{state}, 'completed', "$name: a table is loaded");
		$t->sql(q{ALTER DATABASE postgres SET dvmig.stop_timeout = '500ms'});
		my $run;
		if ($early)
		{
			$user->do($lock);
			$run = $t->sql($h->job_call('undo'));
		}
		else
		{
			$h->hold(path_contains => '$batch');
			$run = $t->sql($h->job_call('undo'));
			$h->until('its requests hang', sub { $h->held > 0 });
			$user->do($lock);
			$h->release;
		}
		$t->sql(q{ALTER DATABASE postgres RESET dvmig.stop_timeout});
		ok($t->wait_for(qq{SELECT message LIKE 'waiting: another session holds a lock%' FROM dvmig.run_history WHERE run = $run}),
			"$name: it says what it waits for");
		$t->sql('CREATE TABLE dead AS SELECT n FROM generate_series(1, 1000) n; DELETE FROM dead');
		ok($h->until('VACUUM removes dead rows', sub { $h->sql('VACUUM dead'); return $h->sql("SELECT pg_relation_size('dead')") == 0 }),
			"$name: it holds no snapshot");
		$t->sql('DROP TABLE dead');
		if ($stop)
		{
			$t->sql("SELECT dvmig.stop($run)");
			$h->ends($run, 'stopped', "$name: it stops, although the lock is there");
		}
		$user->do('COMMIT');
		$user->quit;
		$h->ends($run, 'completed', "$name: it goes on when the lock is gone") if !$stop;
		once_more('undo', $name);
	}
}

# ------------------------------------------------------------ no worker to be had

my $loaded = $h->scene(rows => $rows);
is($t->run($h->migration)->{state}, 'completed', 'no worker: a table is loaded');
my $m = $h->migration;
my $made = $t->sql("SELECT max(run) FROM dvmig.run_history WHERE migration = '$m'");
$t->sql(qq{CREATE TABLE busy (id int PRIMARY KEY, family text); INSERT INTO busy SELECT n, 'F' FROM generate_series(1, 10) n;
	SELECT dvmig.create_migration('busy', 'sim'); SELECT dvmig.add_table('busy', 'busy', 'contact', 'id'); SELECT dvmig.map_column('busy', 'lastname', 'family')});
$h->hold;
my $busy = $t->start('busy');
$h->until('requests hang', sub { $h->held > 0 });
my $before = $t->sql('SELECT count(*) FROM dvmig.run_history');
for my $call ("SELECT dvmig.verify('$m')", "SELECT dvmig.start_verify('$m')", "SELECT dvmig.undo($made)", "SELECT dvmig.start_undo($made)",
	"SELECT dvmig.undo($made, dry_run => true)", "SELECT dvmig.resend('$loaded', '{lastname}')", "SELECT dvmig.rebuild_outcomes('$loaded')")
{
	like($t->error($call), qr/53400.*no background worker could be registered.*max_worker_processes/s, "no worker: $call");
}
is($t->sql('SELECT count(*) FROM dvmig.run_history'), $before, 'no worker: and there is no run of it');
is($t->counts($loaded), "$rows/0/$rows/0/0", 'no worker: no row has changed');
$h->release;
$h->ends($busy, 'completed', 'no worker: the run that is at work goes on');
$h->gone($busy);
is($t->sql("SELECT concat_ws('/', compared, equal) FROM dvmig.verify('$m')"), "$rows/$rows", 'no worker: then there is one');

# --------------------------------------------------------------- a smart shutdown

# It waits for sessions, and a session waits for its job: that is done first.
for my $kind (@kinds)
{
	$s = at_work($kind);
	kill 'TERM', $t->node->{_pid};
	ok($h->until('no new session is let in', sub { $t->error('SELECT 1') =~ /shutting down/ }), "$kind: a smart shutdown begins");
	ok($h->held > 0, "$kind: smart shutdown: in mid-flight");
	$h->release;
	like($s->expect(qr/^done$|ERROR|FATAL/m), qr/^(?!.*(ERROR|FATAL))/s, "$kind: smart shutdown: who waited is answered");
	over($s);
	$t->node->stop('smart', fail_ok => 1);
	$t->node->start;
	is($t->sql("SELECT state $job"), 'completed', "$kind: smart shutdown: it was completed");
	once_more($kind, "$kind: smart shutdown") if $kind ne 'undo';
	is($h->sim->counters('contacts')->{records}, 0, 'undo: smart shutdown: every record is gone') if $kind eq 'undo';
}

unlike(slurp_file($t->node->logfile), qr/PANIC|TRAP|terminated by signal|cache lookup failed|XX000/, 'no process of the server came to harm');

done_testing();

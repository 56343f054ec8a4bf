# Work on loaded records (undo, resend, rebuild) while its requests hang: no
# snapshot is held, nothing that users do to tables, workers and the database
# waits for the network, and every row still has one true verdict
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use PostgreSQL::Test::Utils;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'citizen_jobs', conf => "dvmig.settle_time = '300ms'\n");
my $t = $h->t;
my $rows = 300;
my $table;

# at_work(kind, as for scene): see DvMig::Held
sub at_work
{
	my ($kind, %o) = @_;
	my $s = $h->at_work($kind, rows => $rows, %o);

	$table = $h->table;
	return $s;
}

sub no_worker { my ($name) = @_; local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($t->wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'dvmig worker'}), $name); return; }

# over(session): whoever waited is answered, with whatever.
sub over { my ($s) = @_; $s->{psql}->finish if eval { $s->send("\\q\n"); 1 }; return; }

for my $kind (qw(rebuild resend undo))
{
	my $worker = q{FROM pg_stat_activity WHERE backend_type = 'dvmig worker'};
	my $s = at_work($kind);

	ok($t->wait_for("SELECT bool_and(backend_xmin IS NULL AND backend_xid IS NULL AND xact_start IS NULL) $worker") && $h->held > 0,
		"$kind: its worker has no transaction and no snapshot");
	ok($t->wait_for("SELECT NOT EXISTS (SELECT FROM pg_locks l JOIN (SELECT pid $worker) a USING (pid) WHERE l.locktype NOT IN ('advisory', 'virtualxid'))"),
		"$kind: nor a lock but advisory ones");
	if ($kind eq 'undo')
	{
		$t->sql('CREATE TABLE dead AS SELECT n FROM generate_series(1, 1000) n; DELETE FROM dead');
		ok($h->until('VACUUM removes dead rows', sub { $h->sql('VACUUM dead'); return $h->sql("SELECT pg_relation_size('dead')") == 0 && $h->held > 0 }),
			"$kind: VACUUM removes what died meanwhile");
	}
	$h->beside("$kind: VACUUM FULL", "VACUUM FULL $table");
	$h->beside("$kind: a wider type", "ALTER TABLE $table ALTER COLUMN city TYPE varchar(200)");
	$h->beside("$kind: a column that no map uses", "ALTER TABLE $table DROP COLUMN spare");
	$h->release;
	like($s->expect(qr/^done$|ERROR/m), qr/^(?!.*ERROR)/s, "$kind: it completes");
	over($s);
	is($t->sql(qq{SELECT dvmig.wait(max(run)) FROM dvmig.run_history WHERE kind <> 'run'}), 'completed', "$kind: and says so");
	is($h->sim->counters('contacts')->{created_twice}, 0, "$kind: nothing was created twice");
	ok($t->status($table)->{invariant_holds}, "$kind: the figures add up");

	for my $case ([ 'TRUNCATE', 'TRUNCATE %s' ], [ 'a mapped column dropped', 'ALTER TABLE %s DROP COLUMN city' ], [ 'DROP TABLE', 'DROP TABLE %s' ])
	{
		my ($name, $sql) = @$case;

		$s = at_work($kind);
		$h->beside("$kind: $name", sprintf $sql, $table);
		$h->release;
		no_worker("$kind: $name: it comes to an end");
		over($s);
		like($t->sql(q{SELECT dvmig.wait(max(run)) FROM dvmig.run_history WHERE kind <> 'run'}), qr/^(completed|failed)$/, "$kind: $name: and its run too");
	}
	for my $how ('pg_cancel_backend(pid)', 'pg_terminate_backend(pid)')
	{
		$s = at_work($kind);
		$h->beside("$kind: $how", "SELECT $how $worker");
		$h->release if $how =~ /cancel/;
		no_worker("$kind: $how: its worker ends");
		ok($h->held > 0, "$kind: $how: without an answer") if $how =~ /terminate/;
		over($s);
		$h->quiet;
		like($t->sql(q{SELECT dvmig.wait(max(run)) FROM dvmig.run_history WHERE kind <> 'run'}), qr/^(stopped|interrupted|completed)$/, "$kind: $how: and its run");
		# once more, to the end
		my $again = $h->job_call($kind);
		is($t->error($kind eq 'undo' ? "SELECT dvmig.undo($1)" : $again), '', "$kind: $how: called again, it goes on") if $again =~ /(\d+)/;
		ok($t->status($table)->{invariant_holds}, "$kind: $how: the figures add up");
		is($h->sim->counters('contacts')->{created_twice}, 0, "$kind: $how: nothing was created twice");
	}
	my $db = "db_$kind";
	$s = at_work($kind, db => $db);
	$t->{db} = 'postgres';
	# who waits for a resend or a rebuild is in that database as well, and is sent away as anybody would be
	$t->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '$db' AND backend_type = 'client backend'");
	$h->beside("$kind: DROP DATABASE", "DROP DATABASE $db");
	no_worker("$kind: DROP DATABASE: its worker is gone");
	over($s);
	$h->quiet;
	$t->{has_server} = 1;
}

unlike(slurp_file($t->node->logfile), qr/PANIC|TRAP|terminated by signal|cache lookup failed|XX000/, 'no process of the server came to harm');

done_testing();

# Work on loaded records (verify, undo, resend, rebuild) while its requests hang,
# and what is done to its table's name, the extension, the database and the
# server: nothing waits for the network, not even behind a session that waits
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use PostgreSQL::Test::Utils;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'citizen_jobs_server', conf => "dvmig.settle_time = '300ms'\n");
my $t = $h->t;
my $rows = 120;
my $worker = q{FROM pg_stat_activity WHERE backend_type = 'dvmig worker'};

# none_left(name): no worker of ours is left although nothing was answered
sub none_left
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $db = $t->{db};

	$t->{db} = 'postgres';
	ok($t->wait_for("SELECT count(*) = 0 $worker"), "$name: its worker ends");
	$t->{db} = $db;
	return;
}

# over(session): it has been answered, with whatever
sub over { my ($s) = @_; eval { $s->{psql}->finish } if eval { $s->send("\\q\n"); 1 }; return; }

# send_away: who waits inside a database is sent away as anybody would be
sub send_away
{
	my ($db) = @_;

	$t->{db} = 'postgres';
	$t->sql("SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = '$db' AND backend_type = 'client backend'");
	return;
}

# once_more(kind, name): the work is done in the end, and nothing is twice
sub once_more
{
	my ($kind, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$h->quiet;
	# the one who waits for nothing has no worker to begin with
	is($t->error($h->job_call($kind) =~ s/start_undo/undo/r), '', "$name: begun again, it is done");
	ok($t->status($h->table)->{invariant_holds}, "$name: the figures add up");
	is($h->sim->counters('contacts')->{created_twice}, 0, "$name: nothing was created twice");
	is($h->sim->counters('contacts')->{records}, $kind eq 'undo' ? 0 : $rows, "$name: and every record is accounted for");
	return;
}

for my $kind (qw(verify undo resend rebuild))
{
	my $s = $h->at_work($kind, rows => $rows);
	my $table = $h->table;

	$h->beside("$kind: ALTER TABLE ... RENAME", "ALTER TABLE $table RENAME TO renamed_$table");
	$h->release;
	like($s->expect(qr/^done$|ERROR/m), $kind eq 'undo' ? qr/^(?!.*ERROR)/s : qr/^(done|.*)/s, "$kind: renamed: who waited is answered");
	over($s);
	like($t->sql(q{SELECT dvmig.wait(max(run)) FROM dvmig.run_history WHERE kind <> 'run'}), qr/^(completed|failed)$/, "$kind: renamed: and the run has ended");
	$h->quiet;
	$t->sql("ALTER TABLE renamed_$table RENAME TO $table");
	once_more($kind, "$kind: renamed");

	# It is the DBA who drops the extension that waits for those who wait.
	$s = $h->at_work($kind, rows => $rows, db => "x_$kind");
	$h->beside("$kind: DROP EXTENSION", 'DROP EXTENSION dvmig CASCADE');
	like($s->expect(qr/^done$|ERROR/m), qr/ERROR: .*canceling a wait of dvmig because another session wants the extension for itself/,
		"$kind: DROP EXTENSION: who waited is told why he does no longer") if $kind ne 'undo';
	over($s);
	none_left("$kind: DROP EXTENSION");
	ok($h->held > 0, "$kind: DROP EXTENSION: without an answer");
	is($t->sql("SELECT count(*) FROM " . $h->table), $rows, "$kind: DROP EXTENSION: the staging table stays");
	$h->quiet;

	my $db = "d_$kind";
	$s = $h->at_work($kind, rows => $rows, db => $db);
	send_away($db);
	$h->beside("$kind: CREATE DATABASE ... TEMPLATE", "CREATE DATABASE copy_of_$db TEMPLATE $db");
	over($s);
	none_left("$kind: CREATE DATABASE");
	$t->{db} = "copy_of_$db";
	once_more($kind, "$kind: in the copy");

	$t->{db} = 'postgres';
	$t->{has_server} = 1;
}

# Who waits for the end of a run, or asks Dataverse himself, gives way as well; the run goes on where nothing is dropped.
my $table = $h->scene(rows => $rows);
$h->hold;
my $run = $h->start;
my $s = $h->session;
$s->send("SELECT dvmig.wait($run);\n\\echo done\n");
$t->wait_for(q{SELECT count(*) = 1 FROM pg_stat_activity a WHERE query LIKE 'SELECT dvmig.wait(%' AND backend_type = 'client backend'
	AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.granted AND l.relation = 'dvmig.run_history'::regclass)});
$h->beside('VACUUM FULL of a table of dvmig, with a session in dvmig.wait()', 'VACUUM FULL dvmig.run_history');
like($s->expect(qr/^done$|ERROR/m), qr/ERROR: .*wants the extension for itself/, 'who waits for a run gives way');
over($s);
$h->release;
$h->ends($run, 'completed', 'the run goes on');
$h->quiet;
$t->sql("INSERT INTO $table VALUES (9001, 'New', 'Town', 'x')");
$h->hold(method => 'GET', path_contains => '/contacts');
$s = $h->session;
$s->send("SELECT * FROM dvmig.adopt('$table', 'lastname');\n\\echo done\n");
$h->until('its query hangs', sub { $h->held > 0 });
$h->beside('DROP EXTENSION with a session in adopt()', 'DROP EXTENSION dvmig CASCADE');
like($s->expect(qr/^done$|ERROR/m), qr/ERROR: .*wants the extension for itself/, 'who asks Dataverse himself gives way');
over($s);
$h->quiet;
$t->sql('CREATE EXTENSION dvmig');
delete $t->{has_server};

# ------------------------------------------------------------------- the server

# "smart" waits for clients, but for no worker of ours.
for my $case ([ fast => 'verify' ], [ fast => 'rebuild' ], [ smart => 'verify' ], [ smart => 'undo' ], [ fast => 'resend' ])
{
	my ($mode, $kind) = @$case;

	$s = $h->at_work($kind, rows => $rows, background => $mode eq 'smart');
	if ($mode eq 'smart')
	{
		$s->expect(qr/^done$/m);
		over($s);
	}
	$t->node->stop($mode);
	ok($h->held > 0, "$kind: a $mode shutdown does not wait for an answer");
	over($s) if $mode eq 'fast';
	$t->node->start;
	like($t->sql(q{SELECT dvmig.wait(max(run)) FROM dvmig.run_history WHERE kind <> 'run'}), qr/^interrupted$/, "$kind: $mode shutdown: it was interrupted");
	once_more($kind, "$kind: $mode shutdown");
}

unlike(slurp_file($t->node->logfile), qr/PANIC|TRAP|terminated by signal|cache lookup failed|XX000/, 'no process of the server came to harm');

done_testing();

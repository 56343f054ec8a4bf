# The passes that follow the one that writes (lookups in a circle, links, files,
# states, closing) while their requests hang: no snapshot is held, and nothing
# that is done to the table, the database or the worker waits for the network
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use PostgreSQL::Test::Utils;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'citizen_passes', conf => "dvmig.settle_time = '300ms'\n");
my $t = $h->t;
my $sim = $h->sim;
my $worker = q{FROM pg_stat_activity WHERE backend_type = 'dvmig worker'};

# What is defined over the table, the requests that hang, whether they are carried out, what is then true of all rows.
my %passes = (
	deferred => { target => 'account', columns => 'parent int', rows => q{SELECT n, 'N' || n, 1 + n % 20 FROM generate_series(1, 20) n},
		map => q{SELECT dvmig.map_column('%1$s', 'name', 'name'), dvmig.map_lookup('%1$s', 'parentaccountid', 'parent', '%1$s')},
		hold => { method => 'POST', path_contains => 'UpdateMultiple' },
		holds => sub { scalar grep { $_->{_parentaccountid_value} } @{ $sim->export('accounts') } } },
	states => { target => 'contact', columns => 'st int', rows => q{SELECT n, 'N' || n, 1 FROM generate_series(1, 20) n},
		map => q{SELECT dvmig.map_column('%1$s', 'lastname', 'name'), dvmig.map_column('%1$s', 'statecode', 'st')},
		hold => { method => 'POST', path_contains => 'UpdateMultiple' },
		holds => sub { scalar grep { $_->{statecode} == 1 } @{ $sim->export('contacts') } } },
	closing => { target => 'opportunity', columns => 'st text', rows => q{SELECT n, 'N' || n, 'Won' FROM generate_series(1, 20) n}, arguments => q{passes => '{write,states}'},
		map => q{SELECT dvmig.map_column('%1$s', 'name', 'name'), dvmig.map_choice('%1$s', 'statuscode', 'st')},
		hold => { method => 'POST', path_contains => '$batch', body_contains => 'WinOpportunity' },
		holds => sub { scalar grep { $_->{statecode} == 1 } @{ $sim->export('opportunities') } } },
	files => { target => 'new_invoice', columns => 'document bytea', rows => q{SELECT n, 'N' || n, convert_to('file ' || n, 'UTF8') FROM generate_series(1, 20) n},
		map => q{SELECT dvmig.map_column('%1$s', 'new_invoicenumber', 'name'), dvmig.map_file('%1$s', 'new_document', 'document')},
		hold => { method => 'PATCH', path_contains => 'new_document' },
		holds => sub { scalar grep { $_->{new_document} } @{ $sim->export('new_invoices') } } },
	links => { target => 'new_track', columns => 'list int', rows => q{SELECT n, 'N' || n, 1 + n % 3 FROM generate_series(1, 20) n},
		map => q{SELECT dvmig.map_column('%1$s', 'new_name', 'name');
			CREATE TABLE lists (id int PRIMARY KEY, name text); INSERT INTO lists SELECT n, 'L' || n FROM generate_series(1, 3) n;
			CREATE TABLE pairs (list int, track int, PRIMARY KEY (list, track)); INSERT INTO pairs SELECT list, id FROM %1$s;
			SELECT dvmig.add_table('m', 'lists', 'new_playlist', auto_map => false), dvmig.map_column('lists', 'new_name', 'name'),
				dvmig.add_association('m', 'pairs', 'new_playlist_new_track', 'track', '%1$s', 'list', 'lists')},
		hold => { method => 'POST', path_contains => '$batch', body_contains => '$ref' },
		holds => sub { scalar @{ $sim->sim('GET', 'links/new_playlist_new_track')->{pairs} } } });

# begin(pass, db): a run in a database of its own whose requests of that pass hang, carried out or not
sub begin
{
	my ($pass, $db, $after) = @_;
	my $p = $passes{$pass};

	$sim->sim('POST', 'reset');
	$t->{db} = 'postgres';
	$t->sql("CREATE DATABASE $db");
	$t->{db} = $db;
	$t->sql('CREATE EXTENSION dvmig');
	delete $t->{has_server};
	$t->migration('m', tables => $p->{target} . ($pass eq 'links' ? ',new_playlist' : ''));
	$t->sql("CREATE TABLE things (id int PRIMARY KEY, name text, $p->{columns}); INSERT INTO things $p->{rows};
		SELECT dvmig.add_table('m', 'things', '$p->{target}', source_key => 'id', auto_map => false)");
	$t->sql(sprintf $p->{map}, 'things');
	$h->{migration} = 'm';
	$h->hold(%{ $p->{hold} }, after => $after);
	return $h->start(arguments => $p->{arguments});
}

# gone_on(pass, name): another run does what was left, and nothing is twice
sub gone_on
{
	my ($pass, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$h->quiet;
	is($t->run('m', $passes{$pass}{arguments})->{state}, 'completed', "$name: the next run completes");
	is($t->sql(q{SELECT count(*) FROM dvmig.status WHERE succeeded <> staged OR owed > 0 OR NOT invariant_holds}), 0, "$name: nothing is left or owed");
	is($passes{$pass}{holds}->(), 20, "$name: Dataverse holds it");
	is($t->sql('SELECT count(DISTINCT dataverse_id) FROM things'), 20, "$name: every row has its record");
	return;
}

for my $pass (sort keys %passes)
{
	my $run = begin($pass, "x_$pass", 1);

	ok($t->wait_for("SELECT bool_and(backend_xmin IS NULL AND backend_xid IS NULL AND xact_start IS NULL) $worker") && $h->held > 0, "$pass: the worker has no transaction and no snapshot");
	ok($t->wait_for("SELECT NOT EXISTS (SELECT FROM pg_locks l JOIN (SELECT pid $worker) a USING (pid) WHERE l.locktype NOT IN ('advisory', 'virtualxid'))"), "$pass: nor a lock but advisory ones");
	$t->sql('CREATE TABLE dead AS SELECT n FROM generate_series(1, 1000) n; DELETE FROM dead');
	ok($h->until('VACUUM removes dead rows', sub { $h->sql('VACUUM dead'); return $h->sql("SELECT pg_relation_size('dead')") == 0 && $h->held > 0 }), "$pass: VACUUM removes what died meanwhile");
	$h->beside("$pass: VACUUM FULL", 'VACUUM FULL things');
	$h->beside("$pass: a wider type", 'ALTER TABLE things ALTER COLUMN name TYPE varchar(200)');
	$h->beside("$pass: pg_terminate_backend", "SELECT pg_terminate_backend(pid) $worker");
	$h->gone($run, "$pass: terminated, it ends");
	is($t->sql("SELECT dvmig.wait($run)"), 'interrupted', "$pass: terminated: its run is interrupted");
	gone_on($pass, "$pass, terminated");

	$run = begin($pass, "c_$pass", 0);
	$t->{db} = 'postgres';
	$h->beside("$pass: CREATE DATABASE ... TEMPLATE", "CREATE DATABASE copy_of_$pass TEMPLATE c_$pass");
	$h->gone($run, "$pass: the worker has ended");
	ok($h->held > 0, "$pass: without an answer");
	$t->{db} = "c_$pass";
	$run = $h->start(arguments => $passes{$pass}{arguments}, least => $h->held + 1);
	$h->beside("$pass: DROP TABLE", 'DROP TABLE things CASCADE');
	$t->{db} = 'postgres';
	$h->beside("$pass: DROP DATABASE", "DROP DATABASE c_$pass");
	$h->gone($run, "$pass: its worker has ended");
	$t->{db} = "copy_of_$pass";
	is($t->sql("SELECT dvmig.wait(max(run)) FROM dvmig.run_history"), 'interrupted', "$pass: in the copy the run is interrupted");
	gone_on($pass, "$pass in the copy");
}
unlike(slurp_file($t->node->logfile), qr/PANIC|TRAP|terminated by signal|cache lookup failed|XX000/, 'no process of the server came to harm');

done_testing();

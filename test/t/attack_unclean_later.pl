# What a forgotten run did in passes other than the first: deletes alone, states,
# links, files. The next run finds out, whatever was done to the rows meanwhile.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Digest::MD5 qw(md5_hex);
use Test::More;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'unclean_later', conf => "dvmig.settle_time = 300ms\n");
my $t = $h->t;
my $sim = $h->sim;

# forgotten(arguments, match): a run whose requests are carried out, and whose
# worker ends before it learns of it. Of rows that make more than one, "requests"
# tells how many.
sub forgotten
{
	my ($arguments, %match) = @_;
	my $requests = delete $match{requests} // 1;

	$h->hold(%match, after => 1);
	my $run = $h->start(arguments => $arguments, least => $requests);
	$h->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dvmig run $run'");
	$h->gone($run);
	$h->quiet;
	return;
}

sub done { my ($name, $arguments) = @_; is($t->run($h->migration, $arguments)->{state}, 'completed', $name); return; }

# --- a run of deletes alone: the rows are as they were, their records are not
my $table = $h->scene(rows => 40);
done('loaded');
$h->sql("UPDATE $table SET action_flag = 'D', processing_flag = 'U'");
forgotten(q{passes => '{delete}'}, method => 'POST', path_contains => '$batch', requests => 2);
is(scalar @{ $sim->export('contacts') }, 0, 'deletes alone: all records are gone');
$h->sql("UPDATE $table SET action_flag = 'I', processing_flag = 'U'");
done('deletes alone: the next run completes');
is($h->sql("SELECT count(*) FROM ${table}_success WHERE message = 'unchanged'"), 0, 'deletes alone: no row is taken for unchanged');
is($h->sql("SELECT count(*) FROM ${table}_error WHERE error_class = 'gone'"), 40, 'deletes alone: they say that their records are gone');
$h->exact('deletes alone', '40/0/0/40/0');

# --- states that were set, and are wanted as they were before
for my $write_first (0, 1)
{
	my $name = 'states' . ($write_first ? ', a run without that pass in between' : '');

	$table = $h->scene(rows => 40);
	$h->sql("ALTER TABLE $table ADD st int DEFAULT 0; SELECT dvmig.map_column('$table', 'statecode', 'st')");
	done("$name: loaded");
	$h->sql("UPDATE $table SET st = 1, processing_flag = 'U'");
	forgotten(undef, method => 'POST', path_contains => 'UpdateMultiple');
	is((scalar grep { $_->{statecode} == 1 } @{ $sim->export('contacts') }), 40, "$name: the records have it");
	$h->sql("UPDATE $table SET st = 0, processing_flag = 'U'");
	done("$name: a run of the first pass", q{passes => '{write}'}) if $write_first;
	done("$name: the next run completes");
	is((scalar grep { $_->{statecode} == 0 } @{ $sim->export('contacts') }), 40, "$name: the records have the one that is wanted");
	$h->exact($name, '40/0/40/0/0');
	$h->sql("UPDATE $table SET processing_flag = 'U'");
	my $updates = $sim->counters('contacts')->{updates};
	done("$name: and another");
	is($sim->counters('contacts')->{updates}, $updates, "$name: then nothing is in doubt, and nothing is written");
}

# --- a dump of the instant in which a run began its work, restored elsewhere: what that run sent
# since is forgotten, and the rows are edited to what their outcomes say. Runs were noticed to be
# gone, and others worked, after the restore.
$table = $h->scene(rows => 40);
done('restored: loaded');
$h->sql("CREATE TABLE ${table}_kept AS TABLE ${table}_success; UPDATE $table SET city = 'Elsewhere', processing_flag = 'U'");
done('restored: the run that is forgotten completes');
$h->sql(sprintf q{
	DELETE FROM %1$s_success;
	INSERT INTO %1$s_success TABLE %1$s_kept;
	UPDATE dvmig.run_history SET place = '1/2/3' WHERE migration = '%2$s';
	UPDATE dvmig.run_history h SET state = 'interrupted', updated_at = h.started_at, ended_at = clock_timestamp() + '1 min'
		WHERE run = (SELECT max(run) FROM dvmig.run_history);
	UPDATE dvmig.run_table SET state = 'pending', started_at = NULL, ended_at = NULL WHERE run = (SELECT max(run) FROM dvmig.run_history);
	INSERT INTO dvmig.run_history (migration_id, migration, server, started_by, place, location, state, ended_at)
		SELECT migration_id, name, server, current_user, dvmig._place(), dvmig._location(), 'completed', clock_timestamp() + '1 min' FROM dvmig.migration WHERE name = '%2$s';
	UPDATE dvmig.migration_table SET place = '1/2/3' WHERE staging = '%1$s'::regclass;
	UPDATE %1$s SET city = 'City ' || id %% 17, processing_flag = 'U'}, $table, $h->migration);
done('restored: the next run completes');
is($h->sql("SELECT count(*) FROM ${table}_success WHERE message = 'unchanged'"), 0, 'restored: no row that was sent since is taken for unchanged');
$h->exact('restored', '40/0/40/0/0', -fields => { address1_city => 's.city' });

# --- an undo that deleted and was ended before it learnt of it
$table = $h->scene(rows => 40);
my $loaded = $t->run($h->migration);
$h->hold(method => 'POST', path_contains => '$batch', body_contains => 'DELETE', after => 1);
my $undo = $t->sql("SELECT dvmig.start_undo($loaded->{run})");
$h->until('records are gone', sub { $sim->counters('contacts')->{records} == 0 });
$h->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'dvmig worker'});
$h->gone($undo);
$h->quiet;
is(scalar @{ $sim->export('contacts') }, 0, 'undo ended: all records are gone');
is($t->counts($table), '40/0/40/0/0', 'undo ended: which no row says');
$h->sql("SELECT dvmig.release('$table'); UPDATE $table SET processing_flag = 'U' WHERE id <= 20");
done('undo ended, released: a run completes');
is($t->counts($table), '40/0/20/20/0', 'undo ended, released: rows that are looked at are not taken for unchanged');
$t->sql("SELECT * FROM dvmig.undo($loaded->{run})");
is($t->counts($table), '40/40/0/0/0', 'undo ended: and another takes all of them back');
$h->sql("SELECT dvmig.retry('$table'), dvmig.release('$table')") ;
done('undo ended, and loaded again');
is(scalar @{ $sim->export('contacts') }, $h->sql("SELECT count(*) FROM $table WHERE processing_flag = 'P'"), 'undo ended: those that say they have a record, have one');

# --- a row that failed since its state was set, and is corrected to the state it had at first
$table = $h->scene(rows => 3);
$h->sql("ALTER TABLE $table ADD st int DEFAULT 1; SELECT dvmig.map_column('$table', 'statecode', 'st')");
done('failed since: loaded');
$h->sql("UPDATE $table SET family = repeat('x', 200), processing_flag = 'U' WHERE id = 2");
done('failed since: a row fails');
is($t->counts($table), '3/0/2/1/0', 'failed since: figures');
$h->sql("UPDATE $table SET family = 'Family 2', st = 0 WHERE id = 2; SELECT dvmig.retry('$table')");
done('failed since: corrected');
is(join(' ', map { "$_->{new_legacyid}:$_->{statecode}" } sort { $a->{new_legacyid} <=> $b->{new_legacyid} } @{ $sim->export('contacts') }), '1:1 2:0 3:1', 'failed since: it has the state that it says');
$h->exact('failed since', '3/0/3/0/0');

# --- a lane dies with deletes that were carried out, and their rows are wanted after all
$table = $h->scene(rows => 1200);
$h->sql(sprintf q{ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (ADD client_id2 '%s', ADD client_secret2 '%s')}, DvMig::Sim::CLIENT2, DvMig::Sim::SECRET2);
done('a lane dies: loaded');
$h->sql("UPDATE $table SET action_flag = 'D', processing_flag = 'U'");
$h->hold(method => 'POST', path_contains => '$batch', after => 1);
my $run = $t->start($h->migration, 'lanes => 2');
$t->wait_for("SELECT count(*) = 2 FROM dvmig.run_lane WHERE run = $run AND in_flight > 0");
$h->until('what is on its way has come', sub { $h->held >= $t->sql("SELECT sum(in_flight) FROM dvmig.run_lane WHERE run = $run") });
$h->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dvmig run $run lane 2'");
$h->until('it is gone', sub { $h->sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dvmig run $run lane 2'") == 0 });
$h->sql("UPDATE $table SET action_flag = 'I', processing_flag = 'U' WHERE processing_flag = 'U'");
$h->quiet;
$h->ends($run, 'completed');
done('a lane dies: the next run completes');
cmp_ok($h->sql("SELECT count(*) FROM ${table}_error WHERE error_class = 'gone'"), '>', 0, 'a lane dies: rows of records that it deleted say so');
is(scalar @{ $sim->export('contacts') }, $h->sql("SELECT count(*) FROM $table WHERE processing_flag = 'P'"), 'a lane dies: and those that say they have one, have one');

$h->sql(q{ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (DROP client_id2, DROP client_secret2)});

# --- links
$h->links(4);

# made(rows): how many of so many links there are in Dataverse; checks the figures
sub made
{
	my ($name, $counts) = @_;

	is($t->counts('pairs'), $counts, "$name: figures");
	return scalar @{ $sim->sim('GET', 'links/new_playlist_new_track')->{pairs} };
}
my %link = (method => 'POST', path_contains => '$batch', body_contains => '$ref');

done('links: their records');
$t->sql('INSERT INTO pairs SELECT l, t FROM generate_series(1, 4) l, generate_series(1, 4) t');
forgotten(undef, %link);
is(made('links forgotten', '16/16/0/0/0'), 16, 'links forgotten: they are made');
done('links forgotten: the next run completes');
is(made('links forgotten, and another run', '16/0/16/0/0'), 16, 'links forgotten: made once');

for my $passes (undef, q{passes => '{delete}'})
{
	my $name = 'links taken away' . ($passes ? ' by a run of deletes alone' : '');

	$t->sql(q{UPDATE pairs SET action_flag = 'D', processing_flag = 'U' WHERE list < 3});
	forgotten($passes, %link);
	is(made($name, '16/8/8/0/0'), 8, "$name: they are gone");
	$t->sql(q{UPDATE pairs SET action_flag = 'I', processing_flag = 'U'});
	done("$name: wanted after all");
	is(made("$name: wanted after all", '16/0/16/0/0'), 16, "$name: they are there again");
}
$t->sql(q{DELETE FROM pairs WHERE list = 4; UPDATE pairs SET action_flag = 'D', processing_flag = 'U' WHERE list = 3});
forgotten(undef, %link);
done('links taken away, and to be so still');
is(made('links taken away, and to be so still', '12/0/12/0/0'), 12, 'links taken away: and no others');

# --- files
$t->sql(q{CREATE TABLE invoices (id int PRIMARY KEY, name text, document bytea); INSERT INTO invoices SELECT n, 'I' || n, 'content ' || n FROM generate_series(1, 3) n(n)}
	=~ s/'content ' \|\| n/('content ' || n)::bytea/r);
$t->migration('files', tables => 'new_invoice');
$t->sql(q{SELECT dvmig.add_table('files', 'invoices', 'new_invoice', auto_map => false); SELECT dvmig.map_column('invoices', 'new_invoicenumber', 'name');
	SELECT dvmig.map_file('invoices', 'new_document', 'document', 'name')});
$h->{migration} = 'files';

sub uploaded
{
	my ($id) = @_;
	my ($status, $bytes) = $sim->curl('GET', '/api/data/v9.2/new_invoices(' . $t->sql("SELECT dataverse_id FROM invoices WHERE id = $id") . ')/new_document/$value',
		undef, 'Authorization: Bearer ' . $sim->token, 'OData-Version: 4.0', 'OData-MaxVersion: 4.0');
	return $status == 200 ? $bytes : "status $status";
}

done('files: loaded');
is(uploaded(2), 'content 2', 'files: uploaded');
for my $write_first (0, 1)
{
	my $name = 'files' . ($write_first ? ', a run without that pass in between' : '');

	$t->sql(q{UPDATE invoices SET document = 'another', processing_flag = 'U' WHERE id = 2});
	forgotten(undef, method => 'PATCH', path_contains => 'new_document');
	is(uploaded(2), 'another', "$name: another one is there, and forgotten");
	$t->sql(q{UPDATE invoices SET document = 'content 2', processing_flag = 'U' WHERE id = 2});
	done("$name: a run of the first pass", q{passes => '{write}'}) if $write_first;
	done("$name: the next run completes");
	is(uploaded(2), 'content 2', "$name: the one that is wanted is there");
	is($t->counts('invoices'), '3/0/3/0/0', "$name: figures");
}

done_testing();

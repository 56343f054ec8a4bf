# What users and the database server do to a staging table while requests hang:
# nothing waits for the network, and every row still has one true verdict
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use PostgreSQL::Test::Utils;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'citizen');
my $t = $h->t;
my $table;
my $run;

# ------------------------------------------------------ nothing is held meanwhile

$table = $h->scene(rows => 1000);
$t->sql('CREATE TABLE other AS SELECT n FROM generate_series(1, 1000) n');
$h->hold;
$run = $h->start(least => 2);

# The worker mirrors its figures once a second, in a transaction of some
# milliseconds: between two of them there is nothing.
$t->wait_for(qq{SELECT backend_xmin IS NULL AND backend_xid IS NULL AND xact_start IS NULL
	FROM pg_stat_activity WHERE application_name = 'dvmig run $run'});
ok($h->held > 0, 'between request and answer the worker has no transaction and no snapshot');
$t->wait_for(qq{SELECT NOT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
	WHERE a.application_name = 'dvmig run $run' AND l.locktype NOT IN ('advisory', 'virtualxid'))});
ok($h->held > 0, 'and no lock but its own advisory ones');
$t->sql('DELETE FROM other');
ok($h->until('VACUUM removes dead rows', sub {
	$h->sql('VACUUM other');
	return $h->sql("SELECT pg_relation_size('other')") == 0 && $h->held > 0;
}), 'VACUUM removes what died after the requests went out');

$h->release;
$h->ends($run, 'completed');
$h->exact('nothing held', '1000/0/1000/0/0');

# ------------------------------------------ statements that want the table alone

# Each comes while some rows are recorded and flagged, some are on their way
# and some are not read yet. What it leaves is the same rows in other places.
for my $case (
	[ 'VACUUM FULL', 'VACUUM FULL %s' ],
	[ 'CLUSTER', 'CLUSTER %s USING %1$s_pkey' ],
	[ 'VACUUM', 'VACUUM (FREEZE) %s' ],
	[ 'a new column', q{ALTER TABLE %s ADD COLUMN note text DEFAULT 'n'} ],
	[ 'a new column that rewrites the table', q{ALTER TABLE %s ADD COLUMN note timestamptz DEFAULT clock_timestamp()} ],
	[ 'a wider type of a mapped column', q{ALTER TABLE %s ALTER COLUMN city TYPE varchar(200)} ],
	[ 'another type of an unmapped column', q{ALTER TABLE %s ALTER COLUMN spare TYPE bytea USING convert_to(spare, 'UTF8')} ],
	[ 'an index', 'CREATE INDEX ON %s (family)' ],
	[ 'an index made concurrently', 'CREATE INDEX CONCURRENTLY ON %s (family)' ],
	[ 'REINDEX', 'REINDEX TABLE %s' ],
	[ 'ANALYZE', 'ANALYZE %s' ],
	[ 'a trigger', q{CREATE FUNCTION %1$s_f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
		CREATE TRIGGER t BEFORE UPDATE ON %1$s FOR EACH ROW EXECUTE FUNCTION %1$s_f()} ],
	# the same rows in other places, flagged by SQL
	[ 'a trigger and VACUUM FULL', q{CREATE FUNCTION %1$s_f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
		CREATE TRIGGER t BEFORE UPDATE ON %1$s FOR EACH ROW EXECUTE FUNCTION %1$s_f(); VACUUM FULL %1$s} ],
	[ 'another storage', 'ALTER TABLE %s SET (fillfactor = 50)' ],
	[ 'a lock of the table', 'BEGIN; LOCK TABLE %s IN ACCESS EXCLUSIVE MODE; COMMIT' ])
{
	my ($name, $sql) = @$case;

	$table = $h->scene(rows => 1000);
	$h->hold(nth => 2);
	$run = $h->start(least => 2);
	$t->wait_for("SELECT count(*) = 100 FROM $table WHERE processing_flag = 'P'");
	$h->beside($name, sprintf $sql, $table);
	$h->release;
	$h->ends($run, 'completed', "$name: the run goes on and completes");
	$h->exact($name, '1000/0/1000/0/0');
	my $sent = $h->sim->counters('contacts');
	is($sent->{creates}, 1000, "$name: every row was created once");
	is($sent->{updates}, 0, "$name: and none was written again");
}

# One partition of two.
for my $case (
	[ 'VACUUM FULL of a partition', 'VACUUM FULL %s_1' ],
	[ 'a trigger on a partition', q{CREATE FUNCTION %1$s_f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
		CREATE TRIGGER t BEFORE UPDATE ON %1$s_1 FOR EACH ROW EXECUTE FUNCTION %1$s_f()} ],
	[ 'a partition detached and attached', 'ALTER TABLE %1$s DETACH PARTITION %1$s_1; ALTER TABLE %1$s ATTACH PARTITION %1$s_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1)' ],
	[ 'a partition made anew', q{CREATE TABLE %1$s_new (LIKE %1$s_1 INCLUDING ALL); INSERT INTO %1$s_new SELECT * FROM %1$s_1 ORDER BY id DESC; DROP TABLE %1$s_1;
		ALTER TABLE %1$s ATTACH PARTITION %1$s_new FOR VALUES WITH (MODULUS 2, REMAINDER 1)} ])
{
	my ($name, $sql) = @$case;

	$table = $h->scene(rows => 1000, parts => 2);
	$h->hold(nth => 2);
	$run = $h->start(least => 2);
	$t->wait_for("SELECT count(*) = 100 FROM $table WHERE processing_flag = 'P'");
	$h->beside($name, sprintf $sql, $table);
	$h->release;
	$h->ends($run, 'completed', "$name: the run goes on and completes");
	$h->exact($name, '1000/0/1000/0/0');
	my $sent = $h->sim->counters('contacts');
	is("$sent->{creates} $sent->{updates}", '1000 0', "$name: every row was sent once");
}

$table = $h->scene(rows => 1000, parts => 2);
$h->hold(nth => 2);
$run = $h->start(least => 2);
$t->wait_for("SELECT count(*) = 100 FROM $table WHERE processing_flag = 'P'");
$h->beside('DROP of a partition', "DROP TABLE ${table}_1");
$h->release;
$h->ends($run, 'completed', 'a partition is dropped: the rest goes on');
my $left = $t->sql("SELECT count(*) FROM $table");
is($t->counts($table), "$left/0/$left/0/0", 'all rows that are left are done');
is($t->sql("SELECT count(*) FROM ${table}_success"), $h->sim->counters('contacts')->{records}, 'and every record made has its outcome');

# ------------------------------------------------- a user who keeps the table

# The answers are in and cannot be recorded: the run waits, but not in a
# transaction, and not so long as the owner's lock_timeout says.
for my $lock ('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', 'LOCK TABLE %s IN SHARE MODE', 'LOCK TABLE %s_success IN EXCLUSIVE MODE',
	'ALTER TABLE %s ADD COLUMN late int')
{
	my $name = sprintf $lock, 'it';

	$table = $h->scene(rows => 500);
	$t->sql(q{ALTER DATABASE postgres SET lock_timeout = '50ms'});
	$h->hold;
	$run = $h->start(least => 2);
	$t->sql('ALTER DATABASE postgres RESET lock_timeout');
	my $user = $h->session;
	$user->do('BEGIN; ' . sprintf $lock, $table);
	$h->release;
	ok($t->wait_for(qq{SELECT message LIKE 'waiting: another session holds a lock%' FROM dvmig.progress WHERE run = $run}),
		"$name: dvmig.progress says what the run waits for");
	$t->sql('CREATE TABLE dead AS SELECT n FROM generate_series(1, 1000) n; DELETE FROM dead');
	ok($h->until('VACUUM removes dead rows', sub {
		$h->sql('VACUUM dead');
		return $h->sql("SELECT pg_relation_size('dead')") == 0;
	}), "$name: the waiting run holds no snapshot") if $name !~ /ALTER/;
	$t->sql('DROP TABLE dead');
	is($t->sql("SELECT state FROM dvmig.run_history WHERE run = $run"), 'running', "$name: it has not given up");
	$user->do('COMMIT');
	$user->quit;
	$h->ends($run, 'completed', "$name: it goes on when the lock is gone");
	$h->exact($name, '500/0/500/0/0');
	is($h->sim->counters('contacts')->{creates}, 500, "$name: nothing was sent twice");
}

# One who never lets go: a run that is told to stop does.
$table = $h->scene(rows => 300);
$t->sql(q{ALTER DATABASE postgres SET dvmig.stop_timeout = '1s'});
$h->hold;
$run = $h->start(least => 2);
$t->sql('ALTER DATABASE postgres RESET dvmig.stop_timeout');
my $user = $h->session;
$user->do("BEGIN; LOCK TABLE $table IN SHARE MODE");
$h->release;
$t->wait_for(qq{SELECT message LIKE 'waiting: another session holds a lock%' FROM dvmig.progress WHERE run = $run});
$t->sql("SELECT dvmig.stop($run)");
$h->ends($run, 'stopped', 'a run that cannot record for a lock stops nevertheless');
$h->gone($run);
$user->do('COMMIT');
$user->quit;
is($t->counts($table), '300/300/0/0/0', 'no verdict was recorded');
is($t->run($h->migration)->{state}, 'completed', 'the next run');
$h->exact('after a stop without recording', '300/0/300/0/0');

# stop() in a transaction that stays open holds the row that the worker's
# figures go to. Its requests are answered and recorded all the same.
$table = $h->scene(rows => 500);
$h->hold(nth => 2);
$run = $h->start(least => 2);
$user = $h->session;
$user->do("BEGIN; SELECT dvmig.stop($run)");
$h->release;
$t->wait_for("SELECT count(*) = 500 FROM $table WHERE processing_flag = 'P'");
pass('an open transaction with dvmig.stop() does not keep answers from being recorded');
$user->do('ROLLBACK');
$user->quit;
$h->ends($run, 'completed');
$h->exact('a stop rolled back', '500/0/500/0/0');

# ------------------------------------------------------- what takes rows away

$table = $h->scene(rows => 500);
$h->hold;
$run = $h->start(least => 2);
$h->beside('TRUNCATE', "TRUNCATE $table");
$h->release;
$h->ends($run, 'completed', 'TRUNCATE: the run ends');
my $made = $h->sim->counters('contacts')->{records};
cmp_ok($made, '>', 0, 'TRUNCATE: what was on its way arrived');
is($t->sql("SELECT count(*) FROM ${table}_success"), $made, 'TRUNCATE: and its outcome is kept, though the row is gone');
$h->load;
is($t->run($h->migration)->{state}, 'completed', 'the same rows loaded again');
$h->exact('TRUNCATE and load again', '500/0/500/0/0');
is($h->sim->counters('contacts')->{updates}, 0, 'TRUNCATE: what had arrived is not sent again');

$table = $h->scene(rows => 500);
$h->hold;
$run = $h->start(least => 2);
$h->beside('dropping a column that no map uses', "ALTER TABLE $table DROP COLUMN spare");
$h->release;
$h->ends($run, 'completed', 'a column that no map uses is dropped: the run goes on');
$h->exact('an unmapped column dropped', '500/0/500/0/0');

$table = $h->scene(rows => 5000);
$h->hold(nth => 2);
$run = $h->start(least => 2);
$h->beside('dropping a mapped column', "ALTER TABLE $table DROP COLUMN city");
$h->release;
my $end = $h->ends($run, 'failed', 'a mapped column is dropped: the run fails');
like($end->{message}, qr/column s\.city does not exist/, 'and says which');
cmp_ok($t->status($table)->{succeeded}, '>', 100, 'answers that were on their way are recorded');
$h->exact('a mapped column dropped', $t->counts($table));
$t->sql("SELECT dvmig.unmap('$table', 'address1_city')");
is($t->run($h->migration)->{state}, 'completed', 'once its map is taken out, the rest goes');
$h->exact('a mapped column dropped and unmapped', '5000/0/5000/0/0');

$table = $h->scene(rows => 500);
$h->hold;
$run = $h->start(least => 2);
$h->beside('DROP TABLE', "DROP TABLE $table");
$h->release;
$end = $h->ends($run, 'failed', 'the staging table is dropped: the run fails');
like($end->{message}, qr/$table/, 'and says which table');
$h->gone($run);
is($t->sql(q{SELECT count(*) FROM dvmig.status WHERE migration = '} . $h->migration . q{'}), 0, 'dvmig.status no longer lists it');

# Two tables: one is dropped before its turn comes.
$table = $h->scene(rows => 200);
$t->sql(qq{CREATE TABLE later (id int PRIMARY KEY, family text, parent int); INSERT INTO later VALUES (1, 'L', 1)});
$t->sql(sprintf q{SELECT dvmig.add_table('%s', 'later', 'contact', source_key => 'id');
	SELECT dvmig.map_column('later', 'lastname', 'family');
	SELECT dvmig.map_lookup('later', 'parentcustomerid', 'parent', '%s')}, $h->migration, $table);
$h->hold;
$run = $h->start(least => 1);
$h->beside('DROP TABLE of a table whose turn has yet to come', 'DROP TABLE later');
$h->release;
$end = $h->ends($run, 'failed', 'a run that cannot do all it was to do has failed');
like($end->{message}, qr/later/, 'and names the table');
is($t->counts($table), '200/0/200/0/0', 'the other table is done');

# ---------------------------------------- other rows where rows on their way were

# Deleted, vacuumed away, and their places taken: what is answered then is not the
# others'. A table with a trigger is flagged by SQL, one without past the executor.
for my $trigger ('', q{CREATE FUNCTION %1$s_f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
	CREATE TRIGGER t BEFORE UPDATE ON %1$s FOR EACH ROW EXECUTE FUNCTION %1$s_f()})
{
	my $name = 'places taken by other rows' . ($trigger ? ', flagged by SQL' : '');

	$table = $h->scene(rows => 40);
	$t->sql(sprintf $trigger, $table) if $trigger;
	$h->hold(after => 1);
	$run = $h->start;
	my %was = map { $_ => 1 } split /\n/, $t->sql("SELECT ctid FROM $table");
	$t->sql("DELETE FROM $table WHERE id <= 20");
	ok($h->until('VACUUM gives the places away', sub {
		$h->sql("VACUUM $table");
		$h->sql("BEGIN; INSERT INTO $table VALUES (1000, 'probe', 'x', 'x'); SELECT ctid FROM $table WHERE id = 1000; ROLLBACK") =~ /(\(.*\))/ && $was{$1};
	}), "$name: there are some");
	$t->sql("INSERT INTO $table SELECT n, 'Other ' || n, 'City', 'x' FROM generate_series(101, 120) n");
	cmp_ok((scalar grep { $was{$_} } split /\n/, $t->sql("SELECT ctid FROM $table WHERE id > 100")), '>', 0, "$name: the others have them");
	$h->release;
	$h->ends($run, 'completed', "$name: the run completes");
	$h->exact($name, '40/0/40/0/0', -extra => { contacts => 20 });
	is($t->sql("SELECT count(*) FROM ${table}_success"), 60, "$name: every record has the outcome of its row");
	is($h->sim->counters('contacts')->{creates}, 60, "$name: and was made once");
}

unlike(slurp_file($t->node->logfile), qr/PANIC|TRAP|terminated by signal|cache lookup failed|XX000/, 'no process of the server came to harm');

done_testing();

# Rows that change while their request is on its way, triggers that will not
# have the flag, and processes that are killed: one true verdict for each row
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use IPC::Run ();
use JSON::PP;
use Test::More;
use Time::HiRes qw(sleep time);

use DvMig::Attack;

my $a = DvMig::Attack->new(name => 'edit', rows => 60, conf => "restart_after_crash = on\nsynchronous_commit = on\n");
my $t = $a->t;
my $run;
my $l;

sub verdict
{
	my ($id) = @_;
	return $t->sql(qq{
		SELECT concat_ws(' ', s.processing_flag, ok.operation, ok.message, er.error_class)
		FROM staging.customers s LEFT JOIN staging.customers_success ok USING (id) LEFT JOIN staging.customers_error er USING (id) WHERE s.id = $id});
}

# session: a psql that stays, for transactions that stay open.
sub session
{
	my $s = { in => '', out => '', timer => IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default) };

	$s->{psql} = IPC::Run::start([ 'psql', '-XqAt', '-d', $t->node->connstr('postgres') ], '<', \$s->{in}, '>', \$s->{out}, $s->{timer});
	return $s;
}

sub in_session
{
	my ($s, $sql) = @_;

	$s->{out} = '';
	$s->{in} .= "$sql;\n\\echo done\n";
	$s->{psql}->pump until $s->{out} =~ /^done$/m;
	return;
}

sub end_session { my ($s) = @_; $s->{in} .= "\\q\n"; $s->{psql}->finish; return; }

# held(match): answers of matching requests wait until clear().
sub hold
{
	my ($path, $after) = @_;
	$a->faults({ match => { method => 'POST', path_contains => $path }, do => 'hold', count => 0, after => $after ? JSON::PP::true : JSON::PP::false });
	return;
}

sub start_held
{
	my ($arguments) = @_;
	my $r = $t->start('m', $arguments);
	$a->until('a request hangs', sub { $a->sim->held > 0 });
	return $r;
}

# ------------------------------------------------------------- edited in flight

my $edits = q{
	UPDATE staging.customers SET name = 'edited ' || id, phone = NULL WHERE id BETWEEN 1 AND 5;
	UPDATE staging.customers SET name = name WHERE id BETWEEN 6 AND 10;
	DELETE FROM staging.customers WHERE id BETWEEN 11 AND 15;
	UPDATE staging.customers SET id = id + 5000 WHERE id BETWEEN 16 AND 18;
	UPDATE staging.customers SET action_flag = 'D' WHERE id IN (19, 20);
	UPDATE staging.customers SET name = repeat('x', 161) WHERE id = 21;
	UPDATE staging.customers SET revenue = 'NaN' WHERE id = 22;
	INSERT INTO staging.customers (id, name) VALUES (-1, 'arrived late'), (9000, 'arrived late')};

for my $after (0, 1)
{
	$l = $after ? 'edited after it was carried out' : 'edited before it is carried out';
	$a->fresh;
	hold('CreateMultiple', $after);
	$run = start_held();
	$a->sql($edits);
	$a->clear;
	is($t->finish($run)->{state}, 'completed', "$l: the run completes");
	# 60 - 5 deleted + 2 late; five records of deleted rows and three of keys
	# that were changed belong to no row any more
	$a->exact($l, customers => '57/0/55/2/0', -extra => { accounts => 8 });
	like(verdict(1), qr/^P U/, "$l: an edited row was written again");
	like(verdict(6), qr/^P . unchanged/, "$l: one that was touched was not");
	is(verdict(19), 'P D', "$l: one that is to be deleted now is");
	is(verdict(21), 'E length', "$l: an edit that is refused is an error");
	is($a->sql('SELECT dataverse_id IS NOT NULL FROM staging.customers_error WHERE id = 21'), 't', "$l: that knows the record");
	is($a->sql('SELECT count(*) FROM staging.customers_success WHERE id BETWEEN 11 AND 18'), 8, "$l: outcomes of rows that are gone are kept");
	is($a->sim->counters('accounts')->{creates}, 65, "$l: nothing was created twice");
	# a row whose key was changed is another record, and the one of its old key is listed
	$a->sql(q{SELECT count(*) FROM dvmig.verify('m')});
	is($a->sql(q{SELECT string_agg(source_key, ' ' ORDER BY source_key::int) FROM dvmig.difference WHERE kind = 'extra' AND source_key::int BETWEEN 11 AND 18}),
		'11 12 13 14 15 16 17 18', "$l: records of rows that are gone, or have another key, are listed");
	is($a->sql(q{SELECT count(*) FROM staging.customers s JOIN staging.customers_success x USING (id) WHERE s.id IN (5016, 5017, 5018) AND s.processing_flag = 'P'
		AND s.dataverse_id NOT IN (SELECT o.dataverse_id FROM staging.customers_success o WHERE o.id BETWEEN 16 AND 18)}), 3, "$l: one with another key is another record");
	$a->sql(q{UPDATE staging.customers SET name = 'short', revenue = 1 WHERE id IN (21, 22); SELECT dvmig.retry('staging.customers')});
	is($a->run->{state}, 'completed', "$l: corrected");
	$a->exact("$l: corrected", customers => '57/0/57/0/0', -extra => { accounts => 8 });
	is($a->sim->counters('accounts')->{creates}, 65, "$l: corrected rows were not created again");
}

for my $after (0, 1)
{
	$l = 'update, ' . ($after ? 'edited after it was carried out' : 'edited before it is carried out');
	$a->fresh;
	$a->run;
	$a->edit('customers');
	hold('UpdateMultiple', $after);
	$run = start_held();
	$a->sql($edits);
	$a->clear;
	is($t->finish($run)->{state}, 'completed', "$l: the run completes");
	# changed keys keep the dataverse_id that their row has: no new record
	$a->exact($l, customers => '57/0/55/2/0', -extra => { accounts => 5 });
	is($a->sim->counters('accounts')->{creates}, 62, "$l: nothing was created twice");
}

# A delete on its way, and the row is wanted after all.
$l = 'delete, wanted after all';
$a->fresh;
$a->run;
$a->sql(q{UPDATE staging.customers SET action_flag = 'D', processing_flag = 'U' WHERE id <= 10});
hold('$batch', 1);
$run = start_held();
$a->sql(q{UPDATE staging.customers SET action_flag = 'I' WHERE id <= 5});
$a->clear;
is($t->finish($run)->{state}, 'completed', "$l: the run completes");
$a->run;
is($t->counts('staging.customers'), '60/0/60/0/0', "$l: figures");
is(verdict(1), 'P I', "$l: created anew");
is(verdict(6), 'P D', "$l: the others are deleted");
is(scalar(@{ $a->sim->export('accounts') }), 55, "$l: records");

# ------------------------------------------------------------------- row locks

$l = 'locked';
$a->fresh;
my $s = session();
in_session($s, 'BEGIN; SELECT 1 FROM staging.customers WHERE id <= 3 FOR UPDATE');
is($a->run->{state}, 'completed', "$l: a run does not wait for a user");
is($a->sql(q{SELECT count(*) FROM staging.customers WHERE processing_flag = 'P'}), 57, "$l: rows that nobody holds are flagged");
is($a->sql(q{SELECT count(*) FROM staging.customers_success}), 60, "$l: outcomes are recorded");
like($t->rows('SELECT message FROM dvmig.run_history ORDER BY run DESC LIMIT 1')->[0]{message} // '', qr/3 rows/, "$l: and the run says how many");
in_session($s, q{UPDATE staging.customers SET name = 'held and edited' WHERE id = 1; COMMIT});
$run = $a->run;
is("$run->{rows_sent}/$run->{unchanged}", '1/2', "$l: the next run sends what was edited, and flags the others");
$a->exact($l, customers => '60/0/60/0/0');
is($a->sim->counters('accounts')->{creates}, 60, "$l: nothing was created twice");

# Held while the outcome is recorded and let go later in the same run.
$l = 'locked for a while';
$a->fresh;
hold('CreateMultiple', 1);
$run = start_held();
in_session($s, 'BEGIN; UPDATE staging.customers SET phone = $$held$$ WHERE id <= 3; SELECT 1 FROM staging.customers WHERE id BETWEEN 4 AND 6 FOR UPDATE');
$a->clear;
in_session($s, 'COMMIT');
is($t->finish($run)->{state}, 'completed', "$l: the run completes");
$a->run;
$a->exact($l, customers => '60/0/60/0/0');
is($a->sim->counters('accounts')->{creates}, 60, "$l: nothing was created twice");
end_session($s);

# -------------------------------------------------------------------- triggers

# What a trigger, policy or constraint does to the flags of rows 1 to 3: name,
# SQL that makes it, how the rows are left.
my @guards = (
	[ 'a trigger that suppresses', q{
		CREATE FUNCTION staging.guard() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
		CREATE TRIGGER guard BEFORE UPDATE ON staging.customers FOR EACH ROW WHEN (NEW.id <= 3) EXECUTE FUNCTION staging.guard()}, 'U' ],
	[ 'a trigger that raises', q{
		CREATE FUNCTION staging.guard() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not this one'; END$$;
		CREATE TRIGGER guard BEFORE UPDATE ON staging.customers FOR EACH ROW WHEN (NEW.id <= 3) EXECUTE FUNCTION staging.guard()}, 'U' ],
	[ 'a trigger that always asks to be tried again', q{
		CREATE FUNCTION staging.guard() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not this one' USING ERRCODE = '40001'; END$$;
		CREATE TRIGGER guard AFTER UPDATE ON staging.customers FOR EACH ROW WHEN (NEW.id <= 3) EXECUTE FUNCTION staging.guard()}, 'U' ],
	[ 'a trigger that resets the flag', q{
		CREATE FUNCTION staging.guard() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.processing_flag := 'U'; RETURN NEW; END$$;
		CREATE TRIGGER guard BEFORE UPDATE ON staging.customers FOR EACH ROW WHEN (NEW.id <= 3) EXECUTE FUNCTION staging.guard()}, 'U' ],
	[ 'a trigger that touches the row again', q{
		CREATE FUNCTION staging.guard() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
			UPDATE staging.customers SET processing_flag = 'U' WHERE id = NEW.id AND processing_flag = 'P'; RETURN NULL; END$$;
		CREATE TRIGGER guard AFTER UPDATE ON staging.customers FOR EACH ROW WHEN (NEW.id <= 3 AND NEW.processing_flag = 'P') EXECUTE FUNCTION staging.guard()}, 'U' ],
	[ 'a trigger that changes the content', q{
		CREATE FUNCTION staging.guard() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
			NEW.name := OLD.name || '+'; NEW.processing_flag := 'U'; RETURN NEW; END$$;
		CREATE TRIGGER guard BEFORE UPDATE ON staging.customers FOR EACH ROW WHEN (NEW.id <= 3) EXECUTE FUNCTION staging.guard()}, 'U' ],
	[ 'a trigger that puts another flag', q{
		CREATE FUNCTION staging.guard() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.processing_flag := 'E'; RETURN NEW; END$$;
		CREATE TRIGGER guard BEFORE UPDATE ON staging.customers FOR EACH ROW WHEN (NEW.id <= 3) EXECUTE FUNCTION staging.guard()}, 'E' ],
	[ 'a trigger that raises at commit', q{
		CREATE FUNCTION staging.guard() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not this one'; END$$;
		CREATE CONSTRAINT TRIGGER guard AFTER UPDATE ON staging.customers DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW WHEN (NEW.id <= 3) EXECUTE FUNCTION staging.guard()}, 'U' ],
	[ 'a constraint', q{ALTER TABLE staging.customers ADD CONSTRAINT guard CHECK (id > 3 OR processing_flag = 'U')}, 'U' ],
	[ 'a trigger that deletes the row', q{
		CREATE FUNCTION staging.guard() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN DELETE FROM staging.customers WHERE id = NEW.id; RETURN NULL; END$$;
		CREATE TRIGGER guard AFTER UPDATE ON staging.customers FOR EACH ROW WHEN (NEW.id <= 3) EXECUTE FUNCTION staging.guard()}, '' ],
	[ 'a generated column', q{ALTER TABLE staging.customers ADD guard numeric GENERATED ALWAYS AS
			(1 / CASE WHEN id <= 3 AND processing_flag <> 'U' THEN 0 ELSE 1 END) STORED}, 'U' ],
	[ 'a foreign key', q{
		CREATE TABLE staging.allowed (id int, flag char(1), PRIMARY KEY (id, flag));
		INSERT INTO staging.allowed SELECT n, f FROM generate_series(1, 60) n, unnest('{U,P,E,S}'::text[]) f WHERE n > 3 OR f = 'U';
		ALTER TABLE staging.customers ADD f char(1) GENERATED ALWAYS AS (processing_flag::char(1)) STORED;
		ALTER TABLE staging.customers ADD CONSTRAINT guard FOREIGN KEY (id, f) REFERENCES staging.allowed}, 'U' ],
);
for my $guard (@guards)
{
	my ($name, $make, $flag) = @$guard;

	$a->fresh;
	$a->sql($make);
	for my $round (1, 2)
	{
		$l = "$name, run $round";
		$run = $a->run;
		is($run->{state}, 'completed', "$l: the run completes");
		is($a->sql(q{SELECT count(*) FROM staging.customers WHERE processing_flag = 'P'}), 57, "$l: the other rows are done");
		is($a->sql(q{SELECT coalesce(string_agg(DISTINCT processing_flag, ''), '') FROM staging.customers WHERE id <= 3}), $flag, "$l: its rows are left as they are");
		is($a->sql(q{SELECT count(*) FROM staging.customers_success}), 60, "$l: their outcome is recorded");
		like($run->{message} // '', qr/staging\.customers: 3 rows/, "$l: and the run says how many") unless $flag eq '' || ($flag eq 'E' && $round == 2);
	}
	is($a->sim->counters('accounts')->{creates}, 60, "$name: nothing was created twice");
	is($a->sim->counters('accounts')->{updates}, 0, "$name: nor written again") unless $name =~ /content/;
	$a->sql(q{
		DROP TRIGGER IF EXISTS guard ON staging.customers;
		DROP FUNCTION IF EXISTS staging.guard();
		ALTER TABLE staging.customers DROP CONSTRAINT IF EXISTS guard, DROP COLUMN IF EXISTS guard, DROP COLUMN IF EXISTS f;
		DROP TABLE IF EXISTS staging.allowed;
		UPDATE staging.customers SET processing_flag = 'U' WHERE id <= 3});
	is($a->run->{state}, 'completed', "$name: without it");
	$a->exact("$name: without it", customers => $flag eq '' ? '57/0/57/0/0' : '60/0/60/0/0', -extra => { accounts => $flag eq '' ? 3 : 0 });
}

# ------------------------------------------------------------ killed processes

# settled(what, n): after a crash the next run completes and nothing is doubled.
sub settled
{
	my ($what, $rows) = @_;

	$a->clear;
	is($t->status('staging.customers')->{invariant_holds}, JSON::PP::true, "$what: the figures add up");
	$a->until("$what: the run is known to be dead",
		sub { $t->sql(q{SELECT count(*) FROM dvmig.progress}) == 0 });
	my ($next) = split /\n/, $t->sql('SELECT dvmig.resume_interrupted()');
	ok($next, "$what: the run is resumed") or return;
	is($t->finish($next)->{state}, 'completed', "$what: and completes");
	$a->exact($what, customers => "$rows/0/$rows/0/0");
	is($a->sim->counters('accounts')->{creates}, $rows, "$what: each record was created once");
	return;
}

# The server killed and started again, as soon as all its processes are gone.
sub crash
{
	my ($pid) = split /\n/, PostgreSQL::Test::Utils::slurp_file($t->node->data_dir . '/postmaster.pid');

	$t->node->kill9;
	$a->until('the server is gone', sub { !kill 0, $pid });
	$a->until('the server starts', sub { $t->node->start(fail_ok => 1) });
	return;
}

sub worker_pid
{
	my ($r) = @_;
	return $t->sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'dvmig run $r'");
}

$a->{rows} = 400;
for my $after (0, 1)
{
	$l = 'worker killed ' . ($after ? 'after' : 'before') . ' its requests were carried out';
	$a->fresh;
	hold('CreateMultiple', $after);
	$run = start_held();
	$t->kill_process(worker_pid($run));
	settled($l, 400);

	$l =~ s/worker/server/;
	$a->fresh;
	hold('CreateMultiple', $after);
	$run = start_held();
	crash();
	settled($l, 400);
}

# What a user of Dataverse changed before the run was resumed is not undone.
$l = 'changed between crash and resume';
$a->fresh;
hold('CreateMultiple', 1);
$run = start_held();
$t->kill_process(worker_pid($run));
my ($id) = map { $_->{accountid} } grep { $_->{new_legacyid} eq '7' } @{ $a->sim->export('accounts') };
$a->user_edit('accounts', $id, { telephone1 => 'changed by a user' });
$a->clear;
$a->until("$l: the run is known to be dead", sub { $t->sql(q{SELECT count(*) FROM dvmig.progress}) == 0 });
is($a->run->{state}, 'completed', "$l: the next run completes");
is((grep { $_->{accountid} eq $id } @{ $a->sim->export('accounts') })[0]{telephone1}, 'changed by a user', "$l: it is kept");
like(verdict(7), qr/^P . kept: the record was modified/, "$l: and the row says so");

# Edits that a crash left half recorded.
$l = 'updates, killed';
$a->fresh;
$a->run;
$a->edit('customers');
hold('UpdateMultiple', 1);
$run = start_held();
$t->kill_process(worker_pid($run));
settled($l, 400);

# The service goes away with all it was doing: the run waits, and goes on.
$l = 'service killed';
$a->fresh;
hold('CreateMultiple', 0);
$run = start_held();
$a->sim->restart('KILL');
is($t->finish($run)->{state}, 'completed', "$l: the run goes on by itself");
$a->exact($l, customers => '400/0/400/0/0');

# At random instants, from a printed seed.
my $seed = $ENV{DVMIG_SEED} // time();
diag("seed $seed");
srand($seed);
$a->{rows} = 2000;
for my $round (1 .. 6)
{
	$l = "killed at random, round $round";
	$a->fresh;
	$a->sim->set(latency => 15);
	$run = $t->start('m');
	my $at = int(rand(2000));
	$a->until('so many rows have arrived', sub { $a->sim->stats->{rows_created} >= $at });
	my $pid = worker_pid($run);
	if ($round % 2 && $pid) { $t->kill_process($pid) }
	else { crash() }
	$a->sim->set(latency => 0);
	$a->until("$l: the run is over", sub { $t->sql(q{SELECT count(*) FROM dvmig.progress}) == 0 });
	$t->run('m');
	$a->exact($l, customers => '2000/0/2000/0/0');
	is($a->sim->counters('accounts')->{creates}, 2000, "$l: each record was created once");
}
$a->done;

done_testing();

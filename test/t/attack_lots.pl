# Outcomes are recorded in lots: whatever ends between two of them, or is done to
# the rows of the same pages meanwhile, every row has one outcome and one record,
# no page or index is damaged, and a run has counted what it recorded.
# DVMIG_LOTS=n adds so many random scenes, DVMIG_SEED=n repeats them.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'attack_lots', conf => <<'CONF');
restart_after_crash = on
autovacuum = off
shared_buffers = 16MB
dvmig.settle_time = 300ms
CONF
my $t = $h->t;
my $rows = 900;
my $seed = $ENV{DVMIG_SEED} // time();
my $guard;
my $run;

# A row of "trap" says what becomes of whoever reads, records, flags or commits that row: an expression, constraints and
# a deferred trigger ask. Constraints, unlike a trigger, leave the way past the executor.
$t->{quiet} = 1;
$t->sql(q{
	CREATE EXTENSION amcheck;
	CREATE SCHEMA staging;
	CREATE TABLE staging.trap (place text, id int, does text, lane text, PRIMARY KEY (place, id));
	CREATE TABLE staging.places (id int PRIMARY KEY, at int);
	CREATE FUNCTION staging.passes(place text, id int) RETURNS bool LANGUAGE plpgsql AS $$
	DECLARE
		what text := (SELECT t.does FROM staging.trap t WHERE t.place = $1 AND t.id = $2 AND current_setting('application_name') ~ t.lane);
	BEGIN
		-- waited for by looks: a lock would be waited for briefly
		WHILE what = 'waits' AND NOT pg_try_advisory_xact_lock_shared(77) LOOP
			PERFORM pg_sleep(0.01);
		END LOOP;
		RETURN what IS DISTINCT FROM 'refuses';
	END$$;
	CREATE FUNCTION staging.at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF NOT staging.passes('commit', NEW.id) THEN
			RAISE EXCEPTION 'not this one';
		END IF;
		RETURN NULL;
	END$$;
	CREATE TABLE staging.lots (id int PRIMARY KEY, name text, filler text, note int NOT NULL DEFAULT 0, wanted bool NOT NULL DEFAULT true,
		CHECK (staging.passes('flag', id)));
	CREATE INDEX ON staging.lots (note);
	CREATE TABLE staging.others (id int PRIMARY KEY, name text, spare text)});
$t->migration('m', tables => 'account,contact');
$t->sql(sprintf q{ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (ADD client_id2 '%s', ADD client_secret2 '%s')}, DvMig::Sim::CLIENT2, DvMig::Sim::SECRET2);
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.lots', 'account', source_key => 'id', filter => 'wanted', auto_map => false, flag_index => false);
	SELECT dvmig.map_column('staging.lots', 'name', $$CASE WHEN staging.passes('read', id) THEN name END$$);
	ALTER TABLE staging.lots_success ADD CHECK (staging.passes('success', id));
	SELECT dvmig.add_table('m', 'staging.others', 'contact', source_key => 'id', auto_map => false);
	SELECT dvmig.map_column('staging.others', 'lastname', 'name')});

# load(rows of a request): full pages, in which rows that are not wanted lie between those that are; "places" tells the
# so manyth of its page in its request each is, and so of which lot.
sub load
{
	my ($batch) = @_;

	$h->sim->sim('POST', 'reset');
	$t->sql(qq{
		TRUNCATE staging.trap, staging.places, staging.lots, staging.lots_success, staging.lots_error, staging.others, staging.others_success, staging.others_error;
		INSERT INTO staging.lots (id, name, filler, wanted)
		SELECT n, 'Company ' || n, left((SELECT string_agg(md5((n * 64 + i)::text), '') FROM generate_series(1, 20) i), 600), n % 9 <> 0 FROM generate_series(1, $rows) n;
		INSERT INTO staging.places SELECT id, row_number() OVER (PARTITION BY page, (n - 1) / $batch ORDER BY id)
		FROM (SELECT id, (ctid::text::point)[0] AS page, row_number() OVER (ORDER BY id) AS n FROM staging.lots WHERE wanted) q;
		DELETE FROM dvmig.table_pace;
		INSERT INTO dvmig.table_pace (server, table_name, pass, bulk_rows, bulk_max, each_rows, parallel) VALUES ('sim', 'account', 'write', $batch, $batch, 50, 4)});
	return;
}

# trap(place, does, SQL that gives rows, lane): lanes are told by their names, all where none is given; users pass.
sub trap
{
	my ($place, $does, $which, $lane) = @_;

	$t->sql(sprintf q{INSERT INTO staging.trap SELECT '%s', id, '%s', '%s' FROM (%s) q}, $place, $does, $lane // 'dvmig run', $which);
	$t->sql(q{CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT OR UPDATE ON staging.lots_success DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION staging.at_commit()})
	  if $place eq 'commit';
	return;
}

# lie(at, from, to): rows that lie there in their pages
sub lie { my ($at, $from, $to) = @_; return sprintf 'SELECT id FROM staging.places WHERE at = %d AND id BETWEEN %d AND %d', $at, $from // 1, $to // $rows; }

# shut, open_up: what waits, and for how long
sub shut { $guard = $h->session; $guard->do('SELECT pg_advisory_lock(77)'); return; }
sub open_up { eval { $guard->quit }; return; }

# waiting(pattern): until a worker of such a name waits; its process and name.
sub waiting
{
	my ($name) = @_;
	my $who = qq{FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND application_name ~ '$name'};

	$t->wait_for("SELECT count(*) > 0 $who") or die "no worker waits\n";
	return split / /, $t->sql("SELECT pid || ' ' || replace(application_name, ' ', '_') $who ORDER BY pid LIMIT 1");
}

sub recorded { return $t->sql('SELECT count(*) FROM staging.lots_success'); }

# counted(name, run): what a run that ended has counted is what it has recorded, of the table and in all.
sub counted
{
	my ($name, $run) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $have = $t->sql("SELECT (SELECT count(*) FROM staging.lots_success WHERE run = $run) || ' ' || (SELECT count(*) FROM staging.lots_error WHERE run = $run)");

	is($t->sql("SELECT succeeded || ' ' || failed FROM dvmig.run_history WHERE run = $run"), $have, "$name: the run has counted what it recorded");
	is($t->sql("SELECT succeeded || ' ' || failed FROM dvmig.run_table WHERE run = $run AND staging = 'staging.lots' AND pass = 'write'"), $have, "$name: so it has of the table");
	return;
}

# books(name, rows that a user deleted): after calm runs until nothing is left, both sides and the files.
sub books
{
	my ($name, $deleted) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $wanted = q{SELECT count(*) FROM staging.lots WHERE wanted};

	$t->sql('TRUNCATE staging.trap; DROP TRIGGER IF EXISTS at_commit ON staging.lots_success');
	for (1 .. 3)
	{
		my $calm = $t->run('m', 'resend => true');

		is($calm->{state}, 'completed', "$name: a run in the calm completes") or diag $calm->{message};
		last if !$t->sql("$wanted AND processing_flag = 'U'") && !$t->sql(q{SELECT dvmig.retry('staging.lots')});
	}
	is($t->sql(q{SELECT string_agg(DISTINCT processing_flag::text, '') FROM staging.lots WHERE wanted}), 'P', "$name: every row is done");
	# a record of a row that was deleted meanwhile belongs to none
	my $rest = $h->sim->counters('accounts')->{creates} - $t->sql($wanted);
	ok($rest >= 0 && $rest <= ($deleted // 0), "$name: each was created once") or diag "$rest more";
	subtest "$name: account" => sub { $t->account('m', 'staging.lots' => { name => 's.name' }, -extra => { accounts => $rest }); };
	is($t->sql(q{SELECT string_agg(v::text, E'\n') FROM pg_class c, verify_heapam(c.oid) v WHERE c.relnamespace = 'staging'::regnamespace AND c.relkind = 'r'}), '', "$name: no table is damaged");
	is($t->sql(q{SELECT count(bt_index_check(i.indexrelid, true)) >= 4 FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = 'staging'::regnamespace AND c.relkind = 'r'}),
		't', "$name: no index lacks a row");
	return;
}

# What is done while a lot waits, in its pages: to rows of the lots before and after it.
my %edits = (
	edits   => 'UPDATE staging.lots SET name = name || $$*$$ WHERE processing_flag = $$U$$ AND id IN (' . lie(6) . ')',
	moves   => 'UPDATE staging.lots SET note = note + 1 WHERE id IN (' . lie(7) . ')',
	again   => 'UPDATE staging.lots SET name = name || $$+$$, processing_flag = $$U$$ WHERE id IN (' . lie(1) . ')',
	drops   => 'DELETE FROM staging.lots WHERE id IN (' . lie(8) . ')',
	adds    => 'INSERT INTO staging.lots (id, name, filler) SELECT n, $$Late $$ || n, repeat($$x$$, n % 90) FROM generate_series(2001, 2050) n',
	vacuums => 'VACUUM staging.lots, staging.lots_success',
);
my $seen = q{SELECT md5(string_agg(s::text, '|' ORDER BY id)) FROM staging.lots s};

# How a run is ended while a lot waits: given its number and the process that waits.
my %ways = (
	'kill -9'   => sub { $t->kill_process($_[1]); },
	immediate   => sub { $t->node->stop('immediate'); $t->node->start; },
	fast        => sub { $t->node->stop('fast'); $t->node->start; },
	terminate   => sub { $t->sql("SELECT pg_terminate_backend($_[1])"); $t->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $_[1]"); },
	cancel      => sub { $t->sql("SELECT pg_cancel_backend($_[1])"); },
	# until the run is about to look for it
	stop        => sub { $t->sql("SELECT dvmig.stop($_[0])"); $t->wait_for("SELECT clock_timestamp() > updated_at + interval '1 second' FROM dvmig.run_history WHERE run = $_[0]"); },
	no          => sub { },
);

# left: rows that a run that was told to stop has left
sub left { return $t->sql(q{SELECT count(*) FROM staging.lots WHERE processing_flag = 'U' AND wanted}); }

# end_of(way, name of the worker): the state that such a run ends in.
sub end_of
{
	my ($way, $worker) = @_;

	return qr/^interrupted$/ if $way =~ /kill|immediate|fast/ || ($way eq 'terminate' && $worker !~ /lane/);
	return left() ? qr/^stopped$/ : qr/^(?:stopped|completed)$/ if $way =~ /cancel|stop/;
	return qr/^completed$/;
}

# beside(name, what): each of them; sessions that are to stay.
sub beside
{
	my ($name, @what) = @_;
	my %stays;

	for my $what (@what)
	{
		# a lot that has more rows of each page than was thought holds some of these
		like($t->error("SET lock_timeout = '2s'; $edits{$what}"), qr/^$|lock timeout/, "$name: a user $what") if $edits{$what};
		next if $edits{$what};
		my $session = $stays{$what} = $h->session;

		if ($what =~ /full|all/)
		{
			$session->send(($what eq 'full' ? "VACUUM FULL staging.lots;\nVACUUM FULL staging.lots_success" : 'BEGIN; LOCK TABLE staging.lots') . ";\n\\echo done\n");
			$t->wait_for(q{SELECT count(*) > 0 FROM pg_stat_activity WHERE query ~ '^(VACUUM FULL|LOCK TABLE)' AND wait_event_type = 'Lock'});
		}
		elsif ($what eq 'seen') { $session->do('BEGIN ISOLATION LEVEL REPEATABLE READ'); $stays{was} = $session->do($seen); }
		else { $session->do('BEGIN; SELECT count(*) FROM (SELECT FROM staging.lots WHERE id IN (' . lie(6) . ') FOR UPDATE SKIP LOCKED) q'); }
	}
	return \%stays;
}

# scene(lanes, batch, place, at, way, beside => [...]): a lot waits, something is done, the run ends in that way or goes on.
sub scene
{
	my (%o) = @_;
	my @beside = @{ $o{beside} // [] };
	my $name = "$o{way} at $o{place} $o{at}, lanes => $o{lanes}, batch $o{batch}" . join '', map { ", $_" } @beside;
	my $crash = $o{way} =~ /kill|immediate|fast/;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	load($o{batch});
	trap($o{place}, 'waits', lie($o{at}));
	shut();
	$run = $t->start('m', "lanes => $o{lanes}");
	my ($pid, $worker) = waiting('^dvmig run');
	my $n = recorded();
	cmp_ok($n, '>', 0, "$name: some lots are recorded") if $o{at} == 5 && $o{lanes} == 1 && $o{batch} >= 100;
	my $stays = beside($name, @beside);
	$ways{ $o{way} }->($run, $pid);
	open_up();
	my $state = $t->finish($run)->{state};
	is($stays->{seen}->do($seen), $stays->{was}, "$name: a snapshot sees what it saw") if $stays->{seen} && !$crash;
	$stays->{full}->expect(qr/^done$/m) if $stays->{full} && !$crash;
	eval { $_->quit } for grep { ref } values %$stays;
	like($state, end_of($o{way}, $worker), "$name: the run is $state") or diag $t->sql("SELECT message FROM dvmig.run_history WHERE run = $run");
	my $have = $t->sql("SELECT count(*) FROM staging.lots_success WHERE run = $run");
	cmp_ok($have, '>=', $n, "$name: what was recorded stays") if $o{way} !~ /kill|immediate/;
	cmp_ok($t->rows("SELECT succeeded FROM dvmig.run_history WHERE run = $run")->[0]{succeeded}, '<=', $have, "$name: nothing is counted that is not recorded") if $state eq 'interrupted' && !@beside;
	counted($name, $run) if $state ne 'interrupted' && !grep { $_ ne 'all' } @beside;
	books($name, (grep { $_ eq 'drops' } @beside) ? $t->sql('SELECT count(*) FROM (' . lie(8) . ') q') : 0);
	return;
}

# ------------------------------------------------------------------ between two lots

scene(lanes => 1, batch => 300, place => 'success', at => 5, way => 'kill -9');
scene(lanes => 2, batch => 100, place => 'flag', at => 5, way => 'immediate');
scene(lanes => 2, batch => 100, place => 'commit', at => 6, way => 'fast');
scene(lanes => 1, batch => 300, place => 'flag', at => 5, way => 'terminate');
scene(lanes => 4, batch => 50, place => 'success', at => 5, way => 'cancel');
scene(lanes => 2, batch => 100, place => 'flag', at => 2, way => 'stop');
scene(lanes => 1, batch => 300, place => 'flag', at => 5, way => 'no', beside => [qw(seen edits moves again drops adds vacuums)]);
scene(lanes => 2, batch => 100, place => 'success', at => 5, way => 'no', beside => [qw(moves vacuums full)]);
scene(lanes => 2, batch => 100, place => 'success', at => 5, way => 'no', beside => [qw(drops locks)]);
scene(lanes => 4, batch => 100, place => 'flag', at => 5, way => 'kill -9', beside => [qw(edits drops vacuums)]);

# before any lot: what was read is gone from its places, and other rows are there
load(300);
$h->hold;
$run = $t->start('m', 'lanes => 1');
$h->until('requests hang', sub { $h->held > 0 });
$t->sql('CREATE TABLE staging.gone AS SELECT id, ctid AS place FROM staging.lots WHERE id IN (' . lie(8) . '); DELETE FROM staging.lots WHERE id IN (SELECT id FROM staging.gone)');
$t->sql($edits{$_}) for qw(vacuums adds);
cmp_ok($t->sql('SELECT count(*) FROM staging.lots l JOIN staging.gone g ON g.place = l.ctid'), '>', 0, 'places are used again: some are');
$h->release;
is($t->finish($run)->{state}, 'completed', 'places are used again: the run completes');
books('places are used again', $t->sql('SELECT count(*) FROM staging.gone'));
$t->sql('DROP TABLE staging.gone');

# somebody has the whole table for himself, and the run, which is to stop, does not wait for him for ever
$t->sql(q{ALTER DATABASE postgres SET dvmig.stop_timeout = '1s'});
scene(lanes => 2, batch => 100, place => 'flag', at => 5, way => 'stop', beside => ['all']);
$t->sql(q{ALTER DATABASE postgres RESET dvmig.stop_timeout});

# ------------------------------------------------------------------ a lot that cannot be recorded

for my $place ('success', 'commit')
{
	my $lanes = $place eq 'success' ? 1 : 2;
	my $name = "a lot is refused at $place, lanes => $lanes";

	load(300);
	trap($place, 'refuses', lie(5, 100, 150));
	$run = $t->run('m', "lanes => $lanes");
	is($run->{state}, 'failed', "$name: the run fails");
	like($run->{message}, qr/threw an error \(SQLSTATE (?:23514|P0001)\)/, "$name: and says why");
	cmp_ok(recorded(), '>', 0, "$name: others are recorded");
	counted($name, $run->{run});
	books($name);
}

# two rows of one reply, which lie in different lots and must not both be recorded, or both be flagged
for my $index ('staging.lots_success ((1)) WHERE id IN (%s)', q{staging.lots ((1)) WHERE id IN (%s) AND processing_flag = 'P'})
{
	my $name = sprintf "CREATE UNIQUE INDEX ON $index", '...';

	load(300);
	my @two = map { $t->sql('SELECT min(id) FROM (' . lie($_, 100, 200) . ') q') } 2, 6;
	$t->sql(sprintf "CREATE UNIQUE INDEX single ON $index", join ', ', @two);
	$run = $t->run('m', 'lanes => 1');
	is($run->{state}, $index =~ /success/ ? 'failed' : 'completed', "$name: the run ends so");
	like($run->{message}, $index =~ /success/ ? qr/SQLSTATE 23505/ : qr/1 row has its outcome recorded, but/, "$name: and says why");
	is($t->sql("SELECT string_agg(processing_flag::text, '' ORDER BY id = $two[1]) FROM staging.lots WHERE id IN ($two[0], $two[1])"), 'PU', "$name: of the two the first is flagged");
	counted($name, $run->{run});
	$t->sql('DROP INDEX staging.single');
	books($name);
}

# one error too many, while both lanes have rows on their way
load(100);
$t->sql(q{UPDATE staging.lots SET name = repeat('x', 5000) WHERE id = 500});
$run = $t->run('m', 'lanes => 2, max_errors => 0');
is($run->{state}, 'failed', 'max_errors => 0: the run fails');
is($t->sql('SELECT count(*) FROM staging.lots_error'), 1, 'max_errors => 0: one row has');
counted('max_errors => 0', $run->{run});
$t->sql(q{UPDATE staging.lots SET name = 'mended' WHERE id = 500; SELECT dvmig.retry('staging.lots')});
books('max_errors => 0');

# ------------------------------------------------------------------ while replies are gathered

# gather(): a run of two lanes of which one, at least, waits where it reads on, with a reply that is not recorded yet.
sub gather
{
	for my $try (1 .. 10)
	{
		load(100);
		# each lane has a range of four requests, and an application user of its own
		trap('read', 'waits', 'SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM staging.places) q WHERE (n - 1) % 400 >= 100');
		shut();
		$run = $t->sql(q{SELECT r FROM dvmig.start('m', lanes => 2) r, dvmig.tune(r, in_flight => 1)});
		my ($pid, $worker) = waiting('^dvmig run');
		$h->until('a request was answered', sub { $h->sim->counters('accounts')->{creates} > 0 });
		return ($pid, $worker) if $h->sim->counters('accounts')->{creates} > recorded();
		# the machine stood still for as long as replies are gathered
		open_up();
		$t->finish($run);
	}
	return;
}

for my $way ('no', 'stop', 'terminate', 'kill -9')
{
SKIP: {
	my ($pid, $worker) = gather();
	skip "$way while replies are gathered: this machine takes longer for a reply than they are gathered", 1 unless $pid;
	my $stays = beside($way, $way eq 'no' ? qw(edits moves drops adds vacuums locks) : ());

	$ways{$way}->($run, $pid);
	open_up();
	eval { $_->quit } for values %$stays;
	my $state = $t->finish($run)->{state};
	like($state, end_of($way, $worker), "$way while replies are gathered: the run is $state");
	counted("$way while replies are gathered", $run) if $state ne 'interrupted' && !%$stays;
	books("$way while replies are gathered", %$stays ? $t->sql('SELECT count(*) FROM (' . lie(8) . ') q') : 0);
}
}

# ------------------------------------------------------------------ a lane that ends between two lots

load(100);
trap('read', 'waits', 'SELECT id FROM staging.places', 'run \d+$');
trap('success', 'waits', lie(5), 'lane');
shut();
$run = $t->start('m', 'lanes => 2');
my ($pid) = waiting('lane');
cmp_ok(recorded(), '>', 0, 'a lane ends between two lots: some are recorded');
$ways{terminate}->($run, $pid);
open_up();
is($t->finish($run)->{state}, 'completed', 'a lane ends between two lots: the run goes on');
counted('a lane ends between two lots', $run);
books('a lane ends between two lots');

# ------------------------------------------------------------------ a table that cannot begin after one that was recorded

load(100);
$t->sql(q{INSERT INTO staging.others SELECT n, 'Person ' || n FROM generate_series(1, 10) n});
trap('success', 'waits', lie(5, 100, 150));
shut();
$run = $t->start('m', 'lanes => 2');
waiting('^dvmig run');
$t->sql('ALTER TABLE staging.others RENAME id TO number');
open_up();
is($t->finish($run)->{state}, 'failed', 'a table cannot begin: the run fails');
counted('a table cannot begin', $run);
is($t->sql("SELECT sum(rows_done) FROM dvmig.run_lane WHERE run = $run"), recorded(), 'a table cannot begin: its lanes have counted what was recorded before');
is($t->sql("SELECT sum(rows_read) || ' ' || sum(succeeded) FROM dvmig.run_table WHERE run = $run AND staging = 'staging.others'"), '0 0', 'a table cannot begin: it has no figures of another one');
like($t->error(q{SELECT dvmig.preview('staging.others')}), qr/a source key column of .* no longer exists.*Define the table anew/s, 'a table cannot begin: nor be looked at, and it says why');
$t->sql('ALTER TABLE staging.others RENAME number TO id');
books('a table cannot begin');

# ------------------------------------------------------------------ at random

sub pick { return $_[ rand @_ ]; }

for my $round (0 .. ($ENV{DVMIG_LOTS} // 0) - 1)
{
	note 'seed ' . ($seed + $round);
	srand($seed + $round);
	my @beside = grep { rand() < 0.4 } qw(edits moves again drops adds vacuums);
	my $stays = pick('', '', 'full', 'seen', 'locks');

	scene(lanes => pick(1, 2, 4), batch => pick(100, 150, 300), place => pick('success', 'flag', 'commit'), at => pick(2 .. 9),
		way => pick('no', 'no', sort grep { $_ ne 'no' } keys %ways), beside => [ @beside, $stays ? $stays : () ]);
}

done_testing();

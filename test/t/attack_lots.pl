# Outcomes are recorded in lots: whatever ends between two of them, or is done to
# the rows of the same pages meanwhile, every row has one outcome and one record,
# no page or index is damaged, and a run has counted what it recorded.
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
my $guard;

# A row of "trap" says what becomes of whoever reads, records or flags that row: constraints and an expression ask.
$t->{quiet} = 1;
$t->sql(q{
	CREATE EXTENSION amcheck;
	CREATE SCHEMA staging;
	CREATE TABLE staging.trap (place text, id int, does text, lane text, PRIMARY KEY (place, id));
	CREATE FUNCTION staging.passes(place text, id int) RETURNS bool LANGUAGE plpgsql AS $$
	DECLARE
		what text := (SELECT t.does FROM staging.trap t WHERE t.place = $1 AND t.id = $2 AND current_setting('application_name') LIKE t.lane);
	BEGIN
		-- waited for by looks: a lock would be waited for briefly
		WHILE what = 'waits' AND NOT pg_try_advisory_xact_lock_shared(77) LOOP
			PERFORM pg_sleep(0.01);
		END LOOP;
		RETURN what IS DISTINCT FROM 'refuses';
	END$$;
	CREATE TABLE staging.lots (id int PRIMARY KEY, name text, filler text, note int NOT NULL DEFAULT 0, wanted bool NOT NULL DEFAULT true,
		CHECK (staging.passes('flag', id)));
	CREATE INDEX ON staging.lots (note);
	CREATE TABLE staging.others (id int PRIMARY KEY, name text, spare text)});
$t->migration('m', tables => 'account,contact');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.lots', 'account', source_key => 'id', filter => 'wanted', auto_map => false, flag_index => false);
	SELECT dvmig.map_column('staging.lots', 'name', $$CASE WHEN staging.passes('read', id) THEN name END$$);
	ALTER TABLE staging.lots_success ADD CHECK (staging.passes('success', id));
	SELECT dvmig.add_table('m', 'staging.others', 'contact', source_key => 'id', auto_map => false);
	SELECT dvmig.map_column('staging.others', 'lastname', 'name')});

# load(rows of a request): full pages, in which rows that are not wanted lie between those that are.
sub load
{
	my ($batch) = @_;

	$h->sim->sim('POST', 'reset');
	$t->sql(qq{
		TRUNCATE staging.trap, staging.lots, staging.lots_success, staging.lots_error, staging.others, staging.others_success, staging.others_error;
		INSERT INTO staging.lots (id, name, filler, wanted)
		SELECT n, 'Company ' || n, left((SELECT string_agg(md5((n * 64 + i)::text), '') FROM generate_series(1, 20) i), 600), n % 9 <> 0 FROM generate_series(1, $rows) n;
		DELETE FROM dvmig.table_pace;
		INSERT INTO dvmig.table_pace (server, table_name, pass, bulk_rows, bulk_max, each_rows, parallel) VALUES ('sim', 'account', 'write', $batch, $batch, 50, 1)});
	return;
}

# trap(place, does, row or SQL that gives rows, lane): lanes are told by their names, all where none is given.
sub trap
{
	my ($place, $does, $row, $lane) = @_;

	$t->sql(sprintf q{INSERT INTO staging.trap SELECT '%s', id, '%s', '%s' FROM (%s) q}, $place, $does, $lane // '%', $row =~ /\D/ ? $row : "SELECT $row AS id");
	return;
}

# later(from, to): wanted rows there that are the fifth of their page, and so not of the first lot.
sub later
{
	my ($from, $to) = @_;
	return qq{SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY (ctid::text::point)[0] ORDER BY id) AS at FROM staging.lots WHERE wanted) q WHERE at = 5 AND id BETWEEN $from AND $to};
}

# close and open what waits
sub shut { $guard = $h->session; $guard->do('SELECT pg_advisory_lock(77)'); return; }
sub open_up { eval { $guard->quit }; return; }

# waiting(name of the worker): until it waits; its process.
sub waiting
{
	my ($name) = @_;
	my $who = qq{FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND application_name LIKE '$name'};

	return $t->wait_for("SELECT count(*) > 0 $who") ? $t->sql("SELECT min(pid) $who") : 0;
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

# books(name): after calm runs until nothing is left, both sides and the files.
sub books
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$t->sql('TRUNCATE staging.trap');
	for (1 .. 3)
	{
		my $run = $t->run('m', 'resend => true');

		is($run->{state}, 'completed', "$name: a run in the calm completes") or diag $run->{message};
		last if !$t->sql(q{SELECT count(*) FROM staging.lots WHERE processing_flag = 'U' AND wanted}) && !$t->sql(q{SELECT dvmig.retry('staging.lots')});
	}
	is($t->sql(q{SELECT string_agg(DISTINCT processing_flag::text, '') FROM staging.lots WHERE wanted}), 'P', "$name: every row is done");
	subtest "$name: account" => sub { $t->account('m', 'staging.lots' => { name => 's.name' }); };
	is($h->sim->counters('accounts')->{creates}, $t->sql('SELECT count(*) FROM staging.lots WHERE wanted'), "$name: each was created once");
	is($t->sql(q{SELECT string_agg(v::text, E'\n') FROM pg_class c, verify_heapam(c.oid) v WHERE c.relnamespace = 'staging'::regnamespace AND c.relkind = 'r'}), '', "$name: no table is damaged");
	is($t->sql(q{SELECT count(bt_index_check(i.indexrelid, true)) >= 4 FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = 'staging'::regnamespace AND c.relkind = 'r'}),
		't', "$name: no index lacks a row");
	return;
}

# ------------------------------------------------------------------ a lot that cannot be recorded

for my $lanes (1, 2)
{
	my $name = "a lot is refused, lanes => $lanes";

	load(300);
	trap('success', 'refuses', later(100, 150));
	my $run = $t->run('m', "lanes => $lanes");
	is($run->{state}, 'failed', "$name: the run fails");
	like($run->{message}, qr/threw an error \(SQLSTATE 23514\)/, "$name: and says why");
	cmp_ok(recorded(), '>', 0, "$name: those before it are recorded");
	counted($name, $run->{run});
	books($name);
}

# ------------------------------------------------------------------ a lane that ends between two lots

load(100);
shut();
trap('read', 'waits', 1);
trap('success', 'waits', later(1, $rows), '%lane%');
my $run = $t->start('m', 'lanes => 2');
my $lane = waiting('%lane%');
cmp_ok(recorded(), '>', 0, 'a lane ends between two lots: some are recorded');
$t->sql("SELECT pg_terminate_backend($lane)");
$h->until('it is gone', sub { !$t->sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $lane") });
open_up();
is($t->finish($run)->{state}, 'completed', 'a lane ends between two lots: the run goes on');
counted('a lane ends between two lots', $run);
books('a lane ends between two lots');

# ------------------------------------------------------------------ a table that cannot begin after one that was recorded

load(100);
$t->sql(q{INSERT INTO staging.others SELECT n, 'Person ' || n FROM generate_series(1, 10) n});
trap('success', 'waits', later(100, 150));
shut();
$run = $t->start('m', 'lanes => 2');
waiting('dvmig run%');
$t->sql('ALTER TABLE staging.others RENAME id TO number');
open_up();
is($t->finish($run)->{state}, 'failed', 'a table cannot begin: the run fails');
counted('a table cannot begin', $run);
is($t->sql("SELECT sum(rows_done) FROM dvmig.run_lane WHERE run = $run"), recorded(), 'a table cannot begin: its lanes have counted what was recorded before');
is($t->sql("SELECT sum(rows_read) || ' ' || sum(succeeded) FROM dvmig.run_table WHERE run = $run AND staging = 'staging.others'"), '0 0', 'a table cannot begin: it has no figures of another one');
like($t->error(q{SELECT dvmig.preview('staging.others')}), qr/a source key column of .* no longer exists.*Define the table anew/s, 'a table cannot begin: nor be looked at, and it says why');
$t->sql('ALTER TABLE staging.others RENAME number TO id');
books('a table cannot begin');

done_testing();

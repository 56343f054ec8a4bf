# Corners of the engine: rows whose verdict goes wrong in ways of their own,
# runs that should end, names and types that a staging table may have
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;
use Time::HiRes qw(sleep time);

use DvMig;

my $t = DvMig->new(name => 'review');
my $scenes = 0;

$t->sql(q{ALTER DATABASE postgres SET dvmig.settle_time = '300ms'});
$t->server('sim');
$t->{has_server} = 1;
$t->sql(q{SELECT * FROM dvmig.refresh_metadata('sim', '{account,contact,task}')});

# scene(columns, rows, options of add_table): a migration of one staging table
# to accounts, named like its table; the table's name.
sub scene
{
	my ($columns, $rows, $options) = @_;
	my $name = 'm' . ++$scenes;

	$t->sim->sim('POST', 'reset');
	$t->migration($name);
	$t->sql("CREATE TABLE $name (id int PRIMARY KEY, $columns); INSERT INTO $name $rows");
	$t->sql("SELECT dvmig.add_table('$name', '$name', 'account', source_key => 'id', target_key => 'new_legacyid', auto_map => false"
		  . ($options ? ", $options" : '') . ')');
	return $name;
}

# ends(migration, seconds): start a run that is to end by itself in this time; its row.
sub ends
{
	my ($m, $seconds) = @_;
	my $run = $t->start($m);
	my $end = time() + $seconds;
	my $state;

	do
	{
		sleep 0.1;
		$state = $t->sql("SELECT dvmig.wait($run, '0s')");
	} while ($state =~ /^(starting|running)$/ && time() < $end);
	$t->sql("SELECT dvmig.stop($run)") if $state =~ /^(starting|running)$/;
	$t->sim->sim('DELETE', 'fault');
	$t->finish($run);
	my $row = $t->rows("SELECT * FROM dvmig.run_history WHERE run = $run")->[0];
	$row->{state} = "still running after $seconds s" if $state =~ /^(starting|running)$/;
	return $row;
}

sub row
{
	my ($m, $id) = @_;
	return $t->sql(qq{SELECT concat_ws(' ', s.processing_flag, ok.operation, ok.message, er.error_class)
		FROM $m s LEFT JOIN ${m}_success ok USING (id) LEFT JOIN ${m}_error er USING (id) WHERE s.id = $id});
}

sub record
{
	my ($key) = @_;
	return (grep { ($_->{new_legacyid} // '') eq $key } @{ $t->sim->export('accounts') })[0];
}

# --- a row that throws, and a trigger that will have no errors
{
	my $m = scene('n text', q{SELECT i, CASE i WHEN 3 THEN 'x' ELSE i::text END FROM generate_series(1, 5) i});
	$t->sql(qq{
		SELECT dvmig.map_column('$m', 'name', 'n');
		SELECT dvmig.map_column('$m', 'numberofemployees', 'n::int');
		CREATE FUNCTION never_e() RETURNS trigger LANGUAGE plpgsql AS \$\$
			BEGIN IF NEW.processing_flag = 'E' THEN NEW.processing_flag := 'U'; END IF; RETURN NEW; END \$\$;
		CREATE TRIGGER never_e BEFORE UPDATE ON $m FOR EACH ROW EXECUTE FUNCTION never_e()});
	is(ends($m, 150)->{state}, 'completed', 'a trigger that undoes the flag of a row that throws does not keep a run busy');
	is(row($m, 3), 'U transform', 'its error is recorded');
	is(row($m, 4), 'P I', 'and the other rows are loaded');
}

# --- a loaded row that throws when it is edited stays known as loaded
{
	my $m = scene('n text', q{SELECT i, i::text FROM generate_series(1, 5) i}, q{on_exists => 'error'});
	$t->sql(qq{SELECT dvmig.map_column('$m', 'numberofemployees', 'n::int')});
	my $first = $t->run($m)->{run};
	$t->sql(qq{UPDATE $m SET n = 'x', processing_flag = 'U' WHERE id = 3});
	$t->run($m);
	is(row($m, 3), 'E transform', 'a loaded row that throws fails');
	is($t->sql(qq{SELECT created_run, dataverse_id IS NOT NULL, operation FROM ${m}_error WHERE id = 3}), "$first|t|U",
		'its error keeps the id and the run that created the record');
	$t->sql(qq{UPDATE $m SET n = '33', processing_flag = 'U' WHERE id = 3});
	$t->run($m);
	is(row($m, 3), 'P U', 'corrected, it is an update again');
	is(record(3)->{numberofemployees}, 33, 'which arrives');
	$t->account($m, $m => { numberofemployees => 's.n::int' });
}

# --- deleted, inserted again, refused, corrected
{
	my $m = scene('n text', q{SELECT i, i::text FROM generate_series(1, 3) i});
	$t->sql(qq{SELECT dvmig.map_column('$m', 'name', 'n')});
	$t->run($m);
	$t->sql(qq{UPDATE $m SET action_flag = 'D', processing_flag = 'U' WHERE id = 2});
	$t->run($m);
	is(row($m, 2), 'P D', 'a row is deleted');
	$t->sql(qq{UPDATE $m SET action_flag = 'I', processing_flag = 'U', n = repeat('x', 200) WHERE id = 2});
	$t->run($m);
	is(row($m, 2), 'E length', 'inserted again, it is refused');
	is($t->sql("SELECT created_run IS NULL FROM ${m}_error WHERE id = 2"), 't', 'and no record is said to exist');
	$t->sql(qq{UPDATE $m SET processing_flag = 'U', n = 'short' WHERE id = 2});
	my $run = $t->run($m)->{run};
	is(row($m, 2), 'P I', 'corrected, it is created');
	is($t->sql("SELECT created_run FROM ${m}_success WHERE id = 2"), $run, 'by this run');
	is(record(2)->{name}, 'short', 'as it says');
	is(scalar @{ $t->sim->export('accounts') }, 3, 'once');
}

# --- what is kept stays as it is: no deferred pass, no update by a reload
{
	my $m = scene('n text, up int, own uuid', q{SELECT i, 'ours ' || i, 1, gen_random_uuid() FROM generate_series(1, 3) i},
		q{on_exists => 'keep', ids => 'column', id_column => 'own'});
	$t->sql(qq{SELECT dvmig.map_column('$m', 'name', 'n'); SELECT dvmig.map_lookup('$m', 'parentaccountid', 'up', '$m')});
	my $own = $t->sql("SELECT own FROM $m WHERE id = 3");
	$t->sim->create('accounts', { accountid => $own, name => 'theirs' });
	$t->run($m);
	like(row($m, 3), qr/^P U kept/, 'a record that was there is kept');
	is($t->sql("SELECT s.processing_flag FROM $m s WHERE id = 2"), 'P', 'others get their deferred lookups');
	my ($there) = grep { $_->{accountid} eq $own } @{ $t->sim->export('accounts') };
	is($there->{_parentaccountid_value}, undef, 'the deferred pass leaves it alone');
	$t->sql(qq{UPDATE $m SET processing_flag = 'U'});
	$t->run($m);
	like(row($m, 3), qr/^P U kept/, 'loaded again, it is kept again');
	($there) = grep { $_->{accountid} eq $own } @{ $t->sim->export('accounts') };
	is($there->{name}, 'theirs', 'and is as it was');
}

# --- start() counts what it would write again, although a row throws
{
	my $m = scene('n text', q{SELECT i, i::text FROM generate_series(1, 1300) i});
	$t->sql(qq{SELECT dvmig.map_column('$m', 'numberofemployees', 'n::int')});
	$t->run($m);
	$t->sql(qq{UPDATE $m SET processing_flag = 'U'; UPDATE $m SET n = 'x' WHERE id IN (7, 8, 1200); UPDATE $m SET n = '9' WHERE id = 10});
	my $run = $t->run($m);
	is($run->{state}, 'completed', 'rows that throw do not keep a run from being started');
	is("$run->{unchanged} $run->{failed}", '1296 3', 'they fail in it');
	$t->sql(qq{UPDATE $m SET processing_flag = 'U', n = id + 1; UPDATE $m SET n = 'x' WHERE id IN (7, 20)});
	like($t->error("SELECT dvmig.start('$m')"), qr/1296 rows that are already loaded would be written again/, 'what would be written again is counted without them');
}

# --- a service that reads well and never says what became of a write
{
	my $m = scene('n text', q{SELECT i, i::text FROM generate_series(1, 30) i});
	$t->sql(qq{SELECT dvmig.map_column('$m', 'name', 'n')});
	$t->sql(q{ALTER DATABASE postgres SET dvmig.max_outage = '3s'});
	$t->sim->fault({ match => { path_contains => 'Multiple' }, do => 'garbage', count => 0 });
	my $run = ends($m, 150);
	is($run->{state}, 'failed', 'a run ends where no write is ever answered');
	like($run->{message}, qr/max_outage/, 'and says why');
	is($t->counts($m), '30/30/0/0/0', 'its rows stay unprocessed');
	$run = $t->run($m);
	is($run->{state}, 'completed', 'the next run completes');
	$t->account($m, $m => { name => 's.n' });
	$t->sql(q{ALTER DATABASE postgres RESET dvmig.max_outage});
}

# --- what a run left in doubt stays so until a run has looked at all of it
{
	my $m = scene('n text', q{SELECT i, i::text FROM generate_series(1, 30) i});
	my $clean = "SELECT clean_end FROM dvmig.migration_table WHERE staging = '$m'::regclass";

	$t->sql(qq{SELECT dvmig.map_column('$m', 'name', 'n')});
	$t->sim->fault({ match => { path_contains => 'Multiple' }, do => 'hold', count => 0 });
	my $run = $t->start($m);
	sleep 0.05 until $t->sim->held > 0;
	$t->sql("SELECT pg_terminate_backend(pid) FROM dvmig.run_history WHERE run = $run");
	is($t->finish($run)->{state}, 'interrupted', 'a run is killed');
	$t->sim->sim('DELETE', 'fault');
	sleep 0.05 while $t->sim->stats->{in_flight} > 0;
	is($t->sql($clean), 'f', 'its rows are in doubt');
	$t->run($m, 'max_rows => 1');
	is($t->sql($clean), 'f', 'a run over one of them leaves the others in doubt');
	is($t->run($m)->{state}, 'completed', 'a full run completes');
	is($t->sql($clean), 't', 'and leaves none');
	$t->account($m, $m => { name => 's.n' });
}

# --- a trigger that refuses the flag with a SQLSTATE of its own
{
	my $m = scene('n text', q{SELECT i, i::text FROM generate_series(1, 5) i});
	$t->sql(qq{
		SELECT dvmig.map_column('$m', 'name', 'n');
		CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$
			BEGIN IF NEW.id = 3 THEN RAISE SQLSTATE 'MY001'; END IF; RETURN NEW; END \$\$;
		CREATE TRIGGER refuse BEFORE UPDATE ON $m FOR EACH ROW EXECUTE FUNCTION refuse()});
	my $run = $t->run($m);
	is($run->{state}, 'completed', 'a trigger that raises a SQLSTATE of its own does not end a run');
	is(row($m, 3), 'U I', 'the outcome is recorded');
	is(row($m, 4), 'P I', 'and that of the other rows with their flags');
	like($run->{message}, qr/\b$m: 1 row has its outcome recorded/, 'the run tells of it');
}

# --- names and types
{
	$t->sim->sim('POST', 'reset');
	$t->migration('types');
	$t->sql(q{
		CREATE SCHEMA "Odd "" schema";
		CREATE COLLATION "Odd "" schema".german (provider = libc, locale = 'C')});
	my @keys = (
		[ 'char(8)', q{i::text} ], [ 'varchar(20)', q{'k ' || i} ], [ 'text COLLATE "Odd "" schema".german', q{'ü ' || i} ],
		[ 'numeric(12,3)', 'i + 0.5' ], [ 'timestamptz', q{timestamptz '2020-01-01 00:00:00.000001+00' + i * interval '1 s'} ],
		[ 'timestamp', q{timestamp '2020-01-01' + i * interval '1 s'} ], [ 'date', q{date '2020-01-01' + i} ],
		[ 'uuid', 'md5(i::text)::uuid' ], [ 'bigint', 'i * 10000000000' ], [ 'smallint', 'i' ],
	);
	my $n = 0;
	my %fields;
	for my $key (@keys)
	{
		my ($type, $value) = @$key;
		my $table = '"Odd "" schema"."t ' . ++$n . '"';

		$t->sql(qq{
			CREATE TABLE $table ("s" $type NOT NULL, "e" text, "x" text, "u" int, "n" int, "c" int, "t" text, "p1" $type, "r1" text,
				"select" text GENERATED ALWAYS AS (e || '!') STORED, "dvmig id" text, PRIMARY KEY ("s")) PARTITION BY RANGE ("s");
			CREATE TABLE "Odd "" schema"."part $n" PARTITION OF $table DEFAULT;
			INSERT INTO $table (s, e, x, p1, u) SELECT $value, 'e ' || i, 'x', CASE WHEN i > 1 THEN first_value($value) OVER (ORDER BY i) END, i
				FROM generate_series(1, 12) i;
			SELECT dvmig.add_table('types', '$table', 'account', source_key => '"s"', auto_map => false);
			SELECT dvmig.map_column('$table', 'name', '"select"');
			SELECT dvmig.map_column('$table', 'description', 's.e || "x" || "u"');
			SELECT dvmig.map_lookup('$table', 'parentaccountid', 'p1', '$table')});
		$fields{ $t->sql("SELECT '$table'::regclass") } = {
			name => q{s.e || '!'}, description => 's.e || s.x || s.u',
			_parentaccountid_value => "(SELECT q.dataverse_id FROM $table q WHERE q.s = s.p1)" };
	}
	my $run = $t->run('types');
	is($run->{state}, 'completed', 'tables of every key type, with odd names, are loaded');
	is("$run->{succeeded} $run->{failed}", '120 0', 'all rows of them, counted once');
	$t->account('types', %fields);
	$run = $t->run('types');
	is($run->{rows_sent}, 0, 'nothing is sent again');
	for my $table (keys %fields)
	{
		$t->sql(qq{UPDATE $table SET processing_flag = 'U'; UPDATE $table SET e = 'new' WHERE u = 5});
	}
	$run = $t->run('types');
	is("$run->{unchanged} $run->{succeeded}", '110 120', 'of rows flagged again only those that changed are sent');
	$t->account('types', %fields);
}

done_testing();

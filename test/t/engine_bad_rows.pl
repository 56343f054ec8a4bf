# Rows that throw, rows that cannot be sent, keys of several columns, names of
# every kind and partitioned staging tables: each row its own verdict, the
# others are not held up
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use DvMig;

my $t = DvMig->new(name => 'bad_rows');
my $scenes = 0;
my $run;
my $l;

$t->sql(q{ALTER DATABASE postgres SET dvmig.settle_time = '300ms'});
$t->sql('CREATE SCHEMA staging');

# scene(columns, rows as a query, options of add_table): a migration to
# accounts of one staging table, with a fresh Dataverse; the table's name.
sub scene
{
	my ($columns, $rows, $options) = @_;
	my $m = 'm' . ++$scenes;

	$t->sim->sim('POST', 'reset');
	$t->sql("CREATE TABLE staging.$m ($columns); INSERT INTO staging.$m $rows");
	$t->migration($m, tables => 'account,contact');
	$t->sql("SELECT dvmig.add_table('$m', 'staging.$m', 'account', auto_map => false" . ($options ? ", $options" : ", source_key => 'id'") . ')');
	return $m;
}

sub counts { my ($m) = @_; return $t->counts("staging.$m"); }

# ---------------------------------------------------------- expressions that throw

# Which rows of 1000 throw, and how: every pattern must leave the others alone.
for my $pattern (
	[ 'the first row', 'id = 1' ], [ 'the last row', 'id = 1000' ], [ 'neighbours', 'id BETWEEN 500 AND 507' ],
	[ 'every tenth row', 'id % 10 = 3' ], [ 'a random third', 'abs(hashint4(id)) % 3 = 0' ], [ 'every row', 'true' ])
{
	my ($what, $which) = @$pattern;

	$l = "throws: $what";
	my $m = scene('id int PRIMARY KEY, name text, n text', qq{SELECT id, 'Row ' || id, CASE WHEN $which THEN 'not a number' ELSE id::text END FROM generate_series(1, 1000) id});
	my $bad = $t->sql("SELECT count(*) FROM staging.$m WHERE n = 'not a number'");
	$t->sql(qq{SELECT dvmig.map_column('staging.$m', 'name', 'name'); SELECT dvmig.map_column('staging.$m', 'numberofemployees', 'n::int')});
	$run = $t->run($m);
	is($run->{state}, 'completed', "$l: the run completes");
	is(counts($m), join('/', 1000, 0, 1000 - $bad, $bad, 0), "$l: exactly those fail");
	is($t->sql("SELECT string_agg(DISTINCT concat_ws(' ', error_class, code, error_column), ',') FROM staging.${m}_error"), 'transform 22P02 numberofemployees',
		"$l: with class, code and column");
	is($t->sql("SELECT count(*) FROM staging.${m}_error WHERE id NOT IN (SELECT id FROM staging.$m WHERE n = 'not a number')"), 0, "$l: and no other");
	$t->account($m, "staging.$m" => { name => 's.name', numberofemployees => 's.n' });
	$t->sql(qq{UPDATE staging.$m SET n = id WHERE n = 'not a number'; SELECT dvmig.retry('staging.$m')});
	is($t->run($m)->{state}, 'completed', "$l: corrected");
	is(counts($m), '1000/0/1000/0/0', "$l: all are done");
	$t->account($m, "staging.$m" => { name => 's.name', numberofemployees => 's.n' });
}

# Errors of every class that is a row's fault, raised by a function of the user.
$l = 'raised';
{
	my $m = scene('id int PRIMARY KEY, code text', q{SELECT row_number() OVER (), c FROM unnest('{ok,22012,23505,P0001,39000,2F002,21000,54000,ok}'::text[]) c});
	$t->sql(qq{
		CREATE FUNCTION staging.raise(code text) RETURNS text LANGUAGE plpgsql AS \$\$
			BEGIN IF code <> 'ok' THEN RAISE 'raised' USING ERRCODE = code; END IF; RETURN code; END\$\$;
		SELECT dvmig.map_column('staging.$m', 'name', 'staging.raise(code)')});
	is($t->run($m)->{state}, 'completed', "$l: the run completes");
	is(counts($m), '9/0/2/7/0', "$l: each row has its own verdict");
	is($t->sql("SELECT count(*) FROM staging.$m JOIN staging.${m}_error e USING (id) WHERE e.code <> staging.$m.code"), 0, "$l: and its code");
	# what is not a row's fault ends the run, and no row is blamed
	$t->{quiet} = 1;
	$t->sql(qq{UPDATE staging.$m SET processing_flag = 'U'; UPDATE staging.$m SET code = '53100' WHERE id = 1});
	$run = $t->run($m);
	is($run->{state}, 'failed', "$l: a fault of the server ends the run");
	like($run->{message}, qr/SQLSTATE 53100/, "$l: which says why");
	is(counts($m), '9/9/0/0/0', "$l: and blames no row");
	$t->sql(qq{UPDATE staging.$m SET code = 'ok'});
	is($t->run($m)->{state}, 'completed', "$l: the next one goes on");
	is(counts($m), '9/0/9/0/0', "$l: and all are done");
	$t->account($m, "staging.$m" => { name => 's.code' });
	delete $t->{quiet};
}

# A row so wide that a batch of them is more than one request may carry.
$l = 'wide';
{
	my $m = scene('id int PRIMARY KEY, text text', q{SELECT id, repeat(chr(945), 2000) FROM generate_series(1, 300) id});
	$t->sim->set(max_body => 200000);
	$t->sql(qq{SELECT dvmig.map_column('staging.$m', 'name', 'id::text'); SELECT dvmig.map_column('staging.$m', 'description', 'text')});
	is($t->run($m)->{state}, 'completed', "$l: the run completes");
	is(counts($m), '300/0/300/0/0', "$l: all are done");
	$t->account($m, "staging.$m" => { description => 's.text' });
	$t->sim->set(profile => 'strict');
}

# ------------------------------------------------------- keys of several columns

my @parts = (
	[ 'int', q{-3 + i}, q{i * 70} ], [ 'bigint', q{9223372036854775000 + i}, q{i} ], [ 'smallint', q{(i - 20)::smallint}, q{i::smallint} ],
	[ 'numeric', q{i / 7.0}, q{i * 1e20} ], [ 'text', q{E'a''"\\\\\n' || i}, q{CASE WHEN i = 1 THEN '' ELSE U&'\00fc\+01F600' || i END} ],
	[ 'varchar(20)', q{'v' || i}, q{'w' || i} ], [ 'char(6)', q{i::text}, q{'c' || i} ], [ 'uuid', q{md5(i::text)::uuid}, q{md5('x' || i)::uuid} ],
	[ 'date', q{date '0044-03-15 BC' + i}, q{date '2024-02-29' + i} ], [ 'timestamp', q{timestamp '1999-12-31 23:59:59.999999' + i * interval '1 us'}, q{timestamp '2000-01-01' + i * interval '1 day'} ],
	[ 'timestamptz', q{timestamptz '2024-03-31 01:59:59+01' + i * interval '1 us'}, q{timestamptz '2024-10-27 01:00:00+00' + i * interval '1 min'} ],
	[ 'boolean', q{i % 2 = 0}, q{i % 3 = 0} ],
);
for my $i (0 .. $#parts)
{
	my ($first, $second) = @parts[ $i, ($i + 5) % @parts ];

	$l = "key ($first->[0], $second->[0])";
	# two columns in an order of their own, the same values in many rows of each
	my $m = scene(qq{"B" $first->[0], a $second->[0], i int, up_a $second->[0], up_b $first->[0], PRIMARY KEY (a, "B", i)},
		qq{SELECT $first->[1], s.a, i, s.a, $first->[1] FROM generate_series(1, 40) i, LATERAL (SELECT $second->[2] AS a FROM generate_series(i / 3, i / 3) AS g(i)) s},
		q{source_key => 'a, "B", i'});
	$t->sql(qq{
		SELECT dvmig.map_column('staging.$m', 'name', q.e) FROM (VALUES ('i::text')) q(e);
		SELECT dvmig.map_lookup('staging.$m', 'parentaccountid', 'up_a, up_b, i', 'staging.$m')});
	is($t->run($m)->{state}, 'completed', "$l: the run completes");
	is(counts($m), '40/0/40/0/0', "$l: all are done");
	my %fields = (name => 's.i::text', _parentaccountid_value => 's.dataverse_id');
	$t->account($m, "staging.$m" => \%fields);
	$t->sql(qq{UPDATE staging.$m SET processing_flag = 'U'; UPDATE staging.$m SET i = i + 1000 WHERE i = 5});
	$run = $t->run($m);
	is("$run->{state}/$run->{unchanged}", 'completed/39', "$l: again, all but one unchanged");
	$t->account($m, "staging.$m" => { name => 's.i::text' });
}

# ------------------------------------------------------------------------- names

$l = 'names';
{
	my $long = 'Ä' x 31 . 'x';
	my $table = qq{"Sch ""ema"."$long"};
	my $column = 'Spalte mit "Anführung", Punkt. 😀';
	(my $quoted = $column) =~ s/"/""/g;

	is(length $long, 63, "$l: 63 bytes");
	$t->sim->sim('POST', 'reset');
	$t->migration('names');
	$t->sql(qq{
		CREATE SCHEMA "Sch ""ema";
		CREATE TABLE $table ("$quoted" int PRIMARY KEY, "a.b" text, "select" text, "dvmig id" text, s text, "\$1" int);
		INSERT INTO $table SELECT i, 'n ' || i, 'x', 'y', 'z', i FROM generate_series(1, 250) i;
		SELECT dvmig.add_table('names', '$table', 'account', source_key => '"$quoted"', auto_map => false);
		SELECT dvmig.map_column('$table', 'name', '"a.b"');
		SELECT dvmig.map_column('$table', 'description', '"select" || "dvmig id" || s');
		SELECT dvmig.map_lookup('$table', 'parentaccountid', '"\$1"', '$table')});
	is($t->run('names')->{state}, 'completed', "$l: the run completes");
	is($t->sql(q{SELECT concat_ws('/', staged, unprocessed, succeeded, failed) FROM dvmig.status WHERE migration = 'names'}), '250/0/250/0', "$l: all are done");
	is($t->sql(qq{SELECT count(*), bool_and(octet_length(relname::text) BETWEEN 60 AND 63), count(DISTINCT relname) FROM pg_class WHERE relnamespace = '"Sch ""ema"'::regnamespace AND relkind = 'r'}),
		'3|t|3', "$l: outcome tables have names of their own");
	is(scalar(grep { $_->{name} =~ /^n \d+$/ && $_->{description} eq 'xyz' && ($_->{_parentaccountid_value} // '') eq $_->{accountid} } @{ $t->sim->export('accounts') }),
		250, "$l: Dataverse holds them");
}

# ------------------------------------------------------------ partitioned tables

# By a flag: a row moves to another partition with its verdict.
$l = 'partitioned by flag';
{
	my $m = 'm' . ++$scenes;
	$t->sim->sim('POST', 'reset');
	$t->sql(qq{
		CREATE TABLE staging.$m (id int, name text, n text, processing_flag char(1) NOT NULL DEFAULT 'U') PARTITION BY LIST (processing_flag);
		CREATE TABLE staging.${m}_todo PARTITION OF staging.$m FOR VALUES IN ('U');
		CREATE TABLE staging.${m}_done PARTITION OF staging.$m DEFAULT});
	$t->migration($m);
	my $error = $t->error("SELECT dvmig.add_table('$m', 'staging.$m', 'account', source_key => 'id')");
	like($error, qr/unique/, "$l: a key that cannot be unique across partitions is refused");
}

$l = 'partitioned';
for my $by ('RANGE (id)', 'HASH (id)', 'LIST (id)')
{
	my $m = 'm' . ++$scenes;
	my ($kind) = $by =~ /^(\w+)/;
	$l = "partitioned by $kind";
	$t->sim->sim('POST', 'reset');
	$t->sql("CREATE TABLE staging.$m (filler text, id int, name text, n text, PRIMARY KEY (id)) PARTITION BY $by");
	$t->sql($kind eq 'RANGE' ? qq{
			CREATE TABLE staging.${m}_1 PARTITION OF staging.$m FOR VALUES FROM (MINVALUE) TO (300);
			CREATE TABLE staging.${m}_2 (n text, name text, id int NOT NULL, filler text);
			ALTER TABLE staging.$m ATTACH PARTITION staging.${m}_2 FOR VALUES FROM (300) TO (600);
			CREATE TABLE staging.${m}_3 PARTITION OF staging.$m FOR VALUES FROM (600) TO (MAXVALUE) PARTITION BY HASH (id);
			CREATE TABLE staging.${m}_31 PARTITION OF staging.${m}_3 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
			CREATE TABLE staging.${m}_32 PARTITION OF staging.${m}_3 FOR VALUES WITH (MODULUS 2, REMAINDER 1)}
		: $kind eq 'HASH' ? qq{
			CREATE TABLE staging.${m}_1 PARTITION OF staging.$m FOR VALUES WITH (MODULUS 2, REMAINDER 0);
			CREATE TABLE staging.${m}_2 PARTITION OF staging.$m FOR VALUES WITH (MODULUS 2, REMAINDER 1)}
		: qq{CREATE TABLE staging.${m}_1 PARTITION OF staging.$m FOR VALUES IN (1, 2, 3);
			CREATE TABLE staging.${m}_2 PARTITION OF staging.$m DEFAULT});
	$t->sql("INSERT INTO staging.$m SELECT 'f', i, 'Row ' || i, i FROM generate_series(1, 900) i");
	$t->sql("UPDATE staging.$m SET n = 'not a number' WHERE id IN (2, 450, 899)");
	$t->migration($m);
	$t->sql(qq{
		SELECT dvmig.add_table('$m', 'staging.$m', 'account', source_key => 'id', auto_map => false);
		SELECT dvmig.map_column('staging.$m', 'name', 'name'); SELECT dvmig.map_column('staging.$m', 'numberofemployees', 'n::int')});
	$run = $t->run($m);
	is($run->{state}, 'completed', "$l: the run completes");
	is(counts($m), '900/0/897/3/0', "$l: the bad rows fail");
	my %fields = ("staging.$m" => { name => 's.name', numberofemployees => 's.n' });
	$t->account($m, %fields);
	$t->sql(qq{UPDATE staging.$m SET n = id WHERE n = 'not a number'; SELECT dvmig.retry('staging.$m'); UPDATE staging.$m SET processing_flag = 'U', name = name || '*' WHERE id % 2 = 0});

	# rows that move to another partition while their request is on its way
	$t->sim->fault({ match => { method => 'POST', path_contains => 'Multiple' }, do => 'hold', count => 0, after => JSON::PP::true });
	my $r = $t->start($m);
	$t->wait_for("SELECT in_flight > 0 FROM dvmig.run_history WHERE run = $r");
	$t->sql("UPDATE staging.$m SET name = name || '+' WHERE id BETWEEN 10 AND 20 AND id % 2 = 0; UPDATE staging.$m SET id = id + 5000 WHERE id IN (30, 32)");
	$t->sim->sim('DELETE', 'fault');
	is($t->finish($r)->{state}, 'completed', "$l: edited in flight");
	is(counts($m), '900/0/900/0/0', "$l: all are done");
	$t->account($m, %fields);
	is($t->sim->counters('accounts')->{creates}, 900, "$l: nothing was created twice");

	# a partition that is taken away, and comes back
	$t->sql("ALTER TABLE staging.$m DETACH PARTITION staging.${m}_2");
	is($t->run($m)->{state}, 'completed', "$l: a partition is detached");
	$t->sql("UPDATE staging.${m}_2 SET processing_flag = 'U'");
	$t->sql("ALTER TABLE staging.$m ATTACH PARTITION staging.${m}_2 "
		. ($kind eq 'RANGE' ? 'FOR VALUES FROM (300) TO (600)' : $kind eq 'HASH' ? 'FOR VALUES WITH (MODULUS 2, REMAINDER 1)' : 'DEFAULT'));
	$run = $t->run($m);
	is("$run->{state}/$run->{rows_sent}", 'completed/0', "$l: and attached again: nothing is sent");
	is(counts($m), '900/0/900/0/0', "$l: all are done");
	$t->account($m, %fields);
}
$t->sim->stop;
$t->node->stop('immediate');

done_testing();

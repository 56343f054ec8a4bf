# Tables that are no longer as dvmig made or took them, keys that became null among
# them: what reads them says so, and no process of the server comes to harm.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use PostgreSQL::Test::Utils;
use Test::More;

use DvMig;

my $t = DvMig->new(name => 'shapes', conf => "restart_after_crash = on\ndvmig.settle_time = 300ms\n");

$t->sql(q{CREATE SCHEMA staging});
$t->migration('m', tables => 'account');

# Each kind of key is walked in another way: by value, by reference, several.
my %keys = (
	number => [ 'k int', 'k', 'i' ],
	word => [ 'k text', 'k', q{'k' || i} ],
	pair => [ 'k int, j text', 'k,j', q{i, 'j' || i} ]);

for my $kind (sort keys %keys)
{
	my ($columns, $key, $values) = @{ $keys{$kind} };
	my $table = "staging.$kind";
	my $names = qr/source key column "\w" of staging\.$kind or of its outcome tables is null in a row/;

	$t->sql(qq{
		CREATE TABLE $table ($columns, name text, PRIMARY KEY ($key));
		INSERT INTO $table SELECT $values, 'Company ' || i FROM generate_series(0, 29) i;
		SELECT dvmig.add_table('m', '$table', 'account', source_key => '$key', auto_map => false);
		SELECT dvmig.map_column('$table', 'name', 'name')});
	my $first = $t->run('m')->{run};

	# ------------------------------------------------------------ in the staging table
	$t->sql("ALTER TABLE $table DROP CONSTRAINT ${kind}_pkey");
	$t->sql("ALTER TABLE $table ALTER $_ DROP NOT NULL") for split /,/, $key;
	$t->sql("INSERT INTO $table (name) VALUES ('Nobody')");
	is($t->sql(q{SELECT concat_ws(' ', severity, staging, hint) FROM dvmig.check('m') WHERE rule = 'key_unguarded'}),
		"warning $table Make columns " . join(', ', split /,/, $key) . ' NOT NULL, and give them a unique index of their own in this order.', "$kind: a check says that nothing guards the key");
	like($t->ended($t->run('m')), qr/^failed: .*$names/s, "$kind: a run does not take a row whose key is null for another");
	is($t->counts($table), '31/1/30/0/0', "$kind: and no row loses its outcome");
	$t->sql("UPDATE $table SET processing_flag = 'P' WHERE k IS NULL");
	like($t->ended($t->job(q{dvmig.verify('m')})), qr/^failed: .*$names/s, "$kind: nor does a verification");
	like($t->ended($t->job("dvmig.rebuild_outcomes('$table')")), qr/^failed: .*$names/s, "$kind: nor where outcomes are made anew");
	$t->sql(qq{DELETE FROM $table WHERE k IS NULL; ALTER TABLE $table ADD CONSTRAINT ${kind}_pkey PRIMARY KEY ($key)});
	is($t->ended($t->run('m')), 'completed: ', "$kind: without it a run completes");

	# ------------------------------------------------------------ in the outcome tables
	$t->sql("ALTER TABLE ${table}_success DROP CONSTRAINT ${kind}_success_pkey");
	$t->sql("ALTER TABLE ${table}_success ALTER $_ DROP NOT NULL") for split /,/, $key;
	$t->sql("INSERT INTO ${table}_success (dataverse_id, operation, pass, created_run, run) VALUES (gen_random_uuid(), 'I', 'write', $first, $first)");
	like($t->ended($t->job(q{dvmig.verify('m')})), qr/^failed: .*$names/s, "$kind: a verification says so of an outcome");
	like($t->ended($t->job("dvmig.undo($first)")), qr/^failed: .*$names/s, "$kind: an undo says so, too");
	$t->sql(qq{DELETE FROM ${table}_success WHERE k IS NULL; ALTER TABLE ${table}_success ADD CONSTRAINT ${kind}_success_pkey PRIMARY KEY ($key)});
}

# ------------------------------------------------------------------ columns of another type

$t->sql(q{
	CREATE TABLE staging.typed (k int PRIMARY KEY, name text);
	INSERT INTO staging.typed SELECT i, 'Firm ' || i FROM generate_series(1, 30) i;
	SELECT dvmig.add_table('m', 'staging.typed', 'account', source_key => 'k', auto_map => false);
	SELECT dvmig.map_column('staging.typed', 'name', 'name')});
my $run = $t->run('m')->{run};
for my $case (
	# column, another type, back
	[ 'content_hash', 'uuid USING gen_random_uuid()', 'bytea USING NULL', 'bytea' ],
	[ 'content_hash', 'int USING 5', 'bytea USING NULL', 'bytea' ],
	[ 'created_run', 'numeric', 'bigint', 'bigint' ],
	[ 'dataverse_id', 'text', 'uuid USING dataverse_id::uuid', 'uuid' ])
{
	my ($column, $type, $back, $name) = @$case;
	my $says = qr/column "$column" of the tables beside staging\.typed has type \w+ instead of $name|COALESCE types|operator does not exist: uuid = text/;
	my $both = sub { $t->sql("ALTER TABLE staging.typed_$_ ALTER $column TYPE $_[0]") for $column eq 'content_hash' ? 'success' : qw(success error); };

	$both->($type);
	$t->sql(q{UPDATE staging.typed SET name = name || '!', processing_flag = 'U' WHERE k < 10});
	like($t->ended($t->run('m', 'resend => true')), qr/^failed: .*$says/s, "$column as $type: a run says so");
	like($t->ended($t->job(q{dvmig.verify('m')})), qr/^failed: .*$says/s, "$column as $type: a verification says so");
	like($t->ended($t->job("dvmig.undo($run)")), qr/^failed: .*$says/s, "$column as $type: an undo says so") if $column eq 'dataverse_id';
	$both->($back);
	is($t->ended($t->run('m', 'resend => true')), 'completed: ', "$column as $type: and all is well again with the old one");
}
$t->account('m', map { ("staging.$_" => { name => 's.name' }) } (sort keys %keys), 'typed');

# ------------------------------------------------------------------ rules of outcome tables

$t->sql(q{
	CREATE TABLE staging.ruled (k int PRIMARY KEY, name text);
	INSERT INTO staging.ruled SELECT i, CASE WHEN i = 7 THEN repeat('x', 500) ELSE 'Ruled ' || i END FROM generate_series(1, 30) i;
	CREATE TABLE staging.log (k int);
	SELECT dvmig.create_migration('ruled', 'sim');
	SELECT dvmig.add_table('ruled', 'staging.ruled', 'account', source_key => 'k', auto_map => false);
	SELECT dvmig.map_column('staging.ruled', 'name', 'name')});
for my $rule ('INSERT TO staging.ruled_success DO ALSO INSERT INTO staging.log VALUES (NEW.k)', 'UPDATE TO staging.ruled_success DO INSTEAD NOTHING',
	'INSERT TO staging.ruled_success WHERE NEW.k = 3 DO INSTEAD NOTHING', 'INSERT TO staging.ruled_error DO INSTEAD NOTHING', 'DELETE TO staging.ruled_error DO INSTEAD NOTHING')
{
	my ($table) = $rule =~ /(staging\.\w+)/;
	my $requests = $t->sim->stats->{requests};

	$t->sql("CREATE RULE r AS ON $rule");
	is($t->sql(q{SELECT concat_ws(' ', severity, message) FROM dvmig.check('ruled') WHERE rule = 'outcome_rule'}),
		"error outcome tables have rules, with which no outcome can be recorded: r of $table", "$rule: a check says so");
	like($t->ended($t->run('ruled')), qr/^failed: .*the outcome tables of staging\.ruled must not have rules: r of \Q$table\E/, "$rule: a run says so");
	is($t->counts('staging.ruled'), '30/30/0/0/0', "$rule: before a row has gone");
	$t->sql("DROP RULE r ON $table");
}
$t->sql('CREATE RULE r AS ON DELETE TO staging.ruled_error DO ALSO NOTIFY gone');
is($t->ended($t->run('ruled', 'ignore_gate => true')) . $t->counts('staging.ruled'), 'completed: 30/0/29/1/0', 'a rule that changes nothing is borne');
$t->sim->fault({ match => { path_contains => 'accounts', method => 'POST', count => 1 }, do => 'hold' });
$t->sql(q{DROP RULE r ON staging.ruled_error; UPDATE staging.ruled SET name = name || '!', processing_flag = 'U' WHERE k <> 7});
$run = $t->start('ruled', 'resend => true');
$t->until('a request is held', sub { $t->sim->held > 0 });
$t->sql('CREATE RULE r AS ON DELETE TO staging.ruled_error DO INSTEAD NOTHING');
$t->sim->sim('DELETE', 'fault');
like($t->ended($t->finish($run)), qr/^failed: .*(a rule does something else|must not have rules)/, 'one that is made in mid-run fails its table');
$t->sql('DROP RULE r ON staging.ruled_error');
is($t->ended($t->run('ruled', 'resend => true')) . $t->counts('staging.ruled'), 'completed: 30/0/29/1/0', 'and without it all is well');

# ------------------------------------------------------------------ tables that others point at

$t->sql(q{
	CREATE TABLE staging.firms (k int PRIMARY KEY, name text);
	CREATE TABLE staging.branches (k int PRIMARY KEY, name text, firm int);
	INSERT INTO staging.firms SELECT i, 'Firm ' || i FROM generate_series(1, 5) i;
	INSERT INTO staging.branches SELECT i, 'Branch ' || i, i FROM generate_series(1, 5) i;
	SELECT dvmig.create_migration('n', 'sim');
	SELECT dvmig.add_table('n', 'staging.firms', 'account', source_key => 'k', auto_map => false);
	SELECT dvmig.map_column('staging.firms', 'name', 'name');
	SELECT dvmig.add_table('n', 'staging.branches', 'account', source_key => 'k', auto_map => false);
	SELECT dvmig.map_column('staging.branches', 'name', 'name');
	SELECT dvmig.map_lookup('staging.branches', 'parentaccountid', 'firm', 'staging.firms')});
is($t->ended($t->run('n')), 'completed: ', 'a table that another one points at: loaded');
my $firms = $t->sql(q{SELECT 'staging.firms'::regclass::oid});
$t->sql(q{DROP TABLE staging.firms; UPDATE staging.branches SET name = name || '!', processing_flag = 'U' WHERE k = 1});
my $lost = qr/column map "parentaccountid" of staging\.branches points at a staging table that has been dropped/;
like($t->sql(q{SELECT string_agg(concat_ws(' ', severity, staging, rule, message), E'\n') FROM dvmig.check('n')}),
	qr/error staging\.branches unreadable .*$lost/, 'dropped: a check says so, of the table that points at it');
like($t->error(q{SELECT dvmig.preview('staging.branches')}), qr/42P01: $lost.*unmap/s, 'dropped: a preview says so');
like($t->error(q{SELECT dvmig.plan('n')}), qr/42P01: staging table with OID $firms does not exist.*drop_table\('$firms'\)/s, 'dropped: a plan says what to do');
like($t->ended($t->job(q{dvmig.verify('n', 'staging.branches')})), qr/^failed: .*$lost/s, 'dropped: a verification says so');
like($t->ended($t->run('n', 'resend => true')), qr/^failed: .*staging table with OID $firms does not exist/s, 'dropped: a run says so');
$t->sql(qq{SELECT dvmig.unmap('staging.branches', 'parentaccountid'); SELECT dvmig.drop_table('$firms')});
is($t->ended($t->run('n', 'resend => true')), 'completed: ', 'dropped: and goes on once it has been taken out');
is($t->counts('staging.branches'), '5/0/5/0/0', 'dropped: no row is lost');

# ------------------------------------------------------------------ a role that was dropped

$t->sql(q{
	CREATE ROLE mover;
	GRANT USAGE ON FOREIGN SERVER sim TO mover;
	SELECT dvmig.grant_owner('mover');
	CREATE TABLE staging.moved (k int PRIMARY KEY, name text);
	GRANT USAGE, CREATE ON SCHEMA staging TO mover;
	ALTER TABLE staging.moved OWNER TO mover;
	SET ROLE mover;
	SELECT dvmig.create_migration('o', 'sim');
	SELECT dvmig.add_table('o', 'staging.moved', 'account', source_key => 'k', auto_map => false);
	SELECT dvmig.map_column('staging.moved', 'name', 'name');
	RESET ROLE;
	REASSIGN OWNED BY mover TO CURRENT_USER; DROP OWNED BY mover; DROP ROLE mover});
for my $call (q{dvmig.preview('staging.moved')}, q{dvmig.plan('o')}, q{dvmig.map_column('staging.moved', 'name', 'upper(name)')}, q{dvmig.start('o')})
{
	like($t->error("SELECT $call"), qr/42704: role .*does not exist|no user mapping/, "of a dropped role's migration, $call says so");
}
isnt($t->sql(q{SELECT count(*) FROM dvmig.export('o')}), '0', 'what it defined can be taken along');
like($t->sql(q{SELECT dvmig.drop_migration('o')}), qr/is dropped/, 'and be dropped');

# ------------------------------------------------------------------ names and times that nobody has

$t->sql('CREATE TABLE staging.named ("dvmig id" int PRIMARY KEY, name text)');
like($t->error(q{SELECT dvmig.add_table('m', 'staging.named', 'account', source_key => '"dvmig id"')}), qr/42939: source key column "dvmig id" bears a name/, 'a name that statements of dvmig use is refused');
my $first_run = $t->sql(q{SELECT min(run) FROM dvmig.run_history});
for my $time ('178000000 years', '-178000000 years')
{
	is($t->sql("SELECT dvmig.wait($first_run, '$time')"), 'completed', "a run that has ended is not waited for, $time or not");
}

# Superusers alone can call what is inside: with nothing, or in the name of nobody.
for my $call (q{_fetch_records(NULL, NULL, NULL, NULL, NULL)}, q{_service_call(NULL, NULL, NULL, NULL, NULL)})
{
	like($t->error("SELECT dvmig.$call"), qr/22004: argument 1 of an internal function is null/, "$call is refused");
}
like($t->error(q{SELECT dvmig._query_as(0, 'SELECT 1')}), qr/42704: role with OID 0 does not exist/, 'nobody is no role');

unlike(slurp_file($t->node->logfile), qr/PANIC|TRAP|terminated by signal|cache lookup failed|XX000/, 'no process of the server came to harm');

done_testing();

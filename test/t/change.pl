# Definitions that change: records adopted, a rehearsal followed by the real
# thing, and a database that was dumped and restored
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use PostgreSQL::Test::Utils;
use Test::More;

use DvMig;

my $t = DvMig->new(name => 'change');
my %fields = (name => 's.name', accountnumber => 's.code');

# --------------------------------------------------------------------- adopt
my %there = map { $_->{name} => $_->{accountid} } map { $t->sim->create('accounts', $_) } (
	{ name => 'one', accountnumber => 'A1' },
	{ name => 'two', accountnumber => 'A2' },
	{ name => 'two again', accountnumber => 'A2' },
	{ name => 'three', accountnumber => 'a3' },
	{ name => 'double', accountnumber => 'D1' });
$t->sql(q{
	CREATE SCHEMA staging;
	CREATE TABLE staging.a (id int PRIMARY KEY, code text, name text);
	INSERT INTO staging.a VALUES (1, 'A1', 'new one'), (2, 'A2', 'new two'), (3, 'A3', 'new three'), (4, 'A4', 'new four'),
		(5, 'D1', 'double one'), (6, 'D1', 'double two'), (7, NULL, 'new seven')});
$t->migration('m', tables => 'account');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.a', 'account');
	SELECT dvmig.map_column('staging.a', 'accountnumber', 'code')});
like($t->error(q{SELECT dvmig.adopt('staging.a', 'sic')}), qr/no map fills column "sic"/, 'adopt needs a mapped column');
is_deeply($t->rows(q{SELECT * FROM dvmig.adopt('staging.a', 'accountnumber')}),
	[ { adopted => 2, ambiguous => 3, absent => 2, ambiguous_keys => [ '2', '5', '6' ] } ],
	'adopt tells adopted, ambiguous and absent rows');
is($t->sql(q{SELECT string_agg(id || '=' || dataverse_id, ' ' ORDER BY id) FROM staging.a WHERE dataverse_id IS NOT NULL}),
	"1=$there{one} 3=$there{three}", 'and fills the ids of certain ones');
is($t->sql(q{SELECT adopted || '/' || ambiguous || '/' || absent FROM dvmig.adopt('staging.a', 'accountnumber')}), '0/3/2',
	'a second time it finds nothing new');
my $run = $t->run('m');
is($run->{state}, 'completed', 'the run completes');
is($t->counts('staging.a'), '7/0/7/0/0', 'all rows succeed');
$t->account('m', 'staging.a' => \%fields, -extra => { accounts => 3 });
is(scalar(@{ $t->sim->export('accounts') }), 10, 'adopted records were not made again');

# ------------------------------------------- a rehearsal, then the real thing
my $rehearsed = $t->sim;
$t->{sim} = DvMig::Sim->start;
$t->server('prod');
like($t->sql(q{SELECT dvmig.retarget('m', 'prod')}), qr/7 rows reset/, 'retarget resets the rows');
is($t->counts('staging.a'), '7/7/0/0/0', 'all rows are unprocessed');
is($t->sql('SELECT count(*) FROM staging.a WHERE dataverse_id IS NOT NULL'), 0, 'ids of the old server are forgotten');
is($t->sql('SELECT count(*) FROM staging.a_success_sim'), 7, 'what it said is kept under its name');
$run = $t->run('m');
is($run->{state}, 'completed', 'the run to the other server completes');
is($run->{server}, 'prod', 'and goes there');
$t->account('m', 'staging.a' => \%fields);
is(scalar(@{ $rehearsed->export('accounts') }), 10, 'the first server was left alone');

# -------------------------------------------------------- edits of choices and users
$t->sql(q{
	CREATE ROLE mapper;
	GRANT mapper TO postgres;
	SELECT dvmig.grant_owner('mapper');
	INSERT INTO dvmig.choice_map (migration_id, target_table, target_column, source_text, target_value) SELECT migration_id, 'account', c, v, 1
		FROM dvmig.migration, (VALUES ('industrycode', 'secret a'), ('industrycode', 'secret b'), ('customertypecode', 'secret c')) v (c, v);
	UPDATE dvmig.choice_map SET target_value = 2 WHERE source_text = 'secret a';
	DELETE FROM dvmig.choice_map WHERE source_text = 'secret c';
	DELETE FROM dvmig.choice_map WHERE source_text = 'not there';
	INSERT INTO dvmig.user_map (migration_id, source_user, target) SELECT migration_id, 'secret d', 'user1@example.org' FROM dvmig.migration;
	INSERT INTO dvmig.user_map (migration_id, source_user, target) SELECT migration_id, 'secret d', 'user2@example.org' FROM dvmig.migration
		ON CONFLICT (migration_id, source_user) DO UPDATE SET target = excluded.target});
is($t->sql(q{SELECT string_agg(concat_ws(' ', role, kind, object, detail ->> 'operation', detail ->> 'rows'), ', ' ORDER BY event_id) FROM dvmig.event
		WHERE kind IN ('choice_map', 'user_map')}),
	join(', ', map { "postgres $_" } 'choice_map account.customertypecode insert 1', 'choice_map account.industrycode insert 2', 'choice_map account.industrycode update 1',
		'choice_map account.customertypecode delete 1', 'user_map systemuser insert 1', 'user_map systemuser update 1'),
	'edits of choices and users are noted, by whom and how many');
is($t->sql(q{SELECT count(*) FROM dvmig.event WHERE event::text LIKE '%secret%'}), 0, 'without what they say');
$t->sql(q{UPDATE dvmig.migration SET owner = 'mapper'; SET ROLE mapper; DELETE FROM dvmig.choice_map WHERE source_text = 'secret b'; RESET ROLE;
	UPDATE dvmig.migration SET owner = 'postgres'});
is($t->sql(q{SELECT concat_ws(' ', role, kind, object, detail ->> 'operation') FROM dvmig.event ORDER BY event_id DESC LIMIT 1}), 'mapper choice_map account.industrycode delete',
	'the role that is current is named');
like($t->error(q{SET ROLE mapper; SELECT dvmig._log(1, 'm', 'x', 'y')}), qr/permission denied/, 'and nobody can note what he likes');

# ------------------------------------------------------------ dump and restore
$t->sql(q{
	CREATE TABLE staging.gone (id int PRIMARY KEY, name text);
	SELECT dvmig.add_table('m', 'staging.gone', 'account');
	DROP TABLE staging.gone});
my $dump = $t->node->backup_dir . '.dump';
$t->node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $t->node->connstr('postgres') ], 'dump');
$t->sql('CREATE DATABASE restored TEMPLATE template0');
$t->node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $t->node->connstr('restored'), $dump ],
	'restore, although a staging table is gone');
my $events = $t->sql('SELECT count(*) FROM dvmig.event');
is($t->node->safe_psql('restored', 'SELECT count(*) FROM dvmig.event'), $events, 'a restore notes nothing of its own');
my $plain = $t->node->backup_dir . '.sql';
$t->node->command_ok([ 'pg_dump', '-f', $plain, '-d', $t->node->connstr('postgres') ], 'dump as a script');
$t->sql('CREATE DATABASE scripted TEMPLATE template0');
$t->node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $t->node->connstr('scripted'), '-f', $plain ], 'restore by psql');
is($t->node->safe_psql('scripted', 'SELECT count(*) FROM dvmig.event'), $events, 'which notes nothing either');
my $before = $t->sql('SELECT max(run) FROM dvmig.run_history');
my $namespace = $t->sql(q{SELECT namespace FROM dvmig.migration_table WHERE staging = 'staging.a'::regclass});
$t->{db} = 'restored';
is($t->sql('SELECT staging, success_table, namespace FROM dvmig.migration_table'), "staging.a|staging.a_success|$namespace",
	'the registration is there, with the namespace');
is($t->counts('staging.a'), '7/0/7/0/0', 'and the books');
$run = $t->run('m');
is($run->{state}, 'completed', 'a run in the restored database completes');
is($run->{rows_sent}, 0, 'and sends nothing');
is($run->{run} > $before, 1, 'runs are counted on');
$t->sql(q{UPDATE staging.a SET name = 'changed', processing_flag = 'U' WHERE id = 1; INSERT INTO staging.a VALUES (8, 'A8', 'eight')});
$run = $t->run('m');
is($run->{state}, 'completed', 'changes after the restore are sent');
$t->account('m', 'staging.a' => \%fields);

done_testing();

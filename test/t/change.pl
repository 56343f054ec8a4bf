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

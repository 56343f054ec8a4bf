# Before-images: states, records that are found, rows that share a record, images
# that cannot be kept, updates that failed half way, dump and restore
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use DvMig;

my $stranger = 'dddddddd-0000-4000-8000-00000000000d';
my $t = DvMig->new(name => 'before_edges');
my $sim = $t->sim;
my @figures = qw(created gone changed_since has_related deleted restored failed);

sub undo
{
	my ($arguments) = @_;
	return join '; ', map { my $r = $_; "$r->{staging}: " . join(' ', map { "$_=$r->{$_}" } grep { $r->{$_} } @figures) }
	  @{ $t->rows("SELECT * FROM dvmig.undo($arguments)") };
}

# held(set, id column, members): what the records hold
sub held
{
	my ($set, $id, @members) = @_;
	return { map { my $r = $_; ($r->{$id} => { map { $_ => $r->{$_} } @members }) } @{ $sim->export($set) } };
}

$t->sql(q{
	CREATE SCHEMA staging;
	CREATE TABLE staging.regions (id int PRIMARY KEY, name text, state text);
	INSERT INTO staging.regions SELECT n, 'Region ' || n, CASE WHEN n % 3 = 0 THEN 'Inactive' ELSE 'Active' END FROM generate_series(1, 60) n;
	CREATE TABLE staging.firms (id int PRIMARY KEY, code text, name text, parent int);
	INSERT INTO staging.firms SELECT n, 'K' || n, 'Firm ' || n, CASE WHEN n > 1 THEN 1 END FROM generate_series(1, 40) n});
$t->migration('m', tables => 'new_region,account');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.regions', 'new_region', auto_map => false);
	SELECT dvmig.map_column('staging.regions', 'new_name', 'name');
	SELECT dvmig.map_choice('staging.regions', 'statecode', 'state');
	SELECT dvmig.set_table('staging.regions', 'keep_before_image', 'true')});
is($t->run('m')->{state}, 'completed', 'loaded');

# ----------------------------------------------------------------------- states
my @region = qw(new_name statecode statuscode);
my $before = held('new_regions', 'new_regionid', @region);
# some only their state, some only their name, some both
$t->sql(q{UPDATE staging.regions SET state = CASE state WHEN 'Active' THEN 'Inactive' ELSE 'Active' END, processing_flag = 'U' WHERE id <= 40;
	UPDATE staging.regions SET name = 'Changed ' || id, processing_flag = 'U' WHERE id > 30});
my $run = $t->run('m', 'resend => true');
is($run->{state}, 'completed', 'names and states are changed');
isnt(held('new_regions', 'new_regionid', @region)->{ $t->sql('SELECT dataverse_id FROM staging.regions WHERE id = 1') }{statecode}, 0, 'a state is another');
is($t->sql("SELECT count(*) FROM staging.regions_before WHERE run = $run->{run} AND columns ? 'statecode'"), 60, 'each image has the state');
is(undo($run->{run}), 'staging.regions: restored=60', 'they are restored');
is_deeply(held('new_regions', 'new_regionid', @region), $before, 'with their states');
$t->sql(q{SELECT dvmig.release('staging.regions')});
$run = $t->run('m', 'resend => true');
is($run->{state}, 'completed', 'the next run sends them again');
is(held('new_regions', 'new_regionid', @region)->{ $t->sql('SELECT dataverse_id FROM staging.regions WHERE id = 1') }{statecode}, 1, 'also the states');
$t->account('m', 'staging.regions' => { new_name => 's.name', statecode => q{CASE WHEN s.state = 'Inactive' THEN 1 ELSE 0 END} });

# --------------------------------------------- records that an upsert finds by key
$sim->create('accounts', { name => "There before $_", new_legacyid => "K$_" }) for 1 .. 10;
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.firms', 'account', ids => 'platform', auto_map => false);
	SELECT dvmig.map_column('staging.firms', 'new_legacyid', 'code');
	SELECT dvmig.map_column('staging.firms', 'name', 'name');
	SELECT dvmig.set_table('staging.firms', 'keep_before_image', 'true')});
$before = held('accounts', 'accountid', 'name');
$run = $t->run('m', q{tables => '{staging.firms}'});
is("$run->{state} $run->{succeeded}", 'completed 40', 'ten of forty were there');
is(scalar(grep { $_->{name} =~ /^There/ } @{ $sim->export('accounts') }), 0, 'and are written over');
is($t->sql('SELECT count(*) FROM staging.firms_before'), 10, 'with an image of each');
is(undo("$run->{run}, 'staging.firms'"), 'staging.firms: created=30 deleted=30 restored=10', 'what was created goes, what was found is restored');
is_deeply(held('accounts', 'accountid', 'name'), $before, 'nothing else is left');
$t->sql(q{SELECT dvmig.release('staging.firms'); SELECT dvmig.drop_table('staging.firms', drop_outcomes => true); UPDATE staging.firms SET processing_flag = 'U', dataverse_id = NULL});

# --------------------------------------------------- two rows that share a record
my $shared = $sim->create('accounts', { name => 'Shared', new_legacyid => 'S' })->{accountid};
$t->sql(qq{
	SELECT dvmig.add_table('m', 'staging.firms', 'account', auto_map => false);
	SELECT dvmig.map_column('staging.firms', 'name', 'name');
	SELECT dvmig.map_lookup('staging.firms', 'parentaccountid', 'parent', 'staging.firms');
	SELECT dvmig.set_table('staging.firms', 'keep_before_image', 'true');
	UPDATE staging.firms SET dataverse_id = '$shared' WHERE id IN (5, 6)});
$run = $t->run('m', q{tables => '{staging.firms}'});
is($run->{state}, 'completed', 'two rows write one record');
is($t->sql("SELECT count(*) FROM staging.firms_before WHERE dataverse_id = '$shared'"), 1, 'the first image of it stands');
like(undo("$run->{run}, 'staging.firms'"), qr/^staging.firms: created=38 deleted=38 restored=1$/, 'it is restored once');
is(held('accounts', 'accountid', 'name')->{$shared}{name}, 'Shared', 'to what it was');
is($t->sql('SELECT string_agg(processing_flag, NULL ORDER BY id) FROM staging.firms WHERE id IN (5, 6)'), 'UU', 'both rows are unprocessed');
$t->sql(q{SELECT dvmig.release('staging.firms')});

# of one that the run made, both rows are taken back when it goes
my $made = 'eeeeeeee-1111-4000-8000-000000000001';
$t->sql(qq{
	CREATE TABLE staging.more (id int PRIMARY KEY, name text);
	INSERT INTO staging.more VALUES (1, 'One'), (2, 'Two');
	SELECT dvmig.add_table('m', 'staging.more', 'account', auto_map => false);
	SELECT dvmig.map_column('staging.more', 'name', 'name');
	UPDATE staging.more SET dataverse_id = '$made' WHERE id = 2;
	UPDATE staging.firms SET dataverse_id = '$made' WHERE id IN (7, 8)});
$run = $t->run('m', q{tables => '{staging.firms}'});
is($run->{state}, 'completed', 'two rows write a record that one of them makes');
is($t->run('m', q{tables => '{staging.more}'})->{state}, 'completed', 'and a third one, of another table');
is(undo("$run->{run}, related => 'skip'"), 'staging.firms: created=37 deleted=37 restored=2; staging.more: ; staging.regions: ', 'it is deleted once (and was made what it was between the two before)');
is($t->sql(q{SELECT string_agg(processing_flag, NULL ORDER BY id) FROM (SELECT id, processing_flag FROM staging.firms WHERE id IN (7, 8) UNION ALL SELECT 10 * id, processing_flag FROM staging.more) q}),
	'UUPU', 'all rows of it are unprocessed, and no other');
is($t->sql(q{SELECT count(*) FROM staging.firms_success WHERE id IN (7, 8)}) + $t->sql('SELECT count(*) FROM staging.more_success WHERE id = 2'), 0, 'without outcomes');
is($t->sql('SELECT count(held_by_undo) FROM dvmig.migration_table WHERE migration_id = (SELECT migration_id FROM dvmig.migration) AND staging::text ~ $$firms|more$$'), 2, 'both tables are on hold');
$t->sql(q{SELECT dvmig.release('staging.firms'); SELECT dvmig.release('staging.more');
	UPDATE staging.firms SET dataverse_id = NULL WHERE id IN (7, 8); SELECT dvmig.drop_table('staging.more')});

# ---------------------------------------------- what is not taken back is told
is($t->run('m', q{tables => '{staging.firms}'})->{state}, 'completed', 'loaded again');
$before = held('accounts', 'accountid', 'name', '_parentaccountid_value');
$t->sql(q{ALTER TABLE staging.firms_before ADD CONSTRAINT picky CHECK (columns ->> 'name' NOT IN ('Firm 11', 'Firm 12'));
	UPDATE staging.firms SET name = 'Second ' || id, processing_flag = 'U' WHERE id > 10});
my $second = $t->run('m', q{tables => '{staging.firms}', resend => true});
is("$second->{state} $second->{failed}", 'completed 2', 'a record whose image cannot be kept is not updated');
is($t->sql(q{SELECT string_agg(error_class || ' ' || code || ' ' || id, ', ' ORDER BY id) FROM staging.firms_error}), 'image 23514 11, image 23514 12', 'as its error says');
is($before->{ $t->sql('SELECT dataverse_id FROM staging.firms WHERE id = 11') }{name}, 'Firm 11', 'and stays');
$t->sql(q{ALTER TABLE staging.firms_before DROP CONSTRAINT picky; UPDATE staging.firms SET name = 'Third ' || id, processing_flag = 'U' WHERE id > 20});
my $third = $t->run('m', q{tables => '{staging.firms}', resend => true});
my $told = '';
$t->node->psql('postgres', "SELECT * FROM dvmig.undo($second->{run}, 'staging.firms', dry_run => true)", stderr => \$told);
like($told, qr/20 updated records were written by later runs: undo those first/, 'what a later run has written is told');
like(undo("$third->{run}, 'staging.firms'"), qr/restored=20$/, 'the later run is undone first');
like(undo("$second->{run}, 'staging.firms'"), qr/restored=28$/, 'then the earlier one');
is_deeply(held('accounts', 'accountid', 'name', '_parentaccountid_value'), $before, 'all is as before both');
$t->sql(q{SELECT dvmig.release('staging.firms')});

# ---------------------------------------- a record that failed after it was written
$t->sql(q{DELETE FROM staging.firms_error; UPDATE staging.firms SET name = 'Fourth ' || id, processing_flag = 'U', parent = 2 WHERE id > 30;
	UPDATE staging.firms SET processing_flag = 'P' WHERE id <= 30});
$sim->fault({ match => { path_contains => 'UpdateMultiple', body_contains => 'parentaccountid', count => 0 }, do => 'status', status => 400, code => '0x80040203', message => 'no' });
$sim->fault({ match => { method => 'PATCH', part => JSON::PP::true, body_contains => 'parentaccountid', count => 3 }, do => 'status', status => 400, code => '0x80040203', message => 'no' });
my $fourth = $t->run('m', q{tables => '{staging.firms}', resend => true});
my $failed = $t->sql('SELECT count(*) FROM staging.firms_error');
is($failed, 3, 'three fail in the deferred pass');
$sim->sim('DELETE', 'fault');
like(undo("$fourth->{run}, 'staging.firms'"), qr/restored=10$/, "they are restored, of which $failed failed after they were written");
is_deeply(held('accounts', 'accountid', 'name', '_parentaccountid_value'), $before, 'field by field');
is($t->sql('SELECT count(*) FROM staging.firms_success WHERE created_run IS NULL AND id NOT IN (5, 6)'), 0, 'who created them stays known');

# ----------------------------------------------------------- changed meanwhile
$t->sql(q{SELECT dvmig.release('staging.firms')});
is($t->run('m', q{tables => '{staging.firms}', resend => true})->{state}, 'completed', 'and once more');
my $fifth = $t->sql('SELECT max(run) FROM dvmig.run_history');
my $victim = $t->sql('SELECT dataverse_id FROM staging.firms WHERE id = 40');
# held between the look and the update
$sim->fault({ match => { path_contains => '$batch', nth => 1 }, do => 'hold' });
my $faults = $sim->sim('GET', 'stats')->{faults};
my $job = $t->sql("SELECT dvmig.start_undo($fifth, 'staging.firms')");
ok($t->wait_for("SELECT state = 'running' FROM dvmig.run_table WHERE run = $job"), 'the undo has looked');
$t->until('an update is on its way', sub { $sim->sim('GET', 'stats')->{faults} > $faults });
$sim->change('accounts', $victim, { name => 'By a user' }, as => $stranger);
$sim->sim('DELETE', 'fault');
is($t->finish($job)->{state}, 'completed', 'it ends');
is(held('accounts', 'accountid', 'name')->{$victim}{name}, 'By a user', 'what was changed meanwhile is not written over');
like($t->sql("SELECT concat_ws(' ', changed, note) FROM dvmig._undo_table WHERE undo = $job"), qr/^1 1 record was changed by another user while/, 'and is counted');

# ------------------------------------------------------- whose they are, dump, discard
$t->sql(q{CREATE ROLE op; CREATE ROLE viewer; SELECT dvmig.grant_operator('op', 'm'); SELECT dvmig.grant_viewer('viewer', 'm')});
like($t->error("SET ROLE $_; SELECT * FROM staging.firms_before"), qr/42501/, "the images are not for the $_") for qw(op viewer);
is($t->sql(q{SELECT (SELECT relowner FROM pg_class WHERE oid = 'staging.firms_before'::regclass) = (SELECT relowner FROM pg_class WHERE oid = 'staging.firms'::regclass)}), 't', 'they belong to the staging table\'s owner');
my $images = $t->sql('SELECT count(*) FROM staging.firms_before');
cmp_ok($images, '>', 0, 'some are kept');
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$t->node->command_ok([ 'pg_dump', '-d', $t->node->connstr('postgres'), '-f', $dump ], 'dumped');
$t->sql('CREATE DATABASE restored');
$t->node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $t->node->connstr('restored'), '-f', $dump ], 'and restored');
is($t->node->safe_psql('restored', q{SELECT (SELECT string_agg(before_table::text, ' ' ORDER BY before_table::text) FROM dvmig.migration_table WHERE keep_before_image) || ' ' || (SELECT count(*) FROM staging.firms_before)}),
	"staging.firms_before staging.regions_before $images", 'with the images');
$t->sql(q{SELECT dvmig.sign_off('m', 'a test', override => true); SELECT dvmig.discard('m', secrets => 'keep')});
is($t->sql('SELECT count(*) FROM staging.firms_before'), 0, 'they are discarded with the outcomes');

done_testing();

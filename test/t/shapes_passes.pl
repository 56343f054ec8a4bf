# Files, states, links, parties and before-images where a value is odd, a column was
# changed or somebody wrote into dvmig's tables: it is said, and no process of the
# server comes to harm.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use PostgreSQL::Test::Utils;
use Test::More;

use DvMig;

my $t = DvMig->new(name => 'shapes_passes', conf => "restart_after_crash = on\ndvmig.settle_time = 300ms\n");

$t->sql(q{
	CREATE SCHEMA staging;
	CREATE SEQUENCE staging.looks;
	CREATE TABLE staging.invoices (id int PRIMARY KEY, name text, document bytea);
	INSERT INTO staging.invoices SELECT n, 'Invoice ' || n, convert_to('file ' || n, 'UTF8') FROM generate_series(1, 20) n;
	CREATE TABLE staging.regions (id int PRIMARY KEY, name text);
	INSERT INTO staging.regions SELECT n, 'Region ' || n FROM generate_series(1, 20) n});
$t->migration('m', tables => 'new_invoice,new_region');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.invoices', 'new_invoice', source_key => 'id', auto_map => false);
	SELECT dvmig.map_column('staging.invoices', 'new_invoicenumber', 'name');
	SELECT dvmig.map_file('staging.invoices', 'new_document', 'document');
	SELECT dvmig.add_table('m', 'staging.regions', 'new_region', source_key => 'id', auto_map => false);
	SELECT dvmig.map_column('staging.regions', 'new_name', 'name');
	SELECT dvmig.set_table('staging.regions', 'keep_before_image', 'true')});
is($t->ended($t->run('m')), 'completed: ', 'records and files are loaded');

# ------------------------------------------------------------------ before-images that somebody wrote into

$t->sql(q{UPDATE staging.regions SET name = name || '!', processing_flag = 'U'});
my $run = $t->run('m', 'resend => true');
is("$run->{state} " . $t->sql('SELECT count(*) FROM staging.regions_before'), 'completed 20', 'images are kept');
$t->sql('CREATE TABLE staging.kept AS TABLE staging.regions_before; ALTER TABLE staging.regions_before ALTER columns DROP NOT NULL');
for my $case ([ 'columns = NULL', 'no object' ], [ 'dataverse_id = NULL', 'null' ], [ q{columns = '5'}, 'no object' ], [ q{columns = '[1]'}, 'no object' ])
{
	my ($set, $what) = @$case;
	my ($column) = $set =~ /(\w+)/;

	$t->sql("UPDATE staging.regions_before SET $set WHERE id < 4");
	like($t->ended($t->job("dvmig.undo($run->{run})")), qr/^failed: column "$column" of the before-images of staging\.regions is $what in a row/,
		"an undo says so of an image with $set");
	is($t->sql('SELECT count(*) FROM staging.regions_before'), 20, 'and restores nothing');
	$t->sql('TRUNCATE staging.regions_before; INSERT INTO staging.regions_before TABLE staging.kept');
}
is($t->ended($t->job("dvmig.undo($run->{run})")), 'completed: ', 'with the images as they were it is undone');
is(join(' ', sort map { $_->{new_name} } grep { $_->{new_name} =~ /^Region \d+/ } @{ $t->sim->export('new_regions') }), join(' ', sort map { "Region $_" } 1 .. 20), 'and all is restored');

# ------------------------------------------------------------------ numbers that are none

$t->sql(q{
	CREATE TABLE staging.areas (id int PRIMARY KEY, name text, state numeric);
	INSERT INTO staging.areas SELECT n, 'Area ' || n, CASE n WHEN 3 THEN 'NaN'::numeric WHEN 4 THEN 'Infinity' WHEN 5 THEN 1e30 ELSE 0 END FROM generate_series(1, 20) n;
	SELECT dvmig.add_table('m', 'staging.areas', 'new_region', source_key => 'id', auto_map => false);
	SELECT dvmig.map_column('staging.areas', 'new_name', 'name');
	SELECT dvmig.map_column('staging.areas', 'statecode', 'state::int')});
is($t->sql(q{SELECT sum(affected_rows) FROM dvmig.check('m') WHERE severity = 'error' AND staging = 'staging.areas'}), 3, 'a check counts the states that are no numbers');
is($t->sql(q{SELECT count(*) FROM dvmig.preview('staging.areas', 5) WHERE request IS NULL}), 3, 'a preview shows them');
is($t->ended($t->run('m', 'ignore_gate => true')), 'completed: ', 'a run goes on without their rows');
is($t->counts('staging.areas'), '20/0/17/3/0', 'which fail');
is($t->sql(q{SELECT string_agg(concat_ws(' ', id, error_class, code), ', ' ORDER BY id) FROM staging.areas_error}),
	'3 transform 0A000, 4 transform 0A000, 5 transform 22003', 'and say why');
is($t->ended($t->job(q{dvmig.verify('m', 'staging.areas')})), 'completed: ', 'a verification knows them');

# ------------------------------------------------------------------ a file that comes and goes

$t->sql(q{
	SELECT dvmig.unmap('staging.invoices', 'new_document');
	SELECT dvmig.map_file('staging.invoices', 'new_document', $$CASE WHEN nextval('staging.looks') % 2 = 0 THEN document END$$)});
is($t->ended($t->job(q{dvmig.verify('m', 'staging.invoices')})), 'completed: ', 'a verification of files that come and go comes to its end');

unlike(slurp_file($t->node->logfile), qr/PANIC|TRAP|terminated by signal|cache lookup failed|XX000/, 'no process of the server came to harm');

done_testing();

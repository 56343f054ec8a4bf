# A lookup of a table to itself that goes level by level
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(profile => 'strict');
my $run;

# parents with higher and lower keys, six levels deep; a ring of three, a row
# that is its own parent, and one below the ring
$t->sql(q{
	CREATE SCHEMA staging;
	CREATE TABLE staging.units (id int PRIMARY KEY, name text, above int);
	INSERT INTO staging.units SELECT n, 'Unit ' || n, CASE WHEN n > 5 THEN 1 + (n * 7919) % (n / 3) END FROM generate_series(1, 900) n;
	UPDATE staging.units SET id = 2000 - id, above = 2000 - above WHERE id % 2 = 0 OR true;
	INSERT INTO staging.units VALUES (1, 'Ring', 2), (2, 'Ring', 3), (3, 'Ring', 1), (4, 'Own', 4), (5, 'Below', 3), (6, repeat('x', 161), 1999), (7, 'below a bad one', 6), (8, 'further below', 7);
	CREATE TABLE staging.people (id int PRIMARY KEY, unit int);
	INSERT INTO staging.people VALUES (1, 1999), (2, 8), (3, 5), (4, 4)});
$t->migration('m', tables => 'account,contact');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.units', 'account', source_key => 'id');
	SELECT dvmig.map_column('staging.units', 'name', 'name');
	SELECT dvmig.map_lookup('staging.units', 'parentaccountid', 'above', 'staging.units');
	SELECT dvmig.set_column('staging.units', 'parentaccountid', 'by_level', 'true');
	SELECT dvmig.add_table('m', 'staging.people', 'contact', auto_map => false);
	SELECT dvmig.map_column('staging.people', 'lastname', $$'x'$$), dvmig.map_lookup('staging.people', 'parentcustomerid', 'unit', 'staging.units')});
is($t->sql(q{SELECT string_agg(concat_ws(' ', staging, rule, sample_keys), ', ' ORDER BY staging, rule) FROM dvmig.check('m', samples => 20) WHERE severity = 'error'}),
	'staging.people parent_not_loaded {2,3,4}, staging.units loop {1,2,3,4,5}, staging.units parent_not_loaded {1,2,3,4,5,7,8}, staging.units too_long {6}',
	'check foretells circles, and what is below them and below rows that fail');
is($t->sql(q{SELECT string_agg(pass, ' ' ORDER BY step) FROM dvmig.plan('m') WHERE staging = 'staging.units'}), 'write', 'no deferred pass');
$run = $t->run('m', 'ignore_gate => true');
is($run->{state}, 'completed', 'the run completes');
is($t->counts('staging.units'), '908/3/900/5/0', 'all levels are loaded, rings fail, what is below them waits');
is($t->sql(q{SELECT string_agg(id::text, ' ' ORDER BY id) FROM staging.units WHERE processing_flag IN ('E', 'U')}) . ', ' . $t->sql(q{SELECT string_agg(id::text, ' ' ORDER BY id) FROM staging.people WHERE processing_flag = 'U'}),
	'1 2 3 4 5 6 7 8, 2 3 4', 'as check said');
is($t->sql(q{SELECT string_agg(id || ' ' || error_class || ' ' || code || ' ' || error_column, ', ' ORDER BY id) FROM staging.units_error WHERE id < 6}),
	join(', ', map { "$_ lookup circle parentaccountid" } 1 .. 4), 'as circles');
is($t->sim->counters('accounts')->{updates}, 0, 'no record was written twice');
my %fields = (name => 's.name', _parentaccountid_value => '(SELECT p.dataverse_id FROM staging.units p WHERE p.id = s.above)');
$t->account('m', 'staging.units' => \%fields);

# corrected
$t->sql(q{UPDATE staging.units SET above = NULL WHERE id IN (1, 4); UPDATE staging.units SET name = 'short' WHERE id = 6; SELECT dvmig.retry('staging.units')});
$run = $t->run('m');
is($t->counts('staging.units'), '908/0/908/0/0', 'once corrected, all go');
$t->account('m', 'staging.units' => \%fields);

# a table that demands it
is($t->sql(q{
	UPDATE dvmig.metadata_column SET required_level = 'SystemRequired' WHERE table_name = 'account' AND column_name = 'parentaccountid';
	SELECT dvmig.set_column('staging.units', 'parentaccountid', 'by_level', NULL);
	SELECT count(*) FROM dvmig.plan('m') WHERE pass = 'deferred'}) =~ /0$/ ? 1 : 0, 1, 'a lookup that is required goes by level by itself');

done_testing();

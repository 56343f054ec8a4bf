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
	INSERT INTO staging.units VALUES (1, 'Ring', 2), (2, 'Ring', 3), (3, 'Ring', 1), (4, 'Own', 4), (5, 'Below', 3)});
$t->migration('m', tables => 'account');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.units', 'account', source_key => 'id');
	SELECT dvmig.map_column('staging.units', 'name', 'name');
	SELECT dvmig.map_lookup('staging.units', 'parentaccountid', 'above', 'staging.units');
	SELECT dvmig.set_column('staging.units', 'parentaccountid', 'by_level', 'true')});
is($t->sql(q{SELECT string_agg(pass, ' ' ORDER BY step) FROM dvmig.plan('m')}), 'write', 'no deferred pass');
$run = $t->run('m');
is($run->{state}, 'completed', 'the run completes');
is($t->counts('staging.units'), '905/1/900/4/0', 'all levels are loaded, rings fail, what is below them waits');
is($t->sql(q{SELECT string_agg(id || ' ' || error_class || ' ' || code || ' ' || error_column, ', ' ORDER BY id) FROM staging.units_error}),
	join(', ', map { "$_ lookup circle parentaccountid" } 1 .. 4), 'as circles');
is($t->sim->counters('accounts')->{updates}, 0, 'no record was written twice');
my %fields = (name => 's.name', _parentaccountid_value => '(SELECT p.dataverse_id FROM staging.units p WHERE p.id = s.above)');
$t->account('m', 'staging.units' => \%fields);

# corrected
$t->sql(q{UPDATE staging.units SET above = NULL WHERE id IN (1, 4); SELECT dvmig.retry('staging.units')});
$run = $t->run('m');
is($t->counts('staging.units'), '905/0/905/0/0', 'once corrected, all go');
$t->account('m', 'staging.units' => \%fields);

# a table that demands it
is($t->sql(q{
	UPDATE dvmig.metadata_column SET required_level = 'SystemRequired' WHERE table_name = 'account' AND column_name = 'parentaccountid';
	SELECT dvmig.set_column('staging.units', 'parentaccountid', 'by_level', NULL);
	SELECT count(*) FROM dvmig.plan('m') WHERE pass = 'deferred'}) =~ /0$/ ? 1 : 0, 1, 'a lookup that is required goes by level by itself');

done_testing();

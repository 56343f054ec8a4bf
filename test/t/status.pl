# dvmig.status and dvmig.migration_status: figures at every stage, and what they cost
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'status');
$t->migration('m', tables => 'account,contact');

sub whole
{
	my $s = $t->rows(q{SELECT * FROM dvmig.migration_status WHERE migration = 'm'})->[0];
	return join ' ', map { $_ // '-' } @$s{qw(tables staged unprocessed parked in_doubt succeeded failed left_out owed last_state)},
	  map { $_ ? 'yes' : 'no' } @$s{qw(invariant_holds verified signed_off)};
}
sub step { return $t->sql(q{SELECT next_step FROM dvmig.migration_status WHERE migration = 'm'}); }

is(step(), q{add staging tables: SELECT dvmig.add_table('m', ...)}, 'a migration without tables');
$t->sql(q{
	CREATE TABLE firms (id int PRIMARY KEY, name text, wide text, gone bool DEFAULT false);
	INSERT INTO firms SELECT i, CASE WHEN i = 7 THEN repeat('x', 300) ELSE 'Firm ' || i END, repeat(md5(i::text), 30), i > 2990 FROM generate_series(1, 3000) i;
	CREATE TABLE people (id int PRIMARY KEY, family text, firm int);
	INSERT INTO people VALUES (1, 'One', 7), (2, 'Two', 8);
	SELECT dvmig.add_table('m', 'firms', 'account', source_key => 'id', filter => 'NOT gone');
	SELECT dvmig.map_column('firms', 'name', 'name');
	SELECT dvmig.add_table('m', 'people', 'contact', source_key => 'id');
	SELECT dvmig.map_column('people', 'lastname', 'family');
	SELECT dvmig.map_lookup('people', 'parentcustomerid', 'firm', 'firms')});
is(whole(), '2 3002 2992 2 0 0 0 10 0 - yes no no', 'nothing loaded') or diag(whole());
is(step(), q{CALL dvmig.run('m')}, 'run it');
is($t->run('m')->{state}, 'completed', 'a run');
is(whole(), '2 3002 1 1 0 2990 1 10 0 completed yes no no', 'one failed, one waits for it');
is(step(), 'look at dvmig.top_errors, correct the rows, then retry their tables', 'correct it');
$t->sql(q{UPDATE firms SET name = 'Seven' WHERE id = 7; SELECT dvmig.retry('firms')});
$t->run('m');
is(step(), q{SELECT * FROM dvmig.verify('m')}, 'verify it');
$t->sql(q{SELECT * FROM dvmig.verify('m')});
is(whole(), '2 3002 0 0 0 2992 0 10 0 completed yes yes no', 'verified');
is(step(), q{SELECT * FROM dvmig.cutover('m'), then dvmig.sign_off()}, 'sign it off');
$t->sql(q{SELECT dvmig.sign_off('m', 'done')});
is(whole(), '2 3002 0 0 0 2992 0 10 0 completed yes yes yes', 'signed off');
like(step(), qr/^signed off; SELECT dvmig.discard\('m'\)/, 'discard it');
is($t->counts('firms'), '3000/0/2990/0/10', 'by table');

# A filter that throws hides nothing else.
$t->sql(q{SELECT dvmig.set_table('firms', 'filter', '1 / (id - 2995) <> 1')});
$t->sql(q{UPDATE firms SET gone = true WHERE id = 2995});
my $row = $t->status('firms');
is("$row->{staged} $row->{failed}", '3000 0', 'a filter that throws leaves the other figures');
like($row->{next_step}, qr/the filter throws an error \(SQLSTATE 22012\)/, 'and is told');

# ---------------------------------------------------------------- what it costs

$t->sql(q{SELECT dvmig.set_table('firms', 'filter', 'NOT gone'); CREATE INDEX ON firms (processing_flag)});
$t->sql('VACUUM ANALYZE firms');
my $plan = $t->sql(q{DO $$ DECLARE l text; BEGIN FOR l IN EXECUTE 'EXPLAIN (COSTS OFF) ' || dvmig._count_flags_sql('firms', NULL) LOOP RAISE LOG 'plan: %', l; END LOOP; END $$;
	CREATE FUNCTION pg_temp.plan(q text) RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY EXECUTE 'EXPLAIN (COSTS OFF) ' || q; END $$;
	SELECT * FROM pg_temp.plan(dvmig._count_flags_sql('firms', (SELECT filter_sql FROM dvmig.migration_table WHERE staging = 'firms'::regclass)))});
like($plan, qr/Index Only Scan using firms_processing_flag_idx/, 'with an index on the flag the wide rows are not read');
unlike($plan, qr/Seq Scan/, 'not for the filter either');
is($t->counts('firms'), '3000/0/2990/0/10', 'and the figures are the same');

# Who sees what.
$t->sql(q{CREATE ROLE guest LOGIN; SELECT dvmig.grant_viewer('guest', 'm'); SELECT dvmig.create_migration('other', 'sim')});
is($t->sql(q{SET ROLE guest; SELECT string_agg(migration, ',') FROM dvmig.migration_status}), 'm', 'a viewer sees his migrations');

done_testing();

# dvmig.status and dvmig.migration_status: figures at every stage, and what they cost
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

# Pages and rows that are read are counted, whoever reads them.
my $t = DvMig->new(name => 'status', conf => "autovacuum = off\n");
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
is($t->sql(q{SELECT next_step FROM dvmig.status WHERE staging = 'public.people' AND parked = unprocessed}), q{CALL dvmig.run('m')},
	'also where all rows wait for rows that were never loaded');
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

# Nobody who looks reads the wide rows: counts and outcomes come out of indexes,
# what is unprocessed is found by its flag, and the filter's column is in the index.
$t->sql(q{SELECT dvmig.set_table('firms', 'filter', 'NOT gone');
	UPDATE firms SET processing_flag = 'U' WHERE id IN (5, 6); UPDATE people SET processing_flag = 'U' WHERE id = 1});
$t->sql('VACUUM (ANALYZE, FREEZE) firms');
$t->sql('VACUUM (ANALYZE, FREEZE) people');
$t->sql('VACUUM (ANALYZE, FREEZE) firms_success');
my $reads = q{SELECT pg_stat_force_next_flush(); SELECT string_agg(concat_ws(' ', relname, seq_scan, seq_tup_read), ', ' ORDER BY relname),
	(SELECT heap_blks_read + heap_blks_hit FROM pg_statio_user_tables WHERE relname = 'firms') FROM pg_stat_user_tables WHERE relname ~ '^(firms|people)'};
my ($before, $blocks) = split /\|/, $t->sql($reads) =~ s/^\s+//r;
$t->sql(q{SELECT count(*) FROM dvmig.status; SELECT count(*) FROM dvmig.migration_status; SELECT count(*) FROM dvmig.progress; SELECT count(*) FROM dvmig.progress_table;
	SELECT count(*) FROM dvmig.progress_lane; SELECT pg_stat_force_next_flush(); SELECT 1});
my ($after, $blocks_after);
for (1 .. 20)
{
	($after, $blocks_after) = split /\|/, $t->sql($reads) =~ s/^\s+//r;
	last if $blocks_after > $blocks;
	select undef, undef, undef, 0.1;
}
is($after, $before, 'status and progress have scanned no staging or outcome table');
cmp_ok($t->sql(q{SELECT pg_relation_size('firms') / 8192}), '>', 400, 'of the wide rows, which take many pages,');
cmp_ok($blocks_after - $blocks, '<=', 60, 'they have read those alone that are unprocessed, to see whether they wait');
my $plan = $t->sql(q{CREATE FUNCTION pg_temp.plan(q text) RETURNS SETOF text LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off AS $$
	BEGIN RETURN QUERY EXECUTE 'EXPLAIN (COSTS OFF) ' || q; END $$;
	SELECT * FROM pg_temp.plan(dvmig._count_flags_sql('firms', (SELECT filter_sql FROM dvmig.migration_table WHERE staging = 'firms'::regclass)))});
is(scalar(() = $plan =~ /Index Only Scan using firms_processing_flag_id_gone_idx/g), 2, 'the plan: of the index alone, for the filter too') or diag($plan);
unlike($plan, qr/Seq Scan|Heap Scan|Index Scan/, 'and nothing else of the heap');
is($t->counts('firms'), '3000/2/2988/0/10', 'and the figures are the same');
$t->sql(q{CREATE TABLE short (id int PRIMARY KEY, note text, day date, kind varchar(10))});
is($t->sql(q{SELECT dvmig._flag_index_columns('short', '{id}', 's.day > now() AND s.kind = ''x''')}), '(processing_flag, id) INCLUDE (day, kind)', 'columns of a filter are in the index');
is($t->sql(q{SELECT dvmig._flag_index_columns('short', '{id}', 's.note = ''x'' AND s.day > now()')}), '(processing_flag, id)', 'but none whose values could be too long for it');

# ------------------------------------------------- a large table without the index

$t->sql(q{CREATE TABLE plain (id int PRIMARY KEY, name text, kind text, wide text);
	INSERT INTO plain SELECT i, 'Plain ' || i, CASE WHEN i > 9000 THEN 'b' ELSE 'a' END, repeat(md5(i::text), 30) FROM generate_series(1, 10000) i});
like($t->sql(q{SELECT dvmig.add_table('m', 'plain', 'account', source_key => 'id', auto_map => false, flag_index => false)}),
	qr/without an index on flags dvmig.status tells estimates: once it is loaded, CREATE INDEX CONCURRENTLY ON public.plain \(processing_flag, id\)/, 'advice, where the index is not wanted');
$t->sql(q{SELECT dvmig.map_column('plain', 'name', 'name')});
sub plain { return $t->status('plain'); }
sub pages_of_plain
{
	my $n = 0;
	# what a session has counted is told when it ends, at the latest
	for (1 .. 3)
	{
		$n = $t->sql(q{SELECT pg_stat_force_next_flush(); SELECT heap_blks_read + heap_blks_hit FROM pg_statio_user_tables WHERE relname = 'plain'}) =~ s/^\s+//r;
		select undef, undef, undef, 0.1;
	}
	return $n;
}
my $p = plain();
ok($p->{estimated}, 'the figures are estimates, and say so');
is($p->{invariant_holds}, undef, 'whether the invariant holds is not told');
cmp_ok(abs($p->{staged} - 10000), '<', 100, 'about as many rows as there are');
is("$p->{succeeded} $p->{failed} $p->{next_step}", q{0 0 CALL dvmig.run('m')}, 'nothing loaded, and a run is the next step');
$t->sql('ANALYZE plain');
is($t->sql(q{BEGIN; SELECT pg_stat_reset_single_table_counters('plain'::regclass); SELECT count(*) FROM dvmig.status WHERE staging = 'public.plain' AND staged BETWEEN 9900 AND 10100; COMMIT}) =~ s/\s//gr, 1, 'also where the server has forgotten what it counted');
$t->sql('ANALYZE plain');
is($t->run('m')->{state}, 'completed', 'a run without the index');
$t->sql('VACUUM (ANALYZE) plain_success');
my $read = pages_of_plain();
$p = plain();
is("$p->{succeeded} $p->{failed} $p->{unprocessed} $p->{estimated}", '10000 0 0 1', 'what has an outcome is told by the outcomes');
$t->sql(q{SELECT count(*) FROM dvmig.status; SELECT count(*) FROM dvmig.migration_status; SELECT count(*) FROM dvmig.progress; SELECT count(*) FROM dvmig.progress_table;
	SELECT pg_stat_force_next_flush(); SELECT 1});
is(pages_of_plain(), $read, 'and no page of the table was read');
is($t->sql(q{SELECT invariant_holds IS NULL AND estimated FROM dvmig.migration_status WHERE migration = 'm'}), 't', 'of the migration it is not told either');
like(step(), qr/^SELECT \* FROM dvmig.cutover\('m'\) counts; where a table has no index/, 'its next step says what counts');

# A row is flagged again: who decides on the figures gets them counted.
$t->sql(q{UPDATE plain SET processing_flag = 'U' WHERE id = 77; UPDATE firms SET processing_flag = 'P' WHERE id IN (5, 6); UPDATE people SET processing_flag = 'P'});
is(plain()->{unprocessed}, 0, 'an estimate does not know of it');
is($t->sql(q{SELECT amount FROM dvmig.cutover('m') WHERE kind = 'pending' AND staging = 'public.plain'}), 1, 'the cut-over counts');
like($t->error(q{SELECT dvmig.sign_off('m', 'all there')}), qr/plain: 1 row is unprocessed/, 'so does the sign-off');
like($t->sql(q{SELECT dvmig.report_text('m')}), qr/plain.*1 unprocessed/, 'and the report');
cmp_ok(pages_of_plain() - $read, '>', 1000, 'by reading it');

# Statistics that are newer than the last run know of rows that were flagged again.
$t->sql(q{UPDATE plain SET processing_flag = 'U' WHERE id <= 3000; ANALYZE plain});
$p = plain();
cmp_ok(abs($p->{unprocessed} - 3000), '<', 300, 'about as many as there are');
is($p->{unprocessed} + $p->{succeeded} + $p->{failed}, $p->{staged}, 'estimates add up');
like($p->{next_step}, qr/^SELECT \* FROM dvmig.cutover\('m'\) counts; these figures are estimates without an index: CREATE INDEX CONCURRENTLY ON public.plain \(processing_flag, id\)$/, 'the next step names the index');
is($t->sql(q{DELETE FROM plain_success WHERE id <= 10; INSERT INTO plain_error (id) SELECT generate_series(1, 10); SELECT failed || ' ' || next_step FROM dvmig.status WHERE staging = 'public.plain'}),
	q{10 look at public.plain_error, correct the rows, then SELECT dvmig.retry('public.plain')}, 'rows that have failed are known without it');
$t->sql(q{DELETE FROM plain_error});
my ($make) = plain()->{next_step} =~ /(CREATE INDEX .*)/;
$t->sql($make);
is($t->counts('plain'), '10000/3000/7000/0/0', 'with the index that it names, it counts');
is($t->sql(q{SELECT estimated OR NOT invariant_holds FROM dvmig.status WHERE staging = 'public.plain'}), 'f', 'and the invariant is told');

# Rows that wait are looked at, and their parents by their keys: not all of a parent's table.
$t->sql(q{CREATE TABLE parents (id int PRIMARY KEY, name text, kind text, wide text);
	INSERT INTO parents SELECT i, 'Parent ' || i, CASE WHEN i > 9000 THEN 'b' ELSE 'a' END, repeat(md5(i::text), 30) FROM generate_series(1, 10000) i;
	CREATE TABLE children (id int PRIMARY KEY, family text, parent int);
	INSERT INTO children SELECT i, 'Child ' || i, 2 * i FROM generate_series(1, 5000) i;
	SELECT dvmig.add_table('m', 'parents', 'account', source_key => 'id', auto_map => false, flag_index => false, filter => 'kind = $$a$$');
	SELECT dvmig.map_column('parents', 'name', 'name');
	SELECT dvmig.add_table('m', 'children', 'contact', source_key => 'id', auto_map => false);
	SELECT dvmig.map_column('children', 'lastname', 'family');
	SELECT dvmig.map_lookup('children', 'parentcustomerid', 'parent', 'parents')});
$t->sql("VACUUM (ANALYZE) $_") for qw(parents children);
sub rows_read { my ($table) = @_; $t->sql('SELECT pg_stat_force_next_flush()') for 1 .. 2; return $t->sql("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = '$table'"); }
$read = rows_read('parents');
is($t->sql(q{SELECT parked || ' ' || estimated || ' ' || next_step FROM dvmig.status WHERE staging = 'public.children'}), q{5000 false CALL dvmig.run('m')}, 'children of unprocessed parents wait');
cmp_ok(rows_read('parents') - $read, '<=', 5000, 'a parent is looked at for each, and no more of its table is read');
like($t->sql(q{SELECT subject FROM dvmig.cutover('m') WHERE staging = 'public.children' AND kind = 'blocker'}), qr/^rows wait for a parent$/m, 'the cut-over reads it to see which parents are left out');
$t->sql(q{SELECT dvmig.drop_table('children'); SELECT dvmig.drop_table('parents')});

# A filter over a column that the index does not have: while much is unprocessed,
# that would be read.
$t->sql(q{SELECT dvmig.set_table('plain', 'filter', 'kind = $$a$$'); UPDATE plain SET processing_flag = 'U'; DELETE FROM plain_success; VACUUM (ANALYZE) plain});
is($t->counts('plain'), '10000/9000/0/0/1000', 'of few rows the filter is asked');
$t->sql(q{CREATE OR REPLACE FUNCTION dvmig._parked_rows_max() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 5000::bigint'});
$read = pages_of_plain();
$p = plain();
is(join('/', map { $_ // '-' } @$p{qw(staged unprocessed succeeded failed left_out invariant_holds estimated)}), '10000/10000/0/0/-/-/1', 'of many it is not');
cmp_ok(pages_of_plain() - $read, '<', 20, 'and the rows are not read');
($make) = plain()->{next_step} =~ /(CREATE INDEX .*)/;
is($make, 'CREATE INDEX CONCURRENTLY ON public.plain (processing_flag, id) INCLUDE (kind)', 'the index that would do is named');
$t->sql("$make; VACUUM plain");
is($t->counts('plain'), '10000/9000/0/0/1000', 'and does');
$t->sql(q{CREATE OR REPLACE FUNCTION dvmig._parked_rows_max() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 100000::bigint'; SELECT dvmig.drop_table('plain')});

# ------------------------------------------- every flagged row has its outcome

sub holds { return $t->sql(q{SELECT invariant_holds || ' ' || next_step FROM dvmig.status WHERE staging = 'public.firms'}); }
is($t->sql(q{SELECT count(*) FROM dvmig.outcome_faults('firms')}), 0, 'every flagged row has the outcome that its flag says');
like(holds(), qr/^true /, 'so the invariant holds');
my %faults = (
	'S or P without a success row' => [ 'DELETE FROM firms_success WHERE id = 21', '21|P|has no success row' ],
	'E without an error row' => [ q{UPDATE firms SET processing_flag = 'E' WHERE id = 22; DELETE FROM firms_success WHERE id = 22}, '22|E|has no error row' ],
	'both' => [ q{INSERT INTO firms_error (id) VALUES (23)}, '23|P|has a success row and an error row' ]);
for my $fault (sort keys %faults)
{
	my ($harm, $listed) = @{ $faults{$fault} };
	is($t->sql("BEGIN; $harm; SELECT * FROM dvmig.outcome_faults('firms'); SELECT invariant_holds FROM dvmig.status WHERE staging = 'public.firms';
		SELECT next_step FROM dvmig.status WHERE staging = 'public.firms'; ROLLBACK"),
		"$listed\nf\n1 row has not the outcome that the flag says: SELECT * FROM dvmig.outcome_faults('public.firms')", "$fault: the invariant does not hold, and the row is listed");
}
like(holds(), qr/^true /, 'taken back, it holds again');
like($t->error(q{SELECT * FROM dvmig.outcome_faults('firms', 0)}), qr/22023.*at least 1/s, 'no rows are asked for');
like($t->error(q{SELECT * FROM dvmig.outcome_faults('short')}), qr/42704.*not a staging table/s, 'not a staging table');
$t->sql('UPDATE firms SET processing_flag = $$P$$ WHERE id IN (5, 6)');

# Who sees what.
$t->sql(q{CREATE ROLE guest LOGIN; SELECT dvmig.grant_viewer('guest', 'm'); SELECT dvmig.create_migration('other', 'sim')});
is($t->sql(q{SET ROLE guest; SELECT string_agg(migration, ',') FROM dvmig.migration_status}), 'm', 'a viewer sees his migrations');
like($t->error(q{SET ROLE guest; SELECT * FROM dvmig.outcome_faults('firms')}), qr/42501/, 'but no keys of tables that he may not read');

done_testing();

# A filter or an expression that throws for one row costs that row alone, in
# every pass and with several lanes; one that throws for all is said at once
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use JSON::PP;

use DvMig::Attack;

my $n = 500;
my $a = DvMig::Attack->new(name => 'filter', rows => $n);
my $t = $a->t;
my %fields = (-fields => { customers => { name => 's.name', new_legacyid => 's.id::text' } });

$t->{quiet} = 1;
$t->sql(q{CREATE FUNCTION staging.raises(v text, state text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
	$$BEGIN IF v LIKE 'bad%' THEN RAISE EXCEPTION 'about %', v USING ERRCODE = state; END IF; RETURN v; END$$});

# filtered(SQL): the filter of the table, unfit before or after the row is flagged.
sub filtered { $t->sql(sprintf q{SELECT dvmig.set_table('staging.customers', 'filter', $f$%s$f$)}, $_[0]); return; }

# --- the table's filter: first row, last row, neighbours, many, all
for my $case ([ 'first', 'id = 1' ], [ 'last', "id = $n" ], [ 'neighbours', 'id BETWEEN 200 AND 205' ], [ 'many', 'id % 7 = 0' ], [ 'all', 'true' ])
{
	my ($which, $bad) = @$case;

	for my $lanes (1, 3)
	{
		my $label = "filter throws: $which, lanes $lanes";

		$a->fresh;
		$t->sql("UPDATE staging.customers SET phone = CASE WHEN $bad THEN 'bad ' || id WHEN id % 2 = 0 THEN '1' ELSE '0' END");
		filtered('phone::int = 1');
		my ($staged, $failed, $out) = split /\|/,
		  $t->sql("SELECT count(*), count(*) FILTER (WHERE phone LIKE 'bad%'), count(*) FILTER (WHERE phone = '0') FROM staging.customers");
		is($a->run("lanes => $lanes")->{state}, 'completed', "$label: the run completes");
		is($t->sql(q{SELECT count(*) FILTER (WHERE error_class = 'filter' AND code = '22P02' AND error_column IS NULL AND message LIKE '%"bad %') || ' of ' || count(*)
			FROM staging.customers_error}), "$failed of $failed", "$label: the rows fail, with the filter's error");
		is($t->sql(q{SELECT count(*) FROM staging.customers_error e JOIN staging.customers s USING (id) WHERE s.phone NOT LIKE 'bad%'}), 0, "$label: and no others");
		$a->exact($label, customers => "$staged/0/" . ($staged - $failed - $out) . "/$failed/$out", %fields);
		is($a->sim->counters('accounts')->{creates}, $staged - $failed - $out, "$label: each of the others was created once");
	}
}

# --- a key of two columns, over partitions
$a->fresh;
$t->sql(q{CREATE TABLE staging.parts (a text, b int, v text, PRIMARY KEY (a, b)) PARTITION BY HASH (a);
	CREATE TABLE staging.parts_0 PARTITION OF staging.parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
	CREATE TABLE staging.parts_1 PARTITION OF staging.parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
	INSERT INTO staging.parts SELECT 'k' || n % 20, n, CASE WHEN n % 50 = 0 THEN 'bad ' || n ELSE (n % 2)::text END FROM generate_series(1, 1000) n;
	SELECT dvmig.add_table('m', 'staging.parts', 'contact', filter => 'v::int = 1', auto_map => false);
	SELECT dvmig.map_column('staging.parts', 'lastname', $$a || ' ' || b$$)});
for my $lanes (1, 3)
{
	$t->sql('TRUNCATE staging.parts_success, staging.parts_error; UPDATE staging.parts SET processing_flag = $$U$$, dataverse_id = NULL');
	$a->sim->sim('POST', 'reset');
	is($t->run('m', "tables => '{staging.parts}', lanes => $lanes")->{state}, 'completed', "partitions, lanes $lanes: the run completes");
	is($t->counts('staging.parts'), '1000/0/500/20/480', "partitions, lanes $lanes: figures");
	is($t->sql(q{SELECT count(*) FROM staging.parts_error e JOIN staging.parts s USING (a, b) WHERE s.v LIKE 'bad%' AND e.error_class = 'filter'}), 20, "partitions, lanes $lanes: the rows that fail");
	is($a->sim->counters('contacts')->{creates}, 500, "partitions, lanes $lanes: and each of the others once");
}
$t->sql(q{SELECT dvmig.drop_table('staging.parts', drop_outcomes => true)});

# --- corrected rows go with the next run; before it, status says what it can
$a->fresh;
$t->sql(q{UPDATE staging.customers SET phone = CASE WHEN id = 77 THEN 'bad' ELSE '1' END});
my $status = $t->status('staging.customers');
is(join('/', map { $_ // 'unknown' } @$status{qw(staged succeeded failed left_out)}), "$n/0/0/unknown", 'before the run, what the filter leaves out is not known');
is($t->sql(q{SELECT count(*) > 0 FROM dvmig.check('m') WHERE severity = 'error' AND (rule = 'filter' OR message LIKE '%filter%')}), 't', 'and check names it');
like($t->error(q{SELECT * FROM dvmig.plan('m')}), qr/22P02|staging\.customers/, 'plan says why it cannot count');
is($a->run->{state}, 'completed', 'a run');
$t->sql(q{UPDATE staging.customers SET phone = '1' WHERE id = 77; SELECT dvmig.retry('staging.customers')});
is($a->run->{state}, 'completed', 'and another with the row corrected');
$a->exact('corrected', customers => "$n/0/$n/0/0", %fields);

# --- a row that is to be deleted
$t->sql(q{UPDATE staging.customers SET action_flag = 'D', processing_flag = 'U', phone = CASE WHEN id = 77 THEN 'bad' ELSE '1' END WHERE id > 70});
is($a->run->{state}, 'completed', 'deletes: the run completes');
is($t->counts('staging.customers'), "$n/0/" . ($n - 1) . '/1/0', 'deletes: one row fails');
is(scalar @{ $a->sim->export('accounts') }, 71, 'deletes: its record is still there, and none of the others');

# --- what a user's function raises as a conflict is not tried for ever
for my $state (qw(40001 40P01 55P03))
{
	for my $place ('filter', 'column', 'filter, lanes')
	{
		my $label = "$state raised by a $place";

		$a->fresh;
		$t->sql(q{UPDATE staging.customers SET phone = CASE WHEN id IN (5, 300) THEN 'bad' ELSE '1' END});
		filtered($place =~ /filter/ ? "staging.raises(phone, '$state') IS NOT NULL" : 'true');
		$t->sql(sprintf q{SELECT dvmig.unmap('staging.customers', 'telephone1'), dvmig.map_column('staging.customers', 'telephone1', $f$%s$f$)}, $place eq 'column' ? "staging.raises(phone, '$state')" : 'phone');
		is($a->run($place =~ /lanes/ ? 'lanes => 3' : 'lanes => 1')->{state}, 'completed', "$label: the run completes");
		is($t->sql(q{SELECT string_agg(concat_ws(' ', id, error_class, code, error_column), ', ' ORDER BY id) FROM staging.customers_error}),
			join(', ', map { $place eq 'column' ? "$_ transform $state telephone1" : "$_ filter $state" } 5, 300), "$label: the rows fail");
		$a->exact($label, customers => "$n/0/" . ($n - 2) . '/2/0', %fields);
	}
}
$t->sql(q{SELECT dvmig.unmap('staging.customers', 'telephone1'), dvmig.map_column('staging.customers', 'telephone1', 'phone')});

# --- a filter that means nothing any more is an error at start, and nothing is begun
$a->fresh;
$t->sql('ALTER TABLE staging.customers ADD wanted bool');
filtered('wanted');
$t->sql('ALTER TABLE staging.customers DROP wanted');
like($t->error(q{SELECT dvmig.start('m')}), qr/42703.*the filter of staging\.customers.*HINT.*set_table/s, 'a filter of a column that is gone');
is($t->sql('SELECT count(*) FROM dvmig.run_history WHERE ended_at IS NULL'), 0, 'no run is begun');

# --- the filter of a run: with the rights of who calls, decided at once
filtered('true');
$t->sql(q{UPDATE staging.customers SET phone = CASE WHEN id = 99 THEN 'bad' ELSE '1' END});
like($t->error(q{SELECT dvmig.start('m', filter => 's.phone::int = 1')}), qr/22P02/, 'the filter of a run that throws: an error for who calls');
like($t->error(q{SELECT dvmig.start('m', filter => 's.nonsense = 1')}), qr/42703.*does not fit table/s, 'one that means nothing');
is($t->sql('SELECT count(*) FROM dvmig.run_history WHERE ended_at IS NULL'), 0, 'no run is begun by it');
is($a->run->{state}, 'completed', 'the next run is none the worse');
$a->exact('none the worse', customers => "$n/0/$n/0/0", %fields);

# --- the table's filter throws for rows that are not of the run: none of the run's pays for them
for my $lanes (1, 3)
{
	my $label = "filter throws beside the run, lanes $lanes";

	$a->fresh;
	filtered('phone::int = 1');
	$t->sql(q{UPDATE staging.customers SET phone = CASE WHEN id % 10 = 7 THEN 'bad' ELSE '1' END});
	is($a->run("lanes => $lanes, tables => '{staging.customers}', filter => 's.id % 10 <> 7'")->{state}, 'completed', "$label: the run completes");
	is($t->sql(q{SELECT string_agg(q.f, ' ' ORDER BY q.f) FROM (SELECT concat(processing_flag, id % 10 = 7, count(*)) AS f FROM staging.customers GROUP BY processing_flag, id % 10 = 7) q}),
		'Pf450 Ut50', "$label: all of its rows are loaded, and no other has an outcome");
	is($a->run("lanes => $lanes")->{state}, 'completed', "$label: a run of all completes");
	$a->exact("$label: a run of all", customers => "$n/0/450/50/0", %fields);
}

# --- check tells it once, and does not take all children of the table for lost
$a->fresh;
$t->sql(q{
	UPDATE staging.customers SET phone = CASE WHEN id % 10 = 7 THEN 'bad' ELSE '1' END;
	CREATE TABLE staging.kin (id int PRIMARY KEY, firm int);
	INSERT INTO staging.kin SELECT n, n FROM generate_series(1, 20) n;
	SELECT dvmig.add_table('m', 'staging.kin', 'contact', auto_map => false);
	SELECT dvmig.map_column('staging.kin', 'lastname', 'id::text'), dvmig.map_lookup('staging.kin', 'parentcustomerid', 'firm', 'staging.customers');
	SELECT dvmig.map_lookup('staging.customers', 'parentaccountid', 'nullif(id - 1, 0)', 'staging.customers')});
is($t->sql(q{SELECT string_agg(concat_ws(' ', staging, rule, affected_rows), ', ') FROM dvmig.check('m') WHERE severity = 'error'}), 'staging.customers filter 50',
	'check of a filter that throws');
$a->done;

done_testing();

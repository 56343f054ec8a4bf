# What verification finds: nothing after a clean load of every type of column,
# and each of a thousand differences planted at random
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use HTTP::Tiny;
use JSON::PP;
use MIME::Base64;
use Test::More;

use DvMig;

# Rows of the main table; under the other profiles a few will do.
use constant ROWS => 1200;
use constant FEW  => 300;

my $stranger = 'dddddddd-0000-4000-8000-00000000000d';

# plant([set, id, changes, as] ...): changes past the API, on one connection.
sub plant
{
	my ($sim, @changes) = @_;
	my $http = HTTP::Tiny->new(keep_alive => 1);
	my $json = JSON::PP->new->utf8->canonical->allow_nonref;

	for my $c (@changes)
	{
		my ($set, $id, $fields, $as) = @$c;
		my $body = sprintf '{"set":"%s","id":"%s","as":"%s",%s}', $set, $id, $as // DvMig::Sim::USER,
		  $fields ? '"changes":' . $json->encode($fields) : '"delete":true';
		my $answer = $http->post($sim->url . '/_sim/import', { content => $body });
		die "import: $answer->{status} $answer->{content} $body" unless $answer->{success};
	}
	return;
}

# A staging table with a column of every kind, and what they are mapped to.
sub define
{
	my ($t, $rows) = @_;

	$t->sql(sprintf q{
		CREATE SCHEMA staging;
		CREATE TABLE staging.firms (id int PRIMARY KEY, name text);
		INSERT INTO staging.firms SELECT n, 'Firm ' || n FROM generate_series(1, 50) n;
		CREATE TABLE staging.people (id int PRIMARY KEY, family text);
		INSERT INTO staging.people SELECT n, 'Person ' || n FROM generate_series(1, 50) n;
		CREATE TABLE staging.invoices (no text PRIMARY KEY, reference text, terms text, days int, entry bigint, rate numeric(7,4),
			weight double precision, amount numeric, paid numeric(12,2), disputed bool, kind text, channels int[], day date,
			posted timestamptz, due timestamp, source uuid, scan bytea, firm int, billed_firm int, billed_person int, corrects text);
		INSERT INTO staging.invoices
		SELECT format('I-%%s', lpad(n::text, 6, '0')), 'R' || n, CASE n %% 5 WHEN 0 THEN '' WHEN 1 THEN NULL ELSE format(E'line "%%s"\n\tä€😀 \\ /', n) END,
			CASE WHEN n %% 7 > 0 THEN n %% 365 END, 9007199254740993 + n, (n %% 1000) / 10.0, CASE WHEN n = 9 THEN 0.00001 ELSE n / 8.0 END, (n - 1000) * 1.5,
			CASE WHEN n %% 3 > 0 THEN n END, CASE n %% 4 WHEN 0 THEN NULL ELSE n %% 2 = 0 END,
			CASE n %% 4 WHEN 0 THEN 'invoice' WHEN 1 THEN 'Credit Note' WHEN 2 THEN '100000002' END,
			CASE n %% 3 WHEN 0 THEN '{9,1,3}'::int[] WHEN 1 THEN '{2}' END, '2020-01-01'::date + n,
			'2020-02-29 23:59:59.75+05:30'::timestamptz + n * interval '1 hour', CASE WHEN n %% 2 = 0 THEN '2021-06-01 08:00'::timestamp + n * interval '1 minute' END,
			md5(n::text)::uuid, CASE WHEN n %% 3 = 0 THEN decode('89504e470d0a1a0a', 'hex') || int4send(n) END,
			n %% 50 + 1, CASE WHEN n %% 3 = 0 THEN n %% 50 + 1 END, CASE WHEN n %% 3 = 1 THEN n %% 50 + 1 END,
			CASE WHEN n > 100 THEN format('I-%%s', lpad((n - 100)::text, 6, '0')) END
		FROM generate_series(1, %d) n}, $rows);
	$t->migration('m', tables => 'account,contact,new_invoice');
	$t->sql(q{
		SELECT dvmig.add_table('m', 'staging.firms', 'account');
		SELECT dvmig.map_column('staging.firms', 'name', 'name');
		SELECT dvmig.add_table('m', 'staging.people', 'contact');
		SELECT dvmig.map_column('staging.people', 'lastname', 'family');
		SELECT dvmig.add_table('m', 'staging.invoices', 'new_invoice');
		SELECT dvmig.map_column('staging.invoices', 'new_invoicenumber', 'no');
		SELECT dvmig.map_column('staging.invoices', 'new_reference', 'reference');
		SELECT dvmig.map_column('staging.invoices', 'new_terms', 'terms');
		SELECT dvmig.map_column('staging.invoices', 'new_paymentdays', 'days');
		SELECT dvmig.map_column('staging.invoices', 'new_ledgerentry', 'entry');
		SELECT dvmig.map_column('staging.invoices', 'new_taxrate', 'rate');
		SELECT dvmig.map_column('staging.invoices', 'new_weight', 'weight');
		SELECT dvmig.map_column('staging.invoices', 'new_amount', 'amount');
		SELECT dvmig.map_column('staging.invoices', 'new_paid', 'paid');
		SELECT dvmig.map_column('staging.invoices', 'new_disputed', 'disputed');
		SELECT dvmig.map_choice('staging.invoices', 'new_kind', 'kind');
		SELECT dvmig.map_column('staging.invoices', 'new_channels', 'channels');
		SELECT dvmig.map_column('staging.invoices', 'new_invoicedate', 'day');
		SELECT dvmig.map_column('staging.invoices', 'new_postedon', 'posted');
		SELECT dvmig.map_column('staging.invoices', 'new_dueat', 'due');
		SELECT dvmig.map_column('staging.invoices', 'new_sourceguid', 'source');
		SELECT dvmig.map_column('staging.invoices', 'new_scan', 'scan');
		SELECT dvmig.map_lookup('staging.invoices', 'new_customerid', 'firm', 'staging.firms');
		SELECT dvmig.map_lookup('staging.invoices', 'new_billedtoid', 'billed_firm', 'staging.firms');
		SELECT dvmig.map_lookup('staging.invoices', 'new_billedtoid', 'billed_person', 'staging.people');
		SELECT dvmig.map_lookup('staging.invoices', 'new_correctsid', 'corrects', 'staging.invoices')});
	return;
}

my @figures = qw(compared equal missing different changed_since extra owners_changed);

sub figures
{
	my ($row) = @_;
	return join ' ', map { "$_=$row->{$_}" } @figures;
}

# ------------------------------------------------------------ a clean load is clean

my %clusters;

for my $profile (qw(strict lenient odd))
{
	my $t = DvMig->new(profile => $profile, name => "verify_$profile");

	my $rows = $profile eq 'strict' ? ROWS : FEW;
	define($t, $rows);
	is($t->run('m')->{state}, 'completed', "$profile: the load completes");
	my $found = $t->rows(q{SELECT * FROM dvmig.verify('m')});
	is(join(', ', map { "$_->{staging}: $_->{result}" } @$found),
		'staging.firms: equal, staging.people: equal, staging.invoices: equal', "$profile: a clean load has no differences")
	  or diag($t->sql('SELECT column_name, kind, count(*), min(expected), min(found) FROM dvmig.difference GROUP BY 1, 2'));
	is(figures($found->[2]), "compared=$rows equal=$rows" . ' missing=0 different=0 changed_since=0 extra=0 owners_changed=0',
		"$profile: all rows were compared");
	is($t->sql(q{SELECT count(*) FROM dvmig.verification_sum WHERE source_count <> target_count OR source_sum <> target_sum}), 0,
		"$profile: sums agree");
	is($t->sql(q{SELECT source_sum = (SELECT sum(amount) FROM staging.invoices) AND source_count = (SELECT count(*) FROM staging.invoices) FROM dvmig.verification_sum WHERE column_name = 'new_amount'}),
		't', "$profile: and are those of the staging table");
	is($t->sql(q{SELECT source_sum = (SELECT sum(weight::text::numeric) FROM staging.invoices) FROM dvmig.verification_sum WHERE column_name = 'new_weight'}),
		't', "$profile: floats that are written with an exponent are among them");
	if ($profile eq 'strict')
	{
		$clusters{main} = $t;
		next;
	}
	$t->sim->stop;
	$t->node->stop;
}
my $t = $clusters{main};
my $sim = $t->sim;
my $run = $t->rows('SELECT * FROM dvmig.run_history ORDER BY run DESC LIMIT 1')->[0];
is("$run->{kind} $run->{state} $run->{rows_sent}", 'verify completed 0', 'a verification is a run of its own kind, and sends no row');
is($t->sql(q{SELECT last_state FROM dvmig.status WHERE staging = 'staging.invoices'}), 'completed', 'the last run of a table is a run');
is($t->sql('SELECT count(*) FROM dvmig.verification'), 3, 'what it found is kept');

# --------------------------------------------- a thousand differences, planted at random

my %ways = (
	new_reference => sub { 'X' . int rand 1e6 }, new_terms => sub { 'other ' . rand }, new_paymentdays => sub { int rand 365 },
	new_ledgerentry => sub { int rand 1e9 }, new_taxrate => sub { sprintf('%.4f', rand 100) + 0 }, new_weight => sub { int(rand 1e6) / 64 },
	new_amount => sub { sprintf('%.2f', rand 1e6) + 0 }, new_paid => sub { sprintf('%.2f', rand 1e6) + 0 },
	new_disputed => sub { rand() < 0.5 ? JSON::PP::true : JSON::PP::false }, new_kind => sub { 100000000 + int rand 3 },
	new_channels => sub { ("1", "1,2", "2,3", "9", "1,2,3,9")[ rand 5 ] }, new_invoicedate => sub { sprintf '19%02d-0%d-11', rand 100, 1 + rand 9 },
	new_postedon => sub { sprintf '19%02d-0%d-11T10:20:30Z', rand 100, 1 + rand 9 },
	new_dueat => sub { sprintf '19%02d-0%d-11T10:20:30Z', rand 100, 1 + rand 9 },
	new_sourceguid => sub { sprintf 'aaaaaaaa-0000-4000-8000-%012d', rand 1e9 },
	new_scan => sub { encode_base64('image' . int rand 1e9, '') });
my %held = map { $_->{new_invoiceid} => $_ } @{ $sim->export('new_invoices') };
my @ids = sort keys %held;
my %sets = (new_invoices => \@ids, accounts => [ split /\n/, $t->sql('SELECT dataverse_id FROM staging.firms') ],
	contacts => [ split /\n/, $t->sql('SELECT dataverse_id FROM staging.people') ]);
# lookups: navigation property of each table that they point at
my %points = (new_customerid => { accounts => 'new_CustomerId' }, new_correctsid => { new_invoices => 'new_CorrectsId' },
	new_billedtoid => { accounts => 'new_BilledToId_account', contacts => 'new_BilledToId_contact' });
my %set_of = map { my $set = $_; map { $_ => $set } @{ $sets{$set} } } keys %sets;
my (@changes, @back, %planted);
my $seed = srand;

# written(column, value, value before): how a record is given it; what a lookup points at may be of another table.
sub written
{
	my ($column, $value, $before) = @_;
	return { $column => $value } if !$points{$column};
	my $navigation = $points{$column}{ $set_of{ $value // $before } };
	return { "$navigation\@odata.bind" => defined $value ? "$set_of{$value}($value)" : undef };
}

sub pick { my @of = @_; return $of[ rand @of ]; }

while (keys %planted < 1000)
{
	my $id = pick(@ids);
	my $column = pick(sort(keys %ways), sort keys %points);
	my $old = $held{$id}{ $points{$column} ? "_${column}_value" : $column };
	my $value = rand() < 0.2 ? undef : $points{$column} ? pick(@{ $sets{ pick(sort keys %{ $points{$column} }) } }) : $ways{$column}->();

	next if $planted{"$id $column"} || DvMig::same($old, $value) || (($old // '') eq ($value // ''));
	$planted{"$id $column"} = 1;
	push @changes, [ 'new_invoices', $id, written($column, $value, $old) ];
	push @back, [ 'new_invoices', $id, written($column, $old, $value) ];
}
plant($sim, @changes);
$t->sql(q{SELECT * FROM dvmig.verify('m', 'staging.invoices')});
my %found = map { ("$_->{dataverse_id} $_->{column_name}" => $_->{kind}) } @{ $t->rows('SELECT * FROM dvmig.difference') };
is(join("\n", grep { !$found{$_} } sort keys %planted), '', "each planted difference is found (seed $seed)");
is(join("\n", grep { !$planted{$_} } sort keys %found), '', 'and no other');
is(join(',', keys %{ { map { $_ => 1 } values %found } }), 'different', 'all are of kind "different"');

my $v = $t->rows(q{SELECT * FROM dvmig.verification ORDER BY run DESC LIMIT 1})->[0];
my %records = map { (split / /)[0] => 1 } keys %planted;
is(figures($v), sprintf('compared=%d equal=%d missing=0 different=%d changed_since=0 extra=0 owners_changed=0',
		ROWS, ROWS - keys %records, scalar keys %records), 'the figures say so');
is($v->{result}, 'different', 'and the result');
is($t->sql(q{SELECT d.expected || '|' || d.found FROM dvmig.difference d JOIN staging.invoices s ON s.no = d.source_key
		WHERE d.column_name = 'new_reference' AND d.expected <> s.reference}), '', 'expected is what the row maps to');
is($t->sql(q{SELECT target_sum <> source_sum FROM dvmig.verification_sum WHERE column_name = 'new_amount'}), 't', 'sums differ too');
plant($sim, [ 'new_invoices', $ids[0], { new_reference => "  blanks \n" } ]);
$t->sql(q{SELECT * FROM dvmig.verify('m', 'staging.invoices')});
is($t->sql("SELECT found = E'  blanks \\n' FROM dvmig.difference WHERE dataverse_id = '$ids[0]' AND column_name = 'new_reference'"), 't', 'blanks and line ends are shown, too');
push @back, [ 'new_invoices', $ids[0], { new_reference => $held{ $ids[0] }{new_reference} } ];

# as they were again
plant($sim, @back);
is($t->sql(q{SELECT result FROM dvmig.verify('m', 'staging.invoices')}), 'equal', 'put back, there is no difference any more');
is($t->sql('SELECT count(*) FROM dvmig.difference'), 0, 'and none is listed');

# --------------------------------------------------- missing, extra, changed, owners, lookups

sub id_of { return $t->sql("SELECT dataverse_id FROM staging.invoices WHERE no = 'I-$_[0]'"); }
my $firm7 = $t->sql('SELECT dataverse_id FROM staging.firms WHERE id = 7');
my $person7 = $t->sql('SELECT dataverse_id FROM staging.people WHERE id = 7');

plant($sim,
	[ 'new_invoices', id_of('001101'), undef ],
	[ 'new_invoices', id_of('001102'), { new_reference => 'by a user' }, $stranger ],
	[ 'new_invoices', id_of('001103'), { 'new_CustomerId@odata.bind' => "accounts($firm7)" } ],
	[ 'new_invoices', id_of('001104'), { 'new_BilledToId_contact@odata.bind' => "contacts($person7)" } ],
	[ 'new_invoices', id_of('001105'), { 'ownerid@odata.bind' => 'systemusers(' . $sim->add_user('other@example.org') . ')' } ],
	# touched by a user, but as it should be
	[ 'new_invoices', id_of('001106'), { new_reference => 'R1106' }, $stranger ]);
$t->sql(q{
	UPDATE staging.invoices SET action_flag = 'D' WHERE no = 'I-001107';
	INSERT INTO staging.invoices (no, firm) VALUES ('I-999999', 1);
	UPDATE staging.invoices SET processing_flag = 'E' WHERE no = 'I-001108';
	DELETE FROM staging.invoices_success WHERE no = 'I-001108';
	UPDATE staging.invoices SET dataverse_id = NULL WHERE no = 'I-001108';
	DELETE FROM staging.invoices WHERE no = 'I-001109'});
$v = $t->rows(q{SELECT * FROM dvmig.verify('m', 'staging.invoices')})->[0];
is(figures($v), sprintf('compared=%d equal=%d missing=1 different=3 changed_since=1 extra=3 owners_changed=1', ROWS - 3, ROWS - 8),
	'missing, extra, changed since and owners are told apart');
is($t->sql(q{SELECT string_agg(concat_ws(' ', source_key, column_name, kind), ', ' ORDER BY source_key) FROM dvmig.difference}),
	join(', ', 'I-001101 missing', 'I-001102 new_reference changed', 'I-001103 new_customerid different', 'I-001104 new_billedtoid different',
		'I-001105 ownerid different', 'I-001107 extra', 'I-001108 extra', 'I-001109 extra'), 'each with its key, column and kind');
is($t->sql(q{SELECT found FROM dvmig.difference WHERE source_key = 'I-001102'}), 'by a user', 'with what was found');
is($t->sql(q{SELECT found FROM dvmig.difference WHERE source_key = 'I-001103'}), $firm7, 'and of lookups the id');

# ------------------------------------------------------------------ a part of the rows

$v = $t->rows(q{SELECT * FROM dvmig.verify('m', 'staging.firms', sample => 10)})->[0];
is("$v->{compared} $v->{equal}", '10 10', 'a sample of so many rows');
$v = $t->rows(q{SELECT * FROM dvmig.verify('m', 'staging.invoices', sample => 0.25)})->[0];
cmp_ok(abs($v->{compared} - ROWS / 4), '<', ROWS / 10, 'a share of them');
$v = $t->rows(q{SELECT * FROM dvmig.verify('m', 'staging.firms', 1000)})->[0];
is($v->{compared}, 50, 'a sample larger than the table is the table');

# -------------------------------------------- in a caller's transaction, in the background

is($t->sql(q{
	BEGIN ISOLATION LEVEL REPEATABLE READ;
	SELECT count(*) > 0 FROM staging.firms;
	SELECT result FROM dvmig.verify('m', 'staging.firms');
	ROLLBACK}), "t\nequal", 'in a repeatable read transaction the result is there');
is($t->sql(q{SELECT count(*) FROM dvmig.verification WHERE staging = 'staging.firms'}), 4, 'and stays after a rollback');
my $n = $t->sql(q{SELECT dvmig.start_verify('m', 'staging.people')});
is($t->finish($n)->{state}, 'completed', 'in the background');
is($t->sql("SELECT result FROM dvmig.verification WHERE run = $n"), 'equal', 'with its result in the table');

# ------------------------------------------------------------------------- privileges

$t->sql(q{
	CREATE ROLE watcher; CREATE ROLE nosy; CREATE ROLE op;
	SELECT dvmig.grant_viewer('watcher', 'm'); SELECT dvmig.grant_operator('op', 'm');
	GRANT USAGE ON SCHEMA staging TO watcher, nosy, op; GRANT SELECT ON staging.invoices TO nosy});
$t->sql(q{SELECT * FROM dvmig.verify('m', 'staging.invoices')});
is($t->sql(q{SET ROLE watcher; SELECT count(*) FROM dvmig.difference; SELECT count(*) > 0 FROM dvmig.verification; SELECT count(*) FROM dvmig.verification_sum}),
	"0\nt\n0", 'who may watch but not read the table sees figures, and no content');
$t->sql('GRANT SELECT ON staging.invoices TO watcher');
is($t->sql(q{SET ROLE watcher; SELECT count(*) FROM dvmig.difference}), 8, 'who may read it sees the differences');
like($t->error(q{SET ROLE watcher; SELECT * FROM dvmig.difference_row}), qr/42501/, 'but not past the view');
like($t->error(q{SET ROLE watcher; SELECT * FROM dvmig.verify('m')}), qr/42501/, 'a viewer does not begin a verification');
like($t->error(q{SET ROLE nosy; SELECT * FROM dvmig.difference}), qr/42501/, 'others see nothing');
is($t->sql(q{SET ROLE op; SELECT result FROM dvmig.verify('m', 'staging.firms')}), 'equal', 'an operator does');

# -------------------------------------------------------------------------- bad input

like($t->error(q{SELECT * FROM dvmig.verify('x')}), qr/42704.*migration "x" does not exist/s, 'no such migration');
like($t->error(q{SELECT * FROM dvmig.verify('m', 'staging.nothing')}), qr/42704.*not a staging table of migration "m"/s, 'no such table');
like($t->error("SELECT * FROM dvmig.verify('m', sample => '$_')"), qr/22023.*sample must be above zero/s, "a sample of $_") for qw(0 NaN 1e300 Infinity);
like($t->error(q{BEGIN; SELECT dvmig.create_migration('new', 'sim'); SELECT * FROM dvmig.verify('new')}), qr/55000.*has no staging tables/s, 'nothing to verify');
like($t->error(q{BEGIN; CREATE TABLE staging.late (id int PRIMARY KEY); SELECT dvmig.add_table('m', 'staging.late', 'account'); SELECT * FROM dvmig.verify('m')}),
	qr/55000.*Commit the definition first/s, 'what is not committed cannot be verified');

# ------------------------------------------------------- cancelled, stopped, throttled, cut

$sim->fault({ match => { path_contains => 'new_invoices?', count => 0 }, do => 'hold' });
$n = $t->sql(q{SELECT dvmig.start_verify('m', 'staging.invoices')});
like($t->error(q{SELECT * FROM dvmig.verify('m', 'staging.invoices')}), qr/55006.*is being verified by run $n/s, 'one at a time on a table');
like($t->error(q{SELECT dvmig.start('m')}), qr/55006/, 'and no run meanwhile');
$t->sql("SELECT dvmig.stop($n)");
is($t->finish($n)->{state}, 'stopped', 'a verification can be stopped');
$sim->sim('DELETE', 'fault');
is($t->sql("SELECT count(*) FROM dvmig.verification WHERE run = $n"), 0, 'and tells nothing then');
$sim->fault({ match => { path_contains => 'new_invoices?', count => 0 }, do => 'hold' });
like($t->error(q{SET statement_timeout = '1500ms'; SELECT * FROM dvmig.verify('m', 'staging.invoices')}), qr/57014/, 'a cancelled caller');
$sim->sim('DELETE', 'fault');
ok($t->wait_for(q{SELECT state = 'stopped' FROM dvmig.run_history ORDER BY run DESC LIMIT 1}), 'ends its worker too');

$sim->fault({ match => { path_contains => 'new_invoices?', count => 2 }, do => 'throttle', retry_after => 1 });
$sim->fault({ match => { path_contains => 'new_invoices?', nth => 2 }, do => 'cut' });
$sim->fault({ match => { path_contains => 'new_invoices?', nth => 3 }, do => 'garbage', bytes => 1000 });
$sim->fault({ match => { path_contains => 'new_invoices?', nth => 4 }, do => 'reset_after' });
$v = $t->rows(q{SELECT * FROM dvmig.verify('m', 'staging.invoices')})->[0];
is(figures($v), sprintf('compared=%d equal=%d missing=1 different=3 changed_since=1 extra=3 owners_changed=1', ROWS - 3, ROWS - 8),
	'answers that fail are asked for again, and count once');

# ------------------------------------------------------------------ states and files

$t->sql(q{
	CREATE TABLE staging.regions (id int PRIMARY KEY, name text, state text);
	INSERT INTO staging.regions SELECT n, 'Region ' || n, CASE n % 3 WHEN 0 THEN 'Inactive' WHEN 1 THEN 'active' END FROM generate_series(1, 90) n;
	CREATE TABLE staging.papers (id text PRIMARY KEY, document bytea, file_name text);
	INSERT INTO staging.papers SELECT 'P' || n, 'content', n || '.txt' FROM generate_series(1, 9) n});
$t->migration('m2', tables => 'new_region');
$t->sql(q{
	SELECT dvmig.add_table('m2', 'staging.regions', 'new_region', auto_map => false);
	SELECT dvmig.map_column('staging.regions', 'new_name', 'name');
	SELECT dvmig.map_choice('staging.regions', 'statecode', 'state');
	SELECT dvmig.add_table('m2', 'staging.papers', 'new_invoice', auto_map => false);
	SELECT dvmig.map_column('staging.papers', 'new_invoicenumber', 'id');
	SELECT dvmig.map_file('staging.papers', 'new_document', 'document', 'file_name')});
is($t->run('m2')->{state}, 'completed', 'states are set and files uploaded');
is($t->sql(q{SELECT string_agg(concat_ws(' ', staging, compared, result, not_compared), '; ' ORDER BY staging) FROM dvmig.verify('m2')}),
	'staging.papers 9 equal {}; staging.regions 90 equal {}', 'states and files are compared');
plant($sim, [ 'new_regions', $t->sql('SELECT dataverse_id FROM staging.regions WHERE id = 3'), { statecode => 0, statuscode => 1 } ]);
is($t->sql(q{SELECT result FROM dvmig.verify('m2', 'staging.regions')}), 'different', 'another state');
is($t->sql(q{SELECT string_agg(concat_ws(' ', source_key, column_name, expected, found), ';') FROM dvmig.difference WHERE staging = 'staging.regions'}),
	'3 statecode 1 0', 'is found');

# a file that cannot be read is that row's fault, and no reason to pass over its neighbours
$t->sql(q{
	CREATE TABLE staging.slips (id text PRIMARY KEY, document bytea, file_name text);
	INSERT INTO staging.slips SELECT 'S' || n, 'content', n || '.txt' FROM generate_series(1, 20) n;
	SELECT dvmig.add_table('m2', 'staging.slips', 'new_invoice', auto_map => false);
	SELECT dvmig.map_column('staging.slips', 'new_invoicenumber', 'id');
	SELECT dvmig.map_file('staging.slips', 'new_document', $$CASE WHEN id = 'S4' THEN decode(file_name, 'hex') ELSE document END$$, 'file_name')});
$t->run('m2');
is($t->sql(q{SELECT concat_ws(' ', compared, equal, extra) FROM dvmig.verify('m2', 'staging.slips')}), '19 19 0', 'all rows beside one whose file throws are compared');

# --------------------------------------------------- other records with a row's key

$t->sql(q{
	CREATE TABLE staging.branches (no text PRIMARY KEY, name text);
	INSERT INTO staging.branches SELECT 'B' || n, 'Branch ' || n FROM generate_series(1, 20) n;
	CREATE TABLE staging.others (no text PRIMARY KEY, name text);
	INSERT INTO staging.others VALUES ('B7', 'of another source, with an equal number');
	SELECT dvmig.add_table('m2', 'staging.branches', 'account', target_key => 'accountnumber', auto_map => false);
	SELECT dvmig.map_column('staging.branches', 'name', 'name');
	SELECT dvmig.add_table('m2', 'staging.others', 'account', target_key => 'accountnumber', auto_map => false);
	SELECT dvmig.map_column('staging.others', 'name', 'name')});
is($t->run('m2')->{state}, 'completed', 'records that carry their keys');
is($t->sql(q{SELECT string_agg(concat_ws(' ', staging, result), '; ' ORDER BY staging) FROM dvmig.verify('m2') WHERE target = 'account'}),
	'staging.branches equal; staging.others equal', 'records of another staging table are its own');
my $twin = $sim->create('accounts', { name => 'made twice', accountnumber => 'B3' })->{accountid};
plant($sim, [ 'accounts', $t->sql(q{SELECT dataverse_id FROM staging.branches WHERE no = 'B5'}), undef ]);
my $again = $sim->create('accounts', { name => 'made anew by hand', accountnumber => 'B5' })->{accountid};
is($t->sql(q{SELECT concat_ws(' ', compared, equal, missing, extra) FROM dvmig.verify('m2', 'staging.branches')}), '20 19 1 2', 'another record with the key of a row is extra, be its own there or missing');
is($t->sql(q{SELECT string_agg(concat_ws(' ', source_key, kind, column_name, found, CASE WHEN kind = 'extra' THEN dataverse_id END), '; ' ORDER BY source_key, kind) FROM dvmig.difference WHERE staging = 'staging.branches'}),
	"B3 extra accountnumber B3 $twin; B5 extra accountnumber B5 $again; B5 missing", 'and is told with its id');

# ------------------------------------------- what the service fills in, where few rows tell

$t->sql(q{
	CREATE TABLE staging.bills (no text PRIMARY KEY, disputed bool, kind text);
	INSERT INTO staging.bills SELECT 'B-' || n, CASE WHEN n <> 2 THEN n % 2 = 0 END, 'invoice' FROM generate_series(1, 40) n;
	SELECT dvmig.add_table('m2', 'staging.bills', 'new_invoice', auto_map => false);
	SELECT dvmig.map_column('staging.bills', 'new_invoicenumber', 'no');
	SELECT dvmig.map_column('staging.bills', 'new_disputed', 'disputed');
	SELECT dvmig.map_choice('staging.bills', 'new_kind', 'kind')});
is($t->run('m2')->{state}, 'completed', 'rows of which one has no value');
my $few = q{SELECT concat_ws(' ', compared, equal, different, result) FROM dvmig.verify('m2', 'staging.bills')};
is($t->sql($few), '40 40 0 equal', 'what is filled in is no difference');
my $bill = $t->sql(q{SELECT dataverse_id FROM staging.bills WHERE no = 'B-2'});
my ($filled) = map { $_->{new_disputed} } grep { lc $_->{new_invoiceid} eq $bill } @{ $sim->export('new_invoices') };
plant($sim, [ 'new_invoices', $bill, { new_disputed => $filled ? JSON::PP::false : JSON::PP::true, new_kind => 100000001 } ]);
is($t->sql($few), '40 39 1 different', 'a column that was sent is compared');
$t->sql(q{
	INSERT INTO staging.bills SELECT 'BA-' || n, n % 2 = 0, 'invoice' FROM generate_series(1, 3000) n;
	INSERT INTO staging.bills SELECT 'C-' || n, NULL, NULL FROM generate_series(1, 20) n});
$t->run('m2');
plant($sim, map { [ 'new_invoices', $_, { new_kind => 100000000 } ] } $bill);
is($t->sql($few), '3060 3059 1 different', 'rows of later answers tell what was filled in in the first one');
is($t->sql(q{SELECT concat_ws(' ', source_key, column_name, kind) FROM dvmig.difference WHERE staging = 'staging.bills'}), 'B-2 new_disputed different', 'and it is named');

done_testing();

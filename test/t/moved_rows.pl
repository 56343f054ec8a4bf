# The passes that follow the one that writes, beside users: rows that move while
# something of theirs is on its way (VACUUM FULL, CLUSTER, an edit that asks for
# nothing), a table that is locked, a pause
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Digest::MD5 qw(md5_hex);
use JSON::PP;
use Test::More;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'moved_rows');
my $t = $h->t;
my $n = 40;
my $run;

$t->sql("ALTER DATABASE postgres SET dvmig.settle_time = '300ms'");

# --- states: an update that is held while all rows move
$t->sql(qq{
	CREATE TABLE regions (id int PRIMARY KEY, name text, state text, spare text);
	INSERT INTO regions SELECT i, 'Region ' || i, 'Inactive' FROM generate_series(1, $n) i});
$t->migration('s', tables => 'new_region');
$t->sql(q{
	SELECT dvmig.add_table('s', 'regions', 'new_region', source_key => 'id', auto_map => false);
	SELECT dvmig.map_column('regions', 'new_name', 'name');
	SELECT dvmig.map_choice('regions', 'statecode', 'state')});

for my $how ([ 'VACUUM FULL', 'VACUUM FULL regions' ], [ 'CLUSTER', 'CLUSTER regions USING regions_pkey' ], [ 'an edit', q{UPDATE regions SET spare = 'noted' WHERE id <= 10} ])
{
	my ($name, $sql) = @$how;

	$t->sql(q{UPDATE regions SET processing_flag = 'U', name = name || '+', state = CASE state WHEN 'Active' THEN 'Inactive' ELSE 'Active' END}) if $run;
	$h->{migration} = 's';
	$h->hold(method => 'POST', path_contains => 'UpdateMultiple', body_contains => 'statecode');
	$run = $h->start(arguments => 'resend => true');
	$t->sql($sql);
	$h->release;
	$h->ends($run, 'completed', "states beside $name: the run completes");
	is($t->sql('SELECT count(*) FROM regions_success WHERE owed_passes IS NOT NULL'), 0, "states beside $name: nothing is owed");
	is($t->sql(q{SELECT string_agg(DISTINCT processing_flag, '') FROM regions}), 'P', "states beside $name: and every row says so");
}

# --- a row whose last pass failed while it moved: its record was deleted by somebody else
$t->sql(q{UPDATE regions SET processing_flag = 'U', state = CASE state WHEN 'Active' THEN 'Inactive' ELSE 'Active' END});
$h->hold(method => 'POST', path_contains => 'UpdateMultiple', body_contains => 'statecode');
$run = $h->start(arguments => 'resend => true');
$t->sim->sim('POST', 'import', { set => 'new_regions', id => $t->sql('SELECT dataverse_id FROM regions WHERE id = 7'), delete => JSON::PP::true });
$t->sql('VACUUM FULL regions');
$h->release;
$run = $h->ends($run, 'completed', 'states that fail beside VACUUM FULL: the run completes');
is($t->counts('regions'), "$n/0/" . ($n - 1) . '/1/0', 'states that fail beside VACUUM FULL: figures');
is($t->sql(q{SELECT string_agg(concat_ws(' ', s.id, e.error_class), ', ') FROM regions s LEFT JOIN regions_error e USING (id) WHERE s.processing_flag <> 'P'}), '7 gone',
	'states that fail beside VACUUM FULL: the row has its flag');
is("$run->{succeeded}/$run->{failed}", ($n - 1) . '/1', 'states that fail beside VACUUM FULL: each row counts once');

# --- files: one row after the other, while all rows move
$t->sql(qq{
	CREATE TABLE invoices (id int PRIMARY KEY, name text, document bytea);
	INSERT INTO invoices SELECT i, 'Invoice ' || i, convert_to('file ' || i, 'UTF8') FROM generate_series(1, $n) i});
$t->migration('f', tables => 'new_invoice');
$t->sql(q{
	SELECT dvmig.add_table('f', 'invoices', 'new_invoice', source_key => 'id', auto_map => false);
	SELECT dvmig.map_column('invoices', 'new_invoicenumber', 'name');
	SELECT dvmig.map_file('invoices', 'new_document', 'document')});
$h->{migration} = 'f';
$h->hold(method => 'PATCH', path_contains => 'new_document', nth => 5);
$run = $h->start;
$t->sql('VACUUM FULL invoices');
$h->release;
$h->ends($run, 'completed', 'files beside VACUUM FULL: the run completes');
is($t->sql(q{SELECT string_agg(DISTINCT processing_flag, '') FROM invoices}), 'P', 'files beside VACUUM FULL: nothing is owed');
my $token = $t->sim->token;
for my $r (@{ $t->rows('SELECT id, dataverse_id AS record, md5(document) AS digest FROM invoices ORDER BY id') })
{
	my ($status, $bytes) = $t->sim->curl('GET', "/api/data/v9.2/new_invoices($r->{record})/new_document/\$value", undef,
		"Authorization: Bearer $token", 'OData-Version: 4.0', 'OData-MaxVersion: 4.0');
	is(md5_hex($bytes), $r->{digest}, "file $r->{id} is that of its row");
}

# --- a user who locks the table is not waited for in a transaction, and a file name that cannot be made fails its row alone
$t->sql(q{SELECT dvmig.unmap('invoices', 'new_document');
	SELECT dvmig.map_file('invoices', 'new_document', 'document', $$'file ' || 10 / (id - 3)$$);
	UPDATE invoices SET processing_flag = 'U', document = convert_to(repeat('newer ', CASE id WHEN 1 THEN 1500000 ELSE 1 END), 'UTF8')});
$h->hold(method => 'PATCH', path_contains => 'sessiontoken');
$run = $h->start(arguments => 'resend => true');
my $user = $h->session;
$user->do('BEGIN; LOCK TABLE invoices');
$h->release;
ok($t->wait_for(q{SELECT true FROM pg_locks WHERE relation = 'invoices'::regclass AND NOT granted}), 'files beside a lock on the table: the run comes to it');
$t->sql("SELECT dvmig.stop($run)");
$h->ends($run, 'stopped', 'files beside a lock on the table: the run can be stopped');
$user->do('COMMIT');
$user->quit;
is($t->run('f', 'resend => true')->{state}, 'completed', 'files after a lock on the table: the run completes');
is($t->sql(q{SELECT string_agg(processing_flag || id, ' ') FROM invoices WHERE processing_flag <> 'P'}), 'E3', 'one file name cannot be made');
is($t->sql(q{SELECT concat_ws(' ', error_class, code, error_column) FROM invoices_error}), 'transform 22012 new_document', 'and its row says so');

# --- a run that is paused sends no file
$t->sql(q{UPDATE invoices SET processing_flag = 'U', document = convert_to('newest ' || id, 'UTF8') WHERE id > 3});
$h->hold(method => 'PATCH', path_contains => 'new_document', nth => 5);
$run = $h->start(arguments => 'resend => true');
$t->sql("SELECT dvmig.pause($run)");
my $mirror = "FROM dvmig.run_history WHERE run = $run";
my $seen = $t->sql("SELECT updated_at $mirror");
ok($t->wait_for("SELECT updated_at > '$seen' $mirror"), 'files beside a pause: it is seen while an upload is waited for');
$h->release;
for (1 .. 3)
{
	ok($t->wait_for("SELECT updated_at > '$seen' $mirror"), 'files beside a pause: the run lives');
	$seen = $t->sql("SELECT updated_at $mirror");
}
is($t->sql("SELECT state || ' ' || in_flight FROM dvmig.progress WHERE run = $run"), 'paused 0', 'files beside a pause: nothing is in flight');
is($t->sql(q{SELECT count(*) FROM invoices WHERE processing_flag = 'P' AND id > 3}), 5, 'files beside a pause: no more than was on its way');
$t->sql("SELECT dvmig.resume($run)");
$h->ends($run, 'completed', 'files beside a pause: the run goes on');
is($t->sql(q{SELECT count(*) FROM invoices WHERE processing_flag = 'P' AND id > 3}), $n - 3, 'files beside a pause: with all of them');

# --- nor is a user who locks the table waited for in a transaction while keys of references are collected
$t->sql(q{
	CREATE TABLE people (id int PRIMARY KEY, family text, owner text);
	INSERT INTO people SELECT i, 'Family ' || i, 'user1@example.org' FROM generate_series(1, 5) i});
$t->migration('r', tables => 'contact,systemuser');
$t->sql(q{
	SELECT dvmig.add_table('r', 'people', 'contact', source_key => 'id', auto_map => false);
	SELECT dvmig.map_column('people', 'lastname', 'family');
	SELECT dvmig.map_lookup('people', 'ownerid', 'owner', 'systemuser', match_on => 'internalemailaddress')});
$h->{migration} = 'r';
$h->hold(method => 'GET', path_contains => 'WhoAmI');
$run = $h->start;
$user = $h->session;
$user->do('BEGIN; LOCK TABLE people');
$h->release;
ok($t->wait_for(q{SELECT true FROM pg_locks WHERE relation = 'people'::regclass AND NOT granted}), 'references beside a lock on the table: the run comes to it');
$t->sql("SELECT dvmig.stop($run)");
$h->ends($run, 'stopped', 'references beside a lock on the table: the run can be stopped');
$user->do('COMMIT');
$user->quit;
is($t->run('r')->{state}, 'completed', 'references after a lock on the table: the run completes');
is($t->counts('people'), '5/0/5/0/0', 'references after a lock on the table: with all rows');

done_testing();

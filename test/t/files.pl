# Files: small and in chunks, from bytea and large objects; notes with attachments
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Digest::MD5 qw(md5_hex);
use MIME::Base64 qw(decode_base64);
use Test::More;

use DvMig;

my $mb = 1024 * 1024;

# uploaded(t, set, id, column): digest of what Dataverse holds
sub uploaded
{
	my ($t, $path) = @_;
	my $token = $t->sim->token;
	my ($status, $bytes) = $t->sim->curl('GET', "/api/data/v9.2/$path/\$value", undef, "Authorization: Bearer $token", 'OData-Version: 4.0', 'OData-MaxVersion: 4.0');
	return $status == 200 ? md5_hex($bytes) : "status $status";
}

for my $profile (qw(strict lenient odd))
{
	my $t = DvMig->new(profile => $profile, name => "files_$profile");
	my $run;

	$t->sql(q{
		ALTER DATABASE postgres SET dvmig.settle_time = '300ms';
		CREATE SCHEMA staging;
		CREATE TABLE staging.invoices (id int PRIMARY KEY, name text, document bytea, file_name text);
		ALTER TABLE staging.invoices ALTER document SET STORAGE EXTERNAL;
		INSERT INTO staging.invoices SELECT n, 'I' || n, CASE WHEN n <= 10 THEN convert_to(repeat('file ' || n || ' ', 1000), 'UTF8') END, format('Rechnung %s ä.pdf', n) FROM generate_series(1, 20) n;
		UPDATE staging.invoices SET document = (SELECT string_agg(decode(md5(i::text), 'hex'), '') FROM generate_series(1, 600000) i), file_name = 'large.bin' WHERE id = 3;
		UPDATE staging.invoices SET document = decode(repeat('00', 33 * 1024 * 1024), 'hex') WHERE id = 5;
		UPDATE staging.invoices SET document = '' WHERE id = 6});
	$t->migration('m', tables => 'new_invoice');
	$t->sql(q{
		SELECT dvmig.add_table('m', 'staging.invoices', 'new_invoice', source_key => 'id', auto_map => false);
		SELECT dvmig.map_column('staging.invoices', 'new_invoicenumber', 'name');
		SELECT dvmig.map_file('staging.invoices', 'new_document', 'document', 'file_name')});
	like($t->error(q{SELECT dvmig.map_file('staging.invoices', 'new_invoicenumber', 'document')}), qr/not a file/, "$profile: a file column is wanted");

	$t->sim->fault({ match => { method => 'PATCH', path_contains => 'sessiontoken' }, nth => 2, count => 1, do => 'reset_after' });
	$t->sim->fault({ match => { method => 'PATCH', path_contains => 'new_document' }, nth => 2, count => 1, do => 'throttle', retry_after => 1 });
	$run = $t->run('m');
	is($run->{state}, 'completed', "$profile: the run completes");
	is($t->counts('staging.invoices'), '20/0/19/1/0', "$profile: a file that is too big fails");
	is($t->sql(q{SELECT error_class || ' ' || code || ' ' || error_column || ' ' || (dataverse_id IS NOT NULL) FROM staging.invoices_error}), 'length file_too_big new_document true',
		"$profile: without having been sent");
	for my $r (@{ $t->rows(q{SELECT id, dataverse_id AS record, md5(document) AS digest FROM staging.invoices WHERE document IS NOT NULL AND id <> 5 ORDER BY id}) })
	{
		is(uploaded($t, "new_invoices($r->{record})/new_document"), $r->{digest}, "$profile: file $r->{id}");
	}
	like((grep { $_->{new_invoicenumber} eq 'I1' } @{ $t->sim->export('new_invoices') })[0]{new_document_name} // '', qr/^Rechnung 1 .*\.pdf$/, "$profile: with its name");

	# --- a reload uploads what changed, and no more
	$t->sql(q{UPDATE staging.invoices SET processing_flag = 'U' WHERE id < 5; UPDATE staging.invoices SET document = 'changed' WHERE id = 2});
	$run = $t->run('m');
	is($run->{state}, 'completed', "$profile: a reload completes");
	is($t->sql(q{SELECT string_agg(id || ':' || coalesce(message, 'sent'), ' ' ORDER BY id) FROM staging.invoices_success WHERE id < 5}),
		'1:files unchanged 2:files uploaded 3:files unchanged 4:files unchanged', "$profile: only what changed is uploaded");
	is(uploaded($t, 'new_invoices(' . $t->sql('SELECT dataverse_id FROM staging.invoices WHERE id = 2') . ')/new_document'), md5_hex('changed'), "$profile: the new file");
	$t->account('m', 'staging.invoices' => { new_invoicenumber => 's.name' });

	# --- from large objects
	$t->sql(q{
		ALTER TABLE staging.invoices ADD scan oid;
		UPDATE staging.invoices SET scan = lo_from_bytea(0, document), processing_flag = 'U' WHERE id IN (3, 4);
		UPDATE staging.invoices SET scan = lo_from_bytea(0, 'from a large object'), processing_flag = 'U' WHERE id = 7;
		SELECT dvmig.unmap('staging.invoices', 'new_document');
		SELECT dvmig.map_file('staging.invoices', 'new_document', 'scan', 'file_name')});
	$run = $t->run('m');
	is($run->{state}, 'completed', "$profile: large objects");
	is(uploaded($t, 'new_invoices(' . $t->sql('SELECT dataverse_id FROM staging.invoices WHERE id = 7') . ')/new_document'), md5_hex('from a large object'), "$profile: the file is its bytes");
	is($t->sql(q{SELECT string_agg(id || ':' || coalesce(message, 'sent'), ' ' ORDER BY id) FROM staging.invoices_success WHERE id IN (3, 4, 7)}), '3:files unchanged 4:files unchanged 7:files uploaded',
		"$profile: the same bytes are the same file");

	# --- what is passed over goes with uploads, too
	$t->sim->set(bypass_privilege => 'off');
	$t->sql(q{SELECT dvmig.set_table('staging.invoices', 'bypass_custom_logic', 'sync'); UPDATE staging.invoices SET scan = lo_from_bytea(0, 'another'), processing_flag = 'U' WHERE id = 7});
	$t->{quiet} = 1;
	$run = $t->run('m');
	like("$run->{state} $run->{message}", qr/^failed .*prvBypassCustomBusinessLogic/, "$profile: an upload says what it passes over");
	$t->sim->set(bypass_privilege => 'on');
	is($t->run('m')->{state}, 'completed', "$profile: with the privilege it goes");
	is(uploaded($t, 'new_invoices(' . $t->sql('SELECT dataverse_id FROM staging.invoices WHERE id = 7') . ')/new_document'), md5_hex('another'), "$profile: and is there");

	# --- a verification reads them back, byte by byte
	my @headers = ('Authorization: Bearer ' . $t->sim->token, 'OData-Version: 4.0', 'OData-MaxVersion: 4.0', 'Content-Type: application/octet-stream', 'x-ms-file-name: x');
	my %record = map { $_->{id} => "/api/data/v9.2/new_invoices($_->{dataverse_id})/new_document" } @{ $t->rows('SELECT id, dataverse_id FROM staging.invoices') };
	$t->sql(q{SELECT dvmig.unmap('staging.invoices', 'new_document');
		SELECT dvmig.map_file('staging.invoices', 'new_document', $$coalesce(CASE WHEN scan IS NOT NULL THEN lo_get(scan) END, document)$$, 'file_name')});
	is($t->sql(q{SELECT concat_ws(' ', result, compared, not_compared) FROM dvmig.verify('m')}), 'equal 19 {}', "$profile: files are as they were sent")
	  or diag($t->sql('SELECT * FROM dvmig.difference'));
	my $bytes = $t->sql(q{SELECT encode(overlay(lo_get(scan) placing '\x00' from 5000000), 'hex') FROM staging.invoices WHERE id = 3});
	is(($t->sim->curl('PATCH', $record{3}, pack('H*', $bytes), @headers))[0], 204, "$profile: one byte of many is another");
	is(($t->sim->curl('PATCH', $record{4}, 'shorter', @headers))[0], 204, "$profile: a file is shorter");
	is(($t->sim->curl('DELETE', $record{8}, undef, @headers))[0], 204, "$profile: one is deleted");
	is($t->sql(q{SELECT concat_ws(' ', result, compared, equal, different) FROM dvmig.verify('m')}), 'different 19 16 3', "$profile: a verification finds each");
	is($t->sql(q{SELECT string_agg(concat_ws(' ', source_key, column_name, kind, split_part(expected, ',', 1), split_part(found, ',', 1)), '; ' ORDER BY source_key) FROM dvmig.difference}),
		'3 new_document different 9600000 bytes 9600000 bytes; 4 new_document different 7000 bytes 7 bytes; 8 new_document different 7000 bytes', "$profile: with its size and hash");
	$t->sim->stop;
	$t->node->stop;
}

done_testing();

# Many-to-many links, parties, and what is uploaded: files, images, notes
use strict;
use warnings;

use MIME::Base64 qw(decode_base64 encode_base64);
use Test::More;

use Sim qw(esc guid);
use Sim::Batch qw(op batch);
use Sim::Check;

my $sim = Sim->start;
my $api = $sim->api;
my $list = $sim->create('new_playlists', {new_name => 'list'});
my @tracks = map {$sim->create('new_tracks', {new_name => "t$_", new_tracknumber => $_})} 1 .. 4;
my $nav = 'new_playlist_new_track';

sub linked
{
	my ($name, @wanted) = @_;
	my $r = $sim->req('GET', "new_playlists($list)?\$select=new_name&\$expand=$nav(\$select=new_name)");
	accepted($r, 200, "$name: read") or return;
	return is(join(' ', sort map {$_->{new_name}} @{$r->json->{$nav}}), join(' ', @wanted), $name);
}

# --- links
accepted($sim->req('POST', "new_playlists($list)/$nav/\$ref", {'@odata.id' => "$api/new_tracks($tracks[0])"}), 204, 'link');
accepted($sim->req('POST', "new_tracks($tracks[1])/$nav/\$ref", {'@odata.id' => "$api/new_playlists($list)"}), 204, 'from the other side');
accepted($sim->req('POST', "new_playlists($list)/$nav/\$ref", {'@odata.id' => "new_tracks(new_tracknumber=3)"}), 204, 'a relative reference by key');
linked('three links', 't1', 't2', 't3');
refused($sim->req('POST', "new_playlists($list)/$nav/\$ref", {'@odata.id' => "$api/new_tracks($tracks[0])"}), 412, '0x80040237',
	qr/duplicate key/i, 'a link that is there');
is($sim->req('POST', "new_playlists($list)/$nav/\$ref", {'@odata.id' => "$api/new_tracks(" . guid() . ')'})->{status}, 404,
	'a link to nothing');
isnt($sim->req('POST', "new_playlists($list)/$nav/\$ref", {'@odata.id' => "$api/accounts(" . guid() . ')'})->{status}, 204, 'another table');
isnt($sim->req('POST', "new_playlists($list)/New_Playlist_New_Track/\$ref", {'@odata.id' => "$api/new_tracks($tracks[3])"})->{status}, 204,
	'a wrong name');
isnt($sim->req('POST', "new_playlists($list)/$nav/\$ref", {})->{status}, 204, 'no reference');
accepted($sim->req('DELETE', "new_playlists($list)/$nav($tracks[0])/\$ref"), 204, 'unlink by key');
accepted($sim->req('DELETE', "new_playlists($list)/$nav/\$ref?\$id=" . esc("$api/new_tracks($tracks[1])")), 204, 'unlink by $id');
linked('one link stays', 't3');
{
	my $r = batch($sim, [map {op('POST', "new_playlists($list)/$nav/\$ref", {'@odata.id' => "$api/new_tracks($_)"})} @tracks], continue => 1);
	accepted($r, 200, 'links in a batch');
	is_deeply([map {$_->{status}} @{$r->{parts}}], [204, 204, 412, 204], 'each with its verdict');
	linked('all linked', 't1', 't2', 't3', 't4');
}
accepted($sim->req('DELETE', "new_tracks($tracks[3])"), 204, 'a linked row may be deleted');
linked('its link goes with it', 't1', 't2', 't3');
{
	my $account = $sim->create('accounts', {name => 'a'});
	my $lead = $sim->create('leads', {subject => 'l', lastname => 'x'});
	accepted($sim->req('POST', "accounts($account)/accountleads_association/\$ref", {'@odata.id' => "$api/leads($lead)"}), 204,
		'accountleads_association');
	is($sim->req('GET', "leads($lead)/accountleads_association?\$select=name")->json->{value}[0]{accountid}, $account, 'read from the lead');
	my $contact = $sim->create('contacts', {lastname => 'c'});
	accepted($sim->req('PUT', "accounts($account)/primarycontactid/\$ref", {'@odata.id' => "$api/contacts($contact)"}), 204, 'PUT of a single one');
	field_is($sim->row('accounts', $account), '_primarycontactid_value', $contact, 'is set');
	accepted($sim->req('DELETE', "accounts($account)/primarycontactid/\$ref"), 204, 'DELETE of a single one');
	field_is($sim->row('accounts', $account), '_primarycontactid_value', undef, 'is cleared');
	accepted($sim->req('POST', "accounts($account)/contact_customer_accounts/\$ref", {'@odata.id' => "$api/contacts($contact)"}), 204,
		'add to a collection');
	field_is($sim->row('contacts', $contact), '_parentcustomerid_value', $account, 'sets the lookup over there');
	accepted($sim->req('DELETE', "accounts($account)/contact_customer_accounts($contact)/\$ref"), 204, 'take out of it');
	field_is($sim->row('contacts', $contact), '_parentcustomerid_value', undef, 'clears it');
}

# --- parties
{
	my $contact = $sim->create('contacts', {lastname => 'to'});
	my $r = $sim->req('POST', 'emails', {subject => 'S', email_activity_parties => [
		{'partyid_systemuser@odata.bind' => '/systemusers(' . Sim::USER . ')', participationtypemask => 1},
		{'partyid_contact@odata.bind' => "/contacts($contact)", participationtypemask => 2}]});
	accepted($r, 204, 'an e-mail with parties');
	my $parties = sub
	{
		my $answer = $sim->req('GET', 'emails(' . $r->entity_id . ')/email_activity_parties');
		return join ' ', sort map {"$_->{participationtypemask}:$_->{_partyid_value}"} @{$answer->json->{value}};
	};
	is($parties->(), '1:' . Sim::USER . " 2:$contact", 'who takes part');
	accepted($sim->req('PUT', 'emails(' . $r->entity_id . ')/email_activity_parties', {value => [
		{'partyid_contact@odata.bind' => "/contacts($contact)", participationtypemask => 3}]}), 204, 'the list is replaced');
	is($parties->(), "3:$contact", 'as a whole');
}

# --- files
my $invoice = $sim->create('new_invoices', {new_invoicenumber => 'F'});
my $bytes = join '', map {chr($_ % 256)} 0 .. 9999;
my %binary = ('Content-Type' => 'application/octet-stream');
accepted($sim->req('PATCH', "new_invoices($invoice)/new_document", $bytes, {%binary, 'x-ms-file-name' => 'a.pdf'}), 204, 'upload a file');
my $r = $sim->req('GET', "new_invoices($invoice)/new_document/\$value");
accepted($r, 200, 'download it');
ok($r->{body} eq $bytes, 'byte by byte');
$r = $sim->req('GET', "new_invoices($invoice)/new_document/\$value", undef, {Range => 'bytes=5000-12000'});
accepted($r, 206, 'a range of it');
ok($r->{body} eq substr($bytes, 5000), 'up to its end');
is($r->header('content-range'), 'bytes 5000-9999/10000', 'which the answer tells');
refused($sim->req('GET', "new_invoices($invoice)/new_document/\$value", undef, {Range => 'bytes=10000-10001'}), 416, '0x80040203', qr/range/, 'a range behind its end');
my $row = $sim->row('new_invoices', $invoice);
like($row->{new_document} // '', qr/^[0-9a-f-]{36}$/, 'the row has an id of the file');
is($row->{new_document_name}, 'a.pdf', 'and its name');
accepted($sim->req('DELETE', "new_invoices($invoice)/new_document"), 204, 'delete it');
field_is($sim->row('new_invoices', $invoice), 'new_document', undef, 'it is gone');
refused($sim->req('PATCH', "new_invoices($invoice)/new_document", 'x' x (32768 * 1024 + 1), {%binary, 'x-ms-file-name' => 'big'}), 400,
	'0x80044a02', qr/too big/, 'a file that is too big');

for my $type ('text/plain', undef)
{
	isnt($sim->req('PATCH', "new_invoices($invoice)/new_document", 'x', {'Content-Type' => $type, 'x-ms-file-name' => 'a'})->{status}, 204,
		'a file that comes as ' . ($type // 'nothing'));
}

# in chunks
$r = $sim->req('PATCH', "new_invoices($invoice)/new_document?x-ms-file-name=b.bin", '', {'x-ms-transfer-mode' => 'chunked', 'Content-Type' => undef});
accepted($r, 200, 'begin an upload in chunks');
my $location = $r->header('location') // '';
like($r->header('x-ms-chunk-size') // '', qr/^\d+$/, 'x-ms-chunk-size');
like($location, qr/sessiontoken=/, 'Location has a session token');
$location =~ s{^http://[^/]+}{};
my $total = length $bytes;
$r = $sim->req('PATCH', $location, substr($bytes, 0, 6000), {%binary, 'x-ms-file-name' => 'b.bin', 'Content-Range' => "bytes 0-5999/$total"});
accepted($r, 206, 'a chunk');
$r = $sim->req('PATCH', $location, substr($bytes, 6000), {%binary, 'x-ms-file-name' => 'b.bin', 'Content-Range' => "bytes 6000-9999/$total"});
accepted($r, 204, 'the last chunk');
ok($sim->req('GET', "new_invoices($invoice)/new_document/\$value")->{body} eq $bytes, 'all bytes are there');

# a last chunk of one byte, chunks out of order
for my $case ([[0, 9998], [9999, 9999], 1], [[0, 5999], [7000, 9999], 0])
{
	my ($first, $last, $fits) = @$case;
	$r = $sim->req('PATCH', "new_invoices($invoice)/new_document?x-ms-file-name=c.bin", '', {'x-ms-transfer-mode' => 'chunked', 'Content-Type' => undef});
	my $to = ($r->header('location') // '') =~ s{^http://[^/]+}{}r;
	my @status = map {$sim->req('PATCH', $to, substr($bytes, $_->[0], $_->[1] - $_->[0] + 1),
		{%binary, 'x-ms-file-name' => 'c.bin', 'Content-Range' => "bytes $_->[0]-$_->[1]/$total"})->{status}} $first, $last;
	is("@status", $fits ? '206 204' : '206 400', $fits ? 'a last chunk of one byte' : 'a gap between chunks');
}
is($sim->row('new_invoices', $invoice)->{new_document_name}, 'c.bin', 'the last whole file counts');

# --- images and notes
my $png = encode_base64("\x89PNG\r\n\x1a\n" . 'x' x 50, '');
my $account = $sim->create('accounts', {name => 'i', entityimage => $png});
ok($sim->row('accounts', $account, '$select=entityimage')->{entityimage}, 'an image in the row');
isnt($sim->req('POST', 'accounts', {name => 'i', entityimage => 'no base64!'})->{status}, 204, 'an image that is not base64');
is($sim->row('accounts', $account, '$select=entityimageid')->{entityimageid} =~ /^[0-9a-f-]{36}$/, 1, 'which has an id');
is($sim->req('GET', "accounts($account)/entityimage/\$value?size=full")->{status}, 404, 'of which the thumbnail alone is kept');
is($sim->req('GET', "accounts($account)/entityimage/\$value")->{status}, 200, 'and told');
my $scanned = $sim->create('new_invoices', {new_invoicenumber => 'scanned', new_scan => $png});
my $before = $sim->row('new_invoices', $scanned)->{new_scanid};
$r = $sim->req('GET', "new_invoices($scanned)/new_scan/\$value?size=full");
is("$r->{status} $r->{body}", "200 \x89PNG\r\n\x1a\n" . 'x' x 50, 'an image that is kept as it came');
$r = $sim->req('GET', "new_invoices($scanned)/new_scan/\$value?size=full", undef, {Range => 'bytes=1-3'});
is("$r->{status} $r->{body}", '206 PNG', 'a part of it');
isnt($sim->req('GET', "new_invoices($scanned)/new_scan/\$value")->{body}, "\x89PNG\r\n\x1a\n" . 'x' x 50, 'its thumbnail is another');
accepted($sim->req('PATCH', "new_invoices($scanned)", {new_scan => encode_base64('other', '')}), 204, 'another image');
isnt($sim->row('new_invoices', $scanned)->{new_scanid}, $before, 'has another id');
accepted($sim->req('PATCH', "new_invoices($scanned)", {new_scan => undef}), 204, 'no image');
is($sim->row('new_invoices', $scanned, '$select=new_scanid')->{new_scanid}, undef, 'has none');
is($sim->req('GET', "new_invoices($scanned)/new_scan/\$value?size=full")->{status}, 204, 'and nothing to tell');
my $body = encode_base64($bytes, '');
my $note = $sim->create('annotations', {subject => 's', filename => 'a.bin', notetext => "n\r\nn", documentbody => $body,
	'objectid_account@odata.bind' => "accounts($account)"});
$row = $sim->row('annotations', $note);
field_is($row, 'documentbody', $body, 'a note with an attachment');
field_is($row, '_objectid_value', $account, 'of an account');

done_testing;

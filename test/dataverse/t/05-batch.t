# $batch: framing byte by byte, change sets, stopping and continuing, and what is refused as a whole
use strict;
use warnings;

use Test::More;

use Sim qw(guid json_of);
use Sim::Batch qw(op change_set batch batch_body batch_parts);
use Sim::Check;

my $sim = Sim->start;
my $api = $sim->api;
my $guid = qr/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/;

# --- a batch written out by hand: single operation, change set, read
my $one = guid();
my @lines = (
	'--batch_a1',
	'Content-Type: application/http',
	'Content-Transfer-Encoding: binary',
	'',
	'POST /api/data/v9.2/accounts HTTP/1.1',
	'Content-Type: application/json; type=entry',
	'',
	qq({"accountid":"$one","name":"one"}),
	'--batch_a1',
	'Content-Type: multipart/mixed; boundary="changeset_b1"',
	'',
	'--changeset_b1',
	'Content-Type: application/http',
	'Content-Transfer-Encoding: binary',
	'Content-ID: 1',
	'',
	'POST /api/data/v9.2/accounts HTTP/1.1',
	'Content-Type: application/json; type=entry',
	'',
	'{"name":"two"}',
	'--changeset_b1',
	'Content-Type: application/http',
	'Content-Transfer-Encoding: binary',
	'Content-ID: 2',
	'',
	'PATCH $1 HTTP/1.1',
	'Content-Type: application/json; type=entry',
	'',
	'{"description":"x"}',
	'--changeset_b1--',
	'',
	'--batch_a1',
	'Content-Type: application/http',
	'Content-Transfer-Encoding: binary',
	'',
	'GET /api/data/v9.2/accounts?$select=name&$orderby=name&$top=1 HTTP/1.1',
	'',
	'',
	'--batch_a1--',
	'');
my %mixed = ('Content-Type' => 'multipart/mixed; boundary="batch_a1"');
my $r = $sim->req('POST', '$batch', join("\r\n", @lines), \%mixed);
accepted($r, 200, 'a batch');
like($r->header('content-type'), qr{^multipart/mixed; ?boundary="?batchresponse_[-0-9a-zA-Z]+"?$}, 'Content-Type');
is($r->header('odata-version'), '4.0', 'OData-Version');
my $part = 'Content-Type:\ application/http\r\nContent-Transfer-Encoding:\ binary\r\n';
my $gap = '\r\n(?:\r\n)?';		# after the headers of a part without a body
my $made = "HTTP/1\\.1\\ 204\\ No\\ Content\\r\\nOData-Version:\\ 4\\.0\\r\\n"
	. "Location:\\ (\Q$api\E/accounts\\($guid\\))\\r\\nOData-EntityId:\\ \\g{-1}\\r\\n$gap";
my $other = '(?:[-\w]+:\ [^\r\n]*\r\n)+';
like($r->{body}, qr/\A--(batchresponse_[-\w]+)\r\n$part\r\n$made
	--\1\r\nContent-Type:\ multipart\/mixed;\ ?boundary="?(changesetresponse_[-\w]+)"?\r\n\r\n
	--\3\r\n${part}Content-ID:\ 1\r\n\r\n$made
	--\3\r\n${part}Content-ID:\ 2\r\n\r\nHTTP\/1\.1\ 204\ No\ Content\r\n$other$gap
	--\3--\r\n(?:\r\n)?--\1\r\n$part\r\nHTTP\/1\.1\ 200\ OK\r\n$other\r\n
	\{[^\r\n]*\}\r\n--\1--(?:\r\n)?\z/x, 'its bytes');
is($sim->count('accounts', "description eq 'x'"), 1, 'the reference to a Content-ID');

# --- forms of a request that clients send
for my $form (
	['an unquoted boundary', 'multipart/mixed; boundary=b1', 'b1'],
	['no blank before the boundary', 'multipart/mixed;boundary=b1', 'b1'],
	['a boundary of many characters', 'multipart/mixed; boundary="a.b_c-d=e"', 'a.b_c-d=e'])
{
	my ($name, $type, $boundary) = @$form;
	my $answer = $sim->req('POST', '$batch', batch_body($boundary, op('GET', 'WhoAmI')), {'Content-Type' => $type});
	accepted($answer, 200, $name);
	like($answer->{body}, qr/WhoAmIResponse/, 'it is carried out');
}
is($sim->req('POST', '$batch', "\r\npreamble\r\n" . batch_body('b1', op('GET', 'WhoAmI')) . "epilogue",
	{'Content-Type' => 'multipart/mixed; boundary=b1'})->{status}, 200, 'preamble and epilogue');
$r = batch($sim, [op('POST', "$api/accounts", {name => 'absolute'}), op('POST', '/api/data/v9.2/accounts', {name => 'path'}),
	op('POST', 'accounts', json_of({name => 'plain'}), {'Content-Type' => 'application/json'})]);
accepted($r, 200, 'absolute URLs and plain content types');
is_deeply([map {$_->{status}} @{$r->{parts}}], [204, 204, 204], 'all are carried out');
{
	# the boundary of the change set begins like that of the batch
	my $inner = batch_body('b10', op('POST', 'accounts', {name => 'in'}, {}, 1), op('POST', 'accounts', {name => 'in'}, {}, 2));
	my $body = "--b1\r\nContent-Type: multipart/mixed; boundary=b10\r\n\r\n$inner\r\n--b1--\r\n";
	my $answer = $sim->req('POST', '$batch', $body, {'Content-Type' => 'multipart/mixed; boundary=b1'});
	accepted($answer, 200, 'one boundary begins like another');
	is($sim->count('accounts', "name eq 'in'"), 2, 'and both operations run');
}
{
	# a text that looks like a delimiter is only a text
	my $text = "x\r\n--b2\r\nContent-Type: application/http\r\n\r\nDELETE /api/data/v9.2/accounts HTTP/1.1\r\n--b2--";
	my $id = guid();
	my $answer = $sim->req('POST', '$batch', batch_body('b2', op('POST', 'accounts', {accountid => $id, name => 'n', description => $text})),
		{'Content-Type' => 'multipart/mixed; boundary=b2'});
	accepted($answer, 200, 'a delimiter inside a text');
	field_is($sim->row('accounts', $id), 'description', $text, 'stays text');
}
{
	my $body = batch_body('b2', op('POST', 'accounts', {name => 'long'}));
	$body =~ s/(Content-Type: application\/json[^\r]*)/$1\r\nContent-Length: 15/;
	is($sim->req('POST', '$batch', $body, {'Content-Type' => 'multipart/mixed; boundary=b2'})->{status}, 200, 'a part with its length');
}

# --- headers of parts
$r = batch($sim, [op('POST', 'accounts?$select=name', {name => 'seen'}, {Prefer => 'return=representation'}),
	op('PATCH', "accounts($one)", {name => 'one!'}, {'If-Match' => '*'}),
	op('PATCH', 'accounts(' . guid() . ')', {name => 'no'}, {'If-Match' => '*'})], continue => 1);
is_deeply([map {$_->{status}} @{$r->{parts}}], [201, 204, 404], 'conditions and preferences belong to their part');
is(eval {$r->{parts}[0]->json->{name}}, 'seen', 'the representation is in the part');

# --- stop at the first error
my ($a, $b) = (guid(), guid());
my @ops = (op('POST', 'accounts', {accountid => $a, name => 'a'}), op('POST', 'accounts', {nosuch => 1}),
	op('POST', 'accounts', {accountid => $b, name => 'b'}));
$r = batch($sim, \@ops);
is($r->{status}, 400, 'without continue-on-error the failing status is the answer\'s');
ok($r->{parts}, 'still multipart');
is($r->{parts}[-1]{status}, 400, 'the last part is the failure');
is(eval {$r->{parts}[-1]->json->{error}{code}}, '0x0', 'with its code');
like($r->{parts}[-1]->header('req_id') // '', qr/^$guid$/, 'and a request id');
ok($sim->row('accounts', $a), 'what was before stays');
is($sim->row('accounts', $b), undef, 'what was behind did not run');

# --- continue
($a, $b) = (guid(), guid());
$ops[0]{body}{accountid} = $a;
$ops[2]{body}{accountid} = $b;
$r = batch($sim, \@ops, continue => 1);
accepted($r, 200, 'with continue-on-error the answer is 200');
is_deeply([map {$_->{status}} @{$r->{parts}}], [204, 400, 204], 'one part for each, in order');
is($r->{parts}[0]->entity_id, $a, 'the first has its id');
is($r->{parts}[2]->entity_id, $b, 'the last has its id');
ok($sim->row('accounts', $_), 'is there') for $a, $b;

# --- many refusals of many kinds in one batch keep their places
{
	my @many = map
	{
		$_ % 3 == 0 ? op('POST', 'accounts', {name => 'x' x 200}) : $_ % 3 == 1 ? op('POST', 'accounts', {name => "n$_"}) :
			op('POST', 'accounts', {accountid => $one, name => 'dup'})
	} 0 .. 299;
	my $answer = batch($sim, \@many, continue => 1);
	is(scalar @{$answer->{parts}}, 300, '300 parts');
	is_deeply([map {$_->{status}} @{$answer->{parts}}], [(400, 204, 412) x 100], 'each verdict in its place');
}

# --- change sets
my $before = $sim->count('accounts');
$r = batch($sim, [change_set(op('POST', 'accounts', {name => 'rb1'}, {}, 1), op('POST', 'accounts', {name => 'rb2'}, {}, 2),
	op('POST', 'accounts', {nosuch => 1}, {}, 3), op('POST', 'accounts', {name => 'rb4'}, {}, 4))]);
is($r->{status}, 400, 'a change set fails');
is(ref $r->{parts}[0], 'ARRAY', 'its answer is a change set');
is(scalar @{$r->{parts}[0]}, 1, 'with exactly one part');
is($r->{parts}[0][0]{content_id}, 3, 'that of the failing operation');
is($r->{parts}[0][0]{status}, 400, 'with its status');
is($sim->count('accounts'), $before, 'and nothing of it stays');

my $kept = guid();
$r = batch($sim, [op('POST', 'accounts', {name => 'first'}), change_set(op('PATCH', "accounts($one)", {name => 'changed'}, {}, 1),
	op('DELETE', "accounts($a)", undef, {}, 2), op('PATCH', "accounts($one)", {nosuch => 1}, {}, 3)),
	op('POST', 'accounts', {accountid => $kept, name => 'third'})], continue => 1);
accepted($r, 200, 'a change set fails and others continue');
is(scalar @{$r->{parts}}, 3, 'three parts');
field_is($sim->row('accounts', $one), 'name', 'one!', 'updates are rolled back');
ok($sim->row('accounts', $a), 'deletes too');
ok($sim->row('accounts', $kept), 'what follows is carried out');

{
	my ($x, $y) = (guid(), guid());
	$r = batch($sim, [change_set(op('POST', 'accounts', {accountid => $x, name => 'cs'}, {}, 1),
		op('POST', 'contacts', {contactid => $y, lastname => 'cs', 'parentcustomerid_account@odata.bind' => '$1'}, {}, 2),
		op('PUT', '$1/fax', {value => '5'}, {}, 3), op('PUT', '$1/primarycontactid/$ref', {'@odata.id' => '$2'}, {}, 4))]);
	accepted($r, 200, 'references inside a change set');
	field_is($sim->row('contacts', $y), '_parentcustomerid_value', $x, 'as a bound value');
	my $row = $sim->row('accounts', $x);
	field_is($row, 'fax', '5', 'as part of a URL');
	field_is($row, '_primarycontactid_value', $y, 'as @odata.id');
}
$r = batch($sim, [change_set(op('PATCH', '$1', {name => 'x'}, {}, 2), op('POST', 'accounts', {name => 'late'}, {}, 1))]);
is($r->{status}, 400, 'a reference forwards');
like($r->{body}, qr/Content-ID Reference: '\$1' does not exist in the batch context\./, 'its message');
is($sim->count('accounts', "name eq 'late'"), 0, 'nothing of it stays');
$r = batch($sim, [change_set(op('POST', 'accounts', {name => 's1'}, {}, 1)), change_set(op('PATCH', '$1', {name => 's2'}, {}, 1))]);
isnt($r->{status}, 200, 'no reference across change sets');
$r = batch($sim, [change_set(op('GET', 'WhoAmI', undef, {}, 1))]);
isnt($r->{status}, 200, 'no GET in a change set');

# --- bulk messages and reads as parts
{
	my ($x, $y) = (guid(), guid());
	my $type = 'Microsoft.Dynamics.CRM.account';
	$r = batch($sim, [op('POST', 'accounts/Microsoft.Dynamics.CRM.CreateMultiple', {Targets => [
		{'@odata.type' => $type, accountid => $x, name => 'bx'}, {'@odata.type' => $type, accountid => $y, name => 'by'}]}),
		op('GET', "accounts($x)?\$select=name"), op('DELETE', "accounts($y)")]);
	accepted($r, 200, 'a bulk message in a batch');
	is_deeply(eval {$r->{parts}[0]->json->{Ids}}, [$x, $y], 'its ids');
	is(eval {$r->{parts}[1]->json->{name}}, 'bx', 'a read sees what was before');
	is($r->{parts}[2]{status}, 204, 'a delete');
}

# --- refused as a whole: plain JSON
sub refused_whole
{
	my ($body, $type, $name, $code) = @_;
	my $rows = $sim->count('accounts');
	return subtest $name => sub
	{
		my $answer = $sim->req('POST', '$batch', $body, {'Content-Type' => $type});
		is($answer->{status}, 400, 'status');
		error_shape($answer);
		is(lc($answer->code // ''), $code, 'code') if defined $code;
		is($sim->count('accounts'), $rows, 'no row');
	};
}

my $good = batch_body('b3', op('POST', 'accounts', {name => 'g'}), op('POST', 'accounts', {name => 'h'}));
my $type = 'multipart/mixed; boundary=b3';
(my $lf = $good) =~ s/\r\n/\n/g;
refused_whole($lf, $type, 'bare line feeds', '0x80048d19');
refused_whole($good, 'multipart/mixed; boundary=other', 'another boundary');
refused_whole($good, 'multipart/mixed', 'no boundary');
refused_whole($good, 'application/json', 'not declared as multipart');
refused_whole('', $type, 'an empty body');
refused_whole('{"a":1}', $type, 'JSON');
refused_whole(substr($good, 0, length($good) - 40), $type, 'a body that breaks off');
(my $no_type = $good) =~ s{Content-Type: application/http\r\n}{};
refused_whole($no_type, $type, 'a part without its type');
(my $no_line = $good) =~ s{POST /api/data/v9\.2/accounts HTTP/1\.1}{POST};
refused_whole($no_line, $type, 'a malformed request line');
refused_whole(batch_body('b3', map {op('POST', 'accounts', {name => 'many'})} 1 .. 1001), $type, 'more than 1000 operations');
refused_whole(batch_body('b3', change_set(map {op('POST', 'accounts', {name => 'many'}, {}, $_)} 1 .. 600),
	change_set(map {op('POST', 'accounts', {name => 'many'}, {}, $_)} 1 .. 401)), $type, 'also counted inside change sets');
{
	my $answer = batch($sim, [map {op('POST', 'accounts', {name => "thousand $_"})} 1 .. 1000]);
	accepted($answer, 200, 'exactly 1000 operations');
	is(scalar(grep {$_->{status} == 204} @{$answer->{parts} // []}), 1000, 'are carried out');
}
{
	my $inner = batch_body('inner', op('POST', 'accounts', {name => 'nested'}));
	my $answer = batch($sim, [op('POST', '$batch', $inner, {'Content-Type' => 'multipart/mixed; boundary=inner'})], continue => 1);
	my $status = $answer->{parts} ? $answer->{parts}[0]{status} : $answer->{status};
	is($status, 400, 'batches do not nest');
	is($sim->count('accounts', "name eq 'nested'"), 0, 'no row');
}
{
	my $answer = batch($sim, [op('POST', 'new_stocklevels', {new_name => 'v'})], continue => 1);
	is(eval {$answer->{parts}[0]->json->{error}{code}}, '0x80072535', 'no writes to virtual tables');
}
is($sim->req('GET', '$batch')->{status}, 405, 'GET of $batch');

# --- a long URL in a part
{
	my $filter = join ' or ', map {"accountid eq " . guid()} 1 .. 800;
	$filter =~ s/ /%20/g;
	cmp_ok(length $filter, '>', 32768, 'longer than a plain GET may be');
	my $answer = batch($sim, [op('GET', "accounts?\$select=name&\$filter=$filter")]);
	accepted($answer, 200, 'a part may have a long URL');
	is($answer->{parts}[0]{status}, 200, 'it is answered');
}

done_testing;

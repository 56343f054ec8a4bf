# Single rows: create, read, the PATCH matrix, single properties, delete
use strict;
use warnings;

use Test::More;

use Sim qw(esc guid);
use Sim::Check;

my $sim = Sim->start;
my $api = $sim->api;
my $guid = qr/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/;

# --- create
my $r = $sim->req('POST', 'accounts', {name => 'A', creditonhold => JSON::PP::false, revenue => 5000000,
	accountcategorycode => 1, address1_latitude => 47.6});
accepted($r, 204, 'create');
like($r->header('odata-entityid'), qr{^\Q$api\E/accounts\($guid\)$}, 'OData-EntityId');
is($r->{body}, '', 'no body');
my $row = $sim->row('accounts', $r->entity_id);
field_is($row, 'name', 'A', 'text');
field_is($row, 'creditonhold', JSON::PP::false, 'boolean');
field_is($row, 'revenue', 5000000, 'money');
field_is($row, 'accountcategorycode', 1, 'choice');
field_is($row, 'address1_latitude', 47.6, 'double');
field_is($row, 'statecode', 0, 'the state of a new row');
field_is($row, 'statuscode', 1, 'the status of a new row');
field_is($row, '_ownerid_value', Sim::USER, 'the caller owns it');
field_is($row, '_createdby_value', Sim::USER, 'the caller made it');
like($row->{createdon}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/, 'createdon');
like($row->{'@odata.etag'}, qr{^W/"\d+"$}, 'etag');

my $own = guid();
$r = $sim->req('POST', 'accounts', {accountid => $own, name => 'with its own id'});
accepted($r, 204, 'create with a chosen id');
is($r->entity_id, $own, 'the id is taken');
my $upper = uc guid();
is($sim->create('accounts', {accountid => $upper, name => 'upper case'}), lc $upper, 'ids come back in lower case');

$r = $sim->req('POST', 'accounts?$select=name,accountnumber', {name => 'Seen', accountnumber => 'S-1'},
	{Prefer => 'return=representation'});
accepted($r, 201, 'create and see it');
is($r->header('preference-applied'), 'return=representation', 'Preference-Applied');
is($r->header('odata-entityid'), undef, 'no OData-EntityId then');
$row = $r->json;
is_deeply([sort grep {!/^\@/} keys %$row], [qw(accountid accountnumber name)], 'the selected columns and the id');
like($row->{'@odata.context'}, qr{\$metadata#accounts}, 'context');
like($row->{'@odata.etag'}, qr{^W/"\d+"$}, 'etag');

# --- duplicates of the id
refused($sim->req('POST', 'accounts', {accountid => $own, name => 'again'}), 412, '0x80040237', qr/duplicate|integrity/i,
	'an id that exists');
field_is($sim->row('accounts', $own), 'name', 'with its own id', 'the first row stays');

# --- read
accepted($sim->req('GET', "accounts(accountid=$own)?\$select=name"), 200, 'read by named key');
my $missing = guid();
refused($sim->req('GET', "accounts($missing)"), 404, '0x80040217', qr/^account With Id = \Q$missing\E Does Not Exist$/i,
	'read a row that is not there');
refused($sim->req('GET', 'Accounts'), 404, '0x8006088a', qr/^Resource not found for the segment 'Accounts'\.?$/,
	'sets are case sensitive');
refused($sim->req('GET', 'account'), 404, '0x8006088a', qr/^Resource not found for the segment 'account'\.?$/,
	'sets are plural');
{
	my $etag = $sim->row('accounts', $own)->{'@odata.etag'};
	my $same = $sim->req('GET', "accounts($own)", undef, {'If-None-Match' => $etag});
	is($same->{status}, 304, 'a conditional read of an unchanged row');
	is($sim->req('GET', "accounts($own)", undef, {'If-None-Match' => 'null'})->{status}, 200, 'the word null is no condition');
}

# --- the PATCH matrix: condition x exists x missing
sub etag { return $sim->row('accounts', $own)->{'@odata.etag'}; }

accepted($sim->req('PATCH', "accounts($own)", {name => 'p1'}), 204, 'PATCH of a row');
field_is($sim->row('accounts', $own), 'name', 'p1', 'it is changed');
my $new = guid();
accepted($sim->req('PATCH', "accounts($new)", {name => 'p2'}), 204, 'PATCH of a missing row makes it');
field_is($sim->row('accounts', $new), 'name', 'p2', 'it is there');

accepted($sim->req('PATCH', "accounts($own)", {name => 'p3'}, {'If-Match' => '*'}), 204, 'If-Match: * of a row');
field_is($sim->row('accounts', $own), 'name', 'p3', 'it is changed');
refused($sim->req('PATCH', "accounts($missing)", {name => 'p4'}, {'If-Match' => '*'}), 404, '0x80040217',
	qr/^account With Id = \Q$missing\E Does Not Exist$/i, 'If-Match: * of a missing row');
is($sim->row('accounts', $missing), undef, 'and makes none');

{
	my $answer = $sim->req('PATCH', "accounts($own)", {name => 'p5'}, {'If-None-Match' => '*'});
	is($answer->{status}, 412, 'If-None-Match: * of a row');
	like($answer->json->{error}{message}, qr/matching key values already exists/, 'its message');
	field_is($sim->row('accounts', $own), 'name', 'p3', 'it stays');
}
my $newer = guid();
accepted($sim->req('PATCH', "accounts($newer)", {name => 'p6'}, {'If-None-Match' => '*'}), 204,
	'If-None-Match: * of a missing row makes it');
field_is($sim->row('accounts', $newer), 'name', 'p6', 'it is there');

my $etag = etag();
accepted($sim->req('PATCH', "accounts($own)", {name => 'p7'}, {'If-Match' => $etag}), 204, 'If-Match with the etag');
isnt(etag(), $etag, 'the etag changes');
refused($sim->req('PATCH', "accounts($own)", {name => 'p8'}, {'If-Match' => $etag}), 412, '0x80060882',
	qr/version of the existing record doesn't match/, 'If-Match with an old etag');
field_is($sim->row('accounts', $own), 'name', 'p7', 'it stays');
is($sim->req('PATCH', "accounts($missing)", {name => 'p9'}, {'If-Match' => $etag})->{status}, 404,
	'an etag of a missing row');
is($sim->row('accounts', $missing), undef, 'makes none');
accepted($sim->req('PATCH', "accounts($own)", {name => 'p10'}, {'If-None-Match' => 'null'}), 204,
	'If-None-Match: null is no condition');

$r = $sim->req('PATCH', "accounts($own)?\$select=accountid", {name => 'p11'}, {Prefer => 'return=representation'});
accepted($r, 200, 'PATCH and see it: 200 for an update');
is($r->json->{accountid}, $own, 'with the id');
like($r->header('etag') // $r->json->{'@odata.etag'}, qr{^W/"\d+"$}, 'and the etag');
$r = $sim->req('PATCH', 'accounts(' . guid() . ')?$select=accountid', {name => 'p12'}, {Prefer => 'return=representation'});
accepted($r, 201, '201 for a create');

# --- what an update leaves alone, what null does
my $full = $sim->create('accounts', {name => 'full', description => 'd', telephone1 => '1', revenue => 2});
accepted($sim->req('PATCH', "accounts($full)", {description => undef}), 204, 'null clears a column');
$row = $sim->row('accounts', $full);
field_is($row, 'description', undef, 'it is cleared');
field_is($row, 'telephone1', '1', 'others stay');
field_is($row, 'revenue', 2, 'also numbers');
accepted($sim->req('PATCH', "accounts($full)", {description => ''}), 204, 'an empty text');
field_is($sim->row('accounts', $full), 'description', undef, 'is stored as null');

# --- the full name follows its parts
{
	my $person = $sim->create('contacts', {firstname => 'Ada', lastname => 'Byron'});
	field_is($sim->row('contacts', $person), 'fullname', 'Ada Byron', 'a full name');
	$sim->req('PATCH', "contacts($person)", {lastname => 'Lovelace'});
	field_is($sim->row('contacts', $person), 'fullname', 'Ada Lovelace', 'follows the last name');
	$sim->req('PATCH', "contacts($person)", {firstname => undef});
	field_is($sim->row('contacts', $person), 'fullname', 'Lovelace', 'and the first');
	is($sim->req('POST', 'contacts', {lastname => 'x', fullname => 'y'})->{status}, 400, 'it cannot be sent');
}

# --- single properties
accepted($sim->req('PUT', "accounts($full)/fax", {value => '99'}), 204, 'PUT of a property');
field_is($sim->row('accounts', $full), 'fax', '99', 'it is changed');
accepted($sim->req('DELETE', "accounts($full)/telephone1"), 204, 'DELETE of a property');
field_is($sim->row('accounts', $full), 'telephone1', undef, 'it is cleared');
$r = $sim->req('GET', "accounts($full)/name");
accepted($r, 200, 'GET of a property');
is($r->json->{value}, 'full', 'its value');

# --- methods on the collection
for my $method (qw(PATCH DELETE PUT))
{
	is($sim->req($method, 'accounts', $method eq 'DELETE' ? undef : {name => 'x'})->{status}, 405, "$method of a set");
}

# --- delete
accepted($sim->req('DELETE', "accounts($full)"), 204, 'delete');
is($sim->row('accounts', $full), undef, 'it is gone');
refused($sim->req('DELETE', "accounts($full)"), 404, '0x80040217', qr/Does Not Exist/i, 'a second delete');
my $kept = $sim->create('accounts', {name => 'kept'});
refused($sim->req('DELETE', "accounts($kept)", undef, {'If-Match' => 'W/"1"'}), 412, '0x80060882', qr/version/i,
	'delete with an old etag');
ok($sim->row('accounts', $kept), 'it stays');
accepted($sim->req('DELETE', "accounts($kept)", undef, {'If-Match' => $sim->row('accounts', $kept)->{'@odata.etag'}}), 204,
	'delete with the etag');

# --- what is no single property
is($sim->req('PUT', "accounts($own)/$_", {value => 'x'})->{status} >= 400, 1, "PUT of $_") for 'nosuch', '_parentaccountid_value', 'createdon', 'accountid';
is($sim->req('PUT', "accounts($own)/fax", $_)->{status}, 400, "PUT with the body $_") for '{"other":1}', '{"value":5}', '[]', '{';
is($sim->req('DELETE', "accounts($own)/nosuch")->{status} >= 400, 1, 'DELETE of an unknown property');

# --- deep insert
my $id = $own;
my $deep = guid();
accepted($sim->req('POST', 'accounts', {accountid => $deep, name => 'deep',
	primarycontactid => {firstname => 'In', lastname => 'Line'},
	Account_Tasks => [{subject => 't1'}, {subject => 't2'}]}), 204, 'deep insert');
$row = $sim->row('accounts', $deep);
ok($row->{_primarycontactid_value}, 'the contact is bound');
field_is($sim->row('contacts', $row->{_primarycontactid_value}), 'lastname', 'Line', 'and was made');
is($sim->count('tasks', "_regardingobjectid_value eq $deep"), 2, 'two tasks');
my $before = $sim->count('contacts');
isnt($sim->req('POST', 'accounts', {name => 'deep', primarycontactid => {lastname => 'x', nosuch => 1}})->{status}, 204,
	'deep insert with a mistake inside');
is($sim->count('contacts'), $before, 'leaves nothing behind');

isnt($sim->req('POST', 'accounts', {name => 'deep', Account_Tasks => [{subject => 'fine'}, {subject => 'x' x 201}]})->{status}, 204,
	'or inside the last of its children');
is($sim->count('tasks', "subject eq 'fine'"), 0, 'nor there');
{
	# existing rows are taken into a collection by reference
	my @children = map {$sim->create('accounts', {name => "child $_"})} 1, 2;
	my $parent = guid();
	accepted($sim->req('POST', 'accounts', {accountid => $parent, name => 'adopts', 'account_parent_account@odata.bind' => [map {"accounts($_)"} @children]}),
		204, 'a collection bound at create');
	is($sim->count('accounts', "_parentaccountid_value eq $parent"), 2, 'points the others at the new row');
	my $lead = $sim->create('leads', {subject => 'l', lastname => 'x'});
	my $linked = $sim->create('accounts', {name => 'links', 'accountleads_association@odata.bind' => ["leads($lead)"]});
	is(scalar @{$sim->req('GET', "accounts($linked)/accountleads_association")->json->{value}}, 1, 'also many-to-many');
	for my $bad ('"accounts(' . guid() . ')"', "\"contacts($id)\"", '5', '"x"')
	{
		my $r = $sim->req('POST', 'accounts', qq({"name":"none","account_parent_account\@odata.bind":[$bad]}));
		like($r->{status}, qr/^40[04]$/, "refused in a collection: $bad");
	}
	is($sim->req('POST', 'accounts', '{"name":"none","account_parent_account@odata.bind":["accounts(' . $children[0] . ')"')->{status}, 400,
		'a list that breaks off');
	is($sim->count('accounts', "name eq 'none'"), 0, 'none of these makes a row');
}

# --- text comes back as it was sent
my $text = "Za\x{17c}\x{f3}\x{142}\x{107} \x{201c}\x{6771}\x{4eac}\x{201d} \x{1f680} line1\r\nline2 \"q\" \\ \t --batch\r\n";
$id = $sim->create('accounts', {name => 'text', description => $text});
field_is($sim->row('accounts', $id), 'description', $text, 'every character survives');

done_testing;

# Payloads that Dataverse refuses, each with its status and code, and none leaving a row behind
use strict;
use warnings;

use Test::More;

use Sim qw(guid);
use Sim::Check;

my $sim = Sim->start;
my ($true, $false) = (JSON::PP::true, JSON::PP::false);
my $account = $sim->create('accounts', {name => 'there'});

# A raw body, so that numbers and strings are what they are.
sub refuse
{
	my ($set, $body, $status, $code, $message, $name) = @_;
	my $before = $sim->count($set);
	refused($sim->req('POST', $set, $body), $status, $code, $message, $name);
	return is($sim->count($set), $before, "$name: no row");
}

sub take
{
	my ($set, $body, $field, $value, $name) = @_;
	my $r = $sim->req('POST', $set, $body);
	accepted($r, 204, $name) or return;
	return field_is($sim->row($set, $r->entity_id), $field, $value, "$name: as sent");
}

# --- names
refuse('accounts', '{"nosuch":1}', 400, '0x0', qr/Invalid property 'nosuch' was found in entity 'Microsoft\.Dynamics\.CRM\.account'/,
	'an unknown column');
refuse('accounts', '{"Name":"x"}', 400, '0x0', qr/Invalid property 'Name'/, 'a column in the wrong case');
refuse('accounts', '{"name":"x","new_other":null}', 400, '0x0', qr/Invalid property 'new_other'/, 'an unknown column with null');
isnt($sim->req('POST', 'accounts', '{"name":"x","_parentaccountid_value":"' . guid() . '"}')->{status}, 204,
	'the value property of a lookup cannot be written');

# --- JSON
for my $bad ('{"name":"x"', '{"name":}', '[]', '"x"', '', '{"name":"x"}}', "{\"name\":\"\x01\"}", "{'name':'x'}",
	"{\"name\":\"\xff\xfe\"}", "{\"name\":\"\xed\xa0\x80\"}", '{"name":"\ud83d"}', '{"name":NaN}', '{"revenue":Infinity}', '{"revenue":01}',
	'{"revenue":1.}', '{"name":"x",}')
{
	my $shown = $bad =~ s/([^ -~])/sprintf '\\x%02x', ord $1/ger;
	my $r = $sim->req('POST', 'accounts', $bad);
	is($r->{status}, 400, "malformed body: $shown");
	error_shape($r);
}
is($sim->count('accounts'), 1, 'no row of any of these');

# --- JSON types
my $payload = qr/^Error identified in Payload provided by the user\b/;
my @wrong_type = (
	['accounts', 'name', '5'], ['accounts', 'name', 'true'], ['accounts', 'name', '{}'], ['accounts', 'name', '["x"]'],
	['accounts', 'description', '1'], ['accounts', 'numberofemployees', '"5"'], ['accounts', 'numberofemployees', 'true'],
	['accounts', 'numberofemployees', '1.5'], ['accounts', 'revenue', '"5"'], ['accounts', 'revenue', 'true'],
	['accounts', 'address1_latitude', '"47.5"'], ['accounts', 'creditonhold', '1'], ['accounts', 'creditonhold', '"true"'],
	['accounts', 'industrycode', '"1"'], ['accounts', 'industrycode', '1.5'], ['accounts', 'new_legacyrank', '"1"'],
	['new_invoices', 'new_taxrate', '"1"'], ['new_invoices', 'new_channels', '1'], ['new_invoices', 'new_channels', '[1,2]'],
	['contacts', 'birthdate', '20240531'], ['new_invoices', 'new_postedon', '1717150000'],
	['new_invoices', 'new_sourceguid', '"{' . guid() . '}"'], ['new_invoices', 'new_sourceguid', '"abc"'],
	['new_invoices', 'new_sourceguid', '5'], ['accounts', 'accountid', '"abc"'], ['accounts', 'accountid', '7'],
);
refuse($_->[0], "{\"$_->[1]\":$_->[2]}", 400, '0x80048d19', $payload, "$_->[1]: $_->[2]") for @wrong_type;

# --- text
my $length = qr/^A validation error occurred\.  The length of the 'name' attribute of the 'account' entity exceeded the maximum allowed length of '160'\.$/;
take('accounts', {name => 'x' x 160}, 'name', 'x' x 160, 'text of the full length');
refuse('accounts', {name => 'x' x 161}, 400, '0x80044331', $length, 'text too long by one');
take('accounts', {name => "\x{e9}" x 160}, 'name', "\x{e9}" x 160, 'length counts characters, not bytes');
take('accounts', {name => "\x{1f680}" x 80}, 'name', "\x{1f680}" x 80, 'a character outside the BMP counts twice');
refuse('accounts', {name => "\x{1f680}" x 80 . 'x'}, 400, '0x80044331', $length, 'in UTF-16 units it is too long');
refuse('contacts', {lastname => 'x', description => 'd' x 2001}, 400, '0x80044331', qr/'description'.*'contact'.*'2000'/,
	'a memo too long');
isnt($sim->req('POST', 'new_invoices', {new_reference => "caf\x{e9}"})->{status}, 204, 'a column for ASCII only');
take('new_invoices', {new_reference => 'cafe'}, 'new_reference', 'cafe', 'takes ASCII');

# --- numbers
take('accounts', '{"numberofemployees":1000000000}', 'numberofemployees', 1000000000, 'a whole number at its maximum');
refuse('accounts', '{"numberofemployees":1000000001}', 400, '0x8004431A', qr/numberofemployees/, 'above the maximum');
refuse('accounts', '{"numberofemployees":-1}', 400, '0x8004431A', qr/numberofemployees/, 'below the minimum');
isnt($sim->req('POST', 'accounts', '{"numberofemployees":3000000000}')->{status}, 204, 'no 32 bit number');
isnt($sim->req('POST', 'accounts', '{"numberofemployees":99999999999999999999999}')->{status}, 204, 'no number of any size');
refuse('accounts', '{"address1_latitude":90.5}', 400, '0x8004431A', qr/address1_latitude/, 'a latitude that is none');
refuse('accounts', '{"revenue":-1}', 400, '0x8004431A', qr/revenue/, 'money below the minimum');
refuse('accounts', '{"revenue":100000000000001}', 400, '0x8004431A', qr/revenue/, 'money above the maximum');
refuse('new_invoices', '{"new_taxrate":100.0001}', 400, '0x8004431A', qr/new_taxrate/, 'a decimal above the maximum');
isnt($sim->req('POST', 'accounts', '{"new_legacyrank":9223372036854775808}')->{status}, 204, 'no 64 bit number');
take('accounts', '{"new_legacyrank":9007199254740991}', 'new_legacyrank', 9007199254740991, 'a big number');
take('new_invoices', '{"new_ledgerentry":-9223372036854775807}', 'new_ledgerentry', '-9223372036854775807', 'a 64 bit number keeps its digits');
take('new_invoices', '{"new_amount":-12.34}', 'new_amount', -12.34, 'negative money where it is allowed');
take('new_invoices', '{"new_taxrate":1e1}', 'new_taxrate', 10, 'a number with an exponent');

# --- choices
refuse('accounts', '{"industrycode":34}', 400, '0x8004431A', qr/industrycode/, 'an unknown choice');
refuse('accounts', '{"industrycode":-1}', 400, '0x8004431A', qr/industrycode/, 'a negative choice');
take('accounts', '{"industrycode":33}', 'industrycode', 33, 'a known choice');
take('new_invoices', '{"new_channels":"1,9"}', 'new_channels', '1,9', 'several choices');
take('new_invoices', '{"new_channels":"1, 9"}', 'new_channels', '1,9', 'several choices with a blank');
refuse('new_invoices', '{"new_channels":"1,7"}', 400, '0x8004431A', qr/new_channels/, 'one of several is unknown');
isnt($sim->req('POST', 'new_invoices', '{"new_channels":"1;2"}')->{status}, 204, 'another separator');

# --- dates
take('contacts', '{"lastname":"d","birthdate":"1753-01-01"}', 'birthdate', '1753-01-01', 'the first date');
refuse('contacts', '{"lastname":"d","birthdate":"1752-12-31"}', 400, '0x80040239', qr/less than the minimum value/, 'the date before');
refuse('new_invoices', '{"new_postedon":"1752-12-31T23:59:59Z"}', 400, '0x80040239', qr/less than the minimum value/, 'a time before');
refuse('new_invoices', '{"new_dueat":"1200-01-01T00:00:00Z"}', 400, '0x80040239', qr/less than the minimum value/,
	'an independent time before');
refuse('contacts', qq({"lastname":"d","birthdate":"$_"}), 400, '0x80048d19', $payload, "no date: $_")
	for '2024-02-30', '31.05.2024', '2024-5-31', '2024-13-01', 'today', '', '2024-05-31T10:00:00Z';
refuse('new_invoices', qq({"new_postedon":"$_"}), 400, '0x80048d19', $payload, "no time: $_")
	for '2024-05-31T25:00:00Z', '2024-05-31 10:00', '2024-05-31T10:00:00Z+01:00', '2024-05-31T10:00:00',
	'2024-05-31T10:00:00+15:00', '2024-05-31T10:00:00+01:60', '2024-05-31T10:00:00+1', '2024-05-31T10:60:00Z', '2024-05-31T10:00:00ZZ', '2024-05-31T';
take('new_invoices', '{"new_postedon":"2024-05-31T10:00:00Z"}', 'new_postedon', '2024-05-31T10:00:00Z', 'a time in UTC');
take('new_invoices', '{"new_postedon":"2024-05-31T10:00:00-08:00"}', 'new_postedon', '2024-05-31T18:00:00Z', 'a time with an offset');
take('new_invoices', '{"new_postedon":"2024-02-29T23:59:59.9999999Z"}', 'new_postedon', '2024-02-29T23:59:59Z', 'fractions are dropped');
take('new_invoices', '{"new_dueat":"2024-05-31T10:00:00Z"}', 'new_dueat', '2024-05-31T10:00:00Z', 'an independent time');
take('new_invoices', '{"new_invoicedate":"2024-02-29"}', 'new_invoicedate', '2024-02-29', 'a leap day');

# --- columns that are not for writing
for my $c (['createdon', '"2024-01-01T00:00:00Z"'], ['modifiedon', '"2024-01-01T00:00:00Z"'], ['versionnumber', '5'],
	['revenue_base', '5'], ['exchangerate', '1'], ['opendeals', '1'], ['merged', 'true'])
{
	my ($column, $value) = @$c;
	my $r = $sim->req('POST', 'accounts', qq({"name":"x","$column":$value}));
	is($r->{status}, 400, "$column cannot be sent");
	error_shape($r);
}
isnt($sim->req('POST', 'new_invoices', '{"new_document":"aGVsbG8="}')->{status}, 204, 'a file column cannot be sent in a row');

# create-only columns
isnt($sim->req('PATCH', "accounts($account)", '{"importsequencenumber":5}')->{status}, 204, 'a create-only column in an update');
isnt($sim->req('PATCH', "accounts($account)", '{"overriddencreatedon":"2001-01-01T00:00:00Z"}')->{status}, 204,
	'overriddencreatedon in an update');
take('accounts', '{"importsequencenumber":5}', 'importsequencenumber', 5, 'a create-only column in a create');
{
	my $r = $sim->req('POST', 'accounts', '{"name":"old","overriddencreatedon":"2001-02-03T04:05:06Z"}');
	accepted($r, 204, 'overriddencreatedon in a create');
	my $row = $sim->row('accounts', $r->entity_id);
	field_is($row, 'createdon', '2001-02-03T04:05:06Z', 'becomes createdon');
	like($row->{overriddencreatedon} // '', qr/^20[2-9]\d-/, 'and keeps the real time');
}

# --- columns that the API insists on
isnt($sim->req('POST', 'campaigns', '{"codename":"C"}')->{status}, 204, 'a campaign without its name');
isnt($sim->req('POST', 'incidents', '{"title":"no customer"}')->{status}, 204, 'a case without a customer');
take('accounts', '{"telephone1":"1"}', 'name', undef, 'a column that only forms insist on');
isnt($sim->req('PATCH', 'campaigns(' . $sim->create('campaigns', {name => 'c'}) . ')', '{"name":null}')->{status}, 204,
	'a required column cannot be cleared');

# --- updates are checked alike
refused($sim->req('PATCH', "accounts($account)", '{"nosuch":1}'), 400, '0x0', qr/Invalid property 'nosuch'/, 'update: unknown column');
refused($sim->req('PATCH', "accounts($account)", {name => 'x' x 161}), 400, '0x80044331', $length, 'update: text too long');
refused($sim->req('PATCH', "accounts($account)", '{"revenue":"5"}'), 400, '0x80048d19', $payload, 'update: wrong type');
field_is($sim->row('accounts', $account), 'name', 'there', 'the row stays as it was');

# --- annotations of an error
{
	my $r = $sim->req('POST', 'accounts', '{"industrycode":34}', {Prefer => 'odata.include-annotations="*"'});
	is($r->{status}, 400, 'annotations are asked for');
	my $error = $r->json->{error};
	ok((grep {/^\@Microsoft\.PowerApps\.CDS\./} keys %$error), 'annotations of the error');
	ok(!(grep {ref $_} values %$error), 'all values are strings');
}

done_testing;

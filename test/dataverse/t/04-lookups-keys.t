# Lookups, owners and alternate keys, in bodies and in URLs
use strict;
use warnings;

use File::Copy qw(copy);
use File::Temp qw(tempdir);
use Test::More;

use Sim qw(esc guid metadata_dir);
use Sim::Check;

# The table files, and one more table whose key has columns of other types.
my $dir = tempdir(CLEANUP => 1);
copy($_, $dir) or die $! for glob metadata_dir() . '/*.table';
open my $out, '>', "$dir/new_rate.table" or die $!;
print $out <<'TABLE';
table new_rate set=new_rates id=new_rateid name=new_name schema=new_rate owner=organization bulk=create,update custom
string new_name 100
date new_on dateonly
decimal new_step 0 100 precision=2
choice new_kind 1="Buy" 2="Sell"
lookup new_unitid businessunit:new_UnitId
key new_on_key Active new_on new_kind
key new_step_key Active new_step
key new_unit_key Active new_unitid
TABLE
close $out or die $!;

my $sim = Sim->start(metadata => $dir);
my $api = $sim->api;
my $who = $sim->req('GET', 'WhoAmI')->json;
my $account = $sim->create('accounts', {name => 'parent', new_legacyid => 'L-1'});
my $person = $sim->create('contacts', {lastname => 'person', new_legacyid => "O'Neil"});

sub bound
{
	my ($set, $property, $reference, $value_property, $id, $name) = @_;
	my $r = $sim->req('POST', $set, {"$property\@odata.bind" => $reference});
	accepted($r, 204, $name) or return;
	return field_is($sim->row($set, $r->entity_id), $value_property, $id, "$name: bound");
}

# --- forms of a reference
bound('accounts', 'parentaccountid', "accounts($account)", '_parentaccountid_value', $account, 'set(id)');
bound('accounts', 'parentaccountid', "/accounts($account)", '_parentaccountid_value', $account, '/set(id)');
bound('accounts', 'parentaccountid', "$api/accounts($account)", '_parentaccountid_value', $account, 'absolute');
bound('accounts', 'parentaccountid', "/accounts(" . uc($account) . ')', '_parentaccountid_value', $account, 'upper case id');
bound('accounts', 'parentaccountid', "/accounts(accountid=$account)", '_parentaccountid_value', $account, 'named id');
bound('accounts', 'parentaccountid', "/accounts(new_legacyid='L-1')", '_parentaccountid_value', $account, 'alternate key');
bound('contacts', 'parentcustomerid_account', "accounts($account)", '_parentcustomerid_value', $account, 'customer: account');
bound('contacts', 'parentcustomerid_contact', "contacts($person)", '_parentcustomerid_value', $person, 'customer: contact');
bound('contacts', 'parentcustomerid_contact', "contacts(new_legacyid='O''Neil')", '_parentcustomerid_value', $person,
	'a key with an apostrophe');
bound('new_invoices', 'new_CustomerId', "accounts($account)", '_new_customerid_value', $account, 'custom lookup');
bound('new_invoices', 'new_BilledToId_contact', "contacts($person)", '_new_billedtoid_value', $person, 'custom multi-table lookup');
bound('tasks', 'regardingobjectid_account_task', "accounts($account)", '_regardingobjectid_value', $account, 'regarding');
bound('annotations', 'objectid_contact', "contacts($person)", '_objectid_value', $person, 'a note');

# --- wrong navigation property
for my $p (['accounts', 'ParentAccountId'], ['accounts', 'parentaccount'], ['contacts', 'parentcustomerid'],
	['new_invoices', 'new_customerid'], ['new_invoices', 'new_CustomerID'], ['new_invoices', 'new_BilledToId'], ['accounts', 'name'])
{
	my ($set, $property) = @$p;
	refused($sim->req('POST', $set, {"$property\@odata.bind" => "accounts($account)"}), 400, '0x80048d19',
		qr/undeclared property '\Q$property\E' which only has property annotations|Error identified in Payload/,
		"wrong navigation property $set.$property");
}
isnt($sim->req('POST', 'accounts', {parentaccountid => $account})->{status}, 204, 'a lookup is not set by a bare id');
isnt($sim->req('POST', 'accounts', {'parentaccountid@odata.bind' => $_})->{status}, 204, "no reference: $_")
	for $account, "accounts/$account", 'accounts()', 'accounts(abc)', '', 'nosuch(' . guid() . ')', "accounts($account";

# --- lookups to nothing, to another table
my $missing = guid();
refused($sim->req('POST', 'accounts', {name => 'x', 'parentaccountid@odata.bind' => "accounts($missing)"}), 404, '0x80040217',
	qr/account With Id = \Q$missing\E Does Not Exist/i, 'a lookup to nothing');
refused($sim->req('POST', 'accounts', {name => 'x', 'parentaccountid@odata.bind' => "accounts(new_legacyid='none')"}), 404,
	'0x80060891', qr/./, 'a lookup to a key value that nobody has');
isnt($sim->req('POST', 'accounts', {'parentaccountid@odata.bind' => "contacts($person)"})->{status}, 204,
	'a lookup to another table');
isnt($sim->req('PATCH', "accounts($account)", {'parentaccountid@odata.bind' => "accounts($missing)"})->{status}, 204,
	'an update to nothing');
is($sim->count('accounts', "_parentaccountid_value eq $missing"), 0, 'nothing points at nothing');

# --- clearing
for my $how ({'parentaccountid@odata.bind' => undef}, {parentaccountid => undef})
{
	my $id = $sim->create('accounts', {name => 'c', 'parentaccountid@odata.bind' => "accounts($account)"});
	accepted($sim->req('PATCH', "accounts($id)", $how), 204, 'clear by ' . (keys %$how)[0]);
	field_is($sim->row('accounts', $id), '_parentaccountid_value', undef, 'it is cleared');
}
{
	my $id = $sim->create('contacts', {lastname => 'c', 'parentcustomerid_account@odata.bind' => "accounts($account)"});
	accepted($sim->req('PATCH', "contacts($id)", {'parentcustomerid_contact@odata.bind' => "contacts($person)"}), 204, 'the other target');
	my $r = $sim->req('GET', "contacts($id)?\$select=_parentcustomerid_value", undef, {Prefer => 'odata.include-annotations="*"'});
	field_is($r->json, '_parentcustomerid_value', $person, 'replaces the first');
	field_is($r->json, '_parentcustomerid_value@Microsoft.Dynamics.CRM.lookuplogicalname', 'contact', 'and says of which table');
}

# --- owners
{
	my $r = $sim->req('POST', 'teams', {name => 'team', 'businessunitid@odata.bind' => "businessunits($who->{BusinessUnitId})"});
	accepted($r, 204, 'a team');
	my $team = $r->entity_id;
	bound('accounts', 'ownerid', "teams($team)", '_ownerid_value', $team, 'a team owns');
	bound('accounts', 'ownerid', "/systemusers(" . Sim::USER2 . ')', '_ownerid_value', Sim::USER2, 'a user owns');
	my $id = $sim->create('accounts', {name => 'assign'});
	accepted($sim->req('PATCH', "accounts($id)", {'ownerid@odata.bind' => "teams($team)"}), 204, 'assign by an update');
	my $row = $sim->row('accounts', $id);
	field_is($row, '_owningteam_value', $team, 'owningteam follows');
	field_is($row, '_owninguser_value', undef, 'owninguser is empty');
	bound('tasks', $_, "teams($team)", '_ownerid_value', $team, "an activity's owner by $_") for 'ownerid', 'ownerid_task';
	isnt($sim->req('POST', 'accounts', {'ownerid@odata.bind' => "accounts($account)"})->{status}, 204, 'an account cannot own');
	isnt($sim->req('POST', 'accounts', {'ownerid@odata.bind' => "systemusers($missing)"})->{status}, 204, 'nobody cannot own');
	isnt($sim->req('PATCH', "accounts($id)", {ownerid => undef})->{status}, 204, 'an owner cannot be cleared');

	# named keys of tables that inherit from principal
	for my $key ("systemusers(systemuserid=@{[Sim::USER]})", "teams(teamid=$team)", "systemusers(domainname='x')",
		"teams(azureactivedirectoryobjectid=$missing,membershiptype=0)")
	{
		my $get = $sim->req('GET', $key);
		is($get->{status}, 400, "no key form: GET $key");
		error_shape($get);
		is($sim->req('PATCH', $key, {name => 'x'})->{status}, 400, "no key form: PATCH $key");
		my $set = $key =~ /^(\w+)/ ? $1 : '';
		my $bind = $sim->req('POST', 'accounts', {name => 'x', 'ownerid@odata.bind' => $key});
		is($bind->{status}, 400, "no key form: bind $key");
	}
}

# --- alternate keys in URLs
accepted($sim->req('GET', "accounts(new_legacyid='L-1')?\$select=name"), 200, 'read by key');
accepted($sim->req('GET', "contacts(new_legacyid='O''Neil')"), 200, 'doubled quotes');
accepted($sim->req('GET', "contacts(new_legacyid=%27O%27%27Neil%27)"), 200, 'percent-encoded quotes');
refused($sim->req('GET', "accounts(new_legacyid='none')"), 404, '0x80060891', qr/./, 'a key value that nobody has');
{
	my $r = $sim->req('PATCH', "accounts(new_legacyid='L-2')", {name => 'by key'});
	accepted($r, 204, 'upsert by key makes a row');
	is($r->header('odata-entityid'), "$api/accounts(new_legacyid='L-2')", 'and answers with the key');
	my $row = $sim->req('GET', "accounts(new_legacyid='L-2')")->json;
	field_is($row, 'new_legacyid', 'L-2', 'the key column is filled');
	accepted($sim->req('PATCH', "accounts(new_legacyid='L-2')", {name => 'again'}), 204, 'upsert by key changes it');
	field_is($sim->row('accounts', $row->{accountid}), 'name', 'again', 'the same row');
	is($sim->count('accounts', "new_legacyid eq 'L-2'"), 1, 'one row');
	accepted($sim->req('DELETE', "accounts(new_legacyid='L-2')"), 204, 'delete by key');
}
my $japanese = "\x{6771}\x{4eac} \x{fc}";
{
	my $r = $sim->req('PATCH', 'accounts(new_legacyid=' . esc("'$japanese'") . ')', {name => 'u'});
	accepted($r, 204, 'a key beyond ASCII');
	is($r->header('odata-entityid'), "$api/accounts(new_legacyid='%E6%9D%B1%E4%BA%AC%20%C3%BC')", 'is encoded in the answer');
}
is($sim->count('accounts', "new_legacyid eq '$japanese'"), 1, 'is decoded');
{
	my $r = $sim->req('PATCH', 'accounts(new_legacyid=' . esc("'a\r\nX-Injected: 1'") . ')', {name => 'crlf'});
	is($r->header('x-injected'), undef, 'a line end in a key value makes no header');
	like($r->header('odata-entityid') // '', qr/^[!-~]*$/, 'OData-EntityId is plain ASCII');
}

for my $value ('A&B', 'a/b', 'a<b', 'a>b', 'a*b', 'a%b', 'a:b', 'a\\b', 'a?b', 'a+b')
{
	my $id = $sim->create('accounts', {name => 'special', new_legacyid => $value});
	my $key = 'accounts(new_legacyid=' . esc("'$value'") . ')';
	is($sim->req('GET', $key)->{status}, 400, "read by key with a special character: $value");
	is($sim->req('PATCH', $key, {name => 'x'})->{status}, 400, "upsert by key with a special character: $value");
}

for my $key ("accounts(accountnumber='1')", "accounts(name='x')", "accounts(new_legacyid='1',name='x')", "accounts(nosuch=1)",
	"new_invoicelines(new_linenumber=1)", "accounts(new_legacyid=1)", "accounts(new_legacyid='1)")
{
	my $r = $sim->req('GET', $key);
	is($r->{status}, 400, "not a key: $key");
	error_shape($r);
}
like($sim->req('GET', "accounts(accountnumber='1')")->json->{error}{message},
	qr/^The key in the request URI is not valid for resource 'Microsoft\.Dynamics\.CRM\.account'\. Ensure that the names and number of key/,
	'its message');

# --- a key of two columns, a lookup and a number
my $invoice = $sim->create('new_invoices', {new_invoicenumber => 'I-1'});
my $line = $sim->create('new_invoicelines', {new_name => 'l', new_linenumber => 7, 'new_InvoiceId@odata.bind' => "new_invoices($invoice)"});
for my $form ("_new_invoiceid_value=$invoice,new_linenumber=7", "new_linenumber=7,_new_invoiceid_value=$invoice")
{
	my $r = $sim->req('GET', "new_invoicelines($form)");
	accepted($r, 200, "key of two columns: $form");
	is(eval {$r->json->{new_invoicelineid}}, $line, 'the right row');
}
{
	my $r = $sim->req('PATCH', "new_invoicelines(_new_invoiceid_value=$invoice,new_linenumber=8)", {new_name => 'eight'});
	accepted($r, 204, 'upsert by two columns');
	my $row = $sim->req('GET', "new_invoicelines(_new_invoiceid_value=$invoice,new_linenumber=8)")->json;
	field_is($row, 'new_linenumber', 8, 'the number is filled');
	field_is($row, '_new_invoiceid_value', $invoice, 'the lookup too');
}

# --- keys of other types
$sim->create('new_rates', {new_name => 'r', new_on => '2024-05-31', new_kind => 2, new_step => JSON::PP->new->decode('[1.50]')->[0],
	'new_UnitId@odata.bind' => "businessunits($who->{BusinessUnitId})"});
accepted($sim->req('GET', "new_rates($_)"), 200, "key $_")
	for 'new_on=2024-05-31,new_kind=2', 'new_step=1.50', 'new_step=1.5', "_new_unitid_value=$who->{BusinessUnitId}";

# --- uniqueness
refused($sim->req('POST', 'accounts', {name => 'x', new_legacyid => 'L-1'}), 412, '0x80060892',
	qr/^Entity Key .+ violated\. A record with the same value for .+ already exists/, 'a key value that exists');
refused($sim->req('POST', 'accounts', {name => 'x', new_legacyid => 'l-1'}), 412, '0x80060892', qr/violated/,
	'keys are compared without case');
{
	my $id = $sim->create('accounts', {name => 'x', new_legacyid => 'L-9'});
	refused($sim->req('PATCH', "accounts($id)", {new_legacyid => 'L-1'}), 412, '0x80060892', qr/violated/, 'an update too');
	accepted($sim->req('PATCH', "accounts($id)", {new_legacyid => 'L-9', name => 'y'}), 204, 'its own value is no violation');
	accepted($sim->req('DELETE', "accounts($id)"), 204, 'after a delete');
	ok($sim->create('accounts', {name => 'x', new_legacyid => 'L-9'}), 'the value is free again');
	my $r = $sim->req('POST', 'accounts', {name => 'x', new_legacyid => 'L-1'}, {Prefer => 'odata.include-annotations="*"'});
	is(eval {$r->json->{error}{'@Microsoft.PowerApps.CDS.ErrorDetails.DuplicateAttributes'}},
		'<DuplicateAttributes><new_legacyid>L-1</new_legacyid></DuplicateAttributes>', 'annotations name the value');
}
accepted($sim->req('POST', 'accounts', {name => 'no key'}), 204, 'null is not unique') for 1, 2;
refused($sim->req('POST', 'new_invoicelines', {new_name => 'twice', new_linenumber => 7, 'new_InvoiceId@odata.bind' => "new_invoices($invoice)"}),
	412, '0x80060892', qr/violated/, 'a key of two columns');

# --- a key whose index is not active
$sim->create('new_regions', {new_name => 'r', new_code => 'N'});
for my $r ($sim->req('GET', "new_regions(new_code='N')"), $sim->req('PATCH', "new_regions(new_code='N')", {new_name => 'x'}))
{
	is($r->{status}, 400, 'a key that is pending cannot be used');
	error_shape($r);
}
accepted($sim->req('POST', 'new_regions', {new_name => 'r', new_code => 'N'}), 204, 'nor does it hold values unique');

done_testing;

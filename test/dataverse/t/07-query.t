# Reading: $select, $filter, $orderby, $top, $expand, $count, $apply, In, FetchXML, paging
use strict;
use warnings;

use Test::More;

use Sim qw(esc guid);
use Sim::Batch qw(op batch);
use Sim::Check;

my $sim = Sim->start;
my $api = $sim->api;

# A small stock of rows: a0 .. a24
my $parent = $sim->create('accounts', {name => 'parent', new_legacyid => 'P'});
my $contact = $sim->create('contacts', {firstname => 'Ada', lastname => "O'Neil"});
my %id;
for my $i (0 .. 24)
{
	$id{$i} = $sim->create('accounts', {name => sprintf('a%02d', $i), accountnumber => "N$i", numberofemployees => $i,
		revenue => $i * 1000.5, creditonhold => $i % 2 ? JSON::PP::true : JSON::PP::false, industrycode => 1 + $i % 3,
		description => $i % 5 ? "text $i" : undef,
		$i < 10 ? ('parentaccountid@odata.bind' => "accounts($parent)") : (),
		$i == 3 ? ('primarycontactid@odata.bind' => "contacts($contact)") : ()});
}
my @mine = "startswith(name,'a')";

sub get
{
	my ($path, %headers) = @_;
	return $sim->req('GET', $path, undef, \%headers);
}

sub names
{
	my ($filter, $more) = @_;
	my $r = get('accounts?$select=name&$orderby=name&$filter=' . esc($filter) . ($more // ''));
	return $r->{status} == 200 ? join(' ', map {$_->{name}} @{$r->json->{value}}) : "$r->{status} $r->{body}";
}

# --- the form of an answer
my $r = get('accounts?$select=name,parentaccountid&$top=1&$orderby=name');
isnt($r->{status}, 200, 'a lookup is selected by its value property');
$r = get('accounts?$select=name,description,_parentaccountid_value&$orderby=name&$top=1');
accepted($r, 200, '$select');
my $data = $r->json;
like($data->{'@odata.context'}, qr{^\Q$api\E/\$metadata#accounts\(}, 'context');
is_deeply([sort keys %{$data->{value}[0]}], [qw(@odata.etag _parentaccountid_value accountid description name)],
	'the selected columns, the id and the etag');
is($data->{value}[0]{description}, undef, 'null is given');
is($data->{value}[0]{_parentaccountid_value}, $parent, 'the id of a lookup');
refused(get('accounts?$select=Name'), 400, '0x0', qr/^Could not find a property named 'Name' on type 'Microsoft\.Dynamics\.CRM\.account'/,
	'$select of an unknown column');
accepted(get('accounts?$select=accountid&$top=1'), 200, '$top');
ok(get("accounts($id{0})")->json->{'@odata.context'} =~ m{#accounts/\$entity$}, 'context of one row');

cmp_ok(scalar keys %{get("accounts($id{0})?\$select=*")->json}, '>', 50, '$select=*');
is(get("accounts?\$select=*x")->{status}, 400, 'but not *x');

# --- operators
is(names("name eq 'a03'"), 'a03', 'eq');
is(names("name eq 'A03'"), 'a03', 'text is compared without case');
is(names("startswith(name,'a') and numberofemployees gt 22"), 'a23 a24', 'gt');
is(names("startswith(name,'a') and numberofemployees ge 23"), 'a23 a24', 'ge');
is(names("numberofemployees lt 2"), 'a00 a01', 'lt');
is(names("numberofemployees le 1"), 'a00 a01', 'le');
is(names("numberofemployees lt 3 and numberofemployees ne 1"), 'a00 a02', 'ne');
is(names("name eq 'a01' or name eq 'a02'"), 'a01 a02', 'or');
is(names("(name eq 'a01' or name eq 'a02') and creditonhold eq true"), 'a01', 'parentheses and booleans');
is(names("startswith(name,'a0') and not(creditonhold eq true)"), 'a00 a02 a04 a06 a08', 'not');
is(names("contains(name,'02')"), 'a02', 'contains');
is(names("endswith(name,'4')"), 'a04 a14 a24', 'endswith');
is(names("startswith(name,'a2')"), 'a20 a21 a22 a23 a24', 'startswith');
is(names("startswith(name,'a') and description eq null"), 'a00 a05 a10 a15 a20', 'null');
is(names("description ne null and numberofemployees le 2"), 'a01 a02', 'not null');
is(names("revenue eq 2001"), 'a02', 'money');
is(names("industrycode eq 2 and numberofemployees lt 9"), 'a01 a04 a07', 'a choice');
is(names("_parentaccountid_value eq $parent and numberofemployees lt 3"), 'a00 a01 a02', 'a lookup');
is(names("accountid eq $id{7}"), 'a07', 'an id');
is(names("parentaccountid/name eq 'parent' and numberofemployees lt 2"), 'a00 a01', 'a column of the other table');
is(names("createdon gt 2020-01-01T00:00:00Z and numberofemployees lt 1"), 'a00', 'a time');
is(names("name eq 'nobody'"), '', 'nothing found');
is($sim->count('contacts', "lastname eq 'O''Neil'"), 1, 'a doubled quote');
is(names("Microsoft.Dynamics.CRM.In(PropertyName='name',PropertyValues=[\"a01\",\"A02\",\"zz\"])"), 'a01 a02', 'In');

# --- In with parameters, ids as strings, apostrophes
{
	my @wanted = map {$id{$_}} 4, 5, 6;
	my $list = '["' . join('","', @wanted, guid()) . '"]';
	my $query = 'accounts?$select=name&$orderby=name&$filter=Microsoft.Dynamics.CRM.In(PropertyName=@p1,PropertyValues=@p2)&@p1='
		. esc("'accountid'") . '&@p2=';
	my $answer = get($query . esc($list));
	accepted($answer, 200, 'In with ids');
	is(join(' ', map {$_->{name}} @{$answer->json->{value}}), 'a04 a05 a06', 'finds those that are there');
	$answer = get('contacts?$select=lastname&$filter=Microsoft.Dynamics.CRM.In(PropertyName=@p1,PropertyValues=@p2)&@p1='
		. esc("'lastname'") . '&@p2=' . esc('["O\'Neil"]'));
	accepted($answer, 200, 'In with an apostrophe');
	is(scalar @{$answer->json->{value}}, 1, 'finds it');
	isnt(get($query . esc('["a""b"]'))->{status}, 200, 'a malformed list');
	isnt(get($query . esc('["abc"]'))->{status}, 200, 'no id');
}

# --- mistakes
for my $filter ("name eq 'a", "name eq", "name xx 'a'", "(name eq 'a'", "nosuch eq 1", "name eq 5", "numberofemployees eq 'x'",
	"contains(name)", "accountid eq abc", "name eq 'a' and", "industrycode eq 'x'")
{
	my $answer = get('accounts?$filter=' . esc($filter));
	is($answer->{status}, 400, "a malformed filter: $filter");
	error_shape($answer);
}
like(get('accounts?$filter=' . esc("name eq 'a"))->json->{error}{message}, qr/unterminated (string )?literal at position \d+ in/,
	'the message of an open quote');
is(get("accounts?$_")->{status}, 400, "refused: $_") for '$skip=5', '$top=abc', '$orderby=nosuch', '$nosuch=1', '$expand=nosuch';

# --- order
sub ordered
{
	my ($order, $field, $query) = @_;
	return join ' ', map {$_->{$field} // 'null'} @{get("accounts?\$select=$field&\$orderby=" . esc($order) . ($query // ''))->json->{value}};
}
is(ordered('numberofemployees desc', 'numberofemployees', '&$top=3'), '24 23 22', 'descending');
is(ordered('industrycode asc,numberofemployees desc', 'numberofemployees', '&$top=3&$filter=' . esc('numberofemployees ge 0')), '24 21 18',
	'two columns');
is(ordered('revenue', 'revenue', '&$top=2&$filter=' . esc('revenue gt 1')), '1000.5 2001', 'numbers as numbers');

# --- expand
$r = get("accounts($id{3})?\$select=name&\$expand=primarycontactid(\$select=lastname),parentaccountid(\$select=name)");
accepted($r, 200, '$expand');
is(eval {$r->json->{primarycontactid}{lastname}}, "O'Neil", 'one lookup');
is(eval {$r->json->{parentaccountid}{name}}, 'parent', 'another');
$r = get("accounts($parent)?\$select=name&\$expand=account_parent_account(\$select=name)");
accepted($r, 200, '$expand of a collection');
is(scalar @{$r->json->{account_parent_account} // []}, 10, 'all its rows');
is(get("accounts($id{9})?\$expand=primarycontactid(\$select=lastname)")->json->{primarycontactid}, undef, 'nothing to expand');
$r = get("accounts($id{3})/primarycontactid?\$select=lastname");
accepted($r, 200, 'follow a lookup');
is($r->json->{lastname}, "O'Neil", 'the other row');

# --- annotations
$r = get("accounts($id{0})?\$select=industrycode,creditonhold,statecode,_parentaccountid_value", Prefer => 'odata.include-annotations="*"');
$data = $r->json;
is($data->{'industrycode@OData.Community.Display.V1.FormattedValue'}, 'Accounting', 'the label of a choice');
is($data->{'statecode@OData.Community.Display.V1.FormattedValue'}, 'Active', 'the label of a state');
is($data->{'creditonhold@OData.Community.Display.V1.FormattedValue'}, 'No', 'the label of a boolean');
is($data->{'_parentaccountid_value@OData.Community.Display.V1.FormattedValue'}, 'parent', 'the name of a lookup');
is($data->{'_parentaccountid_value@Microsoft.Dynamics.CRM.lookuplogicalname'}, 'account', 'the table of a lookup');
is($data->{'_parentaccountid_value@Microsoft.Dynamics.CRM.associatednavigationproperty'}, 'parentaccountid', 'and its property');
like($r->header('preference-applied') // '', qr/odata\.include-annotations/, 'Preference-Applied');
ok(!(grep {/\@OData/} keys %{get("accounts($id{0})?\$select=industrycode")->json}), 'none when not asked for');

# --- counting
is(get('accounts/$count')->{body} =~ s/^\xef\xbb\xbf//r, '26', '$count as text');
is(get('accounts?$select=name&$top=2&$count=true&$filter=' . esc($mine[0]))->json->{'@odata.count'}, 25, '@odata.count');
$r = get('RetrieveTotalRecordCount(EntityNames=@p1)?@p1=' . esc('["account","contact"]'));
accepted($r, 200, 'RetrieveTotalRecordCount');
is_deeply($r->json->{EntityRecordCountCollection}{Keys}, ['account', 'contact'], 'parallel arrays');
$r = get('accounts?$apply=' . esc("filter($mine[0])/aggregate(\$count as n)"));
accepted($r, 200, '$apply');
is($r->json->{value}[0]{n}, 25, 'an exact count');
is(get('accounts?$apply=' . esc('aggregate($count as n)'))->json->{value}[0]{n}, 26, 'of all rows');

# --- paging
{
	my @seen;
	my $path = 'accounts?$select=name&$orderby=name%20desc&$filter=' . esc($mine[0]) . '&$count=true';
	my $pages = 0;
	while (defined $path)
	{
		my $answer = get($path, Prefer => 'odata.maxpagesize=10');
		accepted($answer, 200, 'page ' . ++$pages) or last;
		like($answer->header('preference-applied') // '', qr/odata\.maxpagesize=10/, 'Preference-Applied');
		push @seen, map {$_->{name}} @{$answer->json->{value}};
		$path = $answer->json->{'@odata.nextLink'};
		last if !defined $path;
		like($path, qr/^\Q$api\E\/accounts\?.*\$skiptoken=/, 'nextLink');
		# what changes meanwhile does not repeat or lose a row that was there
		$sim->create('accounts', {name => "zz$pages"}) if $pages == 1;
		$path =~ s{^http://[^/]+}{};
	}
	is($pages, 3, 'three pages');
	is_deeply(\@seen, [map {sprintf 'a%02d', $_} reverse 0 .. 24], 'each row once, in order');
	$r = get('accounts?$select=name&$top=3', Prefer => 'odata.maxpagesize=5');
	is(scalar @{$r->json->{value}}, 5, '$top is ignored with maxpagesize');
	isnt(get('accounts?$select=name&$skiptoken=garbage')->{status}, 200, 'an invented skip token');
}
{
	# more rows than a page can hold
	my $type = 'Microsoft.Dynamics.CRM.new_track';
	for my $block (0 .. 5)
	{
		my @rows = map {{'@odata.type' => $type, new_name => "t$_", new_tracknumber => $_}} $block * 1000 .. $block * 1000 + 999;
		$sim->req('POST', 'new_tracks/Microsoft.Dynamics.CRM.CreateMultiple', {Targets => \@rows});
	}
	my $answer = get('new_tracks?$select=new_tracknumber&$count=true');
	is(scalar @{$answer->json->{value}}, 5000, 'a page has 5,000 rows at most');
	ok($answer->json->{'@odata.nextLink'}, 'and a link to the next');
	is($answer->json->{'@odata.count'}, 5000, '@odata.count ends there too');
	my $more = get('new_tracks?$select=new_tracknumber', Prefer => 'odata.maxpagesize=50000');
	is(scalar @{$more->json->{value}}, 5000, 'larger pages are not given');
	is($sim->count('new_tracks'), 6000, 'all rows are found by following');
	is(get('new_tracks/$count')->{body} =~ s/^\xef\xbb\xbf//r, '5000', '$count is capped');
	is(get('new_tracks?$apply=' . esc('aggregate($count as n)'))->json->{value}[0]{n}, 6000, 'an aggregate is exact');
}

# --- FetchXML
sub fetch { return get('accounts?fetchXml=' . esc($_[0])); }

$r = fetch('<fetch mapping="logical" top="2"><entity name="account"><attribute name="name"/></entity></fetch>');
accepted($r, 200, 'FetchXML');
is(scalar @{$r->json->{value}}, 2, 'its rows');
is(join(' ', sort grep {!/^\@/} keys %{$r->json->{value}[0]}), 'accountid name', 'its columns');
{
	my $found = sub
	{
		my $answer = fetch("<fetch><entity name='account'><attribute name='name'/><order attribute='name' descending='true'/>$_[0]</entity></fetch>");
		return $answer->{status} == 200 ? join(' ', map {$_->{name}} @{$answer->json->{value}}) : "$answer->{status} $answer->{body}";
	};
	my $condition = sub {my ($name, $operator, $value) = @_; return "<condition attribute='$name' operator='$operator'" . (defined $value ? " value='$value'/>" : '/>')};
	is($found->('<filter>' . $condition->('name', 'eq', 'a03') . '</filter>'), 'a03', 'FetchXML: eq');
	is($found->('<filter type="or">' . $condition->('name', 'eq', 'a03') . $condition->('numberofemployees', 'lt', 2) . '</filter>'), 'a03 a01 a00', 'or');
	is($found->('<filter>' . $condition->('numberofemployees', 'ge', 3) . $condition->('numberofemployees', 'le', 4) . '</filter>'), 'a04 a03', 'and');
	is($found->('<filter>' . $condition->('name', 'like', 'a2%') . $condition->('description', 'null') . '</filter>'), 'a20', 'like and null');
}
isnt(fetch($_)->{status}, 200, "refused: $_") for '<fetch><entity name="account">', '<fetch><entity name="contact"/></fetch>', 'none',
	'<fetch><entity name="account"><attribute name="nosuch"/></entity></fetch>',
	'<fetch><entity name="account"><filter><condition attribute="nosuch" operator="null"/></filter></entity></fetch>';

# --- a URL that is too long
{
	my $long = 'accounts?$filter=' . esc("name eq '" . ('x' x 33000) . "'");
	my $answer = get($long);
	like($answer->{status}, qr/^4(00|04|14)$/, 'a URL beyond 32,768 characters');
}
# --- a part of a batch may ask for many ids
{
	my $list = '["' . join('","', (map {guid()} 1 .. 1000), $id{1}) . '"]';
	my $answer = batch($sim, [op('GET', 'accounts?$select=name&$filter=Microsoft.Dynamics.CRM.In(PropertyName=@p1,PropertyValues=@p2)&@p1=%27accountid%27&@p2='
		. esc($list))]);
	accepted($answer, 200, 'a thousand ids in a part');
	is(eval {$answer->{parts}[0]->json->{value}[0]{name}}, 'a01', 'finds the one');
}

done_testing;

# Metadata: EntityDefinitions with casts and expansions, keys, relationships, CSDL
use strict;
use warnings;

use Test::More;

use Sim qw(esc guid);
use Sim::Check;

my $sim = Sim->start;

sub get
{
	my ($path, $name) = @_;
	my $r = $sim->req('GET', $path);
	accepted($r, 200, $name // $path) or return {};
	return $r->json;
}

sub one { my ($list, $name) = @_; my ($found) = grep {$_->{LogicalName} eq $name} @$list; return $found // {}; }

# --- one table, the way a loader asks
my $d = get("EntityDefinitions(LogicalName='account')?\$select=LogicalName,EntitySetName,PrimaryIdAttribute,PrimaryNameAttribute,OwnershipType,"
	. 'TableType,IsOptimisticConcurrencyEnabled&$expand=Attributes($select=LogicalName,AttributeType,AttributeTypeName,IsValidForCreate,IsValidForUpdate,'
	. 'RequiredLevel),Keys($select=LogicalName,KeyAttributes,EntityKeyIndexStatus),ManyToOneRelationships($select=ReferencingAttribute,ReferencedEntity,'
	. 'ReferencingEntityNavigationPropertyName),ManyToManyRelationships');
is($d->{LogicalName}, 'account', 'LogicalName');
is($d->{EntitySetName}, 'accounts', 'EntitySetName');
is($d->{PrimaryIdAttribute}, 'accountid', 'PrimaryIdAttribute');
is($d->{PrimaryNameAttribute}, 'name', 'PrimaryNameAttribute');
is($d->{OwnershipType}, 'UserOwned', 'OwnershipType');
is($d->{TableType}, 'Standard', 'TableType');

my $name = one($d->{Attributes}, 'name');
is($name->{AttributeType}, 'String', 'AttributeType');
is_deeply($name->{AttributeTypeName}, {Value => 'StringType'}, 'AttributeTypeName');
is($name->{RequiredLevel}{Value}, 'ApplicationRequired', 'RequiredLevel');
is(one($d->{Attributes}, 'accountid')->{AttributeType}, 'Uniqueidentifier', 'the id');
is(one($d->{Attributes}, 'createdon')->{IsValidForCreate}, JSON::PP::false, 'IsValidForCreate');
is(one($d->{Attributes}, 'overriddencreatedon')->{IsValidForCreate}, JSON::PP::true, 'valid for create');
is(one($d->{Attributes}, 'overriddencreatedon')->{IsValidForUpdate}, JSON::PP::false, 'but not for update');
is(one($d->{Attributes}, 'ownerid')->{AttributeType}, 'Owner', 'owner');
is(one($d->{Attributes}, 'parentaccountid')->{AttributeType}, 'Lookup', 'lookup');
is(one($d->{Attributes}, 'statecode')->{AttributeType}, 'State', 'state');
is(one($d->{Attributes}, 'statuscode')->{AttributeType}, 'Status', 'status');
is(one($d->{Attributes}, 'revenue')->{AttributeType}, 'Money', 'money');
is(one($d->{Attributes}, 'entityimage')->{AttributeTypeName}{Value}, 'ImageType', 'image');

my ($key) = @{$d->{Keys}};
is_deeply($key->{KeyAttributes}, ['new_legacyid'], 'KeyAttributes');
is($key->{EntityKeyIndexStatus}, 'Active', 'EntityKeyIndexStatus');
my ($parent) = grep {$_->{ReferencingAttribute} eq 'parentaccountid'} @{$d->{ManyToOneRelationships}};
is($parent->{ReferencedEntity}, 'account', 'ReferencedEntity');
is($parent->{ReferencingEntityNavigationPropertyName}, 'parentaccountid', 'the navigation property');
my ($link) = grep {$_->{SchemaName} eq 'accountleads_association'} @{$d->{ManyToManyRelationships}};
is($link->{Entity1NavigationPropertyName}, 'accountleads_association', 'a many-to-many relationship');
is("$link->{Entity1LogicalName} $link->{Entity2LogicalName}", 'account lead', 'its sides in their order');
is($link->{IntersectEntityName}, 'accountleads', 'its intersect table');

# --- lookups of several tables
for my $want (['contact', 'parentcustomerid', {account => 'parentcustomerid_account', contact => 'parentcustomerid_contact'}],
	['new_invoice', 'new_billedtoid', {account => 'new_BilledToId_account', contact => 'new_BilledToId_contact'}],
	['new_invoice', 'new_customerid', {account => 'new_CustomerId'}])
{
	my ($table, $column, $navigation) = @$want;
	my $rows = get("EntityDefinitions(LogicalName='$table')/ManyToOneRelationships?\$select=ReferencingAttribute,ReferencedEntity,"
		. 'ReferencingEntityNavigationPropertyName')->{value};
	my %found = map {$_->{ReferencedEntity} => $_->{ReferencingEntityNavigationPropertyName}} grep {$_->{ReferencingAttribute} eq $column} @{$rows // []};
	is_deeply(\%found, $navigation, "navigation properties of $table.$column");
}

# --- casts
sub cast
{
	my ($table, $type, $select, $expand) = @_;
	return get("EntityDefinitions(LogicalName='$table')/Attributes/Microsoft.Dynamics.CRM.${type}AttributeMetadata?\$select=$select"
		. ($expand ? "&\$expand=$expand" : ''), "$type of $table")->{value} // [];
}

is(one(cast('account', 'String', 'LogicalName,MaxLength'), 'name')->{MaxLength}, 160, 'MaxLength');
is(one(cast('account', 'Memo', 'LogicalName,MaxLength'), 'description')->{MaxLength}, 2000, 'of a memo');
my $n = one(cast('account', 'Integer', 'LogicalName,MinValue,MaxValue'), 'numberofemployees');
is("$n->{MinValue} $n->{MaxValue}", '0 1000000000', 'MinValue and MaxValue');
$n = one(cast('account', 'Money', 'LogicalName,MinValue,MaxValue,Precision'), 'revenue');
is("$n->{MinValue} $n->{MaxValue} $n->{Precision}", '0 100000000000000 2', 'of money');
is(one(cast('account', 'Double', 'LogicalName,MinValue,MaxValue,Precision'), 'address1_latitude')->{Precision}, 5, 'of a double');
is(one(cast('new_invoice', 'Decimal', 'LogicalName,MinValue,MaxValue,Precision'), 'new_taxrate')->{Precision}, 4, 'of a decimal');
$n = one(cast('contact', 'DateTime', 'LogicalName,DateTimeBehavior,Format'), 'birthdate');
is(ref $n->{DateTimeBehavior} ? $n->{DateTimeBehavior}{Value} : 'not a structure', 'DateOnly', 'DateTimeBehavior');
is($n->{Format}, 'DateOnly', 'Format');
$n = one(cast('new_invoice', 'DateTime', 'LogicalName,DateTimeBehavior'), 'new_dueat');
is(eval {$n->{DateTimeBehavior}{Value}}, 'TimeZoneIndependent', 'TimeZoneIndependent');
is_deeply([sort @{one(cast('new_invoice', 'Lookup', 'LogicalName,Targets'), 'new_billedtoid')->{Targets} // []}], ['account', 'contact'], 'Targets');
is(one(cast('new_invoice', 'File', 'LogicalName,MaxSizeInKB'), 'new_document')->{MaxSizeInKB}, 32768, 'MaxSizeInKB');
is(one(cast('new_invoice', 'Image', 'LogicalName,MaxSizeInKB'), 'new_scan')->{MaxSizeInKB}, 10240, 'of an image');
is(join(' ', map {one(cast($_->[0], 'Image', 'LogicalName,CanStoreFullImage'), $_->[1])->{CanStoreFullImage} ? 'full' : 'thumbnail'} ['new_invoice', 'new_scan'], ['account', 'entityimage']),
	'full thumbnail', 'CanStoreFullImage');
ok(!(grep {$_->{LogicalName} eq 'name'} @{cast('account', 'Memo', 'LogicalName')}), 'a cast leaves other types out');

# --- choices
my $pick = one(cast('account', 'Picklist', 'LogicalName', 'OptionSet($select=Options),GlobalOptionSet($select=Options)'), 'industrycode');
my %label = map {$_->{Value} => $_->{Label}{UserLocalizedLabel}{Label}} @{$pick->{OptionSet}{Options} // []};
is($label{1}, 'Accounting', 'a label');
is(scalar keys %label, 33, 'all options');
my $multi = one(cast('new_invoice', 'MultiSelectPicklist', 'LogicalName', 'OptionSet($select=Options)'), 'new_channels');
is_deeply([sort {$a <=> $b} map {$_->{Value}} @{$multi->{OptionSet}{Options} // []}], [1, 2, 3, 9], 'several choices');
my $status = one(cast('opportunity', 'Status', 'LogicalName', 'OptionSet($select=Options)'), 'statuscode');
my %state = map {$_->{Value} => $_->{State}} @{$status->{OptionSet}{Options} // []};
is_deeply(\%state, {1 => 0, 2 => 0, 3 => 1, 4 => 2, 5 => 2}, 'the state of each status');
is(scalar @{one(cast('account', 'State', 'LogicalName', 'OptionSet($select=Options)'), 'statecode')->{OptionSet}{Options} // []}, 2, 'states');
my $bool = one(cast('account', 'Boolean', 'LogicalName', 'OptionSet'), 'creditonhold')->{OptionSet} // {};
is(eval {$bool->{TrueOption}{Label}{UserLocalizedLabel}{Label}}, 'Yes', 'the labels of a boolean');

# --- one attribute, filters, lists
my $attribute = get("EntityDefinitions(LogicalName='account')/Attributes(LogicalName='name')?\$select=LogicalName,SchemaName");
is($attribute->{LogicalName}, 'name', 'one attribute');
my $list = get("EntityDefinitions?\$select=LogicalName,EntitySetName&\$filter=" . esc("LogicalName eq 'contact'"))->{value};
is(scalar @{$list // []}, 1, 'a filter over tables');
is($list->[0]{EntitySetName}, 'contacts', 'finds it');
$list = get("EntityDefinitions(LogicalName='account')/Attributes?\$select=LogicalName&\$filter="
	. esc("AttributeType eq Microsoft.Dynamics.CRM.AttributeTypeCode'Picklist'"))->{value};
ok((grep {$_->{LogicalName} eq 'industrycode'} @{$list // []}), 'a filter by type');
ok(!(grep {$_->{LogicalName} eq 'name'} @{$list // []}), 'leaves others out');
$list = get('EntityDefinitions?$select=LogicalName')->{value};
cmp_ok(scalar @{$list // []}, '>', 25, 'all tables, without paging');
$list = get('EntityDefinitions?$select=SchemaName&$expand=Keys($select=KeyAttributes,EntityKeyIndexStatus)')->{value};
my ($region) = grep {$_->{SchemaName} eq 'new_region'} @{$list // []};
is(eval {$region->{Keys}[0]{EntityKeyIndexStatus}}, 'Pending', 'a key that is pending');
is(get("EntityDefinitions(LogicalName='new_telemetry')?\$select=TableType")->{TableType}, 'Elastic', 'an elastic table');
is(get("EntityDefinitions(LogicalName='new_stocklevel')?\$select=TableType")->{TableType}, 'Virtual', 'a virtual table');
is($sim->req('GET', "EntityDefinitions(LogicalName='nosuch')")->{status}, 404, 'an unknown table');
is($sim->req('GET', "EntityDefinitions(LogicalName='account')?\$select=Nosuch")->{status}, 400, 'an unknown property');

# --- what has changed in a solution update
my ($child) = grep {$_->{ReferencingAttribute} eq 'new_invoiceid'}
	@{get("EntityDefinitions(LogicalName='new_invoice')?\$select=LogicalName&\$expand=OneToManyRelationships(\$select=ReferencingAttribute,CascadeConfiguration)")->{OneToManyRelationships}};
is($child->{CascadeConfiguration}{Delete}, 'Cascade', 'what a delete does to the rows that point here');
is(one(get("EntityDefinitions(LogicalName='new_invoice')/Attributes?\$select=LogicalName,SourceType")->{value}, 'new_open')->{SourceType}, 1, 'a calculated column');
is($sim->raw('POST', '/_sim/column', {}, '{"table":"account","column":"name","max_length":9}')->{status}, 204, 'a column is made shorter');
is(one(cast('account', 'String', 'LogicalName,MaxLength'), 'name')->{MaxLength}, 9, 'and says so');
like($sim->req('POST', 'accounts', {name => 'x' x 10})->{body}, qr/0x80044331/, 'and takes no more');
is($sim->raw('POST', '/_sim/column', {}, '{"table":"account","column":"fax","gone":true}')->{status}, 204, 'another is taken out');
is($sim->req('POST', 'accounts', {fax => '1'})->{status}, 400, 'and is unknown');
is(scalar((grep {$_->{LogicalName} eq 'fax'} @{cast('account', 'String', 'LogicalName')})), 0, 'also to the metadata');
is($sim->raw('POST', '/_sim/column', {}, '{"table":"account","column":"nosuch","gone":true}')->{status}, 404, 'an unknown column');

# --- privileges
my $users = "systemusers(@{[Sim::USER]})/Microsoft.Dynamics.CRM.RetrieveUserPrivileges()";
my %may = map {$_->{PrivilegeName} => $_->{Depth}} @{get($users)->{RolePrivileges}};
is($may{prvCreateAccount}, 'Global', 'a privilege of a table');
ok($may{prvCreateActivity} && !$may{prvCreateTask}, 'activities share theirs');
ok($may{prvBypassCustomBusinessLogic}, 'one of no table');
$sim->raw('POST', '/_sim/set', {}, '{"deny_privilege":"prvCreateContact"}');
ok(!(grep {$_->{PrivilegeName} eq 'prvCreateContact'} @{get($users)->{RolePrivileges}}), 'one that is denied is not told');
is($sim->req('POST', 'contacts', {lastname => 'x'})->{status}, 403, 'nor is what needs it done');
$sim->raw('POST', '/_sim/set', {}, '{"deny_privilege":""}');
{
	my ($team) = map {$_->{teamid}} @{get('teams')->{value}};
	my $reads = sub {scalar grep {$_->{PrivilegeName} eq 'prvReadAccount'} @{get($_[0])->{RolePrivileges}}};
	my $teams = "teams($team)/Microsoft.Dynamics.CRM.RetrieveTeamPrivileges()";
	is($reads->($teams), 1, 'teams have privileges, too');
	isnt($sim->req('GET', "accounts(@{[guid()]})/Microsoft.Dynamics.CRM.RetrieveUserPrivileges()")->{status}, 200, 'accounts have none');
	$sim->raw('POST', '/_sim/set', {}, qq({"deny_owner":"$team"}));
	is($reads->($teams) . $reads->($users), '01', 'who cannot own may not read');
	$sim->raw('POST', '/_sim/set', {}, '{"deny_owner":""}');
}

# --- CSDL
my $r = $sim->req('GET', '$metadata', undef, {Accept => 'application/xml'});
accepted($r, 200, '$metadata');
like($r->header('content-type'), qr{^application/xml}, 'XML');
like($r->{body}, qr/<EntityType Name="account"/, 'an entity type');
like($r->{body}, qr/<EntitySet Name="accounts" EntityType="(mscrm|Microsoft\.Dynamics\.CRM)\.account"/, 'an entity set');
like($r->{body}, qr/<Property Name="revenue" Type="Edm\.Decimal"/, 'a property');
like($r->{body}, qr/<NavigationProperty Name="new_CustomerId" Type="(mscrm|Microsoft\.Dynamics\.CRM)\.account"/, 'a navigation property');

# --- who am I, which version
like(get('RetrieveVersion()')->{Version} // '', qr/^9\.2\./, 'RetrieveVersion');

done_testing;

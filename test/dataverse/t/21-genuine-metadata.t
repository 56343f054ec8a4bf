# The table files agree with metadata of a real environment
use strict;
use warnings;

use Test::More;

use Sim qw(metadata_dir shared_data);
use Sim::Check;

my $shared = shared_data();
my $dir = defined $shared ? "$shared/dataverse-metadata" : '';
-d $dir or plan skip_all => 'set DVMIG_SHARED_DATA to the folder with dataverse-metadata';

sub read_json
{
	my ($path) = @_;
	open my $in, '<:raw', $path or die "$path: $!";
	local $/;
	return JSON::PP->new->utf8->allow_bignum->decode(scalar <$in>);
}

# Words of a line; blanks inside double quotes belong to the word.
sub words { return $_[0] =~ /((?:"[^"]*"|[^\s"])+)/g; }

# A table file as a structure: table words, columns, keys, relationships.
sub read_table
{
	my ($path) = @_;
	my %t = (column => {}, key => [], nn => []);
	open my $in, '<:encoding(UTF-8)', $path or die "$path: $!";
	while (my $line = <$in>)
	{
		next if $line =~ /^\s*(#|$)/;
		my ($type, $name, @rest) = words($line);
		if ($type eq 'table') {@t{qw(name words)} = ($name, {map {/^(\w+)(?:=(.*))?$/ ? ($1 => $2 // 1) : ()} @rest});}
		elsif ($type eq 'key') {push @{$t{key}}, [$name, @rest];}
		elsif ($type eq 'nn') {push @{$t{nn}}, [$name, @rest];}
		else {$t{column}{$name} = read_column($type, @rest);}
	}
	return \%t;
}

sub read_column
{
	my ($type, @rest) = @_;
	my %c = (type => $type, flag => {}, option => {}, number => [], target => []);
	for my $w (@rest)
	{
		if ($w =~ /^(-?\d+)="(.*)"(?::(\d+))?$/) {$c{option}{$1} = [$2, $3];}
		elsif ($w =~ /^precision=(\d+)$/) {$c{precision} = $1;}
		elsif ($w =~ /^(\w+):(\w+)(?::(\w+))?$/) {push @{$c{target}}, [$1, $2, $3];}
		elsif ($w =~ /^-?[\d.]+$/) {push @{$c{number}}, $w;}
		else {$c{flag}{$w} = 1;}
	}
	return \%c;
}

my %kind = (string => 'StringType', memo => 'MemoType', integer => 'IntegerType', bigint => 'BigIntType', decimal => 'DecimalType',
	double => 'DoubleType', money => 'MoneyType', boolean => 'BooleanType', choice => 'PicklistType', choices => 'MultiSelectPicklistType',
	state => 'StateType', status => 'StatusType', date => 'DateTimeType', guid => 'UniqueidentifierType', image => 'ImageType',
	file => 'FileType', lookup => 'LookupType', customer => 'CustomerType', owner => 'OwnerType', party => 'PartyListType');

sub own { return $_[0] =~ /^new_/; }

# Options of ours against those of the environment: value, label, state.
sub options_differ
{
	my ($c, $options) = @_;
	my %theirs = map {my $label = $_->{Label} // ''; $label =~ tr/"/'/; $label =~ s/\s+$//;
		("$_->{Value}" => $label . (defined $_->{State} ? ":$_->{State}" : ''))} @$options;
	my %ours = map {$_ => $c->{option}{$_}[0] . (defined $c->{option}{$_}[1] ? ":$c->{option}{$_}[1]" : '')} keys %{$c->{option}};
	return join ', ', map {"option $_"} grep {($theirs{$_} // '') ne ($ours{$_} // '')} sort keys %{{%theirs, %ours}};
}

# What differs in a column, as text; '' when nothing does.
sub column_differs
{
	my ($name, $c, $a, $relations) = @_;
	return 'not there' if !$a;
	my @d;
	push @d, "type $a->{AttributeTypeName}" if $a->{AttributeTypeName} ne $kind{$c->{type}};
	push @d, 'create' if !$a->{IsValidForCreate} != !!($c->{flag}{nocreate} || $c->{flag}{readonly});
	push @d, 'update' if !$a->{IsValidForUpdate} != !!($c->{flag}{noupdate} || $c->{flag}{readonly});
	push @d, 'system required' if $c->{flag}{systemrequired} && $a->{RequiredLevel} ne 'SystemRequired';
	push @d, 'required' if $a->{RequiredLevel} eq 'ApplicationRequired' && !$c->{flag}{required};
	push @d, 'length' if defined $a->{MaxLength} && $a->{MaxLength} != $c->{number}[0];
	push @d, 'range' if defined $a->{MinValue} && @{$c->{number}} && ($a->{MinValue} != $c->{number}[0] || $a->{MaxValue} != $c->{number}[1]);
	push @d, 'precision' if defined $a->{Precision} && $a->{Precision} != ($c->{precision} // -1);
	push @d, 'behaviour' if defined $a->{DateTimeBehavior} && !$c->{flag}{lc $a->{DateTimeBehavior}};
	push @d, 'size' if defined $a->{MaxSizeInKB} && $a->{MaxSizeInKB} != $c->{number}[0];
	push @d, 'full image' if defined $a->{CanStoreFullImage} && !$a->{CanStoreFullImage} != !$c->{flag}{full};
	push @d, options_differ($c, $a->{OptionSet}{Options}) if $a->{OptionSet};
	for my $t (grep {!own($_->[0])} @{$c->{target}})
	{
		my ($r) = grep {$_->{ReferencingAttribute} eq $name && $_->{ReferencedEntity} eq $t->[0]} @$relations;
		push @d, "target $t->[0]" if !$r || $r->{ReferencingEntityNavigationPropertyName} ne $t->[1]
			|| defined $t->[2] && $r->{ReferencedEntityNavigationPropertyName} ne $t->[2];
	}
	return join ', ', grep {length} @d;
}

sub check_table
{
	my ($table) = @_;
	my $t = read_table(metadata_dir() . "/$table.table");
	my $d = read_json("$dir/$table.json");
	my %ownership = (user => 'UserOwned', business => 'BusinessOwned', organization => 'OrganizationOwned', none => 'None');
	is($t->{words}{set}, $d->{EntitySetName}, 'entity set');
	is($t->{words}{id}, $d->{PrimaryIdAttribute}, 'primary id');
	is($t->{words}{name}, $d->{PrimaryNameAttribute}, 'primary name');
	is($t->{words}{schema}, $d->{SchemaName}, 'schema name');
	is($ownership{$t->{words}{owner}}, $d->{OwnershipType}, 'ownership');
	is(!!$t->{words}{activity}, !!$d->{IsActivity}, 'activity');
	my %theirs = map {$_->{LogicalName} => $_} @{$d->{Attributes}};
	for my $name (grep {!own($_)} sort keys %{$t->{column}})
	{
		is(column_differs($name, $t->{column}{$name}, $theirs{$name}, $d->{ManyToOneRelationships}), '', "$table.$name");
	}
	for my $a (grep {$_->{RequiredLevel} eq 'SystemRequired' && $_->{IsValidForCreate}} @{$d->{Attributes}})
	{
		next if $a->{AttributeTypeName} !~ /^(String|Memo|Customer)Type$/;
		ok($t->{column}{$a->{LogicalName}}, "$table.$a->{LogicalName} is required and there");
	}
	for my $n (grep {!own($_->[0])} @{$t->{nn}})
	{
		my ($r) = grep {$_->{SchemaName} eq $n->[0]} @{$d->{ManyToManyRelationships}};
		is(join(' ', @$n), $r ? join(' ', @$r{qw(SchemaName Entity1LogicalName Entity1NavigationPropertyName Entity2LogicalName
			Entity2NavigationPropertyName)}, "intersect=$r->{IntersectEntityName}") : 'not there', "relationship $n->[0]");
	}
	is(join('; ', map {join ' ', @$_} grep {!own($_->[0])} @{$t->{key}}),
		join('; ', map {join ' ', $_->{LogicalName}, $_->{EntityKeyIndexStatus}, @{$_->{KeyAttributes}}} @{$d->{Keys}}), 'alternate keys');
	return;
}

# --- tables whose metadata is complete
my @tables = qw(account contact lead opportunity incident task annotation campaign list phonecall email appointment activityparty team);
subtest $_ => sub {check_table($_)} for @tables;

# --- tables of the published model: types, lengths, maxima, options
my %cdm_kind = (string => qr/^(string|name|firstName|middleName|lastName|fullName|email|phone|city|country|county|addressLine|postalCode|stateOrProvince|url|tickerSymbol|governmentId)$/,
	memo => qr/^string$/, integer => qr/^(integer|timezone)$/, decimal => qr/^decimal$/, double => qr/^double$/, money => qr/^(currency|baseCurrency)$/,
	boolean => qr/^boolean$/, choice => qr/^listLookup$/, state => qr/^listLookup$/, status => qr/^listLookupCorrelated$/, date => qr/^dateTime$/,
	guid => qr/^(guid|entityId)$/, lookup => qr/^(lookup|entityId)$/);

sub cdm_differs
{
	my ($c, $a) = @_;
	return 'not there' if !$a;
	my @d;
	push @d, "type $a->{CdmType}" if $a->{CdmType} !~ $cdm_kind{$c->{type}};
	push @d, 'length' if defined $a->{maximumLength} && $c->{type} =~ /^(string|memo)$/ && $a->{maximumLength} != $c->{number}[0];
	push @d, 'maximum' if defined $a->{maximumValue} && $c->{type} =~ /^(integer|decimal|double|money)$/ && $a->{maximumValue} != $c->{number}[1];
	push @d, 'minimum' if defined $a->{minimumValue} && $c->{type} =~ /^(integer|decimal|double|money)$/ && $a->{minimumValue} != $c->{number}[0];
	push @d, 'system required' if $c->{flag}{systemrequired} && $a->{RequiredLevel} ne 'systemrequired';
	push @d, options_differ($c, $a->{Options}) if $a->{Options} && @{$a->{Options}} && %{$c->{option}};
	return join ', ', grep {length} @d;
}

for my $table (qw(product systemuser businessunit transactioncurrency pricelevel opportunityproduct))
{
	subtest $table => sub
	{
		my $t = read_table(metadata_dir() . "/$table.table");
		my %theirs = map {$_->{LogicalName} => $_} @{read_json("$dir/cdm/$table.json")->{Attributes}};
		for my $name (grep {!own($_)} sort keys %{$t->{column}})
		{
			next if $name eq 'importsequencenumber' && !$theirs{$name};
			is(cdm_differs($t->{column}{$name}, $theirs{$name}), '', "$table.$name");
		}
	};
}

# --- what the simulator answers has the members that the service's answers have
my $sim = Sim->start;

# Facts of one attribute in one line, from either side.
sub facts
{
	my ($a) = @_;
	my $value = sub {ref $_[0] eq 'HASH' ? $_[0]{Value} : $_[0]};
	my @f = ($value->($a->{AttributeTypeName}), map({$a->{$_} ? 1 : 0} qw(IsValidForCreate IsValidForUpdate)),
		$value->($a->{RequiredLevel}) =~ s/^Recommended$/None/r);		# table files do not tell recommendations
	push @f, map {defined $a->{$_} ? "$_=" . ($value->($a->{$_}) + 0) : ()} qw(MaxLength MinValue MaxValue Precision MaxSizeInKB);
	push @f, $value->($a->{DateTimeBehavior}) if defined $a->{DateTimeBehavior};
	return join ' ', @f;
}

my %select = (String => 'MaxLength', Memo => 'MaxLength', Integer => 'MinValue,MaxValue', Money => 'MinValue,MaxValue,Precision',
	Decimal => 'MinValue,MaxValue,Precision', Double => 'MinValue,MaxValue,Precision', DateTime => 'DateTimeBehavior', Image => 'MaxSizeInKB',
	Picklist => '', Boolean => '', State => '', Status => '', Uniqueidentifier => '', BigInt => '');

# Their attribute without what the simulator does not tell of this type.
sub same_members
{
	my ($a, $members) = @_;
	my %keep = map {$_ => 1} 'AttributeTypeName', 'IsValidForCreate', 'IsValidForUpdate', 'RequiredLevel', split /,/, $members;
	return {map {$keep{$_} ? ($_ => $a->{$_}) : ()} keys %$a};
}

for my $table (qw(account contact lead opportunity incident task annotation team))
{
	subtest "EntityDefinitions of $table" => sub
	{
		my $t = read_table(metadata_dir() . "/$table.table");
		my $d = read_json("$dir/$table.json");
		my %theirs = map {$_->{LogicalName} => $_} @{$d->{Attributes}};
		for my $type (sort keys %select)
		{
			my $class = $type eq 'Uniqueidentifier' ? 'UniqueIdentifier' : $type;
			my $r = $sim->req('GET', "EntityDefinitions(LogicalName='$table')/Attributes/Microsoft.Dynamics.CRM.${class}AttributeMetadata"
				. '?$select=' . join ',', grep {length} 'LogicalName,AttributeTypeName,IsValidForCreate,IsValidForUpdate,RequiredLevel', $select{$type});
			accepted($r, 200, $class) or next;
			for my $a (grep {!own($_->{LogicalName}) && ($t->{column}{$_->{LogicalName}} || $_->{LogicalName} eq $d->{PrimaryIdAttribute})}
				@{$r->json->{value}})
			{
				my $genuine = $theirs{$a->{LogicalName}} or next;
				$genuine = {%$genuine, RequiredLevel => 'ApplicationRequired'}
					if $t->{column}{$a->{LogicalName}}{flag}{required} && $genuine->{RequiredLevel} eq 'SystemRequired';
				is(facts($a), facts(same_members($genuine, $select{$type})), "$table.$a->{LogicalName}");
			}
		}
		my $r = $sim->req('GET', "EntityDefinitions(LogicalName='$table')/ManyToOneRelationships?\$select=ReferencingAttribute,ReferencedEntity,"
			. 'ReferencingEntityNavigationPropertyName');
		accepted($r, 200, 'relationships') or return;
		my %navigation = map {("$_->{ReferencingAttribute} $_->{ReferencedEntity}" => $_->{ReferencingEntityNavigationPropertyName})}
			@{$d->{ManyToOneRelationships}};
		for my $n (@{$r->json->{value}})
		{
			my $genuine = $navigation{"$n->{ReferencingAttribute} $n->{ReferencedEntity}"} or next;
			is($n->{ReferencingEntityNavigationPropertyName}, $genuine, "$table.$n->{ReferencingAttribute} to $n->{ReferencedEntity}");
		}
	};
}

# Members of theirs that ours lacks, all the way down; ids of metadata aside.
sub lacks
{
	my ($theirs, $ours, $path) = @_;
	return () if !defined $theirs || !ref $theirs || JSON::PP::is_bool($theirs);
	return "$path is of another kind" if ref $theirs ne ref $ours;
	if (ref $theirs eq 'ARRAY')
	{
		return () if !@$theirs;
		return "$path is empty" if !@$ours;
		return lacks($theirs->[0], $ours->[0], "$path\[0]");
	}
	my @d;
	for my $k (sort keys %$theirs)
	{
		next if $k =~ /^(MetadataId|HasChanged|Color|ExternalValue|ParentValues|Tag|IsHidden|TransitionData|IsManaged|Description|DisplayName|DisplayCollectionName)$/;
		push @d, exists $ours->{$k} ? lacks($theirs->{$k}, $ours->{$k}, "$path.$k") : "$path.$k";
	}
	return @d;
}

for my $case (['states', 'State'], ['statuses', 'Status'], ['picklists', 'Picklist'])
{
	my ($file, $type) = @$case;
	my $theirs = read_json("$dir/webapi-json/contact-options-$file.json");
	my $r = $sim->req('GET', "EntityDefinitions(LogicalName='contact')/Attributes/Microsoft.Dynamics.CRM.${type}AttributeMetadata"
		. '?$select=LogicalName&$expand=OptionSet($select=Options)');
	accepted($r, 200, "$file as the service is asked") or next;
	my %ours = map {$_->{LogicalName} => $_} @{$r->json->{value}};
	for my $a (grep {$ours{$_->{LogicalName}}} @{$theirs->{value}})
	{
		is(join(', ', lacks($a, $ours{$a->{LogicalName}}, $a->{LogicalName})), '', "$file: members of $a->{LogicalName}");
		my $label = sub {join '; ', map {"$_->{Value}=$_->{Label}{UserLocalizedLabel}{Label}" . (defined $_->{State} ? ":$_->{State}" : '')} @{$_[0]{OptionSet}{Options}}};
		is($label->($ours{$a->{LogicalName}}), $label->($a), "$file: options of $a->{LogicalName}");
	}
}
{
	$sim->create('contacts', {firstname => 'A', lastname => "B$_", familystatuscode => 1}) for 1 .. 3;
	my $theirs = read_json("$dir/webapi-json/contacts-read.json");
	my $r = $sim->req('GET', 'contacts?$select=fullname,emailaddress1,fax,familystatuscode', undef,
		{Prefer => ['odata.maxpagesize=2', 'odata.include-annotations="*"']});
	accepted($r, 200, 'a page of contacts');
	is(join(', ', lacks($theirs, $r->json, 'page')), '', 'has all members');
	is_deeply([sort keys %{$r->json->{value}[0]}], [sort keys %{$theirs->{value}[0]}], 'a row has the same members');
	is($r->json->{value}[0]{fullname}, 'A B1', 'the full name is made of its parts');
	(my $context = $theirs->{'@odata.context'}) =~ s{^https://[^/]+}{};
	like($r->json->{'@odata.context'}, qr/\Q$context\E$/, 'the same context');
	like($r->json->{'@odata.nextLink'} // '', qr/\$skiptoken=%3Ccookie%20pagenumber=%222%22%20.*%20istracking=%22False%22%20\/%3E$/, 'a link of the same form');
}

done_testing;

# Behaviour that the public documents leave open: every switch, and the profiles that combine them
use strict;
use warnings;

use Test::More;

use Sim qw(esc guid json_of);
use Sim::Batch qw(op change_set batch);
use Sim::Check;
use Sim::Control qw(fault set_switches);

my $type = 'Microsoft.Dynamics.CRM.account';

# Run checks against a simulator with one switch set, beginning from strict.
sub with
{
	my ($name, $value, $checks) = @_;
	return subtest "$name=$value" => sub
	{
		my $sim = Sim->start(profile => 'strict', set => {$name => $value});
		$sim->token;
		$checks->($sim);
		$sim->stop;
	};
}

sub status { my ($sim, @request) = @_; return $sim->req(@request)->{status}; }

# --- codes and statuses
my $replay = sub
{
	my ($code) = @_;
	return sub
	{
		my ($sim) = @_;
		my $id = $sim->create('accounts', {name => 'a'});
		my $r = $sim->req('POST', 'accounts', {accountid => $id, name => 'b'});
		is("$r->{status} " . lc $r->code, '412 ' . lc $code, 'code of an id that exists');
		$r = $sim->req('POST', 'accounts/Microsoft.Dynamics.CRM.CreateMultiple', {Targets => [{'@odata.type' => $type, accountid => $id}]});
		is("$r->{status} " . lc $r->code, '412 ' . lc $code, 'also in a bulk message');
	};
};
with(replay_code => $_, $replay->($_)) for qw(0x80040237 0x80060892 0x80073002);

for my $missing (400, 404)
{
	with(missing_target => $missing, sub
	{
		my ($sim) = @_;
		is(status($sim, 'POST', 'accounts', {'parentaccountid@odata.bind' => 'accounts(' . guid() . ')'}), $missing, 'a lookup to nothing');
		is(status($sim, 'GET', 'accounts(' . guid() . ')'), 404, 'a missing row is always 404');
	});
}
with(range_code => $_, do {my $code = $_; sub
{
	my ($sim) = @_;
	is(lc $sim->req('POST', 'accounts', '{"numberofemployees":-1}')->code, lc $code, 'code of a number out of range');
}}) for qw(0x8004431A 0x80044330);

# --- columns
my $done = {subject => 't', statecode => 1, statuscode => 5};
with(state_at_create => 'accepted', sub
{
	my ($sim) = @_;
	my $id = $sim->create('tasks', $done);
	field_is($sim->row('tasks', $id), 'statuscode', 5, 'even a task');
});
with(state_at_create => 'refused', sub
{
	my ($sim) = @_;
	isnt(status($sim, 'POST', $_->[0], $_->[1]), 204, "$_->[0]") for ['tasks', $done], ['accounts', {name => 'a', statecode => 1, statuscode => 2}];
	is(status($sim, 'POST', 'accounts', {name => 'a', statecode => 0, statuscode => 1}), 204, 'the default pair is fine');
});
with(state_at_create => 'ignored', sub
{
	my ($sim) = @_;
	my $id = $sim->create('accounts', {name => 'a', statecode => 1, statuscode => 2});
	field_is($sim->row('accounts', $id), 'statecode', 0, 'the row begins active');
});
with(noupdate_column => 'ignored', sub
{
	my ($sim) = @_;
	my $id = $sim->create('accounts', {name => 'a', importsequencenumber => 1});
	is(status($sim, 'PATCH', "accounts($id)", {name => 'b', importsequencenumber => 2}), 204, 'taken');
	my $row = $sim->row('accounts', $id);
	is("$row->{name} $row->{importsequencenumber}", 'b 1', 'the column stays, others change');
});
with(readonly_column => 'ignored', sub
{
	my ($sim) = @_;
	my $id = $sim->create('accounts', {name => 'a', opendeals => 5});
	field_is($sim->row('accounts', $id), 'opendeals', undef, 'not stored');
});
with(empty_text_null => 'off', sub
{
	my ($sim) = @_;
	field_is($sim->row('accounts', $sim->create('accounts', {name => 'a', description => ''})), 'description', '', 'an empty text is kept');
});
with(min_year => 1900, sub
{
	my ($sim) = @_;
	is(lc $sim->req('POST', 'contacts', {lastname => 'a', birthdate => '1899-12-31'})->code, '0x80040239', 'before');
	is(status($sim, 'POST', 'contacts', {lastname => 'a', birthdate => '1900-01-01'}), 204, 'the first day');
});
with(naive_time => 'accepted', sub
{
	my ($sim) = @_;
	my $id = $sim->create('new_invoices', {new_postedon => '2024-05-31T10:00:00'});
	field_is($sim->row('new_invoices', $id), 'new_postedon', '2024-05-31T10:00:00Z', 'no offset means UTC');
});
with(date_only_time => 'accepted', sub
{
	my ($sim) = @_;
	my $id = $sim->create('contacts', {lastname => 'a', birthdate => '2024-05-31T10:00:00Z'});
	field_is($sim->row('contacts', $id), 'birthdate', '2024-05-31', 'the time is dropped');
});
with(string_numbers => 'accepted', sub
{
	my ($sim) = @_;
	my $id = $sim->create('accounts', {name => 'a', numberofemployees => '200', revenue => '1.5'});
	my $row = $sim->row('accounts', $id);
	cmp_ok($row->{numberofemployees}, '==', 200, 'a whole number');
	cmp_ok($row->{revenue}, '==', 1.5, 'money');
});

# --- lookups and keys
with(same_request_parent => 'accepted', sub
{
	my ($sim) = @_;
	my $parent = guid();
	my $r = $sim->req('POST', 'accounts/Microsoft.Dynamics.CRM.CreateMultiple', {Targets => [{'@odata.type' => $type, accountid => $parent,
		name => 'p'}, {'@odata.type' => $type, name => 'c', 'parentaccountid@odata.bind' => "accounts($parent)"}]});
	accepted($r, 200, 'a parent earlier in the same request');
});
with(key_blanks => 'ignored', sub
{
	my ($sim) = @_;
	$sim->create('accounts', {name => 'a', new_legacyid => 'K'});
	is(status($sim, 'POST', 'accounts', {name => 'b', new_legacyid => 'k  '}), 412, 'blanks at the end do not count');
});
with(key_blanks => 'significant', sub
{
	my ($sim) = @_;
	$sim->create('accounts', {name => 'a', new_legacyid => 'K'});
	is(status($sim, 'POST', 'accounts', {name => 'b', new_legacyid => 'k  '}), 204, 'blanks at the end count');
	is(status($sim, 'POST', 'accounts', {name => 'b', new_legacyid => 'k'}), 412, 'case does not');
});
with(key_case => 'sensitive', sub
{
	my ($sim) = @_;
	$sim->create('accounts', {name => 'a', new_legacyid => 'K'});
	is(status($sim, 'POST', 'accounts', {name => 'b', new_legacyid => 'k'}), 204, 'another case is another value');
	is(status($sim, 'POST', 'accounts', {name => 'b', new_legacyid => 'K'}), 412, 'the same is not');
});
with(key_special => 'accepted', sub
{
	my ($sim) = @_;
	is(status($sim, 'PATCH', 'accounts(new_legacyid=' . esc("'A&B/C+D'") . ')', {name => 'x'}), 204, 'special characters in a URL');
	is($sim->count('accounts', "new_legacyid eq 'A&B/C+D'"), 1, 'are decoded');
});
with(key_special_body => 'accepted', sub
{
	my ($sim) = @_;
	$sim->create('accounts', {name => 'p', new_legacyid => 'a/b'});
	is(status($sim, 'POST', 'accounts', {'parentaccountid@odata.bind' => "accounts(new_legacyid='a/b')"}), 204, 'special characters in a body');
});
with(update_odata_id => 'accepted', sub
{
	my ($sim) = @_;
	my $id = $sim->create('accounts', {name => 'p', new_legacyid => 'U'});
	is(status($sim, 'POST', 'accounts/Microsoft.Dynamics.CRM.UpdateMultiple', {Targets => [{'@odata.type' => $type,
		'@odata.id' => "accounts(new_legacyid='U')", name => 'q'}]}), 204, 'UpdateMultiple by key');
	field_is($sim->row('accounts', $id), 'name', 'q', 'changes the row');
});

# --- batches
my @ops = (op('POST', 'accounts', {name => 'a'}), op('POST', 'accounts', {nosuch => 1}));
with(batch_earlier_parts => 'all', sub
{
	my $r = batch($_[0], \@ops);
	is(join(' ', map {$_->{status}} @{$r->{parts}}), '204 400', 'a batch that stops shows what was before');
});
with(batch_earlier_parts => 'failing', sub
{
	my $r = batch($_[0], \@ops);
	is(join(' ', map {$_->{status}} @{$r->{parts}}), '400', 'a batch that stops shows the failure alone');
});
with(changeset_continue => 'off', sub
{
	my ($sim) = @_;
	my $r = batch($sim, [change_set(op('POST', 'accounts', {nosuch => 1}, {}, 1)), op('POST', 'accounts', {name => 'behind'})], continue => 1);
	is($sim->count('accounts'), 0, 'a failed change set ends the batch');
	is(scalar @{$r->{parts}}, 1, 'with its part');
});
my $caller = sub
{
	my ($wanted) = @_;
	return sub
	{
		my ($sim) = @_;
		my $id = guid();
		my $r = batch($sim, [op('POST', 'accounts', {accountid => $id, name => 'a'})], headers => {MSCRMCallerID => Sim::USER2});
		accepted($r, 200, 'a batch in the name of another');
		field_is($sim->row('accounts', $id), '_createdby_value', $wanted, 'who made the row');
	};
};
with(batch_headers => 'reach', $caller->(Sim::USER2));
with(batch_headers => 'stay', $caller->(Sim::USER));

# --- answers
with(html_errors => 'on', sub
{
	my ($sim) = @_;
	fault($sim, do => 'status', status => 503);
	like($sim->req('GET', 'WhoAmI')->header('content-type'), qr{^text/html}, 'a gateway error is HTML');
});
with(html_errors => 'off', sub
{
	my ($sim) = @_;
	fault($sim, do => 'status', status => 503);
	like($sim->req('GET', 'WhoAmI')->header('content-type'), qr{^application/json}, 'a gateway error is JSON');
});
with(connections => 'sticky', sub
{
	my ($sim) = @_;
	my $servers = sub {my %seen; $seen{($sim->req('GET', 'WhoAmI')->headers('set-cookie'))[0] =~ s/;.*//r}++ for 1 .. 40; return scalar keys %seen};
	is($servers->(), 1, 'a connection stays with one server');
	my $text = join "\r\n", 'GET /api/data/v9.2/WhoAmI HTTP/1.1', "Host: 127.0.0.1:$sim->{port}", 'Authorization: Bearer ' . $sim->token,
		'OData-Version: 4.0', 'OData-MaxVersion: 4.0', 'Connection: close', '', '';
	my %seen;
	for (1 .. 40)
	{
		my $socket = $sim->connect;
		syswrite $socket, $text;
		$seen{(Sim::read_answer($socket, 'GET')->headers('set-cookie'))[0] =~ s/;.*//r}++;
	}
	is(scalar keys %seen, 3, 'one after another need not');
	set_switches($sim, connections => 'spread');
	cmp_ok($servers->(), '>', 1, 'or its requests are spread');
});
with(entityid_on_update => 'on', sub
{
	my ($sim) = @_;
	my $id = $sim->create('accounts', {name => 'a'});
	is($sim->req('PATCH', "accounts($id)", {name => 'b'})->entity_id, $id, 'OData-EntityId of an update');
});
with(entityid_on_update => 'off', sub
{
	my ($sim) = @_;
	my $id = $sim->create('accounts', {name => 'a'});
	is($sim->req('PATCH', "accounts($id)", {name => 'b'})->header('odata-entityid'), undef, 'none');
});
with(ids_shuffled => 'shuffled', sub
{
	my ($sim) = @_;
	my @ids = map {guid()} 1 .. 50;
	my $r = $sim->req('POST', 'accounts/Microsoft.Dynamics.CRM.CreateMultiple', {Targets => [map {{'@odata.type' => $type, accountid => $_}} @ids]});
	my @answer = @{$r->json->{Ids}};
	isnt("@answer", "@ids", 'another order');
	is(join(' ', sort @answer), join(' ', sort @ids), 'the same ids');
});
with(missing_odata_headers => 'accepted', sub
{
	my ($sim) = @_;
	is(status($sim, 'GET', 'WhoAmI', undef, {'OData-Version' => undef, 'OData-MaxVersion' => undef}), 200, 'without OData headers');
});
with(missing_odata_headers => 'refused', sub
{
	my ($sim) = @_;
	is(status($sim, 'GET', 'WhoAmI', undef, {'OData-Version' => undef, 'OData-MaxVersion' => undef}), 400, 'without OData headers');
});
with(max_body => 10000, sub
{
	my ($sim) = @_;
	is(status($sim, 'POST', 'contacts', {lastname => 'x', description => 'd' x 12000}), 413, 'a body that is too large');
	is($sim->count('contacts'), 0, 'no row');
});
with(cookies => 'off', sub {is($_[0]->req('GET', 'WhoAmI')->header('set-cookie'), undef, 'no cookies')});
with(dop_hint => 17, sub {is($_[0]->req('GET', 'WhoAmI')->header('x-ms-dop-hint'), 17, 'x-ms-dop-hint')});
with(static_token => 'test-token', sub {is(status($_[0], 'GET', 'WhoAmI', undef, {Authorization => 'Bearer test-token'}), 200, 'a fixed token')});
with(deny_privilege => 'prvWriteContact', sub
{
	my ($sim) = @_;
	my $id = $sim->create('contacts', {lastname => 'a'});
	refused($sim->req('PATCH', "contacts($id)", {lastname => 'b'}), 403, '0x80040220', qr/prvWriteContact/, 'an update without the privilege');
	is(status($sim, 'DELETE', "contacts($id)"), 204, 'others are not denied');
});
with(deny_owner => Sim::USER2, sub
{
	my ($sim) = @_;
	refused($sim->req('POST', 'accounts', {name => 'a', 'ownerid@odata.bind' => 'systemusers(' . Sim::USER2 . ')'}), 403, '0x80040299',
		qr/Read Privilege Check For Owner failed|read privilege/, 'an owner without the right to read');
});

# --- privileges
for my $header ('MSCRM.BypassCustomPluginExecution', 'MSCRM.BypassBusinessLogicExecution')
{
	my %bypass = ($header => $header =~ /Plugin/ ? 'true' : 'CustomSync,CustomAsync');
	with(bypass_privilege => 'off', sub
	{
		my ($sim) = @_;
		my $r = $sim->req('POST', 'accounts', {name => 'a'}, \%bypass);
		is($r->{status}, 403, "$header");
		error_shape($r);
		is(status($sim, 'POST', 'accounts/Microsoft.Dynamics.CRM.CreateMultiple', {Targets => [{'@odata.type' => $type, name => 'a'}]}, \%bypass),
			403, 'also of a bulk message');
		is($sim->count('accounts'), 0, 'no row');
		is(status($sim, 'POST', 'accounts', {name => 'a'}), 204, 'without it');
	});
	with(bypass_privilege => 'on', sub {is(status($_[0], 'POST', 'accounts', {name => 'a'}, \%bypass), 204, $header)});
}
with(created_on_privilege => 'off', sub
{
	my ($sim) = @_;
	is(status($sim, 'POST', 'accounts', {name => 'a', overriddencreatedon => '2001-01-01T00:00:00Z'}), 403, 'overriddencreatedon');
	is(status($sim, 'POST', 'accounts', {name => 'a'}), 204, 'without it');
	is($sim->count('accounts'), 1, 'one row');
});

# --- users that only an import can make
for my $word ('accepted', 'refused')
{
	with(user_create => $word, sub
	{
		my ($sim) = @_;
		my $before = $sim->count('systemusers');
		my $unit = $sim->req('GET', 'WhoAmI')->json->{BusinessUnitId};
		my $status = status($sim, 'POST', 'systemusers', {firstname => 'Ida', lastname => 'Gone', domainname => 'ida@example.org',
				'businessunitid@odata.bind' => "businessunits($unit)"});

		is($status == 204 ? 'accepted' : 'refused', $word, 'a user by POST');
		is($sim->count('systemusers') - $before, $word eq 'accepted' ? 1 : 0, 'and what it made');
	});
}

# --- deletes, bulk messages that fail by themselves
with(delete_referenced => 'refused', sub
{
	my ($sim) = @_;
	my $parent = $sim->create('accounts', {name => 'p'});
	my $child = $sim->create('accounts', {name => 'c', 'parentaccountid@odata.bind' => "accounts($parent)"});
	is(status($sim, 'DELETE', "accounts($parent)"), 405, 'a row that others point at');
	is(status($sim, 'DELETE', "accounts($child)"), 204, 'one that nobody points at');
	is(status($sim, 'DELETE', "accounts($parent)"), 204, 'then the other');
});
with(delete_referenced => 'unlinked', sub
{
	my ($sim) = @_;
	my $parent = $sim->create('accounts', {name => 'p'});
	my $child = $sim->create('accounts', {name => 'c', 'parentaccountid@odata.bind' => "accounts($parent)"});
	is(status($sim, 'DELETE', "accounts($parent)"), 204, 'a row that others point at');
	field_is($sim->row('accounts', $child), '_parentaccountid_value', undef, 'they lose it');
});
with(sql_timeout => 100, sub
{
	my ($sim) = @_;
	set_switches($sim, row_time => 2000);
	my $bulk = sub {$sim->req('POST', 'accounts/Microsoft.Dynamics.CRM.CreateMultiple', {Targets => [map {{'@odata.type' => $type, name => "r$_"}} 1 .. $_[0]]})};
	refused($bulk->(100), 500, '0x80044151', qr/Sql Number: -2\b|timeout/i, 'a hundred rows take too long');
	is($sim->count('accounts'), 0, 'none is made');
	is($bulk->(20)->{status}, 200, 'twenty do not');
});
with(slow_table => 'account', sub
{
	my ($sim) = @_;
	set_switches($sim, row_time => 2000, slow_factor => 50, sql_timeout => 1000);
	my $bulk = sub {$sim->req('POST', "$_[0]/Microsoft.Dynamics.CRM.CreateMultiple", {Targets => [map {{'@odata.type' => "Microsoft.Dynamics.CRM.$_[1]", $_[2] => "r$_"}} 1 .. 20]})};
	is($bulk->('accounts', 'account', 'name')->{status}, 500, 'twenty rows of a slow table take too long');
	is($bulk->('contacts', 'contact', 'lastname')->{status}, 200, 'those of another do not');
});
for my $where ([here => 1, 0], [left_out => undef, 0], [elsewhere => 0, 1])
{
	with(collections => $where->[0], sub
	{
		my ($sim) = @_;
		my $lead = $sim->create('leads', {lastname => 'l'});
		my $account = $sim->create('accounts', {name => 'a', 'accountleads_association@odata.bind' => ["leads($lead)"]});
		my $record = $sim->req('GET', "accounts($account)?\$select=name&\$expand=accountleads_association(\$select=leadid)")->json;
		my $list = $record->{accountleads_association};
		is($list && @$list, $where->[1], "collections $where->[0]: members");
		is(exists $record->{'accountleads_association@odata.nextLink'} ? 1 : 0, $where->[2], 'a link to them');
		is(scalar @{ $sim->req('GET', "accounts($account)/accountleads_association?\$select=leadid")->json->{value} }, 1, 'by themselves they are there');
	});
}
with(definition => 'listed', sub
{
	my ($sim) = @_;
	my $r = $sim->req('GET', q{EntityDefinitions(LogicalName='account')?$select=LogicalName&$expand=Keys($select=LogicalName)})->json;
	is(join(' ', map {$_->{LogicalName}} @{$r->{value}}), 'account', 'a definition as the only member of a list');
	ok(ref $r->{value}[0]{Keys} eq 'ARRAY', 'with what it was asked for');
});
with(page_most => 2, sub
{
	my ($sim) = @_;
	$sim->create('accounts', {name => "a$_"}) for 1 .. 5;
	for my $headers ({}, {Prefer => 'odata.maxpagesize=4'})
	{
		my ($path, @sizes) = ('accounts?$select=name');
		while (defined $path)
		{
			my $page = $sim->req('GET', $path, undef, $headers)->json;
			push @sizes, scalar @{$page->{value}};
			$path = $page->{'@odata.nextLink'};
			$path =~ s{^http://[^/]+/api/data/v9.2/}{} if defined $path;
		}
		is("@sizes", '2 2 1', 'pages are smaller than the client prefers');
	}
});
with(bulk_warmup => 'on', sub
{
	my ($sim) = @_;
	set_switches($sim, latency => 1500);
	my $body = json_of({Targets => [{'@odata.type' => 'Microsoft.Dynamics.CRM.new_track', new_name => 't'}]});
	my $text = join "\r\n", 'POST /api/data/v9.2/new_tracks/Microsoft.Dynamics.CRM.CreateMultiple HTTP/1.1', "Host: 127.0.0.1:$sim->{port}",
		'Authorization: Bearer ' . $sim->token, 'OData-Version: 4.0', 'OData-MaxVersion: 4.0', 'Content-Type: application/json',
		'Content-Length: ' . length $body, '', $body;
	my $parallel = sub
	{
		my @sockets = map {$sim->connect} 1 .. 4;
		syswrite $_, $text for @sockets;
		return map {Sim::read_answer($_, 'POST')} @sockets;
	};
	my @first = $parallel->();
	my @bad = grep {$_->{status} != 200} @first;
	cmp_ok(scalar @bad, '>=', 1, 'parallel first requests fail');
	cmp_ok(scalar @bad, '<', 4, 'but not all');
	refused($bad[0], 500, '0x80044150', qr/Sql Number: 3732/, 'with a code that passes');
	is(join(' ', map {$_->{status}} $parallel->()), '200 200 200 200', 'later ones do not');
	is($sim->count('new_tracks'), 8 - @bad, 'each that succeeded made its row');
});

# --- every switch has its test here or belongs to the service (limits, latency ...)
{
	my $sim = Sim->start;
	my $all = set_switches($sim);
	open my $in, '<', $0 or die "$0: $!";
	my $self = do {local $/; readline $in};
	for my $name (sort keys %$all)
	{
		next if $name =~ /^(servers|token_lifetime|limit_\w+|retry_after|latency|row_time|automation)$/;
		like($self, qr/\b$name\b/, "$name is tested");
	}
}

# --- mistakes on the command line
for my $bad (['--set', 'nosuch=1'], ['--set', 'missing_target=abc'], ['--profile', 'nosuch'], ['--nosuch'])
{
	ok(!eval {Sim->start(args => $bad)}, "refused: @$bad");
	like($@, qr/\w/, 'with a message');
}

# --- the profiles take what must hold in all of them
for my $profile (qw(strict lenient odd))
{
	subtest "profile $profile" => sub
	{
		my $sim = Sim->start(profile => $profile);
		my $id = $sim->create('accounts', {accountid => guid(), name => 'a', revenue => 1.5, new_legacyid => 'L'});
		is(status($sim, 'POST', 'accounts', {accountid => $id, name => 'b'}), 412, 'an id that exists');
		like(status($sim, 'POST', 'accounts', {'parentaccountid@odata.bind' => 'accounts(' . guid() . ')'}), qr/^40[04]$/, 'a lookup to nothing');
		is(status($sim, 'POST', 'accounts', {nosuch => 1}), 400, 'an unknown column');
		is(status($sim, 'POST', 'accounts', {name => 'x' x 161}), 400, 'text too long');
		is(status($sim, 'POST', 'accounts', {industrycode => 99}), 400, 'an unknown choice');
		is(status($sim, 'POST', 'contacts', {lastname => 'x', birthdate => '1700-01-01'}), 400, 'a date too early');
		is(status($sim, 'POST', 'accounts', {'ParentAccountId@odata.bind' => "accounts($id)"}), 400, 'a wrong navigation property');
		is(status($sim, 'POST', 'accounts', {name => 'x', new_legacyid => 'L'}), 412, 'a key value that exists');
		is(status($sim, 'GET', "systemusers(systemuserid=@{[Sim::USER]})"), 400, 'a named key of a user');
		is(status($sim, 'GET', "new_regions(new_code='N')"), 400, 'a key that is pending');
		is(status($sim, 'POST', 'accounts/Microsoft.Dynamics.CRM.CreateMultiple', {Targets => [{name => 'no type'}]}), 400, 'no @odata.type');
		is(status($sim, 'POST', '$batch', 'x', {'Content-Type' => 'multipart/mixed; boundary=b'}), 400, 'no multipart');
		like(status($sim, 'PATCH', 'opportunities(' . $sim->create('opportunities', {name => 'd', 'customerid_account@odata.bind' => "accounts($id)"})
			. ')', {statecode => 1, statuscode => 3}), qr/^4\d\d$/, 'a deal is closed by its action alone');
		is($sim->count('accounts'), 1, 'one row in the end');
		$sim->stop;
	};
}

done_testing;

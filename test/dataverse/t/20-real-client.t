# What a real client of the Web API sends: each recorded request is replayed, in order, and answered as the service would
use strict;
use warnings;

use File::Copy qw(copy);
use File::Temp qw(tempdir);
use Test::More;

use Sim qw(metadata_dir shared_data);
use Sim::Batch qw(batch_parts);
use Sim::Check;

my $shared = shared_data();
my $dir = defined $shared ? "$shared/real-client-requests" : '';
-d $dir or plan skip_all => 'set DVMIG_SHARED_DATA to the folder with real-client-requests';

# The organisation that the client wrote to had a key and a file column of its own on account.
my $tables = tempdir(CLEANUP => 1);
copy($_, $tables) or die $! for glob metadata_dir() . '/*.table';
open my $out, '>>', "$tables/account.table" or die $!;
print $out "file new_file 10240\nkey accountnumber_key Active accountnumber\n";
close $out or die $!;

# The client impersonates a user with this id.
my $other = '22222222-2222-2222-2222-222222222222';
my $sim = Sim->start(metadata => $tables,
	clients => [join(':', Sim::CLIENT, Sim::SECRET, Sim::USER), "bbbbbbbb-0000-4000-8000-000000000002:x:$other"]);
my $one = '00000000-0000-4000-8000-000000000001';
my $two = '00000000-0000-4000-8000-000000000002';
my $contact = '00000000-0000-4000-8000-000000000003';
my $five = '00000000-0000-4000-8000-000000000005';
my ($location, $next);

# A recorded request, with host and token of today.
sub recorded
{
	my ($name) = @_;
	my ($file) = glob "$dir/$name-*.http" or die "no recording $name";
	open my $in, '<:raw', $file or die "$file: $!";
	local $/;
	my $text = <$in>;
	close $in;
	my ($head, $body) = split /\r?\n\r?\n/, $text, 2;
	my ($first, @lines) = split /\r?\n/, $head;
	my ($method, $target) = $first =~ m{^(\S+) (\S+) HTTP/1\.1$} or die "malformed recording $name: $first";
	my %h = map {/^([^:]+): ?(.*)$/ ? ($1 => $2) : ()} @lines;
	delete $h{$_} for qw(Content-Length Host Connection);
	$h{Authorization} = 'Bearer ' . $sim->token;
	$body //= '';
	$body =~ s/127\.0\.0\.1:18181/127.0.0.1:$sim->{port}/g;
	return ($method, $target, \%h, $body);
}

sub replay
{
	my ($name, %o) = @_;
	my ($method, $target, $h, $body) = recorded($name);
	$target = $o{target} if defined $o{target};
	$h->{$_} = $o{headers}{$_} for keys %{$o{headers} // {}};
	my $r = $sim->raw($method, $target, $h, length $body || $method =~ /^(POST|PATCH|PUT)$/ ? $body : undef);
	$r->{parts} = [batch_parts($r->header('content-type'), $r->{body})]
		if ($r->header('content-type') // '') =~ m{^multipart/mixed};
	return $r;
}

sub statuses { return join ' ', map {ref $_ eq 'ARRAY' ? '[' . join(' ', map {$_->{status}} @$_) . ']' : $_->{status}} @{$_[0]{parts} // []}; }

# One step: the recording, the status, and what else must hold of the answer.
sub step
{
	my ($name, $status, $more, %o) = @_;
	my ($file) = glob "$dir/$name-*.http";
	my $r;
	subtest $file =~ s{.*/}{}r => sub
	{
		$r = replay($name, %o);
		accepted($r, $status, "status $status");
		error_shape($r) if $status >= 400;
		$more->($r) if $more;
		ok(1);
	};
	return $r;
}

sub id_is { my ($id) = @_; return sub {is($_[0]->entity_id, $id, 'OData-EntityId')}; }
sub code_is { my ($code) = @_; return sub {is(lc($_[0]->code // ''), $code, 'code')}; }

step('001', 200, sub {is($_[0]->json->{UserId}, Sim::USER, 'UserId')});
step('002', 204, sub
{
	id_is($one)->($_[0]);
	my $row = $sim->row('accounts', $one);
	is($row->{name}, "Za\x{17c}\x{f3}\x{142}\x{107} g\x{119}\x{15b}l\x{105} \x{201c}ja\x{17a}\x{144}\x{201d} \x{6771}\x{4eac} \x{1f680}", 'name');
	is($row->{description}, "line1\r\nline2 \"q\" \\ \t--batch\r\n", 'description');
});
step('003', 201, sub
{
	is($_[0]->json->{accountid}, $two, 'the row');
	is($_[0]->header('preference-applied'), 'return=representation', 'Preference-Applied');
});
step('004', 204, sub {is($sim->row('contacts', $contact)->{_parentcustomerid_value}, $one, 'bound')});
step('005', 412, code_is('0x80040237'));
step('006', 204);
step('007', 204, sub
{
	my $row = $sim->row('accounts', $_[0]->entity_id);
	is($row->{_createdby_value}, $other, 'made in the name of the other user');
	is($row->{_createdonbehalfby_value}, Sim::USER, 'by the real caller');
});
step('008', 204, sub
{
	my $row = $sim->row('accounts', $_[0]->entity_id);
	ok($row->{_primarycontactid_value}, 'the contact');
	is($sim->count('tasks', "_regardingobjectid_value eq " . $row->{accountid}), 1, 'the task');
});
step('009', 200);
step('010', 200, sub
{
	my $row = $_[0]->json;
	ok($row->{parentcustomerid_account}{name}, 'expanded');
	is($row->{'_parentcustomerid_value@Microsoft.Dynamics.CRM.lookuplogicalname'}, 'account', 'annotated');
});
step('011', 404, code_is('0x80040217'));
step('012', 204, sub {is($sim->row('accounts', $one)->{telephone1}, '+48 22 000', 'changed')});
step('013', 200, sub {is($_[0]->json->{name}, 'Renamed', 'the row')});
step('014', 404, code_is('0x80040217'));
step('015', 412, code_is('0x80060882'));
step('016', 204, sub {is($sim->row('accounts', $one)->{fax}, '1', 'changed')});
step('017', 204, sub {is($sim->row('accounts', $five)->{name}, 'up-new', 'made')});
step('018', 204, sub {is($sim->row('accounts', $one)->{name}, 'up-old', 'changed')});
step('019', 204, sub {is($sim->row('accounts', $one)->{name}, "alt'key", 'changed')});
step('020', 400);
step('021', 412);
step('022', 404);
step('023', 200, sub {is(scalar @{$_[0]->json->{Ids}}, 2, 'ids')});
step('024', 204, sub {is($sim->row('accounts', $two)->{name}, 'um2', 'changed by id')});
step('025', 204, sub {is($sim->row('accounts', $one)->{name}, 'u1', 'changed')});
step('026', 200, sub {is($_[0]{body} =~ s/^\xef\xbb\xbf//r, $sim->count('accounts'), 'a number')});
step('027', 200, sub {is($_[0]->json->{'@odata.count'}, 1, '@odata.count')});
$next = step('028', 200, sub
{
	is(scalar @{$_[0]->json->{value}}, 2, 'a page');
	ok($_[0]->json->{'@odata.nextLink'}, 'and a link');
});
# The recording has a cookie that its stub invented: follow the link of our answer instead.
step('029', 200, sub
{
	my ($first) = map {$_->{accountid}} @{$next->json->{value}};
	ok(!(grep {$_->{accountid} eq $first} @{$_[0]->json->{value}}), 'other rows');
}, target => $next->json->{'@odata.nextLink'} =~ s{^http://[^/]+}{}r);
step('030', 200, sub {is(join(' ', sort map {$_->{name}} @{$_[0]->json->{value}}), 'm1 m2', 'rows')});
step('031', 200);
step('032', 200);
step('033', 200, sub {is(scalar @{$_[0]->json->{value}}, 2, 'top 2')});
step('034', 204);
step('035', 204, sub {is($sim->row('accounts', $one)->{_primarycontactid_value}, $contact, 'set')});
step('036', 204, sub {is($sim->row('accounts', $one)->{_primarycontactid_value}, undef, 'cleared')});
step('037', 204, sub {is($sim->row('contacts', $contact)->{_parentcustomerid_value}, undef, 'taken out')});
step('038', 200, sub
{
	is(statuses($_[0]), '[204 204 204]', 'parts');
	is($sim->row('accounts', $one)->{fax}, '2', 'changed');
	my $account = $_[0]{parts}[0][0]->entity_id;
	is($sim->row('accounts', $account)->{name}, "b1 \x{e9}", 'made');
	is($sim->count('contacts', "lastname eq 'b2' and _parentcustomerid_value eq $account"), 1, 'referred to');
});
step('039', 200, sub {is(statuses($_[0]), '204 204 200', 'parts')});
step('040', 200, sub
{
	is(statuses($_[0]), '[204 204]', 'parts');
	is($sim->count('accounts', "name eq 'b3' and fax eq '3'"), 1, 'changed what it made');
});
{
	my $r = replay('041');
	subtest '041 is refused and rolled back' => sub
	{
		is($r->{status}, 400, 'status');
		is(statuses($r), '[400]', 'one part');
		is($r->{parts}[0][0]{content_id}, '100002', 'the failing one');
		is($sim->count('accounts', "name eq 'rb-ok'"), 0, 'rolled back');
	};
}
step('042', 200, sub
{
	$location = ($_[0]->header('location') // '') =~ s{^http://[^/]+}{}r;
	like($location, qr/sessiontoken=/, 'a session token');
});
# The client appends the chunk's URL to what the stub answered: take the real one.
step('043', 206, undef, target => $location);
step('044', 206, undef, target => $location);
step('045', 204, undef, target => $location);
is($sim->req('GET', "accounts($one)/new_file/\$value")->{body}, '0123456789', 'the file is whole');
step('046', 200, sub {is($_[0]->json->{value}[0]{EntitySetName}, 'accounts', 'the table')});
step('047', 200, sub {is($_[0]->json->{Keys}[-1]{KeyAttributes}[0], 'accountnumber', 'its keys')});
step('048', 200, sub {ok((grep {$_->{LogicalName} eq 'industrycode'} @{$_[0]->json->{value}}), 'its choices')});
step('049', 200, sub {like($_[0]{body}, qr/<edmx:Edmx/, 'CSDL')});
step('050', 204);
step('051', 404);
step('052', 204, sub {is($sim->row('accounts', $one)->{telephone1}, undef, 'cleared')});
step('053', 204, sub {is($sim->row('accounts', $one), undef, 'gone')});

is(scalar(glob "$dir/054-*.http") // 'none', 'none', 'no recording is left out');

done_testing;

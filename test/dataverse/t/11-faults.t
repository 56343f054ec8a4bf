# Faults on request: each does what it says, before or after the commit, so often and to those requests it names
use strict;
use warnings;

use POSIX ();
use Test::More;
use Time::HiRes qw(time);

use Sim qw(guid);
use Sim::Batch qw(op batch);
use Sim::Check;
use Sim::Control qw(clear_faults fault faults record stats wait_until);

my $sim = Sim->start;
my $type = 'Microsoft.Dynamics.CRM.account';
$sim->token;

# Create a row with the given id; undef where no answer came.
sub create
{
	my ($id, $name) = @_;
	$sim->hang_up;		# on a fresh connection the client does not try again
	my $r = eval {$sim->req('POST', 'accounts', {accountid => $id, name => $name // 'n'})};
	$sim->hang_up if !$r;
	return $r;
}

sub there { return defined $sim->row('accounts', $_[0]); }

# --- an answer instead of the real one
for my $after (JSON::PP::false, JSON::PP::true)
{
	my $id = guid();
	fault($sim, do => 'status', status => 503, after => $after);
	my $r = create($id);
	is($r->{status}, 503, 'another answer');
	is(there($id), !!$after, $after ? 'after the commit' : 'before the commit');
}
{
	my $id = guid();
	fault($sim, do => 'status', status => 500, code => '0x80044151', message => 'Sql Number: -2', retry_after => 7);
	my $r = create($id);
	refused($r, 500, '0x80044151', qr/^Sql Number: -2$/, 'a code and message of choice');
	is($r->header('retry-after'), 7, 'Retry-After');
	ok(!there($id), 'no row');
	is(create($id)->{status}, 204, 'once only');
}
{
	my $id = guid();
	fault($sim, do => 'deadlock');
	refused(create($id), 500, '0x80044150', qr/Sql Number: 1205/, 'a deadlock');
	ok(!there($id), 'the victim is rolled back');
	fault($sim, do => 'html');
	my $r = create($id);
	is($r->{status}, 502, 'a gateway');
	like($r->header('content-type'), qr{^text/html}, 'answers in HTML');
	fault($sim, do => 'html', status => 504, after => JSON::PP::true);
	is(create($id)->{status}, 504, 'another status');
	ok(there($id), 'after the commit');
	fault($sim, do => 'throttle', code => '0x80072321', retry_after => 3);
	$r = create(guid());
	refused($r, 429, '0x80072321', qr/^Combined execution time/, 'throttled');
	is($r->header('retry-after'), 3, 'Retry-After');
	fault($sim, do => 'garbage', bytes => 500);
	$r = create(guid());
	is("$r->{status} " . length $r->{body}, '200 500', 'garbage');
	ok(!eval {$r->json; 1}, 'is not JSON');
	fault($sim, do => 'body', text => '[1,', times => 3, content_type => 'text/odd', after => JSON::PP::true);
	$id = guid();
	$r = create($id);
	is("$r->{status} $r->{body} " . $r->header('content-type'), '200 [1,[1,[1, text/odd', 'a body of one\'s own');
	ok(there($id), 'after the commit');
	fault($sim, do => 'status', status => 401);
	is(create(guid())->{status}, 401, 'a token that no longer counts');
}

# --- connections
for my $case (['reset_before', 0], ['reset_after', 1])
{
	my ($what, $committed) = @$case;
	my $id = guid();
	fault($sim, do => $what);
	is(create($id), undef, "$what: no answer");
	is(there($id), !!$committed, $committed ? 'yet it is there' : 'and nothing happened');
}
{
	my $id = guid();
	fault($sim, do => 'commit_later', seconds => 2);
	is(create($id), undef, 'commit_later: no answer');
	ok(!there($id), 'not there at first');
	ok(wait_until(sub {there($id)}), 'there in the end');
	is(record($sim, 'accounts', $id)->{creates}, 1, 'once');
}
{
	my $whole = length $sim->req('GET', 'accounts')->{body};
	fault($sim, do => 'cut', bytes => 100);
	my $r = $sim->req('GET', 'accounts');
	is(length $r->{body}, 100, 'an answer cut at a byte');
	ok($r->{cut}, 'ends before its length');
	fault($sim, do => 'cut', bytes => 0);
	$r = eval {$sim->req('GET', 'accounts')};
	ok(!$r || $r->{body} eq '' && $r->{cut}, 'or has nothing but headers');
	$sim->hang_up;
	is(length $sim->req('GET', 'accounts')->{body}, $whole, 'then whole again');
	my $id = guid();
	fault($sim, do => 'cut', bytes => 10);
	$r = $sim->req('POST', 'accounts/Microsoft.Dynamics.CRM.CreateMultiple', {Targets => [{'@odata.type' => $type, accountid => $id}]});
	ok($r->{cut}, 'the answer of a write');
	ok(there($id), 'is cut after the commit');
}
for my $after (JSON::PP::false, JSON::PP::true)
{
	my $began = time;
	fault($sim, do => 'slow', seconds => 0.3, after => $after);
	my $id = guid();
	is(create($id)->{status}, 204, 'slow');
	cmp_ok(time - $began, '>=', 0.3, 'takes as long as told');
	ok(there($id), 'and is carried out');
}
for my $after (0, 1)
{
	my $id = guid();
	fault($sim, match => {method => 'POST'}, do => 'hold', after => $after ? JSON::PP::true : JSON::PP::false);
	$sim->hang_up;
	my $pid = fork // die "fork: $!";
	if (!$pid)
	{
		my $r = eval {$sim->req('POST', 'accounts', {accountid => $id})};
		POSIX::_exit($r && $r->{status} == 204 ? 0 : 1);
	}
	ok(wait_until(sub {stats($sim)->{in_flight} == 1}), 'a request that is held');
	ok(wait_until(sub {$after == there($id)}), $after ? 'is carried out, not answered' : 'is not carried out') for 1 .. 2;
	is(waitpid($pid, POSIX::WNOHANG()), 0, 'has no answer');
	clear_faults($sim);
	is(waitpid($pid, 0), $pid, 'until the faults are cleared');
	is($?, 0, 'then it is answered');
	ok(there($id), 'and carried out');
}
{
	my $began = time;
	fault($sim, do => 'dribble', seconds => 0.005);
	my $r = $sim->req('GET', 'WhoAmI');
	is($r->json->{UserId}, Sim::USER, 'byte by byte');
	cmp_ok(time - $began, '>=', 0.005 * length($r->{body}) * 0.9, 'slowly');
}

# --- ids of a bulk create
{
	my @ids = map {guid()} 1 .. 4;
	my $bulk = sub {$sim->req('POST', 'accounts/Microsoft.Dynamics.CRM.CreateMultiple', {Targets => [map {{'@odata.type' => $type,
		accountid => $_}} @_]})};
	fault($sim, do => 'drop_ids', bytes => 2);
	is(scalar @{$bulk->(@ids)->json->{Ids}}, 2, 'ids that are missing');
	@ids = map {guid()} 1 .. 4;
	fault($sim, do => 'shuffle_ids');
	my @got = @{$bulk->(@ids)->json->{Ids}};
	isnt("@got", "@ids", 'ids in another order');
	is(join(' ', sort @got), join(' ', sort @ids), 'all of them');
	@ids = map {guid()} 1 .. 4;
	fault($sim, do => 'add_ids', bytes => 2);
	@got = @{$bulk->(@ids)->json->{Ids}};
	is(scalar @got, 6, 'ids too many');
	is("@got[0 .. 3]", "@ids", 'behind the right ones');
}

# --- parts of a batch
{
	my @ids = map {guid()} 1 .. 3;
	fault($sim, do => 'drop_parts', bytes => 2, match => {path_contains => '$batch'});
	my $r = batch($sim, [map {op('POST', 'accounts', {accountid => $_})} @ids]);
	is(scalar @{$r->{parts}}, 1, 'parts that are missing');
	like($r->{body}, qr/--\r\n\z/, 'of an answer that is closed');
	is(scalar(grep {there($_)} @ids), 3, 'and all was carried out');
}

# --- which requests, how often
fault($sim, do => 'status', status => 503, match => {method => 'PATCH'});
is(create(guid())->{status}, 204, 'another method is spared');
is($sim->req('PATCH', 'accounts(' . guid() . ')', {name => 'x'})->{status}, 503, 'that method is hit');
fault($sim, do => 'status', status => 503, match => {path_contains => '/contacts'});
is(create(guid())->{status}, 204, 'another path is spared');
is($sim->req('POST', 'contacts', {lastname => 'x'})->{status}, 503, 'that path is hit');
fault($sim, do => 'status', status => 503, match => {body_contains => 'unlucky'});
is(create(guid(), 'lucky')->{status}, 204, 'another body is spared');
is(create(guid(), 'unlucky')->{status}, 503, 'that body is hit');
fault($sim, do => 'status', status => 503, match => {user => Sim::USER2});
is($sim->req('GET', 'WhoAmI')->{status}, 200, 'another user is spared');
is($sim->req('GET', 'WhoAmI', undef, undef, Sim::second())->{status}, 503, 'that user is hit');
fault($sim, do => 'status', status => 503, nth => 3, count => 2);
is(join(' ', map {create(guid())->{status}} 1 .. 6), '204 204 503 503 204 204', 'from the third, twice');
fault($sim, do => 'status', status => 503, count => 0);
is(join(' ', map {create(guid())->{status}} 1 .. 4), '503 503 503 503', 'for ever');
clear_faults($sim);
is(create(guid())->{status}, 204, 'until cleared');
is_deeply(faults($sim), [], 'none is left');
fault($sim, do => 'status', status => 503, count => 0, rate => 0.5);
my $hits = grep {create(guid())->{status} == 503} 1 .. 200;
cmp_ok($hits, '>', 50, 'a share of them');
cmp_ok($hits, '<', 150, 'not all');
clear_faults($sim);

# --- parts of a batch
{
	my @ids = map {guid()} 1 .. 3;
	fault($sim, do => 'throttle', code => '0x80072322', retry_after => 4, nth => 2, match => {part => JSON::PP::true});
	my $r = batch($sim, [map {op('POST', 'accounts', {accountid => $_, name => 'part'})} @ids], continue => 1);
	accepted($r, 200, 'a batch with a fault in a part');
	is(join(' ', map {$_->{status}} @{$r->{parts}}), '204 429 204', 'hits that part');
	is($r->{parts}[1]->header('retry-after'), 4, 'with Retry-After');
	is(join(' ', map {there($_) ? 1 : 0} @ids), '1 0 1', 'which was not carried out');
}

cmp_ok(stats($sim)->{faults}, '>', 20, 'faults are counted');
ok(!eval {fault($sim, do => 'nosuch')}, 'an unknown fault is refused');
ok(!eval {fault($sim, status => 5)}, 'and one that does nothing');
ok(!eval {fault($sim, do => 'slow', whatever => 1)}, 'and an unknown member');
is(create(guid())->{status}, 204, 'all is well in the end');

done_testing;

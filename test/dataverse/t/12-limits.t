# Service protection: requests, execution time and concurrency of each user on each web server
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use Sim qw(guid);
use Sim::Check;
use Sim::Control qw(reset_sim set_switches stats wait_until);

# One server, so that what is counted is known.
my $sim = Sim->start(set => {servers => 1});
my $get = sub {$sim->req('GET', 'WhoAmI')};
$sim->token;
$sim->token(client => Sim::CLIENT2, secret => Sim::SECRET2);

# --- number of requests
set_switches($sim, limit_requests => 5, limit_window => 300, retry_after => 2);
my @r = map {$get->()} 1 .. 5;
is(join(' ', map {$_->{status}} @r), '200 200 200 200 200', 'within the limit');
is(join(' ', map {$_->header('x-ms-ratelimit-burst-remaining-xrm-requests')} @r), '4 3 2 1 0', 'the header counts down');
my $r = $get->();
refused($r, 429, '0x80072322', qr/^Number of requests exceeded the limit of 5 over time window of 300 seconds\.$/, 'beyond the limit');
like($r->header('retry-after'), qr/^\d+$/, 'Retry-After');
cmp_ok($r->header('retry-after'), '>=', 2, 'at least what is set');
is($sim->req('POST', 'accounts', {name => 'x'})->{status}, 429, 'writes too');
is($sim->req('GET', 'WhoAmI', undef, undef, Sim::second())->{status}, 200, 'another user has a quota of his own');
my $first = $r->header('retry-after');
$get->() for 1 .. 20;
cmp_ok($get->()->header('retry-after'), '>', $first, 'Retry-After grows while one keeps pushing');
is($sim->token_request->{status}, 200, 'tokens are not limited');
is(stats($sim)->{throttled}{requests} > 20, 1, 'it is counted');
reset_sim($sim, 'keep=records');
is($get->()->{status}, 200, 'a reset forgives');
is($sim->count('accounts'), 0, 'the refused write made no row');

# --- a window that slides
set_switches($sim, limit_requests => 3, limit_window => 4, retry_after => 1);
reset_sim($sim, 'keep=records');
is(join(' ', map {$get->()->{status}} 1 .. 4), '200 200 200 429', 'a short window');
ok(wait_until(sub {sleep 0.2; $get->()->{status} == 200}), 'passes');

# --- a batch is one request
set_switches($sim, limit_requests => 2, limit_window => 300);
reset_sim($sim, 'keep=records');
{
	require Sim::Batch;
	my $answer = Sim::Batch::batch($sim, [map {Sim::Batch::op('POST', 'accounts', {name => "b$_"})} 1 .. 50]);
	accepted($answer, 200, 'a batch of fifty');
	is($get->()->{status}, 200, 'counts once');
	is($get->()->{status}, 429, 'and one more');
}

# --- execution time
set_switches($sim, limit_requests => 0, limit_time => 1500, latency => 300);
reset_sim($sim, 'keep=records');
my $n = 0;
do {$r = $get->(); $n++} while ($r->{status} == 200 && $n < 50);
refused($r, 429, '0x80072321', qr/^Combined execution time of incoming requests exceeded limit of 1500 milliseconds/, 'execution time');
cmp_ok($n, '>=', 3, 'not at once');
cmp_ok($n, '<=', 7, 'but soon');

# --- concurrency
set_switches($sim, limit_time => 0, limit_concurrent => 3, latency => 2000);
reset_sim($sim, 'keep=records');
{
	my $text = join "\r\n", 'GET /api/data/v9.2/WhoAmI HTTP/1.1', "Host: 127.0.0.1:$sim->{port}", 'Authorization: Bearer ' . $sim->token,
		'OData-Version: 4.0', 'OData-MaxVersion: 4.0', '', '';
	my @sockets = map {$sim->connect} 1 .. 6;
	syswrite $_, $text for @sockets;
	my @answers = map {Sim::read_answer($_, 'GET')} @sockets;
	is(join(' ', sort map {$_->{status}} @answers), '200 200 200 429 429 429', 'no more than three at a time');
	my ($over) = grep {$_->{status} == 429} @answers;
	refused($over, 429, '0x80072326', qr/^Number of concurrent requests exceeded the limit of 3\.$/, 'its refusal');
	is($get->()->{status}, 200, 'afterwards all is well');
	cmp_ok(stats($sim)->{in_flight_max}, '>=', 3, 'and was counted');
}

# --- several servers
set_switches($sim, limit_concurrent => 0, latency => 0, limit_requests => 20, servers => 4);
reset_sim($sim, 'keep=records');
$n = 0;
$n++ while $get->()->{status} == 200 && $n < 500;
cmp_ok($n, '>', 20, 'without the cookie requests spread over servers');
reset_sim($sim, 'keep=records');
my ($cookie) = map {/^(ARRAffinity=[^;]+)/ ? $1 : ()} $get->()->headers('set-cookie');
reset_sim($sim, 'keep=records');
$n = 0;
$n++ while $sim->req('GET', 'WhoAmI', undef, {Cookie => $cookie})->{status} == 200 && $n < 500;
is($n, 20, 'with it they stay with one');

done_testing;

# Signing in: the token endpoint, bearer tokens, WhoAmI and the headers of every answer
use strict;
use warnings;

use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(sleep time);

use Sim qw(esc guid);
use Sim::Check;

my $stranger = 'bbbbbbbb-0000-4000-8000-0000000000ff';
my $sim = Sim->start(clients => [join(':', Sim::CLIENT, Sim::SECRET, Sim::USER), "$stranger:pw:none"]);
my $guid = qr/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/;

sub no_token
{
	my ($r, $statuses, $errors, $name) = @_;
	return subtest $name => sub
	{
		like($r->{status}, $statuses, 'status') or diag $r->{body};
		my $data = eval {$r->json} // {};
		like($data->{error} // 'none', $errors, 'error');
		like($data->{error_description} // '', qr/^AADSTS\d+: /, 'error_description');
		is(ref $data->{error_codes}, 'ARRAY', 'error_codes');
		ok(!exists $data->{access_token}, 'no token');
	};
}

# --- the token endpoint
my $r = $sim->token_request;
accepted($r, 200, 'a token for id and secret');
my $token = $r->json;
is($token->{token_type}, 'Bearer', 'token_type');
like($r->{body}, qr/"expires_in":\s*\d+[,}]/, 'expires_in is a number');
cmp_ok(length $token->{access_token}, '>', 20, 'a token that is not trivial');
unlike($r->{body}, qr/refresh_token/, 'no refresh token');

no_token($sim->token_request(secret => 'wrong'), qr/^40[01]$/, qr/^invalid_client$/, 'a wrong secret');
no_token($sim->token_request(secret => undef), qr/^40[01]$/, qr/^invalid_(client|request)$/, 'no secret');
no_token($sim->token_request(client => guid()), qr/^40[01]$/, qr/^(unauthorized|invalid)_client$/, 'an unknown application');
no_token($sim->token_request(tenant => guid()), qr/^40[01]$/, qr/^(invalid_request|unauthorized_client)$/, 'an unknown tenant');
no_token($sim->token_request(grant_type => 'password'), qr/^400$/, qr/^unsupported_grant_type$/, 'another grant');
no_token($sim->token_request(scope => 'https://contoso.crm.dynamics.com/.default'), qr/^400$/,
	qr/^invalid_(scope|resource)$/, 'the scope of another organisation');
no_token($sim->token_request(scope => $sim->url), qr/^400$/, qr/^invalid_scope$/, 'a scope without /.default');
no_token($sim->token_request(scope => undef), qr/^400$/, qr/^invalid_(scope|request)$/, 'no scope');
no_token($sim->token_request(headers => {'Content-Type' => 'application/json'}), qr/^400$/, qr/^invalid_request$/,
	'a body that is not a form');
{
	my $basic = encode_base64(esc(Sim::CLIENT) . ':' . esc(Sim::SECRET), '');
	my $answer = $sim->token_request(client => undef, secret => undef, headers => {Authorization => "Basic $basic"});
	accepted($answer, 200, 'id and secret in an Authorization header');
}

{
	my $plain = Sim->start(clients => ["$stranger:two words"]);
	accepted($plain->token_request(client => $stranger, secret => 'two words'), 200, 'a client without a user of its own choice');
	is($plain->token_request(client => $stranger, secret => 'wo words')->{status} >= 400, 1, 'has its whole secret');
	like($plain->req('GET', 'WhoAmI', undef, undef, as => {client => $stranger, secret => 'two words'})->json->{UserId}, qr/^$guid$/, 'and a user');
}

# --- bearer tokens
sub unauthorised
{
	my ($answer, $name) = @_;
	return subtest $name => sub
	{
		is($answer->{status}, 401, 'status');
		my $challenge = $answer->header('www-authenticate') // '';
		like($challenge, qr/^Bearer\b/, 'a challenge');
		like($challenge, qr{authorization_uri="?https?://[^ ,"]+/\Q@{[Sim::TENANT]}\E/oauth2/authorize"?},
			'which names the tenant');
	};
}

unauthorised($sim->req('GET', 'WhoAmI', undef, {Authorization => undef}), 'no token');
unauthorised($sim->req('GET', 'WhoAmI', undef, undef, token => 'abc'), 'an invented token');
unauthorised($sim->req('GET', 'WhoAmI', undef, {Authorization => 'Basic abc'}), 'another scheme');
unauthorised($sim->req('POST', 'accounts', {name => 'x'}, {Authorization => undef}), 'a write without a token');
unauthorised($sim->req('POST', '$batch', '', {Authorization => undef, 'Content-Type' => 'multipart/mixed; boundary=b'}),
	'a batch without a token');
is($sim->count('accounts'), 0, 'nothing was written');

{
	my $answer = $sim->token_request(client => $stranger, secret => 'pw');
	accepted($answer, 200, 'an application without a user gets a token');
	refused($sim->req('GET', 'WhoAmI', undef, undef, token => $answer->json->{access_token}), 403, '0x80072560',
		qr/not a member of the organization/, 'which is of no use');
}

# --- WhoAmI
$r = $sim->req('GET', 'WhoAmI');
accepted($r, 200, 'WhoAmI');
my $who = $r->json;
is($who->{UserId}, Sim::USER, 'the application user');
like($who->{$_}, qr/^$guid$/, $_) for qw(OrganizationId BusinessUnitId);
like($who->{'@odata.context'}, qr/\$metadata#Microsoft\.Dynamics\.CRM\.WhoAmIResponse$/, 'context');
is_deeply($sim->req('GET', 'WhoAmI()')->json, $who, 'WhoAmI() is the same');
refused($sim->req('POST', 'WhoAmI', {}), 404, '', qr/^No HTTP resource was found that matches the request URI/,
	'a function is not called with POST');

# --- headers of every answer
is($r->header('odata-version'), '4.0', 'OData-Version');
like($r->header('content-type'), qr{^application/json}, 'Content-Type');
like($r->header('req_id'), qr/^$guid$/, 'REQ_ID');
ok((grep {$_ eq $r->header('req_id')} $r->headers('x-ms-service-request-id')), 'x-ms-service-request-id has it too');
like($r->header('x-ms-dop-hint'), qr/^\d+$/, 'x-ms-dop-hint');
like($r->header('x-ms-ratelimit-burst-remaining-xrm-requests'), qr/^\d+$/, 'requests that remain');
like($r->header('x-ms-ratelimit-time-remaining-xrm-requests'), qr/^\d{1,3}(,\d{3})*\.\d\d$/, 'time that remains');
ok((grep {/^ARRAffinity=[^;]+; *path=\//i} $r->headers('set-cookie')), 'the affinity cookie');

# --- OData headers
isnt($sim->req('GET', 'accounts', undef, {'OData-Version' => '9.9', 'OData-MaxVersion' => '9.9'})->{status}, 200,
	'another OData version is not served');
isnt($sim->req('POST', 'accounts', '{"name":"x"}', {'Content-Type' => 'text/plain'})->{status}, 204,
	'a body that is not declared as JSON');
is($sim->req('POST', 'accounts', '{"name":"x"}', {'Content-Type' => 'application/json; charset=utf-8'})->{status}, 204,
	'with a charset it is fine');

# --- a token expires
$sim->stop;
$sim = Sim->start(set => {token_lifetime => 3});
my $short = $sim->token_request->json;
is($short->{expires_in}, 3, 'a short lifetime');
is($sim->req('GET', 'WhoAmI', undef, undef, token => $short->{access_token})->{status}, 200, 'a fresh token works');
my $until = time + Sim::PATIENCE;
my $last;
do
{
	sleep 0.05;
	$last = $sim->req('GET', 'WhoAmI', undef, undef, token => $short->{access_token});
} while ($last->{status} == 200 && time < $until);
unauthorised($last, 'an old token does not');

done_testing;

# Signing in with a certificate: assertions made and signed by the openssl program
use strict;
use warnings;

use File::Temp qw(tempdir);
use JSON::PP;
use MIME::Base64 qw(decode_base64 encode_base64url);
use POSIX qw(strftime);
use Test::More;

use Sim qw(guid json_of);
use Sim::Check;

use constant TYPE => 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';

my $dir = tempdir(CLEANUP => 1);

sub spew
{
	my ($name, $text) = @_;
	open my $out, '>:raw', "$dir/$name" or die $!;
	print $out $text;
	close $out or die $!;
	return "$dir/$name";
}

sub slurp
{
	my ($name) = @_;
	open my $in, '<:raw', $name or die "$name: $!";
	local $/;
	return scalar <$in>;
}

sub openssl
{
	system("openssl $_[0] >>$dir/openssl.log 2>&1") == 0 or die "openssl $_[0]: " . slurp("$dir/openssl.log");
	return;
}

# Certificates of ours, of a stranger, and one that was valid until yesterday.
openssl("req -x509 -newkey rsa:2048 -nodes -days 7 -subj /CN=$_ -keyout $dir/$_.key -out $dir/$_.crt") for qw(mine second stranger old);
{
	my @days = map {strftime('%Y%m%d%H%M%SZ', gmtime(time + $_ * 86400))} -10, -1;
	spew('index', '');
	spew('ca.conf', "[ca]\ndefault_ca = c\n[c]\ndatabase = $dir/index\nnew_certs_dir = $dir\nserial = $dir/serial\nrand_serial = yes\n"
		. "default_md = sha256\npolicy = p\n[p]\ncommonName = supplied\n");
	openssl("req -new -key $dir/old.key -subj /CN=old -out $dir/old.csr");
	openssl("ca -batch -notext -selfsign -config $dir/ca.conf -keyfile $dir/old.key -in $dir/old.csr -startdate $days[0] -enddate $days[1] -out $dir/old.crt");
}

# The digest of a certificate in DER.
sub digest
{
	my ($name) = @_;
	my ($base64) = slurp("$dir/$name.crt") =~ /-----BEGIN CERTIFICATE-----\n(.*?)-----END/s;
	spew('der', decode_base64($base64));
	openssl("dgst -sha256 -binary -out $dir/digest $dir/der");
	return encode_base64url(slurp("$dir/digest"));
}

my $sim = Sim->start(args => [
	'--client-certificate', join(':', Sim::CLIENT, "$dir/mine.crt", Sim::USER),
	'--client-certificate', join(':', Sim::CLIENT, "$dir/second.crt", Sim::USER),
	'--client-certificate', join(':', Sim::CLIENT2, "$dir/old.crt", Sim::USER2) ]);
my $endpoint = $sim->url . '/' . Sim::TENANT . '/oauth2/v2.0/token';

# assertion(key =>, names =>, header => {}, claims => {}, sign => options of openssl dgst)
sub assertion
{
	my (%o) = @_;
	my $client = $o{client} // Sim::CLIENT;
	my $key = $o{key} // 'mine';
	my %header = (alg => 'PS256', typ => 'JWT', 'x5t#S256' => digest($o{names} // $key), %{$o{header} // {}});
	my %claims = (aud => $endpoint, iss => $client, sub => $client, jti => guid(), nbf => time - 5, iat => time - 5, exp => time + 300,
		%{$o{claims} // {}});
	delete $header{$_} for grep {!defined $header{$_}} keys %header;
	delete $claims{$_} for grep {!defined $claims{$_}} keys %claims;
	my $text = encode_base64url(json_of(\%header)) . '.' . encode_base64url(json_of(\%claims));

	spew('text', $text);
	openssl("dgst -sha256 -sign $dir/$key.key " . ($o{sign} // '-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:-1')
		. " -out $dir/signature $dir/text");
	return "$text." . encode_base64url(slurp("$dir/signature"));
}

# A request with an assertion instead of the secret.
sub ask
{
	my ($jwt, %o) = @_;
	return $sim->token_request(secret => undef, client_assertion_type => TYPE, client_assertion => $jwt, %o);
}

sub refused_as
{
	my ($answer, $number, $name) = @_;
	return subtest $name => sub
	{
		my $data = eval {$answer->json} // {};
		is($answer->{status}, 401, 'status');
		is($data->{error}, 'invalid_client', 'error');
		is_deeply($data->{error_codes}, [$number], 'error_codes') or diag $answer->{body};
		like($data->{error_description}, qr/^AADSTS$number: /, 'error_description');
		ok(!exists $data->{access_token}, 'no token');
	};
}

my $answer = ask(assertion());
accepted($answer, 200, 'a token for an assertion');
is($sim->req('GET', 'WhoAmI', undef, undef, token => $answer->json->{access_token})->json->{UserId}, Sim::USER, 'which is the application user\'s');
accepted(ask(assertion(key => 'second')), 200, 'and for one by another certificate of the application');
accepted($sim->token_request, 200, 'and for its secret, as before');

refused_as(ask(assertion(key => 'stranger')), 700027, 'a certificate that is not registered');
refused_as(ask(assertion(key => 'stranger', names => 'mine')), 700027, 'the registered one named, another key');
refused_as(ask(assertion(names => 'stranger')), 700027, 'its key, another certificate named');
refused_as(ask(assertion(sign => '')), 700027, 'another padding');
refused_as(ask(assertion(sign => '-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:20')), 700027, 'another length of the salt');
refused_as(ask(assertion() =~ s/\.([^.]+)\./'.' . encode_base64url(json_of({aud => $endpoint})) . '.'/er), 700027, 'claims that were changed');
refused_as(ask(assertion(header => {'x5t#S256' => undef})), 700027, 'no certificate named');
refused_as(ask(assertion(header => {alg => 'RS256'})), 50027, 'another algorithm');
refused_as(ask(assertion(header => {alg => 'none'})), 50027, 'none at all');
refused_as(ask('nonsense'), 50027, 'no JWT');
refused_as(ask(assertion(claims => {jti => undef})), 50027, 'no id');
refused_as(ask(assertion(claims => {aud => "$endpoint/"})), 700023, 'for another endpoint');
refused_as(ask(assertion(claims => {iss => Sim::CLIENT2})), 700021, 'another issuer');
refused_as(ask(assertion(claims => {sub => Sim::CLIENT2})), 700021, 'another subject');
refused_as(ask(assertion(client => Sim::CLIENT2)), 700021, 'of another application');
refused_as(ask(assertion(claims => {exp => time - 1})), 700024, 'one that has expired');
refused_as(ask(assertion(claims => {nbf => time + 60})), 700024, 'one that is not yet valid');
refused_as(ask(assertion(claims => {exp => time + 3600})), 700024, 'one that lasts too long');
refused_as(ask(assertion(claims => {exp => undef})), 700024, 'one that never ends');
refused_as(ask(assertion(client => Sim::CLIENT2, key => 'old'), client => Sim::CLIENT2), 700027, 'a certificate that has expired');

for my $case ([client_assertion_type => undef], [client_assertion_type => 'jwt'], [client_secret => 'as well'])
{
	my $r = ask(assertion(), @$case);
	is($r->{status}, 400, "$case->[0]: status");
	is($r->json->{error}, 'invalid_request', "$case->[0]: error");
}
is(ask(assertion(), client => guid())->json->{error}, 'unauthorized_client', 'an unknown application');
is(ask(assertion(), scope => $sim->url)->json->{error}, 'invalid_scope', 'the scope is looked at all the same');

done_testing;

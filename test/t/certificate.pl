# Signing in with a certificate: what is sent, what is refused before anything is
# sent, and that the private key stays where it is
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use IO::Socket::INET;
use JSON::PP;
use MIME::Base64 qw(decode_base64 decode_base64url encode_base64url);
use POSIX qw(strftime);
use Test::More;

use PostgreSQL::Test::Utils;

use DvMig;

# Applications without a secret.
use constant {
	APP   => 'bbbbbbbb-0000-4000-8000-0000000000c1',
	USER  => 'cccccccc-0000-4000-8000-0000000000c1',
	APP2  => 'bbbbbbbb-0000-4000-8000-0000000000c2',
	USER2 => 'cccccccc-0000-4000-8000-0000000000c2',
};

my $dir = PostgreSQL::Test::Utils::tempdir();
chmod 0755, $dir;

# ------------------------------------------------------------- certificates

sub spew
{
	my ($name, $text, $mode) = @_;

	unlink "$dir/$name";
	append_to_file("$dir/$name", $text);
	chmod $mode // 0600, "$dir/$name";
	return "$dir/$name";
}

sub openssl
{
	my ($command) = @_;

	system("openssl $command >>$dir/openssl.log 2>&1") == 0 or die "openssl $command: " . slurp_file("$dir/openssl.log");
	return;
}

# pair(name, kind of key, from, to): name.key and name.crt, valid between these days
sub pair
{
	my ($name, $key, @days) = @_;
	my ($from, $to) = map { strftime('%Y%m%d%H%M%SZ', gmtime(time + $_ * 86400)) } @days ? @days : (-1, 7);

	spew('index', '');
	spew('ca.conf', "[ca]\ndefault_ca = c\n[c]\ndatabase = $dir/index\nnew_certs_dir = $dir\nserial = $dir/serial\nrand_serial = yes\n"
		. "default_md = sha256\npolicy = p\n[p]\ncommonName = supplied\n");
	openssl("genpkey $key -out $dir/$name.key");
	openssl("req -new -key $dir/$name.key -subj '/CN=$name' -out $dir/$name.csr");
	openssl("ca -batch -notext -selfsign -config $dir/ca.conf -keyfile $dir/$name.key -in $dir/$name.csr -startdate $from -enddate $to -out $dir/$name.crt");
	chmod 0600, "$dir/$name.key";
	return;
}

my $rsa = '-algorithm RSA -pkeyopt rsa_keygen_bits:2048';
pair($_, $rsa) for qw(mine new second stranger);
pair('long', $rsa, -1, 60);
pair('old', $rsa, -10, -2);
pair('future', $rsa, 2, 10);
pair('curve', '-algorithm EC -pkeyopt ec_paramgen_curve:P-256');
pair('pss', '-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048');
pair('short', '-algorithm RSA -pkeyopt rsa_keygen_bits:1024');
openssl("pkey -in $dir/mine.key -aes256 -passout pass:pw -out $dir/pkcs8.key");
openssl("rsa -in $dir/mine.key -aes256 -passout pass:pw -traditional -out $dir/traditional.key");
chmod 0600, "$dir/pkcs8.key", "$dir/traditional.key";

# The digest that an assertion names a certificate by.
sub digest
{
	my ($name) = @_;
	my ($base64) = slurp_file("$dir/$name.crt") =~ /-----BEGIN CERTIFICATE-----\n(.*?)-----END/s;

	spew('der', decode_base64($base64));
	openssl("dgst -sha256 -binary -out $dir/digest $dir/der");
	return encode_base64url(slurp_file("$dir/digest"));
}

# What the header of an assertion ends with: told apart by it are certificates.
sub header_end
{
	my ($name) = @_;
	my $header = encode_base64url('{"alg":"PS256","typ":"JWT","x5t#S256":"' . digest($name) . '"}');

	return substr $header, -40;
}

# --------------------------------------------------------------- the scene

my $t = DvMig->new(name => 'certificate', conf => "log_min_messages = debug5\n", args => [
		'--client-certificate', join(':', APP, "$dir/mine.crt", USER), '--client-certificate', join(':', APP, "$dir/new.crt", USER),
		'--client-certificate', join(':', APP, "$dir/long.crt", USER),
		'--client-certificate', join(':', APP2, "$dir/second.crt", USER2) ]);
my $sim = $t->sim;
my $whoami = q{SELECT * FROM dvmig.whoami('sim')};

# use_files(certificate, key): what the user mapping names from now on
sub use_files
{
	my ($certificate, $key) = @_;

	$t->sql(sprintf q{DROP USER MAPPING IF EXISTS FOR CURRENT_USER SERVER sim;
		CREATE USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (client_id '%s', client_certificate_file '%s', client_key_file '%s')},
		APP, $certificate, $key);
	return;
}

$t->sql(sprintf q{CREATE SERVER sim FOREIGN DATA WRAPPER dataverse OPTIONS (url '%s', authority '%1$s', tenant '%s', environment 'test')},
	$sim->url, DvMig::Sim::TENANT);
$t->{has_server} = 1;
use_files("$dir/mine.crt", "$dir/mine.key");
is($t->rows($whoami)->[0]{application_user_id}, USER, 'whoami signs in with a certificate');
spew('both.pem', slurp_file("$dir/mine.crt") . slurp_file("$dir/stranger.crt") . slurp_file("$dir/mine.key"));
use_files("$dir/both.pem", "$dir/both.pem");
is($t->rows($whoami)->[0]{application_user_id}, USER, 'certificate, chain and key in one file');
spew('both.pem', slurp_file("$dir/mine.key") . slurp_file("$dir/mine.crt"));
is($t->rows($whoami)->[0]{application_user_id}, USER, 'in either order');

# warnings(): what whoami says beside its row
sub warnings
{
	$t->node->psql('postgres', $whoami, stderr => \my $told);
	return $told;
}

use_files("$dir/long.crt", "$dir/long.key");
is(warnings(), '', 'nothing is said of a certificate that lasts');
$t->sql(sprintf q{ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (ADD client_id2 '%s', ADD client_certificate_file2 '%s', ADD client_key_file2 '%3$s')},
	APP2, "$dir/second.crt", "$dir/second.key");
like(warnings(), qr/^\S*\s*WARNING:  the client certificate of application user 2 expires in 6 days\n.*second\.crt" is valid until \d{4}-/, 'but of one that expires soon');
use_files("$dir/both.pem", "$dir/both.pem");

# ----------------------------------------------------------- what is sent

# A login service that keeps what it is sent, and refuses it.
{
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 5, ReuseAddr => 1) or die "listen: $!";
	my $address = 'http://127.0.0.1:' . $listener->sockport;
	my $pid = fork() // die "fork: $!";

	if ($pid == 0)
	{
		while (my $client = $listener->accept)
		{
			my ($head, $body) = ('', '');

			$head .= $_ while length($_ = <$client> // '') > 2;
			read $client, $body, $1 if $head =~ /^Content-Length: (\d+)/mi;
			append_to_file("$dir/sent", "$body\n");
			my $answer = '{"error":"invalid_client","error_description":"AADSTS700027: not registered.","error_codes":[700027]}';
			print $client "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: " . length($answer)
			  . "\r\nConnection: close\r\n\r\n$answer";
			close $client;
		}
		POSIX::_exit(0);
	}
	close $listener;
	$t->sql("ALTER SERVER sim OPTIONS (SET authority '$address')");
	for (1, 2)
	{
		like($t->error($whoami), qr/28000.*the client certificate was refused.*AADSTS700027.*fingerprint/s, 'a refusal is told');
	}
	# not TERM: that has a child of a test end the test's server, from PostgreSQL 16 on
	kill 'KILL', $pid;
	waitpid $pid, 0;
	$t->sql(sprintf q{ALTER SERVER sim OPTIONS (SET authority '%s')}, $sim->url);

	my @ids;
	for my $body (split /\n/, slurp_file("$dir/sent"))
	{
		my %form = map { my ($n, $v) = split /=/, $_, 2; $n => $v =~ s/%(..)/chr hex $1/ger } split /&/, $body;
		my $jwt = delete $form{client_assertion};

		is_deeply(\%form,
			{ grant_type => 'client_credentials', client_id => APP, scope => $sim->url . '/.default',
				client_assertion_type => 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer' }, 'the form, without a secret');
		like($jwt, qr/^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/, 'a JWT');
		my ($header, $claims, $signature) = split /\./, $jwt;
		is_deeply(decode_json(decode_base64url($header)), { alg => 'PS256', typ => 'JWT', 'x5t#S256' => digest('mine') }, 'its header');
		my $c = decode_json(decode_base64url($claims));
		push @ids, delete $c->{jti};
		like($ids[-1], qr/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/, 'its id is a GUID');
		my %time = map { $_ => delete $c->{$_} } qw(nbf iat exp);
		is_deeply($c, { aud => "$address/" . DvMig::Sim::TENANT . '/oauth2/v2.0/token', iss => APP, sub => APP }, 'its claims');
		ok($time{nbf} <= $time{iat} && $time{iat} <= time && $time{exp} > time, 'it is valid now');
		ok($time{exp} - $time{nbf} >= 300 && $time{exp} - $time{nbf} <= 600, 'for five to ten minutes');
		spew('signed', "$header.$claims");
		spew('signature', decode_base64url($signature));
		openssl("x509 -in $dir/mine.crt -noout -pubkey -out $dir/public");
		is(system("openssl dgst -sha256 -verify $dir/public -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32"
				. " -signature $dir/signature $dir/signed >/dev/null"), 0, 'openssl verifies the signature');
	}
	isnt($ids[0], $ids[1], 'each has an id of its own');
}

# ------------------------------------------- refused before anything is sent

sub refused
{
	my ($name, $pattern, $certificate, $key) = @_;
	my $before = $sim->stats->{requests}{token};

	use_files("$dir/$certificate", "$dir/$key");
	like($t->error($whoami), $pattern, $name);
	is($sim->stats->{requests}{token}, $before, "$name: nothing is sent");
	return;
}

my $date = qr/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC/;
refused('a key of another certificate', qr/F0000.*certificate does not match its private key.*stranger\.key.*mine\.crt/s, 'mine.crt', 'stranger.key');
refused('a certificate that has expired', qr/F0000.*certificate has expired.*old\.crt.*until $date/s, 'old.crt', 'old.key');
refused('one that is not yet valid', qr/F0000.*certificate is not yet valid.*future\.crt.*from $date/s, 'future.crt', 'future.key');
refused('a key with a password', qr/F0000.*key of the client certificate is encrypted.*pkcs8\.key.*openssl pkey/s, 'mine.crt', 'pkcs8.key');
refused('one of the old form', qr/F0000.*key of the client certificate is encrypted.*traditional\.key/s, 'mine.crt', 'traditional.key');
refused('a key on a curve', qr/F0000.*not an RSA key.*curve\.key/s, 'curve.crt', 'curve.key');
refused('a key for PSS only', qr/F0000.*not an RSA key.*pss\.key/s, 'pss.crt', 'pss.key');
refused('a short key', qr/F0000.*too short.*short\.key/s, 'short.crt', 'short.key');
refused('no certificate file', qr/F0000.*could not read the file of the client certificate: No such file.*client_certificate_file.*none\.crt/s, 'none.crt', 'mine.key');
refused('no key file', qr/F0000.*could not read the file of the client certificate's key: No such file.*client_key_file.*none\.key/s, 'mine.crt', 'none.key');
refused('a directory', qr/F0000.*client certificate is not a regular file/s, '.', 'mine.key');
refused('a key for a certificate', qr/F0000.*does not hold a certificate.*mine\.key/s, 'mine.key', 'mine.key');
refused('a certificate for a key', qr/F0000.*does not hold a private key.*bare\.pem/s, 'mine.crt', do { spew('bare.pem', slurp_file("$dir/mine.crt")); 'bare.pem' });
spew('empty', '');
refused('an empty file', qr/F0000.*does not hold a certificate/s, 'empty', 'mine.key');
spew('cut.key', substr slurp_file("$dir/mine.key"), 0, 900);
refused('half a key', qr/F0000.*does not hold a private key/s, 'mine.crt', 'cut.key');
spew('large', 'x' x 40000);
refused('a large file', qr/F0000.*does not hold a private key/s, 'mine.crt', 'large');
for my $mode (0644, 0660, 0601)
{
	chmod $mode, "$dir/mine.key";
	refused(sprintf('a key of mode %04o', $mode), qr/F0000.*key is not private.*mine\.key.*0600/s, 'mine.crt', 'mine.key');
}
chmod 0600, "$dir/mine.key";
chmod 0644, "$dir/mine.crt";
use_files("$dir/mine.crt", "$dir/mine.key");
ok($t->sql($whoami), 'others may read the certificate');

# ------------------------------------------------------------ who may name them

$t->sql(q{CREATE ROLE other LOGIN; SELECT dvmig.grant_owner('other');
	GRANT USAGE ON FOREIGN DATA WRAPPER dataverse TO other; GRANT USAGE ON FOREIGN SERVER sim TO other});
my $pair = "client_certificate_file '$dir/mine.crt', client_key_file '$dir/mine.key'";
my $as = 'SET SESSION AUTHORIZATION other;';
like($t->error("$as CREATE USER MAPPING FOR other SERVER sim OPTIONS (client_id 'x', $pair)"),
	qr/42501.*client_certificate_file.*superuser/s, 'only a superuser names the files');
$t->sql(sprintf q{CREATE USER MAPPING FOR other SERVER sim OPTIONS (client_id '%s', %s)}, APP, $pair);
is($t->sql("$as SELECT application_user_id FROM dvmig.whoami('sim')"), USER, 'for whom he will');
like($t->error("$as ALTER USER MAPPING FOR other SERVER sim OPTIONS ($_)"), qr/42501/, "who cannot $_")
  for "SET client_key_file '/etc/passwd'", "SET client_id 'y'", "DROP client_certificate_file";
$t->sql(sprintf q{%s CREATE SERVER theirs FOREIGN DATA WRAPPER dataverse OPTIONS (url '%s', authority '%2$s', tenant '%s', environment 'test');
	RESET SESSION AUTHORIZATION; CREATE USER MAPPING FOR other SERVER theirs OPTIONS (client_id '%s', %s)}, $as, $sim->url, DvMig::Sim::TENANT, APP, $pair);
{
	my $before = $sim->stats->{requests}{token};

	like($t->error("$as SELECT * FROM dvmig.whoami('theirs')"), qr/42501.*a certificate is used only with a server owned by a superuser/s,
		'nothing is signed for a server of another role');
	is($sim->stats->{requests}{token}, $before, 'nor sent');
}

# ------------------------------------------------------------------ a load

$t->migration('m', tables => 'account');
$t->sql(q{CREATE TABLE firms (id int PRIMARY KEY, name text); INSERT INTO firms SELECT i, 'firm ' || i FROM generate_series(1, 3000) i;
	SELECT dvmig.add_table('m', 'firms', 'account', source_key => 'id', auto_map => false); SELECT dvmig.map_column('firms', 'name', 'name')});
is($t->sql(q{SELECT count(*) FROM dvmig.check('m') WHERE rule = 'secret_inline' OR severity = 'error'}), 0, 'check finds nothing');
ok($t->sql(q{SELECT * FROM dvmig.plan('m')}), 'plan works');

# As both application users: what the first one has on its way hangs until the second has written.
$t->sql(sprintf q{ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (ADD client_id2 '%s', ADD client_certificate_file2 '%s', ADD client_key_file2 '%s')},
	APP2, "$dir/second.crt", "$dir/second.key");
is($t->sql(q{SELECT application_users FROM dvmig.whoami('sim')}), 2, 'a second application user by certificate');
my %write = (method => 'POST', path_contains => 'CreateMultiple');
$sim->fault({ match => { %write, user => USER, count => 0 }, do => 'hold' });
my $run = $t->start('m');
$t->until('the second user writes', sub { $sim->counters('accounts')->{records} > 0 });
$t->until('the first one is about to', sub { $sim->held > 0 });
$sim->sim('DELETE', 'fault');
is($t->finish($run)->{state}, 'completed', 'a load');
$t->account('m', firms => { name => 's.name' });
is(join(' ', sort keys %{ { map { $_->{_createdby_value} => 1 } @{ $sim->export('accounts') } } }), join(' ', USER, USER2), 'by both of them');

# mid_run(what happens while requests hang): the run that ends afterwards, of rows that are new
sub mid_run
{
	my ($happens) = @_;

	$t->sql(q{INSERT INTO firms SELECT i + (SELECT max(id) FROM firms), 'more ' || i FROM generate_series(1, 600) i});
	$sim->fault({ match => { %write, count => 0 }, do => 'hold' });
	my $started = $t->start('m');
	$t->until('a request hangs', sub { $sim->held > 0 });
	$happens->();
	$sim->sim('DELETE', $_) for 'tokens', 'fault';
	return $started;
}

# Rotated: the next login takes the new pair, and the old one is good for nothing any more.
spew('both.pem', slurp_file("$dir/mine.crt") . slurp_file("$dir/mine.key"));
use_files("$dir/both.pem", "$dir/both.pem");
$sim->set(token_lifetime => 1);
$run = mid_run(sub {
	spew('both.new', slurp_file("$dir/new.crt") . slurp_file("$dir/new.key"));
	rename "$dir/both.new", "$dir/both.pem" or die $!;
});
$sim->fault({ match => { path_contains => 'oauth2', body_contains => header_end('mine') }, do => 'status', status => 401, count => 0 });
is($t->finish($run)->{state}, 'completed', 'a pair that is rotated in mid-run');
like($t->error(q{SELECT 1 FROM dvmig.whoami('sim')}), qr/^$/, 'the new one is in use');
spew('both.pem', slurp_file("$dir/mine.crt") . slurp_file("$dir/mine.key"));
like($t->error($whoami), qr/login service/, 'the old one would have been refused');
$sim->sim('DELETE', 'fault');
$sim->set(token_lifetime => 3599);
$t->account('m', firms => { name => 's.name' });

# Another one that the application does not have, or half of a pair: the run ends, its rows untouched.
for my $case ([ 'stranger.crt', 'stranger.key', qr/the client certificate was refused/ ], [ 'mine.crt', 'stranger.key', qr/does not match its private key/ ])
{
	my ($certificate, $key, $says) = @$case;

	$run = $t->finish(mid_run(sub { spew('both.pem', slurp_file("$dir/$certificate") . slurp_file("$dir/$key")) }));
	is($run->{state}, 'failed', "$certificate with $key in mid-run: the run ends") or diag explain $run;
	like($run->{message}, $says, 'and says why');
	is($t->status('firms')->{failed}, 0, 'no row failed');
	spew('both.pem', slurp_file("$dir/mine.crt") . slurp_file("$dir/mine.key"));
	is($t->run('m')->{state}, 'completed', 'with a good pair the next run goes on');
	$t->account('m', firms => { name => 's.name' });
}

# --------------------------------------------------------- nothing is told

my @lines = map { grep { length == 64 } split /\n/, slurp_file("$dir/$_.key") } qw(mine new second stranger);
cmp_ok(scalar @lines, '>', 80, 'lines of keys to look for');
my $keys = join '|', 'eyJ', 'client_assertion=', 'PRIVATE KEY-----$', map { quotemeta } @lines;
my ($dump) = run_command([ 'pg_dump', '-d', $t->node->connstr('postgres') ]);
my $log = slurp_file($t->node->logfile);
ok($log =~ /DEBUG:.*CommitTransaction/, 'the server log tells all that it can');
for my $place ([ 'the server log', $log ], [ 'a dump', $dump ], [ 'tables of dvmig', $t->tables_of_dvmig ],
	[ 'pg_stat_activity', $t->sql('SELECT string_agg(query, chr(10)) FROM pg_stat_activity') ])
{
	my @told = grep { /$keys/ } split /\n/, $place->[1];
	is("@told[0 .. ($#told > 2 ? 2 : $#told)]", '', "no key and no assertion in $place->[0]");
}

done_testing();

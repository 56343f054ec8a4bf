# Whom a secret is sent to: nobody whose certificate is not good, and nobody to
# whom an answer points
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use IO::Socket::INET;
use Test::More;

use PostgreSQL::Test::Utils;

use DvMig;

my $t = DvMig->new(name => 'tls', tls => 1, conf => "dvmig.max_outage = '2s'\n");
my $whoami = q{SELECT * FROM dvmig.whoami('%s')};

# A host that sends whoever asks to another place, or lets everybody log in. It
# notes what arrives.
my $dir = PostgreSQL::Test::Utils::tempdir();
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 20, ReuseAddr => 1) or die "listen: $!";
my $address = '127.0.0.1:' . $listener->sockport;
my $pid = fork() // die "fork: $!";
if ($pid == 0)
{
	my $code = 302;

	while (my $client = $listener->accept)
	{
		my ($head, $body) = ('', '');

		$head .= $_ while length($_ = <$client> // '') > 2;
		read $client, $body, $1 if $head =~ /^Content-Length: (\d+)/mi;
		my ($path) = $head =~ /^\S+ (\S+)/;
		open(my $log, '>>', "$dir/log") or POSIX::_exit(1);
		print $log "$path\n";
		close $log;
		my $answer = $path =~ m{/token} && -e "$dir/login_is_good"
		  ? qq({"token_type":"Bearer","expires_in":3599,"access_token":"t0ken"})
		  : '';
		print $client $answer
		  ? "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " . length($answer) . "\r\nConnection: close\r\n\r\n$answer"
		  : "HTTP/1.1 $code Found\r\nLocation: http://$address/elsewhere$path\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
		close $client;
		$code = $code == 302 ? 307 : $code == 307 ? 301 : 302;
	}
	POSIX::_exit(0);
}
close $listener;
my $login = "$dir/login_is_good";
append_to_file($login, '1');

# ------------------------------------------------------------------ certificates

$t->server('sim');
is($t->error(sprintf $whoami, 'sim'), '', 'a good certificate');

my %bad = (
	expired => [ { days => -1 }, qr/expired/i ],
	'for another host' => [ { names => 'DNS:contoso.crm4.dynamics.com' }, qr/host ?name|subject name|does not match|localhost/i ]);
my $n = 0;
for my $what (sort keys %bad)
{
	my ($certificate, $pattern) = @{ $bad{$what} };
	my $sim = DvMig::Sim->start(tls => $certificate);
	my $name = 'bad' . ++$n;

	$t->sql(sprintf q{CREATE SERVER %s FOREIGN DATA WRAPPER dataverse OPTIONS (url '%s', authority '%2$s', tenant '%s', environment 'test', ca_file '%s');
		CREATE USER MAPPING FOR CURRENT_USER SERVER %1$s OPTIONS (client_id '%s', client_secret '%s')},
		$name, $sim->url, DvMig::Sim::TENANT, $sim->ca_file, DvMig::Sim::CLIENT, DvMig::Sim::SECRET);
	like($t->error(sprintf $whoami, $name), qr/08001.*certificate/s, "a certificate that is $what is refused");
	like($t->error(sprintf $whoami, $name), $pattern, 'which the error says');

	# The login is good, and the service is not.
	$t->sql("ALTER SERVER $name OPTIONS (SET authority 'http://$address')");
	like($t->error(sprintf $whoami, $name), qr/08001.*certificate/s, "a certificate that is $what is refused for the service alone");
	like($t->error("SELECT dvmig.refresh_metadata('$name', '{contact}')"), qr/08001.*certificate/s, 'whatever is asked for');
}

# One authority does not vouch for what another has signed.
my $other = DvMig::Sim->start(tls => 1);
$t->sql(sprintf q{ALTER SERVER sim OPTIONS (SET ca_file '%s')}, $other->ca_file);
like($t->error(sprintf $whoami, 'sim'), qr/08001.*certificate/s, 'a certificate of an authority that ca_file does not name is refused');
$t->sql(q{ALTER SERVER sim OPTIONS (DROP ca_file)});
like($t->error(sprintf $whoami, 'sim'), qr/08001.*certificate/s, 'and without ca_file one that the system does not know');

# --------------------------------------------------------------------- redirects

$t->sql(sprintf q{CREATE SERVER elsewhere FOREIGN DATA WRAPPER dataverse OPTIONS (url 'http://%s', authority 'http://%1$s', tenant '%s', environment 'test');
	CREATE USER MAPPING FOR CURRENT_USER SERVER elsewhere OPTIONS (client_id '%s', client_secret '%s')}, $address, DvMig::Sim::TENANT, DvMig::Sim::CLIENT, DvMig::Sim::SECRET);
unlink $login;
for my $round (1 .. 3)
{
	isnt($t->error(sprintf $whoami, 'elsewhere'), '', "a login that is sent elsewhere fails ($round)");
}
append_to_file($login, '1');
for my $round (1 .. 3)
{
	isnt($t->error(sprintf $whoami, 'elsewhere'), '', "a request that is sent elsewhere fails ($round)");
	isnt($t->error(q{SELECT dvmig.refresh_metadata('elsewhere', '{contact}')}), '', "so does the reading of metadata ($round)");
}
kill 'TERM', $pid;
waitpid $pid, 0;
my @asked = split /\n/, slurp_file("$dir/log");
cmp_ok(scalar(grep { m{/token} } @asked), '>', 0, 'logins were sent');
cmp_ok(scalar(grep { m{WhoAmI|EntityDefinitions} } @asked), '>', 0, 'and requests');
is(scalar(grep { m{^/elsewhere} } @asked), 0, 'no redirect was followed');

done_testing();

# TLS: the simulator with a certificate, as a client sees it
use strict;
use warnings;

use File::Temp qw(tempdir);
use IPC::Open3 qw(open3);
use Test::More;

use Sim;

my $dir = tempdir(CLEANUP => 1);

# Run openssl; its output, or undef when it fails.
sub openssl
{
	my ($input, @words) = @_;
	my ($in, $out);
	local $SIG{PIPE} = 'IGNORE';
	my $pid = eval {open3($in, $out, undef, 'openssl', @words)} or return;
	print $in $input;
	close $in;
	my $text = do {local $/; readline $out};
	waitpid $pid, 0;
	return $? == 0 ? $text // '' : undef;
}

defined openssl('', 'version') or plan skip_all => 'openssl is not installed';
defined openssl('', qw(req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout), "$dir/key",
	'-out', "$dir/cert") or plan skip_all => 'openssl cannot make a certificate here';

my $sim = Sim->start(args => ['--tls-cert', "$dir/cert", '--tls-key', "$dir/key", '--set', 'static_token=t']);
my $request = join "\r\n", 'GET /api/data/v9.2/WhoAmI HTTP/1.1', "Host: 127.0.0.1:$sim->{port}", 'Authorization: Bearer t',
	'OData-Version: 4.0', 'OData-MaxVersion: 4.0', 'Connection: close', '', '';
my @connect = ('s_client', '-quiet', '-connect', "127.0.0.1:$sim->{port}", '-ign_eof');
my $answer = openssl($request, @connect, '-CAfile', "$dir/cert", '-verify_return_error');
like($answer // '', qr{^HTTP/1\.1 200 OK\r\n}m, 'an answer over TLS');
like($answer // '', qr{"\@odata\.context":"https://127\.0\.0\.1:$sim->{port}/}, 'whose URLs begin with https');
is(openssl($request, @connect, '-verify_return_error', '-no-CAfile', '-no-CApath'), undef, 'who does not know its CA refuses it');
$answer = openssl($request, @connect, '-CAfile', "$dir/cert", '-tls1_2');
like($answer // '', qr{^HTTP/1\.1 200 OK}m, 'TLS 1.2');
like($sim->log, qr{listening on https://127\.0\.0\.1:$sim->{port}}, 'it says so');
ok(!eval {Sim->start(args => ['--tls-cert', "$dir/cert"])}, 'a certificate without its key is refused');
ok(!eval {Sim->start(args => ['--tls-cert', "$dir/none", '--tls-key', "$dir/key"])}, 'and one that is not there');

done_testing;

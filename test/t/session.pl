# The connection itself: certificates, tokens, secrets in files, refusals,
# waiting and cancelling, metadata and references over the wire
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use IPC::Run qw(finish start);
use POSIX qw(strftime);
use Test::More;
use Time::HiRes qw(time);

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

use DvMig;

# A proxy in the environment of the database server must not be used.
my $nowhere = PostgreSQL::Test::Cluster::get_free_port();
local @ENV{qw(http_proxy https_proxy HTTPS_PROXY ALL_PROXY)} = ("http://127.0.0.1:$nowhere") x 4;

my $t = DvMig->new(tls => 1, name => 'session');
my $sim = $t->sim;

delete @ENV{qw(http_proxy https_proxy HTTPS_PROXY ALL_PROXY)};
$t->server('sim');

my $whoami = q{SELECT * FROM dvmig.whoami('sim')};
my $mapping = 'ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS';

# refused(name, pattern, SQL): the error, without a secret in it
sub refused
{
	my ($name, $pattern, $sql) = @_;
	my $error = $t->error($sql // $whoami);

	like($error, $pattern, $name);
	unlike($error, qr/s3cret|rotated/, "$name: no secret is told");
	return;
}

# --------------------------------------------------------------------- whoami

my ($who) = @{ $t->rows($whoami) };
is($who->{server_name}, 'sim', 'whoami: server');
is($who->{environment}, 'test', 'whoami: environment');
is($who->{url}, $sim->url, 'whoami: address');
is($who->{application_user_id}, DvMig::Sim::USER, 'whoami: application user');
like($who->{organisation_id}, qr/^[0-9a-f-]{36}$/, 'whoami: organisation');
is($who->{application_users}, 1, 'whoami: how many application users');
cmp_ok($who->{latency_ms}, '>', 0, 'whoami: latency');
$sim->set(latency => 250);
$t->node->psql('postgres', q{SELECT * FROM dvmig.whoami('sim')}, stderr => \my $told);
like($told, qr/WARNING:  a round trip to Dataverse takes \d{3,} ms/, 'whoami: a warning where it is far away');
$sim->set(latency => 0);
cmp_ok($who->{advised_parallelism}, '>', 0, 'whoami: advised parallelism');
is($t->sql(q{SELECT token_expires - clock_timestamp() BETWEEN '50 min' AND '1 h' FROM dvmig.whoami('sim')}), 't', 'whoami: the token');
is($t->sql(q{SELECT organisation_id FROM dvmig.organisation}), $who->{organisation_id}, 'whoami pins the organisation');

# --------------------------------------------------------------- certificates

# certificate(name, subject alternative names, days): a new one for the simulator
sub certificate
{
	my ($names, $from, $to) = @_;
	my $d = $sim->{dir};

	open(my $out, '>', "$d/ext") or die $!;
	print $out "subjectAltName = $names\nbasicConstraints = CA:FALSE\n";
	close $out;
	open($out, '>', "$d/ca.conf") or die $!;
	print $out "[ca]\ndefault_ca = c\n[c]\ndatabase = $d/index\nnew_certs_dir = $d\nserial = $d/serial\n",
	  "default_md = sha256\npolicy = p\nunique_subject = no\n[p]\ncommonName = supplied\n";
	close $out;
	open($out, '>', "$d/index") or die $!;
	close $out;
	system("openssl rand -hex 8 > $d/serial && openssl ca -batch -config $d/ca.conf -cert $d/ca.crt -keyfile $d/ca.key"
		  . " -extfile $d/ext -startdate $from -enddate $to -in $d/server.csr -out $d/server.crt -notext >> $d/openssl.log 2>&1") == 0
	  or die DvMig::Sim::slurp("$d/openssl.log");
	$sim->restart;
	return;
}

my $day = 86400;
my ($past, $now, $future) = map { strftime('%Y%m%d%H%M%SZ', gmtime(time + $_ * $day)) } -10, -1, 10;
my $both = 'DNS:localhost, IP:127.0.0.1';

certificate('DNS:contoso.example', $now, $future);
refused('a certificate of another host', qr/the certificate of https:\S+ was not accepted.*DETAIL.*ca_file/s);
certificate($both, $past, $now);
refused('an expired certificate', qr/the certificate of https:\S+ was not accepted.*expired/s);
certificate($both, $future, strftime('%Y%m%d%H%M%SZ', gmtime(time + 20 * $day)));
refused('a certificate that is not yet valid', qr/the certificate of https:\S+ was not accepted/);
certificate($both, $now, $future);
ok($t->sql($whoami), 'a good one again');

my $other = DvMig::Sim->start(tls => 1);
$t->sql(sprintf(q{ALTER SERVER sim OPTIONS (SET ca_file '%s')}, $other->ca_file));
refused('a certificate of another authority', qr/the certificate of https:\S+ was not accepted/);
$t->sql(q{ALTER SERVER sim OPTIONS (SET ca_file '/nowhere/ca.crt')});
refused('a ca_file that is not there', qr/the certificate of https:\S+ was not accepted.*ca_file/s);
$t->sql(sprintf(q{ALTER SERVER sim OPTIONS (SET ca_file '%s')}, $sim->ca_file));
$other->stop;

my $plain = DvMig::Sim->start;
$t->sql(sprintf(q{ALTER SERVER sim OPTIONS (SET url 'https://localhost:%d', SET authority 'https://localhost:%1$d')}, $plain->port));
refused('a server that does not speak TLS', qr/could not connect to https/);
$t->sql(sprintf(q{ALTER SERVER sim OPTIONS (SET url '%s', SET authority '%1$s')}, $sim->url));
$plain->stop;

# ---------------------------------------------------------- secrets and tokens

my $file = "$sim->{dir}/secret";
my $write = sub {
	my ($text, $mode) = @_;
	unlink $file;
	open(my $out, '>', $file) or die $!;
	print $out $text;
	close $out;
	chmod $mode, $file;
};
$write->(DvMig::Sim::SECRET . "\n", 0644);
$t->sql("$mapping (DROP client_secret, ADD client_secret_file '$file')");
refused('a secret file that others can read', qr/not private.*0600/s);
chmod 0600, $file;
ok($t->sql($whoami), 'a private secret file, with a line end');
$write->('rotated', 0600);
refused('the file is read again', qr/client secret was refused/);
$write->('', 0600);
refused('an empty secret file', qr/does not hold a secret/);
unlink $file;
refused('no secret file', qr/could not read the file of the client secret/);
$write->(DvMig::Sim::SECRET, 0600);
ok($t->sql($whoami), 'and once more');

$sim->fault({ match => { path_contains => 'WhoAmI' }, do => 'status', status => 401, count => 1 });
ok($t->sql($whoami), 'a refused token is renewed once');
$sim->fault({ match => { path_contains => 'WhoAmI' }, do => 'status', status => 401, count => 2 });
refused('and only once', qr/refused the access token/);
$sim->fault({ match => { path_contains => 'oauth2' }, do => 'status', status => 503, count => 1 });
refused('a login service that is down', qr/login service is not available now/);

# ------------------------------------------------------------- odd answers

for my $case (
	[ { do => 'html' }, qr/not available now \(HTTP status 502\)/, 'an HTML page of a gateway' ],
	[ { do => 'garbage' }, qr/does not answer like the Dataverse Web API/, 'garbage' ],
	[ { do => 'cut', bytes => 40 }, qr/no complete answer/, 'an answer cut off' ],
	[ { do => 'reset_before' }, qr/no complete answer|could not connect/, 'a reset' ],
	[ { do => 'status', status => 403, code => '0x80040220', message => 'Principal user is missing prvReadAccount privilege' },
		qr/lacks a privilege.*prvReadAccount/s, 'a privilege that is missing' ],
	[ { do => 'throttle', retry_after => 1 }, qr/service protection limits/, 'throttled' ],
)
{
	# a read is tried again by libcurl where a kept connection dies: make it die for good
	$sim->fault({ match => { path_contains => 'WhoAmI' }, count => 6, %{ $case->[0] } });
	refused($case->[2], $case->[1]);
	$sim->sim('DELETE', 'fault');
}
ok($t->sql($whoami), 'and no connection is the worse for it');

# ------------------------------------------------------- waiting, cancelling

$sim->fault({ match => { path_contains => 'WhoAmI' }, do => 'hold', count => 0 });
my $began = time;
# What waits for the answer does so for minutes; a machine that is slow is no reason to fail.
my $soon = 20;
refused('statement_timeout ends the wait', qr/57014.*statement timeout/s, "SET statement_timeout = '300ms'; $whoami");
cmp_ok(time - $began, '<', $soon, 'and the answer is not waited for');
$began = time;
refused('dvmig.request_timeout ends it too', qr/no complete answer.*timed out.*dvmig\.request_timeout/s,
	"SET dvmig.request_timeout = '1s'; $whoami");
cmp_ok(time - $began, '<', $soon, 'in time');

for my $end (qw(pg_cancel_backend pg_terminate_backend))
{
	my ($out, $err) = ('', '');
	my $psql = start([ 'psql', '-X', '-d', $t->node->connstr('postgres'), '-c', $whoami ], '<', \undef, '>', \$out, '2>', \$err);
	ok($t->wait_for(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND query LIKE '%whoami%'
		AND pid <> pg_backend_pid()}), 'a call waits for the network');
	$began = time;
	$t->sql(qq{SELECT $end(pid) FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND query LIKE '%whoami%'});
	finish($psql);
	cmp_ok(time - $began, '<', $soon, "$end ends it at once");
	like($err, qr/canceling statement|terminating connection/, 'as a cancelled call');
}
$sim->sim('DELETE', 'fault');

# ---------------------------------------------------------------- metadata

my $read = $t->rows(q{SELECT * FROM dvmig.refresh_metadata('sim', '{account,contact,new_telemetry}')});
is(join(' ', map { "$_->{table_name}:$_->{table_type}:$_->{differences}" } @$read),
	'account:Standard:new contact:Standard:new new_telemetry:Elastic:new', 'metadata of three tables');
cmp_ok($read->[0]{columns}, '>', 20, 'with columns');
cmp_ok($read->[0]{$_}, '>', 0, "with $_") for qw(choices lookups);
is($t->sql(q{SELECT count(*) FROM dvmig.refresh_metadata('sim') WHERE differences IS NULL}), 3, 'read again: nothing has changed');
is($t->sql(q{SELECT string_agg(referenced_table || '=' || navigation_property, ' ' ORDER BY referenced_table) FROM dvmig.metadata_lookup
	WHERE table_name = 'contact' AND column_name IN ('parentcustomerid', 'ownerid')}),
	'account=parentcustomerid_account contact=parentcustomerid_contact systemuser=ownerid team=ownerid', 'targets of lookups');
like($t->sql(q{SELECT max_length FROM dvmig.metadata_column WHERE table_name = 'account' AND column_name = 'name'}), qr/^\d+$/,
	'lengths of texts');
is($t->sql(q{SELECT count(*) FROM dvmig.metadata_choice WHERE table_name = 'account' AND column_name = 'statuscode' AND state_value IS NULL}),
	0, 'the state of every status');
refused('a table that does not exist', qr/42P01.*Dataverse table "accounts" does not exist.*logical name/s,
	q{SELECT * FROM dvmig.refresh_metadata('sim', '{accounts}')});

$sim->fault({ match => { path_contains => 'EntityDefinitions' }, do => 'throttle', retry_after => 1, count => 2 });
$sim->fault({ match => { path_contains => 'StringAttributeMetadata' }, do => 'status', status => 503, count => 1 });
ok($t->sql(q{SELECT * FROM dvmig.refresh_metadata('sim', '{account}')}), 'throttled and failing reads are read again');
$sim->sim('DELETE', 'fault');

# -------------------------------------------------------------- references

my %id;
for my $name ("O'Brien \"Ltd\"", 'Twice', 'TWICE', 'Plain', "Stra\x{df}e & S\x{f6}hne 100%", map { "Number $_" } 1 .. 40)
{
	push @{ $id{ lc $name } }, $sim->create('accounts', { name => $name })->{accountid};
}
my $keys = join ' UNION ALL ', q{SELECT 'number ' || n FROM generate_series(1, 2000) n},
  q{SELECT lower(k) FROM unnest(ARRAY['o''brien "ltd"', 'twice', 'plain', E'stra\u00dfe & s\u00f6hne 100%', 'nobody', '']) k};
is($t->sql(qq{SELECT dvmig._read_reference(10, 'sim', 'account', '{name}', ARRAY($keys))}), 43,
	'keys that mean exactly one record, thousands asked for');
my %found = map { @$_{qw(match_key record)} }
  @{ $t->rows(q{SELECT match_key, matches || ' ' || coalesce(record_id::text, 'none') AS record FROM dvmig.reference}) };
is($found{"o'brien \"ltd\""}, "1 $id{qq{o'brien \"ltd\"}}[0]", 'quotes of both kinds');
is($found{"stra\x{df}e & s\x{f6}hne 100%"}, "1 $id{qq{stra\x{df}e & s\x{f6}hne 100%}}[0]", 'letters beyond ASCII');
is($found{twice}, '2 none', 'two records that differ in case: ambiguous');
is($found{nobody}, '0 none', 'a key that nothing has');
is($found{'number 41'}, '0 none', 'nor this');
is($found{'number 40'}, "1 $id{'number 40'}[0]", 'but that');
is($t->sql(q{SELECT count(*) FROM dvmig._read_ids(10, 'sim', 'account', 'name', '{twice,plain,nobody}')}), 3,
	'for adoption every record of a key is told');
refused('a column that does not exist', qr/42703.*has no column "nam"/s,
	q{SELECT dvmig._read_reference(10, 'sim', 'account', '{nam}', '{x}')});
is($t->sql(q{SELECT dvmig._read_reference(10, 'sim', 'account', '{name,accountid}', ARRAY['plain' || chr(31) || '} . $id{plain}[0] . q{'])}), 1,
	'a key of two columns');

# ---------------------------------------------------------- the organisation

$t->sql(q{CREATE ROLE visitor; GRANT USAGE ON SCHEMA dvmig TO visitor; GRANT USAGE ON FOREIGN SERVER sim TO visitor;
	GRANT EXECUTE ON FUNCTION dvmig.repin(text) TO visitor});
push @{ $sim->{options}{args} }, '--organization', '0d5e7a00-0000-4000-8000-0000000000ee';
$sim->restart;
refused('another organisation', qr/55000.*another Dataverse organisation.*0000000000ee.*dvmig\.repin/s, $_)
  for $whoami, q{SELECT * FROM dvmig.refresh_metadata('sim', '{account}')},
  q{SELECT dvmig._read_reference(10, 'sim', 'account', '{name}', '{plain}')};
refused('repin is for the owner of the server', qr/42501.*must be owner/s, q{SET ROLE visitor; SELECT dvmig.repin('sim')});
is($t->sql(q{SELECT dvmig.repin('sim')}), '0d5e7a00-0000-4000-8000-0000000000ee', 'repin');
is($t->sql(q{SELECT count(*) FROM dvmig.reference}), 0, 'ids of the old organisation are forgotten');
is($t->sql(q{SELECT detail->>'new' FROM dvmig.event WHERE kind = 'repin'}), '0d5e7a00-0000-4000-8000-0000000000ee', 'and it is on record');
ok($t->sql($whoami), 'then it works again');

done_testing();

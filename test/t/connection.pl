# What goes wrong before the first row is sent: the run ends "failed" with a
# message that says which, and no row changes its flag
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use PostgreSQL::Test::Cluster;

use DvMig;

my $t = DvMig->new(tls => 1, name => 'connection', conf => "dvmig.max_outage = '2s'\n");
my $sim = $t->sim;

$t->sql(q{
	CREATE TABLE people (person_id int PRIMARY KEY, family text);
	INSERT INTO people SELECT n, 'Person ' || n FROM generate_series(1, 50) n});
$t->migration('m', tables => 'contact');
$t->sql(q{
	SELECT dvmig.add_table('m', 'people', 'contact', source_key => 'person_id', target_key => 'new_legacyid');
	SELECT dvmig.map_column('people', 'lastname', 'family')});
$t->{quiet} = 1;

my $user = DvMig::Sim::USER;
my ($whoami) = @{ $t->rows(q{SELECT * FROM dvmig.whoami('sim')}) };
ok($whoami, 'whoami answers over TLS');
ok((grep { defined && lc $_ eq $user } values %$whoami), 'whoami names the application user');

# fails(name, message, options before, options after)
sub fails
{
	my ($name, $message, $before, $after) = @_;
	my $sent = $sim->pid ? $sim->stats : undef;

	$t->sql($before) if $before;
	my $run = $t->run('m');
	is($run->{state}, 'failed', "$name: the run ends failed");
	like($run->{message} // '', $message, "$name: and says why");
	like($t->{last_output}, qr/ERROR/, "$name: CALL dvmig.run raises it");
	is($t->counts('people'), '50/50/0/0/0', "$name: no row changes its flag");
	unlike(($run->{message} // '') . $t->{last_output}, qr/s3cret|other secret|not the secret/, "$name: no secret is told");
	$t->sql($after) if $after;
	return;
}

my $mapping = 'ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS';
my $secret = DvMig::Sim::SECRET;
my $client = DvMig::Sim::CLIENT;
my $stranger = DvMig::Sim::STRANGER;

fails('wrong secret', qr/secret|invalid_client/i,
	"$mapping (SET client_secret 'not the secret')", "$mapping (SET client_secret '$secret')");
fails('unknown application', qr/client|application/i,
	"$mapping (SET client_id '@{[ $stranger =~ s/ff$/ee/r ]}')", "$mapping (SET client_id '$client')");
fails('no application user', qr/no application user/,
	"$mapping (SET client_id '$stranger')", "$mapping (SET client_id '$client')");
fails('certificate of an unknown authority', qr/certificate/,
	'ALTER SERVER sim OPTIONS (DROP ca_file)', sprintf(q{ALTER SERVER sim OPTIONS (ADD ca_file '%s')}, $sim->ca_file));
fails('another tenant', qr/tenant|invalid_request|AADSTS/i,
	q{ALTER SERVER sim OPTIONS (SET tenant 'fabrikam.example')}, sprintf(q{ALTER SERVER sim OPTIONS (SET tenant '%s')}, DvMig::Sim::TENANT));

my $dead = PostgreSQL::Test::Cluster::get_free_port();
fails('nobody listens', qr/connect/,
	"ALTER SERVER sim OPTIONS (SET url 'https://localhost:$dead', SET authority 'https://localhost:$dead')",
	sprintf(q{ALTER SERVER sim OPTIONS (SET url '%1$s', SET authority '%1$s')}, $sim->url));

# The organisation was pinned at first use; another one behind the address
# stops everything until somebody says that it is meant.
is($t->sql(q{SELECT count(*) FROM dvmig.organisation WHERE server = 'sim'}), 1, 'the organisation is pinned');
fails('another organisation', qr/organi[sz]ation/,
	q{UPDATE dvmig.organisation SET organisation_id = '00000000-1111-2222-3333-444444444444' WHERE server = 'sim'});
is(scalar @{ $sim->export('contacts') }, 0, 'nothing was written until now');
$t->sql(q{SELECT dvmig.repin('sim')});
my $run = $t->run('m');
is($run->{state}, 'completed', 'after repin it runs');
$t->account('m', people => { lastname => 's.family', new_legacyid => 's.person_id::text' });

# Hosts the administrator has not allowed are not reached at all.
$t->node->append_conf('postgresql.conf', q{dvmig.allowed_hosts = 'contoso.crm4.dynamics.com'});
$t->node->restart;
like($t->error(q{SELECT * FROM dvmig.whoami('sim')}), qr/allowed_hosts/, 'dvmig.allowed_hosts holds for whoami');
$t->sql(q{UPDATE people SET processing_flag = 'U', family = 'Changed'});
$run = $t->run('m');
is($run->{state}, 'failed', 'and for runs');
like($run->{message}, qr/allowed_hosts/, 'which say so');
is($t->counts('people'), '50/50/0/0/0', 'no row changes its flag');

# Options of servers and user mappings are checked where they are written.
for my $case (
	[ q{CREATE SERVER x FOREIGN DATA WRAPPER dataverse OPTIONS (url 'http://contoso.crm4.dynamics.com', tenant 't', environment 'e')},
		qr/https/, 'http to another machine' ],
	[ q{CREATE SERVER x FOREIGN DATA WRAPPER dataverse OPTIONS (url 'https://contoso.crm4.dynamics.com', tenant 't')},
		qr/environment/, 'no environment' ],
	[ q{CREATE SERVER x FOREIGN DATA WRAPPER dataverse OPTIONS (url 'https://a.b', tenant 't', environment 'e', client_secret 'x')},
		qr/client_secret/, 'a secret on the server' ],
	[ q{CREATE SERVER x FOREIGN DATA WRAPPER dataverse OPTIONS (url 'https://a.b', tenant 't', environment 'e', colour 'red')},
		qr/HINT:.*url/s, 'an unknown option: the hint lists the valid ones' ],
)
{
	like($t->error($case->[0]), $case->[1], $case->[2]);
}

# No secret in any log.
my $log = PostgreSQL::Test::Utils::slurp_file($t->node->logfile);
my @told = grep { /s3cret|not the secret/ && !/STATEMENT|statement:|USER MAPPING/ } split /\n/, $log;
is("@told", '', 'the server log tells no secret');

done_testing();

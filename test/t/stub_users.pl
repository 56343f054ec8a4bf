# Stub users: those present are found, the others are created where the environment
# lets them, and listed for the import wizard where it does not
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

sub setup
{
	my ($t) = @_;

	$t->sql(q{
		CREATE SCHEMA staging;
		CREATE TABLE staging.users (login text PRIMARY KEY, first text, last text, mail text, unit text);
		INSERT INTO staging.users VALUES ('present', 'Anna', 'Almeida', 'USER1@example.org', NULL), ('gone1', 'Max', 'O''Gone "the late"', 'gone1@example.org', NULL),
			('gone2', 'Eva', 'Gone, Jr.', 'gone2@example.org', 'dvsim'), ('gone3', 'Ute', 'Gone', 'gone3@example.org', 'dvsim');
		CREATE TABLE staging.customers (id int PRIMARY KEY, company text, seller text);
		INSERT INTO staging.customers VALUES (1, 'of one who is here', 'present'), (2, 'of one who left', 'gone2')});
	$t->migration('m', tables => 'account,systemuser');
	like($t->error(q{SELECT * FROM dvmig.stub_users('m')}), qr/has no staging table of users/, 'users have to be staged first');
	$t->sql(q{
		SELECT dvmig.add_table('m', 'staging.users', 'systemuser');
		SELECT dvmig.map_column('staging.users', 'firstname', 'first');
		SELECT dvmig.map_column('staging.users', 'lastname', 'last');
		SELECT dvmig.map_column('staging.users', 'internalemailaddress', 'mail');
		SELECT dvmig.map_column('staging.users', 'domainname', 'login');
		SELECT dvmig.map_lookup('staging.users', 'businessunitid', 'unit', 'businessunit', match_on => 'name');
		SELECT dvmig.map_lookup('staging.users', 'businessunitid', $$'root business unit'$$, 'businessunit', match_on => 'environment role', fallback => true);
		SELECT dvmig.add_table('m', 'staging.customers', 'account');
		SELECT dvmig.map_column('staging.customers', 'name', 'company');
		SELECT dvmig.map_lookup('staging.customers', 'ownerid', 'seller', 'staging.users')});
	return;
}

# ------------------------------------------------- where users can be created

my $t = DvMig->new(profile => 'strict', name => 'stubs');
setup($t);
like($t->error(q{SELECT dvmig.map_lookup('staging.users', 'parentsystemuserid', 'mail', 'systemuser', match_on => 'internalemailaddress');
	SELECT dvmig.set_column('staging.users', 'businessunitid', 'send', 'both')}), qr/the business unit of a user is not updated.*loses his security roles/s,
	'the business unit of a user is never updated');
$t->sql(q{SELECT dvmig.unmap('staging.users', 'parentsystemuserid')});
my $r = $t->rows(q{SELECT * FROM dvmig.stub_users('m')})->[0];
is("$r->{present} $r->{ambiguous} $r->{missing} $r->{can_create}", '1 0 3 1', 'who is there is found, and one of the others is created');
like($r->{message}, qr/one was created; CALL dvmig.run\('m', tables => '\{staging.users\}'\)/, 'and it is told how to go on');
my $run = $t->run('m');
is($t->counts('staging.users') . ' ' . $t->counts('staging.customers'), '4/0/4/0/0 2/0/2/0/0', 'a run creates the rest');
my %users = (lastname => 's.last', internalemailaddress => 's.mail', domainname => 's.login', _businessunitid_value => q{(SELECT r.record_id FROM dvmig.reference r WHERE r.match_on = 'name' AND r.match_key = 'dvsim')});
my %by_mail = map { lc($_->{internalemailaddress} // '') => $_ } @{ $t->sim->export('systemusers') };
is(join(' ', map { $_->{lastname} } @by_mail{ map { "gone$_\@example.org" } 1 .. 3 }), q{O'Gone "the late" Gone, Jr. Gone}, 'every stub once, with its name');
is($t->sim->counters('systemusers')->{created_twice}, 0, 'none was created twice');
$t->account('m', 'staging.customers' => { _ownerid_value => '(SELECT u.dataverse_id FROM staging.users u WHERE u.login = s.seller)' }, -extra => { systemusers => 12 });

# An update of a user leaves the business unit alone.
$t->sql(q{UPDATE staging.users SET unit = 'no such unit', last = 'Renamed', processing_flag = 'U' WHERE login = 'gone3'});
$run = $t->run('m');
($r) = grep { $_->{lastname} eq 'Renamed' } @{ $t->sim->export('systemusers') };
ok($r && $r->{_businessunitid_value}, 'an update leaves the business unit as it is');
$r = $t->rows(q{SELECT * FROM dvmig.stub_users('m')})->[0];
is($r->{message}, 'all users are there', 'then nobody is missing');

# ------------------------------------------------------- where they cannot

my $n = DvMig->new(profile => 'lenient', name => 'nostubs', set => { user_create => 'refused' });
setup($n);
$r = $n->rows(q{SELECT * FROM dvmig.stub_users('m')})->[0];
is($r->{can_create}, JSON::PP::false, 'where users cannot be created, that is found out with one');
like($r->{message}, qr/Dataverse refused it: Users cannot be created .*0x80040220, HTTP status 403\)\. Load them with the import wizard from .*stub_user_list\('m'\)/,
	'and explained');
is($n->sql(q{SELECT dvmig.stub_user_list('m')}), join("\n", '"First Name","Last Name","Primary Email","User Name","Business Unit"',
	map { s/ROOT/$n->sql(q{SELECT record_id FROM dvmig.reference WHERE match_key = 'root business unit'})/er }
	'"Max","O\'Gone ""the late""","gone1@example.org","gone1","ROOT"', '"Eva","Gone, Jr.","gone2@example.org","gone2","dvsim"', '"Ute","Gone","gone3@example.org","gone3","dvsim"'),
	'the list is what the import wizard takes');
# The wizard does its work, and adopt takes the result.
$n->sim->set(user_create => 'accepted');
my $unit = $n->sim->export('businessunits')->[0]{businessunitid};
$n->sim->create('systemusers', { firstname => 'x', lastname => 'y', internalemailaddress => "gone$_\@example.org", domainname => "gone$_",
	'businessunitid@odata.bind' => "businessunits($unit)" }) for 1 .. 3;
is($n->sql(q{SELECT adopted || ' ' || absent FROM dvmig.adopt('staging.users', 'internalemailaddress')}), '3 0', 'adopt takes what the wizard made');
is($n->sql(q{SELECT count(*) FROM dvmig.stub_user_list('m')}), 1, 'the list is empty but for its headings');
$run = $n->run('m');
is($n->counts('staging.customers'), '2/0/2/0/0', 'and their records find their owners');

done_testing();

# Load, verify and undo at some size, and the ratios of their rates. Short by itself;
#   DVMIG_SCALE_ROWS=100000 DVMIG_TAP_TIMEOUT=3600 test/check tap:undo_scale
# tells figures worth reading (they are in the log). No result depends on speed.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $rows = $ENV{DVMIG_SCALE_ROWS} // 3000;
my $t = DvMig->new(name => 'scale', conf => "dvmig.settle_time = '1s'\n");
my $sim = $t->sim;

$t->sql(qq{
	CREATE SCHEMA staging;
	CREATE TABLE staging.firms (id int PRIMARY KEY, name text);
	INSERT INTO staging.firms SELECT n, 'Firm ' || n FROM generate_series(1, $rows / 50) n;
	CREATE TABLE staging.people (id int PRIMARY KEY, first text, family text, about text, children int, credit numeric(12,2), gender int, born date,
		street text, city text, zip text, phone text, mobile text, mail text, site text, firm int);
	INSERT INTO staging.people SELECT n, 'First ' || n, 'Person ' || n, 'Some words about number ' || n, n % 5, n + 0.25, 1 + n % 2, date '1970-01-01' + n % 10000,
		'Street ' || n % 100, 'City ' || n % 50, lpad((n % 100000)::text, 5, '0'), '+49 30 ' || n, '+49 170 ' || n, 'p' || n || '\@example.com', 'https://example.com/' || n,
		1 + n % ($rows / 50)
	FROM generate_series(1, $rows) n});
$t->migration('m', tables => 'account,contact');
$t->sql(sprintf q{ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (ADD client_id2 '%s', ADD client_secret2 '%s')}, DvMig::Sim::CLIENT2, DvMig::Sim::SECRET2);
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.firms', 'account', auto_map => false);
	SELECT dvmig.map_column('staging.firms', 'name', 'name');
	SELECT dvmig.add_table('m', 'staging.people', 'contact', auto_map => false);
	SELECT dvmig.map_column('staging.people', m[1], m[2]) FROM unnest('{firstname:first,lastname:family,description:about,numberofchildren:children,creditlimit:credit,gendercode:gender,birthdate:born,address1_line1:street,address1_city:city,address1_postalcode:zip,telephone1:phone,mobilephone:mobile,emailaddress1:mail,websiteurl:site}'::text[]) c,
		string_to_array(c, ':') m;
	SELECT dvmig.map_lookup('staging.people', 'parentcustomerid', 'firm', 'staging.firms')});

my %seconds;
my $run = $t->run('m', 'lanes => 2');
is($run->{state}, 'completed', "$rows rows are loaded");
$t->sql(q{SELECT count(*) FROM dvmig.verify('m')});
is($t->sql(q{SELECT count(*) FROM dvmig.difference}), 0, 'and verified');
my $all = int($rows / 50) + $rows;
is($t->sql("SELECT sum(created) || ' ' || sum(deleted) || ' ' || sum(failed) FROM dvmig.undo($run->{run})"), "$all $all 0", 'and undone');
is(scalar @{ $sim->export('contacts') } + @{ $sim->export('accounts') }, 0, 'nothing is left');
is($t->sql(q{SELECT count(*) || ' ' || count(dataverse_id) FROM staging.people WHERE processing_flag = 'U'}), "$rows 0", 'all rows are as they came');
is($t->sql(q{SELECT (SELECT count(*) FROM staging.people_success) + (SELECT count(*) FROM staging.people_error)}), 0, 'without outcomes');

for my $r (@{ $t->rows(q{SELECT kind, extract(epoch FROM ended_at - started_at)::numeric(12,2) AS seconds, requests, (SELECT string_agg(u.pass || ' ' || extract(epoch FROM u.ended_at - u.started_at)::numeric(12,2), ', ' ORDER BY u.step)
	FROM dvmig.run_table u WHERE u.run = h.run) AS parts FROM dvmig.run_history h ORDER BY run}) })
{
	$seconds{ $r->{kind} } = $r->{seconds};
	note("$r->{kind}: $r->{seconds} s, " . int($all / ($r->{seconds} || 1)) . " rows/s, $r->{requests} requests; $r->{parts}");
}
note(sprintf 'of the rate of loading: verify %.2f, undo %.2f', map { $seconds{run} / ($seconds{$_} || 1) } qw(verify undo));

done_testing();

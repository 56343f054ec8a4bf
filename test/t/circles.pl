# Lookups that go in a circle, and tables that only point at one: these come
# after it and keep their lookups
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $n = 40;

# Firms with a main contact, people with a firm: a circle, registered last. Cases
# and tasks point into it, links join its tables; of a case Dataverse requires the customer.
my $t = DvMig->new(name => 'circles');
$t->sql(qq{
	ALTER DATABASE postgres SET dvmig.settle_time = '300ms';
	CREATE SCHEMA staging;
	CREATE TABLE staging.cases (id int PRIMARY KEY, title text, person int);
	CREATE TABLE staging.tasks (id int PRIMARY KEY, subject text, firm int);
	CREATE TABLE staging.firms (id int PRIMARY KEY, name text, master int, main int);
	CREATE TABLE staging.people (id int PRIMARY KEY, name text, firm int);
	INSERT INTO staging.cases SELECT n, 'Case ' || n, n FROM generate_series(1, $n) n;
	INSERT INTO staging.tasks SELECT n, 'Task ' || n, n FROM generate_series(1, $n) n;
	INSERT INTO staging.firms SELECT n, 'Firm ' || n, nullif(n - 1, 0), n FROM generate_series(1, $n) n;
	INSERT INTO staging.people SELECT n, 'Person ' || n, n FROM generate_series(1, $n) n});
$t->migration('m', tables => 'account,contact,incident,task');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.cases', 'incident', auto_map => false);
	SELECT dvmig.add_table('m', 'staging.tasks', 'task', auto_map => false);
	SELECT dvmig.add_table('m', 'staging.firms', 'account', auto_map => false);
	SELECT dvmig.add_table('m', 'staging.people', 'contact', auto_map => false);
	SELECT dvmig.map_column('staging.cases', 'title', 'title'), dvmig.map_lookup('staging.cases', 'customerid', 'person', 'staging.people');
	SELECT dvmig.map_column('staging.tasks', 'subject', 'subject'), dvmig.map_lookup('staging.tasks', 'regardingobjectid', 'firm', 'staging.firms');
	SELECT dvmig.map_column('staging.firms', 'name', 'name'), dvmig.map_lookup('staging.firms', 'parentaccountid', 'master', 'staging.firms'),
		dvmig.map_lookup('staging.firms', 'primarycontactid', 'main', 'staging.people');
	SELECT dvmig.map_column('staging.people', 'lastname', 'name'), dvmig.map_lookup('staging.people', 'parentcustomerid', 'firm', 'staging.firms')});

is($t->sql(q{SELECT string_agg(format('%s %s %s', wave, staging, deferred_lookups), '; ' ORDER BY step) FROM dvmig.plan('m') WHERE pass = 'write'}),
	'1 staging.people {parentcustomerid}; 2 staging.cases {}; 2 staging.firms {parentaccountid}; 3 staging.tasks {}',
	'a circle is opened by one of its own tables, and what points at it comes after it with all of its lookups');
is($t->sql(q{SELECT count(*) FROM dvmig.check('m') WHERE severity = 'error'}), 0, 'check finds nothing against it');
is($t->run('m')->{state}, 'completed', 'the run completes');
is($t->counts("staging.$_"), "$n/0/$n/0/0", "all $_ are loaded") for qw(cases tasks firms people);
is($t->sql('SELECT sum(owed) FROM dvmig.status'), 0, 'nothing is owed');
for my $set (qw(incidents tasks))
{
	my $counters = $t->sim->counters($set);
	is("$counters->{creates}/$counters->{updates}", "$n/0", "$set are created with their lookups, and not written again");
}
is(scalar(grep { $_->{_customerid_value} } @{ $t->sim->export('incidents') }), $n, 'each case has its customer');
is($t->sql(q{SELECT string_agg(DISTINCT result, ' ') FROM dvmig.verify('m')}), 'equal', 'and all compares equal');

# The circle is opened by the table that is created with most of what Dataverse requires of it
$t->sql(q{UPDATE dvmig.metadata_column SET required_level = 'SystemRequired' WHERE table_name = 'contact' AND column_name = 'parentcustomerid'});
is($t->sql(q{SELECT string_agg(format('%s %s %s', wave, staging, deferred_lookups), '; ' ORDER BY step) FROM dvmig.plan('m') WHERE pass = 'write'}),
	'1 staging.firms {parentaccountid,primarycontactid}; 2 staging.people {}; 2 staging.tasks {}; 3 staging.cases {}',
	'a lookup that Dataverse requires is not the one to be left for later');

done_testing();

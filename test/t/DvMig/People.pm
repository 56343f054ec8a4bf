# People.pm - staging table "people", whose rows become contacts: for tests of the pace, where one table will do
package DvMig::People;
use strict;
use warnings;

use Exporter 'import';
our @EXPORT_OK = qw(stage_people fresh_people);

# stage_people(t): the table in a migration "m"; what its records hold, as $t->account() takes it.
sub stage_people
{
	my ($t) = @_;

	$t->sql(q{CREATE TABLE people (id int PRIMARY KEY, family text)});
	$t->migration('m', tables => 'contact');
	$t->sql(q{SELECT dvmig.add_table('m', 'people', 'contact', source_key => 'id');
		SELECT dvmig.map_column('people', 'lastname', 'family')});
	return (people => { lastname => 's.family' });
}

# fresh_people(t, n): no record and no outcome is left, and so many rows are unprocessed.
sub fresh_people
{
	my ($t, $n) = @_;

	$t->sim->sim(POST => 'reset');
	$t->sql(qq{TRUNCATE people, people_success, people_error;
		INSERT INTO people SELECT n, 'Name ' || n || repeat('x', 35) FROM generate_series(1, $n) n});
	return;
}

1;

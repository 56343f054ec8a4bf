# A look at the table for what was flagged meanwhile follows a lap, and is spared
# only where nobody can have flagged anything
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

# autovacuum writes when it likes
my $t = DvMig->new(name => 'quiet', conf => "autovacuum = off\n");
my $rows = 700;

$t->sql(qq{
	CREATE SCHEMA staging;
	CREATE TABLE staging.elsewhere (id int);
	CREATE TABLE staging.customers (id int PRIMARY KEY, company_name text, wanted bool NOT NULL DEFAULT true);
	INSERT INTO staging.customers SELECT n, 'Company ' || n FROM generate_series(1, $rows) n});
$t->migration('m', tables => 'account');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.customers', 'account', source_key => 'id', auto_map => false, flag_index => false, filter => 'wanted');
	SELECT dvmig.map_column('staging.customers', 'name', 'company_name')});

# Scans of the table by a run that sends every row; what the last one has told is awaited.
my $scans = q{SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'customers'};
my $last;

sub scans_of_run
{
	my ($options) = @_;

	$t->sql(q{UPDATE staging.customers SET processing_flag = 'U', company_name = company_name || '.'});
	$t->sql('SELECT pg_stat_force_next_flush()');
	my $before = $t->sql($scans);
	my $run = $t->run('m', $options . ', resend => true');

	is($run->{state}, 'completed', "the run completes ($options)");
	# a worker tells the last of its scans when it ends
	ok($t->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'dvmig%'"), 'its workers have ended');
	return ($t->sql($scans) - $before, $run);
}

for my $lanes (1, 2)
{
	my ($quiet) = scans_of_run("lanes => $lanes");
	my $writer = $t->node->background_psql('postgres');

	$writer->query_safe('BEGIN; INSERT INTO staging.elsewhere VALUES (1)');
	my ($busy) = scans_of_run("lanes => $lanes");
	$writer->query_safe('COMMIT');
	$writer->quit;
	is($busy - $quiet, 1, "$lanes: while somebody writes, the table is looked at after the lap, and is not otherwise");
	is($t->counts('staging.customers'), "$rows/0/$rows/0/0", "$lanes: all rows have their outcome");
}

# What a user's trigger does in a transaction of the run is not the run's own doing.
$t->sql(q{
	CREATE FUNCTION staging.another() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF new.processing_flag = 'P' THEN
			INSERT INTO staging.customers VALUES (-new.id, 'One more') ON CONFLICT DO NOTHING;
		END IF;
		RETURN NULL;
	END$$;
	CREATE TRIGGER another AFTER UPDATE ON staging.customers FOR EACH ROW WHEN (new.id = 5) EXECUTE FUNCTION staging.another()});
my (undef, $run) = scans_of_run('lanes => 1');
is($run->{rows_sent}, $rows + 1, 'a row that a trigger adds behind the walk is sent in the same run');
$t->sql('DROP TRIGGER another ON staging.customers');
$t->sql('CREATE TRIGGER another AFTER INSERT OR UPDATE ON staging.customers_success FOR EACH ROW WHEN (new.id = 5) EXECUTE FUNCTION staging.another()');
$t->sql(q{
	CREATE OR REPLACE FUNCTION staging.another() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN INSERT INTO staging.customers VALUES (-new.id - 1, 'One more') ON CONFLICT DO NOTHING; RETURN NULL; END$$});
(undef, $run) = scans_of_run('lanes => 1');
is($run->{rows_sent}, $rows + 2, 'and one that a trigger of the outcome table adds');
$t->sql('DROP TRIGGER another ON staging.customers_success');

# What a lap leaves for the next one is taken, whether anybody writes or not: rows of one record go one after the other.
$t->sql(q{
	CREATE TABLE staging.twins (id int PRIMARY KEY, company_name text, dataverse_id uuid);
	INSERT INTO staging.twins SELECT n, 'Twin ' || n, '00000000-0000-4000-8000-000000000001' FROM generate_series(1, 3) n;
	SELECT dvmig.add_table('m', 'staging.twins', 'account', source_key => 'id', auto_map => false, flag_index => false);
	SELECT dvmig.map_column('staging.twins', 'name', 'company_name')});
is($t->run('m', q{tables => '{staging.twins}', lanes => 1})->{state}, 'completed', 'rows of one record are sent');
is($t->counts('staging.twins'), '3/0/3/0/0', 'all in one run');
$t->sql(q{SELECT dvmig.drop_table('staging.twins')});

# Rows that are not of the pass or not wanted are not taken for done.
$t->sql(q{INSERT INTO staging.customers SELECT n, 'Unwanted', false FROM generate_series(1001, 1010) n});
$t->sql(q{UPDATE staging.customers SET processing_flag = 'U', action_flag = 'D' WHERE id <= 3 AND wanted});
is($t->run('m')->{state}, 'completed', 'deletes are made');
is($t->sql(q{SELECT count(*) FILTER (WHERE wanted), count(*) FILTER (WHERE NOT wanted) FROM staging.customers WHERE processing_flag = 'U'}), '0|10',
	'and what is left out is left');
# the record of the twins, whose table has left the migration
$t->account('m', -extra => { accounts => 1 }, 'staging.customers' => {});

done_testing();

# Several lanes at one run: every row once, whatever is edited, fails, waits or
# ends meanwhile
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'lanes', profile => 'strict', conf => "dvmig.settle_time = 1s\n");

$t->sql(q{CREATE TABLE people (id int PRIMARY KEY, family text, boss int)});
$t->migration('m', tables => 'contact,account');
$t->sql(q{SELECT dvmig.add_table('m', 'people', 'contact', source_key => 'id');
	SELECT dvmig.map_column('people', 'lastname', 'family')});
my %fields = (people => { lastname => 's.family' });

# busy_run(arguments, lanes): a run in which so many lanes at least wait for answers.
# Small requests of a slow service, so that it is far from its end.
sub busy_run
{
	my ($arguments, $lanes) = @_;

	$t->sim->set(row_time => 50000);
	$t->sql('DELETE FROM dvmig.table_pace');
	my $run = $t->start('m', $arguments);
	$t->wait_for(qq{SELECT count(*) >= $lanes FROM dvmig.run_lane WHERE run = $run AND in_flight > 0}) or die "run $run is not busy\n";
	return $run;
}

# --- three lanes share a table
$t->sql(q{INSERT INTO people SELECT n, 'Name ' || n FROM generate_series(1, 6000) n});
my $run = $t->run('m', 'lanes => 3');
is($run->{state}, 'completed', 'a run with three lanes completes');
is($run->{succeeded}, 6000, 'and counts every row once');
is($run->{rows_sent}, 6000, 'none was sent twice');
is($run->{rows_read}, 6000, 'or read twice');
$t->account('m', %fields);

# --- whoever sees a run at its end can start the next one: it has let go of its tables
$t->sql(q{CREATE TABLE held_at_end (run bigint, locks bigint);
	CREATE FUNCTION note_locks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO public.held_at_end SELECT new.run, count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = x'4454'::int;
		RETURN new; END $$;
	CREATE TRIGGER note_locks AFTER UPDATE ON dvmig.run_history FOR EACH ROW
		WHEN (old.state = 'running' AND new.state <> 'running') EXECUTE FUNCTION note_locks();
	UPDATE people SET family = family || ' I', processing_flag = 'U' WHERE id < 100});
$t->run('m', 'lanes => 2');
is($t->sql('SELECT locks FROM held_at_end'), 0, 'a run at its end holds no table any more');
$t->sql('DROP TRIGGER note_locks ON dvmig.run_history');

# --- places that cannot be divided evenly are used all the same
$t->sql(q{TRUNCATE people, people_success, people_error});
$t->sim->sim(POST => 'reset');
$t->sim->set(dop_hint => 5);
$t->sql(q{INSERT INTO people SELECT n, 'Name ' || n FROM generate_series(1, 6000) n});
$run = busy_run('lanes => 3', 3);
ok($t->wait_for(qq{SELECT sum(in_flight) = 5 AND min(in_flight) >= 1 FROM dvmig.run_lane WHERE run = $run}), 'three lanes have five requests in flight, and each of them its part');
$t->sim->set(row_time => 0);
is($t->finish($run)->{state}, 'completed', 'to the end');
$t->sim->set(dop_hint => 8);

# --- a lane that is terminated takes nothing with it
$t->sql(q{TRUNCATE people, people_success, people_error});
$t->sim->sim(POST => 'reset');
$t->sql(q{INSERT INTO people SELECT n, 'Name ' || n FROM generate_series(1, 4000) n});
$run = busy_run('lanes => 3', 3);
is($t->sql(qq{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'dvmig run $run lane 3'}),
	1, 'a lane is terminated');
$t->wait_for(qq{SELECT count(*) = 2 FROM pg_stat_activity WHERE application_name LIKE 'dvmig run $run%'});
$t->sim->set(row_time => 0);
is($t->finish($run)->{state}, 'completed', 'the others go on to the end');
$t->account('m', %fields);
is($t->status('people')->{in_doubt}, 0, 'nothing stays in doubt');

# --- a stop ends all lanes; the next run goes on
$t->sql(q{UPDATE people SET family = family || ' II', processing_flag = 'U'});
$run = busy_run('lanes => 3, resend => true', 3);
$t->sql("SELECT dvmig.stop($run)");
is($t->finish($run)->{state}, 'stopped', 'a run of three lanes stops');
$t->sim->set(row_time => 0);
ok($t->wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'dvmig run%'}), 'no lane is left');
$t->account('m');
is($t->run('m', 'lanes => 2, resend => true')->{state}, 'completed', 'the next run does the rest');
$t->account('m', %fields);

# --- the leader is terminated: the run is interrupted, the helpers end too
$t->sql(q{UPDATE people SET family = family || ' III', processing_flag = 'U'});
$run = busy_run('lanes => 3, resend => true', 3);
$t->sql(qq{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dvmig run $run'});
$t->sim->set(row_time => 0);
$t->wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'dvmig run%'});
is($t->finish($run)->{state}, 'interrupted', 'without its first lane a run is interrupted');
is($t->run('m', 'lanes => 3, resend => true')->{state}, 'completed', 'the next run does the rest');
$t->account('m', %fields);

# --- faults, edits in flight, and parents that come late
$t->sql(q{TRUNCATE people, people_success, people_error});
$t->sim->sim(POST => 'reset');
$t->sql(q{INSERT INTO people SELECT n, CASE WHEN n % 97 = 0 THEN repeat('x', 60) ELSE 'Name ' || n END FROM generate_series(1, 3000) n});
$t->sim->fault({ match => { path_contains => 'CreateMultiple', rate => 0.2 }, do => 'reset_after', count => 0 });
$t->sim->fault({ match => { path_contains => 'CreateMultiple', rate => 0.1 }, do => 'deadlock', count => 0 });
# such a service is soon sent one request at a time
$run = busy_run('lanes => 3', 1);
$t->sql(q{UPDATE people SET family = 'Edited ' || id WHERE id % 10 = 0 AND id % 97 <> 0 AND processing_flag = 'U'});
$t->sim->set(row_time => 0);
is($t->finish($run)->{state}, 'completed', 'faults and edits in flight do not stop a run of lanes');
$t->sim->sim(DELETE => 'fault');
$t->account('m', %fields);
is($t->sql(q{SELECT count(*) FROM people WHERE processing_flag = 'U'}), 0, 'every edited row went again');

# --- rows of one id are never on their way together
$t->sql(q{TRUNCATE people, people_success, people_error});
$t->sim->sim(POST => 'reset');
$t->sql(q{INSERT INTO people (id, family, dataverse_id)
	SELECT n, 'Name ' || n, dvmig.record_id('6ba7b810-9dad-11d1-80b4-00c04fd430c8', n % 1500) FROM generate_series(1, 3000) n});
$t->sim->set(latency => 20);
$run = $t->run('m', 'lanes => 3');
$t->sim->set(latency => 0);
is($run->{state}, 'completed', 'two rows of each record');
is($t->sql(q{SELECT count(*) FROM people WHERE processing_flag <> 'P'}), 0, 'all are done');
is($t->sim->counters('contacts')->{created_twice}, 0, 'no record was created twice');

# --- deletes, and more lanes than workers
$t->sql(q{UPDATE people SET action_flag = 'D', processing_flag = 'U'});
$run = $t->run('m', 'lanes => 30, resend => true');
is($run->{state}, 'completed', 'a run gets as many lanes as there are workers');
is(scalar(@{ $t->sim->export('contacts') }), 0, 'and deletes every record');
is($t->sql(qq{SELECT count(*) FROM dvmig.event WHERE kind = 'lane missing' AND object = '$run->{run}'}), 1, 'the others are told of');

done_testing();

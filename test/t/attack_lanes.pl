# Lanes that come and go, rows that are mended while they are judged, records
# whose key somebody changes: every row once, with a verdict that is true
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use JSON::PP;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'attack_lanes', conf => "dvmig.settle_time = 300ms\n");
my $t = $h->t;

# --- a lane leaves and another takes its place: what it did is counted
my $table = $h->scene(rows => 4000);
$h->sim->set(row_time => 50000);
$t->sql('DELETE FROM dvmig.table_pace');
my $run = $t->start($h->migration, 'lanes => 2');
$t->sql("SELECT dvmig.tune($run, batch_rows => 10)");
$t->wait_for("SELECT count(*) = 1 FROM dvmig.run_lane WHERE run = $run AND lane = 2 AND rows_done > 0");
$t->sql("SELECT dvmig.tune($run, lanes => 1)");
$t->wait_for("SELECT count(*) = 1 FROM dvmig.run_lane WHERE run = $run AND lane = 2 AND state = 'ended'");
$t->sql("SELECT dvmig.tune($run, lanes => 2)");
$t->wait_for("SELECT count(*) = 1 FROM dvmig.run_lane WHERE run = $run AND lane = 2 AND state <> 'ended'");
$h->sim->set(row_time => 0);
my $row = $h->ends($run, 'completed');
is("$row->{rows_read} $row->{succeeded}", '4000 4000', 'what a lane did that left is counted');
is($t->sql("SELECT sum(succeeded) FROM dvmig.run_table WHERE run = $run"), 4000, 'of its table, too');
$h->exact('a lane comes and goes', '4000/0/4000/0/0');

# --- a row is mended while its error is looked at: the version that is good has
# not failed, and neither has one that comes before it meanwhile
$table = $h->scene(rows => 0);
$t->sql(qq{
	CREATE FUNCTION checked(name text) RETURNS text LANGUAGE plpgsql AS \$\$
	BEGIN
		IF name = 'bad' THEN
			IF EXISTS (SELECT FROM pg_stat_activity WHERE pid = pg_backend_pid() AND query = 'dvmig: finding the column of an error') THEN
				-- waited for by looks: a lock would be waited for briefly
				WHILE NOT pg_try_advisory_xact_lock_shared(77) LOOP PERFORM pg_sleep(0.02); END LOOP;
			END IF;
			RAISE EXCEPTION 'a bad name';
		END IF;
		RETURN name;
	END\$\$;
	SELECT dvmig.unmap('$table', 'lastname');
	SELECT dvmig.map_column('$table', 'lastname', 'checked(family)');
	INSERT INTO $table VALUES (10, 'bad', 'City', 'x')});
my $user = $h->session;
$user->do('SELECT pg_advisory_lock(77)');
$run = $t->start($h->migration);
$t->wait_for(q{SELECT count(*) > 0 FROM pg_stat_activity WHERE query = 'dvmig: finding the column of an error' AND wait_event = 'PgSleep'});
$t->sql("UPDATE $table SET family = 'Good' WHERE id = 10; INSERT INTO $table VALUES (5, 'Early', 'City', 'x')");
$user->do('SELECT pg_advisory_unlock(77)');
$user->quit;
$h->ends($run, 'completed', 'a row is mended while it is judged');
is($t->sql("SELECT count(*) FROM ${table}_error"), 0, 'no error is left');
$h->exact('mended while it is judged', '2/0/2/0/0');

# --- ids that Dataverse makes: a record's key is changed before its id was read
$h->sim->sim('POST', 'reset');
$t->sql(q{CREATE TABLE companies (id int PRIMARY KEY, name text, code text);
	INSERT INTO companies SELECT n, 'Company ' || n, 'C' || n FROM generate_series(1, 20) n});
$t->migration('p', tables => 'account');
$t->sql(q{SELECT dvmig.add_table('p', 'companies', 'account', source_key => 'id', ids => 'platform');
	SELECT dvmig.map_column('companies', 'name', 'name');
	SELECT dvmig.map_column('companies', 'new_legacyid', 'code')});
$h->sim->fault({ match => { method => 'POST', path_contains => '$batch' }, do => 'status', status => 502, count => 0 });
$run = $t->start('p');
$h->until('reading back fails', sub { $h->sim->stats->{faults} > 0 });
my ($record) = grep { ($_->{new_legacyid} // '') eq 'C7' } @{ $h->sim->export('accounts') };
$h->sim->change('accounts', $record->{accountid}, { new_legacyid => 'C7 moved' });
$h->release;
is($t->finish($run)->{state}, 'completed', 'a key is changed before its id was read: the run completes');
is($h->sim->counters('accounts')->{creates}, 20, 'no record is made twice');
is($t->counts('companies'), '20/0/19/1/0', 'the row whose record is not found by its key is listed');

done_testing();

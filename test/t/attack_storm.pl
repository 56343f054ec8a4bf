# Everything at once: lanes of two users, creates, updates, deletes, lookups in a
# circle and states, rows edited all the time, requests that break in every way,
# lanes that are ended. In the end both sides agree, field by field.
# DVMIG_SEED=n repeats a storm, DVMIG_STORMS=n makes so many.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use IPC::Run;
use JSON::PP;
use Test::More;

use DvMig::Attack;

my $seed = $ENV{DVMIG_SEED} // time();
my $n = 600;
my $a = DvMig::Attack->new(name => 'storm', rows => 1, settle => '1s');
my $t = $a->t;

sub pick { return $_[ rand @_ ]; }

$t->{quiet} = 1;
$t->sql(sprintf q{ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (ADD client_id2 '%s', ADD client_secret2 '%s')}, DvMig::Sim::CLIENT2, DvMig::Sim::SECRET2);
$t->sql(q{CREATE TABLE staging.storm (id int PRIMARY KEY, name text, phone text, st int DEFAULT 0, parent int);
	SELECT dvmig.add_table('m', 'staging.storm', 'account', source_key => 'id', target_key => 'new_legacyid', auto_map => false);
	SELECT dvmig.map_column('staging.storm', 'name', 'name'); SELECT dvmig.map_column('staging.storm', 'telephone1', 'phone');
	SELECT dvmig.map_column('staging.storm', 'statecode', 'st'); SELECT dvmig.map_lookup('staging.storm', 'parentaccountid', 'parent', 'staging.storm');
	SELECT dvmig.drop_table('staging.customers', drop_outcomes => true);
	-- edits of one row after the other, some back to what it was; leaves may go, and late ones arrive
	CREATE PROCEDURE staging.edit(times int, seed float8) LANGUAGE plpgsql AS $$
	DECLARE r int;
	BEGIN
		PERFORM setseed(seed);
		FOR i IN 1 .. times LOOP
			r := 1 + floor(random() * 600);
			CASE floor(random() * 8)
			WHEN 0 THEN UPDATE staging.storm SET name = 'Name ' || r || ' ' || floor(random() * 3), processing_flag = 'U' WHERE id = r;
			WHEN 1 THEN UPDATE staging.storm SET phone = '+' || floor(random() * 2), processing_flag = 'U' WHERE id = r;
			WHEN 2 THEN UPDATE staging.storm SET st = 1 - st, processing_flag = 'U' WHERE id = r;
			WHEN 3 THEN UPDATE staging.storm SET parent = nullif(floor(random() * 20)::int, 0), processing_flag = 'U' WHERE id = r AND id > 20;
			WHEN 4 THEN UPDATE staging.storm SET action_flag = 'D', processing_flag = 'U' WHERE id = r AND id > 500;
			WHEN 5 THEN INSERT INTO staging.storm (id, name, phone) VALUES (1000 + i, 'Late ' || i, '+0') ON CONFLICT DO NOTHING;
			WHEN 6 THEN UPDATE staging.storm SET processing_flag = 'U' WHERE id BETWEEN r AND r + 20;
			ELSE NULL;
			END CASE;
			COMMIT;
			PERFORM pg_sleep(0.005);
		END LOOP;
	END$$});

my @faults = (
	{ do => 'reset_before', count => 2 }, { do => 'reset_after', count => 2 }, { do => 'commit_later', seconds => 0.1, count => 2 },
	{ do => 'status', status => 502, count => 1 }, { do => 'status', status => 504, after => JSON::PP::true, count => 2 },
	{ do => 'throttle', retry_after => 1, count => 2 }, { do => 'deadlock', count => 2 }, { do => 'cut', count => 2 },
	{ do => 'garbage', after => JSON::PP::true, count => 1 }, { do => 'status', status => 401, count => 1 }, { do => 'drop_ids', bytes => 2, count => 2 });

for my $round (0 .. ($ENV{DVMIG_STORMS} // 2) - 1)
{
	my $name = 'storm, seed ' . ($seed + $round);

	srand $seed + $round;
	$a->sim->sim('POST', 'reset');
	$a->sim->set(latency => 3);
	$t->sql(qq{TRUNCATE staging.storm, staging.storm_success, staging.storm_error; DELETE FROM dvmig.table_pace;
		INSERT INTO staging.storm SELECT n, 'Name ' || n || ' 0', '+0', n % 2, CASE WHEN n > 20 THEN 1 + n % 19 END FROM generate_series(1, $n) n});
	my $out = '';
	my $editor = IPC::Run::start([ 'psql', '-XAtq', '-d', $t->node->connstr('postgres'), '-c', 'CALL staging.edit(900, ' . rand() . ')' ], '<', \undef, '>', \$out, '2>&1');
	my $runs = 0;
	while ($editor->pumpable && $runs++ < 40)
	{
		$a->sim->sim('DELETE', 'fault');
		$a->faults(map { { %{ pick(@faults) }, match => { method => pick('POST', 'POST', 'GET'), path_contains => '/api/' }, nth => 1 + int rand 12 } } 1 .. 3);
		my $run = $t->start('m', 'resend => true, lanes => ' . pick(1, 2, 3));
		if (rand() < 0.5)
		{
			my $many = int rand 25;

			$a->until('some requests', sub { my $k = $a->sim->stats->{requests}; my $s = 0; $s += $_ for values %$k; $s >= $many || $t->sql("SELECT ended_at IS NOT NULL FROM dvmig.run_history WHERE run = $run") eq 't' });
			$t->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'dvmig worker' ORDER BY random() LIMIT 1});
		}
		$t->sql("SELECT dvmig.wait($run)");
		$editor->pump_nb;
	}
	$editor->finish;
	is($out, '', "$name: the edits went through") or diag $out;
	$a->sim->sim('DELETE', 'fault');
	for (1 .. 4)
	{
		is($t->run('m', 'resend => true')->{state}, 'completed', "$name: a run in the calm completes");
		last if !$t->sql(q{SELECT dvmig.retry('staging.storm')});
	}
	is($t->sql(q{SELECT string_agg(DISTINCT processing_flag::text, '') FROM staging.storm}), 'P', "$name: every row is done")
	  or diag $t->sql(q{SELECT s.processing_flag, s.action_flag, e.error_class, e.code, left(e.message, 80), count(*) FROM staging.storm s LEFT JOIN staging.storm_error e USING (id) WHERE s.processing_flag <> 'P' GROUP BY 1, 2, 3, 4, 5});
	subtest "$name: account" => sub {
		$t->account('m', 'staging.storm' => { name => 's.name', telephone1 => 's.phone', statecode => 's.st',
				_parentaccountid_value => q{(SELECT p.dataverse_id FROM staging.storm p WHERE p.id = s.parent AND p.action_flag <> 'D')} });
	};
	note("$name: $runs runs");
}
$a->done;

done_testing();

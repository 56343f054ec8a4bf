# What narrows a run: until, filter, max_rows, tables; and what production asks for
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'run_limits');
$t->server('sim', environment => 'sandbox');
$t->{has_server} = 1;
$t->migration('m', tables => 'account,contact');
$t->sql(q{
	CREATE TABLE firms (id int PRIMARY KEY, name text, region text);
	INSERT INTO firms SELECT i, 'Firm ' || i, (ARRAY['DE', 'FR', 'IT'])[1 + i % 3] FROM generate_series(1, 300) i;
	CREATE TABLE people (id int PRIMARY KEY, family text, firm int);
	INSERT INTO people SELECT i, 'Person ' || i, 1 + i % 300 FROM generate_series(1, 300) i;
	SELECT dvmig.add_table('m', 'firms', 'account', source_key => 'id');
	SELECT dvmig.map_column('firms', 'name', 'name');
	SELECT dvmig.add_table('m', 'people', 'contact', source_key => 'id');
	SELECT dvmig.map_column('people', 'lastname', 'family');
	SELECT dvmig.map_lookup('people', 'parentcustomerid', 'firm', 'firms')});

# -------------------------------------------------------------------- canary

like($t->error(q{SELECT dvmig.start('m', tables => '{}')}), qr/22023: .*tables of a run cannot be an empty list/, 'a list of no tables does not mean all');
like($t->error(q{SELECT dvmig.start('m', passes => '{}')}), qr/22023: .*passes of a run cannot be an empty list/, 'nor one of no passes');
like($t->error(q{SELECT dvmig.start('m', max_rows => 0)}), qr/22023: .*max_rows cannot be 0/, 'a canary of no rows is refused');
my $run = $t->run('m', 'max_rows => 10');
is($run->{state}, 'completed', 'a canary completes');
is($t->counts('firms'), '300/290/10/0/0', 'ten rows of the first table');
cmp_ok($t->sql(q{SELECT count(*) FROM people WHERE processing_flag <> 'U'}), '<=', 10, 'and no more of the second');

# -------------------------------------------------------------------- filter

$run = $t->run('m', q{tables => '{firms}', filter => $$s.region = 'DE' AND s.id > 30$$});
is($run->{state}, 'completed', 'a segment completes');
is($t->sql("SELECT rows_total FROM dvmig.run_table WHERE run = $run->{run} AND staging LIKE '%firms' AND pass = 'write'"),
	$t->sql(q{SELECT count(*) FROM firms WHERE region = 'DE' AND id > 30}), 'and has counted no others');
is($t->sql(q{SELECT count(*) FROM firms WHERE processing_flag = 'P' AND id > 30}),
	$t->sql(q{SELECT count(*) FROM firms WHERE region = 'DE' AND id > 30}), 'all rows of the segment are loaded');
is($t->sql(q{SELECT count(*) FROM firms WHERE processing_flag <> 'U' AND region <> 'DE' AND id > 30}), '0', 'and no others');
is($t->sql("SELECT options ->> 'filtered' || (options ? 'filter')::text FROM dvmig.run_history WHERE run = $run->{run}"), 'truefalse',
	'the condition is not kept in the history');
unlike($t->sql(q{SELECT string_agg(detail::text, ' ') FROM dvmig.event}), qr/region/, 'nor in the events');
is($t->sql('SELECT count(*) FROM dvmig._run_row'), '0', 'nothing is left of a completed run');
{
	# what a filter takes of many millions of rows must not fill the server's memory
	my $peak = q{SELECT substring(pg_read_file('/proc/self/status') FROM 'VmHWM:\s+(\d+) kB')};
	my $read = q{SELECT count(*) FROM dvmig._query_as(CURRENT_USER::regrole, 'SELECT i || '' '' || i FROM generate_series(1, %d) i')};
	my ($before, $n, $after) = (split /\n/, $t->sql(sprintf "SET work_mem = '1MB'; $read; $peak; $read; $peak", 10, 1_000_000))[1 .. 3];
	is($n, 1_000_000, 'a million texts of a query');
	cmp_ok($after - $before, '<', 40_000, 'are not kept in memory');
}
like($t->error("SELECT dvmig.resume($run->{run})"), qr/55000.*the rows that the filter of run $run->{run} took are not known any more/s,
	'it has done all of them, and resuming it would do nothing');
like($t->error(q{SELECT dvmig.start('m', filter => $$s.region = 'DE'$$)}), qr/42703.*does not fit table public.people.*tables =>/s,
	'a filter that does not fit every table');
like($t->error(q{SELECT dvmig.start('m', tables => '{firms}', filter => $$true) OR (true$$)}), qr/ERROR:  42601/, 'a filter that breaks out');
like($t->error(q{SELECT dvmig.start('m', tables => '{firms}', filter => $$1/(s.id - 44) = 0$$)}), qr/22012: the filter throws for a row of (public\.)?firms: division by zero.*no run was begun.*CASE/s, 'a filter that throws');
is($t->sql(q{SELECT count(*) FROM dvmig.run_history WHERE state IN ('starting', 'running')}), '0', 'starts nothing');

# Its author's rights, not the owner's; and not without reading the table.
$t->sql(q{
	CREATE ROLE night LOGIN;
	SELECT dvmig.grant_operator('night', 'm');
	CREATE FUNCTION public.who_is_it(int) RETURNS bool LANGUAGE plpgsql AS
		$$ BEGIN INSERT INTO public.seen VALUES (current_user); RETURN $1 < 45; END $$;
	CREATE TABLE public.seen (who name);
	GRANT INSERT ON public.seen TO PUBLIC});
like($t->error(q{SET ROLE night; SELECT dvmig.start('m', tables => '{firms}', filter => $$s.id < 45$$)}), qr/42501.*permission denied for table public.firms/s,
	'an operator who may not read the rows cannot choose among them');
$t->sql(q{GRANT SELECT ON firms TO night});
$run = $t->finish($t->sql(q{SET ROLE night; SELECT dvmig.start('m', tables => '{firms}', filter => $$public.who_is_it(s.id)$$)}) =~ s/.*\n//sr);
is($run->{state}, 'completed', 'an operator who may can');
is($t->sql('SELECT string_agg(DISTINCT who, $$,$$) FROM seen'), 'night', 'the condition was evaluated with his rights alone');
is($t->sql(q{SELECT count(*) FROM firms WHERE id < 45 AND processing_flag <> 'P'}), '0', 'and his rows were loaded');

# A row that is edited in flight stays in the segment.
$t->sim->fault({ match => { path_contains => 'CreateMultiple' }, do => 'hold' });
$run = $t->start('m', q{tables => '{firms}', filter => $$s.id BETWEEN 50 AND 52$$});
ok($t->wait_for("SELECT in_flight > 0 FROM dvmig.run_history WHERE run = $run"), 'rows are in flight');
$t->sql(q{UPDATE firms SET name = 'edited', processing_flag = 'U' WHERE id = 50});
$t->sim->sim('DELETE', 'fault');
is($t->finish($run)->{state}, 'completed', 'the run ends');
is($t->sql('SELECT processing_flag FROM firms WHERE id = 50'), 'P', 'an edited row goes again in the same run');

# An owner who is no superuser: his worker sees which rows were chosen.
$t->sql(q{
	CREATE ROLE dba LOGIN; SELECT dvmig.grant_owner('dba'); GRANT USAGE ON FOREIGN SERVER sim TO dba; GRANT CREATE ON SCHEMA public TO dba});
$t->sql(sprintf q{CREATE USER MAPPING FOR dba SERVER sim OPTIONS (client_id '%s', client_secret '%s')}, DvMig::Sim::CLIENT, DvMig::Sim::SECRET);
$t->sql(q{
	SET ROLE dba;
	SELECT dvmig.create_migration('his', 'sim');
	CREATE TABLE his_firms (a text, b int, name text, PRIMARY KEY (a, b));
	INSERT INTO his_firms SELECT 'k', i, 'His ' || i FROM generate_series(1, 20) i;
	SELECT dvmig.add_table('his', 'his_firms', 'account', source_key => 'a, b');
	SELECT dvmig.map_column('his_firms', 'name', 'name')});
$run = $t->finish($t->sql(q{SET ROLE dba; SELECT dvmig.start('his', filter => 's.b > 15')}));
is("$run->{state} $run->{succeeded}", 'completed 5', 'an owner who is no superuser, and a composite key') or diag($run->{message});
is($t->sql(q{SET ROLE dba; SELECT dvmig.unmap('his_firms', 'name') IS NOT NULL; RESET ROLE;
	SELECT detail ->> 'before' FROM dvmig.event WHERE kind = 'unmap'}) =~ s/.*\n//sr, 'name', 'what a map was before it was taken out is noted');

# --------------------------------------------------------------------- until

like($t->error(q{SELECT dvmig.start('m', until => 'after lunch')}), qr/22023.*neither a time of day nor a timestamp/s, 'until: nonsense');
like($t->error(q{SELECT dvmig.start('m', until => '2001-01-01')}), qr/22023.*is over already/s, 'until: the past');
is($t->sql(q{SET TimeZone = 'Asia/Tokyo'; SELECT until_at AT TIME ZONE 'Asia/Tokyo' - date_trunc('day', until_at AT TIME ZONE 'Asia/Tokyo'),
		until_at > now(), until_at <= now() + interval '1 day'
	FROM (SELECT dvmig._until('06:00') AS until_at) q}), '06:00:00|t|t', 'a time of day is the next such one where the caller is');

# Its time comes while requests are on their way: they are recorded, the rest is left.
$t->sim->fault({ match => { path_contains => 'CreateMultiple' }, do => 'hold', count => 0 });
$run = $t->start('m', q{until => (clock_timestamp() + interval '1 hour')::text});
$t->wait_for("SELECT in_flight > 0 FROM dvmig.run_history WHERE run = $run");
# however long that took
$t->sql("UPDATE dvmig.run_history SET until_at = clock_timestamp() WHERE run = $run");
ok($t->wait_for("SELECT until_at + interval '1 second' < clock_timestamp() AND in_flight > 0 FROM dvmig.run_history WHERE run = $run"),
	'its time comes while requests are on their way');
$t->sim->sim('DELETE', 'fault');
$run = $t->finish($run);
is($run->{state}, 'stopped', 'a run stops at its time');
like($run->{message}, qr/^stopped when its time was over: until => /, 'and says why');
is($t->sql('SELECT count(*) FROM dvmig.migration_table WHERE NOT clean_end'), '0', 'cleanly: nothing is in doubt');
cmp_ok($t->sql(q{SELECT count(*) FROM people WHERE processing_flag = 'U'}), '>', 200, 'what was not sent is left');
like($t->sql("SELECT dvmig.resume($run->{run})"), qr/^\d+$/, 'it can be resumed after its time');
$run = $t->finish($t->sql('SELECT max(run) FROM dvmig.run_history'));
is($run->{state}, 'completed', 'and then has no end');
is($run->{until_at}, undef, 'of its own');
is($t->counts('firms'), '300/0/300/0/0', 'all firms are loaded');
$t->account('m', firms => { name => 's.name' }, people => { lastname => 's.family' }, -extra => { accounts => 5 });

# ------------------------------------------------------------------- confirm

is($t->sql(q{SELECT organisation_name FROM dvmig.whoami('sim')}), 'dvsim', 'whoami tells the organisation');
like($t->error(q{SELECT dvmig.start('m', confirm => 'contoso')}), qr/55000.*not the organisation that was confirmed.*"dvsim", not "contoso"/s,
	'a confirmation of another organisation is refused in a sandbox too');
$t->server('prod', environment => 'production');
like($t->error(q{SELECT dvmig.retarget('m', 'prod')}), qr/55000.*not known which organisation.*whoami\('prod'\)/s, 'an organisation that was never asked');
$t->sql(q{SELECT * FROM dvmig.whoami('prod')});
like($t->error(q{SELECT dvmig.retarget('m', 'prod')}), qr/55000.*needs to be confirmed.*SELECT dvmig.retarget\('m', 'prod', confirm => 'dvsim'\)/s, 'retarget asks');
$t->sql(q{SELECT dvmig.retarget('m', 'prod', confirm => 'dvsim')});
$t->sim->sim('POST', 'reset');
$t->sql(q{SELECT dvmig.repin('prod'); SELECT * FROM dvmig.whoami('prod')});
for my $call (q{SELECT dvmig.start('m')}, q{CALL dvmig.run('m')})
{
	like($t->error($call), qr/55000.*the first run against a production organisation needs to be confirmed.*SELECT dvmig.start\('m', confirm => 'dvsim'\)/s, "$call asks");
}
like($t->error(q{SELECT dvmig.start('m', confirm => 'sandbox')}), qr/55000.*"dvsim", not "sandbox"/s, 'another name is refused');
is($t->run('m', q{confirm => 'dvsim', max_rows => 5})->{state}, 'completed', 'confirmed, it runs');
is($t->run('m')->{state}, 'completed', 'the next run is not asked about');
is($t->sql(q{SELECT confirmed_by FROM dvmig.organisation WHERE server = 'prod'}), 'postgres', 'who confirmed is kept');

$t->sql(q{UPDATE firms SET name = name || '!', processing_flag = 'U'});
like($t->error(q{SET dvmig.max_resend = 100; SELECT dvmig.start('m', resend => true)}), qr/55000.*writing up to 300 loaded records again needs.*resend => true, confirm => 'dvsim'/s, 'a large resend asks');
is($t->run('m', q{resend => true, confirm => 'dvsim'})->{state}, 'completed', 'confirmed, it runs');
like($t->error(q{SET dvmig.max_resend = 100; SELECT * FROM dvmig.resend('firms', '{name}')}), qr/55000.*sending columns of 300 rows again needs.*dvmig.resend\('public.firms', '\{name\}', confirm => 'dvsim'\)/s, 'so do columns sent again');
is($t->sql(q{SET dvmig.max_resend = 100; SELECT equal FROM dvmig.resend('firms', '{name}', filter => 's.id <= 100')}), 100, 'fewer do not');
is($t->sql(q{SET dvmig.max_resend = 100; SELECT equal FROM dvmig.resend('firms', '{name}', confirm => 'dvsim')}), 300, 'confirmed, it does');
$t->sql(q{UPDATE people SET action_flag = 'D', processing_flag = 'U' WHERE id <= 60});
like($t->error(q{SET dvmig.max_deletes = 50; SELECT dvmig.start('m')}), qr/55000.*deleting more than 50 records needs/s, 'many deletes ask');
is($t->finish($t->sql(q{SET dvmig.max_deletes = 50; SELECT dvmig.start('m', tables => '{people}', filter => 's.id <= 50')}))->{state}, 'completed', 'fewer do not');
is($t->run('m', q{confirm => '0D5E7A00-0000-4000-8000-000000000001'})->{state} // '', 'completed', 'the id of the organisation confirms as well')
  or diag($t->sql('SELECT * FROM dvmig.organisation'));
is($t->sql(q{SELECT count(*) FROM people_success WHERE operation = 'D'}), '60', 'all are deleted');
my $undone = $t->sql(q{SELECT max(run) FROM dvmig.run_history WHERE migration = 'm' AND kind = 'run' AND server = 'prod' AND succeeded > 0});
like($t->error("SELECT dvmig.undo($undone)"), qr/55000.*undo.*needs to be confirmed.*confirm => 'dvsim'/s, 'an undo in production asks');
like($t->error(q{SELECT dvmig.retarget('m', 'sim')}), qr/55000.*pointing a migration away from a production organisation needs/s, 'leaving production asks');
my $created = $t->sql(q{SELECT min(run) FROM dvmig.run_history WHERE migration = 'm' AND kind = 'run' AND server = 'prod' AND succeeded > 0});
is($t->sql("SELECT sum(deleted) > 0 AND sum(failed) = 0 FROM dvmig.undo($created, related => 'skip', confirm => 'dvsim')"), 't', 'confirmed, it undoes');

# An organisation that does not tell its name goes by its id.
$t->sim->fault({ match => { path_contains => 'organizations' }, do => 'status', status => 403, count => 0 });
$t->server('mute', environment => 'Production');
$t->sql(q{SELECT dvmig.create_migration('n', 'mute'); CREATE TABLE one (id int PRIMARY KEY, name text); INSERT INTO one VALUES (1, 'x');
	SELECT dvmig.add_table('n', 'one', 'account', source_key => 'id'); SELECT * FROM dvmig.whoami('mute')});
my ($id) = $t->error(q{SELECT dvmig.start('n')}) =~ /confirm => '([0-9a-f-]{36})'/;
ok($id, 'the id is asked for');
is($t->run('n', "confirm => '$id'")->{state}, 'completed', 'and taken');

done_testing();

# What looks after a run: alerts, samples, events, and starts by a scheduler
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use DvMig;

my $t = DvMig->new(name => 'watch');
$t->migration('m', tables => 'account');
$t->sql(q{
	CREATE TABLE firms (id int PRIMARY KEY, name text, secret text);
	INSERT INTO firms SELECT i, 'Firm ' || i, 'sesame ' || i FROM generate_series(1, 200) i;
	SELECT dvmig.add_table('m', 'firms', 'account', source_key => 'id', target_key => 'accountnumber');
	SELECT dvmig.map_column('firms', 'name', 'name');
	SELECT dvmig.map_column('firms', 'description', 'secret')});
$t->{quiet} = 1;

sub alerts
{
	my ($run) = @_;
	return $t->sql("SELECT coalesce(string_agg(detail ->> 'alert', ',' ORDER BY event_id), '') FROM dvmig.event WHERE kind = 'alert' AND object = '$run'");
}

# A run in the eyes of who listens: its row of run_history, and the alerts that were
# notified. What has to be done at a certain point of it is SQL that is run then.
sub run_and_listen
{
	my ($args) = @_;
	my ($out, $err);
	$t->node->psql('postgres', sprintf(q{LISTEN dvmig; SELECT dvmig.start('m'%s) AS run \\gset
		SELECT dvmig.wait(:run);
		SELECT pg_notify('dvmig', '{"event": "all were told before this one"}');
		SELECT 'run ' || :run}, $args ? ", $args" : ''), stdout => \$out, stderr => \$err, timeout => $PostgreSQL::Test::Utils::timeout_default);
	my ($run) = $out =~ /^run (\d+)$/m or die "$out $err";
	return ($t->rows("SELECT * FROM dvmig.run_history WHERE run = $run")->[0],
		grep { $_->{event} eq 'alert' } map { JSON::PP->new->decode($_) } $out =~ /Asynchronous notification "dvmig" with payload "(.*)" received/g);
}

# Each of the four settings tells what it has to tell in three places: the event,
# the notification, and the server log.
sub is_told
{
	my ($alert, $run, @heard) = @_;
	my $events = $t->rows("SELECT migration, detail FROM dvmig.event WHERE kind = 'alert' AND object = '$run->{run}' AND detail ->> 'alert' = '$alert'");
	is(scalar(@$events), 1, "$alert: one event");
	my ($payload) = grep { $_->{alert} eq $alert } @heard;
	is_deeply([ sort keys %{ $payload // {} } ], [qw(alert allowed at event measured migration run unit)], "$alert: one notification, JSON with figures only") or diag(explain(\@heard));
	is("$payload->{run} $payload->{migration}", "$run->{run} m", "$alert: of this run");
	my $words = $alert =~ tr/_/ /r;
	my @warned = PostgreSQL::Test::Utils::slurp_file($t->node->logfile) =~ /WARNING: +dvmig alert: \Q$words\E of run $run->{run} is \S+ [a-z ]+ \(allowed: \S+\)/g;
	is(scalar(@warned), 1, "$alert: one WARNING in the server log");
	return;
}

# ---------------------------------------------------------------- bad input

like($t->error(q{SELECT dvmig.set_migration('m', 'alert_error_share', '101')}), qr/22023.*alert_error_share must be a number from 0 to 100/s, 'a share over 100');
like($t->error(q{SELECT dvmig.set_migration('m', 'alert_stall', '-1')}), qr/22023/, 'a negative time');
like($t->error(q{SELECT dvmig.set_migration('m', 'alert_color', 'red')}), qr/42704.*alert_stall/s, 'an unknown alert: the hint lists those there are');

# -------------------------------------------------------------- error share

# More than a tenth fails: text that is too long for the column.
$t->sql(q{UPDATE firms SET name = repeat('x', 300) WHERE id <= 40});
my ($run, @heard) = run_and_listen();
is("$run->{state} $run->{failed}", 'completed 40', 'a fifth of the rows fails');
is(alerts($run->{run}), 'error_share', 'which is an alert, once');
is_told('error_share', $run, @heard);
my $log = PostgreSQL::Test::Utils::slurp_file($t->node->logfile);
my @lines = $log =~ /WARNING:.*dvmig alert: .*/g;
is(scalar(@lines), 1, 'it is in the server log') or diag(@lines);
like($lines[0], qr/error share of run $run->{run} is 20\.0 per cent \(allowed: 10\)/, 'with its figures');
is($t->sql(q{SELECT detail - '{measured,allowed}'::text[] FROM dvmig.event WHERE kind = 'alert'}),
	qq({"run": $run->{run}, "unit": "per cent", "alert": "error_share"}), 'the event has no more than figures');
is($t->sql("SELECT alerts FROM dvmig.run_history WHERE run = $run->{run}"), '{}', 'its episode ends with the run');
cmp_ok($t->sql("SELECT count(*) FROM dvmig.run_sample WHERE run = $run->{run} AND succeeded + failed = 200"), '>=', 1, 'the end is sampled');

$t->sql(q{SELECT dvmig.set_migration('m', 'alert_error_share', '30'); SELECT dvmig.retry('firms')});
$run = $t->run('m');
is(alerts($run->{run}), 'error_share', 'all of 40 is more than 30 per cent');
$t->sql(q{SELECT dvmig.set_migration('m', 'alert_error_share', '100'); SELECT dvmig.retry('firms')});
$run = $t->run('m');
is(alerts($run->{run}), '', '100 per cent: never');
$t->sql(q{SELECT dvmig.set_migration('m', 'alert_error_share', NULL); UPDATE firms SET name = 'short' WHERE id <= 40; SELECT dvmig.retry('firms')});
is($t->run('m')->{failed}, 0, 'corrected, all are loaded');

# -------------------------------------------------- stall, and notifications

$t->sql(q{SELECT dvmig.set_migration('m', 'alert_stall', '2'); UPDATE firms SET name = name || '!', processing_flag = 'U'});
$t->sim->fault({ match => { path_contains => 'UpdateMultiple' }, do => 'slow', seconds => 5 });
($run, @heard) = run_and_listen();
is($run->{state}, 'completed', 'an answer that takes 5 seconds');
is_told('stall', $run, @heard);
$t->sql(q{UPDATE firms SET name = name || '!', processing_flag = 'U'});
$t->sim->fault({ match => { path_contains => 'UpdateMultiple' }, do => 'hold', count => 0 });
$run = $t->start('m');
ok($t->wait_for("SELECT 'stall' = ANY (alerts) FROM dvmig.run_history WHERE run = $run"), 'no verdict for 2 seconds is an alert');
is($t->sql(qq{LISTEN dvmig; SELECT dvmig.start_if_idle('m')}) =~ s/\s//gr, '', 'start_if_idle starts nothing while a run is at work');
my ($out, $err);
is($t->node->psql('postgres', q{SELECT dvmig.start_if_idle('m')}, stdout => \$out, stderr => \$err), 0, 'which is no error');
like($err, qr/NOTICE:  run $run of migration m is at work, nothing is started/, 'and says so');
is(alerts($run), 'stall', 'while it lasts, it alerts once');
$t->sim->sim('DELETE', 'fault');
is($t->finish($run)->{state}, 'completed', 'the run ends');
like($t->sql(q{SELECT dvmig.start_if_idle('m')}), qr/^\d+$/, 'start_if_idle starts where nothing is at work');
$t->sql('SELECT dvmig.wait(max(run)) FROM dvmig.run_history');

# A run that is paused does not stall, nor has it when it goes on.
is($t->sql(qq{
	UPDATE dvmig.run_history SET progress_at = now() - interval '1 hour', paused = true WHERE run = $run;
	SELECT dvmig._watch_run($run, 0, false);
	UPDATE dvmig.run_history SET paused = false WHERE run = $run RETURNING progress_at > now() - interval '30 minutes'}) =~ s/\s//gr, 't', 'a pause is no stall');

# A pass whose rows have succeeded before is progress as well.
is($t->sql(qq{
	UPDATE dvmig.run_history SET progress_at = now() - interval '1 hour' WHERE run = $run;
	SELECT dvmig._watch_run($run, 0, false);
	SELECT progress_at < now() - interval '30 minutes' FROM dvmig.run_history WHERE run = $run;
	INSERT INTO dvmig.run_table (run, staging, pass, step, wave, rows_read, succeeded) VALUES ($run, 'public.firms', 'deferred', 9, 1, 5, 5);
	SELECT dvmig._watch_run($run, 0, false);
	SELECT progress_at > now() - interval '1 minute' FROM dvmig.run_history WHERE run = $run}) =~ s/\s//gr, 'tt', 'any pass counts as progress');

# ---------------------------------------------------------------- throttling

$t->sql(q{SELECT dvmig.set_migration('m', 'alert_throttled_share', '20'); UPDATE firms SET name = name || '?', processing_flag = 'U'});
$t->sim->fault({ match => { path_contains => 'UpdateMultiple' }, do => 'throttle', retry_after => 7, count => 1 });
($run, @heard) = run_and_listen();
is($run->{state}, 'completed', 'a throttled run completes');
is_told('throttled_share', $run, @heard);
cmp_ok(abs($run->{throttled_ms} - 7000), '<', 3000, 'for how long it was held is measured');

# Several refusals of one hold are one hold, and with two application users, of whom
# one is held, the run is held by half.
$t->sql(sprintf q{SELECT dvmig.set_migration('m', 'alert_throttled_share', '70'), dvmig.set_migration('m', 'alert_stall', '300'); UPDATE dvmig.table_pace SET bulk_rows = 5, bulk_max = 5;
	UPDATE firms SET name = name || '?', processing_flag = 'U';
	ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (ADD client_id2 '%s', ADD client_secret2 '%s')}, DvMig::Sim::CLIENT2, DvMig::Sim::SECRET2);
$t->sim->fault({ match => { path_contains => 'UpdateMultiple', user => DvMig::Sim::USER }, do => 'throttle', retry_after => 6, count => 1 });
$t->sim->fault({ match => { path_contains => 'UpdateMultiple', user => DvMig::Sim::USER }, do => 'throttle', retry_after => 6, count => 1 });
$run = $t->run('m', 'lanes => 2');
is($run->{state}, 'completed', 'two application users, one of them throttled');
cmp_ok($run->{throttled}, '>=', 1, 'it was');
cmp_ok($run->{throttled_ms}, '>', 2000, 'the run was held');
# the second refusal came in the first hold, or after it: then there were two of six seconds
my $holds = $t->sql("SELECT ended_at - started_at < interval '12 seconds' FROM dvmig.run_history WHERE run = $run->{run}") eq 't' ? 1 : 2;
cmp_ok($run->{throttled_ms}, '<', 4500 * $holds, 'but by half of what one of them was') or diag($run->{throttled_ms});
is(alerts($run->{run}), '', 'which is less than 70 per cent');

# ----------------------------------------------------- authentication failures

# Refused requests are counted in every lane: here each of them is refused some.
$t->sql(q{UPDATE firms SET name = name || '.', processing_flag = 'U'; SELECT dvmig.set_migration('m', 'alert_auth_failures', '2')});
$t->sim->fault({ match => { path_contains => 'UpdateMultiple', user => $_ }, do => 'status', status => 401, code => '0x80072560', message => 'not now' })
  for DvMig::Sim::USER, DvMig::Sim::USER2;
# long enough that both lanes are at work before one of them has done all
$t->sim->set(row_time => 200000);
$t->sql('UPDATE dvmig.table_pace SET bulk_rows = 5, bulk_max = 5');
$run = $t->run('m', 'lanes => 2');
$t->sim->set(row_time => 0);
is($run->{state}, 'completed', 'requests that are refused as not authenticated go again with a new token');
is($run->{auth_failures}, 2, 'the refusals of both lanes are counted');
is(alerts($run->{run}), 'auth_failures', 'and are an alert');
$t->sql(q{SELECT dvmig.set_migration('m', 'alert_auth_failures', NULL);
	UPDATE firms SET name = name || '.', processing_flag = 'U';
	ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (SET client_secret 'wrong', DROP client_id2, DROP client_secret2)});
($run, @heard) = run_and_listen();
is($run->{state}, 'failed', 'a wrong secret fails the run');
is(alerts($run->{run}), 'auth_failures', 'and is an alert');
is_told('auth_failures', $run, @heard);
like($t->sql("SELECT concat_ws(' ', detail -> 'measured', detail -> 'allowed') FROM dvmig.event WHERE kind = 'alert' AND object = '$run->{run}'"), qr/^[1-9]\d* 0$/, 'which says that not even one is allowed then');
my $secret = DvMig::Sim::SECRET;
$t->sql(qq{ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (SET client_secret '$secret')});
is($t->run('m')->{state}, 'completed', 'with the right one it goes on');

# ---------------------------------------------------------- what is told where

$log = PostgreSQL::Test::Utils::slurp_file($t->node->logfile);
unlike(join("\n", grep { !/statement:|STATEMENT:/ } split /\n/, $log), qr/sesame|xxxxx/, 'no row content in the server log');
unlike($t->sql('SELECT string_agg(detail::text, $$ $$) FROM dvmig.event'), qr/sesame|xxxxx/, 'nor in the events');

# ----------------------------------------------------------------- the events

is($t->sql(q{SELECT string_agg(DISTINCT kind, ',' ORDER BY kind) FROM dvmig.event}),
	'add_table,alert,create_migration,map_column,retry,run ended,set_migration,start', 'each step is noted');
is($t->sql(q{SELECT detail FROM dvmig.event WHERE kind = 'set_migration' ORDER BY event_id LIMIT 1}), '{"after": "30", "before": "10", "setting": "alert_error_share"}',
	'with what was before and after');
$t->sql(q{CREATE ROLE boss LOGIN; CREATE ROLE night LOGIN; SELECT dvmig.grant_owner('boss'); SELECT dvmig.grant_operator('night', 'm')});
for my $role (qw(boss night))
{
	for my $statement (q{UPDATE dvmig.event SET role = 'x'}, q{DELETE FROM dvmig.event}, q{INSERT INTO dvmig.event (role, kind) VALUES ('x', 'y')},
		q{TRUNCATE dvmig.event}, q{UPDATE dvmig.run_history SET message = 'x'}, q{DELETE FROM dvmig.run_sample}, q{SELECT dvmig._log(0, 'm', 'x', 'y')})
	{
		like($t->error("SET ROLE $role; $statement"), qr/42501/, "$role may not: $statement");
	}
}
is($t->sql(q{SET ROLE night; SELECT count(*) > 5 FROM dvmig.event}), 't', 'an operator reads those of his migration');
is($t->sql(q{SET ROLE boss; SELECT count(*) FROM dvmig.event WHERE migration = 'm'}), '0', 'another owner does not');
$t->sql(q{SET ROLE night; SELECT dvmig.set_migration('m', 'alert_stall', '60')});
is($t->sql(q{SELECT role FROM dvmig.event ORDER BY event_id DESC LIMIT 1}), 'night', 'who did it is noted, not as whom it ran');
is($t->sql(q{SELECT count(*) FROM dvmig.run_history h WHERE h.state = 'completed' AND (h.cpu_ms = 0 OR h.memory_kb = 0
		OR h.cpu_ms < (SELECT sum(t.cpu_ms) FROM dvmig.run_table t WHERE t.run = h.run)
		OR EXISTS (SELECT FROM dvmig.run_table t WHERE t.run = h.run AND t.state = 'done' AND t.memory_kb = 0))}), 0, 'each run and table has its figures of the worker');
$t->account('m', firms => { name => 's.name' });

done_testing();

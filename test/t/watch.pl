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


# ---------------------------------------------------------------- bad input

like($t->error(q{SELECT dvmig.set_migration('m', 'alert_error_share', '101')}), qr/22023.*alert_error_share must be a number from 0 to 100/s, 'a share over 100');
like($t->error(q{SELECT dvmig.set_migration('m', 'alert_stall', '-1')}), qr/22023/, 'a negative time');
like($t->error(q{SELECT dvmig.set_migration('m', 'alert_color', 'red')}), qr/42704.*alert_stall/s, 'an unknown alert: the hint lists those there are');

# -------------------------------------------------------------- error share

# More than a tenth fails: text that is too long for the column.
$t->sql(q{UPDATE firms SET name = repeat('x', 300) WHERE id <= 40});
my $run = $t->run('m');
is("$run->{state} $run->{failed}", 'completed 40', 'a fifth of the rows fails');
is(alerts($run->{run}), 'error_share', 'which is an alert, once');
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
$t->sim->fault({ match => { path_contains => 'UpdateMultiple' }, do => 'hold', count => 0 });
$run = $t->start('m');
ok($t->wait_for("SELECT 'stall' = ANY (alerts) FROM dvmig.run_history WHERE run = $run"), 'no verdict for 2 seconds is an alert');
is($t->sql(qq{LISTEN dvmig; SELECT dvmig.start_if_idle('m')}) =~ s/\s//gr, '', 'start_if_idle starts nothing while a run is at work');
my ($out, $err);
is($t->node->psql('postgres', q{SELECT dvmig.start_if_idle('m')}, stdout => \$out, stderr => \$err), 0, 'which is no error');
like($err, qr/NOTICE:  run $run of migration m is at work, nothing is started/, 'and says so');
$t->node->psql('postgres', qq{LISTEN dvmig; SELECT 1; SELECT dvmig._raise_alert(h, 'stall', 3, 2, 'seconds') FROM dvmig.run_history h WHERE run = $run; SELECT 1},
	stdout => \$out, stderr => \$err);
my ($payload) = $out =~ /Asynchronous notification "dvmig" with payload "(.*)" received/;
is_deeply([ sort keys %{ JSON::PP->new->decode($payload // '{}') } ], [qw(alert allowed at event measured migration run unit)], 'a notification is JSON, with figures only')
  or diag($out);
is(alerts($run), 'stall,stall', 'while it lasts, the worker alerts once');
$t->sim->sim('DELETE', 'fault');
is($t->finish($run)->{state}, 'completed', 'the run ends');
like($t->sql(q{SELECT dvmig.start_if_idle('m')}), qr/^\d+$/, 'start_if_idle starts where nothing is at work');
$t->sql('SELECT dvmig.wait(max(run)) FROM dvmig.run_history');

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
$run = $t->run('m');
is($run->{state}, 'completed', 'a throttled run completes');
like(alerts($run->{run}), qr/throttled_share/, 'that it was held most of the time is an alert') or diag("throttled_ms $run->{throttled_ms}");

# ----------------------------------------------------- authentication failures

$t->sql(q{UPDATE firms SET name = name || '.', processing_flag = 'U'; ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (SET client_secret 'wrong')});
$run = $t->run('m');
is($run->{state}, 'failed', 'a wrong secret fails the run');
is(alerts($run->{run}), 'auth_failures', 'and is an alert');
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
$t->account('m', firms => { name => 's.name' });

done_testing();

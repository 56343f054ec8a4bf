# The recipes of doc/operations.md for pg_cron, run by the real pg_cron
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use DvMig;

my $share = `$ENV{PG_CONFIG} --sharedir`;
chomp $share;
plan skip_all => 'pg_cron is not installed here' unless -e "$share/extension/pg_cron.control";

my $t = DvMig->new(name => 'schedule', conf => <<'EOC');
shared_preload_libraries = 'pg_cron'
cron.database_name = 'postgres'
cron.use_background_workers = on
cron.log_run = on
EOC
$t->sql('CREATE EXTENSION pg_cron');
$t->sql('CREATE SCHEMA staging; CREATE SCHEMA source');

# pg_cron looks once a minute. So that one tick is enough, each recipe has a
# migration of its own, in the state that it is for.
for my $m ([ nightly => 'account', 'name' ], [ weekend => 'contact', 'lastname' ], [ retry => 'account', 'name' ], [ resume => 'account', 'name' ])
{
	my ($name, $target, $column) = @$m;

	$t->migration($name, tables => $target);
	$t->sql(qq{
		CREATE TABLE source.$name (company_id int, name text);
		INSERT INTO source.$name SELECT i, 'Company ' || i FROM generate_series(1, 50) i;
		CREATE TABLE staging.$name (company_id int PRIMARY KEY, name text);
		SELECT dvmig.add_table('$name', 'staging.$name', '$target', source_key => 'company_id');
		SELECT dvmig.map_column('staging.$name', '$column', 'name');
		SELECT dvmig.load_delta('staging.$name', 'source.$name')});
}

# nightly: all loaded, the source has changed since
$t->run('nightly');
$t->sql(q{UPDATE source.nightly SET name = 'Renamed' WHERE company_id = 7; INSERT INTO source.nightly VALUES (51, 'New'); DELETE FROM source.nightly WHERE company_id = 3});
# retry: rows that a plug-in refused
$t->sim->fault({ match => { method => 'POST', body_contains => '"name":"Company 1', part => JSON::PP::true, count => 0 }, do => 'status', status => 400,
	code => '0x80040265', message => 'the plug-in says no' });
$t->sim->fault({ match => { path_contains => 'CreateMultiple' }, do => 'status', status => 400, code => '0x80040265', message => 'the plug-in says no' });
$t->run('retry');
$t->sim->sim('DELETE', 'fault');
cmp_ok($t->sql(q{SELECT count(*) FROM staging.retry WHERE processing_flag = 'E'}), '>', 0, 'rows have failed');
# resume: the worker was killed
$t->sim->fault({ match => { path_contains => 'CreateMultiple' }, do => 'hold', count => 0 });
my $killed = $t->start('resume');
ok($t->wait_for("SELECT in_flight > 0 FROM dvmig.run_history WHERE run = $killed"), 'rows are in flight');
$t->sql("SELECT pg_terminate_backend(pid) FROM dvmig.run_history WHERE run = $killed");
ok($t->wait_for("SELECT NOT dvmig._run_alive($killed)"), 'the worker is gone');
$t->sim->sim('DELETE', 'fault');
# weekend: a run is alive
$t->sim->fault({ match => { path_contains => 'contacts' }, do => 'hold', count => 0 });
my $alive = $t->start('weekend');
ok($t->wait_for("SELECT in_flight > 0 FROM dvmig.run_history WHERE run = $alive"), 'a run is alive');


# The recipes as the document has them, every minute instead of at their hours.
my $document = PostgreSQL::Test::Utils::slurp_file("$FindBin::RealBin/../../doc/operations.md");
my ($block) = $document =~ /^<!-- recipes for pg_cron -->\n```text\n(.*?)^```/ms;
my %command;
$command{$1} = $2 while ($block // '') =~ /cron\.schedule\('dvmig ([a-z ]+)', '[^']*',\s*\$\$(.*?)\$\$\)/gs;
is(join(',', sort keys %command), 'nightly,resume,retry,weekend', 'the document has its recipes');
# In one statement, so that no minute ends between two of them; and no load ends while the test looks, whatever
# the time of day.
my $hour = sprintf '%02d:00', (localtime(time + 12 * 3600))[2];
my @jobs = map {
	my $name = $_;
	my $sql = $command{$name} =~ s/'go_live'/'$name'/gr =~ s/\b(staging|source)\.companies/$1.$name/gr =~ s/until => '\d\d:\d\d'/until => '$hour'/r;
	"cron.schedule('$name', '* * * * *', \$job\$$sql\$job\$)"
} sort keys %command;
$t->sql('SELECT ' . join ', ', @jobs);
ok($t->wait_for(q{SELECT count(DISTINCT jobid) = 4 FROM cron.job_run_details WHERE status IN ('succeeded', 'failed')}), 'pg_cron runs them');
$t->sql('SELECT cron.unschedule(jobid) FROM cron.job');
is($t->sql(q{SELECT coalesce(string_agg(DISTINCT command || ': ' || return_message, ', '), '') FROM cron.job_run_details WHERE status = 'failed'}), '', 'none fails');

ok($t->wait_for(q{SELECT count(*) = 51 FROM staging.nightly WHERE processing_flag = 'P'}), 'nightly: what is new and what has changed is loaded');
is($t->sql(q{SELECT processing_flag || action_flag FROM staging.nightly WHERE company_id = 3}), 'PI', 'nightly: what is missing is not deleted unasked');
# figures are whole when the run has ended
$t->sql(q{SELECT dvmig.wait(max(run)) FROM dvmig.run_history WHERE migration = 'nightly'});
is($t->sql(q{SELECT rows_sent FROM dvmig.run_history WHERE migration = 'nightly' ORDER BY run DESC LIMIT 1}), '2', 'nightly: what is equal is not sent');
is($t->sql(q{SELECT until_at > now() FROM dvmig.run_history WHERE migration = 'nightly' ORDER BY run DESC LIMIT 1}), 't', 'nightly: the run has an end');
$t->account('nightly', 'staging.nightly' => { name => 's.name' }, -extra => { accounts => scalar(@{ $t->sim->export('accounts') }) - 51 });
is($t->sql(q{SELECT count(*) FROM dvmig.run_history WHERE migration = 'weekend'}), '1', 'weekend: a tick that finds a run alive starts nothing');
like(PostgreSQL::Test::Utils::slurp_file($t->node->logfile), qr/run $alive of migration weekend is at work, nothing is started/, 'weekend: and says so');
is($t->sql(q{SELECT count(*) FROM staging.retry WHERE processing_flag = 'E'}), '0', 'retry: failed rows are unprocessed again');
is($t->sql("SELECT state FROM dvmig.run_history WHERE run = $killed"), 'interrupted', 'resume: the killed run is interrupted');
ok($t->wait_for(q{SELECT state = 'completed' FROM dvmig.run_history WHERE migration = 'resume' ORDER BY run DESC LIMIT 1}), 'resume: another one has gone on');
$t->sim->sim('DELETE', 'fault');
is($t->finish($alive)->{state}, 'completed', 'weekend: the run that was alive completes');
is($t->sql(q{SELECT string_agg(DISTINCT invariant_holds::text, ',') FROM dvmig.status}), 'true', 'every row has its verdict');

done_testing();

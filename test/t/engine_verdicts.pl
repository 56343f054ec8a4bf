# What ends a run and what does not: limits of failed rows, who we are and what
# we may do, throttling, and a service that is down for a while
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use File::Temp ();
use Test::More;

use JSON::PP;

use DvMig::Attack;

my $logs = File::Temp->newdir;
my $a = DvMig::Attack->new(name => 'verdicts', rows => 300, tables => [ 'customers', 'tasks' ], args => [ '--log', "$logs/sim" ]);
my $t = $a->t;
my %write = (match => { method => 'POST', path_contains => 'CreateMultiple' });
my $run;

$t->{quiet} = 1;

# spoil(every): so many per cent of the companies have a name that is too long.
sub spoil
{
	my ($a, $every) = @_;

	$a->fresh;
	$a->sql("UPDATE staging.customers SET name = repeat('x', 500) WHERE id % $every = 0");
	return;
}

# left(table): rows without a verdict.
sub left { return $_[0]->t->status("staging.$_[1]")->{unprocessed}; }

# ------------------------------------------------------------ limits of failed rows

for my $refused ([ 'max_errors => -1', 'max_errors must be at least 0' ], [ 'max_error_rate => 101', 'max_error_rate must be from 0 to 100' ],
	[ q{max_error_rate => 'NaN'}, 'max_error_rate must be from 0 to 100' ])
{
	like($t->error("SELECT dvmig.start('m', $refused->[0])"), qr/22023.*$refused->[1].*HINT/s, "$refused->[0] is refused");
}
is($t->sql('SELECT count(*) FROM dvmig.run_history'), 0, 'and no run is begun');

# Stops of the run by its own limits, or by the table's.
my @limits = (
	[ 'max_errors => 0, the run', 'max_errors => 0', '', 10, qr/max_errors is 0/ ],
	[ 'max_errors => 20, the run', 'max_errors => 20', '', 10, qr/\b(?:2[1-9]|[3-9]\d|1\d\d) of \d+ rows of the run failed, and max_errors is 20/ ],
	[ 'max_error_rate => 5, the run', 'max_error_rate => 5', '', 10, qr/max_error_rate is 5 per cent/ ],
	[ 'max_error_rate => 0, the run', 'max_error_rate => 0', '', 100, qr/max_error_rate is 0 per cent/ ],
	[ 'max_errors 20, the table', '', q{SELECT dvmig.set_table('staging.customers', 'max_errors', '20')}, 10, qr/rows of staging\.customers failed, and max_errors is 20/ ],
	[ 'max_error_rate 5, the table', '', q{SELECT dvmig.set_table('staging.customers', 'max_error_rate', '5')}, 10, qr/rows of staging\.customers failed, and max_error_rate is 5 per cent/ ],
);
$a->{rows} = 2000;
for my $limit (@limits)
{
	my ($name, $arguments, $setting, $every, $says) = @$limit;

	spoil($a, $every);
	$a->sql($setting) if $setting;
	$run = $a->run($arguments);
	is($run->{state}, 'failed', "$name: the run ends") or diag explain $run;
	like($run->{message}, qr/^too many errors: .*$says.*top_errors/, "$name: and says why and what is next");
	my $failed = $t->status('staging.customers')->{failed};
	cmp_ok($failed, '>', 0, "$name: what failed is recorded");
	cmp_ok($failed, '<', 2000 / $every, "$name: but not every row that would have failed");
	cmp_ok(left($a, 'customers'), '>', 500, "$name: rows are left as they were");
	is($t->status('staging.customers')->{in_doubt}, 0, "$name: none of them in doubt");
	is(left($a, 'tasks'), 2000, "$name: the next table is not begun");
	subtest "$name: account" => sub { $t->account('m', 'staging.customers' => $DvMig::Attack::FIELDS{customers}, 'staging.tasks' => $DvMig::Attack::FIELDS{tasks}) };
	$a->sql(q{SELECT dvmig.set_table('staging.customers', 'max_errors', NULL), dvmig.set_table('staging.customers', 'max_error_rate', NULL)});
}

# Rows that fail before anything is sent count like the others.
spoil($a, 2);
$a->sql('UPDATE staging.customers SET name = NULL, phone = repeat(phone, 100) WHERE id % 2 = 0');
$run = $a->run('max_errors => 7');
is($run->{state}, 'failed', 'rows that are not fit to be sent: the run ends');
cmp_ok($t->status('staging.customers')->{failed}, '<', 400, 'before it fills the error table');

# What a limit bears is no reason to stop; corrected rows go with the next run.
$a->{rows} = 300;
spoil($a, 30);
is($a->run('max_errors => 10, max_error_rate => 4')->{state}, 'completed', 'ten errors and 10 are no more than allowed');
is($t->counts('staging.customers'), '300/0/290/10/0', 'all rows have a verdict');
$a->sql(q{UPDATE staging.customers SET name = 'short' WHERE length(name) > 100; SELECT dvmig.retry('staging.customers')});
is($a->run('max_errors => 0')->{state}, 'completed', 'corrected rows');
$a->exact('corrected rows', customers => '300/0/300/0/0', tasks => '300/0/300/0/0');

# Of few rows the share counts once all have their verdict: the next table is not begun.
$a->{rows} = 20;
spoil($a, 4);
$run = $a->run('max_error_rate => 10');
is($run->{state}, 'failed', 'a small table above the share: the run ends');
is(left($a, 'tasks'), 20, 'the next table is not begun');
is($t->counts('staging.customers'), '20/0/15/5/0', 'after the table');

# A column map that does not fit: no row will be taken, and not every one is tried.
$a->{rows} = 1000;
$a->fresh;
$a->faults({ %write, do => 'status', status => 400, code => '0x80048d19', message => q{An undeclared property 'nosuch' which only has property annotations}, count => 0 },
	{ match => { method => 'POST', path_contains => '/accounts', part => JSON::PP::true }, do => 'status', status => 400, code => '0x80048d19',
		message => q{An undeclared property 'nosuch' which only has property annotations}, count => 0 });
$run = $a->run;
is($run->{state}, 'failed', 'a map that does not fit ends the run');
like($run->{message}, qr/column map of staging\.customers does not fit Dataverse.*dvmig\.check/, 'and it says what to do');
cmp_ok($t->status('staging.customers')->{failed}, '<', 700, 'before all rows have failed');
is($a->sql('SELECT DISTINCT error_class, error_column FROM staging.customers_error'), 'mapping|nosuch', 'for the column that is unknown');

# ---------------------------------------------------- who we are, what we may do

$a->{rows} = 300;
my @refused = (
	[ 'application user missing', 403, '0x80072560', qr/no application user/ ],
	[ 'application user disabled', 403, '0x80040225', qr/application user is disabled/ ],
	[ 'privilege missing', 403, '0x80040220', qr/lacks a privilege/ ],
	[ 'token refused again and again', 401, '', qr/refused the access token/ ],
);
for my $case (@refused)
{
	my ($name, $status, $code, $says) = @$case;

	$a->fresh;
	$a->faults({ %write, do => 'status', status => $status, code => $code, message => 'prvCreateAccount', count => 0 });
	$run = $a->run;
	is($run->{state}, 'failed', "$name: the run ends");
	like($run->{message}, $says, "$name: told apart");
	is($t->status('staging.customers')->{failed}, 0, "$name: no row failed");
	is($t->status('staging.customers')->{in_doubt}, 0, "$name: none is in doubt");
	is($a->run->{state}, 'completed', "$name: the next run goes on");
	$a->exact($name, customers => '300/0/300/0/0', tasks => '300/0/300/0/0');
}

# Tokens that are withdrawn in mid-run are renewed, with the secret that is in
# the file then.
my $dir = File::Temp->newdir;
my $write_secret = sub {
	open(my $out, '>', "$dir/secret.new") or die $!;
	print $out $_[0], "\n";
	close $out;
	chmod 0600, "$dir/secret.new";
	rename "$dir/secret.new", "$dir/secret";
};
$write_secret->(DvMig::Sim::SECRET);
$a->sql("ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (DROP client_secret, ADD client_secret_file '$dir/secret')");
$a->fresh;
$a->faults({ %write, do => 'hold', count => 0 });
$run = $t->start('m');
$a->until('a request hangs', sub { $a->sim->held > 0 });
$a->sim->sim('DELETE', 'tokens');
$a->clear;
is($t->finish($run)->{state}, 'completed', 'withdrawn tokens are renewed');
$a->exact('withdrawn tokens', customers => '300/0/300/0/0', tasks => '300/0/300/0/0');

$a->fresh;
$a->faults({ %write, do => 'hold', count => 0 });
$run = $t->start('m');
$a->until('a request hangs', sub { $a->sim->held > 0 });
$write_secret->('of yesterday');
$a->sim->sim('DELETE', 'tokens');
$a->clear;
$run = $t->finish($run);
is($run->{state}, 'failed', 'a secret that is refused in mid-run ends it');
like($run->{message}, qr/client secret was refused/, 'and it says so');
unlike($run->{message}, qr/of yesterday/, 'without the secret');
is($t->status('staging.customers')->{failed}, 0, 'no row failed');
$write_secret->(DvMig::Sim::SECRET);
is($a->run->{state}, 'completed', 'with the rotated secret the next run goes on');
$a->exact('rotated secret', customers => '300/0/300/0/0', tasks => '300/0/300/0/0');

# The same with a secret in the user mapping: the next login takes the one that
# is there then. The mapping taken away, the run ends with its rows untouched.
my $mapping = 'USER MAPPING FOR CURRENT_USER SERVER sim';
for my $case ([ 'rotated', sprintf(q{ALTER %s OPTIONS (SET client_secret '%s')}, $mapping, DvMig::Sim::NEW_SECRET) ],
	[ 'another application', sprintf(q{ALTER %s OPTIONS (SET client_id '%s', SET client_secret 'x')}, $mapping, DvMig::Sim::CLIENT2) ],
	[ 'refused', "ALTER $mapping OPTIONS (SET client_secret 'of yesterday')", qr/client secret was refused/ ],
	[ 'dropped', "DROP $mapping", qr/no user mapping of "\w+" for server "sim"/ ])
{
	my ($name, $change, $says) = @$case;

	$a->sql("DROP USER MAPPING IF EXISTS FOR CURRENT_USER SERVER sim");
	$a->sql(sprintf q{CREATE %s OPTIONS (client_id '%s', client_secret '%s')}, $mapping, DvMig::Sim::CLIENT, DvMig::Sim::SECRET);
	$a->fresh;
	$a->faults({ %write, do => 'hold', count => 0 });
	$run = $t->start('m', 'lanes => 2');
	$a->until('a request hangs', sub { $a->sim->held > 0 });
	$a->sql($change);
	$a->sim->sim('DELETE', 'tokens');
	$a->clear;
	$a->faults({ match => { path_contains => 'oauth2', body_contains => 'client_secret=s3cret' }, do => 'status', status => 401, count => 0 }) if $name eq 'rotated';
	$run = $t->finish($run);
	$a->clear;
	is($run->{state}, $says ? 'failed' : 'completed', "mapping $name in mid-run: the run ends as it should") or diag explain $run;
	like($run->{message} // '', $says // qr/^$/, "mapping $name: told apart");
	unlike($run->{message} // '', qr/yesterday|s3cret/, "mapping $name: no secret is told");
	is($t->status('staging.customers')->{failed}, 0, "mapping $name: no row failed");
	$a->sql("DROP USER MAPPING IF EXISTS FOR CURRENT_USER SERVER sim");
	$a->sql(sprintf q{CREATE %s OPTIONS (client_id '%s', client_secret '%s')}, $mapping, DvMig::Sim::CLIENT, DvMig::Sim::SECRET);
	is($a->run->{state}, 'completed', "mapping $name: the next run goes on") if $says;
	$a->exact("mapping $name", customers => '300/0/300/0/0', tasks => '300/0/300/0/0');
}

# A token that lives for a moment is renewed all the time.
$a->sim->set(token_lifetime => 1);
$a->sim->sim('DELETE', 'tokens');
$a->fresh;
is($a->run->{state}, 'completed', 'tokens that expire all the time');
$a->exact('short-lived tokens', customers => '300/0/300/0/0', tasks => '300/0/300/0/0');
$a->sim->set(token_lifetime => 3600);

# ------------------------------------------------------------------- throttling

# Whatever is asked first: who we are, references, rows, ids.
for my $what ('WhoAmI', 'CreateMultiple', '$batch')
{
	$a->fresh;
	$a->faults({ match => { path_contains => $what }, do => 'throttle', retry_after => 1, count => 3 });
	$run = $a->run;
	is($run->{state}, 'completed', "throttled at $what: the run completes") or diag explain $run;
	is($run->{failed}, 0, "throttled at $what: nothing failed");
	$a->exact("throttled at $what", customers => '300/0/300/0/0', tasks => '300/0/300/0/0');
}

# Nothing of that user is sent while it is held, whatever it is. One request at
# a time, so that none can have been on its way; the log has the times of answers.
for my $what ('CreateMultiple', '$batch', 'accounts?')
{
	$a->fresh;
	$a->sim->set(dop_hint => 1);
	my $log = -s "$logs/sim";
	$a->faults($what =~ /accounts/ ? { %write, do => 'reset_after', count => 1 } : (),
		{ match => { path_contains => $what }, do => 'throttle', retry_after => 2, count => 1 });
	$run = $a->run;
	is($run->{state}, 'completed', "Retry-After at $what: the run completes");
	cmp_ok($run->{throttled}, '>', 0, "Retry-After at $what: and tells that it was throttled");
	my ($held, $next);
	for my $line (split /\n/, substr(PostgreSQL::Test::Utils::slurp_file("$logs/sim"), $log))
	{
		my ($time, $status) = $line =~ m{^([\d.]+) \S+ /api/.*-> (\d+)} or next;

		$next //= $time if $held;
		$held //= $time if $status == 429;
	}
	cmp_ok($next - $held, '>=', 1.95, "Retry-After at $what: nothing is sent meanwhile");
	$a->sim->set(dop_hint => 8);
}

# ------------------------------------------------------------ a service that is down

# While nothing is answered the run is running, says why, and changes no row;
# rows that are edited meanwhile go as they are then.
$a->fresh;
$a->faults({ match => {}, do => 'status', status => 503, count => 0 });
$run = $t->start('m');
ok($t->wait_for("SELECT state = 'running' AND message LIKE '%not available now%' FROM dvmig.progress WHERE run = $run"),
	'down before the first answer: dvmig.progress says what the run waits for');
$a->clear;
is($t->finish($run)->{state}, 'completed', 'down before the first answer: it goes on by itself');
$a->exact('down at first', customers => '300/0/300/0/0', tasks => '300/0/300/0/0');

$a->fresh;
$a->faults({ match => {}, do => 'status', status => 503, count => 0, nth => 3 });
$run = $t->start('m');
ok($t->wait_for("SELECT state = 'running' AND message LIKE 'waiting: %' FROM dvmig.progress WHERE run = $run"), 'down in the middle: dvmig.progress says that the run waits');
$a->until('it has tried for some time', sub { $a->sim->stats->{faults} > 4 });
is($t->status('staging.customers')->{failed}, 0, 'down in the middle: no row failed');
$a->sql(q{UPDATE staging.customers SET phone = 'edited' WHERE processing_flag = 'U'});
$a->clear;
$run = $t->finish($run);
is($run->{state}, 'completed', 'down in the middle: it goes on by itself');
is($run->{message}, undef, 'down in the middle: and has nothing more to say');
$a->exact('down in the middle', customers => '300/0/300/0/0', tasks => '300/0/300/0/0');

# Not only 5xx are no answer: a gateway's time-out, the page of those who do maintenance, a
# redirect. Where Dataverse was met before, each is waited out, whatever was asked.
for my $none ([ 'HTTP status 408', { do => 'status', status => 408 } ],
	[ 'a page', { do => 'body', text => '<html>maintenance</html>', content_type => 'text/html', times => 1 } ],
	[ 'an object of another shape', { do => 'body', text => '{"value":5}', times => 1 } ],
	[ 'a redirect', { do => 'status', status => 302 } ])
{
	my ($what, $answer) = @$none;

	$a->fresh;
	$a->faults(map { { match => { path_contains => $_ }, %$answer, count => 2 } } qw(oauth2 WhoAmI EntityDefinitions));
	$run = $a->run;
	is($run->{state}, 'completed', "$what: the run goes on by itself") or diag explain $run->{message};
	$a->exact($what, customers => '300/0/300/0/0', tasks => '300/0/300/0/0');
}

# An outage in later laps: rows that are given back again and again are still taken.
$a->fresh;
is($a->run->{state}, 'completed', 'loaded');
$a->edit('customers');
$a->faults({ match => { method => 'POST', path_contains => 'UpdateMultiple' }, do => 'status', status => 503, count => 7 });
is($a->run('resend => true')->{state}, 'completed', 'updates in an outage: the run completes');
$a->exact('updates in an outage', customers => '300/0/300/0/0', tasks => '300/0/300/0/0');

# A run that waits can be stopped.
$a->fresh;
$a->faults({ match => {}, do => 'status', status => 503, count => 0 });
$run = $t->start('m');
ok($t->wait_for("SELECT message IS NOT NULL FROM dvmig.progress WHERE run = $run"), 'it waits');
$t->sql("SELECT dvmig.stop($run)");
is($t->finish($run)->{state}, 'stopped', 'a run that waits for the service is stopped');
$a->clear;

# Only dvmig.max_outage ends it.
$a->sql(q{ALTER DATABASE postgres SET dvmig.max_outage = '2s'});
$a->faults({ match => {}, do => 'status', status => 503, count => 0 });
$run = $a->run;
is($run->{state}, 'failed', 'down for longer than dvmig.max_outage: the run ends');
is($t->counts('staging.customers'), '300/300/0/0/0', 'no row has changed');
$a->sql('ALTER DATABASE postgres RESET dvmig.max_outage');
is($a->run->{state}, 'completed', 'the next run goes on');
$a->exact('after max_outage', customers => '300/0/300/0/0', tasks => '300/0/300/0/0');

# ------------------------------------------------- what an earlier run had on its way

# An update and a create whose answers a stopped run did not wait for may still
# come: what the next run has for these rows waits for dvmig.settle_time. The
# simulator holds the first request until the next run waits. On a machine that
# is so slow that it waits no more by then, all of it is done again, with more time.
$a->sql(q{ALTER DATABASE postgres SET dvmig.stop_timeout = 0});
my $slow = 0;
for my $late ([ 'update', q{UPDATE staging.customers SET name = 'before', processing_flag = 'U' WHERE id <= 50}, 'UpdateMultiple',
		q{UPDATE staging.customers SET name = 'after', processing_flag = 'U' WHERE id <= 50}, 300 ],
	[ 'create', q{INSERT INTO staging.customers SELECT n, 'before' FROM generate_series(1001, 1050) n}, 'CreateMultiple',
		q{UPDATE staging.customers SET action_flag = 'D', processing_flag = 'U' WHERE id > 1000}, 350 ])
{
	my ($what, $prepare, $path, $change, $all) = @$late;

	$a->sql(sprintf q{ALTER DATABASE postgres SET dvmig.settle_time = '%ds'}, $slow ? 90 : 12);
	$a->fresh;
	is($a->run->{state}, 'completed', "late $what: loaded");
	$a->sql($prepare);
	$a->faults({ match => { method => 'POST', path_contains => $path }, do => 'hold', count => 1 });
	$run = $t->start('m');
	$a->fired(1);
	$t->sql("SELECT dvmig.stop($run)");
	is($t->finish($run)->{state}, 'stopped', "late $what: the run is stopped in between");
	$a->sql($change);
	$run = $t->start('m');
	$a->until('the next run waits', sub { $t->sql("SELECT message LIKE '%earlier run%' OR ended_at IS NOT NULL FROM dvmig.run_history WHERE run = $run") eq 't' });
	$a->clear;
	if ($t->sql("SELECT ended_at IS NULL AND message LIKE '%earlier run%' FROM dvmig.run_history WHERE run = $run") ne 't' && !$slow++)
	{
		$t->finish($run);
		redo;
	}
	is($t->finish($run)->{state}, 'completed', "late $what: the next run completes");
	$a->until('nothing is on its way', sub { $a->sim->stats->{in_flight} <= 1 });
	$a->exact("late $what", customers => "$all/0/$all/0/0", tasks => '300/0/300/0/0');
}
$a->done;

done_testing();

# A run that is stopped while a file is on its way: the answer is waited for as any
# other, and no longer; nothing is lost, and the next run goes on
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Digest::MD5 qw(md5_hex);
use Test::More;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'files_stop', conf => "dvmig.settle_time = '300ms'\n");
my $t = $h->t;
my $sim = $h->sim;
my $worker = q{FROM pg_stat_activity WHERE backend_type = 'dvmig worker'};
my %upload = (method => 'PATCH', path_contains => 'new_document');

$t->sql(q{CREATE TABLE bills (id int PRIMARY KEY, number text, document bytea)});
$t->migration('m', tables => 'new_invoice');
$t->sql(q{SELECT dvmig.add_table('m', 'bills', 'new_invoice', auto_map => false); SELECT dvmig.map_column('bills', 'new_invoicenumber', 'number');
	SELECT dvmig.map_file('bills', 'new_document', 'document')});
$h->{migration} = 'm';

# fresh(): four rows, whose records are there and owe a file; the last is sent in three chunks
sub fresh
{
	my ($name) = @_;

	$sim->sim('POST', 'reset');
	$t->sql(q{TRUNCATE bills, bills_success, bills_error;
		INSERT INTO bills SELECT n, 'N' || n, convert_to(repeat('file ' || n || ' ', CASE WHEN n = 4 THEN 1300000 ELSE 10 END), 'UTF8') FROM generate_series(1, 4) n});
	is($t->run('m', q{passes => '{write}'})->{state}, 'completed', "$name: records are there");
	return;
}

# start(held, settings): a run of which the nth upload hangs; its number
sub start
{
	my ($match, $arguments) = @_;

	$t->sql(q{ALTER DATABASE postgres SET dvmig.stop_timeout = '500ms'}) if !delete $match->{patient};
	$h->hold(%upload, %$match);
	my $run = $h->start(arguments => $arguments);
	$t->sql(q{ALTER DATABASE postgres RESET dvmig.stop_timeout});
	return $run;
}

# knows(run): until the worker has seen what was asked of its run, which it looks for when it tells its figures
sub knows
{
	my ($run, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $now = $t->sql('SELECT clock_timestamp()');

	ok($t->wait_for("SELECT updated_at > '$now' FROM dvmig.run_history WHERE run = $run"), "$name: the run has heard of it");
	return;
}

# ends(run, state): in time, that is before anything is released; what it says
sub ends
{
	my ($run, $state, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok($t->wait_for("SELECT count(*) = 0 $worker"), "$name: its workers end");
	is($t->sql("SELECT dvmig.wait($run)"), $state, "$name: it is $state");
	return $t->sql("SELECT message FROM dvmig.run_history WHERE run = $run");
}

# flags(): those of the four rows
sub flags { return $t->sql(q{SELECT string_agg(processing_flag::text, '' ORDER BY id) FROM bills}); }

# gone_on(name): the next run does the rest
sub gone_on
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$h->quiet;
	is($t->run('m')->{state}, 'completed', "$name: the next run completes");
	is($t->counts('bills') . ' ' . flags(), '4/0/4/0/0 PPPP', "$name: with all rows");
	for my $r (@{ $t->rows('SELECT id, dataverse_id AS record, md5(document) AS digest FROM bills ORDER BY id') })
	{
		my ($status, $bytes) = $sim->curl('GET', "/api/data/v9.2/new_invoices($r->{record})/new_document/\$value", undef,
			'Authorization: Bearer ' . $sim->token, 'OData-Version: 4.0', 'OData-MaxVersion: 4.0');
		is($status == 200 ? md5_hex($bytes) : $status, $r->{digest}, "$name: file $r->{id} is there");
	}
	is($sim->counters('new_invoices')->{creates}, 4, "$name: no record was made anew");
	return;
}

# --- the answer does not come: carried out or not, with one lane and more
for my $case ([ 'one lane', 'lanes => 1', 0 ], [ 'carried out, two lanes', 'lanes => 2', 1 ])
{
	my ($name, $arguments, $after) = @$case;

	for my $how ('dvmig.stop', 'pg_cancel_backend')
	{
		my $l = "$how, $name";
		fresh($l);
		my $run = start({ after => $after }, $arguments);
		$h->beside($l, $how =~ /stop/ ? "SELECT dvmig.stop($run)" : "SELECT pg_cancel_backend(pid) $worker");
		like(ends($run, 'stopped', $l), qr/no answer within dvmig\.stop_timeout/, "$l: it says why");
		is(flags(), 'SSSS', "$l: the files are owed");
		gone_on($l);
	}
}

fresh('pg_terminate_backend');
my $run = start({});
$h->beside('pg_terminate_backend', "SELECT pg_terminate_backend(pid) $worker");
ends($run, 'interrupted', 'pg_terminate_backend');
gone_on('pg_terminate_backend');

# --- it comes in time, and is recorded
fresh('answered in time');
$run = start({ nth => 2, patient => 1 }, 'lanes => 1');
$h->beside('answered in time', "SELECT dvmig.stop($run)");
knows($run, 'answered in time');
$h->release;
is(ends($run, 'stopped', 'answered in time'), '', 'answered in time: without complaint');
is(flags(), 'PPSS', 'answered in time: what was answered is recorded, and nothing more was sent');
is($sim->stats->{faults}, 1, 'answered in time: nor tried') or diag explain $sim->stats;
gone_on('answered in time');

# --- in the midst of a file that goes in chunks: a part of it is no file
for my $patient (0, 1)
{
	my $l = 'between chunks, ' . ($patient ? 'answered' : 'not answered');
	fresh($l);
	$run = start({ path_contains => 'sessiontoken', nth => 2, patient => $patient }, 'lanes => 1');
	$h->beside($l, "SELECT dvmig.stop($run)");
	if ($patient)
	{
		knows($run, $l);
		$h->release;
	}
	ends($run, 'stopped', $l);
	is(flags(), 'PPPS', "$l: the file is still owed");
	gone_on($l);
}

# --- paused: what is on its way is answered, and nothing more goes
fresh('paused');
$run = start({ nth => 2 }, 'lanes => 1');
$h->beside('paused', "SELECT dvmig.pause($run)");
knows($run, 'paused');
$h->release;
ok($t->wait_for(q{SELECT count(*) = 2 FROM bills WHERE processing_flag = 'P'}), 'paused: the answer is recorded');
$t->sql("SELECT dvmig.resume($run)");
$h->ends($run, 'completed', 'paused: resumed, it completes');
gone_on('paused');

done_testing();

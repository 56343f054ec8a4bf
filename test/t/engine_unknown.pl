# Outcomes that nobody knows are settled by reading: each row is written once,
# whatever the answer looked like, in whatever batches it goes on
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use JSON::PP;

use DvMig::Attack;

my $n = 120;
my $a = DvMig::Attack->new(name => 'unknown', rows => $n, tables => [ 'customers', 'tasks' ]);
my $t = $a->t;
my %bulk = (match => { method => 'POST', path_contains => 'CreateMultiple' });
my %batch = (match => { method => 'POST', path_contains => '$batch' });
my %read = (match => { method => 'GET', path_contains => '/accounts' });
my $run;

$t->{quiet} = 1;

# once(label): both sides agree, and nothing was written twice.
sub once
{
	my ($label, %more) = @_;

	$a->exact($label, customers => "$n/0/$n/0/0", tasks => "$n/0/$n/0/0", %more);
	is($a->sim->counters('accounts')->{creates}, $n, "$label: each company was created once");
	is($a->sim->counters('tasks')->{creates}, $n, "$label: each task was created once");
	return;
}

# --- answers of another shape: nothing of them is believed, and nothing sent again
for my $fault ([ 'one id too many', { %bulk, do => 'add_ids', count => 1 } ],
	[ 'many ids too many', { %bulk, do => 'add_ids', bytes => 500, count => 0 } ],
	[ 'one id too few', { %bulk, do => 'drop_ids', count => 0 } ],
	[ 'ids in another order', { %bulk, do => 'shuffle_ids', count => 0 } ],
	[ 'the last part is missing', { %batch, do => 'drop_parts', count => 1 } ],
	[ 'all parts but one are missing', { %batch, do => 'drop_parts', bytes => 1000, count => 1 } ],
	[ 'some parts are missing, always', { %batch, do => 'drop_parts', bytes => 3, count => 0 } ])
{
	my ($label, $do) = @$fault;

	$a->fresh;
	$a->faults($do);
	is($a->run->{state}, 'completed', "$label: the run completes");
	ok($a->sim->stats->{faults} > 0 || $label =~ /part/, "$label: was met");
	once($label);
	is($a->sim->counters('accounts')->{updates}, 0, "$label: no company was written again");
	is($a->sim->counters('tasks')->{updates}, 0, "$label: no task was written again");
}

# --- the four codes of "it is there already"
# Ours is there, by a load that this database has forgotten: done, not doubled.
for my $code ('0x80040237', '0x80060892', '0x80073002', '0x80040333')
{
	my $label = "forgotten, answered $code";

	$a->fresh;
	is($a->run->{state}, 'completed', "$label: loaded");
	$a->sql(q{TRUNCATE staging.customers_success; UPDATE staging.customers SET processing_flag = 'U', dataverse_id = NULL});
	if ($code eq '0x80040333')
	{
		$a->faults({ %bulk, do => 'status', status => 412, code => $code, message => 'A record was not created or updated', count => 0 },
			{ match => { method => 'POST', path_contains => '/accounts', part => JSON::PP::true }, do => 'status', status => 412, code => $code, count => 0 });
	}
	else
	{
		$a->sim->set(replay_code => $code);
	}
	is($a->run('resend => true')->{state}, 'completed', "$label: the run completes");
	$a->sim->set(profile => 'strict');
	once($label);
}

# Ours is not there: another record has the key. The row fails, with that code.
for my $code ('0x80040237', '0x80060892', '0x80073002', '0x80040333')
{
	my $label = "another's, answered $code";

	$a->fresh;
	$a->faults({ %bulk, do => 'status', status => 412, code => $code, message => 'violated', count => 0 },
		{ match => { method => 'POST', path_contains => '/accounts', body_contains => '"Company 7"', part => JSON::PP::true },
			do => 'status', status => 412, code => $code, message => 'violated', count => 0 });
	is($a->run->{state}, 'completed', "$label: the run completes");
	is($a->sql(q{SELECT id, error_class LIKE 'duplicate%', code FROM staging.customers_error}), "7|t|$code", "$label: the row fails, with that code");
	$a->exact($label, customers => "$n/0/" . ($n - 1) . '/1/0', tasks => "$n/0/$n/0/0");
}

# --- a crash, and a resume in other batches
# Requests were carried out and not answered, some of each table; the worker is gone.
for my $rows (1, 7, 50, 1000)
{
	my $label = "killed, resumed in batches of $rows";

	$a->fresh;
	$a->faults({ %bulk, do => 'hold', count => 0, after => JSON::PP::true });
	$run = $t->start('m');
	$a->until('a request hangs that was carried out', sub { $a->sim->counters('accounts')->{creates} >= $n || $a->sim->held > 1 });
	$t->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'dvmig worker'});
	is($t->sql("SELECT dvmig.wait($run)"), 'interrupted', "$label: the run is interrupted");
	$a->clear;
	my ($record) = grep { $_->{new_legacyid} eq $n } @{ $a->sim->export('accounts') };
	$a->user_edit('accounts', $record->{accountid}, { telephone1 => 'changed by a user' }) if $record;
	for (1 .. 20)
	{
		is($t->run('m', "max_rows => $rows")->{state}, 'completed', "$label: a run completes") if $rows >= 7 || $_ < 3;
		last if $t->status('staging.customers')->{unprocessed} == 0 || $rows < 7;
	}
	is($t->run('m')->{state}, 'completed', "$label: the last run completes");
	$t->sql("UPDATE staging.customers SET phone = 'changed by a user' WHERE id = $n") if $record;
	once($label);
	is($a->sql("SELECT processing_flag FROM staging.customers WHERE id = $n"), 'P', "$label: what a user changed is kept") if $record;
	is($t->status('staging.customers')->{in_doubt}, 0, "$label: nothing is in doubt");
}

# --- a request that commits seconds after its connection was cut
$a->sql(q{ALTER DATABASE postgres SET dvmig.settle_time = '4s'});
$a->fresh;
$a->faults({ %bulk, do => 'commit_later', seconds => 2.5, count => 1 });
is($a->run->{state}, 'completed', 'commits seconds later: the run completes');
once('commits seconds later');
is($a->sim->counters('accounts')->{updates}, 0, 'commits seconds later: nothing was written again');
is($a->sql(q{SELECT count(*) > 0 FROM staging.customers_success WHERE message LIKE 'settled:%'}), 't', 'commits seconds later: it was settled by reading');

# --- truncate and reload
$a->sql(q{ALTER DATABASE postgres SET dvmig.settle_time = '300ms'});
$a->fresh;
$a->run;
$a->sim->sim('POST', 'reset?keep=records');
$a->sql(q{CREATE TABLE staging.kept AS SELECT id, name, phone, revenue FROM staging.customers; TRUNCATE staging.customers;
	INSERT INTO staging.customers SELECT * FROM staging.kept});
is($a->run->{state}, 'completed', 'reload of equal data: the run completes');
is($a->sim->stats->{requests}{update_multiple} // 0, 0, 'reload of equal data: nothing is sent');
is($a->sql(q{SELECT count(*) FROM staging.customers_success WHERE message = 'unchanged'}), $n, 'reload of equal data: it is unchanged');
$a->sql(q{TRUNCATE staging.customers; INSERT INTO staging.customers SELECT id, name || CASE WHEN id <= 5 THEN '*' ELSE '' END, phone, revenue FROM staging.kept});
$a->sql('ALTER DATABASE postgres SET dvmig.max_resend = 4');
like($t->error(q{SELECT dvmig.start('m')}), qr/55000.*5 rows that are already loaded.*resend => true/s, 'reload of changed data: more than max_resend are refused');
is($a->run('resend => true')->{state}, 'completed', 'reload of changed data: with resend it completes');
is($a->sim->counters('accounts')->{updates}, 5, 'reload of changed data: what changed was written');
once('reload');
$a->done;

done_testing();

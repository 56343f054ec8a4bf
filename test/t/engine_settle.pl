# Whatever happens between a request and its answer, every row is in Dataverse
# once, with what it says, and its outcome is true
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use JSON::PP;

use DvMig::Attack;

my $n = 230;

# What goes wrong, as a fault of a writing request. Those with "all" are tried
# under every profile, the others under one.
my @attacks = (
	[ 'connection reset before the request is carried out', all => 1, do => 'reset_before', count => 3 ],
	[ 'connection reset after it was carried out', all => 1, do => 'reset_after', count => 3 ],
	[ 'every request cut off at first', do => 'reset_after', count => 12 ],
	[ 'commit after the connection was cut, in time', all => 1, do => 'commit_later', seconds => 0.1, count => 2 ],
	[ '502 before', all => 1, do => 'status', status => 502, count => 2 ],
	[ '502 after', all => 1, do => 'status', status => 502, after => 1, count => 2 ],
	[ '503 after, as a page', do => 'status', status => 503, after => 1, html => 1, count => 2 ],
	[ '503 with Retry-After', do => 'status', status => 503, retry_after => 1, count => 1 ],
	[ '504 before', do => 'status', status => 504, count => 2 ],
	[ '504 after', all => 1, do => 'status', status => 504, after => 1, count => 2 ],
	[ '500 without an error object, carried out', do => 'status', status => 500, html => 1, after => 1, count => 2 ],
	[ '500 with a code', do => 'status', status => 500, code => '0x80040216', count => 2 ],
	[ '408 after', do => 'status', status => 408, after => 1, count => 1 ],
	[ '425 before', do => 'status', status => 425, count => 1 ],
	[ 'answer cut at its first byte', all => 1, do => 'cut', bytes => 0, count => 2 ],
	[ 'answer cut in the middle', all => 1, do => 'cut', count => 2 ],
	[ 'answer cut after some bytes', do => 'cut', bytes => 75, count => 2 ],
	[ 'answer in single bytes', do => 'dribble', count => 1 ],
	[ 'garbage instead of the answer', all => 1, do => 'garbage', after => 1, count => 2 ],
	[ 'garbage, nothing carried out', do => 'garbage', count => 2 ],
	[ 'empty answer', do => 'garbage', bytes => 0, after => 1, count => 1 ],
	[ 'garbage with status 201', do => 'garbage', status => 201, after => 1, count => 1 ],
	[ 'garbage with status 400', do => 'garbage', status => 400, after => 0, count => 1 ],
	[ 'ids missing in the answer', all => 1, do => 'drop_ids', bytes => 2, count => 2 ],
	[ 'all ids missing', do => 'drop_ids', bytes => 1000, count => 1 ],
	[ 'ids in another order', all => 1, do => 'shuffle_ids', count => 2 ],
	[ 'throttled', all => 1, do => 'throttle', retry_after => 1, count => 2 ],
	[ 'throttled, with another code', do => 'throttle', code => '0x80072326', retry_after => 1, count => 1 ],
	[ 'deadlock', all => 1, do => 'deadlock', count => 3 ],
	[ 'too large', all => 1, do => 'status', status => 413, count => 3 ],
	[ 'a page of a firewall', do => 'status', status => 403, html => 1, count => 1 ],
	[ 'a token that is refused once', all => 1, do => 'status', status => 401, count => 1 ],
	[ 'answer that takes longer than the time limit', do => 'slow', seconds => 3, after => 1, count => 1 ],
	[ 'request that is carried out after the time limit', do => 'slow', seconds => 1.2, count => 1 ],
);

# The three ways a table is written: bulk messages, single operations, deletes.
my @phases = (
	[ 'create', 'customers', sub { }, path_contains => 'CreateMultiple' ],
	[ 'update', 'customers', sub { $_[0]->edit('customers') }, path_contains => 'UpdateMultiple' ],
	[ 'delete', 'customers', sub { $_[0]->sql(q{UPDATE staging.customers SET action_flag = 'D', processing_flag = 'U'}) }, path_contains => '$batch' ],
	[ 'single create', 'tasks', sub { }, path_contains => '$batch' ],
	[ 'single update', 'tasks', sub { $_[0]->edit('tasks') }, path_contains => '$batch' ],
);

for my $profile (qw(strict lenient odd))
{
	my %at = map {
		my $table = $_;
		$table => DvMig::Attack->new(profile => $profile, name => "settle_${profile}_$table", tables => [$table],
			rows => $table eq 'tasks' ? 60 : $n);
	} $profile eq 'strict' ? qw(customers tasks) : 'customers';

	for my $attack (@attacks)
	{
		my ($what, %fault) = @$attack;

		my $every = delete $fault{all};
		next unless $every || $profile eq 'strict';
		for my $phase (@phases)
		{
			my ($name, $table, $prepare, %match) = @$phase;
			my $a = $at{$table};
			my $rows = $a->{rows};

			next if $fault{do} =~ /_ids$/ && $name ne 'create';
			next if $profile ne 'strict' ? $name !~ /^(create|update)$/ : !$every && $name !~ /create/;
			$a->sql(q{ALTER DATABASE postgres RESET dvmig.request_timeout});
			$a->fresh if $name =~ /create/;
			$prepare->($a);
			$a->sql(q{ALTER DATABASE postgres SET dvmig.request_timeout = '1s'}) if $fault{do} eq 'slow';
			my %count = (%fault, match => { method => 'POST', %match });
			$_ = $_ ? JSON::PP::true : JSON::PP::false for grep { defined } @count{ grep { exists $count{$_} } qw(after html) };
			$a->faults(\%count);
			my $run = $a->run;
			my $label = "$profile: $what ($name)";
			ok($a->sim->stats->{faults} > 0, "$label: was met");
			is($run->{state}, 'completed', "$label: the run completes") or diag explain $run;
			$a->exact($label, $table => "$rows/0/$rows/0/0");
		}
	}
	$_->done for values %at;
}

# Stories in which somebody does something while an outcome is unknown.
my $a = DvMig::Attack->new(name => 'settle_stories', rows => 100, settle => '2s');
my $write = sub { return (match => { method => 'POST', path_contains => $_[0] }) };
my %read = (match => { method => 'GET', path_contains => 'accounts' });

# A service whose pages are smaller than a batch is asked for fewer ids.
$a->sim->set(page_most => 7);
$a->fresh;
$a->faults({ $write->('CreateMultiple'), do => 'reset_after', count => 1 });
is($a->run->{state}, 'completed', 'small pages: the run completes');
ok($a->sim->stats->{faults} > 0, 'small pages: ids were read back');
$a->exact('small pages', customers => '100/0/100/0/0');
$a->sim->set(page_most => 0);

# Reading back fails until a user of Dataverse has changed a created record.
$a->fresh;
$a->faults({ $write->('CreateMultiple'), do => 'reset_after', count => 1 }, { %read, do => 'status', status => 502, count => 0 });
my $run = $a->t->start('m');
$a->fired(2);
my ($id) = map { $_->{accountid} } grep { $_->{new_legacyid} eq '7' } @{ $a->sim->export('accounts') };
$a->user_edit('accounts', $id, { telephone1 => 'changed by a user' });
$a->clear;
is($a->t->finish($run)->{state}, 'completed', 'changed before it was settled: the run completes');
is($a->sql(q{SELECT processing_flag || ' ' || message FROM staging.customers LEFT JOIN staging.customers_success USING (id) WHERE id = 7}),
	'P settled: found after an unanswered request', 'changed before it was settled: the row is done');
is((grep { $_->{accountid} eq $id } @{ $a->sim->export('accounts') })[0]{telephone1}, 'changed by a user',
	'changed before it was settled: and the change is kept');
is($a->sim->counters('accounts')->{creates}, 100, 'changed before it was settled: each was created once');
is($a->sim->counters('accounts')->{updates}, 1, 'changed before it was settled: and none was written again');

# A kept connection that breaks with a request on it and no byte of an answer: libcurl would send that once
# more by itself. With one request at a time it goes where the ones before it went.
$a->sim->set(dop_hint => 1);
$a->fresh;
$a->faults({ $write->('CreateMultiple'), do => 'reset_after', count => 1 });
is($a->run('lanes => 1')->{state}, 'completed', 'a kept connection breaks: the run completes');
is($a->sim->stats->{faults}, 1, 'a kept connection breaks: it does');
is($a->sim->stats->{bulk_targets}, 100, 'a kept connection breaks: no row is sent a second time');
cmp_ok($a->sql(q{SELECT count(*) FROM staging.customers_success WHERE message = 'settled: found after an unanswered request' AND operation = 'I'}), '>', 0,
	'a kept connection breaks: rows are settled by reading them back');
$a->sim->set(dop_hint => 8);

# An update without an answer, whether carried out or not: what a user wrote
# since is not written over, and the row says so.
for my $do (qw(reset_before reset_after))
{
	$a->fresh;
	$a->run;
	$a->sql(q{UPDATE staging.customers SET phone = '0', processing_flag = 'U' WHERE id <= 50});
	$a->faults({ $write->('UpdateMultiple'), do => $do, count => 1 }, { %read, do => 'status', status => 502, count => 0 });
	$run = $a->t->start('m');
	$a->fired(2);
	($id) = map { $_->{accountid} } grep { $_->{new_legacyid} eq '7' } @{ $a->sim->export('accounts') };
	$a->user_edit('accounts', $id, { telephone1 => 'changed by a user' });
	$a->clear;
	is($a->t->finish($run)->{state}, 'completed', "update, $do: the run completes");
	is($a->sql(q{SELECT processing_flag || ' ' || error_class FROM staging.customers JOIN staging.customers_error USING (id) WHERE id = 7}), 'E changed',
		"update, $do: a row that a user changed in Dataverse is listed");
	is((grep { $_->{accountid} eq $id } @{ $a->sim->export('accounts') })[0]{telephone1}, 'changed by a user', "update, $do: the change is kept");
	$a->exact("update, $do", customers => '100/0/99/1/0');
}

# An update that is carried out late must not come after the one that the
# edited row made: rows wait until it cannot come any more.
$a->fresh;
$a->run;
$a->edit('customers');
# what became of it is not known before the row is edited
$a->faults({ $write->('UpdateMultiple'), do => 'commit_later', seconds => 1.2, count => 1 }, { %read, do => 'status', status => 502, count => 0 });
$run = $a->t->start('m');
$a->fired(1);
$a->sql(q{UPDATE staging.customers SET name = 'Edited meanwhile' WHERE id = 7});
$a->clear;
is($a->t->finish($run)->{state}, 'completed', 'late update: the run completes');
$a->until('the late update has come', sub { $a->sim->counters('accounts')->{updates} >= 201 });
$a->exact('late update', customers => '100/0/100/0/0');

# A request that creates rows late, after they were looked for in vain.
for my $profile (qw(strict lenient odd))
{
	$a->sim->set(profile => $profile);
	$a->fresh;
	$a->faults({ $write->('CreateMultiple'), do => 'commit_later', seconds => 0.8, count => 1 });
	is($a->run->{state}, 'completed', "$profile: late create: the run completes");
	$a->exact("$profile: late create", customers => '100/0/100/0/0');
	is($a->sim->counters('accounts')->{updates}, 0, "$profile: late create: nothing was written twice");
}

# Later still than the time it is given: the second create is refused as a
# duplicate, or the late one is; one record comes of it all the same.
for my $profile (qw(strict lenient odd))
{
	$a->sim->set(profile => $profile);
	$a->sql(q{ALTER DATABASE postgres SET dvmig.settle_time = 0});
	$a->fresh;
	$a->faults({ $write->('CreateMultiple'), do => 'commit_later', seconds => 0.7, count => 1 },
		{ $write->('CreateMultiple'), do => 'slow', seconds => 1.5, nth => 1, count => 1 });
	is($a->run->{state}, 'completed', "$profile: later than given: the run completes");
	$a->exact("$profile: later than given", customers => '100/0/100/0/0');
	is($a->sim->counters('accounts')->{creates}, 100, "$profile: later than given: each was created once");
}
$a->sim->set(profile => 'strict');
$a->sql(q{ALTER DATABASE postgres SET dvmig.settle_time = '300ms'});

# Records that are there from a load this database does not remember (a backup
# was restored), and a request without an answer: that they are there does not
# say that they hold what the rows say now.
$a->fresh;
$a->run;
my $loaded = time();
$a->sql(q{
	TRUNCATE staging.customers_success;
	UPDATE staging.customers SET processing_flag = 'U', dataverse_id = NULL, phone = 'new'});
$a->until('the clock shows seconds later', sub { time() > $loaded + 3 });
$a->faults({ $write->('CreateMultiple'), do => 'status', status => 502, count => 1 });
is($a->run->{state}, 'completed', 'forgotten load: the run completes');
$a->exact('forgotten load', customers => '100/0/100/0/0');

# A failing service is waited for, and the run says so; an idle hour before the
# first failure is not counted as an outage.
$a->sql(q{ALTER DATABASE postgres SET dvmig.max_outage = '2s'});
$a->fresh;
$a->sql(q{
	CREATE FUNCTION staging.slowly(name text) RETURNS text LANGUAGE sql AS $$SELECT name FROM pg_sleep(CASE WHEN name = 'Company 1' THEN 3 ELSE 0 END)$$;
	SELECT dvmig.unmap('staging.customers', 'name');
	SELECT dvmig.map_column('staging.customers', 'name', 'staging.slowly(name)')});
$a->faults({ $write->('CreateMultiple'), do => 'reset_before', count => 1 });
is($a->run->{state}, 'completed', 'rows that take long before a failure are no outage');
$a->exact('slow, then failing', customers => '100/0/100/0/0');
$a->sql(q{
	SELECT dvmig.unmap('staging.customers', 'name');
	SELECT dvmig.map_column('staging.customers', 'name', 'name')});
$a->fresh;
$a->faults({ %read, do => 'status', status => 503, count => 0 }, { $write->('CreateMultiple'), do => 'reset_after', count => 0 });
$a->t->{quiet} = 1;
$run = $a->run;
is($run->{state}, 'failed', 'an outage longer than max_outage ends the run');
like($run->{message}, qr/max_outage/, 'and the message says so');
is($a->t->counts('staging.customers'), '100/100/0/0/0', 'no row has changed its flag');
$run = $a->t->run('m');
is($run->{state}, 'completed', 'the next run goes on');
$a->exact('after the outage', customers => '100/0/100/0/0');

# Refused tokens in mid-run end it with rows untouched; the next run goes on.
$a->sql(q{ALTER DATABASE postgres RESET dvmig.max_outage});
$a->fresh;
$a->faults({ $write->('CreateMultiple'), do => 'status', status => 401, count => 0 });
$run = $a->run;
is($run->{state}, 'failed', 'a token that is always refused ends the run');
is($a->t->counts('staging.customers'), '100/100/0/0/0', 'no row has changed its flag');
is($a->t->run('m')->{state}, 'completed', 'the next run goes on');
$a->exact('after refused tokens', customers => '100/0/100/0/0');

# A storm of everything at once, from a printed seed.
my $seed = $ENV{DVMIG_SEED} // time();
diag("seed $seed");
srand($seed);
$a->{rows} = 1500;
for my $profile (qw(strict lenient odd))
{
	$a->sim->set(profile => $profile);
	$a->fresh;
	for my $phase ([ 'create', sub { } ], [ 'update', sub { $_[0]->edit('customers') } ])
	{
		$phase->[1]->($a);
		for my $fault ([ do => 'reset_before' ], [ do => 'reset_after' ], [ do => 'commit_later', seconds => 0.1 ], [ do => 'cut' ], [ do => 'garbage' ],
			[ do => 'deadlock' ], [ do => 'status', status => 502 ], [ do => 'status', status => 504, after => JSON::PP::true ], [ do => 'drop_ids' ])
		{
			$a->faults({ match => { method => rand() < 0.2 ? 'GET' : 'POST', path_contains => 'accounts' }, rate => 0.04 + rand() * 0.06, count => 0, @$fault });
		}
		$run = $a->run('resend => true');
		is($run->{state}, 'completed', "$profile: storm ($phase->[0]): the run completes");
		$a->exact("$profile: storm ($phase->[0])", customers => '1500/0/1500/0/0');
		is($a->sim->counters('accounts')->{creates}, 1500, "$profile: storm ($phase->[0]): each was created once");
	}
}
$a->done;

done_testing();

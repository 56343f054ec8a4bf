# An undo that is broken at random instants, again and again, and called again: in the end
# Dataverse holds what it held before the run, and the rows are what they were. Short by itself;
#   DVMIG_ROUNDS=50 DVMIG_SEED=1 DVMIG_TAP_TIMEOUT=3600 test/check tap:undo_campaign
# is a longer one. It prints its seed.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use DvMig;

my $rounds = $ENV{DVMIG_ROUNDS} || 1;
my $seed = $ENV{DVMIG_SEED} || time;
my $breaks = 6;
diag("undo_campaign: $rounds rounds from seed $seed");
srand $seed;

my $t = DvMig->new(name => 'undo_campaign', conf => "restart_after_crash = on\n");
my $sim = $t->sim;
my %members = (accounts => [qw(accountid name _parentaccountid_value)], contacts => [qw(contactid lastname creditlimit _parentcustomerid_value)]);

$t->sql(q{
	ALTER DATABASE postgres SET dvmig.settle_time = '200ms';
	CREATE SCHEMA staging;
	CREATE TABLE staging.firms (id int PRIMARY KEY, name text, parent int);
	CREATE TABLE staging.people (id int PRIMARY KEY, family text, credit numeric(12,2), firm int);
	INSERT INTO staging.firms SELECT n, 'Firm ' || n, CASE WHEN n > 5 THEN n / 5 END FROM generate_series(1, 100) n;
	INSERT INTO staging.people SELECT n, 'Person ' || n, n, n % 100 + 1 FROM generate_series(1, 600) n});
$t->migration('m', tables => 'account,contact');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.firms', 'account', auto_map => false);
	SELECT dvmig.map_column('staging.firms', 'name', 'name');
	SELECT dvmig.map_lookup('staging.firms', 'parentaccountid', 'parent', 'staging.firms');
	SELECT dvmig.add_table('m', 'staging.people', 'contact', auto_map => false);
	SELECT dvmig.map_column('staging.people', 'lastname', 'family');
	SELECT dvmig.map_column('staging.people', 'creditlimit', 'credit');
	SELECT dvmig.map_lookup('staging.people', 'parentcustomerid', 'firm', 'staging.firms');
	SELECT dvmig.set_table('staging.firms', 'keep_before_image', 'true');
	SELECT dvmig.set_table('staging.people', 'keep_before_image', 'true')});
is($t->run('m')->{state}, 'completed', 'loaded');

sub held
{
	my %all;
	for my $set (keys %members)
	{
		my ($id, @rest) = @{ $members{$set} };
		$all{$set}{ $_->{$id} } = { %$_{@rest} } for @{ $sim->export($set) };
	}
	return \%all;
}

sub pause { select undef, undef, undef, $_[0]; return; }

# One fault, or none, somewhere in the next requests.
sub make_fault
{
	my @what = ({ do => 'reset_after' }, { do => 'reset_before' }, { do => 'cut' }, { do => 'throttle', retry_after => 1 }, { do => 'status', status => 503 },
		{ do => 'status', status => 500, code => '0x80040216' }, { do => 'html' }, { do => 'slow', seconds => 1 }, { do => 'garbage', bytes => 300 });
	$sim->fault({ match => { path_contains => rand() < 0.6 ? '$batch' : 's?', nth => 1 + int rand 6 }, %{ $what[rand @what] } }) for 1 .. int rand 3;
	return;
}

my $changes = 0;
for my $round (1 .. $rounds)
{
	my $before = held();
	my $flags = $t->sql(q{SELECT count(*) FROM staging.people WHERE processing_flag = 'P'});
	# half of the people updated, some moved to firms that this run creates; new people; people of new firms
	$t->sql(qq{
		INSERT INTO staging.firms SELECT n, 'New firm ' || n, CASE WHEN n % 2 = 0 OR n = 1001 THEN 1 ELSE n - 1 END FROM generate_series(1001, 1040) n;
		INSERT INTO staging.people SELECT n, 'New ' || n, n, CASE WHEN n % 2 = 0 THEN 1001 + n % 40 ELSE 1 + n % 100 END FROM generate_series(1001, 1200) n;
		UPDATE staging.people SET family = 'Round $round, ' || id, credit = credit + 1, firm = CASE WHEN id % 4 = 0 THEN 1001 + id % 40 ELSE firm END, processing_flag = 'U'
			WHERE id % 2 = 0 AND id <= 600;
		UPDATE staging.firms SET name = 'Round $round, ' || id, processing_flag = 'U' WHERE id % 3 = 0 AND id <= 100});
	my $run = $t->run('m', 'resend => true');
	is("$run->{state} $run->{failed}", 'completed 0', "round $round: a run creates and updates");
	my $interrupted = 0;
	for my $break (1 .. $breaks)
	{
		make_fault();
		my $job = $t->sql("SELECT dvmig.start_undo($run->{run})");
		pause(rand 0.8);
		my $pid = $t->sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'dvmig run $job'");
		$interrupted++ if $pid;
		my $how = int rand 3;
		if ($pid && $how == 0)
		{
			$t->kill_process($pid);
		}
		elsif ($pid && $how == 1)
		{
			$t->sql("SELECT pg_terminate_backend($pid)");
		}
		elsif ($pid)
		{
			$t->sql("SELECT dvmig.stop($job)");
		}
		$t->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'dvmig run $job'");
		$sim->sim('DELETE', 'fault');
	}
	my $last = $t->sql("SELECT dvmig.start_undo($run->{run})");
	is($t->finish($last)->{state}, 'completed', "round $round: interrupted $interrupted times, it comes to its end");
	is_deeply(held(), $before, "round $round: all is as it was before the run (seed $seed)");
	is($t->sql(q{SELECT (SELECT count(*) FROM staging.people WHERE id > 1000 AND processing_flag = 'U' AND dataverse_id IS NULL) || ' ' ||
		(SELECT count(*) FROM staging.people WHERE id <= 600 AND (processing_flag = 'U') = (id % 2 = 0)) || ' ' ||
		(SELECT count(*) FROM staging.people_success WHERE id > 1000) || ' ' || (SELECT count(*) FROM staging.people_before WHERE run = RUN) + (SELECT count(*) FROM staging.firms_before WHERE run = RUN)} =~ s/RUN/$run->{run}/gr),
		'200 600 0 0', "round $round: rows are unprocessed, without outcomes and images");
	is($t->sql('SELECT (SELECT count(*) FROM dvmig._undo_row) + (SELECT count(*) FROM dvmig._undo_pair) + (SELECT count(*) FROM dvmig._undo_image)'), 0, "round $round: no notes are left");
	# what was slow may come later than settle_time
	$t->until('nothing is on its way', sub { $sim->stats->{in_flight} == 0 });
	$t->sql(q{SELECT dvmig.release('staging.firms'); SELECT dvmig.release('staging.people')});
	is($t->run('m', 'resend => true')->{state}, 'completed', "round $round: loaded again");
	is_deeply({ map { $_->{contactid} => "$_->{lastname} " . ($_->{creditlimit} + 0) } @{ $sim->export('contacts') } },
		{ map { split /\|/ } split /\n/, $t->sql(q{SELECT dataverse_id, family || ' ' || credit::real FROM staging.people}) }, "round $round: all of it, once");
	# as they were, for the next round
	my $again = $t->sql('SELECT max(run) FROM dvmig.run_history');
	$t->sql("SELECT count(*) FROM dvmig.undo($again)");
	is_deeply(held(), $before, "round $round: and taken back once more");
	$t->sql(q{SELECT dvmig.release('staging.firms'); SELECT dvmig.release('staging.people');
		DELETE FROM staging.people WHERE id > 1000; DELETE FROM staging.firms WHERE id > 1000;
		UPDATE staging.people SET family = 'Person ' || id, credit = id, firm = id % 100 + 1; UPDATE staging.firms SET name = 'Firm ' || id});
	is($t->run('m', 'resend => true')->{state}, 'completed', "round $round: at the start again");
}

done_testing();

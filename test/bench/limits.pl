#!/usr/bin/perl
#
# limits.pl - what test/bench/limits measures: a run for each number of users
#
# Called by test/bench/limits, which has a cluster and a simulator ready. What
# counts is what the simulator took in so many whole windows, after the first:
# then neither a start that finds all limits unused, nor growing, is in it.
use strict;
use warnings;

use FindBin;
use Getopt::Long;
use JSON::PP;
use List::Util qw(min sum0);
use Time::HiRes qw(sleep time);

use constant { REQUESTS => 6000, EXECUTION_S => 1200, WINDOW_S => 300, AT_ONCE => 52, BULK_ROWS => 1000 };

my %o = (users => '1,2,3', scale => 10, windows => 20, servers => 4, connections => 'spread', hint => 48, latency => 50,
	'row-time' => 4000, 'retry-after' => 1);
GetOptions(\%o, 'origin=s', 'users=s', 'scale=f', 'windows=i', 'servers=i', 'connections=s', 'hint=i', 'latency=i', 'row-time=i',
	'retry-after=i', 'verbose') or exit 2;

my $window = WINDOW_S / $o{scale};
my $rows = int(BULK_ROWS / $o{scale});
my $request = $o{latency} / 1000 / $o{scale} + $rows * $o{'row-time'} / 1e6;

sub sql
{
	my ($text) = @_;
	open(my $in, '-|', 'psql', '-X', '-q', '-A', '-t', '-F', "\t", '-v', 'ON_ERROR_STOP=1', '-c', $text) or die "psql: $!";
	local $/;
	my $out = <$in> // '';
	close $in or die "limits.pl: psql failed for: $text\n";
	$out =~ s{\n\z}{};
	return $out;
}

sub sim
{
	my ($path, $body) = @_;
	open(my $in, '-|', 'curl', '-sS', '--fail', defined $body ? ('-d', $body) : (), "$o{origin}/_sim/$path") or die "curl: $!";
	local $/;
	my $out = <$in>;
	close $in or die "limits.pl: the simulator refused $path\n";
	return JSON::PP->new->utf8->decode($out || '{}');
}

# Rows a second of one user that no sender can pass.
sub bound
{
	my $by_time = EXECUTION_S / WINDOW_S / $request;
	my $by_requests = REQUESTS / WINDOW_S;
	my $at_once = min($o{hint}, AT_ONCE * $o{servers}) / $request;
	return $rows * min($o{servers} * min($by_time, $by_requests), $at_once);
}

sub prepare
{
	my ($users, $n) = @_;
	sim('reset', '');
	sim('set', JSON::PP->new->encode({
		servers => 0 + $o{servers}, connections => $o{connections}, dop_hint => 0 + $o{hint}, latency => int($o{latency} / $o{scale}),
		row_time => 0 + $o{'row-time'}, retry_after => 0 + $o{'retry-after'}, limit_window => int $window,
		limit_requests => int(REQUESTS / $o{scale}), limit_time => int(EXECUTION_S * 1000 / $o{scale}), limit_concurrent => AT_ONCE }));
	sql(qq{SET client_min_messages = error;
		SELECT dvmig.drop_migration('bench', true) FROM dvmig.migration WHERE name = 'bench';
		DROP TABLE IF EXISTS company, company_success, company_error;
		DELETE FROM dvmig.kept_namespace;
		DELETE FROM dvmig.table_pace;
		CREATE TABLE company (id int PRIMARY KEY, name text);
		INSERT INTO company SELECT g, 'Company ' || g FROM generate_series(1, $n) g;
		SELECT dvmig.create_migration('bench', 'bench');
		SELECT dvmig.add_table('bench', 'company', 'account', source_key => 'id', auto_map => false);
		SELECT dvmig.map_column('company', 'name', 'name')});
	return;
}

# The part of the bound that can be had: of constant numbers in flight, the best
# that is answered 429 less than once in a hundred, in the model of the service.
sub oracle_part
{
	my $pace = "$FindBin::Bin/pace/pace";
	my $part = `$pace like $o{servers} $o{hint} @{[ $o{latency} / $o{scale} ]} $o{'row-time'} $rows $o{scale} $o{'retry-after'} @{[ $o{connections} eq 'sticky' ? 1 : 0 ]} @{[ $window * ($o{windows} + 1) ]}`;
	die "limits.pl: the model says nothing\n" unless $part =~ /^[01][.]\d+$/;
	return $part + 0;
}

sub wait_until { my ($at) = @_; sleep($at - time) if $at > time; return; }

sub all { my ($h) = @_; return sum0(values %$h); }

sub measure
{
	my ($users) = @_;
	my $rate = bound() * $users;
	prepare($users, int($rate * $window * ($o{windows} + 3)));
	my $run = sql("SELECT dvmig.start('bench', lanes => $users)");
	sql("SELECT dvmig.tune($run, batch_rows => $rows)") if $o{scale} != 1;
	my $began = time;
	my @at = (sim('stats'));

	for my $n (1 .. $o{windows} + 1)
	{
		wait_until($began + $n * $window);
		push @at, sim('stats');
		next unless $o{verbose};
		my ($a, $b) = @at[ -2, -1 ];
		printf STDERR "window %d: %d rows/s (%.2f), %d requests, %d throttled (%s), %s\n", $n,
		  ($b->{rows_created} - $a->{rows_created}) / $window, ($b->{rows_created} - $a->{rows_created}) / $window / $rate,
		  $b->{bulk_requests} // $b->{total} - $a->{total}, all($b->{throttled}) - all($a->{throttled}),
		  join('/', map { $b->{throttled}{$_} - $a->{throttled}{$_} } qw(requests time concurrency)),
		  sql("SELECT format('in flight %s of %s, %s rows, hold %s, %s', in_flight, in_flight_limit, batch_rows, hold_share, state) FROM dvmig.progress WHERE run = $run");
	}
	my ($first, $last) = @at[ 1, -1 ];
	sql("SELECT dvmig.stop($run)");
	sql("SELECT dvmig.wait($run)");
	my $created = sim('stats')->{rows_created};
	my $done = sql("SELECT count(*) FROM company_success");
	die "limits.pl: $created rows were created, $done are recorded\n" unless $created == $done;
	return {
		users => $users, rate => ($last->{rows_created} - $first->{rows_created}) / $window / $o{windows}, bound => $rate,
		throttled => all($last->{throttled}) - all($first->{throttled}), requests => $last->{total} - $first->{total},
		in_wait => $last->{in_wait},
	};
}

printf "%s web servers, %s connections, x-ms-dop-hint %d; a window of %d s, of which %d are measured; a request of %d rows takes %.2f s\n\n",
  @o{qw(servers connections hint)}, $window, $o{windows}, $rows, $request;
my @head = ('application users', 'rows/s', 'of bound', 'of oracle', 'x one user', 'answered 429', 'sent in a Retry-After');
print '| ', join(' | ', @head), " |\n", '|', ' ---: |' x @head, "\n";
my $part = oracle_part();
my $one;
$| = 1;
for my $users (split /,/, $o{users})
{
	my $r = measure($users);
	$one //= $r->{rate} / $users;
	printf "| %d | %.0f | %.3f | %.3f | %.2f | %.2f%% | %d |\n", $users, $r->{rate}, $r->{rate} / $r->{bound}, $r->{rate} / $r->{bound} / $part,
	  $r->{rate} / $one, 100 * $r->{throttled} / $r->{requests}, $r->{in_wait};
}

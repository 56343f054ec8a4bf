# Many clients at once: nothing is lost, nothing doubled, one of two wins
use strict;
use warnings;

use POSIX ();
use Test::More;

use Sim qw(guid);
use Sim::Batch qw(op change_set batch);
use Sim::Check;
use Sim::Control qw(counters stats);

use constant {CLIENTS => 8, REQUESTS => 12, ROWS => 25};

my $sim = Sim->start;
$sim->token;
my $type = 'Microsoft.Dynamics.CRM.account';

# Run the same in several processes; the sum of what they return.
sub together
{
	my ($what) = @_;
	my @pipes;
	for my $client (1 .. CLIENTS)
	{
		pipe my $read, my $write or die "pipe: $!";
		my $pid = fork() // die "fork: $!";
		if ($pid == 0)
		{
			$sim->{sockets} = {};		# a connection of its own
			my $n = eval {$what->($client)} // "died: $@";
			print $write $n;
			close $write;
			POSIX::_exit(0);
		}
		close $write;
		push @pipes, [$pid, $read];
	}
	my ($sum, @died) = (0);
	for my $p (@pipes)
	{
		local $/;
		my $n = readline $p->[1];
		waitpid $p->[0], 0;
		$n =~ /^\d+$/ ? ($sum += $n) : push @died, $n;
	}
	diag $_ for @died;
	return @died ? -1 : $sum;
}

sub bulk { return $sim->req('POST', 'accounts/Microsoft.Dynamics.CRM.CreateMultiple', {Targets => [map {{'@odata.type' => $type, %$_}} @_]}); }

# --- each its own rows
my $made = together(sub
{
	my ($client) = @_;
	my $n = 0;
	for my $request (1 .. REQUESTS)
	{
		my $r = bulk(map {{name => "c$client r$request n$_", new_legacyid => "$client-$request-$_"}} 1 .. ROWS);
		$n += ROWS if $r->{status} == 200;
	}
	return $n;
});
is($made, CLIENTS * REQUESTS * ROWS, 'all requests succeed');
is($sim->count('accounts'), $made, 'all rows are there');
is(stats($sim)->{rows_created} >= $made, 1, 'and counted');

# --- all the same ids: one wins, the others are refused as a whole
my @ids = map {[map {guid()} 1 .. ROWS]} 1 .. REQUESTS;
my $won = together(sub
{
	my $n = 0;
	for my $block (@ids)
	{
		my $r = bulk(map {{accountid => $_, name => 'raced'}} @$block);
		$n++ if $r->{status} == 200;
		die "status $r->{status}" if $r->{status} != 200 && lc $r->code ne '0x80040237';
	}
	return $n;
});
is($won, REQUESTS, 'each block is made once');
is($sim->count('accounts', "name eq 'raced'"), REQUESTS * ROWS, 'and is whole');

# --- all the same key value
$won = together(sub {my $n = 0; $n += $sim->req('POST', 'accounts', {name => 'key', new_legacyid => "K$_"})->{status} == 204 for 1 .. 20; return $n});
is($won, 20, 'each key value is made once');
$won = together(sub {my $n = 0; $n += $sim->req('PATCH', "accounts(new_legacyid='U$_')", {name => 'upsert'})->{status} == 204 for 1 .. 20; return $n});
is($won, 20 * CLIENTS, 'upserts by key all succeed');
is($sim->count('accounts', "name eq 'upsert'"), 20, 'and make one row for each value');

# --- updates with an etag: only one of those who read the same version
my $row = $sim->create('accounts', {name => 'etag', numberofemployees => 0});
$won = together(sub
{
	my $n = 0;
	for (1 .. 10)
	{
		my $now = $sim->row('accounts', $row);
		my $r = $sim->req('PATCH', "accounts($row)", {numberofemployees => $now->{numberofemployees} + 1}, {'If-Match' => $now->{'@odata.etag'}});
		$n++ if $r->{status} == 204;
	}
	return $n;
});
is($sim->row('accounts', $row)->{numberofemployees}, $won, 'no update is lost');

# --- readers see whole transactions
my ($left, $right) = map {$sim->create('accounts', {name => 'pair', numberofemployees => 0})} 1, 2;
my $torn = together(sub
{
	my ($client) = @_;
	my $n = 0;
	for my $i (1 .. 20)
	{
		if ($client % 2)
		{
			batch($sim, [change_set(map {op('PATCH', "accounts($_)", {numberofemployees => $client * 1000 + $i}, {}, $_)} $left, $right)]);
			next;
		}
		my @both = map {$_->{numberofemployees}} @{$sim->req('GET', 'accounts?$select=numberofemployees&$filter=name%20eq%20%27pair%27')->json->{value}};
		$n++ if $both[0] != $both[1];
	}
	return $n;
});
is($torn, 0, 'a read never sees half a change set');

my $c = counters($sim, 'accounts');
is($c->{created_twice}, 0, 'no create logic ran twice');
is($c->{records}, $sim->count('accounts'), 'the counts agree');

done_testing;

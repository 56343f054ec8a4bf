# With a journal the simulator's records outlive its process, however it ends
use strict;
use warnings;

use File::Temp qw(tempdir);
use Test::More;

use Sim qw(guid);
use Sim::Control qw(control counters export record reset_sim);

my $dir = tempdir('dvsim-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my @journal = (args => [ '--journal', "$dir/journal" ]);
my $type = 'Microsoft.Dynamics.CRM.account';
my ($a, $b, $c) = (guid(), guid(), guid());

# killed: the simulator is killed, and another one begins with its journal.
sub killed
{
	my ($sim) = @_;

	kill 'KILL', $sim->{pid};
	waitpid $sim->{pid}, 0;
	delete $sim->{pid};
	my $next = Sim->start(@journal);
	$next->token;
	return $next;
}

my $sim = Sim->start(@journal);
$sim->token;
$sim->create('accounts', { accountid => $a, name => 'a', accountnumber => 'K1', revenue => 1.25 });
$sim->req('POST', 'accounts/Microsoft.Dynamics.CRM.CreateMultiple', { Targets => [ map { { '@odata.type' => $type, accountid => $_, name => 'bulk' } } $b, $c ] });
$sim->req('PATCH', "accounts($a)", { name => 'changed' });
$sim->req('DELETE', "accounts($c)");
my $before = export($sim, 'accounts');

$sim = killed($sim);
is_deeply(export($sim, 'accounts'), $before, 'records are as they were');
is(record($sim, 'accounts', $a)->{updates}, 1, 'with the counts of their logic');
is(record($sim, 'accounts', $c)->{creates}, 1, 'also of a deleted one');
is(record($sim, 'accounts', $c)->{record}, undef, 'which stays deleted');
is($sim->req('POST', 'accounts', { accountid => $a, name => 'again' })->{status}, 412, 'its ids are taken');
is($sim->req('POST', 'accounts', { accountid => $c, name => 'anew' })->{status}, 204, 'a deleted id is free');

# What was written after the first restart is there after the second, and half an entry is not.
$sim->req('PATCH', "accounts($b)", { name => 'twice' });
$before = export($sim, 'accounts');
open(my $out, '>>:raw', "$dir/journal") or die $!;
print $out "\1\0\0\0\0\1";
close $out;
$sim = killed($sim);
is_deeply(export($sim, 'accounts'), $before, 'half an entry at the end is left out');
$sim->req('PATCH', "accounts($b)", { name => 'thrice' });
$sim = killed($sim);
is(record($sim, 'accounts', $b)->{record}{name}, 'thrice', 'and not in the way of what comes after it');

reset_sim($sim);
$sim = killed($sim);
is(counters($sim, 'accounts')->{records}, 0, 'what was reset stays forgotten');

done_testing();

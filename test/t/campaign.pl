# Runs broken at random instants in every way a run can break: nothing is lost,
# nothing is twice, what users changed is kept. test/campaign runs more of it.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig::Campaign;

my $rounds = $ENV{DVMIG_ROUNDS} // 20;
my $seed = $ENV{DVMIG_SEED} // time();
my @kinds = $ENV{DVMIG_KIND} ? split /,/, $ENV{DVMIG_KIND} : @DvMig::Campaign::KINDS;
my $campaign = DvMig::Campaign->new(name => 'campaign');

diag("campaign: $rounds rounds from seed $seed: DVMIG_SEED=$seed repeats them");
for my $n (0 .. $rounds - 1)
{
	$campaign->round($seed + $n, $kinds[ $n % @kinds ]);
}
$campaign->done;

done_testing();

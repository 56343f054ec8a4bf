# A partition is taken out while its rows are on their way: it is no longer the
# staging table's, and its rows are not flagged with the rights on that one
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'attack_partition');
my $table = $h->scene(rows => 60, parts => 2);
my $out = "${table}_1";

$h->hold(after => 1);
my $run = $h->start;
my $rows = $h->sql("SELECT count(*) FROM $out");
$h->sql("ALTER TABLE $table DETACH PARTITION $out");
$h->release;
$h->ends($run, 'completed', 'the run completes');
is($h->sql("SELECT count(*) FROM $table WHERE processing_flag = 'P'"), 60 - $rows, 'rows that are still there are done');
is($h->sql("SELECT count(*) FROM $out WHERE processing_flag = 'U'"), $rows, 'those of the other table are not touched');
is($h->sql("SELECT count(*) FROM ${table}_success"), 60, 'what became of them is recorded');

$h->sql("ALTER TABLE $table ATTACH PARTITION $out FOR VALUES WITH (MODULUS 2, REMAINDER 1)");
is($h->t->run($h->migration)->{unchanged}, $rows, 'and known when they come back');
$h->exact('taken out and put back', '60/0/60/0/0');

done_testing();

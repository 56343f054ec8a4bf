# A row that is edited while its record is looked for is still to be sent
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'attack_rebuild');
my $table = $h->scene(rows => 20);

is($h->t->run($h->migration)->{state}, 'completed', 'loaded');
$h->sql("TRUNCATE ${table}_success; UPDATE $table SET processing_flag = 'U'");
$h->hold(method => 'GET', path_contains => 'contacts', after => 1);
my $user = $h->session;
$user->send("SELECT dvmig.rebuild_outcomes('$table');\n\\echo done\n");
$h->until('records are asked for', sub { $h->held > 0 });
$h->sql("UPDATE $table SET family = 'Edited' WHERE id = 7");
$h->release;
like($user->expect(qr/^done$/m), qr/^20$/m, 'all records are found');
$user->quit;
is($h->t->counts($table), '20/1/19/0/0', 'the row that was edited meanwhile is unprocessed');
is($h->t->run($h->migration)->{state}, 'completed', 'the next run completes');
$h->exact('edited while it was looked for', '20/0/20/0/0');

done_testing();

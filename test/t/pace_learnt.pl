# What a run learns of a table is kept for the next one; what the service tells
# holds all that goes, however it came to be sent; how many lanes there are
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;
use DvMig::People qw(stage_people fresh_people);

my $cores = `getconf _NPROCESSORS_ONLN` + 0;
# Two lanes for each core at most: one user more than that, where so many are possible.
my $users = $cores < 8 ? 2 * $cores + 1 : 3;
my @more = map { { id => sprintf('bbbbbbbb-0000-4000-8000-0000000001%02d', $_), user => sprintf('cccccccc-0000-4000-8000-0000000001%02d', $_) } } 3 .. $users;
my $t = DvMig->new(name => 'pace_learnt', profile => 'strict', set => { dop_hint => 8, servers => 1 },
	args => [ map { ('--client', "$_->{id}:secret:$_->{user}") } @more ]);

my %fields = stage_people($t);

sub learnt { return $t->rows(q{SELECT * FROM dvmig.table_pace WHERE table_name = 'contact' AND pass = 'write'})->[0]; }

# limited(switches, refused): two runs where a request is answered with that status when it is too much
sub limited
{
	my ($what, $status, %set) = @_;

	fresh_people($t, 600);
	$t->sql('DELETE FROM dvmig.table_pace');
	$t->sim->set(%set);
	is($t->run('m')->{state}, 'completed', "$what: a run goes through it");
	cmp_ok($t->sim->stats->{status}{$status} // 0, '>', 0, 'by smaller requests');
	$t->account('m', %fields);
	is($t->counts('people'), '600/0/600/0/0', 'which fails no row');
	my $first = learnt();
	cmp_ok($first->{bulk_max}, '<=', 50, 'the cap of the table is learnt');
	cmp_ok($first->{bulk_max}, '>=', 10, 'which is not one row');
	fresh_people($t, 600);
	is($t->run('m')->{state}, 'completed', 'the next run');
	my $stats = $t->sim->stats;
	is($stats->{status}{$status} // 0, 0, 'begins with what is known, and is refused nothing');
	cmp_ok($stats->{bulk_targets}, '>', 5 * $stats->{requests}{create_multiple}, 'by requests of many rows');
	is(learnt()->{bulk_max}, $first->{bulk_max}, 'and keeps the cap');
	$t->account('m', %fields);
	return;
}

limited('413', 413, max_body => 9000);
limited('SQL time-outs', 500, max_body => 104857600, sql_timeout => 250, row_time => 5000);
$t->sim->set(sql_timeout => 0, row_time => 0);

# --- a cap of one row, to which a row that is too large brings it, is not for ever
fresh_people($t, 600);
$t->sql(q{UPDATE dvmig.table_pace SET bulk_rows = 1, bulk_max = 1 WHERE table_name = 'contact' AND pass = 'write'});
is($t->run('m')->{state}, 'completed', 'a run that begins with single rows');
cmp_ok(learnt()->{bulk_max}, '>', 1, 'tries more of them after a while');
cmp_ok($t->sim->stats->{requests}{create_multiple}, '<', 600, 'and so sends fewer requests than rows');
$t->account('m', %fields);
$t->sql('DELETE FROM dvmig.table_pace');

# --- a request that comes back for a new token waits as all others do
fresh_people($t, 800);
$t->sql('DELETE FROM dvmig.table_pace');
$t->sim->fault({ do => 'status', status => 401, seconds => 2, match => { path_contains => 'CreateMultiple', nth => 1 } });
$t->sim->fault({ do => 'throttle', code => '0x80072321', retry_after => 3, match => { path_contains => 'CreateMultiple', nth => 2 } });
is($t->run('m', 'lanes => 1')->{state}, 'completed', 'a run that is told to wait, and that its token has ended');
is($t->sim->stats->{throttled}{injected}, 1, 'it was told');
is($t->sim->stats->{in_wait}, 0, 'and sent nothing meanwhile');
$t->account('m', %fields);

# --- users without number, each with a lane up to two for each core
$t->sql(sprintf q{ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (ADD client_id2 '%s', ADD client_secret2 '%s')},
	DvMig::Sim::CLIENT2, DvMig::Sim::SECRET2);
for my $n (3 .. $users)
{
	$t->sql("ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (ADD client_id$n '$more[$n - 3]{id}', ADD client_secret$n 'secret')");
}
fresh_people($t, 400);
$t->sim->fault({ do => 'throttle', retry_after => 1, match => { path_contains => 'WhoAmI', user => DvMig::Sim::USER2() } });
my $run = $t->run('m');
is($run->{state}, 'completed', "a run with $users application users");
is($run->{lanes}, $cores < 8 ? 2 * $cores : 3, 'has two lanes for each core at most');
is($t->sql(qq{SELECT count(*) FROM dvmig.event WHERE kind = 'lane refused' AND object = '$run->{run}'}), 0, 'a user that has to wait at first is no user that is refused');
is($t->sim->stats->{throttled}{injected}, 1, 'though one had to');
$t->account('m', %fields);
is($t->run('m', 'lanes => 1')->{lanes}, 1, 'or as many as are asked for');

done_testing();

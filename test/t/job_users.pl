# Jobs use all application users: each has limits of its own
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use DvMig;

my $t = DvMig->new(name => 'job_users');
my $sim = $t->sim;

$t->sql(q{
	CREATE SCHEMA staging;
	CREATE TABLE staging.people (id int PRIMARY KEY, family text);
	INSERT INTO staging.people SELECT n, 'Person ' || n FROM generate_series(1, 2000) n});
$t->migration('m', tables => 'contact');
$t->sql(sprintf q{ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (ADD client_id2 '%s', ADD client_secret2 '%s')}, DvMig::Sim::CLIENT2, DvMig::Sim::SECRET2);
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.people', 'contact', auto_map => false);
	SELECT dvmig.map_column('staging.people', 'lastname', 'family')});
my $run = $t->run('m');
is($run->{state}, 'completed', 'loaded');

# One that the service wants nothing from for an hour is no reason to wait for that long. (What it
# was told before is forgotten: a job that begins asks who all its users are, and waits for that.)
sub without
{
	my ($user, @match) = @_;
	$sim->sim('DELETE', 'fault');
	unlink $t->node->data_dir . '/pg_stat_tmp/dvmig.holds';
	$sim->fault({ match => { user => $user, count => 0, @match }, do => 'throttle', retry_after => 3600 });
	return;
}

for my $user (DvMig::Sim::USER, DvMig::Sim::USER2)
{
	without($user, path_contains => 'contacts?');
	is($t->sql(q{SELECT sum(compared) FROM dvmig.verify('m')}), 2000, 'a verification goes on as the other');
}
without(DvMig::Sim::USER2, path_contains => '$batch');
$t->sql(q{SELECT dvmig.unmap('staging.people', 'lastname'); SELECT dvmig.map_column('staging.people', 'lastname', $$'Changed ' || id$$)});
is($t->sql(q{SELECT sent FROM dvmig.resend('staging.people', '{lastname}')}), 2000, 'a resend');
without(DvMig::Sim::USER, path_contains => '$batch');
is($t->sql("SELECT deleted FROM dvmig.undo($run->{run})"), 2000, 'and an undo');
is(scalar @{ $sim->export('contacts') }, 0, 'with all of its records');
$sim->sim('DELETE', 'fault');
unlink $t->node->data_dir . '/pg_stat_tmp/dvmig.holds';

# one that is not let in any more
$t->sql(q{SELECT dvmig.release('staging.people')});
$run = $t->run('m');
$sim->fault({ match => { user => DvMig::Sim::USER2, path_contains => '$batch', count => 0 }, do => 'status', status => 401 });
is($t->sql("SELECT deleted FROM dvmig.undo($run->{run})"), 2000, 'a user that is refused leaves the work to the other');
like($t->sql(q{SELECT string_agg(detail::text, ' ') FROM dvmig.event WHERE kind = 'lane refused'}), qr/application user 2 is no longer let in/, 'which is told');

done_testing();

# Parents and children: none is deleted before those that point at it, and rows
# that wait for a parent which nobody will load say so
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use JSON::PP;

use DvMig::Attack;

my $a = DvMig::Attack->new(name => 'family', rows => 60, tables => [ 'customers', 'people' ]);
my $t = $a->t;
$t->{quiet} = 1;

# A child that cannot be deleted keeps its parent: Dataverse would take it along.
$a->fresh;
is($a->run->{state}, 'completed', 'loaded');
$a->sql(q{UPDATE staging.people SET action_flag = 'D', processing_flag = 'U'; UPDATE staging.customers SET action_flag = 'D', processing_flag = 'U'});
my $child = $a->sql('SELECT dataverse_id FROM staging.people WHERE id = 7');
$a->faults({ match => { path_contains => $child, method => 'DELETE', part => JSON::PP::true }, do => 'status', status => 400, code => '0x80040265',
	message => 'a plug-in says no', count => 0 });
is($a->run('ignore_gate => true')->{state}, 'completed', 'deletes: the run completes');
is($t->counts('staging.people'), '60/0/59/1/0', 'one child could not be deleted');
is($t->counts('staging.customers'), '60/1/59/0/0', 'its parent is left');
is(scalar(@{ $a->sim->export('accounts') }), 1, 'and its record is there');
is($t->status('staging.customers')->{parked}, 1, 'it waits');
like($t->status('staging.customers')->{next_step}, qr/rows wait for rows of other tables/, 'as the next step says');
$a->sql(q{SELECT dvmig.retry('staging.people')});
is($a->run->{state}, 'completed', 'retried: the run completes');
is($t->counts("staging.$_"), '60/0/60/0/0', "$_ are deleted") for 'people', 'customers';
is(scalar(@{ $a->sim->export($_) }), 0, "$_: no record is left") for 'contacts', 'accounts';

# A parent that the filter of its table leaves out.
$a->fresh;
$a->sql(q{SELECT dvmig.set_table('staging.customers', 'filter', 'id > 10'), dvmig.set_table('staging.customers', 'filter_reason', 'old ones')});
is($a->run->{state}, 'completed', 'parents left out: the run completes');
is($t->counts('staging.customers'), '60/0/50/0/10', 'ten are left out');
is($t->counts('staging.people'), '60/10/50/0/0', 'their children are left');
is($t->status('staging.people')->{parked}, 10, 'they are parked');
like($t->status('staging.people')->{next_step}, qr/filter of staging\.customers leaves out/, 'and the next step says why');
$a->sql(q{SELECT dvmig.set_table('staging.customers', 'filter', NULL)});
is($a->run->{state}, 'completed', 'without the filter: the run completes');
$a->exact('without the filter', customers => '60/0/60/0/0', people => '60/0/60/0/0');
$a->done;

done_testing();

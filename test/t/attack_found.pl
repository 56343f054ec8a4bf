# A record is there under the id of a row whose create had no answer: ours, or
# somebody else's? Undo must delete the first and never the second
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use JSON::PP;

use DvMig::Attack;

my $stranger = 'dddddddd-0000-4000-8000-00000000000d';
my $n = 20;
my $a = DvMig::Attack->new(name => 'found', rows => $n, settle => '1s');
my $t = $a->t;
my %bulk = (match => { method => 'POST', path_contains => 'CreateMultiple' });
my $id = $t->sql(q{SELECT dvmig.record_id(namespace, 7) FROM dvmig.migration_table WHERE staging = 'staging.customers'::regclass});

sub row { return $t->sql(q{SELECT concat_ws('|', processing_flag, x.operation, x.created_run IS NOT NULL, x.message) FROM staging.customers s
	LEFT JOIN staging.customers_success x USING (id) WHERE s.id = 7}); }
sub record { return (grep { $_->{accountid} eq $id } @{ $a->sim->export('accounts') })[0]; }

# What becomes of the lost request (do), what was there before it (before), what
# others do before ids are read back (between), and what is then true of row 7:
# its outcome, and whether undo leaves its record.
for my $case (
	[ 'created by us, changed by a user', do => 'reset_after', between => sub { $a->user_edit('accounts', $id, { telephone1 => 'a user' }) },
		is => 'P|I|t|settled: found after an unanswered request', stays => 1 ],
	[ 'created by us', do => 'reset_after', is => 'P|I|t|settled: found after an unanswered request', stays => 0 ],
	[ 'never carried out, created by somebody else meanwhile', do => 'reset_before',
		between => sub { $a->user_edit('accounts', $id, { name => 'theirs', new_legacyid => 'x' }) },
		is => 'P|U|f|kept: the record was modified in Dataverse by another user', stays => 1, others => 1 ],
	[ 'never carried out, there before, changed by a user meanwhile', do => 'reset_before', before => sub { $a->user_edit('accounts', $id, { name => 'theirs' }) },
		between => sub { $a->user_edit('accounts', $id, { telephone1 => 'a user' }) },
		is => 'P|U|f|kept: the record was modified in Dataverse by another user', stays => 1, others => 1 ],
	[ 'never carried out, created by our application user long ago, changed by a user meanwhile', do => 'reset_before',
		before => sub {
			$a->sim->create('accounts', { accountid => $id, name => 'of long ago' });
			my $made = $t->sql('SELECT clock_timestamp()');
			$t->wait_for("SELECT clock_timestamp() > '$made'::timestamptz + interval '3 s'");
		},
		between => sub { $a->user_edit('accounts', $id, { telephone1 => 'a user' }) },
		is => 'P|U|f|kept: the record was modified in Dataverse by another user', stays => 1, others => 1 ])
{
	my ($name, %o) = @$case;

	$a->fresh;
	$o{before}->() if $o{before};
	$a->faults({ %bulk, do => $o{do}, count => 1 }, { match => { method => 'GET', path_contains => '/accounts' }, do => 'hold', count => 1 });
	my $run = $t->start('m');
	$a->until('ids are read back', sub { $a->sim->held > 0 });
	$o{between}->() if $o{between};
	$a->clear;
	is($t->finish($run)->{state}, 'completed', "$name: the run completes");
	is(row(), $o{is}, "$name: the outcome");
	is($t->counts('staging.customers'), "$n/0/$n/0/0", "$name: figures");
	is($a->sim->counters('accounts')->{created_twice}, 0, "$name: nothing was created twice");
	my $before = record();
	is($before->{telephone1}, 'a user', "$name: what the user wrote is there") if $o{between} && $before->{name} !~ /theirs/;
	$t->sql("SELECT dvmig.undo($run, changed => 'skip')");
	my $after = record();
	is(defined $after ? 1 : 0, $o{stays}, "$name: the record " . ($o{stays} ? 'stays' : 'goes') . ' when the run is undone');
	is(scalar @{ $a->sim->export('accounts') }, $o{stays}, "$name: and all others go");
	$t->sql(q{UPDATE dvmig.migration_table SET held_by_undo = NULL});
}
$a->done;

done_testing();

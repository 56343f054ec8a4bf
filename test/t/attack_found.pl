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

# --- an update whose request is carried out seconds after its connection was cut,
# while the row is edited again: the older content must not come last
$t->sql(q{ALTER DATABASE postgres SET dvmig.settle_time = '10s'});
$a->fresh;
is($t->run('m')->{state}, 'completed', 'late update: loaded');
$t->sql(q{UPDATE staging.customers SET name = 'older', processing_flag = 'U' WHERE id = 7});
$a->faults({ match => { method => 'POST', path_contains => 'UpdateMultiple' }, do => 'commit_later', seconds => 3, count => 1 });
my $late = $t->start('m', 'resend => true');
$a->fired(1);
$t->sql(q{UPDATE staging.customers SET name = 'newer', processing_flag = 'U' WHERE id = 7});
is($t->finish($late)->{state}, 'completed', 'late update: the run completes');
$a->until('the late request was carried out', sub { $a->sim->stats->{in_flight} <= 1 && $a->sim->sim('GET', "record/accounts/$id")->{updates} >= 3 });
is(record()->{name}, 'newer', 'late update: what was written last is what the row says');
is($t->sql('SELECT processing_flag FROM staging.customers WHERE id = 7'), 'P', 'late update: and it says so');
$a->clear;
$t->sql(q{ALTER DATABASE postgres SET dvmig.settle_time = '1s'});

# --- two rows of one record: the first creates it, the second updates it, and when
# it goes, it goes for both
$t->sql(q{CREATE TABLE staging.twins (id int PRIMARY KEY, name text, rid uuid);
	INSERT INTO staging.twins SELECT n, 'Twin ' || n, ('11111111-0000-4000-8000-' || lpad((n / 2)::text, 12, '0'))::uuid FROM generate_series(2, 41) n;
	SELECT dvmig.add_table('m', 'staging.twins', 'contact', source_key => 'id', ids => 'column', id_column => 'rid');
	SELECT dvmig.map_column('staging.twins', 'lastname', 'name')});
for my $time ('first', 'second')
{
	my $run = $t->run('m', q{tables => '{staging.twins}'});

	is($run->{state}, 'completed', "rows that share a record, a $time time: the run completes");
	is($t->sql(q{SELECT string_agg(DISTINCT processing_flag::text, '') || ' ' || count(*) FILTER (WHERE x.created_run IS NOT NULL) || ' ' || count(*) FROM staging.twins s JOIN staging.twins_success x USING (id)}),
		'P 20 40', 'one of two has created it');
	is(scalar @{ $a->sim->export('contacts') }, 20, 'they are there once');
	$t->sql("SELECT * FROM dvmig.undo($run->{run}, 'staging.twins')");
	is(scalar @{ $a->sim->export('contacts') }, 0, 'undone, they are gone');
	is($t->sql(q{SELECT string_agg(DISTINCT processing_flag::text, '') || (SELECT count(*) FROM staging.twins_success) FROM staging.twins}), 'U0', 'and no row says that it has one');
	$t->sql(q{SELECT dvmig.release('staging.twins')});
}
# of many, each lap writes one, and the run ends when all have had their turn
for my $lanes (1, 3)
{
	$t->sql(q{TRUNCATE staging.twins, staging.twins_success, staging.twins_error;
		INSERT INTO staging.twins SELECT n, 'Many ' || n, '11111111-0000-4000-8000-000000000099' FROM generate_series(1, 8) n});
	my $run = $t->run('m', qq{tables => '{staging.twins}', lanes => $lanes});
	is($run->{state}, 'completed', "many rows of one record, lanes $lanes: the run completes");
	is($t->sql(q{SELECT string_agg(DISTINCT processing_flag::text, '') FROM staging.twins}), 'P', 'none of them is left over');
	is($t->sql("SELECT string_agg(message, '') FROM dvmig.run_table WHERE run = $run->{run}"), '', 'and no trigger is blamed');
}
$a->done;

done_testing();

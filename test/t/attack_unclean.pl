# A request that was carried out and forgotten: whatever is done to the rows
# before the next run, that one finds out what Dataverse holds
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'attack_unclean', conf => "dvmig.settle_time = 300ms\n");

# forgotten(change, path): the rows were loaded and are changed; the requests of
# the change are carried out, and the worker ends before it learns of it.
sub forgotten
{
	my ($change, $path) = @_;
	my $table = $h->scene(rows => 40);

	is($h->t->run($h->migration)->{state}, 'completed', 'loaded');
	$h->sql("UPDATE $table SET $change, processing_flag = 'U'");
	$h->hold(method => 'POST', path_contains => $path, after => 1);
	# so many deletes are two requests
	my $run = $h->start(least => $path eq '$batch' ? 2 : 1);
	$h->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dvmig run $run'");
	$h->gone($run);
	$h->quiet;
	is($h->t->counts($table), '40/40/0/0/0', 'no row has a verdict');
	return $table;
}

# --- what a forgotten update wrote is written over by the row as it was before
my $table = forgotten(q{family = family || ' II'}, 'UpdateMultiple');
$h->sql("UPDATE $table SET family = 'Family ' || id, processing_flag = 'U'");
is($h->t->run($h->migration)->{state}, 'completed', 'changed back: the run completes');
$h->exact('changed back', '40/0/40/0/0');

# --- and then, without a doubt, an unchanged row is not sent
$h->sql("UPDATE $table SET processing_flag = 'U'");
my $updates = $h->sim->counters('contacts')->{updates};
my $run = $h->t->run($h->migration);
is($run->{unchanged}, 40, 'nothing is in doubt any more: unchanged rows are not sent');
is($h->sim->counters('contacts')->{updates}, $updates, 'nor written');

# --- rows that the forgotten run did not write need not be written
$table = $h->scene(rows => 40);
is($h->t->run($h->migration)->{state}, 'completed', 'loaded');
my $loaded = time();
$h->until('the clock shows seconds later', sub { time() > $loaded + 7 });
$h->sql("UPDATE $table SET family = family || ' II', processing_flag = 'U' WHERE id = 1");
$h->hold(method => 'POST', path_contains => 'UpdateMultiple', after => 1);
$run = $h->start;
$h->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dvmig run $run'");
$h->gone($run);
$h->quiet;
$h->sql("UPDATE $table SET family = 'Family ' || id, processing_flag = 'U'");
$updates = $h->sim->counters('contacts')->{updates};
$run = $h->t->run($h->migration);
is($run->{unchanged}, 39, 'all were loaded again: those that nothing in doubt wrote are unchanged');
is($h->sim->counters('contacts')->{updates}, $updates + 1, 'only the one that was in doubt is written');
$h->exact('loaded again', '40/0/40/0/0');

# --- a forgotten delete: the row, though as it was loaded, has no record
$table = forgotten(q{action_flag = 'D'}, '$batch');
$h->sql("UPDATE $table SET action_flag = 'I', processing_flag = 'U'");
is($h->t->run($h->migration)->{state}, 'completed', 'deleted after all: the run completes');
is($h->sql("SELECT count(*) FROM $table JOIN ${table}_error USING (id) WHERE error_class = 'gone'"), 40, 'the rows say that their records are gone');
$h->exact('deleted after all', '40/0/0/40/0');

# --- renamed meanwhile: what was in doubt still is
$table = forgotten(q{family = family || ' II'}, 'UpdateMultiple');
my ($record) = grep { $_->{new_legacyid} eq '7' } @{ $h->sim->export('contacts') };
$h->sim->change('contacts', $record->{contactid}, { lastname => 'Changed by a user' });
$h->sql("ALTER TABLE $table RENAME TO renamed; ALTER TABLE ${table}_success RENAME TO renamed_success; ALTER TABLE ${table}_error RENAME TO renamed_error");
is($h->t->run($h->migration)->{state}, 'completed', 'renamed: the run completes');
is($h->t->counts('renamed'), '40/0/39/1/0', 'renamed: the row that a user changed in Dataverse is listed');
is($h->sql(q{SELECT error_class FROM renamed_error WHERE id = 7}), 'changed', 'and why');
is((grep { $_->{contactid} eq $record->{contactid} } @{ $h->sim->export('contacts') })[0]{lastname}, 'Changed by a user', 'and the change is kept');

done_testing();

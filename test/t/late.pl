# Requests that may simply be sent again (files, links), carried out long after
# they were given up: what came of the row since must not be written over
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'late', conf => "dvmig.settle_time = '3s'\n");
my $t = $h->t;
my $sim = $h->sim;

sub done { my ($name) = @_; is($t->run($h->migration)->{state}, 'completed', $name); return; }

# begin(arguments of hold): a run of which the first such request hangs for longer than it is waited for
sub begin
{
	my (%match) = @_;

	$t->sql(q{ALTER DATABASE postgres SET dvmig.request_timeout = '1s'});
	$sim->fault({ match => \%match, do => 'hold', count => 1 });
	my $run = $h->start;
	$t->sql(q{ALTER DATABASE postgres RESET dvmig.request_timeout});
	return $run;
}

# lets_go_first(run): what hangs is answered while the run says that it waits for that; false where it waited no more
sub lets_go_first
{
	my ($run) = @_;
	my $waits = q{state IN ('starting', 'running') AND message LIKE '%may still be carried out, see dvmig.settle_time'};

	$t->wait_for("SELECT $waits OR state NOT IN ('starting', 'running') FROM dvmig.run_history WHERE run = $run");
	$h->quiet;
	return $t->sql("SELECT coalesce($waits, false) FROM dvmig.run_history WHERE run = $run") eq 't';
}

# changed(name, change, dies): the row is changed while the request hangs (and the worker ends, where it is to); the run
# that sends what the row says now
sub changed
{
	my ($name, $change, $dies, %match) = @_;
	my $run = begin(%match);

	if (!$dies)
	{
		$t->sql($change);
		return $run;
	}
	$t->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dvmig run $run'");
	$h->gone($run);
	$t->sql($change);
	is($t->sql("SELECT dvmig.wait($run)"), 'interrupted', "$name: the run is interrupted");
	return $t->start($h->migration);
}

# overtaken(name, prepare, as for changed): whoever sends what the row says now lets the request go first. On a machine
# that is so slow that it is waited for no more by then, all of it is done again, with more time.
my $slow = 0;
sub overtaken
{
	my ($name, $prepare, @changed) = @_;
	my $run;

	for (0, 1)
	{
		$t->sql(sprintf q{ALTER DATABASE postgres SET dvmig.settle_time = '%ds'}, $slow ? 90 : 3);
		$prepare->();
		$run = changed($name, @changed);
		last if lets_go_first($run);
		fail("$name: what hangs is waited for") if $slow++;
		$t->finish($run);
	}
	is($t->finish($run)->{state}, 'completed', "$name: the run completes");
	done("$name: and the next one");
	return;
}

# --- files: another one, while what became of the first is not known
$t->sql(q{CREATE TABLE bills (id int PRIMARY KEY, number text, document bytea)});
$t->migration('files', tables => 'new_invoice');
$t->sql(q{SELECT dvmig.add_table('files', 'bills', 'new_invoice', auto_map => false); SELECT dvmig.map_column('bills', 'new_invoicenumber', 'number');
	SELECT dvmig.map_file('bills', 'new_document', 'document')});
$h->{migration} = 'files';

sub uploaded
{
	my ($status, $bytes) = $sim->curl('GET', '/api/data/v9.2/new_invoices(' . $t->sql('SELECT dataverse_id FROM bills') . ')/new_document/$value',
		undef, 'Authorization: Bearer ' . $sim->token, 'OData-Version: 4.0', 'OData-MaxVersion: 4.0');
	return $status == 200 ? $bytes : "status $status";
}

for my $dies (0, 1)
{
	my $name = 'files' . ($dies ? ', the worker ends' : '');

	overtaken($name, sub { $t->sql(q{TRUNCATE bills, bills_success; INSERT INTO bills VALUES (1, 'N1', 'first')}) }, q{UPDATE bills SET document = 'second', processing_flag = 'U'}, $dies, method => 'PATCH', path_contains => 'new_document');
	is($t->counts('bills'), '1/0/1/0/0', "$name: figures");
	is(uploaded(), 'second', "$name: the file is the one that the row says");
}

# --- links: taken away, or made, while what became of the opposite is not known
$h->links(1);
done('links: their records');

sub made { return scalar @{ $sim->sim('GET', 'links/new_playlist_new_track')->{pairs} }; }

for my $case ([ 'made', 'I', 'D', 0 ], [ 'taken away', 'D', 'I', 1 ])
{
	my ($what, $first, $then, $there) = @$case;

	for my $dies (0, 1)
	{
		my $name = "link $what" . ($dies ? ', the worker ends' : '');

		my $prepare = sub {
			$t->sql('DELETE FROM pairs; DELETE FROM pairs_success; INSERT INTO pairs VALUES (1, 1)');
			# as it is to be before the request
			$t->sql(q{UPDATE pairs SET action_flag = 'D'}) if $first eq 'I';
			done("$name: before");
			is(made(), $first eq 'I' ? 0 : 1, "$name: as it was");
			$t->sql("UPDATE pairs SET action_flag = '$first', processing_flag = 'U'");
		};
		overtaken($name, $prepare, "UPDATE pairs SET action_flag = '$then', processing_flag = 'U'", $dies, method => 'POST', path_contains => '$batch', body_contains => '$ref');
		is($t->counts('pairs'), '1/0/1/0/0', "$name: figures");
		is(made(), $there, "$name: and it is as the row says");
		$t->sql(q{UPDATE pairs SET action_flag = 'D', processing_flag = 'U'});
		done("$name: and away");
	}
}

done_testing();

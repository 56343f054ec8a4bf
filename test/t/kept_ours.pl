# Records that a run created and lost the outcome of, and that somebody else has
# modified since: what he wrote stays, and what comes after a create they still get
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'kept_ours', conf => "dvmig.settle_time = '300ms'\n");
my $t = $h->t;
my $sim = $h->sim;
my $n = 0;

sub done { my ($name, $m, $arguments) = @_; is($t->run($m, $arguments)->{state}, 'completed', $name); return; }

# records(): those held, by the number of their row
sub records { return { map { ($_->{new_invoicenumber} =~ /(\d+)$/)[0] => $_ } @{ $sim->export('new_invoices') } }; }

sub file
{
	my ($id) = @_;
	my ($status, $bytes) = $sim->curl('GET', "/api/data/v9.2/new_invoices($id)/new_document/\$value", undef,
		'Authorization: Bearer ' . $sim->token, 'OData-Version: 4.0', 'OData-MaxVersion: 4.0');
	return $status == 200 ? $bytes : "status $status";
}

for my $case (
	[ 'derived ids' ],
	[ 'ids of the platform', add => q{, ids => 'platform'} ],
	[ 'dates of creation given', setup => q{SELECT dvmig.map_column('%1$s', 'overriddencreatedon', $$'2019-05-01 12:00 UTC'::timestamptz$$)} ],
	[ 'existing records are kept', setup => q{SELECT dvmig.set_table('%1$s', 'on_exists', 'keep')} ],
	[ 'existing records are errors', setup => q{SELECT dvmig.set_table('%1$s', 'on_exists', 'error')} ],
	[ 'an automation writes every record', automation => 'new_invoice.new_terms=seen' ])
{
	my ($name, %o) = @$case;
	my $table = 'bills' . ++$n;
	my $m = "b$n";

	$sim->sim('POST', 'reset');
	$sim->set(automation => $o{automation} // '');
	# each corrects the one before it, in a circle; every second is to be closed
	$t->sql("CREATE TABLE $table (id int PRIMARY KEY, number text, reference text, corrects int REFERENCES $table DEFERRABLE INITIALLY DEFERRED, document bytea, st int);
		INSERT INTO $table SELECT n, '$m-' || n, 'R' || n, 1 + n % 6, convert_to('file ' || n, 'UTF8'), CASE WHEN n % 2 = 0 THEN 1 ELSE 0 END FROM generate_series(1, 6) n");
	$t->migration($m, tables => 'new_invoice');
	$t->sql(sprintf(q{
		SELECT dvmig.add_table('%2$s', '%1$s', 'new_invoice', source_key => 'id', auto_map => false%3$s);
		SELECT dvmig.map_column('%1$s', 'new_invoicenumber', 'number');
		SELECT dvmig.map_column('%1$s', 'new_reference', 'reference');
		SELECT dvmig.map_lookup('%1$s', 'new_correctsid', 'corrects', '%1$s');
		SELECT dvmig.map_file('%1$s', 'new_document', 'document');
		SELECT dvmig.map_column('%1$s', 'statecode', 'st')}, $table, $m, $o{add} // ''));
	$t->sql(sprintf $o{setup}, $table) if $o{setup};

	# carried out, and the worker ends before it learns of it
	$h->hold(method => 'POST', path_contains => 'CreateMultiple', after => 1);
	my $run = $t->start($m);
	$h->until('requests hang', sub { $h->held > 0 });
	$t->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dvmig run $run'");
	$h->gone($run, "$name: the worker has ended");
	$h->quiet;
	is($t->counts($table), '6/6/0/0/0', "$name: no row has a verdict");
	my $made = records();
	is(join(' ', sort keys %$made), '1 2 3 4 5 6', "$name: their records are there");
	$sim->change('new_invoices', $made->{2}{new_invoiceid}, { new_reference => 'a user' });
	$sim->change('new_invoices', $made->{3}{new_invoiceid}, { new_reference => 'a user', statecode => 1, statuscode => 2 });

	done("$name: the next run completes", $m);
	is($t->counts($table), '6/0/6/0/0', "$name: its figures");
	is($t->sql("SELECT string_agg(DISTINCT processing_flag::text, '') || count(x.owed_passes) FROM $table JOIN ${table}_success x USING (id)"), 'P0', "$name: nothing is owed");
	my $have = records();
	is(join(' ', map { $have->{$_}{_new_correctsid_value} // 'none' } 1 .. 6), join(' ', map { $have->{ 1 + $_ % 6 }{new_invoiceid} } 1 .. 6), "$name: every lookup is set");
	is(join(' ', map { file($have->{$_}{new_invoiceid}) } 1 .. 6), join(' ', map { "file $_" } 1 .. 6), "$name: every file is there");
	is(join(' ', map { $have->{$_}{statecode} } 1 .. 6), '0 1 1 1 0 1', "$name: every state is set, and where none was to be set what the user set stays");
	is(join(' ', map { $have->{$_}{new_reference} } 1 .. 6), 'R1 a user a user R4 R5 R6', "$name: what the user wrote stays");
	is($t->sql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM ${table}_success WHERE message LIKE 'kept: the record was modified in Dataverse by another user since an earlier run created it%'"),
		$o{automation} ? '1 2 3 4 5 6' : '2 3', "$name: which the outcome says");
	is($t->sql("SELECT count(created_run) FROM ${table}_success WHERE message LIKE 'kept%'"), 0, "$name: and these are not for undo to delete");
	is($sim->counters('new_invoices')->{created_twice} . ' ' . keys %$have, '0 6', "$name: nothing was created twice");

	# the last who wrote them was dvmig, with the lookup; all the same they are kept
	$t->sql("UPDATE $table SET processing_flag = 'U'");
	my $updates = $sim->sim('GET', "record/new_invoices/$made->{2}{new_invoiceid}")->{updates};
	done("$name: loaded again", $m, 'resend => true');
	is($t->counts($table), '6/0/6/0/0', "$name: loaded again: figures");
	is($sim->sim('GET', "record/new_invoices/$made->{2}{new_invoiceid}")->{updates}, $updates, "$name: loaded again: it is not written");
	is(join(' ', map { $_->{new_reference} . $_->{statecode} } map { records()->{$_} } 2, 3), 'a user1 a user1', "$name: loaded again: what the user wrote stays");
	$t->sql("SELECT dvmig.drop_migration('$m')");
}
$sim->set(automation => '');

# --- also the pass in which lookups are set was begun, and what it did is not known: the row is listed, and a
# retry, by which its owner says that the row counts, writes it as a whole
$sim->sim('POST', 'reset');
$t->sql("CREATE TABLE last (id int PRIMARY KEY, number text, reference text, corrects int);
	INSERT INTO last SELECT n, 'last-' || n, 'R' || n, 1 + n % 6 FROM generate_series(1, 6) n");
$t->migration('last', tables => 'new_invoice');
$t->sql(q{SELECT dvmig.add_table('last', 'last', 'new_invoice', source_key => 'id', auto_map => false);
	SELECT dvmig.map_column('last', 'new_invoicenumber', 'number');
	SELECT dvmig.map_column('last', 'new_reference', 'reference');
	SELECT dvmig.map_lookup('last', 'new_correctsid', 'corrects', 'last')});
$sim->fault({ match => { method => 'POST', path_contains => 'UpdateMultiple' }, do => 'reset_before', count => 0 });
my $run = $t->start('last');
$h->until('lookups cannot be set', sub { $sim->stats->{faults} > 0 });
$t->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dvmig run $run'");
$h->gone($run, 'lookups in doubt: the worker has ended');
$h->quiet;
# as after a crash that took the last commits along
$t->sql(q{TRUNCATE last_success; UPDATE last SET processing_flag = 'U', dataverse_id = NULL});
my $two = records()->{2}{new_invoiceid};
$sim->change('new_invoices', $two, { new_reference => 'a user' });
done('lookups in doubt: the next run completes', 'last');
is($t->counts('last'), '6/0/5/1/0', 'lookups in doubt: the row that others changed is listed');
is($t->sql('SELECT id || error_class FROM last_error'), '2changed', 'lookups in doubt: and why');
is(records()->{2}{new_reference}, 'a user', 'lookups in doubt: the change stays');
$t->sql(q{SELECT dvmig.retry('last')});
done('lookups in doubt: retried', 'last');
is($t->counts('last'), '6/0/6/0/0', 'lookups in doubt: retried: figures');
my $have = records();
is(join(' ', map { $have->{$_}{_new_correctsid_value} // 'none' } 1 .. 6), join(' ', map { $have->{ 1 + $_ % 6 }{new_invoiceid} } 1 .. 6), 'lookups in doubt: retried: every lookup is set');
is($have->{2}{new_reference}, 'R2', 'lookups in doubt: retried: and all that the row says');

done_testing();

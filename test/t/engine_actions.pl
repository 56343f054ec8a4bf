# Inserts, updates and deletes, and what becomes of records that are there
# already, are missing, or were changed by somebody else
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use DvMig::Attack;

# The verdict on one row: flag, class or message.
sub verdict
{
	my ($a, $id, $table) = @_;
	$table //= 'customers';
	return $a->sql(qq{
		SELECT concat_ws(' ', s.processing_flag, ok.operation, ok.message, er.error_class)
		FROM staging.$table s LEFT JOIN staging.${table}_success ok USING (id) LEFT JOIN staging.${table}_error er USING (id) WHERE s.id = $id});
}

sub record
{
	my ($a, $key, $set) = @_;
	return (grep { ($_->{new_legacyid} // '') eq $key } @{ $a->sim->export($set // 'accounts') })[0];
}

# The id that a row has, or will have.
sub id_of
{
	my ($a, $id) = @_;
	return $a->sql(qq{SELECT coalesce(s.dataverse_id, dvmig.record_id(t.namespace, s.id)) FROM staging.customers s, dvmig.migration_table t
		WHERE t.staging = 'staging.customers'::regclass AND s.id = $id});
}

for my $profile (qw(strict lenient odd))
{
	my $a = DvMig::Attack->new(profile => $profile, name => "actions_$profile", rows => 40);
	my $run;
	my $l;

	# --- I, U, D in one run, whatever their order in the table
	$l = "$profile: all actions";
	$a->fresh;
	$a->run;
	$a->sql(q{
		UPDATE staging.customers SET action_flag = 'D', processing_flag = 'U' WHERE id % 4 = 1;
		UPDATE staging.customers SET action_flag = 'U', processing_flag = 'U', name = name || ' updated' WHERE id % 4 = 2;
		INSERT INTO staging.customers SELECT n, 'Company ' || n, NULL, n FROM generate_series(1001, 1010) n});
	$run = $a->run;
	is($run->{state}, 'completed', "$l: the run completes");
	$a->exact($l, customers => '50/0/50/0/0');
	is($a->sim->stats->{rows_deleted}, 10, "$l: ten were deleted");
	is($a->sim->stats->{rows_updated}, 10, "$l: ten were updated");

	# --- once more, unchanged: nothing goes out
	$a->sql(q{UPDATE staging.customers SET processing_flag = 'U' WHERE action_flag <> 'D'});
	$run = $a->run;
	is("$run->{rows_sent}/$run->{unchanged}", '0/40', "$l: unchanged rows are not sent");
	like(verdict($a, 2), qr/unchanged/, "$l: and say so");
	$a->exact("$l: unchanged", customers => '50/0/50/0/0');

	# --- a deleted row comes back, fails, and is corrected: it is created
	$l = "$profile: back after a delete";
	$a->sql(q{UPDATE staging.customers SET action_flag = 'I', processing_flag = 'U', name = repeat('x', 161) WHERE id = 1;
		UPDATE staging.customers SET action_flag = 'I', processing_flag = 'U' WHERE id = 5});
	$run = $a->run;
	is(verdict($a, 1), 'E length', "$l: refused");
	is(verdict($a, 5), 'P I', "$l: created");
	$a->sql(q{UPDATE staging.customers SET name = 'Company 1'; SELECT dvmig.retry('staging.customers')} =~ s/'Company 1';/'Company 1' WHERE id = 1;/r);
	$run = $a->run;
	is(verdict($a, 1), 'P I', "$l: created when corrected");
	is($a->t->counts('staging.customers'), '50/0/50/0/0', "$l: figures");
	ok(record($a, 1) && record($a, 5), "$l: Dataverse holds them");

	# --- U on a record that is missing is "gone", D on one is done
	$l = "$profile: missing records";
	$a->fresh;
	$a->run;
	$a->sim->sim('POST', 'import', { delete => JSON::PP::true, set => 'accounts', id => id_of($a, $_) }) for 1 .. 4;
	$a->sql(q{
		UPDATE staging.customers SET action_flag = 'U', processing_flag = 'U', phone = 'x' WHERE id IN (1, 2, 10, 11);
		UPDATE staging.customers SET action_flag = 'D', processing_flag = 'U' WHERE id IN (3, 12);
		UPDATE staging.customers SET processing_flag = 'U', phone = 'x' WHERE id = 4;
		INSERT INTO staging.customers (id, name, action_flag) VALUES (2001, 'never created', 'U'), (2002, 'never created', 'D')});
	$run = $a->run;
	is(verdict($a, $_), 'E gone', "$l: row $_ is gone") for 1, 2, 4, 2001;
	is(verdict($a, $_), 'P D', "$l: row $_ is done") for 3, 12, 2002;
	is(verdict($a, $_), 'P U', "$l: row $_ is updated") for 10, 11;
	is($a->sim->stats->{rows_created}, 40, "$l: no update created anything");
	$a->exact($l, customers => '42/0/38/4/0');

	# --- a row whose change cannot be transformed keeps its record and, when
	# corrected, updates it
	$l = "$profile: a change that throws";
	$a->sql(q{
		SELECT dvmig.unmap('staging.customers', 'revenue');
		SELECT dvmig.map_column('staging.customers', 'revenue', '1.25 * id * 1000 / (revenue * 1000 / revenue)')});
	$a->fresh;
	$a->run;
	my $id7 = id_of($a, 7);
	$a->sql(q{UPDATE staging.customers SET revenue = 0, phone = 'x', processing_flag = 'U' WHERE id = 7});
	$run = $a->run;
	is(verdict($a, 7), 'E transform', "$l: fails");
	is($a->sql(q{SELECT dataverse_id || ' ' || (created_run IS NOT NULL) || ' ' || operation FROM staging.customers_error WHERE id = 7}),
		"$id7 true U", "$l: the error knows the record");
	$a->exact($l, customers => '40/0/39/1/0');
	$a->sql(q{UPDATE staging.customers SET revenue = 8.75 WHERE id = 7; SELECT dvmig.retry('staging.customers')});
	$a->run;
	is(verdict($a, 7), 'P U', "$l: updates when corrected");
	$a->exact("$l: corrected", customers => '40/0/40/0/0');
	$a->sql(q{
		SELECT dvmig.unmap('staging.customers', 'revenue');
		SELECT dvmig.map_column('staging.customers', 'revenue', 'revenue')});

	# --- records that are there already: update, keep, error; and not where
	# somebody else has modified them
	for my $on_exists (qw(update keep error))
	{
		$l = "$profile: on_exists $on_exists";
		$a->fresh;
		$a->run;
		$a->sql(qq{
			TRUNCATE staging.customers_success;
			UPDATE dvmig.migration_table SET on_exists = '$on_exists';
			UPDATE staging.customers SET processing_flag = 'U', dataverse_id = NULL, phone = 'new ' || id;
			INSERT INTO staging.customers SELECT n, 'Company ' || n, NULL, n FROM generate_series(1001, 1003) n});
		$a->user_edit('accounts', id_of($a, 7), { telephone1 => 'by a user' });
		$run = $a->run;
		is($run->{state}, 'completed', "$l: the run completes");
		is(record($a, 7)->{telephone1}, 'by a user', "$l: what a user wrote is kept");
		is(record($a, 8)->{telephone1}, $on_exists eq 'update' ? 'new 8' : '+49 8', "$l: another record");
		is($a->t->counts('staging.customers'), $on_exists eq 'error' ? '43/0/3/40/0' : '43/0/43/0/0', "$l: figures");
		like(verdict($a, 7), $on_exists eq 'error' ? qr/^E exists/ : qr/^P . kept: .*(another user|existed)/, "$l: and says so");
		is($a->twice('accounts'), 0, "$l: none was created twice");
		is(scalar(@{ $a->sim->export('accounts') }), 43, "$l: records");
	}
	$a->sql(q{UPDATE dvmig.migration_table SET on_exists = 'update'});

	# --- a user changes a record after it was found and before it is updated
	$l = "$profile: changed between look and update";
	$a->fresh;
	$a->run;
	$a->sql(q{
		TRUNCATE staging.customers_success;
		UPDATE staging.customers SET processing_flag = 'U', dataverse_id = NULL, phone = 'new ' || id});
	# the look that tells that the records are ours, then a lap's end
	my $id9 = id_of($a, 9);
	$a->faults({ match => { method => 'POST', path_contains => 'UpdateMultiple' }, do => 'throttle', retry_after => 2, count => 1 });
	$run = $a->t->start('m');
	$a->fired(1);
	$a->user_edit('accounts', $id9, { telephone1 => 'by a user' });
	is($a->t->finish($run)->{state}, 'completed', "$l: the run completes");
	is(record($a, 10)->{telephone1}, 'new 10', "$l: the others are updated");

	# --- truncate and reload: equal data sends nothing, changed data what changed
	$l = "$profile: reload";
	$a->fresh;
	$a->run;
	my $reload = q{
		CREATE TEMP TABLE copy AS SELECT id, name, phone, revenue FROM staging.customers;
		TRUNCATE staging.customers;
		INSERT INTO staging.customers (id, name, phone, revenue) SELECT * FROM copy};
	$a->sql($reload);
	$run = $a->run;
	is("$run->{state}/$run->{rows_sent}/$run->{unchanged}", 'completed/0/40', "$l: equal data sends nothing");
	$a->exact($l, customers => '40/0/40/0/0');
	$a->sql($reload . q{; UPDATE staging.customers SET name = 'Other ' || id WHERE id <= 3; UPDATE staging.customers SET phone = NULL WHERE id = 4});
	$run = $a->run;
	is("$run->{state}/$run->{rows_sent}/$run->{unchanged}", 'completed/4/36', "$l: changed data sends what changed");
	$a->exact("$l: changed", customers => '40/0/40/0/0');
	$a->sql($reload . q{; UPDATE staging.customers SET name = 'Third ' || id});
	$a->sql('ALTER DATABASE postgres SET dvmig.max_resend = 39');
	like($a->t->error(q{SELECT dvmig.start('m')}), qr/55000.*40 rows that are already loaded/s, "$l: more than max_resend are refused");
	is($a->t->counts('staging.customers'), '40/40/0/0/0', "$l: and nothing has happened");
	$run = $a->run('resend => true');
	is("$run->{state}/$run->{rows_sent}", 'completed/40', "$l: unless resend is asked for");
	$a->exact("$l: resent", customers => '40/0/40/0/0');
	$a->sql('ALTER DATABASE postgres RESET dvmig.max_resend');

	# --- columns by direction
	$l = "$profile: direction";
	$a->sql(q{
		SELECT dvmig.map_column('staging.customers', 'description', $$'made by ' || name$$, send => 'insert');
		SELECT dvmig.map_column('staging.customers', 'fax', $$'later ' || phone$$, send => 'update')});
	$a->fresh;
	$a->run;
	is(join('|', map { $_ // '' } @{ record($a, 5) }{qw(description fax)}), 'made by Company 5|', "$l: a create");
	$a->sql(q{UPDATE staging.customers SET name = 'Other', phone = '123', processing_flag = 'U' WHERE id = 5});
	$a->run;
	is(join('|', @{ record($a, 5) }{qw(name description fax)}), 'Other|made by Company 5|later 123', "$l: an update");
	$a->sql(q{SELECT dvmig.unmap('staging.customers', 'description'); SELECT dvmig.unmap('staging.customers', 'fax')});

	# --- adopt
	$l = "$profile: adopt";
	$a->fresh;
	$a->sim->sim('POST', 'import', qq({"set":"accounts","id":"$_->[0]","changes":{"name":"Was there","new_legacyid":"$_->[1]"}}))
	  for [ '11111111-2222-4333-8444-000000000001', 1 ], [ '11111111-2222-4333-8444-000000000002', 2 ];
	is($a->sql(q{SELECT adopted || '/' || ambiguous || '/' || absent FROM dvmig.adopt('staging.customers', 'new_legacyid')}), '2/0/38', "$l: figures");
	$run = $a->run;
	is($run->{state}, 'completed', "$l: the run completes");
	like(verdict($a, 1), qr/kept: .*another user/, "$l: a record of somebody else is kept");
	is($a->sql('SELECT dataverse_id FROM staging.customers WHERE id = 1'), '11111111-2222-4333-8444-000000000001', "$l: its id is the row's");
	is(scalar(@{ $a->sim->export('accounts') }), 40, "$l: no second record is made");
	is($a->t->counts('staging.customers'), '40/0/40/0/0', "$l: figures");

	# --- two rows that are given one id: one after the other, never two records
	$l = "$profile: one id for two rows";
	$a->fresh;
	$a->sql(q{UPDATE staging.customers SET dataverse_id = '11111111-2222-4333-8444-000000000009' WHERE id IN (3, 4, 30)});
	$run = $a->run;
	is($run->{state}, 'completed', "$l: the run completes");
	is($a->sim->stats->{rows_created}, 38, "$l: one record of it is made");
	is($a->twice('accounts'), 0, "$l: once");
	is($a->sql(q{SELECT count(*) FROM staging.customers WHERE processing_flag = 'U'}), 0, "$l: every row has its verdict");

	# --- retry by filter
	$l = "$profile: retry";
	$a->fresh;
	$a->sql(q{UPDATE staging.customers SET name = repeat('x', 161) WHERE id <= 4; UPDATE staging.customers SET revenue = 'NaN' WHERE id IN (5, 6)});
	$a->run;
	is($a->t->counts('staging.customers'), '40/0/34/6/0', "$l: six fail");
	is($a->sql(q{SELECT dvmig.retry('staging.customers', filter => $$e.error_class = 'length' AND s.id > 2$$)}), 2, "$l: two are taken by the filter");
	is($a->t->counts('staging.customers'), '40/2/34/4/0', "$l: and are unprocessed");
	like($a->t->error(q{SELECT dvmig.retry('staging.customers', filter => $$e.no_such = 1$$)}), qr/42703/, "$l: a filter that is wrong is an error");
	like($a->t->error(q{SELECT dvmig.retry('staging.customers', 'id = 1')}), qr/42702.*"id" is ambiguous.*In the filter s\.id is of the staging row/s, "$l: whose hint tells the two rows apart");
	$a->sql(q{UPDATE staging.customers SET name = 'short' WHERE id <= 4});
	$a->run;
	is($a->t->counts('staging.customers'), '40/0/36/4/0', "$l: only they were sent");
	$a->sql(q{UPDATE staging.customers SET revenue = 1 WHERE id IN (5, 6); SELECT dvmig.retry('staging.customers')});
	$a->run;
	$a->exact($l, customers => '40/0/40/0/0');

	# --- at most so many rows
	$l = "$profile: max_rows";
	$a->fresh;
	$run = $a->run('max_rows => 15');
	is($run->{state}, 'completed', "$l: the run completes");
	is($a->t->counts('staging.customers'), '40/25/15/0/0', "$l: so many rows");
	$a->run;
	$a->exact($l, customers => '40/0/40/0/0');
	$a->done;
}

done_testing();

# Written as other users, past custom logic, and with the date of the source
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

for my $profile (qw(strict lenient odd))
{
	my $t = DvMig->new(profile => $profile, name => "callers_$profile");
	my @user = map { lc $_->{systemuserid} } sort { $a->{domainname} cmp $b->{domainname} } grep { ($_->{domainname} // '') =~ /^user\d/ } @{ $t->sim->export('systemusers') };
	my $run;

	cmp_ok(scalar(@user), '>', 3, "$profile: there are users");
	$t->sql(qq{
		ALTER DATABASE postgres SET dvmig.settle_time = '300ms';
		CREATE SCHEMA staging;
		CREATE TABLE staging.customers (id int PRIMARY KEY, name text, author uuid, born timestamptz);
		INSERT INTO staging.customers SELECT n, 'C' || n, (ARRAY['$user[0]', '$user[1]', '$user[2]', NULL]::uuid[])[1 + n % 4], '2011-02-03 04:05:06Z' FROM generate_series(1, 200) n;
		UPDATE staging.customers SET author = '$user[3]' WHERE id IN (7, 8);
		CREATE TABLE staging.todo (id int PRIMARY KEY, subject text);
		INSERT INTO staging.todo VALUES (1, 'One'), (2, 'Two')});
	$t->migration('m', tables => 'account,task');
	$t->sql(q{
		SELECT dvmig.add_table('m', 'staging.customers', 'account', source_key => 'id', caller => 'author');
		SELECT dvmig.map_column('staging.customers', 'name', 'name');
		SELECT dvmig.map_column('staging.customers', 'overriddencreatedon', 'born');
		SELECT dvmig.add_table('m', 'staging.todo', 'task', source_key => 'id')});
	like($t->error(q{CREATE TABLE staging.other (id int PRIMARY KEY, author uuid); SELECT dvmig.add_table('m', 'staging.other', 'account', caller => 'author', caller_object_id => 'author')}),
		qr/exclude each other/, "$profile: a table has one caller");
	like($t->error(q{SELECT dvmig.add_table('m', 'staging.other', 'account', caller => 'id')}), qr/the caller is of type integer, not uuid/, "$profile: which is the id of a user");
	like($t->error(q{SELECT dvmig.set_table('staging.customers', 'caller', 'name')}), qr/the caller is of type text, not uuid/, "$profile: a caller is a uuid");
	like($t->error(q{SELECT dvmig.set_table('staging.customers', 'caller_object_id', 'author')}), qr/exclude each other/, "$profile: by one id only");

	# --- a user who is disabled fails his rows, not the run
	$t->sim->sim('POST', 'import', qq({"set":"systemusers","id":"$user[3]","changes":{"isdisabled":true}}));
	$t->sim->fault({ match => { method => 'POST', path_contains => 'CreateMultiple' }, nth => 2, count => 1, do => 'reset_after' });
	$run = $t->run('m');
	is($run->{state}, 'completed', "$profile: the run completes");
	is($t->counts('staging.customers'), '200/0/198/2/0', "$profile: rows of a disabled user fail");
	is($t->sql(q{SELECT string_agg(DISTINCT error_class || ' ' || code, ', ') FROM staging.customers_error}), 'caller 0x80040225', "$profile: saying so");
	my %fields = (name => 's.name', createdon => q{'2011-02-03T04:05:06Z'}, _createdby_value => "coalesce(s.author, 'cccccccc-0000-4000-8000-0000000000aa')");
	my ($app) = map { $_->{_createdby_value} } grep { $_->{name} eq 'C3' } @{ $t->sim->export('accounts') };
	$fields{_createdby_value} = "coalesce(s.author, '$app')";
	$t->account('m', 'staging.customers' => \%fields);

	# --- the same by the user's object id in Entra
	my %object = map { lc $_->{systemuserid} => $_->{azureactivedirectoryobjectid} } @{ $t->sim->export('systemusers') };
	my $known = join ', ', map { "('$_'::uuid, '$object{$_}'::uuid)" } @user[ 0 .. 2 ];
	$t->sql(qq{
		CREATE TABLE staging.branches (id int PRIMARY KEY, name text, author uuid, entra uuid);
		INSERT INTO staging.branches SELECT n, 'B' || n, k.author, k.entra FROM generate_series(1, 30) n JOIN (SELECT row_number() OVER () AS i, * FROM (VALUES $known) v (author, entra)) k ON k.i = 1 + n % 3;
		INSERT INTO staging.branches VALUES (31, 'B31', NULL, '00000000-dead-4000-8000-000000000000');
		SELECT dvmig.add_table('m', 'staging.branches', 'account', auto_map => false, caller_object_id => 'entra');
		SELECT dvmig.map_column('staging.branches', 'name', 'name')});
	is($t->run('m')->{state}, 'completed', "$profile: callers by object id");
	is($t->sql(q{SELECT string_agg(concat_ws(' ', id, error_class), ', ') FROM staging.branches_error}), '31 caller', "$profile: one who is nobody fails his rows");
	$t->account('m', 'staging.branches' => { name => 's.name', _createdby_value => 's.author' }, 'staging.customers' => \%fields);

	# --- made as somebody else by a run that was ended before it learnt of it: ours all the same
	$t->sql(qq{INSERT INTO staging.branches SELECT n, 'B' || n, k.author, k.entra FROM generate_series(41, 60) n
		JOIN (SELECT row_number() OVER () AS i, * FROM (VALUES $known) v (author, entra)) k ON k.i = 1 + n % 3});
	$t->sim->fault({ match => { method => 'POST', path_contains => 'CreateMultiple' }, count => 0, do => 'hold', after => JSON::PP::true });
	my $ended = $t->start('m');
	$t->until('requests hang', sub { $t->sim->held > 1 });
	$t->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'dvmig worker'});
	is($t->sql("SELECT dvmig.wait($ended)"), 'interrupted', "$profile: a run is ended");
	$t->sim->sim('DELETE', 'fault');
	is($t->run('m')->{state}, 'completed', "$profile: the next one completes");
	is($t->sql(q{SELECT count(*) FROM staging.branches_success WHERE message LIKE 'kept:%'}), 0, "$profile: what was made as others is not taken for theirs");
	$t->account('m', 'staging.branches' => { name => 's.name', _createdby_value => 's.author' }, 'staging.customers' => \%fields);
	$t->sql(q{SELECT dvmig.drop_table('staging.branches', drop_outcomes => true)});
	my %extra = (-extra => { accounts => 50 });

	# --- an update whose answer is lost is ours also where another user stands for us
	$t->sql(q{UPDATE staging.customers SET name = name || ' changed', processing_flag = 'U' WHERE id > 100});
	$t->sim->fault({ match => { method => 'POST', path_contains => 'UpdateMultiple' }, nth => 1, count => 2, do => 'reset_after' });
	$run = $t->run('m');
	is($run->{state}, 'completed', "$profile: updates");
	is($t->counts('staging.customers'), '200/0/198/2/0', "$profile: all of them");
	$t->account('m', 'staging.customers' => \%fields, %extra);

	# --- bypass headers: in bulk messages and in every part of a $batch
	$t->sim->set(bypass_privilege => 'off');
	$t->sql(q{UPDATE staging.todo SET subject = subject || '!', processing_flag = 'U'});
	is($t->run('m')->{state}, 'completed', "$profile: without the headers no privilege is needed");
	$t->sql(q{SELECT dvmig.set_migration('m', 'bypass_custom_logic', 'sync,async'); UPDATE staging.todo SET subject = subject || '!', processing_flag = 'U'});
	$t->{quiet} = 1;
	$run = $t->run('m');
	like("$run->{state} $run->{message}", qr/^failed .*prvBypassCustomBusinessLogic/, "$profile: parts of a batch have them");
	$t->sql(q{SELECT dvmig.set_table('staging.todo', 'bypass_custom_logic', 'none')});
	is($t->run('m')->{state}, 'completed', "$profile: a table may say otherwise");
	$t->sql(q{UPDATE staging.customers SET name = name || '!', processing_flag = 'U' WHERE id < 7});
	$run = $t->run('m');
	like("$run->{state} $run->{message}", qr/^failed .*prvBypassCustomBusinessLogic/, "$profile: bulk messages have them");
	$t->sim->set(bypass_privilege => 'on');
	is($t->run('m')->{state}, 'completed', "$profile: with the privilege");
	$t->account('m', 'staging.customers' => \%fields, %extra);
	$t->sql(q{SELECT dvmig.set_table('staging.todo', 'bypass_flows', 'true'), dvmig.set_table('staging.todo', 'duplicate_detection', 'true');
		UPDATE staging.todo SET subject = subject || '!', processing_flag = 'U'});
	$t->sim->fault({ match => { method => 'POST', body_contains => 'MSCRM.SuppressCallbackRegistrationExpanderJob: true' }, count => 1, do => 'status', status => 500, code => '0x80044150', message => 'Sql Number: 1205' });
	$t->sim->fault({ match => { method => 'POST', body_contains => 'MSCRM.SuppressDuplicateDetection: false' }, count => 1, do => 'status', status => 500, code => '0x80044150', message => 'Sql Number: 1205' });
	$run = $t->run('m');
	is("$run->{state} $run->{requests}", 'completed 3', "$profile: flows and duplicate detection, too");

	# --- the privilege for the date of the source
	$t->sim->set(created_on_privilege => 'off');
	$t->sql(q{INSERT INTO staging.customers VALUES (201, 'Late', NULL, '2011-02-03 04:05:06Z')});
	$run = $t->run('m');
	like("$run->{state} $run->{message}", qr/^failed .*prvOverrideCreatedOnCreatedBy/, "$profile: without the privilege to set createdon");
	$t->sim->stop;
	$t->node->stop;
}

done_testing();

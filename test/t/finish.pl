# The end of a migration: cut-over, sign-off, discarding
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'finish');
$t->{has_server} = 1;
$t->server('sim', environment => 'production');
$t->migration('m', tables => 'account,new_invoice');
$t->sql(q{
	CREATE TABLE firms (id int PRIMARY KEY, name text, boss text);
	INSERT INTO firms SELECT i, 'Firm ' || i, 'nobody@example.org' FROM generate_series(1, 100) i;
	CREATE TABLE bills (id int PRIMARY KEY, title text, number text);
	INSERT INTO bills SELECT i, 'Bill ' || i, 'R-' || lpad((1000 + i)::text, 6, '0') FROM generate_series(1, 30) i;
	SELECT dvmig.add_table('m', 'firms', 'account', source_key => 'id');
	SELECT dvmig.map_column('firms', 'name', 'name');
	SELECT dvmig.add_table('m', 'bills', 'new_invoice', source_key => 'id');
	SELECT dvmig.map_column('bills', 'new_invoicenumber', 'title');
	SELECT dvmig.map_column('bills', 'new_internalnumber', 'number')});

# cutover(): its rows but the forecast, "kind staging subject", and the verdict.
sub cutover
{
	my $rows = $t->rows(q{SELECT * FROM dvmig.cutover('m')});
	my $verdict = pop @$rows;
	my $forecast = pop @$rows;
	is("$forecast->{kind} $verdict->{kind}", 'forecast verdict', 'the last rows are forecast and verdict');
	return ($verdict->{subject}, $forecast, join("\n", map { join ' ', $_->{kind}, $_->{staging} // '-', $_->{amount} // '-', $_->{subject} } @$rows));
}

# ------------------------------------------------------------------- cut-over

my ($verdict, $forecast, $list) = cutover();
is($verdict, 'ready', 'before anything is loaded nothing blocks the load');
like($list, qr/^pending public.firms 100 rows to load, at a rate that was never measured/m, 'what is pending is listed, without a rate');
is($forecast->{amount}, 130, 'and counted');

$t->sql(q{UPDATE firms SET name = repeat('x', 300) WHERE id = 13});
is($t->run('m', q{confirm => 'dvsim'})->{state}, 'completed', 'the load');
($verdict, $forecast, $list) = cutover();
is($verdict, 'not ready', 'then much blocks the switch');
like($list, qr/^blocker public.firms 1 row has failed$/m, 'failed rows');
like($list, qr/^blocker public.firms - is not verified: it was never verified$/m, 'unverified tables');
like($list, qr/^blocker public.bills 1030 new_internalnumber numbers itself \(\{SEQNUM:5\}\); the highest number loaded is 1030$/m, 'autonumbers that would collide');
like($list, qr/^blocker - - no backup of the staging database is known since the last load/m, 'no backup');
is($forecast->{amount}, 0, 'nothing is pending');

# one by one
$t->sql(q{UPDATE firms SET name = 'Thirteen' WHERE id = 13; SELECT dvmig.retry('firms')});
is($t->run('m')->{failed}, 0, 'the failed row is corrected');
like($t->error(q{SELECT dvmig.sign_off('m', 'hurry')}), qr/55000.*not ready to be signed off.*public.bills: was never verified.*override => true/s, 'no sign-off before verification');
$t->sql(q{SELECT * FROM dvmig.verify('m')});
my $advice = $t->sql(q{SELECT advice FROM dvmig.cutover('m') WHERE subject LIKE 'new_internalnumber%'});
is($advice, q{SELECT dvmig.set_autonumber_seed('public.bills', 'new_internalnumber', 1031)}, 'the advice is a statement');
is($t->sql($advice), 'the next number of new_invoice.new_internalnumber is 1031', 'which does');
is($t->sql(q{SELECT dvmig.note_backup('m', 'tape 7')}), 'a backup is noted for migration m', 'a backup is noted');
($verdict, $forecast, $list) = cutover();
is($verdict, 'ready', 'then nothing blocks it') or diag($list);
like($list, qr/^notice public.bills 1030 .*the seed was set to 1031$/m, 'the seed is told');

# the forecast of a delta by measured rates
$t->sql(q{INSERT INTO firms SELECT i, 'Firm ' || i FROM generate_series(101, 150) i});
($verdict, $forecast, $list) = cutover();
like($list, qr/^pending public.firms 50 rows to load, at [0-9.]+ a second$/m, 'pending rows at the measured rate');
isnt($forecast->{expected}, undef, 'give a forecast');
cmp_ok($t->sql(q{SELECT extract(epoch FROM a.expected) > extract(epoch FROM b.expected) FROM dvmig.cutover('m', 10) a, dvmig.cutover('m', 0) b WHERE a.kind = 'forecast' AND b.kind = 'forecast'}), 'eq', 't',
	'with a margin');
$t->run('m');
($verdict, $forecast, $list) = cutover();
like($list, qr/blocker public.firms - is not verified: it was loaded at .*, after its last verification/, 'a load makes the verification old');
like($list, qr/no backup/, 'and the backup');

# a service that does not answer is in the way, and the list comes all the same
$t->sim->fault({ match => { path_contains => 'WhoAmI' }, do => 'status', status => 503, count => 0 });
($verdict, $forecast, $list) = cutover();
$t->sim->sim('DELETE', 'fault');
like($list, qr/blocker - - which columns number themselves could not be asked: /, 'a service that does not answer is a blocker');
like($list, qr/no backup/, 'among the others');

# bad input
like($t->error(q{SELECT * FROM dvmig.cutover('m', -1)}), qr/22023.*margin/s, 'a negative margin');
like($t->error(q{SELECT * FROM dvmig.cutover('nix')}), qr/42704/, 'no such migration');
like($t->error(q{SELECT dvmig.set_autonumber_seed('bills', 'new_internalnumber', 0)}), qr/22023.*at least 1/s, 'a seed of nothing');
like($t->error(q{SELECT dvmig.set_autonumber_seed('firms', 'name', 5)}), qr/22023.*column "name" of Dataverse table "account" does not number itself.*No column of that table does.*refresh_metadata\('sim', '\{account\}'\)/s, 'a table without such columns');
like($t->error(q{SELECT dvmig.set_autonumber_seed('bills', 'new_invoicenumber', 5, by_hand => true)}), qr/22023.*column "new_invoicenumber" of Dataverse table "new_invoice" does not number itself.*Its columns that do: new_internalnumber\./s, 'a column that does not number itself, by hand neither');
is($t->sql(q{BEGIN; UPDATE dvmig.metadata_column SET auto_number = NULL; SELECT dvmig.set_autonumber_seed('bills', 'new_internalnumber', 1031); ROLLBACK}), 'the next number of new_invoice.new_internalnumber is 1031', 'one that numbers itself since the metadata was read');
$t->sim->fault({ match => { path_contains => 'SetAutoNumberSeed' }, do => 'status', status => 400, code => '0x80040203', message => 'no' });
like($t->error(q{SELECT dvmig.set_autonumber_seed('bills', 'new_internalnumber', 7)}), qr/38000.*did not set the seed.*by_hand => true/s, 'a service that refuses');
$t->sim->sim('DELETE', 'fault');
$t->sim->fault({ match => { path_contains => 'SetAutoNumberSeed' }, do => 'reset_before', count => 0 });
like($t->error(q{SELECT dvmig.set_autonumber_seed('bills', 'new_internalnumber', 7)}), qr/38000.*did not set the seed.*There was no answer/s, 'a service that does not answer');
$t->sim->sim('DELETE', 'fault');
is($t->sql(q{SELECT dvmig.set_autonumber_seed('bills', 'new_internalnumber', 5000, by_hand => true)}), 'the next number of new_invoice.new_internalnumber is 5000', 'by hand it is only noted');

# ------------------------------------------------------------------- sign-off

$t->sql(q{SELECT * FROM dvmig.verify('m')});
like($t->error(q{SELECT dvmig.discard('m', confirm => 'dvsim')}), qr/55000.*is not signed off/s, 'nothing is discarded before the sign-off');
$t->sim->change('accounts', $t->sql('SELECT dataverse_id FROM firms WHERE id = 2'), { name => 'changed' });
$t->sql(q{SELECT * FROM dvmig.verify('m')});
my $open = $t->sql(q{SELECT result FROM dvmig.verification WHERE staging = 'public.firms' ORDER BY verified_at DESC LIMIT 1});
if ($open eq 'different')
{
	like($t->error(q{SELECT dvmig.sign_off('m', 'fine')}), qr/55000.*its verification found/s, 'differences are in the way');
	like($t->error(q{SELECT dvmig.sign_off('m', override => true)}), qr/22023.*needs a note/s, 'an override needs a reason');
	is($t->sql(q{SELECT dvmig.sign_off('m', 'the sales team renamed it', override => true)}), 'migration m is signed off over 1 open end', 'with one it is recorded');
	is($t->sql(q{SELECT detail ->> 'override' FROM dvmig.event WHERE kind = 'sign_off' ORDER BY event_id DESC LIMIT 1}), 'true', 'as what it is');
}
else
{
	is($t->sql(q{SELECT dvmig.sign_off('m', 'seen by sales')}), 'migration m is signed off', 'what users changed since is theirs');
}
my $report = $t->sql(q{SELECT dvmig.report('m')});
like($report, qr/Signed off by postgres at /, 'the report says so');
like($report, qr/<h2>Verification<\/h2><table>.*<td>public.bills<\/td><td>equal<\/td><td class="n">30<\/td>/, 'and shows the verification');
like($report, qr/<h2>Longest steps[^<]*<\/h2><table>.*<td>public.firms<\/td><td>write<\/td>/, 'and where the time went');
$t->sql(q{CREATE ROLE night LOGIN; SELECT dvmig.grant_operator('night', 'm')});
like($t->error(q{SET ROLE night; SELECT dvmig.sign_off('m', 'me')}), qr/42501/, 'an operator cannot sign off');
like($t->error(q{SET ROLE night; SELECT dvmig.discard('m')}), qr/42501/, 'nor discard');

# A dry run of an undo does nothing to it.
$t->sql(q{SELECT * FROM dvmig.undo((SELECT min(run) FROM dvmig.run_history WHERE kind = 'run'), dry_run => true)});
is($t->sql(q{SELECT signed_off FROM dvmig.migration_status WHERE migration = 'm'}), 't', 'a dry run leaves the sign-off');

# A run takes the sign-off back.
$t->run('m');
like($t->error(q{SELECT dvmig.discard('m', confirm => 'dvsim')}), qr/55000.*is not signed off.*takes it back/s, 'a run after the sign-off takes it back');
$t->sql(q{SELECT dvmig.sign_off('m', 'still fine', override => true)});

# -------------------------------------------------------------------- discard

like($t->error(q{SELECT dvmig.discard('m')}), qr/55000.*needs to be confirmed.*SELECT dvmig.discard\('m', confirm => 'dvsim'\)/s, 'production asks');
like($t->error(q{SELECT dvmig.discard('m', outcomes => 'burn', confirm => 'dvsim')}), qr/22023.*keep, empty, drop/s, 'another word');
my $events = $t->sql('SELECT count(*) FROM dvmig.event');
like($t->sql(q{SELECT dvmig.discard('m', confirm => 'dvsim')}), qr/^migration m is discarded: staging data emptied, outcomes emptied, user mapping dropped/, 'discarded');
is($t->sql(q{SELECT next_step FROM dvmig.migration_status WHERE migration = 'm'}), 'signed off, and nothing is staged any more', 'as the status says');
is($t->sql('SELECT (SELECT count(*) FROM firms) + (SELECT count(*) FROM firms_success) + (SELECT count(*) FROM bills_error)'), '0', 'the rows are gone');
is($t->sql('SELECT count(*) FROM dvmig.difference_row'), '0', 'also those that differences quoted');
is($t->sql('SELECT count(*) FROM pg_user_mappings'), '0', 'the secret is gone');
cmp_ok($t->sql('SELECT count(*) FROM dvmig.event'), '>', $events, 'the events are not');
is($t->sql(q{SELECT string_agg(DISTINCT reason, ',' ORDER BY reason) FROM dvmig.kept_report}), 'discarded,signed off', 'nor the reports');
like($t->sql(q{SELECT page FROM dvmig.kept_report WHERE reason = 'discarded'}), qr/<b>180<\/b>staged/, 'with the figures as they were');
unlike($t->sql(q{SELECT page FROM dvmig.kept_report}), qr/attribute of the|Firm 1/, 'without messages and keys');
for my $statement (q{DELETE FROM dvmig.kept_report}, q{UPDATE dvmig.event SET role = 'x'})
{
	like($t->error("SET ROLE night; $statement"), qr/42501/, "an operator may not: $statement");
}

# Triggers of an owner have the owner's rights, also when a superuser discards.
$t->server('box', environment => 'sandbox');
$t->sql(sprintf q{CREATE ROLE dba LOGIN; CREATE USER MAPPING FOR dba SERVER box OPTIONS (client_id '%s', client_secret '%s')}, DvMig::Sim::CLIENT, DvMig::Sim::SECRET);
$t->sql(q{
	SELECT dvmig.grant_owner('dba'); GRANT USAGE ON FOREIGN SERVER box TO dba; GRANT CREATE ON SCHEMA public TO dba;
	CREATE TABLE seen (who text); GRANT INSERT ON seen TO PUBLIC;
	SET ROLE dba;
	SELECT dvmig.create_migration('his', 'box');
	CREATE TABLE his (id int PRIMARY KEY, name text);
	SELECT dvmig.add_table('his', 'his', 'account', source_key => 'id');
	CREATE FUNCTION public.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (current_user); RETURN NULL; END $$;
	CREATE TRIGGER trap AFTER TRUNCATE ON his EXECUTE FUNCTION public.trap();
	RESET ROLE;
	SELECT dvmig.sign_off('his'); SELECT dvmig.discard('his', secrets => 'keep')});
is($t->sql('SELECT string_agg(who, $$,$$) FROM seen'), 'dba', 'a trigger on the emptied table ran as its owner');

# Dropped altogether.
$t->sql(q{SELECT dvmig.create_migration('n', 'box'); CREATE TABLE one (id int PRIMARY KEY, name text); INSERT INTO one VALUES (1, 'x');
	SELECT dvmig.add_table('n', 'one', 'account', source_key => 'id'); SELECT dvmig.sign_off('n', 'never mind', override => true)});
like($t->sql(q{SELECT dvmig.discard('n', staging_data => 'drop', outcomes => 'drop', secrets => 'keep')}), qr/staging data dropped, outcomes dropped, user mapping kept/, 'dropped');
is($t->sql(q{SELECT coalesce(to_regclass('one'), to_regclass('one_success'), to_regclass('one_error'))::text}), '', 'the tables are gone');
is($t->sql(q{SELECT count(*) FROM dvmig.status WHERE migration = 'n'}), '0', 'and no longer registered');

done_testing();

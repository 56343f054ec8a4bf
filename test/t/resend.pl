# One column was mapped wrong: just this column of loaded rows is sent again
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use POSIX ();
use Test::More;

use DvMig;

my $stranger = 'dddddddd-0000-4000-8000-00000000000d';
my $t = DvMig->new(name => 'resend');
my $sim = $t->sim;

$t->sql(q{
	CREATE SCHEMA staging;
	CREATE TABLE staging.firms (id int PRIMARY KEY, name text, turnover numeric, parent int, branch text);
	INSERT INTO staging.firms SELECT n, 'Firm ' || n, n * 10, CASE WHEN n > 10 THEN n / 10 END, 'Accounting' FROM generate_series(1, 1000) n});
$t->migration('m', tables => 'account');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.firms', 'account');
	SELECT dvmig.map_column('staging.firms', 'name', 'name');
	SELECT dvmig.map_column('staging.firms', 'revenue', 'turnover');
	SELECT dvmig.map_choice('staging.firms', 'industrycode', 'branch');
	SELECT dvmig.map_lookup('staging.firms', 'parentaccountid', 'parent', 'staging.firms')});
is($t->run('m')->{state}, 'completed', 'the load completes');

my @figures = qw(sent equal kept missing failed);

sub resend
{
	my ($arguments) = @_;
	my $r = $t->rows("SELECT * FROM dvmig.resend('staging.firms', $arguments)")->[0];
	return join ' ', map { "$_=$r->{$_}" } grep { $r->{$_} } @figures;
}

sub id_of { return $t->sql("SELECT dataverse_id FROM staging.firms WHERE id = $_[0]"); }
sub updates { return $sim->counters('accounts')->{updates}; }

# ----------------------------------------------------------------------- bad input
like($t->error(q{SELECT dvmig.resend('staging.firms', '{}')}), qr/22004.*columns to be sent again are missing/s, 'no column');
like($t->error(q{SELECT dvmig.resend('staging.firms', '{revenu}')}), qr/42703.*Did you mean.*revenue/s, 'a column that is not mapped');
like($t->error(q{CREATE TABLE staging.x (id int); SELECT dvmig.resend('staging.x', '{name}')}), qr/42704/, 'no staging table');
like($t->error(q{SELECT dvmig.resend('staging.firms', '{name}', filter => 's.nothing = 1')}), qr/42703/, 'a filter that does not fit');
like($t->error(q{SELECT dvmig.resend('staging.firms', '{name}', filter => 'true; DROP TABLE staging.firms')}), qr/42601/, 'nor is one condition');

# ------------------------------------------------------------------- a map put right
is(resend(q{'{revenue}'}), 'equal=1000', 'nothing differs, nothing is sent');
$t->sql(q{SELECT dvmig.unmap('staging.firms', 'revenue'); SELECT dvmig.map_column('staging.firms', 'revenue', 'round(turnover * 1.1, 2)')});
$sim->change('accounts', id_of(7), { name => 'by a user' }, as => $stranger);
$sim->change('accounts', id_of(8), { revenue => 1 }, as => $stranger);
my $before = updates();
is(resend(q{'{revenue}', filter => 's.id <= 100'}), 'sent=98 kept=2', 'only rows of the filter, but those a user has touched');
is(updates() - $before, 98, 'each with one update');
is($t->sql(q{SELECT string_agg(concat_ws(' ', source_key, column_name, kind, expected), ', ' ORDER BY source_key) FROM dvmig.difference}),
	'7 revenue changed 77.00, 8 revenue changed 88.00', 'which are listed');
my %held = map { $_->{accountid} => $_ } @{ $sim->export('accounts') };
is($held{ id_of(7) }{name}, 'by a user', 'and left');
is($held{ id_of(50) }{revenue} + 0, 550, 'the others have the new value');
is($held{ id_of(500) }{revenue} + 0, 5000, 'and those beyond the filter the old one');
is(resend(q{'{revenue}'}), 'sent=900 equal=98 kept=2', 'then all of them');
is(resend(q{'{revenue}', if_unchanged => false}), 'sent=2 equal=998', 'or also what users have touched');
%held = map { $_->{accountid} => $_ } @{ $sim->export('accounts') };
is("$held{ id_of(7) }{name} " . ($held{ id_of(7) }{revenue} + 0), 'by a user 77', 'in that column alone');
is($t->sql(q{SELECT message FROM staging.firms_success WHERE id = 50}), 'columns sent again', 'their outcome says so');

# a reload finds nothing to send
$t->sql(q{UPDATE staging.firms SET processing_flag = 'U' WHERE id <> 7});
my $run = $t->run('m');
is("$run->{state} $run->{unchanged} $run->{rows_sent}", 'completed 999 0', 'a reload afterwards is unchanged');

# lookups, choices, nulls
$t->sql(q{
	SELECT dvmig.unmap('staging.firms', 'parentaccountid'); SELECT dvmig.unmap('staging.firms', 'industrycode');
	SELECT dvmig.map_lookup('staging.firms', 'parentaccountid', 'CASE WHEN id > 500 THEN 1 END', 'staging.firms');
	SELECT dvmig.map_choice('staging.firms', 'industrycode', $$CASE WHEN id % 2 = 0 THEN 'Insurance' END$$)});
is(resend(q{'{parentaccountid,industrycode}'}), 'sent=1000', 'several columns at once');
is($t->sql(q{SELECT result FROM dvmig.verify('m')}), 'different', 'a verification agrees');
is($t->sql(q{SELECT string_agg(source_key || ' ' || column_name, ',') FROM dvmig.difference}), '7 name', 'but for what the user has changed');

# ------------------------------------------------------------------------- bad days
$t->sql(q{SELECT dvmig.unmap('staging.firms', 'name'); SELECT dvmig.map_column('staging.firms', 'name', $$name || ' Ltd'$$)});
$sim->sim('POST', 'import', { set => 'accounts', id => id_of(9), delete => JSON::PP::true });
$sim->fault({ match => { path_contains => '$batch', nth => 1 }, do => 'reset_after' });
$sim->fault({ match => { path_contains => '$batch', nth => 3 }, do => 'throttle', retry_after => 1 });
$sim->fault({ match => { path_contains => '$batch', nth => 4 }, do => 'cut' });
$sim->fault({ match => { path_contains => 'accounts?', nth => 2 }, do => 'garbage', bytes => 100 });
$sim->fault({ match => { method => 'PATCH', part => JSON::PP::true, count => 3, nth => 30 }, do => 'deadlock' });
my $r = $t->rows(q{SELECT * FROM dvmig.resend('staging.firms', '{name}', if_unchanged => true)})->[0];
is($r->{sent} + $r->{equal}, 999, 'lost answers, throttling, deadlocks and garbage are gone through');
is("$r->{kept} $r->{missing} $r->{failed}", '0 1 0', 'what is gone is missing');
is($t->sql(q{SELECT string_agg(source_key || ' ' || kind, ',' ORDER BY source_key) FROM dvmig.difference WHERE run = (SELECT max(run) FROM dvmig.run_history)}),
	'9 missing', 'and listed');
%held = map { $_->{name} => 1 } @{ $sim->export('accounts') };
is(scalar(grep { / Ltd$/ } keys %held), 999, 'and all others are renamed');

# somebody writes between our look and our update
$t->sql(q{SELECT dvmig.unmap('staging.firms', 'name'); SELECT dvmig.map_column('staging.firms', 'name', $$name || ' plc'$$)});
$sim->fault({ match => { path_contains => '$batch', count => 0 }, do => 'hold' });
my $pid = fork() // die "fork: $!";
if ($pid == 0)
{
	exec('psql', '-X', '-q', '-d', $t->node->connstr('postgres'), '-c',
		q{CREATE TABLE result AS SELECT * FROM dvmig.resend('staging.firms', '{name}', filter => 's.id = 20')}) or POSIX::_exit(1);
}
ok($t->wait_for(q{SELECT in_flight >= 0 AND requests >= 2 FROM dvmig.run_history WHERE kind = 'resend' AND state = 'running'}), 'an update is on its way');
$sim->change('accounts', id_of(20), { name => 'quicker' }, as => $stranger);
$sim->sim('DELETE', 'fault');
waitpid $pid, 0;
is($t->sql('SELECT sent, kept FROM result'), '0|1', 'a user was quicker: his record is kept');
%held = map { $_->{accountid} => $_ } @{ $sim->export('accounts') };
is($held{ id_of(20) }{name}, 'quicker', 'as he wrote it');

# ------------------------------------------------------- owners and states are not cleared
$t->sql(q{
	SELECT dvmig.map_lookup('staging.firms', 'ownerid', $$CASE WHEN id <= 105 THEN 'user1@example.org' END$$, 'systemuser', match_on => 'internalemailaddress');
	SELECT dvmig.map_choice('staging.firms', 'statecode', $$CASE WHEN id <= 103 THEN 'Inactive' END$$);
	CREATE TABLE staging.deals (id int PRIMARY KEY, topic text);
	SELECT dvmig.add_table('m', 'staging.deals', 'opportunity', auto_map => false);
	SELECT dvmig.map_column('staging.deals', 'name', 'topic');
	SELECT dvmig.map_choice('staging.deals', 'statecode', $$'Won'::text$$)});
is(resend(q{'{ownerid}', filter => 's.id BETWEEN 101 AND 110'}), 'sent=5 equal=5', 'a null leaves the owner that a record has; others are looked up first');
$t->sql('DELETE FROM dvmig.reference');
$t->sql(q{SELECT * FROM dvmig.verify('m')});
is($t->sql(q{SELECT count(*) FROM dvmig.difference WHERE source_key::int BETWEEN 101 AND 105 AND coalesce(column_name, 'ownerid') = 'ownerid' AND run = (SELECT max(run) FROM dvmig.run_history)}), 0, 'a verification looks up what was forgotten');
is(resend(q{'{statecode}', filter => 's.id BETWEEN 101 AND 110'}), 'sent=3 equal=7', 'and its state');
like($t->error(q{SELECT dvmig.resend('staging.deals', '{statecode}')}), qr/0A000.*is set by actions, not by updates.*passes => '\{states\}'/s, 'a state that an action sets is not sent again');
$t->sql(q{SELECT dvmig.unmap('staging.firms', 'ownerid'); SELECT dvmig.unmap('staging.firms', 'statecode'); SELECT dvmig.drop_table('staging.deals')});

# ------------------------------------------------------------------------ privileges
$t->sql(q{CREATE ROLE op; SELECT dvmig.grant_operator('op', 'm'); GRANT USAGE ON SCHEMA staging TO op});
is($t->sql(q{SET ROLE op; SELECT sent + equal FROM dvmig.resend('staging.firms', '{revenue}')}), 999, 'an operator may send again');
like($t->error(q{SET ROLE op; SELECT dvmig.resend('staging.firms', '{name}', filter => 'true')}), qr/42501/, 'but filter only rows that he may read');
$t->sql(q{CREATE ROLE watcher; SELECT dvmig.grant_viewer('watcher', 'm')});
like($t->error(q{SET ROLE watcher; SELECT dvmig.resend('staging.firms', '{name}')}), qr/42501/, 'a viewer sends nothing');

# ---------------------------------------------------------------- and taken back
$t->sql(q{SELECT dvmig.set_table('staging.firms', 'keep_before_image', 'true')});
my $was = { map { $_->{accountid} => $_->{revenue} . ' ' . ($_->{_parentaccountid_value} // '') } @{ $sim->export('accounts') } };
$t->sql(q{SELECT dvmig.unmap('staging.firms', 'revenue'); SELECT dvmig.map_column('staging.firms', 'revenue', 'turnover * 3');
	SELECT dvmig.unmap('staging.firms', 'parentaccountid'); SELECT dvmig.map_lookup('staging.firms', 'parentaccountid', 'CASE WHEN id > 1 AND id < 20 THEN 1 END', 'staging.firms')});
like(resend(q{'{revenue,parentaccountid}', filter => 's.id BETWEEN 101 AND 160'}), qr/sent=60/, 'columns are sent again');
my $resent = $t->sql('SELECT max(run) FROM dvmig.run_history');
is($t->sql("SELECT count(*) || ' ' || string_agg(DISTINCT (SELECT string_agg(k, ' ' ORDER BY k) FROM jsonb_object_keys(columns) k WHERE k !~ '\@'), '/') FROM staging.firms_before WHERE run = $resent"),
	'60 _parentaccountid_value revenue', 'each record has an image of these columns');
is($t->sql("SELECT restored FROM dvmig.undo($resent)"), 60, 'which an undo of the resend restores');
is_deeply({ map { $_->{accountid} => $_->{revenue} . ' ' . ($_->{_parentaccountid_value} // '') } @{ $sim->export('accounts') } }, $was, 'field by field');

done_testing();

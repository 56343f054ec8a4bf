# What dvmig.event keeps: every start, stop, tune, retry, change of the definition,
# undo, sign-off and discard, with role, time and what was before and is after;
# and that nobody but its owner can alter it
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use DvMig;

my $t = DvMig->new(name => 'events');
$t->migration('other', tables => 'account');
$t->sql(sprintf q{
	CREATE ROLE dba LOGIN; CREATE ROLE op LOGIN; CREATE ROLE guest LOGIN; CREATE SCHEMA staging; GRANT ALL ON SCHEMA staging TO dba; GRANT USAGE ON SCHEMA staging TO op, guest;
	SELECT dvmig.grant_owner('dba'); GRANT USAGE ON FOREIGN SERVER sim TO dba;
	CREATE USER MAPPING FOR dba SERVER sim OPTIONS (client_id '%s', client_secret '%s')}, DvMig::Sim::CLIENT, DvMig::Sim::SECRET);

my $last = $t->sql('SELECT coalesce(max(event_id), 0) FROM dvmig.event');

# told(role, statement, expected ...): the statement, and the events that it makes,
# each "role kind object {detail}" or a pattern for it
sub told
{
	my ($role, $statement, @expected) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = $t->sql('SELECT clock_timestamp()');
	my $out = $t->sql("SET SESSION AUTHORIZATION $role; $statement");
	my $events = $t->rows("SELECT event_id, concat_ws(' ', role, kind, object, detail) AS told, happened_at BETWEEN '$before' AND clock_timestamp() AS timely
		FROM dvmig.event WHERE event_id > $last AND kind NOT LIKE '% ended' ORDER BY event_id");

	my @told = map { $_->{told} } @$events;
	is(scalar(grep { !defined $told[$_] || !defined $expected[$_] || (ref $expected[$_] ? $told[$_] !~ $expected[$_] : $told[$_] ne $expected[$_]) } 0 .. (@told > @expected ? $#told : $#expected)), 0,
		substr $statement, 0, 90) or diag(explain([ \@told, \@expected ]));
	is(scalar(grep { !$_->{timely} } @$events), 0, 'at its time');
	$last = $t->sql('SELECT max(event_id) FROM dvmig.event');
	return $out;
}

# ------------------------------------------------------------------ the definition

my $f = 'staging.firms';
$t->sql(qq{SET ROLE dba; CREATE TABLE $f (id int PRIMARY KEY, name text, kind text);
	INSERT INTO $f SELECT i, CASE WHEN i <= 5 THEN repeat('x', 300) ELSE 'Firm ' || i END, 'Bank' FROM generate_series(1, 200) i});
told('dba', q{SELECT dvmig.create_migration('m', 'sim')}, 'dba create_migration m {"gate": 5, "server": "sim"}');
$t->sql(qq{SET ROLE dba; SELECT dvmig.add_table('m', '$f', 'account', source_key => 'id', auto_map => false)});
like($t->sql("SELECT concat_ws(' ', role, kind, object, detail) FROM dvmig.event WHERE event_id > $last"), qr/^dba add_table $f \{.*"target": "account".*"source_key": \["id"\]/, 'add_table');
$last = $t->sql('SELECT max(event_id) FROM dvmig.event');
told('dba', "SELECT dvmig.map_column('$f', 'name', 'name')", qq(dba map_column $f {"send": "both", "expression": "name", "target_column": "name"}));
told('dba', "SELECT dvmig.map_column('$f', 'description', 'lower(kind)')", qq(dba map_column $f {"send": "both", "expression": "lower(kind)", "target_column": "description"}));
told('dba', "SELECT dvmig.map_choice('$f', 'industrycode', 'kind')", qq(dba map_choice $f {"send": "both", "expression": "kind", "target_column": "industrycode"}));
told('dba', "SELECT dvmig.set_column('$f', 'name', 'on_too_long', 'trim')", qq(dba set_column $f {"after": "trim", "before": "error", "setting": "on_too_long", "target_column": "name"}));
told('dba', "SELECT dvmig.set_column('$f', 'name', 'on_too_long', NULL)", qq(dba set_column $f {"after": "error", "before": "trim", "setting": "on_too_long", "target_column": "name"}));
told('dba', "SELECT dvmig.unmap('$f', 'description')", qq(dba unmap $f {"before": "lower(kind)", "target_column": "description"}));
told('dba', "SELECT dvmig.set_table('$f', 'filter', 'id > 0')", qq(dba set_table $f {"after": "id > 0", "setting": "filter"}));
told('dba', "SELECT dvmig.set_table('$f', 'filter', 'id > -1')", qq(dba set_table $f {"after": "id > -1", "before": "id > 0", "setting": "filter"}));
told('dba', q{SELECT dvmig.set_migration('m', 'gate', '50')}, 'dba set_migration m {"after": "50", "before": "5", "setting": "gate"}');

# edits by plain SQL: the values in Dataverse before and after, not what they come from
my $values = q{SELECT migration_id, 'account', 'industrycode', %s, %s FROM dvmig.migration%s WHERE name = 'm'};
my $into = 'INSERT INTO dvmig.choice_map (migration_id, target_table, target_column, source_text, target_value)';
told('dba', "$into " . sprintf($values, q{'Bank'}, 1, ''), 'dba choice_map account.industrycode {"rows": 1, "after": ["1"], "operation": "insert"}');
told('dba', q{UPDATE dvmig.choice_map SET target_value = 2}, 'dba choice_map account.industrycode {"rows": 1, "after": ["2"], "before": ["1"], "operation": "update"}');
told('dba', q{UPDATE dvmig.choice_map SET target_value = NULL, target_text = 'Accounting'}, 'dba choice_map account.industrycode {"rows": 1, "after": ["Accounting"], "before": ["2"], "operation": "update"}');
told('dba', q{UPDATE dvmig.choice_map SET target_column = 'preferredcontactmethodcode'}, 'dba choice_map account.industrycode {"rows": 1, "before": ["Accounting"], "operation": "update"}',
	'dba choice_map account.preferredcontactmethodcode {"rows": 1, "after": ["Accounting"], "operation": "update"}');
told('dba', q{DELETE FROM dvmig.choice_map}, 'dba choice_map account.preferredcontactmethodcode {"rows": 1, "before": ["Accounting"], "operation": "delete"}');
$t->sql("SET ROLE dba; $into " . sprintf($values, q{'Sort ' || i}, 'i', ', generate_series(1, 3000) i'));
is($t->sql("SELECT detail ->> 'rows' || ' ' || jsonb_array_length(detail -> 'after') FROM dvmig.event WHERE event_id > $last"), '3000 20', 'of many choices some are told');
$last = $t->sql('SELECT max(event_id) FROM dvmig.event');
told('dba', q{DELETE FROM dvmig.choice_map WHERE false});
$t->sql(q{SET ROLE dba; DELETE FROM dvmig.choice_map; INSERT INTO dvmig.choice_map (migration_id, target_table, target_column, source_text, target_value) SELECT migration_id, 'account', 'industrycode', 'Bank', 1 FROM dvmig.migration WHERE name = 'm'});
$last = $t->sql('SELECT max(event_id) FROM dvmig.event');
told('dba', q{INSERT INTO dvmig.user_map (migration_id, source_user, target) SELECT migration_id, 'ann', 'ann@example.org' FROM dvmig.migration WHERE name = 'm'}, 'dba user_map systemuser {"rows": 1, "operation": "insert"}');

told('dba', q{SELECT dvmig.grant_operator('op', 'm')}, 'dba grant_operator op {}');
told('dba', q{SELECT dvmig.grant_viewer('guest', 'm')}, 'dba grant_viewer guest {}');

like($t->error("SET SESSION AUTHORIZATION dba; SELECT dvmig.$_"), qr/22004.*the (?:role|migration) is missing/s, "$_ is an error")
  for q{grant_operator(NULL, 'm')}, q{grant_operator('op', NULL)}, q{grant_viewer(NULL, 'm')}, q{grant_viewer('guest', NULL)}, q{revoke_access(NULL, 'm')}, q{revoke_access('op', NULL)};

# ------------------------------------------------------------------ runs

$t->sim->fault({ match => { path_contains => 'Multiple' }, do => 'hold', count => 0 });
my $run = $t->sql(q{SET SESSION AUTHORIZATION op; SELECT dvmig.start('m', max_errors => 100)});
ok($t->wait_for("SELECT in_flight > 0 FROM dvmig.run_history WHERE run = $run"), 'a run');
is($t->sql("SELECT concat_ws(' ', role, kind, object, detail) FROM dvmig.event WHERE event_id > $last"), qq(op start $run {"resend": false, "max_errors": 100, "ignore_gate": false}), 'start');
$last = $t->sql('SELECT max(event_id) FROM dvmig.event');
told('op', "SELECT dvmig.tune($run, rate => 500)", qq(op tune $run {"after": {"rate": 500}, "before": {}}));
told('op', "SELECT dvmig.tune($run, rate => 0, in_flight => 2)", qq(op tune $run {"after": {"rate": 0, "in_flight": 2}, "before": {"rate": 500}}));
told('op', "SELECT dvmig.pause($run)", qq(op pause $run {"after": "paused", "before": "running"}));
told('op', "SELECT dvmig.pause($run)");
told('op', "SELECT dvmig.resume($run)", qq(op go on $run {"after": "running", "before": "paused"}));
told('op', "SELECT dvmig.stop($run)", qq(op stop $run {"after": "stopping", "before": "running"}));
$t->sim->sim('DELETE', 'fault');
$t->finish($run);
# however far it came, another run has rows that fail, and one to create
$t->sql("UPDATE $f SET processing_flag = 'U' WHERE processing_flag = 'E'; DELETE FROM ${f}_error; INSERT INTO $f VALUES (201, 'Firm 201', 'Bank')");
is($t->run('m')->{failed}, 5, 'another run');
$last = $t->sql('SELECT max(event_id) FROM dvmig.event');
told('op', "SELECT dvmig.retry('$f')", qq(op retry $f {"rows": 5, "after": "U", "before": "E"}));
told('op', q{SELECT dvmig.set_migration('m', 'alert_stall', '60')}, 'op set_migration m {"after": "60", "before": "300", "setting": "alert_stall"}');
my $n = $t->sql('SELECT max(run) + 1 FROM dvmig.run_history');
told('op', q{SELECT * FROM dvmig.verify('m')}, "op verify $n {}");
told('op', q{SELECT dvmig.note_backup('m', 'tape 7')}, 'op backup m {"note": "tape 7"}');
my $loaded = $t->sql(q{SELECT max(run) FROM dvmig.run_history WHERE kind = 'run'});
$n = $t->sql('SELECT max(run) + 1 FROM dvmig.run_history');
told('dba', "SELECT * FROM dvmig.undo($loaded)", qq(dba undo $n {"undoes": $loaded, "changed": "refuse", "dry_run": false, "related": "refuse"}));
told('dba', "SELECT dvmig.release('$f')", qq(dba release $f {"undo": $n}));

# ------------------------------------------------------------------ its end

told('dba', q{SELECT dvmig.sign_off('m', 'never mind', override => true)},
	qr/^dba sign_off m \{"note": "never mind", "open": \["staging.firms: \d+ rows are unprocessed".*\], "after": "signed off", "before": "not signed off", "override": true\}$/);
told('dba', q{SELECT dvmig.discard('m', secrets => 'keep')},
	qr/^dba discard m \{"before": \{"failed": 0, "staged": 201, "succeeded": \d+\}, "tables": 1, "secrets": "keep", "outcomes": "empty", "staging_data": "empty"\}$/);

# ------------------------------------------------------------------ altered by nobody

my $whole = q{SELECT count(*) || ' ' || md5(string_agg(e::text, ',' ORDER BY event_id)) || (SELECT relacl::text FROM pg_class WHERE oid = 'dvmig.event'::regclass) FROM dvmig.event e};
my $was = $t->sql($whole);
for my $role (qw(op guest dba))
{
	$t->sql("SET SESSION AUTHORIZATION $role; GRANT ALL ON dvmig.event TO PUBLIC");
	cmp_ok($t->sql("SET SESSION AUTHORIZATION $role; SELECT count(*) FROM dvmig.event WHERE migration = 'm'"), '>', 20, "$role reads them");
	for my $statement (q{UPDATE dvmig.event SET role = 'x'}, 'DELETE FROM dvmig.event', q{INSERT INTO dvmig.event (role, kind) VALUES ('op', 'start')}, 'TRUNCATE dvmig.event',
		'MERGE INTO dvmig.event e USING (SELECT 1) q ON true WHEN MATCHED THEN DELETE', 'DROP TABLE dvmig.event', 'ALTER TABLE dvmig.event DISABLE ROW LEVEL SECURITY',
		'CREATE TRIGGER t BEFORE INSERT ON dvmig.event FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()', 'CREATE RULE r AS ON INSERT TO dvmig.event DO INSTEAD NOTHING',
		'CREATE POLICY p ON dvmig.event USING (true)', q{SELECT setval('dvmig.event_event_id_seq', 1)}, q{SELECT dvmig._log(0, 'm', 'x', 'y')}, 'LOCK TABLE dvmig.event IN SHARE MODE',
		'DROP EXTENSION dvmig CASCADE')
	{
		like($t->error("SET SESSION AUTHORIZATION $role; BEGIN; $statement"), qr/42501/, "$role may not: $statement");
	}
}
for my $statement (q{SELECT dvmig.sign_off('m', 'x')}, q{SELECT dvmig.discard('m')}, "SELECT dvmig.undo($loaded)", "SELECT dvmig.start_undo($loaded)", "SELECT dvmig.release('$f')", q{SELECT dvmig.retarget('m', 'sim')},
	"SELECT dvmig.unmap('$f', 'name')", "SELECT dvmig.rebuild_outcomes('$f')", q{SELECT dvmig.drop_migration('m')}, q{SELECT dvmig.grant_operator('guest', 'm')}, "SELECT dvmig.set_table('$f', 'filter', 'true')")
{
	like($t->error("SET SESSION AUTHORIZATION op; $statement"), qr/42501/, "what is the owner's is not the operator's: $statement");
}
is($t->sql($whole), $was, 'none is altered, and what was refused is not noted');

# ------------------------------------------------------------------ definitions that go

told('dba', "SELECT dvmig.drop_table('$f')", sprintf q(dba drop_table %s {"before": {"name": "name", "industrycode": "kind"}, "target": "account", "namespace": "%s", "drop_outcomes": false}),
	$f, $t->sql("SELECT namespace FROM dvmig.migration_table WHERE staging = '$f'::regclass"));
$t->sql(q{SET ROLE dba; CREATE TABLE staging.two (id int PRIMARY KEY, name text); CREATE TABLE staging.three (id int PRIMARY KEY, name text);
	SELECT dvmig.add_table('m', 'staging.two', 'account', source_key => 'id', auto_map => false); SELECT dvmig.map_column('staging.two', 'name', 'upper(name)');
	SELECT dvmig.add_table('m', 'staging.three', 'account', source_key => 'id', auto_map => false); SELECT dvmig.map_column('staging.three', 'name', 'lower(name)');
	DROP TABLE staging.three});
$last = $t->sql('SELECT max(event_id) FROM dvmig.event');
my $namespace = $t->sql(q{SELECT namespace FROM dvmig.migration_table WHERE staging = 'staging.two'::regclass});
told('dba', q{SET client_min_messages = error; SELECT dvmig.create_migration('n', 'sim'); CREATE TABLE staging.four (id int PRIMARY KEY, name text)}, 'dba create_migration n {"gate": 5, "server": "sim"}');
$t->sql(q{SET ROLE dba; SELECT dvmig.add_table('m', 'staging.four', 'account', source_key => 'id', auto_map => false)});
is($t->sql("SELECT concat_ws(' ', role, kind, object, detail) FROM dvmig.event WHERE event_id > $last AND kind = 'drop_table'"),
	'dba drop_table {"before": {"name": "lower(name)"}, "reason": "table dropped", "target": "account"}', 'a table that was dropped is noted when it is missed');
$t->sql(q{SET ROLE dba; SELECT dvmig.drop_table('staging.four')});
$last = $t->sql('SELECT max(event_id) FROM dvmig.event');
told('dba', q{SELECT dvmig.drop_migration('m')}, qq(dba drop_table staging.two {"before": {"name": "upper(name)"}, "reason": "migration dropped", "target": "account", "namespace": "$namespace"}),
	'dba drop_migration m {"drop_outcomes": false}');

done_testing();

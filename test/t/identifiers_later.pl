# Names with quotes, dots, blanks, letters beyond ASCII, and of 63 bytes, where
# test/t/identifiers.pl does not come: owners, parties, closing, masks, images,
# adoption, users, and runs that are watched, tuned, ended and gone on with
use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::RealBin";

use Encode qw(decode encode);
use Test::More;

use PostgreSQL::Test::Utils;

use DvMig;

sub id { my ($name) = @_; return '"' . ($name =~ s/"/""/gr) . '"'; }
sub lit { my ($text) = @_; return "'" . ($text =~ s/'/''/gr) . "'"; }
sub fit { my ($name) = @_; chop $name while length encode('UTF-8', $name) > 63; return $name; }

my $migration = q{Ü"ber'tragung; DROP TABLE x; -- %s %I \\};
my $owner = fit(q{Be"sitzer.'s ÿ } . 'o' x 63);
my $viewer = fit(q{Zu"schauer.'s ÿ } . 'v' x 63);
my $server = fit(q{Di"enst. '€' } . 's' x 63);
my $schema = fit(q{Sta"ging.'s € } . 'g' x 63);
my %name = (firms => fit('Fi"rmen. ' . 'ß' x 40), people => fit(q{'Leute'.} . '"' x 63), deals => fit('Ge.schäfte ' x 9), mails => fit(q{E-Mails; "x".} . 'é' x 40),
	users => fit('Ben"utzer ' . 'ü' x 40));
my %t = map { $_ => id($schema) . '.' . id($name{$_}) } keys %name;
my %l = map { $_ => lit($t{$_}) } keys %t;
my ($k, $n, $o, $p, $s) = map { id(fit($_)) } q{Schl"üssel. 'k' } . 'k' x 63, q{Na"me: %s $1 \\}, q{Bes"itzer.é}, q{El"tern 'x' }, q{order};

my $t = DvMig->new(name => 'identifiers_later', conf => "dvmig.settle_time = '300ms'\n");
my $sim = $t->sim;
my ($M, $S) = map { lit($_) } $migration, $server;
sub sql { my ($text) = @_; return $t->sql(encode('UTF-8', $text)); }
sub as { my ($text, $role) = @_; return sql('SET SESSION AUTHORIZATION ' . id($role // $owner) . "; $text"); }
sub figures { return as("SELECT string_agg(concat_ws('/', staged, unprocessed, succeeded, failed, left_out), ' ' ORDER BY staged) FROM dvmig.status WHERE migration = $M"); }

# ended(run): its state, once it has ended
sub ended
{
	my ($run, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $state = as("SELECT dvmig.wait($run)");

	is($state, 'completed', $name) or diag as("SELECT message FROM dvmig.run_history WHERE run = $run");
	return;
}

is(length encode('UTF-8', $_), 63, 'a name of 63 bytes') for $owner, $server, $name{people}, fit($schema);
sql(sprintf q{CREATE ROLE %1$s LOGIN; CREATE ROLE %7$s LOGIN; GRANT CREATE ON DATABASE postgres TO %1$s; SELECT dvmig.grant_owner(%2$s);
	CREATE SERVER %3$s FOREIGN DATA WRAPPER dataverse OPTIONS (url '%4$s', authority '%4$s', tenant 'contoso.example', environment 'test');
	CREATE USER MAPPING FOR %1$s SERVER %3$s OPTIONS (client_id '%5$s', client_secret '%6$s', client_id2 '%8$s', client_secret2 '%9$s'); GRANT USAGE ON FOREIGN SERVER %3$s TO %1$s},
	id($owner), lit($owner), id($server), $sim->url, DvMig::Sim::CLIENT, DvMig::Sim::SECRET, id($viewer), DvMig::Sim::CLIENT2, DvMig::Sim::SECRET2);
as(qq{CREATE SCHEMA @{[ id($schema) ]};
	CREATE TABLE $t{firms} ($k int PRIMARY KEY, $n text, $o text, $p int);
	INSERT INTO $t{firms} SELECT i, 'Firm ' || i, 'who' || i % 3, nullif(i / 10, 0) FROM generate_series(1, 120) i;
	CREATE TABLE $t{people} ($k int PRIMARY KEY, $n text, $p int); INSERT INTO $t{people} SELECT i, 'Undisclosed ' || i, i FROM generate_series(1, 60) i;
	CREATE TABLE $t{deals} ($k int PRIMARY KEY, $n text, $s text); INSERT INTO $t{deals} SELECT i, 'Deal ' || i, CASE WHEN i % 2 = 0 THEN 'Won' END FROM generate_series(1, 10) i;
	CREATE TABLE $t{mails} ($k int PRIMARY KEY, $n text, $p int[], $o text); INSERT INTO $t{mails} SELECT i, 'Mail ' || i, ARRAY[i, i + 1], 'guest\@example.net' FROM generate_series(1, 8) i;
	CREATE TABLE $t{users} ($k int PRIMARY KEY, $n text, $o text, $s text); INSERT INTO $t{users} VALUES (1, 'One', 'user1\@example.org', 'root business unit')});
is(as("SELECT count(*) FROM dvmig.refresh_metadata($S, '{account,contact,opportunity,email,systemuser}')"), 5, 'refresh_metadata');
as(qq{SELECT dvmig.create_migration($M, $S);
	SELECT dvmig.add_table($M, $l{firms}, 'account', source_key => @{[ lit($k) ]}, target_key => 'new_legacyid', auto_map => false, success_table => @{[ lit(id($schema) . '.' . id(fit('Er"folg. ' . 'e' x 63))) ]});
	SELECT dvmig.map_column($l{firms}, 'name', @{[ lit($n) ]});
	SELECT dvmig.map_owner($l{firms}, @{[ lit($o) ]}, fallback => 'user9\@example.org');
	SELECT dvmig.map_lookup($l{firms}, 'parentaccountid', @{[ lit($p) ]}, $l{firms}); SELECT dvmig.set_column($l{firms}, 'parentaccountid', 'by_level', 'true');
	SELECT dvmig.set_table($l{firms}, 'keep_before_image', 'true');
	INSERT INTO dvmig.user_map (migration_id, source_user, target_table, target) SELECT migration_id, 'WHO1', 'systemuser', 'user1\@example.org' FROM dvmig.migration WHERE name = $M;
	SELECT dvmig.add_table($M, $l{people}, 'contact', source_key => @{[ lit($k) ]}, target_key => 'new_legacyid', auto_map => false);
	SELECT dvmig.map_column($l{people}, 'lastname', @{[ lit($n) ]}, mask => @{[ lit("dvmig.mask_name($n)") ]}); SELECT dvmig.set_column($l{people}, 'lastname', 'sensitive', 'true');
	SELECT dvmig.map_lookup($l{people}, 'parentcustomerid', @{[ lit($p) ]}, $l{firms}, on_missing => 'park');
	SELECT dvmig.set_table($l{people}, 'filter', @{[ lit("$n <> 'nobody'") ]});
	SELECT dvmig.add_table($M, $l{deals}, 'opportunity', source_key => @{[ lit($k) ]}, auto_map => false);
	SELECT dvmig.map_column($l{deals}, 'name', @{[ lit($n) ]}); SELECT dvmig.map_choice($l{deals}, 'statuscode', @{[ lit($s) ]}); SELECT dvmig.map_close($l{deals}, 'subject', @{[ lit("'of ' || $n") ]});
	SELECT dvmig.add_table($M, $l{mails}, 'email', source_key => @{[ lit($k) ]}, auto_map => false);
	SELECT dvmig.map_column($l{mails}, 'subject', @{[ lit($n) ]}); SELECT dvmig.map_party($l{mails}, 'to', @{[ lit($p) ]}, $l{people}); SELECT dvmig.map_party($l{mails}, 'cc', @{[ lit($o) ]});
	SELECT dvmig.add_table($M, $l{users}, 'systemuser', source_key => @{[ lit($k) ]}, auto_map => false);
	SELECT dvmig.map_column($l{users}, 'lastname', @{[ lit($n) ]}); SELECT dvmig.map_column($l{users}, 'internalemailaddress', @{[ lit($o) ]}, send => 'insert');
	SELECT dvmig.map_lookup($l{users}, 'businessunitid', @{[ lit($s) ]}, 'businessunit', match_on => 'environment role');
	SELECT dvmig.set_migration($M, 'alert_error_share', '2'); SELECT dvmig.grant_viewer(@{[ lit($viewer) ]}, $M)});

# --- before a run
is(as("SELECT concat_ws(' ', present, missing) FROM dvmig.stub_users($M)"), '1 0', 'stub_users');
is(as("SELECT dvmig.stub_user_list($M)") =~ /One/ ? 1 : 0, 0, 'stub_user_list: nobody is missing');
is(as("SELECT string_agg(source_owner, ' ' ORDER BY source_owner) FROM dvmig.unmatched_owners($M)"), 'who0 who2', 'unmatched_owners');
is(as("SELECT count(*) FROM dvmig.check($M) WHERE severity = 'error'"), 0, 'check finds no error') or diag as("SELECT * FROM dvmig.check($M)");
cmp_ok(as("SELECT count(*) FROM dvmig.plan($M)"), '>', 5, 'plan');
is(as("SELECT count(*) FROM (VALUES @{[ join ', ', map { qq{($l{$_})} } sort keys %l ]}) v (s), dvmig.preview(s::regclass, 2) p WHERE p.request IS NOT NULL OR p.remark LIKE 'waits for the record%'"), 9, 'previews');

# --- a run that is watched, tuned, paused, ended, and gone on with
$sim->fault({ match => { method => 'POST', path_contains => 'CreateMultiple' }, do => 'hold', count => 0, after => JSON::PP::true });
my $run = as("SELECT dvmig.start($M, tables => ARRAY[@{[ join ', ', map { $l{$_} } qw(firms people deals mails) ]}]::regclass[]::text[], lanes => 2)");
$t->until('requests hang', sub { $sim->held > 0 });
$t->wait_for("SELECT count(*) > 0 FROM dvmig.run_lane WHERE run = $run");
cmp_ok(as("SELECT count(*) FROM dvmig.$_ WHERE run = $run"), '>', 0, $_) for qw(progress progress_lane progress_table);
like(as("SELECT dvmig.tune($run, in_flight => 1)"), qr/in_flight/, 'tune');
as("SELECT dvmig.pause($run), dvmig.resume($run)");
like($t->error(encode('UTF-8', 'SET SESSION AUTHORIZATION ' . id($owner) . "; SELECT dvmig.start($M)")), qr/55\w+.*\b$run\b/s, 'another is refused with the number of the first');
$t->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'dvmig worker'});
is(as("SELECT dvmig.wait($run)"), 'interrupted', 'ended');
$sim->sim('DELETE', 'fault');
ended(as('SELECT dvmig.resume_interrupted()'), 'resume_interrupted');
is(figures(), '1/1/0/0/0 8/0/8/0/0 10/0/10/0/0 60/0/60/0/0 120/0/120/0/0', 'all is loaded');
is($sim->counters($_)->{created_twice}, 0, "nothing of $_ was created twice") for qw(accounts contacts emails opportunities);
ended(as("SELECT dvmig.start($M, passes => '{states}')"), 'deals are closed');
is((scalar grep { $_->{statecode} == 1 } @{ $sim->export('opportunities') }), 5, 'half of them');
is((scalar grep { $_->{participationtypemask} =~ /^[23]$/ } @{ $sim->export('activityparties') }), 24, 'mails have their parties');
is((scalar grep { $_->{lastname} =~ /Undisclosed/ } @{ $sim->export('contacts') }), 0, 'names are masked');

# --- proof, correction, what is taken back
my $proof = as("SELECT dvmig.start_verify($M)");
ended($proof, 'start_verify');
is(as("SELECT count(*) FROM dvmig.verification WHERE run = $proof AND (missing, different, extra) IS DISTINCT FROM (0, 0, 0)"), 0, 'finds no difference')
  or diag as("SELECT * FROM dvmig.difference");
as("UPDATE $t{firms} SET $n = $n || ' II', processing_flag = 'U' WHERE $k <= 7");
$run = as("SELECT dvmig.start($M, tables => ARRAY[$l{firms}])");
ended($run, 'a delta');
is((scalar grep { $_->{name} =~ / II$/ } @{ $sim->export('accounts') }), 7, 'is there');
is(as("SELECT sum(restored) FROM dvmig.undo($run)"), 7, 'undo: updates are taken back');
is((scalar grep { $_->{name} =~ / II$/ } @{ $sim->export('accounts') }), 0, 'from their images');
as("SELECT dvmig.release($l{firms})");
$sim->create('contacts', { lastname => 'Adopted', new_legacyid => '61' });
as("INSERT INTO $t{people} VALUES (61, 'Adopted', 1), (62, 'nobody', NULL)");
is(as("SELECT concat_ws(' ', adopted, absent) FROM dvmig.adopt($l{people}, 'new_legacyid')"), '1 0', 'adopt');
as("UPDATE $t{people} SET $n = repeat('x', 9) WHERE $k = 61");
ended(as("SELECT dvmig.start_if_idle($M)"), 'start_if_idle');
is(as("SELECT concat_ws('/', staged, succeeded, left_out) FROM dvmig.status WHERE staging::regclass = $l{people}::regclass"), '62/61/1', 'what the filter leaves out is left out');
is(as("SELECT count(*) FROM dvmig.outcome_faults($l{people})"), 0, 'outcome_faults');

# --- what is told, and to whom
as("SELECT dvmig.note_backup($M, 'with \"quotes\" and ''these'''); SELECT * FROM dvmig.cutover($M)");
like(as("SELECT dvmig.report($M)", $viewer), qr/Ben&quot;&quot;utzer/, 'a viewer has a report');
my $report = decode('UTF-8', as("SELECT dvmig.report_text($M)", $viewer));
like($report, qr/^  \.\.\..*ü"  #+  1 of 1 done$/m, 'and one in text, with what tells its tables apart');
unlike($report, qr/^  "Sta.*\.\.\./m, 'not with what they share');
cmp_ok(as("SELECT count(*) FROM dvmig.event WHERE migration = $M"), '>', 20, 'events');
as("SELECT dvmig.revoke_access(@{[ lit($viewer) ]}, $M)");
is(as('SELECT count(*) FROM dvmig.status', $viewer), 0, 'no longer');

# --- other names
my $renamed = id(fit(q{Um"benannt.'s } . 'Ø' x 40));
as("ALTER TABLE $t{firms} RENAME TO $renamed; ALTER TABLE @{[ id($schema) ]}.$renamed RENAME COLUMN $n TO @{[ id(q{Bez\"eichnung 'x'}) ]}");
like($t->error(encode('UTF-8', 'SET SESSION AUTHORIZATION ' . id($owner) . "; SELECT dvmig.preview(@{[ lit(id($schema) . '.' . $renamed) ]})")) || as("SELECT string_agg(message, ' ') FROM dvmig.check($M) WHERE severity = 'error'"),
	qr/does not exist/, 'a mapped column that is renamed is told');
as("SELECT dvmig.unmap(@{[ lit(id($schema) . '.' . $renamed) ]}, 'name'); SELECT dvmig.map_column(@{[ lit(id($schema) . '.' . $renamed) ]}, 'name', @{[ lit(id(q{Bez\"eichnung 'x'})) ]});
	UPDATE @{[ id($schema) ]}.$renamed SET processing_flag = 'U'");
$run = as("SELECT dvmig.start($M)");
ended($run, 'mapped anew, under another name');
is($sim->counters('accounts')->{creates}, 120, 'makes nothing anew');
sql(sprintf q{CREATE USER MAPPING FOR CURRENT_USER SERVER %s OPTIONS (client_id '%s', client_secret '%s')}, id($server), DvMig::Sim::CLIENT, DvMig::Sim::SECRET);
is(sql("SELECT dvmig.repin($S) IS NOT NULL"), 't', 'repin');
unlike(slurp_file($t->node->logfile), qr/PANIC|TRAP|server process .* was terminated|XX000/, 'no process died');

done_testing();

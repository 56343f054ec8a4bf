# Nothing of a row is told outside of its tables, by whatever part of a run,
# verification or report it is read: not in views, messages, notifications, the
# server log, nor the statements that others see
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use PostgreSQL::Test::Utils;

use DvMig;

my $t = DvMig->new(name => 'told',
	conf => "log_min_messages = debug5\nlog_statement = all\nlog_line_prefix = '@@%b: '\nlog_min_error_statement = panic\nlog_error_verbosity = verbose\nlog_min_duration_statement = -1\nlog_parameter_max_length_on_error = -1\n");
my $content = 'R0WC0NTENT';

sub as { my ($role, $sql) = @_; return $t->sql("SET SESSION AUTHORIZATION $role; $sql"); }

$t->server('sim');
$t->sql(sprintf q{
	CREATE ROLE dba LOGIN; CREATE ROLE operator LOGIN; CREATE ROLE viewer LOGIN;
	GRANT CREATE ON DATABASE postgres TO dba;
	GRANT USAGE ON FOREIGN SERVER sim TO dba;
	CREATE USER MAPPING FOR dba SERVER sim OPTIONS (client_id '%s', client_secret '%s');
	SELECT dvmig.grant_owner('dba')}, DvMig::Sim::CLIENT, DvMig::Sim::SECRET);
as('dba', q{CREATE SCHEMA staging; GRANT USAGE ON SCHEMA staging TO operator, viewer;
	CREATE FUNCTION staging.raises(v text, state text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
		$$BEGIN RAISE EXCEPTION 'about %', v USING ERRCODE = state, DETAIL = 'R0WC0NTENT', HINT = 'R0WC0NTENT'; END$$;
	CREATE FUNCTION staging.refuses() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN RAISE EXCEPTION 'refused: %', NEW USING ERRCODE = TG_ARGV[0]; END$$;
	SELECT table_name FROM dvmig.refresh_metadata('sim', '{account,contact,email,incident,opportunity,new_invoice,new_region}')});

# Whoever listens hears every notification.
my ($heard, $in) = ('', "LISTEN dvmig;\n");
my $ear = IPC::Run::start([ 'psql', '-XAtq', '-d', $t->node->connstr('postgres'), '-f', '-' ], '<', \$in, '>', \$heard, '2>&1', IPC::Run::timeout(4 * $PostgreSQL::Test::Utils::timeout_default));
$ear->pump_nb;

# Whoever looks sees what every process of ours does, all the time.
my $seen_file = $t->node->basedir . '/seen';
my $watch = "SELECT backend_type, application_name, query FROM pg_stat_activity WHERE backend_type <> 'client backend' \\watch 0.02\n";
my $eye = IPC::Run::start([ 'psql', '-XAtq', '-d', $t->node->connstr('postgres'), '-f', '-' ], '<', \$watch, '>', $seen_file, '2>&1', IPC::Run::timeout(4 * $PostgreSQL::Test::Utils::timeout_default));
$eye->pump_nb;

# all_told(): what a role that may watch is shown
sub all_told
{
	my ($role, $migration) = @_;
	return join "\n", map { my $e = $t->error("SET SESSION AUTHORIZATION $role; $_"); $e eq '' ? () : "$_: $e" }
	  ("SELECT * FROM dvmig.plan('$migration')"),
	  ($role eq 'operator' ? ("SELECT * FROM dvmig.check('$migration')", "SELECT * FROM dvmig.refresh_references('$migration')", "SELECT * FROM dvmig.cutover('$migration')", "SELECT * FROM dvmig.unmapped_choices('$migration')") : ());
}
sub all_shown
{
	my ($role, $migration) = @_;
	return as($role, join '; ', map { "SELECT row_to_json(x) FROM $_ x" } qw(dvmig.run_history dvmig.run_table dvmig.run_lane dvmig.run_sample dvmig.status dvmig.progress
		dvmig.top_errors dvmig.difference dvmig.verification dvmig.verification_sum dvmig.migration_status dvmig.table_pace))
	  . as($role, "SELECT dvmig.report('$migration'); SELECT dvmig.report_text('$migration')");
}

my @states = qw(P0001 22012 58000 XX001 42501 55000);
my $n = 0;
my $turn = 0;
for my $case (
	[ 'a mapped value', 'account', q{SELECT dvmig.map_column('%s', 'description', $$staging.raises(v, '%s')$$)} ],
	[ 'a mask', 'account', q{SELECT dvmig.map_column('%s', 'description', 'v', mask => $$staging.raises(v, '%s')$$)} ],
	[ 'a lookup by a column', 'account', q{SELECT dvmig.map_lookup('%s', 'ownerid', $$staging.raises(v, '%s')$$, 'systemuser', match_on => 'internalemailaddress')} ],
	[ 'the caller', 'account', q{SELECT dvmig.set_table('%s', 'caller', $$staging.raises(v, '%s')::uuid$$)} ],
	[ 'a state', 'new_region', q{SELECT dvmig.map_column('%s', 'statecode', $$staging.raises(v, '%s')::int$$)} ],
	[ 'a party', 'email', q{SELECT dvmig.map_party('%s', 'to', $$staging.raises(v, '%s')$$)} ],
	[ 'a file', 'new_invoice', q{SELECT dvmig.map_file('%s', 'new_document', $$staging.raises(v, '%s')::bytea$$, 'v')} ],
	[ 'the name of a file', 'new_invoice', q{SELECT dvmig.map_file('%s', 'new_document', $$v::bytea$$, $$staging.raises(v, '%s')$$)} ],
	[ 'what a close leaves', 'opportunity', q{SELECT dvmig.map_column('%1$s', 'statuscode', '3'); SELECT dvmig.map_close('%1$s', 'subject', $$staging.raises(v, '%2$s')$$)} ],
	[ 'a filter', 'account', q{SELECT dvmig.set_table('%s', 'filter', $$staging.raises(v, '%s') <> ''$$)} ],
	[ 'a trigger on the flag', 'account', q{CREATE TRIGGER r BEFORE UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION staging.refuses('%s')} ],
	[ 'a trigger on an outcome', 'account', q{CREATE TRIGGER r BEFORE INSERT ON %s_success FOR EACH ROW EXECUTE FUNCTION staging.refuses('%s')} ])
{
	my ($name, $target, $sql) = @$case;

	for my $state ($name eq 'a mapped value' ? @states : $states[ ++$turn % @states ])
	{
		my $table = 'staging.q' . ++$n;
		my $key = $target eq 'account' || $target eq 'new_region' ? 'name' : $target eq 'new_invoice' ? 'new_invoicenumber' : $target eq 'email' ? 'subject' : 'name';

		as('dba', qq{CREATE TABLE $table (id text PRIMARY KEY, v text); INSERT INTO $table SELECT 'R0WC0NTENT-' || i, 'R0WC0NTENT' FROM generate_series(1, 3) i;
			SELECT dvmig.create_migration('q$n', 'sim'); SELECT dvmig.add_table('q$n', '$table', '$target', auto_map => false)});
		$key = 'new_name' if $target eq 'new_region';
		as('dba', "SELECT dvmig.map_column('$table', '$key', 'v')");
		as('dba', sprintf $sql, $table, $state);
		as('dba', "SELECT dvmig.grant_viewer('viewer', 'q$n'); SELECT dvmig.grant_operator('operator', 'q$n')");
		my @runs = ("SELECT dvmig.start('q$n', lanes => 2)", "SELECT dvmig.start_verify('q$n')");

		push @runs, "SELECT dvmig.start('q$n', passes => '{states}')" if $target eq 'opportunity';
		for my $start (@runs)
		{
			my ($out, $err);

			next if $t->node->psql('postgres', "SET SESSION AUTHORIZATION operator; $start", stdout => \$out, stderr => \$err) && unlike($err, qr/$content/, "$name: $start");
			as('operator', "SELECT dvmig.wait($out)");
		}
		for my $role (qw(viewer operator))
		{
			my @told = grep { /$content/ } split /\n/, all_told($role, "q$n") . all_shown($role, "q$n");
			is(join("\n", map { substr $_, 0, 500 } @told), '', "$name, SQLSTATE $state: the $role is told nothing of the row");
		}
	}
}

# What is loaded already is counted when a run is started, by way of the maps.
$t->sql('ALTER DATABASE postgres SET dvmig.max_resend = 0');
for my $state (@states, '40001')
{
	my $table = 'staging.q' . ++$n;

	as('dba', qq{CREATE TABLE $table (id text PRIMARY KEY, v text); INSERT INTO $table SELECT 'R0WC0NTENT-' || i, 'R0WC0NTENT' FROM generate_series(1, 3) i;
		SELECT dvmig.create_migration('q$n', 'sim'); SELECT dvmig.add_table('q$n', '$table', 'account', auto_map => false);
		SELECT dvmig.map_column('$table', 'name', 'v'); SELECT dvmig.grant_operator('operator', 'q$n')});
	as('dba', "CALL dvmig.run('q$n')");
	as('dba', qq{SELECT dvmig.map_column('$table', 'description', \$\$staging.raises(v, '$state')\$\$); UPDATE $table SET processing_flag = 'U'});
	my ($out, $err);
	$t->node->psql('postgres', "SET SESSION AUTHORIZATION operator; SELECT dvmig.start('q$n')", stdout => \$out, stderr => \$err);
	like("$out$err", qr/already loaded|^\d+$/, "loaded rows, SQLSTATE $state: they count, or fail in the run");
	unlike($err, qr/$content/, "loaded rows, SQLSTATE $state: the operator is told nothing of them");
	as('operator', "SELECT dvmig.wait($out)") if $out;
}
$t->sql('ALTER DATABASE postgres RESET dvmig.max_resend');

# A lookup that throws for a row that could not be deleted, seen from the table above.
as('dba', q{CREATE TABLE staging.above (id int PRIMARY KEY, v text); CREATE TABLE staging.below (id int PRIMARY KEY, v text, parent text);
	INSERT INTO staging.above VALUES (1, 'x'); INSERT INTO staging.below VALUES (1, 'x', '1');
	SELECT dvmig.create_migration('above', 'sim'); SELECT dvmig.add_table('above', 'staging.above', 'account', auto_map => false); SELECT dvmig.map_column('staging.above', 'name', 'v');
	SELECT dvmig.add_table('above', 'staging.below', 'contact', auto_map => false); SELECT dvmig.map_column('staging.below', 'lastname', 'v');
	SELECT dvmig.map_lookup('staging.below', 'parentcustomerid', 'parent::int', 'staging.above'); SELECT dvmig.grant_viewer('viewer', 'above');
	UPDATE staging.below SET action_flag = 'D', processing_flag = 'E', parent = 'R0WC0NTENT'; UPDATE staging.above SET action_flag = 'D'});
is(as('viewer', q{SELECT string_agg(staging || ' ' || staged, ', ' ORDER BY staging) FROM dvmig.status WHERE migration = 'above'}), 'staging.above 1, staging.below 1',
	'a lookup below that throws does not keep the status from being told');

# What nobody is granted, and what a viewer of the dump sees of dvmig's tables,
# but those that are for readers of the staging tables.
my $all = $t->tables_of_dvmig(qw(reference difference_row verification_sum_row));
unlike($all, qr/$content/, 'no row content in tables of dvmig');

$in .= "\\echo heard\n";
$ear->pump until $heard =~ /^heard$/m || !$ear->pumpable;
$in .= "SELECT 1;\n\\q\n";
$ear->finish;
cmp_ok(scalar(() = $heard =~ /notification "dvmig"/g), '>', 0, 'there were notifications');
unlike($heard, qr/$content|s3cret/, 'which tell nothing of a row');

# Several lanes at work: what each is doing is seen, and nothing of a row.
as('dba', q{CREATE TABLE staging.many (id int PRIMARY KEY, v text); INSERT INTO staging.many SELECT i, 'R0WC0NTENT' || i FROM generate_series(1, 3000) i;
	SELECT dvmig.create_migration('many', 'sim'); SELECT dvmig.add_table('many', 'staging.many', 'account', auto_map => false); SELECT dvmig.map_column('staging.many', 'name', 'v')});
my $run = as('dba', q{SELECT dvmig.start('many', lanes => 3, filter => $$s.v LIKE 'R0WC0NTENT%'$$)});
as('dba', "SELECT dvmig.wait($run)");
is($t->counts('staging.many'), '3000/0/3000/0/0', 'three lanes have worked');
$eye->kill_kill;
my $seen = slurp_file($seen_file);
my %lanes = map { $_ => 1 } $seen =~ /^dvmig (?:worker|lane)[^|]*\|([^|]*)\|dvmig:/mg;
cmp_ok(scalar(keys %lanes), '>', 1, 'what several processes of ours did was seen') or diag join ', ', keys %lanes;
is((grep { /$content|s3cret/ } split /\n/, $seen)[0] // '', '', 'and it told nothing of a row');

# What clients said themselves is theirs; all else is ours.
my $log = join "\n", grep { !/^client backend: LOG:  (?:00000: )?statement: / } split /^@@/m, slurp_file($t->node->logfile);
like($log, qr/^dvmig worker: DEBUG: /m, 'the server log has what our workers did');
# From 18 on the server's own messages on I/O show a session the SQL it reads by, with the filter as its user has defined it: no row.
$log =~ s/^client backend: QUERY:  SELECT [^\n]*\KLIKE '$content%'//mg;
my @told = grep { /$content/ } split /\n/, $log;
is(join("\n", @told[0 .. ($#told > 4 ? 4 : $#told)]), '', 'no row content in the server log');
is(join("\n", grep { /\Q@{[DvMig::Sim::SECRET]}\E|s3cret|Bearer|access_token/ } split /\n/, $log), '', 'and no secret');

done_testing();

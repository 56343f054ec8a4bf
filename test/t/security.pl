# Who may do what over the wire, and what is told of it: a migration's owner who
# is no superuser, an operator, a viewer and a stranger; attacks on the worker;
# and no secret, token or row content anywhere but in the tables
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

use DvMig;

# All that the server can log of itself; statements that failed are the client's.
my $t = DvMig->new(name => 'security', conf => "log_min_messages = debug5\nlog_statement = none\nlog_min_error_statement = panic\n");
my $sim = $t->sim;
my $content = 'R0WC0NTENT';

# as(role, SQL), refused(role, pattern, SQL, name)
sub as { my ($role, $sql) = @_; return $t->sql("SET SESSION AUTHORIZATION $role; $sql"); }
sub refused
{
	my ($role, $pattern, $sql, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($t->error("SET SESSION AUTHORIZATION $role; $sql"), $pattern, $name // "$role: $sql");
	return;
}

$t->server('sim');
$t->sql(sprintf q{
	CREATE ROLE dba LOGIN; CREATE ROLE operator LOGIN; CREATE ROLE viewer LOGIN; CREATE ROLE stranger LOGIN;
	GRANT CREATE ON DATABASE postgres TO dba;
	GRANT USAGE ON FOREIGN SERVER sim TO dba;
	CREATE USER MAPPING FOR dba SERVER sim OPTIONS (client_id '%s', client_secret '%s');
	SELECT dvmig.grant_owner('dba')}, DvMig::Sim::CLIENT, DvMig::Sim::SECRET);

# Whoever was let in can call all that there is for him, and no more.
sub callable { my ($role) = @_; return $t->sql(qq{SELECT string_agg(DISTINCT p.proname, ' ' ORDER BY p.proname) FROM pg_proc p
	WHERE p.pronamespace = 'dvmig'::regnamespace AND p.prosrc = 'dv_call' AND NOT has_function_privilege('$role', p.oid, 'EXECUTE')}); }
is(callable('dba'), 'grant_owner', 'an owner may call every public function but the one that makes owners');
is($t->sql(q{SELECT string_agg(p.proname, ' ') FROM pg_proc p WHERE p.pronamespace = 'dvmig'::regnamespace AND has_function_privilege('stranger', p.oid, 'EXECUTE')}),
	'', 'a stranger may call none');

# -------------------------------------------- the session of an ordinary owner

as('dba', q{CREATE SCHEMA staging;
	CREATE TABLE staging.companies (company_id int PRIMARY KEY, company_name text, turnover text, branch text, parent_id int);
	INSERT INTO staging.companies SELECT g, 'Company } . $content . q{ ' || g, CASE g WHEN 7 THEN 'R0WC0NTENT7' ELSE g::text END, 'Consulting',
		nullif(g - 1, 0) FROM generate_series(1, 20) g;
	UPDATE staging.companies SET company_name = repeat('R0WC0NTENT', 50) WHERE company_id = 9});
is(as('dba', q{SELECT server_name FROM dvmig.whoami('sim')}), 'sim', 'an owner who is no superuser: whoami');
is(as('dba', q{SELECT table_name FROM dvmig.refresh_metadata('sim', '{account}')}), 'account', 'refresh_metadata');
as('dba', q{SELECT dvmig.create_migration('go_live', 'sim', gate => NULL);
	SELECT dvmig.add_table('go_live', 'staging.companies', 'account', source_key => 'company_id');
	SELECT dvmig.map_column('staging.companies', 'name', 'company_name');
	SELECT dvmig.map_column('staging.companies', 'revenue', 'turnover::numeric');
	SELECT dvmig.map_choice('staging.companies', 'industrycode', 'branch');
	SELECT dvmig.map_lookup('staging.companies', 'parentaccountid', 'parent_id', 'staging.companies');
	SELECT dvmig.grant_operator('operator', 'go_live');
	SELECT dvmig.grant_viewer('viewer', 'go_live');
	-- the name of a table is looked up with the rights of who writes it
	GRANT USAGE ON SCHEMA staging TO operator, viewer});
cmp_ok(as('dba', q{SELECT count(*) FROM dvmig.check('go_live')}), '>', 0, 'check');
cmp_ok(as('dba', q{SELECT count(*) FROM dvmig.plan('go_live')}), '>', 0, 'plan');
is(as('dba', q{SELECT count(*) FROM dvmig.preview('staging.companies', 3)}), 3, 'preview');
as('dba', q{CALL dvmig.run('go_live')});
is($t->counts('staging.companies') =~ m{^20/\d+/\d+/[1-9]\d*/0$} ? 'ok' : $t->counts('staging.companies'), 'ok', 'run: some rows fail');
cmp_ok(as('dba', q{SELECT count(*) FROM dvmig.top_errors}), '>', 0, 'top_errors');
as('dba', q{UPDATE staging.companies SET turnover = '7' WHERE company_id = 7});
cmp_ok(as('dba', q{SELECT dvmig.retry('staging.companies', filter => $$e.error_class = 'transform'$$)}), '>', 0, 'retry');
as('dba', q{SELECT count(*) FROM dvmig.status, dvmig.progress});

# --------------------------------------------------------------- an operator

my $run = as('operator', q{SELECT dvmig.start('go_live')});
like(as('operator', "SELECT dvmig.wait($run)"), qr/completed|held/, 'an operator starts and waits');
is(as('operator', "SELECT started_by FROM dvmig.run_history WHERE run = $run"), 'operator', 'and it is on record that he did');
cmp_ok(as('operator', q{SELECT dvmig.retry('staging.companies')}), '>=', 1, 'he retries, without rights on the rows');
$run = as('operator', q{SELECT dvmig.start('go_live')});
ok(as('operator', "SELECT dvmig.stop($run)"), 'he stops');
as('operator', "SELECT dvmig.wait($run)");
ok(as('operator', q{SELECT count(*) FROM dvmig.status}), 'he watches');
is(as('operator', q{SELECT count(*) FROM dvmig.top_errors}), 0, 'but sees no messages of rows');
refused('operator', qr/42501/, $_) for
  q{SELECT * FROM dvmig.preview('staging.companies')},
  q{SELECT dvmig.retry('staging.companies', filter => 's.company_id = 1')},
  q{SELECT * FROM staging.companies},
  q{SELECT dvmig.map_column('staging.companies', 'description', 'company_name')},
  q{SELECT dvmig.add_table('go_live', 'staging.companies', 'account')},
  q{SELECT dvmig.unmap('staging.companies', 'name')},
  q{SELECT dvmig.drop_migration('go_live')},
  q{SELECT dvmig.whoami('sim')},
  q{INSERT INTO dvmig.choice_map VALUES (1, '', 'account', 'industrycode', 'x', 'y', 1)},
  q{SELECT * FROM dvmig.reference};

# ------------------------------------------------------- a viewer, a stranger

ok(as('viewer', q{SELECT count(*) FROM dvmig.status}), 'a viewer looks');
cmp_ok(as('viewer', q{SELECT count(*) FROM dvmig.run_history}), '>', 2, 'at runs too');
as('viewer', q{SELECT * FROM dvmig.plan('go_live')});
for my $view (split /\s+/, $t->sql(q{SELECT string_agg(c.oid::regclass::text, ' ') FROM pg_class c WHERE c.relnamespace = 'dvmig'::regnamespace AND c.relkind = 'v'}))
{
	is($t->error("SET SESSION AUTHORIZATION viewer; SELECT * FROM $view"), '', "he may read $view");
}
is(as('viewer', q{SELECT count(*) FROM dvmig.top_errors}), 0, 'not at messages of rows');
refused('viewer', qr/42501/, $_) for
  q{SELECT dvmig.start('go_live')}, q{CALL dvmig.run('go_live')}, "SELECT dvmig.stop($run)", "SELECT dvmig.resume($run)",
  q{SELECT dvmig.retry('staging.companies')}, q{SELECT * FROM dvmig.preview('staging.companies')},
  q{SELECT * FROM dvmig.check('go_live')}, q{SELECT dvmig.map_column('staging.companies', 'description', 'company_name')};
refused('stranger', qr/42501.*schema dvmig/s, $_) for
  q{SELECT * FROM dvmig.status}, q{SELECT dvmig.start('go_live')}, q{SELECT * FROM dvmig.run_history}, q{SELECT dvmig.whoami('sim')};

# An owner of other migrations, on the same server.
$t->sql(q{CREATE ROLE other LOGIN; SELECT dvmig.grant_owner('other'); GRANT USAGE ON SCHEMA staging TO other;
	GRANT USAGE ON FOREIGN SERVER sim TO other});
is(as('other', q{SELECT count(*) FROM dvmig.status}), 0, 'another owner sees nothing');
$t->sql(q{INSERT INTO dvmig.reference (server, table_name, match_on, match_key, matches) VALUES ('sim', 'systemuser', 'internalemailaddress', 'somebody@example', 0);
	INSERT INTO dvmig._run_row SELECT max(run), 'staging.companies'::regclass, 1, 2 FROM dvmig.run_history WHERE migration = 'go_live'});
is(as('other', "SELECT count(*) FROM $_"), 0, "nor in $_") for qw(dvmig.reference dvmig._run_row dvmig.migration_role dvmig.migration_table dvmig.column_map);
as('dba', q{SELECT dvmig.map_lookup('staging.companies', 'ownerid', $$'x'::text$$, 'systemuser', match_on => 'internalemailaddress')});
is(as('dba', q{SELECT (SELECT count(*) FROM dvmig.reference) || ' ' || (SELECT count(*) FROM dvmig._run_row)}), '1 1', 'whose they are sees them');
as('dba', q{SELECT dvmig.unmap('staging.companies', 'ownerid')});
$t->sql('DELETE FROM dvmig.reference; DELETE FROM dvmig._run_row');
refused('other', qr/42501.*migration "go_live"/s, $_) for q{SELECT dvmig.start('go_live')}, "SELECT * FROM dvmig.wait_look($run)",
  q{SELECT dvmig.retry('staging.companies')}, q{SELECT * FROM dvmig.preview('staging.companies')}, q{SELECT * FROM dvmig.plan('go_live')};
refused('other', qr/42704.*no user mapping/s, q{SELECT dvmig.whoami('sim')}, 'nor uses another role\'s mapping');

# ------------------------------------------------------ servers that redirect

$t->sql(q{GRANT USAGE ON FOREIGN DATA WRAPPER dataverse TO other});
my $file = "$sim->{dir}/secret";
append_to_file($file, DvMig::Sim::SECRET);
chmod 0600, $file;
refused('other', qr/42501.*ca_file/s, q{CREATE SERVER x FOREIGN DATA WRAPPER dataverse OPTIONS (url 'https://a.example', tenant 't', environment 'e', ca_file '/etc/passwd')});
refused('other', qr/42501.*client_secret_file/s, q{CREATE USER MAPPING FOR other SERVER sim OPTIONS (client_id 'x', client_secret_file '/etc/passwd')});
refused('other', qr/42501/, qq{ALTER SERVER sim OPTIONS (SET $_ 'https://evil.example')}) for qw(url authority);
refused('other', qr/42501/, q{SELECT dvmig.repin('sim')});
$t->sql(sprintf q{CREATE SERVER theirs FOREIGN DATA WRAPPER dataverse OPTIONS (url '%s', authority '%1$s', tenant '%s', environment 'test');
	CREATE USER MAPPING FOR dba SERVER theirs OPTIONS (client_id '%s', client_secret_file '%s');
	GRANT USAGE ON FOREIGN SERVER theirs TO dba}, $sim->url, DvMig::Sim::TENANT, DvMig::Sim::CLIENT, $file);
ok(as('dba', q{SELECT * FROM dvmig.whoami('theirs')}), 'a secret from a file, and a server of a superuser');
# A run that is at work goes on where it began; no secret goes to an address that the server has no longer.
as('dba', q{SELECT count(*) FROM dvmig.refresh_metadata('theirs', '{account}'); SELECT dvmig.create_migration('led', 'theirs');
	CREATE TABLE staging.led (id int PRIMARY KEY, name text); INSERT INTO staging.led VALUES (1, 'x');
	SELECT dvmig.add_table('led', 'staging.led', 'account')});
for my $option ('authority', 'url')
{
	$sim->fault({ match => { method => 'POST', path_contains => 'CreateMultiple' }, do => 'hold', count => 1 });
	my $led = as('dba', q{SELECT dvmig.start('led')});
	$t->until('its request hangs', sub { $sim->held > 0 });
	$t->sql("ALTER SERVER theirs OPTIONS (SET $option 'https://elsewhere.example')");
	my $logins = $sim->stats->{requests}{token};
	as('dba', q{INSERT INTO staging.led SELECT 1 + max(id), 'y' FROM staging.led});
	$sim->sim('DELETE', $_) for 'tokens', 'fault';
	as('dba', "SELECT dvmig.wait($led)");
	like(as('dba', "SELECT state || ' ' || message FROM dvmig.run_history WHERE run = $led"), qr/^failed .*server "theirs" was given another address while it was in use/,
		"$option changed: the run that is at work does not log in again");
	is($sim->stats->{requests}{token}, $logins, "$option changed: and the secret is not sent");
	$t->sql(sprintf "ALTER SERVER theirs OPTIONS (SET $option '%s')", $sim->url);
}
as('dba', q{SELECT dvmig.drop_migration('led')});
for my $option ('authority', 'url')
{
	$t->sql('ALTER SERVER theirs OWNER TO other');
	as('other', "ALTER SERVER theirs OPTIONS (SET $option 'https://evil.example')");
	refused('dba', qr/42501.*only with a server owned by a superuser/s, q{SELECT * FROM dvmig.whoami('theirs')},
		"a server given to another role never sees the secret again, whose $option he changed");
	$t->sql(sprintf "ALTER SERVER theirs OWNER TO CURRENT_USER; ALTER SERVER theirs OPTIONS (SET $option '%s')", $sim->url);
}
# What a mapping holds is shown to nobody but superusers and, in part, the role that it is for.
for my $role (qw(operator viewer other))
{
	is(as($role, q{SELECT count(*) FROM pg_user_mappings WHERE umoptions IS NOT NULL}), 0, "$role: no option of a user mapping is shown");
	refused($role, qr/42501/, $_) for q{SELECT * FROM pg_user_mapping}, qq{SELECT pg_read_file('$file')}, q{SELECT dvmig._run_as(10, 'SELECT 1', false)};
}

# ------------------------------------------------- attacks through the worker

# A caller's operators must not run as the owner of the extension.
as('dba', q{CREATE SCHEMA evil; CREATE TABLE evil.loot (who text); GRANT ALL ON SCHEMA evil TO PUBLIC; GRANT INSERT ON evil.loot TO PUBLIC;
	CREATE FUNCTION evil.look() RETURNS bool LANGUAGE sql AS 'INSERT INTO evil.loot VALUES (current_user); SELECT true'});
for my $type ('name, text', 'bigint, bigint', 'text, text', 'oid, oid', 'regclass, regclass')
{
	my ($left, $right) = split /, /, $type;
	my $name = 'evil.eq_' . join '_', $left, $right;

	as('dba', qq{CREATE FUNCTION $name($type) RETURNS bool LANGUAGE plpgsql AS \$\$BEGIN PERFORM evil.look(); RETURN \$1::text OPERATOR(pg_catalog.=) \$2::text; END\$\$;
		CREATE OPERATOR evil.= (LEFTARG = $left, RIGHTARG = $right, FUNCTION = $name)});
}
my $hostile = q{SET search_path = evil, pg_catalog;};
as('dba', qq{$hostile SELECT * FROM dvmig.whoami('sim'); SELECT * FROM dvmig.refresh_metadata('sim', '{account}');
	SELECT count(*) FROM dvmig.status; SELECT count(*) FROM dvmig.preview('staging.companies'); SELECT count(*) FROM dvmig.top_errors});
is($t->sql(q{SELECT string_agg(DISTINCT who, ' ') FROM evil.loot WHERE who <> 'dba'}), '', 'no operator of a caller runs with other rights than his');

# Nor what the owner's own triggers leave behind in the worker.
as('dba', q{CREATE FUNCTION evil.trig() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN PERFORM pg_catalog.set_config('search_path', 'evil, pg_catalog', false); RETURN NEW; END$$;
	CREATE TRIGGER a BEFORE UPDATE ON staging.companies FOR EACH ROW EXECUTE FUNCTION evil.trig();
	UPDATE staging.companies SET processing_flag = 'U' WHERE company_id < 4;
	RESET search_path; CALL dvmig.run('go_live')});
is($t->sql(q{SELECT string_agg(DISTINCT who, ' ') FROM evil.loot WHERE who <> 'dba'}), '', 'no trigger changes what the worker does as the owner of the extension');

# A superuser who looks or retries runs nothing of the owner's.
as('dba', q{CREATE TYPE evil.bait AS (t text);
	CREATE FUNCTION evil.bite(evil.bait) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO evil.loot VALUES (current_user); RETURN ($1).t; END$$;
	CREATE FUNCTION evil.bite_json(evil.bait) RETURNS json LANGUAGE plpgsql AS $$BEGIN INSERT INTO evil.loot VALUES (current_user); RETURN '1'; END$$;
	CREATE CAST (evil.bait AS text) WITH FUNCTION evil.bite(evil.bait) AS IMPLICIT;
	CREATE CAST (evil.bait AS json) WITH FUNCTION evil.bite_json(evil.bait);
	CREATE FUNCTION evil.trig2() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO evil.loot VALUES (current_user); RETURN NEW; END$$;
	CREATE TABLE staging.bait (id int PRIMARY KEY, name text);
	SELECT dvmig.create_migration('bait', 'sim');
	SELECT dvmig.add_table('bait', 'staging.bait', 'account');
	INSERT INTO staging.bait VALUES (1, 'x'); UPDATE staging.bait SET processing_flag = 'E';
	INSERT INTO staging.bait_error (id, error_class, message) VALUES (1, 'c', 'm');
	ALTER TABLE staging.bait_error ALTER message TYPE evil.bait USING row(message)::evil.bait, ALTER error_class TYPE evil.bait USING row(error_class)::evil.bait;
	CREATE TRIGGER t BEFORE UPDATE ON staging.bait FOR EACH ROW EXECUTE FUNCTION evil.trig2();
	TRUNCATE evil.loot});
$t->sql(q{SELECT * FROM dvmig.top_errors});
is($t->sql(q{SELECT dvmig.retry('staging.bait')}), 1, 'a superuser retries a hostile table');
like($t->error(q{SELECT dvmig.retry('staging.bait', filter => 'true')}), qr/55000.*no longer of the types/s, 'but filters it only while its columns are what they were');
is($t->sql(q{SELECT string_agg(DISTINCT who, ' ') FROM evil.loot}), 'dba', 'casts and triggers ran as the owner');
as('dba', q{SELECT dvmig.drop_migration('bait')});

# A migration that takes the name of one that was dropped.
my $old = as('dba', q{CREATE TABLE staging.gone (id int PRIMARY KEY, name text); SELECT dvmig.create_migration('gone', 'sim') IS NULL;
	SELECT dvmig.add_table('gone', 'staging.gone', 'account', filter => $$name <> 'x'$$) IS NULL; SELECT dvmig.start('gone')});
$old =~ s/.*\s//s;
as('dba', qq{SELECT dvmig.wait($old); SELECT dvmig.drop_migration('gone')});
as('other', q{SELECT dvmig.create_migration('gone', 'sim')});
refused('other', qr/42704.*was dropped/s, qq{SELECT * FROM dvmig.wait_look($old)});
refused('other', qr/42704.*was dropped/s, qq{SELECT dvmig.resume($old)});
is(as('other', q{SELECT string_agg(DISTINCT role, ' ') FROM dvmig.event WHERE migration = 'gone'}), 'other', 'nor are the events of the other told');

# --------------------------------------------------------- nothing is told

# Runs that fail in every place where a row can be quoted.
$t->{quiet} = 1;
as('dba', q{CREATE FUNCTION evil.raises(v text, state text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
		$$BEGIN RAISE EXCEPTION 'about %', v USING ERRCODE = state, DETAIL = 'R0WC0NTENT', HINT = 'R0WC0NTENT'; END$$;
	CREATE FUNCTION evil.refuses() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN RAISE EXCEPTION 'refused: %', NEW USING ERRCODE = TG_ARGV[0]; END$$});
my $n = 0;
for my $case (
	[ 'a filter', q{filter => 'v::int > 0'}, '' ],
	[ 'an expression that raises an internal error', '', q{SELECT dvmig.map_column('%s', 'description', $$evil.raises(v, 'XX001')$$)} ],
	[ 'an expression that raises an access error', '', q{SELECT dvmig.map_column('%s', 'description', $$evil.raises(v, '42501')$$)} ],
	[ 'an expression that raises', '', q{SELECT dvmig.map_column('%s', 'description', $$evil.raises(v, 'P0001')$$)} ],
	[ 'a trigger on the flag', '', q{CREATE TRIGGER r BEFORE UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION evil.refuses('58000')} ],
	[ 'a constraint of the outcome table', '', q{ALTER TABLE %s_success ADD CHECK (operation = 'X')} ],
	[ 'a trigger on the outcome table', '', q{CREATE TRIGGER r BEFORE INSERT ON %s_success FOR EACH ROW EXECUTE FUNCTION evil.refuses('XX000')} ])
{
	my ($name, $option, $sql) = @$case;
	my $table = 'staging.q' . ++$n;

	as('dba', qq{CREATE TABLE $table (id text PRIMARY KEY, name text, v text); INSERT INTO $table VALUES ('R0WC0NTENT-1', 'R0WC0NTENT', 'R0WC0NTENT');
		SELECT dvmig.create_migration('q$n', 'sim'); SELECT dvmig.add_table('q$n', '$table', 'account'} . ($option ? ", $option" : '') . ')');
	as('dba', sprintf $sql, $table) if $sql;
	as('dba', "SELECT dvmig.grant_viewer('viewer', 'q$n')");
	my $r = as('dba', "SELECT dvmig.start('q$n')");
	as('dba', "SELECT dvmig.wait($r)");
	my $told = join "\n", $t->error(qq{SET SESSION AUTHORIZATION viewer; SELECT * FROM dvmig.plan('q$n')}),
	  as('viewer', q{SELECT row_to_json(x) FROM dvmig.run_history x; SELECT row_to_json(x) FROM dvmig.run_table x;
		SELECT row_to_json(x) FROM dvmig.status x; SELECT row_to_json(x) FROM dvmig.top_errors x; SELECT row_to_json(x) FROM dvmig.progress x});
	unlike($told, qr/$content/, "$name: a viewer is told nothing of the row");
}

# All that is in dvmig's own tables, whoever reads them, and the dump of it.
my $all = $t->tables_of_dvmig;
unlike($all, qr/$content/, 'no row content in tables of dvmig');
my ($dump) = run_command([ 'pg_dump', '-d', $t->node->connstr('postgres') ]);
my @places = grep { /\Q@{[DvMig::Sim::SECRET]}\E|eyJ/ && !/^\s*client_secret '/ } split /\n/, $dump . $all;
is("@places", '', 'no secret and no token in them, nor in a dump but for user mappings');

my $activity = $t->sql('SELECT string_agg(query, chr(10)) FROM pg_stat_activity WHERE backend_type <> $$client backend$$');
unlike($activity, qr/$content|s3cret/, 'nor in pg_stat_activity');

# The server log at its most talkative. What a client's own failed statement
# quotes back to him is PostgreSQL's; the roles above were all refused before.
my $log = slurp_file($t->node->logfile);
ok($log =~ /DEBUG:.*CommitTransaction/, 'the server log tells all that it can');
my @told = grep { /\Q@{[DvMig::Sim::SECRET]}\E|s3cret|client_secret=|Bearer|access_token/i } split /\n/, $log;
is("@told", '', 'and no secret and no token');
@told = grep { /$content/ } split /\n/, $log;
is("@told", '', 'and no row content');

done_testing();

# What the user hung on a staging table while several lanes record into it:
# triggers, constraints, generated columns and row security are obeyed as if he
# had set the flags himself, and a row that they refuse is told of
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use PostgreSQL::Test::Utils;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'guards');
my $t = $h->t;
my $rows = 600;
my $done = $rows - 6;

# The first rows and the last ones: more than one lane has some of them.
my $guarded = "(%s id <= 3 OR %s id > $rows - 3)";
my $new = sprintf $guarded, 'NEW.', 'NEW.';
my $plain = sprintf $guarded, '', '';
$_ =~ s/\. id/.id/g for $new;

# What the runbook gives to find the rows that such a run tells of.
my ($listing) = slurp_file("$FindBin::RealBin/../../doc/operations.md") =~ /^### a run says that rows have their outcome recorded.*?^```text\n(.*?);\n^```/ms;

# listed(table, run): the keys that the runbook's query gives
sub listed
{
	my ($table, $run) = @_;
	my $query = $listing =~ s/staging\.companies/$table/gr =~ s/company_id/id/gr =~ s/ok\.run = \d+/ok.run = $run->{run}/r;

	return join ' ', sort { $a <=> $b } split /\n/, $t->sql($query);
}
my $all_six = join ' ', 1 .. 3, $rows - 2 .. $rows;

# trigger(when, body, more): a trigger on updates of the guarded rows
sub trigger
{
	my ($when, $body, $more) = @_;
	return "CREATE OR REPLACE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN $body END\$\$;"
		. ($more // "CREATE TRIGGER guard $when UPDATE ON %1\$s FOR EACH ROW") . " WHEN ($new) EXECUTE FUNCTION guard()";
}

# lanes(): a run of two lanes, each with an application user of its own, that has requests of both on their way; then its end
sub lanes
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$h->hold;
	my $run = $h->start(arguments => 'lanes => 2, ignore_gate => true', least => 5);
	ok($h->held > 4, "$name: requests of both lanes are on their way");
	$h->release;
	return $h->ends($run, 'completed', "$name: the run completes");
}

# Name, SQL over the table's name, how the guarded rows are left ('' = gone).
for my $guard (
	[ 'a trigger that suppresses', trigger('BEFORE', 'RETURN NULL;'), 'U' ],
	[ 'a trigger that raises', trigger('BEFORE', q{RAISE 'not this one';}), 'U' ],
	[ 'a trigger that resets the flag', trigger('BEFORE', q{NEW.processing_flag := 'U'; RETURN NEW;}), 'U' ],
	[ 'a trigger that puts another flag', trigger('BEFORE', q{NEW.processing_flag := 'E'; RETURN NEW;}), 'E' ],
	[ 'a trigger that always asks to be tried again', trigger('AFTER', q{RAISE 'not this one' USING ERRCODE = '40001';}), 'U' ],
	[ 'a trigger that raises at commit', trigger('', q{RAISE 'not this one';},
		'CREATE CONSTRAINT TRIGGER guard AFTER UPDATE ON %1$s DEFERRABLE INITIALLY DEFERRED FOR EACH ROW'), 'U' ],
	[ 'a trigger that deletes the row', trigger('AFTER', 'EXECUTE format($d$DELETE FROM public.%%I WHERE id = $1$d$, TG_TABLE_NAME) USING NEW.id; RETURN NULL;'), '' ],
	[ 'a constraint', "ALTER TABLE %1\$s ADD CHECK (NOT $plain OR processing_flag = 'U')", 'U' ],
	[ 'an exclusion constraint', "ALTER TABLE %1\$s ADD EXCLUDE ((1) WITH =) WHERE ($plain AND processing_flag = 'P')", 'one' ],
	[ 'a unique index', "CREATE UNIQUE INDEX ON %1\$s ((1)) WHERE $plain AND processing_flag = 'P'", 'one' ],
	[ 'a generated column', "ALTER TABLE %1\$s ADD guard numeric GENERATED ALWAYS AS (1 / CASE WHEN $plain AND processing_flag <> 'U' THEN 0 ELSE 1 END) STORED", 'U' ])
{
	my ($name, $sql, $flag) = @$guard;
	my $table = $h->scene(rows => $rows, users => 2);

	$t->sql(sprintf $sql, $table);
	my $run = lanes($name);
	if ($flag eq 'one')
	{
		is($t->sql("SELECT count(*) FROM $table WHERE processing_flag = 'P'"), $done + 1, "$name: it lets one of its rows by");
	}
	else
	{
		is($t->sql("SELECT count(*) FROM $table WHERE processing_flag = 'P' AND NOT $plain"), $done, "$name: the other rows are done");
		is($t->sql("SELECT coalesce(string_agg(DISTINCT processing_flag, ''), '') FROM $table WHERE $plain"), $flag, "$name: its rows are left as they are");
	}
	is($t->sql("SELECT count(*) FROM ${table}_success"), $rows, "$name: every outcome is recorded");
	my $n = $flag eq 'one' ? 5 : 6;
	like($run->{message} // '', qr/$table: $n rows have their outcome recorded/, "$name: and the run says how many it refused") unless $flag =~ /^E?$/;
	is(listed($table, $run), $all_six, "$name: which the runbook's query finds") if $flag eq 'U';
	is($h->sim->counters('contacts')->{creates}, $rows, "$name: every row was sent once");
}

# ------------------------------------------------------------------- row security

# The owner of the table is bound by its policies where it says so.
$t->sql(sprintf q{
	CREATE ROLE dba LOGIN; GRANT ALL ON SCHEMA public TO dba; GRANT USAGE ON FOREIGN SERVER sim TO dba;
	CREATE USER MAPPING FOR dba SERVER sim OPTIONS (client_id '%s', client_secret '%s', client_id2 '%s', client_secret2 '%s');
	SELECT dvmig.grant_owner('dba')}, DvMig::Sim::CLIENT, DvMig::Sim::SECRET, DvMig::Sim::CLIENT2, DvMig::Sim::SECRET2);

# his(SQL): a table of dba's, and policies on it; its run has two lanes
sub his
{
	my ($name, $policies) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$h->sim->sim('POST', 'reset');
	$t->sql(qq{SET ROLE dba; CREATE TABLE $name (id int PRIMARY KEY, family text);
		SELECT dvmig.create_migration('$name', 'sim');
		SELECT dvmig.add_table('$name', '$name', 'contact', source_key => 'id');
		SELECT dvmig.map_column('$name', 'lastname', 'family');
		INSERT INTO $name (id, family) SELECT n, 'Family ' || n FROM generate_series(1, $rows) n;
		ALTER TABLE $name ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; $policies});
	$t->sql('DELETE FROM dvmig.table_pace');
	$h->hold;
	my $run = $t->sql("SET ROLE dba; SELECT dvmig.start('$name', lanes => 2, ignore_gate => true)");
	$h->until('requests of both lanes are on their way', sub { $h->held > 4 });
	$h->release;
	return $h->ends($run, 'completed', "$name: the run completes");
}

my $run = his('hidden', "CREATE POLICY p ON hidden USING (NOT $plain)");
is($t->sql("SELECT count(*) FROM hidden WHERE processing_flag = 'P'"), $done, 'rows that a policy shows are done');
is($t->sql("SELECT string_agg(DISTINCT processing_flag, '') FROM hidden WHERE $plain"), 'U', 'those that it hides are left alone');
is($h->sim->counters('contacts')->{creates}, $done, 'and not sent');

$run = his('refused', "CREATE POLICY s ON refused FOR SELECT USING (true); CREATE POLICY u ON refused FOR UPDATE USING (true) WITH CHECK (NOT $plain OR processing_flag = 'U')");
is($t->sql("SELECT count(*) FROM refused WHERE processing_flag = 'P'"), $done, 'a policy that refuses flags: the other rows are done');
is($t->sql("SELECT count(*) FROM refused_success"), $rows, 'every outcome is recorded');
like($run->{message} // '', qr/refused: 6 rows have their outcome recorded/, 'and the run says how many it refused');

$run = his('kept', "CREATE POLICY s ON kept FOR SELECT USING (true); CREATE POLICY u ON kept FOR UPDATE USING (NOT $plain)");
is($t->sql("SELECT count(*) FROM kept WHERE processing_flag = 'P'"), $done, 'a policy that lets rows be read, not written: the other rows are done');
is($t->sql("SELECT count(*) FROM kept_success"), $rows, 'every outcome is recorded');
like($run->{message} // '', qr/kept: 6 rows have their outcome recorded/, 'and the run says how many it refused');
is(listed('kept', $run), $all_six, "which the runbook's query finds");
$t->sql('DROP POLICY u ON kept; CREATE POLICY u ON kept FOR UPDATE USING (true)');
is($t->run('kept')->{state}, 'completed', 'with the obstacle removed another run completes');
is($t->sql("SELECT count(*) FROM kept WHERE processing_flag = 'P'"), $rows, 'and all flags are set');
is($h->sim->counters('contacts')->{creates}, $rows, 'with nothing sent twice');

unlike(slurp_file($t->node->logfile), qr/PANIC|TRAP|terminated by signal|XX000/, 'no process of the server came to harm');

done_testing();

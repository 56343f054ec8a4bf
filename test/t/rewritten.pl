# A table that is rewritten (ALTER TABLE) while a read waits for its lock: what
# the read then sees is the table as it is, not an empty one
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'rewritten');
my $t = $h->t;
my $n = 600;

# one request after the other: the next rows are read when the answer comes
$t->sim->set(dop_hint => 1);

$t->sql(qq{
	CREATE TABLE companies (id int PRIMARY KEY, name text, size int);
	INSERT INTO companies SELECT i, 'Company ' || i, i FROM generate_series(1, $n) i;
	CREATE TABLE people (id int PRIMARY KEY, family text, company int, size int);
	INSERT INTO people SELECT i, 'Family ' || i, i, i FROM generate_series(1, $n) i});
$t->migration('m', tables => 'account,contact');
$t->sql(q{
	SELECT dvmig.add_table('m', 'companies', 'account', source_key => 'id');
	SELECT dvmig.map_column('companies', 'name', 'name');
	SELECT dvmig.add_table('m', 'people', 'contact', source_key => 'id');
	SELECT dvmig.map_column('people', 'lastname', 'family');
	SELECT dvmig.map_lookup('people', 'parentcustomerid', 'company', 'companies')});
$h->{migration} = 'm';

for my $table ('companies', 'people')
{
	my $user = $h->session;

	$h->hold(method => 'POST', path_contains => 'contacts');
	my $run = $t->start('m', 'lanes => 1');
	$h->until('a request hangs', sub { $h->held > 0 });
	$user->do("BEGIN; ALTER TABLE $table ALTER size TYPE bigint");
	$h->release;
	$user->do(qq{DO \$\$ BEGIN
		WHILE NOT EXISTS (SELECT FROM pg_locks WHERE relation = '$table'::regclass AND NOT granted) LOOP PERFORM pg_sleep(0.001); END LOOP; END \$\$; COMMIT});
	$user->quit;
	$h->ends($run, 'completed', "$table rewritten: the run completes");
	is($t->sql('SELECT count(*) FROM people_error'), 0, "$table rewritten: no row fails");
	is($t->sql(q{SELECT count(*) FROM people WHERE processing_flag = 'P'}), $n, "$table rewritten: all rows are loaded");
	$t->sql(q{UPDATE people SET processing_flag = 'U', family = family || '+'}) if $table eq 'companies';
}

# --- a table that is rewritten when its rows are about to be counted
for my $lanes (1, 2)
{
	my $user = $h->session;

	$t->sql(q{UPDATE companies SET processing_flag = 'U', name = name || '+'; UPDATE people SET processing_flag = 'U', family = family || '+'});
	$h->hold(method => 'POST', path_contains => 'accounts');
	my $run = $t->start('m', "lanes => $lanes, resend => true");
	$h->until('a request hangs', sub { $h->held > 0 });
	$user->do('BEGIN; ALTER TABLE people ALTER size TYPE ' . ($lanes == 1 ? 'numeric' : 'text'));
	$h->release;
	$user->do(q{DO $$ BEGIN
		WHILE NOT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.relation = 'people'::regclass AND NOT l.granted AND a.query ~ 'counting rows') LOOP
			PERFORM pg_sleep(0.001), pg_stat_clear_snapshot(); END LOOP; END $$; COMMIT});
	$user->quit;
	$h->ends($run, 'completed', "rewritten before it is counted, $lanes lanes: the run completes");
	is($t->sql(q{SELECT count(*) FROM people WHERE processing_flag = 'P'}), $n, "rewritten before it is counted, $lanes lanes: all rows are loaded");
	is($t->sql("SELECT rows_total FROM dvmig.run_table WHERE run = $run AND staging = 'public.people' AND pass = 'write'"), $n, "rewritten before it is counted, $lanes lanes: all are counted");
}

# --- a source key that gets another type while its table's turn is about to come
for my $case ([ 'a text that becomes a number', 'text', 'int' ], [ 'a number that becomes a text', 'int', 'text' ])
{
	my ($name, $from, $to) = @$case;

	for my $lanes (1, 2)
	{
		my $m = "$from$lanes";
		my $user = $h->session;

		$t->sql(qq{
			CREATE TABLE a_$m (id int PRIMARY KEY, name text);
			INSERT INTO a_$m SELECT i, 'Company ' || i FROM generate_series(1, 5) i;
			CREATE TABLE b_$m (id $from PRIMARY KEY, family text, company int);
			INSERT INTO b_$m SELECT i::text::$from, 'Family ' || i, 1 FROM generate_series(1, 5) i});
		$t->migration($m, tables => 'account,contact');
		$t->sql(qq{
			SELECT dvmig.add_table('$m', 'a_$m', 'account', source_key => 'id');
			SELECT dvmig.map_column('a_$m', 'name', 'name');
			SELECT dvmig.add_table('$m', 'b_$m', 'contact', source_key => 'id');
			SELECT dvmig.map_column('b_$m', 'lastname', 'family');
			SELECT dvmig.map_lookup('b_$m', 'parentcustomerid', 'company', 'a_$m')});
		$h->hold(method => 'POST', path_contains => 'accounts');
		my $run = $t->start($m, "lanes => $lanes");
		$h->until('a request hangs', sub { $h->held > 0 });
		$user->do("BEGIN; ALTER TABLE b_$m ALTER id TYPE $to USING id::text::$to");
		$h->release;
		ok($t->wait_for("SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.relation = 'b_$m'::regclass AND NOT l.granted AND a.query ~ 'finding the next rows|reading staging rows')"),
			"$name, $lanes lanes: the run comes to it");
		$user->do('COMMIT');
		$user->quit;
		my $row = $h->ends($run, 'failed', "$name, $lanes lanes: the run fails");
		like($row->{message}, qr/key/, "$name, $lanes lanes: and says why");
		is($t->sql("SELECT count(*) FROM b_${m}_success"), 0, "$name, $lanes lanes: nothing was recorded");
	}
}

done_testing();

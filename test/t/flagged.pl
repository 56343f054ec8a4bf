# A flag changes its row's flag and id, and nothing else, however the row is made
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'flagged');
my $rows = 40;

$t->sql('CREATE SCHEMA staging');
$t->migration('m', tables => 'account');

# What a row is made of besides its flag and id: nulls, padding, values in line, compressed and out of line.
my $columns = q{id int PRIMARY KEY, company_name text, small int2, big int8, yes bool, at timestamptz, note text, packed text, out_of_line text, raw bytea, amount numeric};
my $values = q{n, 'Company ' || n, CASE WHEN n % 3 = 0 THEN n END, n, n % 2 = 0, CASE WHEN n % 5 > 0 THEN now() END, nullif(repeat('n', n % 7), ''),
	repeat('packed', 1000), CASE WHEN n % 4 = 0 THEN (SELECT string_agg(md5(n || ' ' || g), '') FROM generate_series(1, 200) g) END, decode(md5(n::text), 'hex'), n / 7.0};
my $ours = q{processing_flag char(1) NOT NULL DEFAULT 'U', action_flag char(1) NOT NULL DEFAULT 'I', dm_created_at timestamptz NOT NULL DEFAULT now(), dataverse_id uuid};

# How the four columns came to be there, and where.
my %tables = (
	ready => "CREATE TABLE staging.ready ($columns, $ours)",
	added => "CREATE TABLE staging.added ($columns)",
	first => "CREATE TABLE staging.first ($ours, $columns)",
	followed => "CREATE TABLE staging.followed ($columns, $ours, later text DEFAULT 'later')",
	nothing_null => "CREATE TABLE staging.nothing_null (id int PRIMARY KEY, company_name text NOT NULL, $ours)",
	as_text => "CREATE TABLE staging.as_text ($columns, processing_flag text NOT NULL DEFAULT 'U', action_flag text NOT NULL DEFAULT 'I', dm_created_at timestamptz NOT NULL DEFAULT now(), dataverse_id uuid);
		ALTER TABLE staging.as_text ALTER processing_flag SET STORAGE PLAIN, ALTER action_flag SET STORAGE PLAIN",
	dropped => "CREATE TABLE staging.dropped ($columns, $ours, gone text DEFAULT 'gone')",
	dropped_before => "CREATE TABLE staging.dropped_before ($columns, gone text DEFAULT 'gone', gone_fixed int8 DEFAULT 1, $ours)",
	given => "CREATE TABLE staging.given ($columns, $ours)",
	checked => "CREATE TABLE staging.checked ($columns, $ours, CHECK (processing_flag <> 'P' OR id <> 7))",
	many => 'CREATE TABLE staging.many (id int PRIMARY KEY, company_name text, ' . join(', ', map { "c$_ text" } 1 .. 90) . ", $ours)",
);

for my $name (sort keys %tables)
{
	my $list = $name eq 'nothing_null' || $name eq 'many' ? 'id, company_name' : 'id, company_name, small, big, yes, at, note, packed, out_of_line, raw, amount';

	$t->sql($tables{$name});
	$t->sql("INSERT INTO staging.$name ($list) SELECT " . ($list eq 'id, company_name' ? "n, 'Company ' || n" : $values) . " FROM generate_series(1, $rows) n");
	$t->sql(qq{SELECT dvmig.add_table('m', 'staging.$name', 'account', source_key => 'id', auto_map => false);
		SELECT dvmig.map_column('staging.$name', 'name', 'company_name')});
}
$t->sql(q{
	ALTER TABLE staging.dropped DROP gone;
	ALTER TABLE staging.dropped_before DROP gone, DROP gone_fixed;
	ALTER TABLE staging.added ADD afterwards text, ADD filled int DEFAULT 42;
	UPDATE staging.given SET dataverse_id = gen_random_uuid()});

# All columns but flag and id, of every row.
sub rest
{
	my ($name) = @_;

	return $t->sql("SELECT md5(string_agg((to_jsonb(s) - 'processing_flag' - 'dataverse_id')::text, '|' ORDER BY id)) FROM staging.$name s");
}

my %before = map { $_ => rest($_) } keys %tables;
my $given = $t->sql('SELECT md5(string_agg(dataverse_id::text, $$|$$ ORDER BY id)) FROM staging.given');

# Twice: created, with an id that comes; then updated, with one that is there.
for my $change ('', q{, action_flag = 'U'})
{
	my $run = $t->run('m', 'resend => true');

	is($run->{state}, 'completed', 'the run completes');
	for my $name (sort keys %tables)
	{
		is($t->counts("staging.$name"), "$rows/0/$rows/0/0", "$name: all succeeded") if $name ne 'checked';
		is(rest($name), $before{$name}, "$name: nothing else has changed");
		is($t->sql(qq{SELECT count(*) FROM staging.$name s JOIN staging.${name}_success x USING (id) WHERE x.dataverse_id = s.dataverse_id}),
			$name eq 'checked' ? $rows - 1 : $rows, "$name: the ids are those of the outcomes");
	}
	is($t->sql(q{SELECT string_agg(id || processing_flag, ' ') FROM staging.checked WHERE processing_flag <> 'P'}), '7U', 'a check constraint is kept');
	$t->account('m', map { ("staging.$_" => $_ eq 'checked' ? {} : { name => 's.company_name' }) } keys %tables) if $change eq '';
	$t->sql("UPDATE staging.$_ SET processing_flag = 'U', company_name = company_name || '!' $change") for keys %tables;
	%before = map { $_ => rest($_) } keys %tables;
}
is($t->sql('SELECT md5(string_agg(dataverse_id::text, $$|$$ ORDER BY id)) FROM staging.given'), $given, 'ids that were given stay');

# Every row of a table is whole, as amcheck sees it.
$t->sql('CREATE EXTENSION amcheck');
is($t->sql("SELECT count(*) FROM verify_heapam('staging.$_')"), 0, "$_: nothing is damaged") for sort keys %tables;

done_testing();

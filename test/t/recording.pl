# Flags and outcomes on tables of every kind: what a user hung on them acts as if
# an UPDATE or INSERT of his own had been made
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'recording', conf => "wal_level = logical\n");
my $rows = 300;

$t->sql(q{
	CREATE SCHEMA staging;
	CREATE TABLE staging.log (what text);
	CREATE FUNCTION staging.note() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN INSERT INTO staging.log VALUES (TG_TABLE_NAME || ' ' || TG_OP || ' ' || TG_LEVEL); RETURN NEW; END$$;
	CREATE FUNCTION staging.flag_text(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT 'flag ' || $1$$});
$t->migration('m', tables => 'account');

# table(name, columns, partitioning): registered and filled.
sub table
{
	my ($name, $more, $tail) = @_;

	$t->sql(qq{
		CREATE TABLE staging.$name (customer_id int, company_name text, processing_flag char(1) NOT NULL DEFAULT 'U' @{[ $more // '' ]}) @{[ $tail // '' ]}});
	return;
}

sub register
{
	my ($name) = @_;
	my $index = $name eq 'narrow' ? 'false' : 'true';

	$t->sql(qq{
		INSERT INTO staging.$name (customer_id, company_name) SELECT n, '$name ' || n FROM generate_series(1, $rows) n;
		SELECT dvmig.add_table('m', 'staging.$name', 'account', source_key => 'customer_id', auto_map => false, flag_index => $index);
		SELECT dvmig.map_column('staging.$name', 'name', 'company_name')});
	return;
}

my $key = ', PRIMARY KEY (customer_id)';

table('plain', $key);
table('watched', $key);
table('watched_by_statement', $key);
table('ruled', $key);
table('computed', ", state text GENERATED ALWAYS AS (processing_flag || '!') STORED $key");
table('checked', ", CONSTRAINT named CHECK (processing_flag <> 'P' OR customer_id <> 7) $key");
table('published', $key);
table('narrow', $key, 'WITH (fillfactor = 40)');
table('by_hash', $key, 'PARTITION BY HASH (customer_id)');
table('parent', $key);
$t->sql(q{
	CREATE TABLE staging.by_hash_0 PARTITION OF staging.by_hash FOR VALUES WITH (MODULUS 2, REMAINDER 0);
	CREATE TABLE staging.by_hash_1 PARTITION OF staging.by_hash FOR VALUES WITH (MODULUS 2, REMAINDER 1)});

register($_) for qw(plain watched watched_by_statement ruled computed checked published narrow by_hash parent);
$t->sql(q{
	CREATE TRIGGER note BEFORE UPDATE ON staging.watched FOR EACH ROW EXECUTE FUNCTION staging.note();
	CREATE TRIGGER note AFTER UPDATE ON staging.watched_by_statement FOR EACH STATEMENT EXECUTE FUNCTION staging.note();
	CREATE TRIGGER note BEFORE INSERT ON staging.parent_success FOR EACH ROW EXECUTE FUNCTION staging.note();
	CREATE RULE note AS ON UPDATE TO staging.ruled DO ALSO INSERT INTO staging.log VALUES ('ruled');
	CREATE PUBLICATION p FOR TABLE staging.published;
	CREATE INDEX ON staging.plain (staging.flag_text(processing_flag::text));
	CREATE INDEX waiting ON staging.plain (customer_id) WHERE processing_flag = 'U';
	ALTER TABLE staging.plain_success ADD seen text NOT NULL DEFAULT 'no'});

my $run = $t->run('m');
is($run->{state}, 'completed', 'the run completes');
is($t->counts("staging.$_"), "$rows/0/$rows/0/0", "$_: all succeeded")
  for qw(plain watched watched_by_statement computed published narrow by_hash parent);
is($t->sql("SELECT count(*) FROM staging.log WHERE what = 'watched UPDATE ROW'"), $rows, 'a row trigger acts on every flag');
cmp_ok($t->sql("SELECT count(*) FROM staging.log WHERE what = 'watched_by_statement UPDATE STATEMENT'"), '>=', 1, 'a statement trigger acts');
is($t->sql("SELECT count(*) FROM staging.log WHERE what = 'parent_success INSERT ROW'"), $rows, 'a trigger of the outcome table acts on every row');
cmp_ok($t->sql("SELECT count(*) FROM staging.log WHERE what = 'ruled'"), '>=', 1, 'a rule acts');
is($t->sql("SELECT count(*) FROM staging.plain_success WHERE seen = 'no'"), $rows, 'a column of the user gets its default');
is($t->sql("SELECT count(*) FROM staging.computed WHERE state = 'P!'"), $rows, 'a generated column follows the flag');
is($t->sql("SELECT string_agg(customer_id::text, ' ') FROM staging.checked WHERE processing_flag <> 'P'"), '7', 'a constraint keeps one flag');
is($t->sql('SELECT count(*) FROM staging.checked_success'), $rows, 'and no outcome');
ok($t->wait_for("SELECT n_tup_hot_upd > $rows / 2 FROM pg_stat_user_tables WHERE relid = 'staging.narrow'::regclass"),
	'with room in its pages a table is updated without new index entries');
$t->account('m', map { ("staging.$_" => { name => 's.company_name' }) } qw(plain watched watched_by_statement ruled computed published narrow by_hash parent));

# Rows that are stored in odd ways keep all that is not theirs to change: long values kept aside, columns that were
# dropped and added, constraints that look at two rows, indexes that sum up, a replica that wants whole rows.
my %odd = (
	toasted => q{ALTER TABLE staging.%1$s ADD long text, ADD longer text; ALTER TABLE staging.%1$s ALTER longer SET STORAGE EXTERNAL;
		UPDATE staging.%1$s SET long = (SELECT string_agg(md5(i::text), '') FROM generate_series(customer_id, customer_id + 200) i), longer = repeat('x', 9000)},
	reshaped => q{ALTER TABLE staging.%1$s ADD gone text DEFAULT repeat('g', 3000); ALTER TABLE staging.%1$s ALTER gone SET STORAGE EXTERNAL;
		UPDATE staging.%1$s SET gone = gone || 'h'; ALTER TABLE staging.%1$s DROP gone, ADD later text DEFAULT 'later', ADD made numeric(10, 2) NOT NULL DEFAULT 1.50},
	excluded => q{CREATE EXTENSION btree_gist; ALTER TABLE staging.%1$s ADD EXCLUDE USING gist (customer_id WITH =, company_name WITH =) WHERE (processing_flag <> 'U')},
	summed => q{CREATE INDEX ON staging.%1$s USING brin (processing_flag); CREATE INDEX ON staging.%1$s USING brin (customer_id)},
	replicated => q{ALTER TABLE staging.%1$s REPLICA IDENTITY FULL; CREATE PUBLICATION %1$s FOR TABLE staging.%1$s},
	deferred => q{ALTER TABLE staging.%1$s ADD UNIQUE (company_name, processing_flag) DEFERRABLE INITIALLY DEFERRED},
	pointed_at => q{CREATE TABLE staging.%1$s_child (id int REFERENCES staging.%1$s (customer_id)); INSERT INTO staging.%1$s_child SELECT customer_id FROM staging.%1$s},
	frozen => q{ALTER TABLE staging.%1$s SET (autovacuum_enabled = off); VACUUM (FREEZE) staging.%1$s});
my %was;
my $others = "SELECT md5(string_agg((to_jsonb(s) - '{processing_flag,dataverse_id}'::text[])::text, '|' ORDER BY customer_id)) FROM staging.%s s";
for my $name (sort keys %odd)
{
	table($name, $key);
	register($name);
	$t->sql(sprintf $odd{$name}, $name);
	$was{$name} = $t->sql(sprintf $others, $name);
}
$t->sql(q{SELECT pg_create_logical_replication_slot('whole', 'test_decoding')});
is($t->run('m')->{state}, 'completed', 'a run over odd tables completes');
for my $name (sort keys %odd)
{
	is($t->counts("staging.$name"), "$rows/0/$rows/0/0", "$name: all succeeded");
	is($t->sql(sprintf $others, $name), $was{$name}, "$name: all other columns are what they were");
}
is($t->sql(q{SELECT count(*) FROM pg_logical_slot_get_changes('whole', NULL, NULL)
	WHERE data LIKE 'table staging.replicated: UPDATE: old-key: customer_id[integer]:%company_name%new-tuple:%'}), $rows, 'a replica is told the whole rows');
$t->sql("SELECT pg_drop_replication_slot('whole')");

# Indexes hold exactly the rows, also the partial one and the one on an expression.
$t->sql('CREATE EXTENSION amcheck');
is($t->sql(q{SELECT count(*) FROM pg_class c, verify_heapam(c.oid) WHERE c.relnamespace = 'staging'::regnamespace AND c.relkind = 'r'}), 0, 'no table is damaged');
is($t->sql(q{SET enable_seqscan = off; SET enable_indexscan = off; SELECT count(*) FROM staging.summed WHERE processing_flag = 'P'}), $rows, 'an index that sums up knows the flags');
is($t->sql(q{
	SELECT count(bt_index_check(i.indexrelid, true)) > 20 FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
	JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am xa ON xa.oid = x.relam
	WHERE c.relnamespace = 'staging'::regnamespace AND c.relkind = 'r' AND xa.amname = 'btree'}), 't', 'no index lacks a row');
is($t->sql(q{SET enable_seqscan = off; SELECT count(*) FROM staging.plain WHERE processing_flag = 'U'}), 0, 'nothing is left in the index of what waits');

# A reload: outcomes that are there already, on every kind of table.
$t->sql("UPDATE staging.$_ SET processing_flag = 'U', company_name = CASE WHEN customer_id % 2 = 0 THEN company_name || ' new' ELSE company_name END")
  for qw(plain watched narrow by_hash parent);
$run = $t->run('m', 'resend => true');
is($run->{state}, 'completed', 'a second run completes');
is($run->{unchanged} + 0, 5 * $rows / 2 + 1, 'half the rows are unchanged, and the one whose flag was refused');
is($t->counts("staging.$_"), "$rows/0/$rows/0/0", "$_: all succeeded again") for qw(plain watched narrow by_hash parent);
$t->account('m', map { ("staging.$_" => { name => 's.company_name' }) } qw(plain watched watched_by_statement ruled computed published narrow by_hash parent));

# Outcomes of "parent" are written by SQL, those of "narrow" past it: rows that are unchanged, changed, and created anew.
$t->sql("UPDATE staging.$_ SET processing_flag = 'U', action_flag = 'D' WHERE customer_id <= 4") for qw(narrow parent);
is($t->run('m')->{state}, 'completed', 'a run that deletes completes');
$t->sql("UPDATE staging.${_}_success SET record_state = '1,2', file_hash = 'ab' WHERE customer_id <= 20;
	UPDATE staging.${_}_success SET pass = 'deferred' WHERE customer_id BETWEEN 15 AND 30;
	UPDATE staging.$_ SET processing_flag = 'U', action_flag = 'I', company_name = CASE WHEN customer_id % 3 = 0 THEN company_name || ' newer' ELSE company_name END")
  for qw(narrow parent);
is($t->run('m', 'resend => true')->{state}, 'completed', 'a third run completes');
my $outcomes = 'customer_id, dataverse_id IS NULL, operation, pass, content_hash IS NULL, created_run, run, message, owed_passes, record_state, file_hash';
is($t->sql("SELECT count(*), count(DISTINCT (pass, operation, message, record_state)) > 4 FROM (SELECT $outcomes FROM staging.narrow_success INTERSECT SELECT $outcomes FROM staging.parent_success) o"),
	"$rows|t", 'a statement and what goes past it give the same outcomes');

done_testing();

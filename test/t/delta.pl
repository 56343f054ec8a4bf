# dvmig.load_delta: a fresh extract merged into a staging table
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'delta');
$t->migration('m', tables => 'account,contact');
$t->sql(q{
	CREATE TABLE src (id text, name text, turnover numeric, note text, extra int);
	INSERT INTO src SELECT i::text, 'Firm ' || i, i * 1.50, CASE WHEN i % 3 = 0 THEN NULL ELSE 'n' || i END, i FROM generate_series(1, 100) i;
	CREATE TABLE firms (id int PRIMARY KEY, name text, turnover numeric(12, 2), note varchar(50), own text DEFAULT 'mine');
	SELECT dvmig.add_table('m', 'firms', 'account', source_key => 'id');
	SELECT dvmig.map_column('firms', 'name', 'name');
	SELECT dvmig.map_column('firms', 'revenue', 'turnover');
	SELECT dvmig.map_column('firms', 'description', 'note')});

sub delta { my ($args) = @_; return $t->sql("SELECT inserted, updated, deleted, unchanged FROM dvmig.load_delta('firms', $args)"); }
sub versions { return $t->sql(q{SELECT md5(string_agg(id || ' ' || ctid || ' ' || xmin, ',' ORDER BY id)) FROM firms}); }

is(delta(q{'src'}), '100|0|0|0', 'the first extract: all rows are new');
is($t->sql(q{SELECT string_agg(DISTINCT processing_flag || action_flag || own, ',') FROM firms}), 'UImine', 'to be inserted; what the extract lacks has its default');
is($t->run('m')->{state}, 'completed', 'the full load');

my $before = versions();
is(delta(q{'src'}), '0|0|0|100', 'the same extract again');
is(versions(), $before, 'touches no row');
is(delta(q{$$SELECT id, name, turnover::numeric(20, 6) AS turnover, note FROM src$$}), '0|0|0|100', 'nor do more zeros of the same number');
is(versions(), $before, 'really none');

$t->sql(q{
	UPDATE src SET name = upper(name) WHERE id = '5';
	UPDATE src SET note = NULL WHERE id = '7';
	UPDATE src SET note = 'now' WHERE id = '9';
	INSERT INTO src VALUES ('101', 'Firm 101', 1, NULL, 0);
	DELETE FROM src WHERE id IN ('11', '12')});
is(delta(q{'src'}), '1|3|0|95', 'changed and new rows');
is($t->sql(q{SELECT string_agg(id || action_flag, ',' ORDER BY id) FROM firms WHERE processing_flag = 'U'}), '5U,7U,9U,101I', 'loaded rows are updates, new ones inserts');
is($t->sql(q{SELECT count(*) FROM firms WHERE id IN (11, 12) AND processing_flag = 'P' AND action_flag = 'I'}), '2', 'missing ones stay unasked');
my $run = $t->run('m');
is("$run->{state} $run->{rows_sent}", 'completed 4', 'only those are sent');
is(delta(q{'src', deletes => true}), '0|0|2|99', 'in a full extract what is missing is to be deleted, where asked');
is(delta(q{'src', deletes => true}), '0|0|0|99', 'once');
$t->sql(q{INSERT INTO src VALUES ('12', 'Firm 12', 18, NULL, 12)});
is(delta(q{'src', deletes => true}), '0|1|0|99', 'a row that came back is wanted again');
is($t->run('m')->{state}, 'completed', 'the delta is loaded');
is($t->sql(q{SELECT string_agg(id || operation, ',' ORDER BY id) FROM firms_success WHERE operation = 'D'}), '11D', 'one record is deleted');
$t->account('m', firms => { name => 's.name', description => 's.note' });
$t->sql(q{INSERT INTO src VALUES ('11', 'Firm 11', 1, NULL, 11)});
is(delta(q{'src', deletes => true}), '0|1|0|100', 'a deleted one too');
is($t->run('m')->{state}, 'completed', 'and is created again');
$t->sql(q{UPDATE firms SET processing_flag = 'U' WHERE id = 20; UPDATE src SET name = 'x' WHERE id = '20'});
is(delta(q{'src'}), '0|1|0|100', 'a row that was not loaded yet');
is($t->run('m')->{state}, 'completed', 'is loaded');

# ------------------------------------------------------------------ bad input

like($t->error(q{SELECT dvmig.load_delta('firms', 'DELETE FROM firms')}), qr/22023.*neither the name of a relation nor a query/s, 'a source that is neither');
like($t->error(q{SELECT dvmig.load_delta('firms', 'nowhere')}), qr/42P01.*relation "nowhere" does not exist.*begins with SELECT/s, 'no such source');
like($t->error(q{SELECT dvmig.load_delta('firms', 'firms')}), qr/22023.*extract for itself/s, 'itself');
like($t->error(q{SELECT dvmig.load_delta('firms', NULL::text)}), qr/22004.*the source is missing/s, 'null');
like($t->error(q{SELECT dvmig.load_delta('src', 'src')}), qr/42704.*not a staging table/s, 'not a staging table');
like($t->error(q{SELECT dvmig.load_delta('firms', 'SELECT name FROM src')}), qr/42703.*lacks the source key.*: id/s, 'no key');
like($t->error(q{SELECT dvmig.load_delta('firms', 'SELECT NULL::int AS id, ''x''::text AS name')}), qr/23502.*1 row of the extract has no source key/s, 'null keys');
like($t->error(q{SELECT dvmig.load_delta('firms', 'SELECT * FROM src UNION ALL SELECT * FROM src')}), qr/23505.*101 source keys occur more than once.*GROUP BY x.id/s, 'keys twice');
like($t->error(q{SELECT dvmig.load_delta('firms', 'SELECT * FROM src WHERE false', deletes => true)}), qr/55000.*the extract is empty: every record/s, 'an empty extract deletes nothing');
like($t->error(q{SELECT dvmig.load_delta('firms', 'SELECT ''no number'' AS id, ''x'' AS name')}), qr/22P02/, 'a key that does not cast');
like($t->error(q{SELECT dvmig.load_delta('firms', 'SELECT 1 AS id) q; DROP TABLE src; --')}), qr/42601|42P01/, 'a query that breaks out');
is($t->sql('SELECT count(*) FROM src'), '101', 'does not');
is($t->sql(q{SELECT count(*) FROM firms WHERE processing_flag <> 'P'}), '0', 'no refusal has changed a row');

# --------------------------------------------------------------- the rights

$t->sql(q{CREATE ROLE night LOGIN; SELECT dvmig.grant_operator('night', 'm')});
like($t->error(q{SET ROLE night; SELECT dvmig.load_delta('firms', 'src')}), qr/42501.*permission denied for table src/s, 'who may not read the source');
$t->sql(q{GRANT SELECT ON src TO night; UPDATE src SET name = 'night' WHERE id = '1'});
like($t->error(q{SET ROLE night; SELECT dvmig.load_delta('firms', 'src')}), qr/42501.*permission denied for table public.firms/s, 'who may not write the staging table');
$t->sql(q{GRANT SELECT, INSERT, UPDATE ON firms TO night});
is($t->sql(q{SET ROLE night; SELECT updated FROM dvmig.load_delta('firms', 'SELECT * FROM src')}), '1', 'who may both');
is($t->sql(q{SELECT role || ' ' || detail::text FROM dvmig.event ORDER BY event_id DESC LIMIT 1}), 'night {"deleted": 0, "updated": 1, "inserted": 0, "unchanged": 100}', 'is noted');
$t->sql(q{CREATE ROLE stranger LOGIN; GRANT USAGE ON SCHEMA dvmig TO stranger; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dvmig TO stranger});
like($t->error(q{SET ROLE stranger; SELECT dvmig.load_delta('firms', 'src')}), qr/42501.*permission denied for migration "m"/s, 'not who is no operator');

# Whose code runs as whom: triggers of the owner as the owner, whoever calls; and
# nothing of the caller's as the owner.
$t->sql(sprintf q{CREATE ROLE dba LOGIN; CREATE USER MAPPING FOR dba SERVER sim OPTIONS (client_id '%s', client_secret '%s')}, DvMig::Sim::CLIENT, DvMig::Sim::SECRET);
$t->sql(q{
	SELECT dvmig.grant_owner('dba'); GRANT USAGE ON FOREIGN SERVER sim TO dba; GRANT CREATE ON SCHEMA public TO dba;
	CREATE TABLE seen (who text); GRANT INSERT ON seen TO PUBLIC;
	SET ROLE dba;
	SELECT dvmig.create_migration('his', 'sim');
	CREATE TABLE his (id int PRIMARY KEY, name text);
	SELECT dvmig.add_table('his', 'his', 'account', source_key => 'id');
	SELECT dvmig.grant_operator('night', 'his');
	GRANT SELECT, INSERT, UPDATE ON his TO night;
	CREATE FUNCTION public.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES ('trigger ' || current_user); RETURN new; END $$;
	CREATE TRIGGER trap BEFORE INSERT OR UPDATE ON his FOR EACH ROW EXECUTE FUNCTION public.trap()});
is($t->sql(q{SELECT inserted FROM dvmig.load_delta('his', 'SELECT 1 AS id, ''a'' AS name')}), '1', "a superuser loads into an owner's table");
is($t->sql(q{SET ROLE night; SELECT inserted FROM dvmig.load_delta('his', 'SELECT 2 AS id, ''b'' AS name')}), '1', 'an operator too');
is($t->sql(q{SELECT string_agg(DISTINCT who, ',') FROM seen}), 'trigger dba', "the owner's trigger has the owner's rights");
$t->sql(q{
	GRANT CREATE ON SCHEMA public TO night;
	SET ROLE night;
	CREATE TYPE public.bait AS (n int);
	CREATE FUNCTION public.bite(public.bait) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES ('cast ' || current_user); RETURN 3; END $$;
	CREATE CAST (public.bait AS int) WITH FUNCTION public.bite(public.bait) AS IMPLICIT});
like($t->error(q{SET ROLE night; SELECT dvmig.load_delta('his', 'SELECT ROW(3)::public.bait AS id, ''c'' AS name')}),
	qr/0A000.*not the system's: id \(public.bait\).*Cast them/s, "a type of the operator's is refused");
is($t->sql(q{SELECT count(*) FROM seen WHERE who LIKE 'cast%'}), '0', 'and its cast has not run');
is($t->sql(q{SET ROLE dba; CREATE DOMAIN public.short AS text CHECK (length(value) < 9); SELECT inserted FROM dvmig.load_delta('his', 'SELECT 4 AS id, ''d''::public.short AS name')}) =~ s/.*\n//sr, '1',
	'the owner may have types of his own');

# Composite keys, and types without an equality of their own.
$t->sql(q{
	CREATE TABLE parts (a text COLLATE "C", b int, body json, name text, PRIMARY KEY (a, b));
	SELECT dvmig.add_table('m', 'parts', 'contact', source_key => 'a, b');
	CREATE TABLE parts_new AS SELECT 'k'::text AS a, i AS b, json_build_object('n', i) AS body, 'P ' || i AS name FROM generate_series(1, 3) i});
is($t->sql(q{SELECT inserted FROM dvmig.load_delta('parts', 'parts_new'::regclass)}), '3', 'composite keys; a source as regclass');
$t->sql(q{UPDATE parts_new SET body = '{"n": "other"}' WHERE b = 2});
is($t->sql(q{SELECT inserted, updated, unchanged FROM dvmig.load_delta('parts', 'parts_new')}), '0|1|2', 'json is compared as text');

# What the staging table has no room for is refused like any INSERT's, and a key never becomes another one.
$t->sql(q{
	CREATE DOMAIN five AS varchar(5);
	CREATE TABLE narrow (id int PRIMARY KEY, word varchar(5), fixed char(5), own five, bits bit(3));
	INSERT INTO narrow VALUES (1, 'abc', 'abc', 'abc', '101');
	CREATE TABLE words (id varchar(3) PRIMARY KEY, name text);
	INSERT INTO words VALUES ('abc', 'one');
	CREATE TABLE days (id date, part numeric(10, 1), name text, PRIMARY KEY (id, part));
	INSERT INTO days VALUES ('2024-01-01', 1.5, 'one');
	CREATE TABLE numbered (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
	SELECT dvmig.add_table('m', x, 'account', auto_map => false) FROM unnest('{narrow,words,days,numbered}'::regclass[]) x});
for my $case (
	[ 'narrow', q{SELECT 1 AS id, 'abcdef' AS word}, '22001' ],
	[ 'narrow', q{SELECT 2 AS id, 'abcdef' AS word}, '22001' ],
	[ 'narrow', q{SELECT 1 AS id, 'abcdef' AS fixed}, '22001' ],
	[ 'narrow', q{SELECT 1 AS id, 'abcdef' AS own}, '22001' ],
	[ 'narrow', q{SELECT 1 AS id, '10111'::bit(5) AS bits}, '22026' ],
	[ 'narrow', q{SELECT 1.4 AS id}, '22000.*1 source key of the extract would become another key' ],
	[ 'narrow', q{SELECT 0.6::float8 AS id}, '22000.*1 source key of the extract would become another key' ],
	[ 'narrow', q{VALUES ('1'), ('01')) q(id); SELECT * FROM (SELECT 1 AS id}, '42601' ],
	[ 'narrow', q{SELECT * FROM (VALUES ('1'), ('01')) q(id)}, '23505.*1 source keys occur more than once' ],
	[ 'words', q{SELECT * FROM (VALUES ('abcde', 'two'), ('abcxy', 'three')) q(id, name)}, '22001' ],
	[ 'days', q{SELECT timestamp '2024-01-01 12:00' AS id, 1.5 AS part, 'two' AS name}, '22000.*1 source key of the extract would become another key' ],
	[ 'days', q{SELECT date '2024-01-01' AS id, 1.52 AS part, 'two' AS name}, '22000.*1 source key of the extract would become another key' ],
	[ 'days', q{SELECT '2024-01-01' AS id, '1.52' AS part, 'two' AS name}, '22000.*1 source key of the extract would become another key' ],
	[ 'numbered', q{SELECT 1 AS id, 'two' AS name}, '0A000.*generated always: id' ])
{
	my ($table, $query, $says) = @$case;
	my $before = $t->sql("SELECT string_agg(x::text, ' ') FROM $table x");

	like($t->error("SELECT dvmig.load_delta('$table', \$q\$$query\$q\$)"), qr/$says/s, "$table: $query is refused");
	is($t->sql("SELECT string_agg(x::text, ' ') FROM $table x"), $before, 'and changes nothing');
}
is($t->sql(q{SELECT inserted, updated, unchanged FROM dvmig.load_delta('narrow', $$SELECT 1.0 AS id, 'abc'::char(9) AS fixed, 'abc' AS word$$)}), '0|0|1', 'the same key and values in wider types are the same');
is($t->sql(q{SELECT inserted, updated, unchanged FROM dvmig.load_delta('days', $$SELECT '2024-01-01 00:00'::timestamp AS id, 1.50 AS part, 'one' AS name$$)}), '0|0|1', 'those of several columns, too');

done_testing();

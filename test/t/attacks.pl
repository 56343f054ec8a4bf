# Attacks by those who may do something on those who may do more: an operator on
# the migration's owner, an owner on a superuser who works for him
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'attacks', no_sim => 0);

sub as { my ($role, $sql) = @_; return $t->sql("SET SESSION AUTHORIZATION $role; $sql"); }
sub fails
{
	my ($role, $pattern, $sql, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($t->error("SET SESSION AUTHORIZATION $role; $sql"), $pattern, $name);
	return;
}

$t->server('sim');
$t->sql(sprintf q{
	CREATE ROLE dba LOGIN; CREATE ROLE operator LOGIN;
	GRANT CREATE, TEMPORARY ON DATABASE postgres TO dba, operator;
	GRANT USAGE ON FOREIGN SERVER sim TO dba;
	CREATE USER MAPPING FOR dba SERVER sim OPTIONS (client_id '%s', client_secret '%s');
	SELECT dvmig.grant_owner('dba')}, DvMig::Sim::CLIENT, DvMig::Sim::SECRET);
as('dba', q{CREATE SCHEMA staging; GRANT USAGE ON SCHEMA staging TO operator;
	CREATE TABLE staging.people (id int PRIMARY KEY, family text);
	INSERT INTO staging.people VALUES (1, 'One');
	CREATE TABLE staging.loot (what text, who text); GRANT INSERT, SELECT ON staging.loot TO PUBLIC;
	SELECT dvmig.refresh_metadata('sim', '{contact}');
	SELECT dvmig.create_migration('m', 'sim');
	SELECT dvmig.add_table('m', 'staging.people', 'contact');
	SELECT dvmig.map_column('staging.people', 'lastname', 'family');
	SELECT dvmig.grant_operator('operator', 'm');
	GRANT SELECT, INSERT, UPDATE ON staging.people TO operator});

# What an operator leaves where the owner of the migration will look.
as('operator', q{CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC;
	CREATE FUNCTION evil.bite(what text) RETURNS text LANGUAGE plpgsql AS
		$$BEGIN INSERT INTO staging.loot VALUES (what, current_user); RETURN what; END$$;
	GRANT EXECUTE ON FUNCTION evil.bite(text) TO PUBLIC});
sub bitten { my ($name) = @_; local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($t->sql(q{SELECT string_agg(DISTINCT what || ' ' || who, ', ') FROM staging.loot WHERE who <> 'operator'}), '', $name); $t->sql('TRUNCATE staging.loot'); return; }

for my $case (
	[ 'a view in the place of the extract', q{SELECT 2 AS id, 'Two' AS family) q; DROP TABLE pg_temp.dvmig_extract;
		CREATE TEMPORARY VIEW dvmig_extract AS SELECT * FROM (SELECT 2 AS id, evil.bite('view') AS family} ],
	[ 'a policy on the extract', q{SELECT 3 AS id, 'Three' AS family) q; CREATE POLICY p ON pg_temp.dvmig_extract USING (evil.bite('policy') IS NOT NULL);
		ALTER TABLE pg_temp.dvmig_extract ENABLE ROW LEVEL SECURITY; SELECT * FROM (SELECT 1} ],
	[ 'a second statement', q{SELECT 4 AS id, 'Four' AS family; SELECT 1} ],
	[ 'a statement that writes', q{WITH w AS (INSERT INTO staging.loot VALUES ('insert', 'x') RETURNING *) SELECT 4 AS id, 'Four' AS family FROM w} ])
{
	my ($name, $sql) = @$case;
	my $error = $t->error("SET SESSION AUTHORIZATION operator; SELECT * FROM dvmig.load_delta('staging.people', \$q\$$sql\$q\$)");
	like($error, qr/42601|0A000/, "$name is refused") or diag $error;
	bitten("$name: runs with no rights but the operator's");
}
# The same by functions that the query calls while the extract is being made.
for my $case (
	[ 'a rule', q{CREATE RULE "_RETURN" AS ON SELECT TO pg_temp.dvmig_extract DO INSTEAD SELECT 6 AS id, evil.bite('rule') AS family} ],
	[ 'a policy', q{CREATE POLICY p ON pg_temp.dvmig_extract USING (evil.bite('policy') IS NOT NULL); ALTER TABLE pg_temp.dvmig_extract ENABLE ROW LEVEL SECURITY} ],
	[ 'an index', q{CREATE INDEX ON pg_temp.dvmig_extract (evil.still(family))} ],
	[ 'a child', q{CREATE TABLE pg_temp.child (CHECK (evil.bite(family) IS NOT NULL)) INHERITS (pg_temp.dvmig_extract)} ],
	[ 'another table', q{ALTER TABLE pg_temp.dvmig_extract RENAME TO was; CREATE TEMP VIEW dvmig_extract AS SELECT 6 AS id, evil.bite('swap') AS family} ])
{
	my ($name, $sql) = @$case;

	as('operator', qq{CREATE OR REPLACE FUNCTION evil.still(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT evil.bite(\$1)';
		CREATE OR REPLACE FUNCTION evil.meddle() RETURNS text LANGUAGE plpgsql AS \$\$BEGIN $sql; RETURN 'Six'; END\$\$});
	isnt($t->error(q{SET SESSION AUTHORIZATION operator; SELECT * FROM dvmig.load_delta('staging.people', $$SELECT 6 AS id, evil.meddle() AS family$$)}), '',
		"$name on the extract, made while it is read, is refused");
	bitten("$name: runs with no rights but the operator's");
}
is(as('operator', q{SELECT inserted FROM dvmig.load_delta('staging.people', $$SELECT 5 AS id, evil.bite('query') AS family$$)}), 1, 'a plain query is merged');
bitten('and runs as who wrote it');
done_testing();

# What modules and settings that print plans make of dvmig's statements: nothing
# of a row, although plans hold the values that they were made for
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use PostgreSQL::Test::Utils;

use DvMig;

chomp(my $libraries = qx($ENV{PG_CONFIG} --pkglibdir));
my @modules = grep { -e "$libraries/$_.so" } qw(auto_explain pg_stat_statements);
plan skip_all => 'no auto_explain and no pg_stat_statements here' if @modules < 2;

my $t = DvMig->new(name => 'told_by_modules', conf => <<CONF);
shared_preload_libraries = '@{[ join ',', @modules ]}'
auto_explain.log_min_duration = 0
auto_explain.log_analyze = on
auto_explain.log_verbose = on
auto_explain.log_triggers = on
auto_explain.log_nested_statements = on
pg_stat_statements.track = all
log_min_messages = debug5
log_min_error_statement = debug5
log_error_verbosity = verbose
log_line_prefix = '\@\@%b: '
CONF
my $content = 'R0WC0NTENT';

# Nobody's statement has it as a text.
$t->server('sim');
$t->sql(q{CREATE EXTENSION pg_stat_statements;
	CREATE SCHEMA staging;
	CREATE FUNCTION staging.content() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN reverse(''TNETN0CW0R''); END';
	CREATE FUNCTION staging.watched() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM FROM staging.firms WHERE id = NEW.id; RETURN NEW; END';
	CREATE TABLE staging.firms (id text PRIMARY KEY, name text, parent text);
	CREATE TABLE staging.people (id text PRIMARY KEY, name text, mail text);
	SELECT count(*) FROM dvmig.refresh_metadata('sim', '{account,contact}');
	SELECT dvmig.create_migration('m', 'sim', gate => NULL);
	SELECT dvmig.add_table('m', 'staging.firms', 'account', source_key => 'id', target_key => 'new_legacyid');
	SELECT dvmig.map_column('staging.firms', 'name', 'name'), dvmig.map_lookup('staging.firms', 'parentaccountid', 'parent', 'staging.firms');
	SELECT dvmig.add_table('m', 'staging.people', 'contact', source_key => 'id');
	SELECT dvmig.map_column('staging.people', 'lastname', 'name'), dvmig.map_lookup('staging.people', 'ownerid', 'mail', 'systemuser', match_on => 'internalemailaddress');
	CREATE TRIGGER w BEFORE UPDATE ON staging.firms FOR EACH ROW EXECUTE FUNCTION staging.watched();
	INSERT INTO staging.firms SELECT staging.content() || i, repeat(staging.content(), CASE WHEN i = 3 THEN 100 ELSE 1 END), CASE WHEN i > 4 THEN staging.content() || i / 2 END
		FROM generate_series(1, 20) i;
	INSERT INTO staging.people SELECT staging.content() || i, staging.content(), CASE i WHEN 1 THEN staging.content() END FROM generate_series(1, 5) i});

# An owner may ask for trees of what he does himself.
$t->sql('ALTER ROLE CURRENT_USER SET debug_print_plan = on');
is($t->run('m', 'lanes => 2')->{state}, 'completed', 'a run');
like($t->counts('staging.firms'), qr{^20/\d+/\d+/[1-9]\d*/0$}, 'of which rows fail');
# what he does himself is his, with what his triggers do then
$t->sql(q{ALTER TABLE staging.firms DISABLE TRIGGER w; UPDATE staging.firms SET name = name || ' II', processing_flag = 'U' WHERE processing_flag = 'P';
	ALTER TABLE staging.firms ENABLE TRIGGER w});
is($t->run('m')->{state}, 'completed', 'updates');
$t->sql('ALTER ROLE CURRENT_USER RESET debug_print_plan');
$t->sql($_) for q{SELECT * FROM dvmig.check('m')}, q{SELECT * FROM dvmig.status}, q{SELECT * FROM dvmig.top_errors}, q{SELECT dvmig.report('m')},
	q{SELECT * FROM dvmig.preview('staging.firms')}, q{SELECT * FROM dvmig.refresh_references('m')}, q{SELECT * FROM dvmig.unmatched_owners('m')},
	q{SELECT * FROM dvmig.verify('m')}, q{SELECT * FROM dvmig.difference}, q{SELECT dvmig.resend('staging.firms', '{name}')},
	q{SELECT dvmig.retry('staging.firms', filter => 'true')}, q{SELECT dvmig.retry('staging.people')},
	q{CREATE TABLE staging.extract AS SELECT id, name || ' III' AS name, parent FROM staging.firms; SELECT * FROM dvmig.load_delta('staging.firms', 'staging.extract'::regclass)},
	q{SELECT dvmig.rebuild_outcomes('staging.people')}, q{SELECT dvmig.undo(min(run), dry_run => true) FROM dvmig.run_history};

my $log = slurp_file($t->node->logfile);
like($log, qr/^\@\@client backend: LOG: .*plan:/m, 'plans of the statements of clients are in the server log');
my @told = map { substr $_, 0, 300 } grep { /$content/ } split /^@@/m, $log;
is(join("\n", @told[ 0 .. ($#told > 4 ? 4 : $#told) ]), '', 'no row content in it');
is(scalar(() = $log =~ /^\@\@dvmig worker: LOG: .*\bplan\b/mg), 0, 'and no plan of our workers, with bytes of rows');
is($t->sql(qq{SELECT query FROM pg_stat_statements WHERE query ~ '$content'}), '', 'nor in pg_stat_statements');
is($t->sql(sprintf q{SELECT query FROM pg_stat_statements WHERE strpos(query, '%s') > 0 AND query !~ '^CREATE USER MAPPING'}, DvMig::Sim::SECRET), '', 'where secrets are only in what a user wrote');
is(join("\n", grep { /\Q@{[DvMig::Sim::SECRET]}\E|Bearer|access_token/ && !/CREATE USER MAPPING|OPTIONS \(client_id/ } split /\n/, $log), '', 'nor in the server log');

done_testing();

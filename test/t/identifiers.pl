# Names with quotes, dots, blanks, letters beyond ASCII, and of 63 bytes, of all
# that can be named, through all that is done with them
use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::RealBin";

use Encode qw(encode);
use Test::More;

use DvMig;

# id(name), lit(text): quoted as an identifier and as a literal
sub id { my ($name) = @_; return '"' . ($name =~ s/"/""/gr) . '"'; }
sub lit { my ($text) = @_; return "'" . ($text =~ s/'/''/gr) . "'"; }
sub fit { my ($name) = @_; chop $name while length encode('UTF-8', $name) > 63; return $name; }

my $migration = q{Mi"gra'tion. ü};
my $owner = fit(q{Eigen"tümer.'s } . 'x' x 63);
my $server = q{Ser"ver. 'ä'};
my $schema = q{Sch"ema.'s 😀};
my %table = (firms => fit('Ä' x 31 . 'x'), people => q{Leute "x".'y' ü}, lists => fit('L"isten.' x 9), songs => fit('"' x 63), pairs => q{Pa'are.}, invoices => fit(q{"'. } x 20));
my %t = map { $_ => id($schema) . '.' . id($table{$_}) } keys %table;
my %l = map { $_ => lit($t{$_}) } keys %t;
my ($key, $name, $parent, $other) = map { fit($_) } q{Schl"üssel.'s } . 'k' x 63, q{Na"me, 'alt'. é}, q{El"tern 😀}, q{select};
my ($k, $n, $p, $o) = map { id($_) } $key, $name, $parent, $other;

my $t = DvMig->new(name => 'identifiers');
sub sql { my ($text) = @_; return $t->sql(encode('UTF-8', $text)); }
sub as { my ($text) = @_; return sql('SET SESSION AUTHORIZATION ' . id($owner) . "; $text"); }

is(length encode('UTF-8', $_), 63, 'a name of 63 bytes') for $table{firms}, $table{songs}, $key, $owner;
sql(sprintf q{CREATE ROLE %1$s LOGIN; CREATE ROLE %7$s LOGIN; GRANT CREATE ON DATABASE postgres TO %1$s; SELECT dvmig.grant_owner(%2$s);
	CREATE SERVER %3$s FOREIGN DATA WRAPPER dataverse OPTIONS (url '%4$s', authority '%4$s', tenant 'contoso.example', environment 'test');
	CREATE USER MAPPING FOR %1$s SERVER %3$s OPTIONS (client_id '%5$s', client_secret '%6$s'); GRANT USAGE ON FOREIGN SERVER %3$s TO %1$s},
	id($owner), lit($owner), id($server), $t->sim->url, DvMig::Sim::CLIENT, DvMig::Sim::SECRET, id("$owner op" =~ s/^.{9}//r));
sql(sprintf q{CREATE SERVER %1$s FOREIGN DATA WRAPPER dataverse OPTIONS (url '%2$s', authority '%2$s', tenant 'contoso.example', environment 'test');
	CREATE USER MAPPING FOR %5$s SERVER %1$s OPTIONS (client_id '%3$s', client_secret '%4$s'); GRANT USAGE ON FOREIGN SERVER %1$s TO %5$s},
	id("$server 2"), $t->sim->url, DvMig::Sim::CLIENT, DvMig::Sim::SECRET, id($owner));
as(qq{CREATE SCHEMA @{[ id($schema) ]};
	CREATE TABLE $t{firms} ($k int PRIMARY KEY, $n text, $p int, $o text, "dvmig id" text, s text);
	INSERT INTO $t{firms} SELECT i, 'Firm ' || i, nullif(i / 10, 0), 'Consulting', 'a', 'b' FROM generate_series(1, 200) i;
	CREATE TABLE $t{people} ($k int, "a.b" text, $n text, $p int, PRIMARY KEY ($k, "a.b"));
	INSERT INTO $t{people} SELECT i, 'x"y', 'Person ' || i, i FROM generate_series(1, 200) i;
	CREATE TABLE $t{lists} ($k int PRIMARY KEY, $n text); INSERT INTO $t{lists} SELECT i, 'L' || i FROM generate_series(1, 5) i;
	CREATE TABLE $t{songs} ($k int PRIMARY KEY, $n text); INSERT INTO $t{songs} SELECT i, 'S' || i FROM generate_series(1, 5) i;
	CREATE TABLE $t{pairs} ($k int, $p int, PRIMARY KEY ($k, $p)); INSERT INTO $t{pairs} SELECT i, j FROM generate_series(1, 5) i, generate_series(1, 5) j;
	CREATE TABLE $t{invoices} ($k int PRIMARY KEY, $n text, $o bytea); INSERT INTO $t{invoices} SELECT i, 'I' || i, 'content'::bytea FROM generate_series(1, 5) i});
my ($M, $S) = (lit($migration), lit($server));
is(as("SELECT server_name FROM dvmig.whoami($S)"), encode('UTF-8', $server), 'whoami');
is(as("SELECT count(*) FROM dvmig.refresh_metadata($S, '{account,contact,new_playlist,new_track,new_invoice,systemuser}')"), 6, 'refresh_metadata');
as(qq{SELECT dvmig.create_migration($M, $S);
	SELECT dvmig.add_table($M, $l{firms}, 'account', source_key => @{[ lit($k) ]}, target_key => 'new_legacyid', filter => @{[ lit("$n <> 'x'") ]}, filter_reason => 'why "not"');
	SELECT dvmig.map_column($l{firms}, 'name', @{[ lit($n) ]}); SELECT dvmig.map_column($l{firms}, 'description', @{[ lit(qq{"dvmig id" || s})]});
	SELECT dvmig.map_choice($l{firms}, 'industrycode', @{[ lit($o) ]});
	SELECT dvmig.map_lookup($l{firms}, 'parentaccountid', @{[ lit($p) ]}, $l{firms});
	SELECT dvmig.map_lookup($l{firms}, 'ownerid', @{[ lit("CASE WHEN $k > 190 THEN 'anna\@contoso.example' END") ]}, 'systemuser', match_on => 'internalemailaddress');
	SELECT dvmig.add_table($M, $l{people}, 'contact', source_key => @{[ lit("$k, \"a.b\"") ]});
	SELECT dvmig.map_column($l{people}, 'lastname', @{[ lit($n) ]}); SELECT dvmig.map_lookup($l{people}, 'parentcustomerid', @{[ lit($p) ]}, $l{firms});
	SELECT dvmig.add_table($M, $l{lists}, 'new_playlist', auto_map => false); SELECT dvmig.map_column($l{lists}, 'new_name', @{[ lit($n) ]});
	SELECT dvmig.add_table($M, $l{songs}, 'new_track', auto_map => false); SELECT dvmig.map_column($l{songs}, 'new_name', @{[ lit($n) ]});
	SELECT dvmig.add_association($M, $l{pairs}, 'new_playlist_new_track', @{[ lit($k) ]}, $l{lists}, @{[ lit($p) ]}, $l{songs});
	SELECT dvmig.add_table($M, $l{invoices}, 'new_invoice', auto_map => false); SELECT dvmig.map_column($l{invoices}, 'new_invoicenumber', @{[ lit($n) ]});
	SELECT dvmig.map_file($l{invoices}, 'new_document', @{[ lit($o) ]}, @{[ lit($n) ]})});
$t->sim->add_user('anna@contoso.example');
is(as("SELECT count(*) FROM dvmig.check($M) WHERE severity = 'error'"), 0, 'check finds no error') or diag as("SELECT * FROM dvmig.check($M)");
cmp_ok(as("SELECT count(*) FROM dvmig.plan($M)"), '>', 6, 'plan');
is(as("SELECT count(*) FROM dvmig.preview($l{firms}, 3)"), 3, 'preview');
as("SELECT * FROM dvmig.refresh_references($M)");
is(as("SELECT count(*) FROM dvmig.unmatched_owners($M) WHERE source_owner IS NOT NULL"), 0, 'owners are matched');
as("SELECT * FROM dvmig.unmapped_choices($M)");

# run(options): the state that it ends in
sub run
{
	my ($options) = @_;
	my $run = as("SELECT dvmig.start($M" . ($options ? ", $options" : '') . ')');
	as("SELECT dvmig.wait($run)");
	my ($state, $message) = split /\|/, as("SELECT state, message FROM dvmig.run_history WHERE run = $run"), 2;
	diag $message if $state ne 'completed';
	return ($state, $run);
}
sub figures { return as("SELECT string_agg(concat_ws('/', staged, unprocessed, succeeded, failed, left_out), ' ' ORDER BY staging) FROM dvmig.status WHERE migration = $M"); }
sub held { return scalar @{ $t->sim->export($_[0]) }; }
my $all = join ' ', as("SELECT string_agg(format('%s/0/%1\$s/0/0', n), ' ' ORDER BY s) FROM (VALUES ($l{firms}::regclass::text, 200), ($l{people}::regclass::text, 200),
	($l{lists}::regclass::text, 5), ($l{songs}::regclass::text, 5), ($l{pairs}::regclass::text, 25), ($l{invoices}::regclass::text, 5)) v (s, n)");

my ($state, $first) = run('lanes => 2');
is($state, 'completed', 'a run');
is(figures(), $all, 'all is loaded');
is(held('accounts') . ' ' . held('contacts') . ' ' . $t->sim->stats->{links_changed}, '200 200 25', 'and is there');
is(as("SELECT count(*) FROM dvmig.verify($M) WHERE (missing, different, extra) IS DISTINCT FROM (0, 0, 0)"), 0, 'verify finds no difference')
  or diag as("SELECT * FROM dvmig.verify($M)");
like(as("SELECT dvmig.report($M)"), qr/\Q@{[ encode('UTF-8', $table{firms}) ]}\E/, 'the report');
as("SELECT dvmig.report_text($M); SELECT * FROM dvmig.progress; SELECT * FROM dvmig.top_errors; SELECT * FROM dvmig.migration_status; SELECT * FROM dvmig.cutover($M)");

# --- edits, errors, retry, narrowed runs
as("UPDATE $t{firms} SET $n = repeat('too long', 100), processing_flag = 'U' WHERE $k = 5; UPDATE $t{firms} SET $n = 'edited', processing_flag = 'U' WHERE $k = 6");
is((run("tables => ARRAY[$l{firms}], filter => " . lit("s.$k IN (5, 6)")))[0], 'completed', 'a run of one table, with a filter');
is(as("SELECT error_column || ' ' || $k FROM @{[ id($schema) ]}.@{[ id(as(qq{SELECT relname FROM pg_class c JOIN dvmig.migration_table t ON t.error_table = c.oid WHERE t.staging = $l{firms}::regclass}) =~ s/(.*)/Encode::decode('UTF-8', $1)/er) ]}"),
	'name 5', 'one row fails');
as("UPDATE $t{firms} SET $n = 'short' WHERE $k = 5");
is(as("SELECT dvmig.retry($l{firms}, filter => " . lit("s.$k = 5 AND e.error_column = 'name'") . ')'), 1, 'retry');
is((run())[0], 'completed', 'and again');
is(figures(), $all, 'all is loaded again');

# --- load_delta
as("CREATE TABLE @{[ id($schema) ]}.\"extra'ct\" AS SELECT $k, $n || CASE WHEN $k = 7 THEN '*' ELSE '' END AS $n, $p, $o, \"dvmig id\", s FROM $t{firms}");
is(as("SELECT inserted, updated, deleted, unchanged FROM dvmig.load_delta($l{firms}, @{[ lit(id($schema) . qq{.\"extra'ct\"}) ]}::regclass)"), '0|1|0|199', 'load_delta');
is((run())[0], 'completed', 'what differs is sent');

# --- resend, rebuild, adopt
my ($record) = grep { $_->{name} eq 'Firm 9' } @{ $t->sim->export('accounts') };
$t->sim->change('accounts', $record->{accountid}, { description => 'changed' }, as => DvMig::Sim::USER);
is(as("SELECT count(*) FROM dvmig.resend($l{firms}, '{description}', filter => " . lit("s.$k = 9") . ')'), 1, 'resend');
is((grep { $_->{name} eq 'Firm 9' } @{ $t->sim->export('accounts') })[0]{description}, 'ab', 'sends it again');
as("TRUNCATE @{[ as(qq{SELECT success_table FROM dvmig.migration_table WHERE staging = $l{people}::regclass}) =~ s/(.*)/Encode::decode('UTF-8', $1)/er ]};
	UPDATE $t{people} SET processing_flag = 'U', dataverse_id = NULL");
is(as("SELECT dvmig.rebuild_outcomes($l{people})"), 200, 'rebuild_outcomes');
is(figures(), $all, 'the outcomes are there again');

# --- export, and everything anew from it
my $script = Encode::decode('UTF-8', as("SELECT string_agg(line, E'\\n') FROM dvmig.export($M) WITH ORDINALITY e(line, i)"));
as("SELECT dvmig.drop_migration($M, drop_outcomes => true)");
is(as("SELECT count(*) FROM dvmig.migration"), 0, 'the migration is gone');
as($script);
is(Encode::decode('UTF-8', as("SELECT string_agg(line, E'\\n') FROM dvmig.export($M) WITH ORDINALITY e(line, i)")), $script, 'what was exported makes the same again');
is((run())[0], 'completed', 'a run of it');
is(held('accounts') . ' ' . held('contacts'), '200 200', 'which finds its records');
is($t->sim->counters($_)->{created_twice}, 0, "nothing of $_ was created twice") for qw(accounts contacts);

# --- undo of what a run created
as("INSERT INTO $t{firms} ($k, $n) SELECT i, 'New ' || i FROM generate_series(1001, 1010) i");
my ($done, $second) = run();
is($done, 'completed', 'ten more');
as("SELECT * FROM dvmig.undo($second)");
is(held('accounts'), 200, 'are undone');
as("SELECT dvmig.release($l{firms})");

# --- operators, another target, the end
my $operator = "$owner op" =~ s/^.{9}//r;
as(sprintf 'SELECT dvmig.grant_operator(%s, %s)', lit($operator), $M);
is(sql('SET SESSION AUTHORIZATION ' . id($operator) . "; SELECT count(*) FROM dvmig.status WHERE migration = $M"), 6, 'an operator of such a name');
as("SELECT * FROM dvmig.refresh_metadata(@{[ lit(\"$server 2\") ]}, '{account,contact,new_playlist,new_track,new_invoice,systemuser}'); SELECT dvmig.retarget($M, @{[ lit(\"$server 2\") ]})");
is(as("SELECT count(*) FROM dvmig.status WHERE succeeded = 0 AND migration = $M"), 6, 'pointed at another server');
is((run())[0], 'completed', 'and run there');
as("SELECT dvmig.sign_off($M, 'by \"X\"', override => true); SELECT * FROM dvmig.discard($M)");
is(sql(q{SELECT count(*) FROM dvmig.migration}), 1, 'discarded');
unlike(PostgreSQL::Test::Utils::slurp_file($t->node->logfile), qr/PANIC|server process .* was terminated/, 'no process died');

done_testing();

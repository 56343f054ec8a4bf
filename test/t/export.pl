# dvmig.export(): the script makes the same definition again, with the same ids,
# in this database and in another, whatever the names are
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'export');
my $long = 'k' x 62 . 'ä';
my $cut = 'k' x 62;
my $staging = qq{
	CREATE SCHEMA "Über ""Staging""";
	CREATE TABLE "Über ""Staging"""."Kunden, alt" ("Kd-Nr." int, "Firma's" text, branch text, parent int, owner text, boss uuid, active bool, PRIMARY KEY ("Kd-Nr."));
	INSERT INTO "Über ""Staging"""."Kunden, alt" SELECT i, 'Firma ' || i, 'Accounting', nullif(i - 1, 0) FROM generate_series(1, 3) i;
	CREATE TABLE "$cut" (a text, "b,""c" int, firm int, person int, amount numeric, PRIMARY KEY (a, "b,""c"));
	INSERT INTO "$cut" SELECT 'a' || i, i, i, i, i FROM generate_series(1, 3) i;
	CREATE TABLE lines (id text PRIMARY KEY, ra text, rb text, x int, given uuid);
	INSERT INTO lines SELECT i::text, 'a' || i, i::text, i, gen_random_uuid() FROM generate_series(1, 3) i;
	CREATE TABLE people (id int PRIMARY KEY, name text);
	CREATE TABLE pairs (list int, song int, PRIMARY KEY (list, song));
	CREATE TABLE songs (id int PRIMARY KEY, title text, status text);
	CREATE TABLE mails (id int PRIMARY KEY, about text, readers int[], guest text);
	CREATE TABLE deals (id int PRIMARY KEY, name text, why text)};

$t->sql($staging);
$t->migration(q{The "big" one's}=~ s/'/''/gr, tables => 'account,contact,new_invoice,new_invoiceline,new_playlist,new_track,email,opportunity,activityparty,systemuser,transactioncurrency');
$t->sql(qq{
	CREATE ROLE ops; CREATE ROLE "the boss";
	SELECT dvmig.set_migration('The "big" one''s', 'gate', '7.5');
	SELECT dvmig.add_table('The "big" one''s', '"Über ""Staging"""."Kunden, alt"', 'account', filter => E'"Firma''s" <> ''x\\\\y''\\nAND "Kd-Nr." < 1000', filter_reason => 'too
old', target_key => 'new_legacyid', on_exists => 'keep', auto_map => false);
	SELECT dvmig.add_table('The "big" one''s', '$cut', 'new_invoice', success_table => '"Erfolg"', namespace => '00000000-1111-8222-8333-444444444444', auto_map => false);
	SELECT dvmig.add_table('The "big" one''s', 'lines', 'new_invoiceline', ids => 'column', id_column => 'given', on_exists => 'error', target_key => 'new_name', auto_map => false);
	SELECT dvmig.add_table('The "big" one''s', 'people', 'contact');
	SELECT dvmig.map_column('"Über ""Staging"""."Kunden, alt"', 'name', E'coalesce("Firma''s", -- the name\\n ''?'')'),
		dvmig.map_choice('"Über ""Staging"""."Kunden, alt"', 'industrycode', 'branch', send => 'insert'),
		dvmig.map_lookup('"Über ""Staging"""."Kunden, alt"', 'parentaccountid', 'parent', '"Über ""Staging"""."Kunden, alt"'),
		dvmig.map_lookup('"Über ""Staging"""."Kunden, alt"', 'ownerid', 'owner', 'systemuser', match_on => 'internalemailaddress', send => 'both');
	SELECT dvmig.map_column('$cut', 'new_amount', 'amount'), dvmig.map_lookup('$cut', 'new_customerid', 'firm', '"Über ""Staging"""."Kunden, alt"'),
		dvmig.map_lookup('$cut', 'new_billedtoid', 'CASE WHEN person > 2 THEN firm END', '"Über ""Staging"""."Kunden, alt"'),
		dvmig.map_lookup('$cut', 'new_billedtoid', 'CASE WHEN person <= 2 THEN person END', 'people');
	SELECT dvmig.map_column('$cut', 'new_terms', 'a', on_too_long => 'trim', mask => '''x'' || a'), dvmig.map_choice('$cut', 'new_kind', 'a', on_unknown => 'default', default_value => 'Invoice'),
		dvmig.map_lookup('$cut', 'new_customerid', 'a', 'account', match_on => 'new_legacyid', fallback => true, on_missing => 'null');
	SELECT dvmig.map_lookup('lines', 'new_invoiceid', 'ra, rb', '$cut'), dvmig.map_column('lines', 'new_linenumber', 'x', send => 'insert'),
		dvmig.unmap('lines', 'new_name'), dvmig.map_column('lines', 'new_name', 'upper(id)'), dvmig.set_table('lines', 'target_key', 'new_name'),
		dvmig.map_lookup('lines', 'new_productid', 'given', target_table => 'product');
	INSERT INTO dvmig.choice_map (migration_id, target_table, target_column, source_table, source_text, target_text, target_value)
		SELECT migration_id, 'account', 'industrycode', v.* FROM dvmig.migration, (VALUES ('', 'O''Neil, \\ "x"', 'Accounting', NULL), ('', '', NULL, 33), ('public.lines', 'y', NULL, 1)) v;
	SELECT dvmig.add_table('The "big" one''s', 'songs', 'new_track', auto_map => false, caller => '''cccccccc-0000-4000-8000-000000000001''::uuid');
	SELECT dvmig.map_column('songs', 'new_name', 'title'), dvmig.map_choice('songs', 'statecode', 'status'),
		dvmig.set_table('songs', 'bypass_flows', 'true'),
		dvmig.set_migration('The "big" one''s', 'bypass_custom_logic', 'sync'),
		dvmig.set_column('"Über ""Staging"""."Kunden, alt"', 'parentaccountid', 'by_level', 'true');
	SELECT dvmig.add_association('The "big" one''s', 'pairs', 'new_playlist_new_track', '''L'' || list', 'new_playlist', 'song', 'songs', left_match_on => 'new_name',
		filter => 'song > 0');
	SELECT dvmig.add_table('The "big" one''s', 'mails', 'email', auto_map => false), dvmig.add_table('The "big" one''s', 'deals', 'opportunity', auto_map => false);
	SELECT dvmig.map_column('mails', 'subject', 'about'), dvmig.map_party('mails', 'to', 'readers', 'people'), dvmig.map_party('mails', 'cc', 'guest'),
		dvmig.map_party('mails', 'from', '''user1\@example.org''', 'systemuser', match_on => 'internalemailaddress'),
		dvmig.map_column('deals', 'name', 'name'), dvmig.map_column('deals', 'statuscode', '3'), dvmig.map_close('deals', 'subject', 'why'),
		dvmig.map_file('$cut', 'new_document', '''x''::bytea', E'a || -- named after its key\\n ''.txt''');
	SELECT dvmig.set_column('$cut', 'new_document', 'mask', '''m''::bytea'), dvmig.set_column('mails', '\@party:cc', 'mask', 'dvmig.mask_mail(guest)'),
		dvmig.set_column('deals', '\@close:subject', 'mask', '''masked''');
	INSERT INTO dvmig.user_map (migration_id, source_user, target_table, target) SELECT migration_id, 'O''Neil', 'team', 'Support' FROM dvmig.migration;
	SELECT dvmig.grant_operator('ops', 'The "big" one''s'), dvmig.grant_viewer('the boss', 'The "big" one''s')});

# definition(db): every table of the definition, without what may differ; links
# have no ids, and so no namespace to keep.
my @volatile = ('migration_id', 'position', 'created_at', 'granted_at', 'clean_end', 'unclean_from', 'forgotten_since', 'place', 'automatic', 'auto_map');
sub definition
{
	my ($db) = @_;
	my $drop = join ' - ', map { "'$_'" } @volatile;
	my $query = join "\nUNION ALL\n", map { "SELECT '$_' || ': ' || (to_jsonb(r) - $drop - CASE WHEN to_jsonb(r) ->> 'relationship' IS NOT NULL THEN 'namespace' ELSE '' END)::text FROM dvmig.$_ r" } qw(migration migration_table column_map choice_map user_map migration_role);
	return $t->node->safe_psql($db, "SELECT * FROM ($query) q(l) ORDER BY l COLLATE \"C\"");
}

sub ids
{
	my ($db) = @_;
	return $t->node->safe_psql($db, qq{SELECT string_agg(dataverse_id::text, ' ' ORDER BY source_key) FROM dvmig.preview('"Über ""Staging"""."Kunden, alt"', 9)
		UNION ALL SELECT string_agg(dataverse_id || request, ' ' ORDER BY source_key) FROM dvmig.preview('$cut', 9)});
}

sub exported { my ($db) = @_; return $t->node->safe_psql($db, q{SELECT dvmig.export('The "big" one''s')}); }

my $script = exported('postgres');
my ($before, $ids) = (definition('postgres'), ids('postgres'));
note($script);
is($script, exported('postgres'), 'it is the same each time');
unlike($script, qr/client_secret|s3cret|bbbbbbbb/, 'no secrets');
like($script, qr/coalesce\("Firma''s", -- the name\n/, 'expressions are as they were written');
like($script, qr/target_key => 'new_legacyid'/, 'the target key goes with the table');
like($script, qr/set_table\('public\.lines', 'target_key', 'new_name'\)/, 'or after its map, where that is another');
unlike($script, qr/success_table => '[^']*alt_success/, 'what is the default is not written');
like($script, qr/success_table => 'public\."Erfolg"'/, 'what is not, is');
like($script, qr/file_name => 'a \|\| -- named after its key\n ''\.txt'''/, 'the name of a file is as it was written, over several lines');
like($script, qr/set_column\('[^']*', '$_', 'mask'/, "what is sensitive stays so: $_") for 'new_document', '@party:cc', '@close:subject';

# Dropped and made again.
$t->sql(q{SELECT dvmig.drop_migration('The "big" one''s', drop_outcomes => true); DELETE FROM dvmig.kept_namespace});
$t->sql($script);
is(exported('postgres'), $script, 'made again, it is exported as before');
is(definition('postgres'), $before, 'with the same definition');
is(ids('postgres'), $ids, 'and the same ids');

# In another database, which has the staging tables and the server.
$t->sql('CREATE DATABASE elsewhere');
$t->node->safe_psql('elsewhere', 'CREATE EXTENSION dvmig');
{
	local $t->{db} = 'elsewhere';
	$t->sql($staging);
	$t->server('sim');
	$t->sql($script);
	is(exported('elsewhere'), $script, 'elsewhere it is exported as here');
	is(definition('elsewhere'), $before, 'with the same definition');
	is(ids('elsewhere'), $ids, 'and the same ids');
}

# A line break in a name ends no comment: who runs the script runs nothing else.
{
	my $name = "calm\nCREATE TABLE public.harm ();\n--";

	$t->sql(qq{SELECT dvmig.create_migration('$name', 'sim'); CREATE TABLE "s\nCREATE TABLE public.harm_too ();" (id int PRIMARY KEY, name text);
		SELECT dvmig.add_table('$name', '"s\nCREATE TABLE public.harm_too ();"', 'account')});
	my $named = $t->sql("SELECT dvmig.export('$name')");
	$t->sql("SELECT dvmig.drop_migration('$name')");
	$t->sql($named);
	is($t->sql(q{SELECT count(*) FROM pg_class WHERE relname LIKE 'harm%'}), 0, 'names with line breaks are no statements');
	is($t->sql("SELECT dvmig.export('$name')"), $named, 'and come back as they are');
}

# Who may.
$t->sql(q{CREATE ROLE stranger; SELECT dvmig.grant_owner('stranger')});
like($t->error(q{SET ROLE stranger; SELECT dvmig.export('The "big" one''s')}), qr/42501.*permission denied/s, 'for members of the owner');

$t->sim->stop;
$t->node->stop;
done_testing();

# What dvmig knows is older than Dataverse, or not of the row any more: a dump that
# is restored in the database that it was taken of, outcomes that are rebuilt, a
# lookup that is edited between two passes
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use PostgreSQL::Test::Utils;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'attack_restored', conf => "dvmig.settle_time = '300ms'\n");
my $t = $h->t;
my $sim = $h->sim;

sub done { my ($name, $arguments) = @_; is($t->run($h->migration, $arguments)->{state}, 'completed', $name); return; }
sub contact { my ($key) = @_; return (grep { $_->{new_legacyid} eq $key } @{ $sim->export('contacts') })[0]; }
sub account { my ($name) = @_; return (grep { $_->{name} eq $name } @{ $sim->export('accounts') })[0]; }

# --- a dump, and what was sent since; restored in the same database, and rows edited to what the dump says
my $table = $h->scene(rows => 40, db => 'crm');
done('dump: loaded');
my $file = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
command_ok([ 'pg_dump', '-f', $file, '-d', $t->node->connstr('crm') ], 'dump: taken');
$t->sql("UPDATE $table SET family = family || ' II', processing_flag = 'U'");
done('dump: changed since');
$sim->change('contacts', contact(7)->{contactid}, { lastname => 'A user' });
$t->sql("DROP EXTENSION dvmig CASCADE; DROP SCHEMA dvmig CASCADE; DROP TABLE $table CASCADE; DROP TABLE ${table}_success, ${table}_error");
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $t->node->connstr('crm'), '-f', $file ], 'dump: restored in the same database');
$t->sql("UPDATE $table SET processing_flag = 'U'");
done('dump: the next run completes', 'resend => true');
is($t->sql("SELECT count(*) FROM ${table}_success WHERE message = 'unchanged'"), 0, 'dump: no row is taken for unchanged');
is(scalar(grep { $_->{lastname} =~ / II$/ } @{ $sim->export('contacts') }), 0, 'dump: records hold what rows say');
is(contact(7)->{lastname}, 'A user', 'dump: but what a user wrote since stays');
like($t->sql("SELECT processing_flag || ' ' || message FROM $table JOIN ${table}_success USING (id) WHERE id = 7"), qr/^P unchanged; another user modified the record/,
	'dump: and its row says that this hides what it holds');
is($sim->counters('contacts')->{created_twice}, 0, 'dump: nothing was created twice');

# --- a lookup that is edited between the passes without the flag, and back with it
$t->{db} = 'postgres';
delete $t->{has_server};
$t->sql("CREATE TABLE firms (id int PRIMARY KEY, name text, parent int); INSERT INTO firms SELECT n, 'F' || n, CASE WHEN n > 2 THEN 1 END FROM generate_series(1, 5) n");
$t->migration('f', tables => 'account');
$h->{migration} = 'f';
$t->sql(q{SELECT dvmig.add_table('f', 'firms', 'account', auto_map => false); SELECT dvmig.map_column('firms', 'name', 'name');
	SELECT dvmig.map_lookup('firms', 'parentaccountid', 'parent', 'firms')});
done('edited between passes: the first', q{passes => '{write}'});
$t->sql('UPDATE firms SET parent = 2 WHERE id = 4');
done('edited between passes: the second');
is($t->sql('SELECT string_agg(id::text, $$ $$) FROM firms_success WHERE content_hash IS NULL'), '4', 'edited between passes: what its record holds is not taken for known');
$t->sql(q{UPDATE firms SET processing_flag = 'U' WHERE id = 4; UPDATE firms SET parent = 1, processing_flag = 'U' WHERE id IN (4, 5)});
is($t->run('f')->{unchanged}, 1, 'edited back: one that was not edited is unchanged');
is(account('F4')->{_parentaccountid_value}, $t->sql('SELECT dataverse_id FROM firms WHERE id = 1'), 'edited back: the record has the lookup that the row says');
$t->sql(q{UPDATE firms SET processing_flag = 'U'});
is($t->run('f')->{unchanged}, 5, 'and then all are unchanged');

# --- rows that owe a pass lose their outcomes, which are rebuilt
$t->sql(q{INSERT INTO firms VALUES (6, 'F6', 1)});
done('rebuilt: the first pass', q{passes => '{write}'});
is($t->sql('SELECT processing_flag FROM firms WHERE id = 6'), 'S', 'rebuilt: it owes its lookup');
$t->sql('TRUNCATE firms_success');
is($t->sql(q{SELECT dvmig.rebuild_outcomes('firms')}), 6, 'rebuilt: all records are found');
is($t->counts('firms'), '6/1/5/0/0', 'rebuilt: what owed something is looked at again');
done('rebuilt: the next run completes');
is($t->counts('firms'), '6/0/6/0/0', 'rebuilt: and does it');
is(account('F6')->{_parentaccountid_value}, $t->sql('SELECT dataverse_id FROM firms WHERE id = 1'), 'rebuilt: the record has its lookup');
is($sim->counters('accounts')->{created_twice}, 0, 'rebuilt: nothing was created twice');

# --- a resend whose worker ends before it learns what was written, and rows that say what they said before
$table = $h->scene(rows => 40);
done('resend: loaded');
$t->sql("UPDATE $table SET family = family || ' II'");
$h->hold(path_contains => '$batch', after => 1);
my $s = $h->session;
$s->send("SELECT * FROM dvmig.resend('$table', '{lastname}');\n");
$h->until('requests hang', sub { $h->held > 0 });
$t->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'dvmig worker'});
$h->until('its worker ends', sub { $t->sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'dvmig worker'}) == 0 });
$h->quiet;
eval { $s->{psql}->finish };
cmp_ok(scalar(grep { $_->{lastname} =~ / II$/ } @{ $sim->export('contacts') }), '>', 0, 'resend: records were written');
$t->sql("UPDATE $table SET family = 'Family ' || id, processing_flag = 'U'");
done('resend: the next run completes', 'resend => true');
$h->exact('resend', '40/0/40/0/0');
$t->sql("UPDATE $table SET processing_flag = 'U'");
is($t->run($h->migration)->{unchanged}, 40, 'resend: then nothing is in doubt');
$t->sql("SELECT * FROM dvmig.resend('$table', '{lastname}')");
is($t->sql("SELECT clean_end FROM dvmig.migration_table WHERE staging = '$table'::regclass"), 't', 'resend: nor after one that ends well');

done_testing();

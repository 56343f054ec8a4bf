# Undoing a run that was killed: what it created without recording it is found by the
# next run, which notes whose it is, and is undone with the rest; what was there before is not
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use DvMig;

my $stranger = 'dddddddd-0000-4000-8000-00000000000d';
my $t = DvMig->new(name => 'undo_killed', conf => "restart_after_crash = on\n");
my $sim = $t->sim;

sub contacts { return scalar @{ $sim->export('contacts') }; }

$t->sql(q{
	ALTER DATABASE postgres SET dvmig.settle_time = '300ms';
	CREATE SCHEMA staging;
	CREATE TABLE staging.people (id int PRIMARY KEY, family text);
	INSERT INTO staging.people SELECT n, 'Person ' || n FROM generate_series(1, 500) n});
$t->migration('m', tables => 'contact');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.people', 'contact', auto_map => false);
	SELECT dvmig.map_column('staging.people', 'lastname', 'family')});

# there before, under ids that rows bring along: of a user, and of our own application user
my $theirs = $sim->create('contacts', { lastname => 'A user' })->{contactid};
$sim->change('contacts', $theirs, { lastname => 'A user' }, as => $stranger);
my $made = 'eeeeeeee-2222-4000-8000-000000000001';
$sim->change('contacts', $made, { lastname => 'Made by a user' }, as => $stranger);
$t->sql("UPDATE staging.people SET dataverse_id = '$theirs' WHERE id = 1; UPDATE staging.people SET dataverse_id = '$made' WHERE id = 2");
# createdon has whole seconds
select undef, undef, undef, 3;

$sim->fault({ match => { method => 'POST', path_contains => 'CreateMultiple' }, do => 'hold', count => 0, after => JSON::PP::true });
my $killed = $t->start('m', 'lanes => 1');
ok($t->until('all records are made', sub { contacts() == 500 }), 'records are made, and nobody is told');
like($t->error("SELECT dvmig.undo($killed)"), qr/55006.*is being migrated by run $killed/s, 'a run at work is not undone');
$t->kill_process($t->sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'dvmig run $killed'"));
$sim->sim('DELETE', 'fault');
is($t->sql('SELECT count(*) FROM staging.people_success WHERE created_run IS NOT NULL'), 0, 'the run died without an outcome of what it made');
is(contacts(), 500, 'of all its records');

# at once: nothing is known to be its own, and nothing is deleted
is($t->sql("SELECT created || ' ' || deleted FROM dvmig.undo($killed)"), '0 0', 'an undo at once, by whoever calls it first, deletes nothing that is not known to be ours');
my $next = $t->run('m');
is("$next->{state} $next->{failed}", 'completed 0', 'the next run settles them');
is($t->sql("SELECT count(*) FROM staging.people_success WHERE created_run = $killed"), 498, 'and notes whose they are');
is($t->sql('SELECT string_agg(id::text, $$ $$ ORDER BY id) FROM staging.people_success WHERE created_run IS NULL'), '1 2', 'but of those that were there before');
is($t->sql("SELECT created || ' ' || deleted FROM dvmig.undo($next->{run})"), '0 0', 'the run that found them created none');
is($t->sql("SELECT created || ' ' || deleted FROM dvmig.undo($killed)"), '498 498', 'the one that was killed did');
is(join(' ', sort map { lc $_->{contactid} } @{ $sim->export('contacts') }), join(' ', sort $theirs, $made), 'what was there before is left');

# undone only where it went to
$t->server('elsewhere', environment => 'test');
$t->sql(q{SELECT dvmig.release('staging.people'); SELECT * FROM dvmig.refresh_metadata('elsewhere', '{contact}'); SELECT dvmig.retarget('m', 'elsewhere')});
like($t->error("SELECT dvmig.undo($next->{run})"), qr/55000.*went to server "sim", and the migration goes to "elsewhere" now/s, 'after a retarget its outcomes are others');

done_testing();

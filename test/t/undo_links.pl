# Links that a run made between records that stay are taken away by its undo, found ones never
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use DvMig;

my $t = DvMig->new(name => 'undo_links');
my $sim = $t->sim;
my @figures = qw(created gone changed_since has_related deleted restored failed);

sub undo
{
	my ($arguments) = @_;
	return join '; ', map { my $r = $_; "$r->{staging}: " . join(' ', map { "$_=$r->{$_}" } grep { $r->{$_} } @figures) }
	  @{ $t->rows("SELECT * FROM dvmig.undo($arguments)") };
}

sub linked { return join ' ', sort map { join '-', map { lc } @$_ } @{ $sim->sim('GET', 'links/new_playlist_new_track')->{pairs} }; }
sub count { return scalar @{ $sim->sim('GET', 'links/new_playlist_new_track')->{pairs} }; }

$t->sql(q{
	ALTER DATABASE postgres SET dvmig.settle_time = '300ms';
	CREATE SCHEMA staging;
	CREATE TABLE staging.lists (id int PRIMARY KEY, name text);
	CREATE TABLE staging.tracks (id int PRIMARY KEY, name text);
	CREATE TABLE staging.pairs (list int, track int, PRIMARY KEY (list, track));
	INSERT INTO staging.lists SELECT n, 'L' || n FROM generate_series(1, 10) n;
	INSERT INTO staging.tracks SELECT n, 'T' || n FROM generate_series(1, 40) n});
$t->migration('m', tables => 'new_playlist,new_track');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.lists', 'new_playlist', source_key => 'id');
	SELECT dvmig.map_column('staging.lists', 'new_name', 'name');
	SELECT dvmig.add_table('m', 'staging.tracks', 'new_track', source_key => 'id');
	SELECT dvmig.map_column('staging.tracks', 'new_name', 'name');
	SELECT dvmig.add_association('m', 'staging.pairs', 'new_playlist_new_track', 'track', 'staging.tracks', 'list', 'staging.lists')});
is($t->run('m')->{state}, 'completed', 'records are loaded');

# --- a run that makes only links; one of them a user had made before
$t->sql(q{INSERT INTO staging.pairs SELECT l, t FROM generate_series(1, 5) l, generate_series(1, 20) t});
$t->run('m', 'max_rows => 1');
my ($first) = split ' ', linked();
$t->sql(q{UPDATE staging.pairs SET processing_flag = 'U'; DELETE FROM staging.pairs_success});
my $run = $t->run('m', 'resend => true');
is("$run->{state} " . count(), 'completed 100', 'links are made');
is($t->sql(q{SELECT count(*) FROM staging.pairs_success WHERE created_run IS NULL}), 1, 'one was found');
is(undo("$run->{run}, dry_run => true"), 'staging.pairs: created=99; staging.lists: ; staging.tracks: ', 'a dry run counts');
is(count(), 100, 'and takes nothing away');
$sim->fault({ match => { path_contains => '$batch', nth => 1 }, do => 'reset_after' });
$sim->fault({ match => { path_contains => '$batch', nth => 2 }, do => 'throttle', retry_after => 1 });
is(undo($run->{run}), 'staging.pairs: created=99 deleted=99; staging.lists: ; staging.tracks: ', 'links that the run made are taken away');
is(linked(), $first, 'and the one that was there before is left');
is(@{ $sim->export('new_playlists') } . '/' . @{ $sim->export('new_tracks') }, '10/40', 'as are the records');
is($t->counts('staging.pairs'), '100/99/1/0/0', 'their rows are unprocessed');
like($t->status('staging.pairs')->{next_step}, qr/on hold after undo/, 'and on hold');
$t->sql(q{SELECT dvmig.release('staging.pairs')});

# --- again, only the table of links; rows edited since are left
$run = $t->run('m');
is("$run->{state} " . count(), 'completed 100', 'made again');
my $rows = $t->sql('SELECT count(*) FROM staging.pairs_success WHERE created_run = ' . $run->{run});
is(undo("$run->{run}, 'staging.pairs'"), "staging.pairs: created=$rows deleted=$rows", 'one table of links alone');
is(linked(), $first, 'without what was found');
$t->sql(q{SELECT dvmig.release('staging.pairs')});

# --- records and links of one run, and links of another run to its records
$t->sql(q{INSERT INTO staging.lists VALUES (11, 'L11'); INSERT INTO staging.pairs SELECT 11, n FROM generate_series(1, 20) n});
$run = $t->run('m');
$t->sql(q{INSERT INTO staging.pairs SELECT 11, n FROM generate_series(21, 40) n});
my $later = $t->run('m');
is(count(), 140, 'more of all');
is(undo($run->{run}), 'staging.pairs: created=119 deleted=119; staging.lists: created=1 deleted=1; staging.tracks: ', 'links go before their records');
is(linked(), $first, 'those of a later run go with their record');
is($t->counts('staging.pairs'), '140/139/1/0/0', 'and are to be made again');
$t->sql(q{SELECT dvmig.release('staging.pairs'); SELECT dvmig.release('staging.lists')});
is($t->run('m')->{state} . ' ' . count(), 'completed 140', 'as they are');

done_testing();

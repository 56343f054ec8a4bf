# What a run updated is made again what it was, from the images kept before
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use DvMig;

my $stranger = 'dddddddd-0000-4000-8000-00000000000d';
my $t = DvMig->new(name => 'before_image', conf => "restart_after_crash = on\n");
my $sim = $t->sim;

$t->sql(q{
	ALTER DATABASE postgres SET dvmig.settle_time = '300ms';
	CREATE SCHEMA staging;
	CREATE TABLE staging.firms (id int PRIMARY KEY, name text, parent int);
	INSERT INTO staging.firms SELECT n, 'Firm ' || n, CASE WHEN n > 1 THEN 1 END FROM generate_series(1, 20) n;
	CREATE TABLE staging.people (id int PRIMARY KEY, family text, about text, children int, credit numeric(12,2), gender int, born date, held timestamptz, firm int);
	INSERT INTO staging.people SELECT n, 'Person ' || n, CASE WHEN n % 2 = 0 THEN E'Some "text"\nof ä ' || n END, n % 5, n + 0.25, 1 + n % 2,
		date '1970-01-01' + n, '2024-02-03 04:05:06+00', CASE WHEN n % 3 > 0 THEN 1 + n % 20 END
	FROM generate_series(1, 250) n});
$t->migration('m', tables => 'account,contact');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.firms', 'account');
	SELECT dvmig.map_column('staging.firms', 'name', 'name');
	SELECT dvmig.map_lookup('staging.firms', 'parentaccountid', 'parent', 'staging.firms');
	SELECT dvmig.add_table('m', 'staging.people', 'contact');
	SELECT dvmig.map_column('staging.people', 'lastname', 'family');
	SELECT dvmig.map_column('staging.people', 'description', 'about');
	SELECT dvmig.map_column('staging.people', 'numberofchildren', 'children');
	SELECT dvmig.map_column('staging.people', 'creditlimit', 'credit');
	SELECT dvmig.map_column('staging.people', 'gendercode', 'gender');
	SELECT dvmig.map_column('staging.people', 'birthdate', 'born');
	SELECT dvmig.map_column('staging.people', 'lastonholdtime', 'held');
	SELECT dvmig.map_lookup('staging.people', 'parentcustomerid', 'firm', 'staging.firms')});

my @figures = qw(created gone changed_since has_related deleted restored failed);
my @contact = qw(lastname description numberofchildren creditlimit gendercode birthdate lastonholdtime _parentcustomerid_value);
my @account = qw(name _parentaccountid_value);

sub undo
{
	my ($arguments) = @_;
	return join '; ', map { my $r = $_; "$r->{staging}: " . join(' ', map { "$_=$r->{$_}" } grep { $r->{$_} } @figures) }
	  @{ $t->rows("SELECT * FROM dvmig.undo($arguments)") };
}

# held(set, members): what the records hold, by id
sub held
{
	my ($set, @members) = @_;
	my $id = $set eq 'contacts' ? 'contactid' : 'accountid';
	return { map { my $r = $_; ($r->{$id} => { map { $_ => $r->{$_} } @members }) } @{ $sim->export($set) } };
}

sub id_of { return $t->sql("SELECT dataverse_id FROM staging.$_[0] WHERE id = $_[1]"); }
sub release { return $t->sql(q{SELECT dvmig.release('staging.firms'); SELECT dvmig.release('staging.people')}); }

# ----------------------------------------------------------------------- the setting
like($t->error(q{SELECT dvmig.set_table('staging.people', 'keep_before_image', 'perhaps')}), qr/22023.*keep_before_image must be of type boolean/s, 'bad input');
like($t->sql(q{SELECT dvmig.set_table('staging.people', 'keep_before_image', 'true')}), qr/keep_before_image is 'true' instead of 'false'/, 'images are kept');
$t->sql(q{SELECT dvmig.set_table('staging.firms', 'keep_before_image', 'on')});
is($t->sql(q{SELECT string_agg(before_table::text, ' ' ORDER BY before_table::text) FROM dvmig.migration_table}), 'staging.firms_before staging.people_before', 'in tables of their own');
like($t->sql(q{SELECT dvmig.export('m')}), qr/set_table\('staging.people', 'keep_before_image', 'true'\)/, 'the definition has it');
is($t->run('m')->{state}, 'completed', 'loaded');
is($t->sql('SELECT (SELECT count(*) FROM staging.people_before) + (SELECT count(*) FROM staging.firms_before)'), 0, 'what the run created needs no image, nor its deferred lookups');
my $people = held('contacts', @contact);
my $firms = held('accounts', @account);

# ------------------------------------------------------------------------ update, undo
my $change = q{
	UPDATE staging.people SET family = 'Changed ' || id, about = CASE WHEN id % 4 > 0 THEN 'new' END, children = NULL, credit = credit + 1000, gender = 3 - gender,
		born = born + 1, held = CASE WHEN id % 2 = 0 THEN now() END, firm = CASE WHEN id % 2 = 0 THEN 20 - id % 20 END,
		processing_flag = 'U', action_flag = 'U' WHERE id <= 250;
	UPDATE staging.firms SET name = 'Changed ' || id, parent = CASE WHEN id > 2 THEN 2 END, processing_flag = 'U', action_flag = 'U' WHERE id <= 20};
$t->sql($change . q{;
	INSERT INTO staging.firms VALUES (21, 'New firm', 2);
	INSERT INTO staging.people SELECT n, 'New ' || n, NULL, 1, 1, 1, NULL, NULL, 21 FROM generate_series(251, 270) n});
# pages that are smaller than what is asked for: images and versions are read by fewer ids
$sim->set(page_most => 17);
my $run = $t->run('m', q{resend => true, lanes => 2});
is($run->{state}, 'completed', 'updated and created');
my $r2 = $run->{run};
isnt(held('contacts', @contact)->{ id_of('people', 1) }{lastname}, 'Person 1', 'records are changed');
is($t->sql("SELECT count(*) || ' ' || count(*) FILTER (WHERE run = $r2 AND columns ->> 'lastname' = 'Person ' || id) FROM staging.people_before"), '250 250', 'each update has its image');
is($t->sql('SELECT count(*) FROM staging.firms_before'), 20, 'of firms, one for both passes');
like($t->sql('SELECT columns FROM staging.people_before WHERE id = 1'), qr/"_parentcustomerid_value\@Microsoft.Dynamics.CRM.lookuplogicalname": "account"/, 'lookups with their table');

is(undo("$r2, dry_run => true"), 'staging.people: created=20 restored=250; staging.firms: created=1 restored=20', 'a dry run counts');
is(held('contacts', @contact)->{ id_of('people', 1) }{lastname}, 'Changed 1', 'and restores nothing');
$sim->change('contacts', id_of('people', 7), { lastname => 'By a user' }, as => $stranger);
like($t->error("SELECT dvmig.undo($r2)"), qr/55000.*1 record of staging.people was changed/s, 'a record changed since refuses the undo');
is(held('contacts', @contact)->{ id_of('people', 1) }{lastname}, 'Changed 1', 'and nothing is restored');
my %new = map { $_ => 1 } split /\n/, $t->sql('SELECT dataverse_id FROM staging.people WHERE id > 250');
$sim->fault({ match => { path_contains => '$batch', nth => 2 }, do => 'reset_after' });
$sim->fault({ match => { path_contains => '$batch', nth => 3 }, do => 'throttle', retry_after => 1 });
is(undo("$r2, changed => 'skip'"), 'staging.people: created=20 changed_since=1 deleted=20 restored=249; staging.firms: created=1 deleted=1 restored=20', 'the rest is restored');
my $user = id_of('people', 7);
my $now = held('contacts', @contact);
is($now->{$user}{lastname}, 'By a user', 'what the user wrote stays');
is_deeply([ grep { $new{$_} } keys %$now ], [], 'what the run created is gone');
delete $_->{$user} for $now, $people;
is_deeply($now, $people, 'people are as before, field by field');
is_deeply(held('accounts', @account), $firms, 'and firms, their deferred lookups too');
is($t->sql(q{SELECT count(*) FILTER (WHERE processing_flag = 'U') || ' ' || count(*) FROM staging.people}), '269 270', 'their rows are unprocessed again');
is($t->sql(q{SELECT count(*) FROM dvmig.migration_table WHERE held_by_undo IS NOT NULL}), 2, 'and the tables on hold');
is(undo("$r2, changed => 'skip'"), 'staging.people: changed_since=1; staging.firms: ', 'twice does nothing more');
release();

# ------------------------------------------------------- a later run, and a crash in it
$t->sql(q{DELETE FROM staging.people WHERE id > 250; DELETE FROM staging.firms WHERE id > 20});
$run = $t->run('m', 'resend => true');
is("$run->{state} $run->{unchanged}", 'completed 0', 'what was restored is sent again');
is(held('contacts', @contact)->{ id_of('people', 1) }{lastname}, 'Changed 1', 'to all');
$people = held('contacts', @contact);
$t->sql(q{UPDATE staging.people SET family = 'Crash ' || id, firm = NULL, processing_flag = 'U'});
$sim->fault({ match => { method => 'POST', path_contains => 'UpdateMultiple' }, do => 'hold', count => 0, after => JSON::PP::true });
my $crashed = $t->start('m', 'resend => true');
ok($t->wait_for("SELECT count(*) > 0 FROM staging.people_before WHERE run = $crashed"), 'images are there');
$t->until('updates are carried out', sub { grep { $_->{lastname} =~ /^Crash/ } @{ $sim->export('contacts') } });
$t->kill_process($t->sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'dvmig run $crashed'"));
$sim->sim('DELETE', 'fault');
ok($t->wait_for('SELECT count(*) = 0 FROM dvmig.progress'), 'the run is dead');
my $written = grep { $_->{lastname} =~ /^Crash/ } @{ $sim->export('contacts') };
ok($written > 0, "$written updates were carried out whose outcome was lost");
is($t->sql(q{SELECT count(*) FROM staging.people_success WHERE run = } . $crashed), 0, 'without an outcome');
like(undo($crashed), qr/^staging.people: restored=$written(; |$)/, 'they are restored');
is_deeply(held('contacts', @contact), $people, 'and all are as before that run');
is($t->sql("SELECT count(*) FROM staging.people_before WHERE run = $crashed"), 0, 'their images have left');
release();

# --------------------------------------------------------------------- without images
$t->sql(q{SELECT dvmig.set_table('staging.people', 'keep_before_image', NULL)});
$t->sql(q{UPDATE staging.people SET family = 'Without ' || id, processing_flag = 'U'});
$run = $t->run('m', q{resend => true, tables => '{staging.people}'});
like(undo($run->{run}), qr/^staging.people: (; |$)/, 'nothing is restored without them');
like((values %{ held('contacts', @contact) })[0]{lastname}, qr/^Without/, 'updates stay');
sub told { return $t->sql(q{SELECT message FROM dvmig.run_table WHERE staging = 'staging.people' ORDER BY run DESC LIMIT 1}); }
like(told(), qr/^\d+ updates that stay have no before-image$/, 'which is told');
$t->sql(q{UPDATE staging.people SET processing_flag = 'U', action_flag = 'D' WHERE id IN (21, 22, 23)});
$run = $t->run('m', q{tables => '{staging.people}'});
my $left = scalar @{ $sim->export('contacts') };
undo($run->{run});
is(scalar @{ $sim->export('contacts') }, $left, 'records that a run deleted are not made again');
is(told(), '3 records that the run deleted are not made again', 'which is told, too');
is($t->sql(q{SELECT dvmig.drop_table('staging.people', drop_outcomes => true); SELECT to_regclass('staging.people_before') IS NULL}) =~ /t$/, 1, 'the images leave with the outcome tables');

done_testing();

# Owners: the user map, fallbacks, who is nobody in the target, and what an
# environment has by role
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

use constant AT => '@example.org';

my $t = DvMig->new(profile => 'strict', name => 'owners', conf => "max_prepared_transactions = 2\n");

$t->sql(q{
	CREATE SCHEMA staging;
	CREATE TABLE staging.customers (id int PRIMARY KEY, company text, seller text, currency text);
	INSERT INTO staging.customers VALUES (1, 'by map', 'JDOE', 'own'), (2, 'by map, to a team', 'queue 7', 'USD'), (3, 'by domain name', 'sys', NULL),
		(4, 'by mail', 'User3@example.org', NULL), (5, 'left', 'mmiller', NULL), (6, 'left too', 'mmiller', NULL), (7, 'nobody', NULL, NULL),
		(8, 'by id', 'given', NULL), (9, 'mapped to nobody', 'lost', NULL);
	CREATE TABLE staging.units (id int PRIMARY KEY, title text, above text);
	INSERT INTO staging.units VALUES (1, 'North', 'root business unit'), (2, 'South', 'root business unit')});
$t->migration('m', tables => 'account,businessunit');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.customers', 'account');
	SELECT dvmig.map_column('staging.customers', 'name', 'company');
	SELECT dvmig.map_lookup('staging.customers', 'transactioncurrencyid', $$CASE currency WHEN 'own' THEN 'base currency' END$$, 'transactioncurrency', match_on => 'environment role');
	SELECT dvmig.map_lookup('staging.customers', 'transactioncurrencyid', 'currency', 'transactioncurrency', match_on => 'isocurrencycode', fallback => true)});
is($t->sql(q{SELECT dvmig.map_owner('staging.customers', 'seller')}), 'staging.customers: ownerid <- seller (insert only)', 'an owner without a fallback');
my $user5 = $t->sim->export('systemusers')->[4]{systemuserid};
$t->sql(qq{
	INSERT INTO dvmig.user_map (migration_id, source_user, target_table, target)
	SELECT m.migration_id, v.* FROM dvmig.migration m, (VALUES ('jdoe', 'systemuser', 'USER1\@example.org'), ('queue 7', 'team', 'DVSIM'), ('sys', 'systemuser', 'SYSTEM'),
		('given', 'systemuser', '$user5'), ('lost', 'systemuser', 'gone\@example.org')) v WHERE m.name = 'm'});
like($t->error(q{INSERT INTO dvmig.user_map (migration_id, source_user, target) SELECT migration_id, 'JDoe', 'x' FROM dvmig.migration}), qr/user_map_folded/,
	'one source user is mapped once, in whatever case');

# ----------------------------------------------------------- before anything is sent

sub unmatched { return join ', ', map { join ':', $_->{source_owner} // 'none', $_->{affected_rows}, $_->{outcome} } @{ $t->rows(q{SELECT * FROM dvmig.unmatched_owners('m')}) }; }
is(unmatched(), 'mmiller:2:the rows fail, lost:1:the rows fail, none:1:the rows fail', 'owners that are nobody are told, with how many rows have them');
is($t->sql(q{SELECT severity || ':' || affected_rows FROM dvmig.check('m') WHERE target_column = 'ownerid'}), 'error:4', 'check counts the same');

my $run = $t->run('m');
is($t->sql(q{SELECT string_agg(concat_ws(':', id, error_column, code), ' ' ORDER BY id) FROM staging.customers_error}),
	'5:ownerid:reference_not_found 6:ownerid:reference_not_found 7:ownerid:reference_not_found 9:ownerid:reference_not_found', 'and those rows fail');
my $user = sub { "(SELECT r.record_id FROM dvmig.reference r WHERE r.table_name = '$_[0]' AND r.match_key = '$_[1]' AND r.match_on NOT LIKE '% %' AND r.record_id IS NOT NULL LIMIT 1)" };
my %fields = (
	name => 's.company',
	_ownerid_value => "CASE s.id WHEN 1 THEN @{[ $user->('systemuser', 'user1' . AT) ]} WHEN 2 THEN @{[ $user->('team', 'dvsim') ]}
		WHEN 3 THEN @{[ $user->('systemuser', 'system') ]} WHEN 4 THEN @{[ $user->('systemuser', 'user3' . AT) ]} WHEN 8 THEN '$user5' END",
	_transactioncurrencyid_value => "CASE s.currency WHEN 'own' THEN (SELECT o.match_key::uuid FROM dvmig.reference o WHERE o.table_name = 'organization') WHEN 'USD' THEN @{[ $user->('transactioncurrency', 'usd') ]} END");
my %without = %fields;
delete $without{_transactioncurrencyid_value};
$t->account('m', 'staging.customers' => \%without);
my ($one) = grep { $_->{name} eq 'by map' } @{ $t->sim->export('accounts') };
my ($euro) = grep { $_->{isocurrencycode} eq 'EUR' } @{ $t->sim->export('transactioncurrencies') };
is($one->{_transactioncurrencyid_value}, $euro->{transactioncurrencyid}, 'the base currency is found by its role');

# ---------------------------------------------------------------------- a fallback

$t->sql(q{
	SELECT dvmig.unmap('staging.customers', 'ownerid');
	SELECT dvmig.map_owner('staging.customers', 'seller', fallback => 'user9@example.org');
	SELECT dvmig.retry('staging.customers')});
is($t->sql(q{SELECT string_agg(concat_ws(' ', severity, rule, sample_keys), ', ' ORDER BY rule) FROM dvmig.check('m') WHERE target_column = 'ownerid'}),
	'info reference_not_found {5,6,7,9}, info reference_not_read {5,6,7,9}', 'a fallback that nobody has looked up is not said to be missing');
$t->sql(q{UPDATE dvmig.reference SET match_key = 'x' || match_key});
is($t->sql(q{SELECT string_agg(DISTINCT concat_ws(' ', severity, rule), ', ') FROM dvmig.check('m') WHERE target_column = 'ownerid'}), 'info reference_not_read',
	'of owners that nobody has looked up check tells that, and nothing else');
$t->sql(q{UPDATE dvmig.reference SET match_key = substr(match_key, 2)});
is(unmatched(), 'mmiller:2:the fallback owner, lost:1:the fallback owner, none:1:the fallback owner', 'with a fallback owner they go to him');
$run = $t->run('m');
is($t->counts('staging.customers'), '9/0/9/0/0', 'and no row fails');
is($t->sql(q{SELECT string_agg(id || ' ' || message, ', ' ORDER BY id) FROM staging.customers_success WHERE message IS NOT NULL}),
	join(', ', map { "$_ defaulted: ownerid" } 5, 6, 7, 9), 'which is told');
$fields{_ownerid_value} =~ s/END$/ELSE @{[ $user->('systemuser', 'user9' . AT) ]} END/;
$without{_ownerid_value} = $fields{_ownerid_value};
$t->account('m', 'staging.customers' => \%without);

$t->sql(q{
	SELECT dvmig.unmap('staging.customers', 'ownerid');
	SELECT dvmig.map_owner('staging.customers', 'seller', fallback => 'default team of root business unit', fallback_table => 'team');
	INSERT INTO staging.customers VALUES (10, 'to a team', 'nobody', NULL)});
$run = $t->run('m');
my ($ten) = grep { $_->{name} eq 'to a team' } @{ $t->sim->export('accounts') };
is($ten->{_ownerid_value}, $t->sim->export('teams')->[0]{teamid}, 'a fallback can be a team, by its role');
$t->sql(q{SELECT dvmig.set_column('staging.customers', 'ownerid', 'default_value', 'no team'); INSERT INTO staging.customers VALUES (11, 'to nobody', 'nobody', NULL)});
is($t->sql(q{SELECT string_agg(concat_ws(' ', severity, rule), ', ' ORDER BY rule) FROM dvmig.check('m') WHERE target_column = 'ownerid' AND rule LIKE 'reference%'}),
	'info reference_not_found, info reference_not_read', 'neither is one that was set later');
$t->sql(q{SELECT * FROM dvmig.refresh_references('m')});
is($t->sql(q{SELECT concat_ws(' ', severity, rule, sample_keys, message) FROM dvmig.check('m') WHERE target_column = 'ownerid' AND severity = 'error'}),
	'error reference_not_found {11} the default of the lookup is not found either', 'only once it was');
$run = $t->run('m');
is($t->sql(q{SELECT code FROM staging.customers_error WHERE id = 11}), 'reference_not_found', 'a fallback that is nobody helps nobody');
$t->sql(q{DELETE FROM staging.customers WHERE id = 11; DELETE FROM staging.customers_error});

# ------------------------------------------------- owners that may not read the table

my ($user2) = map { $_->{systemuserid} } grep { $_->{internalemailaddress} eq 'user2' . AT } @{ $t->sim->export('systemusers') };
$t->sim->set(deny_owner => $user2);
$t->sql(q{
	SELECT dvmig.unmap('staging.customers', 'ownerid');
	SELECT dvmig.map_owner('staging.customers', 'seller', fallback => 'user9@example.org');
	INSERT INTO staging.customers VALUES (12, 'may not own', 'user2@example.org', NULL), (13, 'may', 'user3@example.org', NULL);
	SELECT * FROM dvmig.refresh_references('m')});
is($t->sql(q{SELECT concat_ws(' ', rule, affected_rows, sample_keys, message) FROM dvmig.check('m') WHERE severity = 'error'}),
	'owner_without_read 1 {12} no role of the owner has Read privilege on Dataverse table "account"', 'an owner without Read privilege is told beforehand');
$run = $t->run('m');
is($t->sql(q{SELECT string_agg(concat_ws(' ', id, error_class, code), ', ') FROM staging.customers_error}), '12 owner 0x80040299', 'and his rows fail, no others');
$t->sim->set(deny_owner => '');
$t->sql(q{SELECT dvmig.retry('staging.customers'); SELECT * FROM dvmig.refresh_references('m')});
is($t->sql(q{SELECT count(*) FROM dvmig.check('m') WHERE severity = 'error'}), 0, 'once he has a role, nothing is said');
$t->sim->set(deny_owner => $t->sim->export('teams')->[0]{teamid});
$t->sql(q{
	SELECT dvmig.unmap('staging.customers', 'ownerid');
	SELECT dvmig.map_owner('staging.customers', 'seller', fallback => 'default team of root business unit', fallback_table => 'team');
	INSERT INTO staging.customers VALUES (14, 'to a team', 'nobody', NULL);
	SELECT * FROM dvmig.refresh_references('m')});
is($t->sql(q{SELECT concat_ws(' ', rule, affected_rows, sample_keys) FROM dvmig.check('m') WHERE severity = 'error'}), 'owner_without_read 1 {14}', 'the same of a team that is the fallback');
$t->sim->set(deny_owner => '');
$t->sql(q{SELECT * FROM dvmig.refresh_references('m')});
$run = $t->run('m');
is($t->counts('staging.customers'), '13/0/13/0/0', 'all have an owner in the end');

# ------------------------------------------------------------------- by role

$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.units', 'businessunit');
	SELECT dvmig.map_column('staging.units', 'name', 'title');
	SELECT dvmig.map_lookup('staging.units', 'parentbusinessunitid', 'above', 'businessunit', match_on => 'environment role');
	DELETE FROM dvmig.reference});
is($t->sql(q{SELECT string_agg(concat_ws(' ', referenced_table, found_once, ambiguous, missing), ', ') FROM dvmig.refresh_references('m') WHERE match_on = 'environment role' AND keys_read > 0}),
	'businessunit 1 0 0, team 1 0 0',
	'what an environment has by role is found before a run, too');
is($t->sql(q{SELECT count(*) FROM dvmig.check('m') WHERE severity = 'error'}), 0, 'and check has nothing against it');
$run = $t->run('m');
is($t->counts('staging.units'), '2/0/2/0/0', 'units are loaded');
my @units = @{ $t->sim->export('businessunits') };
my ($root) = grep { $_->{name} eq 'dvsim' } @units;
is(scalar(grep { ($_->{_parentbusinessunitid_value} // '') eq $root->{businessunitid} } @units), 2, 'below the root, whatever it is called');
$t->sql(q{INSERT INTO staging.units VALUES (3, 'East', 'root business unit')});
$run = $t->run('m');
is($t->counts('staging.units'), '3/0/3/0/0', 'and the root is still the root when it has children');

like($t->error(q{SELECT dvmig.map_lookup('staging.customers', 'primarycontactid', 'seller', 'contact', match_on => 'environment role')}), qr/cannot be matched on "environment role"/,
	'other tables have no roles');
like($t->error(q{SELECT dvmig.map_lookup('staging.customers', 'primarycontactid', 'seller', 'contact', match_on => '{}')}), qr/match_on names no column/, 'nothing is no key');
like($t->error(q{SELECT dvmig.map_owner('staging.customers', 'seller', fallback_table => 'account')}), qr/fallback_table must be systemuser or team/, 'owners are users or teams');

# ------------------------------------------------------------------- time-outs of the owner's own

# what he set for his statements is not for what dvmig keeps in its own tables
$t->sql(q{BEGIN; LOCK TABLE dvmig.reference IN SHARE MODE; PREPARE TRANSACTION 'reader'});
$t->sql(q{INSERT INTO staging.customers VALUES (15, 'later', 'nobody', NULL);
	ALTER ROLE CURRENT_USER SET lock_timeout = '100ms'});
my $number = $t->start('m');
$t->wait_for("SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'dvmig.reference'::regclass AND waitstart < clock_timestamp() - interval '1 s')
	OR EXISTS (SELECT FROM dvmig.run_history WHERE run = $number AND ended_at IS NOT NULL)");
$t->sql(q{ROLLBACK PREPARED 'reader'; ALTER ROLE CURRENT_USER RESET lock_timeout});
is($t->finish($number)->{state}, 'completed', 'references wait for a lock longer than the owner of the migration would');

# ------------------------------------------------------------------- who may ask

$t->sql(q{
	CREATE ROLE keeper LOGIN; SELECT dvmig.grant_owner('keeper');
	CREATE ROLE runner LOGIN; SELECT dvmig.grant_operator('runner', 'm')});
is($t->sql(q{SET ROLE keeper; SELECT count(*) FROM dvmig.user_map}), 0, 'the user map of a migration is shown to its owner alone');
like($t->error(q{SET ROLE keeper; INSERT INTO dvmig.user_map SELECT 1, 'x', 'systemuser', 'y'}), qr/row-level security/, 'and written by him alone');
like($t->error(q{SET ROLE runner; SELECT * FROM dvmig.unmatched_owners('m')}), qr/permission denied/, 'who owns what is told to those who may read the rows');

done_testing();

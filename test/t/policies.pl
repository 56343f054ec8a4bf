# Policies of column maps: texts that are too long, choices and keys that stand
# for nothing. What was done is told, what is sent is what is hashed, and where
# nothing was said the row fails
use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(profile => 'strict', name => 'policies');

$t->sql(q{
	CREATE SCHEMA staging;
	CREATE TABLE staging.customers (id int PRIMARY KEY, company text, branch text, mail text, parent int, number char(30), doc jsonb);
	INSERT INTO staging.customers (id, company, branch, mail, parent) VALUES
		(1, repeat('a', 160), 'Accounting', 'user1@example.org', NULL),
		(2, repeat('b', 161), 'accounting', 'USER2@example.org', 1),
		-- 159 units and a character of two: taken whole it would not fit
		(3, repeat('c', 159) || '😀d', 'Falconry', NULL, 1),
		(4, repeat('ß', 158) || '😀' || 'e', NULL, 'nobody@example.org', 99),
		(5, repeat('ß', 170), 'Falconry', 'nobody@example.org', 98),
		(6, 'short', '', 'user3@example.org', NULL)});
$t->migration('m', tables => 'account');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.customers', 'account', source_key => 'id', target_key => 'new_legacyid');
	SELECT dvmig.map_column('staging.customers', 'name', 'company');
	SELECT dvmig.map_choice('staging.customers', 'industrycode', 'branch');
	SELECT dvmig.map_lookup('staging.customers', 'ownerid', 'mail', 'systemuser', match_on => 'internalemailaddress');
	SELECT dvmig.map_lookup('staging.customers', 'parentaccountid', 'parent', 'staging.customers')});

sub errors
{
	return join ' ', map { "$_->{id}:$_->{error_column}" } @{ $t->rows('SELECT id, error_column FROM staging.customers_error ORDER BY 1') };
}

sub messages
{
	return { map { $_->{id} => $_->{message} } @{ $t->rows('SELECT id, message FROM staging.customers_success') } };
}

# ------------------------------------------------------------ nothing was said

my $run = $t->run('m');
is($run->{state}, 'completed', 'without policies the run completes');
is(errors(), '2:name 3:industrycode 4:ownerid 5:industrycode 6:industrycode', 'and every value that does not fit fails its row');
is(messages()->{1}, undef, 'nothing is told of a row to which nothing was done');

# ------------------------------------------------------------------- one by one

like($t->error(q{SELECT dvmig.set_column('staging.customers', 'name', 'on_too_long', 'cut')}), qr/on_too_long must be one of error, trim/,
	'a policy that does not exist is refused');
like($t->error(q{SELECT dvmig.set_column('staging.customers', 'industrycode', 'on_too_long', 'trim')}), qr/for text columns/, 'trim is for texts');
like($t->error(q{SELECT dvmig.set_column('staging.customers', 'industrycode', 'on_unknown', 'skip')}), qr/on_unknown must be one of error, default, null, not "skip"/,
	'also where one of the words is null');
like($t->error(q{SELECT dvmig.map_lookup('staging.customers', 'primarycontactid', 'company', 'contact', match_on => 'lastname', on_missing => 'skip')}),
	qr/on_missing must be one of error, default, null, park, not "skip"/, 'when a column is mapped as well');
like($t->error(q{SELECT dvmig.set_column('staging.customers', 'name', 'on_unknown', 'null')}), qr/on_unknown is for choices, and "name" is of Dataverse type String/,
	'on_unknown is for choices');
like($t->error(q{SELECT dvmig.set_column('staging.customers', 'industrycode', 'on_unknown', 'default')}), qr/default for column .* is missing.*Give default_value/s,
	'a default has to be given');
like($t->error(q{SELECT dvmig.set_column('staging.customers', 'name', 'on_missing', 'null')}), qr/on_missing is for lookups/, 'on_missing is for lookups');
like($t->error(q{SELECT dvmig.set_column('staging.customers', 'nmae', 'on_too_long', 'trim')}), qr/"nmae" of .* is not mapped.*Did you mean 'name'/s,
	'a column that is not mapped is told');
sub unmapped { return join ' ', map { join ':', @$_{qw(source_text affected_rows outcome)} } @{ $t->rows(q{SELECT * FROM dvmig.unmapped_choices('m')}) }; }
is(unmapped(), '', 'rows that failed are not looked at');
$t->sql(q{SELECT dvmig.retry('staging.customers', filter => $$e.error_class = 'choice'$$)});
is(unmapped(), 'Falconry:2:the rows fail :1:the rows fail', 'texts that stand for nothing are listed');
$t->sql(q{
	SELECT dvmig.set_column('staging.customers', 'name', 'on_too_long', 'trim');
	SELECT dvmig.set_column('staging.customers', 'industrycode', 'default_value', 'Consulting');
	SELECT dvmig.set_column('staging.customers', 'industrycode', 'on_unknown', 'default');
	SELECT dvmig.set_column('staging.customers', 'ownerid', 'on_missing', 'null');
	SELECT dvmig.set_column('staging.customers', 'parentaccountid', 'on_missing', 'park');
	SELECT dvmig.retry('staging.customers')});

# Rows by finding, as check says: parked ones are under an error, remedied ones are not, nor those that only a deferred lookup waits in.
sub findings
{
	my ($staging) = @_;
	return join ' ', map { "$_->{severity}:$_->{target_column}:$_->{rule}:$_->{affected_rows}" } @{ $t->rows(qq{
		SELECT severity, target_column, rule, affected_rows FROM dvmig.check('m') WHERE staging = '$staging'
		AND rule IN ('too_long', 'unknown_choice', 'orphan', 'reference_not_found', 'reference_ambiguous', 'several_targets', 'parent_not_loaded', 'lookup_stays_owed')
		ORDER BY array_position('{error,warning,info}', severity), target_column, rule}) };
}
$t->sql(q{SELECT * FROM dvmig.refresh_references('m')});
is(findings('staging.customers'), 'warning:parentaccountid:lookup_stays_owed:2 info:industrycode:unknown_choice:3 info:name:too_long:4 info:ownerid:reference_not_found:2',
	'check tells what policies will do, and what will wait');

is(unmapped(), 'Falconry:2:the default :1:the default', 'with what becomes of them');

my $remarks = { map { $_->{source_key} => $_->{remark} } @{ $t->rows(q{SELECT source_key, remark FROM dvmig.preview('staging.customers', 10)}) } };
is($remarks->{2}, 'trimmed: name', 'preview tells what would be done');

$run = $t->run('m');
is($run->{state}, 'completed', 'with policies the run completes');
is(errors(), '', 'and no row fails');
my $m = messages();
is($m->{2}, 'trimmed: name', 'a trimmed text is told');
is($m->{3}, 'trimmed: name; defaulted: industrycode', 'and a default, with it');
is($m->{4}, 'trimmed: name; left empty: ownerid', 'and a lookup that was left empty');
is($m->{6}, 'defaulted: industrycode', 'an empty text is no choice');
# The parent is deferred (the table looks itself up), so the record is there and the lookup owed.
is($t->sql('SELECT string_agg(id::text, $$ $$ ORDER BY id) FROM staging.customers WHERE processing_flag = $$S$$'), '4 5',
	'rows whose parent is missing wait for it, and owe the lookup');

my $names = q{CASE s.id WHEN 2 THEN repeat('b', 160) WHEN 3 THEN repeat('c', 159) WHEN 4 THEN repeat('ß', 158) || '😀'
	WHEN 5 THEN repeat('ß', 160) ELSE s.company END};
my %fields = (
	name => $names, new_legacyid => 's.id::text',
	industrycode => q{CASE WHEN s.branch ILIKE 'accounting' THEN 1 WHEN s.branch IS NOT NULL THEN 11 END},
	_parentaccountid_value => '(SELECT p.dataverse_id FROM staging.customers p WHERE p.id = s.parent AND p.processing_flag IN ($$S$$, $$P$$))');
my $consulting = $t->sql(q{SELECT choice_value FROM dvmig.metadata_choice WHERE table_name = 'account' AND column_name = 'industrycode' AND label = 'Consulting'});
$fields{industrycode} =~ s/11/$consulting/;
is($t->sql(q{
	BEGIN;
	INSERT INTO dvmig.metadata_choice (server, table_name, column_name, choice_value, label)
		SELECT server, 'account', 'industrycode', n, 'Both' FROM dvmig.migration, generate_series(901, 902) n WHERE name = 'm';
	INSERT INTO dvmig.choice_map (migration_id, target_table, target_column, source_text, target_text)
		SELECT migration_id, 'account', 'industrycode', s, l FROM dvmig.migration, (VALUES ('either', 'both'), ('one', 'consulting')) v (s, l) WHERE name = 'm';
	SELECT concat_ws(' ', t -> '=either', t -> '=one', t -> '~both') FROM dvmig._choice_texts('staging.customers', 'industrycode') t;
	ROLLBACK}), $consulting, 'a label on two values stands for neither, in choice_map as well');
$t->account('m', 'staging.customers' => \%fields);

# ------------------------------------------------------- what is sent is hashed

$t->sql(q{
	UPDATE staging.customers SET company = company || ' and more', processing_flag = 'U' WHERE id = 2;
	UPDATE staging.customers SET branch = 'Beekeeping', processing_flag = 'U' WHERE id = 6;
	UPDATE staging.customers SET company = 'x' || company, processing_flag = 'U' WHERE id = 5});
$run = $t->run('m');
is($run->{unchanged}, 2, 'rows whose sent content is the same are not sent');
is(messages()->{2}, 'unchanged; trimmed: name', 'what was done is told all the same');
is(messages()->{5}, 'trimmed: name; defaulted: industrycode', 'of the others too, but for what goes with creates only');
$fields{name} =~ s/repeat\('ß', 160\)/'x' || repeat('ß', 159)/;
$t->account('m', 'staging.customers' => \%fields);

# ------------------------------------------------------------- parked until then

$t->sql(q{INSERT INTO staging.customers (id, company) VALUES (99, 'parent of 4'), (98, 'parent of 5')});
$run = $t->run('m');
is($t->counts('staging.customers'), '8/0/8/0/0', 'all are loaded once their parents are');
is($t->sql('SELECT count(*) FROM staging.customers WHERE processing_flag <> $$P$$'), 0, 'nothing is owed');
is(messages()->{4}, 'trimmed: name; left empty: ownerid', 'the later pass keeps what was told');
$t->account('m', 'staging.customers' => \%fields);

# ---------------------------------------------------- resolvers tried in order

$t->sql(q{
	CREATE TABLE staging.people (id int PRIMARY KEY, family text, firm text, firm_id int, person int, owner text);
	INSERT INTO staging.people VALUES
		(1, 'by key', 'no such firm', 6, NULL, 'user1@example.org'),
		(2, 'by name', 'short', 77, NULL, 'SYSTEM'),
		(3, 'by person', 'no such firm', NULL, 1, 'dvsim'),
		(4, 'by nothing', 'no such firm', 77, NULL, 'nobody'),
		(5, 'without', NULL, NULL, NULL, NULL);
	SELECT dvmig.add_table('m', 'staging.people', 'contact', source_key => 'id');
	SELECT dvmig.map_column('staging.people', 'lastname', 'family');
	SELECT dvmig.map_lookup('staging.people', 'parentcustomerid', 'firm_id', 'staging.customers');
	SELECT dvmig.map_lookup('staging.people', 'parentcustomerid', 'firm', 'account', match_on => 'name', fallback => true);
	SELECT dvmig.map_lookup('staging.people', 'parentcustomerid', 'person', 'staging.people', fallback => true);
	SELECT dvmig.map_lookup('staging.people', 'ownerid', 'owner', 'systemuser', match_on => 'internalemailaddress');
	SELECT dvmig.map_lookup('staging.people', 'ownerid', 'owner', 'systemuser', match_on => 'fullname', fallback => true);
	SELECT dvmig.map_lookup('staging.people', 'ownerid', 'owner', 'team', match_on => 'name', fallback => true,
		on_missing => 'default', default_value => 'dvsim')});
like($t->error(q{SELECT dvmig.map_lookup('staging.people', 'transactioncurrencyid', 'owner', match_on => 'isocurrencycode', fallback => true)}),
	qr/has no lookup that this one could follow/, 'a fallback follows something');
is($t->sql(q{SELECT string_agg(concat_ws(' ', referenced_table, match_on, keys_read), ', ') FROM dvmig.refresh_references('m')
	WHERE keys_read <> found_once + ambiguous + missing}), '', 'every key that is read is found, ambiguous or missing');
is(findings('staging.people'), 'error:parentcustomerid:reference_not_found:1 info:ownerid:reference_not_found:1', 'check knows of lookups that are tried in order');
$run = $t->run('m');
is($t->sql(q{SELECT string_agg(concat_ws(':', id, error_column, code), ' ' ORDER BY id) FROM staging.people_error}), '4:parentcustomerid:orphan',
	'a row fails where none of the lookups of a column finds a record');
my $team = $t->sql(q{SELECT record_id FROM dvmig.reference WHERE table_name = 'team' AND match_key = 'dvsim'});
my $found = sub { "(SELECT r.record_id FROM dvmig.reference r WHERE r.table_name = 'systemuser' AND r.match_on = '$_[0]' AND r.match_key = lower(s.owner) AND r.record_id IS NOT NULL)" };
my %people = (
	lastname => 's.family',
	_parentcustomerid_value => q{CASE s.id WHEN 1 THEN (SELECT c.dataverse_id FROM staging.customers c WHERE c.id = 6) WHEN 2 THEN (SELECT c.dataverse_id FROM staging.customers c WHERE c.id = 6)
		WHEN 3 THEN (SELECT p.dataverse_id FROM staging.people p WHERE p.id = 1) END},
	_ownerid_value => "CASE WHEN s.owner IS NULL THEN NULL ELSE coalesce(@{[ $found->('internalemailaddress') ]}, @{[ $found->('fullname') ]}, '$team') END");
my $app = $t->sql(q{SELECT application_user_id FROM dvmig.whoami('sim')});
$people{_ownerid_value} =~ s/THEN NULL/THEN '$app'/;
$t->account('m', 'staging.customers' => \%fields, 'staging.people' => \%people);

$t->sql(q{SELECT dvmig.set_column('staging.people', 'parentcustomerid', 'on_missing', 'null'); SELECT dvmig.retry('staging.people')});
$run = $t->run('m');
is($t->sql('SELECT message FROM staging.people_success WHERE id = 4'), 'defaulted: ownerid; left empty: parentcustomerid', 'the policy of a chain is that of its end');
$t->account('m', 'staging.customers' => \%fields, 'staging.people' => \%people);

# ----------------------------- the default of a lookup to a staging table, by key

$t->sql(q{
	CREATE TABLE staging.offices (id int PRIMARY KEY, name text, firm int);
	INSERT INTO staging.offices VALUES (1, 'of one', 1), (2, 'of nobody', 4711), (3, 'without', NULL);
	SELECT dvmig.add_table('m', 'staging.offices', 'contact', auto_map => false);
	SELECT dvmig.map_column('staging.offices', 'lastname', 'name');
	SELECT dvmig.map_lookup('staging.offices', 'parentcustomerid', 'firm', 'staging.customers', on_missing => 'default', default_value => '100')});
like($t->error(q{SELECT dvmig.set_column('staging.offices', 'parentcustomerid', 'default_value', 'the first')}),
	qr/the default "the first" is neither an id nor a source key of staging.customers.*type integer/s, 'a default that can be no key is refused');
is(findings('staging.offices'), 'error:parentcustomerid:orphan:1 info:parentcustomerid:orphan:1', 'check knows that there is no such row');
$t->run('m');
is($t->sql(q{SELECT string_agg(concat_ws(':', id, error_column, code), ' ' ORDER BY id) FROM staging.offices_error}), '2:parentcustomerid:orphan', 'without it the row fails');
$t->sql(q{INSERT INTO staging.customers (id, company) VALUES (100, repeat('x', 10)); UPDATE staging.customers SET processing_flag = 'E' WHERE id = 100;
	SELECT dvmig.retry('staging.offices')});
is(findings('staging.offices'), 'error:parentcustomerid:parent_not_loaded:1 info:parentcustomerid:orphan:1', 'check knows that it will not be loaded');
$t->run('m');
is($t->counts('staging.offices'), '3/1/2/0/0', 'while it is not loaded the row waits');
$t->sql(q{UPDATE staging.customers SET processing_flag = 'U' WHERE id = 100});
is(findings('staging.offices'), 'info:parentcustomerid:orphan:1', 'one that will be loaded is fine');
$t->run('m');
is($t->sql('SELECT message FROM staging.offices_success WHERE id = 2'), 'defaulted: parentcustomerid', 'the default is told');
my %offices = (lastname => 's.name', _parentcustomerid_value => '(SELECT p.dataverse_id FROM staging.customers p WHERE p.id = CASE s.id WHEN 2 THEN 100 ELSE s.firm END)');
$t->account('m', 'staging.customers' => \%fields, 'staging.people' => \%people, 'staging.offices' => \%offices);

# ------------------------------------------- what is sensitive, without a mask

$t->sql(q{SELECT dvmig.set_column('staging.people', 'lastname', 'sensitive', 'true')});
like($t->error(q{SELECT dvmig.start('m')}), qr/server "sim" is not production, and sensitive columns have no mask.*lastname of staging.people/s, 'no run starts');
is($t->sql(q{SELECT severity || target_column FROM dvmig.check('m') WHERE rule = 'sensitive_without_mask'}), 'errorlastname', 'check says so');
$t->sql(q{UPDATE staging.people SET processing_flag = 'U' WHERE id = 1});
is($t->sql(q{SELECT concat_ws('|', request, remark) FROM dvmig.preview('staging.people', 1)}), 'lastname: the column is sensitive and has no mask, and the server is not production',
	'and preview does not show it');
$t->sql(q{SELECT dvmig.set_column('staging.people', 'lastname', 'mask', $$'person ' || id$$)});
like($t->sql(q{SELECT request FROM dvmig.preview('staging.people', 1)}), qr/"lastname":"person 1"/, 'a mask is shown in its place');
$run = $t->run('m');
$people{lastname} = q{CASE WHEN s.id = 1 THEN 'person 1' ELSE s.family END};
$t->account('m', 'staging.customers' => \%fields, 'staging.people' => \%people, 'staging.offices' => \%offices);

done_testing();

# Outcomes that were lost are made again from what is in Dataverse
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'rebuild');
my $sim = $t->sim;

$t->sql(q{
	CREATE SCHEMA staging;
	CREATE TABLE staging.firms (id int PRIMARY KEY, name text);
	INSERT INTO staging.firms SELECT n, 'Firm ' || n FROM generate_series(1, 700) n;
	CREATE TABLE staging.invoices (no text PRIMARY KEY, days int);
	INSERT INTO staging.invoices SELECT format('No "%s" & Ä', n), n % 300 FROM generate_series(1, 300) n});
$t->migration('m', tables => 'account,new_invoice');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.firms', 'account', target_key => 'new_legacyid');
	SELECT dvmig.map_column('staging.firms', 'name', 'name');
	SELECT dvmig.add_table('m', 'staging.invoices', 'new_invoice', target_key => 'new_invoicenumber', ids => 'platform');
	SELECT dvmig.map_column('staging.invoices', 'new_paymentdays', 'days')});
is($t->run('m', q{tables => '{staging.firms}'})->{state}, 'completed', 'the load completes');
is($t->run('m', q{tables => '{staging.invoices}'})->{state}, 'completed', 'also where Dataverse makes the ids');
my %ids = map { ("$_->{t} $_->{k}" => $_->{dataverse_id}) } @{ $t->rows(
	q{SELECT 'f' AS t, id::text AS k, dataverse_id FROM staging.firms UNION ALL SELECT 'i', no, dataverse_id FROM staging.invoices}) };

# a backup of the day before is restored: nothing is known of the load
$t->sql(q{
	TRUNCATE staging.firms_success, staging.invoices_success;
	UPDATE staging.firms SET processing_flag = 'U', dataverse_id = NULL;
	UPDATE staging.invoices SET processing_flag = 'U', dataverse_id = NULL;
	INSERT INTO staging.firms (id, name) VALUES (1001, 'new'), (1002, 'by another id')});
# one record was made by hand, under an id of its own, with our key; one is gone
my $other = $sim->create('accounts', { name => 'x', new_legacyid => '1002' })->{accountid};
my ($gone) = $ids{'f 5'};
$sim->api('DELETE', "accounts($gone)");

is($t->sql(q{SELECT dvmig.rebuild_outcomes('staging.firms')}), 700, 'all records that are there are found');
is($t->counts('staging.firms'), '702/2/700/0/0', 'their rows are loaded, the others not');
is($t->sql(q{SELECT string_agg(id::text, ',' ORDER BY id) FROM staging.firms WHERE processing_flag = 'U'}), '5,1001', 'those without a record');
is($t->sql(q{SELECT dataverse_id FROM staging.firms WHERE id = 1002}), $other, 'a record of another id is found by the key it carries');
is($t->sql(q{SELECT count(*) FROM staging.firms_success WHERE message LIKE 'rebuilt%' AND content_hash IS NULL AND created_run IS NULL}), 700, 'their outcome says so');
is($t->sql(q{SELECT dvmig.rebuild_outcomes('staging.invoices')}), 300, 'ids that Dataverse made are found by the key');
is(join(',', grep { $ids{"i $_->{no}"} ne $_->{dataverse_id} } @{ $t->rows('SELECT no, dataverse_id FROM staging.invoices') }), '', 'each its own');
is($t->sql(q{SELECT dvmig.rebuild_outcomes('staging.firms')}), 0, 'a second time there is nothing to do');
is($t->sql(q{SELECT string_agg(result, ',') FROM dvmig.verify('m')}), 'different,equal', 'a verification goes on from there');
is($t->sql(q{SELECT source_key || ' ' || column_name FROM dvmig.difference}), '1002 name', 'and tells what is not as it should be');

# a reload looks at them as at records that were found
$t->sql(q{UPDATE staging.firms SET processing_flag = 'U', name = name || ' Ltd' WHERE id <= 10});
my $run = $t->run('m');
is($run->{state}, 'completed', 'a run goes on from there');
is($t->counts('staging.firms'), '702/0/702/0/0', 'and loads the rest');
is($sim->counters('accounts')->{created_twice}, 1, 'only what was deleted is created again');
is(scalar(grep { $_->{name} =~ / Ltd$/ } @{ $sim->export('accounts') }), 10, 'what has changed is sent');

# outcome tables that were dropped: everybody says what to do, and it helps
for my $lost (qw(success error))
{
	$t->sql("DROP TABLE staging.firms_$lost");
	is($t->status('staging.firms')->{next_step}, q{an outcome table was dropped: SELECT dvmig.rebuild_outcomes('staging.firms')}, "$lost table dropped: status says what to do");
	like($t->error($_), qr/an outcome table of staging table staging\.firms does not exist.*rebuild_outcomes\('staging\.firms'\)/s, "$lost table dropped: $_")
		for q{SELECT dvmig.start('m')}, q{SELECT dvmig.retry('staging.firms')}, q{SELECT * FROM dvmig.outcome_faults('staging.firms')};
	is($t->sql(q{SELECT dvmig.rebuild_outcomes('staging.firms')}), $lost eq 'success' ? 702 : 0, "$lost table dropped: it is made again, with what is in Dataverse");
	is($t->counts('staging.firms'), '702/0/702/0/0', "$lost table dropped: all is as before");
	ok($t->status('staging.firms')->{invariant_holds}, "$lost table dropped: and adds up");
}
$t->sql(q{UPDATE staging.firms SET processing_flag = 'U', name = repeat('x', 200) WHERE id = 7});
is($t->run('m')->{state}, 'completed', 'runs go on with the new tables');
is($t->counts('staging.firms'), '702/0/701/1/0', 'and record in both');

# a staging table that was dropped
$t->sql('DROP TABLE staging.invoices');
like($t->error(q{SELECT dvmig.start('m')}), qr/staging table with OID \d+ does not exist.*dvmig\.drop_table\('\d+'\)/s, 'a staging table dropped: start says what to do');
$t->sql(q{SELECT dvmig.drop_table(staging) FROM dvmig.migration_table WHERE target = 'new_invoice'});
is($t->run('m')->{state}, 'completed', 'which helps');

like($t->error(q{SELECT dvmig.rebuild_outcomes('pg_class')}), qr/42704/, 'no staging table');
$t->sql(q{CREATE ROLE op; SELECT dvmig.grant_operator('op', 'm')});
like($t->error(q{SET ROLE op; SELECT dvmig.rebuild_outcomes('staging.firms')}), qr/42501/, 'an operator rebuilds nothing');

done_testing();

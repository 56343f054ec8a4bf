# Ids that Dataverse makes: rows are known by an alternate key, also when
# their outcomes were forgotten or an answer was lost
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use DvMig;

for my $profile (qw(strict lenient odd))
{
	my $t = DvMig->new(profile => $profile, name => "platform_$profile");

	$t->sql(q{
		CREATE SCHEMA staging;
		CREATE TABLE staging.customers (customer_id int PRIMARY KEY, company_name text, code text);
		INSERT INTO staging.customers
			SELECT n, 'Company ' || n, format($$%s/O'Brien & Söhne: "%s" *+?%%\\$$, n, n) FROM generate_series(1, 400) n;
		UPDATE staging.customers SET code = NULL WHERE customer_id = 400});
	$t->migration('m', tables => 'account');
	$t->sql(q{ALTER DATABASE postgres SET dvmig.settle_time = '300ms'});
	$t->sql(q{
		SELECT dvmig.add_table('m', 'staging.customers', 'account', source_key => 'customer_id', ids => 'platform');
		SELECT dvmig.map_column('staging.customers', 'name', 'company_name')});

	my $errors = sub { return $t->sql(q{SELECT string_agg(concat_ws(' ', rule, target_column, affected_rows), ', ' ORDER BY rule) FROM dvmig.check('m') WHERE severity = 'error'}); };
	is($errors->(), 'no_key 400', "$profile: check says that rows could not be known again");
	like($t->error("CALL dvmig.run('m')"), qr/55000.*table staging\.customers has ids => 'platform', but no active alternate key.*"account" is mapped/s,
		"$profile: without a mapped alternate key the run does not begin");
	is($t->sql('SELECT count(*) FROM dvmig.run_history'), 0, "$profile: there is none");
	is($t->counts('staging.customers'), '400/400/0/0/0', "$profile: and no row changes its flag");
	$t->sql(q{SELECT dvmig.map_column('staging.customers', 'new_legacyid', 'code')});
	is($errors->(), 'key_incomplete new_legacyid 1', "$profile: with a key, which row lacks it");

	# One answer is lost after its commit, one request before it.
	$t->sim->fault({ match => { path_contains => 'CreateMultiple', nth => 1, count => 1 }, do => 'reset_after' });
	is($t->run('m')->{state}, 'completed', "$profile: the run completes");
	cmp_ok($t->sim->stats->{faults}, '>', 0, "$profile: although an answer was lost");
	is($t->counts('staging.customers'), '400/0/399/1/0', "$profile: all but the row without a key succeed");
	is($t->sql('SELECT error_class, error_column FROM staging.customers_error'), 'transform|new_legacyid',
		"$profile: which says so");
	my @records = grep { ($_->{new_legacyid} // '') =~ /Brien/ } @{ $t->sim->export('accounts') };
	is(scalar @records, 399, "$profile: every record exists once");
	my %ids = map { $_->{new_legacyid} => $_->{accountid} } @records;
	my @wrong = grep { $ids{ $_->{code} } ne $_->{dataverse_id} }
		@{ $t->rows(q{SELECT code, dataverse_id FROM staging.customers WHERE processing_flag = 'P'}) };
	is(scalar @wrong, 0, "$profile: and each row has its record's id");

	# Everything is forgotten: the records are found by their key.
	$t->sql(q{
		TRUNCATE staging.customers_success;
		UPDATE staging.customers SET processing_flag = 'U', dataverse_id = NULL, company_name = company_name || '!' WHERE code IS NOT NULL});
	is($t->run('m')->{state}, 'completed', "$profile: a run over forgotten rows completes");
	is($t->counts('staging.customers'), '400/0/399/1/0', "$profile: they all succeed");
	@records = grep { ($_->{new_legacyid} // '') =~ /Brien/ } @{ $t->sim->export('accounts') };
	is(scalar @records, 399, "$profile: no record is doubled");
	is(scalar(grep { $_->{name} !~ /!$/ } @records), 0, "$profile: and each has the new content");

	# A run is ended whose requests were carried out, and a user changes a record before the next one.
	$t->sql(q{INSERT INTO staging.customers SELECT n, 'Company ' || n, 'key ' || n FROM generate_series(501, 700) n});
	$t->sim->fault({ match => { method => 'POST', path_contains => 'Multiple' }, do => 'hold', count => 0, after => JSON::PP::true });
	my $run = $t->start('m');
	$t->until('requests hang that were carried out', sub { grep { ($_->{new_legacyid} // '') =~ /^key/ } @{ $t->sim->export('accounts') } });
	$t->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'dvmig worker'});
	is($t->sql("SELECT dvmig.wait($run)"), 'interrupted', "$profile: ended: the run is interrupted");
	$t->sim->sim('DELETE', 'fault');
	my ($changed) = grep { ($_->{new_legacyid} // '') =~ /^key/ } @{ $t->sim->export('accounts') };
	$t->sim->change('accounts', $changed->{accountid}, { name => 'changed by a user' });
	is($t->run('m')->{state}, 'completed', "$profile: ended: the next one completes");
	is($t->counts('staging.customers'), '600/0/599/1/0', "$profile: ended: all succeed");
	my %held = map { $_->{new_legacyid} => $_ } grep { ($_->{new_legacyid} // '') =~ /^key/ } @{ $t->sim->export('accounts') };
	is(scalar @{ $t->sim->export('accounts') }, 599, "$profile: ended: no record is doubled");
	is($t->sim->counters('accounts')->{created_twice}, 0, "$profile: ended: nor made twice");
	is($held{ $changed->{new_legacyid} }{name}, 'changed by a user', "$profile: ended: what a user changed is kept");
	@wrong = grep { $held{ $_->{code} }{accountid} ne $_->{dataverse_id} || $held{ $_->{code} }{name} ne $_->{company_name} && $_->{code} ne $changed->{new_legacyid} }
		@{ $t->rows(q{SELECT code, dataverse_id, company_name FROM staging.customers WHERE code LIKE 'key%'}) };
	is(scalar @wrong, 0, "$profile: ended: each row has its record's id, and the record what the row says");
}

done_testing();

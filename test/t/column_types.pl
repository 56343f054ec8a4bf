# Every column type, from every PostgreSQL type that fills it, field by field,
# under each profile; in a session whose time zone and date style are far off
use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::RealBin";

use MIME::Base64 ();
use Test::More;

use DvMig;

# What an instant and a wall clock look like when they are read back.
sub instant { return "to_char(($_[0]) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"; }
sub clock { return "to_char($_[0], 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"; }

sub setup
{
	my ($t) = @_;

	$t->sql(q{
		ALTER DATABASE postgres SET timezone = 'Asia/Tokyo';
		ALTER DATABASE postgres SET datestyle = 'SQL, DMY';
		ALTER DATABASE postgres SET extra_float_digits = -15;
		ALTER DATABASE postgres SET bytea_output = 'escape'});
	$t->sql(q{
		CREATE SCHEMA staging;
		CREATE TYPE staging.kind AS ENUM ('Invoice', 'Credit Note', 'Pro Forma');
		CREATE DOMAIN staging.amount AS numeric(12, 2) CHECK (VALUE < 1000000);
		CREATE DOMAIN staging.number AS varchar(40);
		CREATE TABLE staging.firms (id int PRIMARY KEY, title text);
		INSERT INTO staging.firms SELECT i, 'firm ' || i FROM generate_series(1, 3) i;
		CREATE TABLE staging.people (id int PRIMARY KEY, family text);
		INSERT INTO staging.people VALUES (1, 'Payer');
		-- the types one would choose
		CREATE TABLE staging.plain (id int PRIMARY KEY, number text, terms text, days int, ledger bigint, tax numeric, weight float8, amount numeric,
			disputed bool, kind staging.kind, channels int[], day date, posted timestamptz, due timestamp, guid uuid, scan bytea,
			firm int, payer_firm int, payer_person int, corrects int, currency text, owner text);
		INSERT INTO staging.plain
		SELECT i, 'P-' || i, E'Zahlbar "sofort"\n\\ 😀 ' || i, i * 30, 9007199254740993 + i, i * 1.2345, i * 0.1, i * 1234567.89, i % 2 = 0,
			(enum_range(NULL::staging.kind))[i], ARRAY[9, 1], date '2024-02-28' + i, timestamptz '2024-05-31 23:30:00.9+02' + i * interval '1 day',
			timestamp '2024-05-31 23:30:00' + i * interval '1 day', ('0000000' || i || '-1111-4111-8111-111111111111')::uuid,
			decode('89504e470d0a1a0a' || repeat('0' || i, 100), 'hex'),
			i, CASE WHEN i < 3 THEN i END, CASE WHEN i = 3 THEN 1 END, nullif(i - 1, 0), CASE i WHEN 1 THEN 'EUR' WHEN 2 THEN 'usd' END, 'user' || i || '@example.org'
		FROM generate_series(1, 3) i;
		INSERT INTO staging.plain (id, number) VALUES (4, 'P-4');
		-- and others
		CREATE TABLE staging.other (id int PRIMARY KEY, number staging.number, terms jsonb, days smallint, ledger numeric, tax real, weight int, amount staging.amount,
			disputed text, kind int, channels text, day timestamptz, posted date, due timestamptz, guid uuid, scan bytea, internal bigint);
		INSERT INTO staging.other VALUES
			(1, 'O-1', '{"a": [1, null]}', 30, 12, 0.1, 7, 99.50, 'yes', 100000001, 'E-Mail; portal', '2024-05-31 23:30:00-05', '2024-05-31', '2024-05-31 23:30:00-05', NULL, '', 123),
			(2, 'O-2', '"text"', 31, 13.000, 33.3, 0, -5, 'N', NULL, '1, 9', '1900-01-02 00:00+00', '9999-12-30', '2024-03-31 01:30:00+01', NULL, NULL, NULL),
			(3, 'O-3', NULL, NULL, NULL, NULL, NULL, NULL, 'No', 100000000, '', NULL, NULL, NULL, NULL, NULL, NULL)});
	$t->migration('m', tables => 'new_invoice,account,contact');
	$t->sql(q{
		SELECT dvmig.add_table('m', 'staging.firms', 'account');
		SELECT dvmig.map_column('staging.firms', 'name', 'title');
		SELECT dvmig.add_table('m', 'staging.people', 'contact');
		SELECT dvmig.map_column('staging.people', 'lastname', 'family');
		SELECT dvmig.add_table('m', 'staging.plain', 'new_invoice');
		SELECT dvmig.map_column('staging.plain', c, e) FROM (VALUES ('new_invoicenumber', 'number'), ('new_terms', 'terms'), ('new_paymentdays', 'days'),
			('new_ledgerentry', 'ledger'), ('new_taxrate', 'tax'), ('new_weight', 'weight'), ('new_amount', 'amount'), ('new_disputed', 'disputed'),
			('new_channels', 'channels'), ('new_invoicedate', 'day'), ('new_postedon', 'posted'), ('new_dueat', 'due'), ('new_sourceguid', 'guid'), ('new_scan', 'scan')) m (c, e);
		SELECT dvmig.map_choice('staging.plain', 'new_kind', 'kind');
		SELECT dvmig.map_lookup('staging.plain', 'new_customerid', 'firm', 'staging.firms');
		SELECT dvmig.map_lookup('staging.plain', 'new_billedtoid', 'payer_firm', 'staging.firms');
		SELECT dvmig.map_lookup('staging.plain', 'new_billedtoid', 'payer_person', 'staging.people');
		SELECT dvmig.map_lookup('staging.plain', 'new_correctsid', 'corrects', 'staging.plain');
		SELECT dvmig.map_lookup('staging.plain', 'transactioncurrencyid', 'currency', 'transactioncurrency', match_on => 'isocurrencycode');
		SELECT dvmig.map_lookup('staging.plain', 'ownerid', 'owner', 'systemuser', match_on => 'internalemailaddress');
		SELECT dvmig.add_table('m', 'staging.other', 'new_invoice');
		SELECT dvmig.map_column('staging.other', c, e) FROM (VALUES ('new_invoicenumber', 'number'), ('new_terms', 'terms'), ('new_paymentdays', 'days'),
			('new_ledgerentry', 'ledger'), ('new_taxrate', 'tax'), ('new_weight', 'weight'), ('new_amount', 'amount'), ('new_kind', 'kind'),
			('new_invoicedate', 'day'), ('new_postedon', 'posted'), ('new_dueat', 'due'), ('new_scan', 'scan'), ('new_internalnumber', 'internal')) m (c, e);
		SELECT dvmig.map_choice('staging.other', 'new_disputed', 'disputed');
		SELECT dvmig.map_choice('staging.other', 'new_channels', 'channels');
		INSERT INTO dvmig.choice_map (migration_id, target_table, target_column, source_text, target_text)
			SELECT migration_id, 'new_invoice', 'new_channels', 'Website', 'Portal' FROM dvmig.migration WHERE name = 'm'});
	return;
}

my %plain = (
	new_invoicenumber => 's.number', new_terms => 's.terms', new_paymentdays => 's.days', new_ledgerentry => 's.ledger::text', new_taxrate => 'round(s.tax, 4)',
	new_weight => 's.weight::numeric', new_amount => 's.amount', new_disputed => 's.disputed',
	new_kind => q{100000000 + array_position(enum_range(NULL::staging.kind), s.kind) - 1}, new_channels => q{CASE WHEN s.id < 4 THEN '9,1' END},
	new_invoicedate => q{to_char(s.day, 'YYYY-MM-DD')}, new_postedon => instant('s.posted'), new_dueat => clock('s.due'), new_sourceguid => 's.guid',
	_new_customerid_value => '(SELECT p.dataverse_id FROM staging.firms p WHERE p.id = s.firm)',
	_new_billedtoid_value => 'coalesce((SELECT p.dataverse_id FROM staging.firms p WHERE p.id = s.payer_firm), (SELECT p.dataverse_id FROM staging.people p WHERE p.id = s.payer_person))',
	_new_correctsid_value => '(SELECT p.dataverse_id FROM staging.plain p WHERE p.id = s.corrects)');
my %other = (
	new_invoicenumber => 's.number', new_terms => 's.terms::text', new_paymentdays => 's.days', new_ledgerentry => 'trunc(s.ledger)::text', new_weight => 's.weight',
	new_amount => 's.amount', new_kind => 's.kind', new_disputed => q{lower(s.disputed) = 'yes'}, new_channels => q{CASE s.id WHEN 1 THEN '2,3' WHEN 2 THEN '1,9' END},
	new_invoicedate => q{to_char(s.day AT TIME ZONE 'UTC', 'YYYY-MM-DD')}, new_postedon => clock('s.posted'), new_dueat => instant('s.due'),
	new_internalnumber => 's.internal');

for my $profile (qw(strict lenient odd))
{
	my $t = DvMig->new(profile => $profile, name => "types_$profile");
	setup($t);

	my $run = $t->run('m');
	is($run->{state}, 'completed', "$profile: every type is loaded");
	is($t->sql('SELECT string_agg(concat_ws(\' \', id, error_column, message), \', \') FROM (TABLE staging.plain_error UNION ALL TABLE staging.other_error) e'), '', "$profile: and no row fails");
	my %no_number = %other;
	delete $no_number{new_internalnumber};    # an autonumber, where nothing is sent
	my @compare = ('staging.plain' => \%plain, 'staging.other' => \%no_number);
	$t->account('m', @compare);
	is($t->sql(q{SELECT count(*) FROM dvmig.reference WHERE table_name = 'transactioncurrency' AND matches = 1}), 2, "$profile: currencies are found by their code");

	# Money is in the currency that its row names; the rate is Dataverse's own.
	my %code = map { $_->{transactioncurrencyid} => $_->{isocurrencycode} } @{ $t->sim->export('transactioncurrencies') };
	my %is_in = map { $_->{new_invoicenumber} => $code{ $_->{_transactioncurrencyid_value} // '' } // 'none' } grep { ($_->{new_invoicenumber} // '') =~ /^P/ } @{ $t->sim->export('new_invoices') };
	is(join(' ', map { "$_:$is_in{$_}" } sort keys %is_in),
		$t->sql(q{SELECT string_agg(number || ':' || upper(coalesce(currency, 'EUR')), ' ' ORDER BY number COLLATE "C") FROM staging.plain WHERE number LIKE 'P%'}), "$profile: each amount in its currency, or the base currency");
	like($t->error(q{SELECT dvmig.map_column('staging.plain', 'exchangerate', 'tax')}), qr/exchangerate.*(computed|read-only|cannot be written)/, "$profile: the exchange rate is not to be given");

	# Images come back as they went.
	my ($record) = grep { ($_->{new_invoicenumber} // '') eq 'P-2' } @{ $t->sim->export('new_invoices') };
	is(lc unpack('H*', MIME::Base64::decode_base64($record->{new_scan} // '')), $t->sql(q{SELECT encode(scan, 'hex') FROM staging.plain WHERE id = 2}), "$profile: an image");

	# An update empties what has become null, and sends nothing that goes with creates only.
	$t->sql(q{UPDATE staging.plain SET terms = NULL, day = NULL, channels = '{}', kind = NULL, firm = NULL, payer_firm = NULL, payer_person = NULL, disputed = NOT disputed,
		owner = 'user7@example.org', processing_flag = 'U' WHERE id < 4});
	$plain{new_channels} = 'NULL::text';
	my $owner = sub { my ($r) = grep { ($_->{new_invoicenumber} // '') eq 'P-1' } @{ $t->sim->export('new_invoices') }; return $r->{_ownerid_value}; };
	my $before = $owner->();
	$run = $t->run('m');
	is($run->{state}, 'completed', "$profile: nulls in an update");
	$t->account('m', @compare);
	$plain{new_channels} = q{CASE WHEN s.id < 4 THEN '9,1' END};
	is($owner->(), $before, "$profile: the owner goes with the insert only");
	$t->sql(q{UPDATE staging.plain SET owner = 'user8@example.org', processing_flag = 'U' WHERE id < 4});
	$run = $t->run('m');
	is($run->{unchanged}, 3, "$profile: and a change of it alone is none");
	$t->sql(q{SELECT dvmig.set_column('staging.plain', 'ownerid', 'send', 'both'); UPDATE staging.plain SET processing_flag = 'U' WHERE id = 1});
	$run = $t->run('m');
	is($run->{rows_sent}, 1, "$profile: unless it is asked for");
	is($owner->(), $t->sql(q{SELECT record_id FROM dvmig.reference WHERE match_key = 'user8@example.org'}), "$profile: then it goes with updates");
	$t->account('m', 'staging.plain' => {%plain, new_channels => 'NULL::text'});
	$t->sim->stop;
	$t->node->stop;
}

done_testing();

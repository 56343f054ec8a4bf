# Rows that cannot be sent become error rows that name the column; the others
# of their batch go, whatever the simulator's profile
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

# value, expression of which column, class that the error row has
my @bad = (
	[ 'amount', q{'NaN'}, 'new_amount' ],
	[ 'amount', q{'Infinity'}, 'new_amount' ],
	[ 'amount', q{'1e15'}, 'new_amount' ],
	[ 'posted', q{'infinity'}, 'new_postedon' ],
	[ 'posted', q{'1700-01-01 00:00Z'}, 'new_postedon' ],
	[ 'posted', q{'4713-01-01 00:00Z BC'}, 'new_postedon' ],
	[ 'posted', q{'20000-01-01 00:00Z'}, 'new_postedon' ],
	[ 'issued', q{'-infinity'}, 'new_invoicedate' ],
	[ 'issued', q{'1066-10-14'}, 'new_invoicedate' ],
	[ 'days', q{'3.5'}, 'new_paymentdays' ],
	[ 'days', q{'366'}, 'new_paymentdays' ],
	[ 'days', q{'-1'}, 'new_paymentdays' ],
	[ 'days', q{'1e30'}, 'new_paymentdays' ],
	[ 'weight', q{'Infinity'}, 'new_weight' ],
	[ 'rate', q{'100.5'}, 'new_taxrate' ],
	[ 'terms', q{repeat('x', 4001)}, 'new_terms' ],
	[ 'terms', q{repeat(U&'\+01F600', 2001)}, 'new_terms' ],    # two UTF-16 units each
	[ 'reference', q{'Grüße'}, 'new_reference' ],
	[ 'kind', q{'Nothing'}, 'new_kind' ],
	[ 'customer', q{'99'}, 'new_customerid' ],
	[ 'owner', q{'nobody@example.org'}, 'ownerid' ],
	[ 'divisor', q{'0'}, 'new_ledgerentry' ],
	[ 'divisor', q{'9223372036854775807'}, 'new_ledgerentry' ],
);
my $n = 400;

for my $profile (qw(strict lenient odd))
{
	my $t = DvMig->new(profile => $profile, name => "bad_$profile");

	$t->sql(qq{
		CREATE TABLE customers (customer_id int PRIMARY KEY, name text);
		INSERT INTO customers VALUES (1, 'One'), (2, 'Two');
		CREATE TABLE invoices (invoice_no int PRIMARY KEY, amount numeric, posted timestamptz, issued date, days numeric, weight float8,
			rate numeric, terms text, reference text, kind text, customer int, owner text, divisor bigint DEFAULT 1);
		INSERT INTO invoices
			SELECT n, n * 1.5, timestamptz '2024-01-01 00:00Z' + n * interval '1 hour', date '2023-01-01' + n, n % 90, n / 3.0, n % 100,
				E'Zeile 1\\nZeile "' || n, 'R' || n, (ARRAY['Invoice', 'credit note', NULL])[1 + n % 3], 1 + n % 2, NULL
			FROM generate_series(1, $n) n});
	$t->migration('m', tables => 'account,new_invoice,systemuser');
	$t->sql(q{
		SELECT dvmig.add_table('m', 'customers', 'account', source_key => 'customer_id');
		SELECT dvmig.add_table('m', 'invoices', 'new_invoice', source_key => 'invoice_no', target_key => 'new_invoicenumber');
		SELECT dvmig.map_column('invoices', 'new_amount', 'amount');
		SELECT dvmig.map_column('invoices', 'new_postedon', 'posted');
		SELECT dvmig.map_column('invoices', 'new_invoicedate', 'issued');
		SELECT dvmig.map_column('invoices', 'new_paymentdays', 'days');
		SELECT dvmig.map_column('invoices', 'new_weight', 'weight');
		SELECT dvmig.map_column('invoices', 'new_taxrate', 'rate');
		SELECT dvmig.map_column('invoices', 'new_terms', 'terms');
		SELECT dvmig.map_column('invoices', 'new_reference', 'reference');
		SELECT dvmig.map_column('invoices', 'new_ledgerentry', '(4000000000000 / divisor) * divisor + invoice_no * divisor');
		SELECT dvmig.map_choice('invoices', 'new_kind', 'kind');
		SELECT dvmig.map_lookup('invoices', 'new_customerid', 'customer', 'customers');
		SELECT dvmig.map_lookup('invoices', 'ownerid', 'owner', 'systemuser', match_on => 'internalemailaddress')});
	for my $i (0 .. $#bad)
	{
		$t->sql(sprintf 'UPDATE invoices SET %s = %s WHERE invoice_no = %d', @{ $bad[$i] }[ 0, 1 ], 10 + 13 * $i);
	}
	my $run = $t->run('m');
	is($run->{state}, 'completed', "$profile: the run completes");

	my %error = map { $_->{invoice_no} => $_ } @{ $t->rows('SELECT * FROM invoices_error') };
	for my $i (0 .. $#bad)
	{
		my ($column, $value, $target) = @{ $bad[$i] };
		my $e = delete $error{ 10 + 13 * $i };
		is($e->{error_column}, $target, "$profile: $column = " . substr($value, 0, 30) . ' names the column')
		  or diag explain $e;
		ok($e->{error_class} && $e->{message}, "$profile: and has a class and a message");
	}
	is(join(' ', sort keys %error), '', "$profile: no other row fails");
	is($t->counts('invoices'), join('/', $n, 0, $n - @bad, scalar(@bad), 0), "$profile: all others succeed");
	$t->account('m', customers => { name => 's.name' }, invoices => {
			new_invoicenumber => 's.invoice_no::text', new_amount => 's.amount', new_invoicedate => 's.issued', new_paymentdays => 's.days',
			new_postedon => q{to_char(s.posted AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')}, new_taxrate => 's.rate',
			new_terms => 's.terms', new_reference => 's.reference', new_ledgerentry => '4000000000000 + s.invoice_no',
			new_kind => q{CASE lower(s.kind) WHEN 'invoice' THEN 100000000 WHEN 'credit note' THEN 100000001 END},
			_new_customerid_value => '(SELECT c.dataverse_id FROM customers c WHERE c.customer_id = s.customer)' });
	$t->sim->stop;
	$t->node->stop;
}

done_testing();

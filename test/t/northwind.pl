# The Northwind sample database migrates: customers, employees who report to
# each other, products, orders with a lookup to two tables, order lines with a
# composite key; compared with what Dataverse holds, field by field
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $source = DvMig::shared_data('source-northwind/northwind.sql')
  or plan skip_all => 'no source-northwind here (DVMIG_SHARED_DATA)';

# What each target column is made from; the account compares with the same
# columns of the source, said a second time below where a lookup is resolved.
my %map = (
	customers => {
		name => 's.company_name', telephone1 => 's.phone', fax => 's.fax', address1_line1 => 's.address', address1_city => 's.city',
		address1_stateorprovince => 's.region', address1_postalcode => 's.postal_code', address1_country => 's.country',
		address1_primarycontactname => 's.contact_name',
	},
	employees => {
		firstname => 's.first_name', lastname => 's.last_name', jobtitle => 's.title', salutation => 's.title_of_courtesy',
		birthdate => 's.birth_date', description => 's.notes', telephone2 => 's.home_phone',
	},
	products => {
		name => 's.product_name', productnumber => 's.product_id::text', size => 's.quantity_per_unit',
		quantityonhand => 's.units_in_stock', standardcost => 'round(s.unit_price::numeric, 2)',
	},
	orders => {
		new_amount => 'round(s.freight::numeric, 2)', new_terms => q{s.ship_name || E'\n' || s.ship_address},
		new_invoicedate => q{CASE WHEN s.order_id < 10260 THEN s.order_date END},
		new_postedon => q{s.shipped_date::timestamp AT TIME ZONE 'UTC'},
	},
	order_details => {
		new_name => q{'Line ' || s.product_id}, new_linenumber => 's.product_id', new_quantity => 's.quantity',
		new_discount => 'round(s.discount::numeric, 4)', new_unitprice => 'round(s.unit_price::numeric, 4)',
	},
);
my %target = (customers => 'account', employees => 'contact', products => 'product', orders => 'new_invoice', order_details => 'new_invoiceline');
my %key = (customers => 'customer_id', employees => 'employee_id', products => 'product_id', orders => 'order_id',
	order_details => 'order_id, product_id');
my %target_key = (customers => 'new_legacyid', employees => 'new_legacyid', orders => 'new_invoicenumber');
my @lookups = (
	[ 'employees', 'new_managerid', 's.reports_to', 'employees', 'employee_id' ],
	[ 'orders', 'new_customerid', 's.customer_id', 'customers', 'customer_id' ],
	[ 'orders', 'new_billedtoid', 'CASE WHEN s.order_id % 2 = 0 THEN s.customer_id END', 'customers', 'customer_id' ],
	[ 'orders', 'new_billedtoid', 'CASE WHEN s.order_id % 2 = 1 THEN s.employee_id END', 'employees', 'employee_id' ],
	[ 'order_details', 'new_invoiceid', 's.order_id', 'orders', 'order_id' ],
	[ 'order_details', 'new_productid', 's.product_id', 'products', 'product_id' ],
);

# What the account expects: the mapped values, instants as Dataverse writes
# them, and the ids that the staging tables say the parents have.
my %expected;
for my $table (keys %map)
{
	my %fields = %{ $map{$table} };
	$fields{ $target_key{$table} } = "s.$key{$table}::text" if $target_key{$table};
	$fields{new_postedon} = q{to_char(s.shipped_date, 'YYYY-MM-DD') || 'T00:00:00Z'} if $table eq 'orders';
	$expected{"staging.$table"} = \%fields;
}
for my $l (@lookups)
{
	my ($table, $column, $from, $parent, $parent_key) = @$l;
	my $found = "(SELECT p.dataverse_id FROM staging.$parent p WHERE p.$parent_key = $from)";
	my $field = "_${column}_value";
	my $before = $expected{"staging.$table"}{$field};
	$expected{"staging.$table"}{$field} = defined $before ? "coalesce($before, $found)" : $found;
}

for my $profile (qw(strict lenient odd))
{
	my $t = DvMig->new(profile => $profile, name => "northwind_$profile");

	$t->load_file($source);
	$t->sql('CREATE SCHEMA staging');
	$t->sql("CREATE TABLE staging.$_ AS TABLE public.$_; ALTER TABLE staging.$_ ADD PRIMARY KEY ($key{$_})") for sort keys %key;
	$t->migration('northwind', tables => 'account,contact,product,new_invoice,new_invoiceline');
	# Children first on purpose: the order of work follows from the lookups.
	for my $table (sort { $b cmp $a } keys %target)
	{
		my $kept = $target_key{$table} ? ", target_key => '$target_key{$table}'" : '';
		$t->sql("SELECT dvmig.add_table('northwind', 'staging.$table', '$target{$table}', source_key => '$key{$table}'$kept)");
	}
	for my $table (sort keys %map)
	{
		for my $column (sort keys %{ $map{$table} })
		{
			my $expression = $map{$table}{$column} =~ s/\bs\.//gr;
			$t->sql("SELECT dvmig.map_column('staging.$table', '$column', \$e\$$expression\$e\$)");
		}
	}
	$t->sql(sprintf('SELECT dvmig.map_lookup(%s)', join ', ', map { "\$e\$$_\$e\$" } "staging.$_->[0]", $_->[1], $_->[2] =~ s/\bs\.//gr, "staging.$_->[3]"))
	  for @lookups;

	my $run = $t->run('northwind');
	is($run->{state}, 'completed', "$profile: the run completes") or diag $t->{last_output};
	is($t->counts('staging.customers'), '91/0/91/0/0', "$profile: customers");
	is($t->counts('staging.employees'), '9/0/9/0/0', "$profile: employees");
	is($t->counts('staging.products'), '77/0/77/0/0', "$profile: products");
	is($t->counts('staging.orders'), '830/0/830/0/0', "$profile: orders");
	is($t->counts('staging.order_details'), '2155/0/2155/0/0', "$profile: order lines");
	$t->account('northwind', %expected);

	# The same again, flag by flag: nothing is sent, because nothing differs.
	$t->sql("UPDATE staging.$_ SET processing_flag = 'U'") for sort keys %key;
	$run = $t->run('northwind');
	is($run->{state}, 'completed', "$profile: all rows once more");
	is($run->{rows_sent}, 0, "$profile: nothing of it is sent");
	is($run->{unchanged}, 3162, "$profile: all is unchanged");
	$t->account('northwind', %expected);

	# A change of a customer and of a manager, and an order that moves.
	$t->sql(q{
		UPDATE staging.customers SET company_name = 'Alfreds Fütterkiste', fax = NULL, processing_flag = 'U' WHERE customer_id = 'ALFKI';
		UPDATE staging.employees SET reports_to = 9, processing_flag = 'U' WHERE employee_id = 2;
		UPDATE staging.orders SET employee_id = 3, processing_flag = 'U' WHERE order_id = 10249;
		UPDATE staging.order_details SET quantity = 1 + quantity, processing_flag = 'U' WHERE order_id = 10248});
	$run = $t->run('northwind');
	is($run->{state}, 'completed', "$profile: changes");
	is($run->{failed}, 0, "$profile: none of them fails");
	$t->account('northwind', %expected);
	$t->sim->stop;
	$t->node->stop;
}

done_testing();

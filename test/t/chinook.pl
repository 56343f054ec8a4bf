# The Chinook sample database migrates in place: employees and customers, whose
# keys are equal, become contacts; invoices and their lines, tracks, playlists;
# compared with what Dataverse holds, field by field
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $source = DvMig::shared_data('source-chinook/Chinook_PostgreSql.sql')
  or plan skip_all => 'no source-chinook here (DVMIG_SHARED_DATA)';

my %map = (
	employee => {
		firstname => 's.first_name', lastname => 's.last_name', jobtitle => 's.title', emailaddress1 => 's.email',
		new_legacyid => q{'E' || s.employee_id}, birthdate => 's.birth_date::date', address1_city => 's.city',
	},
	customer => {
		firstname => 's.first_name', lastname => 's.last_name', emailaddress1 => 's.email', new_legacyid => q{'C' || s.customer_id},
		address1_line1 => 's.address', address1_city => 's.city', address1_country => 's.country', telephone1 => 's.phone',
		description => q{s.company || E'\r\n' || coalesce(s.state, '-')},
	},
	invoice => {
		new_amount => 's.total', new_reference => q{'INV/' || s.invoice_id},
		new_postedon => q{s.invoice_date AT TIME ZONE 'Europe/Prague'}, new_dueat => q{s.invoice_date + interval '30 days'},
		new_terms => q{concat_ws(E'\n', s.billing_address, s.billing_city, s.billing_country)},
	},
	invoice_line => {
		new_name => q{'Track ' || s.track_id}, new_linenumber => 's.invoice_line_id', new_quantity => 's.quantity',
		new_unitprice => 's.unit_price',
	},
	track => {
		new_name => 's.name', new_composer => 's.composer', new_tracknumber => 's.track_id', new_milliseconds => 's.milliseconds',
		new_bytes => 's.bytes', new_unitprice => 's.unit_price',
	},
	playlist => { new_name => 's.name' },
);
my %target = (employee => 'contact', customer => 'contact', invoice => 'new_invoice', invoice_line => 'new_invoiceline',
	track => 'new_track', playlist => 'new_playlist');
my %rows = (employee => 8, customer => 59, invoice => 412, invoice_line => 2240, track => 3503, playlist => 18);
my @lookups = (
	[ 'employee', 'new_managerid', 'reports_to', 'employee' ],
	[ 'customer', 'new_managerid', 'support_rep_id', 'employee' ],
	[ 'invoice', 'new_billedtoid', 'customer_id', 'customer' ],
	[ 'invoice_line', 'new_invoiceid', 'invoice_id', 'invoice' ],
);

my %expected = map { ($_ => { %{ $map{$_} } }) } keys %map;
$expected{$_->[0]}{"_$_->[1]_value"} = "(SELECT p.dataverse_id FROM $_->[3] p WHERE p.$_->[3]_id = s.$_->[2])" for @lookups;
$expected{invoice}{new_invoicenumber} = 's.invoice_id::text';
$expected{invoice}{new_postedon} =
  q{to_char(s.invoice_date AT TIME ZONE 'Europe/Prague' AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')};
$expected{invoice}{new_dueat} = q{to_char(s.invoice_date + interval '30 days', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')};

for my $profile (qw(strict odd))
{
	my $t = DvMig->new(profile => $profile, name => "chinook_$profile", tls => $profile eq 'strict', no_extension => 1);

	$t->load_file($source);
	$t->{db} = 'chinook';
	$t->sql('CREATE EXTENSION dvmig');
	$t->migration('chinook', tables => q(contact,new_invoice,new_invoiceline,new_track,new_playlist));
	for my $table (sort keys %target)
	{
		my $kept = $table eq 'invoice' ? ", target_key => 'new_invoicenumber'" : '';
		$t->sql("SELECT dvmig.add_table('chinook', '$table', '$target{$table}', source_key => '${table}_id'$kept)");
		for my $column (sort keys %{ $map{$table} })
		{
			my $expression = $map{$table}{$column} =~ s/\bs\.//gr;
			$t->sql("SELECT dvmig.map_column('$table', '$column', \$e\$$expression\$e\$)");
		}
	}
	$t->sql("SELECT dvmig.map_lookup('$_->[0]', '$_->[1]', '$_->[2]', '$_->[3]')") for @lookups;

	my $run = $t->run('chinook');
	is($run->{state}, 'completed', "$profile: the run completes") or diag $t->{last_output};
	is($t->counts($_), "$rows{$_}/0/$rows{$_}/0/0", "$profile: $_") for sort keys %rows;
	is($t->sql('SELECT count(*) FROM employee JOIN customer USING (dataverse_id)'), 0, "$profile: equal keys of two tables share no id");
	$t->account('chinook', %expected);

	# Reload as a nightly job does: rows come without flag and id.
	$t->sql(q{UPDATE track SET processing_flag = 'U', dataverse_id = NULL, name = CASE WHEN track_id = 1 THEN upper(name) ELSE name END});
	$run = $t->run('chinook');
	is($run->{state}, 'completed', "$profile: a reload");
	is($run->{rows_sent}, 1, "$profile: only the row that differs is sent");
	$t->account('chinook', %expected);
	$t->sim->stop;
	$t->node->stop;
}

done_testing();

# Masks: what is sensitive reaches production only. Lookups and ids are taken
# from the real values, and the same value gets the same mask
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use DvMig;

my $t = DvMig->new(profile => 'strict', name => 'masks');

$t->sql(q{
	CREATE SCHEMA staging;
	CREATE TABLE staging.customers (nr text PRIMARY KEY, company text, phone text, mail text, turnover numeric, branch text, boss_code text);
	INSERT INTO staging.customers
	SELECT 'CUSTOMERNUMBER' || i, 'Contoso ' || (i % 5), '+49 30 ' || 100000 + i, 'bookkeeping' || i || '@contoso.com', i * 1000.5, 'Accounting', CASE WHEN i > 1 THEN 'CUSTOMERNUMBER1' END
	FROM generate_series(1, 40) i;
	CREATE TABLE staging.people (id int PRIMARY KEY, family text, company text, owner text);
	INSERT INTO staging.people SELECT i, 'Contoso ' || (i % 5), 'CUSTOMERNUMBER' || i, 'user' || (i % 10 + 1) || '@example.org' FROM generate_series(1, 20) i});
$t->migration('m', tables => 'account,contact');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.customers', 'account');
	SELECT dvmig.map_column('staging.customers', 'accountnumber', 'nr', sensitive => true, mask => 'dvmig.mask_text(nr)');
	SELECT dvmig.map_column('staging.customers', 'name', 'company', sensitive => true, mask => 'dvmig.mask_name(company)');
	SELECT dvmig.map_column('staging.customers', 'telephone1', 'phone', mask => 'dvmig.mask_phone(phone)');
	SELECT dvmig.map_column('staging.customers', 'emailaddress1', 'mail', mask => 'dvmig.mask_mail(mail)');
	SELECT dvmig.map_column('staging.customers', 'revenue', 'turnover', mask => 'round(dvmig.mask_number(turnover), 2)');
	SELECT dvmig.map_choice('staging.customers', 'industrycode', 'branch', sensitive => true, mask => $$'Consulting'$$);
	SELECT dvmig.map_lookup('staging.customers', 'parentaccountid', 'boss_code', 'staging.customers');
	SELECT dvmig.add_table('m', 'staging.people', 'contact');
	SELECT dvmig.map_column('staging.people', 'lastname', 'family', mask => 'dvmig.mask_name(family)');
	SELECT dvmig.map_lookup('staging.people', 'parentcustomerid', 'company', 'staging.customers');
	SELECT dvmig.map_lookup('staging.people', 'ownerid', 'owner', 'systemuser', match_on => 'internalemailaddress')});

# ---------------------------------------------------------------------- refused

like($t->error(q{SELECT dvmig.map_column('staging.customers', 'description', 'company', mask => 'random()::text')}), qr/the mask for column "description" is volatile/,
	'a mask that changes is refused');
like($t->error(q{SELECT dvmig.map_column('staging.customers', 'numberofemployees', '1', mask => $$'many'$$)}), qr/type text cannot fill column "numberofemployees"/,
	'and one that does not fit the column');
like($t->error(q{SELECT dvmig.set_column('staging.customers', 'parentaccountid', 'sensitive', 'true')}), qr/lookup and cannot be sensitive/, 'a lookup is not masked');
like($t->error(q{SELECT dvmig.set_column('staging.customers', 'name', 'sensitive', 'false')}), qr/has a mask/, 'a column with a mask is sensitive');

# ---------------------------------------------------------------------- a sandbox

my $preview = $t->rows(q{SELECT request::json ->> 'name' AS name, request::json ->> 'emailaddress1' AS mail FROM dvmig.preview('staging.customers', 40)});
is(scalar(grep { $_->{name} =~ /Contoso/ || $_->{mail} =~ /contoso/ } @$preview), 0, 'preview shows masks');
is($t->sql(q{SELECT count(*) FROM dvmig.check('m') WHERE severity = 'error'}), 0, 'check reads masked values');
my $run = $t->run('m');
is($run->{state}, 'completed', 'masked rows are loaded');
is($t->counts('staging.customers') . ' ' . $t->counts('staging.people'), '40/0/40/0/0 20/0/20/0/0', 'all of them');
my @accounts = @{ $t->sim->export('accounts') };
my @contacts = @{ $t->sim->export('contacts') };
my $leaked = join ' ', grep { /contoso|bookkeeping|customernumber/i } map { my $r = $_; map { $r->{$_} // '' } qw(name telephone1 emailaddress1 accountnumber lastname) } @accounts, @contacts;
is($leaked, '', 'nothing sensitive has reached the sandbox');
is(scalar(grep { $_->{emailaddress1} !~ /^[a-z]{11}\d+\@[a-z]+\.invalid$/ || length $_->{emailaddress1} != length('bookkeeping1@contoso.com') + ($_->{emailaddress1} =~ /[a-z]\d\d\@/ ? 1 : 0) } @accounts), 0,
	'masks have the format of what they mask');
my %names = map { $_->{name} => 1 } @accounts;
my %families = map { $_->{lastname} => 1 } @contacts;
is(join('|', sort keys %names), join('|', sort keys %families), 'the same value has the same mask in every table');
is(scalar(keys %names), 5, 'and other values other ones');
is(scalar(grep { ($_->{industrycode} // 0) == 1 } @accounts), 0, 'choices are masked');
# lookups, owners and ids come from the real values
$t->account('m',
	'staging.customers' => { _parentaccountid_value => '(SELECT p.dataverse_id FROM staging.customers p WHERE p.nr = s.boss_code)' },
	'staging.people' => { _parentcustomerid_value => '(SELECT p.dataverse_id FROM staging.customers p WHERE p.nr = s.company)',
		_ownerid_value => q{(SELECT r.record_id FROM dvmig.reference r WHERE r.match_key = s.owner)} });

$t->sql(q{UPDATE staging.customers SET processing_flag = 'U'});
$run = $t->run('m', 'resend => true');
is($run->{unchanged}, 40, 'a mask does not change: nothing is sent again');

# ------------------------------------------------------------------- who may ask

$t->sql(q{CREATE ROLE other LOGIN; SELECT dvmig.grant_owner('other')});
like($t->error(q{SELECT * FROM dvmig.preview('staging.customers', 1); SET ROLE other; SELECT dvmig.mask_name('Contoso 1')}), qr/no mask key is in effect/,
	'the key of a migration serves nobody but its owner');
like($t->error(q{SET ROLE other; TABLE dvmig._mask_secret}), qr/permission denied/, 'and is shown to nobody');

# ------------------------------------------- what is sent beside columns of a row

# Addresses of parties, files with their names, and what a close leaves.
$t->sql(q{
	CREATE TABLE staging.mails (id int PRIMARY KEY, subject text, guest text);
	INSERT INTO staging.mails VALUES (1, 'One', 'genuine@contoso.com');
	CREATE TABLE staging.papers (id int PRIMARY KEY, name text, scan bytea, title text);
	INSERT INTO staging.papers VALUES (1, 'One', 'Genuine scan', 'Genuine.pdf');
	CREATE TABLE staging.deals (id int PRIMARY KEY, name text, reason text);
	INSERT INTO staging.deals VALUES (1, 'One', 'Genuine reason');
	SELECT dvmig.refresh_metadata('sim', '{email,new_invoice,opportunity}');
	SELECT dvmig.create_migration('beside', 'sim');
	SELECT dvmig.add_table('beside', 'staging.mails', 'email', auto_map => false), dvmig.map_column('staging.mails', 'subject', 'subject'),
		dvmig.map_party('staging.mails', 'to', 'guest');
	SELECT dvmig.add_table('beside', 'staging.papers', 'new_invoice', auto_map => false), dvmig.map_column('staging.papers', 'new_invoicenumber', 'name'),
		dvmig.map_file('staging.papers', 'new_document', 'scan', 'title');
	SELECT dvmig.add_table('beside', 'staging.deals', 'opportunity', auto_map => false), dvmig.map_column('staging.deals', 'name', 'name'),
		dvmig.map_column('staging.deals', 'statuscode', '3'), dvmig.map_close('staging.deals', 'subject', 'reason')});
my %beside = ('staging.mails' => '@party:to', 'staging.papers' => 'new_document', 'staging.deals' => '@close:subject');
for my $table (sort keys %beside)
{
	$t->sql("SELECT dvmig.set_column('$table', '$beside{$table}', 'sensitive', 'true')");
	unlike($t->sql("SELECT string_agg(request, ' ') FROM dvmig.preview('$table', 5)"), qr/genuine/i, "$beside{$table} of $table is not shown once it is sensitive");
}
like($t->error(q{SELECT dvmig.start('beside')}), qr/sensitive columns have no mask/, 'and no run starts without a mask');
like($t->error(q{SELECT dvmig.set_column('staging.papers', 'new_document', 'mask', $$'paper'$$)}), qr/the mask for "new_document" is of type text, not bytea/, 'the mask of a file is a file');
like($t->error(q{SELECT dvmig.set_column('staging.deals', 'statuscode', 'sensitive', 'true')}), qr/is the state of a record and cannot be sensitive/, 'a state is not masked');
$t->sql(q{SELECT dvmig.set_column('staging.mails', '@party:to', 'mask', 'dvmig.mask_mail(guest)');
	SELECT dvmig.set_column('staging.papers', 'new_document', 'mask', $$convert_to('paper', 'UTF8')$$);
	SELECT dvmig.set_column('staging.deals', '@close:subject', 'mask', 'dvmig.mask_text(reason)')});
like($t->sql(q{SELECT string_agg(request, ' ') FROM dvmig.preview('staging.mails', 5)}), qr/\.invalid/, 'the mask of a party');
for my $passes ('NULL', q{'{states}'})
{
	is($t->run('beside', "passes => $passes")->{state}, 'completed', "masked rows are loaded ($passes)");
}
my ($paper) = @{ $t->sim->export('new_invoices') };
my ($status, $bytes) = $t->sim->curl('GET', "/api/data/v9.2/new_invoices($paper->{new_invoiceid})/new_document/\$value", undef,
	'Authorization: Bearer ' . $t->sim->token, 'OData-Version: 4.0', 'OData-MaxVersion: 4.0');
is("$status $bytes", '200 paper', 'the file is the mask');
is($paper->{new_document_name} // 'file', 'file', 'without its name');
is(scalar(grep { JSON::PP->new->allow_nonref->encode($_) =~ /genuine/i } map { @{ $t->sim->export($_) } } qw(emails new_invoices opportunitycloses)), 0,
	'nothing sensitive has reached the sandbox beside columns');

# --------------------------------------------------------------------- production

$t->sql(q{
	CREATE TABLE staging.real (id int PRIMARY KEY, family text);
	INSERT INTO staging.real VALUES (1, 'Genuine');
	ALTER SERVER sim OPTIONS (SET environment 'production');
	SELECT dvmig.create_migration('p', 'sim');
	SELECT dvmig.add_table('p', 'staging.real', 'contact');
	SELECT dvmig.map_column('staging.real', 'lastname', 'family', sensitive => true)});
like($t->sql(q{SELECT request FROM dvmig.preview('staging.real', 1)}), qr/Genuine/, 'production gets the value itself, with or without a mask');
is($t->sql(q{SELECT count(*) FROM dvmig.check('p') WHERE rule = 'sensitive_without_mask'}), 0, 'and check has nothing against it');
$t->sql(q{SELECT dvmig.set_column('staging.real', 'lastname', 'mask', 'dvmig.mask_name(family)')});
like($t->sql(q{SELECT request FROM dvmig.preview('staging.real', 1)}), qr/Genuine/, 'also where there is a mask');
$t->sql(q{ALTER SERVER sim OPTIONS (SET environment 'production-copy')});
unlike($t->sql(q{SELECT request FROM dvmig.preview('staging.real', 1)}), qr/Genuine/, 'no other word is production');

done_testing();

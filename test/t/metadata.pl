# What is kept of Dataverse's tables, and that no run starts while a mapped
# column is not what it was
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use DvMig;

my $t = DvMig->new(name => 'metadata');
my $sim = $t->sim;
my ($true, $false) = (JSON::PP::true, JSON::PP::false);
$t->{quiet} = 1;

$t->sql(q{
	CREATE TABLE firms (id int PRIMARY KEY, name text, branch text, staff int, country text);
	INSERT INTO firms SELECT i, 'Firm ' || i, 'Accounting', i, 'XY' FROM generate_series(1, 40) i;
	CREATE TABLE bills (id int PRIMARY KEY, number text, firm int, kind int);
	INSERT INTO bills SELECT i, 'B' || i, i, 100000000 FROM generate_series(1, 40) i});
$t->migration('m', tables => 'account,contact,lead,new_invoice');

# ------------------------------------------------------------- what is kept

sub kept { return $t->sql($_[0]); }

is(kept(q{SELECT auto_number FROM dvmig.metadata_column WHERE table_name = 'new_invoice' AND column_name = 'new_internalnumber'}), '{SEQNUM:5}', 'autonumber');
is(kept(q{SELECT calculation, valid_for_create, valid_for_update FROM dvmig.metadata_column WHERE table_name = 'new_invoice' AND column_name = 'new_open'}),
	'calculated|f|f', 'a calculated column');
is(kept(q{SELECT max_size_kb FROM dvmig.metadata_column WHERE table_name = 'new_invoice' AND column_name IN ('new_scan', 'new_document') ORDER BY column_name}),
	"32768\n10240", 'limits of files and images');
is(kept(q{SELECT child_column, cascade_delete FROM dvmig.metadata_child WHERE table_name = 'new_invoice' AND child_table = 'new_invoiceline'}),
	'new_invoiceid|Cascade', 'what points at a table, and what a delete does');
like($t->error(q{CREATE TABLE c (id int PRIMARY KEY, x numeric);
	SELECT dvmig.add_table('m', 'c', 'new_invoice'); SELECT dvmig.map_column('c', 'new_open', 'x')}), qr/read-only/, 'a calculated column is not mapped');
kept(q{SELECT dvmig.drop_table('c', drop_outcomes => true)});

# No more is asked at a time than the service advises.
my %switches = map { $_ => $sim->sim('GET', 'set')->{$_} } qw(servers limit_concurrent dop_hint latency);
my $refused = $sim->stats->{throttled}{concurrency};
$sim->set(servers => 1, limit_concurrent => 2, dop_hint => 2, latency => 30);
is(kept(q{SELECT count(*) FROM dvmig.refresh_metadata('sim', '{account,contact,lead}')}), 3, 'tables are read');
is($sim->stats->{throttled}{concurrency}, $refused, 'two requests at a time where two are advised');
$sim->set(%switches);

# An API that does not tell the finer things is enough.
$sim->fault({ match => { path_contains => $_, count => 0 }, do => 'status', status => 400, code => '0x80060888', message => 'Could not find a property' })
  for 'SourceType', 'OneToMany', 'AutoNumberFormat', 'ImageAttribute';
like(kept(q{SELECT table_name || coalesce(': ' || differences, '') FROM dvmig.refresh_metadata('sim', '{contact}')}), qr/^contact: .*- child /s,
	'what an API does not tell is not known, and nothing worse');
$sim->sim('DELETE', 'fault');
kept(q{SELECT * FROM dvmig.refresh_metadata('sim')});
is(kept(q{SELECT count(*) FROM dvmig.refresh_metadata('sim') WHERE differences IS NOT NULL}), 0, 'read again: nothing has changed');

# A definition by its name may come as the only member of a list.
$sim->set(definition => 'listed');
is(kept(q{SELECT count(*) || ' ' || count(differences) FROM dvmig.refresh_metadata('sim', '{account,contact,new_invoice}')}), '3 0', 'as a member of a list, it says the same');
$sim->set(definition => 'alone');

# ------------------------------------------------------------- what changed

$t->sql(q{
	SELECT dvmig.add_table('m', 'firms', 'account', auto_map => false), dvmig.add_table('m', 'bills', 'new_invoice', auto_map => false);
	SELECT dvmig.map_column('firms', 'name', 'name'), dvmig.map_choice('firms', 'industrycode', 'branch'), dvmig.map_column('firms', 'numberofemployees', 'staff'),
		dvmig.map_column('firms', 'address1_country', 'country');
	SELECT dvmig.map_column('bills', 'new_invoicenumber', 'number'), dvmig.map_lookup('bills', 'new_customerid', 'firm', 'firms'), dvmig.map_column('bills', 'new_kind', 'kind')});
is($t->run('m', 'max_rows => 1')->{state}, 'completed', 'unchanged, it runs');

# stopped(what, message, [table, column, changes], [changes back])
sub stopped
{
	my ($what, $message, $column, @back) = @_;
	my $before = $t->counts('firms') . ' ' . $t->counts('bills');
	my $sent = $sim->stats;

	$sim->column(@$column);
	my $run = $t->run('m');
	is($run->{state}, 'failed', "$what: the run does not go");
	like($run->{message} // '', $message, "$what: and says why");
	like($run->{message} // '', qr/refresh_metadata\('sim', '\{.*\}'\).*dvmig\.check\('m'\)/, "$what: and what to do");
	like($t->{last_output}, qr/ERROR.*has changed/s, "$what: CALL dvmig.run raises it");
	is($t->counts('firms') . ' ' . $t->counts('bills'), $before, "$what: no flag changed");
	is($sim->stats->{rows_created}, $sent->{rows_created}, "$what: nothing was sent");
	like($t->sql(q{SELECT differences FROM dvmig.refresh_metadata('sim')}), qr/\S/, "$what: a refresh shows it");
	$sim->column(@{$column}[ 0, 1 ], @back) if @back;
	return;
}

stopped('a shorter text', qr/account\.name was String \(160\) ApplicationRequired and is now String \(100\) ApplicationRequired;/,
	[ 'account', 'name', max_length => 100 ]);
is($t->run('m', 'max_rows => 1')->{state}, 'completed', 'after the refresh it is known, and the run goes');
stopped('a narrower range', qr/account\.numberofemployees was Integer 0\.\.1000000000 and is now Integer 0\.\.500;/, [ 'account', 'numberofemployees', max => 500 ]);
stopped('a choice renamed that is looked up by label', qr/account\.industrycode=1 was Accounting and is now Bookkeeping;/, [ 'account', 'industrycode', option => 1, label => 'Bookkeeping' ],
	option => 1, label => 'Accounting');
$t->sql(q{SELECT * FROM dvmig.refresh_metadata('sim')});
stopped('a choice taken out', qr/new_invoice\.new_kind=100000002 \(a choice\) is gone;/, [ 'new_invoice', 'new_kind', option => 100000002 ], option => 100000002, label => 'Pro Forma');
$t->sql(q{SELECT * FROM dvmig.refresh_metadata('sim')});
$sim->column('new_invoice', 'new_kind', option => 100000000, label => 'Bill');
$sim->column('account', 'websiteurl', max_length => 10);
is($t->run('m', 'max_rows => 1')->{state}, 'completed', 'labels that nothing looks up and columns that are not mapped may change');

# What the maps no longer fit is refused at once, after the refresh.
stopped('a column that is gone', qr/account\.address1_country \(String .*?\) is gone;/, [ 'account', 'address1_country', gone => $true ]);
like($t->error(q{SELECT dvmig.start('m')}), qr/55000.*column "address1_country" of Dataverse table "account" has changed since it was mapped: it does not exist any more.*dvmig\.unmap\('public\.firms', 'address1_country'\)/s,
	'a run is refused, and the map to take out is named');
is($t->sql(q{SELECT count(*) FROM dvmig.run_history WHERE state = 'starting'}), 0, 'it has not begun');
$sim->column('account', 'address1_country', gone => $false);
$t->sql(q{SELECT * FROM dvmig.refresh_metadata('sim')});
stopped('a column that is read-only', qr/account\.name was .* not for create not for update;/, [ 'account', 'name', readonly => $true ], readonly => $false);
like($t->error(q{SELECT dvmig.start('m')}), qr/it cannot be written any more/, 'and refused after the refresh');
$t->sql(q{SELECT * FROM dvmig.refresh_metadata('sim')});

is($t->run('m')->{state}, 'completed', 'all of it loads in the end');
$t->account('m', firms => { name => 's.name' }, bills => { new_invoicenumber => 's.number' });

is($t->sql(q{SELECT count(*) > 3 FROM dvmig.event WHERE kind = 'metadata' AND detail ->> 'differences' LIKE '%->%'}), 't', 'what changed is on record');
is($t->sql(q{SELECT dvmig.unmap('firms', 'numberofemployees'); SELECT detail ->> 'before' FROM dvmig.event ORDER BY event_id DESC LIMIT 1}) =~ s/.*\n//r, 'staff',
	'and what was mapped before');

# ------------------------------------------------------------- privileges

sub lacking { return $t->sql(q{SELECT string_agg(staging || ': ' || message, E'\n' ORDER BY staging) FROM dvmig.check('m') WHERE rule = 'privilege'}); }
is(lacking(), '', 'the application user may do what is needed');
$sim->set(deny_privilege => 'prvCreateAccount');
is(lacking(), '', 'what it may do is not asked by the check');
$t->sql(q{SELECT * FROM dvmig.refresh_metadata('sim', '{account}')});
is(lacking(), 'public.firms: the application user lacks privileges: prvcreateaccount (to create records)', 'but known from a refresh');
$sim->set(deny_privilege => 'prvAppendToAccount', created_on_privilege => 'off');
$t->sql(q{SELECT dvmig.map_column('bills', 'overriddencreatedon', 'now()'); SELECT * FROM dvmig.refresh_metadata('sim', '{account}')});
is(lacking(), 'public.bills: the application user lacks privileges: prvappendtoaccount (to be pointed at by lookups), prvoverridecreatedoncreatedby (to fill overriddencreatedon)',
	'also those for columns and lookups');
$sim->set(bypass_privilege => 'off');
$t->sql(q{SELECT dvmig.set_table('firms', 'bypass_custom_logic', 'sync'); SELECT * FROM dvmig.refresh_metadata('sim', '{account}')});
like(lacking(), qr/public.firms: .*prvbypasscustombusinesslogic \(to pass over custom logic\)/, 'and that custom logic may not be passed over');
$t->sql(q{SELECT dvmig.set_table('firms', 'bypass_custom_logic', NULL)});
$sim->fault({ match => { path_contains => 'RetrieveUserPrivileges', count => 0 }, do => 'status', status => 403, code => '0x80040220', message => 'no' });
$t->sql(q{SELECT * FROM dvmig.refresh_metadata('sim', '{account}')});
is(lacking() =~ /lacks/, 1, 'what is not told is as it was');
$t->sql('DELETE FROM dvmig.metadata_privilege');
is(lacking(), '', 'and where nothing is known nothing is said');

# ------------------------------------------------- a required lookup in a circle

$t->sql(q{
	CREATE TABLE staff (id int PRIMARY KEY, firm int); INSERT INTO staff VALUES (1, 1);
	SELECT dvmig.add_table('m', 'staff', 'contact', auto_map => false);
	SELECT dvmig.map_column('staff', 'lastname', $$'x'$$), dvmig.map_lookup('staff', 'parentcustomerid', 'firm', 'firms'), dvmig.map_lookup('firms', 'primarycontactid', 'id', 'staff')});
$t->sql(q{UPDATE dvmig.metadata_column SET required_level = 'SystemRequired', valid_for_create = true WHERE column_name IN ('primarycontactid', 'parentcustomerid') AND table_name IN ('account', 'contact');
	INSERT INTO firms (id) VALUES (99)});
like($t->sql(q{SELECT string_agg(DISTINCT severity || ' ' || target_column, ', ') FROM dvmig.check('m') WHERE rule = 'required_deferred'}), qr/^error (primarycontactid|parentcustomerid)$/,
	'lookups that Dataverse requires and that go in a circle: one would come too late');

$t->sim->stop;
$t->node->stop;
done_testing();

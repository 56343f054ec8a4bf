# Quotes and orders: activated, won, lost, fulfilled and cancelled by their actions,
# each once, whatever breaks between
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;
use DvMig::Held;

# Each status with the state it belongs to, as Dataverse numbers them.
my %quote = (Won => '2,4', Lost => '3,5', Canceled => '3,6', Open => '1,3', draft => '0,1');
my %order = (Complete => '3,100001', Partial => '3,100002', 'No Money' => '2,4', 'In Progress' => '1,3', Invoiced => '4,100003', new => '0,1');

sub build
{
	my ($t) = @_;

	$t->sql(q{
		ALTER DATABASE postgres SET dvmig.settle_time = '300ms';
		CREATE SCHEMA staging;
		CREATE TABLE staging.customers (id int PRIMARY KEY, name text);
		INSERT INTO staging.customers VALUES (1, 'One');
		CREATE TABLE staging.quotes (id int PRIMARY KEY, name text, outcome text, why text);
		INSERT INTO staging.quotes SELECT n, 'Quote ' || n, (ARRAY['Won', 'Lost', 'Canceled', 'Open', NULL])[1 + n % 5], 'reason ' || n FROM generate_series(1, 100) n;
		CREATE TABLE staging.orders (id int PRIMARY KEY, name text, outcome text, day timestamptz);
		INSERT INTO staging.orders SELECT n, 'Order ' || n, (ARRAY['Complete', 'Partial', 'No Money', 'In Progress', 'Invoiced', NULL])[1 + n % 6], '2024-03-01 12:00Z'
			FROM generate_series(1, 120) n});
	$t->sql(q{
		CREATE TABLE staging.leads (id int PRIMARY KEY, name text, outcome text);
		INSERT INTO staging.leads SELECT n, 'Lead ' || n, (ARRAY['Qualified', 'Lost', 'No Longer Interested', 'Contacted', NULL])[1 + n % 5] FROM generate_series(1, 25) n});
	$t->migration('m', tables => 'account,quote,salesorder,lead');
	$t->sql(q{
		SELECT dvmig.add_table('m', 'staging.leads', 'lead', target_key => 'new_legacyid', auto_map => false);
		SELECT dvmig.map_column('staging.leads', 'lastname', 'name'), dvmig.map_choice('staging.leads', 'statuscode', 'outcome')});
	$t->sql(q{
		SELECT dvmig.add_table('m', 'staging.customers', 'account');
		SELECT dvmig.add_table('m', 'staging.quotes', 'quote', target_key => 'new_legacyid', auto_map => false);
		SELECT dvmig.map_column('staging.quotes', 'name', 'name'), dvmig.map_lookup('staging.quotes', 'customerid', '1', 'staging.customers'),
			dvmig.map_choice('staging.quotes', 'statuscode', 'outcome'), dvmig.map_close('staging.quotes', 'subject', 'why'), dvmig.map_close('staging.quotes', 'revision', 'id');
		SELECT dvmig.add_table('m', 'staging.orders', 'salesorder', target_key => 'new_legacyid', auto_map => false);
		SELECT dvmig.map_column('staging.orders', 'name', 'name'), dvmig.map_lookup('staging.orders', 'customerid', '1', 'staging.customers'),
			dvmig.map_choice('staging.orders', 'statuscode', 'outcome'), dvmig.map_close('staging.orders', 'actualend', 'day')});
	return;
}

# states(set, id column): what state each record is in, by its old number
sub states
{
	my ($t, $set) = @_;
	return join ' ', sort map { "$_->{new_legacyid}:$_->{statecode},$_->{statuscode}" } @{ $t->sim->export($set) };
}

sub wanted
{
	my ($t, $table, $none, %states) = @_;
	return join ' ', sort map { "$_->{id}:" . $states{ $_->{outcome} // $none } } @{ $t->rows("SELECT id, outcome FROM staging.$table") };
}

# closes(set, lookup): how often each record was closed
sub closes
{
	my ($t, $set, $lookup) = @_;
	my %n;
	$n{ $_->{"_${lookup}_value"} }++ for @{ $t->sim->export($set) };
	return join ' ', scalar(keys %n), grep { $_ > 1 } values %n;
}

sub flags
{
	my ($t, $table) = @_;
	return $t->sql("SELECT string_agg(f || n, ' ' ORDER BY f) FROM (SELECT processing_flag AS f, count(*) AS n FROM staging.$table GROUP BY 1) q");
}

for my $profile (qw(strict odd))
{
	my $t = DvMig->new(profile => $profile, name => "closing_$profile");

	build($t);
	is($t->sql(q{SELECT count(*) FROM dvmig.check('m') WHERE severity = 'error'}), 0, "$profile: nothing to find");
	is($t->run('m')->{state}, 'completed', "$profile: quotes and orders are created");
	is(flags($t, 'quotes') . ' ' . flags($t, 'orders'), 'P20 S80 P20 S100', "$profile: and owe their state");
	is(flags($t, 'leads'), 'P25', "$profile: leads close by their columns, unasked");
	is(states($t, 'leads'), wanted($t, 'leads', 'none', Qualified => '1,3', Lost => '2,4', 'No Longer Interested' => '2,6', Contacted => '0,2', none => '0,1'), "$profile: and are in their states");
	is($t->status('staging.quotes')->{owed} + $t->status('staging.orders')->{owed}, 180, "$profile: as the status tells");
	is(states($t, 'quotes'), join(' ', sort map { "$_:0,1" } 1 .. 100), "$profile: until then they are drafts");

	# the connection breaks behind and before the commit of each action
	for my $action (qw(WinQuote CloseQuote FulfillSalesOrder CancelSalesOrder))
	{
		$t->sim->fault({ match => { method => 'POST', body_contains => "/$action" }, nth => 1, count => 1, do => 'reset_after' });
		$t->sim->fault({ match => { method => 'POST', body_contains => "/$action" }, nth => 2, count => 1, do => 'reset_before' });
	}
	my $run = $t->finish($t->start('m', q{passes => '{states}'}));
	is($run->{state}, 'completed', "$profile: closed when asked for");
	is(flags($t, 'quotes') . ' ' . flags($t, 'orders'), 'P100 P120', "$profile: nothing is owed any more");
	is(states($t, 'quotes'), wanted($t, 'quotes', 'draft', %quote), "$profile: every quote is in its state");
	is(states($t, 'salesorders'), wanted($t, 'orders', 'new', %order), "$profile: and every order");
	is(closes($t, 'quotecloses', 'quoteid'), '60', "$profile: each quote was closed once");
	is(closes($t, 'ordercloses', 'salesorderid'), '60', "$profile: each order was closed once");
	is(join(' ', sort map { "$_->{subject}/$_->{revision}" } @{ $t->sim->export('quotecloses') }),
		$t->sql(q{SELECT string_agg(why || '/' || id, ' ' ORDER BY (why || '/' || id) COLLATE "C") FROM staging.quotes WHERE outcome IN ('Won', 'Lost', 'Canceled')}),
		"$profile: with what was mapped for the close");
	is(scalar(grep { $_->{subject} eq 'Closed by data migration' && $_->{actualend} eq '2024-03-01T12:00:00Z' } @{ $t->sim->export('ordercloses') }), 60, "$profile: or a subject of its own");
	$t->account('m', 'staging.quotes' => { name => 's.name' }, 'staging.orders' => { name => 's.name' });

	my $n = $t->sql("SELECT count(*) FROM staging.quotes_success WHERE run = $run->{run} AND pass = 'states'");
	$t->sql("SELECT * FROM dvmig.undo($run->{run}, dry_run => true)");
	is($t->sql(q{SELECT note FROM dvmig._undo_table WHERE staging = 'staging.quotes' ORDER BY undo DESC LIMIT 1}),
		"$n records of earlier runs keep what later passes of this one gave them: deferred lookups, files, states", "$profile: an undo of that run tells that records stay closed");
	is($t->finish($t->start('m', q{passes => '{states}'}))->{rows_sent}, 0, "$profile: nothing is closed again");

	# --- a change for a closed quote or order
	$t->sql(q{SELECT dvmig.set_table('staging.quotes', 'on_closed', 'reopen'), dvmig.set_table('staging.orders', 'on_closed', 'reopen');
		UPDATE staging.quotes SET name = name || '!', processing_flag = 'U' WHERE id IN (3, 4, 5);
		UPDATE staging.orders SET name = name || '!', processing_flag = 'U' WHERE id IN (5, 6)});
	$t->run('m', 'ignore_gate => true');
	is($t->sql(q{SELECT string_agg(id || code, ' ' ORDER BY id) FROM staging.quotes_error}), '5closed', "$profile: a quote that was won is never opened again, an active one is changed");
	is(flags($t, 'orders'), 'P120', "$profile: an order is reopened");
	is(states($t, 'salesorders'), wanted($t, 'orders', 'new', %order), "$profile: and closed again");
	$t->account('m', 'staging.orders' => { name => 's.name' });
	$t->sim->stop;
	$t->node->stop;
}

# --- the server goes down between an action that Dataverse has carried out and its answer
{
	my $h = DvMig::Held->new(profile => 'strict', name => 'closing_crash');
	my $t = $h->t;

	build($t);
	$t->run('m');
	for my $case ([ quotes => 'WinQuote', 'quotecloses' ], [ orders => 'FulfillSalesOrder', 'ordercloses' ])
	{
		my ($table, $action, $set) = @$case;

		$h->hold(method => 'POST', body_contains => "/$action", after => 1);
		$t->start('m', "passes => '{states}', tables => '{staging.$table}'");
		ok($h->until("Dataverse has carried $action out", sub { @{ $t->sim->export($set) } > 0 }), "crash: $action is carried out and not answered");
		$t->node->stop('immediate');
		$h->release;
		$t->node->start;
		is($t->finish($t->start('m', "passes => '{states}', tables => '{staging.$table}'"))->{state}, 'completed', "crash: the next run goes on after $action");
	}
	is(states($t, 'quotes'), wanted($t, 'quotes', 'draft', %quote), 'crash: every quote is in its state');
	is(states($t, 'salesorders'), wanted($t, 'orders', 'new', %order), 'crash: and every order');
	is(closes($t, 'quotecloses', 'quoteid'), '60', 'crash: each quote was closed once');
	is(closes($t, 'ordercloses', 'salesorderid'), '60', 'crash: each order was closed once');
	$t->account('m', 'staging.quotes' => { name => 's.name' }, 'staging.orders' => { name => 's.name' });
	$t->sim->stop;
	$t->node->stop;
}

done_testing();

# State and status: pairs that fit, states at create, tables that close through an action
use strict;
use warnings;

use Test::More;

use Sim qw(guid);
use Sim::Batch qw(op change_set batch);
use Sim::Check;

my $sim = Sim->start;
my $misfit = qr/not a valid status code for state code|state code is invalid|State code is invalid/i;

# --- plain columns
my $account = $sim->create('accounts', {name => 'a'});
accepted($sim->req('PATCH', "accounts($account)", {statecode => 1, statuscode => 2}), 204, 'a pair');
my $row = $sim->row('accounts', $account);
is("$row->{statecode} $row->{statuscode}", '1 2', 'both are set');
accepted($sim->req('PATCH', "accounts($account)", {statecode => 0}), 204, 'the state alone');
$row = $sim->row('accounts', $account);
is("$row->{statecode} $row->{statuscode}", '0 1', 'brings its default status');
refused($sim->req('PATCH', "accounts($account)", {statecode => 1, statuscode => 1}), 400, '0x80048408', $misfit, 'a pair that does not fit');
refused($sim->req('PATCH', "accounts($account)", {statuscode => 2}), 400, '0x80048408', $misfit, 'a status of another state');
isnt($sim->req('PATCH', "accounts($account)", {statecode => 7})->{status}, 204, 'an unknown state');
isnt($sim->req('PATCH', "accounts($account)", {statuscode => 77})->{status}, 204, 'an unknown status');
isnt($sim->req('PATCH', "accounts($account)", {statecode => undef})->{status}, 204, 'no state at all');
$row = $sim->row('accounts', $account);
is("$row->{statecode} $row->{statuscode}", '0 1', 'refusals change nothing');
my $task = $sim->create('tasks', {subject => 't'});
accepted($sim->req('PATCH', "tasks($task)", {statuscode => 3}), 204, 'a status of the present state');
accepted($sim->req('PATCH', "tasks($task)", {statecode => 1, statuscode => 5}), 204, 'complete a task');
my $lead = $sim->create('leads', {subject => 'l', lastname => 'x'});
accepted($sim->req('PATCH', "leads($lead)", {statecode => 2, statuscode => 4}), 204, 'a lead closes by its columns');
field_is($sim->row('leads', $lead), 'statuscode', 4, 'it is lost');

# --- states at create (strict: as the table says)
refused($sim->req('POST', 'tasks', {subject => 'done', statecode => 1, statuscode => 5}), 400, '0x80048408', $misfit,
	'a task that is complete from the start');
accepted($sim->req('POST', 'tasks', {subject => 'open', statecode => 0, statuscode => 2}), 204, 'the default pair is fine');
my $invoice = $sim->create('new_invoices', {new_invoicenumber => '1', statecode => 1, statuscode => 2});
field_is($sim->row('new_invoices', $invoice), 'statuscode', 2, 'a custom table takes any pair');
refused($sim->req('POST', 'new_invoices', {statecode => 1, statuscode => 1}), 400, '0x80048408', $misfit, 'that fits');
is($sim->count('tasks'), 2, 'refusals leave no row');

# --- opportunities are won and lost by actions
my $customer = {'customerid_account@odata.bind' => "accounts($account)"};
my $deal = $sim->create('opportunities', {name => 'deal', %$customer});
for my $pair ([1, 3], [2, 4])
{
	my $r = $sim->req('PATCH', "opportunities($deal)", {statecode => $pair->[0], statuscode => $pair->[1]});
	like($r->{status}, qr/^4\d\d$/, "a deal is not closed by its columns: @$pair");
	error_shape($r);
}
field_is($sim->row('opportunities', $deal), 'statecode', 0, 'it is still open');
accepted($sim->req('PATCH', "opportunities($deal)", {statuscode => 2}), 204, 'a status of the open state is a column');

sub win { return {Status => $_[1] // 3, OpportunityClose => {subject => 'won', 'opportunityid@odata.bind' => "opportunities($_[0])"}}; }

my $missing = guid();
is($sim->req('POST', 'WinOpportunity', win($missing))->{status}, 404, 'a deal that is not there');
isnt($sim->req('POST', 'WinOpportunity', win($deal, 4))->{status}, 204, 'a status of another state');
isnt($sim->req('POST', 'WinOpportunity', {})->{status}, 204, 'an action without its parameters');
accepted($sim->req('POST', 'WinOpportunity', win($deal)), 204, 'win');
$row = $sim->row('opportunities', $deal);
is("$row->{statecode} $row->{statuscode}", '1 3', 'it is won');
is($sim->count('opportunitycloses'), 1, 'with an activity that says so');
my $again = $sim->req('POST', 'WinOpportunity', win($deal));
like($again->{status}, qr/^4\d\d$/, 'a second time is refused');
error_shape($again);
is($sim->count('opportunitycloses'), 1, 'and makes no second activity');
my $lost = $sim->create('opportunities', {name => 'lost', %$customer});
accepted($sim->req('POST', 'LoseOpportunity', {Status => 4, OpportunityClose => {subject => 'lost',
	'opportunityid@odata.bind' => "opportunities($lost)"}}), 204, 'lose');
field_is($sim->row('opportunities', $lost), 'statecode', 2, 'it is lost');

# --- cases
my $case = $sim->create('incidents', {title => 'case', %$customer});
like($sim->req('PATCH', "incidents($case)", {statecode => 1, statuscode => 5})->{status}, qr/^4\d\d$/, 'a case is not resolved by its columns');
my $close = {Status => 5, IncidentResolution => {subject => 'solved', 'incidentid@odata.bind' => "incidents($case)"}};
accepted($sim->req('POST', 'CloseIncident', $close), 204, 'CloseIncident');
$row = $sim->row('incidents', $case);
is("$row->{statecode} $row->{statuscode}", '1 5', 'it is resolved');
is($sim->count('incidentresolutions'), 1, 'with an activity');
like($sim->req('POST', 'CloseIncident', $close)->{status}, qr/^4\d\d$/, 'a second time is refused');
my $cancelled = $sim->create('incidents', {title => 'cancelled', %$customer});
accepted($sim->req('PATCH', "incidents($cancelled)", {statecode => 2, statuscode => 6}), 204, 'a case is cancelled by its columns');

# --- quotes: a draft is activated before it is won or closed
{
	my $close = sub {return {Status => $_[1], QuoteClose => {subject => 'done', 'quoteid@odata.bind' => "quotes($_[0])"}};};
	my ($won, $lost) = map {$sim->create('quotes', {name => $_, %$customer})} qw(won lost);
	like($sim->req('PATCH', "quotes($won)", {statecode => 2, statuscode => 4})->{status}, qr/^4\d\d$/, 'a quote is not won by its columns');
	like($sim->req('PATCH', "quotes($won)", {statecode => 3, statuscode => 5})->{status}, qr/^4\d\d$/, 'nor closed');
	like($sim->req('POST', 'WinQuote', $close->($won, 4))->{status}, qr/^4\d\d$/, 'a draft is not won');
	like($sim->req('POST', 'CloseQuote', $close->($won, 5))->{status}, qr/^4\d\d$/, 'nor closed');
	is($sim->count('quotecloses'), 0, 'refusals leave no activity');
	accepted($sim->req('PATCH', "quotes($_)", {statecode => 1, statuscode => 3}), 204, 'it is activated by its columns') for $won, $lost;
	like($sim->req('POST', 'WinQuote', $close->($won, 5))->{status}, qr/^4\d\d$/, 'a status of another state');
	accepted($sim->req('POST', 'WinQuote', $close->($won, 4)), 204, 'WinQuote');
	accepted($sim->req('POST', 'CloseQuote', $close->($lost, -1)), 204, 'CloseQuote');
	my @rows = map {$sim->row('quotes', $_)} $won, $lost;
	is(join(' ', map {"$_->{statecode},$_->{statuscode}"} @rows), '2,4 3,5', 'they are won and lost');
	like($sim->req('POST', 'WinQuote', $close->($won, 4))->{status}, qr/^4\d\d$/, 'a second time is refused');
	is($sim->count('quotecloses'), 2, 'each has one activity');
}

# --- orders: fulfilled or cancelled, submitted or not
{
	my $close = sub {return {Status => $_[1], OrderClose => {subject => 'done', 'salesorderid@odata.bind' => "salesorders($_[0])"}};};
	my ($full, $none) = map {$sim->create('salesorders', {name => $_, %$customer})} qw(full none);
	like($sim->req('PATCH', "salesorders($full)", {statecode => $_})->{status}, qr/^4\d\d$/, "an order does not come to state $_ by its columns") for 2, 3;
	accepted($sim->req('PATCH', "salesorders($full)", {statecode => 1, statuscode => 3}), 204, 'it is submitted by them');
	accepted($sim->req('POST', 'FulfillSalesOrder', $close->($full, 100001)), 204, 'FulfillSalesOrder');
	accepted($sim->req('POST', 'CancelSalesOrder', $close->($none, 4)), 204, 'CancelSalesOrder');
	my @rows = map {$sim->row('salesorders', $_)} $full, $none;
	is(join(' ', map {"$_->{statecode},$_->{statuscode}"} @rows), '3,100001 2,4', 'they are fulfilled and cancelled');
	like($sim->req('POST', 'CancelSalesOrder', $close->($full, 4))->{status}, qr/^4\d\d$/, 'what is closed is not closed again');
	is($sim->count('ordercloses'), 2, 'each has one activity');
}

# --- actions in batches
{
	my @deals = map {$sim->create('opportunities', {name => "b$_", %$customer})} 1 .. 3;
	my $r = batch($sim, [op('POST', 'WinOpportunity', win($deals[0])), op('POST', 'WinOpportunity', win($deal)),
		op('POST', 'WinOpportunity', win($deals[1]))], continue => 1);
	is_deeply([map {substr $_->{status}, 0, 1} @{$r->{parts}}], [2, 4, 2], 'each has its verdict');
	$r = batch($sim, [change_set(op('POST', 'WinOpportunity', win($deals[2]), {}, 1), op('POST', 'accounts', {nosuch => 1}, {}, 2))]);
	field_is($sim->row('opportunities', $deals[2]), 'statecode', 0, 'a change set takes an action back');
}

done_testing;

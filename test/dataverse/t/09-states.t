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

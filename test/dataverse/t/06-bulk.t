# CreateMultiple, UpdateMultiple, UpsertMultiple: all or nothing, what each target must bear, who offers them
use strict;
use warnings;

use Test::More;

use Sim qw(guid);
use Sim::Check;

my $sim = Sim->start;
my $type = 'Microsoft.Dynamics.CRM.account';
my $guid = qr/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

sub bulk
{
	my ($message, $set, $targets, $headers) = @_;
	return $sim->req('POST', "$set/Microsoft.Dynamics.CRM.$message", {Targets => $targets}, $headers);
}

sub account { return {'@odata.type' => $type, @_}; }

# --- CreateMultiple
my @ids = map {guid()} 1 .. 3;
my $r = bulk('CreateMultiple', 'accounts', [map {account(accountid => $_, name => "n $_")} @ids]);
accepted($r, 200, 'CreateMultiple');
is_deeply($r->json->{Ids}, \@ids, 'ids in the order of the targets');
like($r->json->{'@odata.context'}, qr/\$metadata#Microsoft\.Dynamics\.CRM\.CreateMultipleResponse$/, 'context');
field_is($sim->row('accounts', $ids[1]), 'name', "n $ids[1]", 'a row');
$r = bulk('CreateMultiple', 'accounts', [account(name => 'p1'), account(name => 'p2')]);
accepted($r, 200, 'CreateMultiple without ids');
like($_, $guid, 'the platform makes them') for @{$r->json->{Ids}};
$r = bulk('CreateMultiple', 'accounts', [map {account(name => "many $_")} 1 .. 1000]);
accepted($r, 200, 'a thousand targets');
is(scalar @{$r->json->{Ids}}, 1000, 'a thousand ids');
$r = bulk('CreateMultiple', 'accounts', [account(name => 'child', 'parentaccountid@odata.bind' => "accounts($ids[0])")]);
field_is($sim->row('accounts', $r->json->{Ids}[0]), '_parentaccountid_value', $ids[0], 'lookups');

# all or nothing, without saying which
my $before = $sim->count('accounts');
for my $bad ([account(nosuch => 1), 400, '0x0'], [account(name => 'x' x 161), 400, '0x80044331'],
	[account(accountid => $ids[0], name => 'dup'), 412, '0x80040237'], [account(industrycode => 99), 400, '0x8004431A'],
	[account('parentaccountid@odata.bind' => 'accounts(' . guid() . ')'), 404, '0x80040217'],
	[{name => 'no type'}, 400, '0x80048d19'], [{'@odata.type' => 'Microsoft.Dynamics.CRM.contact', lastname => 'x'}, 400, '0x80048d19'],
	[{'@odata.type' => 'account', name => 'x'}, 400, '0x80048d19'])
{
	my ($target, $status, $code) = @$bad;
	my $answer = bulk('CreateMultiple', 'accounts', [account(name => 'good 1'), $target, account(name => 'good 2')]);
	refused($answer, $status, $code, qr/./, "one bad target: $code");
	unlike($answer->{body}, qr/"?(?:index|RequestIndex)"?/i, 'the answer does not say which');
	is($sim->count('accounts'), $before, 'no row of it');
}
{
	my $id = guid();
	refused(bulk('CreateMultiple', 'accounts', [account(accountid => $id, name => 'a'), account(accountid => $id, name => 'b')]),
		412, '0x80040237', qr/duplicate/i, 'one id twice in a request');
	refused(bulk('CreateMultiple', 'accounts', [account(new_legacyid => 'K', name => 'a'), account(new_legacyid => 'k', name => 'b')]),
		412, '0x80060892', qr/violated/, 'one key value twice in a request');
	my $parent = guid();
	isnt(bulk('CreateMultiple', 'accounts', [account(accountid => $parent, name => 'p'),
		account(name => 'c', 'parentaccountid@odata.bind' => "accounts($parent)")])->{status}, 200, 'a parent in the same request');
	is($sim->count('accounts'), $before, 'no row of any of these');
}
for my $body ('{}', '{"Targets":null}', '{"Targets":{}}', '{"Targets":[1]}', '{"Target":[]}', '{"Targets":[]', '[]')
{
	my $answer = $sim->req('POST', 'accounts/Microsoft.Dynamics.CRM.CreateMultiple', $body);
	is($answer->{status}, 400, "malformed: $body");
	error_shape($answer);
}

# --- UpdateMultiple
$r = bulk('UpdateMultiple', 'accounts', [map {account(accountid => $_, name => "u $_")} @ids]);
accepted($r, 204, 'UpdateMultiple');
is($r->{body}, '', 'no body');
field_is($sim->row('accounts', $_), 'name', "u $_", 'changed') for @ids;
my $missing = guid();
refused(bulk('UpdateMultiple', 'accounts', [account(accountid => $ids[0], name => 'no'), account(accountid => $missing, name => 'no')]),
	404, '0x80040217', qr/\Q$missing\E/i, 'one row is missing');
field_is($sim->row('accounts', $ids[0]), 'name', "u $ids[0]", 'and none is changed');
is($sim->row('accounts', $missing), undef, 'nor made');
accepted(bulk('UpdateMultiple', 'accounts', [account(accountid => $ids[0], name => 'first'), account(accountid => $ids[0], name => 'second')]),
	204, 'one row twice');
field_is($sim->row('accounts', $ids[0]), 'name', 'first', 'the first wins');
isnt(bulk('UpdateMultiple', 'accounts', [account(name => 'whose?')])->{status}, 204, 'a target without its id');
isnt(bulk('UpdateMultiple', 'accounts', [{accountid => $ids[0], name => 'x'}])->{status}, 204, 'a target without its type');
isnt(bulk('UpdateMultiple', 'accounts', [account(accountid => $ids[0], importsequencenumber => 5)])->{status}, 204,
	'a create-only column');

# --- UpsertMultiple
my $new = guid();
$r = bulk('UpsertMultiple', 'accounts', [account(accountid => $ids[1], name => 'up 1'), account(accountid => $new, name => 'up 2'),
	account('@odata.id' => "accounts(new_legacyid='UM-1')", name => 'up 3'), account(name => 'up 4')]);
accepted($r, 204, 'UpsertMultiple');
is($r->{body}, '', 'no body');
field_is($sim->row('accounts', $ids[1]), 'name', 'up 1', 'an update');
field_is($sim->row('accounts', $new), 'name', 'up 2', 'a create by id');
is($sim->count('accounts', "new_legacyid eq 'UM-1' and name eq 'up 3'"), 1, 'a create by key');
is($sim->count('accounts', "name eq 'up 4'"), 1, 'a create with neither');
accepted(bulk('UpsertMultiple', 'accounts', [account('@odata.id' => "accounts(new_legacyid='UM-1')", name => 'up 5')]), 204, 'by key again');
is($sim->count('accounts', "new_legacyid eq 'UM-1' and name eq 'up 5'"), 1, 'changes the row');
refused(bulk('UpsertMultiple', 'accounts', [account('@odata.id' => "accounts(new_legacyid='UM-2')", new_legacyid => 'UM-2', name => 'x')]),
	400, '0x80040216', qr/^An unexpected error occurred\./, 'key columns in the body fail where a row is made');
accepted(bulk('UpsertMultiple', 'accounts', [account('@odata.id' => "accounts(new_legacyid='UM-1')", new_legacyid => 'UM-1', name => 'x')]),
	204, 'and are tolerated where it is changed');
$before = $sim->count('accounts');
for my $twice ([account(accountid => $new, name => 'a'), account(accountid => $new, name => 'b')],
	[map {account('@odata.id' => "accounts(new_legacyid='UM-9')", name => $_)} 'a', 'b'])
{
	my $answer = bulk('UpsertMultiple', 'accounts', $twice);
	isnt($answer->{status}, 204, 'one row twice is refused');
	error_shape($answer);
	is($sim->count('accounts'), $before, 'as a whole');
}

# --- which tables offer them
sub offers
{
	my ($message, $table) = @_;
	my $answer = $sim->req('GET', 'sdkmessagefilters?$select=sdkmessagefilterid&$filter=sdkmessageid/name%20eq%20@message%20and%20'
		. "primaryobjecttypecode%20eq%20\@table&\@message='$message'&\@table='$table'");
	accepted($answer, 200, "ask for $message of $table") or return;
	return scalar @{$answer->json->{value}};
}

is(offers($_->[0], $_->[1]), $_->[2], "$_->[0] of $_->[1]")
	for ['CreateMultiple', 'account', 1], ['UpdateMultiple', 'account', 1], ['CreateMultiple', 'new_invoice', 1],
	['CreateMultiple', 'task', 0], ['UpdateMultiple', 'annotation', 0], ['CreateMultiple', 'nosuch', 0];
{
	my $answer = bulk('CreateMultiple', 'tasks', [{'@odata.type' => 'Microsoft.Dynamics.CRM.task', subject => 'x'}]);
	like($answer->{status}, qr/^40[0-9]$/, 'a message that the table does not offer');
	error_shape($answer);
	is($sim->count('tasks'), 0, 'no row');
	$answer = bulk('DeleteMultiple', 'accounts', [account(accountid => $new)]);
	like($answer->{status}, qr/^[45]\d\d$/, 'DeleteMultiple of a standard table');
	like($answer->json->{error}{message}, qr/^DeleteMultiple has not yet been implemented\./, 'its message');
	ok($sim->row('accounts', $new), 'the row stays');
}

done_testing;

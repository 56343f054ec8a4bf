# What the simulator tells of itself: counters of create and update logic, statistics, export, automation, reset
use strict;
use warnings;

use File::Temp qw(tempdir);
use Test::More;

use Sim qw(guid json_of);
use Sim::Batch qw(op change_set batch);
use Sim::Check;
use Sim::Control qw(control counters export record reset_sim set_switches stats);

my $sim = Sim->start;
my $type = 'Microsoft.Dynamics.CRM.account';
$sim->token;

# --- how often logic ran
my ($a, $b) = (guid(), guid());
$sim->create('accounts', {accountid => $a, name => 'a'});
is(record($sim, 'accounts', $a)->{creates}, 1, 'create logic ran once');
$sim->req('POST', 'accounts', {accountid => $a, name => 'again'});
is(record($sim, 'accounts', $a)->{creates}, 1, 'a refused create does not count');
$sim->req('PATCH', "accounts($a)", {name => "u$_"}) for 1 .. 3;
is(record($sim, 'accounts', $a)->{updates}, 3, 'update logic ran three times');
$sim->req('PATCH', "accounts($a)", {nosuch => 1});
is(record($sim, 'accounts', $a)->{updates}, 3, 'a refused update does not count');
$sim->req('POST', 'accounts/Microsoft.Dynamics.CRM.CreateMultiple', {Targets => [{'@odata.type' => $type, accountid => $b, name => 'b'}, {nosuch => 1}]});
is(record($sim, 'accounts', $b)->{creates}, 0, 'nor does a bulk message that was rolled back');
$sim->req('POST', 'accounts/Microsoft.Dynamics.CRM.CreateMultiple', {Targets => [{'@odata.type' => $type, accountid => $b, name => 'b'}]});
is(record($sim, 'accounts', $b)->{creates}, 1, 'a bulk create counts');
$sim->req('POST', 'accounts/Microsoft.Dynamics.CRM.UpdateMultiple', {Targets => [map {{'@odata.type' => $type, accountid => $b, name => $_}} 'x', 'y']});
is(record($sim, 'accounts', $b)->{updates}, 1, 'of two updates of one row in a request one runs');
batch($sim, [change_set(op('PATCH', "accounts($b)", {name => 'cs'}, {}, 1), op('PATCH', "accounts($b)", {nosuch => 1}, {}, 2))]);
is(record($sim, 'accounts', $b)->{updates}, 1, 'a change set that was rolled back does not count');
$sim->req('DELETE', "accounts($b)");
is(record($sim, 'accounts', $b)->{record}, undef, 'a deleted row');
$sim->create('accounts', {accountid => $b, name => 'anew'});
is(record($sim, 'accounts', $b)->{creates}, 2, 'made again counts again');
my $c = counters($sim, 'accounts');
is("$c->{records} $c->{creates} $c->{updates} $c->{created_twice}", '2 3 4 1', 'sums of a table');
is(record($sim, 'accounts', guid())->{creates}, 0, 'a row that never was');

# --- export
my @rows = @{export($sim, 'accounts')};
is(scalar @rows, 2, 'all rows');
my ($row) = grep {$_->{accountid} eq $a} @rows;
is($row->{name}, 'u3', 'with their columns');
my $whole = $sim->row('accounts', $a);
is_deeply([grep {json_of($row->{$_}) ne json_of($whole->{$_})} grep {!/^\@/} keys %$row], [], 'the same as the API gives');
my $list = $sim->create('new_playlists', {new_name => 'l'});
my $track = $sim->create('new_tracks', {new_name => 't'});
$sim->req('POST', "new_playlists($list)/new_playlist_new_track/\$ref", {'@odata.id' => "new_tracks($track)"});
my $links = control($sim, 'GET', 'links/new_playlist_new_track');
is_deeply($links->{pairs}, [[$list, $track]], 'links');

# --- statistics
reset_sim($sim, 'keep=records');
$sim->create('accounts', {name => "s$_"}) for 1 .. 3;
$sim->req('POST', 'accounts/Microsoft.Dynamics.CRM.CreateMultiple', {Targets => [map {{'@odata.type' => $type, name => "m$_"}} 1 .. 10]});
$sim->req('POST', 'accounts', {nosuch => 1});
$sim->req('PATCH', "accounts($a)", {name => 'x'});
$sim->req('DELETE', "accounts($b)");
batch($sim, [map {op('POST', 'accounts', {name => "b$_"})} 1 .. 4]);
my $s = stats($sim);
is($s->{rows_created}, 17, 'rows made');
is($s->{rows_updated}, 1, 'rows changed');
is($s->{rows_deleted}, 1, 'rows deleted');
is($s->{requests}{create}, 4, 'requests that create, also in vain');
is($s->{requests}{create_multiple}, 1, 'bulk requests');
is($s->{bulk_targets}, 10, 'their targets');
is($s->{requests}{batch}, 1, 'batches');
is($s->{batch_parts}{create}, 4, 'their parts');
is($s->{status}{400}, 1, 'answers by status');
is($s->{in_flight_max}, 1, 'one at a time');

# --- automation
set_switches($sim, automation => 'account.description=touched');
my $id = $sim->create('accounts', {name => 'auto', description => 'sent'});
my $read = $sim->row('accounts', $id);
is($read->{description}, 'touched', 'automation changes a column after the create');
isnt($read->{_modifiedby_value}, Sim::USER, 'as somebody else');
is($read->{_createdby_value}, Sim::USER, 'who did not make it');
field_is($sim->row('contacts', $sim->create('contacts', {lastname => 'c'})), 'description', undef, 'other tables are left alone');
set_switches($sim, automation => '');
{
	my $r = $sim->raw('POST', '/_sim/import', {}, qq({"set":"accounts","id":"$id","as":"@{[Sim::USER2]}","changes":{"name":"by hand"}}));
	is($r->{status}, 204, 'a change by a user');
	$read = $sim->row('accounts', $id);
	is("$read->{name} $read->{_modifiedby_value}", 'by hand ' . Sim::USER2, 'is his');
}

# --- keys change their status
$sim->create('new_regions', {new_name => 'r', new_code => 'N'});
is($sim->req('GET', "new_regions(new_code='N')")->{status}, 400, 'a key that is pending');
control($sim, 'POST', 'key', {table => 'new_region', key => 'new_code_key', status => 'Active'});
is($sim->req('GET', "new_regions(new_code='N')")->{status}, 200, 'becomes active');
is($sim->req('POST', 'new_regions', {new_name => 'r', new_code => 'N'})->{status}, 412, 'and unique');

is($sim->raw('POST', '/_sim/key', {}, '{"table":"account","key":"nosuch","status":"Active"}')->{status}, 404, 'an unknown key');

# --- tokens are revoked
control($sim, 'DELETE', 'tokens');
is($sim->req('GET', 'WhoAmI')->{status}, 401, 'a token that was revoked');
$sim->forget_token;
is($sim->req('GET', 'WhoAmI')->{status}, 200, 'a new one works');

# --- reset
reset_sim($sim);
is($sim->count('accounts'), 0, 'a reset forgets the rows');
is(stats($sim)->{rows_created}, 0, 'and the counters');
is($sim->req('GET', 'WhoAmI')->json->{UserId}, Sim::USER, 'but not who may sign in');
is($sim->req('POST', 'accounts', {accountid => $a, name => 'a'})->{status}, 204, 'ids are free again');

# --- rows from a file, and the sink
my $dir = tempdir(CLEANUP => 1);
open my $out, '>', "$dir/seed" or die $!;
print $out json_of({table => 'account', record => {name => 'seeded'}}) =~ s/^\{"record":(.*),"table":"account"\}$/{"table":"account","record":$1}/r, "\n";
close $out or die $!;
my $seeded = Sim->start(args => ['--seed', "$dir/seed"]);
is($seeded->count('accounts', "name eq 'seeded'"), 1, 'rows to begin with');
my $sink = Sim->start(args => ['--sink']);
my $r = $sink->req('POST', 'accounts/Microsoft.Dynamics.CRM.CreateMultiple', {Targets => [{'@odata.type' => $type, accountid => $a, name => 'x"}]'},
	{'@odata.type' => $type, name => 'no id'}]});
accepted($r, 200, 'the sink answers a bulk create');
is($r->json->{Ids}[0], $a, 'with the ids that were sent');
is(scalar @{$r->json->{Ids}}, 2, 'one for each');
is($sink->count('accounts'), 0, 'and keeps nothing');
is(stats($sink)->{rows_created}, 2, 'but counts');

done_testing;

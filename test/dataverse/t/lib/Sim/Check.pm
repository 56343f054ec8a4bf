# Sim::Check - what the tests assert again and again
package Sim::Check;

use strict;
use warnings;

use Exporter qw(import);
use Test::More;

our @EXPORT = qw(accepted refused error_shape field_is);

my $guid = qr/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/;

# The request was answered with this status.
sub accepted
{
	my ($r, $status, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($r->{status}, $status, $name) || diag(substr $r->{body} // '', 0, 600);
}

# The request was refused: status, code (upper and lower case digits alike),
# message, and the form that every refusal has.
sub refused
{
	my ($r, $status, $code, $message, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return subtest $name => sub
	{
		is($r->{status}, $status, "status $status") or diag substr $r->{body} // '', 0, 600;
		is(lc($r->code // 'none'), lc $code, "code $code");
		like(eval {$r->json->{error}{message}} // '', $message, 'message');
		error_shape($r);
	};
}

# An error object with code and message, as JSON, with a request id.
sub error_shape
{
	my ($r) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $data = eval {$r->json};
	like($r->header('content-type') // '', qr{^application/json}, 'the error is JSON');
	is(ref $data eq 'HASH' ? join(',', sort keys %$data) : 'none', 'error', 'one member: error');
	my @members = ref $data eq 'HASH' && ref $data->{error} eq 'HASH' ? sort keys %{$data->{error}} : ();
	is(join(',', grep {!/^\@/} @members), 'code,message', 'code and message');
	ok(!(grep {ref $data->{error}{$_}} @members), 'all are strings');
	like($r->header('req_id') // '', qr/^$guid$/, 'a request id');
	is($r->header('odata-version'), '4.0', 'OData-Version');
	return;
}

# One field of a row that was read.
sub field_is
{
	my ($row, $field, $value, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return fail("$name: there is no row") if !defined $row;
	return fail("$name: no field $field") if !exists $row->{$field};
	return is($row->{$field}, $value, $name);
}

1;

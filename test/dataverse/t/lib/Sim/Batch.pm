# Sim::Batch - builds $batch bodies and takes their answers apart
#
# Splitting is done on delimiter lines only, as a client of the real service
# has to, because parts carry no length.
package Sim::Batch;

use strict;
use warnings;

use Exporter qw(import);

use Sim qw(json_of);

our @EXPORT_OK = qw(op change_set batch batch_body batch_parts);

my $boundary_count = 0;

# One operation: method, path (relative to the service root, or a URL, or $1),
# body, headers, Content-ID.
sub op
{
	my ($method, $path, $body, $headers, $content_id) = @_;
	return {method => $method, path => $path, body => $body, headers => $headers // {}, id => $content_id};
}

sub change_set { return {set => [@_]}; }

sub operation_text
{
	my ($o) = @_;
	my $path = $o->{path} =~ m{^(/|http|\$)} ? $o->{path} : "/api/data/v9.2/$o->{path}";
	my $body = ref $o->{body} ? json_of($o->{body}) : $o->{body};
	my %h = %{$o->{headers}};
	$h{'Content-Type'} //= 'application/json; type=entry' if defined $body;
	my $text = "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n";
	$text .= "Content-ID: $o->{id}\r\n" if defined $o->{id};
	$text .= "\r\n$o->{method} $path HTTP/1.1\r\n";
	$text .= "$_: $h{$_}\r\n" for sort keys %h;
	return "$text\r\n" . ($body // '') . "\r\n";
}

# The bytes of a whole body with the given boundary.
sub batch_body
{
	my ($boundary, @items) = @_;
	my $text = '';
	for my $item (@items)
	{
		$text .= "--$boundary\r\n";
		if (!$item->{set})
		{
			$text .= operation_text($item);
			next;
		}
		my $inner = 'changeset_' . ++$boundary_count;
		$text .= "Content-Type: multipart/mixed; boundary=\"$inner\"\r\n\r\n";
		$text .= "--$inner\r\n" . operation_text($_) for @{$item->{set}};
		$text .= "--$inner--\r\n\r\n";
	}
	return "$text--$boundary--\r\n";
}

# Send a batch; %o: continue (true or false), headers.
sub batch
{
	my ($sim, $items, %o) = @_;
	my $boundary = 'batch_' . ++$boundary_count;
	my %h = ('Content-Type' => "multipart/mixed; boundary=\"$boundary\"", %{$o{headers} // {}});
	$h{Prefer} = 'odata.continue-on-error' if $o{continue};
	my $r = $sim->req('POST', '$batch', batch_body($boundary, @$items), \%h);
	$r->{parts} = [batch_parts($r->header('content-type'), $r->{body})] if is_multipart($r);
	return $r;
}

sub is_multipart { return ($_[0]->header('content-type') // '') =~ m{^multipart/mixed}; }

# Parts of a multipart text: an answer each, or an array of answers for a
# change set.  Dies on anything that is not well-formed.
sub batch_parts
{
	my ($type, $text) = @_;
	$type =~ m{^multipart/mixed;\s*boundary="?([^";]+)"?} or die "no boundary in: $type\n";
	my $boundary = $1;
	$text =~ /\n--\Q$boundary\E--(\r\n)*\z/ or $text =~ /\A--\Q$boundary\E--/ or die "the closing delimiter is missing\n";
	$text =~ /(?<!\r)\n/ and die "a line ends in a bare line feed\n";
	my @pieces = split /(?:\A|\r\n)--\Q$boundary\E(?:--)?\r\n/, $text;
	shift @pieces;		# preamble
	return map {one_part($_)} @pieces;
}

sub one_part
{
	my ($piece) = @_;
	my ($head, $rest) = split /\r\n\r\n/, $piece, 2;
	my %h = map {/^([^:]+):\s*(.*)$/ ? (lc $1 => $2) : die "malformed part header: $_\n"} split /\r\n/, $head;
	my $type = $h{'content-type'} // die "a part has no Content-Type\n";
	return [batch_parts($type, $rest)] if $type =~ m{^multipart/mixed};
	$type eq 'application/http' or die "unexpected part type $type\n";
	lc($h{'content-transfer-encoding'} // '') eq 'binary' or die "a part has no transfer encoding\n";
	my ($inner, $body) = split /\r\n\r\n/, $rest, 2;
	my ($first, @lines) = split /\r\n/, $inner;
	$first =~ m{^HTTP/1\.1 (\d{3}) (.+)$} or die "malformed status line in a part: $first\n";
	my $r = bless {status => $1 + 0, reason => $2, content_id => $h{'content-id'}}, 'Sim::Answer';
	$r->add_header($_) for @lines;
	$body //= '';
	$body =~ s/(\r\n)+\z//;
	$r->{body} = $body;
	return $r;
}

1;

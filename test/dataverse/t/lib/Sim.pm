# Sim - starts dvsim for one test file and speaks HTTP with it
#
# A plain HTTP/1.1 client over IO::Socket, so that a test can also send what no
# HTTP library would send, and sees every header of the answer.
package Sim;

use strict;
use warnings;

use Cwd qw(abs_path);
use Encode qw(decode);
use Exporter qw(import);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use POSIX qw(WNOHANG);
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(guid esc json_of metadata_dir shared_data);

# The application that the tests sign in with, and a second one.
use constant {
	TENANT => 'aaaaaaaa-0000-4000-8000-00000000000a',
	CLIENT => 'bbbbbbbb-0000-4000-8000-000000000001',
	SECRET => 's3cret+/=&%',
	USER   => 'cccccccc-0000-4000-8000-000000000001',
	CLIENT2 => 'bbbbbbbb-0000-4000-8000-000000000002',
	SECRET2 => 'other secret',
	USER2   => 'cccccccc-0000-4000-8000-000000000002',
};

# Nothing in these tests takes longer unless something hangs (seconds).
use constant PATIENCE => 30;

my $here = abs_path(dirname(__FILE__));
my $root = abs_path("$here/../..");
my %running;
my $guid_count = 0;

# Directory of the table files.
sub metadata_dir { return "$root/metadata"; }

# Material of others that some tests compare with, or undef where it is absent.
sub shared_data
{
	my $dir = $ENV{DVMIG_SHARED_DATA} // "$root/../../../shared/data";
	return -d $dir ? abs_path($dir) : undef;
}

# A new GUID, distinct within this process and recognisable in failures.
sub guid
{
	return sprintf('%08x-5555-4000-8000-%012x', $$ & 0xffffffff, ++$guid_count);
}

# Percent-encode one value for a URL.
sub esc
{
	my ($text) = @_;
	utf8::encode($text) if utf8::is_utf8($text);
	$text =~ s/([^A-Za-z0-9_.~-])/sprintf('%%%02X', ord $1)/ge;
	return $text;
}

# Text of a data structure, with keys in order.
sub json_of { return JSON::PP->new->utf8->canonical->allow_nonref->encode($_[0]); }

# Start a simulator.  Options: profile, set (hash of switches), metadata
# (directory), args (more command line words), clients (list of "id:secret:user").
sub start
{
	my ($class, %o) = @_;
	my $binary = $ENV{DVSIM} // "$root/dvsim";
	-x $binary or die "build the simulator first: make -C test/dataverse\n";
	my $dir = tempdir('dvsim-XXXXXX', TMPDIR => 1, CLEANUP => 1);
	my $self = bless {dir => $dir, log => "$dir/log", sockets => {}}, $class;
	my @clients = @{$o{clients} // [join(':', CLIENT, SECRET, USER), join(':', CLIENT2, SECRET2, USER2)]};
	my @command = ($binary, '--metadata', $o{metadata} // metadata_dir(), '--port', 0, '--port-file', "$dir/port",
		'--tenant', TENANT, map({('--client', $_)} @clients));
	push @command, '--profile', $o{profile} if defined $o{profile};
	push @command, map {('--set', "$_=$o{set}{$_}")} sort keys %{$o{set} // {}};
	push @command, @{$o{args} // []};

	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		open STDOUT, '>', $self->{log} or POSIX::_exit(127);
		open STDERR, '>&', \*STDOUT or POSIX::_exit(127);
		exec @command or POSIX::_exit(127);
	}
	$self->{pid} = $pid;
	$running{$pid} = $self;
	$self->wait_for_port("$dir/port");
	return $self;
}

sub wait_for_port
{
	my ($self, $file) = @_;
	my $until = time + PATIENCE;
	while (time < $until)
	{
		if (open my $in, '<', $file)
		{
			my $line = <$in>;
			close $in;
			if (defined $line && $line =~ /^(\d+)\n/)
			{
				$self->{port} = $1;
				return;
			}
		}
		if (waitpid($self->{pid}, WNOHANG) == $self->{pid})
		{
			delete $running{delete $self->{pid}};
			die "dvsim ended at once: " . $self->log;
		}
		sleep 0.01;
	}
	die "dvsim wrote no port file: " . $self->log;
}

# Everything the simulator printed.
sub log
{
	my ($self) = @_;
	open my $in, '<', $self->{log} or return '';
	local $/;
	return scalar(<$in>) // '';
}

# Ask it to end, by its process id; returns its exit status.
sub stop
{
	my ($self, $signal) = @_;
	my $pid = delete $self->{pid} or return;
	delete $running{$pid};
	$self->hang_up;
	kill $signal // 'TERM', $pid;
	my $until = time + PATIENCE;
	while (time < $until)
	{
		return $? if waitpid($pid, WNOHANG) == $pid;
		sleep 0.01;
	}
	kill 'KILL', $pid;
	waitpid $pid, 0;
	return $?;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $@, $!);
	$self->stop if $self->{pid};
}

END
{
	my $status = $?;
	$_->stop for values %running;
	$? = $status;
}

sub url { return "http://127.0.0.1:$_[0]{port}"; }
sub api { return $_[0]->url . '/api/data/v9.2'; }

# A bearer token; kept until forget_token.  Options as for token_request.
sub token
{
	my ($self, %o) = @_;
	my $who = $o{client} // CLIENT;
	$self->{tokens}{$who} //= do
	{
		my $r = $self->token_request(%o);
		$r->{status} == 200 or die "no token: $r->{status} $r->{body}";
		$r->json->{access_token};
	};
	return $self->{tokens}{$who};
}

sub forget_token { delete $_[0]{tokens}; return; }

# Ask the token endpoint; options replace single form fields, undef leaves one out.
sub token_request
{
	my ($self, %o) = @_;
	my $tenant = delete $o{tenant} // TENANT;
	my %h = (%{delete $o{headers} // {}});
	my %form = (client_id => CLIENT, client_secret => SECRET, grant_type => 'client_credentials',
		scope => $self->url . '/.default');
	$form{client_id} = delete $o{client} if exists $o{client};
	$form{client_secret} = delete $o{secret} if exists $o{secret};
	%form = (%form, %o);
	my $body = join '&', map {"$_=" . esc($form{$_})} grep {defined $form{$_}} sort keys %form;
	return $self->raw('POST', "/$tenant/oauth2/v2.0/token", {'Content-Type' => 'application/x-www-form-urlencoded', %h},
		$body);
}

# A Web API request.  "path" is relative to the service root unless it begins
# with a slash; "body" is a structure (sent as JSON) or bytes; a header with an
# undefined value is left out.  "as" in %o signs in as another application.
sub req
{
	my ($self, $method, $path, $body, $headers, %o) = @_;
	my %h = (
		'Authorization' => 'Bearer ' . ($o{token} // $self->token(%{$o{as} // {}})),
		'Accept' => 'application/json',
		'OData-Version' => '4.0',
		'OData-MaxVersion' => '4.0',
	);
	if (defined $body)
	{
		$h{'Content-Type'} = 'application/json';
		$body = json_of($body) if ref $body;
	}
	%h = (%h, %{$headers // {}});
	delete $h{$_} for grep {!defined $h{$_}} keys %h;
	return $self->raw($method, $path =~ m{^/} ? $path : "/api/data/v9.2/$path", \%h, $body);
}

# Sign in as the second application.
sub second { return (as => {client => CLIENT2, secret => SECRET2}); }

# One request over a kept-alive connection; a connection that the other side
# closed between two requests is opened anew.
sub raw
{
	my ($self, $method, $target, $headers, $body, %o) = @_;
	my $text = "$method $target HTTP/1.1\r\n";
	my %h = (Host => "127.0.0.1:$self->{port}", %{$headers // {}});
	$h{'Content-Length'} //= length($body // '') if defined $body || $method =~ /^(POST|PUT|PATCH)$/;
	for my $name (sort keys %h)
	{
		$text .= "$name: $_\r\n" for ref $h{$name} ? @{$h{$name}} : ($h{$name});
	}
	$text .= "\r\n" . ($body // '');
	for my $try (1, 2)
	{
		my $fresh = !$self->{sockets}{main};
		my $socket = $self->{sockets}{main} //= $self->connect;
		my $answer = eval {$self->send_and_read($socket, $text, $method)};
		my $error = $@;
		return $answer if $answer;
		$self->hang_up;
		die $error if $fresh || $try == 2 || $error !~ /^closed before an answer/;
	}
	return;
}

sub connect
{
	my ($self) = @_;
	return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Timeout => PATIENCE)
		// die "cannot connect: $!";
}

sub hang_up
{
	my ($self) = @_;
	$_->close for values %{$self->{sockets}};
	$self->{sockets} = {};
	return;
}

# Write bytes, read one answer.
sub send_and_read
{
	my ($self, $socket, $text, $method) = @_;
	local $SIG{PIPE} = 'IGNORE';
	utf8::downgrade($text);
	my $at = 0;
	while ($at < length $text)
	{
		my $n = syswrite($socket, $text, 1 << 16, $at);
		defined $n or last;		# an early refusal may close the connection
		$at += $n;
	}
	my $r = read_answer($socket, $method // '');
	$self->hang_up if lc($r->header('connection') // '') eq 'close' || $r->{closed};
	return $r;
}

sub more
{
	my ($socket, $buffer) = @_;
	IO::Select->new($socket)->can_read(PATIENCE) or die "no answer within " . PATIENCE . " s\n";
	my $n = sysread $socket, $$buffer, 1 << 18, length $$buffer;
	return defined $n && $n > 0;
}

# Read status line, headers and body; a body that ends early has {cut}.
sub read_answer
{
	my ($socket, $method) = @_;
	my $buffer = '';
	my $r = bless {cut => 0, closed => 0}, 'Sim::Answer';
	until ($buffer =~ /\r\n\r\n/)
	{
		more($socket, \$buffer)
			or die length $buffer ? "closed inside the headers\n" : "closed before an answer\n";
	}
	my ($head, $rest) = split /\r\n\r\n/, $buffer, 2;
	my ($first, @lines) = split /\r\n/, $head;
	$first =~ m{^HTTP/1\.[01] (\d{3}) ?(.*)$} or die "malformed status line: $first\n";
	@$r{qw(status reason)} = ($1 + 0, $2);
	$r->add_header($_) for @lines;
	if ($method eq 'HEAD' || $r->{status} == 204 || $r->{status} == 304)
	{
		$r->{body} = $rest;
	}
	elsif (lc($r->header('transfer-encoding') // '') eq 'chunked')
	{
		read_chunks($socket, $r, $rest);
	}
	else
	{
		my $want = $r->header('content-length');
		while (!defined $want || length $rest < $want)
		{
			more($socket, \$rest) and next;
			$r->{closed} = 1;
			$r->{cut} = 1 if defined $want;
			last;
		}
		$r->{body} = $rest;
	}
	return $r;
}

sub read_chunks
{
	my ($socket, $r, $rest) = @_;
	my $body = '';
	while (1)
	{
		my $complete = $rest =~ /^([0-9a-fA-F]+)[^\r\n]*\r\n/ && length $rest >= length($&) + hex($1) + 2;
		if (!$complete)
		{
			next if more($socket, \$rest);
			@$r{qw(cut closed)} = (1, 1);
			last;
		}
		my ($line, $n) = ($&, hex $1);
		$body .= substr $rest, length $line, $n;
		substr $rest, 0, length($line) + $n + 2, '';
		last if $n == 0;
	}
	$r->{body} = $body;
	return;
}

# Create a row and give its id back; dies when refused.
sub create
{
	my ($self, $set, $row, $headers) = @_;
	my $r = $self->req('POST', $set, $row, $headers);
	$r->{status} == 204 or die "create in $set: $r->{status} $r->{body}";
	return $r->entity_id // die "no OData-EntityId";
}

# Read a row by its id; undef when there is none.
sub row
{
	my ($self, $set, $id, $query) = @_;
	my $r = $self->req('GET', "$set($id)" . ($query ? "?$query" : ''));
	return $r->{status} == 200 ? $r->json : undef;
}

# Number of rows of a set, read in pages.
sub count
{
	my ($self, $set, $filter) = @_;
	my $path = "$set?\$select=createdon" . (defined $filter ? '&$filter=' . esc($filter) : '');
	my $n = 0;
	while (defined $path)
	{
		my $r = $self->req('GET', $path);
		$r->{status} == 200 or die "count of $set: $r->{status} $r->{body}";
		my $page = $r->json;
		$n += @{$page->{value}};
		$path = $page->{'@odata.nextLink'};
		$path =~ s{^http://[^/]+}{} if defined $path;
	}
	return $n;
}

package Sim::Answer;

use strict;
use warnings;

sub add_header
{
	my ($self, $line) = @_;
	my ($name, $value) = $line =~ /^([^:]+):[ \t]*(.*?)[ \t]*$/ or die "malformed header: $line\n";
	push @{$self->{headers}{lc $name}}, $value;
	return;
}

# First value of a header, or undef; all values of it.
sub header { return ($_[0]{headers}{lc $_[1]} // [])->[0]; }
sub headers { return @{$_[0]{headers}{lc $_[1]} // []}; }

# The body as a structure; dies when it is not JSON.
sub json
{
	my ($self) = @_;
	my $data = eval {JSON::PP->new->utf8->allow_nonref->decode($self->{body})};
	defined $data or die "answer $self->{status} is not JSON: " . substr($self->{body} // '', 0, 300) . "\n";
	return $data;
}

# The GUID inside the last parentheses of OData-EntityId.
sub entity_id
{
	my ($self) = @_;
	my $url = $self->header('odata-entityid') // return;
	return $url =~ /\(([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\)$/ ? $1 : undef;
}

sub code
{
	my ($self) = @_;
	my $data = eval {$self->json};
	return ref $data eq 'HASH' && ref $data->{error} eq 'HASH' ? $data->{error}{code} : undef;
}

1;

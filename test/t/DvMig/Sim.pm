# DvMig::Sim - dvsim for one test: starts it, asks it, ends it
#
# Asks by the curl program, which every machine that builds the extension can
# have and which speaks TLS without further Perl modules.
package DvMig::Sim;

use strict;
use warnings;

use Carp;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use IO::Socket::INET;
use JSON::PP;
use POSIX qw(WNOHANG);
use Time::HiRes qw(sleep time);

# The application that signs in, and a second one with a quota of its own.
use constant {
	TENANT  => 'contoso.example',
	CLIENT  => 'bbbbbbbb-0000-4000-8000-000000000001',
	SECRET  => 's3cret+/=&%',
	NEW_SECRET => 'n3w s3cret',
	USER    => 'cccccccc-0000-4000-8000-000000000001',
	CLIENT2 => 'bbbbbbbb-0000-4000-8000-000000000002',
	SECRET2 => 'other secret',
	USER2   => 'cccccccc-0000-4000-8000-000000000002',
	STRANGER => 'bbbbbbbb-0000-4000-8000-0000000000ff',    # has no application user
};

my $root = abs_path(dirname(__FILE__) . '/../..');
my %running;

# start(profile =>, set => {switch => value}, tls => 1, port =>, args => [...]);
# tls => {names => 'DNS:elsewhere.example', days => -1}: with such a certificate
sub start
{
	my ($class, %o) = @_;
	my $self = bless {
		dir    => tempdir('dvsim-XXXXXX', TMPDIR => 1, CLEANUP => 1),
		scheme => $o{tls} ? 'https' : 'http',
		options => {%o},
	}, $class;

	chmod 0755, $self->{dir};
	$self->make_certificates if $o{tls};
	# Bound, though nobody listens: while the simulator is down, its port is
	# given to nothing else that asks for any.
	$self->{bound} = IO::Socket::INET->new(Proto => 'tcp', LocalAddr => '127.0.0.1', LocalPort => $o{port} // 0, ReuseAddr => 1)
	  or croak "bind: $!";
	$self->launch($self->{bound}->sockport);
	return $self;
}

sub launch
{
	my ($self, $port) = @_;
	my %o = %{ $self->{options} };
	my $binary = $ENV{DVSIM} // "$root/dataverse/dvsim";
	my $port_file = "$self->{dir}/port";
	my @command = ($binary, '--metadata', "$root/dataverse/metadata", '--port', $port, '--port-file', $port_file,
		'--tenant', TENANT, '--client', join(':', CLIENT, SECRET, USER), '--client', join(':', CLIENT2, SECRET2, USER2),
		'--client', join(':', CLIENT, NEW_SECRET, USER), '--client', join(':', STRANGER, SECRET, 'none'));

	-x $binary or croak "build the simulator first: make -C test/dataverse";
	push @command, '--profile', $o{profile} if $o{profile};
	push @command, map { ('--set', "$_=$o{set}{$_}") } sort keys %{ $o{set} // {} };
	push @command, '--tls-cert', "$self->{dir}/server.crt", '--tls-key', "$self->{dir}/server.key" if $o{tls};
	push @command, @{ $o{args} // [] };
	unlink $port_file;

	my $pid = fork() // croak "fork: $!";
	if ($pid == 0)
	{
		open(STDOUT, '>>', "$self->{dir}/log") or POSIX::_exit(127);
		open(STDERR, '>&', \*STDOUT) or POSIX::_exit(127);
		exec(@command) or POSIX::_exit(127);
	}
	$self->{pid} = $pid;
	$running{$pid} = $self;
	for (1 .. 6000)
	{
		if (-s $port_file)
		{
			$self->{port} = 0 + slurp($port_file);
			return;
		}
		last if waitpid($pid, WNOHANG) == $pid;
		sleep 0.01;
	}
	croak 'dvsim did not start: ' . $self->log;
}

sub slurp
{
	my ($name) = @_;
	open(my $in, '<:raw', $name) or croak "cannot read $name: $!";
	local $/;
	return scalar <$in> // '';
}

sub log { return slurp("$_[0]{dir}/log"); }

# A certificate authority of our own and a certificate for this machine.
sub make_certificates
{
	my ($self) = @_;
	my $d = $self->{dir};
	my %o = ref $self->{options}{tls} ? %{ $self->{options}{tls} } : ();
	my $names = $o{names} // 'DNS:localhost, IP:127.0.0.1';
	my $days = $o{days} // 7;

	open(my $out, '>', "$d/ext") or croak $!;
	print $out "subjectAltName = $names\nbasicConstraints = CA:FALSE\n";
	close $out;
	for my $command (
		"req -x509 -newkey rsa:2048 -nodes -days 7 -subj '/CN=dvmig test CA' -keyout $d/ca.key -out $d/ca.crt",
		"req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout $d/server.key -out $d/server.csr",
		"x509 -req -in $d/server.csr -CA $d/ca.crt -CAkey $d/ca.key -CAcreateserial -days $days -extfile $d/ext -out $d/server.crt")
	{
		system("openssl $command >>$d/openssl.log 2>&1") == 0 or croak slurp("$d/openssl.log");
	}
	chmod 0644, "$d/ca.crt";
	return;
}

sub ca_file { return "$_[0]{dir}/ca.crt"; }
sub pid { return $_[0]{pid}; }
sub port { return $_[0]{port}; }

sub url
{
	my ($self) = @_;
	return "$self->{scheme}://" . ($self->{scheme} eq 'https' ? 'localhost' : '127.0.0.1') . ":$self->{port}";
}

# stop(signal): end it and wait; restart(): a new, empty one on the same port.
sub stop
{
	my ($self, $signal) = @_;
	my $pid = delete $self->{pid} or return;

	delete $running{$pid};
	kill $signal // 'TERM', $pid;
	for (1 .. 1000)
	{
		return if waitpid($pid, WNOHANG) == $pid;
		sleep 0.01;
	}
	kill 'KILL', $pid;
	waitpid $pid, 0;
	return;
}

sub restart
{
	my ($self, $signal) = @_;

	$self->stop($signal);
	$self->launch($self->{port});
	return;
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

# ------------------------------------------------------------------- requests

# curl(method, path, body, header ...): status and body. The path is below the
# host; a structure is sent as JSON.
sub curl
{
	my ($self, $method, $path, $body, @headers) = @_;
	my $out = "$self->{dir}/answer";
	my @command = ('curl', '-sS', '--max-time', 60, '-X', $method, '-o', $out, '-w', '%{http_code}', $self->url . $path);

	push @command, '--cacert', $self->ca_file if $self->{scheme} eq 'https';
	push @command, map { ('-H', $_) } @headers;
	if (defined $body)
	{
		open(my $file, '>:raw', "$self->{dir}/body") or croak $!;
		print $file ref $body ? JSON::PP->new->utf8->canonical->encode($body) : $body;
		close $file;
		push @command, '--data-binary', "\@$self->{dir}/body";
		push @command, '-H', 'Content-Type: application/json' unless grep { /^Content-Type/i } @headers;
	}
	unlink $out;
	open(my $in, '-|', @command) or croak "curl: $!";
	my $status = <$in>;
	close $in;
	return ($status // 0, -e $out ? slurp($out) : '');
}

# A request of the simulator's own, outside of Dataverse; dies when refused.
sub sim
{
	my ($self, $method, $path, $body) = @_;
	my ($status, $text) = $self->curl($method, "/_sim/$path", $body);

	$status >= 200 && $status < 300 or croak "$method /_sim/$path: $status " . substr($text, 0, 500);
	return length $text ? JSON::PP->new->utf8->allow_nonref->decode($text) : undef;
}

sub stats { return $_[0]->sim('GET', 'stats'); }
sub fault { return $_[0]->sim('POST', 'fault', $_[1]); }
sub set { my ($self, %switches) = @_; return $self->sim('POST', 'set', \%switches); }

# held: how many requests a "hold" keeps. One whose client has gone counts too;
# one that is on its way but not meant to hang does not.
sub held
{
	my ($self) = @_;
	my $n = 0;

	$n += $_->{fired} for grep { $_->{do} eq 'hold' } @{ $self->sim('GET', 'fault') };
	return $n;
}

# export(set): array of the records held.
sub export { return $_[0]->sim('GET', "export/$_[1]"); }

# counters(set): how often create and update logic ran: records, creates,
# updates, created_twice.
sub counters { return $_[0]->sim('GET', "counters/$_[1]"); }

# column(table, column, max_length => 50 ...): change a column as a solution update would
sub column
{
	my ($self, $table, $column, %o) = @_;
	my $json = JSON::PP->new->utf8->allow_nonref;
	my @order = ([ table => $table ], [ column => $column ], map { [ $_ => $o{$_} ] } sort keys %o);

	# The simulator reads the names first.
	return $self->sim('POST', 'column', '{' . join(',', map { "\"$_->[0]\":" . $json->encode($_->[1]) } @order) . '}');
}

# change(set, id, fields): as another user of Dataverse would; "as" in the
# fields names who.
sub change
{
	my ($self, $set, $id, $changes, %more) = @_;
	my $json = JSON::PP->new->utf8->canonical->allow_nonref;
	my @order = ([ set => $set ], [ id => $id ], (map { [ $_ => $more{$_} ] } sort keys %more), [ changes => $changes ]);

	# The simulator reads "set" before "changes".
	return $self->sim('POST', 'import', '{' . join(',', map { "\"$_->[0]\":" . $json->encode($_->[1]) } @order) . '}');
}

sub token
{
	my ($self) = @_;
	my ($status, $text);

	return $self->{token} if $self->{token};
	my %form = (grant_type => 'client_credentials', client_id => CLIENT, client_secret => SECRET,
		scope => $self->url . '/.default');
	my $body = join '&', map { "$_=" . ($form{$_} =~ s/([^A-Za-z0-9_.~-])/sprintf('%%%02X', ord $1)/ger) } sort keys %form;
	($status, $text) = $self->curl('POST', '/' . TENANT . '/oauth2/v2.0/token', $body,
		'Content-Type: application/x-www-form-urlencoded');
	$status == 200 or croak "no token: $status $text";
	return $self->{token} = decode_json($text)->{access_token};
}

# api(method, path, body): a request of the Web API, as another client would send it.
sub api
{
	my ($self, $method, $path, $body) = @_;
	my ($status, $text) = $self->curl($method, "/api/data/v9.2/$path", $body, 'Authorization: Bearer ' . $self->token,
		'Accept: application/json', 'OData-Version: 4.0', 'OData-MaxVersion: 4.0', 'Prefer: return=representation');
	return ($status, length $text ? eval { JSON::PP->new->utf8->decode($text) } // $text : undef);
}

# create(set, row): the record as made by another client; dies when refused.
sub create
{
	my ($self, $set, $row) = @_;
	my ($status, $answer) = $self->api('POST', $set, $row);

	$status == 201 or croak "create in $set: $status " . JSON::PP->new->allow_nonref->encode($answer);
	return $answer;
}

# add_user(mail): a user of the organisation, with the id returned.
sub add_user
{
	my ($self, $mail) = @_;
	my ($status, $who) = $self->api('GET', 'WhoAmI');

	$status == 200 or croak "WhoAmI: $status";
	return $self->create('systemusers',
		{
			firstname => 'Test', lastname => $mail, domainname => $mail, internalemailaddress => $mail,
			'businessunitid@odata.bind' => "businessunits($who->{BusinessUnitId})",
		})->{systemuserid};
}

1;

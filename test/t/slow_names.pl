# A name service that does not answer: whoever waits for it (a run, work on loaded
# records, a session) can be stopped, cancelled and ended, and keeps no server up
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;
use Time::HiRes qw(sleep time);

use PostgreSQL::Test::Utils;

use DvMig::Held;

plan skip_all => 'the server has other libraries preloaded' if $ENV{LD_PRELOAD} || $ENV{ASAN_OPTIONS};

my $dir = PostgreSQL::Test::Utils::tempdir();
my $cc = $ENV{CC} // 'cc';

plan skip_all => "$cc builds no library that can be preloaded"
  if system("$cc -shared -fPIC -o $dir/slow_names.so $FindBin::RealBin/DvMig/slow_names.c -ldl >$dir/cc.log 2>&1") != 0;
$ENV{DV_SLOW_NAMES} = "$dir/slow";
$ENV{LD_PRELOAD} = "$dir/slow_names.so";
my $h = DvMig::Held->new(name => 'slow_names', tls => { names => 'DNS:dataverse.example, DNS:localhost, IP:127.0.0.1' });
delete $ENV{LD_PRELOAD};
my $t = $h->t;

# An attempt to connect is given up after half a minute: what ends before has not waited for that.
my $soon = 20;

# soon(what, code): it comes true while the look-up hangs
sub soon
{
	my ($what, $code) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $end = time() + $soon;

	sleep 0.05 until $code->() || time() > $end;
	return ok(time() <= $end && -e "$dir/slow", $what);
}

# hanging(code): what it begins waits for a name
sub hanging
{
	my ($code) = @_;

	unlink "$dir/slow.asked";
	append_to_file("$dir/slow", '');
	my $result = $code->();
	$h->until('a name is looked up', sub { -e "$dir/slow.asked" });
	return $result;
}

sub answer { unlink "$dir/slow"; return; }
sub no_worker { return $t->sql(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'dvmig worker'}) eq 't'; }

$t->server('sim', url => 'https://dataverse.example:' . $h->sim->port);
$t->{has_server} = 1;
my $table = $h->scene(rows => 100);
my $m = $h->migration;
is($t->sql(q{SELECT environment FROM dvmig.whoami('sim')}), 'test', 'names are found');

# --- a run, and work on loaded records
my %begin = (
	'a run' => sub { $t->start($m) },
	'a verification' => sub { $t->sql("SELECT dvmig.start_verify('$m')") },
);
for my $kind ('a run', 'a verification')
{
	for my $how ('dvmig.stop', 'pg_cancel_backend', 'pg_terminate_backend')
	{
		my $run = hanging($begin{$kind});

		$t->sql($how =~ /stop/ ? "SELECT dvmig.stop($run)" : "SELECT $how(pid) FROM pg_stat_activity WHERE backend_type = 'dvmig worker'");
		soon("$kind, $how: its worker ends", \&no_worker);
		answer();
		is($t->sql("SELECT dvmig.wait($run)"), $how =~ /terminate/ ? 'interrupted' : 'stopped', "$kind, $how: and its run");
	}
	is($t->run($m)->{state}, 'completed', "$kind: once names are found again, a run completes");
	$h->exact($kind, '100/0/100/0/0');
}

# --- a session that waits for an answer itself, or for a worker that does
for my $call (q{SELECT * FROM dvmig.whoami('sim')}, q{SELECT * FROM dvmig.refresh_metadata('sim', '{contact}')}, "SELECT * FROM dvmig.verify('$m')")
{
	my ($name) = $call =~ /(dvmig\.\w+)/;

	for my $how ('pg_cancel_backend', 'pg_terminate_backend')
	{
		my $s = hanging(sub { my $s = $h->session; $s->send("$call;\n\\echo done\n"); return $s; });

		$t->sql("SELECT $how(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND query LIKE '%$name%' AND pid <> pg_backend_pid()");
		soon("$name, $how: it ends", sub { $s->{psql}->pump_nb; return $s->{out} =~ /canceling statement due to user request|terminating connection|closed the connection/; });
		soon("$name, $how: and leaves no worker", \&no_worker);
		answer();
		eval { $s->{psql}->finish };
	}
}

# --- a server that is shut down while all of them wait
my $run = hanging($begin{'a run'});
my $s = hanging(sub { my $s = $h->session; $s->send("SELECT * FROM dvmig.whoami('sim');\n"); return $s; });
my $postmaster = $t->node->{_pid};
kill 'INT', $postmaster;
soon('a fast shutdown waits for none of them', sub { !kill 0, $postmaster });
answer();
eval { $s->{psql}->finish };
$h->until('the server is gone', sub { !kill 0, $postmaster });
$t->node->{_pid} = undef;
$ENV{LD_PRELOAD} = "$dir/slow_names.so";
$t->node->start;
delete $ENV{LD_PRELOAD};
is($t->sql("SELECT dvmig.wait($run)"), 'interrupted', 'the run is interrupted');
is($t->run($m)->{state}, 'completed', 'and the next one completes');
$h->exact('after the shutdown', '100/0/100/0/0');

unlike(slurp_file($t->node->logfile), qr/PANIC|TRAP|terminated by signal|cache lookup failed|XX000/, 'no process of the server came to harm');

done_testing();

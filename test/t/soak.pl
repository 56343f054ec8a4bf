# Memory and descriptors do not grow: of a worker with the rows it loads, of
# sessions and the server with the runs that are started. test/soak does more.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use PostgreSQL::Test::Utils;

use DvMig;

my $rows = $ENV{DVMIG_SOAK_ROWS} // 60000;
my $runs = $ENV{DVMIG_SOAK_RUNS} // 60;

plan skip_all => 'no /proc to read memory from' unless -r '/proc/self/status' && -d '/proc/self/fd';

my $t = DvMig->new(name => 'soak', conf => "shared_buffers = 32MB\n");

# rss(pid): anonymous memory in kB; files(pid): open descriptors by what they are. Undefined once it has ended.
sub rss
{
	my ($pid) = @_;
	open(my $in, '<', "/proc/$pid/status") or return;
	my ($kb) = map { /^RssAnon:\s*(\d+)/ ? $1 : () } <$in>;
	return $kb;
}
sub files
{
	my ($pid) = @_;
	opendir(my $dir, "/proc/$pid/fd") or return;
	my %open;
	for my $to (map { readlink "/proc/$pid/fd/$_" } grep { !/^\./ } readdir $dir)
	{
		next unless defined $to;
		$open{all}++;
		$open{others}++ unless $to =~ m{^/(?!dev/)};
		$open{names}{$to}++;
	}
	return \%open;
}
# astray(files): those of the database that are open twice, or are gone. The server keeps the files of tables
# and indexes that were touched open, as they grow their maps of visibility and free space, too: each once.
sub astray
{
	my ($open) = @_;
	return join ' ', sort grep { m{/pgdata/(?!pg_wal/)} && ($open->{names}{$_} > 1 || /deleted/) } keys %{ $open->{names} };
}
# grows_not(kB, bound, name): compared where the memory is all the server's own.
sub grows_not
{
	my ($kb, $bound, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	SKIP:
	{
		skip "$name: a sanitizer keeps what is freed", 1 if DvMig::instrumented();
		cmp_ok($kb, '<', $bound, $name);
	}
	return;
}
sub worst { my ($max) = sort { $b <=> $a } grep { defined } @_; return $max; }

# --------------------------------------------------------------------- with rows

$t->sql(q{CREATE TABLE people (id int PRIMARY KEY, family text, city text, boss int)});
$t->migration('m', tables => 'contact');
$t->sql(q{SELECT dvmig.add_table('m', 'people', 'contact', source_key => 'id');
	SELECT dvmig.map_column('people', 'lastname', 'family');
	SELECT dvmig.map_column('people', 'address1_city', 'city')});
$t->sql("INSERT INTO people SELECT n, CASE WHEN n % 50 = 0 THEN repeat('x', 60) ELSE 'Family ' || n END, repeat('City ' || n % 17, 3) FROM generate_series(1, $rows) n");

for my $what (qw(run verify))
{
	my $run = $t->sql($what eq 'run' ? q{SELECT dvmig.start('m', ignore_gate => true)} : q{SELECT dvmig.start_verify('m')});
	my (@rss, @files, $pid);
	my $done = "SELECT state NOT IN ('starting', 'running', 'stopping') FROM dvmig.run_history WHERE run = $run";

	until ($t->sql($done) eq 't')
	{
		$pid //= $t->sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'dvmig worker'}) || undef;
		next unless $pid;
		my $kb = rss($pid) // last;
		push @rss, $kb;
		push @files, files($pid) // ();
		# Some hundred samples are enough: the loads are not slowed by being looked at.
		$t->sql('SELECT pg_sleep(' . $rows / 2e6 . ')');
	}
	is($t->finish($run)->{state}, 'completed', "$what over $rows rows");
	# The first third fills caches and finds the pace.
	my $third = int(@rss / 3);
	if ($third < 3)
	{
		note("$what: too fast to be sampled");
		next;
	}
	my ($early, $late) = (worst(@rss[ 0 .. 2 * $third - 1 ]), worst(@rss[ 2 * $third .. $#rss ]));
	note("$what: $early kB, then $late kB anonymous memory at most, in " . @rss . ' samples');
	grows_not($late, $early * 1.15 + 2048, "$what: memory does not grow with rows");
	my ($before, $after) = (worst(map { $_->{others} } @files[ 0 .. 2 * $third - 1 ]), worst(map { $_->{others} } @files[ 2 * $third .. $#files ]));
	note("$what: $before descriptors that are no files, then $after");
	cmp_ok($after, '<=', $before + 2, "$what: nor do connections and other descriptors");
	is(astray($files[-1]), '', "$what: no file is open twice, or gone");
}
is(join('/', (split m{/}, $t->counts('people'))[ 1, 4 ]), '0/0', 'every row has its verdict');

# --------------------------------------------------------------------- with runs

# One session starts them all, as a scheduler would that keeps its connection.
$t->sql(q{CREATE TABLE few (id int PRIMARY KEY, family text); INSERT INTO few VALUES (1, 'One'), (2, 'Two');
	SELECT dvmig.create_migration('few', 'sim'); SELECT dvmig.add_table('few', 'few', 'contact', source_key => 'id');
	SELECT dvmig.map_column('few', 'lastname', 'family')});
my ($in, $out) = ('', '');
my $session = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $t->node->connstr('postgres'), '-f', '-' ],
	'<', \$in, '>', \$out, '2>&1', IPC::Run::timeout($ENV{DVMIG_TAP_TIMEOUT} // 900));

# ask(SQL): what the session answers
sub ask
{
	my ($sql) = @_;
	$out = '';
	$in .= "$sql;\n\\echo done\n";
	$session->pump until $out =~ /^done$/m || !$session->pumpable;
	return $out =~ s/\s*^done\n//mr;
}
my $backend = ask('SELECT pg_backend_pid()');
my $postmaster = (split /\n/, slurp_file($t->node->data_dir . '/postmaster.pid'))[0];
my (@session, @server);
for my $n (1 .. $runs)
{
	ask("UPDATE few SET family = 'Name $n', processing_flag = 'U'; CALL dvmig.run('few', resend => true, lanes => " . (1 + $n % 2) . ')');
	ask(q{SELECT count(*) FROM dvmig.verify('few')}) if $n % 5 == 0;
	push @session, [ rss($backend), files($backend) ];
	push @server, [ rss($postmaster), files($postmaster) ];
}
is(ask(q{SELECT count(*) FROM dvmig.run_history WHERE migration = 'few' AND state <> 'completed'}), '0', "$runs runs complete");
for my $who ([ 'the session', \@session ], [ 'the postmaster', \@server ])
{
	my ($name, $samples) = @$who;
	my ($before, $after) = @$samples[ int(@$samples / 2) - 1, -1 ];
	my @new = grep { !$before->[1]{names}{$_} } sort keys %{ $after->[1]{names} };

	note("$name: $before->[0] kB, then $after->[0] kB; $before->[1]{others} descriptors that are no files, then $after->[1]{others}; $after->[1]{all} in all");
	note("$name: opened in the second half: $_") for @new;
	grows_not($after->[0], $before->[0] * 1.1 + 1024, "$name: memory does not grow with runs");
	cmp_ok($after->[1]{others}, '<=', $before->[1]{others} + 2, "$name: nor do connections and other descriptors");
	is(astray($after->[1]), '', "$name: no file is open twice, or gone");
	is(join(' ', grep { m{^/} && !m{/pgdata/(?:base|global|pg_wal)/|^/dev/} } @new), '', "$name: what was opened later are files of the database");
}
$in .= "\\q\n";
$session->finish;

done_testing();

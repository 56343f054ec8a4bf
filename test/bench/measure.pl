#!/usr/bin/perl
#
# measure.pl - what test/bench/run measures, one thing after the other
#
# Called by test/bench/run, which has a cluster and a simulator ready. Every
# measurement begins with a fresh copy of the same rows behind a checkpoint, and
# ends with a count of what came of each row.
use strict;
use warnings;

use FindBin;
use Getopt::Long;
use JSON::PP;
use List::Util qw(max sum0);
use POSIX qw(WNOHANG _SC_CLK_TCK sysconf);
use Time::HiRes qw(sleep time);

use constant { TOKEN => 'bench-token', BATCH => 1000, FAR_LATENCY_MS => 100, FAR_ROW_US => 500 };

my %o = (rows => 200_000, far => 600_000, 'in-flight' => 52, lanes => '1,2,16', 'quick-in-flight' => 16);
GetOptions(\%o, 'rows=i', 'far=i', 'in-flight=i', 'quick-in-flight=i', 'lanes=s', 'only=s', 'postmaster=i', 'sim=i', 'origin=s', 'work=s', 'client!')
  or exit 2;

my $tick = sysconf(_SC_CLK_TCK);
my @texts = qw(name accountnumber telephone1 fax websiteurl emailaddress1 address1_line1 address1_city address1_postalcode description);
my %result;
my $current_rows = 0;

# ------------------------------------------------------------------- plumbing

sub sql
{
	my ($text, @options) = @_;
	open(my $in, '-|', 'psql', '-X', '-q', '-A', '-t', '-F', "\t", '-v', 'ON_ERROR_STOP=1', @options, '-c', $text)
	  or die "psql: $!";
	local $/;
	my $out = <$in> // '';
	close $in or die "measure.pl: psql failed for: $text\n";
	$out =~ s{\n\z}{};
	return $out;
}

sub sim
{
	my ($path, $body) = @_;
	my @data = defined $body ? ('-d', $body) : ();
	my @ca = $o{origin} =~ /^https/ ? ('--cacert', "$o{work}/tls/ca.crt") : ();
	open(my $in, '-|', 'curl', '-sS', '--fail', @ca, @data, "$o{origin}/_sim/$path") or die "curl: $!";
	local $/;
	my $out = <$in>;
	close $in or die "measure.pl: the simulator refused $path\n";
	return JSON::PP->new->utf8->decode($out || '{}');
}

# CPU seconds of a process and of the children it has seen end.
sub cpu_of
{
	my ($pid) = @_;
	open(my $in, '<', "/proc/$pid/stat") or return 0;
	my $line = <$in> // return 0;
	$line =~ s/^.*\) //s;
	my @f = split ' ', $line;
	return sum0(@f[ 11 .. 14 ]) / $tick;
}

# CPU seconds of the whole cluster: postmaster, its living and its dead children.
sub cluster_cpu
{
	my $sum = cpu_of($o{postmaster});
	for my $stat (glob '/proc/[0-9]*/stat')
	{
		open(my $in, '<', $stat) or next;
		my $line = <$in> // next;
		$sum += cpu_of($1) if $line =~ /^(\d+) \(.*\) \S (\d+) /s && $2 == $o{postmaster};
	}
	return $sum;
}

sub children_cpu
{
	my (undef, undef, $user, $system) = times;
	return $user + $system;
}

sub far
{
	my ($on) = @_;
	sim('set', sprintf '{"latency":%d,"row_time":%d}', $on ? (FAR_LATENCY_MS, FAR_ROW_US) : (0, 0));
	return;
}

# A fresh staging table, as a user would have loaded it: columns for flags last.
sub fresh_table
{
	my ($rows) = @_;
	sql(q{SET client_min_messages = warning; DROP TABLE IF EXISTS bench.account, bench.account_success, bench.account_error, bench.client_outcome CASCADE});
	if ($current_rows != $rows)
	{
		system('psql', '-X', '-q', '-v', "rows=$rows", '-f', "$FindBin::Bin/rows.sql") == 0 or die "no rows\n";
		$current_rows = $rows;
	}
	sql(q{CREATE TABLE bench.account (LIKE bench.origin, PRIMARY KEY (account_id));
		INSERT INTO bench.account SELECT * FROM bench.origin;
		SET client_min_messages = error; DELETE FROM dvmig.kept_namespace});
	return;
}

sub settle_down
{
	sql('VACUUM (ANALYZE) bench.account');
	sql('CHECKPOINT');
	sim('reset?keep=records', '');
	return;
}

# measure(code): wall seconds (unless the code returns them), CPU, WAL.
sub measure
{
	my ($rows, $code) = @_;
	my $wal = sql('SELECT pg_current_wal_insert_lsn()');
	my ($cluster, $children, $began) = (cluster_cpu(), children_cpu(), time);
	my $seconds = $code->() // 0;

	$seconds = time - $began unless $seconds > 0;
	return {
		rows => $rows, seconds => $seconds, rate => $rows / $seconds,
		cpu => (cluster_cpu() - $cluster + children_cpu() - $children) / $rows * 1e6,
		wal => sql("SELECT pg_current_wal_insert_lsn() - '$wal'::pg_lsn") / $rows,
	};
}

sub run_program
{
	my (@command) = @_;
	open(my $in, '-|', @command) or die "$command[0]: $!";
	my $out = <$in>;
	close $in or die "measure.pl: $command[0] failed\n";
	return $out + 0;
}

# -------------------------------------------------------------------- measured

sub url { return "$o{origin}/api/data/v9.2/accounts/Microsoft.Dynamics.CRM.CreateMultiple"; }

# What dvmig sends for the first rows is the body that the ceiling sends.
sub ready_made_body
{
	my $file = "$o{work}/body.json";
	return $file if -s $file;
	fresh_table(max($o{rows}, BATCH));
	prepare_dvmig();
	my $bodies = sql(sprintf q{SELECT string_agg(substring(request FROM '[{].*[}]'), ',') FROM dvmig.preview('bench.account', %d)}, BATCH);
	open(my $out, '>:raw', $file) or die "$file: $!";
	print $out qq({"Targets":[$bodies]});
	close $out;
	printf "%d bytes of JSON a row\n", (-s $file) / BATCH;
	return $file;
}

sub measure_ceiling
{
	my ($rows, $in_flight) = @_;
	my $body = ready_made_body();
	my @ca = $o{origin} =~ /^https/ ? ("$o{work}/tls/ca.crt") : ();
	return measure($rows, sub { run_program("$FindBin::Bin/ceiling", url(), TOKEN, $in_flight, int($rows / BATCH), $body, @ca) });
}

sub measure_copy
{
	my ($rows) = @_;
	fresh_table($rows);
	settle_down();
	return measure($rows, sub { sql(q{COPY bench.account TO STDOUT}, '-o', '/dev/null'); return; });
}

# One UPDATE of the whole table that does to each row what a verdict does.
sub measure_update
{
	my ($rows) = @_;
	fresh_table($rows);
	prepare_dvmig();
	settle_down();
	return measure($rows, sub { sql(q{UPDATE bench.account SET processing_flag = 'P', dataverse_id = gen_random_uuid()}); return; });
}

sub measure_client
{
	my ($rows, $in_flight) = @_;
	fresh_table($rows);
	sql(q{ALTER TABLE bench.account ADD processing_flag text NOT NULL DEFAULT 'U', ADD dataverse_id uuid;
		CREATE TABLE bench.client_outcome (account_id int, dataverse_id uuid)});
	settle_down();
	my $r = measure($rows, sub {
		local $ENV{NODE_EXTRA_CA_CERTS} = "$o{work}/tls/ca.crt";
		local $ENV{NODE_PATH} = "$o{work}/node/node_modules";
		return run_program('node', "$o{work}/node/client.mjs", url(), TOKEN, $in_flight, 'bench.account', 'bench.client_outcome');
	});
	expect($rows, 'client', q{SELECT count(*) FILTER (WHERE processing_flag = 'P'), count(DISTINCT o.dataverse_id), count(*) FILTER (WHERE o.dataverse_id = s.dataverse_id)
		FROM bench.account s JOIN bench.client_outcome o USING (account_id)});
	return $r;
}

sub prepare_dvmig
{
	my $maps = join ';', map { "SELECT dvmig.map_column('bench.account', '$_', '$_')" } @texts, qw(revenue numberofemployees creditonhold);
	sql(qq{SELECT dvmig.drop_migration('bench', true) FROM dvmig.migration WHERE name = 'bench';
		SELECT dvmig.create_migration('bench', 'bench');
		SELECT dvmig.add_table('bench', 'bench.account', 'account', source_key => 'account_id', target_key => 'new_legacyid', auto_map => false);
		$maps; SELECT dvmig.map_column('bench.account', 'lastonholdtime', 'lastonholdtime')}, '-o', '/dev/null');
	return;
}

# Anonymous memory of every worker of a run, in MB, while it runs.
sub watch_memory
{
	my ($r, $pid) = @_;
	while (waitpid($pid, WNOHANG) == 0)
	{
		for my $status (glob '/proc/[0-9]*/status')
		{
			open(my $in, '<', $status) or next;
			local $/;
			my $text = <$in> // next;
			next unless $text =~ /^PPid:\s+$o{postmaster}$/m && $text =~ /^RssAnon:\s+(\d+) kB/m;
			my $mb = $1 / 1024;
			my ($number) = $status =~ /(\d+)/;
			open(my $command, '<', "/proc/$number/cmdline") or next;
			push @{ $r->{memory}{$number} }, $mb if (<$command> // '') =~ /dvmig/;
		}
		sleep 0.1;
	}
	return;
}

sub measure_dvmig
{
	my ($rows, $lanes) = @_;
	my %memory;
	my $sample = { memory => \%memory };
	fresh_table($rows);
	prepare_dvmig();
	settle_down();
	my $r = measure($rows, sub {
		my $run = sql("SELECT dvmig.start('bench'" . ($lanes == 1 ? '' : ", lanes => $lanes") . ')');
		my $pid = fork // die "fork: $!";
		if ($pid == 0)
		{
			exec 'psql', '-X', '-q', '-o', '/dev/null', '-c', "SELECT dvmig.wait($run)" or POSIX::_exit(127);
		}
		watch_memory($sample, $pid);
		my ($state, $seconds, $why) = split /\t/, sql("SELECT state, extract(epoch FROM ended_at - started_at), message FROM dvmig.run_history WHERE run = $run");
		die "measure.pl: the run is $state: $why\n" unless $state eq 'completed';
		return $seconds;
	});
	$r->{memory} = max(0, map { @$_ } values %memory);
	expect($rows, "dvmig, $lanes lanes", q{SELECT count(*) FILTER (WHERE s.processing_flag = 'P'), count(DISTINCT o.dataverse_id),
		count(*) FILTER (WHERE o.dataverse_id = s.dataverse_id AND o.dataverse_id = dvmig.record_id(t.namespace, s.account_id))
		FROM dvmig.migration_table t, bench.account s JOIN bench.account_success o USING (account_id) WHERE t.staging = 'bench.account'::regclass});
	return $r;
}

# Every row flagged, every id there once, every id right, and as many rows sent.
sub expect
{
	my ($rows, $who, $query) = @_;
	my $counts = sql($query) . "\t" . sim('stats')->{rows_created};
	die "measure.pl: $who: flagged, distinct ids, right ids, created are $counts instead of $rows each\n"
	  unless $counts eq join "\t", ($rows) x 4;
	return;
}

# ---------------------------------------------------------------------- report

sub both
{
	my ($name, $quick, $far) = @_;
	return if $o{only} && $name !~ /$o{only}/;
	print STDERR "measuring: $name\n";
	far(0);
	$result{$name}{quick} = $quick->($o{rows}) if $quick && $o{rows};
	far(1);
	$result{$name}{far} = $far->($o{far}) if $far && $o{far};
	far(0);
	push @{ $result{order} }, $name;
	return;
}

sub figure
{
	my ($r, $what, $format) = @_;
	return defined $r && defined $r->{$what} ? sprintf($format, $r->{$what}) : '';
}

sub ratio
{
	my ($name, $against, $mode) = @_;
	my ($a, $b) = ($result{$name}{$mode}, $result{$against}{$mode});
	return $a && $b && $name ne $against ? sprintf('%.2f', $a->{rate} / $b->{rate}) : '';
}

sub report
{
	my @head = ('', 'rows/s, instant', 'x client', "rows/s, $o{'in-flight'} in flight", 'of ceiling', 'CPU-s/M rows', 'WAL B/row', 'RssAnon MB');
	my @lines = map {
		my $n = $_;
		my $r = $result{$n};
		[ $n, figure($r->{quick}, rate => '%.0f'), ratio($n, 'client', 'quick'), figure($r->{far}, rate => '%.0f'), ratio($n, 'ceiling', 'far'),
			figure($r->{quick}, cpu => '%.1f'), figure($r->{quick}, wal => '%.0f'), figure($r->{far} // $r->{quick}, memory => '%.0f') ]
	} @{ $result{order} };
	print "\n| ", join(' | ', @$_), " |\n" for \@head;
	print '|', ' --- |' x @head, "\n";
	print '| ', join(' | ', @$_), " |\n" for @lines;
	return;
}

both('ceiling', sub { measure_ceiling($_[0], $o{'quick-in-flight'}) }, sub { measure_ceiling($_[0], $o{'in-flight'}) });
both('COPY TO', \&measure_copy);
both('UPDATE', \&measure_update);
both('client', sub { measure_client($_[0], $o{'quick-in-flight'}) }, sub { measure_client($_[0], $o{'in-flight'}) }) if $o{client} // 1;
for my $lanes (split /,/, $o{lanes})
{
	both("dvmig, lanes => $lanes", sub { measure_dvmig($_[0], $lanes) }, sub { measure_dvmig($_[0], $lanes) });
}
report();

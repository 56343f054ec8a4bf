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

my %o = (rows => 200_000, far => 600_000, 'in-flight' => 52, lanes => '1,2,16', 'quick-in-flight' => 16, many => 0, large => 3_000_000);
GetOptions(\%o, 'more', 'flag-index', 'json=s', 'many=i', 'large=i', 'rows=i', 'far=i', 'in-flight=i', 'quick-in-flight=i', 'lanes=s', 'only=s', 'postmaster=i', 'sim=i', 'origin=s', 'work=s', 'client!')
  or exit 2;

my $tick = sysconf(_SC_CLK_TCK);
my @texts = qw(name accountnumber telephone1 fax websiteurl emailaddress1 address1_line1 address1_city address1_postalcode description);
my $room = 'WITH (fillfactor = 50)';
my %result;
my $current_rows = 0;
my @notes;

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
	my ($rows, $with) = @_;
	sql(q{SET client_min_messages = warning; SELECT dvmig.drop_migration('bench', true) FROM dvmig.migration WHERE name = 'bench';
		DROP TABLE IF EXISTS bench.account, bench.account_success, bench.account_error, bench.client_outcome, bench.parent, bench.many CASCADE}, '-o', '/dev/null');
	if ($current_rows != $rows)
	{
		system('psql', '-X', '-q', '-v', "rows=$rows", '-f', "$FindBin::Bin/rows.sql") == 0 or die "no rows\n";
		$current_rows = $rows;
	}
	sql('CREATE TABLE bench.account (LIKE bench.origin, PRIMARY KEY (account_id)) ' . ($with // '') . q{;
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
	my ($rows, $in_flight, $with) = @_;
	fresh_table($rows, $with);
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
	# one load of all rows, as doc/performance.md advises for it; --flag-index: as it is by default
	my $flag_index = $o{'flag-index'} ? 'true' : 'false';
	my $maps = join ';', map { "SELECT dvmig.map_column('bench.account', '$_', '$_')" } @texts, qw(revenue numberofemployees creditonhold);
	sql(qq{SELECT dvmig.create_migration('bench', 'bench');
		SELECT dvmig.add_table('bench', 'bench.account', 'account', source_key => 'account_id', target_key => 'new_legacyid', auto_map => false, flag_index => $flag_index);
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

sub run_quietly
{
	my ($arguments) = @_;
	local $ENV{PGOPTIONS} = '-c client_min_messages=warning';
	sql("CALL dvmig.run('bench', lanes => 1$arguments)");
	return;
}

# A parent for every row, a choice, a trim policy that acts on one row of ten,
# and two expressions; some parents failed if asked for.
sub prepare_mapped
{
	my ($failed) = @_;
	sql(q{ALTER TABLE bench.account ADD parent_id int, ADD branch text;
		UPDATE bench.account SET parent_id = 1 + account_id % 20000, branch = (ARRAY['Accounting', 'Insurance', 'Consulting'])[1 + account_id % 3],
			telephone1 = CASE WHEN account_id % 10 = 0 THEN repeat(telephone1, 4) ELSE telephone1 END;
		CREATE TABLE bench.parent (id int PRIMARY KEY, name text);
		INSERT INTO bench.parent SELECT g, 'Parent ' || g FROM generate_series(1, 20000) g});
	sql('VACUUM FULL bench.account');
	prepare_dvmig();
	sql(q{SELECT dvmig.add_table('bench', 'bench.parent', 'account', source_key => 'id', target_key => 'new_legacyid', auto_map => false);
		SELECT dvmig.map_column('bench.parent', 'name', 'name');
		SELECT dvmig.unmap('bench.account', c) FROM unnest('{telephone1,emailaddress1,revenue}'::text[]) c;
		SELECT dvmig.map_column('bench.account', 'telephone1', 'telephone1', on_too_long => 'trim');
		SELECT dvmig.map_column('bench.account', 'emailaddress1', 'lower(emailaddress1)');
		SELECT dvmig.map_column('bench.account', 'revenue', 'round(revenue * 1.1, 2)');
		SELECT dvmig.map_choice('bench.account', 'industrycode', 'branch');
		SELECT dvmig.map_lookup('bench.account', 'parentaccountid', 'parent_id', 'bench.parent')}, '-o', '/dev/null');
	run_quietly(q{, tables => '{bench.parent}'});
	sql(q{UPDATE bench.parent SET processing_flag = 'E' WHERE id % 1000 = 7}) if $failed;
	return;
}

# What of %how: with => storage of the table, mapped => 1, failed => 1 (some
# parents), reload => 1 (measured is a second run over equal rows).
sub measure_dvmig
{
	my ($rows, $lanes, %how) = @_;
	fresh_table($rows, $how{with});
	$how{mapped} ? prepare_mapped($how{failed}) : prepare_dvmig();
	if ($how{reload})
	{
		run_quietly('');
		sql(q{UPDATE bench.account SET processing_flag = 'U'});
		sql('VACUUM ANALYZE bench.account_success');
	}
	settle_down();
	my $r = run_measured($rows, $lanes);
	my $waiting = $how{failed} ? sql(q{SELECT count(*) FROM bench.account a JOIN bench.parent p ON p.id = a.parent_id WHERE p.processing_flag = 'E'}) : 0;
	expect($rows - $waiting, "dvmig, $lanes lanes", q{SELECT count(*) FILTER (WHERE s.processing_flag = 'P'), count(DISTINCT o.dataverse_id),
		count(*) FILTER (WHERE o.dataverse_id = s.dataverse_id AND o.dataverse_id = dvmig.record_id(t.namespace, s.account_id))
		FROM dvmig.migration_table t, bench.account s JOIN bench.account_success o USING (account_id) WHERE t.staging = 'bench.account'::regclass}, $how{reload});
	return $r;
}

# A run over bench.account, with the memory of its workers.
sub run_measured
{
	my ($rows, $lanes) = @_;
	my %memory;
	my $sample = { memory => \%memory };
	my $started;
	my $r = measure($rows, sub {
		my $began = time;
		my $pid = fork // die "fork: $!";
		if ($pid == 0)
		{
			# waits without a snapshot, which SELECT dvmig.wait() has: nothing that the run leaves could be pruned meanwhile
			exec 'psql', '-X', '-q', '-o', '/dev/null', '-c', 'SET client_min_messages = warning', '-c',
				"CALL dvmig.run('bench', tables => '{bench.account}', lanes => $lanes)" or POSIX::_exit(127);
		}
		watch_memory($sample, $pid);
		my ($state, $seconds, $why, $at) = split /\t/, sql('SELECT state, extract(epoch FROM ended_at - started_at), message, extract(epoch FROM started_at)
			FROM dvmig.run_history ORDER BY run DESC LIMIT 1');
		$started = $at - $began;
		die "measure.pl: the run is $state: $why\n" unless $state eq 'completed';
		return $seconds;
	});
	$r->{memory} = max(0, map { @$_ } values %memory);
	$r->{started} = $started;
	return $r;
}

# So many flagged rows among many: how long a run takes, with and without the index.
sub measure_few
{
	my ($many, $index) = @_;
	fresh_table($o{rows});
	sql(qq{CREATE TABLE bench.many (id int PRIMARY KEY, name text, processing_flag char(1) NOT NULL DEFAULT 'P', dataverse_id uuid);
		INSERT INTO bench.many (id, name) SELECT g, 'Company ' || g FROM generate_series(1, $many) g;
		SELECT dvmig.create_migration('bench', 'bench');
		SELECT dvmig.add_table('bench', 'bench.many', 'account', source_key => 'id', flag_index => $index);
		SELECT dvmig.map_column('bench.many', 'name', 'name')}, '-o', '/dev/null');
	sql('VACUUM (ANALYZE) bench.many');
	sql("UPDATE bench.many SET processing_flag = 'U' WHERE id % ($many / 1000) = 1");
	sql('CHECKPOINT');
	sim('reset?keep=records', '');
	my $r = measure(1000, sub {
		my $run = sql("SELECT dvmig.start('bench', lanes => 1)");
		sql("SELECT dvmig.wait($run)");
		return sql("SELECT extract(epoch FROM ended_at - started_at) FROM dvmig.run_history WHERE run = $run");
	});
	die "measure.pl: not all flagged rows were sent\n" unless sim('stats')->{rows_created} == 1000;
	return $r;
}

# Every row flagged, every id there once, every id right, and as many rows sent.
sub expect
{
	my ($rows, $who, $query, $none_sent) = @_;
	my $created = sim('stats')->{rows_created};
	my $counts = sql($query) . "\t" . ($none_sent && $created == 0 ? $rows : $created);
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
	# start() compares loaded rows with what was sent, before anything else is done about them
	push @notes, sprintf('start() recognised %.0f rows/s as unchanged', $o{rows} / $result{$name}{quick}{started}) if $name =~ /reload/ && $o{rows};
	return;
}

sub figure
{
	my ($r, $what, $format) = @_;
	return defined $r && defined $r->{$what} ? sprintf($format, $r->{$what}) : '';
}

# Rows a second as a multiple; whose pages have room beside the client's whose have.
sub ratio
{
	my ($name, $against, $mode) = @_;
	$against = "$against, fillfactor 50" if $name =~ /fillfactor 50/ && $against eq 'client';
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
	print "$_\n" for @notes;
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
if ($o{more})
{
	both('client, fillfactor 50', sub { measure_client($_[0], $o{'quick-in-flight'}, $room) }) if $o{client} // 1;
	both('dvmig, fillfactor 50', sub { measure_dvmig($_[0], 1, with => $room) });
	both('dvmig, fillfactor 50, lanes => 2', sub { measure_dvmig($_[0], 2, with => $room) });
	both('dvmig, lookup, choice and expressions', sub { measure_dvmig($_[0], 1, mapped => 1) });
	both('dvmig, the same, some parents failed', sub { measure_dvmig($_[0], 1, mapped => 1, failed => 1) });
	both('dvmig, reload of equal rows', sub { measure_dvmig($_[0], 1, reload => 1) });
	both('dvmig, 100000 rows', sub { measure_dvmig(100_000, 1) });
	both("dvmig, $o{large} rows", sub { measure_dvmig($o{large}, 1) });
}
if ($o{json})
{
	open(my $out, '>', $o{json}) or die "$o{json}: $!";
	print $out JSON::PP->new->canonical->encode(\%result);
	close $out;
}
report();
if ($o{many})
{
	for my $index (qw(false true))
	{
		printf "1000 flagged rows of %d, flag_index => %s: %.1f seconds, %.2f CPU seconds\n", $o{many}, $index,
		  map { $_->{seconds}, $_->{cpu} / 1000 } measure_few($o{many}, $index);
	}
}

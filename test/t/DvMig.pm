# DvMig - what the tests of the extension share
#
#   use DvMig;
#   my $t = DvMig->new(profile => 'strict');     # a cluster and a simulator
#   $t->sql(q{CREATE TABLE ...});
#   $t->migration('m');                          # server, user mapping, migration
#   $t->sql(q{SELECT dvmig.add_table('m', ...)});
#   my $run = $t->run('m');                      # {state => 'completed', ...}
#   $t->account('m', 'people' => {lastname => 's.family'});
#
# account() is the heart: after whatever happened, every row has one verdict,
# the flags and the outcome tables agree, and what Dataverse holds is what the
# staging tables say, field by field, once.
package DvMig;

use strict;
use warnings;

use Carp;
use Encode qw(decode encode);
use IPC::Run ();
use JSON::PP;
use Test::More;
use Time::HiRes qw(sleep time);

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

use DvMig::Sim;

my $count = 0;

# new(profile =>, set => {}, tls => 1, conf => "line\n", name =>, init => [...],
# install_path => of another PostgreSQL): a running cluster with the extension and a running simulator.
sub new
{
	my ($class, %o) = @_;
	my $name = $o{name} // 'main' . $count++;
	my $node = PostgreSQL::Test::Cluster->new($name, map { $_ => $o{$_} } grep { $o{$_} } 'install_path');
	my $self = bless { node => $node, db => 'postgres' }, $class;

	$node->init(extra => [ '--encoding=UTF8', '--locale=C' ], @{ $o{init} // [] });
	$node->append_conf('postgresql.conf', "max_worker_processes = 16\nlog_min_messages = info\n" . ($o{conf} // ''));
	$node->start;
	$self->{sim} = DvMig::Sim->start(map { $_ => $o{$_} } grep { exists $o{$_} } qw(profile set tls args))
	  unless $o{no_sim};
	$self->sql('CREATE EXTENSION dvmig') unless $o{no_extension};
	return $self;
}

sub node { return $_[0]{node}; }
sub sim { return $_[0]{sim}; }

# sql(text): the result as psql prints it unaligned; dies on an error.
sub sql
{
	my ($self, $text) = @_;
	my ($out, $err);

	$self->{node}->psql($self->{db}, $text, stdout => \$out, stderr => \$err,
		on_error_die => 1, on_error_stop => 1, timeout => $PostgreSQL::Test::Utils::timeout_default, extra_params => ['-v', 'VERBOSITY=verbose']);
	return $out;
}

# error(text): the error it makes, with SQLSTATE, or '' where it makes none.
sub error
{
	my ($self, $text) = @_;
	my ($out, $err);
	my $status = $self->{node}->psql($self->{db}, $text, stdout => \$out, stderr => \$err, on_error_stop => 1,
		timeout => $PostgreSQL::Test::Utils::timeout_default, extra_params => ['-v', 'VERBOSITY=verbose']);
	return $status == 0 ? '' : $err;
}

# rows(query): array of hashes, by way of JSON so that nulls, quotes and line
# breaks come through.
sub rows
{
	my ($self, $query) = @_;
	my $text = $self->sql("SELECT coalesce(json_agg(q), '[]') FROM ($query) q");
	return JSON::PP->new->utf8->allow_bignum->decode($text);
}

# server(name): a foreign server for the simulator and our user mapping for it.
sub server
{
	my ($self, $name, %o) = @_;
	my $url = $o{url} // $self->{sim}->url;
	my $ca = $url =~ /^https/ ? sprintf(", ca_file '%s'", $self->{sim}->ca_file) : '';

	$self->sql(sprintf(
		q{CREATE SERVER %s FOREIGN DATA WRAPPER dataverse
			OPTIONS (url '%s', authority '%2$s', tenant '%s', environment '%s'%s);
		CREATE USER MAPPING FOR CURRENT_USER SERVER %1$s OPTIONS (client_id '%s', client_secret '%s')},
		$name, $url, $o{tenant} // DvMig::Sim::TENANT, $o{environment} // 'test', $ca,
		$o{client} // DvMig::Sim::CLIENT, $o{secret} // DvMig::Sim::SECRET));
	return;
}

# migration(name, tables => 'account,contact'): server "sim" once, metadata, migration.
sub migration
{
	my ($self, $name, %o) = @_;

	$self->server('sim', %o) unless $self->{has_server}++;
	$self->sql("SELECT * FROM dvmig.refresh_metadata('sim', '{$o{tables}}')") if $o{tables};
	$self->sql("SELECT dvmig.create_migration('$name', 'sim')");
	return;
}

# run(migration, arguments): in the foreground; the row of run_history.
sub run
{
	my ($self, $migration, $arguments) = @_;
	my ($out, $err);

	$self->{node}->psql($self->{db}, "CALL dvmig.run('$migration'" . ($arguments ? ", $arguments" : '') . ')',
		stdout => \$out, stderr => \$err, timeout => $PostgreSQL::Test::Utils::timeout_default);
	$self->{last_output} = $err;
	my $run = $self->rows(
		"SELECT * FROM dvmig.run_history WHERE migration = '$migration' ORDER BY run DESC LIMIT 1")->[0];
	diag("run: $run->{state} $run->{message}\n$err") if $run && $run->{state} !~ /^(completed|held)$/ && !$self->{quiet};
	return $run // { state => 'none', message => $err };
}

# start(migration): in the background; the number of the run.
sub start
{
	my ($self, $migration, $arguments) = @_;
	return $self->sql("SELECT dvmig.start('$migration'" . ($arguments ? ", $arguments" : '') . ')');
}

# until(what, code): poll until it is true; else a failed test that says what was waited for.
sub until
{
	my ($self, $what, $code) = @_;
	my $end = time() + ($ENV{PG_TEST_TIMEOUT_DEFAULT} // 180);

	until ($code->())
	{
		if (time() > $end)
		{
			fail("waiting until $what");
			return 0;
		}
		sleep 0.02;
	}
	return 1;
}

# wait_for(query): poll until it gives true; false after the time that a test may wait. A server that lets
# nobody in is asked again. (The query is no input of psql's: one that is refused would break that pipe.)
sub wait_for
{
	my ($self, $query) = @_;
	my $end = time() + ($ENV{PG_TEST_TIMEOUT_DEFAULT} // 180);
	my ($out, $err);

	for (;;)
	{
		IPC::Run::run([ $self->{node}->installed_command('psql'), '-XAtq', '-d', $self->{node}->connstr($self->{db}), '-c', $query ],
			'<', '/dev/null', '>', \$out, '2>', \$err);
		chomp $out;
		return 1 if $out eq 't';
		last if time() > $end;
		sleep 0.05;
	}
	diag("waited for: $query\nit gave: $out\n$err");
	return 0;
}

# await_server: poll until it lets sessions in.
sub await_server
{
	my ($self) = @_;
	return $self->until('the server is back', sub { system('pg_isready', '-q', '-d', $self->{node}->connstr('postgres')) == 0 });
}

# kill_process(pid): kill -9 for a process of the server, which ends all others, and wait until it is back.
# It lets sessions in until its first process has seen that one was killed, and then takes it off the list.
sub kill_process
{
	my ($self, $pid) = @_;

	# 0 would be the group of this test
	die "no process to kill\n" unless ($pid // 0) > 1;
	kill 'KILL', $pid or return 0;
	return $self->until("process $pid is gone", sub { !kill 0, $pid }) && $self->await_server;
}

# finish(run): wait for the end of a run; its row of run_history. One that does not end is a failed test.
sub finish
{
	my ($self, $run) = @_;

	$self->until("run $run ends", sub { $self->sql("SELECT dvmig.wait($run, '1 s')") !~ /^(starting|running|stopping)$/ });
	return $self->rows("SELECT * FROM dvmig.run_history WHERE run = $run")->[0];
}

# ended(run as a hash): its state and what it says
sub ended { return "$_[1]{state}: " . ($_[1]{message} // ''); }

# job(call): a call that waits for a run of its own, and may take the server with it; the run's row
sub job
{
	my ($self, $call) = @_;
	my $last = $self->sql('SELECT coalesce(max(run), 0) FROM dvmig.run_history');
	my $error = $self->error("SELECT $call");

	$self->await_server;
	my $run = $self->rows("SELECT * FROM dvmig.run_history WHERE run > $last ORDER BY run DESC LIMIT 1")->[0] // { state => 'refused' };
	return { %$run, message => $run->{message} // $error };
}

# status(staging): the row of dvmig.status.
sub status
{
	my ($self, $staging) = @_;
	return $self->rows("SELECT * FROM dvmig.status WHERE to_regclass(staging) = '$staging'::regclass")->[0];
}

# counts(staging): "staged/unprocessed/succeeded/failed/left out" of dvmig.status
sub counts
{
	my ($self, $staging) = @_;
	my $s = $self->status($staging) // return 'no such table';
	return join '/', @$s{qw(staged unprocessed succeeded failed left_out)};
}

# load_file(path): run an SQL file, untouched, in a database.
sub load_file
{
	my ($self, $path, $db) = @_;

	command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $self->{node}->connstr($db // $self->{db}), '-f', $path ],
		'load ' . ($path =~ s{.*/}{}r));
	return;
}

# tables_of_dvmig(but these): all that is in the extension's own tables, as text.
sub tables_of_dvmig
{
	my ($self, @but) = @_;
	my %but = map { $_ => 1 } @but;
	my @tables = split /\n/, $self->sql(q{SELECT relname FROM pg_class WHERE relnamespace = 'dvmig'::regnamespace AND relkind = 'r'});

	return join "\n", map { $self->sql(qq{SELECT x FROM dvmig."$_" x}) } grep { !$but{$_} } @tables;
}

# shared_data(name): a file or folder of third-party material, or undef.
sub shared_data
{
	my ($name) = @_;
	my $dir = $ENV{DVMIG_SHARED_DATA} || "$FindBin::RealBin/../../../shared/data";
	return -e "$dir/$name" ? "$dir/$name" : undef;
}

# Do the sanitizers or valgrind watch the server? Then its memory is theirs, too.
sub instrumented { return ($ENV{DV_SANITIZE} // '') =~ /address|valgrind/; }

# -------------------------------------------------------------------- account

# account(migration, staging => {field => SQL expression over s} ...):
# one test each for the books of every table and for what Dataverse holds. A
# field is a column of the exported record; of a lookup, "_name_value". Tables
# without an entry are counted but not compared by field. Options, with a
# leading dash: -extra => n records in Dataverse that the migration did not make.
sub account
{
	my ($self, $migration, %compare) = @_;
	my $extra = delete $compare{-extra} // {};
	my %by_set;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my $tables = $self->rows(qq{
		SELECT t.staging::text AS staging, t.success_table::text AS ok, t.error_table::text AS er, t.source_key AS key,
			coalesce('CASE WHEN s.processing_flag = ''U'' THEN (' || t.filter_sql || ') IS TRUE END', 'true') AS filter, m.entity_set, m.primary_id
		FROM dvmig.migration_table t JOIN dvmig.migration g USING (migration_id)
		JOIN dvmig.metadata_table m ON m.server = g.server AND m.table_name = t.target
		WHERE g.name = '$migration' AND t.relationship IS NULL ORDER BY t.staging::text});
	ok(scalar(@$tables), "$migration has tables") or return;
	for my $t (@$tables)
	{
		my $rows = $self->staging_rows($t, $compare{ $t->{staging} } // {});

		is($self->check_books($t, $rows), '', "$t->{staging}: flags and outcome tables agree");
		push @{ $by_set{ $t->{entity_set} } }, [ $t, $rows ];
	}
	for my $set (sort keys %by_set)
	{
		my %held;
		my @wrong;
		my $id_name = $by_set{$set}[0][0]{primary_id};

		for my $record (@{ $self->{sim}->export($set) })
		{
			push @wrong, "doubled: $record->{$id_name}" if $held{ lc $record->{$id_name} };
			$held{ lc $record->{$id_name} } = $record;
		}
		push @wrong, compare_rows(\%held, @$_, $compare{ $_->[0]{staging} } // {}) for @{ $by_set{$set} };
		my $twice = $self->{sim}->counters($set)->{created_twice};
		push @wrong, "create logic ran more than once for $twice records" if $twice;
		my $rest = grep { !$_->{'seen'} } values %held;
		my $expected = $extra->{$set} // 0;
		push @wrong, "$rest records that belong to no row, not $expected" if $rest != $expected;
		is(join("\n", @wrong[ 0 .. ($#wrong > 9 ? 9 : $#wrong) ]), '',
			"$set: Dataverse holds what the staging tables say (" . keys(%held) . ' records)');
	}
	return;
}

# staging_rows: every staging row with its flag, ids, outcomes and the values
# that are to be compared.
sub staging_rows
{
	my ($self, $t, $compare) = @_;
	my $using = join ', ', map { qq{"$_"} } @{ $t->{key} };
	my $first = qq{"$t->{key}[0]"};
	my $fields = join '', map { qq{, ($compare->{$_}) AS "$_"} } sort keys %$compare;

	return $self->rows(qq{
		SELECT concat_ws('|', @{[ join ', ', map { qq{s."$_"} } @{ $t->{key} } ]}) AS "-key", s.processing_flag AS "-flag",
			s.action_flag AS "-action", s.dataverse_id AS "-id", $t->{filter} AS "-wanted",
			ok.$first IS NOT NULL AS "-ok", ok.dataverse_id AS "-ok_id", ok.operation AS "-operation",
			er.$first IS NOT NULL AS "-er", er.dataverse_id AS "-er_id"$fields
		FROM $t->{staging} s LEFT JOIN $t->{ok} ok USING ($using) LEFT JOIN $t->{er} er USING ($using)});
}

# check_books: promise 1 from the tables themselves, and dvmig.status's figures.
sub check_books
{
	my ($self, $t, $rows) = @_;
	my %n = map { $_ => 0 } qw(staged unprocessed succeeded failed left_out);
	my @wrong;

	for my $r (@$rows)
	{
		my $flag = $r->{-flag};

		$n{staged}++;
		$n{$flag =~ /[SP]/ ? 'succeeded' : $flag eq 'E' ? 'failed' : $r->{-wanted} ? 'unprocessed' : 'left_out'}++;
		push @wrong, "$r->{-key} is in both outcome tables" if $r->{-ok} && $r->{-er};
		push @wrong, "$r->{-key} is $flag without a success row" if $flag =~ /[SP]/ && !$r->{-ok};
		push @wrong, "$r->{-key} is E without an error row" if $flag eq 'E' && !$r->{-er};
		push @wrong, "$r->{-key} has two ids"
		  if $flag =~ /[SP]/ && ($r->{-id} // '') ne ($r->{-ok_id} // '') && ($r->{-operation} // '') ne 'D';
	}
	my $status = $self->status($t->{staging}) // {};
	for my $what (sort keys %n)
	{
		push @wrong, "$what is $n{$what}, dvmig.status says " . ($status->{$what} // 'nothing')
		  if $n{$what} != ($status->{$what} // -1);
	}
	push @wrong, 'dvmig.status does not add up' unless $status->{invariant_holds};
	splice(@wrong, 10) if @wrong > 10;
	return join "\n", @wrong;
}

# compare_rows: rows against the records held, marking those seen.
sub compare_rows
{
	my ($held, $t, $rows, $compare) = @_;
	my @wrong;

	for my $r (@$rows)
	{
		my $done = $r->{-flag} =~ /[SP]/;
		my $deleted = ($r->{-action} // '') eq 'D';
		my $id = lc($done ? $r->{-id} // '' : $r->{-er_id} // $r->{-ok_id} // '');
		my $record = $held->{$id};

		if ($done && $deleted)
		{
			push @wrong, "$t->{staging} $r->{-key}: deleted, but held" if $record;
			next;
		}
		if ($done && !$record)
		{
			push @wrong, "$t->{staging} $r->{-key}: lost";
			next;
		}
		$record->{seen} = 1 if $record;
		next unless $done;
		for my $field (sort keys %$compare)
		{
			push @wrong, sprintf('%s %s: %s is %s, not %s', $t->{staging}, $r->{-key}, $field,
				map { defined $_ ? "'" . encode('UTF-8', substr($_, 0, 80)) . "'" : 'null' } plain($record->{$field}), plain($r->{$field}))
			  unless same($record->{$field}, $r->{$field});
		}
	}
	return @wrong;
}

sub plain
{
	my ($v) = @_;
	return JSON::PP::is_bool($v) ? ($v ? 'true' : 'false') : $v;
}

# same: one value? Empty text and none are one to Dataverse; numbers are
# compared as numbers, instants as Dataverse prints them.
sub same
{
	my ($have, $want) = map { plain($_) } @_;

	return 1 if ($have // '') eq ($want // '');
	return 0 unless defined $have && defined $want;
	return $have == $want if $have =~ /^-?\d+(?:\.\d+)?(?:e[+-]?\d+)?$/i && $want =~ /^-?\d+(?:\.\d+)?(?:e[+-]?\d+)?$/i
	  && length $have < 16 && length $want < 16;
	return 1 if lc $have eq lc $want && $have =~ /^[0-9a-f]{8}-[0-9a-f-]{27}$/i;
	return 0;
}

1;

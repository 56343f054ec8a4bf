# DvMig::Held - runs whose requests hang, for tests of what goes on beside them
#
#   my $h = DvMig::Held->new(name => 'citizen');
#   my $table = $h->scene(rows => 600);           # a migration of one table, Dataverse empty
#   $h->hold(method => 'POST', path_contains => 'CreateMultiple');
#   my $run = $h->start;                          # returns when requests hang
#   $h->beside('VACUUM FULL', "VACUUM FULL $table");
#   $h->release;                                  # what hangs is answered
#   $h->ends($run, 'completed');
#
# A request that is held is answered when release() says so and not before:
# what comes to its end in between did not wait for the network, however fast
# or slow the machine is.
package DvMig::Held;

use strict;
use warnings;

use IPC::Run ();
use JSON::PP;
use Test::More;

use DvMig;

my $scenes = 0;

# new(as for DvMig): few requests at first, so that rows are left to be read while they hang
sub new
{
	my ($class, %o) = @_;
	my $t = DvMig->new(%o, set => { dop_hint => 16, %{ $o{set} // {} } });

	return bless { t => $t }, $class;
}

sub t { return $_[0]{t}; }
sub sim { return $_[0]{t}->sim; }
sub sql { my ($self, @rest) = @_; return $self->{t}->sql(@rest); }
sub migration { return $_[0]{migration}; }
sub table { return $_[0]{table}; }

# scene(rows =>, db =>, parts => number of partitions, users => 2, prepare => SQL over %s): an empty Dataverse, a fresh
# staging table of contacts and its migration, with two application users where asked; the table's name.
sub scene
{
	my ($self, %o) = @_;
	my $t = $self->{t};
	my $n = ++$scenes;

	$self->sim->sim('POST', 'reset');
	if ($o{db})
	{
		$t->{db} = 'postgres';
		$t->sql("CREATE DATABASE $o{db}");
		$t->{db} = $o{db};
		$t->sql('CREATE EXTENSION dvmig');
		delete $t->{has_server};
	}
	$self->{migration} = "m$n";
	$self->{table} = "people$n";
	$self->{rows} = $o{rows} // 300;
	$t->sql("CREATE TABLE $self->{table} (id int PRIMARY KEY, family text, city text, spare text)" . ($o{parts} ? ' PARTITION BY HASH (id)' : ''));
	$t->sql("CREATE TABLE $self->{table}_$_ PARTITION OF $self->{table} FOR VALUES WITH (MODULUS $o{parts}, REMAINDER $_)") for 0 .. ($o{parts} // 0) - 1;
	$t->sql(sprintf $o{prepare}, $self->{table}) if $o{prepare};
	$t->migration($self->{migration}, tables => 'contact');
	$t->sql(sprintf q{ALTER USER MAPPING FOR CURRENT_USER SERVER sim OPTIONS (ADD client_id2 '%s', client_secret2 '%s')},
		DvMig::Sim::CLIENT2, DvMig::Sim::SECRET2)
	  if ($o{users} // 1) > 1 && $t->{has_server} == 1;
	# What earlier scenes learnt would put all rows into one request.
	$t->sql('DELETE FROM dvmig.table_pace');
	$t->sql(qq{
		SELECT dvmig.add_table('m$n', '$self->{table}', 'contact', source_key => 'id', target_key => 'new_legacyid');
		SELECT dvmig.map_column('$self->{table}', 'lastname', 'family');
		SELECT dvmig.map_column('$self->{table}', 'address1_city', 'city')});
	$self->load;
	return $self->{table};
}

# links(n): so many lists and tracks, a table of pairs of them that has none yet, and their migration "links"
sub links
{
	my ($self, $n) = @_;
	my $t = $self->{t};

	$t->sql(qq{
		CREATE TABLE lists (id int PRIMARY KEY, name text); INSERT INTO lists SELECT n, 'L' || n FROM generate_series(1, $n) n;
		CREATE TABLE tracks (id int PRIMARY KEY, name text); INSERT INTO tracks SELECT n, 'T' || n FROM generate_series(1, $n) n;
		CREATE TABLE pairs (list int, track int, PRIMARY KEY (list, track))});
	$t->migration('links', tables => 'new_playlist,new_track');
	$t->sql(q{
		SELECT dvmig.add_table('links', 'lists', 'new_playlist', auto_map => false); SELECT dvmig.map_column('lists', 'new_name', 'name');
		SELECT dvmig.add_table('links', 'tracks', 'new_track', auto_map => false); SELECT dvmig.map_column('tracks', 'new_name', 'name');
		SELECT dvmig.add_association('links', 'pairs', 'new_playlist_new_track', 'track', 'tracks', 'list', 'lists')});
	$self->{migration} = 'links';
	return;
}

# load: the rows, all in one transaction.
sub load
{
	my ($self) = @_;
	$self->sql("INSERT INTO $self->{table} SELECT n, 'Family ' || n, 'City ' || n % 17, 'x' FROM generate_series(1, $self->{rows}) n");
	return;
}

# hold(match): requests that match are not answered until release(). With
# after => 1 they are carried out at once and only their answers wait.
sub hold
{
	my ($self, %match) = @_;
	my $after = delete $match{after};
	my $nth = delete $match{nth} // 1;

	%match = (method => 'POST', path_contains => 'CreateMultiple') unless %match;
	$self->sim->fault({ match => \%match, do => 'hold', nth => $nth, count => 0, after => $after ? JSON::PP::true : JSON::PP::false });
	return;
}

sub release { $_[0]->sim->sim('DELETE', 'fault'); return; }

# held: how many requests hang.
sub held { return $_[0]->sim->held; }

sub until { my $self = shift; return $self->{t}->until(@_); }

# start(least =>, arguments =>): a run in the background, at least so many of its requests hanging.
sub start
{
	my ($self, %o) = @_;
	my $run = $self->{t}->start($self->{migration}, $o{arguments});

	$self->until('requests hang', sub { $self->held >= ($o{least} // 1) });
	return $run;
}

# Work on loaded records: the request that is held, the statement that begins it, and what has to be done before.
my %jobs = (
	verify => { hold => { method => 'GET', path_contains => '/contacts' }, call => sub { "SELECT * FROM dvmig.verify('$_[0]{migration}')" } },
	undo => {
		hold => { path_contains => '$batch' },
		call => sub { sprintf 'SELECT dvmig.start_undo(%d)', $_[0]->sql("SELECT max(run) FROM dvmig.run_history WHERE migration = '$_[0]{migration}' AND kind = 'run'") },
	},
	resend => {
		hold => { path_contains => '$batch' },
		before => sub { $_[0]->sql("SELECT dvmig.unmap('$_[0]{table}', 'lastname'); SELECT dvmig.map_column('$_[0]{table}', 'lastname', 'family || '' II''')") },
		call => sub { "SELECT * FROM dvmig.resend('$_[0]{table}', '{lastname}')" },
	},
	rebuild => {
		hold => { path_contains => '/contacts' },
		before => sub { $_[0]->sql("UPDATE $_[0]{table} SET processing_flag = 'U', dataverse_id = NULL; TRUNCATE $_[0]{table}_success, $_[0]{table}_error") },
		call => sub { "SELECT dvmig.rebuild_outcomes('$_[0]{table}')" },
	},
);

# job_call(kind): the statement that begins verify, undo, resend or rebuild.
sub job_call { my ($self, $kind) = @_; return $jobs{$kind}{call}->($self); }

# at_work(kind, as for scene): a loaded table, and the work on it begun by a session of its own, which is
# returned; all but an undo's (with background => 1 nor a verification's, with waits => 1 that too) wait for the end.
# Its requests hang, or with match => {...} such.
sub at_work
{
	my ($self, $kind, %o) = @_;
	my $s;

	$self->scene(%o);
	is($self->{t}->run($self->{migration})->{state}, 'completed', "$kind: a table is loaded");
	$jobs{$kind}{before}->($self) if $jobs{$kind}{before};
	my $call = $self->job_call($kind);
	$call =~ s/\* FROM dvmig\.verify/dvmig.start_verify/ if $o{background};
	$call =~ s/start_undo/undo/ if $o{waits};
	$self->hold(%{ $o{match} // $jobs{$kind}{hold} });
	$s = $self->session;
	$s->send("$call;\n\\echo done\n");
	$self->until('its requests hang', sub { $self->held > 0 });
	return $s;
}

# beside(name, SQL): it comes to its end although requests hang; its result. One that does not is given up after the
# time that a test may wait, and what hangs is answered, so that the test goes on.
sub beside
{
	my ($self, $name, $sql) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = $self->held;
	my ($out, $err, $late);
	my $status = $self->{t}->node->psql($self->{t}{db}, $sql, stdout => \$out, stderr => \$err, on_error_stop => 1,
		timeout => $PostgreSQL::Test::Utils::timeout_default, timed_out => \$late);

	if ($late)
	{
		fail("$name: it waits, for all that is known, for the network");
		$self->release;
		return $out;
	}
	is($status, 0, $name) or diag $err;
	ok($before > 0 && $self->held > 0, "$name: did not wait for the network");
	return $out;
}

# session: a psql that stays, for transactions that stay open; do(SQL) waits for
# its end, quit ends it.
sub session
{
	my ($self) = @_;
	my $s = bless { in => '', out => '' }, 'DvMig::Held::Session';

	$s->{timer} = IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default);
	$s->{psql} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $self->{t}->node->connstr($self->{t}{db}), '-f', '-' ],
		'<', \$s->{in}, '>', \$s->{out}, '2>&1', $s->{timer});
	return $s;
}

sub DvMig::Held::Session::do
{
	my ($s, $sql) = @_;

	$s->send("$sql;\n\\echo done\n");
	return $s->expect(qr/^done$/m);
}

# Each command has the time that a test may wait.
sub DvMig::Held::Session::send
{
	my ($s, $text) = @_;

	$s->{timer}->start($ENV{PG_TEST_TIMEOUT_DEFAULT} // 180);
	$s->{in} .= $text;
	$s->{psql}->pump_nb;
	return;
}

# What it said until the pattern came.
sub DvMig::Held::Session::expect
{
	my ($s, $pattern) = @_;

	$s->{psql}->pump until $s->{out} =~ $pattern || !$s->{psql}->pumpable;
	my $said = $s->{out};
	$s->{out} = '';
	return $said =~ s/^done\n//mr;
}

sub DvMig::Held::Session::quit { my ($s) = @_; $s->send("\\q\n"); $s->{psql}->finish; return $s->{out}; }

# worker(run): the row of pg_stat_activity of its worker, or undef.
sub worker
{
	my ($self, $run) = @_;
	return $self->{t}->rows("SELECT * FROM pg_stat_activity WHERE application_name = 'dvmig run $run' AND backend_type = 'dvmig worker'")->[0];
}

# gone(run): its worker ends.
sub gone
{
	my ($self, $run, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok($self->until("the worker of run $run ends", sub { !$self->worker($run) }), $name // 'the worker ends');
	return;
}

# ends(run, state): the row of run_history, once it has ended so.
sub ends
{
	my ($self, $run, $state, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $row = $self->{t}->finish($run);

	is($row->{state}, $state, $name // "the run is $state") or diag explain $row;
	return $row;
}

# quiet: nothing hangs any more, also not what an ended worker had sent.
sub quiet
{
	my ($self) = @_;

	$self->release;
	$self->until('nothing is in flight', sub { $self->sim->stats->{in_flight} == 0 });
	return;
}

# exact(name, 'staged/unprocessed/succeeded/failed/left out', options of DvMig::account):
# figures and account of the scene, and nothing was created twice.
sub exact
{
	my ($self, $name, $counts, %more) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($self->{t}->counts($self->{table}), $counts, "$name: figures");
	subtest "$name: account" => sub {
		$self->{t}->account($self->{migration},
			$self->{table} => { lastname => 's.family', new_legacyid => 's.id::text', %{ delete $more{-fields} // {} } }, %more);
	};
	return;
}

1;

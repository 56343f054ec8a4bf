# DvMig::Campaign - a run, broken at a random instant in one of many ways, and gone on with
#
#   my $c = DvMig::Campaign->new(name => 'campaign');
#   $c->round($seed, 'postmaster');               # one of @KINDS
#
# A round loads three staging tables, in some rounds after a first load that is
# then edited, deleted from and added to. When a random number of requests has
# come to the simulator, something happens; a user changes records in Dataverse;
# then the migration goes on, by the launcher, by dvmig.resume_interrupted() or by
# a new run of other batch sizes, until nothing is left. Then both sides are
# counted and compared field by field. Everything random comes from the seed.
package DvMig::Campaign;

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

use DvMig::Attack;
use DvMig::Held;
use DvMig::Lost;

our @KINDS = qw(worker postmaster dvsim immediate fast smart lost promote promote_by_hand copy dump pitr upgrade);

# Rows of each table: more than one request of each, few enough for a round of seconds.
my %ROWS = (customers => 420, people => 260, tasks => 60);

my $clusters = 0;

# What a field is in the end: a user's change of a telephone number is kept.
my %FIELDS = (
	customers => { %{ $DvMig::Attack::FIELDS{customers} }, telephone1 => 'coalesce((SELECT k.phone FROM staging.kept k WHERE k.id = s.id), s.phone)' },
	people => $DvMig::Attack::FIELDS{people},
	tasks => $DvMig::Attack::FIELDS{tasks},
);

# new(name =>): a primary with an archive, the launcher, and a simulator whose
# records outlive it.
sub new
{
	my ($class, %o) = @_;
	my $journal = PostgreSQL::Test::Utils::tempdir() . '/journal';
	my $a = DvMig::Attack->new(
		name => $o{name}, tables => [qw(customers people tasks)], settle => '400ms', args => [ '--journal', $journal ],
		init => [ allows_streaming => 1, has_archiving => 1 ],
		conf => <<'CONF');
shared_preload_libraries = 'dvmig'
dvmig.auto_resume = on
dvmig.resume_after_promotion = on
restart_after_crash = on
autovacuum = off
# with the megabyte that a cluster of the tests has for streaming, every commit is on disk at once
shared_buffers = 32MB
wal_buffers = 8MB
CONF
	my $self = bless { a => $a, t => $a->t, name => $o{name} }, $class;

	# the rest of a definition, which a dump has to bring along
	$self->sql(q{CREATE TABLE staging.kept (id int PRIMARY KEY, phone text);
		INSERT INTO dvmig.choice_map (migration_id, target_table, target_column, source_text, target_value) SELECT migration_id, 'account', 'industrycode', 'Trade', 1 FROM dvmig.migration;
		INSERT INTO dvmig.user_map (migration_id, source_user, target) SELECT migration_id, 'somebody', 'somebody@example.org' FROM dvmig.migration;
		CREATE ROLE operator; CREATE ROLE viewer; SELECT dvmig.grant_operator('operator', 'm'), dvmig.grant_viewer('viewer', 'm')});
	# Long enough on their way to be met there.
	$self->sim->set(latency => 4);
	return $self;
}

sub t { return $_[0]{t}; }
sub sim { return $_[0]{t}->sim; }
sub node { return $_[0]{t}->node; }
sub sql { my ($self, @rest) = @_; return $self->{t}->sql(@rest); }
sub pick { return $_[ rand @_ ]; }

# ------------------------------------------------------------------ the scene

sub insert
{
	my ($self, $from, $part) = @_;
	my %to = map { $_ => $from + int($ROWS{$_} * $part) - 1 } keys %ROWS;

	$self->sql("INSERT INTO staging.customers SELECT n, 'Company ' || n, '+49 ' || n, n * 1.25 FROM generate_series($from, $to{customers}) n;
		INSERT INTO staging.people SELECT n, 'Person ' || n, $from + n % 50 FROM generate_series($from, $to{people}) n;
		INSERT INTO staging.tasks SELECT n, 'Task ' || n, 'line ' || n FROM generate_series($from, $to{tasks}) n");
	return;
}

# scene: rows to be created, or a mixture of creates, updates and deletes.
sub scene
{
	my ($self) = @_;

	$self->sim->sim('POST', 'reset');
	$self->sim->set(profile => pick(qw(strict lenient odd)), latency => 4);
	$self->sql(join ';', map { "TRUNCATE staging.$_, staging.${_}_success, staging.${_}_error" } sort keys %ROWS);
	$self->sql('TRUNCATE staging.kept');
	$self->insert(1, 1);
	$self->{changing} = rand() < 0.4 && $self->{kind} ne 'lost';
	# more than the first requests take
	$self->sql(q{INSERT INTO staging.customers SELECT n, 'Company ' || n, '+49 ' || n, n * 1.25 FROM generate_series(3001, 4500) n;
		DELETE FROM dvmig.table_pace}) if $self->{kind} eq 'lost';
	return if !$self->{changing};
	is($self->t->run('m')->{state}, 'completed', "$self->{round}: loaded before");
	$self->sql(q{UPDATE staging.customers SET revenue = revenue + 1, processing_flag = 'U' WHERE id % 2 = 0;
		UPDATE staging.people SET name = name || '*', processing_flag = 'U' WHERE id % 3 = 0;
		UPDATE staging.people SET action_flag = 'D', processing_flag = 'U' WHERE id % 3 = 1;
		UPDATE staging.tasks SET text = text || '*', processing_flag = 'U' WHERE id % 2 = 0;
		UPDATE staging.tasks SET action_flag = 'D', processing_flag = 'U' WHERE id % 2 = 1});
	$self->insert(1001, 0.5);
	return;
}

# requests: how many came so far, with those that hang.
sub requests
{
	my ($self) = @_;
	my $s = $self->sim->stats;
	my $n = $s->{in_flight};

	$n += $_ for values %{ $s->{requests} };
	return $n;
}

# hold_from(nth): from that request on they hang, carried out or not.
sub hold_from
{
	my ($self, $nth) = @_;

	$self->sim->fault({ match => { method => 'POST', path_contains => '/api/' }, do => 'hold', nth => $nth, count => 0,
			after => rand() < 0.5 ? JSON::PP::true : JSON::PP::false });
	return;
}

# begin: a run in the background, at a random instant of its life; in some
# rounds with requests that hang, carried out or not.
sub begin
{
	my ($self) = @_;
	my $many = int rand 14;
	my $hang = rand() < 0.5;

	# what is on disk is not lost: some outcomes are recorded, and then nothing is that would flush them
	($many, $hang) = (3 + int rand 4, 1) if $self->{kind} eq 'lost';

	$self->sim->sim('POST', 'reset?keep=records');
	$self->hold_from(1 + $many) if $hang;
	# Some rounds are held by the service before they break, or while they do.
	$self->sim->fault({ match => { method => 'POST', path_contains => '/api/' }, do => 'throttle', retry_after => 1, nth => 1 + int rand 8, count => 2 })
	  if !$hang && rand() < 0.4;
	$self->{run} = $self->t->start('m', 'resend => true, lanes => ' . pick(1, 1, 2, 3));
	$self->{a}->until("$many requests have come", sub {
		$self->requests >= $many + 3 && $self->{kind} ne 'lost' || $hang && $self->sim->stats->{faults} > 0
			|| $self->sql("SELECT state NOT IN ('starting', 'running') FROM dvmig.run_history WHERE run = $self->{run}") eq 't';
	});
	return;
}

# user_edits: as another user of Dataverse would, on some of the created companies.
# (A record whose update is in doubt would fail as "changed": another test's matter.)
sub user_edits
{
	my ($self) = @_;
	return if $self->{changing};

	my @records = @{ $self->sim->export('accounts') };
	for my $record (@records ? map { pick(@records) } 1 .. 3 : ())
	{
		my $n = $record->{new_legacyid};

		$self->sim->change('accounts', $record->{accountid}, { telephone1 => "user $n" });
		push @{ $self->{kept} }, $n;
	}
	return;
}

# row_edits: staging rows are edited again, some back to what they were before,
# while it is not known what was carried out.
sub row_edits
{
	my ($self) = @_;
	return if !$self->{changing} || rand() < 0.4;

	$self->sql(q{UPDATE staging.customers SET revenue = revenue - 1, processing_flag = 'U' WHERE id % 4 = 0 AND id <= 1000;
		UPDATE staging.customers SET name = name || '+', processing_flag = 'U' WHERE id % 3 = 0 AND id > 1000;
		UPDATE staging.people SET name = rtrim(name, '*'), processing_flag = 'U' WHERE id % 6 = 0;
		UPDATE staging.tasks SET text = rtrim(text, '*'), processing_flag = 'U' WHERE id % 4 = 0 AND action_flag <> 'D'});
	return;
}

# ---------------------------------------------------------------- what happens

# kill9: the postmaster, and all that is left of it.
sub kill9
{
	my ($self) = @_;
	my $pid = slurp_file($self->node->data_dir . '/postmaster.pid') =~ /^(\d+)/ ? $1 : die 'no postmaster.pid';

	$self->node->kill9;
	$self->{a}->until('the postmaster is gone', sub { !kill 0, $pid });
	return;
}

# start again: the children of a killed postmaster may need a moment to be gone.
sub start_again
{
	my ($self) = @_;
	my $node = $self->node;

	$self->{a}->until($node->name . ' starts', sub { $node->{_pid} = undef; $node->start(fail_ok => 1) });
	return;
}

sub automatic
{
	my ($self, $on) = @_;

	$self->node->append_conf('postgresql.conf', 'dvmig.auto_resume = ' . ($on ? 'on' : 'off'));
	$self->node->reload;
	$self->{automatic} = $on;
	return;
}

sub stop_and_start
{
	my ($self, $mode) = @_;

	$self->node->stop($mode);
	$self->user_edits;
	$self->start_again;
	return;
}

sub happens_worker
{
	my ($self) = @_;
	my $pid = $self->sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'dvmig worker' LIMIT 1");

	$self->t->kill_process($pid) if $pid;
	$self->user_edits;
	return;
}

sub happens_postmaster
{
	my ($self) = @_;

	$self->kill9;
	$self->user_edits;
	$self->start_again;
	return;
}

# outcomes(): how many are recorded
sub outcomes { my ($self) = @_; return $self->sql('SELECT ' . join ' + ', map { "(SELECT count(*) FROM staging.${_}_success)" } sort keys %ROWS); }

# The same while the last commits are in memory only: outcomes that were seen are
# gone. Where all of them are on disk already, the run goes on for some requests.
# The first of such rounds looks, before anything can be recorded anew.
sub happens_lost
{
	my ($self) = @_;
	my $over = "SELECT state NOT IN ('starting', 'running') FROM dvmig.run_history WHERE run = $self->{run}";
	my (@frozen, $seen, $some);

	$self->automatic(0) if !$self->{looked}++;
	for (;;)
	{
		@frozen = $self->freeze;
		$seen = $self->outcomes;
		$some = $self->lasts_in_memory(map { "staging.${_}_success" } sort keys %ROWS);
		last if $some || $self->sql($over) eq 't';
		kill CONT => @frozen;
		$self->sim->sim('DELETE', 'fault');
		$self->hold_from(2);
		$self->{a}->until('requests hang again', sub { $self->sim->held > 0 || $self->sql($over) eq 't' });
	}
	$self->kill9;
	kill KILL => @frozen;
	$self->user_edits;
	$self->start_again;
	my $lost = $seen - $self->outcomes;
	cmp_ok($lost, '>', 0, "$self->{round}: $lost of $seen outcomes are lost") if $some && !$self->{automatic};
	return;
}

# The run goes on by itself: nothing has happened to it.
sub happens_dvsim
{
	my ($self) = @_;

	$self->sim->restart('KILL');
	$self->sim->set(latency => 4);
	$self->{automatic} = 1;
	return;
}

sub happens_immediate { return $_[0]->stop_and_start('immediate'); }
sub happens_fast { return $_[0]->stop_and_start('fast'); }
sub happens_smart { return $_[0]->stop_and_start('smart'); }

# new_node: another cluster, with what it needs to be the primary later.
sub new_node
{
	my ($self, $what) = @_;
	return PostgreSQL::Test::Cluster->new("$self->{name}_$what" . ++$clusters);
}

# take over: from here on it is the cluster.
sub take_over
{
	my ($self, $node) = @_;

	push @{ $self->{former} }, $self->node;
	$self->t->{node} = $node;
	return;
}

# Resumed by the launcher.
sub before_promote
{
	my ($self, $by_itself) = @_;
	my $standby = $self->new_node('standby');

	$self->node->backup("b$clusters");
	$standby->init_from_backup($self->node, "b$clusters", has_streaming => 1);
	$self->automatic($by_itself // 1);
	$standby->append_conf('postgresql.conf', "dvmig.auto_resume = on\ndvmig.resume_after_promotion = " . ($self->{automatic} ? 'on' : 'off') . "\n");
	$standby->start;
	$self->{standby} = $standby;
	return;
}

# Resumed by a person: the standby has a launcher that was not told to.
sub before_promote_by_hand { my ($self) = @_; return $self->before_promote(0); }

sub happens_promote
{
	my ($self) = @_;
	my $standby = delete $self->{standby};

	is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'dvmig%'}), 0,
		"$self->{round}: nothing of dvmig runs in recovery");
	my ($status, undef, $said) = $standby->psql('postgres', q{SELECT dvmig.start('m')});
	isnt($status, 0, "$self->{round}: nor can it be started there");
	like($said, qr/This server is a standby\. Connect to the primary/, "$self->{round}: which is told");
	rand() < 0.5 ? $self->kill9 : $self->node->stop('fast');
	$self->user_edits;
	$standby->promote;
	$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	$self->take_over($standby);
	return;
}

sub happens_promote_by_hand
{
	my ($self) = @_;
	my $run = $self->{run};

	$self->happens_promote;
	# one that had ended before, or had not come to the standby, has nothing to go on with
	my $was_at_work = $self->sql("SELECT count(*) FROM dvmig.run_history WHERE run = $run AND state NOT IN ('completed', 'failed', 'stopped')");
	ok(!$was_at_work || $self->t->wait_for("SELECT message LIKE '%does not go on by itself: this server was promoted%' FROM dvmig.run_history WHERE run = $run"),
		"$self->{round}: it does not go on by itself");
	is($self->sql("SELECT count(*) FROM dvmig.run_history WHERE run > $run"), 0, "$self->{round}: and there is no other run");
	$self->{how} = 'by resume_interrupted';
	return;
}

# A copy of the data directory, started elsewhere, sends nothing by itself.
sub happens_copy
{
	my ($self) = @_;
	my $copy = $self->new_node('copy');

	$self->node->stop('immediate');
	$self->sim->sim('DELETE', 'fault');
	$self->{a}->until('nothing is on its way', sub { $self->sim->stats->{in_flight} <= 1 });
	$self->node->backup_fs_cold("c$clusters");
	$copy->init_from_backup($self->node, "c$clusters");
	my $before = $self->requests;
	$copy->start;
	my $was_at_work = $copy->safe_psql('postgres', "SELECT count(*) FROM dvmig.run_history WHERE run = $self->{run} AND (state IN ('starting', 'running') OR state = 'interrupted')");
	ok(!$was_at_work || !$self->{automatic} || $copy->poll_query_until('postgres', "SELECT message LIKE '%it does not go on by itself: it worked on another host or in another data directory%' FROM dvmig.run_history WHERE run = $self->{run}"),
		"$self->{round}: a copy does not go on by itself");
	is($copy->safe_psql('postgres', "SELECT count(*) FROM dvmig.run_history WHERE run > $self->{run}"), 0, "$self->{round}: and has no other run");
	cmp_ok($self->requests, '<=', $before + 1, "$self->{round}: nor sends anything");
	$copy->stop('immediate');
	$copy->clean_node;
	$self->user_edits;
	$self->start_again;
	return;
}

# What a dump has to bring along, as queries: definition, rows with flags and ids, outcomes, runs.
my %ALONG = (
	configuration => q{SELECT dvmig.export('m')},
	definitions => join(' UNION ALL ', map { "SELECT '$_', md5(string_agg(x::text, chr(10) ORDER BY x::text)) FROM dvmig.$_ x" }
		qw(migration migration_table migration_role column_map choice_map user_map _mask_secret kept_namespace organisation
			metadata_table metadata_column metadata_choice metadata_lookup metadata_key metadata_relationship)),
	(map { ($_ => "SELECT md5(string_agg(x::text, chr(10) ORDER BY x::text)) FROM staging.$_ x") } map { ($_, "${_}_success", "${_}_error") } sort keys %ROWS),
	runs => q{SELECT string_agg(concat_ws('|', run, state, options), chr(10) ORDER BY run) FROM dvmig.run_history});

# snapshot(): a session whose snapshot a dump can share, its name, and what is to be seen in it.
sub snapshot
{
	my ($self) = @_;
	my $session = DvMig::Held::session($self);
	my $ask = sub { return $session->do($_[0]) =~ s/\n\z//r; };

	$ask->('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
	my $name = $ask->('SELECT pg_export_snapshot()');
	return ($session, $name, map { $_ => $ask->($ALONG{$_}) } keys %ALONG);
}

# A dump taken in mid-run, while the run goes on for a while; continued elsewhere.
sub happens_dump
{
	my ($self) = @_;
	my $new = $self->new_node('restored');
	my $file = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
	my ($session, $snapshot, %along) = $self->snapshot;

	command_ok([ 'pg_dump', "--snapshot=$snapshot", '-f', $file, '-d', $self->node->connstr('postgres') ], "$self->{round}: pg_dump in mid-run");
	$session->quit;
	$self->sim->sim('DELETE', 'fault');
	my $more = $self->requests + int rand 10;
	$self->{a}->until('it has gone on', sub { $self->requests >= $more || $self->sql("SELECT state NOT IN ('starting', 'running') FROM dvmig.run_history WHERE run = $self->{run}") eq 't' });
	$self->node->stop('immediate');
	$self->user_edits;
	$new->init(extra => [ '--encoding=UTF8', '--locale=C' ], allows_streaming => 1, has_archiving => 1);
	$new->append_conf('postgresql.conf', slurp_file($self->node->data_dir . '/postgresql.conf') =~ /^(shared_preload_libraries.*?)(?:^port|\z)/ms);
	$new->start;
	$new->safe_psql('postgres', 'CREATE ROLE operator; CREATE ROLE viewer');
	command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $new->connstr('postgres'), '-f', $file ], "$self->{round}: restored");
	is($new->safe_psql('postgres', $ALONG{$_}), $along{$_}, "$self->{round}: $_ came along") for sort keys %ALONG;
	$new->safe_psql('postgres', q{ALTER DATABASE postgres SET dvmig.settle_time = '400ms'});
	$self->take_over($new);
	$self->node->restart;
	is($self->sql("SELECT count(*) FROM dvmig.run_history WHERE run > $self->{run}"), 0, "$self->{round}: a restored dump does not go on by itself");
	$self->{automatic} = 0;
	return;
}

sub before_pitr
{
	my ($self) = @_;

	$self->node->backup('p' . ++$clusters);
	$self->{base} = "p$clusters";
	return;
}

# Restored to a moment after which the run went on.
sub happens_pitr
{
	my ($self) = @_;
	my $new = $self->new_node('pitr');

	$self->sql(qq{SELECT pg_create_restore_point('here$clusters')});
	my $segment = $self->sql('SELECT pg_walfile_name(pg_switch_wal())');
	$self->sim->sim('DELETE', 'fault');
	my $more = $self->requests + int rand 15;
	$self->{a}->until('it has gone on', sub { $self->requests >= $more || $self->sql("SELECT state NOT IN ('starting', 'running') FROM dvmig.run_history WHERE run = $self->{run}") eq 't' });
	$self->t->wait_for("SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver");
	$self->node->stop('immediate');
	$self->user_edits;
	$new->init_from_backup($self->node, $self->{base}, has_restoring => 1, standby => 0);
	$new->append_conf('postgresql.conf', "recovery_target_name = 'here$clusters'\nrecovery_target_action = 'promote'\narchive_mode = off\n");
	$new->start;
	$new->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	is($new->safe_psql('postgres', "SELECT count(*) FROM dvmig.run_history WHERE run > $self->{run}"), 0, "$self->{round}: a restored backup does not go on by itself");
	$self->take_over($new);
	$self->{automatic} = 0;
	return;
}

# pg_upgrade; to the same version, which it allows, for want of another one.
sub happens_upgrade
{
	my ($self) = @_;
	my $new = $self->new_node('upgraded');
	my $old = $self->node;

	$old->stop('fast');
	$self->user_edits;
	$new->init(extra => [ '--encoding=UTF8', '--locale=C' ], allows_streaming => 1, has_archiving => 1);
	$new->append_conf('postgresql.conf', slurp_file($old->data_dir . '/postgresql.conf') =~ /^(shared_preload_libraries.*?)(?:^port|\z)/ms);
	my $bindir = $new->config_data('--bindir');
	my $dir = PostgreSQL::Test::Utils::tempdir();
	chomp(my $cwd = `pwd`);
	chdir $dir;
	command_ok([ 'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bindir, '-B', $bindir,
			'-s', $new->host, '-p', $old->port, '-P', $new->port ], "$self->{round}: pg_upgrade");
	chdir $cwd;
	$new->start;
	$self->take_over($new);
	is($self->sql("SELECT count(*) FROM dvmig.run_history WHERE run > $self->{run}"), 0, "$self->{round}: an upgraded cluster does not go on by itself");
	$self->{automatic} = 0;
	return;
}

# -------------------------------------------------------------- going on

# all_done: no run is at work and nothing is unprocessed.
sub go_on
{
	my ($self) = @_;
	my $how = $self->{automatic} ? 'by itself' : delete $self->{how} // pick('by resume_interrupted', 'by a new run');
	my $run = $self->{run};

	$self->sim->sim('DELETE', 'fault');
	if ($self->{automatic} && $self->sql("SELECT state FROM dvmig.run_history WHERE run = $run") ne 'completed')
	{
		# Either the run itself, or the one that the launcher has begun in its place.
		ok($self->t->wait_for(q{SELECT state NOT IN ('starting', 'running', 'stopping', 'interrupted') FROM (SELECT dvmig.wait(run, '1 s'), run FROM dvmig.run_history ORDER BY run DESC LIMIT 1) w
				JOIN dvmig.run_history USING (run)}), "$self->{round}: it goes on $how");
	}
	elsif ($how =~ /resume/)
	{
		$self->sql('SELECT count(*) FROM dvmig.resume_interrupted()');
		$self->t->wait_for(q{SELECT count(*) = 0 FROM dvmig.progress});
	}
	else
	{
		# Batches of other sizes than those that were forgotten.
		is($self->t->run('m', 'resend => true, max_rows => ' . (7 + int rand 60))->{state}, 'completed', "$self->{round}: it goes on $how");
	}
	my $last = $self->t->run('m', 'resend => true');
	is($last->{state}, 'completed', "$self->{round}: and to its end") or diag explain $last;
	return;
}

# exact: both sides, counted and field by field.
sub exact
{
	my ($self) = @_;

	for my $n (@{ delete $self->{kept} // [] })
	{
		$self->sql("INSERT INTO staging.kept VALUES ($n, 'user $n') ON CONFLICT DO NOTHING");
	}
	for my $table (sort keys %ROWS)
	{
		my $staged = $self->sql("SELECT count(*) FROM staging.$table");

		is($self->t->counts("staging.$table"), "$staged/0/$staged/0/0", "$self->{round}: figures of $table");
	}
	subtest "$self->{round}: account" => sub { $self->t->account('m', map { ("staging.$_" => $FIELDS{$_}) } keys %ROWS) };
	for my $set ([ customers => 'accounts' ], [ people => 'contacts' ], [ tasks => 'tasks' ])
	{
		is($self->sim->counters($set->[1])->{creates}, $self->sql("SELECT count(*) FROM staging.$set->[0]"),
			"$self->{round}: each of $set->[0] was created once");
	}
	return;
}

# round(seed, kind): all of it.
sub round
{
	my ($self, $seed, $kind) = @_;
	my $before = $self->can("before_$kind");
	my $happens = $self->can("happens_$kind") or die "there is no kind $kind: @KINDS\n";
	my $began = time();

	srand $seed;
	$self->{round} = "$kind, seed $seed";
	$self->{kind} = $kind;
	$self->node->append_conf('postgresql.conf', $kind eq 'lost' ? "wal_writer_delay = '10s'\nwal_writer_flush_after = '1GB'\n"
		: "wal_writer_delay = '200ms'\nwal_writer_flush_after = '1MB'\n");
	$self->automatic(rand() < 0.5);
	$self->scene;
	$self->$before if $before;
	$self->begin;
	$self->$happens;
	$self->row_edits;
	my $recorded = $self->outcomes;
	$self->go_on;
	$self->exact;
	$_->teardown_node for @{ delete $self->{former} // [] };
	note(sprintf '%s: %.1f s, %s outcomes were left', $self->{round}, time() - $began, $recorded);
	return;
}

sub done
{
	my ($self) = @_;

	unlike(slurp_file($self->node->logfile), qr/PANIC|TRAP|cache lookup failed|XX000/, 'no process of the server came to harm');
	$self->{a}->done;
	return;
}

1;

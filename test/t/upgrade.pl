# From one major version of PostgreSQL to a later one, in mid-run: pg_upgrade, and
# dump and restore. test/upgrade gives the older one.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

use DvMig::Held;

plan skip_all => 'no older PostgreSQL: see test/upgrade' unless $ENV{DVMIG_OLD_INSTALL};

my $rows = 600;
my $h = DvMig::Held->new(name => 'old', install_path => $ENV{DVMIG_OLD_INSTALL});
my $t = $h->t;
my $old = $t->node;
my ($table, $run, %before);

# fresh_cluster(name): of the later version, with the same locale
sub fresh_cluster
{
	my ($name, %o) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my @sums = qx($ENV{PG_CONFIG} --version) =~ /(\d+)/ && $1 >= 18 ? '--no-data-checksums' : ();

	$node->init(extra => [ '--encoding=UTF8', '--locale=C', @sums ]);
	$node->append_conf('postgresql.conf', "max_worker_processes = 16\ndvmig.settle_time = '300ms'\n");
	return $node;
}

# facts(): what has to come along
sub facts
{
	my $m = $h->migration;
	return (
		configuration => $t->sql("SELECT dvmig.export('$m')"),
		figures => $t->counts($table),
		outcomes => $t->sql("SELECT string_agg(concat_ws('|', s.id, s.processing_flag, s.dataverse_id, ok.operation, ok.run, ok.content_hash, e.error_class, e.message), E'\\n' ORDER BY s.id)
			FROM $table s LEFT JOIN ${table}_success ok USING (id) LEFT JOIN ${table}_error e USING (id)"),
		history => $t->sql("SELECT string_agg(concat_ws('|', run, state, rows_sent, succeeded, failed), E'\\n' ORDER BY run) FROM dvmig.run_history WHERE migration = '$m' AND state = 'completed'"),
		metadata => $t->sql('SELECT md5(string_agg(c::text, chr(10) ORDER BY c::text)) FROM dvmig.metadata_column c'),
	);
}

# mid_run(): some rows are done, some have failed, some were carried out and not answered
sub mid_run
{
	$table = $h->scene(rows => $rows);
	$t->sql("UPDATE $table SET family = repeat('x', 60) WHERE id IN (7, 11)");
	is($t->run($h->migration, 'max_rows => 100')->{state}, 'completed', 'some rows are loaded');
	$h->hold(after => 1);
	$run = $h->start(least => 2);
	return;
}

# goes_on(name): all of it is there, and the rest goes
sub goes_on
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %now = facts();

	is($now{$_}, $before{$_}, "$name: $_") for sort keys %before;
	is($t->sql("SELECT count(*) FROM dvmig.run_history WHERE run > $run"), 0, "$name: nothing goes on by itself");
	is($t->sql("SELECT dvmig.wait($run)"), 'interrupted', "$name: the run is interrupted");
	is($t->run($h->migration)->{state}, 'completed', "$name: the next run completes");
	$h->exact($name, join '/', $rows, 0, $rows - 2, 2, 0);
	# what was on its way is found, and written over as after any restore: the database is another one now
	my $sent = $h->sim->counters('contacts');
	is($sent->{creates}, $rows - 2, "$name: every record was made once");
	cmp_ok($sent->{updates}, '<', $rows - 100, "$name: and what had its outcome was not sent again");
	$t->sql("UPDATE $table SET family = 'Short', processing_flag = 'U' WHERE id IN (7, 11)");
	is($t->run($h->migration)->{state}, 'completed', "$name: what had failed goes when it is corrected");
	is($t->sql(sprintf q{SELECT concat_ws('/', compared, equal, missing, different) FROM dvmig.verify('%s')}, $h->migration), "$rows/$rows/0/0", "$name: and a verification finds all of it");
	unlike(slurp_file($t->node->logfile), qr/PANIC|TRAP|terminated by signal|XX000/, "$name: no process of the server came to harm");
	return;
}

# ------------------------------------------------------------------- pg_upgrade

mid_run();
$old->stop('fast');
$h->quiet;
$old->start;
%before = facts();
$old->stop('fast');

my $new = fresh_cluster('new');
my $bin = sub { my ($node) = @_; return $node->config_data('--bindir'); };
my $dir = PostgreSQL::Test::Utils::tempdir();
chomp(my $cwd = `pwd`);
chdir $dir;
command_ok([ 'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bin->($old), '-B', $bin->($new),
		'-s', $new->host, '-p', $old->port, '-P', $new->port ], 'pg_upgrade');
chdir $cwd;
$new->start;
$t->{node} = $new;
note('from ' . $old->pg_version . ' to ' . $t->sql('SHOW server_version'));
cmp_ok($t->sql('SHOW server_version_num') / 10000, '>', $old->pg_version, 'it is a later version');
goes_on('pg_upgrade');
$new->stop;

# -------------------------------------------------------------- dump and restore

$old->start;
$t->{node} = $old;
mid_run();
# with the later version's pg_dump, as its documentation advises; requests hang meanwhile
my $file = "$dir/dump.sql";
%before = facts();
command_ok([ 'pg_dump', '-f', $file, '-d', $old->connstr('postgres') ], 'pg_dump in mid-run');
$old->stop('immediate');
$h->quiet;
my $restored = fresh_cluster('restored');
$restored->start;
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $restored->connstr('postgres'), '-f', $file ], 'restored');
$t->{node} = $restored;
goes_on('dump and restore');

done_testing();

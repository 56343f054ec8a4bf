# A disk that fills up while answers are recorded: the run stops and says so, and
# the next one goes on without a row lost or doubled
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use PostgreSQL::Test::Utils;

use DvMig;

plan skip_all => 'the server has other libraries preloaded' if $ENV{LD_PRELOAD} || $ENV{ASAN_OPTIONS};

my $dir = PostgreSQL::Test::Utils::tempdir();
my $cc = $ENV{CC} // 'cc';

plan skip_all => "$cc builds no library that can be preloaded"
  if system("$cc -shared -fPIC -o $dir/full_disk.so $FindBin::RealBin/DvMig/full_disk.c -ldl >$dir/cc.log 2>&1") != 0;
$ENV{DV_FULL_DISK} = "$dir/full";
$ENV{LD_PRELOAD} = "$dir/full_disk.so";
my $t = DvMig->new(name => 'disk_full', conf => "dvmig.settle_time = '300ms'\n");
delete $ENV{LD_PRELOAD};

mkdir "$dir/small" or die $!;
$t->sql("CREATE TABLESPACE small LOCATION '$dir/small'");
$t->sql(q{CREATE TABLE people (id int PRIMARY KEY, family text)});
$t->migration('m', tables => 'contact');
$t->sql(q{SELECT dvmig.add_table('m', 'people', 'contact', source_key => 'id', target_key => 'new_legacyid');
	SELECT dvmig.map_column('people', 'lastname', 'family')});
$t->{quiet} = 1;
my %fields = (people => { lastname => 's.family', new_legacyid => 's.id::text' });

# fill(), clear(): the volume of the tablespace, and that it is full
sub fill { append_to_file("$dir/full", "$dir/small"); return; }
sub clear { unlink "$dir/full"; return; }

for my $case (
	[ 'the success table', 'ALTER TABLE people_success SET TABLESPACE small', 'lanes => 1' ],
	[ 'the success table, with two lanes', 'SELECT 1', 'lanes => 2' ],
	[ 'an index of the success table', 'ALTER TABLE people_success SET TABLESPACE pg_default; ALTER INDEX people_success_pkey SET TABLESPACE small', 'lanes => 1' ],
	[ 'the staging table', 'ALTER INDEX people_success_pkey SET TABLESPACE pg_default; ALTER TABLE people SET TABLESPACE small', 'lanes => 1' ])
{
	my ($name, $sql, $arguments) = @$case;

	$t->sim->sim('POST', 'reset');
	$t->sql('TRUNCATE people, people_success, people_error');
	$t->sql("INSERT INTO people SELECT n, 'Family ' || n FROM generate_series(1, 6000) n");
	$t->sql($sql);
	fill();
	my $run = $t->run('m', $arguments);
	is($run->{state}, 'failed', "$name cannot grow: the run fails");
	like($run->{message}, qr/No space left on device|disk full/i, "$name: and says why") or diag explain $run;
	cmp_ok($t->status('people')->{unprocessed}, '>', 0, "$name: rows are left");
	ok($t->wait_for(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'dvmig worker'}), "$name: no worker is left");
	clear();
	$run = $t->run('m', $arguments);
	is($run->{state}, 'completed', "$name: with room again the next run completes");
	is($t->counts('people'), '6000/0/6000/0/0', "$name: all rows are done");
	$t->account('m', %fields);
	is($t->sim->counters('contacts')->{creates}, 6000, "$name: and every record was made once");
}

unlike(slurp_file($t->node->logfile), qr/PANIC|TRAP|terminated by signal/, 'no process of the server came to harm');

done_testing();

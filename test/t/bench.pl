# The benchmark's short form: what a load costs that does not depend on speed
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use PostgreSQL::Test::Utils;

use DvMig;

# Requests in flight at most, and MB of each of their bodies.
use constant { IN_FLIGHT => 8, BODY_MB => 1.7 };

my $t = DvMig->new(name => 'bench', args => ['--sink'], set => { dop_hint => IN_FLIGHT }, conf => "autovacuum = off\ncheckpoint_timeout = 1d\nmax_wal_size = 16GB\n");
my $dir = PostgreSQL::Test::Utils::tempdir();
my ($out, $err);

$t->server('bench');
$t->sql(q{SELECT * FROM dvmig.refresh_metadata('bench', '{account}')});
local $ENV{PGHOST} = $t->node->host;
local $ENV{PGPORT} = $t->node->port;
local $ENV{PGDATABASE} = 'postgres';
my $pid = (split /\n/, PostgreSQL::Test::Utils::slurp_file($t->node->data_dir . '/postmaster.pid'))[0];

# Every measurement counts that each row has one outcome, the right id and its flag.
ok(IPC::Run::run([
		'perl', "$FindBin::RealBin/../bench/measure.pl", '--rows', 10000, '--far', 0, '--lanes', '1,2', '--more', '--no-client',
		'--only', '^UPDATE|lanes|fillfactor|reload', '--postmaster', $pid, '--origin', $t->sim->url, '--work', $dir, '--json', "$dir/result"],
	'<', \undef, '>', \$out, '2>', \$err), 'the benchmark runs, and every row is accounted for')
  or diag($err);
note($out);
my $r = decode_json(PostgreSQL::Test::Utils::slurp_file("$dir/result"));
my $update = $r->{UPDATE}{quick}{wal};

cmp_ok($update, '>', 1000, 'an UPDATE of such rows writes WAL');
for my $lanes (1, 2)
{
	my $quick = $r->{"dvmig, lanes => $lanes"}{quick};

	cmp_ok($quick->{wal}, '<=', 1.15 * $update + 200, "$lanes lanes: WAL of a row is little more than that of its UPDATE");
	SKIP:
	{
		skip 'a sanitizer keeps what is freed', 1 if DvMig::instrumented();
		cmp_ok($quick->{memory}, '<=', IN_FLIGHT * BODY_MB + 64, "$lanes lanes: a worker's memory is bounded");
	}
}
cmp_ok($r->{'dvmig, lanes => 1'}{quick}{wal}, '<', 0.9 * $update, 'in full pages, most rows find room in their own: less WAL than an UPDATE writes');
cmp_ok($r->{'dvmig, fillfactor 50'}{quick}{wal}, '<', 0.9 * $update, 'with room in the pages, too');
is($r->{'dvmig, reload of equal rows'}{quick}{rows}, 10000, 'a reload of equal rows sends nothing');

done_testing();

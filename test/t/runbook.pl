# The runbook of doc/operations.md, from rehearsal to clean-up, as it is written
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'runbook');
my $production = DvMig::Sim->start(args => [ '--organization' => '0d5e7a00-0000-4000-8000-000000000002', '--organization-name' => 'contoso' ]);

# What the runbook starts from.
$t->server('sandbox', environment => 'sandbox');
$t->server('production', environment => 'production', url => $production->url);
$t->sql(PostgreSQL::Test::Utils::slurp_file("$FindBin::RealBin/../demo.d/70_runbook.sql"));

my $document = PostgreSQL::Test::Utils::slurp_file("$FindBin::RealBin/../../doc/operations.md");
my ($book) = $document =~ /^## From rehearsal to clean-up\n(.*?)^## /ms;
my @steps = ($book // '') =~ /^### (\d+\. [^\n]+)\n(.*?)(?=^### |\z)/msg;
is(scalar(@steps) / 2, 9, 'the runbook has its steps');

# What happens in the world between the steps.
my %world = (
	3 => q{UPDATE source.companies SET company_name = 'Renamed' WHERE company_id = 5; INSERT INTO source.companies VALUES (301, 'New', 'DE')},
	5 => q{DELETE FROM source.companies WHERE company_id = 9},
);
my %sandbox = map { $_ => 1 } 1;
while (my ($title, $text) = splice(@steps, 0, 2))
{
	my ($n) = $title =~ /^(\d+)/;
	my ($out, $err);

	$t->sql($world{$n}) if $world{$n};
	for my $block ($text =~ /^```sql\n(.*?)^```$/msg)
	{
		# that hour does not come while the test looks
		$block =~ s/until => '\d\d:\d\d'/sprintf q(until => '%02d:00'), (localtime(time + 12 * 3600))[2]/e;
		my $status = $t->node->psql('postgres', $block, stdout => \$out, stderr => \$err, on_error_stop => 1, timeout => $PostgreSQL::Test::Utils::timeout_default);
		is($status, 0, "step $title") or diag($block, $err);
	}
	if ($n == 1)
	{
		is($t->counts('staging.companies'), '300/0/300/0/0', 'the rehearsal ends with every row loaded');
		$t->account('go_live', 'staging.companies' => { name => 'left(s.company_name, 160)' });
	}
	is($t->sql(q{SELECT subject FROM dvmig.cutover('go_live') WHERE kind = 'verdict'}), 'ready', 'step 6 ends ready') if $n == 6;
}
is(scalar(@{ $production->export('accounts') }), 300, 'production has what the source had in the end');
is(scalar(grep { $_->{name} eq 'Renamed' } @{ $production->export('accounts') }), 1, 'with what the deltas brought');
is($t->sql('SELECT count(*) FROM staging.companies'), '0', 'the staging data is gone');
is($t->sql(q{SELECT string_agg(DISTINCT kind, ',' ORDER BY kind) FROM dvmig.event WHERE kind IN ('retarget', 'load_delta', 'backup', 'sign_off', 'discard')}),
	'backup,discard,load_delta,retarget,sign_off', 'the events are kept');

$production->stop;
done_testing();

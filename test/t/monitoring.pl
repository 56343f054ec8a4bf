# doc/monitoring: the queries run and give what the file says, and the dashboard
# shows metrics that exist
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use CPAN::Meta::YAML;
use JSON::PP;
use Test::More;

use DvMig;

my $doc = "$FindBin::RealBin/../../doc/monitoring";
my $file = CPAN::Meta::YAML->read_string(PostgreSQL::Test::Utils::slurp_file("$doc/dvmig.collector.yml"))->[0];
my $t = DvMig->new(name => 'monitoring');

$t->migration('m', tables => 'account');
$t->sql(q{
	CREATE TABLE firms (id int PRIMARY KEY, name text);
	INSERT INTO firms SELECT i, CASE WHEN i <= 40 THEN repeat('x', 300) ELSE 'Firm ' || i END FROM generate_series(1, 100) i;
	SELECT dvmig.add_table('m', 'firms', 'account', source_key => 'id');
	SELECT dvmig.map_column('firms', 'name', 'name');
	SELECT dvmig.create_migration('secret', 'sim');
	CREATE ROLE monitor LOGIN; SELECT dvmig.grant_viewer('monitor', 'm')});
is($t->run('m')->{state}, 'completed', 'a run to look at');

is($file->{collector_name}, 'dvmig', 'the collector has its name');
cmp_ok(scalar(@{ $file->{metrics} }), '>', 5, 'and metrics');
my %sample;
for my $m (@{ $file->{metrics} })
{
	my $name = $m->{metric_name};
	my @keys = @{ $m->{key_labels} };
	my @values = @{ $m->{values} };

	like("$name $m->{type}", qr/^dvmig_[a-z_]+ (?:gauge|counter)$/, "$name: name and type");
	ok($m->{help}, "$name: help");
	ok($m->{value_label} || @values == 1, "$name: several values have a label");
	my $rows = JSON::PP->new->decode($t->sql("SET ROLE monitor; SELECT coalesce(json_agg(q), '[]') FROM ($m->{query}) q"));
	cmp_ok(scalar(@$rows), '>', 0, "$name: the query gives rows to a viewer");
	is(join(',', sort keys %{ $rows->[0] // {} }), join(',', sort @keys, @values), "$name: with the columns that the file names");
	is(scalar(grep { my $r = $_; grep { ($r->{$_} // '') !~ /^-?\d+(?:\.\d+)?(?:e[-+]?\d+)?$/ } @values } @$rows), 0, "$name: values are numbers");
	is(scalar(grep { $_->{migration} ne 'm' } @$rows), 0, "$name: of his migrations only");
	my %seen;
	is(scalar(grep { $seen{ join '|', @$_{@keys} }++ } @$rows), 0, "$name: each once");
	$sample{$name} = $rows;
}
my ($rows) = grep { $_->{staging} eq 'public.firms' } @{ $sample{dvmig_rows} };
is("$rows->{staged} $rows->{succeeded} $rows->{failed} $rows->{unprocessed}", '100 60 40 0', 'rows are those of the staging table');
is($sample{dvmig_run_total}[0]{failed}, 40, 'a run has its figures');
is(join(',', map { "$_->{alert}=$_->{alerts}" } sort { $a->{alert} cmp $b->{alert} } @{ $sample{dvmig_alerts_total} }), 'auth_failures=0,error_share=1,stall=0,throttled_share=0', 'alerts are counted');

# ------------------------------------------------------------- the dashboard

my $dashboard = JSON::PP->new->utf8->decode(PostgreSQL::Test::Utils::slurp_file("$doc/dvmig-dashboard.json"));
my %known = map { $_->{metric_name} => $_ } @{ $file->{metrics} };
my (%used, %id, @wrong);

for my $p (@{ $dashboard->{panels} })
{
	push @wrong, "$p->{title}: id" if $id{ $p->{id} }++;
	push @wrong, "$p->{title}: place" if $p->{gridPos}{x} + $p->{gridPos}{w} > 24;
	for my $expr (map { $_->{expr} } @{ $p->{targets} })
	{
		for my $metric ($expr =~ /\b(dvmig_\w+)/g)
		{
			$used{$metric}++;
			push @wrong, "$p->{title}: $metric is not collected" unless $known{$metric};
		}
		push @wrong, "$p->{title}: brackets" if ($expr =~ tr/(//) != ($expr =~ tr/)//) || ($expr =~ tr/{//) != ($expr =~ tr/}//);
		# values of labels that the queries make
		while ($expr =~ /(dvmig_\w+)\{[^}]*?\b(state|what|since)=~?"([^"]*)"/g)
		{
			my ($metric, $label, $values) = ($1, $2, $3);
			my %allowed = map { $_ => 1 } @{ $known{$metric}{values} };
			push @wrong, "$p->{title}: $metric has no label $label" unless ($known{$metric}{value_label} // '') eq $label;
			push @wrong, map { "$p->{title}: $metric has no $label $_" } grep { !$allowed{$_} } split /\|/, $values;
		}
	}
}
is(join("\n", @wrong), '', 'panels show what is collected');
is(join(' ', grep { !$used{$_} && $_ ne 'dvmig_run_active' } sort keys %known), '', 'all that is collected is shown');
like($dashboard->{templating}{list}[1]{definition}, qr/dvmig_run_active/, 'migrations are chosen from those there are');

done_testing();

#!/usr/bin/perl
#
# lint.t - the shape of the sources: sizes, scripts, what no file may contain

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Find;
use FindBin;
use Test::More;

my $tree = abs_path("$FindBin::Bin/../..");
my %files;

# Long lists of values are data, not code; what a tool generated is not ours.
my $data = qr{^(?:expected/|test/expected/|test/data/|test/dataverse/metadata/|dvmig--|results/|test/results/)};
my $max_lines = 600;

sub slurp
{
	my ($name) = @_;
	open(my $in, '<:raw', "$tree/$name") or die "cannot read $name: $!";
	local $/;
	return scalar <$in> // '';
}

find(
	{
		no_chdir => 1,
		wanted   => sub {
			return if $File::Find::name eq $tree;
			my $name = substr($File::Find::name, length($tree) + 1);
			if (-d && $name =~ m{^(?:\.git|tmp_check|results|output_iso)$})
			{
				$File::Find::prune = 1;
				return;
			}
			return unless -f && -s && -s _ < 4_000_000;
			return if $name =~ m{\.(?:o|so|bc|a|d|png)$};
			$files{$name} = 1;
		},
	},
	$tree);

my @code = grep { !/$data/ && (/\.(?:c|h|sql|pl|pm|t|sh|spec)$/ || m{^(?:test/(?:check|demo)|\.ci/run)$}) }
  sort keys %files;
cmp_ok(scalar(@code), '>', 20, 'the sources are there');

my @long = grep { (my @l = split /\n/, slurp($_), -1) > $max_lines + 1 } @code;
is("@long", '', "no source file has more than $max_lines lines");

my @ends = grep { slurp($_) =~ /[ \t]\n|\r\n|\n\n\z/ } grep { /\.(?:c|h|sql)$/ && !m{^test/} } @code;
is("@ends", '', 'no white space at the ends of lines or files');

my @banner = grep { slurp($_) !~ m{\A/\*} } grep { /\.[ch]$/ } @code;
is("@banner", '', 'every C file begins with a comment that says what it is for');

my @guard = grep { slurp($_) !~ /^#ifndef \w+\n#define \w+/m } grep { /\.h$/ } @code;
is("@guard", '', 'every header has a guard');

my @calls = grep { slurp($_) =~ /\b(?:strcpy|strcat|sprintf|gets|strtok|atol|system|popen)\s*\(/ }
  grep { m{^src/.*\.c$} } @code;
is("@calls", '', 'no function of the C library without a bound in the extension');

my @ereport = grep {
	my $text = slurp($_);
	my $bare = 0;
	while ($text =~ /\bereport\s*\(\s*(?:ERROR|FATAL)\s*,((?:[^;"]|"(?:[^"\\]|\\.)*")*);/g)
	{
		$bare++ if $1 !~ /errcode/;
	}
	$bare;
} grep { m{^src/.*\.c$} } @code;
is("@ereport", '', 'every error has an SQLSTATE of its own');

my $sql = join('', map { slurp($_) } grep { m{^sql/[^/]*\.sql$} } @code);
my @public = $sql =~ /\bGRANT\b[^;]*\bTO\s+PUBLIC\b/gi;
is("@public", '', 'nothing is granted to PUBLIC');

my @scripts = grep { slurp($_) =~ m{\A#!.*\bbash\b} } sort keys %files;
cmp_ok(scalar(@scripts), '>=', 2, 'the scripts are there');
for my $script (@scripts)
{
	is(system('bash', '-n', "$tree/$script"), 0, "$script parses");
	ok(-x "$tree/$script", "$script is executable");
}

SKIP:
{
	my ($shellcheck) = grep { -x "$_/shellcheck" } split /:/, $ENV{PATH} . ':/usr/bin';
	skip('no shellcheck here', 1) unless $shellcheck;
	my $out = do {
		chdir $tree;
		open(my $in, '-|', "$shellcheck/shellcheck", '-x', @scripts) or die "shellcheck: $!";
		local $/;
		<$in>;
	};
	is($out // '', '', 'shellcheck finds nothing');
}

done_testing();

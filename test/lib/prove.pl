#!/usr/bin/perl
#
# prove.pl - run TAP test files and close with one line of figures
#
#   prove.pl [--jobs N] [--timeout SECONDS] [--results FD] [--verbose] file ...
#
# As prove does, but the last line says "N passed, N failed, N skipped" over all
# files, which test/check adds up: a file that dies, leaves its plan or exits
# with an error counts as one failed test more, a file that is skipped as a
# whole as one skipped. A file that runs longer than the timeout is ended. Each
# file learns its name from DVMIG_TEST_NAME, for the logs of what it starts, and
# a line about it goes to the descriptor when it has ended.

use strict;
use warnings;

use Getopt::Long;
use IO::Handle;
use TAP::Harness;

my $jobs = 1;
my $verbose = 0;
my $timeout = $ENV{DVMIG_TAP_TIMEOUT} // 3000;
my $results;
GetOptions('jobs=i' => \$jobs, 'timeout=i' => \$timeout, 'results=i' => \$results, 'verbose!' => \$verbose)
  or die "usage: $0 [--jobs N] [--timeout SECONDS] [--results FD] [--verbose] file ...\n";

# One file that bails out has failed; that is no reason not to run the others.
{
	package Harness;
	our @ISA = ('TAP::Harness');
	sub _bailout { return; }
}

# The libraries come by PERL5LIB, so that forked helpers see them too.
my $harness = Harness->new({
	exec      => sub { [ 'env', 'DVMIG_TEST_NAME=' . name_of($_[1]), 'timeout', '--kill-after=30', $timeout, $^X, $_[1] ] },
	jobs      => $jobs,
	verbosity => $verbose ? 1 : 0,
	failures  => 1,
	comments  => 0,
	errors    => 1,
	timer     => 1,
	merge     => 0,
});
if (defined $results)
{
	open(my $out, '>>&=', $results) or die "cannot write to descriptor $results: $!\n";
	$out->autoflush;
	$harness->callback(after_test => sub {
		my ($job, $parser) = @_;
		printf $out "%s %d %d %d\n", name_of($job->[0]), figures($parser);
	});
}
my $all = $harness->runtests(@ARGV);

my ($passed, $failed, $skipped) = (0, 0, 0);
for my $parser ($all->parsers)
{
	my ($p, $f, $s) = figures($parser);

	$passed += $p;
	$failed += $f;
	$skipped += $s;
}
print "$passed passed, $failed failed, $skipped skipped\n";
exit($failed ? 1 : 0);

# name_of(path): a test's name, without folder and ending.
sub name_of
{
	return $_[0] =~ s{.*/}{}r =~ s{\.\w+$}{}r;
}

# figures(parser): tests passed, failed and skipped in one file.
sub figures
{
	my ($parser) = @_;
	my $skips = scalar $parser->skipped;
	my $failed = scalar $parser->failed;

	return (0, 0, 1) if $parser->skip_all;
	# Died, wrong plan or an exit status: no single test says so.
	$failed = 1 if !$failed && ($parser->exit || $parser->wait || scalar($parser->parse_errors));
	return (scalar($parser->passed) - $skips, $failed, $skips);
}

#!/usr/bin/perl
#
# prove.pl - run TAP test files and close with one line of figures
#
#   prove.pl [--jobs N] [--timeout SECONDS] [--verbose] file ...
#
# As prove does, but the last line says "N passed, N failed, N skipped" over all
# files, which test/check adds up: a file that dies, leaves its plan or exits
# with an error counts as one failed test more, a file that is skipped as a
# whole as one skipped. A file that runs longer than the timeout is ended.

use strict;
use warnings;

use Getopt::Long;
use TAP::Harness;

my $jobs = 1;
my $verbose = 0;
my $timeout = $ENV{DVMIG_TAP_TIMEOUT} // 900;
GetOptions('jobs=i' => \$jobs, 'timeout=i' => \$timeout, 'verbose!' => \$verbose)
  or die "usage: $0 [--jobs N] [--timeout SECONDS] [--verbose] file ...\n";

# One file that bails out has failed; that is no reason not to run the others.
{
	package Harness;
	our @ISA = ('TAP::Harness');
	sub _bailout { return; }
}

# The libraries come by PERL5LIB, so that forked helpers see them too.
my $harness = Harness->new({
	exec      => [ 'timeout', '--kill-after=30', $timeout, $^X ],
	jobs      => $jobs,
	verbosity => $verbose ? 1 : 0,
	failures  => 1,
	comments  => 0,
	errors    => 1,
	timer     => 1,
	merge     => 0,
});
my $all = $harness->runtests(@ARGV);

my ($passed, $failed, $skipped) = (0, 0, 0);
for my $parser ($all->parsers)
{
	my $skips = scalar $parser->skipped;

	if ($parser->skip_all)
	{
		$skipped++;
		next;
	}
	$passed += scalar($parser->passed) - $skips;
	$failed += scalar $parser->failed;
	$skipped += $skips;
	# Died, wrong plan or an exit status: no single test says so.
	$failed++
	  if !scalar($parser->failed)
	  && ($parser->exit || $parser->wait || scalar($parser->parse_errors));
}
print "$passed passed, $failed failed, $skipped skipped\n";
exit($failed ? 1 : 0);

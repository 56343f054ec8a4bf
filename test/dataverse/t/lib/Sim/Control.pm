# Sim::Control - orders to the simulator and questions about what happened
package Sim::Control;

use strict;
use warnings;

use Exporter qw(import);
use Time::HiRes qw(sleep time);

use Sim qw(json_of);

our @EXPORT_OK = qw(control fault clear_faults faults stats export record counters set_switches reset_sim wait_until);

# A request below /_sim/; gives the answer's structure back, dies when refused.
sub control
{
	my ($sim, $method, $path, $body) = @_;
	my $r = $sim->raw($method, "/_sim/$path", {'Content-Type' => 'application/json'}, defined $body ? json_of($body) : undef);
	$r->{status} < 300 or die "/_sim/$path: $r->{status} $r->{body}\n";
	return $r->{status} == 204 ? {} : $r->json;
}

# Order a fault: what it does, when, to which requests (see faults.h).
sub fault { my ($sim, %rule) = @_; return control($sim, 'POST', 'fault', {%rule}); }
sub clear_faults { return control($_[0], 'DELETE', 'fault'); }
sub faults { return control($_[0], 'GET', 'fault'); }

sub stats { return control($_[0], 'GET', 'stats'); }
sub export { return control($_[0], 'GET', "export/$_[1]"); }
sub record { return control($_[0], 'GET', "record/$_[1]/$_[2]"); }
sub counters { return control($_[0], 'GET', "counters/$_[1]"); }
sub set_switches { my ($sim, %s) = @_; return control($sim, 'POST', 'set', {%s}); }
sub reset_sim { return control($_[0], 'POST', 'reset' . ($_[1] ? "?$_[1]" : '')); }

# Ask until the answer is true; false when it never is.
sub wait_until
{
	my ($question) = @_;
	my $until = time + Sim::PATIENCE;
	while (time < $until)
	{
		return 1 if $question->();
		sleep 0.02;
	}
	return 0;
}

1;

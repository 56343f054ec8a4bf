# Whatever comes back: replies cut at every byte, read a byte at a time, huge,
# deep, not JSON, of the wrong type or charset. No row is lost or doubled, no
# backend crashes, memory stays bounded.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use JSON::PP;
use Test::More;

use PostgreSQL::Test::Utils;

use DvMig;

# So many runs at a time: what one waits for, another can use.
use constant LANES => 16;

my $t = DvMig->new(name => 'hostile', conf => "max_worker_processes = 40\nmax_connections = 40\ndvmig.settle_time = '100ms'\n");
my $sim = $t->sim;

$t->server('sim');
$t->{has_server} = 1;
for my $i (0 .. LANES - 1)
{
	$t->sql("CREATE TABLE t$i (id int PRIMARY KEY, name text NOT NULL)");
	$t->migration("m$i", tables => $i == 0 ? 'account' : undef);
	$t->sql(qq{SELECT dvmig.add_table('m$i', 't$i', 'account', source_key => 'id');
		SELECT dvmig.map_column('t$i', 'name', 'name')});
}
my $postmaster = $t->sql('SELECT pg_postmaster_start_time()');
my $rows = 0;

# everywhere(statement with %d for the lane)
sub everywhere
{
	my ($statement) = @_;
	return join ';', map { $statement =~ s/%d/$_/gr } 0 .. LANES - 1;
}

# one_round(faults by lane): every lane gets two rows, meets its fault, and
# runs until it has nothing left to do.
sub one_round
{
	my ($flag, @faults) = @_;
	my ($first, $second) = ($rows + 1, $rows + 2);

	$rows += 2 if $flag eq 'I';
	$sim->sim('DELETE', 'fault');
	$t->sql(everywhere($flag eq 'I' ? "INSERT INTO t%d VALUES ($first, 'lane %d. row $first'), ($second, 'lane %d. row $second')"
			: "UPDATE t%d SET name = name || '.', processing_flag = 'U', action_flag = '$flag' WHERE id > " . ($rows - 2)));
	$sim->fault($_) for grep { defined } @faults;
	my @runs = split /\n/, $t->sql(everywhere("SELECT dvmig.start('m%d')"));
	my @states = map { $t->finish($_)->{state} } @runs;

	# Where the very first answers were broken, nothing was begun: again.
	$sim->sim('DELETE', 'fault');
	$t->run("m$_") for grep { $states[$_] ne 'completed' } 0 .. $#states;
	return join ' ', @states;
}

# books(name): all rows done, in every lane, and Dataverse agrees.
sub books
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $open = $t->sql("SELECT count(*) FROM ("
			. join(' UNION ALL ', map { "SELECT processing_flag FROM t$_" } 0 .. LANES - 1) . ") q WHERE processing_flag <> 'P'");
	my $counters = $sim->counters('accounts');

	is($open, 0, "$name: every row is done");
	is($counters->{created_twice}, 0, "$name: none was created twice");
	is($t->sql('SELECT pg_postmaster_start_time()'), $postmaster, "$name: no backend crashed");
}

sub all_books
{
	my ($name) = @_;
	my (%held, @wrong);

	$held{ $_->{name} }++ for @{ $sim->export('accounts') };
	for my $i (0 .. LANES - 1)
	{
		$held{ $_->{name} }-- for @{ $t->rows("SELECT name FROM t$i WHERE processing_flag = 'P' AND action_flag <> 'D'") };
	}
	push @wrong, grep { $held{$_} } sort keys %held;
	is("@wrong[0 .. ($#wrong > 4 ? 4 : $#wrong)]", '', "$name: Dataverse holds each row once");
}

# Cut at every byte. The rows of a lane name it, so that each meets its own.
sub cut_everywhere
{
	my ($name, $flag, $bytes, %match) = @_;

	for (my $n = 0; $n < $bytes; $n += LANES)
	{
		# a delete needs its own rows
		one_round('I') if $flag ne 'I';
		one_round($flag, map { { do => 'cut', bytes => $n + $_, body_contains => $flag eq 'D' ? undef : "lane $_.", %match } } 0 .. LANES - 1);
	}
	books($name);
	all_books($name);
}

# Two ids of 36 characters, and the context: less than 240 bytes.
cut_everywhere('bulk create cut at every byte', 'I', 240, path_contains => 'CreateMultiple');

# --- a byte at a time, everything
one_round('I', { do => 'dribble', seconds => 0, count => 0 });
one_round('U', { do => 'dribble', seconds => 0, count => 0 });
books('every answer byte by byte');

# --- a $batch of single operations, whose parts come back in pieces
{
	my @bad = ({ do => 'status', status => 400, code => '0x80044331', message => 'refused, whole', path_contains => 'Multiple', count => 0 });

	for (my $n = 0; $n < 560; $n += 5 * LANES)
	{
		one_round('I', @bad, map { { do => 'cut', bytes => $n + 5 * $_, path_contains => '$batch', body_contains => "lane $_." } } 0 .. LANES - 1);
	}
	books('batch answers cut');
	all_books('batch answers cut');
}

# --- hostile bodies in place of an answer
my @bodies = (
	[ 'no body', { text => '', times => 0 } ],
	[ 'not JSON', { text => 'Hello, this is no JSON.' } ],
	[ 'JSON of another shape', { text => '{"value":[1,2,3],"Ids":"none"}' } ],
	[ 'an array', { text => '[[],[{}],null]' } ],
	[ 'numbers for ids', { text => '{"Ids":[1,2]}' } ],
	[ 'ids of others', { text => '{"Ids":["00000000-0000-0000-0000-000000000001","00000000-0000-0000-0000-000000000002"]}' } ],
	[ 'deep', { text => '[', times => 2_000_000 } ],
	[ 'deep objects', { text => '{"a":', times => 500_000 } ],
	[ 'huge', { text => 'x' x 500, times => 200_000 } ],
	[ 'UTF-16', { text => "\x00{\x00}", content_type => 'application/json; charset=utf-16' } ],
	[ 'Latin-1', { text => "{\"error\":{\"code\":\"0x80040216\",\"message\":\"Gr\xfc\xdfe\"}}", status => 400, content_type => 'application/json; charset=iso-8859-1' } ],
	[ 'a multipart without parts', { text => "--x--\r\n", content_type => 'multipart/mixed; boundary=x' } ],
	[ 'a multipart without boundary', { text => "--x\r\n", content_type => 'multipart/mixed' } ],
	[ 'an error without code', { text => '{"error":{}}', status => 400 } ],
	[ 'an error of another shape', { text => '{"error":["no"],"Message":17}', status => 400 } ],
	[ 'a status that does not exist', { text => 'odd', status => 299 } ],
);
my @faults = map { { do => 'body', %{ $_->[1] } } } @bodies;

# One for each lane. A lane that asks again may meet another's too.
one_round('I', map { { %{ $faults[$_] }, after => JSON::PP::true, path_contains => 'CreateMultiple', body_contains => "lane $_." } } 0 .. $#faults);
books('hostile answers to bulk creates');
all_books('hostile answers to bulk creates');

# The write is in doubt, and what is asked about it is answered so.
one_round('I', { do => 'reset_after', path_contains => 'CreateMultiple', count => LANES },
	map { { %$_, path_contains => 'In(PropertyName', count => 2 } } @faults);
books('hostile answers to the question which rows arrived');
all_books('hostile answers to the question which rows arrived');

one_round('I', map { { %$_, path_contains => 'oauth2' } } @faults);
one_round('I', map { { %$_, path_contains => 'WhoAmI' } } @faults);
books('hostile answers at log-in');
all_books('hostile answers at log-in');

unlike(PostgreSQL::Test::Utils::slurp_file($t->node->logfile), qr/(?:PANIC|terminated by signal|invalid memory alloc|stack depth)/, 'nothing of it in the server log');
$sim->stop;
$t->node->stop;
done_testing();

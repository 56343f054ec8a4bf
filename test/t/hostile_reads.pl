# Whatever comes back where a reply is read and nothing is created: metadata, the
# token, references, verifications, uploads. An error or a second question, never
# a wrong answer; no backend crashes, and none takes more memory than a reply may
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Digest::MD5 qw(md5_hex);
use Test::More;

use PostgreSQL::Test::Utils;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'hostile_reads', conf => "dvmig.settle_time = '100ms'\nshared_buffers = 16MB\n");
my $t = $h->t;
my $sim = $t->sim;

my @bodies = (
	[ 'no body', { text => '', times => 0 } ],
	[ 'not JSON', { text => 'Hello, this is no JSON.' } ],
	[ 'HTML', { text => '<html><body>Sign in</body></html>', content_type => 'text/html' } ],
	[ 'an empty object', { text => '{}' } ],
	[ 'JSON of another shape', { text => '{"value":{"a":1},"UserId":7,"access_token":{},"expires_in":[]}' } ],
	[ 'records of another type', { text => '{"value":[1,"two",null,[3],{"LogicalName":4,"systemuserid":5,"contactid":6}]}' } ],
	[ 'an array', { text => '[[],[{}],null]' } ],
	[ 'deep', { text => '[', times => 2_000_000 } ],
	[ 'deep objects', { text => '{"value":', times => 500_000 } ],
	[ 'huge', { text => 'x' x 500, times => 200_000 } ],
	[ 'many small records', { text => '{"value":[' . join(',', ('{}') x 200), times => 40_000 } ],
	[ 'cut', { text => '{"value":[{"LogicalName":"contact","systemuserid":"bbbbbbbb-0000-4000-8000-0000000000' } ],
	[ 'UTF-16', { text => "\x00{\x00}", content_type => 'application/json; charset=utf-16' } ],
	[ 'Latin-1', { text => "{\"value\":[{\"LogicalName\":\"Gr\xfc\xdfe\"}]}", content_type => 'application/json; charset=iso-8859-1' } ],
	[ 'a NUL', { text => "{\"value\":[{\"LogicalName\":\"a\\u0000b\"}]}" } ],
	[ 'a next page without end', { text => '{"value":[],"@odata.nextLink":"' . $sim->url . '/api/data/v9.2/nothing"}' } ],
	[ 'a next page elsewhere', { text => '{"value":[],"@odata.nextLink":"http://127.0.0.1:1/"}' } ],
	[ 'an error of another shape', { text => '{"error":["no"],"Message":17}', status => 400 } ],
);

my $table = $h->scene(rows => 60);
$t->sql("SELECT dvmig.map_lookup('$table', 'ownerid', \$\$'user' || 1 + id % 3 || '\@example.org'\$\$, 'systemuser', match_on => 'internalemailaddress')");
is($t->run($h->migration)->{state}, 'completed', 'a table is loaded');
my $postmaster = $t->sql('SELECT pg_postmaster_start_time()');

# peak(pid): most memory that a process has had, in kB
sub peak
{
	my ($pid) = @_;
	open(my $in, '<', "/proc/$pid/status") or return 0;
	my ($kb) = map { /^VmHWM:\s*(\d+)/ ? $1 : () } <$in>;
	return $kb // 0;
}

# each_body(name, path, code): the answer under that path is each of the bodies, once; what code says of it
sub each_body
{
	my ($name, $match, $code) = @_;
	my $after = delete $match->{after};

	for my $body (@bodies)
	{
		# success without a body is what an upload is answered with: a lie that nobody could tell
		next if defined $after && !$after && $body->[0] =~ /^(no body|UTF-16)$/;
		$sim->fault({ match => {%$match}, do => 'body', count => 1, $after ? (after => JSON::PP::true) : (), %{ $body->[1] } });
		my $said = $code->();
		$sim->sim('DELETE', 'fault');
		is($said, '', "$name: $body->[0]");
	}
	is($t->sql('SELECT pg_postmaster_start_time()'), $postmaster, "$name: no backend crashed");
	return;
}

# ------------------------------------------------------- asked by a session itself

# One session asks for all of it: it answers, or says what is wrong, and what is known stays.
my $session = $h->session;
my $pid = $session->do('SELECT pg_backend_pid()') + 0;
my $known = q{SELECT md5(string_agg(c::text, '' ORDER BY c::text)) FROM dvmig.metadata_column c};
my $references = q{SELECT md5(string_agg(concat_ws('|', match_key, record_id), '' ORDER BY match_key)) FROM dvmig.reference};
my ($was, $were) = map { $t->sql($_) } $known, $references;
$session->send("\\set ON_ERROR_STOP off\n\\echo done\n");
$session->expect(qr/^done$/m);

# asked(SQL): '' where it was answered or refused in order
sub asked
{
	my ($sql) = @_;
	my $said = $session->do($sql);

	return 'the session is gone' unless $session->{psql}->pumpable;
	return $said =~ /XX000|invalid memory|out of memory|stack depth|server closed/ ? $said : $t->sql($known) ne $was ? 'metadata have changed' : $t->sql($references) ne $were ? 'references have changed' : '';
}
each_body('metadata', { path_contains => 'EntityDefinitions' }, sub { asked(q{SELECT count(*) FROM dvmig.refresh_metadata('sim', '{contact}')}) });
each_body('references', { path_contains => '/systemusers' }, sub { asked(sprintf q{SELECT count(*) FROM dvmig.refresh_references('%s')}, $h->migration) });
each_body('who we are', { path_contains => 'WhoAmI' }, sub { asked(q{SELECT count(*) FROM dvmig.whoami('sim')}) });
each_body('the token', { path_contains => 'oauth2' }, sub { $sim->sim('DELETE', 'tokens'); asked(q{SELECT count(*) FROM dvmig.whoami('sim')}) });
# metadata cut wherever it may be
for my $n (map { $_ * $_ * 29 } 0 .. 20)
{
	$sim->fault({ match => { path_contains => 'EntityDefinitions', nth => 1 + $n % 3 }, do => 'cut', bytes => $n, count => 1 });
	my $said = asked(q{SELECT count(*) FROM dvmig.refresh_metadata('sim', '{contact}')});
	$sim->sim('DELETE', 'fault');
	is($said, '', "metadata cut at byte $n");
}
SKIP:
{
	skip 'a sanitizer keeps what is freed', 1 if DvMig::instrumented();
	cmp_ok(peak($pid), '<', 192 * 1024, 'the session took little memory for any of it') or diag peak($pid);
}
is(asked(q{SELECT count(*) FROM dvmig.refresh_metadata('sim', '{contact}')}), '', 'and works on');
$session->quit;

# ------------------------------------------------------------------ a verification

each_body('verification', { method => 'GET', path_contains => '/contacts' }, sub {
	my $run = $t->sql(sprintf q{SELECT dvmig.start_verify('%s')}, $h->migration);
	my $end = $t->finish($run);

	# it asks again, or gives up and says why: it never finds a difference that is none
	return '' if $end->{state} eq 'failed' && $end->{message};
	return "$end->{state} " . $t->sql("SELECT coalesce(string_agg(concat_ws('/', compared, equal, missing, different, extra), ' '), 'nothing') FROM dvmig.verification WHERE run = $run") =~ s{^60/60/0/0/0$}{}r =~ s/^$//r
	  if $end->{state} ne 'completed' || $t->sql("SELECT concat_ws('/', compared, equal, missing, different) FROM dvmig.verification WHERE run = $run") ne '60/60/0/0';
	return '';
});

# ------------------------------------------------------------------------- uploads

$t->sql(q{CREATE TABLE invoices (id int PRIMARY KEY, name text, document bytea);
	INSERT INTO invoices SELECT n, 'I' || n, convert_to(repeat('file ' || n || ' ', 1000), 'UTF8') FROM generate_series(1, 2) n});
$t->migration('f', tables => 'new_invoice');
$t->sql(q{SELECT dvmig.add_table('f', 'invoices', 'new_invoice', source_key => 'id', auto_map => false);
	SELECT dvmig.map_column('invoices', 'new_invoicenumber', 'name');
	SELECT dvmig.map_file('invoices', 'new_document', 'document')});

my $n = 0;
for my $after (0, 1)
{
	each_body($after ? 'uploads that were carried out' : 'uploads that were not', { method => 'PATCH', path_contains => 'new_document', after => $after }, sub {
		$n++;
		$t->sql("UPDATE invoices SET document = convert_to(repeat('file ' || id || ' $n ', 1000), 'UTF8'), processing_flag = 'U'");
		my $run = $t->run('f', 'resend => true');
		return "the run is $run->{state}: $run->{message}" if $run->{state} ne 'completed';
		# a refusal is the row's error; without one its file is there
		my $token = $sim->token;
		for my $r (@{ $t->rows(q{SELECT id, processing_flag AS flag, dataverse_id AS record, md5(document) AS digest FROM invoices}) })
		{
			return "row $r->{id} is $r->{flag}" if $r->{flag} !~ /[PE]/;
			next if $r->{flag} eq 'E';
			my ($status, $bytes) = $sim->curl('GET', "/api/data/v9.2/new_invoices($r->{record})/new_document/\$value", undef, "Authorization: Bearer $token", 'OData-Version: 4.0', 'OData-MaxVersion: 4.0');
			return "file $r->{id} is another" if md5_hex($bytes) ne $r->{digest};
		}
		return '';
	});
}
is($sim->counters('new_invoices')->{created_twice}, 0, 'uploads: no record was made twice');

# ---------------------------------------------------------------- a worker's memory

# A hundred megabytes for each of four answers; then what is asked about them hangs, and the worker can be looked at.
$table = $h->scene(rows => 400);
$sim->fault({ match => { path_contains => 'CreateMultiple' }, do => 'body', text => 'x' x 500, times => 200_000, count => 4, after => JSON::PP::true });
$h->hold(method => 'GET', path_contains => '/contacts');
my $run = $t->start($h->migration);
$h->until('it asks which rows arrived', sub { $h->held > 0 });
my $worker = $h->worker($run);
SKIP:
{
	skip 'a sanitizer keeps what is freed', 1 if DvMig::instrumented();
	cmp_ok(peak($worker->{pid}), '<', 256 * 1024, 'a worker took little memory for huge answers') or diag peak($worker->{pid});
}
$h->release;
$h->ends($run, 'completed');
$h->exact('huge answers', '400/0/400/0/0');

unlike(slurp_file($t->node->logfile), qr/(?:PANIC|TRAP|terminated by signal|invalid memory alloc|stack depth|XX000)/, 'nothing of it in the server log');

done_testing();

# The report: what it says, to whom, that nothing in it comes from outside, and
# that a browser shows it
use strict;
use warnings;

use Encode qw(decode);
use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'report');
$t->migration('m', tables => 'account,contact');
my $evil = q{<script>document.title="owned"</script><img src=x onerror="alert(1)">'&amp;};
$t->sql(qq{
	CREATE TABLE firms (id text PRIMARY KEY, name text, turnover text);
	INSERT INTO firms SELECT i::text, 'Firm ' || i, (i * 10)::text FROM generate_series(1, 180) i;
	INSERT INTO firms SELECT '9' || i, 'Firm', \$x\$ $evil \$x\$ FROM generate_series(100, 130) i;
	INSERT INTO firms VALUES (\$x\$$evil\$x\$, repeat('x', 300), '1');
	CREATE TABLE people (id int PRIMARY KEY, family text, firm text, gone bool DEFAULT false);
	INSERT INTO people SELECT i, CASE WHEN i % 20 = 0 THEN repeat('x', 300) ELSE 'Müller ' || i END, (1 + i % 180)::text, i > 190 FROM generate_series(1, 200) i;
	SELECT dvmig.add_table('m', 'firms', 'account', source_key => 'id');
	SELECT dvmig.map_column('firms', 'name', 'name');
	SELECT dvmig.map_column('firms', 'revenue', \$\$CASE WHEN turnover <> '<b>' THEN turnover::numeric END\$\$);
	SELECT dvmig.add_table('m', 'people', 'contact', source_key => 'id', filter => 'NOT gone', filter_reason => 'gone & <forgotten>');
	SELECT dvmig.map_column('people', 'lastname', 'family');
	SELECT dvmig.map_lookup('people', 'parentcustomerid', 'firm', 'firms')});

# ------------------------------------------------------- before anything ran

like($t->sql(q{SELECT dvmig.report('m')}), qr{^<!DOCTYPE html>.*Rows per second</h2>.*No run has been sampled yet.*Not verified yet.*</html>}s, 'a migration that never ran has a report');
like($t->error(q{SELECT dvmig.report('n')}), qr/42704.*migration "n" does not exist/s, 'one that does not exist has none');

my $run = $t->run('m', 'ignore_gate => true');
is($run->{state}, 'completed', 'a run');
my $html = $t->sql(q{SELECT dvmig.report('m')});

# ----------------------------------------------------------------- what it says

my %want = (
	'the verdict'          => qr/Open: .*failed/,
	'staged rows'          => qr/<b>412<\/b>staged/,
	'bars of tables'       => qr/<svg class="chart"[^>]*aria-label="Rows by table">.*180 of 212 done/s,
	'rates'                => qr/Rows per second, run $run->{run}<\/h2><svg/,
	'errors by class'      => qr/aria-label="Failed rows by class">.*transform/s,
	'top errors'           => qr/What fails most.*invalid input syntax for type numeric/s,
	'the definition'       => qr/<td>revenue<\/td><td class="w">CASE WHEN turnover &lt;&gt; &#39;&lt;b&gt;&#39;/,
	'why rows are left out' => qr/gone &amp; &lt;forgotten&gt;/,
);
like($html, $want{$_}, "the report has $_") for sort keys %want;
unlike($html, qr/<script|<img|onerror="|javascript:|<iframe|<link|\@import|url\(/i, 'nothing of a message or key is markup');
my @tags = $html =~ /<[^>]*>/g;
is(join(' ', grep { /\b(?:src|href|on\w+|style)\s*=|:\/\// } @tags), '', 'no element has an address, a handler or a style of its own');
like($html, qr/&lt;script&gt;document.title=/, 'but it is there, as text');
my %open;
$open{ lc $2 } += $1 eq '/' ? -1 : 1 while $html =~ /<(\/?)(table|thead|tbody|tr|td|th|svg|div|h[123]|p|body|html|head|style|title|text|footer|b|span)\b[^>]*>/gi;
is(join(' ', map { "$_:$open{$_}" } grep { $open{$_} } sort keys %open), '', 'every element is closed');

my $text = $t->sql(q{SELECT dvmig.report_text('m')});
like($text, qr/^Migration m to sim .*firms +#+\.+  180 of 212 done, 32 failed.*transform +31.*Runs\n +$run->{run}  completed/s, 'for a terminal') or diag($text);
$t->sql(qq{UPDATE firms_error SET message = E'\\x1b[2J\\x07 cleared' WHERE error_class <> 'transform'});
unlike($t->sql(q{SELECT dvmig.report_text('m')}), qr/[\x00-\x09\x0b-\x1f]/, 'which nothing in a message commands');

# ------------------------------------------------------------------ for whom

$t->sql(q{CREATE ROLE guest LOGIN; SELECT dvmig.grant_viewer('guest', 'm'); CREATE ROLE stranger LOGIN; GRANT USAGE ON SCHEMA dvmig TO stranger; GRANT EXECUTE ON FUNCTION dvmig.report(text) TO stranger});
my $seen = $t->sql(q{SET ROLE guest; SELECT dvmig.report('m')});
like($seen, qr/shown to those who may read the error tables.*/s, 'a viewer is told what he does not see');
unlike($seen, qr/invalid input syntax|document.title|Müller/, 'and sees no message and no key');
like($seen, qr/<b>412<\/b>staged.*transform/s, 'but the figures');
like($t->error(q{SET ROLE stranger; SELECT dvmig.report('m')}), qr/42501.*permission denied for migration "m"/s, 'a stranger sees nothing');
$t->sql(q{GRANT SELECT ON firms_error, people_error TO guest});
like($t->sql(q{SET ROLE guest; SELECT dvmig.report('m')}), qr/invalid input syntax/, 'who may read the error tables sees their messages');

# ------------------------------------------------------------- in a browser

SKIP:
{
	my ($browser) = grep { -x } map { ("$_/chromium", "$_/chromium-browser") } split(/:/, $ENV{PATH}), '/usr/bin';
	skip('no chromium here', 5) unless $browser;

	# enough runs and time for a picture worth looking at
	$t->sql(qq{INSERT INTO dvmig.run_sample SELECT $run->{run}, h.started_at + i * interval '1 millisecond', (h.succeeded * (i + 14 * sin(i / 9.0)) / 140)::bigint, h.failed * i / 140, i, i * 1000, 0, 0, 8
		FROM dvmig.run_history h, generate_series(1, 90) i WHERE h.run = $run->{run}});
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $page = $ENV{DVMIG_REPORT_PNG} ? $ENV{DVMIG_REPORT_PNG} : "$dir/report";
	open(my $out, '>:raw', "$page.html") or die $!;
	print $out $t->sql(q{SELECT dvmig.report('m')}), "\n";
	close $out;
	my @headless = ($browser, '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--hide-scrollbars', "--user-data-dir=$dir/profile");
	local $ENV{HOME} = $dir;
	is(system(join(' ', @headless, '--window-size=1100,2600', "--screenshot=$page.png", "file://$page.html", ">$dir/log 2>&1")), 0, 'chromium draws it');
	my $png = PostgreSQL::Test::Utils::slurp_file("$page.png");
	like($png, qr/^\x89PNG/, 'a picture');
	cmp_ok(length $png, '>', 50_000, 'with something on it');
	my $dom = `@headless --dump-dom file://$page.html 2>$dir/log2`;
	like($dom, qr/<title>Migration m<\/title>/, 'no script of a message has run');
	is(scalar(() = $dom =~ /<script|<img/gi), 0, 'nor become an element');
}

done_testing();

# The documents: the reference names everything there is, links lead somewhere,
# and what README.md and the tutorial tell a reader to type can be typed
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $root = "$FindBin::RealBin/../..";

sub slurp
{
	my ($path) = @_;
	open(my $in, '<:raw', $path) or die "cannot read $path: $!";
	local $/;
	return scalar <$in>;
}

# ---------------------------------------------------------------- the reference

my $reference = slurp("$root/doc/reference.md");
my %section;    # heading -> its text, up to the next heading
$section{$1} = $2 while $reference =~ /^###? ([^\n]+)\n(.*?)(?=^##|\z)/msg;

# missing(text, names): those that the text does not name as `name`.
sub missing
{
	my ($text, @names) = @_;
	return join ' ', grep { $text !~ /`\Q$_\E`/ } @names;
}

sub squeezed
{
	my ($text) = @_;
	return $text =~ s/\s+/ /gr;
}

my $t = DvMig->new(name => 'documents');

# Arguments as the catalog prints them, without the casts of defaults.
my $functions = $t->rows(q{
	SELECT p.proname AS name,
		regexp_replace(regexp_replace(pg_get_function_arguments(p.oid), '(, )?(OUT [^,]+)(, OUT [^,]+)*$', ''), '\mIN |::[a-z]+(\[\])?', '', 'g') AS arguments,
		ARRAY(SELECT n FROM unnest(p.proargnames, p.proargmodes) u(n, m) WHERE m IN ('o', 't')) AS results
	FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	WHERE p.pronamespace = 'dvmig'::regnamespace AND p.proname !~ '^_' ORDER BY 1});
cmp_ok(scalar(@$functions), '>', 20, 'the extension has public functions');
for my $f (@$functions)
{
	my $text = $section{ $f->{name} };

	ok(defined $text, "$f->{name}: has a section") or next;
	like(squeezed($text), qr/\Qdvmig.$f->{name}($f->{arguments})\E/, "$f->{name}: signature");
	# what a view shows is described with the view
	is(missing($text, @{ $f->{results} }), '', "$f->{name}: results") unless $f->{name} =~ /_rows$/;
}

my $relations = $t->rows(q{
	SELECT c.relname AS name,
		ARRAY(SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
	FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
	WHERE c.relnamespace = 'dvmig'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND c.relname !~ '^_' ORDER BY 1});
cmp_ok(scalar(@$relations), '>', 10, 'the extension has tables and views');
for my $r (@$relations)
{
	ok(defined $section{ $r->{name} }, "$r->{name}: has a section") or next;
	is(missing($section{ $r->{name} }, @{ $r->{columns} }), '', "$r->{name}: columns");
}

my $outcome = $t->rows(q{SELECT col FROM dvmig._outcome_columns('success') UNION SELECT col FROM dvmig._outcome_columns('error')});
is(missing($section{'Staging and outcome tables'}, map { $_->{col} } @$outcome), '', 'columns of outcome tables');

my $settings = $t->rows(q{SELECT name FROM (SELECT dvmig.record_id(gen_random_uuid(), 1)) loaded, pg_settings WHERE name LIKE 'dvmig.%'});
cmp_ok(scalar(@$settings), '>', 3, 'the extension has settings');
is(missing($section{'Settings'}, map { $_->{name} } @$settings), '', 'settings');

my $states = $t->rows(q{
	SELECT DISTINCT m[1] AS state FROM pg_constraint c, regexp_matches(pg_get_constraintdef(c.oid), '''([a-z]+)''', 'g') m
	WHERE c.conrelid IN ('dvmig.run_history'::regclass, 'dvmig.run_table'::regclass) AND c.contype = 'c'});
is(missing($section{'Run states'}, map { $_->{state} } @$states), '', 'states and passes');

# Error classes, from where they are made.
my %class;
my $rules = slurp("$root/src/verdict.c");
$class{$1} = 1 while $rules =~ /^\t\{.*DV_\w+, "([a-z_]+)", \d+\}/mg;
for my $file (map { slurp("$root/src/$_") } qw(answer.c encode.c source.c))
{
	$class{$1} = 1 while $file =~ /_verdict\("([a-z_]+)"/g;
	$class{$1} = 1 while $file =~ /^\t\t\{"[a-z]+", "([a-z_]+)", "[a-z_]+", "/mg;
}
cmp_ok(scalar(keys %class), '>', 15, 'there are error classes');
is(missing($section{'Error classes'}, sort keys %class), '', 'error classes');

# --------------------------------------------------------------------- links

for my $path ('README.md', map { s{.*/}{doc/}r } glob("$root/doc/*.md"))
{
	my $text = slurp("$root/$path");
	my $dir = $path =~ m{(.*)/} ? $1 : '.';
	my @broken;

	for my $link ($text =~ /\]\(([^)\s]+)\)/g)
	{
		next if $link =~ /^[a-z]+:/;
		my ($file, $anchor) = $link =~ /^([^#]*)(?:#(.*))?$/;
		my $target = $file eq '' ? "$root/$path" : "$root/$dir/$file";

		push(@broken, $link), next unless -e $target;
		next unless defined $anchor;
		my %anchors = map { lc(s/[^\w\s-]//gr =~ s/ /-/gr) => 1 } slurp($target) =~ /^#+ (.*)$/mg;
		push @broken, $link unless $anchors{$anchor};
	}
	is("@broken", '', "$path: links");
}

# ------------------------------------------------------------------- sessions

my $second = DvMig::Sim->start(args => [ '--organization' => '0d5e7a00-0000-4000-8000-000000000002', '--organization-name' => 'contoso' ]);

# as_here(sql): the addresses and credentials of our simulators.
sub as_here
{
	my ($sql) = @_;
	my ($client, $secret, $tenant) = (DvMig::Sim::CLIENT, DvMig::Sim::SECRET, DvMig::Sim::TENANT);

	for my $sim ([ qr/contoso-test\.[^']*/, $t->sim ], [ qr/contoso\.crm4[^']*/, $second ])
	{
		my ($host, $url) = ($sim->[0], $sim->[1]->url);
		$sql =~ s{url 'https://$host'}{url '$url', authority '$url'};
	}
	$sql =~ s/tenant '[^']*'/tenant '$tenant'/;
	$sql =~ s/client_id '[^']*'/client_id '$client'/;
	$sql =~ s/client_secret_file '[^']*'/client_secret '$secret'/;
	return $sql;
}

# In blocks marked "sql" every statement must do; in those marked "sql error"
# none may. What is not meant to be run is marked "text".
sub run_document
{
	my ($path, $db) = @_;
	my $text = slurp("$root/$path");
	my @blocks;
	my $script = '';

	push @blocks, { kind => $1, sql => $2 } while $text =~ /^```sql([^\n]*)\n(.*?)^```$/msg;
	cmp_ok(scalar(@blocks), '>', 5, "$path has statements to run");
	is(scalar(grep { $_->{kind} !~ /^(?: error)?$/ } @blocks), 0, "$path: kinds of blocks");
	# One session for all of it, as the reader has.
	for my $i (0 .. $#blocks)
	{
		$script .= "\\warn == block $i\n" . as_here($blocks[$i]{sql}) . "\n\\warn == done $i\n";
	}
	$t->sql("CREATE DATABASE $db");
	my ($out, $err);
	$t->node->psql($db, $script, stdout => \$out, stderr => \$err, timeout => $PostgreSQL::Test::Utils::timeout_default, extra_params => ['-v', 'ON_ERROR_STOP=0']);
	for my $i (0 .. $#blocks)
	{
		my ($said) = $err =~ /^== block $i\n(.*?)^== done $i$/ms;
		my $errors = () = ($said // '') =~ /^psql:\S*:\d+: ERROR:/mg;
		my $expected = $blocks[$i]{kind} eq ' error' ? 1 : 0;

		ok(defined $said && $errors == $expected, "$path: block $i" . ($expected ? ' is refused' : ''))
		  or diag($blocks[$i]{sql}, $said // 'was not reached');
	}
	return;
}

run_document('README.md', 'readme');
is($t->node->safe_psql('readme', q{SELECT string_agg(DISTINCT next_step, ',') FROM dvmig.status}), 'done', 'README.md: ends with all rows loaded');
run_document('doc/tutorial.md', 'tutorial');
is($t->node->safe_psql('tutorial', q{SELECT sum(failed) || ' ' || bool_and(invariant_holds) FROM dvmig.status}), '1 true',
	'doc/tutorial.md: ends with one failed row');
$_->sim('POST', 'reset') for $t->sim, $second;
run_document('doc/cookbook.md', 'cookbook');
is($t->node->safe_psql('cookbook', q{SELECT sum(failed) || ' ' || sum(staged - succeeded) || ' ' || bool_and(invariant_holds) FROM dvmig.status}), '0 0 true',
	'doc/cookbook.md: ends with all rows loaded, in production');

$second->stop;
$t->sim->stop;
$t->node->stop;
done_testing();

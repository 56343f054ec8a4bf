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

# doc/internals.md: a room for each source file, and none for one that is not there.
{
	my $text = slurp("$root/doc/internals.md");
	my @named = map { /^sql/ ? $_ : "src/$_" } $text =~ /`((?:sql\/)?[\w*]+\.(?:c|h|sql))`/g;
	my %is_there = map { s{^\Q$root\E/}{}r => 1 } map { glob("$root/$_") } @named;

	is(join(' ', grep { !$is_there{"src/$_"} } map { s{.*/}{}r } glob("$root/src/*.c")), '', 'doc/internals.md names every source file');
	is(join(' ', grep { my @files = glob("$root/$_"); !@files || !-e $files[0] } @named), '', 'doc/internals.md names no other');
}

# ------------------------------------------------------------------- sessions

my $second = DvMig::Sim->start(args => [ '--organization' => '0d5e7a00-0000-4000-8000-000000000002', '--organization-name' => 'contoso' ]);

my $secret_file = $t->node->basedir . '/client.secret';
{
	my $umask = umask 0077;
	open(my $out, '>', $secret_file) or die "cannot write $secret_file: $!";
	print $out DvMig::Sim::SECRET;
	close $out;
	umask $umask;
}

# as_here(sql): the addresses and credentials of our simulators.
sub as_here
{
	my ($sql) = @_;
	my ($client, $tenant) = (DvMig::Sim::CLIENT, DvMig::Sim::TENANT);

	for my $sim ([ qr/contoso-test\.[^']*/, $t->sim ], [ qr/contoso\.crm4[^']*/, $second ])
	{
		my ($host, $url) = ($sim->[0], $sim->[1]->url);
		$sql =~ s{url 'https://$host'}{url '$url', authority '$url'};
	}
	$sql =~ s/tenant '[^']*'/tenant '$tenant'/;
	$sql =~ s/client_id '[^']*'/client_id '$client'/;
	$sql =~ s/client_secret_file '[^']*'/client_secret_file '$secret_file'/;
	return $sql;
}

# What a document shows and what psql printed differ in random ids, in who we are here and there,
# in the widths that follow from these, and in how often progress is told.
sub comparable
{
	my ($text) = @_;
	my $me = getpwuid($<);

	$text =~ s/^psql:\S+ //mg;
	$text =~ s/^NOTICE:  run \d+ running:.*\n//mg;
	$text =~ s/\b[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[0-9a-f]{4}-/some-id-/g;
	$text =~ s/\bcccccccc-[0-9a-f-]+/the-user/g;
	$text =~ s/\bpostgres\b/$me/g;
	$text =~ s/-{2,}/--/g;
	$text =~ s/ +/ /g;
	$text =~ s/ ?\n+/\n/g;
	$text =~ s/\A\n//;
	return $text;
}

# messages(text), results(text): the parts of what psql prints.
sub messages { return join '', $_[0] =~ /^(?:psql:\S+ )?((?:NOTICE|WARNING|ERROR|DETAIL|HINT|CONTEXT): .*\n)/mg; }
sub results { return $_[0] =~ s/^(?:NOTICE|WARNING|ERROR|DETAIL|HINT|CONTEXT): .*\n//mgr; }

# In blocks marked "sql" every statement must do; in those marked "sql error"
# none may. What is not meant to be run is marked "text"; what follows a block of
# SQL without a word between them is what psql printed.
sub run_document
{
	my ($path, $db) = @_;
	my $text = slurp("$root/$path");
	my @blocks;
	my $script = '';

	push @blocks, { kind => $1, sql => $2, printed => $3 } while $text =~ /^```sql([^\n]*)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?/msg;
	cmp_ok(scalar(@blocks), '>', 5, "$path has statements to run");
	is(scalar(grep { $_->{kind} !~ /^(?: error)?$/ } @blocks), 0, "$path: kinds of blocks");
	# One session for all of it, as the reader has.
	$script = "\\pset format aligned\n\\pset tuples_only off\n";
	for my $i (0 .. $#blocks)
	{
		my ($begin, $end) = map { "\\echo == $_ $i\n\\warn == $_ $i\n" } qw(block done);

		$script .= $begin . as_here($blocks[$i]{sql}) . "\n$end";
	}
	$t->sql("CREATE DATABASE $db");
	my ($out, $err);
	$t->node->psql($db, $script, stdout => \$out, stderr => \$err, timeout => $PostgreSQL::Test::Utils::timeout_default, extra_params => ['-v', 'ON_ERROR_STOP=0']);
	for my $i (0 .. $#blocks)
	{
		my ($said, $shown) = map { /^== block $i\n(.*?)^== done $i$/ms } $err, $out;
		my $errors = () = ($said // '') =~ /^psql:\S*:\d+: ERROR:/mg;
		my $expected = $blocks[$i]{kind} eq ' error' ? 1 : 0;

		ok(defined $said && $errors == $expected, "$path: block $i" . ($expected ? ' is refused' : ''))
		  or diag($blocks[$i]{sql}, $said // 'was not reached');
		next unless defined $blocks[$i]{printed};
		is(comparable($shown), comparable(results($blocks[$i]{printed})), "$path: block $i prints what is shown");
		is(comparable(messages($said)), comparable(messages($blocks[$i]{printed})), "$path: block $i says what is shown");
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

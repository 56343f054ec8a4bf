# What dvmig.preview() shows is what is sent, to the byte: creates and updates, in
# bulk messages and in batches, masked where it goes to no production
use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(profile => 'strict', name => 'preview');

$t->sql(q{
	CREATE SCHEMA staging;
	CREATE TABLE staging.customers (id int PRIMARY KEY, company text, branch text, turnover numeric, owner text);
	INSERT INTO staging.customers SELECT n, E'Größe "' || n || E'"\n\\ 😀', (ARRAY['Accounting', NULL])[1 + n % 2], n * 1.50, 'user' || n || '@example.org' FROM generate_series(1, 1) n;
	CREATE TABLE staging.people (id int PRIMARY KEY, name text, firm int);
	INSERT INTO staging.people SELECT n, 'Secret ' || n, n FROM generate_series(1, 1) n;
	CREATE TABLE staging.todo (id int PRIMARY KEY, what text, done_by timestamptz, firm int);
	INSERT INTO staging.todo SELECT n, 'Task ' || n, '2024-05-31 10:00+02', n FROM generate_series(1, 1) n;
	CREATE TABLE staging.mails (id int PRIMARY KEY, about text, readers int[]);
	INSERT INTO staging.mails VALUES (1, 'Hello', '{1}')});
$t->migration('m', tables => 'account,contact,task,email');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.customers', 'account', target_key => 'new_legacyid', auto_map => false), dvmig.add_table('m', 'staging.people', 'contact', auto_map => false),
		dvmig.add_table('m', 'staging.todo', 'task', auto_map => false), dvmig.add_table('m', 'staging.mails', 'email', auto_map => false);
	SELECT dvmig.map_column('staging.customers', 'name', 'company'), dvmig.map_choice('staging.customers', 'industrycode', 'branch'), dvmig.map_column('staging.customers', 'revenue', 'turnover'),
		dvmig.map_lookup('staging.customers', 'ownerid', 'owner', 'systemuser', match_on => 'internalemailaddress');
	SELECT dvmig.map_column('staging.people', 'lastname', 'name', mask => 'dvmig.mask_name(name)'), dvmig.map_lookup('staging.people', 'parentcustomerid', 'firm', 'staging.customers');
	SELECT dvmig.map_column('staging.todo', 'subject', 'what'), dvmig.map_column('staging.todo', 'scheduledend', 'done_by'), dvmig.map_lookup('staging.todo', 'regardingobjectid', 'firm', 'staging.customers');
	SELECT dvmig.map_column('staging.mails', 'subject', 'about'), dvmig.map_party('staging.mails', 'to', 'readers', 'staging.people');
	SELECT * FROM dvmig.refresh_references('m')});

# sent(label, rows): each row as the preview shows it is in a request of the run that follows. One row a
# table, so that each request has but one of them in it.
sub sent
{
	my ($label, $rows) = @_;
	my @shown = map { my $table = $_; map { { %$_, table => $table } } @{ $t->rows("SELECT operation, request, remark FROM dvmig.preview('staging.$table', 10)") } } qw(customers people todo mails);

	is(join(' ', map { "$_->{table}:$_->{operation}" } @shown), $rows, "$label: every row is shown");
	is(scalar(grep { $_->{request} =~ /Secret/ } @shown), 0, "$label: masked");
	$t->sim->sim('DELETE', 'fault');
	# a fault that does nothing counts the requests that have the text in them
	$t->sim->fault({ match => { method => 'POST', body_contains => $_->{request} =~ s/^\{|\}$//gr }, count => 0, do => 'slow', seconds => 0 }) for @shown;
	is($t->run('m', 'ignore_gate => true')->{state}, 'completed', "$label: the run completes");
	my $fired = $t->sim->sim('GET', 'fault');
	is(join(', ', map { "$shown[$_]{table}: $shown[$_]{request}" } grep { !$fired->[$_]{fired} } 0 .. $#shown), '', "$label: what was shown was sent");
	$t->sim->sim('DELETE', 'fault');
	return;
}

# Rows whose parents are not loaded are shown as such, so that a table goes after the other.
is(join(' ', map { "$_->{remark}" } @{ $t->rows(q{SELECT remark FROM dvmig.preview('staging.todo', 10)}) }) =~ /wait|parent|not loaded/ ? 1 : 0, 1, 'a row that waits for its parent says so')
  or diag $t->sql(q{SELECT * FROM dvmig.preview('staging.todo', 10)});
$t->sql(q{UPDATE staging.people SET processing_flag = 'E'; UPDATE staging.todo SET processing_flag = 'E'; UPDATE staging.mails SET processing_flag = 'E'});
sent('creates in bulk', 'customers:I');
$t->sql(q{UPDATE staging.people SET processing_flag = 'U'; UPDATE staging.todo SET processing_flag = 'U'});
sent('creates of children, masked and in a batch', 'people:I todo:I');
$t->sql(q{UPDATE staging.mails SET processing_flag = 'U'});
sent('parties', 'mails:I');
$t->sql(q{UPDATE staging.customers SET company = company || '!', processing_flag = 'U'});
sent('updates', 'customers:U');

# More rows than are fetched at a time.
$t->sql(q{INSERT INTO staging.people (id, name) SELECT n, 'Person ' || n FROM generate_series(1001, 3500) n});
is($t->sql(q{SELECT concat_ws(' ', count(*), count(DISTINCT source_key), count(request)) FROM dvmig.preview('staging.people', 2400) WHERE source_key::int > 1000}), '2400 2400 2400', 'all of many rows');

is($t->sql(q{SELECT count(*) FROM dvmig.preview('staging.people', 0)}), 0, 'none');
like($t->error("SELECT * FROM dvmig.preview('staging.people', $_)"), qr/22023: *sample cannot be $_.*HINT: *Give the number/s, "not $_ rows") for '-1', 'null';

$t->sim->stop;
$t->node->stop;
done_testing();

# DvMig::Attack - what the tests share that try to lose or to double a row
#
#   my $a = DvMig::Attack->new(profile => 'strict', rows => 600);
#   $a->fresh;                                    # all rows new, Dataverse empty
#   $a->faults({ match => {...}, do => 'reset_after' });
#   $a->exact('what was tried', '600/0/600/0/0');
#
# A staging table of companies with a master key, one of people who belong to
# them, and one of tasks, which Dataverse takes no bulk message for. exact() is
# DvMig's account, field by field, and the figures that are expected.
package DvMig::Attack;

use strict;
use warnings;

use Test::More;

use DvMig;

our %FIELDS = (
	customers => {
		name => 's.name', new_legacyid => 's.id::text', telephone1 => 's.phone', revenue => 's.revenue',
	},
	people => {
		lastname => 's.name', new_legacyid => 's.id::text',
		_parentcustomerid_value => '(SELECT c.dataverse_id FROM staging.customers c WHERE c.id = s.company)',
	},
	tasks => {
		subject => 's.name', description => 's.text',
	},
);

# new(profile =>, rows => companies, tables => [...], settle => '300ms', and as for DvMig: conf, set, args, init)
sub new
{
	my ($class, %o) = @_;
	my @tables = @{ $o{tables} // ['customers'] };
	my %have = map { $_ => 1 } @tables;
	my $t = DvMig->new(profile => $o{profile} // 'strict', map { $_ => $o{$_} } grep { defined $o{$_} } qw(name conf set args init));
	my $self = bless { t => $t, rows => $o{rows} // 300, tables => \@tables, profile => $o{profile} // 'strict' }, $class;

	$t->sql(sprintf q{ALTER DATABASE postgres SET dvmig.settle_time = '%s'}, $o{settle} // '300ms');
	$t->sql(q{
		CREATE SCHEMA staging;
		CREATE TABLE staging.customers (id int PRIMARY KEY, name text, phone text, revenue numeric);
		CREATE TABLE staging.people (id int PRIMARY KEY, name text, company int);
		CREATE TABLE staging.tasks (id int PRIMARY KEY, name text, text text)});
	$t->migration('m', tables => 'account,contact,task');
	$t->sql(q{
		SELECT dvmig.add_table('m', 'staging.customers', 'account', source_key => 'id', target_key => 'new_legacyid');
		SELECT dvmig.map_column('staging.customers', 'name', 'name');
		SELECT dvmig.map_column('staging.customers', 'telephone1', 'phone');
		SELECT dvmig.map_column('staging.customers', 'revenue', 'revenue')}) if $have{customers};
	$t->sql(q{
		SELECT dvmig.add_table('m', 'staging.people', 'contact', source_key => 'id', target_key => 'new_legacyid');
		SELECT dvmig.map_column('staging.people', 'lastname', 'name');
		SELECT dvmig.map_lookup('staging.people', 'parentcustomerid', 'company', 'staging.customers')}) if $have{people};
	$t->sql(q{
		SELECT dvmig.add_table('m', 'staging.tasks', 'task', source_key => 'id');
		SELECT dvmig.map_column('staging.tasks', 'subject', 'name');
		SELECT dvmig.map_column('staging.tasks', 'description', 'text')}) if $have{tasks};
	return $self;
}

sub t { return $_[0]{t}; }
sub sim { return $_[0]{t}->sim; }
sub sql { my ($self, @rest) = @_; return $self->{t}->sql(@rest); }

# fresh: nothing in Dataverse, every row unprocessed and without an outcome.
sub fresh
{
	my ($self) = @_;
	my $n = $self->{rows};

	$self->sim->sim('POST', 'reset');
	$self->sql("TRUNCATE staging.$_, staging.${_}_success, staging.${_}_error") for @{ $self->{tables} };
	for my $table (@{ $self->{tables} })
	{
		$self->sql("INSERT INTO staging.customers SELECT n, 'Company ' || n, '+49 ' || n, n * 1.25 FROM generate_series(1, $n) n")
		  if $table eq 'customers';
		$self->sql("INSERT INTO staging.people SELECT n, 'Person ' || n, 1 + n % $n FROM generate_series(1, $n) n") if $table eq 'people';
		$self->sql("INSERT INTO staging.tasks SELECT n, 'Task ' || n, E'line\\nline ' || n FROM generate_series(1, $n) n") if $table eq 'tasks';
	}
	return;
}

# edit(table): every row changed and flagged again.
sub edit
{
	my ($self, $table) = @_;
	my $column = $table eq 'tasks' ? 'text' : 'name';

	$self->sql("UPDATE staging.$table SET $column = $column || '*', processing_flag = 'U'");
	return;
}

sub faults
{
	my ($self, @faults) = @_;

	$self->sim->fault($_) for @faults;
	return;
}

sub clear { $_[0]->sim->sim('DELETE', 'fault'); return; }

# run: a run in the foreground, then no faults any more.
sub run
{
	my ($self, $arguments) = @_;
	my $run = $self->{t}->run('m', $arguments);

	$self->clear;
	return $run;
}

sub until { my $self = shift; return $self->{t}->until(@_); }

# fired(n): poll until so many faults have been met.
sub fired
{
	my ($self, $n) = @_;
	return $self->until("$n faults have fired", sub { $self->sim->stats->{faults} >= $n });
}

# exact(name, table => 'staged/unprocessed/succeeded/failed/left out', ...):
# the figures and the account of both sides. -extra as of DvMig::account.
sub exact
{
	my ($self, $name, %expected) = @_;
	my %more = map { $_ => delete $expected{$_} } grep { /^-/ } keys %expected;
	my $fields = delete $more{-fields} // \%FIELDS;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($self->{t}->counts("staging.$_"), $expected{$_}, "$name: figures of $_") for sort keys %expected;
	subtest "$name: account" => sub {
		$self->{t}->account('m', (map { ("staging.$_" => $fields->{$_}) } @{ $self->{tables} }), %more);
	};
	return;
}

# twice(set): records whose create logic ran more than once.
sub twice { return $_[0]->sim->sim('GET', "counters/$_[1]")->{created_twice}; }

# user_edit(set, id, changes): as another user of Dataverse would.
sub user_edit
{
	my ($self, $set, $id, $changes) = @_;
	return $self->sim->change($set, $id, $changes);
}

sub done
{
	my ($self) = @_;

	$self->sim->stop;
	$self->{t}->node->stop('immediate');
	return;
}

1;

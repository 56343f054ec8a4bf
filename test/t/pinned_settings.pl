# Settings of a session, of a role or of the database that change what an expression
# gives: a run, and all that tells beforehand what it will do, hold to one meaning.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'pinned_settings', conf => "dvmig.settle_time = 300ms\n");

$t->sql(q{
	CREATE TABLE firms (id int PRIMARY KEY, word text, at timestamptz, span interval, share float8, bytes bytea);
	INSERT INTO firms SELECT i, 'a\tb', '2024-01-01 00:30+00'::timestamptz - (i % 2) * interval '1 hour', '1 year 2 days 03:04:05', 0.1::float8 + 0.2::float8, '\x41ff'
		FROM generate_series(1, 10) i});
$t->migration('m', tables => 'account');
$t->sql(q{
	SELECT dvmig.add_table('m', 'firms', 'account', source_key => 'id', auto_map => false,
		filter => 'at::date >= ''2024-01-01''', filter_reason => 'old');
	SELECT dvmig.map_column('firms', 'name', $$'C:\temp\new ' || word$$);
	SELECT dvmig.map_column('firms', 'address1_line1', 'at::text || at::date');
	SELECT dvmig.map_column('firms', 'address1_line2', 'span::text || share');
	SELECT dvmig.map_column('firms', 'address1_line3', 'bytes::text')});

my %calls = (
	preview => q{SELECT string_agg(request::text || coalesce(remark, ''), E'\n' ORDER BY source_key) FROM dvmig.preview('firms', 20)},
	status => 'SELECT string_agg(to_jsonb(s)::text, E\'\n\') FROM dvmig.status s',
	check => q{SELECT string_agg(to_jsonb(c)::text, E'\n') FROM dvmig.check('m') c},
	plan => q{SELECT string_agg(concat_ws(' ', p.step, p.creates, p.updates, p.requests, p.bytes), E'\n') FROM dvmig.plan('m') p},
	outcome_faults => q{SELECT count(*) FROM dvmig.outcome_faults('firms')},
	start => q{SET dvmig.max_resend = 2; BEGIN; SELECT count(dvmig.start('m')); ROLLBACK});
my @settings = (q{TimeZone = 'Asia/Tokyo'}, q{TimeZone = 'America/Los_Angeles'}, q{DateStyle = 'German, DMY'}, q{IntervalStyle = 'iso_8601'},
	'extra_float_digits = -5', q{bytea_output = 'escape'}, 'standard_conforming_strings = off', 'array_nulls = off', q{xmloption = 'document'});

sub alike
{
	my ($when) = @_;
	my %plain = map { $_ => $t->sql($calls{$_}) } keys %calls;

	for my $setting (@settings)
	{
		is(join(' ', grep { $t->sql("SET $setting; $calls{$_}") ne $plain{$_} } sort keys %calls), '', "$when: nothing tells otherwise under $setting");
	}
	return;
}

alike('before a run');
is($t->ended($t->run('m')), 'completed: ', 'a run loads them');
is($t->counts('firms'), '10/0/5/0/5', 'but those that are left out');
my $record = $t->sim->export('accounts')->[0];
is(join('|', map { $record->{$_} } qw(name address1_line1 address1_line2 address1_line3)),
	'C:\temp\new a\tb|2024-01-01 00:30:00+002024-01-01|1 year 2 days 03:04:050.30000000000000004|\x41ff', 'with the values that were shown');
$t->sql(q{UPDATE firms SET processing_flag = 'U' WHERE processing_flag = 'P'});
alike('when rows come again');

# The worker is a session of the owner's.
for my $setting (@settings)
{
	$t->sql("ALTER ROLE CURRENT_USER SET $setting");
	$t->sql(q{UPDATE firms SET processing_flag = 'U' WHERE processing_flag = 'P'});
	my $run = $t->run('m', 'resend => true');
	is($t->ended($run) . "$run->{unchanged}", 'completed: 5', "with $setting of the role all are unchanged");
	is($t->sql(q{SELECT concat_ws(' ', compared, equal, result) FROM dvmig.verify('m')}), '5 5 equal', "and a verification finds them equal");
	$t->sql('ALTER ROLE CURRENT_USER RESET ALL');
}

# What an operator writes himself means what it means in his session.
is($t->sql(q{SET TimeZone = 'America/Los_Angeles'; SELECT sent + equal FROM dvmig.resend('firms', '{name}', filter => 's.at::date >= ''2024-01-01''')}), '0',
	'a filter of the call is of the session that calls');

done_testing();

# Columns whose collation takes several texts for one: a lookup is of the key that is
# written, once for each row, whatever the collation of the column that names it.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'collations', conf => "dvmig.settle_time = 300ms\n");
plan skip_all => 'PostgreSQL was built without ICU'
  if $t->error(q{CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level1', deterministic = false)}) ne '';

$t->migration('m', tables => 'account,contact,businessunit,email,activityparty');
$t->sim->create('accounts', { name => $_ }) for 'resume', "resum\x{e9}";
$t->sql(q{
	CREATE TABLE firms (id text PRIMARY KEY, name text);
	INSERT INTO firms SELECT v || i, v || i FROM unnest('{k,K}'::text[]) v, generate_series(1, 10) i;
	CREATE TABLE coded (id varchar(20) COLLATE "C" PRIMARY KEY, name text);
	INSERT INTO coded SELECT 'c' || id, name FROM firms;
	CREATE TABLE people (id int PRIMARY KEY, name text, firm text COLLATE loose, code varchar(20) COLLATE loose, met text COLLATE loose);
	INSERT INTO people SELECT i, 'P' || i, (ARRAY['k', 'K'])[1 + i % 2] || 1 + i % 10, 'c' || (ARRAY['k', 'K'])[1 + i % 2] || 1 + i % 10, (ARRAY['resume', 'resumé', 'RESUME'])[1 + i % 3] FROM generate_series(1, 60) i;
	CREATE TABLE units (id text PRIMARY KEY, name text, parent text COLLATE loose);
	INSERT INTO units VALUES ('u', 'unit u', NULL), ('U', 'unit U', 'u'), ('v', 'unit v', 'U'), ('V', 'unit V', 'u'), ('x', 'unit x', 'V');
	CREATE TABLE mails (id int PRIMARY KEY, subject text, readers text[] COLLATE loose);
	INSERT INTO mails SELECT i, 'M' || i, ARRAY[(ARRAY['k', 'K'])[1 + i % 2] || 1] FROM generate_series(1, 6) i;
	SELECT dvmig.add_table('m', x::regclass, y, source_key => 'id', auto_map => false)
	FROM (VALUES ('firms', 'account'), ('coded', 'account'), ('people', 'contact'), ('units', 'businessunit'), ('mails', 'email')) q(x, y);
	SELECT dvmig.map_column(x::regclass, 'name', 'name') FROM unnest('{firms,coded,units}'::text[]) x;
	SELECT dvmig.map_column('people', 'lastname', 'name');
	SELECT dvmig.map_lookup('people', 'parentcustomerid', 'firm', 'firms');
	SELECT dvmig.map_lookup('people', 'parentcustomerid', $$CASE WHEN id > 40 THEN met END$$, 'account', match_on => 'name', fallback => true);
	SELECT dvmig.map_lookup('units', 'parentbusinessunitid', 'parent', 'units');
	SELECT dvmig.map_column('mails', 'subject', 'subject');
	SELECT dvmig.map_party('mails', 'to', 'readers', 'firms');
	UPDATE people SET firm = NULL WHERE id > 40});
# one table whose key has another collation than the database's
$t->sql(q{
	SELECT dvmig.unmap('people', 'parentcustomerid');
	SELECT dvmig.map_lookup('people', 'parentcustomerid', 'CASE WHEN id <= 20 THEN firm END', 'firms');
	SELECT dvmig.map_lookup('people', 'parentcustomerid', 'CASE WHEN id BETWEEN 21 AND 40 THEN code END', 'coded', fallback => true);
	SELECT dvmig.map_lookup('people', 'parentcustomerid', 'CASE WHEN id > 40 THEN met END', 'account', match_on => 'name', target_table => 'account', fallback => true)});

$t->sql(q{
	CREATE TABLE trees (id text PRIMARY KEY, name text, parent text COLLATE loose);
	INSERT INTO trees VALUES ('x', 'x', NULL), ('X', 'X', 'x'), ('y', 'y', 'X');
	SELECT dvmig.add_table('m', 'trees', 'account', source_key => 'id', auto_map => false);
	SELECT dvmig.map_column('trees', 'name', 'name');
	SELECT dvmig.map_lookup('trees', 'parentaccountid', 'parent', 'trees')});

is($t->sql(q{SELECT string_agg(concat_ws(' ', staging, rule), ', ') FROM dvmig.check('m') WHERE rule IN ('loop', 'parent_not_loaded') OR severity = 'error' AND rule !~ '^reference_not_read'}), '', 'a check finds no error, nor circles');
my $run = $t->run('m');
is($t->ended($run), 'completed: ', 'a run comes to its end');
is($t->counts($_->[0]), $_->[1], "each row of $_->[0] counts once") for [ people => '60/0/60/0/0' ], [ units => '5/0/5/0/0' ], [ mails => '6/0/6/0/0' ], [ trees => '3/0/3/0/0' ];

my %account = map { $_->{accountid} => $_->{name} } @{ $t->sim->export('accounts') };
my %held = map { $_->{lastname} => $account{ $_->{_parentcustomerid_value} // '' } // 'none' } @{ $t->sim->export('contacts') };
is(join(' ', map { "P$_=" . $held{"P$_"} } 1 .. 40), join(' ', map { "P$_=" . (qw(k K))[ $_ % 2 ] . (1 + $_ % 10) } 1 .. 40), 'a lookup is of the row whose key is written');
is(join(' ', map { $held{"P$_"} // 'lost' } 41 .. 60), join(' ', map { (qw(resume), "resum\x{e9}", 'resume')[ $_ % 3 ] } 41 .. 60), 'and of the record');
my %unit = map { $_->{businessunitid} => $_ } @{ $t->sim->export('businessunits') };
is(join(' ', map { "$_->{name}>" . ($unit{ $_->{_parentbusinessunitid_value} // '' }{name} // '') } sort { $a->{name} cmp $b->{name} } grep { ($_->{name} // '') =~ /^unit [UvVx]/ } values %unit),
	'unit U>unit u unit V>unit u unit v>unit U unit x>unit V', 'levels of a hierarchy, too');
is($t->ended($t->job(q{dvmig.verify('m')})), 'completed: ', 'a verification comes to its end');
is($t->sql(q{SELECT string_agg(concat_ws(' ', staging, compared, equal), ', ' ORDER BY staging) FROM dvmig.verification WHERE staging IN ('public.people', 'public.units', 'public.mails')}),
	'public.mails 6 6, public.people 60 60, public.units 5 5', 'and compares each row once');

done_testing();

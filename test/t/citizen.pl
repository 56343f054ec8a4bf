# What users and the database server do to a staging table while requests hang:
# nothing waits for the network, and every row still has one true verdict
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig::Held;

my $h = DvMig::Held->new(name => 'citizen');
my $t = $h->t;
my $table;
my $run;

# ------------------------------------------------------ nothing is held meanwhile

$table = $h->scene(rows => 1000);
$t->sql('CREATE TABLE other AS SELECT n FROM generate_series(1, 1000) n');
$h->hold;
$run = $h->start(least => 2);

# The worker mirrors its figures once a second, in a transaction of some
# milliseconds: between two of them there is nothing.
$t->wait_for(qq{SELECT backend_xmin IS NULL AND backend_xid IS NULL AND xact_start IS NULL
	FROM pg_stat_activity WHERE application_name = 'dvmig run $run'});
ok($h->held > 0, 'between request and answer the worker has no transaction and no snapshot');
$t->wait_for(qq{SELECT NOT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
	WHERE a.application_name = 'dvmig run $run' AND l.locktype NOT IN ('advisory', 'virtualxid'))});
ok($h->held > 0, 'and no lock but its own advisory ones');
$t->sql('DELETE FROM other');
ok($h->until('VACUUM removes dead rows', sub {
	$h->sql('VACUUM other');
	return $h->sql("SELECT pg_relation_size('other')") == 0 && $h->held > 0;
}), 'VACUUM removes what died after the requests went out');

$h->release;
$h->ends($run, 'completed');
$h->exact('nothing held', '1000/0/1000/0/0');

# ------------------------------------------ statements that want the table alone

# Each comes while some rows are recorded and flagged, some are on their way
# and some are not read yet. What it leaves is the same rows in other places.
for my $case (
	[ 'VACUUM FULL', 'VACUUM FULL %s' ],
	[ 'CLUSTER', 'CLUSTER %s USING %1$s_pkey' ],
	[ 'VACUUM', 'VACUUM (FREEZE) %s' ],
	[ 'a new column', q{ALTER TABLE %s ADD COLUMN note text DEFAULT 'n'} ],
	[ 'a new column that rewrites the table', q{ALTER TABLE %s ADD COLUMN note timestamptz DEFAULT clock_timestamp()} ],
	[ 'a wider type of a mapped column', q{ALTER TABLE %s ALTER COLUMN city TYPE varchar(200)} ],
	[ 'another type of an unmapped column', q{ALTER TABLE %s ALTER COLUMN spare TYPE bytea USING convert_to(spare, 'UTF8')} ],
	[ 'an index', 'CREATE INDEX ON %s (family)' ],
	[ 'an index made concurrently', 'CREATE INDEX CONCURRENTLY ON %s (family)' ],
	[ 'REINDEX', 'REINDEX TABLE %s' ],
	[ 'ANALYZE', 'ANALYZE %s' ],
	[ 'a trigger', q{CREATE FUNCTION %1$s_f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
		CREATE TRIGGER t BEFORE UPDATE ON %1$s FOR EACH ROW EXECUTE FUNCTION %1$s_f()} ],
	[ 'another storage', 'ALTER TABLE %s SET (fillfactor = 50)' ],
	[ 'a lock of the table', 'BEGIN; LOCK TABLE %s IN ACCESS EXCLUSIVE MODE; COMMIT' ])
{
	my ($name, $sql) = @$case;

	$table = $h->scene(rows => 1000);
	$h->hold(nth => 2);
	$run = $h->start(least => 2);
	$t->wait_for("SELECT count(*) = 100 FROM $table WHERE processing_flag = 'P'");
	$h->beside($name, sprintf $sql, $table);
	$h->release;
	$h->ends($run, 'completed', "$name: the run goes on and completes");
	$h->exact($name, '1000/0/1000/0/0');
	my $sent = $h->sim->counters('contacts');
	is($sent->{creates}, 1000, "$name: every row was created once");
	is($sent->{updates}, 0, "$name: and none was written again");
}

done_testing();

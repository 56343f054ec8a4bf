# Images read back: as they were sent where the service keeps them so, whether
# they are there where it keeps a thumbnail, and what it shows where the metadata does not say
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use MIME::Base64;
use Test::More;

use DvMig;

my $stranger = 'dddddddd-0000-4000-8000-00000000000d';
my $t = DvMig->new(name => 'images');
my $sim = $t->sim;

# Change a record past the API.
sub plant { my ($set, $id, $fields, $as) = @_; return $sim->change($set, $id, $fields, as => $as // DvMig::Sim::USER); }

sub id_of { my ($table, $id) = @_; return $t->sql("SELECT dataverse_id FROM $table WHERE id = '$id'"); }

sub verified
{
	my ($table) = @_;
	return $t->sql("SELECT concat_ws(' ', compared, equal, different, changed_since, result, not_compared) FROM dvmig.verify('m', '$table')");
}

$t->sql(q{
	CREATE SCHEMA staging;
	CREATE TABLE staging.papers (id text PRIMARY KEY, scan bytea);
	INSERT INTO staging.papers SELECT 'P' || n, CASE WHEN n > 2 THEN decode(md5(n::text), 'hex') END FROM generate_series(1, 20) n;
	-- about as many bytes as are read at once
	INSERT INTO staging.papers SELECT 'L' || n, decode(repeat('01', 4194304 + n), 'hex') FROM generate_series(-1, 1) n;
	INSERT INTO staging.papers VALUES ('S1', '\x00'), ('S2', '\x0001'), ('S3', '\x000102');
	CREATE TABLE staging.firms (id int PRIMARY KEY, name text, logo bytea);
	INSERT INTO staging.firms SELECT n, 'Firm ' || n, CASE WHEN n > 1 THEN decode(md5(n::text), 'hex') END FROM generate_series(1, 10) n});
$t->migration('m', tables => 'account,new_invoice');
$t->sql(q{
	SELECT dvmig.add_table('m', 'staging.papers', 'new_invoice', auto_map => false);
	SELECT dvmig.map_column('staging.papers', 'new_invoicenumber', 'id');
	SELECT dvmig.map_column('staging.papers', 'new_scan', 'scan');
	SELECT dvmig.add_table('m', 'staging.firms', 'account', auto_map => false);
	SELECT dvmig.map_column('staging.firms', 'name', 'name');
	SELECT dvmig.map_column('staging.firms', 'entityimage', 'logo')});
is($t->run('m')->{state}, 'completed', 'rows with images are loaded');

# ------------------------------------------------------------ kept as they were sent

is(verified('staging.papers'), '26 26 0 0 equal {}', 'images that are kept are compared, and equal');
my %planted = (P3 => 'other bytes', P4 => pack('H*', 'ff' x 16), S2 => "\0\2", S3 => "\0\1", S1 => "\0\0", L0 => "\1" x 4194304 . "\2", L1 => "\1" x 4194304, 'L-1' => "\1" x 4194302 . "\2");
plant('new_invoices', id_of('staging.papers', $_), { new_scan => encode_base64($planted{$_}, '') }) for keys %planted;
plant('new_invoices', id_of('staging.papers', 'P5'), { new_scan => encode_base64('by a user', '') }, $stranger);
plant('new_invoices', id_of('staging.papers', 'P6'), { new_scan => undef });
plant('new_invoices', id_of('staging.papers', 'P1'), { new_scan => encode_base64('one too many', '') });
is(verified('staging.papers'), '26 15 10 1 different {}', 'another image is a difference, whatever its size');
is($t->sql(q{SELECT string_agg(source_key || ' ' || kind, ', ' ORDER BY source_key COLLATE "C") FROM dvmig.difference WHERE column_name = 'new_scan'}),
	'L-1 different, L0 different, L1 different, P1 different, P3 different, P4 different, P5 changed, P6 different, S1 different, S2 different, S3 different', 'each with its key');
like($t->sql(q{SELECT expected || '; ' || found FROM dvmig.difference WHERE source_key = 'P4'}), qr/^16 bytes, sha256 [0-9a-f]{16}; 16 bytes, sha256 f*[0-9a-f]+$/, 'told by size and hash');
$t->sql(q{SELECT dvmig.resend('staging.papers', '{new_scan}', $$id <> 'P1'$$)});
ok($t->wait_for(q{SELECT state = 'completed' FROM dvmig.run_history WHERE kind = 'resend' ORDER BY run DESC LIMIT 1}), 'images are sent again');
is(verified('staging.papers'), '26 24 1 1 different {}', 'and are as they should be, but for those of users, and where there should be none');

# ------------------------------------------------------------- a thumbnail alone is kept

$sim->fault({ match => { path_contains => 'size=full', count => 0 }, do => 'status', status => 403, code => '0x80040220', message => 'not to be asked for' });
is(verified('staging.firms'), '10 10 0 0 equal {"entityimage: only whether it is there"}', 'of a thumbnail only whether it is there: it is not even asked for');
$sim->sim('DELETE', 'fault');
plant('accounts', id_of('staging.firms', 4), { entityimage => undef });
is(verified('staging.firms'), '10 9 1 0 different {"entityimage: only whether it is there"}', 'one that is gone is found');

# ------------------------------------------------- where the metadata does not say which

$sim->fault({ match => { path_contains => 'CanStoreFullImage', count => 0 }, do => 'status', status => 400, code => '0x80060888', message => 'Could not find a property' });
$t->sql(q{SELECT count(*) FROM dvmig.refresh_metadata('sim')});
$sim->sim('DELETE', 'fault');
is($t->sql(q{SELECT count(*) FROM dvmig.metadata_column WHERE full_image IS NOT NULL}), 0, 'the metadata does not tell');
plant('new_invoices', id_of('staging.papers', 'P7'), { new_scan => encode_base64('another', '') });
is(verified('staging.papers'), '26 23 2 1 different {}', 'an image that came back as it was sent shows that all should');
is(verified('staging.firms'), '10 9 1 0 different {"entityimage: only whether it is there, of 8 rows: images are not told as they were sent"}', 'what is not told is no difference');

# Nothing comes back as it was sent: those are thumbnails.
plant('new_invoices', $_, { new_scan => encode_base64('thumbnail', '') }) for split /\n/, $t->sql('SELECT dataverse_id FROM staging.papers WHERE scan IS NOT NULL');
is(verified('staging.papers'), '26 25 1 0 different {"new_scan: only whether it is there"}', 'none that came back as it was sent');

# ... until somebody says otherwise
$t->sql(q{SELECT count(*) FROM dvmig.refresh_metadata('sim')});
is(verified('staging.papers'), '26 1 25 0 different {}', 'until the metadata does');

$sim->fault({ match => { path_contains => 'size=full', count => 3 }, do => 'status', status => 404, code => '0x80060888', message => 'no' });
like(verified('staging.papers'), qr/^26 4 22 0 different \{"new_scan: only whether it is there, of 3 rows: images are not told as they were sent"\}$/, 'some that are not told');

done_testing;

# Databases that are not UTF-8: what Dataverse holds and says may have characters
# that they lack, and is read, compared, kept and told all the same.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Encode qw(decode encode);
use PostgreSQL::Test::Utils;
use Test::More;

use DvMig;

$ENV{PGCLIENTENCODING} = 'UTF8';

my $t = DvMig->new(name => 'encodings', conf => "dvmig.settle_time = 300ms\n");
$t->sql(q{CREATE DATABASE latin1 TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'; CREATE DATABASE euc_jp TEMPLATE template0 ENCODING 'EUC_JP' LOCALE 'C'});

# what each has and lacks; the last is said by the service, and what becomes of it
my %words = (
	latin1 => [ 'Müller & Söhne', '株式会社', 'Größe € 株', 'Größe ? ?' ],
	euc_jp => [ '株式会社', 'ไทย 😀', '株 😀 式', '株 ? 式' ]);

for my $db (sort keys %words)
{
	my ($has, $lacks, $said, $told) = @{ $words{$db} };

	$t->sim->restart;
	$t->{db} = $db;
	$t->{has_server} = 0;
	$t->sql('CREATE EXTENSION dvmig');
	$t->migration('m', tables => 'account,new_invoice');
	$t->sql(qq{
		CREATE TABLE firms (id int PRIMARY KEY, name text);
		INSERT INTO firms SELECT i, '$has ' || i FROM generate_series(1, 20) i;
		SELECT dvmig.add_table('m', 'firms', 'account', source_key => 'id', auto_map => false);
		SELECT dvmig.map_column('firms', 'name', 'name');
		SELECT dvmig.set_table('firms', 'keep_before_image', 'true')});
	$t->sql(qq{
		CREATE TABLE invoices (id int PRIMARY KEY, document bytea);
		INSERT INTO invoices VALUES (1, 'one');
		SELECT dvmig.add_table('m', 'invoices', 'new_invoice', source_key => 'id', auto_map => false, target_key => 'new_invoicenumber');
		SELECT dvmig.map_file('invoices', 'new_document', 'document', '''$has.pdf''')});
	is($t->sql(q{SELECT request::json ->> 'name' FROM dvmig.preview('firms', 1)}), "$has 1", "$db: a preview shows what will be sent");
	my $first = $t->run('m');
	is($t->ended($first), 'completed: ', "$db: rows are loaded");
	$t->account('m', firms => { name => 's.name' });

	is(encode('UTF-8', $t->sim->export('new_invoices')->[0]{new_document_name} // ''), "$has.pdf", "$db: a file has its name");

	# ------------------------------------------------------------ differences
	my ($id, $other) = split /\n/, $t->sql('SELECT dataverse_id FROM firms WHERE id IN (1, 2) ORDER BY id');
	$t->sim->change('accounts', $id, { name => decode('UTF-8', $lacks) });
	$t->sim->change('accounts', $other, { name => decode('UTF-8', $has) });
	is($t->ended($t->job(q{dvmig.verify('m')})), 'completed: ', "$db: records that users changed are compared");
	is($t->sql(q{SELECT string_agg(source_key || ' ' || expected || ' ' || found, ', ' ORDER BY source_key) FROM dvmig.difference}),
		"1 $has 1 " . (encode('UTF-8', decode('UTF-8', $lacks) =~ s/\S/?/gr)) . ", 2 $has 2 $has", "$db: and the differences told");

	# ------------------------------------------------------------ before-images
	$t->sql(q{UPDATE firms SET name = name || '!', processing_flag = 'U'});
	my $second = $t->run('m', 'resend => true');
	is($t->ended($second), 'completed: ', "$db: a run that keeps what records hold goes on");
	is($t->counts('firms') . ' ' . $t->sql('SELECT string_agg(concat_ws($$ $$, id, error_class, code), $$, $$) FROM firms_error'), '20/0/19/1/0 1 image 22P05',
		"$db: a record that cannot be kept is not updated");
	is($t->sql(q{SELECT columns ->> 'name' FROM firms_before WHERE id = 2}), $has, "$db: the others are kept as they were");
	$t->sql(q{UPDATE firms SET name = name || '?'});
	my $resent = $t->job(q{dvmig.resend('firms', '{name}', filter => 's.id > 10')});
	is($t->ended($resent), 'completed: ', "$db: columns are sent again, with images");
	is($t->ended($t->job("dvmig.undo($resent->{run})")), 'completed: ', "$db: and taken back");
	$t->sim->change('accounts', $other, { name => decode('UTF-8', $lacks) });
	is($t->ended($t->job("dvmig.undo($second->{run}, changed => 'refuse')")), "failed: " . $t->sql("SELECT message FROM dvmig.run_history ORDER BY run DESC LIMIT 1"),
		"$db: an undo of the run looks at what is there now");
	is($t->ended($t->job("dvmig.undo($second->{run}, changed => 'skip')")), 'completed: ', "$db: and restores the others");
	my %held = map { lc $_->{accountid} => encode('UTF-8', $_->{name}) } @{ $t->sim->export('accounts') };
	is_deeply([ sort values %held ], [ sort $lacks, $lacks, map { "$has $_" } 3 .. 20 ], "$db: which hold what they held");

	# ------------------------------------------------------------ what the service says
	$t->sim->fault({ match => { method => 'POST', part => JSON::PP::true, count => 0 }, do => 'status', status => 400, code => '0x80040203', message => decode('UTF-8', $said) });
	$t->sim->fault({ match => { path_contains => 'Multiple', count => 0 }, do => 'status', status => 400, code => '0x80040203', message => decode('UTF-8', $said) });
	$t->sql(q{INSERT INTO firms VALUES (99, 'x'); SELECT dvmig.release('firms')});
	is($t->ended($t->run('m', 'resend => true, ignore_gate => true')), 'completed: ', "$db: rows are refused");
	is($t->sql(q{SELECT message FROM firms_error WHERE id = 99}), $told, "$db: in words that the database can hold");
	$t->sim->sim('DELETE', 'fault');
}

unlike(slurp_file($t->node->logfile), qr/PANIC|TRAP|terminated by signal|XX000/, 'no process of the server came to harm');

done_testing();

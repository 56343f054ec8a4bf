# Records whose values are large: an answer holds few of them, or not even one
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'verify_large', conf => "dvmig.max_outage = '5s'\n");

# 300 notes of 80 kB are 24 MB, more than one answer may have
$t->sql(q{
	CREATE TABLE notes (id int PRIMARY KEY, title text, body bytea);
	INSERT INTO notes SELECT n, 'Note ' || n, decode(repeat(lpad(to_hex(n), 8, '0'), 15000), 'hex') FROM generate_series(1, 300) n});
$t->migration('m', tables => 'annotation');
$t->sql(q{
	SELECT dvmig.add_table('m', 'notes', 'annotation', auto_map => false);
	SELECT dvmig.map_column('notes', 'subject', 'title');
	SELECT dvmig.map_column('notes', 'documentbody', 'body')});
is($t->run('m')->{state}, 'completed', 'large notes are loaded');
is($t->sql(q{SELECT concat_ws(' ', compared, equal, result) FROM dvmig.verify('m')}), '300 300 equal', 'and read back');
$t->sim->change('annotations', $t->sql('SELECT dataverse_id FROM notes WHERE id = 77'), { documentbody => 'QUJD' });
is($t->sql(q{SELECT concat_ws(' ', compared, equal, result) FROM dvmig.verify('m')}), '300 299 different', 'each is compared');
is($t->sql(q{SELECT concat_ws(' ', source_key, column_name, found) FROM dvmig.difference}), '77 documentbody QUJD', 'in full');

# what others made larger, past what the rows promise
for my $id (1 .. 20)
{
	$t->sim->change('annotations', $t->sql("SELECT dataverse_id FROM notes WHERE id = $id"), { documentbody => 'QUJD' x 300000 });
}
is($t->sql(q{SELECT concat_ws(' ', compared, equal, result) FROM dvmig.verify('m')}), '300 279 different', 'records that are larger than their rows');

# and one that no answer has room for
$t->sim->change('annotations', $t->sql('SELECT dataverse_id FROM notes WHERE id = 200'), { documentbody => 'QUJD' x 4300000 });
is($t->sql(q{SELECT concat_ws(' ', compared, equal, result) FROM dvmig.verify('m')}), '299 278 different', 'a record that is too large to be read');
is($t->sql(q{SELECT not_compared FROM dvmig.verification ORDER BY run DESC LIMIT 1}), '{"1 record: its answer is longer than 16 MB"}', 'is named');

done_testing();

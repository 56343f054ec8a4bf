# dvmig.export() forgets nothing: every column of the definition is an argument
# of the function that makes it, a setting, or named here with those that are
# written otherwise or belong to what has happened
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(name => 'export_covers', no_sim => 1);
my %written_otherwise = (
	migration => [ qw(migration_id owner created_at) ],
	migration_table => [ qw(migration_id relationship caller_id caller_sql filter_sql position clean_end unclean_from forgotten_since place held_by_undo before_table created_at) ],
	column_map => [ qw(variant kind pass expression_sql mask_sql result_type parent referenced_table navigation_property position automatic) ],
);
my %made_by = (
	migration => q{'create_migration'}, migration_table => q{'add_table'}, column_map => q{'map_column', 'map_choice', 'map_lookup', 'map_file'});
for my $table (sort keys %made_by)
{
	my $known = join ',', map { "'$_'" } @{ $written_otherwise{$table} };
	is($t->sql(qq{SELECT string_agg(a.attname, ' ') FROM pg_attribute a WHERE a.attrelid = 'dvmig.$table'::regclass AND a.attnum > 0 AND NOT a.attisdropped
			AND NOT a.attname IN ($known)
			AND NOT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'dvmig'::regnamespace AND p.proname IN ($made_by{$table}) AND a.attname = ANY (p.proargnames))
			AND NOT EXISTS (SELECT FROM dvmig.setting s WHERE s.name = a.attname AND '$table' = CASE s.applies_to WHEN 'migration' THEN 'migration' WHEN 'table' THEN 'migration_table' ELSE 'column_map' END)}), '',
		"$table: every column is exported, or named here with those that are written otherwise");
}
is($t->sql(q{SELECT string_agg(c.relname, ' ') FROM pg_class c WHERE c.relnamespace = 'dvmig'::regnamespace AND c.relkind = 'r'
		AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname IN ('migration_id', 'staging'))
		AND c.relname !~ '^(_|kept_)' AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'run')
		AND c.relname NOT IN ('migration', 'migration_table', 'column_map', 'choice_map', 'user_map', 'migration_role',
			-- not of the definition: what happened, and what was found
			'adopted')}), '', 'and no table of the definition is forgotten');

$t->node->stop;
done_testing();

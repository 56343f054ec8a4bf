# DvMig::Lost - the part of DvMig::Campaign that tells what the end of all processes loses
package DvMig::Lost;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(before_lost freeze lasts_in_memory);

# freeze(): stop all who would write WAL out; their processes
sub freeze
{
	my ($self) = @_;
	my @pids = split /\n/, $self->sql(q{SELECT pid FROM pg_stat_activity
		WHERE backend_type IN ('dvmig worker', 'walwriter', 'checkpointer', 'background writer', 'autovacuum launcher')});

	kill STOP => @pids;
	return @pids;
}

# Pages tell whether WAL of what was recorded last was written, which the end of all processes does not undo.
sub before_lost
{
	my ($self) = @_;

	$self->{pages} = $self->sql("SELECT count(*) FROM pg_available_extensions WHERE name = 'pageinspect'");
	$self->sql('CREATE EXTENSION IF NOT EXISTS pageinspect') if $self->{pages};
	return;
}

# lasts_in_memory(tables): is there a row of them whose WAL is nowhere else?
sub lasts_in_memory
{
	my ($self, @tables) = @_;

	return 0 if !$self->{pages};
	my $written = 'SELECT coalesce(bool_or((page_header(get_raw_page(t, p))).lsn > pg_current_wal_lsn()), false)';
	my $pages = "generate_series(0, (pg_relation_size(t) / current_setting('block_size')::int)::int - 1) p";
	return $self->sql("$written FROM unnest('{" . join(',', @tables) . "}'::text[]) t, $pages") eq 't';
}

1;

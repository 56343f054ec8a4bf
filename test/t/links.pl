# Many-to-many links from staging tables of pairs
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

# linked(t): the pairs that Dataverse holds, as source keys.
sub linked
{
	my ($t) = @_;
	my %name;
	$name{ lc $_->{new_playlistid} } = $_->{new_name} for @{ $t->sim->export('new_playlists') };
	$name{ lc $_->{new_trackid} } = $_->{new_name} for @{ $t->sim->export('new_tracks') };
	my $links = $t->sim->sim('GET', 'links/new_playlist_new_track');
	return join ' ', sort map { join '-', map { $name{ lc $_ } // '?' } @$_ } @{ $links->{pairs} };
}

for my $profile (qw(strict lenient odd))
{
	my $t = DvMig->new(profile => $profile, name => "links_$profile");
	my $run;

	$t->sql(q{
		ALTER DATABASE postgres SET dvmig.settle_time = '300ms';
		CREATE SCHEMA staging;
		CREATE TABLE staging.lists (id int PRIMARY KEY, name text);
		CREATE TABLE staging.tracks (id int PRIMARY KEY, name text);
		CREATE TABLE staging.pairs (list int, track int, PRIMARY KEY (list, track));
		INSERT INTO staging.lists SELECT n, 'L' || n FROM generate_series(1, 10) n;
		INSERT INTO staging.tracks SELECT n, 'T' || n FROM generate_series(1, 20) n;
		UPDATE staging.tracks SET name = repeat('x', 5000) WHERE id = 20;
		INSERT INTO staging.pairs SELECT l, t FROM generate_series(1, 10) l, generate_series(1, 20) t WHERE (l + t) % 2 = 0;
		INSERT INTO staging.pairs VALUES (1, 999)});
	$t->migration('m', tables => 'new_playlist,new_track');
	is($t->sql(q{SELECT concat_ws(' ', table1, navigation1, table2, navigation2) FROM dvmig.metadata_relationship WHERE relationship = 'new_playlist_new_track'}),
		'new_playlist new_playlist_new_track new_track new_playlist_new_track', "$profile: relationships are read");
	$t->sql(q{
		SELECT dvmig.add_table('m', 'staging.lists', 'new_playlist', source_key => 'id');
		SELECT dvmig.map_column('staging.lists', 'new_name', 'name');
		SELECT dvmig.add_table('m', 'staging.tracks', 'new_track', source_key => 'id');
		SELECT dvmig.map_column('staging.tracks', 'new_name', 'name')});
	like($t->error(q{SELECT dvmig.add_association('m', 'staging.pairs', 'new_playlist_track', 'list', 'staging.lists', 'track', 'staging.tracks')}),
		qr/no many-to-many relationship "new_playlist_track".*Did you mean .new_playlist_new_track/s, "$profile: a relationship that is not there");
	$t->sql(q{SELECT dvmig.add_association('m', 'staging.pairs', 'new_playlist_new_track', 'track', 'staging.tracks', 'list', 'staging.lists')});

	# --- links follow their records; two faults
	$t->sim->fault({ match => { method => 'POST', body_contains => '$ref' }, nth => 1, count => 1, do => 'reset_after' });
	$run = $t->run('m');
	is($run->{state}, 'completed', "$profile: the run completes");
	is($t->counts('staging.tracks'), '20/0/19/1/0', "$profile: one record fails");
	is($t->counts('staging.pairs'), '101/5/95/1/0', "$profile: its links wait, and one without a record fails");
	is($t->status('staging.pairs')->{parked}, 5, "$profile: they are parked");
	is($t->sql('SELECT error_class, code, error_column FROM staging.pairs_error'), 'lookup|orphan|@left', "$profile: the orphan says which end");
	is($t->sim->stats->{links_changed}, 95, "$profile: each link once");
	is(linked($t), $t->sql(q{SELECT string_agg(p, ' ' ORDER BY p COLLATE "C") FROM (SELECT 'L' || list || '-T' || track AS p FROM staging.pairs WHERE track < 20) q}),
		"$profile: the right ones");
	is($t->sql(q{SELECT string_agg(pass || ':' || step, ' ' ORDER BY step) FROM dvmig.run_table WHERE run = (SELECT max(run) FROM dvmig.run_history) AND staging = 'staging.pairs'}) =~ /^links:3 delete:/ ? 1 : 0, 1,
		"$profile: after the rows");

	# --- the missing record comes
	$t->sql(q{UPDATE staging.tracks SET name = 'T20' WHERE id = 20; SELECT dvmig.retry('staging.tracks')});
	$run = $t->run('m');
	is($t->counts('staging.pairs'), '101/0/100/1/0', "$profile: what waited goes");

	# --- a reload sends nothing; a link that is there is done
	$t->sql(q{UPDATE staging.pairs SET processing_flag = 'U' WHERE track < 999});
	$run = $t->run('m');
	is("$run->{rows_sent}/$run->{unchanged}", '0/100', "$profile: a reload sends nothing");
	$t->sql(q{DELETE FROM staging.pairs_success WHERE list = 2; UPDATE staging.pairs SET processing_flag = 'U' WHERE list = 2});
	$run = $t->run('m');
	is($run->{state}, 'completed', "$profile: links that exist");
	is($t->counts('staging.pairs'), '101/0/100/1/0', "$profile: count as done");
	is($t->sql(q{SELECT DISTINCT message FROM staging.pairs_success WHERE list = 2}), 'the link existed already', "$profile: and say so");

	# --- taken away, before their records
	$t->sql(q{UPDATE staging.pairs SET action_flag = 'D', processing_flag = 'U' WHERE list = 3;
		UPDATE staging.lists SET action_flag = 'D', processing_flag = 'U' WHERE id = 3});
	$t->sim->fault({ match => { method => 'POST', body_contains => 'DELETE /api/data/v9.2/new_tracks' }, nth => 1, count => 1, do => 'reset_after' });
	$run = $t->run('m');
	is($run->{state}, 'completed', "$profile: links are taken away");
	is($t->counts('staging.pairs'), '101/0/100/1/0', "$profile: all of them");
	is(linked($t), $t->sql(q{SELECT string_agg(p, ' ' ORDER BY p COLLATE "C") FROM (SELECT 'L' || list || '-T' || track AS p FROM staging.pairs WHERE track <= 20 AND list <> 3) q}),
		"$profile: and no others");

	# --- plan, preview, check know of links
	$t->sql(q{INSERT INTO staging.pairs VALUES (1, 2)});
	is($t->sql(q{SELECT pass || ' ' || creates FROM dvmig.plan('m') WHERE staging = 'staging.pairs' AND pass = 'links'}), 'links 1', "$profile: the plan counts them");
	like($t->sql(q{SELECT request FROM dvmig.preview('staging.pairs', 1)}), qr{^POST /api/data/v9\.2/new_tracks\(.*\)/new_playlist_new_track/\$ref \{"\@odata\.id":".*/new_playlists\(},
		"$profile: the preview shows the request");
	is($t->sql(q{SELECT count(*) FROM dvmig.check('m') WHERE (severity = 'error' OR rule = 'key_not_carried') AND staging = 'staging.pairs'}), '0', "$profile: the check has nothing against them");

	# --- a verification reads them back at their left end
	is($t->run('m')->{failed}, 0, "$profile: the new link goes");
	is($t->sql(q{SELECT concat_ws(' ', result, compared, equal) FROM dvmig.verify('m', 'staging.pairs')}), 'equal 91 91', "$profile: links are there") or diag($t->sql('SELECT * FROM dvmig.difference'));
	my ($track, $list, $back) = split /\|/, $t->sql(q{SELECT (SELECT dataverse_id FROM staging.tracks WHERE id = 4), (SELECT dataverse_id FROM staging.lists WHERE id = 4), (SELECT dataverse_id FROM staging.lists WHERE id = 5)});
	my $other = $t->sql('SELECT dataverse_id FROM staging.tracks WHERE id = 5');
	$t->sim->api('DELETE', "new_tracks($track)/new_playlist_new_track($list)/\$ref");
	$t->sql(q{UPDATE staging.pairs SET action_flag = 'D' WHERE list = 5 AND track = 5});
	$run = $t->rows(q{SELECT * FROM dvmig.verify('m')});
	is(join(' ', map { "$_->{staging} $_->{result}" } @$run), 'staging.lists equal staging.tracks equal staging.pairs different', "$profile: with all the others");
	is($t->sql(q{SELECT string_agg(concat_ws(' ', source_key, kind), '; ' ORDER BY kind) FROM dvmig.difference}), '5, 5 extra; 4, 4 missing', "$profile: what is missing, and what should be gone");

	# --- where they are not told with their left ends, each of these is asked for its own
	my $figures = q{SELECT concat_ws(' ', result, compared, missing, extra, not_compared) FROM dvmig.verify('m', 'staging.pairs')};
	my $expand = { match => { method => 'GET', path_contains => 'expand=new_playlist', count => 0 }, do => 'status', status => 400, code => '0x80060888', message => 'no such expand' };
	$t->sim->fault($expand);
	is($t->sql($figures), 'different 90 1 1 {}', "$profile: a service that does not expand links");
	$t->sim->sim('DELETE', 'fault');
	for my $where (qw(left_out elsewhere))
	{
		$t->sim->set(collections => $where);
		is($t->sql($figures), 'different 90 1 1 {}', "$profile: and one that has collections $where");
		is($t->sql(q{SELECT string_agg(concat_ws(' ', source_key, kind), '; ' ORDER BY kind) FROM dvmig.difference}), '5, 5 extra; 4, 4 missing', "$profile: the same differences");
	}
	$t->sim->fault({ match => { method => 'GET', path_contains => ')/new_playlist_new_track', nth => 3 }, do => 'cut' });
	$t->sim->fault({ match => { method => 'GET', path_contains => ')/new_playlist_new_track', nth => 5 }, do => 'garbage', bytes => 200 });
	is($t->sql($figures), 'different 90 1 1 {}', "$profile: an answer that fails is asked for again");
	$t->sim->sim('DELETE', 'fault');

	# --- a service that tells nothing of them: nothing is verified
	$t->sim->fault({ match => { method => 'GET', path_contains => ')/new_playlist_new_track', count => 0 }, do => 'status', status => 400, code => '0x80060888', message => 'no such collection' });
	is($t->sql($figures), 'not compared 0 0 0 {"links: the service tells them neither with the records nor of each"}', "$profile: a service that tells nothing of links");
	is($t->sql(q{SELECT count(*) FROM dvmig.difference WHERE staging = 'staging.pairs'}), 0, "$profile: is no difference");
	my $why = qr/its verification could not compare all of it: links: the service tells them neither/;
	like($t->sql(q{SELECT string_agg(subject, ' ') FROM dvmig.cutover('m') WHERE staging = 'staging.pairs' AND kind = 'blocker'}), $why, "$profile: it blocks the cut-over");
	like($t->error(q{SELECT dvmig.sign_off('m', 'fine')}), $why, "$profile: and the sign-off");
	my $step = qr/^see not_compared in dvmig.verification .* SELECT dvmig.sign_off\('m', 'who has looked', override => true\)$/;
	like($t->sql(q{SELECT advice FROM dvmig.cutover('m') WHERE staging = 'staging.pairs' AND subject LIKE '%could not compare%'}), $step, "$profile: what helps is to look");
	$t->sql(q{SELECT * FROM dvmig.verify('m')});
	like($t->sql(q{BEGIN; DO $$DECLARE t record; BEGIN
			FOR t IN SELECT staging, error_table FROM dvmig.migration_table LOOP
				EXECUTE format('DELETE FROM %s WHERE processing_flag IN (''E'', ''U'')', t.staging); EXECUTE format('DELETE FROM %s', t.error_table);
			END LOOP; END$$;
			SELECT next_step FROM dvmig.migration_status WHERE migration = 'm'; ROLLBACK}), $step, "$profile: and not to verify again, once nothing has failed");
	like($t->sql(q{SELECT dvmig.report_text('m')}), qr/staging\.pairs +not compared: 0 compared/, "$profile: the report says so");
	$t->sim->stop;
	$t->node->stop;
}

# Relationships that have messages of their own, and roles of users and teams, which are links
{
	my $t = DvMig->new(profile => 'strict', name => 'links_special');
	my ($root) = map { $_->{businessunitid} } @{ $t->sim->export('businessunits') };
	my %role = map { my $r = $t->sim->create('roles', { name => $_, 'businessunitid@odata.bind' => "businessunits($root)" }); $_ => lc $r->{roleid} } qw(Reader Seller);
	my %user = map { lc($_->{internalemailaddress} // '') => lc $_->{systemuserid} } @{ $t->sim->export('systemusers') };

	$t->sql(q{
		CREATE TABLE pairs (id int PRIMARY KEY, who text, what text);
		INSERT INTO pairs VALUES (1, 'user1@example.org', 'Reader'), (2, 'USER2@example.org', 'Seller'), (3, 'user2@example.org', 'Reader'), (4, 'user3@example.org', 'no such role');
		CREATE TABLE team_roles (id int PRIMARY KEY, team text, what text);
		INSERT INTO team_roles VALUES (1, 'dvsim', 'Reader')});
	$t->migration('m', tables => 'systemuser,team,role,list,contact');
	like($t->error(q{SELECT dvmig.add_association('m', 'pairs', 'listcontact_association', 'what', 'list', 'who', 'contact', left_match_on => 'listname', right_match_on => 'emailaddress1')}),
		qr/members of marketing lists are not added as links.*AddListMembersList/s, 'list members are refused, naming their message');
	like($t->error(q{SELECT dvmig.add_association('m', 'pairs', 'teammembership_association', 'what', 'team', 'who', 'systemuser', left_match_on => 'name', right_match_on => 'internalemailaddress')}),
		qr/members of teams are not added as links.*AddMembersTeam/s, 'and so are team members');
	for (
		[ createdon => qr/column "createdon" of Dataverse table "systemuser" is of type DateTime and cannot be matched on/, 'an end that is matched on a date is refused' ],
		[ ''        => qr/match_on names no column.*Name the column of Dataverse table "systemuser"/s, 'and one that is matched on nothing' ]
	  )
	{
		like($t->error(qq{SELECT dvmig.add_association('m', 'pairs', 'systemuserroles_association', 'who', 'systemuser', 'what', 'role', left_match_on => '$_->[0]', right_match_on => 'name')}),
			$_->[1], $_->[2]);
	}
	$t->sql(q{
		SELECT dvmig.add_association('m', 'pairs', 'systemuserroles_association', 'who', 'systemuser', 'what', 'role', left_match_on => 'internalemailaddress', right_match_on => 'name');
		SELECT dvmig.add_association('m', 'team_roles', 'teamroles_association', 'team', 'team', 'what', 'role', left_match_on => 'name', right_match_on => 'name')});
	is($t->run('m')->{state}, 'completed', 'role assignments are links');
	is($t->counts('pairs') . ' ' . $t->counts('team_roles'), '4/0/3/1/0 1/0/1/0/0', 'a role that is not there fails its row');
	my %is = map { join(' ', sort map { lc } @$_) => 1 } @{ $t->sim->sim('GET', 'links/systemuserroles_association')->{pairs} };
	is(join(', ', sort keys %is), join(', ', sort map { join ' ', sort @$_ } [ $user{'user1@example.org'}, $role{Reader} ], [ $user{'user2@example.org'}, $role{Seller} ], [ $user{'user2@example.org'}, $role{Reader} ]),
		'users have their roles');
	is(scalar(@{ $t->sim->sim('GET', 'links/teamroles_association')->{pairs} }), 1, 'and so have teams');
	$t->sim->stop;
	$t->node->stop;
}

done_testing();

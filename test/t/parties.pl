# Activity parties, notes with attachments, and what a close leaves
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

for my $profile (qw(strict lenient odd))
{
	my $t = DvMig->new(profile => $profile, name => "parties_$profile");
	my $run;

	$t->sql(q{
		CREATE SCHEMA staging;
		CREATE TABLE staging.people (id int PRIMARY KEY, name text);
		INSERT INTO staging.people SELECT n, 'P' || n FROM generate_series(1, 10) n;
		CREATE TABLE staging.mails (id int PRIMARY KEY, subject text, sender text, readers int[], guest text);
		INSERT INTO staging.mails SELECT n, 'Mail ' || n, 'user1@example.org', ARRAY[1 + n % 10, 1 + (n + 1) % 10], CASE WHEN n % 2 = 0 THEN 'a"' || n || '@example.org' END FROM generate_series(1, 30) n;
		UPDATE staging.mails SET readers = ARRAY[1, 99] WHERE id = 30;
		UPDATE staging.mails SET readers = NULL WHERE id = 29;
		CREATE TABLE staging.notes (id int PRIMARY KEY, person int, title text, body bytea, file text);
		INSERT INTO staging.notes SELECT n, n, 'Note ' || n, convert_to('body of ' || n, 'UTF8'), n || '.txt' FROM generate_series(1, 10) n;
		CREATE TABLE staging.deals (id int PRIMARY KEY, name text, reason text, revenue numeric);
		INSERT INTO staging.deals VALUES (1, 'D1', 'Best "offer"', 100), (2, 'D2', 'Price', 7)});
	$t->migration('m', tables => 'contact,email,annotation,opportunity');
	$t->sql(q{
		SELECT dvmig.add_table('m', 'staging.people', 'contact', source_key => 'id', auto_map => false);
		SELECT dvmig.map_column('staging.people', 'lastname', 'name');
		SELECT dvmig.add_table('m', 'staging.mails', 'email', source_key => 'id');
		SELECT dvmig.map_party('staging.mails', 'to', 'readers', 'staging.people');
		SELECT dvmig.map_party('staging.mails', 'cc', 'guest');
		SELECT dvmig.add_table('m', 'staging.notes', 'annotation', source_key => 'id', auto_map => false);
		SELECT dvmig.map_column('staging.notes', 'subject', 'title');
		SELECT dvmig.map_column('staging.notes', 'documentbody', 'body');
		SELECT dvmig.map_column('staging.notes', 'filename', 'file');
		SELECT dvmig.map_lookup('staging.notes', 'objectid', 'person', 'staging.people');
		SELECT dvmig.add_table('m', 'staging.deals', 'opportunity', source_key => 'id', auto_map => false);
		SELECT dvmig.map_column('staging.deals', 'name', 'name');
		SELECT dvmig.map_column('staging.deals', 'statuscode', '3');
		SELECT dvmig.map_close('staging.deals', 'subject', 'reason');
		SELECT dvmig.map_close('staging.deals', 'actualrevenue', 'revenue')});
	like($t->error(q{SELECT dvmig.map_party('staging.people', 'to', 'id')}), qr/no activity and has no parties/, "$profile: parties are of activities");
	like($t->error(q{SELECT dvmig.map_party('staging.mails', 'bcc', 'guest', 'contact', match_on => 'birthdate')}), qr/is of type DateTime and cannot be matched on/, "$profile: nor are they found by a date");
	like($t->error(q{SELECT dvmig.map_party('staging.mails', 'bcc', 'guest', 'contact', match_on => 'lastname,firstname')}), qr/cannot be matched on several columns/, "$profile: or by several columns");
	like($t->error(q{SELECT dvmig.map_party('staging.mails', 'bcc', 'guest', match_on => 'lastname')}), qr/is not the logical name of a Dataverse table/, "$profile: or in no table");
	like($t->error(q{SELECT dvmig.map_close('staging.people', 'subject', 'name')}), qr/no action closes/, "$profile: closing activities, too");
	is($t->sql(q{SELECT string_agg(concat_ws(' ', staging, rule, affected_rows), ', ' ORDER BY 1) FROM dvmig.check('m') WHERE severity = 'error'}), 'staging.mails party_not_found 1',
		"$profile: the check knows who is missing");
	$run = $t->run('m', 'ignore_gate => true');
	is($run->{state}, 'completed', "$profile: the run completes");
	is($t->counts('staging.mails'), '30/0/29/1/0', "$profile: a mail to nobody fails");
	is($t->sql('SELECT code || error_column FROM staging.mails_error'), 'orphanto', "$profile: saying so");
	my %mail = map { lc $_->{activityid} => $_->{subject} } @{ $t->sim->export('emails') };
	my %person = map { lc $_->{contactid} => $_->{lastname} } @{ $t->sim->export('contacts') };
	is(join(' ', sort map { join ',', $mail{ lc $_->{_activityid_value} } =~ s/Mail //r, $_->{participationtypemask}, $_->{addressused} // $person{ lc $_->{_partyid_value} } }
			grep { $_->{participationtypemask} != 9 } @{ $t->sim->export('activityparties') }),
		$t->sql(q{SELECT string_agg(p, ' ' ORDER BY p COLLATE "C") FROM (
			SELECT id || ',2,P' || r AS p FROM staging.mails, unnest(readers) r WHERE id < 30 UNION ALL SELECT id || ',3,' || guest FROM staging.mails WHERE id < 30 AND guest IS NOT NULL) q}),
		"$profile: parties are who was mapped");
	$t->account('m', 'staging.mails' => { subject => 's.subject' },
		'staging.notes' => { subject => 's.title', filename => 's.file', documentbody => q{encode(s.body, 'base64')}, _objectid_value => '(SELECT p.dataverse_id FROM staging.people p WHERE p.id = s.person)' });

	# --- a verification reads parties and bodies back
	is($t->sql(q{SELECT string_agg(concat_ws(' ', staging, result, compared, nullif(array_to_string(not_compared, ','), '')), '; ' ORDER BY staging) FROM dvmig.verify('m') WHERE target <> 'opportunity'}),
		'staging.mails equal 29; staging.notes equal 10; staging.people equal 10', "$profile: parties and bodies are as they were sent") or diag($t->sql('SELECT * FROM dvmig.difference'));
	for my $where (qw(left_out elsewhere))
	{
		$t->sim->set(collections => $where);
		is($t->sql(q{SELECT concat_ws(' ', result, compared, not_compared::text LIKE '%parties%') FROM dvmig.verify('m', 'staging.mails')}), 'equal 29 t', "$profile: parties that are $where are not compared");
	}
	$t->sim->set(collections => 'here');
	my %id = map { $_->{id} => $_->{dataverse_id} } @{ $t->rows('SELECT id, dataverse_id FROM staging.mails') };
	my @person = map { $_->{dataverse_id} } @{ $t->rows('SELECT dataverse_id FROM staging.people ORDER BY id') };
	my $party = sub { return { 'partyid_contact@odata.bind' => "contacts($person[$_[0]])", participationtypemask => $_[1] } };
	# another role, one too many, another guest, and the same in another order
	$t->sim->api('PUT', "emails($id{1})/email_activity_parties", { value => [ $party->(1, 2), $party->(2, 4) ] });
	$t->sim->api('PUT', "emails($id{2})/email_activity_parties", { value => [ $party->(2, 2), $party->(3, 2), $party->(4, 2), { addressused => 'a"2@example.org', participationtypemask => 3 } ] });
	$t->sim->api('PUT', "emails($id{4})/email_activity_parties", { value => [ $party->(4, 2), $party->(5, 2), { addressused => 'b@example.org', participationtypemask => 3 } ] });
	$t->sim->api('PUT', "emails($id{6})/email_activity_parties", { value => [ { addressused => 'A"6@example.org', participationtypemask => 3 }, $party->(7, 2), $party->(6, 2) ] });
	my $note = $t->sql('SELECT dataverse_id FROM staging.notes WHERE id = 4');
	$t->sim->api('PATCH', "annotations($note)", { documentbody => 'Ym9keSBvZiA1' });
	is($t->sql(q{SELECT string_agg(concat_ws(' ', staging, equal, different), '; ' ORDER BY staging) FROM dvmig.verify('m') WHERE target IN ('email', 'annotation')}),
		'staging.mails 26 3; staging.notes 9 1', "$profile: what is not as it was is found");
	is($t->sql(q{SELECT string_agg(concat_ws(' ', staging, source_key, column_name), '; ' ORDER BY staging, source_key::int) FROM dvmig.difference}),
		'staging.mails 1 @parties; staging.mails 2 @parties; staging.mails 4 @parties; staging.notes 4 documentbody', "$profile: and named");

	# --- from a table of parties, by a subquery for each role
	$t->sql(q{
		CREATE TABLE staging.meetings (id int PRIMARY KEY, about text);
		INSERT INTO staging.meetings SELECT n, 'Meeting ' || n FROM generate_series(1, 20) n;
		CREATE TABLE staging.meeting_parties (meeting int, person int, role text, PRIMARY KEY (meeting, role, person));
		INSERT INTO staging.meeting_parties SELECT m, p, CASE WHEN p % 2 = 0 THEN 'must' ELSE 'may' END FROM generate_series(1, 19) m, generate_series(1, 10) p WHERE (m + p) % 3 = 0;
		SELECT dvmig.add_table('m', 'staging.meetings', 'appointment', auto_map => false);
		SELECT dvmig.map_column('staging.meetings', 'subject', 'about');
		SELECT dvmig.map_party('staging.meetings', r, format($$(SELECT array_agg(p.person) FROM staging.meeting_parties p WHERE p.meeting = s.id AND p.role = %L)$$, w), 'staging.people')
		FROM (VALUES ('requiredattendees', 'must'), ('optionalattendees', 'may')) v (r, w)});
	is($t->run('m', 'ignore_gate => true')->{state}, 'completed', "$profile: a table of parties");
	my %meeting = map { lc $_->{activityid} => $_->{subject} =~ s/Meeting //r } @{ $t->sim->export('appointments') };
	is(join(' ', sort map { join ',', $meeting{ lc $_->{_activityid_value} }, $_->{participationtypemask}, $person{ lc $_->{_partyid_value} } }
			grep { $meeting{ lc $_->{_activityid_value} } && $_->{participationtypemask} != 9 } @{ $t->sim->export('activityparties') }),
		$t->sql(q{SELECT string_agg(p, ' ' ORDER BY p COLLATE "C") FROM (SELECT meeting || ',' || CASE role WHEN 'must' THEN 5 ELSE 6 END || ',P' || person AS p FROM staging.meeting_parties) q}),
		"$profile: gives each meeting its own");

	$run = $t->finish($t->start('m', q{passes => '{states}'}));
	is($run->{state}, 'completed', "$profile: deals are closed");
	is(join(' ', sort map { "$_->{subject}:" . ($_->{actualrevenue} + 0) } @{ $t->sim->export('opportunitycloses') }), 'Best "offer":100 Price:7', "$profile: their activities say what was mapped");
	$t->sim->stop;
	$t->node->stop;
}

done_testing();

# All kinds of tables in one migration, by two lanes and with connections that
# break: states and closing actions, links, files, parties, masks, policies,
# owners, lookups in a circle and by level. Whatever is done to it must know them all.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin";

use Test::More;

use DvMig;

my $t = DvMig->new(profile => 'strict', name => 'together', conf => "dvmig.settle_time = 300ms\n");
my $sim = $t->sim;
my $run;

my $definition = q{
	SELECT dvmig.create_migration('m', 'sim');
	SELECT dvmig.add_table('m', 'staging.firms', 'account', auto_map => false);
	SELECT dvmig.map_column('staging.firms', 'name', 'name', on_too_long => 'trim');
	SELECT dvmig.map_choice('staging.firms', 'industrycode', 'branch', on_unknown => 'default', default_value => 'Consulting');
	SELECT dvmig.map_column('staging.firms', 'emailaddress1', 'mail', mask => 'dvmig.mask_mail(mail)');
	SELECT dvmig.map_lookup('staging.firms', 'parentaccountid', 'parent', 'staging.firms');
	SELECT dvmig.map_lookup('staging.firms', 'ownerid', 'owner', 'systemuser', match_on => 'internalemailaddress');
	SELECT dvmig.map_column('staging.firms', 'description', $$'made'$$, send => 'insert');
	SELECT dvmig.set_column('staging.firms', 'parentaccountid', 'by_level', 'true');
	SELECT dvmig.add_table('m', 'staging.people', 'contact', auto_map => false);
	SELECT dvmig.map_column('staging.people', 'lastname', 'family');
	SELECT dvmig.map_lookup('staging.firms', 'primarycontactid', 'contact', 'staging.people');
	SELECT dvmig.map_lookup('staging.people', 'parentcustomerid', 'firm', 'staging.firms');
	SELECT dvmig.add_table('m', 'staging.regions', 'new_region', auto_map => false);
	SELECT dvmig.map_column('staging.regions', 'new_name', 'name');
	SELECT dvmig.map_choice('staging.regions', 'statecode', 'state');
	SELECT dvmig.add_table('m', 'staging.deals', 'opportunity', auto_map => false);
	SELECT dvmig.map_column('staging.deals', 'name', 'name');
	SELECT dvmig.map_column('staging.deals', 'totalamount', 'total');
	SELECT dvmig.map_choice('staging.deals', 'statuscode', 'status');
	SELECT dvmig.map_close('staging.deals', 'subject', 'reason');
	SELECT dvmig.add_table('m', 'staging.mails', 'email', auto_map => false);
	SELECT dvmig.map_column('staging.mails', 'subject', 'subject');
	SELECT dvmig.map_party('staging.mails', 'to', 'reader', 'staging.people');
	SELECT dvmig.map_party('staging.mails', 'cc', 'colleague', 'systemuser', match_on => 'internalemailaddress');
	SELECT dvmig.map_party('staging.mails', 'bcc', 'guest');
	SELECT dvmig.add_table('m', 'staging.papers', 'new_invoice', auto_map => false);
	SELECT dvmig.map_column('staging.papers', 'new_invoicenumber', 'id');
	SELECT dvmig.map_file('staging.papers', 'new_document', 'document', 'file_name');
	SELECT dvmig.add_table('m', 'staging.lists', 'new_playlist', auto_map => false);
	SELECT dvmig.map_column('staging.lists', 'new_name', 'name');
	SELECT dvmig.add_table('m', 'staging.tracks', 'new_track', auto_map => false);
	SELECT dvmig.map_column('staging.tracks', 'new_name', 'name');
	SELECT dvmig.set_table('staging.tracks', 'bypass_custom_logic', 'sync');
	SELECT dvmig.add_association('m', 'staging.pairs', 'new_playlist_new_track', 'list', 'staging.lists', 'track', 'staging.tracks')};

my $tables = q{
	CREATE SCHEMA staging;
	CREATE TABLE staging.firms (id int PRIMARY KEY, name text, branch text, mail text, parent int, contact int, owner text);
	INSERT INTO staging.firms SELECT n, 'Firm ' || n || CASE WHEN n % 50 = 0 THEN repeat('x', 200) ELSE '' END, CASE WHEN n % 40 = 0 THEN 'Alchemy' ELSE 'Accounting' END,
		'mail' || n || '@contoso.com', CASE WHEN n > 10 THEN n / 3 END, CASE WHEN n % 4 = 0 THEN n END, 'user' || n % 5 + 1 || '@example.org' FROM generate_series(1, 200) n;
	CREATE TABLE staging.people (id int PRIMARY KEY, family text, firm int);
	INSERT INTO staging.people SELECT n, 'Person ' || n, n % 200 + 1 FROM generate_series(1, 300) n;
	CREATE TABLE staging.regions (id int PRIMARY KEY, name text, state text);
	INSERT INTO staging.regions SELECT n, 'Region ' || n, CASE n % 3 WHEN 0 THEN 'Inactive' WHEN 1 THEN 'active' END FROM generate_series(1, 90) n;
	CREATE TABLE staging.deals (id int PRIMARY KEY, name text, total numeric, status text, reason text);
	INSERT INTO staging.deals SELECT n, 'Deal ' || n, CASE WHEN n % 10 <> 0 THEN n * 10 END, (ARRAY['Won', 'Out-Sold', 'On Hold', NULL])[1 + n % 4], 'because ' || n FROM generate_series(1, 80) n;
	CREATE TABLE staging.mails (id int PRIMARY KEY, subject text, reader int[], colleague text, guest text);
	INSERT INTO staging.mails SELECT n, 'Mail ' || n, ARRAY[n, n + 1], 'user' || n % 4 + 6 || '@example.org', 'guest' || n || '@example.net' FROM generate_series(1, 60) n;
	CREATE TABLE staging.papers (id text PRIMARY KEY, document bytea, file_name text);
	INSERT INTO staging.papers SELECT 'P' || n, convert_to('content ' || n, 'UTF8'), n || '.txt' FROM generate_series(1, 12) n;
	CREATE TABLE staging.lists (id int PRIMARY KEY, name text);
	INSERT INTO staging.lists SELECT n, 'L' || n FROM generate_series(1, 10) n;
	CREATE TABLE staging.tracks (id int PRIMARY KEY, name text);
	INSERT INTO staging.tracks SELECT n, 'T' || n FROM generate_series(1, 40) n;
	CREATE TABLE staging.pairs (list int, track int, PRIMARY KEY (list, track));
	INSERT INTO staging.pairs SELECT l, n FROM generate_series(1, 10) l, generate_series(1, 40) n WHERE (l + n) % 2 = 0};
$t->sql($tables);
$t->server('sim');
$t->{has_server} = 1;
$t->sql(q{SELECT * FROM dvmig.refresh_metadata('sim', '{account,contact,new_region,opportunity,email,new_invoice,new_playlist,new_track,systemuser}')});
$t->sql($definition);

my $person = '(SELECT p.dataverse_id FROM staging.people p WHERE p.id = s.%s)';
my $firm = '(SELECT p.dataverse_id FROM staging.firms p WHERE p.id = s.%s)';
my $user = q{(SELECT r.record_id FROM dvmig.reference r WHERE r.server = (SELECT g.server FROM dvmig.migration g) AND r.table_name = 'systemuser' AND r.match_key = s.owner)};
my %fields = (
	'staging.firms' => { name => 'left(s.name, 160)', industrycode => q{CASE s.branch WHEN 'Accounting' THEN 1 ELSE (SELECT min(choice_value) FROM dvmig.metadata_choice WHERE table_name = 'account' AND column_name = 'industrycode' AND label = 'Consulting') END},
		_parentaccountid_value => sprintf($firm, 'parent'), _primarycontactid_value => sprintf($person, 'contact'), _ownerid_value => $user, description => q{'made'} },
	'staging.people' => { lastname => 's.family', _parentcustomerid_value => sprintf($firm, 'firm') },
	'staging.regions' => { new_name => 's.name', statecode => q{CASE WHEN s.state = 'Inactive' THEN 1 ELSE 0 END} },
	'staging.deals' => { name => 's.name', totalamount => 's.total', statecode => '0' },
	'staging.mails' => { subject => 's.subject' },
	'staging.papers' => { new_invoicenumber => 's.id', new_document_name => 's.file_name' },
	'staging.lists' => { new_name => 's.name' },
	'staging.tracks' => { new_name => 's.name' });
my $won = q{CASE s.status WHEN 'Won' THEN 1 WHEN 'Out-Sold' THEN 2 ELSE 0 END};

# linked(): the pairs that Dataverse holds, as source keys.
sub linked
{
	my %name;
	$name{ lc $_->{new_playlistid} } = $_->{new_name} for @{ $sim->export('new_playlists') };
	$name{ lc $_->{new_trackid} } = $_->{new_name} for @{ $sim->export('new_tracks') };
	return join ' ', sort map { join '-', sort map { $name{ lc $_ } // '?' } @$_ } @{ $sim->sim('GET', 'links/new_playlist_new_track')->{pairs} };
}

# parties(): of all mails, by role
sub parties
{
	my %mail = map { lc $_->{activityid} => $_->{subject} } @{ $sim->export('emails') };
	my %party = map { lc $_->{contactid} => $_->{lastname} } @{ $sim->export('contacts') };
	$party{ lc $_->{systemuserid} } = $_->{internalemailaddress} for @{ $sim->export('systemusers') };
	return join ' ', sort map { join ',', $mail{ lc $_->{_activityid_value} } =~ s/Mail //r, $_->{participationtypemask}, ($_->{addressused} // $party{ lc $_->{_partyid_value} }) =~ s/Person //r }
	  grep { $_->{participationtypemask} != 9 } @{ $sim->export('activityparties') };
}

sub faults
{
	$sim->fault({ match => { method => 'POST', path_contains => '$batch', body_contains => $_ }, nth => 1, count => 1, do => 'reset_after' }) for @_;
	return;
}

my $pairs = q{SELECT string_agg(p, ' ' ORDER BY p COLLATE "C") FROM (SELECT 'L' || list || '-T' || track AS p FROM staging.pairs) q};
my $wanted_parties = q{SELECT string_agg(p, ' ' ORDER BY p COLLATE "C") FROM (
	SELECT id || ',2,' || r AS p FROM staging.mails, unnest(reader) r UNION ALL SELECT id || ',3,' || colleague FROM staging.mails
	UNION ALL SELECT id || ',4,' || guest FROM staging.mails) q};

# whole(): everything is there once, but for the states of deals
sub whole
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$t->account('m', %fields);
	is(linked(), $t->sql($pairs), "$what: links");
	is(parties(), $t->sql($wanted_parties), "$what: parties");
	return;
}

# ------------------------------------------------------------------ before a run


# what nobody has looked up yet is no error
is($t->sql(q{SELECT string_agg(concat_ws(' ', staging, rule, target_column, affected_rows), ', ' ORDER BY 1) FROM dvmig.check('m') WHERE severity = 'error' OR rule = 'reference_not_read'}),
	'staging.firms reference_not_read ownerid 200, staging.mails reference_not_read activity parties 60', 'the check has nothing against it, and says what it does not know');
is($t->sql(q{SELECT string_agg(concat_ws(' ', step, pass, staging, creates, updates, remark), '; ' ORDER BY step) FROM (
	SELECT step, pass, staging, creates, updates, split_part(remark, ';', 1) AS remark FROM dvmig.plan('m') WHERE pass = 'deferred') q}),
	'9 deferred staging.deals 0 72 Dataverse takes totalamount with an update only; 10 deferred staging.people 0 300 lookups that go in a circle follow when both records exist',
	'the plan tells what comes after the records');

# ------------------------------------------------------------------ a run of all

faults('new_tracks', 'opportunities', 'emails');
$run = $t->run('m', 'lanes => 2');
is($run->{state}, 'completed', 'the run completes');
is("$run->{succeeded}/$run->{failed}/$run->{rows_read}", '992/0/992', 'with each row once, whatever passes it went through');
my $first = $run->{run};
whole('first');
is($t->sql(q{SELECT string_agg(staging || ' ' || owed, ' ') FROM dvmig.status WHERE owed > 0 OR unprocessed > 0}), 'staging.deals 60', 'only deals owe anything');

# unequal(): what a verification finds, and what it does not look at
sub unequal
{
	return $t->sql(q{SELECT string_agg(concat_ws(' ', staging, CASE WHEN result <> 'equal' OR compared = 0 THEN result || ' ' || compared END, array_to_string(not_compared, ', ')), '; ' ORDER BY staging)
		FROM dvmig.verify('m') WHERE result <> 'equal' OR compared = 0 OR not_compared <> '{}'});
}
my $unread = 'staging.deals subject: of the activity that a close leaves';
is(unequal(), $unread, 'what is there is equal, and what was not compared is told');

# what goes with updates only: not sent again, and not forgotten where it alone changes
$t->sql(q{UPDATE staging.deals SET processing_flag = 'U'});
$run = $t->run('m');
is("$run->{rows_sent}/$run->{unchanged}", '0/80', 'a reload sends nothing');
$t->sql(q{UPDATE staging.deals SET total = total + 0.5, processing_flag = 'U' WHERE id <= 5});
$run = $t->run('m');
is($run->{rows_sent}, 5, 'a column of updates that alone changes is sent');
whole('changed');
my ($deal) = $t->sql('SELECT dataverse_id FROM staging.deals WHERE id = 7');
$sim->api('PATCH', "opportunities($deal)", { totalamount => 1 });
like(unequal(), qr/staging.deals different 80/, 'where it differs, a verification finds it');
$t->sql(q{UPDATE staging.deals SET total = total + 1, processing_flag = 'U' WHERE id = 7});
$t->run('m');

# ------------------------------------------------------------------ deals are closed

faults('WinOpportunity');
$run = $t->run('m', q{passes => '{states}', lanes => 2});
is($run->{state}, 'completed', 'deals are closed');
$fields{'staging.deals'}{statecode} = $won;
whole('closed');
is(unequal(), $unread, 'and equal');
is("$run->{succeeded}/$run->{failed}/$run->{rows_read}", '60/0/60', 'a run of states alone has the rows it closed as its successes');
like($t->{last_output}, qr/60 succeeded, 0 failed/, 'which its notice tells');

# ------------------------------------------------------------------ all is undone, and done again

my $undone = $t->sql("SELECT string_agg(concat_ws(' ', staging, created, deleted, changed_since, has_related, failed), '; ' ORDER BY staging) FROM dvmig.undo($first)");
is($undone, 'staging.deals 80 80 0 0 0; staging.firms 200 200 0 0 0; staging.lists 10 10 0 0 0; staging.mails 60 60 0 0 0; staging.pairs 200 200 0 0 0; staging.papers 12 12 0 0 0; staging.people 300 300 0 0 0; '
	. 'staging.regions 90 90 0 0 0; staging.tracks 40 40 0 0 0', 'closed records go too, and what a close left is no obstacle');
is($t->sql(q{SELECT string_agg(concat_ws(' ', staging, staged, unprocessed, succeeded, invariant_holds), '; ' ORDER BY staging) FROM dvmig.status WHERE succeeded > 0 OR unprocessed <> staged OR NOT invariant_holds}), '',
	'all rows are unprocessed again, links too');
is($t->sql('SELECT count(*) FROM staging.pairs_success'), 0, 'and have no outcome');
is(join(' ', map { scalar @{ $sim->export($_) } } qw(accounts contacts new_regions opportunities emails new_invoices new_playlists new_tracks)), '0 0 0 0 0 0 0 0', 'nothing is left');
is(linked(), '', 'no link either');
# its counters would take what is made anew for what was made twice
$sim->sim(POST => 'reset');
like($t->error(q{SELECT dvmig.start('m')}), qr/on hold after an undo: staging\.firms.*staging\.pairs.*SELECT dvmig\.release\('staging\.firms'\)/s, 'nothing is loaded before it is released, links neither');
$t->sql(q{SELECT dvmig.release(staging) FROM dvmig.migration_table WHERE held_by_undo IS NOT NULL});
faults('new_playlists', 'contacts');
$run = $t->run('m', q{lanes => 2, passes => '{write,deferred,links,files,states,delete}'});
is($run->{state}, 'completed', 'a new run completes');
is("$run->{succeeded}/$run->{failed}/$run->{rows_read}", '992/0/992', 'with each row once, whatever passes it went through');
whole('again');
is(unequal(), $unread, 'and equal');

# ------------------------------------------------------------------ everything else knows these tables

# a delta, one record that cannot be, one row for nobody
$t->sql(q{
	SELECT dvmig.set_table('staging.deals', 'on_closed', 'reopen');
	CREATE TABLE staging.extract AS SELECT id, name || ' II' AS name, total, status, reason FROM staging.deals WHERE id <= 4;
	SELECT dvmig.load_delta('staging.deals', 'staging.extract'::regclass);
	UPDATE staging.tracks SET name = repeat('x', 5000), processing_flag = 'U' WHERE id = 1;
	INSERT INTO staging.people VALUES (301, repeat('x', 5000), NULL);
	INSERT INTO staging.mails VALUES (61, 'Mail 61', '{1}', 'nobody@example.org', NULL), (62, 'Mail 62', '{301}', NULL, NULL)});
is($t->sql(q{SELECT string_agg(concat_ws(' ', staging, rule, target_column, affected_rows), ', ' ORDER BY staging, rule) FROM dvmig.refresh_references('m') r, dvmig.check('m') WHERE severity = 'error' AND r.referenced_table = 'systemuser'}),
	'staging.mails parent_not_loaded activity parties 1, staging.mails party_not_found activity parties 1, staging.people too_long lastname 1, staging.tracks too_long new_name 1',
	'the check tells who is nobody, and who waits for somebody who fails');
is($t->sql(q{SELECT count(*) FROM dvmig.migration_table t, dvmig.preview(t.staging, 3) p WHERE p.request IS NOT NULL}), 5, 'previews');
$run = $t->run('m', q{ignore_gate => true, lanes => 2});
is($run->{state}, 'completed', 'a run of what changed');
is($t->sql(q{SELECT string_agg(concat_ws(' ', staging, unprocessed, parked, failed, owed), '; ' ORDER BY staging) FROM dvmig.status WHERE unprocessed + failed + owed > 0}),
	'staging.mails 1 1 1 0; staging.people 0 0 1 0; staging.tracks 0 0 1 0', 'a mail waits for its reader, which counts as parked');
$t->sql(q{UPDATE staging.people SET family = 'Person 301' WHERE id = 301; UPDATE staging.tracks SET name = 'T1' WHERE id = 1; DELETE FROM staging.mails WHERE id = 61;
	DELETE FROM staging.mails_error WHERE id = 61});
is($t->sql(q{SELECT string_agg(dvmig.retry(staging)::text, ' ' ORDER BY staging::text) FROM dvmig.migration_table WHERE staging::text IN ('staging.people', 'staging.tracks')}), '1 1', 'retry');
is($t->run('m', 'lanes => 2')->{state}, 'completed', 'what is corrected goes');
$fields{'staging.firms'}{_ownerid_value} = $user;
whole('corrected');
is(unequal(), $unread, 'and equal');
is($t->sql(q{SELECT string_agg(concat_ws(' ', kind, staging, subject), '; ') FROM dvmig.cutover('m') WHERE kind = 'blocker' AND subject !~ 'no backup'}), '', 'nothing but a backup keeps from the cut-over');
like($t->sql(q{SELECT dvmig.report_text('m')}), qr/staging\.pairs.*staging\.papers/s, 'the report has all tables');
like($t->sql(q{SELECT dvmig.report('m')}), qr/staging\.mails.*staging\.pairs/s, 'for a browser, too');
is($t->sql(q{SELECT string_agg(dvmig.rebuild_outcomes(staging)::text, ' ' ORDER BY staging::text) FROM dvmig.migration_table WHERE relationship IS NULL}), '0 0 0 0 0 0 0 0', 'no outcome is lost');
is($t->sql(q{SELECT concat_ws(' ', sent, equal, failed) FROM dvmig.resend('staging.deals', '{totalamount}')}), '0 80 0', 'a column of updates can be sent again');

# ------------------------------------------------------------------ the definition elsewhere

my $script = $t->sql(q{SELECT dvmig.export('m')});
$t->sql('CREATE DATABASE elsewhere');
$t->node->safe_psql('elsewhere', 'CREATE EXTENSION dvmig');
my $made = 'SELECT string_agg((to_jsonb(c) - $${position,staging,parent,automatic}$$::text[])::text || c.staging || coalesce(c.parent::text, $$$$), chr(10) ORDER BY c.staging::text, c.target_column, c.variant) FROM dvmig.column_map c';
my $maps = $t->sql($made);
{
	local $t->{db} = 'elsewhere';
	$t->sql($tables);
	$t->server('sim');
	$t->sql(q{SELECT count(*) FROM dvmig.refresh_metadata('sim', '{account,contact,new_region,opportunity,email,new_invoice,new_playlist,new_track,systemuser}')});
	$t->sql($script);
	is($t->sql(q{SELECT dvmig.export('m')}), $script, 'the definition is exported from elsewhere as from here');
	is($t->sql($made), $maps, 'with the same maps');
}

# ------------------------------------------------------------------ another server

$t->server('sim2');
$t->sql(q{SELECT count(*) FROM dvmig.refresh_metadata('sim2', '{account,contact,new_region,opportunity,email,new_invoice,new_playlist,new_track,systemuser}')});
like($t->sql(q{SELECT dvmig.retarget('m', 'sim2')}), qr/goes to server sim2 instead of sim/, 'retarget');
is($t->sql(q{SELECT string_agg(concat_ws(' ', staging, staged, unprocessed, succeeded, owed), '; ' ORDER BY staging) FROM dvmig.status WHERE succeeded + failed + owed > 0 OR unprocessed <> staged}), '',
	'all rows are unprocessed again, links too, and nothing is owed');
$sim->sim(POST => 'reset');
is($t->run('m', q{lanes => 2, passes => '{write,deferred,links,files,states,delete}'})->{state}, 'completed', 'and go there');
whole('retargeted');
is(unequal(), $unread, 'and equal');

# ------------------------------------------------------------------ records that were there, and the end

$sim->create('new_regions', { new_name => 'Region 91' });
$t->sql(q{INSERT INTO staging.regions VALUES (91, 'Region 91', 'Inactive'), (92, 'Region 92', 'Inactive')});
is($t->sql(q{SELECT concat_ws(' ', adopted, ambiguous, absent) FROM dvmig.adopt('staging.regions', 'new_name')}), '1 0 1', 'a record is adopted');
$sim->fault({ match => { method => 'POST', path_contains => '$batch', body_contains => 'statecode' }, nth => 1, count => 1, do => 'reset_after' });
is($t->run('m', 'lanes => 2')->{state}, 'completed', 'and gets its state');
whole('adopted');
is(unequal(), $unread, 'and equal');
like($t->sql(q{SELECT dvmig.sign_off('m', override => true)}), qr/signed off/, 'signed off');
$t->sql(q{SELECT dvmig.discard('m', secrets => 'keep')});
is($t->sql(q{SELECT (SELECT count(*) FROM staging.pairs) + (SELECT count(*) FROM staging.pairs_success) + (SELECT count(*) FROM staging.mails) + (SELECT count(*) FROM staging.papers_success)}), 0,
	'and discarded, links too');

done_testing();

-- Before the switch: how long the final window will be, and what blocks it.

-- ------------------------------------------------------------------- backups

CREATE FUNCTION dvmig._note_backup(caller oid, migration text, note text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'operator');
BEGIN
	PERFORM dvmig._log(caller, m.name, 'backup', m.name, jsonb_build_object('note', note));
	RETURN format('a backup is noted for migration %s', m.name);
END
$$;
COMMENT ON FUNCTION dvmig._note_backup(oid, text, text) IS 'internal part of dvmig.note_backup()';

CREATE FUNCTION dvmig.note_backup(migration text, note text DEFAULT NULL) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.note_backup(text, text) IS
	'note that the staging database was backed up just now: the last line of a backup script; dvmig.cutover() asks for one after the last load';

-- _backup_since: was there a backup after that time? One that was noted, or WAL
-- that is archived without failure.
CREATE FUNCTION dvmig._backup_since(m dvmig.migration, since timestamptz) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT EXISTS (SELECT FROM dvmig.event e WHERE e.migration = m.name AND e.kind = 'backup' AND e.happened_at >= since)
		OR EXISTS (SELECT FROM pg_stat_archiver a WHERE a.last_archived_time >= since
			AND (a.last_failed_time IS NULL OR a.last_failed_time < a.last_archived_time))
$$;
COMMENT ON FUNCTION dvmig._backup_since(dvmig.migration, timestamptz) IS 'whether a backup is known that was made after that time';

-- --------------------------------------------------------------- autonumbers

CREATE TABLE dvmig.autonumber_seed (
	server      name NOT NULL,
	table_name  text NOT NULL,
	column_name text NOT NULL,
	seed        bigint NOT NULL,
	set_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
	set_by      name NOT NULL,
	PRIMARY KEY (server, table_name, column_name)
);
COMMENT ON TABLE dvmig.autonumber_seed IS 'seeds of autonumber columns that were set by dvmig.set_autonumber_seed()';

-- _autonumber_columns: columns of a Dataverse table that number themselves, as
-- the service tells it; none where it does not know the question. An error where it
-- could not be asked.
CREATE FUNCTION dvmig._autonumber_columns(userid oid, server name, target text) RETURNS TABLE (column_name text, format text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	r record;
BEGIN
	SELECT c.* INTO r FROM dvmig._service_call(userid, server::text, 'GET', format(
		'/EntityDefinitions(LogicalName=''%s'')/Attributes/Microsoft.Dynamics.CRM.StringAttributeMetadata?$select=LogicalName,AutoNumberFormat', target), NULL) c;
	IF r.status = 200 THEN
		RETURN QUERY SELECT e ->> 'LogicalName', e ->> 'AutoNumberFormat' FROM dvmig._elements(r.answer::jsonb -> 'value') e
			WHERE coalesce(e ->> 'AutoNumberFormat', '') <> '';
	ELSIF r.status IN (0, 401, 403, 408, 429, 500, 502, 503, 504) THEN
		RAISE EXCEPTION 'Dataverse did not tell which columns of table "%" number themselves (status %)', target, r.status
			USING ERRCODE = 'external_routine_exception', DETAIL = coalesce(left(r.answer, 300), 'There was no answer.'), HINT = 'Call it again.';
	END IF;
EXCEPTION WHEN invalid_text_representation THEN
	RETURN;		-- an answer that is no JSON tells nothing
END
$$;
COMMENT ON FUNCTION dvmig._autonumber_columns(oid, name, text) IS 'columns of a Dataverse table that number themselves';

-- _number_pattern: a regular expression for what an autonumber format makes, whose
-- group is the number; null for one without a number. Parts of a format are
-- {SEQNUM:digits}, {RANDSTRING:length}, {DATETIMEUTC:picture} and plain text.
CREATE FUNCTION dvmig._number_pattern(format text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT '^' || string_agg(CASE WHEN part ~* '^\{SEQNUM:\d+\}$' THEN '(\d{1,30})'
			WHEN part ~* '^\{RANDSTRING:\d+\}$' THEN '[A-Za-z0-9]{' || substring(part FROM '\d+') || '}'
			WHEN part ~ '^\{[^:]*:.*\}$' THEN '.{' || length(substring(part FROM ':(.*)\}$')) || '}'
			ELSE regexp_replace(part, '([\\.\[\]{}()*+?^$|])', '\\\1', 'g') END, '' ORDER BY i) || '$'
	FROM (SELECT m[1] AS part, i FROM regexp_matches($1, '\{[^}]*\}|[^{]+', 'g') WITH ORDINALITY r(m, i)) p
	HAVING count(*) FILTER (WHERE part ~* '^\{SEQNUM:\d+\}$') = 1
$$;
COMMENT ON FUNCTION dvmig._number_pattern(text) IS 'regular expression for the values of an autonumber format, whose group is the number';

-- _highest_number: the highest number in a mapped column's loaded values, where its
-- autonumber format has it, or else at the end.
CREATE FUNCTION dvmig._highest_number(owner oid, staging regclass, expression_sql text, format text) RETURNS numeric
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT dvmig._query_quietly($1, format('SELECT max(coalesce(substring(v FROM %L), substring(v FROM ''(\d{1,30})\D*$''))::numeric)
		FROM (SELECT (%s)::text AS v FROM %s s WHERE s.processing_flag IN (''S'', ''P'')) q', dvmig._number_pattern($4), $3, $2), $2::text)::numeric
$$;
COMMENT ON FUNCTION dvmig._highest_number(oid, regclass, text, text) IS 'the highest number in the loaded values of an autonumber column';

CREATE FUNCTION dvmig._set_autonumber_seed(caller oid, staging regclass, target_column text, seed bigint, by_hand bool) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table := dvmig._table(caller, staging, 'owner');
	m dvmig.migration;
	c dvmig.metadata_column;
	numbered text[];
	r record;
BEGIN
	SELECT g.* INTO m FROM dvmig.migration g WHERE g.migration_id = t.migration_id;
	c := dvmig._target_column(m.server, t.target, lower(btrim(target_column)));
	IF seed IS NULL OR seed < 1 THEN
		RAISE EXCEPTION 'the seed must be a whole number of at least 1' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	numbered := ARRAY(SELECT mc.column_name FROM dvmig.metadata_column mc WHERE mc.server = m.server AND mc.table_name = t.target AND mc.auto_number IS NOT NULL);
	IF NOT by_hand AND NOT c.column_name = ANY (numbered) THEN
		-- it may number itself since the metadata was read
		numbered := ARRAY(SELECT n.column_name FROM dvmig._autonumber_columns(m.owner, m.server, t.target) n);
	END IF;
	IF NOT c.column_name = ANY (numbered) THEN
		RAISE EXCEPTION 'column "%" of Dataverse table "%" does not number itself', c.column_name, t.target
			USING ERRCODE = 'invalid_parameter_value',
			DETAIL = coalesce('Its columns that do: ' || (SELECT string_agg(n, ', ' ORDER BY n) FROM unnest(numbered) n) || '.', 'No column of that table does, as far as Dataverse tells.'),
			HINT = format('If that has changed, call dvmig.refresh_metadata(%L, ''{%s}'').', m.server, t.target);
	END IF;
	IF NOT by_hand THEN
		SELECT q.* INTO r FROM dvmig._service_call(m.owner, m.server::text, 'POST', '/SetAutoNumberSeed',
			jsonb_build_object('EntityName', t.target, 'AttributeName', c.column_name, 'Value', seed)::text) q;
		IF r.status NOT IN (200, 204) THEN
			RAISE EXCEPTION 'Dataverse did not set the seed of column "%" of table "%" (status %)', c.column_name, t.target, r.status
				USING ERRCODE = 'external_routine_exception',
				DETAIL = coalesce(left(r.answer, 300), 'There was no answer.'), HINT = 'Set it in Dataverse by hand, then say so with by_hand => true.';
		END IF;
	END IF;
	INSERT INTO dvmig.autonumber_seed AS s (server, table_name, column_name, seed, set_by)
	VALUES (m.server, t.target, c.column_name, _set_autonumber_seed.seed, pg_get_userbyid(caller))
	ON CONFLICT ON CONSTRAINT autonumber_seed_pkey DO UPDATE SET seed = excluded.seed, set_at = excluded.set_at, set_by = excluded.set_by;
	PERFORM dvmig._log(caller, m.name, 'set_autonumber_seed', staging::text,
		jsonb_build_object('target_column', c.column_name, 'seed', seed, 'by_hand', by_hand));
	RETURN format('the next number of %s.%s is %s', t.target, c.column_name, seed);
END
$$;
COMMENT ON FUNCTION dvmig._set_autonumber_seed(oid, regclass, text, bigint, bool) IS 'internal part of dvmig.set_autonumber_seed()';

CREATE FUNCTION dvmig.set_autonumber_seed(staging regclass, target_column text, seed bigint, by_hand bool DEFAULT false) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.set_autonumber_seed(regclass, text, bigint, bool) IS
	'let an autonumber column (no other) go on with this number, beyond those that were loaded; by_hand: it was set in Dataverse already, only note it';

-- ------------------------------------------------------------------- the list

-- _measured_rate: rows a second of a staging table's writes, in the last five
-- runs that wrote more than a few; of the whole migration where it has none.
CREATE FUNCTION dvmig._measured_rate(m dvmig.migration, staging text) RETURNS numeric
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH steps AS (
		SELECT r.staging, r.succeeded + r.failed AS n, extract(epoch FROM r.ended_at - r.started_at)::numeric AS s,
			row_number() OVER (PARTITION BY r.staging ORDER BY r.run DESC) AS nth
		FROM dvmig.run_table r JOIN dvmig.run_history h USING (run)
		WHERE h.migration_id = m.migration_id AND h.server = m.server AND r.pass = 'write' AND r.ended_at > r.started_at AND r.succeeded + r.failed >= 20
	)
	SELECT coalesce(sum(n) FILTER (WHERE steps.staging = $2) / nullif(sum(s) FILTER (WHERE steps.staging = $2), 0), sum(n) / nullif(sum(s), 0))
	FROM steps WHERE nth <= 5
$$;
COMMENT ON FUNCTION dvmig._measured_rate(dvmig.migration, text) IS 'measured rows a second of a staging table';

-- _count_unmatched_owners: unprocessed rows whose owner is not found in Dataverse, by
-- what is known of users and teams; null where it cannot be told.
CREATE FUNCTION dvmig._count_unmatched_owners(owner oid, staging regclass) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	faults text;
	joins text;
BEGIN
	SELECT string_agg(s.fault_sql, ', '), string_agg(s.join_sql, ' ') INTO faults, joins
	FROM dvmig._map_sql($2) s WHERE s.target_column = 'ownerid' AND s.kind = 'reference';
	IF faults IS NULL THEN
		RETURN 0;
	END IF;
	RETURN dvmig._query_as(owner, format('SELECT count(*) FROM (%s) s %s WHERE coalesce(%s, NULL::text) IS NOT NULL',
		(SELECT p.inner_sql FROM dvmig._projection($2, 'write') p), joins, faults));
EXCEPTION WHEN OTHERS THEN
	RETURN NULL;		-- an expression throws: that row will fail, and say why
END
$$;
COMMENT ON FUNCTION dvmig._count_unmatched_owners(oid, regclass) IS 'unprocessed rows whose owner is not known in Dataverse';

-- _unverified: why a staging table does not count as verified, or null. A sample
-- proves nothing of the rows it left out, but what it found counts.
CREATE FUNCTION dvmig._unverified(m dvmig.migration, staging text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	loaded timestamptz := (SELECT max(coalesce(r.ended_at, h.ended_at)) FROM dvmig.run_table r JOIN dvmig.run_history h USING (run)
		WHERE h.migration_id = m.migration_id AND h.server = m.server AND r.staging = $2 AND r.succeeded - r.unchanged > 0
		  AND r.pass NOT LIKE 'verif%');
	v dvmig.verification;
	whole timestamptz;
BEGIN
	IF loaded IS NULL THEN
		RETURN NULL;
	END IF;
	SELECT q.* INTO v FROM dvmig.verification q WHERE q.migration_id = m.migration_id AND q.staging = $2 ORDER BY q.verified_at DESC LIMIT 1;
	whole := (SELECT max(q.verified_at) FROM dvmig.verification q WHERE q.migration_id = m.migration_id AND q.staging = $2 AND q.sample IS NULL);
	IF v.result = 'equal' AND v.verified_at > whole THEN
		-- a sample does not undo what the verification of the whole table found
		SELECT q.* INTO v FROM dvmig.verification q WHERE q.migration_id = m.migration_id AND q.staging = $2 AND q.verified_at = whole;
	END IF;
	RETURN CASE WHEN v.verified_at IS NULL THEN 'was never verified'
		WHEN v.verified_at >= loaded AND v.result = 'different' THEN format('its verification found %s missing, %s different and %s extra records', v.missing, v.different, v.extra)
			|| CASE WHEN v.changed_since > 0 THEN format(', and %s that others have changed since', v.changed_since) ELSE '' END
		WHEN v.verified_at >= loaded AND v.result = 'not compared' THEN 'its verification could not compare all of it: ' || array_to_string(v.not_compared, '; ')
		WHEN v.verified_at < loaded THEN format('was loaded at %s, after its last verification', date_trunc('second', loaded))
		WHEN whole IS NULL OR whole < loaded THEN 'was verified by a sample only' END;
END
$$;
COMMENT ON FUNCTION dvmig._unverified(dvmig.migration, text) IS 'why a staging table does not count as verified; null if it does';

-- _unverified_step: what to do about it. To verify again helps only where something
-- has changed since.
CREATE FUNCTION dvmig._unverified_step(m dvmig.migration, staging text, why text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN why LIKE 'its verification found %' THEN format('SELECT * FROM dvmig.difference WHERE staging = %L; correct what is wrong, then verify again', staging)
		WHEN why LIKE 'its verification could not %' THEN format('see not_compared in dvmig.verification and look at these rows in Dataverse, then SELECT dvmig.sign_off(%L, ''who has looked'', override => true)', m.name)
		ELSE format('SELECT * FROM dvmig.verify(%L)', m.name) END
$$;
COMMENT ON FUNCTION dvmig._unverified_step(dvmig.migration, text, text) IS 'what to do where a staging table does not count as verified';

-- _waits_for_more: can rows of this table wait for anything but rows that go in the
-- same run? A parent that has failed, is left out, on hold, to be deleted or not
-- there; a row below that could not be deleted.
CREATE FUNCTION dvmig._waits_for_more(m dvmig.migration, s dvmig.status, tables dvmig.status[]) RETURNS bool
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	p record;
BEGIN
	IF dvmig._parents_left_out(m.owner, s.staging::regclass, true) IS NOT NULL
		OR EXISTS (SELECT FROM dvmig.column_map c WHERE c.staging = s.staging::regclass AND c.on_missing = 'park')
		OR EXISTS (SELECT FROM unnest(tables) o JOIN dvmig.column_map c ON c.staging = o.staging::regclass WHERE c.parent = s.staging::regclass AND o.failed > 0) THEN
		RETURN true;
	END IF;
	FOR p IN SELECT DISTINCT t.staging, t.held_by_undo, o.failed FROM dvmig.column_map c JOIN dvmig.migration_table t ON t.staging = c.parent
		LEFT JOIN unnest(tables) o ON o.staging = t.staging::text WHERE c.staging = s.staging::regclass LOOP
		IF p.held_by_undo IS NOT NULL OR p.failed IS DISTINCT FROM 0
			OR (SELECT q::bool FROM dvmig._query_as(m.owner, format('SELECT EXISTS (SELECT FROM %s s WHERE s.action_flag = ''D'')::text', p.staging)) q) THEN
			RETURN true;
		END IF;
	END LOOP;
	RETURN false;
END
$$;
COMMENT ON FUNCTION dvmig._waits_for_more(dvmig.migration, dvmig.status, dvmig.status[]) IS 'whether rows of a staging table can wait for something that the next run does not bring';

-- _cutover_table: what is pending and what blocks, of one table.
CREATE FUNCTION dvmig._cutover_table(m dvmig.migration, s dvmig.status, tables dvmig.status[])
RETURNS TABLE (kind text, staging text, subject text, amount bigint, expected interval, advice text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	rate numeric := dvmig._measured_rate(m, s.staging);
	pending bigint := coalesce(s.unprocessed, 0);
	why text := dvmig._unverified(m, s.staging);
	owners bigint;
	-- rows whose parents go in the same run are pending, as these are
	waiting bigint := CASE WHEN s.parked > 0 AND dvmig._waits_for_more(m, s, tables) THEN s.parked END;
BEGIN
	IF pending > 0 THEN
		RETURN QUERY SELECT 'pending', s.staging, CASE pending WHEN 1 THEN 'row' ELSE 'rows' END || CASE WHEN rate IS NULL THEN ' to load, at a rate that was never measured'
			ELSE format(' to load, at %s a second', round(rate, 1)) END, pending, make_interval(secs => (pending / rate)::double precision), s.next_step;
		owners := dvmig._count_unmatched_owners(m.owner, s.staging::regclass);
	END IF;
	RETURN QUERY SELECT 'blocker', s.staging, CASE b.amount WHEN 1 THEN b.one ELSE b.subject END, b.amount, NULL::interval, b.advice FROM (VALUES
		('row has failed', 'rows have failed', s.failed, format('correct them and SELECT dvmig.retry(%L)', s.staging)),
		('row waits for a parent', 'rows wait for a parent', waiting, 'a run loads the parents first; correct those that failed'),
		('row is in doubt', 'rows are in doubt', s.in_doubt, format('CALL dvmig.run(%L): it asks Dataverse which of them arrived', m.name)),
		('record is owed a later pass: a deferred lookup, a file, a closing state', 'records are owed a later pass: deferred lookups, files, closing states', s.owed, s.next_step),
		('row has an owner that Dataverse does not know', 'rows have an owner that Dataverse does not know', owners, 'create the users or map another owner; then dvmig.check() lists none')
		) b(one, subject, amount, advice) WHERE b.amount > 0;
	IF NOT coalesce(s.invariant_holds, false) THEN
		RETURN QUERY SELECT 'blocker', s.staging, 'the figures do not add up', NULL::bigint, NULL::interval, s.next_step;
	END IF;
	IF EXISTS (SELECT FROM dvmig.migration_table t WHERE t.staging = s.staging::regclass AND t.held_by_undo IS NOT NULL) THEN
		RETURN QUERY SELECT 'blocker', s.staging, 'is on hold after an undo: no run loads it', NULL::bigint, NULL::interval,
			format('when what was wrong is corrected: SELECT dvmig.release(%L)', s.staging);
	END IF;
	IF why IS NOT NULL THEN
		RETURN QUERY SELECT 'blocker', s.staging, 'is not verified: ' || CASE WHEN why LIKE 'its %' THEN why ELSE 'it ' || why END, NULL::bigint, NULL::interval, dvmig._unverified_step(m, s.staging, why);
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._cutover_table(dvmig.migration, dvmig.status, dvmig.status[]) IS 'what is pending in a staging table, and what blocks the cut-over';

-- _cutover_numbers: autonumber columns that were filled, and may meet their own numbers.
CREATE FUNCTION dvmig._cutover_numbers(m dvmig.migration)
RETURNS TABLE (kind text, staging text, subject text, amount bigint, expected interval, advice text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	c record;
	top numeric;
	seed bigint;
BEGIN
	FOR c IN SELECT q.tab, q.target, q.column_name, q.expression, a.format FROM (
			SELECT t.staging AS tab, t.target, cm.target_column AS column_name, cm.expression_sql[1] AS expression
			FROM dvmig.migration_table t JOIN dvmig.column_map cm ON cm.staging = t.staging AND cm.kind = 'value'
			JOIN dvmig.metadata_column mc ON mc.server = m.server AND mc.table_name = t.target AND mc.column_name = cm.target_column AND mc.column_type = 'String'
			WHERE t.migration_id = m.migration_id) q
		JOIN (SELECT t.target, n.column_name, n.format FROM (SELECT DISTINCT mt.target FROM dvmig.migration_table mt WHERE mt.migration_id = m.migration_id) t,
			LATERAL dvmig._autonumber_columns(m.owner, m.server, t.target) n) a USING (target, column_name)
	LOOP
		top := dvmig._highest_number(m.owner, c.tab, c.expression, c.format);
		seed := (SELECT s.seed FROM dvmig.autonumber_seed s WHERE s.server = m.server AND s.table_name = c.target AND s.column_name = c.column_name);
		CONTINUE WHEN top IS NULL;
		RETURN QUERY SELECT CASE WHEN seed > top THEN 'notice' ELSE 'blocker' END, c.tab::text,
			format('%s numbers itself (%s); the highest number loaded is %s', c.column_name, c.format, top) || coalesce(', the seed was set to ' || seed, ''),
			CASE WHEN top < 9e18 THEN top::bigint END, NULL::interval,
			CASE WHEN seed > top THEN 'nothing to do' ELSE format('SELECT dvmig.set_autonumber_seed(%L, %L, %s)', c.tab, c.column_name, top + 1) END;
	END LOOP;
EXCEPTION WHEN OTHERS THEN
	-- the rest of the list is worth having all the same
	RETURN QUERY SELECT 'blocker', NULL::text, format('which columns number themselves could not be asked: %s', SQLERRM), NULL::bigint, NULL::interval,
		format('SELECT * FROM dvmig.whoami(%L)', m.server);
END
$$;
COMMENT ON FUNCTION dvmig._cutover_numbers(dvmig.migration) IS 'autonumber columns that were filled by a migration';

CREATE FUNCTION dvmig._cutover(caller oid, migration text, margin numeric)
RETURNS TABLE (kind text, staging text, subject text, amount bigint, expected interval, advice text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'operator');
	s dvmig.status;
	tables dvmig.status[] := '{}';
	r record;
	busy record;
	pending bigint := 0;
	total interval := '0';
	unknown bool := false;
	blockers bigint := 0;
	loaded timestamptz := (SELECT max(h.ended_at) FROM dvmig.run_history h WHERE h.migration_id = m.migration_id AND h.kind <> 'verify' AND h.succeeded - h.unchanged > 0);
BEGIN
	IF margin IS NULL OR margin < 0 OR margin > 10 OR margin = 'NaN' THEN
		RAISE EXCEPTION 'the margin must be a share from 0 to 10'
			USING ERRCODE = 'invalid_parameter_value', HINT = '0.25 adds a quarter to what was measured.';
	END IF;
	FOR s IN SELECT q.* FROM dvmig._status_of(caller, m.name) q LOOP
		tables := tables || s;
	END LOOP;
	FOREACH s IN ARRAY tables LOOP
		FOR r IN SELECT * FROM dvmig._cutover_table(m, s, tables) LOOP
			pending := pending + CASE r.kind WHEN 'pending' THEN r.amount ELSE 0 END;
			total := total + coalesce(r.expected, '0');
			unknown := unknown OR r.kind = 'pending' AND r.expected IS NULL;
			blockers := blockers + (r.kind = 'blocker')::int;
			kind := r.kind; staging := r.staging; subject := r.subject; amount := r.amount; expected := r.expected; advice := r.advice;
			RETURN NEXT;
		END LOOP;
	END LOOP;
	FOR r IN SELECT * FROM dvmig._cutover_numbers(m) LOOP
		blockers := blockers + (r.kind = 'blocker')::int;
		kind := r.kind; staging := r.staging; subject := r.subject; amount := r.amount; expected := r.expected; advice := r.advice;
		RETURN NEXT;
	END LOOP;
	staging := NULL; amount := NULL; expected := NULL;
	SELECT b.* INTO busy FROM dvmig._busy_run(m.migration_id) b;
	IF busy.run IS NOT NULL THEN
		kind := 'blocker'; subject := format('run %s is at work', busy.run); advice := format('SELECT dvmig.wait(%s)', busy.run); blockers := blockers + 1;
		RETURN NEXT;
	END IF;
	IF loaded IS NOT NULL AND NOT dvmig._backup_since(m, loaded) THEN
		kind := 'blocker'; subject := format('no backup of the staging database is known since the last load (%s)', date_trunc('second', loaded));
		advice := format('back it up, then SELECT dvmig.note_backup(%L, ''where it is'')', m.name); blockers := blockers + 1;
		RETURN NEXT;
	END IF;
	kind := 'forecast'; amount := pending;
	expected := CASE WHEN NOT unknown OR total > '0' THEN date_trunc('milliseconds', total * (1 + margin)::double precision) END;
	subject := format('time to load what is pending, with a margin of %s per cent', round(margin * 100)) || CASE WHEN unknown THEN '; more, where no rate was measured' ELSE '' END;
	advice := 'freeze the source, load the last changes, run, verify, switch';
	RETURN NEXT;
	kind := 'verdict'; amount := blockers; expected := NULL;
	subject := CASE WHEN blockers = 0 THEN 'ready' ELSE 'not ready' END;
	advice := CASE WHEN blockers > 0 THEN dvmig._count_of(blockers, 'blocker is', 'blockers are') || ' listed above' WHEN pending > 0 THEN 'for the final load of ' || dvmig._count_of(pending, 'row', 'rows') ELSE 'nothing is pending' END;
	RETURN NEXT;
END
$$;
COMMENT ON FUNCTION dvmig._cutover(oid, text, numeric) IS 'forecast and blockers of the cut-over: see dvmig.cutover()';

CREATE FUNCTION dvmig.cutover(migration text, margin numeric DEFAULT 0.25)
RETURNS TABLE (kind text, staging text, subject text, amount bigint, expected interval, advice text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.cutover(text, numeric) IS
	'how long the final window will be by measured rates and what is pending, and what blocks it; the last row says ready or not ready. margin: share that is added to the forecast';

-- Stub users: people who have left and still own records.
--
-- Users who are there are found; whether the others may be created through the Web
-- API differs between environments and is tried with one of them. Where it may
-- not, Dataverse's import wizard takes them from a CSV file, and dvmig.adopt()
-- finds what it made.

-- _stub_tables: staging tables of users.
CREATE FUNCTION dvmig._stub_tables(m dvmig.migration) RETURNS SETOF dvmig.migration_table
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN QUERY SELECT t.* FROM dvmig.migration_table t JOIN pg_class k ON k.oid = t.staging
		WHERE t.migration_id = m.migration_id AND t.target = 'systemuser' ORDER BY t.position;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'migration "%" has no staging table of users', m.name
			USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = format('Stage the users of the source and register them: SELECT dvmig.add_table(%L, ..., ''systemuser'').', m.name);
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._stub_tables(dvmig.migration) IS 'staging tables that go to systemuser';

-- _refusal: why a record was not created, in Dataverse's words.
CREATE FUNCTION dvmig._refusal(http_status int, answer text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	e jsonb;
BEGIN
	IF http_status = 0 THEN
		RETURN 'Dataverse did not answer, so it is not known whether the user was created; a run finds out';
	END IF;
	e := (answer::jsonb) -> 'error';
	RETURN format('Dataverse refused it: %s (%s, HTTP status %s)', e ->> 'message', e ->> 'code', http_status);
EXCEPTION WHEN data_exception THEN
	RETURN format('Dataverse refused it with HTTP status %s', http_status);
END
$$;
COMMENT ON FUNCTION dvmig._refusal(int, text) IS 'why a record was not created, in the words of the answer';

-- _try_stub: create one of the users that are missing; null where there is none
-- that could be sent. The record has the id that its row has anyhow: whatever
-- becomes of this transaction, a run finds it there and makes no second.
CREATE FUNCTION dvmig._try_stub(caller oid, m dvmig.migration, t dvmig.migration_table) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	key_sql text := (SELECT format('concat_ws('', '', %s)', string_agg(format('s.%I', k), ', ' ORDER BY i)) FROM unnest(t.source_key) WITH ORDINALITY u(k, i));
	deferred text[] := coalesce((SELECT w.deferred FROM dvmig._waves(m.migration_id) w WHERE w.staging = t.staging), '{}');
	missing text[] := ARRAY(SELECT q FROM dvmig._query_as(m.owner, format('SELECT %s FROM %s s WHERE %s AND s.processing_flag = ''U'' AND s.action_flag = ''I'' LIMIT 1000',
		key_sql, t.staging, dvmig._adopt_candidates(t))) q);
	n int := dvmig._query_as(m.owner, format('SELECT count(*) FROM %s s WHERE s.processing_flag = ''U''', t.staging))::int;
	p record;
	r record;
BEGIN
	SELECT q.* INTO p FROM dvmig._preview_some(t.staging, least(n, 10000), deferred, m.owner) q
	WHERE q.operation = 'I' AND q.request IS NOT NULL AND q.dataverse_id IS NOT NULL AND q.source_key = ANY (missing) LIMIT 1;
	IF p.source_key IS NULL THEN
		RETURN NULL;
	END IF;
	r := dvmig._service_call(caller, m.server::text, 'POST',
		(SELECT '/' || mt.entity_set FROM dvmig.metadata_table mt WHERE mt.server = m.server AND mt.table_name = 'systemuser'), p.request);
	PERFORM dvmig._log(caller, m.name, 'stub_users', t.staging::text, jsonb_build_object('tried', p.dataverse_id, 'http_status', nullif(r.status, 0)));
	IF r.status BETWEEN 200 AND 299 THEN
		PERFORM dvmig._run_as(m.owner, format('UPDATE %s s SET dataverse_id = %L WHERE %s = %L', t.staging, p.dataverse_id, key_sql, p.source_key), true, true);
		RETURN '';
	END IF;
	RETURN dvmig._refusal(r.status, r.answer);
END
$$;
COMMENT ON FUNCTION dvmig._try_stub(oid, dvmig.migration, dvmig.migration_table) IS 'create one of the missing users: empty where that went well, else why not; null where there was none to try';

CREATE FUNCTION dvmig._stub_users(caller oid, migration text, match_on text, confirm text)
RETURNS TABLE (staging text, present bigint, ambiguous bigint, missing bigint, can_create bool, message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'owner');
	t dvmig.migration_table;
	a record;
	tried text;
BEGIN
	PERFORM dvmig._refuse_during_run(m.migration_id);
	PERFORM dvmig._refuse_unmasked(m);
	PERFORM dvmig._require_confirmation(caller, migration, 'creating a user in a production organisation', confirm);
	FOR t IN SELECT * FROM dvmig._stub_tables(m) LOOP
		PERFORM dvmig._require_reading(caller, t.staging);
		PERFORM dvmig._refresh_references(caller, migration);
		a := dvmig._adopt(caller, t.staging, match_on);
		staging := t.staging::text; present := a.adopted; ambiguous := a.ambiguous; missing := a.absent; can_create := NULL;
		message := CASE WHEN missing = 0 THEN 'all users are there' ELSE 'no user could be tried: dvmig.preview() tells why' END;
		IF missing > 0 THEN
			tried := dvmig._try_stub(caller, m, t);
			can_create := tried = '';
			message := coalesce(CASE WHEN can_create THEN format('one was created; CALL dvmig.run(%L, tables => %L) creates the others', m.name, ARRAY[t.staging::text])
				ELSE format('%s. Load them with the import wizard from SELECT * FROM dvmig.stub_user_list(%L), then SELECT * FROM dvmig.adopt(%L, %L)', rtrim(tried, '.'), m.name, t.staging, match_on) END, message);
		END IF;
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._stub_users(oid, text, text, text) IS 'internal part of dvmig.stub_users()';

CREATE FUNCTION dvmig.stub_users(migration text, match_on text DEFAULT 'internalemailaddress', confirm text DEFAULT NULL)
RETURNS TABLE (staging text, present bigint, ambiguous bigint, missing bigint, can_create bool, message text)
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.stub_users(text, text, text) IS
	'find the staged users that are in Dataverse, and try with one of the others whether users can be created there; tells how to go on';

-- ----------------------------------------------------------------------- the list

-- _stub_heading: what the import wizard calls a column, by which it maps by itself.
CREATE FUNCTION dvmig._stub_heading(column_name text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce((SELECT v.heading FROM (VALUES ('domainname', 'User Name'), ('firstname', 'First Name'), ('middlename', 'Middle Name'), ('lastname', 'Last Name'),
		('internalemailaddress', 'Primary Email'), ('businessunitid', 'Business Unit'), ('title', 'Title'), ('jobtitle', 'Job Title'), ('mobilephone', 'Mobile Phone'),
		('homephone', 'Home Phone'), ('address1_telephone1', 'Main Phone'), ('employeeid', 'Employee'), ('parentsystemuserid', 'Manager')) v (column_name, heading)
		WHERE v.column_name = $1), $1)
$$;
COMMENT ON FUNCTION dvmig._stub_heading(text) IS 'heading of a column of systemuser in an import file';

-- _stub_value: SQL of the text of a column in the list: of a lookup by name the
-- name, which the wizard looks up, else the value or id that a run would send.
CREATE FUNCTION dvmig._stub_value(server name, c dvmig.column_map, value_sql text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('(%s)::text', CASE WHEN c.kind = 'reference' AND c.match_on = ARRAY[t.primary_name] THEN format('CASE WHEN (%s) IS NOT NULL THEN %s END', value_sql, c.expression_sql[1]) ELSE value_sql END)
	FROM (SELECT 1) one LEFT JOIN dvmig.metadata_table t ON t.server = $1 AND t.table_name = c.referenced_table
$$;
COMMENT ON FUNCTION dvmig._stub_value(name, dvmig.column_map, text) IS 'SQL of the text of a column in the list of stub users';

CREATE FUNCTION dvmig._stub_user_list(caller oid, migration text) RETURNS SETOF text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'operator');
	t dvmig.migration_table;
	p record;
BEGIN
	PERFORM dvmig._refuse_unmasked(m);
	FOR t IN SELECT * FROM dvmig._stub_tables(m) LOOP
		PERFORM dvmig._require_reading(caller, t.staging);
		-- several lookups of one column are one column of the file
		SELECT string_agg('"' || dvmig._stub_heading(q.target_column) || '"', ',' ORDER BY q.ordinal) AS heading,
			string_agg(format('''"'' || replace(coalesce(%s, ''''), ''"'', ''""'') || ''"''', q.values_sql), ' || '','' || ' ORDER BY q.ordinal) AS line,
			(SELECT string_agg(f.join_sql, ' ' ORDER BY f.ordinal) FROM dvmig._map_sql(t.staging) f) AS joins
		INTO p
		FROM (SELECT f.target_column, min(f.ordinal) AS ordinal, string_agg(dvmig._stub_value(m.server, c, f.value_sql), ', ' ORDER BY f.ordinal) AS values_sql
			FROM dvmig._map_sql(t.staging) f JOIN dvmig.column_map c ON c.staging = t.staging AND c.target_column = f.target_column AND c.variant = f.variant
			WHERE c.send <> 'update' GROUP BY f.target_column) q;
		RETURN NEXT p.heading;
		RETURN QUERY SELECT q FROM dvmig._query_as(m.owner, format('SELECT %s FROM %s s %s WHERE %s ORDER BY %s', p.line, t.staging, p.joins, dvmig._adopt_candidates(t),
			(SELECT string_agg(format('s.%I', k), ', ' ORDER BY i) FROM unnest(t.source_key) WITH ORDINALITY u(k, i)))) q;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._stub_user_list(oid, text) IS 'internal part of dvmig.stub_user_list()';

CREATE FUNCTION dvmig.stub_user_list(migration text) RETURNS SETOF text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.stub_user_list(text) IS 'lines of a CSV file for Dataverse''s import wizard: the staged users that have no record there yet';

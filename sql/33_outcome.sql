-- Outcome tables: <t>_success and <t>_error beside the staging table.

-- _cut_name: a name with its suffix, shortened between characters to what fits.
CREATE FUNCTION dvmig._cut_name(base text, suffix text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	most int := current_setting('max_identifier_length')::int;
	n int := length(base);
BEGIN
	-- the limit counts bytes of the server encoding, left() counts characters
	WHILE n > 1 AND octet_length(left(base, n) || suffix) > most LOOP
		n := n - 1;
	END LOOP;
	RETURN left(base, n) || suffix;
END
$$;
COMMENT ON FUNCTION dvmig._cut_name(text, text) IS 'a name with its suffix, shortened between characters to what fits an identifier';

-- _outcome_name: qualified name of an outcome table, chosen or made.
CREATE FUNCTION dvmig._outcome_name(staging regclass, suffix text, chosen text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	parts text[];
	schema_name text;
	base text;
BEGIN
	SELECT n.nspname, c.relname INTO schema_name, base
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = staging;
	IF chosen IS NULL THEN
		RETURN format('%I.%I', schema_name, dvmig._cut_name(base, suffix));
	END IF;
	parts := parse_ident(chosen);
	IF cardinality(parts) > 2 OR octet_length(parts[cardinality(parts)]) > current_setting('max_identifier_length')::int THEN
		RAISE EXCEPTION 'invalid name of an outcome table: %', chosen USING ERRCODE = 'invalid_name';
	END IF;
	RETURN CASE cardinality(parts) WHEN 2 THEN format('%I.%I', parts[1], parts[2]) ELSE format('%I.%I', schema_name, parts[1]) END;
END
$$;
COMMENT ON FUNCTION dvmig._outcome_name(regclass, text, text) IS 'qualified name of an outcome table, chosen or made of the staging table''s';

-- _kept_sql: SQL over a success row (x) of whether its record was found and left as
-- it was: settle.c and rebuild.c say so in the message, to which later passes may add.
CREATE FUNCTION dvmig._kept_sql() RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT 'coalesce(starts_with(x.message, ''kept: '') OR starts_with(x.message, ''rebuilt: ''), false)' $$;
COMMENT ON FUNCTION dvmig._kept_sql() IS 'SQL of whether the record of a success row was found and left as it was';

-- _kept_ours_sql: the same of a record that a run of ours had created, whose outcome
-- was lost: what comes after its create is still owed.
CREATE FUNCTION dvmig._kept_ours_sql() RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT 'coalesce(starts_with(x.message, ''kept: the record was modified in Dataverse by another user since an earlier run created it''), false)' $$;
COMMENT ON FUNCTION dvmig._kept_ours_sql() IS 'SQL of whether such a record was created by a run whose outcome was lost';

-- _outcome_columns: the columns of an outcome table, after the source key.
CREATE FUNCTION dvmig._outcome_columns(kind text, OUT col text, OUT type regtype, OUT about text) RETURNS SETOF record
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT v.col, v.type::regtype, v.about FROM (VALUES
		('success', 1, 'dataverse_id', 'uuid', 'id of the record in Dataverse'),
		('success', 2, 'operation', 'text', 'what was done: I inserted, U updated, D deleted'),
		('success', 3, 'pass', 'text', 'pass of the run that did it last'),
		('success', 4, 'content_hash', 'bytea', 'hash of the content sent'),
		('success', 5, 'created_run', 'bigint', 'run that created the record; null where it was there before'),
		('success', 6, 'run', 'bigint', 'run of this verdict'),
		('success', 7, 'recorded_at', 'timestamptz', 'when the verdict was recorded'),
		('success', 8, 'message', 'text', 'what is worth knowing: unchanged, found to exist, kept ...'),
		('success', 9, 'owed_passes', 'text', 'passes that are still owed, in their order: deferred, files, states'),
		('success', 10, 'record_state', 'text', 'statecode,statuscode that the states pass set last'),
		('success', 11, 'file_hash', 'text', 'hash of the names and bytes of the files uploaded'),
		('error', 1, 'dataverse_id', 'uuid', 'id of the record in Dataverse, where known'),
		('error', 2, 'created_run', 'bigint', 'run that created the record, where it exists'),
		('error', 3, 'operation', 'text', 'what was tried: I insert, U update, D delete'),
		('error', 4, 'error_column', 'text', 'Dataverse column at fault, where known'),
		('error', 5, 'error_class', 'text', 'kind of error, for dvmig.retry() and reports'),
		('error', 6, 'code', 'text', 'error code of Dataverse, or SQLSTATE'),
		('error', 7, 'message', 'text', 'error text'),
		('error', 8, 'http_status', 'int', 'HTTP status of the answer'),
		('error', 9, 'request_id', 'text', 'request id to give to Microsoft''s support'),
		('error', 10, 'attempts', 'int', 'how often the row was tried'),
		('error', 11, 'run', 'bigint', 'run of this verdict'),
		('error', 12, 'recorded_at', 'timestamptz', 'when the verdict was recorded'),
		('before', 1, 'dataverse_id', 'uuid', 'id of the record in Dataverse'),
		('before', 2, 'run', 'bigint', 'run that updated the record'),
		('before', 3, 'columns', 'jsonb', 'what the mapped columns held, as members of the Web API'),
		('before', 4, 'taken_at', 'timestamptz', 'when it was read')
	) v(kind, i, col, type, about)
	WHERE v.kind = $1 ORDER BY v.i
$$;
COMMENT ON FUNCTION dvmig._outcome_columns(text) IS 'columns of an outcome table (success, error or before) after the source key';

-- _outcome_definition: all its columns as (name, type with length and collation).
CREATE FUNCTION dvmig._outcome_definition(staging regclass, key text[], kind text, OUT col text, OUT type text) RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT d.col, d.type FROM (
		SELECT k.i, a.attname::text, format_type(a.atttypid, a.atttypmod)
			|| CASE WHEN a.attcollation <> t.typcollation THEN format(' COLLATE %s', a.attcollation::regcollation) ELSE '' END
		FROM unnest($2) WITH ORDINALITY k(name, i)
		JOIN pg_attribute a ON a.attrelid = $1 AND a.attname = k.name
		JOIN pg_type t ON t.oid = a.atttypid
		UNION ALL
		SELECT cardinality($2) + row_number() OVER (), o.col, o.type::text FROM dvmig._outcome_columns($3) o
	) d(i, col, type)
	ORDER BY d.i
$$;
COMMENT ON FUNCTION dvmig._outcome_definition(regclass, text[], text) IS 'columns and types of an outcome table';

-- _outcome_fits: whether an existing table is an outcome table of the same
-- shape, kept when the staging table was taken out of its migration.
CREATE FUNCTION dvmig._outcome_fits(caller oid, existing regclass, staging regclass, key text[], kind text) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT c.relkind = 'r' AND c.relpersistence = 'p' AND pg_has_role($1, c.relowner, 'USAGE')
		AND ARRAY(SELECT row(d.col, d.type)::text FROM dvmig._outcome_definition($3, $4, $5) d)
		  = ARRAY(SELECT row(a.attname::text, format_type(a.atttypid, a.atttypmod)
				|| CASE WHEN a.attcollation <> t.typcollation THEN format(' COLLATE %s', a.attcollation::regcollation) ELSE '' END)::text
			FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
			WHERE a.attrelid = $2 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
		AND EXISTS (SELECT FROM pg_index x WHERE x.indrelid = $2 AND x.indisprimary AND x.indnkeyatts = cardinality($4) + ($5 = 'before')::int)
		AND NOT EXISTS (SELECT FROM dvmig.migration_table m WHERE $2 IN (m.success_table, m.error_table, m.before_table, m.staging))
	FROM pg_class c WHERE c.oid = $2
$$;
COMMENT ON FUNCTION dvmig._outcome_fits(oid, regclass, regclass, text[], text) IS 'whether an existing table can go on as an outcome table';

-- _outcome_columns_fit: whether the columns that dvmig made are as it made them;
-- others may have been added.
CREATE FUNCTION dvmig._outcome_columns_fit(existing regclass, staging regclass, key text[], kind text) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT EXISTS (SELECT FROM pg_class c WHERE c.oid = $1 AND c.relkind = 'r')
		AND NOT EXISTS (SELECT FROM dvmig._outcome_definition($2, $3, $4) d
			WHERE NOT EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
				WHERE a.attrelid = $1 AND a.attname = d.col AND a.attgenerated = ''
				  AND d.type = format_type(a.atttypid, a.atttypmod)
					|| CASE WHEN a.attcollation <> t.typcollation THEN format(' COLLATE %s', a.attcollation::regcollation) ELSE '' END))
$$;
COMMENT ON FUNCTION dvmig._outcome_columns_fit(regclass, regclass, text[], text) IS 'whether an outcome table still has the columns that dvmig made';

-- _rule_in_the_way: rules that would rewrite what records an outcome: INSERT ... ON
-- CONFLICT DO UPDATE bears none of either, and one that acts instead loses a verdict.
CREATE FUNCTION dvmig._rule_in_the_way(t dvmig.migration_table) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT string_agg(format('%I of %s', r.rulename, r.ev_class::regclass), ', ' ORDER BY r.rulename)
	FROM pg_rewrite r WHERE r.ev_class IN (t.success_table, t.error_table, t.before_table)
	  AND r.ev_enabled IN ('O', 'A') AND (r.ev_type IN ('2', '3') OR r.is_instead)
$$;
COMMENT ON FUNCTION dvmig._rule_in_the_way(dvmig.migration_table) IS 'rules of outcome tables that keep outcomes from being recorded';

-- _create_outcome: make an outcome table as the caller, or take a kept one up again.
CREATE FUNCTION dvmig._create_outcome(caller oid, migration_owner oid, staging regclass, key text[], kind text, chosen text) RETURNS regclass
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	name text := dvmig._outcome_name(staging, '_' || kind, chosen);
	existing regclass := to_regclass(name);
	owner oid := (SELECT c.relowner FROM pg_class c WHERE c.oid = staging);
	o record;
BEGIN
	IF existing IS NOT NULL THEN
		IF dvmig._outcome_fits(caller, existing, staging, key, kind) THEN
			RETURN existing;
		END IF;
		RAISE EXCEPTION 'relation % exists already and is not an outcome table of %', existing, staging
			USING ERRCODE = 'duplicate_table',
			HINT = CASE kind WHEN 'before' THEN 'Rename that relation.' ELSE format('Choose another name: %s_table => ''...''.', kind) END;
	END IF;
	PERFORM dvmig._run_as(caller, format('CREATE TABLE %s (%s, PRIMARY KEY (%s)%s)', name,
		(SELECT string_agg(format('%I %s', d.col, d.type)
			|| CASE WHEN d.col IN ('recorded_at', 'taken_at') AND NOT d.col = ANY (key) THEN ' NOT NULL DEFAULT clock_timestamp()' ELSE '' END, ', ')
		 FROM dvmig._outcome_definition(staging, key, kind) d),
		(SELECT string_agg(format('%I', k), ', ' ORDER BY i) FROM unnest(key || CASE kind WHEN 'before' THEN '{run}'::text[] END) WITH ORDINALITY u(k, i)),
		-- of two rows that share a record the first one's is the image
		CASE kind WHEN 'before' THEN ', UNIQUE (dataverse_id, run)' END), false);
	PERFORM dvmig._run_as(caller, format('COMMENT ON TABLE %s IS %L', name, format(
		CASE kind WHEN 'success' THEN 'dvmig: rows of %s that Dataverse took, with the last verdict' WHEN 'before' THEN 'dvmig: what records of %s held before a run updated them' ELSE 'dvmig: rows of %s that failed, with the last verdict' END, staging)), false);
	FOR o IN SELECT * FROM dvmig._outcome_columns(kind) LOOP
		PERFORM dvmig._run_as(caller, format('COMMENT ON COLUMN %s.%I IS %L', name, o.col, o.about), false);
	END LOOP;
	IF owner <> caller THEN
		PERFORM dvmig._run_as(caller, format('ALTER TABLE %s OWNER TO %s', name, owner::regrole), false);
	END IF;
	IF owner <> migration_owner THEN
		PERFORM dvmig._run_as(caller, format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %s', name, migration_owner::regrole), false);
	END IF;
	RETURN to_regclass(name);
END
$$;
COMMENT ON FUNCTION dvmig._create_outcome(oid, oid, regclass, text[], text, text) IS 'make an outcome table as the caller, or take up a kept one again';

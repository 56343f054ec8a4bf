-- A fresh extract, merged into a staging table by source key.
--
-- Two roles meet here: whoever calls, and the owner of the migration, whose
-- triggers and types the staging table has. The extract is read with the caller's
-- rights, the staging table written with the owner's, after it was checked that
-- the caller could write it himself. So that neither runs code of the other's, a
-- caller who is not the owner can bring columns of the system's types only.

CREATE FUNCTION dvmig._run_as_caller(role oid, command text) RETURNS bigint
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'dv_run_as_caller';
COMMENT ON FUNCTION dvmig._run_as_caller(oid, text) IS
	'run a command with a role''s rights under the search_path of the public call in progress; returns the rows it touched';

-- _delta_columns: columns of the staging table that the source has too, with the
-- condition that they differ. Equal is what is the same byte for byte in text, and
-- equal by its type in all else: 1.0 and 1.00 are one number, A and a are two. A cast
-- to varchar(5) would cut in silence what an INSERT refuses: no length is given.
-- key_sql and inexact_sql are of keys, for whoever reads the extract: without domains,
-- whose checks are their owner's, and whether the cast makes another key of it.
CREATE FUNCTION dvmig._delta_columns(staging regclass, source regclass, source_key text[])
RETURNS TABLE (col text, value_sql text, is_key bool, differs_sql text, key_sql text, inexact_sql text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT c.attname, c.value_sql, c.is_key,
		CASE WHEN c.typcollation <> 0 THEN format('s.%I::text COLLATE "C" IS DISTINCT FROM (%s)::text COLLATE "C"', c.attname, c.value_sql)
			WHEN EXISTS (SELECT FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod WHERE o.opcintype = c.base AND o.opcdefault AND m.amname = 'btree') THEN
				format('s.%I IS DISTINCT FROM %s', c.attname, c.value_sql)
			ELSE format('s.%I::text IS DISTINCT FROM (%s)::text', c.attname, c.value_sql) END,
		CASE WHEN c.is_key THEN c.base_sql END,
		CASE WHEN c.is_key THEN concat_ws(' OR ',
			CASE WHEN c.base_mod >= 0 AND NOT c.has_length THEN format('%s IS DISTINCT FROM x.%I::%s', c.base_sql, c.attname, format_type(c.base, c.base_mod)) END,
			CASE WHEN c.source_category <> 'S' AND EXISTS (SELECT FROM pg_cast k WHERE k.castsource = c.base AND k.casttarget = c.source_base)
				THEN format('(%s)::%s IS DISTINCT FROM x.%I', c.base_sql, format_type(c.source_base, -1), c.attname) END) END
	FROM (SELECT a.attnum, a.attname::text, a.attname = ANY ($3) AS is_key, t.typcollation, b.oid AS base, v.has_length,
			CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END AS base_mod, sb.oid AS source_base, sb.typcategory AS source_category,
			format('x.%I::%s', a.attname, format_type(b.oid, -1)) AS base_sql,
			format('x.%I::%s', a.attname, CASE WHEN v.has_length THEN format_type(b.oid, -1) ELSE format_type(a.atttypid, a.atttypmod) END) AS value_sql
		FROM pg_attribute a JOIN pg_attribute x ON x.attrelid = $2 AND x.attname = a.attname AND x.attnum > 0 AND NOT x.attisdropped
		JOIN pg_type t ON t.oid = a.atttypid JOIN pg_type b ON b.oid = dvmig._base_type(a.atttypid) JOIN pg_type sb ON sb.oid = dvmig._base_type(x.atttypid)
		CROSS JOIN LATERAL (SELECT b.typcategory IN ('S', 'V') AS has_length) v
		WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attidentity <> 'a'
		  AND NOT a.attname = ANY ('{processing_flag,action_flag,dm_created_at,dataverse_id}')) c
	ORDER BY c.attnum
$$;
COMMENT ON FUNCTION dvmig._delta_columns(regclass, regclass, text[]) IS 'columns that a staging table and an extract have in common, and when they differ';

-- _check_delta_rights: what the caller needs who is not the owner himself.
CREATE FUNCTION dvmig._check_delta_rights(caller oid, t dvmig.migration_table, source regclass) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	strange text;
BEGIN
	IF NOT has_table_privilege(caller, t.staging, 'INSERT') OR NOT has_table_privilege(caller, t.staging, 'UPDATE') THEN
		RAISE EXCEPTION 'permission denied for table %', t.staging
			USING ERRCODE = 'insufficient_privilege', HINT = format('GRANT SELECT, INSERT, UPDATE ON %s TO %s.', t.staging, caller::regrole);
	END IF;
	PERFORM dvmig._require_reading(caller, t.staging);
	SELECT string_agg(format('%I (%s)', a.attname, format_type(a.atttypid, a.atttypmod)), ', ') INTO strange
	FROM pg_attribute a WHERE a.attrelid = source AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384;
	IF strange IS NOT NULL THEN
		RAISE EXCEPTION 'the extract has columns of types that are not the system''s: %', strange
			USING ERRCODE = 'feature_not_supported', HINT = 'Cast them in a query, as in SELECT ..., branch::text AS branch FROM ...; the owner of the migration need not.';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._check_delta_rights(oid, dvmig.migration_table, regclass) IS 'whether a caller who is not the owner may merge this extract';

-- _check_delta: every row of the extract has a key of its own.
CREATE FUNCTION dvmig._check_delta(caller oid, t dvmig.migration_table, source regclass) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	keys text;
	inexact text;
	generated text := (SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a
		WHERE a.attrelid = t.staging AND a.attname = ANY (t.source_key) AND (a.attgenerated <> '' OR a.attidentity = 'a'));
	missing text := (SELECT string_agg(k, ', ') FROM unnest(t.source_key) k WHERE NOT EXISTS
		(SELECT FROM pg_attribute a WHERE a.attrelid = source AND a.attname = k AND a.attnum > 0 AND NOT a.attisdropped));
	ignored text := (SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a
		WHERE a.attrelid = source AND a.attnum > 0 AND NOT a.attisdropped
		  AND NOT EXISTS (SELECT FROM dvmig._delta_columns(t.staging, source, t.source_key) d WHERE d.col = a.attname));
	n bigint;
BEGIN
	IF missing IS NOT NULL THEN
		RAISE EXCEPTION 'the extract lacks the source key of %: %', t.staging, missing
			USING ERRCODE = 'undefined_column', HINT = 'Columns of the extract are matched by name: rename them in a query, SELECT id AS ... .';
	END IF;
	IF generated IS NOT NULL THEN
		RAISE EXCEPTION 'an extract cannot fill the source key of %: it is generated always: %', t.staging, generated
			USING ERRCODE = 'feature_not_supported', HINT = 'An identity that is GENERATED BY DEFAULT takes the keys of the source.';
	END IF;
	IF ignored IS NOT NULL THEN
		RAISE NOTICE 'columns of the extract that % does not have are left: %', t.staging, ignored;
	END IF;
	n := dvmig._query_as(caller, format('SELECT count(*) FROM %s x WHERE %s', source,
		(SELECT string_agg(format('x.%I IS NULL', k), ' OR ') FROM unnest(t.source_key) k)), false);
	IF n > 0 THEN
		RAISE EXCEPTION '% no source key', dvmig._count_of(n, 'row of the extract has', 'rows of the extract have') USING ERRCODE = 'not_null_violation';
	END IF;
	SELECT string_agg(d.key_sql, ', '), string_agg(nullif(d.inexact_sql, ''), ' OR ') INTO keys, inexact
	FROM dvmig._delta_columns(t.staging, source, t.source_key) d WHERE d.is_key;
	n := dvmig._query_as(caller, format('SELECT count(*) FROM %s x WHERE %s', source, coalesce(inexact, 'false')), false);
	IF n > 0 THEN
		RAISE EXCEPTION '% of the extract would become another key in %', dvmig._count_of(n, 'source key', 'source keys'), t.staging
			USING ERRCODE = 'data_exception', HINT = format('They are: SELECT * FROM ... x WHERE %s.', inexact);
	END IF;
	n := dvmig._query_as(caller, format('SELECT count(*) FROM (SELECT FROM %s x GROUP BY %s HAVING count(*) > 1) q', source, keys), false);
	IF n > 0 THEN
		RAISE EXCEPTION '% source keys occur more than once in the extract', n
			USING ERRCODE = 'unique_violation',
			HINT = format('They are: SELECT %s FROM ... x GROUP BY %1$s HAVING count(*) > 1.', keys);
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._check_delta(oid, dvmig.migration_table, regclass) IS 'error unless every row of an extract has a source key of its own';

-- _merge_delta: new rows are inserted, those that differ updated, those missing
-- marked for deletion where asked; what is equal is not touched.
CREATE FUNCTION dvmig._merge_delta(writer oid, t dvmig.migration_table, source regclass, deletes bool,
	OUT inserted bigint, OUT updated bigint, OUT deleted bigint, OUT unchanged bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	same text;
	total bigint;
	cols text;
	vals text;
	sets text;
	differs text;
BEGIN
	SELECT string_agg(format('s.%I = %s', d.col, d.value_sql), ' AND ') FILTER (WHERE d.is_key),
		string_agg(quote_ident(d.col), ', '), string_agg(d.value_sql, ', '),
		string_agg(format('%I = %s, ', d.col, d.value_sql), '') FILTER (WHERE NOT d.is_key),
		string_agg(d.differs_sql, ' OR ') FILTER (WHERE NOT d.is_key)
	INTO same, cols, vals, sets, differs
	FROM dvmig._delta_columns(t.staging, source, t.source_key) d;
	total := dvmig._query_as(writer, format('SELECT count(*) FROM %s', source), false);
	IF total = 0 AND deletes THEN
		RAISE EXCEPTION 'the extract is empty: every record of % would be deleted', t.staging
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call it without deletes if there is nothing new.';
	END IF;
	-- A record that was loaded is updated, and never created again; one that waits
	-- for its deletion, or was deleted, is wanted again.
	updated := dvmig._run_as(writer, format(
		'UPDATE %s s SET %sprocessing_flag = ''U'', action_flag = CASE WHEN s.action_flag = ''D'' THEN ''I'''
		' WHEN s.processing_flag IN (''S'', ''P'') THEN ''U'' ELSE s.action_flag END'
		' FROM %s x WHERE %s AND (s.action_flag = ''D'' OR %s)', t.staging, sets, source, same, coalesce(differs, 'false')));
	inserted := dvmig._run_as(writer, format(
		'INSERT INTO %s (%s, action_flag, processing_flag) SELECT %s, ''I'', ''U'' FROM %s x WHERE NOT EXISTS (SELECT FROM %1$s s WHERE %5$s)',
		t.staging, cols, vals, source, same));
	deleted := 0;
	IF deletes THEN
		deleted := dvmig._run_as(writer, format(
			'UPDATE %s s SET processing_flag = ''U'', action_flag = ''D'' WHERE s.action_flag <> ''D'' AND NOT EXISTS (SELECT FROM %s x WHERE %s)',
			t.staging, source, same));
	END IF;
	unchanged := total - inserted - updated;
END
$$;
COMMENT ON FUNCTION dvmig._merge_delta(oid, dvmig.migration_table, regclass, bool) IS 'merge an extract into a staging table by source key';

-- _keep_extract: the extract's rows in a temporary table of the caller's, so that
-- all steps see the same ones, and the owner of the migration can read them. What
-- he reads must be rows and nothing else: functions that the query called could
-- have made it a view, or given it policies, which would run with his rights.
CREATE FUNCTION dvmig._keep_extract(caller oid, owner regrole, query text) RETURNS regclass
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	extract regclass;
BEGIN
	PERFORM dvmig._check_query(query);
	PERFORM dvmig._drop_extract(caller);
	PERFORM dvmig._run_as_caller(caller, format(E'CREATE TEMPORARY TABLE dvmig_extract AS SELECT * FROM (%s\n) q', query));
	PERFORM dvmig._run_as_caller(caller, 'ANALYZE pg_temp.dvmig_extract');
	PERFORM dvmig._run_as_caller(caller, format('GRANT SELECT ON pg_temp.dvmig_extract TO %s', owner));
	extract := to_regclass('pg_temp.dvmig_extract');
	IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = extract AND c.relkind = 'r' AND c.relowner = caller
		AND NOT (c.relrowsecurity OR c.relhasrules OR c.relhastriggers OR c.relhasindex OR c.relhassubclass OR c.relispartition)) THEN
		RAISE EXCEPTION 'the extract was changed while it was read'
			USING ERRCODE = 'object_in_use', HINT = 'A function that the query calls must leave pg_temp.dvmig_extract alone.';
	END IF;
	RETURN extract;
END
$$;
COMMENT ON FUNCTION dvmig._keep_extract(oid, regrole, text) IS 'rows of an extract in a temporary table of the caller''s';

CREATE FUNCTION dvmig._drop_extract(caller oid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF to_regclass('pg_temp.dvmig_extract') IS NOT NULL THEN
		PERFORM dvmig._run_as_caller(caller, 'DROP TABLE pg_temp.dvmig_extract');
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._drop_extract(oid) IS 'drop the temporary table of an extract';

-- _load_extract: merge a table (source) or a query, one of the two.
CREATE FUNCTION dvmig._load_extract(caller oid, staging regclass, source regclass, query text, deletes bool,
	OUT inserted bigint, OUT updated bigint, OUT deleted bigint, OUT unchanged bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table := dvmig._table(caller, staging, 'operator');
	m dvmig.migration;
	r record;
BEGIN
	SELECT g.* INTO m FROM dvmig.migration g WHERE g.migration_id = t.migration_id;
	IF source IS NULL AND query IS NULL THEN
		RAISE EXCEPTION 'the source is missing' USING ERRCODE = 'null_value_not_allowed';
	ELSIF source = staging THEN
		RAISE EXCEPTION 'a staging table cannot be the extract for itself' USING ERRCODE = 'invalid_parameter_value';
	ELSIF NOT dvmig._flags_fit(t.staging) THEN
		RAISE EXCEPTION 'the flag columns of % are no longer of the types that dvmig gave them', t.staging
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Give them their types back.';
	END IF;
	IF query IS NOT NULL OR caller <> m.owner THEN
		source := dvmig._keep_extract(caller, m.owner, coalesce(query, format('SELECT * FROM %s', source)));
	END IF;
	IF caller <> m.owner THEN
		PERFORM dvmig._check_delta_rights(caller, t, source);
	END IF;
	PERFORM dvmig._check_delta(caller, t, source);
	SELECT d.* INTO r FROM dvmig._merge_delta(m.owner, t, source, coalesce(deletes, false)) d;
	PERFORM dvmig._drop_extract(caller);
	inserted := r.inserted; updated := r.updated; deleted := r.deleted; unchanged := r.unchanged;
	-- without the source: a query may quote rows
	PERFORM dvmig._log(caller, m.name, 'load_delta', staging::text,
		jsonb_build_object('inserted', inserted, 'updated', updated, 'deleted', deleted, 'unchanged', unchanged));
END
$$;
COMMENT ON FUNCTION dvmig._load_extract(oid, regclass, regclass, text, bool) IS 'merge a table or a query into a staging table: see dvmig.load_delta()';

CREATE FUNCTION dvmig._load_delta(caller oid, staging regclass, source regclass, deletes bool,
	OUT inserted bigint, OUT updated bigint, OUT deleted bigint, OUT unchanged bigint)
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT * FROM dvmig._load_extract($1, $2, $3, NULL, $4) $$;
COMMENT ON FUNCTION dvmig._load_delta(oid, regclass, regclass, bool) IS 'merge an extract into a staging table: see dvmig.load_delta()';

CREATE FUNCTION dvmig.load_delta(staging regclass, source regclass, deletes bool DEFAULT false,
	OUT inserted bigint, OUT updated bigint, OUT deleted bigint, OUT unchanged bigint)
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.load_delta(regclass, regclass, bool) IS
	'merge a fresh extract into a staging table by source key: new rows get action I, changed ones U, missing ones D if deletes; equal rows are not touched. The extract is read with the rights of who calls, who must be able to write the staging table';

-- _load_delta: the source by its name as the caller sees it, or as a query.
CREATE FUNCTION dvmig._load_delta(caller oid, staging regclass, source text, deletes bool,
	OUT inserted bigint, OUT updated bigint, OUT deleted bigint, OUT unchanged bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	is_query bool := source ~* '^\s*(select|with|values|table)\M' OR source ~ '^\s*\(';
	rel regclass;
	r record;
BEGIN
	IF source IS NOT NULL AND NOT is_query THEN
		rel := dvmig._caller_regclass(caller, source);
		-- several words that are not quoted are no name
		IF rel IS NULL AND source ~ '\S\s+\S' AND source !~ '"' THEN
			RAISE EXCEPTION 'the source is neither the name of a relation nor a query'
				USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the name of a table or view, or a query that begins with SELECT, WITH, VALUES or TABLE.';
		ELSIF rel IS NULL THEN
			RAISE EXCEPTION 'relation "%" does not exist', source
				USING ERRCODE = 'undefined_table', HINT = 'Give the name of a table or view, or a query that begins with SELECT.';
		END IF;
	END IF;
	SELECT d.* INTO r FROM dvmig._load_extract(caller, staging, rel, CASE WHEN is_query THEN source END, deletes) d;
	inserted := r.inserted; updated := r.updated; deleted := r.deleted; unchanged := r.unchanged;
END
$$;
COMMENT ON FUNCTION dvmig._load_delta(oid, regclass, text, bool) IS 'merge a table or query into a staging table: see dvmig.load_delta()';

CREATE FUNCTION dvmig.load_delta(staging regclass, source text, deletes bool DEFAULT false,
	OUT inserted bigint, OUT updated bigint, OUT deleted bigint, OUT unchanged bigint)
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.load_delta(regclass, text, bool) IS
	'the same with the extract by its name or as a query (SELECT ..., matched by column names)';

-- Making a table a staging table: what it must be, its key, its flag columns,
-- its outcome tables. DDL runs as the caller.

CREATE FUNCTION dvmig._check_relation(caller oid, migration_owner oid, staging regclass) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	c pg_class;
	hint text;
	problem text;
BEGIN
	SELECT r.* INTO c FROM pg_class r WHERE r.oid = staging;
	problem := CASE
		WHEN c.relkind NOT IN ('r', 'p') THEN CASE c.relkind WHEN 'v' THEN 'is a view' WHEN 'm' THEN 'is a materialized view'
			WHEN 'f' THEN 'is a foreign table' ELSE 'is not a table' END
		WHEN c.relpersistence = 't' THEN 'is a temporary table'
		WHEN c.relpersistence = 'u' THEN 'is an unlogged table'
		WHEN c.relispartition THEN 'is a partition'
		WHEN c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid) THEN 'has child tables by inheritance'
		WHEN c.relnamespace::regnamespace::text IN ('pg_catalog', 'information_schema', 'dvmig') THEN 'is a system table'
	END;
	hint := CASE
		WHEN c.relkind IN ('v', 'm', 'f') THEN 'Copy its rows into an ordinary table, so that flags and outcomes can be kept with them.'
		WHEN c.relpersistence = 't' THEN 'Background workers do not see temporary tables. Use an ordinary table.'
		WHEN c.relpersistence = 'u' THEN format('A crash would empty it, and with it the flags. Make it permanent: ALTER TABLE %s SET LOGGED.', staging)
		WHEN c.relispartition THEN 'Give the partitioned table it belongs to.'
		ELSE 'Use an ordinary or a partitioned table.' END;
	IF problem IS NOT NULL THEN
		RAISE EXCEPTION '% % and cannot be a staging table', staging, problem
			USING ERRCODE = 'wrong_object_type', HINT = hint;
	END IF;
	IF NOT pg_has_role(caller, c.relowner, 'USAGE') THEN
		RAISE EXCEPTION 'must be owner of table %', staging
			USING ERRCODE = 'insufficient_privilege', HINT = 'dvmig adds columns to a staging table in its owner''s name.';
	END IF;
	IF NOT (has_table_privilege(migration_owner, staging, 'SELECT') AND has_table_privilege(migration_owner, staging, 'UPDATE')
		AND has_schema_privilege(migration_owner, c.relnamespace, 'USAGE')) THEN
		RAISE EXCEPTION 'role "%", which owns the migration, may not read and flag the rows of %', migration_owner::regrole, staging
			USING ERRCODE = 'insufficient_privilege',
			HINT = format('Grant it with GRANT USAGE ON SCHEMA %1$s TO %2$s and GRANT SELECT, UPDATE ON %3$s TO %2$s.',
				c.relnamespace::regnamespace, migration_owner::regrole, staging);
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._check_relation(oid, oid, regclass) IS 'error unless the table can be a staging table of that migration';

-- _column_name: a column of the table as the user wrote it: exactly, quoted or folded.
CREATE FUNCTION dvmig._column_name(staging regclass, written text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	w text := btrim(written);
	found_name text;
BEGIN
	IF w LIKE '"%"' THEN
		w := replace(substr(w, 2, length(w) - 2), '""', '"');
	END IF;
	SELECT a.attname INTO found_name FROM pg_attribute a
	WHERE a.attrelid = staging AND a.attnum > 0 AND NOT a.attisdropped AND a.attname IN (w, lower(w))
	ORDER BY a.attname = w DESC LIMIT 1;
	IF found_name IS NULL THEN
		RAISE EXCEPTION 'column "%" of staging table % does not exist', w, staging
			USING ERRCODE = 'undefined_column',
			HINT = coalesce('Did you mean ' || dvmig._near(w, ARRAY(SELECT a.attname::text FROM pg_attribute a
				WHERE a.attrelid = staging AND a.attnum > 0 AND NOT a.attisdropped)) || '?', 'Separate the columns of a composite key by commas.');
	END IF;
	RETURN found_name;
END
$$;
COMMENT ON FUNCTION dvmig._column_name(regclass, text) IS 'name of a staging column as the user wrote it: exactly, quoted or folded to lower case';

-- _source_key: the columns of the source key, from 'a, b' or the primary key.
CREATE FUNCTION dvmig._source_key(staging regclass, written text) RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	key text[];
BEGIN
	IF written IS NULL THEN
		SELECT array_agg(a.attname::text ORDER BY k.i) INTO key
		FROM pg_index x, unnest(x.indkey::int2[]) WITH ORDINALITY k(attnum, i)
		JOIN pg_attribute a ON a.attnum = k.attnum
		WHERE x.indrelid = staging AND x.indisprimary AND a.attrelid = staging AND k.i <= x.indnkeyatts;
		IF key IS NULL THEN
			RAISE EXCEPTION 'table % has no primary key', staging
				USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Name the unique column or columns that identify a row in the source: source_key => ''customer_id''.';
		END IF;
	ELSIF EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = staging AND a.attnum > 0 AND a.attname = written AND NOT a.attisdropped) THEN
		key := ARRAY[written];
	ELSE
		-- commas within double quotes belong to the name
		SELECT array_agg(dvmig._column_name(staging, u.w[1]) ORDER BY i) INTO key
		FROM regexp_matches(btrim(written, '{}'), '((?:"(?:[^"]|"")*"|[^",])+)', 'g') WITH ORDINALITY u(w, i);
		IF key IS NULL THEN
			RAISE EXCEPTION 'the source key names no column' USING ERRCODE = 'invalid_parameter_value';
		END IF;
	END IF;
	IF (SELECT count(DISTINCT k) FROM unnest(key) k) < cardinality(key) THEN
		RAISE EXCEPTION 'a column appears twice in the source key' USING ERRCODE = 'duplicate_column';
	END IF;
	RETURN key;
END
$$;
COMMENT ON FUNCTION dvmig._source_key(regclass, text) IS 'columns of the source key, from a comma-separated list or the primary key';

-- _check_key: types that ids can be derived from, names that outcome tables leave free.
CREATE FUNCTION dvmig._check_key(staging regclass, key text[]) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	reserved text[] := '{processing_flag,action_flag,dm_created_at}'::text[]
		|| ARRAY(SELECT c.col FROM unnest('{success,error}'::text[]) kind, dvmig._outcome_columns(kind) c);
	k record;
BEGIN
	FOR k IN
		SELECT a.attname, a.atttypid::regtype AS type, c.collisdeterministic, r.accepted, r.cast_hint
		FROM unnest(key) n
		JOIN pg_attribute a ON a.attrelid = staging AND a.attname = n
		LEFT JOIN pg_collation c ON c.oid = a.attcollation,
		LATERAL dvmig._record_id_accepts(dvmig._base_type(a.atttypid)) r
	LOOP
		-- the statements that record name their arrays so
		IF k.attname = ANY (reserved) OR starts_with(k.attname::text, 'dvmig ') THEN
			RAISE EXCEPTION 'source key column "%" bears a name that the outcome tables use themselves', k.attname
				USING ERRCODE = 'reserved_name',
				HINT = format('Rename it: ALTER TABLE %s RENAME COLUMN %I TO %I.', staging, k.attname, left('source_' || k.attname, 60));
		END IF;
		IF NOT k.accepted THEN
			RAISE EXCEPTION 'source key column "%" is of type %, from which no id can be derived', k.attname, k.type
				USING ERRCODE = 'datatype_mismatch',
				HINT = CASE WHEN k.cast_hint IS NULL THEN 'Use a column of type smallint, integer, bigint, numeric, text, varchar, char, uuid, date, timestamp or timestamptz.'
					ELSE format('Add a column that holds the key as %1$s: ALTER TABLE %2$s ADD COLUMN %3$I %1$s.', ltrim(k.cast_hint, ':'), staging, left(k.attname || '_key', 60)) END;
		END IF;
		IF NOT k.collisdeterministic THEN
			RAISE EXCEPTION 'source key column "%" has a nondeterministic collation', k.attname
				USING ERRCODE = 'datatype_mismatch',
				HINT = 'Keys that compare equal but are written differently would have different ids. Use a column with a deterministic collation.';
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._check_key(regclass, text[]) IS 'error unless ids can be derived from the source key';

-- _refuse_null_keys: ids are derived from the key, and a null has none.
CREATE FUNCTION dvmig._refuse_null_keys(caller oid, staging regclass, key text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	k text;
	n bigint;
BEGIN
	FOREACH k IN ARRAY key LOOP
		CONTINUE WHEN (SELECT a.attnotnull FROM pg_attribute a WHERE a.attrelid = staging AND a.attname = k);
		n := dvmig._query_as(caller, format('SELECT count(*) FROM %s s WHERE s.%I IS NULL', staging, k));
		IF n > 0 THEN
			RAISE EXCEPTION 'source key column "%" is null in % of %', k, dvmig._count_of(n, 'row', 'rows'), staging
				USING ERRCODE = 'not_null_violation',
				HINT = format('Correct or delete them: SELECT * FROM %s WHERE %I IS NULL.', staging, k);
		END IF;
		PERFORM dvmig._run_as(caller, format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', staging, k), false);
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._refuse_null_keys(oid, regclass, text[]) IS 'make the source key not null, or say how many rows forbid it';

CREATE FUNCTION dvmig._is_unique(staging regclass, key text[]) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT EXISTS (SELECT FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am am ON am.oid = i.relam
		WHERE x.indrelid = $1 AND x.indisunique AND x.indisvalid AND x.indpred IS NULL AND x.indexprs IS NULL AND am.amname = 'btree'
		  AND $2 = ARRAY(SELECT a.attname::text FROM unnest(x.indkey::int2[]) WITH ORDINALITY k(attnum, i)
			JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = k.attnum WHERE k.i <= x.indnkeyatts ORDER BY k.i))
$$;
COMMENT ON FUNCTION dvmig._is_unique(regclass, text[]) IS 'whether a unique index guards these columns, in this order';

-- _ensure_unique: use the key's unique index or make it; true where it was made.
CREATE FUNCTION dvmig._ensure_unique(caller oid, staging regclass, key text[]) RETURNS bool
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	cols text := (SELECT string_agg(format('%I', k), ', ' ORDER BY i) FROM unnest(key) WITH ORDINALITY u(k, i));
	dup jsonb;
BEGIN
	IF dvmig._is_unique(staging, key) THEN
		RETURN false;
	END IF;
	BEGIN
		PERFORM dvmig._run_as(caller, format('CREATE UNIQUE INDEX ON %s (%s)', staging, cols), false);
	EXCEPTION WHEN unique_violation THEN
		dup := dvmig._query_as(caller, format(
			'SELECT jsonb_build_object(''keys'', count(*), ''rows'', sum(n), ''sample'', '
			'(array_agg(k ORDER BY n DESC, k))[1:3]) FROM (SELECT concat_ws('', '', %s) AS k, count(*) AS n FROM %s GROUP BY %s HAVING count(*) > 1) d',
			cols, staging, cols));
	END;
	IF dup IS NOT NULL THEN
		RAISE EXCEPTION 'source key (%) of % is not unique: keys found more than once: %, on rows: %', cols, staging, dup ->> 'keys', dup ->> 'rows'
			USING ERRCODE = 'unique_violation',
			DETAIL = 'For instance: ' || (SELECT string_agg(s, ' | ') FROM jsonb_array_elements_text(dup -> 'sample') s) || '.',
			HINT = 'Name more columns in source_key, or take the double rows out of the staging table.';
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION dvmig._ensure_unique(oid, regclass, text[]) IS 'use or make the unique index of the source key, or say which keys are double';

-- _flag_column: DDL that adds a flag column, or makes an existing one fit; null where nothing is missing.
CREATE FUNCTION dvmig._flag_column(caller oid, staging regclass, flag text, letters text[]) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	a pg_attribute;
	list text := (SELECT string_agg(quote_literal(l), ', ' ORDER BY i) FROM unnest(letters) WITH ORDINALITY u(l, i));
	bad bigint;
	parts text[] := '{}';
	con text := 'dvmig_' || flag;
BEGIN
	SELECT t.* INTO a FROM pg_attribute t WHERE t.attrelid = staging AND t.attname = flag AND NOT t.attisdropped;
	IF a.attname IS NULL THEN
		RETURN format('ADD COLUMN %1$I char(1) NOT NULL DEFAULT %2$L CONSTRAINT %3$I CHECK (%1$I IN (%4$s))', flag, letters[1], con, list);
	END IF;
	IF a.attgenerated <> '' OR NOT (a.atttypid IN ('text'::regtype, 'varchar'::regtype, '"char"'::regtype)
		OR a.atttypid = 'bpchar'::regtype AND a.atttypmod IN (-1, 5)) THEN
		RAISE EXCEPTION 'column "%" of % is of type % and cannot serve as a flag', flag, staging, format_type(a.atttypid, a.atttypmod)
			USING ERRCODE = 'datatype_mismatch', HINT = 'It must be char(1), varchar, text or "char". Rename the column, and dvmig adds its own.';
	END IF;
	bad := dvmig._query_as(caller, format('SELECT count(*) FROM %s s WHERE (s.%I::text IN (%s)) IS NOT TRUE', staging, flag, list));
	IF bad > 0 THEN
		RAISE EXCEPTION 'column "%" of % holds something else than % in %', flag, staging, array_to_string(letters, ', '), dvmig._count_of(bad, 'row', 'rows')
			USING ERRCODE = 'check_violation',
			HINT = format('Correct them, for example with UPDATE %1$s SET %2$I = %3$L WHERE (%2$I::text IN (%4$s)) IS NOT TRUE.', staging, flag, letters[1], list);
	END IF;
	IF NOT a.attnotnull THEN
		parts := parts || format('ALTER COLUMN %I SET NOT NULL', flag);
	END IF;
	IF NOT a.atthasdef THEN
		parts := parts || format('ALTER COLUMN %I SET DEFAULT %L', flag, letters[1]);
	END IF;
	IF NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = staging AND c.conname = con) THEN
		parts := parts || format('ADD CONSTRAINT %I CHECK (%I IN (%s))', con, flag, list);
	END IF;
	RETURN nullif(array_to_string(parts, ', '), '');
END
$$;
COMMENT ON FUNCTION dvmig._flag_column(oid, regclass, text, text[]) IS 'DDL that adds a flag column or makes an existing one fit';

-- _flags_fit: whether the flag columns are of a type that dvmig adds or accepts.
CREATE FUNCTION dvmig._flags_fit(staging regclass) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT count(*) = 2 AND EXISTS (SELECT FROM pg_class c WHERE c.oid = $1 AND c.relkind IN ('r', 'p'))
	FROM pg_attribute a
	WHERE a.attrelid = $1 AND a.attname IN ('processing_flag', 'action_flag') AND a.attgenerated = ''
	  AND a.atttypid IN ('bpchar'::regtype, 'text'::regtype, 'varchar'::regtype, '"char"'::regtype)
$$;
COMMENT ON FUNCTION dvmig._flags_fit(regclass) IS 'whether a staging table has its flag columns';

-- _check_filtered: whether a filter of the caller's may be evaluated over a table
-- with his rights: he may read the rows, and nothing of the table's owner runs
-- with them: not the casts of a type that he has given to a column of ours.
CREATE FUNCTION dvmig._check_filtered(caller oid, t dvmig.migration_table) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM dvmig._require_reading(caller, t.staging);
	PERFORM dvmig._check_key(t.staging, t.source_key);
	IF NOT dvmig._flags_fit(t.staging) THEN
		RAISE EXCEPTION 'the flag columns of % are no longer of the types that dvmig gave them', t.staging
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Leave the filter out, or give them their types back.';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._check_filtered(oid, dvmig.migration_table) IS 'error unless a filter of the caller''s may be evaluated over a staging table with his rights';

-- _add_columns: the columns dvmig needs, in one ALTER TABLE. Their defaults are
-- constants for the table, so that even a large one is not rewritten.
CREATE FUNCTION dvmig._add_columns(caller oid, staging regclass) RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	parts text[];
	wanted record;
	have pg_attribute;
BEGIN
	parts := ARRAY[dvmig._flag_column(caller, staging, 'processing_flag', '{U,S,P,E}'),
		dvmig._flag_column(caller, staging, 'action_flag', '{I,U,D}')];
	FOR wanted IN SELECT * FROM (VALUES ('dm_created_at', 'timestamptz'::regtype, ' NOT NULL DEFAULT now()'),
		('dataverse_id', 'uuid'::regtype, '')) w(col, type, rest)
	LOOP
		SELECT t.* INTO have FROM pg_attribute t WHERE t.attrelid = staging AND t.attname = wanted.col AND NOT t.attisdropped;
		IF have.attname IS NULL THEN
			parts := parts || format('ADD COLUMN %I %s%s', wanted.col, wanted.type, wanted.rest);
		ELSIF have.attgenerated <> '' THEN
			RAISE EXCEPTION 'column "%" of % is generated', wanted.col, staging
				USING ERRCODE = 'wrong_object_type', DETAIL = 'dvmig writes it.', HINT = 'Rename the column, and dvmig adds its own.';
		ELSIF have.atttypid <> wanted.type THEN
			RAISE EXCEPTION 'column "%" of % is of type % instead of %', wanted.col, staging, format_type(have.atttypid, have.atttypmod), wanted.type
				USING ERRCODE = 'datatype_mismatch', HINT = 'Rename the column, and dvmig adds its own.';
		ELSIF wanted.col = 'dm_created_at' AND NOT have.atthasdef THEN
			parts := parts || format('ALTER COLUMN %I SET DEFAULT now()', wanted.col);
		END IF;
	END LOOP;
	parts := array_remove(parts, NULL);
	IF cardinality(parts) > 0 THEN
		PERFORM dvmig._run_as(caller, format('ALTER TABLE %s %s', staging, array_to_string(parts, ', ')), false);
	END IF;
	RETURN ARRAY(SELECT substring(p FROM '^ADD COLUMN (\w+)') FROM unnest(parts) p WHERE p LIKE 'ADD COLUMN%');
END
$$;
COMMENT ON FUNCTION dvmig._add_columns(oid, regclass) IS 'add the flag, time and id columns that a staging table lacks; returns those added';

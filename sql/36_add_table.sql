-- add_table: register a staging table with a migration.

-- _check_table_options: what can be checked of the arguments alone.
CREATE FUNCTION dvmig._check_table_options(staging regclass, ids text, id_column text, on_exists text, filter text, filter_reason text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m text;
BEGIN
	SELECT g.name INTO m FROM dvmig.migration_table t JOIN dvmig.migration g USING (migration_id)
	WHERE t.staging = _check_table_options.staging;
	IF m IS NOT NULL THEN
		RAISE EXCEPTION 'table % belongs to migration "%" already', staging, m
			USING ERRCODE = 'duplicate_object',
			HINT = 'A staging table belongs to one migration. To load one source into two tables, use two staging tables.';
	ELSIF ids IS NULL OR ids NOT IN ('derived', 'column', 'platform') THEN
		RAISE EXCEPTION 'ids must be derived, column or platform, not "%"', ids USING ERRCODE = 'invalid_parameter_value';
	ELSIF on_exists IS NULL OR on_exists NOT IN ('update', 'keep', 'error') THEN
		RAISE EXCEPTION 'on_exists must be update, keep or error, not "%"', on_exists USING ERRCODE = 'invalid_parameter_value';
	ELSIF (ids = 'column') <> (id_column IS NOT NULL) THEN
		RAISE EXCEPTION 'ids => ''column'' and id_column go together'
			USING ERRCODE = 'invalid_parameter_value',
			HINT = 'ids => ''column'', id_column => ''...'' takes each record''s id from a uuid column of the staging table.';
	ELSIF filter_reason IS NOT NULL AND filter IS NULL THEN
		RAISE EXCEPTION 'filter_reason is given without filter' USING ERRCODE = 'invalid_parameter_value';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._check_table_options(regclass, text, text, text, text, text) IS 'error for arguments of dvmig.add_table() that contradict each other';

-- _check_target: standard tables only; platform-made ids need an alternate key.
CREATE FUNCTION dvmig._check_target(tt dvmig.metadata_table, ids text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF lower(tt.table_type) <> 'standard' THEN
		RAISE EXCEPTION 'Dataverse table "%" is of type %', tt.table_name, lower(tt.table_type)
			USING ERRCODE = 'feature_not_supported',
			HINT = 'dvmig loads standard tables: only they take a batch as a whole or not at all, on which its account of every row rests.';
	ELSIF ids = 'platform' AND NOT EXISTS (SELECT FROM dvmig.metadata_key k
		WHERE k.server = tt.server AND k.table_name = tt.table_name AND k.index_status = 'Active') THEN
		RAISE EXCEPTION 'Dataverse table "%" has no active alternate key', tt.table_name
			USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = format('With ids => ''platform'' a repeated create is recognised by an alternate key alone. Define one and call dvmig.refresh_metadata(%L, %L), or leave ids at ''derived''.',
				tt.server, ARRAY[tt.table_name]);
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._check_target(dvmig.metadata_table, text) IS 'error for Dataverse tables that cannot be loaded';

-- _check_namespace: two sources that share it would share ids.
CREATE FUNCTION dvmig._check_namespace(namespace uuid, target text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	other regclass;
BEGIN
	SELECT t.staging INTO other FROM dvmig.migration_table t
	WHERE t.namespace = _check_namespace.namespace AND t.target = _check_namespace.target LIMIT 1;
	IF other IS NOT NULL THEN
		RAISE EXCEPTION 'namespace % is that of % already', namespace, other
			USING ERRCODE = 'duplicate_object',
			HINT = 'Rows of two staging tables with equal keys would become one record. Leave namespace out.';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._check_namespace(uuid, text) IS 'error where another staging table derives the same ids for the same Dataverse table';

-- _compile_filter: the filter of a staging table; rows for which it is not true are left out.
CREATE FUNCTION dvmig._compile_filter(migration_owner oid, staging regclass, filter text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	e record;
BEGIN
	IF filter IS NULL THEN
		RETURN NULL;
	END IF;
	e := dvmig._compile_expression(migration_owner, staging, filter);
	IF dvmig._base_type(e.result_type) <> 'boolean'::regtype THEN
		RAISE EXCEPTION 'the filter is of type %, not boolean', e.result_type
			USING ERRCODE = 'datatype_mismatch', HINT = 'Rows for which the filter is true are migrated, the others are left out.';
	ELSIF e.is_volatile THEN
		RAISE EXCEPTION 'the filter is volatile'
			USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Whether a row is left out must not change from one reading to the next.';
	END IF;
	RETURN e.expression_sql;
END
$$;
COMMENT ON FUNCTION dvmig._compile_filter(oid, regclass, text) IS 'SQL of a staging table''s filter';

-- _map_target_key: the Dataverse column that carries the source key.
CREATE FUNCTION dvmig._map_target_key(caller oid, t dvmig.migration_table, server name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	c dvmig.metadata_column;
	type regtype;
	expression text;
	accepted bool;
	hint text;
BEGIN
	IF t.target_key IS NULL THEN
		RETURN;
	ELSIF cardinality(t.source_key) > 1 THEN
		RAISE EXCEPTION 'target_key needs a source key of one column'
			USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Map the columns of a composite key, or an expression over them, with dvmig.map_column().';
	END IF;
	c := dvmig._target_column(server, t.target, t.target_key);
	SELECT a.atttypid::regtype INTO type FROM pg_attribute a WHERE a.attrelid = t.staging AND a.attname = t.source_key[1];
	expression := quote_ident(t.source_key[1]);
	SELECT p.accepted, p.hint INTO accepted, hint
	FROM dvmig._payload_accepts(dvmig._base_type(type), c.column_type, c.date_behavior) p(accepted, hint);
	IF accepted IS NOT TRUE AND hint = '::text' THEN
		expression := expression || '::text';		-- a number in a text column
	END IF;
	PERFORM dvmig._map_column(caller, t.staging, t.target_key, expression, NULL, NULL, NULL, NULL, NULL, NULL);
END
$$;
COMMENT ON FUNCTION dvmig._map_target_key(oid, dvmig.migration_table, name) IS 'map the Dataverse column that carries the source key';

-- _unmapped: staging columns that go nowhere, of those that hold data.
CREATE FUNCTION dvmig._unmapped(staging regclass) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT array_agg(a.attname::text ORDER BY a.attnum)
	FROM pg_attribute a JOIN dvmig.migration_table t ON t.staging = a.attrelid
	WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
	  AND a.attname NOT IN ('processing_flag', 'action_flag', 'dm_created_at', 'dataverse_id')
	  AND NOT a.attname = ANY (t.source_key) AND a.attname IS DISTINCT FROM t.id_column
	  AND NOT EXISTS (SELECT FROM dvmig.column_map c, unnest(c.expression_sql) e
		WHERE c.staging = $1 AND dvmig._uses_column(e, a.attname))
$$;
COMMENT ON FUNCTION dvmig._unmapped(regclass) IS 'staging columns that no column map uses';

-- _register: store the registration, and keep its namespace for later ones.
CREATE FUNCTION dvmig._register(t dvmig.migration_table) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO dvmig.migration_table (staging, migration_id, target, source_key, target_key, namespace, ids, id_column,
		filter, filter_sql, filter_reason, on_exists, success_table, error_table, auto_map)
	VALUES (t.staging, t.migration_id, t.target, t.source_key, t.target_key, t.namespace, t.ids, t.id_column,
		t.filter, t.filter_sql, t.filter_reason, t.on_exists, t.success_table, t.error_table, t.auto_map);
	INSERT INTO dvmig.kept_namespace VALUES (t.staging::text, t.target, t.namespace)
	ON CONFLICT ON CONSTRAINT kept_namespace_pkey DO UPDATE SET namespace = excluded.namespace
$$;
COMMENT ON FUNCTION dvmig._register(dvmig.migration_table) IS 'store the registration of a staging table';

-- _new_table: the registration as far as it follows from the arguments, checked.
CREATE FUNCTION dvmig._new_table(m dvmig.migration, tt dvmig.metadata_table, staging regclass, source_key text,
	target_key text, ids text, id_column text, namespace uuid) RETURNS dvmig.migration_table
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table;
BEGIN
	t.staging := staging;
	t.migration_id := m.migration_id;
	t.target := tt.table_name;
	t.source_key := dvmig._source_key(staging, source_key);
	t.target_key := lower(btrim(target_key));
	t.ids := ids;
	t.namespace := coalesce(namespace, (SELECT k.namespace FROM dvmig.kept_namespace k
		WHERE k.staging = _new_table.staging::text AND k.target = t.target), gen_random_uuid());
	PERFORM dvmig._check_key(staging, t.source_key);
	PERFORM dvmig._check_namespace(t.namespace, t.target);
	IF id_column IS NOT NULL THEN
		t.id_column := dvmig._column_name(staging, id_column);
		IF (SELECT dvmig._base_type(a.atttypid) <> 'uuid'::regtype FROM pg_attribute a WHERE a.attrelid = staging AND a.attname = t.id_column) THEN
			RAISE EXCEPTION 'id_column "%" is not of type uuid', t.id_column USING ERRCODE = 'datatype_mismatch';
		END IF;
	END IF;
	RETURN t;
END
$$;
COMMENT ON FUNCTION dvmig._new_table(dvmig.migration, dvmig.metadata_table, regclass, text, text, text, text, uuid) IS 'registration of a staging table from the arguments of dvmig.add_table(), checked';

-- _flag_index_columns: the flag, the key, and with them the columns that the
-- filter looks at, as far as their values are short: what is counted, and what is
-- still to be done, is then found in the index alone. Null where a column is of
-- no bounded length: an index entry that grew too long would refuse the row.
CREATE FUNCTION dvmig._flag_index_columns(staging regclass, key text[], filter_sql text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH used AS (
		SELECT a.attname, a.attnum, a.attlen > 0 OR a.atttypid = 'numeric'::regtype
			OR a.atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND a.atttypmod BETWEEN 5 AND 104 AS is_short
		FROM pg_attribute a
		WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND NOT a.attname = ANY ($2) AND a.attname <> 'processing_flag'
		  AND dvmig._uses_column($3, a.attname)
	)
	SELECT format('(processing_flag, %s)%s', (SELECT string_agg(format('%I', k), ', ' ORDER BY i) FROM unnest($2) WITH ORDINALITY u(k, i)),
		' INCLUDE (' || (SELECT string_agg(format('%I', u.attname), ', ' ORDER BY u.attnum) FROM used u
			HAVING bool_and(u.is_short) AND count(*) + cardinality($2) < 31) || ')')
$$;
COMMENT ON FUNCTION dvmig._flag_index_columns(regclass, text[], text) IS 'columns of the index on a staging table''s flags, as CREATE INDEX has them';

-- _has_flag_index: an index that begins with the flag and then has the key.
CREATE FUNCTION dvmig._has_flag_index(staging regclass, key text[]) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = $1 AND x.indisvalid AND x.indpred IS NULL AND x.indexprs IS NULL
		AND (SELECT array_agg(a.attname::text ORDER BY k.i) FROM unnest(x.indkey::int2[]) WITH ORDINALITY k(attnum, i)
			JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = k.attnum WHERE k.i <= cardinality($2) + 1) = 'processing_flag'::text || $2)
$$;
COMMENT ON FUNCTION dvmig._has_flag_index(regclass, text[]) IS 'whether a staging table has the index on its flags';

-- _make_flag_index: what is still to be done, and how much of what, is found
-- without walking the table.
CREATE FUNCTION dvmig._make_flag_index(caller oid, staging regclass, key text[], filter_sql text) RETURNS bool
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF dvmig._has_flag_index(staging, key) OR cardinality(key) > 31 THEN
		RETURN false;
	END IF;
	PERFORM dvmig._run_as(caller, format('CREATE INDEX ON %s %s', staging, dvmig._flag_index_columns(staging, key, filter_sql)), false);
	RETURN true;
END
$$;
COMMENT ON FUNCTION dvmig._make_flag_index(oid, regclass, text[], text) IS 'index a staging table''s rows by flag and source key';

-- _is_large: more than 8 MB (1,000 pages), which take less than a second to read.
CREATE FUNCTION dvmig._is_large(staging regclass) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT sum(pg_relation_size(r.oid)) > 8 * 1024 * 1024 FROM (SELECT $1::oid AS oid UNION SELECT p.relid::oid FROM pg_partition_tree($1) p) r
$$;
COMMENT ON FUNCTION dvmig._is_large(regclass) IS 'whether a staging table, with its partitions, is too large to be read whenever somebody looks';

-- _storage_advice: for tables of some size, what makes setting or finding flags
-- cheaper.
CREATE FUNCTION dvmig._storage_advice(staging regclass, key text[], flag_index bool, filter_sql text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	c pg_class := (SELECT r FROM pg_class r WHERE r.oid = staging);
	advice text[] := '{}';
BEGIN
	IF NOT dvmig._is_large(staging) THEN
		RETURN NULL;
	END IF;
	IF c.relkind = 'r' AND NOT flag_index AND coalesce(array_to_string(c.reloptions, ',') !~ 'fillfactor', true) THEN
		advice := advice || format('before a mass load, ALTER TABLE %s SET (fillfactor = 80) and VACUUM FULL %1$s let all flags be set within their pages', staging);
	END IF;
	IF NOT flag_index THEN
		advice := advice || format('without an index on flags dvmig.status tells estimates: once it is loaded, CREATE INDEX%s ON %s %s',
			CASE WHEN c.relkind = 'p' THEN '' ELSE ' CONCURRENTLY' END, staging, dvmig._flag_index_columns(staging, key, filter_sql));
	END IF;
	RETURN 'advice: ' || nullif(array_to_string(advice, '; '), '');
END
$$;
COMMENT ON FUNCTION dvmig._storage_advice(regclass, text[], bool, text) IS 'what would make flags of a large staging table cheaper to set or to find; null where nothing would';

CREATE FUNCTION dvmig._add_table(caller oid, migration text, staging regclass, target text, source_key text, filter text,
	filter_reason text, target_key text, ids text, id_column text, namespace uuid, on_exists text,
	success_table text, error_table text, auto_map bool, flag_index bool, caller_expression text, caller_object_id text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'owner');
	t dvmig.migration_table;
	tt dvmig.metadata_table;
	added text[];
	made_index bool;
	mapped text[];
BEGIN
	IF staging IS NULL OR coalesce(btrim(target), '') = '' THEN
		RAISE EXCEPTION 'the staging table or the target table is missing' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	PERFORM dvmig._forget_dropped(caller, m);
	PERFORM dvmig._check_relation(caller, m.owner, staging);
	PERFORM dvmig._check_table_options(staging, ids, id_column, on_exists, filter, filter_reason);
	tt := dvmig._target_table(caller, m.server, lower(btrim(target)));
	PERFORM dvmig._check_target(tt, ids);

	t := dvmig._new_table(m, tt, staging, source_key, target_key, ids, id_column, namespace);
	t.on_exists := on_exists;
	t.filter := filter;
	t.filter_reason := filter_reason;
	t.auto_map := coalesce(auto_map, true);
	t.filter_sql := dvmig._compile_filter(m.owner, staging, filter);

	-- From here on the table changes: under its lock, so that what is checked stays true.
	PERFORM dvmig._run_as(caller, format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', staging), false);
	PERFORM dvmig._check_table_options(staging, ids, id_column, on_exists, filter, filter_reason);
	PERFORM dvmig._check_relation(caller, m.owner, staging);
	PERFORM dvmig._check_key(staging, t.source_key);
	PERFORM dvmig._refuse_null_keys(caller, staging, t.source_key);
	made_index := dvmig._ensure_unique(caller, staging, t.source_key);
	added := dvmig._add_columns(caller, staging);
	flag_index := flag_index AND dvmig._make_flag_index(caller, staging, t.source_key, t.filter_sql);
	t.success_table := dvmig._create_outcome(caller, m.owner, staging, t.source_key, 'success', success_table);
	t.error_table := dvmig._create_outcome(caller, m.owner, staging, t.source_key, 'error', error_table);

	PERFORM dvmig._register(t);
	UPDATE dvmig.migration_table mt SET caller_id = caller_expression, caller_object_id = _add_table.caller_object_id
	WHERE mt.staging = t.staging AND coalesce(caller_expression, _add_table.caller_object_id) IS NOT NULL;
	PERFORM dvmig._adjust_caller(caller, m.migration_id, t.staging, NULL);
	PERFORM dvmig._map_target_key(caller, t, m.server);
	IF t.auto_map THEN
		mapped := dvmig._auto_map(t, m.server);
	END IF;
	PERFORM dvmig._log(caller, m.name, 'add_table', staging::text, jsonb_build_object('target', t.target,
		'source_key', t.source_key, 'namespace', t.namespace, 'filter', filter, 'ids', ids, 'on_exists', on_exists,
		'caller', caller_expression, 'caller_object_id', caller_object_id, 'mapped_by_name', mapped));
	RETURN concat_ws(chr(10),
		format('%s goes to %s, source key %s', staging, t.target, array_to_string(t.source_key, ', ')),
		'outcomes in ' || t.success_table || ' and ' || t.error_table,
		'columns added: ' || nullif(array_to_string(added, ', '), ''),
		CASE WHEN made_index THEN 'unique index made on the source key' END,
		CASE WHEN flag_index THEN 'index made on processing_flag and the source key' END,
		'mapped by name: ' || nullif(array_to_string(mapped, ', '), ''),
		'not mapped yet: ' || array_to_string(dvmig._unmapped(staging), ', '),
		dvmig._storage_advice(staging, t.source_key, dvmig._has_flag_index(staging, t.source_key), t.filter_sql));
END
$$;
COMMENT ON FUNCTION dvmig._add_table(oid, text, regclass, text, text, text, text, text, text, text, uuid, text, text, text, bool, bool, text, text) IS 'internal part of dvmig.add_table()';

CREATE FUNCTION dvmig.add_table(migration text, staging regclass, target text, source_key text DEFAULT NULL, filter text DEFAULT NULL,
	filter_reason text DEFAULT NULL, target_key text DEFAULT NULL, ids text DEFAULT 'derived', id_column text DEFAULT NULL,
	namespace uuid DEFAULT NULL, on_exists text DEFAULT 'update', success_table text DEFAULT NULL, error_table text DEFAULT NULL,
	auto_map bool DEFAULT true, flag_index bool DEFAULT true, caller text DEFAULT NULL, caller_object_id text DEFAULT NULL) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.add_table(text, regclass, text, text, text, text, text, text, text, uuid, text, text, text, bool, bool, text, text) IS
	'register a staging table: add flag columns, make outcome tables, map columns by name; tells what it did. caller: expression of the user whom a row is written as';

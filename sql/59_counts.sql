-- How many rows of a staging table are in which state: what dvmig.status tells.
--
-- Whoever looks must not make the server read wide rows. Flags and keys are read
-- from an index; where none has them and the table is of some size, the figures
-- are estimates, unless they are asked for exactly (cut-over, sign-off, report).

-- _count_flags_sql: one statement, so that all of it is of one instant. What is
-- read of every row is its flag and its key: the index on flags holds them, and
-- is read instead of the rows, however wide they are. Only what is unprocessed
-- is held against the filter, whose columns are in that index where they fit.
-- "astray" are rows whose flag and outcomes do not belong together: done without
-- a success row, failed without an error row, or with both.
CREATE FUNCTION dvmig._count_flags_sql(staging regclass, filter_sql text, outcomes bool DEFAULT true) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format(
		$q$SELECT jsonb_build_object('staged', a.staged, 'unprocessed', a.unprocessed - b.left_out, 'left_out', b.left_out,
			'owed', a.owed, 'succeeded', a.owed + a.processed, 'failed', a.failed, 'astray', a.astray)::text
		FROM (SELECT count(*) AS staged, count(*) FILTER (WHERE s.processing_flag NOT IN ('S', 'P', 'E')) AS unprocessed,
				count(*) FILTER (WHERE s.processing_flag = 'S') AS owed, count(*) FILTER (WHERE s.processing_flag = 'P') AS processed,
				count(*) FILTER (WHERE s.processing_flag = 'E') AS failed, %3$s AS astray FROM %1$s s%4$s) a,
			(SELECT %2$s AS left_out OFFSET 0) b$q$, $1,
		CASE WHEN $2 IS NULL THEN '0' ELSE format('(SELECT count(*) FROM %s s WHERE s.processing_flag = ''U'' AND (%s) IS NOT TRUE)', $1, $2) END,
		CASE WHEN outcomes THEN format(
			$q$count(*) FILTER (WHERE CASE WHEN s.processing_flag IN ('S', 'P') THEN x.%1$I IS NULL ELSE s.processing_flag = 'E' AND e.%1$I IS NULL END
				OR x.%1$I IS NOT NULL AND e.%1$I IS NOT NULL)$q$, t.source_key[1]) ELSE 'NULL::bigint' END,
		CASE WHEN outcomes THEN format(' LEFT JOIN %s x ON %s LEFT JOIN %s e ON %s', t.success_table, k.success_on, t.error_table, k.error_on) END)
	FROM dvmig.migration_table t,
		LATERAL (SELECT string_agg(format('x.%1$I = s.%1$I', k), ' AND ' ORDER BY i) AS success_on, string_agg(format('e.%1$I = s.%1$I', k), ' AND ' ORDER BY i) AS error_on
			FROM unnest(t.source_key) WITH ORDINALITY u(k, i)) k
	WHERE t.staging = $1
$$;
COMMENT ON FUNCTION dvmig._count_flags_sql(regclass, text, bool) IS 'SQL that counts rows of a staging table by flag, those that its filter leaves out, and those whose outcome does not fit their flag';

-- _count_flags: never by a scan of the table where there is an index on its flags.
CREATE FUNCTION dvmig._count_flags(owner oid, staging regclass, filter_sql text, outcomes bool DEFAULT true) RETURNS jsonb
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$ SELECT dvmig._query_as($1, dvmig._count_flags_sql($2, $3, $4))::jsonb $$;
COMMENT ON FUNCTION dvmig._count_flags(oid, regclass, text, bool) IS 'rows of a staging table by flag, those that its filter leaves out, and those whose outcome does not fit their flag';

-- _count_parked: rows that wait, of those that are unprocessed; found by the index on
-- flags, and each one's parents by their keys: all of a parent's table is not read.
CREATE FUNCTION dvmig._count_parked(owner oid, query text) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$ SELECT dvmig._query_as($1, $2)::bigint $$;
COMMENT ON FUNCTION dvmig._count_parked(oid, text) IS 'rows that wait for others';

-- _parents_left_out: staging tables whose filter leaves out rows that rows of this
-- one wait for: they would wait for ever. Unless it is to be exact, tables whose
-- rows had to be read for it are passed over.
CREATE FUNCTION dvmig._parents_left_out(owner oid, staging regclass, exact bool) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	p record;
	found text[] := '{}';
BEGIN
	FOR p IN SELECT DISTINCT t.staging, t.filter_sql, c.expression_sql, t.source_key
		FROM dvmig.column_map c JOIN dvmig.migration_table t ON t.staging = c.parent
		WHERE c.staging = $2 AND c.kind = 'parent' AND t.filter_sql IS NOT NULL
		  AND (exact OR NOT dvmig._is_dear(t.staging, 'processing_flag'::text || dvmig._columns_used(t.staging, t.filter_sql))) LOOP
		BEGIN
			IF dvmig._query_as(owner, format(
				'SELECT EXISTS (SELECT FROM %s s WHERE s.processing_flag = ''U'' AND s.action_flag <> ''D'' AND (%s) IN (SELECT %s FROM %s s WHERE s.processing_flag = ''U'' AND (%s) IS NOT TRUE))::text',
				$2, array_to_string(p.expression_sql, ', '), (SELECT string_agg(format('s.%I', k), ', ' ORDER BY i) FROM unnest(p.source_key) WITH ORDINALITY u(k, i)),
				p.staging, p.filter_sql))::bool THEN
				found := found || p.staging::text;
			END IF;
		EXCEPTION WHEN OTHERS THEN
			NULL;		-- an expression or filter that throws: told elsewhere
		END;
	END LOOP;
	RETURN nullif(array_to_string(found, ', '), '');
END
$$;
COMMENT ON FUNCTION dvmig._parents_left_out(oid, regclass, bool) IS 'staging tables whose filter leaves out rows that rows of this one wait for';

CREATE FUNCTION dvmig._parked_rows_max() RETURNS bigint
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT 100000::bigint $$;
COMMENT ON FUNCTION dvmig._parked_rows_max() IS 'unprocessed rows of a table up to which those that wait are counted when somebody looks: reading so many takes about a second';

-- _is_dear: would a query over these columns of every row read much of the table?
-- Not where an index has them all.
CREATE FUNCTION dvmig._is_dear(staging regclass, columns text[]) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT dvmig._is_large($1) AND NOT EXISTS (SELECT FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am m ON m.oid = i.relam
		WHERE x.indrelid = $1 AND m.amname = 'btree' AND x.indisvalid AND x.indpred IS NULL
		  AND $2 <@ ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum = ANY (x.indkey)))
$$;
COMMENT ON FUNCTION dvmig._is_dear(regclass, text[]) IS 'whether reading these columns of every row reads many pages of a table: it is large, and no index has them';

-- _columns_used: of a staging table, by a deparsed expression.
CREATE FUNCTION dvmig._columns_used(staging regclass, expression_sql text) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT ARRAY(SELECT a.attname::text FROM pg_attribute a
		WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND dvmig._uses_column($2, a.attname) ORDER BY a.attnum)
$$;
COMMENT ON FUNCTION dvmig._columns_used(regclass, text) IS 'columns of a staging table that a deparsed expression uses';

-- _estimated_rows: as the server has counted rows that came and went; where it
-- has forgotten (a crash), as the planner does, by pages and statistics. Nothing
-- of the table's is evaluated for it.
CREATE FUNCTION dvmig._estimated_rows(staging regclass) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	counted bigint := (SELECT sum(pg_stat_get_live_tuples(r.oid)) FROM (SELECT $1::oid AS oid UNION SELECT p.relid::oid FROM pg_partition_tree($1) p) r);
	plan json;
BEGIN
	IF counted > 0 THEN
		RETURN counted;
	END IF;
	EXECUTE format('EXPLAIN (FORMAT JSON) SELECT FROM %s', staging) INTO plan;
	RETURN (plan #>> '{0,Plan,Plan Rows}')::numeric::bigint;
END
$$;
COMMENT ON FUNCTION dvmig._estimated_rows(regclass) IS 'rows of a table as the server has counted them, or else the planner estimates them';

-- _flag_share: the share of rows with one of these flags when the table was last
-- analyzed; null where no run has ended since, or that is not known.
CREATE FUNCTION dvmig._flag_share(staging regclass, flags text[]) RETURNS double precision
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT (SELECT coalesce(sum(f), 0) FROM unnest(s.most_common_vals::text::text[], s.most_common_freqs) u(v, f) WHERE v = ANY ($2))
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = 'processing_flag' AND s.inherited = (c.relkind = 'p')
	WHERE c.oid = $1 AND s.most_common_vals IS NOT NULL
	  AND greatest(pg_stat_get_last_analyze_time($1), pg_stat_get_last_autoanalyze_time($1))
		> coalesce((SELECT max(coalesce(r.ended_at, 'infinity')) FROM dvmig.run_table r WHERE r.staging = $1::text AND r.started_at IS NOT NULL AND r.pass NOT LIKE 'verif%'), '-infinity')
$$;
COMMENT ON FUNCTION dvmig._flag_share(regclass, text[]) IS 'share of rows with these flags, by the statistics of the table; null where they are older than its last run';

-- _estimated_counts: without a look at the rows. The outcome tables, which are
-- narrow, are counted; what has no outcome is unprocessed. Rows that were flagged
-- again have one: the statistics know of them, once they are newer than the last
-- run. What the filter leaves out is among the unprocessed: it is not told.
CREATE FUNCTION dvmig._estimated_counts(owner oid, t dvmig.migration_table) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
	outcomes jsonb := dvmig._query_as(owner, format(
		'SELECT jsonb_build_object(''succeeded'', (SELECT count(*) FROM %s), ''failed'', (SELECT count(*) FROM %s))::text', t.success_table, t.error_table));
	failed bigint := outcomes ->> 'failed';
	staged bigint := greatest(dvmig._estimated_rows(t.staging), (outcomes ->> 'succeeded')::bigint + failed);
	-- there cannot be more than have not failed; least() would do away with a null
	share double precision := dvmig._flag_share(t.staging, '{U}');
	unprocessed bigint := CASE WHEN share IS NULL THEN staged - failed - (outcomes ->> 'succeeded')::bigint ELSE least(round(staged * share), staged - failed) END;
BEGIN
	RETURN jsonb_build_object('estimated', true, 'staged', staged, 'unprocessed', unprocessed, 'failed', failed, 'succeeded', staged - unprocessed - failed,
		'owed', round(staged * dvmig._flag_share(t.staging, '{S}'))::bigint, 'left_out', CASE WHEN t.filter_sql IS NULL THEN 0 END);
END
$$;
COMMENT ON FUNCTION dvmig._estimated_counts(oid, dvmig.migration_table) IS 'rows of a staging table by what has become of them, estimated from outcomes and statistics';

-- _filter_is_dear: would it read more than as many rows as are read to see what
-- waits? It is held against what is unprocessed, in the index if that has its columns.
CREATE FUNCTION dvmig._filter_is_dear(owner oid, t dvmig.migration_table) RETURNS bool
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
BEGIN
	IF t.filter_sql IS NULL OR NOT dvmig._is_dear(t.staging, 'processing_flag'::text || dvmig._columns_used(t.staging, t.filter_sql)) THEN
		RETURN false;
	END IF;
	RETURN (SELECT q::bigint > dvmig._parked_rows_max() FROM dvmig._query_as(owner, format(
		'SELECT count(*) FROM (SELECT FROM %s s WHERE s.processing_flag = ''U'' LIMIT %s) u', t.staging, dvmig._parked_rows_max() + 1)) q);
END
$$;
COMMENT ON FUNCTION dvmig._filter_is_dear(oid, dvmig.migration_table) IS 'whether holding the filter against what is unprocessed reads many wide rows';

-- _counting_index: the statement that makes the index in which rows are counted.
CREATE FUNCTION dvmig._counting_index(t dvmig.migration_table) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('CREATE INDEX%s ON %s (processing_flag, %s)%s', CASE WHEN c.relkind = 'p' THEN '' ELSE ' CONCURRENTLY' END, t.staging,
		(SELECT string_agg(format('%I', k), ', ' ORDER BY i) FROM unnest(t.source_key) WITH ORDINALITY u(k, i)),
		' INCLUDE (' || (SELECT string_agg(format('%I', k), ', ') FROM unnest(dvmig._columns_used(t.staging, t.filter_sql)) k WHERE k <> ALL ('processing_flag'::text || t.source_key)) || ')')
	FROM pg_class c WHERE c.oid = t.staging
$$;
COMMENT ON FUNCTION dvmig._counting_index(dvmig.migration_table) IS 'statement that makes an index in which the rows of a staging table can be counted, its filter included';

-- _flag_counts: exactly, or as estimates where that would read many wide rows and
-- is not asked for.
CREATE FUNCTION dvmig._flag_counts(owner oid, t dvmig.migration_table, exact bool) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	counts jsonb;
BEGIN
	IF NOT exact AND dvmig._is_dear(t.staging, 'processing_flag'::text || t.source_key) THEN
		RETURN dvmig._estimated_counts(owner, t);
	ELSIF NOT exact AND dvmig._filter_is_dear(owner, t) THEN
		RETURN dvmig._count_flags(owner, t.staging, NULL) || '{"estimated": true, "left_out": null}';
	END IF;
	RETURN dvmig._count_flags(owner, t.staging, t.filter_sql);
EXCEPTION WHEN OTHERS THEN
	-- one bad filter must not hide every other table, nor its error quote a row
	counts := jsonb_build_object('problem', SQLSTATE);
	BEGIN
		IF exact OR NOT dvmig._is_dear(t.staging, 'processing_flag'::text || t.source_key) THEN
			counts := dvmig._count_flags(owner, t.staging, NULL, false) || jsonb_build_object('left_out', NULL) || counts;
		END IF;
	EXCEPTION WHEN OTHERS THEN
		NULL;		-- a flag of another type, a privilege taken back
	END;
	RETURN counts;
END
$$;
COMMENT ON FUNCTION dvmig._flag_counts(oid, dvmig.migration_table, bool) IS 'rows of a staging table by flag, exactly or estimated';

CREATE FUNCTION dvmig._table_counts(staging regclass, exact bool) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table;
	owner oid;
	counts jsonb;
	waiting text;
	joins text;
	deferred text[];
BEGIN
	SELECT mt.* INTO STRICT t FROM dvmig.migration_table mt WHERE mt.staging = $1;
	SELECT m.owner INTO owner FROM dvmig.migration m WHERE m.migration_id = t.migration_id;
	counts := dvmig._flag_counts(owner, t, exact);
	-- Parked: a parent is neither loaded nor being loaded before its children. That
	-- takes the rows themselves; of very many, or where they are not to be found by their
	-- flag, it is what the last run has told.
	IF (counts ->> 'unprocessed')::bigint > dvmig._parked_rows_max() OR counts ? 'estimated' THEN
		RETURN counts || jsonb_build_object('parked', (SELECT r.parked FROM dvmig.run_table r WHERE r.staging = $1::text AND r.pass IN ('write', 'links')
			AND r.ended_at IS NOT NULL ORDER BY r.run DESC LIMIT 1));
	ELSIF (counts ->> 'unprocessed')::bigint > 0 AND NOT counts ? 'problem' THEN
		SELECT w.deferred INTO deferred FROM dvmig._waves(t.migration_id) w WHERE w.staging = $1;
		SELECT string_agg(m.parked_sql, ', ' ORDER BY m.ordinal), string_agg(m.join_sql, ' ' ORDER BY m.ordinal)
		INTO waiting, joins
		FROM dvmig._pass_maps($1, 'write', '{}') m
		WHERE m.parked_sql IS NOT NULL AND NOT m.target_column = ANY (coalesce(deferred, '{}'));
		IF waiting IS NOT NULL THEN
			BEGIN
				counts := counts || jsonb_build_object('parked', dvmig._count_parked(owner, format(
					'SELECT count(*) FROM (%s) s %s WHERE coalesce(%s, NULL::text) IS NOT NULL',
					(SELECT p.inner_sql FROM dvmig._projection($1, 'write') p), joins, waiting)));
			EXCEPTION WHEN OTHERS THEN
				-- a key that does not cast, say: that row will fail, not wait
				counts := counts || jsonb_build_object('parked', NULL);
			END;
			IF (counts ->> 'parked')::bigint > 0 THEN
				counts := counts || jsonb_strip_nulls(jsonb_build_object('left_out_parents', dvmig._parents_left_out(owner, $1, exact)));
			END IF;
		END IF;
		-- ... and a record goes only after those that point at it.
		waiting := dvmig._children_left($1);
		IF waiting IS NOT NULL THEN
			BEGIN
				counts := counts || jsonb_build_object('parked', coalesce((counts ->> 'parked')::bigint, 0) + dvmig._count_parked(owner, format(
					'SELECT count(*) FROM (%s) s WHERE coalesce(%s, NULL::text) IS NOT NULL',
					(SELECT p.inner_sql FROM dvmig._projection($1, 'delete') p), waiting)));
			EXCEPTION WHEN OTHERS THEN
				-- the lookup of a row below throws, and its error may quote that row
				counts := counts || jsonb_build_object('parked', NULL);
			END;
		END IF;
	END IF;
	RETURN jsonb_build_object('parked', 0) || counts;
END
$$;
COMMENT ON FUNCTION dvmig._table_counts(regclass, bool) IS 'rows of a staging table by what has become of them, counted with the owner''s rights';

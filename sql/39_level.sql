-- Lookups of a table to itself that it demands when a record is created: they
-- cannot follow in the deferred pass. Parents go first, level by level, and rows
-- that go in a circle are errors.

INSERT INTO dvmig.setting (applies_to, name, about) VALUES
	('column', 'by_level', 'lookup to its own staging table: rows go after their parents, level by level, instead of getting the lookup in the deferred pass; null: where Dataverse requires it');

-- _by_level: is this lookup followed level by level?
CREATE FUNCTION dvmig._by_level(cm dvmig.column_map) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT cm.kind = 'parent' AND cm.parent = cm.staging AND coalesce(cm.by_level, EXISTS (
		SELECT FROM dvmig.migration_table t JOIN dvmig.migration m USING (migration_id)
		JOIN dvmig.metadata_column c ON c.server = m.server AND c.table_name = t.target AND c.column_name = cm.target_column
		WHERE t.staging = cm.staging AND c.required_level = 'SystemRequired' AND c.valid_for_create))
$$;
COMMENT ON FUNCTION dvmig._by_level(dvmig.column_map) IS 'is a lookup of a table to itself followed level by level?';

-- _waits_sql: what to say of a row whose parent is not loaded: that it waits,
-- or, of a lookup by level, that it waits for itself. n is the number of the
-- parent's alias. Asked only of rows that wait; the walk ends where it meets a
-- row again.
CREATE FUNCTION dvmig._waits_sql(cm dvmig.column_map, n int) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	key text[];
	names text;
	types text[];
BEGIN
	IF NOT dvmig._by_level(cm) THEN
		RETURN quote_literal('parked|' || cm.target_column);
	END IF;
	SELECT t.source_key INTO key FROM dvmig.migration_table t WHERE t.staging = cm.staging;
	SELECT string_agg('k' || i, ', ' ORDER BY i) INTO names FROM generate_series(1, cardinality(key)) i;
	SELECT array_agg(a.atttypid::regtype::text ORDER BY i) INTO types FROM unnest(key) WITH ORDINALITY u(k, i)
	JOIN pg_attribute a ON a.attrelid = cm.staging AND a.attname = k;
	RETURN format('CASE WHEN EXISTS (WITH RECURSIVE up(%s) AS (SELECT %s UNION SELECT %s FROM up JOIN %s s ON %s AND s.processing_flag = ''U'')'
			' SELECT FROM up WHERE %s) THEN %L ELSE %L END', names,
		(SELECT string_agg(format('p%s.%I::%s', n, k, types[i]), ', ' ORDER BY i) FROM unnest(key) WITH ORDINALITY u(k, i)),
		(SELECT string_agg(dvmig._as_key(cm.staging, key[i], format('(%s)::%s', e, types[i])), ', ' ORDER BY i) FROM unnest(cm.expression_sql) WITH ORDINALITY u(e, i)),
		cm.staging,
		(SELECT string_agg(format('s.%I = up.k%s', k, i), ' AND ' ORDER BY i) FROM unnest(key) WITH ORDINALITY u(k, i)),
		(SELECT string_agg(format('up.k%s = s.%I', i, k), ' AND ' ORDER BY i) FROM unnest(key) WITH ORDINALITY u(k, i)),
		'circle|' || cm.target_column, 'parked|' || cm.target_column);
END
$$;
COMMENT ON FUNCTION dvmig._waits_sql(dvmig.column_map, int) IS 'SQL of what is said of a row whose parent is not loaded';

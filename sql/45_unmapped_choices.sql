-- Source texts that stand for no choice, to be filled into dvmig.choice_map.

-- _unmapped_choices_sql: texts of one choice column that stand for nothing.
CREATE FUNCTION dvmig._unmapped_choices_sql(t dvmig.migration_table, target_column text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('SELECT coalesce(jsonb_agg(q), ''[]'')::text FROM (SELECT (%s)::text AS source_text, coalesce(%s) AS problem, count(*) AS n FROM %s s '
			'WHERE s.processing_flag = ''U'' AND s.action_flag <> ''D''%s GROUP BY 1, 2) q WHERE q.problem IS NOT NULL',
		c.expression_sql[1], concat_ws(', ', m.fault_sql, CASE WHEN m.noted_sql IS NOT NULL THEN format('CASE WHEN %s THEN %L END', m.noted_sql, m.noted) END, 'NULL::text'),
		t.staging, ' AND (' || t.filter_sql || ') IS TRUE')
	FROM dvmig._map_sql(t.staging) m
	JOIN dvmig.column_map c ON c.staging = t.staging AND c.target_column = m.target_column AND c.variant = m.variant
	WHERE m.target_column = $2
$$;
COMMENT ON FUNCTION dvmig._unmapped_choices_sql(dvmig.migration_table, text) IS 'query of the source texts of a choice column that stand for nothing';

CREATE FUNCTION dvmig._unmapped_choices(caller oid, migration text)
RETURNS TABLE (staging text, target_column text, source_text text, affected_rows bigint, outcome text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC'
SET DateStyle = 'ISO, YMD'
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'operator');
	c record;
	t dvmig.migration_table;
	found_rows jsonb;
BEGIN
	FOR c IN SELECT cm.staging AS tab, cm.target_column AS col FROM dvmig.column_map cm JOIN dvmig.migration_table mt ON mt.staging = cm.staging
		JOIN pg_class k ON k.oid = mt.staging
		WHERE mt.migration_id = m.migration_id AND cm.kind = 'choice' ORDER BY mt.position, cm.position
	LOOP
		SELECT mt.* INTO t FROM dvmig.migration_table mt WHERE mt.staging = c.tab;
		PERFORM dvmig._require_reading(caller, c.tab);
		found_rows := dvmig._query_as(m.owner, dvmig._unmapped_choices_sql(t, c.col))::jsonb;
		RETURN QUERY SELECT c.tab::text, c.col, r.source_text, r.n,
			CASE r.problem WHEN 'defaulted' THEN 'the default' WHEN 'left empty' THEN 'left empty' ELSE 'the rows fail' END
		FROM jsonb_to_recordset(found_rows) r(source_text text, problem text, n bigint)
		ORDER BY r.n DESC, r.source_text;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._unmapped_choices(oid, text) IS 'internal part of dvmig.unmapped_choices()';

CREATE FUNCTION dvmig.unmapped_choices(migration text)
RETURNS TABLE (staging text, target_column text, source_text text, affected_rows bigint, outcome text)
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.unmapped_choices(text) IS
	'source texts that stand for no value of their choice column, with how many unprocessed rows have them and what becomes of those: what dvmig.choice_map lacks';

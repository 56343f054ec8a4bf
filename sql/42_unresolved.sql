-- What of a source stands for nothing: owners that are nobody, texts that are no
-- choice. dvmig.unmatched_owners() and dvmig.unmapped_choices() tell it.

-- _unresolved_sql: query of the source values of one column that resolve to
-- nothing: source_text, problem (the fault, or what a policy puts in) and n, the
-- unprocessed rows that have them.
CREATE FUNCTION dvmig._unresolved_sql(t dvmig.migration_table, target_column text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH parts AS (
		SELECT c.expression_sql, c.fallback, m.ordinal, m.fault_sql, m.parked_sql, m.join_sql, m.noted_sql, m.noted
		FROM dvmig._map_sql(t.staging) m
		JOIN dvmig.column_map c ON c.staging = t.staging AND c.target_column = m.target_column AND c.variant = m.variant
		WHERE m.target_column = $2
		UNION ALL
		-- states are resolved by themselves
		SELECT c.expression_sql, false, 1, format('CASE WHEN (%s) IS NOT NULL AND %s IS NULL THEN %L END', c.expression_sql[1],
			dvmig._state_value(c.staging, c.target_column), 'choice|' || c.target_column), NULL, NULL, NULL, NULL
		FROM dvmig.column_map c WHERE c.staging = t.staging AND c.target_column = $2 AND c.pass = 'states' AND c.kind = 'choice'
	)
	SELECT format('SELECT coalesce(jsonb_agg(q), ''[]'')::text FROM (SELECT %s AS source_text, %s AS problem, count(*) AS n FROM %s s %s '
			'WHERE s.processing_flag = ''U'' AND s.action_flag <> ''D''%s GROUP BY 1, 2) q WHERE q.problem IS NOT NULL',
		min(format('concat_ws('', '', %s)', array_to_string(p.expression_sql, ', '))) FILTER (WHERE NOT p.fallback),
		format('coalesce(%s)', concat_ws(', ', string_agg(p.fault_sql, ', ' ORDER BY p.ordinal), string_agg(p.parked_sql, ', ' ORDER BY p.ordinal),
			string_agg(CASE WHEN p.noted_sql IS NOT NULL THEN format('CASE WHEN %s THEN %L END', p.noted_sql, p.noted) END, ', ' ORDER BY p.ordinal), 'NULL::text')),
		t.staging, string_agg(p.join_sql, ' ' ORDER BY p.ordinal), ' AND (' || t.filter_sql || ') IS TRUE')
	FROM parts p
$$;
COMMENT ON FUNCTION dvmig._unresolved_sql(dvmig.migration_table, text) IS 'query of the source values of a column that stand for nothing';

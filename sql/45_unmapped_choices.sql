-- Source texts that stand for no choice, to be filled into dvmig.choice_map.

CREATE FUNCTION dvmig._unmapped_choices(caller oid, migration text)
RETURNS TABLE (staging text, target_column text, source_text text, affected_rows bigint, outcome text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
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
		found_rows := dvmig._query_as(m.owner, dvmig._unresolved_sql(t, c.col))::jsonb;
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

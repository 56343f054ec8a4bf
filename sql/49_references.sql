-- What a run looks up in Dataverse before it begins.

-- _run_references: what has to be read from Dataverse before rows can be sent,
-- in this order. Without keys_sql all records are read. Keys that are no columns
-- (their name has a blank) are worked out from what was read before them.
-- A run reads the keys of the rows that it sends, whatever is known of them. A
-- verification and a resend read those of loaded rows that are not known: the
-- map may have been corrected, or what was known forgotten, since the load.
CREATE FUNCTION dvmig._run_references(run bigint)
RETURNS TABLE (referenced_table text, match_on text, keys_sql text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH maps AS (
		SELECT c.*, c AS cm, t.migration_id, h.kind IN ('verify', 'resend') AS is_loaded, h.server
		FROM dvmig.run_history h, dvmig.column_map c JOIN dvmig.migration_table t ON t.staging = c.staging
		WHERE h.run = $1 AND c.kind IN ('reference', 'party') AND c.match_on IS NOT NULL
		  AND c.staging::text IN (SELECT r.staging FROM dvmig.run_table r WHERE r.run = $1)
	), reads AS (
		SELECT 1 AS nth, b.base_table AS referenced_table, array_to_string(b.base_columns, ',') AS match_on, b.keys AS keys_sql
		FROM maps c, dvmig._reference_bases(c.migration_id, c.match_on, c.referenced_table) b
		GROUP BY 2, 3, 4
		UNION ALL
		SELECT 2, c.referenced_table, dvmig._reference_name(c.migration_id, c.match_on),
			'SELECT array_agg(DISTINCT k) FROM (' || string_agg(concat(
				dvmig._reference_rows(c.cm, CASE WHEN c.is_loaded THEN 's.processing_flag IN (''S'', ''P'')' ELSE 's.processing_flag IN (''U'', ''S'')' END || ' AND s.action_flag <> ''D'''),
				CASE WHEN c.on_missing = 'default' AND NOT dvmig._is_uuid(c.default_value) THEN format(' UNION ALL SELECT %L', lower(c.default_value)) END), ' UNION ALL ')
			|| ') q WHERE k IS NOT NULL'
			|| CASE WHEN c.is_loaded THEN format(' AND NOT EXISTS (SELECT FROM dvmig.reference f WHERE f.server = %L AND f.table_name = %L AND f.match_on = %L AND f.match_key = q.k AND f.matches > 0)',
				c.server, c.referenced_table, dvmig._reference_name(c.migration_id, c.match_on)) ELSE '' END
		FROM maps c
		GROUP BY c.referenced_table, dvmig._reference_name(c.migration_id, c.match_on), c.is_loaded, c.server
	)
	SELECT r.referenced_table, r.match_on, r.keys_sql FROM reads r ORDER BY r.nth
$$;
COMMENT ON FUNCTION dvmig._run_references(bigint) IS 'keys of existing records that the lookups of a run need';

-- Before-images: what a record held before a run updated it, for dvmig.undo().
--
-- They are in a table of their own beside the staging table, owned and read
-- like the outcome tables. The worker reads a record and commits its image
-- before the first update of it in a run leaves. An image holds the members of
-- the Web API as they came: values, and of lookups the id and the table it is of.

INSERT INTO dvmig.setting (applies_to, name, adjust, about) VALUES
	('table', 'keep_before_image', '_adjust_before_image', 'keep what the mapped columns of a record hold before a run updates it, so that dvmig.undo() restores it');

-- _adjust_before_image: make the table of the images when they are first asked
-- for. It stays when they no longer are: what is in it can still be restored.
CREATE FUNCTION dvmig._adjust_before_image(caller oid, migration_id int, staging regclass, before text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table;
BEGIN
	SELECT mt.* INTO t FROM dvmig.migration_table mt WHERE mt.staging = $3;
	IF NOT t.keep_before_image THEN
		RETURN;
	ELSIF t.relationship IS NOT NULL THEN
		RAISE EXCEPTION 'keep_before_image is for records, and % holds links', staging
			USING ERRCODE = 'feature_not_supported', HINT = 'Links are never updated.';
	ELSIF t.source_key && '{columns,taken_at}' THEN
		RAISE EXCEPTION 'the source key of % has a name that the table of before-images has too', staging
			USING ERRCODE = 'duplicate_column', HINT = 'Rename the key column: columns and taken_at are names of dvmig''s there.';
	ELSIF EXISTS (SELECT FROM pg_class c WHERE c.oid = t.before_table) THEN
		RETURN;
	END IF;
	UPDATE dvmig.migration_table mt
	SET before_table = dvmig._create_outcome(caller, (SELECT m.owner FROM dvmig.migration m WHERE m.migration_id = $2), t.staging, t.source_key, 'before', NULL)
	WHERE mt.staging = $3;
END
$$;
COMMENT ON FUNCTION dvmig._adjust_before_image(oid, int, regclass, text) IS 'make the table of a staging table''s before-images when they are first asked for';

-- _before_select: the members that are read of a record for its image: all that
-- updates may write, and the state where it is an ordinary column. Images, files,
-- attachments, parties, and states that only an action sets are not kept.
CREATE FUNCTION dvmig._before_select(staging regclass) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT nullif(concat_ws(',', string_agg(DISTINCT CASE WHEN c.navigation_property IS NOT NULL THEN '_' || c.target_column || '_value' ELSE c.target_column END, ',')
			FILTER (WHERE c.pass IS DISTINCT FROM 'states' AND c.target_column <> mt.primary_id AND NOT dvmig._is_body(t.target, c.target_column)
				AND mc.column_type NOT IN ('Image', 'File', 'PartyList', 'State', 'Status')),
		max('statecode,statuscode') FILTER (WHERE c.pass = 'states' AND NOT dvmig._closing_table(t.target))), '')
	FROM dvmig.column_map c
	JOIN dvmig.migration_table t ON t.staging = c.staging
	JOIN dvmig.migration m USING (migration_id)
	JOIN dvmig.metadata_table mt ON mt.server = m.server AND mt.table_name = t.target
	JOIN dvmig.metadata_column mc ON mc.server = m.server AND mc.table_name = t.target AND mc.column_name = c.target_column
	WHERE c.staging = $1 AND c.send IS DISTINCT FROM 'insert' AND mc.valid_for_update AND mc.calculation IS NULL
$$;
COMMENT ON FUNCTION dvmig._before_select(regclass) IS 'members that are read of a record for its before-image, between commas; null: none';

-- _before_body: the members of an update that makes a record what its image
-- says. Null where a lookup is to a table whose metadata was not read.
CREATE FUNCTION dvmig._before_body(staging regclass, image jsonb) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN bool_and(v.value IS NOT NULL) THEN string_agg(to_json(v.member)::text || ':' || v.value, ',' ORDER BY v.member COLLATE "C") END
	FROM dvmig.migration_table t JOIN dvmig.migration m USING (migration_id),
	LATERAL (SELECT e.key, e.value, substring(e.key FROM '^_(.+)_value$') AS lookup FROM jsonb_each($2) e WHERE e.key NOT LIKE '%@%') e
	-- the navigation property of what the lookup pointed at; to clear it, any will do
	LEFT JOIN LATERAL (SELECT l.navigation_property, rt.entity_set FROM dvmig.metadata_lookup l
		LEFT JOIN dvmig.metadata_table rt ON rt.server = l.server AND rt.table_name = l.referenced_table
		WHERE l.server = m.server AND l.table_name = t.target AND l.column_name = e.lookup
		  AND (e.value = 'null' OR CASE WHEN $2 ? (e.key || '@Microsoft.Dynamics.CRM.lookuplogicalname')
				THEN l.referenced_table = $2 ->> (e.key || '@Microsoft.Dynamics.CRM.lookuplogicalname')
			-- not told: known only where there is one table
			ELSE NOT EXISTS (SELECT FROM dvmig.metadata_lookup o WHERE o.server = l.server AND o.table_name = l.table_name
				AND o.column_name = l.column_name AND o.referenced_table <> l.referenced_table) END)
		ORDER BY rt.entity_set IS NULL, l.referenced_table, l.navigation_property LIMIT 1) n ON e.lookup IS NOT NULL,
	LATERAL (SELECT CASE WHEN e.lookup IS NULL THEN e.key ELSE coalesce(n.navigation_property, e.lookup) || '@odata.bind' END,
		CASE WHEN e.lookup IS NULL OR e.value = 'null' THEN e.value::text
			ELSE to_json(n.entity_set || '(' || (e.value #>> '{}') || ')')::text END) v(member, value)
	WHERE t.staging = $1
$$;
COMMENT ON FUNCTION dvmig._before_body(regclass, jsonb) IS 'members of an update that makes a record what its before-image says; null where that cannot be written';

-- _before_restore: for images and the records as they are now: whether the
-- record holds that already, and else what is to be sent.
CREATE FUNCTION dvmig._before_restore(staging regclass, images text[], records text[]) RETURNS TABLE (is_same bool, content text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT s.is_same, CASE WHEN NOT s.is_same THEN dvmig._before_body($1, u.image::jsonb) END
	FROM unnest($2, $3) WITH ORDINALITY u(image, record, i),
	LATERAL (SELECT NOT EXISTS (SELECT FROM jsonb_each(u.image::jsonb) e
		WHERE e.key NOT LIKE '%@%' AND u.record::jsonb -> e.key IS DISTINCT FROM e.value) AS is_same) s
	ORDER BY u.i
$$;
COMMENT ON FUNCTION dvmig._before_restore(regclass, text[], text[]) IS 'whether records hold what their before-images say, and else what is to be sent';

-- What Dataverse knows of its tables, and records that lookups refer to.
--
-- dvmig._fetch_metadata() brings the answers of the Web API as they are; here
-- they are taken apart, set-wise.

-- ---------------------------------------------------------------- metadata

CREATE FUNCTION dvmig._fetch_metadata(caller oid, server text, tables text[])
RETURNS TABLE (table_name text, part text, body jsonb)
LANGUAGE c VOLATILE STRICT
AS 'MODULE_PATHNAME', 'dv_fetch_metadata';
COMMENT ON FUNCTION dvmig._fetch_metadata(oid, text, text[]) IS
	'answers of the Web API about tables: the table itself, columns by type, bulk messages';

-- _elements: the members of an array, none where it is no array.
CREATE FUNCTION dvmig._elements(list jsonb) RETURNS SETOF jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT e FROM jsonb_array_elements(CASE jsonb_typeof($1) WHEN 'array' THEN $1 ELSE '[]' END) e
$$;
COMMENT ON FUNCTION dvmig._elements(jsonb) IS 'members of a JSON array, none where it is something else';

-- _describe_metadata: a table's metadata as named texts that can be compared.
CREATE FUNCTION dvmig._describe_metadata(t dvmig.metadata_table, columns dvmig.metadata_column[], choices dvmig.metadata_choice[],
	lookups dvmig.metadata_lookup[], keys dvmig.metadata_key[], children dvmig.metadata_child[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(jsonb_object_agg(i.item, i.description), '{}')
	FROM (
		SELECT 'table' AS item, format('%s, set %s, id %s', t.table_type, t.entity_set, t.primary_id) AS description
		WHERE t.table_name IS NOT NULL
		UNION ALL
		SELECT 'message ' || m.name, 'offered'
		FROM (VALUES ('CreateMultiple', t.create_multiple), ('UpdateMultiple', t.update_multiple)) m (name, offered) WHERE m.offered
		UNION ALL
		SELECT c.column_name, concat_ws(' ', c.column_type,
			'(' || c.max_length || ')', c.min_value || '..' || c.max_value,
			'precision ' || c.precision_digits, c.date_behavior, c.max_size_kb || ' kB',
			nullif(c.required_level, 'None'), c.calculation, 'numbered ' || c.auto_number,
			CASE WHEN NOT c.valid_for_create THEN 'not for create' END,
			CASE WHEN NOT c.valid_for_update THEN 'not for update' END)
		FROM unnest(columns) c
		UNION ALL
		SELECT c.column_name || '=' || c.choice_value, concat_ws(' in state ', coalesce(c.label, '(no label)'), c.state_value)
		FROM unnest(choices) c
		UNION ALL
		SELECT l.column_name || ' to ' || l.referenced_table, string_agg(l.navigation_property, ', ' ORDER BY l.navigation_property COLLATE "C")
		FROM unnest(lookups) l
		GROUP BY l.column_name, l.referenced_table
		UNION ALL
		SELECT 'key ' || k.key_name, array_to_string(k.key_columns, ', ') || ' ' || k.index_status
		FROM unnest(keys) k
		UNION ALL
		SELECT 'child ' || r.relationship_name, concat_ws(', ', r.child_table || '.' || r.child_column, 'delete: ' || r.cascade_delete)
		FROM unnest(children) r
	) i
$$;
COMMENT ON FUNCTION dvmig._describe_metadata(dvmig.metadata_table, dvmig.metadata_column[], dvmig.metadata_choice[],
	dvmig.metadata_lookup[], dvmig.metadata_key[], dvmig.metadata_child[]) IS 'a table''s metadata as item and description';

-- _metadata_items: what is cached of a table, described; {} where nothing is.
CREATE FUNCTION dvmig._metadata_items(server name, table_name text) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce((SELECT dvmig._describe_metadata(t,
			ARRAY(SELECT c FROM dvmig.metadata_column c WHERE c.server = $1 AND c.table_name = $2),
			ARRAY(SELECT c FROM dvmig.metadata_choice c WHERE c.server = $1 AND c.table_name = $2),
			ARRAY(SELECT l FROM dvmig.metadata_lookup l WHERE l.server = $1 AND l.table_name = $2),
			ARRAY(SELECT k FROM dvmig.metadata_key k WHERE k.server = $1 AND k.table_name = $2),
			ARRAY(SELECT r FROM dvmig.metadata_child r WHERE r.server = $1 AND r.table_name = $2))
		FROM dvmig.metadata_table t WHERE t.server = $1 AND t.table_name = $2), '{}')
$$;
COMMENT ON FUNCTION dvmig._metadata_items(name, text) IS 'cached metadata of a table as item and description';

-- _metadata_differences: what changed between two reads, in words; '' for
-- nothing. The first twenty, because a solution update changes hundreds.
CREATE FUNCTION dvmig._metadata_differences(old_items jsonb, new_items jsonb) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH d AS (
		SELECT row_number() OVER (ORDER BY item COLLATE "C") AS n, count(*) OVER () AS total,
			CASE WHEN o.value IS NULL THEN format('+ %s: %s', item, n.value)
				WHEN n.value IS NULL THEN format('- %s', item)
				ELSE format('%s: %s -> %s', item, o.value, n.value) END AS line
		FROM jsonb_each_text($1) o (item, value) FULL JOIN jsonb_each_text($2) n (item, value) USING (item)
		WHERE o.value IS DISTINCT FROM n.value
	)
	SELECT coalesce(string_agg(line, E'\n' ORDER BY n) FILTER (WHERE n <= 20), '')
		|| coalesce(max(format(E'\n... and %s more', total - 20)) FILTER (WHERE n = 21), '')
	FROM d
$$;
COMMENT ON FUNCTION dvmig._metadata_differences(jsonb, jsonb) IS 'differences between two reads of a table''s metadata';

-- What follows takes answers apart: "parts" is part name -> answer, as
-- dvmig._fetch_metadata() brings them. Parts that are missing are not known.

-- _part_table: a table's definition comes as itself, or as the only member of a list.
CREATE FUNCTION dvmig._part_table(parts jsonb, part text) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT coalesce($1->$2#>'{value,0}', $1->$2) $$;
COMMENT ON FUNCTION dvmig._part_table(jsonb, text) IS 'definition of a table in an answer, alone or the only member of a list';

CREATE FUNCTION dvmig._read_table(server name, table_name text, parts jsonb) RETURNS dvmig.metadata_table
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT $1, $2, d->>'EntitySetName', d->>'PrimaryIdAttribute', d->>'PrimaryNameAttribute', d->>'OwnershipType',
		-- other words than these two, and none at all, mean a table that is stored like any other
		CASE lower(d->>'TableType') WHEN 'elastic' THEN 'Elastic' WHEN 'virtual' THEN 'Virtual' ELSE 'Standard' END,
		coalesce((d->>'IsActivity')::bool, false),
		EXISTS (SELECT FROM dvmig._elements($3#>'{CreateMultiple,value}')),
		EXISTS (SELECT FROM dvmig._elements($3#>'{UpdateMultiple,value}')),
		now()
	FROM dvmig._part_table($3, 'table') d
$$;
COMMENT ON FUNCTION dvmig._read_table(name, text, jsonb) IS 'what was read of a table itself';

-- _read_columns: columns, with what only the answers by type tell.
CREATE FUNCTION dvmig._read_columns(server name, table_name text, parts jsonb) RETURNS SETOF dvmig.metadata_column
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH typed AS (
		SELECT v->>'LogicalName' AS column_name,
			max((v->>'MaxLength')::int) AS max_length,
			min((v->>'MinValue')::numeric) AS min_value,
			max((v->>'MaxValue')::numeric) AS max_value,
			max((v->>'Precision')::int) AS precision_digits,
			max(v#>>'{DateTimeBehavior,Value}') AS date_behavior,
			max((v->>'MaxSizeInKB')::int) AS max_size_kb,
			max(nullif(v->>'AutoNumberFormat', '')) AS auto_number,
			max(CASE v->>'SourceType' WHEN '1' THEN 'calculated' WHEN '2' THEN 'rollup' WHEN '3' THEN 'formula' END) AS calculation,
			bool_or((v->>'CanStoreFullImage')::bool) AS full_image
		FROM jsonb_each($3) p (part, body), dvmig._elements(p.body->'value') v
		WHERE p.part IN ('String', 'Memo', 'Integer', 'BigInt', 'Decimal', 'Double', 'Money', 'DateTime', 'File', 'Image',
			'AutoNumber', 'SourceType', 'FullImage')
		GROUP BY 1
	)
	SELECT $1, $2, a->>'LogicalName',
		-- AttributeType says Virtual of choices, files and images; the type's name says what they are
		regexp_replace(coalesce(a#>>'{AttributeTypeName,Value}', a->>'AttributeType'), 'Type$', ''),
		coalesce(a#>>'{RequiredLevel,Value}', 'None'),
		-- what Dataverse computes it does not take, whatever it calls valid
		coalesce((a->>'IsValidForCreate')::bool, true) AND t.calculation IS NULL,
		coalesce((a->>'IsValidForUpdate')::bool, true) AND t.calculation IS NULL,
		t.max_length, t.min_value, t.max_value, t.precision_digits, t.date_behavior, t.max_size_kb, t.auto_number, t.calculation, t.full_image
	FROM dvmig._elements(dvmig._part_table($3, 'table')->'Attributes') a
	LEFT JOIN typed t ON t.column_name = a->>'LogicalName'
	WHERE a->>'LogicalName' IS NOT NULL
$$;
COMMENT ON FUNCTION dvmig._read_columns(name, text, jsonb) IS 'what was read of a table''s columns';

-- _read_choices: values and labels; a yes/no column has two, in another place.
CREATE FUNCTION dvmig._read_choices(server name, table_name text, parts jsonb) RETURNS SETOF dvmig.metadata_choice
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH columns AS (
		SELECT v->>'LogicalName' AS column_name, v->'OptionSet' AS own, v->'GlobalOptionSet' AS global
		FROM jsonb_each($3) p (part, body), dvmig._elements(p.body->'value') v
		WHERE p.part IN ('Picklist', 'MultiSelectPicklist', 'State', 'Status', 'Boolean')
	), options AS (
		SELECT c.column_name, o
		FROM columns c, dvmig._elements(CASE jsonb_typeof(c.own->'Options') WHEN 'array' THEN c.own->'Options'
			ELSE c.global->'Options' END) o
		UNION ALL
		SELECT c.column_name, o
		FROM columns c, LATERAL (VALUES (c.own->'TrueOption'), (c.own->'FalseOption')) b (o)
		WHERE jsonb_typeof(o) = 'object'
	)
	SELECT DISTINCT ON (o.column_name, (o.o->>'Value')::int) $1, $2, o.column_name, (o.o->>'Value')::int,
		coalesce(o.o#>>'{Label,UserLocalizedLabel,Label}', o.o#>>'{Label,LocalizedLabels,0,Label}'),
		(o.o->>'State')::int
	FROM options o
	JOIN dvmig._read_columns($1, $2, $3) c ON c.column_name = o.column_name
	WHERE o.o->>'Value' IS NOT NULL
	ORDER BY o.column_name, (o.o->>'Value')::int
$$;
COMMENT ON FUNCTION dvmig._read_choices(name, text, jsonb) IS 'what was read of a table''s choices';

-- _read_lookups: targets with navigation properties. An owner is a user or a
-- team: both are bound by the one property that points at their base, "owner".
CREATE FUNCTION dvmig._read_lookups(server name, table_name text, parts jsonb) RETURNS SETOF dvmig.metadata_lookup
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH read AS (
		SELECT r->>'ReferencingAttribute' AS column_name, r->>'ReferencedEntity' AS target,
			r->>'ReferencingEntityNavigationPropertyName' AS property
		FROM dvmig._elements(dvmig._part_table($3, 'table')->'ManyToOneRelationships') r
	)
	SELECT DISTINCT $1, $2, r.column_name, coalesce(o.target, r.target), r.property
	FROM (
		SELECT * FROM read
		UNION ALL
		SELECT c.column_name, 'owner', c.column_name FROM dvmig._read_columns($1, $2, $3) c
		WHERE c.column_type = 'Owner' AND c.column_name NOT IN (SELECT x.column_name FROM read x WHERE x.column_name IS NOT NULL)
	) r
	LEFT JOIN (VALUES ('owner', 'systemuser'), ('owner', 'team')) o (base, target) ON o.base = r.target
	WHERE r.column_name IS NOT NULL AND r.target IS NOT NULL AND r.property IS NOT NULL
$$;
COMMENT ON FUNCTION dvmig._read_lookups(name, text, jsonb) IS 'what was read of a table''s lookups';

CREATE FUNCTION dvmig._read_keys(server name, table_name text, parts jsonb) RETURNS SETOF dvmig.metadata_key
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT $1, $2, k->>'LogicalName',
		ARRAY(SELECT a #>> '{}' FROM dvmig._elements(k->'KeyAttributes') a),
		coalesce(replace(k->>'EntityKeyIndexStatus', ' ', ''), 'Pending')
	FROM dvmig._elements(dvmig._part_table($3, 'table')->'Keys') k
	WHERE k->>'LogicalName' IS NOT NULL
$$;
COMMENT ON FUNCTION dvmig._read_keys(name, text, jsonb) IS 'what was read of a table''s alternate keys';

CREATE FUNCTION dvmig._read_children(server name, table_name text, parts jsonb) RETURNS SETOF dvmig.metadata_child
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT DISTINCT ON (r->>'SchemaName') $1, $2, r->>'SchemaName', r->>'ReferencingEntity', r->>'ReferencingAttribute',
		r#>>'{CascadeConfiguration,Delete}'
	FROM dvmig._elements(dvmig._part_table($3, 'OneToMany')->'OneToManyRelationships') r
	WHERE r->>'SchemaName' IS NOT NULL AND r->>'ReferencingEntity' IS NOT NULL
$$;
COMMENT ON FUNCTION dvmig._read_children(name, text, jsonb) IS 'what was read of the lookups that point at a table';

-- _store_metadata: replace what is cached of a table; returns what changed,
-- 'new' where nothing was cached.
CREATE FUNCTION dvmig._store_metadata(server name, table_name text, parts jsonb) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	definition jsonb := dvmig._part_table(parts, 'table');
	old_items jsonb;
BEGIN
	IF definition->>'EntitySetName' IS NULL OR definition->>'PrimaryIdAttribute' IS NULL
		OR definition->>'LogicalName' IS DISTINCT FROM table_name THEN
		RAISE EXCEPTION 'server "%" did not describe Dataverse table "%" as expected', server, table_name
			USING ERRCODE = 'fdw_error',
			HINT = 'Check url and api_version of the server.';
	END IF;
	old_items := dvmig._metadata_items(server, table_name);
	-- locks the table's row, so that two refreshes come one after the other
	INSERT INTO dvmig.metadata_table AS t SELECT r.* FROM dvmig._read_table(server, table_name, parts) r
	ON CONFLICT ON CONSTRAINT metadata_table_pkey DO UPDATE
	SET entity_set = excluded.entity_set, primary_id = excluded.primary_id, primary_name = excluded.primary_name,
		ownership = excluded.ownership, table_type = excluded.table_type, is_activity = excluded.is_activity,
		create_multiple = excluded.create_multiple, update_multiple = excluded.update_multiple,
		refreshed_at = excluded.refreshed_at;
	DELETE FROM dvmig.metadata_column c WHERE c.server = $1 AND c.table_name = $2;
	DELETE FROM dvmig.metadata_lookup l WHERE l.server = $1 AND l.table_name = $2;
	DELETE FROM dvmig.metadata_key k WHERE k.server = $1 AND k.table_name = $2;
	DELETE FROM dvmig.metadata_child r WHERE r.server = $1 AND r.table_name = $2;
	INSERT INTO dvmig.metadata_column SELECT r.* FROM dvmig._read_columns(server, table_name, parts) r;
	INSERT INTO dvmig.metadata_choice SELECT r.* FROM dvmig._read_choices(server, table_name, parts) r;
	INSERT INTO dvmig.metadata_lookup SELECT r.* FROM dvmig._read_lookups(server, table_name, parts) r;
	INSERT INTO dvmig.metadata_key SELECT r.* FROM dvmig._read_keys(server, table_name, parts) r;
	PERFORM dvmig._store_relationships(server, table_name, definition);
	INSERT INTO dvmig.metadata_child SELECT r.* FROM dvmig._read_children(server, table_name, parts) r;
	IF old_items = '{}' THEN
		RETURN 'new';
	END IF;
	RETURN nullif(dvmig._metadata_differences(old_items, dvmig._metadata_items(server, table_name)), '');
END
$$;
COMMENT ON FUNCTION dvmig._store_metadata(name, text, jsonb) IS 'replace the cached metadata of a table';

-- _store_privileges: what the application user may do, as one answer for all tables.
CREATE FUNCTION dvmig._store_privileges(server name, answer jsonb) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	WITH told AS (
		SELECT p->>'PrivilegeName' AS privilege_name, max(p->>'Depth') AS depth
		FROM dvmig._elements($2->'RolePrivileges') p WHERE p->>'PrivilegeName' IS NOT NULL GROUP BY 1
	), gone AS (
		DELETE FROM dvmig.metadata_privilege m WHERE m.server = $1 AND m.privilege_name NOT IN (SELECT t.privilege_name FROM told t)
	)
	INSERT INTO dvmig.metadata_privilege AS m (server, privilege_name, depth)
	SELECT $1, t.privilege_name, t.depth FROM told t ORDER BY 2
	ON CONFLICT ON CONSTRAINT metadata_privilege_pkey DO UPDATE SET depth = excluded.depth, refreshed_at = now()
$$;
COMMENT ON FUNCTION dvmig._store_privileges(name, jsonb) IS 'store what the application user may do';

CREATE FUNCTION dvmig._refresh_metadata(caller oid, server text, tables text[])
RETURNS TABLE (table_name text, table_type text, columns int, choices int, lookups int, alternate_keys int,
	create_multiple bool, update_multiple bool, differences text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	wanted text[] := ARRAY(SELECT DISTINCT w FROM unnest(tables) w ORDER BY w);
	fetched record;
BEGIN
	IF wanted = '{}' THEN
		wanted := ARRAY(SELECT t.table_name FROM dvmig.metadata_table t WHERE t.server = $2 ORDER BY 1);
	END IF;
	FOR fetched IN
		SELECT f.table_name AS name, jsonb_object_agg(f.part, f.body) AS parts
		FROM dvmig._fetch_metadata(caller, $2, wanted) f GROUP BY 1 ORDER BY 1
	LOOP
		IF fetched.name = '' THEN
			PERFORM dvmig._store_privileges($2, fetched.parts->'privileges');
			CONTINUE;
		END IF;
		differences := dvmig._store_metadata($2, fetched.name, fetched.parts);
		IF differences <> 'new' THEN
			PERFORM dvmig._log(caller, NULL, 'metadata', $2 || ': ' || fetched.name, jsonb_build_object('differences', differences));
		END IF;
		SELECT t.table_name, t.table_type, t.create_multiple, t.update_multiple,
			(SELECT count(*) FROM dvmig.metadata_column c WHERE c.server = t.server AND c.table_name = t.table_name),
			(SELECT count(DISTINCT c.column_name) FROM dvmig.metadata_choice c WHERE c.server = t.server AND c.table_name = t.table_name),
			(SELECT count(DISTINCT l.column_name) FROM dvmig.metadata_lookup l WHERE l.server = t.server AND l.table_name = t.table_name),
			(SELECT count(*) FROM dvmig.metadata_key k WHERE k.server = t.server AND k.table_name = t.table_name)
		INTO table_name, table_type, create_multiple, update_multiple, columns, choices, lookups, alternate_keys
		FROM dvmig.metadata_table t WHERE t.server = $2 AND t.table_name = fetched.name;
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._refresh_metadata(oid, text, text[]) IS 'internal part of dvmig.refresh_metadata()';

CREATE FUNCTION dvmig.refresh_metadata(server text, tables text[] DEFAULT '{}')
RETURNS TABLE (table_name text, table_type text, columns int, choices int, lookups int, alternate_keys int,
	create_multiple bool, update_multiple bool, differences text)
LANGUAGE c VOLATILE STRICT
AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.refresh_metadata(text, text[]) IS
	'read columns, choices, lookups, alternate keys and what points at them of Dataverse tables, by logical name, and say what changed; without tables: of all that were read before';

-- _ensure_metadata: read a table's metadata if it is not cached; true where it was read.
CREATE FUNCTION dvmig._ensure_metadata(caller oid, server text, table_name text) RETURNS bool
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF EXISTS (SELECT FROM dvmig.metadata_table t
		WHERE t.server = _ensure_metadata.server AND t.table_name = _ensure_metadata.table_name) THEN
		RETURN false;
	END IF;
	PERFORM dvmig._refresh_metadata(caller, server, ARRAY[table_name]);
	RETURN true;
END
$$;
COMMENT ON FUNCTION dvmig._ensure_metadata(oid, text, text) IS 'read a table''s metadata unless it is cached';

-- ---------------------------------------------------------------- references

CREATE FUNCTION dvmig._fetch_records(caller oid, server text, table_name text, match_on text[], keys text[])
RETURNS TABLE (match_key text, record_id uuid)
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'dv_fetch_records';
COMMENT ON FUNCTION dvmig._fetch_records(oid, text, text, text[], text[]) IS
	'records of a Dataverse table by key, keys as Dataverse has them; may bring some that were not asked for; without keys: all';

-- _store_reference: what was found for keys (null: for every key that was
-- found). Dataverse compares texts without regard to case and to blanks at
-- the end, so that records which differ in these only are one key's, and
-- ambiguous. A key without a record is stored too: it has been looked for.
CREATE FUNCTION dvmig._store_reference(server text, table_name text, match_on text, keys text[],
	found_keys text[], found_ids uuid[]) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	WITH found AS (
		SELECT rtrim(lower(k)) AS k, id FROM unnest($5, $6) f (k, id)
	), wanted AS (
		SELECT DISTINCT lower(k) AS k FROM unnest($4) w (k) WHERE k IS NOT NULL
		UNION
		SELECT k FROM found WHERE $4 IS NULL
	), counted AS (
		SELECT w.k, count(DISTINCT f.id) AS matches, (array_agg(f.id))[1] AS id
		FROM wanted w LEFT JOIN found f ON f.k = rtrim(w.k)
		GROUP BY w.k
	), stored AS (
		INSERT INTO dvmig.reference AS r (server, table_name, match_on, match_key, record_id, matches, refreshed_at)
		SELECT $1, $2, $3, c.k, CASE WHEN c.matches = 1 THEN c.id END, c.matches, now() FROM counted c
		ORDER BY c.k  -- in one order, so that two sessions cannot deadlock
		ON CONFLICT ON CONSTRAINT reference_pkey DO UPDATE
		SET record_id = excluded.record_id, matches = excluded.matches, refreshed_at = excluded.refreshed_at
		RETURNING r.matches
	)
	SELECT count(*) FILTER (WHERE matches = 1) FROM stored
$$;
COMMENT ON FUNCTION dvmig._store_reference(text, text, text, text[], text[], uuid[]) IS
	'store which record each key means; returns how many mean exactly one';

CREATE FUNCTION dvmig._read_reference(caller oid, server text, table_name text, match_on text[], keys text[]) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT dvmig._store_reference($2, $3, array_to_string($4, ','), $5,
		coalesce(array_agg(f.match_key), '{}'), coalesce(array_agg(f.record_id), '{}'))
	FROM dvmig._fetch_records($1, $2, $3, $4, $5) f
$$;
COMMENT ON FUNCTION dvmig._read_reference(oid, text, text, text[], text[]) IS
	'read the records that lower-cased keys mean (values of several columns joined by chr(31)) into dvmig.reference; returns how many mean exactly one';

-- _read_ids: for adopt; every record of a key, so that ambiguous ones are seen.
CREATE FUNCTION dvmig._read_ids(caller oid, server text, table_name text, match_on text, keys text[])
RETURNS TABLE (match_key text, record_id uuid)
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT DISTINCT w.k, f.record_id
	FROM (SELECT DISTINCT lower(k) AS k FROM unnest($5) u (k) WHERE k IS NOT NULL) w
	JOIN dvmig._fetch_records($1, $2, $3, ARRAY[$4], ARRAY(SELECT DISTINCT lower(k) FROM unnest($5) u (k))) f
		ON rtrim(lower(f.match_key)) = rtrim(w.k)
$$;
COMMENT ON FUNCTION dvmig._read_ids(oid, text, text, text, text[]) IS 'ids of the records that lower-cased keys mean, one row per key and record';

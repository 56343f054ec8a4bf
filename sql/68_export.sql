-- A migration's definition as an SQL script that makes it again.
--
-- The calls are made from the functions' own signatures: an argument that bears
-- the name of a column of the definition is written where its value is not the
-- argument's default. Settings are taken from dvmig.setting in the same way.
-- So what is added to the definition later is exported without a word here, as
-- long as it bears one name in both places; test/sql/export.sql tells what does not.

-- _export_value: a value as the text that an argument or setting takes.
CREATE FUNCTION dvmig._export_value(value jsonb, is_list bool) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE jsonb_typeof($1)
		WHEN 'array' THEN CASE WHEN $2 THEN (SELECT coalesce(array_agg(e ORDER BY i), '{}')::text FROM jsonb_array_elements_text($1) WITH ORDINALITY u(e, i))
			ELSE (SELECT string_agg(e, ',' ORDER BY i) FROM jsonb_array_elements_text($1) WITH ORDINALITY u(e, i)) END
		ELSE $1 #>> '{}' END
$$;
COMMENT ON FUNCTION dvmig._export_value(jsonb, bool) IS 'a value as the text that an argument or setting takes';

-- _export_literal: a text as a literal. Line breaks stay: the script is read by people.
CREATE FUNCTION dvmig._export_literal(value text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN $1 IS NULL THEN 'NULL' ELSE quote_literal($1) END
$$;
COMMENT ON FUNCTION dvmig._export_literal(text) IS 'a text as a literal';

-- _export_default: what an expression of the catalog gives, as text.
CREATE FUNCTION dvmig._export_default(expression text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	v text;
BEGIN
	IF expression IS NOT NULL AND expression !~* 'nextval|now\(|gen_random' THEN
		EXECUTE format('SELECT (%s)::text', expression) INTO v;
	END IF;
	RETURN v;
END
$$;
COMMENT ON FUNCTION dvmig._export_default(text) IS 'what the default of an argument or column of ours gives';

-- _export_arguments: named arguments of a public function, for those columns of
-- a row of the definition that differ from the argument's default.
CREATE FUNCTION dvmig._export_arguments(function_name text, definition jsonb) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT string_agg(format('%I => %s', q.name, CASE WHEN q.type IN ('boolean', 'integer', 'bigint', 'numeric') THEN coalesce(q.value, 'NULL')
		ELSE dvmig._export_literal(q.value) END), ', ' ORDER BY q.i)
	FROM (SELECT a.name, a.i, p.proargtypes[a.i - 1]::regtype::text AS type,
			dvmig._export_value(definition -> a.name, p.proargtypes[a.i - 1]::regtype::text LIKE '%[]') AS value,
			dvmig._export_default(pg_get_function_arg_default(p.oid, a.i::int)) AS preset
		FROM pg_proc p, unnest(p.proargnames) WITH ORDINALITY a(name, i)
		WHERE p.pronamespace = 'dvmig'::regnamespace AND p.proname = function_name
		  AND a.i <= p.pronargs AND a.i > p.pronargs - p.pronargdefaults AND definition ? a.name) q
	WHERE q.value IS DISTINCT FROM q.preset
$$;
COMMENT ON FUNCTION dvmig._export_arguments(text, jsonb) IS 'named arguments of a call, for what differs from their defaults';

CREATE FUNCTION dvmig._export_call(function_name text, positional text[], named text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('SELECT dvmig.%I(%s);', function_name,
		concat_ws(', ', (SELECT string_agg(dvmig._export_literal(p), ', ' ORDER BY i) FROM unnest(positional) WITH ORDINALITY u(p, i)), named))
$$;
COMMENT ON FUNCTION dvmig._export_call(text, text[], text) IS 'a call as it is written in a script';

-- _export_settings: calls for settings that no argument of "made_by" has set.
CREATE FUNCTION dvmig._export_settings(applies_to text, object text[], made_by text, definition jsonb) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT dvmig._export_call('set_' || s.applies_to, object || s.name || v.value, NULL)
	FROM dvmig.setting s
	JOIN pg_attribute a ON a.attrelid = CASE s.applies_to WHEN 'migration' THEN 'dvmig.migration'::regclass WHEN 'table' THEN 'dvmig.migration_table' ELSE 'dvmig.column_map' END
		-- as dvmig._change_setting() has it
		AND a.attname = CASE s.name WHEN 'caller' THEN 'caller_id' ELSE s.name END
	LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum,
		LATERAL (SELECT dvmig._export_value(definition -> a.attname::text, a.atttypid::regtype::text LIKE '%[]')) v(value)
	WHERE s.applies_to = $1 AND v.value IS DISTINCT FROM dvmig._export_default(pg_get_expr(d.adbin, d.adrelid))
	  AND NOT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'dvmig'::regnamespace AND p.proname = made_by AND s.name = ANY (p.proargnames))
	ORDER BY s.name
$$;
COMMENT ON FUNCTION dvmig._export_settings(text, text[], text, jsonb) IS 'calls of set_migration, set_table and set_column, for what differs from the defaults';

-- _export_rows: INSERT for a table of the definition that its owner fills.
CREATE FUNCTION dvmig._export_rows(relation regclass, migration_id int, migration text) RETURNS SETOF text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	cols text;
	literals text;
	lines text;
BEGIN
	IF relation IS NULL THEN
		RETURN;
	END IF;
	SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum),
		string_agg(format('CASE WHEN r.%1$I IS NULL THEN %2$L ELSE %3$s END', a.attname, 'NULL::' || format_type(a.atttypid, a.atttypmod),
			CASE WHEN a.atttypid IN ('int4'::regtype, 'int8'::regtype, 'bool'::regtype) THEN format('r.%I::text', a.attname) ELSE format('quote_literal(r.%I::text)', a.attname) END
			|| CASE WHEN a.atttypid IN ('text'::regtype, 'int4'::regtype, 'bool'::regtype) THEN '' ELSE format(' || %L', '::' || format_type(a.atttypid, a.atttypmod)) END),
			' || '', '' || ' ORDER BY a.attnum)
	INTO cols, literals
	FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> 'migration_id';
	EXECUTE format('SELECT string_agg(E''\t('' || %s || '')'', E'',\n'' ORDER BY r::text COLLATE "C") FROM %s r WHERE r.migration_id = $1', literals, relation)
	INTO lines USING migration_id;
	IF lines IS NOT NULL THEN
		RETURN NEXT format(E'INSERT INTO %s (migration_id, %s)\nSELECT m.migration_id, v.* FROM dvmig.migration m, (VALUES\n%s\n) v WHERE m.name = %L;', relation, cols, lines, migration);
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._export_rows(regclass, int, text) IS 'INSERT of the rows that a migration has in a table of the definition';

-- _export_outcomes: names of outcome tables, where they are not what they are by themselves.
CREATE FUNCTION dvmig._export_outcomes(t dvmig.migration_table) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT jsonb_build_object('success_table', nullif(t.success_table::text, to_regclass(dvmig._outcome_name(t.staging, '_success', NULL))::text),
		'error_table', nullif(t.error_table::text, to_regclass(dvmig._outcome_name(t.staging, '_error', NULL))::text))
$$;
COMMENT ON FUNCTION dvmig._export_outcomes(dvmig.migration_table) IS 'names of outcome tables that were chosen';

-- _export_table: the call that registers a staging table. The target key is
-- given with it where its map is the one that the call makes.
CREATE FUNCTION dvmig._export_table(m dvmig.migration, t dvmig.migration_table) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT dvmig._export_call('add_table', ARRAY[m.name, t.staging::text, t.target],
		dvmig._export_arguments('add_table', to_jsonb(t) || jsonb_build_object(
			'source_key', (SELECT string_agg(quote_ident(k), ', ' ORDER BY i) FROM unnest(t.source_key) WITH ORDINALITY u(k, i)),
			'id_column', quote_ident(t.id_column), 'auto_map', false, 'caller', t.caller_id,
			'target_key', CASE WHEN dvmig._export_key_map(t) IS NOT NULL THEN t.target_key END) || dvmig._export_outcomes(t)))
$$;
COMMENT ON FUNCTION dvmig._export_table(dvmig.migration, dvmig.migration_table) IS 'the call that registers a staging table';

-- _export_association: the call that registers a staging table of links.
CREATE FUNCTION dvmig._export_association(m dvmig.migration, t dvmig.migration_table) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT dvmig._export_call('add_association', ARRAY[m.name, t.staging::text, t.relationship]
			|| ARRAY[l.expression, coalesce(l.parent::text, l.referenced_table)] || ARRAY[r.expression, coalesce(r.parent::text, r.referenced_table)],
		dvmig._export_arguments('add_association', to_jsonb(t) || jsonb_build_object('left_match_on', l.match_on, 'right_match_on', r.match_on,
			'source_key', (SELECT string_agg(quote_ident(k), ', ' ORDER BY i) FROM unnest(t.source_key) WITH ORDINALITY u(k, i))) || dvmig._export_outcomes(t)))
	FROM dvmig.column_map l, dvmig.column_map r
	WHERE l.staging = t.staging AND l.target_column = '@left' AND r.staging = t.staging AND r.target_column = '@right'
$$;
COMMENT ON FUNCTION dvmig._export_association(dvmig.migration, dvmig.migration_table) IS 'the call that registers a staging table of links';

-- _export_function: the function that makes such a map.
CREATE FUNCTION dvmig._export_function(c dvmig.column_map) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN c.target_column LIKE '@close:%' THEN 'map_close' WHEN c.kind = 'file' THEN 'map_file' WHEN c.kind = 'party' THEN 'map_party'
		WHEN c.kind = 'value' THEN 'map_column' WHEN c.kind = 'choice' THEN 'map_choice' ELSE 'map_lookup' END
$$;
COMMENT ON FUNCTION dvmig._export_function(dvmig.column_map) IS 'the function that makes such a map';

-- _export_map: the call that makes a map.
CREATE FUNCTION dvmig._export_map(t dvmig.migration_table, server name, c dvmig.column_map) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH f AS (SELECT dvmig._export_function(c) AS name)
	SELECT dvmig._export_call(f.name, ARRAY[t.staging::text, regexp_replace(c.target_column, '^@(close|party):', ''), c.expression]
			|| CASE WHEN c.kind IN ('parent', 'party') AND c.parent IS NOT NULL THEN ARRAY[c.parent::text]
				WHEN c.kind = 'reference' OR c.kind = 'party' AND c.referenced_table IS NOT NULL THEN ARRAY[c.referenced_table] END,
		dvmig._export_arguments(f.name, to_jsonb(c) || jsonb_build_object(
			-- the direction only where it is not what Dataverse's metadata make it
			'send', nullif(c.send, (SELECT dvmig._send(mc, NULL) FROM dvmig.metadata_column mc
				WHERE mc.server = $2 AND mc.table_name = t.target AND mc.column_name = c.target_column)),
			'target_table', CASE WHEN c.kind = 'id' THEN c.referenced_table END)))
	FROM f
$$;
COMMENT ON FUNCTION dvmig._export_map(dvmig.migration_table, name, dvmig.column_map) IS 'the call that makes a column map';

-- _export_key_map: the map of the target key, where add_table() makes the same.
CREATE FUNCTION dvmig._export_key_map(t dvmig.migration_table) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT c.target_column FROM dvmig.column_map c JOIN dvmig.migration m ON m.migration_id = t.migration_id
	WHERE c.staging = t.staging AND c.target_column = t.target_key AND c.kind = 'value' AND cardinality(t.source_key) = 1
	  AND c.expression IN (quote_ident(t.source_key[1]), quote_ident(t.source_key[1]) || '::text')
	  AND dvmig._export_map(t, m.server, c) = dvmig._export_call('map_column', ARRAY[t.staging::text, c.target_column, c.expression], NULL)
$$;
COMMENT ON FUNCTION dvmig._export_key_map(dvmig.migration_table) IS 'the target key, where its map is the one that add_table() makes';

-- _export_comment: a line of comment. A line break in a name would end it, and
-- what follows be a statement of whoever runs the script.
CREATE FUNCTION dvmig._export_comment(words text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT '-- ' || translate($1, E'\n\r', '  ') $$;
COMMENT ON FUNCTION dvmig._export_comment(text) IS 'a line of comment, whatever names are in it';

-- _export_lines: the script, line by line.
CREATE FUNCTION dvmig._export_lines(m dvmig.migration) RETURNS SETOF text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table;
BEGIN
	RETURN NEXT dvmig._export_comment(format('Migration %s to server %s, as defined with dvmig.', m.name, m.server));
	RETURN NEXT '-- Needs the extension, the server with a user mapping, and the staging tables; who runs it owns the migration.';
	RETURN NEXT dvmig._export_comment(format('Owner where it was exported: %s.', m.owner));
	RETURN NEXT '';
	RETURN NEXT dvmig._export_call('create_migration', ARRAY[m.name, m.server::text], dvmig._export_arguments('create_migration', to_jsonb(m)));
	RETURN QUERY SELECT * FROM dvmig._export_settings('migration', ARRAY[m.name], 'create_migration', to_jsonb(m));
	RETURN NEXT '';
	RETURN NEXT '-- Staging tables. The namespace keeps the ids of records as they are: do not change it.';
	FOR t IN SELECT mt.* FROM dvmig.migration_table mt JOIN pg_class k ON k.oid = mt.staging WHERE mt.migration_id = m.migration_id ORDER BY mt.position LOOP
		RETURN NEXT CASE WHEN t.relationship IS NULL THEN dvmig._export_table(m, t) ELSE dvmig._export_association(m, t) END;
	END LOOP;
	FOR t IN SELECT mt.* FROM dvmig.migration_table mt JOIN pg_class k ON k.oid = mt.staging WHERE mt.migration_id = m.migration_id ORDER BY mt.position LOOP
		RETURN NEXT '';
		RETURN NEXT dvmig._export_comment(format('%s to %s', t.staging, t.target));
		RETURN QUERY SELECT dvmig._export_map(t, m.server, c) FROM dvmig.column_map c
			WHERE c.staging = t.staging AND t.relationship IS NULL AND c.target_column IS DISTINCT FROM dvmig._export_key_map(t) ORDER BY c.position;
		RETURN QUERY SELECT DISTINCT q FROM dvmig.column_map c,
			-- what is no column of the table has no direction to set
			dvmig._export_settings('column', ARRAY[t.staging::text, c.target_column], dvmig._export_function(c),
				to_jsonb(c) || CASE WHEN c.target_column LIKE '@%' THEN '{"send": "both"}' ELSE '{}' END::jsonb) q
			WHERE c.staging = t.staging ORDER BY q;
		RETURN QUERY SELECT * FROM dvmig._export_settings('table', ARRAY[t.staging::text],
			CASE WHEN t.relationship IS NULL THEN 'add_table' ELSE 'add_association' END, to_jsonb(t));
		IF t.target_key IS NOT NULL AND dvmig._export_key_map(t) IS NULL THEN
			RETURN NEXT dvmig._export_call('set_table', ARRAY[t.staging::text, 'target_key', t.target_key], NULL);
		END IF;
	END LOOP;
	RETURN NEXT '';
	RETURN QUERY SELECT l FROM unnest('{dvmig.choice_map,dvmig.user_map}'::text[]) WITH ORDINALITY u(name, i),
		dvmig._export_rows(to_regclass(u.name), m.migration_id, m.name) l ORDER BY u.i;
	-- roles are the cluster's: given where they exist
	RETURN QUERY SELECT format('SELECT dvmig.grant_%s(r.rolname, %L) FROM pg_catalog.pg_roles r WHERE r.rolname = %L;', g.access, m.name, r.rolname)
		FROM dvmig.migration_role g JOIN pg_roles r ON r.oid = g.role::oid WHERE g.migration_id = m.migration_id ORDER BY g.access, r.rolname COLLATE "C";
END
$$;
COMMENT ON FUNCTION dvmig._export_lines(dvmig.migration) IS 'the script of dvmig.export(), line by line';

CREATE FUNCTION dvmig._export(caller oid, migration text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'viewer');
BEGIN
	-- choices quote the source, and are the owner's alone
	IF NOT dvmig._may(caller, m.migration_id, 'owner') THEN
		RAISE EXCEPTION 'permission denied for migration "%"', m.name
			USING ERRCODE = 'insufficient_privilege', HINT = format('You must be a member of its owner, role "%s".', m.owner);
	END IF;
	RETURN (SELECT string_agg(l, E'\n' ORDER BY i) || E'\n' FROM dvmig._export_lines(m) WITH ORDINALITY u(l, i));
END
$$;
COMMENT ON FUNCTION dvmig._export(oid, text) IS 'internal part of dvmig.export()';

CREATE FUNCTION dvmig.export(migration text) RETURNS text
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.export(text) IS
	'the definition of a migration as an SQL script that makes it again, with the same ids: for review, version control and other databases. It holds no secrets and no rows';

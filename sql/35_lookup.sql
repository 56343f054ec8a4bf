-- Lookups: to a record of another staging table, to an existing record found
-- by a key, or by a uuid expression.

-- _check_lookup: the Dataverse table a lookup column is to point at, and the
-- navigation property it is bound through.
CREATE FUNCTION dvmig._check_lookup(c dvmig.metadata_column, wanted text, OUT referenced_table text, OUT navigation_property text, OUT several bool)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	targets text[] := ARRAY(SELECT DISTINCT l.referenced_table FROM dvmig.metadata_lookup l
		WHERE l.server = c.server AND l.table_name = c.table_name AND l.column_name = c.column_name ORDER BY 1);
BEGIN
	IF c.column_type = 'PartyList' THEN
		RAISE EXCEPTION 'column "%" is a list of activity parties', c.column_name
			USING ERRCODE = 'wrong_object_type', HINT = 'Map it with dvmig.map_party().';
	ELSIF c.column_type NOT IN ('Lookup', 'Customer', 'Owner') THEN
		RAISE EXCEPTION 'column "%" is of Dataverse type %, not a lookup', c.column_name, c.column_type
			USING ERRCODE = 'wrong_object_type', HINT = 'Map it with dvmig.map_column().';
	ELSIF wanted IS NULL AND cardinality(targets) <> 1 THEN
		RAISE EXCEPTION 'lookup "%" can point at several tables', c.column_name
			USING ERRCODE = 'ambiguous_parameter',
			HINT = format('Say which: target_table => %s.', coalesce(nullif(array_to_string(ARRAY(SELECT quote_literal(x) FROM unnest(targets) x), ' or '), ''), '...'));
	ELSIF wanted IS NOT NULL AND NOT wanted = ANY (targets) THEN
		RAISE EXCEPTION 'lookup "%" of Dataverse table "%" cannot point at table "%"', c.column_name, c.table_name, wanted
			USING ERRCODE = 'invalid_parameter_value',
			HINT = format('It can point at %s.', coalesce(nullif(array_to_string(targets, ', '), ''), 'no table that is known; call dvmig.refresh_metadata()'));
	END IF;
	referenced_table := coalesce(wanted, targets[1]);
	several := cardinality(targets) > 1;
	SELECT l.navigation_property INTO navigation_property FROM dvmig.metadata_lookup l
	WHERE l.server = c.server AND l.table_name = c.table_name AND l.column_name = c.column_name
	  AND l.referenced_table = _check_lookup.referenced_table
	ORDER BY l.navigation_property LIMIT 1;
END
$$;
COMMENT ON FUNCTION dvmig._check_lookup(dvmig.metadata_column, text) IS 'table a lookup is to point at, and its navigation property';

-- _as_key: an expression that is to name a row of a table, compared as the key's own
-- collation has it: with that of the expression a row could name several, and be doubled.
CREATE FUNCTION dvmig._as_key(parent regclass, key text, expression_sql text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('(%s)', $3) || coalesce((SELECT ' COLLATE ' || a.attcollation::regcollation FROM pg_attribute a
		WHERE a.attrelid = $1 AND a.attname = $2 AND NOT a.attisdropped AND a.attcollation <> 0), '')
$$;
COMMENT ON FUNCTION dvmig._as_key(regclass, text, text) IS 'SQL of an expression that is compared with a key';

-- _lookup_expressions: the expressions of a lookup, cast exactly to key types.
CREATE FUNCTION dvmig._lookup_expressions(migration_owner oid, staging regclass, expression text, key_names text[], key_types regtype[],
	OUT expression_sql text[], OUT is_volatile bool)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	e record := dvmig._compile_expressions(migration_owner, staging, expression, cardinality(key_types));
	cast_sql text;
	i int;
BEGIN
	is_volatile := e.is_volatile;
	FOR i IN 1 .. cardinality(key_types) LOOP
		cast_sql := dvmig._exact_cast(e.expression_sql[i], e.result_types[i], key_types[i]);
		IF cast_sql IS NULL THEN
			RAISE EXCEPTION 'an expression of type % cannot name key column "%", which is of type %', e.result_types[i], key_names[i], key_types[i]
				USING ERRCODE = 'datatype_mismatch',
				HINT = format('Write a cast to %s that says what you mean; dvmig itself neither rounds nor shortens a key.', dvmig._base_type(key_types[i]));
		END IF;
		expression_sql := expression_sql || cast_sql;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._lookup_expressions(oid, regclass, text, text[], regtype[]) IS 'expressions of a lookup, cast exactly to the types of the key they name';

-- _match_columns: the key columns of a Dataverse table that match_on names.
CREATE FUNCTION dvmig._match_columns(server name, table_name text, match_on text) RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	cols text[] := ARRAY(SELECT lower(btrim(k)) FROM unnest(string_to_array(btrim(match_on, '{} '), ',')) k);
	k text;
	kc dvmig.metadata_column;
BEGIN
	IF cols = '{}' THEN
		RAISE EXCEPTION 'match_on names no column'
			USING ERRCODE = 'invalid_parameter_value', HINT = format('Name the column of Dataverse table "%s" that holds the key, or several joined by commas.', table_name);
	END IF;
	FOREACH k IN ARRAY cols LOOP
		kc := dvmig._target_column(server, table_name, k);
		IF kc.column_type NOT IN ('String', 'Memo', 'Integer', 'BigInt', 'Uniqueidentifier', 'Picklist') THEN
			RAISE EXCEPTION 'column "%" of Dataverse table "%" is of type % and cannot be matched on', k, table_name, kc.column_type
				USING ERRCODE = 'datatype_mismatch', HINT = 'Match on a text, whole-number or unique-identifier column.';
		END IF;
	END LOOP;
	RETURN cols;
END
$$;
COMMENT ON FUNCTION dvmig._match_columns(name, text, text) IS 'key columns of a Dataverse table that match_on names';

-- _lookup_parent: the staging table of the same migration that a name means, or null.
CREATE FUNCTION dvmig._lookup_parent(caller oid, migration_id int, target text, OUT parent regclass)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	rel regclass := dvmig._caller_regclass(caller, target);
	other text;
BEGIN
	IF rel IS NULL THEN
		RETURN;
	END IF;
	SELECT t.staging, g.name INTO parent, other FROM dvmig.migration_table t JOIN dvmig.migration g USING (migration_id)
	WHERE t.staging = rel;
	IF parent IS NOT NULL AND NOT EXISTS (SELECT FROM dvmig.migration_table t
		WHERE t.staging = rel AND t.migration_id = _lookup_parent.migration_id) THEN
		RAISE EXCEPTION 'table % belongs to another migration, "%"', rel, other
			USING ERRCODE = 'invalid_parameter_value',
			HINT = 'A lookup to a record of another migration goes by a uuid expression, or by match_on.';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._lookup_parent(oid, int, text) IS 'staging table of the same migration that a name means, or null';

CREATE FUNCTION dvmig._map_to_parent(m dvmig.migration, c dvmig.metadata_column, expression text, target_table text, INOUT cm dvmig.column_map, OUT is_volatile bool)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	p dvmig.migration_table;
	l record;
	e record;
BEGIN
	SELECT t.* INTO p FROM dvmig.migration_table t WHERE t.staging = cm.parent;
	IF target_table <> p.target THEN
		RAISE EXCEPTION 'staging table % goes to Dataverse table "%", not "%"', p.staging, p.target, target_table
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave target_table out: the staging table says it.';
	END IF;
	l := dvmig._check_lookup(c, p.target);
	e := dvmig._lookup_expressions(m.owner, cm.staging, expression, p.source_key,
		ARRAY(SELECT a.atttypid::regtype FROM unnest(p.source_key) WITH ORDINALITY k(name, i)
			JOIN pg_attribute a ON a.attrelid = p.staging AND a.attname = k.name ORDER BY k.i));
	cm.kind := 'parent';
	cm.expression_sql := e.expression_sql;
	cm.result_type := 'uuid';
	cm.referenced_table := l.referenced_table;
	cm.navigation_property := l.navigation_property;
	cm.variant := CASE WHEN l.several THEN l.referenced_table ELSE '' END;
	is_volatile := e.is_volatile;
END
$$;
COMMENT ON FUNCTION dvmig._map_to_parent(dvmig.migration, dvmig.metadata_column, text, text, dvmig.column_map) IS 'lookup to a record of another staging table';

CREATE FUNCTION dvmig._map_to_reference(caller oid, m dvmig.migration, c dvmig.metadata_column, expression text, wanted text, match_on text,
	INOUT cm dvmig.column_map, OUT is_volatile bool)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	l record := dvmig._check_lookup(c, wanted);
	cols text[] := ARRAY[lower(btrim(match_on, '{} '))];
	e record;
BEGIN
	PERFORM dvmig._target_table(caller, m.server, l.referenced_table);
	IF cols[1] IN ('user map', 'environment role') THEN
		PERFORM dvmig._ensure_reference(caller, m.server, cols, l.referenced_table);
	ELSE
		cols := dvmig._match_columns(m.server, l.referenced_table, match_on);
	END IF;
	e := dvmig._lookup_expressions(m.owner, cm.staging, expression, cols, array_fill('text'::regtype, ARRAY[cardinality(cols)]));
	cm.kind := 'reference';
	cm.expression_sql := e.expression_sql;
	cm.result_type := 'uuid';
	cm.match_on := cols;
	cm.referenced_table := l.referenced_table;
	cm.navigation_property := l.navigation_property;
	cm.variant := CASE WHEN l.several THEN l.referenced_table ELSE '' END;
	is_volatile := e.is_volatile;
END
$$;
COMMENT ON FUNCTION dvmig._map_to_reference(oid, dvmig.migration, dvmig.metadata_column, text, text, text, dvmig.column_map) IS 'lookup to an existing record, found by a key';

CREATE FUNCTION dvmig._map_to_id(caller oid, m dvmig.migration, c dvmig.metadata_column, expression text, wanted text,
	INOUT cm dvmig.column_map, OUT is_volatile bool)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	l record;
	e record := dvmig._compile_expression(m.owner, cm.staging, expression);
BEGIN
	-- told before the type: what is no table of Dataverse may be a staging table that was misspelt
	IF wanted IS NOT NULL THEN
		PERFORM dvmig._check_lookup(c, wanted);
	END IF;
	IF dvmig._base_type(e.result_type) <> 'uuid'::regtype THEN
		RAISE EXCEPTION 'an expression of type % is not the id of a record', e.result_type
			USING ERRCODE = 'datatype_mismatch',
			HINT = 'Name the staging table that the expression is a key of, or the Dataverse table with match_on => its key column, or write an expression of type uuid.';
	END IF;
	l := dvmig._check_lookup(c, wanted);
	PERFORM dvmig._target_table(caller, m.server, l.referenced_table);
	cm.kind := 'id';
	cm.expression_sql := ARRAY[e.expression_sql];
	cm.result_type := e.result_type;
	cm.referenced_table := l.referenced_table;
	cm.navigation_property := l.navigation_property;
	cm.variant := CASE WHEN l.several THEN l.referenced_table ELSE '' END;
	is_volatile := e.is_volatile;
END
$$;
COMMENT ON FUNCTION dvmig._map_to_id(oid, dvmig.migration, dvmig.metadata_column, text, text, dvmig.column_map) IS 'lookup by an expression that is the record''s id';

-- _map_lookup: "target" is a staging table of this migration, or a Dataverse
-- table. Where a name is both, the staging table is meant; target_table => says
-- the other.
CREATE FUNCTION dvmig._map_lookup(caller oid, staging regclass, target_column text, expression text, target text, match_on text,
	send text, target_table text, fallback bool, on_missing text, default_value text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	b record := dvmig._begin_map(caller, staging, target_column, expression);
	m dvmig.migration := b.m;
	c dvmig.metadata_column := b.c;
	cm dvmig.column_map;
	r record;
	wanted text := lower(btrim(coalesce(target_table, target)));
BEGIN
	cm.staging := staging;
	cm.target_column := c.column_name;
	cm.expression := btrim(expression);
	cm.send := dvmig._send(c, send);
	cm.automatic := false;
	cm.fallback := fallback;
	cm.on_missing := lower(btrim(on_missing));
	cm.default_value := btrim(default_value);
	IF match_on IS NULL AND target IS NOT NULL THEN
		cm.parent := dvmig._lookup_parent(caller, m.migration_id, target);
	END IF;
	IF match_on IS NOT NULL THEN
		r := dvmig._map_to_reference(caller, m, c, expression, wanted, match_on, cm);
	ELSIF cm.parent IS NOT NULL THEN
		r := dvmig._map_to_parent(m, c, expression, lower(btrim(target_table)), cm);
	ELSIF target ~ '[."]' OR target IS NOT NULL AND dvmig._caller_regclass(caller, target) IS NOT NULL
		AND NOT EXISTS (SELECT FROM dvmig.metadata_lookup l WHERE l.server = c.server AND l.table_name = c.table_name
			AND l.column_name = c.column_name AND l.referenced_table = wanted) THEN
		RAISE EXCEPTION '% is not a staging table of migration "%"', target, m.name
			USING ERRCODE = 'undefined_object', HINT = 'Register it with dvmig.add_table() before tables that look it up.';
	ELSE
		r := dvmig._map_to_id(caller, m, c, expression, wanted, cm);
	END IF;
	cm := r.cm;
	PERFORM dvmig._put_map(cm);
	RETURN dvmig._log_map(caller, m.name, 'map_lookup', cm, r.is_volatile);
END
$$;
COMMENT ON FUNCTION dvmig._map_lookup(oid, regclass, text, text, text, text, text, text, bool, text, text) IS 'internal part of dvmig.map_lookup()';

CREATE FUNCTION dvmig.map_lookup(staging regclass, target_column text, expression text, target text DEFAULT NULL, match_on text DEFAULT NULL,
	send text DEFAULT NULL, target_table text DEFAULT NULL, fallback bool DEFAULT false, on_missing text DEFAULT 'error',
	default_value text DEFAULT NULL) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.map_lookup(regclass, text, text, text, text, text, text, bool, text, text) IS
	'fill a lookup: by the key of another staging table, by match_on to an existing record of a Dataverse table, or by an expression of type uuid; fallback: only where the lookups mapped before find nothing; on_missing: error, default (default_value, an id or key), null or park';

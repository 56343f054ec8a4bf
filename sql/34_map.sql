-- Column maps: map_column, map_choice, unmap, and mapping by name.

-- _check_mappable: what holds for every kind of map.
CREATE FUNCTION dvmig._check_mappable(c dvmig.metadata_column, primary_id text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF c.column_name = primary_id THEN
		RAISE EXCEPTION 'column "%" is the id of Dataverse table "%" and is not mapped', c.column_name, c.table_name
			USING ERRCODE = 'invalid_parameter_value',
			HINT = 'dvmig derives it from the source key. To take it from a staging column: dvmig.add_table(..., ids => ''column'', id_column => ''...'').';
	ELSIF c.column_type IN ('State', 'Status') AND c.column_name IN ('statecode', 'statuscode') THEN
		-- set by a pass of its own, whatever a create or update of the row may take
		IF NOT EXISTS (SELECT FROM dvmig.metadata_choice o WHERE o.server = c.server AND o.table_name = c.table_name
			AND o.column_name = 'statuscode' AND o.state_value IS NOT NULL) THEN
			RAISE EXCEPTION 'the states of Dataverse table "%" are not known', c.table_name
				USING ERRCODE = 'object_not_in_prerequisite_state',
				HINT = format('Read them with dvmig.refresh_metadata(%L, %L).', c.server, ARRAY[c.table_name]);
		END IF;
	ELSIF NOT (c.valid_for_create OR c.valid_for_update) AND c.column_type <> 'File' THEN
		RAISE EXCEPTION 'column "%" of Dataverse table "%" is read-only', c.column_name, c.table_name
			USING ERRCODE = 'invalid_parameter_value',
			HINT = CASE WHEN c.column_name = 'createdon' THEN 'Map overriddencreatedon to keep the date a record was created in the source.'
				ELSE 'Dataverse computes it.' END;
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._check_mappable(dvmig.metadata_column, text) IS 'error for columns that no map can fill';

-- _send: direction of a map, from what Dataverse allows. Owner and business
-- unit move access rights with them, so they go with the insert unless asked.
CREATE FUNCTION dvmig._send(c dvmig.metadata_column, wanted text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	allowed text := CASE WHEN NOT c.valid_for_update THEN 'insert' WHEN NOT c.valid_for_create THEN 'update' ELSE 'both' END;
BEGIN
	IF wanted IS NULL THEN
		RETURN CASE WHEN allowed = 'both' AND (c.column_type = 'Owner' OR EXISTS (SELECT FROM dvmig.metadata_lookup l
				WHERE l.server = c.server AND l.table_name = c.table_name AND l.column_name = c.column_name
				  AND l.referenced_table = 'businessunit')) THEN 'insert' ELSE allowed END;
	ELSIF wanted NOT IN ('both', 'insert', 'update') THEN
		RAISE EXCEPTION 'send must be both, insert or update, not "%"', wanted USING ERRCODE = 'invalid_parameter_value';
	ELSIF wanted <> 'insert' AND c.table_name = 'systemuser' AND c.column_name = 'businessunitid' THEN
		RAISE EXCEPTION 'the business unit of a user is not updated'
			USING ERRCODE = 'feature_not_supported',
			DETAIL = 'A user who is moved to another business unit loses his security roles.',
			HINT = 'Leave send out: the business unit goes with the insert. Move users in Dataverse itself.';
	ELSIF allowed <> 'both' AND wanted <> allowed THEN
		RAISE EXCEPTION 'Dataverse takes column "%" with an % only', c.column_name, allowed
			USING ERRCODE = 'invalid_parameter_value', HINT = format('Leave send out, or write send => %L.', allowed);
	END IF;
	RETURN wanted;
END
$$;
COMMENT ON FUNCTION dvmig._send(dvmig.metadata_column, text) IS 'direction of a map: as asked where Dataverse allows it, else its default';

-- _place_map: the variant under which a map is stored, if its column is free for
-- it: one column is filled by one map, or by one lookup for each table it can
-- point at, and by lookups that are tried where those find nothing.
CREATE FUNCTION dvmig._place_map(m dvmig.column_map) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n int := 1;
	place text := m.variant;
BEGIN
	IF NOT coalesce(m.fallback, false) THEN
		IF EXISTS (SELECT FROM dvmig.column_map c WHERE c.staging = m.staging AND c.target_column = m.target_column
			AND (c.variant = m.variant OR '' IN (c.variant, m.variant) OR c.fallback)) THEN
			RAISE EXCEPTION 'column "%" of % is mapped already', m.target_column, m.staging
				USING ERRCODE = 'duplicate_object',
				HINT = concat(format('Take the other map out first: SELECT dvmig.unmap(%L, %L);', m.staging, m.target_column),
					CASE WHEN m.kind IN ('parent', 'reference', 'id') THEN ' A lookup that is to be tried where the others find nothing takes fallback => true.' END);
		END IF;
		RETURN place;
	END IF;
	IF NOT EXISTS (SELECT FROM dvmig.column_map c WHERE c.staging = m.staging AND c.target_column = m.target_column) THEN
		RAISE EXCEPTION 'column "%" of % has no lookup that this one could follow', m.target_column, m.staging
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Map the lookup that is tried first without fallback.';
	END IF;
	WHILE EXISTS (SELECT FROM dvmig.column_map c WHERE c.staging = m.staging AND c.target_column = m.target_column AND c.variant = place) LOOP
		n := n + 1;
		place := ltrim(format('%s %s', m.variant, n));
	END LOOP;
	RETURN place;
END
$$;
COMMENT ON FUNCTION dvmig._place_map(dvmig.column_map) IS 'variant under which a map is stored; an error where its column is mapped already';

-- _put_map: store a map with its policies. It replaces one made by name.
CREATE FUNCTION dvmig._put_map(m dvmig.column_map) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT coalesce(m.fallback, false) THEN
		DELETE FROM dvmig.column_map c WHERE c.staging = m.staging AND c.target_column = m.target_column AND c.automatic;
	END IF;
	m.variant := dvmig._place_map(m);
	m.fallback := coalesce(m.fallback, false);
	m.on_too_long := coalesce(m.on_too_long, 'error');
	m.on_unknown := coalesce(m.on_unknown, 'error');
	m.on_missing := coalesce(m.on_missing, 'error');
	m.sensitive := coalesce(m.sensitive, false) OR m.mask IS NOT NULL;
	m := dvmig._check_policies(m);
	INSERT INTO dvmig.column_map (staging, target_column, variant, kind, expression, expression_sql, result_type,
		send, parent, referenced_table, match_on, navigation_property, automatic, fallback, on_too_long, on_unknown, on_missing,
		default_value, sensitive, mask, mask_sql, file_name)
	VALUES (m.staging, m.target_column, m.variant, m.kind, m.expression, m.expression_sql, m.result_type,
		m.send, m.parent, m.referenced_table, m.match_on, m.navigation_property, m.automatic, m.fallback, m.on_too_long, m.on_unknown, m.on_missing,
		m.default_value, m.sensitive, m.mask, m.mask_sql, m.file_name);
END
$$;
COMMENT ON FUNCTION dvmig._put_map(dvmig.column_map) IS 'store a column map; it replaces an automatic one, and a second one is an error';

-- _begin_map: what every map_* function does first.
CREATE FUNCTION dvmig._begin_map(caller oid, staging regclass, target_column text, expression text,
	OUT t dvmig.migration_table, OUT m dvmig.migration, OUT c dvmig.metadata_column)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	tt dvmig.metadata_table;
BEGIN
	t := dvmig._table(caller, staging, 'owner');
	SELECT g.* INTO m FROM dvmig.migration g WHERE g.migration_id = t.migration_id;
	IF coalesce(btrim(target_column), '') = '' THEN
		RAISE EXCEPTION 'the target column is missing' USING ERRCODE = 'invalid_parameter_value';
	ELSIF coalesce(btrim(expression), '') = '' THEN
		RAISE EXCEPTION 'the expression for column "%" is missing', target_column USING ERRCODE = 'invalid_parameter_value';
	END IF;
	tt := dvmig._target_table(caller, m.server, t.target);
	c := dvmig._target_column(m.server, t.target, lower(btrim(target_column)));
	PERFORM dvmig._check_mappable(c, tt.primary_id);
END
$$;
COMMENT ON FUNCTION dvmig._begin_map(oid, regclass, text, text) IS 'checks common to all column maps';

CREATE FUNCTION dvmig._log_map(caller oid, migration text, kind text, m dvmig.column_map, is_volatile bool) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF is_volatile THEN
		RAISE WARNING 'the expression for column "%" is volatile', m.target_column
			USING HINT = 'It can give another value each time a row is read, so rows flagged again are always sent again.';
	END IF;
	PERFORM dvmig._log(caller, migration, kind, m.staging::text, jsonb_build_object('target_column', m.target_column,
		'expression', m.expression, 'send', m.send, 'parent', m.parent::text, 'referenced_table', m.referenced_table, 'match_on', m.match_on,
		'file_name', m.file_name) || dvmig._policies_told(m));
	RETURN format('%s: %s <- %s%s%s', m.staging, m.target_column, replace(m.expression, chr(10), ', '), ', named ' || m.file_name,
		CASE m.send WHEN 'both' THEN '' ELSE format(' (%s only)', m.send) END);
END
$$;
COMMENT ON FUNCTION dvmig._log_map(oid, text, text, dvmig.column_map, bool) IS 'note a new map, and tell it';

-- _is_body: whether a text column holds a file as base64: bytes fill it, too.
CREATE FUNCTION dvmig._is_body(table_name text, column_name text) RETURNS bool
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT ($1, $2) IN (('annotation', 'documentbody'), ('activitymimeattachment', 'body')) $$;
COMMENT ON FUNCTION dvmig._is_body(text, text) IS 'whether a text column holds a file as base64';

-- _check_type: error unless values of the type can be written for the column.
CREATE FUNCTION dvmig._check_type(c dvmig.metadata_column, type regtype) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	a record;
BEGIN
	IF c.column_type IN ('Lookup', 'Customer', 'Owner') THEN
		RAISE EXCEPTION 'column "%" is a lookup', c.column_name
			USING ERRCODE = 'wrong_object_type', HINT = 'Map it with dvmig.map_lookup().';
	ELSIF c.column_type = 'PartyList' THEN
		RAISE EXCEPTION 'column "%" is a list of activity parties', c.column_name
			USING ERRCODE = 'wrong_object_type', HINT = 'Map it with dvmig.map_party().';
	END IF;
	SELECT p.accepted, p.cast_hint INTO a FROM dvmig._payload_accepts(dvmig._base_type(type),
		CASE WHEN dvmig._is_body(c.table_name, c.column_name) AND dvmig._base_type(type) = 'bytea'::regtype THEN 'Image' ELSE c.column_type END, c.date_behavior) p(accepted, cast_hint);
	IF a.accepted IS NOT TRUE THEN
		RAISE EXCEPTION 'an expression of type % cannot fill column "%", which is of Dataverse type %', type, c.column_name,
			c.column_type || coalesce(' (' || c.date_behavior || ')', '')
			USING ERRCODE = 'datatype_mismatch',
			HINT = CASE WHEN c.column_type IN ('Picklist', 'State', 'Status') THEN 'Map texts with dvmig.map_choice(), or write a cast to integer.'
				WHEN c.column_type = 'MultiSelectPicklist' THEN 'Map labels with dvmig.map_choice(), or values as integer[].'
				WHEN a.cast_hint IS NOT NULL THEN format('Write a cast: (...)%s.', a.cast_hint)
				WHEN c.column_type = 'File' THEN 'Map it with dvmig.map_file().'
				WHEN c.column_type IN ('Virtual', 'EntityName', 'ManagedProperty', 'CalendarRules') THEN 'Columns of this type are not loaded with the row.'
				ELSE 'Write an expression of a type that the column takes.' END;
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._check_type(dvmig.metadata_column, regtype) IS 'error unless values of the type can be written for the column, naming the cast to write';

CREATE FUNCTION dvmig._map_column(caller oid, staging regclass, target_column text, expression text, send text,
	on_too_long text, on_unknown text, default_value text, sensitive bool, mask text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	b record := dvmig._begin_map(caller, staging, target_column, expression);
	e record := dvmig._compile_expression((b.m).owner, staging, expression);
	m dvmig.column_map;
BEGIN
	PERFORM dvmig._check_type(b.c, e.result_type);
	m.staging := staging;
	m.target_column := (b.c).column_name;
	m.variant := '';
	m.kind := 'value';
	m.expression := btrim(expression);
	m.expression_sql := ARRAY[e.expression_sql];
	m.result_type := e.result_type;
	m.send := dvmig._send(b.c, send);
	m.automatic := false;
	m.on_too_long := lower(btrim(on_too_long));
	m.on_unknown := lower(btrim(on_unknown));
	m.default_value := default_value;
	m.sensitive := sensitive;
	m.mask := mask;
	PERFORM dvmig._put_map(m);
	RETURN dvmig._log_map(caller, (b.m).name, 'map_column', m, e.is_volatile);
END
$$;
COMMENT ON FUNCTION dvmig._map_column(oid, regclass, text, text, text, text, text, text, bool, text) IS 'internal part of dvmig.map_column()';

CREATE FUNCTION dvmig.map_column(staging regclass, target_column text, expression text, send text DEFAULT NULL,
	on_too_long text DEFAULT 'error', on_unknown text DEFAULT 'error', default_value text DEFAULT NULL,
	sensitive bool DEFAULT false, mask text DEFAULT NULL) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.map_column(regclass, text, text, text, text, text, text, bool, text) IS
	'fill a Dataverse column from an SQL expression over the staging row; send: both, insert or update (default: what Dataverse allows); on_too_long: error or trim; on_unknown: error, default or null; sensitive, mask: what servers that are not production get instead';

-- _choice_source: the expression of a choice as text, or as texts for choices.
CREATE FUNCTION dvmig._choice_source(c dvmig.metadata_column, expression_sql text, type regtype, OUT source_sql text, OUT source_type regtype)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	source_type := 'text';
	source_sql := dvmig._exact_cast(expression_sql, type, 'text');
	IF source_sql IS NULL AND dvmig._base_type(type) = 'boolean'::regtype THEN
		source_sql := format('(%s)::text', expression_sql);
	ELSIF source_sql IS NULL AND c.column_type = 'MultiSelectPicklist' AND EXISTS (SELECT FROM pg_type a JOIN pg_type e ON e.oid = a.typelem
		WHERE a.oid = dvmig._base_type(type) AND a.typcategory = 'A' AND dvmig._exact_cast('x', e.oid, 'text') IS NOT NULL) THEN
		source_sql := format('(%s)::text[]', expression_sql);
		source_type := 'text[]';
	END IF;
	IF source_sql IS NULL THEN
		RAISE EXCEPTION 'an expression of type % cannot name a choice', type
			USING ERRCODE = 'datatype_mismatch', HINT = 'Write a cast to text.';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._choice_source(dvmig.metadata_column, text, regtype) IS 'expression of a choice, cast to the text or texts that are looked for';

CREATE FUNCTION dvmig._map_choice(caller oid, staging regclass, target_column text, expression text, send text,
	on_unknown text, default_value text, sensitive bool, mask text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	b record := dvmig._begin_map(caller, staging, target_column, expression);
	e record := dvmig._compile_expression((b.m).owner, staging, expression);
	m dvmig.column_map;
	col dvmig.metadata_column := b.c;
	s record;
BEGIN
	IF col.column_type NOT IN ('Picklist', 'MultiSelectPicklist', 'Boolean', 'State', 'Status') THEN
		RAISE EXCEPTION 'column "%" is of Dataverse type %, not a choice', col.column_name, col.column_type
			USING ERRCODE = 'wrong_object_type', HINT = 'Map it with dvmig.map_column().';
	END IF;
	s := dvmig._choice_source(col, e.expression_sql, e.result_type);
	m.expression_sql := ARRAY[s.source_sql];
	m.staging := staging;
	m.target_column := col.column_name;
	m.variant := '';
	m.kind := 'choice';
	m.expression := btrim(expression);
	m.result_type := s.source_type;
	m.send := dvmig._send(col, send);
	m.automatic := false;
	m.on_unknown := lower(btrim(on_unknown));
	m.default_value := default_value;
	m.sensitive := sensitive;
	m.mask := mask;
	PERFORM dvmig._put_map(m);
	RETURN dvmig._log_map(caller, (b.m).name, 'map_choice', m, e.is_volatile);
END
$$;
COMMENT ON FUNCTION dvmig._map_choice(oid, regclass, text, text, text, text, text, bool, text) IS 'internal part of dvmig.map_choice()';

CREATE FUNCTION dvmig.map_choice(staging regclass, target_column text, expression text, send text DEFAULT NULL,
	on_unknown text DEFAULT 'error', default_value text DEFAULT NULL, sensitive bool DEFAULT false, mask text DEFAULT NULL) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.map_choice(regclass, text, text, text, text, text, bool, text) IS
	'fill a choice, choices or yes/no column from a text: by dvmig.choice_map, or by the choice''s label or value; on_unknown: error, default (default_value, a label or value) or null';

CREATE FUNCTION dvmig._unmap(caller oid, staging regclass, target_column text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table := dvmig._table(caller, staging, 'owner');
	col text := lower(btrim(target_column));
	before text := (SELECT string_agg(c.expression, '; ' ORDER BY c.variant) FROM dvmig.column_map c WHERE c.staging = t.staging AND c.target_column = col);
BEGIN
	DELETE FROM dvmig.column_map c WHERE c.staging = t.staging AND c.target_column = col;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'column "%" of % is not mapped', col, staging
			USING ERRCODE = 'undefined_object',
			HINT = coalesce('Did you mean ' || dvmig._near(col, ARRAY(SELECT c.target_column FROM dvmig.column_map c WHERE c.staging = t.staging)) || '?',
				'dvmig.column_map lists the maps.');
	END IF;
	IF col = t.target_key THEN
		UPDATE dvmig.migration_table mt SET target_key = NULL WHERE mt.staging = t.staging;
	END IF;
	PERFORM dvmig._log(caller, (SELECT m.name FROM dvmig.migration m WHERE m.migration_id = t.migration_id), 'unmap',
		staging::text, jsonb_build_object('target_column', col, 'before', before));
	RETURN format('%s: %s is no longer mapped', staging, col);
END
$$;
COMMENT ON FUNCTION dvmig._unmap(oid, regclass, text) IS 'internal part of dvmig.unmap()';

CREATE FUNCTION dvmig.unmap(staging regclass, target_column text) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.unmap(regclass, text) IS 'take a column map out, with all its variants';

-- _auto_map: map staging columns that bear a target column's name, where their
-- type fits; returns the names mapped.
CREATE FUNCTION dvmig._auto_map(t dvmig.migration_table, server name) RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	done text[] := '{}';
	a record;
	m dvmig.column_map;
BEGIN
	FOR a IN
		SELECT p.attname, p.atttypid::regtype AS type, mc AS meta, tt.primary_id, l.referenced_table, l.navigation_property
		FROM pg_attribute p
		JOIN dvmig.metadata_column mc ON mc.server = _auto_map.server AND mc.table_name = t.target AND mc.column_name = lower(p.attname)
		JOIN dvmig.metadata_table tt ON tt.server = mc.server AND tt.table_name = mc.table_name
		-- a lookup to one table only; which of several is meant a uuid does not say
		LEFT JOIN (SELECT ml.server, ml.table_name, ml.column_name, min(ml.referenced_table) AS referenced_table, min(ml.navigation_property) AS navigation_property
			FROM dvmig.metadata_lookup ml GROUP BY 1, 2, 3 HAVING count(*) = 1) l
			ON l.server = mc.server AND l.table_name = mc.table_name AND l.column_name = mc.column_name
		WHERE p.attrelid = t.staging AND p.attnum > 0 AND NOT p.attisdropped
		  AND p.attname NOT IN ('processing_flag', 'action_flag', 'dm_created_at', 'dataverse_id')
		  AND p.attname IS DISTINCT FROM t.id_column
		  AND mc.column_name <> tt.primary_id AND (mc.valid_for_create OR mc.valid_for_update)
		  AND mc.column_type NOT IN ('State', 'Status', 'Customer', 'Owner', 'PartyList')
		  AND NOT EXISTS (SELECT FROM dvmig.column_map c WHERE c.staging = t.staging AND c.target_column = mc.column_name)
		ORDER BY p.attnum
	LOOP
		m := NULL;
		IF (a.meta).column_type = 'Lookup' THEN
			CONTINUE WHEN a.referenced_table IS NULL OR dvmig._base_type(a.type) <> 'uuid'::regtype;
			m.kind := 'id';
			m.referenced_table := a.referenced_table;
			m.navigation_property := a.navigation_property;
		ELSE
			CONTINUE WHEN NOT coalesce((SELECT p.accepted FROM dvmig._payload_accepts(dvmig._base_type(a.type), (a.meta).column_type, (a.meta).date_behavior) p(accepted, hint)), false);
			m.kind := 'value';
		END IF;
		m.staging := t.staging;
		m.target_column := (a.meta).column_name;
		m.variant := '';
		m.expression := quote_ident(a.attname);
		m.expression_sql := ARRAY[format('s.%I', a.attname)];
		m.result_type := a.type;
		m.send := dvmig._send(a.meta, NULL);
		m.automatic := true;
		CONTINUE WHEN (a.meta).column_name = ANY (done);	-- "Name" and name: the first
		PERFORM dvmig._put_map(m);
		done := done || (a.meta).column_name;
	END LOOP;
	RETURN done;
END
$$;
COMMENT ON FUNCTION dvmig._auto_map(dvmig.migration_table, name) IS 'map staging columns that bear a target column''s name';

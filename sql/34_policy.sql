-- Policies of column maps for errors that have a known remedy, and masks; and
-- set_column, which changes them afterwards.
--
-- None is a default: where nothing was said, a value that does not fit is the
-- row's error. What a policy did is told in the message of the success row.

INSERT INTO dvmig.setting (applies_to, name, allowed, about) VALUES
	('column', 'send', '{both,insert,update}', 'direction: with creates, with updates, or both'),
	('column', 'on_too_long', '{error,trim}', 'what becomes of a text that is longer than the column'),
	('column', 'on_unknown', '{error,default,"null"}', 'what becomes of a source text that stands for no choice'),
	('column', 'on_missing', '{error,default,"null",park}', 'what becomes of a key that no record has');
INSERT INTO dvmig.setting (applies_to, name, about) VALUES
	('column', 'default_value', 'label or value of a choice, or id or key of a record, for on_unknown and on_missing'),
	('column', 'sensitive', 'the value goes to a production server only; others get the mask'),
	('column', 'mask', 'expression whose value servers that are not production get');

-- _policies_told: the policies of a map that are not the default, for the log.
CREATE FUNCTION dvmig._policies_told(m dvmig.column_map) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT jsonb_strip_nulls(jsonb_build_object('fallback', nullif(m.fallback, false), 'on_too_long', nullif(m.on_too_long, 'error'),
		'on_unknown', nullif(m.on_unknown, 'error'), 'on_missing', nullif(m.on_missing, 'error'), 'default_value', m.default_value,
		'sensitive', nullif(m.sensitive OR m.mask IS NOT NULL, false), 'mask', m.mask))
$$;
COMMENT ON FUNCTION dvmig._policies_told(dvmig.column_map) IS 'policies of a map that are not the default';

-- _check_policy_words: one of the words that a policy takes.
CREATE FUNCTION dvmig._check_policy_words(m dvmig.column_map) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	p record;
BEGIN
	FOR p IN SELECT s.name, s.allowed, v.chosen FROM dvmig.setting s
		JOIN (VALUES ('on_too_long', m.on_too_long), ('on_unknown', m.on_unknown), ('on_missing', m.on_missing)) v (name, chosen) USING (name)
		WHERE s.applies_to = 'column'
	LOOP
		IF p.chosen <> ALL (p.allowed) THEN
			RAISE EXCEPTION '% must be one of %, not "%"', p.name, array_to_string(p.allowed, ', '), p.chosen
				USING ERRCODE = 'invalid_parameter_value';
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._check_policy_words(dvmig.column_map) IS 'error for a policy that does not exist';

-- _check_mask: compile the mask; what it gives must fit the column like the value.
CREATE FUNCTION dvmig._check_mask(m dvmig.column_map, g dvmig.migration, c dvmig.metadata_column) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	e record;
	s record;
BEGIN
	IF m.kind NOT IN ('value', 'choice', 'file') AND NOT (m.kind = 'party' AND m.referenced_table IS NULL) THEN
		RAISE EXCEPTION 'column "%" is a lookup and cannot be sensitive', m.target_column
			USING ERRCODE = 'feature_not_supported', HINT = 'A lookup holds the id of a record. Mask the columns of that record.';
	ELSIF m.target_column IN ('statecode', 'statuscode') THEN
		RAISE EXCEPTION 'column "%" is the state of a record and cannot be sensitive', m.target_column USING ERRCODE = 'feature_not_supported';
	ELSIF m.mask IS NULL THEN
		RETURN NULL;
	END IF;
	PERFORM dvmig._draw_mask_key(g.migration_id);
	e := dvmig._compile_expression(g.owner, m.staging, m.mask);
	IF e.is_volatile THEN
		RAISE EXCEPTION 'the mask for column "%" is volatile', m.target_column
			USING ERRCODE = 'invalid_parameter_value',
			HINT = 'A row must get the same mask each time it is read; see dvmig.mask_text() and its like.';
	ELSIF m.kind = 'value' THEN
		PERFORM dvmig._check_type(c, e.result_type);
		RETURN format('(%s)', e.expression_sql);
	ELSIF m.kind IN ('file', 'party') THEN
		IF dvmig._base_type(e.result_type) <> dvmig._base_type(m.result_type) THEN
			RAISE EXCEPTION 'the mask for "%" is of type %, not %', m.target_column, e.result_type, m.result_type USING ERRCODE = 'datatype_mismatch';
		END IF;
		RETURN format('(%s)', e.expression_sql);
	END IF;
	s := dvmig._choice_source(c, e.expression_sql, e.result_type);
	RETURN s.source_sql;
END
$$;
COMMENT ON FUNCTION dvmig._check_mask(dvmig.column_map, dvmig.migration, dvmig.metadata_column) IS 'SQL of a map''s mask, checked';

-- _check_default_key: the default of a lookup to a staging table is an id, or the
-- source key of the row that is meant.
CREATE FUNCTION dvmig._check_default_key(m dvmig.column_map) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	par dvmig.migration_table;
	key_type text;
BEGIN
	SELECT t.* INTO par FROM dvmig.migration_table t WHERE t.staging = m.parent;
	IF cardinality(par.source_key) > 1 THEN
		RAISE EXCEPTION 'the default of this lookup must be an id, not "%"', m.default_value
			USING ERRCODE = 'invalid_parameter_value', DETAIL = format('The source key of %s has several columns.', m.parent),
			HINT = format('SELECT dataverse_id FROM %s WHERE ...; or dvmig.record_id() gives it.', m.parent);
	END IF;
	SELECT format_type(dvmig._base_type(a.atttypid), NULL) INTO key_type FROM pg_attribute a WHERE a.attrelid = m.parent AND a.attname = par.source_key[1];
	EXECUTE format('SELECT %L::%s', m.default_value, key_type);
EXCEPTION WHEN data_exception THEN
	RAISE EXCEPTION 'the default "%" is neither an id nor a source key of %', m.default_value, m.parent
		USING ERRCODE = 'invalid_parameter_value', HINT = format('The key is of type %s.', key_type);
END
$$;
COMMENT ON FUNCTION dvmig._check_default_key(dvmig.column_map) IS 'error for a default of a lookup to a staging table that cannot be a source key of it';

-- _check_default: a default must be one.
CREATE FUNCTION dvmig._check_default(m dvmig.column_map, g dvmig.migration, c dvmig.metadata_column) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF m.default_value IS NULL THEN
		RAISE EXCEPTION 'the default for column "%" is missing', m.target_column
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Give default_value.';
	ELSIF m.on_unknown = 'default' THEN
		IF dvmig._choice_default(m.staging, m.target_column, m.default_value) IS NULL THEN
			RAISE EXCEPTION '"%" is no value of choice column "%"', m.default_value, m.target_column
				USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Choices are ' || (SELECT coalesce(string_agg(format('%s %s', o.choice_value, quote_literal(o.label)), ', ' ORDER BY o.choice_value), 'not known') FROM dvmig.metadata_choice o
					WHERE o.server = c.server AND o.table_name = c.table_name AND o.column_name = c.column_name) || '.';
		END IF;
	ELSIF NOT dvmig._is_uuid(m.default_value) AND m.kind = 'parent' THEN
		PERFORM dvmig._check_default_key(m);
	ELSIF NOT dvmig._is_uuid(m.default_value) AND cardinality(m.match_on) > 1 THEN
		RAISE EXCEPTION 'the default of this lookup must be an id, not "%"', m.default_value
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Only where one column is matched on, the default can be a key.';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._check_default(dvmig.column_map, dvmig.migration, dvmig.metadata_column) IS 'error for a default that is none';

-- _check_policies: policies against the kind of map and column; fills mask_sql.
CREATE FUNCTION dvmig._check_policies(m dvmig.column_map) RETURNS dvmig.column_map
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	g dvmig.migration;
	c dvmig.metadata_column;
	lookup bool := m.kind IN ('parent', 'reference', 'id');
BEGIN
	PERFORM dvmig._check_policy_words(m);
	SELECT q.* INTO g FROM dvmig.migration_table t JOIN dvmig.migration q USING (migration_id) WHERE t.staging = m.staging;
	SELECT mc.* INTO c FROM dvmig.migration_table t
	JOIN dvmig.metadata_column mc ON mc.server = g.server
		AND mc.table_name = CASE WHEN m.target_column LIKE '@close:%' THEN dvmig._close_activity(t.target) ELSE t.target END
		AND mc.column_name = regexp_replace(m.target_column, '^@close:', '')
	WHERE t.staging = m.staging;
	IF m.on_too_long <> 'error' AND (m.kind <> 'value' OR c.column_type NOT IN ('String', 'Memo')) THEN
		RAISE EXCEPTION 'on_too_long is for text columns, and "%" is of Dataverse type %', m.target_column, c.column_type
			USING ERRCODE = 'invalid_parameter_value';
	ELSIF m.on_unknown <> 'error' AND (lookup OR m.kind = 'value' AND c.column_type <> 'Picklist') THEN
		RAISE EXCEPTION 'on_unknown is for choices, and "%" is of Dataverse type %', m.target_column, c.column_type
			USING ERRCODE = 'invalid_parameter_value',
			HINT = CASE WHEN lookup THEN 'Lookups take on_missing.' WHEN c.column_type IN ('MultiSelectPicklist', 'Boolean') THEN 'Map it with dvmig.map_choice().'
				ELSE 'Leave it out for other columns.' END;
	ELSIF m.on_missing <> 'error' AND NOT (m.kind IN ('parent', 'reference') OR m.kind = 'id' AND m.fallback) THEN
		RAISE EXCEPTION 'on_missing is for lookups that are resolved, and "%" is %', m.target_column,
			CASE WHEN lookup THEN 'mapped by an id' ELSE format('of Dataverse type %s', c.column_type) END
			USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF 'default' IN (m.on_unknown, m.on_missing) THEN
		PERFORM dvmig._check_default(m, g, c);
	END IF;
	m.mask_sql := CASE WHEN m.sensitive THEN dvmig._check_mask(m, g, c) END;
	RETURN m;
END
$$;
COMMENT ON FUNCTION dvmig._check_policies(dvmig.column_map) IS 'error for policies that do not go with a map; compiles its mask';

-- ----------------------------------------------------------------------- masks

-- _unmasked: sensitive columns without a mask, where they must not go as they are.
CREATE FUNCTION dvmig._unmasked(m dvmig.migration) RETURNS TABLE (staging regclass, target_column text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT c.staging, c.target_column
	FROM dvmig.column_map c JOIN dvmig.migration_table t ON t.staging = c.staging
	WHERE t.migration_id = m.migration_id AND c.sensitive AND c.mask IS NULL AND NOT dvmig._is_production(m.server)
	ORDER BY t.position, c.position
$$;
COMMENT ON FUNCTION dvmig._unmasked(dvmig.migration) IS 'sensitive columns without a mask, of a migration to a server that is not production';

-- _refuse_unmasked: error where a run would send what it must not.
CREATE FUNCTION dvmig._refuse_unmasked(m dvmig.migration) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	bare text := (SELECT string_agg(format('%s of %s', u.target_column, u.staging), ', ') FROM dvmig._unmasked(m) u);
BEGIN
	IF bare IS NOT NULL THEN
		RAISE EXCEPTION 'server "%" is not production, and sensitive columns have no mask', m.server
			USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = format('Without a mask: %s.', bare),
			HINT = 'SELECT dvmig.set_column(staging, column, ''mask'', expression); dvmig.mask_text() and its like make such expressions.';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._refuse_unmasked(dvmig.migration) IS 'error where sensitive columns would go unmasked to a server that is not production';

-- _shown_sql: SQL of a map's source as its server may see it: of what is sensitive
-- the mask, and nothing where there is none, unless the server is production.
CREATE FUNCTION dvmig._shown_sql(cm dvmig.column_map) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration;
BEGIN
	SELECT g.* INTO m FROM dvmig.migration_table t JOIN dvmig.migration g USING (migration_id) WHERE t.staging = cm.staging;
	IF NOT cm.sensitive OR dvmig._is_production(m.server) THEN
		RETURN cm.expression_sql[1];
	ELSIF cm.mask_sql IS NULL THEN
		RETURN format('NULL::%s', cm.result_type);
	END IF;
	PERFORM dvmig._mask_key(m);
	RETURN format('CASE WHEN (%s) IS NOT NULL THEN %s END', cm.expression_sql[1], cm.mask_sql);
END
$$;
COMMENT ON FUNCTION dvmig._shown_sql(dvmig.column_map) IS 'SQL of a map''s source, or of its mask where its server may see no more';

-- _check_sensitive: the same for dvmig.check().
CREATE FUNCTION dvmig._check_sensitive(m dvmig.migration) RETURNS SETOF jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT jsonb_build_object('severity', 'error', 'staging', u.staging::text, 'target_column', u.target_column, 'rule', 'sensitive_without_mask',
		'message', format('the column is sensitive and has no mask, and server "%s" is not production: no run starts', m.server),
		'hint', 'Give it one: SELECT dvmig.set_column(staging, column, ''mask'', expression).')
	FROM dvmig._unmasked(m) u
$$;
COMMENT ON FUNCTION dvmig._check_sensitive(dvmig.migration) IS 'findings about sensitive columns without a mask';

-- ------------------------------------------------------------------ set_column

-- _set_policy: a map with one setting changed.
CREATE FUNCTION dvmig._set_policy(cm dvmig.column_map, s dvmig.setting, v text) RETURNS dvmig.column_map
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table;
	c dvmig.metadata_column;
BEGIN
	SELECT mt.* INTO t FROM dvmig.migration_table mt WHERE mt.staging = cm.staging;
	CASE s.name
	WHEN 'send' THEN
		c := dvmig._target_column((SELECT g.server FROM dvmig.migration g WHERE g.migration_id = t.migration_id), t.target, cm.target_column);
		cm.send := dvmig._send(c, v);
	WHEN 'on_too_long' THEN cm.on_too_long := coalesce(v, 'error');
	WHEN 'on_unknown' THEN cm.on_unknown := coalesce(v, 'error');
	WHEN 'on_missing' THEN cm.on_missing := coalesce(v, 'error');
	WHEN 'default_value' THEN cm.default_value := btrim(v);
	WHEN 'sensitive' THEN
		cm.sensitive := coalesce(v::bool, false);
		IF NOT cm.sensitive AND cm.mask IS NOT NULL THEN
			RAISE EXCEPTION 'column "%" of % has a mask', cm.target_column, cm.staging
				USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Take the mask out first: set it to null.';
		END IF;
	WHEN 'by_level' THEN
		IF v::bool AND NOT (cm.kind = 'parent' AND cm.parent = cm.staging) THEN
			RAISE EXCEPTION 'column "%" of % is no lookup to the same staging table', cm.target_column, cm.staging
				USING ERRCODE = 'invalid_parameter_value', HINT = 'Other lookups go by waves: parents are loaded first as it is.';
		END IF;
		cm.by_level := v::bool;
	WHEN 'mask' THEN
		cm.mask := v;
		cm.sensitive := cm.sensitive OR v IS NOT NULL;
	END CASE;
	cm.automatic := false;	-- what was decided about it is not to be lost
	RETURN dvmig._check_policies(cm);
END
$$;
COMMENT ON FUNCTION dvmig._set_policy(dvmig.column_map, dvmig.setting, text) IS 'a column map with one setting changed, checked';

CREATE FUNCTION dvmig._set_column(caller oid, staging regclass, target_column text, setting text, value text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table := dvmig._table(caller, staging, 'owner');
	s dvmig.setting := dvmig._setting(caller, t.migration_id, 'column', setting);
	col text := lower(btrim(target_column));
	v text := dvmig._setting_value(s, value, (SELECT a.atttypid::regtype FROM pg_attribute a WHERE a.attrelid = 'dvmig.column_map'::regclass AND a.attname = s.name));
	cm dvmig.column_map;
	n dvmig.column_map;
	before text;
	after text;
	done bool := false;
BEGIN
	FOR cm IN SELECT c.* FROM dvmig.column_map c WHERE c.staging = t.staging AND c.target_column = col ORDER BY c.position LOOP
		-- an id is taken as it is: nothing about it can be missing
		CONTINUE WHEN cm.kind = 'id' AND NOT cm.fallback AND s.name IN ('on_missing', 'default_value')
			AND EXISTS (SELECT FROM dvmig.column_map o WHERE o.staging = t.staging AND o.target_column = col AND o.kind <> 'id');
		n := dvmig._set_policy(cm, s, v);
		before := to_jsonb(cm) ->> s.name;
		after := to_jsonb(n) ->> s.name;
		UPDATE dvmig.column_map c SET send = n.send, on_too_long = n.on_too_long, on_unknown = n.on_unknown, on_missing = n.on_missing,
			default_value = n.default_value, sensitive = n.sensitive, mask = n.mask, mask_sql = n.mask_sql, by_level = n.by_level, automatic = false
		WHERE c.staging = cm.staging AND c.target_column = cm.target_column AND c.variant = cm.variant;
		done := true;
	END LOOP;
	IF NOT done THEN
		RAISE EXCEPTION 'column "%" of % is not mapped', col, staging
			USING ERRCODE = 'undefined_object',
			HINT = coalesce('Did you mean ' || dvmig._near(col, ARRAY(SELECT c.target_column FROM dvmig.column_map c WHERE c.staging = t.staging)) || '?',
				'dvmig.column_map lists the maps.');
	END IF;
	PERFORM dvmig._log(caller, (SELECT m.name FROM dvmig.migration m WHERE m.migration_id = t.migration_id), 'set_column', staging::text,
		jsonb_build_object('target_column', col, 'setting', s.name, 'before', before, 'after', after));
	RETURN format('%s: %s of %s is %s', staging, s.name, col, coalesce(quote_literal(after), 'none'))
		|| CASE WHEN before IS NOT DISTINCT FROM after THEN ', as it was' ELSE format(' instead of %s', coalesce(quote_literal(before), 'none')) END;
END
$$;
COMMENT ON FUNCTION dvmig._set_column(oid, regclass, text, text, text) IS 'internal part of dvmig.set_column()';

CREATE FUNCTION dvmig.set_column(staging regclass, target_column text, setting text, value text) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.set_column(regclass, text, text, text) IS
	'change a setting of a column map, such as on_too_long or mask; null sets the default; dvmig.setting lists the settings';

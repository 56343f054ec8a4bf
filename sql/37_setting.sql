-- Settings of a migration or staging table, changed after they were defined.
--
-- The list is dvmig.setting. A setting is a column of dvmig.migration or
-- dvmig.migration_table; what goes with a change beyond that column is done by
-- its "adjust" function, in the same transaction.

INSERT INTO dvmig.setting (applies_to, name, lowest, highest, during_run, about) VALUES
	('migration', 'gate', 0, 100, true, 'per cent of failed rows in a table above which the tables that depend on it are held; 100: never');
INSERT INTO dvmig.setting (applies_to, name, allowed, about) VALUES
	('table', 'on_closed', '{error,reopen}', 'what becomes of a change for a record that is closed in Dataverse'),
	('table', 'on_exists', '{update,keep,error}', 'what becomes of a record that exists already and is not known to be ours');
INSERT INTO dvmig.setting (applies_to, name, lowest, during_run, about) VALUES
	('table', 'max_errors', 0, true, 'rows of the table that may fail in a run before it is stopped, from its next pass on; 0: stop at the first; null: no limit');
INSERT INTO dvmig.setting (applies_to, name, lowest, highest, during_run, about) VALUES
	('table', 'max_error_rate', 0, 100, true, 'per cent of the answered rows of the table that may fail in a run before it is stopped, from its next pass on; null: no limit');
INSERT INTO dvmig.setting (applies_to, name, adjust, about) VALUES
	('table', 'filter', '_adjust_filter', 'condition over the staging row; rows for which it is not true are left out'),
	('table', 'filter_reason', '_adjust_filter', 'why rows are left out, for those who read the figures'),
	('table', 'target_key', '_adjust_target_key', 'Dataverse column that carries the source key; it is mapped');

-- _setting: the setting of that name, if it may be changed now and by this role.
CREATE FUNCTION dvmig._setting(caller oid, migration_id int, applies_to text, setting text) RETURNS dvmig.setting
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	s dvmig.setting;
	valid text[] := ARRAY(SELECT g.name FROM dvmig.setting g WHERE g.applies_to = _setting.applies_to ORDER BY 1);
BEGIN
	SELECT g.* INTO s FROM dvmig.setting g
	WHERE g.applies_to = _setting.applies_to AND g.name = lower(btrim(setting));
	IF s.name IS NULL THEN
		RAISE EXCEPTION 'a % has no setting "%"', CASE applies_to WHEN 'table' THEN 'staging table' WHEN 'column' THEN 'column map' ELSE applies_to END, coalesce(setting, '')
			USING ERRCODE = 'undefined_object',
			HINT = concat('Did you mean ' || dvmig._near(setting, valid) || '? ', 'Settings are: ', array_to_string(valid, ', '), '.');
	END IF;
	IF s.access = 'owner' THEN
		PERFORM dvmig._migration(caller, m.name, 'owner') FROM dvmig.migration m WHERE m.migration_id = _setting.migration_id;
	END IF;
	IF NOT s.during_run THEN
		PERFORM dvmig._refuse_during_run(migration_id);
	END IF;
	RETURN s;
END
$$;
COMMENT ON FUNCTION dvmig._setting(oid, int, text, text) IS 'the setting of that name, if the caller may change it now; else an error that lists the settings';

-- _setting_value: the value, checked; "type" is that of the setting's column.
CREATE FUNCTION dvmig._setting_value(s dvmig.setting, value text, type regtype) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	v text := CASE WHEN s.allowed IS NULL THEN value ELSE lower(btrim(value)) END;
	expected text := coalesce('one of ' || array_to_string(s.allowed, ', '), CASE
		WHEN s.lowest IS NOT NULL AND s.highest IS NOT NULL THEN format('a number from %s to %s', s.lowest, s.highest)
		WHEN s.lowest IS NOT NULL THEN format('a number of at least %s', s.lowest)
		ELSE 'of type ' || type END);
	ok bool := NOT v <> ALL (s.allowed);
BEGIN
	IF v IS NULL THEN
		RETURN NULL;
	END IF;
	BEGIN
		EXECUTE format('SELECT ($1::%s)::text', type) INTO v USING v;
		ok := ok IS NOT FALSE AND (s.lowest IS NULL OR v::numeric >= s.lowest AND v::numeric <> 'NaN')
			AND (s.highest IS NULL OR v::numeric <= s.highest);
	EXCEPTION WHEN data_exception OR undefined_object OR undefined_table THEN
		ok := false;
	END;
	IF NOT ok THEN
		RAISE EXCEPTION '% must be %, not "%"', s.name, expected, value
			USING ERRCODE = 'invalid_parameter_value', HINT = format('A null sets the default. The setting is: %s.', s.about);
	END IF;
	RETURN v;
END
$$;
COMMENT ON FUNCTION dvmig._setting_value(dvmig.setting, text, regtype) IS 'value of a setting, checked against its type and range';

-- _change_setting: store the value in the setting's column, adjust what goes
-- with it, and note both values.
CREATE FUNCTION dvmig._change_setting(caller oid, m dvmig.migration, staging regclass, s dvmig.setting, value text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	config regclass := CASE s.applies_to WHEN 'migration' THEN 'dvmig.migration' ELSE 'dvmig.migration_table' END;
	same text := CASE s.applies_to WHEN 'migration' THEN format('migration_id = %s', m.migration_id) ELSE format('staging = %L::regclass', staging) END;
	object text := CASE s.applies_to WHEN 'migration' THEN format('migration %s', m.name) ELSE staging::text END;
	-- "caller" is what all functions call who calls them
	col name := CASE s.name WHEN 'caller' THEN 'caller_id' ELSE s.name END;
	column_type regtype := (SELECT a.atttypid::regtype FROM pg_attribute a WHERE a.attrelid = config AND a.attname = col);
	v text := dvmig._setting_value(s, value, column_type);
	before text;
	after text;
BEGIN
	EXECUTE format('SELECT %I::text FROM %s WHERE %s', col, config, same) INTO before;
	EXECUTE format('UPDATE %s SET %I = %s WHERE %s', config, col,
		CASE WHEN v IS NULL THEN 'DEFAULT' ELSE format('%L::%s', v, column_type) END, same);
	IF s.adjust IS NOT NULL THEN
		EXECUTE format('SELECT dvmig.%I($1, $2, $3, $4)', s.adjust) USING caller, m.migration_id, staging, before;
	END IF;
	EXECUTE format('SELECT %I::text FROM %s WHERE %s', col, config, same) INTO after;
	PERFORM dvmig._log(caller, m.name, 'set_' || s.applies_to, coalesce(staging::text, m.name),
		jsonb_build_object('setting', s.name, 'before', before, 'after', after));
	RETURN format('%s: %s is %s', object, s.name, coalesce(quote_literal(after), 'none'))
		|| CASE WHEN before IS NOT DISTINCT FROM after THEN ', as it was' ELSE format(' instead of %s', coalesce(quote_literal(before), 'none')) END;
END
$$;
COMMENT ON FUNCTION dvmig._change_setting(oid, dvmig.migration, regclass, dvmig.setting, text) IS 'store the value of a setting and note it';

CREATE FUNCTION dvmig._set_migration(caller oid, migration text, setting text, value text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'operator');
	s dvmig.setting := dvmig._setting(caller, m.migration_id, 'migration', setting);
BEGIN
	PERFORM FROM dvmig.migration g WHERE g.migration_id = m.migration_id FOR NO KEY UPDATE;
	RETURN dvmig._change_setting(caller, m, NULL, s, value);
END
$$;
COMMENT ON FUNCTION dvmig._set_migration(oid, text, text, text) IS 'internal part of dvmig.set_migration()';

CREATE FUNCTION dvmig.set_migration(migration text, setting text, value text) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.set_migration(text, text, text) IS
	'change a setting of a migration; null sets the default; dvmig.setting lists the settings';

CREATE FUNCTION dvmig._set_table(caller oid, staging regclass, setting text, value text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table := dvmig._table(caller, staging, 'operator');
	m dvmig.migration;
	s dvmig.setting := dvmig._setting(caller, t.migration_id, 'table', setting);
BEGIN
	SELECT g.* INTO m FROM dvmig.migration g WHERE g.migration_id = t.migration_id FOR NO KEY UPDATE;
	RETURN dvmig._change_setting(caller, m, t.staging, s, value);
END
$$;
COMMENT ON FUNCTION dvmig._set_table(oid, regclass, text, text) IS 'internal part of dvmig.set_table()';

CREATE FUNCTION dvmig.set_table(staging regclass, setting text, value text) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.set_table(regclass, text, text) IS
	'change a setting of a staging table; null sets the default; dvmig.setting lists the settings';

-- ------------------------------------------------------------------ adjusting

-- _adjust_filter: compile the filter that was set; a reason goes with a filter.
CREATE FUNCTION dvmig._adjust_filter(caller oid, migration_id int, staging regclass, before text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	owner oid := (SELECT m.owner::oid FROM dvmig.migration m WHERE m.migration_id = $2);
	t dvmig.migration_table;
BEGIN
	SELECT mt.* INTO t FROM dvmig.migration_table mt WHERE mt.staging = $3;
	IF t.filter IS NULL AND t.filter_sql IS NULL AND t.filter_reason IS NOT NULL THEN
		RAISE EXCEPTION 'filter_reason is given without filter'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Set the filter first.';
	END IF;
	UPDATE dvmig.migration_table mt
	SET filter_sql = dvmig._compile_filter(owner, $3, mt.filter),
		filter_reason = CASE WHEN mt.filter IS NOT NULL THEN mt.filter_reason END
	WHERE mt.staging = $3;
END
$$;
COMMENT ON FUNCTION dvmig._adjust_filter(oid, int, regclass, text) IS 'compile the filter of a staging table after it was set';

-- _adjust_target_key: map the new column; the old one's map goes if it carries the key.
CREATE FUNCTION dvmig._adjust_target_key(caller oid, migration_id int, staging regclass, before text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table;
BEGIN
	UPDATE dvmig.migration_table mt SET target_key = nullif(lower(btrim(mt.target_key)), '') WHERE mt.staging = $3;
	SELECT mt.* INTO t FROM dvmig.migration_table mt WHERE mt.staging = $3;
	IF t.target_key IS NOT DISTINCT FROM before THEN
		RETURN;
	END IF;
	DELETE FROM dvmig.column_map c
	WHERE c.staging = $3 AND c.target_column = before AND cardinality(t.source_key) = 1
	  AND c.expression IN (quote_ident(t.source_key[1]), quote_ident(t.source_key[1]) || '::text');
	IF NOT EXISTS (SELECT FROM dvmig.column_map c WHERE c.staging = $3 AND c.target_column = t.target_key AND NOT c.automatic) THEN
		PERFORM dvmig._map_target_key(caller, t, (SELECT m.server FROM dvmig.migration m WHERE m.migration_id = $2));
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._adjust_target_key(oid, int, regclass, text) IS 'map the column that carries the source key after it was set';

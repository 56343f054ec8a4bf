-- Taking definitions back, and pointing a migration at another server.

-- _maps_told: the maps of a staging table as they are written, by target column,
-- for the event of what ends them.
CREATE FUNCTION dvmig._maps_told(staging regclass) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT jsonb_object_agg(q.target_column, q.expression)
	FROM (SELECT c.target_column, string_agg(c.expression, '; ' ORDER BY c.variant) AS expression
		FROM dvmig.column_map c WHERE c.staging = $1 GROUP BY 1) q
$$;
COMMENT ON FUNCTION dvmig._maps_told(regclass) IS 'maps of a staging table, as written';

-- _forget_dropped: registrations whose staging table was dropped meanwhile.
CREATE FUNCTION dvmig._forget_dropped(caller oid, m dvmig.migration) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	lost record;
BEGIN
	FOR lost IN SELECT c.staging, c.target_column FROM dvmig.column_map c JOIN dvmig.migration_table t ON t.staging = c.staging
		WHERE t.migration_id = m.migration_id AND c.parent IS NOT NULL
		  AND EXISTS (SELECT FROM pg_class r WHERE r.oid = c.staging) AND NOT EXISTS (SELECT FROM pg_class r WHERE r.oid = c.parent)
	LOOP
		DELETE FROM dvmig.column_map c WHERE c.staging = lost.staging AND c.target_column = lost.target_column;
		RAISE WARNING 'the lookup "%" of % was to a table that has been dropped, and is no longer mapped', lost.target_column, lost.staging
			USING HINT = 'Map it again with dvmig.map_lookup() once its staging table is registered.';
		PERFORM dvmig._log(caller, m.name, 'unmap', lost.staging::text, jsonb_build_object('target_column', lost.target_column, 'reason', 'parent dropped'));
	END LOOP;
	FOR lost IN DELETE FROM dvmig.migration_table t WHERE t.migration_id = m.migration_id
		AND NOT EXISTS (SELECT FROM pg_class r WHERE r.oid = t.staging) RETURNING t.target, dvmig._maps_told(t.staging) AS maps
	LOOP
		PERFORM dvmig._log(caller, m.name, 'drop_table', NULL, jsonb_build_object('target', lost.target, 'before', lost.maps, 'reason', 'table dropped'));
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._forget_dropped(oid, dvmig.migration) IS 'remove registrations whose staging table was dropped';

-- _drop_outcomes: drop the outcome tables as the caller.
CREATE FUNCTION dvmig._drop_outcomes(caller oid, t dvmig.migration_table) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	o regclass;
BEGIN
	FOREACH o IN ARRAY ARRAY[t.success_table, t.error_table, t.before_table] LOOP
		IF EXISTS (SELECT FROM pg_class r WHERE r.oid = o) THEN
			PERFORM dvmig._run_as(caller, format('DROP TABLE %s', o), false);
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._drop_outcomes(oid, dvmig.migration_table) IS 'drop the outcome tables of a staging table';

CREATE FUNCTION dvmig._drop_table(caller oid, staging regclass, drop_outcomes bool) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table := dvmig._table(caller, staging, 'owner');
	users text;
	maps jsonb := dvmig._maps_told(staging);
BEGIN
	PERFORM dvmig._refuse_during_run(t.migration_id);
	SELECT string_agg(format('%s: %s', c.staging, c.target_column), ', ' ORDER BY c.position) INTO users
	FROM dvmig.column_map c WHERE c.parent = t.staging AND c.staging <> t.staging;
	IF users IS NOT NULL THEN
		RAISE EXCEPTION 'lookups of other tables depend on %', staging
			USING ERRCODE = 'dependent_objects_still_exist', DETAIL = users || '.', HINT = 'Take them out first with dvmig.unmap().';
	END IF;
	DELETE FROM dvmig.migration_table mt WHERE mt.staging = t.staging;
	IF drop_outcomes THEN
		PERFORM dvmig._drop_outcomes(caller, t);
	END IF;
	PERFORM dvmig._log(caller, (SELECT m.name FROM dvmig.migration m WHERE m.migration_id = t.migration_id), 'drop_table',
		staging::text, jsonb_build_object('target', t.target, 'namespace', t.namespace, 'before', maps, 'drop_outcomes', drop_outcomes));
	RETURN format('%s is no longer a staging table', staging) || CASE WHEN drop_outcomes THEN ''
		ELSE format('; %s and %s are kept', t.success_table, t.error_table) END;
END
$$;
COMMENT ON FUNCTION dvmig._drop_table(oid, regclass, bool) IS 'internal part of dvmig.drop_table()';

CREATE FUNCTION dvmig.drop_table(staging regclass, drop_outcomes bool DEFAULT false) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.drop_table(regclass, bool) IS
	'take a staging table out of its migration; the table with its flags stays, and so do the outcome tables unless drop_outcomes';

CREATE FUNCTION dvmig._drop_migration(caller oid, name text, drop_outcomes bool) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, name, 'owner');
	t dvmig.migration_table;
	n int := 0;
BEGIN
	PERFORM dvmig._refuse_during_run(m.migration_id);
	FOR t IN SELECT mt.* FROM dvmig.migration_table mt WHERE mt.migration_id = m.migration_id LOOP
		n := n + 1;
		PERFORM dvmig._log(caller, m.name, 'drop_table', t.staging::text, jsonb_build_object('target', t.target, 'namespace', t.namespace,
			'before', dvmig._maps_told(t.staging), 'reason', 'migration dropped'));
		IF drop_outcomes THEN
			PERFORM dvmig._drop_outcomes(caller, t);
		END IF;
	END LOOP;
	DELETE FROM dvmig.migration g WHERE g.migration_id = m.migration_id;
	PERFORM dvmig._log(caller, m.name, 'drop_migration', m.name, jsonb_build_object('drop_outcomes', drop_outcomes));
	RETURN format('migration %s with %s is dropped', m.name, dvmig._count_of(n, 'staging table', 'staging tables')) || CASE WHEN drop_outcomes THEN '' ELSE '; outcome tables are kept' END;
END
$$;
COMMENT ON FUNCTION dvmig._drop_migration(oid, text, bool) IS 'internal part of dvmig.drop_migration()';

CREATE FUNCTION dvmig.drop_migration(name text, drop_outcomes bool DEFAULT false) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.drop_migration(text, bool) IS
	'drop a migration''s definition; staging tables stay, and so do outcome tables unless drop_outcomes';

-- _recheck_maps: a table's maps against another server's metadata.
CREATE FUNCTION dvmig._recheck_maps(caller oid, t dvmig.migration_table, server name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	tt dvmig.metadata_table := dvmig._target_table(caller, server, t.target);
	cm dvmig.column_map;
	c dvmig.metadata_column;
	l record;
BEGIN
	PERFORM dvmig._check_target(tt, t.ids);
	FOR cm IN SELECT m.* FROM dvmig.column_map m WHERE m.staging = t.staging ORDER BY m.position LOOP
		IF cm.pass IN ('links', 'parties') OR cm.target_column LIKE '@%' THEN
			-- relationships, parties and closing activities have the same names everywhere, but must be known there
			PERFORM dvmig._target_table(caller, server, n) FROM unnest(ARRAY[cm.referenced_table,
				CASE WHEN cm.pass = 'parties' THEN 'activityparty' END,
				CASE WHEN cm.target_column LIKE '@close:%' THEN dvmig._close_activity(t.target) END]) n WHERE n IS NOT NULL;
			CONTINUE;
		END IF;
		c := dvmig._target_column(server, t.target, cm.target_column);
		PERFORM dvmig._check_mappable(c, tt.primary_id);
		IF cm.kind = 'value' THEN
			PERFORM dvmig._check_type(c, cm.result_type);
		ELSIF cm.kind = 'file' THEN
			CONTINUE;
		ELSIF cm.kind <> 'choice' THEN
			PERFORM dvmig._target_table(caller, server, cm.referenced_table);
			PERFORM dvmig._ensure_reference(caller, server, cm.match_on, cm.referenced_table);
			l := dvmig._check_lookup(c, cm.referenced_table);
			UPDATE dvmig.column_map m SET navigation_property = l.navigation_property
			WHERE m.staging = cm.staging AND m.target_column = cm.target_column AND m.variant = cm.variant;
		ELSIF c.column_type NOT IN ('Picklist', 'MultiSelectPicklist', 'Boolean', 'State', 'Status') THEN
			RAISE EXCEPTION 'column "%" of Dataverse table "%" is not a choice on server "%"', c.column_name, t.target, server
				USING ERRCODE = 'datatype_mismatch';
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._recheck_maps(oid, dvmig.migration_table, name) IS 'check a table''s maps against another server''s metadata';

-- _reset_flags: as if nothing had been sent. Rows that became updates because
-- the old target had them are inserts again; ids that the old target gave, or
-- dvmig derived, are cleared; ids that the user filled in stay.
CREATE FUNCTION dvmig._reset_flags(migration_owner oid, t dvmig.migration_table) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	same text := (SELECT string_agg(format('o.%1$I = s.%1$I', k), ' AND ') FROM unnest(t.source_key) k);
	outcome text := format('(SELECT o.created_run, o.dataverse_id FROM %s o WHERE %s UNION ALL SELECT o.created_run, o.dataverse_id FROM %s o WHERE %s)',
		t.success_table, same, t.error_table, same);
	ours text := CASE t.ids WHEN 'platform' THEN format('EXISTS (SELECT FROM %s w WHERE w.dataverse_id = s.dataverse_id)', outcome)
		ELSE format('s.dataverse_id = %s', dvmig._id_expression(t.staging, 's')) END;
BEGIN
	RETURN dvmig._run_as(migration_owner, format(
		'UPDATE %s s SET processing_flag = ''U'', '
		'action_flag = CASE WHEN s.action_flag = ''U'' AND EXISTS (SELECT FROM %s w WHERE w.created_run IS NOT NULL) THEN ''I'' ELSE s.action_flag END, '
		'dataverse_id = CASE WHEN %s OR s.dataverse_id = ANY (%L::uuid[]) THEN NULL ELSE s.dataverse_id END '
		'WHERE s.processing_flag <> ''U'' OR s.dataverse_id IS NOT NULL OR s.action_flag = ''U''',
		t.staging, outcome, ours, ARRAY(SELECT a.dataverse_id FROM dvmig.adopted a WHERE a.staging = t.staging)));
END
$$;
COMMENT ON FUNCTION dvmig._reset_flags(oid, dvmig.migration_table) IS 'rows of a staging table as if nothing had been sent';

-- _rename_outcome: name an outcome table after the server its verdicts are of.
CREATE FUNCTION dvmig._rename_outcome(caller oid, outcome regclass, server name) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	base text;
	nsp oid;
	tail text := '_' || regexp_replace(lower(server::text), '[^[:alnum:]_]', '_', 'g');
	n int := 1;
	name text;
BEGIN
	SELECT c.relname, c.relnamespace INTO base, nsp FROM pg_class c WHERE c.oid = outcome;
	name := dvmig._cut_name(base, tail);
	WHILE EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = nsp AND c.relname = name) LOOP
		n := n + 1;
		name := dvmig._cut_name(base, tail || '_' || n);
	END LOOP;
	PERFORM dvmig._run_as(caller, format('ALTER TABLE %s RENAME TO %I', outcome, name), false);
	RETURN name;
END
$$;
COMMENT ON FUNCTION dvmig._rename_outcome(oid, regclass, name) IS 'name an outcome table after the server its verdicts are of';

CREATE FUNCTION dvmig._retarget(caller oid, migration text, server text, confirm text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'owner');
	srv name := dvmig._check_server(caller, server);
	t dvmig.migration_table;
	names text[];
	told text[] := '{}';
	n bigint;
BEGIN
	IF srv = m.server THEN
		RETURN format('migration %s goes to server %s already', m.name, srv);
	END IF;
	PERFORM dvmig._refuse_during_run(m.migration_id);
	-- into production, or away from what is loaded there
	PERFORM dvmig._confirm_server(CASE WHEN NOT dvmig._is_production(srv) AND dvmig._is_production(m.server) THEN m.server ELSE srv END,
		CASE WHEN dvmig._is_production(srv) THEN 'pointing a migration at a production organisation'
			ELSE 'pointing a migration away from a production organisation' END, confirm,
		format('SELECT dvmig.retarget(%s, %s, %%s)', replace(quote_literal(m.name), '%', '%%'), replace(quote_literal(srv), '%', '%%')));
	PERFORM dvmig._forget_dropped(caller, m);
	FOR t IN SELECT mt.* FROM dvmig.migration_table mt WHERE mt.migration_id = m.migration_id ORDER BY mt.position LOOP
		PERFORM dvmig._recheck_maps(caller, t, srv);
		n := dvmig._reset_flags(m.owner, t);
		-- the names are free again before the fresh tables are made
		SELECT array_agg(format('%s.%I', c.relnamespace::regnamespace, c.relname) ORDER BY c.oid = t.error_table)
		INTO names FROM pg_class c WHERE c.oid IN (t.success_table, t.error_table);
		names := names || ARRAY[dvmig._rename_outcome(caller, t.success_table, m.server), dvmig._rename_outcome(caller, t.error_table, m.server)];
		t.success_table := dvmig._create_outcome(caller, m.owner, t.staging, t.source_key, 'success', names[1]);
		t.error_table := dvmig._create_outcome(caller, m.owner, t.staging, t.source_key, 'error', names[2]);
		IF EXISTS (SELECT FROM pg_class c WHERE c.oid = t.before_table) THEN
			PERFORM dvmig._rename_outcome(caller, t.before_table, m.server);
		END IF;
		t.before_table := CASE WHEN t.keep_before_image THEN dvmig._create_outcome(caller, m.owner, t.staging, t.source_key, 'before', NULL) END;
		UPDATE dvmig.migration_table mt SET success_table = t.success_table, error_table = t.error_table, before_table = t.before_table, held_by_undo = NULL, clean_end = true
		WHERE mt.staging = t.staging;
		DELETE FROM dvmig.adopted a WHERE a.staging = t.staging;
		-- nor does what was found or undone there count here
		DELETE FROM dvmig.difference_row d WHERE d.staging = t.staging;
		DELETE FROM dvmig.verification_sum_row v WHERE v.staging = t.staging;
		told := told || format('%s: %s reset, old outcomes in %s and %s', t.staging, dvmig._count_of(n, 'row', 'rows'), names[3], names[4]);
	END LOOP;
	UPDATE dvmig.migration g SET server = srv WHERE g.migration_id = m.migration_id;
	PERFORM dvmig._log(caller, m.name, 'retarget', srv, jsonb_build_object('from', m.server, 'to', srv));
	RETURN array_to_string(format('migration %s goes to server %s instead of %s', m.name, srv, m.server) || told, chr(10));
END
$$;
COMMENT ON FUNCTION dvmig._retarget(oid, text, text, text) IS 'internal part of dvmig.retarget()';

CREATE FUNCTION dvmig.retarget(migration text, server text, confirm text DEFAULT NULL) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.retarget(text, text, text) IS
	'point a migration at another server: rows become unprocessed again, the outcome tables are renamed after the old server and fresh ones made';

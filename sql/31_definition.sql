-- What the definition functions share: who may do what, names, metadata, the log.

CREATE TABLE dvmig.migration_role (
	migration_id int NOT NULL REFERENCES dvmig.migration ON DELETE CASCADE,
	role         regrole NOT NULL,
	access       text NOT NULL CHECK (access IN ('operator', 'viewer')),
	granted_at   timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (migration_id, role, access)
);
COMMENT ON TABLE dvmig.migration_role IS 'roles that may run (operator) or watch (viewer) a migration besides its owner';

-- The namespace of a staging table outlives its registration, by name: a table
-- registered again, or made again under its name, derives the same ids.
CREATE TABLE dvmig.kept_namespace (
	staging   text NOT NULL,
	target    text NOT NULL,
	namespace uuid NOT NULL,
	PRIMARY KEY (staging, target)
);
COMMENT ON TABLE dvmig.kept_namespace IS 'namespaces of staging tables that are or were registered, for when they are registered again';

CREATE TABLE dvmig.adopted (
	staging      regclass NOT NULL REFERENCES dvmig.migration_table ON DELETE CASCADE,
	dataverse_id uuid NOT NULL,
	PRIMARY KEY (staging, dataverse_id)
);
COMMENT ON TABLE dvmig.adopted IS 'ids that dvmig.adopt() read from the present target; dvmig.retarget() forgets them';

-- _may: whether a role may act on a migration. An owner's member may do all,
-- an operator's may run and watch, a viewer's may watch.
CREATE FUNCTION dvmig._may(caller oid, migration_id int, access text) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT EXISTS (SELECT FROM dvmig.migration m WHERE m.migration_id = $2 AND pg_has_role($1, m.owner::oid, 'MEMBER'))
		OR $3 <> 'owner' AND EXISTS (SELECT FROM dvmig.migration_role r
			WHERE r.migration_id = $2 AND r.access IN ('operator', $3) AND pg_has_role($1, r.role::oid, 'MEMBER'))
$$;
COMMENT ON FUNCTION dvmig._may(oid, int, text) IS 'whether a role may act on a migration as owner, operator or viewer';

-- _migration: the migration of that name, if the caller may act on it. For the
-- owner's changes the row is locked, so that two sessions define one after the other.
CREATE FUNCTION dvmig._migration(caller oid, name text, access text) RETURNS dvmig.migration
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration;
BEGIN
	IF access = 'owner' THEN
		SELECT g.* INTO m FROM dvmig.migration g WHERE g.name = _migration.name FOR NO KEY UPDATE;
	ELSE
		SELECT g.* INTO m FROM dvmig.migration g WHERE g.name = _migration.name;
	END IF;
	IF name IS NULL THEN
		RAISE EXCEPTION 'the migration is missing' USING ERRCODE = 'null_value_not_allowed';
	ELSIF m.migration_id IS NULL THEN
		RAISE EXCEPTION 'migration "%" does not exist', name
			USING ERRCODE = 'undefined_object',
			HINT = coalesce('Did you mean ' || dvmig._near(name, ARRAY(SELECT g.name FROM dvmig.migration g
				WHERE dvmig._may(caller, g.migration_id, access))) || '?', 'Create it with dvmig.create_migration().');
	END IF;
	IF NOT dvmig._may(caller, m.migration_id, access) THEN
		RAISE EXCEPTION 'permission denied for migration "%"', name
			USING ERRCODE = 'insufficient_privilege',
			HINT = CASE access
				WHEN 'owner' THEN format('You must be a member of its owner, role "%s".', m.owner)
				ELSE format('Ask a member of its owner, role "%s", to call dvmig.grant_%s().', m.owner, access) END;
	END IF;
	RETURN m;
END
$$;
COMMENT ON FUNCTION dvmig._migration(oid, text, text) IS 'the migration of that name, if the caller may act on it as owner, operator or viewer';

-- _table: the registered staging table, if the caller may act on its migration.
CREATE FUNCTION dvmig._table(caller oid, staging regclass, access text) RETURNS dvmig.migration_table
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table;
BEGIN
	IF staging IS NULL THEN
		RAISE EXCEPTION 'the staging table is missing' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	SELECT mt.* INTO t FROM dvmig.migration_table mt WHERE mt.staging = _table.staging;
	IF t.staging IS NULL THEN
		RAISE EXCEPTION 'table % is not a staging table of a migration', staging
			USING ERRCODE = 'undefined_object', HINT = 'Register it with dvmig.add_table().';
	END IF;
	PERFORM dvmig._migration(caller, m.name, access) FROM dvmig.migration m WHERE m.migration_id = t.migration_id;
	-- who waited there for another's change sees what it left
	SELECT mt.* INTO t FROM dvmig.migration_table mt WHERE mt.staging = _table.staging;
	IF t.staging IS NULL THEN
		RAISE EXCEPTION 'table % is no longer a staging table of a migration', staging
			USING ERRCODE = 'undefined_object', HINT = 'Register it with dvmig.add_table().';
	END IF;
	RETURN t;
END
$$;
COMMENT ON FUNCTION dvmig._table(oid, regclass, text) IS 'the registered staging table, if the caller may act on its migration';

-- _named_table: the staging table of a migration that the caller named.
CREATE FUNCTION dvmig._named_table(caller oid, m dvmig.migration, name text) RETURNS regclass
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	rel regclass := dvmig._caller_regclass(caller, name);
BEGIN
	IF NOT EXISTS (SELECT FROM dvmig.migration_table t WHERE t.staging = rel AND t.migration_id = m.migration_id) THEN
		RAISE EXCEPTION '% is not a staging table of migration "%"', coalesce(rel::text, quote_nullable(name)), m.name
			USING ERRCODE = 'undefined_object', HINT = 'dvmig.status lists the staging tables of each migration.';
	END IF;
	RETURN rel;
END
$$;
COMMENT ON FUNCTION dvmig._named_table(oid, dvmig.migration, text) IS 'the staging table of a migration that the caller named, as his search_path finds it';

-- _may_read: whether a role may read the rows of a table. What shows rows reads
-- them as the migration's owner, so that no cast, trigger or policy of his runs
-- with the rights of who looks; policies that would hide rows hide all of them.
CREATE FUNCTION dvmig._may_read(caller oid, relation regclass) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT has_table_privilege($1, $2, 'SELECT')
		AND (NOT c.relrowsecurity OR pg_has_role($1, c.relowner, 'USAGE')
			OR EXISTS (SELECT FROM pg_roles r WHERE r.oid = $1 AND r.rolbypassrls))
	FROM pg_class c WHERE c.oid = $2
$$;
COMMENT ON FUNCTION dvmig._may_read(oid, regclass) IS 'whether a role may read all rows of a table';

CREATE FUNCTION dvmig._require_reading(caller oid, relation regclass) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT has_table_privilege(caller, relation, 'SELECT') THEN
		RAISE EXCEPTION 'permission denied for table %', relation USING ERRCODE = 'insufficient_privilege';
	ELSIF NOT dvmig._may_read(caller, relation) THEN
		RAISE EXCEPTION 'row-level security of table % may hide rows from role "%"', relation, pg_get_userbyid(caller)
			USING ERRCODE = 'insufficient_privilege',
			HINT = 'Rows are shown to members of the table''s owner and to roles that bypass row-level security.';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._require_reading(oid, regclass) IS 'error unless a role may read all rows of a table';

CREATE FUNCTION dvmig._log(caller oid, migration text, kind text, object text, detail jsonb DEFAULT '{}') RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO dvmig.event (role, migration, kind, object, detail)
	VALUES (pg_get_userbyid($1), $2, $3, $4, jsonb_strip_nulls($5))
$$;
COMMENT ON FUNCTION dvmig._log(oid, text, text, text, jsonb) IS 'note in dvmig.event who changed what';

-- _check_server: a server of the wrapper dataverse that the caller may use.
CREATE FUNCTION dvmig._check_server(caller oid, server text) RETURNS name
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	wrapper name;
BEGIN
	IF server IS NULL THEN
		RAISE EXCEPTION 'the server is missing' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	SELECT w.fdwname INTO wrapper
	FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
	WHERE s.srvname = server;
	IF wrapper IS NULL THEN
		RAISE EXCEPTION 'server "%" does not exist', server
			USING ERRCODE = 'undefined_object',
			HINT = coalesce('Did you mean ' || dvmig._near(server, ARRAY(SELECT s.srvname::text FROM pg_foreign_server s
					JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw WHERE w.fdwname = 'dataverse')) || '?',
				'Create it with CREATE SERVER ... FOREIGN DATA WRAPPER dataverse.');
	ELSIF wrapper <> 'dataverse' THEN
		RAISE EXCEPTION 'server "%" is of foreign-data wrapper "%", not of "dataverse"', server, wrapper
			USING ERRCODE = 'wrong_object_type';
	ELSIF NOT has_server_privilege(caller, server, 'USAGE') THEN
		RAISE EXCEPTION 'permission denied for foreign server %', server
			USING ERRCODE = 'insufficient_privilege',
			HINT = format('Its owner grants it: GRANT USAGE ON FOREIGN SERVER %I TO %I.', server, pg_get_userbyid(caller));
	END IF;
	RETURN server::name;
END
$$;
COMMENT ON FUNCTION dvmig._check_server(oid, text) IS 'a server of foreign-data wrapper dataverse that the caller may use';

-- _target_table: metadata of a Dataverse table, read from the server if not cached.
CREATE FUNCTION dvmig._target_table(caller oid, server name, table_name text) RETURNS dvmig.metadata_table
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.metadata_table;
BEGIN
	PERFORM dvmig._ensure_metadata(caller, server::text, table_name);
	SELECT mt.* INTO t FROM dvmig.metadata_table mt
	WHERE mt.server = _target_table.server AND mt.table_name = _target_table.table_name;
	IF t.table_name IS NULL THEN
		RAISE EXCEPTION 'Dataverse table "%" does not exist on server "%"', table_name, server
			USING ERRCODE = 'undefined_table',
			HINT = coalesce('Did you mean ' || dvmig._near(table_name, ARRAY(SELECT mt.table_name FROM dvmig.metadata_table mt
				WHERE mt.server = _target_table.server)) || '?', 'Give its logical name, in the singular, such as account.');
	END IF;
	RETURN t;
END
$$;
COMMENT ON FUNCTION dvmig._target_table(oid, name, text) IS 'metadata of a Dataverse table, read from the server if it is not cached';

-- _target_column: metadata of a column, or an error that names similar ones.
CREATE FUNCTION dvmig._target_column(server name, table_name text, column_name text) RETURNS dvmig.metadata_column
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	c dvmig.metadata_column;
	near text;
BEGIN
	SELECT mc.* INTO c FROM dvmig.metadata_column mc
	WHERE mc.server = _target_column.server AND mc.table_name = _target_column.table_name
	  AND mc.column_name = _target_column.column_name;
	IF c.column_name IS NULL THEN
		near := dvmig._near(column_name, ARRAY(SELECT mc.column_name FROM dvmig.metadata_column mc
			WHERE mc.server = _target_column.server AND mc.table_name = _target_column.table_name));
		RAISE EXCEPTION 'column "%" of Dataverse table "%" does not exist', column_name, table_name
			USING ERRCODE = 'undefined_column',
			HINT = concat('Did you mean ' || near || '? ',
				format('If the column is new, call dvmig.refresh_metadata(%L, %L).', server, ARRAY[table_name]));
	END IF;
	RETURN c;
END
$$;
COMMENT ON FUNCTION dvmig._target_column(name, text, text) IS 'metadata of a Dataverse column, or an error that names similar ones';

-- _refuse_during_run: definitions that move flags or outcome tables wait for the run to end.
CREATE FUNCTION dvmig._refuse_during_run(migration_id int) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	active bigint;
BEGIN
	PERFORM dvmig._settle_dead_runs();
	SELECT h.run INTO active FROM dvmig.run_history h
	WHERE h.migration_id = $1 AND h.state IN ('starting', 'running', 'stopping')
	LIMIT 1;
	IF active IS NOT NULL THEN
		RAISE EXCEPTION 'run % of the migration is in progress', active
			USING ERRCODE = 'object_in_use', HINT = format('Wait for it with dvmig.wait(%s), or end it with dvmig.stop(%s).', active, active);
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._refuse_during_run(int) IS 'error while a run of the migration is in progress';

-- ---------------------------------------------------------------- migrations

CREATE FUNCTION dvmig._create_migration(caller oid, name text, server text, gate numeric) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	srv name;
BEGIN
	IF coalesce(btrim(name), '') = '' THEN
		RAISE EXCEPTION 'a migration needs a name' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF gate < 0 OR gate > 100 OR gate = 'NaN' THEN
		RAISE EXCEPTION 'gate must be between 0 and 100 per cent'
			USING ERRCODE = 'invalid_parameter_value',
			HINT = 'A table with a larger share of failed rows holds the tables that depend on it; null never does.';
	END IF;
	srv := dvmig._check_server(caller, server);
	BEGIN
		INSERT INTO dvmig.migration (name, server, owner, gate) VALUES (_create_migration.name, srv, caller::regrole, _create_migration.gate);
	EXCEPTION WHEN unique_violation THEN
		RAISE EXCEPTION 'migration "%" already exists', name
			USING ERRCODE = 'duplicate_object', HINT = 'Choose another name, or go on with it: SELECT * FROM dvmig.status.';
	END;
	PERFORM dvmig._log(caller, name, 'create_migration', name, jsonb_build_object('server', srv, 'gate', gate));
	RETURN format('migration %s to server %s', name, srv);
END
$$;
COMMENT ON FUNCTION dvmig._create_migration(oid, text, text, numeric) IS 'internal part of dvmig.create_migration()';

CREATE FUNCTION dvmig.create_migration(name text, server text, gate numeric DEFAULT 5) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.create_migration(text, text, numeric) IS
	'create a migration to a server; gate is the per cent of failed rows in a table above which its dependants are held (null: never)';

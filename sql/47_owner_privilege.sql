-- May owners own? A user or team must have Read privilege on the table whose
-- records it is to own, through a role. Asked of Dataverse when references are
-- read, for dvmig.check() to tell.

CREATE TABLE dvmig.metadata_owner (
	server       name NOT NULL,
	owner_table  text NOT NULL CHECK (owner_table IN ('systemuser', 'team')),
	record_id    uuid NOT NULL,
	noun         text NOT NULL,        -- what privileges call the table: its schema name in lower case, or activity
	may_read     bool NOT NULL,
	refreshed_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (server, record_id, noun)
);
COMMENT ON TABLE dvmig.metadata_owner IS 'users and teams that are to own records, and whether a role of theirs has Read privilege on the table; those of whom Dataverse did not tell are not here';

CREATE FUNCTION dvmig._fetch_privileges(caller oid, server text, paths text[])
RETURNS TABLE (path text, part text, body jsonb)
LANGUAGE c VOLATILE STRICT
AS 'MODULE_PATHNAME', 'dv_fetch_privileges';
COMMENT ON FUNCTION dvmig._fetch_privileges(oid, text, text[]) IS 'what users and teams may do, one row for each path that was answered';

-- _privilege_noun: what the privileges of a Dataverse table are named after.
CREATE FUNCTION dvmig._privilege_noun(server name, table_name text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN EXISTS (SELECT FROM dvmig.metadata_table t WHERE t.server = $1 AND t.table_name = $2 AND t.is_activity) THEN 'activity' ELSE $2 END
$$;
COMMENT ON FUNCTION dvmig._privilege_noun(name, text) IS 'what the privileges of a Dataverse table are named after';

-- _owner_maps: lookups that give records an owner.
CREATE FUNCTION dvmig._owner_maps(m dvmig.migration) RETURNS SETOF dvmig.column_map
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT c.* FROM dvmig.column_map c JOIN dvmig.migration_table t ON t.staging = c.staging JOIN pg_class k ON k.oid = t.staging
	JOIN dvmig.metadata_column mc ON mc.server = m.server AND mc.table_name = t.target AND mc.column_name = c.target_column
	WHERE t.migration_id = m.migration_id AND mc.column_type = 'Owner' AND c.referenced_table IN ('systemuser', 'team')
$$;
COMMENT ON FUNCTION dvmig._owner_maps(dvmig.migration) IS 'lookups of a migration that give records an owner';

-- _owner_ids: users and teams that its lookups find, as far as references were read.
CREATE FUNCTION dvmig._owner_ids(m dvmig.migration) RETURNS TABLE (owner_table text, record_id uuid)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	c dvmig.column_map;
	ids_sql text;
BEGIN
	FOR c IN SELECT * FROM dvmig._owner_maps(m) LOOP
		owner_table := c.referenced_table;
		RETURN QUERY SELECT c.referenced_table, r.record_id FROM dvmig.reference r
			WHERE r.server = m.server AND r.table_name = c.referenced_table AND r.match_on = dvmig._reference_name(m.migration_id, c.match_on) AND r.record_id IS NOT NULL;
		IF c.on_missing = 'default' AND dvmig._is_uuid(c.default_value) THEN
			RETURN QUERY SELECT c.referenced_table, c.default_value::uuid;
		END IF;
		ids_sql := format('SELECT DISTINCT (%s)::text FROM %s s WHERE %s', c.expression_sql[1], c.staging, dvmig._check_scope(c.staging, false, NULL));
		IF c.kind = 'id' AND dvmig._check_fault(m.owner, format('SELECT count(*) FROM (%s) q', ids_sql)) IS NULL THEN
			RETURN QUERY SELECT c.referenced_table, q::uuid FROM dvmig._query_as(m.owner, ids_sql) q WHERE q IS NOT NULL;
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._owner_ids(dvmig.migration) IS 'users and teams that are to own records of a migration';

-- _refresh_owners: ask what they may read. Each costs a request, so that more
-- than a thousand are not asked for: some minutes at the slowest.
CREATE FUNCTION dvmig._refresh_owners(caller oid, m dvmig.migration) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	nouns text[] := ARRAY(SELECT DISTINCT dvmig._privilege_noun(m.server, t.target) FROM dvmig._owner_maps(m) c JOIN dvmig.migration_table t ON t.staging = c.staging);
	asked record;
BEGIN
	SELECT array_agg(q.owner_table) AS tables, array_agg(q.record_id) AS ids, array_agg(format(CASE q.owner_table
			WHEN 'team' THEN '/teams(%s)/Microsoft.Dynamics.CRM.RetrieveTeamPrivileges()' ELSE '/systemusers(%s)/Microsoft.Dynamics.CRM.RetrieveUserPrivileges()' END, q.record_id)) AS paths
	INTO asked FROM (SELECT DISTINCT o.owner_table, o.record_id FROM dvmig._owner_ids(m) o ORDER BY 1, 2 LIMIT 1000) q;
	IF asked.ids IS NULL OR NOT EXISTS (SELECT FROM dvmig.metadata_privilege p WHERE p.server = m.server) THEN
		RETURN;		-- nobody to ask about, or an environment that does not tell
	END IF;
	DELETE FROM dvmig.metadata_owner o WHERE o.server = m.server AND o.record_id = ANY (asked.ids) AND o.noun = ANY (nouns);
	INSERT INTO dvmig.metadata_owner (server, owner_table, record_id, noun, may_read)
	SELECT m.server, a.owner_table, a.record_id, n, EXISTS (SELECT FROM dvmig._elements(f.body -> 'RolePrivileges') p WHERE lower(p ->> 'PrivilegeName') = 'prvread' || n)
	FROM dvmig._fetch_privileges(caller, m.server::text, asked.paths) f
	JOIN unnest(asked.tables, asked.ids, asked.paths) a(owner_table, record_id, path) ON a.path = f.path, unnest(nouns) n
	-- a noun that no privilege bears is another's
	WHERE EXISTS (SELECT FROM dvmig.metadata_privilege p WHERE p.server = m.server AND lower(p.privilege_name) = 'prvread' || n);
END
$$;
COMMENT ON FUNCTION dvmig._refresh_owners(oid, dvmig.migration) IS 'ask Dataverse whether the owners of a migration''s records may read their tables';

-- _unfit_owners: users and teams that cannot own records of a table.
CREATE FUNCTION dvmig._unfit_owners(server name, table_name text) RETURNS uuid[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT array_agg(o.record_id ORDER BY o.record_id) FROM dvmig.metadata_owner o
	WHERE o.server = $1 AND o.noun = dvmig._privilege_noun($1, $2) AND NOT o.may_read
$$;
COMMENT ON FUNCTION dvmig._unfit_owners(name, text) IS 'users and teams that were found to lack Read privilege on a table';

-- Owners and users: the user map, what fills its place in an environment by role
-- rather than by name, and the report of owners that are nobody there.
--
-- Both are kinds of key that lookups can be matched on, as if they were columns of
-- Dataverse ("user map", "environment role"). What they mean is worked out from
-- records that are read by real columns, and kept in dvmig.reference beside those.

CREATE TABLE dvmig.user_map (
	migration_id int NOT NULL REFERENCES dvmig.migration ON DELETE CASCADE,
	source_user  text NOT NULL,
	target_table text NOT NULL DEFAULT 'systemuser' CHECK (target_table IN ('systemuser', 'team')),
	target       text NOT NULL,
	remark       text,
	PRIMARY KEY (migration_id, source_user)
);
CREATE UNIQUE INDEX user_map_folded ON dvmig.user_map (migration_id, lower(source_user));
COMMENT ON TABLE dvmig.user_map IS 'source user to user or team; the owner of the migration edits it directly';
COMMENT ON COLUMN dvmig.user_map.target IS 'of a user: mail address, domain name or id; of a team: name or id';

ALTER TABLE dvmig.user_map ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig.user_map USING (
	migration_id IN (SELECT m.migration_id FROM dvmig.migration m WHERE pg_catalog.pg_has_role(m.owner::pg_catalog.oid, 'MEMBER')));
COMMENT ON POLICY own ON dvmig.user_map IS 'users of migrations that one owns';

-- ---------------------------------------------------------- keys that are no columns

-- _reference_bases: what has to be read so that such a key can be told. "keys" is
-- SQL of the keys to read, null for all records.
CREATE FUNCTION dvmig._reference_bases(migration_id int, match_on text[], referenced_table text)
RETURNS TABLE (base_table text, base_columns text[], keys text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT b.base_table, b.base_columns::text[], CASE WHEN b.mapped THEN format(
		'SELECT array_agg(DISTINCT lower(u.target)) FROM dvmig.user_map u WHERE u.migration_id = %s AND u.target_table = %L', $1, b.base_table) END
	FROM (VALUES ('user map', 'systemuser', 'systemuser', '{internalemailaddress}', true),
		('user map', 'systemuser', 'systemuser', '{domainname}', true),
		('user map', 'team', 'team', '{name}', true),
		('environment role', 'businessunit', 'businessunit', '{name}', false),
		('environment role', 'businessunit', 'businessunit', '{parentbusinessunitid,businessunitid}', false),
		('environment role', 'transactioncurrency', 'organization', '{basecurrencyid}', false),
		('environment role', 'team', 'businessunit', '{name}', false),
		('environment role', 'team', 'businessunit', '{parentbusinessunitid,businessunitid}', false),
		('environment role', 'team', 'team', '{isdefault,businessunitid}', false)) b (key_name, for_table, base_table, base_columns, mapped)
	WHERE b.key_name = $2[1] AND b.for_table = $3
$$;
COMMENT ON FUNCTION dvmig._reference_bases(int, text[], text) IS 'records to read before a key that is no column can be told';

-- _ensure_reference: what a lookup's key needs to be known of Dataverse.
CREATE FUNCTION dvmig._ensure_reference(caller oid, server name, match_on text[], referenced_table text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	b record;
	none bool := true;
BEGIN
	IF array_position(match_on, 'user map') IS NULL AND array_position(match_on, 'environment role') IS NULL THEN
		RETURN;
	END IF;
	FOR b IN SELECT DISTINCT r.base_table FROM dvmig._reference_bases(0, match_on, referenced_table) r LOOP
		PERFORM dvmig._target_table(caller, server, b.base_table);
		none := false;
	END LOOP;
	IF none THEN
		RAISE EXCEPTION 'Dataverse table "%" cannot be matched on "%"', referenced_table, array_to_string(match_on, ', ')
			USING ERRCODE = 'invalid_parameter_value',
			HINT = 'The user map names users and teams; environment roles are those of business units, currencies and teams.';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._ensure_reference(oid, name, text[], text) IS 'read the metadata that a lookup by user map or environment role needs';

-- _read: a record found by a real column, of what was read.
CREATE FUNCTION dvmig._read(server name, table_name text, match_on text)
RETURNS TABLE (match_key text, record_id uuid)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT r.match_key, r.record_id FROM dvmig.reference r
	WHERE r.server = $1 AND r.table_name = $2 AND r.match_on = $3 AND r.record_id IS NOT NULL
$$;
COMMENT ON FUNCTION dvmig._read(name, text, text) IS 'records that a key column was found to mean';

-- _environment_roles: what records are in an environment, whatever they are called.
-- A null is no key, so that the root unit is the one that is not read by its parent.
CREATE FUNCTION dvmig._environment_roles(server name, table_name text) RETURNS TABLE (role text, id uuid)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH units AS (
		SELECT n.match_key AS unit_name, n.record_id, NOT EXISTS (SELECT FROM dvmig._read($1, 'businessunit', 'parentbusinessunitid,businessunitid') c
			WHERE c.record_id = n.record_id) AS is_root
		FROM dvmig._read($1, 'businessunit', 'name') n
	)
	SELECT 'root business unit', u.record_id FROM units u WHERE $2 = 'businessunit' AND u.is_root
	UNION ALL
	SELECT 'base currency', o.match_key::uuid FROM dvmig._read($1, 'organization', 'basecurrencyid') o WHERE $2 = 'transactioncurrency'
	UNION ALL
	SELECT 'default team of ' || r.unit_name, t.record_id
	FROM dvmig._read($1, 'team', 'isdefault,businessunitid') t
	JOIN units u ON t.match_key = 'true' || chr(31) || u.record_id,
		LATERAL (VALUES (u.unit_name), (CASE WHEN u.is_root THEN 'root business unit' END)) r (unit_name)
	WHERE $2 = 'team' AND r.unit_name IS NOT NULL
$$;
COMMENT ON FUNCTION dvmig._environment_roles(name, text) IS 'records of a table that an environment has in a role: root business unit, base currency, default team of a business unit';

-- _derive_reference: what keys that are no columns mean, from what was read; for
-- the keys given, like _store_reference.
CREATE FUNCTION dvmig._derive_reference(server name, table_name text, match_on text, keys text[]) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	WITH found AS (
		SELECT u.source_user AS k, CASE WHEN dvmig._is_uuid(u.target) THEN u.target::uuid
				ELSE coalesce((SELECT r.record_id FROM dvmig._read($1, $2, CASE $2 WHEN 'team' THEN 'name' ELSE 'internalemailaddress' END) r WHERE r.match_key = lower(u.target)),
					(SELECT r.record_id FROM dvmig._read($1, $2, 'domainname') r WHERE r.match_key = lower(u.target))) END AS id
		FROM dvmig.user_map u
		WHERE $3 = 'user map ' || u.migration_id AND u.target_table = $2
		UNION ALL
		SELECT e.role, e.id FROM dvmig._environment_roles($1, $2) e WHERE $3 = 'environment role'
	)
	SELECT dvmig._store_reference($1, $2, $3, $4, coalesce(array_agg(f.k) FILTER (WHERE f.id IS NOT NULL), '{}'),
		coalesce(array_agg(f.id) FILTER (WHERE f.id IS NOT NULL), '{}'))
	FROM found f
$$;
COMMENT ON FUNCTION dvmig._derive_reference(name, text, text, text[]) IS 'store which record each key of a user map, or environment role, means';

-- --------------------------------------------------------------------- map_owner

-- _map_owner: the lookups that an owner goes through, in order. A null is no
-- owner: it becomes a key that nobody has, so that it is told like other owners
-- that are missing, and does not silently fall to the application user.
CREATE FUNCTION dvmig._map_owner(caller oid, staging regclass, expression text, target_column text, match_on text,
	fallback text, fallback_table text, send text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	owner text := format('coalesce((%s)::text, '''')', expression);
	instead text := lower(btrim(coalesce(fallback_table, 'systemuser')));
	told text;
BEGIN
	IF coalesce(btrim(expression), '') = '' THEN
		RAISE EXCEPTION 'the expression for column "%" is missing', target_column USING ERRCODE = 'invalid_parameter_value';
	ELSIF instead NOT IN ('systemuser', 'team') THEN
		RAISE EXCEPTION 'fallback_table must be systemuser or team, not "%"', fallback_table USING ERRCODE = 'invalid_parameter_value';
	END IF;
	told := dvmig._map_lookup(caller, staging, target_column, owner, 'systemuser', 'user map', send, NULL, false, NULL, NULL);
	PERFORM dvmig._map_lookup(caller, staging, target_column, owner, 'team', 'user map', send, NULL, true, NULL, NULL);
	IF match_on IS NOT NULL OR fallback IS NOT NULL AND instead = 'systemuser' THEN
		PERFORM dvmig._map_lookup(caller, staging, target_column, owner, 'systemuser', coalesce(match_on, 'internalemailaddress'), send, NULL, true,
			CASE WHEN fallback IS NOT NULL AND instead = 'systemuser' THEN 'default' END, CASE WHEN instead = 'systemuser' THEN fallback END);
	END IF;
	IF fallback IS NOT NULL AND instead = 'team' THEN
		PERFORM dvmig._map_lookup(caller, staging, target_column, owner, 'team',
			CASE WHEN fallback ~* '^default team of ' THEN 'environment role' ELSE 'name' END, send, NULL, true, 'default', fallback);
	END IF;
	RETURN replace(told, owner, btrim(expression)) || coalesce(', else ' || CASE instead WHEN 'team' THEN 'team ' ELSE 'user ' END || fallback, '');
END
$$;
COMMENT ON FUNCTION dvmig._map_owner(oid, regclass, text, text, text, text, text, text) IS 'internal part of dvmig.map_owner()';

CREATE FUNCTION dvmig.map_owner(staging regclass, expression text, target_column text DEFAULT 'ownerid',
	match_on text DEFAULT 'internalemailaddress', fallback text DEFAULT NULL, fallback_table text DEFAULT 'systemuser', send text DEFAULT NULL) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.map_owner(regclass, text, text, text, text, text, text) IS
	'fill the owner from a source user: by dvmig.user_map, else by match_on among the users, else the fallback (mail address, name of a team, or id), else the row fails';

-- --------------------------------------------------------------- unmatched owners

CREATE FUNCTION dvmig._unmatched_owners(caller oid, migration text)
RETURNS TABLE (staging text, target_column text, source_owner text, affected_rows bigint, outcome text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'operator');
	t dvmig.migration_table;
	col text;
	found_rows jsonb;
BEGIN
	PERFORM dvmig._refresh_references(caller, migration);
	FOR t IN SELECT mt.* FROM dvmig.migration_table mt JOIN pg_class k ON k.oid = mt.staging WHERE mt.migration_id = m.migration_id ORDER BY mt.position LOOP
		FOR col IN SELECT c.target_column FROM dvmig.column_map c
			JOIN dvmig.metadata_column mc ON mc.server = m.server AND mc.table_name = t.target AND mc.column_name = c.target_column
			WHERE c.staging = t.staging AND mc.column_type = 'Owner' GROUP BY c.target_column ORDER BY min(c.position)
		LOOP
			-- who owns what is row content
			PERFORM dvmig._require_reading(caller, t.staging);
			found_rows := dvmig._query_as(m.owner, dvmig._unresolved_sql(t, col))::jsonb;
			RETURN QUERY SELECT t.staging::text, col, nullif(r.source_text, ''), r.n,
				CASE WHEN r.problem LIKE 'parked|%' THEN 'the rows wait' WHEN r.problem LIKE 'ambiguous|%' THEN 'the rows fail: several match' WHEN r.problem LIKE '%|%' THEN 'the rows fail'
					WHEN r.problem = 'defaulted' THEN 'the fallback owner' ELSE 'the application user' END
			FROM jsonb_to_recordset(found_rows) r(source_text text, problem text, n bigint)
			ORDER BY r.n DESC, nullif(r.source_text, '') NULLS LAST;
		END LOOP;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._unmatched_owners(oid, text) IS 'internal part of dvmig.unmatched_owners()';

CREATE FUNCTION dvmig.unmatched_owners(migration text)
RETURNS TABLE (staging text, target_column text, source_owner text, affected_rows bigint, outcome text)
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.unmatched_owners(text) IS
	'source owners that are no user or team of the target, with how many unprocessed rows have them and what becomes of those; looks users and teams up first';

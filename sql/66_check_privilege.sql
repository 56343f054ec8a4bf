-- Whether the application user may do what a run asks of it, as far as
-- refresh_metadata() was told (dvmig.metadata_privilege).

-- _privileges_needed: privileges that the maps and rows of a migration call for.
-- Activities share the privileges of one name, and a table that has none of
-- its own (order lines, say) takes its parent's: of such nothing is said.
CREATE FUNCTION dvmig._privileges_needed(m dvmig.migration)
RETURNS TABLE (staging regclass, privilege text, purpose text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH t AS (
		SELECT mt.staging, mt.position, dvmig._privilege_noun(m.server, mt.target) AS noun,
			coalesce((SELECT array_agg(DISTINCT c.target_column) FROM dvmig.column_map c WHERE c.staging = mt.staging), '{}') AS mapped
		FROM dvmig.migration_table mt
		WHERE mt.migration_id = m.migration_id
	), pointed AS (
		SELECT DISTINCT c.staging, c.referenced_table AS noun FROM dvmig.column_map c JOIN t USING (staging) WHERE c.referenced_table IS NOT NULL
	)
	SELECT t.staging, 'prv' || v.verb || t.noun, v.purpose
	FROM t, (VALUES ('create', 'to create records'), ('read', 'to settle what is in doubt and to verify'), ('write', 'to update records')) v (verb, purpose)
	UNION ALL
	SELECT t.staging, 'prvassign' || t.noun, 'to give records an owner' FROM t WHERE 'ownerid' = ANY (t.mapped)
	UNION ALL
	SELECT t.staging, 'prvappend' || t.noun, 'to fill lookups' FROM t WHERE EXISTS (SELECT FROM pointed p WHERE p.staging = t.staging)
	UNION ALL
	SELECT p.staging, 'prvappendto' || p.noun, 'to be pointed at by lookups' FROM pointed p
	WHERE p.noun NOT IN ('systemuser', 'team', 'businessunit', 'transactioncurrency')
	UNION ALL
	SELECT t.staging, 'prvoverridecreatedoncreatedby', 'to fill overriddencreatedon' FROM t WHERE 'overriddencreatedon' = ANY (t.mapped)
	UNION ALL
	SELECT mt.staging, 'prvbypasscustombusinesslogic', 'to pass over custom logic' FROM dvmig.migration_table mt
	WHERE mt.migration_id = m.migration_id AND coalesce(mt.bypass_custom_logic, m.bypass_custom_logic, 'none') <> 'none'
	UNION ALL
	SELECT mt.staging, 'prvactonbehalfofanotheruser', 'to write as other users' FROM dvmig.migration_table mt
	WHERE mt.migration_id = m.migration_id AND mt.caller_sql IS NOT NULL
$$;
COMMENT ON FUNCTION dvmig._privileges_needed(dvmig.migration) IS 'privileges in Dataverse that a migration calls for, in lower case, and what for';

CREATE FUNCTION dvmig._check_privileges(m dvmig.migration) RETURNS SETOF jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH held AS (SELECT lower(p.privilege_name) AS name FROM dvmig.metadata_privilege p WHERE p.server = m.server),
	missing AS (
		SELECT n.staging, n.purpose, n.privilege FROM dvmig._privileges_needed(m) n
		WHERE EXISTS (SELECT FROM held) AND n.privilege NOT IN (SELECT h.name FROM held h)
		  -- a noun that no privilege bears is another's
		  AND (n.privilege !~ '^prv(create|read|write|assign|append|appendto)[a-z0-9_]+$'
			OR EXISTS (SELECT FROM held h WHERE h.name <> n.privilege
				AND h.name ~ ('^prv(create|read|write|delete|assign|append|appendto|share)'
					|| regexp_replace(n.privilege, '^prv(create|read|write|assign|appendto|append)', '') || '$')))
	)
	SELECT dvmig._check_finding('warning', s.staging::text, NULL, 'privilege', NULL, NULL,
		'the application user lacks privileges: ' || string_agg(format('%s (%s)', s.privilege, s.purpose), ', ' ORDER BY s.privilege),
		'Give it a security role that has them, and call dvmig.refresh_metadata(); rows that need them would be refused.')
	FROM missing s GROUP BY s.staging
$$;
COMMENT ON FUNCTION dvmig._check_privileges(dvmig.migration) IS 'findings about privileges that the application user lacks';

-- _check_bypass: custom logic and flows run for every row unless they are
-- passed over, which is the commonest reason for a slow load.
CREATE FUNCTION dvmig._check_bypass(m dvmig.migration) RETURNS SETOF jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH t AS (
		SELECT mt.staging, coalesce(mt.bypass_custom_logic, m.bypass_custom_logic, 'none') = 'none' AS logic, NOT coalesce(mt.bypass_flows, m.bypass_flows, false) AS flows
		FROM dvmig.migration_table mt WHERE mt.migration_id = m.migration_id
	)
	SELECT dvmig._check_finding('info', NULL, NULL, 'bypass_not_set', NULL, NULL,
		concat_ws(' and ', CASE WHEN bool_or(t.logic) THEN 'custom plug-ins and workflows' END, CASE WHEN bool_or(t.flows) THEN 'Power Automate flows' END)
			|| ' run for every row that is written'
			|| CASE WHEN bool_and(t.logic OR t.flows) THEN '' ELSE ' of ' || string_agg(t.staging::text, ', ' ORDER BY t.staging::text) FILTER (WHERE t.logic OR t.flows) END,
		format('If they are not wanted: SELECT dvmig.set_migration(%L, ''bypass_custom_logic'', ''sync,async''), dvmig.set_migration(%1$L, ''bypass_flows'', ''true'').', m.name))
	FROM t WHERE t.logic OR t.flows HAVING count(*) > 0
$$;
COMMENT ON FUNCTION dvmig._check_bypass(dvmig.migration) IS 'finding about custom logic that runs for every row';

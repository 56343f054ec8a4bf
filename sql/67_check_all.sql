-- What dvmig.check() asks of several tables or rows at once, and the function
-- itself.

-- _check_late: rows that are loaded, but whose deferred lookup stays owed
-- because its parent is not. Asked only where some parent is not loaded.
CREATE FUNCTION dvmig._check_late(m dvmig.migration, t dvmig.migration_table, deferred text[], state jsonb, samples int) RETURNS SETOF jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	c record;
	k record;
	r jsonb;
	own text := state -> t.staging::text ->> 'missing';
	missing text;
BEGIN
	SELECT q.* INTO k FROM dvmig._key_sql(t.source_key, 's') q;
	FOR c IN SELECT f.*, p.source_key FROM dvmig._check_maps(t.staging, deferred) f JOIN dvmig.migration_table p ON p.staging = f.parent WHERE f.is_deferred LOOP
		missing := state -> c.parent::text ->> 'missing';
		CONTINUE WHEN missing IS NULL AND (state -> c.parent::text -> 'counts' ->> 'lost')::bigint = 0
			OR (state -> t.staging::text -> 'counts' ->> 'wanted')::bigint = 0;
		r := dvmig._query_as(m.owner, format('SELECT jsonb_build_object(''n'', count(*), ''keys'', to_jsonb(dvmig._first_keys(%s, %s, %s))) FROM %s s %s %s %s WHERE %s AND (%s)',
			k.sort_sql, k.label_sql, samples, t.staging, c.join_sql,
			'LEFT JOIN (' || missing || ') b ON ' || (SELECT string_agg(format('b.k%s = p%s.%I', i, c.n, n), ' AND ') FROM unnest(c.source_key) WITH ORDINALITY u(n, i)),
			'LEFT JOIN (' || own || ') own ON ' || (SELECT string_agg(format('own.k%s = s.%I', i, n), ' AND ') FROM unnest(t.source_key) WITH ORDINALITY u(n, i)),
			dvmig._check_scope(t.staging, false, state -> t.staging::text ->> 'thrown'),
			concat(CASE WHEN own IS NOT NULL THEN 'own.k1 IS NULL AND ' END, format('(p%s.action_flag = ''D'' OR p%1$s.processing_flag = ''E''%s)', c.n,
				CASE WHEN missing IS NOT NULL THEN ' OR b.k1 IS NOT NULL' END))))::jsonb;
		IF (r ->> 'n')::bigint > 0 THEN
			RETURN NEXT dvmig._check_finding('warning', t.staging::text, c.target_column, 'lookup_stays_owed', (r ->> 'n')::bigint, nullif(r -> 'keys', 'null'),
				format('the parent row in %s will not be loaded, so the record stays without this lookup', c.parent), 'Correct the parent rows; the next run fills the lookup.');
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._check_late(dvmig.migration, dvmig.migration_table, text[], jsonb, int) IS 'findings about deferred lookups to rows that will not be loaded';

-- _check_loops: rows of a hierarchy that no root leads to: they go in a circle,
-- or hang below one.
CREATE FUNCTION dvmig._check_loops(m dvmig.migration, t dvmig.migration_table, thrown text, samples int) RETURNS SETOF jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	c record;
	k record;
	r jsonb;
	own text;
	up text;
BEGIN
	SELECT q.* INTO k FROM dvmig._key_sql(t.source_key, 's') q;
	SELECT string_agg('k' || i, ', ' ORDER BY i), string_agg('p' || i, ', ' ORDER BY i) INTO own, up FROM generate_series(1, cardinality(t.source_key)) i;
	FOR c IN SELECT cm.target_column, cm.expression_sql, dvmig._by_level(cm) AS fails FROM dvmig.column_map cm WHERE cm.staging = t.staging AND cm.parent = t.staging LOOP
		r := dvmig._query_as(m.owner, format(
			'WITH RECURSIVE edge AS MATERIALIZED (SELECT * FROM (SELECT %1$s AS sort_key, %2$s AS label, %3$s FROM %4$s s WHERE %5$s OFFSET 0) q WHERE %6$s), '
			'reached AS (SELECT %7$s FROM edge e WHERE NOT EXISTS (SELECT FROM edge o WHERE (%8$s) = (%9$s)) '
			'UNION ALL SELECT %10$s FROM reached r JOIN edge e ON (%8$s) = (%11$s)) '
			'SELECT jsonb_build_object(''n'', count(*), ''keys'', to_jsonb(dvmig._first_keys(e.sort_key, e.label, %12$s))) FROM edge e WHERE NOT EXISTS (SELECT FROM reached r WHERE (%10$s) = (%11$s))',
			k.sort_sql, k.label_sql,
			(SELECT string_agg(format('s.%I AS k%s, %s AS p%2$s', n, i, dvmig._as_key(t.staging, n, e)), ', ' ORDER BY i) FROM unnest(t.source_key, c.expression_sql) WITH ORDINALITY u(n, e, i)),
			t.staging, dvmig._check_scope(t.staging, false, thrown),
			(SELECT string_agg(format('p%s IS NOT NULL', i), ' AND ') FROM generate_series(1, cardinality(t.source_key)) i),
			own, regexp_replace(up, 'p', 'e.p', 'g'), regexp_replace(own, 'k', 'o.k', 'g'), regexp_replace(own, 'k', 'e.k', 'g'), regexp_replace(own, 'k', 'r.k', 'g'), samples))::jsonb;
		IF (r ->> 'n')::bigint > 0 THEN
			RETURN NEXT dvmig._check_finding(CASE WHEN c.fails THEN 'error' ELSE 'warning' END, t.staging::text, c.target_column, 'loop', (r ->> 'n')::bigint, nullif(r -> 'keys', 'null'),
				'the hierarchy goes in a circle: these rows are in it or below it', CASE WHEN c.fails THEN 'Rows go after the one above them, so none of these can go first. Take a parent out.'
					ELSE 'Dataverse refuses circles in relationships that are hierarchies. Take a parent out.' END);
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._check_loops(dvmig.migration, dvmig.migration_table, text, int) IS 'findings about rows of a hierarchy that go in a circle';

-- _check_volume: requests against what the service grants in 24 hours: every
-- row counts, also within bulk messages. Application users share the tenant's
-- pool: 25,000 with Power Apps licences only, 500,000 and more with Dynamics 365.
CREATE FUNCTION dvmig._check_volume(m dvmig.migration, state jsonb) RETURNS SETOF jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH n AS (
		-- rows with a lookup that goes in a circle are sent again, and so are those that change their state
		SELECT sum((c ->> 'wanted')::bigint * (1 + (cardinality(w.deferred || dvmig._update_only(w.staging)) > 0)::int
			+ EXISTS (SELECT FROM dvmig.column_map s WHERE s.staging = w.staging AND s.pass = 'states')::int) + (c ->> 'deletes')::bigint)::bigint AS requests
		FROM dvmig._waves(m.migration_id) w, LATERAL (SELECT state -> w.staging::text -> 'counts' AS c) q
	)
	SELECT dvmig._check_finding(CASE WHEN n.requests > 500000 THEN 'warning' ELSE 'info' END, NULL, NULL, 'requests', n.requests, NULL,
		format('up to %s against what Microsoft grants a tenant in 24 hours', dvmig._count_of(n.requests, 'request counts', 'requests count')),
		CASE WHEN n.requests > 25000 THEN 'That is 25,000 with Power Apps licences only, and 500,000 and more with Dynamics 365: ask what the tenant has, and spread the load over days where it is not enough.'
			ELSE 'That is 25,000 and more, by the licences the tenant has.' END)
	FROM n WHERE n.requests > 0
	UNION ALL
	SELECT dvmig._check_finding('info', t.staging::text, NULL, 'left_out', (state -> t.staging::text -> 'counts' ->> 'left_out')::bigint, NULL,
		coalesce('the filter leaves rows out: ' || t.filter_reason, 'the filter leaves rows out'),
		CASE WHEN t.filter_reason IS NULL THEN format('Say why, for those who read reports: SELECT dvmig.set_table(%L, ''filter_reason'', ''...'').', t.staging) ELSE 'Nothing to do; reports tell the reason.' END)
	FROM dvmig.migration_table t WHERE t.migration_id = m.migration_id AND (state -> t.staging::text -> 'counts' ->> 'left_out')::bigint > 0
$$;
COMMENT ON FUNCTION dvmig._check_volume(dvmig.migration, jsonb) IS 'findings about how much is sent and what is left out';

-- _check_rows: the findings about rows of all tables, parents first.
CREATE FUNCTION dvmig._check_rows(caller oid, m dvmig.migration, samples int) RETURNS SETOF jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	w record;
	t dvmig.migration_table;
	counts jsonb;
	r record;
	state jsonb := '{}';
	late bool;
	may_see bool;
	shown int;
	fault jsonb;
BEGIN
	FOREACH late IN ARRAY '{f,t}'::bool[] LOOP
		FOR w IN SELECT v.staging, v.deferred FROM dvmig._waves(m.migration_id) v ORDER BY v.wave LOOP
			SELECT mt.* INTO t FROM dvmig.migration_table mt JOIN pg_class k ON k.oid = mt.staging WHERE mt.staging = w.staging;
			CONTINUE WHEN NOT FOUND;	-- dropped meanwhile
			counts := NULL;
			-- keys are row content: for those who may read the rows
			may_see := dvmig._may_read(caller, w.staging);
			shown := CASE WHEN may_see THEN samples ELSE 0 END;
			BEGIN
				IF late THEN
					CONTINUE WHEN NOT state ? w.staging::text OR state -> w.staging::text ? 'fault';
					RETURN QUERY SELECT * FROM dvmig._check_late(m, t, w.deferred, state, shown);
					RETURN QUERY SELECT * FROM dvmig._check_loops(m, t, state -> w.staging::text ->> 'thrown', shown);
				ELSE
					counts := dvmig._check_counts(m.owner, w.staging);
					r := dvmig._check_table(m, t, w.deferred, counts,
						(SELECT coalesce(jsonb_object_agg(s.key, s.value -> 'missing') FILTER (WHERE s.value ->> 'missing' IS NOT NULL), '{}') FROM jsonb_each(state) s), shown, may_see);
					state := state || jsonb_build_object(w.staging::text, jsonb_build_object('counts', counts, 'missing', r.missing_sql, 'thrown', r.thrown));
					RETURN QUERY SELECT * FROM jsonb_array_elements(r.findings);
				END IF;
			EXCEPTION WHEN syntax_error_or_access_rule_violation OR cardinality_violation OR data_exception OR integrity_constraint_violation
				OR external_routine_invocation_exception OR sql_routine_exception OR program_limit_exceeded OR plpgsql_error OR feature_not_supported THEN
				fault := dvmig._check_filter_fault(m.owner, t, shown, may_see);
				RETURN NEXT coalesce(fault, dvmig._check_finding('error', w.staging::text, NULL, 'unreadable', (counts ->> 'wanted')::bigint, NULL,
					CASE WHEN may_see THEN 'the rows cannot be checked: ' || SQLERRM ELSE 'the rows cannot be checked, SQLSTATE ' || SQLSTATE END,
					'A run would fail here as well: correct the filter, the column maps or the privileges.'));
				-- none of its rows would be loaded; but for a filter: then it is not known which
				state := state || jsonb_build_object(w.staging::text, jsonb_build_object('counts', counts, 'thrown', NULL, 'fault', true, 'missing',
					CASE WHEN fault IS NULL THEN dvmig._check_unloadable(t, NULL, 'true', false) END));
			END;
		END LOOP;
	END LOOP;
	RETURN QUERY SELECT * FROM dvmig._check_volume(m, state);
END
$$;
COMMENT ON FUNCTION dvmig._check_rows(oid, dvmig.migration, int) IS 'findings about the rows of all staging tables of a migration';

-- _raise_quietly: an error without the text of one that a row caused, unless the
-- caller may read all rows.
CREATE FUNCTION dvmig._raise_quietly(caller oid, m dvmig.migration, state text, thrown_by text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT dvmig._is_no_rows_fault(state, thrown_by) AND EXISTS (SELECT FROM dvmig.migration_table t JOIN pg_class c ON c.oid = t.staging
		WHERE t.migration_id = m.migration_id AND NOT dvmig._may_read(caller, t.staging)) THEN
		RAISE EXCEPTION 'an expression of migration "%" threw an error (SQLSTATE %)', m.name, state
			USING ERRCODE = state, HINT = 'It is told to those who may read the staging tables.';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._raise_quietly(oid, dvmig.migration, text, text) IS 'error in the place of one that may quote a row, for callers who may not read it';

-- _check: policies hold for the owner, as in a run's worker.
CREATE FUNCTION dvmig._check(caller oid, migration text, samples int)
RETURNS TABLE (severity text, staging text, target_column text, rule text, affected_rows bigint, sample_keys text[], message text, hint text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET row_security = on
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'operator');
	thrown_by text;
BEGIN
	RETURN QUERY
	WITH findings AS MATERIALIZED (
		SELECT f FROM dvmig._check_rows(caller, m, greatest(coalesce(samples, 0), 0)) f
		UNION ALL SELECT f FROM dvmig._check_maps_made(m) f
		UNION ALL SELECT f FROM dvmig._check_volatile(m) f
		UNION ALL SELECT f FROM dvmig._check_secret(m) f
		UNION ALL SELECT f FROM dvmig._check_auto_resume() f
		UNION ALL SELECT f FROM dvmig._check_sensitive(m) f
		UNION ALL SELECT f FROM dvmig._check_privileges(m) f
		UNION ALL SELECT f FROM dvmig._check_bypass(m) f
	)
	SELECT g.severity, g.staging, g.target_column, g.rule, g.affected_rows,
		CASE WHEN g.sample_keys IS NOT NULL THEN ARRAY(SELECT e FROM jsonb_array_elements_text(g.sample_keys) WITH ORDINALITY q(e, i) ORDER BY i) END,
		g.message, g.hint
	FROM findings, jsonb_to_record(f) g(severity text, staging text, target_column text, rule text, affected_rows bigint, sample_keys jsonb, message text, hint text)
	LEFT JOIN dvmig.migration_table t ON t.staging::text = g.staging
	ORDER BY array_position('{error,warning,info}', g.severity), t.position NULLS LAST, g.target_column NULLS FIRST, g.rule, g.message;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS thrown_by = PG_EXCEPTION_CONTEXT;
	PERFORM dvmig._raise_quietly(caller, m, SQLSTATE, thrown_by);
	RAISE;
END
$$;
COMMENT ON FUNCTION dvmig._check(oid, text, int) IS 'internal part of dvmig.check()';

CREATE FUNCTION dvmig.check(migration text, samples int DEFAULT 5)
RETURNS TABLE (severity text, staging text, target_column text, rule text, affected_rows bigint, sample_keys text[], message text, hint text)
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.check(text, int) IS
	'what would fail or deserves a look, before anything is sent: one row per finding. Rows under an error would fail or be parked; samples: how many of their source keys are shown';

-- ---------------------------------------------------------------- references

-- _refresh_references: keys are collected with the rights of the owner; rows
-- for which an expression throws are left out, as they are in a run.
CREATE FUNCTION dvmig._refresh_references(caller oid, migration text)
RETURNS TABLE (referenced_table text, match_on text, keys_read bigint, found_once bigint, ambiguous bigint, missing bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'operator');
	r record;
	c record;
	k text;
	thrown text;
	keys text[];
	thrown_by text;
BEGIN
	FOR r IN SELECT cm.referenced_table AS tab, cm.match_on AS cols FROM dvmig.column_map cm JOIN dvmig.migration_table t USING (staging)
		WHERE t.migration_id = m.migration_id AND cm.kind IN ('reference', 'party') AND cm.match_on IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2 LOOP
		keys := '{}';
		FOR c IN SELECT cm.*, cm AS map FROM dvmig.column_map cm JOIN dvmig.migration_table t USING (staging)
			WHERE t.migration_id = m.migration_id AND cm.kind IN ('reference', 'party') AND cm.referenced_table = r.tab AND cm.match_on = r.cols LOOP
			k := CASE c.kind WHEN 'party' THEN c.expression_sql[1] ELSE dvmig._reference_key(c.expression_sql) END;
			thrown := NULL;
			IF dvmig._check_fault(m.owner, format('SELECT count(%s) FROM %s s WHERE %s', k, c.staging, dvmig._check_scope(c.staging, false, NULL))) IS NOT NULL THEN
				SELECT dvmig._check_these(h.relations, h.tids) INTO thrown
				FROM dvmig._check_thrown(m.owner, c.staging, dvmig._check_scope(c.staging, false, NULL), k) h;
			END IF;
			keys := keys || ARRAY(SELECT q FROM dvmig._query_as(m.owner, format('SELECT DISTINCT k FROM (%s) q',
				dvmig._reference_rows(c.map, dvmig._check_scope(c.staging, false, thrown)))) q WHERE q IS NOT NULL)
				|| CASE WHEN c.on_missing = 'default' AND NOT dvmig._is_uuid(c.default_value) THEN lower(c.default_value) END;
		END LOOP;
		keys := ARRAY(SELECT DISTINCT u FROM unnest(keys) u WHERE u IS NOT NULL);
		referenced_table := r.tab;
		match_on := dvmig._reference_name(m.migration_id, r.cols);
		keys_read := cardinality(keys);
		-- no keys: all records
		PERFORM dvmig._read_reference(m.owner, m.server::text, b.base_table, b.base_columns, (SELECT q FROM dvmig._query_as(m.owner, b.keys) q)::text[])
		FROM dvmig._reference_bases(m.migration_id, r.cols, r.tab) b;
		found_once := CASE WHEN keys_read = 0 THEN 0 WHEN match_on LIKE '% %' THEN dvmig._derive_reference(m.server, r.tab, match_on, keys)
			ELSE dvmig._read_reference(m.owner, m.server::text, r.tab, r.cols, keys) END;
		SELECT count(*) FILTER (WHERE f.matches > 1), count(*) FILTER (WHERE f.matches = 0) INTO ambiguous, missing
		FROM dvmig.reference f
		WHERE f.server = m.server AND f.table_name = r.tab AND f.match_on = dvmig._reference_name(m.migration_id, r.cols) AND f.match_key = ANY (keys);
		RETURN NEXT;
	END LOOP;
	PERFORM dvmig._refresh_owners(caller, m);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS thrown_by = PG_EXCEPTION_CONTEXT;
	PERFORM dvmig._raise_quietly(caller, m, SQLSTATE, thrown_by);
	RAISE;
END
$$;
COMMENT ON FUNCTION dvmig._refresh_references(oid, text) IS 'internal part of dvmig.refresh_references()';

CREATE FUNCTION dvmig.refresh_references(migration text)
RETURNS TABLE (referenced_table text, match_on text, keys_read bigint, found_once bigint, ambiguous bigint, missing bigint)
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.refresh_references(text) IS
	'look up the existing records that the lookups of a migration name by match_on, so that dvmig.check() knows which are found, and whether owners may own the records; a run does the former by itself';

-- What a run will do, in numbers, before it is started.

-- _sample_bytes: average JSON of a row, from a sample of what would be sent.
CREATE FUNCTION dvmig._sample_bytes(staging regclass, deferred text[], owner oid) RETURNS numeric
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- 60 bytes a row: @odata.type and the comma of a bulk message
	RETURN (SELECT coalesce(avg(octet_length(p.request)), 0) + 60 FROM dvmig._preview_rows(staging, 100, deferred, owner) p);
EXCEPTION WHEN OTHERS THEN
	RETURN NULL;		-- not with the error: it may quote a row
END
$$;
COMMENT ON FUNCTION dvmig._sample_bytes(regclass, text[], oid) IS 'average request bytes of a row; null where the sample cannot be transformed';

-- _measured_pace: rows a second and rows a request of the last run that took a
-- table through a pass, else of the last that wrote it. Microsoft calls 100 to
-- 200 records a second a good rate: the lower one is assumed where nothing was
-- measured.
CREATE FUNCTION dvmig._measured_pace(staging regclass, pass text, assumed_rows numeric, OUT rate numeric, OUT rows_per_request numeric, OUT measured bool)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(max(q.rate), 100), coalesce(max(q.rows_per_request) FILTER (WHERE q.pass = $2), $3), count(q.rate) > 0
	FROM (SELECT t.pass, n.sent / nullif(extract(epoch FROM t.ended_at - t.started_at), 0) AS rate, greatest(n.sent::numeric / nullif(t.requests, 0), 1) AS rows_per_request
		FROM dvmig.run_table t, LATERAL (SELECT t.succeeded + t.failed - t.unchanged AS sent) n
		WHERE t.staging = $1::text AND t.pass IN ($2, 'write') AND t.ended_at IS NOT NULL AND n.sent >= 100
		ORDER BY t.pass = $2 DESC, t.run DESC LIMIT 1) q
$$;
COMMENT ON FUNCTION dvmig._measured_pace(regclass, text, numeric) IS 'rows a second and rows a request of a table in a pass, measured or assumed';

CREATE FUNCTION dvmig._plan(caller oid, migration text)
RETURNS TABLE (step int, wave int, pass text, staging text, target text, creates bigint, updates bigint, deletes bigint,
	deferred_lookups text[], batches bigint, requests bigint, bytes bigint, expected_duration interval, remark text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'viewer');
	t record;
	c jsonb;
	r record;
	n bigint;
	late text[];
BEGIN
	FOR t IN
		SELECT q.n AS step, q.staging AS tab, q.pass, q.wave, q.deferred, q.all_deferred
		FROM dvmig._steps(m.migration_id, '{write,deferred,links,files,states,delete}') WITH ORDINALITY q (staging, pass, ord, wave, deferred, all_deferred, n)
		ORDER BY 1
	LOOP
		step := t.step; wave := t.wave; pass := t.pass; staging := t.tab::text; deferred_lookups := t.deferred; remark := NULL;
		SELECT mt.target INTO target FROM dvmig.migration_table mt WHERE mt.staging = t.tab;
		c := dvmig._query_quietly(m.owner, format(
			$q$SELECT jsonb_build_object('creates', count(*) FILTER (WHERE s.action_flag = 'I' AND (x.operation IS NULL OR x.operation = 'D')),
				'updates', count(*) FILTER (WHERE s.action_flag = 'U' OR s.action_flag = 'I' AND x.operation <> 'D'), 'n', count(*))::text
				FROM (%s) s LEFT JOIN %s x USING (%s)$q$,
			(SELECT p.inner_sql FROM dvmig._projection(t.tab, t.pass) p),
			(SELECT mt.success_table FROM dvmig.migration_table mt WHERE mt.staging = t.tab),
			(SELECT string_agg(quote_ident(k), ', ') FROM dvmig.migration_table mt, unnest(mt.source_key) k WHERE mt.staging = t.tab)), staging)::jsonb;
		n := c ->> 'n';
		creates := CASE pass WHEN 'write' THEN (c ->> 'creates')::bigint WHEN 'links' THEN n ELSE 0 END;
		updates := CASE pass WHEN 'write' THEN (c ->> 'updates')::bigint WHEN 'delete' THEN 0 WHEN 'links' THEN 0 ELSE n END;
		deletes := CASE pass WHEN 'delete' THEN n ELSE 0 END;
		IF pass = 'deferred' THEN
			late := dvmig._update_only(t.tab);
			-- rows this run creates come on top of those that owe it already
			updates := n + dvmig._query_quietly(m.owner, format('SELECT count(*) FROM (%s) s WHERE %s',
				(SELECT p.inner_sql FROM dvmig._projection(t.tab, 'write') p),
				(SELECT string_agg('(' || f.filled_sql || ')', ' OR ') FROM dvmig._map_sql(t.tab) f WHERE f.target_column = ANY (t.deferred || late))), staging)::bigint;
			n := updates;
			remark := concat_ws('; ', CASE WHEN cardinality(t.deferred) > 0 THEN 'lookups that go in a circle follow when both records exist' END,
				CASE WHEN cardinality(late) > 0 THEN format('Dataverse takes %s with an update only', array_to_string(late, ', ')) END);
		END IF;
		IF pass = 'files' THEN
			updates := n + coalesce(dvmig._query_quietly(m.owner, (SELECT format('SELECT count(*) FROM (%s) s WHERE %s', p.inner_sql, dvmig._files_owed_sql(t.tab))
				FROM dvmig._projection(t.tab, 'write') p), staging)::bigint, 0);
			n := updates;
			remark := 'files are uploaded one by one, of more than 4 MiB in chunks';
		END IF;
		IF pass = 'states' THEN
			-- rows this run writes come on top of those that owe it already
			updates := n + coalesce(dvmig._query_quietly(m.owner, (SELECT format('SELECT count(*) FROM (%s) s %s WHERE %s', p.inner_sql, p.outcomes_sql, w.owed_sql)
				FROM dvmig._projection(t.tab, 'write') p, dvmig._state_sql(t.tab) w), staging)::bigint, 0);
			n := updates;
			remark := CASE WHEN dvmig._closing_table(target) THEN format('closed by actions, only when asked for: dvmig.start(%L, passes => ''{states}'')', m.name) END;
		END IF;
		IF pass = 'delete' AND n = 0 THEN
			CONTINUE;
		END IF;
		SELECT q.* INTO r FROM dvmig._measured_pace(t.tab, t.pass, CASE
			WHEN t.pass = 'files' THEN 1 WHEN t.pass = 'links' OR t.pass = 'states' AND dvmig._closing_table(target) THEN 50
			WHEN t.pass <> 'delete' AND EXISTS (SELECT FROM dvmig.metadata_table mt WHERE mt.server = m.server AND mt.table_name = target
				AND CASE t.pass WHEN 'write' THEN mt.create_multiple ELSE mt.update_multiple END) THEN 500 ELSE 100 END) q;
		batches := ceil(n / r.rows_per_request);
		requests := batches;
		bytes := CASE WHEN pass IN ('delete', 'links', 'states') THEN n * 200
			WHEN n = 0 THEN 0
			WHEN pass = 'files' THEN NULL
			ELSE n * dvmig._sample_bytes(t.tab, t.all_deferred, m.owner) END;
		-- a quarter in hand: Microsoft advises 20 to 30 per cent
		expected_duration := make_interval(secs => round(n / r.rate * 1.25)::double precision);
		remark := concat_ws('; ', remark, CASE WHEN n > 0 AND NOT r.measured THEN format('duration assumes 100 rows a second and %s a request: nothing was measured yet', dvmig._count_of(r.rows_per_request, 'row', 'rows')) END);
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._plan(oid, text) IS 'waves, passes, rows, requests and expected duration: see dvmig.plan()';

CREATE FUNCTION dvmig.plan(migration text)
RETURNS TABLE (step int, wave int, pass text, staging text, target text, creates bigint, updates bigint, deletes bigint,
	deferred_lookups text[], batches bigint, requests bigint, bytes bigint, expected_duration interval, remark text)
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.plan(text) IS
	'what a run will do: waves and passes in order, rows by operation, batches, requests, bytes, and the expected duration with a quarter in hand (as measured in earlier runs, else 100 rows a second)';

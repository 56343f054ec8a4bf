-- The report: one HTML page that needs nothing from outside, and the same for a
-- terminal. Every value goes through _html(): error messages, keys and names
-- can hold anything.

CREATE FUNCTION dvmig._html(value text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT replace(replace(replace(replace(replace(regexp_replace($1, '[\x01-\x08\x0b\x0c\x0e-\x1f]', '?', 'g'),
		'&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;')
$$;
COMMENT ON FUNCTION dvmig._html(text) IS 'text as text of an HTML page';

CREATE FUNCTION dvmig._count_text(n numeric) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT coalesce(to_char($1, 'FM999,999,999,999,999'), '?') $$;
COMMENT ON FUNCTION dvmig._count_text(numeric) IS 'a count with separators';

CREATE FUNCTION dvmig._duration_text(seconds numeric) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN $1 IS NULL THEN '?' WHEN $1 < 60 THEN format('%s s', round($1, CASE WHEN $1 < 10 THEN 1 ELSE 0 END))
		WHEN $1 < 3600 THEN format('%s min %s s', floor($1 / 60), floor($1)::bigint % 60)
		ELSE format('%s h %s min', floor($1 / 3600), floor($1 / 60)::bigint % 60) END
$$;
COMMENT ON FUNCTION dvmig._duration_text(numeric) IS 'seconds for people';

-- _html_table: heads and, from jsonb rows, cells in the order of the keys.
-- Keys that begin with # are numbers, which stand to the right.
CREATE FUNCTION dvmig._html_table(heads text[], keys text[], rows jsonb) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT '<table><thead><tr>' || (SELECT string_agg(format('<th%s>%s</th>', CASE WHEN k LIKE '#%' THEN ' class="n"' ELSE '' END, dvmig._html(h)), '' ORDER BY i)
			FROM unnest(heads, keys) WITH ORDINALITY u(h, k, i))
		|| '</tr></thead><tbody>' || coalesce((SELECT string_agg('<tr>' || (
				SELECT string_agg(format('<td%s>%s</td>', CASE WHEN k LIKE '#%' THEN ' class="n"' WHEN k IN ('message', 'sample_key', 'expression', 'next_step') THEN ' class="w"' ELSE '' END,
					CASE WHEN k LIKE '#%' THEN dvmig._count_text((r ->> substr(k, 2))::numeric) ELSE coalesce(dvmig._html(r ->> k), '') END), '' ORDER BY i)
				FROM unnest(keys) WITH ORDINALITY u(k, i)) || '</tr>', '' ORDER BY n)
			FROM jsonb_array_elements(rows) WITH ORDINALITY e(r, n)), '') || '</tbody></table>'
$$;
COMMENT ON FUNCTION dvmig._html_table(text[], text[], jsonb) IS 'an HTML table from rows as jsonb';

-- _svg_bars: one bar a row, 100 per cent wide, in parts.
CREATE FUNCTION dvmig._svg_bars(tables jsonb) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(format('<svg class="chart" viewBox="0 0 800 %s" role="img" aria-label="Rows by table">', count(DISTINCT n) * 44 + 4)
		|| string_agg(CASE WHEN k = 1 THEN format('<text x="0" y="%1$s" class="l">%2$s</text><text x="800" y="%1$s" class="r">%3$s of %4$s done</text>',
				(n - 1) * 44 + 14, dvmig._html(name), dvmig._count_text(succeeded), dvmig._count_text(staged - left_out)) ELSE '' END
			|| format('<rect x="%s" y="%s" width="%s" height="16" class="%s"><title>%s %s</title></rect>',
				round(x, 2), (n - 1) * 44 + 20, round(w, 2), part, dvmig._count_text(v), replace(part, '_', ' ')), '' ORDER BY n, k)
		|| '</svg>', '')
	FROM (SELECT n, k, part, v, t ->> 'staging' AS name, coalesce((t ->> 'staged')::numeric, 0) AS staged, coalesce((t ->> 'left_out')::numeric, 0) AS left_out,
			coalesce((t ->> 'succeeded')::numeric, 0) AS succeeded, 800 * v / greatest((t ->> 'staged')::numeric, 1) AS w,
			800 * coalesce(sum(v) OVER (PARTITION BY n ORDER BY k ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) / greatest((t ->> 'staged')::numeric, 1) AS x
		FROM jsonb_array_elements(tables) WITH ORDINALITY e(t, n),
			LATERAL (SELECT i, p, coalesce((t ->> p)::numeric, 0) FROM unnest('{succeeded,failed,unprocessed,left_out}'::text[]) WITH ORDINALITY u(p, i)) parts(k, part, v)) b
$$;
COMMENT ON FUNCTION dvmig._svg_bars(jsonb) IS 'bars of succeeded, failed, unprocessed and left out rows by table';

-- _svg_rates: rows per second over the time of a run, failed ones below.
CREATE FUNCTION dvmig._svg_rates(rates jsonb) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	points jsonb := rates -> 'points';
	top numeric := (SELECT greatest(max((p ->> 'rate')::numeric), 1) FROM jsonb_array_elements(points) p);
	width numeric := (SELECT greatest(max((p ->> 't')::numeric), 0.1) FROM jsonb_array_elements(points) p);
	line text;
	failed text;
BEGIN
	IF jsonb_array_length(points) = 0 THEN
		RETURN '<p class="note">No run has been sampled yet.</p>';
	END IF;
	-- steps: a rate holds from the sample before to its own
	SELECT string_agg(format('H%s V%s', round(60 + 735 * prev / width, 1), round(180 - 160 * rate / top, 1)), ' ' ORDER BY t),
		string_agg(format('H%s V%s', round(60 + 735 * prev / width, 1), round(180 - 160 * failed_rate / top, 1)), ' ' ORDER BY t)
	INTO line, failed
	FROM (SELECT (p ->> 't')::numeric AS t, (p ->> 'rate')::numeric AS rate, (p ->> 'failed_rate')::numeric AS failed_rate,
			coalesce(lag((p ->> 't')::numeric) OVER (ORDER BY (p ->> 't')::numeric), 0) AS prev FROM jsonb_array_elements(points) p) q;
	RETURN '<svg class="chart" viewBox="0 0 800 204" role="img" aria-label="Rows per second">'
		|| (SELECT string_agg(format('<line x1="60" x2="795" y1="%1$s" y2="%1$s" class="grid"/><text x="54" y="%2$s" class="r">%3$s</text>',
			round(180 - 160 * f, 1), round(184 - 160 * f, 1), dvmig._count_text(round(top * f, CASE WHEN top < 10 THEN 1 ELSE 0 END))), '') FROM unnest('{0,0.5,1}'::numeric[]) f)
		|| format('<path d="M60 180 %s H795 V180 Z" class="area"/><path d="M60 180 %s H795 V180 Z" class="failed"/>', line, failed)
		|| format('<text x="60" y="200" class="l">0</text><text x="795" y="200" class="r">%s</text></svg>', dvmig._html(dvmig._duration_text(width)));
END
$$;
COMMENT ON FUNCTION dvmig._svg_rates(jsonb) IS 'rows per second over the time of a run';

CREATE FUNCTION dvmig._svg_classes(classes jsonb) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(format('<svg class="chart" viewBox="0 0 800 %s" role="img" aria-label="Failed rows by class">', count(*) * 26 + 4)
		|| string_agg(format('<text x="150" y="%1$s" class="r">%2$s</text><rect x="160" y="%3$s" width="%4$s" height="16" class="failed"/><text x="%5$s" y="%1$s" class="l">%6$s</text>',
			(i - 1) * 26 + 17, dvmig._html(c ->> 'class'), (i - 1) * 26 + 4, round(greatest(540 * n / top, 1), 1), round(168 + greatest(540 * n / top, 1), 1),
			dvmig._count_text(n)), '' ORDER BY i) || '</svg>', '<p class="note">No row has failed.</p>')
	FROM (SELECT c, i, (c ->> 'n')::numeric AS n, max((c ->> 'n')::numeric) OVER () AS top FROM jsonb_array_elements(classes) WITH ORDINALITY e(c, i)) q
$$;
COMMENT ON FUNCTION dvmig._svg_classes(jsonb) IS 'bars of failed rows by error class';

CREATE FUNCTION dvmig._report_style() RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT ':root{--ok:#2f7d5b;--bad:#b83a2e;--wait:#d8a537;--out:#b9c0c8;--ink:#1d2733;--soft:#5c6875;--line:#dde2e7}'
		'*{box-sizing:border-box}body{font:15px/1.5 system-ui,"Segoe UI",Roboto,Helvetica,Arial,sans-serif;color:var(--ink);max-width:60rem;margin:2rem auto;padding:0 1.25rem;background:#fff}'
		'h1{font-size:1.9rem;line-height:1.2;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .6rem;padding-bottom:.25rem;border-bottom:2px solid var(--line)}h3{font-size:1rem;margin:1.2rem 0 .3rem}'
		'.sub,.note{color:var(--soft);margin:.3rem 0}.cards{display:flex;flex-wrap:wrap;gap:.75rem;margin:1.3rem 0}'
		'.card{flex:1 1 8rem;border:1px solid var(--line);border-top:4px solid var(--soft);border-radius:6px;padding:.6rem .8rem}.card b{display:block;font-size:1.5rem;line-height:1.3;font-variant-numeric:tabular-nums}'
		'.card.succeeded{border-top-color:var(--ok)}.card.failed{border-top-color:var(--bad)}.card.unprocessed{border-top-color:var(--wait)}.card.left_out{border-top-color:var(--out)}'
		'.verdict{border-radius:6px;padding:.6rem .9rem;margin:1rem 0;border:1px solid;font-weight:600}.verdict.good{color:#1f5c42;background:#eaf5f0;border-color:#b5d9c8}.verdict.open{color:#7a4a00;background:#fdf5e3;border-color:#ecd59f}'
		'table{border-collapse:collapse;width:100%;font-size:.86rem;margin:.5rem 0}th{text-align:left;color:var(--soft);font-weight:600;border-bottom:1px solid var(--soft);padding:.3rem .5rem .3rem 0;vertical-align:bottom}'
		'td{border-bottom:1px solid var(--line);padding:.3rem .5rem .3rem 0;vertical-align:top}.w{overflow-wrap:anywhere;min-width:9rem}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}'
		'svg.chart{width:100%;height:auto;display:block;margin:.4rem 0}svg text{font:12px system-ui,"Segoe UI",Roboto,Arial,sans-serif;fill:var(--ink)}svg .r{text-anchor:end;fill:var(--soft)}'
		'svg .succeeded{fill:var(--ok)}svg .failed{fill:var(--bad)}svg .unprocessed{fill:var(--wait)}svg .left_out{fill:var(--out)}svg .area{fill:#9cc9b5;stroke:var(--ok);stroke-width:1}svg .grid{stroke:var(--line)}'
		'.key span{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .35em 0 1em}.key span.succeeded{background:var(--ok)}.key span.failed{background:var(--bad)}.key span.unprocessed{background:var(--wait)}.key span.left_out{background:var(--out)}'
		'footer{margin:2.5rem 0 1rem;color:var(--soft);font-size:.82rem}'
		'@media print{body{margin:0;max-width:none;font-size:11px}h2{break-after:avoid}tr,.card,svg{break-inside:avoid}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}'
$$;
COMMENT ON FUNCTION dvmig._report_style() IS 'style of the report, for screen and paper';

-- _report_verdict: one sentence on where the migration stands.
CREATE FUNCTION dvmig._report_verdict(d jsonb) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE
		WHEN NOT (d #>> '{totals,holds}')::bool THEN 'The figures of a table do not add up: look at it before anything else.'
		WHEN (d #>> '{totals,staged}')::numeric = 0 THEN 'Nothing is staged.'
		WHEN (d #>> '{totals,failed}')::numeric + (d #>> '{totals,unprocessed}')::numeric + (d #>> '{totals,owed}')::numeric = 0
			THEN 'Every row has its verdict, and every one succeeded.'
		ELSE 'Open: ' || concat_ws('; ', 'unprocessed rows: ' || nullif(d #>> '{totals,unprocessed}', '0'), 'failed rows: ' || nullif(d #>> '{totals,failed}', '0'),
			'records that are owed a later pass: ' || nullif(d #>> '{totals,owed}', '0')) || '.' END
		|| coalesce(' Signed off by ' || (d #>> '{sign_off,by}') || ' at ' || (d #>> '{sign_off,at}') || '.', '')
$$;
COMMENT ON FUNCTION dvmig._report_verdict(jsonb) IS 'one sentence on where a migration stands';

-- _report_sections: the parts of the page that are tables.
CREATE FUNCTION dvmig._report_sections(d jsonb) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT '<h2>What fails most</h2>' || CASE WHEN jsonb_array_length(d -> 'errors') > 0 THEN
			dvmig._html_table('{Rows,Table,Class,Column,Code,Message,"Sample key"}', '{#failed_rows,staging,error_class,error_column,code,message,sample_key}', d -> 'errors') ELSE '' END
		|| CASE WHEN (d ->> 'hidden')::bool THEN '<p class="note">Messages and keys are shown to those who may read the error tables.</p>'
			WHEN jsonb_array_length(d -> 'errors') = 0 THEN '<p class="note">Nothing has failed.</p>' ELSE '' END
		|| '<h2>Verification</h2>' || CASE WHEN jsonb_array_length(d -> 'verification') = 0 THEN '<p class="note">Not verified yet.</p>' ELSE
			dvmig._html_table('{Table,Result,Compared,Of,Equal,Missing,Different,Extra,"Changed since",When}',
				'{staging,result,#compared,of,#equal,#missing,#different,#extra,#changed_since,when}',
				(SELECT jsonb_agg(v || jsonb_build_object('of', CASE WHEN v ->> 'sample' IS NULL THEN 'all rows' ELSE 'a sample' END, 'when', to_char((v ->> 'verified_at')::timestamptz, 'YYYY-MM-DD HH24:MI TZ')) ORDER BY n)
				FROM jsonb_array_elements(d -> 'verification') WITH ORDINALITY e(v, n))) END
		|| '<h2>Runs</h2>' || dvmig._html_table('{Run,State,By,Server,Started,Took,Succeeded,Failed,Unchanged,"Rows/s",Requests,Throttled}',
			'{run,state,started_by,server,started,took,#succeeded,#failed,#unchanged,#rate,#requests,#throttled}',
			(SELECT coalesce(jsonb_agg(r || jsonb_build_object('took', dvmig._duration_text((r ->> 'seconds')::numeric),
				'started', to_char((r ->> 'started_at')::timestamptz, 'YYYY-MM-DD HH24:MI TZ')) ORDER BY n), '[]')
			FROM jsonb_array_elements(d -> 'runs') WITH ORDINALITY e(r, n)))
		|| '<h2>Longest steps of the last 10 runs</h2>' || dvmig._html_table('{Run,Table,Pass,Took,Succeeded,Failed,"Rows/s",Requests,"ms each"}',
			'{run,staging,pass,took,#succeeded,#failed,#rate,#requests,#ms_per_request}',
			(SELECT coalesce(jsonb_agg(r || jsonb_build_object('took', dvmig._duration_text((r ->> 'seconds')::numeric)) ORDER BY n), '[]')
			FROM jsonb_array_elements(d -> 'steps') WITH ORDINALITY e(r, n)))
		|| '<h2>Definition</h2>' || coalesce((SELECT string_agg(format('<h3>%s to %s</h3><p class="note">%s</p>%s', dvmig._html(t ->> 'staging'), dvmig._html(t ->> 'target'),
				dvmig._html(concat_ws('; ', 'source key ' || (SELECT string_agg(k, ', ') FROM jsonb_array_elements_text(t -> 'source_key') k), 'ids ' || (t ->> 'ids'),
					'existing records: ' || (t ->> 'on_exists'), 'only rows for which ' || (t ->> 'filter'), t ->> 'filter_reason')),
				dvmig._html_table('{Column,"Filled from",Resolves,Kind,Sent}', '{target_column,expression,resolves,kind,send}', t -> 'columns')), '' ORDER BY n)
			FROM jsonb_array_elements(d -> 'definition') WITH ORDINALITY e(t, n)), '')
$$;
COMMENT ON FUNCTION dvmig._report_sections(jsonb) IS 'the tables of the report';

CREATE FUNCTION dvmig._report_html(d jsonb) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT '<!DOCTYPE html>' || chr(10) || '<html lang="en"><head><meta charset="utf-8">'
		'<meta http-equiv="Content-Security-Policy" content="default-src ''none''; style-src ''unsafe-inline''">'
		'<meta name="viewport" content="width=device-width, initial-scale=1">'
		|| format('<title>Migration %s</title><style>%s</style></head><body>', dvmig._html(d ->> 'migration'), dvmig._report_style())
		|| format('<h1>Migration %s</h1><p class="sub">to %s (%s, organisation %s), from database %s</p>', dvmig._html(d ->> 'migration'), dvmig._html(d ->> 'server'),
			dvmig._html(coalesce(d ->> 'environment', '?')), dvmig._html(coalesce(d ->> 'organisation', 'not known yet')), dvmig._html(d ->> 'database'))
		|| format('<p class="verdict %s">%s</p>', CASE WHEN dvmig._report_verdict(d) LIKE 'Every%' THEN 'good' ELSE 'open' END, dvmig._html(dvmig._report_verdict(d)))
		|| '<div class="cards">' || (SELECT string_agg(format('<div class="card %s"><b>%s</b>%s</div>', k, dvmig._count_text((d -> 'totals' ->> k)::numeric), replace(k, '_', ' ')), '' ORDER BY i)
			FROM unnest('{staged,succeeded,failed,unprocessed,left_out}'::text[]) WITH ORDINALITY u(k, i)) || '</div>'
		|| '<h2>Tables</h2><p class="note key">' || (SELECT string_agg(format('<span class="%s"></span>%s', k, replace(k, '_', ' ')), '') FROM unnest('{succeeded,failed,unprocessed,left_out}'::text[]) k)
		|| '</p>' || dvmig._svg_bars(d -> 'tables')
		|| dvmig._html_table('{Table,"Dataverse table",Staged,Succeeded,Failed,Unprocessed,Parked,"Left out",Owed,"Next step"}',
			'{staging,target,#staged,#succeeded,#failed,#unprocessed,#parked,#left_out,#owed,next_step}', d -> 'tables')
		|| '<h2>Rows per second' || coalesce(', run ' || (d #>> '{rates,run}'), '') || '</h2>' || dvmig._svg_rates(d -> 'rates')
		|| '<h2>Failed rows by class</h2>' || dvmig._svg_classes(d -> 'classes') || dvmig._report_sections(d)
		|| format('<footer>dvmig %s, for %s, %s</footer></body></html>', dvmig._html(d ->> 'version'), dvmig._html(d ->> 'generated_by'),
			to_char((d ->> 'generated_at')::timestamptz, 'YYYY-MM-DD HH24:MI:SS TZ')) || chr(10)
$$;
COMMENT ON FUNCTION dvmig._report_html(jsonb) IS 'the report as an HTML page';

CREATE FUNCTION dvmig._report(caller oid, migration text) RETURNS text
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT dvmig._report_html(dvmig._report_data($1, $2)) $$;
COMMENT ON FUNCTION dvmig._report(oid, text) IS 'internal part of dvmig.report()';

CREATE FUNCTION dvmig.report(migration text) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.report(text) IS
	'a report of a migration as one HTML page without scripts: psql -Atc "SELECT dvmig.report(''...'')" > report.html';

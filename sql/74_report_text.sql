-- The report for a terminal: what 73_report.sql shows, in 100 columns of text.

-- _bar_text: a share as a bar of n characters.
CREATE FUNCTION dvmig._bar_text(part numeric, whole numeric, n int) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT rpad(repeat('#', CASE WHEN coalesce($2, 0) > 0 THEN floor($3 * coalesce($1, 0) / $2)::int ELSE 0 END), $3, '.')
$$;
COMMENT ON FUNCTION dvmig._bar_text(numeric, numeric, int) IS 'a share as a bar of text';

-- _plain_text: one line of printable text, no control characters, cut at n.
CREATE FUNCTION dvmig._plain_text(value text, n int) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN length(line) > $2 THEN left(line, $2 - 3) || '...' ELSE line END
	FROM (SELECT regexp_replace(coalesce($1, ''), '[\x01-\x1f\x7f]+', ' ', 'g') AS line) q
$$;
COMMENT ON FUNCTION dvmig._plain_text(text, int) IS 'a line of text without control characters, which a terminal would obey';

-- _name_text: a name to be read in a column of n; of a longer one its end, which tells it apart.
CREATE FUNCTION dvmig._name_text(name text, n int) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN length(line) > $2 THEN '...' || right(line, $2 - 3) ELSE line END FROM dvmig._plain_text($1, length($1)) line
$$;
COMMENT ON FUNCTION dvmig._name_text(text, int) IS 'a name as one line of printable text, of a long one its end';

CREATE FUNCTION dvmig._report_lines(d jsonb) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT ARRAY[format('Migration %s to %s (%s, organisation %s)', dvmig._plain_text(d ->> 'migration', 40), dvmig._name_text(d ->> 'server', 63),
			coalesce(d ->> 'environment', '?'), coalesce(d ->> 'organisation', 'not known yet')),
			dvmig._report_verdict(d), '', 'Tables']
		|| ARRAY(SELECT format('  %s  %s  %s of %s done%s', rpad(dvmig._name_text(t ->> 'staging', 32), 32), dvmig._bar_text((t ->> 'succeeded')::numeric,
				(t ->> 'staged')::numeric - coalesce((t ->> 'left_out')::numeric, 0), 20), dvmig._count_text((t ->> 'succeeded')::numeric),
				dvmig._count_text((t ->> 'staged')::numeric - coalesce((t ->> 'left_out')::numeric, 0)),
				coalesce(', ' || nullif(concat_ws(', ', nullif(t ->> 'failed', '0') || ' failed', nullif(t ->> 'unprocessed', '0') || ' unprocessed',
					nullif(t ->> 'left_out', '0') || ' left out', nullif(t ->> 'owed', '0') || ' owed'), ''), ''))
			FROM jsonb_array_elements(d -> 'tables') t)
		|| ARRAY(SELECT format('  next: %s: %s', dvmig._name_text(t ->> 'staging', 60), dvmig._plain_text(t ->> 'next_step', 120)) FROM jsonb_array_elements(d -> 'tables') t
			WHERE t ->> 'next_step' <> 'done')
		|| ARRAY['', 'Failed rows by class']
		|| coalesce((SELECT array_agg(format('  %s  %s', rpad(dvmig._plain_text(c ->> 'class', 20), 20), dvmig._count_text((c ->> 'n')::numeric))) FROM jsonb_array_elements(d -> 'classes') c),
			ARRAY['  none'])
		|| ARRAY(SELECT format('  %s x %s: %s', e ->> 'failed_rows', dvmig._name_text(concat_ws(' ', e ->> 'staging', e ->> 'error_column', e ->> 'code'), 60),
				dvmig._plain_text(concat(e ->> 'message', ' (key ' || (e ->> 'sample_key') || ')'), 120)) FROM jsonb_array_elements(d -> 'errors') e)
		|| ARRAY['', 'Verification']
		|| coalesce((SELECT array_agg(format('  %s  %s: %s compared%s, %s missing, %s different, %s extra (%s)', rpad(dvmig._name_text(v ->> 'staging', 32), 32), v ->> 'result',
				v ->> 'compared', CASE WHEN v ->> 'sample' IS NOT NULL THEN ' (a sample)' ELSE '' END, v ->> 'missing', v ->> 'different', v ->> 'extra', to_char((v ->> 'verified_at')::timestamptz, 'YYYY-MM-DD HH24:MI TZ'))) FROM jsonb_array_elements(d -> 'verification') v), ARRAY['  not verified yet'])
		|| ARRAY['', 'Runs']
		|| ARRAY(SELECT format('  %s  %s  %s succeeded, %s failed, in %s (%s rows/s)%s', lpad(r ->> 'run', 5), rpad(r ->> 'state', 11), dvmig._count_text((r ->> 'succeeded')::numeric),
				dvmig._count_text((r ->> 'failed')::numeric), dvmig._duration_text((r ->> 'seconds')::numeric), r ->> 'rate',
				CASE WHEN r ->> 'server' <> d ->> 'server' THEN ', to ' || dvmig._name_text(r ->> 'server', 63) ELSE '' END) FROM jsonb_array_elements(d -> 'runs') r)
$$;
COMMENT ON FUNCTION dvmig._report_lines(jsonb) IS 'the report as lines of text';

CREATE FUNCTION dvmig._report_text(caller oid, migration text) RETURNS text
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT array_to_string(dvmig._report_lines(dvmig._report_data($1, $2)), chr(10)) $$;
COMMENT ON FUNCTION dvmig._report_text(oid, text) IS 'internal part of dvmig.report_text()';

CREATE FUNCTION dvmig.report_text(migration text) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.report_text(text) IS 'the report of a migration for a terminal';

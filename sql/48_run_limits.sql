-- What narrows or refuses a run: until when it works, which rows it may take, whose credentials it has.

ALTER TABLE dvmig.run_history ADD until_at timestamptz;
COMMENT ON COLUMN dvmig.run_history.until_at IS 'when the run is to stop by itself; null: when it is done';

-- _until: an instant from a time of day, which is the next such one in the
-- caller's TimeZone, or from a timestamp.
CREATE FUNCTION dvmig._until(until text) RETURNS timestamptz
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	at timestamptz;
	today timestamp := date_trunc('day', clock_timestamp()::timestamp);
BEGIN
	IF until IS NULL THEN
		RETURN NULL;
	END IF;
	BEGIN
		IF until ~* '^\s*\d{1,2}(:\d{2}(:\d{2})?)?\s*(am|pm)?\s*$' AND until !~ '^\s*\d+\s*$' THEN
			at := (today + until::time)::timestamptz;
			IF at <= clock_timestamp() THEN
				at := (today + interval '1 day' + until::time)::timestamptz;
			END IF;
		ELSE
			at := until::timestamptz;
		END IF;
	EXCEPTION WHEN data_exception OR invalid_text_representation THEN
		RAISE EXCEPTION 'until is neither a time of day nor a timestamp: "%"', until
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Write ''06:00'' or ''2030-01-31 06:00+01''.';
	END;
	IF at <= clock_timestamp() THEN
		RAISE EXCEPTION 'until is over already: %', at
			USING ERRCODE = 'invalid_parameter_value', HINT = 'A time of day alone is the next such one.';
	END IF;
	RETURN nullif(at, 'infinity');
END
$$;
COMMENT ON FUNCTION dvmig._until(text) IS 'the instant that until => means';

-- Rows that a run with a filter may take: by a hash of the source key, so that a
-- row stays among them when it is edited, and nothing of it is kept here.
CREATE TABLE dvmig._run_row (
	run     bigint NOT NULL REFERENCES dvmig.run_history ON DELETE CASCADE,
	staging oid NOT NULL,
	hash1   bigint NOT NULL,
	hash2   bigint NOT NULL,
	PRIMARY KEY (run, staging, hash1, hash2)
);
COMMENT ON TABLE dvmig._run_row IS 'rows that a run with a filter may take, by a hash of their source key';

-- _row_hash: the two halves of the hash, SQL over alias s.
CREATE FUNCTION dvmig._row_hash(source_key text[]) RETURNS text[]
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT ARRAY(SELECT format('pg_catalog.hash_record_extended(ROW(%s), %s)',
		(SELECT string_agg(format('s.%I', k), ', ' ORDER BY i) FROM unnest(source_key) WITH ORDINALITY u(k, i)), seed)
		FROM generate_series(1, 2) seed)
$$;
COMMENT ON FUNCTION dvmig._row_hash(text[]) IS 'SQL of the hash that stands for a source key';

-- _take_run_rows: decide which rows a run with a filter may take: those for which
-- it is true now, found with the rights of who wrote it.
CREATE FUNCTION dvmig._take_run_rows(caller oid, run bigint, filter text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table;
	hash text[];
	n bigint;
	total bigint := 0;
BEGIN
	PERFORM dvmig._check_filter(filter);
	FOR t IN SELECT mt.* FROM dvmig.migration_table mt
		WHERE mt.staging::text IN (SELECT r.staging FROM dvmig.run_table r WHERE r.run = $2) ORDER BY mt.position LOOP
		PERFORM dvmig._check_filtered(caller, t);
		hash := dvmig._row_hash(t.source_key);
		BEGIN
			INSERT INTO dvmig._run_row (run, staging, hash1, hash2)
			SELECT $2, t.staging, split_part(q, ' ', 1)::bigint, split_part(q, ' ', 2)::bigint
			FROM dvmig._query_as(caller, format(E'SELECT %s || \' \' || %s FROM %s s WHERE s.processing_flag <> \'P\' AND (%s\n)',
				hash[1], hash[2], t.staging, filter), false) q
			ON CONFLICT DO NOTHING;
		EXCEPTION WHEN undefined_column THEN
			RAISE EXCEPTION 'the filter does not fit table %: %', t.staging, SQLERRM
				USING ERRCODE = 'undefined_column',
				HINT = 'The staging row is s. A filter is for all tables of the run; name those it is meant for with tables => ''{...}''.';
		WHEN data_exception OR feature_not_supported OR plpgsql_error THEN
			RAISE EXCEPTION USING ERRCODE = SQLSTATE,
				MESSAGE = format('the filter throws for a row of %s: %s', t.staging, SQLERRM),
				DETAIL = 'Which rows a run with a filter takes is decided before it begins; no run was begun.',
				HINT = 'Let the filter be false for such rows, for example with CASE, and try it: SELECT ... FROM the staging table s WHERE the filter.';
		END;
		GET DIAGNOSTICS n = ROW_COUNT;
		total := total + n;
	END LOOP;
	IF total = 0 THEN
		RAISE NOTICE 'the filter takes no row';
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._take_run_rows(oid, bigint, text) IS 'decide which rows a run with a filter may take';

-- _keep_run_rows: a resumed run goes on with the rows of the earlier one; what no
-- run can come back to is dropped.
CREATE FUNCTION dvmig._keep_run_rows(run bigint, earlier bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE dvmig._run_row w SET run = $1 WHERE w.run = $2;
	IF NOT FOUND AND EXISTS (SELECT FROM dvmig.run_history h WHERE h.run = $2 AND h.options ? 'filtered') THEN
		RAISE EXCEPTION 'the rows that the filter of run % took are not known any more', earlier
			USING ERRCODE = 'object_not_in_prerequisite_state',
			DETAIL = 'They are kept until the run is completed, or another run of the migration begins, and are not in a dump.',
			HINT = 'Start a run with the filter instead.';
	END IF;
	DELETE FROM dvmig._run_row w USING dvmig.run_history h, dvmig.run_history mine
	WHERE w.run = h.run AND h.migration_id = mine.migration_id AND mine.run = $1 AND h.run <> $1;
END
$$;
COMMENT ON FUNCTION dvmig._keep_run_rows(bigint, bigint) IS 'hand the rows of a filter over to the run that resumes another';

-- _run_filter: the condition that keeps a run to its rows, over alias s; null for
-- a run without a filter. A scalar subquery, so that it is asked row by row in
-- key order and the plan cannot turn round.
CREATE FUNCTION dvmig._run_filter(run bigint, staging regclass) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('(SELECT true FROM dvmig._run_row w WHERE w.run = %s AND w.staging = %s::pg_catalog.oid AND w.hash1 = %s AND w.hash2 = %s)',
		$1, $2::oid, hash[1], hash[2])
	FROM dvmig.run_history h, dvmig.migration_table t, dvmig._row_hash(t.source_key) hash
	WHERE h.run = $1 AND t.staging = $2 AND h.options ? 'filtered'
$$;
COMMENT ON FUNCTION dvmig._run_filter(bigint, regclass) IS 'condition that keeps a run to the rows of its filter';

-- _check_user_mapping: a worker has the credentials of the migration's owner.
CREATE FUNCTION dvmig._check_user_mapping(m dvmig.migration) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM pg_user_mappings u WHERE u.srvname = m.server AND u.umuser IN (m.owner, 0)) THEN
		RAISE EXCEPTION 'role "%" owns the migration but has no user mapping for server "%"', m.owner, m.server
			USING ERRCODE = 'undefined_object',
			DETAIL = CASE WHEN EXISTS (SELECT FROM dvmig.event e WHERE e.migration = m.name AND e.kind = 'discard' AND e.happened_at >= m.created_at)
				THEN format('Migration "%s" was discarded, and its credentials with it.', m.name) ELSE 'The run would have no credentials.' END,
			HINT = format('CREATE USER MAPPING FOR %s SERVER %I OPTIONS (client_id ''...'', client_secret ''...'').', m.owner, m.server);
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._check_user_mapping(dvmig.migration) IS 'refuse a run that would have no credentials';

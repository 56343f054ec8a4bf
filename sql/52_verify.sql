-- Verification: what Dataverse holds, read back and compared.
--
-- dvmig.verification keeps what came out, one row per verification and staging
-- table, with figures alone. Differences and sums tell of row content: they are
-- granted to nobody and shown, by views, to those who may read the staging table.

CREATE TABLE dvmig.verification (
	run            bigint NOT NULL,
	migration_id   int NOT NULL,
	migration      text NOT NULL,
	staging        text NOT NULL,
	target         text NOT NULL,
	sample         numeric,
	compared       bigint NOT NULL,
	equal          bigint NOT NULL,
	missing        bigint NOT NULL,
	different      bigint NOT NULL,
	extra          bigint NOT NULL,
	changed_since  bigint NOT NULL,
	owners_changed bigint NOT NULL,
	not_compared   text[] NOT NULL DEFAULT '{}',
	verified_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
	result         text NOT NULL CHECK (result IN ('equal', 'different', 'not compared')),
	PRIMARY KEY (run, staging)
);
COMMENT ON TABLE dvmig.verification IS 'what verifications found, one row per verification and staging table; compared = equal + missing + different + changed_since';
COMMENT ON COLUMN dvmig.verification.sample IS 'rows compared, or their share if below 1, where not all were; null: all';
COMMENT ON COLUMN dvmig.verification.different IS 'records whose columns differ, and that nobody else has modified';
COMMENT ON COLUMN dvmig.verification.changed_since IS 'records whose columns differ because another user has modified them since they were loaded';
COMMENT ON COLUMN dvmig.verification.extra IS 'records that are there although their row was deleted or failed, or is gone from the staging table; not among compared';
COMMENT ON COLUMN dvmig.verification.owners_changed IS 'records that have another owner than they were loaded with';
COMMENT ON COLUMN dvmig.verification.not_compared IS 'mapped columns that cannot be read back as they were sent, with the reason';
COMMENT ON COLUMN dvmig.verification.result IS 'equal, different, or not compared: no difference was found, but of some rows nothing could be read back';

CREATE TABLE dvmig.difference_row (
	run          bigint NOT NULL,
	staging      regclass NOT NULL REFERENCES dvmig.migration_table ON DELETE CASCADE,
	source_key   text,
	dataverse_id uuid,
	column_name  text,
	expected     text,
	found        text,
	kind         text NOT NULL CHECK (kind IN ('missing', 'extra', 'different', 'changed'))
);
CREATE INDEX difference_row_staging ON dvmig.difference_row (staging);
COMMENT ON TABLE dvmig.difference_row IS 'differences that the last verification of each staging table found, and the last sample after it; read by the view dvmig.difference';

CREATE TABLE dvmig.verification_sum_row (
	run          bigint NOT NULL,
	staging      regclass NOT NULL REFERENCES dvmig.migration_table ON DELETE CASCADE,
	column_name  text NOT NULL,
	source_count bigint NOT NULL,
	target_count bigint NOT NULL,
	source_sum   numeric NOT NULL,
	target_sum   numeric NOT NULL,
	PRIMARY KEY (staging, run, column_name)
);
COMMENT ON TABLE dvmig.verification_sum_row IS 'sums of numeric and money columns as the last verification of each staging table found them, and the last sample after it; read by the view dvmig.verification_sum';

-- _verify_columns: how each value column of the projection is read back, in its order.
CREATE FUNCTION dvmig._verify_columns(staging regclass)
RETURNS TABLE (read_name text, column_type text, precision_digits int, referenced_table text, full_image bool)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	(SELECT CASE
			WHEN cm.navigation_property IS NOT NULL THEN '_' || cm.target_column || '_value'
			-- the date goes to createdon, and the time of the import comes back here
			WHEN cm.target_column = 'overriddencreatedon' THEN 'createdon'
			-- an image's id tells whether there is one; its bytes are asked for one by one
			WHEN mc.column_type = 'Image' THEN (SELECT i.column_name FROM dvmig.metadata_column i
				WHERE i.server = m.server AND i.table_name = t.target AND i.column_name = cm.target_column || 'id')
			WHEN mc.column_type IN ('File', 'PartyList') THEN NULL
			ELSE cm.target_column END,
		CASE WHEN cm.navigation_property IS NOT NULL THEN 'Lookup' ELSE mc.column_type END,
		mc.precision_digits,
		cm.referenced_table,
		mc.full_image
	FROM dvmig.column_map cm
	JOIN dvmig.migration_table t ON t.staging = cm.staging
	JOIN dvmig.migration m USING (migration_id)
	LEFT JOIN dvmig.metadata_column mc ON mc.server = m.server AND mc.table_name = t.target AND mc.column_name = cm.target_column
	WHERE cm.staging = $1 AND cm.pass IN ('write', 'links')
	ORDER BY cm.position, cm.target_column)
	UNION ALL
	-- the collection of parties, with the roles that are mapped
	SELECT t.target || '_activity_parties', 'Parties', NULL, string_agg(DISTINCT dvmig._party_mask(substr(cm.target_column, 8))::text, ','), NULL
	FROM dvmig.column_map cm JOIN dvmig.migration_table t ON t.staging = cm.staging WHERE cm.staging = $1 AND cm.kind = 'party' GROUP BY t.target
	UNION ALL
	SELECT p.target_column, 'State', NULL, NULL, NULL FROM dvmig._pass_maps($1, 'states', '{}') p WHERE p.target_column IN ('statecode', 'statuscode')
$$;
COMMENT ON FUNCTION dvmig._verify_columns(regclass) IS 'how each mapped column is read back from Dataverse';

-- _verify_context: columns beside the mapped ones that tell who wrote a record
-- last, who made it and whose it is, as far as the table has them; the owner is
-- left out where it is mapped.
CREATE FUNCTION dvmig._verify_context(staging regclass) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT ARRAY(SELECT c.member FROM (VALUES (1, 'modifiedon', 'modifiedon'), (2, 'modifiedby', '_modifiedby_value'),
			(3, 'createdby', '_createdby_value'), (4, 'ownerid', '_ownerid_value')) c(i, name, member)
		JOIN dvmig.metadata_column mc ON mc.column_name = c.name
		WHERE mc.server = m.server AND mc.table_name = t.target
		  AND (c.name <> 'ownerid' OR NOT EXISTS (SELECT FROM dvmig.column_map cm WHERE cm.staging = t.staging AND cm.target_column = 'ownerid'))
		ORDER BY c.i)
	FROM dvmig.migration_table t JOIN dvmig.migration m USING (migration_id) WHERE t.staging = $1
$$;
COMMENT ON FUNCTION dvmig._verify_context(regclass) IS 'members to be read that tell who wrote, made and owns a record';

-- _verify_key: the column that carries the source key; whether records other than
-- the row's may have the same, although that is there: not where it is an
-- alternate key, and not looked for in tables of more than 100,000 rows, because
-- each query over a column without an index reads the whole Dataverse table; and
-- SQL that tells which of the ids $1 belong to no row of a table that goes there.
CREATE FUNCTION dvmig._verify_key(staging regclass, OUT target_key text, OUT of_all bool, OUT twins_sql text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT t.target_key, NOT EXISTS (SELECT FROM dvmig.metadata_key k WHERE k.server = m.server AND k.table_name = t.target
			AND k.key_columns = ARRAY[t.target_key] AND k.index_status = 'Active')
		AND (SELECT sum(greatest(c.reltuples, 0)) <= 100000 FROM pg_class c WHERE c.oid IN (SELECT $1 UNION SELECT p.relid FROM pg_partition_tree($1) p)),
		'SELECT u.n FROM unnest($1) WITH ORDINALITY u(i, n) WHERE true' || (
			SELECT coalesce(string_agg(format(' AND NOT EXISTS (SELECT FROM %s o WHERE o.dataverse_id = u.i)', o.staging), ''), '')
			FROM dvmig.migration_table o JOIN dvmig.migration n USING (migration_id)
			WHERE n.server = m.server AND n.owner = m.owner AND o.target = t.target AND EXISTS (SELECT FROM pg_class c WHERE c.oid = o.staging))
	FROM dvmig.migration_table t JOIN dvmig.migration m USING (migration_id) WHERE t.staging = $1
$$;
COMMENT ON FUNCTION dvmig._verify_key(regclass) IS 'by which column records beside those of a staging table''s rows are looked for, and how';

-- _verify_sample: condition that takes a random part of the staging rows, the
-- same whenever it is asked in one verification; null for all.
CREATE FUNCTION dvmig._verify_sample(staging regclass, sample numeric, seed bigint, alias text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('hashtextextended(concat_ws(chr(31), %s), %s)',
		(SELECT string_agg(format('%s.%I::text', $4, k), ', ' ORDER BY i) FROM unnest(t.source_key) WITH ORDINALITY u(k, i)), $3)
	FROM dvmig.migration_table t WHERE t.staging = $1 AND $2 IS NOT NULL
$$;
COMMENT ON FUNCTION dvmig._verify_sample(regclass, numeric, bigint, text) IS 'SQL of the number by which a row is taken into a sample';

-- _forget_findings: what was found of a staging table before, by verifications and
-- resends. A sample replaces an earlier sample alone.
CREATE FUNCTION dvmig._forget_findings(run bigint, staging regclass, of_a_sample bool) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	samples bigint[] := ARRAY(SELECT h.run FROM dvmig.run_history h WHERE h.kind = 'verify' AND h.options ->> 'sample' IS NOT NULL
		AND NOT EXISTS (SELECT FROM dvmig.verification v WHERE v.run = h.run AND v.staging = $2::text AND v.sample IS NULL));
BEGIN
	DELETE FROM dvmig.difference_row d WHERE d.staging = $2 AND d.run <> $1 AND (NOT of_a_sample OR d.run = ANY (samples));
	DELETE FROM dvmig.verification_sum_row v WHERE v.staging = $2 AND v.run <> $1 AND (NOT of_a_sample OR v.run = ANY (samples));
END
$$;
COMMENT ON FUNCTION dvmig._forget_findings(bigint, regclass, bool) IS 'forget what was found of a staging table before this verification, or what samples found';

-- _begin_verification: a staging table is verified anew.
CREATE FUNCTION dvmig._begin_verification(run bigint, staging regclass) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM dvmig._forget_findings($1, $2, (SELECT h.options ->> 'sample' IS NOT NULL FROM dvmig.run_history h WHERE h.run = $1));
	UPDATE dvmig.run_table t SET state = 'running', started_at = clock_timestamp() WHERE t.run = $1 AND t.staging = $2::text;
END
$$;
COMMENT ON FUNCTION dvmig._begin_verification(bigint, regclass) IS 'forget what an earlier verification found';

-- _add_differences: what was found, in lots.
CREATE FUNCTION dvmig._add_differences(run bigint, staging regclass, keys text[], ids uuid[], columns text[], expected text[], found text[], kinds text[]) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO dvmig.difference_row (run, staging, source_key, dataverse_id, column_name, expected, found, kind)
	SELECT $1, $2, u.* FROM unnest($3, $4, $5, $6, $7, $8) u
$$;
COMMENT ON FUNCTION dvmig._add_differences(bigint, regclass, text[], uuid[], text[], text[], text[], text[]) IS 'store differences';

-- _end_verification: the figures of a staging table. figures: by name of column. A
-- sample that asked for more rows than there are was none.
CREATE FUNCTION dvmig._end_verification(run bigint, staging regclass, figures jsonb, sums jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	f dvmig.verification;
BEGIN
	f := jsonb_populate_record(NULL::dvmig.verification, figures);
	INSERT INTO dvmig.verification (run, migration_id, migration, staging, target, sample, compared, equal, missing, different, extra,
		changed_since, owners_changed, not_compared, result)
	SELECT $1, h.migration_id, h.migration, $2::text, t.target, CASE WHEN NOT (figures ->> 'of_all')::bool THEN (h.options ->> 'sample')::numeric END, f.compared, f.equal, f.missing, f.different, f.extra,
		f.changed_since, f.owners_changed,
		f.not_compared || ARRAY(SELECT substr(c.target_column, 8) || ': of the activity that a close leaves'
			FROM dvmig.column_map c WHERE c.staging = $2 AND c.target_column LIKE '@close:%' ORDER BY c.position),
		CASE WHEN f.compared <> f.equal OR f.extra > 0 THEN 'different' WHEN (figures ->> 'uncompared')::bigint > 0 THEN 'not compared' ELSE 'equal' END
	FROM dvmig.run_history h, dvmig.migration_table t WHERE h.run = $1 AND t.staging = $2;
	INSERT INTO dvmig.verification_sum_row (run, staging, column_name, source_count, target_count, source_sum, target_sum)
	SELECT $1, $2, s.* FROM jsonb_to_recordset(sums) s(column_name text, source_count bigint, target_count bigint, source_sum numeric, target_sum numeric);
	UPDATE dvmig.run_table t SET state = 'done', ended_at = clock_timestamp(), rows_read = f.compared, succeeded = f.equal,
		failed = f.compared - f.equal + f.extra, requests = (figures ->> 'requests')::bigint, cpu_ms = (figures ->> 'cpu_ms')::bigint,
		memory_kb = (figures ->> 'memory_kb')::bigint WHERE t.run = $1 AND t.staging = $2::text;
	IF (figures ->> 'of_all')::bool THEN
		PERFORM dvmig._forget_findings($1, $2, false);
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._end_verification(bigint, regclass, jsonb, jsonb) IS 'store what a verification found of a staging table';

-- ------------------------------------------------------------------ for a DBA

CREATE FUNCTION dvmig._verify_job(caller oid, migration text, staging text, sample numeric, wait bool) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'operator');
BEGIN
	-- NaN is above all numbers
	IF sample <= 0 OR sample > 9223372036854775807 THEN
		RAISE EXCEPTION 'sample must be above zero and at most 9223372036854775807'
			USING ERRCODE = 'invalid_parameter_value',
			HINT = 'A sample of 1 or more is a number of rows of each table, below 1 it is their share; null compares all.';
	END IF;
	RETURN dvmig._start_job(caller, m, 'verify', dvmig._job_tables(caller, m, staging, true), jsonb_build_object('staging', staging, 'sample', sample), wait);
END
$$;
COMMENT ON FUNCTION dvmig._verify_job(oid, text, text, numeric, bool) IS 'check and begin a verification';

CREATE FUNCTION dvmig._verify(caller oid, migration text, staging text, sample numeric)
RETURNS TABLE (run bigint, staging_table text, target text, compared bigint, equal bigint, missing bigint, different bigint, extra bigint,
	changed_since bigint, owners_changed bigint, not_compared text[], verified_at timestamptz, result text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	new_run bigint := dvmig._verify_job($1, $2, $3, $4, true);
BEGIN
	RETURN QUERY SELECT v.run, v.staging, v.target, v.compared, v.equal, v.missing, v.different, v.extra, v.changed_since, v.owners_changed,
		v.not_compared, v.verified_at, v.result
	FROM dvmig._query_latest(format('SELECT to_jsonb(v) FROM dvmig.verification v JOIN dvmig.run_table t USING (run, staging) WHERE v.run = %s ORDER BY t.step', new_run)) q,
		jsonb_populate_record(NULL::dvmig.verification, q::jsonb) v;
END
$$;
COMMENT ON FUNCTION dvmig._verify(oid, text, text, numeric) IS 'compare what Dataverse holds: see dvmig.verify()';

CREATE FUNCTION dvmig.verify(migration text, staging text DEFAULT NULL, sample numeric DEFAULT NULL)
RETURNS TABLE (run bigint, staging text, target text, compared bigint, equal bigint, missing bigint, different bigint, extra bigint,
	changed_since bigint, owners_changed bigint, not_compared text[], verified_at timestamptz, result text)
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.verify(text, text, numeric) IS
	'read the loaded records back, compare every mapped column with what its staging row maps to, and wait for the end; differences are in dvmig.difference. staging: only this table; sample: so many rows of each table, or their share if below 1';

CREATE FUNCTION dvmig._start_verify(caller oid, migration text, staging text, sample numeric) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT dvmig._verify_job($1, $2, $3, $4, false) $$;
COMMENT ON FUNCTION dvmig._start_verify(oid, text, text, numeric) IS 'begin a verification: see dvmig.start_verify()';

CREATE FUNCTION dvmig.start_verify(migration text, staging text DEFAULT NULL, sample numeric DEFAULT NULL) RETURNS bigint
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.start_verify(text, text, numeric) IS
	'begin a verification in the background, at once and whatever becomes of the transaction; returns its run, for dvmig.wait(); what it finds is in dvmig.verification';

-- _readable_tables: staging tables whose content a role may see here.
CREATE FUNCTION dvmig._readable_tables(caller oid) RETURNS TABLE (staging regclass, migration text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT t.staging, m.name FROM dvmig.migration_table t JOIN dvmig.migration m USING (migration_id)
	WHERE dvmig._may($1, m.migration_id, 'viewer') AND EXISTS (SELECT FROM pg_class c WHERE c.oid = t.staging) AND dvmig._may_read($1, t.staging)
$$;
COMMENT ON FUNCTION dvmig._readable_tables(oid) IS 'staging tables of migrations a role may see, whose rows it may read';

CREATE FUNCTION dvmig._difference_rows(caller oid)
RETURNS TABLE (run bigint, migration text, staging text, source_key text, dataverse_id uuid, column_name text, expected text, found text, kind text,
	sample numeric, verified_at timestamptz)
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT d.run, r.migration, d.staging::text, d.source_key, d.dataverse_id, d.column_name, d.expected, d.found, d.kind,
		CASE WHEN v.run IS NULL THEN (h.options ->> 'sample')::numeric ELSE v.sample END, v.verified_at
	FROM dvmig._readable_tables($1) r JOIN dvmig.difference_row d ON d.staging = r.staging
	LEFT JOIN dvmig.run_history h ON h.run = d.run LEFT JOIN dvmig.verification v ON v.run = d.run AND v.staging = d.staging::text
$$;
COMMENT ON FUNCTION dvmig._difference_rows(oid) IS 'rows of dvmig.difference for a role';

CREATE FUNCTION dvmig.difference_rows()
RETURNS TABLE (run bigint, migration text, staging text, source_key text, dataverse_id uuid, column_name text, expected text, found text, kind text,
	sample numeric, verified_at timestamptz)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.difference_rows() IS 'rows of dvmig.difference';

CREATE VIEW dvmig.difference AS SELECT * FROM dvmig.difference_rows();
COMMENT ON VIEW dvmig.difference IS
	'what the last verification of each staging table found, and the last sample after it, as far as one may read that table: key, column, expected, found, kind (missing, extra, different, changed); sample: null for a verification of all rows; verified_at: null while it is at work, or where it was broken off';

CREATE FUNCTION dvmig._verification_sum_rows(caller oid)
RETURNS TABLE (run bigint, migration text, staging text, column_name text, source_count bigint, target_count bigint, source_sum numeric, target_sum numeric, sample numeric)
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT v.run, r.migration, v.staging::text, v.column_name, v.source_count, v.target_count, v.source_sum, v.target_sum, f.sample
	FROM dvmig._readable_tables($1) r JOIN dvmig.verification_sum_row v ON v.staging = r.staging
	LEFT JOIN dvmig.verification f ON f.run = v.run AND f.staging = v.staging::text
$$;
COMMENT ON FUNCTION dvmig._verification_sum_rows(oid) IS 'rows of dvmig.verification_sum for a role';

CREATE FUNCTION dvmig.verification_sum_rows()
RETURNS TABLE (run bigint, migration text, staging text, column_name text, source_count bigint, target_count bigint, source_sum numeric, target_sum numeric, sample numeric)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.verification_sum_rows() IS 'rows of dvmig.verification_sum';

CREATE VIEW dvmig.verification_sum AS SELECT * FROM dvmig.verification_sum_rows();
COMMENT ON VIEW dvmig.verification_sum IS
	'counts and sums of numeric and money columns, source against target, as the last verification of each staging table found them, and the last sample after it, as far as one may read that table; sample: null for all rows';

ALTER TABLE dvmig.verification ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON dvmig.verification FOR SELECT USING (
	migration_id IN (SELECT m.migration_id FROM dvmig.migration m));
COMMENT ON POLICY own ON dvmig.verification IS 'verifications of migrations that one may see';
ALTER TABLE dvmig.difference_row ENABLE ROW LEVEL SECURITY;
ALTER TABLE dvmig.verification_sum_row ENABLE ROW LEVEL SECURITY;

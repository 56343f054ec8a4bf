-- Retrying: failed rows become unprocessed again.

-- _retry_rows: where the failed rows are for which the filter is true, found
-- with the caller's rights: see dvmig._check_filtered().
CREATE FUNCTION dvmig._retry_rows(caller oid, t dvmig.migration_table, filter text) RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM dvmig._check_filter(filter);
	PERFORM dvmig._check_filtered(caller, t);
	PERFORM dvmig._require_reading(caller, t.error_table);
	IF NOT dvmig._outcome_columns_fit(t.error_table, t.staging, t.source_key, 'error') THEN
		RAISE EXCEPTION 'columns of % are no longer of the types that dvmig gave them', t.error_table
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Leave the filter out, or give them their types back.';
	END IF;
	RETURN ARRAY(SELECT q FROM dvmig._query_as(caller, format(
		E'SELECT s.tableoid || \' \' || s.ctid FROM %s s JOIN %s e ON %s WHERE s.processing_flag = \'E\' AND (%s\n)',
		t.staging, t.error_table,
		(SELECT string_agg(format('e.%1$I = s.%1$I', k), ' AND ') FROM unnest(t.source_key) k), filter), false) q);
EXCEPTION WHEN ambiguous_column OR undefined_column THEN
	RAISE EXCEPTION '%', SQLERRM
		USING ERRCODE = SQLSTATE, HINT = format('In the filter s.%I is of the staging row, and e.error_class of its error.', t.source_key[1]);
END
$$;
COMMENT ON FUNCTION dvmig._retry_rows(oid, dvmig.migration_table, text) IS 'failed rows that a filter takes, as table oid and ctid';

CREATE FUNCTION dvmig._retry(caller oid, staging regclass, filter text) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table := dvmig._table(caller, staging, 'operator');
	m dvmig.migration;
	rows_sql text := '';
	n bigint;
BEGIN
	PERFORM dvmig._require_outcomes(t.staging);
	SELECT mi.* INTO m FROM dvmig.migration mi WHERE mi.migration_id = t.migration_id;
	IF filter IS NOT NULL THEN
		-- the statement that called us holds a snapshot, so that no row found
		-- here can have left its place to another one
		rows_sql := format(' AND (s.tableoid, s.ctid) IN (SELECT split_part(r, '' '', 1)::oid, split_part(r, '' '', 2)::tid FROM unnest(%L::text[]) r)',
			dvmig._retry_rows(caller, t, filter));
	END IF;
	-- Flags are the migration's, and triggers on the staging table are its
	-- owner's: both are set off with his rights, whoever asks for it.
	n := dvmig._run_as(m.owner, format(
		'UPDATE %s s SET processing_flag = ''U'' FROM %s e WHERE %s AND s.processing_flag = ''E''%s',
		t.staging, t.error_table,
		(SELECT string_agg(format('e.%1$I = s.%1$I', k), ' AND ') FROM unnest(t.source_key) k), rows_sql),
		m.owner <> caller);
	INSERT INTO dvmig.event (role, migration, kind, object, detail)
	-- without the filter: it may quote rows
	VALUES (pg_get_userbyid(caller), m.name, 'retry', staging::text, jsonb_build_object('rows', n, 'before', 'E', 'after', 'U'));
	RETURN n;
END
$$;
COMMENT ON FUNCTION dvmig._retry(oid, regclass, text) IS 'failed rows become unprocessed again: see dvmig.retry()';

CREATE FUNCTION dvmig.retry(staging regclass, filter text DEFAULT NULL) RETURNS bigint
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.retry(regclass, text) IS
	'failed rows become unprocessed again, for the next run; returns how many. filter: SQL condition over the staging row (s) and its error (e), evaluated with the rights of who calls';

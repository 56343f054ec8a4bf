-- One column was mapped wrong: just that column of loaded rows is sent again.

CREATE TABLE dvmig._resend_table (
	run     bigint PRIMARY KEY,
	staging text NOT NULL,
	sent    bigint NOT NULL,
	equal   bigint NOT NULL,
	kept    bigint NOT NULL,
	missing bigint NOT NULL,
	failed  bigint NOT NULL
);
COMMENT ON TABLE dvmig._resend_table IS 'what came of sending columns again';

CREATE FUNCTION dvmig._begin_resend(run bigint, staging regclass) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	DELETE FROM dvmig.difference_row d USING dvmig.run_history h WHERE d.staging = $2 AND h.run = d.run AND h.kind = 'resend';
	-- until it has ended, nobody knows of which rows the record was written
	UPDATE dvmig.migration_table t SET clean_end = false, unclean_from = CASE WHEN t.clean_end THEN $1 ELSE coalesce(t.unclean_from, $1) END WHERE t.staging = $2;
	SELECT dvmig._begin_job_table($1, $2)
$$;
COMMENT ON FUNCTION dvmig._begin_resend(bigint, regclass) IS 'forget what an earlier resend left, and note that one is at work';

CREATE FUNCTION dvmig._end_resend(run bigint, staging regclass, sent bigint, equal bigint, kept bigint, missing bigint, failed bigint, message text, has_ended bool) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO dvmig._resend_table VALUES ($1, $2::text, $3, $4, $5, $6, $7);
	UPDATE dvmig.run_table t SET state = 'done', ended_at = clock_timestamp(), rows_read = $3 + $4 + $5 + $6 + $7,
		succeeded = $3 + $4, unchanged = $4, failed = $6 + $7, message = $8 WHERE t.run = $1 AND t.staging = $2::text;
	UPDATE dvmig.migration_table t SET clean_end = true WHERE $9 AND t.staging = $2 AND t.unclean_from = $1 AND t.forgotten_since IS NULL
$$;
COMMENT ON FUNCTION dvmig._end_resend(bigint, regclass, bigint, bigint, bigint, bigint, bigint, text, bool) IS 'store what came of sending columns again';

-- _resend_rows: hashes of the loaded rows that a filter takes, decided now with
-- the rights of who wrote it.
CREATE FUNCTION dvmig._resend_rows(caller oid, t dvmig.migration_table, filter text) RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	hash text[] := dvmig._row_hash(t.source_key);
BEGIN
	PERFORM dvmig._check_filter(filter);
	PERFORM dvmig._check_filtered(caller, t);
	RETURN ARRAY(SELECT q FROM dvmig._query_as(caller, format(E'SELECT %s || \' \' || %s FROM %s s WHERE s.processing_flag IN (\'S\', \'P\') AND (%s\n)',
		hash[1], hash[2], t.staging, filter), false) q);
END
$$;
COMMENT ON FUNCTION dvmig._resend_rows(oid, dvmig.migration_table, text) IS 'hashes of loaded rows that a filter takes';

CREATE FUNCTION dvmig._check_resend_columns(t dvmig.migration_table, columns text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	c text;
	mc dvmig.metadata_column;
BEGIN
	IF coalesce(cardinality(columns), 0) = 0 OR array_position(columns, NULL) IS NOT NULL THEN
		RAISE EXCEPTION 'columns to be sent again are missing'
			USING ERRCODE = 'null_value_not_allowed', HINT = 'Name columns of the Dataverse table: columns => ''{revenue}''.';
	END IF;
	FOREACH c IN ARRAY columns LOOP
		IF NOT EXISTS (SELECT FROM dvmig.column_map m WHERE m.staging = t.staging AND m.target_column = c) THEN
			RAISE EXCEPTION 'column "%" is not mapped for %', c, t.staging
				USING ERRCODE = 'undefined_column',
				HINT = coalesce('Did you mean ' || dvmig._near(c, ARRAY(SELECT m.target_column FROM dvmig.column_map m WHERE m.staging = t.staging)) || '?',
					'dvmig.column_map lists what is mapped.');
		END IF;
		IF c IN ('statecode', 'statuscode') AND dvmig._close_activity(t.target) IS NOT NULL THEN
			RAISE EXCEPTION 'column "%" of Dataverse table "%" is set by actions, not by updates', c, t.target
				USING ERRCODE = 'feature_not_supported', HINT = 'Set the rows to unprocessed and start a run with passes => ''{states}''; for records that are closed, see on_closed of dvmig.set_table().';
		END IF;
		SELECT k.* INTO mc FROM dvmig.metadata_column k JOIN dvmig.migration m ON m.migration_id = t.migration_id AND k.server = m.server
		WHERE k.table_name = t.target AND k.column_name = c;
		IF mc.valid_for_update IS FALSE THEN
			RAISE EXCEPTION 'column "%" of Dataverse table "%" can be set only when a record is created', c, t.target
				USING ERRCODE = 'feature_not_supported', HINT = 'Undo the run and load the rows again.';
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._check_resend_columns(dvmig.migration_table, text[]) IS 'error for columns that cannot be sent again';

CREATE FUNCTION dvmig._resend(caller oid, staging regclass, columns text[], filter text, if_unchanged bool, confirm text)
RETURNS TABLE (run bigint, sent bigint, equal bigint, kept bigint, missing bigint, failed bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table := dvmig._table(caller, staging, 'operator');
	m dvmig.migration;
	chosen text[];
	n bigint;
	job bigint;
	done bool := false;
BEGIN
	SELECT g.* INTO m FROM dvmig.migration g WHERE g.migration_id = t.migration_id;
	PERFORM dvmig._refuse_links(ARRAY[t.staging]);
	PERFORM dvmig._check_resend_columns(t, columns);
	-- Rolled back to here, what was read is still known, and its lock of the table is gone while Dataverse is waited for.
	BEGIN
		IF filter IS NOT NULL THEN
			chosen := dvmig._resend_rows(caller, t, filter);
		END IF;
		n := CASE WHEN filter IS NOT NULL THEN cardinality(chosen) ELSE (SELECT q::bigint FROM dvmig._query_as(m.owner,
			format('SELECT count(*) FROM %s s WHERE s.processing_flag IN (''S'', ''P'')', t.staging)) q) END;
		done := true;
		RAISE EXCEPTION 'read' USING ERRCODE = 'DV000';
	EXCEPTION WHEN SQLSTATE 'DV000' THEN
		IF NOT done THEN
			RAISE;
		END IF;
	END;
	IF confirm IS NOT NULL OR n > current_setting('dvmig.max_resend')::int THEN
		PERFORM dvmig._require_confirmation(caller, m.name, format('sending columns of %s again', dvmig._count_of(n, 'row', 'rows')), confirm,
			format('SELECT * FROM dvmig.resend(%L, %L, %%s)', t.staging, columns));
	END IF;
	job := dvmig._start_job(caller, m, 'resend', ARRAY[t.staging],
		jsonb_build_object('columns', columns, 'if_unchanged', coalesce(if_unchanged, true), 'filtered', CASE WHEN filter IS NOT NULL THEN true END),
		true, chosen);
	RETURN QUERY SELECT r.run, r.sent, r.equal, r.kept, r.missing, r.failed
	FROM dvmig._query_latest(format('SELECT to_jsonb(r) FROM dvmig._resend_table r WHERE r.run = %s', job)) q,
		jsonb_populate_record(NULL::dvmig._resend_table, q::jsonb) r;
END
$$;
COMMENT ON FUNCTION dvmig._resend(oid, regclass, text[], text, bool, text) IS 'send columns of loaded rows again: see dvmig.resend()';

CREATE FUNCTION dvmig.resend(staging regclass, columns text[], filter text DEFAULT NULL, if_unchanged bool DEFAULT true, confirm text DEFAULT NULL)
RETURNS TABLE (run bigint, sent bigint, equal bigint, kept bigint, missing bigint, failed bigint)
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.resend(regclass, text[], text, bool, text) IS
	'send just these columns of loaded rows again, where Dataverse holds something else, and wait for the end. filter: SQL condition over the staging row (s), decided at once with the rights of who calls; if_unchanged: records that another user has modified since are left, and listed in dvmig.difference; confirm: name of the organisation, where production asks for it';

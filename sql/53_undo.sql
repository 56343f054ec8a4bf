-- Undoing a run: the records it created are deleted, children first, and those
-- it updated are made again what their before-images say, where these were kept.
--
-- The worker first collects the ids of all these records in dvmig._undo_row,
-- then looks at each of them (is it there, who wrote it last, what belongs to
-- it), and only then restores and deletes. Called again after an interruption it
-- begins anew with what is left.

ALTER TABLE dvmig.migration_table ADD held_by_undo bigint;
COMMENT ON COLUMN dvmig.migration_table.held_by_undo IS 'undo that put the table on hold: no run loads it before dvmig.release(); null: not on hold';

CREATE TABLE dvmig._undo_row (
	undo         bigint NOT NULL,
	dataverse_id uuid NOT NULL,
	staging      regclass NOT NULL,
	verdict      text CHECK (verdict IN ('gone', 'changed', 'related', 'failed')),
	PRIMARY KEY (undo, dataverse_id)
);
COMMENT ON TABLE dvmig._undo_row IS 'records that an undo in progress is to delete, and why it will not';

CREATE TABLE dvmig._undo_pair (
	undo         bigint NOT NULL,
	child        uuid NOT NULL,
	parent       uuid NOT NULL,
	PRIMARY KEY (undo, child, parent)
);
COMMENT ON TABLE dvmig._undo_pair IS 'records that an undo in progress is to delete, and which of them belong to which';

CREATE TABLE dvmig._undo_image (
	undo         bigint NOT NULL,
	dataverse_id uuid NOT NULL,
	lookups      jsonb NOT NULL,
	is_counted_on bool NOT NULL DEFAULT false,
	PRIMARY KEY (undo, dataverse_id)
);
COMMENT ON TABLE dvmig._undo_image IS 'records that an undo in progress is to restore: where their lookups point afterwards';
COMMENT ON COLUMN dvmig._undo_image.is_counted_on IS 'a record may be deleted only if this one, which points at it, has been restored';

CREATE TABLE dvmig._undo_table (
	undo     bigint NOT NULL,
	staging  text NOT NULL,
	deleted  bigint NOT NULL DEFAULT 0,
	failed   bigint NOT NULL DEFAULT 0,
	created  bigint NOT NULL DEFAULT 0,
	gone     bigint NOT NULL DEFAULT 0,
	changed  bigint NOT NULL DEFAULT 0,
	related  bigint NOT NULL DEFAULT 0,
	restorable bigint NOT NULL DEFAULT 0,
	images_gone bigint NOT NULL DEFAULT 0,
	images_changed bigint NOT NULL DEFAULT 0,
	restored bigint NOT NULL DEFAULT 0,
	links    bigint NOT NULL DEFAULT 0,
	note     text,
	unreadable text,
	PRIMARY KEY (undo, staging)
);
COMMENT ON TABLE dvmig._undo_table IS 'what an undo found and did, by staging table';
COMMENT ON COLUMN dvmig._undo_table.unreadable IS 'entity sets that the application user may not read, whose records would be deleted with those of the table; null: none';

-- ------------------------------------------------------------ for the worker

CREATE FUNCTION dvmig._undo_collect(undo bigint, staging regclass, ids uuid[]) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO dvmig._undo_row (undo, dataverse_id, staging) SELECT $1, i, $2 FROM unnest($3) i ON CONFLICT DO NOTHING
$$;
COMMENT ON FUNCTION dvmig._undo_collect(bigint, regclass, uuid[]) IS 'note records that are to be deleted';

CREATE FUNCTION dvmig._undo_mark(undo bigint, ids uuid[], verdict text) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	WITH marked AS (UPDATE dvmig._undo_row r SET verdict = $3
		WHERE r.undo = $1 AND r.dataverse_id = ANY ($2) AND r.verdict IS NULL RETURNING 1)
	SELECT count(*) FROM marked
$$;
COMMENT ON FUNCTION dvmig._undo_mark(bigint, uuid[], text) IS 'note why records will not be deleted; how many that were to be';

-- _undo_related: mark the parents of records that are not undone. A record that
-- is to be restored does not belong to them if its lookup points elsewhere then.
CREATE FUNCTION dvmig._undo_related(undo bigint, children uuid[], parents uuid[], lookup text) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	WITH pointing AS MATERIALIZED (
		SELECT u.child, u.parent,
			EXISTS (SELECT FROM dvmig._undo_row r WHERE r.undo = $1 AND r.dataverse_id = u.child) AS is_ours,
			(SELECT i.lookups ? $4 AND i.lookups ->> $4 IS DISTINCT FROM u.parent::text
				FROM dvmig._undo_image i WHERE i.undo = $1 AND i.dataverse_id = u.child) IS TRUE
			AND EXISTS (SELECT FROM dvmig._undo_row r WHERE r.undo = $1 AND r.dataverse_id = u.parent) AS turns_away
		FROM unnest($2, $3) u(child, parent)
	), ours AS (
		INSERT INTO dvmig._undo_pair SELECT $1, p.child, p.parent FROM pointing p WHERE p.is_ours ON CONFLICT DO NOTHING
	), counted_on AS (
		UPDATE dvmig._undo_image i SET is_counted_on = true
		WHERE i.undo = $1 AND i.dataverse_id = ANY (ARRAY(SELECT p.child FROM pointing p WHERE p.turns_away))
	)
	SELECT dvmig._undo_mark($1, ARRAY(SELECT p.parent FROM pointing p WHERE NOT p.is_ours AND NOT p.turns_away), 'related')
$$;
COMMENT ON FUNCTION dvmig._undo_related(bigint, uuid[], uuid[], text) IS 'mark records to which others belong that are not undone';

-- _undo_unreadable: whether records of these entity sets belong to those of a
-- table could not be asked. Where that was forbidden and deletes cascade to them,
-- they count as related: nobody knows what would be deleted.
CREATE FUNCTION dvmig._undo_unreadable(undo bigint, staging regclass, sets text, is_forbidden bool) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO dvmig._undo_table AS u (undo, staging, note, unreadable)
	SELECT $1, $2::text, t.told, CASE WHEN $4 THEN $3 END
	FROM (SELECT format('whether records of %s belong to them is not known: %s', $3,
		CASE WHEN $4 THEN 'the application user may not read these' ELSE 'Dataverse does not take queries of these, and deletes them along' END) AS told) t
	ON CONFLICT ON CONSTRAINT _undo_table_pkey DO UPDATE SET unreadable = coalesce(excluded.unreadable, u.unreadable),
		note = CASE WHEN position(excluded.note IN coalesce(u.note, '')) > 0 THEN u.note ELSE concat_ws('; ', u.note, excluded.note) END;
	SELECT CASE WHEN $4 THEN dvmig._undo_mark($1, ARRAY(SELECT r.dataverse_id FROM dvmig._undo_row r
		WHERE r.undo = $1 AND r.staging = $2 AND r.verdict IS NULL), 'related') ELSE 0 END
$$;
COMMENT ON FUNCTION dvmig._undo_unreadable(bigint, regclass, text, bool) IS 'note that it is not known whether records of entity sets belong to those of a table';

-- _undo_spread: what a record belongs to that stays, stays too, and so on upwards.
CREATE FUNCTION dvmig._undo_spread(undo bigint) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	WITH RECURSIVE stays AS (
		SELECT r.dataverse_id FROM dvmig._undo_row r WHERE r.undo = $1 AND r.verdict IN ('changed', 'related')
		UNION
		SELECT p.parent FROM stays s JOIN dvmig._undo_pair p ON p.undo = $1 AND p.child = s.dataverse_id
	)
	SELECT dvmig._undo_mark($1, ARRAY(SELECT s.dataverse_id FROM stays s), 'related')
$$;
COMMENT ON FUNCTION dvmig._undo_spread(bigint) IS 'mark records to which others belong that stay';

-- _undo_restorable: note records that are to be restored; images are as kept.
CREATE FUNCTION dvmig._undo_restorable(undo bigint, ids uuid[], images text[]) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO dvmig._undo_image (undo, dataverse_id, lookups)
	SELECT $1, u.id, coalesce((SELECT jsonb_object_agg(e.key, e.value) FROM jsonb_each(u.image::jsonb) e WHERE e.key ~ '^_.+_value$'), '{}')
	FROM unnest($2, $3) u(id, image)
	ON CONFLICT ON CONSTRAINT _undo_image_pkey DO UPDATE SET lookups = excluded.lookups
$$;
COMMENT ON FUNCTION dvmig._undo_restorable(bigint, uuid[], text[]) IS 'note records that are to be restored';

-- _undo_not_restored: is a record to be deleted to which one belongs that could not
-- be restored? Then all have to be looked at again, as they are now.
CREATE FUNCTION dvmig._undo_not_restored(undo bigint) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	WITH rest AS (DELETE FROM dvmig._undo_image i WHERE i.undo = $1 RETURNING i.is_counted_on)
	SELECT count(*) FILTER (WHERE r.is_counted_on) FROM rest r
$$;
COMMENT ON FUNCTION dvmig._undo_not_restored(bigint) IS 'records that were not restored, on which the deletion of others rests; forget them';

CREATE FUNCTION dvmig._undo_doable(undo bigint, ids uuid[]) RETURNS uuid[]
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT ARRAY(SELECT r.dataverse_id FROM dvmig._undo_row r
		WHERE r.undo = $1 AND r.dataverse_id = ANY ($2) AND (r.verdict IS NULL OR r.verdict = 'gone'))
$$;
COMMENT ON FUNCTION dvmig._undo_doable(bigint, uuid[]) IS 'those of the records that are to be deleted';

-- _undo_count: figures of each table after all were looked at; why the undo is
-- refused, or null.
CREATE FUNCTION dvmig._undo_count(undo bigint) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	o jsonb := (SELECT h.options FROM dvmig.run_history h WHERE h.run = $1);
	why text[] := '{}';
	f record;
BEGIN
	INSERT INTO dvmig._undo_table (undo, staging, created, gone, changed, related)
	SELECT $1, t.staging, count(r.dataverse_id), count(*) FILTER (WHERE r.verdict = 'gone'),
		count(*) FILTER (WHERE r.verdict = 'changed'), count(*) FILTER (WHERE r.verdict = 'related')
	FROM dvmig.run_table t LEFT JOIN dvmig._undo_row r ON r.undo = t.run AND r.staging::text = t.staging
	WHERE t.run = $1 GROUP BY t.staging
	ON CONFLICT ON CONSTRAINT _undo_table_pkey DO UPDATE SET created = excluded.created, gone = _undo_table.images_gone + excluded.gone,
		changed = _undo_table.images_changed + excluded.changed, related = excluded.related;
	IF (o ->> 'dry_run')::bool THEN
		RETURN NULL;
	END IF;
	FOR f IN SELECT u.* FROM dvmig._undo_table u WHERE u.undo = $1 ORDER BY u.staging LOOP
		IF f.changed > 0 AND o ->> 'changed' = 'refuse' THEN
			why := why || format('%s changed in Dataverse since by another user (changed => ''skip'' leaves them)', dvmig._count_of(f.changed, 'record of ' || f.staging || ' was', 'records of ' || f.staging || ' were'));
		END IF;
		IF f.related > 0 AND o ->> 'related' = 'refuse' AND f.unreadable IS NOT NULL THEN
			why := why || format('%s would be deleted with those of %s, and the application user may not read them (give it the privilege; related => ''skip'' leaves all of %2$s)', 'records of ' || f.unreadable, f.staging);
		ELSIF f.related > 0 AND o ->> 'related' = 'refuse' THEN
			why := why || format('%s related records that would stay or go with them (related => ''skip'' leaves them)', dvmig._count_of(f.related, 'record of ' || f.staging || ' has', 'records of ' || f.staging || ' have'));
		END IF;
	END LOOP;
	RETURN 'refused: ' || nullif(array_to_string(why, '; '), '');
END
$$;
COMMENT ON FUNCTION dvmig._undo_count(bigint) IS 'count what an undo would do; why it is refused, or null';

-- _undo_images: what was found of a table's records that are to be restored.
CREATE FUNCTION dvmig._undo_images(undo bigint, staging regclass, restorable bigint, changed bigint, gone bigint) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO dvmig._undo_table (undo, staging, restorable, images_changed, images_gone) VALUES ($1, $2::text, $3, $4, $5)
	ON CONFLICT ON CONSTRAINT _undo_table_pkey DO UPDATE SET restorable = excluded.restorable, images_changed = excluded.images_changed, images_gone = excluded.images_gone
$$;
COMMENT ON FUNCTION dvmig._undo_images(bigint, regclass, bigint, bigint, bigint) IS 'count the records of a table that an undo is to restore';

-- _undo_note: links that the run made, and what the run did to a table that its
-- undo does not take back.
CREATE FUNCTION dvmig._undo_note(undo bigint, staging regclass, without_image bigint, written_later bigint, removed bigint, links bigint, completed bigint) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO dvmig._undo_table (undo, staging, note, links) SELECT $1, $2::text, nullif(concat_ws('; ',
		CASE WHEN $3 > 0 THEN format('%s no before-image', dvmig._count_of($3, 'update that stays has', 'updates that stay have')) END,
		CASE WHEN $4 > 0 THEN format('%s written by later runs: undo those first', dvmig._count_of($4, 'updated record was', 'updated records were')) END,
		CASE WHEN $5 > 0 THEN format('%s not made again', dvmig._count_of($5, 'record that the run deleted is', 'records that the run deleted are')) END,
		CASE WHEN $7 > 0 THEN format('%s: deferred lookups, files, states', dvmig._count_of($7, 'record of an earlier run keeps what a later pass of this one gave it', 'records of earlier runs keep what later passes of this one gave them')) END), ''), $6
	ON CONFLICT ON CONSTRAINT _undo_table_pkey DO UPDATE SET note = excluded.note, links = excluded.links
$$;
COMMENT ON FUNCTION dvmig._undo_note(bigint, regclass, bigint, bigint, bigint, bigint, bigint) IS 'note what an undo does not take back';

-- _undo_left: what an undo at work found that stays, in the singular and plural.
CREATE FUNCTION dvmig._undo_left(undo bigint, staging regclass, one text, many text, n bigint, is_changed bool) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	UPDATE dvmig._undo_table u SET changed = u.changed + CASE WHEN $6 THEN $5 ELSE 0 END,
		note = concat_ws('; ', u.note, dvmig._count_of($5, $3, $4) || ' left')
	WHERE u.undo = $1 AND u.staging = $2::text
$$;
COMMENT ON FUNCTION dvmig._undo_left(bigint, regclass, text, text, bigint, bool) IS 'note what an undo at work leaves';

CREATE FUNCTION dvmig._undo_hold(undo bigint, staging regclass, shares bool) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	-- until it has ended, nobody knows of which rows the record is gone
	UPDATE dvmig.migration_table t SET held_by_undo = $1, clean_end = false, unclean_from = CASE WHEN t.clean_end THEN $1 ELSE coalesce(t.unclean_from, $1) END
	WHERE t.staging = $2
		AND ($3 OR EXISTS (SELECT FROM dvmig._undo_table u WHERE u.undo = $1 AND u.staging = $2::text
			AND (u.restorable > 0 OR u.links > 0 OR EXISTS (SELECT FROM dvmig._undo_row r WHERE r.undo = $1 AND r.staging = $2 AND coalesce(r.verdict, 'gone') = 'gone'))));
	UPDATE dvmig.run_table t SET state = 'running', started_at = clock_timestamp(),
		rows_total = (SELECT u.created + u.links + u.restorable FROM dvmig._undo_table u WHERE u.undo = $1 AND u.staging = $2::text)
	WHERE t.run = $1 AND t.staging = $2::text
$$;
COMMENT ON FUNCTION dvmig._undo_hold(bigint, regclass, bool) IS 'put a staging table on hold before its records are deleted';

CREATE FUNCTION dvmig._undo_store(undo bigint, staging regclass, deleted bigint, failed bigint, has_ended bool, message text, restored bigint) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	UPDATE dvmig._undo_table u SET deleted = $3, failed = $4, restored = $7,
		-- with those that went away after they were looked at
		gone = CASE WHEN $5 THEN u.images_gone + (SELECT count(*) FROM dvmig._undo_row r WHERE r.undo = $1 AND r.staging = $2 AND r.verdict = 'gone') ELSE u.gone END
	WHERE u.undo = $1 AND u.staging = $2::text;
	UPDATE dvmig.run_table t SET rows_read = $3 + $4 + $7, succeeded = $3 + $7, failed = $4,
		message = coalesce($6, (SELECT u.note FROM dvmig._undo_table u WHERE u.undo = $1 AND u.staging = $2::text)),
		state = CASE WHEN $5 THEN 'done' ELSE t.state END, ended_at = CASE WHEN $5 THEN clock_timestamp() END
	WHERE t.run = $1 AND t.staging = $2::text;
	UPDATE dvmig.migration_table t SET clean_end = true WHERE $5 AND t.staging = $2 AND t.unclean_from = $1 AND t.forgotten_since IS NULL
$$;
COMMENT ON FUNCTION dvmig._undo_store(bigint, regclass, bigint, bigint, bool, text, bigint) IS 'figures of an undo''s table';

CREATE FUNCTION dvmig._undo_end(undo bigint) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	-- those of an undo that was interrupted too
	DELETE FROM dvmig._undo_row r USING dvmig.run_history h
	WHERE h.run = r.undo AND (r.undo = $1 OR h.state NOT IN ('starting', 'running', 'stopping'));
	DELETE FROM dvmig._undo_pair r USING dvmig.run_history h
	WHERE h.run = r.undo AND (r.undo = $1 OR h.state NOT IN ('starting', 'running', 'stopping'));
	DELETE FROM dvmig._undo_image r USING dvmig.run_history h
	WHERE h.run = r.undo AND (r.undo = $1 OR h.state NOT IN ('starting', 'running', 'stopping'));
	UPDATE dvmig.run_table t SET state = 'done', ended_at = clock_timestamp()
	FROM dvmig.run_history h WHERE t.run = $1 AND h.run = $1 AND (h.options ->> 'dry_run')::bool
$$;
COMMENT ON FUNCTION dvmig._undo_end(bigint) IS 'forget the rows of an undo';

-- _undo_relations: where records may be that belong to those of a table: entity
-- set, primary id, lookup, and what becomes of them when theirs is deleted (null: not known). From what the organisation tells now (answers to
-- two queries of its metadata) and from the metadata that is kept. Not asked
-- about are tables in which the platform keeps its own accounts.
CREATE FUNCTION dvmig._undo_relations(server name, target text, one_to_many text, definitions text)
RETURNS TABLE (entity_set text, primary_id text, lookup text, cascade_delete text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH told AS (
		SELECT r ->> 'ReferencingEntity' AS child, r ->> 'ReferencingAttribute' AS lookup
		FROM jsonb_array_elements(coalesce($3::jsonb -> 'OneToManyRelationships', $3::jsonb #> '{value,0,OneToManyRelationships}', '[]')) r
	), sets AS (
		SELECT d ->> 'LogicalName' AS name, d ->> 'EntitySetName' AS entity_set, d ->> 'PrimaryIdAttribute' AS primary_id
		FROM jsonb_array_elements(coalesce($4::jsonb -> 'value', '[]')) d
	), related AS (
		SELECT t.child, s.entity_set, s.primary_id, t.lookup FROM told t JOIN sets s ON s.name = t.child
		WHERE s.entity_set IS NOT NULL AND s.primary_id IS NOT NULL AND t.lookup IS NOT NULL
		UNION
		SELECT l.table_name, mt.entity_set, mt.primary_id, l.column_name
		FROM dvmig.metadata_lookup l JOIN dvmig.metadata_table mt ON mt.server = l.server AND mt.table_name = l.table_name
		WHERE l.server = $1 AND l.referenced_table = $2
	)
	SELECT r.entity_set, r.primary_id, r.lookup, min(c.cascade_delete) FROM related r
	LEFT JOIN dvmig.metadata_child c ON c.server = $1 AND c.table_name = $2 AND c.child_table = r.child AND c.child_column = r.lookup
	-- what closing a record left goes with it
	WHERE r.child IS DISTINCT FROM dvmig._close_activity($2)
	  AND r.child NOT IN ('activityparty', 'activitypointer', 'asyncoperation', 'bulkdeletefailure', 'duplicaterecord', 'mailboxtrackingfolder',
		'principalobjectattributeaccess', 'principalobjectaccess', 'processsession', 'syncerror', 'userentityinstancedata', 'actioncard',
		'actioncarduserstate', 'postregarding', 'postrole', 'postfollow', 'audit')
	GROUP BY 1, 2, 3
$$;
COMMENT ON FUNCTION dvmig._undo_relations(name, text, text, text) IS 'tables and lookups by which other records belong to those of a table';

-- _undo_links: statements, for the owner of the migration, that let links be made
-- again whose record a run created. Dataverse takes links away with their records.
-- They come before the first delete: a link that is made twice is there once.
CREATE FUNCTION dvmig._undo_links(staging regclass, run bigint) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('WITH taken AS (UPDATE %1$s s SET processing_flag = ''U'' WHERE s.processing_flag IN (''S'', ''P'') AND s.action_flag <> ''D'' AND (%2$s) IN '
		'(SELECT %3$s FROM %4$s x WHERE x.created_run = %6$s AND x.operation <> ''D'' UNION ALL SELECT %3$s FROM %5$s x WHERE x.created_run = %6$s) RETURNING %7$s) '
		'DELETE FROM %8$s x USING taken s WHERE %9$s',
		l.staging, array_to_string(c.expression_sql, ', '),
		(SELECT string_agg(format('x.%I', k), ', ' ORDER BY i) FROM unnest(p.source_key) WITH ORDINALITY u(k, i)), p.success_table, p.error_table, $2,
		(SELECT string_agg(format('s.%I', k), ', ' ORDER BY i) FROM unnest(l.source_key) WITH ORDINALITY u(k, i)), l.success_table,
		(SELECT string_agg(format('x.%I = s.%1$I', k), ' AND ' ORDER BY i) FROM unnest(l.source_key) WITH ORDINALITY u(k, i)))
	FROM dvmig.column_map c JOIN dvmig.migration_table l ON l.staging = c.staging AND l.relationship IS NOT NULL
	JOIN dvmig.migration_table p ON p.staging = c.parent
	WHERE c.parent = $1 AND c.kind = 'parent' AND c.pass = 'links'
	  AND EXISTS (SELECT FROM pg_class k WHERE k.oid = l.staging)
	ORDER BY l.staging::text, c.target_column
$$;
COMMENT ON FUNCTION dvmig._undo_links(regclass, bigint) IS 'statements that let links be made again whose record a run created';

-- _undo_sharing: of the tables that an undo works on, those whose rows may stand
-- for the same records as rows of this one (a given id that two rows share).
--   kind       'deleted' or 'restored': what the statement follows
--   probe      query of the owner: are there such rows?
--   statement  takes their outcomes back too; $1: ids of records
CREATE FUNCTION dvmig._undo_sharing(undo bigint, staging regclass, run bigint) RETURNS TABLE (sharing regclass, kind text, probe text, statement text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH sharing AS (
		SELECT t.*, l.staging AS other, l.success_table AS success, l.error_table AS error,
			(SELECT string_agg(format('x.%I', k), ', ' ORDER BY i) FROM unnest(l.source_key) WITH ORDINALITY u(k, i)) AS keys,
			(SELECT string_agg(format('o.%I', k), ', ' ORDER BY i) FROM unnest(t.source_key || 'dataverse_id'::text) WITH ORDINALITY u(k, i)) AS own,
			(SELECT string_agg(format('s.%1$I = u.%1$I', k), ' AND ' ORDER BY i) FROM unnest(l.source_key) WITH ORDINALITY u(k, i)) AS matched,
			-- another row: of another table, or of another key
			CASE WHEN l.staging = t.staging THEN (SELECT string_agg(format('x.%1$I IS DISTINCT FROM o.%1$I', k), ' OR ') FROM unnest(l.source_key) k) ELSE 'true' END AS another
		FROM dvmig.migration_table t JOIN dvmig.migration_table l ON l.migration_id = t.migration_id AND l.target = t.target AND l.relationship IS NULL
		JOIN dvmig.run_table r ON r.run = $1 AND r.staging = l.staging::text
		WHERE t.staging = $2
	)
	SELECT h.other, 'deleted', format('SELECT EXISTS (SELECT FROM (SELECT %1$s, x.dataverse_id FROM %2$s x UNION ALL SELECT %1$s, x.dataverse_id FROM %3$s x) x '
			'JOIN (SELECT %4$s FROM %5$s o WHERE o.created_run = %7$s AND o.operation <> ''D'' UNION ALL SELECT %4$s FROM %6$s o WHERE o.created_run = %7$s) o '
			'ON o.dataverse_id = x.dataverse_id AND (%8$s))', h.keys, h.success, h.error, h.own, h.success_table, h.error_table, $3, h.another),
		format('WITH gone AS (DELETE FROM %1$s x WHERE x.dataverse_id = ANY ($1) RETURNING %3$s), '
			'failed AS (DELETE FROM %2$s x WHERE x.dataverse_id = ANY ($1) RETURNING %3$s) '
			'UPDATE %4$s s SET processing_flag = ''U'', action_flag = CASE s.action_flag WHEN ''U'' THEN ''I'' ELSE s.action_flag END '
			'FROM (SELECT * FROM gone UNION SELECT * FROM failed) u WHERE %5$s AND s.processing_flag <> ''U''', h.success, h.error, h.keys, h.other, h.matched)
	FROM sharing h
	UNION ALL
	SELECT h.other, 'restored', format('SELECT EXISTS (SELECT FROM %1$s x JOIN %2$s o ON o.dataverse_id = x.dataverse_id AND o.run = %3$s WHERE x.run = %3$s AND (%4$s))',
			h.success, h.before_table, $3, h.another),
		format('WITH written AS (UPDATE %1$s x SET content_hash = NULL, message = ''restored by dvmig.undo()'', owed_passes = NULL, recorded_at = clock_timestamp() '
			'WHERE x.dataverse_id = ANY ($1) AND x.run = %2$s AND x.operation <> ''D'' RETURNING %3$s) '
			'UPDATE %4$s s SET processing_flag = ''U'' FROM written u WHERE %5$s AND s.processing_flag <> ''U''', h.success, $3, h.keys, h.other, h.matched)
	FROM sharing h WHERE EXISTS (SELECT FROM pg_class c WHERE c.oid = h.before_table)
$$;
COMMENT ON FUNCTION dvmig._undo_sharing(bigint, regclass, bigint) IS 'statements that take back outcomes of rows that share a record with one that is undone';

-- ------------------------------------------------------------------ for a DBA

CREATE FUNCTION dvmig._undo_job(caller oid, run bigint, staging text, related text, changed text, dry_run bool, confirm text, wait bool) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	h dvmig.run_history;
	m dvmig.migration;
	tables regclass[];
BEGIN
	IF run IS NULL THEN
		RAISE EXCEPTION 'the run is missing' USING ERRCODE = 'null_value_not_allowed';
	ELSIF related IS NULL OR related NOT IN ('refuse', 'skip') THEN
		RAISE EXCEPTION 'related must be refuse or skip, not "%"', related
			USING ERRCODE = 'invalid_parameter_value', HINT = 'What is related is never deleted along: skip leaves the records that have some.';
	ELSIF changed IS NULL OR changed NOT IN ('refuse', 'skip') THEN
		RAISE EXCEPTION 'changed must be refuse or skip, not "%"', changed
			USING ERRCODE = 'invalid_parameter_value', HINT = 'What users have changed is never deleted: skip leaves these records.';
	END IF;
	h := dvmig._run_of(caller, run, 'owner');
	IF h.kind NOT IN ('run', 'resend') THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('run %s wrote no records: it is of kind "%s"', run, h.kind), HINT = 'Name the run of the migration that is to be undone.';
	END IF;
	SELECT g.* INTO m FROM dvmig.migration g WHERE g.migration_id = h.migration_id;
	IF m.server <> h.server THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('run %s went to server "%s", and the migration goes to "%s" now', run, h.server, m.server),
			HINT = 'What it did is in the outcome tables that dvmig.retarget() has renamed.';
	END IF;
	SELECT ARRAY[t.staging] INTO tables FROM dvmig.migration_table t
	WHERE t.migration_id = m.migration_id AND t.relationship IS NOT NULL AND t.staging = dvmig._caller_regclass(caller, _undo_job.staging);
	tables := coalesce(tables, dvmig._job_tables(caller, m, staging));
	IF staging IS NULL THEN
		tables := tables || ARRAY(SELECT t.staging FROM dvmig.migration_table t WHERE t.migration_id = m.migration_id AND t.relationship IS NOT NULL
			AND EXISTS (SELECT FROM pg_class c WHERE c.oid = t.staging) ORDER BY t.position);
	END IF;
	IF NOT coalesce(dry_run, false) THEN
		PERFORM dvmig._require_confirmation(caller, m.name, format('undoing run %s', run), confirm,
			format('SELECT * FROM dvmig.undo(%s, %%s)', run));
	END IF;
	RETURN dvmig._start_job(caller, m, 'undo', tables, jsonb_build_object('undoes', run, 'staging', staging, 'related', related,
		'changed', changed, 'dry_run', coalesce(dry_run, false)), wait);
END
$$;
COMMENT ON FUNCTION dvmig._undo_job(oid, bigint, text, text, text, bool, text, bool) IS 'check and begin an undo';

CREATE FUNCTION dvmig._undo(caller oid, run bigint, staging text, related text, changed text, dry_run bool, confirm text)
RETURNS TABLE (undo_run bigint, staging_table text, created bigint, gone bigint, changed_since bigint, has_related bigint, deleted bigint, restored bigint, failed bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	job bigint := dvmig._undo_job($1, $2, $3, $4, $5, $6, $7, true);
	f dvmig._undo_table;
BEGIN
	FOR f IN SELECT u.* FROM dvmig._query_latest(format('SELECT to_jsonb(u) FROM dvmig._undo_table u WHERE u.undo = %s AND u.note IS NOT NULL ORDER BY u.staging', job)) q,
		jsonb_populate_record(NULL::dvmig._undo_table, q::jsonb) u
	LOOP
		RAISE NOTICE '%: %', f.staging, f.note;
	END LOOP;
	RETURN QUERY SELECT job, u.staging, u.created + u.links, u.gone, u.changed, u.related, u.deleted,
		-- of a dry run: those that would be
		CASE WHEN dry_run THEN u.restorable ELSE u.restored END, u.failed
	FROM dvmig._query_latest(format('SELECT to_jsonb(u) FROM dvmig._undo_table u JOIN dvmig.run_table t ON t.run = u.undo AND t.staging = u.staging WHERE u.undo = %s ORDER BY t.step', job)) q,
		jsonb_populate_record(NULL::dvmig._undo_table, q::jsonb) u;
END
$$;
COMMENT ON FUNCTION dvmig._undo(oid, bigint, text, text, text, bool, text) IS 'delete what a run created: see dvmig.undo()';

CREATE FUNCTION dvmig.undo(run bigint, staging text DEFAULT NULL, related text DEFAULT 'refuse', changed text DEFAULT 'refuse',
	dry_run bool DEFAULT false, confirm text DEFAULT NULL)
RETURNS TABLE (undo_run bigint, staging text, created bigint, gone bigint, changed_since bigint, has_related bigint, deleted bigint, restored bigint, failed bigint)
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.undo(bigint, text, text, text, bool, text) IS
	'delete the records that a run created, children first, restore those it updated where their table has keep_before_image, and wait for the end; their rows become unprocessed and their tables are on hold until dvmig.release(). staging: only this table; related, changed: refuse or skip records to which others belong, or that another user has changed since; dry_run: only count; confirm: name of the organisation, where production asks for it';

CREATE FUNCTION dvmig._start_undo(caller oid, run bigint, staging text, related text, changed text, dry_run bool, confirm text) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT dvmig._undo_job($1, $2, $3, $4, $5, $6, $7, false) $$;
COMMENT ON FUNCTION dvmig._start_undo(oid, bigint, text, text, text, bool, text) IS 'begin an undo: see dvmig.start_undo()';

CREATE FUNCTION dvmig.start_undo(run bigint, staging text DEFAULT NULL, related text DEFAULT 'refuse', changed text DEFAULT 'refuse',
	dry_run bool DEFAULT false, confirm text DEFAULT NULL) RETURNS bigint
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.start_undo(bigint, text, text, text, bool, text) IS
	'begin an undo in the background, at once and whatever becomes of the transaction; returns its own run, for dvmig.wait()';

CREATE FUNCTION dvmig._release(caller oid, staging regclass) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table := dvmig._table(caller, staging, 'owner');
BEGIN
	IF t.held_by_undo IS NULL THEN
		RAISE NOTICE '% is not on hold', staging;
		RETURN format('%s is not on hold', staging);
	END IF;
	UPDATE dvmig.migration_table mt SET held_by_undo = NULL WHERE mt.staging = t.staging;
	PERFORM dvmig._log(caller, (SELECT m.name FROM dvmig.migration m WHERE m.migration_id = t.migration_id), 'release', staging::text,
		jsonb_build_object('undo', t.held_by_undo));
	RETURN format('%s is no longer on hold', staging);
END
$$;
COMMENT ON FUNCTION dvmig._release(oid, regclass) IS 'internal part of dvmig.release()';

CREATE FUNCTION dvmig.release(staging regclass) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.release(regclass) IS 'let runs load a staging table again that an undo has put on hold';

-- _not_on_hold: those of the tables that a run may load; says which it may not.
CREATE FUNCTION dvmig._not_on_hold(migration_id int, chosen regclass[]) RETURNS regclass[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	held text;
	advice text;
	free regclass[] := ARRAY(SELECT t.staging FROM dvmig.migration_table t
		WHERE t.migration_id = $1 AND t.held_by_undo IS NULL AND (chosen IS NULL OR t.staging = ANY (chosen)));
BEGIN
	SELECT string_agg(t.staging::text, ', ' ORDER BY t.position),
		'When what was wrong is corrected: ' || string_agg(format('SELECT dvmig.release(%L);', t.staging::text), ' ' ORDER BY t.position)
	INTO held, advice FROM dvmig.migration_table t
	WHERE t.migration_id = $1 AND t.held_by_undo IS NOT NULL AND (chosen IS NULL OR t.staging = ANY (chosen));
	IF held IS NULL THEN
		RETURN chosen;
	ELSIF chosen IS NOT NULL OR cardinality(free) = 0 THEN
		RAISE EXCEPTION 'on hold after an undo: %', held
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = advice;
	END IF;
	RAISE NOTICE 'left out because they are on hold after an undo: %', held USING HINT = advice;
	RETURN free;
END
$$;
COMMENT ON FUNCTION dvmig._not_on_hold(int, regclass[]) IS 'leave tables that are on hold out of a run, or refuse it';

/*
 * undo.c - taking back what a run did: the phases, and the walk they share
 *
 * Collect all ids, look at every record, then restore what was updated, and
 * delete what was created: children first in each phase. Nothing is written
 * before all has been looked at.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "call.h"
#include "job.h"
#include "spi.h"
#include "undo.h"

/* Outcome rows of a chunk: as many ids as one query asks for. */
#define CHUNK_ROWS	400

/* The same of before-images: whole records, with texts of up to a million characters. */
#define IMAGE_ROWS	100

Datum
dv_undo_id_array(const pg_uuid_t *ids, int n)
{
	Datum	   *values = palloc(sizeof(Datum) * (n + 1));
	int			i;

	for (i = 0; i < n; i++)
		values[i] = UUIDPGetDatum(&ids[i]);
	return PointerGetDatum(construct_array(values, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
}

int64
dv_undo_call(DvUndo *u, const char *sql, const pg_uuid_t *ids, int n, const char *text)
{
	Oid			types[3] = {INT8OID, InvalidOid, TEXTOID};
	Datum		values[3];
	bool		isnull;
	int64		result;
	DvSwitch	before;

	before = dv_runstate_begin("dvmig: undo");
	dv_spi_follow_indexes();
	types[1] = get_array_type(UUIDOID);
	values[0] = Int64GetDatum(u->rc->run);
	values[1] = dv_undo_id_array(ids, n);
	values[2] = CStringGetTextDatum(text ? text : "");
	dv_spi_run(sql, 3, types, values, NULL, SPI_OK_SELECT);
	result = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	dv_runstate_commit(before, true);
	return isnull ? 0 : result;
}

/* ---------------------------------------------------------------- the walk */

void
dv_undo_release(DvUndoChunk *chunk)
{
	if (--chunk->asks <= 0)
		MemoryContextDelete(chunk->context);
}

bool
dv_undo_has_more(const DvHttpReply *reply)
{
	DvPage		page;

	return dv_page_open(&page, reply->body.data, reply->body.len) && page.next_link.p != NULL;
}

/*
 * Images of the run, of rows that no later run has written. (Where the run died,
 * their outcome may still be an earlier one's.)
 */
static char *
images_of(DvUndo *u)
{
	const DvProjection *p = u->table->projection;

	return psprintf("%s x LEFT JOIN %s s ON %s LEFT JOIN %s e ON %s WHERE x.run = " INT64_FORMAT
					" AND coalesce(s.run, 0) <= x.run AND coalesce(e.run, 0) <= x.run AND s.operation IS DISTINCT FROM 'D'"
					" AND coalesce(s.created_run, e.created_run, 0) <> x.run"
					" AND NOT EXISTS (SELECT FROM %s l WHERE %s AND l.run > x.run)",
					u->table->before_sql, p->success_sql, dv_keys_match(p, "s", "x"), p->error_sql, dv_keys_match(p, "e", "x"), u->target,
					u->table->before_sql, dv_keys_match(p, "l", "x"));
}

/* Outcome rows of what the run created. */
static char *
created_of(DvUndo *u)
{
	const DvProjection *p = u->table->projection;
	bool		success = u->part == DV_UNDO_SUCCESSES;

	return psprintf("%s x WHERE x.created_run = " INT64_FORMAT " AND x.dataverse_id IS NOT NULL%s",
					success ? p->success_sql : p->error_sql, u->target, success ? " AND x.operation <> 'D'" : "");
}

static char *
chunk_query(DvUndo *u)
{
	const DvProjection *p = u->table->projection;
	bool		images = u->part == DV_UNDO_IMAGES;
	const char *keys = dv_keys_list(p, "x.");
	char	   *rows = u->part == DV_UNDO_LINKS ? dv_undo_links_query(u)
		: psprintf("SELECT x.dataverse_id, %s%s FROM %s", keys,
				   images ? ", CASE pg_catalog.jsonb_typeof(x.columns) WHEN 'object' THEN x.columns::pg_catalog.text END" : "",
				   images ? images_of(u) : created_of(u));

	return psprintf("%s%s ORDER BY %s LIMIT %d", rows, u->walk.last != NULL ? dv_keys_behind(p, "x.") : "",
					keys, images ? IMAGE_ROWS : CHUNK_ROWS);
}

static Datum *
copy_keys(DvUndo *u, HeapTuple tuple, MemoryContext context)
{
	const DvProjection *p = u->table->projection;
	MemoryContext old = MemoryContextSwitchTo(context);
	Datum	   *keys = palloc(sizeof(Datum) * p->nkeys);
	bool		nulls[INDEX_MAX_KEYS];
	int			i;

	for (i = 0; i < p->nkeys; i++)
		keys[i] = SPI_getbinval(tuple, SPI_tuptable->tupdesc, i + 2, &nulls[i]);
	dv_projection_check_values(p, nulls);
	for (i = 0; i < p->nkeys; i++)
		keys[i] = datumCopy(keys[i], p->keys[i].byval, p->keys[i].len);
	MemoryContextSwitchTo(old);
	return keys;
}

/* Somebody has written into the table of before-images: what the record held is not known from it. */
static void
refuse_image(const DvUndoTable *table, const char *column, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
			 errmsg("column \"%s\" of the before-images of %s is %s in a row", column, table->projection->table_name, what),
			 errhint("Write it as it was or delete the row, and start again.")));
}

static DvUndoChunk *
take_result(DvUndo *u)
{
	MemoryContext context = AllocSetContextCreate(u->context, "dvmig undo chunk", ALLOCSET_DEFAULT_SIZES);
	DvUndoChunk *chunk = MemoryContextAllocZero(context, sizeof(DvUndoChunk));
	int			i;

	dv_projection_check_keys(u->table->projection, SPI_tuptable->tupdesc, 2);
	dv_projection_check_type(u->table->projection, SPI_tuptable->tupdesc, 1, "dataverse_id", UUIDOID);
	if (u->part == DV_UNDO_LINKS)
		dv_projection_check_type(u->table->projection, SPI_tuptable->tupdesc, u->table->projection->nkeys + 3, "content_hash", BYTEAOID);
	chunk->context = context;
	chunk->table = u->table;
	chunk->n = (int) SPI_processed;
	chunk->ids = MemoryContextAlloc(context, sizeof(pg_uuid_t) * chunk->n);
	chunk->keys = MemoryContextAlloc(context, sizeof(Datum *) * chunk->n);
	chunk->seen = MemoryContextAllocZero(context, sizeof(bool) * chunk->n);
	if (u->part == DV_UNDO_IMAGES)
	{
		chunk->images = MemoryContextAllocZero(context, sizeof(char *) * chunk->n);
		chunk->wire = MemoryContextAllocZero(context, sizeof(DvWireRow) * chunk->n);
		chunk->looks = MemoryContextAllocZero(context, sizeof(int) * chunk->n);
	}
	else if (u->part == DV_UNDO_LINKS)
		chunk->lefts = MemoryContextAllocZero(context, sizeof(pg_uuid_t) * chunk->n);
	for (i = 0; i < chunk->n; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		bool		isnull;

		chunk->keys[i] = copy_keys(u, tuple, context);
		if (u->part == DV_UNDO_LINKS)
			dv_undo_links_take(chunk, i, tuple, SPI_tuptable->tupdesc, u->table->projection->nkeys + 2);
		else
		{
			Datum		id = SPI_getbinval(tuple, SPI_tuptable->tupdesc, 1, &isnull);

			/* of outcomes those without one are not read; a before-image may have lost it */
			if (isnull)
				refuse_image(u->table, "dataverse_id", "null");
			chunk->ids[i] = *DatumGetUUIDP(id);
		}
		if (chunk->images != NULL)
		{
			chunk->images[i] = dv_spi_keep(context, i, u->table->projection->nkeys + 2);
			if (chunk->images[i] == NULL)
				refuse_image(u->table, "columns", "no object");
		}
	}
	dv_walk_read(&u->walk, u->table->projection, chunk->keys[chunk->n - 1]);
	return chunk;
}

typedef struct Reading
{
	DvUndo	   *u;
	DvUndoChunk *chunk;			/* NULL: nothing is left of the part */
} Reading;

/* The next rows of the part that is walked, with the owner's rights. */
static void
read_part(void *arg)
{
	Reading    *r = arg;
	DvUndo	   *u = r->u;
	Oid			types[2 * INDEX_MAX_KEYS];
	Datum		values[2 * INDEX_MAX_KEYS];
	int			n = dv_projection_bounds(u->table->projection, u->walk.last, NULL, types, values);

	dv_spi_begin("dvmig: reading what a run created");
	dv_spi_follow_indexes();
	dv_spi_wait_briefly();
	if (dv_spi_run(chunk_query(u), n, types, values, NULL, SPI_OK_SELECT) > 0)
		r->chunk = take_result(u);
	dv_spi_commit(true);
}

static DvUndoChunk *
read_chunk(DvUndo *u)
{
	while (u->part <= u->last_part && !u->rc->stopping)
	{
		Reading		r = {u, NULL};

		dv_asker_patiently(u->rc, u->context, read_part, &r);
		if (r.chunk != NULL)
		{
			dv_walk_pass(&u->walk);
			return r.chunk;
		}
		u->part++;
		dv_walk_rewind(&u->walk);
	}
	return NULL;
}

void
dv_undo_walk(DvUndo *u, DvUndoTable *table, DvUndoPart first, DvUndoPart last, void (*begin) (DvUndo *u, DvUndoChunk *chunk))
{
	MemoryContext scratch = AllocSetContextCreate(u->context, "dvmig undo loop", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);

	u->table = table;
	u->part = first;
	u->last_part = last;
	dv_walk_rewind(&u->walk);
	for (;;)
	{
		bool		waits;

		MemoryContextReset(scratch);
		while (dv_asker_has_room(&u->asker))
		{
			DvUndoChunk *chunk = read_chunk(u);

			if (chunk == NULL)
				break;
			chunk->asks = 1;
			begin(u, chunk);
			dv_undo_release(chunk);
			dv_worker_look(u->rc);
			dv_asker_send(&u->asker);
		}
		waits = dv_asker_turn(&u->asker);
		if (!waits && (u->part > u->last_part || u->rc->stopping))
			break;
	}
	dv_job_account(u->rc, &table->plan);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}

/* ---------------------------------------------------------------- the phases */

/* What the run's images hold, with the owner's rights: maps do not change during a run. */
static void
load_members(void *arg)
{
	DvUndo	   *u = arg;
	DvUndoTable *table = u->table;

	dv_spi_begin("dvmig: loading what images hold");
	dv_spi_wait_briefly();
	dv_spi_run(psprintf("SELECT pg_catalog.string_agg(k, ',') FROM (SELECT b.columns FROM %s b WHERE b.run = " INT64_FORMAT
						" AND pg_catalog.jsonb_typeof(b.columns) = 'object' LIMIT 1) b,"
						" pg_catalog.jsonb_object_keys(b.columns) k WHERE k NOT LIKE '%%@%%'", table->before_sql, u->target),
			   0, NULL, NULL, NULL, SPI_OK_SELECT);
	table->members = dv_spi_keep(u->context, 0, 1);
	dv_spi_commit(true);
}

/* How many of the table's outcome rows are such. */
static int64
count_rows(const char *from)
{
	dv_spi_run(psprintf("SELECT count(*) FROM %s", from), 0, NULL, NULL, NULL, SPI_OK_SELECT);
	return strtoll(dv_spi_text(0, 1), NULL, 10);
}

/* What the run did to records of earlier runs and left no image of; "what" is a condition over their outcomes. */
static int64
count_without_image(DvUndo *u, const char *what)
{
	const DvUndoTable *table = u->table;
	const char *imaged = table->before_sql == NULL ? "" :
		psprintf(" AND NOT EXISTS (SELECT FROM %s b WHERE b.run = x.run AND b.dataverse_id = x.dataverse_id)", table->before_sql);

	return count_rows(psprintf("%s x WHERE x.run = " INT64_FORMAT " AND (%s) AND x.created_run IS DISTINCT FROM x.run"
							   " AND coalesce(x.message, '') NOT SIMILAR TO '(unchanged|restored)%%'"
							   /* what was kept may have been given what it owed */
							   " AND (x.pass <> 'write' OR coalesce(x.message, '') NOT LIKE 'kept%%')%s",
							   table->projection->success_sql, u->target, what, imaged));
}

/* Links that the run made; and what of it is not taken back: updates without an image or written over by a later run, and deletes. */
static void
note_rest(void *arg)
{
	DvUndo	   *u = arg;
	DvUndoTable *table = u->table;
	const char *success = table->projection->success_sql;
	Oid			types[7] = {INT8OID, OIDOID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID};
	Datum		values[7] = {Int64GetDatum(u->rc->run), ObjectIdGetDatum(table->plan.staging)};
	bool		links = table->projection->link != NULL;
	int64		later = 0;
	DvSwitch	before;

	dv_spi_begin("dvmig: counting");
	dv_spi_join_whole_tables();
	dv_spi_wait_briefly();
	if (links)
		table->links = count_rows(psprintf("%s x WHERE x.created_run = " INT64_FORMAT " AND x.operation <> 'D'", success, u->target));
	else if (table->before_sql != NULL)
		later = count_rows(psprintf("%s b WHERE b.run = " INT64_FORMAT, table->before_sql, u->target)) - count_rows(images_of(u));
	values[2] = Int64GetDatum(links ? 0 : count_without_image(u, "x.operation = 'U' OR x.message = 'columns sent again'"));
	values[3] = Int64GetDatum(later);
	values[4] = Int64GetDatum(count_rows(psprintf("%s x WHERE x.run = " INT64_FORMAT " AND x.operation = 'D'", success, u->target)));
	values[5] = Int64GetDatum(table->links);
	values[6] = Int64GetDatum(links ? 0 : count_without_image(u, "x.operation = 'I' AND x.pass IN ('deferred', 'files', 'states') AND coalesce(x.message, '') <> 'columns sent again'"));
	before = dv_call_become_extension_owner();
	dv_spi_run("SELECT dvmig._undo_note($1, $2::regclass, $3, $4, $5, $6, $7)", 7, types, values, NULL, SPI_OK_SELECT);
	dv_call_restore(before);
	dv_spi_commit(true);
}

static void
load_table(DvUndo *u, DvUndoTable *table)
{
	Oid			types[2] = {OIDOID};
	Datum		values[2] = {ObjectIdGetDatum(table->plan.staging)};
	DvSwitch	before;
	int			i;

	before = dv_runstate_begin("dvmig: loading the definition");
	table->projection = dv_projection_load(table->plan.staging, "delete", table->plan.deferred,
										   dv_session_api_path(u->rc->session), dv_session_api_url(u->rc->session), u->context);
	dv_spi_run("SELECT nullif(dvmig._id_expression($1::regclass, 's'), 'NULL::uuid')", 1, types, values, NULL, SPI_OK_SELECT);
	table->id_sql = dv_spi_keep(u->context, 0, 1);
	types[1] = INT8OID;
	values[1] = Int64GetDatum(u->target);
	table->nlink_sql = (int) dv_spi_run("SELECT * FROM dvmig._undo_links($1::regclass, $2)", 2, types, values, NULL, SPI_OK_SELECT);
	table->link_sql = MemoryContextAlloc(u->context, sizeof(char *) * (table->nlink_sql + 1));
	for (i = 0; i < table->nlink_sql; i++)
		table->link_sql[i] = dv_spi_keep(u->context, i, 1);
	dv_spi_run("SELECT format('%s.%I', c.relnamespace::regnamespace, c.relname) FROM dvmig.migration_table t JOIN pg_class c ON c.oid = t.before_table"
			   " WHERE t.staging = $1::regclass", 1, types, values, NULL, SPI_OK_SELECT);
	if (SPI_processed > 0)
		table->before_sql = dv_spi_keep(u->context, 0, 1);
	dv_runstate_commit(before, true);
	dv_pace_table_init(&table->pace);
	table->nrelations = -1;
}

static DvUndoTable *
table_of(DvUndo *u, Oid staging)
{
	int			i;

	for (i = 0; i < u->ntables; i++)
		if (u->tables[i].plan.staging == staging)
			return &u->tables[i];
	elog(ERROR, "table %u is none of the undo's", staging);
}

/* Which rows share records with those of the table: asked with the owner's rights, once. */
static void
load_sharing(void *arg)
{
	DvUndo	   *u = arg;
	DvUndoTable *table = u->table;
	Oid			types[3] = {INT8OID, OIDOID, INT8OID};
	Datum		values[3] = {Int64GetDatum(u->rc->run), ObjectIdGetDatum(table->plan.staging), Int64GetDatum(u->target)};
	DvSwitch	before;
	SPITupleTable *found;
	uint64		n;
	uint64		i;

	table->deleted_too = table->restored_too = NULL;
	dv_spi_begin("dvmig: looking for rows that share records");
	dv_spi_join_whole_tables();
	dv_spi_wait_briefly();
	before = dv_call_become_extension_owner();
	n = dv_spi_run("SELECT h.sharing::oid::text, h.kind, h.probe, h.statement FROM dvmig._undo_sharing($1, $2::regclass, $3) h", 3, types, values, NULL, SPI_OK_SELECT);
	dv_call_restore(before);
	found = SPI_tuptable;
	for (i = 0; i < n; i++)
	{
		char	   *texts[4];
		DvUndoSharing *sharing;
		DvUndoSharing **list;
		int			k;

		for (k = 0; k < 4; k++)
			texts[k] = SPI_getvalue(found->vals[i], found->tupdesc, k + 1);
		dv_spi_run(texts[2], 0, NULL, NULL, NULL, SPI_OK_SELECT);
		if (!dv_spi_is_true(0, 1))
			continue;
		sharing = MemoryContextAlloc(u->context, sizeof(DvUndoSharing));
		list = strcmp(texts[1], "deleted") == 0 ? &table->deleted_too : &table->restored_too;
		sharing->sql = MemoryContextStrdup(u->context, texts[3]);
		sharing->next = *list;
		*list = sharing;
		table_of(u, atooid(texts[0]))->shares = true;
	}
	dv_spi_commit(true);
}

static void
load(DvUndo *u)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(u->rc->run)};
	DvSwitch	before;
	int			i;

	before = dv_runstate_begin("dvmig: loading the undo");
	dv_spi_run("SELECT options ->> 'undoes', options ->> 'dry_run', options ->> 'related' FROM dvmig.run_history WHERE run = $1",
			   1, types, values, NULL, SPI_OK_SELECT);
	u->target = strtoll(dv_spi_text(0, 1), NULL, 10);
	u->dry_run = strcmp(dv_spi_text(0, 2), "true") == 0;
	u->skip_related = strcmp(dv_spi_text(0, 3), "skip") == 0;
	u->ntables = (int) dv_spi_run("SELECT t.staging::oid, r.staging FROM dvmig.run_table r"
								  " JOIN dvmig.migration_table t ON t.staging::text = r.staging WHERE r.run = $1 ORDER BY r.step",
								  1, types, values, NULL, SPI_OK_SELECT);
	u->tables = MemoryContextAllocZero(u->context, sizeof(DvUndoTable) * (u->ntables + 1));
	for (i = 0; i < u->ntables; i++)
	{
		u->tables[i].plan.staging = atooid(dv_spi_text(i, 1));
		u->tables[i].plan.name = dv_spi_keep(u->context, i, 2);
	}
	dv_runstate_commit(before, true);
	MemoryContextSwitchTo(u->context);
	for (i = 0; i < u->ntables; i++)
	{
		u->tables[i].plan.deferred = PointerGetDatum(construct_empty_array(TEXTOID));
		u->table = &u->tables[i];
		load_table(u, u->table);
		if (u->table->before_sql != NULL)
			dv_asker_patiently(u->rc, u->context, load_members, u);
		dv_asker_patiently(u->rc, u->context, note_rest, u);
		if (u->table->projection->link == NULL)
			dv_asker_patiently(u->rc, u->context, load_sharing, u);
	}
	MemoryContextSwitchTo(u->context);
}

static void
collect(DvUndo *u, DvUndoChunk *chunk)
{
	chunk->table->created += chunk->n;
	dv_undo_call(u, psprintf("SELECT 0::bigint FROM dvmig._undo_collect($1, %u::regclass, $2) WHERE $3 IS NOT NULL", chunk->table->plan.staging),
				 chunk->ids, chunk->n, NULL);
}

/* Figures of all that was looked at; false where the undo is refused. */
static bool
count(DvUndo *u)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(u->rc->run)};
	DvSwitch	before;
	char	   *why;

	before = dv_runstate_begin("dvmig: counting");
	dv_spi_run("SELECT dvmig._undo_count($1)", 1, types, values, NULL, SPI_OK_SELECT);
	why = dv_spi_text(0, 1);
	if (why != NULL)
		dv_asker_fail(&u->asker, why);
	dv_runstate_commit(before, true);
	return !u->rc->failed;
}

/* Restores come before the deletes: a lookup must not point at what goes. */
static void
take_back(DvUndo *u)
{
	dv_undo_hold(u);
	dv_undo_links(u);
	if (dv_undo_restore(u) && !u->rc->stopping)
	{
		dv_undo_look(u);
		if (!u->rc->stopping && !count(u))
			return;
	}
	if (!u->rc->stopping)
		dv_undo_delete(u);
}

void
dv_undo_run(DvRunContext *rc)
{
	MemoryContext context = AllocSetContextCreate(rc->context, "dvmig undo", ALLOCSET_DEFAULT_SIZES);
	DvUndo	   *u = MemoryContextAllocZero(context, sizeof(DvUndo));
	int			i;

	u->rc = rc;
	u->context = context;
	dv_walk_init(&u->walk, context);
	MemoryContextSwitchTo(context);
	load(u);
	dv_asker_init(&u->asker, rc, NULL, u);
	for (i = 0; i < u->ntables && !rc->stopping; i++)
		dv_undo_walk(u, &u->tables[i], DV_UNDO_SUCCESSES, DV_UNDO_ERRORS, collect);
	/* first what will point elsewhere when it is restored */
	if (!rc->stopping)
		dv_undo_look_images(u);
	if (!rc->stopping)
		dv_undo_look(u);
	if (!rc->stopping && count(u) && !u->dry_run)
		take_back(u);
	dv_undo_call(u, "SELECT 0::bigint FROM dvmig._undo_end($1) WHERE $2 IS NOT NULL AND $3 IS NOT NULL", NULL, 0, NULL);
	MemoryContextSwitchTo(rc->context);
	MemoryContextDelete(context);
}

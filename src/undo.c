/*
 * undo.c - deleting what a run created: the phases, and the walk they share
 *
 * Collect all ids, look at every record, then delete: children first in each
 * phase. Nothing is deleted before all has been looked at.
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
#include "spi.h"
#include "undo.h"

/* Outcome rows of a chunk: as many ids as one query asks for. */
#define CHUNK_ROWS	400

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

	dv_spi_begin("dvmig: undo");
	dv_spi_no_timeouts();
	before = dv_call_become_extension_owner();
	types[1] = get_array_type(UUIDOID);
	values[0] = Int64GetDatum(u->rc->run);
	values[1] = dv_undo_id_array(ids, n);
	values[2] = CStringGetTextDatum(text ? text : "");
	dv_spi_run(sql, 3, types, values, NULL, SPI_OK_SELECT);
	result = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	dv_call_restore(before);
	dv_spi_commit(true);
	return isnull ? 0 : result;
}

/* ---------------------------------------------------------------- the walk */

void
dv_undo_release(DvUndoChunk *chunk)
{
	if (--chunk->asks <= 0)
		MemoryContextDelete(chunk->context);
}

static char *
chunk_query(DvUndo *u)
{
	const DvProjection *p = u->table->projection;
	StringInfoData sql;
	StringInfoData keys;
	int			i;

	initStringInfo(&keys);
	for (i = 0; i < p->nkeys; i++)
		appendStringInfo(&keys, "%sx.%s", i ? ", " : "", p->keys[i].column);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT x.dataverse_id, %s FROM %s x WHERE x.created_run = " INT64_FORMAT " AND x.dataverse_id IS NOT NULL%s",
					 keys.data, u->outcome == 0 ? p->success_sql : p->error_sql, u->target,
					 u->outcome == 0 ? " AND x.operation <> 'D'" : "");
	if (u->last_keys != NULL)
	{
		appendStringInfo(&sql, " AND (%s) > (", keys.data);
		for (i = 0; i < p->nkeys; i++)
			appendStringInfo(&sql, "%s$%d", i ? ", " : "", i + 1);
		appendStringInfoChar(&sql, ')');
	}
	appendStringInfo(&sql, " ORDER BY %s LIMIT %d", keys.data, CHUNK_ROWS);
	return sql.data;
}

static Datum *
copy_keys(DvUndo *u, HeapTuple tuple, MemoryContext context)
{
	const DvProjection *p = u->table->projection;
	MemoryContext old = MemoryContextSwitchTo(context);
	Datum	   *keys = palloc(sizeof(Datum) * p->nkeys);
	bool		isnull;
	int			i;

	for (i = 0; i < p->nkeys; i++)
		keys[i] = datumCopy(SPI_getbinval(tuple, SPI_tuptable->tupdesc, i + 2, &isnull), p->keys[i].byval, p->keys[i].len);
	MemoryContextSwitchTo(old);
	return keys;
}

static DvUndoChunk *
take_result(DvUndo *u)
{
	MemoryContext context = AllocSetContextCreate(u->context, "dvmig undo chunk", ALLOCSET_DEFAULT_SIZES);
	DvUndoChunk *chunk = MemoryContextAllocZero(context, sizeof(DvUndoChunk));
	int			i;

	chunk->context = context;
	chunk->table = u->table;
	chunk->n = (int) SPI_processed;
	chunk->ids = MemoryContextAlloc(context, sizeof(pg_uuid_t) * chunk->n);
	chunk->keys = MemoryContextAlloc(context, sizeof(Datum *) * chunk->n);
	chunk->seen = MemoryContextAllocZero(context, sizeof(bool) * chunk->n);
	for (i = 0; i < chunk->n; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		bool		isnull;

		chunk->ids[i] = *DatumGetUUIDP(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 1, &isnull));
		chunk->keys[i] = copy_keys(u, tuple, context);
	}
	MemoryContextReset(u->key_context);
	u->last_keys = copy_keys(u, SPI_tuptable->vals[chunk->n - 1], u->key_context);
	return chunk;
}

/* The next outcome rows of records that the run created, with the owner's rights. */
static DvUndoChunk *
read_chunk(DvUndo *u)
{
	while (u->outcome < 2 && !u->rc->stopping)
	{
		const DvProjection *p = u->table->projection;
		Oid			types[INDEX_MAX_KEYS];
		Datum		values[INDEX_MAX_KEYS];
		DvUndoChunk *chunk = NULL;
		int			i;

		for (i = 0; u->last_keys != NULL && i < p->nkeys; i++)
		{
			types[i] = p->keys[i].type;
			values[i] = u->last_keys[i];
		}
		dv_spi_begin("dvmig: reading what a run created");
		dv_spi_follow_indexes();
		SPI_execute_with_args(chunk_query(u), u->last_keys ? p->nkeys : 0, types, values, NULL, true, 0);
		if (SPI_processed > 0)
			chunk = take_result(u);
		dv_spi_commit(true);
		if (chunk != NULL)
			return chunk;
		u->outcome++;
		u->last_keys = NULL;
	}
	return NULL;
}

void
dv_undo_walk(DvUndo *u, DvUndoTable *table, void (*begin) (DvUndo *u, DvUndoChunk *chunk))
{
	MemoryContext scratch = AllocSetContextCreate(u->context, "dvmig undo loop", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);

	u->table = table;
	u->outcome = 0;
	u->last_keys = NULL;
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
		if (!waits && (u->outcome == 2 || u->rc->stopping))
			break;
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}

/* ---------------------------------------------------------------- the phases */

static void
load_table(DvUndo *u, DvUndoTable *table)
{
	Oid			types[2] = {OIDOID};
	Datum		values[2] = {ObjectIdGetDatum(table->plan.staging)};
	DvSwitch	before;
	char	   *id_sql;
	int			i;

	dv_spi_begin("dvmig: loading the definition");
	dv_spi_no_timeouts();
	before = dv_call_become_extension_owner();
	table->projection = dv_projection_load(table->plan.staging, "delete", table->plan.deferred,
										   dv_session_api_path(u->rc->session), dv_session_api_url(u->rc->session), u->context);
	dv_spi_run("SELECT nullif(dvmig._id_expression($1::regclass, 's'), 'NULL::uuid')", 1, types, values, NULL, SPI_OK_SELECT);
	id_sql = dv_spi_text(0, 1);
	table->id_sql = id_sql ? MemoryContextStrdup(u->context, id_sql) : NULL;
	types[1] = INT8OID;
	values[1] = Int64GetDatum(u->target);
	table->nlink_sql = (int) dv_spi_run("SELECT * FROM dvmig._undo_links($1::regclass, $2)", 2, types, values, NULL, SPI_OK_SELECT);
	table->link_sql = MemoryContextAlloc(u->context, sizeof(char *) * (table->nlink_sql + 1));
	for (i = 0; i < table->nlink_sql; i++)
		table->link_sql[i] = MemoryContextStrdup(u->context, dv_spi_text(i, 1));
	dv_call_restore(before);
	dv_spi_commit(true);
	dv_pace_table_init(&table->pace);
	table->nrelations = -1;
}

static void
load(DvUndo *u)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(u->rc->run)};
	DvSwitch	before;
	int			i;

	dv_spi_begin("dvmig: loading the undo");
	dv_spi_no_timeouts();
	before = dv_call_become_extension_owner();
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
		u->tables[i].plan.name = MemoryContextStrdup(u->context, dv_spi_text(i, 2));
	}
	dv_call_restore(before);
	dv_spi_commit(true);
	MemoryContextSwitchTo(u->context);
	for (i = 0; i < u->ntables; i++)
	{
		u->tables[i].plan.deferred = PointerGetDatum(construct_empty_array(TEXTOID));
		load_table(u, &u->tables[i]);
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

	dv_spi_begin("dvmig: counting");
	dv_spi_no_timeouts();
	before = dv_call_become_extension_owner();
	dv_spi_run("SELECT dvmig._undo_count($1)", 1, types, values, NULL, SPI_OK_SELECT);
	why = dv_spi_text(0, 1);
	if (why != NULL)
		dv_asker_fail(&u->asker, why);
	dv_call_restore(before);
	dv_spi_commit(true);
	return !u->rc->failed;
}

void
dv_undo_run(DvRunContext *rc)
{
	MemoryContext context = AllocSetContextCreate(rc->context, "dvmig undo", ALLOCSET_DEFAULT_SIZES);
	DvUndo	   *u = MemoryContextAllocZero(context, sizeof(DvUndo));
	int			i;

	u->rc = rc;
	u->context = context;
	u->key_context = AllocSetContextCreate(context, "dvmig last key", ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(context);
	load(u);
	dv_asker_init(&u->asker, rc, NULL, u);
	for (i = 0; i < u->ntables && !rc->stopping; i++)
		dv_undo_walk(u, &u->tables[i], collect);
	if (!rc->stopping)
		dv_undo_look(u);
	if (!rc->stopping && count(u) && !u->dry_run)
		dv_undo_delete(u);
	dv_undo_call(u, "SELECT 0::bigint FROM dvmig._undo_end($1) WHERE $2 IS NOT NULL AND $3 IS NOT NULL", NULL, 0, NULL);
	MemoryContextSwitchTo(rc->context);
	MemoryContextDelete(context);
}

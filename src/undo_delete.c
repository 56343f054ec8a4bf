/*
 * undo_delete.c - deleting what is to be deleted, and taking its outcome back
 *
 * A delete may be repeated: a record that is not there is deleted. Outcomes and
 * flags are written after each answer, with the rights of the migration's owner.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "answer.h"
#include "call.h"
#include "encode.h"
#include "keys.h"
#include "spi.h"
#include "undo.h"

/* Tries of one record that cannot be deleted for a passing reason. */
#define ROW_TRIES			8

/* Records of one $batch. */
typedef struct DeleteAsk
{
	DvUndoChunk *chunk;
	int		   *rows;			/* indexes in the chunk */
	int			n;
	int			tries;
} DeleteAsk;

static void
ask_delete(DvUndo *u, DvUndoChunk *chunk, const int *rows, int n, int tries)
{
	DeleteAsk  *part = MemoryContextAllocZero(chunk->context, sizeof(DeleteAsk));
	DvAsk	   *ask = dv_asker_new(&u->asker, "POST", part);
	DvWireRow  *wire = palloc0(sizeof(DvWireRow) * n);
	const DvWireRow **list = palloc(sizeof(DvWireRow *) * n);
	int			i;

	part->chunk = chunk;
	part->rows = MemoryContextAlloc(chunk->context, sizeof(int) * n);
	memcpy(part->rows, rows, sizeof(int) * n);
	part->n = n;
	part->tries = tries;
	for (i = 0; i < n; i++)
	{
		wire[i].op = 'D';
		dv_source_format_id(&chunk->ids[rows[i]], wire[i].id);
		list[i] = &wire[i];
	}
	(void) dv_wire_batch(&ask->body, &chunk->table->projection->wire, dv_asker_batch(ask), list, n);
	if (tries > 0)
		ask->not_before = dv_answer_backoff(tries);
	chunk->asks++;
	dv_asker_queue(&u->asker, ask);
}

/* Those of the chunk that are to be deleted, in requests that the table takes. */
static void
begin_delete(DvUndo *u, DvUndoChunk *chunk)
{
	Oid			types[2] = {INT8OID, InvalidOid};
	Datum		values[2];
	int		   *rows = palloc(sizeof(int) * (chunk->n + 1));
	int			n = 0;
	Datum	   *doable;
	int			ndoable;
	bool		isnull;
	DvSwitch	before;
	int			i;
	int			k;

	dv_spi_begin("dvmig: undo");
	dv_spi_follow_indexes();
	dv_spi_no_timeouts();
	before = dv_call_become_extension_owner();
	types[1] = get_array_type(UUIDOID);
	values[0] = Int64GetDatum(u->rc->run);
	values[1] = dv_undo_id_array(chunk->ids, chunk->n);
	dv_spi_run("SELECT dvmig._undo_doable($1, $2)", 2, types, values, NULL, SPI_OK_SELECT);
	deconstruct_array(DatumGetArrayTypeP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)),
					  UUIDOID, UUID_LEN, false, TYPALIGN_CHAR, &doable, NULL, &ndoable);
	for (i = 0; i < chunk->n; i++)
		for (k = 0; k < ndoable; k++)
			if (memcmp(DatumGetUUIDP(doable[k]), &chunk->ids[i], UUID_LEN) == 0)
			{
				rows[n++] = i;
				break;
			}
	dv_call_restore(before);
	dv_spi_commit(true);
	for (i = 0; i < n; i += chunk->table->pace.each_rows)
		ask_delete(u, chunk, rows + i, Min(chunk->table->pace.each_rows, n - i), 0);
}

/* ---------------------------------------------------------------- recording */

void
dv_undo_key_arrays(DvArrays *a, const DvUndoChunk *chunk, const int *rows, int n)
{
	Datum	  **keys = palloc(sizeof(Datum *) * (n + 1));
	int			i;

	for (i = 0; i < n; i++)
		keys[i] = chunk->keys[rows[i]];
	dv_keys_arrays(a, chunk->table->projection, keys, n);
}

void
dv_undo_sharing(const DvUndoSharing *sharing, const DvUndoChunk *chunk, const int *rows, int n)
{
	Oid			types[1];
	Datum		values[1];
	pg_uuid_t  *ids = palloc(sizeof(pg_uuid_t) * (n + 1));
	int			i;

	if (sharing == NULL)
		return;
	for (i = 0; i < n; i++)
		ids[i] = chunk->ids[rows[i]];
	types[0] = get_array_type(UUIDOID);
	values[0] = dv_undo_id_array(ids, n);
	for (; sharing != NULL; sharing = sharing->next)
		dv_spi_run(sharing->sql, 1, types, values, NULL, SPI_OK_UPDATE);
}

/*
 * Outcome rows leave, rows are unprocessed again. An id that was derived, or
 * that Dataverse made, leaves with them; one that was given stays. What was
 * flagged as an update has nothing to be updated any more.
 */
static void
take_back(DvUndo *u, DvUndoTable *table, DvUndoChunk *chunk, const int *rows, int n)
{
	const DvProjection *p = table->projection;
	const char *keys;
	DvArrays	a;

	(void) u;
	dv_spi_begin("dvmig: taking outcomes back");
	dv_spi_follow_indexes();
	dv_spi_wait_briefly();
	dv_undo_key_arrays(&a, chunk, rows, n);
	keys = dv_keys_unnest(p, NULL);
	dv_spi_run(psprintf("DELETE FROM %s x USING %s WHERE %s", p->success_sql, keys, dv_keys_match(p, "x", "u")),
			   a.count, a.types, a.values, NULL, SPI_OK_DELETE);
	dv_spi_run(psprintf("DELETE FROM %s x USING %s WHERE %s", p->error_sql, keys, dv_keys_match(p, "x", "u")),
			   a.count, a.types, a.values, NULL, SPI_OK_DELETE);
	dv_spi_run(psprintf("UPDATE %s s SET processing_flag = 'U', action_flag = CASE s.action_flag WHEN 'U' THEN 'I' ELSE s.action_flag END,"
						" dataverse_id = CASE WHEN %s THEN s.dataverse_id END FROM %s WHERE %s AND s.processing_flag <> 'U'",
						p->staging_sql, table->id_sql ? psprintf("s.dataverse_id IS DISTINCT FROM (%s)", table->id_sql) : "false",
						keys, dv_keys_match(p, "s", "u")),
			   a.count, a.types, a.values, NULL, SPI_OK_UPDATE);
	dv_undo_sharing(table->deleted_too, chunk, rows, n);
	dv_spi_commit(false);
}

/* Links whose record goes, to be made again with it. */
static void
take_links_back(DvUndo *u, DvUndoTable *table, DvUndoChunk *chunk, const int *rows, int n)
{
	int			i;

	(void) u;
	(void) chunk;
	(void) rows;
	(void) n;

	dv_spi_begin("dvmig: taking links back");
	dv_spi_wait_briefly();
	for (i = 0; i < table->nlink_sql; i++)
		dv_spi_run(table->link_sql[i], 0, NULL, NULL, NULL, SPI_OK_DELETE);
	dv_spi_commit(false);
}

void
dv_undo_patiently(DvUndo *u, DvUndoTable *table, DvUndoChunk *chunk, const int *rows, int n,
				  void (*record) (DvUndo *u, DvUndoTable *table, DvUndoChunk *chunk, const int *rows, int n))
{
	TimestampTz began = GetCurrentTimestamp();
	MemoryContext context = CurrentMemoryContext;

	for (;;)
	{
		ErrorData  *volatile error = NULL;

		PG_TRY();
		{
			record(u, table, chunk, rows, n);
		}
		PG_CATCH();
		{
			error = dv_spi_abort(u->context);
		}
		PG_END_TRY();
		MemoryContextSwitchTo(context);
		if (error == NULL)
			return;
		dv_asker_wait_out(u->rc, error, began);
	}
}

/* ---------------------------------------------------------------- answers */

static void
note_failure(DvUndo *u, DvUndoTable *table, const pg_uuid_t *id, const DvVerdict *v)
{
	/* without the service's text, which may quote the record */
	if (table->failed++ == 0)
		snprintf(table->problem, sizeof(table->problem), "records could not be deleted: %s%s%s (HTTP status %d)",
				 v->error_class, v->code[0] ? " " : "", v->code, v->http_status);
	(void) dv_undo_call(u, "SELECT dvmig._undo_mark($1, $2, $3)", id, 1, "failed");
}

void
dv_undo_store(DvUndo *u, DvUndoTable *table, bool ended)
{
	Oid			types[7] = {INT8OID, OIDOID, INT8OID, INT8OID, BOOLOID, TEXTOID, INT8OID};
	Datum		values[7];
	char		nulls[8] = "       ";
	DvSwitch	before;

	dv_spi_begin("dvmig: undo");
	dv_spi_no_timeouts();
	before = dv_call_become_extension_owner();
	values[0] = Int64GetDatum(u->rc->run);
	values[1] = ObjectIdGetDatum(table->plan.staging);
	values[2] = Int64GetDatum(table->deleted);
	values[3] = Int64GetDatum(table->failed);
	values[4] = BoolGetDatum(ended);
	values[5] = CStringGetTextDatum(table->problem);
	values[6] = Int64GetDatum(table->restored);
	nulls[5] = table->problem[0] ? ' ' : 'n';
	dv_spi_run("SELECT dvmig._undo_store($1, $2::regclass, $3, $4, $5, $6, $7)", 7, types, values, nulls, SPI_OK_SELECT);
	dv_call_restore(before);
	dv_spi_commit(true);
}

static void
note_left(DvUndo *u, const DvUndoTable *table, const char *one, const char *many, int64 n, bool changed)
{
	if (n > 0)
		(void) dv_undo_call(u, psprintf("SELECT 0::bigint FROM dvmig._undo_left($1, %u::regclass, %s, %s, " INT64_FORMAT ", %s) WHERE $2 IS NOT NULL AND $3 IS NOT NULL",
										table->plan.staging, quote_literal_cstr(one), quote_literal_cstr(many), n, changed ? "true" : "false"), NULL, 0, NULL);
}

void
dv_undo_changed_meanwhile(DvUndo *u, const DvUndoTable *table, int64 n)
{
	note_left(u, table, "record was changed by another user while the undo was at work, and is",
			  "records were changed by another user while the undo was at work, and are", n, true);
}

void
dv_undo_left(DvUndo *u, const DvUndoTable *table, const char *one, const char *many, int64 n)
{
	note_left(u, table, one, many, n, false);
}

static void
handle_delete(DvAsker *asker, DvAsk *ask, const DvHttpReply *reply)
{
	DvUndo	   *u = asker->arg;
	DeleteAsk  *part = ask->arg;
	DvUndoChunk *chunk = part->chunk;
	DvWireReply w = dv_answer_wire_reply(reply);
	DvWireRow  *wire = palloc0(sizeof(DvWireRow) * part->n);
	const DvWireRow **list = palloc(sizeof(DvWireRow *) * part->n);
	DvVerdict  *v = palloc0(sizeof(DvVerdict) * part->n);
	int		   *done = palloc(sizeof(int) * part->n);
	int		   *again = palloc(sizeof(int) * part->n);
	int			ndone = 0;
	int			nagain = 0;
	int			i;

	for (i = 0; i < part->n; i++)
	{
		wire[i].op = 'D';
		dv_source_format_id(&chunk->ids[part->rows[i]], wire[i].id);
		list[i] = &wire[i];
	}
	dv_wire_batch_reply(&w, list, part->n, v, NULL);
	for (i = 0; i < part->n && !u->rc->failed; i++)
	{
		bool		passing = v[i].kind == DV_WAIT || v[i].kind == DV_RETRY || v[i].kind == DV_SETTLE || v[i].kind == DV_SHRINK;

		if (v[i].kind == DV_DONE || v[i].kind == DV_GONE)
			done[ndone++] = part->rows[i];
		else if (v[i].kind == DV_FAIL_RUN)
			dv_asker_fail(asker, v[i].message);
		else if (passing && part->tries < ROW_TRIES)
			again[nagain++] = part->rows[i];
		else
			note_failure(u, chunk->table, &chunk->ids[part->rows[i]], &v[i]);
	}
	if (reply->status == 200)
		dv_pace_table_each(&chunk->table->pace, part->n, reply->seconds);
	if (ndone > 0)
		dv_undo_patiently(u, chunk->table, chunk, done, ndone, take_back);
	chunk->table->deleted += ndone;
	u->rc->total.succeeded += ndone;
	u->rc->total.rows_sent += part->n;
	dv_undo_store(u, chunk->table, false);
	/* what was too much in one request goes in two */
	if (nagain > 1 && v[0].kind == DV_SHRINK)
	{
		ask_delete(u, chunk, again, nagain / 2, part->tries);
		ask_delete(u, chunk, again + nagain / 2, nagain - nagain / 2, part->tries);
	}
	else if (nagain > 0)
		ask_delete(u, chunk, again, nagain, part->tries + 1);
	dv_undo_release(chunk);
}

static void
hold(DvUndo *u, DvUndoTable *table)
{
	(void) dv_undo_call(u, psprintf("SELECT 0::bigint FROM dvmig._undo_hold($1, %u::regclass, %s) WHERE $2 IS NOT NULL AND $3 IS NOT NULL",
									table->plan.staging, table->shares ? "true" : "false"),
						NULL, 0, NULL);
}

void
dv_undo_hold(DvUndo *u)
{
	int			i;

	/* all of them before the first change: a job that starts meanwhile must not load children again */
	for (i = 0; i < u->ntables; i++)
		hold(u, &u->tables[i]);
}

void
dv_undo_delete(DvUndo *u)
{
	int			i;

	u->asker.answer = handle_delete;
	for (i = 0; i < u->ntables && !u->rc->stopping; i++)
		if (u->tables[i].nlink_sql > 0)
			dv_undo_patiently(u, &u->tables[i], NULL, NULL, 0, take_links_back);
	for (i = 0; i < u->ntables && !u->rc->stopping; i++)
	{
		if (u->tables[i].projection->link == NULL)
			dv_undo_walk(u, &u->tables[i], DV_UNDO_SUCCESSES, DV_UNDO_ERRORS, begin_delete);
		if (u->rc->stopping)
			break;
		dv_undo_store(u, &u->tables[i], true);
		u->rc->total.failed += u->tables[i].failed;
	}
}

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
#include "encode.h"
#include "keys.h"
#include "spi.h"
#include "undo.h"

/* Tries of one record that cannot be deleted for a passing reason. */
#define ROW_TRIES			8

/* Records of one query or $batch. */
typedef struct DeleteAsk
{
	DvUndoChunk *chunk;
	int		   *rows;			/* indexes in the chunk */
	int			n;
	int			tries;
	bool		looks;			/* a query of who wrote them last, not the $batch that deletes them */
} DeleteAsk;

static DvAsk *
new_ask(DvUndo *u, const char *method, DvUndoChunk *chunk, const int *rows, int n, int tries)
{
	DeleteAsk  *part = MemoryContextAllocZero(chunk->context, sizeof(DeleteAsk));
	DvAsk	   *ask = dv_asker_new(&u->asker, method, part);

	part->chunk = chunk;
	part->rows = MemoryContextAlloc(chunk->context, sizeof(int) * n);
	memcpy(part->rows, rows, sizeof(int) * n);
	part->n = n;
	part->tries = tries;
	if (tries > 0)
		ask->not_before = dv_answer_backoff(tries);
	chunk->asks++;
	return ask;
}

static const DvWireRow **
wire_rows(const DeleteAsk *part)
{
	DvWireRow  *wire = palloc0(sizeof(DvWireRow) * part->n);
	const DvWireRow **list = palloc(sizeof(DvWireRow *) * part->n);
	int			i;

	for (i = 0; i < part->n; i++)
	{
		wire[i].op = 'D';
		dv_source_format_id(&part->chunk->ids[part->rows[i]], wire[i].id);
		wire[i].etag = part->chunk->etags[part->rows[i]];
		list[i] = &wire[i];
	}
	return list;
}

static void
ask_delete(DvUndo *u, DvUndoChunk *chunk, const int *rows, int n, int tries)
{
	DvAsk	   *ask = new_ask(u, "POST", chunk, rows, n, tries);

	(void) dv_wire_batch(&ask->body, &chunk->table->projection->wire, dv_asker_batch(ask), wire_rows(ask->arg), n);
	dv_asker_queue(&u->asker, ask);
}

/* Once more just before they are deleted: has a user written them, and which version of them is there? */
static void
ask_versions(DvUndo *u, DvUndoChunk *chunk, const int *rows, int n, int tries)
{
	DvWireTable table = chunk->table->projection->wire;
	DvAsk	   *ask = new_ask(u, "GET", chunk, rows, n, tries);

	((DeleteAsk *) ask->arg)->looks = true;
	table.with_state = table.with_creator = false;
	table.also = "_createdby_value";
	(void) dv_wire_find(&ask->path, &table, wire_rows(ask->arg), n);
	dv_asker_queue(&u->asker, ask);
}

/* Those of the chunk that are to be deleted. */
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

	before = dv_runstate_begin("dvmig: undo");
	dv_spi_follow_indexes();
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
	dv_runstate_commit(before, true);
	chunk->etags = MemoryContextAllocZero(chunk->context, sizeof(char *) * chunk->n);
	chunk->was_gone = MemoryContextAllocZero(chunk->context, chunk->n);
	if (n > 0)
		ask_versions(u, chunk, rows, n, 0);
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

/* What dv_undo_patiently() was called with. */
typedef struct Recording
{
	DvUndo	   *u;
	DvUndoTable *table;
	DvUndoChunk *chunk;
	const int  *rows;
	int			n;
	void		(*record) (DvUndo *u, DvUndoTable *table, DvUndoChunk *chunk, const int *rows, int n);
} Recording;

static void
do_record(void *arg)
{
	const Recording *r = arg;

	r->record(r->u, r->table, r->chunk, r->rows, r->n);
}

void
dv_undo_patiently(DvUndo *u, DvUndoTable *table, DvUndoChunk *chunk, const int *rows, int n,
				  void (*record) (DvUndo *u, DvUndoTable *table, DvUndoChunk *chunk, const int *rows, int n))
{
	Recording	r = {u, table, chunk, rows, n, record};

	dv_asker_patiently(u->rc, u->context, do_record, &r);
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

static void
store(DvUndo *u, DvUndoTable *table, bool ended)
{
	Oid			types[7] = {INT8OID, OIDOID, INT8OID, INT8OID, BOOLOID, TEXTOID, INT8OID};
	Datum		values[7];
	char		nulls[8] = "       ";
	DvSwitch	before;

	before = dv_runstate_begin("dvmig: undo");
	values[0] = Int64GetDatum(u->rc->run);
	values[1] = ObjectIdGetDatum(table->plan.staging);
	values[2] = Int64GetDatum(table->deleted);
	values[3] = Int64GetDatum(table->failed);
	values[4] = BoolGetDatum(ended);
	values[5] = CStringGetTextDatum(table->problem);
	values[6] = Int64GetDatum(table->restored);
	nulls[5] = table->problem[0] ? ' ' : 'n';
	dv_spi_run("SELECT dvmig._undo_store($1, $2::regclass, $3, $4, $5, $6, $7)", 7, types, values, nulls, SPI_OK_SELECT);
	dv_runstate_commit(before, true);
}

bool
dv_undo_is_passing(const DvVerdict *v)
{
	return v->kind == DV_WAIT || v->kind == DV_RETRY || v->kind == DV_SETTLE || v->kind == DV_SHRINK;
}

void
dv_undo_answered(DvUndo *u, DvUndoTable *table, const DvHttpReply *reply, int n, int ndone)
{
	if (reply->status == 200)
		dv_pace_table_each(&table->pace, n, reply->seconds);
	u->rc->total.succeeded += ndone;
	u->rc->total.rows_sent += n;
	store(u, table, false);
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

/* They stay, and so does what they belong to. */
static void
leave_changed(DvUndo *u, DvUndoTable *table, const pg_uuid_t *ids, int n)
{
	int64		marked;

	if (n == 0)
		return;
	marked = dv_undo_call(u, "SELECT dvmig._undo_mark($1, $2, $3)", ids, n, "changed");
	(void) dv_undo_call(u, "SELECT dvmig._undo_spread($1) WHERE $2 IS NOT NULL AND $3 IS NOT NULL", NULL, 0, NULL);
	dv_undo_changed_meanwhile(u, table, marked);
}

/* False where the page was not understood. */
static bool
take_versions(DvUndo *u, const DeleteAsk *part, const DvHttpReply *reply)
{
	DvUndoChunk *chunk = part->chunk;
	pg_uuid_t  *changed = palloc(sizeof(pg_uuid_t) * (part->n + 1));
	bool	   *stays = palloc0(sizeof(bool) * part->n);
	bool	   *there = palloc0(sizeof(bool) * part->n);
	int		   *rows = palloc(sizeof(int) * part->n);
	int			nchanged = 0;
	int			n = 0;
	DvPage		page;
	DvSlice		record;
	int			i;

	if (!dv_page_open(&page, reply->body.data, reply->body.len) || page.next_link.p != NULL)
		return false;
	while (dv_page_record(&page, &record))
	{
		pg_uuid_t	id;

		if (!dv_page_uuid(dv_page_find(record, chunk->table->projection->wire.primary_id), id.data))
			return false;
		for (i = 0; i < part->n && memcmp(&chunk->ids[part->rows[i]], &id, sizeof(id)) != 0; i++)
			;
		if (i == part->n || stays[i])
			continue;
		if ((stays[i] = dv_undo_is_changed(u, record, false)))
			changed[nchanged++] = id;
		else
			chunk->etags[part->rows[i]] = chunk->table->without_etag ? NULL : dv_asker_etag(dv_page_find(record, "@odata.etag"), chunk->context);
		there[i] = true;
	}
	for (i = 0; i < part->n && part->tries == 0; i++)
		chunk->was_gone[part->rows[i]] = !there[i];
	leave_changed(u, chunk->table, changed, nchanged);
	for (i = 0; i < part->n; i++)
		if (!stays[i])
			rows[n++] = part->rows[i];
	for (i = 0; i < n; i += chunk->table->pace.each_rows)
		ask_delete(u, chunk, rows + i, Min(chunk->table->pace.each_rows, n - i), part->tries);
	return true;
}

static void
handle_versions(DvUndo *u, DvAsk *ask, const DvHttpReply *reply)
{
	DeleteAsk  *part = ask->arg;

	if (reply->status != 200)
		dv_asker_fail_answer(&u->asker, reply);
	else if (part->n > 1 && dv_undo_has_more(reply))
	{
		ask_versions(u, part->chunk, part->rows, part->n / 2, part->tries);
		ask_versions(u, part->chunk, part->rows + part->n / 2, part->n - part->n / 2, part->tries);
		dv_undo_release(part->chunk);
	}
	else if (take_versions(u, part, reply))
		dv_undo_release(part->chunk);
	else
		dv_asker_not_understood(&u->asker, ask, "the answer to a query was not understood");
}

/* What became of the records of a $batch, by their indexes in the chunk. */
typedef struct Judged
{
	int			ndone;
	int			nagain;
	int			nstale;			/* another version is there by now */
	int		   *done;
	int		   *again;
	int		   *stale;
} Judged;

static void
judge(DvUndo *u, const DeleteAsk *part, const DvVerdict *v, Judged *j)
{
	DvUndoTable *table = part->chunk->table;
	int			i;

	memset(j, 0, sizeof(Judged));
	j->done = palloc(sizeof(int) * part->n);
	j->again = palloc(sizeof(int) * part->n);
	j->stale = palloc(sizeof(int) * part->n);
	for (i = 0; i < part->n && !u->rc->failed; i++)
	{
		bool		passing = dv_undo_is_passing(&v[i]);
		bool		no_conditions = pg_strcasecmp(v[i].code, DV_CODE_NO_CONDITIONS) == 0;

		table->without_etag |= no_conditions;
		if (v[i].kind == DV_DONE || v[i].kind == DV_GONE)
			j->done[j->ndone++] = part->rows[i];
		else if (v[i].kind == DV_FAIL_RUN)
			dv_asker_fail(&u->asker, dv_answer_told(&v[i]));
		else if ((no_conditions || v[i].http_status == 412) && part->tries < ROW_TRIES)
			j->stale[j->nstale++] = part->rows[i];
		else if (passing && part->tries < ROW_TRIES)
			j->again[j->nagain++] = part->rows[i];
		else
			note_failure(u, table, &part->chunk->ids[part->rows[i]], &v[i]);
	}
}

/*
 * What was not there any more when it was to be deleted counts as gone, not as
 * deleted: a user, or Dataverse along with another of ours, has deleted it since
 * it was looked at.
 */
static void
count_deleted(DvUndo *u, DvUndoChunk *chunk, const int *rows, int n)
{
	pg_uuid_t  *gone = palloc(sizeof(pg_uuid_t) * (n + 1));
	int			ngone = 0;
	int			i;

	for (i = 0; i < n; i++)
		if (chunk->was_gone[rows[i]])
			gone[ngone++] = chunk->ids[rows[i]];
	chunk->table->deleted += n - ngone;
	if (ngone > 0)
		(void) dv_undo_call(u, "SELECT dvmig._undo_mark($1, $2, $3)", gone, ngone, "gone");
	pfree(gone);
}

static void
handle_deleted(DvUndo *u, DvAsk *ask, const DvHttpReply *reply)
{
	DeleteAsk  *part = ask->arg;
	DvUndoChunk *chunk = part->chunk;
	DvWireReply w = dv_answer_wire_reply(reply);
	DvVerdict  *v = palloc0(sizeof(DvVerdict) * part->n);
	Judged		j;

	dv_wire_batch_reply(&w, wire_rows(part), part->n, v, NULL);
	judge(u, part, v, &j);
	if (j.ndone > 0)
		dv_undo_patiently(u, chunk->table, chunk, j.done, j.ndone, take_back);
	count_deleted(u, chunk, j.done, j.ndone);
	dv_undo_answered(u, chunk->table, reply, part->n, j.ndone);
	/* what was too much in one request goes in two */
	if (j.nagain > 1 && v[0].kind == DV_SHRINK)
	{
		ask_delete(u, chunk, j.again, j.nagain / 2, part->tries);
		ask_delete(u, chunk, j.again + j.nagain / 2, j.nagain - j.nagain / 2, part->tries);
	}
	else if (j.nagain > 0)
		ask_delete(u, chunk, j.again, j.nagain, part->tries + 1);
	if (j.nstale > 0)
		ask_versions(u, chunk, j.stale, j.nstale, part->tries + 1);
	dv_undo_release(chunk);
}

static void
handle_delete(DvAsker *asker, DvAsk *ask, const DvHttpReply *reply)
{
	if (((DeleteAsk *) ask->arg)->looks)
		handle_versions(asker->arg, ask, reply);
	else
		handle_deleted(asker->arg, ask, reply);
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
		store(u, &u->tables[i], true);
		u->rc->total.failed += u->tables[i].failed;
	}
}

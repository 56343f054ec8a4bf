/*
 * undo_restore.c - updated records are made again what they were
 *
 * Each record with an image is read. Where it holds that already, there is
 * nothing to send; where a user has written since, it is left; else it is
 * updated, that very version of it (its ETag). Its image leaves with the
 * outcome, so that an undo that is called again goes on.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "answer.h"
#include "encode.h"
#include "keys.h"
#include "servertext.h"
#include "spi.h"
#include "undo.h"

/* In a record, for a character that this database and so its image cannot have. */
#define NOT_OF_AN_IMAGE	"\\u001a"

/* Times a record is looked at again because its update was not clear. */
#define LOOKS_MAX		8

typedef enum RestoreKind
{
	RESTORE_COUNT,				/* read, to count */
	RESTORE_READ,				/* read, to restore */
	RESTORE_WRITE
} RestoreKind;

typedef struct RestoreAsk
{
	RestoreKind kind;
	DvUndoChunk *chunk;
	int		   *rows;			/* indexes in the chunk */
	int			n;
} RestoreAsk;

static DvAsk *
new_ask(DvUndo *u, RestoreKind kind, DvUndoChunk *chunk, const int *rows, int n)
{
	RestoreAsk *part = MemoryContextAllocZero(chunk->context, sizeof(RestoreAsk));

	part->kind = kind;
	part->chunk = chunk;
	part->rows = MemoryContextAlloc(chunk->context, sizeof(int) * n);
	memcpy(part->rows, rows, sizeof(int) * n);
	part->n = n;
	chunk->asks++;
	return dv_asker_new(&u->asker, kind == RESTORE_WRITE ? "POST" : "GET", part);
}

static void
ask_records(DvUndo *u, RestoreKind kind, DvUndoChunk *chunk, const int *rows, int n)
{
	DvWireTable table = chunk->table->projection->wire;
	DvAsk	   *ask = new_ask(u, kind, chunk, rows, n);
	DvWireRow  *wire = palloc0(sizeof(DvWireRow) * n);
	const DvWireRow **list = palloc(sizeof(DvWireRow *) * n);
	int			i;

	table.with_state = table.with_creator = false;
	table.also = psprintf("_createdby_value,%s", chunk->table->members);
	for (i = 0; i < n; i++)
	{
		chunk->seen[rows[i]] = false;
		dv_source_format_id(&chunk->ids[rows[i]], wire[i].id);
		list[i] = &wire[i];
	}
	(void) dv_wire_find(&ask->path, &table, list, n);
	ask->prefer = DV_WIRE_PREFER_LOOKUP_TABLES;
	dv_asker_queue(&u->asker, ask);
}

static void
ask_all(DvUndo *u, RestoreKind kind, DvUndoChunk *chunk)
{
	int		   *rows = palloc(sizeof(int) * chunk->n);
	int			i;

	for (i = 0; i < chunk->n; i++)
		rows[i] = i;
	ask_records(u, kind, chunk, rows, chunk->n);
}

static void
begin_count(DvUndo *u, DvUndoChunk *chunk)
{
	ask_all(u, RESTORE_COUNT, chunk);
}

static void
begin_restore(DvUndo *u, DvUndoChunk *chunk)
{
	ask_all(u, RESTORE_READ, chunk);
}

static const DvWireRow **
wire_rows(const RestoreAsk *part)
{
	const DvWireRow **list = palloc(sizeof(DvWireRow *) * part->n);
	int			i;

	for (i = 0; i < part->n; i++)
		list[i] = &part->chunk->wire[part->rows[i]];
	return list;
}

static void
ask_updates(DvUndo *u, DvUndoChunk *chunk, const int *rows, int n)
{
	int			each = chunk->table->pace.each_rows;
	int			i;

	for (i = 0; i < n; i += each)
	{
		DvAsk	   *ask = new_ask(u, RESTORE_WRITE, chunk, rows + i, Min(each, n - i));
		RestoreAsk *part = ask->arg;

		(void) dv_wire_batch(&ask->body, &chunk->table->projection->wire, dv_asker_batch(ask), wire_rows(part), part->n);
		dv_asker_queue(&u->asker, ask);
	}
}

static void
fail(DvUndoTable *table, const char *problem)
{
	if (table->failed++ == 0)
		dv_server_text_cut(table->problem, sizeof(table->problem), problem);
}

/* ---------------------------------------------------------------- recording */

/*
 * The record is what it was before the run: the outcome is again that of the
 * run before, without a hash, so that the row is sent when it is loaded again.
 * That the record exists, and who created it, stays known of a row that failed.
 */
static void
take_back(DvUndo *u, DvUndoTable *table, DvUndoChunk *chunk, const int *rows, int n)
{
	const DvProjection *p = table->projection;
	const char *keys;
	DvArrays	a;

	dv_spi_begin("dvmig: taking outcomes back");
	dv_spi_follow_indexes();
	dv_spi_wait_briefly();
	keys = dv_keys_unnest(p, NULL);
	dv_undo_key_arrays(&a, chunk, rows, n);
	dv_spi_run(psprintf("WITH failed AS (DELETE FROM %s x USING %s WHERE %s RETURNING x.*)"
						" INSERT INTO %s (%s, dataverse_id, created_run, operation, pass, run) SELECT %s, b.dataverse_id, x.created_run, 'U', 'write', x.run"
						" FROM failed x JOIN %s b ON %s AND b.run = " INT64_FORMAT " ON CONFLICT DO NOTHING",
						p->error_sql, keys, dv_keys_match(p, "x", "u"), p->success_sql, dv_keys_list(p, ""), dv_keys_list(p, "x."),
						table->before_sql, dv_keys_match(p, "b", "x"), u->target),
			   a.count, a.types, a.values, NULL, SPI_OK_INSERT);
	dv_spi_run(psprintf("WITH restored AS (DELETE FROM %s b USING %s WHERE %s AND b.run = " INT64_FORMAT " RETURNING b.*)"
						" UPDATE %s x SET content_hash = NULL, message = 'restored by dvmig.undo()', owed_passes = NULL, recorded_at = clock_timestamp(),"
						" record_state = CASE WHEN r.columns ? 'statecode' THEN concat_ws(',', r.columns ->> 'statecode', coalesce(r.columns ->> 'statuscode', '')) ELSE x.record_state END,"
						" run = coalesce((SELECT max(b.run) FROM %s b WHERE %s AND b.run < r.run), x.created_run, x.run) FROM restored r WHERE %s",
						table->before_sql, keys, dv_keys_match(p, "b", "u"), u->target,
						p->success_sql, table->before_sql, dv_keys_match(p, "b", "x"), dv_keys_match(p, "x", "r")),
			   a.count, a.types, a.values, NULL, SPI_OK_UPDATE);
	dv_spi_run(psprintf("UPDATE %s s SET processing_flag = 'U' FROM %s WHERE %s AND s.processing_flag <> 'U'",
						p->staging_sql, keys, dv_keys_match(p, "s", "u")),
			   a.count, a.types, a.values, NULL, SPI_OK_UPDATE);
	dv_undo_sharing(table->restored_too, chunk, rows, n);
	dv_spi_commit(false);
}

/* ---------------------------------------------------------------- reading */

/* The record that answers for a row: its text for SQL, its version, whether a user wrote it. */
typedef struct Answered
{
	int			n;
	int		   *rows;
	Datum	   *images;
	Datum	   *records;
	DvSlice    *etags;
	bool	   *changed;
} Answered;

static bool
take_page(DvUndo *u, const RestoreAsk *part, const DvHttpReply *reply, Answered *a)
{
	DvUndoChunk *chunk = part->chunk;
	bool		strict = chunk->table->projection->wire.caller_header == NULL;
	DvPage		page;
	DvSlice		record;

	a->n = 0;
	a->rows = palloc(sizeof(int) * part->n);
	a->images = palloc(sizeof(Datum) * part->n);
	a->records = palloc(sizeof(Datum) * part->n);
	a->etags = palloc(sizeof(DvSlice) * part->n);
	a->changed = palloc(sizeof(bool) * part->n);
	if (!dv_page_open(&page, reply->body.data, reply->body.len) || page.next_link.p != NULL)
		return false;
	while (dv_page_record(&page, &record))
	{
		pg_uuid_t	id;
		int			i;

		if (!dv_page_uuid(dv_page_find(record, chunk->table->projection->wire.primary_id), id.data))
			return false;
		for (i = 0; i < part->n; i++)
			if (memcmp(&chunk->ids[part->rows[i]], &id, sizeof(id)) == 0)
				break;
		if (i == part->n || chunk->seen[part->rows[i]])
			return false;
		chunk->seen[part->rows[i]] = true;
		a->rows[a->n] = part->rows[i];
		a->images[a->n] = CStringGetTextDatum(chunk->images[part->rows[i]]);
		a->records[a->n] = CStringGetTextDatum(dv_server_text(record.p, record.len, NOT_OF_AN_IMAGE));
		a->etags[a->n] = dv_page_find(record, "@odata.etag");
		a->changed[a->n++] = dv_undo_is_changed(u, record, strict);
	}
	return true;
}

/* The update that restores a row, in the form of the wire. */
static void
take_content(DvUndoChunk *chunk, int row, const char *content, DvSlice etag)
{
	DvWireRow  *wire = &chunk->wire[row];

	memset(wire, 0, sizeof(DvWireRow));
	wire->op = 'U';
	dv_source_format_id(&chunk->ids[row], wire->id);
	wire->content = MemoryContextStrdup(chunk->context, content);
	wire->content_len = strlen(wire->content);
	wire->etag = chunk->table->without_etag ? NULL : dv_asker_etag(etag, chunk->context);
}

typedef enum Needed
{
	NEEDS_NOTHING,				/* it holds what the image says */
	NEEDS_UPDATE,
	NEEDS_METADATA				/* a lookup of its image cannot be written */
} Needed;

/* What each answered record needs; contents are the chunk's. */
static Needed *
compare(DvUndoChunk *chunk, const Answered *a)
{
	Oid			types[3] = {OIDOID, TEXTARRAYOID, TEXTARRAYOID};
	Datum		values[3];
	Needed	   *needed = palloc0(sizeof(Needed) * (a->n + 1));
	DvSwitch	before;
	int			i;

	values[0] = ObjectIdGetDatum(chunk->table->plan.staging);
	values[1] = PointerGetDatum(construct_array(a->images, a->n, TEXTOID, -1, false, TYPALIGN_INT));
	values[2] = PointerGetDatum(construct_array(a->records, a->n, TEXTOID, -1, false, TYPALIGN_INT));
	before = dv_runstate_begin("dvmig: comparing with before-images");
	dv_spi_run("SELECT is_same, content FROM dvmig._before_restore($1::regclass, $2, $3)", 3, types, values, NULL, SPI_OK_SELECT);
	for (i = 0; i < a->n; i++)
	{
		char	   *content = dv_spi_text(i, 2);

		if (dv_spi_is_true(i, 1))
			needed[i] = NEEDS_NOTHING;
		else if (content == NULL)
			needed[i] = NEEDS_METADATA;
		else
		{
			needed[i] = NEEDS_UPDATE;
			content = pg_server_to_any(content, (int) strlen(content), PG_UTF8);
			take_content(chunk, a->rows[i], content, a->etags[i]);
		}
	}
	dv_runstate_commit(before, true);
	return needed;
}

/* An SQL function of dvmig with the undo's run, ids of records and their images. */
static void
note_restorable(DvUndo *u, const DvUndoChunk *chunk, const Answered *a, const int *chosen, int n)
{
	Oid			types[3] = {INT8OID, InvalidOid, TEXTARRAYOID};
	Datum		values[3] = {Int64GetDatum(u->rc->run)};
	pg_uuid_t  *ids = palloc(sizeof(pg_uuid_t) * (n + 1));
	Datum	   *images = palloc(sizeof(Datum) * (n + 1));
	DvSwitch	before;
	int			i;

	for (i = 0; i < n; i++)
	{
		ids[i] = chunk->ids[a->rows[chosen[i]]];
		images[i] = a->images[chosen[i]];
	}
	values[1] = dv_undo_id_array(ids, n);
	values[2] = PointerGetDatum(construct_array(images, n, TEXTOID, -1, false, TYPALIGN_INT));
	before = dv_runstate_begin("dvmig: undo");
	types[1] = get_array_type(UUIDOID);
	dv_spi_run("SELECT dvmig._undo_restorable($1, $2, $3)", 3, types, values, NULL, SPI_OK_SELECT);
	dv_runstate_commit(before, true);
}

static void
count_needed(DvUndo *u, const RestoreAsk *part, const Answered *a, const Needed *needed)
{
	DvUndoTable *table = part->chunk->table;
	int		   *chosen = palloc(sizeof(int) * (a->n + 1));
	int			n = 0;
	int			i;

	for (i = 0; i < a->n; i++)
		if (needed[i] != NEEDS_NOTHING && a->changed[i])
			table->images_changed++;
		else if (needed[i] != NEEDS_NOTHING)
			chosen[n++] = i;
	table->restorable += n;
	if (n > 0)
		note_restorable(u, part->chunk, a, chosen, n);
	for (i = 0; i < part->n; i++)
		if (!part->chunk->seen[part->rows[i]])
			table->images_gone++;
}

/* These are what they were: their outcomes, and what was noted of them. */
static void
restored(DvUndo *u, DvUndoChunk *chunk, const int *rows, int n)
{
	pg_uuid_t  *ids = palloc(sizeof(pg_uuid_t) * (n + 1));
	int			i;

	if (n == 0)
		return;
	for (i = 0; i < n; i++)
		ids[i] = chunk->ids[rows[i]];
	dv_undo_patiently(u, chunk->table, chunk, rows, n, take_back);
	(void) dv_undo_call(u, "WITH f AS (DELETE FROM dvmig._undo_image i WHERE i.undo = $1 AND i.dataverse_id = ANY ($2) AND $3 IS NOT NULL RETURNING 1)"
						" SELECT count(*) FROM f", ids, n, NULL);
}

static void
do_needed(DvUndo *u, DvUndoChunk *chunk, const Answered *a, const Needed *needed)
{
	int		   *same = palloc(sizeof(int) * (a->n + 1));
	int		   *send = palloc(sizeof(int) * (a->n + 1));
	int			nsame = 0;
	int			nsend = 0;
	int			i;

	for (i = 0; i < a->n; i++)
		if (needed[i] == NEEDS_NOTHING)
		{
			same[nsame++] = a->rows[i];
			/* an update of ours that was looked at again because its answer was not clear */
			chunk->table->restored += chunk->looks[a->rows[i]] > 0;
		}
		else if (a->changed[i])
			chunk->table->images_left++;
		else if (needed[i] == NEEDS_UPDATE)
			send[nsend++] = a->rows[i];
		else
			fail(chunk->table, "records could not be restored: a lookup pointed at a table whose metadata was not read (dvmig.refresh_metadata())");
	restored(u, chunk, same, nsame);
	ask_updates(u, chunk, send, nsend);
}

static void
handle_records(DvUndo *u, DvAsk *ask, const DvHttpReply *reply)
{
	RestoreAsk *part = ask->arg;
	Answered	a;
	Needed	   *needed;

	if (reply->status != 200)
	{
		dv_asker_fail_answer(&u->asker, reply);
		return;
	}
	if (part->n > 1 && dv_undo_has_more(reply))
	{
		ask_records(u, part->kind, part->chunk, part->rows, part->n / 2);
		ask_records(u, part->kind, part->chunk, part->rows + part->n / 2, part->n - part->n / 2);
		dv_undo_release(part->chunk);
		return;
	}
	if (!take_page(u, part, reply, &a))
	{
		memset(part->chunk->seen, 0, sizeof(bool) * part->chunk->n);
		dv_asker_not_understood(&u->asker, ask, "the answer to a query was not understood");
		return;
	}
	needed = compare(part->chunk, &a);
	if (part->kind == RESTORE_COUNT)
		count_needed(u, part, &a, needed);
	else
		do_needed(u, part->chunk, &a, needed);
	dv_undo_release(part->chunk);
}

/* ---------------------------------------------------------------- writing */

/* Is the record to be looked at again, because its update is not clear or it has been written meanwhile? */
static bool
is_unclear(DvUndoTable *table, const DvVerdict *v)
{
	bool		no_conditions = pg_strcasecmp(v->code, DV_CODE_NO_CONDITIONS) == 0;

	table->without_etag |= no_conditions;
	return no_conditions || v->http_status == 412 || dv_undo_is_passing(v);
}

static void
handle_updates(DvUndo *u, DvAsk *ask, const DvHttpReply *reply)
{
	RestoreAsk *part = ask->arg;
	DvUndoChunk *chunk = part->chunk;
	DvUndoTable *table = chunk->table;
	DvWireReply w = dv_answer_wire_reply(reply);
	DvVerdict  *v = palloc0(sizeof(DvVerdict) * part->n);
	int		   *done = palloc(sizeof(int) * part->n);
	int		   *again = palloc(sizeof(int) * part->n);
	int			ndone = 0;
	int			nagain = 0;
	int			i;

	dv_wire_batch_reply(&w, wire_rows(part), part->n, v, NULL);
	for (i = 0; i < part->n && !u->rc->failed; i++)
		if (v[i].kind == DV_DONE)
			done[ndone++] = part->rows[i];
		else if (v[i].kind == DV_FAIL_RUN)
			dv_asker_fail(&u->asker, dv_answer_told(&v[i]));
		else if (is_unclear(table, &v[i]) && chunk->looks[part->rows[i]]++ < LOOKS_MAX)
			again[nagain++] = part->rows[i];
		else
			/* without the service's text, which may quote the record */
			fail(table, psprintf("records could not be restored: %s%s%s (HTTP status %d)",
								 v[i].error_class, v[i].code[0] ? " " : "", v[i].code, v[i].http_status));
	restored(u, chunk, done, ndone);
	table->restored += ndone;
	dv_undo_answered(u, table, reply, part->n, ndone);
	if (nagain > 0)
		ask_records(u, RESTORE_READ, chunk, again, nagain);
	dv_undo_release(chunk);
}

static void
handle_restore(DvAsker *asker, DvAsk *ask, const DvHttpReply *reply)
{
	if (((RestoreAsk *) ask->arg)->kind == RESTORE_WRITE)
		handle_updates(asker->arg, ask, reply);
	else
		handle_records(asker->arg, ask, reply);
}

/* ---------------------------------------------------------------- the phases */

static void
note_images(DvUndo *u, const DvUndoTable *table)
{
	Oid			types[5] = {INT8OID, OIDOID, INT8OID, INT8OID, INT8OID};
	Datum		values[5] = {Int64GetDatum(u->rc->run), ObjectIdGetDatum(table->plan.staging),
		Int64GetDatum(table->restorable), Int64GetDatum(table->images_changed), Int64GetDatum(table->images_gone)};
	DvSwitch	before;

	before = dv_runstate_begin("dvmig: undo");
	dv_spi_run("SELECT dvmig._undo_images($1, $2::regclass, $3, $4, $5)", 5, types, values, NULL, SPI_OK_SELECT);
	dv_runstate_commit(before, true);
}

void
dv_undo_look_images(DvUndo *u)
{
	int			i;

	u->asker.answer = handle_restore;
	for (i = 0; i < u->ntables && !u->rc->stopping; i++)
		if (u->tables[i].members != NULL)
		{
			dv_undo_walk(u, &u->tables[i], DV_UNDO_IMAGES, DV_UNDO_IMAGES, begin_count);
			note_images(u, &u->tables[i]);
		}
}

bool
dv_undo_restore(DvUndo *u)
{
	int			i;

	u->asker.answer = handle_restore;
	for (i = 0; i < u->ntables && !u->rc->stopping; i++)
		if (u->tables[i].members != NULL)
		{
			dv_undo_walk(u, &u->tables[i], DV_UNDO_IMAGES, DV_UNDO_IMAGES, begin_restore);
			dv_undo_changed_meanwhile(u, &u->tables[i], u->tables[i].images_left - u->tables[i].images_changed);
		}
	return dv_undo_call(u, "SELECT dvmig._undo_not_restored($1) WHERE $2 IS NOT NULL AND $3 IS NOT NULL", NULL, 0, NULL) > 0;
}

/*
 * undo_links.c - links that a run made are taken away
 *
 * For a link no record stands: its row tells the ends, and its hash whether
 * these are still the ends of the link that was made. Links go before all
 * records; a link that was there before the run has no created_run and stays.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "answer.h"
#include "compat.h"
#include "encode.h"
#include "hash128.h"
#include "keys.h"
#include "links.h"
#include "spi.h"
#include "undo.h"

/* Tries of one link that cannot be taken away for a passing reason. */
#define LINK_TRIES	8

/* Links of one $batch. */
typedef struct LinkAsk
{
	DvUndoChunk *chunk;
	int		   *rows;			/* indexes in the chunk */
	int			n;
	int			tries;
} LinkAsk;

static const DvWireRow **
wire_rows(const LinkAsk *part)
{
	const DvProjection *p = part->chunk->table->projection;
	DvWireRow  *wire = palloc0(sizeof(DvWireRow) * part->n);
	const DvWireRow **list = palloc(sizeof(DvWireRow *) * part->n);
	int			i;

	for (i = 0; i < part->n; i++)
	{
		int			row = part->rows[i];
		char		left[37];
		char		right[37];

		dv_source_format_id(&part->chunk->lefts[row], left);
		dv_source_format_id(&part->chunk->ids[row], right);
		wire[i].op = 'D';
		wire[i].method = "DELETE";
		wire[i].path = psprintf("/%s(%s)/%s(%s)/$ref", p->columns[0].entity_set, left, p->link, right);
		wire[i].content = "";
		list[i] = &wire[i];
	}
	return list;
}

static void
ask_links(DvUndo *u, DvUndoChunk *chunk, const int *rows, int n, int tries)
{
	LinkAsk    *part = MemoryContextAllocZero(chunk->context, sizeof(LinkAsk));
	DvAsk	   *ask = dv_asker_new(&u->asker, "POST", part);

	part->chunk = chunk;
	part->rows = MemoryContextAlloc(chunk->context, sizeof(int) * n);
	memcpy(part->rows, rows, sizeof(int) * n);
	part->n = n;
	part->tries = tries;
	(void) dv_wire_batch(&ask->body, &chunk->table->projection->wire, dv_asker_batch(ask), wire_rows(part), n);
	if (tries > 0)
		ask->not_before = dv_answer_backoff(tries);
	chunk->asks++;
	dv_asker_queue(&u->asker, ask);
}

static void
begin_links(DvUndo *u, DvUndoChunk *chunk)
{
	int		   *rows = palloc(sizeof(int) * (chunk->n + 1));
	int			each = chunk->table->pace.each_rows;
	int			n = 0;
	int			i;

	for (i = 0; i < chunk->n; i++)
		if (chunk->seen[i])
			rows[n++] = i;
		else
			chunk->table->links_changed++;
	for (i = 0; i < n; i += each)
		ask_links(u, chunk, rows + i, Min(each, n - i), 0);
}

static void
take_back(DvUndo *u, DvUndoTable *table, DvUndoChunk *chunk, const int *rows, int n)
{
	const DvProjection *p = table->projection;
	const char *keys = dv_keys_unnest(p, NULL);
	DvArrays	a;

	(void) u;
	dv_spi_begin("dvmig: taking outcomes back");
	dv_spi_follow_indexes();
	dv_spi_wait_briefly();
	dv_undo_key_arrays(&a, chunk, rows, n);
	dv_spi_run(psprintf("DELETE FROM %s x USING %s WHERE %s", p->success_sql, keys, dv_keys_match(p, "x", "u")),
			   a.count, a.types, a.values, NULL, SPI_OK_DELETE);
	dv_spi_run(psprintf("UPDATE %s s SET processing_flag = 'U' FROM %s WHERE %s AND s.processing_flag <> 'U'", p->staging_sql, keys, dv_keys_match(p, "s", "u")),
			   a.count, a.types, a.values, NULL, SPI_OK_UPDATE);
	dv_spi_commit(false);
}

static void
fail(DvUndoTable *table, const DvVerdict *v)
{
	if (table->failed++ == 0)
		snprintf(table->problem, sizeof(table->problem), "links could not be taken away: %s%s%s (HTTP status %d)",
				 v->error_class, v->code[0] ? " " : "", v->code, v->http_status);
}

static void
handle_links(DvAsker *asker, DvAsk *ask, const DvHttpReply *reply)
{
	DvUndo	   *u = asker->arg;
	LinkAsk    *part = ask->arg;
	DvUndoChunk *chunk = part->chunk;
	DvWireReply w = dv_answer_wire_reply(reply);
	DvVerdict  *v = palloc0(sizeof(DvVerdict) * part->n);
	int		   *done = palloc(sizeof(int) * part->n);
	int		   *again = palloc(sizeof(int) * part->n);
	int			ndone = 0;
	int			nagain = 0;
	int			i;

	dv_wire_batch_reply(&w, wire_rows(part), part->n, v, NULL);
	for (i = 0; i < part->n && !u->rc->failed; i++)
	{
		bool		passing = dv_undo_is_passing(&v[i]);

		/* what is not there is taken away */
		if (v[i].kind == DV_DONE || v[i].kind == DV_GONE || (v[i].http_status == 404 && !passing))
			done[ndone++] = part->rows[i];
		else if (v[i].kind == DV_FAIL_RUN)
			dv_asker_fail(asker, dv_answer_told(&v[i]));
		else if (passing && part->tries < LINK_TRIES)
			again[nagain++] = part->rows[i];
		else
			fail(chunk->table, &v[i]);
	}
	if (ndone > 0)
		dv_undo_patiently(u, chunk->table, chunk, done, ndone, take_back);
	chunk->table->deleted += ndone;
	dv_undo_answered(u, chunk->table, reply, part->n, ndone);
	/* what was too much in one request goes in two */
	if (nagain > 1 && v[0].kind == DV_SHRINK)
	{
		ask_links(u, chunk, again, nagain / 2, part->tries);
		ask_links(u, chunk, again + nagain / 2, nagain - nagain / 2, part->tries);
	}
	else if (nagain > 0)
		ask_links(u, chunk, again, nagain, part->tries + 1);
	dv_undo_release(chunk);
}

char *
dv_undo_links_query(const DvUndo *u)
{
	const DvProjection *p = u->table->projection;

	/* the ends as its maps say now, and the hash of those that were linked */
	return psprintf("SELECT (%s)::pg_catalog.uuid, %s, (%s)::pg_catalog.uuid, x.content_hash FROM %s s %s"
					" WHERE x.created_run = " INT64_FORMAT " AND x.operation <> 'D'",
					p->expressions[1], p->order_sql, p->expressions[0], p->staging_sql, p->joins_sql, u->target);
}

void
dv_undo_links_take(DvUndoChunk *chunk, int i, HeapTuple tuple, TupleDesc desc, int first)
{
	bool		isnull[3];
	Datum		right = SPI_getbinval(tuple, desc, 1, &isnull[0]);
	Datum		left = SPI_getbinval(tuple, desc, first, &isnull[1]);
	Datum		hash = SPI_getbinval(tuple, desc, first + 1, &isnull[2]);
	unsigned char now[16];

	if (isnull[0] || isnull[1] || isnull[2])
		return;
	dv_links_hash(DatumGetUUIDP(left), DatumGetUUIDP(right), now);
	chunk->ids[i] = *DatumGetUUIDP(right);
	chunk->lefts[i] = *DatumGetUUIDP(left);
	chunk->seen[i] = dv_hash128_is(hash, now);
}

void
dv_undo_links(DvUndo *u)
{
	int			i;

	u->asker.answer = handle_links;
	for (i = 0; i < u->ntables && !u->rc->stopping; i++)
		if (u->tables[i].links > 0)
		{
			dv_undo_walk(u, &u->tables[i], DV_UNDO_LINKS, DV_UNDO_LINKS, begin_links);
			dv_undo_left(u, &u->tables[i], "link whose row was changed since is", "links whose rows were changed since are", u->tables[i].links_changed);
		}
}

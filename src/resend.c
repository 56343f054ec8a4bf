/*
 * resend.c - some columns of loaded rows, sent again where they differ
 *
 * Rows and records are read and compared as a verification does. What differs
 * goes as an update of that very version of the record (its ETag), in $batches
 * of single operations: whoever writes meanwhile is not written over. A record
 * whose update has no clear answer is looked at again.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "answer.h"
#include "before.h"
#include "encode.h"
#include "hash128.h"
#include "keys.h"
#include "servertext.h"
#include "spi.h"
#include "verify.h"

/* Times a record is looked at again because its update was not clear. */
#define LOOKS_MAX		8

struct DvResend
{
	char	  **names;			/* columns to be sent again */
	int			nnames;
	bool		if_unchanged;	/* not where another user has written since */
	bool		without_etag;	/* the table does not take conditions */
	DvTablePace pace;
	int64		sent;
	int64		equal;
	int64		left;
	int64		missing;
	int64		failed;
	char		problem[256];	/* of the first row that failed */
};

/* Rows of one $batch. */
typedef struct ResendAsk
{
	DvVerifyChunk *chunk;
	int		   *rows;			/* indexes in the chunk */
	int			n;
} ResendAsk;

void
dv_resend_begin(DvVerify *v)
{
	DvResend   *r = MemoryContextAllocZero(v->context, sizeof(DvResend));
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(v->rc->run)};
	DvSwitch	before;
	int			i;

	before = dv_runstate_begin("dvmig: loading what is to be sent again");
	r->nnames = (int) dv_spi_run("SELECT c, h.options ->> 'if_unchanged' FROM dvmig.run_history h, jsonb_array_elements_text(h.options -> 'columns') c WHERE h.run = $1",
								 1, types, values, NULL, SPI_OK_SELECT);
	r->names = MemoryContextAlloc(v->context, sizeof(char *) * (r->nnames + 1));
	for (i = 0; i < r->nnames; i++)
	{
		r->names[i] = dv_spi_keep(v->context, i, 1);
		r->if_unchanged = strcmp(dv_spi_text(i, 2), "true") == 0;
	}
	dv_runstate_commit(before, true);
	MemoryContextSwitchTo(v->context);
	dv_pace_table_init(&r->pace);
	v->resend = r;
}

static bool
is_chosen(const DvResend *r, const DvVerifyColumn *c)
{
	int			i;

	for (i = 0; i < r->nnames; i++)
		if (strcmp(r->names[i], c->name) == 0)
			return true;
	return false;
}

/* Does the chosen column hold something else than the row maps to, as far as that can be read back? */
static bool
differs(const DvVerifyColumn *c, const DvVerifyRow *row, int i)
{
	if (c->never_cleared && dv_page_is_null(row->expected[i]))
		return false;
	return c->read_name == NULL || c->kind == DV_COMPARE_PRESENCE ||
		!dv_compare_equal(c->kind, c->precision, row->expected[i], dv_verify_found(row, c)) || !dv_verify_is_equal(c, row, i);
}

static void
fail_row(DvResend *r, const char *problem)
{
	if (r->failed++ == 0)
		dv_server_text_cut(r->problem, sizeof(r->problem), problem);
}

/* The members to be sent, and the version they are for. */
static void
take_update(DvVerify *v, DvVerifyRow *row, DvSlice etag)
{
	MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(row->keys));
	StringInfoData content;
	int			i;

	initStringInfo(&content);
	for (i = 0; i < v->ncolumns; i++)
	{
		DvVerifyColumn *c = &v->columns[i];

		if (!is_chosen(v->resend, c) || row->part[i] < 0 || !differs(c, row, i))
			continue;
		appendStringInfo(&content, "%s\"%s\":", content.len > 0 ? "," : "", v->payload[c->maps[(int) row->part[i]]].member);
		appendBinaryStringInfo(&content, row->expected[i].p ? row->expected[i].p : "null",
							   row->expected[i].p ? (int) row->expected[i].len : 4);
	}
	row->content = content.len > 0 ? content.data : NULL;
	row->etag = v->resend->if_unchanged && !v->resend->without_etag ? dv_asker_etag(etag, CurrentMemoryContext) : NULL;
	MemoryContextSwitchTo(old);
}

static void
put_slice(StringInfo out, const char *name, DvSlice value)
{
	appendStringInfo(out, "%s\"%s\":", out->len > 1 ? "," : "", name);
	appendBinaryStringInfo(out, value.p ? value.p : "null", value.p ? (int) value.len : 4);
}

/* What the chosen columns hold, all of them, so that the images of a run are of one form. */
static void
take_image(DvVerify *v, DvVerifyRow *row)
{
	MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(row->keys));
	StringInfoData image;
	int			i;

	initStringInfo(&image);
	appendStringInfoChar(&image, '{');
	for (i = 0; i < v->ncolumns; i++)
	{
		DvVerifyColumn *c = &v->columns[i];

		if (!is_chosen(v->resend, c) || c->read_name == NULL || c->kind == DV_COMPARE_PRESENCE)
			continue;
		put_slice(&image, c->read_name, dv_verify_found(row, c));
		if (row->told[c->told_table].p != NULL)
			put_slice(&image, v->told[c->told_table].name, row->told[c->told_table]);
	}
	appendStringInfoChar(&image, '}');
	row->image = image.data;
	MemoryContextSwitchTo(old);
}

void
dv_resend_judge(DvVerify *v, DvVerifyRow *row, DvSlice etag)
{
	DvResend   *r = v->resend;
	bool		any = false;
	int			i;

	row->content = NULL;
	row->record = false;
	if (row->fault != NULL)
	{
		fail_row(r, "rows cannot be transformed: see dvmig.check()");
		return;
	}
	row->others_equal = true;
	for (i = 0; i < v->ncolumns; i++)
	{
		DvVerifyColumn *c = &v->columns[i];

		if (is_chosen(r, c))
			any |= differs(c, row, i);
		else if (dv_verify_is_sent(c, row) && !dv_verify_is_equal(c, row, i))
			row->others_equal = false;
	}
	if (!any)
	{
		r->equal++;
		row->record = row->others_equal;
	}
	else if (r->if_unchanged && dv_verify_changed_since(v, row))
	{
		r->left++;
		for (i = 0; i < v->ncolumns; i++)
			if (is_chosen(r, &v->columns[i]) && differs(&v->columns[i], row, i))
				dv_verify_note(v, row, v->columns[i].name, row->expected[i], dv_verify_found(row, &v->columns[i]), "changed");
	}
	else
	{
		take_update(v, row, etag);
		if (v->projection->before_sql != NULL)
			take_image(v, row);
	}
}

void
dv_resend_missing(DvVerify *v, DvVerifyRow *row)
{
	DvSlice		nothing = {NULL, 0};

	v->resend->missing++;
	row->content = NULL;
	row->record = false;
	dv_verify_note(v, row, NULL, nothing, nothing, "missing");
}

/* ---------------------------------------------------------------- recording */

static char *
record_sql(DvVerify *v)
{
	const DvProjection *p = v->projection;

	return psprintf("UPDATE %s x SET content_hash = CASE WHEN x.content_hash IS NOT NULL THEN u.\"dvmig hash\" END,"
					" run = CASE WHEN u.\"dvmig sent\" THEN " INT64_FORMAT " ELSE x.run END,"
					" recorded_at = CASE WHEN u.\"dvmig sent\" THEN pg_catalog.clock_timestamp() ELSE x.recorded_at END,"
					" message = CASE WHEN u.\"dvmig sent\" THEN 'columns sent again' ELSE x.message END"
					" FROM %s WHERE %s AND (u.\"dvmig sent\" OR x.content_hash IS DISTINCT FROM u.\"dvmig hash\")",
					p->success_sql, v->rc->run, dv_keys_unnest(p, "\"dvmig hash\", \"dvmig sent\""), dv_keys_match(p, "x", "u"));
}

/* Rows whose outcome is to say what their records hold, and whether it was sent now. */
typedef struct Recording
{
	DvVerify   *v;
	DvVerifyRow *const *rows;
	int			n;
	bool		sent;
} Recording;

/* The hash of what the records hold now, so that a reload of the rows is unchanged. */
static void
record(void *arg)
{
	const Recording *r = arg;
	DvVerify   *v = r->v;
	DvVerifyRow *const *rows = r->rows;
	int			n = r->n;
	DvArrays	a;
	Datum	   *hashes = palloc(sizeof(Datum) * n);
	Datum	   *are_sent = palloc(sizeof(Datum) * n);
	Datum	  **keys = palloc(sizeof(Datum *) * n);
	bool	   *nulls = palloc0(sizeof(bool) * n);
	int			i;

	for (i = 0; i < n; i++)
	{
		hashes[i] = dv_hash128_datum(rows[i]->hash);
		nulls[i] = !rows[i]->others_equal;
		are_sent[i] = BoolGetDatum(r->sent);
		keys[i] = rows[i]->keys;
	}
	dv_spi_begin("dvmig: recording outcomes");
	dv_spi_follow_indexes();
	dv_spi_wait_briefly();
	dv_keys_arrays(&a, v->projection, keys, n);
	dv_keys_add(&a, hashes, nulls, BYTEAOID);
	dv_keys_add(&a, are_sent, NULL, BOOLOID);
	dv_spi_run(record_sql(v), a.count, a.types, a.values, NULL, SPI_OK_UPDATE);
	dv_spi_commit(true);
}

/* Until no user's lock is in the way. */
static void
record_patiently(DvVerify *v, DvVerifyRow *const *rows, int n, bool sent)
{
	Recording	r = {v, rows, n, sent};

	if (n > 0)
		dv_asker_patiently(v->rc, v->context, record, &r);
}

/* ---------------------------------------------------------------- sending */

static const DvWireRow **
wire_rows(DvVerifyChunk *chunk, const int *rows, int n)
{
	DvWireRow  *wire = palloc0(sizeof(DvWireRow) * n);
	const DvWireRow **list = palloc(sizeof(DvWireRow *) * n);
	int			i;

	for (i = 0; i < n; i++)
	{
		DvVerifyRow *row = &chunk->rows[rows[i]];

		wire[i].op = 'U';
		dv_source_format_id(&row->id, wire[i].id);
		wire[i].content = row->content;
		wire[i].content_len = strlen(row->content);
		wire[i].etag = row->etag;
		list[i] = &wire[i];
	}
	return list;
}

static void
ask_update(DvVerify *v, DvVerifyChunk *chunk, const int *rows, int n)
{
	ResendAsk  *part = MemoryContextAllocZero(chunk->context, sizeof(ResendAsk));
	DvAsk	   *ask = dv_asker_new(&v->asker, "POST", part);

	part->chunk = chunk;
	part->rows = MemoryContextAlloc(chunk->context, sizeof(int) * n);
	memcpy(part->rows, rows, sizeof(int) * n);
	part->n = n;
	(void) dv_wire_batch(&ask->body, &v->projection->wire, dv_asker_batch(ask), wire_rows(chunk, rows, n), n);
	chunk->asks++;
	dv_asker_queue(&v->asker, ask);
}

/* Images of records, with the keys and ids of their rows. */
typedef struct Images
{
	DvVerify   *v;
	Datum	  **keys;
	Datum	   *ids;
	const char **records;
	int			n;
} Images;

static void
store_images(void *arg)
{
	const Images *images = arg;

	dv_before_store(images->v->projection, images->v->rc->run, images->keys, images->ids, images->records, images->n);
}

/* Without its image no record is updated. */
static void
keep_images(DvVerify *v, DvVerifyChunk *chunk, const int *rows, int n)
{
	Images		images = {v, palloc(sizeof(Datum *) * (n + 1)), palloc(sizeof(Datum) * (n + 1)), palloc(sizeof(char *) * (n + 1)), n};
	int			i;

	if (v->projection->before_sql == NULL || n == 0)
		return;
	for (i = 0; i < n; i++)
	{
		DvVerifyRow *row = &chunk->rows[rows[i]];

		images.keys[i] = row->keys;
		images.ids[i] = UUIDPGetDatum(&row->id);
		images.records[i] = row->image;
	}
	dv_asker_patiently(v->rc, v->context, store_images, &images);
}

void
dv_resend_send(DvVerify *v, DvVerifyChunk *chunk, int from, int n)
{
	DvVerifyRow **equal = palloc(sizeof(DvVerifyRow *) * (n + 1));
	int		   *rows = palloc(sizeof(int) * (n + 1));
	int			nequal = 0;
	int			nrows = 0;
	int			i;

	for (i = from; i < from + n; i++)
		if (chunk->rows[i].content != NULL)
			rows[nrows++] = i;
		else if (chunk->rows[i].record)
			equal[nequal++] = &chunk->rows[i];
	record_patiently(v, equal, nequal, false);
	keep_images(v, chunk, rows, nrows);
	for (i = 0; i < nrows; i += v->resend->pace.each_rows)
		ask_update(v, chunk, rows + i, Min(v->resend->pace.each_rows, nrows - i));
}

/* The row's update was not clear, or its record has been written meanwhile: look again. */
static void
look_again(DvVerify *v, DvVerifyChunk *chunk, int i, const DvVerdict *verdict)
{
	DvVerifyRow *row = &chunk->rows[i];

	if (row->looks++ >= LOOKS_MAX)
	{
		fail_row(v->resend, psprintf("records could not be updated: %s %s (HTTP status %d)", verdict->error_class, verdict->code, verdict->http_status));
		return;
	}
	row->seen = false;
	dv_verify_ask(v, chunk, i, 1);
}

static void
take_verdict(DvVerify *v, DvVerifyChunk *chunk, int i, const DvVerdict *verdict)
{
	bool		no_conditions;

	switch (verdict->kind)
	{
		case DV_GONE:
		case DV_WAIT:
		case DV_RETRY:
		case DV_SETTLE:
		case DV_SHRINK:
			look_again(v, chunk, i, verdict);
			break;
		case DV_FAIL_RUN:
			dv_asker_fail(&v->asker, dv_answer_told(verdict));
			break;
		default:
			no_conditions = pg_strcasecmp(verdict->code, DV_CODE_NO_CONDITIONS) == 0;
			v->resend->without_etag |= no_conditions;
			if (verdict->http_status == 412 || no_conditions)
				look_again(v, chunk, i, verdict);
			else
				/* without the service's text, which may quote the record */
				fail_row(v->resend, psprintf("records could not be updated: %s %s (HTTP status %d)",
											 verdict->error_class, verdict->code, verdict->http_status));
	}
}

void
dv_resend_answer(DvVerify *v, DvAsk *ask, const DvHttpReply *reply)
{
	ResendAsk  *part = ask->arg;
	DvVerifyChunk *chunk = part->chunk;
	DvWireReply w = dv_answer_wire_reply(reply);
	DvVerdict  *verdicts = palloc0(sizeof(DvVerdict) * part->n);
	DvVerifyRow **done = palloc(sizeof(DvVerifyRow *) * part->n);
	int			ndone = 0;
	int			i;

	dv_wire_batch_reply(&w, wire_rows(chunk, part->rows, part->n), part->n, verdicts, NULL);
	for (i = 0; i < part->n; i++)
		if (verdicts[i].kind == DV_DONE)
			done[ndone++] = &chunk->rows[part->rows[i]];
		else
			take_verdict(v, chunk, part->rows[i], &verdicts[i]);
	if (reply->status == 200)
		dv_pace_table_each(&v->resend->pace, part->n, reply->seconds);
	record_patiently(v, done, ndone, true);
	v->resend->sent += ndone;
	v->rc->total.rows_sent += part->n;
	dv_verify_release(chunk);
}

void
dv_resend_end(DvVerify *v)
{
	const DvResend *r = v->resend;
	Oid			types[9] = {INT8OID, OIDOID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, TEXTOID, BOOLOID};
	Datum		values[9] = {Int64GetDatum(v->rc->run), ObjectIdGetDatum(v->plan.staging), Int64GetDatum(r->sent), Int64GetDatum(r->equal),
	Int64GetDatum(r->left), Int64GetDatum(r->missing), Int64GetDatum(r->failed), CStringGetTextDatum(r->problem), BoolGetDatum(!v->rc->stopping)};
	char		nulls[10] = "         ";
	DvSwitch	before;

	nulls[7] = r->problem[0] ? ' ' : 'n';
	before = dv_runstate_begin("dvmig: ending a table");
	dv_spi_run("SELECT dvmig._end_resend($1, $2::regclass, $3, $4, $5, $6, $7, $8, $9)", 9, types, values, nulls, SPI_OK_SELECT);
	dv_runstate_commit(before, false);
	v->rc->total.succeeded += r->sent + r->equal;
	v->rc->total.unchanged += r->equal;
	v->rc->total.failed += r->failed + r->missing;
}

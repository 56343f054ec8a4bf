/*
 * rebuild.c - lost outcomes, made again from what is in Dataverse
 *
 * Rows without an outcome are looked for by their ids, as a verification does,
 * and then by the source key that their records carry. What is there is
 * recorded as loaded, without a hash: a reload looks at it like at any record
 * that was found.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "keys.h"
#include "reader.h"
#include "spi.h"
#include "verify.h"

struct DvRebuild
{
	int64		found;
	int64		missing;
	int64		ambiguous;		/* of several records */
};

void
dv_rebuild_begin(DvVerify *v)
{
	v->rebuild = MemoryContextAllocZero(v->context, sizeof(DvRebuild));
}

/* Which rows have no outcome. */
void
dv_rebuild_load(DvVerify *v)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(v->projection->staging)};
	DvSwitch	before;

	before = dv_runstate_begin("dvmig: loading the definition");
	dv_spi_run("SELECT dvmig._rebuild_rows($1::regclass)", 1, types, values, NULL, SPI_OK_SELECT);
	v->projection->inner_sql = dv_spi_keep(v->context, 0, 1);
	dv_runstate_commit(before, true);
	MemoryContextSwitchTo(v->context);
	v->gone_done = true;
}

/* ---------------------------------------------------------------- recording */

static void
add_versions(DvArrays *a, DvVerifyRow *const *rows)
{
	static const Oid types[] = {TIDOID, XIDOID, OIDOID, OIDOID};
	Datum	   *elements[lengthof(types)];
	int			i;

	for (i = 0; i < (int) lengthof(types); i++)
		elements[i] = palloc(sizeof(Datum) * a->n);
	for (i = 0; i < a->n; i++)
	{
		elements[0][i] = PointerGetDatum(&rows[i]->version.ctid);
		elements[1][i] = TransactionIdGetDatum(rows[i]->version.xmin);
		elements[2][i] = ObjectIdGetDatum(rows[i]->version.tableoid);
		elements[3][i] = ObjectIdGetDatum(rows[i]->version.filenode);
	}
	for (i = 0; i < (int) lengthof(types); i++)
		dv_keys_add(a, elements[i], NULL, types[i]);
}

/* Rows whose records are there. */
typedef struct Recording
{
	DvVerify   *v;
	DvVerifyRow *const *rows;
	int			n;
} Recording;

/* Outcomes by key; flags on just the versions that were read: what was edited meanwhile is still to be sent. */
static void
record(void *arg)
{
	const Recording *r = arg;
	DvVerify   *v = r->v;
	DvVerifyRow *const *rows = r->rows;
	int			n = r->n;
	const DvProjection *p = v->projection;
	DvArrays	a;
	Datum	   *elements = palloc(sizeof(Datum) * n);
	Datum	  **keys = palloc(sizeof(Datum *) * n);
	int			ids = p->nkeys + 1;
	int			i;

	dv_spi_begin("dvmig: recording outcomes");
	dv_spi_follow_indexes();
	dv_spi_wait_briefly();
	for (i = 0; i < n; i++)
	{
		keys[i] = rows[i]->keys;
		elements[i] = UUIDPGetDatum(&rows[i]->id);
	}
	dv_keys_arrays(&a, p, keys, n);
	dv_keys_add(&a, elements, NULL, UUIDOID);
	dv_spi_run(psprintf("INSERT INTO %s (%s, dataverse_id, operation, pass, run, message)"
						" SELECT %s, u.\"dvmig id\", 'I', 'write', " INT64_FORMAT ", 'rebuilt: the record is there'"
						" FROM %s ON CONFLICT DO NOTHING",
						p->success_sql, dv_keys_list(p, ""), dv_keys_list(p, "u."), v->rc->run, dv_keys_unnest(p, "\"dvmig id\"")),
			   a.count, a.types, a.values, NULL, SPI_OK_INSERT);
	add_versions(&a, rows);
	/* what a row owed is not known any more: it is looked at and sent as a whole */
	dv_spi_run(psprintf("UPDATE %s s SET processing_flag = CASE s.processing_flag WHEN 'S' THEN 'U' ELSE 'P' END, dataverse_id = u.i FROM unnest($%d, $%d, $%d, $%d, $%d) u(i, c, x, t, r)"
						" WHERE " DV_IS_VERSION("u.c", "u.x", "u.t", "u.r")
						" AND s.processing_flag IN ('U', 'S', 'P')",
						p->staging_sql, ids, ids + 1, ids + 2, ids + 3, ids + 4),
			   a.count, a.types, a.values, NULL, SPI_OK_UPDATE);
	dv_spi_commit(false);
}

static void
record_patiently(DvVerify *v, DvVerifyRow *const *rows, int n)
{
	Recording	r = {v, rows, n};

	if (n > 0)
		dv_asker_patiently(v->rc, v->context, record, &r);
	v->rebuild->found += n;
}

/* ---------------------------------------------------------------- by the key that records carry */

/* Rows that were not found by their ids. */
static void
ask_rest(DvVerify *v, DvVerifyChunk *chunk, int from, int n)
{
	int		   *rows = palloc(sizeof(int) * (n + 1));
	int			count = 0;
	int			i;

	for (i = from; i < from + n; i++)
	{
		DvVerifyRow *row = &chunk->rows[i];

		if (row->seen)
			continue;
		if (dv_verify_has_key(v, row))
			rows[count++] = i;
		else
			v->rebuild->missing++;
	}
	dv_verify_ask_keys(v, chunk, rows, count);
}

void
dv_rebuild_range(DvVerify *v, DvVerifyChunk *chunk, int from, int n)
{
	DvVerifyRow **found = palloc(sizeof(DvVerifyRow *) * (n + 1));
	int			nfound = 0;
	int			i;

	for (i = from; i < from + n; i++)
		if (chunk->rows[i].seen)
			found[nfound++] = &chunk->rows[i];
	record_patiently(v, found, nfound);
	ask_rest(v, chunk, from, n);
}

static void
found_key(DvKeyAsk *part, int at, const pg_uuid_t *id)
{
	const int  *rows;
	int			n;
	DvVerifyRow *row = &dv_verify_key_rows(part, &rows, &n)->rows[at];

	if (row->seen && memcmp(row->id.data, id->data, UUID_LEN) != 0)
		row->has_id = false;	/* of several records it is not known which is meant */
	else if (!row->seen)
	{
		row->id = *id;
		row->has_id = row->seen = true;
	}
}

void
dv_rebuild_answer(DvVerify *v, DvAsk *ask, const DvHttpReply *reply)
{
	DvKeyAsk   *part = ask->arg;
	const int  *rows;
	int			n;
	DvVerifyChunk *chunk = dv_verify_key_rows(part, &rows, &n);
	DvVerifyRow **found = palloc(sizeof(DvVerifyRow *) * (n + 1));
	int			nfound = 0;
	int			i;

	if (!dv_verify_key_answer(v, ask, reply, found_key))
		return;
	for (i = 0; i < n; i++)
	{
		DvVerifyRow *row = &chunk->rows[rows[i]];

		if (row->seen && row->has_id)
			found[nfound++] = row;
		else if (row->seen)
			v->rebuild->ambiguous++;
		else
			v->rebuild->missing++;
	}
	record_patiently(v, found, nfound);
	dv_verify_release(chunk);
}

void
dv_rebuild_end(DvVerify *v)
{
	const DvRebuild *r = v->rebuild;
	Oid			types[5] = {INT8OID, OIDOID, INT8OID, INT8OID, INT8OID};
	Datum		values[5] = {Int64GetDatum(v->rc->run), ObjectIdGetDatum(v->plan.staging), Int64GetDatum(r->found),
	Int64GetDatum(r->missing), Int64GetDatum(r->ambiguous)};
	DvSwitch	before;

	before = dv_runstate_begin("dvmig: ending a table");
	dv_spi_run("SELECT dvmig._end_rebuild($1, $2::regclass, $3, $4, $5)", 5, types, values, NULL, SPI_OK_SELECT);
	dv_runstate_commit(before, false);
	v->rc->total.succeeded += r->found;
}

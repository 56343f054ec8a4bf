/*
 * verify_keys.c - records by the source key that they carry
 *
 * A rebuild looks for lost records by it. A verification looks for records
 * beside those that it knows by their ids: another one with a row's key was
 * made by somebody else, or twice. Where the key is an alternate key, Dataverse
 * keeps it unique, and only for a record that is missing another can be there.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "call.h"
#include "encode.h"
#include "keys.h"
#include "reader.h"
#include "spi.h"
#include "verify.h"

/* Keys of one query, and characters of their list: a URL may have 32,768. */
#define KEYS_MAX		200
#define KEY_CHARS_MAX	24000

/* A record with the key of a row that is another's. */
typedef struct Twin
{
	int			row;			/* index in the chunk */
	pg_uuid_t	id;
} Twin;

struct DvKeyAsk
{
	DvVerifyChunk *chunk;
	int		   *rows;
	int			n;
	Twin	   *twins;
	int			ntwins;
	int			room;
};

void
dv_verify_load_key(DvVerify *v)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(v->projection->staging)};
	char	   *name;
	int			i;

	v->key_column = -1;
	dv_spi_run("SELECT k.* FROM dvmig._verify_key($1::regclass) k", 1, types, values, NULL, SPI_OK_SELECT);
	name = dv_spi_text(0, 1);
	v->twins_of_all = dv_spi_is_true(0, 2);
	v->twins_sql = dv_spi_keep(v->context, 0, 3);
	for (i = 0; i < v->ncolumns; i++)
		if (name != NULL && strcmp(v->columns[i].name, name) == 0 && v->columns[i].read_name != NULL)
			v->key_column = i;
}

/* Can the row be asked for by its key? */
bool
dv_verify_has_key(const DvVerify *v, const DvVerifyRow *row)
{
	int			k = v->key_column;

	return k >= 0 && row->fault == NULL && row->expected != NULL && !dv_page_is_null(row->expected[k]) && row->expected[k].len <= 1000;
}

static void
put_encoded(DvBuf *path, const char *text, size_t len)
{
	StringInfoData encoded;

	initStringInfo(&encoded);
	dv_reader_encode(&encoded, text, len);
	dv_buf_append(path, encoded.data, encoded.len);
	pfree(encoded.data);
}

static void
ask_keys(DvVerify *v, DvVerifyChunk *chunk, const int *rows, int n)
{
	const DvVerifyColumn *c = &v->columns[v->key_column];
	const DvWireTable *table = &v->projection->wire;
	DvKeyAsk   *part = MemoryContextAllocZero(chunk->context, sizeof(DvKeyAsk));
	DvAsk	   *ask = dv_asker_new(&v->asker, "GET", part);
	int			i;

	part->chunk = chunk;
	part->rows = MemoryContextAlloc(chunk->context, sizeof(int) * n);
	memcpy(part->rows, rows, sizeof(int) * n);
	part->n = n;
	dv_buf_puts(&ask->path, "/");
	dv_buf_puts(&ask->path, table->entity_set);
	dv_buf_puts(&ask->path, "?$select=");
	dv_buf_puts(&ask->path, table->primary_id);
	dv_buf_puts(&ask->path, ",");
	dv_buf_puts(&ask->path, c->read_name);
	dv_buf_puts(&ask->path, "&$filter=Microsoft.Dynamics.CRM.In(PropertyName=@p1,PropertyValues=@p2)&@p1='");
	dv_buf_puts(&ask->path, c->name);
	dv_buf_puts(&ask->path, "'&@p2=%5B");
	for (i = 0; i < n; i++)
	{
		DvSlice		value = chunk->rows[rows[i]].expected[v->key_column];

		if (i > 0)
			dv_buf_puts(&ask->path, ",");
		/* values are strings here, whatever the column's type */
		if (value.p[0] != '"')
			dv_buf_puts(&ask->path, "%22");
		put_encoded(&ask->path, value.p, value.len);
		if (value.p[0] != '"')
			dv_buf_puts(&ask->path, "%22");
	}
	dv_buf_puts(&ask->path, "%5D");
	ask->prefer = NULL;
	chunk->asks++;
	dv_asker_queue(&v->asker, ask);
}

void
dv_verify_ask_keys(DvVerify *v, DvVerifyChunk *chunk, const int *rows, int n)
{
	size_t		chars = 0;
	int			first = 0;
	int			i;

	for (i = 0; i < n; i++)
	{
		/* at worst each byte takes three characters */
		size_t		more = chunk->rows[rows[i]].expected[v->key_column].len * 3 + 10;

		if (i - first == KEYS_MAX || (i > first && chars + more > KEY_CHARS_MAX))
		{
			ask_keys(v, chunk, rows + first, i - first);
			first = i;
			chars = 0;
		}
		chars += more;
	}
	if (n > first)
		ask_keys(v, chunk, rows + first, n - first);
}

static bool
key_page(DvVerify *v, DvKeyAsk *part, DvPage *page, DvKeyFound found)
{
	const DvVerifyColumn *c = &v->columns[v->key_column];
	DvSlice		record;
	int			i;

	while (dv_page_record(page, &record))
	{
		DvSlice		key = dv_page_find(record, c->read_name);
		pg_uuid_t	id;

		if (!dv_page_uuid(dv_page_find(record, v->projection->wire.primary_id), id.data))
			return false;
		for (i = 0; i < part->n; i++)
			if (dv_compare_equal(c->kind, c->precision, part->chunk->rows[part->rows[i]].expected[v->key_column], key))
				found(part, part->rows[i], &id);
	}
	return true;
}

bool
dv_verify_key_answer(DvVerify *v, DvAsk *ask, const DvHttpReply *reply, DvKeyFound found)
{
	DvKeyAsk   *part = ask->arg;
	DvPage		page;

	if (reply->status != 200)
	{
		dv_asker_fail_answer(&v->asker, reply);
		return false;
	}
	if (!dv_page_open(&page, reply->body.data, reply->body.len) || !key_page(v, part, &page, found))
	{
		dv_asker_not_understood(&v->asker, ask, "the answer to a query was not understood");
		return false;
	}
	if (page.next_link.p != NULL)
	{
		dv_asker_follow(&v->asker, ask, page.next_link);
		return false;
	}
	return true;
}

DvVerifyChunk *
dv_verify_key_rows(const DvKeyAsk *part, const int **rows, int *n)
{
	*rows = part->rows;
	*n = part->n;
	return part->chunk;
}

/* ---------------------------------------------------------------- twins */

void
dv_verify_ask_twins(DvVerify *v, DvVerifyChunk *chunk, int from, int n)
{
	int		   *rows;
	int			count = 0;
	int			i;

	if (v->key_column < 0 || v->resend != NULL || v->rebuild != NULL || v->projection->link != NULL)
		return;
	rows = palloc(sizeof(int) * (n + 1));
	for (i = from; i < from + n; i++)
	{
		const DvVerifyRow *row = &chunk->rows[i];

		if (dv_verify_is_loaded(row) && row->has_id && (v->twins_of_all || !row->seen) && dv_verify_has_key(v, row))
			rows[count++] = i;
	}
	dv_verify_ask_keys(v, chunk, rows, count);
	pfree(rows);
}

static void
found_twin(DvKeyAsk *part, int row, const pg_uuid_t *id)
{
	int			i;

	if (memcmp(&part->chunk->rows[row].id, id, UUID_LEN) == 0)
		return;
	for (i = 0; i < part->ntwins; i++)
		if (memcmp(&part->twins[i].id, id, UUID_LEN) == 0 && part->twins[i].row == row)
			return;				/* an answer that was not whole is asked for again */
	if (part->ntwins == part->room)
	{
		part->room = part->room ? part->room * 2 : 8;
		part->twins = part->twins ? repalloc(part->twins, sizeof(Twin) * part->room)
			: MemoryContextAlloc(part->chunk->context, sizeof(Twin) * part->room);
	}
	part->twins[part->ntwins].row = row;
	part->twins[part->ntwins++].id = *id;
}

/* Those that belong to rows of other staging tables are theirs. */
static void
note_twins(DvVerify *v, DvKeyAsk *part)
{
	Datum	   *ids = palloc(sizeof(Datum) * part->ntwins);
	DvArrays	a = {.n = part->ntwins};
	uint64		i;

	for (i = 0; i < (uint64) part->ntwins; i++)
		ids[i] = UUIDPGetDatum(&part->twins[i].id);
	dv_spi_begin("dvmig: looking whose records have the same key");
	dv_spi_wait_briefly();
	dv_keys_add(&a, ids, NULL, UUIDOID);
	dv_spi_run(v->twins_sql, a.count, a.types, a.values, NULL, SPI_OK_SELECT);
	for (i = 0; i < SPI_processed; i++)
	{
		const Twin *twin = &part->twins[atoi(dv_spi_text((int) i, 1)) - 1];
		DvVerifyRow row = part->chunk->rows[twin->row];
		const DvVerifyColumn *c = &v->columns[v->key_column];

		row.id = twin->id;
		v->extra++;
		dv_verify_note(v, &row, c->name, (DvSlice) {NULL, 0}, row.expected[v->key_column], "extra");
	}
	dv_spi_commit(true);
}

void
dv_verify_twins_answer(DvVerify *v, DvAsk *ask, const DvHttpReply *reply)
{
	DvKeyAsk   *part = ask->arg;

	if (!dv_verify_key_answer(v, ask, reply, found_twin))
		return;
	if (part->ntwins > 0)
		note_twins(v, part);
	dv_verify_release(part->chunk);
}

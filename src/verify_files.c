/*
 * verify_files.c - the bytes of files, read back
 *
 * The staging rows of a chunk give size and hash of their files. Once a record
 * has been seen, each file is asked for, a range at a time, so that memory holds
 * one, and what comes is hashed.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "compat.h"
#include "encode.h"
#include "keys.h"
#include "sha256.h"
#include "spi.h"
#include "verify.h"

/* Bytes of one range: as many as an upload sends at once. */
#define RANGE_BYTES		(4 * 1024 * 1024)

/* A file on its way. */
struct DvVerifyFileAsk
{
	DvVerifyRow *row;
	int			file;			/* index in the projection's files */
	int64		got;
	DvSha256	hash;
	char		range[64];		/* header line */
};

/* ---------------------------------------------------------------- what the rows have */

/* The SQL of all bytes, out of that of a part: $1 is an offset, $2 a length. */
static char *
whole_sql(const DvFileColumn *c)
{
	StringInfoData sql;
	const char *p;

	initStringInfo(&sql);
	for (p = c->bytes_sql; *p; p++)
	{
		if (p[0] == '$' && (p[1] == '1' || p[1] == '2'))
		{
			if (p[1] == '1')
				appendStringInfoString(&sql, "0");
			else
				appendStringInfo(&sql, "(%s)::pg_catalog.int4", c->size_sql);
			p++;
		}
		else
			appendStringInfoChar(&sql, *p);
	}
	return sql.data;
}

void
dv_verify_read_files(DvVerify *v, DvVerifyChunk *chunk)
{
	const DvProjection *p = v->projection;
	DvArrays	places = {.n = chunk->n};	/* where the rows are */
	Datum	   *ctids;
	Datum	   *tables;
	int			k;
	int			i;

	if (p->nfiles == 0 || chunk->n == 0 || v->resend != NULL || v->rebuild != NULL)
		return;
	ctids = palloc(sizeof(Datum) * chunk->n);
	tables = palloc(sizeof(Datum) * chunk->n);
	for (i = 0; i < chunk->n; i++)
	{
		ctids[i] = PointerGetDatum(&chunk->rows[i].version.ctid);
		tables[i] = ObjectIdGetDatum(chunk->rows[i].version.tableoid);
		if (chunk->rows[i].state == 'P')
			chunk->rows[i].files = MemoryContextAllocZero(chunk->context, sizeof(DvVerifyFile) * p->nfiles);
	}
	dv_keys_add(&places, ctids, NULL, TIDOID);
	dv_keys_add(&places, tables, NULL, OIDOID);
	for (k = 0; k < p->nfiles; k++)
	{
		int			n = (int) dv_spi_run(psprintf("SELECT u.n, %s, pg_catalog.sha256(%s) FROM unnest($1, $2) WITH ORDINALITY u(c, t, n)"
												  " JOIN %s s ON s.ctid = u.c AND s.tableoid = u.t WHERE (%s) IS NOT NULL",
												  p->files[k].size_sql, whole_sql(&p->files[k]), p->staging_sql, p->files[k].size_sql),
									 places.count, places.types, places.values, NULL, SPI_OK_SELECT);

		for (i = 0; i < n; i++)
		{
			DvVerifyRow *row = &chunk->rows[atoi(dv_spi_text(i, 1)) - 1];
			bool		isnull;
			bytea	   *digest = DatumGetByteaPP(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 3, &isnull));

			if (row->files == NULL)
				continue;
			row->files[k].there = true;
			row->files[k].size = strtoll(dv_spi_text(i, 2), NULL, 10);
			memcpy(row->files[k].digest, VARDATA_ANY(digest), DV_SHA256_DIGEST);
		}
	}
}

/* ---------------------------------------------------------------- what Dataverse has */

static void
next_range(DvVerifyFileAsk *file)
{
	snprintf(file->range, sizeof(file->range), "Range: bytes=" INT64_FORMAT "-" INT64_FORMAT, file->got, file->got + RANGE_BYTES - 1);
}

void
dv_verify_ask_files(DvVerify *v, DvVerifyChunk *chunk, int from, int n)
{
	const DvProjection *p = v->projection;
	int			i;
	int			k;

	for (i = from; i < from + n; i++)
		for (k = 0; k < p->nfiles && chunk->rows[i].files != NULL && chunk->rows[i].seen; k++)
		{
			DvVerifyRow *row = &chunk->rows[i];
			DvVerifyFileAsk *file;
			DvAsk	   *ask;
			char		id[37];

			if (!row->files[k].there)
				continue;
			file = MemoryContextAllocZero(v->asker.context, sizeof(DvVerifyFileAsk));
			file->row = row;
			file->file = k;
			dv_sha256_init(&file->hash);
			ask = dv_verify_new_ask(v, chunk, file);
			dv_source_format_id(&row->id, id);
			dv_buf_puts(&ask->path, psprintf("/%s(%s)/%s/$value", p->wire.entity_set, id, p->files[k].column));
			next_range(file);
			ask->prefer = file->range;
			dv_asker_queue(&v->asker, ask);
		}
}

static void
differs(DvVerify *v, DvVerifyFileAsk *file, const char *found)
{
	const DvVerifyFile *expected = &file->row->files[file->file];
	char	   *what = psprintf("\"" INT64_FORMAT " bytes, sha256 %s\"", expected->size, dv_verify_hex(expected->digest, 8));
	char	   *quoted = found ? psprintf("\"%s\"", found) : NULL;

	dv_verify_different_too(v, file->row, v->projection->files[file->file].column, (DvSlice) {what, strlen(what)},
							(DvSlice) {quoted, quoted ? strlen(quoted) : 0});
}

bool
dv_verify_file_answer(DvVerify *v, DvVerifyFileAsk *file, DvAsk *ask, const DvHttpReply *reply)
{
	const DvVerifyFile *expected = &file->row->files[file->file];
	unsigned char digest[DV_SHA256_DIGEST];

	if (reply->status == 404 || reply->status == 204 || (reply->status == 416 && expected->size > 0 && file->got == 0))
		differs(v, file, NULL);
	else if (reply->status == 200 || reply->status == 206 || reply->status == 416)
	{
		if (reply->status != 416)
			dv_sha256_update(&file->hash, reply->body.data, reply->body.len);
		file->got += reply->status == 416 ? 0 : (int64) reply->body.len;
		if (reply->status == 206 && reply->body.len == RANGE_BYTES && file->got < expected->size)
		{
			next_range(file);
			dv_asker_again(&v->asker, ask, true);
			return false;
		}
		dv_sha256_final(&file->hash, digest);
		if (file->got != expected->size)
			differs(v, file, psprintf(INT64_FORMAT "%s bytes", file->got, reply->status == 206 && file->got > expected->size ? " or more" : ""));
		else if (memcmp(digest, expected->digest, sizeof(digest)) != 0)
			differs(v, file, psprintf(INT64_FORMAT " bytes, sha256 %s", file->got, dv_verify_hex(digest, 8)));
	}
	else
	{
		dv_asker_fail_answer(&v->asker, reply);
		return true;
	}
	v->files_compared++;
	return true;
}

/*
 * verify_files.c - the bytes of files and images, read back
 *
 * The staging rows of a chunk give size and hash of their files. Once a record
 * has been seen, each file is asked for, a range at a time, so that memory holds
 * one, and what comes is hashed. What an image's answer means: verify_images.c.
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

/* A file or image on its way. */
struct DvVerifyFileAsk
{
	DvVerifyRow *row;
	const DvVerifyFile *expected;
	const char *column;
	DvVerifyColumn *image;		/* or NULL: a file */
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
			char	   *size = dv_spi_text(i, 2);
			bool		isnull;
			Datum		digest = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 3, &isnull);

			/* of a volatile expression, the condition may have seen a file that there is not now */
			if (row->files == NULL || size == NULL || isnull)
				continue;
			row->files[k].there = true;
			row->files[k].size = strtoll(size, NULL, 10);
			memcpy(row->files[k].digest, VARDATA_ANY(DatumGetByteaPP(digest)), DV_SHA256_DIGEST);
		}
	}
}

/* ---------------------------------------------------------------- what Dataverse has */

static void
next_range(DvVerifyFileAsk *file)
{
	snprintf(file->range, sizeof(file->range), "Range: bytes=" INT64_FORMAT "-" INT64_FORMAT, file->got, file->got + RANGE_BYTES - 1);
}

/* Ask for the first range. */
static void
ask_for(DvVerify *v, DvVerifyChunk *chunk, DvVerifyRow *row, const char *column, const DvVerifyFile *expected, DvVerifyColumn *image)
{
	DvVerifyFileAsk *file = MemoryContextAllocZero(v->asker.context, sizeof(DvVerifyFileAsk));
	DvAsk	   *ask;
	char		id[37];

	file->row = row;
	file->expected = expected;
	file->column = column;
	file->image = image;
	dv_sha256_init(&file->hash);
	ask = dv_verify_new_ask(v, chunk, file);
	dv_source_format_id(&row->id, id);
	dv_buf_puts(&ask->path, psprintf("/%s(%s)/%s/$value%s", v->projection->wire.entity_set, id, column, image ? "?size=full" : ""));
	next_range(file);
	ask->prefer = file->range;
	dv_asker_queue(&v->asker, ask);
}

void
dv_verify_ask_files(DvVerify *v, DvVerifyChunk *chunk, int from, int n)
{
	const DvProjection *p = v->projection;
	int			i;
	int			k;

	for (i = from; i < from + n; i++)
		for (k = 0; k < p->nfiles && chunk->rows[i].files != NULL && chunk->rows[i].seen; k++)
			if (chunk->rows[i].files[k].there)
				ask_for(v, chunk, &chunk->rows[i], p->files[k].column, &chunk->rows[i].files[k], NULL);
}

void
dv_verify_ask_images(DvVerify *v, DvVerifyChunk *chunk, int from, int n)
{
	int			i;
	int			k;

	for (i = from; i < from + n; i++)
		for (k = 0; k < v->nimages && chunk->rows[i].images != NULL; k++)
			if (chunk->rows[i].images[k].wanted && v->images[k]->full_image != DV_IMAGE_NOT_KEPT)
				ask_for(v, chunk, &chunk->rows[i], v->images[k]->name, &chunk->rows[i].images[k], v->images[k]);
}

char *
dv_verify_file_text(const DvVerifyFile *f)
{
	return psprintf(INT64_FORMAT " bytes, sha256 %s", f->size, dv_verify_hex(f->digest, 8));
}

static void
differs(DvVerify *v, DvVerifyFileAsk *file, const char *found)
{
	char	   *what = psprintf("\"%s\"", dv_verify_file_text(file->expected));
	char	   *quoted = found ? psprintf("\"%s\"", found) : NULL;
	DvSlice		expected = {what, strlen(what)};
	DvSlice		there = {quoted, quoted ? strlen(quoted) : 0};

	if (file->image != NULL)
		dv_verify_image_answer(v, file->image, file->row, DV_IMAGE_DIFFERS, expected, there);
	else
		dv_verify_different_too(v, file->row, file->column, expected, there);
}

/* All of it has come. */
static void
judge(DvVerify *v, DvVerifyFileAsk *file, bool more)
{
	DvVerifyFile found = {.size = file->got};
	DvSlice		nothing = {NULL, 0};

	dv_sha256_final(&file->hash, found.digest);
	if (file->got != file->expected->size)
		differs(v, file, psprintf(INT64_FORMAT "%s bytes", file->got, more && file->got > file->expected->size ? " or more" : ""));
	else if (memcmp(found.digest, file->expected->digest, sizeof(found.digest)) != 0)
		differs(v, file, dv_verify_file_text(&found));
	else if (file->image != NULL)
		dv_verify_image_answer(v, file->image, file->row, DV_IMAGE_EQUAL, nothing, nothing);
}

/* The service has no such image to tell: none at all, none as it was sent, or none for anybody. */
static bool
is_not_told(const DvVerifyFileAsk *file, int status)
{
	return file->image != NULL && file->got == 0 && (status == 204 || (status >= 400 && status < 500 && status != 401 && status != 403 && status != 416));
}

bool
dv_verify_file_answer(DvVerify *v, DvVerifyFileAsk *file, DvAsk *ask, const DvHttpReply *reply)
{
	DvSlice		nothing = {NULL, 0};
	int			status = (int) reply->status;

	if (is_not_told(file, status))
		dv_verify_image_answer(v, file->image, file->row, DV_IMAGE_NOT_TOLD, nothing, nothing);
	else if (file->got > 0 && file->got == file->expected->size && (status == 204 || status == 404 || status == 416))
		judge(v, file, false);	/* there was no more */
	else if (status == 404 || status == 204 || (status == 416 && file->expected->size > 0 && file->got == 0))
		differs(v, file, NULL);
	else if (status == 200 || status == 206 || status == 416)
	{
		if (status != 416)
			dv_sha256_update(&file->hash, reply->body.data, reply->body.len);
		file->got += status == 416 ? 0 : (int64) reply->body.len;
		if (status == 206 && reply->body.len == RANGE_BYTES && file->got <= file->expected->size)
		{
			next_range(file);
			dv_asker_again(&v->asker, ask, true);
			return false;
		}
		judge(v, file, status == 206);
	}
	else
		dv_asker_fail_answer(&v->asker, reply);
	return true;
}

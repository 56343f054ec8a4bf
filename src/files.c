/*
 * files.c - the pass that uploads file columns
 *
 * A file goes by requests of its own: one, where it is small, else an upload
 * session and a request for each chunk. Chunks are read from the table one at a
 * time, so that memory holds one. An upload may be repeated: it replaces what is
 * there. A hash of names and bytes tells files that were uploaded already.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "answer.h"
#include "encode.h"
#include "files.h"
#include "gate.h"
#include "reader.h"
#include "request.h"
#include "servertext.h"
#include "sha256.h"
#include "spi.h"
#include "wiretext.h"
#include "worker.h"

/* Bytes of a chunk; Dataverse asks for 4 MiB (x-ms-chunk-size), and takes less. */
#define CHUNK_BYTES		(4 * 1024 * 1024)

/* Pause between two looks for a stop, or at a table that a user locks, in milliseconds. */
#define LOOK_MS			100

/* Tries of one file that fails for a passing reason. */
#define FILE_TRIES		8

/* Header lines of an upload request: type, name, the table's, one of the upload, and a NULL. */
#define FILE_HEADERS	(4 + DV_REQUEST_HEADERS_MAX)

typedef struct Upload
{
	DvStep	   *step;
	DvRow	   *row;
	const DvFileColumn *column;
	bool		left;			/* the row stays as it is: its version is gone, or the run stops */
	bool		has_file;
	int64		size;
	char	   *name;
	int64		offset;			/* of the chunk */
	int32		length;
	char	   *chunk;			/* CHUNK_BYTES of room */
	DvVerdict	verdict;		/* of the last request, or our own */
} Upload;

const char *
dv_files_text(const DvRow *row)
{
	char	   *text = palloc(2 * sizeof(row->hash) + 1);

	hex_encode((const char *) row->hash, sizeof(row->hash), text);
	text[2 * sizeof(row->hash)] = '\0';
	return text;
}

static void
own_verdict(Upload *u, DvVerdictKind kind, const char *error_class, const char *code, const char *message)
{
	u->verdict = *dv_encode_verdict(error_class, code, u->column->column, message);
	u->verdict.kind = kind;
}

/* Wait outside of a transaction, looking for a stop. */
static void
pause_until(DvStep *step, TimestampTz until)
{
	while (!step->rc->stopping && GetCurrentTimestamp() < until)
	{
		dv_worker_wait(LOOK_MS);
		dv_worker_tick(step);
	}
}

/* Run a query over the row version; false where that is gone. */
static bool
query_row(Upload *u, const char *sql)
{
	DvVersion  *v = &u->row->version;
	Oid			types[6] = {INT8OID, INT4OID, TIDOID, XIDOID, OIDOID, OIDOID};
	Datum		values[6] = {Int64GetDatum(u->offset), Int32GetDatum(u->length), PointerGetDatum(&v->ctid),
	TransactionIdGetDatum(v->xmin), ObjectIdGetDatum(v->tableoid), ObjectIdGetDatum(v->filenode)};

	return dv_spi_run(psprintf("SELECT %s FROM %s s WHERE " DV_IS_VERSION("$3", "$4", "$5", "$6") " AND $1 >= 0 AND $2 >= 0",
							   sql, u->step->projection->staging_sql),
					  6, types, values, NULL, SPI_OK_SELECT) == 1;
}

/* Size and name of the file, if the row has one; false where the row's version is gone. */
static bool
take_size(Upload *u)
{
	const DvFileColumn *c = u->column;
	bool		isnull;

	if (!query_row(u, psprintf("%s, coalesce(%s, 'file')", c->size_sql, c->name_sql)))
		return false;
	u->size = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	u->has_file = !isnull;
	u->name = MemoryContextStrdup(u->row->batch->context, dv_server_text_utf8(dv_spi_text(0, 2)));
	return true;
}

/* Bytes of the file; false where the row's version is gone, or its large object was changed. */
static bool
take_chunk(Upload *u)
{
	bool		isnull;
	Datum		value;
	bytea	   *bytes;

	if (!query_row(u, u->column->bytes_sql))
		return false;
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	bytes = isnull ? NULL : DatumGetByteaPP(value);
	if (bytes == NULL || VARSIZE_ANY_EXHDR(bytes) != (Size) u->length)
		return false;
	memcpy(u->chunk, VARDATA_ANY(bytes), u->length);
	return true;
}

/* One look at the row in a transaction of its own; NULL, or the error it met. */
static ErrorData *
try_look(Upload *u, bool (*take) (Upload *u))
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		dv_spi_begin("dvmig: reading a file");
		dv_spi_wait_briefly();
		u->left = !take(u);
		dv_spi_commit(true);
	}
	PG_CATCH();
	{
		error = dv_spi_abort(context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return error;
}

/*
 * Look at the row; false where it is left, or its expression throws: then it has
 * its verdict. A user who locks the table is waited for outside of a transaction.
 */
static bool
look(Upload *u, bool (*take) (Upload *u))
{
	ErrorData  *error;

	while ((error = try_look(u, take)) != NULL)
	{
		if (dv_source_is_row_fault(error))
		{
			own_verdict(u, DV_FAIL_ROW, "transform", unpack_sql_state(error->sqlerrcode), error->message);
			return false;
		}
		if (!dv_spi_is_contention(error))
			ReThrowError(error);
		pause_until(u->step, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_MS));
		u->left = u->step->rc->stopping;
		if (u->left)
			return false;
	}
	return !u->left;
}

static bool
describe(Upload *u)
{
	u->offset = u->length = 0;
	return look(u, take_size);
}

/* Bytes from an offset on, into u->chunk. */
static bool
read_chunk(Upload *u, int64 offset)
{
	u->offset = offset;
	u->length = (int32) Min(CHUNK_BYTES, u->size - offset);
	return look(u, take_chunk);
}

/*
 * Only the beginning of a session says where to go on, and nothing else has a
 * body: 200 with one is of something before the service, such as a page to log in.
 */
static bool
is_accepted(const DvHttpReply *reply, bool more)
{
	return reply->status == 204 || (more && reply->status == 206) ||
		(reply->status == 200 && (reply->location[0] != '\0' || reply->body.len == 0));
}

/* Wait for a place among the requests of our user; false where the run stops. */
static bool
enter_gate(Upload *u, int rows)
{
	while (!dv_gate_enter(u->step, rows, GetCurrentTimestamp()))
	{
		pause_until(u->step, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_MS));
		u->left = u->step->rc->stopping;
		if (u->left)
			return false;
	}
	return true;
}

/* Send a request and wait for its answer; NULL where the run stops, and the time that answers have then is over. */
static DvHttpReply *
call(Upload *u, const char *path, const char *const *headers, Size length)
{
	DvRunContext *rc = u->step->rc;
	DvHttpReply *reply;

	dv_session_send(rc->session, "PATCH", path, u->chunk, length, headers, NULL);
	while ((reply = dv_session_poll(rc->session, LOOK_MS, NULL)) == NULL)
	{
		dv_worker_tick(u->step);
		if (rc->stopping && dv_engine_stop_overdue(rc))
		{
			dv_engine_abandon(u->step);
			u->left = true;
			return NULL;
		}
	}
	dv_gate_leave(u->step);
	return reply;
}

/* It has no answer, and may still be carried out. */
static void
unanswered(Upload *u, const char *message)
{
	own_verdict(u, DV_RETRY, "unanswered", "unanswered", message);
	dv_answer_outage(u->step, GetCurrentTimestamp(), message);
	dv_engine_doubt(u->step);
}

/*
 * Send one request, the first of so many rows, and judge its answer; "more" tells
 * whether chunks follow. NULL where the run stops before it could be sent or answered.
 */
static DvHttpReply *
send_part(Upload *u, const char *path, const char *const *headers, Size length, int rows, bool more)
{
	DvStep	   *step = u->step;
	DvHttpReply *reply;
	DvWireReply w;

	memset(&u->verdict, 0, sizeof(u->verdict));
	u->verdict.kind = DV_RETRY;
	if (!enter_gate(u, rows))
		return NULL;
	step->counters.requests++;
	step->counters.bytes_sent += length;
	reply = call(u, path, headers, length);
	if (reply == NULL)
		return NULL;
	if (reply->transport != DV_HTTP_ANSWERED)
		unanswered(u, reply->error[0] ? reply->error : "no answer");
	else if (is_accepted(reply, more))
	{
		u->verdict.kind = DV_DONE;
		dv_answer_good(step, reply);
	}
	else if (reply->status / 100 == 2)
		unanswered(u, "not an answer of Dataverse to an upload");
	else
	{
		w = dv_answer_wire_reply(reply);
		dv_wire_error(&w, 'U', true, &u->verdict);
		strlcpy(u->verdict.column, u->column->column, sizeof(u->verdict.column));
		if (u->verdict.kind == DV_FAIL_RUN)
			dv_answer_fail_run(step, reply, &u->verdict);
	}
	return reply;
}

/* Names that a header may hold as they are. */
static bool
is_plain(const char *name)
{
	for (; *name; name++)
		if (*name < ' ' || *name > '~' || *name == '"')
			return false;
	return true;
}

static char *
percent_encoded(const char *text)
{
	StringInfoData out;

	initStringInfo(&out);
	dv_reader_encode(&out, text, strlen(text));
	return out.data;
}

/* Header lines common to all requests of an upload; returns where more go. */
static int
common_headers(Upload *u, const char **headers)
{
	int			n = 0;

	/* said always: libcurl would call an empty body a form */
	headers[n++] = "Content-Type: application/octet-stream";
	if (is_plain(u->name))
		headers[n++] = psprintf("x-ms-file-name: %s", u->name);
	n += dv_request_headers(&u->step->projection->wire, u->row, headers + n);
	headers[n] = NULL;
	return n;
}

/* The chunks of a file that has a session. */
static void
send_chunks(Upload *u, const char *path)
{
	const char *headers[FILE_HEADERS];
	int			n = common_headers(u, headers);
	int64		offset;

	for (offset = 0; offset < u->size; offset += CHUNK_BYTES)
	{
		if (!read_chunk(u, offset))
			return;
		headers[n] = psprintf("Content-Range: bytes " INT64_FORMAT "-" INT64_FORMAT "/" INT64_FORMAT, offset, offset + u->length - 1, u->size);
		headers[n + 1] = NULL;
		dv_http_reply_free(send_part(u, path, headers, u->length, 0, offset + u->length < u->size));
		dv_worker_tick(u->step);
		/* a stop waits for no more than the answer at hand */
		u->left |= u->step->rc->stopping && offset + u->length < u->size;
		if (u->verdict.kind != DV_DONE || u->left)
			return;
	}
}

/* One try to upload the file. */
static void
upload_once(Upload *u)
{
	const DvWireTable *t = &u->step->projection->wire;
	char	   *path = psprintf("/%s(%s)/%s%s%s", t->entity_set, u->row->wire.id, u->column->column,
								is_plain(u->name) ? "" : "?x-ms-file-name=", is_plain(u->name) ? "" : percent_encoded(u->name));
	const char *headers[FILE_HEADERS];
	int			n = common_headers(u, headers);
	DvHttpReply *reply;
	const char *next;

	if (u->size <= CHUNK_BYTES)
	{
		if (read_chunk(u, 0))
			dv_http_reply_free(send_part(u, path, headers, (Size) u->size, 1, false));
		return;
	}
	headers[n] = "x-ms-transfer-mode: chunked";
	headers[n + 1] = NULL;
	reply = send_part(u, path, headers, 0, 1, true);
	if (u->verdict.kind == DV_DONE)
	{
		next = dv_wiretext_below(reply->location, u->step->projection->wire.api_path);
		if (next == NULL)
			own_verdict(u, DV_FAIL_ROW, "other", "upload_location", "the service gave no address for the upload");
		else
			send_chunks(u, pstrdup(next));
	}
	dv_http_reply_free(reply);
}

/* Upload the file, again where it may help; true once it is there. */
static bool
upload(Upload *u)
{
	int			tries = 0;
	int			waits = 0;

	while (!u->step->rc->stopping)
	{
		upload_once(u);
		if (u->left)
			return false;
		switch (u->verdict.kind)
		{
			case DV_DONE:
				return true;
			case DV_WAIT:
				dv_answer_throttled(u->step, &u->verdict, waits++);
				break;
			case DV_RETRY:
			case DV_SETTLE:
			case DV_SHRINK:
				/* an outage is waited for: dvmig.max_outage ends the run */
				if (strcmp(u->verdict.code, "unanswered") != 0 && ++tries >= FILE_TRIES)
					return false;
				pause_until(u->step, dv_answer_backoff(Max(tries, 1)));
				break;
			default:
				return false;
		}
	}
	u->left = true;
	return false;
}

/* Add a file to the hash of the row's files. */
static bool
hash_file(Upload *u, DvSha256 *hash)
{
	int64		offset;

	dv_sha256_update(hash, u->column->column, strlen(u->column->column) + 1);
	dv_sha256_update(hash, u->name, strlen(u->name) + 1);
	dv_sha256_update(hash, &u->size, sizeof(u->size));
	for (offset = 0; offset < u->size; offset += CHUNK_BYTES)
	{
		CHECK_FOR_INTERRUPTS();
		if (!read_chunk(u, offset))
			return false;
		dv_sha256_update(hash, u->chunk, u->length);
	}
	return true;
}

/* Is a large object gone, or a file larger than its column takes? */
static bool
is_unfit(Upload *u)
{
	if (u->size < 0)
	{
		own_verdict(u, DV_FAIL_ROW, "transform", "file_missing", "there is no large object of this oid");
		return true;
	}
	if (u->column->max_size <= 0 || u->size <= u->column->max_size)
		return false;
	own_verdict(u, DV_FAIL_ROW, "length", "file_too_big",
				psprintf("the file has " INT64_FORMAT " bytes, and the column takes " INT64_FORMAT, u->size, u->column->max_size));
	return true;
}

/* Hash all files of a row into row->hash; false where it is left, or has a verdict. */
static bool
hash_files(Upload *u, bool *unchanged)
{
	DvSha256	hash;
	unsigned char digest[DV_SHA256_DIGEST];
	int			i;

	dv_sha256_init(&hash);
	for (i = 0; i < u->step->projection->nfiles; i++)
	{
		u->column = &u->step->projection->files[i];
		if (!describe(u))
			return false;
		if (u->has_file && (is_unfit(u) || !hash_file(u, &hash)))
			return false;
	}
	dv_sha256_final(&hash, digest);
	/* a forgotten request may have put another file there */
	*unchanged = u->row->has_hash && !u->step->forgotten && memcmp(u->row->hash, digest, sizeof(u->row->hash)) == 0;
	memcpy(u->row->hash, digest, sizeof(u->row->hash));
	/* not the hash of the row's content */
	u->row->has_hash = false;
	return true;
}

/* Upload all files of a row; false where it is left, or has a verdict. */
static bool
upload_files(Upload *u)
{
	DvStep	   *step = u->step;
	int			i;

	for (i = 0; i < step->projection->nfiles; i++)
	{
		u->column = &step->projection->files[i];
		if (!describe(u))
			return false;
		if (!u->has_file)
			continue;
		u->row->attempts++;
		step->counters.rows_sent++;
		if (!upload(u))
			return false;
	}
	return true;
}

static void
upload_row(Upload *u)
{
	DvStep	   *step = u->step;
	bool		unchanged;

	if (hash_files(u, &unchanged) && (unchanged || upload_files(u)))
		dv_outcome_success(step, u->row, unchanged ? "files unchanged" : "files uploaded");
	else if (u->left || u->verdict.kind == DV_FAIL_RUN)
	{
		/* what was sent of it may be there */
		step->unsettled |= u->row->attempts > 0;
		dv_answer_leave_row(step, u->row);
	}
	else
		dv_outcome_failure(step, u->row, &u->verdict);
}

void
dv_files_send(DvStep *step, DvRow **rows, int n)
{
	MemoryContext scratch = AllocSetContextCreate(step->context, "dvmig upload", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	char	   *chunk = MemoryContextAllocHuge(step->context, CHUNK_BYTES);
	int			i;

	pause_until(step, dv_engine_hold_until(step));
	for (i = 0; i < n; i++)
	{
		Upload		u = {.step = step,.row = rows[i],.chunk = chunk};

		if (step->rc->stopping)
			dv_answer_leave_row(step, rows[i]);
		else
		{
			dv_worker_tick(step);
			upload_row(&u);
			dv_outcome_record(step);
		}
		MemoryContextReset(scratch);
	}
	pfree(chunk);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}

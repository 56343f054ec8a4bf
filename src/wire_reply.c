/*
 * wire_reply.c - replies to verdicts
 *
 * The rule of this file: success must be proven by an answer of exactly the
 * expected form, for exactly the rows that were sent. Whatever falls short of
 * that is an unknown outcome, and the ids are read back.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "multipart.h"
#include "reply.h"
#include "wire.h"
#include "wiretext.h"

/* Refused as a whole: no rule for a single record holds (see verdict.h). */
#define OP_BATCH	'B'
#define OP_READ		'R'

static void
verdict_init(DvVerdict *v, const DvWireReply *reply)
{
	memset(v, 0, sizeof(DvVerdict));
	v->http_status = reply->status;
	v->retry_after_ms = reply->retry_after_ms;
	if (reply->request_id != NULL)
		dv_wiretext_ascii(v->request_id, sizeof(v->request_id), reply->request_id, strlen(reply->request_id));
}

static void
verdict_done(DvVerdict *v, const DvWireReply *reply)
{
	verdict_init(v, reply);
	v->kind = DV_DONE;
}

/* Outcome unknown, with the reason in words. */
static void
verdict_settle(DvVerdict *v, const DvWireReply *reply, const char *why)
{
	verdict_init(v, reply);
	v->kind = DV_SETTLE;
	snprintf(v->error_class, sizeof(v->error_class), "unavailable");
	snprintf(v->message, sizeof(v->message), "%s", why);
}

/* What a page that is not Dataverse's says of itself: its title, or its text. */
static void
describe_text(const DvWireReply *reply, DvVerdict *v)
{
	const char *type = reply->content_type != NULL ? reply->content_type : "no content type";
	const char *text = reply->body;
	size_t		len = reply->len;
	const char *title = len > 0 ? dv_wiretext_find(text, len, "<title>") : NULL;
	char		shown[160] = "";
	char		kind[80];
	const char *end;

	if (title != NULL)
	{
		title += strlen("<title>");
		len -= (size_t) (title - text);
		end = dv_wiretext_find(title, len, "</title>");
		dv_wiretext_copy(shown, sizeof(shown), title, end != NULL ? (size_t) (end - title) : len);
	}
	else if (len > 0 && dv_wiretext_find(type, strlen(type), "text/plain") == type)
		dv_wiretext_copy(shown, sizeof(shown), text, len);
	dv_wiretext_copy(kind, sizeof(kind), type, strlen(type));
	snprintf(v->message, sizeof(v->message), "HTTP status %d without an error object of Dataverse (%s)%s%s",
			 reply->status, kind, shown[0] ? ": " : "", shown);
}

void
dv_wire_error(const DvWireReply *reply, char op, bool single, DvVerdict *v)
{
	verdict_init(v, reply);
	if (!dv_reply_error(reply->body, reply->len, v))
		describe_text(reply, v);
	dv_verdict_classify(v, op, single);
	if (v->message[0] == '\0')
		describe_text(reply, v);
}

static void
copy_verdict(DvVerdict *v, int n)
{
	int			i;

	for (i = 1; i < n; i++)
		v[i] = v[0];
}

static bool
has_bind(const DvWireRow *row)
{
	return row->content_len > 0 && dv_wiretext_find(row->content, row->content_len, "@odata.bind\"") != NULL;
}

/*
 * "Does not exist" in answer to an update or delete of one row: the record
 * itself, or one that it (or a plug-in) points at? The text names the id.
 */
static void
whose_record(const DvWireRow *row, DvVerdict *v)
{
	size_t		len = strlen(v->message);
	size_t		pos = 0;
	char		id[37];
	bool		ours = false;
	bool		other = false;

	if (v->kind != DV_GONE && !(v->kind == DV_DONE && row->op == 'D'))
		return;
	while (dv_wiretext_next_uuid(v->message, len, &pos, id))
	{
		if (strcmp(id, row->id) == 0)
			ours = true;
		else
			other = true;
	}
	if (ours)
		return;
	if (other || has_bind(row))
	{
		v->kind = DV_FAIL_ROW;
		snprintf(v->error_class, sizeof(v->error_class), "lookup");
	}
}

static void
error_of_row(const DvWireReply *reply, const DvWireRow *row, DvVerdict *v)
{
	dv_wire_error(reply, row->op, true, v);
	whose_record(row, v);
}

/* Ids that Dataverse made must be different ones. */
static bool
all_differ(char (*ids)[37], int n)
{
	int			i;
	int			j;

	for (i = 0; i < n; i++)
		for (j = 0; j < i; j++)
			if (memcmp(ids[i], ids[j], 36) == 0)
				return false;
	return true;
}

/* Success of CreateMultiple: NULL, or what is wrong with it. */
static const char *
check_created(const DvWireReply *reply, const DvWireRow *const *rows, int n, char (*ids_out)[37])
{
	char		(*ids)[37] = malloc((size_t) n * 37);
	const char *fault = NULL;
	bool		made = false;
	int			i;

	if (ids == NULL)
		return "out of memory while reading the answer";
	if (!dv_reply_ids(reply->body, reply->len, n, ids))
		fault = "the answer to CreateMultiple does not have one id for every row";
	for (i = 0; fault == NULL && i < n; i++)
	{
		made |= rows[i]->id[0] == '\0';
		if (rows[i]->id[0] != '\0' && !dv_wiretext_same(ids[i], 36, rows[i]->id))
			fault = "the answer to CreateMultiple has other ids than those sent";
	}
	if (fault == NULL && made && !all_differ(ids, n))
		fault = "the answer to CreateMultiple has an id twice";
	for (i = 0; fault == NULL && ids_out != NULL && i < n; i++)
		if (rows[i]->id[0] == '\0')
			memcpy(ids_out[i], ids[i], 37);
	free(ids);
	return fault;
}

static bool
is_empty(const char *text, size_t len)
{
	dv_wiretext_trim(&text, &len);
	return len == 0;
}

static void
no_ids(char (*ids_out)[37], int n)
{
	int			i;

	for (i = 0; ids_out != NULL && i < n; i++)
		ids_out[i][0] = '\0';
}

void
dv_wire_bulk_reply(const DvWireReply *reply, const DvWireRow *const *rows,
				   int n, DvVerdict *v, char (*ids_out)[37])
{
	const char *fault = NULL;

	if (n <= 0)
		return;
	no_ids(ids_out, n);
	if (reply->status >= 400)
	{
		if (n == 1)
			error_of_row(reply, rows[0], &v[0]);
		else
			dv_wire_error(reply, rows[0]->op, false, &v[0]);
	}
	else
	{
		if (rows[0]->op == 'I' && (reply->status == 200 || reply->status == 201))
			fault = check_created(reply, rows, n, ids_out);
		else if (rows[0]->op != 'U' || reply->status != 204 || !is_empty(reply->body, reply->len))
			fault = "the answer to a bulk message has not the form of a success";
		if (fault == NULL)
			verdict_done(&v[0], reply);
		else
			verdict_settle(&v[0], reply, fault);
	}
	copy_verdict(v, n);
}

/* One part of a $batch seen as a reply of its own. */
static DvWireReply
part_reply(const DvWireReply *outer, const DvHttpPart *part)
{
	DvWireReply reply = {
		.status = part->status,
		.content_type = part->content_type[0] != '\0' ? part->content_type : NULL,
		.request_id = part->request_id[0] != '\0' ? part->request_id : outer->request_id,
		.retry_after_ms = part->retry_after_ms,
		.body = part->body,
		.len = part->len
	};

	return reply;
}

/*
 * Is a part below 400 the success of this row's operation? 204 without body;
 * 201 only where it names the record.
 */
static bool
part_succeeded(const DvHttpPart *part, const DvWireRow *row)
{
	bool		named = part->id[0] != '\0';

	if (part->id_conflict)
		return false;
	/* three operations are not answered by one part */
	if (row->reopen != NULL)
		return false;
	/* an action may answer something, and name the record it made */
	if (row->method != NULL)
		return part->status == 204 || part->status == 200;
	if (row->op != 'D' && named && row->id[0] != '\0' && strcmp(part->id, row->id) != 0)
		return false;
	if (part->status == 204)
		return part->len == 0;
	return part->status == 201 && row->op == 'I' && named;
}

/* The boundary and body of a part that is a change set's answer; false where it is none. */
static bool
open_set(const char *text, size_t len, DvMultipart *reader)
{
	const char *name = dv_wiretext_find(text, len, "Content-Type:");
	const char *end = dv_wiretext_find(text, len, "\r\n\r\n");
	char		type[256];
	char		boundary[DV_BOUNDARY_LEN];
	size_t		n;

	if (name == NULL || end == NULL || name > end)
		return false;
	name += strlen("Content-Type:");
	for (n = 0; name + n < end && name[n] != '\r' && n + 1 < sizeof(type); n++)
		type[n] = name[n];
	type[n] = '\0';
	for (name = type; *name == ' '; name++)
		;
	if (!dv_multipart_boundary(name, boundary))
		return false;
	dv_multipart_open(reader, end + 2, len - (size_t) (end + 2 - text), boundary);
	return true;
}

/*
 * The answer to the change set that opens, updates and closes one record: three
 * successes, or one part that says why nothing was done.
 */
static void
judge_set(const DvWireReply *outer, const char *text, size_t len, const DvWireRow *row, DvVerdict *v)
{
	DvMultipart reader;
	DvHttpPart	part;
	DvWireReply reply;
	const char *piece;
	size_t		piece_len;
	int			good = 0;

	if (open_set(text, len, &reader))
		while (dv_multipart_next(&reader, &piece, &piece_len))
		{
			if (!dv_multipart_http(piece, piece_len, (long long) time(NULL), &part))
				break;
			if (part.status >= 400)
			{
				reply = part_reply(outer, &part);
				error_of_row(&reply, row, v);
				return;
			}
			good++;
		}
	if (good == 3)
		verdict_done(v, outer);
	else
		verdict_settle(v, outer, "the answer to a change set is not complete");
}

static void
judge_part(const DvWireReply *outer, const char *text, size_t len, const DvWireRow *row, DvVerdict *v, char *id_out)
{
	DvHttpPart	part;
	DvWireReply reply;

	if (!dv_multipart_http(text, len, (long long) time(NULL), &part))
	{
		if (part.nested && row->reopen != NULL)
		{
			judge_set(outer, text, len, row, v);
			return;
		}
		verdict_settle(v, outer, part.nested ? "a part of the answer is a change set, which was not sent" :
					   "a part of the answer could not be read");
		return;
	}
	reply = part_reply(outer, &part);
	if (part.status >= 400)
	{
		error_of_row(&reply, row, v);
		/* The batch itself was let in: its token expired on the way. */
		if (part.status == 401 && outer->status == 200)
			v->kind = DV_RETRY;
	}
	else if (!part_succeeded(&part, row))
		verdict_settle(v, &reply, "a part of the answer has not the form of a success");
	else
	{
		verdict_done(v, &reply);
		if (id_out != NULL && row->id[0] == '\0' && row->op != 'D')
			memcpy(id_out, part.id, sizeof(part.id));
	}
}

/* No multipart answer: refused as a whole, or not understood. */
static void
judge_whole_batch(const DvWireReply *reply, int n, DvVerdict *v)
{
	if (reply->status >= 400)
		dv_wire_error(reply, OP_BATCH, n == 1, &v[0]);
	else
		verdict_settle(&v[0], reply, "the answer to a $batch is not multipart");
	/* One operation may be to blame, and the others are not: fewer at a time. */
	if (n > 1 && (v[0].kind == DV_FAIL_ROW || v[0].kind == DV_EXISTS))
		v[0].kind = DV_SHRINK;
	copy_verdict(v, n);
}

/* Complete parts; more than n are not counted further. */
static int
count_parts(const DvWireReply *reply, const char *boundary, int n, bool *closed)
{
	DvMultipart reader;
	const char *part;
	size_t		len;
	int			count = 0;

	dv_multipart_open(&reader, reply->body, reply->len, boundary);
	while (count <= n && dv_multipart_next(&reader, &part, &len))
		count++;
	*closed = reader.closed;
	return count;
}

/*
 * Parts answer operations by their order alone. That holds where every
 * operation has its part, and up to the cut where the answer was cut. Where a
 * whole answer has fewer parts (the service stopped at an error) or more, only
 * what proves itself is believed: successes from the first on that name our
 * own ids.
 */
void
dv_wire_batch_reply(const DvWireReply *reply, const DvWireRow *const *rows,
					int n, DvVerdict *v, char (*ids_out)[37])
{
	char		boundary[DV_BOUNDARY_LEN];
	DvMultipart reader;
	const char *part;
	size_t		len;
	bool		closed;
	bool		by_order;
	int			count;
	int			i;

	if (n <= 0)
		return;
	no_ids(ids_out, n);
	if (!dv_multipart_boundary(reply->content_type, boundary))
	{
		judge_whole_batch(reply, n, v);
		return;
	}
	count = count_parts(reply, boundary, n, &closed);
	by_order = closed ? count == n : count <= n && reply->status == 200;
	dv_multipart_open(&reader, reply->body, reply->len, boundary);
	for (i = 0; i < n && dv_multipart_next(&reader, &part, &len); i++)
	{
		DvHttpPart	seen;

		if (!by_order && (!dv_multipart_http(part, len, 0, &seen) || rows[i]->id[0] == '\0' ||
						  strcmp(seen.id, rows[i]->id) != 0 || seen.status != 204))
			break;
		judge_part(reply, part, len, rows[i], &v[i], ids_out != NULL ? ids_out[i] : NULL);
	}
	for (; i < n; i++)
		verdict_settle(&v[i], reply, closed ? "the answer to a $batch has not one part for every operation" :
					   "the answer to a $batch was cut short");
}

/* Put every record that came back to the row it was asked for. */
static bool
match_records(const DvWireFound *records, int count, const DvWireRow *const *rows, int n, DvWireFound *found)
{
	int			i;
	int			r;

	for (r = 0; r < count; r++)
	{
		bool		asked = false;

		for (i = 0; i < n; i++)
		{
			if (strcmp(rows[i]->id, records[r].id) != 0)
				continue;
			if (found[i].found)
				return false;
			found[i] = records[r];
			asked = true;
		}
		if (!asked)
			return false;
	}
	return true;
}

/* An error to a read: nothing was written, so only the next step is chosen. */
static DvVerdictKind
judge_read(const DvWireReply *reply, DvVerdict *v)
{
	dv_wire_error(reply, OP_READ, true, v);
	switch (v->kind)
	{
		case DV_WAIT:
		case DV_SHRINK:
		case DV_FAIL_RUN:
			break;
		case DV_FAIL_ROW:
		case DV_GONE:
			/* The service refuses the question: asking again will not help. */
			v->kind = v->code[0] != '\0' ? DV_FAIL_RUN : DV_RETRY;
			break;
		default:
			v->kind = DV_RETRY;
	}
	return v->kind;
}

DvVerdictKind
dv_wire_find_reply(const DvWireReply *reply, const DvWireRow *const *rows,
				   int n, DvWireFound *found, DvVerdict *v)
{
	DvWireFound *records;
	int			count = -1;

	if (n <= 0)
	{
		verdict_done(v, reply);
		return DV_DONE;
	}
	memset(found, 0, (size_t) n * sizeof(DvWireFound));
	if (reply->status >= 400)
		return judge_read(reply, v);
	records = malloc((size_t) n * sizeof(DvWireFound));
	if (reply->status == 200 && records != NULL)
		count = dv_reply_records(reply->body, reply->len, n, records);
	if (count >= 0 && match_records(records, count, rows, n, found))
		verdict_done(v, reply);
	else
	{
		memset(found, 0, (size_t) n * sizeof(DvWireFound));
		verdict_settle(v, reply, "the answer to reading ids back was not understood or is not complete");
		/* a service with small pages: ask it for fewer */
		v->kind = count == DV_MORE_PAGES && n > 1 ? DV_SHRINK : DV_RETRY;
	}
	free(records);
	return v->kind;
}

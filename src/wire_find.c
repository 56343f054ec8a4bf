/*
 * wire_find.c - reading rows back that have no id of their own yet
 *
 * A $batch of queries, one per row: an answer belongs to its row by its place,
 * so that nothing has to be compared the way the service compares texts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "multipart.h"
#include "reply.h"
#include "wire.h"

static void
put_query(DvBuf *body, const DvWireTable *table, const DvWireRow *row)
{
	dv_buf_puts(body, "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\nGET ");
	dv_buf_puts(body, table->api_path);
	dv_buf_puts(body, "/");
	dv_buf_puts(body, table->entity_set);
	dv_buf_puts(body, "?$select=");
	dv_buf_puts(body, table->primary_id);
	dv_wire_put_found_columns(body, table);
	dv_buf_puts(body, "&$top=2&$filter=");
	if (row->id[0] != '\0')
	{
		dv_buf_puts(body, table->primary_id);
		dv_buf_puts(body, "%20eq%20");
		dv_buf_puts(body, row->id);
	}
	else
		dv_buf_puts(body, row->key);
	dv_buf_puts(body, " HTTP/1.1\r\nAccept: application/json\r\n\r\n\r\n");
}

bool
dv_wire_find_each(DvBuf *body, const DvWireTable *table, const char *boundary,
				  const DvWireRow *const *rows, int n)
{
	int			i;

	for (i = 0; i < n; i++)
	{
		if (rows[i]->id[0] == '\0' && rows[i]->key == NULL)
			return false;
		dv_buf_puts(body, "--");
		dv_buf_puts(body, boundary);
		dv_buf_puts(body, "\r\n");
		put_query(body, table, rows[i]);
	}
	dv_buf_puts(body, "--");
	dv_buf_puts(body, boundary);
	dv_buf_puts(body, "--\r\n");
	return !body->failed;
}

/* One part: a page with no record, or with one. */
static bool
read_part(const char *part, size_t len, DvWireFound *found)
{
	DvHttpPart	seen;
	DvWireFound records[2];
	int			count;

	memset(records, 0, sizeof(records));
	if (!dv_multipart_http(part, len, (long long) time(NULL), &seen) || seen.status != 200)
		return false;
	count = dv_reply_records(seen.body, seen.len, 2, records);
	if (count == 1)
		*found = records[0];
	return count == 0 || count == 1;
}

DvVerdictKind
dv_wire_find_each_reply(const DvWireReply *reply, int n, DvWireFound *found, DvVerdict *v)
{
	static const DvWireRow nobody;
	const DvWireRow *rows[1] = {&nobody};
	char		boundary[DV_BOUNDARY_LEN];
	DvMultipart reader;
	const char *part;
	size_t		len;
	int			i = 0;

	memset(found, 0, (size_t) n * sizeof(DvWireFound));
	/* Refused as a whole: judged like any other read. */
	if (!dv_multipart_boundary(reply->content_type, boundary))
		return dv_wire_find_reply(reply, rows, 1, found, v) == DV_DONE ? DV_RETRY : v->kind;
	dv_multipart_open(&reader, reply->body, reply->len, boundary);
	while (i < n && dv_multipart_next(&reader, &part, &len) && read_part(part, len, &found[i]))
		i++;
	if (i == n && !dv_multipart_next(&reader, &part, &len) && reader.closed)
		return v->kind = DV_DONE;
	memset(found, 0, (size_t) n * sizeof(DvWireFound));
	memset(v, 0, sizeof(DvVerdict));
	v->retry_after_ms = -1;
	v->http_status = reply->status;
	snprintf(v->message, sizeof(v->message), "the answer to a read by key was not understood");
	return v->kind = DV_RETRY;
}

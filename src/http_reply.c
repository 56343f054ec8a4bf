/*
 * http_reply.c - replies, and the header lines that matter
 *
 * Called from libcurl's callbacks: nothing here may throw or palloc, and so
 * nothing of PostgreSQL is here (which lets it be fuzzed, too). Every header is
 * hostile until it has been copied into its bounded place.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "http_reply.h"
#include "verdict.h"
#include "wiretext.h"

DvReplyBox *
dv_reply_create(void)
{
	DvReplyBox *box = calloc(1, sizeof(DvReplyBox));

	if (box)
	{
		dv_buf_init(&box->reply.body, DV_REPLY_LIMIT);
		box->reply.retry_after_ms = -1;
	}
	return box;
}

void
dv_reply_destroy(DvReplyBox *box)
{
	if (box == NULL)
		return;
	dv_buf_free(&box->reply.body);
	free(box);
}

void
dv_reply_hand_out(DvReplyBox *box, DvReplyBox **list)
{
	box->next = *list;
	if (box->next)
		box->next->link = &box->next;
	box->link = list;
	*list = box;
}

void
dv_http_reply_free(DvHttpReply *reply)
{
	DvReplyBox *box = (DvReplyBox *) reply;

	if (box == NULL)
		return;
	*box->link = box->next;
	if (box->next)
		box->next->link = box->link;
	dv_reply_destroy(box);
}

/* Copy a header's value, cut to "size", control characters left out. */
static void
copy_value(char *to, size_t size, const char *value, size_t len)
{
	size_t		n = 0;

	for (size_t i = 0; i < len && n + 1 < size; i++)
	{
		unsigned char c = (unsigned char) value[i];

		if (c >= 0x20 && c < 0x7f)
			to[n++] = (char) c;
	}
	to[n] = '\0';
}

/* A whole number between 1 and "max"; 0 for anything else. */
static int
small_number(const char *value, size_t len, int max)
{
	int			n = 0;

	for (size_t i = 0; i < len; i++)
	{
		if (value[i] < '0' || value[i] > '9' || n > max)
			return 0;
		n = n * 10 + (value[i] - '0');
	}
	return n <= max ? n : 0;
}

/* A new status line: forget the headers of an interim answer (100). */
static void
reply_restart(DvHttpReply *reply)
{
	reply->content_type[0] = '\0';
	reply->request_id[0] = '\0';
	reply->date[0] = '\0';
	reply->location[0] = '\0';
	reply->retry_after_ms = -1;
	reply->dop_hint = 0;
}

static void
take_header(DvReplyBox *box, const char *line, size_t len)
{
	DvHttpReply *reply = &box->reply;
	const char *value = memchr(line, ':', len);
	size_t		name_len;

	if (len >= 5 && memcmp(line, "HTTP/", 5) == 0)
	{
		reply_restart(reply);
		return;
	}
	if (value == NULL)
		return;
	name_len = (size_t) (value - line);
	value++;
	len -= name_len + 1;
	dv_wiretext_trim(&value, &len);

	if (dv_wiretext_same(line, name_len, "content-type"))
		copy_value(reply->content_type, sizeof(reply->content_type), value, len);
	else if (dv_wiretext_same(line, name_len, "req_id"))
		copy_value(reply->request_id, sizeof(reply->request_id), value, len);
	else if (dv_wiretext_same(line, name_len, "x-ms-service-request-id"))
	{
		/* may occur twice; REQ_ID is the one that Microsoft's support asks for */
		if (reply->request_id[0] == '\0')
			copy_value(reply->request_id, sizeof(reply->request_id), value, len);
	}
	else if (dv_wiretext_same(line, name_len, "date"))
		copy_value(reply->date, sizeof(reply->date), value, len);
	else if (dv_wiretext_same(line, name_len, "location") && len < sizeof(reply->location))
		copy_value(reply->location, sizeof(reply->location), value, len);
	else if (dv_wiretext_same(line, name_len, "retry-after"))
		reply->retry_after_ms = dv_verdict_retry_after(value, len, (long long) time(NULL));
	else if (dv_wiretext_same(line, name_len, "x-ms-dop-hint"))
		reply->dop_hint = small_number(value, len, 1000);
}

size_t
dv_reply_on_body(char *data, size_t size, size_t n, void *arg)
{
	DvReplyBox *box = arg;

	return dv_buf_append(&box->reply.body, data, size * n) ? size * n : 0;
}

size_t
dv_reply_on_header(char *data, size_t size, size_t n, void *arg)
{
	take_header(arg, data, size * n);
	return size * n;
}

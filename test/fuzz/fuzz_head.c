/*
 * fuzz_head.c - the lines of a reply's head, as libcurl hands them over
 *
 * Input: the head. Its lines come one by one; what is behind the last line end
 * comes as a piece of the body, too.
 */
#include "fuzz.h"
#include "http_reply.h"

static void
must_be_printable(const char *text, size_t size)
{
	size_t		len = strnlen(text, size);
	size_t		i;

	must(len < size);
	for (i = 0; i < len; i++)
		must(text[i] >= 0x20 && text[i] < 0x7f);
}

static void
must_be_reply(const DvHttpReply *reply)
{
	const char *path;
	long long	when = 0;

	must_be_printable(reply->content_type, sizeof(reply->content_type));
	must_be_printable(reply->request_id, sizeof(reply->request_id));
	must_be_printable(reply->date, sizeof(reply->date));
	must_be_printable(reply->location, sizeof(reply->location));
	must(reply->retry_after_ms >= -1 && reply->retry_after_ms <= 86400000);
	must(reply->dop_hint >= 0 && reply->dop_hint <= 1000);
	must(!dv_verdict_http_date(reply->date, &when) || when >= 0);
	path = dv_wiretext_below(reply->location, "/api/data/v9.2");
	must(path == NULL || (path[0] == '/' && path > reply->location && path < reply->location + sizeof(reply->location)));
}

/* A new answer behind an interim one: nothing of that may be left. */
static void
must_be_new(const DvHttpReply *reply)
{
	must(reply->content_type[0] == '\0' && reply->request_id[0] == '\0' && reply->date[0] == '\0' &&
		 reply->location[0] == '\0' && reply->retry_after_ms == -1 && reply->dop_hint == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	DvReplyBox *box = dv_reply_create();
	const char *at = (const char *) data;
	const char *end = at + size;

	must(box != NULL);
	while (at < end)
	{
		const char *eol = memchr(at, '\n', (size_t) (end - at));
		size_t		len = (size_t) ((eol != NULL ? eol + 1 : end) - at);
		char	   *line = malloc(len);

		must(line != NULL);
		memcpy(line, at, len);
		must(dv_reply_on_header(line, 1, len, box) == len);
		if (len >= 5 && memcmp(line, "HTTP/", 5) == 0)
			must_be_new(&box->reply);
		if (eol == NULL)
			must(dv_reply_on_body(line, 1, len, box) == len && box->reply.body.len == len &&
				 memcmp(box->reply.body.data, line, len) == 0);
		free(line);
		must_be_reply(&box->reply);
		at += len;
	}
	dv_reply_destroy(box);
	return 0;
}

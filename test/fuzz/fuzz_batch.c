/*
 * fuzz_batch.c - replies to a $batch
 *
 * Input: a byte for the rows, a byte for status and content type, the body.
 */
#include "fuzz.h"

static const int statuses[] = {200, 200, 200, 400, 500, 429, 204, 404};
static const char *const types[] = {
	"multipart/mixed; boundary=r", "multipart/mixed; boundary=\"r\"", "application/json", NULL
};

/* The same body as the answer to reading rows back by their keys, one query each. */
static void
try_find_each(const DvWireReply *reply, int n)
{
	DvWireFound found[FUZZ_ROWS];
	DvVerdict	v = {.retry_after_ms = -1};
	DvVerdictKind kind = dv_wire_find_each_reply(reply, n, found, &v);
	int			count = 0;
	int			i;

	must(kind == DV_DONE || kind == DV_WAIT || kind == DV_RETRY || kind == DV_SHRINK || kind == DV_FAIL_RUN);
	must(kind == v.kind);
	for (i = 0; i < n; i++)
	{
		must_be_id(found[i].id);
		must_be_id(found[i].modified_by);
		must_be_clean(found[i].modified_on, sizeof(found[i].modified_on));
		must(!found[i].found || found[i].id[0] != '\0');
		count += found[i].found;
	}
	/* Nothing is known of any row unless every query has an answer of its own that says so. */
	must(kind == DV_DONE || count == 0);
	must(kind != DV_DONE || fuzz_count(reply->body, reply->len, " 200") >= n);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	DvWireRow	rows[FUZZ_ROWS];
	const DvWireRow *list[FUZZ_ROWS];
	DvVerdict	v[FUZZ_ROWS];
	char		ids[FUZZ_ROWS][37];
	DvWireReply reply = {.retry_after_ms = -1};
	int			done = 0;
	int			n;
	int			i;

	if (size < 2)
		return 0;
	n = fuzz_rows(data[0], rows, list);
	reply.status = statuses[data[1] % 8];
	reply.content_type = types[data[1] / 8 % 4];
	reply.body = (const char *) data + 2;
	reply.len = size - 2;
	dv_wire_batch_reply(&reply, list, n, v, ids);
	for (i = 0; i < n; i++)
	{
		must_be_verdict(&v[i]);
		must_be_id(ids[i]);
		done += v[i].kind == DV_DONE;
	}
	try_find_each(&reply, n);
	/* Every success has a part of its own that says so. */
	must(done <= fuzz_count(reply.body, reply.len, "HTTP/1."));
	if (rows[0].op != 'D')
		must(done <= fuzz_count(reply.body, reply.len, " 204") + fuzz_count(reply.body, reply.len, " 201"));
	must(done == 0 || fuzz_count(reply.body, reply.len, "\n--r") + (reply.len > 2 && memcmp(reply.body, "--r", 3) == 0) > done);
	return 0;
}

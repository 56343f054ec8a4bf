/*
 * fuzz_json.c - replies that are JSON, or ought to be: errors, ids, records
 *
 * Input: a byte for the rows, a byte for the status, the body.
 */
#include "fuzz.h"

static const int statuses[] = {200, 201, 204, 400, 403, 404, 412, 429, 500, 503, 302, 0};

static void
try_bulk(const DvWireReply *reply, const DvWireRow *const *list, int n)
{
	DvVerdict	v[FUZZ_ROWS];
	char		ids[FUZZ_ROWS][37];
	int			i;

	dv_wire_bulk_reply(reply, list, n, v, ids);
	for (i = 0; i < n; i++)
	{
		must_be_verdict(&v[i]);
		must_be_id(ids[i]);
		must(v[i].kind == v[0].kind || n == 1);
		if (v[i].kind == DV_DONE && list[i]->op == 'I' && list[i]->id[0] != '\0')
			must(fuzz_count(reply->body, reply->len, list[i]->id) > 0 || fuzz_count(reply->body, reply->len, "\\u") > 0);
	}
	if (v[0].kind == DV_DONE && list[0]->op == 'I')
		must(reply->status == 200 || reply->status == 201);
	if (v[0].kind == DV_DONE && list[0]->op == 'U')
		must(reply->status == 204);
}

static void
try_find(const DvWireReply *reply, const DvWireRow *const *list, int n)
{
	DvWireFound found[FUZZ_ROWS];
	DvVerdict	v;
	DvVerdictKind kind = dv_wire_find_reply(reply, list, n, found, &v);
	int			i;

	must(kind == v.kind);
	must(kind == DV_DONE || kind == DV_WAIT || kind == DV_RETRY || kind == DV_SHRINK || kind == DV_FAIL_RUN);
	must(kind != DV_DONE || reply->status == 200);
	must_be_verdict(&v);
	for (i = 0; i < n; i++)
	{
		must(kind == DV_DONE || !found[i].found);
		must(!found[i].found || strcmp(found[i].id, list[i]->id) == 0);
		must_be_id(found[i].modified_by);
		must_be_clean(found[i].modified_on, sizeof(found[i].modified_on));
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	DvWireRow	rows[FUZZ_ROWS];
	const DvWireRow *list[FUZZ_ROWS];
	DvWireReply reply = {.content_type = "application/json",.request_id = "r",.retry_after_ms = -1};
	DvVerdict	v;
	int			n;

	if (size < 2)
		return 0;
	n = fuzz_rows(data[0], rows, list);
	reply.status = statuses[data[1] % (sizeof(statuses) / sizeof(statuses[0]))];
	reply.body = (const char *) data + 2;
	reply.len = size - 2;
	try_bulk(&reply, list, n);
	try_find(&reply, list, n);
	dv_wire_error(&reply, rows[0].op, n == 1, &v);
	must_be_verdict(&v);
	must(v.kind != DV_DONE || (rows[0].op == 'D' && reply.status == 404));
	return 0;
}

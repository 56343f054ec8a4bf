/*
 * batch.c - $batch: multipart bodies, change sets, and their answers
 *
 * Items run one after the other. A change set is one transaction and answers
 * a failure with exactly one part. Every line end must be CRLF.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "crud.h"
#include "faults.h"
#include "route.h"
#include "stats.h"
#include "switches.h"

/* Operations in one batch, counting those in change sets one by one. */
#define MAX_OPERATIONS 1000

#define MAX_PART_HEADERS 48

/* One body part: header lines and content. */
typedef struct Part
{
	SimHeader	headers[MAX_PART_HEADERS];
	int			n_headers;
	char	   *body;
	size_t		len;
} Part;

typedef struct Batch
{
	SimReq	   *outer;
	SimResp    *resp;
	int			operations;
	bool		continue_on_error;
	bool		stopped;
	int			failed_status;	/* of the operation that stopped it */
	char		boundary[64];
} Batch;

static bool
malformed(SimErr *e, const char *why)
{
	return sim_fail(e, 400, SIM_E_PAYLOAD, "Error identified in Payload provided by the user for Entity :'', InnerException : "
					"Microsoft.OData.ODataException: %s", why);
}

/* The boundary parameter of a content type, quoted or not. */
static bool
read_boundary(const char *type, char *out, size_t size)
{
	const char *p = type != NULL ? strcasestr(type, "boundary=") : NULL;
	size_t		n;

	if (p == NULL || strncasecmp(type, "multipart/mixed", 15) != 0)
		return false;
	p += 9;
	if (*p == '"')
		n = strcspn(++p, "\"");
	else
		n = strcspn(p, "; \t");
	if (n == 0 || n > 70 || n + 1 > size)
		return false;
	memcpy(out, p, n);
	out[n] = '\0';
	return true;
}

/* Whether a boundary ends here, so that "b1" is not found in "b12". */
static bool
ends_boundary(const char *p, const char *end)
{
	return p >= end || *p == '\r' || *p == '\n' || *p == ' ' || *p == '\t' || (end - p >= 2 && p[0] == '-' && p[1] == '-');
}

/* The next delimiter line at or behind p: its begin, or NULL. */
static char *
find_delimiter(char *p, char *end, const char *boundary)
{
	size_t		n = strlen(boundary);

	while (p < end)
	{
		if ((size_t) (end - p) >= n + 2 && p[0] == '-' && p[1] == '-' && memcmp(p + 2, boundary, n) == 0 &&
			ends_boundary(p + 2 + n, end))
			return p;
		p = memchr(p, '\n', (size_t) (end - p));
		if (p == NULL)
			return NULL;
		p++;
	}
	return NULL;
}

/* Header lines up to the empty line; *p stands behind it afterwards. */
static bool
read_headers(char **p, char *end, Part *part, SimErr *e)
{
	part->n_headers = 0;
	for (;;)
	{
		char	   *nl = memchr(*p, '\n', (size_t) (end - *p));
		char	   *colon;

		if (nl == NULL)
		{
			/* A part without a body may end with its last header line. */
			*p = end;
			return true;
		}
		if (nl == *p || nl[-1] != '\r')
			return malformed(e, "System.ArgumentException: Stream was not readable.");
		nl[-1] = '\0';
		if (nl - 1 == *p)
		{
			*p = nl + 1;
			return true;
		}
		colon = strchr(*p, ':');
		if (colon == NULL || part->n_headers == MAX_PART_HEADERS)
			return malformed(e, "A batch part has a malformed header.");
		*colon++ = '\0';
		while (*colon == ' ')
			colon++;
		part->headers[part->n_headers++] = (SimHeader) {*p, colon};
		*p = nl + 1;
	}
}

static const char *
part_header(const Part *part, const char *name)
{
	for (int i = 0; i < part->n_headers; i++)
		if (strcasecmp(part->headers[i].name, name) == 0)
			return part->headers[i].value;
	return NULL;
}

/*
 * Take the next part of a multipart body: *p stands at its delimiter line.
 * Returns 1 for a part, 0 at the closing delimiter, -1 when malformed.
 */
static int
next_part(char **p, char *end, const char *boundary, Part *part, SimErr *e)
{
	char	   *at = find_delimiter(*p, end, boundary);
	char	   *next;

	if (at == NULL)
	{
		malformed(e, "The closing boundary of the batch is missing.");
		return -1;
	}
	at += strlen(boundary) + 2;
	if (end - at >= 2 && at[0] == '-' && at[1] == '-')
		return 0;
	while (at < end && (*at == ' ' || *at == '\t'))
		at++;
	if (end - at < 2 || at[0] != '\r' || at[1] != '\n')
	{
		malformed(e, "System.ArgumentException: Stream was not readable.");
		return -1;
	}
	at += 2;
	next = find_delimiter(at, end, boundary);
	if (next == NULL)
	{
		malformed(e, "System.ArgumentException: Stream was not readable.");
		return -1;
	}
	*p = next;
	if (next - at < 2 || next[-2] != '\r')
	{
		malformed(e, "System.ArgumentException: Stream was not readable.");
		return -1;
	}
	if (!read_headers(&at, next - 2, part, e))
		return -1;
	part->body = at;
	part->len = at < next - 2 ? (size_t) (next - 2 - at) : 0;
	return 1;
}

/* "POST /api/data/v9.2/accounts HTTP/1.1", headers, empty line, body. */
static bool
read_operation(Batch *b, Part *part, SimReq *r, SimErr *e)
{
	char	   *p = part->body,
			   *end = p + part->len,
			   *line = memchr(p, '\n', part->len),
			   *space;
	Part		inner;

	memset(r, 0, sizeof *r);
	if (line == NULL || line == p || line[-1] != '\r')
		return malformed(e, "System.ArgumentException: Stream was not readable.");
	line[-1] = '\0';
	space = strchr(p, ' ');
	if (space == NULL || line - 1 - p < 12 || strcmp(line - 10, " HTTP/1.1") != 0)
		return malformed(e, "The request line of a batch part is malformed.");
	line[-10] = '\0';
	*space = '\0';
	r->method = p;
	r->uri = space + 1;
	p = line + 1;
	if (!read_headers(&p, end, &inner, e))
		return false;
	/* The line end before the boundary belongs to the delimiter; more may follow the body. */
	while (end - p >= 2 && end[-2] == '\r' && end[-1] == '\n')
		end -= 2;
	r->body = p;
	r->len = p < end ? (size_t) (end - p) : 0;
	p[r->len] = '\0';
	if (r->len == 0)
		r->body = sim_arena_strndup(b->outer->arena, "", 0);
	r->headers = sim_arena_alloc(b->outer->arena, sizeof *r->headers * (size_t) (inner.n_headers + b->outer->n_headers));
	memcpy(r->headers, inner.headers, sizeof *r->headers * (size_t) inner.n_headers);
	r->n_headers = inner.n_headers;
	return true;
}

/* What a part takes over from the whole request. */
static void
inherit(Batch *b, SimReq *r)
{
	const SimReq *o = b->outer;

	r->arena = o->arena;
	r->origin = o->origin;
	r->user = r->caller = o->caller;
	r->in_batch = true;
	if (!sim_sw.batch_headers)
		return;
	r->user = o->user;
	r->impersonated = o->impersonated;
	for (int i = 0; i < o->n_headers; i++)
		if ((strncasecmp(o->headers[i].name, "MSCRM", 5) == 0 || strcasecmp(o->headers[i].name, "CallerObjectId") == 0) &&
			sim_req_header(r, o->headers[i].name) == NULL)
			r->headers[r->n_headers++] = o->headers[i];
}

static const char *
reason(int status)
{
	static const struct
	{
		int			status;
		const char *text;
	}			reasons[] = {{200, "OK"}, {201, "Created"}, {204, "No Content"}, {206, "Partial Content"}, {304, "Not Modified"},
	{400, "Bad Request"}, {401, "Unauthorized"}, {403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"},
	{412, "Precondition Failed"}, {413, "Request Entity Too Large"}, {415, "Unsupported Media Type"}, {429, "Too Many Requests"},
	{500, "Internal Server Error"}, {503, "Service Unavailable"}};

	for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
		if (reasons[i].status == status)
			return reasons[i].text;
	return "Unknown";
}

static void
put_part(SimBuf *out, const char *boundary, SimStr content_id, const SimResp *resp)
{
	char		request_id[SIM_GUID_LEN + 1];

	sim_buf_printf(out, "--%s\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n", boundary);
	if (content_id.len > 0)
		sim_buf_printf(out, "Content-ID: %.*s\r\n", (int) content_id.len, content_id.s);
	sim_buf_printf(out, "\r\nHTTP/1.1 %d %s\r\n", resp->status, reason(resp->status));
	if (resp->status >= 400)
	{
		sim_guid_format(sim_guid_random(), request_id);
		sim_buf_printf(out, "REQ_ID: %s\r\n", request_id);
	}
	if (resp->body.len > 0)
		sim_buf_printf(out, "Content-Type: %s\r\n", resp->content_type != NULL ? resp->content_type :
					   "application/json; odata.metadata=minimal");
	sim_buf_puts(out, "OData-Version: 4.0\r\n");
	if (resp->headers.len > 0)
		sim_buf_add(out, resp->headers.data, resp->headers.len);
	sim_buf_puts(out, "\r\n");
	if (resp->body.len > 0)
		sim_buf_add(out, resp->body.data, resp->body.len);
	sim_buf_puts(out, "\r\n");
}

/* Run one part, unless a fault of parts strikes it. */
static void
dispatch(SimReq *r, SimResp *resp)
{
	SimFault	f = sim_fault_match(r, true);

	if (f.kind == SIM_FAULT_NONE)
		sim_dispatch(r, resp);
	else
		sim_fault_answer(r, &f, resp);
}

/* The whole batch is refused with the outer answer's error. */
static bool
too_many(Batch *b)
{
	if (++b->operations <= MAX_OPERATIONS)
		return true;
	return sim_fail(&b->resp->err, 400, "0x80060888", "Invalid batch: the maximum number of requests allowed in a batch is %d.",
					MAX_OPERATIONS);
}

static void
note_failure(Batch *b, int status)
{
	if (b->continue_on_error)
		return;
	b->stopped = true;
	b->failed_status = status;
	if (!sim_sw.batch_earlier_parts)
		b->resp->body.len = 0;
}

static bool
run_single(Batch *b, Part *part)
{
	SimReq		r;
	SimResp		resp = {0};
	const char *id = part_header(part, "Content-ID");

	if (!read_operation(b, part, &r, &b->resp->err))
		return false;
	inherit(b, &r);
	if (strstr(r.uri, "$batch") != NULL)
		return malformed(&b->resp->err, "Batch requests cannot be nested.");
	dispatch(&r, &resp);
	b->outer->rows += r.rows;
	if (resp.status >= 400)
		note_failure(b, resp.status);
	put_part(&b->resp->body, b->boundary, (SimStr) {id, id != NULL ? strlen(id) : 0}, &resp);
	sim_resp_free(&resp);
	return true;
}

/* Run the operations of a change set inside one transaction. */
static bool
run_operations(Batch *b, char *p, char *end, const char *boundary, const char *reply, SimTxn *x, SimBuf *out, int *failed)
{
	SimContentIds ids = {0};
	Part		part;
	int			more = 1;

	while (*failed == 0 && (more = next_part(&p, end, boundary, &part, &b->resp->err)) > 0)
	{
		const char *id = part_header(&part, "Content-ID");
		SimReq		r;
		SimResp		resp = {0};

		if (!too_many(b) || !read_operation(b, &part, &r, &b->resp->err))
			more = -1;
		else if (strcmp(r.method, "GET") == 0)
		{
			malformed(&b->resp->err, "A query operation was found in a change set.");
			more = -1;
		}
		if (more < 0)
			break;
		inherit(b, &r);
		r.txn = x;
		r.content_ids = &ids;
		r.content_id = (SimStr) {id, id != NULL ? strlen(id) : 0};
		dispatch(&r, &resp);
		b->outer->rows += r.rows;
		if (resp.status >= 400)
		{
			*failed = resp.status;
			out->len = 0;
		}
		put_part(out, reply, r.content_id, &resp);
		sim_resp_free(&resp);
	}
	sim_content_free(&ids);
	return more >= 0;
}

static bool
run_change_set(Batch *b, Part *part)
{
	char		boundary[80],
				reply[64],
				guid[SIM_GUID_LEN + 1];
	SimBuf		out = {0};
	SimTxn		x;
	int			failed = 0;
	bool		ok;

	if (!read_boundary(part_header(part, "Content-Type"), boundary, sizeof boundary))
		return malformed(&b->resp->err, "A change set has no boundary.");
	sim_guid_format(sim_guid_random(), guid);
	snprintf(reply, sizeof reply, "changesetresponse_%s", guid);
	sim_txn_begin(&x, true);
	ok = run_operations(b, part->body, part->body + part->len + 2, boundary, reply, &x, &out, &failed);
	if (ok && failed == 0)
		sim_txn_commit(&x);
	else
		sim_txn_rollback(&x);
	if (ok)
	{
		if (failed != 0)
			note_failure(b, failed);
		if (failed != 0 && b->continue_on_error && !sim_sw.changeset_continue)
			b->stopped = true;
		sim_buf_printf(&b->resp->body, "--%s\r\nContent-Type: multipart/mixed; boundary=%s\r\n\r\n", b->boundary, reply);
		if (out.len > 0)
			sim_buf_add(&b->resp->body, out.data, out.len);
		sim_buf_printf(&b->resp->body, "--%s--\r\n", reply);
	}
	sim_buf_free(&out);
	return ok;
}

static bool
run_parts(Batch *b, const char *boundary)
{
	char	   *p = b->outer->body,
			   *end = p + b->outer->len;
	Part		part;
	int			more;

	while (!b->stopped && (more = next_part(&p, end, boundary, &part, &b->resp->err)) != 0)
	{
		const char *type = more > 0 ? part_header(&part, "Content-Type") : NULL;
		bool		ok;

		if (more < 0)
			return false;
		if (type != NULL && strncasecmp(type, "multipart/mixed", 15) == 0)
			ok = run_change_set(b, &part);
		else if (type != NULL && strncasecmp(type, "application/http", 16) == 0)
			ok = too_many(b) && run_single(b, &part);
		else
			ok = malformed(&b->resp->err, "A batch part has no acceptable Content-Type.");
		if (!ok)
			return false;
	}
	return true;
}

/* Count all operations first: a batch that is too large does nothing at all. */
static bool
count_operations(Batch *b)
{
	const char *p = b->outer->body,
			   *end = p + b->outer->len;
	int			n = 0;

	while ((p = memmem(p, (size_t) (end - p), "application/http", 16)) != NULL)
	{
		/* Only header lines count: the same words may stand in a row's text. */
		const char *line = p;

		while (line > b->outer->body && line[-1] != '\n')
			line--;
		n += strncasecmp(line, "Content-Type:", 13) == 0;
		p += 16;
	}
	b->operations = n;
	if (n > MAX_OPERATIONS && !too_many(b))
		return false;
	b->operations = 0;
	return true;
}

/* A body that breaks off is refused before anything is done. */
static bool
is_complete(const SimReq *r, const char *boundary)
{
	const char *close = sim_arena_printf(r->arena, "--%s--", boundary);
	const char *p = r->body,
			   *end = p + r->len;

	while ((p = memmem(p, (size_t) (end - p), close, strlen(close))) != NULL)
	{
		if (p == r->body || p[-1] == '\n')
			return true;
		p++;
	}
	return false;
}

void
sim_batch_run(SimReq *r, SimResp *resp)
{
	Batch		b = {.outer = r, .resp = resp};
	char		boundary[80],
				guid[SIM_GUID_LEN + 1];

	sim_stats_request(SIM_K_BATCH, false);
	if (strcmp(r->method, "POST") != 0)
	{
		sim_fail(&resp->err, 405, SIM_E_NOT_SUPPORTED, "The method is not supported for $batch.");
		sim_resp_error(r, resp);
		return;
	}
	sim_guid_format(sim_guid_random(), guid);
	snprintf(b.boundary, sizeof b.boundary, "batchresponse_%s", guid);
	b.continue_on_error = sim_req_prefers(r, "odata.continue-on-error");
	if (!read_boundary(sim_req_header(r, "Content-Type"), boundary, sizeof boundary))
		malformed(&resp->err, "The Content-Type of a batch must be multipart/mixed with a boundary.");
	else if (!is_complete(r, boundary))
		malformed(&resp->err, "System.IO.IOException: Unexpected end of stream.");
	else if (count_operations(&b))
		run_parts(&b, boundary);
	if (resp->err.status != 0)
	{
		sim_resp_error(r, resp);
		return;
	}
	sim_buf_printf(&resp->body, "--%s--\r\n", b.boundary);
	resp->status = b.failed_status != 0 ? b.failed_status : 200;
	resp->content_type = sim_arena_printf(r->arena, "multipart/mixed; boundary=%s", b.boundary);
	if (b.continue_on_error)
		sim_resp_header(resp, "Preference-Applied", "odata.continue-on-error");
}

/*
 * request.c - headers, preferences, and URLs taken apart
 */
#include "request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "json.h"

const char *
sim_req_header(const SimReq *r, const char *name)
{
	for (int i = 0; i < r->n_headers; i++)
		if (strcasecmp(r->headers[i].name, name) == 0)
			return r->headers[i].value;
	return NULL;
}

static const char *
find_preference(const SimReq *r, const char *what)
{
	for (int i = 0; i < r->n_headers; i++)
	{
		const char *hit;

		if (strcasecmp(r->headers[i].name, "Prefer") == 0 && (hit = strstr(r->headers[i].value, what)) != NULL)
			return hit + strlen(what);
	}
	return NULL;
}

bool
sim_req_prefers(const SimReq *r, const char *what)
{
	return find_preference(r, what) != NULL;
}

long
sim_req_prefer_number(const SimReq *r, const char *what)
{
	const char *p = find_preference(r, what);

	while (p != NULL && (*p == ' ' || *p == '=' || *p == '"'))
		p++;
	return p != NULL ? strtol(p, NULL, 10) : 0;
}

const char *
sim_path_option(const SimPath *p, const char *name)
{
	for (int i = 0; i < p->n_options; i++)
		if (strcmp(p->options[i].name, name) == 0)
			return p->options[i].value;
	return NULL;
}

static bool
parse_options(SimArena *a, const char *q, SimPath *out, SimErr *e)
{
	while (*q != '\0')
	{
		size_t		len = strcspn(q, "&");
		const char *eq = memchr(q, '=', len);
		size_t		name_len = eq != NULL ? (size_t) (eq - q) : len;
		char	   *name,
				   *value;

		if (len > 0)
		{
			if (out->n_options == SIM_MAX_OPTIONS)
				return sim_fail(e, 400, SIM_E_SYNTAX, "Too many query options.");
			name = sim_arena_alloc(a, name_len + 1);
			sim_percent_decode(q, name_len, name, true);
			value = sim_arena_alloc(a, len - name_len + 1);
			if (eq != NULL)
				sim_percent_decode(eq + 1, len - name_len - 1, value, true);
			else
				*value = '\0';
			out->options[out->n_options++] = (SimOptionPair) {name, value};
		}
		q += len;
		if (*q == '&')
			q++;
	}
	return true;
}

/* End of a segment: a slash outside of parentheses and of quotes within them. */
static const char *
segment_end(const char *p, const char *end)
{
	int			depth = 0;
	bool		quoted = false;

	for (; p < end; p++)
	{
		if (quoted)
			quoted = *p != '\'';
		else if (*p == '\'' && depth > 0)
			quoted = true;
		else if (*p == '(')
			depth++;
		else if (*p == ')' && depth > 0)
			depth--;
		else if (*p == '/' && depth == 0)
			break;
	}
	return p;
}

static bool
parse_segment(SimArena *a, const char *p, const char *end, SimPath *out, SimErr *e)
{
	SimSegment *s = &out->seg[out->n];
	const char *open = memchr(p, '(', (size_t) (end - p));
	size_t		name_len = (size_t) ((open != NULL ? open : end) - p);
	char	   *text;

	if (out->n == SIM_MAX_SEGMENTS)
		return sim_fail(e, 400, SIM_E_SYNTAX, "The request URI has too many segments.");
	memset(s, 0, sizeof *s);
	text = sim_arena_alloc(a, name_len + 1);
	s->name.len = sim_percent_decode(p, name_len, text, false);
	s->name.s = text;
	if (open != NULL)
	{
		if (end[-1] != ')')
			return sim_fail(e, 400, SIM_E_SYNTAX, "Bad Request - Error in query syntax.");
		s->has_key = true;
		text = sim_arena_alloc(a, (size_t) (end - open));
		s->key.len = sim_percent_decode(open + 1, (size_t) (end - open) - 2, text, false);
		s->key.s = text;
	}
	out->n++;
	return true;
}

/* URLs of batch parts may be longer than others. */
#define MAX_PART_URL 65536

/* Length of ".../api/data/v9.x/" at the head of a URL; 0 when it is not there. */
static size_t
api_prefix(const char *uri)
{
	const char *p = uri;
	size_t		n = strlen(SIM_API_PATH);

	if (strncasecmp(p, "http://", 7) == 0 || strncasecmp(p, "https://", 8) == 0)
	{
		p = strchr(strchr(p, '/') + 2, '/');
		if (p == NULL)
			return 0;
	}
	if (strncmp(p, SIM_API_PATH, n) != 0 || p[n] < '0' || p[n] > '9' || p[n + 1] != '/')
		return 0;
	return (size_t) (p - uri) + n + 2;
}

bool
sim_path_parse(SimArena *a, const char *uri, SimPath *out, SimErr *e)
{
	const char *p = uri,
			   *end,
			   *query;

	out->n = out->n_options = 0;
	if (strlen(uri) > MAX_PART_URL)
		return sim_fail(e, 414, "", "The request URL is too long.");
	p += api_prefix(uri);
	if (p == uri && (*p == '/' || strstr(p, "://") != NULL))
		return sim_fail(e, 404, "", "No HTTP resource was found that matches the request URI '%s'.", uri);
	query = strchr(p, '?');
	end = query != NULL ? query : p + strlen(p);
	while (p < end)
	{
		const char *stop = segment_end(p, end);

		if (stop > p && !parse_segment(a, p, stop, out, e))
			return false;
		p = stop < end ? stop + 1 : end;
	}
	return query == NULL || parse_options(a, query + 1, out, e);
}

void
sim_resp_header(SimResp *r, const char *name, const char *fmt,...)
{
	va_list		ap;

	sim_buf_puts(&r->headers, name);
	sim_buf_puts(&r->headers, ": ");
	va_start(ap, fmt);
	sim_buf_vprintf(&r->headers, fmt, ap);
	va_end(ap);
	sim_buf_puts(&r->headers, "\r\n");
}

static void
put_annotation(SimBuf *b, const char *name, const char *value)
{
	sim_buf_printf(b, ",\"@Microsoft.PowerApps.CDS.%s\":", name);
	sim_json_put(b, value);
}

void
sim_resp_error(const SimReq *r, SimResp *resp)
{
	SimErr	   *e = &resp->err;
	SimBuf	   *b = &resp->body;

	resp->status = e->status != 0 ? e->status : 500;
	resp->content_type = NULL;
	b->len = 0;
	sim_buf_puts(b, "{\"error\":{\"code\":");
	sim_json_put(b, e->code);
	sim_buf_puts(b, ",\"message\":");
	sim_json_put(b, e->message);
	if (sim_req_prefers(r, "odata.include-annotations"))
	{
		put_annotation(b, "ErrorDetails.OperationStatus", "0");
		put_annotation(b, "ErrorDetails.SubErrorCode", "-2146233088");
		if (e->duplicate[0] != '\0')
			put_annotation(b, "ErrorDetails.DuplicateAttributes", e->duplicate);
		put_annotation(b, "HelpLink", "http://go.microsoft.com/fwlink/?LinkID=398563");
		put_annotation(b, "TraceText", "");
		put_annotation(b, "InnerError.Message", e->message);
	}
	sim_buf_puts(b, "}}");
}

void
sim_resp_free(SimResp *r)
{
	sim_buf_free(&r->headers);
	sim_buf_free(&r->body);
}

const SimContentId *
sim_content_find(const SimReq *r, SimStr ref)
{
	if (r->content_ids == NULL || ref.len < 2 || ref.s[0] != '$')
		return NULL;
	for (int i = 0; i < r->content_ids->n; i++)
	{
		const SimContentId *c = &r->content_ids->items[i];

		if (strlen(c->id) == ref.len - 1 && memcmp(c->id, ref.s + 1, ref.len - 1) == 0)
			return c;
	}
	return NULL;
}

void
sim_content_free(SimContentIds *ids)
{
	free(ids->items);
	memset(ids, 0, sizeof *ids);
}

void
sim_content_set(SimReq *r, SimTable *t, SimGuid id)
{
	SimContentIds *ids = r->content_ids;
	SimContentId *c;

	if (ids == NULL || r->content_id.len == 0 || r->content_id.len >= sizeof c->id)
		return;
	if (ids->n == ids->cap)
	{
		ids->cap = ids->cap ? ids->cap * 2 : 16;
		ids->items = sim_realloc(ids->items, sizeof *ids->items * (size_t) ids->cap);
	}
	c = &ids->items[ids->n++];
	memcpy(c->id, r->content_id.s, r->content_id.len);
	c->id[r->content_id.len] = '\0';
	c->table = t;
	c->guid = id;
}

/*
 * query.c - lists of records: $filter, $orderby, $top, $count, paging
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crud.h"
#include "filter.h"
#include "output.h"
#include "route.h"
#include "stats.h"
#include "switches.h"

/* The platform's largest page, and the cap of $count. */
#define MAX_PAGE 5000

/* Beyond this an aggregate is refused. */
#define MAX_AGGREGATE 50000

typedef struct Order
{
	const SimColumn *column;
	bool		descending;
} Order;

typedef struct Query
{
	SimTable   *table;
	SimFilter  *filter;
	Order		order[8];
	int			n_order;
	long		top;			/* 0: none */
	long		page;			/* rows a page */
	bool		paged;			/* the client chose the page size */
	bool		want_count;
	uint32_t	from;			/* without order: first slot to look at */
	long		skip;			/* with order: rows of earlier pages */
	long		page_number;
	uint32_t   *hits;
	size_t		n_hits;
	size_t		cap_hits;
	size_t		total;
} Query;

static bool
read_order(const SimReq *r, Query *q, const char *s, SimErr *e)
{
	(void) r;
	while (s != NULL && *s != '\0')
	{
		const SimProp *p;
		size_t		len;

		s += strspn(s, " ,");
		len = strcspn(s, " ,");
		p = sim_table_prop(q->table, s, len);
		if (p == NULL || (p->kind != SIM_P_COLUMN && p->kind != SIM_P_VALUE) || q->n_order == 8)
			return sim_fail(e, 400, SIM_E_NONE, "Could not find a property named '%.*s' on type 'Microsoft.Dynamics.CRM.%s'.",
							(int) len, s, q->table->name);
		q->order[q->n_order].column = p->column;
		s += len;
		while (*s == ' ')
			s++;
		q->order[q->n_order++].descending = strncmp(s, "desc", 4) == 0;
		s += strcspn(s, ",");
	}
	return true;
}

/* Number of an attribute of the paging cookie, or 0. */
static long
cookie_number(const char *cookie, const char *name)
{
	const char *hit = cookie != NULL ? strstr(cookie, name) : NULL;

	return hit != NULL ? strtol(hit + strlen(name), NULL, 10) : 0;
}

/* The slot behind the record that a paging cookie names as the last one seen. */
static uint32_t
cookie_slot(const SimTable *t, const char *cookie)
{
	static const char mark[] = "last%3d%22%7b";
	const char *hit = cookie != NULL ? strstr(cookie, mark) : NULL;
	const SimSlot *s;
	SimGuid		id;

	/* Slots are never moved, also those of deleted records: reading goes on where it was. */
	if (hit == NULL || strlen(hit) < sizeof mark + SIM_GUID_LEN || !sim_guid_parse(hit + sizeof mark - 1, SIM_GUID_LEN, &id))
		return 0;
	s = sim_store_any(t, id);
	return s != NULL ? (uint32_t) (s - t->store->slots) + 1 : 0;
}

/* A misspelt option must not pass silently. */
static bool
options_known(const SimReq *r, SimErr *e)
{
	static const char *const known[] = {"$select", "$filter", "$orderby", "$top", "$expand", "$count", "$skiptoken", "$skip", "$apply",
	"$deltatoken", NULL};

	for (int i = 0; i < r->path.n_options; i++)
	{
		const char *name = r->path.options[i].name;
		int			k = 0;

		while (known[k] != NULL && strcmp(known[k], name) != 0)
			k++;
		if (name[0] == '$' && known[k] == NULL)
			return sim_fail(e, 400, SIM_E_SYNTAX, "The query parameter %.60s is not supported.", name);
	}
	return true;
}

static bool
read_query(SimReq *r, SimTable *t, Query *q, SimErr *e)
{
	const char *filter = sim_path_option(&r->path, "$filter");
	const char *top = sim_path_option(&r->path, "$top");
	const char *count = sim_path_option(&r->path, "$count");
	const char *cookie = sim_path_option(&r->path, "$skiptoken");
	long		size = sim_req_prefer_number(r, "odata.maxpagesize");

	memset(q, 0, sizeof *q);
	q->table = t;
	if (!options_known(r, e))
		return false;
	if (sim_path_option(&r->path, "$skip") != NULL)
		return sim_fail(e, 400, SIM_E_NOT_SUPPORTED, "Skip Clause is not supported in CRM");
	if (filter != NULL && (q->filter = sim_filter_parse(r, t, filter, e)) == NULL)
		return false;
	if (!read_order(r, q, sim_path_option(&r->path, "$orderby"), e))
		return false;
	q->paged = size > 0;
	q->page = size > 0 && size < MAX_PAGE ? size : MAX_PAGE;
	if (sim_sw.page_most > 0 && q->page > sim_sw.page_most)
		q->page = sim_sw.page_most;
	if (top != NULL && !q->paged)
		q->top = strtol(top, NULL, 10);
	if (top != NULL && (*top < '0' || *top > '9'))
		return sim_fail(e, 400, SIM_E_SYNTAX, "Invalid value '%.40s' for $top query option found.", top);
	q->want_count = count != NULL && strcmp(count, "true") == 0;
	q->page_number = cookie != NULL ? cookie_number(cookie, "pagenumber=\"") : 1;
	if (q->page_number < 1)
		return sim_fail(e, 400, SIM_E_SYNTAX, "Invalid paging cookie.");
	q->from = q->n_order == 0 ? cookie_slot(t, cookie) : 0;
	q->skip = q->n_order > 0 || q->from == 0 ? (q->page_number - 1) * q->page : 0;
	return true;
}

static void
add_hit(Query *q, uint32_t slot)
{
	if (q->n_hits == q->cap_hits)
	{
		q->cap_hits = q->cap_hits ? q->cap_hits * 2 : 256;
		q->hits = sim_realloc(q->hits, sizeof *q->hits * q->cap_hits);
	}
	q->hits[q->n_hits++] = slot;
}

static int
by_slot(const void *a, const void *b)
{
	uint32_t	x = *(const uint32_t *) a,
				y = *(const uint32_t *) b;

	return x < y ? -1 : x > y;
}

/* Records named by id: looked up, not searched for. */
static void
collect_ids(Query *q, const SimFilter *ids)
{
	size_t		kept = 0;
	int			n = ids->op == SIM_F_IN ? ids->n : 1;

	for (int i = 0; i < n; i++)
	{
		const SimVal *v = ids->op == SIM_F_IN ? &ids->list[i] : &ids->value;
		uint32_t	slot = v->null ? SIM_NO_SLOT : sim_store_find(q->table, v->v.g);

		if (slot != SIM_NO_SLOT && slot >= q->from && sim_filter_match(q->filter, q->table, sim_store_slot(q->table, slot)))
			add_hit(q, slot);
	}
	if (q->n_hits > 1)
		qsort(q->hits, q->n_hits, sizeof *q->hits, by_slot);
	for (size_t i = 0; i < q->n_hits; i++)
		if (i == 0 || q->hits[i] != q->hits[i - 1])
			q->hits[kept++] = q->hits[i];
	q->n_hits = kept;
	q->total = kept;
}

static void
collect(Query *q)
{
	const SimFilter *ids = sim_filter_ids(q->filter);
	bool		all = q->n_order > 0 || q->want_count;
	size_t		enough = (size_t) (q->skip + (q->top > 0 && q->top < q->page ? q->top : q->page) + 1);

	if (ids != NULL)
	{
		collect_ids(q, ids);
		return;
	}
	for (uint32_t i = all && q->n_order == 0 ? 0 : q->from; i < q->table->store->n; i++)
	{
		const SimSlot *s = sim_store_slot(q->table, i);

		if (s->row == NULL || !sim_filter_match(q->filter, q->table, s))
			continue;
		q->total++;
		if (i >= q->from && (q->n_order > 0 || q->n_hits < enough))
			add_hit(q, i);
		if (!all && q->n_hits == enough)
			break;
	}
}

/* qsort_r's argument order differs between C libraries: sort through this. */
static _Thread_local const Query *sorting;

static int
by_order(const void *a, const void *b)
{
	const Query *q = sorting;
	uint32_t	x = *(const uint32_t *) a,
				y = *(const uint32_t *) b;

	for (int i = 0; i < q->n_order; i++)
	{
		const SimColumn *c = q->order[i].column;
		SimVal		u,
					v;
		bool		hu = sim_record_value(q->table, sim_store_slot(q->table, x), c->index, &u);
		bool		hv = sim_record_value(q->table, sim_store_slot(q->table, y), c->index, &v);
		int			d = hu && hv ? sim_value_compare(c, &u, &v) : hu - hv;

		if (d != 0)
			return q->order[i].descending ? -d : d;
	}
	return x < y ? -1 : x > y;
}

static void
put_next_link(SimReq *r, const Query *q, SimBuf *b, SimGuid first_id, SimGuid last_id)
{
	const char *uri = r->uri;
	const char *query = strchr(uri, '?');
	bool		first = true;

	sim_buf_printf(b, ",\"@odata.nextLink\":\"%s/api/data/v9.2/%s?", r->origin, q->table->set);
	while (query != NULL && *++query != '\0')
	{
		size_t		len = strcspn(query, "&");

		if (strncmp(query, "$skiptoken", 10) != 0 && strncmp(query, "%24skiptoken", 12) != 0)
		{
			sim_buf_puts(b, first ? "" : "&");
			sim_buf_add(b, query, len);
			first = false;
		}
		query += len;
		if (*query == '\0')
			break;
	}
	/* A cookie within a cookie, so escaped twice; clients must not look inside. */
	sim_buf_printf(b, "%s$skiptoken=%%3Ccookie%%20pagenumber=%%22%ld%%22%%20pagingcookie=%%22%%253ccookie%%2520page%%253d%%2522%ld%%2522"
				   "%%253e%%253c%s%%2520last%%253d%%2522%%257b", first ? "" : "&", q->page_number + 1, q->page_number, q->table->id_name);
	sim_buf_guid(b, last_id);
	sim_buf_puts(b, "%257d%2522%2520first%253d%2522%257b");
	sim_buf_guid(b, first_id);
	sim_buf_puts(b, "%257d%2522%2520%252f%253e%253c%252fcookie%253e%22");
	sim_buf_puts(b, "%20istracking=%22False%22%20/%3E\"");
}

static void
put_list(SimReq *r, Query *q, const SimOutput *o, SimResp *resp)
{
	SimBuf	   *b = &resp->body;
	const char *select = sim_path_option(&r->path, "$select");
	size_t		i = (size_t) q->skip;
	long		n = 0,
				most = q->top > 0 && q->top < q->page ? q->top : q->page;

	resp->status = 200;
	sim_buf_printf(b, "{\"@odata.context\":\"%s/api/data/v9.2/$metadata#%s%s%s%s\"", r->origin, q->table->set,
				   select != NULL ? "(" : "", select != NULL ? select : "", select != NULL ? ")" : "");
	if (q->want_count)
		sim_buf_printf(b, ",\"@odata.count\":%zu", q->total < MAX_PAGE ? q->total : (size_t) MAX_PAGE);
	if (o->annotations)
		sim_buf_printf(b, ",\"@Microsoft.Dynamics.CRM.totalrecordcount\":%ld,"
					   "\"@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded\":%s,"
					   "\"@Microsoft.Dynamics.CRM.globalmetadataversion\":\"6012567\"",
					   !q->want_count ? -1L : q->total < MAX_PAGE ? (long) q->total : (long) MAX_PAGE,
					   q->want_count && q->total > MAX_PAGE ? "true" : "false");
	sim_buf_puts(b, ",\"value\":[");
	for (; i < q->n_hits && n < most; i++, n++)
	{
		if (n > 0)
			sim_buf_char(b, ',');
		sim_output_record(b, o, sim_store_slot(q->table, q->hits[i]), NULL);
	}
	sim_buf_char(b, ']');
	if (i < q->n_hits && n > 0 && (q->top == 0 || q->top > q->page))
		put_next_link(r, q, b, sim_store_slot(q->table, q->hits[i - (size_t) n])->id,
					  sim_store_slot(q->table, q->hits[i - 1])->id);
	sim_buf_char(b, '}');
	if (q->paged)
		sim_resp_header(resp, "Preference-Applied", "odata.maxpagesize=%ld", q->page);
}

static size_t
count_matches(const SimTable *t, const SimFilter *f)
{
	size_t		n = 0;

	for (uint32_t i = 0; i < t->store->n; i++)
		if (t->store->slots[i].row != NULL && sim_filter_match(f, t, sim_store_slot(t, i)))
			n++;
	return n;
}

/* $apply=aggregate($count as n) and $apply=filter(...)/aggregate($count as n). */
static bool
run_apply(SimReq *r, SimTable *t, const char *apply, SimResp *resp)
{
	const char *end = strstr(apply, "aggregate($count as ");
	SimFilter  *f = NULL;
	SimTxn		own;
	size_t		n;
	int			name;

	if (end == NULL || (end != apply && (strncmp(apply, "filter(", 7) != 0 || end < apply + 9 || end[-1] != '/')))
		return sim_fail(&resp->err, 400, SIM_E_NOT_SUPPORTED, "The $apply expression is not supported.");
	if (end != apply)
	{
		char	   *text = sim_arena_strndup(r->arena, apply + 7, (size_t) (end - apply) - 9);

		if ((f = sim_filter_parse(r, t, text, &resp->err)) == NULL)
			return false;
	}
	end += strlen("aggregate($count as ");
	name = (int) strcspn(end, ")");
	sim_crud_begin(r, &own, false);
	n = count_matches(t, f);
	sim_crud_end(r, &own, true);
	if (n > MAX_AGGREGATE)
		return sim_fail(&resp->err, 400, "0x8004E023", "The maximum record limit is exceeded. Reduce the number of records.");
	resp->status = 200;
	sim_buf_printf(&resp->body, "{\"@odata.context\":\"%s/api/data/v9.2/$metadata#%s\",\"value\":[{\"%.*s\":%zu}]}", r->origin, t->set,
				   name, end, n);
	return true;
}

bool
sim_query_run(SimReq *r, SimTable *t, bool count_only, SimResp *resp)
{
	const char *apply = sim_path_option(&r->path, "$apply");
	SimOutput	o;
	Query		q;
	SimTxn		own;

	sim_stats_request(SIM_K_GET, r->in_batch);
	if (apply != NULL)
		return run_apply(r, t, apply, resp);
	if (sim_path_option(&r->path, "fetchXml") != NULL)
		return sim_fetch_run(r, t, resp);
	if (!read_query(r, t, &q, &resp->err) ||
		!sim_output_prepare(r, t, sim_path_option(&r->path, "$select"), sim_path_option(&r->path, "$expand"), &o, &resp->err))
		return false;
	sim_crud_begin(r, &own, false);
	if (count_only)
	{
		size_t		n = count_matches(t, q.filter);

		resp->status = 200;
		resp->content_type = "text/plain";
		sim_buf_printf(&resp->body, "\xef\xbb\xbf%zu", n < MAX_PAGE ? n : (size_t) MAX_PAGE);
	}
	else
	{
		collect(&q);
		sorting = &q;
		if (q.n_order > 0 && q.n_hits > 1)
			qsort(q.hits, q.n_hits, sizeof *q.hits, by_order);
		put_list(r, &q, &o, resp);
	}
	sim_crud_end(r, &own, true);
	free(q.hits);
	return true;
}

/* The records behind a navigation property, as $expand would show them. */
bool
sim_query_navigate(SimReq *r, SimRef *ref, const SimProp *p, SimResp *resp)
{
	SimOutput	o,
				inner;
	SimExpand	x = {.prop = p, .output = &inner};
	SimTable   *t = p->kind == SIM_P_NAV ? (p->target >= 0 ? p->column->targets[p->target].table : sim_model.users) :
		p->kind == SIM_P_COLLECTION ? p->other : p->relation->side[1 - p->side];
	SimTxn		own;
	uint32_t	slot;
	SimBuf		all = {0};

	sim_stats_request(SIM_K_GET, r->in_batch);
	if (t == NULL)
		return sim_fail(&resp->err, 404, SIM_E_SEGMENT, "Resource not found for the segment '%s'.", p->name);
	if (!sim_output_prepare(r, ref->table, ref->table->id_name, NULL, &o, &resp->err) ||
		!sim_output_prepare(r, t, sim_path_option(&r->path, "$select"), NULL, &inner, &resp->err))
		return false;
	o.expand = &x;
	o.etag = false;
	sim_crud_begin(r, &own, false);
	slot = sim_ref_find(ref);
	if (slot != SIM_NO_SLOT && p->kind != SIM_P_NAV)
		sim_output_members(&all, &x, sim_store_slot(ref->table, slot));
	else if (slot != SIM_NO_SLOT)
		sim_output_record(&all, &o, sim_store_slot(ref->table, slot), NULL);
	sim_crud_end(r, &own, true);
	if (slot == SIM_NO_SLOT)
		return sim_ref_missing(ref, 404, &resp->err);
	if (all.data != NULL && p->kind != SIM_P_NAV)
	{
		resp->status = 200;
		sim_buf_printf(&resp->body, "{\"@odata.context\":\"%s/api/data/v9.2/$metadata#%s\",\"value\":%.*s}", r->origin, t->set,
					   (int) all.len, all.data);
	}
	else if (all.data != NULL)
	{
		/* {"id":"...","nav":X} : X is the answer. */
		const char *key = sim_arena_printf(r->arena, "\"%s\":", p->name);
		const char *at = strstr(all.data, key) + strlen(key);

		resp->status = strncmp(at, "null", 4) == 0 ? 204 : 200;
		if (resp->status == 200)
			sim_buf_add(&resp->body, at, all.len - (size_t) (at - all.data) - 1);
	}
	sim_buf_free(&all);
	return true;
}

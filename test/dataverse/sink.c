/*
 * sink.c - bulk creates for benchmarks: counted and answered, not kept
 *
 * Only what an answer needs is looked for: how many targets there are and
 * the id each of them brings. Nothing is checked.
 */
#include <string.h>

#include "bulk.h"
#include "stats.h"
#include "switches.h"

bool		sim_sink = false;

/* Position behind the string that begins at p (behind its quote); NULL at the end. */
static const char *
skip_string(const char *p, const char *end)
{
	for (;;)
	{
		const char *q = memchr(p, '"', (size_t) (end - p));
		const char *b;

		if (q == NULL)
			return NULL;
		for (b = q; b > p && b[-1] == '\\'; b--)
			;
		if ((q - b) % 2 == 0)
			return q + 1;
		p = q + 1;
	}
}

typedef struct Scan
{
	SimBuf	   *out;
	const char *id_name;
	size_t		id_len;
	uint64_t	n;
	bool		has_id;
	SimGuid		id;
} Scan;

static void
end_target(Scan *s)
{
	if (!s->has_id)
		s->id = sim_guid_random();
	sim_buf_add(s->out, s->n > 0 ? ",\"" : "\"", s->n > 0 ? 2 : 1);
	sim_buf_guid(s->out, s->id);
	sim_buf_char(s->out, '"');
	s->has_id = false;
	s->n++;
}

/* The string before p was the id column's name at a target's top level. */
static void
read_id(Scan *s, const char *p, const char *end)
{
	if (end - p > SIM_GUID_LEN + 2 && p[0] == ':' && p[1] == '"')
		s->has_id = sim_guid_parse(p + 2, SIM_GUID_LEN, &s->id);
}

/* Targets are the objects at depth 2: {"Targets":[{...},{...}]} */
static bool
scan(Scan *s, const char *p, const char *end)
{
	int			depth = 0;

	while (p < end)
	{
		char		c = *p++;

		if (c == '"')
		{
			const char *from = p;

			p = skip_string(p, end);
			if (p == NULL)
				return false;
			if (depth == 3 && (size_t) (p - 1 - from) == s->id_len && memcmp(from, s->id_name, s->id_len) == 0)
				read_id(s, p, end);
		}
		else if (c == '{' || c == '[')
			depth++;
		else if (c == '}' || c == ']')
		{
			if (--depth == 2 && c == '}')
				end_target(s);
		}
	}
	return depth == 0;
}

bool
sim_sink_create_multiple(SimReq *r, SimTable *t, SimResp *resp)
{
	Scan		s = {.out = &resp->body, .id_name = t->id_name, .id_len = strlen(t->id_name)};

	sim_stats_request(SIM_K_CREATE_MULTIPLE, r->in_batch);
	sim_buf_room(s.out, r->len / 8);
	sim_buf_printf(s.out, "{\"@odata.context\":\"%s/api/data/v9.2/$metadata#Microsoft.Dynamics.CRM.CreateMultipleResponse\",\"Ids\":[",
				   r->origin);
	if (!scan(&s, r->body, r->body + r->len))
		return sim_fail_payload(&resp->err, t->set, "Invalid JSON.");
	sim_buf_puts(s.out, "]}");
	sim_stats_targets(s.n);
	sim_stats_rows(s.n, 0, 0, 0);
	r->rows += s.n * (uint64_t) sim_switch_weight(t->name);
	resp->status = 200;
	return true;
}

/*
 * fetch.c - the fetchXml query option, turned into $select, $filter, $orderby
 *
 * One entity with attributes, filters and orders; joins and aggregates are
 * refused rather than ignored.
 */
#include <stdlib.h>
#include <string.h>

#include "route.h"

#define MAX_DEPTH 16

/* One tag: <name attributes>, </name> or <name ... /> */
typedef struct Tag
{
	SimStr		name;
	SimStr		inside;			/* the attributes */
	bool		close;
	bool		empty;
} Tag;

typedef struct Fetch
{
	SimReq	   *r;
	SimTable   *t;
	SimBuf		select;
	SimBuf		filter;
	SimBuf		order;
	char		join[MAX_DEPTH];	/* 'a' or 'o' of each open filter */
	int			terms[MAX_DEPTH];	/* conditions so far in each of them */
	int			filters;		/* open filters */
	int			open;			/* open tags */
	SimStr		names[MAX_DEPTH];
	bool		entity;
	SimErr	   *e;
} Fetch;

static bool
bad_xml(Fetch *f)
{
	return sim_fail(f->e, 400, "0x80041100", "Invalid XML.");
}

/* The next tag at or behind *p: 1, 0 at the end, -1 when malformed. */
static int
next_tag(const char **p, Tag *out)
{
	const char *begin = strchr(*p, '<'),
			   *end;

	if (begin == NULL)
		return 0;
	end = strchr(begin, '>');
	if (end == NULL)
		return -1;
	*p = end + 1;
	memset(out, 0, sizeof *out);
	begin++;
	out->close = *begin == '/';
	begin += out->close;
	out->empty = end[-1] == '/';
	out->name = (SimStr) {begin, strcspn(begin, " \t\r\n/>")};
	begin += out->name.len;
	out->inside = (SimStr) {begin, (size_t) (end - begin) - out->empty};
	return out->name.len > 0 ? 1 : -1;
}

/* Value of an attribute with its entities resolved; NULL when absent. */
static char *
attribute(Fetch *f, const Tag *tag, const char *name)
{
	static const struct
	{
		const char *text;
		char		c;
	}			entities[] = {{"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}, {"&amp;", '&'}};
	char	   *copy = sim_arena_strndup(f->r->arena, tag->inside.s, tag->inside.len);
	char	   *p = copy,
			   *o,
			   *value;
	size_t		n = strlen(name);

	do
	{
		p = strstr(p + (p > copy), name);
	} while (p != NULL && (p == copy || p[-1] != ' ' || p[n] != '=' || (p[n + 1] != '"' && p[n + 1] != '\'')));
	if (p == NULL)
		return NULL;
	value = o = p + n + 2;
	*strchr(value, p[n + 1] == '"' ? '"' : '\'') = '\0';
	for (p = value; *p != '\0'; p++)
	{
		*o++ = *p;
		for (size_t i = 0; *p == '&' && i < sizeof entities / sizeof entities[0]; i++)
			if (strncmp(p, entities[i].text, strlen(entities[i].text)) == 0)
			{
				o[-1] = entities[i].c;
				p += strlen(entities[i].text) - 1;
				break;
			}
	}
	*o = '\0';
	return value;
}

/* A literal of the column's type, quotes doubled where it is text. */
static void
put_literal(SimBuf *b, const SimColumn *c, const char *value)
{
	bool		text = c->storage == SIM_ST_TEXT && c->type != SIM_T_DECIMAL && c->type != SIM_T_MONEY;

	sim_buf_puts(b, text ? "'" : "");
	for (; *value != '\0'; value++)
	{
		sim_buf_char(b, *value);
		if (text && *value == '\'')
			sim_buf_char(b, '\'');
	}
	sim_buf_puts(b, text ? "'" : "");
}

/* like 'a%', '%a', '%a%' or 'a' */
static void
put_like(SimBuf *b, const SimColumn *c, const char *name, char *pattern)
{
	size_t		n = strlen(pattern);
	bool		before = n > 0 && pattern[0] == '%',
				after = n > 1 && pattern[n - 1] == '%';

	if (after)
		pattern[n - 1] = '\0';
	pattern += before;
	if (!before && !after)
		sim_buf_printf(b, "%s eq ", name);
	else
		sim_buf_printf(b, "%s(%s,", before && after ? "contains" : after ? "startswith" : "endswith", name);
	put_literal(b, c, pattern);
	sim_buf_puts(b, before || after ? ")" : "");
}

static bool
read_condition(Fetch *f, const Tag *tag)
{
	static const char *const plain[] = {"eq", "ne", "gt", "ge", "lt", "le", NULL};
	char	   *name = attribute(f, tag, "attribute"),
			   *op = attribute(f, tag, "operator"),
			   *value = attribute(f, tag, "value");
	const SimColumn *c = name != NULL ? sim_table_column(f->t, name, strlen(name)) : NULL;
	SimBuf	   *b = &f->filter;
	int			i = 0;

	if (c == NULL || op == NULL)
		return sim_fail(f->e, 400, "0x80041103", "'%.60s' entity doesn't contain attribute with Name = '%.60s'.", f->t->name,
						name != NULL ? name : "");
	if (c->n_targets > 0 || c->type == SIM_T_OWNER)
		name = sim_arena_printf(f->r->arena, "_%s_value", name);
	if (f->filters == 0)
		return bad_xml(f);
	if (f->terms[f->filters - 1]++ > 0)
		sim_buf_puts(b, f->join[f->filters - 1] == 'o' ? " or " : " and ");
	if (strcmp(op, "null") == 0 || strcmp(op, "not-null") == 0)
	{
		sim_buf_printf(b, "%s %s null", name, *op == 'n' && op[1] == 'u' ? "eq" : "ne");
		return true;
	}
	if (value == NULL)
		return bad_xml(f);
	if (strcmp(op, "like") == 0)
	{
		put_like(b, c, name, value);
		return true;
	}
	if (strcmp(op, "neq") == 0)
		op[1] = 'e', op[2] = '\0';
	while (plain[i] != NULL && strcmp(plain[i], op) != 0)
		i++;
	if (plain[i] == NULL)
		return sim_fail(f->e, 400, SIM_E_NOT_SUPPORTED, "The FetchXml operator '%.40s' is not simulated.", op);
	sim_buf_printf(b, "%s %s ", name, plain[i]);
	put_literal(b, c, value);
	return true;
}

static bool
open_filter(Fetch *f, const Tag *tag)
{
	const char *type = attribute(f, tag, "type");

	if (f->filters == MAX_DEPTH)
		return bad_xml(f);
	if (f->filters > 0 && f->terms[f->filters - 1]++ > 0)
		sim_buf_puts(&f->filter, f->join[f->filters - 1] == 'o' ? " or " : " and ");
	f->join[f->filters] = type != NULL && strcmp(type, "or") == 0 ? 'o' : 'a';
	f->terms[f->filters++] = 0;
	sim_buf_char(&f->filter, '(');
	return true;
}

static bool
read_tag(Fetch *f, const Tag *tag)
{
	const char *name;

	if (sim_str_is(tag->name, "fetch"))
		return true;
	if (sim_str_is(tag->name, "entity"))
	{
		name = attribute(f, tag, "name");
		f->entity = name != NULL && strcmp(name, f->t->name) == 0;
		return f->entity || sim_fail(f->e, 400, SIM_E_ARGUMENT, "The FetchXml does not name the entity of the URL.");
	}
	if (sim_str_is(tag->name, "all-attributes"))
		return true;
	if (sim_str_is(tag->name, "condition"))
		return read_condition(f, tag);
	if (sim_str_is(tag->name, "filter"))
		return open_filter(f, tag);
	if (sim_str_is(tag->name, "attribute") && (name = attribute(f, tag, "name")) != NULL)
	{
		sim_buf_printf(&f->select, "%s%s", f->select.len > 0 ? "," : "", name);
		return true;
	}
	if (sim_str_is(tag->name, "order") && (name = attribute(f, tag, "attribute")) != NULL)
	{
		const char *down = attribute(f, tag, "descending");

		sim_buf_printf(&f->order, "%s%s%s", f->order.len > 0 ? "," : "", name, down != NULL && strcmp(down, "true") == 0 ? " desc" : "");
		return true;
	}
	return sim_fail(f->e, 400, SIM_E_NOT_SUPPORTED, "The FetchXml element '%.*s' is not simulated.", (int) tag->name.len, tag->name.s);
}

static bool
close_tag(Fetch *f, SimStr name)
{
	if (f->open == 0 || f->names[f->open - 1].len != name.len || memcmp(f->names[f->open - 1].s, name.s, name.len) != 0)
		return bad_xml(f);
	f->open--;
	if (sim_str_is(name, "filter"))
	{
		f->filters--;
		sim_buf_puts(&f->filter, f->terms[f->filters] == 0 ? "createdon ne null)" : ")");
	}
	return true;
}

static bool
read_fetch(Fetch *f, const char *xml, const char **top)
{
	Tag			tag;
	int			more;

	while ((more = next_tag(&xml, &tag)) > 0)
	{
		if (tag.close)
		{
			if (!close_tag(f, tag.name))
				return false;
			continue;
		}
		if (f->open == MAX_DEPTH || !read_tag(f, &tag))
			return bad_xml(f);
		if (sim_str_is(tag.name, "fetch") && (*top = attribute(f, &tag, "top")) == NULL)
			*top = attribute(f, &tag, "count");
		f->names[f->open++] = tag.name;
		if (tag.empty && !close_tag(f, tag.name))
			return false;
	}
	return (more == 0 && f->open == 0 && f->entity) || bad_xml(f);
}

static void
add_option(SimReq *r, const char *name, SimBuf *b)
{
	if (b->len > 0 && r->path.n_options < SIM_MAX_OPTIONS)
		r->path.options[r->path.n_options++] = (SimOptionPair) {name, sim_arena_strndup(r->arena, b->data, b->len)};
}

bool
sim_fetch_run(SimReq *r, SimTable *t, SimResp *resp)
{
	Fetch		f = {.r = r, .t = t, .e = &resp->err};
	const char *top = NULL;
	bool		ok = read_fetch(&f, sim_path_option(&r->path, "fetchXml"), &top);

	r->path.n_options = 0;
	add_option(r, "$select", &f.select);
	add_option(r, "$filter", &f.filter);
	add_option(r, "$orderby", &f.order);
	if (top != NULL)
		r->path.options[r->path.n_options++] = (SimOptionPair) {"$top", top};
	sim_buf_free(&f.select);
	sim_buf_free(&f.filter);
	sim_buf_free(&f.order);
	return ok && sim_query_run(r, t, false, resp);
}

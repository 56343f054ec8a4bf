/*
 * ref.c - references to records: accounts(<guid>), accounts(code='A'), $1
 */
#include "ref.h"

#include <string.h>

#include "switches.h"
#include "value.h"

/* With these in a key value GET and PATCH by key do not work. */
#define SPECIAL "/<>*%&:\\?+"

typedef struct Pair
{
	SimStr		name;
	SimStr		value;			/* unquoted, doubled quotes undone */
	bool		quoted;
} Pair;

static bool
bad_key(SimErr *e, const SimTable *t)
{
	return sim_fail(e, 400, SIM_E_SYNTAX,
					"The key in the request URI is not valid for resource 'Microsoft.Dynamics.CRM.%s'. Ensure that the names and "
					"number of key properties match the declared or alternate key properties for the resource "
					"'Microsoft.Dynamics.CRM.%s'.", t->name, t->name);
}

static bool
read_quoted(SimArena *a, const char **p, const char *end, Pair *out)
{
	char	   *o = sim_arena_alloc(a, (size_t) (end - *p) + 1);

	out->quoted = true;
	out->value.s = o;
	for ((*p)++; *p < end; (*p)++)
	{
		if (**p == '\'')
		{
			if (*p + 1 < end && (*p)[1] == '\'')
				(*p)++;
			else
			{
				out->value.len = (size_t) (o - out->value.s);
				*o = '\0';
				(*p)++;
				return true;
			}
		}
		*o++ = **p;
	}
	return false;
}

/* name=value, name='value', ... ; the number of pairs, or -1. */
static int
read_pairs(SimArena *a, SimStr text, Pair *pairs, int max)
{
	const char *p = text.s,
			   *end = p + text.len;
	int			n = 0;

	while (p < end)
	{
		const char *eq = memchr(p, '=', (size_t) (end - p));

		if (eq == NULL || n == max)
			return -1;
		while (*p == ' ')
			p++;
		pairs[n] = (Pair) {.name = {p, (size_t) (eq - p)}};
		p = eq + 1;
		if (p < end && *p == '\'')
		{
			if (!read_quoted(a, &p, end, &pairs[n]))
				return -1;
		}
		else
		{
			const char *comma = memchr(p, ',', (size_t) (end - p));
			const char *stop = comma != NULL ? comma : end;

			pairs[n].value = (SimStr) {sim_arena_strndup(a, p, (size_t) (stop - p)), (size_t) (stop - p)};
			p = stop;
		}
		n++;
		if (p < end && *p++ != ',')
			return -1;
	}
	return n;
}

static const SimColumn *
pair_column(const SimTable *t, const Pair *pair)
{
	const SimProp *p = sim_table_prop(t, pair->name.s, pair->name.len);

	if (p == NULL || (p->kind != SIM_P_COLUMN && p->kind != SIM_P_VALUE))
		return NULL;
	return p->column;
}

/* The active key that has exactly these columns. */
static const SimKey *
match_key(const SimTable *t, const SimColumn **columns, int n)
{
	for (int k = 0; k < t->n_keys; k++)
	{
		int			hits = 0;

		if (t->keys[k].n_columns != n || !sim_key_active(&t->keys[k]))
			continue;
		for (int i = 0; i < n; i++)
			for (int c = 0; c < n; c++)
				hits += t->keys[k].columns[i] == columns[c]->index;
		if (hits == n)
			return &t->keys[k];
	}
	return NULL;
}

static bool
read_value(SimArena *a, const SimTable *t, const SimColumn *c, const Pair *pair, SimVal *out, SimErr *e)
{
	SimScalar	s = {.text = pair->value, .ascii = true, .integral = true};
	bool		text = c->storage == SIM_ST_TEXT && c->type != SIM_T_DECIMAL && c->type != SIM_T_MONEY;

	if (text != pair->quoted)
		return bad_key(e, t);
	if (c->type == SIM_T_LOOKUP || c->type == SIM_T_CUSTOMER)
	{
		memset(out, 0, sizeof *out);
		out->column = c->index;
		if (c->n_targets > 0 && c->targets[0].table != NULL)
			out->target = c->targets[0].table->number;
		return sim_guid_parse(pair->value.s, pair->value.len, &out->v.g) || bad_key(e, t);
	}
	s.kind = text || c->type == SIM_T_DATE || c->type == SIM_T_GUID ? SIM_JSON_STRING : SIM_JSON_NUMBER;
	s.integral = memchr(pair->value.s, '.', pair->value.len) == NULL;
	if (s.kind == SIM_JSON_NUMBER && (pair->value.len == 0 || strspn(pair->value.s, "-0123456789.") != pair->value.len))
		return bad_key(e, t);
	if (!sim_value_read(a, t, c, &s, out, e))
		return false;
	return !out->null || bad_key(e, t);
}

bool
sim_ref_key(SimArena *a, SimTable *t, SimStr text, bool in_body, SimRef *out, SimErr *e)
{
	Pair		pairs[16];		/* a key has at most 16 columns */
	const SimColumn *columns[16];
	int			n;
	int			special = in_body ? sim_sw.key_special_body : sim_sw.key_special;

	memset(out, 0, sizeof *out);
	out->table = t;
	if (sim_guid_parse(text.s, text.len, &out->id))
		return out->by_id = true;
	n = read_pairs(a, text, pairs, 16);
	if (n <= 0)
		return bad_key(e, t);
	/* Users and teams inherit their key from principal: no named form. */
	if (t == sim_model.users || t == sim_model.teams)
		return bad_key(e, t);
	if (n == 1 && sim_str_is(pairs[0].name, t->id_name) && sim_guid_parse(pairs[0].value.s, pairs[0].value.len, &out->id))
		return out->by_id = true;
	for (int i = 0; i < n; i++)
		if ((columns[i] = pair_column(t, &pairs[i])) == NULL)
			return bad_key(e, t);
	if ((out->key = match_key(t, columns, n)) == NULL)
		return bad_key(e, t);
	out->vals = sim_arena_alloc(a, sizeof(SimVal) * (size_t) n);
	for (int i = 0; i < n; i++)
		for (int k = 0; k < n; k++)
		{
			if (columns[k]->index != out->key->columns[i])
				continue;
			if (!read_value(a, t, columns[k], &pairs[k], &out->vals[i], e))
				return false;
			if (special != SIM_ACCEPTED && pairs[k].quoted && strpbrk(pairs[k].value.s, SPECIAL) != NULL)
				return sim_fail(e, 400, SIM_E_SYNTAX, "Bad Request - Error in query syntax.");
		}
	return true;
}

/* Strip "https://host", "/api/data/v9.2/" and a leading slash. */
static SimStr
relative(SimStr s)
{
	const char *end = s.s + s.len;
	const char *p = s.s;
	size_t		n = strlen(SIM_API_PATH);

	if (s.len > 8 && (memcmp(p, "http://", 7) == 0 || memcmp(p, "https://", 8) == 0))
	{
		p = memchr(p + 8, '/', s.len - 8);
		if (p == NULL)
			return s;
	}
	if ((size_t) (end - p) > n + 2 && memcmp(p, SIM_API_PATH, n) == 0 && p[n + 1] == '/')
		p += n + 2;
	else if (p < end && *p == '/')
		p++;
	return (SimStr) {p, (size_t) (end - p)};
}

bool
sim_ref_parse(const SimReq *r, SimStr text, SimRef *out, SimErr *e)
{
	const SimContentId *c;
	const char *open;
	SimTable   *t;
	SimStr		key;

	if (text.len > 0 && text.s[0] == '$')
	{
		if ((c = sim_content_find(r, text)) == NULL)
			return sim_fail(e, 400, SIM_E_PAYLOAD, "Content-ID Reference: '%.*s' does not exist in the batch context.",
							(int) (text.len > 40 ? 40 : text.len), text.s);
		memset(out, 0, sizeof *out);
		out->table = c->table;
		out->by_id = true;
		out->id = c->guid;
		return true;
	}
	text = relative(text);
	open = memchr(text.s, '(', text.len);
	if (open == NULL || text.s[text.len - 1] != ')')
		return sim_fail(e, 400, SIM_E_PAYLOAD, "Invalid URI '%.*s' in an entity reference.",
						(int) (text.len > 200 ? 200 : text.len), text.s);
	t = sim_table_by_set(text.s, (size_t) (open - text.s));
	if (t == NULL)
		return sim_fail(e, 400, SIM_E_SEGMENT, "Resource not found for the segment '%.*s'.", (int) (open - text.s), text.s);
	key = (SimStr) {open + 1, (size_t) (text.s + text.len - open) - 2};
	if (memchr(key.s, '%', key.len) != NULL)
	{
		char	   *decoded = sim_arena_alloc(r->arena, key.len + 1);

		key.len = sim_percent_decode(key.s, key.len, decoded, false);
		key.s = decoded;
	}
	return sim_ref_key(r->arena, t, key, true, out, e);
}

uint32_t
sim_ref_find(const SimRef *ref)
{
	return ref->by_id ? sim_store_find(ref->table, ref->id) : sim_key_find(ref->table, ref->key, ref->vals);
}

bool
sim_ref_missing(const SimRef *ref, int status, SimErr *e)
{
	if (ref->by_id)
		return sim_fail_missing(e, status, ref->table->name, ref->id);
	return sim_fail(e, status, SIM_E_NO_KEY_RECORD, "A record with the specified key values does not exist in %s entity",
					ref->table->name);
}

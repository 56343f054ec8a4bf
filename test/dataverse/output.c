/*
 * output.c - records as JSON: selected columns, annotations, expanded parents
 */
#include "output.h"

#include <string.h>

#include "switches.h"
#include "value.h"

static bool
is_lookup(const SimColumn *c)
{
	return c->type == SIM_T_LOOKUP || c->type == SIM_T_CUSTOMER || c->type == SIM_T_OWNER;
}

static bool
unknown(SimErr *e, const SimTable *t, const char *name, size_t len)
{
	return sim_fail(e, 400, SIM_E_NONE, "Could not find a property named '%.*s' on type 'Microsoft.Dynamics.CRM.%s'.",
					(int) (len > 200 ? 200 : len), name, t->name);
}

static bool
add_selected(const SimReq *r, SimOutput *out, const char *name, size_t len, SimErr *e)
{
	const SimProp *p = sim_table_prop(out->table, name, len);
	const SimColumn **grown;

	if (p == NULL || (p->kind != SIM_P_COLUMN && p->kind != SIM_P_VALUE))
		return unknown(e, out->table, name, len);
	grown = sim_arena_alloc(r->arena, sizeof *grown * (size_t) (out->n_columns + 1));
	if (out->n_columns > 0)
		memcpy(grown, out->columns, sizeof *grown * (size_t) out->n_columns);
	grown[out->n_columns++] = p->column;
	out->columns = grown;
	return true;
}

static bool
read_select(const SimReq *r, SimOutput *out, const char *s, SimErr *e)
{
	while (*s != '\0')
	{
		size_t		len;

		s += strspn(s, " ,");
		len = strcspn(s, ", ");
		if (len > 0 && !(len == 1 && *s == '*') && !add_selected(r, out, s, len, e))
			return false;
		s += len;
	}
	return true;
}

/* Length up to the comma or end that is outside parentheses. */
static size_t
item_length(const char *s, char stop)
{
	int			depth = 0;
	size_t		n = 0;

	for (; s[n] != '\0'; n++)
	{
		if (s[n] == '(')
			depth++;
		else if (s[n] == ')')
			depth--;
		else if (s[n] == stop && depth == 0)
			break;
	}
	return n;
}

static bool
read_expand(const SimReq *r, SimOutput *out, const char *s, SimErr *e)
{
	while (*s != '\0')
	{
		size_t		len = item_length(s, ','),
					name = strcspn(s, "(,");
		const SimProp *p = sim_table_prop(out->table, s, name > len ? len : name);
		SimExpand  *x;
		SimTable   *t;
		const char *select = NULL;
		char	   *inner;

		if (p == NULL || p->kind == SIM_P_COLUMN || p->kind == SIM_P_VALUE)
			return unknown(e, out->table, s, name > len ? len : name);
		t = p->kind == SIM_P_NAV ? (p->target >= 0 ? p->column->targets[p->target].table : sim_model.users) :
			p->kind == SIM_P_COLLECTION ? p->other : p->relation->side[1 - p->side];
		if (t == NULL)
			return unknown(e, out->table, s, name);
		if (name < len)
		{
			inner = sim_arena_strndup(r->arena, s + name + 1, len - name - 2);
			if (strncmp(inner, "$select=", 8) == 0)
			{
				select = inner + 8;
				inner[8 + item_length(select, ';')] = '\0';
			}
		}
		x = memset(sim_arena_alloc(r->arena, sizeof *x), 0, sizeof *x);
		x->prop = p;
		x->output = sim_arena_alloc(r->arena, sizeof *x->output);
		if (!sim_output_prepare(r, t, select, NULL, x->output, e))
			return false;
		x->next = out->expand;
		out->expand = x;
		s += len;
		s += *s == ',';
	}
	return true;
}

bool
sim_output_prepare(const SimReq *r, SimTable *t, const char *select, const char *expand, SimOutput *out, SimErr *e)
{
	memset(out, 0, sizeof *out);
	out->table = t;
	out->nulls = out->etag = true;
	out->annotations = sim_req_prefers(r, "odata.include-annotations");
	return (select == NULL || read_select(r, out, select, e)) && (expand == NULL || read_expand(r, out, expand, e));
}

static void
comma(SimBuf *b)
{
	if (b->data[b->len - 1] != '{')
		sim_buf_char(b, ',');
}

static void
put_name(SimBuf *b, const SimColumn *c)
{
	comma(b);
	sim_buf_puts(b, is_lookup(c) ? "\"_" : "\"");
	sim_buf_puts(b, c->name);
	if (is_lookup(c))
		sim_buf_puts(b, "_value");
}

/* A lookup whose target is gone reads as null: the platform removed the link. */
static bool
dangling(const SimColumn *c, const SimVal *v)
{
	return is_lookup(c) && c->implied == SIM_I_NONE && !sim_store_exists(sim_model.tables[v->target], v->v.g);
}

static void
put_annotations(SimBuf *b, const SimOutput *o, const SimColumn *c, const SimVal *v)
{
	if (is_lookup(c))
	{
		put_name(b, c);
		sim_buf_puts(b, "@Microsoft.Dynamics.CRM.lookuplogicalname\":");
		sim_buf_printf(b, "\"%s\"", sim_model.tables[v->target]->name);
		if (c->n_targets > 0 && c->implied == SIM_I_NONE)
			for (int i = 0; i < c->n_targets; i++)
				if (c->targets[i].table == sim_model.tables[v->target])
				{
					put_name(b, c);
					sim_buf_printf(b, "@Microsoft.Dynamics.CRM.associatednavigationproperty\":\"%s\"", c->targets[i].nav);
				}
	}
	if (c->type == SIM_T_STRING || c->type == SIM_T_MEMO || c->type == SIM_T_GUID || c->type == SIM_T_IMAGE)
		return;
	put_name(b, c);
	sim_buf_puts(b, "@OData.Community.Display.V1.FormattedValue\":");
	sim_value_put_formatted(b, o->table, c, v);
}

void
sim_output_column(SimBuf *b, const SimOutput *o, const SimSlot *slot, const SimColumn *c)
{
	SimVal		v;

	if (!sim_record_value(o->table, slot, c->index, &v) || dangling(c, &v))
	{
		if (!o->nulls)
			return;
		put_name(b, c);
		sim_buf_puts(b, "\":null");
		return;
	}
	if (o->annotations)
		put_annotations(b, o, c, &v);
	put_name(b, c);
	sim_buf_puts(b, "\":");
	sim_value_put(b, c, &v);
}

typedef struct LinkList
{
	SimBuf	   *b;
	const SimExpand *x;
} LinkList;

static void
put_linked(void *arg, SimGuid a, SimGuid b)
{
	LinkList   *l = arg;
	SimGuid		other = l->x->prop->side == 0 ? b : a;
	uint32_t	at = sim_store_find(l->x->output->table, other);

	if (at == SIM_NO_SLOT)
		return;
	if (l->b->data[l->b->len - 1] != '[')
		sim_buf_char(l->b, ',');
	sim_output_record(l->b, l->x->output, sim_store_slot(l->x->output->table, at), NULL);
}

static void
put_collection(SimBuf *b, const SimExpand *x, SimGuid id)
{
	SimTable   *t = x->output->table;
	SimVal		v;

	for (uint32_t i = 0; i < t->store->n; i++)
	{
		const SimSlot *s = sim_store_slot(t, i);

		if (s->row == NULL || !sim_row_cell(t, s->row, x->prop->column->index, &v) || !sim_guid_eq(v.v.g, id))
			continue;
		if (b->data[b->len - 1] != '[')
			sim_buf_char(b, ',');
		sim_output_record(b, x->output, s, NULL);
	}
}

void
sim_output_members(SimBuf *b, const SimExpand *x, const SimSlot *slot)
{
	LinkList	l = {b, x};

	sim_buf_char(b, '[');
	if (x->prop->kind == SIM_P_COLLECTION)
		put_collection(b, x, slot->id);
	else
		sim_links_each(x->prop->relation, x->prop->side, &slot->id, put_linked, &l);
	sim_buf_char(b, ']');
}

/* A collection that $expand asks for. */
static void
put_members(SimBuf *b, const SimExpand *x, const SimSlot *slot)
{
	if (sim_sw.collections == SIM_HERE)
		sim_output_members(b, x, slot);
	else
		sim_buf_puts(b, "[]");
	if (sim_sw.collections == SIM_ELSEWHERE)
		sim_buf_printf(b, ",\"%s@odata.nextLink\":\"elsewhere\"", x->prop->name);
}

static void
put_expand(SimBuf *b, const SimOutput *o, const SimExpand *x, const SimSlot *slot)
{
	if (sim_sw.collections == SIM_LEFT_OUT && x->prop->kind != SIM_P_NAV)
		return;
	comma(b);
	sim_json_put(b, x->prop->name);
	sim_buf_char(b, ':');
	if (x->prop->kind == SIM_P_NAV)
	{
		SimVal		v;
		uint32_t	at = SIM_NO_SLOT;

		if (sim_record_value(o->table, slot, x->prop->column->index, &v) && v.target == x->output->table->number)
			at = sim_store_find(x->output->table, v.v.g);
		if (at == SIM_NO_SLOT)
			sim_buf_puts(b, "null");
		else
			sim_output_record(b, x->output, sim_store_slot(x->output->table, at), NULL);
		return;
	}
	put_members(b, x, slot);
}

void
sim_output_record(SimBuf *b, const SimOutput *o, const SimSlot *slot, const char *context)
{
	bool		id_done = false;

	sim_buf_char(b, '{');
	if (context != NULL)
	{
		sim_buf_puts(b, "\"@odata.context\":");
		sim_json_put(b, context);
	}
	if (o->etag)
	{
		comma(b);
		sim_buf_printf(b, "\"@odata.etag\":\"W/\\\"%llu\\\"\"", (unsigned long long) slot->row->version);
	}
	if (o->columns == NULL)
		for (int i = 0; i < o->table->n_columns; i++)
		{
			if (o->table->columns[i].type != SIM_T_PARTY)
				sim_output_column(b, o, slot, &o->table->columns[i]);
			id_done = true;
		}
	for (int i = 0; i < o->n_columns; i++)
	{
		sim_output_column(b, o, slot, o->columns[i]);
		id_done |= o->columns[i]->implied == SIM_I_ID;
	}
	if (!id_done)
		sim_output_column(b, o, slot, o->table->id_column);
	for (const SimExpand *x = o->expand; x != NULL; x = x->next)
		put_expand(b, o, x, slot);
	sim_buf_char(b, '}');
}

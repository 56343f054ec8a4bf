/*
 * record.c - the payload of a create or update, read and checked by itself
 */
#include "record.h"

#include <string.h>

#include "dates.h"
#include "switches.h"

#define TYPE_PREFIX "Microsoft.Dynamics.CRM."

void
sim_rec_init(SimRec *rec, SimTable *t)
{
	memset(rec, 0, sizeof *rec);
	rec->table = t;
	rec->overridden = SIM_NO_TIME;
}

bool
sim_rec_syntax(const SimJson *j, SimErr *e)
{
	return sim_fail(e, 400, SIM_E_PAYLOAD, "Error identified in Payload provided by the user. InnerException : "
					"Microsoft.OData.ODataException: Invalid JSON. %s at position %zu.",
					j->error != NULL ? j->error : "Unexpected content was found", (size_t) (j->p - j->start));
}

SimVal *
sim_rec_add(SimReq *r, SimRec *rec, const SimColumn *c)
{
	SimVal	   *v;

	if (rec->n_vals == rec->cap_vals)
	{
		int			cap = rec->cap_vals ? rec->cap_vals * 2 : 24;
		SimVal	   *grown = sim_arena_alloc(r->arena, sizeof *grown * (size_t) cap);

		if (rec->n_vals > 0)
			memcpy(grown, rec->vals, sizeof *grown * (size_t) rec->n_vals);
		rec->vals = grown;
		rec->cap_vals = cap;
	}
	v = &rec->vals[rec->n_vals++];
	memset(v, 0, sizeof *v);
	v->column = c->index;
	return v;
}

SimVal *
sim_rec_find(const SimRec *rec, const SimColumn *c)
{
	for (int i = rec->n_vals - 1; c != NULL && i >= 0; i--)
		if (rec->vals[i].column == c->index)
			return &rec->vals[i];
	return NULL;
}

static SimBind *
add_bind(SimReq *r, SimRec *rec)
{
	if (rec->n_binds == rec->cap_binds)
	{
		int			cap = rec->cap_binds ? rec->cap_binds * 2 : 4;
		SimBind    *grown = sim_arena_alloc(r->arena, sizeof *grown * (size_t) cap);

		if (rec->n_binds > 0)
			memcpy(grown, rec->binds, sizeof *grown * (size_t) rec->n_binds);
		rec->binds = grown;
		rec->cap_binds = cap;
	}
	return memset(&rec->binds[rec->n_binds++], 0, sizeof(SimBind));
}

/* Note what a column forbids; false when the value is to be left out. */
static bool
allowed(SimRec *rec, const SimColumn *c)
{
	if (c->no_create && c->no_update && sim_sw.readonly_column == SIM_IGNORED)
		return false;
	/* A state in a create has a rule of its own: see apply.c. */
	if (c->no_create && c->type != SIM_T_STATE && c->type != SIM_T_STATUS && rec->not_on_create == NULL)
		rec->not_on_create = c;
	if (c->no_update && rec->not_on_update == NULL)
		rec->not_on_update = c;
	if (c->system_required)
		rec->n_required++;
	return true;
}

static bool
null_refused(const SimRec *rec, const SimColumn *c, SimErr *e)
{
	return sim_fail(e, 400, SIM_E_ARGUMENT, "Column '%s' of table '%s' is system required and cannot be set to null.", c->name,
					rec->table->name);
}

static bool
read_id(SimRec *rec, const SimScalar *s, SimErr *e)
{
	SimGuid		g;

	if (s->kind != SIM_JSON_STRING || !sim_guid_parse(s->text.s, s->text.len, &g))
		return sim_fail_payload(e, rec->table->set, "Cannot convert the literal '%.*s' to the expected type 'Edm.Guid'.",
								(int) (s->kind < SIM_JSON_NUMBER ? 0 : s->text.len > 60 ? 60 : s->text.len),
								s->kind < SIM_JSON_NUMBER ? "" : s->text.s);
	rec->has_id = true;
	rec->id = g;
	return true;
}

static bool
read_column(SimReq *r, SimJson *j, SimRec *rec, const SimColumn *c, SimErr *e)
{
	SimScalar	s;
	SimVal		v,
			   *to;

	if (!sim_json_scalar(j, &s))
		return sim_rec_syntax(j, e);
	if (c->implied == SIM_I_ID)
		return read_id(rec, &s, e);
	if (c->type == SIM_T_FILE || c->type == SIM_T_PARTY)
		return sim_fail_property(e, rec->table->name, c->name, strlen(c->name));
	if (!allowed(rec, c))
		return true;
	memset(&v, 0, sizeof v);
	if (!sim_value_read(r->arena, rec->table, c, &s, &v, e))
		return false;
	if (v.null && c->system_required)
		return null_refused(rec, c, e);
	if (c->implied == SIM_I_OVERRIDDEN)
	{
		rec->overridden = v.null ? SIM_NO_TIME : v.v.i;
		return true;
	}
	if (c->implied != SIM_I_NONE)
		return true;			/* read-only: refused later by "allowed" */
	if ((to = sim_rec_find(rec, c)) == NULL)
		to = sim_rec_add(r, rec, c);
	*to = v;
	return true;
}

/* Whether a reference's table fits a navigation property. */
static bool
fits(const SimProp *p, const SimTable *t)
{
	const SimTarget *g;

	if (p->target < 0)
		return t == sim_model.users || t == sim_model.teams;
	g = &p->column->targets[p->target];
	return g->table == t || (t->activity && strcmp(g->table_name, "activitypointer") == 0);
}

static bool
set_lookup(SimReq *r, SimRec *rec, const SimProp *p, SimVal **out)
{
	const SimColumn *c = p->column;

	if (!allowed(rec, c))
		return false;
	if (c->implied == SIM_I_OWNER)
	{
		rec->has_owner = true;
		*out = NULL;
		return true;
	}
	if ((*out = sim_rec_find(rec, c)) == NULL)
		*out = sim_rec_add(r, rec, c);
	return true;
}

static bool
clear_lookup(SimReq *r, SimRec *rec, const SimProp *p, SimErr *e)
{
	SimVal	   *v;

	if (p->column->system_required)
		return null_refused(rec, p->column, e);
	if (set_lookup(r, rec, p, &v) && v != NULL)
		v->null = true;
	return true;
}

static bool
bind_ref(SimReq *r, SimRec *rec, const SimProp *p, SimStr text, SimErr *e)
{
	SimBind    *b;
	SimRef		ref;
	SimVal	   *v;

	if (!sim_ref_parse(r, text, &ref, e))
		return false;
	if (!fits(p, ref.table))
		return sim_fail_payload(e, rec->table->set, "The reference to '%s' does not fit the navigation property '%s'.",
								ref.table->name, p->name);
	if (!set_lookup(r, rec, p, &v))
		return true;
	b = add_bind(r, rec);
	b->prop = p;
	b->ref = ref;
	b->val = -1;
	if (v != NULL)
	{
		v->null = false;
		v->target = ref.table->number;
		b->val = (int) (v - rec->vals);
	}
	return true;
}

static SimChildren *
add_children(SimReq *r, SimRec *rec, const SimProp *p)
{
	SimChildren *c = memset(sim_arena_alloc(r->arena, sizeof *c), 0, sizeof *c);

	c->prop = p;
	c->next = rec->children;
	rec->children = c;
	return c;
}

static SimTable *
child_table(const SimProp *p)
{
	if (p->kind == SIM_P_NAV)
		return p->target >= 0 ? p->column->targets[p->target].table : NULL;
	return p->kind == SIM_P_COLLECTION ? p->other : p->relation->side[1 - p->side];
}

static bool
read_child(SimReq *r, SimJson *j, SimChildren *list, SimTable *t, SimErr *e)
{
	SimRec	  **grown = sim_arena_alloc(r->arena, sizeof *grown * (size_t) (list->n + 1));

	if (list->n > 0)
		memcpy(grown, list->recs, sizeof *grown * (size_t) list->n);
	list->recs = grown;
	grown[list->n] = sim_arena_alloc(r->arena, sizeof(SimRec));
	sim_rec_init(grown[list->n], t);
	return sim_rec_read(r, j, t, grown[list->n++], e);
}

/* Deep insert: an object for a single-valued property, an array for a collection. */
static bool
read_nested(SimReq *r, SimJson *j, SimRec *rec, const SimProp *p, SimErr *e)
{
	SimTable   *t = child_table(p);
	SimChildren *list;
	bool		first = true;
	SimVal	   *v;

	if (t == NULL)
		return sim_fail_payload(e, rec->table->set, "The navigation property '%s' cannot be expanded here.", p->name);
	if (p->kind == SIM_P_NAV)
	{
		if (!set_lookup(r, rec, p, &v) || v == NULL)
			return sim_fail_property(e, rec->table->name, p->name, p->len);
		list = add_children(r, rec, p);
		return read_child(r, j, list, t, e);
	}
	list = add_children(r, rec, p);
	if (!sim_json_enter(j, '['))
		return sim_rec_syntax(j, e);
	while (sim_json_next_element(j, &first))
		if (!read_child(r, j, list, t, e))
			return false;
	return j->error == NULL || sim_rec_syntax(j, e);
}

/* x@odata.bind: an array of references for a collection. */
static bool
bind_collection(SimReq *r, SimJson *j, SimRec *rec, const SimProp *p, SimErr *e)
{
	SimChildren *list = add_children(r, rec, p);
	SimTable   *t = child_table(p);
	bool		first = true;
	SimScalar	s;

	if (!sim_json_enter(j, '['))
		return sim_rec_syntax(j, e);
	while (sim_json_next_element(j, &first))
	{
		SimRef	   *grown = sim_arena_alloc(r->arena, sizeof *grown * (size_t) (list->n + 1));

		if (list->n > 0)
			memcpy(grown, list->refs, sizeof *grown * (size_t) list->n);
		list->refs = grown;
		if (!sim_json_string(j, &s))
			return sim_rec_syntax(j, e);
		if (!sim_ref_parse(r, s.text, &grown[list->n], e))
			return false;
		if (grown[list->n++].table != t)
			return sim_fail_payload(e, rec->table->set, "A reference does not fit the navigation property '%s'.", p->name);
	}
	return j->error == NULL || sim_rec_syntax(j, e);
}

static bool
undeclared(SimRec *rec, SimStr name, SimErr *e)
{
	return sim_fail_payload(e, rec->table->set, "An undeclared property '%.*s' which only has property annotations in the payload "
							"but no property value was found in the payload. In OData, only declared navigation properties and "
							"declared named streams can be represented as properties without values.",
							(int) (name.len > 200 ? 200 : name.len), name.s);
}

static bool
read_bind(SimReq *r, SimJson *j, SimRec *rec, SimStr name, SimErr *e)
{
	const SimProp *p = sim_table_prop(rec->table, name.s, name.len);
	SimScalar	s;

	if (p == NULL || p->kind == SIM_P_COLUMN || p->kind == SIM_P_VALUE)
		return undeclared(rec, name, e);
	if (p->kind != SIM_P_NAV)
		return bind_collection(r, j, rec, p, e);
	if (!sim_json_scalar(j, &s))
		return sim_rec_syntax(j, e);
	if (s.kind == SIM_JSON_NULL)
		return clear_lookup(r, rec, p, e);
	if (s.kind != SIM_JSON_STRING)
		return sim_fail_payload(e, rec->table->set, "The value of the '%s@odata.bind' annotation must be a string.", p->name);
	return bind_ref(r, rec, p, s.text, e);
}

/* "@odata.type" and its like; unknown annotations are skipped. */
static bool
read_annotation(SimJson *j, SimRec *rec, SimStr name, SimErr *e)
{
	SimScalar	s;
	size_t		n = strlen(TYPE_PREFIX);

	if (sim_str_is(name, "@odata.type"))
	{
		if (!sim_json_string(j, &s))
			return sim_rec_syntax(j, e);
		if (s.text.len > 0 && s.text.s[0] == '#')
		{
			s.text.s++;
			s.text.len--;
		}
		rec->typed = s.text.len > n && memcmp(s.text.s, TYPE_PREFIX, n) == 0 &&
			sim_str_is((SimStr) {s.text.s + n, s.text.len - n}, rec->table->name);
		return rec->typed || sim_fail_payload(e, rec->table->set, "A type named '%.*s' could not be resolved by the model, or is not "
											  "the expected type 'Microsoft.Dynamics.CRM.%s'.",
											  (int) (s.text.len > 200 ? 200 : s.text.len), s.text.s, rec->table->name);
	}
	if (sim_str_is(name, "@odata.id") || sim_str_is(name, "@odata.etag"))
	{
		if (!sim_json_string(j, &s))
			return sim_rec_syntax(j, e);
		*(name.s[7] == 'i' ? &rec->odata_id : &rec->etag) = s.text;
		return true;
	}
	return sim_json_skip(j) || sim_rec_syntax(j, e);
}

static bool
read_member(SimReq *r, SimJson *j, SimRec *rec, SimStr name, SimErr *e)
{
	const SimProp *p = sim_table_prop(rec->table, name.s, name.len);
	const char *at;
	SimScalar	s;

	if (p == NULL)
	{
		at = memchr(name.s, '@', name.len);
		if (at == NULL)
			return sim_fail_property(e, rec->table->name, name.s, name.len);
		if (at == name.s)
			return read_annotation(j, rec, name, e);
		if (sim_str_is((SimStr) {at, (size_t) (name.s + name.len - at)}, "@odata.bind"))
			return read_bind(r, j, rec, (SimStr) {name.s, (size_t) (at - name.s)}, e);
		return sim_json_skip(j) || sim_rec_syntax(j, e);
	}
	if (p->kind == SIM_P_COLUMN)
		return read_column(r, j, rec, p->column, e);
	if (p->kind == SIM_P_VALUE)
	{
		if (sim_sw.readonly_column == SIM_IGNORED)
			return sim_json_skip(j) || sim_rec_syntax(j, e);
		return sim_fail_payload(e, rec->table->set, "The property '%s' is read-only.", p->name);
	}
	if (sim_json_peek(j) == SIM_JSON_NULL && p->kind == SIM_P_NAV)
		return sim_json_scalar(j, &s) && clear_lookup(r, rec, p, e);
	if (sim_json_peek(j) == SIM_JSON_OBJECT || sim_json_peek(j) == SIM_JSON_ARRAY)
		return read_nested(r, j, rec, p, e);
	return sim_fail_payload(e, rec->table->set, "A node of type 'PrimitiveValue' was read from the JSON reader when trying to read "
							"the contents of the navigation property '%s'.", p->name);
}

bool
sim_rec_read(SimReq *r, SimJson *j, SimTable *t, SimRec *rec, SimErr *e)
{
	SimScalar	name;
	bool		first = true;

	sim_rec_init(rec, t);
	if (!sim_json_enter(j, '{'))
		return sim_rec_syntax(j, e);
	while (sim_json_next_member(j, &first, &name))
		if (!read_member(r, j, rec, name.text, e))
			return false;
	return j->error == NULL || sim_rec_syntax(j, e);
}

bool
sim_rec_read_body(SimReq *r, SimTable *t, SimRec *rec, SimErr *e)
{
	SimJson		j;

	sim_json_begin(&j, r->body, r->len);
	if (r->len == 0)
		return sim_fail(e, 400, SIM_E_PAYLOAD, "Error identified in Payload provided by the user for Entity :'%s': the body is empty.",
						t->set);
	if (!sim_rec_read(r, &j, t, rec, e))
		return false;
	return sim_json_at_end(&j) || sim_rec_syntax(&j, e);
}

bool
sim_rec_read_property(SimReq *r, SimTable *t, const char *name, SimRec *rec, SimErr *e)
{
	const SimProp *p = sim_table_prop(t, name, strlen(name));
	SimJson		j;
	SimScalar	member;
	bool		first = true;

	sim_rec_init(rec, t);
	if (p == NULL || p->kind != SIM_P_COLUMN)
		return sim_fail_property(e, t->name, name, strlen(name));
	sim_json_begin(&j, r->body, r->len);
	if (!sim_json_enter(&j, '{'))
		return sim_rec_syntax(&j, e);
	while (sim_json_next_member(&j, &first, &member))
	{
		if (!sim_str_is(member.text, "value"))
			return sim_fail_payload(e, t->set, "The property '%.*s' is not expected; 'value' is.", (int) member.text.len,
									member.text.s);
		if (!read_column(r, &j, rec, p->column, e))
			return false;
	}
	return (j.error == NULL && sim_json_at_end(&j)) || sim_rec_syntax(&j, e);
}

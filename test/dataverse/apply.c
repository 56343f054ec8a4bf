/*
 * apply.c - a payload becomes a record: what depends on other records
 */
#include "apply.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "actions.h"
#include "switches.h"
#include "world.h"

bool
sim_apply_duplicate(const SimTable *t, SimErr *e)
{
	if (sim_sw.replay_code == SIM_REPLAY_KEY)
		return sim_fail(e, 412, SIM_E_KEY_VIOLATED, "A record with matching key values already exists.");
	if (sim_sw.replay_code == SIM_REPLAY_INDEX)
		return sim_fail(e, 412, "0x80073002", "Cannot insert duplicate key row in object 'dbo.%sBase' with unique index.", t->schema);
	return sim_fail(e, 412, SIM_E_DUPLICATE, "Cannot insert duplicate key.");
}

static bool
owner_refused(SimGuid id, SimErr *e)
{
	SimGuid		denied;

	if (!sim_guid_parse(sim_sw.deny_owner, strlen(sim_sw.deny_owner), &denied) || !sim_guid_eq(denied, id))
		return false;
	return !sim_fail(e, 403, "0x80040299", "Read Privilege Check For Owner failed with exception: Principal user (Id=%s) is missing "
					 "prvRead privilege.", sim_sw.deny_owner);
}

/* Activities share the privileges of one name. */
static bool
allowed(const SimTable *t, const char *what, SimErr *e)
{
	char		name[192];

	if (sim_sw.deny_privilege[0] == '\0')
		return true;
	snprintf(name, sizeof name, "prv%s%s", what, t->activity ? "Activity" : t->schema);
	return strcmp(name, sim_sw.deny_privilege) != 0 || sim_fail(e, 403, "0x80040220", "Principal user is missing %s privilege", name);
}

bool
sim_apply_binds(SimReq *r, SimRec *rec, SimErr *e)
{
	(void) r;
	for (int i = 0; i < rec->n_binds; i++)
	{
		SimBind    *b = &rec->binds[i];
		uint32_t	slot = sim_ref_find(&b->ref);

		if (slot == SIM_NO_SLOT)
			return sim_ref_missing(&b->ref, sim_sw.missing_target, e);
		b->ref.id = sim_store_slot(b->ref.table, slot)->id;
		b->ref.by_id = true;
		if (b->val >= 0)
			rec->vals[b->val].v.g = b->ref.id;
		else if (owner_refused(b->ref.id, e))
			return false;
	}
	return true;
}

static bool
state_refused(const SimTable *t, int64_t state, int64_t status, SimErr *e)
{
	const SimOption *o = sim_column_option(t->state_column, state);

	return sim_fail(e, 400, SIM_E_STATE, "%lld is not a valid status code for state code %sState.%s on %s",
					(long long) status, t->schema, o != NULL ? o->label : "?", t->name);
}

static void
set_int(SimReq *r, SimRec *rec, const SimColumn *c, int64_t value)
{
	SimVal	   *v = sim_rec_find(rec, c);

	if (v == NULL)
		v = sim_rec_add(r, rec, c);
	v->null = false;
	v->v.i = value;
}

/* Fill in state and status and see that they fit. */
static bool
create_state(SimReq *r, SimRec *rec, SimErr *e)
{
	const SimTable *t = rec->table;
	SimVal	   *sv = sim_rec_find(rec, t->state_column),
			   *cv = sim_rec_find(rec, t->status_column);
	int			normal = sim_table_default_state(t);
	int64_t		state,
				status;
	int			of = normal;

	if (t->state_column == NULL || t->status_column == NULL)
		return true;
	state = sv != NULL && !sv->null ? sv->v.i : normal;
	status = cv != NULL && !cv->null ? cv->v.i : sim_table_default_status(t, (int) state);
	if (!sim_table_status_state(t, (int) status, &of) || of != state)
		return state_refused(t, state, status, e);
	if (state != normal)
	{
		int			rule = sim_sw.state_at_create;

		if (rule == SIM_BY_TABLE)
			rule = t->no_create_state ? SIM_REFUSED : SIM_ACCEPTED;
		if (rule == SIM_REFUSED)
			return state_refused(t, normal, status, e);
		if (rule == SIM_IGNORED)
		{
			state = normal;
			status = sim_table_default_status(t, normal);
		}
	}
	set_int(r, rec, t->state_column, state);
	set_int(r, rec, t->status_column, status);
	return true;
}

static bool
update_state(SimReq *r, SimRec *rec, const SimRow *row, SimErr *e)
{
	const SimTable *t = rec->table;
	SimVal	   *sv = sim_rec_find(rec, t->state_column),
			   *cv = sim_rec_find(rec, t->status_column);
	SimVal		now;
	int64_t		state,
				status;
	int64_t		old;
	int			of = 0;

	if (sv == NULL && cv == NULL)
		return true;
	if (t->state_column == NULL || t->status_column == NULL)
		return true;
	if ((sv != NULL && sv->null) || (cv != NULL && cv->null))
		return sim_fail(e, 400, SIM_E_ARGUMENT, "State and status of table '%s' cannot be set to null.", t->name);
	old = sim_row_cell(t, row, t->state_column->index, &now) ? now.v.i : sim_table_default_state(t);
	state = sv != NULL ? sv->v.i : old;
	status = cv != NULL ? cv->v.i : sim_table_default_status(t, (int) state);
	if (!sim_table_status_state(t, (int) status, &of) || of != state)
		return state_refused(t, state, status, e);
	if (state != old && sim_action_for(t, state) != NULL)
		return sim_fail(e, 400, SIM_E_ARGUMENT, "This message can not be used to set the state of %s. Use the %sRequest message "
						"instead.", t->name, sim_action_for(t, state));
	set_int(r, rec, t->state_column, state);
	set_int(r, rec, t->status_column, status);
	return true;
}

static bool
column_refused(const SimTable *t, const SimColumn *c, const char *what, SimErr *e)
{
	return sim_fail(e, 400, SIM_E_ARGUMENT, "The attribute '%s' of table '%s' is not valid for %s.", c->name, t->name, what);
}

/* Leave out the columns that must not be written, where they are ignored. */
static void
drop_columns(SimRec *rec, bool create)
{
	for (int i = 0; i < rec->n_vals; i++)
	{
		const SimColumn *c = &rec->table->columns[rec->vals[i].column];

		if (create ? !c->no_create : !c->no_update)
			continue;
		for (int b = 0; b < rec->n_binds; b++)
		{
			if (rec->binds[b].val == i)
				rec->binds[b--] = rec->binds[--rec->n_binds];
			else if (rec->binds[b].val == rec->n_vals - 1)
				rec->binds[b].val = i;	/* the last value moves into the gap */
		}
		rec->vals[i--] = rec->vals[--rec->n_vals];
	}
}

static bool
required_given(const SimRec *rec, SimErr *e)
{
	const SimTable *t = rec->table;

	if (t->n_system_required == 0)
		return true;
	for (int i = 0; i < t->n_columns; i++)
	{
		const SimColumn *c = &t->columns[i];

		if (!c->system_required || !c->listed || c->no_create || c->implied != SIM_I_NONE || c->autonumber)
			continue;
		if (c->type != SIM_T_STRING && c->type != SIM_T_MEMO && c->type != SIM_T_LOOKUP && c->type != SIM_T_CUSTOMER)
			continue;
		if (c == t->currency_column)
			continue;
		if (sim_rec_find(rec, c) == NULL)
			return sim_fail(e, 400, SIM_E_ARGUMENT, "The required attribute '%s' of table '%s' is missing.", c->name, t->name);
	}
	return true;
}

/* The full name of a person follows from its parts. */
static void
full_name(SimReq *r, SimRec *rec, const SimRow *old)
{
	const SimTable *t = rec->table;
	const SimColumn *parts[2] = {t->first_name, t->last_name};
	SimBuf		b = {0};
	SimVal	   *v;

	if (t->full_name == NULL || (sim_rec_find(rec, parts[0]) == NULL && sim_rec_find(rec, parts[1]) == NULL))
		return;
	for (int i = 0; i < 2; i++)
	{
		SimVal		now;
		const SimVal *given = sim_rec_find(rec, parts[i]);

		if (given == NULL && old != NULL && sim_row_cell(t, old, parts[i]->index, &now))
			given = &now;
		if (given == NULL || given->null)
			continue;
		sim_buf_puts(&b, b.len > 0 ? " " : "");
		sim_buf_add(&b, given->v.s, given->len);
	}
	if ((v = sim_rec_find(rec, t->full_name)) == NULL)
		v = sim_rec_add(r, rec, t->full_name);
	v->null = b.len == 0;
	v->len = (uint32_t) b.len;
	v->v.s = sim_arena_strndup(r->arena, b.data, b.len);
	sim_buf_free(&b);
}

/* Who owns a new record: as bound, else the user. */
static void
set_owner(SimReq *r, const SimRec *rec, SimRow *row)
{
	row->owner = sim_principal_number(r->user);
	row->owner_is_team = false;
	for (int i = 0; i < rec->n_binds; i++)
		if (rec->binds[i].val < 0)
		{
			row->owner = sim_principal_number(rec->binds[i].ref.id);
			row->owner_is_team = rec->binds[i].ref.table == sim_model.teams;
		}
}

static void
default_currency(SimReq *r, SimRec *rec)
{
	const SimColumn *c = rec->table->currency_column;
	SimVal	   *v;

	if (c == NULL || ((v = sim_rec_find(rec, c)) != NULL && !v->null))
		return;
	if (v == NULL)
		v = sim_rec_add(r, rec, c);
	v->null = false;
	v->target = sim_model.currencies->number;
	v->v.g = sim_world.base_currency;
}

/* Parents given as nested objects come first. */
static bool
create_parents(SimReq *r, SimTxn *x, SimRec *rec, SimErr *e)
{
	for (SimChildren *c = rec->children; c != NULL; c = c->next)
	{
		SimVal	   *v;
		SimGuid		id;

		if (c->prop->kind != SIM_P_NAV)
			continue;
		if (!sim_apply_create(r, x, c->recs[0], false, &id, e))
			return false;
		v = sim_rec_find(rec, c->prop->column);
		v->null = false;
		v->v.g = id;
		v->target = c->recs[0]->table->number;
	}
	return true;
}

static bool
add_child(SimReq *r, SimTxn *x, const SimRec *rec, SimGuid id, SimChildren *c, int i, SimErr *e)
{
	SimGuid		child;
	const SimProp *p = c->prop;

	if (c->recs == NULL)
	{
		uint32_t	slot = sim_ref_find(&c->refs[i]);

		if (slot == SIM_NO_SLOT)
			return sim_ref_missing(&c->refs[i], sim_sw.missing_target, e);
		child = sim_store_slot(c->refs[i].table, slot)->id;
		if (p->kind == SIM_P_COLLECTION)
		{
			SimVal		v = {.column = p->column->index, .target = rec->table->number, .v.g = id};

			return sim_apply_set(x, p->other, slot, &v, 1, r->user, e);
		}
	}
	else
	{
		if (p->kind == SIM_P_COLLECTION)
		{
			SimVal	   *v = sim_rec_add(r, c->recs[i], p->column);

			v->target = rec->table->number;
			v->v.g = id;
		}
		if (!sim_apply_create(r, x, c->recs[i], false, &child, e))
			return false;
		if (p->kind == SIM_P_COLLECTION)
			return true;
	}
	sim_txn_link(x, p->relation, p->side == 0 ? id : child, p->side == 0 ? child : id);
	return true;
}

static bool
create_children(SimReq *r, SimTxn *x, const SimRec *rec, SimGuid id, SimErr *e)
{
	for (SimChildren *c = rec->children; c != NULL; c = c->next)
	{
		if (c->prop->kind == SIM_P_NAV)
			continue;
		for (int i = 0; i < c->n; i++)
			if (!add_child(r, x, rec, id, c, i, e))
				return false;
	}
	return true;
}

bool
sim_apply_set(SimTxn *x, SimTable *t, uint32_t slot, const SimVal *vals, int n, SimGuid as, SimErr *e)
{
	SimSlot    *s = sim_store_slot(t, slot);
	SimRow	   *row = sim_row_build(t, s->row, vals, n);

	row->modified_by = sim_principal_number(as);
	row->modified_on = sim_now_us() / 1000000;
	row->version = sim_store_next_version();
	return sim_txn_put(x, t, s->id, row, false, e);
}

/* automation = "table.column=value": what a flow or plug-in does after a create. */
static bool
run_automation(SimReq *r, SimTxn *x, SimTable *t, SimGuid id, SimErr *e)
{
	const char *a = sim_sw.automation;
	const char *dot = strchr(a, '.');
	const char *eq = dot != NULL ? strchr(dot, '=') : NULL;
	const SimColumn *c;
	SimScalar	s = {.kind = SIM_JSON_STRING};
	SimVal		v = {0};

	if (eq == NULL || strlen(t->name) != (size_t) (dot - a) || memcmp(t->name, a, (size_t) (dot - a)) != 0)
		return true;
	c = sim_table_column(t, dot + 1, (size_t) (eq - dot) - 1);
	if (c == NULL || c->implied != SIM_I_NONE)
		return true;
	s.text = (SimStr) {eq + 1, strlen(eq + 1)};
	s.ascii = s.integral = true;
	if (c->storage != SIM_ST_TEXT || c->type == SIM_T_DECIMAL || c->type == SIM_T_MONEY)
		s.kind = c->type == SIM_T_DATE || c->type == SIM_T_GUID ? SIM_JSON_STRING : SIM_JSON_NUMBER;
	if (!sim_value_read(r->arena, t, c, &s, &v, e))
		return false;
	return sim_apply_set(x, t, sim_store_find(t, id), &v, 1, sim_world.system_user, e);
}

static SimRow *
new_row(SimReq *r, const SimRec *rec)
{
	SimRow	   *row = sim_row_build(rec->table, NULL, rec->vals, rec->n_vals);
	int64_t		now = sim_now_us() / 1000000;

	row->version = sim_store_next_version();
	row->created_on = row->modified_on = now;
	row->overridden_on = SIM_NO_TIME;
	if (rec->overridden != SIM_NO_TIME)
	{
		row->created_on = rec->overridden;
		row->overridden_on = now;
	}
	row->created_by = row->modified_by = sim_principal_number(r->user);
	row->behalf_of = r->impersonated ? sim_principal_number(r->caller) : 0;
	if (rec->table->ownership == SIM_OWN_USER)
		set_owner(r, rec, row);
	return row;
}

bool
sim_apply_create(SimReq *r, SimTxn *x, SimRec *rec, bool bound, SimGuid *id, SimErr *e)
{
	SimTable   *t = rec->table;

	if (!allowed(t, "Create", e))
		return false;
	if (rec->not_on_create != NULL)
	{
		if (sim_sw.readonly_column != SIM_IGNORED)
			return column_refused(t, rec->not_on_create, "create", e);
		drop_columns(rec, true);
	}
	/* the documents know stub users from data import only; the refusal's text is ours */
	if (t == sim_model.users && r->method != NULL && sim_sw.user_create == SIM_REFUSED)
		return sim_fail(e, 403, "0x80040220", "Users cannot be created through the Web API in this environment");
	if (rec->overridden != SIM_NO_TIME && !sim_sw.created_on_privilege)
		return sim_fail(e, 403, "0x80040220", "Principal user is missing prvOverrideCreatedOnCreatedBy privilege");
	*id = rec->has_id ? rec->id : sim_guid_random();
	if (rec->has_id && sim_store_find(t, *id) != SIM_NO_SLOT)
		return sim_apply_duplicate(t, e);
	if (!required_given(rec, e) || !create_parents(r, x, rec, e))
		return false;
	if ((!bound && !sim_apply_binds(r, rec, e)) || !create_state(r, rec, e))
		return false;
	default_currency(r, rec);
	full_name(r, rec, NULL);
	r->rows += (uint64_t) sim_switch_weight(t->name);
	if (!sim_txn_put(x, t, *id, new_row(r, rec), true, e))
		return false;
	if (rec->children != NULL && !create_children(r, x, rec, *id, e))
		return false;
	return sim_sw.automation[0] == '\0' || run_automation(r, x, t, *id, e);
}

bool
sim_apply_update(SimReq *r, SimTxn *x, SimRec *rec, uint32_t slot, SimErr *e)
{
	SimTable   *t = rec->table;
	SimSlot    *s = sim_store_slot(t, slot);
	SimGuid		id = s->id;
	SimRow	   *row;

	if (!allowed(t, "Write", e))
		return false;
	if (rec->not_on_update != NULL)
	{
		bool		readonly = rec->not_on_update->no_create;

		if ((readonly ? sim_sw.readonly_column : sim_sw.noupdate_column) != SIM_IGNORED)
			return column_refused(t, rec->not_on_update, "update", e);
		drop_columns(rec, false);
	}
	if (rec->has_id && !sim_guid_eq(rec->id, id))
		return sim_fail(e, 400, SIM_E_ARGUMENT, "The id of the record in the payload does not match the id in the URL.");
	if (!create_parents(r, x, rec, e) || !sim_apply_binds(r, rec, e))
		return false;
	s = sim_store_slot(t, sim_store_find(t, id));
	if (!update_state(r, rec, s->row, e))
		return false;
	full_name(r, rec, s->row);
	row = sim_row_build(t, s->row, rec->vals, rec->n_vals);
	row->version = sim_store_next_version();
	row->modified_on = sim_now_us() / 1000000;
	row->modified_by = sim_principal_number(r->user);
	if (rec->has_owner)
		set_owner(r, rec, row);
	r->rows += (uint64_t) sim_switch_weight(t->name);
	if (!sim_txn_put(x, t, id, row, false, e))
		return false;
	return rec->children == NULL || create_children(r, x, rec, id, e);
}

/* Does a column of another live record point at this one? Reads everything: for small tests. */
static bool
referenced(const SimTable *t, SimGuid id, const SimTable *by)
{
	for (uint32_t i = 0; i < by->store->n; i++)
	{
		const SimSlot *s = sim_store_slot(by, i);

		for (int k = 0; s->row != NULL && k < s->row->n_cells; k++)
		{
			const SimCell *c = &s->row->cells[k];
			SimVal		v;

			if (by->columns[c->column].n_targets > 0 && c->target == t->number && !(by == t && sim_guid_eq(s->id, id)) &&
				sim_row_cell(by, s->row, c->column, &v) && sim_guid_eq(v.v.g, id))
				return true;
		}
	}
	return false;
}

bool
sim_apply_delete(SimTxn *x, SimTable *t, uint32_t slot, SimErr *e)
{
	SimGuid		id = sim_store_slot(t, slot)->id;

	if (!allowed(t, "Delete", e))
		return false;
	for (int i = 0; sim_sw.delete_referenced && i < sim_model.n_tables; i++)
		if (referenced(t, id, sim_model.tables[i]))
			return sim_fail(e, 405, "0x80040227", "The object you tried to delete is associated with another object and cannot be deleted.");
	sim_txn_delete(x, t, slot);
	return true;
}

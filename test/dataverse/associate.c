/*
 * associate.c - $ref: links between records, and party lists as a whole
 */
#include <stdlib.h>
#include <string.h>

#include "apply.h"
#include "crud.h"
#include "route.h"
#include "stats.h"

/* {"@odata.id":"..."} */
static bool
read_ref(SimReq *r, SimRef *out, SimErr *e)
{
	SimJson		j;
	SimScalar	name,
				v;
	bool		first = true,
				found = false;

	sim_json_begin(&j, r->body, r->len);
	if (!sim_json_enter(&j, '{'))
		return sim_rec_syntax(&j, e);
	while (sim_json_next_member(&j, &first, &name))
	{
		if (!sim_str_is(name.text, "@odata.id"))
		{
			if (!sim_json_skip(&j))
				break;
			continue;
		}
		if (!sim_json_string(&j, &v))
			break;
		if (!sim_ref_parse(r, v.text, out, e))
			return false;
		found = true;
	}
	if (j.error != NULL || !sim_json_at_end(&j))
		return sim_rec_syntax(&j, e);
	return found || sim_fail(e, 400, SIM_E_PAYLOAD, "The '@odata.id' of the entity reference is missing.");
}

/* Set or clear a lookup as an update of the record that has it. */
static bool
set_lookup(SimReq *r, SimTxn *x, const SimRef *holder, const SimProp *p, const SimColumn *c, const SimRef *target, SimErr *e)
{
	uint32_t	slot = sim_ref_find(holder);
	SimRec		rec;
	SimVal	   *v;

	if (slot == SIM_NO_SLOT)
		return sim_ref_missing(holder, 404, e);
	sim_rec_init(&rec, holder->table);
	if (c->no_update)
		rec.not_on_update = c;
	if (c->implied == SIM_I_OWNER)
		return sim_fail(e, 400, SIM_E_ARGUMENT, "The owner is set by an update of the record.");
	v = sim_rec_add(r, &rec, c);
	if (target == NULL)
		v->null = true;
	else
	{
		SimBind		b = {.val = 0, .prop = p, .ref = *target};

		v->target = target->table->number;
		rec.binds = &b;
		rec.n_binds = 1;
		return sim_apply_update(r, x, &rec, slot, e);
	}
	return sim_apply_update(r, x, &rec, slot, e);
}

static bool
same_table(const SimTable *want, const SimRef *ref, const SimProp *p, SimErr *e)
{
	return want == ref->table || sim_fail_payload(e, ref->table->set, "The reference does not fit the navigation property '%s'.", p->name);
}

static bool
link_records(SimReq *r, SimTxn *x, SimRef *from, const SimProp *p, SimRef *to, bool add, SimErr *e)
{
	uint32_t	a = sim_ref_find(from),
				b = sim_ref_find(to);
	SimGuid		ida,
				idb;

	if (a == SIM_NO_SLOT)
		return sim_ref_missing(from, 404, e);
	if (b == SIM_NO_SLOT)
		return sim_ref_missing(to, 404, e);
	ida = sim_store_slot(from->table, a)->id;
	idb = sim_store_slot(to->table, b)->id;
	r->rows++;
	if (add)
		return sim_txn_link(x, p->relation, p->side == 0 ? ida : idb, p->side == 0 ? idb : ida) ||
			sim_fail(e, 412, SIM_E_DUPLICATE, "Cannot insert duplicate key.");
	return sim_txn_unlink(x, p->relation, p->side == 0 ? ida : idb, p->side == 0 ? idb : ida) ||
		sim_fail(e, 404, SIM_E_NOT_FOUND, "The association between the two records does not exist.");
}

static bool
apply(SimReq *r, SimTxn *x, SimRef *ref, const SimProp *p, SimRef *to, bool add, SimErr *e)
{
	if (p->kind == SIM_P_LINK)
		return same_table(p->relation->side[1 - p->side], to, p, e) && link_records(r, x, ref, p, to, add, e);
	if (p->kind == SIM_P_COLLECTION)
	{
		if (!same_table(p->other, to, p, e))
			return false;
		if (sim_ref_find(ref) == SIM_NO_SLOT)
			return sim_ref_missing(ref, 404, e);
		return set_lookup(r, x, to, p, p->column, add ? ref : NULL, e);
	}
	if (add && p->target >= 0 && !same_table(p->column->targets[p->target].table, to, p, e))
		return false;
	return set_lookup(r, x, ref, p, p->column, add ? to : NULL, e);
}

/* Which record a DELETE means: in parentheses, in $id, or none for a single one. */
static bool
removed_ref(SimReq *r, const SimProp *p, const SimSegment *nav, SimRef *to, SimErr *e)
{
	const char *id = sim_path_option(&r->path, "$id");
	SimTable   *t = p->kind == SIM_P_LINK ? p->relation->side[1 - p->side] : p->other;

	if (p->kind == SIM_P_NAV)
		return true;
	if (nav->has_key)
		return t != NULL && sim_ref_key(r->arena, t, nav->key, false, to, e);
	if (id == NULL)
		return sim_fail(e, 400, SIM_E_SYNTAX, "A reference to be removed from a collection needs a key or $id.");
	return sim_ref_parse(r, (SimStr) {id, strlen(id)}, to, e);
}

bool
sim_associate(SimReq *r, SimRef *ref, const SimSegment *nav, SimResp *resp)
{
	const SimProp *p = sim_table_prop(ref->table, nav->name.s, nav->name.len);
	bool		remove = strcmp(r->method, "DELETE") == 0;
	SimRef		to;
	SimTxn		own,
			   *x;
	bool		ok;

	sim_stats_request(SIM_K_REF, r->in_batch);
	if (p == NULL || p->kind == SIM_P_COLUMN || p->kind == SIM_P_VALUE)
		return sim_fail(&resp->err, 404, SIM_E_SEGMENT, "Resource not found for the segment '%.*s'.", (int) nav->name.len, nav->name.s);
	if (!remove && strcmp(r->method, p->kind == SIM_P_NAV ? "PUT" : "POST") != 0)
		return sim_fail(&resp->err, 405, SIM_E_NOT_SUPPORTED, "The method '%s' is not supported for this reference.", r->method);
	if (remove ? !removed_ref(r, p, nav, &to, &resp->err) : !read_ref(r, &to, &resp->err))
		return false;
	x = sim_crud_begin(r, &own, true);
	ok = apply(r, x, ref, p, &to, !remove, &resp->err);
	sim_crud_end(r, &own, ok);
	resp->status = 204;
	return ok;
}

/* Delete the records of a collection, before it is written anew. */
static bool
clear_collection(SimTxn *x, const SimProp *p, SimGuid id, SimErr *e)
{
	SimVal		v;

	for (uint32_t i = 0; i < p->other->store->n; i++)
	{
		const SimSlot *s = sim_store_slot(p->other, i);

		if (s->row != NULL && sim_row_cell(p->other, s->row, p->column->index, &v) && sim_guid_eq(v.v.g, id) &&
			!sim_apply_delete(x, p->other, i, e))
			return false;
	}
	return true;
}

static bool
fill_collection(SimReq *r, SimTxn *x, const SimRef *ref, SimGuid id, const SimProp *p, SimErr *e)
{
	SimJson		j;
	SimScalar	name;
	bool		first = true;

	sim_json_begin(&j, r->body, r->len);
	if (!sim_json_enter(&j, '{'))
		return sim_rec_syntax(&j, e);
	while (sim_json_next_member(&j, &first, &name))
	{
		bool		first_item = true;

		if (!sim_str_is(name.text, "value") || !sim_json_enter(&j, '['))
			return sim_fail_payload(e, ref->table->set, "An array named 'value' was expected.");
		while (sim_json_next_element(&j, &first_item))
		{
			SimRec		rec;
			SimVal	   *v;
			SimGuid		made;

			if (!sim_rec_read(r, &j, p->other, &rec, e))
				return false;
			v = sim_rec_add(r, &rec, p->column);
			v->target = ref->table->number;
			v->v.g = id;
			if (!sim_apply_create(r, x, &rec, false, &made, e))
				return false;
		}
	}
	return j.error == NULL || sim_rec_syntax(&j, e);
}

bool
sim_replace_collection(SimReq *r, SimRef *ref, const SimProp *p, SimResp *resp)
{
	SimTxn		own,
			   *x;
	uint32_t	slot;
	bool		ok;

	sim_stats_request(SIM_K_UPDATE, r->in_batch);
	if (strcmp(p->other->name, "activityparty") != 0)
		return sim_fail(&resp->err, 405, SIM_E_NOT_SUPPORTED, "The collection '%s' cannot be replaced as a whole.", p->name);
	x = sim_crud_begin(r, &own, true);
	slot = sim_ref_find(ref);
	ok = slot != SIM_NO_SLOT || sim_ref_missing(ref, 404, &resp->err);
	if (ok)
	{
		SimGuid		id = sim_store_slot(ref->table, slot)->id;

		ok = clear_collection(x, p, id, &resp->err) && fill_collection(r, x, ref, id, p, &resp->err);
	}
	sim_crud_end(r, &own, ok);
	resp->status = 204;
	return ok;
}

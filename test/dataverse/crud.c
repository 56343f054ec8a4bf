/*
 * crud.c - single records: POST, GET, PATCH, PUT, DELETE
 */
#include "crud.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "apply.h"
#include "output.h"
#include "stats.h"
#include "switches.h"

SimTxn *
sim_crud_begin(SimReq *r, SimTxn *own, bool write)
{
	if (r->txn != NULL)
		return r->txn;
	sim_txn_begin(own, write);
	return own;
}

void
sim_crud_end(SimReq *r, SimTxn *own, bool ok)
{
	if (r->txn != NULL)
		return;					/* the change set decides */
	if (ok)
		sim_txn_commit(own);
	else
		sim_txn_rollback(own);
}

static char *
entity_context(const SimReq *r, const SimTable *t)
{
	const char *select = sim_path_option(&r->path, "$select");

	return sim_arena_printf(r->arena, "%s/api/data/v9.2/$metadata#%s%s%s%s/$entity", r->origin, t->set, select != NULL ? "(" : "",
							select != NULL ? select : "", select != NULL ? ")" : "");
}

/* The record's URL; a batch part shows it twice. */
static void
put_entity_id(const SimReq *r, SimResp *resp, const SimTable *t, SimGuid id)
{
	char		text[SIM_GUID_LEN + 1];

	sim_guid_format(id, text);
	if (r->in_batch)
		sim_resp_header(resp, "Location", "%s/api/data/v9.2/%s(%s)", r->origin, t->set, text);
	sim_resp_header(resp, "OData-EntityId", "%s/api/data/v9.2/%s(%s)", r->origin, t->set, text);
}

/* The body of return=representation; the transaction is still open. */
static void
represent(SimReq *r, SimResp *resp, const SimOutput *o, uint32_t slot, int status)
{
	const SimSlot *s = sim_store_slot(o->table, slot);

	resp->status = status;
	sim_output_record(&resp->body, o, s, entity_context(r, o->table));
	sim_resp_header(resp, "Preference-Applied", "return=representation");
	sim_resp_header(resp, "ETag", "W/\"%llu\"", (unsigned long long) s->row->version);
}

static bool
writable(const SimReq *r, const SimTable *t, SimErr *e)
{
	if (t->virtual_table && r->in_batch)
		return sim_fail(e, 400, "0x80072535", "Writes to virtual tables are not supported in a batch.");
	if (t == sim_model.organizations && strcmp(r->method, "PATCH") != 0)
		return sim_fail(e, 405, SIM_E_NOT_SUPPORTED, "The method is not supported for entity '%s'.", t->name);
	return true;
}

bool
sim_crud_create(SimReq *r, SimTable *t, SimResp *resp)
{
	bool		want = sim_req_prefers(r, "return=representation");
	SimOutput	o;
	SimRec		rec;
	SimTxn		own,
			   *x;
	SimGuid		id;
	bool		ok;

	sim_stats_request(SIM_K_CREATE, r->in_batch);
	if (!writable(r, t, &resp->err) || !sim_rec_read_body(r, t, &rec, &resp->err))
		return false;
	if (want && !sim_output_prepare(r, t, sim_path_option(&r->path, "$select"), sim_path_option(&r->path, "$expand"), &o, &resp->err))
		return false;
	x = sim_crud_begin(r, &own, true);
	ok = sim_apply_create(r, x, &rec, false, &id, &resp->err);
	if (ok)
	{
		sim_content_set(r, t, id);
		resp->status = 204;
		if (want)
			represent(r, resp, &o, sim_store_find(t, id), 201);
		else
			put_entity_id(r, resp, t, id);
	}
	sim_crud_end(r, &own, ok);
	return ok;
}

bool
sim_crud_get(SimReq *r, SimRef *ref, SimResp *resp)
{
	const char *match = sim_req_header(r, "If-None-Match");
	SimOutput	o;
	SimTxn		own;
	uint32_t	slot;

	sim_stats_request(SIM_K_GET, r->in_batch);
	if (!sim_output_prepare(r, ref->table, sim_path_option(&r->path, "$select"), sim_path_option(&r->path, "$expand"), &o, &resp->err))
		return false;
	sim_crud_begin(r, &own, false);
	slot = sim_ref_find(ref);
	if (slot == SIM_NO_SLOT)
		sim_ref_missing(ref, 404, &resp->err);
	else
	{
		const SimSlot *s = sim_store_slot(ref->table, slot);
		char		etag[40];

		snprintf(etag, sizeof etag, "W/\"%llu\"", (unsigned long long) s->row->version);
		resp->status = 200;
		if (match != NULL && strcmp(match, etag) == 0)
			resp->status = 304;
		else
		{
			sim_output_record(&resp->body, &o, s, entity_context(r, ref->table));
			if (o.annotations)
				sim_resp_header(resp, "Preference-Applied", "odata.include-annotations=\"*\"");
		}
		sim_resp_header(resp, "ETag", "%s", etag);
	}
	sim_crud_end(r, &own, true);
	return resp->err.status == 0;
}

/* If-Match: *, an ETag, or nothing; If-None-Match: * ("null" means nothing). */
typedef struct Condition
{
	bool		must_exist;
	bool		must_not_exist;
	const char *etag;
} Condition;

static Condition
read_condition(const SimReq *r)
{
	const char *match = sim_req_header(r, "If-Match");
	const char *none = sim_req_header(r, "If-None-Match");
	Condition	c = {0};

	c.must_exist = match != NULL;
	c.etag = match != NULL && strcmp(match, "*") != 0 ? match : NULL;
	c.must_not_exist = none != NULL && strcmp(none, "*") == 0;
	return c;
}

static bool
version_fits(const SimTable *t, uint32_t slot, const char *etag, SimErr *e)
{
	char		now[40];

	if (etag == NULL)
		return true;
	snprintf(now, sizeof now, "W/\"%llu\"", (unsigned long long) sim_store_slot(t, slot)->row->version);
	return strcmp(now, etag) == 0 ||
		sim_fail(e, 412, SIM_E_VERSION, "The version of the existing record doesn't match the RowVersion property provided.");
}

/* The create half of an upsert: key values come into the data unless there. */
static bool
upsert_create(SimReq *r, SimTxn *x, SimRef *ref, SimRec *rec, SimGuid *id, SimErr *e)
{
	if (ref->by_id)
	{
		if (rec->has_id && !sim_guid_eq(rec->id, ref->id))
			return sim_fail(e, 400, SIM_E_ARGUMENT, "The id of the record in the payload does not match the id in the URL.");
		rec->has_id = true;
		rec->id = ref->id;
	}
	for (int i = 0; !ref->by_id && i < ref->key->n_columns; i++)
	{
		const SimColumn *c = &ref->table->columns[ref->key->columns[i]];

		if (sim_rec_find(rec, c) == NULL)
			*sim_rec_add(r, rec, c) = ref->vals[i];
	}
	return sim_apply_create(r, x, rec, false, id, e);
}

/* A key for a header: whatever is not plain ASCII is percent-encoded. */
static const char *
encoded_key(SimReq *r, SimStr key)
{
	char	   *out = sim_arena_alloc(r->arena, key.len * 3 + 1);
	size_t		n = 0;

	for (size_t i = 0; i < key.len; i++)
	{
		unsigned char c = (unsigned char) key.s[i];

		if (c > ' ' && c < 0x7f && c != '%')
			out[n++] = (char) c;
		else
			n += (size_t) sprintf(out + n, "%%%02X", c);
	}
	out[n] = '\0';
	return out;
}

/* Where the answer to a PATCH names the record: by key, or by id. */
static void
put_patch_id(SimReq *r, SimResp *resp, const SimRef *ref, SimGuid id, bool created)
{
	if (!ref->by_id && !r->in_batch)
		sim_resp_header(resp, "OData-EntityId", "%s/api/data/v9.2/%s(%s)", r->origin, ref->table->set,
						encoded_key(r, r->path.seg[0].key));
	else if (created || r->in_batch || sim_sw.entityid_on_update)
		put_entity_id(r, resp, ref->table, id);
}

bool
sim_crud_patch(SimReq *r, SimRef *ref, SimResp *resp)
{
	bool		want = sim_req_prefers(r, "return=representation");
	Condition	c = read_condition(r);
	SimErr	   *e = &resp->err;
	SimOutput	o;
	SimRec		rec;
	SimTxn		own,
			   *x;
	SimGuid		id;
	uint32_t	slot;
	bool		ok;

	sim_stats_request(SIM_K_UPDATE, r->in_batch);
	if (!writable(r, ref->table, e) || !sim_rec_read_body(r, ref->table, &rec, e))
		return false;
	if (want && !sim_output_prepare(r, ref->table, sim_path_option(&r->path, "$select"), NULL, &o, e))
		return false;
	x = sim_crud_begin(r, &own, true);
	slot = sim_ref_find(ref);
	if (slot == SIM_NO_SLOT && c.must_exist)
		ok = sim_ref_missing(ref, 404, e);
	else if (slot == SIM_NO_SLOT)
		ok = upsert_create(r, x, ref, &rec, &id, e);
	else if (c.must_not_exist)
		ok = sim_fail(e, 412, SIM_E_DUPLICATE, "A record with matching key values already exists.");
	else
	{
		id = sim_store_slot(ref->table, slot)->id;
		ok = version_fits(ref->table, slot, c.etag, e) && sim_apply_update(r, x, &rec, slot, e);
	}
	if (ok)
	{
		sim_content_set(r, ref->table, id);
		resp->status = 204;
		if (want)
			represent(r, resp, &o, sim_store_find(ref->table, id), slot == SIM_NO_SLOT ? 201 : 200);
		else
			put_patch_id(r, resp, ref, id, slot == SIM_NO_SLOT);
	}
	sim_crud_end(r, &own, ok);
	return ok;
}

bool
sim_crud_delete(SimReq *r, SimRef *ref, SimResp *resp)
{
	Condition	c = read_condition(r);
	SimTxn		own,
			   *x;
	uint32_t	slot;
	bool		ok;

	sim_stats_request(SIM_K_DELETE, r->in_batch);
	if (ref->table == sim_model.users || ref->table == sim_model.organizations)
		return sim_fail(&resp->err, 405, SIM_E_NOT_SUPPORTED, "The 'Delete' method does not support entities of type '%s'.",
						ref->table->name);
	x = sim_crud_begin(r, &own, true);
	slot = sim_ref_find(ref);
	ok = slot == SIM_NO_SLOT ? sim_ref_missing(ref, 404, &resp->err) : version_fits(ref->table, slot, c.etag, &resp->err);
	if (ok)
	{
		ok = sim_apply_delete(x, ref->table, slot, &resp->err);
		r->rows += (uint64_t) sim_switch_weight(ref->table->name);
		resp->status = 204;
	}
	sim_crud_end(r, &own, ok);
	return ok;
}

static bool
get_property(SimReq *r, SimRef *ref, const SimProp *p, SimResp *resp)
{
	SimOutput	o = {.table = ref->table, .nulls = true};
	SimTxn		own;
	uint32_t	slot;
	SimVal		v;

	sim_stats_request(SIM_K_GET, r->in_batch);
	sim_crud_begin(r, &own, false);
	slot = sim_ref_find(ref);
	if (slot == SIM_NO_SLOT)
		sim_ref_missing(ref, 404, &resp->err);
	else if (!sim_record_value(ref->table, sim_store_slot(ref->table, slot), p->column->index, &v))
		resp->status = 204;
	else
	{
		resp->status = 200;
		sim_buf_printf(&resp->body, "{\"@odata.context\":\"%s/api/data/v9.2/$metadata#%s(x)/%s\",\"value\":", r->origin, o.table->set,
					   p->name);
		sim_value_put(&resp->body, p->column, &v);
		sim_buf_char(&resp->body, '}');
	}
	sim_crud_end(r, &own, true);
	return resp->err.status == 0;
}

static bool
set_property(SimReq *r, SimRef *ref, const SimProp *p, SimRec *rec, SimResp *resp)
{
	SimTxn		own,
			   *x;
	uint32_t	slot;
	bool		ok;

	(void) p;
	x = sim_crud_begin(r, &own, true);
	slot = sim_ref_find(ref);
	ok = slot == SIM_NO_SLOT ? sim_ref_missing(ref, 404, &resp->err) : sim_apply_update(r, x, rec, slot, &resp->err);
	if (ok)
		resp->status = 204;
	sim_crud_end(r, &own, ok);
	return ok;
}

bool
sim_crud_property(SimReq *r, SimRef *ref, const SimProp *p, SimResp *resp)
{
	SimRec		rec;

	if (strcmp(r->method, "GET") == 0)
		return get_property(r, ref, p, resp);
	sim_stats_request(SIM_K_UPDATE, r->in_batch);
	if (strcmp(r->method, "PUT") == 0)
		return sim_rec_read_property(r, ref->table, p->name, &rec, &resp->err) && set_property(r, ref, p, &rec, resp);
	if (strcmp(r->method, "DELETE") != 0 || p->kind != SIM_P_COLUMN)
		return sim_fail(&resp->err, 405, SIM_E_NOT_SUPPORTED, "The method is not supported for property '%s'.", p->name);
	if (p->column->system_required)
		return sim_fail(&resp->err, 400, SIM_E_ARGUMENT, "Column '%s' is system required and cannot be set to null.", p->name);
	sim_rec_init(&rec, ref->table);
	if (p->column->no_update)
		rec.not_on_update = p->column;
	sim_rec_add(r, &rec, p->column)->null = true;
	return set_property(r, ref, p, &rec, resp);
}

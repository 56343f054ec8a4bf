/*
 * bulk.c - CreateMultiple, UpdateMultiple, UpsertMultiple
 *
 * All targets are read before the store is locked; then all are applied or
 * none. Nothing in a refusal tells which target was bad, as in the service.
 */
#include "bulk.h"

#include <pthread.h>
#include <string.h>

#include "apply.h"
#include "crud.h"
#include "stats.h"
#include "switches.h"

typedef struct Targets
{
	SimRec	   *recs;
	int			n;
	int			cap;
} Targets;

static bool
read_target(SimReq *r, SimJson *j, SimTable *t, Targets *out, SimErr *e)
{
	SimRec	   *rec;

	if (out->n == out->cap)
	{
		int			cap = out->cap ? out->cap * 2 : 128;
		SimRec	   *grown = sim_arena_alloc(r->arena, sizeof *grown * (size_t) cap);

		if (out->n > 0)
			memcpy(grown, out->recs, sizeof *grown * (size_t) out->n);
		out->recs = grown;
		out->cap = cap;
	}
	rec = &out->recs[out->n];
	if (!sim_rec_read(r, j, t, rec, e))
		return false;
	if (!rec->typed)
		return sim_fail_payload(e, t->set, "A type annotation '@odata.type' is required in every target.");
	out->n++;
	return true;
}

/* {"Targets":[...]} and nothing else. */
static bool
read_targets(SimReq *r, SimTable *t, Targets *out, SimErr *e)
{
	SimJson		j;
	SimScalar	name;
	bool		first = true,
				seen = false;

	sim_json_begin(&j, r->body, r->len);
	if (!sim_json_enter(&j, '{'))
		return sim_rec_syntax(&j, e);
	while (sim_json_next_member(&j, &first, &name))
	{
		bool		first_target = true;

		if (!sim_str_is(name.text, "Targets"))
			return sim_fail_payload(e, t->set, "The parameter '%.*s' in the request payload is not a valid parameter for the operation.",
									(int) (name.text.len > 60 ? 60 : name.text.len), name.text.s);
		seen = true;
		if (!sim_json_enter(&j, '['))
			return sim_rec_syntax(&j, e);
		while (sim_json_next_element(&j, &first_target))
			if (!read_target(r, &j, t, out, e))
				return false;
	}
	if (j.error != NULL || !sim_json_at_end(&j))
		return sim_rec_syntax(&j, e);
	if (!seen || out->n == 0)
		return sim_fail(e, 400, SIM_E_ARGUMENT, "Required field 'Targets' is missing or empty.");
	return true;
}

/* A write that takes longer than the database allows ends with a time-out. */
static bool
in_time(int n, const SimTable *t, SimErr *e)
{
	if (sim_sw.sql_timeout <= 0 || (int64_t) n * sim_switch_weight(t->name) * sim_sw.row_time <= (int64_t) sim_sw.sql_timeout * 1000)
		return true;
	sim_sleep_us((int64_t) sim_sw.sql_timeout * 1000);
	return sim_fail(e, 500, "0x80044151", "SQL timeout expired. Sql Number: -2. Please reduce the batch size.");
}

/* Lookups to earlier targets of the same request exist, or not yet, as switched. */
static bool
create_all(SimReq *r, SimTxn *x, Targets *all, SimGuid *ids, SimErr *e)
{
	bool		first = sim_sw.same_request_parent == SIM_REFUSED;

	for (int i = 0; first && i < all->n; i++)
		if (!sim_apply_binds(r, &all->recs[i], e))
			return false;
	for (int i = 0; i < all->n; i++)
		if (!sim_apply_create(r, x, &all->recs[i], first, &ids[i], e))
			return false;
	return true;
}

static void
put_ids(SimReq *r, SimResp *resp, SimGuid *ids, int n)
{
	SimBuf	   *b = &resp->body;

	for (int i = n - 1; sim_sw.ids_shuffled && i > 0; i--)
	{
		int			k = (int) sim_random((uint32_t) i + 1);
		SimGuid		g = ids[i];

		ids[i] = ids[k];
		ids[k] = g;
	}
	resp->status = 200;
	sim_buf_room(b, (size_t) n * 39 + 200);
	sim_buf_printf(b, "{\"@odata.context\":\"%s/api/data/v9.2/$metadata#Microsoft.Dynamics.CRM.CreateMultipleResponse\",\"Ids\":[",
				   r->origin);
	for (int i = 0; i < n; i++)
	{
		sim_buf_add(b, i > 0 ? ",\"" : "\"", i > 0 ? 2 : 1);
		sim_buf_guid(b, ids[i]);
		sim_buf_char(b, '"');
	}
	sim_buf_puts(b, "]}");
}

static bool
create_multiple(SimReq *r, SimTable *t, SimResp *resp)
{
	Targets		all = {0};
	SimGuid    *ids;
	SimTxn		own,
			   *x;
	bool		ok;

	sim_stats_request(SIM_K_CREATE_MULTIPLE, r->in_batch);
	if (!read_targets(r, t, &all, &resp->err) || !in_time(all.n, t, &resp->err))
		return false;
	sim_stats_targets((uint64_t) all.n);
	ids = sim_arena_alloc(r->arena, sizeof *ids * (size_t) all.n);
	x = sim_crud_begin(r, &own, true);
	ok = create_all(r, x, &all, ids, &resp->err);
	sim_crud_end(r, &own, ok);
	if (ok)
		put_ids(r, resp, ids, all.n);
	return ok;
}

/* Which record a target names: by id, by @odata.id, or none (false, no error). */
static bool
target_ref(SimReq *r, SimTable *t, SimRec *rec, SimRef *out, SimErr *e)
{
	if (rec->odata_id.s != NULL)
	{
		if (!sim_ref_parse(r, rec->odata_id, out, e))
			return false;
		if (out->table != t)
			return sim_fail_payload(e, t->set, "The '@odata.id' of a target names another table.");
		return true;
	}
	memset(out, 0, sizeof *out);
	out->table = t;
	out->by_id = true;
	out->id = rec->id;
	return rec->has_id;
}

/* A small set of ids that were met already in this request. */
typedef struct Seen
{
	SimGuid    *ids;
	uint32_t	mask;
} Seen;

static void
seen_init(SimReq *r, Seen *s, int n)
{
	s->mask = 63;
	while ((int) s->mask < n * 2)
		s->mask = s->mask * 2 + 1;
	s->ids = memset(sim_arena_alloc(r->arena, sizeof *s->ids * ((size_t) s->mask + 1)), 0, sizeof *s->ids * ((size_t) s->mask + 1));
}

static bool
seen_before(Seen *s, SimGuid id)
{
	uint32_t	at = (uint32_t) sim_guid_hash(id) & s->mask;

	for (; s->ids[at].hi != 0 || s->ids[at].lo != 0; at = (at + 1) & s->mask)
		if (sim_guid_eq(s->ids[at], id))
			return true;
	s->ids[at] = id;
	return false;
}

static bool
update_one(SimReq *r, SimTxn *x, SimTable *t, SimRec *rec, Seen *seen, SimErr *e)
{
	SimRef		ref;
	uint32_t	slot;

	if (rec->odata_id.s != NULL && sim_sw.update_odata_id == SIM_REFUSED)
		return sim_fail(e, 400, SIM_E_ARGUMENT, "Entity Id must be specified for Update.");
	if (!target_ref(r, t, rec, &ref, e))
		return sim_fail(e, 400, SIM_E_ARGUMENT, "Entity Id must be specified for Update.");
	slot = sim_ref_find(&ref);
	if (slot == SIM_NO_SLOT)
	{
		char		text[SIM_GUID_LEN + 1];

		if (!ref.by_id)
			return sim_ref_missing(&ref, 404, e);
		sim_guid_format(ref.id, text);
		return sim_fail(e, 404, SIM_E_NOT_FOUND, "%s With Ids = %s Do Not Exist", t->schema, text);
	}
	/* The first of several targets for one record counts, silently. */
	if (seen_before(seen, sim_store_slot(t, slot)->id))
		return true;
	return sim_apply_update(r, x, rec, slot, e);
}

static bool
update_multiple(SimReq *r, SimTable *t, SimResp *resp)
{
	Targets		all = {0};
	Seen		seen;
	SimTxn		own,
			   *x;
	bool		ok = true;

	sim_stats_request(SIM_K_UPDATE_MULTIPLE, r->in_batch);
	if (!read_targets(r, t, &all, &resp->err) || !in_time(all.n, t, &resp->err))
		return false;
	sim_stats_targets((uint64_t) all.n);
	seen_init(r, &seen, all.n);
	x = sim_crud_begin(r, &own, true);
	for (int i = 0; ok && i < all.n; i++)
		ok = update_one(r, x, t, &all.recs[i], &seen, &resp->err);
	sim_crud_end(r, &own, ok);
	resp->status = 204;
	return ok;
}

/* Key columns beside @odata.id make the create path fail. */
static bool
repeats_key(const SimRef *ref, const SimRec *rec)
{
	for (int i = 0; !ref->by_id && i < ref->key->n_columns; i++)
		if (sim_rec_find(rec, &ref->table->columns[ref->key->columns[i]]) != NULL)
			return true;
	return false;
}

static bool
upsert_one(SimReq *r, SimTxn *x, SimTable *t, SimRec *rec, Seen *seen, SimErr *e)
{
	SimRef		ref;
	SimGuid		id;
	uint32_t	slot = SIM_NO_SLOT;
	bool		named = target_ref(r, t, rec, &ref, e);

	if (e->status != 0)
		return false;
	if (named)
		slot = sim_ref_find(&ref);
	if (slot != SIM_NO_SLOT)
	{
		if (seen_before(seen, sim_store_slot(t, slot)->id))
			return sim_fail(e, 400, SIM_E_DUPLICATE, "Cannot insert duplicate key.");
		return sim_apply_update(r, x, rec, slot, e);
	}
	if (named && repeats_key(&ref, rec))
		return sim_fail(e, 400, SIM_E_UNEXPECTED, "An unexpected error occurred.");
	if (named && ref.by_id)
	{
		rec->has_id = true;
		rec->id = ref.id;
	}
	for (int i = 0; named && !ref.by_id && i < ref.key->n_columns; i++)
		*sim_rec_add(r, rec, &t->columns[ref.key->columns[i]]) = ref.vals[i];
	if (!sim_apply_create(r, x, rec, false, &id, e))
		return false;
	seen_before(seen, id);
	return true;
}

static bool
upsert_multiple(SimReq *r, SimTable *t, SimResp *resp)
{
	Targets		all = {0};
	Seen		seen;
	SimTxn		own,
			   *x;
	bool		ok = true;

	sim_stats_request(SIM_K_UPSERT_MULTIPLE, r->in_batch);
	if (!read_targets(r, t, &all, &resp->err) || !in_time(all.n, t, &resp->err))
		return false;
	sim_stats_targets((uint64_t) all.n);
	seen_init(r, &seen, all.n);
	x = sim_crud_begin(r, &own, true);
	for (int i = 0; ok && i < all.n; i++)
		ok = upsert_one(r, x, t, &all.recs[i], &seen, &resp->err);
	sim_crud_end(r, &own, ok);
	resp->status = 204;
	return ok;
}

/*
 * The first bulk request of a custom table makes the database's procedures
 * for it; others that come meanwhile fail.
 */
static pthread_mutex_t warmup_lock = PTHREAD_MUTEX_INITIALIZER;

static bool
warm_up(SimTable *t, bool *mine, SimErr *e)
{
	bool		busy;

	*mine = false;
	if (!sim_sw.bulk_warmup || !t->custom)
		return true;
	pthread_mutex_lock(&warmup_lock);
	busy = t->bulk_state == 1;
	*mine = t->bulk_state == 0;
	if (*mine)
		t->bulk_state = 1;
	pthread_mutex_unlock(&warmup_lock);
	if (busy)
		return sim_fail(e, 500, "0x80044150", "Generic SQL error. Sql Number: 3732. Cannot drop type 'dbo.%sBase_tvp' because it is being "
						"referenced by object 'p_%sBase_UpdateMultiple'.", t->name, t->name);
	/* Long enough for parallel clients to meet it. */
	if (*mine)
		sim_sleep_us(200000);
	return true;
}

static bool
run_warm(SimReq *r, SimTable *t, bool create, bool update, SimResp *resp)
{
	bool		mine,
				ok;

	if (!warm_up(t, &mine, &resp->err))
		return false;
	ok = create ? create_multiple(r, t, resp) : update ? update_multiple(r, t, resp) : upsert_multiple(r, t, resp);
	if (mine)
	{
		pthread_mutex_lock(&warmup_lock);
		t->bulk_state = 2;
		pthread_mutex_unlock(&warmup_lock);
	}
	return ok;
}

bool
sim_bulk_run(SimReq *r, SimTable *t, const char *name, SimResp *resp)
{
	bool		create = strcmp(name, "CreateMultiple") == 0,
				update = strcmp(name, "UpdateMultiple") == 0,
				upsert = strcmp(name, "UpsertMultiple") == 0;

	if (strcmp(name, "DeleteMultiple") == 0 && !t->elastic)
		return sim_fail(&resp->err, 400, SIM_E_NOT_SUPPORTED, "DeleteMultiple has not yet been implemented.");
	if ((create && !t->bulk_create) || (update && !t->bulk_update) || (upsert && !(t->bulk_create && t->bulk_update)) ||
		!(create || update || upsert))
		return sim_fail(&resp->err, 404, SIM_E_SEGMENT, "Resource not found for the segment 'Microsoft.Dynamics.CRM.%s'.", name);
	if (create && sim_sink)
		return sim_sink_create_multiple(r, t, resp);
	if (sim_sink)
	{
		sim_stats_request(update ? SIM_K_UPDATE_MULTIPLE : SIM_K_UPSERT_MULTIPLE, r->in_batch);
		resp->status = 204;
		return true;
	}
	return run_warm(r, t, create, update, resp);
}

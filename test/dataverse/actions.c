/*
 * actions.c - actions that close records and leave an activity that says so
 */
#include "actions.h"

#include <stdlib.h>
#include <string.h>

#include "apply.h"
#include "crud.h"
#include "stats.h"

typedef struct Action
{
	const char *name;
	const char *table;			/* what is closed */
	const char *activity;		/* the record that is left */
	const char *parameter;
	const char *lookup;			/* of the activity to the closed record */
	int			state;
	int			from;			/* states that it takes records from: from .. upto */
	int			upto;
} Action;

static const Action actions[] =
{
	{"WinOpportunity", "opportunity", "opportunityclose", "OpportunityClose", "opportunityid", 1, 0, 0},
	{"LoseOpportunity", "opportunity", "opportunityclose", "OpportunityClose", "opportunityid", 2, 0, 0},
	{"CloseIncident", "incident", "incidentresolution", "IncidentResolution", "incidentid", 1, 0, 0},
	/* a quote is a draft, and active before it is won or closed */
	{"WinQuote", "quote", "quoteclose", "QuoteClose", "quoteid", 2, 1, 1},
	{"CloseQuote", "quote", "quoteclose", "QuoteClose", "quoteid", 3, 1, 1},
	/* an order may be submitted first */
	{"CancelSalesOrder", "salesorder", "orderclose", "OrderClose", "salesorderid", 2, 0, 1},
	{"FulfillSalesOrder", "salesorder", "orderclose", "OrderClose", "salesorderid", 3, 0, 1},
};

const char *
sim_action_for(const SimTable *t, int64_t state)
{
	for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++)
		if (actions[i].state == state && strcmp(actions[i].table, t->name) == 0)
			return actions[i].name;
	return NULL;
}

typedef struct Call
{
	const Action *action;
	SimTable   *table;
	SimTable   *activity;
	bool		has_status;
	int64_t		status;
	bool		has_activity;
	SimRec		rec;
} Call;

static bool
read_call(SimReq *r, Call *c, SimErr *e)
{
	SimJson		j;
	SimScalar	name,
				v;
	bool		first = true;

	sim_json_begin(&j, r->body, r->len);
	if (!sim_json_enter(&j, '{'))
		return sim_rec_syntax(&j, e);
	while (sim_json_next_member(&j, &first, &name))
	{
		if (sim_str_is(name.text, c->action->parameter))
		{
			c->has_activity = true;
			if (!sim_rec_read(r, &j, c->activity, &c->rec, e))
				return false;
			continue;
		}
		if (!sim_str_is(name.text, "Status"))
			return sim_fail_payload(e, c->action->name, "The parameter '%.*s' in the request payload is not a valid parameter for the "
									"operation '%s'.", (int) (name.text.len > 60 ? 60 : name.text.len), name.text.s, c->action->name);
		if (!sim_json_scalar(&j, &v) || v.kind != SIM_JSON_NUMBER)
			return sim_fail_payload(e, c->action->name, "The parameter 'Status' must be an Edm.Int32.");
		c->has_status = true;
		c->status = strtol(v.text.s, NULL, 10);
	}
	if (j.error != NULL || !sim_json_at_end(&j))
		return sim_rec_syntax(&j, e);
	if (!c->has_activity || !c->has_status)
		return sim_fail(e, 400, SIM_E_ARGUMENT, "Required parameter '%s' is missing for the requested operation: '%s'.",
						c->has_status ? c->action->parameter : "Status", c->action->name);
	return true;
}

/* The record that the activity's lookup names. */
static uint32_t
closed_record(const Call *c, SimErr *e)
{
	for (int i = 0; i < c->rec.n_binds; i++)
	{
		const SimBind *b = &c->rec.binds[i];
		uint32_t	slot;

		if (strcmp(b->prop->column->name, c->action->lookup) != 0)
			continue;
		slot = sim_ref_find(&b->ref);
		if (slot == SIM_NO_SLOT)
			sim_ref_missing(&b->ref, 404, e);
		return slot;
	}
	sim_fail(e, 400, SIM_E_ARGUMENT, "The activity does not name the %s to be closed.", c->table->name);
	return SIM_NO_SLOT;
}

static bool
set_state(SimReq *r, SimTxn *x, SimTable *t, uint32_t slot, int64_t state, int64_t status, SimErr *e)
{
	SimVal		v[2] = {{.column = t->state_column->index, .v.i = state}, {.column = t->status_column->index, .v.i = status}};

	return sim_apply_set(x, t, slot, v, 2, r->user, e);
}

static bool
run(SimReq *r, SimTxn *x, Call *c, SimErr *e)
{
	uint32_t	slot = closed_record(c, e);
	SimVal		now;
	SimGuid		id;
	int			of;
	int			done;

	if (slot == SIM_NO_SLOT)
		return false;
	if (sim_row_cell(c->table, sim_store_slot(c->table, slot)->row, c->table->state_column->index, &now) &&
		(now.v.i < c->action->from || now.v.i > c->action->upto))
		return sim_fail(e, 400, SIM_E_ARGUMENT, now.v.i < c->action->from ? "The %s is not active." : "The %s is already closed.",
						c->table->name);
	if (c->status == -1)
		c->status = sim_table_default_status(c->table, c->action->state);
	if (!sim_table_status_state(c->table, (int) c->status, &of) || of != c->action->state)
		return sim_fail(e, 400, SIM_E_STATE, "%lld is not a valid status code for state code %d on %s", (long long) c->status,
						c->action->state, c->table->name);
	if (!sim_apply_create(r, x, &c->rec, false, &id, e))
		return false;
	done = sim_table_default_status(c->activity, 1);
	return set_state(r, x, c->activity, sim_store_find(c->activity, id), 1, done, e) &&
		set_state(r, x, c->table, slot, c->action->state, c->status, e);
}

bool
sim_action_run(SimReq *r, SimResp *resp, bool *known)
{
	const SimSegment *s = &r->path.seg[0];
	Call		c = {0};
	SimTxn		own,
			   *x;
	bool		ok;

	*known = false;
	for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++)
		if (sim_str_is(s->name, actions[i].name))
			c.action = &actions[i];
	if (c.action == NULL || strcmp(r->method, "POST") != 0)
		return false;
	c.table = sim_table_by_name(c.action->table, strlen(c.action->table));
	c.activity = sim_table_by_name(c.action->activity, strlen(c.action->activity));
	if (c.table == NULL || c.activity == NULL)
		return false;
	*known = true;
	sim_stats_request(SIM_K_ACTION, r->in_batch);
	if (!read_call(r, &c, &resp->err))
		return false;
	x = sim_crud_begin(r, &own, true);
	ok = run(r, x, &c, &resp->err);
	sim_crud_end(r, &own, ok);
	resp->status = 204;
	return ok;
}

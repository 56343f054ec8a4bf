/*
 * states.c - the pass that sets statecode and statuscode
 *
 * Most tables take the two by an update like any other. Opportunities, cases,
 * quotes and orders are closed by an action, which leaves an activity that says
 * so and must not be repeated: of such a record the state is read before each
 * operation, and one that is in its state already is done.
 */
#include "postgres.h"

#include "encode.h"
#include "states.h"

/*
 * Operations on one record that were answered and are followed by another: reopen,
 * activate and one to spare. Those that were not answered do not count: what
 * bounds them is what bounds every request.
 */
#define STEPS_MAX	3

/* Subject of the activity where dvmig.map_close() gives none. */
#define SUBJECT		"\"subject\":\"Closed by data migration\""

typedef struct Action
{
	const char *table;
	int			state;			/* that it brings a record to */
	const char *name;
	const char *parameter;		/* the activity that it leaves */
	const char *lookup;			/* of the activity to the record */
} Action;

/* Microsoft's Web API reference of the actions. */
static const Action actions[] = {
	{"opportunity", 1, "WinOpportunity", "OpportunityClose", "opportunityid"},
	{"opportunity", 2, "LoseOpportunity", "OpportunityClose", "opportunityid"},
	{"incident", 1, "CloseIncident", "IncidentResolution", "incidentid"},
	{"quote", 2, "WinQuote", "QuoteClose", "quoteid"},
	{"quote", 3, "CloseQuote", "QuoteClose", "quoteid"},
	{"salesorder", 2, "CancelSalesOrder", "OrderClose", "salesorderid"},
	{"salesorder", 3, "FulfillSalesOrder", "OrderClose", "salesorderid"}
};

void
dv_states_take(DvStep *step, DvRow *row, const Datum *values, const bool *nulls)
{
	int			state = step->projection->columns[0].attnum - 1;
	int			status = step->projection->columns[1].attnum - 1;

	row->state = nulls[state] ? -1 : DatumGetInt32(values[state]);
	row->status = nulls[status] ? -1 : DatumGetInt32(values[status]);
}

const char *
dv_states_text(const DvRow *row)
{
	if (row->state < 0)
		return NULL;
	return row->status < 0 ? psprintf("%d,", row->state) : psprintf("%d,%d", row->state, row->status);
}

static const Action *
action_to(const char *table, int state)
{
	int			i;

	for (i = 0; i < (int) lengthof(actions); i++)
		if (strcmp(actions[i].table, table) == 0 && actions[i].state == state)
			return &actions[i];
	return NULL;
}

/*
 * Does a record in this state take no changes? Quotes and orders have a second
 * open state (active, submitted).
 */
static bool
is_closed(const char *table, int state)
{
	bool		two = strcmp(table, "quote") == 0 || strcmp(table, "salesorder") == 0;

	return state > (two ? 1 : 0);
}

static void
set_operation(DvRow *row, const char *method, char *path, char *content)
{
	row->wire.method = method;
	row->wire.path = path;
	row->wire.content = content;
	row->wire.content_len = strlen(content);
}

/* An update of state, and of status where it is given. */
static void
update_state(DvStep *step, DvRow *row, int state, int status)
{
	set_operation(row, "PATCH", psprintf("/%s(%s)", step->projection->wire.entity_set, row->wire.id),
				  status < 0 ? psprintf("{\"statecode\":%d}", state) :
				  psprintf("{\"statecode\":%d,\"statuscode\":%d}", state, status));
}

static void
close_record(DvStep *step, DvRow *row, const Action *action)
{
	const char *comma = row->close_len > 0 ? "," : "";
	bool		has_subject = row->close_len > 0 && strstr(row->close, "\"subject\":") != NULL;

	/* Status -1: the default of the state */
	set_operation(row, "POST", psprintf("/%s", action->name),
				  psprintf("{\"Status\":%d,\"%s\":{%s%s%.*s,\"%s@odata.bind\":\"%s(%s)\"}}", row->status, action->parameter,
						   has_subject ? "" : SUBJECT, has_subject ? "" : comma, row->close_len, row->close ? row->close : "",
						   action->lookup, step->projection->wire.entity_set, row->wire.id));
}

static void
fail(DvStep *step, DvRow *row, const char *code, const char *message)
{
	dv_outcome_failure(step, row, dv_encode_verdict("state", code, "statecode", message));
}

/* What brings a record from the state it is in nearer to the one it is to have. */
static bool
choose_operation(DvStep *step, DvRow *row, const DvWireFound *found)
{
	const char *table = step->projection->wire.logical_name;
	const Action *action = action_to(table, row->state);
	MemoryContext old;

	if (found->state < 0)
	{
		fail(step, row, "state_unread", "the record's state could not be read, and a closing action is not repeated blindly");
		return false;
	}
	if (row->steps >= STEPS_MAX)
	{
		fail(step, row, "state_kept", "the record does not come to the state that it was given");
		return false;
	}
	if (found->state != row->state && is_closed(table, found->state) && !step->projection->reopen)
	{
		fail(step, row, "closed", "the record is closed in Dataverse, in another state; see the setting on_closed");
		return false;
	}
	old = MemoryContextSwitchTo(row->batch->context);
	row->more = true;
	if (found->state == row->state)
		update_state(step, row, row->state, row->status);
	else if (is_closed(table, found->state))
		update_state(step, row, 0, -1);
	else if (action != NULL && strcmp(table, "quote") == 0 && found->state == 0)
		update_state(step, row, 1, -1); /* a draft is activated before it is won or closed */
	else
	{
		row->more = false;
		if (action != NULL)
			close_record(step, row, action);
		else
			update_state(step, row, row->state, row->status);
	}
	row->more &= found->state != row->state;
	MemoryContextSwitchTo(old);
	return true;
}

bool
dv_states_found(DvStep *step, DvRow *row, const DvWireFound *found)
{
	if (found->state == row->state && (row->status < 0 || found->status == row->status))
	{
		if (row->attempts == 0)
			dv_outcome_success(step, row, "the record was in this state already");
		else
			dv_outcome_success(step, row, row->unknown_since ? "settled: found after an unanswered request" : NULL);
		return true;
	}
	return step->projection->closing && !choose_operation(step, row, found);
}

bool
dv_states_closed(DvStep *step, DvRow *row, const DvWireFound *found)
{
	const DvWireTable *t = &step->projection->wire;
	const Action *action = action_to(t->logical_name, found->state);
	MemoryContext old;
	DvRow		close;

	row->wire.reopen = NULL;
	if (found->state < 0 || !is_closed(t->logical_name, found->state))
		return false;
	/* a quote that is won or lost is revised, not opened again */
	if (!step->projection->reopen || strcmp(t->logical_name, "quote") == 0)
	{
		fail(step, row, "closed", "the record is closed in Dataverse; see the setting on_closed");
		return true;
	}
	old = MemoryContextSwitchTo(row->batch->context);
	close = *row;
	close.status = found->status;
	close.close_len = 0;
	close.close = NULL;
	if (action != NULL)
		close_record(step, &close, action);
	else
		update_state(step, &close, found->state, found->status);
	row->wire.reopen = "{\"statecode\":0}";
	row->wire.close_method = close.wire.method;
	row->wire.close_path = close.wire.path;
	row->wire.close_content = close.wire.content;
	MemoryContextSwitchTo(old);
	return false;
}

bool
dv_states_go_on(DvRow *row)
{
	bool		more = row->more;

	row->more = false;
	if (more)
		row->steps++;
	return more;
}

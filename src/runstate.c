/*
 * runstate.c - a run's rows in dvmig's tables, and what they tell the worker
 *
 * Each function is one short transaction as the owner of the extension, who
 * alone may write dvmig's tables. What is text to a user (expressions, filters)
 * is never executed here.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "call.h"
#include "doubt.h"
#include "encode.h"
#include "flags.h"
#include "lanes.h"
#include "live.h"
#include "quiet.h"
#include "runstate.h"
#include "spi.h"

/* It runs no user's code, so that the time-outs that the owner of the migration sets himself are not for it. */
DvSwitch
dv_runstate_begin(const char *activity)
{
	dv_spi_begin(activity);
	dv_spi_no_timeouts();
	return dv_call_become_extension_owner();
}

void
dv_runstate_commit(DvSwitch before, bool asynchronous)
{
	dv_call_restore(before);
	dv_quiet_own();
	dv_spi_commit(asynchronous);
}

/* Columns of run_history that make a plan, and the run's tables. */
#define PLAN_COLUMNS	"server, migration, coalesce((options ->> 'max_rows')::int, 0), coalesce((options ->> 'lanes')::int, 0), options ? 'filtered', kind," \
	" options ->> 'max_errors', options ->> 'max_error_rate'"

static void
take_plan(DvRunContext *rc, DvRunPlan *plan)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(rc->run)};
	int			i;

	plan->server = dv_spi_keep(rc->context, 0, 1);
	plan->migration = dv_spi_keep(rc->context, 0, 2);
	rc->max_rows = atoi(dv_spi_text(0, 3));
	plan->lanes = atoi(dv_spi_text(0, 4));
	rc->filtered = dv_spi_is_true(0, 5);
	plan->kind = dv_spi_keep(rc->context, 0, 6);
	dv_budget_read(&rc->budget, 0, 7);
	plan->ntables = (int) dv_spi_run("SELECT DISTINCT t.staging::oid, r.staging FROM dvmig.run_table r"
									 " JOIN dvmig.migration_table t ON t.staging::text = r.staging WHERE r.run = $1 ORDER BY 1",
									 1, types, values, NULL, SPI_OK_SELECT);
	plan->tables = MemoryContextAlloc(rc->context, sizeof(Oid) * (plan->ntables + 1));
	plan->names = MemoryContextAlloc(rc->context, sizeof(char *) * (plan->ntables + 1));
	for (i = 0; i < plan->ntables; i++)
	{
		plan->tables[i] = atooid(dv_spi_text(i, 1));
		plan->names[i] = dv_spi_keep(rc->context, i, 2);
	}
}

bool
dv_runstate_load(DvRunContext *rc, DvRunPlan *plan)
{
	Oid			types[2] = {INT8OID, INT4OID};
	Datum		values[2] = {Int64GetDatum(rc->run), Int32GetDatum(MyProcPid)};
	DvSwitch	before = dv_runstate_begin("dvmig: loading the run");
	bool		there;

	there = dv_spi_run("UPDATE dvmig.run_history SET state = 'running', pid = $2 WHERE run = $1 AND state = 'starting'"
					   " RETURNING " PLAN_COLUMNS, 2, types, values, NULL, SPI_OK_UPDATE_RETURNING) == 1;
	if (there)
		take_plan(rc, plan);
	dv_runstate_commit(before, false);
	return there;
}

bool
dv_runstate_load_lane(DvRunContext *rc, DvRunPlan *plan)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(rc->run)};
	DvSwitch	before = dv_runstate_begin("dvmig: joining the run");
	bool		there = dv_spi_run("SELECT " PLAN_COLUMNS " FROM dvmig.run_history WHERE run = $1",
								   1, types, values, NULL, SPI_OK_SELECT) == 1;

	if (there)
		take_plan(rc, plan);
	dv_runstate_commit(before, true);
	return there;
}

void
dv_runstate_tell(DvRunContext *rc, const char *kind, const char *text)
{
	Oid			types[3] = {INT8OID, TEXTOID, TEXTOID};
	Datum		values[3] = {Int64GetDatum(rc->run), CStringGetTextDatum(kind), CStringGetTextDatum(text)};
	DvSwitch	before = dv_runstate_begin("dvmig: telling of lanes");

	dv_spi_run("INSERT INTO dvmig.event (role, migration, kind, object, detail)"
			   " SELECT session_user, h.migration, $2, h.run::text, jsonb_build_object('message', $3) FROM dvmig.run_history h WHERE h.run = $1",
			   3, types, values, NULL, SPI_OK_INSERT);
	dv_runstate_commit(before, true);
	ereport(LOG, (errmsg("dvmig run " INT64_FORMAT ": %s", rc->run, text)));
}

bool
dv_runstate_pin(DvRunContext *rc, const DvRunPlan *plan, const char *organisation_id)
{
	Oid			types[3] = {TEXTOID, TEXTOID, INT8OID};
	Datum		values[3] = {CStringGetTextDatum(plan->server), CStringGetTextDatum(organisation_id), Int64GetDatum(rc->run)};
	DvSwitch	before = dv_runstate_begin("dvmig: checking the organisation");
	char	   *pinned;
	bool		same;

	dv_spi_run("INSERT INTO dvmig.organisation (server, organisation_id, pinned_by) SELECT $1, $2::uuid, session_user"
			   " WHERE $3 > 0 ON CONFLICT (server) DO NOTHING", 3, types, values, NULL, SPI_OK_INSERT);
	dv_spi_run("UPDATE dvmig.run_history SET organisation_id = $2::uuid WHERE run = $3 AND server = $1",
			   3, types, values, NULL, SPI_OK_UPDATE);
	dv_spi_run("SELECT organisation_id FROM dvmig.organisation WHERE server = $1", 1, types, values, NULL, SPI_OK_SELECT);
	pinned = dv_spi_keep(rc->context, 0, 1);
	dv_runstate_commit(before, false);
	same = pinned != NULL && pg_strcasecmp(pinned, organisation_id) == 0;
	if (!same)
	{
		rc->failed = true;
		rc->message = psprintf("server \"%s\" answers as another organisation (%s) than the pinned one (%s); see dvmig.repin()",
							   plan->server, organisation_id, pinned ? pinned : "none");
	}
	return same;
}

/* Steps whose table was dropped or renamed since start(): the run cannot do all it was to do. */
static void
fail_lost_tables(DvRunContext *rc)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(rc->run)};
	uint64		n;

	n = dv_spi_run("UPDATE dvmig.run_table r SET state = 'failed', message = 'the staging table was dropped or renamed', ended_at = clock_timestamp()"
				   " WHERE r.run = $1 AND r.state = 'pending' AND NOT EXISTS (SELECT FROM dvmig.migration_table t WHERE t.staging::text = r.staging)"
				   " RETURNING r.staging", 1, types, values, NULL, SPI_OK_UPDATE_RETURNING);
	if (n > 0 && !rc->failed)
	{
		rc->failed = true;
		rc->message = MemoryContextStrdup(rc->context, psprintf("staging table %s was dropped or renamed", dv_spi_text(0, 1)));
	}
}

#define STEP_COLUMNS	"t.staging::oid, r.staging, r.pass, r.deferred, r.step FROM dvmig.run_table r" \
	" JOIN dvmig.migration_table t ON t.staging::text = r.staging"

static void
take_step(DvStepPlan *plan, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	bool		isnull;

	plan->staging = atooid(dv_spi_text(0, 1));
	plan->name = dv_spi_keep(context, 0, 2);
	plan->pass = dv_spi_keep(context, 0, 3);
	plan->deferred = datumCopy(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 4, &isnull), false, -1);
	plan->number = atoi(dv_spi_text(0, 5));
	MemoryContextSwitchTo(old);
}

bool
dv_runstate_next_step(DvRunContext *rc, DvStepPlan *plan)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(rc->run)};
	DvSwitch	before = dv_runstate_begin("dvmig: next table");
	bool		there;

	fail_lost_tables(rc);
	there = dv_spi_run("SELECT " STEP_COLUMNS " WHERE r.run = $1 AND r.state = 'pending' ORDER BY r.step LIMIT 1",
					   1, types, values, NULL, SPI_OK_SELECT) == 1;
	if (there)
		take_step(plan, rc->context);
	dv_runstate_commit(before, false);
	return there;
}

/*
 * The rows of a run with a filter were decided when it was started. What is owed
 * to a record that exists is given to it whatever the filter says.
 */
static void
keep_to_run(const DvRunContext *rc, DvProjection *p, const char *inner_sql, const char *all_sql, MemoryContext context)
{
	Oid			types[2] = {INT8OID, OIDOID};
	Datum		values[2] = {Int64GetDatum(rc->run), ObjectIdGetDatum(p->staging)};
	char	   *filter = "true";

	if (rc->filtered && (strcmp(p->pass, "write") == 0 || strcmp(p->pass, "delete") == 0) &&
		(dv_spi_run("SELECT dvmig._run_filter($1, $2::regclass)", 2, types, values, NULL, SPI_OK_SELECT) != 1 ||
		 (filter = dv_spi_text(0, 1)) == NULL))
		elog(ERROR, "run " INT64_FORMAT " has no filter", rc->run);
	/* The table's filter may throw: not for rows that are not of the run, whose condition the planner would put behind it. */
	if (inner_sql[strlen(all_sql)] != '\0' && strcmp(filter, "true") != 0)
		p->inner_sql = MemoryContextStrdup(context, psprintf("%s AND CASE WHEN %s THEN true%s END", all_sql, filter, inner_sql + strlen(all_sql)));
	else
		p->inner_sql = MemoryContextStrdup(context, psprintf("%s AND %s", inner_sql, filter));
	p->all_sql = MemoryContextStrdup(context, psprintf("%s AND %s", all_sql, filter));
	/* it knows of no run, and would count, or trip over, rows that are not of this one */
	if (strcmp(filter, "true") != 0)
		p->count_sql = NULL;
}

/* The columns that the table has now; false where they are those known, or it is gone. */
bool
dv_runstate_follow_columns(DvStep *step)
{
	MemoryContext context = CurrentMemoryContext;
	DvProjection *p = step->projection;
	Oid			types[2] = {OIDOID, TEXTOID};
	Datum		values[2] = {ObjectIdGetDatum(p->staging), CStringGetTextDatum(p->pass)};
	const char *known = p->inner_sql;

	PG_TRY();
	{
		DvSwitch	before = dv_runstate_begin("dvmig: looking at the table's columns");

		if (dv_spi_run("SELECT inner_sql, all_sql FROM dvmig._projection($1::regclass, $2)", 2, types, values, NULL, SPI_OK_SELECT) == 1)
			keep_to_run(step->rc, p, dv_spi_text(0, 1), dv_spi_text(0, 2), step->context);
		dv_runstate_commit(before, true);
	}
	PG_CATCH();
	{
		FreeErrorData(dv_spi_abort(step->context));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return strcmp(known, p->inner_sql) != 0;
}

static void
load_projection(DvStep *step, const DvStepPlan *plan)
{
	DvSession  *session = step->rc->session;

	step->number = plan->number;
	step->projection = dv_projection_load(plan->staging, plan->pass, plan->deferred,
										  dv_session_api_path(session), dv_session_api_url(session), step->context);
	keep_to_run(step->rc, step->projection, step->projection->inner_sql, step->projection->all_sql, step->context);
}

bool
dv_runstate_join_step(DvStep *step, int number)
{
	DvStepPlan	plan;
	Oid			types[2] = {INT8OID, INT4OID};
	Datum		values[2] = {Int64GetDatum(step->rc->run), Int32GetDatum(number)};
	DvSwitch	before = dv_runstate_begin("dvmig: loading the definition");
	bool		there = dv_spi_run("SELECT " STEP_COLUMNS " WHERE r.run = $1 AND r.step = $2",
								   2, types, values, NULL, SPI_OK_SELECT) == 1;

	if (there)
	{
		take_step(&plan, step->context);
		load_projection(step, &plan);
		dv_budget_load(step, plan.staging);
	}
	dv_runstate_commit(before, true);
	return there;
}

void
dv_runstate_begin_step(DvStep *step, const DvStepPlan *plan)
{
	DvRunContext *rc = step->rc;
	Oid			types[3] = {INT8OID, TEXTOID, TEXTOID};
	Datum		values[3] = {Int64GetDatum(rc->run), CStringGetTextDatum(plan->name), CStringGetTextDatum(plan->pass)};
	DvSwitch	before = dv_runstate_begin("dvmig: loading the definition");

	load_projection(step, plan);
	dv_spi_run("UPDATE dvmig.run_table SET state = 'running', started_at = clock_timestamp()"
			   " WHERE run = $1 AND staging = $2 AND pass = $3", 3, types, values, NULL, SPI_OK_UPDATE);
	dv_doubt_begin(step, plan);
	dv_budget_load(step, plan->staging);
	/* With its WAL flushed before the first request goes out. */
	dv_runstate_commit(before, false);
}

void
dv_runstate_end_step(DvStep *step, const DvStepPlan *plan, const ErrorData *error)
{
	DvRunContext *rc = step->rc;
	const char *state = error || (rc->stopping && rc->failed) ? "failed" : rc->stopping ? "pending" : "done";
	long		left = dv_flags_left(step);
	const char *message = error ? dv_spi_told(error) :
		left > 0 ? psprintf(left == 1 ? "%ld row has its outcome recorded, but a trigger, policy or lock kept its flag from being set"
						: "%ld rows have their outcome recorded, but a trigger, policy or lock kept their flag from being set", left) : NULL;
	Oid			types[5] = {INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[5] = {Int64GetDatum(rc->run), CStringGetTextDatum(plan->name), CStringGetTextDatum(plan->pass),
	CStringGetTextDatum(state), message ? CStringGetTextDatum(message) : (Datum) 0};
	char		nulls[6] = {' ', ' ', ' ', ' ', message ? ' ' : 'n', '\0'};
	DvSwitch	before = dv_runstate_begin("dvmig: ending a table");

	dv_live_store(rc);
	/* Before this pass gets its state: a run that ends for all rows alike may have left none in doubt. */
	if (error == NULL && !step->unsettled)
		dv_doubt_end(step, plan);
	if (rc->at_work != NULL)
		dv_live_store_pace(step);
	dv_spi_run("UPDATE dvmig.run_table SET state = $4, message = $5, ended_at = clock_timestamp() WHERE run = $1 AND staging = $2 AND pass = $3",
			   5, types, values, nulls, SPI_OK_UPDATE);
	dv_spi_run("SELECT dvmig._apply_gate($1, $2)", 2, types, values, NULL, SPI_OK_SELECT);
	dv_runstate_commit(before, false);
	dv_live_end_step(rc);
	if (error != NULL && !rc->failed)
	{
		rc->failed = true;
		rc->message = MemoryContextStrdup(rc->context, psprintf("staging table %s: %s", plan->name, message));
	}
}

void
dv_runstate_finish(DvRunContext *rc)
{
	Oid			types[4] = {INT8OID, BOOLOID, BOOLOID, TEXTOID};
	Datum		values[4] = {Int64GetDatum(rc->run), BoolGetDatum(rc->failed), BoolGetDatum(rc->stopping),
	rc->message ? CStringGetTextDatum(rc->message) : (Datum) 0};
	char		nulls[5] = {' ', ' ', ' ', rc->message ? ' ' : 'n', '\0'};
	DvSwitch	before = dv_runstate_begin("dvmig: ending the run");

	rc->waiting[0] = '\0';
	/* an error may have ended the run in a step: its figures, too */
	dv_live_store(rc);
	dv_spi_run("SELECT dvmig._finish_run($1, $2, $3, $4)", 4, types, values, nulls, SPI_OK_SELECT);
	dv_live_watch(rc, true);
	dv_runstate_commit(before, false);
}

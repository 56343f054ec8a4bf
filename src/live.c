/*
 * live.c - a run's live figures: from shared memory to dvmig's tables
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "lanes.h"
#include "live.h"
#include "runstate.h"
#include "spi.h"

/* Figures of the step into run_table. $1 run, $2 staging, $3 pass. */
void
dv_live_store_step(DvStep *step, const DvStepPlan *plan, const DvCounters *figures)
{
	const DvCounters *c = figures;
	Oid			types[9] = {INT8OID, TEXTOID, TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID};
	Datum		values[9] = {Int64GetDatum(step->rc->run), CStringGetTextDatum(plan->name),
		CStringGetTextDatum(plan->pass), Int64GetDatum(c->rows_read), Int64GetDatum(c->succeeded),
		Int64GetDatum(c->failed), Int64GetDatum(c->unchanged), Int64GetDatum(c->parked), Int64GetDatum(c->requests)
	};

	dv_spi_run("UPDATE dvmig.run_table SET rows_read = $4, succeeded = $5, failed = $6, unchanged = $7, parked = $8, requests = $9"
			   " WHERE run = $1 AND staging = $2 AND pass = $3", 9, types, values, NULL, SPI_OK_UPDATE);
}

/* Figures of the run: ended steps and, where given, the one at work. */
void
dv_live_store_run(DvRunContext *rc, const DvStep *step)
{
	DvCounters	c = rc->total;
	DvCounters	sum;
	Oid			types[13];
	Datum		values[13];
	char		nulls[14] = "             ";
	const char *message = rc->message ? rc->message : rc->waiting[0] ? psprintf("waiting: %s", rc->waiting) : NULL;
	int			i;

	if (step != NULL && !step->projection->later)
	{
		dv_lanes_step_counters(rc->lanes, &sum);
		dv_lanes_add(&c, &sum);
	}
	for (i = 0; i < 11; i++)
		types[i] = INT8OID;
	types[11] = INT4OID;
	types[12] = TEXTOID;
	values[0] = Int64GetDatum(rc->run);
	values[1] = Int64GetDatum(c.rows_read);
	values[2] = Int64GetDatum(c.succeeded);
	values[3] = Int64GetDatum(c.failed);
	values[4] = Int64GetDatum(c.unchanged);
	values[5] = Int64GetDatum(c.parked);
	values[6] = Int64GetDatum(c.requests);
	values[7] = Int64GetDatum(c.rows_sent);
	values[8] = Int64GetDatum(c.bytes_sent);
	values[9] = Int64GetDatum(c.throttled);
	values[10] = Int64GetDatum(c.throttled_ms);
	values[11] = Int32GetDatum(step ? dv_lanes_in_flight(rc->lanes) : 0);
	values[12] = message ? CStringGetTextDatum(message) : (Datum) 0;
	nulls[12] = message ? ' ' : 'n';
	dv_spi_run("UPDATE dvmig.run_history SET rows_read = $2, succeeded = $3, failed = $4, unchanged = $5, parked = $6,"
			   " requests = $7, rows_sent = $8, bytes_sent = $9, throttled = $10, throttled_ms = $11, in_flight = $12,"
			   " message = $13, updated_at = clock_timestamp() WHERE run = $1",
			   13, types, values, nulls, SPI_OK_UPDATE);
}

void
dv_live_watch(const DvRunContext *rc, bool ended)
{
	Oid			types[3] = {INT8OID, INT8OID, BOOLOID};
	Datum		values[3] = {Int64GetDatum(rc->run), Int64GetDatum(dv_session_auth_failures), BoolGetDatum(ended)};

	dv_spi_run("SELECT dvmig._watch_run($1, $2, $3)", 3, types, values, NULL, SPI_OK_SELECT);
}

/* One try to mirror, "step" is the one at work or NULL; throws 55P03 where a user holds a lock on our rows. */
static bool
mirror(DvRunContext *rc, DvStep *step)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(rc->run)};
	DvSwitch	before = dv_runstate_begin("dvmig: mirroring progress");
	bool		stop;

	dv_spi_wait_briefly();
	if (step != NULL)
	{
		DvStepPlan	plan = {.name = step->projection->table_name,.pass = step->projection->pass};
		DvCounters	sum;

		dv_lanes_step_counters(rc->lanes, &sum);
		dv_live_store_step(step, &plan, &sum);
	}
	dv_live_store_run(rc, step);
	dv_live_watch(rc, false);
	stop = dv_spi_run("SELECT FROM dvmig.run_history WHERE run = $1 AND NOT " DV_STOP_IS_DUE,
					  1, types, values, NULL, SPI_OK_SELECT) == 0;
	dv_runstate_commit(before, true);
	return stop;
}

bool
dv_live_mirror(DvRunContext *rc, DvStep *step)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool stop = false;

	PG_TRY();
	{
		stop = mirror(rc, step);
	}
	PG_CATCH();
	{
		ErrorData  *error = dv_spi_abort(rc->context);

		/* Requests are on their way: the figures can wait, they cannot. */
		if (!dv_spi_is_contention(error) && error->sqlerrcode != ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return stop;
}

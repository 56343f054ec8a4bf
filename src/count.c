/*
 * count.c - how many rows a step has before it, and whether it has any
 *
 * The staging table is counted with the owner's rights, as it is read. Where no
 * index has the flags, every count and every look scans it: there are no more
 * of them than it takes.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "count.h"
#include "encode.h"
#include "lanes.h"
#include "spi.h"

/* Rows of a pass, and all of its table that are unprocessed; -1 = not known. */
typedef struct Counted
{
	int64		rows;
	int64		unprocessed;
} Counted;

static Counted
counted(const char *query, bool read_only)
{
	Counted		c = {-1, -1};
	bool		isnull;

	if (SPI_execute(query, read_only, 0) != SPI_OK_SELECT)
		elog(ERROR, "SPI did not count");
	c.rows = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	if (SPI_tuptable->tupdesc->natts > 1)
		c.unprocessed = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	return c;
}

static char *
count_of(const char *query)
{
	return psprintf("SELECT count(*) FROM (%s) s", query);
}

static char *
look_of(const char *query)
{
	return count_of(psprintf("%s LIMIT 1", query));
}

/*
 * The other lanes need not wait for a count, which may take a while: they begin
 * when it is settled which rows there are. The look before it locks the tables,
 * see dv_spi_run().
 */
static Counted
counted_meanwhile(DvStep *step, const char *query)
{
	Counted		c = counted(look_of(step->projection->inner_sql), false);

	if (c.rows == 0)
		return c;
	PushActiveSnapshot(GetTransactionSnapshot());
	dv_lanes_begin_lap(step);
	c = counted(query, true);
	PopActiveSnapshot();
	return c;
}

/*
 * Counts over the staging table, with the owner's rights; not known while a user
 * locks the table, or where its filter throws.
 */
static Counted
count_rows_of(DvStep *step, const char *activity, const char *query, bool meanwhile)
{
	MemoryContext context = CurrentMemoryContext;
	volatile Counted c = {-1, -1};

	PG_TRY();
	{
		Counted		got;

		dv_spi_begin(activity);
		dv_spi_wait_briefly();
		got = meanwhile ? counted_meanwhile(step, query) : counted(query, false);
		dv_spi_commit(true);
		c.rows = got.rows;
		c.unprocessed = got.unprocessed;
	}
	PG_CATCH();
	{
		ErrorData  *error = dv_spi_abort(step->context);

		/* the filter may throw for a row, which then fails when it is read */
		if (!dv_spi_is_contention(error) && !dv_source_is_row_fault(error))
			ReThrowError(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return c;
}

static bool
has_rows_of(DvStep *step, const char *query)
{
	return count_rows_of(step, "dvmig: looking for rows", look_of(query), false).rows != 0;
}

bool
dv_count_has_rows(DvStep *step)
{
	const DvProjection *p = step->projection;

	/* Without an index, each look is at the whole table: none that can be spared, and one for the passes that follow, too. */
	if (step->drained ||
		(!p->later && !has_rows_of(step, psprintf("SELECT FROM %s s WHERE s.processing_flag = 'U'", p->staging_sql))))
	{
		step->rc->drained = p->staging;
		return false;
	}
	return has_rows_of(step, p->inner_sql);
}

/* What is there now is what the lap begins with, or has begun with meanwhile. */
static Counted
count_all(DvStep *step, bool meanwhile)
{
	const DvProjection *p = step->projection;

	dv_quiet_begin(&step->rc->lanes->shared->quiet);
	return count_rows_of(step, "dvmig: counting rows", p->count_sql != NULL ? p->count_sql : count_of(p->inner_sql), meanwhile);
}

void
dv_count_rows(DvStep *step, const DvStepPlan *plan)
{
	/* the table's pass before this one has just seen that nothing is unprocessed */
	bool		drained = !step->projection->later && step->rc->drained == plan->staging;
	Counted		none = {0, -1};
	Counted		c = drained ? none : count_all(step, dv_lanes_count(step->rc->lanes) > 1);
	Oid			types[4] = {INT8OID, TEXTOID, TEXTOID, INT8OID};
	Datum		values[4] = {Int64GetDatum(step->rc->run), CStringGetTextDatum(plan->name),
	CStringGetTextDatum(plan->pass), Int64GetDatum(c.rows)};
	DvSwitch	before;

	step->rc->drained = InvalidOid;
	step->empty = c.rows == 0 && step->lap == 0;
	step->unprocessed = c.unprocessed;
	if (c.rows < 0)
		return;
	before = dv_runstate_begin("dvmig: counting rows");
	dv_spi_run("UPDATE dvmig.run_table SET rows_total = $4 WHERE run = $1 AND staging = $2 AND pass = $3",
			   4, types, values, NULL, SPI_OK_UPDATE);
	dv_runstate_commit(before, true);
}

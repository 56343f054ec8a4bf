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

static int64
counted(const char *query, bool read_only)
{
	bool		isnull;

	if (SPI_execute(psprintf("SELECT count(*) FROM (%s) s", query), read_only, 0) != SPI_OK_SELECT)
		elog(ERROR, "SPI did not count");
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/*
 * The other lanes need not wait for a count, which may take a while: they begin
 * when it is settled which rows there are. The look before it locks the tables,
 * see dv_spi_run().
 */
static int64
counted_meanwhile(DvStep *step, const char *query)
{
	int64		number;

	if (counted(psprintf("%s LIMIT 1", query), false) == 0)
		return 0;
	PushActiveSnapshot(GetTransactionSnapshot());
	dv_lanes_begin_lap(step);
	number = counted(query, true);
	PopActiveSnapshot();
	return number;
}

/*
 * Rows of a query over the staging table, with the owner's rights; -1 while a
 * user locks the table, or where its filter throws.
 */
static int64
count_rows_of(DvStep *step, const char *activity, const char *query, bool meanwhile)
{
	MemoryContext context = CurrentMemoryContext;
	volatile int64 number = -1;

	PG_TRY();
	{
		dv_spi_begin(activity);
		dv_spi_wait_briefly();
		number = meanwhile ? counted_meanwhile(step, query) : counted(query, false);
		dv_spi_commit(true);
	}
	PG_CATCH();
	{
		ErrorData  *error = dv_spi_abort(step->context);

		/* the filter may throw for a row, which then fails when it is read */
		if (!dv_spi_is_contention(error) && !dv_source_is_row_fault(error))
			ReThrowError(error);
		FreeErrorData(error);
		number = -1;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return number;
}

static bool
has_rows_of(DvStep *step, const char *query)
{
	return count_rows_of(step, "dvmig: looking for rows", psprintf("%s LIMIT 1", query), false) != 0;
}

bool
dv_count_has_rows(DvStep *step)
{
	const DvProjection *p = step->projection;

	/* Without an index, each look is at the whole table: one for the passes that follow, too. */
	if (!p->later && !has_rows_of(step, psprintf("SELECT FROM %s s WHERE s.processing_flag = 'U'", p->staging_sql)))
	{
		step->rc->drained = p->staging;
		return false;
	}
	return has_rows_of(step, p->inner_sql);
}

void
dv_count_rows(DvStep *step, const DvStepPlan *plan)
{
	/* the table's pass before this one has just seen that nothing is unprocessed */
	bool		drained = !step->projection->later && step->rc->drained == plan->staging;
	bool		several = dv_lanes_count(step->rc->lanes) > 1;
	int64		rows = drained ? 0 : count_rows_of(step, "dvmig: counting rows", step->projection->inner_sql, several);
	Oid			types[4] = {INT8OID, TEXTOID, TEXTOID, INT8OID};
	Datum		values[4] = {Int64GetDatum(step->rc->run), CStringGetTextDatum(plan->name),
	CStringGetTextDatum(plan->pass), Int64GetDatum(rows)};
	DvSwitch	before;

	step->rc->drained = InvalidOid;
	step->empty = rows == 0 && step->lap == 0;
	if (rows < 0)
		return;
	before = dv_runstate_begin("dvmig: counting rows");
	dv_spi_run("UPDATE dvmig.run_table SET rows_total = $4 WHERE run = $1 AND staging = $2 AND pass = $3",
			   4, types, values, NULL, SPI_OK_UPDATE);
	dv_runstate_commit(before, true);
}

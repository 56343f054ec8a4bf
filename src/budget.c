/*
 * budget.c - how many rows may fail before a run is stopped
 *
 * A mistake in a map fails every row alike: the run then is to end before it
 * has filled the error table. Two budgets hold at once, the run's (an option
 * of start) and the staging table's (a setting). What is on its way when one
 * is spent is still answered and recorded; all other rows stay unprocessed.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "budget.h"
#include "lanes.h"
#include "spi.h"

/*
 * A share of failed rows says little of few rows: while a table is at work it
 * counts from so many answers on, which is the least that one bulk request of
 * Microsoft's advice holds. (0 per cent counts from the first.)
 */
#define RATE_ROWS_MIN	100

/*
 * A column map that does not fit Dataverse is refused with every row: after so
 * many, and no row that was taken, the rest need not be tried.
 */
#define MAPPING_ROWS_MAX	100

void
dv_budget_read(DvBudget *budget, int row, int column)
{
	char	   *errors = dv_spi_text(row, column);
	char	   *rate = dv_spi_text(row, column + 1);

	budget->max_errors = errors ? strtoll(errors, NULL, 10) : -1;
	budget->max_rate = rate ? strtod(rate, NULL) : -1;
}

void
dv_budget_load(DvStep *step, Oid staging)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(staging)};

	if (dv_spi_run("SELECT max_errors, max_error_rate FROM dvmig.migration_table WHERE staging::oid = $1",
				   1, types, values, NULL, SPI_OK_SELECT) == 1)
		dv_budget_read(&step->budget, 0, 1);
}

/* Failures that wait to be recorded. */
static int64
unrecorded(const DvStep *step)
{
	int64		n = 0;
	int			i;

	for (i = 0; i < step->noutcomes; i++)
		n += !step->outcomes[i].success && !step->outcomes[i].flag_only;
	return n;
}

static bool
is_set(const DvBudget *budget)
{
	return budget->max_errors >= 0 || budget->max_rate >= 0;
}

static bool
exceeds(const DvBudget *budget, int64 failed, int64 succeeded, bool at_end)
{
	if (failed == 0)
		return false;
	if (budget->max_errors >= 0 && failed > budget->max_errors)
		return true;
	return budget->max_rate >= 0 && failed * 100.0 > budget->max_rate * (failed + succeeded) &&
		(at_end || budget->max_rate == 0 || failed + succeeded >= RATE_ROWS_MIN);
}

bool
dv_budget_spent(DvStep *step)
{
	const DvRunContext *rc = step->rc;
	const DvCounters *c = &step->counters;
	int64		more;

	if (rc->budget.max_errors < 0 && rc->budget.max_rate != 0 && step->budget.max_errors < 0 && step->budget.max_rate != 0)
		return false;			/* a share is judged by what is recorded */
	more = unrecorded(step);
	return exceeds(&step->budget, c->failed + more, c->succeeded, false) ||
		exceeds(&rc->budget, rc->total.failed + c->failed + more, rc->total.succeeded + c->succeeded, false);
}

static void
end_run(DvStep *step, const DvBudget *budget, const char *of, int64 failed, int64 succeeded)
{
	char	   *limit = budget->max_errors >= 0 && failed > budget->max_errors
		? psprintf("max_errors is " INT64_FORMAT, budget->max_errors)
		: psprintf("max_error_rate is %g per cent", budget->max_rate);

	dv_engine_fail_run(step->rc, psprintf("too many errors: " INT64_FORMAT " of " INT64_FORMAT " rows of %s failed, and %s; "
									  "the rows without an answer are unprocessed: see dvmig.top_errors, correct, retry, and start again",
									  failed, failed + succeeded, of, limit));
}

void
dv_budget_check(DvStep *step, bool at_end)
{
	DvRunContext *rc = step->rc;
	DvCounters	c;

	if (rc->failed)
		return;
	if (step->mapping_failures >= MAPPING_ROWS_MAX && step->counters.succeeded == 0)
		dv_engine_fail_run(step->rc, psprintf("the column map of %s does not fit Dataverse: the first %d rows were all refused; "
										  "see dvmig.top_errors, then dvmig.refresh_metadata() and dvmig.check()",
										  step->projection->table_name, step->mapping_failures));
	if (rc->failed || (!is_set(&rc->budget) && !is_set(&step->budget)))
		return;
	/* of all lanes; what ended before, only the first one knows */
	dv_lanes_publish(step);
	dv_lanes_step_counters(rc->lanes, &c);
	if (exceeds(&step->budget, c.failed, c.succeeded, at_end))
		end_run(step, &step->budget, step->projection->table_name, c.failed, c.succeeded);
	else if (exceeds(&rc->budget, rc->total.failed + c.failed, rc->total.succeeded + c.succeeded, at_end))
		end_run(step, &rc->budget, "the run", rc->total.failed + c.failed, rc->total.succeeded + c.succeeded);
}

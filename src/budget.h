/*
 * budget.h - how many rows may fail before a run is stopped
 */
#ifndef DV_BUDGET_H
#define DV_BUDGET_H

#include "postgres.h"

/* Of a run, or of one staging table in it. */
typedef struct DvBudget
{
	int64		max_errors;		/* failed rows it bears; -1 = no limit */
	double		max_rate;		/* per cent of the answered rows; -1 = no limit */
} DvBudget;

struct DvStep;

/* Read a budget from two text columns of the result row at hand (null = no limit). */
extern void dv_budget_read(DvBudget *budget, int row, int column);

/* Read the budget of a staging table, in the transaction at hand. */
extern void dv_budget_load(struct DvStep *step, Oid staging);

/* Are the failures so far, recorded or not, more than a budget bears? */
extern bool dv_budget_spent(struct DvStep *step);

/*
 * End the run where a budget is spent, with a message that says so. "at_end"
 * of a table a share of failed rows counts however few rows there were.
 */
extern void dv_budget_check(struct DvStep *step, bool at_end);

#endif							/* DV_BUDGET_H */

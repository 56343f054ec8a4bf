/*
 * flags.h - processing flags on exactly the row version a verdict belongs to
 */
#ifndef DV_FLAGS_H
#define DV_FLAGS_H

#include "engine.h"

typedef enum DvFlagMode
{
	DV_FLAGS_TOGETHER,			/* one UPDATE, waiting for locks but briefly */
	DV_FLAGS_SKIP_LOCKED,		/* leave locked rows for later */
	DV_FLAGS_NONE				/* outcomes only; flags follow one by one */
} DvFlagMode;

/* From here on the recording at work, in the caller's transaction, goes by SQL. */
extern void dv_flags_by_sql(DvStep *step);

/* Set the flags of these outcomes, in the caller's transaction. */
extern void dv_flags_set(DvStep *step, const DvOutcome *outcomes, int n, DvFlagMode mode);

/*
 * The caller's transaction is committed: remember what could not be set. Returns
 * how many rows are known to have moved to another page.
 */
extern int	dv_flags_committed(DvStep *step);

/* Each flag in a transaction of its own: rows that refuse it are counted. */
extern void dv_flags_set_singly(DvStep *step, const DvOutcome *outcomes, int n);

/* Try again to set flags that a user's lock kept from being set. */
extern void dv_flags_retry(DvStep *step);

/* Rows of the step, which is over, whose outcome is recorded and whose flag is not. */
extern long dv_flags_left(DvStep *step);

#endif							/* DV_FLAGS_H */

/*
 * batch.h - one read of a step: rows of the projection to a batch
 */
#ifndef DV_BATCH_H
#define DV_BATCH_H

#include "engine.h"

/* JSON of one read at most: bounds memory whatever the rows hold. */
#define DV_READ_BYTES_MAX	(16 * 1024 * 1024)

/*
 * Read at most "limit" rows after step->walk.last and encode them, in the
 * caller's transaction. Returns the rows to be sent, *n of them, or NULL where
 * none of the rows keeps its batch; *got tells how many rows were looked at,
 * *whole whether all that the query gave were.
 */
extern DvRow **dv_batch_read(DvStep *step, int limit, int *n, int *got, bool *whole);

/*
 * A read that broke off is done again: what it left must not count twice.
 * "outcomes" is how many outcomes the step had before it.
 */
extern void dv_batch_forget(DvStep *step, int outcomes);

/* The row version that values[] of the projection are of. */
extern void dv_batch_version(DvRow *row, const Datum *values);

#endif							/* DV_BATCH_H */

/*
 * direct.h - flags and success rows past the executor
 *
 * A verdict's UPDATE and INSERT are the same for every row: most of what the
 * executor does for them is known beforehand. Where nothing of a user's would
 * be passed over (no trigger, rule, policy, generated column, missing right),
 * rows are written through the table's access method and its indexes alone.
 */
#ifndef DV_DIRECT_H
#define DV_DIRECT_H

#include "engine.h"

/* A table opened for it, in the caller's transaction. */
typedef struct DvDirect DvDirect;

/*
 * Open the table (or partition) of a staging table whose flags are to be set;
 * NULL where that is for SQL. "staging" is the table as it is registered.
 */
extern DvDirect *dv_direct_open_flags(Oid staging, Oid table);

/*
 * Set the flag of one row version, and its id unless that is NULL, waiting for
 * a lock as an UPDATE would. False where the version is not there any more.
 */
extern bool dv_direct_flag(DvDirect *d, const DvVersion *version, char flag, const pg_uuid_t *id);

/* Flags that moved their row to another page, so far. */
extern int	dv_direct_moved(const DvDirect *d);

/* Open a success table for rows that have no outcome yet; NULL where that is for SQL. */
extern DvDirect *dv_direct_open_success(const DvProjection *p);

/* Insert success rows, of keys that have none: an existing one is an error of class 23. */
extern void dv_direct_insert(DvDirect *d, const DvStep *step, DvOutcome **rows, int n);

/*
 * Write a success row anew where it was when its staging row was read. False
 * where it is not there, or that is for SQL.
 */
extern bool dv_direct_update(DvDirect *d, const DvStep *step, const DvOutcome *o);

extern void dv_direct_close(DvDirect *d);

#endif							/* DV_DIRECT_H */

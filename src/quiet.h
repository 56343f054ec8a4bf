/*
 * quiet.h - has anybody but the run written since a lap began?
 *
 * Rows can be flagged while a lap goes on, so that a look at the table follows
 * it; without an index on flags that is a scan. Where no transaction of the
 * whole server has written anything but those in which the run recorded what it
 * read, and all that it read has its flag, the look would find nothing.
 */
#ifndef DV_QUIET_H
#define DV_QUIET_H

#include "postgres.h"

#include "access/transam.h"
#include "port/atomics.h"

/* Shared by the lanes of a run. */
typedef struct DvQuiet
{
	pg_atomic_uint64 own;		/* transactions of the run, so far, that ran nobody's code */
	uint64		own_before;		/* of these when the lap began */
	FullTransactionId began;	/* the next one then; invalid where others were writing */
} DvQuiet;

/* Make the segment's; every lane takes it with the second. */
extern void dv_quiet_init(DvQuiet *quiet);
extern void dv_quiet_share(DvQuiet *quiet);

/* Before its commit: the transaction at hand did what the run does, and called nothing of a user's. */
extern void dv_quiet_own(void);

/* By the leader, before any lane reads of a lap. */
extern void dv_quiet_begin(DvQuiet *quiet);

/* By the leader, when all lanes have recorded what they read in the lap. */
extern bool dv_quiet_since(DvQuiet *quiet);

#endif							/* DV_QUIET_H */

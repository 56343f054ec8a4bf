/*
 * refusals.h - how often a run was refused for who it is, in all of its lanes
 */
#ifndef DV_REFUSALS_H
#define DV_REFUSALS_H

#include "port/atomics.h"

/* A login or a request was refused for who we are. */
extern void dv_refusals_add(void);

/* From here on they are counted in shared memory; what this process has counted goes along. */
extern void dv_refusals_share(pg_atomic_uint64 *counter);

extern int64 dv_refusals(void);

#endif							/* DV_REFUSALS_H */

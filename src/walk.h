/*
 * walk.h - where a walk along the source key is
 *
 * A table is read in the order of its key, each read behind the last row of the
 * one before. Where a read breaks off nothing is behind it: its rows come again.
 */
#ifndef DV_WALK_H
#define DV_WALK_H

#include "projection.h"

typedef struct DvWalk
{
	Datum	   *last;			/* keys of the last row that was read; NULL = from the first */
	Datum	   *next;			/* of the last row of the read at work */
	MemoryContext of_last;
	MemoryContext of_next;
} DvWalk;

/* At the beginning, with two contexts below "context". */
extern void dv_walk_init(DvWalk *walk, MemoryContext context);

/* At the beginning again. */
extern void dv_walk_rewind(DvWalk *walk);

/* Behind these keys from here on; they are copied. */
extern void dv_walk_go(DvWalk *walk, const DvProjection *p, const Datum *keys);

/* The read at work has come to a row of these keys; once it is done, it is behind us. */
extern void dv_walk_read(DvWalk *walk, const DvProjection *p, const Datum *keys);
extern void dv_walk_pass(DvWalk *walk);

/* Copy of a row's keys, in "context". */
extern Datum *dv_walk_copy(const DvProjection *p, const Datum *keys, MemoryContext context);

#endif							/* DV_WALK_H */

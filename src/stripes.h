/*
 * stripes.h - in which lots outcomes are recorded
 */
#ifndef DV_STRIPES_H
#define DV_STRIPES_H

#include "engine.h"

/* Lots at most, of one call. */
#define DV_LOTS_MAX	64

/* Outcomes that are recorded in one transaction each: where each lot ends. */
typedef struct DvLots
{
	int			n;				/* at least one */
	int			first;			/* those that make room for the others */
	int			ends[DV_LOTS_MAX];
	int			moved;			/* flags of the others that moved their row to another page, once recorded */
} DvLots;

/* Order the step's outcomes by lot. */
extern void dv_stripes_order(DvStep *step, DvLots *lots);

/* Learn from how many rows moved, all lots being recorded. */
extern void dv_stripes_learn(DvStep *step, const DvLots *lots);

#endif							/* DV_STRIPES_H */

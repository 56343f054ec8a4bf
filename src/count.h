/*
 * count.h - how many rows a step has before it, and whether it has any
 */
#ifndef DV_COUNT_H
#define DV_COUNT_H

#include "runstate.h"

/* Count the rows of an open step. Where there are other lanes, its first lap begins meanwhile. */
extern void dv_count_rows(DvStep *step, const DvStepPlan *plan);

/*
 * Has the step a row before it? Asked before a lap that may find none: a look
 * in any order is cheaper than a walk along the key. True where it cannot be told.
 */
extern bool dv_count_has_rows(DvStep *step);

#endif							/* DV_COUNT_H */

/*
 * doubt.h - what earlier runs of a table left in doubt
 */
#ifndef DV_DOUBT_H
#define DV_DOUBT_H

#include "runstate.h"

/*
 * In the transaction that begins a pass: fill in what it has to look for, and
 * mark the table as being worked on.
 */
extern void dv_doubt_begin(DvStep *step, const DvStepPlan *plan);

/* In the transaction that ends it, before the pass gets its state: nothing of it is in doubt. */
extern void dv_doubt_end(DvStep *step, const DvStepPlan *plan);

#endif							/* DV_DOUBT_H */

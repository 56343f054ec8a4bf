/*
 * live.h - a run's live figures: from shared memory to dvmig's tables
 */
#ifndef DV_LIVE_H
#define DV_LIVE_H

#include "runstate.h"

/* Condition on run_history: asked to stop by dvmig.stop(), or from the beginning for a certain time. */
#define DV_STOP_IS_DUE	"(stop_requested OR coalesce(until_at <= clock_timestamp(), false))"

/* Figures of the run, of its lanes and of the step at work, in the caller's transaction. */
extern void dv_live_store(DvRunContext *rc);

/* The step at work has ended, and its figures are stored: from now on they are among the run's. */
extern void dv_live_end_step(DvRunContext *rc);

/* What was learnt of the step's table: kept for the next run, and taken up by it. */
extern void dv_live_store_pace(DvStep *step);
extern void dv_live_take_pace(DvStep *step);

/* Samples and alerts of the run, in the caller's transaction; an alert goes to the server log from here. */
extern void dv_live_watch(const DvRunContext *rc, bool ended);

/* Take up what dvmig.tune(), pause() and stop() ask of the run; true when it is asked to stop. */
extern bool dv_live_hear(DvRunContext *rc);

/* Mirror live figures of all lanes; true when the run is asked to stop. */
extern bool dv_live_mirror(DvRunContext *rc);

#endif							/* DV_LIVE_H */

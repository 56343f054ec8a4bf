/*
 * lanes.h - lanes: several workers at one run
 *
 * Each lane is a worker with its own connections and application user. The
 * first leads. A lap is walked by all lanes at once: each takes the next range
 * of keys from one shared cursor (range.c), and the next lap begins when all
 * that this one took has its verdict recorded, in every lane.
 *
 * A lane that dies alone (terminated by an administrator) takes nothing with
 * it: its rows are still unprocessed. What it had in flight is looked up before
 * it is sent again, after dvmig.settle_time, in one more lap.
 */
#ifndef DV_LANES_H
#define DV_LANES_H

#include "share.h"

/* ------------------------------------------------------------ by the leader */

/* Make the shared memory of a run, with room for so many lanes. */
extern DvLanes *dv_lanes_create(int64 run, int room);

/* Register workers until there are "n" lanes; returns how many there are. */
extern int	dv_lanes_launch(DvLanes *lanes, int n);

/* How many lanes are alive, or being started. */
extern int	dv_lanes_count(DvLanes *lanes);

/* Let the last ones go until "n" are left. */
extern void dv_lanes_dismiss(DvLanes *lanes, int n);

extern void dv_lanes_open_step(DvStep *step, int number);
extern void dv_lanes_begin_lap(DvStep *step);

/*
 * Wait until every lane has done its part of the lap. True where another lap is
 * needed. Throws what another lane threw.
 */
extern bool dv_lanes_end_lap(DvStep *step);

/* No more laps: wait until every lane has left the step. */
extern void dv_lanes_close_step(DvStep *step);

/* Tell the helpers to end, and wait for that; "at_once": not for answers that they wait for. */
extern void dv_lanes_finish(DvLanes *lanes, bool at_once);

/* ------------------------------------------------------------ by a helper */

/* NULL where the run is over already. */
extern DvLanes *dv_lanes_attach(dsm_handle handle, int lane);

/* Wait for a step that wants help; its run_table.step, 0 when there is nothing more to do. */
extern int	dv_lanes_next_step(DvLanes *lanes);

/* Wait for the next lap of the step; false where the step is over for us. */
extern bool dv_lanes_join_lap(DvStep *step);
extern void dv_lanes_leave_lap(DvStep *step);

/* We met an error that ends the step. */
extern void dv_lanes_report_error(DvLanes *lanes, const ErrorData *error);

/* Out of the step. */
extern void dv_lanes_leave_step(DvLanes *lanes);

/* ------------------------------------------------------------ by every lane */

/* Put a lane's live figures where the others see them, and take what they ask of us. */
extern void dv_lanes_publish(DvStep *step);

/* What this lane has used so far, now and not when it is its time. */
extern void dv_lanes_measure(DvLanes *lanes);

extern void dv_lanes_add(DvCounters *to, const DvCounters *from);

/* Figures of the step in all lanes. */
extern void dv_lanes_step_counters(DvLanes *lanes, DvCounters *sum);
extern int	dv_lanes_in_flight(DvLanes *lanes);

/* Is this systemuserid one of our application users? */
extern bool dv_lanes_is_user(DvLanes *lanes, const char *id);

/* Wake all lanes. */
extern void dv_lanes_wake(DvLanes *lanes);

/* The lane ends in good order. */
extern void dv_lanes_goodbye(DvLanes *lanes);

#endif							/* DV_LANES_H */

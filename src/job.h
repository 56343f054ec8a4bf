/*
 * job.h - work on records that are loaded: verifying, undoing, sending again
 *
 * A job is a run of another kind: a worker with the same session, pace, stop
 * and progress. It differs in how it begins: a function may wait for it inside
 * its caller's statement, so that its worker cannot wait for that transaction.
 * It gets what to do in dynamic shared memory and makes its row of run_history
 * itself.
 */
#ifndef DV_JOB_H
#define DV_JOB_H

#include "storage/dsm.h"

#include "runstate.h"

/*
 * In the worker: take the job from the segment and make its rows in dvmig's
 * tables. False where that was refused, which the caller has been told, or
 * where the caller is gone.
 */
extern bool dv_job_begin(int64 run, dsm_handle segment);

/* In the worker: carry it out, once tables are locked and the session is open. */
extern void dv_job_run(DvRunContext *rc, const DvRunPlan *plan);

/*
 * What was used since the last call (requests, bytes, processor time) is added
 * to a staging table of the job, and memory is noted, where it has grown.
 */
extern void dv_job_account(DvRunContext *rc, const DvStepPlan *plan);

#endif							/* DV_JOB_H */

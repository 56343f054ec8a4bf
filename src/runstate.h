/*
 * runstate.h - a run's rows in dvmig's tables, and what they tell the worker
 */
#ifndef DV_RUNSTATE_H
#define DV_RUNSTATE_H

#include "engine.h"

typedef struct DvRunPlan
{
	char	   *server;
	char	   *migration;
	char	   *kind;			/* run, or a job: verify, undo, resend, rebuild */
	int			ntables;
	Oid		   *tables;
	char	  **names;
} DvRunPlan;

typedef struct DvStepPlan
{
	Oid			staging;
	char	   *name;			/* as in run_table.staging */
	char	   *pass;			/* write, deferred, delete */
	Datum		deferred;		/* text[] */
} DvStepPlan;

/* Load the run and mark it running; false where start() was rolled back. */
extern bool dv_runstate_load(DvRunContext *rc, DvRunPlan *plan);

/* Compare the organisation with the pinned one, pin it at first use. */
extern bool dv_runstate_pin(DvRunContext *rc, const DvRunPlan *plan, const char *organisation_id);

/* Read the records that lookups by match_on will need, set-wise. */
extern void dv_runstate_read_references(DvRunContext *rc, const DvRunPlan *plan);

/* The next step that is pending; false when there is none. */
extern bool dv_runstate_next_step(DvRunContext *rc, DvStepPlan *plan);

/* Load its projection, mark it running, and its table as not cleanly ended. */
extern void dv_runstate_begin_step(DvStep *step, const DvStepPlan *plan);

/* Store its figures and apply the gate; "error" where the table failed. */
extern void dv_runstate_end_step(DvStep *step, const DvStepPlan *plan, const ErrorData *error);

/*
 * After a statement failed by a class 42 error: has the staging table lost or
 * got columns since the step began? Then the projection follows, so that a
 * column which no map uses can be dropped during a run.
 */
extern bool dv_runstate_follow_columns(DvStep *step);

/* Mirror live figures; true when the run is asked to stop. */
extern bool dv_runstate_mirror(DvStep *step);

/* The same for a run without a step at work. */
extern bool dv_runstate_mirror_run(DvRunContext *rc);

/* Is the run asked to stop? For when there is no step to mirror. */
extern bool dv_runstate_stop_requested(DvRunContext *rc);

/* Final state, figures and message of the run. */
extern void dv_runstate_finish(DvRunContext *rc);

#endif							/* DV_RUNSTATE_H */

/*
 * runstate.h - a run's rows in dvmig's tables, and what they tell the worker
 */
#ifndef DV_RUNSTATE_H
#define DV_RUNSTATE_H

#include "call.h"
#include "engine.h"

typedef struct DvRunPlan
{
	char	   *server;
	char	   *migration;
	char	   *kind;			/* run, or a job: verify, undo, resend, rebuild */
	int			ntables;
	Oid		   *tables;
	char	  **names;
	int			lanes;			/* asked for; 0 = as many as fit */
} DvRunPlan;

typedef struct DvStepPlan
{
	int			number;			/* run_table.step */
	Oid			staging;
	char	   *name;			/* as in run_table.staging */
	char	   *pass;			/* write, deferred, delete */
	Datum		deferred;		/* text[] */
} DvStepPlan;

/* A transaction as the extension's owner, who alone may write dvmig's tables. */
extern DvSwitch dv_runstate_begin(const char *activity);
extern void dv_runstate_commit(DvSwitch before, bool asynchronous);

/* Load the run and mark it running; false where start() was rolled back. */
extern bool dv_runstate_load(DvRunContext *rc, DvRunPlan *plan);

/* The same for a lane that helps; false where the run is gone. */
extern bool dv_runstate_load_lane(DvRunContext *rc, DvRunPlan *plan);

/* Something about the run's lanes that its owner should know: an event, and a line in the server log. */
extern void dv_runstate_tell(DvRunContext *rc, const char *kind, const char *text);

/* Compare the organisation with the pinned one, pin it at first use. */
extern bool dv_runstate_pin(DvRunContext *rc, const DvRunPlan *plan, const char *organisation_id);

/* Read the records that lookups by match_on will need, set-wise. */
extern void dv_runstate_read_references(DvRunContext *rc, const DvRunPlan *plan);

/* The next step that is pending; false when there is none. */
extern bool dv_runstate_next_step(DvRunContext *rc, DvStepPlan *plan);

/* Load its projection, mark it running, and its table as not cleanly ended. */
extern void dv_runstate_begin_step(DvStep *step, const DvStepPlan *plan);

/* The step of that number, for a lane that helps: its projection; false where it is gone. */
extern bool dv_runstate_join_step(DvStep *step, int number);

/* Store its figures and apply the gate; "error" where the table failed. */
extern void dv_runstate_end_step(DvStep *step, const DvStepPlan *plan, const ErrorData *error);

/*
 * After a statement failed by a class 42 error: has the staging table lost or
 * got columns since the step began? Then the projection follows, so that a
 * column which no map uses can be dropped during a run.
 */
extern bool dv_runstate_follow_columns(DvStep *step);

/* Final state, figures and message of the run. */
extern void dv_runstate_finish(DvRunContext *rc);

#endif							/* DV_RUNSTATE_H */

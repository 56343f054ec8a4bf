/*
 * lane.c - the lanes of a run: those it begins with, and what a helper does
 */
#include "postgres.h"

#include <unistd.h>

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "gate.h"
#include "lane.h"
#include "options.h"
#include "spi.h"

/* A lane spends most of its time waiting: one core serves two. */
#define LANES_PER_CORE	2

/* ---------------------------------------------------------------- leading */

void
dv_lane_meet_user(DvRunContext *rc, int number, const DvWhoAmI *who)
{
	DvShared   *shared = rc->lanes->shared;
	DvUser	   *user = &shared->users[number];

	SpinLockAcquire(&shared->mutex);
	strlcpy(user->id, who->user_id, sizeof(user->id));
	dv_pace_init(&user->pace, who->dop_hint, GetCurrentTimestamp());
	user->usable = true;
	shared->nusers = Max(shared->nusers, number + 1);
	SpinLockRelease(&shared->mutex);
}

static int
count_users(DvRunContext *rc)
{
	int			n;

	dv_spi_begin("dvmig: counting application users");
	n = dv_options_users(dv_session_server(rc->session), rc->owner);
	dv_spi_commit(true);
	return Min(n, DV_USERS_MAX);
}

/* One that is not let in has no lane, and the run goes on without it. */
static bool
meet(DvRunContext *rc, const DvRunPlan *plan, int number)
{
	DvSession  *session = dv_session_open(plan->server, rc->owner, number + 1);
	DvWhoAmI	who;
	DvProblem	problem;
	bool		ok;

	dv_gate_guard(rc, session, number);
	/* waited for: of one that is not known, records would be taken for another user's */
	ok = dv_worker_ask_who(session, &who, &problem);
	dv_session_close(session);
	if (ok)
		dv_lane_meet_user(rc, number, &who);
	else
		dv_runstate_tell(rc, "lane refused", psprintf("application user %d (client_id%d) cannot be used: %s",
													  number + 1, number + 1, problem.message));
	return ok;
}

static int
default_lanes(int users)
{
	long		cores = sysconf(_SC_NPROCESSORS_ONLN);

	return (int) Max(1, Min(users, Max(cores, 1) * LANES_PER_CORE));
}

/* As many lanes as that, or as there are workers for; told where they are fewer. */
static void
launch(DvRunContext *rc, int wanted)
{
	int			got = dv_lanes_launch(rc->lanes, rc->lanes->single ? 1 : wanted);

	rc->lanes->asked = wanted;
	if (got < wanted && !rc->lanes->single)
		dv_runstate_tell(rc, "lane missing",
						 psprintf("%d of %d lanes: no background worker could be registered for the others; increase max_worker_processes", got, wanted));
}

void
dv_lane_begin(DvRunContext *rc, const DvRunPlan *plan, const DvWorkerArgs *args)
{
	int			n = count_users(rc);
	int			usable = 1;
	int			i;

	/* all of them, also those without a lane: what they wrote before is ours */
	for (i = 1; i < n; i++)
		usable += meet(rc, plan, i);
	/* a limited run, and what is no run, has one */
	rc->lanes->args = *args;
	rc->lanes->single = rc->max_rows > 0 || strcmp(plan->kind, "run") != 0;
	launch(rc, plan->lanes > 0 ? plan->lanes : default_lanes(usable));
}

void
dv_lane_follow(DvRunContext *rc)
{
	int			wanted = rc->lanes->shared->tune.lanes;

	if (wanted == 0 || wanted == rc->lanes->asked || rc->stopping)
		return;
	if (wanted < dv_lanes_count(rc->lanes))
	{
		rc->lanes->asked = wanted;
		dv_lanes_dismiss(rc->lanes, wanted);
	}
	else
		launch(rc, wanted);
}

/* ---------------------------------------------------------------- helping */

static void
help(DvRunContext *rc, int number)
{
	MemoryContext context = AllocSetContextCreate(rc->context, "dvmig step", ALLOCSET_DEFAULT_SIZES);
	DvStep	   *step = MemoryContextAlloc(context, sizeof(DvStep));

	dv_engine_init_step(step, rc, context);
	PG_TRY();
	{
		if (dv_runstate_join_step(step, number))
			dv_engine_help_step(step);
	}
	PG_CATCH();
	{
		ErrorData  *error = dv_spi_abort(rc->context);

		dv_session_abandon(rc->session);
		dv_gate_leave_all(step);
		step->unsettled = true;
		dv_lanes_report_error(rc->lanes, error);
		dv_lanes_publish(step);
	}
	PG_END_TRY();
	dv_lanes_leave_step(rc->lanes);
	MemoryContextSwitchTo(rc->context);
	MemoryContextDelete(context);
}

static bool
share_tables(const DvRunPlan *plan)
{
	int			i;

	for (i = 0; i < plan->ntables; i++)
	{
		LOCKTAG		tag;

		dv_worker_table_tag(&tag, plan->tables[i]);
		if (!dv_worker_share(&tag))
			return false;
	}
	return true;
}

void
dv_lane_help(DvRunContext *rc, const DvWorkerArgs *args)
{
	DvRunPlan	plan;
	int			number;

	rc->lanes = dv_lanes_attach(args->segment, args->lane);
	if (rc->lanes == NULL || !dv_runstate_load_lane(rc, &plan) || !share_tables(&plan))
		return;
	rc->session = dv_session_open(plan.server, rc->owner, dv_lane_of(rc->lanes)->user + 1);
	dv_gate_guard(rc, rc->session, dv_lane_of(rc->lanes)->user);
	while ((number = dv_lanes_next_step(rc->lanes)) != 0)
		help(rc, number);
}

void
dv_lane_give_up(DvRunContext *rc, const ErrorData *error)
{
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("a lane of dvmig run " INT64_FORMAT " ended: %s", rc->run, dv_spi_told(error))));
}

/*
 * lanes.c - lanes: several workers at one run
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "gate.h"
#include "lanes.h"
#include "refusals.h"
#include "servertext.h"
#include "settings.h"
#include "spi.h"

/* How often a lane asks the operating system what it has used. */
#define USAGE_MS		500

static TimestampTz next_usage;

/* The lane is gone: what it held goes back. With the mutex. */
static void
lane_gone(DvShared *shared, int me)
{
	DvLane	   *lane = &shared->lanes[me];
	DvUser	   *user = &shared->users[lane->user];

	if (lane->state == DV_LANE_WORKING)
		lane->died_at = GetCurrentTimestamp();
	lane->state = lane->state == DV_LANE_IDLE ? DV_LANE_ENDED : DV_LANE_DIED;
	lane->pid = 0;
	lane->latch = NULL;
	lane->hungry = false;
	dv_pace_ended(&user->pace, lane->in_flight, GetCurrentTimestamp());
	shared->pace.in_flight -= lane->in_flight;
	user->lanes--;
	lane->in_flight = 0;
	if (shared->holder == me)
		shared->holder = -1;
	if (me == 0)
		shared->leader_gone = true;
}

/* Called when the process lets go of the segment, however it ends. */
static void
on_detach(dsm_segment *segment, Datum arg)
{
	DvShared   *shared = dsm_segment_address(segment);
	int			me = DatumGetInt32(arg);

	SpinLockAcquire(&shared->mutex);
	if (dv_lane_is_alive(&shared->lanes[me]))
		lane_gone(shared, me);
	SpinLockRelease(&shared->mutex);
}

static void
enter_lane(DvLanes *lanes)
{
	DvLane	   *lane = dv_lane_of(lanes);

	SpinLockAcquire(&lanes->shared->mutex);
	lane->state = DV_LANE_IDLE;
	lane->pid = MyProcPid;
	lane->latch = MyLatch;
	dv_user_of(lanes)->lanes++;
	SpinLockRelease(&lanes->shared->mutex);
	on_dsm_detach(lanes->segment, on_detach, Int32GetDatum(lanes->me));
}

/* ---------------------------------------------------------------- leading */

static void *
sets_place(DvShared *shared)
{
	return (char *) shared + MAXALIGN(sizeof(DvShared));
}

DvLanes *
dv_lanes_create(int64 run, int room)
{
	DvLanes    *lanes = palloc0(sizeof(DvLanes));
	/* shown as "extension": the number has no name in other processes anyway */
	int			tranche = LWLockNewTrancheId();
	DvShared   *shared;

	lanes->segment = dsm_create(MAXALIGN(sizeof(DvShared)) + dv_sets_size(room), 0);
	dsm_pin_mapping(lanes->segment);
	shared = lanes->shared = dsm_segment_address(lanes->segment);
	memset(shared, 0, sizeof(DvShared));
	SpinLockInit(&shared->mutex);
	shared->run = run;
	shared->started = GetCurrentTimestamp();
	pg_atomic_init_u64(&shared->refusals, 0);
	dv_refusals_share(&shared->refusals);
	dv_quiet_init(&shared->quiet);
	dv_quiet_share(&shared->quiet);
	shared->holder = -1;
	shared->nusers = 1;
	shared->users[0].usable = true;
	lanes->area = dsa_create(tranche);
	dsa_pin_mapping(lanes->area);
	shared->area = dsa_get_handle(lanes->area);
	lanes->sets = dv_sets_create(sets_place(shared), room, lanes->area, tranche, &shared->sets);
	enter_lane(lanes);
	return lanes;
}

/* The i-th application user of those that were let in, beginning anew after the last. */
static int
usable_user(const DvShared *shared, int i)
{
	int			n = 0;
	int			u;

	for (u = 0; u < shared->nusers; u++)
		n += shared->users[u].usable;
	i %= Max(n, 1);
	for (u = 0; u < shared->nusers; u++)
		if (shared->users[u].usable && i-- == 0)
			return u;
	return 0;
}

/* Another lane is to have its place: what it did in this step is kept. With the mutex. */
static void
keep_of_gone(DvShared *shared, const DvLane *lane)
{
	DvGoneLanes *gone = &shared->gone;

	dv_lanes_add(&gone->counters, &lane->counters);
	gone->unsettled |= lane->unsettled;
	if (lane->lap > gone->lap)
	{
		gone->lap = lane->lap;
		gone->lap_taken = gone->lap_parked = 0;
	}
	if (lane->lap < gone->lap)
		return;
	gone->lap_taken += lane->lap_taken;
	gone->lap_parked += lane->lap_parked;
}

static bool
launch_lane(DvLanes *lanes, int i)
{
	DvLane	   *lane = &lanes->shared->lanes[i];
	DvWorkerArgs mine = lanes->args;
	DvLane		fresh = {.state = DV_LANE_STARTING,.user = usable_user(lanes->shared, i)};

	mine.starter = InvalidTransactionId;
	mine.segment = dsm_segment_handle(lanes->segment);
	mine.lane = i;
	SpinLockAcquire(&lanes->shared->mutex);
	keep_of_gone(lanes->shared, lane);
	fresh.total = lane->total;
	dv_lanes_add(&fresh.total, &lane->counters);
	*lane = fresh;
	SpinLockRelease(&lanes->shared->mutex);
	if (lanes->handles[i] != NULL)
		pfree(lanes->handles[i]);
	lanes->handles[i] = NULL;
	if (dv_worker_register(&mine, MyProcPid, &lanes->handles[i]))
		return true;
	lanes->handles[i] = NULL;
	lane->state = DV_LANE_ENDED;
	return false;
}

/* One whose worker could not begin has not entered, and never will. */
static void
notice_unborn(DvLanes *lanes)
{
	pid_t		pid;
	int			i;

	for (i = 1; i < DV_LANES_MAX; i++)
		if (lanes->shared->lanes[i].state == DV_LANE_STARTING && lanes->handles[i] != NULL &&
			GetBackgroundWorkerPid(lanes->handles[i], &pid) == BGWH_STOPPED)
			lanes->shared->lanes[i].state = DV_LANE_ENDED;
}

int
dv_lanes_count(DvLanes *lanes)
{
	int			n = 0;
	int			i;

	notice_unborn(lanes);
	for (i = 0; i < DV_LANES_MAX; i++)
	{
		const DvLane *lane = &lanes->shared->lanes[i];

		n += (lane->state == DV_LANE_STARTING || dv_lane_is_alive(lane)) && !lane->leave;
	}
	return n;
}

int
dv_lanes_launch(DvLanes *lanes, int n)
{
	int			count = dv_lanes_count(lanes);
	int			i;

	for (i = 1; i < DV_LANES_MAX && count < n; i++)
	{
		const DvLane *lane = &lanes->shared->lanes[i];
		bool		vacant = lane->state == DV_LANE_NONE || lane->state == DV_LANE_ENDED ||
			(lane->state == DV_LANE_DIED && lane->died_at == 0);

		if (!vacant)
			continue;
		if (!launch_lane(lanes, i))
			break;
		count++;
	}
	return count;
}

void
dv_lanes_dismiss(DvLanes *lanes, int n)
{
	int			count = dv_lanes_count(lanes);
	int			i;

	for (i = DV_LANES_MAX - 1; i > 0 && count > n; i--)
	{
		DvLane	   *lane = &lanes->shared->lanes[i];

		if ((lane->state != DV_LANE_STARTING && !dv_lane_is_alive(lane)) || lane->leave)
			continue;
		lane->leave = true;
		count--;
	}
	dv_lanes_wake(lanes);
}

void
dv_lanes_finish(DvLanes *lanes, bool at_once)
{
	TimestampTz by = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), at_once ? 0 : dv_stop_timeout_ms + DV_LANES_GRACE_MS);
	bool		waiting = true;
	pid_t		pid;
	int			i;

	lanes->shared->ended = true;
	while (waiting)
	{
		bool		late = GetCurrentTimestamp() >= by;

		waiting = false;
		for (i = 1; i < DV_LANES_MAX; i++)
			if (lanes->handles[i] != NULL && GetBackgroundWorkerPid(lanes->handles[i], &pid) != BGWH_STOPPED)
			{
				waiting = true;
				if (late)
					TerminateBackgroundWorker(lanes->handles[i]);
			}
		if (!waiting)
			break;
		dv_lanes_wake(lanes);
		dv_worker_wait(DV_LANES_WAIT_MS);
	}
}

/* ---------------------------------------------------------------- helping */

DvLanes *
dv_lanes_attach(dsm_handle handle, int lane)
{
	DvLanes    *lanes = palloc0(sizeof(DvLanes));
	DvShared   *shared;

	lanes->segment = dsm_attach(handle);
	if (lanes->segment == NULL)
		return NULL;
	dsm_pin_mapping(lanes->segment);
	shared = lanes->shared = dsm_segment_address(lanes->segment);
	dv_refusals_share(&shared->refusals);
	dv_quiet_share(&shared->quiet);
	lanes->me = lane;
	if (shared->ended || shared->leader_gone || dv_lane_of(lanes)->state != DV_LANE_STARTING)
		return NULL;
	lanes->area = dsa_attach(shared->area);
	dsa_pin_mapping(lanes->area);
	lanes->sets = dv_sets_attach(sets_place(shared), lanes->area, &shared->sets, lane);
	enter_lane(lanes);
	return lanes;
}

/* ---------------------------------------------------------------- all */

void
dv_lanes_add(DvCounters *to, const DvCounters *from)
{
	int			i;

	for (i = 0; i < (int) (sizeof(DvCounters) / sizeof(int64)); i++)
		((int64 *) to)[i] += ((const int64 *) from)[i];
}

/* A failure, and the wish to stop, are everybody's. With the mutex. */
static void
share_state(DvRunContext *rc, char *failure, size_t size)
{
	DvShared   *shared = rc->lanes->shared;

	if (rc->failed && !shared->failed)
	{
		shared->failed = true;
		dv_server_text_cut(shared->message, sizeof(shared->message), rc->message ? rc->message : "");
	}
	if (rc->stopping && !dv_lane_of(rc->lanes)->leave)
		shared->stopping = true;
	if (shared->stopping || shared->leader_gone)
		rc->stopping = true;
	if (shared->failed && !rc->failed)
	{
		rc->failed = true;
		strlcpy(failure, shared->message, size);
	}
}

void
dv_lanes_publish(DvStep *step)
{
	DvRunContext *rc = step->rc;
	DvShared   *shared = rc->lanes->shared;
	DvLane	   *lane = dv_lane_of(rc->lanes);
	TimestampTz now = GetCurrentTimestamp();
	char		failure[sizeof(shared->message)] = "";
	DvUsage		usage;
	bool		new_usage = now >= next_usage;

	if (new_usage)
	{
		dv_phase_usage(&usage);
		next_usage = TimestampTzPlusMilliseconds(now, USAGE_MS);
	}
	SpinLockAcquire(&shared->mutex);
	lane->counters = step->counters;
	lane->lap_taken = step->lap_taken;
	lane->lap_parked = step->lap_parked;
	lane->lap_flagged = step->lap_flagged;
	lane->unsettled = step->unsettled;
	strlcpy(lane->waiting, rc->waiting, sizeof(lane->waiting));
	if (new_usage)
		lane->usage = usage;
	share_state(rc, failure, sizeof(failure));
	step->lap_done |= shared->failing;
	SpinLockRelease(&shared->mutex);
	if (failure[0] != '\0' && rc->message == NULL)
		rc->message = MemoryContextStrdup(rc->context, failure);
}

void
dv_lanes_measure(DvLanes *lanes)
{
	DvUsage		usage;

	dv_phase_usage(&usage);
	SpinLockAcquire(&lanes->shared->mutex);
	dv_lane_of(lanes)->usage = usage;
	SpinLockRelease(&lanes->shared->mutex);
}

void
dv_lanes_step_counters(DvLanes *lanes, DvCounters *sum)
{
	int			i;

	SpinLockAcquire(&lanes->shared->mutex);
	*sum = lanes->shared->gone.counters;
	for (i = 0; i < DV_LANES_MAX; i++)
		dv_lanes_add(sum, &lanes->shared->lanes[i].counters);
	SpinLockRelease(&lanes->shared->mutex);
}

int
dv_lanes_in_flight(DvLanes *lanes)
{
	int			n = 0;
	int			i;

	for (i = 0; i < DV_LANES_MAX; i++)
		n += lanes->shared->lanes[i].in_flight;
	return n;
}

bool
dv_lanes_is_user(DvLanes *lanes, const char *id)
{
	int			i;

	for (i = 0; i < lanes->shared->nusers; i++)
		if (pg_strcasecmp(id, lanes->shared->users[i].id) == 0)
			return true;
	return false;
}

void
dv_lanes_wake(DvLanes *lanes)
{
	Latch	   *latches[DV_LANES_MAX];
	int			i;

	SpinLockAcquire(&lanes->shared->mutex);
	for (i = 0; i < DV_LANES_MAX; i++)
		latches[i] = i == lanes->me ? NULL : lanes->shared->lanes[i].latch;
	SpinLockRelease(&lanes->shared->mutex);
	for (i = 0; i < DV_LANES_MAX; i++)
		if (latches[i] != NULL)
			SetLatch(latches[i]);
}

void
dv_lanes_goodbye(DvLanes *lanes)
{
	SpinLockAcquire(&lanes->shared->mutex);
	if (dv_lane_is_alive(dv_lane_of(lanes)))
	{
		dv_lane_of(lanes)->state = DV_LANE_IDLE;
		lane_gone(lanes->shared, lanes->me);
	}
	SpinLockRelease(&lanes->shared->mutex);
	dv_lanes_wake(lanes);
}

/*
 * laps.c - steps and laps of several lanes
 *
 * The leader opens a step and its laps; a helper joins a lap that has something
 * left to read, and leaves it when all that it took has its verdict recorded.
 */
#include "postgres.h"

#include "postmaster/bgworker.h"
#include "utils/timestamp.h"

#include "gate.h"
#include "lanes.h"
#include "servertext.h"
#include "settings.h"
#include "spi.h"

static bool
is_in_step(const DvLane *lane)
{
	return lane->state == DV_LANE_READY || lane->state == DV_LANE_WORKING;
}

/* ---------------------------------------------------------------- leading */

void
dv_lanes_open_step(DvStep *step, int number)
{
	DvLanes    *lanes = step->rc->lanes;
	DvShared   *shared = lanes->shared;
	int			i;

	dv_sets_clear(lanes->sets);
	SpinLockAcquire(&shared->mutex);
	for (i = 0; i < DV_LANES_MAX; i++)
	{
		DvLane	   *lane = &shared->lanes[i];

		dv_lanes_add(&lane->total, &lane->counters);
		memset(&lane->counters, 0, sizeof(DvCounters));
		lane->lap = 0;
		lane->unsettled = false;
		lane->usage_before = lane->usage;
		lane->died_at = 0;
	}
	memset(&shared->gone, 0, sizeof(DvGoneLanes));
	shared->step = number;
	shared->lap = 0;
	shared->failing = false;
	shared->forgotten = step->forgotten;
	shared->forgotten_since = step->forgotten_since;
	shared->forgotten_run = step->forgotten_run;
	shared->forgotten_until = step->forgotten_until;
	dv_pace_table_init(&shared->pace);
	dv_lane_of(lanes)->state = DV_LANE_READY;
	SpinLockRelease(&shared->mutex);
	/* from now on what the lanes count is of this one */
	step->rc->at_work = step;
}

/* What a lane has to know of the lap it takes part in. With the mutex. */
static void
enter_lap(DvStep *step)
{
	DvShared   *shared = step->rc->lanes->shared;
	DvLane	   *lane = dv_lane_of(step->rc->lanes);

	lane->state = DV_LANE_WORKING;
	lane->lap = step->lap = shared->lap;
	lane->lap_taken = lane->lap_parked = lane->lap_flagged = 0;
	step->forgotten = shared->forgotten;
	step->forgotten_since = shared->forgotten_since;
	step->forgotten_run = shared->forgotten_run;
	step->forgotten_until = shared->forgotten_until;
}

void
dv_lanes_begin_lap(DvStep *step)
{
	DvShared   *shared = step->rc->lanes->shared;

	SpinLockAcquire(&shared->mutex);
	shared->lap++;
	shared->lap_open = true;
	shared->holder = -1;
	shared->lent = shared->wanted = shared->begun = shared->exhausted = false;
	enter_lap(step);
	SpinLockRelease(&shared->mutex);
	dv_lanes_wake(step->rc->lanes);
}

/* Is a lane other than the leader in this state, or in the step? */
static bool
others(const DvShared *shared, bool working_only)
{
	int			i;

	for (i = 1; i < DV_LANES_MAX; i++)
		if (working_only ? shared->lanes[i].state == DV_LANE_WORKING : is_in_step(&shared->lanes[i]))
			return true;
	return false;
}

/* A lane that does not end in time, though it was asked to. */
static void
end_laggards(DvStep *step)
{
	DvLanes    *lanes = step->rc->lanes;
	int			i;

	if (step->rc->stop_by == 0 || GetCurrentTimestamp() < TimestampTzPlusMilliseconds(step->rc->stop_by, DV_LANES_GRACE_MS))
		return;
	for (i = 1; i < DV_LANES_MAX; i++)
		if (dv_lane_is_alive(&lanes->shared->lanes[i]) && lanes->handles[i] != NULL)
			TerminateBackgroundWorker(lanes->handles[i]);
}

/*
 * A lane died in this step. What it sent may be carried out until
 * dvmig.settle_time is over; then all lanes look up what they read before they
 * write it. True where there was one: another lap takes what it left.
 */
static bool
settle_dead_lanes(DvStep *step)
{
	DvShared   *shared = step->rc->lanes->shared;
	bool		any = false;
	int			i;

	for (i = 1; i < DV_LANES_MAX; i++)
	{
		DvLane	   *lane = &shared->lanes[i];
		TimestampTz settled = TimestampTzPlusMilliseconds(lane->died_at, dv_settle_time_ms);

		if (lane->died_at == 0)
			continue;
		ereport(LOG, (errmsg("lane %d of dvmig run " INT64_FORMAT " ended before its time; what it sent is looked up", i + 1, shared->run)));
		while (!step->rc->stopping && GetCurrentTimestamp() < settled)
		{
			dv_worker_wait(DV_LANES_WAIT_MS);
			dv_worker_tick(step);
		}
		step->unsettled |= step->rc->stopping;
		dv_sets_purge_busy(step->sets, i);
		lane->died_at = 0;
		any = true;
	}
	if (any)
	{
		/* Rows that leave this step by an edit (a delete is wanted no more) are for the next run to look up. */
		step->unsettled |= strcmp(step->projection->pass, "write") != 0;
		shared->forgotten = true;
		if (shared->forgotten_since == 0 || shared->forgotten_since > shared->started)
			shared->forgotten_since = shared->started;
	}
	return any;
}

bool
dv_lanes_end_lap(DvStep *step)
{
	DvShared   *shared = step->rc->lanes->shared;
	bool		another;
	bool		waiting = true;
	int64		taken = 0;
	int64		parked = 0;
	int64		flagged = 0;
	int			i;

	dv_lanes_publish(step);
	dv_lane_of(step->rc->lanes)->state = DV_LANE_READY;
	while (waiting)
	{
		SpinLockAcquire(&shared->mutex);
		waiting = others(shared, true);
		shared->lap_open = waiting;
		SpinLockRelease(&shared->mutex);
		if (!waiting)
			break;
		dv_worker_wait(DV_LANES_WAIT_MS);
		dv_worker_tick(step);
		end_laggards(step);
	}
	another = settle_dead_lanes(step);
	for (i = 0; i < DV_LANES_MAX; i++)
	{
		const DvLane *lane = &shared->lanes[i];

		if (lane->lap != shared->lap)
			continue;
		taken += lane->lap_taken;
		parked += lane->lap_parked;
		flagged += lane->lap_flagged;
		step->unsettled |= lane->unsettled;
	}
	if (shared->gone.lap == shared->lap)
	{
		taken += shared->gone.lap_taken;
		parked += shared->gone.lap_parked;
	}
	step->unsettled |= shared->gone.unsettled;
	step->counters.parked = parked;
	step->drained = shared->lap == 1 && flagged == step->unprocessed && dv_quiet_since(&shared->quiet);
	if (shared->failing && step->error == NULL)
		ereport(ERROR, (errcode(shared->error_code), errmsg_internal("%s", shared->error)));
	return another || taken > 0;
}

void
dv_lanes_close_step(DvStep *step)
{
	DvShared   *shared = step->rc->lanes->shared;
	bool		waiting = true;

	dv_lanes_measure(step->rc->lanes);
	dv_lanes_publish(step);
	while (waiting)
	{
		SpinLockAcquire(&shared->mutex);
		shared->step = 0;
		shared->lap_open = false;
		dv_lane_of(step->rc->lanes)->state = DV_LANE_IDLE;
		waiting = others(shared, false);
		SpinLockRelease(&shared->mutex);
		if (!waiting)
			break;
		dv_lanes_wake(step->rc->lanes);
		dv_worker_wait(DV_LANES_WAIT_MS);
		dv_worker_tick(step);
		end_laggards(step);
	}
}

/* ---------------------------------------------------------------- helping */

static bool
must_end(const DvLanes *lanes)
{
	const DvShared *shared = lanes->shared;

	return shared->ended || shared->leader_gone || shared->stopping || dv_lane_of(lanes)->leave;
}

int
dv_lanes_next_step(DvLanes *lanes)
{
	DvShared   *shared = lanes->shared;

	for (;;)
	{
		int			number = 0;

		SpinLockAcquire(&shared->mutex);
		if (shared->lap_open && !shared->exhausted && !shared->failing && !must_end(lanes))
		{
			number = shared->step;
			dv_lane_of(lanes)->state = DV_LANE_READY;
		}
		SpinLockRelease(&shared->mutex);
		if (number != 0 || must_end(lanes))
			return number;
		dv_worker_wait(DV_LANES_WAIT_MS);
		dv_worker_look_after_server();
	}
}

bool
dv_lanes_join_lap(DvStep *step)
{
	DvLanes    *lanes = step->rc->lanes;
	DvShared   *shared = lanes->shared;

	for (;;)
	{
		bool		over;
		bool		joined = false;

		SpinLockAcquire(&shared->mutex);
		over = shared->step != step->number || shared->failing || must_end(lanes) || step->rc->stopping;
		if (!over && shared->lap_open && shared->lap > dv_lane_of(lanes)->lap)
		{
			enter_lap(step);
			joined = true;
		}
		SpinLockRelease(&shared->mutex);
		if (joined || over)
			return joined;
		dv_worker_wait(DV_LANES_WAIT_MS);
		dv_worker_tick(step);
	}
}

void
dv_lanes_leave_lap(DvStep *step)
{
	DvShared   *shared = step->rc->lanes->shared;

	if (step->error != NULL)
		dv_lanes_report_error(step->rc->lanes, step->error);
	dv_lanes_measure(step->rc->lanes);
	dv_lanes_publish(step);
	SpinLockAcquire(&shared->mutex);
	dv_lane_of(step->rc->lanes)->state = DV_LANE_READY;
	SpinLockRelease(&shared->mutex);
	dv_lanes_wake(step->rc->lanes);
}

void
dv_lanes_report_error(DvLanes *lanes, const ErrorData *error)
{
	DvShared   *shared = lanes->shared;
	const char *told = dv_spi_told(error);

	SpinLockAcquire(&shared->mutex);
	if (!shared->failing)
	{
		shared->failing = true;
		shared->error_code = error->sqlerrcode;
		dv_server_text_cut(shared->error, sizeof(shared->error), told);
	}
	SpinLockRelease(&shared->mutex);
}

void
dv_lanes_leave_step(DvLanes *lanes)
{
	SpinLockAcquire(&lanes->shared->mutex);
	if (lanes->shared->holder == lanes->me)
		lanes->shared->holder = -1;
	dv_lane_of(lanes)->state = DV_LANE_IDLE;
	SpinLockRelease(&lanes->shared->mutex);
	dv_lanes_wake(lanes);
}

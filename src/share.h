/*
 * share.h - the shared memory of a run, as its lanes see it
 *
 * One segment per run, made by the first lane, which leads: it owns the steps,
 * the laps and the run's rows in dvmig's tables. The others help with its step.
 * Everything but the sets is guarded by one spinlock: it is held for a few
 * instructions, a few times per request.
 */
#ifndef DV_SHARE_H
#define DV_SHARE_H

#include "postgres.h"

#include "port/atomics.h"
#include "storage/dsm.h"
#include "storage/latch.h"
#include "storage/spin.h"
#include "utils/dsa.h"

#include "engine.h"
#include "phase.h"
#include "quiet.h"
#include "rate.h"
#include "sets.h"
#include "worker.h"

/* Lanes of one run at most. */
#define DV_LANES_MAX	32

/* A key of this size is not shared; then one lane reads the rest of the lap. */
#define DV_CURSOR_BYTES	16384

typedef enum DvLaneState
{
	DV_LANE_NONE,				/* no worker */
	DV_LANE_STARTING,			/* registered */
	DV_LANE_IDLE,				/* between steps */
	DV_LANE_READY,				/* in the step, between laps */
	DV_LANE_WORKING,			/* in a lap */
	DV_LANE_ENDED,
	DV_LANE_DIED				/* ended without saying so: what it sent is in doubt */
} DvLaneState;

typedef struct DvLane
{
	DvLaneState state;
	pid_t		pid;
	Latch	   *latch;
	int			user;			/* application user, from 0 */
	bool		leave;			/* asked to go at the end of its range */
	TimestampTz died_at;
	int			lap;			/* the last it took part in */
	int64		lap_taken;
	int64		lap_parked;
	int64		lap_flagged;
	bool		unsettled;		/* in this step */
	int			in_flight;
	bool		hungry;			/* would send, but its user's limit is reached */
	DvCounters	counters;		/* of this step */
	DvCounters	total;			/* of the steps before */
	DvUsage		usage;
	DvUsage		usage_before;	/* when the step began */
	char		waiting[256];	/* why it waits, while there is an outage */
} DvLane;

/* What lanes did in this step whose place another one has taken. */
typedef struct DvGoneLanes
{
	DvCounters	counters;
	int			lap;			/* the last that one of them took part in */
	int64		lap_taken;		/* in that one */
	int64		lap_parked;
	bool		unsettled;
} DvGoneLanes;

typedef struct DvUser
{
	bool		usable;			/* it was let in */
	char		id[37];			/* systemuserid in Dataverse */
	int			lanes;			/* alive, that share its limits */
	uint64		user;			/* as hold.h knows it; 0: no session yet */
	TimestampTz held_since;		/* throttled, and counted up to then; 0 = not */
	TimestampTz held_until;
	int64		held_us;		/* since the leader has looked */
	DvPace		pace;
} DvUser;

/* What dvmig.tune() asks for; 0 = not set. */
typedef struct DvTune
{
	int			lanes;
	int			in_flight;		/* of each application user */
	int			batch_rows;
	double		rate;			/* rows a second, of the run */
} DvTune;

typedef struct DvShared
{
	slock_t		mutex;
	int64		run;
	dsa_handle	area;
	DvSetsHandle sets;
	TimestampTz started;
	bool		stopping;
	bool		failed;
	char		message[1024];
	bool		ended;			/* the helpers may go */
	bool		leader_gone;
	bool		paused;
	DvTune		tune;
	DvRate		rate;

	/* the step at work */
	int			step;			/* run_table.step; 0 = none */
	int			lap;
	bool		lap_open;
	bool		failing;		/* a lane met an error that ends the step */
	int			error_code;
	char		error[1024];
	bool		forgotten;		/* see DvStep */
	TimestampTz forgotten_since;
	int64		forgotten_run;
	TimestampTz forgotten_until;
	DvTablePace pace;
	DvQuiet		quiet;			/* since the lap began */

	/* where the next range of the lap begins */
	int			holder;			/* lane that moves it on; -1 = none */
	bool		lent;			/* ... and has all that is left */
	bool		wanted;			/* another lane asks for some of that */
	bool		begun;
	bool		exhausted;
	int			key_len;
	char		key[DV_CURSOR_BYTES];	/* the last key given out, serialised */

	pg_atomic_uint64 refusals;
	int64		held_us;		/* the run was throttled for so long: a mean of its users */
	int			nusers;
	DvUser		users[DV_USERS_MAX];
	DvLane		lanes[DV_LANES_MAX];
	DvGoneLanes gone;
} DvShared;

/* One process's view. */
struct DvLanes
{
	dsm_segment *segment;
	DvShared   *shared;
	dsa_area   *area;
	DvSets	   *sets;
	int			me;				/* 0 = the leader */
	DvWorkerArgs args;			/* of a helper's worker */
	bool		single;			/* the run has one lane whatever is asked */
	int			asked;			/* lanes the run was started with, or tuned to */
	struct BackgroundWorkerHandle *handles[DV_LANES_MAX];
};

/* Longest wait for another lane, so that signals and the database are looked at. */
#define DV_LANES_WAIT_MS	50

/* A lane that is asked to end has this long beyond dvmig.stop_timeout, in milliseconds. */
#define DV_LANES_GRACE_MS	5000

static inline bool
dv_lane_is_alive(const DvLane *lane)
{
	return lane->state >= DV_LANE_IDLE && lane->state <= DV_LANE_WORKING;
}

#define dv_lane_of(l)	(&(l)->shared->lanes[(l)->me])
#define dv_user_of(l)	(&(l)->shared->users[dv_lane_of(l)->user])

#endif							/* DV_SHARE_H */

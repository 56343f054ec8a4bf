/*
 * gate.c - may this lane send now? One service protection gate per application user
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "gate.h"
#include "hold.h"
#include "session.h"
#include "share.h"

/* Holds are kept in milliseconds: what ends less than this later is the same one. */
#define SAME_HOLD_US	1000

/* A wait that ends within this time is not told of: at its limits a service has many. */
#define TELL_MS			1000

/* A lane's fair part of its user's places, at least one. */
static int
fair_part(const DvUser *user)
{
	return Max(1, dv_pace_places(&user->pace) / Max(1, user->lanes));
}

/* What this lane would still send within its fair part; 0 where it has nothing to send. */
static int
claim(const DvLane *lane, int part)
{
	return lane->hungry ? Max(0, part - lane->in_flight) : 0;
}

/* More than its fair part is a lane's only of places that the others of its user do not claim. */
static bool
within_share(const DvShared *shared, const DvLane *me)
{
	const DvUser *user = &shared->users[me->user];
	int			part = fair_part(user);
	int			claimed = 0;
	int			i;

	if (user->lanes <= 1 || me->in_flight < part)
		return true;
	for (i = 0; i < DV_LANES_MAX; i++)
		if (&shared->lanes[i] != me && shared->lanes[i].user == me->user)
			claimed += claim(&shared->lanes[i], part);
	return claimed == 0 || dv_pace_places(&user->pace) - user->pace.in_flight > claimed;
}

/* With the mutex. */
static bool
may_send(DvShared *shared, const DvLane *me, TimestampTz now)
{
	DvUser	   *user = &shared->users[me->user];

	return !shared->paused && dv_rate_may_send(&shared->rate, now) &&
		dv_pace_may_send(&user->pace, now) && dv_pace_table_may_send(&shared->pace) &&
		(shared->tune.in_flight == 0 || user->pace.in_flight < shared->tune.in_flight) &&
		within_share(shared, me);
}

bool
dv_gate_is_open(DvStep *step, TimestampTz now)
{
	DvLanes    *lanes = step->rc->lanes;
	DvShared   *shared = lanes->shared;
	DvLane	   *me = dv_lane_of(lanes);
	bool		open;

	(void) dv_gate_hear(step->rc, me->user, now);
	SpinLockAcquire(&shared->mutex);
	open = may_send(shared, me, now);
	step->held = !open && (shared->paused || dv_pace_is_holding(&dv_user_of(lanes)->pace, now) || !dv_rate_may_send(&shared->rate, now));
	me->hungry = !open && !step->held;
	SpinLockRelease(&shared->mutex);
	return open;
}

bool
dv_gate_enter(DvStep *step, int rows, TimestampTz now)
{
	DvLanes    *lanes = step->rc->lanes;
	DvShared   *shared = lanes->shared;
	DvLane	   *me = dv_lane_of(lanes);
	bool		open;

	(void) dv_gate_hear(step->rc, me->user, now);
	SpinLockAcquire(&shared->mutex);
	open = may_send(shared, me, now);
	if (open)
	{
		dv_pace_sent(&dv_user_of(lanes)->pace, now);
		shared->pace.in_flight++;
		me->in_flight++;
		dv_rate_sent(&shared->rate, rows, now);
	}
	me->hungry = !open;
	SpinLockRelease(&shared->mutex);
	return open;
}

void
dv_gate_not_hungry(DvStep *step)
{
	dv_lane_of(step->rc->lanes)->hungry = false;
}

/* Who is to have a place that came free: of this lane's user's, the hungry one with the fewest. With the mutex. */
static DvLane *
next_hungry(DvShared *shared, const DvLane *me)
{
	DvLane	   *next = NULL;
	int			i;

	for (i = 0; i < DV_LANES_MAX; i++)
	{
		DvLane	   *lane = &shared->lanes[i];

		if (lane->hungry && lane != me && lane->user == me->user && (next == NULL || lane->in_flight < next->in_flight))
			next = lane;
	}
	return next;
}

/* Places came free: a lane of the same user that waits for one is woken. */
static void
give_back(DvStep *step, int n)
{
	DvLanes    *lanes = step->rc->lanes;
	DvShared   *shared = lanes->shared;
	DvLane	   *me = dv_lane_of(lanes);
	DvLane	   *next;
	Latch	   *latch = NULL;
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&shared->mutex);
	dv_pace_ended(&dv_user_of(lanes)->pace, n, now);
	shared->pace.in_flight -= n;
	me->in_flight -= n;
	next = next_hungry(shared, me);
	if (next != NULL)
		latch = next->latch;
	SpinLockRelease(&shared->mutex);
	if (latch != NULL)
		SetLatch(latch);
}

void
dv_gate_leave(DvStep *step)
{
	give_back(step, 1);
}

void
dv_gate_leave_all(DvStep *step)
{
	give_back(step, dv_lane_of(step->rc->lanes)->in_flight);
}

/* ---------------------------------------------------------------- learning */

void
dv_gate_good(DvStep *step, const DvHttpReply *reply)
{
	DvLanes    *lanes = step->rc->lanes;

	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&lanes->shared->mutex);
	dv_pace_good(&dv_user_of(lanes)->pace, step->pace, reply->dop_hint, now);
	SpinLockRelease(&lanes->shared->mutex);
}

/* The time that a user was held is counted up to now. With the mutex. */
static void
settle_hold(DvUser *user, TimestampTz now)
{
	if (user->held_since == 0)
		return;
	user->held_us += Max(0, Min(now, user->held_until) - user->held_since);
	user->held_since = now < user->held_until ? now : 0;
}

/* With the mutex. */
static void
hold_user(DvUser *user, TimestampTz until, TimestampTz now)
{
	settle_hold(user, now);
	user->held_since = now;
	user->held_until = Max(user->held_until, until);
}

void
dv_gate_user_throttled(DvRunContext *rc, int number, const DvThrottle *told)
{
	DvShared   *shared = rc->lanes->shared;
	DvUser	   *user = &shared->users[number];
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz before;
	TimestampTz until;

	SpinLockAcquire(&shared->mutex);
	before = user->pace.hold_until;
	dv_pace_throttled(&user->pace, told, now);
	until = user->pace.hold_until;
	hold_user(user, until, now);
	SpinLockRelease(&shared->mutex);
	if (until > before)
		dv_hold_tell(user->user, until, now);
}

TimestampTz
dv_gate_hear(DvRunContext *rc, int number, TimestampTz now)
{
	DvShared   *shared = rc->lanes->shared;
	DvUser	   *user = &shared->users[number];
	TimestampTz until = dv_hold_until(user->user, now);

	if (until > user->held_until + SAME_HOLD_US)
	{
		SpinLockAcquire(&shared->mutex);
		dv_pace_told(&user->pace, until, now);
		hold_user(user, until, now);
		SpinLockRelease(&shared->mutex);
	}
	/* no lock for a look that may be a moment late */
	until = Max(until, ((volatile DvUser *) user)->pace.hold_until);
	return until > now ? until : 0;
}

char *
dv_gate_told(DvLanes *lanes)
{
	DvShared   *shared = lanes->shared;
	TimestampTz from = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), TELL_MS);
	char	   *told = NULL;
	int			i;

	for (i = 0; i < DV_USERS_MAX; i++)
		if (shared->users[i].held_until > from)
			told = psprintf("%s%sDataverse told application user %d to wait until %s", told ? told : "", told ? ", " : "",
							i + 1, timestamptz_to_str(shared->users[i].held_until));
	return told;
}

/* What a session is guarded by: whose lanes, and which user of them. */
typedef struct DvGuard
{
	DvRunContext *rc;
	int			user;
} DvGuard;

static TimestampTz
held_until(void *arg)
{
	DvGuard    *guard = arg;

	return dv_gate_hear(guard->rc, guard->user, GetCurrentTimestamp());
}

void
dv_gate_guard(DvRunContext *rc, DvSession *session, int user)
{
	DvGuard    *guard = MemoryContextAlloc(rc->context, sizeof(DvGuard));

	guard->rc = rc;
	guard->user = user;
	rc->lanes->shared->users[user].user = dv_session_keep_back(session, held_until, guard);
}

void
dv_gate_throttled(DvStep *step, const DvThrottle *told)
{
	dv_gate_user_throttled(step->rc, dv_lane_of(step->rc->lanes)->user, told);
}

int64
dv_gate_held_ms(DvLanes *lanes)
{
	DvShared   *shared = lanes->shared;
	TimestampTz now = GetCurrentTimestamp();
	int64		sum = 0;
	int			n = 0;
	int			i;

	SpinLockAcquire(&shared->mutex);
	for (i = 0; i < shared->nusers; i++)
	{
		DvUser	   *user = &shared->users[i];

		settle_hold(user, now);
		sum += user->held_us;
		user->held_us = 0;
		n += user->usable && user->lanes > 0;
	}
	shared->held_us += sum / Max(n, 1);
	SpinLockRelease(&shared->mutex);
	return shared->held_us / 1000;
}

void
dv_gate_trouble(DvStep *step)
{
	DvLanes    *lanes = step->rc->lanes;
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&lanes->shared->mutex);
	dv_pace_trouble(&dv_user_of(lanes)->pace, now);
	SpinLockRelease(&lanes->shared->mutex);
}

void
dv_gate_hold(DvStep *step, TimestampTz until)
{
	DvLanes    *lanes = step->rc->lanes;

	SpinLockAcquire(&lanes->shared->mutex);
	dv_pace_hold(&dv_user_of(lanes)->pace, until);
	SpinLockRelease(&lanes->shared->mutex);
}

void
dv_gate_deadlock(DvStep *step)
{
	DvShared   *shared = step->rc->lanes->shared;
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&shared->mutex);
	dv_pace_table_deadlock(step->pace, now);
	SpinLockRelease(&shared->mutex);
}

void
dv_gate_bulk(DvStep *step, int rows, double seconds)
{
	DvShared   *shared = step->rc->lanes->shared;

	SpinLockAcquire(&shared->mutex);
	dv_pace_table_bulk(step->pace, rows, seconds);
	SpinLockRelease(&shared->mutex);
}

void
dv_gate_each(DvStep *step, int rows, double seconds)
{
	DvShared   *shared = step->rc->lanes->shared;

	SpinLockAcquire(&shared->mutex);
	dv_pace_table_each(step->pace, rows, seconds);
	SpinLockRelease(&shared->mutex);
}

void
dv_gate_refused(DvStep *step)
{
	DvShared   *shared = step->rc->lanes->shared;

	SpinLockAcquire(&shared->mutex);
	dv_pace_table_refused(step->pace);
	SpinLockRelease(&shared->mutex);
}

void
dv_gate_shrink(DvStep *step, int rows)
{
	DvShared   *shared = step->rc->lanes->shared;

	SpinLockAcquire(&shared->mutex);
	dv_pace_table_shrink(step->pace, rows);
	SpinLockRelease(&shared->mutex);
}

int
dv_gate_bulk_rows(DvStep *step)
{
	int			tuned = step->rc->lanes->shared->tune.batch_rows;

	return tuned > 0 ? Min(tuned, step->pace->bulk_max) : dv_pace_table_rows(step->pace, step->row_bytes);
}

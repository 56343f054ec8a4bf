/*
 * users.c - the application users of a job
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "gate.h"
#include "lanes.h"
#include "runstate.h"
#include "users.h"

/*
 * Where several users have requests on their way, each of their connections is
 * waited for in turn, so long: what comes by another is seen that much later.
 */
#define SLICE_MS	5

struct DvUsers
{
	DvRunContext *rc;
	int			n;
	DvSession  *sessions[DV_USERS_MAX]; /* NULL: not let in */
	bool		dismissed[DV_USERS_MAX];
	int			next;			/* whose turn it is to be waited for */
};

static DvUser *
user_at(DvUsers *users, int user)
{
	return &users->rc->lanes->shared->users[user];
}

DvUsers *
dv_users_of(DvRunContext *rc)
{
	DvShared   *shared = rc->lanes->shared;
	MemoryContext old;
	DvUsers    *users;
	int			i;

	if (rc->users != NULL)
		return rc->users;
	old = MemoryContextSwitchTo(rc->context);
	users = palloc0(sizeof(DvUsers));
	users->rc = rc;
	users->n = shared->nusers;
	users->sessions[0] = rc->session;
	for (i = 1; i < users->n; i++)
		if (shared->users[i].usable)
		{
			users->sessions[i] = dv_session_open(dv_session_server(rc->session)->name, rc->owner, i + 1);
			dv_gate_guard(rc, users->sessions[i], i);
			SpinLockAcquire(&shared->mutex);
			shared->users[i].lanes++;
			SpinLockRelease(&shared->mutex);
		}
	rc->users = users;
	MemoryContextSwitchTo(old);
	return users;
}

bool
dv_users_are_paused(DvUsers *users)
{
	return users->rc->lanes->shared->paused;
}

bool
dv_users_has_room(DvUsers *users, int user, TimestampTz now)
{
	int			most = users->rc->lanes->shared->tune.in_flight;
	DvPace	   *pace = &user_at(users, user)->pace;

	if (users->sessions[user] != NULL)
		(void) dv_gate_hear(users->rc, user, now);
	return users->sessions[user] != NULL && !users->dismissed[user] && !dv_users_are_paused(users) &&
		(most == 0 || pace->in_flight < most) && dv_pace_may_send(pace, now) && !dv_session_is_throttled(users->sessions[user]);
}

int
dv_users_choose(DvUsers *users, TimestampTz now)
{
	int			best = -1;
	int			i;

	for (i = 0; i < users->n; i++)
		if (dv_users_has_room(users, i, now) &&
			(best < 0 || user_at(users, i)->pace.in_flight < user_at(users, best)->pace.in_flight))
			best = i;
	return best;
}

DvSession *
dv_users_session(DvUsers *users, int user)
{
	return users->sessions[user];
}

DvPace *
dv_users_pace(DvUsers *users, int user)
{
	return &user_at(users, user)->pace;
}

void
dv_users_send(DvUsers *users, int user, const char *method, const char *path,
			  const char *body, size_t body_len, const char *const *headers, void *owner)
{
	dv_pace_sent(dv_users_pace(users, user), GetCurrentTimestamp());
	dv_session_send(users->sessions[user], method, path, body, body_len, headers, owner);
}

/* Users with requests on their way. */
static int
count_busy(DvUsers *users)
{
	int			n = 0;
	int			i;

	for (i = 0; i < users->n; i++)
		n += users->sessions[i] != NULL && dv_session_in_flight(users->sessions[i]) > 0;
	return n;
}

DvHttpReply *
dv_users_poll(DvUsers *users, long timeout_ms, void **owner)
{
	TimestampTz start = GetCurrentTimestamp();
	int			busy = count_busy(users);
	int			idle = 0;

	if (busy == 0)
		return dv_session_poll(users->sessions[0], timeout_ms, owner);	/* only the latch can end that */
	for (;;)
	{
		int			user = users->next = (users->next + 1) % users->n;
		long		left = timeout_ms - TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());
		DvHttpReply *reply;

		if (users->sessions[user] == NULL || dv_session_in_flight(users->sessions[user]) == 0)
			continue;
		/* first what has come already, of each of them */
		reply = dv_session_poll(users->sessions[user], busy == 1 ? Max(left, 0) : idle < busy ? 0 : Max(0, Min(left, SLICE_MS)), owner);
		if (reply != NULL)
		{
			dv_pace_ended(dv_users_pace(users, user), 1, GetCurrentTimestamp());
			return reply;
		}
		if (++idle >= busy && (left <= 0 || busy == 1 || MyLatch->is_set))
			return NULL;
	}
}

bool
dv_users_dismiss(DvUsers *users, int user, const char *why)
{
	bool		others = false;
	int			i;

	for (i = 0; i < users->n; i++)
		others |= i != user && users->sessions[i] != NULL && !users->dismissed[i];
	if (others && !users->dismissed[user])
	{
		/* the session stays: it has answers on their way */
		users->dismissed[user] = true;
		dv_runstate_tell(users->rc, "lane refused", psprintf("application user %d is no longer let in: %s", user + 1, why));
	}
	return others;
}

void
dv_users_abandon(DvUsers *users)
{
	int			i;

	for (i = 0; i < users->n; i++)
		if (users->sessions[i] != NULL)
		{
			dv_pace_ended(dv_users_pace(users, i), dv_session_in_flight(users->sessions[i]), GetCurrentTimestamp());
			dv_session_abandon(users->sessions[i]);
		}
}

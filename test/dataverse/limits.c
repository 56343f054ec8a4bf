/*
 * limits.c - service protection: quotas of each user on each web server
 *
 * The sliding window is cut into slices; a slice forgets what it held when
 * its turn comes again. Retry-After grows while a client keeps pushing.
 */
#include "limits.h"

#include <pthread.h>
#include <string.h>

#include "stats.h"
#include "switches.h"

#define SLICES 60
#define MAX_ACCOUNTS 512

typedef struct Account
{
	bool		used;
	SimGuid		user;
	int			server;
	int			running;
	int64_t		slice[SLICES];	/* number of the slice the sums belong to */
	int			count[SLICES];
	int64_t		time[SLICES];	/* us */
	int			pushes;			/* refused requests since the last success */
	int64_t		told_at;		/* us; when it was told to wait, and until when */
	int64_t		wait_until;
} Account;

static Account accounts[MAX_ACCOUNTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static Account *
find(SimGuid user, int server)
{
	for (int i = 0; i < MAX_ACCOUNTS; i++)
	{
		Account    *a = &accounts[i];

		if (!a->used)
		{
			a->used = true;
			a->user = user;
			a->server = server;
		}
		if (a->server == server && sim_guid_eq(a->user, user))
			return a;
	}
	return &accounts[0];
}

/* Of what holds for the user on every server. */
#define EVERY_SERVER (-1)

static void
tell_to_wait(Account *a, int seconds)
{
	/* Who pushes on is still waiting since he was told first. */
	if (sim_mono_us() >= a->wait_until)
		a->told_at = sim_mono_us();
	a->wait_until = sim_mono_us() + (int64_t) seconds * 1000000;
}

/* What was on its way when the wait was told has arrived by half of it. */
static bool
should_have_waited(const Account *a)
{
	return sim_mono_us() < a->wait_until && sim_mono_us() > (a->told_at + a->wait_until) / 2;
}

void
sim_limits_told(SimGuid user, int seconds)
{
	pthread_mutex_lock(&lock);
	tell_to_wait(find(user, EVERY_SERVER), seconds);
	pthread_mutex_unlock(&lock);
}

static int64_t
slice_us(void)
{
	int64_t		us = (int64_t) sim_sw.limit_window * 1000000 / SLICES;

	return us > 0 ? us : 1;
}

/* The current slice's position, emptied when it is stale. */
static int
current(Account *a)
{
	int64_t		n = sim_mono_us() / slice_us();
	int			at = (int) (n % SLICES);

	if (a->slice[at] != n)
	{
		a->slice[at] = n;
		a->count[at] = 0;
		a->time[at] = 0;
	}
	return at;
}

static void
sums(Account *a, int *count, int64_t *time)
{
	int64_t		now = sim_mono_us() / slice_us();

	*count = 0;
	*time = 0;
	for (int i = 0; i < SLICES; i++)
		if (a->slice[i] > now - SLICES)
		{
			*count += a->count[i];
			*time += a->time[i];
		}
}

static bool
active(void)
{
	return sim_sw.limit_requests > 0 || sim_sw.limit_time > 0 || sim_sw.limit_concurrent > 0;
}

void
sim_limits_refuse(const SimReq *r, SimResp *resp, int facet, int retry_after)
{
	memset(&resp->err, 0, sizeof resp->err);
	resp->headers.len = resp->body.len = 0;
	if (facet == 0)
		sim_fail(&resp->err, 429, "0x80072322", "Number of requests exceeded the limit of %d over time window of %d seconds.",
				 sim_sw.limit_requests > 0 ? sim_sw.limit_requests : 6000, sim_sw.limit_window);
	else if (facet == 1)
		sim_fail(&resp->err, 429, "0x80072321", "Combined execution time of incoming requests exceeded limit of %d milliseconds over "
				 "time window of %d seconds. Decrease number of concurrent requests or reduce the duration of requests and try "
				 "again later.", sim_sw.limit_time > 0 ? sim_sw.limit_time : 1200000, sim_sw.limit_window);
	else
		sim_fail(&resp->err, 429, "0x80072326", "Number of concurrent requests exceeded the limit of %d.",
				 sim_sw.limit_concurrent > 0 ? sim_sw.limit_concurrent : 52);
	sim_resp_header(resp, "Retry-After", "%d", retry_after);
	sim_resp_error(r, resp);
}

bool
sim_limits_enter(SimReq *r, int server, SimResp *resp)
{
	Account    *a;
	int			count,
				facet = -1,
				wait = 0,
				at;
	int64_t		time;

	pthread_mutex_lock(&lock);
	a = find(r->caller, server);
	if (should_have_waited(a) || should_have_waited(find(r->caller, EVERY_SERVER)))
		sim_stats_in_wait();
	if (!active())
	{
		pthread_mutex_unlock(&lock);
		return true;
	}
	at = current(a);
	sums(a, &count, &time);
	if (sim_sw.limit_concurrent > 0 && a->running >= sim_sw.limit_concurrent)
		facet = 2;
	else if (sim_sw.limit_requests > 0 && count >= sim_sw.limit_requests)
		facet = 0;
	else if (sim_sw.limit_time > 0 && time > (int64_t) sim_sw.limit_time * 1000)
		facet = 1;
	if (facet < 0)
	{
		a->running++;
		a->count[at]++;
		a->pushes = 0;
	}
	else
	{
		a->pushes++;
		wait = sim_sw.retry_after + (a->pushes - 1) / 4;
		wait = wait > sim_sw.limit_window ? sim_sw.limit_window : wait;
		wait = wait < 1 ? 1 : wait;
		tell_to_wait(a, wait);
	}
	pthread_mutex_unlock(&lock);
	if (facet < 0)
		return true;
	sim_stats_throttled(facet);
	sim_limits_refuse(r, resp, facet, wait);
	return false;
}

void
sim_limits_leave(SimReq *r, int server, int64_t us)
{
	Account    *a;

	if (!active())
		return;
	pthread_mutex_lock(&lock);
	a = find(r->caller, server);
	a->time[current(a)] += us;
	if (a->running > 0)
		a->running--;
	pthread_mutex_unlock(&lock);
}

void
sim_limits_headers(const SimReq *r, int server, SimResp *resp)
{
	int			count = 0;
	int64_t		time = 0;
	long		left,
				most = sim_sw.limit_requests > 0 ? sim_sw.limit_requests : 6000;
	double		seconds,
				most_seconds = sim_sw.limit_time > 0 ? sim_sw.limit_time / 1000.0 : 1200.0;

	if (active())
	{
		pthread_mutex_lock(&lock);
		sums(find(r->caller, server), &count, &time);
		pthread_mutex_unlock(&lock);
	}
	left = most - count;
	seconds = most_seconds - (double) time / 1e6;
	/* Two decimals are shown: round before grouping, so that none carries over. */
	seconds = seconds > 0 ? (double) (int64_t) (seconds * 100 + 0.5) / 100 : 0;
	if (seconds >= 1000)
		sim_resp_header(resp, "x-ms-ratelimit-time-remaining-xrm-requests", "%d,%06.2f", (int) (seconds / 1000),
						seconds - (int) (seconds / 1000) * 1000);
	else
		sim_resp_header(resp, "x-ms-ratelimit-time-remaining-xrm-requests", "%.2f", seconds);
	sim_resp_header(resp, "x-ms-ratelimit-burst-remaining-xrm-requests", "%ld", left > 0 ? left : 0);
	sim_resp_header(resp, "x-ms-dop-hint", "%d", sim_sw.dop_hint);
}

void
sim_limits_reset(void)
{
	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAX_ACCOUNTS; i++)
	{
		int			running = accounts[i].running;

		memset(accounts[i].slice, 0, sizeof accounts[i].slice);
		/* Soon after the machine has started, slice 0 is within the window. */
		memset(accounts[i].count, 0, sizeof accounts[i].count);
		memset(accounts[i].time, 0, sizeof accounts[i].time);
		accounts[i].pushes = 0;
		accounts[i].told_at = accounts[i].wait_until = 0;
		accounts[i].running = running;
	}
	pthread_mutex_unlock(&lock);
}

/*
 * model.c - a service with the limits of Dataverse, in virtual time
 *
 * Limits of a user on each web server, over a sliding window of 300 s: 6,000
 * requests, 1,200 s of execution, and 52 at once. Requests beyond the capacity
 * of the organisation all take longer, together. There is always something to
 * send: what is measured is the pace alone.
 */
#include "model.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pace.h"

#define WINDOW			300.0
#define SLICES			60
#define LIMIT_REQUESTS	6000.0
#define LIMIT_TIME		1200.0
#define LIMIT_AT_ONCE	52
#define RENEW			5.0		/* connections: see http_transfer.c */
#define SERVERS_MAX		16
#define IN_FLIGHT_MAX	128

const Shape shapes[] = {
	{.name = "small trial",.hint = 4,.servers = 1,.capacity = 4,.round_trip = 0.05,.per_request = 0.15,.per_row = 0.004,.noise = 0.2},
	{.name = "large org",.hint = 48,.servers = 8,.capacity = 64,.round_trip = 0.06,.per_request = 0.1,.per_row = 0.002,.noise = 0.2},
	{.name = "slow plug-ins",.hint = 16,.servers = 2,.capacity = 16,.round_trip = 0.06,.per_request = 0.3,.per_row = 0.15,.noise = 0.3,.sql_timeout = 120},
	{.name = "deadlock-prone",.hint = 24,.servers = 4,.capacity = 24,.round_trip = 0.05,.per_request = 0.1,.per_row = 0.003,.noise = 0.2,.deadlock_from = 6,.deadlock_rate = 0.25},
	{.name = "pinned connections",.hint = 24,.servers = 4,.pinned = true,.capacity = 32,.round_trip = 0.05,.per_request = 0.1,.per_row = 0.003,.noise = 0.2},
	{.name = "changing hint",.hint = 32,.servers = 8,.capacity = 32,.round_trip = 0.06,.per_request = 0.1,.per_row = 0.003,.noise = 0.2,.hint_later = 8,.hint_period = 600},
	{.name = "slow hours",.hint = 16,.servers = 8,.capacity = 64,.round_trip = 0.06,.per_request = 0.1,.per_row = 0.003,.noise = 0.2,.slow_period = 600},
	{.name = "a tenth of the time",.hint = 48,.servers = 4,.capacity = 64,.round_trip = 0.002,.per_request = 0.005,.per_row = 0.004,.noise = 0.05,.scale = 10,.retry_after = 1,.rows = 100},
	{.name = "short Retry-After",.hint = 48,.servers = 4,.capacity = 64,.round_trip = 0.02,.per_request = 0.05,.per_row = 0.004,.noise = 0.05,.retry_after = 1},
};
const int	nshapes = sizeof(shapes) / sizeof(shapes[0]);

/* What one web server has counted of the user. */
typedef struct Server
{
	long		slice[SLICES];
	double		time[SLICES];
	int			count[SLICES];
	int			at_once;
	int			pushes;
} Server;

typedef struct Flight
{
	bool		used;
	double		sent;
	double		ends;			/* when the answer is here */
	double		worked;
	int			rows;
	int			server;			/* -1 once it left it */
	enum {GOOD, THROTTLED, DEADLOCK, TOO_LONG} answer;
	double		retry_after;
	bool		at_once;		/* refused for too many at once */
	int			hint;
} Flight;

typedef struct Model
{
	const Shape *shape;
	double		now;
	uint64_t	random;
	Server		servers[SERVERS_MAX];
	int			at_work;
	Flight		flights[IN_FLIGHT_MAX];
	int			connection[IN_FLIGHT_MAX];
	double		connected[IN_FLIGHT_MAX];
	DvPace		pace;
	DvTablePace table;
	int64_t		retry_at;		/* no request before: from the answers, not from pace.c */
	Result		result;
} Model;

static double
uniform(Model *m)
{
	m->random ^= m->random << 13;
	m->random ^= m->random >> 7;
	m->random ^= m->random << 17;
	return (double) (m->random >> 11) / (double) (1ULL << 53);
}

static int64_t
micros(double seconds)
{
	/* not 0: that is "never" to pace.c */
	return (int64_t) ((seconds + 1000) * 1e6);
}

static double
scale(const Shape *shape)
{
	return shape->scale > 0 ? shape->scale : 1;
}

static double
window(const Shape *shape)
{
	return WINDOW / scale(shape);
}

static bool
is_slow(const Model *m)
{
	return m->shape->slow_period > 0 && fmod(m->now, 2 * m->shape->slow_period) >= m->shape->slow_period;
}

static bool
is_later(const Model *m)
{
	return m->shape->hint_later > 0 && fmod(m->now, 2 * m->shape->hint_period) >= m->shape->hint_period;
}

static int
hint_now(const Model *m)
{
	return is_later(m) ? m->shape->hint_later : m->shape->hint;
}

static double
capacity_now(const Model *m)
{
	return is_later(m) ? m->shape->hint_later : m->shape->capacity;
}

/* ---------------------------------------------------------------- limits */

static int
slice_of(const Shape *shape, Server *s, double now)
{
	long		n = (long) (now / (window(shape) / SLICES));
	int			at = (int) (n % SLICES);

	if (s->slice[at] != n)
	{
		s->slice[at] = n;
		s->time[at] = 0;
		s->count[at] = 0;
	}
	return at;
}

static void
sums(const Shape *shape, const Server *s, double now, int *count, double *time)
{
	long		n = (long) (now / (window(shape) / SLICES));
	int			i;

	*count = 0;
	*time = 0;
	for (i = 0; i < SLICES; i++)
		if (s->slice[i] > n - SLICES)
		{
			*count += s->count[i];
			*time += s->time[i];
		}
}

/* Seconds until enough of the window is over; 0 where the request may come in. */
static double
refused_for(const Shape *shape, Server *s, double now)
{
	double		time;
	double		later;
	int			count;

	sums(shape, s, now, &count, &time);
	if (s->at_once >= LIMIT_AT_ONCE)
		return 1;
	for (later = 0; count >= LIMIT_REQUESTS / scale(shape) || time >= LIMIT_TIME / scale(shape); later += 1)
		sums(shape, s, now + later, &count, &time);
	if (later == 0)
		return 0;
	/* It grows while a client keeps pushing. */
	return (shape->retry_after > 0 ? shape->retry_after : later) + s->pushes++ / 4;
}

/* ---------------------------------------------------------------- requests */

static int
pick_server(Model *m, int connection)
{
	if (!m->shape->pinned)
		return (int) (uniform(m) * m->shape->servers);
	if (m->connected[connection] == 0 || m->now - m->connected[connection] > RENEW)
	{
		m->connected[connection] = m->now + 1e-9;
		m->connection[connection] = (int) (uniform(m) * m->shape->servers);
	}
	return m->connection[connection];
}

static void
arrive(Model *m, Flight *f)
{
	const Shape *shape = m->shape;
	Server	   *s = &m->servers[f->server];
	double		slower;
	double		above;

	f->at_once = s->at_once >= LIMIT_AT_ONCE;
	f->retry_after = refused_for(shape, s, m->now);
	f->hint = hint_now(m);
	if (f->retry_after > 0)
	{
		f->answer = THROTTLED;
		f->ends = m->now + shape->round_trip;
		f->server = -1;
		return;
	}
	s->pushes = 0;
	s->at_once++;
	s->count[slice_of(shape, s, m->now)]++;
	m->at_work++;
	slower = m->at_work > capacity_now(m) ? m->at_work / capacity_now(m) : 1;
	f->worked = (shape->per_request + shape->per_row * f->rows * (is_slow(m) ? 2 : 1)) * slower * (1 + shape->noise * (2 * uniform(m) - 1));
	f->answer = GOOD;
	above = shape->deadlock_from > 0 ? m->at_work - shape->deadlock_from : 0;
	if (above > 0 && uniform(m) < above * shape->deadlock_rate)
	{
		f->answer = DEADLOCK;
		f->worked /= 2;
	}
	if (shape->sql_timeout > 0 && f->worked > shape->sql_timeout)
	{
		f->answer = TOO_LONG;
		f->worked = shape->sql_timeout;
	}
	f->ends = m->now + f->worked + shape->round_trip;
}

static bool
send_one(Model *m)
{
	int			i = 0;
	Flight	   *f;
	Result	   *r = &m->result;

	if (!dv_pace_may_send(&m->pace, micros(m->now)) || !dv_pace_table_may_send(&m->table))
		return false;
	while (m->flights[i].used)
		i++;
	f = &m->flights[i];
	memset(f, 0, sizeof(*f));
	f->used = true;
	f->sent = m->now;
	f->rows = m->shape->rows > 0 ? m->shape->rows : m->table.bulk_rows;
	f->server = pick_server(m, i);
	r->requests++;
	r->requests_late += m->now > 60;
	r->in_hold += micros(m->now) < m->retry_at;
	r->above_hint += m->pace.in_flight >= m->pace.ceiling;
	dv_pace_sent(&m->pace, micros(m->now));
	m->table.in_flight++;
	arrive(m, f);
	return true;
}

static void
throttled(Model *m, const Flight *f, int64_t now)
{
	DvThrottle	told = {.retry_after_ms = lround(f->retry_after * 1000),.window = (int) window(m->shape),.at_once = f->at_once};

	dv_pace_throttled(&m->pace, &told, now);
}

static void
answer(Model *m, Flight *f)
{
	int64_t		now = micros(m->now);
	Result	   *r = &m->result;

	if (f->server >= 0)
	{
		Server	   *s = &m->servers[f->server];

		s->at_once--;
		s->time[slice_of(m->shape, s, m->now)] += f->worked;
		m->at_work--;
	}
	dv_pace_ended(&m->pace, 1, now);
	m->table.in_flight--;
	f->used = false;
	switch (f->answer)
	{
		case GOOD:
			r->rows += f->rows;
			dv_pace_table_bulk(&m->table, f->rows, m->now - f->sent);
			dv_pace_good(&m->pace, &m->table, f->hint, now);
			break;
		case THROTTLED:
			r->throttled++;
			r->throttled_late += m->now > 60;
			if (now + lround(f->retry_after * 1000) * 1000 > m->retry_at)
				m->retry_at = now + lround(f->retry_after * 1000) * 1000;
			throttled(m, f, now);
			break;
		case DEADLOCK:
			r->deadlocks++;
			dv_pace_table_deadlock(&m->table, now);
			break;
		case TOO_LONG:
			r->timeouts++;
			dv_pace_table_shrink(&m->table, f->rows);
			break;
	}
}

/* ---------------------------------------------------------------- the oracle */

/* Rows a second with n requests in flight of so many rows, were it allowed. */
static double
rows_a_second(const Shape *s, double n, int rows, double capacity)
{
	double		work = (s->per_request + s->per_row * rows);
	double		slower = n > capacity ? n / capacity : 1;
	double		above = s->deadlock_from > 0 && n > s->deadlock_from ? n - s->deadlock_from : 0;
	double		lost = above * s->deadlock_rate > 1 ? 1 : above * s->deadlock_rate;
	double		took = (1 - lost) * work * slower + lost * work * slower / 2;
	double		rate = n / (took + s->round_trip);
	double		most = s->servers * LIMIT_TIME / WINDOW / took;
	double		most_requests = (double) s->servers * LIMIT_REQUESTS / WINDOW;

	if (s->sql_timeout > 0 && work * slower * (1 + s->noise) > s->sql_timeout)
		return 0;
	rate = rate < most ? rate : most;
	rate = rate < most_requests ? rate : most_requests;
	return rate * (1 - lost) * rows;
}

/* The best of all numbers in flight within the hint and all sizes that take at most a target time. */
static double
best(const Shape *s, int hint, double capacity)
{
	double		most = 0;
	int			n;
	int			rows;

	for (n = 1; n <= hint; n++)
		for (rows = s->rows > 0 ? s->rows : 10; rows <= (s->rows > 0 ? s->rows : 1000); rows += 10)
			if (rows_a_second(s, n, rows, capacity) > most)
				most = rows_a_second(s, n, rows, capacity);
	return most;
}

/* A pace that is set, not found: the holds remain. */
static void
fix(Model *m, double limit, int rows)
{
	m->pace.limit = m->pace.soft = limit < hint_now(m) ? limit : hint_now(m);
	m->pace.last_growth = micros(m->now);
	m->pace.window.told = false;
	m->table.bulk_rows = rows;
	m->table.parallel = limit;
}

static Result
run(const Shape *shape, double seconds, unsigned seed, double limit, int rows)
{
	Model	   *m = calloc(1, sizeof(Model));
	Result		result;

	m->shape = shape;
	m->random = seed * 2654435761ULL + 88172645463325252ULL;
	dv_pace_init(&m->pace, shape->hint, micros(0));
	dv_pace_table_init(&m->table);
	while (m->now < seconds)
	{
		/* As the engine's loop does: answers as they come, else a look every 100 ms. */
		double		next = m->now + 0.1;
		Flight	   *first = NULL;
		int			i;

		if (limit > 0)
			fix(m, limit, rows);
		while (send_one(m))
			;
		for (i = 0; i < IN_FLIGHT_MAX; i++)
			if (m->flights[i].used && m->flights[i].ends <= next)
			{
				first = &m->flights[i];
				next = first->ends;
			}
		m->now = next;
		if (first != NULL)
			answer(m, first);
	}
	m->result.bulk_rows = m->table.bulk_rows;
	m->result.limit = m->pace.limit;
	result = m->result;
	free(m);
	return result;
}

Result
model_run(const Shape *shape, double seconds, unsigned seed)
{
	return run(shape, seconds, seed, 0, 0);
}

double
model_oracle(const Shape *shape, double seconds, unsigned seed)
{
	static const int sizes[] = {30, 60, 100, 1000};
	double		most = 0;
	double		limit;
	int			i;

	for (limit = 1; limit <= shape->hint; limit += limit < 12 ? 0.5 : 1)
		for (i = 0; i < (shape->rows > 0 ? 1 : (int) (sizeof(sizes) / sizeof(sizes[0]))); i++)
		{
			Result		r = run(shape, seconds, seed, limit, sizes[i]);

			if (r.rows > most && r.throttled_late * 100 <= r.requests_late)
				most = r.rows;
		}
	return most;
}

double
model_bound(const Shape *shape, double seconds)
{
	double		rows = seconds * best(shape, shape->hint, shape->capacity);

	Shape		slow = *shape;

	slow.per_row *= 2;
	if (shape->hint_later > 0)
		rows = (rows + seconds * best(shape, shape->hint_later, shape->hint_later)) / 2;
	if (shape->slow_period > 0)
		rows = (rows + seconds * best(&slow, shape->hint, shape->capacity)) / 2;
	return rows;
}

/*
 * t_pace.c - pace.c: its rules one by one, and against the modelled service
 *
 * The model (test/bench/pace) is deterministic, so that the figures are the
 * same everywhere; the bounds are those that the pace must keep in it.
 */
#include <string.h>

#include "model.h"
#include "pace.h"
#include "rate.h"
#include "tap.h"

#define SECOND	1000000LL

/* With the sanitizers a long run takes long: then only the rules are looked at. */
#ifdef __SANITIZE_ADDRESS__
#define RUN_SECONDS		900.0
#define WITH_ORACLE		0
#else
#define RUN_SECONDS		1200.0
#define WITH_ORACLE		1
#endif

/* Part of the oracle's rows in this short time; over hours see doc/performance.md. */
#define PART			0.95

/* The services beyond the six: part of a bound that no sender can reach. */
#define SIX				6
#define PART_OF_BOUND	0.85

static void
test_limits(void)
{
	DvPace		p;
	int			sent = 0;

	dv_pace_init(&p, 2, SECOND);
	while (dv_pace_may_send(&p, SECOND) && sent < 100)
	{
		dv_pace_sent(&p, SECOND);
		sent++;
	}
	ok(sent == 2, "never above the hint, not at first either");
	dv_pace_init(&p, 0, SECOND);
	ok(dv_pace_places(&p) == 4, "begins low");
	dv_pace_init(&p, 48, SECOND);
	ok(dv_pace_places(&p) == 12, "and with a quarter of what is advised");
	for (sent = 0; sent < 100; sent++)
		dv_pace_good(&p, NULL, 48, 2 * SECOND);
	ok(dv_pace_places(&p) == 48, "grows up to the hint");
	dv_pace_good(&p, NULL, 6, 2 * SECOND);
	ok(dv_pace_places(&p) == 6, "follows a hint that falls");
	dv_pace_trouble(&p, 3 * SECOND);
	dv_pace_trouble(&p, 3 * SECOND + 1000);
	ok(dv_pace_places(&p) == 3, "halves once for one trouble");
}

/* Refused by a service that does not tell its window. */
static void
throttled(DvPace *p, long retry_after_ms, int attempt, int64_t now)
{
	DvThrottle	told = {.retry_after_ms = retry_after_ms,.attempt = attempt};

	dv_pace_throttled(p, &told, now);
}

static void
test_hold(void)
{
	DvPace		p;
	int64_t		now = 100 * SECOND;
	int			i;

	dv_pace_init(&p, 8, now - 10 * SECOND);
	for (i = 0; i < 4; i++)
		dv_pace_sent(&p, now - 10 * SECOND);
	dv_pace_ended(&p, 4, now);
	throttled(&p, 5000, 0, now);
	ok(dv_pace_places(&p) == 2, "what the service bore is what was in flight, the hold included");
	throttled(&p, 2000, 0, now + SECOND);
	ok(!dv_pace_may_send(&p, now + 5 * SECOND - 1), "nothing is sent before the longest Retry-After is over");
	ok(dv_pace_may_send(&p, now + 5 * SECOND), "then one request goes");
	dv_pace_sent(&p, now + 5 * SECOND);
	ok(!dv_pace_may_send(&p, now + 5 * SECOND), "and one alone");
	ok(dv_pace_may_send(&p, now + 7 * SECOND), "more when it was not refused");
	dv_pace_ended(&p, 1, now + 7 * SECOND);
	throttled(&p, -1, 3, now + 20 * SECOND);
	ok(!dv_pace_may_send(&p, now + 28 * SECOND - 1) && dv_pace_may_send(&p, now + 28 * SECOND), "without Retry-After: two to the power of the attempt");
	dv_pace_init(&p, 8, now);
	throttled(&p, 1000, 0, now + SECOND);
	ok(dv_pace_may_send(&p, now + 2 * SECOND), "a short Retry-After is believed");
	dv_pace_sent(&p, now + 2 * SECOND);
	dv_pace_ended(&p, 1, now + 2 * SECOND);
	throttled(&p, 1000, 0, now + 2 * SECOND);
	ok(!dv_pace_may_send(&p, now + 4 * SECOND - 1) && dv_pace_may_send(&p, now + 4 * SECOND), "until it proves too short: then holds double");
	dv_pace_init(&p, 8, now);
	throttled(&p, 100000, 0, now + SECOND);
	ok(dv_pace_places(&p) == 2 && p.soft == 0, "throttled for what was not of our doing, less is sent and nothing learnt");
	dv_pace_init(&p, 8, now);
	dv_pace_told(&p, now + 5 * SECOND, now);
	dv_pace_told(&p, now + 2 * SECOND, now + SECOND);
	ok(!dv_pace_may_send(&p, now + 5 * SECOND - 1), "what another process was told to wait is waited for");
	ok(dv_pace_may_send(&p, now + 5 * SECOND), "then one request goes");
	dv_pace_sent(&p, now + 5 * SECOND);
	ok(!dv_pace_may_send(&p, now + 5 * SECOND) && dv_pace_places(&p) == 4, "and one alone, but nothing was learnt of what may be sent");
	dv_pace_init(&p, 8, now - 10 * SECOND);
	for (i = 0; i < 4; i++)
		dv_pace_sent(&p, now - 10 * SECOND);
	dv_pace_ended(&p, 4, now);
	dv_pace_told(&p, now + 5 * SECOND + 1000, now);
	throttled(&p, 5000, 0, now);
	ok(dv_pace_places(&p) == 2, "it is learnt from a refusal that was heard of before");
}

/* Requests of a second, as many as may be, for so long; those sent. */
static int
send_for(DvPace *p, int seconds, int64_t *now)
{
	int			sent = 0;
	int			i;

	for (i = 0; i < seconds; i++, *now += SECOND)
	{
		dv_pace_ended(p, p->in_flight, *now);
		for (; dv_pace_may_send(p, *now); sent++)
			dv_pace_sent(p, *now);
	}
	dv_pace_ended(p, p->in_flight, *now);
	return sent;
}

/* A process may end before its user signed in: ages of nothing are not walked over. */
static void
test_ages(void)
{
	DvPace		p;

	dv_pace_init(&p, 8, 0);
	dv_pace_ended(&p, 0, INT64_MAX / 2);
	ok(dv_window_used(&p.window) == 0, "what was before anything was sent costs nothing");
	dv_pace_sent(&p, INT64_MAX / 2);
	dv_pace_ended(&p, 1, INT64_MAX / 2 + 1000000);
	ok(dv_window_used(&p.window) > 0.99 && dv_window_used(&p.window) < 1.01, "and what comes then is counted");
}

/* The window that the service tells of: what was used in it, and when it is free again. */
static void
test_window(void)
{
	DvThrottle	told = {.retry_after_ms = 1000,.window = 60};
	int64_t		now = 100 * SECOND;
	DvPace		p;
	int			sent;

	dv_pace_init(&p, 20, now);
	p.limit = 20;
	(void) send_for(&p, 60, &now);
	dv_pace_throttled(&p, &told, now);
	ok(p.window.told && p.window.seconds == 60, "the service tells its window");
	ok(p.soft > 18.5 && p.soft <= 20, "what was used in it is what it bears");
	(void) send_for(&p, 60, &now);
	sent = send_for(&p, 60, &now);
	ok(sent > 1020 && sent <= 1200, "and that is used from then on, window for window (%d)", sent);
	dv_pace_init(&p, 40, now);
	p.limit = 40;
	(void) send_for(&p, 30, &now);
	dv_pace_throttled(&p, &told, now);
	ok(p.soft == 0 && dv_pace_places(&p) >= 18 && dv_pace_places(&p) <= 20, "before a whole window was seen it is not taken for sure");
	told.window = 0;
	told.at_once = true;
	dv_pace_init(&p, 40, now);
	p.limit = 40;
	p.in_flight = 29;
	dv_pace_throttled(&p, &told, now);
	ok(p.soft == 0 && dv_pace_places(&p) == 26, "too many at once: fewer than were in flight, and nothing is learnt of the window");
}

/* All of it used up at once: what comes free is known, and nothing is sent before. */
static void
test_used_up(void)
{
	DvThrottle	told = {.retry_after_ms = 1000,.window = 60};
	int64_t		now = 100 * SECOND;
	DvPace		p;

	dv_pace_init(&p, 30, now);
	p.limit = 1;
	(void) send_for(&p, 40, &now);
	p.limit = 30;
	(void) send_for(&p, 20, &now);
	p.limit = 30;
	dv_pace_throttled(&p, &told, now);
	ok(p.soft > 9 && p.soft < 11, "used in a third of the window");
	now += 2 * SECOND;
	ok(send_for(&p, 30, &now) < 120, "little is sent until that is over");
	now += 10 * SECOND;
	ok(send_for(&p, 20, &now) > 150, "and then it goes on");
}

/* Slower answers: fewer in flight where that helps, and only there. */
static void
test_strain(void)
{
	DvTablePace t;
	DvPace		p;
	int64_t		now = 100 * SECOND;
	int			i;

	dv_pace_init(&p, 40, now);
	dv_pace_table_init(&t);
	for (i = 0; i < 200; i++)
	{
		dv_pace_table_bulk(&t, t.bulk_rows, t.bulk_rows * 0.001);
		dv_pace_good(&p, &t, 40, now += SECOND / 10);
	}
	ok(dv_pace_places(&p) == 40, "quick answers: all places");
	for (i = 0; i < 2000; i++)
	{
		/* the service works on ten at a time */
		dv_pace_table_bulk(&t, t.bulk_rows, t.bulk_rows * 0.001 * (p.limit > 10 ? p.limit / 10 : 1));
		dv_pace_good(&p, &t, 40, now += SECOND / 10);
	}
	ok(p.limit > 9 && p.limit < 16, "requests that wait for each other: fewer (%.1f)", p.limit);
	dv_pace_init(&p, 40, now);
	dv_pace_table_init(&t);
	for (i = 0; i < 4000; i++)
	{
		dv_pace_table_bulk(&t, t.bulk_rows, t.bulk_rows * (i < 200 ? 0.001 : 0.003));
		dv_pace_good(&p, &t, 40, now += SECOND / 10);
	}
	ok(p.limit > 35, "a row that takes longer whatever is in flight: as many as before (%.1f)", p.limit);
}

static void
test_part_of_a_request(void)
{
	DvPace		p;
	double		busy = 0;
	int			i;

	dv_pace_init(&p, 8, SECOND);
	p.limit = p.soft = 2.5;
	p.ceiling = 8;
	for (i = 0; i < 1000; i++)
	{
		int64_t		now = SECOND + i * SECOND;

		/* each request takes a second */
		dv_pace_ended(&p, p.in_flight, now);
		while (dv_pace_may_send(&p, now))
			dv_pace_sent(&p, now);
		busy += p.in_flight;
	}
	ok(busy > 2450 && busy < 2550, "two and a half in flight are two and three by turns");
}

static void
test_table(void)
{
	DvTablePace t;
	int			i;

	dv_pace_table_init(&t);
	for (i = 0; i < 20; i++)
		dv_pace_table_bulk(&t, t.bulk_rows, 0.2);
	ok(t.bulk_rows == 1000, "rows grow while answers are quick");
	ok(dv_pace_table_rows(&t, 100 * 1024) == 81, "but no further than the target size in bytes");
	for (i = 0; i < 40; i++)
		dv_pace_table_bulk(&t, t.bulk_rows, t.bulk_rows * 0.5);
	ok(t.bulk_rows >= 8 && t.bulk_rows <= 10, "and shrink to the target time where a row takes half a second");
	dv_pace_table_init(&t);
	t.bulk_rows = 800;
	dv_pace_table_shrink(&t, 800);
	ok(t.bulk_max == 400 && t.bulk_rows == 400, "what was too much is remembered as a cap");
	for (i = 0; i < 99; i++)
		dv_pace_table_bulk(&t, 400, 0.2);
	ok(t.bulk_max == 400, "which holds");
	for (i = 0; i < 1000; i++)
		dv_pace_table_bulk(&t, t.bulk_rows, 0.2);
	ok(t.bulk_max > 400, "until many good answers have come");
	dv_pace_table_init(&t);
	dv_pace_table_resume(&t, 5000, 70, 3, 1000);
	ok(t.bulk_rows == 70 && t.bulk_max == 70 && t.each_rows == 3 && t.parallel <= 64, "what an earlier run learnt is taken up, within bounds");
	t.in_flight = 10;
	dv_pace_table_deadlock(&t, SECOND);
	dv_pace_table_deadlock(&t, SECOND + 10);
	ok(!dv_pace_table_may_send(&t) && t.parallel > 8, "a deadlock shrinks the table's requests at once, once");
}

static void
test_rate(void)
{
	DvRate		rate;
	long		sent = 0;
	int			i;

	dv_rate_set(&rate, 50, 0);
	for (i = 0; i < 100 * 10; i++)
		if (dv_rate_may_send(&rate, i * SECOND / 10))
		{
			dv_rate_sent(&rate, 200, i * SECOND / 10);
			sent += 200;
		}
	ok(sent >= 4900 && sent <= 5300, "a cap on rows a second holds on average");
	dv_rate_set(&rate, 0, 0);
	ok(dv_rate_may_send(&rate, 1), "0 is no cap");
}

static void
test_service(const Shape *shape)
{
	/* a window has few slow requests: what is borne shows late; and a Retry-After that is too short is refused many times at first */
	double		seconds = RUN_SECONDS * (shape->sql_timeout > 0 || shape->retry_after > 0 ? 4 : 1);
	Result		r = model_run(shape, seconds, 1);
	char		text[128];
	double		part = shape - shapes < SIX ? PART * (WITH_ORACLE ? model_oracle(shape, seconds, 1) : 0)
		: PART_OF_BOUND * model_bound(shape, seconds);

	snprintf(text, sizeof(text), "%s: nothing is sent during a Retry-After", shape->name);
	ok(r.in_hold == 0, "%s", text);
	snprintf(text, sizeof(text), "%s: nor with more in flight than advised", shape->name);
	ok(r.above_hint <= 1, "%s", text);
	snprintf(text, sizeof(text), "%s: fewer than one request in a hundred is throttled after a minute", shape->name);
	ok(r.throttled_late * 100 < r.requests_late, "%s", text);
	snprintf(text, sizeof(text), "%s: near what %s (%.3f)", shape->name, shape - shapes < SIX ? "an oracle reaches" : "no sender passes",
			 part > 0 ? r.rows / part * (shape - shapes < SIX ? PART : PART_OF_BOUND) : 0);
	ok(r.rows >= part, "%s", text);
}

int
main(void)
{
	int			i;

	test_limits();
	test_hold();
	test_ages();
	test_window();
	test_used_up();
	test_strain();
	test_part_of_a_request();
	test_table();
	test_rate();
	for (i = 0; i < nshapes; i++)
		test_service(&shapes[i]);
	return done_testing();
}

/*
 * t_pace.c - pace.c: its rules one by one, and against the modelled service
 *
 * The model (test/bench/pace) is deterministic, so that the figures are the
 * same everywhere; the bounds are those that the pace must keep in it.
 */
#include <string.h>

#include "model.h"
#include "pace.h"
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

/*
 * Part of the oracle's rows in this short time. Less where what is borne shows
 * late: a window of 300 s has few slow requests, and pinned connections fall on
 * the web servers by chance. Over hours it is more (doc/performance.md).
 */
#define PART			0.95
#define PART_SLOW		0.90
#define PART_PINNED		0.80

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
	dv_pace_init(&p, 48, SECOND);
	ok(dv_pace_places(&p) == 4, "begins low");
	for (sent = 0; sent < 100; sent++)
		dv_pace_good(&p, NULL, 48, 2 * SECOND);
	ok(dv_pace_places(&p) == 48, "grows up to the hint");
	dv_pace_good(&p, NULL, 6, 2 * SECOND);
	ok(dv_pace_places(&p) == 6, "follows a hint that falls");
	dv_pace_trouble(&p, 3 * SECOND);
	dv_pace_trouble(&p, 3 * SECOND + 1000);
	ok(dv_pace_places(&p) == 3, "halves once for one trouble");
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
	dv_pace_throttled(&p, 5000, 0, now);
	ok(dv_pace_places(&p) == 2, "what the service bore is what was in flight, the hold included");
	dv_pace_throttled(&p, 2000, 0, now + SECOND);
	ok(!dv_pace_may_send(&p, now + 5 * SECOND - 1), "nothing is sent before the longest Retry-After is over");
	ok(dv_pace_may_send(&p, now + 5 * SECOND), "then one request goes");
	dv_pace_sent(&p, now + 5 * SECOND);
	ok(!dv_pace_may_send(&p, now + 5 * SECOND), "and one alone");
	ok(dv_pace_may_send(&p, now + 7 * SECOND), "more when it was not refused");
	dv_pace_ended(&p, 1, now + 7 * SECOND);
	dv_pace_throttled(&p, -1, 3, now + 20 * SECOND);
	ok(!dv_pace_may_send(&p, now + 28 * SECOND - 1) && dv_pace_may_send(&p, now + 28 * SECOND), "without Retry-After: two to the power of the attempt");
	dv_pace_init(&p, 8, now);
	dv_pace_throttled(&p, 1000, 0, now + SECOND);
	ok(dv_pace_may_send(&p, now + 2 * SECOND), "a short Retry-After is believed");
	dv_pace_sent(&p, now + 2 * SECOND);
	dv_pace_ended(&p, 1, now + 2 * SECOND);
	dv_pace_throttled(&p, 1000, 0, now + 2 * SECOND);
	ok(!dv_pace_may_send(&p, now + 4 * SECOND - 1) && dv_pace_may_send(&p, now + 4 * SECOND), "until it proves too short: then holds double");
	dv_pace_init(&p, 8, now);
	dv_pace_throttled(&p, 100000, 0, now + SECOND);
	ok(dv_pace_places(&p) == 2 && p.soft == 0, "throttled for what was not of our doing, less is sent and nothing learnt");
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
	ok(t.bulk_rows >= 15 && t.bulk_rows <= 20, "and shrink to the target time where a row takes half a second");
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
	Result		r = model_run(shape, RUN_SECONDS, 1);
	char		text[128];
	double		part;

	snprintf(text, sizeof(text), "%s: nothing is sent during a Retry-After", shape->name);
	ok(r.in_hold == 0, "%s", text);
	snprintf(text, sizeof(text), "%s: nor with more in flight than advised", shape->name);
	ok(r.above_hint <= 1, "%s", text);
	snprintf(text, sizeof(text), "%s: fewer than one request in a hundred is throttled after a minute", shape->name);
	ok(r.throttled_late * 100 < r.requests_late, "%s", text);
	if (!WITH_ORACLE)
		return;
	snprintf(text, sizeof(text), "%s: near what an oracle reaches", shape->name);
	part = shape->pinned ? PART_PINNED : shape->sql_timeout > 0 ? PART_SLOW : PART;
	ok(r.rows >= part * model_oracle(shape, RUN_SECONDS, 1), "%s", text);
}

int
main(void)
{
	int			i;

	test_limits();
	test_hold();
	test_part_of_a_request();
	test_table();
	test_rate();
	for (i = 0; i < nshapes; i++)
		test_service(&shapes[i]);
	return done_testing();
}

/*
 * main.c - pace.c against kinds of service: regret against an oracle
 *
 *   pace [seconds [seeds]]
 *   pace like SERVERS HINT LATENCY_MS ROW_US ROWS SCALE RETRY_AFTER_S PINNED SECONDS
 *
 * "like" prints which part of the bound the oracle reaches in a service that
 * test/bench/limits sets up: requests of so many rows, windows and limits so many
 * times smaller.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

static void
add(Result *sum, const Result *r)
{
	sum->rows += r->rows;
	sum->requests += r->requests;
	sum->throttled_late += r->throttled_late;
	sum->requests_late += r->requests_late;
	sum->in_hold += r->in_hold;
	sum->above_hint += r->above_hint;
	sum->deadlocks += r->deadlocks;
	sum->timeouts += r->timeouts;
	sum->bulk_rows = r->bulk_rows;
	sum->limit = r->limit;
}

static void
print(const Shape *shape, double seconds, int seeds)
{
	Result		sum = {0};
	double		oracle = 0;
	double		bound = seeds * model_bound(shape, seconds);
	int			seed;

	for (seed = 1; seed <= seeds; seed++)
	{
		Result		r = model_run(shape, seconds, seed);

		add(&sum, &r);
		oracle += model_oracle(shape, seconds, seed);
	}
	printf("%-20s %9.1f %9.1f %7.1f%% %7.1f%% %7.2f%% %6ld %6d %6.1f%% %6ld %5d %6.2f\n",
		   shape->name, sum.rows / seconds / seeds, oracle / seconds / seeds, 100 - 100 * sum.rows / oracle, 100 * sum.rows / bound,
		   100.0 * sum.throttled_late / sum.requests_late, sum.in_hold, sum.above_hint,
		   100.0 * sum.deadlocks / sum.requests, sum.timeouts, sum.bulk_rows, sum.limit);
}

static int
like(char **argv)
{
	Shape		shape = {
		.name = "like",.servers = atoi(argv[0]),.hint = atoi(argv[1]),.round_trip = 0.001,.per_request = atof(argv[2]) / 1e3,
		.per_row = atof(argv[3]) / 1e6,.rows = atoi(argv[4]),.scale = atof(argv[5]),.retry_after = atof(argv[6]),
		.pinned = atoi(argv[7]),.capacity = 1000,.noise = 0.05
	};
	double		seconds = atof(argv[8]);

	printf("%.3f\n", model_oracle(&shape, seconds, 1) / model_bound(&shape, seconds));
	return 0;
}

int
main(int argc, char **argv)
{
	double		seconds = argc > 1 ? atof(argv[1]) : 7200;
	int			seeds = argc > 2 ? atoi(argv[2]) : 3;
	int			i;

	if (argc == 11 && strcmp(argv[1], "like") == 0)
		return like(argv + 2);
	printf("%-20s %9s %9s %8s %8s %8s %6s %6s %7s %6s %5s %6s\n", "service", "rows/s", "oracle", "regret", "of bound",
		   "429", "held", "above", "1205", "slow", "rows", "limit");
	for (i = 0; i < nshapes; i++)
		print(&shapes[i], seconds, seeds);
	return 0;
}

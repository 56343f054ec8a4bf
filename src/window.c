/*
 * window.c - what an application user has used of late
 *
 * A ring of half seconds. Sums are taken when they are asked for, some times a
 * second: a running sum would gather rounding errors over days.
 */
#include "window.h"

#include <string.h>

#define SLICE			500000LL	/* microseconds */
#define SLICE_SECONDS	0.5

/* Dataverse's window, where it does not tell of another. */
#define WINDOW_SECONDS	300

/* What comes free is looked at from this part of the window on, for what is nearer evens out, up to that. */
#define NEAR			(1.0 / 30)
#define FAR				0.15

static float *
slice_of(DvWindow *window, int64_t number)
{
	return &window->used[number % DV_WINDOW_SLICES];
}

static float
used_in(const DvWindow *window, int64_t number)
{
	return number < window->began ? 0 : window->used[number % DV_WINDOW_SLICES];
}

static int
slices(const DvWindow *window)
{
	return (int) (window->seconds / SLICE_SECONDS);
}

void
dv_window_init(DvWindow *window, int64_t now)
{
	memset(window, 0, sizeof(DvWindow));
	window->seconds = WINDOW_SECONDS;
	window->began = window->slice = now / SLICE;
}

void
dv_window_tell(DvWindow *window, int seconds)
{
	if (seconds <= 0)
		return;
	window->told = true;
	window->seconds = seconds < WINDOW_SECONDS ? seconds : WINDOW_SECONDS;
}

void
dv_window_count(DvWindow *window, int in_flight, int64_t from, int64_t to)
{
	int64_t		oldest = to / SLICE - DV_WINDOW_SLICES + 1;

	/*
	 * After a pause all of it is over; so is the time before a user signed in,
	 * which has no beginning. This runs with a spinlock held: never walk over it.
	 */
	if (window->slice < oldest - 1)
	{
		memset(window->used, 0, sizeof(window->used));
		window->slice = oldest - 1;
	}
	if (from < oldest * SLICE)
		from = oldest * SLICE;
	while (from < to)
	{
		int64_t		number = from / SLICE;
		int64_t		end = (number + 1) * SLICE < to ? (number + 1) * SLICE : to;

		while (window->slice < number)
			*slice_of(window, ++window->slice) = 0;
		*slice_of(window, number) += (float) ((double) in_flight * (double) (end - from) / 1e6);
		from = end;
	}
}

double
dv_window_used(const DvWindow *window)
{
	double		sum = 0;
	int			i;

	for (i = 0; i < slices(window); i++)
		sum += used_in(window, window->slice - i);
	return sum;
}

double
dv_window_age(const DvWindow *window)
{
	double		age = (double) (window->slice - window->began + 1) * SLICE_SECONDS;

	return age < window->seconds ? age : window->seconds;
}

double
dv_window_bears(const DvWindow *window, double most)
{
	double		room = most - dv_window_used(window);
	double		least = most;
	int			n = slices(window);
	int			i;

	for (i = 1; i <= n * FAR; i++)
	{
		room += used_in(window, window->slice - n + i);
		if (i >= n * NEAR && room / (i * SLICE_SECONDS) < least)
			least = room / (i * SLICE_SECONDS);
	}
	return least > 0 ? least : 0;
}

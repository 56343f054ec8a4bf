/*
 * window.h - what an application user has used of late
 *
 * Dataverse counts over a sliding window what a user's requests take. The same
 * sum is kept here, of the time that requests were in flight, so that it is
 * known when what was used comes free again. No clock of its own: see pace.h.
 */
#ifndef DV_WINDOW_H
#define DV_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

/* Half seconds: as many as the longest window has, 300 s, and the one at work. */
#define DV_WINDOW_SLICES	601

typedef struct DvWindow
{
	double		seconds;		/* how long it is */
	bool		told;			/* by the service */
	int64_t		began;			/* slice in which counting began */
	int64_t		slice;			/* the one at work */
	float		used[DV_WINDOW_SLICES];	/* request-seconds, by number of the slice */
} DvWindow;

extern void dv_window_init(DvWindow *window, int64_t now);

/* The service tells how long it is; 0: it does not. */
extern void dv_window_tell(DvWindow *window, int seconds);

/* So many requests were in flight from then to then (microseconds). */
extern void dv_window_count(DvWindow *window, int in_flight, int64_t from, int64_t to);

/* Request-seconds within the window. */
extern double dv_window_used(const DvWindow *window);

/* Seconds that have been counted, up to the window's. */
extern double dv_window_age(const DvWindow *window);

/*
 * How many requests may be in flight from now on, so that what is used within
 * the window does not pass "most" request-seconds as far as can be foreseen.
 */
extern double dv_window_bears(const DvWindow *window, double most);

#endif							/* DV_WINDOW_H */

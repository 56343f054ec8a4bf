/*
 * model.h - a service with the limits of Dataverse, in virtual time
 *
 * Runs pace.c, as the extension is built with it, against a model of the
 * service. What comes out holds for this model only.
 */
#ifndef PACE_MODEL_H
#define PACE_MODEL_H

#include <stdbool.h>

/* A kind of organisation. Times in seconds, of a service at ease. */
typedef struct Shape
{
	const char *name;
	int			hint;			/* x-ms-dop-hint */
	int			servers;		/* web servers behind the address */
	bool		pinned;			/* a connection stays with its server until it is renewed */
	double		capacity;		/* requests it works on at full speed, all users together */
	double		round_trip;
	double		per_request;
	double		per_row;
	double		noise;			/* times vary by this part, up and down */
	int			deadlock_from;	/* requests of the table at work above which deadlocks begin; 0 = none */
	double		deadlock_rate;	/* part of the requests, for each one above */
	double		sql_timeout;	/* requests that work longer fail; 0 = none */
	int			hint_later;		/* the hint, and capacity, change to this half of the time; 0 = no */
	double		hint_period;
	double		slow_period;	/* a row takes twice as long this half of the time; 0 = no */
	double		scale;			/* windows and limits are so many times smaller; 0 = 1 */
	double		retry_after;	/* what it tells, in seconds; 0 = until enough of the window is over */
	int			rows;			/* of a request, where they are not to be found out; 0 = they are */
} Shape;

typedef struct Result
{
	double		rows;			/* written */
	long		requests;
	long		throttled;
	long		throttled_late; /* after the first minute, of ... */
	long		requests_late;
	long		in_hold;		/* sent while a Retry-After was running */
	long		deadlocks;
	long		timeouts;
	int			bulk_rows;		/* at the end */
	double		limit;
	int			above_hint;		/* sent with more in flight than advised */
} Result;

/* Six kinds of service, and what else must not unsettle the pace: all of them. */
extern const Shape shapes[];
extern const int nshapes;

/*
 * What the best numbers in flight and rows per request write in the same
 * service with at most one request in a hundred throttled, had they been known
 * from the beginning (found by trying them all); and a bound that no sender can
 * reach: every server used to its limit.
 */
extern double model_oracle(const Shape *shape, double seconds, unsigned seed);
extern double model_bound(const Shape *shape, double seconds);

/* Run for so long; the same seed gives the same result. */
extern Result model_run(const Shape *shape, double seconds, unsigned seed);

#endif							/* PACE_MODEL_H */

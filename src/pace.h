/*
 * pace.h - how many requests, how many rows each, when to hold
 *
 * No PostgreSQL and no clock of its own: times are handed in (microseconds),
 * so that the same code runs against a modelled service in virtual time
 * (test/bench/pace), where its constants were chosen.
 */
#ifndef DV_PACE_H
#define DV_PACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "window.h"

/* One application user's: Dataverse counts its limits per user. */
typedef struct DvPace
{
	double		limit;			/* requests in flight that are thought good */
	double		soft;			/* what the service bears on average; 0 = not known */
	double		left;			/* what the window has left for now */
	int64_t		looked;			/* when that was looked at */
	int			ceiling;		/* x-ms-dop-hint, or the default without one */
	int			in_flight;
	double		credit;			/* request-seconds saved up for the part of a request that "limit" has */
	bool		started;		/* past the first, quick growth */
	int64_t		hold_until;		/* nothing of this user may be sent before */
	int64_t		told_until;		/* nor before this, by what others of this user were told */
	int			probes;			/* after a hold: requests of this round; 0 = no hold of late */
	int			probed;			/* of them sent */
	int64_t		learnt;			/* when "soft" was */
	int			refused;		/* holds in a row that were too short */
	int64_t		probe_round;	/* when the round began; 0 = not yet */
	int64_t		last_shrink;
	int64_t		last_growth;
	DvWindow	window;			/* what was used of late */
	int64_t		counted;		/* up to when credit and window are counted */
	double		strained;		/* the limit when answers had become slow; 0 = they are not */
	double		strained_usual; /* and how long a row took then */
} DvPace;

/* What an answer 429 says. */
typedef struct DvThrottle
{
	long		retry_after_ms; /* -1: not told */
	int			attempt;		/* of the request that was refused */
	int			window;			/* seconds over which the service counts; 0: not told */
	bool		at_once;		/* for too many at once: nothing is used up */
} DvThrottle;

/* One table's: tables differ in what they take. */
typedef struct DvTablePace
{
	int			bulk_rows;		/* rows of the next bulk request */
	int			bulk_max;		/* learnt cap */
	int			bulk_good;		/* answers at the cap since it was learnt */
	int			each_rows;		/* operations of the next $batch */
	int			answers;		/* that "usual" is of, up to a number */
	double		quick;			/* seconds a row when the service is at ease; 0 = not known */
	double		usual;			/* seconds a row of late */
	double		parallel;		/* requests at once that it bears without deadlocks */
	int			in_flight;
	int64_t		last_deadlock;
} DvTablePace;

extern void dv_pace_init(DvPace *pace, int dop_hint, int64_t now);
extern void dv_pace_table_init(DvTablePace *table);

/* Begin where an earlier run left off. */
extern void dv_pace_table_resume(DvTablePace *table, int bulk_rows, int bulk_max, int each_rows, double parallel);

/* Is there anything that a later run should know? */
extern bool dv_pace_table_has_learnt(const DvTablePace *table);

/* May another request be sent? It is counted by dv_pace_sent(), and again when it has ended. */
extern bool dv_pace_may_send(DvPace *pace, int64_t now);
extern void dv_pace_sent(DvPace *pace, int64_t now);
extern void dv_pace_ended(DvPace *pace, int n, int64_t now);

/* The same for the table that it is for. */
extern bool dv_pace_table_may_send(const DvTablePace *table);

/* Rows of the next bulk request, of about so many bytes each (0: not known). */
extern int	dv_pace_table_rows(const DvTablePace *table, size_t row_bytes);

/* How many at once, and whether nothing may be sent for a while. */
extern int	dv_pace_places(const DvPace *pace);
extern bool dv_pace_is_holding(const DvPace *pace, int64_t now);

/* A good answer; dop_hint 0 where it had none. */
extern void dv_pace_good(DvPace *pace, DvTablePace *table, int dop_hint, int64_t now);

/* A good answer for n rows in "seconds". */
extern void dv_pace_table_bulk(DvTablePace *table, int rows, double seconds);
extern void dv_pace_table_each(DvTablePace *table, int rows, double seconds);

/* Throttled: hold for Retry-After, and send less. */
extern void dv_pace_throttled(DvPace *pace, const DvThrottle *told, int64_t now);

/* Another process of the same user was throttled: hold as long; it says nothing of what we may send. */
extern void dv_pace_told(DvPace *pace, int64_t until, int64_t now);

/* The service had trouble (5xx, outage): fewer requests at once. */
extern void dv_pace_trouble(DvPace *pace, int64_t now);

/* The service fails: one request a time as a probe, and none before then. */
extern void dv_pace_hold(DvPace *pace, int64_t until);
/* A deadlock (Sql Number 1205): fewer requests at once of this table. */
extern void dv_pace_table_deadlock(DvTablePace *table, int64_t now);

/* A bulk request was refused for a bad row, or was too much. */
extern void dv_pace_table_refused(DvTablePace *table);
extern void dv_pace_table_shrink(DvTablePace *table, int rows);

/* Milliseconds to wait before try number "attempt" (from 1), with jitter. */
extern long dv_pace_backoff_ms(int attempt, uint32_t random);

#endif							/* DV_PACE_H */

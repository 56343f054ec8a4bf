/*
 * pace.h - how many requests, how many rows each, when to hold
 *
 * No PostgreSQL and no clock of its own: times are handed in (microseconds),
 * so that the same code runs against a modelled service in virtual time.
 */
#ifndef DV_PACE_H
#define DV_PACE_H

#include <stdbool.h>
#include <stdint.h>

/* One application user's: Dataverse counts its limits per user. */
typedef struct DvPace
{
	double		limit;			/* requests in flight allowed now */
	int			ceiling;		/* x-ms-dop-hint, or the default without one */
	int64_t		hold_until;		/* nothing of this user may be sent before */
	int64_t		last_shrink;
} DvPace;

/* One table's: tables differ in what they take. */
typedef struct DvTablePace
{
	int			bulk_rows;		/* rows of the next bulk request */
	int			bulk_max;		/* learnt cap */
	int			each_rows;		/* operations of the next $batch */
} DvTablePace;

/* A cap on rows a second that a person sets; rate 0 = none. */
typedef struct DvRate
{
	double		rate;
	double		credit;			/* rows that may go now; below 0 after a large request */
	int64_t		counted;		/* when the credit was counted last */
} DvRate;

extern void dv_rate_set(DvRate *rate, double rows_per_second, int64_t now);
extern bool dv_rate_may_send(DvRate *rate, int64_t now);
extern void dv_rate_sent(DvRate *rate, int rows, int64_t now);

extern void dv_pace_init(DvPace *pace, int dop_hint);
extern void dv_pace_table_init(DvTablePace *table);

/* May another request be sent? */
extern bool dv_pace_may_send(const DvPace *pace, int in_flight, int64_t now);

/* How many at once, and whether nothing may be sent for a while. */
extern int	dv_pace_places(const DvPace *pace);
extern bool dv_pace_is_holding(const DvPace *pace, int64_t now);

/* A good answer: n rows in "seconds". dop_hint 0 where the answer had none. */
extern void dv_pace_good(DvPace *pace, int dop_hint);
extern void dv_pace_table_bulk(DvTablePace *table, int rows, double seconds);
extern void dv_pace_table_each(DvTablePace *table, int rows, double seconds);

/* Throttled: hold for retry_after_ms (-1: not told), and send less. */
extern void dv_pace_throttled(DvPace *pace, long retry_after_ms, int attempt, int64_t now);

/* The service had trouble (deadlock, outage): fewer requests at once. */
extern void dv_pace_trouble(DvPace *pace, int64_t now);

/* The service fails: one request a time as a probe, and none before then. */
extern void dv_pace_hold(DvPace *pace, int64_t until);

/* A bulk request was refused for a bad row, or was too much. */
extern void dv_pace_table_refused(DvTablePace *table);
extern void dv_pace_table_shrink(DvTablePace *table, int rows);

/* Milliseconds to wait before try number "attempt" (from 1), with jitter. */
extern long dv_pace_backoff_ms(int attempt, uint32_t random);

#endif							/* DV_PACE_H */

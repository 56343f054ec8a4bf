/*
 * rate.h - a cap on rows a second that a person sets
 *
 * No clock of its own: times are handed in, in microseconds; see pace.h.
 */
#ifndef DV_RATE_H
#define DV_RATE_H

#include <stdbool.h>
#include <stdint.h>

/* Rate 0 = none. */
typedef struct DvRate
{
	double		rate;
	double		credit;			/* rows that may go now; below 0 after a large request */
	int64_t		counted;		/* when the credit was counted last */
} DvRate;

extern void dv_rate_set(DvRate *rate, double rows_per_second, int64_t now);
extern bool dv_rate_may_send(DvRate *rate, int64_t now);
extern void dv_rate_sent(DvRate *rate, int rows, int64_t now);

#endif							/* DV_RATE_H */

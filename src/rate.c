/*
 * rate.c - a cap on rows a second that a person sets
 */
#include "rate.h"

#define SECOND				1000000LL

void
dv_rate_set(DvRate *rate, double rows_per_second, int64_t now)
{
	rate->rate = rows_per_second;
	rate->credit = 0;
	rate->counted = now;
}

/* What was not used in a second is not saved up for later. */
bool
dv_rate_may_send(DvRate *rate, int64_t now)
{
	if (rate->rate <= 0)
		return true;
	rate->credit += rate->rate * (now > rate->counted ? (double) (now - rate->counted) / SECOND : 0);
	rate->counted = now;
	if (rate->credit > rate->rate)
		rate->credit = rate->rate;
	return rate->credit >= 0;
}

void
dv_rate_sent(DvRate *rate, int rows, int64_t now)
{
	if (rate->rate > 0 && dv_rate_may_send(rate, now))
		rate->credit -= rows;
}

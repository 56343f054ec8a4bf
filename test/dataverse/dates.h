/*
 * dates.h - calendar dates and instants as Dataverse writes them
 */
#ifndef SIM_DATES_H
#define SIM_DATES_H

#include "util.h"

typedef struct SimInstant
{
	int64_t		seconds;		/* since 1970, UTC */
	int			year;			/* as written */
	bool		has_time;
	bool		has_zone;		/* Z or an offset */
} SimInstant;

/*
 * Read YYYY-MM-DD, or YYYY-MM-DDThh:mm[:ss[.f]] with Z, +hh:mm, -hh:mm or
 * nothing. Fractions of a second are dropped. False when malformed.
 */
extern bool sim_date_parse(const char *s, size_t len, SimInstant *out);

/* Append 2024-05-31 (days since 1970), or 2024-05-31T10:00:00Z (seconds). */
extern void sim_date_put_day(SimBuf *b, int64_t days);
extern void sim_date_put_time(SimBuf *b, int64_t seconds);

#endif							/* SIM_DATES_H */

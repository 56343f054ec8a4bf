/*
 * payload_time.c - dates and times as JSON, from the stored numbers
 *
 * Neither TimeZone nor DateStyle plays a part. Fractions of a second are cut
 * off: Dataverse keeps whole seconds, and what was sent must compare equal to
 * what is read back.
 */
#include "postgres.h"

#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "payload_write.h"

/* Dates that Dataverse accepts, in days since 2000-01-01, PostgreSQL's epoch. */
#define FIRST_DAY	(-90214)	/* 1753-01-01, the first date of SQL Server's datetime */
#define LAST_DAY	2921938		/* 9999-12-30, Dataverse's latest */

static const char too_early[] = "the date is before 1753-01-01";
static const char too_late[] = "the date is after 9999-12-30";
static const char infinite[] = "the date is infinite";

static inline char *
put_two(char *p, int n)
{
	*p++ = (char) ('0' + n / 10);
	*p++ = (char) ('0' + n % 10);
	return p;
}

/* Put YYYY-MM-DD, for a day in range. */
static char *
put_date(char *p, int32 days)
{
	int			year;
	int			month;
	int			day;

	j2date(days + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	p = put_two(p, year / 100);
	p = put_two(p, year % 100);
	*p++ = '-';
	p = put_two(p, month);
	*p++ = '-';
	return put_two(p, day);
}

static const char *
check_day(int64 days)
{
	if (days < FIRST_DAY)
		return too_early;
	if (days > LAST_DAY)
		return too_late;
	return NULL;
}

/* Write a day, with "tail" behind it (closing quote included). */
static const char *
write_day(StringInfo out, int64 days, const char *tail, int tail_len)
{
	char		text[16];
	char	   *p = text;
	const char *fault = check_day(days);

	if (fault != NULL)
		return fault;
	*p++ = '"';
	p = put_date(p, (int32) days);
	appendBinaryStringInfo(out, text, p - text);
	appendBinaryStringInfo(out, tail, tail_len);
	return NULL;
}

/* Day and microseconds within it; also right before the epoch. */
static int64
split_timestamp(Timestamp value, int64 *micros)
{
	int64		days = value / USECS_PER_DAY;

	*micros = value % USECS_PER_DAY;
	if (*micros < 0)
	{
		*micros += USECS_PER_DAY;
		days--;
	}
	return days;
}

const char *
dv_payload_write_date(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	DateADT		days = DatumGetDateADT(value);

	(void) plan;
	if (DATE_NOT_FINITE(days))
		return infinite;
	return write_day(out, days, "\"", 1);
}

const char *
dv_payload_write_date_at_midnight(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	DateADT		days = DatumGetDateADT(value);

	(void) plan;
	if (DATE_NOT_FINITE(days))
		return infinite;
	return write_day(out, days, "T00:00:00Z\"", 11);
}

/* Of timestamp its date, of timestamptz its date in UTC. */
const char *
dv_payload_write_timestamp_date(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	Timestamp	instant = DatumGetTimestamp(value);
	int64		micros;

	(void) plan;
	if (TIMESTAMP_NOT_FINITE(instant))
		return infinite;
	return write_day(out, split_timestamp(instant, &micros), "\"", 1);
}

/*
 * Both timestamp types are microseconds since 2000-01-01; timestamptz counts
 * them in UTC. The Z is right for it, says UTC for a timestamp sent to a
 * UserLocal column, and is ignored by a TimeZoneIndependent one.
 */
const char *
dv_payload_write_timestamp(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	Timestamp	instant = DatumGetTimestamp(value);
	char		text[32];
	char	   *p = text;
	int64		micros;
	int64		days;
	int			seconds;
	const char *fault;

	(void) plan;
	if (TIMESTAMP_NOT_FINITE(instant))
		return infinite;
	days = split_timestamp(instant, &micros);
	fault = check_day(days);
	if (fault != NULL)
		return fault;

	seconds = (int) (micros / USECS_PER_SEC);
	*p++ = '"';
	p = put_date(p, (int32) days);
	*p++ = 'T';
	p = put_two(p, seconds / SECS_PER_HOUR);
	*p++ = ':';
	p = put_two(p, seconds / SECS_PER_MINUTE % MINS_PER_HOUR);
	*p++ = ':';
	p = put_two(p, seconds % SECS_PER_MINUTE);
	*p++ = 'Z';
	*p++ = '"';
	appendBinaryStringInfo(out, text, p - text);
	return NULL;
}

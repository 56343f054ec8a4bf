/*
 * dates.c - calendar dates and instants as Dataverse writes them
 */
#include "dates.h"

/* Days since 1970 of a proleptic Gregorian date (Howard Hinnant's method). */
static int64_t
days_from_civil(int64_t y, int m, int d)
{
	int64_t		era,
				yoe,
				doy;

	y -= m <= 2;
	era = (y >= 0 ? y : y - 399) / 400;
	yoe = y - era * 400;
	doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static void
civil_from_days(int64_t z, int64_t *y, int *m, int *d)
{
	int64_t		era,
				doe,
				yoe,
				doy,
				mp;

	z += 719468;
	era = (z >= 0 ? z : z - 146096) / 146097;
	doe = z - era * 146097;
	yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	mp = (5 * doy + 2) / 153;
	*d = (int) (doy - (153 * mp + 2) / 5 + 1);
	*m = (int) (mp < 10 ? mp + 3 : mp - 9);
	*y = yoe + era * 400 + (*m <= 2);
}

/* Read exactly n digits; -1 when there are fewer. */
static int
digits(const char **s, const char *end, int n)
{
	int			v = 0;

	if (end - *s < n)
		return -1;
	for (int i = 0; i < n; i++)
	{
		char		c = (*s)[i];

		if (c < '0' || c > '9')
			return -1;
		v = v * 10 + c - '0';
	}
	*s += n;
	return v;
}

static bool
expect(const char **s, const char *end, char c)
{
	if (*s >= end || **s != c)
		return false;
	(*s)++;
	return true;
}

static int
month_days(int y, int m)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	return m == 2 && ((y % 4 == 0 && y % 100 != 0) || y % 400 == 0) ? 29 : days[m - 1];
}

/* Z, +hh:mm or -hh:mm; the offset in seconds. */
static bool
read_zone(const char **s, const char *end, int *offset)
{
	int			sign,
				h,
				m;

	*offset = 0;
	if (expect(s, end, 'Z') || expect(s, end, 'z'))
		return true;
	sign = **s == '-' ? -1 : 1;
	if (**s != '-' && **s != '+')
		return false;
	(*s)++;
	if ((h = digits(s, end, 2)) < 0 || h > 14)
		return false;
	expect(s, end, ':');
	if ((m = digits(s, end, 2)) < 0 || m > 59)
		return false;
	*offset = sign * (h * 3600 + m * 60);
	return true;
}

static bool
read_time(const char **s, const char *end, SimInstant *out)
{
	int			h,
				m,
				sec = 0,
				offset;

	out->has_time = true;
	if ((h = digits(s, end, 2)) < 0 || h > 23 || !expect(s, end, ':'))
		return false;
	if ((m = digits(s, end, 2)) < 0 || m > 59)
		return false;
	if (expect(s, end, ':') && ((sec = digits(s, end, 2)) < 0 || sec > 59))
		return false;
	if (expect(s, end, '.'))
	{
		const char *from = *s;

		while (*s < end && **s >= '0' && **s <= '9')
			(*s)++;
		if (*s == from)
			return false;
	}
	out->seconds += h * 3600 + m * 60 + sec;
	if (*s == end)
		return true;
	if (!read_zone(s, end, &offset))
		return false;
	out->has_zone = true;
	out->seconds -= offset;
	return *s == end;
}

bool
sim_date_parse(const char *s, size_t len, SimInstant *out)
{
	const char *end = s + len;
	int			m,
				d;

	out->has_time = out->has_zone = false;
	if ((out->year = digits(&s, end, 4)) < 1 || !expect(&s, end, '-') ||
		(m = digits(&s, end, 2)) < 1 || m > 12 || !expect(&s, end, '-') ||
		(d = digits(&s, end, 2)) < 1 || d > month_days(out->year, m))
		return false;
	out->seconds = days_from_civil(out->year, m, d) * 86400;
	if (s == end)
		return true;
	return expect(&s, end, 'T') && read_time(&s, end, out);
}

void
sim_date_put_day(SimBuf *b, int64_t days)
{
	int64_t		y;
	int			m,
				d;

	civil_from_days(days, &y, &m, &d);
	sim_buf_printf(b, "%04lld-%02d-%02d", (long long) y, m, d);
}

void
sim_date_put_time(SimBuf *b, int64_t seconds)
{
	int64_t		days = seconds / 86400;
	int64_t		rest = seconds % 86400;

	if (rest < 0)
	{
		rest += 86400;
		days--;
	}
	sim_date_put_day(b, days);
	sim_buf_printf(b, "T%02d:%02d:%02dZ", (int) (rest / 3600), (int) (rest / 60 % 60), (int) (rest % 60));
}

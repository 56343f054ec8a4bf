/*
 * retryafter.c - what an answer 429 tells: Retry-After in both of its forms, and the window
 *
 * Dataverse sends whole seconds; proxies in front of it may send an HTTP date
 * (RFC 9110, section 5.6.7: three notations, all of them in GMT), or a fraction,
 * which the RFC does not have and whose meaning is plain all the same.
 */
#include <stdio.h>
#include <string.h>

#include "verdict.h"
#include "wiretext.h"

/* Nobody is held longer than this by a header: 24 hours, in seconds. */
#define LONGEST_S	86400

static int
month_number(const char *name)
{
	static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
	"Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	int			i;

	for (i = 0; i < 12; i++)
		if (dv_wiretext_same(name, strlen(name), months[i]))
			return i + 1;
	return 0;
}

/* Two-digit years of the oldest notation: 70 to 99 are of the last century. */
static int
full_year(int y)
{
	return y >= 100 ? y : y + (y < 70 ? 2000 : 1900);
}

bool
dv_verdict_http_date(const char *text, long long *when)
{
	char		month[4];
	int			d;
	int			y;
	int			h;
	int			mi;
	int			s;
	int			m;

	if (sscanf(text, "%*9[A-Za-z], %2d %3[A-Za-z] %4d %2d:%2d:%2d", &d, month, &y, &h, &mi, &s) != 6 &&
		sscanf(text, "%*9[A-Za-z], %2d-%3[A-Za-z]-%4d %2d:%2d:%2d", &d, month, &y, &h, &mi, &s) != 6 &&
		sscanf(text, "%*3[A-Za-z] %3[A-Za-z] %2d %2d:%2d:%2d %4d", month, &d, &h, &mi, &s, &y) != 6)
		return false;
	m = month_number(month);
	if (y < 0)
		return false;
	y = full_year(y);
	if (m == 0 || y < 1970 || d < 1 || d > 31 || h < 0 || h > 23 || mi < 0 || mi > 59 || s < 0 || s > 60)
		return false;
	*when = dv_wiretext_days(y, m, d) * 86400LL + h * 3600LL + mi * 60LL + s;
	return true;
}

int
dv_verdict_window(const char *text, size_t len)
{
	static const char words[] = "time window of ";
	const char *at = dv_wiretext_find(text, len, words);
	int			seconds = 0;

	if (at == NULL)
		return 0;
	for (at += sizeof(words) - 1; at < text + len && *at >= '0' && *at <= '9'; at++)
		if (seconds <= LONGEST_S)
			seconds = seconds * 10 + (*at - '0');
	return seconds <= LONGEST_S ? seconds : 0;
}

/* Is it a point and the digits of a fraction of a second? */
static bool
is_fraction(const char *text)
{
	return text[0] == '.' && text[1] != '\0' && strspn(text + 1, "0123456789") == strlen(text + 1);
}

long
dv_verdict_retry_after(const char *value, size_t len, long long now)
{
	char		text[64];
	long long	seconds = 0;
	size_t		i;

	dv_wiretext_trim(&value, &len);
	if (len == 0 || len >= sizeof(text))
		return -1;
	memcpy(text, value, len);
	text[len] = '\0';
	for (i = 0; i < len && text[i] >= '0' && text[i] <= '9'; i++)
		if (seconds <= LONGEST_S)
			seconds = seconds * 10 + (text[i] - '0');
	if (i > 0 && is_fraction(text + i))
		seconds++;				/* not earlier than told */
	else if (i < len)
	{
		long long	when;

		if (!dv_verdict_http_date(text, &when))
			return -1;
		/* "now" is any number: do not subtract across its whole range. */
		if (now >= when)
			seconds = 0;
		else
			seconds = now < when - LONGEST_S ? LONGEST_S : when - now;
	}
	if (seconds > LONGEST_S)
		seconds = LONGEST_S;
	return (long) (seconds * 1000);
}

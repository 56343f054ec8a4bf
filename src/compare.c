/*
 * compare.c - is what Dataverse holds what was sent?
 */
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "wiretext.h"

/* Longest number or instant that is compared as such; longer ones byte by byte. */
#define WORD_MAX		400

/* Choices of one value: 150 are allowed, of up to eleven characters each. */
#define CHOICES_MAX		200

/* Digits after the point that money is kept with. */
#define MONEY_DIGITS	4

/* Sizes of text that need no allocation. */
#define TEXT_ON_STACK	1024

/* ---------------------------------------------------------------- numbers */

/* A decimal as its digits without leading and trailing zeros; value = 0.digits * 10^point. */
typedef struct Decimal
{
	bool		negative;
	int			point;
	int			n;
	char		digits[WORD_MAX];
} Decimal;

static bool
read_decimal(DvSlice text, Decimal *d)
{
	char		buffer[WORD_MAX];
	const char *p = buffer;
	bool		fraction = false;
	bool		any = false;

	if (text.len >= sizeof(buffer) || dv_page_text(text, buffer, sizeof(buffer)) >= sizeof(buffer))
		return false;
	d->negative = *p == '-';
	d->point = d->n = 0;
	if (*p == '-' || *p == '+')
		p++;
	for (; (*p >= '0' && *p <= '9') || (*p == '.' && !fraction); p++)
	{
		if (*p == '.')
		{
			fraction = true;
			continue;
		}
		any = true;
		if (d->n > 0 || *p != '0')
		{
			d->digits[d->n++] = *p;
			d->point += !fraction;
		}
		else
			d->point -= fraction;
	}
	if (any && (*p == 'e' || *p == 'E'))
	{
		char	   *behind;
		long		exponent = strtol(p + 1, &behind, 10);

		if (behind == p + 1 || exponent > 1000 || exponent < -1000)
			return false;
		d->point += (int) exponent;
		p = behind;
	}
	while (d->n > 0 && d->digits[d->n - 1] == '0')
		d->n--;
	if (d->n == 0)
	{
		d->negative = false;
		d->point = 0;
	}
	return any && *p == '\0';
}

static bool
same_decimal(const Decimal *a, const Decimal *b)
{
	return a->negative == b->negative && a->point == b->point && a->n == b->n && memcmp(a->digits, b->digits, (size_t) a->n) == 0;
}

/*
 * Cut to so many digits after the point, away from zero where "up". A value
 * without digits left is zero.
 */
static void
cut_decimal(Decimal *d, int precision, bool up)
{
	int			keep = d->point + precision;

	if (keep >= d->n)
		return;
	if (keep < 0)
	{
		d->n = 0;
		up = false;
	}
	else
		d->n = keep;
	if (up)
	{
		int			i = keep - 1;

		while (i >= 0 && d->digits[i] == '9')
			i--;
		if (i >= 0)
		{
			d->digits[i]++;
			d->n = i + 1;
		}
		else
		{
			d->digits[0] = '1';
			d->n = 1;
			d->point++;
		}
	}
	while (d->n > 0 && d->digits[d->n - 1] == '0')
		d->n--;
	if (d->n == 0)
	{
		d->negative = false;
		d->point = 0;
	}
}

/* What the service makes of a value with more digits than the column keeps: the nearest, of two as near either. */
static bool
same_rounded(const Decimal *expected, const Decimal *found, int precision)
{
	int			next = expected->point + precision;
	bool		half;
	Decimal		cut;

	if (precision < 0 || next >= expected->n)
		return false;
	half = next >= 0 && expected->digits[next] == '5' && next + 1 == expected->n;
	cut = *expected;
	cut_decimal(&cut, precision, next >= 0 && expected->digits[next] >= '5');
	if (same_decimal(&cut, found))
		return true;
	if (!half)
		return false;
	cut = *expected;
	cut_decimal(&cut, precision, false);
	return same_decimal(&cut, found);
}

static bool
same_double(DvSlice a, DvSlice b)
{
	char		x[WORD_MAX];
	char		y[WORD_MAX];

	return dv_page_text(a, x, sizeof(x)) < sizeof(x) && dv_page_text(b, y, sizeof(y)) < sizeof(y) &&
		strtod(x, NULL) == strtod(y, NULL);
}

static bool
same_number(DvCompareKind kind, int precision, DvSlice expected, DvSlice found)
{
	Decimal		e;
	Decimal		f;

	if (!read_decimal(expected, &e) || !read_decimal(found, &f))
		return false;
	return same_decimal(&e, &f) || same_rounded(&e, &f, precision) ||
		(kind == DV_COMPARE_MONEY && same_rounded(&e, &f, MONEY_DIGITS)) ||
		(kind == DV_COMPARE_DOUBLE && same_double(expected, found));
}

/* ---------------------------------------------------------------- instants */

/* So many digits at *p as a number; false where there are others. */
static bool
take_digits(const char **p, int n, int *value)
{
	*value = 0;
	while (n-- > 0)
	{
		if (**p < '0' || **p > '9')
			return false;
		*value = *value * 10 + *(*p)++ - '0';
	}
	return true;
}

/* Seconds since 1970 in UTC and the fraction of a second in millionths; a date is its midnight. */
static bool
read_instant(DvSlice text, long long *seconds, int *millionths)
{
	char		buffer[64];
	const char *p = buffer;
	int			y, mo, d, h = 0, mi = 0, s = 0, oh, om;

	*millionths = 0;
	if (dv_page_text(text, buffer, sizeof(buffer)) >= sizeof(buffer))
		return false;
	if (!take_digits(&p, 4, &y) || *p++ != '-' || !take_digits(&p, 2, &mo) || *p++ != '-' || !take_digits(&p, 2, &d))
		return false;
	if (*p == 'T' || *p == ' ')
	{
		p++;
		if (!take_digits(&p, 2, &h) || *p++ != ':' || !take_digits(&p, 2, &mi))
			return false;
		if (*p == ':' && (p++, !take_digits(&p, 2, &s)))
			return false;
		if (*p == '.')
		{
			int			unit = 100000;

			for (p++; *p >= '0' && *p <= '9'; p++, unit /= 10)
				*millionths += (*p - '0') * unit;
		}
	}
	*seconds = dv_wiretext_days(y, mo, d) * 86400 + h * 3600 + mi * 60 + s;
	if (*p == '+' || *p == '-')
	{
		int			sign = *p++ == '+' ? 1 : -1;

		if (!take_digits(&p, 2, &oh) || (*p == ':' && (p++, false)) || !take_digits(&p, 2, &om))
			return false;
		*seconds -= sign * (oh * 3600 + om * 60);
	}
	else if (*p == 'Z' || *p == 'z')
		p++;
	return *p == '\0';
}

/* Fractions of a second are cut off or rounded by the service, or kept. */
static bool
same_instant(DvSlice expected, DvSlice found)
{
	long long	e;
	long long	f;
	int			e_millionths;
	int			f_millionths;

	if (!read_instant(expected, &e, &e_millionths) || !read_instant(found, &f, &f_millionths))
		return false;
	if (f_millionths == 0)
		return f == e || (e_millionths >= 500000 && f == e + 1);
	/* kept to the thousandth, as cut or rounded */
	return f == e && abs(f_millionths - e_millionths) < 1000 + 4000 * (f_millionths % 1000 == 0);
}

static bool
same_date(DvSlice expected, DvSlice found)
{
	long long	e;
	long long	f;
	int			e_millionths;
	int			f_millionths;

	return read_instant(expected, &e, &e_millionths) && read_instant(found, &f, &f_millionths) && e == f && f_millionths == 0;
}

/* ---------------------------------------------------------------- the others */

static bool
same_text(DvSlice expected, DvSlice found)
{
	char		buffers[2][TEXT_ON_STACK];
	char	   *e = buffers[0];
	char	   *f = buffers[1];
	size_t		size = expected.len > found.len ? expected.len + 1 : found.len + 1;
	size_t		e_len;
	bool		same;

	if (size > TEXT_ON_STACK)
	{
		e = malloc(size);
		f = malloc(size);
	}
	if (e == NULL || f == NULL)
		same = false;
	else
	{
		/* text without its escapes is never longer than with them */
		e_len = dv_page_text(expected, e, size);
		same = e_len == dv_page_text(found, f, size) && memcmp(e, f, e_len) == 0;
	}
	if (e != buffers[0])
	{
		free(e);
		free(f);
	}
	return same;
}

static bool
same_guid(DvSlice expected, DvSlice found)
{
	char		a[64];
	char		b[64];
	char		x[37];
	char		y[37];
	size_t		a_len = dv_page_text(expected, a, sizeof(a));
	size_t		b_len = dv_page_text(found, b, sizeof(b));

	return a_len < sizeof(a) && b_len < sizeof(b) && dv_wiretext_uuid(a, a_len, x) && dv_wiretext_uuid(b, b_len, y) &&
		memcmp(x, y, 36) == 0;
}

DvSlice
dv_compare_lookup_id(DvSlice bound)
{
	DvSlice		id = {NULL, 0};
	const char *open = bound.p ? memchr(bound.p, '(', bound.len) : NULL;
	const char *close = open ? memchr(open, ')', bound.len - (size_t) (open - bound.p)) : NULL;

	if (close != NULL)
	{
		id.p = open + 1;
		id.len = (size_t) (close - open) - 1;
	}
	return id;
}

static int
by_value(const void *a, const void *b)
{
	long		x = *(const long *) a;
	long		y = *(const long *) b;

	return x < y ? -1 : x > y;
}

/* Once each of some sorted numbers; how many that are. */
static int
each_once(long *values, int n)
{
	int			kept = 0;
	int			i;

	for (i = 0; i < n; i++)
		if (kept == 0 || values[kept - 1] != values[i])
			values[kept++] = values[i];
	return kept;
}

/* "1, 9" as sorted numbers, each once; -1 where it is no such list. */
static int
read_choices(DvSlice text, long *values)
{
	char		buffer[CHOICES_MAX * 16];
	char	   *p = buffer;
	int			n = 0;

	if (dv_page_text(text, buffer, sizeof(buffer)) >= sizeof(buffer))
		return -1;
	while (n < CHOICES_MAX)
	{
		char	   *behind;

		values[n++] = strtol(p, &behind, 10);
		if (behind == p)
			return -1;
		while (*behind == ' ')
			behind++;
		if (*behind == '\0')
		{
			qsort(values, (size_t) n, sizeof(long), by_value);
			return each_once(values, n);
		}
		if (*behind != ',')
			return -1;
		p = behind + 1;
	}
	return -1;
}

static bool
same_choices(DvSlice expected, DvSlice found)
{
	long		e[CHOICES_MAX];
	long		f[CHOICES_MAX];
	int			n = read_choices(expected, e);

	return n >= 0 && n == read_choices(found, f) && memcmp(e, f, sizeof(long) * (size_t) n) == 0;
}

/* The next character of base64 text as written in JSON, without what may stand between; 0 at the end. */
static char
next_base64(const char **p, const char *end)
{
	for (; *p < end; (*p)++)
	{
		char		c = **p;

		if (c == '\\')
		{
			(*p)++;				/* an escape: \r, \n, or \/ which is one of the alphabet */
			if (*p < end && **p == '/')
				return *(*p)++;
		}
		else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' || c == '/' || c == '=')
			return *(*p)++;
	}
	return 0;
}

static bool
same_base64(DvSlice expected, DvSlice found)
{
	const char *e = expected.p;
	const char *f = found.p;
	char		c;

	do
	{
		c = next_base64(&e, expected.p + expected.len);
		if (c != next_base64(&f, found.p + found.len))
			return false;
	} while (c != 0);
	return true;
}

bool
dv_compare_equal(DvCompareKind kind, int precision, DvSlice expected, DvSlice found)
{
	bool		e_null = dv_page_is_null(expected);
	bool		f_null = dv_page_is_null(found);

	if (e_null || f_null)
		return e_null && f_null;
	if (expected.len == found.len && memcmp(expected.p, found.p, found.len) == 0)
		return true;
	switch (kind)
	{
		case DV_COMPARE_TEXT:
			return same_text(expected, found);
		case DV_COMPARE_NUMBER:
		case DV_COMPARE_MONEY:
		case DV_COMPARE_DOUBLE:
			return same_number(kind, precision, expected, found);
		case DV_COMPARE_GUID:
			return same_guid(expected, found);
		case DV_COMPARE_DATE:
			return same_date(expected, found);
		case DV_COMPARE_INSTANT:
			return same_instant(expected, found);
		case DV_COMPARE_CHOICES:
			return same_choices(expected, found);
		case DV_COMPARE_LOOKUP:
			return same_guid(dv_compare_lookup_id(expected), found);
		case DV_COMPARE_BASE64:
			return same_base64(expected, found);
		case DV_COMPARE_PRESENCE:
			return true;
		case DV_COMPARE_PARTIES:
		case DV_COMPARE_BOOLEAN:
			break;
	}
	return false;
}

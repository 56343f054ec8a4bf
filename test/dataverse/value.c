/*
 * value.c - one column value: read and checked from JSON, and written back
 */
#include "value.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dates.h"
#include "switches.h"

/* Longest decimal: 15 digits before and 10 after the point, sign and point. */
#define DECIMAL_MAX 40

static bool
wrong_type(SimErr *e, const SimTable *t, const SimColumn *c, const SimScalar *in, const char *edm)
{
	static const char *const kinds[] = {"nothing", "null", "Edm.Boolean", "Edm.Boolean", "Edm.Decimal", "Edm.String", "an object",
	"an array"};

	return sim_fail_payload(e, t->set, "Cannot convert a value of type '%s' to the expected target type '%s' of property '%s'.",
							kinds[in->kind], edm, c->name);
}

static bool
out_of_range(SimErr *e, const SimTable *t, const SimColumn *c)
{
	return sim_fail(e, 400, sim_sw.range_code ? "0x80044330" : SIM_E_CHOICE,
					"A validation error occurred.  The value of '%s' on record of type '%s' is outside the valid range.",
					c->name, t->name);
}

/* A number may come as text where the switch says so. */
static bool
is_number(const SimScalar *in)
{
	char	   *end;

	if (in->kind == SIM_JSON_NUMBER)
		return true;
	if (in->kind != SIM_JSON_STRING || sim_sw.string_numbers != SIM_ACCEPTED || in->text.len == 0)
		return false;
	strtod(in->text.s, &end);
	return end == in->text.s + in->text.len;
}

static bool
parse_int(const SimScalar *in, int64_t *out)
{
	uint64_t	v = 0;
	size_t		i = 0;
	bool		minus = in->text.s[0] == '-';

	for (i = minus; i < in->text.len; i++)
	{
		unsigned	d = (unsigned) (in->text.s[i] - '0');

		if (d > 9 || v > (UINT64_MAX - d) / 10)
			return false;
		v = v * 10 + d;
	}
	if (v > (uint64_t) INT64_MAX + minus)
		return false;
	*out = minus ? (int64_t) (0 - v) : (int64_t) v;
	return true;
}

static bool
read_integer(const SimTable *t, const SimColumn *c, const SimScalar *in, SimVal *out, SimErr *e)
{
	const char *edm = c->type == SIM_T_BIGINT ? "Edm.Int64" : "Edm.Int32";

	if (!is_number(in) || (in->kind == SIM_JSON_NUMBER && !in->integral))
		return wrong_type(e, t, c, in, edm);
	if (!parse_int(in, &out->v.i))
		return wrong_type(e, t, c, in, edm);
	if (c->type != SIM_T_BIGINT && (out->v.i > INT32_MAX || out->v.i < INT32_MIN))
		return wrong_type(e, t, c, in, edm);
	if ((double) out->v.i < c->min || (double) out->v.i > c->max)
		return out_of_range(e, t, c);
	return true;
}

static bool
read_choice(const SimTable *t, const SimColumn *c, const SimScalar *in, SimVal *out, SimErr *e)
{
	SimBuf		known = {0};

	if (!is_number(in) || (in->kind == SIM_JSON_NUMBER && !in->integral) || !parse_int(in, &out->v.i))
		return wrong_type(e, t, c, in, "Edm.Int32");
	if (sim_column_option(c, out->v.i) != NULL)
		return true;
	for (int i = 0; i < c->n_options && known.len < 200; i++)
		sim_buf_printf(&known, "%s%d", i > 0 ? "," : "", c->options[i].value);
	sim_fail(e, 400, SIM_E_CHOICE,
			 "A validation error occurred.  The value '%.*s' of '%s' on record of type '%s' is outside the valid range. "
			 "Accepted Values: %s", (int) (in->text.len > 20 ? 20 : in->text.len), in->text.s, c->name, t->name,
			 known.data != NULL ? known.data : "");
	sim_buf_free(&known);
	return false;
}

/* "1,9" with optional blanks; kept in ascending order without blanks. */
static bool
read_choices(SimArena *a, const SimTable *t, const SimColumn *c, const SimScalar *in, SimVal *out, SimErr *e)
{
	SimBuf		b = {0};
	const char *p = in->text.s,
			   *end = p + in->text.len;
	int			n = 0;

	if (in->kind != SIM_JSON_STRING)
		return wrong_type(e, t, c, in, "Edm.String");
	while (p < end)
	{
		char	   *next;
		long		v = strtol(p, &next, 10);

		if (next == p || sim_column_option(c, v) == NULL)
		{
			sim_buf_free(&b);
			return sim_fail(e, 400, SIM_E_CHOICE, "A validation error occurred.  The value of '%s' on record of type '%s' is "
							"outside the valid range.", c->name, t->name);
		}
		sim_buf_printf(&b, "%s%ld", n++ > 0 ? "," : "", v);
		for (p = next; p < end && (*p == ' ' || *p == ','); p++)
			;
	}
	out->len = (uint32_t) b.len;
	out->v.s = sim_arena_strndup(a, b.data != NULL ? b.data : "", b.len);
	out->null = n == 0;
	sim_buf_free(&b);
	/* 150 selections are the documented maximum. */
	if (n > 150)
		return sim_fail(e, 400, "0x80050222", "The number of selected values of '%s' exceeds the maximum of 150.", c->name);
	return true;
}

static bool
is_base64(SimStr s)
{
	size_t		n = s.len;

	while (n > 0 && s.s[n - 1] == '=' && s.len - n < 2)
		n--;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char) s.s[i]) && s.s[i] != '+' && s.s[i] != '/')
			return false;
	return s.len % 4 == 0;
}

static bool
read_text(const SimTable *t, const SimColumn *c, const SimScalar *in, SimVal *out, SimErr *e)
{
	if (in->kind != SIM_JSON_STRING)
		return wrong_type(e, t, c, in, "Edm.String");
	if ((long) in->units > c->max_length && c->type != SIM_T_IMAGE)
		return sim_fail(e, 400, SIM_E_LENGTH, "A validation error occurred.  The length of the '%s' attribute of the '%s' entity "
						"exceeded the maximum allowed length of '%ld'.", c->name, t->name, c->max_length);
	if (c->ascii && !in->ascii)
		return sim_fail(e, 400, SIM_E_ARGUMENT, "The attribute '%s' of the '%s' entity takes ASCII characters only.", c->name, t->name);
	if (c->type == SIM_T_IMAGE && !is_base64(in->text))
		return wrong_type(e, t, c, in, "Edm.Binary");
	/* Base64 grows by a third; the limit is in KB of the image. */
	if (c->type == SIM_T_IMAGE && in->text.len / 4 * 3 > (size_t) c->max_length * 1024)
		return sim_fail(e, 400, "0x80044a02", "Attachment file size is too big.");
	out->v.s = in->text.s;
	out->len = (uint32_t) in->text.len;
	out->null = in->text.len == 0 && sim_sw.empty_text_null;
	return true;
}

/* Add one unit in the last place to decimal digits; the first byte is spare. */
static void
carry(char *first, char *last)
{
	for (char *p = last; p >= first; p--)
	{
		if (*p == '.')
			continue;
		if (*p != '9')
		{
			(*p)++;
			return;
		}
		*p = '0';
	}
}

size_t
sim_decimal_round(const char *s, size_t len, int decimals, char *out, size_t size)
{
	char		plain[DECIMAL_MAX * 2];
	const char *point;
	size_t		whole,
				have,
				n = 0;

	if (memchr(s, 'e', len) || memchr(s, 'E', len) || len + (size_t) decimals + 4 > size)
	{
		len = (size_t) snprintf(plain, sizeof plain, "%.*Lf", decimals, strtold(s, NULL));
		s = plain;
		if (len + 4 > size)
			len = size - 4;
	}
	if (*s == '-')
	{
		out[n++] = '-';
		s++;
		len--;
	}
	point = memchr(s, '.', len);
	whole = point != NULL ? (size_t) (point - s) : len;
	have = point != NULL ? len - whole - 1 : 0;
	out[n] = '0';				/* room for a carry */
	memcpy(out + n + 1, s, whole);
	whole++;
	out[n + whole] = '.';
	for (int i = 0; i < decimals; i++)
		out[n + whole + 1 + (size_t) i] = (size_t) i < have ? point[1 + i] : '0';
	len = whole + 1 + (size_t) decimals;
	if (have > (size_t) decimals && point[1 + decimals] >= '5')
		carry(out + n, out + n + len - 1);
	if (decimals == 0)
		len--;
	if (out[n] == '0')
		memmove(out + n, out + n + 1, --len);
	out[n + len] = '\0';
	return n + len;
}

/* Good to 15 digits, which is all a range check needs. */
static double
quick_double(SimStr s)
{
	static const double tens[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10};
	uint64_t	v = 0;
	int			after = -1;
	size_t		i = s.s[0] == '-';

	if (s.len > 17)
		return strtod(s.s, NULL);
	for (; i < s.len; i++)
	{
		if (s.s[i] == '.')
			after = 0;
		else if (s.s[i] >= '0' && s.s[i] <= '9')
		{
			v = v * 10 + (uint64_t) (s.s[i] - '0');
			after += after >= 0;
		}
		else
			return strtod(s.s, NULL);
	}
	if (after > 10)
		return strtod(s.s, NULL);
	return (s.s[0] == '-' ? -1.0 : 1.0) * (double) v / tens[after > 0 ? after : 0];
}

static bool
read_decimal(SimArena *a, const SimTable *t, const SimColumn *c, const SimScalar *in, SimVal *out, SimErr *e)
{
	char		text[DECIMAL_MAX];
	double		v;

	if (!is_number(in))
		return wrong_type(e, t, c, in, "Edm.Decimal");
	v = quick_double(in->text);
	if (v < c->min || v > c->max)
		return out_of_range(e, t, c);
	out->len = (uint32_t) sim_decimal_round(in->text.s, in->text.len, c->precision, text, sizeof text);
	/* Money is stored with four decimals whatever is shown. */
	if (c->type == SIM_T_MONEY && c->precision < 4)
	{
		char		rounded[DECIMAL_MAX];

		memcpy(rounded, text, out->len + 1);
		out->len = (uint32_t) sim_decimal_round(rounded, out->len, 4, text, sizeof text);
	}
	out->v.s = sim_arena_strndup(a, text, out->len);
	return true;
}

static bool
read_double(const SimTable *t, const SimColumn *c, const SimScalar *in, SimVal *out, SimErr *e)
{
	double		step = 1;

	if (!is_number(in))
		return wrong_type(e, t, c, in, "Edm.Double");
	out->v.d = strtod(in->text.s, NULL);
	if (out->v.d < c->min || out->v.d > c->max)
		return out_of_range(e, t, c);
	for (int i = 0; i < c->precision; i++)
		step *= 10;
	out->v.d = round(out->v.d * step) / step;
	return true;
}

static bool
too_early(SimErr *e, const SimScalar *in)
{
	return sim_fail(e, 400, SIM_E_DATE, "Date is less than the minimum value supported by CrmDateTime. Actual value: %.*s, Minimum "
					"value supported: 01/01/%04d 00:00:00", (int) (in->text.len > 40 ? 40 : in->text.len), in->text.s,
					sim_sw.min_year);
}

static bool
read_date(const SimTable *t, const SimColumn *c, const SimScalar *in, SimVal *out, SimErr *e)
{
	SimInstant	at;

	if (in->kind != SIM_JSON_STRING || !sim_date_parse(in->text.s, in->text.len, &at))
		return wrong_type(e, t, c, in, c->date_kind == SIM_DATE_ONLY ? "Edm.Date" : "Edm.DateTimeOffset");
	if (c->date_kind == SIM_DATE_ONLY)
	{
		if (at.has_time && sim_sw.date_only_time != SIM_ACCEPTED)
			return wrong_type(e, t, c, in, "Edm.Date");
	}
	else if (!at.has_zone && sim_sw.naive_time != SIM_ACCEPTED)
		return wrong_type(e, t, c, in, "Edm.DateTimeOffset");
	if (at.year < sim_sw.min_year)
		return too_early(e, in);
	/* The last day that a client's time zone cannot push over the end. */
	if (at.seconds >= INT64_C(253402214400))
		return sim_fail(e, 400, SIM_E_DATE, "Date is more than the maximum value supported by CrmDateTime.");
	out->v.i = at.seconds;
	if (c->date_kind == SIM_DATE_ONLY)
		out->v.i = (at.seconds - (((at.seconds % 86400) + 86400) % 86400)) / 86400;
	return true;
}

bool
sim_value_read(SimArena *a, const SimTable *t, const SimColumn *c, const SimScalar *in, SimVal *out, SimErr *e)
{
	out->column = c->index;
	out->target = 0;
	out->len = 0;
	out->null = in->kind == SIM_JSON_NULL;
	if (out->null)
		return true;
	switch (c->type)
	{
		case SIM_T_STRING:
		case SIM_T_MEMO:
		case SIM_T_IMAGE:
			return read_text(t, c, in, out, e);
		case SIM_T_INTEGER:
		case SIM_T_BIGINT:
			return read_integer(t, c, in, out, e);
		case SIM_T_DECIMAL:
		case SIM_T_MONEY:
			return read_decimal(a, t, c, in, out, e);
		case SIM_T_DOUBLE:
			return read_double(t, c, in, out, e);
		case SIM_T_BOOLEAN:
			if (in->kind != SIM_JSON_TRUE && in->kind != SIM_JSON_FALSE)
				return wrong_type(e, t, c, in, "Edm.Boolean");
			out->v.i = in->kind == SIM_JSON_TRUE;
			return true;
		case SIM_T_CHOICE:
		case SIM_T_STATE:
		case SIM_T_STATUS:
			return read_choice(t, c, in, out, e);
		case SIM_T_CHOICES:
			return read_choices(a, t, c, in, out, e);
		case SIM_T_DATE:
			return read_date(t, c, in, out, e);
		case SIM_T_GUID:
			if (in->kind != SIM_JSON_STRING || !sim_guid_parse(in->text.s, in->text.len, &out->v.g))
				return wrong_type(e, t, c, in, "Edm.Guid");
			return true;
		default:
			return sim_fail_property(e, t->name, c->name, strlen(c->name));
	}
}

static void
put_double(SimBuf *b, double d)
{
	char		text[40];

	/* The shortest text that reads back as the same number. */
	for (int p = 15; p <= 17; p++)
	{
		snprintf(text, sizeof text, "%.*g", p, d);
		if (strtod(text, NULL) == d)
			break;
	}
	sim_buf_puts(b, text);
	if (strpbrk(text, ".e") == NULL)
		sim_buf_puts(b, ".0");
}

void
sim_value_put(SimBuf *b, const SimColumn *c, const SimVal *v)
{
	switch (c->type)
	{
		case SIM_T_DECIMAL:
		case SIM_T_MONEY:
			sim_buf_add(b, v->v.s, v->len);
			break;
		case SIM_T_BOOLEAN:
			sim_buf_puts(b, v->v.i ? "true" : "false");
			break;
		case SIM_T_DOUBLE:
			put_double(b, v->v.d);
			break;
		case SIM_T_DATE:
			sim_buf_char(b, '"');
			if (c->date_kind == SIM_DATE_ONLY)
				sim_date_put_day(b, v->v.i);
			else
				sim_date_put_time(b, v->v.i);
			sim_buf_char(b, '"');
			break;
		default:
			if (c->storage == SIM_ST_TEXT)
				sim_json_put_text(b, v->v.s, v->len);
			else if (c->storage == SIM_ST_GUID)
			{
				sim_buf_char(b, '"');
				sim_buf_guid(b, v->v.g);
				sim_buf_char(b, '"');
			}
			else
				sim_buf_printf(b, "%lld", (long long) v->v.i);
	}
}

/* Name of the record a lookup points at. */
static void
put_target_name(SimBuf *b, const SimVal *v)
{
	const SimTable *t = sim_model.tables[v->target];
	const SimColumn *name = t->primary_name != NULL ? sim_table_column(t, t->primary_name, strlen(t->primary_name)) : NULL;
	uint32_t	at = sim_store_find(t, v->v.g);
	SimVal		n;

	if (at == SIM_NO_SLOT || name == NULL || name->storage != SIM_ST_TEXT ||
		!sim_record_value(t, sim_store_slot(t, at), name->index, &n))
		sim_buf_puts(b, "\"\"");
	else
		sim_json_put_text(b, n.v.s, n.len);
}

void
sim_value_put_formatted(SimBuf *b, const SimTable *t, const SimColumn *c, const SimVal *v)
{
	SimBuf		plain = {0};

	(void) t;
	if (c->type == SIM_T_LOOKUP || c->type == SIM_T_CUSTOMER || c->type == SIM_T_OWNER)
	{
		put_target_name(b, v);
		return;
	}
	if (c->type == SIM_T_CHOICE || c->type == SIM_T_STATE || c->type == SIM_T_STATUS)
	{
		const SimOption *o = sim_column_option(c, v->v.i);

		sim_json_put(b, o != NULL ? o->label : "");
		return;
	}
	if (c->type == SIM_T_BOOLEAN)
	{
		const SimOption *o = sim_column_option(c, v->v.i);

		sim_json_put(b, o != NULL ? o->label : v->v.i ? "Yes" : "No");
		return;
	}
	sim_value_put(&plain, c, v);
	if (plain.len > 0 && plain.data[0] == '"')
		sim_buf_add(b, plain.data, plain.len);
	else
		sim_json_put_text(b, plain.data, plain.len);
	sim_buf_free(&plain);
}

/*
 * page.c - the records of a query's answer, member by member, without copying
 *
 * A page is walked over once as a whole before anything of it is believed.
 */
#include <stdint.h>
#include <string.h>

#include "page.h"
#include "wiretext.h"

/* A record with an expanded lookup is four levels deep. */
#define DEPTH_MAX	16

static const char *
blanks(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'))
		p++;
	return p;
}

#define EACH_BYTE(c)	(0x0101010101010101ULL * (c))

/* Is a byte a quote, a backslash or a control character? */
static inline bool
is_special(char c)
{
	return c == '"' || c == '\\' || (unsigned char) c < 0x20;
}

/* Is one of eight? Where the subtraction borrows, one that is lets its neighbour look so too. */
static inline bool
has_special(const char *p)
{
	uint64_t	x;
	uint64_t	quote;
	uint64_t	backslash;

	memcpy(&x, p, sizeof(x));
	quote = x ^ EACH_BYTE('"');
	backslash = x ^ EACH_BYTE('\\');
	return ((((quote - EACH_BYTE(1)) & ~quote) | ((backslash - EACH_BYTE(1)) & ~backslash) | ((x - EACH_BYTE(0x20)) & ~x)) & EACH_BYTE(0x80)) != 0;
}

/* The first such byte at or behind p, or where it cannot be far. */
static inline const char *
next_special(const char *p, const char *end)
{
	while (end - p >= 8 && !has_special(p))
		p += 8;
	if (end - p >= 8)
		while (!is_special(*p))
			p++;
	return p;
}

/* Behind a string that begins at p; NULL where it does not end. */
static const char *
skip_string(const char *p, const char *end)
{
	for (p = next_special(p + 1, end); p < end; p = next_special(p + 1, end))
	{
		if (*p == '"')
			return p + 1;
		if ((unsigned char) *p < 0x20)
			return NULL;
		if (*p == '\\')
			p++;
	}
	return NULL;
}

/* Behind a number, true, false or null. */
static const char *
skip_word(const char *p, const char *end)
{
	const char *from = p;

	while (p < end && ((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') || *p == '-' || *p == '+' || *p == '.' || *p == 'E'))
		p++;
	return p > from ? p : NULL;
}

static const char *skip_value(const char *p, const char *end, int depth);

/* Behind an object or array that begins at p; "records": an array of nothing but objects. */
static const char *
skip_nested(const char *p, const char *end, int depth, bool records)
{
	bool		object = *p == '{';
	char		close = object ? '}' : ']';

	p = blanks(p + 1, end);
	if (p < end && *p == close)
		return p + 1;
	while (p != NULL && p < end)
	{
		if (object)
		{
			if (*p != '"' || (p = skip_string(p, end)) == NULL)
				return NULL;
			p = blanks(p, end);
			if (p >= end || *p != ':')
				return NULL;
			p = blanks(p + 1, end);
		}
		else if (records && *p != '{')
			return NULL;
		p = skip_value(p, end, depth - 1);
		if (p == NULL)
			return NULL;
		p = blanks(p, end);
		if (p < end && *p == close)
			return p + 1;
		if (p >= end || *p != ',')
			return NULL;
		p = blanks(p + 1, end);
	}
	return NULL;
}

static const char *
skip_value(const char *p, const char *end, int depth)
{
	if (p >= end || depth <= 0)
		return NULL;
	if (*p == '"')
		return skip_string(p, end);
	if (*p == '{' || *p == '[')
		return skip_nested(p, end, depth, false);
	return skip_word(p, end);
}

/* The name of the next member; where its value begins, or NULL. */
static const char *
member_name(const char *at, const char *end, DvSlice *name)
{
	const char *p = blanks(at, end);
	const char *behind;

	if (p >= end || (*p != '{' && *p != ','))
		return NULL;
	p = blanks(p + 1, end);
	if (p >= end || *p != '"' || (behind = skip_string(p, end)) == NULL)
		return NULL;
	name->p = p + 1;
	name->len = (size_t) (behind - p) - 2;
	p = blanks(behind, end);
	return p < end && *p == ':' ? blanks(p + 1, end) : NULL;
}

bool
dv_page_member(DvSlice record, const char **at, DvSlice *name, DvSlice *value)
{
	const char *end = record.p + record.len;
	const char *p = member_name(*at, end, name);
	const char *behind = p ? skip_value(p, end, DEPTH_MAX) : NULL;

	if (behind == NULL)
		return false;
	value->p = p;
	value->len = (size_t) (behind - p);
	*at = behind;
	return true;
}

static bool
named(DvSlice name, const char *wanted)
{
	return name.len == strlen(wanted) && memcmp(name.p, wanted, name.len) == 0;
}

/*
 * A member of the page's root. Something else among the records is no answer:
 * what it left out must not be taken for missing.
 */
static bool
root_member(DvSlice root, const char **at, DvSlice *name, DvSlice *value)
{
	const char *end = root.p + root.len;
	const char *p = member_name(*at, end, name);
	const char *behind;

	if (p == NULL || p >= end || *p != '[' || !named(*name, "value"))
		return dv_page_member(root, at, name, value);
	behind = skip_nested(p, end, DEPTH_MAX, true);
	if (behind == NULL)
		return false;
	value->p = p;
	value->len = (size_t) (behind - p);
	*at = behind;
	return true;
}

bool
dv_page_open(DvPage *page, const char *body, size_t len)
{
	const char *end = body + len;
	const char *at;
	DvSlice		root;
	DvSlice		name;
	DvSlice		value;

	memset(page, 0, sizeof(DvPage));
	if (body == NULL)
		return false;
	/* A byte order mark is no part of JSON, but some proxies write one. */
	if (len >= 3 && memcmp(body, "\xEF\xBB\xBF", 3) == 0)
		body += 3;
	root.p = blanks(body, end);
	if (root.p >= end || *root.p != '{')
		return false;
	root.len = (size_t) (end - root.p);
	at = root.p;
	while (root_member(root, &at, &name, &value))
	{
		if (named(name, "error"))
			return false;
		if (named(name, "value") && *value.p == '[')
		{
			page->next = value.p + 1;
			page->end = value.p + value.len - 1;
		}
		if (named(name, "@odata.nextLink") && *value.p == '"')
		{
			page->next_link.p = value.p + 1;
			page->next_link.len = value.len - 2;
		}
		if (named(name, "@odata.count"))
			page->count = value;
	}
	/* what is behind the last member is the end of the page, and nothing else */
	at = blanks(at, end);
	return page->next != NULL && at < end && *at == '}' && blanks(at + 1, end) == end;
}

bool
dv_page_enter(DvPage *page, DvSlice *rest)
{
	const char *p = blanks(page->next, page->end);

	if (p < page->end && *p == ',')
		p = blanks(p + 1, page->end);
	if (p >= page->end || *p != '{')
		return false;
	rest->p = p;
	rest->len = (size_t) (page->end - p);
	return true;
}

bool
dv_page_leave(DvPage *page, const char *at, DvSlice *record)
{
	at = at == record->p ? blanks(at + 1, page->end) : blanks(at, page->end);
	if (at >= page->end || *at != '}')
		return false;
	page->next = at + 1;
	record->len = (size_t) (page->next - record->p);
	return true;
}

bool
dv_page_record(DvPage *page, DvSlice *record)
{
	const char *behind;

	if (!dv_page_enter(page, record) || (behind = skip_value(record->p, page->end, DEPTH_MAX)) == NULL)
		return false;
	record->len = (size_t) (behind - record->p);
	page->next = behind;
	return true;
}

bool
dv_page_is_null(DvSlice value)
{
	return value.p == NULL || (value.len == 4 && memcmp(value.p, "null", 4) == 0) ||
		(value.len == 2 && memcmp(value.p, "\"\"", 2) == 0);
}

/* ---------------------------------------------------------------- text */

typedef struct Out
{
	char	   *p;
	size_t		size;
	size_t		len;			/* needed */
} Out;

static void
put(Out *out, char c)
{
	if (out->len + 1 < out->size)
		out->p[out->len] = c;
	out->len++;
}

static void
put_utf8(Out *out, unsigned long c)
{
	if (c < 0x80)
		put(out, (char) c);
	else if (c < 0x800)
	{
		put(out, (char) (0xC0 | (c >> 6)));
		put(out, (char) (0x80 | (c & 0x3F)));
	}
	else if (c < 0x10000)
	{
		put(out, (char) (0xE0 | (c >> 12)));
		put(out, (char) (0x80 | ((c >> 6) & 0x3F)));
		put(out, (char) (0x80 | (c & 0x3F)));
	}
	else
	{
		put(out, (char) (0xF0 | (c >> 18)));
		put(out, (char) (0x80 | ((c >> 12) & 0x3F)));
		put(out, (char) (0x80 | ((c >> 6) & 0x3F)));
		put(out, (char) (0x80 | (c & 0x3F)));
	}
}

/* The value of a hexadecimal digit, or -1. */
static inline int
hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Four hexadecimal digits at p, or -1. */
static long
hex4(const char *p, const char *end)
{
	long		value = 0;
	int			i;

	if (end - p < 4)
		return -1;
	for (i = 0; i < 4; i++)
	{
		int			digit = hex_digit(p[i]);

		if (digit < 0)
			return -1;
		value = value * 16 + digit;
	}
	return value;
}

/* A \u escape whose digits begin at p; returns behind it, its second half included. */
static const char *
put_unicode(Out *out, const char *p, const char *end)
{
	long		high = hex4(p, end);
	long		low;

	if (high < 0)
		return p;
	p += 4;
	if (high >= 0xD800 && high < 0xDC00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u' &&
		(low = hex4(p + 2, end)) >= 0xDC00 && low < 0xE000)
	{
		put_utf8(out, 0x10000 + (((unsigned long) high - 0xD800) << 10) + ((unsigned long) low - 0xDC00));
		return p + 6;
	}
	put_utf8(out, high >= 0xD800 && high < 0xE000 ? 0xFFFD : (unsigned long) high);
	return p;
}

size_t
dv_page_text(DvSlice value, char *out, size_t size)
{
	Out			o = {out, size, 0};
	const char *p = value.p;
	const char *end;

	if (p == NULL)
		value.p = p = "";
	end = p + value.len;
	if (value.len >= 2 && *p == '"')
	{
		for (p++, end--; p < end; p++)
		{
			if (*p != '\\')
			{
				put(&o, *p);
				continue;
			}
			p++;
			if (p < end && *p == 'u')
				p = put_unicode(&o, p + 1, end) - 1;
			else if (p < end)
				put(&o, *p == 'n' ? '\n' : *p == 'r' ? '\r' : *p == 't' ? '\t' : *p == 'b' ? '\b' : *p == 'f' ? '\f' : *p);
		}
	}
	else
		for (; p < end; p++)
			put(&o, *p);
	out[o.len < size ? o.len : size - 1] = '\0';
	return o.len;
}

/* The 32 digits of 36 characters of a uuid; false where there is something else among them. */
static bool
plain_uuid(const char *p, unsigned char id[16])
{
	int			i;

	for (i = 0; i < 16; i++)
	{
		int			high;
		int			low;

		if ((i == 4 || i == 6 || i == 8 || i == 10) && *p++ != '-')
			return false;
		high = hex_digit(*p++);
		low = hex_digit(*p++);
		if (high < 0 || low < 0)
			return false;
		id[i] = (unsigned char) (high << 4 | low);
	}
	return true;
}

bool
dv_page_uuid(DvSlice value, unsigned char id[16])
{
	char		text[64];
	char		clean[37];
	size_t		len;

	if (value.p == NULL)
		return false;
	if (value.len == 38 && value.p[0] == '"' && plain_uuid(value.p + 1, id))
		return true;
	/* in braces, say, or with escapes */
	len = dv_page_text(value, text, sizeof(text));
	return len < sizeof(text) && dv_wiretext_uuid(text, len, clean) && plain_uuid(clean, id);
}

DvSlice
dv_page_find(DvSlice record, const char *wanted)
{
	const char *at = record.p;
	DvSlice		nothing = {NULL, 0};
	DvSlice		name;
	DvSlice		value;

	while (dv_page_member(record, &at, &name, &value))
		if (named(name, wanted))
			return value;
	return nothing;
}

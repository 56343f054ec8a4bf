/*
 * json.c - a pull parser that reads JSON where it lies
 */
#include "json.h"

#include <string.h>

static bool
fail(SimJson *j, const char *why)
{
	if (j->error == NULL)
		j->error = why;
	return false;
}

void
sim_json_begin(SimJson *j, char *p, size_t n)
{
	if (n >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0)
	{
		p += 3;
		n -= 3;
	}
	j->start = j->p = p;
	j->end = p + n;
	j->error = NULL;
}

/* The NUL behind the body stops every scan, so no length is compared here. */
static char
blank(SimJson *j)
{
	while (*j->p == ' ' || *j->p == '\n' || *j->p == '\r' || *j->p == '\t')
		j->p++;
	return *j->p;
}

bool
sim_json_at_end(SimJson *j)
{
	blank(j);
	return j->error == NULL && j->p == j->end;
}

SimJsonKind
sim_json_peek(SimJson *j)
{
	switch (blank(j))
	{
		case 'n':
			return SIM_JSON_NULL;
		case 't':
			return SIM_JSON_TRUE;
		case 'f':
			return SIM_JSON_FALSE;
		case '"':
			return SIM_JSON_STRING;
		case '{':
			return SIM_JSON_OBJECT;
		case '[':
			return SIM_JSON_ARRAY;
		case '-':
		case '0':
		case '1':
		case '2':
		case '3':
		case '4':
		case '5':
		case '6':
		case '7':
		case '8':
		case '9':
			return SIM_JSON_NUMBER;
		default:
			return SIM_JSON_BAD;
	}
}

static int
hex4(const char *s)
{
	int			v = 0;

	for (int i = 0; i < 4; i++)
	{
		char		c = s[i];

		if (c >= '0' && c <= '9')
			v = v * 16 + c - '0';
		else if (c >= 'a' && c <= 'f')
			v = v * 16 + c - 'a' + 10;
		else if (c >= 'A' && c <= 'F')
			v = v * 16 + c - 'A' + 10;
		else
			return -1;
	}
	return v;
}

/* Write a code point as UTF-8; the escape it came from was at least as long. */
static char *
put_utf8(char *o, uint32_t cp)
{
	if (cp < 0x80)
		*o++ = (char) cp;
	else if (cp < 0x800)
	{
		*o++ = (char) (0xc0 | cp >> 6);
		*o++ = (char) (0x80 | (cp & 63));
	}
	else if (cp < 0x10000)
	{
		*o++ = (char) (0xe0 | cp >> 12);
		*o++ = (char) (0x80 | (cp >> 6 & 63));
		*o++ = (char) (0x80 | (cp & 63));
	}
	else
	{
		*o++ = (char) (0xf0 | cp >> 18);
		*o++ = (char) (0x80 | (cp >> 12 & 63));
		*o++ = (char) (0x80 | (cp >> 6 & 63));
		*o++ = (char) (0x80 | (cp & 63));
	}
	return o;
}

/* Read the escape at *in (behind the backslash); NULL when it is malformed. */
static char *
unescape(char **in, char *o, uint32_t *units)
{
	static const char from[] = "\"\\/bfnrt";
	static const char to[] = "\"\\/\b\f\n\r\t";
	char	   *p = *in;
	const char *hit = *p != '\0' ? strchr(from, *p) : NULL;
	int			cp;

	if (hit != NULL)
	{
		*o = to[hit - from];
		*in = p + 1;
		(*units)++;
		return o + 1;
	}
	if (*p != 'u' || (cp = hex4(p + 1)) < 0)
		return NULL;
	p += 5;
	(*units)++;
	if (cp >= 0xd800 && cp < 0xdc00)
	{
		int			low = p[0] == '\\' && p[1] == 'u' ? hex4(p + 2) : -1;

		if (low < 0xdc00 || low > 0xdfff)
			return NULL;
		cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
		p += 6;
		(*units)++;
	}
	else if (cp >= 0xdc00 && cp < 0xe000)
		return NULL;
	*in = p;
	return put_utf8(o, (uint32_t) cp);
}

/* Length of a well-formed UTF-8 sequence at s, or 0. */
static int
utf8_len(const unsigned char *s)
{
	if (s[0] >= 0xc2 && s[0] < 0xe0)
		return (s[1] & 0xc0) == 0x80 ? 2 : 0;
	if (s[0] >= 0xe0 && s[0] < 0xf0)
	{
		if ((s[1] & 0xc0) != 0x80 || (s[2] & 0xc0) != 0x80)
			return 0;
		if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0))
			return 0;
		return 3;
	}
	if (s[0] >= 0xf0 && s[0] < 0xf5)
	{
		if ((s[1] & 0xc0) != 0x80 || (s[2] & 0xc0) != 0x80 || (s[3] & 0xc0) != 0x80)
			return 0;
		if ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90))
			return 0;
		return 4;
	}
	return 0;
}

bool
sim_json_string(SimJson *j, SimScalar *out)
{
	char	   *p,
			   *o;
	uint32_t	units = 0;

	if (blank(j) != '"')
		return fail(j, "a string was expected");
	p = o = j->p + 1;
	out->kind = SIM_JSON_STRING;
	out->text.s = p;
	out->ascii = true;
	for (;;)
	{
		unsigned char c = (unsigned char) *p;

		if (c == '"')
			break;
		if (c == '\\')
		{
			p++;
			o = unescape(&p, o, &units);
			if (o == NULL)
				return fail(j, "an unrecognized escape sequence was found in a string");
			if ((unsigned char) o[-1] >= 0x80)
				out->ascii = false;
		}
		else if (c < 0x20)
			return fail(j, p >= j->end ? "an unexpected end of input was found in a string" :
						"a control character was found in a string");
		else if (c < 0x80)
		{
			*o++ = *p++;
			units++;
		}
		else
		{
			int			n = utf8_len((unsigned char *) p);

			if (n == 0)
				return fail(j, "the content is not valid UTF-8");
			out->ascii = false;
			units += n == 4 ? 2 : 1;
			while (n-- > 0)
				*o++ = *p++;
		}
	}
	out->text.len = (size_t) (o - out->text.s);
	out->units = units;
	j->p = p + 1;
	return true;
}

static bool
read_number(SimJson *j, SimScalar *out)
{
	char	   *p = j->p;

	out->kind = SIM_JSON_NUMBER;
	out->integral = true;
	out->text.s = p;
	if (*p == '-')
		p++;
	if (*p == '0')
		p++;
	else if (*p >= '1' && *p <= '9')
		while (*p >= '0' && *p <= '9')
			p++;
	else
		return fail(j, "a number is malformed");
	if (*p == '.')
	{
		out->integral = false;
		if (*++p < '0' || *p > '9')
			return fail(j, "a number is malformed");
		while (*p >= '0' && *p <= '9')
			p++;
	}
	if (*p == 'e' || *p == 'E')
	{
		out->integral = false;
		p++;
		if (*p == '+' || *p == '-')
			p++;
		if (*p < '0' || *p > '9')
			return fail(j, "a number is malformed");
		while (*p >= '0' && *p <= '9')
			p++;
	}
	out->text.len = (size_t) (p - out->text.s);
	j->p = p;
	return true;
}

static bool
read_word(SimJson *j, const char *word, SimJsonKind kind, SimScalar *out)
{
	size_t		n = strlen(word);

	if (strncmp(j->p, word, n) != 0)
		return fail(j, "an unrecognized value was found");
	j->p += n;
	out->kind = kind;
	return true;
}

bool
sim_json_scalar(SimJson *j, SimScalar *out)
{
	switch (sim_json_peek(j))
	{
		case SIM_JSON_STRING:
			return sim_json_string(j, out);
		case SIM_JSON_NUMBER:
			return read_number(j, out);
		case SIM_JSON_NULL:
			return read_word(j, "null", SIM_JSON_NULL, out);
		case SIM_JSON_TRUE:
			return read_word(j, "true", SIM_JSON_TRUE, out);
		case SIM_JSON_FALSE:
			return read_word(j, "false", SIM_JSON_FALSE, out);
		default:
			return fail(j, "a primitive value was expected");
	}
}

bool
sim_json_enter(SimJson *j, char bracket)
{
	if (blank(j) != bracket)
		return fail(j, bracket == '{' ? "an object was expected" : "an array was expected");
	j->p++;
	return true;
}

/* The comma or the end; true when another item follows. */
static bool
more(SimJson *j, bool *first, char close)
{
	char		c = blank(j);

	if (c == close)
	{
		j->p++;
		return false;
	}
	if (*first)
		*first = false;
	else if (c == ',')
	{
		j->p++;
		blank(j);
	}
	else
		return fail(j, close == '}' ? "a comma character ',' was expected in scope 'Object'" :
					"a comma character ',' was expected in scope 'Array'");
	return true;
}

bool
sim_json_next_member(SimJson *j, bool *first, SimScalar *name)
{
	if (j->error != NULL || !more(j, first, '}'))
		return false;
	if (!sim_json_string(j, name))
		return false;
	if (blank(j) != ':')
		return fail(j, "a colon character ':' is expected after the property name");
	j->p++;
	return true;
}

bool
sim_json_next_element(SimJson *j, bool *first)
{
	return j->error == NULL && more(j, first, ']');
}

/* Deep nesting would exhaust the stack; no honest body has it. */
#define MAX_DEPTH 100

static bool
skip_at(SimJson *j, int depth)
{
	SimScalar	s;
	bool		first = true;

	if (depth > MAX_DEPTH)
		return fail(j, "the content is nested too deeply");
	switch (sim_json_peek(j))
	{
		case SIM_JSON_OBJECT:
			sim_json_enter(j, '{');
			while (sim_json_next_member(j, &first, &s))
				if (!skip_at(j, depth + 1))
					return false;
			return j->error == NULL;
		case SIM_JSON_ARRAY:
			sim_json_enter(j, '[');
			while (sim_json_next_element(j, &first))
				if (!skip_at(j, depth + 1))
					return false;
			return j->error == NULL;
		default:
			return sim_json_scalar(j, &s);
	}
}

bool
sim_json_skip(SimJson *j)
{
	return skip_at(j, 0);
}

void
sim_json_put_text(SimBuf *b, const char *s, size_t len)
{
	size_t		from = 0;

	sim_buf_room(b, len + 2);
	sim_buf_char(b, '"');
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) s[i];

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		sim_buf_add(b, s + from, i - from);
		from = i + 1;
		if (c == '"' || c == '\\')
		{
			sim_buf_char(b, '\\');
			sim_buf_char(b, (char) c);
		}
		else if (c == '\n')
			sim_buf_puts(b, "\\n");
		else if (c == '\r')
			sim_buf_puts(b, "\\r");
		else if (c == '\t')
			sim_buf_puts(b, "\\t");
		else
			sim_buf_printf(b, "\\u%04x", c);
	}
	sim_buf_add(b, s + from, len - from);
	sim_buf_char(b, '"');
}

void
sim_json_put(SimBuf *b, const char *s)
{
	sim_json_put_text(b, s, strlen(s));
}

/*
 * wiretext.c - small tools for text that came from outside
 */
#include <string.h>

#include "wiretext.h"

#define UUID_LEN	36

static unsigned char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (unsigned char) (c - 'A' + 'a') : (unsigned char) c;
}

static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool
is_hex(char c)
{
	c = (char) lower(c);
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

/*
 * Length of the valid UTF-8 character at s, or 0. Overlong forms, surrogates
 * and code points above U+10FFFF are not valid (RFC 3629, section 4).
 */
static size_t
utf8_len(const unsigned char *s, size_t len)
{
	unsigned char lo = 0x80;
	unsigned char hi = 0xBF;
	size_t		n;
	size_t		i;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xC2 && s[0] <= 0xDF)
		n = 2;
	else if (s[0] >= 0xE0 && s[0] <= 0xEF)
		n = 3;
	else if (s[0] >= 0xF0 && s[0] <= 0xF4)
		n = 4;
	else
		return 0;
	if (n > len)
		return 0;
	if (s[0] == 0xE0)
		lo = 0xA0;
	else if (s[0] == 0xED)
		hi = 0x9F;
	else if (s[0] == 0xF0)
		lo = 0x90;
	else if (s[0] == 0xF4)
		hi = 0x8F;
	if (s[1] < lo || s[1] > hi)
		return 0;
	for (i = 2; i < n; i++)
		if (s[i] < 0x80 || s[i] > 0xBF)
			return 0;
	return n;
}

void
dv_wiretext_trim(const char **text, size_t *len)
{
	while (*len > 0 && is_space((*text)[0]))
	{
		(*text)++;
		(*len)--;
	}
	while (*len > 0 && is_space((*text)[*len - 1]))
		(*len)--;
}

size_t
dv_wiretext_copy(char *dst, size_t size, const char *src, size_t len)
{
	dv_wiretext_trim(&src, &len);
	return dv_wiretext_clean(dst, size, src, len);
}

size_t
dv_wiretext_clean(char *dst, size_t size, const char *src, size_t len)
{
	size_t		out = 0;

	while (len > 0)
	{
		size_t		n = utf8_len((const unsigned char *) src, len);
		size_t		used = n > 0 ? n : 1;

		if (out + used >= size)
			break;
		if (n == 0)
			dst[out] = '?';
		else if (n == 1 && ((src[0] < 0x20 && !is_space(src[0])) || src[0] == 0x7F))
			dst[out] = ' ';
		else
			memcpy(dst + out, src, n);
		out += used;
		src += used;
		len -= used;
	}
	dst[out] = '\0';
	return out;
}

size_t
dv_wiretext_ascii(char *dst, size_t size, const char *src, size_t len)
{
	size_t		out = 0;

	dv_wiretext_trim(&src, &len);
	while (out < len && out + 1 < size && src[out] > 0x20 && src[out] < 0x7F)
	{
		dst[out] = src[out];
		out++;
	}
	dst[out] = '\0';
	return out;
}

bool
dv_wiretext_same(const char *a, size_t len, const char *b)
{
	size_t		i;

	for (i = 0; i < len; i++)
		if (b[i] == '\0' || lower(a[i]) != lower(b[i]))
			return false;
	return b[len] == '\0';
}

const char *
dv_wiretext_below(const char *address, const char *path)
{
	const char *at = strstr(address, "://");
	size_t		len = strlen(path);
	const char *p;

	/* without a scheme it begins with its path */
	at = at != NULL && at < address + strcspn(address, "/?#") ? strchr(at + 3, '/') : address;
	if (at == NULL || strlen(at) <= len || !dv_wiretext_same(at, len, path) || at[len] != '/')
		return NULL;
	for (p = at + len; *p != '\0'; p++)
		if ((unsigned char) *p <= 0x20 || *p == 0x7f)
			return NULL;
	return at + len;
}

const char *
dv_wiretext_find(const char *text, size_t len, const char *needle)
{
	size_t		need = strlen(needle);
	size_t		i;
	size_t		j;

	for (i = 0; need <= len && i <= len - need; i++)
	{
		for (j = 0; j < need && lower(text[i + j]) == lower(needle[j]); j++)
			;
		if (j == need)
			return text + i;
	}
	return NULL;
}

bool
dv_wiretext_uuid(const char *text, size_t len, char out[37])
{
	size_t		i;

	out[0] = '\0';
	if (len == UUID_LEN + 2 && text[0] == '{' && text[len - 1] == '}')
	{
		text++;
		len -= 2;
	}
	if (len != UUID_LEN)
		return false;
	for (i = 0; i < UUID_LEN; i++)
	{
		bool		dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : !is_hex(text[i]))
			return false;
	}
	for (i = 0; i < UUID_LEN; i++)
		out[i] = (char) lower(text[i]);
	out[UUID_LEN] = '\0';
	return true;
}

bool
dv_wiretext_next_uuid(const char *text, size_t len, size_t *pos, char out[37])
{
	for (; len >= UUID_LEN && *pos <= len - UUID_LEN; (*pos)++)
	{
		size_t		end = *pos + UUID_LEN;

		/* A longer run of hex digits is something else. */
		if (*pos > 0 && is_hex(text[*pos - 1]))
			continue;
		if (end < len && is_hex(text[end]))
			continue;
		if (dv_wiretext_uuid(text + *pos, UUID_LEN, out))
		{
			*pos = end;
			return true;
		}
	}
	out[0] = '\0';
	return false;
}

void
dv_wiretext_format_uuid(const unsigned char id[16], char out[37])
{
	static const char digits[] = "0123456789abcdef";
	int			i;

	for (i = 0; i < 16; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		*out++ = digits[id[i] >> 4];
		*out++ = digits[id[i] & 15];
	}
	*out = '\0';
}

long long
dv_wiretext_days(int y, int m, int d)
{
	long long	era;
	int			year_of_era;
	int			day_of_year;

	y -= m <= 2;
	era = (y >= 0 ? y : y - 399) / 400;
	year_of_era = (int) (y - era * 400);
	day_of_year = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

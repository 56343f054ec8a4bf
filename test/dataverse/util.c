/*
 * util.c - memory, growing buffers, request arenas and small text helpers
 */
#include "util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wctype.h>

/* Large enough for a typical single request, small enough to be cheap. */
#define ARENA_CHUNK 16384

struct SimChunk
{
	SimChunk   *next;
	char		data[];
};

void
sim_die(const char *fmt,...)
{
	va_list		ap;

	fputs("dvsim: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

void *
sim_realloc(void *p, size_t n)
{
	void	   *q = realloc(p, n ? n : 1);

	if (q == NULL)
		sim_die("out of memory (%zu bytes)", n);
	return q;
}

void *
sim_alloc(size_t n)
{
	return sim_realloc(NULL, n);
}

void *
sim_zalloc(size_t n)
{
	return memset(sim_alloc(n), 0, n);
}

char *
sim_strndup(const char *s, size_t n)
{
	char	   *p = sim_alloc(n + 1);

	memcpy(p, s, n);
	p[n] = '\0';
	return p;
}

char *
sim_strdup(const char *s)
{
	return sim_strndup(s, strlen(s));
}

void
sim_buf_room(SimBuf *b, size_t n)
{
	size_t		need = b->len + n + 1;

	if (need <= b->cap)
		return;
	if (need < b->cap * 2)
		need = b->cap * 2;
	if (need < 256)
		need = 256;
	b->data = sim_realloc(b->data, need);
	b->cap = need;
}

void
sim_buf_add(SimBuf *b, const void *p, size_t n)
{
	sim_buf_room(b, n);
	if (n > 0)
		memcpy(b->data + b->len, p, n);
	b->len += n;
	b->data[b->len] = '\0';
}

void
sim_buf_puts(SimBuf *b, const char *s)
{
	sim_buf_add(b, s, strlen(s));
}

void
sim_buf_char(SimBuf *b, char c)
{
	sim_buf_add(b, &c, 1);
}

void
sim_buf_vprintf(SimBuf *b, const char *fmt, va_list ap)
{
	va_list		copy;
	int			n;

	va_copy(copy, ap);
	n = vsnprintf(NULL, 0, fmt, copy);
	va_end(copy);
	if (n < 0)
		return;
	sim_buf_room(b, (size_t) n + 1);
	vsnprintf(b->data + b->len, (size_t) n + 1, fmt, ap);
	b->len += (size_t) n;
}

void
sim_buf_printf(SimBuf *b, const char *fmt,...)
{
	va_list		ap;

	va_start(ap, fmt);
	sim_buf_vprintf(b, fmt, ap);
	va_end(ap);
}

void
sim_buf_free(SimBuf *b)
{
	free(b->data);
	memset(b, 0, sizeof *b);
}

void *
sim_arena_alloc(SimArena *a, size_t n)
{
	char	   *p;

	n = (n + 7) & ~(size_t) 7;
	if ((size_t) (a->end - a->at) < n)
	{
		size_t		size = n > ARENA_CHUNK ? n : ARENA_CHUNK;
		SimChunk   *c;

		/* Big requests get big chunks: fewer calls of malloc. */
		if (a->head != NULL && size < 16 * ARENA_CHUNK)
			size = 16 * ARENA_CHUNK;
		c = sim_alloc(sizeof *c + size);
		c->next = a->head;
		a->head = c;
		a->at = c->data;
		a->end = c->data + size;
	}
	p = a->at;
	a->at += n;
	return p;
}

char *
sim_arena_strndup(SimArena *a, const char *s, size_t n)
{
	char	   *p = sim_arena_alloc(a, n + 1);

	if (n > 0)
		memcpy(p, s, n);
	p[n] = '\0';
	return p;
}

char *
sim_arena_printf(SimArena *a, const char *fmt,...)
{
	SimBuf		b = {0};
	va_list		ap;
	char	   *p;

	va_start(ap, fmt);
	sim_buf_vprintf(&b, fmt, ap);
	va_end(ap);
	p = sim_arena_strndup(a, b.data, b.len);
	sim_buf_free(&b);
	return p;
}

void
sim_arena_free(SimArena *a)
{
	while (a->head != NULL)
	{
		SimChunk   *next = a->head->next;

		free(a->head);
		a->head = next;
	}
	a->at = a->end = NULL;
}

bool
sim_str_is(SimStr a, const char *b)
{
	return strlen(b) == a.len && memcmp(a.s, b, a.len) == 0;
}

uint64_t
sim_hash(const void *p, size_t n)
{
	const unsigned char *s = p;
	uint64_t	h = 0xcbf29ce484222325u ^ n;

	for (; n >= 8; n -= 8, s += 8)
	{
		uint64_t	w;

		memcpy(&w, s, 8);
		h = (h ^ w) * 0x9e3779b97f4a7c15u;
		h ^= h >> 32;
	}
	for (; n > 0; n--, s++)
		h = (h ^ *s) * 0x100000001b3u;
	h ^= h >> 29;
	h *= 0xbf58476d1ce4e5b9u;
	return h ^ (h >> 32);
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

size_t
sim_percent_decode(const char *s, size_t n, char *out, bool plus)
{
	size_t		o = 0;

	for (size_t i = 0; i < n; i++)
	{
		if (s[i] == '%' && i + 2 < n && hex_value(s[i + 1]) >= 0 && hex_value(s[i + 2]) >= 0)
		{
			out[o++] = (char) (hex_value(s[i + 1]) * 16 + hex_value(s[i + 2]));
			i += 2;
		}
		else if (plus && s[i] == '+')
			out[o++] = ' ';
		else
			out[o++] = s[i];
	}
	out[o] = '\0';
	return o;
}

int64_t
sim_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t
sim_mono_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

void
sim_sleep_us(int64_t us)
{
	struct timespec ts;

	if (us <= 0)
		return;
	ts.tv_sec = us / 1000000;
	ts.tv_nsec = us % 1000000 * 1000;
	while (nanosleep(&ts, &ts) != 0 && errno == EINTR)
		;
}

/* Decode one UTF-8 sequence of input that is known to be valid. */
static size_t
utf8_next(const unsigned char *s, size_t left, uint32_t *cp)
{
	if (s[0] >= 0xf0 && left >= 4)
	{
		*cp = (uint32_t) (s[0] & 7) << 18 | (uint32_t) (s[1] & 63) << 12 | (uint32_t) (s[2] & 63) << 6 | (s[3] & 63);
		return 4;
	}
	if (s[0] >= 0xe0 && left >= 3)
	{
		*cp = (uint32_t) (s[0] & 15) << 12 | (uint32_t) (s[1] & 63) << 6 | (s[2] & 63);
		return 3;
	}
	if (s[0] >= 0xc0 && left >= 2)
	{
		*cp = (uint32_t) (s[0] & 31) << 6 | (s[1] & 63);
		return 2;
	}
	*cp = s[0];
	return 1;
}

static void
utf8_put(SimBuf *b, uint32_t cp)
{
	if (cp < 0x80)
		sim_buf_char(b, (char) cp);
	else if (cp < 0x800)
	{
		sim_buf_char(b, (char) (0xc0 | cp >> 6));
		sim_buf_char(b, (char) (0x80 | (cp & 63)));
	}
	else if (cp < 0x10000)
	{
		sim_buf_char(b, (char) (0xe0 | cp >> 12));
		sim_buf_char(b, (char) (0x80 | (cp >> 6 & 63)));
		sim_buf_char(b, (char) (0x80 | (cp & 63)));
	}
	else
	{
		sim_buf_char(b, (char) (0xf0 | cp >> 18));
		sim_buf_char(b, (char) (0x80 | (cp >> 12 & 63)));
		sim_buf_char(b, (char) (0x80 | (cp >> 6 & 63)));
		sim_buf_char(b, (char) (0x80 | (cp & 63)));
	}
}

void
sim_fold(SimBuf *out, const char *s, size_t len)
{
	const unsigned char *p = (const unsigned char *) s;

	while (len > 0 && s[len - 1] == ' ')
		len--;
	sim_buf_room(out, len);
	while (len > 0)
	{
		uint32_t	cp;
		size_t		n;

		if (*p < 0x80)
		{
			sim_buf_char(out, (char) (*p >= 'A' && *p <= 'Z' ? *p + 32 : *p));
			p++;
			len--;
			continue;
		}
		n = utf8_next(p, len, &cp);
		utf8_put(out, (uint32_t) towlower((wint_t) cp));
		p += n;
		len -= n;
	}
}

int
sim_base64_value(char c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *hit = c != '\0' ? strchr(digits, c) : NULL;

	return hit != NULL ? (int) (hit - digits) : -1;
}

/*
 * buf.h - a growable byte buffer on malloc
 *
 * Used where PostgreSQL's StringInfo must not be: inside libcurl's callbacks,
 * which may not throw, and in the wire modules, which are fuzzed outside a
 * server. Memory exhaustion sets "failed" and makes later appends no-ops, so
 * that callers check once.
 */
#ifndef DV_BUF_H
#define DV_BUF_H

#include <stdbool.h>
#include <stddef.h>

typedef struct DvBuf
{
	char	   *data;			/* NUL-terminated, or NULL when empty */
	size_t		len;
	size_t		cap;
	size_t		limit;			/* most bytes it may hold; 0 = no limit */
	bool		failed;			/* out of memory, or over the limit */
} DvBuf;

/* Begin empty, with a limit in bytes (0 = none). Allocates nothing yet. */
extern void dv_buf_init(DvBuf *buf, size_t limit);

/* Give the memory back; the buffer is empty, keeps its limit, and may be used again. */
extern void dv_buf_free(DvBuf *buf);

/* Empty it and forget a failure, but keep its memory for the next use. */
extern void dv_buf_reset(DvBuf *buf);

/*
 * Append bytes, a string, or formatted text: all of it or nothing. False, here
 * and for every later append, once memory ran out or the limit was reached.
 */
extern bool dv_buf_append(DvBuf *buf, const void *data, size_t len);
extern bool dv_buf_puts(DvBuf *buf, const char *text);

#endif							/* DV_BUF_H */

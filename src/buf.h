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

extern void dv_buf_init(DvBuf *buf, size_t limit);
extern void dv_buf_free(DvBuf *buf);
extern void dv_buf_reset(DvBuf *buf);
extern bool dv_buf_append(DvBuf *buf, const void *data, size_t len);
extern bool dv_buf_puts(DvBuf *buf, const char *text);
extern bool dv_buf_printf(DvBuf *buf, const char *format,...);

#endif							/* DV_BUF_H */

/*
 * buf.c - a growable byte buffer on malloc
 *
 * A buffer that failed once stays failed until it is reset, so that a request
 * that lost bytes in the middle can never be mistaken for a whole one.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"

/* First allocation; most paths and error answers fit in it. */
#define FIRST_CAP	256

void
dv_buf_init(DvBuf *buf, size_t limit)
{
	memset(buf, 0, sizeof(DvBuf));
	buf->limit = limit;
}

void
dv_buf_free(DvBuf *buf)
{
	free(buf->data);
	dv_buf_init(buf, buf->limit);
}

void
dv_buf_reset(DvBuf *buf)
{
	buf->len = 0;
	buf->failed = false;
	if (buf->data != NULL)
		buf->data[0] = '\0';
}

/* Make room for "more" bytes and the closing NUL. */
static bool
reserve(DvBuf *buf, size_t more)
{
	size_t		need;
	size_t		cap;
	char	   *data;

	if (buf->failed)
		return false;
	if (more > SIZE_MAX - buf->len - 1 ||
		(buf->limit != 0 && (buf->len > buf->limit || more > buf->limit - buf->len)))
	{
		buf->failed = true;
		return false;
	}
	need = buf->len + more + 1;
	if (need <= buf->cap)
		return true;
	cap = buf->cap < FIRST_CAP ? FIRST_CAP : buf->cap;
	while (cap < need)
		cap = cap > SIZE_MAX / 2 ? need : cap * 2;
	data = realloc(buf->data, cap);
	if (data == NULL)
	{
		buf->failed = true;
		return false;
	}
	buf->data = data;
	buf->cap = cap;
	return true;
}

bool
dv_buf_append(DvBuf *buf, const void *data, size_t len)
{
	if (!reserve(buf, len))
		return false;
	if (len > 0)
		memcpy(buf->data + buf->len, data, len);
	buf->len += len;
	buf->data[buf->len] = '\0';
	return true;
}

bool
dv_buf_puts(DvBuf *buf, const char *text)
{
	return dv_buf_append(buf, text, strlen(text));
}

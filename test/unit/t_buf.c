/*
 * t_buf.c - the byte buffer: growth, limit, failure that sticks
 */
#include "buf.h"
#include "tap.h"

int
main(void)
{
	DvBuf		buf;
	size_t		i;

	dv_buf_init(&buf, 0);
	ok(buf.data == NULL && buf.len == 0 && !buf.failed, "a new buffer is empty and holds no memory");
	ok(dv_buf_puts(&buf, "ab") && dv_buf_append(&buf, "c\0d", 3) && dv_buf_puts(&buf, "12-x"),
	   "text and bytes are appended");
	is_number((long long) buf.len, 9, "length counts every byte");
	ok(memcmp(buf.data, "abc\0d12-x", 10) == 0, "content is as written, closed by NUL");
	for (i = 0; i < 100000; i++)
		dv_buf_append(&buf, "0123456789", 10);
	is_number((long long) buf.len, 1000009, "it grows");
	ok(memcmp(buf.data + 999999, "0123456789", 11) == 0, "the end is there");
	dv_buf_reset(&buf);
	ok(buf.len == 0 && buf.data != NULL && buf.data[0] == '\0', "reset empties and keeps the memory");
	dv_buf_free(&buf);
	ok(buf.data == NULL && buf.cap == 0, "free gives it back");

	dv_buf_init(&buf, 5);
	ok(dv_buf_puts(&buf, "12345"), "the limit can be reached");
	ok(dv_buf_append(&buf, "", 0), "nothing more still fits");
	ok(!dv_buf_puts(&buf, "6"), "and not passed");
	ok(buf.failed && buf.len == 5, "a failed append leaves the content");
	ok(!dv_buf_append(&buf, "", 0) && !dv_buf_puts(&buf, ""), "failure sticks");
	dv_buf_reset(&buf);
	ok(!buf.failed && dv_buf_puts(&buf, "abcde"), "until reset");
	dv_buf_free(&buf);
	is_number((long long) buf.limit, 5, "free keeps the limit");
	ok(!dv_buf_append(&buf, "x", (size_t) -1), "a length that cannot be is refused");
	dv_buf_free(&buf);
	dv_buf_init(&buf, 0);
	dv_buf_puts(&buf, "x");
	ok(!dv_buf_append(&buf, "x", (size_t) -2) && buf.failed, "also without a limit");
	dv_buf_free(&buf);
	return done_testing();
}

/*
 * tap.h - the smallest producer of TAP, for programs run by prove
 */
#ifndef TAP_H
#define TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int	tap_count;
static int	tap_failed;

static inline bool
tap_ok(bool good, const char *file, int line, const char *format,...)
{
	va_list		args;

	printf("%sok %d - ", good ? "" : "not ", ++tap_count);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	if (!good)
	{
		tap_failed++;
		printf("# failed at %s:%d\n", file, line);
	}
	fflush(stdout);
	return good;
}

static inline void
tap_is_text(const char *got, const char *want, const char *file, int line, const char *name)
{
	if (!tap_ok(strcmp(got, want) == 0, file, line, "%s", name))
		printf("#  got: %s\n# want: %s\n", got, want);
}

static inline void
tap_is_number(long long got, long long want, const char *file, int line, const char *name)
{
	if (!tap_ok(got == want, file, line, "%s", name))
		printf("#  got: %lld\n# want: %lld\n", got, want);
}

#define ok(good, ...)			tap_ok(good, __FILE__, __LINE__, __VA_ARGS__)
#define is_text(got, want, name) tap_is_text(got, want, __FILE__, __LINE__, name)
#define is_number(got, want, name) tap_is_number(got, want, __FILE__, __LINE__, name)

/* A copy without a byte to spare, so that reading on is seen by a sanitizer. */
static inline char *
exact_copy(const char *text, size_t len)
{
	char	   *copy = malloc(len > 0 ? len : 1);

	if (copy == NULL)
		abort();
	if (len > 0)
		memcpy(copy, text, len);
	return copy;
}

static inline int
done_testing(void)
{
	printf("1..%d\n", tap_count);
	return tap_failed > 0 || tap_count == 0;
}

#endif							/* TAP_H */

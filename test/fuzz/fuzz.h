/*
 * fuzz.h - what must hold of every verdict, whatever the reply was
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verdict.h"
#include "wire.h"
#include "wiretext.h"

#define FUZZ_ROWS	4

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Always on, unlike assert(). */
#define must(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

/* Ends inside its array, and is what a clean copy of it would be. */
static inline void
must_be_clean(const char *text, size_t size)
{
	char		copy[DV_MESSAGE_LEN * 2];
	size_t		len = strnlen(text, size);

	must(len < size);
	dv_wiretext_copy(copy, sizeof(copy), text, len);
	must(strspn(text, " \t\r\n") == len || strstr(text, copy) != NULL);
}

static inline void
must_be_verdict(const DvVerdict *v)
{
	static const char *const classes[] = {"length", "range", "choice", "lookup", "type", "mapping", "duplicate",
		"duplicate_detection", "gone", "owner", "privilege", "state", "plugin", "date", "version", "sql", "throttled",
	"unavailable", "authentication", "other"};
	size_t		i;

	must(v->kind >= DV_DONE && v->kind <= DV_FAIL_RUN);
	must(v->retry_after_ms >= -1 && v->retry_after_ms <= 86400000);
	must_be_clean(v->message, sizeof(v->message));
	must_be_clean(v->code, sizeof(v->code));
	must_be_clean(v->column, sizeof(v->column));
	must_be_clean(v->request_id, sizeof(v->request_id));
	if (v->kind == DV_DONE)
	{
		must(v->error_class[0] == '\0');
		return;
	}
	must(v->message[0] != '\0');
	for (i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
		if (strcmp(v->error_class, classes[i]) == 0)
			return;
	must(!"a class nobody knows");
}

static inline void
must_be_id(const char *id)
{
	char		copy[37];

	must(id[0] == '\0' || (dv_wiretext_uuid(id, 36, copy) && strcmp(id, copy) == 0));
}

/* Rows with ids 11111111-... to 44444444-..., or with a key, from one byte. */
static inline int
fuzz_rows(uint8_t shape, DvWireRow *rows, const DvWireRow **list)
{
	static const char bind[] = "\"parentaccountid@odata.bind\":\"accounts(99999999-aaaa-4aaa-8aaa-aaaaaaaaaaaa)\"";
	int			n = shape % FUZZ_ROWS + 1;
	int			i;

	shape /= FUZZ_ROWS;
	memset(rows, 0, sizeof(DvWireRow) * FUZZ_ROWS);
	for (i = 0; i < n; i++)
	{
		rows[i].op = "IUD"[shape % 3];
		if (shape / 3 % 2 == 0)
		{
			memcpy(rows[i].id, "11111111-aaaa-4aaa-8aaa-aaaaaaaaaaaa", sizeof(rows[i].id));
			memset(rows[i].id, '1' + i, 8);
		}
		else
			rows[i].key = "new_code='A'";
		rows[i].content = bind;
		rows[i].content_len = shape / 6 % 2 == 0 ? 0 : sizeof(bind) - 1;
		list[i] = &rows[i];
	}
	return n;
}

/* How often a text occurs. */
static inline int
fuzz_count(const char *text, size_t len, const char *needle)
{
	const char *at = text;
	int			count = 0;

	while ((at = dv_wiretext_find(at, len - (size_t) (at - text), needle)) != NULL)
	{
		count++;
		at++;
	}
	return count;
}

#endif							/* FUZZ_H */

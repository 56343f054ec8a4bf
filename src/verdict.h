/*
 * verdict.h - what an answer means for a row
 *
 * One table, from HTTP status, error code and error text to what is to be
 * done next. No PostgreSQL types: it is fuzzed and unit-tested alone.
 */
#ifndef DV_VERDICT_H
#define DV_VERDICT_H

#include <stdbool.h>
#include <stddef.h>

typedef enum DvVerdictKind
{
	DV_DONE,					/* written (a delete of a missing row too) */
	DV_SETTLE,					/* outcome unknown: read the ids back */
	DV_EXISTS,					/* answered "duplicate": check by id first */
	DV_WAIT,					/* throttled: hold everything of that user */
	DV_RETRY,					/* transient, and nothing was written */
	DV_SHRINK,					/* too big or too slow: fewer rows a request */
	DV_GONE,					/* update of a record that does not exist */
	DV_FAIL_ROW,				/* of several rows: one of them is bad, isolate it */
	DV_FAIL_RUN
} DvVerdictKind;

/* Refused for too many requests at once: nothing is used up. */
#define DV_CODE_AT_ONCE	"0x80072326"

/* Optimistic concurrency is not enabled for the table. */
#define DV_CODE_NO_CONDITIONS	"0x80060883"

#define DV_CODE_LEN		24
#define DV_CLASS_LEN	24
#define DV_REQID_LEN	48
#define DV_COLUMN_LEN	130
#define DV_MESSAGE_LEN	1024	/* longer texts are cut at a UTF-8 boundary */

typedef struct DvVerdict
{
	DvVerdictKind kind;
	int			http_status;	/* of the part, or of the request */
	int			tries;			/* DV_RETRY: how often a request of several rows goes
								 * again as it is, before its rows go singly */
	long		retry_after_ms;	/* as the answer gave it; -1 where it did not */
	char		code[DV_CODE_LEN];	/* as sent, e.g. "0x80044331"; may be "" */
	char		error_class[DV_CLASS_LEN];	/* see dv_verdict_classify(); "" with DV_DONE */
	char		request_id[DV_REQID_LEN];
	char		column[DV_COLUMN_LEN];	/* column the text names, or "" */
	char		message[DV_MESSAGE_LEN];	/* valid UTF-8, no NUL */
} DvVerdict;

/*
 * Fill in kind, error_class and column from status, code and message, all
 * already stored in *v. "op" is 'I', 'U' or 'D', or 'B' for a $batch that was
 * refused as a whole, or 'R' for a read. "single" says that the answer belongs
 * to one row alone (a part of a $batch, or a request of one row); if it does
 * not, nothing is said of a single record (DV_GONE becomes DV_FAIL_ROW).
 *
 * A status that is not an error (below 400, or above 599) never means success
 * here: what a success looks like only wire.c knows. It settles. The one case
 * of DV_DONE is the delete of a record that is not there.
 *
 * Codes are compared without regard to case. Error classes are lower-case
 * words a DBA filters on: length, range, choice, lookup, type, mapping,
 * duplicate, duplicate_detection, gone, owner, privilege, state, plugin,
 * date, version, sql, throttled, unavailable, authentication, other.
 * (The engine adds classes of its own: exists, changed, transform ...)
 */
extern void dv_verdict_classify(DvVerdict *v, char op, bool single);

/* Name of a kind, for what tests say. */
extern const char *dv_verdict_name(DvVerdictKind kind);

/*
 * Parse a Retry-After value: seconds, or an HTTP date (compared with "now", a
 * time_t as long long). Returns milliseconds, 0 for a date that has passed,
 * at most 24 hours, or -1 where it is neither.
 */
extern long dv_verdict_retry_after(const char *value, size_t len, long long now);

/*
 * The seconds over which the service counts its limits, as an answer 429 tells
 * in its text ("... over time window of 300 seconds"); 0 where it does not.
 */
extern int	dv_verdict_window(const char *text, size_t len);

/* An HTTP date ("Mon, 04 May 2026 03:02:01 GMT") in seconds since 1970; false where it is none. */
extern bool dv_verdict_http_date(const char *text, long long *when);

#endif							/* DV_VERDICT_H */

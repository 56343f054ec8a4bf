/*
 * verdict.c - what an answer means for a row
 *
 * The table below is the only place that decides. It is read from the top and
 * the first rule that fits holds: what is said by a code comes before what is
 * said by a status alone. Codes and texts are those of the Dataverse Web API.
 *
 * Three questions decide what is to be done:
 *   - may it have been written?  then the ids are read back (DV_SETTLE);
 *   - will the same request do later?  then it waits (DV_WAIT, DV_RETRY);
 *   - whose fault is it?  the row's, or the whole run's (DV_FAIL_RUN).
 * A gateway answers 502, 503 or 504 also for requests that go on to commit, so
 * these never count as "not written". An error object of Dataverse itself
 * does: its transaction was rolled back.
 */
#include <stdio.h>
#include <string.h>

#include "verdict.h"
#include "wiretext.h"

#define ANY			NULL		/* any code, or none */
#define NONE		""			/* no code: not an error object of Dataverse */
#define SOME		"*"			/* any code at all */
#define ALL			NULL		/* any text; any operation */

#define STATUS_5XX	5
#define STATUS_4XX	4

typedef struct Rule
{
	const char *code;
	int			status;			/* 0 = any, STATUS_5XX, STATUS_4XX, or exact */
	const char *text;			/* what the message contains */
	const char *ops;			/* operations it holds for */
	DvVerdictKind kind;
	const char *error_class;
	int			tries;			/* DV_RETRY: how often several rows go again together */
} Rule;

/* *INDENT-OFF* */
static const Rule rules[] = {
	/* Throttled: the code counts, whatever status a proxy made of it. */
	{"0x80072322", 0, ALL, ALL, DV_WAIT, "throttled", 0},		/* number of requests */
	{"0x80072321", 0, ALL, ALL, DV_WAIT, "throttled", 0},		/* execution time */
	{DV_CODE_AT_ONCE, 0, ALL, ALL, DV_WAIT, "throttled", 0},		/* concurrent requests */
	{"0x8005F103", 0, ALL, ALL, DV_WAIT, "throttled", 0},		/* Throttling */
	{ANY, 429, ALL, ALL, DV_WAIT, "throttled", 0},

	/* Who we are. The session has tried a fresh token before this is asked. */
	{"0x8005F101", 0, ALL, ALL, DV_FAIL_RUN, "authentication", 0},	/* AccessTokenExpired */
	{ANY, 401, ALL, ALL, DV_FAIL_RUN, "authentication", 0},
	{ANY, 407, ALL, ALL, DV_FAIL_RUN, "authentication", 0},		/* a proxy asks who we are */
	{"0x80072560", 0, ALL, ALL, DV_FAIL_RUN, "authentication", 0},	/* no application user */
	{"0x80040225", 0, ALL, ALL, DV_FAIL_RUN, "authentication", 0},	/* user is disabled */

	/* What we may do. The owner's missing privilege is the row's, ours the run's. */
	{"0x80040299", 0, ALL, ALL, DV_FAIL_ROW, "owner", 0},		/* 403 or 400 */
	{SOME, 0, "Read Privilege Check For Owner failed", ALL, DV_FAIL_ROW, "owner", 0},
	{SOME, 403, "prvOverrideCreatedOnCreatedBy", ALL, DV_FAIL_RUN, "privilege", 0},
	{SOME, 403, "prvActOnBehalfOfAnotherUser", ALL, DV_FAIL_RUN, "privilege", 0},
	{SOME, 403, "prvBypass", ALL, DV_FAIL_RUN, "privilege", 0},
	{"0x80040220", 403, ALL, ALL, DV_FAIL_RUN, "privilege", 0},	/* PrivilegeDenied */
	{"0x80048306", 403, ALL, ALL, DV_FAIL_RUN, "privilege", 0},
	{"0x80040220", 0, ALL, ALL, DV_FAIL_ROW, "privilege", 0},		/* e.g. out of a plug-in */
	{"0x80048306", 0, ALL, ALL, DV_FAIL_ROW, "privilege", 0},
	{"0x8004F507", 0, ALL, ALL, DV_FAIL_ROW, "privilege", 0},		/* column security */

	/* SQL Server. A victim of a deadlock was rolled back. */
	{"0x80044150", 0, "Sql Number: 1205", ALL, DV_RETRY, "sql", 8},	/* deadlock */
	{"0x80044150", 0, "Sql Number: 3732", ALL, DV_RETRY, "sql", 3},	/* a new table's bulk */
	{"0x80044150", 0, "Sql Number: 2812", ALL, DV_RETRY, "sql", 3},	/* procedures are still */
	{"0x80044150", 0, "Sql Number: 2766", ALL, DV_RETRY, "sql", 3},	/* being made */
	{"0x80044150", 0, "Sql Number: -2", ALL, DV_SHRINK, "sql", 0},	/* time-out */
	{"0x80044150", 0, "Sql Number: 2601", "I", DV_EXISTS, "duplicate", 0},	/* unique index */
	{"0x80044150", 0, "Sql Number: 2627", "I", DV_EXISTS, "duplicate", 0},
	{"0x80044150", 0, "Sql Number: 2601", ALL, DV_FAIL_ROW, "duplicate", 0},
	{"0x80044150", 0, "Sql Number: 2627", ALL, DV_FAIL_ROW, "duplicate", 0},
	{"0x80044150", 0, "Sql Number: 245", ALL, DV_FAIL_ROW, "sql", 0},	/* conversion */
	{"0x80044150", 0, "Sql Number: 515", ALL, DV_FAIL_ROW, "sql", 0},	/* null */
	{"0x80044150", 0, "Sql Number: 547", ALL, DV_FAIL_ROW, "sql", 0},	/* foreign key */
	{"0x80044150", 0, "Sql Number: 2628", ALL, DV_FAIL_ROW, "length", 0},	/* truncation */
	{"0x80044150", 0, "Sql Number: 8115", ALL, DV_FAIL_ROW, "range", 0},	/* overflow */
	{"0x80044150", 0, "Sql Number: 8152", ALL, DV_FAIL_ROW, "length", 0},	/* truncation */
	{"0x80044150", 0, ALL, ALL, DV_RETRY, "sql", 2},
	{"0x80044151", 0, ALL, ALL, DV_SHRINK, "sql", 0},			/* SQL time-out */
	{"0x80040255", 0, ALL, ALL, DV_RETRY, "sql", 3},			/* transaction aborted */
	{"0x80040251", 0, ALL, ALL, DV_FAIL_ROW, "plugin", 0},		/* no active transaction */
	{"0x80041136", 0, ALL, ALL, DV_FAIL_ROW, "range", 0},		/* arithmetic overflow */
	{SOME, 0, "More than one concurrent Delete", ALL, DV_RETRY, "sql", 8},

	/* "It is there already": true only once our id was looked for. */
	{"0x80040237", 0, ALL, "IB", DV_EXISTS, "duplicate", 0},		/* primary key */
	{"0x80060892", 0, ALL, "IB", DV_EXISTS, "duplicate", 0},		/* alternate key */
	{"0x80073002", 0, ALL, "IB", DV_EXISTS, "duplicate", 0},		/* unique index */
	{"0x80040333", 0, ALL, "IB", DV_EXISTS, "duplicate_detection", 0},
	{"0x80040237", 0, ALL, ALL, DV_FAIL_ROW, "duplicate", 0},
	{"0x80060892", 0, ALL, ALL, DV_FAIL_ROW, "duplicate", 0},
	{"0x80073002", 0, ALL, ALL, DV_FAIL_ROW, "duplicate", 0},
	{"0x80040333", 0, ALL, ALL, DV_FAIL_ROW, "duplicate_detection", 0},
	{"0x80060882", 0, ALL, ALL, DV_FAIL_ROW, "version", 0},		/* row version mismatch */

	/* "It is not there": the record itself, or one it points at (see wire_reply.c). */
	{"0x80040217", 404, ALL, "D", DV_DONE, "", 0},
	{"0x80060891", 404, ALL, "D", DV_DONE, "", 0},
	{"0x80040217", 0, ALL, "U", DV_GONE, "gone", 0},
	{"0x80060891", 0, ALL, "U", DV_GONE, "gone", 0},
	{"0x80040217", 0, ALL, ALL, DV_FAIL_ROW, "lookup", 0},
	{"0x80060891", 0, ALL, ALL, DV_FAIL_ROW, "lookup", 0},

	/* The address is wrong. A bulk message the table lacks is no reason to stop. */
	{"0x8006088a", 0, "CreateMultiple", ALL, DV_FAIL_ROW, "mapping", 0},
	{"0x8006088a", 0, "UpdateMultiple", ALL, DV_FAIL_ROW, "mapping", 0},
	{"0x8006088a", 0, ALL, ALL, DV_FAIL_RUN, "mapping", 0},		/* unknown segment */
	{"0x80072535", 0, ALL, ALL, DV_FAIL_RUN, "mapping", 0},		/* virtual table */
	{NONE, 404, "CreateMultiple", ALL, DV_FAIL_ROW, "mapping", 0},
	{NONE, 404, "UpdateMultiple", ALL, DV_FAIL_ROW, "mapping", 0},
	{NONE, 404, "No HTTP resource was found", ALL, DV_FAIL_RUN, "mapping", 0},

	/* The content is wrong in form: usually every row's, by the column map. */
	{"0x80048d19", 0, "undeclared property", ALL, DV_FAIL_ROW, "mapping", 0},
	{"0x80048d19", 0, "Invalid property", ALL, DV_FAIL_ROW, "mapping", 0},
	{"0x80048d19", 0, ALL, ALL, DV_FAIL_ROW, "type", 0},
	{"0x0", 0, ALL, ALL, DV_FAIL_ROW, "mapping", 0},
	{NONE, 400, "Could not find a property named", ALL, DV_FAIL_ROW, "mapping", 0},
	{NONE, 400, "Invalid property", ALL, DV_FAIL_ROW, "mapping", 0},

	/* The content is wrong in value. */
	{"0x80044331", 0, ALL, ALL, DV_FAIL_ROW, "length", 0},
	{"0x80044a02", 0, ALL, ALL, DV_FAIL_ROW, "length", 0},		/* file */
	{"0x8004431A", 0, ALL, ALL, DV_FAIL_ROW, "choice", 0},
	{"0x80050222", 0, ALL, ALL, DV_FAIL_ROW, "choice", 0},		/* more than 150 choices */
	{"0x8004432F", 0, ALL, ALL, DV_FAIL_ROW, "range", 0},		/* whole number */
	{"0x80044330", 0, ALL, ALL, DV_FAIL_ROW, "range", 0},		/* decimal, currency */
	{"0x80040239", 0, ALL, ALL, DV_FAIL_ROW, "date", 0},
	{"0x80048408", 0, ALL, ALL, DV_FAIL_ROW, "state", 0},		/* state and status */
	{"0x8004F854", 0, ALL, ALL, DV_FAIL_ROW, "state", 0},		/* status transitions */
	{"0x8004F855", 0, ALL, ALL, DV_FAIL_ROW, "state", 0},
	{"0x8004F856", 0, ALL, ALL, DV_FAIL_ROW, "state", 0},
	{"0x8004F857", 0, ALL, ALL, DV_FAIL_ROW, "state", 0},
	{"0x8004F858", 0, ALL, ALL, DV_FAIL_ROW, "state", 0},
	{"0x80040265", 0, ALL, ALL, DV_FAIL_ROW, "plugin", 0},		/* IsvAborted */
	{"0x80048550", 0, ALL, ALL, DV_FAIL_ROW, "plugin", 0},		/* before commit */
	{SOME, 400, "is not a valid status code for state code", ALL, DV_FAIL_ROW, "state", 0},
	{SOME, 400, "minimum value supported by CrmDateTime", ALL, DV_FAIL_ROW, "date", 0},

	/* Too much at once. */
	{ANY, 413, ALL, ALL, DV_SHRINK, "length", 0},
	{ANY, 414, ALL, ALL, DV_SHRINK, "length", 0},
	{SOME, 0, "Message size exceeded when sending context", ALL, DV_SHRINK, "length", 0},

	/* Nobody knows: the gateway's word is not the service's. */
	{ANY, 408, ALL, ALL, DV_SETTLE, "unavailable", 0},
	{ANY, 502, ALL, ALL, DV_SETTLE, "unavailable", 0},
	{ANY, 503, ALL, ALL, DV_SETTLE, "unavailable", 0},
	{ANY, 504, ALL, ALL, DV_SETTLE, "unavailable", 0},
	{NONE, STATUS_5XX, ALL, ALL, DV_SETTLE, "unavailable", 0},

	/* The rest, by status. */
	{"0x80040216", 0, ALL, ALL, DV_RETRY, "other", 1},			/* unexpected error */
	{SOME, 501, ALL, ALL, DV_FAIL_ROW, "other", 0},			/* not implemented */
	{SOME, STATUS_5XX, ALL, ALL, DV_RETRY, "other", 3},
	{SOME, 403, ALL, ALL, DV_FAIL_ROW, "privilege", 0},
	{NONE, 404, ALL, "D", DV_SETTLE, "unavailable", 0},		/* "not found" by whom? */
	{ANY, 425, ALL, ALL, DV_RETRY, "unavailable", 8},			/* too early */
	{ANY, STATUS_4XX, ALL, ALL, DV_FAIL_ROW, "other", 0}
};

/* Where a message names a column: between these two texts. */
static const struct
{
	const char *before;
	const char *after;
}			column_texts[] = {
	{"the length of the '", "' attribute of"},
	{" of '", "' on record of type"},
	{"property named '", "' on type"},
	{"invalid property '", "' was found"},
	{"undeclared property '", "' which"},
	{"same value for ", " already exists"},
	{"attribute '", "'"},
	{"column '", "'"},
	{"property '", "'"}
};
/* *INDENT-ON* */

#define LENGTH_OF(a)	(sizeof(a) / sizeof((a)[0]))

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_name(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_';
}

/* Contained, and not as the beginning of a longer number. */
static bool
contains(const char *message, const char *text)
{
	size_t		len = strlen(message);
	size_t		need = strlen(text);
	const char *at = message;

	while ((at = dv_wiretext_find(at, len - (size_t) (at - message), text)) != NULL)
	{
		if (!is_digit(text[need - 1]) || !is_digit(at[need]))
			return true;
		at++;
	}
	return false;
}

static bool
begins(const char *message, const char *text)
{
	size_t		len = strlen(message);
	size_t		need = strlen(text);

	return need <= len && dv_wiretext_same(message, need, text);
}

static bool
code_fits(const char *rule, const char *code)
{
	if (rule == ANY)
		return true;
	if (strcmp(rule, SOME) == 0)
		return code[0] != '\0';
	return dv_wiretext_same(code, strlen(code), rule);
}

static bool
status_fits(int rule, int status)
{
	return rule == 0 || rule == status || rule == status / 100;
}

static void
find_column(DvVerdict *v)
{
	size_t		len = strlen(v->message);
	size_t		i;

	v->column[0] = '\0';
	for (i = 0; i < LENGTH_OF(column_texts); i++)
	{
		size_t		skip = strlen(column_texts[i].before);
		const char *at = v->message;

		while ((at = dv_wiretext_find(at, len - (size_t) (at - v->message), column_texts[i].before)) != NULL)
		{
			size_t		n = 0;

			at += skip;
			while (is_name(at[n]))
				n++;
			if (n > 0 && n < DV_COLUMN_LEN && begins(at + n, column_texts[i].after))
			{
				memcpy(v->column, at, n);
				v->column[n] = '\0';
				return;
			}
		}
	}
}

static void
set(DvVerdict *v, DvVerdictKind kind, const char *error_class)
{
	v->kind = kind;
	v->tries = 0;
	snprintf(v->error_class, sizeof(v->error_class), "%s", error_class);
}

void
dv_verdict_classify(DvVerdict *v, char op, bool single)
{
	size_t		i;

	v->column[0] = '\0';
	set(v, DV_SETTLE, "unavailable");
	if (v->http_status < 400 || v->http_status > 599)
		return;
	for (i = 0; i < LENGTH_OF(rules); i++)
	{
		const Rule *r = &rules[i];

		if (!code_fits(r->code, v->code) || !status_fits(r->status, v->http_status) ||
			(r->ops != NULL && strchr(r->ops, op) == NULL) ||
			(r->text != NULL && !contains(v->message, r->text)))
			continue;
		set(v, r->kind, r->error_class);
		v->tries = r->tries;
		break;
	}
	/* Nothing is known of one record among several. */
	if (!single && v->kind == DV_GONE)
		set(v, DV_FAIL_ROW, "lookup");
	if (!single && v->kind == DV_DONE)
		set(v, DV_SETTLE, "unavailable");
	if (v->kind == DV_FAIL_ROW || v->kind == DV_EXISTS)
		find_column(v);
}

const char *
dv_verdict_name(DvVerdictKind kind)
{
	switch (kind)
	{
		case DV_DONE:
			return "done";
		case DV_SETTLE:
			return "settle";
		case DV_EXISTS:
			return "exists";
		case DV_WAIT:
			return "wait";
		case DV_RETRY:
			return "retry";
		case DV_SHRINK:
			return "shrink";
		case DV_GONE:
			return "gone";
		case DV_FAIL_ROW:
			return "fail row";
		case DV_FAIL_RUN:
			return "fail run";
	}
	return "unknown";
}

/*
 * t_verdict.c - the table of verdicts, Retry-After, and columns named in texts
 */
#include "tap.h"
#include "verdict.h"

typedef struct Case
{
	char		op;
	bool		single;
	int			status;
	const char *code;
	const char *message;
	DvVerdictKind kind;
	const char *error_class;
	const char *column;
} Case;

#define ONE		true
#define MANY	false

static const Case cases[] = {
	/* throttling */
	{'I', MANY, 429, "0x80072322", "Number of requests exceeded", DV_WAIT, "throttled", ""},
	{'I', MANY, 429, "0x80072321", "Combined execution time", DV_WAIT, "throttled", ""},
	{'U', ONE, 429, "0x80072326", "Number of concurrent requests", DV_WAIT, "throttled", ""},
	{'U', ONE, 503, "0x8005f103", "Too many requests.", DV_WAIT, "throttled", ""},
	{'B', MANY, 429, "", "", DV_WAIT, "throttled", ""},
	/* who we are and what we may do */
	{'I', MANY, 401, "", "", DV_FAIL_RUN, "authentication", ""},
	{'I', MANY, 401, "0x8005F101", "expired", DV_FAIL_RUN, "authentication", ""},
	{'I', MANY, 407, "", "proxy", DV_FAIL_RUN, "authentication", ""},
	{'I', ONE, 403, "0x80072560", "The user is not a member of the organization.", DV_FAIL_RUN, "authentication", ""},
	{'I', ONE, 403, "0x80040225", "disabled", DV_FAIL_RUN, "authentication", ""},
	{'I', ONE, 403, "0x80040220", "Principal user is missing prvCreateAccount privilege", DV_FAIL_RUN, "privilege", ""},
	{'I', ONE, 403, "0x80048306", "PrivilegeDenied", DV_FAIL_RUN, "privilege", ""},
	{'I', ONE, 403, "0x80040224", "Principal user is missing prvOverrideCreatedOnCreatedBy privilege", DV_FAIL_RUN, "privilege", ""},
	{'I', ONE, 403, "0x80040299", "Read Privilege Check For Owner failed with exception: Principal team", DV_FAIL_ROW, "owner", ""},
	{'I', ONE, 400, "0x80040299", "Target user or team", DV_FAIL_ROW, "owner", ""},
	{'I', ONE, 403, "0x8004F507", "column security", DV_FAIL_ROW, "privilege", ""},
	{'I', ONE, 403, "0x80041234", "some access", DV_FAIL_ROW, "privilege", ""},
	{'I', ONE, 403, "", "blocked by the firewall", DV_FAIL_ROW, "other", ""},
	{'I', ONE, 403, "0x80041234", "missing prvActOnBehalfOfAnotherUser privilege", DV_FAIL_RUN, "privilege", ""},
	{'I', ONE, 403, "0x80041234", "missing prvBypassCustomPlugins privilege", DV_FAIL_RUN, "privilege", ""},
	{'I', ONE, 400, "0x80040220", "out of a plug-in", DV_FAIL_ROW, "privilege", ""},
	{'I', ONE, 400, "0x80048306", "out of a plug-in", DV_FAIL_ROW, "privilege", ""},
	{'I', ONE, 400, "0x80041234", "Read Privilege Check For Owner failed", DV_FAIL_ROW, "owner", ""},
	/* SQL Server */
	{'I', MANY, 500, "0x80044150", "Generic SQL error. Sql Number: 1205", DV_RETRY, "sql", ""},
	{'I', MANY, 500, "0x80044150", "Sql ErrorCode: -2146232060 Sql Number: 3732 x", DV_RETRY, "sql", ""},
	{'I', MANY, 500, "0x80044150", "Sql Number: 2812", DV_RETRY, "sql", ""},
	{'I', MANY, 500, "0x80044150", "Sql Number: 2766", DV_RETRY, "sql", ""},
	{'I', MANY, 500, "0x80044150", "Sql Number: 99999", DV_RETRY, "sql", ""},
	{'I', MANY, 500, "0x80044150", "Sql Number: 5470", DV_RETRY, "sql", ""},
	{'I', ONE, 500, "0x80044150", "Sql Number: 547", DV_FAIL_ROW, "sql", ""},
	{'I', ONE, 500, "0x80044150", "Sql Number: 2627", DV_EXISTS, "duplicate", ""},
	{'U', ONE, 500, "0x80044150", "Sql Number: 2627", DV_FAIL_ROW, "duplicate", ""},
	{'I', MANY, 500, "0x80044150", "Sql Number: -2", DV_SHRINK, "sql", ""},
	{'I', MANY, 500, "0x80044151", "SQL timeout expired.", DV_SHRINK, "sql", ""},
	{'I', MANY, 500, "0x80040255", "transaction aborted", DV_RETRY, "sql", ""},
	{'I', ONE, 400, "0x80040251", "no active transaction", DV_FAIL_ROW, "plugin", ""},
	{'I', ONE, 400, "0x80041136", "overflow", DV_FAIL_ROW, "range", ""},
	{'D', ONE, 400, "0x80040203", "More than one concurrent Delete requests detected", DV_RETRY, "sql", ""},
	{'I', ONE, 500, "0x80044150", "Sql Number: 2601", DV_EXISTS, "duplicate", ""},
	{'U', ONE, 500, "0x80044150", "Sql Number: 2601", DV_FAIL_ROW, "duplicate", ""},
	{'I', ONE, 500, "0x80044150", "Sql Number: 245", DV_FAIL_ROW, "sql", ""},
	{'I', ONE, 500, "0x80044150", "Sql Number: 515", DV_FAIL_ROW, "sql", ""},
	{'I', ONE, 500, "0x80044150", "Sql Number: 2628", DV_FAIL_ROW, "length", ""},
	{'I', ONE, 500, "0x80044150", "Sql Number: 8152", DV_FAIL_ROW, "length", ""},
	{'I', ONE, 500, "0x80044150", "Sql Number: 8115", DV_FAIL_ROW, "range", ""},
	{'U', MANY, 400, "0x80044151", "SQL timeout expired.", DV_SHRINK, "sql", ""},
	{'I', ONE, 500, "0x8004E023", "AggregateQueryRecordLimit exceeded. Cannot perform this operation.", DV_RETRY, "other", ""},
	{'I', ONE, 400, "0x8004E023", "AggregateQueryRecordLimit exceeded. Cannot perform this operation.", DV_FAIL_ROW, "other", ""},
	{'D', MANY, 501, "0x80040800", "DeleteMultiple has not yet been implemented.", DV_FAIL_ROW, "other", ""},
	/* duplicates */
	{'B', MANY, 412, "0x80060892", "violated", DV_EXISTS, "duplicate", ""},
	{'U', ONE, 412, "0x80040237", "Cannot insert duplicate key.", DV_FAIL_ROW, "duplicate", ""},
	{'U', ONE, 400, "0x80073002", "unique index", DV_FAIL_ROW, "duplicate", ""},
	{'U', ONE, 412, "0x80040333", "A record was not created or updated", DV_FAIL_ROW, "duplicate_detection", ""},
	{'I', ONE, 412, "0x80040237", "Cannot insert duplicate key.", DV_EXISTS, "duplicate", ""},
	{'I', MANY, 412, "0x80040237", "Cannot insert duplicate key.", DV_EXISTS, "duplicate", ""},
	{'I', ONE, 412, "0x80060892", "Entity Key A violated. A record with the same value for accountnumber already exists.",
	DV_EXISTS, "duplicate", "accountnumber"},
	{'I', ONE, 400, "0x80073002", "unique index", DV_EXISTS, "duplicate", ""},
	{'I', ONE, 412, "0x80040333", "A record was not created or updated", DV_EXISTS, "duplicate_detection", ""},
	{'U', ONE, 412, "0x80060892", "violated", DV_FAIL_ROW, "duplicate", ""},
	{'U', ONE, 412, "0x80060882", "version", DV_FAIL_ROW, "version", ""},
	/* not there */
	{'U', ONE, 404, "0x80060891", "no record", DV_GONE, "gone", ""},
	{'U', ONE, 404, "0x80040217", "account With Id = 1 Does Not Exist", DV_GONE, "gone", ""},
	{'U', MANY, 404, "0x80040217", "Contact With Ids = 1 Do Not Exist", DV_FAIL_ROW, "lookup", ""},
	{'I', ONE, 404, "0x80040217", "account With Id = 1 Does Not Exist", DV_FAIL_ROW, "lookup", ""},
	{'I', ONE, 400, "0x80060891", "specified key values", DV_FAIL_ROW, "lookup", ""},
	{'D', ONE, 404, "0x80040217", "account With Id = 1 Does Not Exist", DV_DONE, "", ""},
	{'D', ONE, 404, "0x80060891", "no record", DV_DONE, "", ""},
	{'D', MANY, 404, "0x80040217", "account With Id = 1 Does Not Exist", DV_SETTLE, "unavailable", ""},
	{'D', ONE, 404, "0x8006088a", "Resource not found for the segment 'Accounts'.", DV_FAIL_RUN, "mapping", ""},
	{'D', ONE, 404, "", "page not found", DV_SETTLE, "unavailable", ""},
	{'B', ONE, 404, "0x80040217", "account With Id = 1 Does Not Exist", DV_FAIL_ROW, "lookup", ""},
	{'D', ONE, 405, "0x80048105", "CannotDeleteDueToAssociation", DV_FAIL_ROW, "other", ""},
	/* form and address */
	{'I', ONE, 404, "0x8006088A", "Resource not found for the segment 'Account'.", DV_FAIL_RUN, "mapping", ""},
	{'I', MANY, 404, "0x8006088a", "Resource not found for the segment 'Microsoft.Dynamics.CRM.CreateMultiple'.", DV_FAIL_ROW, "mapping", ""},
	{'I', MANY, 404, "", "No HTTP resource was found that matches the request URI '…'.", DV_FAIL_RUN, "mapping", ""},
	{'I', ONE, 400, "0x80072535", "virtual", DV_FAIL_RUN, "mapping", ""},
	{'I', ONE, 400, "0x80048d19", "Error identified in Payload provided by the user for Entity :'contacts' … An undeclared property 'parentcustomerid' which only has property annotations", DV_FAIL_ROW, "mapping", "parentcustomerid"},
	{'I', ONE, 400, "0x80048D19", "InnerException : Cannot convert the literal 'x' to the expected type 'Edm.Int32'.", DV_FAIL_ROW, "type", ""},
	{'I', ONE, 400, "0x0", "An error occurred while validating input parameters: Invalid property 'Name' was found in entity", DV_FAIL_ROW, "mapping", "Name"},
	{'I', ONE, 400, "", "Could not find a property named 'Name' on type 'Microsoft.Dynamics.CRM.account'.", DV_FAIL_ROW, "mapping", "Name"},
	/* value */
	{'I', ONE, 400, "0x80044331", "A validation error occurred.  The length of the 'subject' attribute of the 'task' entity exceeded the maximum allowed length of '200'.", DV_FAIL_ROW, "length", "subject"},
	{'I', ONE, 400, "0x8004431a", "A validation error occurred. The value 5 of 'industrycode' on record of type 'account' is outside the valid range. Accepted Values: 1", DV_FAIL_ROW, "choice", "industrycode"},
	{'I', ONE, 400, "0x80044330", "The value of 'revenue' on record of type 'account' is outside the valid range.", DV_FAIL_ROW, "range", "revenue"},
	{'I', ONE, 400, "0x80050222", "too many", DV_FAIL_ROW, "choice", ""},
	{'I', ONE, 400, "0x80040239", "Date is less than", DV_FAIL_ROW, "date", ""},
	{'I', ONE, 400, "0x80040203", "Date is less than the minimum value supported by CrmDateTime.", DV_FAIL_ROW, "date", ""},
	{'U', ONE, 400, "0x80048408", "6 is not a valid status code for state code", DV_FAIL_ROW, "state", ""},
	{'U', ONE, 400, "0x80040203", "6 is not a valid status code for state code TaskState.Open", DV_FAIL_ROW, "state", ""},
	{'U', ONE, 400, "0x8004f856", "transition", DV_FAIL_ROW, "state", ""},
	{'U', ONE, 400, "0x8004F854", "transition", DV_FAIL_ROW, "state", ""},
	{'U', ONE, 400, "0x8004F855", "transition", DV_FAIL_ROW, "state", ""},
	{'U', ONE, 400, "0x8004F857", "transition", DV_FAIL_ROW, "state", ""},
	{'U', ONE, 400, "0x8004F858", "transition", DV_FAIL_ROW, "state", ""},
	{'I', ONE, 400, "0x8004432F", "whole number", DV_FAIL_ROW, "range", ""},
	{'I', ONE, 400, "0x80040265", "plug-in says no", DV_FAIL_ROW, "plugin", ""},
	{'I', ONE, 400, "0x80048550", "pre-commit", DV_FAIL_ROW, "plugin", ""},
	{'I', ONE, 400, "0x80044a02", "Attachment file size is too big.", DV_FAIL_ROW, "length", ""},
	{'I', ONE, 400, "0x80040203", "Invalid argument", DV_FAIL_ROW, "other", ""},
	{'I', MANY, 400, "0x8004ffff", "unknown code", DV_FAIL_ROW, "other", ""},
	/* size and time */
	{'I', MANY, 413, "", "", DV_SHRINK, "length", ""},
	{'I', MANY, 400, "0x80040216", "Message size exceeded when sending context to Sandbox", DV_SHRINK, "length", ""},
	{'I', MANY, 414, "", "", DV_SHRINK, "length", ""},
	/* nobody knows */
	{'I', MANY, 502, "", "Bad Gateway", DV_SETTLE, "unavailable", ""},
	{'I', MANY, 503, "", "", DV_SETTLE, "unavailable", ""},
	{'I', MANY, 503, "0x80041234", "unavailable", DV_SETTLE, "unavailable", ""},
	{'U', ONE, 504, "", "", DV_SETTLE, "unavailable", ""},
	{'D', ONE, 408, "", "", DV_SETTLE, "unavailable", ""},
	{'I', MANY, 500, "", "<html>", DV_SETTLE, "unavailable", ""},
	{'I', MANY, 524, "", "", DV_SETTLE, "unavailable", ""},
	/* Dataverse's own failures */
	{'I', MANY, 500, "0x80040216", "An unexpected error occurred.", DV_RETRY, "other", ""},
	{'I', MANY, 400, "0x80040216", "An unexpected error occurred.", DV_RETRY, "other", ""},
	{'I', MANY, 500, "0x80041234", "something", DV_RETRY, "other", ""},
	{'I', ONE, 501, "0x80041234", "not implemented", DV_FAIL_ROW, "other", ""},
	{'I', MANY, 425, "", "too early", DV_RETRY, "unavailable", ""},
	{'I', MANY, 404, "", "No HTTP resource was found that matches CreateMultiple", DV_FAIL_ROW, "mapping", ""},
	{'I', MANY, 404, "0x8006088a", "Resource not found for the segment 'Microsoft.Dynamics.CRM.UpdateMultiple'.", DV_FAIL_ROW, "mapping", ""},
	{'I', ONE, 400, "", "Invalid property 'Name' was found", DV_FAIL_ROW, "mapping", "Name"},
	/* never a success */
	{'I', MANY, 200, "", "", DV_SETTLE, "unavailable", ""},
	{'U', MANY, 204, "", "", DV_SETTLE, "unavailable", ""},
	{'I', MANY, 302, "", "", DV_SETTLE, "unavailable", ""},
	{'I', MANY, 0, "", "", DV_SETTLE, "unavailable", ""},
	{'I', MANY, 999, "0x80040265", "", DV_SETTLE, "unavailable", ""},
	{'I', MANY, -1, "0x80040265", "", DV_SETTLE, "unavailable", ""},
	{'D', ONE, 200, "0x80040217", "", DV_SETTLE, "unavailable", ""}
};

static void
test_table(void)
{
	size_t		i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		const Case *c = &cases[i];
		DvVerdict	v;

		memset(&v, 0xAA, sizeof(v));
		v.http_status = c->status;
		v.retry_after_ms = -1;
		snprintf(v.code, sizeof(v.code), "%s", c->code);
		snprintf(v.message, sizeof(v.message), "%s", c->message);
		dv_verdict_classify(&v, c->op, c->single);
		if (!ok(v.kind == c->kind && strcmp(v.error_class, c->error_class) == 0 && strcmp(v.column, c->column) == 0,
				"%c %s %d %s %.40s: %s %s %s", c->op, c->single ? "one" : "many", c->status, c->code, c->message,
				dv_verdict_name(c->kind), c->error_class, c->column))
			printf("#  got: %s %s %s\n", dv_verdict_name(v.kind), v.error_class, v.column);
	}
}

/* How often several rows go again together before they go singly. */
static const struct
{
	int			status;
	const char *code;
	const char *message;
	int			tries;
}			tries[] = {
	{500, "0x80044150", "Sql Number: 1205", 8},
	{500, "0x80044150", "Sql Number: 3732", 3},
	{500, "0x80044150", "Sql Number: 2812", 3},
	{500, "0x80044150", "Sql Number: 2766", 3},
	{500, "0x80044150", "Sql Number: 99999", 2},
	{500, "0x80040255", "", 3},
	{500, "0x80041234", "", 3},
	{400, "0x80040216", "An unexpected error occurred.", 1},
	{425, "", "", 8},
	{429, "", "", 0},
	{400, "0x80044331", "", 0},
	{0, "", "", 0}
};

static void
test_tries(void)
{
	size_t		i;

	for (i = 0; i < sizeof(tries) / sizeof(tries[0]); i++)
	{
		DvVerdict	v;

		memset(&v, 0xAA, sizeof(v));
		v.http_status = tries[i].status;
		snprintf(v.code, sizeof(v.code), "%s", tries[i].code);
		snprintf(v.message, sizeof(v.message), "%s", tries[i].message);
		dv_verdict_classify(&v, 'I', false);
		is_number(v.tries, tries[i].tries, tries[i].code);
	}
}

static long
retry_after(const char *text, long long now)
{
	size_t		len = strlen(text);
	char	   *in = exact_copy(text, len);
	long		ms = dv_verdict_retry_after(in, len, now);

	free(in);
	return ms;
}

static int
window(const char *text)
{
	size_t		len = strlen(text);
	char	   *in = exact_copy(text, len);
	int			seconds = dv_verdict_window(in, len);

	free(in);
	return seconds;
}

static void
test_window(void)
{
	is_number(window("Number of requests exceeded the limit of 6000 over time window of 300 seconds."), 300, "the window of an answer 429");
	is_number(window("Combined execution time of incoming requests exceeded limit of 1,200,000 milliseconds over time window of 30 seconds. Decrease"), 30, "and another");
	is_number(window("Number of concurrent requests exceeded the limit of 52."), 0, "none");
	is_number(window("over time window of "), 0, "cut off");
	is_number(window("over time window of 30"), 30, "cut off behind the number");
	is_number(window("over time window of 99999999999999999999 seconds"), 0, "not longer than a day");
}

static void
test_retry_after(void)
{
	/* Sun, 06 Nov 1994 08:49:37 GMT, as RFC 9110 writes it */
	const long long then = 784111777;

	is_number(retry_after("30", 0), 30000, "seconds");
	is_number(retry_after(" 7 ", 0), 7000, "white space around them");
	is_number(retry_after("0", 0), 0, "none");
	is_number(retry_after("99999999999999999999999999", 0), 86400000, "a day at most");
	is_number(retry_after("", 0), -1, "nothing");
	is_number(retry_after("-5", 0), -1, "negative");
	is_number(retry_after("5s", 0), -1, "with a unit");
	is_number(retry_after("1.5", 0), 2000, "with a fraction");
	is_number(retry_after("0.001", 0), 1000, "of a second");
	is_number(retry_after("86400.5", 0), 86400000, "a day at most, with a fraction");
	is_number(retry_after("1.", 0), -1, "a point alone");
	is_number(retry_after(".5", 0), -1, "a fraction of nothing");
	is_number(retry_after("1.5.5", 0), -1, "two of them");
	is_number(retry_after("soon", 0), -1, "a word");
	is_number(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", then - 90), 90000, "a date");
	is_number(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", then + 5), 0, "a date that has passed");
	is_number(retry_after("Sunday, 06-Nov-94 08:49:37 GMT", then - 90), 90000, "the notation of RFC 850");
	is_number(retry_after("Sun Nov  6 08:49:37 1994", then - 90), 90000, "the notation of asctime");
	is_number(retry_after("Thu, 29 Feb 2024 00:00:00 GMT", 1709164800LL - 1), 1000, "a leap day");
	is_number(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 0), 86400000, "far ahead: a day at most");
	is_number(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", -9223372036854775807LL - 1), 86400000, "a clock gone mad");
	is_number(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 9223372036854775807LL), 0, "the other way");
	is_number(retry_after("Sun, 36 Nov 1994 08:49:37 GMT", 0), -1, "no such day");
	is_number(retry_after("Sun, 06 Nix 1994 08:49:37 GMT", 0), -1, "no such month");
	is_number(retry_after("Sun, 06 Nov 1994", 0), -1, "without a time");
}

int
main(void)
{
	test_table();
	test_tries();
	test_retry_after();
	test_window();
	return done_testing();
}

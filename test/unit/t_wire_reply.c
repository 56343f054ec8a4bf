/*
 * t_wire_reply.c - what bulk replies, $batch replies and read-backs mean
 */
#include "tap.h"
#include "wire.h"

#define A "11111111-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
#define B "22222222-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
#define C "33333333-cccc-4ccc-8ccc-cccccccccccc"
#define BIND "\"parentaccountid@odata.bind\":\"accounts(" C ")\""
#define MAX_ROWS 4

static DvWireRow rows[MAX_ROWS];
static const DvWireRow *list[MAX_ROWS];
static DvVerdict verdicts[MAX_ROWS];
static char ids_out[MAX_ROWS][37];

static void
set_row(int i, char op, const char *id, const char *content)
{
	memset(&rows[i], 0, sizeof(DvWireRow));
	rows[i].op = op;
	snprintf(rows[i].id, sizeof(rows[i].id), "%s", id);
	rows[i].content = content;
	rows[i].content_len = strlen(content);
	list[i] = &rows[i];
}

/* Rows A, B, C of one operation. */
static void
set_rows(char op)
{
	set_row(0, op, A, "\"x\":1");
	set_row(1, op, B, "\"x\":1");
	set_row(2, op, C, "\"x\":1");
}

/* Letters of the verdicts' kinds: D done, S settle, E exists, W wait, R retry, K shrink, P park, G gone, F row, X run. */
static const char *
letters(int n)
{
	static char out[MAX_ROWS + 1];
	int			i;

	for (i = 0; i < n; i++)
		out[i] = "DSEWRKGFX"[verdicts[i].kind];
	out[n] = '\0';
	return out;
}

static const char *
judge(bool batch, int status, const char *type, const char *body, int n)
{
	size_t		len = strlen(body);
	char	   *in = exact_copy(body, len);
	DvWireReply reply = {.status = status,.content_type = type,.request_id = "outer",.retry_after_ms = 9000,.body = in,.len = len};

	memset(verdicts, 0xAA, sizeof(verdicts));
	memset(ids_out, 0xAA, sizeof(ids_out));
	if (batch)
		dv_wire_batch_reply(&reply, list, n, verdicts, ids_out);
	else
		dv_wire_bulk_reply(&reply, list, n, verdicts, ids_out);
	free(in);
	return letters(n);
}

#define JSON "application/json; odata.metadata=minimal"
#define bulk(status, body, n) judge(false, status, JSON, body, n)

static void
test_bulk(void)
{
	set_rows('I');
	is_text(bulk(200, "{\"@odata.context\":\"c\",\"Ids\":[\"" A "\",\"" B "\"]}", 2), "DD", "our ids in our order");
	ok(ids_out[0][0] == '\0' && strcmp(verdicts[0].request_id, "outer") == 0 && verdicts[0].error_class[0] == '\0', "nothing more to say");
	is_text(bulk(201, "{\"Ids\":[\"{" A "}\",\"22222222-BBBB-4BBB-8BBB-BBBBBBBBBBBB\"]}", 2), "DD", "201, braces, upper case");
	is_text(bulk(200, "{\"Ids\":[\"" B "\",\"" A "\"]}", 2), "SS", "another order");
	is_text(bulk(200, "{\"Ids\":[\"" A "\",\"" C "\"]}", 2), "SS", "another id");
	is_text(bulk(200, "{\"Ids\":[\"" A "\"]}", 2), "SS", "too few");
	is_text(bulk(200, "", 2), "SS", "nothing");
	is_text(bulk(200, "{}", 2), "SS", "an empty object");
	is_text(bulk(200, "<html>login</html>", 2), "SS", "a page");
	is_text(bulk(204, "", 2), "SS", "204 is no success of CreateMultiple");
	is_text(bulk(202, "{\"Ids\":[\"" A "\",\"" B "\"]}", 2), "SS", "202 neither");
	is_text(bulk(302, "", 2), "SS", "a redirection");
	is_text(bulk(200, "{\"error\":{\"code\":\"0x80040265\",\"message\":\"m\"}}", 2), "SS", "200 around an error");
	rows[0].id[0] = rows[1].id[0] = '\0';
	is_text(bulk(200, "{\"Ids\":[\"" A "\",\"" B "\"]}", 2), "DD", "ids made by Dataverse");
	ok(strcmp(ids_out[0], A) == 0 && strcmp(ids_out[1], B) == 0, "are handed over");
	is_text(bulk(200, "{\"Ids\":[\"" A "\",\"" A "\"]}", 2), "SS", "twice the same is impossible");
	ok(ids_out[0][0] == '\0' && ids_out[1][0] == '\0', "and not handed over");

	set_rows('U');
	is_text(bulk(204, "", 2), "DD", "204 is the success of UpdateMultiple");
	is_text(bulk(204, "{}", 2), "SS", "but not with a body");
	is_text(bulk(200, "{\"Ids\":[\"" A "\",\"" B "\"]}", 2), "SS", "200 is not");
	is_text(bulk(200, "", 2), "SS", "nor without body");
}

static void
test_bulk_errors(void)
{
	set_rows('I');
	is_text(bulk(412, "{\"error\":{\"code\":\"0x80040237\",\"message\":\"Cannot insert duplicate key.\"}}", 3), "EEE", "a duplicate");
	is_text(bulk(400, "{\"error\":{\"code\":\"0x80044331\",\"message\":\"too long\"}}", 3), "FFF", "one of them is bad");
	is_text(bulk(500, "{\"error\":{\"code\":\"0x80044150\",\"message\":\"Sql Number: 1205\"}}", 3), "RRR", "a deadlock");
	is_text(bulk(500, "{\"error\":{\"code\":\"0x80044151\",\"message\":\"Sql Number: -2\"}}", 3), "KKK", "an SQL time-out");
	is_text(bulk(413, "", 3), "KKK", "too large");
	is_text(bulk(429, "{\"error\":{\"code\":\"0x80072322\",\"message\":\"m\"}}", 3), "WWW", "throttled");
	ok(verdicts[2].retry_after_ms == 9000, "with Retry-After");
	is_text(bulk(401, "", 3), "XXX", "no token is good enough");
	is_text(bulk(403, "{\"error\":{\"code\":\"0x80072560\",\"message\":\"m\"}}", 3), "XXX", "no application user");
	is_text(bulk(500, "oops", 3), "SSS", "500 that is not Dataverse's");
	is_text(bulk(502, "{\"Message\":\"bad gateway\"}", 3), "SSS", "502");
	is_text(verdicts[1].message, "bad gateway", "in the gateway's words");
	is_text(judge(false, 503, "text/html", "<html><Title> Service\nunavailable </title>", 3), "SSS", "503 as a page");
	ok(strstr(verdicts[0].message, "(text/html): Service\nunavailable") != NULL, "with its title");
	is_text(judge(false, 504, NULL, "", 3), "SSS", "504 without anything");
	ok(verdicts[0].message[0] != '\0', "still has a message");
	is_text(judge(false, 403, "text/plain", "request blocked: policy 7", 1), "F", "a firewall");
	ok(strstr(verdicts[0].message, "policy 7") != NULL, "is quoted");

	set_rows('U');
	is_text(bulk(404, "{\"error\":{\"code\":\"0x80040217\",\"message\":\"Account With Ids = " A " Do Not Exist\"}}", 2), "FF", "one of several is gone");
	is_text(bulk(404, "{\"error\":{\"code\":\"0x80040217\",\"message\":\"Account With Ids = " A " Do Not Exist\"}}", 1), "G", "the only one is gone");
	is_text(bulk(404, "{\"error\":{\"code\":\"0x80040217\",\"message\":\"Account With Ids = " B " Do Not Exist\"}}", 1), "F", "what it points at is missing");
	is_text(verdicts[0].error_class, "lookup", "and the class says so");
}

#define MULTI "multipart/mixed; boundary=r"
#define MIME "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
#define PART(text) "--r\r\n" MIME text "\r\n"
#define OK_PART(id) PART("HTTP/1.1 204 No Content\r\nOData-Version: 4.0\r\nOData-EntityId: https://h/accounts(" id ")\r\n\r\n")
#define BARE_PART PART("HTTP/1.1 204 No Content\r\nOData-Version: 4.0\r\n\r\n")
#define ERROR_PART(status, code, text) PART("HTTP/1.1 " status "\r\nREQ_ID: inner\r\nContent-Type: application/json\r\n\r\n" \
	"{\"error\":{\"code\":\"" code "\",\"message\":\"" text "\"}}")
#define END "--r--\r\n"
#define batch(status, body, n) judge(true, status, MULTI, body, n)

static void
test_batch(void)
{
	set_rows('I');
	is_text(batch(200, OK_PART(A) ERROR_PART("400 Bad Request", "0x80044331", "too long") OK_PART(C) END, 3), "DFD", "one bad row");
	ok(strcmp(verdicts[1].request_id, "inner") == 0 && strcmp(verdicts[0].request_id, "outer") == 0 && verdicts[1].http_status == 400,
	   "with the request id and status of its part");
	is_text(judge(true, 200, "multipart/mixed; boundary=\"r\"", BARE_PART OK_PART(B) END, 2), "DD", "a quoted boundary; no id named");
	is_text(batch(200, OK_PART(B) OK_PART(A) END, 2), "SS", "ids that are not ours");
	is_text(batch(200, PART("HTTP/1.1 204 No Content\r\nLocation: https://h/accounts(name='x')\r\n\r\n") OK_PART(B) END, 2), "DD", "a key form");
	is_text(batch(200, PART("HTTP/1.1 204 No Content\r\nLocation: h/a(" A ")\r\nOData-EntityId: h/a(" B ")\r\n\r\n") END, 1), "S", "two ids");
	is_text(batch(200, PART("HTTP/1.1 204 No Content\r\nLocation: h/a(" B ")\r\nOData-EntityId: h/a(" A ")\r\n\r\n") END, 1), "S", "also if the last is ours");
	is_text(batch(200, PART("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{}") BARE_PART END, 2), "SD", "200 is no success");
	is_text(batch(200, PART("HTTP/1.1 201 Created\r\nLocation: h/a(" A ")\r\n\r\n{}") PART("HTTP/1.1 201 Created\r\n\r\n{}") END, 2), "DS",
			"201 is one if it names the record");
	is_text(batch(200, PART("HTTP/1.1 204 No Content\r\n\r\nleft over") END, 1), "S", "204 with a body");
	is_text(batch(200, PART("HTTP/1.1 302 Found\r\nLocation: h/a(" A ")\r\n\r\n") END, 1), "S", "a redirection");
	is_text(batch(200, PART("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\n\r\n") BARE_PART END, 2), "WD", "a throttled part");
	ok(verdicts[0].retry_after_ms == 3000 && verdicts[1].retry_after_ms == -1, "has its own Retry-After");
	is_text(batch(200, PART("HTTP/1.1 500 Internal Server Error\r\n\r\n") PART("HTTP/1.1 503 x\r\n\r\n") END, 2), "SS", "errors without object");
	is_text(batch(200, ERROR_PART("500 x", "0x80044150", "Sql Number: 1205") BARE_PART END, 2), "RD", "a deadlock in a part");
	is_text(batch(200, ERROR_PART("401 Unauthorized", "0x8005F101", "expired") BARE_PART END, 2), "RD", "a token that expired on the way");
	is_text(batch(200, ERROR_PART("412 x", "0x80040237", "duplicate") ERROR_PART("404 x", "0x80040217", "account With Id = " C " Does Not Exist") END, 2),
			"EF", "a duplicate and a missing lookup");
	is_text(batch(200, "--r\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n" MIME "HTTP/1.1 204 No Content\r\n\r\n\r\n--c--\r\n" BARE_PART END, 2),
			"SD", "a change set nobody sent");
}

static void
test_batch_cut(void)
{
	set_rows('I');
	is_text(batch(200, OK_PART(A) OK_PART(B) "--r\r\n" MIME "HTTP/1.1 204 No Content\r\n\r\n", 3), "DDS", "cut: what has a delimiter behind counts");
	is_text(batch(200, OK_PART(A) OK_PART(B) "--r", 3), "DSS", "half a delimiter is none");
	is_text(batch(200, OK_PART(A) OK_PART(B) END, 3), "DDS", "too few parts: what proves itself counts");
	is_text(batch(200, OK_PART(A) BARE_PART END, 3), "DSS", "but nothing else");
	is_text(batch(200, ERROR_PART("400 x", "0x80040265", "m") OK_PART(B) END, 3), "SSS", "and nothing by its place");
	is_text(batch(200, BARE_PART BARE_PART BARE_PART END, 2), "SS", "too many parts");
	is_text(batch(400, ERROR_PART("400 x", "0x80040265", "m") END, 3), "SSS", "stopped at an operation nobody knows");
	is_text(batch(400, OK_PART(A) ERROR_PART("400 x", "0x80040265", "m") END, 3), "DSS", "stopped behind a proven one");
	is_text(batch(500, ERROR_PART("500 x", "0x80044150", "Sql Number: 1205") END, 1), "R", "the failing status outside");
	is_text(batch(400, ERROR_PART("400 x", "0x80040265", "m") BARE_PART END, 2), "FD", "all parts under a failing status");
	is_text(batch(200, "", 2), "SS", "nothing");
	is_text(batch(200, END, 2), "SS", "no part");
	is_text(judge(true, 200, JSON, "{}", 2), "SS", "no multipart");
	is_text(judge(true, 200, "multipart/mixed", OK_PART(A) END, 1), "S", "no boundary");
	is_text(judge(true, 200, NULL, OK_PART(A) END, 1), "S", "no content type");
}

#define ERROR_JSON(code) "{\"error\":{\"code\":\"" code "\",\"message\":\"m\"}}"

static void
test_batch_whole(void)
{
	set_rows('I');
	is_text(judge(true, 429, JSON, ERROR_JSON("0x80072322"), 3), "WWW", "throttled as a whole");
	ok(verdicts[0].retry_after_ms == 9000, "with the Retry-After of the whole");
	is_text(judge(true, 400, JSON, ERROR_JSON("0x80048d19"), 3), "KKK", "refused as a whole: fewer at a time");
	is_text(judge(true, 400, JSON, ERROR_JSON("0x80048d19"), 1), "F", "and alone it is the row's");
	is_text(judge(true, 413, "text/html", "", 3), "KKK", "too large");
	is_text(judge(true, 401, "text/html", "", 3), "XXX", "no token is good enough");
	is_text(judge(true, 502, "text/html", "<html>", 3), "SSS", "a gateway");
	set_rows('D');
	is_text(judge(true, 404, JSON, ERROR_JSON("0x80040217"), 1), "F", "a whole 404 deletes nothing");
	is_text(judge(true, 404, "text/html", "", 3), "KKK", "nor does a page");
}

static void
test_missing(void)
{
#define MISSING(id) ERROR_PART("404 Not Found", "0x80040217", "account With Id = " id " Does Not Exist")
	set_row(0, 'U', A, "\"x\":1," BIND);
	is_text(batch(200, MISSING("11111111-AAAA-4AAA-8AAA-AAAAAAAAAAAA") END, 1), "G", "update: the record itself");
	is_text(batch(200, MISSING(C) END, 1), "F", "update: its lookup");
	is_text(verdicts[0].error_class, "lookup", "of class lookup");
	is_text(batch(200, ERROR_PART("404 x", "0x80040217", "not found") END, 1), "F", "update with lookups: nobody is named");
	set_row(0, 'U', A, "\"x\":1");
	is_text(batch(200, ERROR_PART("404 x", "0x80040217", "not found") END, 1), "G", "update without lookups: nobody is named");
	set_row(0, 'D', A, "");
	is_text(batch(200, MISSING(A) END, 1), "D", "delete: gone is done");
	is_text(batch(200, MISSING(C) END, 1), "F", "delete: something else is missing");
	is_text(batch(200, PART("HTTP/1.1 404 Not Found\r\n\r\n") END, 1), "S", "delete: 404 that says nothing");
	is_text(batch(200, BARE_PART END, 1), "D", "delete: 204");
	is_text(batch(200, ERROR_PART("405 x", "0x80048105", "CannotDeleteDueToAssociation") END, 1), "F", "delete: still referenced");
	set_row(0, 'I', "", "\"x\":1");
	rows[0].key = "code%20eq%20%27A%27";
	is_text(batch(200, OK_PART(B) END, 1), "D", "a create whose id Dataverse makes");
	is_text(ids_out[0], B, "gives the id");
	is_text(batch(200, PART("HTTP/1.1 204 No Content\r\nOData-EntityId: h/a(code='A')\r\n\r\n") END, 1), "D", "an answer that names the key");
	is_text(ids_out[0], "", "gives none");
}

static DvWireFound found[MAX_ROWS];

static DvVerdictKind
find(int status, const char *body)
{
	size_t		len = strlen(body);
	char	   *in = exact_copy(body, len);
	DvWireReply reply = {.status = status,.content_type = JSON,.retry_after_ms = 4000,.body = in,.len = len};
	DvVerdictKind kind;

	memset(found, 0xAA, sizeof(found));
	kind = dv_wire_find_reply(&reply, list, 2, found, verdicts);
	free(in);
	return kind;
}

static void
test_find(void)
{
	set_rows('I');
	ok(find(200, "{\"value\":[{\"accountid\":\"{22222222-BBBB-4bbb-8bbb-bbbbbbbbbbbb}\",\"modifiedon\":\"2026-01-01T00:00:00Z\","
			"\"_modifiedby_value\":\"" C "\"}]}") == DV_DONE && !found[0].found && found[1].found &&
	   strcmp(found[1].modified_by, C) == 0 && strcmp(found[1].id, B) == 0, "one of two is there");
	ok(find(200, "{\"value\":[]}") == DV_DONE && !found[0].found && !found[1].found, "none is there");
	ok(find(200, "{\"value\":[{\"accountid\":\"" C "\"}]}") == DV_RETRY && !found[0].found, "an answer to another question");
	ok(find(200, "{\"value\":[{\"accountid\":\"" A "\"},{\"accountid\":\"" A "\"}]}") == DV_RETRY && !found[0].found, "one twice");
	ok(find(200, "{\"value\":[{\"accountid\":\"" A "\"}],\"@odata.nextLink\":\"n\"}") == DV_SHRINK && !found[0].found, "a page of more");
	ok(find(200, "{\"value\":[{\"accountid\":\"not\"}],\"@odata.nextLink\":\"n\"}") == DV_RETRY, "one that is not understood");
	ok(find(200, "") == DV_RETRY && find(200, "{}") == DV_RETRY && find(204, "") == DV_RETRY && find(206, "{\"value\":[]}") == DV_RETRY &&
	   find(304, "") == DV_RETRY, "nothing, or not all");
	ok(find(429, ERROR_JSON("0x80072322")) == DV_WAIT && verdicts[0].retry_after_ms == 4000, "throttled");
	ok(find(503, "") == DV_RETRY && find(500, ERROR_JSON("0x80040216")) == DV_RETRY && find(404, "<html>") == DV_RETRY, "an outage");
	ok(find(401, "") == DV_FAIL_RUN && find(403, ERROR_JSON("0x80040220")) == DV_FAIL_RUN &&
	   find(400, ERROR_JSON("0x0")) == DV_FAIL_RUN && find(404, ERROR_JSON("0x8006088a")) == DV_FAIL_RUN, "refused for good");
	ok(find(414, "") == DV_SHRINK, "too long");
}

int
main(void)
{
	test_bulk();
	test_bulk_errors();
	test_batch();
	test_batch_cut();
	test_batch_whole();
	test_missing();
	test_find();
	return done_testing();
}

/*
 * t_multipart.c - framing: boundaries, delimiters, HTTP messages in parts
 */
#include "multipart.h"
#include "tap.h"

static void
boundary_is(const char *content_type, const char *want)
{
	char		got[DV_BOUNDARY_LEN];
	bool		good = dv_multipart_boundary(content_type, got);

	ok(good == (want != NULL) && (want == NULL || strcmp(got, want) == 0), "boundary of %s", content_type);
}

static void
test_boundary(void)
{
	char		long_type[400];
	char		got[DV_BOUNDARY_LEN];

	boundary_is("multipart/mixed; boundary=batchresponse_1", "batchresponse_1");
	boundary_is("multipart/mixed; boundary=\"batch response\"", "batch response");
	boundary_is("Multipart/Mixed;BOUNDARY=x", "x");
	boundary_is("multipart/mixed ; charset=utf-8 ; boundary=x; y=z", "x");
	boundary_is("multipart/mixed; a=\"; boundary=no\"; boundary=yes", "yes");
	boundary_is("multipart/mixed; boundary=\"a\\\"b\"", "a\"b");
	boundary_is("multipart/mixed; boundary=\"open", NULL);
	boundary_is("multipart/mixed; boundary=\"\"", NULL);
	boundary_is("multipart/mixed; boundary=\"a \"", NULL);
	boundary_is("multipart/mixed; boundary=", NULL);
	boundary_is("multipart/mixed; boundary=\"a\tb\"", NULL);
	boundary_is("multipart/mixed", NULL);
	boundary_is("multipart/mixedness; boundary=x", NULL);
	boundary_is("application/json; boundary=x", NULL);
	boundary_is("", NULL);
	ok(!dv_multipart_boundary(NULL, got), "no content type");
	memset(long_type, 'b', sizeof(long_type));
	memcpy(long_type, "multipart/mixed; boundary=", 26);
	long_type[sizeof(long_type) - 1] = '\0';
	ok(!dv_multipart_boundary(long_type, got), "a boundary that is too long is refused, not cut");
}

/* Parts of a body with boundary b, joined by '|', and '.' where it is closed. */
static const char *
parts_of(const char *body)
{
	static char out[400];
	DvMultipart reader;
	size_t		len = strlen(body);
	char	   *in = exact_copy(body, len);
	const char *part;
	size_t		part_len;
	size_t		n = 0;

	dv_multipart_open(&reader, in, len, "b");
	while (dv_multipart_next(&reader, &part, &part_len))
		n += (size_t) snprintf(out + n, sizeof(out) - n, "%.*s|", (int) part_len, part);
	snprintf(out + n, sizeof(out) - n, "%s", reader.closed ? "." : "");
	free(in);
	return out;
}

static void
test_parts(void)
{
	is_text(parts_of("--b\r\none\r\n--b\r\ntwo\r\n--b--\r\n"), "one|two|.", "two parts");
	is_text(parts_of("--b\r\none\r\n--b--"), "one|.", "closed without a line end");
	is_text(parts_of("preamble\r\n--b\r\none\r\n--b--\r\nepilogue\r\n--b\r\nx\r\n--b--"), "one|.", "preamble and epilogue");
	is_text(parts_of("--b \t\r\none\r\n--b--  \r\n"), "one|.", "white space behind delimiters");
	is_text(parts_of("--b\none\n--b--\n"), "one|.", "bare line feeds");
	is_text(parts_of("--b\r\n\r\n--b--"), "|.", "an empty part");
	is_text(parts_of("--b\r\n--b--"), "|.", "a part without even a line");
	is_text(parts_of("--b--"), ".", "no part");
	is_text(parts_of("--b\r\none\r\n--b2\r\ntwo\r\n--b--"), "one\r\n--b2\r\ntwo|.", "a longer boundary is content");
	is_text(parts_of("--b\r\none --b\r\n--b--"), "one --b|.", "a delimiter stands at the start of a line");
	is_text(parts_of("--b\r\none\r\n--b\r\ntw"), "one|", "what is cut is not handed out");
	is_text(parts_of("--b\r\none\r\n--b"), "", "nor what a cut delimiter follows");
	is_text(parts_of("--b\r\none\r\n--b\r"), "", "nor one without its line feed");
	is_text(parts_of("--b\r\none\r\n--b-"), "", "nor half of the closing one");
	is_text(parts_of("--b\r\none\r\n--b--x\r\n"), "", "nor a closing one with more behind");
	is_text(parts_of(""), "", "nothing");
}

#define MIME "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
#define GUID "7eb682f1-ca75-e511-80d4-00155d2a68d1"

static bool
reads(const char *text, DvHttpPart *part)
{
	static char *in;
	size_t		len = strlen(text);

	free(in);
	in = exact_copy(text, len);
	return dv_multipart_http(in, len, 0, part);
}

static void
test_http(void)
{
	DvHttpPart	p;

	ok(reads(MIME "HTTP/1.1 204 No Content\r\nOData-EntityId: https://h/api/accounts(" GUID ")\r\nREQ_ID: r-1\r\n\r\n", &p) &&
	   p.status == 204 && p.len == 0 && strcmp(p.id, GUID) == 0 && strcmp(p.request_id, "r-1") == 0, "204 with an id");
	ok(reads(MIME "HTTP/1.1 204 No Content\r\nOData-Version: 4.0\r\n", &p) && p.status == 204 && p.id[0] == '\0',
	   "without the empty line");
	ok(reads(MIME "HTTP/1.1 204\r\nLocation:https://h/a(" GUID ")", &p) && strcmp(p.id, GUID) == 0,
	   "Location without blank or line end, no reason phrase");
	ok(reads(MIME "HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\n\r\n{\"a\":1}\r\n", &p) && p.retry_after_ms == 7000 &&
	   p.len == 7 && memcmp(p.body, "{\"a\":1}", 7) == 0, "429 with body and Retry-After");
	ok(reads("content-type:application/http;msgtype=response\r\n\r\nHTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{}", &p) &&
	   p.status == 200 && strcmp(p.content_type, "application/json") == 0, "header names in any case");
	ok(reads(MIME "HTTP/1.1 204 No Content\r\nx-ms-service-request-id: a\r\nREQ_ID: b\r\n\r\n", &p) &&
	   strcmp(p.request_id, "b") == 0, "REQ_ID goes first");
	ok(reads(MIME "HTTP/1.1 204 No\r\nLocation: h/a(" GUID ")\r\nOData-EntityId: h/a(00000000-ca75-e511-80d4-00155d2a68d1)\r\n\r\n", &p) &&
	   p.id_conflict, "two ids are a conflict");
	ok(!reads("Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n--c--", &p) && p.nested, "a change set");
	ok(!reads("Content-Type: text/html\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", &p) && p.status == 0, "another type");
	ok(!reads("\r\nHTTP/1.1 204 No Content\r\n\r\n", &p), "no type");
	ok(!reads("Content-Type: application/http\r\nContent-Transfer-Encoding: base64\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", &p),
	   "an encoding that was not undone");
	ok(!reads(MIME, &p) && !reads("", &p) && !reads(MIME "HTTP/1.1 2", &p) && !reads(MIME "HTTP/1.1 20x OK\r\n\r\n", &p) &&
	   !reads(MIME "HTTP/1.1 2044 OK\r\n\r\n", &p) && !reads(MIME "HTTP/1.1 099 OK\r\n\r\n", &p), "no status line");
	ok(!reads(MIME "HTTP/1.1 204 No Content\r\ngarbage\r\n\r\n", &p), "a line that is no header");
	ok(!reads(MIME "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}", &p), "shorter than its Content-Length");
	ok(!reads(MIME "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n{}", &p), "an absurd Content-Length");
	ok(reads(MIME "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}\r\n", &p) && p.len == 2, "as long as its Content-Length");
}

static void
record_id(const char *url, bool want)
{
	char		id[37];
	size_t		len = strlen(url);
	char	   *in = exact_copy(url, len);

	ok(dv_multipart_record_id(in, len, id) == want && (id[0] != '\0') == want, "record id in %s", url);
	free(in);
}

int
main(void)
{
	test_boundary();
	test_parts();
	test_http();
	record_id("https://h/api/data/v9.2/accounts(" GUID ")", true);
	record_id("accounts(" GUID ")", true);
	record_id("(" GUID ")", false);
	record_id("accounts(new_code='A')", false);
	record_id("accounts(new_a=1,new_b=2)", false);
	record_id("accounts(_parentid_value=" GUID ")", false);
	record_id("accounts(new_code='(" GUID ")')", false);
	record_id("accounts(" GUID ")/x", false);
	record_id(GUID ")", false);
	record_id("", false);
	return done_testing();
}

/*
 * t_reply.c - JSON answers: errors, ids, records; bounded and strict
 */
#include "reply.h"
#include "tap.h"

#define A "11111111-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
#define B "22222222-bbbb-4bbb-8bbb-bbbbbbbbbbbb"

static bool
error_is(const char *body, size_t len, const char *code, const char *message)
{
	DvVerdict	v;
	char	   *in = exact_copy(body, len);
	bool		found = dv_reply_error(in, len, &v);

	free(in);
	if (code == NULL)
		return !found && v.code[0] == '\0';
	if (found && strcmp(v.code, code) == 0 && strcmp(v.message, message) == 0)
		return true;
	printf("# got %d, %s, %s\n", found, v.code, v.message);
	return false;
}

#define ERROR_IS(body, code, message) error_is(body, sizeof(body) - 1, code, message)
#define NO_ERROR(body) error_is(body, sizeof(body) - 1, NULL, NULL)

static void
test_error(void)
{
	DvVerdict	v;
	char	   *deep;

	ok(ERROR_IS("{\"error\":{\"code\":\"0x80040217\",\"message\":\"m\"}}", "0x80040217", "m"), "an error object");
	ok(ERROR_IS("\xEF\xBB\xBF {\"error\":{\"message\":\"m\",\"code\":\"\"}}\r\n", "", "m"), "byte order mark, empty code");
	ok(ERROR_IS("{\"error\":{\"code\":\"0x1\",\"message\":{\"lang\":\"en\",\"value\":\"m\"}}}", "0x1", "m"), "message with language");
	ok(ERROR_IS("{\"error\":{\"code\":\"0x1\"}}", "0x1", ""), "code alone");
	ok(ERROR_IS("{\"Message\":\"No route\"}", "", "No route"), "a gateway's Message");
	ok(ERROR_IS("{\"error\":{\"code\":5,\"message\":\"m\"}}", "", "m"), "a code that is no string");
	ok(ERROR_IS("{\"error\":{\"code\":\"0x1\\u0000x\",\"message\":\"a\\u0000b\\ud83d\"}}", "0x1", "a b\xEF\xBF\xBD"), "NUL and half a surrogate pair");
	ok(ERROR_IS("{\"error\":{\"code\":\"0x800402170000000000000000000000\",\"message\":\"m\"}}", "0x800402170000000000000", "m"), "an overlong code is cut");
	ok(NO_ERROR("{\"error\":\"invalid_client\"}"), "an OAuth error is none of these");
	ok(NO_ERROR("{\"error\":{}}") && NO_ERROR("{\"error\":[]}") && NO_ERROR("{}"), "nothing in it");
	ok(NO_ERROR("[]") && NO_ERROR("\"error\"") && NO_ERROR("null") && NO_ERROR(""), "no object");
	ok(NO_ERROR("<html>502</html>"), "a page");
	ok(NO_ERROR("{\"error\":{\"code\":\"0x1\",\"message\":\"m\"}} trailing"), "trailing bytes");
	ok(NO_ERROR("{\"error\":{\"code\":\"0x1\",\"message\":\"m\"}}\0"), "a trailing NUL");
	ok(NO_ERROR("{\"error\":{\"code\":\"0x1\",\"message\":\"m\"}"), "cut");
	ok(NO_ERROR("{'error':{'code':'0x1','message':'m'}}"), "single quotes");
	ok(!dv_reply_error(NULL, 0, &v), "no body");
	deep = malloc(2000000);
	memset(deep, '[', 2000000);
	memcpy(deep, "{\"error\":", 9);
	ok(!dv_reply_error(deep, 500000, &v), "a deep one is refused");
	ok(!dv_reply_error(deep, 2000000, &v), "a huge one is refused");
	free(deep);
}

static bool
ids_are(const char *body, int n)
{
	char		ids[4][37];
	size_t		len = strlen(body);
	char	   *in = exact_copy(body, len);
	bool		good = dv_reply_ids(in, len, n, ids);

	free(in);
	return good && strcmp(ids[0], A) == 0;
}

static void
test_ids(void)
{
	ok(ids_are("{\"@odata.context\":\"x\",\"Ids\":[\"" A "\",\"{22222222-BBBB-4BBB-8BBB-BBBBBBBBBBBB}\"]}", 2), "two ids");
	ok(!ids_are("{\"Ids\":[\"" A "\"]}", 2) && !ids_are("{\"Ids\":[\"" A "\",\"" B "\"]}", 1), "too few, too many");
	ok(!ids_are("{\"Ids\":[\"" A "\",null]}", 2) && !ids_are("{\"Ids\":[\"" A "\",7]}", 2) && !ids_are("{\"Ids\":[\"" A "\",\"x\"]}", 2),
	   "what is no uuid");
	ok(!ids_are("{\"Ids\":{\"0\":\"" A "\"}}", 1) && !ids_are("{\"ids\":[\"" A "\"]}", 1) && !ids_are("{}", 1), "another shape");
	ok(!ids_are("{\"Ids\":[\"" A "\"],\"error\":{\"code\":\"0x1\",\"message\":\"m\"}}", 1), "ids beside an error");
	ok(!ids_are("{\"Ids\":[\"" A "\"]", 1) && !ids_are("{\"Ids\":[\"" A "\"]}}", 1), "cut, or more behind");
}

static int
records(const char *body, DvWireFound *out)
{
	size_t		len = strlen(body);
	char	   *in = exact_copy(body, len);
	int			n = dv_reply_records(in, len, 2, out);

	free(in);
	return n;
}

static void
test_records(void)
{
	DvWireFound r[2];

	is_number(records("{\"@odata.context\":\"x\",\"value\":[]}", r), 0, "none");
	is_number(records("{\"value\":[{\"@odata.etag\":\"W/\\\"1\\\"\",\"accountid\":\"11111111-AAAA-4aaa-8aaa-aaaaaaaaaaaa\","
					  "\"modifiedon\":\"2026-05-04T03:02:01Z\",\"_modifiedby_value\":\"" B "\","
					  "\"createdon\":\"2026-05-03T03:02:01Z\",\"_createdby_value\":\"" A "\"}]}", r), 1, "one");
	ok(strcmp(r[0].id, A) == 0 && strcmp(r[0].modified_by, B) == 0 && strcmp(r[0].modified_on, "2026-05-04T03:02:01Z") == 0 && r[0].found &&
	   strcmp(r[0].created_by, A) == 0 && strcmp(r[0].created_on, "2026-05-03T03:02:01Z") == 0,
	   "with all its members");
	is_number(records("{\"value\":[{\"accountid\":\"" A "\",\"modifiedon\":null,\"_modifiedby_value\":null}]}", r), 1, "nulls");
	ok(r[0].modified_by[0] == '\0' && r[0].modified_on[0] == '\0' && r[0].created_by[0] == '\0' && r[0].created_on[0] == '\0', "leave members empty");
	is_number(records("{\"value\":[{\"accountid\":\"" A "\"}],\"@odata.nextLink\":\"https://h/next\"}", r), DV_MORE_PAGES, "a further page");
	is_number(records("{\"value\":[{\"accountid\":\"" A "\"},{\"accountid\":\"" A "\"},{\"accountid\":\"" A "\"}]}", r), -1, "more than were asked for");
	is_number(records("{\"value\":[{\"name\":\"x\"}]}", r), -1, "a record without id");
	is_number(records("{\"value\":[{\"accountid\":\"" A "\",\"otherid\":\"" B "\"}]}", r), -1, "a record with two");
	is_number(records("{\"value\":[{\"accountid\":\"" A "\",\"_modifiedby_value\":\"me\"}]}", r), -1, "a user that is no uuid");
	is_number(records("{\"value\":[{\"accountid\":\"" A "\",\"_createdby_value\":\"me\"}]}", r), -1, "a creator that is no uuid");
	is_number(records("{\"value\":[7]}", r), -1, "a record that is none");
	is_number(records("{\"value\":{}}", r), -1, "no list");
	is_number(records("{\"value\":[],\"error\":{}}", r), -1, "an error beside");
	is_number(records("{}", r), -1, "nothing");
	is_number(records("", r), -1, "no text");
}

int
main(void)
{
	test_error();
	test_ids();
	test_records();
	return done_testing();
}

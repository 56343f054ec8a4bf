/*
 * t_wire_build.c - the bytes of requests
 */
#include "tap.h"
#include "wire.h"

#define A "11111111-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
#define B "22222222-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
#define MIME "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
#define URL "/api/data/v9.2/accounts"

static const DvWireTable table = {
	.logical_name = "account",.entity_set = "accounts",.primary_id = "accountid",
	.api_path = "/api/data/v9.2",.api_url = "https://h/api/data/v9.2",.part_headers = "X: y\r\n"
};

static DvWireRow
row(char op, const char *id, const char *key, const char *content)
{
	DvWireRow	r = {.op = op,.key = key,.content = content,.content_len = strlen(content)};

	snprintf(r.id, sizeof(r.id), "%s", id);
	return r;
}

static void
test_bulk(void)
{
	DvWireRow	a = row('I', A, NULL, "\"name\":\"A\"");
	DvWireRow	b = row('I', "", NULL, "");
	DvWireRow	u = row('U', B, NULL, "\"name\":null");
	const DvWireRow *creates[] = {&a, &b};
	const DvWireRow *updates[] = {&u};
	DvBuf		path;
	DvBuf		body;

	dv_buf_init(&path, 0);
	dv_buf_init(&body, 0);
	ok(dv_wire_bulk(&path, &body, &table, creates, 2, NULL), "CreateMultiple is built");
	is_text(path.data, "/accounts/Microsoft.Dynamics.CRM.CreateMultiple", "its path");
	is_text(body.data, "{\"Targets\":[{\"@odata.type\":\"Microsoft.Dynamics.CRM.account\",\"accountid\":\"" A "\",\"name\":\"A\"},"
			"{\"@odata.type\":\"Microsoft.Dynamics.CRM.account\"}]}", "its body");
	dv_buf_reset(&path);
	dv_buf_reset(&body);
	ok(dv_wire_bulk(&path, &body, &table, updates, 1, NULL), "UpdateMultiple is built");
	is_text(path.data, "/accounts/Microsoft.Dynamics.CRM.UpdateMultiple", "its path");
	is_text(body.data, "{\"Targets\":[{\"@odata.type\":\"Microsoft.Dynamics.CRM.account\",\"accountid\":\"" B "\",\"name\":null}]}", "its body");
	dv_buf_free(&body);
	dv_buf_init(&body, 20);
	ok(!dv_wire_bulk(&path, &body, &table, updates, 1, NULL), "lost bytes are noticed");
	dv_buf_free(&path);
	dv_buf_free(&body);
}

static void
operation_is(DvWireRow r, const char *want, const char *name)
{
	const DvWireRow *rows[] = {&r};
	char		whole[1000];
	DvBuf		body;

	dv_buf_init(&body, 0);
	dv_wire_batch(&body, &table, "b1", rows, 1);
	snprintf(whole, sizeof(whole), "--b1\r\n" MIME "%s\r\n--b1--\r\n", want);
	is_text(body.data, whole, name);
	dv_buf_free(&body);
}

static void
test_batch(void)
{
	DvWireRow	a = row('I', A, NULL, "\"x\":1");
	DvWireRow	d = row('D', B, NULL, "");
	DvWireRow	versioned = row('D', A, NULL, "");
	const DvWireRow *rows[] = {&a, &d};
	DvBuf		body;

	operation_is(row('I', A, NULL, "\"x\":1"), "POST " URL " HTTP/1.1\r\nContent-Type: application/json\r\nX: y\r\n\r\n"
				 "{\"accountid\":\"" A "\",\"x\":1}", "a create with its id");
	operation_is(row('I', "", "code%20eq%20%27A%27", "\"x\":1"), "POST " URL " HTTP/1.1\r\nContent-Type: application/json\r\n"
				 "X: y\r\n\r\n{\"x\":1}", "a create whose id Dataverse makes");
	operation_is(row('I', "", NULL, ""), "POST " URL " HTTP/1.1\r\nContent-Type: application/json\r\nX: y\r\n\r\n{}", "an empty create");
	operation_is(row('U', A, NULL, "\"x\":1"), "PATCH " URL "(" A ") HTTP/1.1\r\nContent-Type: application/json\r\nIf-Match: *\r\n"
				 "X: y\r\n\r\n{\"x\":1}", "an update by id");
	operation_is(row('U', A, "code%20eq%20%27A%27", "\"x\":1"), "PATCH " URL "(" A ") HTTP/1.1\r\nContent-Type: application/json\r\nIf-Match: *\r\n"
				 "X: y\r\n\r\n{\"x\":1}", "an id goes before a key");
	versioned.etag = "W/\"7\"";
	operation_is(versioned, "DELETE " URL "(" A ") HTTP/1.1\r\nIf-Match: W/\"7\"\r\nX: y\r\n\r\n", "a delete of one version");
	operation_is(row('D', A, NULL, "\"x\":1"), "DELETE " URL "(" A ") HTTP/1.1\r\nX: y\r\n\r\n", "a delete has no body");
	dv_buf_init(&body, 0);
	ok(dv_wire_batch(&body, &table, "b1", rows, 2), "two operations are built");
	ok(strstr(body.data, "{\"accountid\":\"" A "\",\"x\":1}\r\n--b1\r\nContent-Type") != NULL, "with a delimiter between them");
	ok(strstr(body.data, "\r\n\r\n\r\n--b1--\r\n") != NULL, "and two empty lines behind an operation without body");
	dv_buf_free(&body);
}

static void
test_find_each(void)
{
	DvWireRow	keyed = row('I', "", "code%20eq%20%27A%27", "");
	DvWireRow	known = row('I', A, NULL, "");
	DvWireRow	nothing = row('I', "", NULL, "");
	const DvWireRow *rows[] = {&keyed, &known};
	const DvWireRow *none[] = {&nothing};
	DvBuf		body;

	dv_buf_init(&body, 0);
	ok(dv_wire_find_each(&body, &table, "b1", rows, 2), "reads by key are built");
	ok(strstr(body.data, "GET " URL "?$select=accountid,modifiedon,_modifiedby_value&$top=2&$filter=code%20eq%20%27A%27 HTTP/1.1\r\n") != NULL,
	   "with the key as the filter");
	ok(strstr(body.data, "&$filter=accountid%20eq%20" A " HTTP/1.1\r\n") != NULL, "or the id, where it is known");
	dv_buf_reset(&body);
	ok(!dv_wire_find_each(&body, &table, "b1", none, 1), "a row with neither cannot be looked for");
	dv_buf_free(&body);
}

static void
test_find(void)
{
	static DvWireRow many[DV_WIRE_FIND_MAX + 1];
	static const DvWireRow *rows[DV_WIRE_FIND_MAX + 1];
	DvWireTable asked = table;
	DvBuf		path;
	int			i;

	for (i = 0; i <= DV_WIRE_FIND_MAX; i++)
	{
		many[i] = row('I', i == 1 ? "" : A, NULL, "");
		rows[i] = &many[i];
	}
	dv_buf_init(&path, 0);
	ok(dv_wire_find(&path, &table, rows, 3), "a read-back is built");
	is_text(path.data, "/accounts?$select=accountid,modifiedon,_modifiedby_value&$filter=Microsoft.Dynamics.CRM.In"
			"(PropertyName=@p1,PropertyValues=@p2)&@p1='accountid'&@p2=%5B%22" A "%22,%22" A "%22%5D", "its path");
	dv_buf_reset(&path);
	asked.with_creator = asked.with_state = true;
	ok(dv_wire_find(&path, &asked, rows, 1) && strstr(path.data, "?$select=accountid,modifiedon,_modifiedby_value,createdon,_createdby_value,statecode,statuscode&$filter") != NULL,
	   "with who created it, and its state");
	dv_buf_reset(&path);
	ok(dv_wire_find(&path, &asked, rows, DV_WIRE_FIND_MAX) && path.len < 32768 - 200, "the longest fits a URL");
	dv_buf_reset(&path);
	ok(!dv_wire_find(&path, &table, rows, DV_WIRE_FIND_MAX + 1), "more are refused");
	dv_buf_reset(&path);
	ok(dv_wire_find(&path, &table, rows + 1, 1) && strstr(path.data, "%5B%2200000000-0000-") != NULL,
	   "without any id the filter is still one");
	dv_buf_free(&path);
}

int
main(void)
{
	test_bulk();
	test_batch();
	test_find_each();
	test_find();
	return done_testing();
}

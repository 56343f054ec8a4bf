/*
 * fuzz_signin.c - answers outside the hot path: token, WhoAmI, pages of references
 *
 * Input: a byte that chooses a column, the body.
 */
#include "fuzz.h"

#include "reply_json.h"
#include "wiretext.h"

#define PAGE_RECORDS	8

static void
must_be_guid(const char *id)
{
	must(strlen(id) == 36 && strspn(id, "0123456789abcdef-") == 36);
}

static void
try_token(const char *body, size_t len)
{
	DvTokenReply token;

	if (!dv_json_token(body, len, &token))
		return;
	must(token.access_token == NULL || (token.access_token[0] != '\0' && strlen(token.access_token) < len));
	must(memchr(token.error, '\0', sizeof(token.error)) != NULL);
	must(memchr(token.description, '\0', sizeof(token.description)) != NULL);
	must(strpbrk(token.description, "\r\n") == NULL);
	dv_json_token_free(&token);
	must(token.access_token == NULL);
}

static void
try_whoami(const char *body, size_t len)
{
	char		ids[3][37];

	if (!dv_json_whoami(body, len, ids[0], ids[1], ids[2]))
		return;
	must_be_guid(ids[0]);
	must_be_guid(ids[1]);
	must_be_guid(ids[2]);
}

/* Stops after some records, as one without memory would. */
static bool
on_record(void *arg, const char *id, const char *const *values)
{
	int		   *n = arg;

	must_be_guid(id);
	must(values[0] == NULL || strlen(values[0]) < 8192);
	return ++*n < PAGE_RECORDS;
}

static void
try_page(const char *body, size_t len, const char *column)
{
	const char *columns[] = {column};
	char	   *next = NULL;
	int			n = 0;
	bool		ok = dv_json_page(body, len, "systemuserid", columns, 1, on_record, &n, &next);

	must(ok || next == NULL);
	must(!ok || n < PAGE_RECORDS);
	free(next);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *body;
	char		id[37];

	if (size < 1)
		return 0;
	/* as libcurl's buffer: exactly so long, and not ended */
	body = malloc(size - 1 > 0 ? size - 1 : 1);
	memcpy(body, data + 1, size - 1);
	try_token(body, size - 1);
	try_whoami(body, size - 1);
	try_page(body, size - 1, data[0] % 2 ? "internalemailaddress" : "fullname");
	(void) dv_json_has_list(body, size - 1, "value");
	free(body);

	if (dv_wiretext_uuid((const char *) data + 1, size - 1, id))
		must_be_guid(id);
	return 0;
}

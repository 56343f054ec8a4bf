/*
 * t_wiretext.c - text from outside: UTF-8, uuids, searching
 */
#include "tap.h"
#include "wiretext.h"

static void
copies(const char *src, size_t len, size_t size, const char *want, const char *name)
{
	char	   *in = exact_copy(src, len);
	char		out[64];

	dv_wiretext_copy(out, size, in, len);
	is_text(out, want, name);
	free(in);
}

static void
test_copy(void)
{
	char		out[64];

	copies("  a b\r\n", 7, 64, "a b", "white space at the ends is dropped");
	copies("a\0b\x01", 4, 64, "a b ", "NUL and control characters become blanks");
	copies("a\tb\nc", 5, 64, "a\tb\nc", "tabs and line ends stay");
	copies("\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80", 9, 64, "\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80", "UTF-8 stays");
	copies("\xC3\xA4\xE2\x82\xAC", 5, 5, "\xC3\xA4", "a text is cut between characters");
	copies("abcdef", 6, 1, "", "a size of one holds nothing");
	copies("\xC3", 1, 64, "?", "a cut character is replaced");
	copies("\xE2\x82", 2, 64, "??", "also a longer one");
	copies("\xC0\xAF|\xE0\x80\xAF|\xF0\x80\x80\xAF", 11, 64, "??|???|????", "overlong forms are replaced");
	copies("\xED\xA0\x80", 3, 64, "???", "surrogates are replaced");
	copies("\xF4\x90\x80\x80\xF5", 5, 64, "?????", "what is above U+10FFFF is replaced");
	copies("\xFE\xFF\x80", 3, 64, "???", "stray bytes are replaced");
	copies("", 0, 64, "", "nothing is copied to nothing");
	dv_wiretext_clean(out, sizeof(out), "  a\x01\r\n", 6);
	is_text(out, "  a \r\n", "white space at the ends stays where it is to");
}

static void
test_search(void)
{
	char	   *in = exact_copy("Does Not Exist", 14);

	ok(dv_wiretext_find(in, 14, "not exist") == in + 5, "found without regard to case");
	ok(dv_wiretext_find(in, 14, "existing") == NULL, "not beyond the end");
	ok(dv_wiretext_find(in, 3, "Does") == NULL, "not where it does not fit");
	ok(dv_wiretext_same(in, 4, "dOES") && !dv_wiretext_same(in, 4, "Doe") && !dv_wiretext_same(in, 4, "Doesn"),
	   "equality is of the whole text");
	free(in);
}

static void
is_below(const char *address, const char *want, const char *name)
{
	const char *got = dv_wiretext_below(address, "/api/data/v9.2");

	is_text(got == NULL ? "elsewhere" : got, want, name);
}

static void
test_below(void)
{
	is_below("https://o.crm4.dynamics.com/api/data/v9.2/accounts?$select=name&$skiptoken=%3Ccookie", "/accounts?$select=name&$skiptoken=%3Ccookie",
			 "a link is cut to what is below the API");
	is_below("HTTP://127.0.0.1:8080/API/data/v9.2/accounts", "/accounts", "whatever the host and the case");
	is_below("/api/data/v9.2/accounts(1)/f?a=https://x/", "/accounts(1)/f?a=https://x/", "and without a host");
	is_below("https://o.crm4.dynamics.com/api/data/v9.20/accounts", "elsewhere", "another version is elsewhere");
	is_below("https://o.crm4.dynamics.com/api/data/v9.2", "elsewhere", "and the API itself");
	is_below("https://x.example/?/api/data/v9.2/accounts", "elsewhere", "and a path in a query");
	is_below("https://x.example", "elsewhere", "and a host alone");
	is_below("api/data/v9.2/accounts", "elsewhere", "and a relative path");
	is_below("", "elsewhere", "and nothing");
	is_below("/api/data/v9.2/a b", "elsewhere", "a blank is in no address");
	is_below("/api/data/v9.2/a\r\nHost: x", "elsewhere", "and no line end");
}

static bool
reads_uuid(const char *text, char out[37])
{
	size_t		len = strlen(text);
	char	   *in = exact_copy(text, len);
	bool		good = dv_wiretext_uuid(in, len, out);

	free(in);
	return good;
}

static void
test_uuid(void)
{
	const char *text = "account With Id = 7EB682F1-ca75-e511-80d4-00155d2a68d1 Does (x-a7eb682f1-ca75-e511-80d4-00155d2a68d1f)";
	char	   *in = exact_copy(text, strlen(text));
	char		id[37];
	size_t		pos = 0;

	ok(reads_uuid("7EB682F1-CA75-E511-80D4-00155D2A68D1", id), "upper case is read");
	is_text(id, "7eb682f1-ca75-e511-80d4-00155d2a68d1", "and lower-cased");
	ok(reads_uuid("{7eb682f1-ca75-e511-80d4-00155d2a68d1}", id), "braces are dropped");
	ok(!reads_uuid("{7eb682f1-ca75-e511-80d4-00155d2a68d1", id), "one brace is none");
	ok(!reads_uuid("7eb682f1-ca75-e511-80d4-00155d2a68d", id) && id[0] == '\0', "too short");
	ok(!reads_uuid("7eb682f1-ca75-e511-80d4-00155d2a68d11", id), "too long");
	ok(!reads_uuid("7eb682f1xca75-e511-80d4-00155d2a68d1", id), "dashes are where they belong");
	ok(!reads_uuid("7eb682g1-ca75-e511-80d4-00155d2a68d1", id), "digits are hexadecimal");
	ok(!reads_uuid("", id), "nothing is none");
	ok(dv_wiretext_next_uuid(in, strlen(text), &pos, id), "a uuid is found in running text");
	is_text(id, "7eb682f1-ca75-e511-80d4-00155d2a68d1", "the right one");
	ok(!dv_wiretext_next_uuid(in, strlen(text), &pos, id), "a longer run of digits is none");
	free(in);
}

int
main(void)
{
	test_copy();
	test_search();
	test_below();
	test_uuid();
	return done_testing();
}

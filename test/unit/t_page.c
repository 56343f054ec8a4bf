/*
 * t_page.c - the records of a query's answer
 */
#include "page.h"
#include "tap.h"

/* The members of a record, written as name=value;name=value| behind what "out" holds. */
static const char *
put_members(DvSlice record, char *out, size_t size)
{
	const char *at = record.p;
	DvSlice		name;
	DvSlice		value;

	while (dv_page_member(record, &at, &name, &value))
		snprintf(out + strlen(out), size - strlen(out), "%.*s=%.*s;", (int) name.len, name.p, (int) value.len, value.p);
	strcat(out, "|");
	return at;
}

/* Records of a page and their members, read in both ways. */
static void
reads(const char *body, const char *want)
{
	char	   *in = exact_copy(body, strlen(body));
	char		out[512] = "";
	char		walked[512] = "";
	DvPage		page;
	DvPage		walk;
	DvSlice		record;
	DvSlice		rest;
	bool		same = true;

	if (!dv_page_open(&page, in, strlen(body)))
		strcpy(out, "no page");
	else
	{
		walk = page;
		while (dv_page_record(&page, &record))
		{
			(void) put_members(record, out, sizeof(out));
			same = same && dv_page_enter(&walk, &rest) && dv_page_leave(&walk, put_members(rest, walked, sizeof(walked)), &rest) &&
				rest.p == record.p && rest.len == record.len;
		}
		ok(same && !dv_page_enter(&walk, &rest) && strcmp(out, walked) == 0, "in one walk");
	}
	is_text(out, want, body);
	free(in);
}

static void
shows(const char *value, const char *want)
{
	char	   *in = exact_copy(value, strlen(value));
	char		out[64];

	dv_page_text((DvSlice) {in, strlen(value)}, out, sizeof(out));
	is_text(out, want, value);
	free(in);
}

static void
test_pages(void)
{
	DvPage		page;
	const char *linked = "{\"value\":[],\"@odata.nextLink\":\"https:\\/\\/x\"}";

	reads("{\"value\":[{\"a\":1,\"b\":\"x\\\"y\"},{\"a\":null}]}", "a=1;b=\"x\\\"y\";|a=null;|");
	reads(" { \"@odata.context\" : {\"x\":[1,{}]} , \"value\" : [ { \"a\" : [1, 2] , \"b\" : {} } ] } \n", "a=[1, 2];b={};|");
	reads("\xEF\xBB\xBF{\"value\":[{}]}", "|");
	reads("{\"value\":[]}", "");
	reads("{\"value\":[ { } , {\"a\" : [] } ]}", "|a=[];|");
	reads("{\"value\":[{\"a\":\"sixteen letters \\\\ and \\\" more of them\",\"b\":\"\"}]}", "a=\"sixteen letters \\\\ and \\\" more of them\";b=\"\";|");
	reads("{\"value\":[{\"a\":\"eight by\tes\"}]}", "no page");
	reads("{\"value\":[{\"a\":\"eight bytes and then \\\\\n\"}]}", "no page");
	reads("{\"value\":[{\"a\":1} {\"a\":2}]}", "no page");
	reads("{\"value\":[1,{\"a\":2}]}", "no page");
	reads("", "no page");
	reads("[]", "no page");
	reads("{\"value\":1}", "no page");
	reads("{\"value\":[1]}", "no page");
	reads("{\"value\":[{\"a\":1},null]}", "no page");
	reads("{\"value\":[{\"a\":1},[2],{\"a\":3}]}", "no page");
	reads("{\"value\":[{\"a\":1}", "no page");
	reads("{\"value\":[{\"a\":1}]}}", "no page");
	reads("{\"value\":[{\"a\":1}]}{\"value\":[]}", "no page");
	reads("{\"value\":[{\"a\":}]}", "no page");
	reads("{\"value\":[{\"a\" 1}]}", "no page");
	reads("{\"value\":[{\"a\":1,}]}", "no page");
	reads("{\"value\":[{\"a\":\"x]}", "no page");
	reads("{\"value\":[{\"a\":\"x\\", "no page");
	reads("{\"error\":{\"code\":\"0x0\"},\"value\":[]}", "no page");
	reads("{\"value\":[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]}", "no page");
	ok(dv_page_open(&page, linked, strlen(linked)) && page.next_link.len == 11, "the link to the next page");
}

static void
test_values(void)
{
	unsigned char id[16];
	const char *record = "{\"x\":1,\"id\":\"AAAAAAAA-0000-4000-8000-0000000000Ff\"}";
	DvSlice		all = {record, strlen(record)};

	shows("\"a\\u00e4\\n\\/\\\\\"", "a\xC3\xA4\n/\\");
	shows("\"\\uD83D\\uDE00\"", "\xF0\x9F\x98\x80");
	shows("\"\\uD83D\"", "\xEF\xBF\xBD");
	shows("\"\\u12\"", "12");
	shows("12.50", "12.50");
	shows("\"\"", "");
	ok(dv_page_uuid(dv_page_find(all, "id"), id) && id[0] == 0xAA && id[15] == 0xFF, "a member that is a uuid");
	ok(!dv_page_uuid(dv_page_find(all, "x"), id), "one that is none");
	ok(!dv_page_uuid(dv_page_find(all, "y"), id), "one that is not there");
}

/* What ends or escapes in a string, at every place of the words of eight bytes that it is read by. */
static void
test_places(void)
{
	int			at;

	for (at = 0; at < 20; at++)
	{
		char		body[100];
		char		want[100];

		snprintf(body, sizeof(body), "{\"value\":[{\"a\":\"%.*s\",\"b\":1}]}", at, "abcd\xC3\xA4ghijkl\x7Fnopqrst");
		snprintf(want, sizeof(want), "a=\"%.*s\";b=1;|", at, "abcd\xC3\xA4ghijkl\x7Fnopqrst");
		reads(body, want);
		snprintf(body, sizeof(body), "{\"value\":[{\"a\":\"%.*s\\\"%s\"}]}", at, "abcdefghijklmnopqrst", "uvwxyz");
		snprintf(want, sizeof(want), "a=\"%.*s\\\"%s\";|", at, "abcdefghijklmnopqrst", "uvwxyz");
		reads(body, want);
		snprintf(body, sizeof(body), "{\"value\":[{\"a\":\"%.*s\x1F%s\"}]}", at, "abcdefghijklmnopqrst", "uvwxyz");
		reads(body, "no page");
		snprintf(body, sizeof(body), "{\"value\":[{\"a\":\"%.*s", at, "abcdefghijklmnopqrst");
		reads(body, "no page");
	}
}

int
main(void)
{
	test_pages();
	test_places();
	test_values();
	return done_testing();
}

/*
 * t_compare.c - what Dataverse normalises is equal, and nothing else
 */
#include "compare.h"
#include "tap.h"

static bool
same(DvCompareKind kind, int precision, const char *expected, const char *found)
{
	/* exact copies, so that a sanitizer sees every byte read too far */
	char	   *e = expected ? exact_copy(expected, strlen(expected)) : NULL;
	char	   *f = found ? exact_copy(found, strlen(found)) : NULL;
	DvSlice		a = {e, expected ? strlen(expected) : 0};
	DvSlice		b = {f, found ? strlen(found) : 0};
	bool		result = dv_compare_equal(kind, precision, a, b);

	free(e);
	free(f);
	return result;
}

static void
equal(DvCompareKind kind, int precision, const char *expected, const char *found)
{
	char		name[256];

	snprintf(name, sizeof(name), "%s is %s", expected ? expected : "nothing", found ? found : "nothing");
	ok(same(kind, precision, expected, found), name);
}

static void
differs(DvCompareKind kind, int precision, const char *expected, const char *found)
{
	char		name[256];

	snprintf(name, sizeof(name), "%s is not %s", expected ? expected : "nothing", found ? found : "nothing");
	ok(!same(kind, precision, expected, found), name);
}

static void
test_nulls(void)
{
	equal(DV_COMPARE_TEXT, -1, "null", NULL);
	equal(DV_COMPARE_TEXT, -1, "\"\"", "null");
	equal(DV_COMPARE_TEXT, -1, NULL, "\"\"");
	differs(DV_COMPARE_TEXT, -1, "\" \"", "null");
	differs(DV_COMPARE_NUMBER, -1, "0", "null");
	differs(DV_COMPARE_BOOLEAN, -1, "false", NULL);
	differs(DV_COMPARE_LOOKUP, -1, "\"accounts(00000000-0000-0000-0000-000000000001)\"", "null");
}

static void
test_texts(void)
{
	equal(DV_COMPARE_TEXT, -1, "\"\xC3\xA4/\"", "\"\\u00e4\\/\"");
	equal(DV_COMPARE_TEXT, -1, "\"\xF0\x9F\x98\x80\"", "\"\\uD83D\\uDE00\"");
	equal(DV_COMPARE_TEXT, -1, "\"a\\nb\"", "\"a\\u000ab\"");
	differs(DV_COMPARE_TEXT, -1, "\"a\"", "\"A\"");
	differs(DV_COMPARE_TEXT, -1, "\"a\"", "\"a \"");
	differs(DV_COMPARE_TEXT, -1, "\"1\"", "1.0");
}

static void
test_numbers(void)
{
	equal(DV_COMPARE_NUMBER, -1, "12.5", "12.5000");
	equal(DV_COMPARE_NUMBER, -1, "0.1", "1e-1");
	equal(DV_COMPARE_NUMBER, -1, "100", "1.00E2");
	equal(DV_COMPARE_NUMBER, -1, "-0", "0.00");
	equal(DV_COMPARE_NUMBER, -1, "9007199254740993", "9007199254740993");
	differs(DV_COMPARE_NUMBER, -1, "9007199254740993", "9007199254740992");
	differs(DV_COMPARE_NUMBER, -1, "1", "-1");
	differs(DV_COMPARE_NUMBER, -1, "1", "10");
	differs(DV_COMPARE_NUMBER, -1, "1", "\"x\"");
	differs(DV_COMPARE_NUMBER, 2, "12.34", "12.341");
	equal(DV_COMPARE_NUMBER, 2, "12.344", "12.34");
	equal(DV_COMPARE_NUMBER, 2, "12.346", "12.35");
	equal(DV_COMPARE_NUMBER, 2, "12.345", "12.35");
	equal(DV_COMPARE_NUMBER, 2, "12.345", "12.34");
	equal(DV_COMPARE_NUMBER, 2, "9.999", "10");
	equal(DV_COMPARE_NUMBER, 0, "0.4", "0");
	equal(DV_COMPARE_NUMBER, 0, "0.6", "1.0");
	equal(DV_COMPARE_NUMBER, 2, "0.001", "0");
	differs(DV_COMPARE_NUMBER, 2, "12.346", "12.34");
	differs(DV_COMPARE_NUMBER, -1, "12.346", "12.35");
	equal(DV_COMPARE_MONEY, 2, "12.34567", "12.3457");
	equal(DV_COMPARE_MONEY, 2, "12.34567", "12.35");
	differs(DV_COMPARE_MONEY, 2, "12.34567", "12.34");
	equal(DV_COMPARE_DOUBLE, -1, "0.1", "0.10000000000000001");
	differs(DV_COMPARE_DOUBLE, -1, "0.1", "0.1000001");
}

static void
test_times(void)
{
	equal(DV_COMPARE_INSTANT, -1, "\"2024-05-31T10:00:00Z\"", "\"2024-05-31T12:00:00+02:00\"");
	equal(DV_COMPARE_INSTANT, -1, "\"2024-05-31T10:00:00.75Z\"", "\"2024-05-31T10:00:00Z\"");
	equal(DV_COMPARE_INSTANT, -1, "\"2024-05-31T10:00:59.75Z\"", "\"2024-05-31T10:01:00Z\"");
	differs(DV_COMPARE_INSTANT, -1, "\"2024-05-31T10:00:00.25Z\"", "\"2024-05-31T10:00:01Z\"");
	equal(DV_COMPARE_INSTANT, -1, "\"2023-12-31T23:30:00-01:00\"", "\"2024-01-01T00:30:00Z\"");
	differs(DV_COMPARE_INSTANT, -1, "\"2024-05-31T10:00:00Z\"", "\"2024-05-31T10:00:01Z\"");
	differs(DV_COMPARE_INSTANT, -1, "\"2024-05-31T10:00:00Z\"", "\"2024-05-31\"");
	equal(DV_COMPARE_INSTANT, -1, "\"1753-01-01T00:00:00Z\"", "\"1753-01-01T00:00:00+00:00\"");
	equal(DV_COMPARE_DATE, -1, "\"2024-02-29\"", "\"2024-02-29T00:00:00Z\"");
	differs(DV_COMPARE_DATE, -1, "\"2024-02-29\"", "\"2024-03-01\"");
	differs(DV_COMPARE_DATE, -1, "\"2024-02-29\"", "\"29.02.2024\"");
}

static void
test_others(void)
{
	equal(DV_COMPARE_GUID, -1, "\"aaaaaaaa-0000-4000-8000-00000000000b\"", "\"AAAAAAAA-0000-4000-8000-00000000000B\"");
	differs(DV_COMPARE_GUID, -1, "\"aaaaaaaa-0000-4000-8000-00000000000b\"", "\"aaaaaaaa-0000-4000-8000-00000000000c\"");
	equal(DV_COMPARE_LOOKUP, -1, "\"accounts(aaaaaaaa-0000-4000-8000-00000000000b)\"", "\"AAAAAAAA-0000-4000-8000-00000000000B\"");
	differs(DV_COMPARE_LOOKUP, -1, "\"accounts(aaaaaaaa-0000-4000-8000-00000000000b)\"", "\"aaaaaaaa-0000-4000-8000-00000000000c\"");
	differs(DV_COMPARE_LOOKUP, -1, "\"accounts\"", "\"aaaaaaaa-0000-4000-8000-00000000000c\"");
	equal(DV_COMPARE_CHOICES, -1, "\"9,1\"", "\"1, 9\"");
	differs(DV_COMPARE_CHOICES, -1, "\"9,1\"", "\"1\"");
	differs(DV_COMPARE_CHOICES, -1, "\"9,1\"", "\"1,8\"");
	equal(DV_COMPARE_CHOICES, -1, "\"1,1,9,1\"", "\"9,1\"");
	differs(DV_COMPARE_CHOICES, -1, "\"1,1\"", "\"1,9\"");
	differs(DV_COMPARE_BOOLEAN, -1, "true", "false");
	equal(DV_COMPARE_PRESENCE, -1, "\"iVBORw0KGgo=\"", "\"aaaaaaaa-0000-4000-8000-00000000000b\"");
	differs(DV_COMPARE_PRESENCE, -1, "\"iVBORw0KGgo=\"", "null");
}

int
main(void)
{
	test_nulls();
	test_texts();
	test_numbers();
	test_times();
	test_others();
	return done_testing();
}

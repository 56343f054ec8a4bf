/*
 * fuzz_page.c - pages of records, read member by member, and values compared
 *
 * Input: a byte that chooses the kind of comparison, one for the precision, the
 * body.
 */
#include "compare.h"
#include "fuzz.h"
#include "page.h"

/* Text of any value fits what it asks for, and is ended. */
static void
try_text(DvSlice value)
{
	char		small[4];
	size_t		len = dv_page_text(value, small, sizeof(small));
	char	   *all = malloc(len + 1);

	must(all != NULL && memchr(small, '\0', sizeof(small)) != NULL);
	must(dv_page_text(value, all, len + 1) == len && all[len] == '\0');
	free(all);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const DvSlice nothing = {NULL, 0};
	DvCompareKind kind;
	int			precision;
	char	   *body;
	DvPage		page;
	DvPage		walk;
	DvSlice		record;
	DvSlice		rest;
	DvSlice		last = {NULL, 0};

	if (size < 2)
		return 0;
	kind = (DvCompareKind) (data[0] % (DV_COMPARE_PRESENCE + 1));
	precision = data[1] % 12 - 1;
	body = malloc(size - 1);
	must(body != NULL);
	memcpy(body, data + 2, size - 2);
	if (dv_page_open(&page, body, size - 2))
	{
		walk = page;
		if (page.next_link.p != NULL)
		{
			/* who follows it takes it with its quotes */
			must(page.next_link.p > body && page.next_link.p[-1] == '"' && page.next_link.p[page.next_link.len] == '"');
			try_text((DvSlice) {page.next_link.p - 1, page.next_link.len + 2});
		}
		if (page.count.p != NULL)
			try_text(page.count);
		while (dv_page_record(&page, &record))
		{
			const char *at = record.p;
			DvSlice		name;
			DvSlice		value;
			unsigned char id[16];

			must(record.len >= 2 && record.p[0] == '{');
			must(dv_page_enter(&walk, &rest) && rest.p == record.p);
			while (dv_page_member(record, &at, &name, &value))
			{
				must(value.p >= body && value.p + value.len <= body + size - 2);
				try_text(value);
				(void) dv_page_uuid(value, id);
				must(dv_compare_equal(kind, precision, value, value) || dv_page_is_null(value) || kind == DV_COMPARE_PRESENCE || value.len > 0);
				(void) dv_compare_equal(kind, precision, last, value);
				(void) dv_compare_equal(kind, precision, value, nothing);
				last = value;
			}
			/* an open page has been walked over: what is read twice is the same */
			must(dv_page_leave(&walk, at, &rest) && rest.len == record.len);
		}
		must(!dv_page_enter(&walk, &rest));
	}
	free(body);
	return 0;
}

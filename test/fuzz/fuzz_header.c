/*
 * fuzz_header.c - values of headers, and texts to be classified
 *
 * Input: two bytes for a status and an operation, then the text.
 */
#include "fuzz.h"
#include "multipart.h"

static void
try_text(const char *text, size_t len)
{
	char		copy[40];
	char		id[37];
	char	   *string = malloc(len + 1);
	char		boundary[DV_BOUNDARY_LEN];
	size_t		pos = 0;
	size_t		n;
	long		ms;

	must(string != NULL);
	memcpy(string, text, len);
	string[len] = '\0';
	if (dv_multipart_boundary(string, boundary))
		must(boundary[0] != '\0' && strlen(boundary) < DV_BOUNDARY_LEN);
	(void) dv_wiretext_below(string, "/api/data/v9.2");
	free(string);

	ms = dv_verdict_retry_after(text, len, 1750000000);
	must(ms >= -1 && ms <= 86400000);
	n = (size_t) dv_verdict_window(text, len);
	must(n <= 86400);
	if (dv_multipart_record_id(text, len, id))
		must_be_id(id);
	while (dv_wiretext_next_uuid(text, len, &pos, id))
	{
		must(pos <= len);
		must_be_id(id);
	}
	n = dv_wiretext_copy(copy, sizeof(copy), text, len);
	must(n == strlen(copy) && n < sizeof(copy));
	must_be_clean(copy, sizeof(copy));
	n = dv_wiretext_ascii(copy, sizeof(copy), text, len);
	must(n == strlen(copy) && n < sizeof(copy));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	DvVerdict	v;
	const char *text;
	const char *tab;
	size_t		len;

	if (size < 2)
		return 0;
	text = (const char *) data + 2;
	len = size - 2;
	try_text(text, len);

	/* Code, a tab, and the message. */
	memset(&v, 0, sizeof(v));
	v.http_status = 400 + data[0];
	v.retry_after_ms = -1;
	tab = memchr(text, '\t', len);
	if (tab != NULL)
		dv_wiretext_ascii(v.code, sizeof(v.code), text, (size_t) (tab - text));
	dv_wiretext_copy(v.message, sizeof(v.message), tab != NULL ? tab + 1 : text,
					 tab != NULL ? len - (size_t) (tab + 1 - text) : len);
	dv_verdict_classify(&v, "IUDBR"[data[1] % 5], data[1] / 5 % 2 == 0);
	if (v.message[0] == '\0')
		memcpy(v.message, "-", 2);
	must_be_verdict(&v);
	must(v.kind != DV_DONE || (data[1] % 5 == 2 && v.http_status == 404));
	return 0;
}

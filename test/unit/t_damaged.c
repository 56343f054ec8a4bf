/*
 * t_damaged.c - replies cut at every byte, and damaged at every byte
 *
 * Never may a row count as written whose answer was not there as a whole, and
 * never one that was refused.
 */
#include "tap.h"
#include "wire.h"

#define N			4
#define REFUSED		2			/* the row that Dataverse refused */

static DvWireRow rows[N];
static const DvWireRow *list[N];
static DvVerdict verdicts[N];
static char ids_out[N][37];

static void
make_rows(char op)
{
	int			i;

	for (i = 0; i < N; i++)
	{
		memset(&rows[i], 0, sizeof(DvWireRow));
		rows[i].op = op;
		memcpy(rows[i].id, "00000000-aaaa-4aaa-8aaa-aaaaaaaaaaaa", sizeof(rows[i].id));
		rows[i].id[7] = (char) ('1' + i);
		rows[i].content = "\"x\":1";
		rows[i].content_len = 5;
		list[i] = &rows[i];
	}
}

static void
judge(bool batch, const char *text, size_t len)
{
	char	   *in = exact_copy(text, len);
	DvWireReply reply = {
		.status = 200,.content_type = batch ? "multipart/mixed; boundary=batchresponse_9f" : "application/json",
		.retry_after_ms = -1,.body = in,.len = len
	};

	memset(verdicts, 0xAA, sizeof(verdicts));
	if (batch)
		dv_wire_batch_reply(&reply, list, N, verdicts, ids_out);
	else
		dv_wire_bulk_reply(&reply, list, N, verdicts, ids_out);
	free(in);
}

/* A reply to a $batch, and where the delimiter behind each part is complete. */
static size_t
make_batch(char *text, size_t size, size_t *complete, bool named)
{
	size_t		n = 0;
	int			i;

	for (i = 0; i < N; i++)
	{
		char		header[200] = "";

		n += (size_t) snprintf(text + n, size - n, "--batchresponse_9f\r\n");
		if (i > 0)
			complete[i - 1] = n;
		n += (size_t) snprintf(text + n, size - n, "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n");
		if (named)
			snprintf(header, sizeof(header), "OData-EntityId: https://h/api/data/v9.2/accounts(%s)\r\n", rows[i].id);
		if (i == REFUSED)
			n += (size_t) snprintf(text + n, size - n, "HTTP/1.1 400 Bad Request\r\nREQ_ID: r\r\nContent-Type: application/json\r\n\r\n"
								   "{\"error\":{\"code\":\"0x80044331\",\"message\":\"too long\"}}\r\n");
		else
			n += (size_t) snprintf(text + n, size - n, "HTTP/1.1 204 No Content\r\nOData-Version: 4.0\r\n%s\r\n\r\n", header);
	}
	n += (size_t) snprintf(text + n, size - n, "--batchresponse_9f--");
	complete[N - 1] = n;
	n += (size_t) snprintf(text + n, size - n, "\r\n");
	return n;
}

static void
test_batch_cut(bool named)
{
	char		text[4000];
	size_t		complete[N];
	size_t		len = make_batch(text, sizeof(text), complete, named);
	size_t		cut;
	int			wrong = 0;
	int			lost = 0;
	int			i;

	for (cut = 0; cut <= len; cut++)
	{
		judge(true, text, cut);
		for (i = 0; i < N; i++)
		{
			DvVerdictKind whole = i == REFUSED ? DV_FAIL_ROW : DV_DONE;

			if (cut < complete[i] && verdicts[i].kind != DV_SETTLE)
				wrong++;
			if (cut >= complete[i] && verdicts[i].kind != whole)
				lost++;
		}
	}
	is_number(wrong, 0, "a $batch reply cut at every byte: no verdict of a part that is not whole");
	is_number(lost, 0, "and the true one of every part that is");
}

/* Every byte left out, changed, doubled; every line left out. */
static void
test_batch_damaged(void)
{
	static const char changes[] = {'\0', ' ', '-', '\r', '\n', '2', '"', '(', '\xFF'};
	char		text[4000];
	char		damaged[8000];
	size_t		complete[N];
	size_t		len = make_batch(text, sizeof(text), complete, true);
	size_t		at;
	size_t		c;
	int			wrong = 0;

	for (at = 0; at < len; at++)
	{
		const char *lf = memchr(text + at, '\n', len - at);
		size_t		line = lf != NULL ? (size_t) (lf + 1 - (text + at)) : len - at;

		memcpy(damaged, text, at);
		memcpy(damaged + at, text + at + 1, len - at - 1);
		judge(true, damaged, len - 1);
		wrong += verdicts[REFUSED].kind == DV_DONE;

		memcpy(damaged + at, text + at + line, len - at - line);
		judge(true, damaged, len - line);
		wrong += verdicts[REFUSED].kind == DV_DONE;

		memcpy(damaged + at, text, len);
		judge(true, damaged, at + len);
		wrong += verdicts[REFUSED].kind == DV_DONE;

		for (c = 0; c < sizeof(changes); c++)
		{
			memcpy(damaged, text, len);
			damaged[at] = changes[c];
			judge(true, damaged, len);
			wrong += verdicts[REFUSED].kind == DV_DONE;
		}
	}
	is_number(wrong, 0, "a $batch reply damaged at every byte: the refused row never counts as written");
}

static void
test_bulk_damaged(void)
{
	char		text[1000];
	size_t		n = 0;
	size_t		cut;
	int			wrong = 0;
	int			i;

	n += (size_t) snprintf(text, sizeof(text), "{\"@odata.context\":\"https://h/$metadata#CreateMultipleResponse\",\"Ids\":[");
	for (i = 0; i < N; i++)
		n += (size_t) snprintf(text + n, sizeof(text) - n, "%s\"%s\"", i > 0 ? "," : "", rows[i].id);
	n += (size_t) snprintf(text + n, sizeof(text) - n, "]}");
	for (cut = 0; cut < n; cut++)
	{
		judge(false, text, cut);
		for (i = 0; i < N; i++)
			wrong += verdicts[i].kind != DV_SETTLE;
	}
	is_number(wrong, 0, "a CreateMultiple reply cut at every byte settles");
	judge(false, text, n);
	ok(verdicts[0].kind == DV_DONE && verdicts[N - 1].kind == DV_DONE, "and as a whole is a success");
	text[n] = 'x';
	judge(false, text, n + 1);
	ok(verdicts[0].kind == DV_SETTLE, "with a byte behind it is none");
}

int
main(void)
{
	make_rows('I');
	test_batch_cut(true);
	test_batch_cut(false);
	test_batch_damaged();
	test_bulk_damaged();
	make_rows('U');
	test_batch_cut(false);
	make_rows('D');
	test_batch_cut(true);
	return done_testing();
}

/*
 * verify.c - what Dataverse holds, compared with what the staging rows map to
 *
 * A verification walks a staging table by its source key, as a run does, and
 * asks for the records of its rows by their ids, many in one query and several
 * queries at a time. Nothing is written in Dataverse.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "encode.h"
#include "job.h"
#include "spi.h"
#include "verify.h"
#include "wiretext.h"

/*
 * Characters of a URL: a GET may have 32,768, of which host and path take some.
 * An id with its quotes and comma takes 43.
 */
#define URL_MAX			32000
#define ID_CHARS		43

/* Records of one query at most: its answer stays far below a page of 5,000. */
#define ROWS_MAX		500
#define ROWS_MIN		1

/* A query of so few is not refused for what it asks for at once. */
#define ROWS_FEW		20

/* At least so many of records that may be large. */
#define ROWS_LARGE		20

/* Error code: there is no record of that id. */
#define NO_SUCH_RECORD	"0x80040217"

/* Part of a chunk that is asked for. */
typedef struct VerifyAsk
{
	DvVerifyChunk *chunk;
	int			from;
	int			n;
	DvVerifyFileAsk *file;		/* a file of it, instead */
	bool		links;			/* what the rows' left end is linked to, instead */
} VerifyAsk;

static void
build_path(DvVerify *v, DvBuf *path, const DvVerifyRow *rows, int n)
{
	const DvWireTable *table = &v->projection->wire;
	char		id[37];
	int			i;

	dv_buf_reset(path);
	dv_buf_puts(path, "/");
	dv_buf_puts(path, table->entity_set);
	dv_buf_puts(path, "?$select=");
	dv_buf_puts(path, v->select);
	dv_buf_puts(path, v->expand);
	dv_buf_puts(path, "&$filter=Microsoft.Dynamics.CRM.In(PropertyName=@p1,PropertyValues=@p2)&@p1='");
	dv_buf_puts(path, table->primary_id);
	dv_buf_puts(path, "'&@p2=%5B");
	for (i = 0; i < n; i++)
	{
		/* links of one record, and rows that mean the same one, follow each other */
		if (i > 0 && memcmp(&rows[i].id, &rows[i - 1].id, sizeof(pg_uuid_t)) == 0)
			continue;
		dv_source_format_id(&rows[i].id, id);
		dv_buf_puts(path, i > 0 ? ",%22" : "%22");
		dv_buf_puts(path, id);
		dv_buf_puts(path, "%22");
	}
	dv_buf_puts(path, "%5D");
}

void
dv_verify_ask(DvVerify *v, DvVerifyChunk *chunk, int from, int n)
{
	VerifyAsk  *part = MemoryContextAllocZero(v->asker.context, sizeof(VerifyAsk));
	DvAsk	   *ask = dv_asker_new(&v->asker, "GET", part);

	part->chunk = chunk;
	part->from = from;
	part->n = n;
	build_path(v, &ask->path, chunk->rows + from, n);
	ask->prefer = DV_WIRE_PREFER_LOOKUP_TABLES;
	chunk->asks++;
	dv_asker_queue(&v->asker, ask);
}

DvAsk *
dv_verify_new_ask(DvVerify *v, DvVerifyChunk *chunk, DvVerifyFileAsk *file)
{
	VerifyAsk  *part = MemoryContextAllocZero(v->asker.context, sizeof(VerifyAsk));

	part->chunk = chunk;
	part->file = file;
	chunk->asks++;
	return dv_asker_new(&v->asker, "GET", part);
}

void
dv_verify_release(DvVerifyChunk *chunk)
{
	if (--chunk->asks == 0)
		MemoryContextDelete(chunk->context);
}

static void
release_part(VerifyAsk *part)
{
	DvVerifyChunk *chunk = part->chunk;

	pfree(part);
	dv_verify_release(chunk);
}

/* Ask for the rows in halves. */
static void
split(DvVerify *v, VerifyAsk *part)
{
	if (part->n > 1)
		dv_verify_ask(v, part->chunk, part->from, part->n / 2);
	dv_verify_ask(v, part->chunk, part->from + part->n / 2, part->n - part->n / 2);
	release_part(part);
}

/* Too long a URL, too slow a query: from now on, too. */
static void
halve(DvVerify *v, VerifyAsk *part)
{
	v->rows_per_read = Max(ROWS_MIN, Min(v->rows_per_read, part->n / 2));
	split(v, part);
}

/* The answer is longer than any may be. A record that is so by itself cannot be compared. */
static bool
ask_for_less(DvAsker *asker, DvAsk *ask)
{
	DvVerify   *v = asker->arg;
	VerifyAsk  *part = ask->arg;
	DvVerifyRow *row;

	if (ask->prefer == NULL || strcmp(ask->method, "GET") != 0 || part->file != NULL || part->links)
		return false;
	if (part->n > 1)
	{
		/* what made it so long may be a few records only */
		v->rows_per_read = Min(v->rows_per_read, Max(ROWS_LARGE, part->n / 2));
		split(v, part);
		return true;
	}
	row = &part->chunk->rows[part->from];
	row->seen = true;
	v->too_long++;
	v->uncompared += dv_verify_is_loaded(row);
	v->rc->total.rows_read++;
	if (v->rebuild != NULL)
		dv_rebuild_range(v, part->chunk, part->from, 1);	/* it is there */
	release_part(part);
	return true;
}

/* ---------------------------------------------------------------- links of one record */

/* Links that were not told with their left ends, for each of these alone. */
static void
ask_links(DvVerify *v, DvVerifyChunk *chunk, int from, int end)
{
	int			n;

	for (; (from = dv_verify_next_untold(v, chunk, from, end, &n)) >= 0; from += n)
	{
		VerifyAsk  *part;
		DvAsk	   *ask;

		if (v->links_refused)
		{
			dv_verify_refuse_links(v, chunk->rows + from, n);
			continue;
		}
		ask = dv_verify_new_ask(v, chunk, NULL);
		part = ask->arg;
		part->links = true;
		part->from = from;
		part->n = n;
		dv_verify_links_path(v, &chunk->rows[from], &ask->path);
		ask->prefer = DV_WIRE_PREFER_LOOKUP_TABLES;
		dv_asker_queue(&v->asker, ask);
	}
}

static void
handle_links(DvVerify *v, DvAsk *ask, VerifyAsk *part, const DvHttpReply *reply)
{
	DvVerifyRow *rows = part->chunk->rows + part->from;
	bool		gone = reply->status == 404 && reply->body.data != NULL &&
		dv_wiretext_find(reply->body.data, reply->body.len, NO_SUCH_RECORD) != NULL;
	DvPage		page = {NULL, NULL, {NULL, 0}, {NULL, 0}};

	if (reply->status == 200 &&
		!(dv_page_open(&page, reply->body.data, reply->body.len) && dv_verify_links_page(v, rows, part->n, &page)))
	{
		dv_asker_not_understood(&v->asker, ask, psprintf("the answer to a query of links of %s was not understood", v->projection->wire.entity_set));
		return;
	}
	if (reply->status == 200 && page.next_link.p != NULL)
	{
		dv_asker_follow(&v->asker, ask, page.next_link);
		return;
	}
	if (reply->status == 200 || gone)
		dv_verify_judge_links(v, rows, part->n);
	else if (reply->status >= 400 && reply->status < 500)
		dv_verify_refuse_links(v, rows, part->n);
	else
		dv_asker_fail_answer(&v->asker, reply);
	release_part(part);
}

/* ---------------------------------------------------------------- answers */

/* Not an answer to a query: what went wrong with it. */
static void
handle_refusal(DvVerify *v, DvAsk *ask, VerifyAsk *part, const DvHttpReply *reply)
{
	bool		too_much = reply->status == 400 || reply->status == 413 || reply->status == 414 || reply->status >= 500;

	if (too_much && part->n > ROWS_FEW)
		halve(v, part);
	else if (reply->status >= 400 && reply->status < 500 && strstr(ask->path.data, "&$expand=") != NULL)
	{
		/* several are on their way: each of them is asked for again */
		dv_verify_without_expand(v);
		halve(v, part);
	}
	else if (reply->status == 200)
		dv_asker_not_understood(&v->asker, ask, psprintf("the answer to a query of %s was not understood", v->projection->wire.entity_set));
	else
		dv_asker_fail_answer(&v->asker, reply);
}

static void
handle_answer(DvAsker *asker, DvAsk *ask, const DvHttpReply *reply)
{
	DvVerify   *v = asker->arg;
	VerifyAsk  *part = ask->arg;
	DvPage		page;

	if (v->resend != NULL && strcmp(ask->method, "POST") == 0)
	{
		dv_resend_answer(v, ask, reply);
		return;
	}
	if (ask->prefer == NULL)
	{
		if (v->rebuild != NULL)
			dv_rebuild_answer(v, ask, reply);
		else
			dv_verify_twins_answer(v, ask, reply);
		return;
	}
	if (part->links)
	{
		handle_links(v, ask, part, reply);
		return;
	}
	if (part->file != NULL)
	{
		if (dv_verify_file_answer(v, part->file, ask, reply))
		{
			pfree(part->file);
			release_part(part);
		}
		return;
	}
	if (reply->status != 200 || !dv_page_open(&page, reply->body.data, reply->body.len) ||
		!dv_verify_judge_page(v, part->chunk, part->from, part->n, &page))
	{
		handle_refusal(v, ask, part, reply);
		return;
	}
	if (page.next_link.p != NULL)
	{
		dv_asker_follow(asker, ask, page.next_link);
		return;
	}
	dv_verify_judge_unseen(v, part->chunk, part->from, part->n);
	v->rc->total.rows_read += part->n;
	ask_links(v, part->chunk, part->from, part->from + part->n);
	dv_verify_ask_files(v, part->chunk, part->from, part->n);
	dv_verify_ask_images(v, part->chunk, part->from, part->n);
	dv_verify_ask_twins(v, part->chunk, part->from, part->n);
	if (v->resend != NULL)
		dv_resend_send(v, part->chunk, part->from, part->n);
	if (v->rebuild != NULL)
		dv_rebuild_range(v, part->chunk, part->from, part->n);
	release_part(part);
}

/* Keep as many queries in flight as the service's pace allows. */
static void
fill(DvVerify *v)
{
	while (!(v->rows_done && v->gone_done) && v->read_after <= GetCurrentTimestamp() && dv_asker_has_room(&v->asker))
	{
		DvVerifyChunk *chunk = dv_verify_read(v);

		if (chunk == NULL)
			continue;
		chunk->asks = 1;
		dv_verify_judge_without_id(v, chunk);
		if (v->rebuild != NULL && chunk->n > chunk->nids)
			dv_rebuild_range(v, chunk, chunk->nids, chunk->n - chunk->nids);
		if (chunk->nids > 0)
			dv_verify_ask(v, chunk, 0, chunk->nids);
		dv_verify_release(chunk);
		dv_worker_look(v->rc);
		dv_asker_send(&v->asker);
	}
}

static void
verify_table(DvVerify *v)
{
	MemoryContext scratch = AllocSetContextCreate(v->context, "dvmig verify loop", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);

	while (!v->rc->stopping)
	{
		bool		waits;

		MemoryContextReset(scratch);
		fill(v);
		waits = dv_asker_turn(&v->asker);
		dv_verify_flush(v);
		if (!waits && v->rows_done && v->gone_done)
			break;
		if (!waits && v->read_after > GetCurrentTimestamp())
			dv_asker_pause();
	}
	dv_users_abandon(v->asker.users);	/* where it was stopped */
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}

/* As many ids as a URL holds beside the columns. */
static int
rows_per_read(const DvVerify *v)
{
	size_t		fixed = strlen(dv_session_api_url(v->rc->session)) + strlen(v->select) + strlen(v->expand) + 300;

	return fixed >= URL_MAX ? ROWS_MIN : Max(ROWS_MIN, Min(ROWS_MAX, (int) ((URL_MAX - fixed) / ID_CHARS)));
}

static void
run_table(DvRunContext *rc, const DvStepPlan *plan)
{
	MemoryContext context = AllocSetContextCreate(rc->context, "dvmig verify", ALLOCSET_DEFAULT_SIZES);
	DvVerify   *v = MemoryContextAllocZero(context, sizeof(DvVerify));

	v->rc = rc;
	v->plan = *plan;
	v->context = context;
	dv_walk_init(&v->walk, context);
	v->difference_context = AllocSetContextCreate(context, "dvmig differences", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	dv_verify_begin_table(v);
	if (strcmp(rc->kind, "resend") == 0)
		dv_resend_begin(v);
	else if (strcmp(rc->kind, "rebuild") == 0)
		dv_rebuild_begin(v);
	dv_verify_load(v);
	dv_asker_init(&v->asker, rc, handle_answer, v);
	v->asker.too_long = ask_for_less;
	v->rows_per_read = rows_per_read(v);
	verify_table(v);
	dv_verify_settle_defaults(v);
	dv_verify_settle_images(v);
	dv_verify_flush(v);
	dv_verify_free_plans(v);
	if (v->resend != NULL)
		dv_resend_end(v);
	else if (v->rebuild != NULL)
		dv_rebuild_end(v);
	else if (!rc->stopping)
		dv_verify_end_table(v);
	if (v->resend != NULL || v->rebuild != NULL)
		dv_job_account(rc, &v->plan);
	MemoryContextSwitchTo(rc->context);
	MemoryContextDelete(context);
}

void
dv_verify_run(DvRunContext *rc)
{
	DvStepPlan	plan;

	while (!rc->stopping && dv_runstate_next_step(rc, &plan))
		run_table(rc, &plan);
}

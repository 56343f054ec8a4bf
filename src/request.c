/*
 * request.c - a task as the request that it is sent with
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/memutils.h"

#include "request.h"

/* Rows without an id are looked for one by one, by their alternate key. */
bool
dv_engine_finds_each(const DvTask *task)
{
	int			i;

	for (i = 0; i < task->n; i++)
		if (task->rows[i]->wire.id[0] == '\0')
			return true;
	return false;
}

void
dv_request_boundary(char boundary[DV_BOUNDARY_SIZE], char *content_type, size_t size)
{
	snprintf(boundary, DV_BOUNDARY_SIZE, "batch_%016llx%016llx",
			 (unsigned long long) pg_prng_uint64(&pg_global_prng_state),
			 (unsigned long long) pg_prng_uint64(&pg_global_prng_state));
	snprintf(content_type, size, "Content-Type: multipart/mixed; boundary=\"%s\"", boundary);
}

static void
free_body(void *arg)
{
	dv_buf_free(&((DvBatch *) arg)->body);
}

/*
 * The body of a whole batch has all that its rows have, should they be sent
 * again: memory is for one copy while it is on its way.
 */
static void
keep_body(DvTask *task, const size_t *content_at)
{
	DvBatch    *batch = task->rows[0]->batch;
	int			i;

	for (i = 0; i < task->n; i++)
		if (task->rows[i]->batch != batch)
			return;
	if (batch->content == NULL || task->n != batch->open_rows)
		return;
	for (i = 0; i < task->n; i++)
		task->rows[i]->wire.content = task->body.data + content_at[i];
	pfree(batch->content);
	batch->content = NULL;
	batch->body = task->body;
	batch->cleanup.func = free_body;
	batch->cleanup.arg = batch;
	MemoryContextRegisterResetCallback(batch->context, &batch->cleanup);
	task->body_kept = true;
}

/* CreateMultiple or UpdateMultiple; false when memory ran out. */
static bool
build_bulk(DvStep *step, DvTask *task, const DvWireRow **rows)
{
	size_t	   *content_at = palloc(sizeof(size_t) * task->n);

	strlcpy(task->content_type, "Content-Type: application/json; charset=utf-8", sizeof(task->content_type));
	if (!dv_wire_bulk(&task->path, &task->body, &step->projection->wire, rows, task->n, content_at))
		return false;
	keep_body(task, content_at);
	pfree(content_at);
	return true;
}

/* What reading before-images asks for. */
static void
image_table(const DvStep *step, DvWireTable *image)
{
	*image = step->projection->wire;
	image->also = step->projection->before_select;
	image->with_state = image->with_creator = false;
}

void
dv_request_build(DvStep *step, DvTask *task)
{
	const DvWireTable *table = &step->projection->wire;
	const DvWireRow **rows = palloc(sizeof(DvWireRow *) * task->n);
	DvWireTable image;
	char		boundary[DV_BOUNDARY_SIZE];
	bool		ok;
	int			i;

	for (i = 0; i < task->n; i++)
		rows[i] = &task->rows[i]->wire;
	dv_buf_reset(&task->path);
	if (task->body_kept)
		dv_buf_init(&task->body, 0);
	else
		dv_buf_reset(&task->body);
	task->body_kept = false;
	if (task->stage == DV_STAGE_IMAGE)
		image_table(step, &image);
	switch (task->stage)
	{
		case DV_STAGE_WRITE:
			ok = build_bulk(step, task, rows);
			break;
		case DV_STAGE_EACH:
			dv_request_boundary(boundary, task->content_type, sizeof(task->content_type));
			ok = dv_buf_puts(&task->path, "/$batch") &&
				dv_wire_batch(&task->body, table, boundary, rows, task->n);
			break;
		case DV_STAGE_IMAGE:
			ok = dv_wire_find(&task->path, &image, rows, task->n);
			break;
		default:
			if (dv_engine_finds_each(task))
			{
				dv_request_boundary(boundary, task->content_type, sizeof(task->content_type));
				ok = dv_buf_puts(&task->path, "/$batch") &&
					dv_wire_find_each(&task->body, table, boundary, rows, task->n);
			}
			else
				ok = dv_wire_find(&task->path, table, rows, task->n);
	}
	pfree(rows);
	if (!ok)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

int
dv_request_headers(const DvWireTable *table, const DvRow *row, const char **headers)
{
	const char *line = table->part_headers;
	const char *end;
	int			n = 0;

	for (; (end = strstr(line, "\r\n")) != NULL; line = end + 2)
		headers[n++] = pnstrdup(line, end - line);
	if (row->wire.caller[0] != '\0')
		headers[n++] = psprintf("%s: %s", table->caller_header, row->wire.caller);
	return n;
}

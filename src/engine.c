/*
 * engine.c - rows to requests: the loop of a step
 *
 * A step is one pass over one table. Its rows are in exactly one place at a
 * time: in a queued task, in a request, or among the outcomes to be recorded.
 * No transaction is open while the loop waits.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "before.h"
#include "count.h"
#include "encode.h"
#include "files.h"
#include "flags.h"
#include "gate.h"
#include "lanes.h"
#include "phase.h"
#include "request.h"
#include "runstate.h"
#include "settings.h"

/* Longest wait in one poll, so that stop requests and timers are seen. */
#define POLL_MS			100

/* Outcomes without a request (unchanged, faults) are recorded in such lots. */
#define RECORD_LOT		1000

/* Where lanes record side by side, outcomes of so many rows are gathered, but for so long at most: see gathers(). */
#define GATHER_ROWS		4000
#define GATHER_MS		100

/* Header lines of a request besides the common ones, and a NULL. */
#define HEADERS_MAX		(3 + DV_REQUEST_HEADERS_MAX)

/* Longest reading in one turn while answers may wait to be taken. */
#define READ_MS			500

/* Rows waiting in tasks before reading pauses: bounds memory in an outage. */
#define QUEUED_ROWS_MAX	20000

/* Why a run or job does not go on. */
#define LOCKED_OUT		"another session holds a lock on the staging table or its outcome tables"

void
dv_engine_init_step(DvStep *step, DvRunContext *rc, MemoryContext context)
{
	memset(step, 0, sizeof(DvStep));
	step->rc = rc;
	step->context = context;
	dv_walk_init(&step->walk, context);
	step->range_context = AllocSetContextCreate(context, "dvmig range", ALLOCSET_SMALL_SIZES);
	step->window_context = AllocSetContextCreate(context, "dvmig window", ALLOCSET_SMALL_SIZES);
	step->outcome_context = AllocSetContextCreate(context, "dvmig outcomes", ALLOCSET_DEFAULT_SIZES);
	dlist_init(&step->queue);
	/* without a run: rows are encoded, not sent */
	if (rc == NULL)
		return;
	step->pace = &rc->lanes->shared->pace;
	step->sets = rc->lanes->sets;
}

void
dv_engine_release_row(DvStep *step, DvRow *row)
{
	DvBatch    *batch = row->batch;

	/* A row that was never sent must not free the id of one that is. */
	if (row->busy)
		dv_sets_leave_busy(step->sets, &row->handle);
	if (--batch->open_rows == 0)
		MemoryContextDelete(batch->context);
}

void
dv_engine_set_id(DvRow *row, const char *id)
{
	strlcpy(row->wire.id, id, sizeof(row->wire.id));
	row->uuid = *DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(id)));
}

void
dv_engine_fail_run(DvRunContext *rc, const char *message)
{
	if (!rc->failed)
		rc->message = MemoryContextStrdup(rc->context, message);
	rc->failed = true;
	rc->stopping = true;
}

void
dv_engine_locked_out(DvRunContext *rc)
{
	strlcpy(rc->waiting, LOCKED_OUT, sizeof(rc->waiting));
}

void
dv_engine_lock_gone(DvRunContext *rc)
{
	if (strcmp(rc->waiting, LOCKED_OUT) == 0)
		rc->waiting[0] = '\0';
}

static void
free_task(DvTask *task)
{
	dv_buf_free(&task->path);
	if (!task->body_kept)
		dv_buf_free(&task->body);
	pfree(task->rows);
	pfree(task);
}

static void
queue_task(DvStep *step, DvStage stage, DvRow **rows, int n, TimestampTz not_before, int attempts)
{
	DvTask	   *task = MemoryContextAllocZero(step->context, sizeof(DvTask));

	task->stage = stage;
	task->rows = MemoryContextAlloc(step->context, sizeof(DvRow *) * n);
	memcpy(task->rows, rows, sizeof(DvRow *) * n);
	task->n = n;
	task->not_before = not_before;
	task->attempts = attempts;
	dv_buf_init(&task->path, 0);
	dv_buf_init(&task->body, 0);
	dlist_push_tail(&step->queue, &task->node);
	step->queued_rows += n;
}

void
dv_engine_queue(DvStep *step, DvStage stage, DvRow **rows, int n, TimestampTz not_before, int attempts)
{
	int			chunk = stage == DV_STAGE_IMAGE ? DV_IMAGE_ROWS : stage == DV_STAGE_EACH || (stage == DV_STAGE_FIND && step->nkey_columns > 0)
		? step->pace->each_rows : stage == DV_STAGE_FIND ? DV_WIRE_FIND_MAX : n;
	int			i;

	for (i = 0; i < n; i += chunk)
		queue_task(step, stage, rows + i, Min(chunk, n - i), not_before, attempts);
}

void
dv_engine_queue_halves(DvStep *step, const DvTask *task, int attempts)
{
	int			half = task->n / 2;

	dv_engine_queue(step, task->stage, task->rows, half, 0, attempts);
	dv_engine_queue(step, task->stage, task->rows + half, task->n - half, 0, attempts);
}

/*
 * A bulk message is sent as one user: a request for the rows of each, in their
 * order. Users with a single row share a $batch, whose parts name them.
 */
static void
queue_by_caller(DvStep *step, DvRow **rows, int n)
{
	DvRow	  **group = palloc(sizeof(DvRow *) * n);
	DvRow	  **single = palloc(sizeof(DvRow *) * n);
	int			nsingle = 0;
	int			i;
	int			j;

	for (i = 0; i < n; i++)
	{
		int			count = 0;

		for (j = i; j < n; j++)
			if (rows[j] != NULL && (j == i || strcmp(rows[j]->wire.caller, group[0]->wire.caller) == 0))
			{
				group[count++] = rows[j];
				rows[j] = NULL;
			}
			else if (j == i)
				break;
		if (count == 1)
			single[nsingle++] = group[0];
		else if (count > 1)
			dv_engine_queue(step, DV_STAGE_WRITE, group, count, 0, 0);
	}
	dv_engine_queue(step, DV_STAGE_EACH, single, nsingle, 0, 0);
	pfree(group);
	pfree(single);
}

/* The message stands until an answer comes. */
TimestampTz
dv_engine_hold_until(DvStep *step)
{
	if (step->forgotten_until <= GetCurrentTimestamp())
		return 0;
	strlcpy(step->rc->waiting, "requests of an earlier run may still be carried out, see dvmig.settle_time", sizeof(step->rc->waiting));
	return step->forgotten_until;
}

/* A create is none the worse: the later of two is refused. A link may have been on its way out. */
static TimestampTz
hold_until(DvStep *step, char op)
{
	return op == 'I' && step->projection->link == NULL ? 0 : dv_engine_hold_until(step);
}

void
dv_engine_doubt(DvStep *step)
{
	step->doubtful_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), dv_settle_time_ms);
}

/* Is there something that may still be carried out, before the lap may end? */
static bool
is_in_doubt(DvStep *step)
{
	bool		doubtful = step->doubtful_until > GetCurrentTimestamp();

	if (doubtful && step->rc->stopping)
		step->unsettled = true;
	else if (doubtful)
		strlcpy(step->rc->waiting, "requests without an answer may still be carried out, see dvmig.settle_time", sizeof(step->rc->waiting));
	return doubtful && !step->rc->stopping;
}

bool
dv_engine_only_reads(DvStage stage)
{
	return stage == DV_STAGE_FIND || stage == DV_STAGE_IMAGE;
}

/* Rows of one operation that need no look first; some are read before they are updated. */
static void
queue_op(DvStep *step, DvRow **rows, int n, char op)
{
	bool		bulk = step->projection->closing || step->projection->link != NULL ? false : op == 'I' ? step->projection->create_multiple :
		op == 'U' ? step->projection->update_multiple : false;
	DvRow	  **some = palloc(sizeof(DvRow *) * (n + 1));
	DvRow	  **image = palloc(sizeof(DvRow *) * (n + 1));
	int			count = 0;
	int			nimage = 0;
	int			i;

	for (i = 0; i < n; i++)
		if (rows[i]->wire.op == op && !rows[i]->verify && dv_before_wants(step, rows[i]))
			image[nimage++] = rows[i];
		else if (rows[i]->wire.op == op && !rows[i]->verify && rows[i]->wire.reopen != NULL)
			dv_engine_queue(step, DV_STAGE_EACH, &rows[i], 1, 0, 0);
		else if (rows[i]->wire.op == op && !rows[i]->verify)
			some[count++] = rows[i];
	if (count > 0 && bulk && step->projection->wire.caller_header != NULL)
		queue_by_caller(step, some, count);
	else if (count > 0)
		dv_engine_queue(step, bulk ? DV_STAGE_WRITE : DV_STAGE_EACH, some, count,
						op == 'D' || step->projection->link != NULL ? hold_until(step, op) : 0, 0);
	dv_engine_queue(step, DV_STAGE_IMAGE, image, nimage, 0, 0);
	pfree(some);
	pfree(image);
}

/* Rows of one operation that are looked for first. */
static void
queue_look(DvStep *step, DvRow **rows, int n, char op)
{
	DvRow	  **look = palloc(sizeof(DvRow *) * (n + 1));
	int			count = 0;
	int			i;

	for (i = 0; i < n; i++)
		if (rows[i]->verify && rows[i]->wire.op == op)
			look[count++] = rows[i];
	if (count > 0)
		dv_engine_queue(step, DV_STAGE_FIND, look, count, hold_until(step, op), 0);
	pfree(look);
}

void
dv_engine_queue_new(DvStep *step, DvRow **rows, int n)
{
	static const char ops[] = "IUD";
	const char *op;

	for (op = ops; *op != '\0'; op++)
	{
		queue_look(step, rows, n, *op);
		queue_op(step, rows, n, *op);
	}
}

/* The first task whose time has come. */
static DvTask *
ready_task(DvStep *step, TimestampTz now)
{
	dlist_iter	iter;

	dlist_foreach(iter, &step->queue)
	{
		DvTask	   *task = dlist_container(DvTask, node, iter.cur);

		if (task->not_before <= now)
			return task;
	}
	return NULL;
}

/* False where the last place was taken by another lane of our user. */
static bool
send_task(DvStep *step, DvTask *task)
{
	const char *headers[HEADERS_MAX] = {NULL};
	int			i;

	if (!dv_gate_enter(step, dv_engine_only_reads(task->stage) ? 0 : task->n, GetCurrentTimestamp()))
		return false;
	dv_phase(DV_PHASE_ENCODE);
	dv_request_build(step, task);
	if (task->body.len > 0)
		headers[0] = task->content_type;
	if (strcmp(task->path.data, "/$batch") == 0)
		headers[1] = "Prefer: odata.continue-on-error";
	else if (task->stage == DV_STAGE_IMAGE)
		headers[0] = DV_WIRE_PREFER_LOOKUP_TABLES;
	else if (task->stage == DV_STAGE_WRITE)
		(void) dv_request_headers(&step->projection->wire, task->rows[0], headers + 1);
	dlist_delete(&task->node);
	step->queued_rows -= task->n;
	task->sent_at = GetCurrentTimestamp();
	for (i = 0; i < task->n && !dv_engine_only_reads(task->stage); i++)
	{
		task->rows[i]->sent_at = task->sent_at;
		task->rows[i]->attempts++;
	}
	step->in_flight++;
	step->counters.requests++;
	step->counters.bytes_sent += task->body.len;
	if (!dv_engine_only_reads(task->stage))
		step->counters.rows_sent += task->n;
	dv_session_send(step->rc->session, task->body.len > 0 ? "POST" : "GET",
					task->path.data, task->body.data, task->body.len, headers, task);
	dv_phase(DV_PHASE_OTHER);
	return true;
}

/* Rows the next read may take: a run can be limited to so many of each table. */
static int
read_limit(DvStep *step)
{
	int64		left = step->rc->max_rows - step->counters.rows_read;
	int			rows = dv_gate_bulk_rows(step);

	/* a limited run has one lane */
	if (step->rc->max_rows == 0 || strcmp(step->projection->pass, "deferred") == 0)
		return rows;
	return (int) Max(0, Min(left, rows));
}

/*
 * Are outcomes of replies kept for a moment, to be recorded with those of others?
 * Other lanes have snapshots for some milliseconds at a time, which keep a lot's
 * pages from being pruned for the next lot: there must be others in between
 * (stripes.c). What failed is not kept: it may end the run.
 */
static bool
gathers(const DvStep *step)
{
	return step->stripes.pause == 0 && !step->failure_waits && dv_lanes_count(step->rc->lanes) > 1 &&
		!TimestampDifferenceExceeds(step->answered_at, GetCurrentTimestamp(), GATHER_MS);
}

/* Is it time to record what there is? What reads alone have judged waits until it is a lot. */
static bool
is_due(const DvStep *step)
{
	if (step->noutcomes >= GATHER_ROWS)
		return true;
	return step->answered_at != 0 ? !gathers(step) : step->noutcomes >= RECORD_LOT;
}

/* Keep as many requests in flight as the service's pace allows. */
static void
fill(DvStep *step)
{
	DvRunContext *rc = step->rc;
	TimestampTz began = GetCurrentTimestamp();
	TimestampTz now;

	while (now = GetCurrentTimestamp(), !rc->stopping && dv_gate_is_open(step, now))
	{
		DvTask	   *task = ready_task(step, now);
		DvRow	  **rows;
		int			n;

		if (task != NULL)
		{
			/* while rows were read an answer may have come that tells us to wait */
			if (dv_session_is_throttled(step->rc->session) || !send_task(step, task))
				break;
		}
		else if (step->lap_done || step->queued_rows > QUEUED_ROWS_MAX || step->read_after > now ||
				 dv_sets_full(step->sets) || !dv_range_ready(step))
		{
			dv_gate_not_hungry(step);
			break;
		}
		else if (read_limit(step) == 0)
			step->lap_done = true;
		else
		{
			rows = dv_source_read(step, read_limit(step), &n);
			if (n > 0 && step->projection->nfiles > 0)
				dv_files_send(step, rows, n);
			else if (n > 0)
				dv_engine_queue_new(step, rows, n);
			if (is_due(step))
				dv_outcome_record(step);
			dv_worker_tick(step);
			if (step->in_flight > 0 && TimestampDifferenceExceeds(began, GetCurrentTimestamp(), READ_MS))
				break;
		}
	}
}

/* Does it have rows of which it is not known whether they were written? */
static bool
is_doubtful(const DvTask *task)
{
	int			i;

	for (i = 0; i < task->n; i++)
		if (task->rows[i]->unknown_since != 0 || task->rows[i]->written || task->rows[i]->doubt != NULL)
			return true;
	return false;
}

void
dv_engine_give_back(DvStep *step)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &step->queue)
	{
		DvTask	   *task = dlist_container(DvTask, node, iter.cur);
		int			i;

		if (is_doubtful(task))
			continue;
		dlist_delete(&task->node);
		for (i = 0; i < task->n; i++)
		{
			dv_source_unanswer(step, task->rows[i]);
			step->counters.rows_read--;
			dv_engine_release_row(step, task->rows[i]);
		}
		step->queued_rows -= task->n;
		free_task(task);
	}
}

/* When stopping: what is not in flight will not be sent. */
static void
drop_queue(DvStep *step)
{
	while (!dlist_is_empty(&step->queue))
	{
		DvTask	   *task = dlist_container(DvTask, node, dlist_pop_head_node(&step->queue));
		int			i;

		for (i = 0; i < task->n; i++)
		{
			step->unsettled |= task->rows[i]->unknown_since != 0;
			dv_engine_release_row(step, task->rows[i]);
		}
		step->queued_rows -= task->n;
		free_task(task);
	}
}

bool
dv_engine_stop_overdue(const DvRunContext *rc)
{
	return rc->stop_by != 0 && GetCurrentTimestamp() >= rc->stop_by;
}

void
dv_engine_abandon(DvStep *step)
{
	DvRunContext *rc = step->rc;

	if (rc->message == NULL)
		rc->message = MemoryContextStrdup(rc->context, "some requests had no answer within dvmig.stop_timeout; the next run asks which of their rows arrived");
	dv_session_abandon(rc->session);
	dv_gate_leave_all(step);
	step->in_flight = 0;
	step->unsettled = true;
}

/* The run stops: nothing more is sent, and answers are waited for so long and no longer. */
static void
wind_up(DvStep *step)
{
	drop_queue(step);
	if (step->in_flight > 0 && dv_engine_stop_overdue(step->rc))
		dv_engine_abandon(step);
}

static void
take_reply(DvStep *step, DvTask *task, DvHttpReply *reply)
{
	step->in_flight--;
	dv_gate_leave(step);
	dv_answer_handle(step, task, reply);
	if (step->answered_at == 0 && step->noutcomes > 0)
		step->answered_at = GetCurrentTimestamp();
	free_task(task);
	dv_http_reply_free(reply);
}

/*
 * One lap over the table: until all it took has a verdict. What a turn of the
 * loop allocates in the current context is given back at its end; all that
 * lives longer is in the step's context or a batch's.
 */
static void
run_lap(DvStep *step)
{
	for (;;)
	{
		DvHttpReply *reply;
		void	   *owner;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(CurrentMemoryContext);
		dv_worker_tick(step);
		fill(step);
		if (step->rc->stopping)
			wind_up(step);
		if (step->in_flight == 0 || is_due(step))
			dv_outcome_record(step);
		if (step->in_flight == 0 && dlist_is_empty(&step->queue) &&
			(step->lap_done || step->rc->stopping) && !is_in_doubt(step))
			break;
		dv_phase(step->held ? DV_PHASE_HOLD : DV_PHASE_WAIT);
		reply = dv_session_poll(step->rc->session, POLL_MS, &owner);
		dv_phase(DV_PHASE_OTHER);
		if (reply == NULL)
			continue;
		take_reply(step, owner, reply);
		if (is_due(step))
			dv_outcome_record(step);
	}
}

void
dv_engine_run_step(DvStep *step)
{
	MemoryContext scratch = AllocSetContextCreate(step->context, "dvmig loop", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	bool		another = !step->empty;
	int			laps = 0;

	while (another)
	{
		/* the first may have begun when its rows were counted */
		if (step->lap == laps)
			dv_lanes_begin_lap(step);
		laps++;
		dv_source_rewind(step);
		run_lap(step);
		another = dv_lanes_end_lap(step);
		dv_flags_retry(step);
		if (step->error != NULL)
			ReThrowError(step->error);
		another = another && !step->rc->stopping && dv_count_has_rows(step);
	}
	dv_budget_check(step, true);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}

void
dv_engine_help_step(DvStep *step)
{
	MemoryContext scratch = AllocSetContextCreate(step->context, "dvmig loop", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);

	while (dv_lanes_join_lap(step))
	{
		dv_source_rewind(step);
		run_lap(step);
		dv_lanes_leave_lap(step);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}

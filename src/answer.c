/*
 * answer.c - what a reply means for the rows of its task
 *
 * Here the rules of DESIGN "nothing twice" are applied: an unknown outcome is
 * settled by reading ids back, a "duplicate" is believed only when our id is
 * absent, and a refused batch is taken apart, never judged as a whole.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/datetime.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "engine.h"
#include "settings.h"

/* Tries of one row that keeps failing for a passing reason while others pass. */
#define ROW_TRIES		8

/* Tries of one row that alone takes too long. */
#define SLOW_TRIES		3

/* Clocks of the service and of this machine may differ by this much. */
#define CLOCK_SKEW_S	5

/* Rows of one task by what becomes of them next. */
typedef struct Sorted
{
	DvRow	  **find;
	int			nfind;
	DvRow	  **again;
	int			nagain;
	DvRow	  **isolate;
	int			nisolate;
	TimestampTz again_at;
	TimestampTz find_at;
} Sorted;

static TimestampTz
later_ms(long ms)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
}

static TimestampTz
backoff(int attempt)
{
	return later_ms(dv_pace_backoff_ms(attempt > 0 ? attempt : 1, pg_prng_uint32(&pg_global_prng_state)));
}

static void
note_outage(DvStep *step, const char *why)
{
	DvRunContext *rc = step->rc;

	dv_pace_trouble(&rc->pace, GetCurrentTimestamp());
	strlcpy(rc->waiting, why, sizeof(rc->waiting));
	if (TimestampDifferenceExceeds(rc->last_good, GetCurrentTimestamp(), dv_max_outage_s * 1000))
		dv_engine_fail_run(step, psprintf("the service did not answer for longer than dvmig.max_outage: %s", why));
}

static void
note_good(DvStep *step, const DvHttpReply *reply)
{
	step->rc->last_good = GetCurrentTimestamp();
	step->rc->waiting[0] = '\0';
	dv_pace_good(&step->rc->pace, reply->dop_hint);
}

static void
note_throttled(DvStep *step, const DvVerdict *v, int attempt)
{
	long		ms = v->retry_after_ms;

	step->rc->last_good = GetCurrentTimestamp();
	step->counters.throttled++;
	step->counters.throttled_ms += ms > 0 ? ms : 0;
	dv_pace_throttled(&step->rc->pace, ms, attempt, GetCurrentTimestamp());
}

static void
fail_run(DvStep *step, const DvHttpReply *reply, const DvVerdict *v)
{
	DvProblem	problem;

	memset(&problem, 0, sizeof(problem));
	dv_session_explain(step->rc->session, reply, &problem);
	dv_engine_fail_run(step, problem.message[0] ? psprintf("%s%s%s", problem.message, problem.detail[0] ? ": " : "", problem.detail) : v->message);
}

static void
sorted_init(Sorted *s, int n)
{
	memset(s, 0, sizeof(Sorted));
	s->find = palloc(sizeof(DvRow *) * n);
	s->again = palloc(sizeof(DvRow *) * n);
	s->isolate = palloc(sizeof(DvRow *) * n);
}

static void
sorted_queue(DvStep *step, const DvTask *task, Sorted *s)
{
	dv_engine_queue(step, DV_STAGE_FIND, s->find, s->nfind, s->find_at, 0);
	dv_engine_queue(step, task->stage, s->again, s->nagain, s->again_at, task->attempts + 1);
	dv_engine_queue(step, DV_STAGE_EACH, s->isolate, s->nisolate, 0, 0);
}

/* The request may or may not have been carried out. */
static void
put_in_doubt(Sorted *s, DvRow *row)
{
	if (row->unknown_since == 0)
		row->unknown_since = GetCurrentTimestamp();
	s->find[s->nfind++] = row;
}

/* The row is given back without a verdict: it stays unprocessed. */
static void
leave_row(DvStep *step, DvRow *row)
{
	step->unsettled |= row->unknown_since != 0;
	dv_engine_release_row(step, row);
}

/* A "duplicate" answer to a create: look for our id before believing it. */
static void
doubt(DvRow *row, const DvVerdict *v, Sorted *s)
{
	if (row->doubt == NULL)
		row->doubt = MemoryContextAlloc(row->batch->context, sizeof(DvVerdict));
	*row->doubt = *v;
	s->find[s->nfind++] = row;
}

/* The verdict on one row alone. */
static void
judge_row(DvStep *step, DvTask *task, DvRow *row, const DvVerdict *v, const DvHttpReply *reply, Sorted *s)
{
	switch (v->kind)
	{
		case DV_DONE:
			if (row->wire.id[0] == '\0')
			{
				/* Created, but not said for sure under which id: read by key. */
				row->written = true;
				put_in_doubt(s, row);
				break;
			}
			dv_outcome_success(step, row, row->unknown_since ? "sent again after an unanswered request" : NULL);
			break;
		case DV_SETTLE:
			put_in_doubt(s, row);
			break;
		case DV_EXISTS:
			if (row->wire.op == 'I')
				doubt(row, v, s);
			else
				dv_outcome_failure(step, row, v);
			break;
		case DV_WAIT:
			note_throttled(step, v, task->attempts);
			s->again[s->nagain++] = row;
			break;
		case DV_RETRY:
		case DV_SHRINK:
			if (row->attempts < (v->kind == DV_RETRY ? ROW_TRIES : SLOW_TRIES))
			{
				s->again[s->nagain++] = row;
				s->again_at = backoff(row->attempts);
			}
			else
				dv_outcome_failure(step, row, v);
			break;
		case DV_FAIL_RUN:
			fail_run(step, reply, v);
			leave_row(step, row);
			break;
		case DV_PARK:
		case DV_GONE:
		case DV_FAIL_ROW:
			dv_outcome_failure(step, row, v);
			break;
	}
}

/* The verdict on a request as a whole: nothing of it was written, or all. */
static void
judge_request(DvStep *step, DvTask *task, const DvVerdict *v, const DvHttpReply *reply, Sorted *s)
{
	int			i;

	switch (v->kind)
	{
		case DV_DONE:
		case DV_SETTLE:
			for (i = 0; i < task->n; i++)
				judge_row(step, task, task->rows[i], v, reply, s);
			break;
		case DV_WAIT:
			note_throttled(step, v, task->attempts);
			memcpy(s->again, task->rows, sizeof(DvRow *) * task->n);
			s->nagain = task->n;
			break;
		case DV_RETRY:
			dv_pace_trouble(&step->rc->pace, GetCurrentTimestamp());
			if (task->attempts >= ROW_TRIES)
				goto isolate;
			memcpy(s->again, task->rows, sizeof(DvRow *) * task->n);
			s->nagain = task->n;
			s->again_at = backoff(task->attempts + 1);
			break;
		case DV_SHRINK:
			if (task->stage == DV_STAGE_WRITE)
				dv_pace_table_shrink(&step->pace, task->n);
			dv_engine_queue(step, task->stage, task->rows, task->n / 2, 0, task->attempts + 1);
			dv_engine_queue(step, task->stage, task->rows + task->n / 2, task->n - task->n / 2, 0, task->attempts + 1);
			break;
		case DV_FAIL_RUN:
			fail_run(step, reply, v);
			for (i = 0; i < task->n; i++)
				leave_row(step, task->rows[i]);
			break;
		case DV_EXISTS:
		case DV_PARK:
		case DV_GONE:
		case DV_FAIL_ROW:
			dv_pace_table_refused(&step->pace);
	isolate:
			memcpy(s->isolate, task->rows, sizeof(DvRow *) * task->n);
			s->nisolate = task->n;
			break;
	}
}

static DvWireReply
wire_reply(const DvHttpReply *reply)
{
	DvWireReply w = {
		.status = (int) reply->status,
		.content_type = reply->content_type[0] ? reply->content_type : NULL,
		.request_id = reply->request_id[0] ? reply->request_id : NULL,
		.retry_after_ms = reply->retry_after_ms,
		.body = reply->body.data ? reply->body.data : "",
		.len = reply->body.len
	};

	return w;
}

static const DvWireRow **
wire_rows(const DvTask *task)
{
	const DvWireRow **rows = palloc(sizeof(DvWireRow *) * task->n);
	int			i;

	for (i = 0; i < task->n; i++)
		rows[i] = &task->rows[i]->wire;
	return rows;
}

/* A $batch that came back without parts. */
static bool
refused_as_a_whole(const DvHttpReply *reply)
{
	return reply->status >= 400 && pg_strncasecmp(reply->content_type, "multipart/", 10) != 0;
}

static void
handle_write(DvStep *step, DvTask *task, const DvHttpReply *reply, Sorted *s)
{
	DvWireReply w = wire_reply(reply);
	DvVerdict  *v = palloc0(sizeof(DvVerdict) * task->n);
	char		(*ids)[37] = palloc0(37 * task->n);
	int			i;

	if (task->stage == DV_STAGE_WRITE)
		dv_wire_bulk_reply(&w, wire_rows(task), task->n, v, ids);
	else
		dv_wire_batch_reply(&w, wire_rows(task), task->n, v, ids);

	/* The order of the ids of a bulk message is not documented: with one row it is. */
	for (i = 0; i < task->n && (task->stage == DV_STAGE_EACH || task->n == 1); i++)
		if (v[i].kind == DV_DONE && ids[i][0] != '\0' && task->rows[i]->wire.id[0] == '\0')
			dv_engine_set_id(task->rows[i], ids[i]);

	if (task->stage == DV_STAGE_WRITE && task->n > 1)
	{
		if (v[0].kind == DV_DONE)
			dv_pace_table_bulk(&step->pace, task->n, reply->seconds);
		judge_request(step, task, &v[0], reply, s);
	}
	else
	{
		if (task->stage == DV_STAGE_EACH && reply->status == 200)
			dv_pace_table_each(&step->pace, task->n, reply->seconds);
		if (task->n > 1 && refused_as_a_whole(reply))
		{
			/* Nothing was said of single rows: take the request apart. */
			if (v[0].kind == DV_FAIL_ROW || v[0].kind == DV_GONE || v[0].kind == DV_EXISTS)
				v[0].kind = DV_SHRINK;
			judge_request(step, task, &v[0], reply, s);
		}
		else
			for (i = 0; i < task->n; i++)
				judge_row(step, task, task->rows[i], &v[i], reply, s);
	}
	if (v[0].kind == DV_SETTLE)
		note_outage(step, v[0].message[0] ? v[0].message : "the answer was not understood");
	else if (v[0].kind != DV_WAIT && v[0].kind != DV_RETRY)
		note_good(step, reply);
}

/* "2026-05-04T03:02:01Z" as a timestamp; 0 where it is not one. */
static TimestampTz
parse_instant(const char *text)
{
	int			y, mo, d, h, mi, sec;

	if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d", &y, &mo, &d, &h, &mi, &sec) != 6 || !IS_VALID_JULIAN(y, mo, d))
		return 0;
	return (((int64) (date2j(y, mo, d) - POSTGRES_EPOCH_JDATE) * SECS_PER_DAY) +
			h * SECS_PER_HOUR + mi * SECS_PER_MINUTE + sec) * USECS_PER_SEC;
}

static bool
is_ours(const DvStep *step, const DvWireFound *found)
{
	return pg_strcasecmp(found->modified_by, step->rc->user_id) == 0;
}

static DvVerdict *
own_verdict(const char *error_class, const char *message)
{
	DvVerdict  *v = palloc0(sizeof(DvVerdict));

	v->kind = DV_FAIL_ROW;
	strlcpy(v->error_class, error_class, sizeof(v->error_class));
	strlcpy(v->code, error_class, sizeof(v->code));
	strlcpy(v->message, message, sizeof(v->message));
	return v;
}

/* A record with our id is there, and its content is not known to be ours. */
static void
record_exists(DvStep *step, DvRow *row, const DvWireFound *found)
{
	const char *on_exists = step->projection->on_exists;

	row->wire.op = 'U';			/* not created by this run: undo must not delete it */
	row->has_hash = false;
	if (strcmp(on_exists, "error") == 0)
		dv_outcome_failure(step, row, own_verdict("exists", "a record with this id exists already"));
	else if (strcmp(on_exists, "keep") == 0)
		dv_outcome_success(step, row, "kept: the record existed already");
	else if (!is_ours(step, found))
		dv_outcome_success(step, row, "kept: the record was modified in Dataverse by another user");
	else
	{
		/* The next lap reads the row again and sends it as an update. */
		DvKnown    *known = hash_search(step->known_ids, &row->handle, HASH_ENTER, NULL);

		known->id = row->uuid;
		dv_engine_release_row(step, row);
	}
}

/* A create whose id was looked for and not found. */
static void
create_missing(DvStep *step, DvRow *row, Sorted *s, TimestampTz *wait_until)
{
	TimestampTz settled = TimestampTzPlusMilliseconds(row->unknown_since, dv_settle_time_ms);

	if (row->doubt != NULL)
	{
		DvVerdict	v = *row->doubt;

		dv_outcome_failure(step, row, &v);
	}
	else if (row->unknown_since != 0 && GetCurrentTimestamp() < settled)
	{
		/* An unanswered request may still commit. */
		s->find[s->nfind++] = row;
		if (settled > *wait_until)
			*wait_until = settled;
	}
	else
	{
		s->again[s->nagain++] = row;
	}
}

/*
 * An update whose outcome is not known, to this run or after one that did not
 * end cleanly: send it again unless somebody wrote since it may have been done.
 */
static void
settle_update(DvStep *step, DvRow *row, const DvWireFound *found, Sorted *s)
{
	TimestampTz modified = parse_instant(found->modified_on);
	TimestampTz doubtful = row->unknown_since != 0 ? row->sent_at : step->forgotten_since;

	if (!found->found)
		dv_outcome_failure(step, row, own_verdict("gone", "the record does not exist in Dataverse"));
	else if (doubtful != 0 && !is_ours(step, found) && modified != 0 &&
			 modified >= doubtful - (int64) CLOCK_SKEW_S * USECS_PER_SEC)
		dv_outcome_failure(step, row, own_verdict("changed",
												  "the record was modified by another user while the outcome of its update was unknown"));
	else
		s->again[s->nagain++] = row;
}

static void
judge_found(DvStep *step, DvRow *row, const DvWireFound *found, Sorted *s, TimestampTz *wait_until)
{
	row->verify = false;
	if (found->found && row->wire.id[0] == '\0')
		dv_engine_set_id(row, found->id);
	switch (row->wire.op)
	{
		case 'I':
			if (!found->found)
				create_missing(step, row, s, wait_until);
			else if (row->unknown_since != 0)
				dv_outcome_success(step, row, row->written ? NULL : "settled: found after an unanswered request");
			else
				record_exists(step, row, found);
			break;
		case 'U':
			settle_update(step, row, found, s);
			break;
		default:
			if (!found->found)
				dv_outcome_success(step, row, NULL);
			else
				s->again[s->nagain++] = row;
	}
}

/* Rows that go out again after a read-back; doubts are settled by then. */
static void
send_again(DvStep *step, Sorted *s)
{
	int			i;

	for (i = 0; i < s->nagain; i++)
		s->again[i]->doubt = NULL;
	dv_engine_queue_new(step, s->again, s->nagain);
	s->nagain = 0;
}

static void
handle_find(DvStep *step, DvTask *task, const DvHttpReply *reply, Sorted *s)
{
	DvWireReply w = wire_reply(reply);
	DvWireFound *found = palloc0(sizeof(DvWireFound) * task->n);
	DvVerdict	v;
	TimestampTz wait_until = 0;
	int			i;

	memset(&v, 0, sizeof(v));
	v.retry_after_ms = -1;
	switch (dv_engine_finds_each(task) ? dv_wire_find_each_reply(&w, task->n, found, &v)
			: dv_wire_find_reply(&w, wire_rows(task), task->n, found, &v))
	{
		case DV_DONE:
			note_good(step, reply);
			for (i = 0; i < task->n; i++)
				judge_found(step, task->rows[i], &found[i], s, &wait_until);
			s->find_at = wait_until;
			send_again(step, s);
			break;
		case DV_FAIL_RUN:
			fail_run(step, reply, &v);
			for (i = 0; i < task->n; i++)
				leave_row(step, task->rows[i]);
			break;
		case DV_WAIT:
			note_throttled(step, &v, task->attempts);
			dv_engine_queue(step, DV_STAGE_FIND, task->rows, task->n, 0, task->attempts + 1);
			break;
		default:
			note_outage(step, v.message[0] ? v.message : "reading ids back failed");
			dv_engine_queue(step, DV_STAGE_FIND, task->rows, task->n, backoff(task->attempts + 1), task->attempts + 1);
	}
}

/* No complete answer came. */
static void
handle_no_answer(DvStep *step, DvTask *task, const DvHttpReply *reply, Sorted *s)
{
	int			i;

	note_outage(step, reply->error[0] ? reply->error : "no answer");
	if (task->stage == DV_STAGE_FIND || reply->transport == DV_HTTP_NOT_SENT)
	{
		/* Reading, or never sent: the same again, later. */
		dv_engine_queue(step, task->stage, task->rows, task->n, backoff(task->attempts + 1), task->attempts + 1);
		return;
	}
	if (task->n > 1)
		dv_pace_table_shrink(&step->pace, step->pace.bulk_rows);
	for (i = 0; i < task->n; i++)
		put_in_doubt(s, task->rows[i]);
	s->find_at = backoff(1);
}

void
dv_answer_handle(DvStep *step, DvTask *task, const DvHttpReply *reply)
{
	Sorted		s;

	sorted_init(&s, task->n);
	if (reply->transport != DV_HTTP_ANSWERED)
		handle_no_answer(step, task, reply, &s);
	else if (task->stage == DV_STAGE_FIND)
		handle_find(step, task, reply, &s);
	else
		handle_write(step, task, reply, &s);
	sorted_queue(step, task, &s);
}

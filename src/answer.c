/*
 * answer.c - what a reply means for the rows of its task
 *
 * Here the rules of "nothing twice" (doc/internals.md) are applied: an unknown outcome is
 * settled by reading ids back, a "duplicate" is believed only when our id is
 * absent, and a refused batch is taken apart, never judged as a whole.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "answer.h"
#include "before.h"
#include "gate.h"
#include "links.h"
#include "problem.h"
#include "servertext.h"
#include "settings.h"
#include "states.h"

/* Tries of one row that keeps failing for a passing reason while others pass. */
#define ROW_TRIES		8

/* A request without an answer for so long was too large, whoever gave up: gateways do before we do. */
#define LONG_MS			60000

/* Tries of one row that alone takes too long. */
#define SLOW_TRIES		3

/*
 * Failures in a row, each of a request sent after the one before had failed,
 * after which the service is taken to be down: then one request at a time is a
 * probe, at intervals that grow to half a minute, and what waits to be sent
 * goes back to the table.
 */
#define OUTAGE_TRIES	4

static TimestampTz
later_ms(long ms)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
}

TimestampTz
dv_answer_backoff(int attempt)
{
	return later_ms(dv_pace_backoff_ms(attempt > 0 ? attempt : 1, pg_prng_uint32(&pg_global_prng_state)));
}

char *
dv_answer_told(const DvVerdict *v)
{
	return dv_server_text(v->message, strlen(v->message), "?");
}

void
dv_answer_outage(DvStep *step, TimestampTz sent_at, const char *why)
{
	DvRunContext *rc = step->rc;

	dv_gate_trouble(step);
	dv_server_text_cut(rc->waiting, sizeof(rc->waiting), why);
	if (rc->outage_since == 0)
		rc->outage_since = GetCurrentTimestamp();
	/* Requests that were on their way together tell of one failure. */
	if (sent_at >= rc->outage_counted)
	{
		rc->outages++;
		rc->outage_counted = GetCurrentTimestamp();
		if (rc->outages >= OUTAGE_TRIES)
			dv_gate_hold(step, dv_answer_backoff(rc->outages));
	}
	if (TimestampDifferenceExceeds(rc->outage_since, GetCurrentTimestamp(), dv_max_outage_s * 1000))
		dv_engine_fail_run(step->rc, psprintf("the service did not answer for longer than dvmig.max_outage: %s", why));
}

/* A service that answers reads but no writes is no good: see dv_answer_good(). */
static void
write_unanswered(DvStep *step, const DvTask *task, const char *why)
{
	step->rc->unanswered = true;
	dv_answer_outage(step, task->sent_at, why);
}

void
dv_answer_good(DvStep *step, const DvHttpReply *reply)
{
	if (step->rc->unanswered)
		return;
	step->rc->outage_since = 0;
	step->rc->outages = 0;
	step->rc->waiting[0] = '\0';
	dv_gate_good(step, reply);
}

void
dv_answer_throttled(DvStep *step, const DvVerdict *v, int attempt)
{
	DvThrottle	told = {
		.retry_after_ms = v->retry_after_ms,
		.attempt = attempt,
		.window = dv_verdict_window(v->message, strlen(v->message)),
		.at_once = pg_strcasecmp(v->code, DV_CODE_AT_ONCE) == 0
	};

	step->rc->outage_since = 0;
	step->counters.throttled++;
	dv_gate_throttled(step, &told);
}

void
dv_answer_fail_run(DvStep *step, const DvHttpReply *reply, const DvVerdict *v)
{
	DvProblem	problem;

	/* A part of a $batch says it; the answer around it is a success. */
	if (reply->status < 400)
	{
		dv_engine_fail_run(step->rc, strcmp(v->error_class, "privilege") == 0
						   ? psprintf("the application user lacks a privilege in Dataverse: %s", dv_answer_told(v)) : dv_answer_told(v));
		return;
	}
	memset(&problem, 0, sizeof(problem));
	dv_session_explain(step->rc->session, reply, &problem);
	dv_engine_fail_run(step->rc, problem.message[0] ? dv_problem_text(&problem) : dv_answer_told(v));
}

static void
sorted_init(DvSorted *s, int n)
{
	memset(s, 0, sizeof(DvSorted));
	s->find = palloc(sizeof(DvRow *) * n);
	s->again = palloc(sizeof(DvRow *) * n);
	s->isolate = palloc(sizeof(DvRow *) * n);
}

static void
sorted_queue(DvStep *step, const DvTask *task, DvSorted *s)
{
	int			i;
	int			n = 0;

	/* Before a record that was there before us: look again whose it is. */
	for (i = 0; i < s->nagain; i++)
		if (s->again[i]->existed && !dv_engine_only_reads(task->stage))
		{
			s->find[s->nfind++] = s->again[i];
			s->find_at = Max(s->find_at, s->again_at);
		}
		else
			s->again[n++] = s->again[i];
	s->nagain = n;
	dv_engine_queue(step, DV_STAGE_FIND, s->find, s->nfind, s->find_at, 0);
	dv_engine_queue(step, task->stage, s->again, s->nagain, s->again_at, task->attempts + 1);
	dv_engine_queue(step, DV_STAGE_EACH, s->isolate, s->nisolate, 0, 0);
}

/* The request may or may not have been carried out. */
static void
put_in_doubt(DvStep *step, DvSorted *s, DvRow *row)
{
	row->unknown_since = GetCurrentTimestamp();
	row->unknowns++;
	if (row->doubtful_since == 0)
		row->doubtful_since = row->sent_at;
	if (step->projection->link == NULL)
	{
		s->find[s->nfind++] = row;
		return;
	}
	dv_engine_doubt(step);
	if (dv_settle_may_try_again(step, row))
	{
		s->again[s->nagain++] = row;
		s->again_at = dv_answer_backoff(row->unknowns);
	}
}

/* The row is given back without a verdict: it stays unprocessed. */
void
dv_answer_leave_row(DvStep *step, DvRow *row)
{
	step->unsettled |= row->unknown_since != 0;
	dv_engine_release_row(step, row);
}

/* A "duplicate" answer to a create: look for our id before believing it. */
static void
doubt(DvRow *row, const DvVerdict *v, DvSorted *s)
{
	if (row->doubt == NULL)
		row->doubt = MemoryContextAlloc(row->batch->context, sizeof(DvVerdict));
	*row->doubt = *v;
	s->find[s->nfind++] = row;
}

/* Is it the user whom the row is written as that does not exist? */
static bool
misses_caller(const DvRow *row, const DvVerdict *v)
{
	const char *at = v->message;
	size_t		len = strlen(row->wire.caller);

	if (len == 0 || strcmp(v->code, "0x80040217") != 0)
		return false;
	for (; *at; at++)
		if (pg_strncasecmp(at, row->wire.caller, len) == 0)
			return true;
	return false;
}

/*
 * Refused because of the user whom the row is written as: not the run's fault.
 * That we may not write as others at all is.
 */
static bool
blames_caller(const DvRow *row, const DvVerdict *v)
{
	if (misses_caller(row, v))
		return true;
	return row->wire.caller[0] != '\0' && v->kind == DV_FAIL_RUN &&
		(strcmp(v->error_class, "privilege") == 0 || strcmp(v->code, "0x80040225") == 0) &&
		strstr(v->message, "prvActOnBehalfOfAnotherUser") == NULL && strstr(v->message, "prvBypass") == NULL &&
		strstr(v->message, "prvOverrideCreatedOnCreatedBy") == NULL;
}

static DvVerdict *
caller_verdict(const DvVerdict *v)
{
	DvVerdict  *of_row = palloc(sizeof(DvVerdict));

	*of_row = *v;
	of_row->kind = DV_FAIL_ROW;
	strlcpy(of_row->error_class, "caller", sizeof(of_row->error_class));
	return of_row;
}

/* The verdict on one row alone. */
static void
judge_row(DvStep *step, DvTask *task, DvRow *row, const DvVerdict *v, const DvHttpReply *reply, DvSorted *s)
{
	if (dv_links_settled(step, row, v))
		return;
	if (blames_caller(row, v))
	{
		dv_outcome_failure(step, row, caller_verdict(v));
		return;
	}
	switch (v->kind)
	{
		case DV_DONE:
			if (row->wire.id[0] == '\0' && step->projection->link == NULL)
			{
				/* Created, but not said for sure under which id: read by key. */
				row->written = true;
				put_in_doubt(step, s, row);
				break;
			}
			if (dv_states_go_on(row))
			{
				s->find[s->nfind++] = row;
				break;
			}
			dv_outcome_success(step, row, row->unknown_since ? "sent again after an unanswered request" : NULL);
			break;
		case DV_SETTLE:
			put_in_doubt(step, s, row);
			break;
		case DV_EXISTS:
			if (row->wire.op == 'I')
				doubt(row, v, s);
			else
				dv_outcome_failure(step, row, v);
			break;
		case DV_WAIT:
			dv_answer_throttled(step, v, task->attempts);
			s->again[s->nagain++] = row;
			break;
		case DV_RETRY:
		case DV_SHRINK:
			if (++row->troubles < (v->kind == DV_RETRY ? ROW_TRIES : SLOW_TRIES))
			{
				s->again[s->nagain++] = row;
				s->again_at = dv_answer_backoff(row->troubles);
			}
			else
				dv_outcome_failure(step, row, v);
			break;
		case DV_FAIL_RUN:
			dv_answer_fail_run(step, reply, v);
			dv_answer_leave_row(step, row);
			break;
		case DV_GONE:
		case DV_FAIL_ROW:
			dv_outcome_failure(step, row, v);
			break;
	}
}

/* All of its rows once more, as they went. */
static void
repeat(const DvTask *task, DvSorted *s)
{
	memcpy(s->again, task->rows, sizeof(DvRow *) * task->n);
	s->nagain = task->n;
}

/* All of its rows as single operations. */
static void
isolate(const DvTask *task, DvSorted *s)
{
	memcpy(s->isolate, task->rows, sizeof(DvRow *) * task->n);
	s->nisolate = task->n;
}

/* Of two requests for the same table's rows, as a rule. */
static bool
is_deadlock(const DvVerdict *v)
{
	return strstr(v->message, "Sql Number: 1205") != NULL;
}

/* The verdict on a request as a whole: nothing of it was written, or all. */
static void
judge_request(DvStep *step, DvTask *task, const DvVerdict *v, const DvHttpReply *reply, DvSorted *s)
{
	int			i;

	switch (blames_caller(task->rows[0], v) ? DV_FAIL_ROW : v->kind)
	{
		case DV_DONE:
		case DV_SETTLE:
			for (i = 0; i < task->n; i++)
				judge_row(step, task, task->rows[i], v, reply, s);
			break;
		case DV_WAIT:
			dv_answer_throttled(step, v, task->attempts);
			repeat(task, s);
			break;
		case DV_RETRY:
			if (is_deadlock(v))
				dv_gate_deadlock(step);
			else
				dv_gate_trouble(step);
			if (task->attempts >= ROW_TRIES && task->stage == DV_STAGE_EACH)
			{
				/* Isolated already: in halves, until one row alone has its verdict. */
				for (i = 0; i < task->n; i++)
					task->rows[i]->troubles = ROW_TRIES - 1;
				dv_engine_queue_halves(step, task, task->attempts + 1);
				break;
			}
			if (task->attempts >= v->tries)
				isolate(task, s);
			else
			{
				repeat(task, s);
				s->again_at = dv_answer_backoff(task->attempts + 1);
			}
			break;
		case DV_SHRINK:
			if (task->stage == DV_STAGE_WRITE)
				dv_gate_shrink(step, task->n);
			dv_engine_queue_halves(step, task, task->attempts + 1);
			break;
		case DV_FAIL_RUN:
			dv_answer_fail_run(step, reply, v);
			for (i = 0; i < task->n; i++)
				dv_answer_leave_row(step, task->rows[i]);
			break;
		case DV_EXISTS:
		case DV_GONE:
		case DV_FAIL_ROW:
			dv_gate_refused(step);
			isolate(task, s);
			break;
	}
}

DvWireReply
dv_answer_wire_reply(const DvHttpReply *reply)
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

const DvWireRow **
dv_answer_wire_rows(const DvTask *task)
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
handle_write(DvStep *step, DvTask *task, const DvHttpReply *reply, DvSorted *s)
{
	DvWireReply w = dv_answer_wire_reply(reply);
	DvVerdict  *v = palloc0(sizeof(DvVerdict) * task->n);
	char		(*ids)[37] = palloc0(37 * task->n);
	int			i;

	if (task->stage == DV_STAGE_WRITE)
		dv_wire_bulk_reply(&w, dv_answer_wire_rows(task), task->n, v, ids);
	else
		dv_wire_batch_reply(&w, dv_answer_wire_rows(task), task->n, v, ids);

	/* The order of the ids of a bulk message is not documented: with one row it is. */
	for (i = 0; i < task->n && (task->stage == DV_STAGE_EACH || task->n == 1); i++)
		if (v[i].kind == DV_DONE && ids[i][0] != '\0' && task->rows[i]->wire.id[0] == '\0')
			dv_engine_set_id(task->rows[i], ids[i]);

	/* One row says how many the table takes only where it takes no more: else that would never grow again. */
	if (task->stage == DV_STAGE_WRITE && v[0].kind == DV_DONE && (task->n > 1 || step->pace->bulk_max == 1))
		dv_gate_bulk(step, task->n, reply->seconds);
	if (task->stage == DV_STAGE_WRITE && task->n > 1)
		judge_request(step, task, &v[0], reply, s);
	else
	{
		if (task->stage == DV_STAGE_EACH && reply->status == 200)
			dv_gate_each(step, task->n, reply->seconds);
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
		write_unanswered(step, task, v[0].message[0] ? dv_answer_told(&v[0]) : "the answer was not understood");
	else if (v[0].kind != DV_WAIT && v[0].kind != DV_RETRY)
	{
		step->rc->unanswered = false;
		step->rc->last_write = GetCurrentTimestamp();
		dv_answer_good(step, reply);
	}
}

/* No complete answer came. */
static void
handle_no_answer(DvStep *step, DvTask *task, const DvHttpReply *reply, DvSorted *s)
{
	const char *why = reply->error[0] ? reply->error : "no answer";
	int			i;

	if (dv_engine_only_reads(task->stage) || reply->transport == DV_HTTP_NOT_SENT)
	{
		dv_answer_outage(step, task->sent_at, why);
		/* Reading, or never sent: the same again, later. */
		repeat(task, s);
		s->again_at = dv_answer_backoff(task->attempts + 1);
		return;
	}
	write_unanswered(step, task, why);
	/* Too many rows for the time there was; a connection that broke at once says nothing of their number. */
	if (task->n > 1 && reply->seconds * 1000 >= Min(dv_request_timeout_ms, LONG_MS))
		dv_gate_shrink(step, step->pace->bulk_rows);
	for (i = 0; i < task->n; i++)
		put_in_doubt(step, s, task->rows[i]);
	s->find_at = dv_answer_backoff(1);
}

void
dv_answer_handle(DvStep *step, DvTask *task, const DvHttpReply *reply)
{
	DvSorted	s;

	sorted_init(&s, task->n);
	if (reply->transport != DV_HTTP_ANSWERED)
		handle_no_answer(step, task, reply, &s);
	else if (task->stage == DV_STAGE_FIND)
		dv_settle_handle(step, task, reply, &s);
	else if (task->stage == DV_STAGE_IMAGE)
		dv_before_handle(step, task, reply);
	else
		handle_write(step, task, reply, &s);
	sorted_queue(step, task, &s);
	if (step->rc->outages >= OUTAGE_TRIES)
		dv_engine_give_back(step);
}

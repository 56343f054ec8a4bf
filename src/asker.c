/*
 * asker.c - the requests of a job: several in flight, at the service's pace,
 * as all of its application users
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "answer.h"
#include "asker.h"
#include "gate.h"
#include "problem.h"
#include "request.h"
#include "servertext.h"
#include "settings.h"
#include "spi.h"
#include "wiretext.h"
#include "worker.h"

/* Longest wait in one turn, so that stop requests and timers are seen. */
#define TURN_MS			100

/* Answers in a row that were not understood, of one request. */
#define BAD_ANSWERS_MAX	5

/* Answers of the server's trouble (5xx) in a row, before the job judges them. */
#define TROUBLES_MAX	6

void
dv_asker_init(DvAsker *asker, DvRunContext *rc, DvAskAnswer answer, void *arg)
{
	memset(asker, 0, sizeof(DvAsker));
	asker->rc = rc;
	asker->users = dv_users_of(rc);
	asker->answer = answer;
	asker->arg = arg;
	asker->context = CurrentMemoryContext;
	dlist_init(&asker->queue);
}

DvAsk *
dv_asker_new(DvAsker *asker, const char *method, void *arg)
{
	DvAsk	   *ask = MemoryContextAllocZero(asker->context, sizeof(DvAsk));

	ask->method = method;
	ask->arg = arg;
	dv_buf_init(&ask->path, 0);
	dv_buf_init(&ask->body, 0);
	return ask;
}

static void
free_ask(DvAsk *ask)
{
	dv_buf_free(&ask->path);
	dv_buf_free(&ask->body);
	pfree(ask);
}

void
dv_asker_queue(DvAsker *asker, DvAsk *ask)
{
	if (ask->path.failed || ask->body.failed)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	dlist_push_tail(&asker->queue, &ask->node);
}

void
dv_asker_again(DvAsker *asker, DvAsk *ask, bool at_once)
{
	asker->again = true;
	ask->not_before = at_once ? 0 : dv_answer_backoff(++ask->attempts);
	dv_asker_queue(asker, ask);
}

void
dv_asker_not_understood(DvAsker *asker, DvAsk *ask, const char *message)
{
	if (++ask->bad_answers < BAD_ANSWERS_MAX)
		dv_asker_again(asker, ask, false);
	else
		dv_asker_fail(asker, message);
}

char *
dv_asker_etag(DvSlice etag, MemoryContext context)
{
	char	   *text;

	if (etag.p == NULL)
		return NULL;
	text = MemoryContextAlloc(context, etag.len + 1);
	dv_page_text(etag, text, etag.len + 1);
	/* nothing in it may end the header that it goes into */
	return strpbrk(text, "\r\n") == NULL ? text : NULL;
}

void
dv_asker_follow(DvAsker *asker, DvAsk *ask, DvSlice link)
{
	char	   *text = palloc(link.len + 3);
	const char *path;

	/* with its quotes it is a JSON value */
	dv_page_text((DvSlice) {link.p - 1, link.len + 2}, text, link.len + 3);
	path = dv_wiretext_below(text, dv_session_api_path(asker->rc->session));
	if (path == NULL)
	{
		dv_asker_fail(asker, "the next page of an answer lies at another address than the service");
		return;
	}
	dv_buf_reset(&ask->path);
	dv_buf_puts(&ask->path, path);
	ask->same_user = true;
	ask->bad_answers = 0;
	dv_asker_again(asker, ask, true);
}

const char *
dv_asker_batch(DvAsk *ask)
{
	char	   *boundary = palloc(DV_BOUNDARY_SIZE);

	dv_buf_puts(&ask->path, "/$batch");
	dv_request_boundary(boundary, ask->content_type, sizeof(ask->content_type));
	ask->prefer = "Prefer: odata.continue-on-error";
	return boundary;
}

bool
dv_asker_has_room(DvAsker *asker)
{
	DvRunContext *rc = asker->rc;

	return !rc->stopping && dlist_is_empty(&asker->queue) &&
		dv_users_choose(asker->users, GetCurrentTimestamp()) >= 0;
}

void
dv_asker_fail(DvAsker *asker, const char *message)
{
	dv_engine_fail_run(asker->rc, message);
}

void
dv_asker_fail_answer(DvAsker *asker, const DvHttpReply *reply)
{
	DvProblem	problem;

	memset(&problem, 0, sizeof(problem));
	dv_session_explain(asker->rc->session, reply, &problem);
	dv_asker_fail(asker, dv_problem_text(&problem));
}

static void
outage(DvAsker *asker, int user, const char *why)
{
	DvRunContext *rc = asker->rc;

	dv_pace_trouble(dv_users_pace(asker->users, user), GetCurrentTimestamp());
	dv_server_text_cut(rc->waiting, sizeof(rc->waiting), why);
	if (rc->outage_since == 0)
		rc->outage_since = GetCurrentTimestamp();
	if (TimestampDifferenceExceeds(rc->outage_since, GetCurrentTimestamp(), dv_max_outage_s * 1000))
		dv_asker_fail(asker, psprintf("the service did not answer for longer than dvmig.max_outage: %s", why));
}

/* A whole answer, though one of trouble in a part: the job reads the parts. */
static bool
has_parts(const DvHttpReply *reply)
{
	return pg_strncasecmp(reply->content_type, "multipart/", 10) == 0;
}

/* No answer, or a login that was refused: another user may be let in, and what passes is waited for. */
static void
take_no_answer(DvAsker *asker, DvAsk *ask, const DvHttpReply *reply)
{
	DvProblem	problem;

	memset(&problem, 0, sizeof(problem));
	dv_session_explain(dv_users_session(asker->users, ask->user), reply, &problem);
	if (problem.transient || !(reply->no_token || reply->status == 401))
	{
		outage(asker, ask->user, problem.message[0] ? problem.message : "no answer");
		dv_asker_again(asker, ask, false);
		return;
	}
	ask->same_user = false;
	if (dv_users_dismiss(asker->users, ask->user, problem.message))
		dv_asker_again(asker, ask, true);
	else
		dv_asker_fail_answer(asker, reply);
}

static void
take_throttling(DvAsker *asker, DvAsk *ask, const DvHttpReply *reply)
{
	DvRunContext *rc = asker->rc;
	DvThrottle	told = {
		.retry_after_ms = reply->retry_after_ms,
		.attempt = ask->attempts,
		.window = reply->body.len > 0 ? dv_verdict_window(reply->body.data, reply->body.len) : 0,
		.at_once = reply->body.len > 0 && dv_wiretext_find(reply->body.data, reply->body.len, DV_CODE_AT_ONCE) != NULL
	};

	rc->outage_since = 0;
	rc->total.throttled++;
	dv_gate_user_throttled(rc, ask->user, &told);
	dv_asker_again(asker, ask, false);
}

/* The service's trouble, which passes: a gateway's at any length, its own for some tries. */
static bool
is_trouble(const DvAsk *ask, const DvHttpReply *reply)
{
	return reply->status >= 500 && !has_parts(reply) &&
		(ask->attempts < TROUBLES_MAX || reply->status == 502 || reply->status == 503);
}

static void
judge(DvAsker *asker, DvAsk *ask, const DvHttpReply *reply)
{
	DvRunContext *rc = asker->rc;
	bool		answered = reply->transport == DV_HTTP_ANSWERED && !reply->no_token;

	asker->again = false;
	if (reply->transport == DV_HTTP_UNKNOWN && reply->status == 200 && reply->body.failed &&
		asker->too_long != NULL && asker->too_long(asker, ask))
		rc->outage_since = 0;
	else if (!answered || reply->status == 401)
		take_no_answer(asker, ask, reply);
	else if (reply->status == 429)
		take_throttling(asker, ask, reply);
	else if (is_trouble(ask, reply))
	{
		outage(asker, ask->user, "the service had trouble of its own");
		dv_asker_again(asker, ask, false);
	}
	else
	{
		rc->outage_since = 0;
		rc->waiting[0] = '\0';
		dv_pace_good(dv_users_pace(asker->users, ask->user), NULL, reply->dop_hint, GetCurrentTimestamp());
		asker->answer(asker, ask, reply);
	}
	if (!asker->again)
		free_ask(ask);
}

static bool
is_write(const DvAsk *ask)
{
	return strcmp(ask->method, "GET") != 0;
}

static void
send_ask(DvAsker *asker, DvAsk *ask)
{
	const char *headers[3] = {NULL, NULL, NULL};
	int			n = 0;

	dlist_delete(&ask->node);
	asker->writing += is_write(ask);
	if (ask->content_type[0] != '\0')
		headers[n++] = ask->content_type;
	if (ask->prefer != NULL)
		headers[n++] = ask->prefer;
	asker->in_flight++;
	asker->rc->total.requests++;
	asker->rc->total.bytes_sent += ask->body.len;
	dv_users_send(asker->users, ask->user, ask->method, ask->path.data,
					ask->body.len > 0 ? ask->body.data : NULL, ask->body.len, headers, ask);
}

void
dv_asker_send(DvAsker *asker)
{
	TimestampTz now = GetCurrentTimestamp();
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &asker->queue)
	{
		DvAsk	   *ask = dlist_container(DvAsk, node, iter.cur);
		int			user = dv_users_choose(asker->users, now);

		if (user < 0)
			break;
		if (ask->not_before > now || (ask->same_user && !dv_users_has_room(asker->users, ask->user, now)))
			continue;
		if (!ask->same_user)
			ask->user = user;
		send_ask(asker, ask);
	}
}

/*
 * Nothing more is sent. What was written is to be recorded, and waited for so
 * long and no longer; the answer to a question is of no use any more.
 */
static void
wind_up(DvAsker *asker)
{
	while (!dlist_is_empty(&asker->queue))
		free_ask(dlist_container(DvAsk, node, dlist_pop_head_node(&asker->queue)));
	if (asker->in_flight > 0 && (asker->writing == 0 || dv_engine_stop_overdue(asker->rc)))
	{
		dv_users_abandon(asker->users);
		asker->in_flight = 0;
		asker->writing = 0;
	}
}

void
dv_asker_pause(void)
{
	dv_worker_wait(TURN_MS);
}

/* After an error that a user's lock made: wait a moment. Any other is thrown on. */
static void
wait_for_user(DvRunContext *rc, ErrorData *error)
{
	if (!dv_spi_is_contention(error))
		ReThrowError(error);
	FreeErrorData(error);
	dv_engine_locked_out(rc);
	dv_asker_pause();
	dv_worker_look(rc);
	if (dv_engine_stop_overdue(rc))
		dv_worker_stop_here(rc);
}

void
dv_asker_patiently(DvRunContext *rc, MemoryContext errors, void (*work) (void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;

	for (;;)
	{
		ErrorData  *volatile error = NULL;

		PG_TRY();
		{
			work(arg);
		}
		PG_CATCH();
		{
			error = dv_spi_abort(errors);
		}
		PG_END_TRY();
		MemoryContextSwitchTo(context);
		if (error == NULL)
			break;
		wait_for_user(rc, error);
	}
	dv_engine_lock_gone(rc);
}

bool
dv_asker_turn(DvAsker *asker)
{
	DvHttpReply *reply;
	void	   *ask;

	CHECK_FOR_INTERRUPTS();
	dv_worker_look(asker->rc);
	if (asker->rc->stopping)
		wind_up(asker);
	else
		dv_asker_send(asker);
	if (asker->in_flight == 0 && dlist_is_empty(&asker->queue))
	{
		/* the job may have more to ask */
		if (dv_users_are_paused(asker->users) && !asker->rc->stopping)
			dv_asker_pause();
		return false;
	}
	reply = dv_users_poll(asker->users, TURN_MS, &ask);
	if (reply != NULL)
	{
		asker->in_flight--;
		asker->writing -= is_write(ask);
		judge(asker, ask, reply);
		dv_http_reply_free(reply);
	}
	return true;
}

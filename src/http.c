/*
 * http.c - many requests in flight on one libcurl multi handle
 *
 * Transfers are used again, because requests come by the thousand and an easy
 * handle is expensive to make. Connections are kept by the multi handle and
 * shared by all transfers.
 *
 * Nothing here may throw while libcurl is on the stack: its callbacks only
 * write to malloc'ed memory and report failure by their return value. What
 * libcurl owns hangs on a reset callback of the memory context in which the
 * multi handle was opened, so that an error anywhere leaks nothing.
 */
#include "postgres.h"

#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "http.h"
#include "http_reply.h"
#include "http_transfer.h"

/*
 * Longest single wait. Signals end a poll at once where they arrive in this
 * thread; one that a resolver thread takes does not, and this bounds it.
 */
#define HTTP_SLICE_MS		100

/* Above the 52 concurrent requests that the service allows one user. */
#define HTTP_MAX_CONNECTIONS		64L

struct DvHttp
{
	CURLM	   *multi;
	DvTransfer *active;
	DvTransfer *unused;
	DvReplyBox *finished;		/* replies in order of arrival, with ... */
	DvReplyBox *finished_last;
	DvReplyBox *handed_out;		/* ... and those the caller has not freed yet */
	MemoryContextCallback cleanup;
};

static bool http_global_ready = false;

static void http_cleanup(void *arg);

/* Initialise libcurl once a process, and only where it is used: it is not fork-safe. */
static void
http_global_init(void)
{
	if (http_global_ready)
		return;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR),
				 errmsg("could not initialize libcurl")));
	if ((curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_ASYNCHDNS) == 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("this libcurl resolves host names without a time limit"),
				 errhint("Use a libcurl with a threaded resolver or c-ares; else a name server that does not answer delays cancelling.")));
	http_global_ready = true;
}

DvHttp *
dv_http_open(void)
{
	DvHttp	   *http = palloc0(sizeof(DvHttp));

	http_global_init();
	http->cleanup.func = http_cleanup;
	http->cleanup.arg = http;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &http->cleanup);
	http->multi = curl_multi_init();
	if (http->multi == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	/* HTTP/1.1 and several connections: multiplexing would stay on one server. */
	curl_multi_setopt(http->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
	curl_multi_setopt(http->multi, CURLMOPT_MAX_HOST_CONNECTIONS, HTTP_MAX_CONNECTIONS);
	curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, HTTP_MAX_CONNECTIONS);
	return http;
}

/* ---------------------------------------------------------------- transfers */

/* A transfer to use: an old one, or a new one. NULL when memory ran out. */
static DvTransfer *
transfer_take(DvHttp *http)
{
	DvTransfer *t = http->unused;

	if (t)
		http->unused = t->next;
	else
		t = dv_transfer_create();
	if (t == NULL)
		return NULL;
	t->next = t->prev = NULL;
	t->box = dv_reply_create();
	if (t->box == NULL)
	{
		dv_transfer_destroy(t);
		return NULL;
	}
	return t;
}

/* Put a transfer back for the next request; its reply has been taken from it. */
static void
transfer_put(DvHttp *http, DvTransfer *t)
{
	dv_transfer_clear(t);
	t->next = http->unused;
	t->prev = NULL;
	http->unused = t;
}

static void
transfer_link(DvHttp *http, DvTransfer *t)
{
	t->next = http->active;
	if (t->next)
		t->next->prev = t;
	http->active = t;
}

static void
transfer_unlink(DvHttp *http, DvTransfer *t)
{
	if (t->prev)
		t->prev->next = t->next;
	else
		http->active = t->next;
	if (t->next)
		t->next->prev = t->prev;
}

/* ---------------------------------------------------------------- sending */

void
dv_http_send(DvHttp *http, const DvHttpRequest *request)
{
	DvTransfer *t = transfer_take(http);

	if (t == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	if (!dv_transfer_prepare(t, request))
	{
		dv_transfer_destroy(t);
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR),
				 errmsg("libcurl does not accept a request"),
				 errhint("Use libcurl 7.80 or later, built with TLS.")));
	}
	if (curl_multi_add_handle(http->multi, t->easy) != CURLM_OK)
	{
		dv_transfer_destroy(t);
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	transfer_link(http, t);
}

/* ---------------------------------------------------------------- receiving */

/*
 * libcurl resolves names in threads of its own, which inherit the signal mask
 * of this call. PostgreSQL's handlers must run in the main thread only, so the
 * threads are born with all signals blocked.
 */
static void
perform(CURLM *multi)
{
	sigset_t	all;
	sigset_t	before;
	int			running;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	curl_multi_perform(multi, &running);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Bytes that all requests in flight have given to their connections. */
static curl_off_t
bytes_uploaded(const DvHttp *http)
{
	curl_off_t	sum = 0;
	DvTransfer *t;

	for (t = http->active; t != NULL; t = t->next)
		sum += dv_transfer_uploaded(t);
	return sum;
}

/*
 * libcurl sends one buffer of each request a call. Between two of our calls
 * an answer may be recorded, so that a body of a dozen buffers would take as
 * many times as long as its connection needs: go on while something is taken.
 */
static void
send_what_is_taken(DvHttp *http)
{
	curl_off_t	before;
	curl_off_t	after = bytes_uploaded(http);

	do
	{
		before = after;
		perform(http->multi);
		after = bytes_uploaded(http);
	} while (after > before);
}

/* Let libcurl work, and move what is done to the finished list. */
static void
http_perform(DvHttp *http)
{
	CURLMsg    *msg;
	int			left;

	send_what_is_taken(http);
	while ((msg = curl_multi_info_read(http->multi, &left)) != NULL)
	{
		DvTransfer *t = NULL;
		CURLcode	code = msg->data.result;

		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **) &t);
		curl_multi_remove_handle(http->multi, t->easy);		/* msg is gone with it */
		transfer_unlink(http, t);
		dv_transfer_finish(t, code);
		t->box->owner = t->owner;
		t->box->next = NULL;
		if (http->finished_last)
			http->finished_last->next = t->box;
		else
			http->finished = t->box;
		http->finished_last = t->box;
		t->box = NULL;
		transfer_put(http, t);
	}
}

/* Wait for the sockets, at most "ms", shown in pg_stat_activity. */
static void
http_wait(DvHttp *http, int ms)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = dv_wait_event("DvmigHttp");
	pgstat_report_wait_start(wait_event);
	curl_multi_poll(http->multi, NULL, 0, ms, NULL);
	pgstat_report_wait_end();
	if (IsUnderPostmaster && !PostmasterIsAlive())
		proc_exit(1);			/* the next postmaster could not start beside us */
}

/* Take the first finished reply; it stays linked until the caller frees it. */
static DvHttpReply *
http_take_finished(DvHttp *http, void **owner)
{
	DvReplyBox *box = http->finished;

	http->finished = box->next;
	if (http->finished == NULL)
		http->finished_last = NULL;
	if (owner)
		*owner = box->owner;
	dv_reply_hand_out(box, &http->handed_out);
	return &box->reply;
}

DvHttpReply *
dv_http_poll(DvHttp *http, long timeout_ms, void **owner)
{
	instr_time	start;
	instr_time	now;
	long		left;

	INSTR_TIME_SET_CURRENT(start);
	for (;;)
	{
		http_perform(http);
		if (http->finished)
			return http_take_finished(http, owner);
		CHECK_FOR_INTERRUPTS();
		if (MyLatch->is_set)
			return NULL;
		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, start);
		left = timeout_ms - (long) INSTR_TIME_GET_MILLISEC(now);
		if (left <= 0)
			return NULL;
		http_wait(http, (int) Min(left, HTTP_SLICE_MS));
	}
}

DvHttpReply *
dv_http_make_reply(DvHttp *http)
{
	DvReplyBox *box = dv_reply_create();

	if (box == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	dv_reply_hand_out(box, &http->handed_out);
	return &box->reply;
}

/* ---------------------------------------------------------------- the end */

static void
http_drop_finished(DvHttp *http)
{
	while (http->finished)
	{
		DvReplyBox *box = http->finished;

		http->finished = box->next;
		dv_reply_destroy(box);
	}
	http->finished_last = NULL;
}

void
dv_http_abandon(DvHttp *http)
{
	while (http->active)
	{
		DvTransfer *t = http->active;

		curl_multi_remove_handle(http->multi, t->easy);
		transfer_unlink(http, t);
		transfer_put(http, t);
	}
	http_drop_finished(http);
}

/* Called when the memory context goes, after an error too. */
static void
http_cleanup(void *arg)
{
	DvHttp	   *http = arg;

	if (http->multi == NULL)
		return;
	dv_http_abandon(http);
	while (http->unused)
	{
		DvTransfer *t = http->unused;

		http->unused = t->next;
		dv_transfer_destroy(t);
	}
	while (http->handed_out)
		dv_http_reply_free(&http->handed_out->reply);
	curl_multi_cleanup(http->multi);
	http->multi = NULL;
}

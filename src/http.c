/*
 * http.c - many requests in flight on one libcurl multi handle
 *
 * A transfer is one request on its way: an easy handle with what must live as
 * long as it. Transfers are used again, because requests come by the thousand
 * and an easy handle is expensive to make. Connections are kept by the multi
 * handle and shared by all transfers.
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

/*
 * Longest single wait. Signals end a poll at once where they arrive in this
 * thread; one that a resolver thread takes does not, and this bounds it.
 */
#define HTTP_SLICE_MS		100

/*
 * A connection is tied to one of the service's web servers, each with its own
 * limits over five minutes: renewed often, a run spreads evenly over all of them.
 */
#define HTTP_CONNECTION_LIFETIME_S	30L

/* A host that does not answer a SYN or a TLS hello for half a minute is away. */
#define HTTP_CONNECT_TIMEOUT_MS		30000L

/* Above the 52 concurrent requests that the service allows one user. */
#define HTTP_MAX_CONNECTIONS		64L

/* libcurl's 64 kB make 52 bodies of 1.5 MB at once a third slower (test/bench/run). */
#define HTTP_UPLOAD_BUFFER			(128L * 1024)

typedef struct DvTransfer
{
	CURL	   *easy;
	struct curl_slist *headers;
	DvReplyBox *box;
	void	   *owner;
	bool		write;			/* anything but GET */
	bool		sent;			/* the request may have left this machine */
	bool		replay_refused; /* libcurl wanted to send it a second time */
	char		error[CURL_ERROR_SIZE];
	struct DvTransfer *next;	/* active or free list */
	struct DvTransfer *prev;	/* active list only */
} DvTransfer;

struct DvHttp
{
	CURLM	   *multi;
	DvTransfer *active;
	DvTransfer *unused;
	DvReplyBox *finished;		/* replies in order of arrival, with ... */
	DvReplyBox *finished_last;
	DvReplyBox *handed_out;		/* ... and those the caller has not freed yet */
	int			in_flight;		/* active and finished */
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

/* Free a header list; the bearer token must not stay behind in freed memory. */
static void
http_free_headers(struct curl_slist *list)
{
	for (struct curl_slist *h = list; h != NULL; h = h->next)
		explicit_bzero(h->data, strlen(h->data));
	curl_slist_free_all(list);
}

static void
transfer_destroy(DvTransfer *t)
{
	http_free_headers(t->headers);
	if (t->easy)
		curl_easy_cleanup(t->easy);
	dv_reply_destroy(t->box);
	free(t);
}

/* A transfer to use: an old one, or a new one. NULL when memory ran out. */
static DvTransfer *
transfer_take(DvHttp *http)
{
	DvTransfer *t = http->unused;

	if (t)
		http->unused = t->next;
	else
	{
		t = calloc(1, sizeof(DvTransfer));
		if (t == NULL)
			return NULL;
		t->easy = curl_easy_init();
	}
	t->next = t->prev = NULL;
	t->sent = t->replay_refused = false;
	t->error[0] = '\0';
	t->box = dv_reply_create();
	if (t->easy == NULL || t->box == NULL)
	{
		transfer_destroy(t);
		return NULL;
	}
	return t;
}

/* Put a transfer back for the next request; its reply has been taken from it. */
static void
transfer_put(DvHttp *http, DvTransfer *t)
{
	http_free_headers(t->headers);
	t->headers = NULL;
	t->owner = NULL;
	dv_reply_destroy(t->box);
	t->box = NULL;
	curl_easy_reset(t->easy);
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
	http->in_flight++;
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
	http->in_flight--;
}

/* ---------------------------------------------------------------- callbacks */

#if LIBCURL_VERSION_NUM >= 0x075000
/*
 * Called when the connection stands and the request is about to leave.
 *
 * When a kept-alive connection dies before the first byte of an answer,
 * libcurl sends the request again by itself. The service may have carried out
 * the first copy, so that a write would run twice: let it fail instead, with
 * an unknown outcome, which is settled by reading.
 */
static int
on_send(void *arg, char *ip, char *local_ip, int port, int local_port)
{
	DvTransfer *t = arg;

	(void) ip;
	(void) local_ip;
	(void) port;
	(void) local_port;
	if (t->sent && t->write)
	{
		t->replay_refused = true;
		return CURL_PREREQFUNC_ABORT;
	}
	t->sent = true;
	return CURL_PREREQFUNC_OK;
}
#endif

/* ---------------------------------------------------------------- sending */

/* Options that a libcurl of another age may not know; none is vital. */
static void
transfer_set_optional(DvTransfer *t, bool plain_http_ok)
{
	CURL	   *easy = t->easy;
	bool		guarded = false;

#if LIBCURL_VERSION_NUM >= 0x075000
	curl_easy_setopt(easy, CURLOPT_PREREQDATA, t);
	guarded = curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_send) == CURLE_OK;
	curl_easy_setopt(easy, CURLOPT_MAXLIFETIME_CONN, HTTP_CONNECTION_LIFETIME_S);
#endif
	/* Dropping a request must not wait for a name server that is still asked. */
#if LIBCURL_VERSION_NUM >= 0x075700
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
#endif
	/* Without the guard above, a write gets a connection that cannot be stale. */
	if (!guarded && t->write)
		curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
#if LIBCURL_VERSION_NUM >= 0x075500
	if (curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, plain_http_ok ? "http,https" : "https") == CURLE_OK)
		return;
#else
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS,
					 (long) (plain_http_ok ? CURLPROTO_HTTP | CURLPROTO_HTTPS : CURLPROTO_HTTPS));
#endif
}

/* Method, body and headers. False when memory ran out. */
static bool
transfer_set_request(DvTransfer *t, const DvHttpRequest *request)
{
	CURL	   *easy = t->easy;
	struct curl_slist *list;

	if (!t->write)
		curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
	else
	{
		if (request->body || strcmp(request->method, "DELETE") != 0)
		{
			curl_easy_setopt(easy, CURLOPT_POST, 1L);
			curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body ? request->body : "");
			curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) request->body_len);
		}
		if (strcmp(request->method, "POST") != 0)
			curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
	}
	/* "Expect: 100-continue" would cost a round trip for every batch. */
	t->headers = curl_slist_append(NULL, "Expect:");
	if (t->headers == NULL)
		return false;
	for (const char *const *h = request->headers; h && *h; h++)
	{
		list = curl_slist_append(t->headers, *h);
		if (list == NULL)
			return false;
		t->headers = list;
	}
	return curl_easy_setopt(easy, CURLOPT_HTTPHEADER, t->headers) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_URL, request->url) == CURLE_OK;
}

/* Everything that must hold for a request to be sent at all. */
static bool
transfer_set_safety(DvTransfer *t, const DvHttpRequest *request)
{
	CURL	   *easy = t->easy;
	long		connect_ms = Min(request->timeout_ms, HTTP_CONNECT_TIMEOUT_MS);

	/* libcurl would take a proxy from the postmaster's environment otherwise. */
	return curl_easy_setopt(easy, CURLOPT_PROXY, "") == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2) == CURLE_OK &&
		(request->ca_file == NULL ||
		 (curl_easy_setopt(easy, CURLOPT_CAINFO, request->ca_file) == CURLE_OK &&
		  /* instead of the system's authorities, not besides them */
		  curl_easy_setopt(easy, CURLOPT_CAPATH, NULL) == CURLE_OK)) &&
		curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, connect_ms) == CURLE_OK &&

	/*
	 * This alone bounds a slow answer. There is no low-speed limit: while
	 * Dataverse works on a large batch, the line is silent for minutes.
	 */
		curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, request->timeout_ms) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_USERAGENT, "dvmig/1.0") == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->error) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, dv_reply_on_body) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_WRITEDATA, t->box) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, dv_reply_on_header) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_HEADERDATA, t->box) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_PRIVATE, t) == CURLE_OK;
}

void
dv_http_send(DvHttp *http, const DvHttpRequest *request)
{
	DvTransfer *t = transfer_take(http);

	if (t == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	t->owner = request->owner;
	t->write = strcmp(request->method, "GET") != 0;
	if (!transfer_set_safety(t, request) || !transfer_set_request(t, request))
	{
		transfer_destroy(t);
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR),
				 errmsg("libcurl does not accept a request"),
				 errhint("Use libcurl 7.80 or later, built with TLS.")));
	}
	transfer_set_optional(t, request->plain_http_ok);
	curl_easy_setopt(t->easy, CURLOPT_UPLOAD_BUFFERSIZE, HTTP_UPLOAD_BUFFER);
	/* A libcurl without gzip refuses this; answers are then longer, not wrong. */
	curl_easy_setopt(t->easy, CURLOPT_ACCEPT_ENCODING, "");
	if (curl_multi_add_handle(http->multi, t->easy) != CURLM_OK)
	{
		transfer_destroy(t);
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	transfer_link(http, t);
}

int
dv_http_in_flight(DvHttp *http)
{
	return http->in_flight;
}

/* ---------------------------------------------------------------- receiving */

/* The certificate, its host name or the file to check it by was refused. */
static bool
is_tls_error(CURLcode code)
{
	return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE ||
		code == CURLE_SSL_ISSUER_ERROR || code == CURLE_SSL_INVALIDCERTSTATUS;
}

/*
 * True where "code" proves that the request did not leave this machine. Only
 * needed where libcurl does not tell when it begins to send (on_send); time
 * to pretransfer is 0 until then.
 */
static bool
is_before_sending(DvTransfer *t, CURLcode code)
{
	curl_off_t	pretransfer = 0;

	if (t->sent)
		return false;
#if LIBCURL_VERSION_NUM >= 0x075000
	if (curl_version_info(CURLVERSION_NOW)->version_num >= 0x075000)
		return true;
#endif
	if (code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_CONNECT ||
		code == CURLE_SSL_CONNECT_ERROR || is_tls_error(code))
		return true;
	curl_easy_getinfo(t->easy, CURLINFO_PRETRANSFER_TIME_T, &pretransfer);
	return pretransfer == 0;
}

/* Write what became of a transfer into its reply. */
static void
transfer_finish(DvTransfer *t, CURLcode code)
{
	DvHttpReply *reply = &t->box->reply;
	curl_off_t	microseconds = 0;

	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &reply->status);
	curl_easy_getinfo(t->easy, CURLINFO_TOTAL_TIME_T, &microseconds);
	reply->seconds = (double) microseconds / 1000000.0;
	if (code == CURLE_OK && reply->status > 0)
	{
		reply->transport = DV_HTTP_ANSWERED;
		return;
	}
	reply->transport = is_before_sending(t, code) ? DV_HTTP_NOT_SENT : DV_HTTP_UNKNOWN;
	reply->tls_error = is_tls_error(code);
	if (t->replay_refused)
		strlcpy(reply->error, "the connection was closed before an answer came", sizeof(reply->error));
	else if (reply->body.failed)
		snprintf(reply->error, sizeof(reply->error), "the answer is longer than %d MB",
				 (int) (DV_REPLY_LIMIT / (1024 * 1024)));
	else
		strlcpy(reply->error, t->error[0] ? t->error : curl_easy_strerror(code),
				sizeof(reply->error));
}

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
	{
		curl_off_t	bytes = 0;

		curl_easy_getinfo(t->easy, CURLINFO_SIZE_UPLOAD_T, &bytes);
		sum += bytes;
	}
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

	do
	{
		before = bytes_uploaded(http);
		perform(http->multi);
	} while (bytes_uploaded(http) > before);
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
		transfer_finish(t, code);
		t->box->owner = t->owner;
		t->box->next = NULL;
		if (http->finished_last)
			http->finished_last->next = t->box;
		else
			http->finished = t->box;
		http->finished_last = t->box;
		http->in_flight++;
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
	http->in_flight--;
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
		http->in_flight--;
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
		transfer_destroy(t);
	}
	while (http->handed_out)
		dv_http_reply_free(&http->handed_out->reply);
	curl_multi_cleanup(http->multi);
	http->multi = NULL;
}

/*
 * http_transfer.c - one request on its way: how libcurl is told to carry it, and what came of it
 */
#include "postgres.h"

#include "compat.h"
#include "http_transfer.h"

/*
 * A connection is tied to one of the service's web servers, each with its own
 * limits over five minutes: renewed often, a run spreads evenly over all of them.
 */
#define HTTP_CONNECTION_LIFETIME_S	5L

/* A host that does not answer a SYN or a TLS hello for half a minute is away. */
#define HTTP_CONNECT_TIMEOUT_MS		30000L

/* libcurl's 64 kB make 52 bodies of 1.5 MB at once a third slower (test/bench/run). */
#define HTTP_UPLOAD_BUFFER			(128L * 1024)

/* Free a header list; the bearer token must not stay behind in freed memory. */
static void
free_headers(struct curl_slist *list)
{
	for (struct curl_slist *h = list; h != NULL; h = h->next)
		explicit_bzero(h->data, strlen(h->data));
	curl_slist_free_all(list);
}

DvTransfer *
dv_transfer_create(void)
{
	DvTransfer *t = calloc(1, sizeof(DvTransfer));

	if (t != NULL && (t->easy = curl_easy_init()) == NULL)
	{
		free(t);
		return NULL;
	}
	return t;
}

void
dv_transfer_clear(DvTransfer *t)
{
	free_headers(t->headers);
	t->headers = NULL;
	t->owner = NULL;
	dv_reply_destroy(t->box);
	t->box = NULL;
	t->sent = t->replay_refused = false;
	t->error[0] = '\0';
	curl_easy_reset(t->easy);
}

void
dv_transfer_destroy(DvTransfer *t)
{
	free_headers(t->headers);
	curl_easy_cleanup(t->easy);
	dv_reply_destroy(t->box);
	free(t);
}

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

bool
dv_transfer_prepare(DvTransfer *t, const DvHttpRequest *request)
{
	t->owner = request->owner;
	t->write = strcmp(request->method, "GET") != 0;
	if (!transfer_set_safety(t, request) || !transfer_set_request(t, request))
		return false;
	transfer_set_optional(t, request->plain_http_ok);
	curl_easy_setopt(t->easy, CURLOPT_UPLOAD_BUFFERSIZE, HTTP_UPLOAD_BUFFER);
	/* A libcurl without gzip refuses this; answers are then longer, not wrong. */
	curl_easy_setopt(t->easy, CURLOPT_ACCEPT_ENCODING, "");
	return true;
}

curl_off_t
dv_transfer_uploaded(const DvTransfer *t)
{
	curl_off_t	bytes = 0;

	curl_easy_getinfo(t->easy, CURLINFO_SIZE_UPLOAD_T, &bytes);
	return bytes;
}

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
void
dv_transfer_finish(DvTransfer *t, CURLcode code)
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

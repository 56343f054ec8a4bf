/*
 * session.c - one application user's way to one Dataverse organisation
 *
 * A request is kept (address, headers, where its body is) until its reply is
 * handed over, so that one refused for its token can be sent again. The token
 * is fetched over the same multi handle: early, while the old one is still
 * good; requests that find none wait in a list until it is there.
 */
#include "postgres.h"

#include "lib/ilist.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "credentials.h"
#include "giveway.h"
#include "hold.h"
#include "hosts.h"
#include "problem.h"
#include "refusals.h"
#include "reply_json.h"
#include "session.h"
#include "settings.h"
#include "token.h"

/* A login service answers in a second; a minute is generous. */
#define TOKEN_TIMEOUT_MS	60000

/* After a failed login the next one waits, or every request would try anew. */
#define TOKEN_RETRY_MS		2000

/* How often dv_session_idle is called at least while an answer is waited for. */
#define IDLE_MS	100

void		(*dv_session_idle) (void) = dv_giveway;
bool		(*dv_session_patience) (const DvProblem *problem) = NULL;

/* A request as it was handed in. */
typedef struct DvPending
{
	dlist_node	node;			/* in session->waiting, ->kept_back or ->ready */
	const char *method;
	char	   *url;
	char	  **headers;		/* without the token's; NULL-terminated, first slot free */
	const char *body;
	size_t		body_len;
	void	   *owner;
	uint64		generation;		/* of the token it went with */
	bool		retried;
	DvHttpReply *reply;			/* once it is ready to be handed over */
} DvPending;

struct DvSession
{
	MemoryContext context;
	MemoryContextCallback cleanup;
	DvLogin		login;
	char	   *api_path;
	char	   *api_url;
	char	   *token_url;
	bool		plain_http_ok;
	bool		token_plain_ok;

	DvHttp	   *http;
	int			in_flight;		/* the caller's requests */
	dlist_head	waiting;		/* requests without a token */
	dlist_head	kept_back;		/* requests whose user is told to wait */
	uint64		user;			/* as hold.h knows it */
	DvSessionHeld held;			/* until when; NULL: as hold.h says */
	void	   *held_arg;
	TimestampTz told_until;		/* which wait was told of */
	dlist_head	ready;			/* requests whose reply can be handed over */

	DvToken		token;
	char	   *token_form;		/* not NULL: a login is on its way */
	bool		token_failed;	/* the last login failed: problem says why */
	TimestampTz token_failed_at;
	DvProblem	problem;
};

/* ---------------------------------------------------------------- opening */

/* Called when the memory context goes: no token may stay in freed memory. */
static void
session_cleanup(void *arg)
{
	DvSession  *session = arg;

	dv_token_forget(&session->token);
	dv_token_form_free(session->token_form);
	session->token_form = NULL;
	dv_credentials_forget(&session->login);
}

DvSession *
dv_session_open(const char *server_name, Oid userid, int number)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "dvmig session",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	DvSession  *session = palloc0(sizeof(DvSession));
	DvHost		host;

	session->context = context;
	session->cleanup.func = session_cleanup;
	session->cleanup.arg = session;
	MemoryContextRegisterResetCallback(context, &session->cleanup);

	dv_credentials_load(&session->login, server_name, userid, number);

	session->plain_http_ok = dv_host_parse(session->login.server->url, &host) && host.loopback;
	session->token_plain_ok = dv_host_parse(session->login.server->authority, &host) && host.loopback;
	session->api_path = psprintf("/api/data/%s", session->login.server->api_version);
	session->api_url = psprintf("%s%s", session->login.server->url, session->api_path);
	session->token_url = dv_token_url(session->login.server);
	session->user = dv_hold_user(session->login.server, session->login.credentials);
	dlist_init(&session->waiting);
	dlist_init(&session->kept_back);
	dlist_init(&session->ready);
	session->http = dv_http_open();
	MemoryContextSwitchTo(old);
	return session;
}

void
dv_session_close(DvSession *session)
{
	MemoryContextDelete(session->context);
}

const DvServer *
dv_session_server(DvSession *session)
{
	return session->login.server;
}

const char *
dv_session_api_path(DvSession *session)
{
	return session->api_path;
}

const char *
dv_session_api_url(DvSession *session)
{
	return session->api_url;
}

/* ---------------------------------------------------------------- token */

static void
token_failed(DvSession *session)
{
	if (!session->problem.transient)
		dv_refusals_add();
	session->token_failed = true;
	session->token_failed_at = GetCurrentTimestamp();
}

/* Put a login on its way, unless one is. False where that is not possible. */
static bool
token_request(DvSession *session)
{
	static const char *const headers[] = {
		"Content-Type: application/x-www-form-urlencoded", "Accept: application/json", NULL
	};
	DvHttpRequest request = {0};

	if (session->token_form)
		return true;
	if (dv_credentials_renew(&session->login, &session->problem))
		session->token_form = dv_token_form(session->login.server, session->login.credentials, &session->problem);
	if (session->token_form == NULL)
	{
		token_failed(session);
		return false;
	}
	request.method = "POST";
	request.url = session->token_url;
	request.body = session->token_form;
	request.body_len = strlen(session->token_form);
	request.headers = headers;
	request.ca_file = session->login.server->ca_file;
	request.timeout_ms = Min(dv_request_timeout_ms, TOKEN_TIMEOUT_MS);
	request.plain_http_ok = session->token_plain_ok;
	request.owner = session;	/* no caller's request: those have a DvPending */
	dv_http_send(session->http, &request);
	return true;
}

/* What there is to authorise a request with. */
typedef enum DvTokenState
{
	TOKEN_USABLE,
	TOKEN_AWAITED,
	TOKEN_NONE					/* session->problem says why */
} DvTokenState;

static DvTokenState
token_state(DvSession *session)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		usable = session->token.header && now < session->token.expires_at;
	bool		resting = session->token_failed &&
		!TimestampDifferenceExceeds(session->token_failed_at, now, TOKEN_RETRY_MS);

	if (usable && now < session->token.renew_at)
		return TOKEN_USABLE;
	if (!resting && token_request(session))
		return usable ? TOKEN_USABLE : TOKEN_AWAITED;
	return usable ? TOKEN_USABLE : TOKEN_NONE;
}

/* ---------------------------------------------------------------- requests */

static void
pending_free(DvPending *pending)
{
	for (int i = 1; pending->headers && pending->headers[i]; i++)
		pfree(pending->headers[i]);
	if (pending->headers)
		pfree(pending->headers);
	pfree(pending->url);
	pfree(pending);
}

/* The common headers and the caller's; slot 0 is for the token. */
static char **
pending_headers(const char *method, bool has_body, const char *const *extra)
{
	int			n = 0;
	int			i = 1;
	bool		typed = false;
	char	  **headers;

	for (const char *const *h = extra; h && *h; h++)
	{
		typed |= pg_strncasecmp(*h, "Content-Type:", 13) == 0;
		n++;
	}
	headers = palloc((size_t) (n + 7) * sizeof(char *));
	headers[0] = NULL;
	headers[i++] = pstrdup("Accept: application/json");
	headers[i++] = pstrdup("OData-MaxVersion: 4.0");
	headers[i++] = pstrdup("OData-Version: 4.0");
	if (strcmp(method, "GET") == 0)
		headers[i++] = pstrdup("If-None-Match: null");
	if (has_body && !typed)
		headers[i++] = pstrdup("Content-Type: application/json; charset=utf-8");
	for (const char *const *h = extra; h && *h; h++)
		headers[i++] = pstrdup(*h);
	headers[i] = NULL;
	return headers;
}

static bool
is_throttled(const DvHttpReply *reply)
{
	return reply->transport == DV_HTTP_ANSWERED && reply->status == 429;
}

/* Keep a reply until the caller asks for it. What tells him to wait must not wait behind others. */
static void
pending_ready(DvSession *session, DvPending *pending, DvHttpReply *reply)
{
	pending->reply = reply;
	if (is_throttled(reply))
	{
		TimestampTz now = GetCurrentTimestamp();

		if (reply->retry_after_ms >= 0)
			dv_hold_tell(session->user, TimestampTzPlusMilliseconds(now, reply->retry_after_ms), now);
		dlist_push_head(&session->ready, &pending->node);
	}
	else
		dlist_push_tail(&session->ready, &pending->node);
}

/* Answer a request that cannot be sent, because nobody lets us in. */
static void
pending_refuse(DvSession *session, DvPending *pending)
{
	DvHttpReply *reply = dv_http_make_reply(session->http);

	/* what waiting will not cure looks like the refusal that it is */
	reply->transport = session->problem.transient ? DV_HTTP_NOT_SENT : DV_HTTP_ANSWERED;
	reply->status = session->problem.transient ? 0 : 401;
	reply->no_token = true;
	strlcpy(reply->error, session->problem.message, sizeof(reply->error));
	pending_ready(session, pending, reply);
}

/*
 * Shall nothing be sent for now? Told of once: by a run that begins in its
 * message, by a session to its client. It may throw, where that is too long.
 */
static bool
is_held(DvSession *session)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until = session->held != NULL ? session->held(session->held_arg) : dv_hold_until(session->user, now);

	if (until <= now || until == session->told_until)
		return until > now;
	session->told_until = until;
	if (dv_session_patience != NULL || session->held == NULL)
		dv_hold_bear(session->login.number, until);
	MemoryContextSwitchTo(session->context);	/* a worker may have told it in a transaction */
	return true;
}

static void
pending_transmit(DvSession *session, DvPending *pending)
{
	DvHttpRequest request = {0};

	if (is_held(session))
	{
		dlist_push_tail(&session->kept_back, &pending->node);
		return;
	}
	pending->headers[0] = session->token.header;
	pending->generation = session->token.generation;
	request.method = pending->method;
	request.url = pending->url;
	request.body = pending->body;
	request.body_len = pending->body_len;
	request.headers = (const char *const *) pending->headers;
	request.ca_file = session->login.server->ca_file;
	request.timeout_ms = dv_request_timeout_ms;
	request.plain_http_ok = session->plain_http_ok;
	request.owner = pending;
	dv_http_send(session->http, &request);
	pending->headers[0] = NULL; /* copied; the token may be freed before the reply */
}

static void
pending_send(DvSession *session, DvPending *pending)
{
	switch (token_state(session))
	{
		case TOKEN_USABLE:
			pending_transmit(session, pending);
			break;
		case TOKEN_AWAITED:
			dlist_push_tail(&session->waiting, &pending->node);
			break;
		case TOKEN_NONE:
			pending_refuse(session, pending);
			break;
	}
}

/* One that was kept back may go: the next one when it is known what became of waiting. */
static void
send_kept_back(DvSession *session)
{
	if (!dlist_is_empty(&session->kept_back) && !is_held(session))
		pending_send(session, dlist_container(DvPending, node, dlist_pop_head_node(&session->kept_back)));
}

/* The answer to a login: it decides for all that waited for it. */
static void
token_reply(DvSession *session, DvHttpReply *reply)
{
	dv_token_form_free(session->token_form);
	session->token_form = NULL;
	if (dv_token_accept(&session->token, reply, session->login.server, session->login.credentials, &session->problem))
		session->token_failed = false;
	else
		token_failed(session);
	dv_http_reply_free(reply);

	while (!dlist_is_empty(&session->waiting))
	{
		DvPending  *pending = dlist_container(DvPending, node,
											  dlist_pop_head_node(&session->waiting));

		if (session->token_failed)
			pending_refuse(session, pending);
		else
			pending_transmit(session, pending);
	}
}

void
dv_session_send(DvSession *session, const char *method, const char *path,
				const char *body, size_t body_len, const char *const *headers, void *owner)
{
	MemoryContext old = MemoryContextSwitchTo(session->context);
	DvPending  *pending = palloc0(sizeof(DvPending));

	pending->method = method;
	pending->url = psprintf("%s%s", session->api_url, path);
	pending->headers = pending_headers(method, body != NULL, headers);
	pending->body = body;
	pending->body_len = body_len;
	pending->owner = owner;
	session->in_flight++;
	pending_send(session, pending);
	MemoryContextSwitchTo(old);
}

int
dv_session_in_flight(DvSession *session)
{
	return session->in_flight;
}

/* ---------------------------------------------------------------- replies */

/*
 * Put a reply where it belongs: a login's to the token, a first 401 back on
 * its way with a new token, everything else on the list of ready ones.
 */
static void
session_sort(DvSession *session, DvHttpReply *reply, void *owner)
{
	DvPending  *pending = owner;

	if (owner == session)
	{
		token_reply(session, reply);
		return;
	}
	if (reply->transport == DV_HTTP_ANSWERED && reply->status == 401)
	{
		dv_refusals_add();
		/* others may have got a new token since this one was sent */
		if (pending->generation == session->token.generation)
			dv_token_forget(&session->token);
		if (!pending->retried)
		{
			pending->retried = true;
			dv_http_reply_free(reply);
			pending_send(session, pending);
			return;
		}
	}
	pending_ready(session, pending, reply);
}

DvHttpReply *
dv_session_poll(DvSession *session, long timeout_ms, void **owner)
{
	MemoryContext old = MemoryContextSwitchTo(session->context);
	TimestampTz start = GetCurrentTimestamp();
	DvHttpReply *result = NULL;

	for (;;)
	{
		long		left;
		void	   *http_owner;
		DvHttpReply *reply;

		send_kept_back(session);
		if (!dlist_is_empty(&session->ready))
		{
			DvPending  *pending = dlist_container(DvPending, node, dlist_pop_head_node(&session->ready));

			result = pending->reply;
			if (owner)
				*owner = pending->owner;
			pending_free(pending);
			session->in_flight--;
			break;
		}
		left = timeout_ms - TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());
		reply = dv_http_poll(session->http, Max(0, Min(left, IDLE_MS)), &http_owner);
		if (reply != NULL)
			session_sort(session, reply, http_owner);
		else if (left <= IDLE_MS || MyLatch->is_set)
			break;
		else
			dv_session_idle();
	}
	MemoryContextSwitchTo(old);
	return result;
}

uint64
dv_session_keep_back(DvSession *session, DvSessionHeld held, void *arg)
{
	session->held = held;
	session->held_arg = arg;
	return session->user;
}

bool
dv_session_is_throttled(DvSession *session)
{
	MemoryContext old = MemoryContextSwitchTo(session->context);
	DvHttpReply *reply;
	void	   *owner;

	while (session->in_flight > 0 && (reply = dv_http_poll(session->http, 0, &owner)) != NULL)
		session_sort(session, reply, owner);
	MemoryContextSwitchTo(old);
	return !dlist_is_empty(&session->ready) &&
		is_throttled(dlist_container(DvPending, node, dlist_head_node(&session->ready))->reply);
}

void
dv_session_abandon(DvSession *session)
{
	dlist_head *lists[] = {&session->waiting, &session->kept_back, &session->ready};

	dv_http_abandon(session->http);
	dv_token_form_free(session->token_form);
	session->token_form = NULL;
	for (int i = 0; i < (int) lengthof(lists); i++)
		while (!dlist_is_empty(lists[i]))
		{
			DvPending  *pending = dlist_container(DvPending, node, dlist_pop_head_node(lists[i]));

			dv_http_reply_free(pending->reply);
			pending_free(pending);
		}
	session->in_flight = 0;
}

DvHttpReply *
dv_session_call(DvSession *session, const char *method, const char *path,
				const char *body, size_t body_len, const char *const *headers)
{
	DvHttpReply *reply;

	Assert(session->in_flight == 0);
	dv_session_send(session, method, path, body, body_len, headers, NULL);
	while ((reply = dv_session_poll(session, dv_request_timeout_ms, NULL)) == NULL)
		ResetLatch(MyLatch);	/* the request has its own time limit */
	return reply;
}

/* ---------------------------------------------------------------- checks */

TimestampTz
dv_session_token_expires(DvSession *session)
{
	return session->token.expires_at;
}

void
dv_session_ignore_pin(DvSession *session)
{
	session->login.pinned[0] = '\0';
}

bool
dv_session_is_pinned(DvSession *session)
{
	return session->login.pinned[0] != '\0';
}

void
dv_session_explain(DvSession *session, const DvHttpReply *reply, DvProblem *problem)
{
	if (reply->no_token)
		*problem = session->problem;
	else if (reply->transport != DV_HTTP_ANSWERED)
		dv_problem_transport(problem, reply, session->login.server->url);
	else
		dv_problem_answer(problem, reply, session->login.server->url);
	problem->throttled = !reply->no_token && is_throttled(reply);
	problem->retry_after_ms = reply->no_token ? -1 : reply->retry_after_ms;
}

bool
dv_session_whoami(DvSession *session, DvWhoAmI *who, DvProblem *problem)
{
	DvHttpReply *reply = dv_session_call(session, "GET", "/WhoAmI", NULL, 0, NULL);
	bool		ok;

	memset(who, 0, sizeof(*who));
	who->dop_hint = reply->dop_hint;
	who->seconds = reply->seconds;
	ok = reply->transport == DV_HTTP_ANSWERED && reply->status == 200 &&
		dv_json_whoami(reply->body.data, reply->body.len, who->organisation_id,
					   who->user_id, who->business_unit_id);
	if (!ok && reply->transport == DV_HTTP_ANSWERED && reply->status == 404)
	{
		dv_problem_answer(problem, reply, session->login.server->url);
		strlcpy(problem->hint, "Check url and api_version of the server: this address has no Dataverse Web API.",
				sizeof(problem->hint));
	}
	else if (!ok)
		dv_session_explain(session, reply, problem);
	dv_http_reply_free(reply);

	if (ok && session->login.pinned[0] && strcmp(session->login.pinned, who->organisation_id) != 0)
	{
		dv_problem_organisation(problem, session->login.server->name, session->login.pinned, who->organisation_id);
		ok = false;
	}
	return ok;
}

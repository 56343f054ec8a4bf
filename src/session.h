/*
 * session.h - one application user's way to one Dataverse organisation
 *
 * Binds server options, credentials, token and HTTP. Adds the authority, the
 * bearer token and the common headers to every request, fetches a token
 * shortly before the old one expires, and after a 401 exactly once.
 */
#ifndef DV_SESSION_H
#define DV_SESSION_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "http.h"
#include "options.h"

typedef struct DvSession DvSession;

/*
 * Open a session for "userid" on the named server: reads and checks server and
 * user mapping (errors: undefined object, missing or forbidden options, host
 * not in dvmig.allowed_hosts). No network yet. Lives in the current memory
 * context; "number" is 1 for client_id, 2 for client_id2 ...
 */
extern DvSession *dv_session_open(const char *server_name, Oid userid, int number);
extern void dv_session_close(DvSession *session);

extern const DvServer *dv_session_server(DvSession *session);
extern const char *dv_session_api_path(DvSession *session); /* /api/data/v9.2 */
extern const char *dv_session_api_url(DvSession *session);	/* https://host/api/data/v9.2 */

/*
 * Send asynchronously: path is below api_path and begins with '/'; body must
 * live until its reply; extra headers (NULL-terminated, may be NULL) come on
 * top of the common ones. "owner" comes back with the reply.
 */
extern void dv_session_send(DvSession *session, const char *method, const char *path,
							const char *body, size_t body_len,
							const char *const *headers, void *owner);
extern int	dv_session_in_flight(DvSession *session);

/*
 * What a process has to look after while it waits for an answer; a worker, which
 * has no transaction then, sets its own. It may throw.
 */
extern void (*dv_session_idle) (void);

/*
 * Where a process may wait for a service that fails: called with each failure
 * that waiting may help, false once that was too long; with NULL when the
 * service answers again. NULL in short calls, which try a few times and throw.
 */
struct DvProblem;
extern bool (*dv_session_patience) (const struct DvProblem *problem);

/*
 * Next finished reply, or NULL after timeout_ms (waits interruptibly). Tokens
 * are handled inside: a request refused by 401 is sent again once with a new
 * token; a second 401 is handed over. When no token can be had, the reply has
 * status 401 or transport NOT_SENT, and dv_session_explain() tells what
 * happened.
 */
extern DvHttpReply *dv_session_poll(DvSession *session, long timeout_ms, void **owner);

/*
 * While the service told the session's user to wait, whoever it told so (see
 * hold.h), requests are kept back: also those that were waiting for a token, or
 * are sent again for one. In a worker's lanes held(arg) knows until when; 0: not.
 * Returns the user as hold.h knows it.
 */
typedef TimestampTz (*DvSessionHeld) (void *arg);
extern uint64 dv_session_keep_back(DvSession *session, DvSessionHeld held, void *arg);

/* Has an answer come that tells the user to wait? Takes what has come, without waiting; the next poll has it. */
extern bool dv_session_is_throttled(DvSession *session);

/* Drop everything in flight. */
extern void dv_session_abandon(DvSession *session);

/*
 * Send and wait (short calls): returns the reply whatever its status; throws
 * on cancel. Bounded by dvmig.request_timeout.
 */
extern DvHttpReply *dv_session_call(DvSession *session, const char *method, const char *path,
									const char *body, size_t body_len,
									const char *const *headers);

/*
 * Check that the service is who it was: token, WhoAmI, organisation against
 * the pin. On success fills in *who. On failure returns false with a problem
 * for people (never a secret), which tells whether waiting may help. Does not
 * write; the caller stores a first pin.
 */
typedef struct DvWhoAmI
{
	char		organisation_id[37];
	char		user_id[37];
	char		business_unit_id[37];
	int			dop_hint;
	double		seconds;		/* round trip of WhoAmI */
} DvWhoAmI;

typedef struct DvProblem
{
	bool		transient;
	bool		throttled;		/* by the service's limits: no failure of it */
	long		retry_after_ms; /* as the answer told; -1 where it did not */
	int			sqlerrcode;		/* for ereport */
	char		message[512];
	char		detail[512];
	char		hint[512];
} DvProblem;

extern TimestampTz dv_session_token_expires(DvSession *session);
extern bool dv_session_is_pinned(DvSession *session);
extern void dv_session_ignore_pin(DvSession *session);	/* to look who is there */
extern bool dv_session_whoami(DvSession *session, DvWhoAmI *who, DvProblem *problem);

/* Explain any failed reply (transport, TLS, 401, 403 ...) for people. */
extern void dv_session_explain(DvSession *session, const DvHttpReply *reply, DvProblem *problem);

#endif							/* DV_SESSION_H */

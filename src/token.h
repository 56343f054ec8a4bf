/*
 * token.h - OAuth 2.0 client credentials
 *
 * Makes the request for an access token and reads its answer; session.c sends
 * it and decides when. No secret and no token ever reaches a message.
 */
#ifndef DV_TOKEN_H
#define DV_TOKEN_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "http.h"
#include "options.h"
#include "session.h"

typedef struct DvToken
{
	char	   *header;			/* "Authorization: Bearer ...", malloc'ed; NULL = none */
	TimestampTz renew_at;		/* from here on a new one is fetched */
	TimestampTz expires_at;		/* from here on it is not used any more */
	uint64		generation;		/* counts tokens, to tell which one a request had */
} DvToken;

/*
 * Form for the token endpoint, malloc'ed: free with dv_token_form_free(). Reads
 * the files that the mapping names, so that what was changed is used at once.
 * NULL with *problem filled in where they cannot be used.
 */
extern char *dv_token_form(const DvServer *server, const DvCredentials *credentials,
						   DvProblem *problem);
extern void dv_token_form_free(char *form);

/* Address of the token endpoint, in the current memory context. */
extern char *dv_token_url(const DvServer *server);

/*
 * Take the token out of a reply and wipe the reply. False with *problem
 * filled in where there is none, for whoever these credentials are of; the old token, if any, is then kept.
 */
extern bool dv_token_accept(DvToken *token, DvHttpReply *reply, const DvServer *server,
							const DvCredentials *credentials, DvProblem *problem);

/* Forget a token: wiped and freed. */
extern void dv_token_forget(DvToken *token);

#endif							/* DV_TOKEN_H */

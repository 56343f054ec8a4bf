/*
 * credentials.h - who a session signs in as, and where: what the catalogs say
 */
#ifndef DV_CREDENTIALS_H
#define DV_CREDENTIALS_H

#include "postgres.h"

#include "options.h"
#include "session.h"

typedef struct DvLogin
{
	Oid			userid;			/* whose user mapping */
	int			number;			/* of the application user in it, from 1 */
	DvServer   *server;
	DvCredentials *credentials;
	bool		fresh;			/* read since the last login */
	char		pinned[37];		/* organisation that the server is pinned to, or "" */
} DvLogin;

/*
 * Read server, user mapping and pin, and check what the role may use; throws
 * (undefined object, missing or forbidden options, host not allowed). Takes a
 * transaction of its own where there is none. All lives in the current context.
 */
extern void dv_credentials_load(DvLogin *login, const char *server_name, Oid userid, int number);

/*
 * Before another login: the secret as the user mapping has it by now. False with
 * *problem filled in where the role may not use it any more; in a caller's
 * transaction such an error is thrown.
 */
extern bool dv_credentials_renew(DvLogin *login, DvProblem *problem);

/* Wipe the secret. */
extern void dv_credentials_forget(DvLogin *login);

#endif							/* DV_CREDENTIALS_H */

/*
 * options.h - options of servers and user mappings
 */
#ifndef DV_OPTIONS_H
#define DV_OPTIONS_H

#include "postgres.h"

/* Application users of a mapping, client_id ... client_id16: as many as there are sensible lanes. */
#define DV_USERS_MAX	16

typedef struct DvServer
{
	Oid			oid;
	char	   *name;
	char	   *url;			/* https://host[:port], no trailing slash */
	char	   *tenant;
	char	   *authority;		/* default https://login.microsoftonline.com */
	char	   *api_version;	/* default v9.2 */
	char	   *environment;	/* "production" or another word */
	char	   *ca_file;		/* or NULL */
	bool		superuser_owned;
} DvServer;

/* Of the three ways to sign in there is one: secret, file with it, certificate with its key. */
typedef struct DvCredentials
{
	int			number;			/* of the application user, from 1 */
	char	   *client_id;
	char	   *client_secret;	/* or NULL */
	char	   *client_secret_file; /* or NULL */
	char	   *client_certificate_file;	/* or NULL */
	char	   *client_key_file;	/* with it */
} DvCredentials;

/* Load and check a server of the wrapper "dataverse"; throws with a hint. */
extern DvServer *dv_options_server(const char *server_name);

/* Credentials of a role's user mapping; throws where there are none. */
extern DvCredentials *dv_options_credentials(const DvServer *server, Oid userid, int number);

/* Wipe the secret in them; NULL: nothing. */
extern void dv_options_wipe(DvCredentials *credentials);

/* How many application users the mapping has (client_id, client_id2 ...). */
extern int	dv_options_users(const DvServer *server, Oid userid);

/* Throws unless the role has USAGE on the server. */
extern void dv_options_check_usage(const DvServer *server, Oid userid);

/*
 * Throws unless dvmig.allowed_hosts lets data go to the url's host, and the
 * secret to the authority's (Microsoft's own login hosts always may have it).
 */
extern void dv_options_check_host(const DvServer *server);

#endif							/* DV_OPTIONS_H */

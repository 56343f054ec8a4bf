/*
 * auth.h - OAuth client credentials: clients, tokens, and who calls
 */
#ifndef SIM_AUTH_H
#define SIM_AUTH_H

#include "request.h"

/*
 * Register "ID:SECRET", "ID:SECRET:<systemuserid>", or "ID:SECRET:none" for a
 * client without application user, in the given tenant (NULL: any tenant).
 * Leaves with a message when malformed. Call before sim_world_make.
 */
extern void sim_auth_add_client(const char *text, const char *tenant);

/* The same for "ID:FILE..." with a certificate (PEM) that its assertions are checked against. */
extern void sim_auth_add_certificate(const char *text, const char *tenant);

/* The application user of the first client: who a static token stands for. */
extern SimGuid sim_auth_first_user(void);

/* Answer POST /{tenant}/oauth2/v2.0/token. */
extern void sim_auth_token(const SimReq *r, const char *tenant, size_t tenant_len, SimResp *resp);

/*
 * Check the bearer token and impersonation headers; fills user and caller.
 * False with the answer written: 401 or 403.
 */
extern bool sim_auth_check(SimReq *r, SimResp *resp);

/* Take impersonation headers of a request or batch part into account. */
extern bool sim_auth_impersonate(SimReq *r, SimErr *e);

/* Make every issued token invalid: tests of renewal. */
extern void sim_auth_revoke_all(void);

#endif							/* SIM_AUTH_H */

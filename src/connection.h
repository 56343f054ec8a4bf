/*
 * connection.h - a session for a short call, checked before it is used
 */
#ifndef DV_CONNECTION_H
#define DV_CONNECTION_H

#include "postgres.h"

#include "session.h"

/*
 * Open a session with the caller's credentials, ask who is there, and pin the
 * server to the organisation at first use (as the owner of the extension, whom
 * the caller of an internal function already is). Throws what is wrong.
 */
extern DvSession *dv_connection_open(const char *server, Oid caller, DvWhoAmI *who);

#endif							/* DV_CONNECTION_H */

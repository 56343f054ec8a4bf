/*
 * hold.h - which application users the service told to wait, and until when
 *
 * Dataverse counts its limits per application user, whoever sends as one: runs,
 * jobs and sessions of any database of the cluster. What one of them is told
 * (429, Retry-After) holds for all. It is kept in one small file that every
 * process maps (pg_stat_tmp/dvmig.holds), so that a look before each request
 * costs a read of memory, needs no transaction and no shared_preload_libraries,
 * and works in a standby. No dump and no base backup has it. It outlives the run
 * that learnt it, and a restart; what is over counts for nothing.
 */
#ifndef DV_HOLD_H
#define DV_HOLD_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "options.h"
#include "session.h"

/* One application user of one organisation: host, port and client_id, hashed. Never 0. */
extern uint64 dv_hold_user(const DvServer *server, const DvCredentials *credentials);

/* Until when the user is to wait; 0 where it is not. No lock, no system call after the first look. */
extern TimestampTz dv_hold_until(uint64 user, TimestampTz now);

/* The service told the user to wait until then. An earlier end of a hold changes nothing. */
extern void dv_hold_tell(uint64 user, TimestampTz until, TimestampTz now);

/*
 * Tell of a wait before it begins; "number" is the application user's in its user
 * mapping, from 1. A run that begins has it in its message. In a short call it is
 * a notice, or an error (configuration_limit_exceeded) where the wait would take
 * longer than dvmig.request_timeout, or than statement_timeout has left.
 */
extern void dv_hold_bear(int number, TimestampTz until);

#endif							/* DV_HOLD_H */

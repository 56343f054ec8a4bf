/*
 * users.h - the application users of a job
 *
 * Dataverse counts its limits per application user. A run has lanes for them;
 * a job is one worker, which sends as all of them: each has a session and a
 * pace, and a request goes as the user who has most room.
 */
#ifndef DV_USERS_H
#define DV_USERS_H

#include "engine.h"

typedef struct DvUsers DvUsers;

/* Those that were let in, for the whole job: opened once, kept in rc->users. */
extern DvUsers *dv_users_of(DvRunContext *rc);

/* The user as whom a request would be sent at once; -1: none now. */
extern int	dv_users_choose(DvUsers *users, TimestampTz now);

/* Shall nothing be sent for a while? See dvmig.pause(). */
extern bool dv_users_are_paused(DvUsers *users);

/* May this one send now? */
extern bool dv_users_has_room(DvUsers *users, int user, TimestampTz now);

extern DvSession *dv_users_session(DvUsers *users, int user);
extern DvPace *dv_users_pace(DvUsers *users, int user);

/* Send as that user; see dv_session_send(). */
extern void dv_users_send(DvUsers *users, int user, const char *method, const char *path,
						  const char *body, size_t body_len, const char *const *headers, void *owner);

/* The next reply to any of them, or NULL after so long. */
extern DvHttpReply *dv_users_poll(DvUsers *users, long timeout_ms, void **owner);

/* One that is refused by now sends no more; false where no other is left. */
extern bool dv_users_dismiss(DvUsers *users, int user, const char *why);

/* Drop everything on its way. */
extern void dv_users_abandon(DvUsers *users);

#endif							/* DV_USERS_H */

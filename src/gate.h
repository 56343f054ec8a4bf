/*
 * gate.h - may this lane send now? One service protection gate per application user
 *
 * Dataverse counts its limits per application user: lanes that share one share
 * its limits, holds and what was learnt, in the run's shared memory. pace.c
 * decides; here are the locks and the clock. What a table takes is learnt by
 * all lanes together too. What another run, job or session of the user was told
 * to wait is looked up before each request, and what we are told is passed on: hold.h.
 */
#ifndef DV_GATE_H
#define DV_GATE_H

#include "engine.h"

/* Is there any use in preparing a request? Sets the phase to "hold" while not for a while. */
extern bool dv_gate_is_open(DvStep *step, TimestampTz now);

/* Take one of the user's places for a request with so many rows (0: a read); false where there is none. */
extern bool dv_gate_enter(DvStep *step, int rows, TimestampTz now);
extern void dv_gate_leave(DvStep *step);
extern void dv_gate_leave_all(DvStep *step);

/* Nothing to send: others of our user may have all places. */
extern void dv_gate_not_hungry(DvStep *step);

/* How long the run was throttled so far: the mean of its application users. By the leader. */
extern int64 dv_gate_held_ms(DvLanes *lanes);

/* What answers teach; see pace.h. */
extern void dv_gate_good(DvStep *step, const DvHttpReply *reply);
extern void dv_gate_throttled(DvStep *step, const DvThrottle *told);
extern void dv_gate_trouble(DvStep *step);
extern void dv_gate_hold(DvStep *step, TimestampTz until);
extern void dv_gate_deadlock(DvStep *step);
extern void dv_gate_bulk(DvStep *step, int rows, double seconds);
extern void dv_gate_each(DvStep *step, int rows, double seconds);
extern void dv_gate_refused(DvStep *step);
extern void dv_gate_shrink(DvStep *step, int rows);

/* Throttled is one of the application users, by number: a job sends as all of them. */
extern void dv_gate_user_throttled(DvRunContext *rc, int user, const DvThrottle *told);

/* Until when the user, by number, is to wait, whoever was told so; 0: it is not. To be called before a request is thought of. */
extern TimestampTz dv_gate_hear(DvRunContext *rc, int user, TimestampTz now);

/* Which application users are told to wait, and until when; NULL where none is, or not for long. palloc'ed. */
extern char *dv_gate_told(DvLanes *lanes);

/* Nothing goes by that session while the user, by number, is told to wait. */
extern void dv_gate_guard(DvRunContext *rc, DvSession *session, int user);

/* Rows of the next bulk request, tuned or learnt. */
extern int	dv_gate_bulk_rows(DvStep *step);

#endif							/* DV_GATE_H */

/*
 * lane.h - the lanes of a run: those it begins with, and what a helper does
 */
#ifndef DV_LANE_H
#define DV_LANE_H

#include "lanes.h"
#include "runstate.h"

/* By the leader: an application user was let in; its pace begins. */
extern void dv_lane_meet_user(DvRunContext *rc, int user, const DvWhoAmI *who);

/* By the leader: meet the other application users, and register the helpers. */
extern void dv_lane_begin(DvRunContext *rc, const DvRunPlan *plan, const DvWorkerArgs *args);

/* By the leader, now and then: as many lanes as dvmig.tune() asks for. */
extern void dv_lane_follow(DvRunContext *rc);

/* A helper's whole life, and what is told of an error that ends it. */
extern void dv_lane_help(DvRunContext *rc, const DvWorkerArgs *args);
extern void dv_lane_give_up(DvRunContext *rc, const ErrorData *error);

#endif							/* DV_LANE_H */

/*
 * limits.h - service protection: quotas of each user on each web server
 */
#ifndef SIM_LIMITS_H
#define SIM_LIMITS_H

#include "request.h"

/*
 * A request begins. False with a 429 answer written when a quota is used up.
 * After true, sim_limits_leave must be called with the time it took.
 */
extern bool sim_limits_enter(SimReq *r, int server, SimResp *resp);
extern void sim_limits_leave(SimReq *r, int server, int64_t us);

/* Add what is left of the quotas as response headers. */
extern void sim_limits_headers(const SimReq *r, int server, SimResp *resp);

/* Write a 429 answer: facet 0 count, 1 time, 2 concurrency. */
extern void sim_limits_refuse(const SimReq *r, SimResp *resp, int facet, int retry_after);

/* The user was told to wait by a fault, wherever he asks. */
extern void sim_limits_told(SimGuid user, int seconds);

extern void sim_limits_reset(void);

#endif							/* SIM_LIMITS_H */

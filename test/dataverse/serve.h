/*
 * serve.h - one HTTP request: who calls, what limits say, what it does
 */
#ifndef SIM_SERVE_H
#define SIM_SERVE_H

#include "request.h"

/* Answer requests below /_sim/; false when it is not one of them. */
extern bool sim_serve_control(SimReq *r, SimResp *resp);

/* Find the calling user, silently, so that faults can be matched by user. */
extern void sim_serve_identify(SimReq *r);

/* Serve a token or API request with everything a real answer has. */
extern void sim_serve(SimReq *r, SimResp *resp);

/* Add the headers that every API answer has. */
extern void sim_serve_headers(const SimReq *r, SimResp *resp);

/* Answer /_sim/... (simapi.c). */
extern void sim_api_run(SimReq *r, SimResp *resp);

#endif							/* SIM_SERVE_H */

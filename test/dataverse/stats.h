/*
 * stats.h - what happened so far, for tests and benchmarks
 */
#ifndef SIM_STATS_H
#define SIM_STATS_H

#include "util.h"

/* Kinds of requests that are counted apart. */
typedef enum SimKind
{
	SIM_K_TOKEN, SIM_K_WHOAMI, SIM_K_METADATA, SIM_K_GET, SIM_K_CREATE, SIM_K_UPDATE, SIM_K_DELETE, SIM_K_BATCH,
	SIM_K_CREATE_MULTIPLE, SIM_K_UPDATE_MULTIPLE, SIM_K_UPSERT_MULTIPLE, SIM_K_REF, SIM_K_ACTION, SIM_K_OTHER, SIM_N_KINDS
} SimKind;

/* Count a request of a kind (batch parts count separately from requests). */
extern void sim_stats_request(SimKind kind, bool in_batch);

/* Count committed rows and links. */
extern void sim_stats_rows(uint64_t created, uint64_t updated, uint64_t deleted, uint64_t linked);

/* A request begins and ends; "in" and "out" are bytes of its bodies. */
extern void sim_stats_begin(uint64_t in);
extern void sim_stats_end(int status, uint64_t out);

/* Count a bulk request's targets, and a 429 by facet (0 count, 1 time, 2 concurrency, 3 injected). */
extern void sim_stats_targets(uint64_t n);
extern void sim_stats_throttled(int facet);
extern void sim_stats_in_wait(void);	/* sent in the second half of a Retry-After */
extern void sim_stats_fault(void);

extern void sim_stats_json(SimBuf *out);
extern void sim_stats_reset(void);

#endif							/* SIM_STATS_H */

/*
 * bulk.h - CreateMultiple, UpdateMultiple, UpsertMultiple
 */
#ifndef SIM_BULK_H
#define SIM_BULK_H

#include "request.h"

/* Answer POST set/Microsoft.Dynamics.CRM.<name>; false with resp->err filled. */
extern bool sim_bulk_run(SimReq *r, SimTable *t, const char *name, SimResp *resp);

/* Set at the start: accept bulk bodies without reading them closely. */
extern bool sim_sink;

/* The sink's CreateMultiple: count targets, answer with their ids. */
extern bool sim_sink_create_multiple(SimReq *r, SimTable *t, SimResp *resp);

#endif							/* SIM_BULK_H */

/*
 * route.h - the operations that are neither single records nor bulk messages
 */
#ifndef SIM_ROUTE_H
#define SIM_ROUTE_H

#include "ref.h"

/* GET set and set/$count (query.c). */
extern bool sim_query_run(SimReq *r, SimTable *t, bool count_only, SimResp *resp);

/* The fetchXml query option, in part (fetch.c). */
extern bool sim_fetch_run(SimReq *r, SimTable *t, SimResp *resp);

/* GET of a record's navigation property (query.c). */
extern bool sim_query_navigate(SimReq *r, SimRef *ref, const SimProp *p, SimResp *resp);

/* POST, PUT, DELETE .../nav/$ref (associate.c). */
extern bool sim_associate(SimReq *r, SimRef *ref, const SimSegment *nav, SimResp *resp);

/* PUT of a whole activity party list (associate.c). */
extern bool sim_replace_collection(SimReq *r, SimRef *ref, const SimProp *p, SimResp *resp);

/* POST $batch (batch.c). */
extern void sim_batch_run(SimReq *r, SimResp *resp);

/* GET EntityDefinitions..., sdkmessagefilters (entitydef.c, messages.c). */
extern bool sim_entitydef_run(SimReq *r, SimResp *resp);
extern bool sim_messages_run(SimReq *r, SimResp *resp);
extern bool sim_csdl_run(SimReq *r, SimResp *resp);

/* Functions and actions without a table; false and no error when unknown (functions.c). */
extern bool sim_function_run(SimReq *r, SimResp *resp, bool *known);
extern void sim_put_privileges(SimGuid principal, SimResp *resp);

/* File columns by upload; images too (files.c). */
extern bool sim_file_run(SimReq *r, SimRef *ref, const SimColumn *c, SimResp *resp);

#endif							/* SIM_ROUTE_H */

/*
 * crud.h - single records: POST, GET, PATCH, PUT, DELETE
 */
#ifndef SIM_CRUD_H
#define SIM_CRUD_H

#include "ref.h"

/* Join the change set's transaction or begin one; end it as "ok" says. */
extern SimTxn *sim_crud_begin(SimReq *r, SimTxn *own, bool write);
extern void sim_crud_end(SimReq *r, SimTxn *own, bool ok);

extern bool sim_crud_create(SimReq *r, SimTable *t, SimResp *resp);
extern bool sim_crud_get(SimReq *r, SimRef *ref, SimResp *resp);
extern bool sim_crud_patch(SimReq *r, SimRef *ref, SimResp *resp);
extern bool sim_crud_delete(SimReq *r, SimRef *ref, SimResp *resp);

/* GET, PUT or DELETE of one property of a record. */
extern bool sim_crud_property(SimReq *r, SimRef *ref, const SimProp *p, SimResp *resp);

#endif							/* SIM_CRUD_H */

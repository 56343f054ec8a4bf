/*
 * apply.h - a payload becomes a record: what depends on other records
 *
 * All functions need an open write transaction.
 */
#ifndef SIM_APPLY_H
#define SIM_APPLY_H

#include "record.h"

/* Resolve the lookups of a record to ids; refuses those that point at nothing. */
extern bool sim_apply_binds(SimReq *r, SimRec *rec, SimErr *e);

/*
 * Create the record (lookups are resolved first unless "bound"), its nested
 * records and what automation adds. The id comes back in *id.
 */
extern bool sim_apply_create(SimReq *r, SimTxn *x, SimRec *rec, bool bound, SimGuid *id, SimErr *e);

/* Update a live record. */
extern bool sim_apply_update(SimReq *r, SimTxn *x, SimRec *rec, uint32_t slot, SimErr *e);

/* Delete a live record; refused when others point at it and the switch says so. */
extern bool sim_apply_delete(SimTxn *x, SimTable *t, uint32_t slot, SimErr *e);

/* Set one column as somebody else: automation, tests. */
extern bool sim_apply_set(SimTxn *x, SimTable *t, uint32_t slot, const SimVal *vals, int n, SimGuid as, SimErr *e);

/* The refusal for an id that exists already. */
extern bool sim_apply_duplicate(const SimTable *t, SimErr *e);

#endif							/* SIM_APPLY_H */

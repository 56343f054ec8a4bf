/*
 * ref.h - references to records: accounts(<guid>), accounts(code='A'), $1
 */
#ifndef SIM_REF_H
#define SIM_REF_H

#include "request.h"

/* A key predicate, understood but not looked up yet. */
typedef struct SimRef
{
	SimTable   *table;
	bool		by_id;
	SimGuid		id;
	const SimKey *key;			/* when not by id */
	SimVal	   *vals;			/* in the key's column order */
} SimRef;

/*
 * Understand the text between parentheses. "in_body" applies the rule for
 * special characters of bodies instead of that for URLs.
 */
extern bool sim_ref_key(SimArena *a, SimTable *t, SimStr text, bool in_body, SimRef *out, SimErr *e);

/* Understand a whole reference as it stands in @odata.bind and @odata.id. */
extern bool sim_ref_parse(const SimReq *r, SimStr text, SimRef *out, SimErr *e);

/* Find the record; SIM_NO_SLOT when there is none. Needs the store's lock. */
extern uint32_t sim_ref_find(const SimRef *ref);

/* The refusal for a reference to nothing, with the status for an id and a key. */
extern bool sim_ref_missing(const SimRef *ref, int status, SimErr *e);

#endif							/* SIM_REF_H */

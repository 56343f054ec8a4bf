/*
 * record.h - the payload of a create or update, read and checked by itself
 *
 * Reading needs no lock: what depends on other records (lookups, keys, the
 * record's own state) is left to apply.c.
 */
#ifndef SIM_RECORD_H
#define SIM_RECORD_H

#include "ref.h"
#include "value.h"

typedef struct SimRec SimRec;

/* A lookup to be resolved: vals[val] takes the id. */
typedef struct SimBind
{
	int			val;			/* -1: the owner */
	const SimProp *prop;
	SimRef		ref;
} SimBind;

/* Nested records of one navigation property, or references to bind. */
typedef struct SimChildren
{
	const SimProp *prop;
	SimRec	  **recs;
	SimRef	   *refs;
	int			n;
	struct SimChildren *next;
} SimChildren;

struct SimRec
{
	SimTable   *table;
	SimVal	   *vals;
	int			n_vals;
	int			cap_vals;
	SimBind    *binds;
	int			n_binds;
	int			cap_binds;
	SimChildren *children;
	bool		has_id;
	SimGuid		id;
	bool		typed;			/* @odata.type was there */
	SimStr		odata_id;		/* .s NULL when absent */
	SimStr		etag;			/* @odata.etag of an update */
	int64_t		overridden;		/* seconds, or SIM_NO_TIME */
	bool		has_owner;
	const SimColumn *not_on_create;	/* first column that forbids it */
	const SimColumn *not_on_update;
	uint16_t	n_required;		/* system required columns given */
};

/*
 * Read one object. Fills the record, or "e" and returns false. The caller
 * checks what follows the object.
 */
extern bool sim_rec_read(SimReq *r, SimJson *j, SimTable *t, SimRec *rec, SimErr *e);

/* Read a whole request body as one record. */
extern bool sim_rec_read_body(SimReq *r, SimTable *t, SimRec *rec, SimErr *e);

/* Read the value of one property from {"value": ...} as a record. */
extern bool sim_rec_read_property(SimReq *r, SimTable *t, const char *name, SimRec *rec, SimErr *e);

/* Begin an empty record. */
extern void sim_rec_init(SimRec *rec, SimTable *t);

/* Append one value; the caller fills it. */
extern SimVal *sim_rec_add(SimReq *r, SimRec *rec, const SimColumn *c);

/* The last value given for a column, or NULL. */
extern SimVal *sim_rec_find(const SimRec *rec, const SimColumn *c);

/* Turn the parser's error into a refusal. */
extern bool sim_rec_syntax(const SimJson *j, SimErr *e);

#endif							/* SIM_RECORD_H */

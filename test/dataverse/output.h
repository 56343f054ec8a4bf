/*
 * output.h - records as JSON: selected columns, annotations, expanded parents
 */
#ifndef SIM_OUTPUT_H
#define SIM_OUTPUT_H

#include "request.h"

typedef struct SimOutput SimOutput;

typedef struct SimExpand
{
	const SimProp *prop;
	SimOutput  *output;
	struct SimExpand *next;
} SimExpand;

struct SimOutput
{
	SimTable   *table;
	const SimColumn **columns;	/* NULL: all */
	int			n_columns;
	bool		annotations;	/* formatted values, lookup names */
	bool		nulls;			/* write null columns too */
	bool		etag;
	SimExpand  *expand;
};

/* Understand $select and $expand; needs no lock. */
extern bool sim_output_prepare(const SimReq *r, SimTable *t, const char *select, const char *expand, SimOutput *out, SimErr *e);

/* Append one record as a JSON object; "context" is written first unless NULL. Needs the lock. */
extern void sim_output_record(SimBuf *b, const SimOutput *o, const SimSlot *slot, const char *context);

/* What a record is linked to by the collection "x", as an array. */
extern void sim_output_members(SimBuf *b, const SimExpand *x, const SimSlot *slot);

/* Append the members of one column, preceded by a comma where needed. */
extern void sim_output_column(SimBuf *b, const SimOutput *o, const SimSlot *slot, const SimColumn *c);

#endif							/* SIM_OUTPUT_H */

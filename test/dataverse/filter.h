/*
 * filter.h - $filter expressions, parsed once and asked for every record
 */
#ifndef SIM_FILTER_H
#define SIM_FILTER_H

#include "request.h"
#include "value.h"

typedef enum SimFilterOp
{
	SIM_F_AND, SIM_F_OR, SIM_F_NOT,
	SIM_F_EQ, SIM_F_NE, SIM_F_GT, SIM_F_GE, SIM_F_LT, SIM_F_LE,
	SIM_F_CONTAINS, SIM_F_STARTS, SIM_F_ENDS, SIM_F_IN
} SimFilterOp;

typedef struct SimFilter
{
	SimFilterOp op;
	struct SimFilter *left;
	struct SimFilter *right;
	const SimColumn *via;		/* lookup to the table that has the column, or NULL */
	SimTable   *via_table;
	const SimColumn *column;
	SimVal		value;			/* null: compare with null */
	SimStr		folded;			/* text to look for, case-folded */
	SimVal	   *list;			/* SIM_F_IN */
	uint64_t   *hashes;			/* of the list's values, sorted */
	int			n;
} SimFilter;

/* Parse an expression; NULL with "e" filled when it is wrong. */
extern SimFilter *sim_filter_parse(const SimReq *r, SimTable *t, const char *text, SimErr *e);

/* Whether a record passes; unknown (null) counts as no. Needs the lock. */
extern bool sim_filter_match(const SimFilter *f, const SimTable *t, const SimSlot *slot);

/* A part of the conjunction that names ids outright, or NULL. */
extern const SimFilter *sim_filter_ids(const SimFilter *f);

/* Order of two values of one column: negative, 0, positive. */
extern int	sim_value_compare(const SimColumn *c, const SimVal *a, const SimVal *b);

#endif							/* SIM_FILTER_H */

/*
 * keys.h - SQL over the source key of a staging table, and rows as array parameters
 *
 * What is recorded for many rows goes in one statement, which joins the arrays
 * of their keys: unnest($1, $2, ...) u(k1, k2, ...).
 */
#ifndef DV_KEYS_H
#define DV_KEYS_H

#include "projection.h"

/* Array parameters of a statement at most: the keys, and what goes with each row. */
#define DV_ARRAYS_MAX	(INDEX_MAX_KEYS + 16)

typedef struct DvArrays
{
	int			n;				/* rows */
	int			count;			/* parameters */
	Oid			types[DV_ARRAYS_MAX];
	Datum		values[DV_ARRAYS_MAX];
} DvArrays;

/* k1, k2 with a prefix on each: "", "x." */
extern char *dv_keys_list(const DvProjection *p, const char *prefix);

/* a.k1 = b.k1 AND a.k2 = b.k2 */
extern char *dv_keys_match(const DvProjection *p, const char *a, const char *b);

/* " AND (k1, k2) > ($1, $2)", with a prefix on each key */
extern char *dv_keys_behind(const DvProjection *p, const char *prefix);

/* unnest($1, $2, ...) u(k1, k2, more): as many parameters as there are keys, and those named in "more", between commas; NULL: none */
extern char *dv_keys_unnest(const DvProjection *p, const char *more);

/* Begin with the keys of n rows, each an array of the key's values. */
extern void dv_keys_arrays(DvArrays *a, const DvProjection *p, Datum *const *keys, int n);

/* One parameter more: an element for each row, some null where "nulls" is not NULL. */
extern void dv_keys_add(DvArrays *a, Datum *elements, bool *nulls, Oid type);

#endif							/* DV_KEYS_H */

/*
 * keys.c - SQL over the source key of a staging table, and rows as array parameters
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/lsyscache.h"

#include "keys.h"

char *
dv_keys_list(const DvProjection *p, const char *prefix)
{
	StringInfoData sql;
	int			i;

	initStringInfo(&sql);
	for (i = 0; i < p->nkeys; i++)
		appendStringInfo(&sql, "%s%s%s", i ? ", " : "", prefix, p->keys[i].column);
	return sql.data;
}

char *
dv_keys_match(const DvProjection *p, const char *a, const char *b)
{
	StringInfoData sql;
	int			i;

	initStringInfo(&sql);
	for (i = 0; i < p->nkeys; i++)
		appendStringInfo(&sql, "%s%s.%s = %s.%s", i ? " AND " : "", a, p->keys[i].column, b, p->keys[i].column);
	return sql.data;
}

char *
dv_keys_behind(const DvProjection *p, const char *prefix)
{
	StringInfoData sql;
	int			i;

	initStringInfo(&sql);
	appendStringInfo(&sql, " AND (%s) > (", dv_keys_list(p, prefix));
	for (i = 0; i < p->nkeys; i++)
		appendStringInfo(&sql, "%s$%d", i ? ", " : "", i + 1);
	appendStringInfoChar(&sql, ')');
	return sql.data;
}

char *
dv_keys_unnest(const DvProjection *p, const char *more)
{
	StringInfoData sql;
	const char *at;
	int			n = p->nkeys + (more != NULL);
	int			i;

	for (at = more; at != NULL && (at = strchr(at, ',')) != NULL; at++)
		n++;
	initStringInfo(&sql);
	appendStringInfoString(&sql, "unnest(");
	for (i = 0; i < n; i++)
		appendStringInfo(&sql, "%s$%d", i ? ", " : "", i + 1);
	appendStringInfo(&sql, ") u(%s%s%s)", dv_keys_list(p, ""), more ? ", " : "", more ? more : "");
	return sql.data;
}

void
dv_keys_add(DvArrays *a, Datum *elements, bool *nulls, Oid type)
{
	int			lower = 1;
	int			n = a->n;
	int16		len;
	bool		byval;
	char		align;

	if (a->count >= DV_ARRAYS_MAX)
		elog(ERROR, "too many parameters for %d rows", n);
	get_typlenbyvalalign(type, &len, &byval, &align);
	a->types[a->count] = get_array_type(type);
	a->values[a->count++] = PointerGetDatum(construct_md_array(elements, nulls, 1, &n, &lower, type, len, byval, align));
}

void
dv_keys_arrays(DvArrays *a, const DvProjection *p, Datum *const *keys, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * (n + 1));
	int			i;
	int			k;

	a->n = n;
	a->count = 0;
	for (k = 0; k < p->nkeys; k++)
	{
		for (i = 0; i < n; i++)
			elements[i] = keys[i][k];
		dv_keys_add(a, elements, NULL, p->keys[k].type);
	}
}

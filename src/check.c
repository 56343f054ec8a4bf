/*
 * check.c - what dvmig.check() counts with
 *
 * Length as Dataverse measures it, and an aggregate that keeps the first few
 * of any number of source keys in bounded memory.
 */
#include "postgres.h"

#include "access/tupmacs.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "compat.h"

PG_FUNCTION_INFO_V1(dv_utf16_length);
PG_FUNCTION_INFO_V1(dv_first_keys_add);
PG_FUNCTION_INFO_V1(dv_first_keys_end);

/* More keys than this are no sample; bounds memory whatever is asked for. */
#define KEYS_MAX	10000

/* The smallest keys so far, in ascending order, each with its text. */
typedef struct FirstKeys
{
	int			wanted;
	int			n;
	int16		typlen;
	bool		typbyval;
	FmgrInfo   *compare;
	Datum	   *values;
	Datum	   *labels;
} FirstKeys;

/*
 * dvmig._utf16_length(source text) RETURNS int
 *
 * UTF-16 code units of a text, in which Dataverse measures its columns: two
 * for a character beyond the basic plane, one for any other. In databases that
 * are not UTF-8 characters are counted: their encodings hold (next to) none
 * beyond the basic plane.
 */
Datum
dv_utf16_length(PG_FUNCTION_ARGS)
{
	text	   *source = PG_GETARG_TEXT_PP(0);
	const unsigned char *p = (const unsigned char *) VARDATA_ANY(source);
	const unsigned char *end = p + VARSIZE_ANY_EXHDR(source);
	int			units = 0;

	if (GetDatabaseEncoding() != PG_UTF8)
		units = pg_mbstrlen_with_len((const char *) p, (int) (end - p));
	else
		for (; p < end; p++)
			units += (*p & 0xC0) != 0x80 ? (*p >= 0xF0 ? 2 : 1) : 0;
	PG_FREE_IF_COPY(source, 0);
	PG_RETURN_INT32(units);
}

static FirstKeys *
first_keys_new(Oid type, int wanted, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_CMP_PROC_FINFO);
	FirstKeys  *state = palloc0(sizeof(FirstKeys));

	if (!OidIsValid(entry->cmp_proc_finfo.fn_oid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("could not identify a comparison function for type %s", format_type_be(type))));
	state->wanted = Min(Max(wanted, 0), KEYS_MAX);
	state->typlen = entry->typlen;
	state->typbyval = entry->typbyval;
	state->compare = &entry->cmp_proc_finfo;
	state->values = palloc(sizeof(Datum) * (state->wanted + 1));
	state->labels = palloc(sizeof(Datum) * (state->wanted + 1));
	MemoryContextSwitchTo(old);
	return state;
}

/*
 * Where the value belongs among those kept. Texts are compared by their bytes:
 * any order will do for a sample, and this one does not differ by locale.
 */
static int
first_keys_place(const FirstKeys *state, Datum value)
{
	int			low = 0;
	int			high = state->n;

	while (low < high)
	{
		int			mid = (low + high) / 2;

		if (DatumGetInt32(FunctionCall2Coll(state->compare, C_COLLATION_OID, state->values[mid], value)) <= 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void
first_keys_put(FirstKeys *state, int place, Datum value, Datum label)
{
	if (state->n == state->wanted)
	{
		state->n--;
		if (!state->typbyval)
			pfree(DatumGetPointer(state->values[state->n]));
		pfree(DatumGetPointer(state->labels[state->n]));
	}
	memmove(state->values + place + 1, state->values + place, sizeof(Datum) * (state->n - place));
	memmove(state->labels + place + 1, state->labels + place, sizeof(Datum) * (state->n - place));
	state->values[place] = datumCopy(value, state->typbyval, state->typlen);
	state->labels[place] = datumCopy(label, false, -1);
	state->n++;
}

/*
 * dvmig._first_keys_add(state internal, sort_value "any", label text, wanted int)
 *
 * Step of the aggregate: keep the row if its key is among the first. Rows
 * without a key or label are passed over.
 */
Datum
dv_first_keys_add(PG_FUNCTION_ARGS)
{
	FirstKeys  *state = PG_ARGISNULL(0) ? NULL : (FirstKeys *) PG_GETARG_POINTER(0);
	MemoryContext context;
	MemoryContext old;
	Datum		value;
	int			place;

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "dvmig._first_keys_add was called outside an aggregate");
	if (state == NULL)
		state = first_keys_new(get_fn_expr_argtype(fcinfo->flinfo, 1),
							   PG_ARGISNULL(3) ? 0 : PG_GETARG_INT32(3), context);
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2) || state->wanted == 0)
		PG_RETURN_POINTER(state);

	value = state->typlen == -1 ? PointerGetDatum(PG_DETOAST_DATUM(PG_GETARG_DATUM(1))) : PG_GETARG_DATUM(1);
	place = first_keys_place(state, value);
	if (place < state->wanted)
	{
		old = MemoryContextSwitchTo(context);
		first_keys_put(state, place, value, PointerGetDatum(PG_GETARG_TEXT_PP(2)));
		MemoryContextSwitchTo(old);
	}
	PG_RETURN_POINTER(state);
}

/* dvmig._first_keys_end(state internal) RETURNS text[]: the keys, in order. */
Datum
dv_first_keys_end(PG_FUNCTION_ARGS)
{
	FirstKeys  *state = PG_ARGISNULL(0) ? NULL : (FirstKeys *) PG_GETARG_POINTER(0);

	if (state == NULL || state->n == 0)
		PG_RETURN_NULL();
	PG_RETURN_ARRAYTYPE_P(construct_array(state->labels, state->n, TEXTOID, -1, false, TYPALIGN_INT));
}

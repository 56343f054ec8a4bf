/*
 * choice.c - a source text to the value of a choice column
 *
 * The texts a column knows are compiled into the projection as one jsonb
 * constant: a lookup is then a binary search, with no table read per row.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

PG_FUNCTION_INFO_V1(dv_choice);

/* Value stored under prefix || key, or false. */
static bool
choice_find(Jsonb *texts, char prefix, const char *key, size_t len, int32 *value)
{
	JsonbValue	found;
	char	   *name = palloc(len + 1);
	bool		known;

	name[0] = prefix;
	memcpy(name + 1, key, len);
	known = getKeyJsonValueFromContainer(&texts->root, name, (int) len + 1, &found) != NULL &&
		found.type == jbvNumeric;
	if (known)
		*value = DatumGetInt32(DirectFunctionCall1(numeric_int4,
												   NumericGetDatum(found.val.numeric)));
	pfree(name);
	return known;
}

/*
 * dv_choice(source text, texts jsonb) returns the choice value: an entry of
 * choice_map ('=' and the exact text), else a label or value ('~' and the text
 * in lower case). NULL where the text is unknown.
 */
Datum
dv_choice(PG_FUNCTION_ARGS)
{
	text	   *source = PG_GETARG_TEXT_PP(0);
	Jsonb	   *texts = PG_GETARG_JSONB_P(1);
	char	   *lowered;
	int32		value;

	if (choice_find(texts, '=', VARDATA_ANY(source), VARSIZE_ANY_EXHDR(source), &value))
		PG_RETURN_INT32(value);
	lowered = str_tolower(VARDATA_ANY(source), VARSIZE_ANY_EXHDR(source), DEFAULT_COLLATION_OID);
	if (choice_find(texts, '~', lowered, strlen(lowered), &value))
		PG_RETURN_INT32(value);
	PG_RETURN_NULL();
}

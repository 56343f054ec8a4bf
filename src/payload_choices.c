/*
 * payload_choices.c - values of a choices column as JSON: "1,9"
 *
 * From a text list or an array of whole numbers. No selection at all counts as
 * null, which is how Dataverse clears the column.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "compat.h"
#include "payload_write.h"

/* Dataverse refuses more selections with 0x80050222. */
#define MAX_CHOICES		150

static const char not_a_list[] = "the text is not a list of whole numbers separated by commas";
static const char null_choice[] = "the array of choice values has a null element";
static const char too_many[] = "more than 150 choices are selected";

/* One whole number with blanks around it; NULL where there is none. */
static const char *
append_choice(StringInfo out, const char *p, const char *end)
{
	const char *start;

	while (p < end && *p == ' ')
		p++;
	start = p;
	if (p < end && *p == '-')
		p++;
	if (p == end || *p < '0' || *p > '9')
		return NULL;
	while (p < end && *p >= '0' && *p <= '9')
		p++;
	if (p - start > 11)			/* sign and ten digits of 32 bits */
		return NULL;
	appendBinaryStringInfo(out, start, (int) (p - start));
	while (p < end && *p == ' ')
		p++;
	return p;
}

const char *
dv_payload_write_choices_text(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	struct varlena *v = PG_DETOAST_DATUM_PACKED(value);
	const char *p = VARDATA_ANY(v);
	const char *end = p + VARSIZE_ANY_EXHDR(v);
	const char *fault = NULL;
	int			n = 0;

	(void) plan;
	while (end > p && end[-1] == ' ')
		end--;
	if (p == end)
		fault = dv_payload_is_null;
	else
		appendStringInfoChar(out, '"');
	while (fault == NULL)
	{
		p = append_choice(out, p, end);
		if (p == NULL || (p < end && *p != ','))
			fault = not_a_list;
		else if (++n > MAX_CHOICES)
			fault = too_many;
		else if (p == end)
			break;
		else
			appendStringInfoChar(out, *p++);
	}
	appendStringInfoChar(out, '"');
	if ((Pointer) v != DatumGetPointer(value))
		pfree(v);
	return fault;
}

static int64
element_value(Oid element, Datum value)
{
	switch (element)
	{
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		default:
			return DatumGetInt64(value);
	}
}

const char *
dv_payload_write_choices_array(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	Oid			element = ARR_ELEMTYPE(array);
	int			size = element == INT2OID ? 2 : element == INT4OID ? 4 : 8;
	char		align = element == INT2OID ? TYPALIGN_SHORT : element == INT4OID ? TYPALIGN_INT : TYPALIGN_DOUBLE;
	Datum	   *values;
	bool	   *nulls;
	int			n;
	char		digits[24];		/* sign, 19 digits, terminator */
	const char *fault = NULL;

	(void) plan;
	deconstruct_array(array, element, size, size < 8 || FLOAT8PASSBYVAL, align, &values, &nulls, &n);
	if (n == 0)
		fault = dv_payload_is_null;
	else if (n > MAX_CHOICES)
		fault = too_many;
	appendStringInfoChar(out, '"');
	for (int i = 0; i < n && fault == NULL; i++)
	{
		if (nulls[i])
			fault = null_choice;
		else
		{
			if (i > 0)
				appendStringInfoChar(out, ',');
			appendBinaryStringInfo(out, digits, pg_lltoa(element_value(element, values[i]), digits));
		}
	}
	appendStringInfoChar(out, '"');
	pfree(values);
	pfree(nulls);
	if ((Pointer) array != DatumGetPointer(value))
		pfree(array);
	return fault;
}

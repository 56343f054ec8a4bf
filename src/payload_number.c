/*
 * payload_number.c - numbers and booleans as JSON
 *
 * Nothing here depends on a setting: extra_float_digits does not matter
 * because floats are written as the shortest decimal that reads back alike.
 */
#include "postgres.h"

#include <errno.h>
#include <math.h>

#include "common/shortest_dec.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "payload_write.h"

static const char not_a_number[] = "the value is NaN";
static const char infinite[] = "the value is infinite";
static const char has_fraction[] = "the column takes whole numbers and the value has a fraction";
static const char out_of_range[] = "the value is outside the range of 64-bit whole numbers";

/* Plain notation up to this many places before or after the point. */
#define PLAIN_PLACES	30

const char *
dv_payload_write_bool(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	(void) plan;
	if (DatumGetBool(value))
		appendBinaryStringInfo(out, "true", 4);
	else
		appendBinaryStringInfo(out, "false", 5);
	return NULL;
}

static const char *
write_integer(StringInfo out, int64 value, bool quoted)
{
	char		digits[26];		/* sign, 19 digits, two quotes, terminator */
	int			len = 1;

	digits[0] = '"';
	len += pg_lltoa(value, digits + 1);
	digits[len] = '"';
	if (quoted)
		appendBinaryStringInfo(out, digits, len + 1);
	else
		appendBinaryStringInfo(out, digits + 1, len - 1);
	return NULL;
}

const char *
dv_payload_write_int2(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	(void) plan;
	return write_integer(out, DatumGetInt16(value), false);
}

const char *
dv_payload_write_int4(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	(void) plan;
	return write_integer(out, DatumGetInt32(value), false);
}

const char *
dv_payload_write_int8(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	(void) plan;
	return write_integer(out, DatumGetInt64(value), false);
}

const char *
dv_payload_write_quoted_int2(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	(void) plan;
	return write_integer(out, DatumGetInt16(value), true);
}

const char *
dv_payload_write_quoted_int4(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	(void) plan;
	return write_integer(out, DatumGetInt32(value), true);
}

const char *
dv_payload_write_quoted_int8(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	(void) plan;
	return write_integer(out, DatumGetInt64(value), true);
}

/*
 * numeric_out() writes plain decimal notation with a digit before the point,
 * which is a JSON number as it stands. Sets *digits (to be freed) or returns
 * a fault.
 */
static const char *
numeric_digits(Datum value, char **digits)
{
	Numeric		number = DatumGetNumeric(value);

	if (numeric_is_nan(number))
		return not_a_number;
	if (numeric_is_inf(number))
		return infinite;
	*digits = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(number)));
	if ((Pointer) number != DatumGetPointer(value))
		pfree(number);
	return NULL;
}

const char *
dv_payload_write_numeric(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	char	   *digits;
	const char *fault = numeric_digits(value, &digits);

	(void) plan;
	if (fault != NULL)
		return fault;
	appendStringInfoString(out, digits);
	pfree(digits);
	return NULL;
}

const char *
dv_payload_write_quoted_numeric(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	const char *fault;

	appendStringInfoChar(out, '"');
	fault = dv_payload_write_numeric(out, value, plan);
	appendStringInfoChar(out, '"');
	return fault;
}

const char *
dv_payload_write_whole_numeric(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	char	   *digits;
	char	   *point;
	char	   *end;
	long long	whole;
	const char *fault = numeric_digits(value, &digits);

	(void) plan;
	if (fault != NULL)
		return fault;

	point = strchr(digits, '.');
	if (point != NULL)
	{
		if (point[1 + strspn(point + 1, "0")] != '\0')
			fault = has_fraction;
		*point = '\0';
	}
	errno = 0;
	whole = strtoll(digits, &end, 10);
	if (fault == NULL && errno == ERANGE)
		fault = out_of_range;
	pfree(digits);
	return fault != NULL ? fault : write_integer(out, whole, false);
}

/*
 * Write a finite float from its shortest decimal, which may come as 1.5e+06.
 * The exponent is worked out, because a strict reader of a decimal or whole
 * number need not take one.
 */
static const char *
write_shortest(StringInfo out, const char *text, int len)
{
	const char *e = memchr(text, 'e', len);
	char		digits[40];
	int			ndigits = 0;
	int			point = -1;		/* number of digits before the decimal point */
	int			exponent;

	if (e == NULL || (exponent = atoi(e + 1)) > PLAIN_PLACES || exponent < -PLAIN_PLACES)
	{
		appendBinaryStringInfo(out, text, len);
		return NULL;
	}
	if (*text == '-')
		appendStringInfoChar(out, *text++);
	for (; text < e; text++)
	{
		if (*text == '.')
			point = ndigits;
		else
			digits[ndigits++] = *text;
	}
	point = (point < 0 ? ndigits : point) + exponent;
	if (point <= 0)
	{
		appendBinaryStringInfo(out, "0.", 2);
		for (; point < 0; point++)
			appendStringInfoChar(out, '0');
		appendBinaryStringInfo(out, digits, ndigits);
		return NULL;
	}
	appendBinaryStringInfo(out, digits, Min(point, ndigits));
	for (int i = ndigits; i < point; i++)
		appendStringInfoChar(out, '0');
	if (point < ndigits)
	{
		appendStringInfoChar(out, '.');
		appendBinaryStringInfo(out, digits + point, ndigits - point);
	}
	return NULL;
}

const char *
dv_payload_write_float4(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	float4		number = DatumGetFloat4(value);
	char		text[FLOAT_SHORTEST_DECIMAL_LEN];

	(void) plan;
	if (isnan(number))
		return not_a_number;
	if (isinf(number))
		return infinite;
	return write_shortest(out, text, float_to_shortest_decimal_buf(number, text));
}

const char *
dv_payload_write_float8(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	float8		number = DatumGetFloat8(value);
	char		text[DOUBLE_SHORTEST_DECIMAL_LEN];

	(void) plan;
	if (isnan(number))
		return not_a_number;
	if (isinf(number))
		return infinite;
	return write_shortest(out, text, double_to_shortest_decimal_buf(number, text));
}

/*
 * payload_types.c - which type can be written for which target
 *
 * One table decides both what the mapping accepts and which writer is used, so
 * that the two cannot differ. What is refused gets the cast that would help.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "parser/parse_coerce.h"
#include "utils/lsyscache.h"

#include "payload_write.h"

/* One accepted pair and its writer. */
typedef struct Accepted
{
	Oid			type;
	DvTargetType target;
	DvPayloadWriter write;
} Accepted;

static const Accepted accepted[] = {
	{TEXTOID, DV_TARGET_TEXT, dv_payload_write_text},
	{VARCHAROID, DV_TARGET_TEXT, dv_payload_write_text},
	{BPCHAROID, DV_TARGET_TEXT, dv_payload_write_char},
	{NAMEOID, DV_TARGET_TEXT, dv_payload_write_name},
	{JSONOID, DV_TARGET_TEXT, dv_payload_write_text},
	{JSONBOID, DV_TARGET_TEXT, dv_payload_write_jsonb},
	{UUIDOID, DV_TARGET_TEXT, dv_payload_write_uuid},
	{INT2OID, DV_TARGET_TEXT, dv_payload_write_quoted_int2},
	{INT4OID, DV_TARGET_TEXT, dv_payload_write_quoted_int4},
	{INT8OID, DV_TARGET_TEXT, dv_payload_write_quoted_int8},
	{NUMERICOID, DV_TARGET_TEXT, dv_payload_write_quoted_numeric},

	{INT2OID, DV_TARGET_INTEGER, dv_payload_write_int2},
	{INT4OID, DV_TARGET_INTEGER, dv_payload_write_int4},
	{INT8OID, DV_TARGET_INTEGER, dv_payload_write_int8},
	{NUMERICOID, DV_TARGET_INTEGER, dv_payload_write_whole_numeric},

	{INT2OID, DV_TARGET_NUMBER, dv_payload_write_int2},
	{INT4OID, DV_TARGET_NUMBER, dv_payload_write_int4},
	{INT8OID, DV_TARGET_NUMBER, dv_payload_write_int8},
	{NUMERICOID, DV_TARGET_NUMBER, dv_payload_write_numeric},
	{FLOAT4OID, DV_TARGET_NUMBER, dv_payload_write_float4},
	{FLOAT8OID, DV_TARGET_NUMBER, dv_payload_write_float8},

	{BOOLOID, DV_TARGET_BOOLEAN, dv_payload_write_bool},

	{UUIDOID, DV_TARGET_GUID, dv_payload_write_uuid},

	{DATEOID, DV_TARGET_DATE, dv_payload_write_date},
	{TIMESTAMPOID, DV_TARGET_DATE, dv_payload_write_timestamp_date},
	{TIMESTAMPTZOID, DV_TARGET_DATE, dv_payload_write_timestamp_date},

	{TIMESTAMPTZOID, DV_TARGET_INSTANT, dv_payload_write_timestamp},
	{TIMESTAMPOID, DV_TARGET_INSTANT, dv_payload_write_timestamp},
	{DATEOID, DV_TARGET_INSTANT, dv_payload_write_date_at_midnight},

	/* of an instant the clock of UTC, as for dates */
	{TIMESTAMPOID, DV_TARGET_WALL_CLOCK, dv_payload_write_timestamp},
	{TIMESTAMPTZOID, DV_TARGET_WALL_CLOCK, dv_payload_write_timestamp},
	{DATEOID, DV_TARGET_WALL_CLOCK, dv_payload_write_date_at_midnight},

	{BYTEAOID, DV_TARGET_BINARY, dv_payload_write_bytes},

	{TEXTOID, DV_TARGET_CHOICES, dv_payload_write_choices_text},
	{VARCHAROID, DV_TARGET_CHOICES, dv_payload_write_choices_text},
	{BPCHAROID, DV_TARGET_CHOICES, dv_payload_write_choices_text},
	{INT2OID, DV_TARGET_CHOICES, dv_payload_write_quoted_int2},
	{INT4OID, DV_TARGET_CHOICES, dv_payload_write_quoted_int4},
	{INT8OID, DV_TARGET_CHOICES, dv_payload_write_quoted_int8},
	{INT2ARRAYOID, DV_TARGET_CHOICES, dv_payload_write_choices_array},
	{INT4ARRAYOID, DV_TARGET_CHOICES, dv_payload_write_choices_array},
	{INT8ARRAYOID, DV_TARGET_CHOICES, dv_payload_write_choices_array},

	{UUIDOID, DV_TARGET_LOOKUP, dv_payload_write_lookup},
	{TEXTOID, DV_TARGET_RAW, dv_payload_write_raw},
};

DvPayloadWriter
dv_payload_writer(Oid type, DvTargetType target)
{
	for (int i = 0; i < (int) lengthof(accepted); i++)
		if (accepted[i].type == type && accepted[i].target == target)
			return accepted[i].write;
	if (target == DV_TARGET_TEXT && get_typtype(type) == TYPTYPE_ENUM)
		return dv_payload_write_enum;
	return NULL;
}

static bool
is_text(Oid type)
{
	return TypeCategory(type) == TYPCATEGORY_STRING;
}

/* Types that cast to each other without restriction. */
static bool
is_number(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID ||
		type == NUMERICOID || type == FLOAT4OID || type == FLOAT8OID;
}

/* Cast to a whole number: from floats by way of numeric, which rounds nothing. */
static const char *
integer_cast(Oid type)
{
	if (type == FLOAT4OID || type == FLOAT8OID || type == CASHOID)
		return "::numeric";
	if (type == BOOLOID)
		return "::integer";
	return is_text(type) || is_number(type) || type == OIDOID ? "::bigint" : NULL;
}

static const char *
number_cast(Oid type)
{
	if (type == BOOLOID)
		return "::integer";
	if (type == OIDOID)
		return "::bigint";
	return is_text(type) || is_number(type) || type == CASHOID ? "::numeric" : NULL;
}

static const char *
boolean_cast(Oid type)
{
	if (type == INT4OID || is_text(type))
		return "::boolean";
	return is_number(type) ? "::integer::boolean" : NULL;
}

/* The text of bytes and of pseudo-types is not what anybody means. */
static const char *
text_cast(Oid type)
{
	return type == BYTEAOID || get_typtype(type) == TYPTYPE_PSEUDO ? NULL : "::text";
}

static const char *
choices_cast(Oid type)
{
	Oid			element = get_element_type(type);

	if (OidIsValid(element))
		return is_text(element) || is_number(element) ? "::integer[]" : NULL;
	return is_text(type) ? "::text" : is_number(type) ? "::integer" : NULL;
}

/* The cast that makes a refused type acceptable, or NULL. */
static const char *
cast_for(Oid type, DvTargetType target)
{
	switch (target)
	{
		case DV_TARGET_TEXT:
			return text_cast(type);
		case DV_TARGET_INTEGER:
			return integer_cast(type);
		case DV_TARGET_NUMBER:
			return number_cast(type);
		case DV_TARGET_BOOLEAN:
			return boolean_cast(type);
		case DV_TARGET_GUID:
		case DV_TARGET_LOOKUP:
			return is_text(type) ? "::uuid" : NULL;
		case DV_TARGET_DATE:
			return is_text(type) ? "::date" : NULL;
		case DV_TARGET_INSTANT:
			return is_text(type) ? "::timestamptz" : NULL;
		case DV_TARGET_WALL_CLOCK:
			return is_text(type) ? "::timestamp" : NULL;
		case DV_TARGET_CHOICES:
			return choices_cast(type);
		case DV_TARGET_BINARY:
		case DV_TARGET_RAW:
			break;
	}
	return NULL;
}

bool
dv_payload_accepts(Oid type, DvTargetType target, const char **cast_hint)
{
	Oid			base = getBaseType(type);

	*cast_hint = NULL;
	if (dv_payload_writer(base, target) != NULL)
		return true;
	*cast_hint = cast_for(base, target);
	return false;
}

/* Date columns differ by behaviour; UserLocal is Dataverse's own default. */
static DvTargetType
date_target(const char *date_behavior)
{
	if (date_behavior != NULL && strcmp(date_behavior, "DateOnly") == 0)
		return DV_TARGET_DATE;
	if (date_behavior != NULL && strcmp(date_behavior, "TimeZoneIndependent") == 0)
		return DV_TARGET_WALL_CLOCK;
	return DV_TARGET_INSTANT;
}

bool
dv_payload_target(const char *column_type, const char *date_behavior, DvTargetType *target)
{
	static const struct
	{
		const char *name;
		DvTargetType target;
	}			kinds[] = {
		{"String", DV_TARGET_TEXT},
		{"Memo", DV_TARGET_TEXT},
		{"Integer", DV_TARGET_INTEGER},
		{"BigInt", DV_TARGET_INTEGER},
		{"Picklist", DV_TARGET_INTEGER},
		{"State", DV_TARGET_INTEGER},
		{"Status", DV_TARGET_INTEGER},
		{"Decimal", DV_TARGET_NUMBER},
		{"Double", DV_TARGET_NUMBER},
		{"Money", DV_TARGET_NUMBER},
		{"Boolean", DV_TARGET_BOOLEAN},
		{"Uniqueidentifier", DV_TARGET_GUID},
		{"MultiSelectPicklist", DV_TARGET_CHOICES},
		{"Image", DV_TARGET_BINARY},
		{"Lookup", DV_TARGET_LOOKUP},
		{"Customer", DV_TARGET_LOOKUP},
		{"Owner", DV_TARGET_LOOKUP},
		{"Parties", DV_TARGET_RAW},
	};

	if (strcmp(column_type, "DateTime") == 0)
	{
		*target = date_target(date_behavior);
		return true;
	}
	for (int i = 0; i < (int) lengthof(kinds); i++)
	{
		if (strcmp(column_type, kinds[i].name) == 0)
		{
			*target = kinds[i].target;
			return true;
		}
	}
	return false;
}

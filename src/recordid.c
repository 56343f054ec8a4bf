/*
 * recordid.c - dvmig.record_id(): the Dataverse id of a source row
 *
 * The id is computed from a namespace and the row's source key, so that every
 * repetition of a create names the same record and a child knows its parent's
 * id from the foreign key value alone. doc/record-id.md describes the format;
 * it and its test vectors never change, because ids in use depend on them.
 *
 * Hashed bytes: algorithm number, namespace, then for each part of the key its
 * type tag, its length in bytes (32 bits, big-endian) and its canonical form.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "nodes/nodeFuncs.h"
#include "nodes/primnodes.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "recordid.h"
#include "sha256.h"

/* Part of the hashed form: a later algorithm gets another number. */
#define RECORD_ID_ALGORITHM 1

/* Whole numbers below this fit in the six bytes that SQL Server sorts by first. */
#define SEQUENTIAL_LIMIT	(UINT64CONST(1) << 48)

/* Type tags of the canonical form. Numbers of all types share one. */
#define TAG_NUMBER		'n'
#define TAG_TEXT		't'
#define TAG_UUID		'u'
#define TAG_BYTES		'b'
#define TAG_DATE		'd'
#define TAG_TIMESTAMP	'w'		/* wall clock, without time zone */
#define TAG_INSTANT		'z'		/* point in time, UTC */
#define TAG_BOOLEAN		'o'

typedef struct KeyBuilder
{
	DvSha256	hash;
	int			parts;
	bool		sequential;		/* the last part is a whole number in range */
	uint64		number;
} KeyBuilder;

/* Kept in fn_extra: base types of the arguments, looked up once. */
typedef struct KeyPlan
{
	bool		from_array;		/* called as record_id(ns, VARIADIC array) */
	Oid			element_type;	/* as declared, of the array form */
	int16		element_length;
	bool		element_by_value;
	char		element_align;
	int			n;
	Oid			types[FUNC_MAX_ARGS];
} KeyPlan;

PG_FUNCTION_INFO_V1(dvmig_record_id);
PG_FUNCTION_INFO_V1(dvmig_record_id_accepts);

/* ---------------------------------------------------------------- canonical form */

static inline void
write_be(unsigned char *p, uint64 x, int bytes)
{
	for (int i = bytes - 1; i >= 0; i--, x >>= 8)
		p[i] = (unsigned char) x;
}

static void
add_part(KeyBuilder *key, char tag, const void *data, size_t len)
{
	unsigned char head[5];

	head[0] = (unsigned char) tag;
	write_be(head + 1, len, 4);
	dv_sha256_update(&key->hash, head, sizeof(head));
	dv_sha256_update(&key->hash, data, len);
	key->parts++;
	key->sequential = false;
}

static void
add_big_endian(KeyBuilder *key, char tag, int64 value, int bytes)
{
	unsigned char data[8];

	write_be(data, (uint64) value, bytes);
	add_part(key, tag, data, bytes);
}

static void
add_whole(KeyBuilder *key, int64 value)
{
	char		digits[24];		/* sign, 19 digits, terminator */

	add_part(key, TAG_NUMBER, digits, pg_lltoa(value, digits));
	key->sequential = value >= 0 && (uint64) value < SEQUENTIAL_LIMIT;
	key->number = (uint64) value;
}

/*
 * numeric_out() always writes plain decimal notation and depends on no
 * setting. Without trailing zeros and decimal point, a whole numeric is
 * written like an integer, so that 7, 7::numeric and 7.00 are the same key.
 */
static void
add_numeric(KeyBuilder *key, Numeric value)
{
	char	   *digits;
	size_t		len;

	if (numeric_is_nan(value) || numeric_is_inf(value))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("a record key cannot be NaN or infinite")));

	digits = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value)));
	len = strlen(digits);
	if (memchr(digits, '.', len) != NULL)
	{
		while (digits[len - 1] == '0')
			len--;
		if (digits[len - 1] == '.')
			len--;
		digits[len] = '\0';
	}
	add_part(key, TAG_NUMBER, digits, len);

	/* 2^48 has 15 digits: anything longer is out of range. */
	if (len <= 15 && strspn(digits, "0123456789") == len)
	{
		key->number = strtoull(digits, NULL, 10);
		key->sequential = key->number < SEQUENTIAL_LIMIT;
	}
	pfree(digits);
}

/* Text counts as its UTF-8 bytes, so that the server encoding does not matter. */
static void
add_text(KeyBuilder *key, const char *data, size_t len)
{
	char	   *utf8 = pg_server_to_any(data, (int) len, PG_UTF8);

	if (utf8 != data)
		len = strlen(utf8);
	add_part(key, TAG_TEXT, utf8, len);
	if (utf8 != data)
		pfree(utf8);
}

static void
add_varlena(KeyBuilder *key, Oid type, Datum value)
{
	struct varlena *v = PG_DETOAST_DATUM_PACKED(value);
	const char *data = VARDATA_ANY(v);
	size_t		len = VARSIZE_ANY_EXHDR(v);

	if (type == BYTEAOID)
		add_part(key, TAG_BYTES, data, len);
	else
	{
		/* char(n) is padded with blanks that are no part of the value */
		if (type == BPCHAROID)
			while (len > 0 && data[len - 1] == ' ')
				len--;
		add_text(key, data, len);
	}
	if ((Pointer) v != DatumGetPointer(value))
		pfree(v);
}

static void
require_finite(bool finite)
{
	if (!finite)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("a record key cannot be an infinite date or time")));
}

static void
add_datetime(KeyBuilder *key, Oid type, Datum value)
{
	if (type == DATEOID)
	{
		DateADT		days = DatumGetDateADT(value);

		require_finite(!DATE_NOT_FINITE(days));
		add_big_endian(key, TAG_DATE, days, 4);
	}
	else
	{
		Timestamp	micros = DatumGetTimestamp(value);

		require_finite(!TIMESTAMP_NOT_FINITE(micros));
		add_big_endian(key, type == TIMESTAMPOID ? TAG_TIMESTAMP : TAG_INSTANT, micros, 8);
	}
}

/* Add one value of an accepted base type. */
static void
add_value(KeyBuilder *key, Oid type, Datum value)
{
	switch (type)
	{
		case INT2OID:
			add_whole(key, DatumGetInt16(value));
			break;
		case INT4OID:
			add_whole(key, DatumGetInt32(value));
			break;
		case INT8OID:
			add_whole(key, DatumGetInt64(value));
			break;
		case NUMERICOID:
			add_numeric(key, DatumGetNumeric(value));
			break;
		case NAMEOID:
			add_text(key, NameStr(*DatumGetName(value)), strlen(NameStr(*DatumGetName(value))));
			break;
		case UNKNOWNOID:		/* a literal without a cast comes as C string */
			add_text(key, DatumGetCString(value), strlen(DatumGetCString(value)));
			break;
		case UUIDOID:
			add_part(key, TAG_UUID, DatumGetUUIDP(value)->data, UUID_LEN);
			break;
		case BOOLOID:
			add_big_endian(key, TAG_BOOLEAN, DatumGetBool(value) ? 1 : 0, 1);
			break;
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			add_datetime(key, type, value);
			break;
		default:
			add_varlena(key, type, value);
			break;
	}
}

static void
begin_key(KeyBuilder *key, const pg_uuid_t *name_space)
{
	unsigned char algorithm = RECORD_ID_ALGORITHM;

	dv_sha256_init(&key->hash);
	dv_sha256_update(&key->hash, &algorithm, 1);
	dv_sha256_update(&key->hash, name_space->data, UUID_LEN);
	key->parts = 0;
	key->sequential = false;
}

/*
 * The id: hash, with the bits of RFC 9562 version 8 set over it. SQL Server
 * sorts a uniqueidentifier by its last six bytes first; a single whole number
 * in range stands there itself, so that loading in key order appends to the
 * index. The hash in the other bytes covers namespace and key all the same.
 */
static pg_uuid_t *
finish_key(KeyBuilder *key)
{
	unsigned char digest[DV_SHA256_DIGEST];
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	dv_sha256_final(&key->hash, digest);
	memcpy(id->data, digest, UUID_LEN);
	if (key->parts == 1 && key->sequential)
		write_be(id->data + 10, key->number, 6);
	id->data[6] = (id->data[6] & 0x0f) | 0x80;	/* version 8 */
	id->data[8] = (id->data[8] & 0x3f) | 0x80;	/* variant of the RFC */
	return id;
}

/* ---------------------------------------------------------------- accepted types */

bool
dv_record_id_accepts(Oid type, const char **cast_hint)
{
	Oid			base = getBaseType(type);

	*cast_hint = NULL;
	switch (base)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case NAMEOID:
		case UUIDOID:
		case BYTEAOID:
		case BOOLOID:
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return true;
		case FLOAT4OID:
		case FLOAT8OID:
		case CASHOID:
			*cast_hint = "::numeric";
			return false;
		case OIDOID:
			*cast_hint = "::bigint";
			return false;
		default:
			/* rows go in column by column; pseudo-types cannot be cast */
			if (get_typtype(base) != TYPTYPE_COMPOSITE && get_typtype(base) != TYPTYPE_PSEUDO)
				*cast_hint = "::text";
			return false;
	}
}

static void
require_accepted(Oid type)
{
	const char *cast_hint;

	if (type == UNKNOWNOID || dv_record_id_accepts(type, &cast_hint))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("type %s cannot be part of a record key", format_type_be(type)),
			 cast_hint != NULL
			 ? errhint("Cast the key, for example with %s, and cast alike wherever the id is computed.", cast_hint)
			 : errhint("Pass the columns of the key one by one.")));
}

/*
 * Under a nondeterministic collation texts of different bytes can be equal:
 * the database would see one key where two ids are made.
 */
static void
require_deterministic(Oid collation)
{
	if (!OidIsValid(collation) || get_collation_isdeterministic(collation))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_COLLATION_MISMATCH),
			 errmsg("a record key cannot have the nondeterministic collation \"%s\"",
					get_collation_name(collation)),
			 errhint("Write COLLATE \"C\" after the key; texts that differ in their bytes then get different ids.")));
}

/* Look up what does not change from row to row, and refuse what cannot be a key. */
static KeyPlan *
make_plan(FunctionCallInfo fcinfo)
{
	FmgrInfo   *flinfo = fcinfo->flinfo;
	KeyPlan    *plan = MemoryContextAllocZero(flinfo->fn_mcxt, sizeof(KeyPlan));
	List	   *args = flinfo->fn_expr != NULL && IsA(flinfo->fn_expr, FuncExpr)
		? castNode(FuncExpr, flinfo->fn_expr)->args : NIL;

	plan->from_array = get_fn_expr_variadic(flinfo);
	plan->n = PG_NARGS() - 1;
	for (int i = 0; i < plan->n; i++)
	{
		Oid			type = get_fn_expr_argtype(flinfo, i + 1);

		if (!OidIsValid(type))
			ereport(ERROR,
					(errcode(ERRCODE_INDETERMINATE_DATATYPE),
					 errmsg("could not determine the types of the record key")));
		if (plan->from_array)
		{
			type = get_base_element_type(type);
			plan->element_type = type;
			get_typlenbyvalalign(type, &plan->element_length, &plan->element_by_value,
								 &plan->element_align);
		}
		require_accepted(type);
		if (i + 1 < list_length(args))
			require_deterministic(exprCollation(list_nth(args, i + 1)));
		plan->types[i] = getBaseType(type);
	}
	flinfo->fn_extra = plan;
	return plan;
}

/* ---------------------------------------------------------------- SQL functions */

/* Add the elements of an array as parts; false if one of them is null or there is none. */
static bool
add_array(KeyBuilder *key, const KeyPlan *plan, Datum array)
{
	ArrayType  *a = DatumGetArrayTypeP(array);
	Datum	   *values;
	bool	   *nulls;
	int			n;

	deconstruct_array(a, plan->element_type, plan->element_length, plan->element_by_value,
					  plan->element_align, &values, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			return false;
		add_value(key, plan->types[0], values[i]);
	}
	return n > 0;
}

/*
 * dvmig.record_id(namespace uuid, VARIADIC key "any") RETURNS uuid
 *
 * Strict, so that no argument is null here; a null or no element in the array
 * form gives null too.
 */
Datum
dvmig_record_id(PG_FUNCTION_ARGS)
{
	KeyPlan    *plan = fcinfo->flinfo->fn_extra;
	KeyBuilder	key;

	if (plan == NULL)
		plan = make_plan(fcinfo);

	begin_key(&key, PG_GETARG_UUID_P(0));
	if (plan->from_array)
	{
		if (!add_array(&key, plan, PG_GETARG_DATUM(1)))
			PG_RETURN_NULL();
	}
	else
	{
		for (int i = 0; i < plan->n; i++)
			add_value(&key, plan->types[i], PG_GETARG_DATUM(i + 1));
	}
	PG_RETURN_UUID_P(finish_key(&key));
}

/* dvmig._record_id_accepts(key_type regtype, OUT accepted bool, OUT cast_hint text) */
Datum
dvmig_record_id_accepts(PG_FUNCTION_ARGS)
{
	const char *cast_hint;
	Datum		values[2];
	bool		nulls[2] = {false, false};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = BoolGetDatum(dv_record_id_accepts(PG_GETARG_OID(0), &cast_hint));
	nulls[1] = cast_hint == NULL;
	values[1] = nulls[1] ? (Datum) 0 : CStringGetTextDatum(cast_hint);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * payload_sql.c - the appender as internal SQL functions
 *
 * For the definition functions, which ask what a column takes, and for tests,
 * which run the appender itself on single values and on whole rows.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "compat.h"
#include "hash128.h"
#include "payload.h"

/* What each column of _payload_row()'s description says, in this order. */
enum
{
	SPEC_COLUMN,
	SPEC_TYPE,
	SPEC_BEHAVIOR,
	SPEC_MEMBER,
	SPEC_ENTITY_SET,
	SPEC_SEND,
	SPEC_DEFERRED,
	SPEC_FIELDS
};

/* Kept in fn_extra by _payload_row(). */
typedef struct RowPlan
{
	DvPayloadColumn *columns;
	int			n;
	TupleDesc	desc;
} RowPlan;

PG_FUNCTION_INFO_V1(dvmig_payload_accepts);
PG_FUNCTION_INFO_V1(dvmig_payload_json);
PG_FUNCTION_INFO_V1(dvmig_payload_row);
PG_FUNCTION_INFO_V1(dvmig_payload_hash);

static char *
text_arg(FunctionCallInfo fcinfo, int i)
{
	return PG_ARGISNULL(i) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(i));
}

static DvTargetType
target_of(const char *column_type, const char *date_behavior)
{
	DvTargetType target;

	if (column_type == NULL || !dv_payload_target(column_type, date_behavior, &target))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("columns of type \"%s\" cannot be loaded", column_type ? column_type : "")));
	return target;
}

static int
op_of(const char *op)
{
	if (op != NULL && strcmp(op, "insert") == 0)
		return DV_SEND_INSERT;
	if (op != NULL && strcmp(op, "update") == 0)
		return DV_SEND_UPDATE;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("operation must be \"insert\" or \"update\"")));
}

/* The appended JSON, which is UTF-8, as text; a fault becomes an error. */
static Datum
append_row(const DvPayloadColumn *columns, int n, HeapTuple tuple, TupleDesc desc, int op, bool deferred)
{
	Datum	   *values = palloc(sizeof(Datum) * desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * desc->natts);
	StringInfoData out;
	DvPayloadFault fault;
	char	   *json;

	heap_deform_tuple(tuple, desc, values, nulls);
	initStringInfo(&out);
	if (!dv_payload_append(&out, columns, n, values, nulls, op, deferred, &fault))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("column \"%s\" cannot be sent: %s", fault.column, fault.message)));
	json = pg_any_to_server(out.data, out.len, PG_UTF8);
	return PointerGetDatum(cstring_to_text(json));
}

/* dvmig._payload_accepts(result_type, column_type, date_behavior, OUT accepted, OUT cast_hint) */
Datum
dvmig_payload_accepts(PG_FUNCTION_ARGS)
{
	const char *cast_hint = NULL;
	char	   *column_type = text_arg(fcinfo, 1);
	DvTargetType target;
	Datum		values[2] = {BoolGetDatum(false), (Datum) 0};
	bool		nulls[2] = {false, true};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	if (column_type != NULL && dv_payload_target(column_type, text_arg(fcinfo, 2), &target))
		values[0] = BoolGetDatum(dv_payload_accepts(PG_GETARG_OID(0), target, &cast_hint));
	if (cast_hint != NULL)
	{
		values[1] = CStringGetTextDatum(cast_hint);
		nulls[1] = false;
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * dvmig._payload_json(source_value "any", column_type, date_behavior, member, entity_set, op)
 *
 * One value by way of a row of one column, exactly as a run writes it.
 */
Datum
dvmig_payload_json(PG_FUNCTION_ARGS)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 0);
	char	   *behavior = text_arg(fcinfo, 2);
	DvPayloadColumn column = {.attnum = 1, .send = DV_SEND_INSERT | DV_SEND_UPDATE};
	Datum		value = PG_ARGISNULL(0) ? (Datum) 0 : PG_GETARG_DATUM(0);
	bool		null = PG_ARGISNULL(0);
	TupleDesc	desc = CreateTemplateTupleDesc(1);

	if (!OidIsValid(type))
		ereport(ERROR,
				(errcode(ERRCODE_INDETERMINATE_DATATYPE),
				 errmsg("could not determine the type of the value")));
	if (type == UNKNOWNOID)
	{
		/* a literal without a cast comes as C string */
		type = TEXTOID;
		value = null ? value : CStringGetTextDatum(DatumGetCString(value));
	}
	column.type = getBaseType(type);
	column.target = target_of(text_arg(fcinfo, 1), behavior);
	column.member = PG_ARGISNULL(3) ? "member" : text_arg(fcinfo, 3);
	column.column = column.member;
	column.entity_set = PG_ARGISNULL(4) ? "accounts" : text_arg(fcinfo, 4);
	dv_payload_prepare(&column, 1);

	TupleDescInitEntry(desc, 1, "source_value", type, -1, 0);
	return append_row(&column, 1, heap_form_tuple(desc, &value, &null), desc,
					  op_of(text_arg(fcinfo, 5)), false);
}

/* Columns from a two-dimensional text array, in the current memory context. */
static void
read_columns(RowPlan *plan, ArrayType *spec)
{
	Datum	   *values;
	bool	   *nulls;
	char	   *f[SPEC_FIELDS];
	int			n;

	if (ARR_NDIM(spec) != 2 || ARR_DIMS(spec)[1] != SPEC_FIELDS || ARR_DIMS(spec)[0] > plan->desc->natts)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("columns must be described by %d texts each", SPEC_FIELDS)));
	deconstruct_array(spec, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	plan->n = ARR_DIMS(spec)[0];
	plan->columns = palloc0(sizeof(DvPayloadColumn) * plan->n);
	for (int i = 0; i < plan->n; i++)
	{
		DvPayloadColumn *c = &plan->columns[i];

		for (int j = 0; j < SPEC_FIELDS; j++)
			f[j] = nulls[i * SPEC_FIELDS + j] ? NULL : TextDatumGetCString(values[i * SPEC_FIELDS + j]);
		c->attnum = i + 1;
		c->type = getBaseType(TupleDescAttr(plan->desc, i)->atttypid);
		c->target = target_of(f[SPEC_TYPE], f[SPEC_BEHAVIOR]);
		c->column = f[SPEC_COLUMN];
		c->member = f[SPEC_MEMBER] ? f[SPEC_MEMBER] : c->column;
		c->entity_set = f[SPEC_ENTITY_SET] ? f[SPEC_ENTITY_SET] : "";
		c->send = f[SPEC_SEND] ? op_of(f[SPEC_SEND]) : DV_SEND_INSERT | DV_SEND_UPDATE;
		c->deferred = f[SPEC_DEFERRED] != NULL;
	}
	dv_payload_prepare(plan->columns, plan->n);
}

/*
 * dvmig._payload_row(source_row record, columns text[], op text, deferred bool)
 *
 * A whole row; the description of its columns is read at the first call.
 */
Datum
dvmig_payload_row(PG_FUNCTION_ARGS)
{
	HeapTupleHeader header = PG_GETARG_HEAPTUPLEHEADER(0);
	RowPlan    *plan = fcinfo->flinfo->fn_extra;
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(header), .t_data = header};

	if (plan == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);

		plan = palloc0(sizeof(RowPlan));
		plan->desc = lookup_rowtype_tupdesc_copy(HeapTupleHeaderGetTypeId(header),
												 HeapTupleHeaderGetTypMod(header));
		read_columns(plan, PG_GETARG_ARRAYTYPE_P(1));
		fcinfo->flinfo->fn_extra = plan;
		MemoryContextSwitchTo(old);
	}
	return append_row(plan->columns, plan->n, &tuple, plan->desc,
					  op_of(text_arg(fcinfo, 2)), PG_GETARG_BOOL(3));
}

/* dvmig._payload_hash(content bytea) RETURNS bytea */
Datum
dvmig_payload_hash(PG_FUNCTION_ARGS)
{
	bytea	   *content = PG_GETARG_BYTEA_PP(0);
	unsigned char hash[16];

	dv_hash128(VARDATA_ANY(content), VARSIZE_ANY_EXHDR(content), hash);
	PG_RETURN_DATUM(dv_hash128_datum(hash));
}

/*
 * call.c - public functions on behalf of their caller
 *
 * A SECURITY DEFINER function cannot know who called it: session_user is wrong
 * below SET ROLE, and the outer user is wrong below another definer function
 * or inside a trigger. A C function without SET runs as its caller, so that
 * GetUserId() is the truth. dv_call() takes it down and hands it to the
 * internal function of the same name with an underscore before it, which runs
 * as the owner of the extension and checks what that caller may do.
 *
 * GLOSSARY
 *
 *   public function     dvmig.name(arguments), language C, symbol dv_call
 *   internal function   dvmig._name(caller oid, arguments), plpgsql or C,
 *                       which only the owner of the extension may execute
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "call.h"
#include "compat.h"
#include "spi.h"
#include "texts.h"

PG_FUNCTION_INFO_V1(dv_call);
PG_FUNCTION_INFO_V1(dv_caller_regclass);
PG_FUNCTION_INFO_V1(dv_run_as);
PG_FUNCTION_INFO_V1(dv_run_as_caller);
PG_FUNCTION_INFO_V1(dv_query_as);

/* What calls the internal function, and with what. */
typedef struct DvTarget
{
	char	   *sql;
	int			nargs;
	Oid			types[FUNC_MAX_ARGS];
	Datum		values[FUNC_MAX_ARGS];
	char		nulls[FUNC_MAX_ARGS + 1];
	bool		read_only;
	bool		scalar;
} DvTarget;

/* search_path of whatever is not the caller's. */
#define OUR_PATH	"pg_catalog, pg_temp"

/* search_path of the public call in progress, innermost first. */
static const char *caller_search_path = NULL;

const char *
dv_call_search_path(void)
{
	return caller_search_path;
}

Oid
dv_call_extension_owner(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("dvmig"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"dvmig\" does not exist"),
				 errhint("Create it with CREATE EXTENSION dvmig.")));
	return owner;
}

void
dv_call_require(FunctionCallInfo fcinfo, int n)
{
	int			i;

	for (i = 0; i < n; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument %d of an internal function is null", i + 1)));
}

DvSwitch
dv_call_become(Oid role, bool restricted)
{
	DvSwitch	was;

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", role),
				 errhint("If it owned a migration, take what it defined with dvmig.export(), drop the migration, and create it anew as another role.")));
	was.guc_level = 0;
	GetUserIdAndSecContext(&was.userid, &was.sec_context);
	SetUserIdAndSecContext(role, was.sec_context | SECURITY_LOCAL_USERID_CHANGE |
						   (restricted ? SECURITY_RESTRICTED_OPERATION : 0));
	return was;
}

/*
 * Settings that change what a statement of ours means. Callers choose them, and
 * in a worker the owner's triggers can: an operator "=" of another schema must
 * not run as the owner of the extension.
 */
static void
pin_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", OUR_PATH},
		{"quote_all_identifiers", "off"},
		{"standard_conforming_strings", "on"},
		{"array_nulls", "on"},
	};
	size_t		i;

	for (i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	dv_spi_print_no_values(GUC_ACTION_SAVE);
}

DvSwitch
dv_call_become_extension_owner(void)
{
	DvSwitch	was = dv_call_become(dv_call_extension_owner(), false);

	was.guc_level = NewGUCNestLevel();
	pin_settings();
	return was;
}

void
dv_call_restore(DvSwitch was)
{
	/* Rolled back: what an expression of a user's has SET meanwhile is not for the session. */
	if (was.guc_level > 0)
		AtEOXact_GUC(false, was.guc_level);
	SetUserIdAndSecContext(was.userid, was.sec_context);
}

/*
 * The internal function must be the extension owner's: else whoever could
 * create functions in the schema would be run with the owner's rights.
 */
static void
check_internal(Form_pg_proc public, const char *name, const Oid *types, int nargs, Oid owner)
{
	oidvector  *signature = buildoidvector(types, nargs);
	HeapTuple	tuple = SearchSysCache3(PROCNAMEARGSNSP, CStringGetDatum(name),
										PointerGetDatum(signature),
										ObjectIdGetDatum(public->pronamespace));

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("internal function \"%s\" of extension \"dvmig\" does not exist", name),
				 errhint("The library and the SQL objects are of different versions: run ALTER EXTENSION dvmig UPDATE.")));
	if (((Form_pg_proc) GETSTRUCT(tuple))->proowner != owner)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("internal function \"%s\" does not belong to the owner of extension \"dvmig\"", name)));
	ReleaseSysCache(tuple);
}

/* Build the call of the internal function from the public one's catalog row. */
static void
build_target(FunctionCallInfo fcinfo, Oid owner, DvTarget *target)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(fcinfo->flinfo->fn_oid));
	Form_pg_proc public;
	StringInfoData sql;
	char	   *name;
	int			i;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", fcinfo->flinfo->fn_oid);
	public = (Form_pg_proc) GETSTRUCT(tuple);
	if (public->pronargs >= FUNC_MAX_ARGS)
		elog(ERROR, "too many arguments of function %u", fcinfo->flinfo->fn_oid);

	target->nargs = public->pronargs + 1;
	target->types[0] = OIDOID;
	target->values[0] = ObjectIdGetDatum(GetUserId());
	target->nulls[0] = ' ';
	for (i = 0; i < public->pronargs; i++)
	{
		target->types[i + 1] = public->proargtypes.values[i];
		target->values[i + 1] = fcinfo->args[i].value;
		target->nulls[i + 1] = fcinfo->args[i].isnull ? 'n' : ' ';
	}
	target->nulls[target->nargs] = '\0';
	target->read_only = public->provolatile != PROVOLATILE_VOLATILE;

	name = psprintf("_%s", NameStr(public->proname));
	check_internal(public, name, target->types, target->nargs, owner);

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT * FROM %s(",
					 quote_qualified_identifier(get_namespace_name(public->pronamespace), name));
	for (i = 0; i < target->nargs; i++)
		appendStringInfo(&sql, "%s$%d", i ? ", " : "", i + 1);
	appendStringInfoChar(&sql, ')');
	target->sql = sql.data;
	ReleaseSysCache(tuple);
}

/* Run the call; rows go to "dest", or to SPI_tuptable where that is NULL. */
static void
run_target(DvTarget *target, DestReceiver *dest)
{
	ParamListInfo params = makeParamList(target->nargs);
	SPIExecuteOptions options = {0};
	DvSwitch	was;
	SPIPlanPtr	plan;
	int			rc;
	int			i;

	for (i = 0; i < target->nargs; i++)
	{
		params->params[i].value = target->values[i];
		params->params[i].isnull = target->nulls[i] == 'n';
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = target->types[i];
	}
	options.params = params;
	options.read_only = target->read_only;
	options.dest = dest;

	was = dv_call_become_extension_owner();
	plan = SPI_prepare(target->sql, target->nargs, target->types);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	rc = SPI_execute_plan_extended(plan, &options);
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "internal function answered %s", SPI_result_code_string(rc));
	dv_call_restore(was);
}

/* A function that returns a set: its rows go straight into a tuplestore. */
static Datum
return_set(FunctionCallInfo fcinfo, DvTarget *target)
{
	ReturnSetInfo *info = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext per_query;
	MemoryContext old;
	TupleDesc	desc;
	Oid			type;
	DestReceiver *dest;

	if (info == NULL || !IsA(info, ReturnSetInfo) || !(info->allowedModes & SFRM_Materialize))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));
	per_query = info->econtext->ecxt_per_query_memory;
	old = MemoryContextSwitchTo(per_query);
	switch (get_call_result_type(fcinfo, &type, &desc))
	{
		case TYPEFUNC_COMPOSITE:
			desc = CreateTupleDescCopy(desc);
			break;
		case TYPEFUNC_SCALAR:
			desc = CreateTemplateTupleDesc(1);
			TupleDescInitEntry(desc, 1, "result", type, -1, 0);
			break;
		default:
			elog(ERROR, "function %u has no row type", fcinfo->flinfo->fn_oid);
	}
	info->returnMode = SFRM_Materialize;
	info->setResult = tuplestore_begin_heap(true, false, work_mem);
	info->setDesc = desc;
	dest = CreateTuplestoreDestReceiver();
	SetTuplestoreDestReceiverParams(dest, info->setResult, per_query, false, desc,
									"columns of the internal function differ");
	MemoryContextSwitchTo(old);

	run_target(target, dest);
	return (Datum) 0;
}

/* A function that returns one value or one row. */
static Datum
return_one(FunctionCallInfo fcinfo, DvTarget *target)
{
	TupleDesc	desc;
	Oid			type;
	TypeFuncClass class = get_call_result_type(fcinfo, &type, &desc);
	TupleDesc	got;
	bool		isnull = false;
	Datum		value;

	run_target(target, NULL);
	if (SPI_processed == 0)
	{
		fcinfo->isnull = true;
		return (Datum) 0;
	}
	if (type == VOIDOID)
		return (Datum) 0;
	got = SPI_tuptable->tupdesc;
	if (class == TYPEFUNC_COMPOSITE)
	{
		int			i;

		if (got->natts != desc->natts)
			elog(ERROR, "internal function returns %d columns instead of %d", got->natts, desc->natts);
		for (i = 0; i < desc->natts; i++)
			if (TupleDescAttr(got, i)->atttypid != TupleDescAttr(desc, i)->atttypid)
				elog(ERROR, "internal function returns another type in column %d", i + 1);
		return PointerGetDatum(SPI_returntuple(SPI_tuptable->vals[0], BlessTupleDesc(desc)));
	}
	if (got->natts != 1 || SPI_gettypeid(got, 1) != type)
		elog(ERROR, "internal function returns another type");
	value = SPI_getbinval(SPI_tuptable->vals[0], got, 1, &isnull);
	fcinfo->isnull = isnull;
	if (!isnull)
		value = SPI_datumTransfer(value, TupleDescAttr(got, 0)->attbyval,
								  TupleDescAttr(got, 0)->attlen);
	return value;
}

/*
 * Leave our own frames out of an error's context: a DBA has no use for line
 * numbers of internal functions. What is further in (his expression, his
 * trigger) and further out (his function that called us) stays. Whoever
 * searches for a fault of ours sees all with client_min_messages = debug1.
 */
void
dv_call_trim_context(ErrorData *error, const char *sql)
{
	static const char *const frames[] = {"PL/pgSQL function dvmig._", "SQL function \"_"};
	char	   *call = psprintf("SQL statement \"%s\"", sql);
	char	   *begin;
	char	   *end;
	size_t		i;

	if (error->context == NULL || client_min_messages <= DEBUG1)
		return;
	end = strstr(error->context, call);
	if (end == NULL)
		return;
	begin = end;
	for (i = 0; i < lengthof(frames); i++)
	{
		char	   *frame = strstr(error->context, frames[i]);

		if (frame != NULL && frame < begin)
			begin = frame;
	}
	end += strlen(call);
	if (*end == '\n')
		end++;
	memmove(begin, end, strlen(end) + 1);
	if (begin > error->context && *begin == '\0')
		begin[-1] = '\0';		/* the line break before our frames */
	if (error->context[0] == '\0')
		error->context = NULL;
}

/* dv_call runs the internal counterpart of the public function it stands behind. */
Datum
dv_call(PG_FUNCTION_ARGS)
{
	const char *outer_search_path = caller_search_path;
	Oid			owner = dv_call_extension_owner();
	DvTarget   *target = palloc0(sizeof(DvTarget));
	MemoryContext context = CurrentMemoryContext;
	Datum		result;

	build_target(fcinfo, owner, target);
	PG_TRY();
	{
		caller_search_path = pstrdup(namespace_search_path);
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "SPI_connect failed");
		if (fcinfo->flinfo->fn_retset)
			result = return_set(fcinfo, target);
		else
			result = return_one(fcinfo, target);
		SPI_finish();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		caller_search_path = outer_search_path;
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		dv_call_trim_context(error, target->sql);
		if (error->sqlerrcode == ERRCODE_READ_ONLY_SQL_TRANSACTION && RecoveryInProgress())
			error->hint = "This server is a standby. Connect to the primary, where runs are, and where what is changed here is kept.";
		ReThrowError(error);
	}
	PG_END_TRY();
	caller_search_path = outer_search_path;
	return result;
}

/*
 * dv_caller_regclass(role oid, name text) is to_regclass() as the caller would
 * have it: with his search_path and his rights on schemas. A text that is no
 * name at all names no relation either.
 */
Datum
dv_caller_regclass(PG_FUNCTION_ARGS)
{
	int			level = NewGUCNestLevel();
	const char *path = dv_call_search_path();
	DvSwitch	was = dv_call_become(PG_GETARG_OID(0), true);
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	List	   *parts;
	Oid			relid = InvalidOid;

	if (path != NULL)
		(void) set_config_option("search_path", path, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	if (SplitIdentifierString(name, '.', &parts) && parts != NIL && list_length(parts) <= 3)
	{
		List	   *names = NIL;
		ListCell   *lc;

		foreach(lc, parts)
			names = lappend(names, makeString(lfirst(lc)));
		relid = RangeVarGetRelid(makeRangeVarFromNameList(names), NoLock, true);
	}
	dv_call_restore(was);
	AtEOXact_GUC(true, level);
	if (!OidIsValid(relid))
		PG_RETURN_NULL();
	PG_RETURN_OID(relid);
}

/*
 * Run SQL as a role; settings it changes end with it. With "path" NULL what has a
 * meaning of its own is pinned as in a run. Rows of a query go to "dest", or are
 * kept by SPI where that is NULL. Returns SPI's answer.
 */
static int
execute_as(Oid role, const char *sql, bool restricted, const char *path, DestReceiver *dest)
{
	SPIExecuteOptions options = {.dest = dest};
	int			level = NewGUCNestLevel();
	DvSwitch	was = dv_call_become(role, restricted);
	int			rc;

	if (path == NULL)
		dv_spi_pin_meaning(GUC_ACTION_SAVE);
	else
		(void) set_config_option("search_path", path, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	rc = SPI_execute_extended(sql, &options);
	if (rc < 0)
		elog(ERROR, "SPI_execute_extended failed: %s", SPI_result_code_string(rc));
	dv_call_restore(was);
	AtEOXact_GUC(false, level);
	return rc;
}

/*
 * dv_run_as(role oid, command text, restricted bool, as_in_a_run bool) runs a command
 * as that role under search_path pg_catalog, pg_temp and returns the rows it touched.
 */
Datum
dv_run_as(PG_FUNCTION_ARGS)
{
	Oid			role = PG_GETARG_OID(0);
	char	   *sql = text_to_cstring(PG_GETARG_TEXT_PP(1));
	uint64		rows;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	(void) execute_as(role, sql, PG_GETARG_BOOL(2), PG_GETARG_BOOL(3) ? NULL : OUR_PATH, NULL);
	rows = SPI_processed;
	SPI_finish();
	PG_RETURN_INT64((int64) rows);
}

/*
 * dv_run_as_caller(role oid, command text) runs what the caller of the public
 * function wrote himself, as he could: with his rights and his search_path.
 */
Datum
dv_run_as_caller(PG_FUNCTION_ARGS)
{
	const char *path = dv_call_search_path();
	uint64		rows;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	(void) execute_as(PG_GETARG_OID(0), text_to_cstring(PG_GETARG_TEXT_PP(1)), false, path ? path : OUR_PATH, NULL);
	rows = SPI_processed;
	SPI_finish();
	PG_RETURN_INT64((int64) rows);
}

/*
 * dv_query_as(role oid, query text, as_in_a_run bool) returns the first column of
 * the query's rows as text, run as that role in a security-restricted operation.
 */
Datum
dv_query_as(PG_FUNCTION_ARGS)
{
	Oid			role = PG_GETARG_OID(0);
	char	   *sql = text_to_cstring(PG_GETARG_TEXT_PP(1));

	dv_compat_init_texts(fcinfo);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (execute_as(role, sql, true, PG_GETARG_BOOL(2) ? NULL : OUR_PATH, dv_texts_receiver((ReturnSetInfo *) fcinfo->resultinfo)) != SPI_OK_SELECT)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("only a query can be run here")));
	SPI_finish();
	return (Datum) 0;
}

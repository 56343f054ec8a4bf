/*
 * metadata.c - read what Dataverse knows of a table
 *
 * One table takes several GETs, because properties such as a text's length are
 * only told when the columns of one type are asked for. The answers go to SQL
 * as they are: sql/21_metadata.sql takes them apart.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "connection.h"
#include "metadata.h"
#include "problem.h"
#include "reader.h"
#include "reply_json.h"
#include "runstate.h"
#include "servertext.h"
#include "spi.h"

PG_FUNCTION_INFO_V1(dv_fetch_metadata);
PG_FUNCTION_INFO_V1(dv_fetch_privileges);

/* A logical name has up to 64 characters with its publisher's prefix; be generous. */
#define MAX_TABLE_NAME	128

/* One GET per part; %s is the table's logical name. */
typedef struct DvPart
{
	const char *name;
	const char *path;
	bool		optional;		/* good to know: not every API version tells it */
} DvPart;

#define TABLE_PATH	"/EntityDefinitions(LogicalName='%s')"
#define TYPE_PATH	TABLE_PATH "/Attributes/Microsoft.Dynamics.CRM."
#define OPTIONS		"?$select=LogicalName&$expand=OptionSet($select=Options),GlobalOptionSet($select=Options)"

static const DvPart parts[] = {
	{"table", TABLE_PATH "?$select=LogicalName,EntitySetName,PrimaryIdAttribute,PrimaryNameAttribute,"
		"OwnershipType,TableType,IsActivity&$expand="
		"Attributes($select=LogicalName,AttributeType,AttributeTypeName,IsValidForCreate,IsValidForUpdate,RequiredLevel),"
		"Keys($select=LogicalName,KeyAttributes,EntityKeyIndexStatus),"
		"ManyToOneRelationships($select=ReferencingAttribute,ReferencedEntity,ReferencingEntityNavigationPropertyName),"
		"ManyToManyRelationships", false},
	{"String", TYPE_PATH "StringAttributeMetadata?$select=LogicalName,MaxLength", false},
	{"Memo", TYPE_PATH "MemoAttributeMetadata?$select=LogicalName,MaxLength", false},
	{"Integer", TYPE_PATH "IntegerAttributeMetadata?$select=LogicalName,MinValue,MaxValue", false},
	{"BigInt", TYPE_PATH "BigIntAttributeMetadata?$select=LogicalName,MinValue,MaxValue", false},
	{"Decimal", TYPE_PATH "DecimalAttributeMetadata?$select=LogicalName,MinValue,MaxValue,Precision", false},
	{"Double", TYPE_PATH "DoubleAttributeMetadata?$select=LogicalName,MinValue,MaxValue,Precision", false},
	{"Money", TYPE_PATH "MoneyAttributeMetadata?$select=LogicalName,MinValue,MaxValue,Precision", false},
	{"DateTime", TYPE_PATH "DateTimeAttributeMetadata?$select=LogicalName,DateTimeBehavior", false},
	{"File", TYPE_PATH "FileAttributeMetadata?$select=LogicalName,MaxSizeInKB", false},
	{"Image", TYPE_PATH "ImageAttributeMetadata?$select=LogicalName,MaxSizeInKB", true},
	{"FullImage", TYPE_PATH "ImageAttributeMetadata?$select=LogicalName,CanStoreFullImage", true},
	{"Picklist", TYPE_PATH "PicklistAttributeMetadata" OPTIONS, false},
	{"MultiSelectPicklist", TYPE_PATH "MultiSelectPicklistAttributeMetadata" OPTIONS, false},
	{"State", TYPE_PATH "StateAttributeMetadata" OPTIONS, false},
	{"Status", TYPE_PATH "StatusAttributeMetadata" OPTIONS, false},
	{"Boolean", TYPE_PATH "BooleanAttributeMetadata?$select=LogicalName&$expand=OptionSet($select=TrueOption,FalseOption)", false},
	{"AutoNumber", TYPE_PATH "StringAttributeMetadata?$select=LogicalName,AutoNumberFormat", true},
	{"SourceType", TABLE_PATH "/Attributes?$select=LogicalName,SourceType", true},
	{"OneToMany", TABLE_PATH "?$select=LogicalName&$expand=OneToManyRelationships("
		"$select=SchemaName,ReferencingEntity,ReferencingAttribute,CascadeConfiguration)", true},
	{"CreateMultiple", NULL, false},
	{"UpdateMultiple", NULL, false}
};

#define NPARTS	((int) lengthof(parts))

/* What the application user may do: one more part, of no table. */
#define PRIVILEGES	"privileges"

/* ---------------------------------------------------------------- reading */

static void
check_table_name(const char *name)
{
	size_t		len = strlen(name);

	if (len > 0 && len <= MAX_TABLE_NAME &&
		strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == len)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" is not the logical name of a Dataverse table", name),
			 errhint("Logical names are singular and lower-case, such as account or new_project.")));
}

/* The part of that name; NULL where there is none. */
static const DvPart *
find_part(const char *name)
{
	for (int i = 0; i < NPARTS; i++)
		if (strcmp(parts[i].name, name) == 0)
			return &parts[i];
	return NULL;
}

static bool
is_optional(const char *part)
{
	return strcmp(part, PRIVILEGES) == 0 || find_part(part)->optional;
}

static char *
part_path(const DvPart *part, const char *table)
{
	if (part->path)
	{
		/* the patterns above are ours, and each has one %s */
		const char *at = strstr(part->path, "%s");

		return psprintf("%.*s%s%s", (int) (at - part->path), part->path, table, at + 2);
	}
	return psprintf("/sdkmessagefilters?$select=sdkmessagefilterid&$filter="
					"sdkmessageid/name%%20eq%%20@message%%20and%%20primaryobjecttypecode%%20eq%%20@table"
					"&@message='%s'&@table='%s'", part->name, table);
}

/*
 * An answer's body as jsonb. Characters that the database lacks become question
 * marks: labels in all languages of an organisation must not keep a LATIN1
 * database from working.
 */
static Datum
body_jsonb(const char *body, size_t len)
{
	char	   *text = dv_server_text(body, len, "?");

	return DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
}

/* The list that an answer consists of: an object without it is not the answer. NULL: any object may be. */
static const char *
list_of(const char *part)
{
	if (strcmp(part, "table") == 0)
		return "Attributes";
	if (strcmp(part, "OneToMany") == 0)
		return "OneToManyRelationships";
	return strcmp(part, PRIVILEGES) == 0 ? NULL : "value";
}

/* Whether an answer tells what was asked; DV_READ_AGAIN: it need not be told. */
static DvReadResult
judge_part(DvSession *session, const DvRead *read, const DvHttpReply *reply, DvProblem *problem)
{
	if (reply->status == 404 && strcmp(read->part, "table") == 0)
	{
		char		message[512];

		snprintf(message, sizeof(message), "Dataverse table \"%s\" does not exist on server \"%s\"",
				 read->table, dv_session_server(session)->name);
		dv_problem_set(problem, false, ERRCODE_UNDEFINED_TABLE, message, NULL,
					   "Give the logical name, in the singular, such as account; not the display name and not accounts.");
		return DV_READ_FAILED;
	}
	if (reply->status == 200 && dv_json_has_list(reply->body.data, reply->body.len, list_of(read->part)))
		return DV_READ_DONE;
	if (is_optional(read->part) && (reply->status == 400 || reply->status == 403 || reply->status == 404 || reply->status == 501))
		return DV_READ_AGAIN;
	dv_session_explain(session, reply, problem);
	return DV_READ_FAILED;
}

/* Take one answer: a row of the result. "arg" is the result's ReturnSetInfo. */
static DvReadResult
take_part(DvSession *session, DvRead *read, const DvHttpReply *reply, void *arg, DvProblem *problem)
{
	ReturnSetInfo *result = arg;
	Datum		values[3];
	bool		nulls[3] = {false};
	DvReadResult judged = judge_part(session, read, reply, problem);

	if (judged != DV_READ_DONE)
		return judged == DV_READ_AGAIN ? DV_READ_DONE : judged;
	values[0] = CStringGetTextDatum(read->table);
	values[1] = CStringGetTextDatum(read->part);
	values[2] = body_jsonb(reply->body.data, reply->body.len);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	pfree(DatumGetPointer(values[2]));
	return DV_READ_DONE;
}

/*
 * dv_fetch_metadata(caller oid, server text, tables text[]) returns one row
 * per table and part: table_name text, part text, body jsonb; and one for the
 * privileges of the application user, of table ''.
 */
Datum
dv_fetch_metadata(PG_FUNCTION_ARGS)
{
	char	   *server = text_to_cstring(PG_GETARG_TEXT_PP(1));
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(2);
	Datum	   *names;
	bool	   *nulls;
	int			n;
	DvRead	   *reads;
	DvSession  *session;
	DvWhoAmI	who;
	DvProblem	problem;

	dv_compat_init_materialized(fcinfo);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls, &n);
	reads = palloc0(sizeof(DvRead) * ((size_t) n * NPARTS + 1));
	for (int i = 0; i < n; i++)
	{
		char	   *table = nulls[i] ? pstrdup("") : TextDatumGetCString(names[i]);

		check_table_name(table);
		for (int p = 0; p < NPARTS; p++)
		{
			/* all tables themselves first */
			DvRead	   *read = &reads[p == 0 ? i : n + i * (NPARTS - 1) + p - 1];

			read->table = table;
			read->part = parts[p].name;
			read->path = part_path(&parts[p], table);
		}
	}
	session = dv_connection_open(server, PG_GETARG_OID(0), &who);
	reads[n * NPARTS].table = "";
	reads[n * NPARTS].part = PRIVILEGES;
	reads[n * NPARTS].path = psprintf("/systemusers(%s)/Microsoft.Dynamics.CRM.RetrieveUserPrivileges()", who.user_id);
	/* Whether a table exists is known before anything else is asked of it. */
	if (!dv_reader_run(session, reads, n, take_part, fcinfo->resultinfo, &problem) ||
		!dv_reader_run(session, reads + n, n * (NPARTS - 1) + 1, take_part, fcinfo->resultinfo, &problem))
		dv_problem_throw(&problem);
	dv_session_close(session);
	return (Datum) 0;
}

/*
 * dv_fetch_privileges(caller oid, server text, paths text[]) returns one row
 * per path that was answered, like dv_fetch_metadata: what users and teams may do.
 */
Datum
dv_fetch_privileges(PG_FUNCTION_ARGS)
{
	char	   *server = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Datum	   *paths;
	int			n;
	DvRead	   *reads;
	DvSession  *session;
	DvWhoAmI	who;
	DvProblem	problem;

	dv_compat_init_materialized(fcinfo);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), TEXTOID, -1, false, TYPALIGN_INT, &paths, NULL, &n);
	reads = palloc0(sizeof(DvRead) * (size_t) Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		reads[i].table = reads[i].path = TextDatumGetCString(paths[i]);
		reads[i].part = PRIVILEGES;
	}
	session = dv_connection_open(server, PG_GETARG_OID(0), &who);
	if (!dv_reader_run(session, reads, n, take_part, fcinfo->resultinfo, &problem))
		dv_problem_throw(&problem);
	dv_session_close(session);
	return (Datum) 0;
}

/* ------------------------------------------------------- changed meanwhile? */

/* What a worker reads again, kept outside any transaction. */
typedef struct DvDrift
{
	MemoryContext context;
	int			n;
	DvRead	   *reads;
	char	  **bodies;			/* as they came; NULL: not told */
} DvDrift;

static DvReadResult
keep_part(DvSession *session, DvRead *read, const DvHttpReply *reply, void *arg, DvProblem *problem)
{
	DvDrift    *drift = arg;
	DvReadResult judged = judge_part(session, read, reply, problem);

	if (judged == DV_READ_DONE)
	{
		char	   *body = MemoryContextAllocHuge(drift->context, reply->body.len + 1);

		memcpy(body, reply->body.data, reply->body.len);
		body[reply->body.len] = '\0';
		drift->bodies[read - drift->reads] = body;
	}
	return judged == DV_READ_AGAIN ? DV_READ_DONE : judged;
}

/* What there is to read, from the maps of the run. */
static void
prepare_drift(DvDrift *drift, int64 run)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run)};
	MemoryContext old;

	drift->n = (int) dv_spi_run("SELECT table_name, part FROM dvmig._drift_parts($1)", 1, types, values, NULL, SPI_OK_SELECT);
	old = MemoryContextSwitchTo(drift->context);
	drift->reads = palloc0(sizeof(DvRead) * (size_t) Max(drift->n, 1));
	drift->bodies = palloc0(sizeof(char *) * (size_t) Max(drift->n, 1));
	for (int i = 0; i < drift->n; i++)
	{
		DvRead	   *read = &drift->reads[i];

		read->table = dv_spi_text(i, 1);
		read->part = dv_spi_text(i, 2);
		check_table_name(read->table);
		read->path = part_path(find_part(read->part), read->table);
	}
	MemoryContextSwitchTo(old);
}

/* What has changed, in words, in the drift's context; NULL: nothing. */
static char *
compare_drift(const DvDrift *drift, int64 run)
{
	Oid			types[4] = {INT8OID, TEXTARRAYOID, TEXTARRAYOID, JSONBARRAYOID};
	Datum		values[4] = {Int64GetDatum(run)};
	Datum	   *columns[3];
	MemoryContext old;
	char	   *told;
	int			n = 0;

	for (int c = 0; c < 3; c++)
		columns[c] = palloc(sizeof(Datum) * (size_t) Max(drift->n, 1));
	for (int i = 0; i < drift->n; i++)
	{
		if (drift->bodies[i] == NULL)
			continue;
		columns[0][n] = CStringGetTextDatum(drift->reads[i].table);
		columns[1][n] = CStringGetTextDatum(drift->reads[i].part);
		columns[2][n++] = body_jsonb(drift->bodies[i], strlen(drift->bodies[i]));
	}
	for (int c = 0; c < 2; c++)
		values[c + 1] = PointerGetDatum(construct_array(columns[c], n, TEXTOID, -1, false, TYPALIGN_INT));
	values[3] = PointerGetDatum(construct_array(columns[2], n, JSONBOID, -1, false, TYPALIGN_INT));
	dv_spi_run("SELECT dvmig._drift($1, $2, $3, $4)", 4, types, values, NULL, SPI_OK_SELECT);
	old = MemoryContextSwitchTo(drift->context);
	told = dv_spi_text(0, 1);
	MemoryContextSwitchTo(old);
	return told;
}

char *
dv_metadata_changed(DvSession *session, int64 run)
{
	MemoryContext old = CurrentMemoryContext;
	DvDrift		drift = {.context = AllocSetContextCreate(old, "dvmig metadata", ALLOCSET_DEFAULT_SIZES)};
	DvProblem	problem;
	DvSwitch	was;
	char	   *told;

	was = dv_runstate_begin("dvmig: looking for changed columns");
	prepare_drift(&drift, run);
	dv_runstate_commit(was, true);

	MemoryContextSwitchTo(drift.context);
	if (!dv_reader_run(session, drift.reads, drift.n, keep_part, &drift, &problem))
		dv_problem_throw(&problem);

	was = dv_runstate_begin("dvmig: comparing columns");
	told = compare_drift(&drift, run);
	dv_runstate_commit(was, true);

	MemoryContextSwitchTo(old);
	told = told ? pstrdup(told) : NULL;
	MemoryContextDelete(drift.context);
	return told;
}

bool
dv_metadata_ensure(const char *server, Oid userid, const char *table)
{
	Oid			types[3] = {OIDOID, TEXTOID, TEXTOID};
	Datum		values[3] = {
		ObjectIdGetDatum(userid), CStringGetTextDatum(server), CStringGetTextDatum(table)
	};
	bool		isnull;
	bool		was_read;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	dv_spi_run("SELECT dvmig._ensure_metadata($1, $2, $3)", 3, types, values, NULL, SPI_OK_SELECT);
	was_read = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return !isnull && was_read;
}

/*
 * reference.c - ids of Dataverse records that dvmig did not load
 *
 * Users, currencies, units: found by a key column, a few hundred keys per GET.
 * Three steps, so that no transaction is open during the second: prepare (what
 * to ask), fetch (the network), and store or return. Between them everything
 * is UTF-8, as on the wire.
 *
 * GLOSSARY
 *
 *   key     value of the key column, lower-cased; of several columns: their
 *           values joined by chr(31)
 *   record  a key as Dataverse has it, with the id of the record
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"
#include "utils/varlena.h"

#include "call.h"
#include "compat.h"
#include "connection.h"
#include "metadata.h"
#include "problem.h"
#include "reader.h"
#include "reply_json.h"
#include "runstate.h"
#include "servertext.h"
#include "spi.h"
#include "wiretext.h"

PG_FUNCTION_INFO_V1(dv_fetch_records);

/*
 * A GET is cut off at 32,768 characters; the host and what precedes the keys
 * take a few hundred, and proxies in between may add some.
 */
#define MAX_URL			30000

#define KEY_SEPARATOR	'\x1f'
#define MAX_COLUMNS		16		/* of an alternate key in Dataverse */

typedef struct DvRecord
{
	char	   *key;			/* UTF-8, as Dataverse has it */
	char		id[37];
} DvRecord;

typedef struct DvReference
{
	MemoryContext context;
	char	   *entity_set;
	char	   *primary_id;
	int			ncolumns;
	char	   *columns[MAX_COLUMNS];	/* logical names */
	const char *properties[MAX_COLUMNS];	/* what they are called when read */
	int			nreads;
	DvRead	   *reads;
	int			nrecords;
	int			room;
	DvRecord   *records;
} DvReference;

/* ---------------------------------------------------------------- prepare */

/* Metadata of the table and of the key columns, from what is cached. */
static void
load_columns(DvReference *ref, const char *server, const char *table)
{
	Oid			types[3] = {TEXTOID, TEXTOID, TEXTOID};
	Datum		values[3] = {CStringGetTextDatum(server), CStringGetTextDatum(table), (Datum) 0};

	for (int i = 0; i < ref->ncolumns; i++)
	{
		MemoryContext old;
		char	   *type;

		values[2] = CStringGetTextDatum(ref->columns[i]);
		if (dv_spi_run("SELECT t.entity_set, t.primary_id, c.column_type FROM dvmig.metadata_table t"
					   " LEFT JOIN dvmig.metadata_column c ON c.server = t.server AND c.table_name = t.table_name"
					   " AND c.column_name = $3 WHERE t.server = $1 AND t.table_name = $2",
					   3, types, values, NULL, SPI_OK_SELECT) != 1)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("the metadata of Dataverse table \"%s\" has not been read", table),
					 errhint("Call dvmig.refresh_metadata().")));
		type = dv_spi_text(0, 3);
		if (type == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("Dataverse table \"%s\" has no column \"%s\"", table, ref->columns[i])));
		old = MemoryContextSwitchTo(ref->context);
		ref->entity_set = dv_spi_text(0, 1);
		ref->primary_id = dv_spi_text(0, 2);
		ref->properties[i] = ref->columns[i];
		if (strcmp(type, "Lookup") == 0 || strcmp(type, "Customer") == 0 || strcmp(type, "Owner") == 0)
			ref->properties[i] = psprintf("_%s_value", ref->columns[i]);
		MemoryContextSwitchTo(old);
	}
}

/* Start of a query: set, and the columns to read. */
static void
begin_query(const DvReference *ref, StringInfo path)
{
	appendStringInfo(path, "/%s?$select=%s", ref->entity_set, ref->primary_id);
	for (int i = 0; i < ref->ncolumns; i++)
		if (strcmp(ref->properties[i], ref->primary_id) != 0)
			appendStringInfo(path, ",%s", ref->properties[i]);
}

static void
add_read(DvReference *ref, char *path)
{
	/* grown by doubling: 1, 2, 4 ... */
	if (ref->nreads == 0)
		ref->reads = palloc(sizeof(DvRead));
	else if ((ref->nreads & (ref->nreads - 1)) == 0)
		ref->reads = repalloc(ref->reads, sizeof(DvRead) * (size_t) ref->nreads * 2);
	memset(&ref->reads[ref->nreads], 0, sizeof(DvRead));
	ref->reads[ref->nreads++].path = path;
}

/* A text as a JSON string, percent-encoded. Double quotes make apostrophes safe. */
static void
encode_json_string(StringInfo url, const char *text, size_t len)
{
	appendStringInfoString(url, "%22");
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if (c == '"' || c == '\\')
			appendStringInfoString(url, "%5C");
		if (c < 0x20)
			appendStringInfo(url, "%%5Cu%04X", c);
		else
			dv_reader_encode(url, text + i, 1);
	}
	appendStringInfoString(url, "%22");
}

/* Length of the first of the values that make up a key: what can be asked for. */
static size_t
first_value(const char *key)
{
	const char *end = strchr(key, KEY_SEPARATOR);

	return end ? (size_t) (end - key) : strlen(key);
}

/*
 * One GET for as many keys as its address holds. Of a key of several columns
 * the first one is asked for; the others are compared afterwards. False where
 * a key does not fit into any address.
 */
static bool
add_keyed_reads(DvReference *ref, char **keys, int nkeys)
{
	StringInfoData path;
	StringInfoData one;
	int			in_path = 0;

	initStringInfo(&one);
	for (int i = 0; i < nkeys; i++)
	{
		size_t		len = first_value(keys[i]);

		/* Dataverse keeps an empty text as null: nothing can be found by it. */
		if (len == 0)
			continue;
		resetStringInfo(&one);
		encode_json_string(&one, keys[i], len);
		if (one.len > MAX_URL / 2)
			return false;
		if (in_path > 0 && path.len + one.len > MAX_URL)
		{
			appendStringInfoString(&path, "%5D");
			add_read(ref, path.data);
			in_path = 0;
		}
		if (in_path == 0)
		{
			initStringInfo(&path);
			begin_query(ref, &path);
			appendStringInfo(&path, "&$filter=Microsoft.Dynamics.CRM.In(PropertyName=@p1,PropertyValues=@p2)"
							 "&@p1='%s'&@p2=%%5B", ref->columns[0]);
		}
		appendStringInfo(&path, "%s%s", in_path > 0 ? "," : "", one.data);
		in_path++;
	}
	if (in_path > 0)
	{
		appendStringInfoString(&path, "%5D");
		add_read(ref, path.data);
	}
	return true;
}

/* Keys as UTF-8 texts; nulls are left out. */
static char **
key_texts(Datum keys, int *n)
{
	Datum	   *values;
	bool	   *nulls;
	int			count;
	char	  **texts;

	deconstruct_array(DatumGetArrayTypeP(keys), TEXTOID, -1, false, TYPALIGN_INT,
					  &values, &nulls, &count);
	texts = palloc(sizeof(char *) * (size_t) Max(count, 1));
	*n = 0;
	for (int i = 0; i < count; i++)
		if (!nulls[i])
		{
			char	   *value = TextDatumGetCString(values[i]);

			texts[(*n)++] = pg_server_to_any(value, (int) strlen(value), PG_UTF8);
		}
	return texts;
}

/*
 * What to ask for. In a transaction with SPI connected, as the owner of the
 * extension; keys 0 asks for all records. Lives in "context".
 */
static DvReference *
reference_prepare(MemoryContext context, const char *server, const char *table,
				  List *match_on, Datum keys)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	DvReference *ref = palloc0(sizeof(DvReference));
	ListCell   *cell;
	char	  **texts;
	int			n = 0;

	ref->context = context;
	if (list_length(match_on) < 1 || list_length(match_on) > MAX_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("between 1 and %d key columns can be matched on", MAX_COLUMNS)));
	foreach(cell, match_on)
		ref->columns[ref->ncolumns++] = pstrdup(lfirst(cell));
	load_columns(ref, server, table);
	MemoryContextSwitchTo(context); /* SPI left us in its own */

	texts = keys ? key_texts(keys, &n) : NULL;
	if (keys == (Datum) 0 || !add_keyed_reads(ref, texts, n))
	{
		StringInfoData path;

		initStringInfo(&path);
		begin_query(ref, &path);
		ref->nreads = 0;
		add_read(ref, path.data);
	}
	MemoryContextSwitchTo(old);
	return ref;
}

/* ---------------------------------------------------------------- fetch */

/* Make room for one more record; false where there is no memory. */
static bool
make_room(DvReference *ref)
{
	int			room = Max(ref->room * 2, 256);
	DvRecord   *bigger;

	if (ref->nrecords < ref->room)
		return true;
	bigger = MemoryContextAllocExtended(ref->context, sizeof(DvRecord) * (size_t) room,
										MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (bigger == NULL)
		return false;
	if (ref->nrecords > 0)
	{
		memcpy(bigger, ref->records, sizeof(DvRecord) * (size_t) ref->nrecords);
		pfree(ref->records);
	}
	ref->records = bigger;
	ref->room = room;
	return true;
}

/* Keep one record. Called below json-c, so that it must not throw. */
static bool
keep_record(void *arg, const char *id, const char *const *values)
{
	DvReference *ref = arg;
	size_t		len = 0;
	char	   *key;
	char	   *p;

	for (int i = 0; i < ref->ncolumns; i++)
	{
		if (values[i] == NULL)
			return true;		/* a null matches nothing */
		len += strlen(values[i]) + 1;
	}
	if (!make_room(ref))
		return false;
	key = MemoryContextAllocExtended(ref->context, len, MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (key == NULL)
		return false;
	p = key;
	for (int i = 0; i < ref->ncolumns; i++)
	{
		size_t		n = strlen(values[i]);

		memcpy(p, values[i], n);
		p += n;
		*p++ = i + 1 < ref->ncolumns ? KEY_SEPARATOR : '\0';
	}
	ref->records[ref->nrecords].key = key;
	strlcpy(ref->records[ref->nrecords].id, id, sizeof(ref->records[0].id));
	ref->nrecords++;
	return true;
}

static DvReadResult
take_page(DvSession *session, DvRead *read, const DvHttpReply *reply, void *arg, DvProblem *problem)
{
	DvReference *ref = arg;
	char	   *link = NULL;
	char	   *path = NULL;
	int			had = ref->nrecords;
	bool		ok;

	if (reply->status != 200)
	{
		dv_session_explain(session, reply, problem);
		/* a refusal may quote the query, and with it values of rows */
		if (reply->status != 401 && reply->status != 403)
			snprintf(problem->detail, sizeof(problem->detail), "Reading %s, request id %s.",
					 ref->entity_set, reply->request_id[0] ? reply->request_id : "unknown");
		return DV_READ_FAILED;
	}
	ok = dv_json_page(reply->body.data, reply->body.len, ref->primary_id, ref->properties,
					  ref->ncolumns, keep_record, ref, &link);
	if (ok && link == NULL)
		return DV_READ_DONE;
	if (ok)
	{
		const char *below = dv_wiretext_below(link, dv_session_api_path(session));

		path = below != NULL ? MemoryContextStrdup(ref->context, below) : NULL;
	}
	free(link);
	if (path == NULL)
	{
		ref->nrecords = had;	/* read once more, the page would have them twice */
		dv_problem_set(problem, true, ERRCODE_FDW_ERROR, "Dataverse answered a query in a way that is not understood",
					   NULL, NULL);
		return DV_READ_FAILED;
	}
	pfree(read->path);
	read->path = path;
	return DV_READ_AGAIN;
}

static void
reference_fetch(DvSession *session, DvReference *ref)
{
	DvProblem	problem;

	if (!dv_reader_run(session, ref->reads, ref->nreads, take_page, ref, &problem))
		dv_problem_throw(&problem);
}

/* ---------------------------------------------------------------- results */

/*
 * A key in this database's encoding, or NULL where it has characters that the
 * database does not: then no row can mean it.
 */
static text *
key_datum(const char *key)
{
	size_t		len = strlen(key);
	char	   *converted = pg_verify_mbstr(PG_UTF8, key, (int) len, true) ? dv_server_text(key, len, NULL) : NULL;

	return converted == NULL ? NULL : cstring_to_text(converted);
}

static Datum
id_datum(const char *id)
{
	return DirectFunctionCall1(uuid_in, CStringGetDatum(id));
}

/*
 * dv_fetch_records(caller oid, server text, table text, match_on text[],
 * keys text[]) returns match_key text, record_id uuid: one row per record
 * found, its key as Dataverse has it. Some may not have been asked for; keys
 * NULL asks for all.
 */
Datum
dv_fetch_records(PG_FUNCTION_ARGS)
{
	char	   *server;
	char	   *table;
	List	   *match_on = NIL;
	MemoryContext context = CurrentMemoryContext;
	Datum	   *names;
	int			n;
	DvSession  *session;
	DvReference *ref;
	DvWhoAmI	who;
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	dv_call_require(fcinfo, 4);
	dv_compat_init_materialized(fcinfo);
	server = text_to_cstring(PG_GETARG_TEXT_PP(1));
	table = text_to_cstring(PG_GETARG_TEXT_PP(2));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(3), TEXTOID, -1, false, TYPALIGN_INT, &names, NULL, &n);
	for (int i = 0; i < n; i++)
		match_on = lappend(match_on, TextDatumGetCString(names[i]));

	session = dv_connection_open(server, PG_GETARG_OID(0), &who);
	dv_metadata_ensure(server, PG_GETARG_OID(0), table);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	ref = reference_prepare(context, server, table, match_on, PG_ARGISNULL(4) ? (Datum) 0 : PG_GETARG_DATUM(4));
	SPI_finish();
	reference_fetch(session, ref);
	dv_session_close(session);

	for (int i = 0; i < ref->nrecords; i++)
	{
		text	   *key = key_datum(ref->records[i].key);
		Datum		values[2] = {PointerGetDatum(key), id_datum(ref->records[i].id)};
		bool		nulls[2] = {false, false};

		if (key != NULL)
			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* Store what was found, by dvmig._store_reference(). */
static void
reference_store(DvReference *ref, const char *server, const char *table,
				const char *match_on, Datum keys)
{
	Oid			types[6] = {TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID, TEXTARRAYOID, UUIDARRAYOID};
	char		nulls[7] = {' ', ' ', ' ', keys ? ' ' : 'n', ' ', ' ', '\0'};
	Datum	   *found = palloc(sizeof(Datum) * (size_t) Max(ref->nrecords, 1));
	Datum	   *ids = palloc(sizeof(Datum) * (size_t) Max(ref->nrecords, 1));
	Datum		values[6];
	int			n = 0;

	for (int i = 0; i < ref->nrecords; i++)
	{
		text	   *key = key_datum(ref->records[i].key);

		if (key == NULL)
			continue;
		found[n] = PointerGetDatum(key);
		ids[n++] = id_datum(ref->records[i].id);
	}
	values[0] = CStringGetTextDatum(server);
	values[1] = CStringGetTextDatum(table);
	values[2] = CStringGetTextDatum(match_on);
	values[3] = keys;
	values[4] = PointerGetDatum(construct_array(found, n, TEXTOID, -1, false, TYPALIGN_INT));
	values[5] = PointerGetDatum(construct_array(ids, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
	dv_spi_run("SELECT dvmig._store_reference($1, $2, $3, $4, $5, $6)", 6, types, values, nulls, SPI_OK_SELECT);
}

void
dv_metadata_read_reference(DvSession *session, const char *server, const char *table,
						   const char *match_on, Datum keys)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(old, "dvmig reference", ALLOCSET_DEFAULT_SIZES);
	List	   *columns = NIL;
	DvReference *ref;
	DvSwitch	was;
	char	   *names = MemoryContextStrdup(context, match_on);

	MemoryContextSwitchTo(context);
	for (char *comma; (comma = strchr(names, ',')) != NULL; names = comma + 1)
	{
		*comma = '\0';
		columns = lappend(columns, names);
	}
	columns = lappend(columns, names);

	was = dv_runstate_begin("dvmig: preparing references");
	ref = reference_prepare(context, server, table, columns, keys);
	dv_runstate_commit(was, true);

	MemoryContextSwitchTo(context);
	reference_fetch(session, ref);

	was = dv_runstate_begin("dvmig: storing references");
	reference_store(ref, server, table, match_on, keys);
	dv_runstate_commit(was, false);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

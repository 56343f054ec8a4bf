/*
 * preview.c - what a run would send, worked out without sending
 *
 * Reads through the same projection and appender as a run, but in the caller's
 * transaction: the definition as the extension's owner (who calls these), rows
 * and expressions as the owner of the migration.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/tuplestore.h"

#include "call.h"
#include "compat.h"
#include "encode.h"
#include "servertext.h"
#include "spi.h"

PG_FUNCTION_INFO_V1(dv_count_changed);
PG_FUNCTION_INFO_V1(dv_preview);

/* Rows fetched at a time. */
#define FETCH_ROWS		1000

/* A projection being read in the caller's transaction. */
typedef struct Offline
{
	DvStep	   *step;
	Portal		portal;
	DvSwitch	was;
	int			guc_level;
} Offline;

static DvStep *
offline_step(Oid staging, Datum deferred)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "dvmig preview", ALLOCSET_DEFAULT_SIZES);
	DvStep	   *step = MemoryContextAlloc(context, sizeof(DvStep));

	dv_engine_init_step(step, NULL, context);
	step->projection = dv_projection_load(staging, "write", deferred, "/api/data/v9.2", "", context);
	return step;
}

/* Open "sql" as the owner, with what a worker pins. */
static void
offline_open(Offline *o, DvStep *step, const char *sql, Oid owner)
{
	SPIPlanPtr	plan;

	o->step = step;
	o->guc_level = NewGUCNestLevel();
	dv_spi_pin_meaning(GUC_ACTION_SAVE);
	o->was = dv_call_become(owner, true);
	plan = SPI_prepare(sql, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	o->portal = SPI_cursor_open(NULL, plan, NULL, NULL, true);
}

static void
offline_close(Offline *o)
{
	SPI_cursor_close(o->portal);
	dv_call_restore(o->was);
	/* Rolled back: what an expression has SET must not reach statements of ours. */
	AtEOXact_GUC(false, o->guc_level);
}

/* Rows of one table or partition, by where they are. */
typedef struct Places
{
	Oid			table;
	Datum		ctids[FETCH_ROWS];
	int			n;
} Places;

/* What compares the rows that the executor hands over. */
typedef struct Comparer
{
	DestReceiver pub;
	DvStep	   *step;
	SPIPlanPtr	plan;			/* $1 where the rows are, $2 of which table */
	MemoryContext row_context;
	StringInfoData scratch;
	int64		changed;
} Comparer;

static bool
compare_row(TupleTableSlot *slot, DestReceiver *self)
{
	Comparer   *c = (Comparer *) self;
	MemoryContext old;

	slot_getallattrs(slot);
	MemoryContextReset(c->row_context);
	old = MemoryContextSwitchTo(c->row_context);
	c->changed += dv_encode_changed(c->step, slot->tts_values, slot->tts_isnull, &c->scratch);
	MemoryContextSwitchTo(old);
	return true;
}

static void
compare_startup(DestReceiver *self, int operation, TupleDesc desc)
{
	(void) operation;
	dv_encode_descriptor(((Comparer *) self)->step, desc);
}

static void
compare_nothing(DestReceiver *self)
{
	(void) self;
}

/*
 * Made once: along indexes, because the statistics of a table that was just
 * loaded tell nothing, and outcomes are looked up for a thousand rows at a time.
 */
static void
init_comparer(Comparer *c, DvStep *step)
{
	const DvProjection *p = step->projection;
	Oid			types[2] = {get_array_type(TIDOID), OIDOID};

	memset(c, 0, sizeof(Comparer));
	c->pub.receiveSlot = compare_row;
	c->pub.rStartup = compare_startup;
	c->pub.rShutdown = c->pub.rDestroy = compare_nothing;
	c->pub.mydest = DestTuplestore;
	c->step = step;
	c->row_context = AllocSetContextCreate(CurrentMemoryContext, "dvmig compare row", ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&c->scratch);
	dv_spi_follow_indexes();
	c->plan = SPI_prepare_cursor(psprintf("%s FROM (%s AND s.ctid = ANY ($1) AND s.tableoid = $2) s %s",
										  p->select_sql, p->inner_sql, p->joins_sql), 2, types, CURSOR_OPT_GENERIC_PLAN);
	if (c->plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
}

/* How many of these rows a run would write again; throws where one of them does. */
static int64
changed_at(Comparer *c, Oid table, Datum *ctids, int n)
{
	ParamListInfo parameters = makeParamList(2);
	SPIExecuteOptions options = {.params = parameters,.read_only = true,.dest = &c->pub};
	int			i;

	parameters->params[0].value = PointerGetDatum(construct_array(ctids, n, TIDOID, sizeof(ItemPointerData), false, TYPALIGN_SHORT));
	parameters->params[0].ptype = get_array_type(TIDOID);
	parameters->params[1].value = ObjectIdGetDatum(table);
	parameters->params[1].ptype = OIDOID;
	for (i = 0; i < 2; i++)
	{
		parameters->params[i].isnull = false;
		parameters->params[i].pflags = PARAM_FLAG_CONST;
	}
	c->changed = 0;
	SPI_execute_plan_extended(c->plan, &options);
	return c->changed;
}

/* The same; rows that throw would fail, not be written again: found by halving. */
static int64
changed_or_bad(Comparer *c, Oid table, Datum *ctids, int n)
{
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(outer, "dvmig compare", ALLOCSET_DEFAULT_SIZES);
	ResourceOwner owner = CurrentResourceOwner;
	volatile int64 changed = 0;
	volatile bool thrown = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		changed = changed_at(c, table, ctids, n);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (!dv_source_is_row_fault(error))
			ReThrowError(error);
		thrown = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(outer);
	CurrentResourceOwner = owner;
	MemoryContextDelete(context);
	CHECK_FOR_INTERRUPTS();
	if (thrown && n > 1)
		changed = changed_or_bad(c, table, ctids, n / 2) + changed_or_bad(c, table, ctids + n / 2, n - n / 2);
	return changed;
}

/* Rows of the result from number "from" on that are in one table; how many. */
static int
take_places(Places *places, int from)
{
	TupleDesc	desc = SPI_tuptable->tupdesc;
	bool		isnull;
	int			i;

	for (i = from; i < (int) SPI_processed; i++)
	{
		Oid			table = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], desc, 2, &isnull));

		if (i > from && table != places->table)
			break;
		places->table = table;
		places->ctids[i - from] = SPI_getbinval(SPI_tuptable->vals[i], desc, 1, &isnull);
	}
	places->n = i - from;
	return places->n;
}

/*
 * dv_count_changed(staging regclass, deferred text[], owner oid): loaded and
 * unprocessed rows whose content is not what was last sent.
 */
Datum
dv_count_changed(PG_FUNCTION_ARGS)
{
	Places	   *places = palloc(sizeof(Places));
	Offline		o;
	Comparer	comparer;
	DvStep	   *step;
	int64		changed = 0;

	SPI_connect();
	step = offline_step(PG_GETARG_OID(0), PG_GETARG_DATUM(1));
	/* Where they are first, without an expression of the user's that may throw. */
	offline_open(&o, step, psprintf("SELECT s.\"dvmig ctid\", s.\"dvmig tableoid\" FROM (%s) s %s WHERE x.operation <> 'D' AND s.action_flag = 'I'",
									step->projection->inner_sql, step->projection->outcomes_sql), PG_GETARG_OID(2));
	init_comparer(&comparer, step);
	for (;;)
	{
		SPITupleTable *fetched;
		uint64		n;
		int			from = 0;

		SPI_cursor_fetch(o.portal, true, FETCH_ROWS);
		fetched = SPI_tuptable;
		n = SPI_processed;
		if (n == 0)
			break;
		while (from < (int) n)
		{
			SPI_tuptable = fetched;
			SPI_processed = n;
			from += take_places(places, from);
			changed += changed_or_bad(&comparer, places->table, places->ctids, places->n);
		}
		SPI_freetuptable(fetched);
	}
	offline_close(&o);
	SPI_finish();
	PG_RETURN_INT64(changed);
}

/* The source key as text, its columns joined by ", ". */
static char *
key_text(const DvProjection *p, HeapTuple tuple, TupleDesc desc)
{
	StringInfoData key;
	int			i;

	initStringInfo(&key);
	for (i = 0; i < p->nkeys; i++)
	{
		char	   *value = SPI_getvalue(tuple, desc, DV_PROJ_KEYS + i);

		appendStringInfo(&key, "%s%s", i ? ", " : "", value ? value : "");
	}
	return key.data;
}

/* One row of the preview: key, operation, id, request body, remark. */
static void
preview_row(DvStep *step, HeapTuple tuple, TupleDesc desc, Tuplestorestate *out, TupleDesc out_desc)
{
	const DvProjection *p = step->projection;
	Datum		values[5];
	bool		nulls[5] = {false, false, false, false, false};
	StringInfoData body;
	char	   *problem;
	char		op;
	char		operation[2] = {0, 0};
	char	   *id = SPI_getvalue(tuple, desc, DV_PROJ_ID);

	initStringInfo(&body);
	problem = dv_encode_preview(step, tuple, desc, &body, &op);
	operation[0] = op;
	values[0] = CStringGetTextDatum(key_text(p, tuple, desc));
	values[1] = CStringGetTextDatum(operation);
	nulls[2] = id == NULL;
	values[2] = id ? DirectFunctionCall1(uuid_in, CStringGetDatum(id)) : (Datum) 0;
	nulls[3] = body.len == 0;
	values[3] = CStringGetTextDatum(dv_server_text(body.data, body.len, "?"));
	nulls[4] = problem == NULL;
	values[4] = problem ? CStringGetTextDatum(problem) : (Datum) 0;
	tuplestore_putvalues(out, out_desc, values, nulls);
}

/*
 * dv_preview(staging regclass, rows int, deferred text[], owner oid, skip int)
 * returns the JSON of the next rows a run would read, after the first "skip":
 * source_key, operation, dataverse_id, request, remark (why a row would not be
 * sent).
 */
Datum
dv_preview(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const DvProjection *p;
	Offline		o;
	DvStep	   *step;
	MemoryContext row;
	MemoryContext old;
	uint64		n;
	uint64		i;

	dv_compat_init_materialized(fcinfo);
	SPI_connect();
	step = offline_step(PG_GETARG_OID(0), PG_GETARG_DATUM(2));
	p = step->projection;
	offline_open(&o, step, psprintf("%s FROM (%s ORDER BY %s LIMIT %d OFFSET %d) s %s ORDER BY %s",
									p->select_sql, p->inner_sql, p->order_sql,
									PG_GETARG_INT32(1), PG_GETARG_INT32(4), p->joins_sql, p->order_sql),
				 PG_GETARG_OID(3));
	row = AllocSetContextCreate(CurrentMemoryContext, "dvmig preview row", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(row);
	do
	{
		SPI_cursor_fetch(o.portal, true, FETCH_ROWS);
		n = SPI_processed;
		for (i = 0; i < n; i++)
		{
			preview_row(step, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, rsinfo->setResult, rsinfo->setDesc);
			MemoryContextReset(row);
		}
		SPI_freetuptable(SPI_tuptable);
	} while (n > 0);
	MemoryContextSwitchTo(old);
	offline_close(&o);
	SPI_finish();
	return (Datum) 0;
}

/*
 * batch.c - one read of a step: rows of the projection to a batch
 *
 * The hot path's beginning. A plan is kept for each kind of read that a step
 * has, so that nothing is planned for a batch. Rows are encoded where the
 * executor hands them over: their columns are never copied before they are JSON.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "tcop/dest.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/uuid.h"

#include "batch.h"
#include "encode.h"
#include "sets.h"
#include "spi.h"

/* Kinds of reads: behind a key, up to a key, of rows that have no outcome. */
#define BEHIND	1
#define UP_TO	2
#define FRESH	4

/* Most reads between two looks for outcomes. */
#define LOOK_PAUSE_MAX	64

/* The plans of a step's reads, and the definition that they are of. */
struct DvReadPlans
{
	SPIPlanPtr	plans[8];		/* by BEHIND, UP_TO and FRESH */
	const char *inner_sql;
	MemoryContextCallback cleanup;
};

/* What takes the rows of one read. */
typedef struct Reader
{
	DestReceiver pub;
	DvStep	   *step;
	int			limit;
	DvBatch    *batch;			/* made with the first row */
	DvRow	   *rows;			/* room for "limit" rows, used in order */
	Datum	   *keys;			/* their keys */
	DvRow	  **taken;			/* those to be sent */
	int			ntaken;
	int			got;
	int			nrecorded;		/* of these, rows that have an outcome */
	bool		whole;
	Oid			table;			/* last one seen, and its file */
	Oid			filenode;
	MemoryContext row_context;	/* what encoding a row allocates */
	StringInfoData content;
	StringInfoData scratch;
} Reader;

/* The file of a table that this transaction has read, and so has locked. */
static Oid
filenode_of(Oid table)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	Oid			filenode;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", table);
	filenode = ((Form_pg_class) GETSTRUCT(tuple))->relfilenode;
	ReleaseSysCache(tuple);
	return filenode;
}

/* The row version, but for its file. */
static void
read_place(DvRow *row, const Datum *values)
{
	row->version.ctid = *(ItemPointer) DatumGetPointer(values[DV_PROJ_CTID - 1]);
	row->version.xmin = DatumGetTransactionId(values[DV_PROJ_XMIN - 1]);
	row->version.tableoid = DatumGetObjectId(values[DV_PROJ_TABLEOID - 1]);
}

void
dv_batch_version(DvRow *row, const Datum *values)
{
	read_place(row, values);
	row->version.filenode = filenode_of(row->version.tableoid);
}

/* Room for the rows of the read, in a context that lives as long as they do. */
static void
open_batch(Reader *r)
{
	DvStep	   *step = r->step;
	MemoryContext context = AllocSetContextCreate(step->context, "dvmig batch", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	r->batch = palloc0(sizeof(DvBatch));
	r->batch->context = context;
	r->rows = palloc0(sizeof(DvRow) * r->limit);
	r->keys = palloc(sizeof(Datum) * r->limit * step->projection->nkeys);
	r->taken = palloc(sizeof(DvRow *) * r->limit);
	initStringInfo(&r->content);
	/* Growing by doubling would copy what is written: begin with what is expected. */
	enlargeStringInfo(&r->content, (int) Min((Size) r->limit * step->row_bytes * 9 / 8, DV_READ_BYTES_MAX));
	MemoryContextSwitchTo(old);
	step->reading = r->batch;
	r->batch->rows = r->rows;
}

static void
take_keys(Reader *r, DvRow *row, const Datum *values)
{
	const DvProjection *p = r->step->projection;
	MemoryContext old = MemoryContextSwitchTo(r->batch->context);
	int			i;

	row->keys = r->keys + (row - r->rows) * p->nkeys;
	for (i = 0; i < p->nkeys; i++)
		row->keys[i] = p->keys[i].byval ? values[i] : datumCopy(values[i], false, p->keys[i].len);
	MemoryContextSwitchTo(old);
}

/* Fill in the row; false where it is not for this batch. */
static bool
take_row(Reader *r, DvRow *row, const Datum *values, const bool *nulls)
{
	DvStep	   *step = r->step;

	read_place(row, values);
	if (row->version.tableoid != r->table)
	{
		r->table = row->version.tableoid;
		r->filenode = filenode_of(r->table);
	}
	row->version.filenode = r->filenode;
	dv_projection_check_values(step->projection, nulls + DV_PROJ_KEYS - 1);
	if (dv_sets_is_answered(step->sets, &row->version))
		return false;
	row->batch = r->batch;
	row->wire.op = DatumGetChar(values[DV_PROJ_OP - 1]);
	if (!nulls[DV_PROJ_ID - 1])
	{
		row->uuid = *DatumGetUUIDP(values[DV_PROJ_ID - 1]);
		dv_source_format_id(&row->uuid, row->wire.id);
		row->handle = row->uuid;
	}
	row->created_run = nulls[DV_PROJ_CREATED_RUN - 1] ? 0 : DatumGetInt64(values[DV_PROJ_CREATED_RUN - 1]);
	row->owes = DatumGetInt32(values[DV_PROJ_OWES - 1]);
	row->owes_unchanged = DatumGetInt32(values[DV_PROJ_OWES_UNCHANGED - 1]) & ~DV_KEPT_OURS;
	row->kept_ours = (DatumGetInt32(values[DV_PROJ_OWES_UNCHANGED - 1]) & DV_KEPT_OURS) != 0;
	row->recorded = DatumGetBool(values[DV_PROJ_RECORDED - 1]);
	r->nrecorded += row->recorded;
	if (nulls[DV_PROJ_OUTCOME - 1])
		ItemPointerSetInvalid(&row->outcome);
	else
		row->outcome = *(ItemPointer) DatumGetPointer(values[DV_PROJ_OUTCOME - 1]);
	row->verify = (DatumGetBool(values[DV_PROJ_VERIFY - 1]) && row->wire.op == 'I') ||
		(step->forgotten && row->wire.op != 'D');
	if (!nulls[DV_PROJ_CALLER - 1])
		dv_source_format_id(DatumGetUUIDP(values[DV_PROJ_CALLER - 1]), row->wire.caller);
	row->again = !nulls[DV_PROJ_LAST_RUN - 1] && DatumGetInt64(values[DV_PROJ_LAST_RUN - 1]) == step->rc->run;
	take_keys(r, row, values + DV_PROJ_KEYS - 1);
	return true;
}

/* Another lane was quicker with a row of the same id: this one is for the next lap. */
static void
put_back(DvStep *step, DvRow *row)
{
	row->batch->open_rows--;
	step->lap_taken--;
	step->counters.rows_read--;
	dv_source_unanswer(step, row);
}

/* One row from the executor; false ends the read. */
static bool
receive(TupleTableSlot *slot, DestReceiver *self)
{
	Reader	   *r = (Reader *) self;
	DvStep	   *step = r->step;
	MemoryContext old;
	DvRow	   *row;

	if (r->got++ == 0)
		open_batch(r);
	slot_getallattrs(slot);
	MemoryContextReset(r->row_context);
	old = MemoryContextSwitchTo(r->row_context);
	row = &r->rows[r->batch->open_rows];
	if (take_row(r, row, slot->tts_values, slot->tts_isnull) &&
		dv_encode_row(step, row, slot->tts_values, slot->tts_isnull, &r->content, &r->scratch))
	{
		row->busy = dv_sets_enter_busy(step->sets, &row->handle);
		if (row->busy)
			r->taken[r->ntaken++] = row;
		else
			put_back(step, row);
	}
	/* One that has neither a verdict nor is sent leaves its room to the next. */
	if (row == &r->rows[r->batch->open_rows])
		memset(row, 0, sizeof(DvRow));
	dv_walk_read(&step->walk, step->projection, slot->tts_values + DV_PROJ_KEYS - 1);
	MemoryContextSwitchTo(old);
	r->whole = r->content.len <= DV_READ_BYTES_MAX && !dv_budget_spent(step);
	return r->whole;
}

static void
startup(DestReceiver *self, int operation, TupleDesc desc)
{
	(void) operation;
	dv_encode_descriptor(((Reader *) self)->step, desc);
}

static void
nothing(DestReceiver *self)
{
	(void) self;
}

static void
free_plan(SPIPlanPtr *plan)
{
	if (*plan != NULL)
		SPI_freeplan(*plan);
	*plan = NULL;
}

/* The step's context goes: its plans do not live in it. */
static void
free_plans(void *arg)
{
	struct DvReadPlans *plans = arg;
	int			i;

	for (i = 0; i < (int) lengthof(plans->plans); i++)
		free_plan(&plans->plans[i]);
}

/* The plan for this read, made where there is none of the definition as it is now. */
static SPIPlanPtr
plan_of(DvStep *step)
{
	struct DvReadPlans *plans = step->read_plans;
	int			kind = (step->walk.last != NULL ? BEHIND : 0) | (step->until_keys != NULL ? UP_TO : 0) |
		(step->ahead.what == DV_AHEAD_NONE ? FRESH : 0);
	SPIPlanPtr *plan;

	if (plans == NULL)
	{
		plans = step->read_plans = MemoryContextAllocZero(step->context, sizeof(struct DvReadPlans));
		plans->cleanup.func = free_plans;
		plans->cleanup.arg = plans;
		MemoryContextRegisterResetCallback(step->context, &plans->cleanup);
	}
	if (plans->inner_sql != step->projection->inner_sql)
		free_plans(plans);
	plans->inner_sql = step->projection->inner_sql;
	plan = &plans->plans[kind];
	if (*plan == NULL)
		*plan = dv_projection_plan(step->projection, step->walk.last, step->until_keys,
								   step->ahead.what == DV_AHEAD_NONE ? DV_READ_FRESH : DV_READ_MAPPED);
	return *plan;
}

/*
 * Have the rows ahead an outcome? In a first load none has: nothing is looked
 * up for each of them then. Outcomes are given by the lane that has the range,
 * to what it has read, so that "none" stays true to the end of the range. "Some"
 * is asked again once rows come that have none, less and less often: where many
 * outcomes were deleted the look may pass over what is left of them.
 */
static void
look_ahead(DvStep *step)
{
	const DvProjection *p = step->projection;
	Oid			types[2 * INDEX_MAX_KEYS];
	Datum		values[2 * INDEX_MAX_KEYS];
	bool		isnull;
	int			n;

	if (p->fresh_sql == NULL || step->ahead.what != DV_AHEAD_UNKNOWN)
		return;
	n = dv_projection_bounds(p, step->walk.last, step->until_keys, types, values);
	dv_spi_run(dv_projection_outcomes_query(p, step->walk.last != NULL, step->until_keys != NULL), n, types, values, NULL, SPI_OK_SELECT);
	step->ahead.what = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)) ? DV_AHEAD_SOME : DV_AHEAD_NONE;
	step->ahead.pause = Min(Max(1, step->ahead.pause * 2), LOOK_PAUSE_MAX);
	step->ahead.reads = 0;
}

/* After a read that gave no outcome along with its rows. */
static void
look_again(DvStep *step)
{
	if (step->ahead.what == DV_AHEAD_SOME && ++step->ahead.reads >= step->ahead.pause)
		step->ahead.what = DV_AHEAD_UNKNOWN;
}

DvRow **
dv_batch_read(DvStep *step, int limit, int *n, int *got, bool *whole)
{
	Reader		r = {
		.pub = {receive, startup, nothing, nothing, DestTuplestore}, /* not None: SPI would call that no SELECT */
		.step = step,.limit = limit,.whole = true,
		.row_context = AllocSetContextCreate(CurrentMemoryContext, "dvmig row", ALLOCSET_DEFAULT_SIZES)
	};
	/* not read-only, which would be with a snapshot from before its locks: see dv_spi_run() */
	SPIExecuteOptions options = {.params = dv_projection_parameters(step->projection, step->walk.last, step->until_keys, limit),.dest = &r.pub};
	int			i;

	initStringInfo(&r.scratch);
	look_ahead(step);
	if (SPI_execute_plan_extended(plan_of(step), &options) != SPI_OK_SELECT)
		elog(ERROR, "reading staging rows did not answer a result");
	MemoryContextDelete(r.row_context);
	*got = r.got;
	*n = r.ntaken;
	*whole = r.whole;
	step->reading = NULL;
	if (r.got == 0)
		return NULL;
	dv_walk_pass(&step->walk);
	if (r.nrecorded == 0)
		look_again(step);
	for (i = 0; i < r.ntaken; i++)
		r.taken[i]->wire.content = r.taken[i]->link_body ? r.taken[i]->link_body : r.content.data + r.taken[i]->content_offset;
	if (r.ntaken > 0)
		step->row_bytes = (step->row_bytes + r.content.len / r.ntaken) / 2 + 1;
	r.batch->content = r.content.data;
	if (r.batch->open_rows > 0)
		return r.taken;
	MemoryContextDelete(r.batch->context);
	return NULL;
}

void
dv_batch_forget(DvStep *step, int outcomes)
{
	DvBatch    *batch = step->reading;
	int			i;

	for (i = 0; batch != NULL && i < batch->open_rows; i++)
	{
		if (batch->rows[i].busy)
			dv_sets_leave_busy(step->sets, &batch->rows[i].handle);
		dv_source_unanswer(step, &batch->rows[i]);
	}
	step->noutcomes = outcomes;
	if (batch != NULL)
		MemoryContextDelete(batch->context);
	step->reading = NULL;
}

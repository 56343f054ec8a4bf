/*
 * verify_read.c - staging rows and what they map to, a chunk at a time
 *
 * Each chunk is one short transaction with the rights of the migration's owner.
 * Values come from the projection and payload code that a run uses, in the form
 * of an update, which writes nulls too.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "batch.h"
#include "encode.h"
#include "keys.h"
#include "spi.h"
#include "verify.h"

/* Rows of one request map to so many bytes at most, but for the last of them: an answer that repeats them stays far below what one may have. */
#define CHUNK_BYTES			(2 * 1024 * 1024)

/* The appender is built for one row type; SPI plans anew when a user alters the table. */
static void
prepare(DvVerify *v, TupleDesc desc)
{
	MemoryContext old;
	int			i;

	if (v->desc != NULL && equalTupleDescs(v->desc, desc))
		return;
	old = MemoryContextSwitchTo(v->context);
	v->desc = CreateTupleDescCopy(desc);
	v->payload = palloc0(sizeof(DvPayloadColumn) * (v->projection->ncolumns + 1));
	for (i = 0; i < v->projection->ncolumns; i++)
	{
		v->payload[i] = v->projection->columns[i];
		v->payload[i].send = DV_SEND_INSERT | DV_SEND_UPDATE;
		v->payload[i].deferred = false;
		v->payload[i].type = getBaseType(TupleDescAttr(desc, v->payload[i].attnum - 1)->atttypid);
	}
	dv_payload_prepare(v->payload, v->projection->ncolumns);
	MemoryContextSwitchTo(old);
	if (v->resend != NULL)
		dv_encode_descriptor(v->step, desc);
}

/* ---------------------------------------------------------------- rows */

/* The output function of the i-th column of the source key. */
static FmgrInfo *
key_out(DvVerify *v, int i, Oid type)
{
	Oid			function;
	bool		varlena;

	if (v->key_type[i] != type)
	{
		getTypeOutputInfo(type, &function, &varlena);
		fmgr_info_cxt(function, &v->key_out[i], v->context);
		v->key_type[i] = type;
	}
	return &v->key_out[i];
}

/* The source key, whose columns begin at "first", for people. */
static char *
key_text(DvVerify *v, const Datum *values, const bool *nulls, TupleDesc desc, int first, MemoryContext context)
{
	StringInfoData key;
	int			i;

	if (v->projection->nkeys == 1 && !nulls[first - 1])
		return MemoryContextStrdup(context, OutputFunctionCall(key_out(v, 0, TupleDescAttr(desc, first - 1)->atttypid), values[first - 1]));
	initStringInfo(&key);
	for (i = 0; i < v->projection->nkeys; i++)
	{
		int			at = first - 1 + i;

		appendStringInfo(&key, "%s%s", i ? ", " : "",
						 nulls[at] ? "" : OutputFunctionCall(key_out(v, i, TupleDescAttr(desc, at)->atttypid), values[at]));
	}
	return MemoryContextStrdup(context, key.data);
}

/* The values of a row, which "members" holds as {"member":value,...}, by column. */
static void
take_expected(DvVerify *v, DvVerifyRow *row, DvSlice members)
{
	const char *at = members.p;
	DvSlice		name;
	DvSlice		value;
	int			part = 0;

	while (dv_page_member(members, &at, &name, &value))
	{
		/* members come in the order of the maps; of several of one lookup only one does */
		for (;; part++)
		{
			const DvPayloadColumn *c = &v->payload[part];

			/* its prefix has a comma, two quotes and a colon more */
			if (c->prefix_len == (int) name.len + 4 && memcmp(c->prefix + 2, name.p, name.len) == 0)
				break;
		}
		row->expected[v->part_column[part]] = value;
		row->part[v->part_column[part]] = v->part_index[part];
		part++;
	}
}

/* What the row maps to. */
static void
map_row(DvVerify *v, DvVerifyRow *row, const Datum *values, const bool *nulls, DvVerifyChunk *chunk)
{
	StringInfoData members;
	DvPayloadFault fault;
	DvSlice		whole;

	initStringInfo(&members);
	appendStringInfoChar(&members, '{');
	row->expected = MemoryContextAllocZero(chunk->context, sizeof(DvSlice) * (v->ncolumns + 1));
	row->part = MemoryContextAlloc(chunk->context, v->ncolumns + 1);
	memset(row->part, -1, v->ncolumns);
	if (!dv_payload_append(&members, v->payload, v->projection->ncolumns, values, nulls, DV_SEND_UPDATE, false, &fault))
	{
		row->fault = MemoryContextStrdup(chunk->context, psprintf("%s: %s", fault.column, fault.message));
		return;
	}
	appendStringInfoChar(&members, '}');
	chunk->bytes += members.len;
	dv_verify_digest_images(v, row, &members, chunk->context);
	whole.p = memcpy(MemoryContextAlloc(chunk->context, members.len), members.data, members.len);
	whole.len = members.len;
	take_expected(v, row, whole);
}

static void
take_keys(DvVerify *v, DvVerifyRow *row, const Datum *values, DvVerifyChunk *chunk)
{
	row->keys = dv_walk_copy(v->projection, values, chunk->context);
}

/* What a row is to be recorded by whose outcome was lost, and where its files are. */
static void
take_version(DvVerifyRow *row, const Datum *values)
{
	DvRow		read;

	memset(&read, 0, sizeof(read));
	dv_batch_version(&read, values);
	row->version = read.version;
}

/* What a row is to be recorded by, once it has been sent. */
static void
take_content(DvVerify *v, DvVerifyRow *row, const Datum *values, const bool *nulls, DvVerifyChunk *chunk)
{
	StringInfoData scratch;

	initStringInfo(&scratch);
	if (row->fault == NULL && !dv_encode_hash(v->step, values, nulls, &scratch, row->hash))
		row->fault = "it cannot be sent";
	take_keys(v, row, values + DV_PROJ_KEYS - 1, chunk);
}

/* A link is looked for at its left end. */
static void
take_ends(DvVerify *v, DvVerifyRow *row, const Datum *values, const bool *nulls)
{
	int			left = v->projection->columns[0].attnum - 1;
	int			right = v->projection->columns[1].attnum - 1;

	row->has_id = !nulls[left];
	if (row->has_id)
		row->id = *DatumGetUUIDP(values[left]);
	row->has_right = !nulls[right];
	if (row->has_right)
		row->right = *DatumGetUUIDP(values[right]);
}

/* A row and its maps. Allocates in the current context what does not have to last. */
static void
take_row(DvVerify *v, DvVerifyRow *row, const Datum *values, const bool *nulls, TupleDesc desc, DvVerifyChunk *chunk)
{
	int			recorded = DV_PROJ_KEYS + v->projection->nkeys + v->projection->ncolumns;

	dv_projection_check_values(v->projection, nulls + DV_PROJ_KEYS - 1);
	row->state = DatumGetChar(values[DV_PROJ_OP - 1]);
	row->has_id = !nulls[DV_PROJ_ID - 1];
	if (row->has_id)
		row->id = *DatumGetUUIDP(values[DV_PROJ_ID - 1]);
	row->created = !nulls[DV_PROJ_CREATED_RUN - 1];
	row->updated = DatumGetBool(values[DV_PROJ_OWES - 1]);
	row->has_record = DatumGetBool(values[DV_PROJ_OWES_UNCHANGED - 1]);
	row->kept = DatumGetBool(values[DV_PROJ_VERIFY - 1]);
	if (v->rebuild != NULL || v->projection->nfiles > 0)
		take_version(row, values);
	if (v->projection->link != NULL)
		take_ends(v, row, values, nulls);
	row->recorded_at = nulls[recorded - 1] ? 0 : DatumGetTimestampTz(values[recorded - 1]);
	row->key = key_text(v, values, nulls, desc, DV_PROJ_KEYS, chunk->context);
	if (!nulls[DV_PROJ_FAULT - 1])
		row->fault = MemoryContextStrdup(chunk->context, TextDatumGetCString(values[DV_PROJ_FAULT - 1]));
	if (v->rebuild != NULL)
		take_keys(v, row, values + DV_PROJ_KEYS - 1, chunk);
	if (v->projection->link == NULL && (dv_verify_is_loaded(row) || v->rebuild != NULL))
	{
		const char *fault = row->fault;

		map_row(v, row, values, nulls, chunk);
		if (v->resend != NULL)
			take_content(v, row, values, nulls, chunk);
		if (fault != NULL)
			row->fault = fault;
	}
	dv_walk_read(&v->walk, v->projection, values + DV_PROJ_KEYS - 1);
}

/* A row whose maps throw: what is known of it without them. */
static void
take_bad_row(DvVerify *v, DvVerifyRow *row, const Datum *values, const bool *nulls, TupleDesc desc, DvVerifyChunk *chunk, const char *fault)
{
	dv_projection_check_values(v->projection, nulls + DV_KNOWN_KEYS - 1);
	row->state = DatumGetChar(values[DV_PROJ_OP - 1]);
	row->has_id = !nulls[DV_KNOWN_ID - 1];
	if (row->has_id)
		row->id = *DatumGetUUIDP(values[DV_KNOWN_ID - 1]);
	row->created = !nulls[DV_KNOWN_CREATED_RUN - 1];
	row->has_record = row->has_id;
	row->key = key_text(v, values, nulls, desc, DV_KNOWN_KEYS, chunk->context);
	row->fault = MemoryContextStrdup(chunk->context, fault);
	if (v->rebuild != NULL)
	{
		take_version(row, values);
		take_keys(v, row, values + DV_KNOWN_KEYS - 1, chunk);
	}
	dv_walk_read(&v->walk, v->projection, values + DV_KNOWN_KEYS - 1);
}

/* A record of an outcome whose staging row is gone. */
static void
take_gone(DvVerify *v, DvVerifyRow *row, const Datum *values, const bool *nulls, TupleDesc desc, DvVerifyChunk *chunk)
{
	dv_projection_check_values(v->projection, nulls + 1);
	row->state = 'G';
	row->has_id = true;
	row->id = *DatumGetUUIDP(values[0]);
	row->key = key_text(v, values, nulls, desc, 2, chunk->context);
	dv_walk_read(&v->walk, v->projection, values + 1);
}

/* ---------------------------------------------------------------- a chunk */

static DvVerifyChunk *
new_chunk(DvVerify *v, int room)
{
	MemoryContext context = AllocSetContextCreate(v->context, "dvmig verify chunk", ALLOCSET_DEFAULT_SIZES);
	DvVerifyChunk *chunk = MemoryContextAllocZero(context, sizeof(DvVerifyChunk));

	chunk->context = context;
	chunk->rows = MemoryContextAllocZero(context, sizeof(DvVerifyRow) * (room + 1));
	return chunk;
}

/* The id of a row, and its place. */
typedef struct Place
{
	pg_uuid_t	id;
	bool		has_id;
	int			row;
} Place;

static int
by_id(const void *a, const void *b)
{
	const Place *x = a;
	const Place *y = b;
	int			order;

	if (x->has_id != y->has_id)
		return x->has_id ? -1 : 1;
	order = memcmp(x->id.data, y->id.data, UUID_LEN);
	return order != 0 ? order : x->row - y->row;
}

/* Rows with an id first, in its order. */
static void
sort_rows(DvVerifyChunk *chunk)
{
	Place	   *places = palloc(sizeof(Place) * chunk->n);
	DvVerifyRow *rows = MemoryContextAlloc(chunk->context, sizeof(DvVerifyRow) * (chunk->n + 1));
	int			i;

	for (i = 0; i < chunk->n; i++)
	{
		places[i].id = chunk->rows[i].id;
		places[i].has_id = chunk->rows[i].has_id;
		places[i].row = i;
		chunk->nids += places[i].has_id;
	}
	qsort(places, chunk->n, sizeof(Place), by_id);
	for (i = 0; i < chunk->n; i++)
		rows[i] = chunk->rows[places[i].row];
	pfree(chunk->rows);
	pfree(places);
	chunk->rows = rows;
}

/* ---------------------------------------------------------------- reads */

typedef enum ReadWhat
{
	READ_MAPPED,
	READ_KNOWN,					/* one row whose maps throw */
	READ_GONE
} ReadWhat;

/* Rows of the outcome table at hand whose staging row is gone. */
static char *
gone_query(DvVerify *v, int limit)
{
	const DvProjection *p = v->projection;
	const char *keys = dv_keys_list(p, "s.");
	bool		behind = v->walk.last != NULL;

	/* both tables are walked side by side */
	return psprintf("SELECT s.dataverse_id, %s FROM %s s WHERE s.operation <> 'D' AND s.created_run IS NOT NULL"
					" AND s.dataverse_id IS NOT NULL AND NOT EXISTS (SELECT FROM %s t WHERE %s%s)%s%s%s ORDER BY %s LIMIT %d",
					keys, v->gone_table, p->staging_sql, dv_keys_match(p, "t", "s"), behind ? dv_keys_behind(p, "t.") : "",
					v->sample_sql ? " AND " : "", v->sample_sql ? v->sample_sql : "", behind ? dv_keys_behind(p, "s.") : "", keys, limit);
}

/* What takes the rows of a read. */
typedef struct Reader
{
	DestReceiver pub;
	DvVerify   *v;
	DvVerifyChunk *chunk;
	MemoryContext row_context;
} Reader;

static bool
receive(TupleTableSlot *slot, DestReceiver *self)
{
	Reader	   *r = (Reader *) self;
	MemoryContext old;

	slot_getallattrs(slot);
	MemoryContextReset(r->row_context);
	old = MemoryContextSwitchTo(r->row_context);
	take_row(r->v, &r->chunk->rows[r->chunk->n++], slot->tts_values, slot->tts_isnull, slot->tts_tupleDescriptor, r->chunk);
	MemoryContextSwitchTo(old);
	return r->chunk->bytes < CHUNK_BYTES;
}

static void
startup(DestReceiver *self, int operation, TupleDesc desc)
{
	Reader	   *r = (Reader *) self;

	(void) operation;
	dv_projection_check_keys(r->v->projection, desc, DV_PROJ_KEYS);
	dv_projection_check_outcome(r->v->projection, desc);
	if (r->v->projection->link == NULL)
		prepare(r->v, desc);
}

static void
nothing(DestReceiver *self)
{
	(void) self;
}

/* Rows with their maps, encoded where the executor hands them over. */
static void
read_mapped(DvVerify *v, DvVerifyChunk *chunk, int limit)
{
	Reader		r = {
		.pub = {receive, startup, nothing, nothing, DestTuplestore},
		.v = v,.chunk = chunk,
		.row_context = AllocSetContextCreate(CurrentMemoryContext, "dvmig row", ALLOCSET_DEFAULT_SIZES)
	};
	SPIExecuteOptions options = {
		.params = dv_projection_parameters(v->projection, v->walk.last, NULL, limit),.dest = &r.pub
	};
	SPIPlanPtr *plan = &v->plans[v->walk.last != NULL];

	if (*plan == NULL)
		*plan = dv_projection_plan(v->projection, v->walk.last, NULL, DV_READ_MAPPED);
	if (SPI_execute_plan_extended(*plan, &options) != SPI_OK_SELECT)
		elog(ERROR, "reading rows to verify did not answer a result");
	MemoryContextDelete(r.row_context);
}

/* Rows without their maps. */
static void
read_others(DvVerify *v, DvVerifyChunk *chunk, ReadWhat what, int limit, const char *fault)
{
	Oid			types[2 * INDEX_MAX_KEYS];
	Datum		parameters[2 * INDEX_MAX_KEYS];
	int			n = dv_projection_bounds(v->projection, v->walk.last, NULL, types, parameters);
	char	   *sql = what == READ_GONE ? gone_query(v, limit)
		: dv_projection_query(v->projection, v->walk.last != NULL, false, limit, DV_READ_KNOWN);
	TupleDesc	desc;
	Datum	   *values;
	bool	   *nulls;
	uint64		i;

	dv_spi_run(sql, n, types, parameters, NULL, SPI_OK_SELECT);
	desc = SPI_tuptable->tupdesc;
	dv_projection_check_keys(v->projection, desc, what == READ_KNOWN ? DV_KNOWN_KEYS : 2);
	dv_projection_check_type(v->projection, desc, what == READ_KNOWN ? DV_KNOWN_ID : 1, "dataverse_id", UUIDOID);
	values = palloc(sizeof(Datum) * desc->natts);
	nulls = palloc(sizeof(bool) * desc->natts);
	for (i = 0; i < SPI_processed; i++)
	{
		DvVerifyRow *row = &chunk->rows[chunk->n++];

		heap_deform_tuple(SPI_tuptable->vals[i], desc, values, nulls);
		if (what == READ_KNOWN)
			take_bad_row(v, row, values, nulls, desc, chunk, fault);
		else
			take_gone(v, row, values, nulls, desc, chunk);
	}
}

void
dv_verify_free_plans(DvVerify *v)
{
	int			i;

	for (i = 0; i < (int) lengthof(v->plans); i++)
		if (v->plans[i] != NULL)
			SPI_freeplan(v->plans[i]);
}

/* One try; where it threw, *error is the error. NULL where nothing was left. */
static DvVerifyChunk *
try_read(DvVerify *v, ReadWhat what, int limit, const char *fault, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	DvVerifyChunk *volatile chunk = new_chunk(v, limit);

	*error = NULL;
	PG_TRY();
	{
		dv_spi_begin("dvmig: reading rows to verify");
		dv_spi_follow_indexes();
		if (what == READ_GONE)
			dv_spi_merge();
		dv_spi_wait_briefly();
		if (what == READ_MAPPED)
			read_mapped(v, chunk, limit);
		else
			read_others(v, chunk, what, limit, fault);
		sort_rows(chunk);
		if (what == READ_MAPPED)
			dv_verify_read_files(v, chunk);
		dv_spi_commit(true);
	}
	PG_CATCH();
	{
		*error = dv_spi_abort(v->context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	if (*error == NULL && chunk->n > 0)
	{
		dv_walk_pass(&v->walk);
		return chunk;
	}
	MemoryContextDelete(chunk->context);
	return NULL;
}

/* A user locks the table: later. Answers come in meanwhile. */
static void
wait_for_user(DvVerify *v, ErrorData *error)
{
	dv_engine_locked_out(v->rc);
	v->read_after = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DV_LOCK_PAUSE_MS);
	FreeErrorData(error);
}

static void
walk_on(DvVerify *v)
{
	dv_walk_rewind(&v->walk);
	v->read_limit = 0;
	if (!v->rows_done)
		v->rows_done = true;
	else if (v->gone_table == v->projection->success_sql)
		v->gone_table = v->projection->error_sql;
	else
		v->gone_done = true;
}

DvVerifyChunk *
dv_verify_read(DvVerify *v)
{
	ReadWhat	what = v->rows_done ? READ_GONE : READ_MAPPED;
	int			limit = v->read_limit > 0 ? Min(v->read_limit, v->rows_per_read) : v->rows_per_read;
	ErrorData  *error;
	DvVerifyChunk *chunk = try_read(v, what, limit, NULL, &error);

	if (error != NULL && dv_spi_is_contention(error))
		wait_for_user(v, error);
	else if (error != NULL && what == READ_MAPPED && dv_source_is_row_fault(error))
	{
		char	   *fault = psprintf("the row cannot be transformed (SQLSTATE %s)", unpack_sql_state(error->sqlerrcode));

		if (limit > 1)
			v->read_limit = limit / 2;
		else
		{
			chunk = try_read(v, READ_KNOWN, 1, fault, &error);
			if (error != NULL)
				ReThrowError(error);
			v->read_limit = 2;
		}
	}
	else if (error != NULL)
		ReThrowError(error);
	else
	{
		dv_engine_lock_gone(v->rc);
		if (v->read_limit > 0)
			v->read_limit = v->read_limit * 2 < v->rows_per_read ? v->read_limit * 2 : 0;
		if (chunk == NULL)
			walk_on(v);
	}
	return chunk;
}

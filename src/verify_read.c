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
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "batch.h"
#include "call.h"
#include "encode.h"
#include "spi.h"
#include "verify.h"

/* Pause before a table is read again that a user locks. */
#define LOCK_PAUSE_MS		200

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

static char *
key_text(DvVerify *v, HeapTuple tuple, TupleDesc desc, int first, MemoryContext context)
{
	StringInfoData key;
	MemoryContext old = MemoryContextSwitchTo(context);
	int			i;

	initStringInfo(&key);
	for (i = 0; i < v->projection->nkeys; i++)
	{
		char	   *value = SPI_getvalue(tuple, desc, first + i);

		appendStringInfo(&key, "%s%s", i ? ", " : "", value ? value : "");
	}
	MemoryContextSwitchTo(old);
	return key.data;
}

/* Where the next read goes on. */
static void
remember_keys(DvVerify *v, const Datum *values)
{
	const DvProjection *p = v->projection;
	MemoryContext old;
	int			i;

	MemoryContextReset(v->key_context);
	old = MemoryContextSwitchTo(v->key_context);
	v->last_keys = palloc(sizeof(Datum) * p->nkeys);
	for (i = 0; i < p->nkeys; i++)
		v->last_keys[i] = datumCopy(values[i], p->keys[i].byval, p->keys[i].len);
	MemoryContextSwitchTo(old);
}

static int
key_parameters(DvVerify *v, Oid *types, Datum *values)
{
	int			i;

	if (v->last_keys == NULL)
		return 0;
	for (i = 0; i < v->projection->nkeys; i++)
	{
		types[i] = v->projection->keys[i].type;
		values[i] = v->last_keys[i];
	}
	return v->projection->nkeys;
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
			if (strlen(v->payload[part].member) == name.len && memcmp(v->payload[part].member, name.p, name.len) == 0)
				break;
		row->expected[v->part_column[part]] = value;
		row->part[v->part_column[part]] = v->part_index[part];
		row->members[v->part_column[part]] = v->payload[part].member;
		part++;
	}
}

static void
map_row(DvVerify *v, DvVerifyRow *row, const Datum *values, const bool *nulls, DvVerifyChunk *chunk)
{
	MemoryContext old = MemoryContextSwitchTo(chunk->context);
	StringInfoData members;
	DvPayloadFault fault;
	DvSlice		whole;

	initStringInfo(&members);
	appendStringInfoChar(&members, '{');
	row->expected = palloc0(sizeof(DvSlice) * (v->ncolumns + 1));
	row->part = palloc0(v->ncolumns + 1);
	row->members = palloc0(sizeof(char *) * (v->ncolumns + 1));
	if (!dv_payload_append(&members, v->payload, v->projection->ncolumns, values, nulls, DV_SEND_UPDATE, false, &fault))
		row->fault = psprintf("%s: %s", fault.column, fault.message);
	appendStringInfoChar(&members, '}');
	whole.p = members.data;
	whole.len = members.len;
	if (row->fault == NULL)
		take_expected(v, row, whole);
	MemoryContextSwitchTo(old);
}

static void
take_keys(DvVerify *v, DvVerifyRow *row, const Datum *values, DvVerifyChunk *chunk)
{
	const DvProjection *p = v->projection;
	MemoryContext old = MemoryContextSwitchTo(chunk->context);
	int			i;

	row->keys = palloc(sizeof(Datum) * p->nkeys);
	for (i = 0; i < p->nkeys; i++)
		row->keys[i] = datumCopy(values[DV_PROJ_KEYS - 1 + i], p->keys[i].byval, p->keys[i].len);
	MemoryContextSwitchTo(old);
}

/* What a row is to be recorded by whose outcome was lost. */
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
	take_keys(v, row, values, chunk);
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

static void
take_row(DvVerify *v, DvVerifyRow *row, HeapTuple tuple, TupleDesc desc, DvVerifyChunk *chunk)
{
	int			recorded = DV_PROJ_KEYS + v->projection->nkeys + v->projection->ncolumns;
	Datum	   *values = palloc(sizeof(Datum) * desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * desc->natts);

	heap_deform_tuple(tuple, desc, values, nulls);
	row->state = DatumGetChar(values[DV_PROJ_OP - 1]);
	row->has_id = !nulls[DV_PROJ_ID - 1];
	if (row->has_id)
		row->id = *DatumGetUUIDP(values[DV_PROJ_ID - 1]);
	row->created = !nulls[DV_PROJ_CREATED_RUN - 1];
	row->updated = DatumGetBool(values[DV_PROJ_OWES - 1]);
	row->has_record = DatumGetBool(values[DV_PROJ_OWES_UNCHANGED - 1]);
	row->kept = DatumGetBool(values[DV_PROJ_VERIFY - 1]);
	take_version(row, values);
	if (v->projection->link != NULL)
		take_ends(v, row, values, nulls);
	row->recorded_at = nulls[recorded - 1] ? 0 : DatumGetTimestampTz(values[recorded - 1]);
	row->key = key_text(v, tuple, desc, DV_PROJ_KEYS, chunk->context);
	if (!nulls[DV_PROJ_FAULT - 1])
		row->fault = MemoryContextStrdup(chunk->context, TextDatumGetCString(values[DV_PROJ_FAULT - 1]));
	if (v->rebuild != NULL)
		take_keys(v, row, values, chunk);
	if (v->projection->link == NULL && (row->state == 'P' || row->state == 'S' || v->rebuild != NULL))
	{
		const char *fault = row->fault;

		map_row(v, row, values, nulls, chunk);
		if (v->resend != NULL)
			take_content(v, row, values, nulls, chunk);
		if (fault != NULL)
			row->fault = fault;
	}
	remember_keys(v, values + DV_PROJ_KEYS - 1);
	pfree(values);
	pfree(nulls);
}

/* A row whose maps throw: what is known of it without them. */
static void
take_bad_row(DvVerify *v, DvVerifyRow *row, HeapTuple tuple, TupleDesc desc, DvVerifyChunk *chunk, const char *fault)
{
	Datum	   *values = palloc(sizeof(Datum) * desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * desc->natts);

	heap_deform_tuple(tuple, desc, values, nulls);
	row->state = DatumGetChar(values[DV_PROJ_OP - 1]);
	row->has_id = !nulls[DV_KNOWN_ID - 1];
	if (row->has_id)
		row->id = *DatumGetUUIDP(values[DV_KNOWN_ID - 1]);
	row->created = !nulls[DV_KNOWN_CREATED_RUN - 1];
	row->has_record = row->has_id;
	row->key = key_text(v, tuple, desc, DV_KNOWN_KEYS, chunk->context);
	row->fault = MemoryContextStrdup(chunk->context, fault);
	if (v->rebuild != NULL)
	{
		take_version(row, values);
		take_keys(v, row, values + DV_KNOWN_KEYS - DV_PROJ_KEYS, chunk);
	}
	remember_keys(v, values + DV_KNOWN_KEYS - 1);
}

/* A record of an outcome whose staging row is gone. */
static void
take_gone(DvVerify *v, DvVerifyRow *row, HeapTuple tuple, TupleDesc desc, DvVerifyChunk *chunk)
{
	Datum	   *values = palloc(sizeof(Datum) * desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * desc->natts);

	heap_deform_tuple(tuple, desc, values, nulls);
	row->state = 'G';
	row->has_id = true;
	row->id = *DatumGetUUIDP(values[0]);
	row->key = key_text(v, tuple, desc, 2, chunk->context);
	remember_keys(v, values + 1);
}

static int
by_id(const void *a, const void *b)
{
	const DvVerifyRow *x = a;
	const DvVerifyRow *y = b;

	if (x->has_id != y->has_id)
		return x->has_id ? -1 : 1;
	return memcmp(x->id.data, y->id.data, UUID_LEN);
}

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
	StringInfoData sql;
	StringInfoData keys;
	int			i;

	initStringInfo(&keys);
	for (i = 0; i < p->nkeys; i++)
		appendStringInfo(&keys, "%ss.%s", i ? ", " : "", p->keys[i].column);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT s.dataverse_id, %s FROM %s s WHERE s.operation <> 'D' AND s.created_run IS NOT NULL"
					 " AND s.dataverse_id IS NOT NULL AND NOT EXISTS (SELECT FROM %s t WHERE ", keys.data, v->gone_table, p->staging_sql);
	for (i = 0; i < p->nkeys; i++)
		appendStringInfo(&sql, "%st.%s = s.%s", i ? " AND " : "", p->keys[i].column, p->keys[i].column);
	appendStringInfoChar(&sql, ')');
	if (v->sample_sql != NULL)
		appendStringInfo(&sql, " AND %s", v->sample_sql);
	if (v->last_keys != NULL)
	{
		appendStringInfo(&sql, " AND (%s) > (", keys.data);
		for (i = 0; i < p->nkeys; i++)
			appendStringInfo(&sql, "%s$%d", i ? ", " : "", i + 1);
		appendStringInfoChar(&sql, ')');
	}
	appendStringInfo(&sql, " ORDER BY %s LIMIT %d", keys.data, limit);
	return sql.data;
}

static DvVerifyChunk *
take_result(DvVerify *v, ReadWhat what, const char *fault)
{
	TupleDesc	desc = SPI_tuptable->tupdesc;
	MemoryContext context = AllocSetContextCreate(v->context, "dvmig verify chunk", ALLOCSET_DEFAULT_SIZES);
	DvVerifyChunk *chunk = MemoryContextAllocZero(context, sizeof(DvVerifyChunk));
	uint64		i;

	chunk->context = context;
	chunk->n = (int) SPI_processed;
	chunk->rows = MemoryContextAllocZero(context, sizeof(DvVerifyRow) * (chunk->n + 1));
	if (what == READ_MAPPED && v->projection->link == NULL)
		prepare(v, desc);
	for (i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];

		if (what == READ_MAPPED)
			take_row(v, &chunk->rows[i], tuple, desc, chunk);
		else if (what == READ_KNOWN)
			take_bad_row(v, &chunk->rows[i], tuple, desc, chunk, fault);
		else
			take_gone(v, &chunk->rows[i], tuple, desc, chunk);
	}
	qsort(chunk->rows, chunk->n, sizeof(DvVerifyRow), by_id);
	while (chunk->nids < chunk->n && chunk->rows[chunk->nids].has_id)
		chunk->nids++;
	return chunk;
}

/* One try; where it threw, *error is the error. NULL where nothing was left. */
static DvVerifyChunk *
try_read(DvVerify *v, ReadWhat what, int limit, const char *fault, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	DvVerifyChunk *volatile chunk = NULL;

	*error = NULL;
	PG_TRY();
	{
		Oid			types[INDEX_MAX_KEYS];
		Datum		values[INDEX_MAX_KEYS];
		char	   *sql;

		dv_spi_begin("dvmig: reading rows to verify");
		dv_spi_follow_indexes();
		dv_spi_wait_briefly();
		sql = what == READ_GONE ? gone_query(v, limit)
			: dv_projection_query(v->projection, v->last_keys != NULL, false, limit, what == READ_MAPPED ? DV_READ_MAPPED : DV_READ_KNOWN);
		if (SPI_execute_with_args(sql, key_parameters(v, types, values), types, values, NULL, true, 0) != SPI_OK_SELECT)
			elog(ERROR, "reading rows to verify did not answer a result");
		if (SPI_processed > 0)
			chunk = take_result(v, what, fault);
		if (chunk != NULL && what == READ_MAPPED)
			dv_verify_read_files(v, chunk);
		dv_spi_commit(true);
	}
	PG_CATCH();
	{
		*error = dv_spi_abort(v->context);
		chunk = NULL;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return chunk;
}

/* A user locks the table: later, but not for ever. */
static void
wait_for_user(DvVerify *v, ErrorData *error)
{
	TimestampTz now = GetCurrentTimestamp();

	if (v->locked_since == 0)
		v->locked_since = now;
	else if (TimestampDifferenceExceeds(v->locked_since, now, DV_LOCK_PATIENCE_MS))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("another session holds a lock on %s or its outcome tables", v->plan.name)));
	v->read_after = TimestampTzPlusMilliseconds(now, LOCK_PAUSE_MS);
	FreeErrorData(error);
}

static void
walk_on(DvVerify *v)
{
	v->last_keys = NULL;
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
	else if (error != NULL && what == READ_MAPPED && dv_source_is_row_fault(error->sqlerrcode))
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
		v->locked_since = 0;
		if (v->read_limit > 0)
			v->read_limit = v->read_limit * 2 < v->rows_per_read ? v->read_limit * 2 : 0;
		if (chunk == NULL)
			walk_on(v);
	}
	return chunk;
}

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

#include "call.h"
#include "encode.h"
#include "spi.h"
#include "verify.h"

/* Pause before a table is read again that a user locks, and how long that goes on. */
#define LOCK_PAUSE_MS		200
#define LOCK_PATIENCE_MS	60000

/* ---------------------------------------------------------------- the definition */

static DvCompareKind
kind_of(const DvPayloadColumn *c, const char *column_type)
{
	switch (c->target)
	{
		case DV_TARGET_TEXT:
			return DV_COMPARE_TEXT;
		case DV_TARGET_INTEGER:
			return DV_COMPARE_NUMBER;
		case DV_TARGET_NUMBER:
			return strcmp(column_type, "Double") == 0 ? DV_COMPARE_DOUBLE :
				strcmp(column_type, "Money") == 0 ? DV_COMPARE_MONEY : DV_COMPARE_NUMBER;
		case DV_TARGET_BOOLEAN:
			return DV_COMPARE_BOOLEAN;
		case DV_TARGET_GUID:
			return DV_COMPARE_GUID;
		case DV_TARGET_DATE:
			return DV_COMPARE_DATE;
		case DV_TARGET_INSTANT:
		case DV_TARGET_WALL_CLOCK:
			return DV_COMPARE_INSTANT;
		case DV_TARGET_CHOICES:
			return DV_COMPARE_CHOICES;
		case DV_TARGET_LOOKUP:
			return DV_COMPARE_LOOKUP;
		case DV_TARGET_BINARY:
		case DV_TARGET_RAW:
			break;
	}
	return DV_COMPARE_PRESENCE;
}

static bool
is_summed(const char *column_type)
{
	static const char *const types[] = {"Integer", "BigInt", "Decimal", "Double", "Money"};
	int			i;

	for (i = 0; i < (int) lengthof(types); i++)
		if (strcmp(column_type, types[i]) == 0)
			return true;
	return false;
}

/* The column of that name, or a new one. */
static DvVerifyColumn *
column_named(DvVerify *v, const char *name)
{
	int			i;

	for (i = 0; i < v->ncolumns; i++)
		if (strcmp(v->columns[i].name, name) == 0)
			return &v->columns[i];
	v->columns[v->ncolumns].name = name;
	return &v->columns[v->ncolumns++];
}

static void
load_columns(DvVerify *v)
{
	const DvProjection *p = v->projection;
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(p->staging)};
	int			n = (int) dv_spi_run("SELECT * FROM dvmig._verify_columns($1::regclass)", 1, types, values, NULL, SPI_OK_SELECT);
	int			i;

	if (n != p->ncolumns)
		elog(ERROR, "%d columns to be read back, %d are mapped", n, p->ncolumns);
	v->columns = MemoryContextAllocZero(v->context, sizeof(DvVerifyColumn) * (n + 1));
	v->part_column = MemoryContextAllocZero(v->context, sizeof(int) * (n + 1));
	v->part_index = MemoryContextAllocZero(v->context, n + 1);
	for (i = 0; i < n; i++)
	{
		const DvPayloadColumn *mapped = &p->columns[i];
		DvVerifyColumn *c = column_named(v, mapped->column);
		char	   *read_name = dv_spi_text(i, 1);
		char	   *column_type = dv_spi_text(i, 2);
		char	   *precision = dv_spi_text(i, 3);
		char	   *referenced = dv_spi_text(i, 4);

		if (c->nparts >= DV_VERIFY_PARTS)
			elog(ERROR, "column \"%s\" is mapped too often", mapped->column);
		c->read_name = read_name ? MemoryContextStrdup(v->context, read_name) : NULL;
		c->read_len = read_name ? strlen(read_name) : 0;
		c->kind = kind_of(mapped, column_type ? column_type : "");
		c->precision = precision ? atoi(precision) : -1;
		c->send |= mapped->send;
		/* states and status reasons belong to a pass of their own */
		c->deferred |= mapped->deferred || strcmp(mapped->column, "statecode") == 0 || strcmp(mapped->column, "statuscode") == 0;
		c->summed = column_type != NULL && is_summed(column_type);
		v->part_column[i] = (int) (c - v->columns);
		v->part_index[i] = (signed char) c->nparts;
		c->referenced[c->nparts++] = referenced ? MemoryContextStrdup(v->context, referenced) : NULL;
	}
}

/* Does the select list have this member already? */
static bool
is_selected(const StringInfoData *select, const char *name)
{
	char	   *list = psprintf(",%s,", select->data);

	return strstr(list, psprintf(",%s,", name)) != NULL;
}

static void
load_select(DvVerify *v)
{
	static const char *const members[DV_VERIFY_CONTEXTS] = {"modifiedon", "_modifiedby_value", "_createdby_value", "_ownerid_value"};
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(v->projection->staging)};
	StringInfoData select;
	char	   *context;
	int			i;

	initStringInfo(&select);
	appendStringInfoString(&select, v->projection->wire.primary_id);
	dv_spi_run("SELECT array_to_string(dvmig._verify_context($1::regclass), ',')", 1, types, values, NULL, SPI_OK_SELECT);
	context = psprintf(",%s,", dv_spi_text(0, 1));
	for (i = 0; i < DV_VERIFY_CONTEXTS; i++)
	{
		v->reads[i] = strstr(context, psprintf(",%s,", members[i])) != NULL;
		if (v->reads[i])
			appendStringInfo(&select, ",%s", members[i]);
	}
	for (i = 0; i < v->ncolumns; i++)
		if (v->columns[i].read_name != NULL && !is_selected(&select, v->columns[i].read_name))
			appendStringInfo(&select, ",%s", v->columns[i].read_name);
	v->select = MemoryContextStrdup(v->context, select.data);
}

/* The number by which a row is taken into the sample, as SQL, and how many rows or what share it is to be. */
static char *
load_sample(DvVerify *v, char **sample)
{
	Oid			types[2] = {OIDOID, INT8OID};
	Datum		values[2] = {ObjectIdGetDatum(v->projection->staging), Int64GetDatum(v->rc->run)};
	char	   *sql;

	dv_spi_run("SELECT dvmig._verify_sample($1::regclass, (h.options ->> 'sample')::numeric, h.run, 's'), h.options ->> 'sample'"
			   " FROM dvmig.run_history h WHERE h.run = $2", 2, types, values, NULL, SPI_OK_SELECT);
	sql = dv_spi_text(0, 1);
	*sample = dv_spi_text(0, 2);
	*sample = *sample ? MemoryContextStrdup(v->context, *sample) : NULL;
	return sql ? MemoryContextStrdup(v->context, sql) : NULL;
}

/* The largest such number that still belongs to the sample, found with the owner's rights. */
static void
load_threshold(DvVerify *v, const char *number_sql, const char *sample)
{
	char	   *threshold;

	dv_spi_begin("dvmig: taking a sample");
	dv_spi_run(strtod(sample, NULL) < 1
			   ? psprintf("SELECT least(trunc(%s * 18446744073709551616 - 9223372036854775808), 9223372036854775807)::bigint::text", sample)
			   : psprintf("SELECT max(h)::text FROM (SELECT %s AS h FROM %s s WHERE s.processing_flag IN ('S', 'P') ORDER BY 1 LIMIT %s) q",
						  number_sql, v->projection->staging_sql, sample),
			   0, NULL, NULL, NULL, SPI_OK_SELECT);
	threshold = dv_spi_text(0, 1);
	v->sample_sql = MemoryContextStrdup(v->context, threshold ? psprintf("%s <= (%s)::bigint", number_sql, threshold) : "false");
	dv_spi_commit(true);
}

void
dv_verify_load(DvVerify *v)
{
	DvSwitch	before;
	char	   *number_sql;
	char	   *sample;

	dv_spi_begin("dvmig: loading the definition");
	dv_spi_no_timeouts();
	before = dv_call_become_extension_owner();
	v->projection = dv_projection_load(v->plan.staging, "verify", v->plan.deferred,
									   dv_session_api_path(v->rc->session), dv_session_api_url(v->rc->session), v->context);
	load_columns(v);
	load_select(v);
	number_sql = load_sample(v, &sample);
	dv_call_restore(before);
	dv_spi_commit(true);
	MemoryContextSwitchTo(v->context);
	if (number_sql != NULL)
		load_threshold(v, number_sql, sample);
	if (v->sample_sql != NULL)
		v->projection->inner_sql = psprintf("%s AND %s", v->projection->inner_sql, v->sample_sql);
	v->gone_table = v->projection->success_sql;
}

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
	row->recorded_at = nulls[recorded - 1] ? 0 : DatumGetTimestampTz(values[recorded - 1]);
	row->key = key_text(v, tuple, desc, DV_PROJ_KEYS, chunk->context);
	if (!nulls[DV_PROJ_FAULT - 1])
		row->fault = MemoryContextStrdup(chunk->context, TextDatumGetCString(values[DV_PROJ_FAULT - 1]));
	if ((row->state == 'P' || row->state == 'S'))
	{
		const char *fault = row->fault;

		map_row(v, row, values, nulls, chunk);
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
	if (what == READ_MAPPED)
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
	else if (TimestampDifferenceExceeds(v->locked_since, now, LOCK_PATIENCE_MS))
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

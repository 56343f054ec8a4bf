/*
 * source.c - staging rows to encoded rows, a batch at a time
 *
 * A lap walks the source key upwards: each batch is one short transaction
 * that reads what is unprocessed after the last key, so that nothing has to
 * be claimed in the tables and nothing is read twice in a lap.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "encode.h"
#include "runstate.h"
#include "spi.h"

/* JSON of one read at most: bounds memory whatever the rows hold. */
#define READ_BYTES_MAX		(16 * 1024 * 1024)

/* Pause before the table is read again that a user locks, in milliseconds. */
#define LOCK_PAUSE_MS		100

/* A row answered this often in one run does not keep its flag: leave it. */
#define ANSWERS_MAX			3

typedef struct TakenId
{
	pg_uuid_t	uuid;
	int			count;
} TakenId;

static const char hex_digits[] = "0123456789abcdef";

void
dv_source_rewind(DvStep *step)
{
	step->lap++;
	step->lap_done = false;
	step->lap_parked = 0;
	step->lap_taken = 0;
	step->last_keys = NULL;
	step->read_limit = 0;
}

void
dv_source_format_id(const pg_uuid_t *uuid, char *out)
{
	int			i;

	for (i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		*out++ = hex_digits[uuid->data[i] >> 4];
		*out++ = hex_digits[uuid->data[i] & 15];
	}
	*out = '\0';
}

/* Copies of the key values from "first" in values[], in "context". */
static Datum *
copy_keys(const DvProjection *p, const Datum *values, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	Datum	   *keys = palloc(sizeof(Datum) * p->nkeys);
	int			i;

	for (i = 0; i < p->nkeys; i++)
		keys[i] = datumCopy(values[i], p->keys[i].byval, p->keys[i].len);
	MemoryContextSwitchTo(old);
	return keys;
}

/* Where the next read goes on. */
static void
remember_keys(DvStep *step, const Datum *values)
{
	MemoryContextReset(step->key_context);
	step->last_keys = copy_keys(step->projection, values, step->key_context);
}

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

static void
read_version(DvRow *row, const Datum *values)
{
	row->version.ctid = *(ItemPointer) DatumGetPointer(values[DV_PROJ_CTID - 1]);
	row->version.xmin = DatumGetTransactionId(values[DV_PROJ_XMIN - 1]);
	row->version.tableoid = DatumGetObjectId(values[DV_PROJ_TABLEOID - 1]);
	row->version.filenode = filenode_of(row->version.tableoid);
}

/*
 * What stands for a row that cannot be transformed in this run: a hash of its
 * source key. Like ids, hashes of 16 bytes do not meet by chance.
 */
static void
key_handle(const DvProjection *p, const Datum *values, pg_uuid_t *handle)
{
	StringInfoData bytes;
	int			i;

	initStringInfo(&bytes);
	for (i = 0; i < p->nkeys; i++)
	{
		const DvKeyType *key = &p->keys[i];

		if (key->byval)
			appendBinaryStringInfo(&bytes, (const char *) &values[i], sizeof(Datum));
		else if (key->len == -1)
		{
			struct varlena *value = PG_DETOAST_DATUM_PACKED(values[i]);
			int			len = (int) VARSIZE_ANY_EXHDR(value);

			appendBinaryStringInfo(&bytes, (const char *) &len, sizeof(len));
			appendBinaryStringInfo(&bytes, VARDATA_ANY(value), len);
		}
		else
			appendBinaryStringInfo(&bytes, DatumGetPointer(values[i]), key->len);
	}
	dv_payload_hash(bytes.data, bytes.len, handle->data);
	pfree(bytes.data);
}

/* Seen too often in this run: its flag does not hold (a trigger resets it). */
bool
dv_source_answered_too_often(DvStep *step, const DvRow *row)
{
	TakenId    *taken;
	bool		found;

	if (step->lap < 2)
		return false;
	taken = hash_search(step->taken_ids, &row->handle, HASH_ENTER, &found);
	if (!found)
		taken->count = 0;
	if (taken->count < ANSWERS_MAX)
	{
		taken->count++;
		return false;
	}
	hash_search(step->refused, &row->handle, HASH_ENTER, NULL);
	return true;
}

/* Fill in the row; false where it is not for this batch. */
static bool
take_row(DvStep *step, DvRow *row, const Datum *values, const bool *nulls)
{
	read_version(row, values);
	if (dv_outcome_answered(step, &row->version))
		return false;
	row->wire.op = DatumGetChar(values[DV_PROJ_OP - 1]);
	if (!nulls[DV_PROJ_ID - 1])
	{
		row->uuid = *DatumGetUUIDP(values[DV_PROJ_ID - 1]);
		dv_source_format_id(&row->uuid, row->wire.id);
		row->handle = row->uuid;
	}
	row->created_run = nulls[DV_PROJ_CREATED_RUN - 1] ? 0 : DatumGetInt64(values[DV_PROJ_CREATED_RUN - 1]);
	row->owes = DatumGetBool(values[DV_PROJ_OWES - 1]);
	row->verify = (DatumGetBool(values[DV_PROJ_VERIFY - 1]) && row->wire.op == 'I') ||
		(step->forgotten && row->wire.op != 'D');
	return true;
}

/* Turn the rows of the SPI result into a batch; returns those to be sent. */
static DvRow **
encode_result(DvStep *step, int *n, bool *whole)
{
	TupleDesc	desc = SPI_tuptable->tupdesc;
	uint64		rows = SPI_processed;
	MemoryContext context = AllocSetContextCreate(step->context, "dvmig batch",
												  ALLOCSET_DEFAULT_SIZES);
	DvBatch    *batch = MemoryContextAllocZero(context, sizeof(DvBatch));
	DvRow	  **taken = MemoryContextAlloc(context, sizeof(DvRow *) * (rows + 1));
	Datum	   *values = palloc(sizeof(Datum) * desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * desc->natts);
	StringInfoData content;
	StringInfoData scratch;
	MemoryContext old;
	uint64		i;
	int			k;

	batch->context = context;
	step->reading = taken;
	step->nreading = 0;
	dv_encode_descriptor(step, desc);
	initStringInfo(&scratch);
	old = MemoryContextSwitchTo(context);
	initStringInfo(&content);
	MemoryContextSwitchTo(old);

	*n = 0;
	*whole = true;
	for (i = 0; i < rows; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		DvRow	   *row = MemoryContextAllocZero(context, sizeof(DvRow));

		heap_deform_tuple(tuple, desc, values, nulls);
		row->batch = batch;
		if (take_row(step, row, values, nulls))
		{
			row->keys = copy_keys(step->projection, values + DV_PROJ_KEYS - 1, context);
			if (dv_encode_row(step, row, tuple, desc, values, nulls, &content, &scratch))
			{
				taken[(*n)++] = row;
				step->nreading = *n;
				hash_search(step->busy_ids, &row->handle, HASH_ENTER, NULL);
				row->busy = true;
			}
		}
		if (content.len > READ_BYTES_MAX || i + 1 == rows)
		{
			*whole = i + 1 == rows;
			remember_keys(step, values + DV_PROJ_KEYS - 1);
			break;
		}
	}
	for (k = 0; k < *n; k++)
		taken[k]->wire.content = content.data + taken[k]->content_offset;
	if (*n > 0)
		step->row_bytes = (step->row_bytes + content.len / *n) / 2 + 1;
	if (batch->open_rows == 0)
	{
		step->reading = NULL;
		MemoryContextDelete(context);
		return NULL;
	}
	return taken;
}

/* SQLSTATE classes that are the row's fault: data, constraints, raised errors, limits. */
bool
dv_source_is_row_fault(int sqlerrcode)
{
	static const char *const classes[] = {"21", "22", "23", "39", "2F", "54", "P0"};
	const char *state = unpack_sql_state(sqlerrcode);
	int			i;

	for (i = 0; i < (int) lengthof(classes); i++)
		if (strncmp(state, classes[i], 2) == 0)
			return true;
	return false;
}

static int
key_parameters(DvStep *step, Oid *types, Datum *values)
{
	int			i;

	if (step->last_keys == NULL)
		return 0;
	for (i = 0; i < step->projection->nkeys; i++)
	{
		types[i] = step->projection->keys[i].type;
		values[i] = step->last_keys[i];
	}
	return step->projection->nkeys;
}

/* Which column's expression throws for the next row; "" if none does alone. */
static const char *
failing_column(DvStep *step)
{
	const DvProjection *p = step->projection;
	MemoryContext context = CurrentMemoryContext;
	Oid			types[INDEX_MAX_KEYS];
	Datum		values[INDEX_MAX_KEYS];
	volatile int i;

	for (i = 0; i < p->ncolumns; i++)
	{
		volatile bool failed = false;

		PG_TRY();
		{
			char	   *sql;

			dv_spi_begin("dvmig: finding the column of an error");
			sql = dv_projection_query(p, step->last_keys != NULL, 1, true);
			sql = psprintf("SELECT %s%s", p->expressions[i], sql + strlen(p->select_sql));
			SPI_execute_with_args(sql, key_parameters(step, types, values), types, values, NULL, true, 0);
			dv_spi_commit(true);
		}
		PG_CATCH();
		{
			FreeErrorData(dv_spi_abort(context));
			failed = true;
		}
		PG_END_TRY();
		if (failed)
			return p->columns[i].column;
	}
	return "";
}

/* What is known of a row without its maps: a record it has stays its record. */
static void
read_known(DvRow *row, const Datum *values, const bool *nulls)
{
	row->wire.op = DatumGetChar(values[DV_PROJ_OP - 1]);
	row->created_run = nulls[DV_KNOWN_CREATED_RUN - 1] ? 0 : DatumGetInt64(values[DV_KNOWN_CREATED_RUN - 1]);
	if (nulls[DV_KNOWN_ID - 1])
		return;
	row->uuid = *DatumGetUUIDP(values[DV_KNOWN_ID - 1]);
	dv_source_format_id(&row->uuid, row->wire.id);
}

/* The next row alone cannot be transformed: it is an error row, named by key. */
static void
take_bad_row(DvStep *step, const ErrorData *error)
{
	const char *column = failing_column(step);
	Oid			types[INDEX_MAX_KEYS];
	Datum		values[INDEX_MAX_KEYS];
	char	   *sql;

	dv_spi_begin("dvmig: reading a row that cannot be transformed");
	sql = dv_projection_query(step->projection, step->last_keys != NULL, 1, false);
	SPI_execute_with_args(sql, key_parameters(step, types, values), types, values, NULL, true, 0);
	if (SPI_processed > 0)
	{
		TupleDesc	desc = SPI_tuptable->tupdesc;
		MemoryContext context = AllocSetContextCreate(step->context, "dvmig batch", ALLOCSET_SMALL_SIZES);
		DvRow	   *row = MemoryContextAllocZero(context, sizeof(DvRow));
		Datum	   *all = palloc(sizeof(Datum) * desc->natts);
		bool	   *nulls = palloc(sizeof(bool) * desc->natts);

		heap_deform_tuple(SPI_tuptable->vals[0], desc, all, nulls);
		row->batch = MemoryContextAllocZero(context, sizeof(DvBatch));
		row->batch->context = context;
		read_version(row, all);
		read_known(row, all, nulls);
		row->keys = copy_keys(step->projection, all + DV_KNOWN_KEYS - 1, context);
		remember_keys(step, all + DV_KNOWN_KEYS - 1);
		key_handle(step->projection, all + DV_KNOWN_KEYS - 1, &row->handle);
		if (dv_outcome_answered(step, &row->version) || dv_source_answered_too_often(step, row))
			MemoryContextDelete(context);
		else
		{
			row->batch->open_rows = 1;
			step->lap_taken++;
			step->counters.rows_read++;
			dv_outcome_failure(step, row, dv_encode_verdict("transform", unpack_sql_state(error->sqlerrcode),
														column, error->message));
		}
	}
	dv_spi_commit(true);
}

/* A read that broke off is done again: what it left must not count twice. */
static void
forget_read(DvStep *step, int outcomes)
{
	int			i;

	for (i = 0; i < step->nreading; i++)
		hash_search(step->busy_ids, &step->reading[i]->handle, HASH_REMOVE, NULL);
	step->nreading = 0;
	step->noutcomes = outcomes;
	if (step->reading != NULL)
		MemoryContextDelete(GetMemoryChunkContext(step->reading));
	step->reading = NULL;
}

/*
 * One try to read "limit" rows; *got tells how many there were, *whole whether
 * all of them were looked at. Where it threw, *error is the error.
 */
static DvRow **
try_read(DvStep *step, int limit, int *n, int *got, bool *whole, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			types[INDEX_MAX_KEYS];
	Datum		values[INDEX_MAX_KEYS];
	DvRow	  **volatile rows = NULL;
	int			outcomes = step->noutcomes;

	*error = NULL;
	step->reading = NULL;
	step->nreading = 0;
	PG_TRY();
	{
		char	   *sql;

		dv_spi_begin("dvmig: reading staging rows");
		dv_spi_follow_indexes();
		dv_spi_wait_briefly();
		sql = dv_projection_query(step->projection, step->last_keys != NULL, limit, true);
		if (SPI_execute_with_args(sql, key_parameters(step, types, values), types, values, NULL, true, 0) != SPI_OK_SELECT)
			elog(ERROR, "reading staging rows did not answer a result");
		*got = (int) SPI_processed;
		*n = 0;
		*whole = true;
		rows = *got > 0 ? encode_result(step, n, whole) : NULL;
		dv_spi_commit(true);
	}
	PG_CATCH();
	{
		*error = dv_spi_abort(step->context);
		forget_read(step, outcomes);
		rows = NULL;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return rows;
}

DvRow **
dv_source_read(DvStep *step, int limit, int *n)
{
	*n = 0;
	if (step->row_bytes > 0 && limit > (int) (READ_BYTES_MAX / step->row_bytes))
		limit = Max(1, (int) (READ_BYTES_MAX / step->row_bytes));
	while (!step->lap_done)
	{
		int			ask = step->read_limit > 0 && step->read_limit < limit ? step->read_limit : limit;
		int			got = 0;
		bool		whole;
		ErrorData  *error;
		DvRow	  **rows;

		CHECK_FOR_INTERRUPTS();
		rows = try_read(step, ask, n, &got, &whole, &error);
		if (error == NULL)
		{
			if (got == 0 || (got < ask && whole))
				step->lap_done = true;
			step->read_limit = step->read_limit > 0 && step->read_limit * 2 < limit ? step->read_limit * 2 : 0;
			if (got > 0)
				return rows;
		}
		else if (dv_source_is_row_fault(error->sqlerrcode))
		{
			if (ask == 1)
				take_bad_row(step, error);
			else
				step->read_limit = ask / 2;
			FreeErrorData(error);
		}
		else if (dv_spi_is_contention(error))
		{
			/* replies come in meanwhile */
			step->read_after = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOCK_PAUSE_MS);
			FreeErrorData(error);
			break;
		}
		else if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TO_CATEGORY(ERRCODE_UNDEFINED_COLUMN) &&
				 dv_runstate_follow_columns(step))
			FreeErrorData(error);
		else
		{
			step->error = error;
			step->lap_done = true;
		}
	}
	return NULL;
}

/*
 * source.c - staging rows to encoded rows, a batch at a time
 *
 * A lap walks the source key upwards: each batch is one short transaction
 * that reads what is unprocessed after the last key, so that nothing has to
 * be claimed in the tables and nothing is read twice in a lap.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "batch.h"
#include "encode.h"
#include "hash128.h"
#include "phase.h"
#include "runstate.h"
#include "sets.h"
#include "spi.h"
#include "wiretext.h"

/* So many serialization failures in a row, and nobody but the row itself is to blame. */
#define CONFLICTS_MAX		10

/* A row answered this often in one run does not keep its flag: leave it. */
#define ANSWERS_MAX			3

void
dv_source_rewind(DvStep *step)
{
	step->lap_done = step->has_range = step->lent = false;
	step->lap_parked = step->lap_taken = step->lap_flagged = 0;
	dv_walk_rewind(&step->walk);
	step->until_keys = NULL;
	step->read_limit = 0;
	step->in_window = false;
	step->examine = step->conflicts = 0;
}

void
dv_source_format_id(const pg_uuid_t *uuid, char *out)
{
	dv_wiretext_format_uuid(uuid->data, out);
}

/*
 * What stands for a row that cannot be transformed in this run: a hash of its
 * source key. Like ids, hashes of 16 bytes do not meet by chance.
 */
void
dv_source_key_handle(const DvProjection *p, const Datum *values, pg_uuid_t *handle)
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
	dv_hash128(bytes.data, bytes.len, handle->data);
	pfree(bytes.data);
}

/*
 * Seen too often in this run: its flag does not hold (a trigger resets it).
 * Counted by source key: of rows that name one record each lap answers another.
 */
bool
dv_source_answered_too_often(DvStep *step, const DvRow *row)
{
	pg_uuid_t	key;

	if (step->lap < 2)
		return false;
	dv_source_key_handle(step->projection, row->keys, &key);
	if (dv_sets_count_answer(step->sets, &key, ANSWERS_MAX))
		return false;
	/* told of where its flags are told of, and not twice */
	dv_sets_set_refused(step->sets, &row->handle, true);
	return true;
}

/* The answer it was counted for will not be: the read broke off. */
void
dv_source_unanswer(DvStep *step, const DvRow *row)
{
	pg_uuid_t	key;

	if (step->lap < 2)
		return;
	dv_source_key_handle(step->projection, row->keys, &key);
	dv_sets_uncount_answer(step->sets, &key);
}

/*
 * SQLSTATE classes that are the row's fault: data, constraints, raised errors,
 * limits, and what is not supported of a value: NaN as an integer is of class 0A.
 * One that has a place in the statement is of the statement.
 */
bool
dv_source_is_row_fault(const ErrorData *error)
{
	static const char *const classes[] = {"21", "22", "23", "39", "2F", "54", "P0"};
	const char *state = unpack_sql_state(error->sqlerrcode);
	int			i;

	if (strncmp(state, "0A", 2) == 0)
		return error->cursorpos == 0 && error->internalpos == 0;
	for (i = 0; i < (int) lengthof(classes); i++)
		if (strncmp(state, classes[i], 2) == 0)
			return true;
	return false;
}

bool
dv_source_is_passing(DvStep *step, const ErrorData *error)
{
	if (!dv_spi_is_contention(error))
		return false;
	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE && !dv_spi_is_raised(error))
		return true;
	return step->conflicts < CONFLICTS_MAX && ++step->conflicts < CONFLICTS_MAX;
}

/* The SELECT for the next row of the range, and its parameters. */
static char *
next_row(DvStep *step, DvReadWhat what, int *nargs, Oid *types, Datum *values)
{
	*nargs = dv_projection_bounds(step->projection, step->walk.last, step->until_keys, types, values);
	return dv_projection_query(step->projection, step->walk.last != NULL, step->until_keys != NULL, 1, what);
}

/* Does this expression alone throw for the next row? A constant: does the filter? */
static bool
throws(DvStep *step, const char *expression)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool failed = false;

	PG_TRY();
	{
		Oid			types[2 * INDEX_MAX_KEYS];
		Datum		values[2 * INDEX_MAX_KEYS];
		int			nargs;
		char	   *sql;

		dv_spi_begin("dvmig: finding the column of an error");
		dv_spi_wait_briefly();
		sql = next_row(step, DV_READ_MAPPED, &nargs, types, values);
		sql = psprintf("SELECT %s%s", expression, sql + strlen(step->projection->select_sql));
		dv_spi_run(sql, nargs, types, values, NULL, SPI_OK_SELECT);
		dv_spi_commit(true);
	}
	PG_CATCH();
	{
		ErrorData  *error = dv_spi_abort(context);

		/* a user who locks the table throws nothing: the column is not named then */
		failed = error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE || dv_spi_is_raised(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return failed;
}

/* Which column's expression throws for the next row; "" if none does alone. */
static const char *
failing_column(DvStep *step)
{
	const DvProjection *p = step->projection;
	int			i;

	for (i = 0; i < p->ncolumns; i++)
		if (throws(step, p->expressions[i]))
			return p->columns[i].column;
	return "";
}

/* What is known of a row without its maps: a record it has stays its record. */
static void
read_known(DvRow *row, const Datum *values, const bool *nulls, int64 run)
{
	row->wire.op = DatumGetChar(values[DV_PROJ_OP - 1]);
	row->created_run = nulls[DV_KNOWN_CREATED_RUN - 1] ? 0 : DatumGetInt64(values[DV_KNOWN_CREATED_RUN - 1]);
	row->again = !nulls[DV_KNOWN_LAST_RUN - 1] && DatumGetInt64(values[DV_KNOWN_LAST_RUN - 1]) == run;
	if (nulls[DV_KNOWN_ID - 1])
		return;
	row->uuid = *DatumGetUUIDP(values[DV_KNOWN_ID - 1]);
	dv_source_format_id(&row->uuid, row->wire.id);
}

/* The next row without its maps, in the transaction at hand; NULL where there is none. */
static DvRow *
read_next_known(DvStep *step)
{
	Oid			types[2 * INDEX_MAX_KEYS];
	Datum		values[2 * INDEX_MAX_KEYS];
	int			nargs;
	char	   *sql = next_row(step, step->in_window ? DV_READ_EXAMINED : DV_READ_KNOWN, &nargs, types, values);
	MemoryContext context;
	TupleDesc	desc;
	Datum	   *all;
	bool	   *nulls;
	DvRow	   *row;

	if (dv_spi_run(sql, nargs, types, values, NULL, SPI_OK_SELECT) == 0)
		return NULL;
	desc = SPI_tuptable->tupdesc;
	dv_projection_check_keys(step->projection, desc, DV_KNOWN_KEYS);
	dv_projection_check_type(step->projection, desc, DV_KNOWN_ID, "dataverse_id", UUIDOID);
	dv_projection_check_type(step->projection, desc, DV_KNOWN_CREATED_RUN, "created_run", INT8OID);
	all = palloc(sizeof(Datum) * desc->natts);
	nulls = palloc(sizeof(bool) * desc->natts);
	heap_deform_tuple(SPI_tuptable->vals[0], desc, all, nulls);
	dv_projection_check_values(step->projection, nulls + DV_KNOWN_KEYS - 1);
	context = AllocSetContextCreate(step->context, "dvmig batch", ALLOCSET_SMALL_SIZES);
	row = MemoryContextAllocZero(context, sizeof(DvRow));
	row->batch = MemoryContextAllocZero(context, sizeof(DvBatch));
	row->batch->context = context;
	dv_batch_version(row, all);
	row->recorded = true;		/* as far as is known here */
	ItemPointerSetInvalid(&row->outcome);
	read_known(row, all, nulls, step->rc->run);
	row->keys = dv_walk_copy(step->projection, all + DV_KNOWN_KEYS - 1, context);
	dv_source_key_handle(step->projection, all + DV_KNOWN_KEYS - 1, &row->handle);
	return row;
}

static void
forget_known(DvRow *row)
{
	if (row != NULL)
		MemoryContextDelete(row->batch->context);
}

/* A row alone cannot be transformed: it is an error row, named by key. */
static void
take_bad_row(DvStep *step, DvRow *row, const ErrorData *error)
{
	bool		filter = step->in_window && throws(step, "1");
	const char *column = filter ? "" : failing_column(step);

	dv_walk_go(&step->walk, step->projection, row->keys);
	if (dv_sets_is_answered(step->sets, &row->version) || dv_source_answered_too_often(step, row))
	{
		forget_known(row);
		return;
	}
	row->batch->open_rows = 1;
	step->lap_taken++;
	step->counters.rows_read++;
	dv_outcome_failure(step, row, dv_encode_verdict(filter ? "filter" : "transform", unpack_sql_state(error->sqlerrcode), column, error->message));
}

/*
 * One try to read "limit" rows; *got tells how many there were, *whole whether
 * all of them were looked at. Where it threw, *error is the error and, of a
 * limit of one, *bad the row: the version that threw, whatever becomes of it.
 */
static DvRow **
try_read(DvStep *step, int limit, int *n, int *got, bool *whole, ErrorData **error, DvRow **bad)
{
	MemoryContext context = CurrentMemoryContext;
	DvRow	  **volatile rows = NULL;
	DvRow	   *volatile alone = NULL;
	int			outcomes = step->noutcomes;
	int64		parked = step->lap_parked;
	int64		taken = step->lap_taken;
	int64		rows_read = step->counters.rows_read;

	*error = NULL;
	PG_TRY();
	{
		dv_spi_begin("dvmig: reading staging rows");
		dv_spi_follow_indexes();
		dv_spi_wait_briefly();
		if (limit == 1)
			alone = read_next_known(step);
		rows = dv_batch_read(step, limit, n, got, whole);
		dv_spi_commit(true);
		forget_known(alone);
		alone = NULL;
	}
	PG_CATCH();
	{
		*error = dv_spi_abort(step->context);
		dv_batch_forget(step, outcomes);
		step->lap_parked = parked;
		step->lap_taken = taken;
		step->counters.rows_read = rows_read;
		rows = NULL;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	*bad = alone;
	return rows;
}

/*
 * Some row is to blame for the error of a read: come nearer to it, or take it.
 * False where it is none of those that the read looks at.
 */
static bool
blame(DvStep *step, const ErrorData *error, int ask, DvRow *bad)
{
	if (step->in_window && step->examine > 1)
	{
		forget_known(bad);
		return dv_range_narrow(step);
	}
	if (ask > 1)
		step->read_limit = ask / 2;
	else if (bad != NULL)
		take_bad_row(step, bad, error);
	else
		return dv_range_narrow(step);
	return true;
}

/* What does the error of a read mean? False where nothing is to be read for now. */
static bool
take_error(DvStep *step, ErrorData *error, int ask, DvRow *bad)
{
	bool		passing = dv_source_is_passing(step, error);

	if ((dv_source_is_row_fault(error) || (dv_spi_is_contention(error) && !passing)) && blame(step, error, ask, bad))
	{
		FreeErrorData(error);
		return true;
	}
	forget_known(bad);
	if (passing)
	{
		/* replies come in meanwhile */
		step->read_after = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DV_LOCK_PAUSE_MS);
		FreeErrorData(error);
		return false;
	}
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TO_CATEGORY(ERRCODE_UNDEFINED_COLUMN) &&
		dv_runstate_follow_columns(step))
	{
		FreeErrorData(error);
		return true;
	}
	step->error = error;
	step->lap_done = true;
	return true;
}

DvRow **
dv_source_read(DvStep *step, int limit, int *n)
{
	*n = 0;
	if (step->row_bytes > 0 && limit > (int) (DV_READ_BYTES_MAX / step->row_bytes))
		limit = Max(1, (int) (DV_READ_BYTES_MAX / step->row_bytes));
	while (dv_range_ready(step))
	{
		int			ask = step->in_window && step->examine == 1 ? 1 : step->read_limit > 0 && step->read_limit < limit ? step->read_limit : limit;
		int			got = 0;
		bool		whole;
		ErrorData  *error;
		DvRow	  **rows;
		DvRow	   *bad;

		CHECK_FOR_INTERRUPTS();
		dv_phase(DV_PHASE_READ);
		rows = try_read(step, ask, n, &got, &whole, &error, &bad);
		dv_phase(DV_PHASE_OTHER);
		if (error == NULL)
		{
			if (step->conflicts < CONFLICTS_MAX)
				step->conflicts = 0;
			if (got == 0 || (got < ask && whole))
				dv_range_done(step);
			step->read_limit = step->read_limit > 0 && step->read_limit * 2 < limit ? step->read_limit * 2 : 0;
			if (got > 0)
				return rows;
		}
		else if (!take_error(step, error, ask, bad))
			break;
	}
	return NULL;
}

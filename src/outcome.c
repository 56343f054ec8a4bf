/*
 * outcome.c - verdicts to outcome tables and flags
 *
 * One short transaction per reply: success and error rows by key, then the
 * flag on exactly the row version the verdict belongs to. A row edited in the
 * meantime keeps U and goes again; a row locked by a user is flagged later; a
 * row whose trigger or policy refuses the flag is listed. The verdict itself
 * is recorded in every case.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "answer.h"
#include "direct.h"
#include "engine.h"
#include "files.h"
#include "flags.h"
#include "hash128.h"
#include "keys.h"
#include "lanes.h"
#include "phase.h"
#include "quiet.h"
#include "spi.h"
#include "states.h"
#include "stripes.h"
#include "worker.h"

/* Tries of a transaction that lost a deadlock or a lock. */
#define RECORD_TRIES	10

struct DvRecordSql
{
	char	   *success;		/* insert into the success table */
	char	   *error;
	char	   *not_success;	/* delete from it by key */
	char	   *not_error;
};

static DvOutcome *
add_outcome(DvStep *step, DvRow *row)
{
	DvOutcome  *outcome;

	if (step->noutcomes == step->max_outcomes)
	{
		step->max_outcomes = step->max_outcomes ? step->max_outcomes * 2 : 1024;
		step->outcomes = step->outcomes
			? repalloc(step->outcomes, sizeof(DvOutcome) * step->max_outcomes)
			: MemoryContextAlloc(step->context, sizeof(DvOutcome) * step->max_outcomes);
	}
	outcome = &step->outcomes[step->noutcomes++];
	memset(outcome, 0, sizeof(DvOutcome));
	outcome->row = row;
	return outcome;
}

void
dv_outcome_success(DvStep *step, DvRow *row, const char *message)
{
	DvOutcome  *outcome = add_outcome(step, row);

	outcome->success = true;
	outcome->flag = row->owes ? 'S' : 'P';
	outcome->message = message;
	if (row->wire.op == 'I' && row->created_run == 0)
		row->created_run = step->rc->run;
}

void
dv_outcome_failure(DvStep *step, DvRow *row, const DvVerdict *verdict)
{
	DvOutcome  *outcome = add_outcome(step, row);

	step->failure_waits = true;
	outcome->flag = 'E';
	outcome->verdict = MemoryContextAlloc(step->outcome_context, sizeof(DvVerdict));
	*outcome->verdict = *verdict;
}

void
dv_outcome_flag(DvStep *step, DvRow *row, char flag)
{
	DvOutcome  *outcome = add_outcome(step, row);

	outcome->flag_only = true;
	outcome->flag = flag;
}

static char *
delete_sql(const DvProjection *p, const char *table)
{
	return psprintf("DELETE FROM %s x USING %s WHERE %s", table, dv_keys_unnest(p, NULL), dv_keys_match(p, "x", "u"));
}

/* The statements of a step, made once. */
static DvRecordSql *
record_sql(DvStep *step)
{
	const DvProjection *p = step->projection;
	MemoryContext old;
	DvRecordSql *sql;
	bool		hashed = strcmp(p->pass, "write") == 0 || strcmp(p->pass, "deferred") == 0;
	bool		result = p->states || p->nfiles > 0;

	if (step->record_sql != NULL)
		return step->record_sql;
	old = MemoryContextSwitchTo(step->context);
	sql = palloc(sizeof(DvRecordSql));
	/* A later pass leaves the hash, which covers the deferred columns already; but see 40_projection.sql. */
	sql->success = psprintf(
		"INSERT INTO %s AS x (%s, dataverse_id, operation, pass, content_hash, created_run, run, recorded_at, message, owed_passes, record_state, file_hash)"
		" SELECT %s, u.\"dvmig id\", u.\"dvmig op\", '%s', u.\"dvmig hash\", u.\"dvmig created\", " INT64_FORMAT
		", pg_catalog.clock_timestamp(), u.\"dvmig message\", u.\"dvmig owes\", %s, %s FROM %s"
		" ON CONFLICT (%s) DO UPDATE SET dataverse_id = excluded.dataverse_id, operation = %s,"
		" pass = CASE WHEN pg_catalog.starts_with(excluded.message, 'unchanged') OR (pg_catalog.starts_with(excluded.message, 'kept') AND x.operation <> 'D')"
		" THEN x.pass ELSE excluded.pass END, content_hash = %s, created_run = coalesce(excluded.created_run, x.created_run),"
		" run = excluded.run, recorded_at = excluded.recorded_at, message = %s,"
		" owed_passes = excluded.owed_passes, record_state = CASE WHEN excluded.operation <> 'U' THEN NULL ELSE coalesce(excluded.record_state, x.record_state) END,"
		" file_hash = CASE WHEN excluded.operation <> 'U' THEN NULL ELSE coalesce(excluded.file_hash, x.file_hash) END",
		p->success_sql, dv_keys_list(p, ""), dv_keys_list(p, "u."), p->pass, step->rc->run,
		p->states ? "u.\"dvmig result\"" : "NULL", p->nfiles > 0 ? "u.\"dvmig result\"" : "NULL",
		dv_keys_unnest(p, psprintf("\"dvmig id\", \"dvmig op\", \"dvmig hash\", \"dvmig created\", \"dvmig message\", \"dvmig owes\"%s",
								   result ? ", \"dvmig result\"" : "")),
		dv_keys_list(p, ""), p->later ? "x.operation" : "excluded.operation", hashed ? "excluded.content_hash" : "coalesce(excluded.content_hash, x.content_hash)",
		/* what the pass before said of the values stays */
		p->later ? "nullif(pg_catalog.concat_ws('; ', nullif(x.message, 'unchanged'), excluded.message), '')" : "excluded.message");
	sql->error = psprintf(
		"INSERT INTO %s AS x (%s, dataverse_id, created_run, operation, error_column, error_class, code, message, http_status, request_id, attempts, run, recorded_at)"
		" SELECT %s, u.\"dvmig id\", u.\"dvmig created\", u.\"dvmig op\", u.\"dvmig column\", u.\"dvmig class\", u.\"dvmig code\", u.\"dvmig message\", u.\"dvmig status\", u.\"dvmig request\", u.\"dvmig attempts\", "
		INT64_FORMAT ", pg_catalog.clock_timestamp() FROM %s"
		" ON CONFLICT (%s) DO UPDATE SET dataverse_id = excluded.dataverse_id, created_run = excluded.created_run,"
		" operation = excluded.operation, error_column = excluded.error_column, error_class = excluded.error_class,"
		" code = excluded.code, message = excluded.message, http_status = excluded.http_status,"
		" request_id = excluded.request_id, attempts = x.attempts + excluded.attempts, run = excluded.run, recorded_at = excluded.recorded_at",
		p->error_sql, dv_keys_list(p, ""), dv_keys_list(p, "u."), step->rc->run,
		dv_keys_unnest(p, "\"dvmig id\", \"dvmig created\", \"dvmig op\", \"dvmig column\", \"dvmig class\", \"dvmig code\", \"dvmig message\", \"dvmig status\", \"dvmig request\", \"dvmig attempts\""),
		dv_keys_list(p, ""));
	sql->not_success = delete_sql(p, p->success_sql);
	sql->not_error = delete_sql(p, p->error_sql);
	MemoryContextSwitchTo(old);
	step->record_sql = sql;
	return sql;
}

static void
add_text_array(DvArrays *a, const char **texts)
{
	Datum	   *values = palloc(sizeof(Datum) * a->n);
	bool	   *nulls = palloc(sizeof(bool) * a->n);
	int			i;

	for (i = 0; i < a->n; i++)
	{
		nulls[i] = texts[i] == NULL || texts[i][0] == '\0';
		values[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(texts[i]);
	}
	dv_keys_add(a, values, nulls, TEXTOID);
}

static void
begin_arrays(DvArrays *a, const DvProjection *p, DvOutcome **rows, int n)
{
	Datum	  **keys = palloc(sizeof(Datum *) * n);
	int			i;

	for (i = 0; i < n; i++)
		keys[i] = rows[i]->row->keys;
	dv_keys_arrays(a, p, keys, n);
}

/* Is the record known to exist although its row failed? */
static bool
has_record(const DvRow *row)
{
	return row->wire.op != 'I' || row->created_run != 0;
}

static void
add_id_array(DvArrays *a, DvOutcome **rows)
{
	Datum	   *values = palloc(sizeof(Datum) * a->n);
	bool	   *nulls = palloc(sizeof(bool) * a->n);
	int			i;

	for (i = 0; i < a->n; i++)
	{
		DvRow	   *row = rows[i]->row;

		nulls[i] = row->wire.id[0] == '\0' || (!rows[i]->success && !has_record(row));
		values[i] = UUIDPGetDatum(&row->uuid);
	}
	dv_keys_add(a, values, nulls, UUIDOID);
}

static void
add_created_array(DvArrays *a, DvOutcome **rows)
{
	Datum	   *values = palloc(sizeof(Datum) * a->n);
	bool	   *nulls = palloc(sizeof(bool) * a->n);
	int			i;

	for (i = 0; i < a->n; i++)
	{
		nulls[i] = rows[i]->row->created_run == 0;
		values[i] = Int64GetDatum(rows[i]->row->created_run);
	}
	dv_keys_add(a, values, nulls, INT8OID);
}

static void
add_op_array(DvArrays *a, DvOutcome **rows)
{
	const char **texts = palloc(sizeof(char *) * a->n);
	int			i;

	for (i = 0; i < a->n; i++)
		texts[i] = rows[i]->row->wire.op == 'I' ? "I" : rows[i]->row->wire.op == 'U' ? "U" : "D";
	add_text_array(a, texts);
}

/* What a row still owes, and where this pass sets it the state its record has now. */
static void
add_pass_arrays(DvArrays *a, const DvStep *step, DvOutcome **rows)
{
	const char **texts = palloc(sizeof(char *) * a->n);
	int			i;

	for (i = 0; i < a->n; i++)
		texts[i] = dv_outcome_owed_passes(rows[i]->row->owes);
	add_text_array(a, texts);
	if (!step->projection->states && step->projection->nfiles == 0)
		return;
	for (i = 0; i < a->n; i++)
		texts[i] = step->projection->states ? dv_states_text(rows[i]->row) : dv_files_text(rows[i]->row);
	add_text_array(a, texts);
}

/* Success rows by key, over whatever outcome the keys have. */
static void
upsert_successes(DvStep *step, DvOutcome **rows, int n)
{
	DvArrays	a;
	Datum	   *hashes = palloc(sizeof(Datum) * n);
	bool	   *nulls = palloc(sizeof(bool) * n);
	const char **messages = palloc(sizeof(char *) * n);
	int			i;

	if (n == 0)
		return;
	dv_flags_by_sql(step);
	begin_arrays(&a, step->projection, rows, n);
	dv_spi_run(record_sql(step)->not_error, a.count, a.types, a.values, NULL, SPI_OK_DELETE);
	add_id_array(&a, rows);
	add_op_array(&a, rows);
	for (i = 0; i < n; i++)
	{
		hashes[i] = dv_hash128_datum(rows[i]->row->hash);
		nulls[i] = !rows[i]->row->has_hash;
		messages[i] = dv_outcome_message(rows[i]);
	}
	dv_keys_add(&a, hashes, nulls, BYTEAOID);
	add_created_array(&a, rows);
	add_text_array(&a, messages);
	add_pass_arrays(&a, step, rows);
	dv_spi_run(record_sql(step)->success, a.count, a.types, a.values, NULL, SPI_OK_INSERT);
}

/*
 * Success rows. Most are of keys that had no outcome when they were read, or a
 * success row only, and nobody but the run gives them one: these need neither a
 * look for a conflict nor one for an error row to be deleted.
 */
static void
record_successes(DvStep *step, DvOutcome **rows, int n)
{
	DvOutcome **first = palloc(sizeof(DvOutcome *) * (n + 1));
	DvOutcome **others = palloc(sizeof(DvOutcome *) * (n + 1));
	DvDirect   *direct = step->no_direct || step->projection->later || n == 0 ? NULL : dv_direct_open_success(step->projection);
	int			nfirst = 0;
	int			nothers = 0;
	int			i;

	for (i = 0; i < n; i++)
		if (direct != NULL && !rows[i]->row->recorded)
			first[nfirst++] = rows[i];
		else if (direct == NULL || !dv_direct_update(direct, step, rows[i]))
			others[nothers++] = rows[i];
	if (direct != NULL)
	{
		dv_direct_insert(direct, step, first, nfirst);
		dv_direct_close(direct);
	}
	upsert_successes(step, others, nothers);
}

static void
add_verdict_arrays(DvArrays *a, DvOutcome **rows)
{
	const char **texts[5];
	Datum	   *status = palloc(sizeof(Datum) * a->n);
	bool	   *nulls = palloc(sizeof(bool) * a->n);
	Datum	   *attempts = palloc(sizeof(Datum) * a->n);
	int			i;

	for (i = 0; i < 5; i++)
		texts[i] = palloc(sizeof(char *) * a->n);
	for (i = 0; i < a->n; i++)
	{
		DvVerdict  *v = rows[i]->verdict;

		texts[0][i] = v->column;
		texts[1][i] = v->error_class;
		texts[2][i] = v->code;
		texts[3][i] = dv_answer_told(v);
		texts[4][i] = v->request_id;
		status[i] = Int32GetDatum(v->http_status);
		nulls[i] = v->http_status == 0;
		attempts[i] = Int32GetDatum(Max(rows[i]->row->attempts, 1));
	}
	for (i = 0; i < 4; i++)
		add_text_array(a, texts[i]);
	dv_keys_add(a, status, nulls, INT4OID);
	add_text_array(a, texts[4]);
	dv_keys_add(a, attempts, NULL, INT4OID);
}

static void
record_failures(DvStep *step, DvOutcome **rows, int n)
{
	DvArrays	a;

	if (n == 0)
		return;
	dv_flags_by_sql(step);
	begin_arrays(&a, step->projection, rows, n);
	dv_spi_run(record_sql(step)->not_success, a.count, a.types, a.values, NULL, SPI_OK_DELETE);
	add_id_array(&a, rows);
	add_created_array(&a, rows);
	add_op_array(&a, rows);
	add_verdict_arrays(&a, rows);
	dv_spi_run(record_sql(step)->error, a.count, a.types, a.values, NULL, SPI_OK_INSERT);
}

/* What is recorded in one transaction: some of the step's outcomes. */
typedef struct Lot
{
	DvOutcome  *outcomes;
	int			n;
	DvFlagMode	mode;
	int			moved;			/* rows that moved to another page */
} Lot;

/* Outcome rows of the lot. */
static void
record_rows(DvStep *step, const Lot *lot)
{
	DvOutcome **rows = palloc(sizeof(DvOutcome *) * lot->n);
	int			good = 0;
	int			bad = lot->n;
	int			i;

	for (i = 0; i < lot->n; i++)
		if (lot->outcomes[i].success)
			rows[good++] = &lot->outcomes[i];
		else if (!lot->outcomes[i].flag_only)
			rows[--bad] = &lot->outcomes[i];
	record_successes(step, rows, good);
	record_failures(step, rows + bad, lot->n - bad);
}

/* One try; NULL, or the error it met. */
static ErrorData *
try_record(DvStep *step, Lot *lot)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	step->by_sql = false;
	PG_TRY();
	{
		dv_spi_begin("dvmig: recording outcomes");
		dv_spi_wait_briefly();
		record_rows(step, lot);
		dv_flags_set(step, lot->outcomes, lot->n, lot->mode);
		if (!step->by_sql)
			dv_quiet_own();
		dv_spi_commit(true);
		lot->moved = dv_flags_committed(step);
	}
	PG_CATCH();
	{
		error = dv_spi_abort(step->outcome_context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return error;
}

/*
 * Raised by the user's triggers, constraints or policies on the flag, with a
 * SQLSTATE of their choice? All that is not the server's own trouble may be.
 */
static bool
is_refusal(const ErrorData *error)
{
	static const int categories[] = {
		ERRCODE_INSUFFICIENT_RESOURCES, ERRCODE_OPERATOR_INTERVENTION, ERRCODE_SYSTEM_ERROR, ERRCODE_INTERNAL_ERROR
	};
	int			i;

	for (i = 0; i < (int) lengthof(categories); i++)
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == categories[i])
			return false;
	return true;
}

/* They are recorded. */
static void
count_outcomes(DvStep *step, const DvOutcome *outcomes, int n)
{
	int			i;

	for (i = 0; i < n; i++)
	{
		const DvOutcome *o = &outcomes[i];

		if (o->success)
			step->counters.succeeded++;
		else if (!o->flag_only)
		{
			step->counters.failed++;
			step->mapping_failures += strcmp(o->verdict->error_class, "mapping") == 0;
		}
		if (o->message != NULL && strncmp(o->message, "unchanged", 9) == 0)
			step->counters.unchanged++;
		step->counters.again += o->row->again && !o->flag_only;
	}
	/* a lane may end before it publishes when it is time to */
	dv_lanes_publish(step);
}

static void
release_rows(DvStep *step, const DvOutcome *outcomes, int n)
{
	int			i;

	for (i = 0; i < n; i++)
		dv_engine_release_row(step, outcomes[i].row);
}

/* These verdicts cannot be recorded: their rows stay as they are, to be settled by the next run. */
static void
give_up(DvStep *step, const DvOutcome *outcomes, int n)
{
	step->unsettled = true;
	release_rows(step, outcomes, n);
}

/*
 * Somebody holds a lock on a table, longer than we wait in a transaction: wait
 * outside of one. False where the run was told to stop and its time is over.
 */
static bool
wait_for_user(DvStep *step)
{
	DvRunContext *rc = step->rc;

	dv_engine_locked_out(rc);
	dv_worker_wait(DV_LOCK_PAUSE_MS);
	dv_worker_tick(step);
	return !dv_engine_stop_overdue(rc);
}

/* One way or another; false where it was given up. */
static bool
record_somehow(DvStep *step, Lot *lot)
{
	int			tries = 0;

	for (;;)
	{
		ErrorData  *error = try_record(step, lot);

		if (error == NULL)
			return true;
		/* SQL may get through, and says it in words that a DBA knows. */
		if (!step->no_direct && !dv_spi_is_contention(error))
			step->no_direct = true;
		else if (dv_spi_is_contention(error) && lot->mode == DV_FLAGS_TOGETHER)
			lot->mode = DV_FLAGS_SKIP_LOCKED;
		else if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		{
			if (!wait_for_user(step))
				return false;
		}
		else if (is_refusal(error) && lot->mode != DV_FLAGS_NONE)
			lot->mode = DV_FLAGS_NONE;
		else if (!dv_spi_is_contention(error) || tries++ >= RECORD_TRIES)
			ReThrowError(error);
	}
}

/* In whatever transactions it needs; false where it was given up. */
static bool
record_lot(DvStep *step, Lot *lot)
{
	if (!record_somehow(step, lot))
		return false;
	dv_engine_lock_gone(step->rc);
	count_outcomes(step, lot->outcomes, lot->n);
	if (lot->mode == DV_FLAGS_NONE)
		dv_flags_set_singly(step, lot->outcomes, lot->n);
	release_rows(step, lot->outcomes, lot->n);
	return true;
}

static void
record_lots(DvStep *step)
{
	DvLots		lots;
	Lot			lot = {.mode = DV_FLAGS_TOGETHER};
	int			done = 0;
	int			i;

	dv_stripes_order(step, &lots);
	for (i = 0; i < lots.n; i++)
	{
		/* a user's lock was waited for: not once more for each lot */
		if (lot.mode != DV_FLAGS_SKIP_LOCKED)
			lot.mode = DV_FLAGS_TOGETHER;
		lot.outcomes = step->outcomes + done;
		lot.n = lots.ends[i] - done;
		if (!record_lot(step, &lot))
		{
			give_up(step, lot.outcomes, step->noutcomes - done);
			return;
		}
		if (i >= lots.first)
			lots.moved += lot.moved;
		done = lots.ends[i];
	}
	dv_stripes_learn(step, &lots);
}

void
dv_outcome_record(DvStep *step)
{
	DvPhase		phase;

	step->answered_at = 0;
	step->failure_waits = false;
	if (step->noutcomes == 0)
		return;
	phase = dv_phase(DV_PHASE_RECORD);
	step->no_direct = false;
	record_lots(step);
	step->noutcomes = 0;
	MemoryContextReset(step->outcome_context);
	dv_budget_check(step, false);
	dv_phase(phase);
}

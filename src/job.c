/*
 * job.c - work on records that are loaded: handing it over, waiting for it
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "giveway.h"
#include "job.h"
#include "phase.h"
#include "runstate.h"
#include "spi.h"
#include "texts.h"
#include "undo.h"
#include "verify.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(dv_launch_job);
PG_FUNCTION_INFO_V1(dv_query_latest);

/* How far the worker has got with the segment. */
#define JOB_AWAITED	0
#define JOB_BEGUN	1
#define JOB_REFUSED	2

/* What the worker had used when it was last accounted for: it does one job. */
static struct
{
	DvUsage		usage;
	int64		requests;
	int64		bytes_sent;
}			accounted;

/* What caller and worker share until the job has begun. */
typedef struct JobSegment
{
	pg_atomic_uint32 state;
	int			sqlerrcode;		/* of a refusal */
	char		message[512];
	char		detail[512];
	char		hint[512];
	int			len;
	char		spec[FLEXIBLE_ARRAY_MEMBER];	/* argument of dvmig._begin_job() */
} JobSegment;

/* ---------------------------------------------------------------- in the worker */

/* A text, cut between characters where it is too long; NULL is empty. */
static void
copy_text(char *to, size_t size, const char *from)
{
	int			len = from ? pg_mbcliplen(from, (int) strlen(from), (int) size - 1) : 0;

	memcpy(to, from ? from : "", (size_t) len);
	to[len] = '\0';
}

static void
tell_refusal(JobSegment *segment, const ErrorData *error)
{
	segment->sqlerrcode = error->sqlerrcode;
	/* no user's code has run: what was thrown is our own */
	copy_text(segment->message, sizeof(segment->message), error->message);
	copy_text(segment->detail, sizeof(segment->detail), error->detail);
	copy_text(segment->hint, sizeof(segment->hint), error->hint);
	pg_write_barrier();
	pg_atomic_write_u32(&segment->state, JOB_REFUSED);
}

/* The rows of the job, in a transaction of our own. */
static void
make_rows(int64 run, const char *spec, int len)
{
	Oid			types[2] = {INT8OID, TEXTOID};
	Datum		values[2];
	DvSwitch	before;

	before = dv_runstate_begin("dvmig: beginning");
	values[0] = Int64GetDatum(run);
	values[1] = PointerGetDatum(cstring_to_text_with_len(spec, len));
	dv_spi_run("SELECT dvmig._begin_job($1, $2::jsonb)", 2, types, values, NULL, SPI_OK_SELECT);
	dv_runstate_commit(before, false);
}

bool
dv_job_begin(int64 run, dsm_handle handle)
{
	MemoryContext context = CurrentMemoryContext;
	dsm_segment *mapped = dsm_attach(handle);
	JobSegment *segment;
	volatile bool begun = false;

	if (mapped == NULL)
		return false;			/* whoever wanted it is gone */
	segment = dsm_segment_address(mapped);
	PG_TRY();
	{
		make_rows(run, segment->spec, segment->len);
		pg_atomic_write_u32(&segment->state, JOB_BEGUN);
		begun = true;
	}
	PG_CATCH();
	{
		tell_refusal(segment, dv_spi_abort(context));
	}
	PG_END_TRY();
	dsm_detach(mapped);
	return begun;
}

void
dv_job_run(DvRunContext *rc, const DvRunPlan *plan)
{
	rc->kind = plan->kind;
	dv_phase_usage(&accounted.usage);
	accounted.requests = rc->total.requests;
	if (strcmp(plan->kind, "verify") == 0 || strcmp(plan->kind, "resend") == 0 || strcmp(plan->kind, "rebuild") == 0)
		dv_verify_run(rc);
	else if (strcmp(plan->kind, "undo") == 0)
		dv_undo_run(rc);
	else
		elog(ERROR, "run " INT64_FORMAT " is of unknown kind \"%s\"", rc->run, plan->kind);
}

void
dv_job_account(DvRunContext *rc, const DvStepPlan *plan)
{
	DvUsage		usage;
	Oid			types[6] = {INT8OID, TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID};
	Datum		values[6] = {Int64GetDatum(rc->run), CStringGetTextDatum(plan->name)};
	DvSwitch	before;

	dv_phase_usage(&usage);
	values[2] = Int64GetDatum(rc->total.requests - accounted.requests);
	values[3] = Int64GetDatum(rc->total.bytes_sent - accounted.bytes_sent);
	values[4] = Int64GetDatum((usage.cpu_us - accounted.usage.cpu_us) / 1000);
	values[5] = Int64GetDatum(usage.anonymous_kb);
	before = dv_runstate_begin("dvmig: accounting");
	dv_spi_run("UPDATE dvmig.run_table SET requests = requests + $3, bytes_sent = bytes_sent + $4, cpu_ms = cpu_ms + $5, memory_kb = greatest(memory_kb, $6)"
			   " WHERE run = $1 AND staging = $2", 6, types, values, NULL, SPI_OK_UPDATE);
	dv_runstate_commit(before, true);
	accounted.usage = usage;
	accounted.requests = rc->total.requests;
	accounted.bytes_sent = rc->total.bytes_sent;
}

/* ---------------------------------------------------------------- in the caller */

static dsm_segment *
make_segment(text *spec)
{
	int			len = (int) VARSIZE_ANY_EXHDR(spec);
	dsm_segment *mapped = dsm_create(offsetof(JobSegment, spec) + len, 0);
	JobSegment *segment = dsm_segment_address(mapped);

	memset(segment, 0, offsetof(JobSegment, spec));
	pg_atomic_init_u32(&segment->state, JOB_AWAITED);
	segment->len = len;
	memcpy(segment->spec, VARDATA_ANY(spec), len);
	return mapped;
}

/* Until the worker has taken the job; an error where it refused. */
static void
wait_for_begin(BackgroundWorkerHandle *handle, JobSegment *segment)
{
	uint32		state;
	long		ms = 5;
	pid_t		pid;

	while ((state = pg_atomic_read_u32(&segment->state)) == JOB_AWAITED)
	{
		if (GetBackgroundWorkerPid(handle, &pid) == BGWH_STOPPED && pg_atomic_read_u32(&segment->state) == JOB_AWAITED)
			ereport(ERROR,
					(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
					 errmsg("the background worker ended before it began"),
					 errhint("The server log tells why; the owner of the migration must be able to connect to this database.")));
		dv_worker_wait(ms);
		ms = Min(ms * 2, 100);
	}
	pg_read_barrier();
	if (state == JOB_REFUSED)
		ereport(ERROR,
				(errcode(segment->sqlerrcode),
				 errmsg("%s", segment->message),
				 segment->detail[0] ? errdetail("%s", segment->detail) : 0,
				 segment->hint[0] ? errhint("%s", segment->hint) : 0));
}

/* False where somebody would have to wait with us for it. */
static bool
wait_for_end(BackgroundWorkerHandle *handle)
{
	pid_t		pid;

	/* The postmaster sets our latch when the worker has ended. */
	while (GetBackgroundWorkerPid(handle, &pid) != BGWH_STOPPED)
	{
		if (dv_giveway_wanted())
			return false;
		dv_worker_wait(1000);
	}
	return true;
}

/* The caller's statement is cancelled or its session ends: a clean end for the worker too. */
static void
end_worker(int code, Datum arg)
{
	(void) code;
	dv_worker_end((BackgroundWorkerHandle *) DatumGetPointer(arg));
}

/*
 * dv_launch_job(run bigint, owner oid, spec text, wait bool) starts the worker
 * of a job and waits until it has begun or, with "wait", ended. A cancelled
 * wait asks it for a clean end; one that gives way to DROP EXTENSION lets it
 * work on.
 */
Datum
dv_launch_job(PG_FUNCTION_ARGS)
{
	dsm_segment *mapped = make_segment(PG_GETARG_TEXT_PP(2));
	DvWorkerArgs args;
	BackgroundWorkerHandle *handle;
	bool		waited = true;

	memset(&args, 0, sizeof(args));
	args.database = MyDatabaseId;
	args.run = PG_GETARG_INT64(0);
	args.owner = PG_GETARG_OID(1);
	args.starter = InvalidTransactionId;
	args.job = dsm_segment_handle(mapped);
	handle = dv_worker_start(&args);
	PG_ENSURE_ERROR_CLEANUP(end_worker, PointerGetDatum(handle));
	{
		wait_for_begin(handle, dsm_segment_address(mapped));
		if (PG_GETARG_BOOL(3))
			waited = wait_for_end(handle);
	}
	PG_END_ENSURE_ERROR_CLEANUP(end_worker, PointerGetDatum(handle));
	dsm_detach(mapped);
	if (!waited)
		dv_giveway_throw(psprintf("Run " INT64_FORMAT " goes on; SELECT dvmig.wait(" INT64_FORMAT ") waits for it.", args.run, args.run));
	PG_RETURN_VOID();
}

/*
 * dv_query_latest(query text) returns the first column of the query's rows as
 * text, as they are now: in a transaction that keeps its first snapshot too,
 * what a worker has written meanwhile is there.
 */
Datum
dv_query_latest(PG_FUNCTION_ARGS)
{
	char	   *sql = text_to_cstring(PG_GETARG_TEXT_PP(0));
	SPIExecuteOptions options = {.read_only = true};

	dv_compat_init_texts(fcinfo);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	PushActiveSnapshot(GetLatestSnapshot());
	options.dest = dv_texts_receiver((ReturnSetInfo *) fcinfo->resultinfo);
	if (SPI_execute_extended(sql, &options) != SPI_OK_SELECT)
		elog(ERROR, "only a query can be run here");
	PopActiveSnapshot();
	SPI_finish();
	return (Datum) 0;
}

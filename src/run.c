/*
 * run.c - starting a run's worker, and waiting for it in the foreground
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "postmaster/bgworker.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "call.h"
#include "spi.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(dv_launch);
PG_FUNCTION_INFO_V1(dv_run_alive);
PG_FUNCTION_INFO_V1(dv_is_ours);
PG_FUNCTION_INFO_V1(dv_run);

/* Seconds between two notices of progress: soon at first, then less often. */
#define NOTICE_FIRST_S	2
#define NOTICE_MAX_S	30

/* The worker this backend started last, so that a cancel can reach it. */
static BackgroundWorkerHandle *last_worker;

static void
refuse_prepare(XactEvent event, void *arg)
{
	TransactionId *launched = arg;

	if (event == XACT_EVENT_PRE_PREPARE && TransactionIdIsValid(*launched) &&
		TransactionIdEquals(*launched, GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot prepare a transaction that started a dvmig run")));
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		*launched = InvalidTransactionId;
}

/* The worker waits for us: a prepared transaction would keep it for ever. */
static void
watch_prepare(void)
{
	static bool registered = false;
	static TransactionId launched;

	if (!registered)
		RegisterXactCallback(refuse_prepare, &launched);
	registered = true;
	launched = GetTopTransactionId();
}

bool
dv_worker_register(const DvWorkerArgs *args, pid_t notify, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker;
	MemoryContext old;
	bool		registered;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = notify;
	strlcpy(worker.bgw_library_name, "dvmig", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "dv_worker_main", sizeof(worker.bgw_function_name));
	snprintf(worker.bgw_name, BGW_MAXLEN, "dvmig run " INT64_FORMAT, args->run);
	if (args->lane > 0)
		snprintf(worker.bgw_name, BGW_MAXLEN, "dvmig run " INT64_FORMAT " lane %d", args->run, args->lane + 1);
	strlcpy(worker.bgw_type, "dvmig worker", sizeof(worker.bgw_type));
	StaticAssertStmt(sizeof(DvWorkerArgs) <= BGW_EXTRALEN, "arguments fit");
	memcpy(worker.bgw_extra, args, sizeof(DvWorkerArgs));
	old = MemoryContextSwitchTo(TopMemoryContext);
	registered = RegisterDynamicBackgroundWorker(&worker, handle);
	MemoryContextSwitchTo(old);
	return registered;
}

BackgroundWorkerHandle *
dv_worker_start(const DvWorkerArgs *args)
{
	BackgroundWorkerHandle *handle;

	if (!dv_worker_register(args, MyProcPid, &handle))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker could be registered for the run"),
				 errhint("Increase max_worker_processes, or wait until other workers have ended.")));
	return handle;
}

/*
 * dv_launch(run bigint, owner oid) registers the run's worker at once, so that
 * exhausted worker slots are an ordinary error of the caller.
 */
Datum
dv_launch(PG_FUNCTION_ARGS)
{
	DvWorkerArgs args;

	memset(&args, 0, sizeof(args));
	args.database = MyDatabaseId;
	args.run = PG_GETARG_INT64(0);
	args.owner = PG_GETARG_OID(1);
	args.starter = GetTopTransactionId();
	args.job = DSM_HANDLE_INVALID;
	watch_prepare();

	if (last_worker != NULL)
		pfree(last_worker);
	last_worker = NULL;
	last_worker = dv_worker_start(&args);
	PG_RETURN_INT32(0);
}

/* dv_run_alive(run bigint): is the run's lock held by a worker? */
Datum
dv_run_alive(PG_FUNCTION_ARGS)
{
	LOCKTAG		tag;

	dv_worker_run_tag(&tag, PG_GETARG_INT64(0));
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		PG_RETURN_BOOL(true);
	LockRelease(&tag, ExclusiveLock, false);
	PG_RETURN_BOOL(false);
}

/* dv_is_ours(writer xid): has this transaction, or a savepoint of it, written that row version? */
Datum
dv_is_ours(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(TransactionIdIsCurrentTransactionId(PG_GETARG_TRANSACTIONID(0)));
}

void
dv_worker_end(BackgroundWorkerHandle *handle)
{
	pid_t		pid;

	switch (GetBackgroundWorkerPid(handle, &pid))
	{
		case BGWH_STARTED:
			kill(pid, SIGUSR2);
			break;
		case BGWH_NOT_YET_STARTED:
			TerminateBackgroundWorker(handle);
			break;
		default:
			break;
	}
}

/* What wait_look() told. */
typedef struct Look
{
	MemoryContext context;		/* of the strings, until the next look */
	char	   *state;
	char	   *message;
	int64		succeeded;
	int64		failed;
	int64		parked;
	int64		total;
	char	   *table;
} Look;

static int64
look_number(int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

static void
look_at(int64 run, Look *look)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run)};
	MemoryContext old;

	/* Looked at every second for as long as a run takes: nothing may gather. */
	MemoryContextReset(look->context);
	dv_spi_run("SELECT * FROM dvmig.wait_look($1)", 1, types, values, NULL, SPI_OK_SELECT);
	old = MemoryContextSwitchTo(look->context);
	look->state = dv_spi_text(0, 1);
	look->message = dv_spi_text(0, 2);
	look->succeeded = look_number(3);
	look->failed = look_number(4);
	look->parked = look_number(6);
	look->total = look_number(7);
	look->table = dv_spi_text(0, 9);
	MemoryContextSwitchTo(old);
	SPI_freetuptable(SPI_tuptable);
}

static bool
has_ended(const Look *look)
{
	return strcmp(look->state, "starting") != 0 && strcmp(look->state, "running") != 0 &&
		strcmp(look->state, "stopping") != 0;
}

static void
tell(int64 run, const Look *look)
{
	ereport(NOTICE,
			(errmsg("run " INT64_FORMAT " %s: " INT64_FORMAT " succeeded, " INT64_FORMAT " failed, " INT64_FORMAT " parked%s%s",
					run, look->state, look->succeeded, look->failed, look->parked,
					look->table ? ", at work on " : "", look->table ? look->table : ""),
			 look->message && !has_ended(look) ? errdetail("%s", look->message) : 0));
}

/* Wait until the run has ended, committing every time it looked. */
static void
wait_for_run(int64 run, Look *look)
{
	TimestampTz next_notice = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), NOTICE_FIRST_S * 1000);
	int			every = NOTICE_FIRST_S;
	int			pause = 20;

	for (;;)
	{
		look_at(run, look);
		if (has_ended(look))
			return;
		if (GetCurrentTimestamp() >= next_notice)
		{
			tell(run, look);
			every = Min(every * 2, NOTICE_MAX_S);
			next_notice = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), every * 1000L);
		}
		SPI_commit();
		dv_worker_wait(pause);
		/* quick at first, for small runs; then a second */
		pause = Min(pause * 2, 1000);
	}
}

/* A cancelled wait asks the worker for a clean end. */
static void
wait_or_stop(int64 run, Look *look)
{
	PG_TRY();
	{
		wait_for_run(run, look);
	}
	PG_CATCH();
	{
		if (last_worker != NULL)
			dv_worker_end(last_worker);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* dvmig.start() with its arguments; an error of it is told without our own statement. */
static void
start_run(Oid *types, Datum *values, const char *nulls, int n)
{
	static const char *const sql = "SELECT dvmig.start($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		dv_spi_run(sql, n, types, values, nulls, SPI_OK_SELECT);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		dv_call_trim_context(error, sql);
		ReThrowError(error);
	}
	PG_END_TRY();
}

/*
 * dv_run: CALL dvmig.run(...), with the arguments of dvmig.start(), starts the run
 * and waits for its end without holding a snapshot.
 */
Datum
dv_run(PG_FUNCTION_ARGS)
{
	CallContext *call = fcinfo->context && IsA(fcinfo->context, CallContext) ? (CallContext *) fcinfo->context : NULL;
	/* of dvmig.start() */
	Oid			types[] = {TEXTOID, TEXTARRAYOID, BOOLOID, BOOLOID, INT4OID, INT4OID, TEXTARRAYOID,
	TEXTOID, TEXTOID, INT8OID, NUMERICOID, TEXTOID};
	Datum		values[lengthof(types)];
	char		nulls[lengthof(types) + 1] = "";
	Look		look;
	int64		run;
	int			i;

	if (call == NULL || call->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("dvmig.run cannot be called inside a transaction block or a function"),
				 errhint("Call it by itself, or use dvmig.start(), which returns at once.")));
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	for (i = 0; i < (int) lengthof(types); i++)
	{
		values[i] = fcinfo->args[i].value;
		nulls[i] = fcinfo->args[i].isnull ? 'n' : ' ';
	}
	start_run(types, values, nulls, lengthof(types));
	run = look_number(1);
	look.context = AllocSetContextCreate(CurrentMemoryContext, "dvmig wait", ALLOCSET_SMALL_SIZES);
	SPI_commit();
	wait_or_stop(run, &look);
	tell(run, &look);
	if (strcmp(look.state, "failed") == 0 || strcmp(look.state, "interrupted") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("run " INT64_FORMAT " %s", run, look.state),
				 look.message ? errdetail("%s", look.message) : 0,
				 errhint("See dvmig.run_history and dvmig.status; rows without an outcome are still unprocessed.")));
	if (strcmp(look.state, "completed") != 0)
		ereport(WARNING,
				(errmsg("run " INT64_FORMAT " %s", run, look.state),
				 look.message ? errdetail("%s", look.message) : 0));
	SPI_finish();
	PG_RETURN_VOID();
}

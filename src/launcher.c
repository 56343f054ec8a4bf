/*
 * launcher.c - interrupted runs go on after a restart
 *
 * GLOSSARY
 *
 *   launcher   a static background worker, there only where the library is in
 *              shared_preload_libraries. It is connected to no database, so
 *              that it keeps none from being dropped or copied. After each
 *              start of the server it visits every database once.
 *   visitor    a short-lived background worker in one database. It asks
 *              dvmig._resume_after_restart() to go on with what was
 *              interrupted, logs what came of it, and ends.
 *
 * Neither runs in recovery. Which runs may go on by themselves, and which must
 * not (in a copy or a restored backup of the database), is decided in SQL: see
 * dvmig._why_not_resumed(). Where no worker slot is free the visitor tells the
 * launcher by a signal, and all databases are visited again after a pause.
 */
#include "postgres.h"

#include <signal.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "call.h"
#include "launcher.h"
#include "settings.h"
#include "spi.h"

/* A launcher that met an error is started again after so many seconds. */
#define RESTART_S		10

/* Pause before databases are visited again: doubled each time, up to the second. */
#define PAUSE_FIRST_MS	2000L
#define PAUSE_MAX_MS	60000L

PGDLLEXPORT void dv_launcher_main(Datum arg);
PGDLLEXPORT void dv_visitor_main(Datum arg);

/* What the launcher tells a visitor, in bgw_extra. */
typedef struct VisitorArgs
{
	Oid			database;
	TimestampTz since;			/* when the launcher, and so the server, began */
	pid_t		launcher;
} VisitorArgs;

static volatile sig_atomic_t visit_again = false;

static void
on_visit_again(SIGNAL_ARGS)
{
	int			save_errno = errno;

	(void) postgres_signal_arg;
	visit_again = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

static void
describe(BackgroundWorker *worker, const char *function, const char *name)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	strlcpy(worker->bgw_library_name, "dvmig", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, function, sizeof(worker->bgw_function_name));
	strlcpy(worker->bgw_name, name, BGW_MAXLEN);
	strlcpy(worker->bgw_type, name, BGW_MAXLEN);
}

void
dv_launcher_register(void)
{
	BackgroundWorker worker;

	if (IsBinaryUpgrade)
		return;
	describe(&worker, "dv_launcher_main", "dvmig launcher");
	worker.bgw_restart_time = RESTART_S;
	RegisterBackgroundWorker(&worker);
}

/* Databases that can be connected to; templates are nobody's workplace. */
static List *
list_databases(MemoryContext context)
{
	List	   *result = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database db = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;

		/* a limit of -2 marks what an interrupted DROP DATABASE left */
		if (!db->datallowconn || db->datistemplate || db->datconnlimit == -2)
			continue;
		old = MemoryContextSwitchTo(context);
		result = lappend_oid(result, db->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return result;
}

/* Send a visitor into one database and wait for it; false where no slot is free. */
static bool
visit(Oid database, TimestampTz since)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;
	VisitorArgs args = {.database = database,.since = since,.launcher = MyProcPid};

	describe(&worker, "dv_visitor_main", "dvmig visitor");
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	StaticAssertStmt(sizeof(args) <= BGW_EXTRALEN, "arguments fit");
	memcpy(worker.bgw_extra, &args, sizeof(args));
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		return false;
	(void) WaitForBackgroundWorkerShutdown(handle);
	return true;
}

static void
visit_all(TimestampTz since)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "dvmig visits", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	ListCell   *cell;

	visit_again = false;
	foreach(cell, list_databases(context))
		if (!visit(lfirst_oid(cell), since))
		{
			ereport(LOG,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("dvmig launcher could not register a background worker, and will try again"),
					 errhint("Increase max_worker_processes.")));
			visit_again = true;
			break;
		}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/* dv_launcher_main is the entry point of the launcher. */
void
dv_launcher_main(Datum arg)
{
	TimestampTz since = GetCurrentTimestamp();
	long		pause = PAUSE_FIRST_MS;
	bool		due = true;

	(void) arg;
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	pqsignal(SIGUSR2, on_visit_again);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (due && dv_auto_resume)
		{
			visit_all(since);
			due = false;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (visit_again ? WL_TIMEOUT : 0), pause, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		if (visit_again && !due)
		{
			/* a latch that was set early only makes the pause shorter */
			due = true;
			pause = Min(pause * 2, PAUSE_MAX_MS);
		}
	}
}

/* ---------------------------------------------------------------- visitor */

/* One row of dvmig._resume_after_restart() into the server log. True where it is to be tried again. */
static bool
tell(int row)
{
	char	   *run = dv_spi_text(row, 1);
	char	   *resumed = dv_spi_text(row, 2);
	char	   *remark = dv_spi_text(row, 3);

	if (resumed != NULL)
		ereport(LOG, (errmsg("dvmig run %s goes on as run %s", run, resumed)));
	else
		ereport(LOG, (errmsg("dvmig run %s does not go on by itself: %s", run, remark)));
	return dv_spi_is_true(row, 4);
}

static bool
resume_runs(TimestampTz since)
{
	Oid			types[1] = {TIMESTAMPTZOID};
	Datum		values[1] = {TimestampTzGetDatum(since)};
	DvSwitch	before;
	bool		again = false;
	int			n;
	int			i;

	dv_spi_begin("dvmig: looking for interrupted runs");
	if (OidIsValid(get_extension_oid("dvmig", true)))
	{
		before = dv_call_become_extension_owner();
		n = (int) dv_spi_run("SELECT run, resumed_as, remark, again FROM dvmig._resume_after_restart($1)",
							 1, types, values, NULL, SPI_OK_SELECT);
		for (i = 0; i < n; i++)
			again |= tell(i);
		dv_call_restore(before);
	}
	dv_spi_commit(false);
	return again;
}

/* dv_visitor_main is the entry point of a visitor. */
void
dv_visitor_main(Datum arg)
{
	VisitorArgs args;

	(void) arg;
	memcpy(&args, MyBgworkerEntry->bgw_extra, sizeof(args));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(args.database, InvalidOid, 0);
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("application_name", "dvmig visitor", PGC_USERSET, PGC_S_SESSION);
	if (resume_runs(args.since))
		kill(args.launcher, SIGUSR2);
}

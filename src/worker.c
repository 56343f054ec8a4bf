/*
 * worker.c - the background workers of a run
 *
 * A run is one worker or more, see lanes.h; the first leads. Their session user
 * is the owner of the migration, so that expressions, triggers and policies run
 * with his rights and no others; only dvmig's own tables are written as the
 * extension's owner. Nothing but short transactions: while a request is on its
 * way there is none.
 *
 * How a run ends: "completed", "held" (a table failed too often, tables that
 * depend on it were not begun), "stopped" (asked to), "failed" (with a
 * message). A worker that dies leaves its run's lock free: whoever looks next
 * finds that out and calls the run "interrupted".
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "answer.h"
#include "compat.h"
#include "count.h"
#include "gate.h"
#include "job.h"
#include "lane.h"
#include "lanes.h"
#include "live.h"
#include "metadata.h"
#include "problem.h"
#include "runstate.h"
#include "servertext.h"
#include "settings.h"
#include "spi.h"
#include "worker.h"

/* How often a worker looks whether the database is being dropped or copied. */
#define DATABASE_CHECK_MS	400

/* How often live figures are mirrored and a stop request is looked for. */
#define MIRROR_MS			1000

/* Longest wait without a look at what a worker looks after. */
#define PAUSE_MS			100

PGDLLEXPORT void dv_worker_main(Datum arg);

static volatile sig_atomic_t stop_signalled = false;
static TimestampTz next_database_check;
static TimestampTz next_mirror;
static DvRunContext *waiting_run;	/* while no step is at work: see while_waiting() */
static List *locked_tables;			/* oids of staging tables, by the first lane */

static void
on_stop_signal(SIGNAL_ARGS)
{
	int			save_errno = errno;

	(void) postgres_signal_arg;
	stop_signalled = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

/*
 * pg_cancel_backend() of a worker means what dvmig.stop() means, and ends the
 * statement at work; a statement or lock time-out, which comes by the same
 * signal, is an error of its statement alone.
 */
static void
on_cancel_signal(SIGNAL_ARGS)
{
	bool		timed_out = get_timeout_indicator(STATEMENT_TIMEOUT, false) || get_timeout_indicator(LOCK_TIMEOUT, false);

	if (!timed_out)
		on_stop_signal(postgres_signal_arg);
	if (timed_out || IsTransactionState())
		StatementCancelHandler(postgres_signal_arg);
}

/* Field 4 of our lock tags: see worker.h. */
#define RUN_LOCK	0x4452
#define TABLE_LOCK	0x4454

void
dv_worker_run_tag(LOCKTAG *tag, int64 run)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (run >> 32), (uint32) run, RUN_LOCK);
}

void
dv_worker_table_tag(LOCKTAG *tag, Oid staging)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, 0, staging, TABLE_LOCK);
}

bool
dv_worker_share(const LOCKTAG *tag)
{
	return LockAcquire(tag, ShareLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

/* Taken alone to begin, held by every lane: the run lives while one of them does. */
static void
let_lanes_share(const LOCKTAG *tag)
{
	(void) dv_worker_share(tag);
	LockRelease(tag, ExclusiveLock, true);
}

/* Whatever the owner's role settings say, a run means the same. */
static void
pin_settings(void)
{
	static const char *const settings[][2] = {
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"jit", "off"},
		{"max_parallel_workers_per_gather", "0"},
		{"row_security", "on"},
		{"client_min_messages", "error"},
	};
	int			i;

	for (i = 0; i < (int) lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("application_name", MyBgworkerEntry->bgw_name, PGC_USERSET, PGC_S_SESSION);
	dv_spi_pin_meaning(GUC_ACTION_SET);
	dv_spi_print_no_values(GUC_ACTION_SET);
}

/*
 * start() returned, but its transaction decides whether there is a run. It may
 * stay open for longer than the owner lets his own statements wait for a lock.
 */
static void
wait_for_starter(TransactionId starter)
{
	if (!TransactionIdIsValid(starter))
		return;
	StartTransactionCommand();
	dv_spi_no_timeouts();
	XactLockTableWait(starter, NULL, NULL, XLTW_None);
	CommitTransactionCommand();
}

/*
 * Somebody who drops, renames or copies the database holds its lock and waits
 * for us to be gone: leave at once. The next run settles what is in doubt.
 */
static void
check_database(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	if (LockAcquire(&tag, RowExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		ereport(FATAL,
				(errcode(ERRCODE_ADMIN_SHUTDOWN),
				 errmsg("dvmig run ends because its database is being dropped or copied")));
	LockRelease(&tag, RowExclusiveLock, true);
}

void
dv_worker_wait(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* What a worker looks after wherever it is. */
static void
look_after_server(TimestampTz now)
{
	CHECK_FOR_INTERRUPTS();
	ResetLatch(MyLatch);
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	if (now >= next_database_check)
	{
		check_database();
		next_database_check = TimestampTzPlusMilliseconds(now, DATABASE_CHECK_MS);
	}
}

void
dv_worker_look_after_server(void)
{
	look_after_server(GetCurrentTimestamp());
}

void
dv_worker_look(DvRunContext *rc)
{
	TimestampTz now = GetCurrentTimestamp();

	look_after_server(now);
	if (stop_signalled)
		rc->stopping = true;
	if (now >= next_mirror)
	{
		rc->stopping |= dv_live_mirror(rc);
		next_mirror = TimestampTzPlusMilliseconds(now, MIRROR_MS);
	}
	if (rc->stopping && rc->stop_by == 0)
		rc->stop_by = TimestampTzPlusMilliseconds(now, dv_stop_timeout_ms);
}

void
dv_worker_tick(DvStep *step)
{
	DvRunContext *rc = step->rc;
	TimestampTz now = GetCurrentTimestamp();

	look_after_server(now);
	if (stop_signalled)
		rc->stopping = true;
	dv_lanes_publish(step);
	if (rc->lanes->me == 0 && now >= next_mirror)
	{
		rc->stopping |= dv_live_mirror(rc);
		dv_lane_follow(rc);
		next_mirror = TimestampTzPlusMilliseconds(now, MIRROR_MS);
	}
	if (rc->stopping && rc->stop_by == 0)
		rc->stop_by = TimestampTzPlusMilliseconds(now, dv_stop_timeout_ms);
}

void
dv_worker_stop_here(const DvRunContext *rc)
{
	ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED), errmsg("run " INT64_FORMAT " was asked to stop", rc->run)));
}

/*
 * While the first answers are waited for (who we are, references) nothing has
 * been written in Dataverse: a run that is asked to stop then ends at once.
 */
static void
while_waiting(void)
{
	DvRunContext *rc = waiting_run;
	TimestampTz now = GetCurrentTimestamp();

	look_after_server(now);
	if (rc == NULL)
		return;
	if (stop_signalled)
		rc->stopping = true;
	else if (now >= next_mirror)
	{
		rc->stopping |= dv_live_hear(rc);
		next_mirror = TimestampTzPlusMilliseconds(now, MIRROR_MS);
	}
	if (rc->stopping)
		dv_worker_stop_here(rc);
}

/*
 * Called while who we are is asked and references are read: shall a failing
 * service be waited for? What it waits for is told at once, as a lap would.
 */
static bool
be_patient(const DvProblem *problem)
{
	DvRunContext *rc = waiting_run;
	const char *why = problem != NULL ? problem->message : "";
	TimestampTz now = GetCurrentTimestamp();

	if (problem == NULL || problem->throttled)
		rc->outage_since = 0;
	else if (rc->outage_since == 0)
		rc->outage_since = now;
	if (strcmp(rc->waiting, why) != 0)
	{
		dv_server_text_cut(rc->waiting, sizeof(rc->waiting), why);
		rc->stopping |= dv_live_mirror(rc);
	}
	return rc->outage_since == 0 || !TimestampDifferenceExceeds(rc->outage_since, now, dv_max_outage_s * 1000);
}

/* Wait, while looking after what a worker looks after. */
static void
pause_until(TimestampTz until)
{
	while (GetCurrentTimestamp() < until)
	{
		dv_worker_wait(PAUSE_MS);
		while_waiting();
	}
}

static bool
lock_table(DvRunContext *rc, Oid staging)
{
	LOCKTAG		tag;
	MemoryContext before;

	dv_worker_table_tag(&tag, staging);
	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	let_lanes_share(&tag);
	before = MemoryContextSwitchTo(rc->context);
	locked_tables = lappend_oid(locked_tables, staging);
	MemoryContextSwitchTo(before);
	return true;
}

/*
 * All that we do has been recorded and the other lanes are gone. Whoever sees
 * the run at its end may start the next one before this process has ended.
 */
static void
unlock_tables(void)
{
	ListCell   *cell;

	foreach(cell, locked_tables)
	{
		LOCKTAG		tag;

		dv_worker_table_tag(&tag, lfirst_oid(cell));
		LockRelease(&tag, ShareLock, true);
	}
	locked_tables = NIL;
}

/* Run one step; an error of the table alone fails the table, not the run. */
static void
run_step(DvRunContext *rc, const DvStepPlan *plan)
{
	MemoryContext context = AllocSetContextCreate(rc->context, "dvmig step", ALLOCSET_DEFAULT_SIZES);
	DvStep	   *step = MemoryContextAlloc(context, sizeof(DvStep));
	ErrorData  *volatile error = NULL;

	dv_engine_init_step(step, rc, context);
	PG_TRY();
	{
		dv_runstate_begin_step(step, plan);
		dv_lanes_open_step(step, plan->number);
		dv_live_take_pace(step);
		dv_count_rows(step, plan);
		dv_engine_run_step(step);
	}
	PG_CATCH();
	{
		error = dv_spi_abort(rc->context);
		dv_session_abandon(rc->session);
		dv_gate_leave_all(step);
		dv_lanes_report_error(rc->lanes, error);
	}
	PG_END_TRY();
	if (rc->at_work != NULL)	/* it had begun */
		dv_lanes_close_step(step);
	if (error != NULL && ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_TO_CATEGORY(ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION) &&
		error->sqlerrcode != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
		ReThrowError(error);
	dv_runstate_end_step(step, plan, error);
	MemoryContextSwitchTo(rc->context);
	MemoryContextDelete(context);
}

static void
run_steps(DvRunContext *rc)
{
	DvStepPlan	plan;

	while (!rc->stopping && dv_runstate_next_step(rc, &plan))
		run_step(rc, &plan);
}

/* Maps are made for columns as they were: none of them may have changed. */
static bool
columns_unchanged(DvRunContext *rc)
{
	char	   *changed = dv_metadata_changed(rc->session, rc->run);

	if (changed == NULL)
		return true;
	rc->failed = true;
	rc->message = changed;
	return false;
}

bool
dv_worker_ask_who(DvSession *session, DvWhoAmI *who, DvProblem *problem)
{
	int			attempt = 0;

	memset(problem, 0, sizeof(*problem));
	while (!dv_session_whoami(session, who, problem))
	{
		/* A server that never answered yet is more likely named wrongly than down. */
		if (!problem->transient || !(problem->throttled || dv_session_is_pinned(session)) || !be_patient(problem))
			return false;
		attempt++;
		pause_until(problem->retry_after_ms >= 0 ? TimestampTzPlusMilliseconds(GetCurrentTimestamp(), problem->retry_after_ms)
					: dv_answer_backoff(attempt));
	}
	(void) be_patient(NULL);
	return true;
}

/* Address, token, application user, organisation: before anything is read. */
static bool
open_session(DvRunContext *rc, const DvRunPlan *plan)
{
	DvWhoAmI	who;
	DvProblem	problem;

	rc->session = dv_session_open(plan->server, rc->owner, 1);
	dv_gate_guard(rc, rc->session, 0);
	while_waiting();			/* asked to stop already? */
	if (!dv_worker_ask_who(rc->session, &who, &problem))
	{
		rc->failed = true;
		rc->message = dv_problem_text(&problem);
		return false;
	}
	dv_lane_meet_user(rc, 0, &who);
	return dv_runstate_pin(rc, plan, who.organisation_id) && (strcmp(plan->kind, "run") != 0 || columns_unchanged(rc));
}

static bool
lock_tables(DvRunContext *rc, const DvRunPlan *plan)
{
	int			i;

	for (i = 0; i < plan->ntables && !rc->failed; i++)
		if (!lock_table(rc, plan->tables[i]))
		{
			rc->failed = true;
			rc->message = psprintf("staging table %s is being migrated by another run", plan->names[i]);
		}
	return !rc->failed;
}

static void
run(DvRunContext *rc, const DvWorkerArgs *args)
{
	DvRunPlan	plan;

	if (!dv_runstate_load(rc, &plan))
		return;					/* start() was rolled back */
	rc->lanes = dv_lanes_create(rc->run, plan.lanes > 0 ? plan.lanes : 1);
	waiting_run = rc;
	dv_session_patience = be_patient;
	if (lock_tables(rc, &plan) && open_session(rc, &plan))
	{
		dv_lane_begin(rc, &plan, args);
		dv_runstate_read_references(rc, &plan);
		waiting_run = NULL;
		dv_session_patience = NULL;
		/* paused or capped when it began: before the first row goes */
		rc->stopping |= dv_live_hear(rc);
		if (strcmp(plan.kind, "run") == 0)
			run_steps(rc);
		else
			dv_job_run(rc, &plan);
	}
	waiting_run = NULL;
	dv_lanes_finish(rc->lanes, false);
	unlock_tables();
	dv_runstate_finish(rc);
}

/* Dropped during the run: no outcome that lanes still wait for can be recorded. */
static bool
extension_is_gone(void)
{
	bool		gone;

	StartTransactionCommand();
	gone = !OidIsValid(get_extension_oid("dvmig", true));
	CommitTransactionCommand();
	return gone;
}

/* An error that ends the run: told in run_history, and in the server log. */
static void
end_by_error(DvRunContext *rc, ErrorData *error)
{
	/* cancelled, or thrown by while_waiting(): not a failure */
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED && (stop_signalled || rc->stopping))
		rc->stopping = true;
	else
	{
		const char *told = dv_spi_told(error);
		const char *detail = told == error->message ? error->detail : NULL;

		rc->failed = true;
		rc->message = psprintf("%s%s%s", told, detail ? ": " : "", detail ? detail : "");
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("dvmig run " INT64_FORMAT " failed (SQLSTATE %s)", rc->run, unpack_sql_state(error->sqlerrcode))));
	}
	waiting_run = NULL;
	PG_TRY();
	{
		if (rc->lanes != NULL)
			dv_lanes_finish(rc->lanes, extension_is_gone());
		unlock_tables();
		dv_runstate_finish(rc);
	}
	PG_CATCH();
	{
		/* The extension itself may be gone: then nobody is left to be told. */
		FreeErrorData(dv_spi_abort(rc->context));
		ereport(LOG, (errmsg("the end of dvmig run " INT64_FORMAT " could not be recorded", rc->run)));
	}
	PG_END_TRY();
}

/* dv_worker_main is the entry point of a run's background worker. */
void
dv_worker_main(Datum arg)
{
	DvWorkerArgs args;
	DvRunContext *rc;
	MemoryContext context;
	LOCKTAG		tag;

	(void) arg;
	memcpy(&args, MyBgworkerEntry->bgw_extra, sizeof(args));
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, on_cancel_signal);
	pqsignal(SIGUSR2, on_stop_signal);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(args.database, args.owner, DV_BGWORKER_FLAGS);

	/* First of all: who looks at the run takes it for dead without its lock. */
	dv_worker_run_tag(&tag, args.run);
	if (args.lane == 0)
	{
		(void) LockAcquire(&tag, ExclusiveLock, true, false);
		let_lanes_share(&tag);
		wait_for_starter(args.starter);
	}
	else if (!dv_worker_share(&tag))
		return;
	pin_settings();
	dv_server_text_prepare();
	if (args.job != DSM_HANDLE_INVALID && !dv_job_begin(args.run, args.job))
		return;

	context = AllocSetContextCreate(TopMemoryContext, "dvmig run", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	rc = palloc0(sizeof(DvRunContext));
	rc->context = context;
	rc->run = args.run;
	rc->owner = args.owner;
	dv_session_idle = while_waiting;
	PG_TRY();
	{
		if (args.lane == 0)
			run(rc, &args);
		else
			dv_lane_help(rc, &args);
	}
	PG_CATCH();
	{
		ErrorData  *error = dv_spi_abort(context);

		if (args.lane == 0)
			end_by_error(rc, error);
		else
			dv_lane_give_up(rc, error);
	}
	PG_END_TRY();
	if (rc->lanes != NULL)
		dv_lanes_goodbye(rc->lanes);
	if (rc->session != NULL)
		dv_session_close(rc->session);
}

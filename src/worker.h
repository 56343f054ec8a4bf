/*
 * worker.h - the background worker of a run
 */
#ifndef DV_WORKER_H
#define DV_WORKER_H

#include "postgres.h"

#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "storage/lock.h"

/* What start() tells the worker, in bgw_extra. */
typedef struct DvWorkerArgs
{
	Oid			database;
	Oid			owner;			/* of the migration: the session user */
	int64		run;
	TransactionId starter;		/* to be waited for */
	dsm_handle	job;			/* what to do, if it is no run: see job.h */
	dsm_handle	segment;		/* of the run; 0 for the lane that makes it */
	int32		lane;			/* 0 = the one that leads */
} DvWorkerArgs;

/* run.c: register a worker; false where there is no slot. The handle is malloc'ed for good. */
extern bool dv_worker_register(const DvWorkerArgs *args, pid_t notify, BackgroundWorkerHandle **handle);

/* The same, or an ordinary error. */
extern BackgroundWorkerHandle *dv_worker_start(const DvWorkerArgs *args);

/* run.c: ask a worker for a clean end; one that has not begun never will. */
extern void dv_worker_end(BackgroundWorkerHandle *handle);

/* Wait so long, or until the latch is set; also in a backend that waits for a worker. Takes interrupts. */
extern void dv_worker_wait(long ms);

/* What a worker looks after wherever it is: interrupts, settings, its database. */
extern void dv_worker_look_after_server(void);

/*
 * Locks of runs and tables. They are advisory locks in the lock manager's eyes
 * but with a fourth field that SQL's advisory functions cannot produce (they
 * use 1 and 2), so that no user takes one by chance.
 */
extern void dv_worker_run_tag(LOCKTAG *tag, int64 run);
extern void dv_worker_table_tag(LOCKTAG *tag, Oid staging);

/* Take such a lock together with other lanes; false where somebody has it alone. */
extern bool dv_worker_share(const LOCKTAG *tag);

#endif							/* DV_WORKER_H */

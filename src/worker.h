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
} DvWorkerArgs;

/* run.c: register a worker at once; its handle lives in the current context. */
extern BackgroundWorkerHandle *dv_worker_register(const DvWorkerArgs *args);

/*
 * Locks of runs and tables. They are advisory locks in the lock manager's eyes
 * but with a fourth field that SQL's advisory functions cannot produce (they
 * use 1 and 2), so that no user takes one by chance.
 */
extern void dv_worker_run_tag(LOCKTAG *tag, int64 run);
extern void dv_worker_table_tag(LOCKTAG *tag, Oid staging);

#endif							/* DV_WORKER_H */

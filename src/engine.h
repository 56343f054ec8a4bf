/*
 * engine.h - what the rooms on a row's way share
 *
 * source.c reads batches of rows, engine.c turns them into tasks and answers
 * into verdicts, outcome.c records verdicts. A row belongs to the batch it was
 * read in; the batch's memory is given back when its last row has a verdict.
 */
#ifndef DV_ENGINE_H
#define DV_ENGINE_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "lib/ilist.h"
#include "storage/itemptr.h"
#include "utils/uuid.h"

#include "budget.h"
#include "compat.h"
#include "pace.h"
#include "projection.h"
#include "session.h"
#include "walk.h"

/* The kinds of request a row can be in. */
typedef enum DvStage
{
	DV_STAGE_WRITE,				/* bulk message, all or nothing */
	DV_STAGE_EACH,				/* $batch of single operations */
	DV_STAGE_FIND,				/* read ids back */
	DV_STAGE_IMAGE				/* read what records hold before they are updated */
} DvStage;

typedef struct DvBatch
{
	MemoryContext context;
	int			open_rows;		/* rows without a verdict */
	struct DvRow *rows;			/* all of them, in order; NULL for a row alone */
	char	   *content;		/* of all of them; NULL once it is in "body" */
	DvBuf		body;			/* of the request that all of them went with */
	MemoryContextCallback cleanup;	/* frees it */
} DvBatch;

/*
 * A version of a staging row: what a verdict belongs to. VACUUM FULL and CLUSTER
 * move versions and keep their xmin, so that another row of the same load may
 * then be where this one was: the file tells the two apart.
 */
typedef struct DvVersion
{
	ItemPointerData ctid;
	TransactionId xmin;
	Oid			tableoid;
	Oid			filenode;		/* of the table or partition */
} DvVersion;

/* SQL: is a row "s" of a staging table that version? Each part is SQL, of the types tid, xid, oid, oid. */
#define DV_IS_VERSION(ctid, xmin, tableoid, filenode) \
	"s.ctid = " ctid " AND s.xmin = " xmin " AND s.tableoid = " tableoid \
	" AND pg_catalog.pg_relation_filenode(s.tableoid) = " filenode

typedef struct DvRow
{
	DvWireRow	wire;
	DvBatch    *batch;
	DvVersion	version;
	pg_uuid_t	uuid;			/* the id, once it is known */
	pg_uuid_t	handle;			/* the id, or where Dataverse makes it a hash of
								 * the alternate key: what must not be in flight
								 * twice */
	Datum	   *keys;
	unsigned char hash[16];
	bool		has_hash;
	bool		again;			/* an earlier pass of this run had its success */
	int			owes;			/* passes that are owed: DV_OWES_... */
	int			state;			/* states pass: statecode that is wanted */
	int			status;			/* statuscode; -1 = the default of the state */
	int			steps;			/* answered operations that another follows, so far */
	bool		more;			/* the operation on its way is not the last */
	const char *close;			/* members of the activity that a close leaves */
	int			close_len;
	const char *link_body;		/* of a link's request */
	bool		recorded;		/* an outcome table has a row of its key, or may have */
	ItemPointerData outcome;	/* where its success row was read, if it is to be found there; else invalid */
	bool		written;		/* created, its id is still to be read by key */
	bool		verify;			/* look whether it exists before creating it */
	int64		created_run;	/* 0 where not known */
	bool		busy;			/* its handle is among the step's busy ids */
	const char *note;			/* what policies did to its values, or NULL */
	bool		unchanged;		/* its content is what was recorded last; a forgotten request may have sent another */
	int			owes_unchanged; /* what it owes if it need not be written */
	bool		imaged;			/* what its record held is kept, or need not be */
	bool		existed;		/* was there before us: not to be written over if changed since */
	bool		kept_ours;		/* recorded as kept, though a run of ours created it: see settle.c */
	int			attempts;
	int			troubles;		/* refusals that may pass */
	TimestampTz sent_at;		/* when it was last sent */
	TimestampTz unknown_since;	/* when it last had no answer; 0 = never */
	TimestampTz doubtful_since; /* when the first request without an answer left */
	int			unknowns;		/* how many requests with it had no answer */
	DvVerdict  *doubt;			/* "duplicate" answer that is being checked by id */
	Size		content_offset; /* while its batch is being encoded */
} DvRow;

typedef struct DvTask
{
	dlist_node	node;
	DvStage		stage;
	DvRow	  **rows;
	int			n;
	int			attempts;
	TimestampTz not_before;
	TimestampTz sent_at;
	DvBuf		path;
	DvBuf		body;
	bool		body_kept;		/* it is the batch's */
	char		content_type[128];
} DvTask;

typedef struct DvRecordSql DvRecordSql;	/* private to outcome.c */

/* A verdict ready to be recorded. */
typedef struct DvOutcome
{
	DvRow	   *row;
	bool		success;
	bool		flag_only;		/* it is recorded, and only its flag is missing */
	char		flag;			/* S, P or E */
	const char *message;		/* or NULL; a constant */
	DvVerdict  *verdict;		/* failures */
} DvOutcome;

/* Are outcomes recorded in lots, so that flags find room (stripes.c)? */
typedef struct DvStripes
{
	int			fruitless;		/* calls in a row that it did not help */
	int			pause;			/* calls to go until it is tried again; 0 = they are */
} DvStripes;

typedef struct DvLanes DvLanes; /* lanes.h */
typedef struct DvSets DvSets;	/* sets.h */

typedef struct DvCounters
{
	int64		rows_read;
	int64		succeeded;
	int64		failed;
	int64		unchanged;
	int64		parked;
	int64		requests;
	int64		rows_sent;
	int64		bytes_sent;
	int64		throttled;
	int64		again;			/* outcomes of rows that are among the run's successes already */
} DvCounters;

/* Have the rows that a lane has yet to read an outcome? */
typedef struct DvAhead
{
	enum
	{
		DV_AHEAD_UNKNOWN, DV_AHEAD_SOME, DV_AHEAD_NONE
	}			what;
	int			reads;			/* that gave none since the last look */
	int			pause;			/* of so many before the next look */
} DvAhead;

typedef struct DvRunContext
{
	int64		run;
	const char *kind;			/* run, or a job: see job.h */
	Oid			owner;			/* owner of the migration: our session user */
	DvSession  *session;
	DvLanes    *lanes;			/* what the lanes of the run share */
	struct DvUsers *users;		/* of a job: see users.h */
	DvBudget	budget;			/* the run's; a table has its own */
	MemoryContext context;
	DvCounters	total;			/* of steps that have ended */
	struct DvStep *at_work;		/* the step whose figures are not among them; NULL between steps, and in helpers */
	bool		stopping;		/* asked to stop, or failed */
	TimestampTz stop_by;		/* when a stopping run ends without replies; 0 = not stopping */
	bool		failed;
	char	   *message;		/* why it failed, or what it waits for */
	TimestampTz outage_since;	/* first failure since an answer; 0 = none */
	TimestampTz outage_counted; /* when a failure was last counted */
	int			outages;		/* failures in a row */
	bool		unanswered;		/* what became of the last write is not known */
	TimestampTz last_write;		/* when a write was last answered */
	char		waiting[256];	/* why it waits, while there is an outage */
	int			max_rows;		/* per table; 0 = no limit */
	bool		filtered;		/* only the rows that start() chose */
	Oid			drained;		/* a table of which the step before saw that nothing is unprocessed; 0 = none */
} DvRunContext;

typedef struct DvStep
{
	DvRunContext *rc;
	int			number;			/* run_table.step */
	DvProjection *projection;
	MemoryContext context;
	DvTablePace *pace;			/* the table's, shared by the lanes */
	DvSets	   *sets;			/* ids and versions, shared by the lanes */
	DvBudget	budget;			/* the table's */
	int			mapping_failures;	/* rows refused because of the column map */
	bool		forgotten;		/* an earlier run did not end this pass cleanly */
	TimestampTz forgotten_since;	/* when that run began; 0 = not known */
	int64		forgotten_run;	/* the last such run that created records; 0 = none, or it is forgotten itself */
	TimestampTz forgotten_until;	/* until then its requests may still be carried out */
	bool		unsettled;		/* rows of unknown outcome were left */
	TimestampTz doubtful_until; /* requests that had no answer may still be carried out; 0 = none */
	DvCounters	counters;
	int64		lap_parked;
	int64		lap_taken;
	int64		lap_flagged;	/* rows that have got their flag */
	int64		unprocessed;	/* rows of the table when the leader counted them before the first lap; -1 = not known */
	bool		drained;		/* the lap has left none of these, and nobody else wrote meanwhile */

	/* reading */
	bool		lap_done;
	bool		has_range;		/* rows up to until_keys are this lane's */
	bool		lent;			/* all that is left of the lap is this lane's */
	DvWalk		walk;			/* of the lap, by this lane */
	MemoryContext range_context;	/* of until_keys */
	Datum	   *until_keys;		/* the last of the range, or window; NULL = to the end */
	int			examine;		/* the filter throws: rows that a window has; 0 = there are none */
	bool		in_window;		/* a read looks at no more than those up to until_keys */
	MemoryContext window_context;	/* of until_keys, in a window */
	Datum	   *range_until;	/* the last of the range that the window is in */
	int			conflicts;		/* serialization failures of reads, one after the other */
	struct DvReadPlans *read_plans; /* private to batch.c */
	DvAhead		ahead;
	int			lap;
	TimestampTz read_after;		/* a user locked the table: not before this */
	bool		empty;			/* it had no row before it when it began */
	int			read_limit;		/* cap on the next read while looking for a bad row; 0 = none */
	Size		row_bytes;		/* average JSON of a row, to bound a read's memory */
	TupleDesc	desc;			/* of the projection, as the appender was built for */
	DvPayloadColumn *both;		/* columns by direction; the hash covers "both" */
	int			nboth;
	DvPayloadColumn *insert_only;
	int			ninsert_only;
	DvPayloadColumn *update_only;
	int			nupdate_only;
	DvPayloadColumn *key_columns;	/* ids => platform: of the alternate key */
	int			nkey_columns;
	ErrorData  *error;			/* ends the step once replies are in */
	DvBatch    *reading;		/* of the read at work */

	/* sending */
	dlist_head	queue;
	int			queued_rows;
	int			in_flight;
	bool		held;			/* the service, or a rate cap, lets nothing go for now */

	/* recording */
	DvOutcome  *outcomes;
	int			noutcomes;
	int			max_outcomes;
	TimestampTz answered_at;	/* the first reply since outcomes were recorded; 0 = none */
	bool		failure_waits;	/* there is a failure among them */
	MemoryContext outcome_context;	/* verdicts of outcomes, and recording */
	DvRecordSql *record_sql;
	DvStripes	stripes;
	bool		no_direct;		/* the recording at work goes by SQL alone */
	bool		by_sql;			/* some of the lot at work went by SQL, where a user's code may have run */
} DvStep;

/* source.c */

/*
 * Read and transform the next batch in a transaction of its own. Returns the
 * rows to send, their count in *n: none, where all had a verdict that needs no
 * request (unchanged, faults: they are among the step's outcomes), where all
 * wait for parents, where a user locks the table (step->read_after), or where
 * the lap is over (step->lap_done). An error that no row is to blame for is
 * left in step->error.
 */
extern DvRow **dv_source_read(DvStep *step, int limit, int *n);
extern void dv_source_rewind(DvStep *step);

/*
 * Is an error of a read another session's lock or conflict, which is waited for?
 * An expression can throw the same whenever it is asked: after so many times in a
 * row it is no more.
 */
extern bool dv_source_is_passing(DvStep *step, const ErrorData *error);

/* outcome.c */
extern void dv_outcome_success(DvStep *step, DvRow *row, const char *message);
extern void dv_outcome_failure(DvStep *step, DvRow *row, const DvVerdict *verdict);

/* The row's outcome is recorded already: give it its flag. */
extern void dv_outcome_flag(DvStep *step, DvRow *row, char flag);

/* words.c: what is worth knowing of a success: what happened, and what policies did to the values sent. */
extern const char *dv_outcome_message(const DvOutcome *outcome);

/* words.c: the names of the passes that are owed, in their order; NULL where none is. */
extern const char *dv_outcome_owed_passes(int owes);

/* Record what has gathered, in a few short transactions, and free its rows. */
extern void dv_outcome_record(DvStep *step);

/* engine.c */

/* Queue rows for a stage, in chunks that fit a request, not before a time. */
extern void dv_engine_queue(DvStep *step, DvStage stage, DvRow **rows, int n,
							TimestampTz not_before, int attempts);

/* The rows of a task, of which there are several, for its stage once more, in two requests. */
extern void dv_engine_queue_halves(DvStep *step, const DvTask *task, int attempts);

/* Queue rows that were just read, by operation and what the table offers. */
extern void dv_engine_queue_new(DvStep *step, DvRow **rows, int n);

/* Does a task of this stage only read? */
extern bool dv_engine_only_reads(DvStage stage);

/* request.c: is this read a $batch of queries, because a row has no id yet? */
extern bool dv_engine_finds_each(const DvTask *task);

/* Rows that were not sent, or are known not to have been written, go back to the table. */
extern void dv_engine_give_back(DvStep *step);

/* Has a stopping run used up dvmig.stop_timeout? Then what is on its way is given up, for the next run to ask about. */
extern bool dv_engine_stop_overdue(const DvRunContext *rc);
extern void dv_engine_abandon(DvStep *step);

/*
 * What an earlier run had on its way may be carried out until then, and must not
 * come after what undoes it or writes over it; 0 where nothing is to be waited for.
 */
extern TimestampTz dv_engine_hold_until(DvStep *step);

/*
 * A request that may simply be sent again (a file, a link) had no answer: whatever
 * else is sent of its row must come after it. The lap waits at its end.
 */
extern void dv_engine_doubt(DvStep *step);

/* End the run: nothing new is sent, replies on their way are recorded. */
extern void dv_engine_fail_run(DvRunContext *rc, const char *message);

/* A user's lock is in the way of the run or job: told in dvmig.progress, until it is gone. */
extern void dv_engine_locked_out(DvRunContext *rc);
extern void dv_engine_lock_gone(DvRunContext *rc);

/* range.c: whose turn it is to read what. */

/*
 * Is there something for this lane to read? Takes the next range of the lap
 * where it has none. False where there is nothing (step->lap_done), or another
 * lane is just looking, or a user locks the table (step->read_after).
 */
extern bool dv_range_ready(DvStep *step);

/* All of the range, or of the window in it, is read. */
extern void dv_range_done(DvStep *step);

/*
 * A read threw, and it is not known for which row, because the table's filter
 * threw for one that may not be meant at all: reads then keep to windows, found by
 * keys alone, that get ever smaller. False where the window has one row already.
 */
extern bool dv_range_narrow(DvStep *step);

/* answer.c: what a reply means for the rows of its task. */
extern void dv_answer_handle(DvStep *step, DvTask *task, const DvHttpReply *reply);

/*
 * Walk a table in laps, with the lanes that help, until a lap takes nothing or
 * the run stops; and take part in the laps of another lane's step.
 */
extern void dv_engine_run_step(DvStep *step);
extern void dv_engine_help_step(DvStep *step);
extern void dv_engine_init_step(DvStep *step, DvRunContext *rc, MemoryContext context);
extern void dv_engine_release_row(DvStep *step, DvRow *row);

/* Give a row the id that Dataverse made, or that was found; text of a uuid. */
extern void dv_engine_set_id(DvRow *row, const char *id);

/* worker.c: called at least every 100 ms; looks for stop, tells progress. */
extern void dv_worker_tick(DvStep *step);

/* worker.c: the same for work without a step. */
extern void dv_worker_look(DvRunContext *rc);

/* Throw what ends a run that was asked to stop. */
pg_noreturn extern void dv_worker_stop_here(const DvRunContext *rc);

/*
 * worker.c: who the session is, before a run's rows are read. A service that does not
 * answer is waited for, for dvmig.max_outage at most; false with a problem otherwise.
 */
extern bool dv_worker_ask_who(DvSession *session, DvWhoAmI *who, DvProblem *problem);

#endif							/* DV_ENGINE_H */

/*
 * answer.h - what the two halves of judging share
 *
 * answer.c judges replies to writes; settle.c judges what a read-back found.
 */
#ifndef DV_ANSWER_H
#define DV_ANSWER_H

#include "engine.h"

/* Rows of one task by what becomes of them next. */
typedef struct DvSorted
{
	DvRow	  **find;			/* are looked for */
	int			nfind;
	DvRow	  **again;			/* go out again as they did */
	int			nagain;
	DvRow	  **isolate;		/* go out again as single operations */
	int			nisolate;
	TimestampTz again_at;
	TimestampTz find_at;
} DvSorted;

/* When to try for the n-th time (from 1). */
extern TimestampTz dv_answer_backoff(int attempt);

/* What the service said, in this database's encoding; palloc'ed. */
extern char *dv_answer_told(const DvVerdict *v);

/* A request sent then has failed for the service; ends the run after dvmig.max_outage of nothing else. */
extern void dv_answer_outage(DvStep *step, TimestampTz sent_at, const char *why);
extern void dv_answer_good(DvStep *step, const DvHttpReply *reply);
extern void dv_answer_throttled(DvStep *step, const DvVerdict *v, int attempt);

/* End the run for a reason that all rows would meet. */
extern void dv_answer_fail_run(DvStep *step, const DvHttpReply *reply, const DvVerdict *v);

/* The row is given back without a verdict: it stays unprocessed. */
extern void dv_answer_leave_row(DvStep *step, DvRow *row);

/* A reply and the rows of a task as the wire modules take them; palloc'ed. */
extern DvWireReply dv_answer_wire_reply(const DvHttpReply *reply);
extern const DvWireRow **dv_answer_wire_rows(const DvTask *task);

/* settle.c: "2026-05-04T03:02:01Z", as the service writes an instant; 0 where it is not one. */
extern TimestampTz dv_settle_instant(const char *text);

/* Clocks of service and server may differ by this much, in seconds. */
#define DV_CLOCK_SKEW_S	5

/*
 * settle.c: may a row be sent once more whose outcome is unknown? False where
 * it was left unanswered so often that it has its verdict now.
 */
extern bool dv_settle_may_try_again(DvStep *step, DvRow *row);

/* settle.c: the row needs no request: its content is what was recorded last. */
extern void dv_settle_unchanged(DvStep *step, DvRow *row);

/* settle.c: a read that brought nothing goes out again, or ends the run; v says why. */
extern void dv_settle_unread(DvStep *step, DvTask *task, const DvHttpReply *reply, const DvVerdict *v);

/* settle.c: what reading ids back found. */
extern void dv_settle_handle(DvStep *step, DvTask *task, const DvHttpReply *reply, DvSorted *s);

#endif							/* DV_ANSWER_H */

/*
 * asker.h - the requests of a job: several in flight, at the service's pace,
 * as all of its application users
 *
 * For requests that may be repeated whatever became of them: reads, deletes by
 * id, updates that set what they set. What passes (throttling, outages, a
 * server's trouble) is waited for and asked again here; every other answer is
 * handed to the job.
 */
#ifndef DV_ASKER_H
#define DV_ASKER_H

#include "engine.h"
#include "page.h"
#include "users.h"

typedef struct DvAsk
{
	dlist_node	node;
	const char *method;			/* GET, POST, PATCH, DELETE */
	DvBuf		path;
	DvBuf		body;
	char		content_type[128];
	const char *prefer;			/* "Prefer: ..." or NULL */
	void	   *arg;			/* the job's */
	int			user;			/* application user it went as */
	bool		same_user;		/* it goes as that one again: a next page */
	int			attempts;		/* answers that were to be asked for again */
	int			bad_answers;	/* in a row that were not understood */
	TimestampTz not_before;
} DvAsk;

typedef struct DvAsker DvAsker;

/* Judge an answer. The ask is freed afterwards, unless dv_asker_again() was called. */
typedef void (*DvAskAnswer) (DvAsker *asker, DvAsk *ask, const DvHttpReply *reply);

/* An answer was longer than any may be: ask for less. False where that cannot be done: then it counts as none. */
typedef bool (*DvAskTooLong) (DvAsker *asker, DvAsk *ask);

struct DvAsker
{
	DvRunContext *rc;
	DvUsers    *users;
	void	   *arg;			/* the job's */
	DvAskAnswer answer;
	DvAskTooLong too_long;		/* or NULL */
	MemoryContext context;
	dlist_head	queue;
	int			in_flight;
	int			writing;		/* of them, those that are no mere questions */
	bool		again;			/* the ask being judged goes out again */
};

extern void dv_asker_init(DvAsker *asker, DvRunContext *rc, DvAskAnswer answer, void *arg);

/* A request to be filled in and queued. */
extern DvAsk *dv_asker_new(DvAsker *asker, const char *method, void *arg);
extern void dv_asker_queue(DvAsker *asker, DvAsk *ask);

/* From the answer function: the same request once more, after a pause that grows; its path may be another by then. */
extern void dv_asker_again(DvAsker *asker, DvAsk *ask, bool at_once);

/* From the answer function: it was not understood. Asked for once more; after some of them in a row the job fails with that message. */
extern void dv_asker_not_understood(DvAsker *asker, DvAsk *ask, const char *message);

/* From the answer function: ask for the page behind a link. Elsewhere than below the API nobody is asked: the job fails. */
extern void dv_asker_follow(DvAsker *asker, DvAsk *ask, DvSlice link);

/* Make the body of a $batch: its boundary, content type and preference. */
extern const char *dv_asker_batch(DvAsk *ask);

/* An ETag of an answer as an If-Match header has it, in "context"; NULL where there is none, or none that may stand in a header. */
extern char *dv_asker_etag(DvSlice etag, MemoryContext context);

/* May the job queue another request, so that it would be sent at once? */
extern bool dv_asker_has_room(DvAsker *asker);

/* Send what is queued and due. */
extern void dv_asker_send(DvAsker *asker);

/* Nothing to ask for now: wait a moment. */
extern void dv_asker_pause(void);

/*
 * Do some work on a user's tables, in a transaction that "work" begins and
 * commits and that waits for locks briefly (spi.h), until no user's lock is in
 * the way: that is waited for outside of a transaction, and told. Any other
 * error is thrown on, and one of our own where the job is to stop and its time
 * is over. Errors are kept in "errors" meanwhile.
 */
extern void dv_asker_patiently(DvRunContext *rc, MemoryContext errors, void (*work) (void *arg), void *arg);

/*
 * Send what is due and take one answer, waiting briefly. False when nothing is
 * on its way and nothing queued. A job that is asked to stop sends nothing
 * more; while something is being written, what is on its way is waited for
 * until dvmig.stop_timeout.
 */
extern bool dv_asker_turn(DvAsker *asker);

/* End the job: it failed. */
extern void dv_asker_fail(DvAsker *asker, const char *message);

/* The same for an answer that was not expected. */
extern void dv_asker_fail_answer(DvAsker *asker, const DvHttpReply *reply);

#endif							/* DV_ASKER_H */

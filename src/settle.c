/*
 * settle.c - what reading ids back says of rows whose outcome is unknown
 *
 * Asked are always these very ids (or alternate keys): whether a record is
 * there, who wrote it last and when. A request that had no answer may still
 * commit for dvmig.settle_time, so that until then nothing is sent in its place.
 */
#include "postgres.h"

#include "utils/datetime.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "answer.h"
#include "encode.h"
#include "lanes.h"
#include "settings.h"
#include "states.h"

/* Date headers and modifiedon are in whole seconds, cut off. */
#define ROUNDING_S		1

/* Requests without an answer that one row may have while others are answered. */
#define UNKNOWN_TRIES	8

#define UNCHANGED			"unchanged"
#define UNCHANGED_HIDDEN	UNCHANGED "; another user modified the record while what an earlier run had sent was not known"
#define KEPT_MODIFIED	"kept: the record was modified in Dataverse by another user"
#define KEPT_OURS		KEPT_MODIFIED " since an earlier run created it"

TimestampTz
dv_settle_instant(const char *text)
{
	int			y, mo, d, h, mi, sec;

	if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d", &y, &mo, &d, &h, &mi, &sec) != 6 || !IS_VALID_JULIAN(y, mo, d))
		return 0;
	return (((int64) (date2j(y, mo, d) - POSTGRES_EPOCH_JDATE) * SECS_PER_DAY) +
			h * SECS_PER_HOUR + mi * SECS_PER_MINUTE + sec) * USECS_PER_SEC;
}

/* What the service's clock showed at an instant of ours, or a little less. */
static TimestampTz
service_time(const DvHttpReply *reply, TimestampTz ours)
{
	long long	date;

	if (!dv_verdict_http_date(reply->date, &date))
		return ours - (int64) DV_CLOCK_SKEW_S * USECS_PER_SEC;
	return (date - (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY - ROUNDING_S) * USECS_PER_SEC -
		(GetCurrentTimestamp() - ours);
}

/* Was the record written after that instant of ours? True where it is not told. */
static bool
written_since(const DvWireFound *found, const DvHttpReply *reply, TimestampTz ours)
{
	TimestampTz modified = dv_settle_instant(found->modified_on);

	return modified == 0 || modified >= service_time(reply, ours);
}

/* One of our application users, or whom the row is written as. */
static bool
is_one_of_us(const DvStep *step, const DvRow *row, const char *user)
{
	return dv_lanes_is_user(step->rc->lanes, user) ||
		(row->wire.caller[0] != '\0' && pg_strcasecmp(user, row->wire.caller) == 0);
}

static bool
is_ours(const DvStep *step, const DvRow *row, const DvWireFound *found)
{
	return is_one_of_us(step, row, found->modified_by);
}

/* Does the row say when its record was created? */
static bool
gives_date(const DvProjection *p)
{
	int			i;

	for (i = 0; i < p->ncolumns; i++)
		if (strcmp(p->columns[i].column, "overriddencreatedon") == 0)
			return true;
	return false;
}

/*
 * Was the record created by us, and no earlier than that instant of ours? Whom
 * a row is written as can be named by another id than the one that comes back.
 */
static bool
created_since(const DvStep *step, const DvRow *row, const DvWireFound *found, const DvHttpReply *reply, TimestampTz ours)
{
	const char *caller = step->projection->wire.caller_header;
	TimestampTz created = dv_settle_instant(found->created_on);

	if (found->created_by[0] != '\0' && !is_one_of_us(step, row, found->created_by) &&
		(caller == NULL || strcmp(caller, "CallerObjectId") != 0))
		return false;
	return written_since(found, reply, ours) &&
		(created == 0 || gives_date(step->projection) || created >= service_time(reply, ours));
}

/*
 * Was the record made by a run of ours whose outcome was lost? (One made as a user
 * whom Entra's id names comes back with another id, and is told by its date alone.)
 */
static bool
made_by_forgotten(const DvStep *step, const DvRow *row, const DvWireFound *found, const DvHttpReply *reply)
{
	return step->forgotten_since != 0 && found->created_by[0] != '\0' &&
		created_since(step, row, found, reply, step->forgotten_since) &&
		(is_one_of_us(step, row, found->created_by) || (row->wire.caller[0] != '\0' && !gives_date(step->projection)));
}

/*
 * A record that a forgotten run may have made as another user, who is named by an
 * id of Entra and comes back by one of Dataverse: ours, while nobody has written
 * it since it was made.
 */
static bool
made_as_other(const DvStep *step, const DvRow *row, const DvWireFound *found, const DvHttpReply *reply)
{
	return row->wire.caller[0] != '\0' && strcmp(step->projection->wire.caller_header, "CallerObjectId") == 0 &&
		step->forgotten_since != 0 && found->created_by[0] != '\0' &&
		strcmp(found->created_by, found->modified_by) == 0 && strcmp(found->created_on, found->modified_on) == 0 &&
		created_since(step, row, found, reply, step->forgotten_since);
}

/* A verdict of our own, whose class is its code. */
static DvVerdict *
own_verdict(const char *error_class, const char *message)
{
	return dv_encode_verdict(error_class, error_class, "", message);
}

/* The request may still be on its way: look again when it cannot be any more. */
static bool
may_still_commit(DvRow *row, DvSorted *s)
{
	TimestampTz settled = TimestampTzPlusMilliseconds(row->unknown_since, dv_settle_time_ms);

	if (row->unknown_since == 0 || GetCurrentTimestamp() >= settled)
		return false;
	s->find[s->nfind++] = row;
	s->find_at = Max(s->find_at, settled);
	return true;
}

/*
 * The record is left as it is, also by later passes. The messages are in
 * dvmig._projection() too, by which a later run knows such rows.
 */
static void
keep_record(DvStep *step, DvRow *row, const char *message)
{
	row->has_hash = false;
	row->owes = 0;
	dv_outcome_success(step, row, message);
}

/*
 * The same of a record that is ours all the same: an earlier run created it and
 * lost the outcome, and others have written it since. What its columns hold is
 * left as it is; what comes after the create the row is still given. It stays
 * kept: who wrote it last no longer tells whether others did.
 */
static void
keep_ours(DvStep *step, DvRow *row)
{
	row->has_hash = false;
	row->created_run = 0;		/* not for undo to delete */
	if (row->kept_ours)
		row->owes = row->owes_unchanged;
	dv_outcome_success(step, row, KEPT_OURS);
}

/*
 * It was not written, or may not have been: once more. A row that the service
 * leaves without an answer again and again, while it answers others, is itself
 * the reason. (Where no write is answered, dvmig.max_outage ends the run.)
 */
bool
dv_settle_may_try_again(DvStep *step, DvRow *row)
{
	if (row->unknowns < UNKNOWN_TRIES || step->rc->last_write <= row->doubtful_since)
		return true;
	dv_outcome_failure(step, row, own_verdict("unanswered", "the service does not answer requests with this row"));
	return false;
}

static void
try_again(DvStep *step, DvRow *row, DvSorted *s)
{
	if (dv_settle_may_try_again(step, row))
		s->again[s->nagain++] = row;
}

/*
 * The run that created the record of a row, though its outcome was lost: an
 * earlier one that did not end cleanly, or this one, of which a lane died. 0
 * where the record may have been there before, and where it was found by a key:
 * others who write as the same application user may have made it.
 */
static int64
creator(const DvStep *step, const DvRow *row, const DvWireFound *found, const DvHttpReply *reply)
{
	TimestampTz began = step->rc->lanes->shared->started;

	if (step->nkey_columns > 0 || gives_date(step->projection) || found->created_on[0] == '\0' ||
		!is_one_of_us(step, row, found->created_by) || !made_by_forgotten(step, row, found, reply))
		return 0;
	if (step->forgotten_since >= began || created_since(step, row, found, reply, began + (int64) DV_CLOCK_SKEW_S * USECS_PER_SEC))
		return step->rc->run;
	return step->forgotten_run;
}

/* A record with our id is there, and its content is not known to be ours. */
static void
record_exists(DvStep *step, DvRow *row, const DvWireFound *found, const DvHttpReply *reply)
{
	const char *on_exists = step->projection->on_exists;
	bool		ours = is_ours(step, row, found) || made_as_other(step, row, found, reply);

	/* What a run that did not end cleanly wrote was not there before us. */
	if (ours && step->forgotten_since != 0 && written_since(found, reply, step->forgotten_since))
		on_exists = "update";
	row->wire.op = 'U';			/* not created by this request */
	row->has_hash = false;
	/* what a run of ours made was not there before us, whatever on_exists says */
	if (row->kept_ours || (!ours && made_by_forgotten(step, row, found, reply)))
		keep_ours(step, row);
	else if (strcmp(on_exists, "error") == 0)
		dv_outcome_failure(step, row, own_verdict("exists", "a record with this id exists already"));
	else if (strcmp(on_exists, "keep") == 0)
		keep_record(step, row, "kept: the record existed already");
	else if (!ours)
		keep_record(step, row, KEPT_MODIFIED);
	else
	{
		/* The next lap reads the row again and sends it as an update. */
		dv_sets_set_known(step->sets, &row->handle, &row->uuid, creator(step, row, found, reply));
		dv_engine_release_row(step, row);
	}
}

/*
 * A create whose record is there. After an unanswered request it is ours, if we
 * created it since; one that somebody else made, or that is older, is not, and
 * must not be taken for ours: undo deletes what a run created.
 */
static void
create_found(DvStep *step, DvRow *row, const DvWireFound *found, const DvHttpReply *reply)
{
	if (row->written)
		dv_outcome_success(step, row, NULL);
	else if (row->unknown_since != 0 && created_since(step, row, found, reply, row->doubtful_since))
	{
		step->rc->unanswered = false;	/* the service did its work */
		step->rc->outage_since = 0;
		step->rc->outages = 0;
		dv_outcome_success(step, row, "settled: found after an unanswered request");
	}
	else
		record_exists(step, row, found, reply);
}

/* A create whose id was looked for and not found. */
static void
create_missing(DvStep *step, DvRow *row, DvSorted *s)
{
	if (row->doubt != NULL)
	{
		DvVerdict	v = *row->doubt;

		dv_outcome_failure(step, row, &v);
	}
	else if (may_still_commit(row, s))
		return;
	else if (row->written)
		dv_outcome_failure(step, row, own_verdict("id", "the record was created, but none is found by its alternate key: somebody changed the key; find it before the row is sent again"));
	else
		try_again(step, row, s);
}

/*
 * An update of a record that may not be ours to overwrite, or whose outcome is
 * not known, to this run or after one that did not end cleanly: sent (again)
 * unless somebody else wrote since.
 */
static void
settle_update(DvStep *step, DvRow *row, const DvWireFound *found, const DvHttpReply *reply, DvSorted *s)
{
	TimestampTz doubtful = row->unknown_since != 0 ? row->doubtful_since : step->forgotten_since;

	if (!found->found)
		dv_outcome_failure(step, row, own_verdict("gone", "the record does not exist in Dataverse"));
	else if (row->existed && !is_ours(step, row, found) && !made_as_other(step, row, found, reply))
	{
		if (row->created_run != 0)
			keep_ours(step, row);
		else
			keep_record(step, row, KEPT_MODIFIED);
	}
	else if (doubtful != 0 && !is_ours(step, row, found) && written_since(found, reply, doubtful))
	{
		/* for a retry to write it: no outcome says any more that the record is ours */
		if (row->kept_ours)
			row->created_run = step->forgotten_run != 0 ? step->forgotten_run : step->rc->run;
		dv_outcome_failure(step, row, own_verdict("changed",
												  "the record was modified by another user while the outcome of its update was unknown"));
	}
	else if (!may_still_commit(row, s))
		try_again(step, row, s);
}

static void
record_unchanged(DvStep *step, DvRow *row, const char *message)
{
	row->owes = row->owes_unchanged;
	dv_outcome_success(step, row, message);
}

void
dv_settle_unchanged(DvStep *step, DvRow *row)
{
	record_unchanged(step, row, UNCHANGED);
}

/*
 * What was recorded last is what the row says, and no request that was forgotten
 * has written something else since: ours would have left its time and our name.
 */
static bool
is_still_unchanged(const DvStep *step, const DvRow *row, const DvWireFound *found, const DvHttpReply *reply)
{
	return row->unchanged && row->unknown_since == 0 && found->found &&
		(!is_ours(step, row, found) || (step->forgotten_since != 0 && !written_since(found, reply, step->forgotten_since)));
}

static void
judge_found(DvStep *step, DvRow *row, const DvWireFound *found, const DvHttpReply *reply, DvSorted *s)
{
	row->verify = false;
	if (is_still_unchanged(step, row, found, reply))
	{
		/* who wrote last hides whether a forgotten request wrote before */
		record_unchanged(step, row, !is_ours(step, row, found) && step->forgotten_since != 0 &&
						 written_since(found, reply, step->forgotten_since) ? UNCHANGED_HIDDEN : UNCHANGED);
		return;
	}
	if (found->found && row->wire.id[0] == '\0')
		dv_engine_set_id(row, found->id);
	if (step->projection->states && found->found && dv_states_found(step, row, found))
		return;
	if (step->projection->look_closed && found->found && row->wire.op == 'U')
	{
		/* opened, changed and closed by a request of ours that had no answer */
		if (row->wire.reopen != NULL && row->unknown_since != 0 && is_ours(step, row, found) && written_since(found, reply, row->doubtful_since))
		{
			dv_outcome_success(step, row, "settled: found after an unanswered request");
			return;
		}
		if (dv_states_closed(step, row, found))
			return;
	}
	switch (row->wire.op)
	{
		case 'I':
			if (found->found)
				create_found(step, row, found, reply);
			else
				create_missing(step, row, s);
			break;
		case 'U':
			settle_update(step, row, found, reply, s);
			break;
		default:
			if (!found->found)
				dv_outcome_success(step, row, NULL);
			else if (!may_still_commit(row, s))
				try_again(step, row, s);
	}
}

/* Rows that go out again after a read-back; doubts are settled by then. */
static void
send_again(DvStep *step, DvSorted *s)
{
	int			i;

	for (i = 0; i < s->nagain; i++)
		s->again[i]->doubt = NULL;
	dv_engine_queue_new(step, s->again, s->nagain);
	s->nagain = 0;
}

/* A read that brought nothing: the same again, or for fewer rows. */
void
dv_settle_unread(DvStep *step, DvTask *task, const DvHttpReply *reply, const DvVerdict *v)
{
	int			i;

	switch (v->kind)
	{
		case DV_FAIL_RUN:
			dv_answer_fail_run(step, reply, v);
			for (i = 0; i < task->n; i++)
				dv_answer_leave_row(step, task->rows[i]);
			break;
		case DV_WAIT:
			dv_answer_throttled(step, v, task->attempts);
			dv_engine_queue(step, task->stage, task->rows, task->n, 0, task->attempts + 1);
			break;
		case DV_SHRINK:
			if (task->n > 1)
			{
				dv_engine_queue_halves(step, task, task->attempts + 1);
				break;
			}
			/* FALLTHROUGH */
		default:
			dv_answer_outage(step, task->sent_at, v->message[0] ? dv_answer_told(v) : "reading ids back failed");
			dv_engine_queue(step, task->stage, task->rows, task->n, dv_answer_backoff(task->attempts + 1), task->attempts + 1);
	}
}

void
dv_settle_handle(DvStep *step, DvTask *task, const DvHttpReply *reply, DvSorted *s)
{
	DvWireReply w = dv_answer_wire_reply(reply);
	DvWireFound *found = palloc0(sizeof(DvWireFound) * task->n);
	DvVerdict	v;
	int			i;

	memset(&v, 0, sizeof(v));
	v.retry_after_ms = -1;
	v.kind = dv_engine_finds_each(task) ? dv_wire_find_each_reply(&w, task->n, found, &v)
		: dv_wire_find_reply(&w, dv_answer_wire_rows(task), task->n, found, &v);
	if (v.kind != DV_DONE)
	{
		dv_settle_unread(step, task, reply, &v);
		return;
	}
	dv_answer_good(step, reply);
	for (i = 0; i < task->n; i++)
		judge_found(step, task->rows[i], &found[i], reply, s);
	send_again(step, s);
}

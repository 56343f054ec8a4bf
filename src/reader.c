/*
 * reader.c - many GETs, some at a time, until all are answered
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "pace.h"
#include "problem.h"
#include "reader.h"
#include "settings.h"

/* At a time at most: well below what one application user may have on its way (52). */
#define READ_PARALLEL	8

void
dv_reader_encode(StringInfo url, const char *text, size_t len)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";

	for (size_t i = 0; i < len; i++)
	{
		if (text[i] != '\0' && strchr(plain, text[i]) != NULL)
			appendStringInfoChar(url, text[i]);
		else
			appendStringInfo(url, "%%%02X", (unsigned char) text[i]);
	}
}

/* Send what may be sent now; returns the time until the next may be, in ms. */
static long
send_due(DvSession *session, DvRead *reads, int n, int parallel, TimestampTz hold_until)
{
	/* pages of 5,000 records are the largest the service gives */
	static const char *const headers[] = {"Prefer: odata.maxpagesize=5000", NULL};
	TimestampTz now = GetCurrentTimestamp();
	long		wait = 1000;

	if (hold_until > now)
		return Min(wait, TimestampDifferenceMilliseconds(now, hold_until) + 1);
	for (int i = 0; i < n && dv_session_in_flight(session) < parallel; i++)
	{
		DvRead	   *read = &reads[i];

		if (read->done || read->in_flight)
			continue;
		if (read->not_before > now)
		{
			wait = Min(wait, TimestampDifferenceMilliseconds(now, read->not_before) + 1);
			continue;
		}
		read->in_flight = true;
		read->attempts++;
		dv_session_send(session, "GET", read->path, NULL, 0, headers, read);
	}
	return wait;
}

/*
 * True where a failed read may be tried again; sets when. Throttled is the
 * user, not the request: it holds every read.
 */
static bool
try_later(DvRead *read, const DvProblem *problem, TimestampTz *hold_until)
{
	long		pause = problem->retry_after_ms;

	if (!problem->transient || (dv_session_patience != NULL && !dv_session_patience(problem)))
		return false;
	if (pause < 0)
		pause = dv_pace_backoff_ms(read->attempts, pg_prng_uint32(&pg_global_prng_state));
	if (dv_session_patience == NULL && (read->attempts >= DV_READ_ATTEMPTS || pause > dv_request_timeout_ms))
		return false;
	read->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pause);
	if (problem->throttled)
		*hold_until = Max(*hold_until, read->not_before);
	return true;
}

static DvReadResult
take_answer(DvSession *session, DvRead *read, const DvHttpReply *reply,
			DvReadAnswer answer, void *arg, DvProblem *problem, TimestampTz *hold_until)
{
	DvReadResult result = DV_READ_FAILED;

	if (reply->transport != DV_HTTP_ANSWERED || reply->no_token ||
		reply->status == 429 || reply->status >= 500)
		dv_session_explain(session, reply, problem);
	else
		result = answer(session, read, reply, arg, problem);
	if (result == DV_READ_FAILED)
		return try_later(read, problem, hold_until) ? DV_READ_AGAIN : DV_READ_FAILED;
	read->attempts = 0;
	if (dv_session_patience != NULL)
		(void) dv_session_patience(NULL);
	return result;
}

bool
dv_reader_run(DvSession *session, DvRead *reads, int n, DvReadAnswer answer,
			  void *arg, DvProblem *problem)
{
	int			left = n;
	int			parallel = 1;	/* until an answer has told what is advised */
	int			advised = READ_PARALLEL;
	TimestampTz hold_until = 0;

	while (left > 0)
	{
		long		wait = send_due(session, reads, n, parallel, hold_until);
		DvRead	   *read;
		DvReadResult result;
		DvHttpReply *reply = dv_session_poll(session, wait, (void **) &read);

		if (reply == NULL)
		{
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
			continue;
		}
		read->in_flight = false;
		if (reply->dop_hint > 0)
			advised = reply->dop_hint;
		parallel = Min(READ_PARALLEL, advised);
		result = take_answer(session, read, reply, answer, arg, problem, &hold_until);
		dv_http_reply_free(reply);
		if (result == DV_READ_FAILED)
		{
			dv_session_abandon(session);
			return false;
		}
		if (result == DV_READ_DONE)
		{
			read->done = true;
			left--;
		}
	}
	return true;
}

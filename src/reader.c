/*
 * reader.c - many GETs, some at a time, until all are answered
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "problem.h"
#include "reader.h"
#include "settings.h"

/* Well below what one application user may have on its way at a time (52). */
#define READ_PARALLEL	8

/* A read that failed this often will not succeed. */
#define READ_ATTEMPTS	5

/* First pause after a transient failure that named none; doubled each time. */
#define READ_PAUSE_MS	500

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
send_due(DvSession *session, DvRead *reads, int n)
{
	/* pages of 5,000 records are the largest the service gives */
	static const char *const headers[] = {"Prefer: odata.maxpagesize=5000", NULL};
	TimestampTz now = GetCurrentTimestamp();
	long		wait = 1000;

	for (int i = 0; i < n && dv_session_in_flight(session) < READ_PARALLEL; i++)
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

/* True where a failed read may be tried again; sets when. */
static bool
try_later(DvRead *read, const DvHttpReply *reply, const DvProblem *problem)
{
	long		pause = reply->retry_after_ms;

	if (!problem->transient || reply->transport == DV_HTTP_NOT_SENT ||
		read->attempts >= READ_ATTEMPTS)
		return false;
	if (pause < 0)
		pause = READ_PAUSE_MS << read->attempts;
	if (pause > dv_request_timeout_ms)
		return false;
	read->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pause);
	return true;
}

static DvReadResult
take_answer(DvSession *session, DvRead *read, const DvHttpReply *reply,
			DvReadAnswer answer, void *arg, DvProblem *problem)
{
	if (reply->transport != DV_HTTP_ANSWERED || reply->no_token ||
		reply->status == 429 || reply->status >= 500)
	{
		dv_session_explain(session, reply, problem);
		return try_later(read, reply, problem) ? DV_READ_AGAIN : DV_READ_FAILED;
	}
	read->attempts = 0;
	return answer(session, read, reply, arg, problem);
}

bool
dv_reader_run(DvSession *session, DvRead *reads, int n, DvReadAnswer answer,
			  void *arg, DvProblem *problem)
{
	int			left = n;

	while (left > 0)
	{
		long		wait = send_due(session, reads, n);
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
		result = take_answer(session, read, reply, answer, arg, problem);
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

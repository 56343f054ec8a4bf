/*
 * problem.c - what is wrong with a connection, in words for people
 *
 * One place decides how a failure reads, so that whoami, check and a run that
 * stopped say the same of the same thing.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "problem.h"
#include "wire.h"

/*
 * Copy a text that may come from the service: bytes that this database cannot
 * hold become question marks, and a character is never cut in half.
 */
static void
copy_text(char *to, size_t size, const char *from)
{
	size_t		len;
	bool		utf8;

	to[0] = '\0';
	if (from == NULL)
		return;
	len = strlen(from);
	utf8 = GetDatabaseEncoding() == PG_UTF8 &&
		pg_verify_mbstr(PG_UTF8, from, (int) len, true);
	if (len >= size)
		len = utf8 ? (size_t) pg_encoding_mbcliplen(PG_UTF8, from, (int) len, (int) size - 1) : size - 1;
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) from[i];

		to[i] = (c < 0x20 || c == 0x7f) ? ' ' : (c >= 0x80 && !utf8) ? '?' : (char) c;
	}
	to[len] = '\0';
}

void
dv_problem_set(DvProblem *problem, bool transient, int sqlerrcode,
			   const char *message, const char *detail, const char *hint)
{
	problem->transient = transient;
	problem->throttled = false;
	problem->retry_after_ms = -1;
	problem->sqlerrcode = sqlerrcode;
	copy_text(problem->message, sizeof(problem->message), message);
	copy_text(problem->detail, sizeof(problem->detail), detail);
	copy_text(problem->hint, sizeof(problem->hint), hint);
}

void
dv_problem_transport(DvProblem *problem, const DvHttpReply *reply, const char *address)
{
	char		message[512];

	if (reply->tls_error)
	{
		snprintf(message, sizeof(message), "the certificate of %s was not accepted", address);
		dv_problem_set(problem, false, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
					   message, reply->error,
					   "Check url and authority; a private certification authority is named by the server's option ca_file.");
	}
	else if (reply->transport == DV_HTTP_NOT_SENT)
	{
		snprintf(message, sizeof(message), "could not connect to %s", address);
		dv_problem_set(problem, true, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
					   message, reply->error,
					   "Check url and authority of the server, name resolution and the firewall.");
	}
	else
	{
		snprintf(message, sizeof(message), "no complete answer from %s", address);
		dv_problem_set(problem, true, ERRCODE_CONNECTION_FAILURE, message, reply->error,
					   strstr(reply->error, "timed out") ?
					   "dvmig.request_timeout limits how long one request may take." : NULL);
	}
}

/* Code and text of the error object, as "0x80040220: ... (request id)". */
static void
answer_detail(char *to, size_t size, const DvVerdict *error)
{
	snprintf(to, size, "%s%s%.300s%s%s%s",
			 error->code, error->code[0] && error->message[0] ? ": " : "",
			 error->message,
			 error->request_id[0] ? " (request id " : "",
			 error->request_id, error->request_id[0] ? ")" : "");
}

/* What says nothing of the request: a gateway gave up, or there was no room now. */
static bool
is_unavailable(long status)
{
	return status >= 500 || status == 408 || status == 425;
}

static bool
has_code(const DvVerdict *error, const char *code)
{
	return pg_strcasecmp(error->code, code) == 0;
}

/* 401 and 403: who we are, or what we may do. The codes are the service's. */
static void
explain_forbidden(DvProblem *problem, const DvHttpReply *reply, const DvVerdict *error,
				  const char *detail)
{
	if (reply->status == 401)
		dv_problem_set(problem, false, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
					   "Dataverse refused the access token", detail,
					   "Check that url and tenant of the server belong together.");
	else if (has_code(error, "0x80072560"))
		dv_problem_set(problem, false, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
					   "the environment has no application user for this client id", detail,
					   "Create one in the Power Platform admin center (Settings, Users, Application users) and give it a security role.");
	else if (has_code(error, "0x80040225"))
		dv_problem_set(problem, false, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
					   "the application user is disabled", detail,
					   "Enable it in the Power Platform admin center.");
	else
		dv_problem_set(problem, false, ERRCODE_INSUFFICIENT_PRIVILEGE,
					   "the application user lacks a privilege in Dataverse", detail,
					   "Give it a security role with the privilege that the detail names.");
}

void
dv_problem_answer(DvProblem *problem, const DvHttpReply *reply, const char *address)
{
	DvWireReply wire = {0};
	DvVerdict	error;
	char		detail[512];
	char		message[512];

	memset(&error, 0, sizeof(error));
	wire.status = (int) reply->status;
	wire.content_type = reply->content_type[0] ? reply->content_type : NULL;
	wire.request_id = reply->request_id[0] ? reply->request_id : NULL;
	wire.retry_after_ms = reply->retry_after_ms;
	wire.body = reply->body.data;
	wire.len = reply->body.len;
	dv_wire_error(&wire, 'U', false, &error);
	answer_detail(detail, sizeof(detail), &error);

	if (reply->status == 401 || reply->status == 403)
		explain_forbidden(problem, reply, &error, detail);
	else if (reply->status == 429)
		dv_problem_set(problem, true, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
					   "Dataverse's service protection limits hold this application user", detail,
					   "Wait some minutes, or stop what else uses the same application user.");
	else if (is_unavailable(reply->status))
	{
		snprintf(message, sizeof(message), "%s is not available now (HTTP status %ld)",
				 address, reply->status);
		dv_problem_set(problem, true, ERRCODE_CONNECTION_FAILURE, message, detail, NULL);
	}
	else if (reply->status >= 400)
	{
		snprintf(message, sizeof(message), "Dataverse refused a request (HTTP status %ld)",
				 reply->status);
		dv_problem_set(problem, false, ERRCODE_FDW_ERROR, message, detail, NULL);
	}
	else
	{
		/* The page of somebody who does maintenance, or a gateway's; not for good, if it was otherwise once. */
		snprintf(message, sizeof(message), "%s does not answer like the Dataverse Web API", address);
		snprintf(detail, sizeof(detail), "HTTP status %ld, content type \"%s\".",
				 reply->status, reply->content_type);
		dv_problem_set(problem, true, ERRCODE_FDW_ERROR, message, detail,
					   "Check url and api_version of the server.");
	}
}

void
dv_problem_organisation(DvProblem *problem, const char *server, const char *pinned, const char *found)
{
	char		detail[512];

	snprintf(detail, sizeof(detail), "Server \"%s\" was first used with organisation %s, and is now %s.", server, pinned, found);
	dv_problem_set(problem, false, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
				   "another Dataverse organisation answers than the pinned one", detail,
				   "If that is intended, the owner of the server calls dvmig.repin().");
}

char *
dv_problem_text(const DvProblem *problem)
{
	return psprintf("%s%s%s", problem->message, problem->detail[0] ? ": " : "", problem->detail);
}

void
dv_problem_throw(const DvProblem *problem)
{
	/*
	 * Which internal function waited for the network helps nobody. Whoever
	 * catches the error puts the stack back.
	 */
	error_context_stack = NULL;
	ereport(ERROR,
			(errcode(problem->sqlerrcode),
			 errmsg("%s", problem->message),
			 problem->detail[0] ? errdetail("%s", problem->detail) : 0,
			 problem->hint[0] ? errhint("%s", problem->hint) : 0));
}

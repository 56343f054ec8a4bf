/*
 * connection.c - sessions for short calls; dvmig.whoami()
 *
 * Short calls wait for the network within their caller's transaction, bounded
 * by dvmig.request_timeout, and write only after the answer.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "connection.h"
#include "problem.h"
#include "proof.h"
#include "reader.h"
#include "reply_json.h"
#include "spi.h"

PG_FUNCTION_INFO_V1(dv_whoami);
PG_FUNCTION_INFO_V1(dv_present_organisation);

/* Columns of dvmig._whoami(). */
#define WHOAMI_COLUMNS	13

static Datum
uuid_datum(const char *text)
{
	return DirectFunctionCall1(uuid_in, CStringGetDatum(text));
}

static void
pin(const char *server, const char *organisation_id, Oid caller)
{
	Oid			types[3] = {TEXTOID, UUIDOID, OIDOID};
	Datum		values[3] = {
		CStringGetTextDatum(server), uuid_datum(organisation_id), ObjectIdGetDatum(caller)
	};

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	dv_spi_run("SELECT dvmig._pin($1, $2, $3)", 3, types, values, NULL, SPI_OK_SELECT);
	SPI_finish();
}

/* Longest organization.name. */
#define MAX_ORGANISATION_NAME	160

/* Takes the one record of the answer: its name, where it is plain text. */
static bool
take_name(void *arg, const char *id, const char *const *values)
{
	const char *c;

	(void) id;
	for (c = values[0]; c != NULL && *c > ' ' && *c < 0x7f; c++)
		;
	if (c != NULL && *c == '\0')
		strlcpy(arg, values[0], MAX_ORGANISATION_NAME + 1);
	return true;
}

/*
 * The organisation's unique name, by which people know it; once, at first use.
 * Nothing hangs on it: a service that does not tell is taken by its id.
 */
static void
learn_name(DvSession *session, const char *server)
{
	static const char *const columns[] = {"name"};
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2] = {CStringGetTextDatum(server), (Datum) 0};
	char		name[MAX_ORGANISATION_NAME + 1] = "";
	char	   *next = NULL;
	DvHttpReply *reply;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (dv_spi_run("SELECT FROM dvmig.organisation WHERE server = $1 AND unique_name IS NULL",
				   1, types, values, NULL, SPI_OK_SELECT) == 1)
	{
		reply = dv_session_call(session, "GET", "/organizations?$select=name&$top=1", NULL, 0, NULL);
		if (reply->transport == DV_HTTP_ANSWERED && reply->status == 200)
			(void) dv_json_page(reply->body.data, reply->body.len, "organizationid", columns, 1, take_name, name, &next);
		free(next);
		dv_http_reply_free(reply);
		values[1] = CStringGetTextDatum(name);
		if (name[0] != '\0')
			dv_spi_run("UPDATE dvmig.organisation SET unique_name = $2 WHERE server = $1", 2, types, values, NULL, SPI_OK_UPDATE);
	}
	SPI_finish();
}

DvSession *
dv_connection_open(const char *server, Oid caller, DvWhoAmI *who)
{
	DvSession  *session = dv_session_open(server, caller, 1);
	DvProblem	problem;
	int			attempts = 1;

	/* The session waits as it was told before it sends again, or throws where that takes too long. */
	while (!dv_session_whoami(session, who, &problem))
		if (!problem.throttled || problem.retry_after_ms < 0 || attempts++ >= DV_READ_ATTEMPTS)
			dv_problem_throw(&problem);
	if (!dv_session_is_pinned(session))
	{
		pin(server, who->organisation_id, caller);
		learn_name(session, server);
	}
	return session;
}

/* When and by whom the server was pinned, and the organisation's name; values[0..2] and nulls[0..2]. */
static void
read_pin(const char *server, Datum *values, bool *nulls)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			types[1] = {TEXTOID};
	Datum		arguments[1] = {CStringGetTextDatum(server)};

	nulls[0] = nulls[1] = nulls[2] = true;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (dv_spi_run("SELECT pinned_at, pinned_by, unique_name FROM dvmig.organisation WHERE server = $1",
				   1, types, arguments, NULL, SPI_OK_SELECT) == 1)
	{
		values[0] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &nulls[0]);
		values[1] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &nulls[1]);
		values[2] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, &nulls[2]);
		if (!nulls[1])
		{
			MemoryContext old = MemoryContextSwitchTo(caller);

			values[1] = datumCopy(values[1], false, NAMEDATALEN);
			if (!nulls[2])
				values[2] = datumCopy(values[2], false, -1);
			MemoryContextSwitchTo(old);
		}
	}
	SPI_finish();
}

/* A time in ms with one digit after the point. */
static Datum
milliseconds(double seconds)
{
	return DirectFunctionCall3(numeric_in, CStringGetDatum(psprintf("%.1f", seconds * 1000.0)),
							   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

/*
 * Each request waits a round trip, and a load has many. Within a region it takes
 * some tens of milliseconds, WhoAmI's own time included; between continents hundreds.
 */
#define FAR_SECONDS	0.2

static void
warn_where_far(double seconds)
{
	if (seconds > FAR_SECONDS)
		ereport(WARNING,
				(errmsg("a round trip to Dataverse takes %d ms", (int) (seconds * 1000)),
				 errdetail("Within a region it takes some tens of milliseconds."),
				 errhint("A database server in the environment's region loads faster where files, notes or single rows are sent, and in short runs.")));
}

/* Of what ends runs at night, one thing is known beforehand: a month is time to make another one. */
#define SOON_DAYS	30

static void
warn_where_it_expires(const DvServer *server, Oid caller)
{
	/* with others' servers no certificate is used, and to ask for one is an error */
	int			users = server->superuser_owned ? dv_options_users(server, caller) : 0;

	for (int number = 1; number <= users; number++)
	{
		DvCredentials *credentials = dv_options_credentials(server, caller, number);
		char	   *until;
		int			days = dv_proof_days_left(credentials, &until);

		if (days >= 0 && days < SOON_DAYS)
			ereport(WARNING,
					(errmsg_plural("the client certificate of application user %d expires in %d day",
								   "the client certificate of application user %d expires in %d days",
								   (unsigned long) days, number, days),
					 errdetail("The one in \"%s\" is valid until %s.", credentials->client_certificate_file, until),
					 errhint(DV_PROOF_RENEW)));
		dv_options_wipe(credentials);
	}
}

/*
 * dv_whoami(caller oid, server text) returns one row: who the caller is in
 * which organisation, and how the connection is; pins the server at first use.
 */
Datum
dv_whoami(PG_FUNCTION_ARGS)
{
	Oid			caller = PG_GETARG_OID(0);
	DvWhoAmI	who;
	DvWhoAmI	again;
	DvProblem	problem;
	DvSession  *session = dv_connection_open(text_to_cstring(PG_GETARG_TEXT_PP(1)), caller, &who);
	const DvServer *server = dv_session_server(session);
	Datum		values[WHOAMI_COLUMNS];
	bool		nulls[WHOAMI_COLUMNS] = {false};
	TupleDesc	desc;
	HeapTuple	row;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != WHOAMI_COLUMNS)
		elog(ERROR, "dv_whoami must return a row of %d columns", WHOAMI_COLUMNS);

	/* The first call made the connection; the second one shows the latency of work. */
	if (!dv_session_whoami(session, &again, &problem))
		dv_problem_throw(&problem);
	learn_name(session, server->name);
	warn_where_far(Min(who.seconds, again.seconds));
	warn_where_it_expires(server, caller);

	values[0] = DirectFunctionCall1(namein, CStringGetDatum(server->name));
	values[1] = CStringGetTextDatum(server->environment);
	values[2] = CStringGetTextDatum(server->url);
	values[3] = TimestampTzGetDatum(dv_session_token_expires(session));
	values[4] = uuid_datum(who.organisation_id);
	values[5] = uuid_datum(who.user_id);
	values[6] = uuid_datum(who.business_unit_id);
	values[7] = Int32GetDatum(dv_options_users(server, caller));
	values[8] = milliseconds(Min(who.seconds, again.seconds));
	values[9] = Int32GetDatum(again.dop_hint);
	nulls[9] = again.dop_hint == 0;
	read_pin(server->name, &values[10], &nulls[10]);
	row = heap_form_tuple(BlessTupleDesc(desc), values, nulls);
	dv_session_close(session);
	PG_RETURN_DATUM(HeapTupleGetDatum(row));
}

/*
 * dv_present_organisation(caller oid, server text) returns the id of the
 * organisation that answers now, whatever the server is pinned to.
 */
Datum
dv_present_organisation(PG_FUNCTION_ARGS)
{
	DvWhoAmI	who;
	DvProblem	problem;
	DvSession  *session = dv_session_open(text_to_cstring(PG_GETARG_TEXT_PP(1)), PG_GETARG_OID(0), 1);

	dv_session_ignore_pin(session);
	if (!dv_session_whoami(session, &who, &problem))
		dv_problem_throw(&problem);
	dv_session_close(session);
	PG_RETURN_DATUM(uuid_datum(who.organisation_id));
}

/*
 * service.c - one request of the Web API from SQL, for what is asked for seldom
 *
 * Like other short calls it waits in its caller's transaction, bounded by
 * dvmig.request_timeout. What the answer means is for the caller to say.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "call.h"
#include "connection.h"
#include "servertext.h"

PG_FUNCTION_INFO_V1(dv_service_call);

/* Longest answer that is handed to SQL. */
#define MAX_ANSWER	(4 * 1024 * 1024)

/*
 * dv_service_call(userid oid, server text, method text, path text, body text)
 * returns the HTTP status and the body; status 0 and no body where there was
 * no answer, or one that is too long or no UTF-8. Throws what a connection
 * throws: address, login, another organisation.
 */
Datum
dv_service_call(PG_FUNCTION_ARGS)
{
	char	   *body = PG_ARGISNULL(4) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(4));
	DvWhoAmI	who;
	DvSession  *session;
	DvHttpReply *reply;
	TupleDesc	desc;
	Datum		values[2] = {Int32GetDatum(0), (Datum) 0};
	bool		nulls[2] = {false, true};

	dv_call_require(fcinfo, 4);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != 2)
		elog(ERROR, "dv_service_call must return a row of 2 columns");
	session = dv_connection_open(text_to_cstring(PG_GETARG_TEXT_PP(1)), PG_GETARG_OID(0), &who);
	if (body != NULL)
		body = pg_server_to_any(body, (int) strlen(body), PG_UTF8);
	reply = dv_session_call(session, text_to_cstring(PG_GETARG_TEXT_PP(2)), text_to_cstring(PG_GETARG_TEXT_PP(3)),
							body, body ? strlen(body) : 0, NULL);
	if (reply->transport == DV_HTTP_ANSWERED)
	{
		values[0] = Int32GetDatum(reply->status);
		nulls[1] = reply->body.len == 0 || reply->body.len > MAX_ANSWER ||
			!pg_verify_mbstr(PG_UTF8, reply->body.data, (int) reply->body.len, true);
		if (!nulls[1])
			values[1] = CStringGetTextDatum(dv_server_text(reply->body.data, reply->body.len, "?"));
	}
	dv_http_reply_free(reply);
	dv_session_close(session);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

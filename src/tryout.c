/*
 * tryout.c - one record created in the caller's transaction, to see whether it can be
 *
 * Whether an environment lets users be created through the Web API is not
 * documented: it is tried. The record has the id that its row has anyhow, so that
 * whatever becomes of the transaction, a run finds it there and makes no second.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "connection.h"

PG_FUNCTION_INFO_V1(dv_try_create);

/* Bytes of an answer that are kept: error texts are shorter. */
#define MAX_ANSWER	8192

/* The answer as text of this database; NULL where it is none. */
static Datum
answer_datum(const DvHttpReply *reply, bool *isnull)
{
	int			len = (int) Min(reply->body.len, MAX_ANSWER);
	char	   *text;

	*isnull = len == 0 || !pg_verify_mbstr(PG_UTF8, reply->body.data, len, true);
	if (*isnull)
		return (Datum) 0;
	text = pg_any_to_server(pnstrdup(reply->body.data, len), len, PG_UTF8);
	return CStringGetTextDatum(text);
}

/*
 * dv_try_create(caller oid, server text, entity_set text, body text) returns
 * http_status int (null: no answer), answer text: POST of one record.
 */
Datum
dv_try_create(PG_FUNCTION_ARGS)
{
	char	   *server = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *path = psprintf("/%s", text_to_cstring(PG_GETARG_TEXT_PP(2)));
	char	   *body = text_to_cstring(PG_GETARG_TEXT_PP(3));
	char	   *utf8 = pg_server_to_any(body, (int) strlen(body), PG_UTF8);
	DvWhoAmI	who;
	DvSession  *session = dv_connection_open(server, PG_GETARG_OID(0), &who);
	DvHttpReply *reply = dv_session_call(session, "POST", path, utf8, strlen(utf8), NULL);
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {reply->transport != DV_HTTP_ANSWERED, true};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int32GetDatum((int) reply->status);
	values[1] = nulls[0] ? (Datum) 0 : answer_datum(reply, &nulls[1]);
	dv_http_reply_free(reply);
	dv_session_close(session);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

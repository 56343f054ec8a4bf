/*
 * servertext.c - texts of the service in this database's encoding
 *
 * What goes over the wire is UTF-8. The server's own functions look the
 * conversion up in the catalogs at each call, which a worker cannot do between
 * its transactions, where it reads answers. So it is looked up once, and called
 * as the server calls the one of its client.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "servertext.h"

/* fn_oid is InvalidOid while it is not known, or where there is none. */
static FmgrInfo from_utf8;
static FmgrInfo to_utf8;

static void
look_up(FmgrInfo *conversion, int from, int to)
{
	Oid			function = FindDefaultConversionProc(from, to);

	if (OidIsValid(function))
		fmgr_info_cxt(function, conversion, TopMemoryContext);
}

void
dv_server_text_prepare(void)
{
	static bool done = false;
	bool		own = !IsTransactionState();
	MemoryContext context = CurrentMemoryContext;

	if (done || GetDatabaseEncoding() == PG_UTF8)
		return;
	if (own)
		StartTransactionCommand();
	look_up(&from_utf8, PG_UTF8, GetDatabaseEncoding());
	look_up(&to_utf8, GetDatabaseEncoding(), PG_UTF8);
	if (own)
		CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	done = true;
}

/* Is all of it converted into "out", which has room for it? */
static bool
convert(FmgrInfo *conversion, int from, int to, const char *text, int len, char *out)
{
	return OidIsValid(conversion->fn_oid) &&
		DatumGetInt32(FunctionCall6(conversion, Int32GetDatum(from), Int32GetDatum(to), CStringGetDatum(text),
									CStringGetDatum(out), Int32GetDatum(len), BoolGetDatum(true))) == len;
}

/* Character by character, with "lacking" for those that cannot be converted. */
static char *
convert_each(FmgrInfo *conversion, int from, int to, const char *text, int len, const char *lacking)
{
	char		one[MAX_CONVERSION_GROWTH * MAX_MULTIBYTE_CHAR_LEN + 1];
	StringInfoData out;
	int			n;

	initStringInfo(&out);
	for (; len > 0; text += n, len -= n)
	{
		n = Min(pg_encoding_mblen(from, text), len);
		if (n == 1 && !IS_HIGHBIT_SET(*text))
			appendStringInfoChar(&out, *text);
		else if (convert(conversion, from, to, text, n, one))
			appendStringInfoString(&out, one);
		else if (lacking != NULL)
			appendStringInfoString(&out, lacking);
		else
			return NULL;
	}
	return out.data;
}

static char *
converted(FmgrInfo *conversion, int from, int to, const char *text, size_t len, const char *lacking)
{
	char	   *out = palloc_extended(len * MAX_CONVERSION_GROWTH + 1, MCXT_ALLOC_HUGE);

	dv_server_text_prepare();
	if (convert(conversion, from, to, text, (int) len, out))
		return out;
	pfree(out);
	return convert_each(conversion, from, to, text, (int) len, lacking);
}

char *
dv_server_text(const char *text, size_t len, const char *lacking)
{
	if (!pg_verify_mbstr(PG_UTF8, text, (int) len, true))
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("Dataverse answered with invalid UTF-8")));
	if (GetDatabaseEncoding() == PG_UTF8)
		return pnstrdup(text, len);
	return converted(&from_utf8, PG_UTF8, GetDatabaseEncoding(), text, len, lacking);
}

char *
dv_server_text_utf8(const char *text)
{
	if (GetDatabaseEncoding() == PG_UTF8)
		return pstrdup(text);
	return converted(&to_utf8, GetDatabaseEncoding(), PG_UTF8, text, strlen(text), "?");
}

void
dv_server_text_cut(char *to, size_t size, const char *text)
{
	int			len = pg_mbcliplen(text, (int) strlen(text), (int) size - 1);

	memcpy(to, text, len);
	to[len] = '\0';
}

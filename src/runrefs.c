/*
 * runrefs.c - what a run looks up in Dataverse before it sends rows
 *
 * Keys are collected with the rights of the migration's owner, read a few
 * hundred at a time without a transaction, and stored. Keys that are no columns
 * of Dataverse (their name has a blank) are worked out from what was read.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"

#include "call.h"
#include "metadata.h"
#include "runstate.h"
#include "spi.h"
#include "worker.h"

/* One try to collect keys; NULL, or the error it met. */
static ErrorData *
try_keys(DvRunContext *rc, const char *sql, Datum *collected)
{
	volatile Datum keys = (Datum) 0;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		bool		isnull;
		Datum		value;

		dv_spi_begin("dvmig: collecting reference keys");
		dv_spi_wait_briefly();
		dv_spi_run(sql, 0, NULL, NULL, NULL, SPI_OK_SELECT);
		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		if (!isnull)
		{
			MemoryContext old = MemoryContextSwitchTo(rc->context);

			keys = datumCopy(value, false, -1);
			MemoryContextSwitchTo(old);
		}
		dv_spi_commit(true);
	}
	PG_CATCH();
	{
		error = dv_spi_abort(rc->context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(rc->context);
	*collected = keys;
	return error;
}

/*
 * Distinct keys one lookup needs, with the owner's rights; 0 where there are none,
 * or an expression throws. A user who locks the table is waited for outside of a
 * transaction, where a stop is seen.
 */
static Datum
reference_keys(DvRunContext *rc, const char *sql, bool *known)
{
	Datum		keys;
	ErrorData  *error;

	while ((error = try_keys(rc, sql, &keys)) != NULL && error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE && !dv_spi_is_raised(error))
	{
		FreeErrorData(error);
		dv_worker_wait(DV_LOCK_PAUSE_MS);
		dv_session_idle();
	}
	/* Rows with a bad expression get their own error; here all records are read. */
	*known = error == NULL;
	if (error != NULL)
		FreeErrorData(error);
	return keys;
}

/* Keys that are no columns, worked out from what was read; keys 0 = all there are. */
static void
derive_reference(const char *server, const char *table, const char *match_on, Datum keys)
{
	Oid			types[4] = {TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID};
	Datum		values[4] = {CStringGetTextDatum(server), CStringGetTextDatum(table), CStringGetTextDatum(match_on), keys};
	char		nulls[5] = {' ', ' ', ' ', keys ? ' ' : 'n', '\0'};
	DvSwitch	before = dv_runstate_begin("dvmig: working out references");

	dv_spi_run("SELECT dvmig._derive_reference($1::name, $2, $3, $4)", 4, types, values, nulls, SPI_OK_SELECT);
	dv_runstate_commit(before, false);
}

void
dv_runstate_read_references(DvRunContext *rc, const DvRunPlan *plan)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(rc->run)};
	DvSwitch	before = dv_runstate_begin("dvmig: listing references");
	int			n = (int) dv_spi_run("SELECT referenced_table, match_on, keys_sql FROM dvmig._run_references($1)",
									 1, types, values, NULL, SPI_OK_SELECT);
	/* not in the transaction's memory, which goes with the commit below */
	char	  **table = MemoryContextAlloc(rc->context, sizeof(char *) * (n + 1));
	char	  **sql = MemoryContextAlloc(rc->context, sizeof(char *) * (n + 1));
	char	  **match_on = MemoryContextAlloc(rc->context, sizeof(char *) * (n + 1));
	int			i;

	for (i = 0; i < n; i++)
	{
		table[i] = dv_spi_keep(rc->context, i, 1);
		match_on[i] = dv_spi_keep(rc->context, i, 2);
		sql[i] = dv_spi_keep(rc->context, i, 3);
	}
	dv_runstate_commit(before, true);
	for (i = 0; i < n; i++)
	{
		bool		known = false;
		Datum		keys = sql[i] ? reference_keys(rc, sql[i], &known) : (Datum) 0;

		if (known && keys == (Datum) 0)
			continue;			/* nothing to look up */
		if (strchr(match_on[i], ' ') != NULL)
		{
			derive_reference(plan->server, table[i], match_on[i], known ? keys : (Datum) 0);
			continue;
		}
		dv_metadata_read_reference(rc->session, plan->server, table[i], match_on[i], known ? keys : (Datum) 0);
	}
}

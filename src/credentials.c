/*
 * credentials.c - who a session signs in as, and where: what the catalogs say
 *
 * A secret may be rotated while a run is at work: each login after the first
 * reads the user mapping again, in a short transaction that has ended before the
 * login is sent. The address stays the one that the session was opened for.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "credentials.h"
#include "problem.h"
#include "spi.h"

/*
 * The organisation that the server is pinned to. Read by the table's own
 * means: whoever runs a migration need not have rights on dvmig's tables.
 */
static void
read_pin(DvLogin *login)
{
	Oid			schema = get_namespace_oid("dvmig", true);
	Oid			relid = OidIsValid(schema) ? get_relname_relid("organisation", schema) : InvalidOid;
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	NameData	name;
	HeapTuple	tuple;
	Snapshot	snapshot;

	if (!OidIsValid(relid))
		return;
	namestrcpy(&name, login->server->name);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_NAMEEQ, NameGetDatum(&name));
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	rel = table_open(relid, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		id = heap_getattr(tuple, 2, RelationGetDescr(rel), &isnull);

		if (!isnull)
			strlcpy(login->pinned, DatumGetCString(DirectFunctionCall1(uuid_out, id)), sizeof(login->pinned));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	UnregisterSnapshot(snapshot);
}

void
dv_credentials_load(DvLogin *login, const char *server_name, Oid userid, int number)
{
	MemoryContext context = CurrentMemoryContext;
	bool		in_transaction = IsTransactionState();

	/* A worker holds no transaction here, because the network comes next. */
	if (!in_transaction)
		dv_spi_begin("dvmig: opening a session");
	MemoryContextSwitchTo(context);
	login->userid = userid;
	login->number = number;
	login->server = dv_options_server(server_name);
	dv_options_check_usage(login->server, userid);
	dv_options_check_host(login->server);
	login->credentials = dv_options_credentials(login->server, userid, number);
	login->fresh = true;
	read_pin(login);
	if (!in_transaction)
		dv_spi_commit(true);
	MemoryContextSwitchTo(context);
}

/*
 * A secret that was put into the mapping since then is meant for where the server
 * leads now: it is not sent to where it led before, whose owner may have been another.
 */
static void
check_address(const DvServer *began, const DvServer *now)
{
	if (strcmp(began->url, now->url) != 0 || strcmp(began->authority, now->authority) != 0 || strcmp(began->tenant, now->tenant) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("server \"%s\" was given another address while it was in use", now->name),
				 errdetail("No secret is sent to the address that it had before."),
				 errhint("Start anew: that goes to the new address.")));
	dv_options_check_host(now);
}

/*
 * A session stays the application user that it began as: what that one wrote is
 * known by its id. Another client_id in the mapping is for the next run.
 */
static void
read_again(DvLogin *login, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	DvServer   *server = dv_options_server(login->server->name);
	DvCredentials *now;

	dv_options_check_usage(server, login->userid);
	check_address(login->server, server);
	now = dv_options_credentials(server, login->userid, login->number);
	if (strcmp(now->client_id, login->credentials->client_id) == 0)
	{
		dv_options_wipe(login->credentials);
		login->credentials = now;
	}
	else
		dv_options_wipe(now);
	MemoryContextSwitchTo(old);
}

bool
dv_credentials_renew(DvLogin *login, DvProblem *problem)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	if (login->fresh)
	{
		login->fresh = false;
		return true;
	}
	if (IsTransactionState())
	{
		read_again(login, context);
		return true;
	}
	PG_TRY();
	{
		dv_spi_begin("dvmig: reading the user mapping");
		read_again(login, context);
		dv_spi_commit(true);
	}
	PG_CATCH();
	{
		error = dv_spi_abort(context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	if (error == NULL)
		return true;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	dv_problem_set(problem, false, error->sqlerrcode, error->message, error->detail, error->hint);
	FreeErrorData(error);
	return false;
}

void
dv_credentials_forget(DvLogin *login)
{
	dv_options_wipe(login->credentials);
}

/*
 * giveway.c - waits that nobody who wants the extension for himself waits for
 *
 * A statement that waits for the network or for a worker (dvmig.verify(),
 * dvmig.wait(), refresh_metadata()) keeps the locks on dvmig's tables that its
 * query took, until it ends. Whoever drops the extension would wait as long, and
 * behind him everybody else. So those who wait look whether somebody does, as
 * autovacuum does, and give up.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "giveway.h"

PG_FUNCTION_INFO_V1(dv_give_way);

/* How often one looks: whoever drops something bears a second. */
#define LOOK_MS		1000

static bool
is_of_relation(const LOCKTAG *tag)
{
	return tag->locktag_type == LOCKTAG_RELATION && tag->locktag_field1 == MyDatabaseId;
}

/* Have we locked what this one waits for? */
static bool
is_ours(const LockData *data, const LockInstanceData *waiter)
{
	for (int i = 0; i < data->nelements; i++)
	{
		const LockInstanceData *held = &data->locks[i];

		if (held->pid == MyProcPid && held->holdMask != 0 &&
			memcmp(&held->locktag, &waiter->locktag, sizeof(LOCKTAG)) == 0)
			return true;
	}
	return false;
}

bool
dv_giveway_wanted(void)
{
	static TimestampTz next_look = 0;
	TimestampTz now = GetCurrentTimestamp();
	LockData   *data;
	Oid			schema;
	bool		wanted = false;

	if (now < next_look || !IsTransactionState())
		return false;
	next_look = TimestampTzPlusMilliseconds(now, LOOK_MS);
	schema = get_namespace_oid("dvmig", true);
	data = GetLockStatusData();
	for (int i = 0; i < data->nelements && !wanted; i++)
	{
		const LockInstanceData *waiter = &data->locks[i];

		wanted = waiter->waitLockMode == AccessExclusiveLock && is_of_relation(&waiter->locktag) &&
			is_ours(data, waiter) && get_rel_namespace(waiter->locktag.locktag_field2) == schema;
	}
	pfree(data->locks);
	pfree(data);
	return wanted;
}

void
dv_giveway_throw(const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("canceling a wait of dvmig because another session wants the extension for itself"),
			 errdetail("DROP EXTENSION, for example, waits for all statements that use the extension."),
			 hint ? errhint("%s", hint) : 0));
}

void
dv_giveway(void)
{
	if (dv_giveway_wanted())
		dv_giveway_throw(NULL);
}

/* dv_give_way() is for waits that are written in SQL. */
Datum
dv_give_way(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	dv_giveway();
	PG_RETURN_VOID();
}

/*
 * refusals.c - how often a run was refused for who it is, in all of its lanes
 *
 * A lane logs in before it has joined the others, and may end because of it: so
 * that none is lost, each refusal is counted when it happens, and not told by a
 * lane when it comes to that.
 */
#include "postgres.h"

#include "refusals.h"

static uint64 own;
static pg_atomic_uint64 *shared;

void
dv_refusals_add(void)
{
	if (shared != NULL)
		pg_atomic_fetch_add_u64(shared, 1);
	else
		own++;
}

void
dv_refusals_share(pg_atomic_uint64 *counter)
{
	shared = counter;
	pg_atomic_fetch_add_u64(shared, (int64) own);
	own = 0;
}

int64
dv_refusals(void)
{
	return (int64) (shared != NULL ? pg_atomic_read_u64(shared) : own);
}

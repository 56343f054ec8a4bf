/*
 * walk.c - where a walk along the source key is
 */
#include "postgres.h"

#include "utils/datum.h"
#include "utils/memutils.h"

#include "walk.h"

void
dv_walk_rewind(DvWalk *walk)
{
	walk->last = walk->next = NULL;
}

void
dv_walk_init(DvWalk *walk, MemoryContext context)
{
	dv_walk_rewind(walk);
	walk->of_last = AllocSetContextCreate(context, "dvmig last key", ALLOCSET_SMALL_SIZES);
	walk->of_next = AllocSetContextCreate(context, "dvmig next key", ALLOCSET_SMALL_SIZES);
}

Datum *
dv_walk_copy(const DvProjection *p, const Datum *keys, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	Datum	   *copy = palloc(sizeof(Datum) * p->nkeys);
	int			i;

	for (i = 0; i < p->nkeys; i++)
		copy[i] = datumCopy(keys[i], p->keys[i].byval, p->keys[i].len);
	MemoryContextSwitchTo(old);
	return copy;
}

void
dv_walk_go(DvWalk *walk, const DvProjection *p, const Datum *keys)
{
	MemoryContextReset(walk->of_last);
	walk->last = dv_walk_copy(p, keys, walk->of_last);
}

void
dv_walk_read(DvWalk *walk, const DvProjection *p, const Datum *keys)
{
	MemoryContextReset(walk->of_next);
	walk->next = dv_walk_copy(p, keys, walk->of_next);
}

void
dv_walk_pass(DvWalk *walk)
{
	MemoryContext context = walk->of_last;

	walk->of_last = walk->of_next;
	walk->of_next = context;
	walk->last = walk->next;
}

/*
 * flagged.h - a row version with another flag and id
 */
#ifndef DV_FLAGGED_H
#define DV_FLAGGED_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "utils/uuid.h"

/*
 * A copy of "old" in the current memory context with flag "flag" in column
 * "flag_at", and "id" in column "id_at" unless it is NULL. The columns are of
 * types in which a flag is one character behind its length, and uuid.
 */
extern HeapTuple dv_flagged(HeapTuple old, TupleDesc desc, AttrNumber flag_at, char flag,
							AttrNumber id_at, const pg_uuid_t *id);

#endif							/* DV_FLAGGED_H */

/*
 * sets.h - what the lanes of a run know of ids and row versions, together
 *
 * Two tables in shared memory. Busy ids are touched for every row: a table of
 * fixed size, in parts with a spinlock each. Facts (records found to exist,
 * answers counted, flags refused) and answered versions are few or none in most
 * runs, and may be many: they grow as they must.
 */
#ifndef DV_SETS_H
#define DV_SETS_H

#include "postgres.h"

#include "utils/dsa.h"

#include "engine.h"

/* A version whose verdict is recorded but whose flag is not. */
typedef struct DvAnswered
{
	DvVersion	version;		/* hash key */
	char		flag;
	bool		has_id;
	bool		locked;			/* by a user: try again; else refused for good */
	pg_uuid_t	id;
	pg_uuid_t	handle;			/* of its row */
} DvAnswered;

/* Bytes of shared memory for busy ids of so many lanes. */
extern Size dv_sets_size(int lanes);

/* Where others find what the first lane made. */
typedef struct DvSetsHandle
{
	dsa_pointer facts;
	dsa_pointer answered;
} DvSetsHandle;

/*
 * "place" is that memory, of the size for "lanes"; handle is filled in by
 * create. "lane" is ours. Lives in the current memory context.
 */
extern DvSets *dv_sets_create(void *place, int lanes, dsa_area *area, int tranche, DvSetsHandle *handle);
extern DvSets *dv_sets_attach(void *place, dsa_area *area, const DvSetsHandle *handle, int lane);

/* Ids with a request or a task. Enter: false where another row has it, or there is no room. */
extern bool dv_sets_is_busy(DvSets *sets, const pg_uuid_t *handle);
extern bool dv_sets_enter_busy(DvSets *sets, const pg_uuid_t *handle);
extern void dv_sets_leave_busy(DvSets *sets, const pg_uuid_t *handle);

/* Nearly no room left: nothing should be read until answers have come in. */
extern bool dv_sets_full(DvSets *sets);

/* What a lane that ended without saying so had in flight is no longer. */
extern void dv_sets_purge_busy(DvSets *sets, int lane);

/* Records found to exist: to be updated, not created; and the run that created them, 0 where none is known to have. */
extern void dv_sets_set_known(DvSets *sets, const pg_uuid_t *handle, const pg_uuid_t *id, int64 created_run);
extern bool dv_sets_is_known(DvSets *sets, const pg_uuid_t *handle, pg_uuid_t *id, int64 *created_run);

/* Count an answer of what "handle" stands for; false where it had "max" already. */
extern bool dv_sets_count_answer(DvSets *sets, const pg_uuid_t *handle, int max);

extern void dv_sets_uncount_answer(DvSets *sets, const pg_uuid_t *handle);

/* Was the flag of this row refused or reset? */
extern void dv_sets_set_refused(DvSets *sets, const pg_uuid_t *handle, bool refused);
extern long dv_sets_count_refused(DvSets *sets);

/* Versions answered whose flag could not be set. */
extern bool dv_sets_is_answered(DvSets *sets, const DvVersion *version);
extern void dv_sets_add_answered(DvSets *sets, const DvAnswered *answered);
extern void dv_sets_remove_answered(DvSets *sets, const DvVersion *version);

/* Copies of those that a user's lock kept from being flagged; palloc'ed. */
extern DvAnswered *dv_sets_locked(DvSets *sets, int *n);

/* A step is over and all lanes have left it. */
extern void dv_sets_clear(DvSets *sets);

#endif							/* DV_SETS_H */

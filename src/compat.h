/*
 * compat.h - what differs between the PostgreSQL versions we support (15-18)
 */
#ifndef DV_COMPAT_H
#define DV_COMPAT_H

#include "postgres.h"

/* VARDATA and its kin left postgres.h in PostgreSQL 16. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#include "funcapi.h"
#include "lib/dshash.h"

/* InitMaterializedSRF has another name and default in early 15 releases. */
#if PG_VERSION_NUM >= 160000 || defined(MAT_SRF_USE_EXPECTED_DESC)
#define dv_compat_init_materialized(fcinfo)	InitMaterializedSRF(fcinfo, 0)
#define dv_compat_init_texts(fcinfo)	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC)	/* a set of one scalar type */
#else
#define dv_compat_init_materialized(fcinfo)	SetSingleFuncCall(fcinfo, 0)
#define dv_compat_init_texts(fcinfo)	SetSingleFuncCall(fcinfo, SRF_SINGLE_USE_EXPECTED)
#endif

/*
 * A migration's owner need not be able to log in where the server can start a
 * worker for a role without LOGIN (from 17 on; start() checks before that).
 */
#if PG_VERSION_NUM >= 170000
#define DV_BGWORKER_FLAGS	BGWORKER_BYPASS_ROLELOGINCHECK
#else
#define DV_BGWORKER_FLAGS	0
#endif

/* One function for all kinds of object came with PostgreSQL 16. */
#if PG_VERSION_NUM >= 160000
#define dv_server_aclcheck(server, role, mode) \
	object_aclcheck(ForeignServerRelationId, server, role, mode)
#else
#define dv_server_aclcheck(server, role, mode) \
	pg_foreign_server_aclcheck(server, role, mode)
#endif

/* Extensions name their waits from PostgreSQL 17 on. */
#if PG_VERSION_NUM >= 170000
#define dv_wait_event(name)	WaitEventExtensionNew(name)
#else
#define dv_wait_event(name)	PG_WAIT_EXTENSION
#endif

/* Keys that are compared and hashed byte by byte; how they are copied is told from 17 on. */
static inline dshash_parameters
dv_dshash_parameters(size_t key, size_t entry, int tranche)
{
	dshash_parameters p = {
		.key_size = key,.entry_size = entry,.compare_function = dshash_memcmp,.hash_function = dshash_memhash,
#if PG_VERSION_NUM >= 170000
		.copy_function = dshash_memcpy,
#endif
		.tranche_id = tranche
	};

	return p;
}

/*
 * Whether an updated row needs new index entries, and making them: from 16 on
 * only those of summarizing (BRIN) indexes may be due.
 */
#if PG_VERSION_NUM >= 160000
#define dv_update_indexes	TU_UpdateIndexes
#define DV_ALL_INDEXES		TU_All
#define dv_updates_indexes(indexes)	((indexes) != TU_None)
#define dv_insert_index_tuples(info, slot, estate, update, indexes) \
	ExecInsertIndexTuples(info, slot, estate, update, false, NULL, NIL, (indexes) == TU_Summarizing)
#else
#define dv_update_indexes	bool
#define DV_ALL_INDEXES		true
#define dv_updates_indexes(indexes)	(indexes)
#define dv_insert_index_tuples(info, slot, estate, update, indexes) \
	((void) (indexes), ExecInsertIndexTuples(info, slot, estate, update, false, NULL, NIL))
#endif

/* Generated columns may be virtual from PostgreSQL 18 on. */
#if PG_VERSION_NUM >= 180000
#define dv_has_generated(constr)	((constr)->has_generated_stored || (constr)->has_generated_virtual)
#else
#define dv_has_generated(constr)	((constr)->has_generated_stored)
#endif

/* Rows may have nulls where new ones may not (NOT NULL ... NOT VALID) from PostgreSQL 18 on. */
static inline bool
dv_may_break_not_null(TupleDesc desc)
{
	bool		may = false;

#if PG_VERSION_NUM >= 180000
	for (int i = 0; i < desc->natts; i++)
		may |= TupleDescCompactAttr(desc, i)->attnullability == ATTNULLABLE_INVALID;
#else
	(void) desc;
#endif
	return may;
}

/* Functions that do not come back are declared so before the declaration from 18 on, and by another name. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn	_Noreturn
#endif

#endif							/* DV_COMPAT_H */

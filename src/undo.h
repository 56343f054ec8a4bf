/*
 * undo.h - what the rooms of an undo share
 *
 * undo.c walks the outcome tables for what the run created, undo_look.c asks
 * for each record and for what belongs to it, undo_delete.c deletes. Ids that
 * are to be deleted are in dvmig._undo_row meanwhile.
 */
#ifndef DV_UNDO_H
#define DV_UNDO_H

#include "asker.h"
#include "page.h"
#include "projection.h"
#include "runstate.h"

/* Other records may point at those of a table by a lookup of theirs. */
typedef struct DvUndoRelation
{
	char	   *entity_set;
	char	   *primary_id;
	char	   *lookup;
	bool		unreadable;		/* a query of it was refused */
} DvUndoRelation;

typedef struct DvUndoTable
{
	DvStepPlan	plan;
	DvProjection *projection;
	char	   *id_sql;			/* id a row gets without dataverse_id, over s; NULL where Dataverse makes it */
	char	  **link_sql;		/* lets links be made again that go with its records */
	int			nlink_sql;
	DvTablePace pace;
	int64		created;		/* records that the run created, as far as they are collected */
	int			nrelations;		/* -1: not read yet */
	DvUndoRelation *relations;
	int64		deleted;
	int64		failed;
	char		problem[256];	/* of the first record that could not be deleted */
} DvUndoTable;

/* Outcome rows read in one transaction. */
typedef struct DvUndoChunk
{
	MemoryContext context;
	DvUndoTable *table;
	int			n;
	pg_uuid_t  *ids;
	Datum	  **keys;			/* by row, then by key column */
	bool	   *seen;
	int			asks;			/* requests about it that are not answered */
} DvUndoChunk;

typedef struct DvUndo
{
	DvRunContext *rc;
	MemoryContext context;
	int64		target;			/* the run that is undone */
	bool		dry_run;
	bool		skip_related;
	int			ntables;
	DvUndoTable *tables;		/* children first */
	DvAsker		asker;
	int64		marks;			/* records found in this pass that will stay */

	/* the walk over one table */
	DvUndoTable *table;
	int			outcome;		/* 0 success table, 1 error table, 2 over */
	MemoryContext key_context;
	Datum	   *last_keys;
} DvUndo;

/* undo.c: the job. */
extern void dv_undo_run(DvRunContext *rc);

/* Walk what is left of a table, calling "begin" for each chunk; it frees it, or its asks do. */
extern void dv_undo_walk(DvUndo *u, DvUndoTable *table, void (*begin) (DvUndo *u, DvUndoChunk *chunk));
extern void dv_undo_release(DvUndoChunk *chunk);

/* An SQL function of dvmig with the undo's run, ids and a text; its result as a number. */
extern int64 dv_undo_call(DvUndo *u, const char *sql, const pg_uuid_t *ids, int n, const char *text);
extern Datum dv_undo_id_array(const pg_uuid_t *ids, int n);

/* undo_look.c */
extern void dv_undo_look(DvUndo *u);

/* undo_delete.c */
extern void dv_undo_delete(DvUndo *u);

#endif							/* DV_UNDO_H */

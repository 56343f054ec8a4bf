/*
 * undo.h - what the rooms of an undo share
 *
 * undo.c walks the outcome tables for what the run created, undo_look.c asks
 * for each record and for what belongs to it, undo_restore.c makes updated
 * records what they were, undo_links.c takes links away, undo_delete.c deletes.
 * Ids that are to be deleted are in dvmig._undo_row meanwhile.
 */
#ifndef DV_UNDO_H
#define DV_UNDO_H

#include "asker.h"
#include "keys.h"
#include "page.h"
#include "projection.h"
#include "runstate.h"

/* Other records may point at those of a table by a lookup of theirs. */
typedef struct DvUndoRelation
{
	char	   *entity_set;
	char	   *primary_id;
	char	   *lookup;
	bool		cascades;		/* Dataverse deletes them along */
	bool		may_cascade;	/* or it is not known that it does not */
	bool		unreadable;		/* a query of it was refused */
	bool		forbidden;		/* because we may not read them */
} DvUndoRelation;

/* Rows that share a record with one that is undone: a statement over ids of records. */
typedef struct DvUndoSharing
{
	struct DvUndoSharing *next;
	char	   *sql;
} DvUndoSharing;

typedef struct DvUndoTable
{
	DvStepPlan	plan;
	DvProjection *projection;
	char	   *id_sql;			/* id a row gets without dataverse_id, over s; NULL where Dataverse makes it */
	char	  **link_sql;		/* lets links be made again that go with its records */
	int			nlink_sql;
	DvUndoSharing *deleted_too; /* what takes outcomes of other rows of a record back */
	DvUndoSharing *restored_too;
	bool		shares;			/* some of its rows share a record with others that are undone */
	DvTablePace pace;
	int64		created;		/* records that the run created, as far as they are collected */
	int			nrelations;		/* -1: not read yet */
	DvUndoRelation *relations;
	int64		deleted;
	int64		failed;
	int64		links;			/* that the run made, where the rows are links */
	int64		links_changed;	/* of them, those whose row says something else now */
	char	   *before_sql;		/* the table of before-images, or NULL */
	char	   *members;		/* what the run's images hold; NULL where it left none */
	bool		without_etag;	/* the table does not take conditions */
	int64		restorable;
	int64		restored;
	int64		images_changed;	/* records with an image that a user has changed since */
	int64		images_left;	/* the same when they were to be restored */
	int64		images_gone;
	char		problem[256];	/* of the first record that could not be taken back */
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
	bool	   *was_gone;		/* it was not there any more before it was to be deleted */
	char	  **etags;			/* of records that are being deleted: that version of them; NULL: any */
	pg_uuid_t  *lefts;			/* of links: the other ends; those are "seen" whose row is unchanged */
	char	  **images;			/* before-images, where these are walked */
	DvWireRow  *wire;			/* updates that restore them */
	int		   *looks;			/* times that a record was looked at again */
	int			asks;			/* requests about it that are not answered */
} DvUndoChunk;

/* What is walked of a table. */
typedef enum DvUndoPart
{
	DV_UNDO_SUCCESSES,
	DV_UNDO_ERRORS,
	DV_UNDO_IMAGES,
	DV_UNDO_LINKS,
	DV_UNDO_OVER
} DvUndoPart;

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

	/* the walk over one table */
	DvUndoTable *table;
	DvUndoPart	part;
	DvUndoPart	last_part;
	DvWalk		walk;
} DvUndo;

/* undo.c: the job. */
extern void dv_undo_run(DvRunContext *rc);

/* Walk what is left of a table from one part to another, calling "begin" for each chunk; it frees it, or its asks do. */
extern void dv_undo_walk(DvUndo *u, DvUndoTable *table, DvUndoPart first, DvUndoPart last, void (*begin) (DvUndo *u, DvUndoChunk *chunk));
extern void dv_undo_release(DvUndoChunk *chunk);

/* Is that a page with others behind it? Then fewer ids are asked for. */
extern bool dv_undo_has_more(const DvHttpReply *reply);

/* An SQL function of dvmig with the undo's run, ids and a text; its result as a number. */
extern int64 dv_undo_call(DvUndo *u, const char *sql, const pg_uuid_t *ids, int n, const char *text);
extern Datum dv_undo_id_array(const pg_uuid_t *ids, int n);

/* undo_look.c */
extern void dv_undo_look(DvUndo *u);

/* Written last by somebody who is not us; nor its maker, unless that counts too. */
extern bool dv_undo_is_changed(DvUndo *u, DvSlice record, bool strict);

/* undo_restore.c: count what can be restored. */
extern void dv_undo_look_images(DvUndo *u);

/* Restore it. True where something was not on which the deletion of other records rests: then all have to be looked at again. */
extern bool dv_undo_restore(DvUndo *u);

/* undo_links.c: take away links; the query of those that the run made, and a row of it. */
extern void dv_undo_links(DvUndo *u);
extern char *dv_undo_links_query(const DvUndo *u);
extern void dv_undo_links_take(DvUndoChunk *chunk, int i, HeapTuple tuple, TupleDesc desc, int first);

/* undo_delete.c */
extern void dv_undo_delete(DvUndo *u);

/* Put tables on hold: all of them before the first record is touched. */
extern void dv_undo_hold(DvUndo *u);

/* May what was refused so be tried again? */
extern bool dv_undo_is_passing(const DvVerdict *v);

/* A $batch over n rows is answered, ndone of them for good: pace and figures. */
extern void dv_undo_answered(DvUndo *u, DvUndoTable *table, const DvHttpReply *reply, int n, int ndone);

/* Records that were looked at as unchanged, and that a user has written since: they stay. */
extern void dv_undo_changed_meanwhile(DvUndo *u, const DvUndoTable *table, int64 n);

/* Note so many things that are left: "one ... is", "many ... are". */
extern void dv_undo_left(DvUndo *u, const DvUndoTable *table, const char *one, const char *many, int64 n);

/* The keys of some of a chunk's rows. */
extern void dv_undo_key_arrays(DvArrays *a, const DvUndoChunk *chunk, const int *rows, int n);

/* In the transaction that takes outcomes of a chunk's rows back: those of other rows of the same records too. */
extern void dv_undo_sharing(const DvUndoSharing *sharing, const DvUndoChunk *chunk, const int *rows, int n);

/* Call "record", which runs in a transaction of its own, until no user's lock is in the way; it may be without a chunk. */
extern void dv_undo_patiently(DvUndo *u, DvUndoTable *table, DvUndoChunk *chunk, const int *rows, int n,
							  void (*record) (DvUndo *u, DvUndoTable *table, DvUndoChunk *chunk, const int *rows, int n));

#endif							/* DV_UNDO_H */

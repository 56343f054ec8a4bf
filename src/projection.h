/*
 * projection.h - a staging table and pass, ready to be read
 *
 * The SQL is put together by dvmig._projection() (sql/40_projection.sql);
 * here it becomes C structures that live as long as the step that uses them.
 */
#ifndef DV_PROJECTION_H
#define DV_PROJECTION_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "executor/spi.h"

#include "payload.h"
#include "wire.h"

/* Columns of every projection before the key columns, see 40_projection.sql. */
enum
{
	DV_PROJ_CTID = 1,
	DV_PROJ_XMIN,
	DV_PROJ_TABLEOID,
	DV_PROJ_OP,
	DV_PROJ_ID,
	DV_PROJ_HASH,
	DV_PROJ_CREATED_RUN,
	DV_PROJ_OWES,
	DV_PROJ_OWES_UNCHANGED,
	DV_PROJ_VERIFY,
	DV_PROJ_RECORDED,
	DV_PROJ_FAULT,
	DV_PROJ_NOTE,
	DV_PROJ_CALLER,
	DV_PROJ_LAST_RUN,
	DV_PROJ_OUTCOME,
	DV_PROJ_KEYS				/* first key column */
};

/*
 * What a later pass may find instead of an operation: a row that moved (VACUUM
 * FULL, an edit) while its last request was on its way has its outcome, and only
 * its flag does not say so. Without an outcome it is no row of the pass.
 */
#define DV_OP_NONE		'\0'
#define DV_OP_SUCCEEDED	'P'
#define DV_OP_FAILED	'E'

/* Columns of a row that is read without its maps. */
enum
{
	DV_KNOWN_ID = DV_PROJ_OP + 1,
	DV_KNOWN_CREATED_RUN,
	DV_KNOWN_LAST_RUN,
	DV_KNOWN_KEYS				/* first key column */
};

typedef struct DvKeyType
{
	Oid			type;
	int16		len;
	bool		byval;
	char	   *name;
	char	   *column;			/* quoted */
} DvKeyType;

/*
 * Passes that a row owes after the one that writes it, as bits, in their order.
 * What is owed is kept by name in the success table.
 */
#define DV_OWES_DEFERRED	1
#define DV_OWES_FILES		2
#define DV_OWES_STATES		4

/* Among what an unchanged row owes: its outcome says that a record of ours was kept, see settle.c. */
#define DV_KEPT_OURS		8

/* A file column: SQL over the staging row, see dvmig._file_maps(). */
typedef struct DvFileColumn
{
	char	   *column;
	char	   *size_sql;
	char	   *bytes_sql;
	char	   *name_sql;
	int64		max_size;		/* bytes; 0 where not known */
} DvFileColumn;

typedef struct DvProjection
{
	Oid			staging;
	char	   *staging_sql;	/* qualified and quoted */
	char	   *table_name;		/* as regclass prints it, in run_table */
	Oid			success;		/* the success table */
	char	   *success_sql;
	char	   *error_sql;
	char	   *before_sql;		/* the table of before-images, where this pass keeps them; else NULL */
	char	   *before_select;	/* what is read for them */
	char	   *pass;			/* write, deferred, states, delete */
	char	   *link;			/* rows are links: navigation property of the left end; else NULL */
	bool		later;			/* a pass over rows that are written already */
	bool		states;			/* the pass sets statecode and statuscode */
	int			nfiles;			/* passes files and verify */
	DvFileColumn *files;
	bool		closing;		/* by actions, which are not to be repeated */
	bool		look_closed;	/* before an update: is the record closed? */
	bool		reopen;			/* on_closed: reopen what is closed, to change it */
	char	   *on_exists;		/* update, keep, error */

	char	   *select_sql;
	char	   *inner_sql;
	char	   *all_sql;		/* inner_sql without the table's filter */
	char	   *count_sql;		/* rows of inner_sql, and all unprocessed ones; NULL in a later pass, or a filtered run */
	char	   *joins_sql;
	char	   *order_sql;
	char	   *known_sql;		/* what is known of a row without its maps */
	char	   *outcomes_sql;
	char	   *fresh_sql;		/* for joins_sql where no row has an outcome; may be NULL */

	int			nkeys;
	DvKeyType  *keys;
	int			ncolumns;
	DvPayloadColumn *columns;
	char	  **expressions;	/* value SQL of each column, to name a failing one */
	int			nkey_columns;	/* ids => platform: of the alternate key */
	int		   *key_columns;	/* indexes in columns */
	bool		update_only;	/* some column goes with updates only, and no create owes it */
	bool		has_deferred;
	bool		trims;			/* some column's texts are cut where they are too long */

	DvWireTable wire;
	bool		create_multiple;
	bool		update_multiple;
} DvProjection;

/*
 * Load the projection of a staging table. Called in a transaction, as the
 * extension's owner. "deferred" is a text[] datum. Lives in "context".
 */
extern DvProjection *dv_projection_load(Oid staging, const char *pass, Datum deferred,
										const char *api_path, const char *api_url,
										MemoryContext context);

/* What is read of a batch. */
typedef enum DvReadWhat
{
	DV_READ_KNOWN,				/* what is known without the maps: DV_KNOWN_... columns */
	DV_READ_EXAMINED,			/* the same, whatever the table's filter says */
	DV_READ_MAPPED,
	DV_READ_FRESH				/* the same of rows that have no outcome */
} DvReadWhat;

/*
 * The SELECT for one batch: behind some keys ("after"), up to and with others
 * ("until"), at most "limit" rows, or where that is 0 as many as the parameter
 * behind the keys says.
 */
extern char *dv_projection_query(const DvProjection *p, bool after, bool until, int limit, DvReadWhat what);

/* Whether a row behind some keys, up to and with others, has an outcome: one bool. */
extern char *dv_projection_outcomes_query(const DvProjection *p, bool after, bool until);

/*
 * The SELECT for the keys of the n-th row behind some keys and up to others, to be
 * run with a limit of one row; "all" counts rows whatever the table's filter says.
 */
extern char *dv_projection_keys_query(const DvProjection *p, bool after, bool until, int n, bool all);

/*
 * That SELECT prepared for these bounds (keys or NULL) and any limit, in a
 * transaction with SPI connected. To be freed with SPI_freeplan().
 */
extern SPIPlanPtr dv_projection_plan(const DvProjection *p, const Datum *after, const Datum *until, DvReadWhat what);
extern ParamListInfo dv_projection_parameters(const DvProjection *p, const Datum *after, const Datum *until, int limit);

/* Parameters of these: keys or NULL. Returns their count; there is room for 2 * INDEX_MAX_KEYS. */
extern int	dv_projection_bounds(const DvProjection *p, const Datum *after, const Datum *until,
								 Oid *types, Datum *values);

/*
 * Throws where the keys of a result, from a column on (1 is the first), are not
 * of the types of the projection: a user may have changed them since.
 */
extern void dv_projection_check_keys(const DvProjection *p, TupleDesc desc, int first);

/*
 * Throws where one of the key values of a row is null: "nulls" begins with that
 * of the first key. There is no row to name then, nor an outcome to give it.
 */
extern void dv_projection_check_values(const DvProjection *p, const bool *nulls);

/*
 * Throws where a column of a result, 1 is the first, which is column "name" of
 * outcome tables, is not of the type that it was made with.
 */
extern void dv_projection_check_type(const DvProjection *p, TupleDesc desc, int at, const char *name, Oid type);

/* The same of all that a row of the projection has of its outcome. */
extern void dv_projection_check_outcome(const DvProjection *p, TupleDesc desc);

#endif							/* DV_PROJECTION_H */

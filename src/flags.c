/*
 * flags.c - processing flags on exactly the row version a verdict belongs to
 *
 * A verdict is about what was read. The UPDATE therefore names the version by
 * ctid, xmin, table and file: a row that was edited in flight keeps its U. What
 * could not be flagged although its version is still there is remembered, so
 * that the next lap does not send it again.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "direct.h"
#include "flags.h"
#include "keys.h"
#include "sets.h"
#include "spi.h"

/* Waits in a row after which a user is taken to lock the whole table. */
#define WAITS_MAX	5

/* One flag to set. */
typedef struct Flag
{
	DvVersion	version;
	char		flag;
	bool		has_id;
	pg_uuid_t	id;
	pg_uuid_t	handle;
	bool		set;			/* RETURNING named it, with the flag it was given */
	bool		reset;			/* set, but a trigger gave it another value */
	bool		there;			/* the version is still there, unflagged */
} Flag;

/* What the last dv_flags_set() did; judged when its commit has returned. */
static Flag *last_flags;
static int	last_count;
static int	last_moved;
static bool last_skipped;

/* Parameters $1 ... $6: ctid, xmin, tableoid, file, flag, id. */
#define FLAG_ARRAYS	6

static void
flag_arrays(DvArrays *a, Flag *flags, int n)
{
	static const Oid element[FLAG_ARRAYS] = {TIDOID, XIDOID, OIDOID, OIDOID, TEXTOID, UUIDOID};
	Datum	   *values[FLAG_ARRAYS];
	bool	   *nulls = palloc(sizeof(bool) * n);
	int			i;

	for (i = 0; i < FLAG_ARRAYS; i++)
		values[i] = palloc(sizeof(Datum) * n);
	for (i = 0; i < n; i++)
	{
		char		flag[2] = {flags[i].flag, '\0'};

		values[0][i] = PointerGetDatum(&flags[i].version.ctid);
		values[1][i] = TransactionIdGetDatum(flags[i].version.xmin);
		values[2][i] = ObjectIdGetDatum(flags[i].version.tableoid);
		values[3][i] = ObjectIdGetDatum(flags[i].version.filenode);
		values[4][i] = CStringGetTextDatum(flag);
		values[5][i] = UUIDPGetDatum(&flags[i].id);
		nulls[i] = !flags[i].has_id;
	}
	a->n = n;
	a->count = 0;
	for (i = 0; i < FLAG_ARRAYS; i++)
		dv_keys_add(a, values[i], i == FLAG_ARRAYS - 1 ? nulls : NULL, element[i]);
}

#define FLAG_UNNEST "unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY u(c, x, t, r, f, i, n)"
#define FLAG_MATCH	DV_IS_VERSION("u.c", "u.x", "u.t", "u.r")

static void
update_flags(const DvStep *step, Flag *flags, bool skip_locked, DvArrays *a)
{
	const char *table = step->projection->staging_sql;
	char	   *sql;
	uint64		i;

	if (skip_locked)
		sql = psprintf("WITH free AS MATERIALIZED (SELECT s.ctid AS c, s.tableoid AS t, u.f, u.i, u.n FROM " FLAG_UNNEST
					   " JOIN %s s ON " FLAG_MATCH " FOR NO KEY UPDATE OF s SKIP LOCKED)"
					   " UPDATE %s s SET processing_flag = u.f, dataverse_id = coalesce(u.i, s.dataverse_id)"
					   " FROM free u WHERE s.ctid = u.c AND s.tableoid = u.t RETURNING u.n, s.processing_flag::pg_catalog.text",
					   table, table);
	else
		sql = psprintf("UPDATE %s s SET processing_flag = u.f, dataverse_id = coalesce(u.i, s.dataverse_id)"
					   " FROM " FLAG_UNNEST " WHERE " FLAG_MATCH " RETURNING u.n, s.processing_flag::pg_catalog.text", table);
	dv_spi_run(sql, a->count, a->types, a->values, NULL, SPI_OK_UPDATE_RETURNING);
	for (i = 0; i < SPI_processed; i++)
	{
		int			at = atoi(dv_spi_text((int) i, 1)) - 1;
		char	   *flag = dv_spi_text((int) i, 2);

		flags[at].set = true;
		flags[at].reset = flag == NULL || flag[0] != flags[at].flag;
	}
}

/* Which of the unset versions are still there? */
static void
find_versions(const DvStep *step, Flag *flags, DvArrays *a)
{
	uint64		i;

	dv_spi_run(psprintf("SELECT u.n FROM " FLAG_UNNEST " JOIN %s s ON " FLAG_MATCH,
						step->projection->staging_sql),
			   a->count, a->types, a->values, NULL, SPI_OK_SELECT);
	for (i = 0; i < SPI_processed; i++)
		flags[atoi(dv_spi_text((int) i, 1)) - 1].there = true;
}

/* Tables and partitions that the flags of one lot are in. */
typedef struct Opened
{
	Oid			table;
	DvDirect   *direct;
} Opened;

/* The opened table; "last" is the likeliest one. */
static Opened *
find_opened(List *opened, Opened *last, Oid table)
{
	ListCell   *cell;

	if (last != NULL && last->table == table)
		return last;
	foreach(cell, opened)
		if (((Opened *) lfirst(cell))->table == table)
			return lfirst(cell);
	return NULL;
}

/* Past the executor; false where one of the tables is for SQL: nothing is done then. */
static bool
set_directly(DvStep *step, Flag *flags, int n)
{
	List	   *opened = NIL;
	Opened	   *at = NULL;
	ListCell   *cell;
	bool		all = true;
	int			i;

	for (i = 0; i < n && all; i++)
	{
		if (find_opened(opened, at, flags[i].version.tableoid) != NULL)
			continue;
		at = palloc(sizeof(Opened));
		at->table = flags[i].version.tableoid;
		at->direct = dv_direct_open_flags(step->projection->staging, at->table);
		all = at->direct != NULL;
		if (all)
			opened = lappend(opened, at);
	}
	for (i = 0; i < n && all; i++)
	{
		at = find_opened(opened, at, flags[i].version.tableoid);
		flags[i].set = dv_direct_flag(at->direct, &flags[i].version, flags[i].flag, flags[i].has_id ? &flags[i].id : NULL);
	}
	foreach(cell, opened)
	{
		at = lfirst(cell);
		last_moved += dv_direct_moved(at->direct);
		dv_direct_close(at->direct);
	}
	return all;
}

void
dv_flags_by_sql(DvStep *step)
{
	step->by_sql = true;
	dv_spi_follow_indexes();
}

static void
set_flags(DvStep *step, Flag *flags, int n, bool skip_locked)
{
	DvArrays	a;
	bool		all = true;
	int			i;

	if (skip_locked || step->no_direct || !set_directly(step, flags, n))
	{
		dv_flags_by_sql(step);
		last_moved = n;			/* as far as is known */
		flag_arrays(&a, flags, n);
		update_flags(step, flags, skip_locked, &a);
	}
	for (i = 0; i < n; i++)
		all &= flags[i].set;
	if (!all)
	{
		dv_flags_by_sql(step);
		flag_arrays(&a, flags, n);
		find_versions(step, flags, &a);
	}
	last_flags = flags;
	last_count = n;
	last_skipped = skip_locked;
}

static void
flag_of(const DvOutcome *o, Flag *flag)
{
	memset(flag, 0, sizeof(Flag));
	flag->version = o->row->version;
	flag->flag = o->flag;
	flag->has_id = o->flag != 'E' && o->row->wire.id[0] != '\0';
	flag->id = o->row->uuid;
	flag->handle = o->row->handle;
}

void
dv_flags_set(DvStep *step, const DvOutcome *outcomes, int n, DvFlagMode mode)
{
	Flag	   *flags;
	int			i;

	last_count = 0;
	last_moved = 0;
	if (mode == DV_FLAGS_NONE)
		return;
	flags = MemoryContextAlloc(step->outcome_context, sizeof(Flag) * n);
	for (i = 0; i < n; i++)
		flag_of(&outcomes[i], &flags[i]);
	set_flags(step, flags, n, mode == DV_FLAGS_SKIP_LOCKED);
}

static void
remember(DvStep *step, const Flag *flag, bool locked)
{
	DvAnswered	entry;

	memset(&entry, 0, sizeof(entry));
	entry.version = flag->version;
	entry.flag = flag->flag;
	entry.has_id = flag->has_id;
	entry.id = flag->id;
	entry.handle = flag->handle;
	entry.locked = locked;
	dv_sets_add_answered(step->sets, &entry);
	if (!locked)
		dv_sets_set_refused(step->sets, &flag->handle, true);
}

int
dv_flags_committed(DvStep *step)
{
	int			i;

	for (i = 0; i < last_count; i++)
	{
		const Flag *flag = &last_flags[i];

		if (flag->reset)
			dv_sets_set_refused(step->sets, &flag->handle, true);
		else if (flag->set)
		{
			step->lap_flagged++;
			dv_sets_set_refused(step->sets, &flag->handle, false);
		}
		else if (flag->there)
			remember(step, flag, last_skipped);
	}
	last_count = 0;
	return last_moved;
}

/*
 * Set one flag in a transaction of its own; where it cannot be, the version is
 * remembered. False where something was locked for too long.
 */
static bool
set_one(DvStep *step, Flag *flag)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool locked = false;

	PG_TRY();
	{
		dv_spi_begin("dvmig: setting a flag");
		dv_spi_wait_briefly();
		set_flags(step, flag, 1, true);
		dv_spi_commit(true);
		(void) dv_flags_committed(step);
	}
	PG_CATCH();
	{
		ErrorData  *error = dv_spi_abort(context);

		locked = error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
		remember(step, flag, dv_spi_is_contention(error));
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return !locked;
}

void
dv_flags_set_singly(DvStep *step, const DvOutcome *outcomes, int n)
{
	int			waits = 0;
	int			i;

	for (i = 0; i < n; i++)
	{
		Flag		flag;

		dv_worker_tick(step);
		flag_of(&outcomes[i], &flag);
		if (waits >= WAITS_MAX)
			remember(step, &flag, true);
		else
			waits = set_one(step, &flag) ? 0 : waits + 1;
	}
}

void
dv_flags_retry(DvStep *step)
{
	int			n;
	DvAnswered *locked = dv_sets_locked(step->sets, &n);
	int			waits = 0;
	int			i;

	for (i = 0; i < n && waits < WAITS_MAX; i++)
	{
		Flag		flag;

		memset(&flag, 0, sizeof(flag));
		flag.version = locked[i].version;
		flag.flag = locked[i].flag;
		flag.has_id = locked[i].has_id;
		flag.id = locked[i].id;
		flag.handle = locked[i].handle;
		dv_worker_tick(step);
		/* entered again by set_one() where it is still locked */
		dv_sets_remove_answered(step->sets, &flag.version);
		waits = set_one(step, &flag) ? 0 : waits + 1;
	}
	pfree(locked);
}

long
dv_flags_left(DvStep *step)
{
	int			n;
	DvAnswered *locked = dv_sets_locked(step->sets, &n);
	int			i;

	for (i = 0; i < n; i++)
		dv_sets_set_refused(step->sets, &locked[i].handle, true);
	pfree(locked);
	return dv_sets_count_refused(step->sets);
}

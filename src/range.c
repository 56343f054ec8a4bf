/*
 * range.c - whose turn it is to read what
 *
 * A lap walks the source key upwards. Several lanes share the walk: a lane that
 * has nothing left to read takes the cursor, looks by keys alone how far a few
 * batches go, and leaves the cursor there for the next one. Nothing is read by
 * two lanes and nothing is written in the tables for it. A lane that is alone
 * has all that is left, and gives it back when another one asks.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "batch.h"
#include "compat.h"
#include "gate.h"
#include "lanes.h"
#include "spi.h"

/* Batches of one range: few, so that all lanes end a lap at about the same time. */
#define RANGE_BATCHES	4

/* Where the filter throws, a read looks at so many rows: at first, and at most. */
#define EXAMINE_ROWS	256
#define EXAMINE_MAX		4096

/* What a lane may do with the cursor. */
typedef enum Turn
{
	TURN_OURS,					/* it is ours to move on */
	TURN_LATER,					/* another lane has it */
	TURN_OVER					/* the lap has nothing more */
} Turn;

static Datum *
restore_keys(const DvProjection *p, char *from, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	Datum	   *keys = palloc(sizeof(Datum) * p->nkeys);
	bool		isnull;
	int			i;

	for (i = 0; i < p->nkeys; i++)
		keys[i] = datumRestore(&from, &isnull);
	MemoryContextSwitchTo(old);
	return keys;
}

/* Serialise keys; false where they are too long to be shared. */
static bool
serialise_keys(const DvProjection *p, const Datum *keys, char *to, int *len)
{
	Size		size = 0;
	char	   *at = to;
	int			i;

	for (i = 0; i < p->nkeys; i++)
		size += datumEstimateSpace(keys[i], false, p->keys[i].byval, p->keys[i].len);
	if (size > DV_CURSOR_BYTES)
		return false;
	for (i = 0; i < p->nkeys; i++)
		datumSerialize(keys[i], false, p->keys[i].byval, p->keys[i].len, &at);
	*len = (int) (at - to);
	return true;
}

/* Take the cursor; *begun and buffer tell where it stands. */
static Turn
take_cursor(DvLanes *lanes, bool *begun, char *key)
{
	DvShared   *shared = lanes->shared;
	Turn		turn = TURN_OURS;

	SpinLockAcquire(&shared->mutex);
	if (shared->exhausted || dv_lane_of(lanes)->leave)
		turn = TURN_OVER;
	else if (shared->holder >= 0 && shared->holder != lanes->me)
	{
		shared->wanted = shared->lent;
		turn = TURN_LATER;
	}
	else
	{
		shared->holder = lanes->me;
		shared->lent = shared->wanted = false;
		*begun = shared->begun;
		if (shared->begun)
			memcpy(key, shared->key, shared->key_len);
	}
	SpinLockRelease(&shared->mutex);
	return turn;
}

/* Leave the cursor behind this key; key NULL: where it was. */
static void
put_cursor(DvLanes *lanes, const char *key, int len, bool exhausted)
{
	DvShared   *shared = lanes->shared;

	SpinLockAcquire(&shared->mutex);
	if (key != NULL)
	{
		memcpy(shared->key, key, len);
		shared->key_len = len;
		shared->begun = true;
	}
	shared->exhausted |= exhausted;
	shared->holder = -1;
	shared->lent = false;
	SpinLockRelease(&shared->mutex);
}

/*
 * Look for the last key of the next range, or window: the n-th from where we
 * stand. *last is NULL where there are fewer. False where a user locks the
 * table; *odd where the keys cannot be looked at alone (a filter throws).
 */
static bool
find_end(DvStep *step, int n, MemoryContext of_keys, Datum **last, bool *odd)
{
	MemoryContext context = CurrentMemoryContext;
	const DvProjection *p = step->projection;
	volatile bool ok = true;

	*last = NULL;
	*odd = false;
	PG_TRY();
	{
		Oid			types[2 * INDEX_MAX_KEYS];
		Datum		values[2 * INDEX_MAX_KEYS];
		int			nargs = dv_projection_bounds(p, step->walk.last, step->until_keys, types, values);

		dv_spi_begin("dvmig: finding the next rows");
		dv_spi_follow_indexes();
		dv_spi_wait_briefly();
		if (dv_spi_run(dv_projection_keys_query(p, step->walk.last != NULL, step->until_keys != NULL, n, step->examine > 0),
					   nargs, types, values, NULL, SPI_OK_SELECT) > 0)
		{
			Datum	   *keys = MemoryContextAlloc(of_keys, sizeof(Datum) * p->nkeys);
			MemoryContext old = MemoryContextSwitchTo(of_keys);
			bool		nulls[INDEX_MAX_KEYS];
			int			i;

			dv_projection_check_keys(p, SPI_tuptable->tupdesc, 1);
			heap_deform_tuple(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, keys, nulls);
			dv_projection_check_values(p, nulls);
			for (i = 0; i < p->nkeys; i++)
			{
				keys[i] = p->keys[i].len == -1 ? PointerGetDatum(PG_DETOAST_DATUM_COPY(keys[i]))
					: datumCopy(keys[i], p->keys[i].byval, p->keys[i].len);
			}
			MemoryContextSwitchTo(old);
			*last = keys;
		}
		dv_spi_commit(true);
	}
	PG_CATCH();
	{
		ErrorData  *error = dv_spi_abort(step->context);

		ok = !dv_source_is_passing(step, error);
		*odd = ok;
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return ok;
}

/* All that is left of the lap is ours: "lent" until another lane asks, or for good. */
static void
take_rest(DvStep *step, bool lent)
{
	DvShared   *shared = step->rc->lanes->shared;

	step->has_range = true;
	step->in_window = false;
	step->until_keys = NULL;
	step->lent = lent;
	SpinLockAcquire(&shared->mutex);
	shared->lent = lent;
	shared->exhausted |= !lent;
	if (!lent)
		shared->holder = -1;
	SpinLockRelease(&shared->mutex);
}

/* The end of a range of rows that the filter lets through; where it throws, of all rows. */
static bool
find_range_end(DvStep *step, Datum **last, bool *odd)
{
	int			n = dv_gate_bulk_rows(step) * RANGE_BATCHES;

	if (!find_end(step, n, step->range_context, last, odd))
		return false;
	if (!*odd || step->examine > 0)
		return true;
	step->examine = EXAMINE_ROWS;
	return find_end(step, n, step->range_context, last, odd);
}

/* The next window in the range; false where a user locks the table. */
static bool
open_window(DvStep *step)
{
	Datum	   *last;
	bool		odd;

	MemoryContextReset(step->window_context);
	if (!find_end(step, step->examine, step->window_context, &last, &odd))
	{
		step->read_after = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DV_LOCK_PAUSE_MS);
		return false;
	}
	step->ahead.what = DV_AHEAD_UNKNOWN;
	step->range_until = step->until_keys;
	if (last != NULL)
		step->until_keys = last;
	step->in_window = true;
	return true;
}

bool
dv_range_narrow(DvStep *step)
{
	step->ahead.what = DV_AHEAD_UNKNOWN;
	if (step->in_window)
		step->until_keys = step->range_until;
	step->in_window = false;
	if (step->examine == 1)
		return false;
	step->examine = step->examine == 0 ? EXAMINE_ROWS : step->examine / 2;
	return true;
}

static bool
take_range(DvStep *step)
{
	DvLanes    *lanes = step->rc->lanes;
	char	   *key = palloc(DV_CURSOR_BYTES);
	Datum	   *last;
	bool		begun = false;	/* with our turn it is set */
	bool		odd;
	int			len;

	switch (take_cursor(lanes, &begun, key))
	{
		case TURN_OVER:
			step->lap_done = true;
			return false;
		case TURN_LATER:
			return false;
		case TURN_OURS:
			break;
	}
	MemoryContextReset(step->range_context);
	step->ahead.what = DV_AHEAD_UNKNOWN;
	if (begun)
		dv_walk_go(&step->walk, step->projection, restore_keys(step->projection, key, step->range_context));
	else
		dv_walk_rewind(&step->walk);
	step->until_keys = NULL;
	step->in_window = false;
	if (dv_lanes_count(lanes) <= 1)
	{
		take_rest(step, true);
		return true;
	}
	if (!find_range_end(step, &last, &odd))
	{
		put_cursor(lanes, NULL, 0, false);
		step->read_after = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DV_LOCK_PAUSE_MS);
		return false;
	}
	/* Fewer rows are left, or this lane will find out what is odd about them. */
	if (odd || last == NULL || !serialise_keys(step->projection, last, key, &len))
	{
		take_rest(step, false);
		return true;
	}
	put_cursor(lanes, key, len, false);
	step->has_range = true;
	step->lent = false;
	step->until_keys = last;
	return true;
}

/* Another lane asks for some of what was lent to us: it goes on behind what we read. */
static void
give_rest(DvStep *step)
{
	char	   *key = palloc(DV_CURSOR_BYTES);
	int			len;

	if (step->walk.last == NULL)
		put_cursor(step->rc->lanes, NULL, 0, false);
	else if (serialise_keys(step->projection, step->walk.last, key, &len))
		put_cursor(step->rc->lanes, key, len, false);
	else
	{
		take_rest(step, false);
		return;
	}
	step->has_range = step->lent = step->in_window = false;
}

bool
dv_range_ready(DvStep *step)
{
	DvShared   *shared = step->rc->lanes->shared;

	if (step->lap_done)
		return false;
	if (step->has_range && step->lent && (shared->wanted || dv_lane_of(step->rc->lanes)->leave))
		give_rest(step);
	if (!step->has_range && !take_range(step))
		return false;
	return step->examine == 0 || step->in_window || open_window(step);
}

/* Behind the window; false where it was the last one of the range. */
static bool
leave_window(DvStep *step)
{
	bool		more = step->until_keys != step->range_until;

	if (more)
		dv_walk_go(&step->walk, step->projection, step->until_keys);
	step->ahead.what = DV_AHEAD_UNKNOWN;
	step->until_keys = step->range_until;
	step->in_window = false;
	step->examine = Min(step->examine * 2, EXAMINE_MAX);
	return more;
}

void
dv_range_done(DvStep *step)
{
	bool		all;

	if (step->in_window && leave_window(step))
		return;
	all = step->until_keys == NULL;
	step->has_range = false;
	if (all)
	{
		if (step->lent)
			put_cursor(step->rc->lanes, NULL, 0, true);
		step->lent = false;
		step->lap_done = true;
	}
}

/*
 * sets.c - what the lanes of a run know of ids and row versions, together
 */
#include "postgres.h"

#include "lib/dshash.h"
#include "port/atomics.h"
#include "storage/spin.h"

#include "compat.h"
#include "sets.h"

/* Parts of the table of busy ids: a lane seldom meets another in one. */
#define PARTS			64

/* Rows one lane may have read or sent: QUEUED_ROWS_MAX and 40 full requests. */
#define BUSY_PER_LANE	65536
#define BUSY_LEAST		131072

typedef struct BusyId
{
	pg_uuid_t	handle;
	int32		owner;			/* lane, from 1; 0 = free */
} BusyId;

typedef struct BusyPart
{
	slock_t		mutex;
	int			count;
} BusyPart;

typedef struct Busy
{
	int			part_slots;		/* a power of two */
	pg_atomic_uint32 nfacts;
	pg_atomic_uint32 nanswered;
	BusyPart	parts[PARTS];
	BusyId		slots[FLEXIBLE_ARRAY_MEMBER];
} Busy;

typedef struct Fact
{
	pg_uuid_t	handle;			/* hash key */
	pg_uuid_t	id;				/* where known */
	int64		created_run;	/* of that record */
	int			answers;
	bool		known;
	bool		refused;
} Fact;

struct DvSets
{
	Busy	   *busy;
	int			lane;
	dshash_table *facts;
	dshash_table *answered;
};

/* ---------------------------------------------------------------- busy ids */

static int
busy_slots(int lanes)
{
	int			slots = BUSY_LEAST;

	while (slots < lanes * BUSY_PER_LANE)
		slots *= 2;
	return slots;
}

Size
dv_sets_size(int lanes)
{
	return offsetof(Busy, slots) + sizeof(BusyId) * busy_slots(lanes);
}

/* Ids carry keys in some of their bytes and a hash in the others: mix them all. */
static uint64
mix(const pg_uuid_t *handle)
{
	uint64		a;
	uint64		b;

	memcpy(&a, handle->data, sizeof(a));
	memcpy(&b, handle->data + sizeof(a), sizeof(b));
	a ^= b * UINT64CONST(0x9E3779B97F4A7C15);
	a = (a ^ (a >> 32)) * UINT64CONST(0xD6E8FEB86659FD93);
	return a ^ (a >> 32);
}

static BusyPart *
part_of(Busy *busy, const pg_uuid_t *handle, BusyId **slots, uint32 *at)
{
	uint64		hash = mix(handle);
	int			part = (int) (hash % PARTS);

	*slots = busy->slots + (Size) part * busy->part_slots;
	*at = (uint32) (hash / PARTS) & (busy->part_slots - 1);
	return &busy->parts[part];
}

/* The slot of an id, or the free one where it would be; the part is not full. */
static uint32
probe(const Busy *busy, const BusyId *slots, uint32 at, const pg_uuid_t *handle)
{
	while (slots[at].owner != 0 && memcmp(&slots[at].handle, handle, sizeof(pg_uuid_t)) != 0)
		at = (at + 1) & (busy->part_slots - 1);
	return at;
}

/* Take one out; those behind it that would no longer be found move up. */
static void
take_out(const Busy *busy, BusyPart *part, BusyId *slots, uint32 at)
{
	uint32		mask = busy->part_slots - 1;
	uint32		next = at;

	for (;;)
	{
		uint32		home;

		next = (next + 1) & mask;
		if (slots[next].owner == 0)
			break;
		home = (uint32) (mix(&slots[next].handle) / PARTS) & mask;
		if (((next - home) & mask) >= ((next - at) & mask))
		{
			slots[at] = slots[next];
			at = next;
		}
	}
	slots[at].owner = 0;
	part->count--;
}

bool
dv_sets_is_busy(DvSets *sets, const pg_uuid_t *handle)
{
	BusyId	   *slots;
	uint32		at;
	BusyPart   *part = part_of(sets->busy, handle, &slots, &at);
	bool		found;

	SpinLockAcquire(&part->mutex);
	found = slots[probe(sets->busy, slots, at, handle)].owner != 0;
	SpinLockRelease(&part->mutex);
	return found;
}

bool
dv_sets_enter_busy(DvSets *sets, const pg_uuid_t *handle)
{
	BusyId	   *slots;
	uint32		at;
	BusyPart   *part = part_of(sets->busy, handle, &slots, &at);
	bool		entered = false;

	SpinLockAcquire(&part->mutex);
	at = probe(sets->busy, slots, at, handle);
	if (slots[at].owner == 0 && part->count < sets->busy->part_slots - 1)
	{
		slots[at].handle = *handle;
		slots[at].owner = sets->lane + 1;
		part->count++;
		entered = true;
	}
	SpinLockRelease(&part->mutex);
	return entered;
}

void
dv_sets_leave_busy(DvSets *sets, const pg_uuid_t *handle)
{
	BusyId	   *slots;
	uint32		at;
	BusyPart   *part = part_of(sets->busy, handle, &slots, &at);

	SpinLockAcquire(&part->mutex);
	at = probe(sets->busy, slots, at, handle);
	if (slots[at].owner == sets->lane + 1)
		take_out(sets->busy, part, slots, at);
	SpinLockRelease(&part->mutex);
}

bool
dv_sets_full(DvSets *sets)
{
	/* ids spread evenly, so that one part tells of all; no lock for a hint */
	return sets->busy->parts[0].count > sets->busy->part_slots / 4 * 3;
}

void
dv_sets_purge_busy(DvSets *sets, int lane)
{
	Busy	   *busy = sets->busy;
	int			p;

	for (p = 0; p < PARTS; p++)
	{
		BusyId	   *slots = busy->slots + (Size) p * busy->part_slots;
		int			i = 0;

		SpinLockAcquire(&busy->parts[p].mutex);
		/* what moves up into a slot is looked at again */
		while (i < busy->part_slots)
			if (slots[i].owner == lane + 1)
				take_out(busy, &busy->parts[p], slots, i);
			else
				i++;
		SpinLockRelease(&busy->parts[p].mutex);
	}
}

/* ---------------------------------------------------------------- facts */

static const dshash_parameters *
fact_parameters(int tranche)
{
	static dshash_parameters p;

	p = dv_dshash_parameters(sizeof(pg_uuid_t), sizeof(Fact), tranche);
	return &p;
}

static const dshash_parameters *
answered_parameters(int tranche)
{
	static dshash_parameters p;

	p = dv_dshash_parameters(sizeof(DvVersion), sizeof(DvAnswered), tranche);
	return &p;
}

DvSets *
dv_sets_create(void *place, int lanes, dsa_area *area, int tranche, DvSetsHandle *handle)
{
	DvSets	   *sets = palloc0(sizeof(DvSets));
	Busy	   *busy = place;
	int			p;

	memset(busy, 0, dv_sets_size(lanes));
	busy->part_slots = busy_slots(lanes) / PARTS;
	pg_atomic_init_u32(&busy->nfacts, 0);
	pg_atomic_init_u32(&busy->nanswered, 0);
	for (p = 0; p < PARTS; p++)
		SpinLockInit(&busy->parts[p].mutex);
	sets->busy = busy;
	sets->facts = dshash_create(area, fact_parameters(tranche), NULL);
	sets->answered = dshash_create(area, answered_parameters(tranche), NULL);
	handle->facts = dshash_get_hash_table_handle(sets->facts);
	handle->answered = dshash_get_hash_table_handle(sets->answered);
	return sets;
}

DvSets *
dv_sets_attach(void *place, dsa_area *area, const DvSetsHandle *handle, int lane)
{
	DvSets	   *sets = palloc0(sizeof(DvSets));

	sets->busy = place;
	sets->lane = lane;
	/* the locks have their tranche from the lane that made them */
	sets->facts = dshash_attach(area, fact_parameters(0), handle->facts, NULL);
	sets->answered = dshash_attach(area, answered_parameters(0), handle->answered, NULL);
	return sets;
}

/* The fact of an id, made where there is none; to be released. */
static Fact *
fact_of(DvSets *sets, const pg_uuid_t *handle)
{
	bool		found;
	Fact	   *fact = dshash_find_or_insert(sets->facts, handle, &found);

	if (!found)
	{
		memset((char *) fact + sizeof(pg_uuid_t), 0, sizeof(Fact) - sizeof(pg_uuid_t));
		pg_atomic_fetch_add_u32(&sets->busy->nfacts, 1);
	}
	return fact;
}

/* The same for looking only; NULL where there is none. */
static Fact *
find_fact(DvSets *sets, const pg_uuid_t *handle, bool exclusive)
{
	return pg_atomic_read_u32(&sets->busy->nfacts) == 0 ? NULL : dshash_find(sets->facts, handle, exclusive);
}

void
dv_sets_set_known(DvSets *sets, const pg_uuid_t *handle, const pg_uuid_t *id, int64 created_run)
{
	Fact	   *fact = fact_of(sets, handle);

	fact->known = true;
	fact->id = *id;
	fact->created_run = created_run;
	dshash_release_lock(sets->facts, fact);
}

bool
dv_sets_is_known(DvSets *sets, const pg_uuid_t *handle, pg_uuid_t *id, int64 *created_run)
{
	Fact	   *fact = find_fact(sets, handle, false);
	bool		known;

	if (fact == NULL)
		return false;
	known = fact->known;
	*id = known ? fact->id : *id;
	if (known && fact->created_run != 0)
		*created_run = fact->created_run;
	dshash_release_lock(sets->facts, fact);
	return known;
}

bool
dv_sets_count_answer(DvSets *sets, const pg_uuid_t *handle, int max)
{
	Fact	   *fact = fact_of(sets, handle);
	bool		more = fact->answers < max;

	fact->answers += more;
	dshash_release_lock(sets->facts, fact);
	return more;
}

void
dv_sets_uncount_answer(DvSets *sets, const pg_uuid_t *handle)
{
	Fact	   *fact = find_fact(sets, handle, true);

	if (fact == NULL)
		return;
	fact->answers--;
	dshash_release_lock(sets->facts, fact);
}

void
dv_sets_set_refused(DvSets *sets, const pg_uuid_t *handle, bool refused)
{
	Fact	   *fact = refused ? fact_of(sets, handle) : find_fact(sets, handle, true);

	if (fact == NULL)
		return;
	fact->refused = refused;
	dshash_release_lock(sets->facts, fact);
}

long
dv_sets_count_refused(DvSets *sets)
{
	dshash_seq_status scan;
	Fact	   *fact;
	long		n = 0;

	dshash_seq_init(&scan, sets->facts, false);
	while ((fact = dshash_seq_next(&scan)) != NULL)
		n += fact->refused;
	dshash_seq_term(&scan);
	return n;
}

/* ---------------------------------------------------------------- answered versions */

bool
dv_sets_is_answered(DvSets *sets, const DvVersion *version)
{
	void	   *entry;

	if (pg_atomic_read_u32(&sets->busy->nanswered) == 0)
		return false;
	entry = dshash_find(sets->answered, version, false);
	if (entry != NULL)
		dshash_release_lock(sets->answered, entry);
	return entry != NULL;
}

void
dv_sets_add_answered(DvSets *sets, const DvAnswered *answered)
{
	bool		found;
	DvAnswered *entry = dshash_find_or_insert(sets->answered, &answered->version, &found);

	memcpy(entry, answered, sizeof(DvAnswered));
	if (!found)
		pg_atomic_fetch_add_u32(&sets->busy->nanswered, 1);
	dshash_release_lock(sets->answered, entry);
}

void
dv_sets_remove_answered(DvSets *sets, const DvVersion *version)
{
	if (dshash_delete_key(sets->answered, version))
		pg_atomic_fetch_sub_u32(&sets->busy->nanswered, 1);
}

DvAnswered *
dv_sets_locked(DvSets *sets, int *n)
{
	int			max = 64;
	DvAnswered *list = palloc(sizeof(DvAnswered) * max);
	dshash_seq_status scan;
	DvAnswered *entry;

	*n = 0;
	dshash_seq_init(&scan, sets->answered, false);
	while ((entry = dshash_seq_next(&scan)) != NULL)
	{
		if (!entry->locked)
			continue;
		if (*n == max)
			list = repalloc_huge(list, sizeof(DvAnswered) * (max *= 2));
		list[(*n)++] = *entry;
	}
	dshash_seq_term(&scan);
	return list;
}

static void
clear(dshash_table *table)
{
	dshash_seq_status scan;

	dshash_seq_init(&scan, table, true);
	while (dshash_seq_next(&scan) != NULL)
		dshash_delete_current(&scan);
	dshash_seq_term(&scan);
}

void
dv_sets_clear(DvSets *sets)
{
	Busy	   *busy = sets->busy;
	int			p;

	clear(sets->facts);
	clear(sets->answered);
	memset(busy->slots, 0, sizeof(BusyId) * PARTS * busy->part_slots);
	for (p = 0; p < PARTS; p++)
		busy->parts[p].count = 0;
	pg_atomic_write_u32(&sets->busy->nfacts, 0);
	pg_atomic_write_u32(&sets->busy->nanswered, 0);
}

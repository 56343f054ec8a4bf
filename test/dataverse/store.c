/*
 * store.c - ids to rows, transactions and their undo
 */
#include "store.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "journal.h"
#include "stats.h"

struct SimUndo
{
	SimTable   *table;			/* NULL: a link */
	uint32_t	slot;
	uint32_t	creates;
	uint32_t	updates;
	SimRow	   *old;
	SimManyToMany *relation;
	SimGuid		a,
				b;
	bool		added;
};

static pthread_rwlock_t lock;
static uint64_t last_version = 100000;

/* Principals by number and the other way round. */
static SimGuid *principals;
static uint32_t n_principals;
static uint32_t cap_principals;
static uint32_t *principal_hash;
static uint32_t principal_mask;

void
sim_store_init(void)
{
	pthread_rwlockattr_t attr;

	/* Writers first: a stream of reads must not starve a load. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	for (int i = 0; i < sim_model.n_tables; i++)
	{
		SimTable   *t = sim_model.tables[i];

		t->store = sim_zalloc(sizeof *t->store);
		for (int k = 0; k < t->n_keys; k++)
			sim_key_rebuild(t, &t->keys[k]);
	}
}

void
sim_store_clear(void)
{
	for (int i = 0; i < sim_model.n_tables; i++)
	{
		SimTable   *t = sim_model.tables[i];

		for (uint32_t k = 0; k < t->store->n; k++)
			free(t->store->slots[k].row);
		free(t->store->slots);
		free(t->store->hash);
		memset(t->store, 0, sizeof *t->store);
		for (int k = 0; k < t->n_keys; k++)
			sim_key_rebuild(t, &t->keys[k]);
	}
	sim_links_clear();
	sim_journal_clear();
}

uint64_t
sim_store_next_version(void)
{
	return ++last_version;
}

SimSlot *
sim_store_slot(const SimTable *t, uint32_t i)
{
	return &t->store->slots[i];
}

static uint32_t
find_any(const SimStore *s, SimGuid id)
{
	uint32_t	at;

	if (s->hash == NULL)
		return SIM_NO_SLOT;
	for (at = (uint32_t) sim_guid_hash(id) & s->mask; s->hash[at] != 0; at = (at + 1) & s->mask)
		if (sim_guid_eq(s->slots[s->hash[at] - 1].id, id))
			return s->hash[at] - 1;
	return SIM_NO_SLOT;
}

uint32_t
sim_store_find(const SimTable *t, SimGuid id)
{
	uint32_t	i = find_any(t->store, id);

	return i != SIM_NO_SLOT && t->store->slots[i].row != NULL ? i : SIM_NO_SLOT;
}

SimSlot *
sim_store_any(const SimTable *t, SimGuid id)
{
	uint32_t	i = find_any(t->store, id);

	return i != SIM_NO_SLOT ? &t->store->slots[i] : NULL;
}

bool
sim_store_exists(const SimTable *t, SimGuid id)
{
	if (sim_store_find(t, id) != SIM_NO_SLOT)
		return true;
	if (strcmp(t->name, "activitypointer") != 0)
		return false;
	for (int i = 0; i < sim_model.n_tables; i++)
		if (sim_model.tables[i]->activity && sim_store_find(sim_model.tables[i], id) != SIM_NO_SLOT)
			return true;
	return false;
}

static void
grow_hash(SimStore *s)
{
	uint32_t	size = s->hash != NULL ? (s->mask + 1) * 2 : 256;

	free(s->hash);
	s->hash = sim_zalloc(sizeof *s->hash * size);
	s->mask = size - 1;
	for (uint32_t i = 0; i < s->n; i++)
	{
		uint32_t	at = (uint32_t) sim_guid_hash(s->slots[i].id) & s->mask;

		while (s->hash[at] != 0)
			at = (at + 1) & s->mask;
		s->hash[at] = i + 1;
	}
}

/* The slot of an id, a new one where it never existed. */
static uint32_t
take_slot(SimStore *s, SimGuid id)
{
	uint32_t	i = find_any(s, id),
				at;

	if (i != SIM_NO_SLOT)
		return i;
	if (s->n == s->cap)
	{
		s->cap = s->cap ? s->cap * 2 : 64;
		s->slots = sim_realloc(s->slots, sizeof *s->slots * s->cap);
	}
	i = s->n++;
	s->slots[i] = (SimSlot) {.id = id};
	if (s->hash == NULL || s->n * 2 > s->mask)
	{
		grow_hash(s);
		return i;
	}
	at = (uint32_t) sim_guid_hash(id) & s->mask;
	while (s->hash[at] != 0)
		at = (at + 1) & s->mask;
	s->hash[at] = i + 1;
	return i;
}

void
sim_txn_begin(SimTxn *x, bool write)
{
	memset(x, 0, sizeof *x);
	x->write = write;
	if (write)
		pthread_rwlock_wrlock(&lock);
	else
		pthread_rwlock_rdlock(&lock);
}

static SimUndo *
note(SimTxn *x)
{
	if (x->n_undo == x->cap_undo)
	{
		x->cap_undo = x->cap_undo ? x->cap_undo * 2 : 16;
		x->undo = sim_realloc(x->undo, sizeof *x->undo * x->cap_undo);
	}
	return memset(&x->undo[x->n_undo++], 0, sizeof *x->undo);
}

void
sim_txn_note_link(SimTxn *x, SimManyToMany *r, SimGuid a, SimGuid b, bool added)
{
	SimUndo    *u = note(x);

	u->relation = r;
	u->a = a;
	u->b = b;
	u->added = added;
	x->linked++;
}

void
sim_store_redo(SimTable *t, SimGuid id, SimRow *row, uint32_t creates, uint32_t updates)
{
	uint32_t	i = take_slot(t->store, id);
	SimSlot    *slot = &t->store->slots[i];

	if (slot->row != NULL)
	{
		sim_key_remove(t, i, slot->row);
		t->store->live--;
		free(slot->row);
	}
	slot->row = row;
	slot->creates = creates;
	slot->updates = updates;
	if (row == NULL)
		return;
	t->store->live++;
	sim_key_add(t, i, row);
	if (row->version > last_version)
		last_version = row->version;
}

static void
write_journal(const SimTxn *x)
{
	for (size_t i = 0; i < x->n_undo; i++)
	{
		const SimUndo *u = &x->undo[i];

		if (u->table != NULL)
			sim_journal_slot(u->table, u->slot);
		else
			sim_journal_link(u->relation, u->a, u->b, u->added);
	}
	sim_journal_commit();
}

void
sim_txn_commit(SimTxn *x)
{
	write_journal(x);
	pthread_rwlock_unlock(&lock);
	for (size_t i = 0; i < x->n_undo; i++)
		free(x->undo[i].old);
	free(x->undo);
	sim_stats_rows(x->created, x->updated, x->deleted, x->linked);
	memset(x, 0, sizeof *x);
}

static void
undo_row(SimUndo *u)
{
	SimSlot    *slot = &u->table->store->slots[u->slot];

	if (slot->row != NULL)
	{
		sim_key_remove(u->table, u->slot, slot->row);
		u->table->store->live--;
		free(slot->row);
	}
	slot->row = u->old;
	slot->creates = u->creates;
	slot->updates = u->updates;
	if (slot->row != NULL)
	{
		u->table->store->live++;
		sim_key_add(u->table, u->slot, slot->row);
	}
}

void
sim_txn_rollback(SimTxn *x)
{
	for (size_t i = x->n_undo; i-- > 0;)
	{
		SimUndo    *u = &x->undo[i];

		if (u->table != NULL)
			undo_row(u);
		else
			sim_links_undo(u->relation, u->a, u->b, u->added);
	}
	free(x->undo);
	pthread_rwlock_unlock(&lock);
	memset(x, 0, sizeof *x);
}

bool
sim_txn_put(SimTxn *x, SimTable *t, SimGuid id, SimRow *row, bool create, SimErr *e)
{
	SimUndo    *u;
	SimSlot    *slot;
	uint32_t	i;

	if (t->n_keys > 0 && !sim_key_check(t, id, row, e))
	{
		free(row);
		return false;
	}
	i = take_slot(t->store, id);
	slot = &t->store->slots[i];
	u = note(x);
	u->table = t;
	u->slot = i;
	u->old = slot->row;
	u->creates = slot->creates;
	u->updates = slot->updates;
	if (slot->row != NULL)
		sim_key_remove(t, i, slot->row);
	else
		t->store->live++;
	slot->row = row;
	sim_key_add(t, i, row);
	if (create)
	{
		slot->creates++;
		x->created++;
	}
	else
	{
		slot->updates++;
		x->updated++;
	}
	return true;
}

void
sim_txn_delete(SimTxn *x, SimTable *t, uint32_t i)
{
	SimSlot    *slot = &t->store->slots[i];
	SimUndo    *u = note(x);

	u->table = t;
	u->slot = i;
	u->old = slot->row;
	u->creates = slot->creates;
	u->updates = slot->updates;
	sim_key_remove(t, i, slot->row);
	slot->row = NULL;
	t->store->live--;
	x->deleted++;
}

static void
grow_principals(void)
{
	uint32_t	size = principal_hash != NULL ? (principal_mask + 1) * 2 : 64;

	free(principal_hash);
	principal_hash = sim_zalloc(sizeof *principal_hash * size);
	principal_mask = size - 1;
	for (uint32_t i = 0; i < n_principals; i++)
	{
		uint32_t	at = (uint32_t) sim_guid_hash(principals[i]) & principal_mask;

		while (principal_hash[at] != 0)
			at = (at + 1) & principal_mask;
		principal_hash[at] = i + 1;
	}
}

uint32_t
sim_principal_number(SimGuid id)
{
	uint32_t	at;

	if (principal_hash != NULL)
		for (at = (uint32_t) sim_guid_hash(id) & principal_mask; principal_hash[at] != 0; at = (at + 1) & principal_mask)
			if (sim_guid_eq(principals[principal_hash[at] - 1], id))
				return principal_hash[at];
	if (n_principals == cap_principals)
	{
		cap_principals = cap_principals ? cap_principals * 2 : 64;
		principals = sim_realloc(principals, sizeof *principals * cap_principals);
	}
	principals[n_principals++] = id;
	if (principal_hash == NULL || n_principals * 2 > principal_mask)
	{
		grow_principals();
		return n_principals;
	}
	at = (uint32_t) sim_guid_hash(id) & principal_mask;
	while (principal_hash[at] != 0)
		at = (at + 1) & principal_mask;
	principal_hash[at] = n_principals;
	return n_principals;
}

SimGuid
sim_principal_guid(uint32_t number)
{
	return number > 0 && number <= n_principals ? principals[number - 1] : (SimGuid) {0, 0};
}

/*
 * store.h - the records in memory: rows, their ids, alternate keys and links
 *
 * A row is one immutable block; an update makes a new block and swaps the
 * pointer, so that undoing a change is putting the old pointer back. All
 * changes go through a transaction, which holds the store's lock.
 */
#ifndef SIM_STORE_H
#define SIM_STORE_H

#include "error.h"
#include "metadata.h"

#define SIM_NO_SLOT UINT32_MAX
#define SIM_NO_TIME INT64_MIN

/* One value outside a row; which member of the union counts, the column says. */
typedef struct SimVal
{
	uint16_t	column;
	uint16_t	target;			/* lookups: number of the target table */
	bool		null;
	uint32_t	len;			/* of s */
	union
	{
		int64_t		i;			/* numbers, choices; dates: seconds or days since 1970 */
		double		d;
		const char *s;
		SimGuid		g;
	}			v;
} SimVal;

typedef struct SimCell
{
	uint16_t	column;
	uint16_t	target;
	uint32_t	at;				/* offset of the value from the row's begin */
} SimCell;

typedef struct SimRow
{
	uint64_t	version;
	int64_t		created_on;		/* seconds since 1970, UTC */
	int64_t		modified_on;
	int64_t		overridden_on;	/* or SIM_NO_TIME */
	uint32_t	created_by;		/* principal numbers */
	uint32_t	modified_by;
	uint32_t	behalf_of;		/* the real caller under impersonation; 0 none */
	uint32_t	owner;
	uint32_t	bytes;
	uint16_t	n_cells;
	bool		owner_is_team;
	SimCell		cells[];
} SimRow;

typedef struct SimSlot
{
	SimGuid		id;
	SimRow	   *row;			/* NULL after a delete: the counters stay */
	uint32_t	creates;		/* how often create logic ran, committed */
	uint32_t	updates;
} SimSlot;

typedef struct SimStore
{
	SimSlot    *slots;
	uint32_t	n;
	uint32_t	cap;
	uint32_t   *hash;			/* slot + 1 */
	uint32_t	mask;
	uint32_t	live;
} SimStore;

typedef struct SimUndo SimUndo;

typedef struct SimTxn
{
	bool		write;
	SimUndo    *undo;
	size_t		n_undo;
	size_t		cap_undo;
	uint64_t	created;
	uint64_t	updated;
	uint64_t	deleted;
	uint64_t	linked;
} SimTxn;

/* Make the empty stores; call once after the metadata is there. */
extern void sim_store_init(void);

/* Forget every record (the caller seeds anew). */
extern void sim_store_clear(void);

/* Take the lock, shared or exclusive; end the transaction one way or the other. */
extern void sim_txn_begin(SimTxn *x, bool write);
extern void sim_txn_commit(SimTxn *x);
extern void sim_txn_rollback(SimTxn *x);

/* Slot of a live record, or SIM_NO_SLOT; any slot that ever had the id. */
extern uint32_t sim_store_find(const SimTable *t, SimGuid id);
extern SimSlot *sim_store_any(const SimTable *t, SimGuid id);
extern SimSlot *sim_store_slot(const SimTable *t, uint32_t i);

/* Live record of "t", looking through the activity tables for activitypointer. */
extern bool sim_store_exists(const SimTable *t, SimGuid id);

/*
 * Build a row block from values; "old" gives header and cells that "vals" does
 * not override. The block belongs to the caller until it is put.
 */
extern SimRow *sim_row_build(const SimTable *t, const SimRow *old, const SimVal *vals, int n);

/* Read a cell; false when the column is null. */
extern bool sim_row_cell(const SimTable *t, const SimRow *row, uint16_t column, SimVal *out);

/* Read any column, implied ones too; false when null. */
extern bool sim_record_value(const SimTable *t, const SimSlot *slot, uint16_t column, SimVal *out);

/*
 * Insert (create) or replace a record's row, keeping keys unique. On success
 * the row belongs to the store; on failure it is freed and "e" is filled.
 */
extern bool sim_txn_put(SimTxn *x, SimTable *t, SimGuid id, SimRow *row, bool create, SimErr *e);
extern void sim_txn_delete(SimTxn *x, SimTable *t, uint32_t slot);

/* Add or remove a link; false when it was (not) there. */
extern bool sim_txn_link(SimTxn *x, SimManyToMany *r, SimGuid a, SimGuid b);
extern bool sim_txn_unlink(SimTxn *x, SimManyToMany *r, SimGuid a, SimGuid b);

/* Call back for every link of "r" whose side "side" is id (or all: NULL). */
extern void sim_links_each(const SimManyToMany *r, int side, const SimGuid *id,
						   void (*call) (void *arg, SimGuid a, SimGuid b), void *arg);

/* Find by alternate key: vals in the key's column order, none null. */
extern uint32_t sim_key_find(const SimTable *t, const SimKey *k, const SimVal *vals);

/* Rebuild an index after its status or the comparison rule changed. */
extern void sim_key_rebuild(SimTable *t, SimKey *k);
extern bool sim_key_active(const SimKey *k);

/* Put a record back as a journal tells it; row NULL where it was deleted. */
extern void sim_store_redo(SimTable *t, SimGuid id, SimRow *row, uint32_t creates, uint32_t updates);

/* Used between the store's files. */
extern bool sim_key_check(const SimTable *t, SimGuid self, const SimRow *row, SimErr *e);
extern void sim_key_add(SimTable *t, uint32_t slot, const SimRow *row);
extern void sim_key_remove(SimTable *t, uint32_t slot, const SimRow *row);
extern void sim_links_undo(SimManyToMany *r, SimGuid a, SimGuid b, bool was_added);
extern void sim_links_clear(void);
extern void sim_txn_note_link(SimTxn *x, SimManyToMany *r, SimGuid a, SimGuid b, bool added);

/* Numbers for users and teams, so that rows stay small; 0 means none. */
extern uint32_t sim_principal_number(SimGuid id);
extern SimGuid sim_principal_guid(uint32_t number);

/* The next row version; call with the lock held. */
extern uint64_t sim_store_next_version(void);

#endif							/* SIM_STORE_H */

/*
 * direct.c - flags and success rows past the executor
 *
 * The rules of flags.c hold here as they do for its SQL: the version is the one
 * that was read, in the file that was read; a row that was edited in the
 * meantime is not touched; a lock is waited for, but briefly. What a statement
 * checks is checked: rights, constraints, replica identity.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "direct.h"
#include "flagged.h"
#include "hash128.h"

/* Columns of a success table that dvmig made, behind its keys. */
enum
{
	S_ID, S_OPERATION, S_PASS, S_HASH, S_CREATED, S_RUN, S_RECORDED, S_MESSAGE, S_OWED, S_STATE, S_FILES, S_COLUMNS
};

static const struct
{
	const char *name;
	Oid			type;
}			success_columns[S_COLUMNS] = {
	{"dataverse_id", UUIDOID}, {"operation", TEXTOID}, {"pass", TEXTOID}, {"content_hash", BYTEAOID},
	{"created_run", INT8OID}, {"run", INT8OID}, {"recorded_at", TIMESTAMPTZOID}, {"message", TEXTOID}, {"owed_passes", TEXTOID},
	{"record_state", TEXTOID}, {"file_hash", TEXTOID}
};

/* What a flag and an id that were null add to a row: a uuid, a short text, a null bitmap. */
#define FLAG_GROWTH	40

struct DvDirect
{
	Relation	rel;
	EState	   *estate;
	ResultRelInfo *info;
	CommandId	cid;
	bool		constrained;	/* are rows to be checked? */

	/* updates: the row as it is, and as it is to be; NULL where there are none */
	TupleTableSlot *old;
	TupleTableSlot *slot;

	/* flags */
	AttrNumber	flag;
	AttrNumber	id;
	BlockNumber pruned;			/* the page that was made room in last */
	int			moved;			/* rows whose new version is in another page */

	/* success rows: when they are recorded, and where each column goes, from 0 */
	TimestampTz now;
	int			keys[INDEX_MAX_KEYS];
	int			columns[S_COLUMNS];
};

/* ---------------------------------------------------------------- may it be? */

/* Nothing of a user's acts on writing to the relation, and nobody wants to know of it (pgaudit, sepgsql). */
static bool
is_plain(Relation rel)
{
	const TupleConstr *constr = rel->rd_att->constr;

	return ExecutorCheckPerms_hook == NULL && rel->rd_rules == NULL && !rel->rd_rel->relhastriggers &&
		(constr == NULL || !dv_has_generated(constr)) &&
		check_enable_rls(RelationGetRelid(rel), InvalidOid, true) != RLS_ENABLED;
}

static bool
has_rights(Oid table, AclMode rights)
{
	return pg_class_aclcheck(table, GetUserId(), rights) == ACLCHECK_OK;
}

/* Would the new flag or id send the row to another partition, or ask whether it may stay? */
static bool
is_partitioned_by(Relation rel, const char *const *names, int n)
{
	ListCell   *cell;
	bool		by = false;

	if (!rel->rd_rel->relispartition)
		return false;
	foreach(cell, get_partition_ancestors(RelationGetRelid(rel)))
	{
		Relation	ancestor = try_table_open(lfirst_oid(cell), AccessShareLock);
		Bitmapset  *columns = NULL;
		bool		in_expression;
		int			i;

		/* detached and dropped meanwhile: for SQL to find out */
		if (ancestor == NULL)
			return true;
		for (i = 0; i < n; i++)
			columns = bms_add_member(columns, get_attnum(RelationGetRelid(ancestor), names[i]) - FirstLowInvalidHeapAttributeNumber);
		by |= has_partition_attrs(ancestor, columns, &in_expression);
		table_close(ancestor, AccessShareLock);
	}
	return by;
}

/*
 * The table as it is registered, where rows are in a partition of it. A child by
 * inheritance, and what was a partition when it was read, is for SQL: rights on
 * the registered table say nothing of one that no longer belongs to it.
 */
static bool
parent_is_plain(Oid parent, Relation partition)
{
	Relation	rel;
	bool		plain;

	if (!partition->rd_rel->relispartition ||
		!list_member_oid(get_partition_ancestors(RelationGetRelid(partition)), parent))
		return false;
	rel = try_table_open(parent, RowExclusiveLock);
	if (rel == NULL)
		return false;
	plain = is_plain(rel);

	table_close(rel, NoLock);
	return plain;
}

/* ---------------------------------------------------------------- open and close */

static DvDirect *
open_direct(Relation rel)
{
	DvDirect   *d = palloc0(sizeof(DvDirect));

	d->rel = rel;
	d->estate = CreateExecutorState();
	d->info = makeNode(ResultRelInfo);
	InitResultRelInfo(d->info, rel, 0, NULL, 0);
	ExecOpenIndices(d->info, false);
	d->cid = GetCurrentCommandId(true);
	d->constrained = rel->rd_att->constr != NULL;
	return d;
}

void
dv_direct_close(DvDirect *d)
{
	if (d->old != NULL)
		ExecDropSingleTupleTableSlot(d->old);
	if (d->slot != NULL)
		ExecDropSingleTupleTableSlot(d->slot);
	ExecCloseIndices(d->info);
	FreeExecutorState(d->estate);
	table_close(d->rel, NoLock);
	pfree(d);
}

/* A type in which a flag is one character behind its length. */
static bool
holds_flag(Form_pg_attribute column)
{
	return column->atttypid == TEXTOID || column->atttypid == VARCHAROID ||
		(column->atttypid == BPCHAROID && column->atttypmod == VARHDRSZ + 1);
}

DvDirect *
dv_direct_open_flags(Oid staging, Oid table)
{
	static const char *const names[] = {"processing_flag", "dataverse_id"};
	Relation	rel = try_table_open(table, RowExclusiveLock);
	AttrNumber	flag = get_attnum(table, names[0]);
	AttrNumber	id = get_attnum(table, names[1]);
	DvDirect   *d;

	if (rel == NULL)
		return NULL;
	if (rel->rd_rel->relkind != RELKIND_RELATION || !is_plain(rel) || (staging != table && !parent_is_plain(staging, rel)) ||
		!has_rights(staging, ACL_SELECT) || !has_rights(staging, ACL_UPDATE) ||
		flag == InvalidAttrNumber || !holds_flag(TupleDescAttr(rel->rd_att, flag - 1)) ||
		id == InvalidAttrNumber || TupleDescAttr(rel->rd_att, id - 1)->atttypid != UUIDOID ||
		is_partitioned_by(rel, names, lengthof(names)))
	{
		table_close(rel, NoLock);
		return NULL;
	}
	CheckCmdReplicaIdentity(rel, CMD_UPDATE);
	d = open_direct(rel);
	/* a flag makes nothing null that was not */
	d->constrained = rel->rd_att->constr != NULL && (rel->rd_att->constr->num_check > 0 || dv_may_break_not_null(rel->rd_att));
	d->old = table_slot_create(rel, NULL);
	d->slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsHeapTuple);
	d->flag = flag;
	d->id = id;
	d->pruned = InvalidBlockNumber;
	return d;
}

/* Where a column is and whether it has the type it was made with; -1 otherwise. */
static int
column_at(Relation rel, const char *name, Oid type)
{
	AttrNumber	at = get_attnum(RelationGetRelid(rel), name);

	return at > 0 && getBaseType(TupleDescAttr(rel->rd_att, at - 1)->atttypid) == type ? at - 1 : -1;
}

/* Find the columns; false where one is missing, or one more wants a value that we do not know. */
static bool
find_columns(DvDirect *d, Relation rel, const DvProjection *p)
{
	const TupleConstr *constr = rel->rd_att->constr;
	int			defaults = constr != NULL ? constr->num_defval : 0;
	bool		all = true;
	int			i;

	for (i = 0; i < p->nkeys; i++)
		all &= (d->keys[i] = column_at(rel, p->keys[i].name, p->keys[i].type)) >= 0;
	for (i = 0; i < S_COLUMNS; i++)
		all &= (d->columns[i] = column_at(rel, success_columns[i].name, success_columns[i].type)) >= 0;
	for (i = 0; i < rel->rd_att->natts; i++)
		all &= TupleDescAttr(rel->rd_att, i)->attidentity == '\0';
	/* the one default is that of recorded_at */
	return all && (defaults == 0 || (defaults == 1 && TupleDescAttr(rel->rd_att, d->columns[S_RECORDED])->atthasdef));
}

DvDirect *
dv_direct_open_success(const DvProjection *p)
{
	DvDirect	found;
	DvDirect   *d;
	Relation	rel = try_table_open(p->success, RowExclusiveLock);

	/* SQL says of what was dropped since that it does not exist */
	if (rel == NULL)
		return NULL;
	if (rel->rd_rel->relkind != RELKIND_RELATION || rel->rd_rel->relispartition || !is_plain(rel) ||
		!has_rights(p->success, ACL_INSERT) || !find_columns(&found, rel, p))
	{
		table_close(rel, NoLock);
		return NULL;
	}
	d = open_direct(rel);
	d->now = GetCurrentTimestamp();
	memcpy(d->keys, found.keys, sizeof(d->keys));
	memcpy(d->columns, found.columns, sizeof(d->columns));
	if (has_rights(p->success, ACL_SELECT) && has_rights(p->success, ACL_UPDATE))
	{
		CheckCmdReplicaIdentity(rel, CMD_UPDATE);
		d->old = table_slot_create(rel, NULL);
		d->slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	}
	return d;
}

/* Put d->slot in the place of the row at "ctid"; false where that is not the last version. */
static bool
replace(DvDirect *d, ItemPointer ctid)
{
	TM_FailureData failure;
	LockTupleMode lock;
	dv_update_indexes indexes;
	TM_Result	result;

	if (d->constrained)
		ExecConstraints(d->info, d->slot, d->estate);
	result = table_tuple_update(d->rel, ctid, d->slot, d->cid, GetActiveSnapshot(), InvalidSnapshot,
								true, &failure, &lock, &indexes);
	if (result != TM_Ok && result != TM_Updated && result != TM_Deleted)
		elog(ERROR, "updating a row was answered %d", (int) result);
	if (result == TM_Ok && ItemPointerGetBlockNumber(&d->slot->tts_tid) != ItemPointerGetBlockNumber(ctid))
		d->moved++;
	if (result == TM_Ok && d->info->ri_NumIndices > 0 && dv_updates_indexes(indexes))
		dv_insert_index_tuples(d->info, d->slot, d->estate, true, indexes);
	ExecClearTuple(d->slot);
	ExecClearTuple(d->old);
	ResetPerTupleExprContext(d->estate);
	return result == TM_Ok;
}

/* ---------------------------------------------------------------- flags */

/* The row with its new flag and id, in d->slot. */
static void
make_flagged(DvDirect *d, char flag, const pg_uuid_t *id)
{
	bool		should_free;
	HeapTuple	old = ExecFetchSlotHeapTuple(d->old, false, &should_free);

	ExecStoreHeapTuple(dv_flagged(old, RelationGetDescr(d->rel), d->flag, flag, d->id, id), d->slot, true);
	if (should_free)
		heap_freetuple(old);
}

/*
 * Is there no room for the row's new version, and something to be pruned? Then
 * the page is marked as full, as the update that found none would have marked it.
 */
static bool
lacks_room(Buffer buffer, OffsetNumber offset)
{
	Page		page = BufferGetPage(buffer);
	bool		lacks;

	if (!TransactionIdIsValid(((PageHeader) page)->pd_prune_xid))
		return false;
	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	lacks = offset <= PageGetMaxOffsetNumber(page) &&
		PageGetHeapFreeSpace(page) < MAXALIGN(ItemIdGetLength(PageGetItemId(page, offset))) + FLAG_GROWTH;
	if (lacks)
		PageSetFull(page);
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	return lacks;
}

/*
 * Make room in the row's page for its new version, as a scan that comes by would:
 * what the last lot's rows have left there is of no use to anybody (stripes.c).
 * Before the row is fetched, because a page that is pinned is not pruned.
 */
static void
make_room(DvDirect *d, const DvVersion *version)
{
	BlockNumber block = ItemPointerGetBlockNumberNoCheck(&version->ctid);
	Buffer		buffer;

	if (block == d->pruned || d->rel->rd_tableam != GetHeapamTableAmRoutine())
		return;
	d->pruned = block;
	buffer = ReadBuffer(d->rel, block);
	if (lacks_room(buffer, ItemPointerGetOffsetNumberNoCheck(&version->ctid)))
		heap_page_prune_opt(d->rel, buffer);
	ReleaseBuffer(buffer);
}

static bool
is_version(DvDirect *d, const DvVersion *version)
{
	ItemPointerData ctid = version->ctid;
	bool		isnull;

	if (d->rel->rd_rel->relfilenode != version->filenode)
		return false;
	make_room(d, version);
	return table_tuple_fetch_row_version(d->rel, &ctid, GetActiveSnapshot(), d->old) &&
		DatumGetTransactionId(slot_getsysattr(d->old, MinTransactionIdAttributeNumber, &isnull)) == version->xmin;
}

bool
dv_direct_flag(DvDirect *d, const DvVersion *version, char flag, const pg_uuid_t *id)
{
	ItemPointerData ctid = version->ctid;

	if (!is_version(d, version))
		return false;
	make_flagged(d, flag, id);
	return replace(d, &ctid);
}

int
dv_direct_moved(const DvDirect *d)
{
	return d->moved;
}

/* ---------------------------------------------------------------- success rows */

static void
set_text(TupleTableSlot *slot, int at, const char *text)
{
	slot->tts_isnull[at] = text == NULL;
	if (text != NULL)
		slot->tts_values[at] = CStringGetTextDatum(text);
}

/* What the verdict says; the other columns stay what they are in the slot. */
static void
set_outcome(DvDirect *d, const DvStep *step, const DvOutcome *o, TupleTableSlot *slot)
{
	const DvRow *row = o->row;
	char		op[2] = {row->wire.op, '\0'};
	const int  *at = d->columns;

	slot->tts_values[at[S_ID]] = UUIDPGetDatum(&row->uuid);
	slot->tts_isnull[at[S_ID]] = row->wire.id[0] == '\0';
	set_text(slot, at[S_OPERATION], op);
	slot->tts_isnull[at[S_HASH]] = !row->has_hash;
	if (row->has_hash)
		slot->tts_values[at[S_HASH]] = dv_hash128_datum(row->hash);
	if (row->created_run != 0)
	{
		slot->tts_values[at[S_CREATED]] = Int64GetDatum(row->created_run);
		slot->tts_isnull[at[S_CREATED]] = false;
	}
	slot->tts_values[at[S_RUN]] = Int64GetDatum(step->rc->run);
	slot->tts_isnull[at[S_RUN]] = false;
	slot->tts_values[at[S_RECORDED]] = TimestampTzGetDatum(d->now);
	slot->tts_isnull[at[S_RECORDED]] = false;
	set_text(slot, at[S_MESSAGE], dv_outcome_message(o));
	set_text(slot, at[S_OWED], dv_outcome_owed_passes(row->owes));
}

static void
fill_slot(DvDirect *d, const DvStep *step, const DvOutcome *o, TupleTableSlot *slot)
{
	const DvProjection *p = step->projection;
	int			i;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts);
	for (i = 0; i < p->nkeys; i++)
	{
		slot->tts_values[d->keys[i]] = o->row->keys[i];
		slot->tts_isnull[d->keys[i]] = false;
	}
	set_outcome(d, step, o, slot);
	set_text(slot, d->columns[S_PASS], p->pass);
	ExecStoreVirtualTuple(slot);
}

/* Is the row in d->old that of these keys? Equal ones that are written otherwise are for SQL to find. */
static bool
has_keys(DvDirect *d, const DvProjection *p, const DvRow *row)
{
	int			i;

	slot_getallattrs(d->old);
	for (i = 0; i < p->nkeys; i++)
		if (d->old->tts_isnull[d->keys[i]] ||
			!datum_image_eq(d->old->tts_values[d->keys[i]], row->keys[i], p->keys[i].byval, p->keys[i].len))
			return false;
	return true;
}

/* What was not written stays of the pass that it was of: the outcome in d->old. */
static bool
is_written(DvDirect *d, const DvOutcome *o)
{
	int			at = d->columns[S_OPERATION];

	if (o->message == NULL)
		return true;
	return strncmp(o->message, "unchanged", 9) != 0 &&
		(strncmp(o->message, "kept", 4) != 0 || d->old->tts_isnull[at] || strcmp(TextDatumGetCString(d->old->tts_values[at]), "D") == 0);
}

/* The same rules as the INSERT ... ON CONFLICT of outcome.c has in the pass that writes. */
bool
dv_direct_update(DvDirect *d, const DvStep *step, const DvOutcome *o)
{
	ItemPointerData ctid = o->row->outcome;
	const int  *at = d->columns;
	int			natts = RelationGetDescr(d->rel)->natts;

	if (d->slot == NULL || !ItemPointerIsValid(&ctid) ||
		!table_tuple_fetch_row_version(d->rel, &ctid, GetActiveSnapshot(), d->old) || !has_keys(d, step->projection, o->row))
		return false;
	ExecClearTuple(d->slot);
	memcpy(d->slot->tts_values, d->old->tts_values, sizeof(Datum) * natts);
	memcpy(d->slot->tts_isnull, d->old->tts_isnull, sizeof(bool) * natts);
	set_outcome(d, step, o, d->slot);
	if (is_written(d, o))
		set_text(d->slot, at[S_PASS], step->projection->pass);
	/* a new record, or none, has neither state nor files of ours */
	if (o->row->wire.op != 'U')
		d->slot->tts_isnull[at[S_STATE]] = d->slot->tts_isnull[at[S_FILES]] = true;
	ExecStoreVirtualTuple(d->slot);
	return replace(d, &ctid);
}

void
dv_direct_insert(DvDirect *d, const DvStep *step, DvOutcome **rows, int n)
{
	TupleTableSlot **slots = palloc(sizeof(TupleTableSlot *) * n);
	TupleDesc	desc = CreateTupleDescCopy(RelationGetDescr(d->rel));	/* not counted: a thousand slots point at it */
	int			i;

	for (i = 0; i < n; i++)
	{
		slots[i] = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
		fill_slot(d, step, rows[i], slots[i]);
		if (d->constrained)
			ExecConstraints(d->info, slots[i], d->estate);
	}
	/* no ring of buffers, which would write pages out that the next lot needs */
	table_multi_insert(d->rel, slots, n, d->cid, 0, NULL);
	for (i = 0; i < n; i++)
	{
		if (d->info->ri_NumIndices > 0)
			dv_insert_index_tuples(d->info, slots[i], d->estate, false, DV_ALL_INDEXES);
		ExecDropSingleTupleTableSlot(slots[i]);
		ResetPerTupleExprContext(d->estate);
	}
}

/*
 * texts.c - the first column of a query, as text, for functions that return a set
 */
#include "postgres.h"

#include "executor/tuptable.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "texts.h"

typedef struct Texts
{
	DestReceiver pub;
	ReturnSetInfo *info;
	FmgrInfo	out;			/* of the column's type */
	MemoryContext context;
	MemoryContext row;			/* of one row */
} Texts;

static void
startup(DestReceiver *self, int operation, TupleDesc desc)
{
	Texts	   *texts = (Texts *) self;
	Oid			function;
	bool		is_varlena;

	(void) operation;
	if (desc->natts < 1)
		elog(ERROR, "a query without columns has no texts");
	getTypeOutputInfo(TupleDescAttr(desc, 0)->atttypid, &function, &is_varlena);
	fmgr_info_cxt(function, &texts->out, texts->context);
}

static bool
receive(TupleTableSlot *slot, DestReceiver *self)
{
	Texts	   *texts = (Texts *) self;
	MemoryContext old = MemoryContextSwitchTo(texts->row);
	bool		isnull;
	Datum		value = slot_getattr(slot, 1, &isnull);

	if (!isnull)
		value = CStringGetTextDatum(OutputFunctionCall(&texts->out, value));
	tuplestore_putvalues(texts->info->setResult, texts->info->setDesc, &value, &isnull);
	MemoryContextSwitchTo(old);
	MemoryContextReset(texts->row);
	return true;
}

static void
nothing(DestReceiver *self)
{
	(void) self;
}

DestReceiver *
dv_texts_receiver(ReturnSetInfo *info)
{
	Texts	   *texts = palloc0(sizeof(Texts));

	texts->pub.receiveSlot = receive;
	texts->pub.rStartup = startup;
	texts->pub.rShutdown = texts->pub.rDestroy = nothing;
	texts->pub.mydest = DestTuplestore;
	texts->info = info;
	texts->context = CurrentMemoryContext;
	texts->row = AllocSetContextCreate(CurrentMemoryContext, "dvmig texts", ALLOCSET_SMALL_SIZES);
	return &texts->pub;
}

/*
 * quiet.c - has anybody but the run written since a lap began?
 *
 * Transactions that write are numbered one after the other. Where all that were
 * numbered before the lap had ended when it began, what they wrote was there to
 * be read; where as many were numbered since as the run has had itself, there
 * was no other. What is not counted, because a user's code ran in it or it was
 * aborted half-way, is one of somebody else's: then the table is looked at.
 */
#include "postgres.h"

#include "access/xact.h"
#include "storage/procarray.h"

#include "quiet.h"

/* Of the run that this worker is a lane of; NULL in sessions. */
static DvQuiet *shared_quiet;

void
dv_quiet_init(DvQuiet *quiet)
{
	pg_atomic_init_u64(&quiet->own, 0);
	quiet->began = InvalidFullTransactionId;
}

void
dv_quiet_share(DvQuiet *quiet)
{
	shared_quiet = quiet;
}

void
dv_quiet_own(void)
{
	if (shared_quiet != NULL && TransactionIdIsValid(GetTopTransactionIdIfAny()))
		pg_atomic_fetch_add_u64(&shared_quiet->own, 1);
}

/* The next transaction's number, if all before it have ended; invalid otherwise. */
static FullTransactionId
all_ended_before(void)
{
	FullTransactionId next = ReadNextFullTransactionId();

	if (TransactionIdPrecedes(GetOldestActiveTransactionId(), XidFromFullTransactionId(next)))
		return InvalidFullTransactionId;
	return next;
}

void
dv_quiet_begin(DvQuiet *quiet)
{
	quiet->began = all_ended_before();
	/* read after the number: one more of ours makes us look, one less would hide another's */
	quiet->own_before = pg_atomic_read_u64(&quiet->own);
}

bool
dv_quiet_since(DvQuiet *quiet)
{
	uint64		own = pg_atomic_read_u64(&quiet->own) - quiet->own_before;
	FullTransactionId now = all_ended_before();

	return FullTransactionIdIsValid(quiet->began) && FullTransactionIdIsValid(now) &&
		U64FromFullTransactionId(now) - U64FromFullTransactionId(quiet->began) == own;
}

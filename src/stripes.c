/*
 * stripes.c - in which lots outcomes are recorded
 *
 * A flag writes a new version of its row. Rows of one request lie side by side,
 * and a full page has no room for the new version of any of them: each goes to
 * another page, with new entries in every index and the whole row in the WAL,
 * and the table doubles. But the version that a committed transaction has left
 * may be pruned by one that comes later. So outcomes are recorded in some short
 * transactions, each with a row or a few of every page: what the first moves out
 * is room for the second, whose versions stay in their page (HOT).
 *
 * Pruned is what no snapshot sees. Other lanes have snapshots for some
 * milliseconds at a time: where much is recorded at once, the first stripe of
 * all requests goes before the second of any.
 *
 * Where somebody's snapshot stays, nothing is pruned and it does not help: that
 * shows in how many rows move, and outcomes are recorded whole for a while.
 */
#include "postgres.h"

#include "stripes.h"

/* Rows of a lot at least: a transaction costs as much as three or four. */
#define LOT_ROWS	16

/* Stripes at most: an eighth of the rows moves then, which is little already. */
#define STRIPES_MAX	8

/* Rows whose pages are gone through by one stripe before those of the next. */
#define GROUP_ROWS	1000

/* Where stripes did not help they are tried again after two calls, then four, up to this power of two. */
#define PAUSE_MAX_LOG2	8

static bool
is_same_page(const DvVersion *a, const DvVersion *b)
{
	return a->tableoid == b->tableoid &&
		ItemPointerGetBlockNumberNoCheck(&a->ctid) == ItemPointerGetBlockNumberNoCheck(&b->ctid);
}

/* The lot of each outcome: rows of one page, which follow each other, in turn. */
static void
assign(const DvStep *step, int stripes, int groups, char *lot)
{
	int			stripe = 0;
	int			i;

	for (i = 0; i < step->noutcomes; i++)
	{
		if (i > 0 && is_same_page(&step->outcomes[i].row->version, &step->outcomes[i - 1].row->version))
			stripe = (stripe + 1) % stripes;
		else
			stripe = 0;
		lot[i] = (char) (stripe * groups + Min(i / GROUP_ROWS, groups - 1));
	}
}

/* Bring the outcomes into the order of their lots; at[i] is where the next of lot i goes. */
static void
sort(DvStep *step, const char *lot, int *at)
{
	int			n = step->noutcomes;
	DvOutcome  *sorted = palloc(sizeof(DvOutcome) * n);
	int			i;

	for (i = 0; i < n; i++)
		sorted[at[(int) lot[i]]++] = step->outcomes[i];
	memcpy(step->outcomes, sorted, sizeof(DvOutcome) * n);
	pfree(sorted);
}

void
dv_stripes_order(DvStep *step, DvLots *lots)
{
	int			n = step->noutcomes;
	int			groups = Max(1, Min(n / GROUP_ROWS, DV_LOTS_MAX / STRIPES_MAX));
	int			stripes = step->stripes.pause == 0 ? Min(STRIPES_MAX, n / groups / LOT_ROWS) : 1;
	int			at[DV_LOTS_MAX + 1] = {0};
	char	   *lot;
	int			i;

	lots->n = lots->first = 1;
	lots->ends[0] = n;
	lots->moved = 0;
	if (stripes <= 1)
		return;
	lot = palloc(n);
	assign(step, stripes, groups, lot);
	for (i = 0; i < n; i++)
		at[lot[i] + 1]++;
	lots->n = 0;
	for (i = 0; i < stripes * groups; i++)
	{
		at[i + 1] += at[i];
		if (at[i + 1] > at[i])
			lots->ends[lots->n++] = at[i + 1];
		if (i == groups - 1)
			lots->first = lots->n;
	}
	sort(step, lot, at);
	pfree(lot);
}

void
dv_stripes_learn(DvStep *step, const DvLots *lots)
{
	DvStripes  *stripes = &step->stripes;
	int			later = lots->ends[lots->n - 1] - lots->ends[lots->first - 1];

	if (stripes->pause > 0)
		stripes->pause--;
	if (lots->moved * 2 > later)
	{
		stripes->fruitless = Min(stripes->fruitless + 1, PAUSE_MAX_LOG2);
		stripes->pause = 1 << stripes->fruitless;
	}
	else if (later > 0)
		stripes->fruitless = 0;
}

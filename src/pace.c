/*
 * pace.c - how many requests, how many rows each, when to hold
 */
#include "pace.h"

/*
 * Without x-ms-dop-hint: 1,200 s of execution per 300 s and user make four
 * busy connections on average; eight leave room for the network's share.
 */
#define DEFAULT_CEILING		8
#define CEILING_MAX			64
#define FIRST_LIMIT			4.0

/* Microsoft's advice for standard tables is 100 to 1,000 rows a request. */
#define FIRST_BULK_ROWS		100
#define BULK_ROWS_MAX		1000
#define BULK_ROWS_MIN		1
#define REFUSED_ROWS_MIN	20

/* Requests should take about this long: long enough to amortise the round
 * trip, far below the two minutes after which the service gives up. */
#define TARGET_SECONDS		5.0
#define EACH_TARGET_SECONDS	10.0
#define FIRST_EACH_ROWS		25
#define EACH_ROWS_MAX		200

#define SECOND				1000000LL

void
dv_pace_init(DvPace *pace, int dop_hint)
{
	pace->ceiling = dop_hint > 0 ? dop_hint : DEFAULT_CEILING;
	if (pace->ceiling > CEILING_MAX)
		pace->ceiling = CEILING_MAX;
	pace->limit = pace->ceiling < FIRST_LIMIT ? pace->ceiling : FIRST_LIMIT;
	pace->hold_until = 0;
	pace->last_shrink = 0;
}

void
dv_pace_table_init(DvTablePace *table)
{
	table->bulk_rows = FIRST_BULK_ROWS;
	table->bulk_max = BULK_ROWS_MAX;
	table->each_rows = FIRST_EACH_ROWS;
}

bool
dv_pace_may_send(const DvPace *pace, int in_flight, int64_t now)
{
	return now >= pace->hold_until && in_flight < (int) pace->limit;
}

int
dv_pace_places(const DvPace *pace)
{
	return (int) pace->limit;
}

bool
dv_pace_is_holding(const DvPace *pace, int64_t now)
{
	return now < pace->hold_until;
}

void
dv_rate_set(DvRate *rate, double rows_per_second, int64_t now)
{
	rate->rate = rows_per_second;
	rate->credit = 0;
	rate->counted = now;
}

/* What was not used in a second is not saved up for later. */
bool
dv_rate_may_send(DvRate *rate, int64_t now)
{
	if (rate->rate <= 0)
		return true;
	rate->credit += rate->rate * (double) (now - rate->counted) / SECOND;
	rate->counted = now;
	if (rate->credit > rate->rate)
		rate->credit = rate->rate;
	return rate->credit >= 0;
}

void
dv_rate_sent(DvRate *rate, int rows, int64_t now)
{
	if (rate->rate > 0 && dv_rate_may_send(rate, now))
		rate->credit -= rows;
}

/* Grow by about one per round of answers, up to the ceiling. */
void
dv_pace_good(DvPace *pace, int dop_hint)
{
	if (dop_hint > 0)
		pace->ceiling = dop_hint < CEILING_MAX ? dop_hint : CEILING_MAX;
	pace->limit += 1.0 / pace->limit;
	if (pace->limit > pace->ceiling)
		pace->limit = pace->ceiling;
}

static int
clamp(double value, int low, int high)
{
	return value < low ? low : value > high ? high : (int) value;
}

void
dv_pace_table_bulk(DvTablePace *table, int rows, double seconds)
{
	double		wanted = seconds > 0 ? rows * TARGET_SECONDS / seconds : BULK_ROWS_MAX;

	/* At most double: one quick answer says little about ten times the rows. */
	if (rows >= table->bulk_rows && wanted > table->bulk_rows)
		table->bulk_rows = clamp(wanted, table->bulk_rows, table->bulk_rows * 2);
	else if (wanted < table->bulk_rows)
		table->bulk_rows = clamp(wanted, table->bulk_rows / 2, table->bulk_rows);
	table->bulk_rows = clamp(table->bulk_rows, BULK_ROWS_MIN, table->bulk_max);
}

void
dv_pace_table_each(DvTablePace *table, int rows, double seconds)
{
	double		wanted = seconds > 0 ? rows * EACH_TARGET_SECONDS / seconds : EACH_ROWS_MAX;

	table->each_rows = clamp(wanted, 1, table->each_rows * 2);
	table->each_rows = clamp(table->each_rows, 1, EACH_ROWS_MAX);
}

void
dv_pace_throttled(DvPace *pace, long retry_after_ms, int attempt, int64_t now)
{
	int64_t		until;

	/* Microsoft's advice without Retry-After: 2 to the power of the attempt. */
	if (retry_after_ms < 0)
		retry_after_ms = 1000L << (attempt < 6 ? attempt : 6);
	until = now + retry_after_ms * 1000LL;
	if (until > pace->hold_until)
		pace->hold_until = until;
	dv_pace_trouble(pace, now);
}

/* Once a second at most: many answers tell of one and the same trouble. */
void
dv_pace_trouble(DvPace *pace, int64_t now)
{
	if (now - pace->last_shrink < SECOND)
		return;
	pace->last_shrink = now;
	pace->limit /= 2;
	if (pace->limit < 1)
		pace->limit = 1;
}

void
dv_pace_hold(DvPace *pace, int64_t until)
{
	pace->limit = 1;
	if (until > pace->hold_until)
		pace->hold_until = until;
}

/* Smaller requests put fewer good rows on the slow path with a bad one. */
void
dv_pace_table_refused(DvTablePace *table)
{
	if (table->bulk_rows > REFUSED_ROWS_MIN)
		table->bulk_rows = clamp(table->bulk_rows / 2, REFUSED_ROWS_MIN, table->bulk_max);
}

void
dv_pace_table_shrink(DvTablePace *table, int rows)
{
	int			half = rows / 2 > 0 ? rows / 2 : 1;

	if (half < table->bulk_max)
		table->bulk_max = half;
	table->bulk_rows = clamp(table->bulk_rows, BULK_ROWS_MIN, table->bulk_max);
}

long
dv_pace_backoff_ms(int attempt, uint32_t random)
{
	long		base = 500L << (attempt < 7 ? attempt - 1 : 6);

	/* Full jitter on the upper half, so that lanes do not march in step. */
	return base / 2 + (long) (random % (uint32_t) (base / 2 + 1));
}

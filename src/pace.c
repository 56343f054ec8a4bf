/*
 * pace.c - how many requests, how many rows each, when to hold
 *
 * Requests in flight grow quickly at first, up to what the service advises, as
 * long as a row takes no longer than it did. Being throttled tells what the
 * service bears over time: what was in flight on average, the hold included.
 * From there on growth is slow, and a part of a request ("3.6 in flight") is
 * given by letting one more go for that part of the time. The constants were
 * chosen with test/bench/pace; their effects there are in doc/performance.md.
 */
#include "pace.h"

/*
 * Without x-ms-dop-hint: 1,200 s of execution per 300 s and user make four
 * busy connections on average; eight leave room for the network's share.
 */
#define DEFAULT_CEILING		8
#define CEILING_MAX			64
#define FIRST_LIMIT			4.0

/* With it a quarter of what is advised goes first, because it was advised for all that a client sends. */
#define FIRST_PART			0.25

/* Until something tells of an end, an answer lets so many more go: all places in two round trips, or three. */
#define FIRST_GROWTH		3.0

/* A hint that rises by this much tells of another service than the one that was learnt. */
#define RAISED_HINT			1.5

/* For this part of the window what was learnt is not learnt anew: one exhausted window is told of many times. */
#define LEARN_PART_OF		0.05

/* It is lowered by these factors at once, at least and at most. */
#define LEARN_LESS			0.97
#define LEARN_LEAST			0.9

/* Being throttled after less than this part of the hold tells nothing of what the service bears. */
#define LEARN_PART			0.5

/* Microsoft's advice for standard tables is 100 to 1,000 rows a request. */
#define FIRST_BULK_ROWS		100
#define BULK_ROWS_MAX		1000
#define BULK_ROWS_MIN		1
#define REFUSED_ROWS_MIN	20

/*
 * Requests should take about this long: long enough to amortise the round
 * trip, far below the two minutes after which the service gives up, and short
 * enough that many of them spread evenly over the web servers.
 */
#define TARGET_SECONDS		5.0
#define TARGET_BYTES		(8 * 1024 * 1024)
#define EACH_TARGET_SECONDS	10.0
#define FIRST_EACH_ROWS		25
#define EACH_ROWS_MAX		200

/* Good answers at a learnt cap after which a quarter more is tried. */
#define CAP_GOOD			100

/* What the service bears is tried out further by this part with an answer, but no more than that in a window. */
#define ANSWER_GROWTH		0.00015
#define WINDOW_GROWTH		0.5

/* Only where so much of it is in use. */
#define IN_USE				0.9

/* After so many windows without a refusal, so many times as fast. */
#define QUIET_WINDOWS		2
#define QUIET_FASTER		4

/* So much more than what it bears on average may be in flight, while less was used than that. */
#define CATCH_UP			1.25

/* Growth where there was a refusal, but a whole window has not been seen. */
#define CAREFUL				0.25

/* Seconds between looks at what the window has left. */
#define LOOK_SECONDS		0.25

/* Of what is in flight when it was too much at once, this part is not. */
#define AT_ONCE_LESS		0.9

/* So soon after a hold its end is what was wrong. */
#define SOON_SECONDS		2.0

/* Holds are at least two to the power of the refused probes in a row, in seconds, up to this power and part of the window. */
#define REFUSED_MAX			4
#define REFUSED_PART		0.055

/* A probe that was not refused by then was taken: refusals come at once. */
#define PROBE_SECONDS		0.3

/* Slower than this many times the quickest: more in flight does not help. */
#define STRAIN_MORE			1.15
#define STRAIN_LESS			1.35

/* What a slow answer takes away: an eighth of the places in a round. */
#define EASE_LESS			0.125

/* Fewer in flight by this part must make rows quicker by that one, or have nothing to do with it. */
#define EASE_PART			0.7
#define EASE_HELPS			0.9

/* The usual time is of about so many answers; the quickest follows it up over thousands. */
#define USUAL_ANSWERS		16
#define QUICK_UP			0.0002

/* Request-seconds of a whole request that may be saved up. */
#define CREDIT_MAX			20.0

/* A table's parallelism after a deadlock, and what a good answer adds. */
#define PARALLEL_FEWER		0.9
#define PARALLEL_MORE		0.05
#define PARALLEL_MAX		64.0

#define SECOND				1000000LL

static int
clamp(double value, int low, int high)
{
	return value < low ? low : value > high ? high : (int) value;
}

static double
seconds_between(int64_t from, int64_t to)
{
	return to > from ? (double) (to - from) / SECOND : 0;
}

/* ---------------------------------------------------------------- a user */

static void
set_ceiling(DvPace *pace, int dop_hint)
{
	int			before = pace->ceiling;

	pace->ceiling = clamp(dop_hint > 0 ? dop_hint : DEFAULT_CEILING, 1, CEILING_MAX);
	if (pace->limit > pace->ceiling)
		pace->limit = pace->ceiling;
	/* Much more is advised than before: what was learnt is of another time. */
	if (pace->ceiling > before * RAISED_HINT)
	{
		pace->started = false;
		pace->soft = 0;
	}
}

void
dv_pace_init(DvPace *pace, int dop_hint, int64_t now)
{
	DvPace		fresh = {.limit = FIRST_LIMIT,.counted = now,.last_growth = now};

	*pace = fresh;
	dv_window_init(&pace->window, now);
	set_ceiling(pace, dop_hint);
	if (dop_hint > 0 && pace->limit < pace->ceiling * FIRST_PART)
		pace->limit = pace->ceiling * FIRST_PART;
}

static bool
knows_window(const DvPace *pace)
{
	return pace->soft > 0 && pace->window.told;
}

/* What may be in flight now: what is thought good, but no more than the window has left. */
static double
allowed(const DvPace *pace)
{
	return knows_window(pace) && pace->left < pace->limit ? pace->left : pace->limit;
}

/* The end of all holds, told to us or to others of the user. */
static int64_t
last_hold(const DvPace *pace)
{
	return pace->hold_until > pace->told_until ? pace->hold_until : pace->told_until;
}

/* Count time up to now: what was in flight, and the credit for a part of a request. */
static void
count(DvPace *pace, int64_t now)
{
	double		passed = seconds_between(pace->counted, now);

	dv_window_count(&pace->window, pace->in_flight, pace->counted, now);
	if (now > pace->counted)
		pace->counted = now;
	if (knows_window(pace) && seconds_between(pace->looked, now) >= LOOK_SECONDS)
	{
		pace->looked = now;
		pace->left = dv_window_bears(&pace->window, pace->soft * pace->window.seconds);
	}
	if (pace->counted <= last_hold(pace))
		return;
	pace->credit += passed * (allowed(pace) - pace->in_flight);
	if (pace->credit > CREDIT_MAX)
		pace->credit = CREDIT_MAX;
	if (pace->credit < -CREDIT_MAX)
		pace->credit = -CREDIT_MAX;
}

/* After a hold one request goes, then two more, then four ... as long as none is refused. */
static bool
may_probe(DvPace *pace, int64_t now)
{
	if (pace->probe_round == 0 || seconds_between(pace->probe_round, now) >= PROBE_SECONDS)
	{
		pace->probes *= pace->probe_round == 0 ? 1 : 2;
		pace->probe_round = now;
		pace->probed = 0;
	}
	if (pace->probes >= allowed(pace))
		pace->probes = 0;
	return pace->probes == 0 || pace->probed < pace->probes;
}

bool
dv_pace_may_send(DvPace *pace, int64_t now)
{
	int			whole;

	count(pace, now);
	whole = (int) allowed(pace);
	if (now < last_hold(pace))
		return false;
	if (pace->probes > 0 && !may_probe(pace, now))
		return false;
	return pace->in_flight < whole ||
		(pace->in_flight == whole && allowed(pace) > whole && pace->credit > 0);
}

void
dv_pace_sent(DvPace *pace, int64_t now)
{
	count(pace, now);
	pace->in_flight++;
	pace->probed++;
}

void
dv_pace_ended(DvPace *pace, int n, int64_t now)
{
	count(pace, now);
	pace->in_flight -= n;
}

int
dv_pace_places(const DvPace *pace)
{
	return allowed(pace) < 1 ? 1 : (int) allowed(pace);
}

bool
dv_pace_is_holding(const DvPace *pace, int64_t now)
{
	return now < last_hold(pace) || pace->probes > 0 || (pace->in_flight == 0 && allowed(pace) < 1);
}

/*
 * What the service bears is tried out a little more with each answer, where
 * that is in use. A service that has refused nothing for long may bear much more.
 */
static void
grow_soft(DvPace *pace, int64_t now, double seconds)
{
	double		window = pace->window.seconds;
	double		more = ANSWER_GROWTH;

	if (pace->soft >= pace->ceiling || dv_window_used(&pace->window) < IN_USE * pace->soft * window)
		return;
	if (seconds_between(pace->hold_until, now) > QUIET_WINDOWS * window)
		more *= QUIET_FASTER;
	if (more > seconds / window * WINDOW_GROWTH)
		more = seconds / window * WINDOW_GROWTH;
	pace->soft += pace->soft * more;
}

/* At first by some for each answer, then by about one per round, up to what the service bears. */
static void
grow(DvPace *pace, int64_t now)
{
	double		seconds = seconds_between(pace->last_growth, now);
	double		most = pace->ceiling;

	pace->last_growth = now;
	if (pace->soft > 0)
	{
		grow_soft(pace, now, seconds);
		most = pace->soft * (knows_window(pace) ? CATCH_UP : 1);
	}
	pace->limit += !pace->started ? FIRST_GROWTH : (pace->soft <= 0 && pace->learnt != 0 ? CAREFUL : 1) / pace->limit;
	if (pace->limit > most)
		pace->limit = most;
	if (pace->limit > pace->ceiling)
		pace->limit = pace->ceiling;
}

/*
 * Answers have become slow: fewer in flight make them quicker where requests
 * wait for each other. Where they do not, that is how long a row takes now.
 */
static void
ease(DvPace *pace, DvTablePace *table)
{
	pace->started = true;
	if (pace->strained > 0 && pace->limit < pace->strained * EASE_PART)
	{
		if (table->usual > pace->strained_usual * EASE_HELPS)
		{
			table->quick = table->usual;
			pace->strained = 0;
			return;
		}
		pace->strained = 0;
	}
	if (pace->strained <= 0)
	{
		pace->strained = pace->limit;
		pace->strained_usual = 0;
	}
	if (table->usual > pace->strained_usual)
		pace->strained_usual = table->usual;
	pace->limit -= EASE_LESS;
	if (pace->limit < 1)
		pace->limit = 1;
}

void
dv_pace_good(DvPace *pace, DvTablePace *table, int dop_hint, int64_t now)
{
	double		strain = table != NULL && table->quick > 0 ? table->usual / table->quick : 1;

	count(pace, now);
	if (dop_hint > 0)
		set_ceiling(pace, dop_hint);
	if (seconds_between(pace->hold_until, now) >= SOON_SECONDS)
		pace->refused = 0;
	if (strain > STRAIN_LESS && pace->limit > 1)
		ease(pace, table);
	else if (strain < STRAIN_MORE)
	{
		pace->strained = 0;
		grow(pace, now);
	}
	else
		pace->started = true;
}

/*
 * What the service bears is what was used over its window until it refused
 * more. Where it does not tell how long that is: had what was used so far been
 * spread over the hold too.
 */
static void
learn(DvPace *pace, int64_t now)
{
	const DvWindow *window = &pace->window;
	double		hold = seconds_between(now, pace->hold_until);
	double		age = dv_window_age(window);
	double		bore = dv_window_used(window) / (window->told ? window->seconds : age + hold);

	/* Not for what we did of late, but for what was done before, or by others. */
	if (age < hold * LEARN_PART)
	{
		dv_window_init(&pace->window, now);
		pace->limit = pace->limit < 2 ? 1 : pace->limit / 2;
		return;
	}
	if (pace->soft > 0 && seconds_between(pace->learnt, now) < LEARN_PART_OF * window->seconds)
		return;
	pace->learnt = now;
	if (bore < 1)
		bore = 1;
	if (pace->soft > 0 && bore > pace->soft * LEARN_LESS)
		bore = pace->soft * LEARN_LESS;
	if (pace->soft > 0 && bore < pace->soft * LEARN_LEAST)
		bore = pace->soft * LEARN_LEAST;
	/* Before a whole window was seen, others may have used a part of it. */
	pace->soft = window->told && age < window->seconds ? 0 : bore;
	if (pace->limit > bore)
		pace->limit = bore;
}

/* For how long nothing is sent after this refusal, in milliseconds. */
static long
hold_ms(DvPace *pace, const DvThrottle *told, int64_t now)
{
	/* Microsoft's advice without Retry-After: 2 to the power of the attempt. */
	long		ms = told->retry_after_ms >= 0 ? told->retry_after_ms : 1000L << (told->attempt < 6 ? told->attempt : 6);
	long		most = (long) (pace->window.seconds * 1000 * REFUSED_PART);

	/* One that went ahead after a hold is refused: the service tells too short a time. */
	if (pace->hold_until > 0 && now >= pace->hold_until && seconds_between(pace->hold_until, now) < SOON_SECONDS)
		pace->refused = pace->refused < REFUSED_MAX ? pace->refused + 1 : REFUSED_MAX;
	if (pace->refused > 0)
	{
		long		doubled = 1000L << pace->refused;

		if (doubled > most)
			doubled = most;
		ms = ms > doubled ? ms : doubled;
	}
	return ms;
}

/* Behind a hold one request goes first. */
static void
begin_again(DvPace *pace)
{
	pace->probes = 1;
	pace->probe_round = 0;
	pace->credit = 0;
}

void
dv_pace_throttled(DvPace *pace, const DvThrottle *told, int64_t now)
{
	int64_t		until;

	count(pace, now);
	dv_window_tell(&pace->window, told->window);
	until = now + hold_ms(pace, told, now) * 1000LL;
	pace->started = true;
	begin_again(pace);
	if (until <= pace->hold_until)
		return;
	pace->hold_until = until;
	if (!told->at_once)
		learn(pace, now);
	else if (pace->limit > pace->in_flight * AT_ONCE_LESS)
		pace->limit = pace->in_flight * AT_ONCE_LESS < 1 ? 1 : pace->in_flight * AT_ONCE_LESS;
	pace->looked = 0;
}

/* Kept apart: of what one of us was told, another may hear before it is learnt from. */
void
dv_pace_told(DvPace *pace, int64_t until, int64_t now)
{
	count(pace, now);
	if (until <= last_hold(pace))
		return;
	pace->told_until = until;
	begin_again(pace);
}

/* Once a second at most: many answers tell of one and the same trouble. */
void
dv_pace_trouble(DvPace *pace, int64_t now)
{
	if (now - pace->last_shrink < SECOND)
		return;
	pace->last_shrink = now;
	pace->started = true;
	pace->limit /= 2;
	if (pace->limit < 1)
		pace->limit = 1;
}

/* ---------------------------------------------------------------- a table */

void
dv_pace_table_init(DvTablePace *table)
{
	DvTablePace fresh = {
		.bulk_rows = FIRST_BULK_ROWS,.bulk_max = BULK_ROWS_MAX,.each_rows = FIRST_EACH_ROWS,.parallel = PARALLEL_MAX
	};

	*table = fresh;
}

void
dv_pace_table_resume(DvTablePace *table, int bulk_rows, int bulk_max, int each_rows, double parallel)
{
	table->bulk_max = clamp(bulk_max, BULK_ROWS_MIN, BULK_ROWS_MAX);
	table->bulk_rows = clamp(bulk_rows, BULK_ROWS_MIN, table->bulk_max);
	table->each_rows = clamp(each_rows, 1, EACH_ROWS_MAX);
	table->parallel = parallel < 1 ? 1 : parallel > PARALLEL_MAX ? PARALLEL_MAX : parallel;
}

int
dv_pace_table_rows(const DvTablePace *table, size_t row_bytes)
{
	size_t		fit = row_bytes > 0 ? TARGET_BYTES / row_bytes : BULK_ROWS_MAX;

	return clamp((double) fit, 1, table->bulk_rows);
}

bool
dv_pace_table_may_send(const DvTablePace *table)
{
	return table->in_flight < (int) table->parallel;
}

bool
dv_pace_table_has_learnt(const DvTablePace *table)
{
	return table->answers > 0 || table->bulk_max < BULK_ROWS_MAX;
}

/* How long a row takes, of answers of about the size that is sent now. */
static void
notice_time(DvTablePace *table, int rows, double seconds)
{
	double		each = seconds / rows;

	if (rows < table->bulk_rows / 2)
		return;
	if (table->answers < USUAL_ANSWERS)
		table->answers++;
	table->usual += (each - table->usual) / table->answers;
	if (table->answers < USUAL_ANSWERS)
		return;
	if (table->quick <= 0 || table->usual < table->quick)
		table->quick = table->usual;
	else
		table->quick += (table->usual - table->quick) * QUICK_UP;
}

void
dv_pace_table_bulk(DvTablePace *table, int rows, double seconds)
{
	double		wanted = seconds > 0 ? rows * TARGET_SECONDS / seconds : BULK_ROWS_MAX;

	table->parallel = table->parallel + PARALLEL_MORE > PARALLEL_MAX ? PARALLEL_MAX : table->parallel + PARALLEL_MORE;
	notice_time(table, rows, seconds);
	if (rows >= table->bulk_max && table->bulk_max < BULK_ROWS_MAX && ++table->bulk_good >= CAP_GOOD)
	{
		table->bulk_good = 0;
		table->bulk_max = clamp(table->bulk_max * 1.25 + 1, BULK_ROWS_MIN, BULK_ROWS_MAX);
	}
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

/* Once a second at most: a deadlock can have several victims. */
void
dv_pace_table_deadlock(DvTablePace *table, int64_t now)
{
	if (table->last_deadlock != 0 && now - table->last_deadlock < SECOND)
		return;
	table->last_deadlock = now;
	if (table->parallel > table->in_flight + 1)
		table->parallel = table->in_flight + 1;
	table->parallel *= PARALLEL_FEWER;
	if (table->parallel < 1)
		table->parallel = 1;
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
	table->bulk_good = 0;
	table->bulk_rows = clamp(table->bulk_rows, BULK_ROWS_MIN, table->bulk_max);
}

long
dv_pace_backoff_ms(int attempt, uint32_t random)
{
	long		base = 500L << (attempt < 7 ? attempt - 1 : 6);

	/* Full jitter on the upper half, so that lanes do not march in step. */
	return base / 2 + (long) (random % (uint32_t) (base / 2 + 1));
}

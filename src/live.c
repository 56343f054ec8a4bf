/*
 * live.c - a run's live figures: from shared memory to dvmig's tables
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "gate.h"
#include "lanes.h"
#include "live.h"
#include "refusals.h"
#include "runstate.h"
#include "spi.h"

/* Rates are over so many seconds. */
#define RECENT_S	30

/* What had been done at some instants of late: a ring of one a second. */
typedef struct Recent
{
	TimestampTz at[RECENT_S + 1];
	int64		rows[RECENT_S + 1];
	int64		bytes[RECENT_S + 1];
	int			n;
	int			next;
} Recent;

static Recent recent_run;
static Recent recent_table;
static int	recent_step;
static Recent recent_lane[DV_LANES_MAX];

/* Count a sample in, and give the rates since the oldest one. */
static void
recent_rates(Recent *r, int64 rows, int64 bytes, float4 *rows_rate, float4 *bytes_rate)
{
	TimestampTz now = GetCurrentTimestamp();
	int			oldest = r->n <= RECENT_S ? 0 : r->next;
	double		seconds = r->n > 0 ? (now - r->at[oldest]) / 1000000.0 : 0;

	*rows_rate = seconds > 0 ? (rows - r->rows[oldest]) / seconds : 0;
	*bytes_rate = seconds > 0 ? (bytes - r->bytes[oldest]) / seconds : 0;
	r->at[r->next] = now;
	r->rows[r->next] = rows;
	r->bytes[r->next] = bytes;
	r->next = (r->next + 1) % (RECENT_S + 1);
	r->n = Min(r->n + 1, RECENT_S + 1);
}

static int64
rows_done(const DvCounters *c)
{
	return c->succeeded + c->failed;
}

/* The seven columns of a usage, and their values. */
#define USAGE_COLUMNS	7
#define USAGE_NAMES		"read_ms, encode_ms, wait_ms, hold_ms, record_ms, cpu_ms, memory_kb"

static void
usage_values(const DvUsage *usage, Oid *types, Datum *values)
{
	static const DvPhase phases[] = {DV_PHASE_READ, DV_PHASE_ENCODE, DV_PHASE_WAIT, DV_PHASE_HOLD, DV_PHASE_RECORD};
	int			i;

	for (i = 0; i < (int) lengthof(phases); i++)
		values[i] = Int64GetDatum(usage->phase_us[phases[i]] / 1000);
	values[i++] = Int64GetDatum(usage->cpu_us / 1000);
	values[i] = Int64GetDatum(usage->anonymous_kb);
	for (i = 0; i < USAGE_COLUMNS; i++)
		types[i] = INT8OID;
}

/* Usage of all lanes, since the step began or at all; memory is the largest lane's. */
static void
sum_usage(DvLanes *lanes, bool of_step, DvUsage *sum)
{
	int			i;
	int			p;

	memset(sum, 0, sizeof(DvUsage));
	for (i = 0; i < DV_LANES_MAX; i++)
	{
		const DvUsage *now = &lanes->shared->lanes[i].usage;
		const DvUsage *before = &lanes->shared->lanes[i].usage_before;

		for (p = 0; p < DV_PHASES; p++)
			sum->phase_us[p] += now->phase_us[p] - (of_step ? before->phase_us[p] : 0);
		sum->cpu_us += now->cpu_us - (of_step ? before->cpu_us : 0);
		sum->anonymous_kb = Max(sum->anonymous_kb, now->anonymous_kb);
	}
}

/* Figures of the step into run_table. $1 run, $2 staging, $3 pass. */
static void
store_step(const DvStep *step, const DvCounters *c)
{
	DvLanes    *lanes = step->rc->lanes;
	Oid			types[16 + USAGE_COLUMNS] = {INT8OID, TEXTOID, TEXTOID};
	Datum		values[16 + USAGE_COLUMNS] = {Int64GetDatum(step->rc->run), CStringGetTextDatum(step->projection->table_name),
	CStringGetTextDatum(step->projection->pass)};
	const int64 figures[] = {c->rows_read, c->succeeded, c->failed, c->unchanged, c->parked, c->requests,
		c->rows_sent, c->bytes_sent, c->throttled, dv_lanes_in_flight(lanes), step->pace->bulk_rows};
	DvUsage		usage;
	float4		rates[2];
	int			n = 3;
	int			i;

	if (recent_step != step->number)
		memset(&recent_table, 0, sizeof(recent_table));
	recent_step = step->number;
	recent_rates(&recent_table, rows_done(c), c->bytes_sent, &rates[0], &rates[1]);
	for (i = 0; i < (int) lengthof(figures); i++, n++)
	{
		types[n] = INT8OID;
		values[n] = Int64GetDatum(figures[i]);
	}
	for (i = 0; i < 2; i++, n++)
	{
		types[n] = FLOAT4OID;
		values[n] = Float4GetDatum(rates[i]);
	}
	sum_usage(lanes, true, &usage);
	usage_values(&usage, types + n, values + n);
	dv_spi_run("UPDATE dvmig.run_table SET (rows_read, succeeded, failed, unchanged, parked, requests, rows_sent, bytes_sent, throttled,"
			   " in_flight, batch_rows, recent_rows_per_second, recent_bytes_per_second, " USAGE_NAMES ")"
			   " = ($4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)"
			   " WHERE run = $1 AND staging = $2 AND pass = $3", n + USAGE_COLUMNS, types, values, NULL, SPI_OK_UPDATE);
}

static const char *
state_name(DvLaneState state)
{
	static const char *const names[] = {"none", "starting", "idle", "ready", "working", "ended", "died"};

	return names[state];
}

static void
store_lane(DvRunContext *rc, int i)
{
	const DvLane *lane = &rc->lanes->shared->lanes[i];
	DvCounters	c = lane->total;
	Oid			types[15 + USAGE_COLUMNS] = {INT8OID, INT4OID, INT4OID, INT4OID, TEXTOID, INT4OID, INT4OID,
	INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, FLOAT4OID, FLOAT4OID};
	Datum		values[15 + USAGE_COLUMNS];
	char		nulls[15 + USAGE_COLUMNS + 1];
	float4		rates[2];

	dv_lanes_add(&c, &lane->counters);
	recent_rates(&recent_lane[i], rows_done(&c), c.bytes_sent, &rates[0], &rates[1]);
	memset(nulls, ' ', sizeof(nulls));
	nulls[3] = lane->pid != 0 ? ' ' : 'n';
	values[0] = Int64GetDatum(rc->run);
	values[1] = Int32GetDatum(i + 1);
	values[2] = Int32GetDatum(lane->user + 1);
	values[3] = Int32GetDatum(lane->pid);
	values[4] = CStringGetTextDatum(state_name(lane->state));
	values[5] = Int32GetDatum(lane->in_flight);
	values[6] = Int32GetDatum(dv_pace_places(&rc->lanes->shared->users[lane->user].pace));
	values[7] = Int64GetDatum(rows_done(&c));
	values[8] = Int64GetDatum(c.requests);
	values[9] = Int64GetDatum(c.rows_sent);
	values[10] = Int64GetDatum(c.bytes_sent);
	values[11] = Int64GetDatum(c.throttled);
	values[12] = Float4GetDatum(rates[0]);
	values[13] = Float4GetDatum(rates[1]);
	usage_values(&lane->usage, types + 14, values + 14);
	dv_spi_run("INSERT INTO dvmig.run_lane AS l (run, lane, application_user, pid, state, in_flight, in_flight_limit, rows_done, requests,"
			   " rows_sent, bytes_sent, throttled, recent_rows_per_second, recent_bytes_per_second, " USAGE_NAMES ")"
			   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)"
			   " ON CONFLICT (run, lane) DO UPDATE SET (application_user, pid, state, in_flight, in_flight_limit, rows_done, requests,"
			   " rows_sent, bytes_sent, throttled, recent_rows_per_second, recent_bytes_per_second, " USAGE_NAMES ", updated_at)"
			   " = ($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, clock_timestamp())",
			   14 + USAGE_COLUMNS, types, values, nulls, SPI_OK_INSERT);
}

/* Lanes, their usage together, and the rates of the run. */
static void
store_lanes(DvRunContext *rc, const DvCounters *c)
{
	DvShared   *shared = rc->lanes->shared;
	Oid			types[6 + USAGE_COLUMNS] = {INT8OID, INT4OID, INT4OID, INT4OID, FLOAT4OID, FLOAT4OID};
	Datum		values[6 + USAGE_COLUMNS];
	DvUsage		usage;
	float4		rates[2];
	int			places = 0;
	int			i;

	for (i = 0; i < DV_LANES_MAX; i++)
		if (shared->lanes[i].state != DV_LANE_NONE)
			store_lane(rc, i);
	for (i = 0; i < shared->nusers; i++)
		places += shared->users[i].lanes > 0 ? dv_pace_places(&shared->users[i].pace) : 0;
	recent_rates(&recent_run, rows_done(c), c->bytes_sent, &rates[0], &rates[1]);
	values[0] = Int64GetDatum(rc->run);
	/* the helpers of a run that ends are gone: what it had is kept */
	values[1] = Int32GetDatum(shared->ended ? 0 : dv_lanes_count(rc->lanes));
	values[2] = Int32GetDatum(places);
	values[3] = Int32GetDatum(shared->step != 0 ? shared->pace.bulk_rows : 0);
	values[4] = Float4GetDatum(rates[0]);
	values[5] = Float4GetDatum(rates[1]);
	sum_usage(rc->lanes, false, &usage);
	usage_values(&usage, types + 6, values + 6);
	dv_spi_run("UPDATE dvmig.run_history SET (lanes, in_flight_limit, batch_rows, recent_rows_per_second, recent_bytes_per_second, " USAGE_NAMES ")"
			   " = (coalesce(nullif($2, 0), lanes), $3, nullif($4, 0), $5, $6, $7, $8, $9, $10, $11, $12, $13) WHERE run = $1",
			   6 + USAGE_COLUMNS, types, values, NULL, SPI_OK_UPDATE);
}

/*
 * A row counts once in a run: whatever a later pass makes of one that this run
 * had as a success stands in that success's place.
 */
static void
add_step(DvCounters *total, const DvCounters *step)
{
	dv_lanes_add(total, step);
	total->succeeded -= step->again;
	total->rows_read -= Min(step->again, step->rows_read);
}

/* "c": figures of the run. */
static void
store_run(DvRunContext *rc, const DvCounters *c)
{
	Oid			types[13];
	Datum		values[13];
	char		nulls[14] = "             ";
	const char *why = rc->waiting[0] ? rc->waiting : rc->lanes && !rc->lanes->shared->ended ? dv_gate_told(rc->lanes) : NULL;
	const char *message = rc->message ? rc->message : why ? psprintf("waiting: %s", why) : NULL;
	int			i;

	for (i = 0; i < 11; i++)
		types[i] = INT8OID;
	types[11] = INT4OID;
	types[12] = TEXTOID;
	values[0] = Int64GetDatum(rc->run);
	values[1] = Int64GetDatum(c->rows_read);
	values[2] = Int64GetDatum(c->succeeded);
	values[3] = Int64GetDatum(c->failed);
	values[4] = Int64GetDatum(c->unchanged);
	values[5] = Int64GetDatum(c->parked);
	values[6] = Int64GetDatum(c->requests);
	values[7] = Int64GetDatum(c->rows_sent);
	values[8] = Int64GetDatum(c->bytes_sent);
	values[9] = Int64GetDatum(c->throttled);
	values[10] = Int64GetDatum(rc->lanes ? dv_gate_held_ms(rc->lanes) : 0);
	values[11] = Int32GetDatum(rc->at_work ? dv_lanes_in_flight(rc->lanes) : 0);
	values[12] = message ? CStringGetTextDatum(message) : (Datum) 0;
	nulls[12] = message ? ' ' : 'n';
	dv_spi_run("UPDATE dvmig.run_history SET rows_read = $2, succeeded = $3, failed = $4, unchanged = $5, parked = $6,"
			   " requests = $7, rows_sent = $8, bytes_sent = $9, throttled = $10, throttled_ms = $11, in_flight = $12,"
			   " message = $13, updated_at = clock_timestamp() WHERE run = $1",
			   13, types, values, nulls, SPI_OK_UPDATE);
	if (rc->lanes != NULL)
	{
		/* a job has no steps in which it would say so */
		if (rc->at_work == NULL)
			dv_lanes_measure(rc->lanes);
		store_lanes(rc, c);
	}
}

void
dv_live_store(DvRunContext *rc)
{
	DvCounters	total = rc->total;

	if (rc->at_work != NULL)
	{
		DvCounters	sum;

		dv_lanes_step_counters(rc->lanes, &sum);
		store_step(rc->at_work, &sum);
		add_step(&total, &sum);
	}
	store_run(rc, &total);
}

void
dv_live_end_step(DvRunContext *rc)
{
	DvCounters	sum;

	if (rc->at_work == NULL)
		return;
	dv_lanes_step_counters(rc->lanes, &sum);
	add_step(&rc->total, &sum);
	rc->at_work = NULL;
}

/* $1 server, $2 table, $3 pass. */
static void
pace_key(const DvStep *step, Oid *types, Datum *values)
{
	types[0] = types[1] = types[2] = TEXTOID;
	values[0] = CStringGetTextDatum(dv_session_server(step->rc->session)->name);
	values[1] = CStringGetTextDatum(step->projection->wire.logical_name);
	values[2] = CStringGetTextDatum(step->projection->pass);
}

void
dv_live_store_pace(DvStep *step)
{
	const DvTablePace *pace = step->pace;
	Oid			types[7];
	Datum		values[7];

	/* a step that sent nothing learnt nothing */
	if (!dv_pace_table_has_learnt(pace))
		return;
	pace_key(step, types, values);
	types[3] = types[4] = types[5] = INT4OID;
	types[6] = FLOAT4OID;
	values[3] = Int32GetDatum(pace->bulk_rows);
	values[4] = Int32GetDatum(pace->bulk_max);
	values[5] = Int32GetDatum(pace->each_rows);
	values[6] = Float4GetDatum((float4) pace->parallel);
	dv_spi_run("INSERT INTO dvmig.table_pace (server, table_name, pass, bulk_rows, bulk_max, each_rows, parallel)"
			   " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (server, table_name, pass) DO UPDATE"
			   " SET (bulk_rows, bulk_max, each_rows, parallel, learnt_at) = ($4, $5, $6, $7, clock_timestamp())",
			   7, types, values, NULL, SPI_OK_INSERT);
}

void
dv_live_take_pace(DvStep *step)
{
	Oid			types[3];
	Datum		values[3];
	DvSwitch	before = dv_runstate_begin("dvmig: what the table took before");

	pace_key(step, types, values);
	if (dv_spi_run("SELECT bulk_rows, bulk_max, each_rows, parallel FROM dvmig.table_pace WHERE server = $1 AND table_name = $2 AND pass = $3",
				   3, types, values, NULL, SPI_OK_SELECT) == 1)
		dv_pace_table_resume(step->pace, atoi(dv_spi_text(0, 1)), atoi(dv_spi_text(0, 2)), atoi(dv_spi_text(0, 3)), atof(dv_spi_text(0, 4)));
	dv_runstate_commit(before, true);
}

void
dv_live_watch(const DvRunContext *rc, bool ended)
{
	Oid			types[3] = {INT8OID, INT8OID, BOOLOID};
	Datum		values[3] = {Int64GetDatum(rc->run), Int64GetDatum(dv_refusals()), BoolGetDatum(ended)};

	dv_spi_run("SELECT dvmig._watch_run($1, $2, $3)", 3, types, values, NULL, SPI_OK_SELECT);
}

/* What dvmig.tune(), pause() and resume() ask for, from the row at hand. */
static void
take_tune(DvLanes *lanes)
{
	DvShared   *shared = lanes->shared;
	DvTune		tune = {.lanes = atoi(dv_spi_text(0, 2)),.in_flight = atoi(dv_spi_text(0, 3)),
	.batch_rows = atoi(dv_spi_text(0, 4)),.rate = atof(dv_spi_text(0, 5))};
	bool		paused = dv_spi_is_true(0, 1);
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&shared->mutex);
	if (tune.rate != shared->tune.rate)
		dv_rate_set(&shared->rate, tune.rate, now);
	shared->tune = tune;
	shared->paused = paused;
	SpinLockRelease(&shared->mutex);
}

/* In the caller's transaction: what is asked of the run is taken up; true where that is to stop. */
static bool
hear(DvRunContext *rc)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(rc->run)};

	if (dv_spi_run("SELECT paused, coalesce((tuned ->> 'lanes')::int, 0), coalesce((tuned ->> 'in_flight')::int, 0),"
				   " coalesce((tuned ->> 'batch_rows')::int, 0), coalesce((tuned ->> 'rate')::float8, 0)"
				   " FROM dvmig.run_history WHERE run = $1 AND NOT " DV_STOP_IS_DUE,
				   1, types, values, NULL, SPI_OK_SELECT) == 0)
		return true;
	take_tune(rc->lanes);
	return false;
}

bool
dv_live_hear(DvRunContext *rc)
{
	DvSwitch	before = dv_runstate_begin("dvmig: looking for what is asked of the run");
	bool		stop = hear(rc);

	dv_runstate_commit(before, true);
	return stop;
}

/* One try to mirror; throws 55P03 where a user holds a lock on our rows. */
static bool
mirror(DvRunContext *rc)
{
	DvSwitch	before = dv_runstate_begin("dvmig: mirroring progress");
	bool		stop;

	dv_spi_wait_briefly();
	dv_live_store(rc);
	dv_live_watch(rc, false);
	stop = hear(rc);
	dv_runstate_commit(before, true);
	return stop;
}

bool
dv_live_mirror(DvRunContext *rc)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool stop = false;

	PG_TRY();
	{
		stop = mirror(rc);
	}
	PG_CATCH();
	{
		ErrorData  *error = dv_spi_abort(rc->context);

		/* Requests are on their way: the figures can wait, they cannot. */
		if (!dv_spi_is_contention(error) && error->sqlerrcode != ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return stop;
}

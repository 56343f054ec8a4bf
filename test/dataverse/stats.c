/*
 * stats.c - counters, kept without a lock
 */
#include "stats.h"

#include <stdatomic.h>

static const char *const kind_names[SIM_N_KINDS] =
{
	"token", "whoami", "metadata", "get", "create", "update", "delete", "batch", "create_multiple", "update_multiple",
	"upsert_multiple", "ref", "action", "other"
};

static atomic_ullong requests[SIM_N_KINDS];
static atomic_ullong parts[SIM_N_KINDS];
static atomic_ullong statuses[600];
static atomic_ullong created,
			updated,
			deleted,
			linked,
			targets,
			bytes_in,
			bytes_out,
			faults,
			total;
static atomic_ullong throttled[4];
static atomic_ullong in_wait;
static atomic_int in_flight,
			in_flight_max;

void
sim_stats_request(SimKind kind, bool in_batch)
{
	atomic_fetch_add(in_batch ? &parts[kind] : &requests[kind], 1);
}

void
sim_stats_rows(uint64_t c, uint64_t u, uint64_t d, uint64_t l)
{
	atomic_fetch_add(&created, c);
	atomic_fetch_add(&updated, u);
	atomic_fetch_add(&deleted, d);
	atomic_fetch_add(&linked, l);
}

void
sim_stats_begin(uint64_t in)
{
	int			now = atomic_fetch_add(&in_flight, 1) + 1;
	int			max = atomic_load(&in_flight_max);

	atomic_fetch_add(&total, 1);
	atomic_fetch_add(&bytes_in, in);
	while (now > max && !atomic_compare_exchange_weak(&in_flight_max, &max, now))
		;
}

void
sim_stats_end(int status, uint64_t out)
{
	atomic_fetch_sub(&in_flight, 1);
	atomic_fetch_add(&bytes_out, out);
	if (status > 0 && status < 600)
		atomic_fetch_add(&statuses[status], 1);
}

void
sim_stats_targets(uint64_t n)
{
	atomic_fetch_add(&targets, n);
}

void
sim_stats_in_wait(void)
{
	atomic_fetch_add(&in_wait, 1);
}

void
sim_stats_throttled(int facet)
{
	atomic_fetch_add(&throttled[facet], 1);
}

void
sim_stats_fault(void)
{
	atomic_fetch_add(&faults, 1);
}

static void
put(SimBuf *b, const char *name, unsigned long long v)
{
	sim_buf_printf(b, "%s\"%s\":%llu", b->data[b->len - 1] == '{' ? "" : ",", name, v);
}

static void
put_kinds(SimBuf *b, const char *name, atomic_ullong *counts)
{
	sim_buf_printf(b, ",\"%s\":{", name);
	for (int i = 0; i < SIM_N_KINDS; i++)
		put(b, kind_names[i], atomic_load(&counts[i]));
	sim_buf_char(b, '}');
}

void
sim_stats_json(SimBuf *b)
{
	static const char *const facets[] = {"requests", "time", "concurrency", "injected"};

	sim_buf_char(b, '{');
	put(b, "total", atomic_load(&total));
	put_kinds(b, "requests", requests);
	put_kinds(b, "batch_parts", parts);
	put(b, "rows_created", atomic_load(&created));
	put(b, "rows_updated", atomic_load(&updated));
	put(b, "rows_deleted", atomic_load(&deleted));
	put(b, "links_changed", atomic_load(&linked));
	put(b, "bulk_targets", atomic_load(&targets));
	put(b, "in_flight", (unsigned long long) atomic_load(&in_flight));
	put(b, "in_flight_max", (unsigned long long) atomic_load(&in_flight_max));
	put(b, "bytes_in", atomic_load(&bytes_in));
	put(b, "bytes_out", atomic_load(&bytes_out));
	put(b, "in_wait", atomic_load(&in_wait));
	put(b, "faults", atomic_load(&faults));
	sim_buf_puts(b, ",\"throttled\":{");
	for (int i = 0; i < 4; i++)
		put(b, facets[i], atomic_load(&throttled[i]));
	sim_buf_puts(b, "},\"status\":{");
	for (int i = 100; i < 600; i++)
		if (atomic_load(&statuses[i]) > 0)
		{
			char		name[8] = {(char) ('0' + i / 100), (char) ('0' + i / 10 % 10), (char) ('0' + i % 10), '\0'};

			put(b, name, atomic_load(&statuses[i]));
		}
	sim_buf_puts(b, "}}");
}

void
sim_stats_reset(void)
{
	for (int i = 0; i < SIM_N_KINDS; i++)
	{
		atomic_store(&requests[i], 0);
		atomic_store(&parts[i], 0);
	}
	for (int i = 0; i < 600; i++)
		atomic_store(&statuses[i], 0);
	for (int i = 0; i < 4; i++)
		atomic_store(&throttled[i], 0);
	atomic_store(&in_wait, 0);
	atomic_store(&created, 0);
	atomic_store(&updated, 0);
	atomic_store(&deleted, 0);
	atomic_store(&linked, 0);
	atomic_store(&targets, 0);
	atomic_store(&bytes_in, 0);
	atomic_store(&bytes_out, 0);
	atomic_store(&faults, 0);
	atomic_store(&total, 0);
	atomic_store(&in_flight_max, atomic_load(&in_flight));
}

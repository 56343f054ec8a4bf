/*
 * guid.c - reading, writing, hashing and drawing GUIDs
 */
#include "util.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Value of a hexadecimal digit, or 0xff. Filled once before any thread runs. */
static unsigned char hex_of[256];
static char hex_pair[512];

static void __attribute__((constructor))
fill_tables(void)
{
	static const char digits[] = "0123456789abcdef";

	memset(hex_of, 0xff, sizeof hex_of);
	for (int i = 0; i < 16; i++)
	{
		hex_of[(unsigned char) digits[i]] = (unsigned char) i;
		if (i >= 10)
			hex_of['A' + i - 10] = (unsigned char) i;
	}
	for (int i = 0; i < 256; i++)
	{
		hex_pair[i * 2] = digits[i >> 4];
		hex_pair[i * 2 + 1] = digits[i & 15];
	}
}

static bool
hex_run(const unsigned char *s, int n, uint64_t *out)
{
	unsigned	bad = 0;
	uint64_t	v = *out;

	for (int i = 0; i < n; i++)
	{
		unsigned	d = hex_of[s[i]];

		bad |= d;
		v = v << 4 | (d & 15);
	}
	*out = v;
	return bad < 16;
}

bool
sim_guid_parse(const char *str, size_t len, SimGuid *out)
{
	const unsigned char *s = (const unsigned char *) str;

	if (len != SIM_GUID_LEN || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-')
		return false;
	out->hi = out->lo = 0;
	return hex_run(s, 8, &out->hi) && hex_run(s + 9, 4, &out->hi) && hex_run(s + 14, 4, &out->hi) &&
		hex_run(s + 19, 4, &out->lo) && hex_run(s + 24, 12, &out->lo);
}

void
sim_guid_format(SimGuid g, char *out)
{
	/* Where each of the sixteen bytes begins among the dashes. */
	static const unsigned char at[16] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};

	out[8] = out[13] = out[18] = out[23] = '-';
	for (int i = 0; i < 8; i++)
	{
		memcpy(out + at[i], hex_pair + (g.hi >> (56 - 8 * i) & 255) * 2, 2);
		memcpy(out + at[i + 8], hex_pair + (g.lo >> (56 - 8 * i) & 255) * 2, 2);
	}
	out[SIM_GUID_LEN] = '\0';
}

void
sim_buf_guid(SimBuf *b, SimGuid g)
{
	sim_buf_room(b, SIM_GUID_LEN);
	sim_guid_format(g, b->data + b->len);
	b->len += SIM_GUID_LEN;
}

uint64_t
sim_guid_hash(SimGuid g)
{
	uint64_t	h = (g.hi ^ (g.lo * 0x9e3779b97f4a7c15u)) * 0xbf58476d1ce4e5b9u;

	h ^= h >> 31;
	h *= 0x94d049bb133111ebu;
	return h ^ h >> 29;
}

/* xorshift state of each thread, seeded from the kernel at first use. */
static uint64_t
next_random(void)
{
	static _Thread_local uint64_t state[2];
	uint64_t	a,
				b;

	if (state[0] == 0 && state[1] == 0)
	{
		if (getrandom(state, sizeof state, 0) != sizeof state)
			sim_die("the kernel gave no random bytes");
		state[0] |= 1;
	}
	a = state[0];
	b = state[1];
	state[0] = b;
	a ^= a << 23;
	a ^= a >> 18 ^ b ^ b >> 5;
	state[1] = a;
	return a + b;
}

SimGuid
sim_guid_random(void)
{
	SimGuid		g = {next_random(), next_random()};

	g.hi = (g.hi & ~(uint64_t) 0xf000) | 0x4000;
	g.lo = (g.lo & ~((uint64_t) 3 << 62)) | (uint64_t) 1 << 63;
	return g;
}

uint32_t
sim_random(uint32_t n)
{
	return (uint32_t) ((next_random() >> 32) * n >> 32);
}

/*
 * hash128.c - 128 bits that stand for a content
 *
 * MurmurHash3_x64_128, which Austin Appleby gave to the public domain: one walk
 * over the bytes, sixteen at a time. It tells contents apart, and is no defence
 * against somebody who makes two of the same hash: who can write the staging
 * table needs no such trick. Words are read low byte first on every machine, so
 * that a dump carried to another kind finds the same rows unchanged.
 */
#include "postgres.h"

#include "fmgr.h"
#include "port/pg_bswap.h"

#include "compat.h"
#include "hash128.h"

/* Constants of the algorithm. */
#define C1	UINT64CONST(0x87c37b91114253d5)
#define C2	UINT64CONST(0x4cf5ad432745937f)

static inline uint64
rotate(uint64 x, int bits)
{
	return (x << bits) | (x >> (64 - bits));
}

static inline uint64
word_at(const unsigned char *data)
{
	uint64		word;

	memcpy(&word, data, sizeof(word));
#ifdef WORDS_BIGENDIAN
	word = pg_bswap64(word);
#endif
	return word;
}

/* The first "len" bytes of a word, at most 8. */
static inline uint64
part_at(const unsigned char *data, size_t len)
{
	uint64		word = 0;

	while (len-- > 0)
		word = word << 8 | data[len];
	return word;
}

static inline uint64
mix_low(uint64 word)
{
	return rotate(word * C1, 31) * C2;
}

static inline uint64
mix_high(uint64 word)
{
	return rotate(word * C2, 33) * C1;
}

/* Every bit of the word changes about half of the bits of what comes out. */
static inline uint64
spread(uint64 k)
{
	k = (k ^ (k >> 33)) * UINT64CONST(0xff51afd7ed558ccd);
	k = (k ^ (k >> 33)) * UINT64CONST(0xc4ceb9fe1a85ec53);
	return k ^ (k >> 33);
}

void
dv_hash128(const char *data, size_t len, unsigned char hash[16])
{
	const unsigned char *at = (const unsigned char *) data;
	size_t		rest = len % 16;
	const unsigned char *end = at + (len - rest);
	uint64		low = 0;
	uint64		high = 0;
	uint64		halves[2];
	int			i;

	for (; at < end; at += 16)
	{
		low = (rotate(low ^ mix_low(word_at(at)), 27) + high) * 5 + 0x52dce729;
		high = (rotate(high ^ mix_high(word_at(at + 8)), 31) + low) * 5 + 0x38495ab5;
	}
	if (rest > 8)
		high ^= mix_high(part_at(at + 8, rest - 8));
	if (rest > 0)
		low ^= mix_low(part_at(at, Min(rest, 8)));
	low ^= len;
	high ^= len;
	low += high;
	high += low;
	low = spread(low);
	high = spread(high);
	halves[0] = low + high;
	halves[1] = high + halves[0];
	for (i = 0; i < 16; i++)
		hash[i] = (unsigned char) (halves[i / 8] >> (56 - i % 8 * 8));
}

Datum
dv_hash128_datum(const unsigned char hash[16])
{
	bytea	   *stored = palloc(VARHDRSZ + 16);

	SET_VARSIZE(stored, VARHDRSZ + 16);
	memcpy(VARDATA(stored), hash, 16);
	return PointerGetDatum(stored);
}

bool
dv_hash128_is(Datum stored, const unsigned char hash[16])
{
	bytea	   *bytes = DatumGetByteaPP(stored);

	return VARSIZE_ANY_EXHDR(bytes) == 16 && memcmp(VARDATA_ANY(bytes), hash, 16) == 0;
}

/*
 * sha256.c - SHA-256 as FIPS 180-4 describes it
 *
 * No PostgreSQL types: the function can be tested and reused anywhere. The
 * regression test record_id compares it with the server's own sha256().
 */
#include "sha256.h"

#include <string.h>

/* First 32 bits of the fractional parts of the cube roots of the first 64 primes. */
static const uint32_t round_constants[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2
};

/* First 32 bits of the fractional parts of the square roots of the first 8 primes. */
static const uint32_t initial_state[8] = {
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
};

static inline uint32_t
rotate_right(uint32_t x, int n)
{
	return (x >> n) | (x << (32 - n));
}

static inline uint32_t
read_be32(const unsigned char *p)
{
	return ((uint32_t) p[0] << 24) | ((uint32_t) p[1] << 16) | ((uint32_t) p[2] << 8) | p[3];
}

static inline void
write_be32(unsigned char *p, uint32_t x)
{
	p[0] = (unsigned char) (x >> 24);
	p[1] = (unsigned char) (x >> 16);
	p[2] = (unsigned char) (x >> 8);
	p[3] = (unsigned char) x;
}

/* Message schedule: 16 words of the block, 48 derived from them. */
static inline void
expand_block(uint32_t w[64], const unsigned char *block)
{
	for (int i = 0; i < 16; i++)
		w[i] = read_be32(block + 4 * i);
	for (int i = 16; i < 64; i++)
	{
		uint32_t	a = w[i - 15];
		uint32_t	b = w[i - 2];

		a = rotate_right(a, 7) ^ rotate_right(a, 18) ^ (a >> 3);
		b = rotate_right(b, 17) ^ rotate_right(b, 19) ^ (b >> 10);
		w[i] = w[i - 16] + a + w[i - 7] + b;
	}
}

static void
compress(uint32_t state[8], const unsigned char *block)
{
	uint32_t	w[64];
	uint32_t	a = state[0],
				b = state[1],
				c = state[2],
				d = state[3],
				e = state[4],
				f = state[5],
				g = state[6],
				h = state[7];

	expand_block(w, block);
	for (int i = 0; i < 64; i++)
	{
		uint32_t	s1 = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
		uint32_t	s0 = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
		uint32_t	t1 = h + s1 + (g ^ (e & (f ^ g))) + round_constants[i] + w[i];
		uint32_t	t2 = s0 + ((a & b) | (c & (a | b)));

		h = g;
		g = f;
		f = e;
		e = d + t1;
		d = c;
		c = b;
		b = a;
		a = t1 + t2;
	}
	state[0] += a;
	state[1] += b;
	state[2] += c;
	state[3] += d;
	state[4] += e;
	state[5] += f;
	state[6] += g;
	state[7] += h;
}

void
dv_sha256_init(DvSha256 *ctx)
{
	memcpy(ctx->state, initial_state, sizeof(initial_state));
	ctx->length = 0;
}

void
dv_sha256_update(DvSha256 *ctx, const void *data, size_t len)
{
	const unsigned char *p = data;
	size_t		used = ctx->length % DV_SHA256_BLOCK;

	ctx->length += len;
	if (used > 0)
	{
		size_t		room = DV_SHA256_BLOCK - used;

		if (len < room)
		{
			memcpy(ctx->block + used, p, len);
			return;
		}
		memcpy(ctx->block + used, p, room);
		compress(ctx->state, ctx->block);
		p += room;
		len -= room;
	}
	for (; len >= DV_SHA256_BLOCK; p += DV_SHA256_BLOCK, len -= DV_SHA256_BLOCK)
		compress(ctx->state, p);
	if (len > 0)
		memcpy(ctx->block, p, len);
}

void
dv_sha256_final(DvSha256 *ctx, unsigned char digest[DV_SHA256_DIGEST])
{
	uint64_t	bits = ctx->length * 8;
	size_t		used = ctx->length % DV_SHA256_BLOCK;

	/* A one bit, zeros, and the length in bits as 64-bit big-endian number. */
	ctx->block[used++] = 0x80;
	if (used > DV_SHA256_BLOCK - 8)
	{
		memset(ctx->block + used, 0, DV_SHA256_BLOCK - used);
		compress(ctx->state, ctx->block);
		used = 0;
	}
	memset(ctx->block + used, 0, DV_SHA256_BLOCK - 8 - used);
	write_be32(ctx->block + 56, (uint32_t) (bits >> 32));
	write_be32(ctx->block + 60, (uint32_t) bits);
	compress(ctx->state, ctx->block);

	for (int i = 0; i < 8; i++)
		write_be32(digest + 4 * i, ctx->state[i]);
}

/*
 * sha256.h - SHA-256 (FIPS 180-4), small and without set-up cost
 *
 * PostgreSQL's pg_cryptohash creates an OpenSSL context for every message,
 * which costs about three times the hashing of a key of some bytes, and a
 * context cannot be kept between calls because it belongs to a resource owner.
 * dvmig.record_id() is called several times per row.
 */
#ifndef DV_SHA256_H
#define DV_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define DV_SHA256_BLOCK		64
#define DV_SHA256_DIGEST	32

typedef struct DvSha256
{
	uint32_t	state[8];
	uint64_t	length;			/* bytes so far */
	unsigned char block[DV_SHA256_BLOCK];
} DvSha256;

/* Begin a message. */
extern void dv_sha256_init(DvSha256 *ctx);

/* Add len bytes to the message. */
extern void dv_sha256_update(DvSha256 *ctx, const void *data, size_t len);

/* End the message and write its digest; "ctx" must be begun again afterwards. */
extern void dv_sha256_final(DvSha256 *ctx, unsigned char digest[DV_SHA256_DIGEST]);

#endif							/* DV_SHA256_H */

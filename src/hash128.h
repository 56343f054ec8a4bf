/*
 * hash128.h - 128 bits that stand for a content
 */
#ifndef DV_HASH128_H
#define DV_HASH128_H

#include "postgres.h"

/*
 * Hash of "len" bytes, of each half the high byte first. It is stored in
 * outcomes to recognise rows that did not change: it must never change itself.
 */
extern void dv_hash128(const char *data, size_t len, unsigned char hash[16]);

/* As it is stored: a bytea, palloc'ed. Is what is stored that hash? */
extern Datum dv_hash128_datum(const unsigned char hash[16]);
extern bool dv_hash128_is(Datum stored, const unsigned char hash[16]);

#endif							/* DV_HASH128_H */

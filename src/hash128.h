/*
 * hash128.h - 128 bits that stand for a content
 */
#ifndef DV_HASH128_H
#define DV_HASH128_H

/*
 * Hash of "len" bytes, of each half the high byte first. It is stored in
 * outcomes to recognise rows that did not change: it must never change itself.
 */
extern void dv_hash128(const char *data, size_t len, unsigned char hash[16]);

#endif							/* DV_HASH128_H */

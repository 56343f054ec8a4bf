/*
 * links.h - many-to-many links: rows for which no record stands
 */
#ifndef DV_LINKS_H
#define DV_LINKS_H

#include "answer.h"
#include "encode.h"

/*
 * Take the two ends of a link, and a handle for it. Called before the row is
 * known to be free: no two requests for one link are on their way at once.
 */
extern void dv_links_take(DvStep *step, DvRow *row, const Datum *values, const bool *nulls);

/* The hash that stands for a link in its outcome. */
extern void dv_links_hash(const pg_uuid_t *left, const pg_uuid_t *right, unsigned char hash[16]);

/* Make the row's request; false where it has its verdict already. */
extern bool dv_links_encode(DvStep *step, DvRow *row, const Datum *values, const bool *nulls);

/* The request as people read it; in the current memory context. */
extern char *dv_links_preview(DvStep *step, const Datum *values, const bool *nulls);

/*
 * Does this verdict mean that the link is as it should be (linked already, or
 * not linked)? Then it is recorded.
 */
extern bool dv_links_settled(DvStep *step, DvRow *row, const DvVerdict *v);

#endif							/* DV_LINKS_H */

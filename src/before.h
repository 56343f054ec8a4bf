/*
 * before.h - what records held before a run updated them
 */
#ifndef DV_BEFORE_H
#define DV_BEFORE_H

#include "engine.h"
#include "keys.h"

/* Records of one read: whole ones, with texts of up to a million characters. */
#define DV_IMAGE_ROWS	100

/* Is the record of this row, which is to be updated, to be read first? */
extern bool dv_before_wants(const DvStep *step, const DvRow *row);

/*
 * Keep images of n records in a transaction of its own that is on disk when
 * this returns; the first image of a record in a run stands. "keys" are their
 * rows', "records" their JSON in UTF-8. Throws where they cannot be kept.
 */
extern void dv_before_store(const DvProjection *p, int64 run, Datum *const *keys, Datum *ids, const char **records, int n);

/* The answer to that read: images are committed, then the rows are sent. */
extern void dv_before_handle(DvStep *step, DvTask *task, const DvHttpReply *reply);

#endif							/* DV_BEFORE_H */

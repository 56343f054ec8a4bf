/*
 * before.h - what records held before a run updated them
 */
#ifndef DV_BEFORE_H
#define DV_BEFORE_H

#include "engine.h"

/* Records of one read: whole ones, with texts of up to a million characters. */
#define DV_IMAGE_ROWS	100

/* Is the record of this row, which is to be updated, to be read first? */
extern bool dv_before_wants(const DvStep *step, const DvRow *row);

/* The answer to that read: images are committed, then the rows are sent. */
extern void dv_before_handle(DvStep *step, DvTask *task, const DvHttpReply *reply);

#endif							/* DV_BEFORE_H */

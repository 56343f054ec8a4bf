/*
 * files.h - the pass that uploads file columns
 */
#ifndef DV_FILES_H
#define DV_FILES_H

#include "engine.h"

/* Remember what was uploaded last, as the projection has it. */
extern void dv_files_take(DvRow *row, const Datum *values, const bool *nulls);

/* Hash of the files of a row, as the success table keeps it. */
extern const char *dv_files_text(const DvRow *row);

/*
 * Upload the files of these rows, one after the other; each gets its verdict,
 * or is given back where the run stops. No transaction is open while a request
 * is on its way.
 */
extern void dv_files_send(DvStep *step, DvRow **rows, int n);

#endif							/* DV_FILES_H */

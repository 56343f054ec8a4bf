/*
 * files.h - the pass that uploads file columns
 */
#ifndef DV_FILES_H
#define DV_FILES_H

#include "engine.h"

/* Hash of the files of a row, as the success table keeps it. */
extern const char *dv_files_text(const DvRow *row);

/*
 * Upload the files of these rows, one after the other; each gets its verdict,
 * or is given back where the run stops. No transaction is open while a request
 * is on its way.
 */
extern void dv_files_send(DvStep *step, DvRow **rows, int n);

#endif							/* DV_FILES_H */

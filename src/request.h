/*
 * request.h - a task as the request that it is sent with
 */
#ifndef DV_REQUEST_H
#define DV_REQUEST_H

#include "engine.h"

/*
 * Path, content type and body. The body of a bulk request of a whole batch
 * becomes the batch's: its rows have their content in it from here on.
 */
extern void dv_request_build(DvStep *step, DvTask *task);

/* What the parts of a $batch say each for itself, a bulk message says once. */
extern void dv_request_bulk_headers(DvStep *step, const DvTask *task, const char **headers);

#endif							/* DV_REQUEST_H */

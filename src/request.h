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

/* A boundary for a $batch, and the header line of its content type, of which there is room for "size" bytes. */
#define DV_BOUNDARY_SIZE	40
extern void dv_request_boundary(char boundary[DV_BOUNDARY_SIZE], char *content_type, size_t size);

/* Header lines of a table and a caller: three that leave logic out or apply rules, and one. */
#define DV_REQUEST_HEADERS_MAX	4

/*
 * What the parts of a $batch say each for itself, a bulk message or an upload
 * says once: the table's header lines and the row's caller. Returns how many.
 */
extern int	dv_request_headers(const DvWireTable *table, const DvRow *row, const char **headers);

#endif							/* DV_REQUEST_H */

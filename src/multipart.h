/*
 * multipart.h - the framing of a $batch: multipart/mixed around HTTP messages
 *
 * Reads replies only. A part exists once the delimiter behind it has been read
 * as a whole line: what a cut connection left over is never handed out.
 */
#ifndef DV_MULTIPART_H
#define DV_MULTIPART_H

#include <stdbool.h>
#include <stddef.h>

#include "verdict.h"

/* RFC 2046 allows 70 characters; some room for servers that do not know it. */
#define DV_BOUNDARY_LEN	201

typedef struct DvMultipart
{
	const char *pos;
	const char *end;
	char		delimiter[DV_BOUNDARY_LEN + 2];	/* with its two dashes */
	size_t		delimiter_len;
	bool		started;		/* the first delimiter was seen */
	bool		closed;			/* the closing delimiter was seen */
} DvMultipart;

/* One answer inside a $batch. */
typedef struct DvHttpPart
{
	int			status;			/* 0 where it could not be read */
	bool		nested;			/* multipart inside: a change set */
	bool		id_conflict;	/* two headers name two records */
	char		id[37];			/* GUID of OData-EntityId or Location, or "" */
	char		request_id[DV_REQID_LEN];	/* REQ_ID, else x-ms-service-request-id */
	char		content_type[128];
	long		retry_after_ms; /* -1 where absent */
	const char *body;			/* without white space at the ends */
	size_t		len;
} DvHttpPart;

/*
 * Boundary of a content type, quoted or not, into "boundary". False where it
 * is not multipart/mixed or has no usable boundary.
 */
extern bool dv_multipart_boundary(const char *content_type, char boundary[DV_BOUNDARY_LEN]);

/* Begin to read a body. It must stay in place while parts of it are used. */
extern void dv_multipart_open(DvMultipart *reader, const char *body, size_t len, const char *boundary);

/*
 * Next complete part. False at the end: reader->closed then tells whether the
 * body ended as it should or was cut.
 */
extern bool dv_multipart_next(DvMultipart *reader, const char **part, size_t *len);

/*
 * Read a part of type application/http. "now" is a time_t, for a Retry-After
 * that is a date. False, with status 0, where it is not one whole, plain HTTP
 * response.
 */
extern bool dv_multipart_http(const char *part, size_t len, long long now, DvHttpPart *out);

/*
 * GUID in the URL of a record, as in .../accounts(7eb682f1-...): true, and
 * lower-case in id. False for the form with alternate keys.
 */
extern bool dv_multipart_record_id(const char *url, size_t len, char id[37]);

#endif							/* DV_MULTIPART_H */

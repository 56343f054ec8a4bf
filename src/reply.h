/*
 * reply.h - the JSON that Dataverse answers with
 *
 * Parsing is strict and bounded: one JSON object with known length, limited
 * depth and size, nothing behind it. Whatever does not have exactly the shape
 * asked for is "not understood", never half of an answer.
 */
#ifndef DV_REPLY_H
#define DV_REPLY_H

#include <stdbool.h>
#include <stddef.h>

#include "verdict.h"
#include "wire.h"

/*
 * Read an error object {"error":{"code":..,"message":..}}, or what gateways
 * send in its place ({"Message":..}), into v->code and v->message. False where
 * there is neither; both are then "".
 */
extern bool dv_reply_error(const char *body, size_t len, DvVerdict *v);

/* Read "Ids" of CreateMultiple: true only for exactly n uuids. */
extern bool dv_reply_ids(const char *body, size_t len, int n, char (*ids)[37]);

/*
 * Read a query's "value": at most max records, each with one id (a uuid whose
 * member is neither a lookup nor an annotation), who wrote
 * and created it when, where that is there. Returns their number, -1 where the
 * answer was not understood, or DV_MORE_PAGES where these are not all.
 */
#define DV_MORE_PAGES	(-2)

extern int	dv_reply_records(const char *body, size_t len, int max, DvWireFound *records);

#endif							/* DV_REPLY_H */

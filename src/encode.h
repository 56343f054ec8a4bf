/*
 * encode.h - one row of the projection to what will be sent, or to a verdict
 */
#ifndef DV_ENCODE_H
#define DV_ENCODE_H

#include "engine.h"

/* Build the appender for this row type, unless it is built for it already. */
extern void dv_encode_descriptor(DvStep *step, TupleDesc desc);

/*
 * Encode one row into "content". True if it is to be sent; false where it has
 * a verdict already (among the step's outcomes), waits for a parent, or is not
 * for now. values and nulls are the row's.
 */
extern bool dv_encode_row(DvStep *step, DvRow *row, const Datum *values, const bool *nulls,
						  StringInfo content, StringInfo scratch);

/*
 * Would a run write this row, which is loaded already, again? The appender is
 * built for its row type.
 */
extern bool dv_encode_changed(DvStep *step, const Datum *values, const bool *nulls, StringInfo scratch);

/*
 * Hash of the content that this row would be sent with. False where it cannot
 * be written.
 */
extern bool dv_encode_hash(DvStep *step, const Datum *values, const bool *nulls, StringInfo scratch, unsigned char hash[16]);

/* Is the content of the row, as its hash tells, what was last written? values and nulls are the row's. */
extern bool dv_encode_is_unchanged(const DvRow *row, const Datum *values, const bool *nulls);

/*
 * Write the request body of one row, for people to read, and its operation.
 * Returns NULL, or why the row would not be sent, or what policies did to its values.
 */
extern char *dv_encode_preview(DvStep *step, HeapTuple tuple, TupleDesc desc, StringInfo body, char *op);

/* A verdict of our own: the row is to blame, and nothing was sent. */
extern DvVerdict *dv_encode_verdict(const char *error_class, const char *code,
									const char *column, const char *message);

/*
 * altkey.c: take a row that has no id by its alternate key (wire.key and
 * handle). False with *fault filled in where the key is not complete.
 */
extern bool dv_altkey_take(DvStep *step, DvRow *row, const Datum *values, const bool *nulls,
						   StringInfo scratch, DvPayloadFault *fault);

/* source.c: text of an id, 36 characters and NUL. */
extern void dv_source_format_id(const pg_uuid_t *uuid, char *out);

/*
 * source.c: a hash of the source key, to stand for a row that has no id.
 * "values" begins with the key's columns.
 */
extern void dv_source_key_handle(const DvProjection *p, const Datum *values, pg_uuid_t *handle);

/* source.c: is an error of this SQLSTATE the fault of the row that was read? */
extern bool dv_source_is_row_fault(const ErrorData *error);

/* source.c: was this row answered so often that its flag does not hold? Counts it; and takes back what that counted. */
extern bool dv_source_answered_too_often(DvStep *step, const DvRow *row);
extern void dv_source_unanswer(DvStep *step, const DvRow *row);

#endif							/* DV_ENCODE_H */

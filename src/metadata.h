/*
 * metadata.h - what Dataverse knows of its tables, and records to refer to
 */
#ifndef DV_METADATA_H
#define DV_METADATA_H

#include "postgres.h"

#include "session.h"

/*
 * Read a table's metadata with the role's credentials unless it is cached;
 * true where it was read. Throws where the table does not exist. In a
 * transaction, as the owner of the extension; waits for the network.
 */
extern bool dv_metadata_ensure(const char *server, Oid userid, const char *table);

/*
 * For a worker, outside a transaction: read again what the column maps of a run
 * rest on. Returns what has changed since, in words, in the current memory
 * context; NULL where nothing has. Throws where it cannot be read.
 */
extern char *dv_metadata_changed(DvSession *session, int64 run);

/*
 * For a worker, outside a transaction: read ids of the records whose "match_on"
 * (column names joined by commas) is among "keys" (text[], lower-cased, the
 * values of several columns joined by chr(31)), or of all records where keys is
 * 0, and store them in dvmig.reference. Throws what is wrong.
 */
extern void dv_metadata_read_reference(DvSession *session, const char *server, const char *table,
									   const char *match_on, Datum keys);

#endif							/* DV_METADATA_H */

/*
 * recordid.h - which types may be part of a record key
 */
#ifndef DV_RECORDID_H
#define DV_RECORDID_H

#include "postgres.h"

/*
 * True where values of "type" (a domain counts as its base type) can be part
 * of the key given to dvmig.record_id(). Otherwise false, with *cast_hint set
 * to the cast to write (e.g. "::text"), or NULL where no cast helps.
 */
extern bool dv_record_id_accepts(Oid type, const char **cast_hint);

#endif							/* DV_RECORDID_H */

/*
 * payload.h - a row of the projection as JSON members, straight from datums
 *
 * The hot path: no json functions, no text round trips. Every type that the
 * mapping accepts is written here; the mapping refuses the others.
 */
#ifndef DV_PAYLOAD_H
#define DV_PAYLOAD_H

#include "postgres.h"

#include "lib/stringinfo.h"

/* What a Dataverse column wants to see. */
typedef enum DvTargetType
{
	DV_TARGET_TEXT,				/* String, Memo: JSON string */
	DV_TARGET_INTEGER,			/* Integer, BigInt, Picklist, State, Status: whole number */
	DV_TARGET_NUMBER,			/* Decimal, Double, Money: number */
	DV_TARGET_BOOLEAN,
	DV_TARGET_GUID,
	DV_TARGET_DATE,				/* DateTime with DateOnly: YYYY-MM-DD */
	DV_TARGET_INSTANT,			/* DateTime with UserLocal: ...Z, in UTC */
	DV_TARGET_WALL_CLOCK,		/* DateTime with TimeZoneIndependent: ...Z of the wall clock */
	DV_TARGET_BINARY,			/* image: base64 */
	DV_TARGET_CHOICES,			/* MultiSelectPicklist: "1,9" from text or int[] */
	DV_TARGET_RAW,				/* activity parties: JSON, as dvmig made it */
	DV_TARGET_LOOKUP			/* bound by id: "nav@odata.bind":"set(uuid)" */
} DvTargetType;

#define DV_SEND_INSERT	1
#define DV_SEND_UPDATE	2

typedef struct DvPayloadColumn
{
	int			attnum;			/* of the value in the projection, from 1 */
	Oid			type;			/* its type, domains resolved */
	DvTargetType target;
	int			send;			/* DV_SEND_* */
	const char *column;			/* target column, for messages */
	const char *member;			/* JSON member name: column, or nav@odata.bind */
	const char *entity_set;		/* lookups: set of the record pointed at */
	bool		deferred;		/* belongs to the deferred pass */
	bool		late;			/* goes with updates only, and a create owes it */
	int			max_units;		/* texts are cut after so many UTF-16 code units; 0 = not */
	/* ready-made by dv_payload_prepare() */
	char	   *prefix;			/* ,"member": */
	int			prefix_len;
	void	   *opaque;
} DvPayloadColumn;

/* Why a row cannot be written as JSON. */
typedef struct DvPayloadFault
{
	const char *column;			/* target column */
	char		message[256];	/* no row content */
} DvPayloadFault;

/*
 * True where a value of "type" can be written for a target of that kind;
 * else *cast_hint is the cast to write (e.g. "::text"), or NULL if there is none.
 */
extern bool dv_payload_accepts(Oid type, DvTargetType target, const char **cast_hint);

/* Target kind from Dataverse's AttributeType and date behaviour; false if not loadable. */
extern bool dv_payload_target(const char *column_type, const char *date_behavior, DvTargetType *target);

/* Prepare columns once per projection (allocates in the current context). */
extern void dv_payload_prepare(DvPayloadColumn *columns, int n);

/*
 * Append the members of one row of the projection, given as its values and
 * nulls, to "out", without braces and without a leading comma. "op" is
 * DV_SEND_INSERT or DV_SEND_UPDATE and selects columns by their direction;
 * "deferred" selects the deferred columns instead of the others. Nulls are left out of a create and written as null in an update
 * (a multi-table lookup mapped by several columns is cleared once, and only
 * if all of them are null). False with *fault filled in where a value cannot
 * be sent (NaN, infinity, date out of range, number with a fraction for a
 * whole number, text with NUL ...); "out" is then as it was.
 */
extern bool dv_payload_append(StringInfo out, const DvPayloadColumn *columns, int n,
							  const Datum *values, const bool *nulls, int op, bool deferred,
							  DvPayloadFault *fault);

/*
 * Append the names of columns whose texts were cut since this was last called,
 * with ", " between them; "out" may be NULL to forget them.
 */
extern void dv_payload_take_trimmed(const DvPayloadColumn *columns, int n, StringInfo out);

#endif							/* DV_PAYLOAD_H */

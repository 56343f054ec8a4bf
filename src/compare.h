/*
 * compare.h - is what Dataverse holds what was sent?
 *
 * Both sides are JSON values as written: what the payload code writes for a
 * staging row, and what a query answers. What the service normalises is
 * normalised here too: empty text is null, trailing zeros, digits beyond a
 * column's precision, the offset of an instant and fractions of its second, the
 * letters of a GUID, the order of choices and how often one is told. No PostgreSQL types.
 */
#ifndef DV_COMPARE_H
#define DV_COMPARE_H

#include <stdbool.h>

#include "page.h"

typedef enum DvCompareKind
{
	DV_COMPARE_TEXT,
	DV_COMPARE_NUMBER,			/* exact, but for digits beyond the precision */
	DV_COMPARE_MONEY,			/* kept with four digits, or with its column's precision */
	DV_COMPARE_DOUBLE,			/* to what a double can hold */
	DV_COMPARE_BOOLEAN,
	DV_COMPARE_GUID,
	DV_COMPARE_DATE,
	DV_COMPARE_INSTANT,			/* also wall clocks, which are written alike */
	DV_COMPARE_CHOICES,
	DV_COMPARE_LOOKUP,			/* "set(id)" sent, "id" answered */
	DV_COMPARE_BASE64,			/* bytes; line breaks between do not matter */
	DV_COMPARE_PARTIES,			/* a collection: verify_expand.c */
	DV_COMPARE_PRESENCE			/* content is not kept as sent: there or not there */
} DvCompareKind;

/* precision: digits after the point that the column keeps, -1 where not known. */
extern bool dv_compare_equal(DvCompareKind kind, int precision, DvSlice expected, DvSlice found);

/* The id within what is sent for a lookup; no slice where there is none. */
extern DvSlice dv_compare_lookup_id(DvSlice bound);

#endif							/* DV_COMPARE_H */

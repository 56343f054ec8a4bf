/*
 * value.h - one column value: read and checked from JSON, and written back
 */
#ifndef SIM_VALUE_H
#define SIM_VALUE_H

#include "json.h"
#include "store.h"

/*
 * Check a scalar against a column and turn it into a value; text may point
 * into the body or the arena. False with "e" filled when Dataverse would
 * refuse it. Lookups and the id are not for this function.
 */
extern bool sim_value_read(SimArena *a, const SimTable *t, const SimColumn *c, const SimScalar *in, SimVal *out, SimErr *e);

/* Append a value as JSON, as plain text, and as a formatted value for people. */
extern void sim_value_put(SimBuf *b, const SimColumn *c, const SimVal *v);
extern void sim_value_put_formatted(SimBuf *b, const SimTable *t, const SimColumn *c, const SimVal *v);

/* Round decimal text half away from zero and pad to "decimals" digits; returns the length. */
extern size_t sim_decimal_round(const char *s, size_t len, int decimals, char *out, size_t size);

#endif							/* SIM_VALUE_H */

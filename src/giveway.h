/*
 * giveway.h - waits that nobody who wants the extension for himself waits for
 */
#ifndef DV_GIVEWAY_H
#define DV_GIVEWAY_H

#include "postgres.h"

#include "compat.h"

/*
 * Does another session wait to have a relation of schema dvmig for itself that
 * this transaction has locked (DROP EXTENSION)? Looks once a second at most, and
 * says false in between. Cheap enough for every turn of a wait.
 */
extern bool dv_giveway_wanted(void);

/* The error that ends a statement which waits; the hint may be NULL. */
pg_noreturn extern void dv_giveway_throw(const char *hint);

/* Both: for waits within a statement that may be called again. */
extern void dv_giveway(void);

#endif							/* DV_GIVEWAY_H */

/*
 * servertext.h - texts of the service in this database's encoding
 */
#ifndef DV_SERVERTEXT_H
#define DV_SERVERTEXT_H

#include "postgres.h"

/* Before others are called outside of a transaction; a worker does it as it begins. */
extern void dv_server_text_prepare(void);

/*
 * UTF-8 text in this database's encoding; palloc'ed. In the place of each
 * character that the encoding lacks stands "lacking"; where that is NULL, such
 * a text gives NULL. What is not UTF-8 is an error.
 */
extern char *dv_server_text(const char *text, size_t len, const char *lacking);

/* Copy a text of this database into "size" bytes; what is too much is cut off behind a whole character. */
extern void dv_server_text_cut(char *to, size_t size, const char *text);

/* The other way: a text of this database as UTF-8; palloc'ed. Bytes that stand for nothing become question marks. */
extern char *dv_server_text_utf8(const char *text);

#endif							/* DV_SERVERTEXT_H */

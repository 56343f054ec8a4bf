/*
 * wiretext.h - small tools for text that came from outside
 *
 * Every function takes a length and reads no byte beyond it; none depends on
 * the locale, because the server's locale must not change what a reply means.
 */
#ifndef DV_WIRETEXT_H
#define DV_WIRETEXT_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Copy text into dst (size bytes, at least 1) so that it is valid UTF-8
 * without NUL: bytes that are not UTF-8 become '?', control characters become
 * blanks (tabs and line ends stay), and what is too long is cut between
 * characters. Leading and trailing white space is dropped. Returns the length.
 */
extern size_t dv_wiretext_copy(char *dst, size_t size, const char *src, size_t len);

/* The same with the white space at both ends. */
extern size_t dv_wiretext_clean(char *dst, size_t size, const char *src, size_t len);

/* Copy printable ASCII only, up to the first other byte; for codes and ids. */
extern size_t dv_wiretext_ascii(char *dst, size_t size, const char *src, size_t len);

/* Equal without regard to the case of ASCII letters? */
extern bool dv_wiretext_same(const char *a, size_t len, const char *b);

/* First place of needle in text without regard to ASCII case, or NULL. */
extern const char *dv_wiretext_find(const char *text, size_t len, const char *needle);

/*
 * The part of an address, from its slash on, that is below the service's path,
 * NULL where the address lies elsewhere or has a blank or control character in
 * it. Absolute addresses may name any host, as those behind a proxy do: it is
 * the caller who sends, and to the service only.
 */
extern const char *dv_wiretext_below(const char *address, const char *path);

/* Drop white space at both ends. */
extern void dv_wiretext_trim(const char **text, size_t *len);

/*
 * Read text that is a uuid and nothing else, in braces or not, in any case,
 * into its lower-case form of 36 characters. False, with out[0] = '\0', if it
 * is not one.
 */
extern bool dv_wiretext_uuid(const char *text, size_t len, char out[37]);

/* The 36 characters of a uuid's 16 bytes, lower-case as Dataverse writes it, and NUL. */
extern void dv_wiretext_format_uuid(const unsigned char id[16], char out[37]);

/* Days from 1970-01-01 to a date of the proleptic Gregorian calendar. */
extern long long dv_wiretext_days(int y, int m, int d);

/* Find the next uuid at or after *pos in running text, and step behind it. */
extern bool dv_wiretext_next_uuid(const char *text, size_t len, size_t *pos, char out[37]);

#endif							/* DV_WIRETEXT_H */

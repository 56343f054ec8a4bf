/*
 * page.h - the records of a query's answer, member by member, without copying
 *
 * For answers with many columns that are to be compared as they were written:
 * json-c would build a tree of objects for every page and turn decimals into
 * doubles. No PostgreSQL types, so that it can be tested and fuzzed alone.
 * Every answer is hostile: a page that is cut, doubled or nested too deep is no
 * page at all.
 */
#ifndef DV_PAGE_H
#define DV_PAGE_H

#include <stdbool.h>
#include <stddef.h>

/* Part of a text, not ended by NUL; p is NULL where there is none. */
typedef struct DvSlice
{
	const char *p;
	size_t		len;
} DvSlice;

typedef struct DvPage
{
	const char *next;			/* where the next record begins */
	const char *end;
	DvSlice		next_link;		/* address of the next page, as written in JSON, without quotes */
	DvSlice		count;			/* @odata.count, or none */
} DvPage;

/* Read {"value":[...]}; false where the answer is not such a page of records, whole and alone. */
extern bool dv_page_open(DvPage *page, const char *body, size_t len);

/* The next record, with its braces; false after the last one. */
extern bool dv_page_record(DvPage *page, DvSlice *record);

/*
 * The same in one walk: dv_page_enter() gives the next record and all behind it;
 * its members are to be taken to the last one, and dv_page_leave() then, told where
 * they ended, cuts the record there. False where that is no record's end.
 */
extern bool dv_page_enter(DvPage *page, DvSlice *rest);
extern bool dv_page_leave(DvPage *page, const char *at, DvSlice *record);

/*
 * The next member of a record: its name without quotes and its value as
 * written. *at begins at record->p; false after the last one.
 */
extern bool dv_page_member(DvSlice record, const char **at, DvSlice *name, DvSlice *value);

/*
 * A JSON value as plain text into out (size bytes, at least 1): strings without
 * quotes and escapes, everything else as it is written. Returns the length it
 * needs; more than size - 1 means that it was cut.
 */
extern size_t dv_page_text(DvSlice value, char *out, size_t size);

/* A value that is a uuid, as its 16 bytes; false where it is none. */
extern bool dv_page_uuid(DvSlice value, unsigned char id[16]);

/* The member of that name; no slice where there is none. */
extern DvSlice dv_page_find(DvSlice record, const char *name);

/* Is the value null, not there, or an empty string, which Dataverse keeps as null? */
extern bool dv_page_is_null(DvSlice value);

#endif							/* DV_PAGE_H */

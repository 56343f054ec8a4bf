/*
 * reader.h - many GETs, some at a time, until all are answered
 *
 * For metadata and references. What is transient is tried again, with the
 * pauses the service asks for; what is not is the caller's to judge.
 */
#ifndef DV_READER_H
#define DV_READER_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"

#include "session.h"

/* A read that failed this often will not succeed. */
#define DV_READ_ATTEMPTS	5

typedef struct DvRead
{
	char	   *path;			/* below the API's path; palloc'ed */
	const char *table;			/* the caller's, as is part */
	const char *part;

	/* the reader's own */
	int			attempts;
	TimestampTz not_before;
	bool		in_flight;
	bool		done;
} DvRead;

typedef enum DvReadResult
{
	DV_READ_DONE,
	DV_READ_AGAIN,				/* read->path has been changed: the next page */
	DV_READ_FAILED				/* problem filled in */
} DvReadResult;

/* Judge an answer that is not transient, whatever its status. */
typedef DvReadResult (*DvReadAnswer) (DvSession *session, DvRead *read, const DvHttpReply *reply,
									  void *arg, DvProblem *problem);

/*
 * Carry out n reads. False with *problem filled in where one failed for good;
 * what was on its way is dropped then. Interruptible; needs no transaction.
 */
extern bool dv_reader_run(DvSession *session, DvRead *reads, int n, DvReadAnswer answer,
						  void *arg, DvProblem *problem);

/* Append text to a URL, percent-encoded; the text is UTF-8. */
extern void dv_reader_encode(StringInfo url, const char *text, size_t len);

#endif							/* DV_READER_H */

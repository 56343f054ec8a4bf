/*
 * problem.h - what is wrong with a connection, in words for people
 */
#ifndef DV_PROBLEM_H
#define DV_PROBLEM_H

#include "postgres.h"

#include "compat.h"
#include "http.h"
#include "session.h"

/*
 * Fill in a problem; detail and hint may be NULL. Texts of the service are
 * made fit for this database's encoding and cut to the room there is.
 */
extern void dv_problem_set(DvProblem *problem, bool transient, int sqlerrcode,
						   const char *message, const char *detail, const char *hint);

/* A request to "address" that got no complete answer. */
extern void dv_problem_transport(DvProblem *problem, const DvHttpReply *reply,
								 const char *address);

/* An answer of Dataverse that is no success. */
extern void dv_problem_answer(DvProblem *problem, const DvHttpReply *reply,
							  const char *address);

/* Another organisation answers than the one that the server is pinned to. */
extern void dv_problem_organisation(DvProblem *problem, const char *server, const char *pinned, const char *found);

/* Message and detail in one line; palloc'ed. */
extern char *dv_problem_text(const DvProblem *problem);

/* Report a problem as an error. */
pg_noreturn extern void dv_problem_throw(const DvProblem *problem);

#endif							/* DV_PROBLEM_H */

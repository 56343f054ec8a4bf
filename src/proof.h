/*
 * proof.h - how an application user proves who it is: a secret, or a signed assertion
 */
#ifndef DV_PROOF_H
#define DV_PROOF_H

#include "postgres.h"

#include "options.h"
#include "session.h"

/* What to do about a certificate that has expired, or will soon. */
#define DV_PROOF_RENEW	"Make a new certificate, add it to the app registration, and replace the files: the next login reads them."

typedef struct DvProof
{
	const char *fields;			/* of the login's form, up to the value */
	char	   *value;			/* malloc'ed, not yet escaped */
} DvProof;

/*
 * Make it from what the user mapping says. Files are read each time, so that what
 * was put there since the last login counts at once. "audience" is the token
 * endpoint, the only one that an assertion is good for. False with *problem
 * filled in where the files cannot be used: nothing is to be sent then.
 */
extern bool dv_proof_make(const DvCredentials *credentials, const char *audience, DvProof *proof, DvProblem *problem);

/*
 * For how many days to come the certificate is valid, and until when (palloc'ed);
 * -1 where there is none, or none that can be used.
 */
extern int	dv_proof_days_left(const DvCredentials *credentials, char **until);

/* Wiped and freed. */
extern void dv_proof_forget(DvProof *proof);

#endif							/* DV_PROOF_H */

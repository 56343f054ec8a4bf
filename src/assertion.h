/*
 * assertion.h - signing in with a certificate: the client assertion (RFC 7523)
 *
 * Includes no PostgreSQL header: only assertion.c sees libcrypto, and it can be
 * tested without a server.
 */
#ifndef DV_ASSERTION_H
#define DV_ASSERTION_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

/* Shorter keys are not for PS256 (RFC 7518, 3.5); Entra makes and takes none. */
#define DV_ASSERTION_KEY_BITS	2048

/* "2026-11-27 12:00:00 UTC" */
#define DV_ASSERTION_DATE		32

typedef enum DvAssertionFault
{
	DV_ASSERTION_GOOD,
	DV_ASSERTION_NO_CERTIFICATE,
	DV_ASSERTION_NO_KEY,
	DV_ASSERTION_ENCRYPTED,		/* the key needs a password */
	DV_ASSERTION_NOT_RSA,
	DV_ASSERTION_SHORT_KEY,
	DV_ASSERTION_MISMATCH,		/* the key is another certificate's */
	DV_ASSERTION_NOT_YET,		/* the certificate is not yet valid */
	DV_ASSERTION_EXPIRED,
	DV_ASSERTION_FAILED			/* no memory, or a library without PSS or SHA-256 */
} DvAssertionFault;

typedef struct DvAssertion
{
	/* in: files as they were read, in PEM; both may be the same one */
	const char *certificate;
	size_t		certificate_len;
	const char *key;
	size_t		key_len;
	const char *audience;		/* address of the token endpoint */
	const char *client_id;
	time_t		now;

	/* out */
	char	   *jwt;			/* malloc'ed, or NULL; the caller wipes and frees it */
	char		valid_from[DV_ASSERTION_DATE];	/* of the certificate; "" where there is none */
	char		valid_to[DV_ASSERTION_DATE];
	int			days_left;		/* until then, from "now" on; -1: none */
} DvAssertion;

/*
 * Make a JWT, signed with the key, that lasts some minutes from "now" (s). Of
 * several certificates the first counts: chains begin with one's own. Anything
 * but DV_ASSERTION_GOOD leaves no JWT.
 */
extern DvAssertionFault dv_assertion_make(DvAssertion *assertion);

/* Only look when the certificate is valid; false where there is none. Needs no key. */
extern bool dv_assertion_dates(DvAssertion *assertion);

#endif							/* DV_ASSERTION_H */

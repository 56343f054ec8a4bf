/*
 * assertion.h - checks client assertions (JWT, PS256) against a certificate
 */
#ifndef SIM_ASSERTION_H
#define SIM_ASSERTION_H

#include "util.h"

/* A certificate as registered; NULL where the PEM file holds none. */
extern void *sim_certificate_load(const char *file);

/* Why an assertion is refused, as the login service numbers and words it; number 0: it is good. */
typedef struct SimRefusal
{
	int			number;
	const char *text;
} SimRefusal;

/* Was it signed with the key of this certificate, for this endpoint and application, and does it hold now? */
extern SimRefusal sim_assertion_check(SimArena *arena, const char *jwt, void *certificate, const char *audience, const char *client);

#endif							/* SIM_ASSERTION_H */

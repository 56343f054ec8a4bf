/*
 * error.h - a refusal on its way to the client
 */
#ifndef SIM_ERROR_H
#define SIM_ERROR_H

#include "util.h"

typedef struct SimErr
{
	int			status;			/* HTTP status; 0: no error */
	char		code[16];		/* as in the error object, e.g. 0x80040217 */
	char		message[1200];
	char		duplicate[600];	/* DuplicateAttributes annotation, or "" */
} SimErr;

/* Codes that more than one file uses; meanings as Microsoft lists them. */
#define SIM_E_NONE				"0x0"
#define SIM_E_NOT_FOUND			"0x80040217"	/* ObjectDoesNotExist */
#define SIM_E_NO_KEY_RECORD		"0x80060891"	/* RecordNotFoundByEntityKey */
#define SIM_E_DUPLICATE			"0x80040237"	/* DuplicateRecord */
#define SIM_E_KEY_VIOLATED		"0x80060892"	/* DuplicateRecordEntityKey */
#define SIM_E_PAYLOAD			"0x80048d19"	/* payload cannot be understood */
#define SIM_E_SEGMENT			"0x8006088a"	/* resource not found for the segment */
#define SIM_E_SYNTAX			"0x80060888"	/* error in query syntax */
#define SIM_E_ARGUMENT			"0x80040203"	/* InvalidArgument */
#define SIM_E_LENGTH			"0x80044331"	/* text too long */
#define SIM_E_CHOICE			"0x8004431A"	/* PicklistValueOutOfRange */
#define SIM_E_DATE				"0x80040239"	/* date out of range */
#define SIM_E_VERSION			"0x80060882"	/* ConcurrencyVersionMismatch */
#define SIM_E_STATE				"0x80048408"	/* state and status do not fit */
#define SIM_E_UNEXPECTED		"0x80040216"
#define SIM_E_NOT_SUPPORTED		"0x80060883"	/* operation not supported */

/* Fill in a refusal, unless one is there already; always returns false. */
extern bool sim_fail(SimErr *e, int status, const char *code, const char *fmt,...)
			__attribute__((format(printf, 4, 5)));

/* A payload that OData cannot read: 400 0x80048d19 with the usual preamble. */
extern bool sim_fail_payload(SimErr *e, const char *set, const char *fmt,...)
			__attribute__((format(printf, 3, 4)));

/* An unknown property: 400 0x0. */
extern bool sim_fail_property(SimErr *e, const char *table, const char *property, size_t len);

/* "account With Id = ... Does Not Exist" with the given status. */
extern bool sim_fail_missing(SimErr *e, int status, const char *table, SimGuid id);

#endif							/* SIM_ERROR_H */

/*
 * compat.h - what differs between the PostgreSQL versions we support (15-18)
 */
#ifndef DV_COMPAT_H
#define DV_COMPAT_H

#include "postgres.h"

/* VARDATA and its kin left postgres.h in PostgreSQL 16. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#endif							/* DV_COMPAT_H */

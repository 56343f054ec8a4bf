/*
 * compat.h - what differs between the PostgreSQL versions we support (15-18)
 */
#ifndef DV_COMPAT_H
#define DV_COMPAT_H

#include "postgres.h"

#endif							/* DV_COMPAT_H */

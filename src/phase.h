/*
 * phase.h - where a lane's time goes
 *
 * The loop says when it begins something else: dv_phase(DV_PHASE_READ). Times
 * are kept per process. A switch costs one look at the clock, so that it is for
 * batches, not for rows.
 */
#ifndef DV_PHASE_H
#define DV_PHASE_H

#include "postgres.h"

typedef enum DvPhase
{
	DV_PHASE_OTHER,
	DV_PHASE_READ,				/* the query of a batch */
	DV_PHASE_ENCODE,			/* rows to JSON, requests put together */
	DV_PHASE_WAIT,				/* for answers */
	DV_PHASE_HOLD,				/* nothing may be sent: Retry-After, pause, rate cap */
	DV_PHASE_RECORD				/* outcomes and flags */
} DvPhase;

#define DV_PHASES	(DV_PHASE_RECORD + 1)

/* What a lane has used since it began. */
typedef struct DvUsage
{
	int64		phase_us[DV_PHASES];
	int64		cpu_us;			/* user and system time of the process */
	int64		anonymous_kb;	/* memory of its own, not shared; 0 where not told */
} DvUsage;

/* Begin a phase; returns the one that was at work, to go back to it. */
extern DvPhase dv_phase(DvPhase phase);

/* What was used so far; asks the operating system. */
extern void dv_phase_usage(DvUsage *usage);

#endif							/* DV_PHASE_H */

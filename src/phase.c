/*
 * phase.c - where a lane's time goes
 */
#include "postgres.h"

#include <sys/resource.h>

#include "portability/instr_time.h"

#include "phase.h"

static DvPhase current = DV_PHASE_OTHER;
static instr_time since;
static int64 spent_us[DV_PHASES];

DvPhase
dv_phase(DvPhase phase)
{
	DvPhase		before = current;
	instr_time	now;
	instr_time	spent;

	if (phase == before)
		return before;
	INSTR_TIME_SET_CURRENT(now);
	spent = now;
	if (!INSTR_TIME_IS_ZERO(since))
	{
		INSTR_TIME_SUBTRACT(spent, since);
		spent_us[before] += INSTR_TIME_GET_MICROSEC(spent);
	}
	since = now;
	current = phase;
	return before;
}

/* Linux tells what is the process's own; elsewhere the peak of all has to do. */
static int64
anonymous_kb(const struct rusage *r)
{
	FILE	   *file = fopen("/proc/self/status", "r");
	char		line[256];
	long		kb = 0;

	if (file == NULL)
		return r->ru_maxrss;
	while (fgets(line, sizeof(line), file) != NULL)
		if (sscanf(line, "RssAnon: %ld", &kb) == 1)
			break;
	fclose(file);
	return kb;
}

void
dv_phase_usage(DvUsage *usage)
{
	struct rusage r;
	DvPhase		phase = dv_phase(DV_PHASE_OTHER);

	dv_phase(phase);			/* counts what is at work up to now */
	memcpy(usage->phase_us, spent_us, sizeof(spent_us));
	memset(&r, 0, sizeof(r));
	(void) getrusage(RUSAGE_SELF, &r);
	usage->cpu_us = (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * INT64CONST(1000000) + r.ru_utime.tv_usec + r.ru_stime.tv_usec;
	usage->anonymous_kb = anonymous_kb(&r);
}

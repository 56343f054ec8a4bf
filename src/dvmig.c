/*
 * dvmig.c - module load and settings
 */
#include "postgres.h"

#include <limits.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "launcher.h"
#include "settings.h"

PG_MODULE_MAGIC;

/* Declared by fmgr.h only from PostgreSQL 16 on. */
extern PGDLLEXPORT void _PG_init(void);

char	   *dv_allowed_hosts = NULL;
bool		dv_auto_resume = false;
bool		dv_resume_after_promotion = false;
int			dv_max_deletes = 1000;
int			dv_max_outage_s = 3600;
int			dv_max_resend = 1000;
int			dv_request_timeout_ms = 300 * 1000;
int			dv_settle_time_ms = 30 * 1000;
int			dv_stop_timeout_ms = 60 * 1000;

/* _PG_init defines the settings; it neither needs nor uses preloading. */
void
_PG_init(void)
{
	DefineCustomStringVariable("dvmig.allowed_hosts",
							   "Hosts this cluster may send data to, separated by commas.",
							   "Empty allows every host that a server names. Patterns may begin with \"*.\".",
							   &dv_allowed_hosts, "", PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("dvmig.auto_resume",
							 "Go on with interrupted runs after a restart of the server.",
							 "Needs dvmig in shared_preload_libraries. A copy or a restored backup never goes on by itself.",
							 &dv_auto_resume, false, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dvmig.max_deletes",
							"Records a run may delete in a production organisation unasked.",
							"Above it dvmig.start() wants to be told the organisation's name: confirm => '...'.",
							&dv_max_deletes, 1000, 0, INT_MAX, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dvmig.max_outage",
							"Longest time a run waits for a service that does not answer.",
							"After it the run ends as failed; its rows stay unprocessed.",
							&dv_max_outage_s, 3600, 0, 7 * 24 * 3600, PGC_USERSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("dvmig.max_resend",
							"Rows already loaded that a run may write again unasked.",
							"Above it dvmig.start() refuses unless resend => true is given.",
							&dv_max_resend, 1000, 0, INT_MAX, PGC_USERSET, 0, NULL, NULL, NULL);

	/*
	 * Dataverse gives a request two minutes of plug-in time and its own
	 * clients wait two to four minutes, so that five are enough for writes.
	 */
	DefineCustomIntVariable("dvmig.request_timeout",
							"Longest time one request may take.",
							NULL, &dv_request_timeout_ms, 300 * 1000, 1000, 3600 * 1000,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable("dvmig.resume_after_promotion",
							 "Let dvmig.auto_resume go on with runs of the former primary after a promotion.",
							 "Only for servers of which no other one works on the same database.",
							 &dv_resume_after_promotion, false, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dvmig.settle_time",
							"Time a request of unknown outcome is given to commit before its missing rows are sent again.",
							NULL, &dv_settle_time_ms, 30 * 1000, 0, 3600 * 1000,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("dvmig.stop_timeout",
							"Time a stopping run is given to record the replies it waits for.",
							NULL, &dv_stop_timeout_ms, 60 * 1000, 0, 3600 * 1000,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	MarkGUCPrefixReserved("dvmig");
	if (process_shared_preload_libraries_in_progress)
		dv_launcher_register();
}

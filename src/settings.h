/*
 * settings.h - values of the dvmig.* settings, defined in dvmig.c
 */
#ifndef DV_SETTINGS_H
#define DV_SETTINGS_H

extern char *dv_allowed_hosts;	/* comma-separated, "" = all */
extern bool dv_auto_resume;
extern bool dv_resume_after_promotion;
extern int	dv_max_deletes;		/* records */
extern int	dv_max_outage_s;
extern int	dv_max_resend;		/* rows */
extern int	dv_request_timeout_ms;
extern int	dv_settle_time_ms;
extern int	dv_stop_timeout_ms;

#endif							/* DV_SETTINGS_H */

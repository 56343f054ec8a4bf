/*
 * launcher.h - interrupted runs go on after a restart
 */
#ifndef DV_LAUNCHER_H
#define DV_LAUNCHER_H

/* Register the launcher; called while shared_preload_libraries are loaded. */
extern void dv_launcher_register(void);

#endif							/* DV_LAUNCHER_H */

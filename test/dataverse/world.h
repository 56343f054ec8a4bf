/*
 * world.h - the organisation, its users, teams and currencies at the start
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "store.h"

typedef struct SimWorld
{
	SimGuid		organization;
	const char *organization_name;
	SimGuid		root_unit;
	SimGuid		default_team;
	SimGuid		system_user;	/* who runs automation */
	SimGuid		base_currency;
	int			n_users;		/* ordinary users to make */
	const char *seed_file;		/* or NULL */
} SimWorld;

extern SimWorld sim_world;

/* Make the records every organisation has; also those of --seed. */
extern void sim_world_make(void);

/* Add an application user's record (client id, user id). */
extern void sim_world_app_user(SimGuid client, SimGuid user);

#endif							/* SIM_WORLD_H */

/*
 * hosts.h - addresses of services: parsing, loopback, allowed hosts
 */
#ifndef DV_HOSTS_H
#define DV_HOSTS_H

#include <stdbool.h>

typedef struct DvHost
{
	bool		https;
	bool		loopback;		/* localhost, 127.0.0.0/8 or ::1, literally */
	char		name[256];		/* lower case, without brackets and port */
	int			port;			/* 0 where not given */
} DvHost;

/* Where Microsoft issues tokens: global, US government, China. */
#define DV_LOGIN_HOSTS	"login.microsoftonline.com,login.microsoftonline.us,login.partner.microsoftonline.cn"

/*
 * Take apart "http[s]://host[:port][/]". False for anything else: user names,
 * paths, queries and odd characters included.
 */
extern bool dv_host_parse(const char *address, DvHost *host);

/*
 * True where "name" is in the comma-separated list "allowed" ("" allows all).
 * "*.example.com" stands for every host below example.com, not for itself.
 */
extern bool dv_host_allowed(const char *name, const char *allowed);

#endif							/* DV_HOSTS_H */

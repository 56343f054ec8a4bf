/*
 * slow_names.c - a name service that does not answer, for one server
 *
 * Preloaded into a server: hosts of the domain "example" are this machine, and
 * while there is the file that DV_SLOW_NAMES names, the look-up of one does not
 * end. Beside it, <file>.asked appears when somebody waits.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*GetAddrInfo) (const char *, const char *, const struct addrinfo *, struct addrinfo **);

static int
is_example(const char *name)
{
	size_t		len = name != NULL ? strlen(name) : 0;

	return len > 8 && strcmp(name + len - 8, ".example") == 0;
}

static void
wait_for(const char *file)
{
	char		asked[1024];

	if (file == NULL || access(file, F_OK) != 0)
		return;
	snprintf(asked, sizeof(asked), "%s.asked", file);
	close(open(asked, O_CREAT | O_WRONLY, 0600));
	while (access(file, F_OK) == 0)
		usleep(20000);
}

int
getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	GetAddrInfo real = (GetAddrInfo) dlsym(RTLD_NEXT, "getaddrinfo");

	if (!is_example(name))
		return real(name, service, hints, result);
	wait_for(getenv("DV_SLOW_NAMES"));
	return real("127.0.0.1", service, hints, result);
}

/*
 * hosts.c - addresses of services: parsing, loopback, allowed hosts
 *
 * Deliberately narrower than RFC 3986: what two parsers could read in two
 * ways (user names, escapes, short IPv4 forms) is refused.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <ctype.h>

#include "hosts.h"

static bool
is_loopback(const char *name)
{
	struct in_addr v4;
	struct in6_addr v6;
	static const struct in6_addr loopback6 = IN6ADDR_LOOPBACK_INIT;

	if (strcmp(name, "localhost") == 0)
		return true;
	if (inet_pton(AF_INET, name, &v4) == 1)
		return (ntohl(v4.s_addr) >> 24) == 127;
	return inet_pton(AF_INET6, name, &v6) == 1 && memcmp(&v6, &loopback6, sizeof(v6)) == 0;
}

/* ":port" and nothing after it but perhaps a slash. */
static bool
parse_port(const char *p, int *port)
{
	*port = 0;
	if (*p == ':')
	{
		size_t		digits = strspn(++p, "0123456789");

		if (digits < 1 || digits > 5)
			return false;
		*port = atoi(p);
		if (*port < 1 || *port > 65535)
			return false;
		p += digits;
	}
	return strcmp(p, "") == 0 || strcmp(p, "/") == 0;
}

bool
dv_host_parse(const char *address, DvHost *host)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-";
	static const char in_brackets[] = "abcdefABCDEF0123456789:.";
	const char *p;
	size_t		len;
	bool		brackets;

	memset(host, 0, sizeof(*host));
	if (pg_strncasecmp(address, "https://", 8) == 0)
		host->https = true;
	else if (pg_strncasecmp(address, "http://", 7) != 0)
		return false;
	p = address + (host->https ? 8 : 7);
	brackets = *p == '[';
	if (brackets)
		p++;
	len = strspn(p, brackets ? in_brackets : plain);
	if (len == 0 || len >= sizeof(host->name) || (brackets && p[len] != ']'))
		return false;
	for (size_t i = 0; i < len; i++)
		host->name[i] = (char) tolower((unsigned char) p[i]);
	host->loopback = is_loopback(host->name);
	return parse_port(p + len + (brackets ? 1 : 0), &host->port);
}

/* One entry of the list, without blanks around it. */
static bool
matches(const char *name, const char *entry, size_t len)
{
	size_t		name_len = strlen(name);

	if (len > 2 && entry[0] == '*' && entry[1] == '.')
	{
		size_t		tail = len - 1;

		return name_len > tail && pg_strncasecmp(name + name_len - tail, entry + 1, tail) == 0;
	}
	return name_len == len && pg_strncasecmp(name, entry, len) == 0;
}

bool
dv_host_allowed(const char *name, const char *allowed)
{
	const char *p = allowed ? allowed : "";
	bool		any = false;

	while (*p)
	{
		size_t		len;

		p += strspn(p, ", \t");
		len = strcspn(p, ", \t");
		if (len == 0)
			continue;
		any = true;
		if (matches(name, p, len))
			return true;
		p += len;
	}
	return !any;
}

/*
 * simbench.c - how fast dvsim takes bulk creates
 *
 * Bodies are built once; only ids and key values are patched between
 * requests, so that this program takes little of the machine. Each
 * connection has a thread. Rows have 15 columns of account: id, key, texts,
 * numbers, choices, a date and a lookup.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct Settings
{
	int			port;
	int			rows;
	int			requests;
	int			connections;
	int			pid;			/* of dvsim, to report its CPU time; 0 unknown */
	const char *token;
	bool		update;
} Settings;

static Settings set = {.rows = 1000, .requests = 200, .connections = 2, .token = "test-token"};

static const char row_format[] =
"{\"@odata.type\":\"Microsoft.Dynamics.CRM.account\",\"accountid\":\"%08x-0000-8000-8000-%012llx\",\"new_legacyid\":\"%012llx\","
"\"name\":\"Muster & S\xc3\xb6hne GmbH\",\"telephone1\":\"+49 30 1234567\",\"fax\":\"+49 30 7654321\",\"websiteurl\":\"https://www.example.org\","
"\"emailaddress1\":\"info@example.org\",\"address1_city\":\"Berlin\",\"address1_postalcode\":\"10115\","
"\"address1_line1\":\"Unter den Linden 1\",\"revenue\":1234567.89,\"numberofemployees\":42,\"creditonhold\":false,\"industrycode\":7,"
"\"transactioncurrencyid@odata.bind\":\"transactioncurrencies(00000004-0000-4000-8000-000000000001)\"}";

typedef struct Client
{
	pthread_t	thread;
	int			number;
	char	   *text;			/* whole request */
	size_t		len;
	char	  **patch;			/* where ids and keys stand */
	int			n_patch;
	long long	done;
	long long	bytes;
} Client;

static void
die(const char *what)
{
	fprintf(stderr, "simbench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

/* CPU seconds of a process, user and system. */
static double
cpu_of(int pid)
{
	char		path[64],
				text[1024];
	unsigned long user,
				system;
	FILE	   *f;
	char	   *p;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	if (pid == 0 || (f = fopen(path, "r")) == NULL)
		return 0;
	p = fgets(text, sizeof text, f) != NULL ? strrchr(text, ')') : NULL;
	fclose(f);
	if (p == NULL || sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
		return 0;
	return (double) (user + system) / (double) sysconf(_SC_CLK_TCK);
}

static int
dial(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t) set.port)};
	int			fd = socket(AF_INET, SOCK_STREAM, 0),
				on = 1;

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *) &at, sizeof at) != 0)
		die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return fd;
}

static void
build(Client *c)
{
	size_t		cap = (size_t) set.rows * (sizeof row_format + 64) + 1024;
	char	   *body = malloc(cap),
			   *p = body;
	int			head;

	c->text = malloc(cap + 1024);
	c->patch = malloc(sizeof *c->patch * (size_t) set.rows * 2);
	if (body == NULL || c->text == NULL || c->patch == NULL)
		die("malloc");
	p += sprintf(p, "{\"Targets\":[");
	for (int i = 0; i < set.rows; i++)
		p += sprintf(p, i > 0 ? "," : ""), p += sprintf(p, row_format, (unsigned) c->number + 1, 0LL, 0LL);
	p += sprintf(p, "]}");
	head = sprintf(c->text, "POST /api/data/v9.2/accounts/Microsoft.Dynamics.CRM.%sMultiple HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
				   "Authorization: Bearer %s\r\nAccept: application/json\r\nOData-Version: 4.0\r\nOData-MaxVersion: 4.0\r\n"
				   "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n", set.update ? "Update" : "Create", set.port, set.token,
				   (size_t) (p - body));
	memcpy(c->text + head, body, (size_t) (p - body) + 1);
	c->len = (size_t) head + (size_t) (p - body);
	free(body);
	p = c->text;
	while ((p = strstr(p, "-8000-8000-")) != NULL)
	{
		c->patch[c->n_patch++] = p + 11;
		p = strstr(p, "\"new_legacyid\":\"") + 16;
		c->patch[c->n_patch++] = p;
	}
}

/* Twelve hexadecimal digits, without a NUL. */
static void
put_hex(char *to, unsigned long long v)
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 11; i >= 0; i--, v >>= 4)
		to[i] = digits[v & 15];
}

static void
send_all(int fd, const char *p, size_t n)
{
	while (n > 0)
	{
		ssize_t		k = send(fd, p, n, MSG_NOSIGNAL);

		if (k <= 0)
			die("send");
		p += k;
		n -= (size_t) k;
	}
}

/* Read one answer; its status. */
static int
receive(int fd, char *buf, size_t cap)
{
	size_t		have = 0,
				want = 0;
	char	   *end = NULL;

	while (end == NULL || have < want)
	{
		ssize_t		k = recv(fd, buf + have, cap - have - 1, 0);

		if (k <= 0)
			die("recv");
		have += (size_t) k;
		buf[have] = '\0';
		if (end == NULL && (end = strstr(buf, "\r\n\r\n")) != NULL)
		{
			char	   *length = strstr(buf, "Content-Length: ");

			want = (size_t) (end - buf) + 4 + (length != NULL && length < end ? strtoul(length + 16, NULL, 10) : 0);
		}
	}
	return atoi(buf + 9);
}

static void *
run(void *arg)
{
	Client	   *c = arg;
	int			fd = dial();
	size_t		cap = (size_t) set.rows * 64 + 65536;
	char	   *buf = malloc(cap);
	unsigned long long key = (unsigned long long) c->number << 40;

	if (buf == NULL)
		die("malloc");
	for (int i = 0; i < set.requests; i++)
	{
		int			status;

		for (int k = 0; k < c->n_patch; k += 2, key++)
		{
			put_hex(c->patch[k], key);
			put_hex(c->patch[k + 1], key);
		}
		send_all(fd, c->text, c->len);
		status = receive(fd, buf, cap);
		if (status != (set.update ? 204 : 200))
		{
			fprintf(stderr, "simbench: status %d: %.400s\n", status, strstr(buf, "\r\n\r\n"));
			exit(1);
		}
		c->done += set.rows;
		c->bytes += (long long) c->len;
	}
	free(buf);
	close(fd);
	return NULL;
}

static void
options(int argc, char **argv)
{
	int			o;

	while ((o = getopt(argc, argv, "p:r:n:c:P:t:u")) != -1)
	{
		if (o == 'p')
			set.port = atoi(optarg);
		else if (o == 'r')
			set.rows = atoi(optarg);
		else if (o == 'n')
			set.requests = atoi(optarg);
		else if (o == 'c')
			set.connections = atoi(optarg);
		else if (o == 'P')
			set.pid = atoi(optarg);
		else if (o == 't')
			set.token = optarg;
		else if (o == 'u')
			set.update = true;
		else
			set.port = 0;
	}
	if (set.port == 0 || set.rows < 1 || set.requests < 1 || set.connections < 1)
	{
		fputs("usage: simbench -p port [-c connections] [-n requests of each] [-r rows a request] [-P pid of dvsim] [-t token] "
			  "[-u: update what an earlier run created]\nStart dvsim with --set static_token=test-token.\n", stderr);
		exit(2);
	}
}

int
main(int argc, char **argv)
{
	Client	   *clients;
	double		began,
				took,
				cpu;
	long long	rows = 0,
				bytes = 0;

	options(argc, argv);
	clients = calloc((size_t) set.connections, sizeof *clients);
	if (clients == NULL)
		die("calloc");
	for (int i = 0; i < set.connections; i++)
	{
		clients[i].number = i;
		build(&clients[i]);
	}
	cpu = cpu_of(set.pid);
	began = now();
	for (int i = 0; i < set.connections; i++)
		if (pthread_create(&clients[i].thread, NULL, run, &clients[i]) != 0)
			die("pthread_create");
	for (int i = 0; i < set.connections; i++)
	{
		pthread_join(clients[i].thread, NULL);
		rows += clients[i].done;
		bytes += clients[i].bytes;
	}
	took = now() - began;
	cpu = cpu_of(set.pid) - cpu;
	printf("%lld rows, %.2f s, %.0f rows/s, %.0f MB/s", rows, took, (double) rows / took, (double) bytes / took / 1e6);
	if (set.pid > 0)
		printf(", dvsim CPU %.2f s, %.0f rows per CPU second", cpu, (double) rows / cpu);
	printf("\n");
	return 0;
}

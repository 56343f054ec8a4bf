/*
 * main.c - dvsim, a strict Dataverse in one process
 *
 * Reads the command line, makes the world, serves until SIGTERM or SIGINT.
 */
#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "auth.h"
#include "bulk.h"
#include "faults.h"
#include "http.h"
#include "journal.h"
#include "stats.h"
#include "switches.h"
#include "world.h"

static const char usage[] =
"usage: dvsim --metadata DIR [options]\n"
"  --port N             listen on 127.0.0.1:N (0: any free port, the default)\n"
"  --port-file FILE     write the port there when listening\n"
"  --tls-cert FILE --tls-key FILE\n"
"  --profile NAME       strict (default), lenient or odd\n"
"  --set SWITCH=VALUE   change one switch; may be repeated\n"
"  --tenant T           tenant of the clients that follow\n"
"  --client ID:SECRET[:systemuserid|:none]\n"
"  --client-certificate ID:FILE[:systemuserid|:none]\n"
"  --users N            ordinary users to make (default 10)\n"
"  --organization GUID  the organisation's id (also --organisation)\n"
"  --organization-name N  its unique name (default dvsim)\n"
"  --seed FILE          records to load, one JSON object a line\n"
"  --sink               accept bulk creates without keeping rows\n"
"  --threads N          N event threads instead of one thread a connection\n"
"  --log FILE           a line for each request\n"
"  --journal FILE       keep the records there; go on with them at the next start\n";

typedef struct Settings
{
	SimHttpOptions http;
	const char *metadata;
	const char *port_file;
	const char *journal;
	const char *tenant;
} Settings;

static char *
read_text(const char *path)
{
	FILE	   *f = fopen(path, "rb");
	SimBuf		b = {0};
	char		part[8192];
	size_t		n;

	if (f == NULL)
		sim_die("cannot read %s: %s", path, strerror(errno));
	while ((n = fread(part, 1, sizeof part, f)) > 0)
		sim_buf_add(&b, part, n);
	fclose(f);
	sim_buf_add(&b, "", 0);
	return b.data;
}

static void
set_switch(const char *text)
{
	const char *eq = strchr(text, '=');

	if (eq == NULL || !sim_switch_set(text, (size_t) (eq - text), eq + 1))
		sim_die("unknown switch or value: %s", text);
}

enum {O_METADATA = 1, O_PORT, O_PORT_FILE, O_CERT, O_KEY, O_PROFILE, O_SET, O_TENANT, O_CLIENT, O_CLIENT_CERT, O_USERS, O_ORG, O_ORG_NAME, O_SEED, O_SINK,
O_THREADS, O_LOG, O_JOURNAL, O_HELP};

static const struct option options[] =
{
	{"metadata", required_argument, NULL, O_METADATA}, {"port", required_argument, NULL, O_PORT},
	{"port-file", required_argument, NULL, O_PORT_FILE}, {"tls-cert", required_argument, NULL, O_CERT},
	{"tls-key", required_argument, NULL, O_KEY}, {"profile", required_argument, NULL, O_PROFILE},
	{"set", required_argument, NULL, O_SET}, {"tenant", required_argument, NULL, O_TENANT},
	{"client", required_argument, NULL, O_CLIENT}, {"client-certificate", required_argument, NULL, O_CLIENT_CERT}, {"users", required_argument, NULL, O_USERS},
	{"organization", required_argument, NULL, O_ORG}, {"organisation", required_argument, NULL, O_ORG},
	{"organization-name", required_argument, NULL, O_ORG_NAME},
	{"seed", required_argument, NULL, O_SEED}, {"sink", no_argument, NULL, O_SINK},
	{"threads", required_argument, NULL, O_THREADS}, {"log", required_argument, NULL, O_LOG},
	{"journal", required_argument, NULL, O_JOURNAL},
	{"help", no_argument, NULL, O_HELP}, {NULL, 0, NULL, 0}
};

static void
take_option(int o, Settings *s)
{
	switch (o)
	{
		case O_METADATA:
			s->metadata = optarg;
			break;
		case O_PORT:
			s->http.port = atoi(optarg);
			break;
		case O_PORT_FILE:
			s->port_file = optarg;
			break;
		case O_CERT:
			s->http.tls_cert = read_text(optarg);
			break;
		case O_KEY:
			s->http.tls_key = read_text(optarg);
			break;
		case O_PROFILE:
			if (!sim_switches_profile(optarg))
				sim_die("unknown profile: %s", optarg);
			break;
		case O_SET:
			set_switch(optarg);
			break;
		case O_TENANT:
			s->tenant = optarg;
			break;
		case O_CLIENT:
			sim_auth_add_client(optarg, s->tenant);
			break;
		case O_CLIENT_CERT:
			sim_auth_add_certificate(optarg, s->tenant);
			break;
		case O_USERS:
			sim_world.n_users = atoi(optarg);
			break;
		case O_ORG:
			if (!sim_guid_parse(optarg, strlen(optarg), &sim_world.organization))
				sim_die("--organization needs a GUID");
			break;
		case O_ORG_NAME:
			sim_world.organization_name = optarg;
			break;
		case O_SEED:
			sim_world.seed_file = optarg;
			break;
		case O_SINK:
			sim_sink = true;
			break;
		case O_THREADS:
			s->http.threads = atoi(optarg);
			break;
		case O_LOG:
			s->http.log_file = optarg;
			break;
		case O_JOURNAL:
			s->journal = optarg;
			break;
		case O_HELP:
			fputs(usage, stdout);
			exit(0);
		default:
			fputs(usage, stderr);
			exit(2);
	}
}

/* Written aside and renamed, so that a reader never sees half a number. */
static void
write_port_file(const char *path, int port)
{
	SimBuf		aside = {0};
	FILE	   *f;

	sim_buf_printf(&aside, "%s.%d", path, (int) getpid());
	f = fopen(aside.data, "w");
	if (f == NULL)
		sim_die("cannot write %s: %s", aside.data, strerror(errno));
	fprintf(f, "%d\n", port);
	if (fclose(f) != 0 || rename(aside.data, path) != 0)
		sim_die("cannot write %s: %s", path, strerror(errno));
	sim_buf_free(&aside);
}

int
main(int argc, char **argv)
{
	Settings	s = {0};
	sigset_t	stop;
	int			o,
				port,
				got;

	opterr = 0;
	setlocale(LC_CTYPE, "C.UTF-8");
	sim_switches_profile("strict");
	sim_world.n_users = 10;
	sim_guid_parse("0d5e7a00-0000-4000-8000-000000000001", SIM_GUID_LEN, &sim_world.organization);
	/* The profile first, wherever it stands: --set refines it. */
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (o == O_PROFILE)
			take_option(o, &s);
	optind = opterr = 1;
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (o != O_PROFILE)
			take_option(o, &s);
	if (s.metadata == NULL || optind < argc || (s.http.tls_cert == NULL) != (s.http.tls_key == NULL))
	{
		fputs(usage, stderr);
		return 2;
	}
	/* Every thread inherits the mask, so that only sigwait below sees them. */
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	pthread_sigmask(SIG_BLOCK, &stop, NULL);
	signal(SIGPIPE, SIG_IGN);
	sim_metadata_load(s.metadata);
	sim_store_init();
	sim_world_make();
	if (s.journal != NULL)
		sim_journal_open(s.journal);
	sim_stats_reset();
	port = sim_http_start(&s.http);
	if (s.port_file != NULL)
		write_port_file(s.port_file, port);
	printf("dvsim: listening on http%s://127.0.0.1:%d\n", s.http.tls_cert != NULL ? "s" : "", port);
	fflush(stdout);
	sigwait(&stop, &got);
	sim_fault_clear();			/* lets go of requests that are held */
	sim_http_stop();
	return 0;
}

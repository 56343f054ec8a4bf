/*
 * http.c - libmicrohttpd in front of the simulator
 *
 * A request is collected whole, then served, then answered; faults are
 * inflicted here because they concern connections. With one thread per
 * connection a request may block or sleep without harm to others.
 */
#include "http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "faults.h"
#include "serve.h"
#include "stats.h"
#include "switches.h"

/* Room for the longest GET (32,768 bytes) and headers, and quick reads. */
#define CONNECTION_MEMORY (512 * 1024)

/* One request from its first byte to its answer. */
typedef struct Call
{
	SimArena	arena;
	char	   *uri;
	char	   *body;
	size_t		len;
	size_t		cap;
	bool		started;
	bool		too_large;
} Call;

static struct MHD_Daemon *server;
static char origin[64];
static FILE *log_file;

static void *
on_uri(void *cls, const char *uri, struct MHD_Connection *c)
{
	Call	   *call = sim_zalloc(sizeof *call);

	(void) cls;
	(void) c;
	call->uri = sim_arena_strndup(&call->arena, uri, strlen(uri));
	return call;
}

static void
call_free(Call *call)
{
	sim_arena_free(&call->arena);
	free(call->body);
	free(call);
}

static void
on_completed(void *cls, struct MHD_Connection *c, void **state, enum MHD_RequestTerminationCode why)
{
	(void) cls;
	(void) c;
	(void) why;
	if (*state != NULL)
		call_free(*state);
	*state = NULL;
}

/* Connections are numbered: the place in memory of one that was closed is given to another. */
static void
on_connection(void *cls, struct MHD_Connection *c, void **number, enum MHD_ConnectionNotificationCode what)
{
	static atomic_uintptr_t last;

	(void) cls;
	(void) c;
	if (what == MHD_CONNECTION_NOTIFY_STARTED)
		*number = (void *) (atomic_fetch_add(&last, 1) + 1);
}

static uintptr_t
number_of(struct MHD_Connection *c)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info != NULL ? (uintptr_t) info->socket_context : 0;
}

typedef struct Headers
{
	Call	   *call;
	SimReq	   *r;
	int			cap;
} Headers;

/* Copied: a fault may carry the request out when the connection is gone. */
static enum MHD_Result
on_header(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	Headers    *h = cls;
	SimReq	   *r = h->r;

	(void) kind;
	if (r->n_headers == h->cap)
	{
		SimHeader  *grown = sim_arena_alloc(&h->call->arena, sizeof *grown * (size_t) (h->cap + 32));

		if (r->n_headers > 0)
			memcpy(grown, r->headers, sizeof *grown * (size_t) r->n_headers);
		r->headers = grown;
		h->cap += 32;
	}
	value = value != NULL ? value : "";
	r->headers[r->n_headers++] = (SimHeader) {sim_arena_strndup(&h->call->arena, name, strlen(name)),
	sim_arena_strndup(&h->call->arena, value, strlen(value))};
	return MHD_YES;
}

static void
take(Call *call, const char *data, size_t n)
{
	if (call->len + n > (size_t) sim_sw.max_body)
	{
		call->too_large = true;
		return;
	}
	if (call->len + n + 1 > call->cap)
	{
		call->cap = call->cap * 2 > call->len + n + 1 ? call->cap * 2 : call->len + n + 1;
		call->body = sim_realloc(call->body, call->cap);
	}
	memcpy(call->body + call->len, data, n);
	call->len += n;
	call->body[call->len] = '\0';
}

/* An answer sent in pieces, cut off, or slowly. */
typedef struct Stream
{
	char	   *data;
	size_t		len;
	size_t		stop;			/* break off here; len: do not */
	bool		dribble;
	int64_t		pause;			/* us between bytes */
} Stream;

static ssize_t
on_read(void *cls, uint64_t pos, char *buf, size_t max)
{
	Stream	   *s = cls;
	size_t		n;

	if (pos >= s->stop)
		return s->stop < s->len ? MHD_CONTENT_READER_END_WITH_ERROR : MHD_CONTENT_READER_END_OF_STREAM;
	n = s->stop - pos;
	n = n > max ? max : n;
	if (s->dribble)
	{
		n = 1;
		sim_sleep_us(s->pause);
	}
	memcpy(buf, s->data + pos, n);
	return (ssize_t) n;
}

static void
on_read_free(void *cls)
{
	Stream	   *s = cls;

	free(s->data);
	free(s);
}

static struct MHD_Response *
make_response(SimResp *resp, const SimFault *f)
{
	Stream	   *s;
	size_t		len = resp->body.len;
	char	   *data = resp->body.data;

	resp->body = (SimBuf) {0};
	if (data == NULL)
		data = sim_strdup("");
	if (f->kind != SIM_FAULT_CUT && f->kind != SIM_FAULT_DRIBBLE)
		return MHD_create_response_from_buffer(len, data, MHD_RESPMEM_MUST_FREE);
	s = sim_zalloc(sizeof *s);
	s->data = data;
	s->len = s->stop = len;
	if (f->kind == SIM_FAULT_CUT)
		s->stop = f->bytes >= 0 && (size_t) f->bytes < len ? (size_t) f->bytes : len / 2;
	s->dribble = f->kind == SIM_FAULT_DRIBBLE;
	s->pause = (int64_t) (f->seconds * 1e6);
	return MHD_create_response_from_callback(len, s->dribble ? 1 : 4096, on_read, s, on_read_free);
}

static void
add_headers(struct MHD_Response *m, SimResp *resp)
{
	char	   *p = resp->headers.data;

	while (p != NULL && *p != '\0')
	{
		char	   *colon = strstr(p, ": "),
				   *end = strstr(p, "\r\n");

		*colon = *end = '\0';
		MHD_add_response_header(m, p, colon + 2);
		p = end + 2;
	}
	if (resp->body.len > 0 || resp->content_type != NULL)
		MHD_add_response_header(m, "Content-Type", resp->content_type != NULL ? resp->content_type :
								"application/json; odata.metadata=minimal");
}

/* A reset instead of a polite end. */
static enum MHD_Result
cut_connection(struct MHD_Connection *c)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct linger hard = {.l_onoff = 1, .l_linger = 0};

	if (info != NULL)
		setsockopt(info->connect_fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
	return MHD_NO;
}

static void
write_log(const SimReq *r, int status, size_t out, int64_t us)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	flockfile(log_file);
	fprintf(log_file, "%lld.%03ld %s %.200s %zu -> %d %zu %lld us\n", (long long) ts.tv_sec, ts.tv_nsec / 1000000, r->method, r->uri,
			r->len, status, out, (long long) us);
	fflush(log_file);
	funlockfile(log_file);
}

/* A request that is carried out when its client has been cut off. */
typedef struct Late
{
	Call	   *call;
	SimReq		r;
	double		seconds;
} Late;

static void *
run_late(void *arg)
{
	Late	   *l = arg;
	SimResp		resp = {0};

	sim_sleep_us((int64_t) (l->seconds * 1e6));
	sim_serve(&l->r, &resp);
	sim_resp_free(&resp);
	call_free(l->call);
	free(l);
	return NULL;
}

static void
start_late(Call *call, const SimReq *r, double seconds)
{
	Late	   *l = sim_zalloc(sizeof *l);
	pthread_t	thread;

	l->call = call;
	l->r = *r;
	l->r.arena = &call->arena;
	l->seconds = seconds;
	if (pthread_create(&thread, NULL, run_late, l) != 0)
		sim_die("cannot start a thread");
	pthread_detach(thread);
}

static bool
replaces_answer(const SimFault *f)
{
	return f->kind == SIM_FAULT_STATUS || f->kind == SIM_FAULT_GARBAGE || f->kind == SIM_FAULT_DEADLOCK ||
		f->kind == SIM_FAULT_THROTTLE || f->kind == SIM_FAULT_HTML || f->kind == SIM_FAULT_BODY;
}

/* Serve the request as the fault says; the answer is in resp. */
static void
serve(SimReq *r, const SimFault *f, SimResp *resp)
{
	if (f->kind == SIM_FAULT_SLOW && !f->after)
		sim_sleep_us((int64_t) (f->seconds * 1e6));
	if (f->kind == SIM_FAULT_HOLD && !f->after)
		sim_fault_hold(f);
	if (replaces_answer(f))
	{
		if (f->after)
			sim_serve(r, resp);
		sim_sleep_us((int64_t) (f->seconds * 1e6));
		sim_fault_answer(r, f, resp);
		if (resp->content_type == NULL && strstr(r->uri, "/api/") != NULL)
			sim_serve_headers(r, resp);
		return;
	}
	sim_serve(r, resp);
	if (f->kind == SIM_FAULT_SLOW && f->after)
		sim_sleep_us((int64_t) (f->seconds * 1e6));
	if (f->kind == SIM_FAULT_HOLD && f->after)
		sim_fault_hold(f);
	if (f->kind == SIM_FAULT_DROP_IDS || f->kind == SIM_FAULT_SHUFFLE_IDS || f->kind == SIM_FAULT_ADD_IDS)
		sim_fault_ids(f, &resp->body);
	if (f->kind == SIM_FAULT_DROP_PARTS)
		sim_fault_parts(f, &resp->body);
}

static enum MHD_Result
answer(struct MHD_Connection *c, Call *call, const SimReq *r, SimResp *resp, const SimFault *f, int64_t began)
{
	struct MHD_Response *m;
	size_t		out = resp->body.len;
	int			status = resp->status;
	enum MHD_Result result;

	(void) call;
	sim_stats_end(status, out);
	if (log_file != NULL)
		write_log(r, status, out, sim_mono_us() - began);
	if (f->kind == SIM_FAULT_RESET_AFTER)
	{
		sim_resp_free(resp);
		return cut_connection(c);
	}
	if (out > 0 && resp->content_type == NULL)
		resp->content_type = "application/json; odata.metadata=minimal";
	m = make_response(resp, f);
	add_headers(m, resp);
	result = MHD_queue_response(c, (unsigned) status, m);
	MHD_destroy_response(m);
	sim_resp_free(resp);
	return result;
}

static enum MHD_Result
finish(struct MHD_Connection *c, const char *method, Call *call, void **state)
{
	int64_t		began = sim_mono_us();
	SimReq		r = {.uri = call->uri, .arena = &call->arena, .origin = origin};
	SimResp		resp = {0};
	SimFault	f = {0};
	Headers		h = {.call = call, .r = &r};

	r.method = sim_arena_strndup(&call->arena, method, strlen(method));
	if (call->body == NULL)
		call->body = sim_strdup("");
	r.body = call->body;
	r.len = call->len;
	MHD_get_connection_values(c, MHD_HEADER_KIND, on_header, &h);
	if (sim_serve_control(&r, &resp))
	{
		sim_stats_begin(0);
		return answer(c, call, &r, &resp, &f, began);
	}
	sim_stats_begin(r.len);
	r.connection = number_of(c);
	sim_serve_identify(&r);
	if (call->too_large)
	{
		sim_fail(&resp.err, 413, "", "The request message is too large.");
		sim_resp_error(&r, &resp);
		sim_serve_headers(&r, &resp);
		return answer(c, call, &r, &resp, &f, began);
	}
	f = sim_fault_match(&r, false);
	if (f.kind == SIM_FAULT_RESET_BEFORE || f.kind == SIM_FAULT_COMMIT_LATER)
	{
		sim_stats_end(0, 0);
		if (f.kind == SIM_FAULT_COMMIT_LATER)
		{
			start_late(call, &r, f.seconds);
			*state = NULL;
		}
		return cut_connection(c);
	}
	serve(&r, &f, &resp);
	return answer(c, call, &r, &resp, &f, began);
}

static enum MHD_Result
on_request(void *cls, struct MHD_Connection *c, const char *url, const char *method, const char *version,
		   const char *data, size_t *size, void **state)
{
	Call	   *call = *state;

	(void) cls;
	(void) url;
	(void) version;
	if (call == NULL)
		return MHD_NO;
	if (!call->started)
	{
		const char *length = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Content-Length");
		long		n = length != NULL ? strtol(length, NULL, 10) : 0;

		call->started = true;
		if (n > 0 && n <= sim_sw.max_body)
		{
			call->cap = (size_t) n + 1;
			call->body = sim_alloc(call->cap);
			call->body[0] = '\0';
		}
		return MHD_YES;
	}
	if (*size > 0)
	{
		take(call, data, *size);
		*size = 0;
		return MHD_YES;
	}
	return finish(c, method, call, state);
}

/* The path stays as it was sent: keys are taken apart before decoding. */
static size_t
keep_escapes(void *cls, struct MHD_Connection *c, char *s)
{
	(void) cls;
	(void) c;
	return strlen(s);
}

/* Bound here rather than by the library: the first answer must know the port. */
static int
bind_loopback(int *port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t) *port)};
	socklen_t	len = sizeof at;
	int			fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
				on = 1;

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
		bind(fd, (struct sockaddr *) &at, sizeof at) != 0 || listen(fd, 511) != 0 ||
		getsockname(fd, (struct sockaddr *) &at, &len) != 0)
		sim_die("cannot listen on 127.0.0.1:%d: %s", *port, strerror(errno));
	*port = ntohs(at.sin_port);
	return fd;
}

int
sim_http_start(const SimHttpOptions *o)
{
	int			port = o->port,
				fd = bind_loopback(&port);
	unsigned	flags = MHD_USE_ERROR_LOG;
	struct MHD_OptionItem ops[8];
	int			n = 0;

	snprintf(origin, sizeof origin, "http%s://127.0.0.1:%d", o->tls_cert != NULL ? "s" : "", port);
	if (o->log_file != NULL && (log_file = fopen(o->log_file, "a")) == NULL)
		sim_die("cannot write %s: %s", o->log_file, strerror(errno));
	if (o->threads > 0)
	{
		flags |= MHD_USE_EPOLL_INTERNAL_THREAD;
		ops[n++] = (struct MHD_OptionItem) {MHD_OPTION_THREAD_POOL_SIZE, o->threads, NULL};
	}
	else
		flags |= MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL;
	if (o->tls_cert != NULL)
	{
		flags |= MHD_USE_TLS;
		ops[n++] = (struct MHD_OptionItem) {MHD_OPTION_HTTPS_MEM_CERT, 0, o->tls_cert};
		ops[n++] = (struct MHD_OptionItem) {MHD_OPTION_HTTPS_MEM_KEY, 0, o->tls_key};
	}
	ops[n] = (struct MHD_OptionItem) {MHD_OPTION_END, 0, NULL};
	server = MHD_start_daemon(flags, (uint16_t) port, NULL, NULL, on_request, NULL,
							  MHD_OPTION_LISTEN_SOCKET, fd,
							  MHD_OPTION_URI_LOG_CALLBACK, on_uri, NULL,
							  MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
							  MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
							  MHD_OPTION_NOTIFY_CONNECTION, on_connection, NULL,
							  MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) CONNECTION_MEMORY,
							  MHD_OPTION_CONNECTION_LIMIT, 1000u,
							  MHD_OPTION_CONNECTION_TIMEOUT, 300u,
							  MHD_OPTION_ARRAY, ops, MHD_OPTION_END);
	if (server == NULL)
		sim_die("cannot serve 127.0.0.1:%d", port);
	return port;
}

void
sim_http_stop(void)
{
	if (server != NULL)
		MHD_stop_daemon(server);
	if (log_file != NULL)
		fclose(log_file);
}

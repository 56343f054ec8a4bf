/*
 * serve.c - one HTTP request: who calls, what limits say, what it does
 */
#include "serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth.h"
#include "limits.h"
#include "route.h"
#include "switches.h"

/* The service's limit for a URL outside of batches. */
#define MAX_URL 32768

#define CONTROL_PATH "/_sim/"
#define TOKEN_PATH "/oauth2/v2.0/token"

bool
sim_serve_control(SimReq *r, SimResp *resp)
{
	if (strncmp(r->uri, CONTROL_PATH, strlen(CONTROL_PATH)) != 0)
		return false;
	sim_api_run(r, resp);
	return true;
}

void
sim_serve_identify(SimReq *r)
{
	SimResp		ignored = {0};

	if (sim_req_header(r, "Authorization") != NULL)
		sim_auth_check(r, &ignored);
	sim_resp_free(&ignored);
}

/* The web server that takes the request: by cookie, by connection, or any. */
static int
pick_server(const SimReq *r)
{
	const char *cookie = sim_req_header(r, "Cookie");
	const char *hit = cookie != NULL ? strstr(cookie, "ARRAffinity=f60cbe") : NULL;
	int			n = sim_sw.servers > 0 ? sim_sw.servers : 1;

	if (hit != NULL)
		return (int) (strtol(hit + 18, NULL, 16) % n);
	if (sim_sw.connections == SIM_STICKY)
		return (int) (sim_hash(&r->connection, sizeof r->connection) % (unsigned) n);
	return (int) sim_random((uint32_t) n);
}

static void
common_headers(const SimReq *r, int server, SimResp *resp)
{
	char		id[SIM_GUID_LEN + 1];

	sim_guid_format(sim_guid_random(), id);
	sim_resp_header(resp, "OData-Version", "4.0");
	sim_resp_header(resp, "Cache-Control", "no-cache");
	sim_resp_header(resp, "Vary", "Accept-Encoding");
	sim_resp_header(resp, "x-ms-service-request-id", "%s", id);
	sim_resp_header(resp, "REQ_ID", "%s", id);
	sim_limits_headers(r, server, resp);
	if (!sim_sw.cookies)
		return;
	sim_resp_header(resp, "Set-Cookie", "ARRAffinity=f60cbe%04x; path=/; secure; HttpOnly", server);
	sim_resp_header(resp, "Set-Cookie", "ReqClientId=%s; path=/; secure; HttpOnly", id);
}

void
sim_serve_headers(const SimReq *r, SimResp *resp)
{
	common_headers(r, pick_server(r), resp);
}

static bool
is_batch(const SimReq *r)
{
	const char *p = strstr(r->uri, SIM_API_PATH);
	const char *last = p != NULL ? strchr(p + strlen(SIM_API_PATH), '/') : NULL;

	return last != NULL && (strncmp(last, "/$batch", 7) == 0 || strncmp(last, "/%24batch", 9) == 0);
}

/* The API below /api/data/v9.x/. */
static void
serve_api(SimReq *r, SimResp *resp, int server)
{
	int64_t		began = sim_mono_us();

	if (strlen(r->uri) > MAX_URL)
	{
		sim_fail(&resp->err, 414, "", "The request URL is too long.");
		sim_resp_error(r, resp);
		return;
	}
	if (!sim_limits_enter(r, server, resp))
		return;
	if (is_batch(r))
	{
		if (sim_auth_impersonate(r, &resp->err))
			sim_batch_run(r, resp);
		else
			sim_resp_error(r, resp);
	}
	else
		sim_dispatch(r, resp);
	sim_sleep_us((int64_t) sim_sw.latency * 1000 + (int64_t) r->rows * sim_sw.row_time);
	sim_limits_leave(r, server, sim_mono_us() - began);
}

void
sim_serve(SimReq *r, SimResp *resp)
{
	const char *token = strstr(r->uri, TOKEN_PATH);
	int			server;

	if (token != NULL && r->uri[0] == '/' && strcmp(r->method, "POST") == 0)
	{
		sim_auth_token(r, r->uri + 1, (size_t) (token - r->uri) - 1, resp);
		return;
	}
	server = pick_server(r);
	if (sim_auth_check(r, resp))
		serve_api(r, resp, server);
	common_headers(r, server, resp);
}

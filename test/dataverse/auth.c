/*
 * auth.c - OAuth client credentials: clients, tokens, and who calls
 */
#include "auth.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "assertion.h"
#include "json.h"
#include "stats.h"
#include "switches.h"
#include "world.h"

#define MAX_CLIENTS 64
#define MAX_TOKENS 4096
#define ASSERTION_TYPE "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

typedef struct Client
{
	char	   *id;
	char	   *secret;			/* NULL: it has a certificate */
	void	   *certificate;
	char	   *tenant;			/* NULL: any */
	SimGuid		user;
	bool		member;			/* has an application user */
} Client;

typedef struct Token
{
	char		text[96];
	int			client;
	int64_t		expires;		/* monotonic, us */
} Token;

static Client clients[MAX_CLIENTS];
static int	n_clients;
static Token tokens[MAX_TOKENS];
static int	next_token;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Add "ID:PROOF[:systemuserid|:none]"; the proof is returned. */
static char *
add_client(const char *option, const char *text, const char *tenant)
{
	const char *colon = strchr(text, ':');
	const char *second;
	char	   *proof;
	Client	   *c = &clients[n_clients];
	SimGuid		id;

	if (colon == NULL || n_clients == MAX_CLIENTS)
		sim_die("%s needs two or three parts, with colons between them", option);
	second = strrchr(colon + 1, ':');
	c->id = sim_strndup(text, (size_t) (colon - text));
	proof = second != NULL ? sim_strndup(colon + 1, (size_t) (second - colon) - 1) : sim_strdup(colon + 1);
	c->tenant = tenant != NULL ? sim_strdup(tenant) : NULL;
	c->member = second == NULL || strcmp(second + 1, "none") != 0;
	if (!sim_guid_parse(c->id, strlen(c->id), &id))
		id = (SimGuid) {sim_hash(c->id, strlen(c->id)), sim_hash(c->id, strlen(c->id) / 2)};
	c->user = id;
	c->user.hi ^= 1;			/* differs from the client id, yet is easy to tell */
	if (second != NULL && c->member && !sim_guid_parse(second + 1, strlen(second + 1), &c->user))
		sim_die("%s %s: the systemuserid is not a GUID", option, c->id);
	if (c->member)
		sim_world_app_user(id, c->user);
	n_clients++;
	return proof;
}

void
sim_auth_add_client(const char *text, const char *tenant)
{
	char	   *secret = add_client("--client", text, tenant);

	clients[n_clients - 1].secret = secret;
}

void
sim_auth_add_certificate(const char *text, const char *tenant)
{
	char	   *file = add_client("--client-certificate", text, tenant);

	clients[n_clients - 1].certificate = sim_certificate_load(file);
	if (clients[n_clients - 1].certificate == NULL)
		sim_die("--client-certificate: %s holds no certificate", file);
	free(file);
}

SimGuid
sim_auth_first_user(void)
{
	return n_clients > 0 ? clients[0].user : sim_world.system_user;
}

void
sim_auth_revoke_all(void)
{
	pthread_mutex_lock(&lock);
	memset(tokens, 0, sizeof tokens);
	pthread_mutex_unlock(&lock);
}

static void
refuse(SimResp *resp, int status, const char *error, int number, const char *what)
{
	char		trace[SIM_GUID_LEN + 1];

	sim_guid_format(sim_guid_random(), trace);
	resp->status = status;
	resp->content_type = "application/json; charset=utf-8";
	sim_buf_printf(&resp->body, "{\"error\":\"%s\",\"error_description\":\"AADSTS%d: %s\\r\\nTrace ID: %s\\r\\nCorrelation ID: %s\\r\\n"
				   "Timestamp: 2024-01-01 00:00:00Z\",\"error_codes\":[%d],\"timestamp\":\"2024-01-01 00:00:00Z\",\"trace_id\":\"%s\","
				   "\"correlation_id\":\"%s\"}", error, number, what, trace, trace, number, trace, trace);
}

/* A field of the form, decoded into the arena; NULL when absent. */
static const char *
form_field(const SimReq *r, const char *name)
{
	const char *p = r->body;
	size_t		n = strlen(name);

	while (p != NULL && *p != '\0')
	{
		size_t		len = strcspn(p, "&");

		if (len > n && memcmp(p, name, n) == 0 && p[n] == '=')
		{
			char	   *out = sim_arena_alloc(r->arena, len - n);

			sim_percent_decode(p + n + 1, len - n - 1, out, true);
			return out;
		}
		p = p[len] == '&' ? p + len + 1 : NULL;
	}
	return NULL;
}

/* Authorization: Basic base64(id:secret), both percent-encoded. */
static bool
basic_credentials(const SimReq *r, const char **id, const char **secret)
{
	const char *h = sim_req_header(r, "Authorization");
	char	   *out,
			   *colon,
			   *decoded;
	size_t		n = 0;
	unsigned	bits = 0;
	int			have = 0;

	if (h == NULL || strncasecmp(h, "Basic ", 6) != 0)
		return false;
	out = sim_arena_alloc(r->arena, strlen(h) + 1);
	for (h += 6; sim_base64_value(*h) >= 0; h++)
	{
		bits = bits << 6 | (unsigned) sim_base64_value(*h);
		have += 6;
		if (have >= 8)
		{
			have -= 8;
			out[n++] = (char) (bits >> have & 255);
		}
	}
	out[n] = '\0';
	if ((colon = strchr(out, ':')) == NULL)
		return false;
	*colon = '\0';
	decoded = sim_arena_alloc(r->arena, n + 2);
	sim_percent_decode(out, strlen(out), decoded, true);
	*id = decoded;
	decoded = sim_arena_alloc(r->arena, n + 2);
	sim_percent_decode(colon + 1, strlen(colon + 1), decoded, true);
	*secret = decoded;
	return true;
}

/* The scope must be this very service and /.default. */
static bool
scope_fits(const SimReq *r, const char *scope)
{
	size_t		n = scope != NULL ? strlen(scope) : 0;
	const char *host = sim_req_header(r, "Host");
	const char *slashes = scope != NULL ? strstr(scope, "://") : NULL;

	if (n < 9 || strcmp(scope + n - 9, "/.default") != 0 || strchr(scope, ' ') != NULL || slashes == NULL)
		return false;
	slashes += 3;
	return host != NULL && strlen(host) == (size_t) (scope + n - 9 - slashes) && strncasecmp(slashes, host, strlen(host)) == 0;
}

static void
issue(int client, SimResp *resp)
{
	Token	   *t;
	char		a[SIM_GUID_LEN + 1],
				b[SIM_GUID_LEN + 1];

	sim_guid_format(sim_guid_random(), a);
	sim_guid_format(sim_guid_random(), b);
	pthread_mutex_lock(&lock);
	t = &tokens[next_token];
	next_token = (next_token + 1) % MAX_TOKENS;
	snprintf(t->text, sizeof t->text, "eyJ.%s.%s", a, b);
	t->client = client;
	t->expires = sim_mono_us() + (int64_t) sim_sw.token_lifetime * 1000000;
	sim_buf_printf(&resp->body, "{\"token_type\":\"Bearer\",\"expires_in\":%d,\"ext_expires_in\":%d,\"access_token\":\"%s\"}",
				   sim_sw.token_lifetime, sim_sw.token_lifetime, t->text);
	pthread_mutex_unlock(&lock);
	resp->status = 200;
	resp->content_type = "application/json; charset=utf-8";
	sim_resp_header(resp, "Cache-Control", "no-store, no-cache");
}

/* Is this application the one that asks, in the tenant that it asks in? */
static bool
client_is(const Client *c, const char *id, const char *tenant, size_t tenant_len)
{
	return strcasecmp(c->id, id) == 0 &&
		(c->tenant == NULL || (strlen(c->tenant) == tenant_len && strncasecmp(c->tenant, tenant, tenant_len) == 0));
}

/*
 * Does the proof fit one of an application's? It may have several secrets and
 * certificates. Otherwise "why" is what the best of them was refused for.
 */
static bool
proves(const SimReq *r, const Client *c, const char *secret, const char *assertion, const char *audience, SimRefusal *why)
{
	SimRefusal	refusal;

	if (assertion == NULL)
	{
		*why = (SimRefusal) {7000215, "Invalid client secret provided."};
		return c->secret != NULL && strcmp(c->secret, secret) == 0;
	}
	if (c->certificate == NULL)
		refusal = (SimRefusal) {700027, "The application has no certificate."};
	else
		refusal = sim_assertion_check(r->arena, assertion, c->certificate, audience, c->id);
	/* 700027 is what every other certificate of the application says too */
	if (why->number == 0 || why->number == 700027)
		*why = refusal;
	return refusal.number == 0;
}

void
sim_auth_token(const SimReq *r, const char *tenant, size_t tenant_len, SimResp *resp)
{
	const char *grant = form_field(r, "grant_type");
	const char *id = form_field(r, "client_id"),
			   *secret = form_field(r, "client_secret"),
			   *assertion = form_field(r, "client_assertion"),
			   *assertion_type = form_field(r, "client_assertion_type");
	const char *type = sim_req_header(r, "Content-Type");
	const char *audience = sim_arena_printf(r->arena, "%s/%.*s/oauth2/v2.0/token", r->origin, (int) tenant_len, tenant);
	SimRefusal	why = {0, NULL};
	bool		known = false;

	sim_stats_request(SIM_K_TOKEN, false);
	if (type == NULL || strncasecmp(type, "application/x-www-form-urlencoded", 33) != 0)
	{
		refuse(resp, 400, "invalid_request", 900144, "The request body must be form data.");
		return;
	}
	if (grant == NULL || strcmp(grant, "client_credentials") != 0)
	{
		refuse(resp, 400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type.");
		return;
	}
	if (assertion != NULL && (secret != NULL || assertion_type == NULL || strcmp(assertion_type, ASSERTION_TYPE) != 0))
	{
		refuse(resp, 400, "invalid_request", 900144, "'client_assertion' goes with its 'client_assertion_type' and without a secret.");
		return;
	}
	if (assertion == NULL && !basic_credentials(r, &id, &secret) && secret == NULL)
		id = NULL;
	if (id == NULL)
	{
		refuse(resp, 401, "invalid_client", 7000216, "'client_assertion', 'client_secret' or 'request' is required.");
		return;
	}
	if (!scope_fits(r, form_field(r, "scope")))
	{
		refuse(resp, 400, "invalid_scope", 70011, "The provided value for the input parameter 'scope' is not valid.");
		return;
	}
	for (int i = 0; i < n_clients; i++)
	{
		if (!client_is(&clients[i], id, tenant, tenant_len))
			continue;
		known = true;
		if (proves(r, &clients[i], secret, assertion, audience, &why))
		{
			issue(i, resp);
			return;
		}
	}
	if (known)
		refuse(resp, 401, "invalid_client", why.number, why.text);
	else
		refuse(resp, 400, "unauthorized_client", 700016, "Application was not found in the directory.");
}

static void
challenge(const SimReq *r, SimResp *resp)
{
	resp->status = 401;
	sim_resp_header(resp, "WWW-Authenticate", "Bearer authorization_uri=%s/%s/oauth2/authorize, resource_id=%s/", r->origin,
					n_clients > 0 && clients[0].tenant != NULL ? clients[0].tenant : "common", r->origin);
}

/* Index of the client whose token this is; -1 when there is none. */
static int
find_token(const char *text)
{
	int			client = -1;
	int64_t		now = sim_mono_us();

	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAX_TOKENS; i++)
	{
		/* Newest first: a search begins behind the last one issued. */
		Token	   *t = &tokens[(next_token + MAX_TOKENS - 1 - i) % MAX_TOKENS];

		if (t->text[0] == '\0')
			break;
		if (strcmp(t->text, text) == 0)
		{
			client = t->expires > now ? t->client : -1;
			break;
		}
	}
	pthread_mutex_unlock(&lock);
	return client;
}

bool
sim_auth_check(SimReq *r, SimResp *resp)
{
	const char *h = sim_req_header(r, "Authorization");
	int			client;

	if (h == NULL || strncasecmp(h, "Bearer ", 7) != 0)
	{
		challenge(r, resp);
		return false;
	}
	if (sim_sw.static_token[0] != '\0' && strcmp(h + 7, sim_sw.static_token) == 0)
		client = 0;
	else
		client = find_token(h + 7);
	if (client < 0)
	{
		challenge(r, resp);
		return false;
	}
	if (n_clients > 0 && !clients[client].member)
	{
		sim_fail(&resp->err, 403, "0x80072560", "The user is not a member of the organization.");
		sim_resp_error(r, resp);
		return false;
	}
	r->caller = r->user = n_clients > 0 ? clients[client].user : sim_world.system_user;
	return true;
}

/* A user row by the value of a GUID column. */
static bool
user_by_column(const char *column, SimGuid value, SimGuid *out)
{
	const SimTable *t = sim_model.users;
	const SimColumn *c = sim_table_column(t, column, strlen(column));
	SimVal		v;

	for (uint32_t i = 0; c != NULL && i < t->store->n; i++)
		if (t->store->slots[i].row != NULL && sim_row_cell(t, t->store->slots[i].row, c->index, &v) && sim_guid_eq(v.v.g, value))
		{
			*out = t->store->slots[i].id;
			return true;
		}
	return false;
}

static bool
user_disabled(SimGuid id)
{
	const SimTable *t = sim_model.users;
	const SimColumn *c = sim_table_column(t, "isdisabled", 10);
	uint32_t	slot = sim_store_find(t, id);
	SimVal		v;

	return c != NULL && slot != SIM_NO_SLOT && sim_row_cell(t, sim_store_slot(t, slot)->row, c->index, &v) && v.v.i != 0;
}

bool
sim_auth_impersonate(SimReq *r, SimErr *e)
{
	const char *by_id = sim_req_header(r, "MSCRMCallerID");
	const char *by_object = sim_req_header(r, "CallerObjectId");
	const char *text = by_object != NULL ? by_object : by_id;
	SimGuid		id;
	SimTxn		x;
	bool		found,
				disabled;

	if (text == NULL)
		return true;
	if (!sim_guid_parse(text, strlen(text), &id))
		return sim_fail(e, 400, SIM_E_ARGUMENT, "The impersonation header is not a GUID.");
	if (r->txn == NULL)
		sim_txn_begin(&x, false);
	found = by_object != NULL ? user_by_column("azureactivedirectoryobjectid", id, &id) :
		sim_store_find(sim_model.users, id) != SIM_NO_SLOT;
	disabled = found && user_disabled(id);
	if (r->txn == NULL)
		sim_txn_commit(&x);
	if (!found)
		return sim_fail(e, 403, SIM_E_NOT_FOUND, "systemuser With Id = %s Does Not Exist", text);
	if (disabled)
		return sim_fail(e, 403, "0x80040225", "The specified user(Id = %s) is disabled. Consider enabling this user.", text);
	r->user = id;
	r->impersonated = true;
	return true;
}

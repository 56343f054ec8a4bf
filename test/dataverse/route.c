/*
 * route.c - which operation a method and URL mean
 */
#include "route.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "auth.h"
#include "bulk.h"
#include "crud.h"
#include "stats.h"
#include "switches.h"

#define ACTION_PREFIX "Microsoft.Dynamics.CRM."

static bool
is(const SimReq *r, const char *method)
{
	return strcmp(r->method, method) == 0;
}

static bool
no_segment(SimErr *e, const SimSegment *s)
{
	return sim_fail(e, 404, SIM_E_SEGMENT, "Resource not found for the segment '%.*s'.",
					(int) (s->name.len > 100 ? 100 : s->name.len), s->name.s);
}

static bool
no_method(SimReq *r, SimErr *e)
{
	return sim_fail(e, 405, SIM_E_NOT_SUPPORTED, "The requested resource does not support http method '%s'.", r->method);
}

/* The headers every request must have, where the switch insists. */
static bool
headers_fit(SimReq *r, SimErr *e)
{
	const char *version = sim_req_header(r, "OData-Version");
	const char *max = sim_req_header(r, "OData-MaxVersion");
	const char *type = sim_req_header(r, "Content-Type");

	if (sim_sw.missing_odata_headers != SIM_REFUSED)
		return true;
	if (!r->in_batch && (version == NULL || max == NULL || strcmp(version, "4.0") != 0 || strcmp(max, "4.0") != 0))
		return sim_fail(e, 400, SIM_E_SYNTAX, "OData-Version and OData-MaxVersion must be 4.0.");
	if (r->len > 0 && (is(r, "POST") || is(r, "PATCH") || is(r, "PUT")) &&
		(type == NULL || (strncasecmp(type, "application/json", 16) != 0 && strncasecmp(type, "application/octet-stream", 24) != 0)))
		return sim_fail(e, 415, SIM_E_PAYLOAD, "The Content-Type of a request with a body must be application/json.");
	return true;
}

/* Headers that skip custom logic need a privilege of the caller. */
static bool
bypass_fits(SimReq *r, SimErr *e)
{
	if (sim_sw.bypass_privilege || (sim_req_header(r, "MSCRM.BypassBusinessLogicExecution") == NULL &&
									sim_req_header(r, "MSCRM.BypassCustomPluginExecution") == NULL &&
									sim_req_header(r, "MSCRM.BypassBusinessLogicExecutionStepIds") == NULL))
		return true;
	return sim_fail(e, 403, "0x80040220", "Principal user is missing prvBypassCustomBusinessLogic privilege");
}

/* /set and what may follow it without a key. */
static bool
run_set(SimReq *r, SimTable *t, SimResp *resp)
{
	const SimSegment *s = &r->path.seg[1];
	size_t		n = strlen(ACTION_PREFIX);
	char		name[64];

	if (r->path.n == 1)
	{
		if (is(r, "GET"))
			return sim_query_run(r, t, false, resp);
		return is(r, "POST") ? sim_crud_create(r, t, resp) : no_method(r, &resp->err);
	}
	if (r->path.n == 2 && sim_str_is(s->name, "$count") && is(r, "GET"))
		return sim_query_run(r, t, true, resp);
	if (r->path.n == 2 && is(r, "POST") && s->name.len > n && memcmp(s->name.s, ACTION_PREFIX, n) == 0)
	{
		snprintf(name, sizeof name, "%.*s", (int) (s->name.len - n), s->name.s + n);
		return sim_bulk_run(r, t, name, resp);
	}
	return no_segment(&resp->err, s);
}

static bool
run_record(SimReq *r, SimRef *ref, SimResp *resp)
{
	if (is(r, "GET"))
		return sim_crud_get(r, ref, resp);
	if (is(r, "PATCH"))
		return sim_crud_patch(r, ref, resp);
	if (is(r, "DELETE"))
		return sim_crud_delete(r, ref, resp);
	return no_method(r, &resp->err);
}

/* A record and a property or navigation property of it, at segment "at". */
static bool
run_member(SimReq *r, SimRef *ref, int at, SimResp *resp)
{
	const SimSegment *s = &r->path.seg[at];
	const SimProp *p = sim_table_prop(ref->table, s->name.s, s->name.len);
	bool		last = r->path.n == at + 1;

	if (p == NULL)
	{
		if ((ref->table == sim_model.users && sim_str_is(s->name, ACTION_PREFIX "RetrieveUserPrivileges")) ||
			(ref->table == sim_model.teams && sim_str_is(s->name, ACTION_PREFIX "RetrieveTeamPrivileges")))
		{
			sim_put_privileges(ref->id, resp);
			return true;
		}
		return no_segment(&resp->err, s);
	}
	if (r->path.n == at + 2 && sim_str_is(r->path.seg[at + 1].name, "$ref"))
		return sim_associate(r, ref, s, resp);
	if (p->kind == SIM_P_COLUMN && (p->column->type == SIM_T_FILE || (p->column->type == SIM_T_IMAGE && !(is(r, "GET") && last))))
		return sim_file_run(r, ref, p->column, resp);
	if (!last)
		return no_segment(&resp->err, &r->path.seg[at + 1]);
	if (p->kind == SIM_P_COLUMN || p->kind == SIM_P_VALUE)
		return sim_crud_property(r, ref, p, resp);
	if (is(r, "GET"))
		return sim_query_navigate(r, ref, p, resp);
	if (is(r, "PUT") && p->kind == SIM_P_COLLECTION)
		return sim_replace_collection(r, ref, p, resp);
	return no_method(r, &resp->err);
}

static bool
run_table(SimReq *r, SimTable *t, SimResp *resp)
{
	SimRef		ref;

	if (!r->path.seg[0].has_key)
	{
		if (r->path.n == 1 && (is(r, "PATCH") || is(r, "DELETE")))
			return no_method(r, &resp->err);
		return run_set(r, t, resp);
	}
	if (!sim_ref_key(r->arena, t, r->path.seg[0].key, false, &ref, &resp->err))
		return false;
	return r->path.n == 1 ? run_record(r, &ref, resp) : run_member(r, &ref, 1, resp);
}

/* $1 and $1/nav/... inside a change set. */
static bool
run_content_id(SimReq *r, SimResp *resp)
{
	SimRef		ref;

	if (!sim_ref_parse(r, r->path.seg[0].name, &ref, &resp->err))
		return false;
	return r->path.n == 1 ? run_record(r, &ref, resp) : run_member(r, &ref, 1, resp);
}

static bool
run(SimReq *r, SimResp *resp)
{
	const SimSegment *s = &r->path.seg[0];
	SimTable   *t;
	bool		known = false;

	if (!headers_fit(r, &resp->err) || !bypass_fits(r, &resp->err) || !sim_auth_impersonate(r, &resp->err))
		return false;
	if (r->path.n == 0)
		return sim_fail(&resp->err, 404, "", "No HTTP resource was found that matches the request URI '%s'.", r->uri);
	if (s->name.len > 0 && s->name.s[0] == '$' && r->in_batch)
		return run_content_id(r, resp);
	if ((t = sim_table_by_set(s->name.s, s->name.len)) != NULL)
		return run_table(r, t, resp);
	if (sim_str_is(s->name, "EntityDefinitions"))
		return is(r, "GET") ? sim_entitydef_run(r, resp) : no_method(r, &resp->err);
	if (sim_str_is(s->name, "sdkmessagefilters"))
		return is(r, "GET") ? sim_messages_run(r, resp) : no_method(r, &resp->err);
	if (sim_str_is(s->name, "$metadata") && is(r, "GET"))
		return sim_csdl_run(r, resp);
	if (sim_function_run(r, resp, &known) || known)
		return resp->err.status == 0;
	return no_segment(&resp->err, s);
}

void
sim_dispatch(SimReq *r, SimResp *resp)
{
	bool		ok;

	if (!sim_path_parse(r->arena, r->uri, &r->path, &resp->err))
		ok = false;
	else
		ok = run(r, resp);
	if (!ok && resp->err.status == 0)
		sim_fail(&resp->err, 500, SIM_E_UNEXPECTED, "An unexpected error occurred.");
	if (resp->err.status != 0)
		sim_resp_error(r, resp);
}

/*
 * functions.c - WhoAmI, RetrieveVersion and the like
 */
#include <stdio.h>
#include <string.h>

#include "actions.h"
#include "attribute.h"
#include "json.h"
#include "route.h"
#include "stats.h"
#include "switches.h"
#include "world.h"

static void
who_am_i(SimReq *r, SimResp *resp)
{
	SimBuf	   *b = &resp->body;

	sim_stats_request(SIM_K_WHOAMI, r->in_batch);
	resp->status = 200;
	sim_buf_printf(b, "{\"@odata.context\":\"%s/api/data/v9.2/$metadata#Microsoft.Dynamics.CRM.WhoAmIResponse\",\"BusinessUnitId\":\"",
				   r->origin);
	sim_buf_guid(b, sim_world.root_unit);
	sim_buf_puts(b, "\",\"UserId\":\"");
	sim_buf_guid(b, r->user);
	sim_buf_puts(b, "\",\"OrganizationId\":\"");
	sim_buf_guid(b, sim_world.organization);
	sim_buf_puts(b, "\"}");
}

static void
version(SimReq *r, SimResp *resp)
{
	sim_stats_request(SIM_K_METADATA, r->in_batch);
	resp->status = 200;
	sim_buf_printf(&resp->body, "{\"@odata.context\":\"%s/api/data/v9.2/$metadata#Microsoft.Dynamics.CRM.RetrieveVersionResponse\","
				   "\"Version\":\"9.2.24051.178\"}", r->origin);
}

/* RetrieveTotalRecordCount(EntityNames=@p1)?@p1=["account"]: a snapshot, old on purpose. */
static bool
record_count(SimReq *r, SimResp *resp)
{
	const char *list = sim_path_option(&r->path, "@p1");
	SimBuf		keys = {0};
	SimJson		j;
	SimScalar	s;
	char	   *copy;
	bool		first = true;
	int			n = 0;

	sim_stats_request(SIM_K_GET, r->in_batch);
	copy = sim_arena_strndup(r->arena, list != NULL ? list : "", list != NULL ? strlen(list) : 0);
	sim_json_begin(&j, copy, strlen(copy));
	if (!sim_json_enter(&j, '['))
		return sim_fail(&resp->err, 400, SIM_E_SYNTAX, "Invalid JSON. EntityNames must be an array.");
	while (sim_json_next_element(&j, &first) && sim_json_string(&j, &s))
	{
		if (sim_table_by_name(s.text.s, s.text.len) == NULL)
			return sim_fail(&resp->err, 400, SIM_E_ARGUMENT, "The entity with a name = '%.*s' was not found.", (int) s.text.len, s.text.s);
		sim_buf_printf(&keys, "%s\"%.*s\"", n++ > 0 ? "," : "", (int) s.text.len, s.text.s);
	}
	resp->status = 200;
	sim_buf_printf(&resp->body, "{\"EntityRecordCountCollection\":{\"Count\":%d,\"IsReadOnly\":false,\"Keys\":[%s],\"Values\":[", n,
				   keys.data != NULL ? keys.data : "");
	/* Taken before the day began, when the tables were empty. */
	for (int i = 0; i < n; i++)
		sim_buf_puts(&resp->body, i > 0 ? ",0" : "0");
	sim_buf_puts(&resp->body, "]}}");
	sim_buf_free(&keys);
	return true;
}

/* SetAutoNumberSeed: checked, not obeyed: no column here numbers itself. */
static bool
set_seed(SimReq *r, SimResp *resp)
{
	SimJson		j;
	SimScalar	name,
				v;
	SimStr		table = {0},
				column = {0};
	const SimTable *t;
	const SimColumn *c;
	bool		first = true,
				seeded = false;

	sim_stats_request(SIM_K_METADATA, r->in_batch);
	sim_json_begin(&j, r->body, r->len);
	if (!sim_json_enter(&j, '{'))
		return sim_fail(&resp->err, 400, SIM_E_SYNTAX, "Invalid JSON. The payload must be an object.");
	while (sim_json_next_member(&j, &first, &name))
	{
		if (!sim_json_scalar(&j, &v))
			break;
		if (sim_str_is(name.text, "EntityName"))
			table = v.text;
		else if (sim_str_is(name.text, "AttributeName"))
			column = v.text;
		else if (sim_str_is(name.text, "Value"))
			seeded = v.kind == SIM_JSON_NUMBER;
	}
	t = table.s != NULL ? sim_table_by_name(table.s, table.len) : NULL;
	c = t != NULL && column.s != NULL ? sim_table_column(t, column.s, column.len) : NULL;
	if (c == NULL || !c->autonumber || !seeded)
		return sim_fail(&resp->err, 400, SIM_E_ARGUMENT, "SetAutoNumberSeed needs EntityName, AttributeName of an autonumber column, and Value.");
	resp->status = 204;
	return true;
}

static void
put_privilege(SimBuf *b, const char *what, const char *of)
{
	char		name[192],
				id[SIM_GUID_LEN + 1];

	snprintf(name, sizeof name, "prv%s%s", what, of);
	if (strcmp(name, sim_sw.deny_privilege) == 0)
		return;
	sim_guid_format(sim_metadata_id(name, "p"), id);
	sim_buf_printf(b, "%s{\"Depth\":\"Global\",\"PrivilegeId\":\"%s\",\"BusinessUnitId\":\"", b->data[b->len - 1] == '[' ? "" : ",", id);
	sim_buf_guid(b, sim_world.root_unit);
	sim_buf_printf(b, "\",\"PrivilegeName\":\"%s\"}", name);
}

/*
 * RetrieveUserPrivileges, RetrieveTeamPrivileges: everybody may do everything, but
 * for what a switch denies; who cannot own records may not read them.
 */
void
sim_put_privileges(SimGuid principal, SimResp *resp)
{
	static const char *const rights[] = {"Create", "Read", "Write", "Delete", "Append", "AppendTo", "Assign", "Share"};
	SimGuid		denied;
	bool		reads = !sim_guid_parse(sim_sw.deny_owner, strlen(sim_sw.deny_owner), &denied) || !sim_guid_eq(denied, principal);

	resp->status = 200;
	sim_buf_puts(&resp->body, "{\"RolePrivileges\":[");
	for (size_t i = 0; i < sizeof rights / sizeof rights[0]; i++)
	{
		if (!reads && strcmp(rights[i], "Read") == 0)
			continue;
		put_privilege(&resp->body, rights[i], "Activity");
		for (int k = 0; k < sim_model.n_tables; k++)
			if (!sim_model.tables[k]->activity)
				put_privilege(&resp->body, rights[i], sim_model.tables[k]->schema);
	}
	if (sim_sw.bypass_privilege)
	{
		put_privilege(&resp->body, "BypassCustomBusinessLogic", "");
		put_privilege(&resp->body, "BypassCustomPlugins", "");
	}
	if (sim_sw.created_on_privilege)
		put_privilege(&resp->body, "OverrideCreatedOnCreatedBy", "");
	put_privilege(&resp->body, "ActOnBehalfOfAnotherUser", "");
	sim_buf_puts(&resp->body, "]}");
}

bool
sim_function_run(SimReq *r, SimResp *resp, bool *known)
{
	const SimSegment *s = &r->path.seg[0];
	bool		get = strcmp(r->method, "GET") == 0;
	bool		who = sim_str_is(s->name, "WhoAmI"),
				ver = sim_str_is(s->name, "RetrieveVersion"),
				count = sim_str_is(s->name, "RetrieveTotalRecordCount");

	*known = true;
	if (who || ver || count)
	{
		if (!get)
			return sim_fail(&resp->err, 404, "", "No HTTP resource was found that matches the request URI '%s'.", r->uri);
		if (who)
			who_am_i(r, resp);
		else if (ver)
			version(r, resp);
		else
			return record_count(r, resp);
		return true;
	}
	if (!get && sim_str_is(s->name, "SetAutoNumberSeed"))
		return set_seed(r, resp);
	if (!get && sim_action_run(r, resp, known))
		return true;
	*known = *known && !get;
	return false;
}

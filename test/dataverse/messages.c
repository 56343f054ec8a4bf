/*
 * messages.c - which table has which bulk message, and the CSDL document
 */
#include <string.h>

#include "attribute.h"
#include "json.h"
#include "route.h"
#include "stats.h"

/* The literal or alias behind "name eq" in a filter, without its quotes. */
static SimStr
filter_value(SimReq *r, const char *filter, const char *name)
{
	const char *p = strstr(filter, name);
	const char *end;
	char		alias[32];
	size_t		n;

	if (p == NULL)
		return (SimStr) {NULL, 0};
	p += strlen(name);
	p += strspn(p, " ");
	if (strncmp(p, "eq ", 3) != 0)
		return (SimStr) {NULL, 0};
	p += 3;
	p += strspn(p, " ");
	if (*p == '@')
	{
		n = strcspn(p, " )");
		if (n >= sizeof alias)
			return (SimStr) {NULL, 0};
		memcpy(alias, p, n);
		alias[n] = '\0';
		p = sim_path_option(&r->path, alias);
	}
	if (p == NULL || *p != '\'' || (end = strchr(p + 1, '\'')) == NULL)
		return (SimStr) {NULL, 0};
	return (SimStr) {p + 1, (size_t) (end - p - 1)};
}

bool
sim_messages_run(SimReq *r, SimResp *resp)
{
	const char *filter = sim_path_option(&r->path, "$filter");
	SimStr		message,
				table;
	SimTable   *t;
	SimBuf	   *b = &resp->body;

	sim_stats_request(SIM_K_METADATA, r->in_batch);
	message = filter != NULL ? filter_value(r, filter, "sdkmessageid/name") : (SimStr) {NULL, 0};
	table = filter != NULL ? filter_value(r, filter, "primaryobjecttypecode") : (SimStr) {NULL, 0};
	if (message.s == NULL || table.s == NULL)
		return sim_fail(&resp->err, 400, SIM_E_SYNTAX, "Only a $filter by sdkmessageid/name and primaryobjecttypecode is supported.");
	t = sim_table_by_name(table.s, table.len);
	resp->status = 200;
	sim_buf_printf(b, "{\"@odata.context\":\"%s/api/data/v9.2/$metadata#sdkmessagefilters(sdkmessagefilterid)\",\"value\":[", r->origin);
	if (t != NULL && ((sim_str_is(message, "CreateMultiple") && t->bulk_create) ||
					  (sim_str_is(message, "UpdateMultiple") && t->bulk_update)))
	{
		sim_buf_puts(b, "{\"@odata.etag\":\"W/\\\"1\\\"\",\"sdkmessagefilterid\":\"");
		sim_buf_guid(b, sim_metadata_id(t->name, message.s[0] == 'C' ? "create" : "update"));
		sim_buf_puts(b, "\"}");
	}
	sim_buf_puts(b, "]}");
	return true;
}

static const char *
edm(const SimColumn *c)
{
	switch (c->type)
	{
		case SIM_T_INTEGER:
		case SIM_T_CHOICE:
		case SIM_T_STATE:
		case SIM_T_STATUS:
			return "Edm.Int32";
		case SIM_T_BIGINT:
			return "Edm.Int64";
		case SIM_T_DECIMAL:
		case SIM_T_MONEY:
			return "Edm.Decimal";
		case SIM_T_DOUBLE:
			return "Edm.Double";
		case SIM_T_BOOLEAN:
			return "Edm.Boolean";
		case SIM_T_DATE:
			return c->date_kind == SIM_DATE_ONLY ? "Edm.Date" : "Edm.DateTimeOffset";
		case SIM_T_IMAGE:
			return "Edm.Binary";
		case SIM_T_GUID:
		case SIM_T_LOOKUP:
		case SIM_T_CUSTOMER:
		case SIM_T_OWNER:
		case SIM_T_FILE:
			return "Edm.Guid";
		default:
			return "Edm.String";
	}
}

/* Properties and navigation properties of one table. */
static void
put_type(SimBuf *b, const SimTable *t)
{
	sim_buf_printf(b, "<EntityType Name=\"%s\" BaseType=\"mscrm.crmbaseentity\"><Key><PropertyRef Name=\"%s\"/></Key>", t->name, t->id_name);
	for (size_t i = 0; i < t->names.n; i++)
	{
		const SimProp *p = &t->names.items[i];

		switch (p->kind)
		{
			case SIM_P_COLUMN:
			case SIM_P_VALUE:
				sim_buf_printf(b, "<Property Name=\"%s\" Type=\"%s\"/>", p->name, edm(p->column));
				break;
			case SIM_P_NAV:
				sim_buf_printf(b, "<NavigationProperty Name=\"%s\" Type=\"mscrm.%s\"/>", p->name,
							   p->target < 0 ? "principal" : p->column->targets[p->target].table_name);
				break;
			case SIM_P_COLLECTION:
				sim_buf_printf(b, "<NavigationProperty Name=\"%s\" Type=\"Collection(mscrm.%s)\"/>", p->name, p->other->name);
				break;
			case SIM_P_LINK:
				sim_buf_printf(b, "<NavigationProperty Name=\"%s\" Type=\"Collection(mscrm.%s)\"/>", p->name,
							   p->relation->side_name[1 - p->side]);
				break;
		}
	}
	sim_buf_puts(b, "</EntityType>");
}

bool
sim_csdl_run(SimReq *r, SimResp *resp)
{
	SimBuf	   *b = &resp->body;

	sim_stats_request(SIM_K_METADATA, r->in_batch);
	resp->status = 200;
	resp->content_type = "application/xml";
	sim_buf_puts(b, "<?xml version=\"1.0\" encoding=\"utf-8\"?><edmx:Edmx Version=\"4.0\" "
				 "xmlns:edmx=\"http://docs.oasis-open.org/odata/ns/edmx\"><edmx:DataServices><Schema "
				 "Namespace=\"Microsoft.Dynamics.CRM\" Alias=\"mscrm\" xmlns=\"http://docs.oasis-open.org/odata/ns/edm\">");
	for (int i = 0; i < sim_model.n_tables; i++)
		put_type(b, sim_model.tables[i]);
	sim_buf_puts(b, "<EntityContainer Name=\"System\">");
	for (int i = 0; i < sim_model.n_tables; i++)
		sim_buf_printf(b, "<EntitySet Name=\"%s\" EntityType=\"Microsoft.Dynamics.CRM.%s\"/>", sim_model.tables[i]->set,
					   sim_model.tables[i]->name);
	sim_buf_puts(b, "</EntityContainer></Schema></edmx:DataServices></edmx:Edmx>");
	return true;
}

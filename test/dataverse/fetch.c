/*
 * fetch.c - the fetchXml query option: attributes and top, no conditions
 */
#include <stdlib.h>
#include <string.h>

#include "crud.h"
#include "output.h"
#include "route.h"

/* Value of name="..." or name='...' within one tag; NULL when absent. */
static const char *
xml_attribute(const char *tag, const char *name, size_t *len)
{
	const char *end = strchr(tag, '>');
	const char *p = strstr(tag, name);
	size_t		n = strlen(name);

	while (p != NULL && end != NULL && p < end)
	{
		if (p[-1] == ' ' && p[n] == '=' && (p[n + 1] == '"' || p[n + 1] == '\''))
		{
			*len = strcspn(p + n + 2, p[n + 1] == '"' ? "\"" : "'");
			return p + n + 2;
		}
		p = strstr(p + 1, name);
	}
	return NULL;
}

/* The attributes as a $select list. */
static char *
selected(const SimReq *r, const char *xml)
{
	SimBuf		b = {0};
	char	   *out;

	for (const char *p = strstr(xml, "<attribute "); p != NULL; p = strstr(p + 1, "<attribute "))
	{
		size_t		len;
		const char *name = xml_attribute(p, "name", &len);

		if (name != NULL)
		{
			sim_buf_puts(&b, b.len > 0 ? "," : "");
			sim_buf_add(&b, name, len);
		}
	}
	out = b.len > 0 ? sim_arena_strndup(r->arena, b.data, b.len) : NULL;
	sim_buf_free(&b);
	return out;
}

bool
sim_fetch_run(SimReq *r, SimTable *t, SimResp *resp)
{
	const char *xml = sim_path_option(&r->path, "fetchXml");
	const char *fetch = strstr(xml, "<fetch"),
			   *entity = strstr(xml, "<entity ");
	size_t		len;
	const char *text;
	long		top = 5000,
				n = 0;
	SimOutput	o;
	SimTxn		own;

	text = entity != NULL ? xml_attribute(entity, "name", &len) : NULL;
	if (fetch == NULL || text == NULL || sim_table_by_name(text, len) != t)
		return sim_fail(&resp->err, 400, SIM_E_ARGUMENT, "The FetchXml does not name the entity of the URL.");
	if (strstr(xml, "<filter") != NULL || strstr(xml, "<link-entity") != NULL || strstr(xml, "<order") != NULL)
		return sim_fail(&resp->err, 400, SIM_E_NOT_SUPPORTED, "FetchXml filters, links and orders are not simulated.");
	if ((text = xml_attribute(fetch, "top", &len)) != NULL || (text = xml_attribute(fetch, "count", &len)) != NULL)
		top = strtol(text, NULL, 10);
	if (!sim_output_prepare(r, t, selected(r, xml), NULL, &o, &resp->err))
		return false;
	resp->status = 200;
	sim_buf_printf(&resp->body, "{\"@odata.context\":\"%s/api/data/v9.2/$metadata#%s\",\"value\":[", r->origin, t->set);
	sim_crud_begin(r, &own, false);
	for (uint32_t i = 0; i < t->store->n && n < top; i++)
	{
		if (sim_store_slot(t, i)->row == NULL)
			continue;
		if (n++ > 0)
			sim_buf_char(&resp->body, ',');
		sim_output_record(&resp->body, &o, sim_store_slot(t, i), NULL);
	}
	sim_crud_end(r, &own, true);
	sim_buf_puts(&resp->body, "]}");
	return true;
}

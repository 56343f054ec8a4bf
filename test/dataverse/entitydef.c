/*
 * entitydef.c - EntityDefinitions: what the metadata is, as the Web API tells it
 *
 * Every property is offered to a selection; a selection that names something
 * nobody offered is refused.
 */
#include <stdio.h>
#include <string.h>

#include "attribute.h"
#include "json.h"
#include "route.h"
#include "stats.h"
#include "switches.h"

static const char *
ownership(const SimTable *t)
{
	static const char *const names[] = {"UserOwned", "BusinessOwned", "OrganizationOwned", "None"};

	return names[t->ownership];
}

static void
put_table_members(SimBuf *b, SimPick *p, const SimTable *t)
{
	char		id[SIM_GUID_LEN + 1];

	sim_pick_text(b, p, "LogicalName", t->name);
	sim_pick_text(b, p, "SchemaName", t->schema);
	sim_pick_text(b, p, "EntitySetName", t->set);
	sim_pick_text(b, p, "LogicalCollectionName", t->set);
	sim_pick_text(b, p, "CollectionSchemaName", t->set);
	sim_pick_text(b, p, "PrimaryIdAttribute", t->id_name);
	sim_pick_text(b, p, "PrimaryNameAttribute", t->primary_name);
	sim_pick_text(b, p, "OwnershipType", ownership(t));
	sim_pick_text(b, p, "TableType", t->elastic ? "Elastic" : t->virtual_table ? "Virtual" : "Standard");
	sim_pick_raw(b, p, "ObjectTypeCode", sim_arena_printf(p->arena, "%d", 10000 + t->number));
	sim_pick_bool(b, p, "IsActivity", t->activity);
	sim_pick_bool(b, p, "IsCustomEntity", t->custom);
	sim_pick_bool(b, p, "IsIntersect", false);
	sim_pick_bool(b, p, "IsOptimisticConcurrencyEnabled", !t->virtual_table);
	sim_pick_bool(b, p, "IsLogicalEntity", false);
	sim_pick_bool(b, p, "ChangeTrackingEnabled", true);
	if (sim_pick(b, p, "DisplayName"))
		sim_put_label(b, t->schema);
	if (sim_pick(b, p, "DisplayCollectionName"))
		sim_put_label(b, t->set);
	sim_guid_format(sim_metadata_id(t->name, ""), id);
	sim_pick_always(b, p, "MetadataId", id);
}

static void
put_key(SimBuf *b, const SimPick *shape, const SimTable *t, const SimKey *k)
{
	SimPick		p = *shape;
	char		id[SIM_GUID_LEN + 1];

	sim_buf_char(b, '{');
	sim_pick_text(b, &p, "LogicalName", k->name);
	sim_pick_text(b, &p, "SchemaName", k->name);
	sim_pick_text(b, &p, "EntityLogicalName", t->name);
	if (sim_pick(b, &p, "KeyAttributes"))
	{
		for (int i = 0; i < k->n_columns; i++)
			sim_buf_printf(b, "%s\"%s\"", i > 0 ? "," : "[", t->columns[k->columns[i]].name);
		sim_buf_char(b, ']');
	}
	sim_pick_text(b, &p, "EntityKeyIndexStatus", k->status);
	sim_pick_bool(b, &p, "IsManaged", false);
	if (sim_pick(b, &p, "DisplayName"))
		sim_put_label(b, k->name);
	sim_guid_format(sim_metadata_id(t->name, k->name), id);
	sim_pick_always(b, &p, "MetadataId", id);
	sim_pick_check(&p, "EntityKeyMetadata");
	sim_buf_char(b, '}');
}

/* One N:1 relationship, seen from either side. */
static void
put_lookup(SimBuf *b, const SimPick *shape, const SimTable *t, const SimColumn *c, const SimTarget *g)
{
	SimPick		p = *shape;
	char		name[160],
				id[SIM_GUID_LEN + 1];
	const char *collection = g->collection;

	snprintf(name, sizeof name, "%s_%s_%s", g->table_name, t->name, c->name);
	if (collection == NULL)
		collection = name;
	sim_buf_char(b, '{');
	sim_pick_text(b, &p, "SchemaName", collection);
	sim_pick_text(b, &p, "RelationshipType", "OneToManyRelationship");
	sim_pick_text(b, &p, "ReferencingEntity", t->name);
	sim_pick_text(b, &p, "ReferencingAttribute", c->name);
	sim_pick_text(b, &p, "ReferencedEntity", g->table_name);
	sim_pick_text(b, &p, "ReferencedAttribute", g->table != NULL ? g->table->id_name : "ownerid");
	sim_pick_text(b, &p, "ReferencingEntityNavigationPropertyName", g->nav);
	sim_pick_text(b, &p, "ReferencedEntityNavigationPropertyName", collection);
	/* Records that cannot be without the other go with it. */
	if (sim_pick(b, &p, "CascadeConfiguration"))
		sim_buf_printf(b, "{\"Assign\":\"NoCascade\",\"Delete\":\"%s\",\"Archive\":null,\"Merge\":\"NoCascade\",\"Reparent\":\"NoCascade\","
					   "\"Share\":\"NoCascade\",\"Unshare\":\"NoCascade\",\"RollupView\":\"NoCascade\"}", c->system_required ? "Cascade" : "RemoveLink");
	sim_guid_format(sim_metadata_id(name, "r"), id);
	sim_pick_always(b, &p, "MetadataId", id);
	sim_pick_check(&p, "OneToManyRelationshipMetadata");
	sim_buf_char(b, '}');
}

static void
begin_item(SimBuf *b)
{
	if (b->data[b->len - 1] != '[')
		sim_buf_char(b, ',');
}

static void
put_many_to_one(SimBuf *b, const SimPick *p, const SimTable *t)
{
	for (int i = 0; i < t->n_columns; i++)
	{
		const SimColumn *c = &t->columns[i];
		SimTarget	owner = {.table_name = (char *) "owner", .nav = c->name, .collection = NULL};

		if (t->activity)
			owner.nav = sim_arena_printf(p->arena, "%s_%s", c->name, t->name);

		for (int g = 0; g < c->n_targets && !c->gone; g++)
		{
			begin_item(b);
			put_lookup(b, p, t, c, &c->targets[g]);
		}
		if (c->type == SIM_T_OWNER && c->n_targets == 0)
		{
			begin_item(b);
			put_lookup(b, p, t, c, &owner);
		}
	}
}

static void
put_one_to_many(SimBuf *b, const SimPick *p, const SimTable *t)
{
	for (int k = 0; k < sim_model.n_tables; k++)
		for (int i = 0; i < sim_model.tables[k]->n_columns; i++)
		{
			const SimColumn *c = &sim_model.tables[k]->columns[i];

			for (int g = 0; g < c->n_targets; g++)
				if (c->targets[g].table == t)
				{
					begin_item(b);
					put_lookup(b, p, sim_model.tables[k], c, &c->targets[g]);
				}
		}
}

static void
put_link(SimBuf *b, const SimPick *shape, const SimManyToMany *r)
{
	SimPick		p = *shape;
	char		id[SIM_GUID_LEN + 1];

	sim_buf_char(b, '{');
	sim_pick_text(b, &p, "SchemaName", r->name);
	sim_pick_text(b, &p, "RelationshipType", "ManyToManyRelationship");
	sim_pick_text(b, &p, "IntersectEntityName", r->intersect);
	for (int s = 0; s < 2; s++)
	{
		sim_pick_text(b, &p, s == 0 ? "Entity1LogicalName" : "Entity2LogicalName", r->side_name[s]);
		sim_pick_text(b, &p, s == 0 ? "Entity1IntersectAttribute" : "Entity2IntersectAttribute",
					  r->side[s] != NULL ? r->side[s]->id_name : "id");
		sim_pick_text(b, &p, s == 0 ? "Entity1NavigationPropertyName" : "Entity2NavigationPropertyName", r->nav[s]);
	}
	sim_guid_format(sim_metadata_id(r->name, "n"), id);
	sim_pick_always(b, &p, "MetadataId", id);
	sim_pick_check(&p, "ManyToManyRelationshipMetadata");
	sim_buf_char(b, '}');
}

/* A collection of a table by its name; false when there is no such collection. */
static bool
put_collection(SimBuf *b, SimPick *p, const SimTable *t, const char *name, size_t len)
{
	SimStr		n = {name, len};

	if (sim_str_is(n, "Attributes"))
		sim_put_attributes(b, p, t, NULL, NULL);
	else if (sim_str_is(n, "Keys"))
		for (int i = 0; i < t->n_keys; i++)
		{
			begin_item(b);
			put_key(b, p, t, &t->keys[i]);
		}
	else if (sim_str_is(n, "ManyToOneRelationships"))
		put_many_to_one(b, p, t);
	else if (sim_str_is(n, "OneToManyRelationships"))
		put_one_to_many(b, p, t);
	else if (sim_str_is(n, "ManyToManyRelationships"))
	{
		for (int i = 0; i < sim_model.n_relations; i++)
			if (sim_model.relations[i]->side[0] == t || sim_model.relations[i]->side[1] == t)
			{
				begin_item(b);
				put_link(b, p, sim_model.relations[i]);
			}
	}
	else
		return false;
	return true;
}

/* $expand of a table: Attributes($select=...),Keys(...), ... */
static bool
put_expanded(SimBuf *b, SimReq *r, const SimTable *t, const char *expand, SimErr *e)
{
	while (expand != NULL && *expand != '\0')
	{
		size_t		name = strcspn(expand, "(,"),
					len = sim_pick_item(expand);
		SimPick		p = sim_pick_begin(r->arena, sim_pick_option(r->arena, expand, name, len, "$select"),
									   sim_pick_option(r->arena, expand, name, len, "$expand"), e);

		sim_buf_printf(b, ",\"%.*s\":[", (int) name, expand);
		if (!put_collection(b, &p, t, expand, name))
			return sim_fail(e, 400, SIM_E_NONE, "Could not find a property named '%.*s' on type "
							"'Microsoft.Dynamics.CRM.EntityMetadata'.", (int) name, expand);
		sim_buf_char(b, ']');
		expand += len;
		expand += *expand == ',';
	}
	return e->status == 0;
}

static bool
put_table(SimBuf *b, SimReq *r, const SimTable *t, const char *context, SimErr *e)
{
	const char *expand = sim_path_option(&r->path, "$expand");
	SimPick		p = sim_pick_begin(r->arena, sim_path_option(&r->path, "$select"), NULL, e);

	sim_buf_char(b, '{');
	if (context != NULL)
		sim_buf_printf(b, "\"@odata.context\":\"%s\"", context);
	put_table_members(b, &p, t);
	if (!sim_pick_check(&p, "EntityMetadata"))
		return false;
	if (!put_expanded(b, r, t, expand, e))
		return false;
	sim_buf_char(b, '}');
	return true;
}

/* $filter=LogicalName eq 'x' [or LogicalName eq 'y' ...]; NULL: all tables. */
static bool
table_passes(const SimTable *t, const char *filter)
{
	const char *p = filter;
	size_t		n = strlen(t->name);

	while (p != NULL && (p = strchr(p, '\'')) != NULL)
	{
		const char *end = strchr(p + 1, '\'');

		if (end == NULL)
			return false;
		if ((size_t) (end - p - 1) == n && memcmp(p + 1, t->name, n) == 0)
			return true;
		p = end + 1;
	}
	return filter == NULL;
}

static bool
all_tables(SimReq *r, SimResp *resp)
{
	const char *filter = sim_path_option(&r->path, "$filter");
	SimBuf	   *b = &resp->body;

	if (filter != NULL && strncmp(filter, "LogicalName eq '", 16) != 0 && strncmp(filter, "(LogicalName eq '", 17) != 0)
		return sim_fail(&resp->err, 400, SIM_E_SYNTAX, "The $filter expression is not supported for EntityDefinitions.");
	sim_buf_printf(b, "{\"@odata.context\":\"%s/api/data/v9.2/$metadata#EntityDefinitions\",\"value\":[", r->origin);
	for (int i = 0; i < sim_model.n_tables; i++)
	{
		if (!table_passes(sim_model.tables[i], filter))
			continue;
		begin_item(b);
		if (!put_table(b, r, sim_model.tables[i], NULL, &resp->err))
			return false;
	}
	sim_buf_puts(b, "]}");
	resp->status = 200;
	return true;
}

/* LogicalName='account', or the metadata id. */
static SimTable *
named_table(SimStr key)
{
	SimGuid		id;

	if (key.len > 14 && memcmp(key.s, "LogicalName='", 13) == 0 && key.s[key.len - 1] == '\'')
		return sim_table_by_name(key.s + 13, key.len - 14);
	if (sim_guid_parse(key.s, key.len, &id))
		for (int i = 0; i < sim_model.n_tables; i++)
			if (sim_guid_eq(sim_metadata_id(sim_model.tables[i]->name, ""), id))
				return sim_model.tables[i];
	return NULL;
}

/* EntityDefinitions(...)/<collection>[(LogicalName='x')][/<cast>] */
static bool
run_collection(SimReq *r, SimTable *t, SimResp *resp)
{
	const SimSegment *s = &r->path.seg[1];
	const SimSegment *cast = r->path.n > 2 ? &r->path.seg[2] : NULL;
	SimBuf	   *b = &resp->body;
	SimPick		p = sim_pick_begin(r->arena, sim_path_option(&r->path, "$select"), sim_path_option(&r->path, "$expand"), &resp->err);
	bool		attributes = sim_str_is(s->name, "Attributes");

	resp->status = 200;
	if (attributes && s->has_key)
		return sim_put_one_attribute(b, r, &p, t, s->key, cast, &resp->err);
	sim_buf_printf(b, "{\"@odata.context\":\"%s/api/data/v9.2/$metadata#EntityDefinitions('%s')/%.*s%s%.*s\",\"value\":[", r->origin,
				   t->name, (int) s->name.len, s->name.s, cast != NULL ? "/" : "", cast != NULL ? (int) cast->name.len : 0,
				   cast != NULL ? cast->name.s : "");
	if (attributes)
	{
		if (cast != NULL && !sim_attribute_cast(cast->name))
			return sim_fail(&resp->err, 404, SIM_E_SEGMENT, "Resource not found for the segment '%.*s'.", (int) cast->name.len, cast->name.s);
		sim_put_attributes(b, &p, t, cast, sim_path_option(&r->path, "$filter"));
	}
	else if (cast != NULL || !put_collection(b, &p, t, s->name.s, s->name.len))
		return sim_fail(&resp->err, 404, SIM_E_SEGMENT, "Resource not found for the segment '%.*s'.", (int) s->name.len, s->name.s);
	sim_buf_puts(b, "]}");
	return resp->err.status == 0;
}

bool
sim_entitydef_run(SimReq *r, SimResp *resp)
{
	const SimSegment *s = &r->path.seg[0];
	SimTable   *t;

	sim_stats_request(SIM_K_METADATA, r->in_batch);
	if (!s->has_key)
		return all_tables(r, resp);
	t = named_table(s->key);
	if (t == NULL)
		return sim_fail(&resp->err, 404, SIM_E_NOT_FOUND, "Could not find an entity with the specified name: %.*s.",
						(int) (s->key.len > 100 ? 100 : s->key.len), s->key.s);
	if (r->path.n > 1)
		return run_collection(r, t, resp);
	resp->status = 200;
	if (sim_sw.definition == SIM_LISTED)
	{
		bool		ok;

		sim_buf_puts(&resp->body, "{\"value\":[");
		ok = put_table(&resp->body, r, t, NULL, &resp->err);
		sim_buf_puts(&resp->body, "]}");
		return ok;
	}
	return put_table(&resp->body, r, t, sim_arena_printf(r->arena, "%s/api/data/v9.2/$metadata#EntityDefinitions/$entity", r->origin),
					 &resp->err);
}

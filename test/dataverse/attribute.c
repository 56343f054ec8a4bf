/*
 * attribute.c - selections over metadata properties, and columns as metadata
 */
#include "attribute.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "json.h"

#define PREFIX "Microsoft.Dynamics.CRM."

/* By SimType: AttributeType, AttributeTypeName, and the metadata class. */
static const struct
{
	const char *type;
	const char *type_name;
	const char *class;
}			types[] =
{
	[SIM_T_STRING] = {"String", "StringType", "String"},
	[SIM_T_MEMO] = {"Memo", "MemoType", "Memo"},
	[SIM_T_INTEGER] = {"Integer", "IntegerType", "Integer"},
	[SIM_T_BIGINT] = {"BigInt", "BigIntType", "BigInt"},
	[SIM_T_DECIMAL] = {"Decimal", "DecimalType", "Decimal"},
	[SIM_T_DOUBLE] = {"Double", "DoubleType", "Double"},
	[SIM_T_MONEY] = {"Money", "MoneyType", "Money"},
	[SIM_T_BOOLEAN] = {"Boolean", "BooleanType", "Boolean"},
	[SIM_T_CHOICE] = {"Picklist", "PicklistType", "Picklist"},
	[SIM_T_CHOICES] = {"Virtual", "MultiSelectPicklistType", "MultiSelectPicklist"},
	[SIM_T_STATE] = {"State", "StateType", "State"},
	[SIM_T_STATUS] = {"Status", "StatusType", "Status"},
	[SIM_T_DATE] = {"DateTime", "DateTimeType", "DateTime"},
	[SIM_T_GUID] = {"Uniqueidentifier", "UniqueidentifierType", "UniqueIdentifier"},
	[SIM_T_IMAGE] = {"Virtual", "ImageType", "Image"},
	[SIM_T_FILE] = {"Virtual", "FileType", "File"},
	[SIM_T_LOOKUP] = {"Lookup", "LookupType", "Lookup"},
	[SIM_T_CUSTOMER] = {"Customer", "CustomerType", "Lookup"},
	[SIM_T_OWNER] = {"Owner", "OwnerType", "Lookup"},
	[SIM_T_PARTY] = {"PartyList", "PartyListType", "Lookup"},
};

SimPick
sim_pick_begin(SimArena *a, const char *select, const char *expand, SimErr *e)
{
	SimPick		p = {.arena = a, .select = select, .expand = expand, .e = e};

	for (const char *s = select; s != NULL && *s != '\0'; s += strspn(s, ", "))
	{
		p.wanted++;
		s += strcspn(s, ", ");
	}
	return p;
}

static bool
listed(const char *list, const char *name)
{
	size_t		n = strlen(name);

	while (*list != '\0')
	{
		size_t		len = strcspn(list, ", ");

		if (len == n && memcmp(list, name, n) == 0)
			return true;
		list += len;
		list += strspn(list, ", ");
	}
	return false;
}

static void
begin(SimBuf *b, const char *name)
{
	sim_buf_printf(b, "%s\"%s\":", b->data[b->len - 1] == '{' ? "" : ",", name);
}

bool
sim_pick(SimBuf *b, SimPick *p, const char *name)
{
	if (p->select != NULL && !listed(p->select, name))
		return false;
	p->offered++;
	begin(b, name);
	return true;
}

void
sim_pick_text(SimBuf *b, SimPick *p, const char *name, const char *value)
{
	if (!sim_pick(b, p, name))
		return;
	if (value != NULL)
		sim_json_put(b, value);
	else
		sim_buf_puts(b, "null");
}

void
sim_pick_raw(SimBuf *b, SimPick *p, const char *name, const char *json)
{
	if (sim_pick(b, p, name))
		sim_buf_puts(b, json);
}

void
sim_pick_bool(SimBuf *b, SimPick *p, const char *name, bool value)
{
	sim_pick_raw(b, p, name, value ? "true" : "false");
}

void
sim_pick_always(SimBuf *b, SimPick *p, const char *name, const char *value)
{
	if (p->select != NULL && listed(p->select, name))
		p->offered++;
	begin(b, name);
	sim_json_put(b, value);
}

bool
sim_pick_check(SimPick *p, const char *type)
{
	if (p->select == NULL || p->offered == p->wanted)
		return true;
	return sim_fail(p->e, 400, SIM_E_NONE, "Could not find a property named in '%.200s' on type 'Microsoft.Dynamics.CRM.%s'.", p->select,
					type);
}

size_t
sim_pick_item(const char *list)
{
	int			depth = 0;
	size_t		n = 0;

	for (; list[n] != '\0' && (list[n] != ',' || depth > 0); n++)
	{
		depth += list[n] == '(';
		depth -= list[n] == ')';
	}
	return n;
}

const char *
sim_pick_option(SimArena *a, const char *item, size_t name_len, size_t len, const char *option)
{
	size_t		n = strlen(option);
	const char *p = item + name_len + 1,
			   *end = item + len - 1;

	if (name_len >= len)
		return NULL;
	while (p < end)
	{
		int			depth = 0;
		const char *stop = p;

		for (; stop < end && (*stop != ';' || depth > 0); stop++)
		{
			depth += *stop == '(';
			depth -= *stop == ')';
		}
		if ((size_t) (stop - p) > n && memcmp(p, option, n) == 0 && p[n] == '=')
			return sim_arena_strndup(a, p + n + 1, (size_t) (stop - p) - n - 1);
		p = stop + 1;
	}
	return NULL;
}

void
sim_put_label(SimBuf *b, const char *text)
{
	for (int i = 0; i < 2; i++)
	{
		sim_buf_puts(b, i == 0 ? "{\"LocalizedLabels\":[{\"Label\":" : ",\"UserLocalizedLabel\":{\"Label\":");
		sim_json_put(b, text);
		sim_buf_puts(b, ",\"LanguageCode\":1033,\"IsManaged\":true,\"MetadataId\":null,\"HasChanged\":null}");
		if (i == 0)
			sim_buf_char(b, ']');
	}
	sim_buf_char(b, '}');
}

SimGuid
sim_metadata_id(const char *table, const char *name)
{
	uint64_t	a = sim_hash(table, strlen(table)),
				b = sim_hash(name, strlen(name));

	return (SimGuid) {(a & ~(uint64_t) 0xf000) | 0x4000, ((a ^ b * 31) & ~((uint64_t) 3 << 62)) | (uint64_t) 1 << 63};
}

bool
sim_attribute_cast(SimStr s)
{
	char		name[96];

	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
	{
		snprintf(name, sizeof name, PREFIX "%sAttributeMetadata", types[i].class);
		if (sim_str_is(s, name))
			return true;
	}
	return false;
}

static bool
fits_cast(const SimColumn *c, const SimSegment *cast)
{
	char		name[96];

	if (cast == NULL)
		return true;
	snprintf(name, sizeof name, PREFIX "%sAttributeMetadata", types[c->type].class);
	return sim_str_is(cast->name, name);
}

/* $filter by AttributeType or LogicalName; every quoted literal is an alternative. */
static bool
fits_filter(const SimColumn *c, const char *filter)
{
	bool		type = filter != NULL && strstr(filter, "AttributeTypeCode'") != NULL;
	const char *want = type ? types[c->type].type : c->name;
	const char *p = filter;

	if (filter == NULL)
		return true;
	while ((p = strchr(p, '\'')) != NULL)
	{
		const char *end = strchr(p + 1, '\'');

		if (end == NULL)
			return false;
		if ((size_t) (end - p - 1) == strlen(want) && memcmp(p + 1, want, strlen(want)) == 0)
			return true;
		p = end + 1;
	}
	return false;
}

static void
pick_value(SimBuf *b, SimPick *p, const char *name, const char *value)
{
	if (sim_pick(b, p, name))
		sim_buf_printf(b, "{\"Value\":\"%s\"}", value);
}

static const char *
number(const SimPick *p, const SimColumn *c, double v)
{
	if (c->type == SIM_T_BIGINT && fabs(v) > 9e18)
		return v > 0 ? "9223372036854775807" : "-9223372036854775808";
	return v == floor(v) ? sim_arena_printf(p->arena, "%.0f", v) : sim_arena_printf(p->arena, "%.10g", v);
}

static void
put_option(SimBuf *b, const SimTable *t, const SimColumn *c, const SimOption *o)
{
	sim_buf_char(b, '{');
	if (c->type == SIM_T_STATE || c->type == SIM_T_STATUS)
		sim_buf_printf(b, "\"@odata.type\":\"#" PREFIX "%sOptionMetadata\",", c->type == SIM_T_STATE ? "State" : "Status");
	sim_buf_printf(b, "\"Value\":%d,\"Color\":null,\"IsManaged\":true,\"ExternalValue\":null,\"ParentValues\":[],\"Tag\":null,"
				   "\"IsHidden\":false,\"MetadataId\":null,\"HasChanged\":null,", o->value);
	if (c->type == SIM_T_STATE)
	{
		sim_buf_printf(b, "\"DefaultStatus\":%d,\"InvariantName\":", sim_table_default_status(t, o->value));
		sim_json_put(b, o->label);
		sim_buf_char(b, ',');
	}
	if (c->type == SIM_T_STATUS)
		sim_buf_printf(b, "\"State\":%d,\"TransitionData\":null,", o->state);
	sim_buf_puts(b, "\"Label\":");
	sim_put_label(b, o->label);
	sim_buf_puts(b, ",\"Description\":{\"LocalizedLabels\":[],\"UserLocalizedLabel\":null}}");
}

static void
put_boolean_options(SimBuf *b, const SimTable *t, const SimColumn *c)
{
	for (int v = 1; v >= 0; v--)
	{
		const SimOption *known = sim_column_option(c, v);
		SimOption	o = {.value = v, .label = (char *) (known != NULL ? known->label : v ? "Yes" : "No")};

		sim_buf_printf(b, ",\"%s\":", v ? "TrueOption" : "FalseOption");
		put_option(b, t, c, &o);
	}
}

static bool
has_options(const SimColumn *c)
{
	return c->type == SIM_T_CHOICE || c->type == SIM_T_CHOICES || c->type == SIM_T_STATE || c->type == SIM_T_STATUS ||
		c->type == SIM_T_BOOLEAN;
}

static void
put_option_set(SimBuf *b, const SimTable *t, const SimColumn *c)
{
	char		id[SIM_GUID_LEN + 1];

	sim_guid_format(sim_metadata_id(t->name, c->name), id);
	sim_buf_printf(b, "{\"MetadataId\":\"%s\",\"Name\":\"%s_%s\",\"IsGlobal\":false", id, t->name, c->name);
	if (c->type == SIM_T_BOOLEAN)
		put_boolean_options(b, t, c);
	else
	{
		sim_buf_puts(b, ",\"Options\":[");
		for (int i = 0; i < c->n_options; i++)
		{
			sim_buf_puts(b, i > 0 ? "," : "");
			put_option(b, t, c, &c->options[i]);
		}
		sim_buf_char(b, ']');
	}
	sim_buf_char(b, '}');
}

/* $expand=OptionSet(...),GlobalOptionSet(...): local sets only. */
static void
put_expand(SimBuf *b, SimPick *p, const SimTable *t, const SimColumn *c)
{
	const char *x = p->expand;

	while (x != NULL && *x != '\0')
	{
		size_t		name = strcspn(x, "(,"),
					len = sim_pick_item(x);
		SimStr		n = {x, name};

		if (sim_str_is(n, "OptionSet") && has_options(c))
		{
			sim_buf_puts(b, ",\"OptionSet\":");
			put_option_set(b, t, c);
		}
		else if (sim_str_is(n, "GlobalOptionSet") && has_options(c))
			sim_buf_puts(b, ",\"GlobalOptionSet\":null");
		else
			sim_fail(p->e, 400, SIM_E_NONE, "Could not find a property named '%.*s' on type 'Microsoft.Dynamics.CRM.AttributeMetadata'.",
					 (int) name, x);
		x += len;
		x += *x == ',';
	}
}

static void
put_text_members(SimBuf *b, SimPick *p, const SimColumn *c)
{
	sim_pick_raw(b, p, "MaxLength", sim_arena_printf(p->arena, "%ld", c->max_length));
	sim_pick_text(b, p, "Format", c->type == SIM_T_MEMO ? "TextArea" : "Text");
	if (c->type == SIM_T_STRING)
		sim_pick_text(b, p, "AutoNumberFormat", c->autonumber ? "{SEQNUM:5}" : "");
	sim_pick_text(b, p, "ImeMode", "Auto");
}

static void
put_number_members(SimBuf *b, SimPick *p, const SimColumn *c)
{
	sim_pick_raw(b, p, "MinValue", number(p, c, c->min));
	sim_pick_raw(b, p, "MaxValue", number(p, c, c->max));
	if (c->type != SIM_T_INTEGER && c->type != SIM_T_BIGINT)
		sim_pick_raw(b, p, "Precision", sim_arena_printf(p->arena, "%d", c->precision));
	if (c->type == SIM_T_INTEGER)
		sim_pick_text(b, p, "Format", "None");
	if (c->type == SIM_T_MONEY)
	{
		sim_pick_raw(b, p, "PrecisionSource", "0");
		sim_pick_bool(b, p, "IsBaseCurrency", c->implied == SIM_I_BASE);
	}
}

static void
put_targets(SimBuf *b, SimPick *p, const SimColumn *c)
{
	if (!sim_pick(b, p, "Targets"))
		return;
	sim_buf_char(b, '[');
	if (c->type == SIM_T_OWNER && c->n_targets == 0)
		sim_buf_puts(b, "\"systemuser\",\"team\"");
	for (int i = 0; i < c->n_targets; i++)
		sim_buf_printf(b, "%s\"%s\"", i > 0 ? "," : "", c->targets[i].table_name);
	sim_buf_char(b, ']');
}

static void
put_typed_members(SimBuf *b, SimPick *p, const SimColumn *c)
{
	static const char *const behaviours[] = {"DateOnly", "UserLocal", "TimeZoneIndependent"};

	switch (c->type)
	{
		case SIM_T_STRING:
		case SIM_T_MEMO:
			put_text_members(b, p, c);
			break;
		case SIM_T_INTEGER:
		case SIM_T_BIGINT:
		case SIM_T_DECIMAL:
		case SIM_T_DOUBLE:
		case SIM_T_MONEY:
			put_number_members(b, p, c);
			break;
		case SIM_T_DATE:
			pick_value(b, p, "DateTimeBehavior", behaviours[c->date_kind]);
			sim_pick_text(b, p, "Format", c->date_kind == SIM_DATE_ONLY ? "DateOnly" : "DateAndTime");
			break;
		case SIM_T_IMAGE:
			sim_pick_bool(b, p, "CanStoreFullImage", c->full_image);
			/* FALLTHROUGH */
		case SIM_T_FILE:
			sim_pick_raw(b, p, "MaxSizeInKB", sim_arena_printf(p->arena, "%ld", c->max_length));
			break;
		case SIM_T_LOOKUP:
		case SIM_T_CUSTOMER:
		case SIM_T_OWNER:
		case SIM_T_PARTY:
			put_targets(b, p, c);
			break;
		default:
			break;
	}
}

static void
put_attribute(SimBuf *b, const SimPick *shape, const SimTable *t, const SimColumn *c, bool typed, const char *context)
{
	SimPick		p = *shape;
	char		id[SIM_GUID_LEN + 1];

	sim_buf_char(b, '{');
	if (context != NULL)
		sim_buf_printf(b, "\"@odata.context\":\"%s\"", context);
	if (!typed)
		sim_buf_printf(b, "%s\"@odata.type\":\"#" PREFIX "%sAttributeMetadata\"", context != NULL ? "," : "", types[c->type].class);
	sim_pick_text(b, &p, "LogicalName", c->name);
	sim_pick_text(b, &p, "SchemaName", c->name);
	sim_pick_text(b, &p, "EntityLogicalName", t->name);
	sim_pick_text(b, &p, "AttributeType", types[c->type].type);
	pick_value(b, &p, "AttributeTypeName", types[c->type].type_name);
	sim_pick_bool(b, &p, "IsPrimaryId", c->implied == SIM_I_ID);
	sim_pick_bool(b, &p, "IsPrimaryName", t->primary_name != NULL && strcmp(t->primary_name, c->name) == 0);
	sim_pick_bool(b, &p, "IsValidForCreate", !c->no_create);
	sim_pick_bool(b, &p, "IsValidForUpdate", !c->no_update && c->implied != SIM_I_ID);
	sim_pick_bool(b, &p, "IsValidForRead", true);
	sim_pick_bool(b, &p, "IsValidODataAttribute", true);
	sim_pick_bool(b, &p, "IsCustomAttribute", strncmp(c->name, "new_", 4) == 0);
	sim_pick_bool(b, &p, "IsLogical", false);
	sim_pick_raw(b, &p, "SourceType", sim_arena_printf(p.arena, "%d", c->source));
	sim_pick_text(b, &p, "AttributeOf", NULL);
	if (sim_pick(b, &p, "RequiredLevel"))
		sim_buf_printf(b, "{\"Value\":\"%s\",\"CanBeChanged\":true,\"ManagedPropertyLogicalName\":\"canmodifyrequirementlevelsettings\"}",
					   c->system_required ? "SystemRequired" : c->required ? "ApplicationRequired" : "None");
	if (sim_pick(b, &p, "DisplayName"))
		sim_put_label(b, c->name);
	/* Selecting what only some types have needs a cast. */
	if (typed || p.select == NULL)
		put_typed_members(b, &p, c);
	sim_guid_format(sim_metadata_id(t->name, c->name), id);
	sim_pick_always(b, &p, "MetadataId", id);
	sim_pick_check(&p, "AttributeMetadata");
	put_expand(b, &p, t, c);
	sim_buf_char(b, '}');
}

void
sim_put_attributes(SimBuf *b, SimPick *p, const SimTable *t, const SimSegment *cast, const char *filter)
{
	for (int i = 0; i < t->n_columns; i++)
	{
		if (t->columns[i].gone || !fits_cast(&t->columns[i], cast) || !fits_filter(&t->columns[i], filter))
			continue;
		if (b->data[b->len - 1] != '[')
			sim_buf_char(b, ',');
		put_attribute(b, p, t, &t->columns[i], cast != NULL, NULL);
	}
}

bool
sim_put_one_attribute(SimBuf *b, SimReq *r, SimPick *p, const SimTable *t, SimStr key, const SimSegment *cast, SimErr *e)
{
	const SimColumn *c = NULL;

	if (key.len > 14 && memcmp(key.s, "LogicalName='", 13) == 0)
		c = sim_table_column(t, key.s + 13, key.len - 14);
	if (c == NULL || c->gone || !fits_cast(c, cast))
		return sim_fail(e, 404, SIM_E_NOT_FOUND, "Could not find an attribute with the specified name: %.*s.",
						(int) (key.len > 100 ? 100 : key.len), key.s);
	put_attribute(b, p, t, c, cast != NULL,
				  sim_arena_printf(r->arena, "%s/api/data/v9.2/$metadata#EntityDefinitions('%s')/Attributes/$entity", r->origin, t->name));
	return e->status == 0;
}

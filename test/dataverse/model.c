/*
 * model.c - the set of tables: implied columns, names, and how they connect
 */
#include "metadata.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

SimModel	sim_model;

static SimStorage
storage_of(SimType type)
{
	switch (type)
	{
		case SIM_T_STRING:
		case SIM_T_MEMO:
		case SIM_T_DECIMAL:
		case SIM_T_MONEY:
		case SIM_T_CHOICES:
		case SIM_T_IMAGE:
		case SIM_T_FILE:
		case SIM_T_PARTY:
			return SIM_ST_TEXT;
		case SIM_T_DOUBLE:
			return SIM_ST_DOUBLE;
		case SIM_T_GUID:
		case SIM_T_LOOKUP:
		case SIM_T_CUSTOMER:
		case SIM_T_OWNER:
			return SIM_ST_GUID;
		default:
			return SIM_ST_INT;
	}
}

/* The widest range a type allows, for columns that do not narrow it. */
static void
default_range(SimColumn *c)
{
	c->max_length = c->type == SIM_T_STRING ? 100 : c->type == SIM_T_MEMO ? 2000 : 10240;
	c->precision = c->type == SIM_T_DOUBLE ? 5 : 2;
	c->max = 2147483647.0;
	c->min = -2147483648.0;
	if (c->type == SIM_T_BIGINT)
	{
		c->max = 9223372036854775807.0;
		c->min = -c->max;
	}
	else if (c->type == SIM_T_MONEY)
	{
		c->max = 922337203685477.0;
		c->min = -c->max;
	}
	else if (c->type == SIM_T_DECIMAL || c->type == SIM_T_DOUBLE)
	{
		c->max = 100000000000.0;
		c->min = -c->max;
	}
}

SimColumn *
sim_table_add_column(SimTable *t, const char *name, SimType type)
{
	SimColumn  *c;

	if (t->n_columns == t->cap_columns)
	{
		t->cap_columns = t->cap_columns ? t->cap_columns * 2 : 64;
		t->columns = sim_realloc(t->columns, sizeof *t->columns * (size_t) t->cap_columns);
	}
	c = memset(&t->columns[t->n_columns], 0, sizeof *c);
	c->index = (uint16_t) t->n_columns++;
	c->name = sim_strdup(name);
	c->type = type;
	c->storage = storage_of(type);
	c->date_kind = SIM_DATE_USER_LOCAL;
	default_range(c);
	return c;
}

SimColumn *
sim_table_column(const SimTable *t, const char *name, size_t len)
{
	for (int i = 0; i < t->n_columns; i++)
		if (strlen(t->columns[i].name) == len && memcmp(t->columns[i].name, name, len) == 0)
			return &t->columns[i];
	return NULL;
}

void
sim_model_add_relation(SimManyToMany *r)
{
	for (int i = 0; i < sim_model.n_relations; i++)
		if (strcmp(sim_model.relations[i]->name, r->name) == 0)
			return;				/* declared by the table of the other side too */
	sim_model.relations = sim_realloc(sim_model.relations, sizeof(void *) * (size_t) (sim_model.n_relations + 1));
	sim_model.relations[sim_model.n_relations++] = r;
}

void
sim_model_add_table(SimTable *t)
{
	t->number = (uint16_t) sim_model.n_tables;
	sim_model.tables = sim_realloc(sim_model.tables, sizeof(void *) * (size_t) (sim_model.n_tables + 1));
	sim_model.tables[sim_model.n_tables++] = t;
}

SimTable *
sim_table_by_name(const char *name, size_t len)
{
	for (int i = 0; i < sim_model.n_tables; i++)
		if (strlen(sim_model.tables[i]->name) == len && memcmp(sim_model.tables[i]->name, name, len) == 0)
			return sim_model.tables[i];
	return NULL;
}

SimTable *
sim_table_by_set(const char *name, size_t len)
{
	for (int i = 0; i < sim_model.n_tables; i++)
		if (strlen(sim_model.tables[i]->set) == len && memcmp(sim_model.tables[i]->set, name, len) == 0)
			return sim_model.tables[i];
	return NULL;
}

/* Add a system column unless the file declares it, and mark what it is. */
static SimColumn *
imply(SimTable *t, const char *name, SimType type, SimImplied implied)
{
	SimColumn  *c = sim_table_column(t, name, strlen(name));

	if (c == NULL)
	{
		c = sim_table_add_column(t, name, type);
		if (implied != SIM_I_OWNER && implied != SIM_I_OVERRIDDEN)
			c->no_create = c->no_update = true;
	}
	c->implied = implied;
	return c;
}

/* Activities inherit these lookups, so their own names carry the table's. */
static char *
suffixed(const SimTable *t, const char *name)
{
	char	   *out = sim_alloc(strlen(name) + strlen(t->name) + 2);

	if (t->activity)
		sprintf(out, "%s_%s", name, t->name);
	else
		strcpy(out, name);
	return out;
}

static void
imply_lookup(SimTable *t, const char *name, const char *target, SimImplied implied)
{
	SimColumn  *c = imply(t, name, SIM_T_LOOKUP, implied);

	if (c->n_targets == 0)
	{
		c->targets = sim_zalloc(sizeof *c->targets);
		c->targets[0].table_name = sim_strdup(target);
		c->targets[0].nav = suffixed(t, name);
		c->n_targets = 1;
	}
}

static void
imply_owner(SimTable *t)
{
	SimColumn  *c = sim_table_column(t, "ownerid", 7);

	if (c == NULL)
		c = sim_table_add_column(t, "ownerid", SIM_T_OWNER);
	c->implied = SIM_I_OWNER;
	c->system_required = true;
	imply_lookup(t, "owninguser", "systemuser", SIM_I_OWNINGUSER);
	imply_lookup(t, "owningteam", "team", SIM_I_OWNINGTEAM);
	imply_lookup(t, "owningbusinessunit", "businessunit", SIM_I_OWNINGUNIT);
}

static void
imply_money(SimTable *t)
{
	bool		any = false;
	int			n = t->n_columns;

	for (int i = 0; i < n; i++)
	{
		char	   *name;
		SimColumn  *c;

		if (t->columns[i].type != SIM_T_MONEY || t->columns[i].implied == SIM_I_BASE)
			continue;
		any = true;
		name = sim_alloc(strlen(t->columns[i].name) + 6);
		sprintf(name, "%s_base", t->columns[i].name);
		c = imply(t, name, SIM_T_MONEY, SIM_I_BASE);
		c->base_of = (uint16_t) i;
		c->precision = 4;
		free(name);
	}
	if (any)
	{
		imply(t, "exchangerate", SIM_T_DECIMAL, SIM_I_EXCHANGERATE)->precision = 10;
		if (sim_table_column(t, "transactioncurrencyid", 21) == NULL)
			imply_lookup(t, "transactioncurrencyid", "transactioncurrency", SIM_I_NONE);
	}
	t->currency_column = sim_table_column(t, "transactioncurrencyid", 21);
	if (t->currency_column != NULL && strcmp(t->name, "transactioncurrency") == 0)
		t->currency_column = NULL;
}

/* The name of an uploaded file stands beside its id; an image has an id of its own while there is one. */
static void
imply_files(SimTable *t)
{
	int			n = t->n_columns;

	for (int i = 0; i < n; i++)
	{
		bool		image = t->columns[i].type == SIM_T_IMAGE;
		char	   *name;

		if (!image && t->columns[i].type != SIM_T_FILE)
			continue;
		name = sim_alloc(strlen(t->columns[i].name) + 6);
		sprintf(name, "%s%s", t->columns[i].name, image ? "id" : "_name");
		imply(t, name, image ? SIM_T_GUID : SIM_T_STRING, image ? SIM_I_IMAGEID : SIM_I_NONE)->base_of = (uint16_t) i;
		free(name);
	}
}

static void
imply_columns(SimTable *t)
{
	SimColumn  *c = imply(t, t->id_name, SIM_T_GUID, SIM_I_ID);

	/* One may choose the id, and repeat it on update; it never changes. */
	c->no_create = c->no_update = false;
	c->system_required = true;
	imply(t, "createdon", SIM_T_DATE, SIM_I_CREATEDON);
	imply(t, "modifiedon", SIM_T_DATE, SIM_I_MODIFIEDON);
	imply_lookup(t, "createdby", "systemuser", SIM_I_CREATEDBY);
	imply_lookup(t, "modifiedby", "systemuser", SIM_I_MODIFIEDBY);
	imply_lookup(t, "createdonbehalfby", "systemuser", SIM_I_CREATEDBEHALF);
	imply(t, "overriddencreatedon", SIM_T_DATE, SIM_I_OVERRIDDEN)->no_update = true;
	imply(t, "versionnumber", SIM_T_BIGINT, SIM_I_VERSION);
	if (sim_table_column(t, "importsequencenumber", 20) == NULL)
		sim_table_add_column(t, "importsequencenumber", SIM_T_INTEGER);
	if (t->ownership == SIM_OWN_USER)
		imply_owner(t);
	imply_money(t);
	imply_files(t);
}

/* Pointers into the column array are taken only when it no longer grows. */
static void
find_special(SimTable *t)
{
	for (int i = 0; i < t->n_columns; i++)
	{
		SimColumn  *c = &t->columns[i];

		if (c->implied == SIM_I_ID)
			t->id_column = c;
		if (c->implied == SIM_I_OWNER)
			t->owner_column = c;
		if (c->type == SIM_T_STATE)
			t->state_column = c;
		if (c->type == SIM_T_STATUS)
			t->status_column = c;
		if (c->system_required && c->listed && !c->no_create && c->implied == SIM_I_NONE &&
			(c->type == SIM_T_STRING || c->type == SIM_T_MEMO || c->type == SIM_T_LOOKUP || c->type == SIM_T_CUSTOMER))
			t->n_system_required++;
	}
	t->full_name = sim_table_column(t, "fullname", 8);
	t->first_name = sim_table_column(t, "firstname", 9);
	t->last_name = sim_table_column(t, "lastname", 8);
	if (t->first_name == NULL || t->last_name == NULL)
		t->full_name = NULL;
	t->currency_column = t->currency_column != NULL ? sim_table_column(t, "transactioncurrencyid", 21) : NULL;
}

static void
connect_targets(SimTable *t)
{
	for (int i = 0; i < t->n_columns; i++)
		for (int k = 0; k < t->columns[i].n_targets; k++)
		{
			SimTarget  *g = &t->columns[i].targets[k];

			g->table = sim_table_by_name(g->table_name, strlen(g->table_name));
		}
}

static void
add_name(SimNames *names, SimProp p)
{
	p.len = strlen(p.name);
	for (size_t i = 0; i < names->n; i++)
		if (names->items[i].len == p.len && memcmp(names->items[i].name, p.name, p.len) == 0)
			return;				/* the first meaning of a name stays */
	if (names->n == names->cap)
	{
		names->cap = names->cap ? names->cap * 2 : 128;
		names->items = sim_realloc(names->items, sizeof *names->items * names->cap);
	}
	names->items[names->n++] = p;
}

static void
hash_names(SimNames *names)
{
	size_t		size = 64;

	while (size < names->n * 4)
		size *= 2;
	names->slots = sim_zalloc(sizeof *names->slots * size);
	names->mask = size - 1;
	for (size_t i = 0; i < names->n; i++)
	{
		size_t		at = sim_hash(names->items[i].name, names->items[i].len) & names->mask;

		while (names->slots[at] != 0)
			at = (at + 1) & names->mask;
		names->slots[at] = (uint32_t) i + 1;
	}
}

const SimProp *
sim_table_prop(const SimTable *t, const char *name, size_t len)
{
	const SimNames *names = &t->names;
	size_t		at = sim_hash(name, len) & names->mask;

	while (names->slots[at] != 0)
	{
		const SimProp *p = &names->items[names->slots[at] - 1];

		if (p->len == len && memcmp(p->name, name, len) == 0)
			return p->column != NULL && p->column->gone ? NULL : p;
		at = (at + 1) & names->mask;
	}
	return NULL;
}

static bool
is_lookup(const SimColumn *c)
{
	return c->type == SIM_T_LOOKUP || c->type == SIM_T_CUSTOMER || c->type == SIM_T_OWNER;
}

/* Single-valued navigation properties win over plain names: they coincide. */
static void
name_columns(SimTable *t)
{
	for (int i = 0; i < t->n_columns; i++)
	{
		SimColumn  *c = &t->columns[i];
		char	   *value;

		if (!is_lookup(c))
		{
			add_name(&t->names, (SimProp) {.name = c->name, .kind = SIM_P_COLUMN, .column = c});
			continue;
		}
		for (int k = 0; k < c->n_targets; k++)
			add_name(&t->names, (SimProp) {.name = c->targets[k].nav, .kind = SIM_P_NAV, .column = c, .target = k});
		if (t->activity && !c->listed && c->n_targets == 1)
			add_name(&t->names, (SimProp) {.name = c->name, .kind = SIM_P_NAV, .column = c});
		if (t->activity && c->type == SIM_T_OWNER)
			add_name(&t->names, (SimProp) {.name = suffixed(t, c->name), .kind = SIM_P_NAV, .column = c, .target = -1});
		if (c->type == SIM_T_OWNER)
			add_name(&t->names, (SimProp) {.name = c->name, .kind = SIM_P_NAV, .column = c, .target = -1});
		value = sim_alloc(strlen(c->name) + 8);
		sprintf(value, "_%s_value", c->name);
		add_name(&t->names, (SimProp) {.name = value, .kind = SIM_P_VALUE, .column = c});
	}
}

/* Collections of the tables that point at t. */
static void
name_collections(SimTable *t)
{
	for (int k = 0; k < sim_model.n_tables; k++)
		for (int i = 0; i < sim_model.tables[k]->n_columns; i++)
		{
			SimColumn  *c = &sim_model.tables[k]->columns[i];

			for (int g = 0; g < c->n_targets; g++)
				if (c->targets[g].table == t && c->targets[g].collection != NULL)
					add_name(&t->names, (SimProp) {.name = c->targets[g].collection, .kind = SIM_P_COLLECTION,
							 .column = c, .target = g, .other = sim_model.tables[k]});
		}
	for (int i = 0; i < sim_model.n_relations; i++)
		for (int s = 0; s < 2; s++)
			if (sim_model.relations[i]->side[s] == t)
				add_name(&t->names, (SimProp) {.name = sim_model.relations[i]->nav[s], .kind = SIM_P_LINK,
						 .relation = sim_model.relations[i], .side = s});
}

/* Activities have their parties as <activity>_activity_parties. */
static void
name_parties(SimTable *t)
{
	SimTable   *party = sim_table_by_name("activityparty", 13);
	SimColumn  *c = party != NULL ? sim_table_column(party, "activityid", 10) : NULL;
	char	   *name;

	if (!t->activity || c == NULL)
		return;
	for (int g = 0; g < c->n_targets; g++)
		if (c->targets[g].table == t)
		{
			name = sim_alloc(strlen(t->name) + 20);
			sprintf(name, "%s_activity_parties", t->name);
			add_name(&t->names, (SimProp) {.name = name, .kind = SIM_P_COLLECTION, .column = c, .target = g, .other = party});
		}
}

static bool
has_target(const SimColumn *c, const char *name)
{
	for (int i = 0; i < c->n_targets; i++)
		if (strcmp(c->targets[i].table_name, name) == 0)
			return true;
	return false;
}

/* Every activity table is a target of activityparty.activityid. */
static void
connect_parties(void)
{
	SimTable   *party = sim_table_by_name("activityparty", 13);
	SimColumn  *c = party != NULL ? sim_table_column(party, "activityid", 10) : NULL;

	for (int i = 0; c != NULL && i < sim_model.n_tables; i++)
	{
		SimTable   *t = sim_model.tables[i];
		SimTarget  *g;
		char	   *nav;

		if (!t->activity || has_target(c, t->name))
			continue;
		c->targets = sim_realloc(c->targets, sizeof *c->targets * (size_t) (c->n_targets + 1));
		g = &c->targets[c->n_targets++];
		nav = sim_alloc(strlen(t->name) + 32);
		sprintf(nav, "activityid_%s_activityparty", t->name);
		*g = (SimTarget) {.table_name = t->name, .nav = nav, .table = t};
	}
}

static char *
read_file(const char *path)
{
	FILE	   *f = fopen(path, "rb");
	SimBuf		b = {0};
	char		part[65536];
	size_t		n;

	if (f == NULL)
		sim_die("cannot read %s", path);
	while ((n = fread(part, 1, sizeof part, f)) > 0)
		sim_buf_add(&b, part, n);
	fclose(f);
	sim_buf_char(&b, '\n');
	return b.data;
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* Sorted, so that two starts number the tables alike. */
static void
read_directory(const char *dir)
{
	DIR		   *d = opendir(dir);
	struct dirent *e;
	char	  **paths = NULL;
	size_t		n = 0;

	if (d == NULL)
		sim_die("cannot open the metadata directory %s", dir);
	while ((e = readdir(d)) != NULL)
	{
		size_t		len = strlen(e->d_name);

		if (len < 7 || strcmp(e->d_name + len - 6, ".table") != 0)
			continue;
		paths = sim_realloc(paths, sizeof *paths * (n + 1));
		paths[n] = sim_alloc(strlen(dir) + len + 2);
		sprintf(paths[n++], "%s/%s", dir, e->d_name);
	}
	closedir(d);
	if (n > 0)
		qsort(paths, n, sizeof *paths, by_name);
	for (size_t i = 0; i < n; i++)
	{
		char	   *text = read_file(paths[i]);
		SimTable   *t = sim_tablefile_read(text, paths[i]);

		if (t != NULL && sim_table_by_name(t->name, strlen(t->name)) != NULL)
			sim_die("%s: table \"%s\" is declared twice", paths[i], t->name);
		if (t != NULL)
			sim_model_add_table(t);
		free(text);
		free(paths[i]);
	}
	free(paths);
}

static void
add_builtin(void)
{
	for (int i = 0; sim_builtin_tables[i] != NULL; i++)
	{
		SimTable   *t = sim_tablefile_read(sim_builtin_tables[i], "built-in table");

		if (sim_table_by_name(t->name, strlen(t->name)) == NULL)
			sim_model_add_table(t);
	}
}

void
sim_metadata_load(const char *dir)
{
	read_directory(dir);
	add_builtin();
	for (int i = 0; i < sim_model.n_tables; i++)
	{
		SimTable   *t = sim_model.tables[i];

		imply_columns(t);
		find_special(t);
	}
	for (int i = 0; i < sim_model.n_tables; i++)
		connect_targets(sim_model.tables[i]);
	connect_parties();
	sim_model.users = sim_table_by_name("systemuser", 10);
	sim_model.teams = sim_table_by_name("team", 4);
	sim_model.units = sim_table_by_name("businessunit", 12);
	sim_model.currencies = sim_table_by_name("transactioncurrency", 19);
	sim_model.organizations = sim_table_by_name("organization", 12);
	for (int i = 0; i < sim_model.n_relations; i++)
		for (int s = 0; s < 2; s++)
			sim_model.relations[i]->side[s] = sim_table_by_name(sim_model.relations[i]->side_name[s],
																strlen(sim_model.relations[i]->side_name[s]));
	for (int i = 0; i < sim_model.n_tables; i++)
	{
		name_columns(sim_model.tables[i]);
		name_collections(sim_model.tables[i]);
		name_parties(sim_model.tables[i]);
		hash_names(&sim_model.tables[i]->names);
	}
}

int
sim_table_default_state(const SimTable *t)
{
	return t->state_column != NULL && t->state_column->n_options > 0 ? t->state_column->options[0].value : 0;
}

int
sim_table_default_status(const SimTable *t, int state)
{
	const SimColumn *c = t->status_column;

	for (int i = 0; c != NULL && i < c->n_options; i++)
		if (c->options[i].state == state)
			return c->options[i].value;
	return -1;
}

bool
sim_table_status_state(const SimTable *t, int status, int *state)
{
	const SimOption *o = t->status_column != NULL ? sim_column_option(t->status_column, status) : NULL;

	if (o != NULL)
		*state = o->state;
	return o != NULL;
}

const SimOption *
sim_column_option(const SimColumn *c, int64_t value)
{
	for (int i = 0; i < c->n_options; i++)
		if (c->options[i].value == value)
			return &c->options[i];
	return NULL;
}

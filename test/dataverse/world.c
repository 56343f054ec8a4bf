/*
 * world.c - the organisation, its users, teams and currencies at the start
 *
 * Ids are fixed or counted, so that two runs begin alike.
 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apply.h"

SimWorld	sim_world;

/* Client ids whose application users survive a reset. */
static struct
{
	SimGuid		client;
	SimGuid		user;
}			apps[64];
static int	n_apps;

typedef struct Maker
{
	SimTxn	   *x;
	SimTable   *t;
	SimVal		vals[16];
	int			n;
} Maker;

static void
text(Maker *m, const char *column, const char *value)
{
	SimColumn  *c = sim_table_column(m->t, column, strlen(column));

	if (c == NULL || c->storage != SIM_ST_TEXT)
		return;
	m->vals[m->n++] = (SimVal) {.column = c->index, .len = (uint32_t) strlen(value), .v.s = value};
}

static void
integer(Maker *m, const char *column, int64_t value)
{
	SimColumn  *c = sim_table_column(m->t, column, strlen(column));

	if (c == NULL || c->storage != SIM_ST_INT)
		return;
	m->vals[m->n++] = (SimVal) {.column = c->index, .v.i = value};
}

static void
guid(Maker *m, const char *column, SimGuid value, const SimTable *target)
{
	SimColumn  *c = sim_table_column(m->t, column, strlen(column));

	if (c == NULL || c->storage != SIM_ST_GUID)
		return;
	m->vals[m->n++] = (SimVal) {.column = c->index, .target = target != NULL ? target->number : 0, .v.g = value};
}

static void
make(Maker *m, SimGuid id)
{
	SimRow	   *row;
	SimErr		e = {0};

	if (m->t->state_column != NULL)
		integer(m, m->t->state_column->name, sim_table_default_state(m->t));
	if (m->t->status_column != NULL)
		integer(m, m->t->status_column->name, sim_table_default_status(m->t, sim_table_default_state(m->t)));
	row = sim_row_build(m->t, NULL, m->vals, m->n);
	row->version = sim_store_next_version();
	row->created_on = row->modified_on = sim_now_us() / 1000000;
	row->overridden_on = SIM_NO_TIME;
	row->created_by = row->modified_by = row->owner = sim_principal_number(sim_world.system_user);
	if (!sim_txn_put(m->x, m->t, id, row, true, &e))
		sim_die("cannot make a %s: %s", m->t->name, e.message);
	m->n = 0;
}

/* Twelve hexadecimal digits at the end count; the head names the kind. */
static SimGuid
counted(uint64_t head, uint64_t n)
{
	return (SimGuid) {head << 32 | 0x4000u, (uint64_t) 1 << 63 | n};
}

static void
make_user(Maker *m, SimGuid id, const char *name, const char *mail, const char *domain)
{
	char		first[64];
	const char *space = strchr(name, ' ');

	m->t = sim_model.users;
	text(m, "fullname", name);
	if (space != NULL)
	{
		snprintf(first, sizeof first, "%.*s", (int) (space - name), name);
		text(m, "firstname", first);
		text(m, "lastname", space + 1);
	}
	text(m, "internalemailaddress", mail);
	text(m, "domainname", domain);
	integer(m, "isdisabled", 0);
	integer(m, "accessmode", 0);
	guid(m, "businessunitid", sim_world.root_unit, sim_model.units);
	guid(m, "azureactivedirectoryobjectid", counted(0x0b0b0b00 + (id.hi >> 32 & 0xff), id.lo & 0xffffffff), NULL);
	make(m, id);
}

static void
make_app(SimTxn *x, SimGuid client, SimGuid user)
{
	Maker		m = {.x = x, .t = sim_model.users};
	char		name[64] = "# dvsim application ";
	char		mail[100];

	sim_guid_format(client, name + strlen(name));
	snprintf(mail, sizeof mail, "app-%.8s@example.org", name + 20);
	guid(&m, "applicationid", client, NULL);
	make_user(&m, user, name, mail, mail);
}

static void
make_users(SimTxn *x)
{
	static const char *const first[] = {"Anna", "Bruno", "Chlo\xc3\xa9", "Dmitri", "Elif", "Ren\xc3\xa9", "Greta", "Hugo", "Ines",
	"J\xc3\xb6rg"};
	static const char *const last[] = {"Almeida", "Berger", "Costa", "Dubois", "Eriksson", "Fischer", "Mu\xc3\xb1oz", "Horv\xc3\xa1th",
	"Ivanova", "Jansen"};
	Maker		m = {.x = x};

	for (int i = 0; i < sim_world.n_users; i++)
	{
		char		name[64],
					mail[80];

		snprintf(name, sizeof name, "%s %s", first[i % 10], last[i / 10 % 10]);
		snprintf(mail, sizeof mail, "user%d@example.org", i + 1);
		make_user(&m, counted(0x00000005, (uint64_t) i + 1), name, mail, mail);
	}
}

static void
make_base(SimTxn *x)
{
	Maker		m = {.x = x};

	m.t = sim_model.units;
	text(&m, "name", "dvsim");
	integer(&m, "isdisabled", 0);
	make(&m, sim_world.root_unit);
	make_user(&m, sim_world.system_user, "SYSTEM", "", "SYSTEM");
	m.t = sim_model.teams;
	text(&m, "name", "dvsim");
	integer(&m, "isdefault", 1);
	integer(&m, "teamtype", 0);
	guid(&m, "businessunitid", sim_world.root_unit, sim_model.units);
	make(&m, sim_world.default_team);
	m.t = sim_model.currencies;
	text(&m, "currencyname", "Euro");
	text(&m, "isocurrencycode", "EUR");
	text(&m, "currencysymbol", "\xe2\x82\xac");
	integer(&m, "currencyprecision", 2);
	text(&m, "exchangerate", "1.0000000000");
	make(&m, sim_world.base_currency);
	text(&m, "currencyname", "US Dollar");
	text(&m, "isocurrencycode", "USD");
	text(&m, "currencysymbol", "$");
	integer(&m, "currencyprecision", 2);
	text(&m, "exchangerate", "1.1000000000");
	make(&m, counted(0x00000004, 2));
	m.t = sim_model.organizations;
	text(&m, "name", sim_world.organization_name ? sim_world.organization_name : "dvsim");
	integer(&m, "maxuploadfilesize", 131072000);
	guid(&m, "basecurrencyid", sim_world.base_currency, sim_model.currencies);
	make(&m, sim_world.organization);
}

/* One line of a seed file: {"table":"account","record":{...}} */
static bool
seed_line(SimReq *r, SimTxn *x, char *line, size_t len, SimErr *e)
{
	SimJson		j;
	SimScalar	name,
				value;
	SimTable   *t = NULL;
	bool		first = true;

	sim_json_begin(&j, line, len);
	if (!sim_json_enter(&j, '{'))
		return sim_rec_syntax(&j, e);
	while (sim_json_next_member(&j, &first, &name))
	{
		SimRec		rec;
		SimGuid		id;

		if (sim_str_is(name.text, "table") && sim_json_string(&j, &value))
			t = sim_table_by_name(value.text.s, value.text.len);
		else if (!sim_str_is(name.text, "record") || t == NULL)
			return sim_fail(e, 400, "", "a line needs a known \"table\" and then its \"record\"");
		else if (!sim_rec_read(r, &j, t, &rec, e))
			return false;
		else
		{
			rec.not_on_create = NULL;
			if (!sim_apply_create(r, x, &rec, false, &id, e))
				return false;
		}
	}
	return j.error == NULL || sim_rec_syntax(&j, e);
}

static void
seed(SimTxn *x)
{
	FILE	   *f = fopen(sim_world.seed_file, "r");
	char	   *line = NULL;
	size_t		cap = 0;
	ssize_t		n;
	int			number = 0;

	if (f == NULL)
		sim_die("cannot read %s", sim_world.seed_file);
	while ((n = getline(&line, &cap, f)) >= 0)
	{
		SimArena	arena = {0};
		SimReq		r = {.arena = &arena, .user = sim_world.system_user, .caller = sim_world.system_user};
		SimErr		e = {0};

		number++;
		if (n > 1 && line[0] != '#' && !seed_line(&r, x, line, (size_t) n, &e))
			sim_die("%s, line %d: %s", sim_world.seed_file, number, e.message);
		sim_arena_free(&arena);
	}
	free(line);
	fclose(f);
}

void
sim_world_app_user(SimGuid client, SimGuid user)
{
	for (int i = 0; i < n_apps; i++)
		if (memcmp(&apps[i].client, &client, sizeof client) == 0)
			return;				/* another secret of the same application */
	if (n_apps == (int) (sizeof apps / sizeof apps[0]))
		sim_die("too many clients");
	apps[n_apps].client = client;
	apps[n_apps++].user = user;
}

void
sim_world_make(void)
{
	SimTxn		x;

	sim_world.root_unit = counted(0x00000002, 1);
	sim_world.default_team = counted(0x00000003, 1);
	sim_world.base_currency = counted(0x00000004, 1);
	sim_world.system_user = counted(0x00000006, 1);
	sim_txn_begin(&x, true);
	make_base(&x);
	for (int i = 0; i < n_apps; i++)
		make_app(&x, apps[i].client, apps[i].user);
	make_users(&x);
	if (sim_world.seed_file != NULL)
		seed(&x);
	sim_txn_commit(&x);
}

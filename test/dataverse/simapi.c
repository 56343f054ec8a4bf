/*
 * simapi.c - /_sim/...: what tests ask and order the simulator
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apply.h"
#include "auth.h"
#include "faults.h"
#include "limits.h"
#include "output.h"
#include "serve.h"
#include "stats.h"
#include "switches.h"
#include "world.h"

/* Begin of the word behind a prefix of the path, or NULL. */
static const char *
behind(const SimReq *r, const char *prefix)
{
	size_t		n = strlen(prefix);

	return strncmp(r->uri, prefix, n) == 0 ? r->uri + n : NULL;
}

static bool
is(const SimReq *r, const char *method, const char *path)
{
	return strcmp(r->method, method) == 0 && strncmp(r->uri, path, strlen(path)) == 0;
}

static SimTable *
table_at(const char *p, size_t *len, SimErr *e)
{
	SimTable   *t;

	*len = strcspn(p, "/?");
	t = sim_table_by_set(p, *len);
	if (t == NULL)
		sim_fail(e, 404, "", "no entity set \"%.*s\"", (int) *len, p);
	return t;
}

static void
export_set(SimReq *r, const char *p, SimResp *resp)
{
	size_t		len;
	SimTable   *t = table_at(p, &len, &resp->err);
	bool		lines = strstr(p, "lines=1") != NULL;
	SimOutput	o = {.table = t};
	SimBuf	   *b = &resp->body;
	SimTxn		x;
	bool		first = true;

	(void) r;
	if (t == NULL)
		return;
	sim_txn_begin(&x, false);
	if (!lines)
		sim_buf_char(b, '[');
	for (uint32_t i = 0; i < t->store->n; i++)
	{
		const SimSlot *s = sim_store_slot(t, i);

		if (s->row == NULL)
			continue;
		if (!first)
			sim_buf_puts(b, lines ? "\n" : ",\n");
		first = false;
		sim_output_record(b, &o, s, NULL);
	}
	sim_buf_puts(b, lines ? "\n" : "]\n");
	sim_txn_commit(&x);
	resp->status = 200;
}

/* How often create and update logic ran, summed over a table's records. */
static void
counters(const char *p, SimResp *resp)
{
	size_t		len;
	SimTable   *t = table_at(p, &len, &resp->err);
	uint64_t	creates = 0,
				updates = 0,
				twice = 0;
	SimTxn		x;

	if (t == NULL)
		return;
	sim_txn_begin(&x, false);
	for (uint32_t i = 0; i < t->store->n; i++)
	{
		const SimSlot *s = sim_store_slot(t, i);

		creates += s->creates;
		updates += s->updates;
		twice += s->creates > 1;
	}
	sim_buf_printf(&resp->body, "{\"records\":%u,\"creates\":%llu,\"updates\":%llu,\"created_twice\":%llu}\n", t->store->live,
				   (unsigned long long) creates, (unsigned long long) updates, (unsigned long long) twice);
	sim_txn_commit(&x);
	resp->status = 200;
}

static void
one_record(const char *p, SimResp *resp)
{
	size_t		len;
	SimTable   *t = table_at(p, &len, &resp->err);
	SimOutput	o = {.table = t};
	const SimSlot *s;
	SimGuid		id;
	SimTxn		x;

	if (t == NULL)
		return;
	if (p[len] != '/' || !sim_guid_parse(p + len + 1, strcspn(p + len + 1, "?"), &id))
	{
		sim_fail(&resp->err, 400, "", "expected /_sim/record/{set}/{id}");
		return;
	}
	sim_txn_begin(&x, false);
	s = sim_store_any(t, id);
	sim_buf_printf(&resp->body, "{\"creates\":%u,\"updates\":%u,\"record\":", s != NULL ? s->creates : 0, s != NULL ? s->updates : 0);
	if (s != NULL && s->row != NULL)
		sim_output_record(&resp->body, &o, s, NULL);
	else
		sim_buf_puts(&resp->body, "null");
	sim_buf_puts(&resp->body, "}\n");
	sim_txn_commit(&x);
	resp->status = 200;
}

typedef struct PairList
{
	SimBuf	   *b;
	bool		more;
} PairList;

static void
put_pair(void *arg, SimGuid a, SimGuid b)
{
	PairList   *l = arg;

	sim_buf_puts(l->b, l->more ? ",[\"" : "[\"");
	sim_buf_guid(l->b, a);
	sim_buf_puts(l->b, "\",\"");
	sim_buf_guid(l->b, b);
	sim_buf_puts(l->b, "\"]");
	l->more = true;
}

static void
links(const char *p, SimResp *resp)
{
	size_t		len = strcspn(p, "?");
	PairList	l = {&resp->body, false};
	SimTxn		x;

	for (int i = 0; i < sim_model.n_relations; i++)
	{
		const SimManyToMany *r = sim_model.relations[i];

		if (strlen(r->name) != len || memcmp(r->name, p, len) != 0)
			continue;
		sim_txn_begin(&x, false);
		sim_buf_printf(&resp->body, "{\"sides\":[\"%s\",\"%s\"],\"pairs\":[", r->side_name[0], r->side_name[1]);
		sim_links_each(r, 0, NULL, put_pair, &l);
		sim_buf_puts(&resp->body, "]}\n");
		sim_txn_commit(&x);
		resp->status = 200;
		return;
	}
	sim_fail(&resp->err, 404, "", "no relationship \"%.*s\"", (int) len, p);
}

/* Changing how keys compare means building their indexes anew. */
static void
rebuild_keys(void)
{
	SimTxn		x;

	sim_txn_begin(&x, true);
	for (int i = 0; i < sim_model.n_tables; i++)
		for (int k = 0; k < sim_model.tables[i]->n_keys; k++)
			sim_key_rebuild(sim_model.tables[i], &sim_model.tables[i]->keys[k]);
	sim_txn_commit(&x);
}

static void
set_switches(SimReq *r, SimResp *resp)
{
	SimJson		j;
	SimScalar	name,
				value;
	bool		first = true;
	int			key_case = sim_sw.key_case,
				key_blanks = sim_sw.key_blanks;

	sim_json_begin(&j, r->body, r->len);
	if (!sim_json_enter(&j, '{'))
	{
		sim_fail(&resp->err, 400, "", "an object was expected");
		return;
	}
	while (sim_json_next_member(&j, &first, &name))
	{
		SimStr		n = name.text;
		char	   *text;

		memset(&value, 0, sizeof value);
		if (!sim_json_scalar(&j, &value))
			break;
		text = value.kind == SIM_JSON_TRUE ? sim_arena_printf(r->arena, "on") : value.kind == SIM_JSON_FALSE ?
			sim_arena_printf(r->arena, "off") : sim_arena_strndup(r->arena, value.text.s, value.text.len);
		if (sim_str_is(n, "profile") ? !sim_switches_profile(text) : !sim_switch_set(n.s, n.len, text))
		{
			sim_fail(&resp->err, 400, "", "unknown switch or value: \"%.*s\"", (int) n.len, n.s);
			return;
		}
	}
	if (j.error != NULL)
		sim_fail(&resp->err, 400, "", "%s", j.error);
	if (key_case != sim_sw.key_case || key_blanks != sim_sw.key_blanks)
		rebuild_keys();
}

/* {"table":"account","key":"new_code_key","status":"Active"} */
static void
set_key(SimReq *r, SimResp *resp)
{
	SimJson		j;
	SimScalar	name,
				v;
	SimStr		table = {"", 0},
				key = {"", 0},
				status = {"", 0};
	bool		first = true;
	SimTable   *t;
	SimTxn		x;

	sim_json_begin(&j, r->body, r->len);
	if (sim_json_enter(&j, '{'))
		while (sim_json_next_member(&j, &first, &name) && sim_json_string(&j, &v))
			*(sim_str_is(name.text, "table") ? &table : sim_str_is(name.text, "key") ? &key : &status) = v.text;
	t = sim_table_by_name(table.s, table.len);
	for (int i = 0; t != NULL && i < t->n_keys; i++)
	{
		if (!sim_str_is(key, t->keys[i].name))
			continue;
		sim_txn_begin(&x, true);
		t->keys[i].status = sim_strndup(status.s, status.len);
		sim_key_rebuild(t, &t->keys[i]);
		sim_txn_commit(&x);
		resp->status = 204;
		return;
	}
	sim_fail(&resp->err, 404, "", "no such key");
}

/* Add, rename or (without label) take out an option of a choice. */
static void
change_option(SimColumn *c, int value, SimStr label, bool drop)
{
	int			i = 0;

	while (i < c->n_options && c->options[i].value != value)
		i++;
	if (drop)
	{
		if (i < c->n_options)
			c->options[i] = c->options[--c->n_options];
		return;
	}
	if (i == c->n_options)
	{
		c->options = sim_realloc(c->options, sizeof *c->options * (size_t) (c->n_options + 1));
		memset(&c->options[c->n_options++], 0, sizeof *c->options);
	}
	c->options[i].value = value;
	c->options[i].label = sim_strndup(label.s, label.len);
}

/*
 * {"table":"account","column":"name","max_length":100,"min":0,"max":9,"readonly":true,"required":true,"gone":true,
 * "option":3,"label":"Third"}, an option without label is taken out. While nothing else is asked.
 */
static void
set_column(SimReq *r, SimResp *resp)
{
	SimJson		j;
	SimScalar	name,
				v;
	bool		first = true,
				has_option = false;
	SimTable   *t = NULL;
	SimColumn  *c = NULL;
	SimStr		label = {NULL, 0};
	double		option = 0;

	sim_json_begin(&j, r->body, r->len);
	if (sim_json_enter(&j, '{'))
		while (sim_json_next_member(&j, &first, &name) && sim_json_scalar(&j, &v))
		{
			SimStr		n = name.text;
			bool		on = v.kind == SIM_JSON_TRUE;
			double		number = v.kind == SIM_JSON_NUMBER ? strtod(sim_arena_strndup(r->arena, v.text.s, v.text.len), NULL) : 0;

			if (sim_str_is(n, "table"))
				t = sim_table_by_name(v.text.s, v.text.len);
			else if (sim_str_is(n, "column"))
				c = t != NULL ? sim_table_column(t, v.text.s, v.text.len) : NULL;
			else if (c == NULL)
				break;
			else if (sim_str_is(n, "max_length"))
				c->max_length = (long) number;
			else if (sim_str_is(n, "min"))
				c->min = number;
			else if (sim_str_is(n, "max"))
				c->max = number;
			else if (sim_str_is(n, "readonly"))
				c->no_create = c->no_update = on;
			else if (sim_str_is(n, "required"))
				c->required = on;
			else if (sim_str_is(n, "gone"))
				c->gone = on;
			else if (sim_str_is(n, "option"))
			{
				has_option = true;
				option = number;
			}
			else if (sim_str_is(n, "label"))
				label = v.text;
		}
	if (c == NULL)
	{
		sim_fail(&resp->err, 404, "", "no such column");
		return;
	}
	if (has_option)
		change_option(c, (int) option, label, label.s == NULL);
	resp->status = 204;
}

typedef struct Import
{
	SimTable   *table;
	SimGuid		id;
	bool		has_id;
	bool		remove;
	bool		has_changes;
	SimRec		rec;
} Import;

static bool
read_import(SimReq *r, Import *m, SimErr *e)
{
	SimJson		j;
	SimScalar	name,
				v;
	bool		first = true;

	sim_json_begin(&j, r->body, r->len);
	if (!sim_json_enter(&j, '{'))
		return sim_rec_syntax(&j, e);
	while (sim_json_next_member(&j, &first, &name))
	{
		SimStr		n = name.text;

		memset(&v, 0, sizeof v);
		if (sim_str_is(n, "changes"))
		{
			if (m->table == NULL)
				return sim_fail(e, 400, "", "\"set\" must come before \"changes\"");
			m->has_changes = true;
			if (!sim_rec_read(r, &j, m->table, &m->rec, e))
				return false;
			continue;
		}
		if (!sim_json_scalar(&j, &v))
			return sim_rec_syntax(&j, e);
		if (sim_str_is(n, "set"))
			m->table = sim_table_by_set(v.text.s, v.text.len);
		else if (sim_str_is(n, "id"))
			m->has_id = sim_guid_parse(v.text.s, v.text.len, &m->id);
		else if (sim_str_is(n, "as") && !sim_guid_parse(v.text.s, v.text.len, &r->user))
			return sim_fail(e, 400, "", "\"as\" must be a GUID");
		else if (sim_str_is(n, "delete"))
			m->remove = v.kind == SIM_JSON_TRUE;
	}
	if (j.error != NULL)
		return sim_rec_syntax(&j, e);
	return (m->table != NULL && (m->has_changes || m->remove)) || sim_fail(e, 400, "", "\"set\", \"id\" and \"changes\" are needed");
}

/* Change, make or delete a record as another user would. */
static void
import_record(SimReq *r, SimResp *resp)
{
	Import		m = {0};
	SimTxn		x;
	uint32_t	slot;
	bool		ok;

	r->user = r->caller = sim_world.system_user;
	if (!read_import(r, &m, &resp->err))
		return;
	m.rec.not_on_create = m.rec.not_on_update = NULL;
	sim_txn_begin(&x, true);
	slot = m.has_id ? sim_store_find(m.table, m.id) : SIM_NO_SLOT;
	if (m.remove)
	{
		ok = slot != SIM_NO_SLOT ? sim_apply_delete(&x, m.table, slot, &resp->err) :
			sim_fail_missing(&resp->err, 404, m.table->name, m.id);
	}
	else if (slot != SIM_NO_SLOT)
		ok = sim_apply_update(r, &x, &m.rec, slot, &resp->err);
	else
	{
		m.rec.has_id = m.rec.has_id || m.has_id;
		m.rec.id = m.has_id ? m.id : m.rec.id;
		ok = sim_apply_create(r, &x, &m.rec, false, &m.id, &resp->err);
	}
	if (ok)
		sim_txn_commit(&x);
	else
		sim_txn_rollback(&x);
	resp->status = 204;
}

/* As at the start; with ?keep=records only counters, faults and limits. */
static void
reset(SimReq *r, SimResp *resp)
{
	SimTxn		x;

	sim_fault_clear();
	sim_limits_reset();
	if (strstr(r->uri, "keep=records") == NULL)
	{
		sim_txn_begin(&x, true);
		sim_store_clear();
		sim_txn_commit(&x);
		sim_world_make();
	}
	sim_stats_reset();
	resp->status = 204;
}

static void
faults(SimReq *r, SimResp *resp)
{
	resp->status = 200;
	if (strcmp(r->method, "POST") == 0)
		sim_fault_add(r->body, r->len, &resp->err);
	else if (strcmp(r->method, "DELETE") == 0)
		sim_fault_clear();
	sim_fault_list(&resp->body);
}

static void
run(SimReq *r, SimResp *resp)
{
	const char *p;

	if (is(r, "GET", "/_sim/stats"))
	{
		resp->status = 200;
		sim_stats_json(&resp->body);
	}
	else if ((p = behind(r, "/_sim/export/")) != NULL)
		export_set(r, p, resp);
	else if ((p = behind(r, "/_sim/record/")) != NULL)
		one_record(p, resp);
	else if ((p = behind(r, "/_sim/counters/")) != NULL)
		counters(p, resp);
	else if ((p = behind(r, "/_sim/links/")) != NULL)
		links(p, resp);
	else if (behind(r, "/_sim/fault") != NULL)
		faults(r, resp);
	else if (behind(r, "/_sim/set") != NULL)
	{
		if (strcmp(r->method, "POST") == 0)
			set_switches(r, resp);
		resp->status = 200;
		sim_switches_json(&resp->body);
	}
	else if (is(r, "POST", "/_sim/key"))
		set_key(r, resp);
	else if (is(r, "POST", "/_sim/column"))
		set_column(r, resp);
	else if (is(r, "POST", "/_sim/import"))
		import_record(r, resp);
	else if (is(r, "POST", "/_sim/reset"))
		reset(r, resp);
	else if (is(r, "DELETE", "/_sim/tokens"))
	{
		sim_auth_revoke_all();
		resp->status = 204;
	}
	else
		sim_fail(&resp->err, 404, "", "unknown request below /_sim/");
}

void
sim_api_run(SimReq *r, SimResp *resp)
{
	run(r, resp);
	if (resp->err.status != 0)
		sim_resp_error(r, resp);
	else if (resp->status == 204)
		resp->body.len = 0;
}

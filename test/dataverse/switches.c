/*
 * switches.c - names, values and profiles of the switches
 */
#include "switches.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

SimSwitches sim_sw;

static const char *const refuse_words[] = {"refused", "accepted", "ignored", "by_table", NULL};
static const char *const off_on[] = {"off", "on", NULL};
static const char *const case_words[] = {"insensitive", "sensitive", NULL};
static const char *const connection_words[] = {"spread", "sticky", NULL};
static const char *const replay_words[] = {"0x80040237", "0x80060892", "0x80073002", NULL};
static const char *const range_words[] = {"0x8004431A", "0x80044330", NULL};
static const char *const order_words[] = {"request", "shuffled", NULL};
static const char *const reach_words[] = {"stay", "reach", NULL};
static const char *const delete_words[] = {"unlinked", "refused", NULL};
static const char *const blank_words[] = {"ignored", "significant", NULL};
static const char *const collection_words[] = {"here", "left_out", "elsewhere", NULL};
static const char *const definition_words[] = {"alone", "listed", NULL};
static const char *const parts_words[] = {"failing", "all", NULL};

/* Three columns of values: strict, lenient, odd. */
typedef struct Switch
{
	const char *name;
	size_t		offset;
	size_t		size;			/* of a text switch; 0 for numbers and words */
	const char *const *words;
	int			value[3];
} Switch;

#define NUM(n, a, b, c) {#n, offsetof(SimSwitches, n), 0, NULL, {a, b, c}}
#define WORD(n, w, a, b, c) {#n, offsetof(SimSwitches, n), 0, w, {a, b, c}}
#define TEXT(n) {#n, offsetof(SimSwitches, n), sizeof sim_sw.n, NULL, {0, 0, 0}}

static const Switch switches[] =
{
	WORD(replay_code, replay_words, SIM_REPLAY_DUPLICATE, SIM_REPLAY_KEY, SIM_REPLAY_INDEX),
	NUM(missing_target, 404, 400, 400),
	WORD(state_at_create, refuse_words, SIM_BY_TABLE, SIM_ACCEPTED, SIM_IGNORED),
	WORD(noupdate_column, refuse_words, SIM_REFUSED, SIM_IGNORED, SIM_IGNORED),
	WORD(readonly_column, refuse_words, SIM_REFUSED, SIM_IGNORED, SIM_REFUSED),
	WORD(same_request_parent, refuse_words, SIM_REFUSED, SIM_ACCEPTED, SIM_ACCEPTED),
	WORD(batch_headers, reach_words, 0, 1, 0),
	WORD(batch_earlier_parts, parts_words, 1, 1, 0),
	WORD(changeset_continue, off_on, 1, 1, 0),
	WORD(key_case, case_words, SIM_KEY_CASE_INSENSITIVE, SIM_KEY_CASE_INSENSITIVE, SIM_KEY_CASE_SENSITIVE),
	WORD(key_blanks, blank_words, 0, 1, 0),
	WORD(key_special, refuse_words, SIM_REFUSED, SIM_ACCEPTED, SIM_REFUSED),
	WORD(key_special_body, refuse_words, SIM_REFUSED, SIM_ACCEPTED, SIM_ACCEPTED),
	WORD(update_odata_id, refuse_words, SIM_REFUSED, SIM_ACCEPTED, SIM_REFUSED),
	WORD(connections, connection_words, SIM_SPREAD, SIM_SPREAD, SIM_STICKY),
	WORD(html_errors, off_on, 0, 0, 1),
	WORD(ids_shuffled, order_words, 0, 0, 1),
	WORD(naive_time, refuse_words, SIM_REFUSED, SIM_ACCEPTED, SIM_ACCEPTED),
	WORD(date_only_time, refuse_words, SIM_REFUSED, SIM_ACCEPTED, SIM_REFUSED),
	WORD(string_numbers, refuse_words, SIM_REFUSED, SIM_ACCEPTED, SIM_REFUSED),
	WORD(empty_text_null, off_on, 1, 1, 0),
	WORD(missing_odata_headers, refuse_words, SIM_REFUSED, SIM_ACCEPTED, SIM_ACCEPTED),
	WORD(range_code, range_words, 0, 0, 1),
	NUM(min_year, 1753, 1753, 1900),
	WORD(delete_referenced, delete_words, 0, 0, 0),
	WORD(user_create, refuse_words, SIM_ACCEPTED, SIM_ACCEPTED, SIM_ACCEPTED),
	WORD(bypass_privilege, off_on, 1, 1, 1),
	WORD(created_on_privilege, off_on, 1, 1, 1),
	WORD(bulk_warmup, off_on, 0, 0, 1),
	WORD(entityid_on_update, off_on, 0, 1, 1),
	NUM(token_lifetime, 3599, 3599, 3599),
	NUM(servers, 3, 1, 2),
	NUM(dop_hint, 8, 48, 4),
	NUM(page_most, 0, 0, 0),
	NUM(limit_requests, 0, 0, 0),
	NUM(limit_time, 0, 0, 0),
	NUM(limit_concurrent, 0, 0, 0),
	NUM(limit_window, 300, 300, 300),
	NUM(retry_after, 1, 1, 1),
	NUM(latency, 0, 0, 0),
	NUM(row_time, 0, 0, 0),
	NUM(slow_factor, 1, 1, 1),
	NUM(sql_timeout, 0, 0, 0),
	NUM(max_body, 104857600, 134217728, 33554432),
	WORD(cookies, off_on, 1, 1, 1),
	WORD(collections, collection_words, SIM_HERE, SIM_HERE, SIM_HERE),
	WORD(definition, definition_words, SIM_ALONE, SIM_ALONE, SIM_ALONE),
	TEXT(static_token),
	TEXT(automation),
	TEXT(deny_owner),
	TEXT(slow_table),
	TEXT(deny_privilege),
};

#define N_SWITCHES (sizeof switches / sizeof switches[0])

static int *
number(const Switch *s)
{
	return (int *) ((char *) &sim_sw + s->offset);
}

static char *
text(const Switch *s)
{
	return (char *) &sim_sw + s->offset;
}

int
sim_switch_weight(const char *table)
{
	return strcmp(table, sim_sw.slow_table) == 0 ? sim_sw.slow_factor : 1;
}

bool
sim_switches_profile(const char *name)
{
	static const char *const profiles[] = {"strict", "lenient", "odd"};

	for (int p = 0; p < 3; p++)
	{
		if (strcmp(profiles[p], name) != 0)
			continue;
		for (size_t i = 0; i < N_SWITCHES; i++)
			if (switches[i].size == 0)
				*number(&switches[i]) = switches[i].value[p];
		return true;
	}
	return false;
}

bool
sim_switch_set(const char *name, size_t name_len, const char *value)
{
	for (size_t i = 0; i < N_SWITCHES; i++)
	{
		const Switch *s = &switches[i];
		char	   *end;
		long		v;

		if (strlen(s->name) != name_len || memcmp(s->name, name, name_len) != 0)
			continue;
		if (s->size > 0)
		{
			if (strlen(value) >= s->size)
				return false;
			memcpy(text(s), value, strlen(value) + 1);
			return true;
		}
		for (int w = 0; s->words != NULL && s->words[w] != NULL; w++)
			if (strcmp(s->words[w], value) == 0)
			{
				*number(s) = w;
				return true;
			}
		v = strtol(value, &end, 10);
		if (s->words != NULL || end == value || *end != '\0' || v < 0 || v > INT_MAX)
			return false;
		*number(s) = (int) v;
		return true;
	}
	return false;
}

void
sim_switches_json(SimBuf *out)
{
	sim_buf_char(out, '{');
	for (size_t i = 0; i < N_SWITCHES; i++)
	{
		const Switch *s = &switches[i];

		sim_buf_printf(out, "%s\"%s\":", i > 0 ? "," : "", s->name);
		if (s->size > 0)
			sim_json_put(out, text(s));
		else if (s->words != NULL)
			sim_json_put(out, s->words[*number(s)]);
		else
			sim_buf_printf(out, "%d", *number(s));
	}
	sim_buf_char(out, '}');
}

/*
 * faults.c - faults on request: rules, and which one a request meets
 */
#include "faults.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "limits.h"
#include "stats.h"
#include "switches.h"

#define MAX_RULES 64

typedef struct Rule
{
	char		method[16];
	char		path[256];
	char		body[256];
	char		user[40];
	long		nth;			/* fire from this match on */
	long		count;			/* so often; 0: for ever */
	double		rate;			/* only this share of the matches */
	bool		part;
	long		matched;
	long		fired;
	SimFault	fault;
} Rule;

static Rule rules[MAX_RULES];
static int	n_rules;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cleared = PTHREAD_COND_INITIALIZER;
static unsigned long clearings;

static const char *const kind_names[] =
{
	"none", "status", "reset_before", "reset_after", "commit_later", "cut", "garbage", "slow", "dribble", "deadlock", "throttle",
	"drop_ids", "shuffle_ids", "html", "hold", "body", "add_ids", "drop_parts", NULL
};

static bool
rule_matches(const Rule *u, const SimReq *r)
{
	char		user[SIM_GUID_LEN + 1];

	if (u->method[0] != '\0' && strcmp(u->method, r->method) != 0)
		return false;
	if (u->path[0] != '\0' && strstr(r->uri, u->path) == NULL)
		return false;
	if (u->body[0] != '\0' && (r->len == 0 || memmem(r->body, r->len, u->body, strlen(u->body)) == NULL))
		return false;
	if (u->user[0] == '\0')
		return true;
	sim_guid_format(r->caller, user);
	return strcmp(u->user, user) == 0;
}

SimFault
sim_fault_match(const SimReq *r, bool part)
{
	SimFault	out = {.kind = SIM_FAULT_NONE};

	if (n_rules == 0)
		return out;
	pthread_mutex_lock(&lock);
	for (int i = 0; i < n_rules && out.kind == SIM_FAULT_NONE; i++)
	{
		Rule	   *u = &rules[i];

		if (u->part != part || (u->count > 0 && u->fired >= u->count) || !rule_matches(u, r))
			continue;
		if (++u->matched < u->nth)
			continue;
		if (u->rate < 1 && sim_random(1000000) >= (uint32_t) (u->rate * 1000000))
			continue;
		u->fired++;
		out = u->fault;
		out.era = clearings;
	}
	pthread_mutex_unlock(&lock);
	if (out.kind != SIM_FAULT_NONE)
		sim_stats_fault();
	return out;
}

static void
copy_text(char *to, size_t size, SimStr s)
{
	snprintf(to, size, "%.*s", (int) s.len, s.s);
}

static bool
read_kind(Rule *u, SimStr s)
{
	for (int i = 1; kind_names[i] != NULL; i++)
		if (sim_str_is(s, kind_names[i]))
		{
			u->fault.kind = (SimFaultKind) i;
			return true;
		}
	return false;
}

/* One member of "match" or of the rule itself; false when unknown. */
static bool
read_member(Rule *u, SimStr name, const SimScalar *v)
{
	double		number = v->kind == SIM_JSON_NUMBER ? strtod(v->text.s, NULL) : 0;
	bool		truth = v->kind == SIM_JSON_TRUE;

	if (sim_str_is(name, "method"))
		copy_text(u->method, sizeof u->method, v->text);
	else if (sim_str_is(name, "path_contains"))
		copy_text(u->path, sizeof u->path, v->text);
	else if (sim_str_is(name, "body_contains"))
		copy_text(u->body, sizeof u->body, v->text);
	else if (sim_str_is(name, "user"))
		copy_text(u->user, sizeof u->user, v->text);
	else if (sim_str_is(name, "nth"))
		u->nth = (long) number;
	else if (sim_str_is(name, "count"))
		u->count = (long) number;
	else if (sim_str_is(name, "rate"))
		u->rate = number;
	else if (sim_str_is(name, "part"))
		u->part = truth;
	else if (sim_str_is(name, "do"))
		return read_kind(u, v->text);
	else if (sim_str_is(name, "status"))
		u->fault.status = (int) number;
	else if (sim_str_is(name, "code"))
		copy_text(u->fault.code, sizeof u->fault.code, v->text);
	else if (sim_str_is(name, "message"))
		copy_text(u->fault.message, sizeof u->fault.message, v->text);
	else if (sim_str_is(name, "text"))
		copy_text(u->fault.text, sizeof u->fault.text, v->text);
	else if (sim_str_is(name, "times"))
		u->fault.times = (long) number;
	else if (sim_str_is(name, "content_type"))
		copy_text(u->fault.content_type, sizeof u->fault.content_type, v->text);
	else if (sim_str_is(name, "retry_after"))
		u->fault.retry_after = (int) number;
	else if (sim_str_is(name, "bytes"))
		u->fault.bytes = (long) number;
	else if (sim_str_is(name, "seconds"))
		u->fault.seconds = number;
	else if (sim_str_is(name, "after"))
		u->fault.after = truth;
	else if (sim_str_is(name, "html"))
		u->fault.html = truth;
	else
		return false;
	return true;
}

static bool
read_object(SimJson *j, Rule *u, SimErr *e, int depth)
{
	SimScalar	name,
				value;
	bool		first = true;

	if (!sim_json_enter(j, '{'))
		return sim_fail(e, 400, "", "a fault must be an object");
	while (sim_json_next_member(j, &first, &name))
	{
		SimStr		key = name.text;

		memset(&value, 0, sizeof value);
		value.text.s = "";
		if (depth == 0 && sim_str_is(key, "match"))
		{
			if (!read_object(j, u, e, 1))
				return false;
			continue;
		}
		if (!sim_json_scalar(j, &value))
			break;
		if (!read_member(u, key, &value))
			return sim_fail(e, 400, "", "unknown member or value: \"%.*s\"", (int) key.len, key.s);
	}
	return j->error == NULL || sim_fail(e, 400, "", "%s", j->error);
}

bool
sim_fault_add(char *json, size_t len, SimErr *e)
{
	SimJson		j;
	Rule		u = {.nth = 1, .count = 1, .rate = 1, .fault.retry_after = -1, .fault.bytes = -1, .fault.times = 1};
	bool		room;

	sim_json_begin(&j, json, len);
	if (!read_object(&j, &u, e, 0))
		return false;
	if (u.fault.kind == SIM_FAULT_NONE)
		return sim_fail(e, 400, "", "\"do\" is missing");
	pthread_mutex_lock(&lock);
	room = n_rules < MAX_RULES;
	if (room)
		rules[n_rules++] = u;
	pthread_mutex_unlock(&lock);
	return room || sim_fail(e, 400, "", "too many faults");
}

void
sim_fault_list(SimBuf *out)
{
	pthread_mutex_lock(&lock);
	sim_buf_char(out, '[');
	for (int i = 0; i < n_rules; i++)
	{
		const Rule *u = &rules[i];

		sim_buf_printf(out, "%s{\"do\":\"%s\",\"path_contains\":", i > 0 ? "," : "", kind_names[u->fault.kind]);
		sim_json_put(out, u->path);
		sim_buf_printf(out, ",\"nth\":%ld,\"count\":%ld,\"matched\":%ld,\"fired\":%ld}", u->nth, u->count, u->matched, u->fired);
	}
	sim_buf_char(out, ']');
	pthread_mutex_unlock(&lock);
}

void
sim_fault_clear(void)
{
	pthread_mutex_lock(&lock);
	n_rules = 0;
	clearings++;
	pthread_cond_broadcast(&cleared);
	pthread_mutex_unlock(&lock);
}

void
sim_fault_hold(const SimFault *f)
{
	pthread_mutex_lock(&lock);
	while (f->era == clearings)
		pthread_cond_wait(&cleared, &lock);
	pthread_mutex_unlock(&lock);
}

static void
html(const SimFault *f, SimResp *resp, int status)
{
	resp->status = f->status > 0 ? f->status : status;
	resp->content_type = "text/html";
	sim_buf_printf(&resp->body, "<!DOCTYPE html>\r\n<html><head><title>%d</title></head><body><h1>Bad Gateway</h1>"
				   "<p>The service is unavailable. \"{\" &amp; <b>}</b></p></body></html>", resp->status);
}

static void
garbage(const SimFault *f, SimResp *resp)
{
	long		n = f->bytes >= 0 ? f->bytes : 300;

	resp->status = f->status > 0 ? f->status : 200;
	resp->content_type = "application/json; odata.metadata=minimal";
	for (long i = 0; i < n; i++)
		sim_buf_char(&resp->body, (char) sim_random(256));
}

/* A body of the tester's own; the fault outlives the answer. */
static void
own_body(const SimFault *f, SimResp *resp)
{
	resp->status = f->status > 0 ? f->status : 200;
	resp->content_type = f->content_type[0] != '\0' ? f->content_type : NULL;
	for (long i = 0; i < f->times; i++)
		sim_buf_puts(&resp->body, f->text);
}

static void
deadlock(SimResp *resp)
{
	sim_fail(&resp->err, 500, "0x80044150", "Generic SQL error. CRM ErrorCode: -2147204784 Sql ErrorCode: -2146232060 Sql Number: 1205. "
			 "Transaction was deadlocked on lock resources with another process and has been chosen as the deadlock victim. Rerun "
			 "the transaction.");
}

void
sim_fault_answer(const SimReq *r, const SimFault *f, SimResp *resp)
{
	resp->body.len = 0;
	resp->headers.len = 0;
	resp->content_type = NULL;
	memset(&resp->err, 0, sizeof resp->err);
	switch (f->kind)
	{
		case SIM_FAULT_THROTTLE:
			sim_limits_refuse(r, resp, strcmp(f->code, "0x80072326") == 0 ? 2 : strcmp(f->code, "0x80072321") == 0 ? 1 : 0,
							  f->retry_after >= 0 ? f->retry_after : 1);
			sim_limits_told(r->caller, f->retry_after >= 0 ? f->retry_after : 1);
			sim_stats_throttled(3);
			return;
		case SIM_FAULT_HTML:
			html(f, resp, 502);
			return;
		case SIM_FAULT_GARBAGE:
			garbage(f, resp);
			return;
		case SIM_FAULT_BODY:
			own_body(f, resp);
			return;
		case SIM_FAULT_DEADLOCK:
			deadlock(resp);
			break;
		default:
			if (f->html || (sim_sw.html_errors && f->status >= 502 && f->status <= 504))
			{
				html(f, resp, 503);
				return;
			}
			sim_fail(&resp->err, f->status > 0 ? f->status : 500, f->code, "%s", f->message[0] != '\0' ? f->message :
					 "An injected failure.");
	}
	if (f->retry_after >= 0)
		sim_resp_header(resp, "Retry-After", "%d", f->retry_after);
	sim_resp_error(r, resp);
}

void
sim_fault_ids(const SimFault *f, SimBuf *body)
{
	char	   *list = body->data != NULL ? strstr(body->data, "\"Ids\":[") : NULL;
	char	   *close = list != NULL ? strchr(list, ']') : NULL;
	long		n,
				drop = f->bytes > 0 ? f->bytes : 1;
	size_t		entry = SIM_GUID_LEN + 3;	/* two quotes and a comma */

	if (close == NULL)
		return;
	if (f->kind == SIM_FAULT_ADD_IDS)
	{
		SimBuf		more = {0};

		sim_buf_add(&more, body->data, (size_t) (close - body->data));
		for (long i = 0; i < drop; i++)
			sim_buf_printf(&more, "%s\"dddddddd-0000-4000-8000-%012lx\"", close[-1] == '[' && i == 0 ? "" : ",", i);
		sim_buf_add(&more, close, body->len - (size_t) (close - body->data));
		sim_buf_free(body);
		*body = more;
		return;
	}
	list += 7;
	n = (close - list + 1) / (long) entry;
	if (f->kind == SIM_FAULT_SHUFFLE_IDS)
	{
		char		swap[SIM_GUID_LEN + 2];

		/* Turned around: certainly another order when there are two. */
		for (long i = 0; i < n / 2; i++)
		{
			char	   *a = list + i * (long) entry,
					   *b = list + (n - 1 - i) * (long) entry;

			memcpy(swap, a, sizeof swap);
			memcpy(a, b, sizeof swap);
			memcpy(b, swap, sizeof swap);
		}
		return;
	}
	drop = drop > n ? n : drop;
	n -= drop;
	list += n > 0 ? n * (long) entry - 1 : 0;
	memmove(list, close, strlen(close) + 1);
	body->len -= (size_t) (close - list);
}

/* The last parts are missing, yet the answer is closed as it should be. */
void
sim_fault_parts(const SimFault *f, SimBuf *body)
{
	char		line[128];
	const char *end = body->data != NULL && strncmp(body->data, "--", 2) == 0 ? strpbrk(body->data, "\r\n") : NULL;
	size_t		n = end != NULL ? (size_t) (end - body->data) : 0;

	if (n == 0 || n + 8 > sizeof line)
		return;
	memcpy(line, body->data, n);
	line[n] = '\0';
	for (long drop = f->bytes > 0 ? f->bytes : 1; drop > 0; drop--)
	{
		char	   *last = NULL;

		/* The closing boundary is "--x--": not one that begins a part. */
		for (char *at = body->data; (at = strstr(at, line)) != NULL; at += n)
			if (strncmp(at + n, "--", 2) != 0)
				last = at;
		if (last == NULL || last == body->data)
			break;
		body->len = (size_t) (last - body->data);
		*last = '\0';
	}
	sim_buf_printf(body, "%s--\r\n", line);
}

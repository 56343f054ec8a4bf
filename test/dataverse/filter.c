/*
 * filter.c - $filter expressions: a recursive descent parser
 */
#include "filter.h"

#include <stdlib.h>
#include <string.h>

#include "filter_eval.h"

typedef struct Parser
{
	const SimReq *r;
	SimTable   *t;
	const char *start;
	const char *p;
	SimErr	   *e;
	int			depth;
} Parser;

/* Parentheses and "not" may nest this deep; more would be an attack. */
#define MAX_DEPTH 200

static SimFilter *parse_or(Parser *p);

static SimFilter *
syntax(Parser *p, const char *what)
{
	sim_fail(p->e, 400, SIM_E_SYNTAX, "%s at position %d in '%.300s'.", what, (int) (p->p - p->start), p->start);
	return NULL;
}

static SimFilter *
node(Parser *p, SimFilterOp op)
{
	SimFilter  *f = memset(sim_arena_alloc(p->r->arena, sizeof *f), 0, sizeof *f);

	f->op = op;
	return f;
}

static void
blanks(Parser *p)
{
	while (*p->p == ' ')
		p->p++;
}

static size_t
word_length(const char *s)
{
	return strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.");
}

static bool
accept_word(Parser *p, const char *word)
{
	size_t		n = strlen(word);

	blanks(p);
	if (strncmp(p->p, word, n) != 0 || word_length(p->p) != n)
		return false;
	p->p += n;
	return true;
}

static bool
accept_char(Parser *p, char c)
{
	blanks(p);
	if (*p->p != c)
		return false;
	p->p++;
	return true;
}

/* A column, or a column of a parent: nav/column. The table changes with it. */
static const SimColumn *
parse_column(Parser *p, SimFilter *f)
{
	size_t		n;
	const SimProp *prop;

	blanks(p);
	n = word_length(p->p);
	prop = sim_table_prop(p->t, p->p, n);
	if (prop != NULL && prop->kind == SIM_P_NAV && p->p[n] == '/' && f->via == NULL && prop->target >= 0 &&
		prop->column->targets[prop->target].table != NULL)
	{
		SimTable   *child = p->t;

		f->via = prop->column;
		f->via_table = p->t = prop->column->targets[prop->target].table;
		p->p += n + 1;
		f->column = parse_column(p, f);
		p->t = child;
		return f->column;
	}
	if (prop == NULL || (prop->kind != SIM_P_COLUMN && prop->kind != SIM_P_VALUE))
	{
		sim_fail(p->e, 400, SIM_E_NONE, "Could not find a property named '%.*s' on type 'Microsoft.Dynamics.CRM.%s'.",
				 (int) (n > 200 ? 200 : n), p->p, p->t->name);
		return NULL;
	}
	p->p += n;
	return prop->column;
}

/* 'text' with doubled quotes. */
static bool
parse_text(Parser *p, SimStr *out)
{
	char	   *o = sim_arena_alloc(p->r->arena, strlen(p->p) + 1);

	out->s = o;
	for (p->p++; *p->p != '\0'; p->p++)
	{
		if (*p->p == '\'' && p->p[1] != '\'')
		{
			p->p++;
			*o = '\0';
			out->len = (size_t) (o - out->s);
			return true;
		}
		if (*p->p == '\'')
			p->p++;
		*o++ = *p->p;
	}
	return syntax(p, "There is an unterminated literal") != NULL;
}

/* Turn a literal's text into a value of the column, without range checks. */
static bool
convert(Parser *p, const SimColumn *c, SimStr text, bool quoted, SimVal *v)
{
	SimScalar	s = {.text = text, .ascii = true, .integral = memchr(text.s, '.', text.len) == NULL};
	SimColumn	wide = *c;
	SimErr		ignored = {0};

	memset(v, 0, sizeof *v);
	v->column = c->index;
	if (!quoted && sim_str_is(text, "null"))
		return v->null = true;
	if (c->storage == SIM_ST_GUID && sim_guid_parse(text.s, text.len, &v->v.g))
		return true;
	if (c->storage == SIM_ST_TEXT && c->type != SIM_T_DECIMAL && c->type != SIM_T_MONEY)
	{
		v->v.s = text.s;
		v->len = (uint32_t) text.len;
		return quoted || syntax(p, "A string literal was expected") != NULL;
	}
	if (c->type == SIM_T_BOOLEAN)
		s.kind = sim_str_is(text, "true") ? SIM_JSON_TRUE : sim_str_is(text, "false") ? SIM_JSON_FALSE : SIM_JSON_BAD;
	else if (c->type == SIM_T_DATE)
		s.kind = SIM_JSON_STRING;
	else
		s.kind = text.len > 0 && strspn(text.s, "-0123456789.") >= text.len ? SIM_JSON_NUMBER : SIM_JSON_BAD;
	if (c->type == SIM_T_CHOICE || c->type == SIM_T_STATE || c->type == SIM_T_STATUS)
		wide.type = SIM_T_INTEGER;
	wide.min = -1e18;
	wide.max = 1e18;
	if (c->type == SIM_T_DATE && c->date_kind == SIM_DATE_ONLY && text.len > 10)
		s.text.len = 10;
	return sim_value_read(p->r->arena, p->t, &wide, &s, v, &ignored) || syntax(p, "A literal does not fit its property") != NULL;
}

static bool
parse_literal(Parser *p, const SimColumn *c, SimVal *v)
{
	SimStr		text;
	bool		quoted;

	blanks(p);
	quoted = *p->p == '\'';
	if (quoted)
	{
		if (!parse_text(p, &text))
			return false;
	}
	else
	{
		text.s = p->p;
		text.len = strcspn(p->p, " ),");
		text.s = sim_arena_strndup(p->r->arena, text.s, text.len);
		p->p += text.len;
	}
	return convert(p, c, text, quoted, v);
}

static SimFilter *
finish_text(Parser *p, SimFilter *f)
{
	SimBuf		b = {0};

	if (f->column->storage == SIM_ST_TEXT && !f->value.null)
	{
		sim_fold(&b, f->value.v.s, f->value.len);
		f->folded.s = sim_arena_strndup(p->r->arena, b.data, b.len);
		f->folded.len = b.len;
		sim_buf_free(&b);
	}
	return f;
}

/* contains(column,'text') and its like, behind the open parenthesis. */
static SimFilter *
parse_function(Parser *p, SimFilterOp op)
{
	SimFilter  *f = node(p, op);

	if ((f->column = parse_column(p, f)) == NULL)
		return NULL;
	if (!accept_char(p, ','))
		return syntax(p, "A comma was expected");
	if (!parse_literal(p, f->column, &f->value))
		return NULL;
	if (!accept_char(p, ')'))
		return syntax(p, "A closing parenthesis was expected");
	return finish_text(p, f);
}

/* Argument of In: the value itself or an alias such as @p1. */
static const char *
argument(Parser *p, size_t *len)
{
	const char *v;
	char		alias[32];
	bool		quoted = false;
	int			depth = 0;
	size_t		n;

	blanks(p);
	n = strcspn(p->p, ",)");
	if (*p->p == '@')
	{
		if (n >= sizeof alias)
			return NULL;
		memcpy(alias, p->p, n);
		alias[n] = '\0';
		p->p += n;
		v = sim_path_option(&p->r->path, alias);
		*len = v != NULL ? strlen(v) : 0;
		return v;
	}
	v = p->p;
	for (; *p->p != '\0'; p->p++)
	{
		if (*p->p == '"' || *p->p == '\'')
			quoted = !quoted;
		else if (!quoted && *p->p == '[')
			depth++;
		else if (!quoted && *p->p == ']')
			depth--;
		else if (!quoted && depth == 0 && (*p->p == ',' || *p->p == ')'))
			break;
	}
	*len = (size_t) (p->p - v);
	return v;
}

static int
by_hash(const void *a, const void *b)
{
	uint64_t	x = *(const uint64_t *) a,
				y = *(const uint64_t *) b;

	return x < y ? -1 : x > y;
}

static bool
add_in_value(Parser *p, SimFilter *f, int *cap, SimStr text, bool quoted)
{
	SimVal		v;

	/* Values are written as JSON strings whatever the column's type. */
	if (!convert(p, f->column, text, quoted, &v))
		return false;
	if (f->n == *cap)
	{
		SimVal	   *grown;

		*cap = *cap ? *cap * 2 : 64;
		grown = sim_arena_alloc(p->r->arena, sizeof *grown * (size_t) *cap);
		if (f->n > 0)
			memcpy(grown, f->list, sizeof *grown * (size_t) f->n);
		f->list = grown;
	}
	f->list[f->n++] = v;
	return true;
}

static bool
parse_in_list(Parser *p, SimFilter *f, const char *text, size_t len)
{
	char	   *copy = sim_arena_strndup(p->r->arena, text, len);
	SimJson		j;
	SimScalar	s;
	bool		first = true;
	int			cap = 0;

	sim_json_begin(&j, copy, len);
	if (!sim_json_enter(&j, '['))
		return syntax(p, "Invalid JSON. An array was expected") != NULL;
	while (sim_json_next_element(&j, &first) && sim_json_scalar(&j, &s))
	{
		if (s.kind == SIM_JSON_STRING)
			s.text.s = sim_arena_strndup(p->r->arena, s.text.s, s.text.len);
		if (!add_in_value(p, f, &cap, s.text, s.kind == SIM_JSON_STRING))
			return false;
	}
	if (j.error != NULL)
	{
		sim_fail(p->e, 400, SIM_E_SYNTAX, "Invalid JSON. %s.", j.error);
		return false;
	}
	f->hashes = sim_arena_alloc(p->r->arena, sizeof *f->hashes * (size_t) (f->n + 1));
	for (int i = 0; i < f->n; i++)
		f->hashes[i] = sim_filter_hash(f->column, &f->list[i]);
	qsort(f->hashes, (size_t) f->n, sizeof *f->hashes, by_hash);
	return true;
}

/* Microsoft.Dynamics.CRM.In(PropertyName=...,PropertyValues=...) */
static SimFilter *
parse_in(Parser *p)
{
	SimFilter  *f = node(p, SIM_F_IN);
	const char *values = NULL;
	size_t		values_len = 0;

	do
	{
		bool		name = accept_word(p, "PropertyName");
		const char *v;
		size_t		len;

		if (!name && !accept_word(p, "PropertyValues"))
			return syntax(p, "PropertyName or PropertyValues was expected");
		if (!accept_char(p, '=') || (v = argument(p, &len)) == NULL)
			return syntax(p, "A parameter of In is missing");
		if (!name)
		{
			values = v;
			values_len = len;
			continue;
		}
		if (len < 2 || v[0] != '\'')
			return syntax(p, "PropertyName must be a string");
		f->column = sim_table_column(p->t, v + 1, len - 2);
		if (f->column == NULL)
		{
			sim_fail(p->e, 400, SIM_E_NONE, "Could not find a property named '%.*s' on type 'Microsoft.Dynamics.CRM.%s'.",
					 (int) (len - 2), v + 1, p->t->name);
			return NULL;
		}
	} while (accept_char(p, ','));
	if (!accept_char(p, ')') || f->column == NULL || values == NULL)
		return syntax(p, "In needs PropertyName and PropertyValues");
	return parse_in_list(p, f, values, values_len) ? f : NULL;
}

static SimFilter *
parse_comparison(Parser *p)
{
	static const struct
	{
		const char *word;
		SimFilterOp op;
	}			ops[] = {{"eq", SIM_F_EQ}, {"ne", SIM_F_NE}, {"gt", SIM_F_GT}, {"ge", SIM_F_GE}, {"lt", SIM_F_LT}, {"le", SIM_F_LE}};
	SimFilter  *f = node(p, SIM_F_EQ);

	if ((f->column = parse_column(p, f)) == NULL)
		return NULL;
	for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
		if (accept_word(p, ops[i].word))
		{
			f->op = ops[i].op;
			return parse_literal(p, f->column, &f->value) ? finish_text(p, f) : NULL;
		}
	return syntax(p, "A comparison operator was expected");
}

static SimFilter *
parse_primary(Parser *p)
{
	SimFilter  *f;

	if (++p->depth > MAX_DEPTH)
		return syntax(p, "The expression is nested too deeply");
	if (accept_word(p, "not"))
	{
		f = node(p, SIM_F_NOT);
		f->left = parse_primary(p);
		p->depth--;
		return f->left != NULL ? f : NULL;
	}
	if (accept_char(p, '('))
	{
		f = parse_or(p);
		if (f != NULL && !accept_char(p, ')'))
			f = syntax(p, "A closing parenthesis was expected");
	}
	else if (accept_word(p, "contains") && accept_char(p, '('))
		f = parse_function(p, SIM_F_CONTAINS);
	else if (accept_word(p, "startswith") && accept_char(p, '('))
		f = parse_function(p, SIM_F_STARTS);
	else if (accept_word(p, "endswith") && accept_char(p, '('))
		f = parse_function(p, SIM_F_ENDS);
	else if (accept_word(p, "Microsoft.Dynamics.CRM.In") && accept_char(p, '('))
		f = parse_in(p);
	else
		f = parse_comparison(p);
	p->depth--;
	return f;
}

static SimFilter *
join(Parser *p, SimFilterOp op, SimFilter *left, SimFilter *right)
{
	SimFilter  *f = node(p, op);

	f->left = left;
	f->right = right;
	return right != NULL ? f : NULL;
}

static SimFilter *
parse_and(Parser *p)
{
	SimFilter  *f = parse_primary(p);

	while (f != NULL && accept_word(p, "and"))
		f = join(p, SIM_F_AND, f, parse_primary(p));
	return f;
}

static SimFilter *
parse_or(Parser *p)
{
	SimFilter  *f = parse_and(p);

	while (f != NULL && accept_word(p, "or"))
		f = join(p, SIM_F_OR, f, parse_and(p));
	return f;
}

SimFilter *
sim_filter_parse(const SimReq *r, SimTable *t, const char *text, SimErr *e)
{
	Parser		p = {.r = r, .t = t, .start = text, .p = text, .e = e};
	SimFilter  *f = parse_or(&p);

	blanks(&p);
	if (f != NULL && *p.p != '\0')
		return syntax(&p, "Syntax error");
	return f;
}

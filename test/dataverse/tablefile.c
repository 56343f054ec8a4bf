/*
 * tablefile.c - reads one table declaration in the compact table format
 *
 * One line a column, words separated by blanks, "#" begins a comment line.
 * test/dataverse/README.md describes the words.
 */
#include "metadata.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The longest option set in use has a few hundred values on one line. */
#define MAX_WORDS 1024

typedef struct Line
{
	const char *origin;
	int			number;
	char	   *words[MAX_WORDS];
	int			n;
} Line;

static const struct
{
	const char *word;
	SimType		type;
}			type_words[] =
{
	{"string", SIM_T_STRING}, {"memo", SIM_T_MEMO}, {"integer", SIM_T_INTEGER}, {"bigint", SIM_T_BIGINT},
	{"decimal", SIM_T_DECIMAL}, {"double", SIM_T_DOUBLE}, {"money", SIM_T_MONEY}, {"boolean", SIM_T_BOOLEAN},
	{"choice", SIM_T_CHOICE}, {"choices", SIM_T_CHOICES}, {"state", SIM_T_STATE}, {"status", SIM_T_STATUS},
	{"date", SIM_T_DATE}, {"guid", SIM_T_GUID}, {"image", SIM_T_IMAGE}, {"file", SIM_T_FILE},
	{"lookup", SIM_T_LOOKUP}, {"customer", SIM_T_CUSTOMER}, {"owner", SIM_T_OWNER}, {"party", SIM_T_PARTY},
};

static void __attribute__((noreturn))
bad(const Line *line, const char *what, const char *word)
{
	sim_die("%s, line %d: %s \"%s\"", line->origin, line->number, what, word);
}

/* Split a line into words; blanks inside double quotes belong to the word. */
static void
split(Line *line, char *s)
{
	line->n = 0;
	for (;;)
	{
		bool		quoted = false;

		while (*s == ' ' || *s == '\t' || *s == '\r')
			s++;
		if (*s == '\0')
			return;
		if (line->n == MAX_WORDS)
			bad(line, "too many words from", s);
		line->words[line->n++] = s;
		for (; *s != '\0' && (quoted || (*s != ' ' && *s != '\t' && *s != '\r')); s++)
			if (*s == '"')
				quoted = !quoted;
		if (*s != '\0')
			*s++ = '\0';
	}
}

/* Value of "name=value", or NULL when the word is another one. */
static char *
value_of(char *word, const char *name)
{
	size_t		n = strlen(name);

	return strncmp(word, name, n) == 0 && word[n] == '=' ? word + n + 1 : NULL;
}

static void
read_bulk(SimTable *t, const char *v)
{
	t->bulk_create = strstr(v, "create") != NULL;
	t->bulk_update = strstr(v, "update") != NULL;
}

static SimOwnership
read_ownership(const Line *line, const char *v)
{
	static const char *const words[] = {"user", "business", "organization", "none"};

	for (int i = 0; i < 4; i++)
		if (strcmp(v, words[i]) == 0)
			return (SimOwnership) i;
	bad(line, "unknown ownership", v);
}

static SimTable *
read_table(Line *line)
{
	SimTable   *t = sim_zalloc(sizeof *t);

	if (line->n < 2)
		bad(line, "a table needs a name", line->words[0]);
	t->name = sim_strdup(line->words[1]);
	t->ownership = SIM_OWN_USER;
	for (int i = 2; i < line->n; i++)
	{
		char	   *w = line->words[i],
				   *v;

		if ((v = value_of(w, "set")) != NULL)
			t->set = sim_strdup(v);
		else if ((v = value_of(w, "id")) != NULL)
			t->id_name = sim_strdup(v);
		else if ((v = value_of(w, "name")) != NULL)
			t->primary_name = *v != '\0' ? sim_strdup(v) : NULL;
		else if ((v = value_of(w, "schema")) != NULL)
			t->schema = sim_strdup(v);
		else if ((v = value_of(w, "owner")) != NULL)
			t->ownership = read_ownership(line, v);
		else if ((v = value_of(w, "type")) != NULL)
		{
			t->elastic = strcmp(v, "elastic") == 0;
			t->virtual_table = strcmp(v, "virtual") == 0;
		}
		else if ((v = value_of(w, "bulk")) != NULL)
			read_bulk(t, v);
		else if (strcmp(w, "activity") == 0)
			t->activity = true;
		else if (strcmp(w, "custom") == 0)
			t->custom = true;
		else if (strcmp(w, "nocreatestate") == 0)
			t->no_create_state = true;
		else
			bad(line, "unknown word", w);
	}
	if (t->set == NULL || t->id_name == NULL)
		bad(line, "a table needs set= and id=", t->name);
	if (t->schema == NULL)
		t->schema = sim_strdup(t->name);
	return t;
}

static bool
is_number(const char *w)
{
	char	   *end;

	if (*w == '\0')
		return false;
	strtod(w, &end);
	return *end == '\0';
}

/* Words that any column may carry. */
static bool
read_flag(SimColumn *c, const char *w)
{
	if (strcmp(w, "required") == 0)
		c->required = true;
	else if (strcmp(w, "systemrequired") == 0)
		c->system_required = true;
	else if (strcmp(w, "nocreate") == 0)
		c->no_create = true;
	else if (strcmp(w, "noupdate") == 0)
		c->no_update = true;
	else if (strcmp(w, "readonly") == 0)
		c->no_create = c->no_update = true;
	else if (strcmp(w, "calculated") == 0 || strcmp(w, "rollup") == 0)
	{
		c->no_create = c->no_update = true;
		c->source = *w == 'c' ? 1 : 2;
	}
	else if (strcmp(w, "ascii") == 0)
		c->ascii = true;
	else if (strcmp(w, "autonumber") == 0)
		c->autonumber = true;
	else if (strcmp(w, "full") == 0 && c->type == SIM_T_IMAGE)
		c->full_image = true;
	else
		return false;
	return true;
}

/* 1="Active" or, for a status value, 1="Active":0 */
static void
read_option(const Line *line, SimColumn *c, char *w)
{
	SimOption	o = {0};
	char	   *end;
	char	   *close;

	o.value = (int) strtol(w, &end, 10);
	if (end == w || end[0] != '=' || end[1] != '"' || (close = strchr(end + 2, '"')) == NULL)
		bad(line, "malformed option", w);
	o.label = sim_strndup(end + 2, (size_t) (close - end - 2));
	if (close[1] == ':')
		o.state = (int) strtol(close + 2, NULL, 10);
	c->options = sim_realloc(c->options, sizeof *c->options * (size_t) (c->n_options + 1));
	c->options[c->n_options++] = o;
}

/* table:navigation property[:collection-valued property of the target] */
static void
read_target(const Line *line, SimColumn *c, const char *w)
{
	SimTarget	t = {0};
	const char *nav = strchr(w, ':');
	const char *collection;

	if (nav == NULL)
		bad(line, "a target needs a navigation property", w);
	t.table_name = sim_strndup(w, (size_t) (nav - w));
	nav++;
	collection = strchr(nav, ':');
	t.nav = collection != NULL ? sim_strndup(nav, (size_t) (collection - nav)) : sim_strdup(nav);
	if (collection != NULL)
		t.collection = sim_strdup(collection + 1);
	c->targets = sim_realloc(c->targets, sizeof *c->targets * (size_t) (c->n_targets + 1));
	c->targets[c->n_targets++] = t;
}

static SimDateKind
read_date_kind(const Line *line, const char *w)
{
	if (strcmp(w, "dateonly") == 0)
		return SIM_DATE_ONLY;
	if (strcmp(w, "userlocal") == 0)
		return SIM_DATE_USER_LOCAL;
	if (strcmp(w, "timezoneindependent") == 0)
		return SIM_DATE_INDEPENDENT;
	bad(line, "unknown date behaviour", w);
}

static void
read_argument(const Line *line, SimColumn *c, char *w, int *position)
{
	char	   *v = value_of(w, "precision");

	if (v != NULL)
		c->precision = atoi(v);
	else if (c->type == SIM_T_CHOICE || c->type == SIM_T_CHOICES || c->type == SIM_T_STATE || c->type == SIM_T_STATUS ||
			 (c->type == SIM_T_BOOLEAN && strchr(w, '=') != NULL))
		read_option(line, c, w);
	else if (c->type == SIM_T_LOOKUP || c->type == SIM_T_CUSTOMER || (c->type == SIM_T_OWNER && strchr(w, ':')))
		read_target(line, c, w);
	else if (c->type == SIM_T_DATE)
		c->date_kind = read_date_kind(line, w);
	else if (!is_number(w))
		bad(line, "unknown word", w);
	else if (c->type == SIM_T_INTEGER || c->type == SIM_T_DECIMAL || c->type == SIM_T_DOUBLE || c->type == SIM_T_MONEY ||
			 c->type == SIM_T_BIGINT)
	{
		if ((*position)++ == 0)
			c->min = strtod(w, NULL);
		else
			c->max = strtod(w, NULL);
	}
	else
		c->max_length = strtol(w, NULL, 10);
}

static void
read_column(Line *line, SimTable *t, SimType type)
{
	SimColumn  *c;
	int			position = 0;

	if (line->n < 2)
		bad(line, "a column needs a name", line->words[0]);
	if (sim_table_column(t, line->words[1], strlen(line->words[1])) != NULL)
		bad(line, "column declared twice", line->words[1]);
	c = sim_table_add_column(t, line->words[1], type);
	c->listed = true;
	for (int i = 2; i < line->n; i++)
		if (!read_flag(c, line->words[i]))
			read_argument(line, c, line->words[i], &position);
}

/* key name status column... */
static void
read_key(Line *line, SimTable *t)
{
	SimKey	   *k;

	if (line->n < 4)
		bad(line, "a key needs a name, a status and columns", line->words[0]);
	t->keys = sim_realloc(t->keys, sizeof *t->keys * (size_t) (t->n_keys + 1));
	k = memset(&t->keys[t->n_keys++], 0, sizeof *k);
	k->name = sim_strdup(line->words[1]);
	k->status = sim_strdup(line->words[2]);
	k->n_columns = line->n - 3;
	k->columns = sim_alloc(sizeof *k->columns * (size_t) k->n_columns);
	for (int i = 3; i < line->n; i++)
	{
		SimColumn  *c = sim_table_column(t, line->words[i], strlen(line->words[i]));

		if (c == NULL)
			bad(line, "a key names an unknown column", line->words[i]);
		k->columns[i - 3] = c->index;
	}
}

/* nn name table nav table nav [intersect=name] */
static void
read_link(Line *line)
{
	SimManyToMany *r = sim_zalloc(sizeof *r);

	if (line->n < 6)
		bad(line, "a many-to-many relationship needs two sides", line->words[0]);
	r->name = sim_strdup(line->words[1]);
	for (int i = 0; i < 2; i++)
	{
		r->side_name[i] = sim_strdup(line->words[2 + i * 2]);
		r->nav[i] = sim_strdup(line->words[3 + i * 2]);
	}
	r->intersect = sim_strdup(r->name);
	for (int i = 6; i < line->n; i++)
	{
		char	   *v = value_of(line->words[i], "intersect");

		if (v == NULL)
			bad(line, "unknown word", line->words[i]);
		r->intersect = sim_strdup(v);
	}
	sim_model_add_relation(r);
}

static void
read_line(Line *line, SimTable **t)
{
	const char *w = line->words[0];

	if (strcmp(w, "table") == 0)
	{
		if (*t != NULL)
			bad(line, "a second table in one file", line->words[1]);
		*t = read_table(line);
		return;
	}
	if (strcmp(w, "nn") == 0)
	{
		read_link(line);
		return;
	}
	if (*t == NULL)
		bad(line, "the first line must declare the table, not", w);
	if (strcmp(w, "key") == 0)
	{
		read_key(line, *t);
		return;
	}
	for (size_t i = 0; i < sizeof type_words / sizeof type_words[0]; i++)
		if (strcmp(w, type_words[i].word) == 0)
		{
			read_column(line, *t, type_words[i].type);
			return;
		}
	bad(line, "unknown word", w);
}

SimTable *
sim_tablefile_read(const char *text, const char *origin)
{
	static Line line;
	SimTable   *t = NULL;
	char	   *copy = sim_strdup(text);
	char	   *p = copy;

	line.origin = origin;
	line.number = 0;
	while (p != NULL)
	{
		char	   *end = strchr(p, '\n');

		line.number++;
		if (end != NULL)
			*end++ = '\0';
		split(&line, p);
		if (line.n > 0 && line.words[0][0] != '#')
			read_line(&line, &t);
		p = end;
	}
	free(copy);
	return t;
}

/*
 * choice.c - source texts to values of choice columns
 *
 * The texts a column knows are compiled into the projection as one jsonb
 * constant: a lookup is then a binary search, with no table read per row.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

PG_FUNCTION_INFO_V1(dv_choice);
PG_FUNCTION_INFO_V1(dv_choices_text);
PG_FUNCTION_INFO_V1(dv_choices_array);

/* Values found so far, and what becomes of texts that stand for none. */
typedef struct Choices
{
	Jsonb	   *texts;
	bool		refuse;			/* one unknown text spoils all */
	bool		has_default;
	int32		default_value;
	bool		unknown;
	Datum	   *values;
	int			n;
	int			room;
} Choices;

/* Value stored under prefix || key, or false. */
static bool
choice_find(Jsonb *texts, char prefix, const char *key, size_t len, int32 *value)
{
	JsonbValue	found;
	char	   *name = palloc(len + 1);
	bool		known;

	name[0] = prefix;
	memcpy(name + 1, key, len);
	known = JB_ROOT_IS_OBJECT(texts) &&
		getKeyJsonValueFromContainer(&texts->root, name, (int) len + 1, &found) != NULL &&
		found.type == jbvNumeric;
	if (known)
		*value = DatumGetInt32(DirectFunctionCall1(numeric_int4,
												   NumericGetDatum(found.val.numeric)));
	pfree(name);
	return known;
}

/* By choice_map ('=' and the exact text), else by label or value ('~' and lower case). */
static bool
choice_of(Jsonb *texts, const char *source, size_t len, int32 *value)
{
	char	   *lowered;
	bool		known;

	if (choice_find(texts, '=', source, len, value))
		return true;
	lowered = str_tolower(source, len, DEFAULT_COLLATION_OID);
	known = choice_find(texts, '~', lowered, strlen(lowered), value);
	pfree(lowered);
	return known;
}

/*
 * dv_choice(source text, texts jsonb) returns the choice value, or NULL where
 * the text is unknown.
 */
Datum
dv_choice(PG_FUNCTION_ARGS)
{
	text	   *source = PG_GETARG_TEXT_PP(0);
	int32		value;

	if (choice_of(PG_GETARG_JSONB_P(1), VARDATA_ANY(source), VARSIZE_ANY_EXHDR(source), &value))
		PG_RETURN_INT32(value);
	PG_RETURN_NULL();
}

static void
choices_begin(Choices *c, FunctionCallInfo fcinfo)
{
	memset(c, 0, sizeof(Choices));
	c->texts = PG_GETARG_JSONB_P(1);
	c->refuse = PG_ARGISNULL(2) || strcmp(text_to_cstring(PG_GETARG_TEXT_PP(2)), "error") == 0;
	c->has_default = !PG_ARGISNULL(3);
	c->default_value = c->has_default ? PG_GETARG_INT32(3) : 0;
	c->room = 16;
	c->values = palloc(sizeof(Datum) * c->room);
}

/* Add a value once. */
static void
choices_put(Choices *c, int32 value)
{
	for (int i = 0; i < c->n; i++)
		if (DatumGetInt32(c->values[i]) == value)
			return;
	if (c->n == c->room)
		c->values = repalloc(c->values, sizeof(Datum) * (c->room *= 2));
	c->values[c->n++] = Int32GetDatum(value);
}

/* Add what one text stands for; blanks around it and empty texts mean nothing. */
static void
choices_add(Choices *c, const char *source, size_t len)
{
	int32		value;

	while (len > 0 && *source == ' ')
		source++, len--;
	while (len > 0 && source[len - 1] == ' ')
		len--;
	if (len == 0)
		return;
	if (choice_of(c->texts, source, len, &value))
		choices_put(c, value);
	else
	{
		c->unknown = true;
		if (c->has_default)
			choices_put(c, c->default_value);
	}
}

static Datum
choices_end(Choices *c, FunctionCallInfo fcinfo)
{
	if (c->unknown && c->refuse)
		PG_RETURN_NULL();
	PG_RETURN_ARRAYTYPE_P(construct_array(c->values, c->n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

/*
 * dv_choices_text(source text, texts jsonb, on_unknown text, default_value int)
 * returns int[]: the text as a whole where it is known, else its parts between
 * semicolons, or between commas where it is made of numbers only.
 */
Datum
dv_choices_text(PG_FUNCTION_ARGS)
{
	Choices		c;
	text	   *source;
	const char *p;
	const char *end;
	char		separator;
	int32		value;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	choices_begin(&c, fcinfo);
	source = PG_GETARG_TEXT_PP(0);
	p = VARDATA_ANY(source);
	end = p + VARSIZE_ANY_EXHDR(source);
	if (choice_of(c.texts, p, end - p, &value))
	{
		choices_put(&c, value);
		return choices_end(&c, fcinfo);
	}
	separator = strspn(text_to_cstring(source), "0123456789-, ") == (size_t) (end - p) ? ',' : ';';
	while (p <= end)
	{
		const char *stop = memchr(p, separator, end - p);

		if (stop == NULL)
			stop = end;
		choices_add(&c, p, stop - p);
		p = stop + 1;
	}
	return choices_end(&c, fcinfo);
}

/* dv_choices_array: the same of texts in an array; nulls in it mean nothing. */
Datum
dv_choices_array(PG_FUNCTION_ARGS)
{
	Choices		c;
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	choices_begin(&c, fcinfo);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		text	   *element = nulls[i] ? NULL : DatumGetTextPP(elements[i]);

		if (element != NULL)
			choices_add(&c, VARDATA_ANY(element), VARSIZE_ANY_EXHDR(element));
	}
	return choices_end(&c, fcinfo);
}

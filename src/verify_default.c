/*
 * verify_default.c - what the service fills in where a create sends nothing
 *
 * A yes/no column's default, an automatic number: that is no difference. It is
 * learnt for each column from the first rows without a value, some at least: what
 * the first of them hold is kept until then. A default is the same value in most of
 * them, an automatic number another one in each.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/uuid.h"

#include "verify.h"

/* So many rows without a value tell what the service fills in. */
#define LEARN_ROWS_MIN	3

/* The values of rows that were left out: those of a page, and what is held. */
typedef struct Values
{
	DvSlice    *values;
	int			n;
	int			nulls;
} Values;

bool
dv_verify_was_left_out(const DvVerifyColumn *c, const DvVerifyRow *row, int i)
{
	return row->created && (!row->updated || (c->send & DV_SEND_UPDATE) == 0) && dv_page_is_null(row->expected[i]);
}

bool
dv_verify_is_default(const DvVerifyColumn *c, DvSlice found)
{
	return c->default_varies ||
		(found.len == strlen(c->default_value) && found.len > 0 && memcmp(found.p, c->default_value, found.len) == 0);
}

/* Yes/no and choice columns, and some lookups, have defaults; other columns are seldom filled in. */
static bool
has_defaults(const DvVerifyColumn *c)
{
	return c->kind == DV_COMPARE_BOOLEAN || c->kind == DV_COMPARE_LOOKUP || (c->kind == DV_COMPARE_NUMBER && !c->summed);
}

static void
add_value(Values *values, DvSlice value)
{
	values->nulls += dv_page_is_null(value);
	values->values[values->n++] = value;
}

/* The most frequent value; how often it is there. */
static int
most_frequent(const Values *values, DvSlice *value)
{
	int			best = 0;
	int			i;
	int			k;

	for (i = 0; i < values->n && values->n - i > best; i++)
	{
		DvSlice		one = values->values[i];
		int			count = 0;

		for (k = i; k < values->n; k++)
		{
			DvSlice		other = values->values[k];

			count += dv_page_is_null(one) ? dv_page_is_null(other) : other.p != NULL && other.len == one.len && memcmp(one.p, other.p, one.len) == 0;
		}
		if (count > best)
		{
			best = count;
			*value = one;
		}
	}
	return best;
}

/* What is held in this list of the same row has been counted. */
static void
count_held(DvHeld *list, const DvHeld *held)
{
	for (; list != NULL; list = list->next)
		list->counted |= memcmp(&list->id, &held->id, UUID_LEN) == 0 && strcmp(list->key, held->key) == 0;
}

/* A held value turns out to be a difference. */
void
dv_verify_note_held(DvVerify *v, const DvVerifyColumn *c, DvHeld *held)
{
	DvVerifyRow row = {.key = held->key,.id = held->id,.has_id = true};
	int			i;

	dv_verify_note(v, &row, c->name, held->expected, held->found, held->kind ? held->kind : held->changed_since ? "changed" : "different");
	v->owners_changed += strcmp(c->name, "ownerid") == 0;
	if (held->kind != NULL || held->counted)
		return;
	v->equal--;
	v->changed += held->changed_since;
	v->different += !held->changed_since;
	/* once, whatever else of the row is held */
	for (i = 0; i < v->ncolumns; i++)
	{
		count_held(v->columns[i].held, held);
		count_held(v->columns[i].held_images, held);
	}
}

/* The column's default is known: what is held is judged. */
static void
settle(DvVerify *v, DvVerifyColumn *c)
{
	DvHeld	   *held;

	c->default_known = true;
	for (held = c->held; held != NULL; held = held->next)
		if (!dv_verify_is_default(c, held->found))
			dv_verify_note_held(v, c, held);
	c->held = NULL;
}

/* What do these values say? */
static void
decide(DvVerify *v, DvVerifyColumn *c, const Values *values)
{
	DvSlice		value = {NULL, 0};
	int			best = most_frequent(values, &value);

	if (best * 2 > values->n || has_defaults(c))
	{
		if (!dv_page_is_null(value) && value.len < sizeof(c->default_value))
			memcpy(c->default_value, value.p, value.len);
	}
	else
		c->default_varies = values->nulls * 2 < values->n;
	settle(v, c);
}

void
dv_verify_learn(DvVerify *v, DvVerifyRow *const *seen, int n)
{
	Values		values = {palloc(sizeof(DvSlice) * (n + LEARN_ROWS_MIN)), 0, 0};
	int			i;
	int			k;

	for (i = 0; i < v->ncolumns; i++)
	{
		DvVerifyColumn *c = &v->columns[i];
		DvHeld	   *held;

		if (c->default_known || c->read_name == NULL)
			continue;
		values.n = values.nulls = 0;
		for (k = 0; k < n; k++)
			if (seen[k]->expected != NULL && seen[k]->fault == NULL && dv_verify_was_left_out(c, seen[k], i))
				add_value(&values, dv_verify_found(seen[k], c));
		if (values.n + c->left_out < LEARN_ROWS_MIN)
			continue;
		for (k = c->left_out, held = c->held; held != NULL; held = held->next, k--)
			add_value(&values, held->found);
		for (; k > 0; k--)
			add_value(&values, (DvSlice) {NULL, 0});
		decide(v, c, &values);
	}
	pfree(values.values);
}

void
dv_verify_hold(DvVerify *v, DvVerifyColumn *c, const DvVerifyRow *row)
{
	MemoryContext old = MemoryContextSwitchTo(v->context);
	DvSlice		found = dv_verify_found(row, c);
	DvHeld	   *held;

	c->left_out++;
	if (!dv_page_is_null(found))
	{
		held = palloc0(sizeof(DvHeld));
		held->key = pstrdup(row->key);
		held->id = row->id;
		held->found.p = memcpy(palloc(found.len), found.p, found.len);
		held->found.len = found.len;
		held->changed_since = dv_verify_changed_since(v, row);
		held->next = c->held;
		c->held = held;
	}
	MemoryContextSwitchTo(old);
}

static void
set_kind(DvHeld *held, const DvVerifyRow *row, const char *kind)
{
	for (; held != NULL; held = held->next)
		if (memcmp(&held->id, &row->id, UUID_LEN) == 0 && strcmp(held->key, row->key) == 0)
			held->kind = kind;
}

void
dv_verify_held_of(DvVerify *v, const DvVerifyRow *row, const char *kind)
{
	int			i;

	for (i = 0; kind != NULL && i < v->ncolumns; i++)
	{
		set_kind(v->columns[i].held, row, kind);
		set_kind(v->columns[i].held_images, row, kind);
	}
}

void
dv_verify_settle_defaults(DvVerify *v)
{
	int			i;

	for (i = 0; i < v->ncolumns; i++)
	{
		DvVerifyColumn *c = &v->columns[i];
		DvHeld	   *last = c->held;

		if (c->default_known || c->read_name == NULL || last == NULL)
			continue;
		/* too few: of two rows that differ none tells a default */
		if (has_defaults(c) && c->left_out == 1 + (last->next != NULL) && last->found.len < sizeof(c->default_value) &&
			(last->next == NULL || (last->next->found.len == last->found.len && memcmp(last->next->found.p, last->found.p, last->found.len) == 0)))
			memcpy(c->default_value, last->found.p, last->found.len);
		settle(v, c);
	}
}

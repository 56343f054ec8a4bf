/*
 * filter_eval.c - asks a filter of a record, in three-valued logic
 *
 * As in SQL a comparison with null is unknown, and "not unknown" is unknown.
 */
#include "filter_eval.h"

#include <stdlib.h>
#include <string.h>

enum {NO, YES, UNKNOWN};

uint64_t
sim_filter_hash(const SimColumn *c, const SimVal *v)
{
	uint64_t	h;
	SimBuf		b = {0};

	switch (c->storage)
	{
		case SIM_ST_TEXT:
			if (c->type == SIM_T_DECIMAL || c->type == SIM_T_MONEY)
				return sim_hash(v->v.s, v->len);
			sim_fold(&b, v->v.s, v->len);
			h = sim_hash(b.data, b.len);
			sim_buf_free(&b);
			return h;
		case SIM_ST_GUID:
			return sim_guid_hash(v->v.g);
		default:
			return sim_hash(&v->v.i, 8);
	}
}

static int
compare_text(const SimVal *a, const SimVal *b)
{
	SimBuf		x = {0},
				y = {0};
	size_t		n;
	int			d;

	sim_fold(&x, a->v.s, a->len);
	sim_fold(&y, b->v.s, b->len);
	n = x.len < y.len ? x.len : y.len;
	d = n > 0 ? memcmp(x.data, y.data, n) : 0;
	if (d == 0)
		d = x.len < y.len ? -1 : x.len > y.len;
	sim_buf_free(&x);
	sim_buf_free(&y);
	return d;
}

static int
compare_double(double a, double b)
{
	return a < b ? -1 : a > b;
}

/* Decimal text is not NUL terminated in a row. */
static double
decimal(const SimVal *v)
{
	char		text[64];
	size_t		n = v->len < sizeof text ? v->len : sizeof text - 1;

	memcpy(text, v->v.s, n);
	text[n] = '\0';
	return strtod(text, NULL);
}

int
sim_value_compare(const SimColumn *c, const SimVal *a, const SimVal *b)
{
	if (c->type == SIM_T_DECIMAL || c->type == SIM_T_MONEY)
		return compare_double(decimal(a), decimal(b));
	switch (c->storage)
	{
		case SIM_ST_TEXT:
			return compare_text(a, b);
		case SIM_ST_DOUBLE:
			return compare_double(a->v.d, b->v.d);
		case SIM_ST_GUID:
			if (a->v.g.hi != b->v.g.hi)
				return a->v.g.hi < b->v.g.hi ? -1 : 1;
			return a->v.g.lo < b->v.g.lo ? -1 : a->v.g.lo > b->v.g.lo;
		default:
			return a->v.i < b->v.i ? -1 : a->v.i > b->v.i;
	}
}

static bool
text_match(const SimFilter *f, const SimVal *v)
{
	SimBuf		b = {0};
	bool		hit = false;

	sim_fold(&b, v->v.s, v->len);
	if (b.len >= f->folded.len)
	{
		if (f->op == SIM_F_STARTS)
			hit = memcmp(b.data, f->folded.s, f->folded.len) == 0;
		else if (f->op == SIM_F_ENDS)
			hit = memcmp(b.data + b.len - f->folded.len, f->folded.s, f->folded.len) == 0;
		else
			hit = memmem(b.data, b.len, f->folded.s, f->folded.len) != NULL;
	}
	sim_buf_free(&b);
	return hit;
}

static bool
in_list(const SimFilter *f, const SimVal *v)
{
	uint64_t	h = sim_filter_hash(f->column, v);
	int			low = 0,
				high = f->n - 1;

	while (low <= high)
	{
		int			mid = (low + high) / 2;

		if (f->hashes[mid] == h)
			break;
		if (f->hashes[mid] < h)
			low = mid + 1;
		else
			high = mid - 1;
	}
	if (low > high)
		return false;
	for (int i = 0; i < f->n; i++)
		if (!f->list[i].null && sim_value_compare(f->column, &f->list[i], v) == 0)
			return true;
	return false;
}

static int
evaluate_leaf(const SimFilter *f, const SimTable *t, const SimSlot *slot)
{
	SimVal		v;
	bool		have;
	int			d;

	if (f->via != NULL)
	{
		uint32_t	at = SIM_NO_SLOT;

		if (sim_record_value(t, slot, f->via->index, &v) && v.target == f->via_table->number)
			at = sim_store_find(f->via_table, v.v.g);
		if (at == SIM_NO_SLOT)
			return f->value.null ? f->op == SIM_F_EQ : UNKNOWN;
		t = f->via_table;
		slot = sim_store_slot(t, at);
	}
	have = sim_record_value(t, slot, f->column->index, &v);

	if (f->op == SIM_F_IN)
		return have ? in_list(f, &v) : UNKNOWN;
	if (f->value.null)
		return f->op == SIM_F_EQ ? !have : f->op == SIM_F_NE ? have : UNKNOWN;
	if (!have)
		return UNKNOWN;
	if (f->op >= SIM_F_CONTAINS)
		return f->column->storage == SIM_ST_TEXT && text_match(f, &v);
	d = sim_value_compare(f->column, &v, &f->value);
	switch (f->op)
	{
		case SIM_F_EQ:
			return d == 0;
		case SIM_F_NE:
			return d != 0;
		case SIM_F_GT:
			return d > 0;
		case SIM_F_GE:
			return d >= 0;
		case SIM_F_LT:
			return d < 0;
		default:
			return d <= 0;
	}
}

static int
evaluate(const SimFilter *f, const SimTable *t, const SimSlot *slot)
{
	int			a,
				b;

	switch (f->op)
	{
		case SIM_F_NOT:
			a = evaluate(f->left, t, slot);
			return a == UNKNOWN ? UNKNOWN : a == NO;
		case SIM_F_AND:
			a = evaluate(f->left, t, slot);
			if (a == NO)
				return NO;
			b = evaluate(f->right, t, slot);
			return b == NO ? NO : a == YES && b == YES ? YES : UNKNOWN;
		case SIM_F_OR:
			a = evaluate(f->left, t, slot);
			if (a == YES)
				return YES;
			b = evaluate(f->right, t, slot);
			return b == YES ? YES : a == NO && b == NO ? NO : UNKNOWN;
		default:
			return evaluate_leaf(f, t, slot);
	}
}

bool
sim_filter_match(const SimFilter *f, const SimTable *t, const SimSlot *slot)
{
	return f == NULL || evaluate(f, t, slot) == YES;
}

const SimFilter *
sim_filter_ids(const SimFilter *f)
{
	const SimFilter *hit;

	if (f == NULL)
		return NULL;
	if (f->op == SIM_F_AND)
		return (hit = sim_filter_ids(f->left)) != NULL ? hit : sim_filter_ids(f->right);
	if ((f->op == SIM_F_IN || (f->op == SIM_F_EQ && !f->value.null)) && f->via == NULL && f->column->implied == SIM_I_ID)
		return f;
	return NULL;
}

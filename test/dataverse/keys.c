/*
 * keys.c - alternate keys: unique indexes over one or more columns
 *
 * Rows with a null in a key column are not in the index. Text is compared
 * without regard to case and trailing blanks unless the switches key_case and
 * key_blanks say otherwise; an index that is not Active is neither searched nor enforced.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "store.h"
#include "switches.h"

struct SimKeyIndex
{
	uint64_t   *hashes;
	uint32_t   *slots;			/* slot + 1; 0 is empty */
	uint32_t	mask;
	uint32_t	n;
};

bool
sim_key_active(const SimKey *k)
{
	return strcasecmp(k->status, "Active") == 0;
}

static void
put_value(SimBuf *b, const SimTable *t, const SimVal *v)
{
	size_t		at = b->len;
	uint32_t	len;

	sim_buf_add(b, "\0\0\0\0", 4);
	switch (t->columns[v->column].storage)
	{
		case SIM_ST_TEXT:
			if (sim_sw.key_case == SIM_KEY_CASE_SENSITIVE)
				sim_buf_add(b, v->v.s, v->len);
			else
			{
				sim_fold(b, v->v.s, v->len);
				for (size_t i = v->len; sim_sw.key_blanks && i > 0 && v->v.s[i - 1] == ' '; i--)
					sim_buf_char(b, ' ');
			}
			break;
		case SIM_ST_GUID:
			sim_buf_add(b, &v->v.g, sizeof(SimGuid));
			break;
		default:
			sim_buf_add(b, &v->v.i, 8);
	}
	len = (uint32_t) (b->len - at);
	memcpy(b->data + at, &len, 4);
}

/* The row's key as bytes; false when a key column is null. */
static bool
row_key(SimBuf *b, const SimTable *t, const SimKey *k, const SimRow *row)
{
	SimVal		v;

	b->len = 0;
	for (int i = 0; i < k->n_columns; i++)
	{
		if (!sim_row_cell(t, row, k->columns[i], &v))
			return false;
		put_value(b, t, &v);
	}
	return true;
}

/* Position of an equal entry, or UINT32_MAX. */
static uint32_t
search(const SimTable *t, const SimKey *k, const SimBuf *key, uint64_t hash)
{
	const struct SimKeyIndex *x = k->index;
	SimBuf		other = {0};
	uint32_t	found = UINT32_MAX;

	for (uint32_t at = (uint32_t) hash & x->mask; x->slots[at] != 0; at = (at + 1) & x->mask)
	{
		const SimRow *row = t->store->slots[x->slots[at] - 1].row;

		if (x->hashes[at] == hash && row_key(&other, t, k, row) && other.len == key->len &&
			memcmp(other.data, key->data, key->len) == 0)
		{
			found = at;
			break;
		}
	}
	sim_buf_free(&other);
	return found;
}

static void
insert(struct SimKeyIndex *x, uint64_t hash, uint32_t slot)
{
	uint32_t	at = (uint32_t) hash & x->mask;

	while (x->slots[at] != 0)
		at = (at + 1) & x->mask;
	x->slots[at] = slot + 1;
	x->hashes[at] = hash;
	x->n++;
}

static void
grow(struct SimKeyIndex *x)
{
	struct SimKeyIndex old = *x;

	x->mask = old.mask * 2 + 1;
	x->slots = sim_zalloc(sizeof *x->slots * ((size_t) x->mask + 1));
	x->hashes = sim_alloc(sizeof *x->hashes * ((size_t) x->mask + 1));
	x->n = 0;
	for (uint32_t i = 0; i <= old.mask; i++)
		if (old.slots[i] != 0)
			insert(x, old.hashes[i], old.slots[i] - 1);
	free(old.slots);
	free(old.hashes);
}

/* Take an entry out and move up those that were pushed behind it. */
static void
take_out(struct SimKeyIndex *x, uint32_t at)
{
	uint32_t	next = at;

	x->n--;
	for (;;)
	{
		x->slots[at] = 0;
		for (;;)
		{
			uint32_t	home;

			next = (next + 1) & x->mask;
			if (x->slots[next] == 0)
				return;
			home = (uint32_t) x->hashes[next] & x->mask;
			if (((next - home) & x->mask) >= ((next - at) & x->mask))
				break;
		}
		x->slots[at] = x->slots[next];
		x->hashes[at] = x->hashes[next];
		at = next;
	}
}

void
sim_key_add(SimTable *t, uint32_t slot, const SimRow *row)
{
	SimBuf		b = {0};

	for (int i = 0; i < t->n_keys; i++)
	{
		SimKey	   *k = &t->keys[i];

		if (k->index == NULL || !row_key(&b, t, k, row))
			continue;
		if (k->index->n * 2 > k->index->mask)
			grow(k->index);
		insert(k->index, sim_hash(b.data, b.len), slot);
	}
	sim_buf_free(&b);
}

void
sim_key_remove(SimTable *t, uint32_t slot, const SimRow *row)
{
	SimBuf		b = {0};

	for (int i = 0; i < t->n_keys; i++)
	{
		SimKey	   *k = &t->keys[i];
		uint64_t	hash;

		if (k->index == NULL || !row_key(&b, t, k, row))
			continue;
		hash = sim_hash(b.data, b.len);
		for (uint32_t at = (uint32_t) hash & k->index->mask; k->index->slots[at] != 0; at = (at + 1) & k->index->mask)
			if (k->index->slots[at] == slot + 1 && k->index->hashes[at] == hash)
			{
				take_out(k->index, at);
				break;
			}
	}
	sim_buf_free(&b);
}

/* Text of a key value for messages. */
static void
show(SimBuf *b, const SimTable *t, const SimVal *v)
{
	switch (t->columns[v->column].storage)
	{
		case SIM_ST_TEXT:
			sim_buf_add(b, v->v.s, v->len);
			break;
		case SIM_ST_GUID:
			sim_buf_guid(b, v->v.g);
			break;
		default:
			sim_buf_printf(b, "%lld", (long long) v->v.i);
	}
}

static bool
violated(const SimTable *t, const SimKey *k, const SimRow *row, SimErr *e)
{
	SimBuf		names = {0},
				values = {0};

	sim_buf_puts(&values, "<DuplicateAttributes>");
	for (int i = 0; i < k->n_columns; i++)
	{
		const char *name = t->columns[k->columns[i]].name;
		SimVal		v;

		sim_buf_printf(&names, "%s%s", i > 0 ? ", " : "", name);
		sim_buf_printf(&values, "<%s>", name);
		if (sim_row_cell(t, row, k->columns[i], &v))
			show(&values, t, &v);
		sim_buf_printf(&values, "</%s>", name);
	}
	sim_buf_puts(&values, "</DuplicateAttributes>");
	sim_fail(e, 412, SIM_E_KEY_VIOLATED,
			 "Entity Key %s violated. A record with the same value for %s already exists. A duplicate record cannot be "
			 "created. Select one or more unique values and try again.", k->name, names.data);
	snprintf(e->duplicate, sizeof e->duplicate, "%s", values.data);
	sim_buf_free(&names);
	sim_buf_free(&values);
	return false;
}

bool
sim_key_check(const SimTable *t, SimGuid self, const SimRow *row, SimErr *e)
{
	SimBuf		b = {0};
	bool		ok = true;

	for (int i = 0; ok && i < t->n_keys; i++)
	{
		const SimKey *k = &t->keys[i];
		uint32_t	at;

		if (k->index == NULL || !row_key(&b, t, k, row))
			continue;
		at = search(t, k, &b, sim_hash(b.data, b.len));
		if (at != UINT32_MAX && !sim_guid_eq(t->store->slots[k->index->slots[at] - 1].id, self))
			ok = violated(t, k, row, e);
	}
	sim_buf_free(&b);
	return ok;
}

uint32_t
sim_key_find(const SimTable *t, const SimKey *k, const SimVal *vals)
{
	SimBuf		b = {0};
	uint32_t	at;

	if (k->index == NULL)
		return SIM_NO_SLOT;
	for (int i = 0; i < k->n_columns; i++)
		put_value(&b, t, &vals[i]);
	at = search(t, k, &b, sim_hash(b.data, b.len));
	sim_buf_free(&b);
	return at != UINT32_MAX ? k->index->slots[at] - 1 : SIM_NO_SLOT;
}

void
sim_key_rebuild(SimTable *t, SimKey *k)
{
	SimBuf		b = {0};

	if (k->index != NULL)
	{
		free(k->index->slots);
		free(k->index->hashes);
		free(k->index);
		k->index = NULL;
	}
	if (!sim_key_active(k))
		return;
	k->index = sim_zalloc(sizeof *k->index);
	k->index->mask = 255;
	k->index->slots = sim_zalloc(sizeof *k->index->slots * 256);
	k->index->hashes = sim_alloc(sizeof *k->index->hashes * 256);
	for (uint32_t i = 0; i < t->store->n; i++)
	{
		if (t->store->slots[i].row == NULL || !row_key(&b, t, k, t->store->slots[i].row))
			continue;
		if (k->index->n * 2 > k->index->mask)
			grow(k->index);
		insert(k->index, sim_hash(b.data, b.len), i);
	}
	sim_buf_free(&b);
}

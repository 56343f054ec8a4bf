/*
 * links.c - many-to-many links: a set of pairs for each relationship
 */
#include <stdlib.h>
#include <string.h>

#include "store.h"

typedef struct Pair
{
	SimGuid		a;
	SimGuid		b;
	bool		live;
} Pair;

/* Pairs in order of arrival, and a hash over them; removed pairs stay dead. */
struct SimLinks
{
	Pair	   *pairs;
	uint32_t	n;
	uint32_t	cap;
	uint32_t   *hash;
	uint32_t	mask;
};

static uint32_t
home(const struct SimLinks *l, SimGuid a, SimGuid b)
{
	return (uint32_t) (sim_guid_hash(a) * 31 + sim_guid_hash(b)) & l->mask;
}

static Pair *
find(const struct SimLinks *l, SimGuid a, SimGuid b)
{
	if (l == NULL || l->hash == NULL)
		return NULL;
	for (uint32_t at = home(l, a, b); l->hash[at] != 0; at = (at + 1) & l->mask)
	{
		Pair	   *p = &l->pairs[l->hash[at] - 1];

		if (sim_guid_eq(p->a, a) && sim_guid_eq(p->b, b))
			return p;
	}
	return NULL;
}

static void
enter(struct SimLinks *l, uint32_t i)
{
	uint32_t	at = home(l, l->pairs[i].a, l->pairs[i].b);

	while (l->hash[at] != 0)
		at = (at + 1) & l->mask;
	l->hash[at] = i + 1;
}

static void
set_live(SimManyToMany *r, SimGuid a, SimGuid b, bool live)
{
	struct SimLinks *l = r->links;
	Pair	   *p = find(l, a, b);

	if (p != NULL)
	{
		p->live = live;
		return;
	}
	if (l == NULL)
		l = r->links = sim_zalloc(sizeof *l);
	if (l->n == l->cap)
	{
		l->cap = l->cap ? l->cap * 2 : 64;
		l->pairs = sim_realloc(l->pairs, sizeof *l->pairs * l->cap);
	}
	l->pairs[l->n++] = (Pair) {a, b, live};
	if (l->hash != NULL && l->n * 2 <= l->mask)
	{
		enter(l, l->n - 1);
		return;
	}
	l->mask = l->hash != NULL ? l->mask * 2 + 1 : 255;
	free(l->hash);
	l->hash = sim_zalloc(sizeof *l->hash * ((size_t) l->mask + 1));
	for (uint32_t i = 0; i < l->n; i++)
		enter(l, i);
}

bool
sim_txn_link(SimTxn *x, SimManyToMany *r, SimGuid a, SimGuid b)
{
	Pair	   *p = find(r->links, a, b);

	if (p != NULL && p->live)
		return false;
	set_live(r, a, b, true);
	sim_txn_note_link(x, r, a, b, true);
	return true;
}

bool
sim_txn_unlink(SimTxn *x, SimManyToMany *r, SimGuid a, SimGuid b)
{
	Pair	   *p = find(r->links, a, b);

	if (p == NULL || !p->live)
		return false;
	p->live = false;
	sim_txn_note_link(x, r, a, b, false);
	return true;
}

void
sim_links_undo(SimManyToMany *r, SimGuid a, SimGuid b, bool was_added)
{
	set_live(r, a, b, !was_added);
}

/* A deleted record takes its links with it. */
static bool
alive(const SimManyToMany *r, const Pair *p)
{
	return (r->side[0] == NULL || sim_store_find(r->side[0], p->a) != SIM_NO_SLOT) &&
		(r->side[1] == NULL || sim_store_find(r->side[1], p->b) != SIM_NO_SLOT);
}

void
sim_links_each(const SimManyToMany *r, int side, const SimGuid *id,
			   void (*call) (void *arg, SimGuid a, SimGuid b), void *arg)
{
	const struct SimLinks *l = r->links;

	for (uint32_t i = 0; l != NULL && i < l->n; i++)
	{
		const Pair *p = &l->pairs[i];

		if (p->live && alive(r, p) && (id == NULL || sim_guid_eq(side == 0 ? p->a : p->b, *id)))
			call(arg, p->a, p->b);
	}
}

void
sim_links_clear(void)
{
	for (int i = 0; i < sim_model.n_relations; i++)
	{
		struct SimLinks *l = sim_model.relations[i]->links;

		if (l == NULL)
			continue;
		free(l->pairs);
		free(l->hash);
		free(l);
		sim_model.relations[i]->links = NULL;
	}
}

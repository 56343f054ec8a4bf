/*
 * row.c - packs values into row blocks and reads them back
 *
 * Cells are followed by their values: eight bytes for numbers and dates,
 * sixteen for GUIDs, a four byte length and the bytes for text. Offsets are
 * not aligned; memcpy reads them.
 */
#include "store.h"

#include <string.h>

static size_t
packed_size(const SimTable *t, const SimVal *v)
{
	switch (t->columns[v->column].storage)
	{
		case SIM_ST_TEXT:
			return 4 + (size_t) v->len;
		case SIM_ST_GUID:
			return sizeof(SimGuid);
		default:
			return 8;
	}
}

static size_t
cell_size(const SimTable *t, const SimRow *row, const SimCell *c)
{
	uint32_t	len;

	switch (t->columns[c->column].storage)
	{
		case SIM_ST_TEXT:
			memcpy(&len, (const char *) row + c->at, 4);
			return 4 + (size_t) len;
		case SIM_ST_GUID:
			return sizeof(SimGuid);
		default:
			return 8;
	}
}

static void
pack(const SimTable *t, char *to, const SimVal *v)
{
	switch (t->columns[v->column].storage)
	{
		case SIM_ST_TEXT:
			memcpy(to, &v->len, 4);
			memcpy(to + 4, v->v.s, v->len);
			break;
		case SIM_ST_GUID:
			memcpy(to, &v->v.g, sizeof(SimGuid));
			break;
		case SIM_ST_DOUBLE:
			memcpy(to, &v->v.d, 8);
			break;
		default:
			memcpy(to, &v->v.i, 8);
	}
}

static bool
overridden(uint16_t column, const SimVal *vals, int n)
{
	for (int i = 0; i < n; i++)
		if (vals[i].column == column)
			return true;
	return false;
}

SimRow *
sim_row_build(const SimTable *t, const SimRow *old, const SimVal *vals, int n)
{
	size_t		size = sizeof(SimRow),
				at;
	int			cells = 0,
				k = 0;
	SimRow	   *row;

	for (int i = 0; i < n; i++)
		if (!vals[i].null)
		{
			size += sizeof(SimCell) + packed_size(t, &vals[i]);
			cells++;
		}
	for (int i = 0; old != NULL && i < old->n_cells; i++)
		if (!overridden(old->cells[i].column, vals, n))
		{
			size += sizeof(SimCell) + cell_size(t, old, &old->cells[i]);
			cells++;
		}
	row = sim_alloc(size);
	if (old != NULL)
		*row = *old;
	else
		memset(row, 0, sizeof *row);
	row->n_cells = (uint16_t) cells;
	row->bytes = (uint32_t) size;
	at = sizeof(SimRow) + sizeof(SimCell) * (size_t) cells;
	for (int i = 0; i < n; i++)
	{
		if (vals[i].null)
			continue;
		row->cells[k++] = (SimCell) {vals[i].column, vals[i].target, (uint32_t) at};
		pack(t, (char *) row + at, &vals[i]);
		at += packed_size(t, &vals[i]);
	}
	for (int i = 0; old != NULL && i < old->n_cells; i++)
	{
		const SimCell *c = &old->cells[i];
		size_t		len;

		if (overridden(c->column, vals, n))
			continue;
		len = cell_size(t, old, c);
		row->cells[k++] = (SimCell) {c->column, c->target, (uint32_t) at};
		memcpy((char *) row + at, (const char *) old + c->at, len);
		at += len;
	}
	return row;
}

bool
sim_row_cell(const SimTable *t, const SimRow *row, uint16_t column, SimVal *out)
{
	for (int i = 0; i < row->n_cells; i++)
	{
		const char *p;

		if (row->cells[i].column != column)
			continue;
		p = (const char *) row + row->cells[i].at;
		memset(out, 0, sizeof *out);
		out->column = column;
		out->target = row->cells[i].target;
		switch (t->columns[column].storage)
		{
			case SIM_ST_TEXT:
				memcpy(&out->len, p, 4);
				out->v.s = p + 4;
				break;
			case SIM_ST_GUID:
				memcpy(&out->v.g, p, sizeof(SimGuid));
				break;
			case SIM_ST_DOUBLE:
				memcpy(&out->v.d, p, 8);
				break;
			default:
				memcpy(&out->v.i, p, 8);
		}
		return true;
	}
	return false;
}

/* A lookup to a user or team by principal number. */
static bool
principal(SimVal *out, uint32_t number, bool team)
{
	out->target = (team ? sim_model.teams : sim_model.users)->number;
	out->v.g = sim_principal_guid(number);
	return number != 0;
}

/* The root business unit is the first record of its table. */
static bool
root_unit(SimVal *out)
{
	SimTable   *t = sim_model.units;

	if (t->store->n == 0)
		return false;
	out->target = t->number;
	out->v.g = t->store->slots[0].id;
	return true;
}

/* Exchange rate of the record's currency; the base currency's is 1. */
static bool
exchange_rate(const SimTable *t, const SimRow *row, SimVal *out)
{
	SimTable   *currency = sim_model.currencies;
	SimColumn  *rate = sim_table_column(currency, "exchangerate", 12);
	SimVal		v;
	uint32_t	at;

	out->v.s = "1.0000000000";
	out->len = 12;
	if (t->currency_column == NULL || !sim_row_cell(t, row, t->currency_column->index, &v))
		return t->currency_column != NULL;
	if (rate != NULL && (at = sim_store_find(currency, v.v.g)) != SIM_NO_SLOT &&
		sim_row_cell(currency, currency->store->slots[at].row, rate->index, &v))
	{
		out->v.s = v.v.s;
		out->len = v.len;
	}
	return true;
}

/* Another image has another id: it is made of what the image holds (FNV-1a, from two beginnings). */
static bool
image_id(const SimTable *t, const SimRow *row, uint16_t image, SimVal *out)
{
	SimGuid		h = {0xcbf29ce484222325u, 0x84222325cbf29ce4u};
	SimVal		v;

	if (!sim_row_cell(t, row, image, &v))
		return false;
	for (uint32_t i = 0; i < v.len; i++)
	{
		h.hi = (h.hi ^ (unsigned char) v.v.s[i]) * 0x100000001b3u;
		h.lo = (h.lo ^ (unsigned char) v.v.s[i]) * 0x100000001b3u;
	}
	out->v.g = h;
	return true;
}

bool
sim_record_value(const SimTable *t, const SimSlot *slot, uint16_t column, SimVal *out)
{
	const SimRow *row = slot->row;
	const SimColumn *c = &t->columns[column];

	if (c->implied == SIM_I_NONE)
		return sim_row_cell(t, row, column, out);
	memset(out, 0, sizeof *out);
	out->column = column;
	switch (c->implied)
	{
		case SIM_I_ID:
			out->v.g = slot->id;
			return true;
		case SIM_I_CREATEDON:
			out->v.i = row->created_on;
			return true;
		case SIM_I_MODIFIEDON:
			out->v.i = row->modified_on;
			return true;
		case SIM_I_OVERRIDDEN:
			out->v.i = row->overridden_on;
			return row->overridden_on != SIM_NO_TIME;
		case SIM_I_VERSION:
			out->v.i = (int64_t) row->version;
			return true;
		case SIM_I_CREATEDBY:
			return principal(out, row->created_by, false);
		case SIM_I_MODIFIEDBY:
			return principal(out, row->modified_by, false);
		case SIM_I_CREATEDBEHALF:
			return principal(out, row->behalf_of, false);
		case SIM_I_OWNER:
			return principal(out, row->owner, row->owner_is_team);
		case SIM_I_OWNINGUSER:
			return !row->owner_is_team && principal(out, row->owner, false);
		case SIM_I_OWNINGTEAM:
			return row->owner_is_team && principal(out, row->owner, true);
		case SIM_I_OWNINGUNIT:
			return root_unit(out);
		case SIM_I_EXCHANGERATE:
			if (t == sim_model.currencies)
				return sim_row_cell(t, row, column, out);
			return exchange_rate(t, row, out);
		case SIM_I_IMAGEID:
			return image_id(t, row, c->base_of, out);
		default:
			/* Base amounts: rate 1 stands for every currency in a test. */
			return sim_row_cell(t, row, c->base_of, out);
	}
}

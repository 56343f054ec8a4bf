/*
 * flagged.c - a row version with another flag and id
 *
 * Taking a row of many columns apart and putting it together again costs more
 * than all else about a flag. Most rows need not be: a flag is one byte that
 * another takes the place of, and the id, which add_table puts last, is written
 * over the one that is there, or where there is none, behind everything else.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "utils/builtins.h"

#include "compat.h"
#include "flagged.h"

/* What a tuple made from its columns has of these; the rest is of the version's life. */
#define MADE_BITS	(HEAP_HASNULL | HEAP_HASVARWIDTH | HEAP_HASEXTERNAL)

/* Where a value is in its tuple; -1 where the column is null. */
static int
place_of(HeapTuple tuple, TupleDesc desc, AttrNumber at)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, at, desc, &isnull);

	return isnull ? -1 : (int) (DatumGetPointer(value) - (char *) tuple->t_data);
}

/* Is there a flag at this place: one character behind a length of one byte? */
static bool
is_flag(HeapTuple tuple, int place)
{
	char	   *value = (char *) tuple->t_data + place;

	return place >= 0 && VARATT_IS_SHORT(value) && VARSIZE_SHORT(value) == VARHDRSZ_SHORT + 1;
}

/* Where the values of these columns end, the first of which, not null, is at a place that is known. */
static uint32
end_of(HeapTuple tuple, TupleDesc desc, AttrNumber at, AttrNumber last, int place)
{
	char	   *values = (char *) tuple->t_data + tuple->t_data->t_hoff;
	uint32		end = place - tuple->t_data->t_hoff;

	for (; at <= last; at++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, at - 1);

		if (HeapTupleHasNulls(tuple) && att_isnull(at - 1, tuple->t_data->t_bits))
			continue;
		end = att_align_pointer(end, column->attalign, column->attlen, values + end);
		end = att_addlength_pointer(end, column->attlen, values + end);
	}
	return end + tuple->t_data->t_hoff;
}

/* A copy with room for "growth" bytes at its end, of the row alone: no version of it yet. */
static HeapTuple
copy(HeapTuple old, int natts, int growth)
{
	HeapTuple	made = palloc(HEAPTUPLESIZE + old->t_len + growth);

	made->t_len = old->t_len + growth;
	made->t_self = old->t_self;
	made->t_tableOid = old->t_tableOid;
	made->t_data = (HeapTupleHeader) ((char *) made + HEAPTUPLESIZE);
	memcpy(made->t_data, old->t_data, old->t_len);
	made->t_data->t_infomask &= MADE_BITS;
	made->t_data->t_infomask2 = 0;
	HeapTupleHeaderSetNatts(made->t_data, natts);
	return made;
}

/* The tuple from its columns. */
static HeapTuple
form(HeapTuple old, TupleDesc desc, AttrNumber flag_at, char flag, AttrNumber id_at, const pg_uuid_t *id)
{
	Datum		values[2] = {PointerGetDatum(cstring_to_text_with_len(&flag, 1)), (Datum) 0};
	bool		nulls[2] = {false, false};
	int			columns[2] = {flag_at, id_at};

	if (id != NULL)
		values[1] = UUIDPGetDatum(id);
	return heap_modify_tuple_by_cols(old, desc, id != NULL ? 2 : 1, columns, values, nulls);
}

HeapTuple
dv_flagged(HeapTuple old, TupleDesc desc, AttrNumber flag_at, char flag, AttrNumber id_at, const pg_uuid_t *id)
{
	bool		whole = HeapTupleHeaderGetNatts(old->t_data) == desc->natts && (old->t_data->t_infomask & HEAP_HASOID_OLD) == 0;
	int			flag_place = whole ? place_of(old, desc, flag_at) : -1;
	int			id_place = whole && id != NULL ? place_of(old, desc, id_at) : -1;
	bool		append = id != NULL && id_place < 0;
	HeapTuple	made;

	/* an id goes to the end only where nothing is between the columns before it and that */
	if (!is_flag(old, flag_place) ||
		(append && (id_at < flag_at || end_of(old, desc, flag_at, id_at - 1, flag_place) != old->t_len)))
		return form(old, desc, flag_at, flag, id_at, id);
	made = copy(old, desc->natts, append ? UUID_LEN : 0);
	*VARDATA_SHORT((char *) made->t_data + flag_place) = flag;
	if (append)
	{
		id_place = (int) old->t_len;
		made->t_data->t_bits[(id_at - 1) >> 3] |= 1 << ((id_at - 1) & 0x07);
	}
	if (id != NULL)
		memcpy((char *) made->t_data + id_place, id->data, UUID_LEN);
	return made;
}

/*
 * verify_judge.c - records against what their rows map to
 *
 * A record is missing, equal, different, or changed since by another user. What
 * the service fills in itself where a create sends nothing is no difference: see
 * verify_default.c.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "answer.h"
#include "encode.h"
#include "lanes.h"
#include "verify.h"
#include "wiretext.h"

static const DvSlice nothing = {NULL, 0};

/* ---------------------------------------------------------------- a page's records to their rows */

static bool
is_named(DvSlice name, const char *wanted, size_t len)
{
	return name.len == len && memcmp(name.p, wanted, len) == 0;
}

/* The first of the rows with this id (two rows may mean one record), or NULL. */
static DvVerifyRow *
first_row(DvVerifyRow *rows, int n, const pg_uuid_t *id)
{
	int			low = 0;
	int			high = n;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (memcmp(rows[middle].id.data, id->data, UUID_LEN) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low < n && memcmp(rows[low].id.data, id->data, UUID_LEN) == 0 ? &rows[low] : NULL;
}

/*
 * Which of the members that are of use is this one? Records of one answer have
 * theirs in the same order, so that the one of the record before is tried first.
 */
static int
told_of(DvVerify *v, int place, DvSlice name)
{
	int			i;

	if (place < DV_TOLD_PLACES && is_named(name, v->told[v->told_places[place]].name, v->told[v->told_places[place]].len))
		return v->told_places[place];
	for (i = DV_TOLD_ID; i < v->ntold; i++)
		if (is_named(name, v->told[i].name, v->told[i].len))
			break;
	if (i == v->ntold)
		return DV_TOLD_NOTHING;
	if (place < DV_TOLD_PLACES)
		v->told_places[place] = (short) i;
	return i;
}

/* Read a record that was entered, what is of use of it into "told". */
static bool
read_record(DvVerify *v, DvPage *page, DvSlice *told, DvSlice *record)
{
	const char *at = record->p;
	DvSlice		name;
	DvSlice		value;
	int			place = 0;

	memset(told, 0, sizeof(DvSlice) * v->ntold);
	while (dv_page_member(*record, &at, &name, &value))
		told[told_of(v, place++, name)] = value;
	told[DV_TOLD_NOTHING] = nothing;
	return dv_page_leave(page, at, record);
}

/* Room for what is told of so many records. */
static DvSlice *
room_for(DvVerify *v, int records)
{
	if (records > v->told_room)
	{
		if (v->told_values != NULL)
			pfree(v->told_values);
		v->told_values = MemoryContextAlloc(v->context, sizeof(DvSlice) * v->ntold * records);
		v->told_room = records;
	}
	return v->told_values;
}

/* ---------------------------------------------------------------- one row */

/* Has this column been sent for the row at all? */
bool
dv_verify_was_sent(const DvVerifyColumn *c, const DvVerifyRow *row)
{
	if (c->deferred && row->state == 'S')
		return false;
	return c->late || ((c->send & DV_SEND_INSERT) != 0 && row->created) || ((c->send & DV_SEND_UPDATE) != 0 && (row->updated || (c->send & DV_SEND_INSERT) != 0));
}

bool
dv_verify_is_sent(const DvVerifyColumn *c, const DvVerifyRow *row)
{
	return c->read_name != NULL && dv_verify_was_sent(c, row);
}

static bool
points_elsewhere(const DvVerifyColumn *c, const DvVerifyRow *row, int i)
{
	const char *table = c->kind == DV_COMPARE_LOOKUP && row->part[i] >= 0 ? c->referenced[(int) row->part[i]] : NULL;
	DvSlice		found = row->told[c->told_table];

	/* an owner's column may say principal, or nothing */
	return table != NULL && found.p != NULL && !dv_page_is_null(row->expected[i]) && !dv_page_is_null(dv_verify_found(row, c)) &&
		!dv_page_is_null(found) && !is_named((DvSlice) {found.p + 1, found.len - 2}, table, strlen(table));
}

bool
dv_verify_is_equal(const DvVerifyColumn *c, const DvVerifyRow *row, int i)
{
	if (c->optional && dv_page_is_null(row->expected[i]))
		return true;
	if (c->kind == DV_COMPARE_PARTIES)
		return dv_verify_same_parties(c->referenced[0], row->expected[i], dv_verify_found(row, c));
	if (dv_compare_equal(c->kind, c->precision, row->expected[i], dv_verify_found(row, c)))
		return !points_elsewhere(c, row, i);
	return dv_verify_was_left_out(c, row, i) && dv_verify_is_default(c, dv_verify_found(row, c));
}

static TimestampTz
read_time(DvSlice value)
{
	char		text[40];

	return value.p != NULL && dv_page_text(value, text, sizeof(text)) < sizeof(text) ? dv_settle_instant(text) : 0;
}

static inline DvSlice
context_of(const DvVerify *v, const DvVerifyRow *row, DvVerifyContext member)
{
	return row->told[v->told_context[member]];
}

/*
 * Has somebody else written the record since we did? Whoever made a record that
 * we created is one of ours, be it another application user or one who was
 * impersonated. A record that was kept as it was found is another's to begin with.
 */
bool
dv_verify_changed_since(const DvVerify *v, const DvVerifyRow *row)
{
	pg_uuid_t	modifier;
	pg_uuid_t	maker;
	char		text[37];

	if (!dv_page_uuid(context_of(v, row, DV_VERIFY_MODIFIED_BY), modifier.data))
		return false;
	dv_source_format_id(&modifier, text);
	if (dv_lanes_is_user(v->rc->lanes, text))
		return false;
	if (row->created && dv_page_uuid(context_of(v, row, DV_VERIFY_CREATED_BY), maker.data) && memcmp(&maker, &modifier, UUID_LEN) == 0)
		return false;
	return !row->kept || row->recorded_at == 0 ||
		read_time(context_of(v, row, DV_VERIFY_MODIFIED_ON)) > row->recorded_at - (int64) DV_CLOCK_SKEW_S * USECS_PER_SEC;
}

/* A record that we made and gave no owner belongs to whom it was made by. */
static bool
has_other_owner(const DvVerify *v, const DvVerifyRow *row)
{
	DvSlice		owner = context_of(v, row, DV_VERIFY_OWNER);
	DvSlice		maker = context_of(v, row, DV_VERIFY_CREATED_BY);
	pg_uuid_t	owner_id;
	pg_uuid_t	maker_id;

	if (!row->created || (owner.len == maker.len && owner.len > 0 && memcmp(owner.p, maker.p, owner.len) == 0))
		return false;
	return dv_page_uuid(owner, owner_id.data) && dv_page_uuid(maker, maker_id.data) && memcmp(&owner_id, &maker_id, UUID_LEN) != 0;
}

static void
judge_loaded(DvVerify *v, DvVerifyRow *row)
{
	const char *kind = NULL;
	bool		other_owner = has_other_owner(v, row);
	bool		owner_differs = other_owner;
	int			i;

	v->compared++;
	if (row->fault != NULL)
	{
		char	   *quoted = psprintf("\"%s\"", row->fault);

		kind = "different";
		dv_verify_note(v, row, NULL, (DvSlice) {quoted, strlen(quoted)}, nothing, kind);
	}
	for (i = 0; row->fault == NULL && i < v->ncolumns; i++)
	{
		DvVerifyColumn *c = &v->columns[i];

		if (!dv_verify_is_sent(c, row))
			continue;
		if (c->summed)
		{
			dv_verify_sum(v, &c->source, row->expected[i]);
			dv_verify_sum(v, &c->target, dv_verify_found(row, c));
		}
		if (!c->default_known && dv_verify_was_left_out(c, row, i))
		{
			dv_verify_hold(v, c, row);
			continue;
		}
		if (dv_verify_is_equal(c, row, i))
			continue;
		if (kind == NULL)
			kind = dv_verify_changed_since(v, row) ? "changed" : "different";
		owner_differs |= strcmp(c->name, "ownerid") == 0;
		dv_verify_note(v, row, c->name, row->expected[i],
					   points_elsewhere(c, row, i) && dv_compare_equal(c->kind, c->precision, row->expected[i], dv_verify_found(row, c))
					   ? row->told[c->told_table] : dv_verify_found(row, c), kind);
	}
	if (other_owner)
	{
		if (kind == NULL)
			kind = dv_verify_changed_since(v, row) ? "changed" : "different";
		dv_verify_note(v, row, "ownerid", context_of(v, row, DV_VERIFY_CREATED_BY), context_of(v, row, DV_VERIFY_OWNER), kind);
	}
	v->owners_changed += owner_differs;
	dv_verify_held_of(v, row, kind);
	row->verdict = kind;
	dv_verify_want_images(v, row);
	row->changed_since = (row->files != NULL || row->images != NULL) && dv_verify_changed_since(v, row);
	if (kind == NULL)
		v->equal++;
	else if (strcmp(kind, "changed") == 0)
		v->changed++;
	else
		v->different++;
}

void
dv_verify_different_too(DvVerify *v, DvVerifyRow *row, const char *column, DvSlice expected, DvSlice found)
{
	const char *kind = row->changed_since ? "changed" : "different";

	dv_verify_note(v, row, column, expected, found, row->verdict ? row->verdict : kind);
	dv_verify_held_of(v, row, kind);
	if (row->verdict != NULL)
		return;
	row->verdict = kind;
	v->equal--;
	v->changed += row->changed_since;
	v->different += !row->changed_since;
}

static void
judge_seen(DvVerify *v, DvVerifyRow *row)
{
	if (v->rebuild != NULL)
		return;					/* that it was seen is all that matters */
	if (v->projection->link != NULL)
		dv_verify_judge_left(v, row);
	else if (v->resend != NULL)
		dv_resend_judge(v, row, row->told[DV_TOLD_ETAG]);
	else if (dv_verify_is_loaded(row))
		judge_loaded(v, row);
	else if (row->state == 'D' || row->state == 'G' || !row->has_record)
	{
		v->extra++;
		dv_verify_note(v, row, NULL, nothing, nothing, "extra");
	}
}

static void
judge_missing(DvVerify *v, DvVerifyRow *row)
{
	int			i;

	if (v->rebuild != NULL)
		return;
	if (v->resend != NULL)
	{
		dv_resend_missing(v, row);
		return;
	}
	if (!dv_verify_is_loaded(row))
	{
		/* a failed row whose record was there */
		if (row->state == 'E' && row->has_record)
		{
			v->compared++;
			v->missing++;
			dv_verify_note(v, row, NULL, nothing, nothing, "missing");
		}
		return;
	}
	v->compared++;
	v->missing++;
	dv_verify_note(v, row, NULL, nothing, nothing, "missing");
	for (i = 0; row->fault == NULL && i < v->ncolumns; i++)
		if (v->columns[i].summed && dv_verify_is_sent(&v->columns[i], row))
			dv_verify_sum(v, &v->columns[i].source, row->expected[i]);
}

/* ---------------------------------------------------------------- pages */

/* Which rows the records of a page are of, and what is told of them. False where a record has no id. */
static bool
take_records(DvVerify *v, DvVerifyRow *rows, int n, DvPage *page, DvVerifyRow **seen, int *nseen)
{
	DvSlice    *told = room_for(v, n + 1);
	DvSlice		record;

	*nseen = 0;
	while (dv_page_enter(page, &record))
	{
		int			before = *nseen;
		pg_uuid_t	id;
		DvVerifyRow *row;

		if (!read_record(v, page, told, &record) || !dv_page_uuid(told[DV_TOLD_ID], id.data))
			return false;
		if (v->expand[0] != '\0' && !dv_verify_is_expanded(v, record))
			dv_verify_without_expand(v);
		row = first_row(rows, n, &id);
		for (; row != NULL && row < rows + n && memcmp(row->id.data, id.data, UUID_LEN) == 0; row++)
		{
			if (row->seen)
				continue;
			row->told = told;
			row->seen = true;
			seen[(*nseen)++] = row;
		}
		if (*nseen > before)
			told += v->ntold;
	}
	return true;
}

bool
dv_verify_judge_page(DvVerify *v, DvVerifyChunk *chunk, int from, int n, DvPage *page)
{
	DvVerifyRow *rows = chunk->rows + from;
	DvVerifyRow **seen = palloc(sizeof(DvVerifyRow *) * (n + 1));
	bool		understood;
	int			nseen;
	int			i;

	understood = take_records(v, rows, n, page, seen, &nseen);
	if (understood)
		dv_verify_learn(v, seen, nseen);
	for (i = 0; understood && i < nseen; i++)
		judge_seen(v, seen[i]);
	for (i = 0; i < nseen; i++)
	{
		/* what was told lies in the answer, which goes now; another one comes where it was not understood */
		seen[i]->told = NULL;
		seen[i]->seen = understood;
	}
	return understood;
}

void
dv_verify_judge_unseen(DvVerify *v, DvVerifyChunk *chunk, int from, int n)
{
	int			i;

	for (i = from; i < from + n; i++)
		if (!chunk->rows[i].seen)
			judge_missing(v, &chunk->rows[i]);
}

void
dv_verify_judge_without_id(DvVerify *v, DvVerifyChunk *chunk)
{
	int			i;

	for (i = chunk->nids; i < chunk->n; i++)
		judge_missing(v, &chunk->rows[i]);
}

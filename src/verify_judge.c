/*
 * verify_judge.c - records against what their rows map to
 *
 * A record is missing, equal, different, or changed since by another user. What
 * the service fills in itself where a create sends nothing (a yes/no column's
 * default, an automatic number) is no difference: it is learnt for each column
 * from the first page that has rows without a value.
 */
#include "postgres.h"

#include "utils/datetime.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "encode.h"
#include "lanes.h"
#include "verify.h"
#include "wiretext.h"

/* Clocks of service and server may differ by this much. */
#define CLOCK_SKEW_S	5

/* So many rows without a value tell what the service fills in. */
#define LEARN_ROWS_MIN	3

#define LOOKUP_TABLE	"@Microsoft.Dynamics.CRM.lookuplogicalname"

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

/* Where a member of the answer belongs. */
static void
take_member(const DvVerify *v, DvVerifyRow *row, DvSlice name, DvSlice value)
{
	static const char *const members[DV_VERIFY_CONTEXTS] = {"modifiedon", "_modifiedby_value", "_createdby_value", "_ownerid_value"};
	int			i;

	if (is_named(name, "@odata.etag", strlen("@odata.etag")))
		row->etag_found = value;
	for (i = 0; i < DV_VERIFY_CONTEXTS; i++)
		if (is_named(name, members[i], strlen(members[i])))
			row->context[i] = value;
	for (i = 0; row->found != NULL && i < v->ncolumns; i++)
	{
		const DvVerifyColumn *c = &v->columns[i];

		if (c->read_name == NULL)
			continue;
		if (is_named(name, c->read_name, c->read_len))
			row->found[i] = value;
		else if (c->kind == DV_COMPARE_LOOKUP && name.len == c->read_len + strlen(LOOKUP_TABLE) &&
				 memcmp(name.p, c->read_name, c->read_len) == 0 &&
				 memcmp(name.p + c->read_len, LOOKUP_TABLE, strlen(LOOKUP_TABLE)) == 0)
			row->found_table[i] = value;
	}
}

static void
take_members(const DvVerify *v, DvVerifyRow *row, DvSlice record)
{
	const char *at = record.p;
	DvSlice		name;
	DvSlice		value;

	row->context = palloc0(sizeof(DvSlice) * DV_VERIFY_CONTEXTS);
	if (row->expected != NULL)
	{
		row->found = palloc0(sizeof(DvSlice) * (v->ncolumns + 1));
		row->found_table = palloc0(sizeof(DvSlice) * (v->ncolumns + 1));
	}
	while (dv_page_member(record, &at, &name, &value))
		take_member(v, row, name, value);
}

/* ---------------------------------------------------------------- what the service fills in */

/* Was nothing sent for this column, so that the service could fill it in? */
static bool
was_left_out(const DvVerifyColumn *c, const DvVerifyRow *row, int i)
{
	return row->created && (!row->updated || (c->send & DV_SEND_UPDATE) == 0) && dv_page_is_null(row->expected[i]);
}

/* The most frequent answer for this column among the n rows that were left out; how often it is there. */
static int
most_frequent(DvVerifyRow *const *rows, int n, int column, DvSlice *value)
{
	int			best = 0;
	int			i;
	int			k;

	for (i = 0; i < n && n - i > best; i++)
	{
		DvSlice		one = rows[i]->found[column];
		int			count = 0;

		for (k = i; k < n; k++)
		{
			DvSlice		other = rows[k]->found[column];

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

/* Yes/no and choice columns, and some lookups, have defaults; other columns are seldom filled in. */
static bool
has_defaults(const DvVerifyColumn *c)
{
	return c->kind == DV_COMPARE_BOOLEAN || c->kind == DV_COMPARE_LOOKUP || (c->kind == DV_COMPARE_NUMBER && !c->summed);
}

static void
learn_default(DvVerify *v, int column, DvVerifyRow *rows, int n)
{
	DvVerifyColumn *c = &v->columns[column];
	DvVerifyRow **left_out = palloc(sizeof(DvVerifyRow *) * (n + 1));
	DvSlice		value = nothing;
	int			count = 0;
	int			best;
	int			i;

	for (i = 0; i < n; i++)
		if (rows[i].found != NULL && rows[i].fault == NULL && was_left_out(c, &rows[i], column))
			left_out[count++] = &rows[i];
	if (count == 0)
		return;
	best = most_frequent(left_out, count, column, &value);
	c->default_known = true;
	if (count < LEARN_ROWS_MIN && !has_defaults(c))
		return;
	if (best * 2 > count || has_defaults(c))
	{
		if (!dv_page_is_null(value) && value.len < sizeof(c->default_value))
			memcpy(c->default_value, value.p, value.len);
	}
	else
	{
		int			nulls = 0;

		for (i = 0; i < count; i++)
			nulls += dv_page_is_null(left_out[i]->found[column]);
		c->default_varies = nulls * 2 < count;
	}
}

static bool
is_default(const DvVerifyColumn *c, DvSlice found)
{
	return c->default_varies ||
		(found.len == strlen(c->default_value) && found.len > 0 && memcmp(found.p, c->default_value, found.len) == 0);
}

/* ---------------------------------------------------------------- one row */

/* Has this column been sent for the row at all? */
bool
dv_verify_is_sent(const DvVerifyColumn *c, const DvVerifyRow *row)
{
	if (c->read_name == NULL || (c->deferred && row->state == 'S'))
		return false;
	return c->late || ((c->send & DV_SEND_INSERT) != 0 && row->created) || ((c->send & DV_SEND_UPDATE) != 0 && (row->updated || (c->send & DV_SEND_INSERT) != 0));
}

static bool
points_elsewhere(const DvVerifyColumn *c, const DvVerifyRow *row, int i)
{
	const char *table = c->kind == DV_COMPARE_LOOKUP ? c->referenced[(int) row->part[i]] : NULL;
	DvSlice		found = row->found_table[i];

	/* an owner's column may say principal, or nothing */
	return table != NULL && found.p != NULL && !dv_page_is_null(row->expected[i]) && !dv_page_is_null(row->found[i]) &&
		!dv_page_is_null(found) && !is_named((DvSlice) {found.p + 1, found.len - 2}, table, strlen(table));
}

bool
dv_verify_is_equal(const DvVerifyColumn *c, const DvVerifyRow *row, int i)
{
	if (c->optional && dv_page_is_null(row->expected[i]))
		return true;
	if (c->kind == DV_COMPARE_PARTIES)
		return dv_verify_same_parties(c->referenced[0], row->expected[i], row->found[i]);
	if (dv_compare_equal(c->kind, c->precision, row->expected[i], row->found[i]))
		return !points_elsewhere(c, row, i);
	return was_left_out(c, row, i) && is_default(c, row->found[i]);
}

/* "2026-05-04T03:02:01Z" as a timestamp; 0 where it is not one. */
static TimestampTz
read_time(DvSlice value)
{
	int			y, mo, d, h, mi, sec;
	char		text[40];

	if (value.p == NULL || dv_page_text(value, text, sizeof(text)) >= sizeof(text) ||
		sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d", &y, &mo, &d, &h, &mi, &sec) != 6 || !IS_VALID_JULIAN(y, mo, d))
		return 0;
	return (((int64) (date2j(y, mo, d) - POSTGRES_EPOCH_JDATE) * SECS_PER_DAY) +
			h * SECS_PER_HOUR + mi * SECS_PER_MINUTE + sec) * USECS_PER_SEC;
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

	if (!dv_page_uuid(row->context[DV_VERIFY_MODIFIED_BY], modifier.data))
		return false;
	dv_source_format_id(&modifier, text);
	if (dv_lanes_is_user(v->rc->lanes, text))
		return false;
	if (row->created && dv_page_uuid(row->context[DV_VERIFY_CREATED_BY], maker.data) && memcmp(&maker, &modifier, UUID_LEN) == 0)
		return false;
	return !row->kept || row->recorded_at == 0 ||
		read_time(row->context[DV_VERIFY_MODIFIED_ON]) > row->recorded_at - (int64) CLOCK_SKEW_S * USECS_PER_SEC;
}

/* A record that we made and gave no owner belongs to whom it was made by. */
static bool
has_other_owner(const DvVerify *v, const DvVerifyRow *row)
{
	pg_uuid_t	owner;
	pg_uuid_t	maker;

	return v->reads[DV_VERIFY_OWNER] && row->created && dv_page_uuid(row->context[DV_VERIFY_OWNER], owner.data) &&
		dv_page_uuid(row->context[DV_VERIFY_CREATED_BY], maker.data) && memcmp(&owner, &maker, UUID_LEN) != 0;
}

static void
judge_loaded(DvVerify *v, DvVerifyRow *row)
{
	const char *kind = NULL;
	bool		owner_differs = has_other_owner(v, row);
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
			dv_verify_sum(v, &c->target, row->found[i]);
		}
		if (dv_verify_is_equal(c, row, i))
			continue;
		if (kind == NULL)
			kind = dv_verify_changed_since(v, row) ? "changed" : "different";
		owner_differs |= strcmp(c->name, "ownerid") == 0;
		dv_verify_note(v, row, c->name, row->expected[i],
					   points_elsewhere(c, row, i) && dv_compare_equal(c->kind, c->precision, row->expected[i], row->found[i])
					   ? row->found_table[i] : row->found[i], kind);
	}
	if (has_other_owner(v, row))
	{
		if (kind == NULL)
			kind = dv_verify_changed_since(v, row) ? "changed" : "different";
		dv_verify_note(v, row, "ownerid", row->context[DV_VERIFY_CREATED_BY], row->context[DV_VERIFY_OWNER], kind);
	}
	v->owners_changed += owner_differs;
	row->verdict = kind;
	row->changed_since = row->files != NULL && dv_verify_changed_since(v, row);
	if (kind == NULL)
		v->equal++;
	else if (strcmp(kind, "changed") == 0)
		v->changed++;
	else
		v->different++;
}

/* The record of the left end is there: is the link? */
static void
judge_link(DvVerify *v, DvVerifyRow *row, DvSlice record)
{
	bool		there = row->has_right && dv_verify_has_link(v, dv_page_find(record, v->projection->link), &row->right);

	if (v->expand_refused)
		return;
	if (row->state == 'P' || row->state == 'S')
	{
		v->compared++;
		v->equal += there;
		v->missing += !there;
		if (!there)
			dv_verify_note(v, row, NULL, nothing, nothing, "missing");
	}
	else if (there)
	{
		v->extra++;
		dv_verify_note(v, row, NULL, nothing, nothing, "extra");
	}
}

void
dv_verify_different_too(DvVerify *v, DvVerifyRow *row, const char *column, DvSlice expected, DvSlice found)
{
	const char *kind = row->changed_since ? "changed" : "different";

	dv_verify_note(v, row, column, expected, found, row->verdict ? row->verdict : kind);
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
	if (v->rebuild != NULL || v->projection->link != NULL)
		return;					/* that it was seen is all that matters, or it was judged already */
	if (v->resend != NULL)
		dv_resend_judge(v, row, row->etag_found);
	else if (row->state == 'P' || row->state == 'S')
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
	if (row->state != 'P' && row->state != 'S')
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

bool
dv_verify_judge_page(DvVerify *v, DvVerifyChunk *chunk, int from, int n, DvPage *page)
{
	DvVerifyRow *rows = chunk->rows + from;
	DvVerifyRow **seen = palloc(sizeof(DvVerifyRow *) * (n + 1));
	int			nseen = 0;
	DvSlice		record;
	int			i;

	while (dv_page_record(page, &record))
	{
		pg_uuid_t	id;
		DvVerifyRow *row;

		if (!dv_page_uuid(dv_page_find(record, v->projection->wire.primary_id), id.data))
			return false;
		if (v->expand[0] != '\0' && !dv_verify_is_expanded(v, record))
			dv_verify_without_expand(v);
		row = first_row(rows, n, &id);
		for (; row != NULL && row < rows + n && memcmp(row->id.data, id.data, UUID_LEN) == 0; row++)
		{
			if (row->seen)
				continue;
			if (v->projection->link != NULL)
				judge_link(v, row, record);
			else
				take_members(v, row, record);
			seen[nseen++] = row;
			row->seen = true;
		}
	}
	for (i = 0; i < v->ncolumns; i++)
		if (!v->columns[i].default_known && v->columns[i].read_name != NULL && v->columns[i].kind != DV_COMPARE_PARTIES)
			learn_default(v, i, rows, n);
	for (i = 0; i < nseen; i++)
		judge_seen(v, seen[i]);
	/* what was found lies in the answer, which goes now */
	for (i = 0; i < nseen; i++)
		seen[i]->found = seen[i]->found_table = seen[i]->context = NULL;
	return true;
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

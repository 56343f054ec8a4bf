/*
 * links.c - many-to-many links: rows for which no record stands
 *
 * A link is made by a POST to the collection of its left record and taken away
 * by a DELETE there. Both may be repeated: "cannot insert duplicate key" and
 * "not found" say that it is as it should be, so that an unknown outcome needs
 * no reading back.
 */
#include "postgres.h"

#include "fmgr.h"

#include "compat.h"
#include "hash128.h"
#include "links.h"

/* What the hash of a link is made of: the ids of its ends. */
#define ENDS_LEN	(2 * UUID_LEN)

/* The value of an end; NULL where it has none. */
static const pg_uuid_t *
end_of(const DvStep *step, int side, const Datum *values, const bool *nulls)
{
	int			at = step->projection->columns[side].attnum - 1;

	return nulls[at] ? NULL : DatumGetUUIDP(values[at]);
}

void
dv_links_hash(const pg_uuid_t *left, const pg_uuid_t *right, unsigned char hash[16])
{
	char		ends[ENDS_LEN];

	memcpy(ends, left, UUID_LEN);
	memcpy(ends + UUID_LEN, right, UUID_LEN);
	dv_hash128(ends, ENDS_LEN, hash);
}

void
dv_links_take(DvStep *step, DvRow *row, const Datum *values, const bool *nulls)
{
	const pg_uuid_t *left = end_of(step, 0, values, nulls);
	const pg_uuid_t *right = end_of(step, 1, values, nulls);

	/* repeated rather than looked for */
	row->verify = false;
	row->has_hash = left != NULL && right != NULL;
	if (!row->has_hash)
	{
		dv_source_key_handle(step->projection, values + DV_PROJ_KEYS - 1, &row->handle);
		return;
	}
	dv_links_hash(left, right, row->hash);
	memcpy(&row->handle, row->hash, UUID_LEN);
}

static void
format_ends(const DvStep *step, const Datum *values, const bool *nulls, char *left, char *right)
{
	const pg_uuid_t *l = end_of(step, 0, values, nulls);
	const pg_uuid_t *r = end_of(step, 1, values, nulls);

	left[0] = right[0] = '\0';
	if (l != NULL)
		dv_source_format_id(l, left);
	if (r != NULL)
		dv_source_format_id(r, right);
}

static void
make_request(DvStep *step, DvRow *row, const Datum *values, const bool *nulls)
{
	const DvProjection *p = step->projection;
	MemoryContext old = MemoryContextSwitchTo(row->batch->context);
	char		left[37];
	char		right[37];

	format_ends(step, values, nulls, left, right);
	if (row->wire.op == 'D')
	{
		row->wire.method = "DELETE";
		row->wire.path = psprintf("/%s(%s)/%s(%s)/$ref", p->columns[0].entity_set, left, p->link, right);
	}
	else
	{
		char	   *content = psprintf("{\"@odata.id\":\"%s/%s(%s)\"}", p->wire.api_url, p->columns[1].entity_set, right);

		row->wire.method = "POST";
		row->wire.path = psprintf("/%s(%s)/%s/$ref", p->columns[0].entity_set, left, p->link);
		row->link_body = content;
		row->wire.content_len = strlen(content);
	}
	MemoryContextSwitchTo(old);
}

bool
dv_links_encode(DvStep *step, DvRow *row, const Datum *values, const bool *nulls)
{
	if (!row->has_hash)
	{
		dv_outcome_failure(step, row, dv_encode_verdict("lookup", "end_missing", end_of(step, 0, values, nulls) ? "@right" : "@left",
														"one end of the link is null"));
		return false;
	}
	/* a forgotten request may have taken the link away */
	if (row->wire.op == 'I' && !step->forgotten && dv_encode_is_unchanged(row, values, nulls))
	{
		dv_outcome_success(step, row, "unchanged");
		return false;
	}
	make_request(step, row, values, nulls);
	return true;
}

char *
dv_links_preview(DvStep *step, const Datum *values, const bool *nulls)
{
	const DvProjection *p = step->projection;
	char		left[37];
	char		right[37];

	format_ends(step, values, nulls, left, right);
	return psprintf("POST %s/%s(%s)/%s/$ref {\"@odata.id\":\"%s/%s(%s)\"}", p->wire.api_path, p->columns[0].entity_set, left, p->link,
					p->wire.api_url, p->columns[1].entity_set, right);
}

bool
dv_links_settled(DvStep *step, DvRow *row, const DvVerdict *v)
{
	if (step->projection->link == NULL)
		return false;
	if (row->wire.op == 'I' && v->kind == DV_EXISTS && strcmp(v->error_class, "duplicate") == 0)
	{
		/* made by a request of ours that had no answer, or by somebody else */
		if (row->unknown_since == 0)
			row->wire.op = 'U';
		dv_outcome_success(step, row, row->unknown_since ? "settled: found after an unanswered request" : "the link existed already");
		return true;
	}
	if (row->wire.op == 'D' && v->http_status == 404 && (v->kind == DV_DONE || v->kind == DV_FAIL_ROW || v->kind == DV_GONE))
	{
		dv_outcome_success(step, row, "the link did not exist");
		return true;
	}
	return false;
}

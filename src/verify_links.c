/*
 * verify_links.c - are the links of a table of links there?
 *
 * They are read as a collection of their left ends, many records in one query. A
 * service may leave collections out of such an answer, refuse to expand them, or
 * give a link to where they are: then each record is asked for its own. Only
 * where that is refused too nothing is known of the links.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "encode.h"
#include "spi.h"
#include "verify.h"

void
dv_verify_load_link(DvVerify *v)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(v->projection->staging)};

	if (dv_spi_run("SELECT mt.primary_id FROM dvmig.column_map c JOIN dvmig.migration_table t USING (staging) JOIN dvmig.migration m USING (migration_id)"
				   " JOIN dvmig.metadata_table mt ON mt.server = m.server AND mt.table_name = c.referenced_table"
				   " WHERE c.staging = $1::regclass AND c.target_column = '@right'", 1, types, values, NULL, SPI_OK_SELECT) != 1)
		elog(ERROR, "no metadata of the right end of the links of %s", v->plan.name);
	v->right_id = dv_spi_keep(v->context, 0, 1);
	v->select = MemoryContextStrdup(v->context, v->projection->wire.primary_id);
	v->expand = MemoryContextStrdup(v->context, psprintf("&$expand=%s($select=%s)", v->projection->link, v->right_id));
}

/* ---------------------------------------------------------------- verdicts */

static void
judge(DvVerify *v, DvVerifyRow *row)
{
	DvSlice		nothing = {NULL, 0};

	if (dv_verify_is_loaded(row))
	{
		v->compared++;
		v->equal += row->linked;
		v->missing += !row->linked;
		if (!row->linked)
			dv_verify_note(v, row, NULL, nothing, nothing, "missing");
	}
	else if (row->linked)
	{
		v->extra++;
		dv_verify_note(v, row, NULL, nothing, nothing, "extra");
	}
}

void
dv_verify_judge_left(DvVerify *v, DvVerifyRow *row)
{
	DvPage		page;

	if (v->expand_refused)
		row->untold = true;
	else
	{
		if (dv_verify_open_collection(&page, row->told[v->told_link]))
			(void) dv_verify_links_page(v, row, 1, &page);
		judge(v, row);
	}
}

/* ---------------------------------------------------------------- one left end alone */

int
dv_verify_next_untold(const DvVerify *v, const DvVerifyChunk *chunk, int from, int end, int *n)
{
	const DvVerifyRow *rows = chunk->rows;

	if (v->projection->link == NULL)
		return -1;
	while (from < end && !rows[from].untold)
		from++;
	if (from >= end)
		return -1;
	for (*n = 1; from + *n < end && memcmp(&rows[from].id, &rows[from + *n].id, UUID_LEN) == 0; (*n)++)
		;
	return from;
}

void
dv_verify_links_path(const DvVerify *v, const DvVerifyRow *row, DvBuf *path)
{
	char		id[37];

	dv_source_format_id(&row->id, id);
	dv_buf_puts(path, psprintf("/%s(%s)/%s?$select=%s", v->projection->wire.entity_set, id, v->projection->link, v->right_id));
}

bool
dv_verify_links_page(const DvVerify *v, DvVerifyRow *rows, int n, DvPage *page)
{
	DvSlice		record;
	pg_uuid_t	id;
	int			i;

	while (dv_page_record(page, &record))
	{
		if (!dv_page_uuid(dv_page_find(record, v->right_id), id.data))
			return false;
		for (i = 0; i < n; i++)
			rows[i].linked |= rows[i].has_right && memcmp(&id, &rows[i].right, UUID_LEN) == 0;
	}
	return true;
}

void
dv_verify_judge_links(DvVerify *v, DvVerifyRow *rows, int n)
{
	int			i;

	for (i = 0; i < n; i++)
		judge(v, &rows[i]);
}

void
dv_verify_refuse_links(DvVerify *v, DvVerifyRow *rows, int n)
{
	int			i;

	v->links_refused = true;
	for (i = 0; i < n; i++)
		v->uncompared += dv_verify_is_loaded(&rows[i]);
}

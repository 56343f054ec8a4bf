/*
 * altkey.c - rows whose id Dataverse makes, known by an alternate key
 *
 * With ids => platform a row has no id until its record exists. Until then its
 * alternate key stands for it: as a filter that finds the record, and hashed as
 * the handle under which the engine keeps the row apart from others. The key is
 * unique in Dataverse, so that a repeated create is refused and not doubled.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "encode.h"
#include "hash128.h"
#include "reader.h"

/* \uXXXX: what the appender writes so are control characters, below U+0080. */
static int
unescape(const char *json, char *c)
{
	static const char from[] = "bfnrt";
	static const char to[] = "\b\f\n\r\t";
	const char *at;

	if (json[1] == 'u')
	{
		char		digits[5] = {json[2], json[3], json[4], json[5], '\0'};

		*c = (char) strtol(digits, NULL, 16);
		return 6;
	}
	at = strchr(from, json[1]);
	*c = at != NULL ? to[at - from] : json[1];
	return 2;
}

/* A JSON string as an OData literal: in single quotes, which are doubled. */
static void
put_text_literal(StringInfo out, const char *json, int len)
{
	int			i = 1;

	appendStringInfoString(out, "%27");
	while (i < len - 1)
	{
		char		c = json[i];
		int			used = 1;

		if (c == '\\')
			used = unescape(json + i, &c);
		dv_reader_encode(out, &c, 1);
		if (c == '\'')
			dv_reader_encode(out, &c, 1);
		i += used;
	}
	appendStringInfoString(out, "%27");
}

/* One key column as "name eq literal", from the JSON the appender wrote. */
static void
put_condition(StringInfo out, const DvPayloadColumn *column, const char *json, int len)
{
	const char *open;

	switch (column->target)
	{
		case DV_TARGET_TEXT:
		case DV_TARGET_CHOICES:
			appendStringInfo(out, "%s%%20eq%%20", column->column);
			put_text_literal(out, json, len);
			break;
		case DV_TARGET_LOOKUP:
			/* "accounts(<id>)": the filter wants the bare id */
			open = memchr(json, '(', len);
			appendStringInfo(out, "_%s_value%%20eq%%20%.*s", column->column,
							 36, open ? open + 1 : "");
			break;
		default:
			appendStringInfo(out, "%s%%20eq%%20", column->column);
			if (json[0] == '"')
				dv_reader_encode(out, json + 1, len - 2);
			else
				dv_reader_encode(out, json, len);
	}
}

bool
dv_altkey_take(DvStep *step, DvRow *row, const Datum *values, const bool *nulls, StringInfo scratch,
			   DvPayloadFault *fault)
{
	StringInfoData filter;
	MemoryContext old = MemoryContextSwitchTo(row->batch->context);
	int			i;

	initStringInfo(&filter);
	MemoryContextSwitchTo(old);
	for (i = 0; i < step->nkey_columns; i++)
	{
		DvPayloadColumn *column = &step->key_columns[i];
		int			skip = column->prefix_len - 1;	/* its comma is not written */

		resetStringInfo(scratch);
		if (!dv_payload_append(scratch, column, 1, values, nulls, DV_SEND_INSERT, false, fault))
			return false;
		if (scratch->len == 0)
		{
			fault->column = column->column;
			strlcpy(fault->message, "a column of the alternate key is null", sizeof(fault->message));
			return false;
		}
		if (i > 0)
			appendStringInfoString(&filter, "%20and%20");
		put_condition(&filter, column, scratch->data + skip, scratch->len - skip);
	}
	row->wire.key = filter.data;
	dv_hash128(filter.data, filter.len, row->handle.data);
	return true;
}

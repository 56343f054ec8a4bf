/*
 * payload.c - a row of the projection as JSON members, straight from datums
 *
 * The hot path. Everything that does not change from row to row (writer, the
 * member's name with its quotes, encoding conversion) is worked out once by
 * dv_payload_prepare(). A row that cannot be sent is a fault with the column's
 * name, not an error: the batch around it goes on.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "payload_write.h"

static const char two_targets[] = "more than one target of this lookup has a value";

static inline const DvPayloadPlan *
plan_of(const DvPayloadColumn *column)
{
	return column->opaque;
}

/* ---------------------------------------------------------------- once per projection */

/* Columns of the projection are named in the server encoding; JSON is UTF-8. */
static void
append_name(StringInfo out, const char *name)
{
	char	   *utf8 = pg_server_to_any(name, (int) strlen(name), PG_UTF8);

	dv_payload_escape(out, utf8, strlen(utf8));
}

static void
make_prefix(DvPayloadColumn *column)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoString(&text, ",\"");
	append_name(&text, column->member);
	appendStringInfoString(&text, "\":");
	column->prefix = text.data;
	column->prefix_len = text.len;
}

static void
make_open(DvPayloadPlan *plan, const char *entity_set)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoChar(&text, '"');
	append_name(&text, entity_set);
	appendStringInfoChar(&text, '(');
	plan->open = text.data;
	plan->open_len = text.len;
}

/* A lookup to several tables is mapped by several columns: they get one group number. */
static void
find_groups(DvPayloadColumn *columns, int n)
{
	for (int i = 0; i < n; i++)
	{
		for (int j = i + 1; j < n; j++)
		{
			DvPayloadPlan *first = columns[i].opaque;
			DvPayloadPlan *other = columns[j].opaque;

			if (columns[i].target == DV_TARGET_LOOKUP && columns[j].target == DV_TARGET_LOOKUP &&
				strcmp(columns[i].column, columns[j].column) == 0)
			{
				if (first->group < 0)
					first->group = i;
				other->group = first->group;
			}
		}
	}
}

void
dv_payload_prepare(DvPayloadColumn *columns, int n)
{
	Oid			conversion = dv_payload_text_conversion();

	for (int i = 0; i < n; i++)
	{
		DvPayloadColumn *c = &columns[i];
		DvPayloadPlan *plan = palloc0(sizeof(DvPayloadPlan));

		plan->type = getBaseType(c->type);
		plan->write = dv_payload_writer(plan->type, c->target);
		if (plan->write == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("type %s cannot be sent to column \"%s\"",
							format_type_be(c->type), c->column),
					 errhint("Map the column anew with dvmig.map_column(), which names the cast to write.")));
		plan->conversion = conversion;
		plan->max_units = c->max_units;
		plan->group = -1;
		if (c->target == DV_TARGET_LOOKUP)
			make_open(plan, c->entity_set);
		make_prefix(c);
		c->opaque = plan;
	}
	find_groups(columns, n);
}

/* ---------------------------------------------------------------- once per row */

/*
 * Is the column for this pass? A deferred lookup that an update empties does
 * not wait: nothing has to be there for it.
 */
static inline bool
selected(const DvPayloadColumn *column, int op, bool deferred, bool null)
{
	return (column->send & op) != 0 &&
		(column->deferred == deferred || (null && !deferred && op == DV_SEND_UPDATE));
}

/* How many columns of the group have a value, whatever their direction or pass. */
static int
values_in_group(const DvPayloadColumn *columns, int n, int group, const bool *nulls)
{
	int			count = 0;

	for (int i = group; i < n; i++)
		if (plan_of(&columns[i])->group == group && !nulls[columns[i].attnum - 1])
			count++;
	return count;
}

/*
 * True where a null is to be written for columns[i], which is null: in an
 * update, and of a lookup to several tables only once and only if no other of
 * them has a value, because clearing one would clear the value too.
 */
static bool
writes_null(const DvPayloadColumn *columns, int n, int i, int op, bool deferred, const bool *nulls)
{
	int			group = plan_of(&columns[i])->group;

	if (op != DV_SEND_UPDATE)
		return false;
	if (group < 0)
		return true;
	for (int j = group; j < i; j++)
		if (plan_of(&columns[j])->group == group && selected(&columns[j], op, deferred, true))
			return false;
	return values_in_group(columns, n, group, nulls) == 0;
}

static bool
fail(StringInfo out, int start, const DvPayloadColumn *column, const char *message,
	 DvPayloadFault *fault)
{
	out->len = start;
	out->data[start] = '\0';
	fault->column = column->column;
	strlcpy(fault->message, message, sizeof(fault->message));
	return false;
}

/* Append the member with its value; a fault message, or NULL. */
static inline const char *
append_member(StringInfo out, const DvPayloadColumn *column, Datum value, bool comma)
{
	DvPayloadPlan *plan = column->opaque;
	const char *message;

	appendBinaryStringInfo(out, column->prefix + !comma, column->prefix_len - !comma);
	message = plan->write(out, value, plan);
	if (message != dv_payload_trimmed)
		return message;
	plan->trimmed = true;
	return NULL;
}

bool
dv_payload_append(StringInfo out, const DvPayloadColumn *columns, int n,
				  const Datum *values, const bool *nulls, int op, bool deferred,
				  DvPayloadFault *fault)
{
	int			start = out->len;

	for (int i = 0; i < n; i++)
	{
		const DvPayloadColumn *c = &columns[i];
		int			group = plan_of(c)->group;
		int			before = out->len;
		bool		null = nulls[c->attnum - 1];
		const char *message = NULL;

		if (!selected(c, op, deferred, null))
			continue;
		if (!null)
		{
			if (group >= 0 && values_in_group(columns, n, group, nulls) > 1)
				return fail(out, start, c, two_targets, fault);
			message = append_member(out, c, values[c->attnum - 1], before > start);
			if (message != NULL && message != dv_payload_is_null)
				return fail(out, start, c, message, fault);
			null = message == dv_payload_is_null;
			if (!null)
				continue;
			out->len = before;
			out->data[before] = '\0';
		}
		if (writes_null(columns, n, i, op, deferred, nulls))
		{
			appendBinaryStringInfo(out, c->prefix + (before == start), c->prefix_len - (before == start));
			appendBinaryStringInfo(out, "null", 4);
		}
	}
	return true;
}

void
dv_payload_take_trimmed(const DvPayloadColumn *columns, int n, StringInfo out)
{
	for (int i = 0; i < n; i++)
	{
		DvPayloadPlan *plan = columns[i].opaque;

		if (plan->trimmed && out != NULL)
			appendStringInfo(out, "%s%s", out->len > 0 ? ", " : "", columns[i].column);
		plan->trimmed = false;
	}
}

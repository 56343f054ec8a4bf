/*
 * encode.c - one row of the projection to what will be sent, or to a verdict
 *
 * A row that cannot be sent (a lookup that does not resolve, a value JSON or
 * Dataverse has no room for) gets its verdict here and costs no request.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "answer.h"
#include "encode.h"
#include "hash128.h"
#include "links.h"
#include "servertext.h"
#include "sets.h"
#include "states.h"

/* Columns of one direction, with the types this tuple descriptor has. */
static DvPayloadColumn *
columns_of(DvStep *step, TupleDesc desc, int send, int *n)
{
	const DvProjection *p = step->projection;
	DvPayloadColumn *columns = MemoryContextAllocZero(step->context,
													  sizeof(DvPayloadColumn) * (p->ncolumns + 1));
	int			i;

	*n = 0;
	for (i = 0; i < p->ncolumns; i++)
	{
		if (p->columns[i].send != send)
			continue;
		columns[*n] = p->columns[i];
		columns[*n].type = getBaseType(TupleDescAttr(desc, p->columns[i].attnum - 1)->atttypid);
		(*n)++;
	}
	dv_payload_prepare(columns, *n);
	return columns;
}

/* Columns of the alternate key, written whatever their direction. */
static void
key_columns(DvStep *step, TupleDesc desc)
{
	const DvProjection *p = step->projection;
	int			i;

	step->nkey_columns = p->nkey_columns;
	step->key_columns = MemoryContextAllocZero(step->context, sizeof(DvPayloadColumn) * (p->nkey_columns + 1));
	for (i = 0; i < p->nkey_columns; i++)
	{
		step->key_columns[i] = p->columns[p->key_columns[i]];
		step->key_columns[i].send = DV_SEND_INSERT | DV_SEND_UPDATE;
		step->key_columns[i].type = getBaseType(TupleDescAttr(desc, step->key_columns[i].attnum - 1)->atttypid);
	}
	dv_payload_prepare(step->key_columns, p->nkey_columns);
}

/*
 * The appender is built for one row type. SPI re-plans silently when a user
 * alters the table, so every batch is compared with it.
 */
void
dv_encode_descriptor(DvStep *step, TupleDesc desc)
{
	MemoryContext old;

	if (step->desc != NULL && equalTupleDescs(step->desc, desc))
		return;
	dv_projection_check_keys(step->projection, desc, DV_PROJ_KEYS);
	dv_projection_check_outcome(step->projection, desc);
	old = MemoryContextSwitchTo(step->context);
	step->desc = CreateTupleDescCopy(desc);
	step->both = columns_of(step, desc, DV_SEND_INSERT | DV_SEND_UPDATE, &step->nboth);
	step->insert_only = columns_of(step, desc, DV_SEND_INSERT, &step->ninsert_only);
	step->update_only = columns_of(step, desc, DV_SEND_UPDATE, &step->nupdate_only);
	key_columns(step, desc);
	MemoryContextSwitchTo(old);
}

DvVerdict *
dv_encode_verdict(const char *error_class, const char *code, const char *column, const char *message)
{
	DvVerdict  *v = palloc0(sizeof(DvVerdict));

	v->kind = DV_FAIL_ROW;
	strlcpy(v->error_class, error_class, sizeof(v->error_class));
	strlcpy(v->code, code, sizeof(v->code));
	strlcpy(v->column, column, sizeof(v->column));
	/* cut at a character, not inside one */
	if (message != NULL)
	{
		char	   *utf8 = dv_server_text_utf8(message);
		int			len = pg_encoding_mbcliplen(PG_UTF8, utf8, (int) strlen(utf8), sizeof(v->message) - 1);

		memcpy(v->message, utf8, len);
		v->message[len] = '\0';
	}
	return v;
}

/* A lookup or choice that does not resolve: "class|column" from the projection. */
static void
take_fault(DvStep *step, DvRow *row, char *fault)
{
	static const struct
	{
		const char *kind;
		const char *error_class;
		const char *code;
		const char *message;
	}			faults[] = {
		{"unmasked", "transform", "unmasked", "the column is sensitive and has no mask, and the server is not production"},
		{"choice", "choice", "unknown_choice", "the source text stands for no value of the choice column"},
		{"orphan", "lookup", "orphan", "no row of the parent staging table has this key"},
		{"reference", "lookup", "reference_not_found", "no record of the referenced table matches"},
		{"ambiguous", "lookup", "reference_ambiguous", "more than one record of the referenced table matches"},
		{"circle", "lookup", "circle", "the chain of parents above the row comes back to it"},
		{"state", "state", "state_pair", "the status does not belong to the state, or there is no such status"},
	};
	char	   *column = strchr(fault, '|');
	int			i;

	*column++ = '\0';
	for (i = 0; i < (int) lengthof(faults); i++)
		if (strcmp(fault, faults[i].kind) == 0)
			dv_outcome_failure(step, row, dv_encode_verdict(faults[i].error_class, faults[i].code,
														column, faults[i].message));
}

/* Columns whose texts were cut, of all that are written; NULL "out" forgets them. */
static void
take_trimmed(DvStep *step, StringInfo out)
{
	if (!step->projection->trims)
		return;
	dv_payload_take_trimmed(step->both, step->nboth, out);
	dv_payload_take_trimmed(step->insert_only, step->ninsert_only, out);
	dv_payload_take_trimmed(step->update_only, step->nupdate_only, out);
}

/* What was done to the row's values, for the message of its success; NULL where nothing was. */
static char *
note_of(DvStep *step, const Datum *values, const bool *nulls, StringInfo scratch)
{
	char	   *policies = nulls[DV_PROJ_NOTE - 1] ? NULL : TextDatumGetCString(values[DV_PROJ_NOTE - 1]);

	if (!step->projection->trims)
		return policies;
	resetStringInfo(scratch);
	take_trimmed(step, scratch);
	if (scratch->len == 0)
		return policies;
	return policies == NULL ? psprintf("trimmed: %s", scratch->data) : psprintf("trimmed: %s; %s", scratch->data, policies);
}

/* The row cannot be written as JSON. */
static bool
refuse(DvStep *step, DvRow *row, const DvPayloadFault *fault)
{
	dv_outcome_failure(step, row, dv_encode_verdict("transform", "22000", fault->column, fault->message));
	return false;
}

/* Append the members that go both ways, as a create or an update has them. */
static bool
append_both(DvStep *step, DvRow *row, StringInfo out, const Datum *values, const bool *nulls, int op)
{
	DvPayloadFault fault;

	return dv_payload_append(out, step->both, step->nboth, values, nulls, op, false, &fault) ||
		refuse(step, row, &fault);
}

/* Append the members that go with this operation only. */
static bool
append_others(DvStep *step, DvRow *row, StringInfo out, const Datum *values, const bool *nulls)
{
	DvPayloadFault fault;
	bool		update = row->wire.op == 'U';
	DvPayloadColumn *columns = update ? step->update_only : step->insert_only;
	int			n = update ? step->nupdate_only : step->ninsert_only;
	bool		comma = out->len > (int) row->content_offset;
	int			before = out->len;

	if (n == 0)
		return true;
	if (comma)
		appendStringInfoChar(out, ',');
	if (!dv_payload_append(out, columns, n, values, nulls, update ? DV_SEND_UPDATE : DV_SEND_INSERT, false, &fault))
		return refuse(step, row, &fault);
	if (comma && out->len == before + 1)
		out->data[--out->len] = '\0';
	return true;
}

/*
 * Hash of the columns that go both ways, in the form a create has ("both"),
 * deferred ones and those of updates only included: the same whether the row was
 * last created or updated. "scratch" may hold "both" already.
 */
static bool
hash_content(DvStep *step, DvRow *row, const char *both, int len, StringInfo scratch,
			 const Datum *values, const bool *nulls)
{
	DvPayloadFault fault;

	/* What goes with updates only, and is not owed either, has not been sent by a create. */
	row->has_hash = !step->projection->update_only || row->wire.op == 'U';
	if (!step->projection->has_deferred && step->nupdate_only == 0)
	{
		dv_hash128(both, len, row->hash);
		return true;
	}
	if (both != scratch->data)
	{
		resetStringInfo(scratch);
		appendBinaryStringInfo(scratch, both, len);
	}
	appendStringInfoChar(scratch, '|');
	if (!dv_payload_append(scratch, step->both, step->nboth, values, nulls, DV_SEND_INSERT, true, &fault))
		return refuse(step, row, &fault);
	appendStringInfoChar(scratch, '|');
	if (!dv_payload_append(scratch, step->update_only, step->nupdate_only, values, nulls, DV_SEND_UPDATE, false, &fault))
		return refuse(step, row, &fault);
	dv_hash128(scratch->data, scratch->len, row->hash);
	return true;
}

bool
dv_encode_is_unchanged(const DvRow *row, const Datum *values, const bool *nulls)
{
	return !nulls[DV_PROJ_HASH - 1] && dv_hash128_is(values[DV_PROJ_HASH - 1], row->hash);
}

/*
 * Append the members of a create or update; false where the row cannot be
 * written, or need not be because its content is what was last sent.
 */
static bool
encode_members(DvStep *step, DvRow *row, const Datum *values, const bool *nulls,
			   StringInfo content, StringInfo scratch)
{
	bool		hashed = strcmp(step->projection->pass, "write") == 0;

	if (row->wire.op == 'I')
	{
		/* A create's members are what the hash is made of: written once. */
		if (!append_both(step, row, content, values, nulls, DV_SEND_INSERT) ||
			(hashed && !hash_content(step, row, content->data + row->content_offset,
									 content->len - row->content_offset, scratch, values, nulls)))
			return false;
	}
	else
	{
		if (hashed)
		{
			resetStringInfo(scratch);
			if (!append_both(step, row, scratch, values, nulls, DV_SEND_INSERT) ||
				!hash_content(step, row, scratch->data, scratch->len, scratch, values, nulls))
				return false;
			if (row->has_hash && dv_encode_is_unchanged(row, values, nulls))
			{
				/* The hash covers the deferred lookups: they need no new pass. */
				row->unchanged = true;
				if (!step->forgotten)
				{
					dv_settle_unchanged(step, row);
					return false;
				}
			}
		}
		/* a state without a status is followed by the status that is its default */
		if (!append_both(step, row, content, values, nulls, step->projection->states ? DV_SEND_INSERT : DV_SEND_UPDATE))
			return false;
	}
	return append_others(step, row, content, values, nulls);
}

/*
 * A row that is closed by an action: its state is read first, and then what is
 * to be done. Here only the members of the activity that the action leaves.
 */
static bool
encode_close(DvStep *step, DvRow *row, const Datum *values, const bool *nulls, StringInfo content)
{
	DvPayloadFault fault;

	if (!dv_payload_append(content, step->both + 2, step->nboth - 2, values, nulls, DV_SEND_INSERT, false, &fault))
		return refuse(step, row, &fault);
	row->close_len = content->len - (int) row->content_offset;
	row->close = MemoryContextAlloc(row->batch->context, row->close_len + 1);
	memcpy(unconstify(char *, row->close), content->data + row->content_offset, row->close_len);
	unconstify(char *, row->close)[row->close_len] = '\0';
	row->verify = true;
	return true;
}

/*
 * Is a row with this id or key on its way? No two may be at once. A record that
 * was found to exist is from here on updated.
 */
static bool
is_busy(DvStep *step, DvRow *row)
{
	if (dv_sets_is_busy(step->sets, &row->handle))
		return true;
	if (row->wire.op == 'I' && dv_sets_is_known(step->sets, &row->handle, &row->uuid, &row->created_run))
	{
		row->wire.op = 'U';
		row->existed = row->verify = true;	/* still ours when it is written? */
		dv_source_format_id(&row->uuid, row->wire.id);
	}
	else if (row->wire.id[0] == '\0' && row->wire.op != 'I' && step->projection->link == NULL)
		row->verify = true;		/* its id is to be read by its key first */
	return false;
}

/* The content of a row that is written, with what was done to its values; false where it has its verdict. */
static bool
encode_content(DvStep *step, DvRow *row, const Datum *values, const bool *nulls, StringInfo content, StringInfo scratch)
{
	char	   *note;
	bool		written;

	if (step->projection->states)
		dv_states_take(step, row, values, nulls);
	if (step->projection->closing)
		return encode_close(step, row, values, nulls, content);
	take_trimmed(step, NULL);
	written = encode_members(step, row, values, nulls, content, scratch);
	note = note_of(step, values, nulls, scratch);
	if (note != NULL)
		row->note = MemoryContextStrdup(row->batch->context, note);
	if (!written)
		return false;
	row->wire.content_len = content->len - row->content_offset;
	row->verify |= step->projection->look_closed && row->wire.op == 'U';
	return true;
}

/*
 * What the projection has of what was sent last: of files the hash that they are
 * compared by; of a row that gets its deferred lookups the one that stays recorded.
 */
static void
take_hash(DvRow *row, const Datum *values, const bool *nulls)
{
	bytea	   *last = nulls[DV_PROJ_HASH - 1] ? NULL : DatumGetByteaPP(values[DV_PROJ_HASH - 1]);

	row->has_hash = last != NULL && VARSIZE_ANY_EXHDR(last) == sizeof(row->hash);
	if (row->has_hash)
		memcpy(row->hash, VARDATA_ANY(last), sizeof(row->hash));
}

bool
dv_encode_row(DvStep *step, DvRow *row, const Datum *values, const bool *nulls,
			  StringInfo content, StringInfo scratch)
{
	char	   *fault = nulls[DV_PROJ_FAULT - 1] ? NULL : TextDatumGetCString(values[DV_PROJ_FAULT - 1]);
	DvPayloadFault key_fault;
	bool		keyed = true;

	if (fault != NULL && strncmp(fault, "parked|", 7) == 0)
	{
		step->lap_parked++;
		return false;
	}
	if (step->projection->link != NULL)
		dv_links_take(step, row, values, nulls);
	if (row->wire.id[0] == '\0' && step->nkey_columns > 0 && fault == NULL)
		keyed = dv_altkey_take(step, row, values, nulls, scratch, &key_fault);
	if (row->wire.op == DV_OP_NONE || is_busy(step, row) || dv_source_answered_too_often(step, row))
		return false;
	row->batch->open_rows++;
	step->lap_taken++;
	if (row->wire.op == DV_OP_SUCCEEDED || row->wire.op == DV_OP_FAILED)
	{
		dv_outcome_flag(step, row, row->wire.op);
		return false;
	}
	step->counters.rows_read++;
	/* a record that was there before may be in any state; one that an earlier run created is as we made it */
	if (row->existed && row->created_run == 0)
		row->owes = row->owes_unchanged;
	if (fault != NULL)
	{
		take_fault(step, row, fault);
		return false;
	}
	if (step->projection->link != NULL)
		return dv_links_encode(step, row, values, nulls);
	if (!keyed)
		return refuse(step, row, &key_fault);
	if (row->wire.id[0] == '\0' && row->wire.key == NULL)
	{
		dv_outcome_failure(step, row, dv_encode_verdict("id", "22004", "", "the row has no id"));
		return false;
	}
	row->content_offset = content->len;
	if (row->wire.op == 'D')
		return true;
	if (step->projection->later && !step->projection->states)
		take_hash(row, values, nulls);
	if (step->projection->nfiles > 0)
		return true;
	return encode_content(step, row, values, nulls, content, scratch);
}

bool
dv_encode_changed(DvStep *step, const Datum *values, const bool *nulls, StringInfo scratch)
{
	DvRow		row;
	bool		changed;

	memset(&row, 0, sizeof(row));
	row.wire.op = DatumGetChar(values[DV_PROJ_OP - 1]);
	resetStringInfo(scratch);
	/* what was kept is looked at, not written */
	changed = row.wire.op == 'U' && nulls[DV_PROJ_FAULT - 1] &&
		append_both(step, &row, scratch, values, nulls, DV_SEND_INSERT) &&
		hash_content(step, &row, scratch->data, scratch->len, scratch, values, nulls) &&
		!dv_encode_is_unchanged(&row, values, nulls);
	step->noutcomes = 0;
	MemoryContextReset(step->outcome_context);
	return changed;
}

bool
dv_encode_hash(DvStep *step, const Datum *values, const bool *nulls, StringInfo scratch, unsigned char hash[16])
{
	DvRow		row;
	bool		written;

	memset(&row, 0, sizeof(row));
	row.wire.op = 'U';
	resetStringInfo(scratch);
	written = append_both(step, &row, scratch, values, nulls, DV_SEND_INSERT) &&
		hash_content(step, &row, scratch->data, scratch->len, scratch, values, nulls);
	step->noutcomes = 0;
	MemoryContextReset(step->outcome_context);
	memcpy(hash, row.hash, sizeof(row.hash));
	return written;
}

char *
dv_encode_preview(DvStep *step, HeapTuple tuple, TupleDesc desc, StringInfo body, char *op)
{
	const DvWireTable *table = &step->projection->wire;
	StringInfoData scratch;
	DvRow		row;
	Datum	   *values = palloc(sizeof(Datum) * desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * desc->natts);

	memset(&row, 0, sizeof(row));
	dv_encode_descriptor(step, desc);
	heap_deform_tuple(tuple, desc, values, nulls);
	*op = row.wire.op = DatumGetChar(values[DV_PROJ_OP - 1]);
	step->noutcomes = 0;
	take_trimmed(step, NULL);
	if (!nulls[DV_PROJ_FAULT - 1])
	{
		char	   *fault = TextDatumGetCString(values[DV_PROJ_FAULT - 1]);

		if (strncmp(fault, "parked|", 7) == 0)
			return psprintf("waits for the record that %s points at", fault + 7);
		take_fault(step, &row, fault);
	}
	else if (step->projection->link != NULL)
		appendStringInfoString(body, dv_links_preview(step, values, nulls));
	else
	{
		appendStringInfoChar(body, '{');
		if (!nulls[DV_PROJ_ID - 1])
			appendStringInfo(body, "\"%s\":\"%s\",", table->primary_id,
							 DatumGetCString(DirectFunctionCall1(uuid_out, values[DV_PROJ_ID - 1])));
		row.content_offset = body->len;
		if (append_both(step, &row, body, values, nulls, *op == 'U' ? DV_SEND_UPDATE : DV_SEND_INSERT) &&
			append_others(step, &row, body, values, nulls))
		{
			if (body->data[body->len - 1] == ',')
				body->data[--body->len] = '\0';
			appendStringInfoChar(body, '}');
		}
		else
			resetStringInfo(body);
	}
	if (step->noutcomes > 0)
		return psprintf("%s: %s", step->outcomes[0].verdict->column, dv_answer_told(step->outcomes[0].verdict));
	initStringInfo(&scratch);
	return note_of(step, values, nulls, &scratch);
}

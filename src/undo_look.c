/*
 * undo_look.c - is each record there, who wrote it last, what belongs to it?
 *
 * A record that stays keeps those it points at: which of ours point at which
 * others is noted, and spread upwards when all were looked at.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "encode.h"
#include "lanes.h"
#include "reply_json.h"
#include "spi.h"
#include "undo.h"
#include "wiretext.h"

/* Parents of one query: each takes a condition of about 75 characters. */
#define PARENTS_MAX		100

/*
 * Of so many parents the children are asked for by their parents; of more, all
 * records that point at anything by that lookup are read, 5,000 a page.
 */
#define BY_PARENT_MAX	2000

typedef enum LookKind
{
	LOOK_RECORDS,
	LOOK_RELATED,
	LOOK_ONE_TO_MANY,			/* metadata */
	LOOK_DEFINITIONS
} LookKind;

typedef struct LookAsk
{
	LookKind	kind;
	DvUndoChunk *chunk;
	DvUndoRelation *relation;
	char	  **body;			/* where the answer to a metadata query goes */
} LookAsk;

static DvAsk *
new_ask(DvUndo *u, LookKind kind, DvUndoChunk *chunk)
{
	LookAsk    *look = MemoryContextAllocZero(u->context, sizeof(LookAsk));

	look->kind = kind;
	look->chunk = chunk;
	if (chunk != NULL)
		chunk->asks++;
	return dv_asker_new(&u->asker, "GET", look);
}

static void
put_id(DvBuf *path, const pg_uuid_t *id)
{
	char		text[37];

	dv_source_format_id(id, text);
	dv_buf_puts(path, text);
}

/* ---------------------------------------------------------------- records */

static void
ask_records(DvUndo *u, DvUndoChunk *chunk)
{
	const DvWireTable *table = &chunk->table->projection->wire;
	DvAsk	   *ask = new_ask(u, LOOK_RECORDS, chunk);
	int			i;

	dv_buf_puts(&ask->path, "/");
	dv_buf_puts(&ask->path, table->entity_set);
	dv_buf_puts(&ask->path, "?$select=");
	dv_buf_puts(&ask->path, table->primary_id);
	dv_buf_puts(&ask->path, ",_modifiedby_value,_createdby_value&$filter=Microsoft.Dynamics.CRM.In(PropertyName=@p1,PropertyValues=@p2)&@p1='");
	dv_buf_puts(&ask->path, table->primary_id);
	dv_buf_puts(&ask->path, "'&@p2=%5B");
	for (i = 0; i < chunk->n; i++)
	{
		dv_buf_puts(&ask->path, i > 0 ? ",%22" : "%22");
		put_id(&ask->path, &chunk->ids[i]);
		dv_buf_puts(&ask->path, "%22");
	}
	dv_buf_puts(&ask->path, "%5D");
	dv_asker_queue(&u->asker, ask);
}

/* For records that point at others by this lookup; the condition is still to come. */
static DvAsk *
new_related(DvUndo *u, DvUndoChunk *chunk, DvUndoRelation *relation)
{
	DvAsk	   *ask = new_ask(u, LOOK_RELATED, chunk);

	((LookAsk *) ask->arg)->relation = relation;
	dv_buf_puts(&ask->path, psprintf("/%s?$select=%s,_%s_value&$filter=", relation->entity_set, relation->primary_id, relation->lookup));
	return ask;
}

/* Children of rows [from, to), by one of the lookups that may point at them. */
static void
ask_related(DvUndo *u, DvUndoChunk *chunk, DvUndoRelation *relation, int from, int to)
{
	DvAsk	   *ask = new_related(u, chunk, relation);
	int			i;

	for (i = from; i < to; i++)
	{
		dv_buf_puts(&ask->path, i > from ? "%20or%20_" : "_");
		dv_buf_puts(&ask->path, relation->lookup);
		dv_buf_puts(&ask->path, "_value%20eq%20");
		put_id(&ask->path, &chunk->ids[i]);
	}
	dv_asker_queue(&u->asker, ask);
}

/* All records that point at one of the table's by this lookup. */
static void
ask_pointing(DvUndo *u, DvUndoRelation *relation)
{
	DvAsk	   *ask = new_related(u, NULL, relation);

	dv_buf_puts(&ask->path, psprintf("_%s_value%%20ne%%20null", relation->lookup));
	ask->prefer = "Prefer: odata.maxpagesize=5000";
	dv_asker_queue(&u->asker, ask);
}

static void
read_pointing(DvUndo *u, DvUndoTable *table)
{
	MemoryContext scratch = AllocSetContextCreate(u->context, "dvmig undo loop", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	int			r;

	for (r = 0; r < table->nrelations; r++)
		if (!table->relations[r].unreadable)
			ask_pointing(u, &table->relations[r]);
	while (dv_asker_turn(&u->asker))
		MemoryContextReset(scratch);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}

static void
ask_all_related(DvUndo *u, DvUndoChunk *chunk)
{
	int			r;
	int			from;

	for (r = 0; r < chunk->table->nrelations; r++)
		for (from = 0; from < chunk->n && !chunk->table->relations[r].unreadable; from += PARENTS_MAX)
			ask_related(u, chunk, &chunk->table->relations[r], from, Min(from + PARENTS_MAX, chunk->n));
}

bool
dv_undo_is_changed(DvUndo *u, DvSlice record, bool strict)
{
	pg_uuid_t	modifier;
	pg_uuid_t	maker;
	char		text[37];

	if (!dv_page_uuid(dv_page_find(record, "_modifiedby_value"), modifier.data))
		return false;
	dv_source_format_id(&modifier, text);
	if (dv_lanes_is_user(u->rc->lanes, text))
		return false;
	return strict || !dv_page_uuid(dv_page_find(record, "_createdby_value"), maker.data) || memcmp(&maker, &modifier, sizeof(pg_uuid_t)) != 0;
}

/* False where the page was not understood. */
static bool
take_records(DvUndo *u, DvUndoChunk *chunk, DvPage *page)
{
	pg_uuid_t  *changed = palloc(sizeof(pg_uuid_t) * (chunk->n + 1));
	int			n = 0;
	DvSlice		record;

	while (dv_page_record(page, &record))
	{
		pg_uuid_t	id;
		int			i;

		if (!dv_page_uuid(dv_page_find(record, chunk->table->projection->wire.primary_id), id.data))
			return false;
		for (i = 0; i < chunk->n; i++)
			if (memcmp(&chunk->ids[i], &id, sizeof(id)) == 0)
				chunk->seen[i] = true;
		if (n < chunk->n && dv_undo_is_changed(u, record, false))
			changed[n++] = id;
	}
	if (n > 0)
		(void) dv_undo_call(u, "SELECT dvmig._undo_mark($1, $2, $3)", changed, n, "changed");
	return true;
}

static void
records_done(DvUndo *u, DvUndoChunk *chunk)
{
	pg_uuid_t  *gone = palloc(sizeof(pg_uuid_t) * (chunk->n + 1));
	int			n = 0;
	int			i;

	for (i = 0; i < chunk->n; i++)
		if (!chunk->seen[i])
			gone[n++] = chunk->ids[i];
	if (n > 0)
		dv_undo_call(u, "SELECT dvmig._undo_mark($1, $2, $3)", gone, n, "gone");
	if (chunk->table->created <= BY_PARENT_MAX)
		ask_all_related(u, chunk);
}

static bool
take_related(DvUndo *u, const DvUndoRelation *relation, DvPage *page)
{
	char	   *lookup = psprintf("_%s_value", relation->lookup);
	int			size = 64;
	int			n = 0;
	pg_uuid_t  *children = palloc(sizeof(pg_uuid_t) * size);
	pg_uuid_t  *parents = palloc(sizeof(pg_uuid_t) * size);
	Oid			types[4] = {INT8OID, InvalidOid, InvalidOid, TEXTOID};
	Datum		values[4];
	DvSwitch	before;
	DvSlice		record;

	while (dv_page_record(page, &record))
	{
		if (n == size)
		{
			size *= 2;
			children = repalloc(children, sizeof(pg_uuid_t) * size);
			parents = repalloc(parents, sizeof(pg_uuid_t) * size);
		}
		if (!dv_page_uuid(dv_page_find(record, relation->primary_id), children[n].data) || !dv_page_uuid(dv_page_find(record, lookup), parents[n].data))
			return false;
		n++;
	}
	if (n == 0)
		return true;
	before = dv_runstate_begin("dvmig: undo");
	dv_spi_follow_indexes();
	types[1] = types[2] = get_array_type(UUIDOID);
	values[0] = Int64GetDatum(u->rc->run);
	values[1] = dv_undo_id_array(children, n);
	values[2] = dv_undo_id_array(parents, n);
	values[3] = CStringGetTextDatum(lookup);
	dv_spi_run("SELECT dvmig._undo_related($1, $2, $3, $4)", 4, types, values, NULL, SPI_OK_SELECT);
	dv_runstate_commit(before, true);
	return true;
}

/* ---------------------------------------------------------------- answers */

static void
handle_page(DvUndo *u, DvAsk *ask, const DvHttpReply *reply)
{
	LookAsk    *look = ask->arg;
	DvPage		page;
	bool		records = look->kind == LOOK_RECORDS;

	if (!dv_page_open(&page, reply->body.data, reply->body.len) ||
		!(records ? take_records(u, look->chunk, &page) : take_related(u, look->relation, &page)))
	{
		dv_asker_not_understood(&u->asker, ask, "the answer to a query was not understood");
		return;
	}
	if (page.next_link.p != NULL)
	{
		dv_asker_follow(&u->asker, ask, page.next_link);
		return;
	}
	if (records)
		records_done(u, look->chunk);
	if (look->chunk != NULL)
		dv_undo_release(look->chunk);
}

/* Definitions of all tables: at least of those whose records are looked at. */
static bool
are_definitions(const DvUndo *u, const DvHttpReply *reply)
{
	int			i;

	for (i = 0; i < u->ntables; i++)
		if (u->tables[i].projection->link == NULL &&
			dv_wiretext_find(reply->body.data, reply->body.len, psprintf("\"%s\"", u->tables[i].projection->wire.logical_name)) == NULL)
			return false;
	return dv_json_has_list(reply->body.data, reply->body.len, "value");
}

/* What is no answer must not be taken for a table that nothing points at: records would be deleted with what others added. */
static void
handle_metadata(DvUndo *u, DvAsk *ask, const DvHttpReply *reply)
{
	LookAsk    *look = ask->arg;

	/* where it does not tell, what refresh_metadata() has read must do */
	if (reply->status >= 400 && reply->status < 500)
		return;
	if (reply->status != 200)
		dv_asker_fail_answer(&u->asker, reply);
	else if (look->kind == LOOK_DEFINITIONS ? !are_definitions(u, reply) :
			 !dv_json_has_list(reply->body.data, reply->body.len, "OneToManyRelationships"))
		dv_asker_not_understood(&u->asker, ask, "the answer to a query of metadata was not understood");
	else
		*look->body = MemoryContextStrdup(u->context, reply->body.data);
}

static void
handle_look(DvAsker *asker, DvAsk *ask, const DvHttpReply *reply)
{
	DvUndo	   *u = asker->arg;
	LookAsk    *look = ask->arg;

	if (look->kind == LOOK_ONE_TO_MANY || look->kind == LOOK_DEFINITIONS)
		handle_metadata(u, ask, reply);
	else if (reply->status == 200)
		handle_page(u, ask, reply);
	else if (look->kind == LOOK_RELATED && reply->status >= 400 && reply->status < 500)
	{
		/* a table that cannot be queried, or whose records we may not read; trouble of the service proves nothing */
		look->relation->unreadable = true;
		look->relation->forbidden |= reply->status == 403;
		if (look->chunk != NULL)
			dv_undo_release(look->chunk);
	}
	else
		dv_asker_fail_answer(asker, reply);
}

/* ---------------------------------------------------------------- relations */

static void
ask_metadata(DvUndo *u, LookKind kind, const char *path, char **body)
{
	DvAsk	   *ask = new_ask(u, kind, NULL);

	((LookAsk *) ask->arg)->body = body;
	dv_buf_puts(&ask->path, path);
	dv_asker_queue(&u->asker, ask);
}

static void
take_relations(DvUndo *u, DvUndoTable *table, const char *one_to_many, const char *definitions)
{
	Oid			types[4] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[4];
	char		nulls[5] = {' ', ' ', one_to_many ? ' ' : 'n', definitions ? ' ' : 'n', '\0'};
	DvSwitch	before;
	int			i;

	before = dv_runstate_begin("dvmig: undo");
	values[0] = CStringGetTextDatum(dv_session_server(u->rc->session)->name);
	values[1] = CStringGetTextDatum(table->projection->wire.logical_name);
	values[2] = one_to_many ? CStringGetTextDatum(one_to_many) : (Datum) 0;
	values[3] = definitions ? CStringGetTextDatum(definitions) : (Datum) 0;
	table->nrelations = (int) dv_spi_run("SELECT * FROM dvmig._undo_relations($1::name, $2, $3, $4)", 4, types, values, nulls, SPI_OK_SELECT);
	table->relations = MemoryContextAllocZero(u->context, sizeof(DvUndoRelation) * (table->nrelations + 1));
	for (i = 0; i < table->nrelations; i++)
	{
		table->relations[i].entity_set = dv_spi_keep(u->context, i, 1);
		table->relations[i].primary_id = dv_spi_keep(u->context, i, 2);
		table->relations[i].lookup = dv_spi_keep(u->context, i, 3);
		table->relations[i].cascades = dv_spi_text(i, 4) != NULL && strcmp(dv_spi_text(i, 4), "Cascade") == 0;
		table->relations[i].may_cascade = table->relations[i].cascades || dv_spi_text(i, 4) == NULL;
	}
	dv_runstate_commit(before, true);
}

static void
read_relations(DvUndo *u)
{
	char	   *definitions = NULL;
	char	  **one_to_many = MemoryContextAllocZero(u->context, sizeof(char *) * (u->ntables + 1));
	int			i;

	ask_metadata(u, LOOK_DEFINITIONS, "/EntityDefinitions?$select=LogicalName,EntitySetName,PrimaryIdAttribute", &definitions);
	for (i = 0; i < u->ntables; i++)
		if (u->tables[i].projection->link == NULL)
			ask_metadata(u, LOOK_ONE_TO_MANY,
					 psprintf("/EntityDefinitions(LogicalName='%s')?$select=LogicalName&$expand=OneToManyRelationships($select=ReferencingEntity,ReferencingAttribute)",
							  u->tables[i].projection->wire.logical_name), &one_to_many[i]);
	while (dv_asker_turn(&u->asker))
		;
	for (i = 0; i < u->ntables && !u->rc->stopping; i++)
		if (u->tables[i].projection->link == NULL)
			take_relations(u, &u->tables[i], one_to_many[i], definitions);
}

/*
 * Records that would be deleted along, and which we may not read, are none that
 * are not there. Tables that take no queries at all (some of the platform's, and
 * virtual ones) are only told: nobody could give us a privilege for them.
 */
static void
tell_unreadable(DvUndo *u, DvUndoTable *table, bool forbidden)
{
	StringInfoData sets;
	int			i;

	initStringInfo(&sets);
	for (i = 0; i < table->nrelations; i++)
	{
		const DvUndoRelation *r = &table->relations[i];

		if (r->unreadable && r->forbidden == forbidden && (forbidden ? r->may_cascade : r->cascades) &&
			strstr(psprintf(", %s,", sets.data), psprintf(", %s,", r->entity_set)) == NULL)
			appendStringInfo(&sets, "%s%s", sets.len > 0 ? ", " : "", r->entity_set);
	}
	if (sets.len > 0)
		(void) dv_undo_call(u, psprintf("SELECT dvmig._undo_unreadable($1, %u::regclass, $3, %s) WHERE $2 IS NOT NULL",
										table->plan.staging, forbidden ? "true" : "false"), NULL, 0, sets.data);
}

void
dv_undo_look(DvUndo *u)
{
	int			i;

	u->asker.answer = handle_look;
	read_relations(u);
	for (i = 0; i < u->ntables && !u->rc->stopping; i++)
	{
		if (u->tables[i].projection->link != NULL)
			continue;
		dv_undo_walk(u, &u->tables[i], DV_UNDO_SUCCESSES, DV_UNDO_ERRORS, ask_records);
		if (u->tables[i].created > BY_PARENT_MAX && !u->rc->stopping)
			read_pointing(u, &u->tables[i]);
		if (u->tables[i].created > 0 && !u->rc->stopping)
		{
			tell_unreadable(u, &u->tables[i], true);
			tell_unreadable(u, &u->tables[i], false);
		}
	}
	if (!u->rc->stopping)
		(void) dv_undo_call(u, "SELECT dvmig._undo_spread($1) WHERE $2 IS NOT NULL AND $3 IS NOT NULL", NULL, 0, NULL);
}

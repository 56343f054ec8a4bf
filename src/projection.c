/*
 * projection.c - a staging table and pass, ready to be read
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "projection.h"
#include "spi.h"

/* Schema and name of a table of the user's, which may have been dropped. */
static char *
qualified_name(MemoryContext context, Oid relid, const char *staging)
{
	char	   *name = get_rel_name(relid);
	char	   *schema = name ? get_namespace_name(get_rel_namespace(relid)) : NULL;

	if (schema == NULL && staging == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("staging table with OID %u does not exist", relid)));
	if (schema == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("an outcome table of staging table %s does not exist", staging),
				 errhint("dvmig.rebuild_outcomes() makes it again, from what is in Dataverse; a table of links is taken out with dvmig.drop_table() and added again.")));
	return MemoryContextStrdup(context, quote_qualified_identifier(schema, name));
}

/* Passes whose updates an image tells the contrary of: a state that an action sets is not one. */
static bool
keeps_images(const DvProjection *p)
{
	return strcmp(p->pass, "write") == 0 || strcmp(p->pass, "deferred") == 0 || (p->states && !p->closing) ||
		/* of a resend, which walks and reads as a verification does */
		strcmp(p->pass, "verify") == 0;
}

/* Target table, its bulk messages, the outcome tables, the key columns. */
static void
load_table(DvProjection *p, MemoryContext context)
{
	static const char *const sql =
		"SELECT t.target, mt.entity_set, mt.primary_id, mt.create_multiple, mt.update_multiple,"
		" t.success_table::pg_catalog.oid, t.error_table::pg_catalog.oid, t.on_exists, t.source_key,"
		" dvmig._closing_table(t.target), t.on_closed IS NOT DISTINCT FROM 'reopen',"
		" (SELECT c.navigation_property FROM dvmig.column_map c WHERE c.staging = t.staging AND c.target_column = '@left'),"
		" dvmig._request_headers(t.staging), CASE WHEN t.caller_object_id IS NOT NULL THEN 'CallerObjectId' WHEN t.caller_id IS NOT NULL THEN 'MSCRMCallerID' END,"
		" (t.on_closed IS NOT NULL OR dvmig._closing_table(t.target)) AND EXISTS (SELECT FROM dvmig.metadata_column c"
		" WHERE c.server = m.server AND c.table_name = t.target AND c.column_name = 'statecode'),"
		" (SELECT count(*) = 2 FROM dvmig.metadata_column c WHERE c.server = m.server AND c.table_name = t.target AND c.column_name IN ('createdon', 'createdby')),"
		" CASE WHEN t.keep_before_image THEN t.before_table::pg_catalog.oid END, CASE WHEN t.keep_before_image THEN dvmig._before_select(t.staging) END,"
		" dvmig._lost_parent(t.staging, $2), dvmig._rule_in_the_way(t)"
		" FROM dvmig.migration_table t JOIN dvmig.migration m USING (migration_id)"
		" JOIN dvmig.metadata_table mt ON mt.server = m.server AND mt.table_name = t.target"
		" WHERE t.staging = $1::pg_catalog.regclass";
	Oid			types[2] = {OIDOID, TEXTOID};
	Datum		values[2] = {ObjectIdGetDatum(p->staging), CStringGetTextDatum(p->pass)};
	ArrayType  *source_key;
	Datum	   *names;
	bool		isnull;
	int			i;

	if (dv_spi_run(sql, 2, types, values, NULL, SPI_OK_SELECT) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the target table of \"%s\" has no metadata", p->staging_sql),
				 errhint("Read it with dvmig.refresh_metadata().")));
	if (dv_spi_text(0, 19) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("column map \"%s\" of %s points at a staging table that has been dropped", dv_spi_text(0, 19), p->table_name),
				 errhint("Take it out with dvmig.unmap(), and map it anew where there is another table.")));
	if (dv_spi_text(0, 20) != NULL && strcmp(p->pass, "verify") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("the outcome tables of %s must not have rules: %s", p->table_name, dv_spi_text(0, 20)),
				 errhint("Drop the rule. What it adds a trigger can do, which leaves the outcomes as they are.")));
	p->wire.logical_name = dv_spi_keep(context, 0, 1);
	p->wire.entity_set = dv_spi_keep(context, 0, 2);
	p->wire.primary_id = dv_spi_keep(context, 0, 3);
	p->create_multiple = dv_spi_is_true(0, 4);
	p->update_multiple = dv_spi_is_true(0, 5);
	p->success = atooid(dv_spi_text(0, 6));
	p->success_sql = qualified_name(context, p->success, p->staging_sql);
	p->error_sql = qualified_name(context, atooid(dv_spi_text(0, 7)), p->staging_sql);
	p->on_exists = dv_spi_keep(context, 0, 8);
	p->closing = p->states && dv_spi_is_true(0, 10);
	p->reopen = dv_spi_is_true(0, 11);
	p->look_closed = !p->states && strcmp(p->pass, "delete") != 0 && dv_spi_is_true(0, 15);
	p->wire.with_state = p->states || p->look_closed;
	p->wire.with_creator = dv_spi_is_true(0, 16);
	p->link = dv_spi_keep(context, 0, 12);
	p->wire.part_headers = dv_spi_keep(context, 0, 13);
	p->wire.caller_header = dv_spi_keep(context, 0, 14);
	if (keeps_images(p) && dv_spi_text(0, 17) != NULL && dv_spi_text(0, 18) != NULL)
	{
		p->before_sql = qualified_name(context, atooid(dv_spi_text(0, 17)), p->staging_sql);
		p->before_select = dv_spi_keep(context, 0, 18);
	}

	source_key = DatumGetArrayTypeP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
												  9, &isnull));
	deconstruct_array(source_key, TEXTOID, -1, false, TYPALIGN_INT, &names, NULL, &p->nkeys);
	p->keys = MemoryContextAllocZero(context, sizeof(DvKeyType) * p->nkeys);
	for (i = 0; i < p->nkeys; i++)
	{
		p->keys[i].name = MemoryContextStrdup(context, TextDatumGetCString(names[i]));
		p->keys[i].column = MemoryContextStrdup(context, quote_identifier(p->keys[i].name));
	}
}

/* The parts of the SELECT and the types of the key columns. */
static void
load_select(DvProjection *p, Datum deferred, MemoryContext context)
{
	static const char *const sql =
		"SELECT select_sql, inner_sql, joins_sql, order_sql, key_types::pg_catalog.oid[], known_sql, outcomes_sql, fresh_sql, all_sql, count_sql"
		" FROM dvmig._projection($1::pg_catalog.regclass, $2, $3)";
	Oid			types[3] = {OIDOID, TEXTOID, TEXTARRAYOID};
	Datum		values[3] = {ObjectIdGetDatum(p->staging), CStringGetTextDatum(p->pass), deferred};
	Datum		key_types;
	Datum	   *oids;
	bool		isnull;
	int			i;
	int			n = 0;

	dv_spi_run(sql, 3, types, values, NULL, SPI_OK_SELECT);
	p->select_sql = dv_spi_keep(context, 0, 1);
	p->inner_sql = dv_spi_keep(context, 0, 2);
	p->joins_sql = dv_spi_keep(context, 0, 3);
	p->order_sql = dv_spi_keep(context, 0, 4);
	p->known_sql = dv_spi_keep(context, 0, 6);
	p->outcomes_sql = dv_spi_keep(context, 0, 7);
	p->fresh_sql = dv_spi_keep(context, 0, 8);
	p->all_sql = dv_spi_keep(context, 0, 9);
	p->count_sql = dv_spi_keep(context, 0, 10);
	/* of the columns that there are: null where there is none */
	key_types = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 5, &isnull);
	if (!isnull)
		deconstruct_array(DatumGetArrayTypeP(key_types), OIDOID, sizeof(Oid), true, TYPALIGN_INT, &oids, NULL, &n);
	if (n != p->nkeys)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("a source key column of \"%s\" no longer exists", p->staging_sql),
				 errhint("Define the table anew with dvmig.drop_table() and dvmig.add_table().")));
	for (i = 0; i < n; i++)
	{
		DvKeyType  *key = &p->keys[i];

		key->type = getBaseType(DatumGetObjectId(oids[i]));
		get_typlenbyval(key->type, &key->len, &key->byval);
	}
}

/* What each value column becomes. Types come with the first batch. */
static void
load_columns(DvProjection *p, Datum deferred, MemoryContext context)
{
	static const char *const sql =
		"SELECT c.target_column, c.member, c.column_type, c.date_behavior, c.entity_set, c.send, c.is_deferred, c.value_sql, c.max_units,"
		" c.target_column = ANY (dvmig._update_only($1::pg_catalog.regclass))"
		" FROM dvmig._projection_columns($1::pg_catalog.regclass, $2, $3) c";
	Oid			types[3] = {OIDOID, TEXTOID, TEXTARRAYOID};
	Datum		values[3] = {ObjectIdGetDatum(p->staging), CStringGetTextDatum(p->pass), deferred};
	int			i;

	p->ncolumns = (int) dv_spi_run(sql, 3, types, values, NULL, SPI_OK_SELECT);
	p->columns = MemoryContextAllocZero(context, sizeof(DvPayloadColumn) * (p->ncolumns + 1));
	p->expressions = MemoryContextAllocZero(context, sizeof(char *) * (p->ncolumns + 1));
	for (i = 0; i < p->ncolumns; i++)
	{
		DvPayloadColumn *c = &p->columns[i];
		const char *send = dv_spi_text(i, 6);
		const char *column_type = dv_spi_text(i, 3);

		c->attnum = DV_PROJ_KEYS + p->nkeys + i;
		c->column = dv_spi_keep(context, i, 1);
		c->member = dv_spi_keep(context, i, 2);
		c->entity_set = dv_spi_keep(context, i, 5);
		c->send = strcmp(send, "insert") == 0 ? DV_SEND_INSERT :
			strcmp(send, "update") == 0 ? DV_SEND_UPDATE : DV_SEND_INSERT | DV_SEND_UPDATE;
		/* In its own pass a deferred column is an ordinary one, though of a create. */
		if (strcmp(p->pass, "deferred") == 0)
			c->send = DV_SEND_INSERT | DV_SEND_UPDATE;
		c->deferred = dv_spi_is_true(i, 7) && strcmp(p->pass, "deferred") != 0;
		p->has_deferred |= c->deferred;
		c->late = dv_spi_is_true(i, 10);
		p->update_only |= c->send == DV_SEND_UPDATE && !c->late;
		if (column_type == NULL || !dv_payload_target(column_type, dv_spi_text(i, 4), &c->target))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("column \"%s\" of Dataverse table \"%s\" cannot be loaded",
							c->column, p->wire.logical_name),
					 errhint("Read the metadata anew with dvmig.refresh_metadata(), or take the column out with dvmig.unmap().")));
		p->expressions[i] = dv_spi_keep(context, i, 8);
		if (dv_spi_text(i, 9) != NULL && c->target == DV_TARGET_TEXT)
			c->max_units = atoi(dv_spi_text(i, 9));
		p->trims |= c->max_units > 0;
	}
}

/* The alternate key that rows are known by where Dataverse makes their ids. */
static void
load_alternate_key(DvProjection *p, Datum deferred, MemoryContext context)
{
	static const char *const sql =
		"SELECT dvmig._platform_key($1::pg_catalog.regclass, $2) FROM dvmig.migration_table t"
		" WHERE t.staging = $1::pg_catalog.regclass AND t.ids = 'platform'";
	Oid			types[2] = {OIDOID, TEXTARRAYOID};
	Datum		values[2] = {ObjectIdGetDatum(p->staging), deferred};
	Datum	   *names;
	Datum		key;
	bool		isnull;
	int			n;
	int			i;
	int			k;

	if (dv_spi_run(sql, 2, types, values, NULL, SPI_OK_SELECT) == 0)
		return;
	key = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s has ids => 'platform', but no active alternate key of Dataverse table \"%s\" is mapped",
						p->staging_sql, p->wire.logical_name),
				 errhint("Map all columns of an alternate key, and refresh the metadata once its index is active.")));
	deconstruct_array(DatumGetArrayTypeP(key), TEXTOID, -1, false, TYPALIGN_INT, &names, NULL, &n);
	p->key_columns = MemoryContextAlloc(context, sizeof(int) * n);
	for (k = 0; k < n; k++)
	{
		const char *name = TextDatumGetCString(names[k]);

		for (i = 0; i < p->ncolumns && strcmp(p->columns[i].column, name) != 0; i++)
			;
		if (i == p->ncolumns)
			elog(ERROR, "column \"%s\" of the alternate key is not in the projection", name);
		p->key_columns[k] = i;
	}
	p->nkey_columns = n;
}

/* The file columns, in their pass and where they are compared. */
static void
load_files(DvProjection *p, MemoryContext context)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(p->staging)};
	int			i;

	p->nfiles = (int) dv_spi_run("SELECT target_column, size_sql, bytes_sql, name_sql, coalesce(max_size, 0)"
								 " FROM dvmig._file_maps($1::pg_catalog.regclass)", 1, types, values, NULL, SPI_OK_SELECT);
	p->files = MemoryContextAllocZero(context, sizeof(DvFileColumn) * (p->nfiles + 1));
	for (i = 0; i < p->nfiles; i++)
	{
		p->files[i].column = dv_spi_keep(context, i, 1);
		p->files[i].size_sql = dv_spi_keep(context, i, 2);
		p->files[i].bytes_sql = dv_spi_keep(context, i, 3);
		p->files[i].name_sql = dv_spi_keep(context, i, 4);
		p->files[i].max_size = strtoll(dv_spi_text(i, 5), NULL, 10);
	}
}

DvProjection *
dv_projection_load(Oid staging, const char *pass, Datum deferred,
				   const char *api_path, const char *api_url, MemoryContext context)
{
	DvProjection *p = MemoryContextAllocZero(context, sizeof(DvProjection));

	p->staging = staging;
	p->pass = MemoryContextStrdup(context, pass);
	p->staging_sql = qualified_name(context, staging, NULL);
	p->wire.api_path = api_path;
	p->wire.api_url = api_url;
	p->states = strcmp(pass, "states") == 0;
	p->later = p->states || strcmp(pass, "deferred") == 0 || strcmp(pass, "files") == 0;
	p->table_name = MemoryContextStrdup(context, DatumGetCString(DirectFunctionCall1(regclassout, ObjectIdGetDatum(staging))));
	load_table(p, context);
	load_select(p, deferred, context);
	load_columns(p, deferred, context);
	if (strcmp(pass, "files") == 0 || strcmp(pass, "verify") == 0)
		load_files(p, context);
	if (strcmp(pass, "write") == 0)
		load_alternate_key(p, deferred, context);
	return p;
}

/* " AND (k1, k2) > ($1, $2)", numbered from "first". */
static void
append_bound(StringInfo sql, const DvProjection *p, const char *operator, int first)
{
	int			i;

	appendStringInfo(sql, " AND (%s) %s (", p->order_sql, operator);
	for (i = 0; i < p->nkeys; i++)
		appendStringInfo(sql, "%s$%d", i ? ", " : "", first + i);
	appendStringInfoChar(sql, ')');
}

/* Both bounds, as dv_projection_bounds() numbers them. Returns how many parameters they take. */
static int
append_bounds(StringInfo sql, const DvProjection *p, bool after, bool until)
{
	int			n = 0;

	if (after)
		append_bound(sql, p, ">", 1);
	n += after ? p->nkeys : 0;
	if (until)
		append_bound(sql, p, "<=", n + 1);
	n += until ? p->nkeys : 0;
	return n;
}

char *
dv_projection_query(const DvProjection *p, bool after, bool until, int limit, DvReadWhat what)
{
	StringInfoData sql;
	bool		known = what == DV_READ_KNOWN || what == DV_READ_EXAMINED;
	int			n;

	initStringInfo(&sql);
	appendStringInfo(&sql, "%s FROM (%s", known ? p->known_sql : p->select_sql, what == DV_READ_EXAMINED ? p->all_sql : p->inner_sql);
	n = append_bounds(&sql, p, after, until);
	if (limit > 0)
		appendStringInfo(&sql, " ORDER BY %s LIMIT %d) s ", p->order_sql, limit);
	else
		appendStringInfo(&sql, " ORDER BY %s LIMIT $%d) s ", p->order_sql, n + 1);
	appendStringInfoString(&sql, known ? p->outcomes_sql : what == DV_READ_FRESH ? p->fresh_sql : p->joins_sql);
	appendStringInfo(&sql, " ORDER BY %s", p->order_sql);
	return sql.data;
}

char *
dv_projection_outcomes_query(const DvProjection *p, bool after, bool until)
{
	const char *tables[] = {p->success_sql, p->error_sql};
	StringInfoData sql;
	int			i;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT false");
	for (i = 0; i < (int) lengthof(tables); i++)
	{
		appendStringInfo(&sql, " OR EXISTS (SELECT FROM %s s WHERE true", tables[i]);
		append_bounds(&sql, p, after, until);
		appendStringInfoChar(&sql, ')');
	}
	return sql.data;
}

char *
dv_projection_keys_query(const DvProjection *p, bool after, bool until, int n, bool all)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s FROM (%s", p->order_sql, all ? p->all_sql : p->inner_sql);
	append_bounds(&sql, p, after, until);
	appendStringInfo(&sql, " ORDER BY %s LIMIT %d) s OFFSET %d", p->order_sql, n, n - 1);
	return sql.data;
}

int
dv_projection_bounds(const DvProjection *p, const Datum *after, const Datum *until, Oid *types, Datum *values)
{
	const Datum *bounds[] = {after, until};
	int			n = 0;
	int			b;
	int			i;

	for (b = 0; b < (int) lengthof(bounds); b++)
		for (i = 0; bounds[b] != NULL && i < p->nkeys; i++)
		{
			types[n] = p->keys[i].type;
			values[n++] = bounds[b][i];
		}
	return n;
}

SPIPlanPtr
dv_projection_plan(const DvProjection *p, const Datum *after, const Datum *until, DvReadWhat what)
{
	Oid			types[2 * INDEX_MAX_KEYS + 1];
	Datum		values[2 * INDEX_MAX_KEYS];
	int			n = dv_projection_bounds(p, after, until, types, values);
	SPIPlanPtr	plan;

	types[n++] = INT8OID;
	plan = SPI_prepare_cursor(dv_projection_query(p, after != NULL, until != NULL, 0, what), n, types, CURSOR_OPT_GENERIC_PLAN);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "SPI_keepplan failed");
	return plan;
}

static void
add_parameter(ParamListInfo list, int at, Oid type, Datum value)
{
	list->params[at].value = value;
	list->params[at].isnull = false;
	list->params[at].pflags = PARAM_FLAG_CONST;
	list->params[at].ptype = type;
}

ParamListInfo
dv_projection_parameters(const DvProjection *p, const Datum *after, const Datum *until, int limit)
{
	Oid			types[2 * INDEX_MAX_KEYS];
	Datum		values[2 * INDEX_MAX_KEYS];
	int			n = dv_projection_bounds(p, after, until, types, values);
	ParamListInfo list = makeParamList(n + 1);
	int			i;

	for (i = 0; i < n; i++)
		add_parameter(list, i, types[i], values[i]);
	add_parameter(list, n, INT8OID, Int64GetDatum(limit));
	return list;
}

void
dv_projection_check_keys(const DvProjection *p, TupleDesc desc, int first)
{
	int			i;

	for (i = 0; i < p->nkeys; i++)
		if (getBaseType(TupleDescAttr(desc, first - 1 + i)->atttypid) != p->keys[i].type)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("source key column \"%s\" of %s got another type after the run began", p->keys[i].name, p->table_name),
					 errhint("Give the key columns of the outcome tables the same type, and start again.")));
}

void
dv_projection_check_type(const DvProjection *p, TupleDesc desc, int at, const char *name, Oid type)
{
	Oid			found = TupleDescAttr(desc, at - 1)->atttypid;

	if (getBaseType(found) != type)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of the tables beside %s has type %s instead of %s", name, p->table_name, format_type_be(found), format_type_be(type)),
				 errhint("Give it back the type that dvmig.add_table() made it with, and start again.")));
}

void
dv_projection_check_outcome(const DvProjection *p, TupleDesc desc)
{
	dv_projection_check_type(p, desc, DV_PROJ_ID, "dataverse_id", UUIDOID);
	dv_projection_check_type(p, desc, DV_PROJ_HASH, "content_hash", BYTEAOID);
	dv_projection_check_type(p, desc, DV_PROJ_CREATED_RUN, "created_run", INT8OID);
	dv_projection_check_type(p, desc, DV_PROJ_LAST_RUN, "run", INT8OID);
}

void
dv_projection_check_values(const DvProjection *p, const bool *nulls)
{
	int			i;

	for (i = 0; i < p->nkeys; i++)
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("source key column \"%s\" of %s or of its outcome tables is null in a row", p->keys[i].name, p->table_name),
					 errhint("Fill it or delete the row, make the key unique and not null again, and start again.")));
}

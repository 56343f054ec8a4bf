/*
 * verify_load.c - what a verification has to know of a staging table
 *
 * Its columns and how each is read back and compared, the list of members to be
 * asked for, and which rows are meant: a sample, those of a filter, all.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "spi.h"
#include "verify.h"

/* The annotation of a lookup that names the table it points at. */
#define LOOKUP_TABLE	"@Microsoft.Dynamics.CRM.lookuplogicalname"

static DvCompareKind
kind_of(const DvPayloadColumn *c, const char *column_type)
{
	switch (c->target)
	{
		case DV_TARGET_TEXT:
			return DV_COMPARE_TEXT;
		case DV_TARGET_INTEGER:
			return DV_COMPARE_NUMBER;
		case DV_TARGET_NUMBER:
			return strcmp(column_type, "Double") == 0 ? DV_COMPARE_DOUBLE :
				strcmp(column_type, "Money") == 0 ? DV_COMPARE_MONEY : DV_COMPARE_NUMBER;
		case DV_TARGET_BOOLEAN:
			return DV_COMPARE_BOOLEAN;
		case DV_TARGET_GUID:
			return DV_COMPARE_GUID;
		case DV_TARGET_DATE:
			return DV_COMPARE_DATE;
		case DV_TARGET_INSTANT:
		case DV_TARGET_WALL_CLOCK:
			return DV_COMPARE_INSTANT;
		case DV_TARGET_CHOICES:
			return DV_COMPARE_CHOICES;
		case DV_TARGET_LOOKUP:
			return DV_COMPARE_LOOKUP;
		case DV_TARGET_BINARY:
			/* the body of a note is told with its record; of an image only its id is (see verify_images.c) */
			return strcmp(column_type, "Image") == 0 ? DV_COMPARE_PRESENCE : DV_COMPARE_BASE64;
		case DV_TARGET_RAW:
			return DV_COMPARE_PARTIES;
	}
	return DV_COMPARE_PRESENCE;
}

static bool
is_summed(const char *column_type)
{
	static const char *const types[] = {"Integer", "BigInt", "Decimal", "Double", "Money"};
	int			i;

	for (i = 0; i < (int) lengthof(types); i++)
		if (strcmp(column_type, types[i]) == 0)
			return true;
	return false;
}

/* The column of that name, or a new one. */
static DvVerifyColumn *
column_named(DvVerify *v, const char *name)
{
	int			i;

	for (i = 0; i < v->ncolumns; i++)
		if (strcmp(v->columns[i].name, name) == 0)
			return &v->columns[i];
	v->columns[v->ncolumns].name = name;
	return &v->columns[v->ncolumns++];
}

static void
load_columns(DvVerify *v)
{
	const DvProjection *p = v->projection;
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(p->staging)};
	int			n = (int) dv_spi_run("SELECT * FROM dvmig._verify_columns($1::regclass)", 1, types, values, NULL, SPI_OK_SELECT);
	int			i;

	if (p->link != NULL)
		return;					/* links have ends, and no columns */
	if (n != p->ncolumns)
		elog(ERROR, "%d columns to be read back, %d are mapped", n, p->ncolumns);
	v->columns = MemoryContextAllocZero(v->context, sizeof(DvVerifyColumn) * (n + 1));
	v->images = MemoryContextAlloc(v->context, sizeof(DvVerifyColumn *) * (n + 1));
	v->part_column = MemoryContextAllocZero(v->context, sizeof(int) * (n + 1));
	v->part_index = MemoryContextAllocZero(v->context, n + 1);
	for (i = 0; i < n; i++)
	{
		const DvPayloadColumn *mapped = &p->columns[i];
		DvVerifyColumn *c = column_named(v, mapped->column);
		char	   *read_name = dv_spi_text(i, 1);
		char	   *column_type = dv_spi_text(i, 2);
		char	   *precision = dv_spi_text(i, 3);
		char	   *referenced = dv_spi_text(i, 4);
		char	   *full_image = dv_spi_text(i, 5);

		if (c->nparts >= DV_VERIFY_PARTS)
			elog(ERROR, "column \"%s\" is mapped too often", mapped->column);
		c->read_name = read_name ? MemoryContextStrdup(v->context, read_name) : NULL;
		c->kind = kind_of(mapped, column_type ? column_type : "");
		c->precision = precision ? atoi(precision) : -1;
		c->send |= mapped->send;
		/* states and status reasons belong to a pass of their own */
		c->optional = strcmp(mapped->column, "statecode") == 0 || strcmp(mapped->column, "statuscode") == 0;
		c->never_cleared = c->optional || strcmp(mapped->column, "ownerid") == 0;
		/* of a state that is not wanted, and of parties, all is known */
		c->default_known = c->optional || c->kind == DV_COMPARE_PARTIES;
		c->late |= mapped->late;
		c->deferred |= mapped->deferred || mapped->late || c->optional;
		c->summed = column_type != NULL && is_summed(column_type);
		if (c->kind == DV_COMPARE_PRESENCE && c->full_image == DV_IMAGE_NONE)
		{
			c->full_image = full_image == NULL ? DV_IMAGE_UNKNOWN : strcmp(full_image, "t") == 0 ? DV_IMAGE_KEPT : DV_IMAGE_NOT_KEPT;
			v->images[v->nimages++] = c;
		}
		v->part_column[i] = (int) (c - v->columns);
		v->part_index[i] = (signed char) c->nparts;
		c->maps[c->nparts] = i;
		c->referenced[c->nparts++] = referenced ? MemoryContextStrdup(v->context, referenced) : NULL;
	}
}

/* Does the select list have this member already? */
static bool
is_selected(const StringInfoData *select, const char *name)
{
	char	   *list = psprintf(",%s,", select->data);

	return strstr(list, psprintf(",%s,", name)) != NULL;
}

/* The place of a member among those that are of use. */
static int
told_named(DvVerify *v, const char *name)
{
	int			i;

	for (i = DV_TOLD_ID; i < v->ntold; i++)
		if (strcmp(v->told[i].name, name) == 0)
			return i;
	v->told[v->ntold].name = MemoryContextStrdup(v->context, name);
	v->told[v->ntold].len = strlen(name);
	return v->ntold++;
}

/* Which members of an answer are of use: the first ones, and each column's. */
static void
begin_told(DvVerify *v)
{
	int			i;

	v->told = MemoryContextAllocZero(v->context, sizeof(DvTold) * (DV_TOLD_FIRST + 1 + DV_VERIFY_CONTEXTS + 2 * v->ncolumns));
	v->told[DV_TOLD_NOTHING].len = SIZE_MAX;
	v->ntold = DV_TOLD_ID;
	(void) told_named(v, v->projection->wire.primary_id);
	(void) told_named(v, "@odata.etag");
	v->told_link = v->projection->link ? told_named(v, v->projection->link) : DV_TOLD_NOTHING;
	for (i = 0; i < v->ncolumns; i++)
	{
		DvVerifyColumn *c = &v->columns[i];

		c->told = c->read_name ? told_named(v, c->read_name) : DV_TOLD_NOTHING;
		c->told_table = c->read_name && c->kind == DV_COMPARE_LOOKUP ? told_named(v, psprintf("%s" LOOKUP_TABLE, c->read_name)) : DV_TOLD_NOTHING;
	}
}

static void
load_select(DvVerify *v)
{
	static const char *const members[DV_VERIFY_CONTEXTS] = {"modifiedon", "_modifiedby_value", "_createdby_value", "_ownerid_value"};
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(v->projection->staging)};
	StringInfoData select;
	char	   *context;
	int			i;

	v->expand = "";
	begin_told(v);
	if (v->projection->link != NULL)
	{
		dv_verify_load_link(v);
		return;
	}
	initStringInfo(&select);
	appendStringInfoString(&select, v->projection->wire.primary_id);
	dv_spi_run("SELECT array_to_string(dvmig._verify_context($1::regclass), ',')", 1, types, values, NULL, SPI_OK_SELECT);
	context = psprintf(",%s,", dv_spi_text(0, 1));
	for (i = 0; i < DV_VERIFY_CONTEXTS; i++)
	{
		if (strstr(context, psprintf(",%s,", members[i])) == NULL)
			continue;
		v->told_context[i] = told_named(v, members[i]);
		appendStringInfo(&select, ",%s", members[i]);
	}
	for (i = 0; i < v->ncolumns; i++)
		if (v->columns[i].kind == DV_COMPARE_PARTIES)
			v->expand = MemoryContextStrdup(v->context, psprintf("&$expand=%s($select=_partyid_value,participationtypemask,addressused)", v->columns[i].read_name));
		else if (v->columns[i].read_name != NULL && !is_selected(&select, v->columns[i].read_name))
			appendStringInfo(&select, ",%s", v->columns[i].read_name);
	v->select = MemoryContextStrdup(v->context, select.data);
}

/* The number by which a row is taken into the sample, as SQL, and how many rows or what share it is to be. */
static char *
load_sample(DvVerify *v, char **sample)
{
	Oid			types[2] = {OIDOID, INT8OID};
	Datum		values[2] = {ObjectIdGetDatum(v->projection->staging), Int64GetDatum(v->rc->run)};
	char	   *sql;

	dv_spi_run("SELECT dvmig._verify_sample($1::regclass, (h.options ->> 'sample')::numeric, h.run, 's'), h.options ->> 'sample'"
			   " FROM dvmig.run_history h WHERE h.run = $2", 2, types, values, NULL, SPI_OK_SELECT);
	sql = dv_spi_text(0, 1);
	*sample = dv_spi_text(0, 2);
	*sample = *sample ? MemoryContextStrdup(v->context, *sample) : NULL;
	return sql ? MemoryContextStrdup(v->context, sql) : NULL;
}

/*
 * The largest such number that still belongs to the sample, found with the owner's
 * rights. Where there are fewer rows than were asked for it is no sample.
 */
static void
load_threshold(DvVerify *v, const char *number_sql, const char *sample)
{
	char	   *threshold;

	dv_spi_begin("dvmig: taking a sample");
	dv_spi_run(strtod(sample, NULL) < 1
			   ? psprintf("SELECT least(trunc(%s * 18446744073709551616 - 9223372036854775808), 9223372036854775807)::bigint::text, false", sample)
			   : psprintf("SELECT max(h)::text, count(*) < %s FROM (SELECT %s AS h FROM %s s WHERE s.processing_flag IN ('S', 'P') ORDER BY 1 LIMIT %s) q",
						  sample, number_sql, v->projection->staging_sql, sample),
			   0, NULL, NULL, NULL, SPI_OK_SELECT);
	threshold = dv_spi_text(0, 1);
	if (!dv_spi_is_true(0, 2))
		v->sample_sql = MemoryContextStrdup(v->context, threshold ? psprintf("%s <= (%s)::bigint", number_sql, threshold) : "false");
	dv_spi_commit(true);
}

/* Rows that a filter took are known by a hash; outcomes whose row is gone do not matter. */
static void
load_resend(DvVerify *v)
{
	Oid			types[2] = {INT8OID, OIDOID};
	Datum		values[2] = {Int64GetDatum(v->rc->run), ObjectIdGetDatum(v->projection->staging)};
	DvSwitch	before;
	char	   *filter;

	before = dv_runstate_begin("dvmig: loading the definition");
	dv_spi_run("SELECT dvmig._run_filter($1, $2::regclass)", 2, types, values, NULL, SPI_OK_SELECT);
	filter = dv_spi_text(0, 1);
	v->projection->inner_sql = MemoryContextStrdup(v->context,
												   psprintf("%s AND s.processing_flag <> 'E' AND s.action_flag <> 'D'%s%s", v->projection->inner_sql,
															filter ? " AND " : "", filter ? filter : ""));
	dv_runstate_commit(before, true);
	MemoryContextSwitchTo(v->context);
	v->gone_done = true;
	v->step = palloc(sizeof(DvStep));
	dv_engine_init_step(v->step, NULL, v->context);
	v->step->projection = v->projection;
}

void
dv_verify_load(DvVerify *v)
{
	DvSwitch	before;
	char	   *number_sql;
	char	   *sample;

	before = dv_runstate_begin("dvmig: loading the definition");
	v->projection = dv_projection_load(v->plan.staging, "verify", v->plan.deferred,
									   dv_session_api_path(v->rc->session), dv_session_api_url(v->rc->session), v->context);
	load_columns(v);
	load_select(v);
	dv_verify_load_key(v);
	number_sql = load_sample(v, &sample);
	dv_runstate_commit(before, true);
	MemoryContextSwitchTo(v->context);
	if (number_sql != NULL)
		load_threshold(v, number_sql, sample);
	if (v->sample_sql != NULL)
		v->projection->inner_sql = psprintf("%s AND %s", v->projection->inner_sql, v->sample_sql);
	v->gone_table = v->projection->success_sql;
	if (v->resend != NULL)
		load_resend(v);
	if (v->rebuild != NULL)
		dv_rebuild_load(v);
}

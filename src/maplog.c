/*
 * maplog.c - edits of the tables that owners fill themselves, noted
 *
 * choice_map and user_map are edited by plain SQL, as whoever edits them. A
 * statement trigger notes the edit in dvmig.event: who, which column's choices,
 * how many rows, and where they lead in Dataverse, before and after. Not what
 * they come from, which quotes the source.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/rls.h"

#include "call.h"

PG_FUNCTION_INFO_V1(dv_log_rows);

/*
 * Is a dump being restored? Its rows are old and its events come with it; one
 * made here could take the number of one of those. pg_dump's scripts and
 * pg_restore set both; with row security off nobody whom it concerns can edit.
 */
static bool
is_restore(void)
{
	return !row_security && !check_function_bodies;
}

static const char *
operation_of(TriggerEvent event)
{
	if (TRIGGER_FIRED_BY_INSERT(event))
		return "insert";
	return TRIGGER_FIRED_BY_UPDATE(event) ? "update" : "delete";
}

/* How many of the values that rows lead to are told, of a column and a side. */
#define TOLD_VALUES 20

/*
 * SQL over the rows of both sides: "after" of an insert or update, "before" of
 * an update or delete. object and value are SQL over a row c.
 */
static const char *
edit_sql(TriggerEvent event, const char *object, const char *value)
{
	const char *after = "SELECT 'after' AS side, a.* FROM changed_to a";
	const char *before = "SELECT 'before' AS side, b.* FROM changed_from b";
	const char *sides = TRIGGER_FIRED_BY_INSERT(event) ? after : TRIGGER_FIRED_BY_DELETE(event) ? before
		: psprintf("%s UNION ALL %s", after, before);

	return psprintf("SELECT dvmig._log($1, m.name, $2, q.object, pg_catalog.jsonb_build_object("
					"'operation', $3, 'rows', q.n, 'before', q.before[1:%d], 'after', q.after[1:%d]))"
					" FROM (SELECT c.migration_id, %s AS object,"
					" greatest(pg_catalog.count(*) FILTER (WHERE side OPERATOR(pg_catalog.=) 'after'), pg_catalog.count(*) FILTER (WHERE side OPERATOR(pg_catalog.=) 'before')) AS n,"
					" pg_catalog.array_agg(DISTINCT v.value) FILTER (WHERE side OPERATOR(pg_catalog.=) 'before' AND v.value IS NOT NULL) AS before,"
					" pg_catalog.array_agg(DISTINCT v.value) FILTER (WHERE side OPERATOR(pg_catalog.=) 'after' AND v.value IS NOT NULL) AS after"
					" FROM (%s) c, LATERAL (SELECT %s AS value) v GROUP BY 1, 2) q"
					" JOIN dvmig.migration m USING (migration_id) ORDER BY m.name, q.object",
					TOLD_VALUES, TOLD_VALUES, object, sides, value);
}

/*
 * dv_log_rows(object, value): statement trigger with transition tables named
 * "changed_from" and "changed_to"; the arguments are SQL over their rows that
 * names what was edited, and gives where a row leads.
 */
Datum
dv_log_rows(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Oid			types[3] = {OIDOID, TEXTOID, TEXTOID};
	Datum		values[3];
	DvSwitch	was;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) || trigger->tg_trigger->tgnargs != 2)
		elog(ERROR, "dv_log_rows is for statement triggers with two arguments");
	if (is_restore())
		return PointerGetDatum(NULL);

	values[0] = ObjectIdGetDatum(GetUserId());
	values[1] = CStringGetTextDatum(RelationGetRelationName(trigger->tg_relation));
	values[2] = CStringGetTextDatum(operation_of(trigger->tg_event));
	was = dv_call_become_extension_owner();
	if (SPI_connect() != SPI_OK_CONNECT || SPI_register_trigger_data(trigger) < 0)
		elog(ERROR, "could not read the rows of a trigger");
	/* rows that go with their migration are noted as its end */
	if (SPI_execute_with_args(edit_sql(trigger->tg_event, trigger->tg_trigger->tgargs[0], trigger->tg_trigger->tgargs[1]),
							  3, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not note an edit");
	SPI_finish();
	dv_call_restore(was);
	return PointerGetDatum(NULL);
}

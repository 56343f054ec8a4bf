/*
 * doubt.c - what earlier runs of a table left in doubt
 *
 * A run that did not end cleanly may have had rows on their way; a database
 * that was restored or promoted may have forgotten whole runs. What is known
 * of that is in dvmig.migration_table, and is committed before anything is sent.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "doubt.h"
#include "settings.h"
#include "spi.h"

/*
 * What earlier runs left in doubt in this pass, and since when; marks the
 * table as being worked on. Only a pass that one of them began can have rows
 * in doubt: the others need not look theirs up.
 */
void
dv_doubt_begin(DvStep *step, const DvStepPlan *plan)
{
	Oid			types[4] = {INT8OID, OIDOID, TEXTOID, TEXTOID};
	Datum		values[4] = {Int64GetDatum(step->rc->run), ObjectIdGetDatum(plan->staging),
	CStringGetTextDatum(plan->name), CStringGetTextDatum(plan->pass)};
	Datum		since;
	Datum		until;
	Datum		run;
	bool		isnull;

	/*
	 * In another place than at last: what was done after the backup was taken is forgotten, that is
	 * since the last moment which this database knows of a run in the former place. A run that was at
	 * work then got its end here, when somebody noticed: what it knew is as old as its figures.
	 */
	dv_spi_run("UPDATE dvmig.migration_table t SET clean_end = false,"
			   " unclean_from = CASE WHEN t.clean_end THEN $1 ELSE coalesce(t.unclean_from, $1) END,"
			   " forgotten_since = CASE WHEN t.place <> dvmig._place() THEN coalesce(t.forgotten_since,"
			   "  (SELECT max(CASE WHEN h.state = 'interrupted' THEN h.updated_at ELSE greatest(h.ended_at, h.updated_at) END)"
			   "   FROM dvmig.run_history h WHERE h.migration_id = t.migration_id AND h.run < $1 AND h.place = t.place),"
			   "  t.created_at) ELSE t.forgotten_since END,"
			   " place = dvmig._place() WHERE t.staging::oid = $2",
			   2, types, values, NULL, SPI_OK_UPDATE);
	/*
	 * Rows of this pass are in doubt if it was begun, or deletes, an undo or a resend
	 * were, after which nothing is as it was; what any pass sent may still come. A table that
	 * no longer has its name may be this one, renamed since.
	 */
	dv_spi_run("SELECT least(min(r.started_at) FILTER (WHERE r.pass IN ($4, 'delete', 'undo', 'resend')), t.forgotten_since),"
			   " greatest(max(coalesce(h.ended_at, h.updated_at)), CASE WHEN t.forgotten_since IS NOT NULL THEN n.started_at END),"
			   " max(r.run) FILTER (WHERE r.pass = 'write')"
			   " FROM dvmig.migration_table t JOIN dvmig.run_history n ON n.run = $1"
			   " LEFT JOIN dvmig.run_table r ON (r.staging = $3 OR r.run IN (SELECT o.run FROM dvmig.run_history o WHERE o.migration_id = t.migration_id)"
			   "  AND NOT EXISTS (SELECT FROM dvmig.migration_table o WHERE o.staging::text = r.staging)) AND r.run >= t.unclean_from AND r.run < $1 AND r.started_at IS NOT NULL"
			   " LEFT JOIN dvmig.run_history h ON h.run = r.run WHERE t.staging::oid = $2 GROUP BY t.forgotten_since, n.started_at",
			   4, types, values, NULL, SPI_OK_SELECT);
	since = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	step->forgotten = !isnull;
	step->forgotten_since = isnull ? 0 : DatumGetTimestampTz(since);
	until = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	step->forgotten_until = isnull ? 0 : TimestampTzPlusMilliseconds(DatumGetTimestampTz(until), dv_settle_time_ms);
	run = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, &isnull);
	step->forgotten_run = isnull ? 0 : DatumGetInt64(run);
}

/*
 * The table is clean again once all is settled: what this step sent, what
 * other steps of this run sent, and what earlier runs left, for which every
 * pass must have been walked to its end.
 */
void
dv_doubt_end(DvStep *step, const DvStepPlan *plan)
{
	const DvRunContext *rc = step->rc;
	Oid			types[4] = {INT8OID, OIDOID, TEXTOID, BOOLOID};
	Datum		values[4] = {Int64GetDatum(rc->run), ObjectIdGetDatum(plan->staging),
	CStringGetTextDatum(plan->name), BoolGetDatum(!rc->stopping && rc->max_rows == 0 && !rc->filtered)};

	dv_spi_run("UPDATE dvmig.migration_table t SET clean_end = true, forgotten_since = NULL WHERE t.staging::oid = $2"
			   " AND NOT EXISTS (SELECT FROM dvmig.run_table r WHERE r.run = $1 AND r.staging = $3 AND r.state = 'failed')"
			   " AND (t.unclean_from = $1 AND t.forgotten_since IS NULL OR $4 AND NOT EXISTS"
			   "  (SELECT FROM dvmig.run_table r WHERE r.run = $1 AND r.staging = $3 AND r.state IN ('pending', 'held'))"
			   /* of what is closed by actions the state is always read first */
			   "  AND NOT EXISTS (SELECT FROM dvmig.run_table r WHERE r.run >= t.unclean_from AND r.run < $1 AND r.staging = $3 AND r.started_at IS NOT NULL"
			   "  AND r.pass NOT IN ('undo', 'resend') AND NOT (r.pass = 'states' AND dvmig._closing_table(t.target))"
			   "  AND NOT EXISTS (SELECT FROM dvmig.run_table n WHERE n.run = $1 AND n.staging = $3 AND n.pass = r.pass)))",
			   4, types, values, NULL, SPI_OK_UPDATE);
}

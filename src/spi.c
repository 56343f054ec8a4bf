/*
 * spi.c - the SPI ritual in one place
 *
 * Workers open and close every transaction here and nowhere else, so that
 * none can be left open while a request is on its way.
 */
#include "postgres.h"

#include "access/xact.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "spi.h"

/* Longest wait for a lock that a user holds, in milliseconds. */
#define LOCK_WAIT_MS	200

/* Context to go back to: ending a transaction leaves the current one elsewhere. */
static MemoryContext caller_context;

void
dv_spi_begin(const char *activity)
{
	caller_context = CurrentMemoryContext;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, activity);

	/* A background worker has no statement time-out unless it arms one. */
	if (StatementTimeout > 0)
		enable_timeout_after(STATEMENT_TIMEOUT, StatementTimeout);
}

void
dv_spi_follow_indexes(void)
{
	static const char *const settings[] = {"enable_seqscan", "enable_bitmapscan", "enable_sort", "enable_hashjoin", "enable_mergejoin"};
	int			i;

	for (i = 0; i < (int) lengthof(settings); i++)
		set_config_option(settings[i], "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

void
dv_spi_merge(void)
{
	set_config_option("enable_mergejoin", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

void
dv_spi_join_whole_tables(void)
{
	set_config_option("enable_nestloop", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

void
dv_spi_wait_briefly(void)
{
	if (LockTimeout == 0 || LockTimeout > LOCK_WAIT_MS)
		set_config_option("lock_timeout", CppAsString2(LOCK_WAIT_MS), PGC_USERSET, PGC_S_SESSION,
						  GUC_ACTION_LOCAL, true, 0, false);
}

void
dv_spi_no_timeouts(void)
{
	disable_timeout(STATEMENT_TIMEOUT, false);
	set_config_option("lock_timeout", "0", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

void
dv_spi_print_no_values(GucAction action)
{
	static const char *const printed[] = {"debug_print_parse", "debug_print_rewritten", "debug_print_plan"};
	size_t		i;

	for (i = 0; i < lengthof(printed); i++)
		(void) set_config_option(printed[i], "off", PGC_USERSET, PGC_S_SESSION, action, true, 0, false);
	/* known only where the module is loaded, or set in postgresql.conf */
	if (GetConfigOption("auto_explain.log_min_duration", true, false) != NULL)
		(void) set_config_option("auto_explain.log_min_duration", "-1", PGC_SUSET, PGC_S_SESSION, action, true, 0, false);
}

void
dv_spi_pin_meaning(GucAction action)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"TimeZone", "UTC"},
		{"DateStyle", "ISO, YMD"},
		{"IntervalStyle", "postgres"},
		{"extra_float_digits", "1"},
		{"bytea_output", "hex"},
		{"standard_conforming_strings", "on"},
		{"transform_null_equals", "off"},
		{"array_nulls", "on"},
		{"xmloption", "content"},
		{"xmlbinary", "base64"},
	};
	size_t		i;

	for (i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION, action, true, 0, false);
}

void
dv_spi_commit(bool asynchronous)
{
	disable_timeout(STATEMENT_TIMEOUT, false);
	SPI_finish();
	PopActiveSnapshot();
	if (asynchronous)
		set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
						  GUC_ACTION_LOCAL, true, 0, false);
	CommitTransactionCommand();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextSwitchTo(caller_context);
}

ErrorData *
dv_spi_abort(MemoryContext context)
{
	ErrorData  *error;

	disable_timeout(STATEMENT_TIMEOUT, false);
	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	AbortCurrentTransaction();
	MemoryContextSwitchTo(context);
	pgstat_report_activity(STATE_IDLE, NULL);
	return error;
}

bool
dv_spi_is_raised(const ErrorData *error)
{
	return error->funcname != NULL && strcmp(error->funcname, "exec_stmt_raise") == 0;
}

const char *
dv_spi_told(const ErrorData *error)
{
	/* SQLSTATE classes of errors that are about values; see also source.c */
	static const char *const classes[] = {"0A", "21", "22", "23", "2F", "38", "39", "44", "54", "P0"};
	const char *state = unpack_sql_state(error->sqlerrcode);
	bool		by_user = dv_spi_is_raised(error);
	size_t		i;

	for (i = 0; i < lengthof(classes) && !by_user; i++)
		by_user = strncmp(state, classes[i], 2) == 0;
	return by_user ? psprintf("an expression, trigger or constraint threw an error (SQLSTATE %s)", state) : error->message;
}

bool
dv_spi_is_contention(const ErrorData *error)
{
	return ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TO_CATEGORY(ERRCODE_T_R_SERIALIZATION_FAILURE) ||
		error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
}

uint64
dv_spi_run(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls, int expected)
{
	int			rc = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);

	if (rc == SPI_OK_REWRITTEN)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("a rule does something else in place of what dvmig writes into a staging or outcome table"),
				 errhint("Drop the rule; a trigger can do what it adds.")));
	if (rc != expected)
		elog(ERROR, "SPI answered %s where %s was expected",
			 SPI_result_code_string(rc), SPI_result_code_string(expected));
	return SPI_processed;
}

char *
dv_spi_text(int row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

char *
dv_spi_keep(MemoryContext context, int row, int column)
{
	char	   *value = dv_spi_text(row, column);

	return value ? MemoryContextStrdup(context, value) : NULL;
}

bool
dv_spi_is_true(int row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	return !isnull && DatumGetBool(value);
}

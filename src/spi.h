/*
 * spi.h - the SPI ritual in one place
 */
#ifndef DV_SPI_H
#define DV_SPI_H

#include "postgres.h"

#include "executor/spi.h"
#include "utils/guc.h"

/* Begin a transaction with SPI connected and a snapshot; name is for pg_stat_activity. */
extern void dv_spi_begin(const char *activity);

/*
 * For the rest of the transaction plan along indexes, however few rows the
 * statistics promise: after a load they say that nothing is unprocessed, and a
 * scan of the table for every batch would make a run quadratic.
 */
extern void dv_spi_follow_indexes(void);

/* Along indexes, but two tables of one order side by side: for what few rows of either have no match. */
extern void dv_spi_merge(void);

/*
 * The other way round, for a query over whole tables: statistics that are older
 * than a load promise few rows, and a loop for each of them never ends.
 */
extern void dv_spi_join_whole_tables(void);

/*
 * For the rest of the transaction wait for locks but briefly, so that a user
 * who locks a table does not keep us in a transaction: 55P03 means "later".
 */
extern void dv_spi_wait_briefly(void);

/* Pause, outside of a transaction, before that is tried again, in milliseconds. */
#define DV_LOCK_PAUSE_MS	100

/* For the rest of the transaction the session's time-outs do not count. */
extern void dv_spi_no_timeouts(void);

/*
 * Plans and trees in the server log would show the values in them, and those
 * are of rows: none are printed of what dvmig runs, nor of what that runs.
 */
extern void dv_spi_print_no_values(GucAction action);

/*
 * Expressions of a migration mean the same wherever they are evaluated: set what
 * changes their values or their reading. search_path is set, too.
 */
extern void dv_spi_pin_meaning(GucAction action);

/* End it by commit. asynchronous: its WAL need not be flushed before going on. */
extern void dv_spi_commit(bool asynchronous);

/* After an error was caught: abort, and copy the error into "context". */
extern ErrorData *dv_spi_abort(MemoryContext context);

/*
 * What an error may tell those who watch a run: its message, but only the
 * SQLSTATE of one that an expression, trigger or constraint of a user's threw,
 * because that can quote a row. In the current memory context.
 */
extern const char *dv_spi_told(const ErrorData *error);

/* Worth another try: deadlock, serialization failure, lock not available. */
extern bool dv_spi_is_contention(const ErrorData *error);

/* Raised by RAISE of PL/pgSQL, which can give any SQLSTATE to any text? */
extern bool dv_spi_is_raised(const ErrorData *error);

/*
 * Run a statement with parameters; throws unless SPI answers "expected". Its
 * snapshot is taken once its tables are locked: with an older one, a table that
 * ALTER TABLE has rewritten while its lock was waited for would look empty.
 */
extern uint64 dv_spi_run(const char *sql, int nargs, Oid *types, Datum *values,
						 const char *nulls, int expected);

/* A column of a result row as text, copied into the current context, or into one that outlives the transaction; NULL if null. */
extern char *dv_spi_text(int row, int column);
extern char *dv_spi_keep(MemoryContext context, int row, int column);

/* Is a bool column of a result row true? Null is not. */
extern bool dv_spi_is_true(int row, int column);

#endif							/* DV_SPI_H */

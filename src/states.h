/*
 * states.h - the pass that sets statecode and statuscode
 */
#ifndef DV_STATES_H
#define DV_STATES_H

#include "answer.h"

/* The state that a row of the projection is to have. */
extern void dv_states_take(DvStep *step, DvRow *row, const Datum *values, const bool *nulls);

/* "statecode,statuscode" as the success table keeps it. */
extern const char *dv_states_text(const DvRow *row);

/*
 * A record was read. True where its row has its verdict: it is in the state
 * that is wanted, or cannot get there. Else, where the table is closed by
 * actions, the row's next operation is made.
 */
extern bool dv_states_found(DvStep *step, DvRow *row, const DvWireFound *found);

/*
 * A record is to be changed, and was read. True where its row has its verdict:
 * it is closed and to stay so. Where it is to be reopened, the row's request
 * becomes one that opens, changes and closes it.
 */
extern bool dv_states_closed(DvStep *step, DvRow *row, const DvWireFound *found);

/* The row's operation was done. True where another one has to follow. */
extern bool dv_states_go_on(DvRow *row);

#endif							/* DV_STATES_H */

/*
 * actions.h - actions that close records: CloseIncident, WinOpportunity, CloseQuote, ...
 */
#ifndef SIM_ACTIONS_H
#define SIM_ACTIONS_H

#include "request.h"

/* The action that alone brings records of a table to a state; NULL where columns do. */
extern const char *sim_action_for(const SimTable *t, int64_t state);

/* Run the action named by the first URL segment; *known tells whether there is one. */
extern bool sim_action_run(SimReq *r, SimResp *resp, bool *known);

#endif							/* SIM_ACTIONS_H */

/*
 * actions.h - actions that close records: CloseIncident, WinOpportunity, ...
 */
#ifndef SIM_ACTIONS_H
#define SIM_ACTIONS_H

#include "request.h"

/* Run the action named by the first URL segment; *known tells whether there is one. */
extern bool sim_action_run(SimReq *r, SimResp *resp, bool *known);

#endif							/* SIM_ACTIONS_H */
